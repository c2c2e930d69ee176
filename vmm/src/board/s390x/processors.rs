//! The vCPUs among themselves: which of them run, and SIGNAL PROCESSOR (Principles of Operation, chapter 4). KVM keeps
//! those orders for itself that leave a CPU as it is, as emergency signals.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};

use anyhow::{Context, Result, anyhow};
use arch::instruction::Signal;

use crate::hypervisor::{Processor, interrupt};

/// All vCPUs of a machine, by their addresses.
pub(super) struct Processors {
    cpus: Vec<Cpu>,
    states: Mutex<Vec<State>>,
    /// Bytes of guest memory.
    memory: u64,
}

#[derive(Default)]
struct Cpu {
    kvm: OnceLock<Processor>,
    thread: OnceLock<Thread>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    Running,
    /// Told to stop, and on its way.
    Stopping,
}

/// An order of SIGP.
mod order {
    pub(super) const START: u8 = 4;
    pub(super) const STOP: u8 = 5;
    pub(super) const RESTART: u8 = 6;
    pub(super) const INITIAL_CPU_RESET: u8 = 11;
    pub(super) const CPU_RESET: u8 = 12;
    pub(super) const SET_PREFIX: u8 = 13;
    pub(super) const SET_ARCHITECTURE: u8 = 18;
}

/// What SIGP answers, as a condition code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    Status(Status),
    Busy,
    NoSuchCpu,
}

/// What is to be done to a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    None,
    Start,
    Restart,
    Stop,
    InitialReset,
    Reset,
    SetPrefix,
    Refused(Answer),
}

/// Why an order is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Status {
    InvalidOrder = 0x02,
    InvalidParameter = 0x100,
    IncorrectState = 0x200,
}

impl Processors {
    /// So many, none of which runs.
    pub(super) fn new(count: u32, memory: u64) -> Self {
        let all = 0..count;
        Self {
            cpus: all.clone().map(|_| Cpu::default()).collect(),
            states: Mutex::new(all.map(|_| State::Stopped).collect()),
            memory,
        }
    }

    /// Takes the vCPU of this index.
    pub(super) fn add(&self, index: u32, kvm: Processor) -> Result<()> {
        let added = self.cpus.get(index as usize).map(|cpu| cpu.kvm.set(kvm));
        added
            .and_then(Result::ok)
            .context("no such vCPU, or there is one already")
    }

    /// Has a vCPU run, whose registers say where.
    pub(super) fn start(&self, index: u32) -> Result<()> {
        let (mut states, index) = (self.states(), index as usize);
        let state = states.get_mut(index).context("no such vCPU")?;
        self.start_with(index, state, None)
    }

    /// See [`crate::board::Board::may_run`].
    pub(super) fn may_run(&self, index: u32, stop: &AtomicBool) -> bool {
        let index = index as usize;
        if let Some(cpu) = self.cpus.get(index) {
            // Before its state is looked at: whoever starts it wakes it after that is set.
            cpu.thread.get_or_init(thread::current);
        }
        while !stop.load(Ordering::SeqCst) {
            if self.states().get(index) != Some(&State::Stopped) {
                return true;
            }
            thread::park();
        }
        false
    }

    /// A vCPU has done what it was told: it has stopped. Returns whether it was the last one that ran.
    pub(super) fn stopped(&self, index: u16) -> Result<bool> {
        let (mut states, index) = (self.states(), usize::from(index));
        self.kvm(index)?
            .set_operating(false)
            .context("KVM_SET_MP_STATE")?;
        if let Some(state) = states.get_mut(index) {
            *state = State::Stopped;
        }
        Ok(states.iter().all(|state| *state == State::Stopped))
    }

    /// SIGNAL PROCESSOR.
    pub(super) fn signal(&self, signal: &Signal) -> Result<Answer> {
        let (mut states, index) = (self.states(), usize::from(signal.cpu));
        let Some(state) = states.get_mut(index) else {
            return Ok(Answer::NoSuchCpu);
        };
        let kvm = self.kvm(index)?;
        match effect(signal.order, *state) {
            Effect::None => {}
            Effect::Start => self.start_with(index, state, None)?,
            Effect::Restart => self.start_with(index, state, Some(interrupt::RESTART))?,
            Effect::Stop => {
                let told = kvm.interrupt(interrupt::SIGP_STOP, 0);
                told.context("stop of a vCPU")?;
                *state = State::Stopping;
            }
            Effect::InitialReset => kvm.initial_reset().context("KVM_S390_INITIAL_RESET")?,
            Effect::Reset => kvm.normal_reset().context("KVM_S390_NORMAL_RESET")?,
            Effect::SetPrefix => {
                /// The other bits do not count.
                const PREFIX: u32 = 0x7fff_e000;
                let prefix = signal.parameter & PREFIX;
                if u64::from(prefix) >= self.memory {
                    return Ok(Answer::Status(Status::InvalidParameter));
                }
                let set = kvm.interrupt(interrupt::SIGP_SET_PREFIX, prefix);
                set.context("prefix of a vCPU")?;
            }
            Effect::Refused(answer) => return Ok(answer),
        }
        Ok(Answer::Accepted)
    }

    /// Has it run if it does not, and interrupts it.
    fn start_with(&self, index: usize, state: &mut State, kind: Option<u32>) -> Result<()> {
        let kvm = self.kvm(index)?;
        if *state == State::Stopped {
            kvm.set_operating(true).context("KVM_SET_MP_STATE")?;
        }
        if let Some(kind) = kind {
            kvm.interrupt(kind, 0).context("restart of a vCPU")?;
        }
        *state = State::Running;
        if let Some(thread) = self.cpus.get(index).and_then(|cpu| cpu.thread.get()) {
            thread.unpark();
        }
        Ok(())
    }

    fn kvm(&self, index: usize) -> Result<&Processor> {
        let kvm = self.cpus.get(index).and_then(|cpu| cpu.kvm.get());
        kvm.ok_or_else(|| anyhow!("vCPU {index} is not made yet"))
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an order does to a CPU in this state.
fn effect(order: u8, state: State) -> Effect {
    match (order, state) {
        (order::SET_PREFIX, State::Running)
        // Linux stops a CPU before.
        | (order::INITIAL_CPU_RESET | order::CPU_RESET, State::Running) => {
            Effect::Refused(Answer::Status(Status::IncorrectState))
        }
        (order::START, State::Running) | (order::STOP, State::Stopping | State::Stopped) => Effect::None,
        (order::STOP, State::Running) => Effect::Stop,
        // There is one architecture alone.
        (order::SET_ARCHITECTURE, _) => Effect::Refused(Answer::Status(Status::InvalidParameter)),
        (order::START..=order::SET_PREFIX, State::Stopping) => Effect::Refused(Answer::Busy),
        (order::START, State::Stopped) => Effect::Start,
        (order::RESTART, _) => Effect::Restart,
        (order::INITIAL_CPU_RESET, _) => Effect::InitialReset,
        (order::CPU_RESET, _) => Effect::Reset,
        (order::SET_PREFIX, _) => Effect::SetPrefix,
        _ => Effect::Refused(Answer::Status(Status::InvalidOrder)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_set_up_while_it_is_stopped() {
        let refused = |status| Effect::Refused(Answer::Status(status));
        for (order, done) in [
            (order::INITIAL_CPU_RESET, Effect::InitialReset),
            (order::CPU_RESET, Effect::Reset),
            (order::SET_PREFIX, Effect::SetPrefix),
        ] {
            assert_eq!(effect(order, State::Stopped), done);
            assert_eq!(
                effect(order, State::Stopping),
                Effect::Refused(Answer::Busy)
            );
            assert_eq!(
                effect(order, State::Running),
                refused(Status::IncorrectState)
            );
        }
        assert_eq!(effect(7, State::Stopped), refused(Status::InvalidOrder));
        assert_eq!(effect(255, State::Running), refused(Status::InvalidOrder));
    }

    #[test]
    fn a_cpu_starts_and_stops_once() {
        let busy = Effect::Refused(Answer::Busy);
        for (order, stopped, running, stopping) in [
            (order::START, Effect::Start, Effect::None, busy),
            (order::RESTART, Effect::Restart, Effect::Restart, busy),
            (order::STOP, Effect::None, Effect::Stop, Effect::None),
        ] {
            assert_eq!(effect(order, State::Stopped), stopped);
            assert_eq!(effect(order, State::Running), running);
            assert_eq!(effect(order, State::Stopping), stopping);
        }
    }

    #[test]
    fn nobody_waits_for_a_cpu_when_the_machine_ends() {
        let processors = Processors::new(2, 1 << 20);
        assert!(!processors.may_run(1, &AtomicBool::new(true)));
        let signal = Signal {
            order: order::START,
            cpu: 2,
            parameter: 0,
            status: 0,
        };
        assert_eq!(processors.signal(&signal).unwrap(), Answer::NoSuchCpu);
    }
}
