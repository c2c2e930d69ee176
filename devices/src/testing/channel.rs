//! A guest for tests: drives devices on subchannels by I/O instructions and channel programs.

use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};

use super::memory;
use crate::Memory;
use crate::css::{
    AccessRefused, Ccw, ChannelDevice, ChannelSubsystem, Exception, Instruction, IoInterrupt,
    IoInterrupts, Irb, Operands, Orb, Pmcw, Schib, SignalSubscriber, command, orb_control,
    pmcw_flags,
};
use crate::event_loop::EventLoop;

pub(crate) const MEMORY: u64 = 1 << 20;
/// Where the guest has its blocks.
pub(crate) const BLOCK: u64 = 0x1000;
pub(crate) const PROGRAM: u32 = 0x2000;
pub(crate) const DATA: u32 = 0x3000;
/// The word that names the first subchannel.
pub(crate) const FIRST: u32 = 0x0001_0000;
pub(crate) const PARAMETER: u32 = 0xabcd;

/// A machine with a channel subsystem, and its guest.
pub(crate) struct ChannelGuest {
    pub(crate) memory: Arc<Memory>,
    pub(crate) css: Arc<ChannelSubsystem>,
    pub(crate) event_loop: EventLoop,
    interrupts: Interrupts,
}

/// Interruptions that were raised, and how many machine checks.
#[derive(Clone, Default)]
struct Interrupts(Arc<Mutex<(Vec<IoInterrupt>, usize)>>);

/// Logical addresses as they are without translation.
struct Untranslated(Arc<Memory>);

impl ChannelGuest {
    pub(crate) fn new() -> Self {
        let memory = memory(MEMORY as usize);
        let interrupts = Interrupts::default();
        let css = ChannelSubsystem::new(Arc::clone(&memory), Box::new(interrupts.clone()));
        let css = Arc::new(css.unwrap());
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.add_subscriber(SignalSubscriber::new(Arc::clone(&css)));
        Self {
            memory,
            css,
            event_loop,
            interrupts,
        }
    }

    /// With a device on the first subchannel, which is enabled.
    pub(crate) fn with(device: impl ChannelDevice + 'static) -> Self {
        let guest = Self::new();
        assert_eq!(guest.css.add(Box::new(device)).unwrap(), 0);
        guest.enable();
        guest
    }

    /// Serves what there is for devices.
    pub(crate) fn serve(&mut self) {
        while self.event_loop.turn(0).unwrap() > 0 {}
    }

    pub(crate) fn execute(
        &self,
        instruction: Instruction,
        register_1: u32,
        address: u64,
    ) -> Result<u8, Exception> {
        let mut operands = Untranslated(Arc::clone(&self.memory));
        self.css
            .execute(instruction, register_1, address, &mut operands)
    }

    /// An instruction about the first subchannel, with a valid operand.
    pub(crate) fn first(&self, instruction: Instruction) -> u8 {
        self.execute(instruction, FIRST, BLOCK).unwrap()
    }

    pub(crate) fn schib(&self) -> Schib {
        assert_eq!(self.first(Instruction::StoreSubchannel), 0);
        Schib::from_bytes(&self.bytes(BLOCK))
    }

    /// Sets the subchannel up, as Linux does. Returns the condition code.
    pub(crate) fn set_up(&self, change: impl FnOnce(&mut Pmcw)) -> u8 {
        let mut schib = self.schib();
        change(&mut schib.pmcw);
        self.write(BLOCK, &schib.to_bytes());
        self.first(Instruction::ModifySubchannel)
    }

    pub(crate) fn enable(&self) {
        assert_eq!(self.enable_again(), 0);
    }

    /// The same, as far as it goes. Returns the condition code.
    pub(crate) fn enable_again(&self) -> u8 {
        self.set_up(|pmcw| {
            pmcw.flags = pmcw_flags::ENABLED | 3 << 11;
            pmcw.characteristics = 1;
            pmcw.parameter = PARAMETER;
        })
    }

    /// Starts a program in format 1. Returns the condition code.
    pub(crate) fn start(&self, program: &[Ccw]) -> u8 {
        for (ccw, at) in program.iter().zip((PROGRAM.into()..).step_by(8)) {
            self.write(at, &format_1(ccw));
        }
        self.start_orb(&Orb {
            parameter: PARAMETER,
            control: orb_control::FORMAT_1,
            paths: 0x80,
            program: PROGRAM,
            ..Orb::default()
        })
    }

    pub(crate) fn start_orb(&self, orb: &Orb) -> u8 {
        self.write(BLOCK, &orb.to_bytes());
        self.first(Instruction::StartSubchannel)
    }

    /// The status of the first subchannel, of which there has to be one.
    pub(crate) fn status(&self) -> Irb {
        assert_eq!(self.first(Instruction::TestSubchannel), 0);
        Irb::from_bytes(&self.bytes(BLOCK))
    }

    /// Runs a program up to its interruption. Returns its status.
    pub(crate) fn run(&self, program: &[Ccw]) -> Irb {
        assert_eq!(self.start(program), 0);
        assert_eq!(self.interrupts(), [Self::interrupt()]);
        self.status()
    }

    /// Runs a program of one command, with data.
    pub(crate) fn command(&self, command: u8, data: &[u8]) -> Irb {
        self.write(DATA.into(), data);
        self.run(&[Self::ccw(command, data.len())])
    }

    /// The same, which has to succeed. Returns the data afterwards.
    pub(crate) fn done(&self, command: u8, data: &[u8]) -> Vec<u8> {
        let irb = self.command(command, data);
        assert_eq!(outcome(&irb), DONE, "{command:#x}");
        assert_eq!(irb.scsw.count, 0);
        let mut data = vec![0; data.len()];
        self.memory
            .read_slice(&mut data, GuestAddress(DATA.into()))
            .unwrap();
        data
    }

    /// A command whose data are at [`DATA`].
    pub(crate) fn ccw(command: u8, count: usize) -> Ccw {
        Ccw {
            command,
            flags: 0,
            count: count as u16,
            address: DATA,
        }
    }

    pub(crate) fn interrupt() -> IoInterrupt {
        IoInterrupt {
            subchannel_id: 1,
            number: 0,
            parameter: PARAMETER,
            word: 3 << 27,
        }
    }

    /// The interruptions since the last time.
    pub(crate) fn interrupts(&self) -> Vec<IoInterrupt> {
        std::mem::take(&mut self.interrupts.0.lock().unwrap().0)
    }

    /// The machine checks since the last time.
    pub(crate) fn machine_checks(&self) -> usize {
        std::mem::take(&mut self.interrupts.0.lock().unwrap().1)
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub(crate) fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }
}

/// Device status and subchannel status.
pub(crate) fn outcome(irb: &Irb) -> (u8, u8) {
    (irb.scsw.device_status, irb.scsw.subchannel_status)
}

pub(crate) const DONE: (u8, u8) = (0x0c, 0);
pub(crate) const REJECTED: (u8, u8) = (0x02, 0);
pub(crate) const PROGRAM_CHECK: (u8, u8) = (0, 0x20);
pub(crate) const INCORRECT_LENGTH: (u8, u8) = (0x0c, 0x40);

pub(crate) fn format_1(ccw: &Ccw) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[0] = ccw.command;
    bytes[1] = ccw.flags;
    bytes[2..4].copy_from_slice(&ccw.count.to_be_bytes());
    bytes[4..].copy_from_slice(&ccw.address.to_be_bytes());
    bytes
}

pub(crate) fn chained(ccw: Ccw) -> Ccw {
    Ccw {
        flags: ccw.flags | command::CHAIN_COMMAND,
        ..ccw
    }
}

impl IoInterrupts for Interrupts {
    fn interrupt(&self, interrupt: IoInterrupt) -> io::Result<()> {
        self.0.lock().unwrap().0.push(interrupt);
        Ok(())
    }

    fn channel_report(&self) -> io::Result<()> {
        self.0.lock().unwrap().1 += 1;
        Ok(())
    }
}

impl Operands for Untranslated {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), AccessRefused> {
        let read = self.0.read_slice(bytes, GuestAddress(address));
        read.map_err(|_| AccessRefused)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), AccessRefused> {
        let written = self.0.write_slice(bytes, GuestAddress(address));
        written.map_err(|_| AccessRefused)
    }
}
