//! The service call, and the console that is reached by it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, Result};
use arch::Machine;
use arch::sclp::{Events, ProgramInterruption, Sccb};
use devices::Memory;
use devices::legacy::{Line, Outbox};
use devices::stream::{Input, Read};
use tracing::error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::hypervisor::VmFd;

/// How much of what was typed waits for the guest.
const INPUT: usize = 256;
/// Of the service call's interrupt, beside the address of a block: there are events to fetch.
const EVENTS_PENDING: u32 = 1;

/// What the guest finds behind the service call.
pub(super) struct Sclp {
    vm: Arc<VmFd>,
    events: Events,
    /// What the guest has said.
    outbox: Outbox,
    /// Signalled when there is room for more input.
    room: Arc<EventFd>,
}

impl Sclp {
    /// Without a console.
    pub(super) fn new(vm: Arc<VmFd>) -> io::Result<Self> {
        Ok(Self {
            vm,
            events: Events::default(),
            outbox: Outbox::new()?,
            room: Arc::new(EventFd::new(EFD_NONBLOCK)?),
        })
    }

    /// With a console: from now on what the guest says is fetched.
    pub(super) fn hear(&mut self) {
        self.events.console = true;
    }

    /// Does what the guest calls for, and interrupts it when that is done. Inside are the program's interruptions.
    pub(super) fn call(
        &mut self,
        memory: &Memory,
        machine: &Machine,
        (command, block): (u32, u64),
    ) -> Result<Result<(), ProgramInterruption>> {
        let mut sccb = match Sccb::read(memory, block) {
            Ok(sccb) => sccb,
            Err(interruption) => return Ok(Err(interruption)),
        };
        let waited = !self.events.input.is_empty();
        let text = sccb.answer(command, machine, &mut self.events);
        if let Err(interruption) = sccb.write(memory) {
            return Ok(Err(interruption));
        }
        if self.events.console && !text.is_empty() {
            self.outbox.write_all(&text)?;
        }
        if waited && self.events.input.is_empty() {
            // A full counter wakes the loop as well.
            let _ = self.room.write(1);
        }
        // It was read there: 31 bits.
        self.interrupt(block as u32)?;
        Ok(Ok(()))
    }

    /// Tells the guest of a block that is answered, 0 for none, and of events.
    fn interrupt(&self, block: u32) -> Result<()> {
        let pending = if self.events.pending() {
            EVENTS_PENDING
        } else {
            0
        };
        if block | pending == 0 {
            return Ok(());
        }
        let interrupted = self.vm.service_interrupt(block | pending);
        interrupted.context("interrupt of the service call")
    }
}

impl Line for Sclp {
    fn events(&self) -> [Arc<EventFd>; 2] {
        [Arc::clone(&self.room), Arc::clone(self.outbox.said())]
    }

    fn fill(&mut self, input: &Input) -> bool {
        let mut ended = false;
        let mut buffer = [0; INPUT];
        while let Some(room @ [_, ..]) =
            buffer.get_mut(..INPUT - self.events.input.len().min(INPUT))
        {
            match input.read_bytes(room) {
                Read::Data(count) => self.events.input.extend(room.iter().take(count)),
                Read::WouldBlock => break,
                Read::End => {
                    ended = true;
                    break;
                }
            }
        }
        if let Err(error) = self.interrupt(0) {
            error!("the guest does not hear of its console: {error:#}");
        }
        ended
    }

    fn fetch(&mut self, said: &mut VecDeque<u8>) {
        self.outbox.fetch(said);
    }
}
