//! Instructions of a filter: classic BPF over `struct seccomp_data`
//! (Documentation/userspace-api/seccomp_filter.rst).
//!
//! Jumps go forward only, conditional ones over at most 255 instructions. Code is made from its end
//! to its beginning, so that each jump knows how much it jumps over.

use std::collections::BTreeMap;

use libc::sock_filter;

/// Where things are in `struct seccomp_data`.
mod offset {
    /// The system call's number.
    pub(super) const NUMBER: u32 = 0;
    /// The architecture.
    pub(super) const ARCHITECTURE: u32 = 4;
    /// The first of six arguments of 64 bits.
    pub(super) const ARGUMENTS: u32 = 16;
    /// The high half of an argument; guest and host have the same byte order.
    pub(super) const HIGH: u32 = if cfg!(target_endian = "big") { 0 } else { 4 };
    /// The low half.
    pub(super) const LOW: u32 = 4 - HIGH;
}

/// Operation codes of linux/bpf_common.h, put together.
mod code {
    /// `BPF_LD | BPF_W | BPF_ABS`
    pub(super) const LOAD: u16 = 0x20;
    /// `BPF_ALU | BPF_AND | BPF_K`
    pub(super) const AND: u16 = 0x54;
    /// `BPF_JMP | BPF_JA`
    pub(super) const JUMP: u16 = 0x05;
    /// `BPF_JMP | BPF_JEQ | BPF_K`
    pub(super) const IF_EQUAL: u16 = 0x15;
    /// `BPF_JMP | BPF_JGT | BPF_K`
    pub(super) const IF_GREATER: u16 = 0x25;
    /// `BPF_JMP | BPF_JGE | BPF_K`
    pub(super) const IF_GREATER_OR_EQUAL: u16 = 0x35;
    /// `BPF_RET | BPF_K`
    pub(super) const RETURN: u16 = 0x06;
}

/// A comparison of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Some of its bits are those of a value.
    Equal {
        /// The bits that are compared.
        mask: u64,
        /// What they have to be.
        value: u64,
    },
    /// It is above this.
    Greater(u64),
    /// It is this or above.
    GreaterOrEqual(u64),
}

/// What has to hold for an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Number of the argument, below 6.
    pub index: u32,
    /// How it is compared.
    pub test: Test,
    /// How the test has to end.
    pub result: bool,
}

/// Instructions, one behind the other.
pub type Code = Vec<sock_filter>;

const fn plain(code: u16, k: u32) -> sock_filter {
    branch(code, k, (0, 0))
}

const fn branch(code: u16, k: u32, (jt, jf): (u8, u8)) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Loads 32 bits of `struct seccomp_data`.
const fn load(offset: u32) -> sock_filter {
    plain(code::LOAD, offset)
}

/// Ends with an action.
const fn ret(action: u32) -> sock_filter {
    plain(code::RETURN, action)
}

/// A whole program: what is done with each number, by architecture (`AUDIT_ARCH_*`), and the action for all other
/// architectures.
pub fn program(sections: impl IntoIterator<Item = (u32, Ranges)>, otherwise: u32) -> Code {
    let mut program = vec![load(offset::ARCHITECTURE)];
    for (architecture, ranges) in sections {
        let mut section = vec![load(offset::NUMBER)];
        section.extend(ranges.code());
        program.extend(only_if_equal(architecture, section));
    }
    program.push(ret(otherwise));
    program
}

/// A jump over any number of instructions that a filter can have.
fn jump(over: usize) -> sock_filter {
    // A program of more than u32::MAX instructions is refused for its length before it is run.
    plain(code::JUMP, u32::try_from(over).unwrap_or(u32::MAX))
}

/// `then` if the value that is loaded is `k`, else what follows.
fn only_if_equal(k: u32, then: Code) -> Code {
    let mut all = vec![branch(code::IF_EQUAL, k, (1, 0)), jump(then.len())];
    all.extend(then);
    all
}

/// `below` if the value that is loaded is below `k`, else `rest`. Both end by themselves.
fn if_below(k: u32, below: Code, rest: Code) -> Code {
    let mut all = match u8::try_from(below.len()) {
        Ok(jt) => vec![branch(code::IF_GREATER_OR_EQUAL, k, (jt, 0))],
        Err(_) => vec![
            branch(code::IF_GREATER_OR_EQUAL, k, (0, 1)),
            jump(below.len()),
        ],
    };
    all.extend(below);
    all.extend(rest);
    all
}

/// What is done with a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The first of these whose conditions all hold.
    rules: Vec<(Vec<Condition>, u32)>,
    /// What is done if there is none.
    otherwise: u32,
    /// Whether `otherwise` comes from a rule without conditions, after which no rule matters.
    decided: bool,
}

impl Decision {
    /// The same for all arguments, until rules are added.
    pub fn new(otherwise: u32) -> Self {
        Self {
            rules: Vec::new(),
            otherwise,
            decided: false,
        }
    }

    /// Adds a rule behind the others.
    pub fn add(&mut self, alternatives: &[Vec<Condition>], action: u32) {
        for conditions in alternatives {
            if self.decided {
                return;
            }
            if conditions.is_empty() {
                self.otherwise = action;
                self.decided = true;
                // What those before it come to, too.
                while self.rules.pop_if(|(_, same)| *same == action).is_some() {}
            } else {
                self.rules.push((conditions.clone(), action));
            }
        }
    }

    fn code(&self) -> Code {
        let rules = self.rules.iter();
        let mut code: Code = rules
            .flat_map(|(conditions, action)| rule(conditions, *action))
            .collect();
        code.push(ret(self.otherwise));
        code
    }
}

/// Returns `action` if all conditions hold, else goes on behind.
fn rule(conditions: &[Condition], action: u32) -> Code {
    let mut code = vec![ret(action)];
    for condition in conditions.iter().rev() {
        // Below 37: six conditions, one an argument, of six instructions each, and the return.
        let fail = code.len() as u8;
        let mut whole = check(condition, fail);
        whole.extend(code);
        code = whole;
    }
    code
}

/// Goes on behind if the condition holds, else jumps over `fail` instructions more.
fn check(condition: &Condition, fail: u8) -> Code {
    let argument = offset::ARGUMENTS + 8 * condition.index;
    let (high, low) = (argument + offset::HIGH, argument + offset::LOW);
    let (yes, no) = if condition.result {
        (0, fail)
    } else {
        (fail, 0)
    };
    match condition.test {
        Test::Equal { mask, value } => {
            let (mask, value) = (halves(mask), halves(value));
            let rest = if_equal(low, mask.1, value.1, (yes, no));
            // At most three instructions.
            let skipped = rest.len() as u8;
            if (mask.0, value.0) == (0, 0) {
                return rest;
            }
            let mut code = if_equal(high, mask.0, value.0, (0, no + skipped));
            code.extend(rest);
            code
        }
        Test::Greater(value) => if_above(code::IF_GREATER, (high, low), value, (yes, no)),
        Test::GreaterOrEqual(value) => {
            if_above(code::IF_GREATER_OR_EQUAL, (high, low), value, (yes, no))
        }
    }
}

/// High and low half.
const fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

/// Whether the bits of `mask` at `offset` are `value`: jumps over `yes` or `no` instructions.
fn if_equal(offset: u32, mask: u32, value: u32, (yes, no): (u8, u8)) -> Code {
    let mut all = vec![load(offset)];
    if mask != u32::MAX {
        all.push(plain(code::AND, mask));
    }
    all.push(branch(code::IF_EQUAL, value, (yes, no)));
    all
}

/// Whether the value at two offsets is above `value`, as `code` has it for the low half: jumps over
/// `yes` or `no` instructions. The high halves decide unless they are equal.
fn if_above(code: u16, (high, low): (u32, u32), value: u64, (yes, no): (u8, u8)) -> Code {
    let value = halves(value);
    vec![
        load(high),
        branch(code::IF_GREATER, value.0, (yes + 3, 0)),
        branch(code::IF_EQUAL, value.0, (0, no + 2)),
        load(low),
        branch(code, value.1, (yes, no)),
    ]
}

/// What is done with each number from 0 on.
#[derive(Debug)]
pub struct Ranges {
    default: Decision,
    /// Where ranges begin; each ends where the next begins.
    starts: BTreeMap<u32, Decision>,
}

impl Ranges {
    /// The same for all numbers.
    pub fn new(default: u32) -> Self {
        let default = Decision::new(default);
        Self {
            starts: BTreeMap::from([(0, default.clone())]),
            default,
        }
    }

    /// What is done with one number; numbers come in ascending order.
    pub fn set(&mut self, number: u32, decision: Decision) {
        self.starts.insert(number, decision);
        if let Some(next) = number.checked_add(1) {
            self.starts.insert(next, self.default.clone());
        }
    }

    /// The same for all numbers from `start` on.
    pub fn cut(&mut self, start: u32, action: u32) {
        self.starts.split_off(&start);
        self.starts.insert(start, Decision::new(action));
    }

    /// Finds the range of the number that is loaded by halving, and does what is said there.
    fn code(self) -> Code {
        let mut ranges: Vec<_> = self.starts.into_iter().collect();
        ranges.dedup_by(|(_, later), (_, earlier)| later == earlier);
        choose(&ranges)
    }
}

fn choose(ranges: &[(u32, Decision)]) -> Code {
    match ranges {
        [] => Code::new(),
        [(_, decision)] => decision.code(),
        _ => {
            let (below, rest) = ranges.split_at(ranges.len() / 2);
            if_below(rest[0].0, choose(below), choose(rest))
        }
    }
}
