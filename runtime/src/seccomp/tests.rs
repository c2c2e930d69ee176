//! The program beside the profile that it is made from.

use devices::testing::filter;
use oci_spec::runtime::{LinuxSeccompArg, LinuxSyscall};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::spec;

/// The native architecture.
fn native() -> u32 {
    ABIS[0].audit
}

/// Another architecture that a guest can have, and its name in a profile; s390x has none.
const X86: (u32, &str) = (0x4000_0003, "SCMP_ARCH_X86");

/// The number of a native system call.
fn number(name: &str) -> u32 {
    (ABIS[0].number)(name).unwrap()
}

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0;

const fn errno(number: u32) -> u32 {
    0x0005_0000 | number
}

pub(super) fn docker() -> LinuxSeccomp {
    let text = include_bytes!("../../testdata/config.run.json");
    let config: Value = serde_json::from_slice(text).unwrap();
    profile(config["linux"]["seccomp"].clone())
}

fn profile(profile: Value) -> LinuxSeccomp {
    read(profile).unwrap()
}

/// As a part of a configuration.
fn read(profile: Value) -> Result<LinuxSeccomp> {
    let spec = spec::read(&json!({"ociVersion": "1.0.0", "linux": {"seccomp": profile}}))?;
    Ok(spec::linux(&spec)?.seccomp().clone().unwrap())
}

/// A system call as the filter sees it.
#[derive(Clone, Copy, Debug)]
struct Call {
    architecture: u32,
    number: u32,
    arguments: [u64; 6],
}

impl Call {
    fn new(architecture: u32, number: u32, arguments: &[u64]) -> Self {
        let mut call = Self {
            architecture,
            number,
            arguments: [0; 6],
        };
        call.arguments[..arguments.len()].copy_from_slice(arguments);
        call
    }
}

fn run(program: &[FilterInstruction], call: &Call) -> u32 {
    let instructions = program
        .iter()
        .map(|&FilterInstruction { code, jt, jf, k }| libc::sock_filter { code, jt, jf, k });
    let program: Vec<_> = instructions.collect();
    filter::decide(&program, call.architecture, call.number, call.arguments)
}

fn action(action: impl ToString, number: Option<u32>) -> u32 {
    let number = number.unwrap_or(1);
    match action.to_string().as_str() {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => errno(number),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | number,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        other => panic!("{other}"),
    }
}

fn holds(arg: &LinuxSeccompArg, arguments: &[u64; 6]) -> bool {
    let value = arguments[arg.index()];
    match arg.op().to_string().as_str() {
        "SCMP_CMP_NE" => value != arg.value(),
        "SCMP_CMP_LT" => value < arg.value(),
        "SCMP_CMP_LE" => value <= arg.value(),
        "SCMP_CMP_EQ" => value == arg.value(),
        "SCMP_CMP_GE" => value >= arg.value(),
        "SCMP_CMP_GT" => value > arg.value(),
        "SCMP_CMP_MASKED_EQ" => value & arg.value() == arg.value_two().unwrap_or(0),
        other => panic!("{other}"),
    }
}

/// Whether a rule's conditions hold: all of them, or any if two are on one argument.
fn applies(rule: &LinuxSyscall, holds: impl Fn(&LinuxSeccompArg) -> bool) -> bool {
    let mut args = rule.args().iter().flatten();
    let mut seen = Vec::new();
    let twice = args.clone().any(|arg| {
        let again = seen.contains(&arg.index());
        seen.push(arg.index());
        again
    });
    if twice {
        args.any(holds)
    } else {
        args.all(holds)
    }
}

/// Whether a rule decides about a call.
fn decides(rule: &LinuxSyscall, abi: &Abi, call: &Call) -> bool {
    let is = |name: &str| (abi.number)(name) == Some(call.number);
    let holds = |arg: &LinuxSeccompArg| holds(arg, &call.arguments);
    if rule.names().iter().any(|name| is(name)) && applies(rule, holds) {
        return true;
    }
    // socket(2) is number 1 of socketcall(2), of whose arguments the others are compared.
    let has_socket = rule.names().iter().any(|name| name == "socket");
    has_socket
        && is("socketcall")
        && call.arguments[0] as u32 == 1
        && applies(rule, |arg| arg.index() == 0 || holds(arg))
}

/// What the profile says, read rule by rule.
fn expected(profile: &LinuxSeccomp, call: &Call) -> u32 {
    let mut architectures = profile.architectures().iter().flatten();
    let listed = architectures.any(|name| name.to_string() == X86.1);
    let mut abis = ABIS.iter();
    let abi = abis.find(|abi| abi.audit == call.architecture);
    let abi = abi.filter(|abi| abi.audit == native() || abi.audit == X86.0 && listed);
    let Some(abi) = abi else {
        return KILL;
    };
    if abi.end.is_some_and(|end| call.number >= end) {
        return errno(38);
    }
    let default_action = profile.default_action().to_string();
    let default = action(&default_action, profile.default_errno_ret());
    let rules = profile.syscalls().iter().flatten();
    let names = rules.clone().flat_map(|rule| rule.names());
    let last = names.filter_map(|name| (abi.number)(name)).max();
    let permissive = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"];
    let denies = !permissive.contains(&default_action.as_str()) && default != errno(38);
    if denies && last.is_some_and(|last| call.number > last) {
        return errno(38);
    }
    for rule in rules {
        let action = action(rule.action(), rule.errno_ret());
        if action != default && decides(rule, abi, call) {
            return action;
        }
    }
    default
}

#[test]
fn docker_profile_decides_as_it_says() {
    let profile = docker();
    let program = compile(&profile).unwrap();
    assert!(program.len() < 1000, "{}", program.len());
    let call = |number, arguments: &[u64]| run(&program, &Call::new(native(), number, arguments));
    let decision = |name, arguments: &[u64]| call(number(name), arguments);
    assert_eq!(decision("read", &[]), ALLOW);
    assert_eq!(decision("chroot", &[]), ALLOW);
    assert_eq!(decision("keyctl", &[]), errno(1));
    assert_eq!(decision("clone3", &[]), errno(38));
    assert_eq!(decision("clone", &[0x11]), ALLOW);
    assert_eq!(decision("clone", &[0x1000_0011]), errno(1));
    assert_eq!(decision("personality", &[0xffff_ffff]), ALLOW);
    assert_eq!(decision("personality", &[0x1_0000_0008]), errno(1));
    assert_eq!(call(500, &[]), errno(38));
    assert_eq!(call(0x4000_0000, &[]), errno(38));
    let i386 = |number, verdict| {
        let has_it = ABIS.iter().any(|abi| abi.audit == X86.0);
        let verdict = if has_it { verdict } else { KILL };
        assert_eq!(run(&program, &Call::new(X86.0, number, &[])), verdict);
    };
    i386(3, ALLOW);
    i386(288, errno(1));
    // AUDIT_ARCH_AARCH64.
    assert_eq!(run(&program, &Call::new(0xc000_00b7, 0, &[])), KILL);
}

#[test]
fn every_system_call_of_docker_profile_has_its_verdict() {
    let profile = docker();
    let program = compile(&profile).unwrap();
    for architecture in [native(), X86.0] {
        for number in (0..600).chain([u32::MAX, 0x3fff_ffff, 0x4000_0001]) {
            for first in [0, 8, 0x10000000, 0xffff_ffff, u64::MAX] {
                let call = Call::new(architecture, number, &[first]);
                assert_eq!(run(&program, &call), expected(&profile, &call), "{call:?}");
            }
        }
    }
}

#[test]
fn a_profile_that_denies_some_has_no_enosys() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "new_one"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}],
    }));
    let program = compile(&profile).unwrap();
    let decision = |number| run(&program, &Call::new(native(), number, &[]));
    assert_eq!(decision(number("mkdir")), errno(5));
    assert_eq!(decision(number("rename")), ALLOW);
    assert_eq!(decision(0x3fff_ffff), ALLOW);
    let other_abi = ABIS[0].end.map_or(ALLOW, |_| errno(38));
    assert_eq!(decision(0x4000_0000 | number("mkdir")), other_abi);
    assert_eq!(run(&program, &Call::new(X86.0, 39, &[])), KILL);
}

#[test]
fn what_is_denied_is_denied_by_the_call_that_has_it_in_it() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [X86.1],
        "syscalls": [{"names": ["accept", "shmget"], "action": "SCMP_ACT_ERRNO"}],
    }));
    let program = compile(&profile).unwrap();
    for abi in &ABIS {
        let decision = |name, first| {
            let number = (abi.number)(name)?;
            Some(run(&program, &Call::new(abi.audit, number, &[first])))
        };
        // x86_64 has none of the two. Linux does not look at all bits.
        for (whole, part, more) in [("socketcall", 5, 5 | 1 << 32), ("ipc", 23, 23 | 1 << 16)] {
            for (first, expected) in [(part, errno(1)), (more, errno(1)), (6, ALLOW)] {
                assert!(decision(whole, first).is_none_or(|action| action == expected));
            }
        }
    }
}

#[test]
fn what_is_wrong_in_a_profile_is_named() {
    let error = |value| {
        let compiled = read(value).and_then(|profile| compile(&profile));
        format!("{:#}", compiled.unwrap_err())
    };
    let with_rule = |rule| error(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    let text = error(json!({"defaultAction": "SCMP_ACT_NAP"}));
    let begin = "linux.seccomp.defaultAction: unknown variant `SCMP_ACT_NAP`, expected one of ";
    assert!(text.starts_with(begin), "{text}");
    assert_eq!(
        error(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096})),
        "error number 4096: 4095 is the largest"
    );
    assert_eq!(
        with_rule(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})),
        "rule of read: SCMP_ACT_NOTIFY is not supported: there is no listener in a VM"
    );
    let arg = |index: u32, op| {
        let arg = json!({"index": index, "value": 0, "op": op});
        with_rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": [arg]}))
    };
    assert_eq!(
        arg(6, "SCMP_CMP_EQ"),
        "rule of read: argument 6: a system call has 6"
    );
    let text = arg(0, "==");
    let begin = "linux.seccomp.syscalls[0].args[0].op: unknown variant `==`, expected one of ";
    assert!(text.starts_with(begin), "{text}");
}

#[test]
fn a_filter_that_is_too_long_is_refused() {
    let arg = |value: u32| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
    let rule = |value| json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": [arg(value)]});
    let rules: Vec<_> = (0..1000).map(rule).collect();
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    let error = compile(&profile).unwrap_err().to_string();
    assert!(
        error.ends_with("is longer than the 4096 that Linux takes"),
        "{error}"
    );
}

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const COMPARISONS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

/// Few enough for rules and calls to meet; some of one architecture only, one of none.
const NAMES: [&str; 12] = [
    "read",
    "write",
    "open",
    "close",
    "clone",
    "socket",
    "socketcall",
    "waitpid",
    "arch_prctl",
    "openat2",
    "mseal",
    "not_a_call",
];

/// Values whose halves are equal, above and below in all combinations.
fn value() -> impl Strategy<Value = u64> {
    let half = || prop_oneof![Just(0_u64), Just(1), Just(2), Just(0xffff_ffff)];
    (half(), half()).prop_map(|(high, low)| high << 32 | low)
}

prop_compose! {
    fn arg()(
        index in 0..6_u32,
        value in value(),
        value_two in value(),
        op in prop::sample::select(&COMPARISONS[..]),
    ) -> Value {
        json!({"index": index, "value": value, "valueTwo": value_two, "op": op})
    }
}

prop_compose! {
    fn rule()(
        names in prop::collection::vec(prop::sample::select(&NAMES[..]), 0..4),
        action in prop::sample::select(&ACTIONS[..]),
        errno_ret in prop::option::of(0..200_u32),
        args in prop::collection::vec(arg(), 0..4),
    ) -> Value {
        json!({"names": names, "action": action, "errnoRet": errno_ret, "args": args})
    }
}

prop_compose! {
    fn any_profile()(
        default_action in prop::sample::select(&ACTIONS[..]),
        default_errno_ret in prop::option::of(0..200_u32),
        i386 in any::<bool>(),
        syscalls in prop::collection::vec(rule(), 0..40),
    ) -> LinuxSeccomp {
        let architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_S390X", X86.1];
        profile(json!({
            "defaultAction": default_action,
            "defaultErrnoRet": default_errno_ret,
            "architectures": if i386 { &architectures[..] } else { &[] },
            "syscalls": syscalls,
        }))
    }
}

prop_compose! {
    fn call()(
        architecture in prop_oneof![4 => Just(native()), 4 => Just(X86.0), 1 => any::<u32>()],
        number in prop_oneof![4 => 0..10_u32, 4 => 0..500_u32, 1 => any::<u32>()],
        arguments in prop::array::uniform6(value()),
    ) -> Call {
        Call { architecture, number, arguments }
    }
}

proptest! {
    // Names are looked up slowly without optimisation.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_program_decides_as_its_profile(
        profile in any_profile(),
        calls in prop::collection::vec(call(), 50),
    ) {
        let program = compile(&profile).unwrap();
        for call in calls {
            prop_assert_eq!(run(&program, &call), expected(&profile, &call), "{:?}", call);
        }
    }
}
