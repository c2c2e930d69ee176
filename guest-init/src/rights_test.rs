use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::PoisonError;

use super::*;
use crate::process::execute;
use crate::reap::CHILDREN;

/// Says in a child which of [`CASES`] it is to become.
const CASE: &str = "RUNQ_TEST_CASE";
/// Uid and whether programs can gain no rights.
const CASES: [(u32, bool); 4] = [(0, false), (0, true), (1000, false), (1000, true)];
const CHOWN: u64 = 1;

/// Operations of linux/filter.h and linux/bpf_common.h.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// In a child that is to be one of [`CASES`]: executes a command with its rights and this filter.
/// Else starts a child for each, which runs the test `name` alone, and passes its end to `check`.
fn for_each_case(
    name: &str,
    args: &[&str],
    seccomp: Vec<FilterInstruction>,
    check: impl Fn(&(u32, bool), &Output),
) {
    if let Ok(case) = env::var(CASE) {
        let case = CASES[case.parse::<usize>().unwrap()];
        let process = process(args, seccomp, case);
        take_on(&process).unwrap();
        let Err(failure) = execute(&process);
        panic!("{failure}");
    }
    let _children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    for (number, case) in CASES.iter().enumerate() {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "--nocapture", &format!("rights::tests::{name}")]);
        check(case, &child.env(CASE, number.to_string()).output().unwrap());
    }
}

fn process(
    args: &[&str],
    seccomp: Vec<FilterInstruction>,
    (uid, no_new_privileges): (u32, bool),
) -> Process {
    Process {
        args: args.iter().map(ToString::to_string).collect(),
        cwd: "/".to_owned(),
        user: User {
            uid,
            gid: uid,
            additional_gids: Vec::new(),
        },
        capabilities: Some(Capabilities {
            bounding: CHOWN,
            effective: CHOWN,
            permitted: CHOWN,
            ..Capabilities::default()
        }),
        no_new_privileges,
        seccomp,
        ..Process::default()
    }
}

/// The filter has to allow execve(2), and what the command itself asks for.
#[test]
fn nothing_that_init_does_needs_the_filter() {
    // A child finds what its parent has written.
    let writer = env::var(CASE).map_or_else(|_| std::process::id(), |_| parent_id());
    let program = env::temp_dir().join(format!("runq-exits-{writer}"));
    if env::var(CASE).is_err() {
        write_program(&program);
    }
    for_each_case(
        "nothing_that_init_does_needs_the_filter",
        &[program.to_str().unwrap()],
        only(&[libc::SYS_execve, libc::SYS_exit_group]),
        |case, output| assert_eq!(output.status.code(), Some(42), "{case:?}: {output:?}"),
    );
    fs::remove_file(program).unwrap();
}

#[test]
fn what_installing_a_filter_takes_is_not_the_commands() {
    for_each_case(
        "what_installing_a_filter_takes_is_not_the_commands",
        &["cat", "/proc/self/status"],
        only_allow(),
        |&(uid, no_new_privileges), output| {
            let text = String::from_utf8_lossy(&output.stdout);
            let kept = if uid == 0 { CHOWN } else { 0 };
            for (name, value) in [
                ("CapInh", "0000000000000000".to_owned()),
                ("CapPrm", format!("{kept:016x}")),
                ("CapEff", format!("{kept:016x}")),
                ("CapBnd", format!("{CHOWN:016x}")),
                ("CapAmb", "0000000000000000".to_owned()),
                ("NoNewPrivs", u8::from(no_new_privileges).to_string()),
                ("Seccomp", "2".to_owned()),
            ] {
                let line = format!("\n{name}:\t{value}\n");
                assert!(text.contains(&line), "{uid} {line} {output:?}");
            }
        },
    );
}

/// A filter that forbids nothing.
fn only_allow() -> Vec<FilterInstruction> {
    vec![FilterInstruction {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ALLOW,
    }]
}

/// A filter that kills the process for every other system call.
fn only(calls: &[libc::c_long]) -> Vec<FilterInstruction> {
    let instruction = |code, jf, k| FilterInstruction { code, jt: 0, jf, k };
    let mut program = vec![instruction(LOAD, 0, 0)];
    for &call in calls {
        program.push(instruction(JUMP_IF_EQUAL, 1, call as u32));
        program.push(instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    }
    program.push(instruction(RETURN, 0, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// A program that asks for nothing but exit_group(42) (elf(5): the header, one segment, the code).
fn write_program(path: &Path) {
    const BASE: u64 = 0x40_0000;
    // The order of bytes (little-endian is 1), the machine (e_machine), and exit_group(42).
    let (order, machine, code): (u8, u16, &[u8]) = if cfg!(target_arch = "s390x") {
        // lghi %r2, 42; svc SYS_exit_group
        (2, 22, &[0xa7, 0x29, 0, 42, 0x0a, 248])
    } else {
        // mov edi, 42; mov eax, SYS_exit_group; syscall
        (1, 62, &[0xbf, 42, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05])
    };
    let mut file = b"\x7fELF\x02".to_vec();
    file.extend([order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_ne_bytes());
    // ET_EXEC for the machine, version 1, entry after both headers.
    half(&mut file, 2);
    half(&mut file, machine);
    file.extend(1_u32.to_ne_bytes());
    for long in [BASE + 120, 64, 0] {
        file.extend(long.to_ne_bytes());
    }
    file.extend(0_u32.to_ne_bytes());
    for value in [64, 56, 1, 0, 0, 0] {
        half(&mut file, value);
    }
    // PT_LOAD, to be read and executed, the whole file.
    file.extend(1_u32.to_ne_bytes());
    file.extend(5_u32.to_ne_bytes());
    let size = 120 + code.len() as u64;
    for long in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(long.to_ne_bytes());
    }
    file.extend(code);
    fs::write(path, file).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}
