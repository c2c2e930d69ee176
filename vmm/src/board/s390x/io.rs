//! Channel I/O as KVM has it: what the channel subsystem asks of a processor and of the machine.

use std::io;
use std::sync::Arc;

use anyhow::{Context, Result};
use arch::instruction::{ChannelIo, Instruction, decode};
use devices::css::{self, AccessRefused, IoInterrupt, IoInterrupts, Operands};
use tracing::error;

use super::Mainframe;
use super::instructions::{Done, program};
use crate::hypervisor::{Cpu, VmFd, kvm_s390_tsch};

/// Interrupts the guest for its subchannels.
pub(super) struct Interrupts(pub(super) Arc<VmFd>);

/// The memory of the program that a CPU executes.
struct Program<'a, 'b>(&'a Cpu<'b>);

impl Mainframe {
    /// Executes an instruction of the channel subsystem.
    pub(super) fn channel_io(&self, cpu: &Cpu<'_>, io: ChannelIo) -> Done {
        let ChannelIo {
            code,
            subchannel,
            operand,
        } = io;
        let Some(instruction) = css::Instruction::from_opcode(code) else {
            return Done::Program(program::OPERATION);
        };
        let mut program = Program(cpu);
        match self
            .css
            .execute(instruction, subchannel, operand, &mut program)
        {
            Ok(code) => Done::Code(code),
            Err(exception) => exception.code().map_or(Done::NoCode, Done::Program),
        }
    }

    /// TSCH, for which KVM has taken the subchannel's interrupt back if there was one: it comes again if the program cannot
    /// have the status.
    pub(super) fn test_subchannel(&self, cpu: &Cpu<'_>, exit: kvm_s390_tsch) -> Result<Done> {
        const TSCH: u16 = 0xb235;
        let Instruction::ChannelIo(io) = decode(TSCH, exit.ipb, cpu.registers()) else {
            return Ok(Done::Program(program::OPERATION));
        };
        let done = self.channel_io(cpu, io);
        if exit.dequeued != 0 && !matches!(done, Done::Code(_)) {
            let (id, number) = (exit.subchannel_id, exit.subchannel_nr);
            let again = self
                .vm
                .io_interrupt(id, number, exit.io_int_parm, exit.io_int_word);
            again.context("interrupt of a subchannel")?;
        }
        Ok(done)
    }
}

impl IoInterrupts for Interrupts {
    fn interrupt(&self, interrupt: IoInterrupt) -> io::Result<()> {
        let IoInterrupt {
            subchannel_id,
            number,
            parameter,
            word,
        } = interrupt;
        Ok(self
            .0
            .io_interrupt(subchannel_id, number, parameter, word)?)
    }

    fn channel_report(&self) -> io::Result<()> {
        /// Of control register 14: channel reports.
        const SUBCLASS: u32 = 1 << (31 - 3);
        /// Of the machine-check interruption code (chapter 11): a channel report is pending; and all that is stored of the CPU is
        /// valid, as nothing is broken. KVM takes back what it has not stored: vectors (25) and guarded storage (36), where the
        /// guest has none. Linux takes what is missing for damage, and stops.
        const CODE: [u32; 16] = [
            9, 20, 21, 22, 23, 25, 27, 28, 29, 31, 33, 36, 42, 43, 46, 47,
        ];
        let code = CODE.iter().fold(0, |code, bit| code | 1 << (63 - bit));
        Ok(self.0.machine_check(SUBCLASS, code)?)
    }
}

impl Program<'_, '_> {
    /// What became of an access. If it is refused, KVM has interrupted the program.
    fn granted(
        &self,
        access: Result<bool, vmm_sys_util::errno::Error>,
    ) -> Result<(), AccessRefused> {
        match access {
            Ok(true) => Ok(()),
            Ok(false) => Err(AccessRefused),
            Err(error) => {
                error!("{:?}: KVM_S390_MEM_OP: {error}", self.0);
                Err(AccessRefused)
            }
        }
    }
}

impl Operands for Program<'_, '_> {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), AccessRefused> {
        self.granted(self.0.read(address, bytes))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), AccessRefused> {
        self.granted(self.0.write(address, bytes))
    }
}
