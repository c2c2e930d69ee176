//! A volume whose file system never answers: a server that is gone, behind a network.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::PipeFlags;
use tempfile::TempDir;
use tests::docker::{Container, docker, script};

use crate::{assert_code, assert_output};

/// Opcodes of linux/fuse.h.
const GETATTR: u32 = 3;
const INIT: u32 = 26;

const ENOSYS: i32 = 38;

/// A file system of a root directory, which answers until it is told not to.
struct FileSystem {
    directory: TempDir,
    server: Option<(OwnedFd, JoinHandle<()>)>,
    // The connection ends with it.
    _device: Arc<File>,
}

impl FileSystem {
    fn mount() -> Self {
        script("modprobe fuse").unwrap();
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = Arc::new(device.unwrap());
        // For mount(8), which hands it to the kernel.
        fcntl_setfd(&device, FdFlags::empty()).unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        let path = directory.path().display();
        script(&format!("mount -i -t fuse -o {options} hung {path}")).unwrap();
        fcntl_setfd(&device, FdFlags::CLOEXEC).unwrap();
        // No program that is started meanwhile keeps it.
        let (stop, stopped) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        let served = Arc::clone(&device);
        let server = thread::spawn(move || serve(&served, &stop));
        Self {
            directory,
            server: Some((stopped, server)),
            _device: device,
        }
    }

    fn path(&self) -> String {
        self.directory.path().to_str().unwrap().to_owned()
    }

    /// From here on it answers nothing.
    fn hang(&mut self) {
        let (stop, server) = self.server.take().unwrap();
        drop(stop);
        server.join().unwrap();
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let _ = script(&format!("umount -l {}", self.path()));
    }
}

/// Answers what it takes to find the root directory, until the other end of `stop` is closed.
fn serve(mut device: &File, stop: &OwnedFd) {
    let mut request = vec![0; 1 << 16];
    loop {
        let mut ready = [
            PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        poll(&mut ready, None).unwrap();
        if !ready[1].revents().is_empty() {
            return;
        }
        let length = device.read(&mut request).unwrap();
        assert!(length >= 40);
        let word = |at: usize| u32::from_ne_bytes(*request[at..].first_chunk().unwrap());
        let (error, body) = match word(4) {
            INIT => (0, init()),
            GETATTR => (0, attributes()),
            _ => (-ENOSYS, Vec::new()),
        };
        // `struct fuse_out_header`: len, error, unique.
        let mut answer = u32::try_from(16 + body.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        answer.extend(error.to_ne_bytes());
        answer.extend(&request[8..16]);
        answer.extend(body);
        device.write_all(&answer).unwrap();
    }
}

/// `struct fuse_init_out`: version 7.31, requests of a page; nothing else.
fn init() -> Vec<u8> {
    let words = [7u32, 31, 0, 0, 0, 4096];
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    body.resize(64, 0);
    body
}

/// `struct fuse_attr_out`: a directory, whose attributes hold for a day.
fn attributes() -> Vec<u8> {
    let mut body = 86400u64.to_ne_bytes().to_vec();
    body.extend([0; 8]);
    body.extend(1u64.to_ne_bytes()); // ino
    body.resize(16 + 60, 0);
    body.extend(0o40755u32.to_ne_bytes());
    body.extend(2u32.to_ne_bytes()); // nlink
    body.resize(16 + 88, 0);
    body
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_volume_that_never_answers_leaves_the_others_alone() {
    const READERS: u32 = 20;
    let mut hung = FileSystem::mount();
    let other = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(other.path().join("file"), "volume\n").unwrap();

    let container = Container::new().unwrap();
    let volumes = [
        format!("{}:/hung", hung.path()),
        format!("{}:/other", other.path().display()),
    ];
    let options = ["-v", &volumes[0], "-v", &volumes[1]];
    container
        .detach(&options, "echo ready; sleep 1000")
        .unwrap();
    container.follow().unwrap().wait_for("ready\n").unwrap();
    let exec = |command: &str| {
        let call = docker().args(["exec", container.name(), "sh", "-c", command]);
        call.launch().unwrap().wait().unwrap()
    };
    assert_output(&exec("cd /hung && pwd"), "/hung\n");

    hung.hang();
    let reading = exec(&format!(
        "for i in $(seq {READERS}); do cat /hung/$i >/dev/null 2>&1 </dev/null & done"
    ));
    assert_output(&reading, "");
    // Each of them holds up a thread of the monitor's.
    script(&format!(
        "until [ $(grep -l fuse /proc/{}/task/*/stack | wc -l) -ge {READERS} ]; do sleep 0.1; done",
        container.pid().unwrap()
    ))
    .unwrap();
    let others = exec("cat /other/file; echo root >/written; cat /written; ls -d /etc");
    assert_output(&others, "volume\nroot\n/etc\n");

    container.docker(&["stop", "-t", "1"]).unwrap();
    assert_eq!(container.inspect("{{.State.Status}}").unwrap(), "exited");
    container.docker(&["rm"]).unwrap();
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_container_with_a_volume_that_never_answers_ends_with_its_process() {
    let mut hung = FileSystem::mount();
    let container = Container::new().unwrap();
    let volume = format!("{}:/hung", hung.path());
    let call = container.docker_run().args(["--rm", "-i", "-v", &volume]);
    let script = "cd /hung && echo ready; read line; exit 5";
    let call = call.args(["busybox", "sh", "-c", script]).open_stdin();
    let mut run = call.launch().unwrap();
    run.wait_for("ready\n").unwrap();
    hung.hang();
    run.write("\n").unwrap();
    assert_code(&run.wait().unwrap(), 5);
}
