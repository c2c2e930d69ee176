//! The channel subsystem: finds the subchannel that an instruction is for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::{fmt, io};

use tracing::warn;
use vmm_sys_util::epoll::Epoll;

use super::reports::Reports;
use super::subchannel::Subchannel;
use super::{
    ChannelDevice, Exception, Instruction, IoInterrupts, Operands, Orb, Place, Schib, SubchannelId,
    chsc,
};
use crate::Memory;
use crate::log_limit::LogLimit;

/// Subchannels, of which each has a number of a byte.
const SUBCHANNELS: usize = 256;

/// The subchannels of the machine, and what the guest has yet to hear of them.
///
/// An instruction is executed under its subchannel's lock, so that vCPUs do not wait for each other's devices; the lock of
/// all subchannels is only read, but when a device comes or goes.
pub struct ChannelSubsystem {
    /// One for each number.
    slots: RwLock<Vec<Option<Mutex<Subchannel>>>>,
    /// Locked last.
    reports: Mutex<Reports>,
    /// The guest may know some subchannels.
    asked: AtomicBool,
    memory: Arc<Memory>,
    interrupts: Box<dyn IoInterrupts>,
    epoll: Arc<Epoll>,
    limit: LogLimit,
}

/// All subchannels have a device.
#[derive(Debug, thiserror::Error)]
#[error("the channel subsystem has no free subchannel: a VM has at most {SUBCHANNELS} devices")]
pub struct SubchannelsTaken;

impl ChannelSubsystem {
    /// One without devices, whose channel programs and their data are in `memory`.
    ///
    /// # Errors
    /// When no epoll set can be made.
    pub fn new(memory: Arc<Memory>, interrupts: Box<dyn IoInterrupts>) -> io::Result<Self> {
        let mut slots = Vec::new();
        slots.resize_with(SUBCHANNELS, || None);
        Ok(Self {
            slots: RwLock::new(slots),
            reports: Mutex::default(),
            asked: AtomicBool::new(false),
            memory,
            interrupts,
            epoll: Arc::new(Epoll::new()?),
            limit: LogLimit::default(),
        })
    }

    /// The first free subchannel, which stays free until this thread fills it: only one thread adds devices.
    ///
    /// # Errors
    /// When there are 256 devices.
    pub fn free_place(&self) -> Result<Place, SubchannelsTaken> {
        let free = self.slots().iter().position(Option::is_none);
        let number = free.ok_or(SubchannelsTaken)? as u8;
        Ok(Place::new(number, Arc::clone(&self.epoll)))
    }

    /// Puts a device on the first free subchannel, and returns the number of that. A guest that runs is told.
    ///
    /// # Errors
    /// As [`Self::free_place`].
    pub fn add(&self, device: Box<dyn ChannelDevice>) -> Result<u8, SubchannelsTaken> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let mut places = slots.iter_mut().zip(0..=u8::MAX);
        let (place, number) = places
            .find(|(place, _)| place.is_none())
            .ok_or(SubchannelsTaken)?;
        *place = Some(Mutex::new(Subchannel::new(device, number)));
        drop(slots);
        self.report(number);
        Ok(number)
    }

    /// Takes a device off its subchannel, whatever the guest does with it; nothing happens if there is none. To the guest
    /// there is none when this returns, and it is told so if it runs.
    pub fn remove(&self, number: u8) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let taken = slots.get_mut(usize::from(number)).and_then(Option::take);
        drop(slots);
        if let Some(taken) = taken {
            self.report(number);
            lock(&taken).device.removed();
        }
    }

    /// Executes an instruction, of a program in supervisor state, whose general register 1 and whose operand's address are
    /// given (of CHSC: the content of the register that it names). Returns the condition code. Any vCPU thread.
    ///
    /// # Errors
    /// When it is refused: a program interruption.
    pub fn execute(
        &self,
        instruction: Instruction,
        register_1: u32,
        address: u64,
        operands: &mut dyn Operands,
    ) -> Result<u8, Exception> {
        self.asked.store(true, Ordering::Relaxed);
        if !address.is_multiple_of(instruction.alignment()) {
            return Err(Exception::Specification);
        }
        let id = || checked(register_1, true);
        match instruction {
            Instruction::StoreChannelReportWord => self.store_report(address, operands),
            Instruction::ChannelSubsystemCall => call(address, operands),
            Instruction::StoreSubchannel => self.store(id()?, address, operands),
            Instruction::ModifySubchannel => {
                let mut schib = [0; Schib::SIZE];
                operands.read(address, &mut schib)?;
                let schib = Schib::from_bytes(&schib);
                let id = checked(register_1, schib.is_valid())?;
                Ok(self.on(id, |subchannel| subchannel.modify(&schib)))
            }
            Instruction::StartSubchannel => {
                let mut orb = [0; Orb::SIZE];
                operands.read(address, &mut orb)?;
                let orb = Orb::from_bytes(&orb);
                let id = checked(register_1, orb.is_valid())?;
                Ok(self.on(id, |subchannel| subchannel.start(&orb, &self.memory)))
            }
            Instruction::TestSubchannel => self.test(id()?, address, operands),
            Instruction::HaltSubchannel => Ok(self.on(id()?, Subchannel::halt)),
            Instruction::ClearSubchannel => Ok(self.on(id()?, Subchannel::clear)),
            Instruction::ResumeSubchannel | Instruction::CancelSubchannel => {
                Ok(self.on(id()?, |subchannel| subchannel.not_applicable()))
            }
        }
    }

    /// A notification of a queue by hypercall (DIAGNOSE 0x500, function 3; virtio 1.3, section 4.3.3.2) that no doorbell is
    /// bound to; `word` names the subchannel. Returns whether there is such a queue. Any vCPU thread.
    pub fn notified(&self, word: u32, queue: u16) -> bool {
        let mut known = false;
        if let Some(id) = SubchannelId::from_word(word) {
            self.on(id, |subchannel| {
                known = subchannel.device.notified(queue);
                0
            });
        }
        known
    }

    /// An eventfd of a device's was signalled.
    pub(super) fn signalled(&self, number: u8, name: u32) {
        self.on(SubchannelId::of(number.into()), |subchannel| {
            subchannel.signalled(name, &self.memory);
            0
        });
    }

    /// The set of all devices' eventfds.
    pub(super) fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// STSCH. The guest looks for subchannels up to the first that does not exist; those without a device before the last
    /// one that has one exist, therefore.
    fn store(
        &self,
        id: SubchannelId,
        address: u64,
        operands: &mut dyn Operands,
    ) -> Result<u8, Exception> {
        let slots = self.slots();
        let number = usize::from(id.number);
        let last = slots.iter().rposition(Option::is_some);
        if !id.is_ours() || last.is_none_or(|last| number > last) {
            return Ok(3);
        }
        let schib = match slots.get(number) {
            Some(Some(slot)) => lock(slot).schib(),
            _ => Schib::default(),
        };
        drop(slots);
        operands.write(address, &schib.to_bytes())?;
        Ok(0)
    }

    /// TSCH. A status that cannot be stored is kept.
    fn test(
        &self,
        id: SubchannelId,
        address: u64,
        operands: &mut dyn Operands,
    ) -> Result<u8, Exception> {
        let mut stored = Ok(());
        let code = self.on(id, |subchannel| {
            let Some((irb, code)) = subchannel.status() else {
                return 3;
            };
            stored = operands.write(address, &irb.to_bytes());
            if stored.is_ok() {
                subchannel.tested();
            }
            code
        });
        stored?;
        Ok(code)
    }

    /// STCRW.
    fn store_report(&self, address: u64, operands: &mut dyn Operands) -> Result<u8, Exception> {
        let mut reports = lock(&self.reports);
        let next = reports.next();
        operands.write(address, &next.unwrap_or(0).to_be_bytes())?;
        reports.stored();
        Ok(next.is_none().into())
    }

    /// Does something with a subchannel that has a device, and interrupts the guest if a status comes of it. Returns the
    /// condition code; 3, not operational, without a device.
    fn on(&self, id: SubchannelId, act: impl FnOnce(&mut Subchannel) -> u8) -> u8 {
        let slots = self.slots();
        let slot = slots.get(usize::from(id.number)).and_then(Option::as_ref);
        let Some(slot) = slot.filter(|_| id.is_ours()) else {
            return 3;
        };
        let mut subchannel = lock(slot);
        let was_pending = subchannel.is_pending();
        let code = act(&mut subchannel);
        if !was_pending && subchannel.is_pending() {
            let interrupted = self.interrupts.interrupt(subchannel.interrupt());
            self.check(interrupted, format_args!("of subchannel {}", id.number));
        }
        code
    }

    /// A subchannel has come or gone. A guest that has not asked for any finds out by itself.
    fn report(&self, number: u8) {
        if self.asked.load(Ordering::Relaxed) && lock(&self.reports).push(number) {
            self.check(self.interrupts.channel_report(), "for a channel report");
        }
    }

    fn check(&self, interrupted: io::Result<()>, what: impl fmt::Display) {
        if let Err(error) = interrupted
            && self.limit.allows()
        {
            warn!("cannot raise the interruption {what}: {error}");
        }
    }

    /// Held through an access, so that a device that was removed is not in use any more.
    fn slots(&self) -> RwLockReadGuard<'_, Vec<Option<Mutex<Subchannel>>>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The subchannel that an instruction names, if the rest of what it says is valid, too.
fn checked(register_1: u32, valid: bool) -> Result<SubchannelId, Exception> {
    let id = SubchannelId::from_word(register_1).filter(|_| valid);
    id.ok_or(Exception::Operand)
}

/// CHSC.
fn call(address: u64, operands: &mut dyn Operands) -> Result<u8, Exception> {
    let mut page = [0; 4096];
    operands.read(address, &mut page)?;
    let (at, answer) = chsc::answer(&page).ok_or(Exception::Operand)?;
    operands.write(address.wrapping_add(at as u64), &answer)?;
    Ok(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state is whole after any single instruction, and a panic is a bug elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
