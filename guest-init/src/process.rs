//! Becoming the command: from a fork of init to execve(2).

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use libc::pid_t;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, pipe2, sethostname};
use proto::{Process, Start};

use crate::control::Control;
use crate::failure::Failure;
use crate::stdio::CommandEnd;
use crate::syscalls::Execution;
use crate::{cgroup, limits, lookup, passwd, rights, root, syscalls, sysctl};

/// Bytes of a failure's message that are told.
pub(crate) const MAX_MESSAGE: u64 = 4096;
/// What files are created without, as in every container.
const DEFAULT_UMASK: u32 = 0o022;

/// Starts the command; its process number. It has been executed when this returns, or is gone.
pub(crate) fn start(
    start: &Start,
    stdio: CommandEnd,
    control: &mut Control,
) -> Result<pid_t, Failure> {
    let (result, report) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let Some(pid) = fork_in_pid_namespace()? else {
        let Err(failure) = become_command(start, stdio, control);
        tell(report.into(), &failure);
        std::process::exit(1);
    };
    // Only the child may hold these: its end is what closes them.
    drop((report, stdio));
    let Some(failure) = hear(result.into())? else {
        return Ok(pid);
    };
    // Its mounts go with it: a disk is unmounted before the host is told, and ends the guest.
    syscalls::reap(pid).context("reap the command")?;
    Err(failure)
}

/// Forks a child that is PID 1 of a new PID namespace.
pub(crate) fn fork_in_pid_namespace() -> Result<Option<pid_t>> {
    let path = "/proc/self/ns/pid";
    let own = File::open(path)
        .with_context(|| format!("open {path} (the kernel needs CONFIG_PID_NS)"))?;
    unshare(CloneFlags::CLONE_NEWPID).context("make a PID namespace")?;
    let child = syscalls::fork().context("fork")?;
    if child.is_some() {
        // Otherwise init could have no more threads.
        setns(own, CloneFlags::CLONE_NEWPID).context("return to init's PID namespace")?;
    }
    Ok(child)
}

/// In the child: passes on why it is not the command.
pub(crate) fn tell(mut report: File, failure: &Failure) {
    let mut bytes = vec![failure.code];
    bytes.extend_from_slice(failure.message.as_bytes());
    // Who does not hear it sees the child's end.
    let _ = report.write_all(&bytes);
}

/// In init: waits until the child has executed the command, which closes the pipe, or tells why it
/// has not, and ends.
fn hear(result: File) -> Result<Option<Failure>> {
    let mut bytes = Vec::new();
    result
        .take(MAX_MESSAGE)
        .read_to_end(&mut bytes)
        .context("hear of the command's start")?;
    Ok(told(&bytes))
}

/// What the child has told until it closed the pipe; none once it has executed the command.
pub(crate) fn told(report: &[u8]) -> Option<Failure> {
    let (&code, message) = report.split_first()?;
    Some(Failure {
        code,
        message: String::from_utf8_lossy(message).into_owned(),
    })
}

/// In the child: takes on everything that the command has, and executes it.
///
/// Signals have their default actions and none is blocked: init changes neither.
fn become_command(
    start: &Start,
    stdio: CommandEnd,
    control: &mut Control,
) -> Result<Infallible, Failure> {
    let process = &start.process;
    isolate(start)?;
    // Init waits for us, and tells nothing meanwhile.
    root::enter(start, &mut |files, bytes| control.copied(files, bytes))?;
    stdio.attach(Uid::from_raw(process.user.uid))?;
    root::seal(start)?;
    finish(process)
}

/// In a child that is in the command's namespaces and root: what is left to become a command there.
pub(crate) fn finish(process: &Process) -> Result<Infallible, Failure> {
    limits::set(&process.rlimits)?;
    umask(mode(process.umask.unwrap_or(DEFAULT_UMASK)));
    rights::take_on(process)?;
    execute(process)
}

/// Leaves init's namespaces, and sets what is set through init's /proc and /sys.
fn isolate(start: &Start) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
        .context("make mount and IPC namespaces (the kernel needs CONFIG_IPC_NS)")?;
    if let Some(limits) = &start.cgroup {
        cgroup::enter(limits)?;
    }
    if let Some(score) = start.process.oom_score_adj {
        limits::set_oom_score_adj(score)?;
    }
    if let Some(name) = &start.hostname {
        sethostname(name).with_context(|| format!("set the host name {name}"))?;
    }
    sysctl::write(&start.sysctls)
}

/// The bits that are permissions.
fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits & 0o777)
}

/// Executes the command, with the rights that this process has taken on.
pub(crate) fn execute(process: &Process) -> Result<Infallible, Failure> {
    let name = process.args.first().context("no command is given")?;
    let mut env = strings(&process.env)?;
    if lookup::variable("HOME", &process.env).is_none() {
        env.push(home_variable(Path::new("/etc/passwd"), process.user.uid)?);
    }
    let args = strings(&process.args)?;
    let file = lookup::executable(name, &process.env)?;
    let path = CString::new(file.as_os_str().as_encoded_bytes()).context("a zero byte")?;
    let execution = Execution::new(&path, &args, &env);
    let filter = rights::prepare_filter(process)?;
    rights::filter(&filter)?;
    // From here on nothing is allocated or freed: the filter may forbid all but this.
    let errno = execution.perform();
    Err(exec_failure(&file, errno))
}

/// The file itself was found: what is missing, then, is one that it needs.
fn exec_failure(file: &Path, errno: Errno) -> Failure {
    let object = match errno {
        Errno::ENOENT => format!("{}: its interpreter or dynamic loader", file.display()),
        _ => file.display().to_string(),
    };
    Failure::of_command(&object, errno)
}

/// HOME as the user's passwd entry has it, or else the root.
fn home_variable(passwd: &Path, uid: u32) -> Result<CString> {
    let mut variable = b"HOME=".to_vec();
    variable.extend(passwd::home(passwd, uid).unwrap_or_else(|| b"/".to_vec()));
    CString::new(variable).context("HOME")
}

fn strings(strings: &[String]) -> Result<Vec<CString>> {
    let convert = |text: &String| {
        CString::new(text.as_str())
            .with_context(|| format!("{text:?} contains a zero byte, which the kernel cannot take"))
    };
    strings.iter().map(convert).collect()
}
