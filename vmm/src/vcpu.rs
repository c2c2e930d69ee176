//! The vCPU loop: run, decode the exit, hand it to the board, go on.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};

use crate::board::Board;
use crate::exit::Exit;
use crate::hypervisor::{VcpuExit, VcpuFd};
use crate::immediate_exit::Interruptible;
use crate::stats::ExitCounts;

/// One vCPU and what its exits reach; lives on a thread of its own.
pub struct Vcpu<B> {
    /// Which vCPU, from 0.
    pub index: u32,
    /// KVM's handle, in its initial state.
    pub fd: VcpuFd,
    /// Where accesses go that leave KVM.
    pub board: Arc<B>,
    /// Set before it is interrupted when the vCPU shall end.
    pub stop: Arc<AtomicBool>,
    /// Print each exit to stderr.
    pub trace: bool,
}

/// What came of an exit; errors carry no borrow of the vCPU, so that its state can be shown.
enum Step {
    Continue,
    Interrupted,
    End(Exit),
    InternalError,
    Unexpected(String),
}

impl<B: Board> Vcpu<B> {
    /// Runs the vCPU until the guest or the host ends it. Counts each exit in `counts`.
    ///
    /// # Errors
    /// When KVM cannot run the guest, or the guest does what no board knows.
    pub fn run(mut self, counts: &mut ExitCounts) -> Result<Exit> {
        let mut interruptible = Interruptible::new(&mut self.fd).context("signal of a vCPU")?;
        while self.board.may_run(self.index, &self.stop) {
            let step = match interruptible.vcpu().run() {
                Ok(exit) => {
                    counts.count(&exit);
                    if self.trace {
                        eprintln!("vcpu {}: {exit:?}", self.index);
                    }
                    dispatch(&*self.board, exit)?
                }
                Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => Step::Interrupted,
                Err(e) => return Err(e).context(format!("vcpu {}: KVM_RUN", self.index)),
            };
            match step {
                Step::Continue => {}
                Step::Interrupted => {
                    counts.interrupted += 1;
                    interruptible.rearm();
                }
                Step::End(exit) => return Ok(exit),
                Step::InternalError => bail!(
                    "vcpu {}: KVM cannot go on at {} (KVM_EXIT_INTERNAL_ERROR): an instruction that \
                     it does not emulate, or a processor state that it does not support",
                    self.index,
                    B::where_is(interruptible.vcpu())
                ),
                Step::Unexpected(what) => bail!("vcpu {}: {what}", self.index),
            }
        }
        Ok(Exit::Stopped)
    }
}

fn dispatch<B: Board>(board: &B, exit: VcpuExit<'_>) -> Result<Step> {
    Ok(match exit {
        VcpuExit::Intr => Step::Interrupted,
        VcpuExit::Shutdown => Step::End(Exit::TripleFault),
        VcpuExit::InternalError => Step::InternalError,
        VcpuExit::FailEntry(reason, _) => Step::Unexpected(format!(
            "the processor refused to enter the guest: {reason:#x}"
        )),
        exit => match board.run(exit)? {
            Some(end) => Step::End(end),
            None => Step::Continue,
        },
    })
}
