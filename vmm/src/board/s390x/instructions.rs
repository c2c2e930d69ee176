//! The instructions that KVM leaves to us.

use anyhow::{Context, Result};
use arch::instruction::{Instruction, decode};

use super::Mainframe;
use super::processors::Answer;
use crate::exit::Exit;
use crate::hypervisor::Cpu;

/// What an instruction comes to.
pub(super) enum Done {
    /// This condition code.
    Code(u8),
    /// As a hypercall: it has none.
    NoCode,
    /// An interruption of the program.
    Program(u16),
    /// The machine ends.
    End(Exit),
}

/// Interruptions of the program (chapter 6).
pub(super) mod program {
    pub(in super::super) const OPERATION: u16 = 0x01;
    pub(super) const PRIVILEGED_OPERATION: u16 = 0x02;
    pub(super) const SPECIFICATION: u16 = 0x06;
}

/// Codes of DIAGNOSE.
const IPL: u16 = 0x308;
const VIRTIO: u16 = 0x500;

impl Mainframe {
    /// Executes an instruction by its parts; see [`decode`].
    pub(super) fn execute(&self, cpu: &mut Cpu<'_>, ipa: u16, ipb: u32) -> Result<Option<Exit>> {
        let done = match decode(ipa, ipb, cpu.registers()) {
            Instruction::Unknown => Done::Program(program::OPERATION),
            _ if cpu.psw().is_problem_state() => Done::Program(program::PRIVILEGED_OPERATION),
            Instruction::ServiceCall { command, block } => self.service_call(command, block)?,
            Instruction::ChannelIo(io) => self.channel_io(cpu, io),
            Instruction::Topology { function } => topology(function),
            Instruction::Diagnose { code: IPL, r1, r3 } => ipl(cpu, r1, r3),
            Instruction::Diagnose { code: VIRTIO, .. } => self.notify(cpu),
            Instruction::Diagnose { .. } => Done::Program(program::SPECIFICATION),
            Instruction::Signal(signal) => {
                let answer = self.processors.signal(&signal);
                let answer = answer.with_context(|| format!("{cpu:?}: {signal:?}"))?;
                Done::Code(signalled(cpu, answer, signal.status))
            }
        };
        finish(cpu, done)
    }

    /// A hypercall of virtio-ccw that KVM knows no queue for (virtio 1.3, section 4.3.3.2).
    fn notify(&self, cpu: &mut Cpu<'_>) -> Done {
        const NOTIFY: u64 = 3;
        let [_, function, subchannel, queue, ..] = *cpu.registers();
        if function != NOTIFY {
            return Done::Program(program::SPECIFICATION);
        }
        let known = self.css.notified(subchannel as u32, queue as u16);
        let answer = if known { 0 } else { -i64::from(libc::EINVAL) };
        cpu.set_register(2, answer as u64);
        Done::NoCode
    }

    fn service_call(&self, command: u32, block: u64) -> Result<Done> {
        let call = (command, block);
        let called = self.sclp().call(&self.memory, &self.machine, call)?;
        Ok(match called {
            Ok(()) => Done::Code(0),
            Err(interruption) => Done::Program(interruption as u16),
        })
    }
}

/// What the guest sees of an instruction, before it goes on.
pub(super) fn finish(cpu: &mut Cpu<'_>, done: Done) -> Result<Option<Exit>> {
    match done {
        Done::Code(code) => cpu.set_condition_code(code),
        Done::NoCode => {}
        Done::Program(code) => {
            let interrupted = cpu.interrupt_program(code);
            interrupted.with_context(|| format!("program interruption {code:#x}"))?;
        }
        Done::End(exit) => return Ok(Some(exit)),
    }
    Ok(None)
}

/// PTF: the CPUs have no topology that could be told or changed.
fn topology(function: u64) -> Done {
    match function {
        0 | 1 => Done::Code(2),
        2 => Done::Code(0),
        _ => Done::Program(program::SPECIFICATION),
    }
}

/// The parameters of an IPL, of which there are none; or a reset, whatever is to be cleared by it. Those that Linux uses most are
/// KVM's, which makes an exit of its own of them.
fn ipl(cpu: &mut Cpu<'_>, r1: u8, r3: u8) -> Done {
    const SET: u64 = 5;
    const STORE: u64 = 6;
    const DONE: u64 = 0x0001;
    const NO_PARAMETERS: u64 = 0x0102;
    let answer = match cpu.registers()[usize::from(r3 & 15)] {
        0..=4 => return Done::End(Exit::Reset),
        // No IPL of this machine's reads them.
        SET => DONE,
        STORE => NO_PARAMETERS,
        _ => return Done::Program(program::SPECIFICATION),
    };
    cpu.set_register(r1 | 1, answer);
    Done::NoCode
}

/// The condition code of SIGP; a status is in the lower half of a register.
fn signalled(cpu: &mut Cpu<'_>, answer: Answer, register: u8) -> u8 {
    match answer {
        Answer::Accepted => 0,
        Answer::Status(status) => {
            let before = cpu.registers()[usize::from(register & 15)];
            cpu.set_register(register, before >> 32 << 32 | status as u64);
            1
        }
        Answer::Busy => 2,
        Answer::NoSuchCpu => 3,
    }
}
