//! A VM whose threads have the system calls that it says it needs, and no others: one that is not on
//! the list ends the process.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{self, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use proto::Start;
use vmm::command::{self, Forwarded};
use vmm::exit::Exit;
use vmm::verdict::Verdict;
use vmm::vm::Vm;

use crate::guest::{PATIENCE, config, elf, kvm, vm};
use crate::{halt, two};

#[test]
fn two_processors_run_confined() {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        let vm = vm(&two(), 2);
        vm.restrict_thread().unwrap();
        done.send(vm.run().unwrap().exit).unwrap();
    });
    assert_eq!(finished.recv_timeout(PATIENCE).unwrap(), Exit::PowerOff);
}

/// Set for the copy of this test program that runs the guest: the signals are those of a process.
const MONITOR: &str = "RUNQ_TEST_MONITOR";

fn silent_guest() -> Vm {
    let mut command = command::Command::new(Start::default(), Forwarded::All);
    command.patience = Duration::from_millis(1);
    let kernel = elf(&halt());
    let mut config = config(&kernel, 1);
    config.command = Some(command);
    Vm::on(&kvm(), config).unwrap()
}

#[test]
fn a_silent_guest_is_told_of_once_and_ends_by_a_signal() {
    if env::var_os(MONITOR).is_some() {
        let vm = silent_guest();
        vm.restrict_thread().unwrap();
        process::exit(Verdict::of(&vm.run().unwrap()).code.into());
    }
    let test = "confined::a_silent_guest_is_told_of_once_and_ends_by_a_signal";
    // The copy inherits it: no thread of the test harness in it shall take the signal.
    SigSet::from(Signal::SIGTERM).thread_block().unwrap();
    let mut monitor = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(MONITOR, "")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(monitor.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let start = "runq-vmm: the guest's init has not answered for 0 s: --console serial";
    assert!(line.starts_with(start), "{line}");
    kill(Pid::from_raw(monitor.id() as i32), Signal::SIGTERM).unwrap();
    assert!(lines.next().is_none(), "told again");
    assert_eq!(monitor.wait().unwrap().code(), Some(128 + 15));
}
