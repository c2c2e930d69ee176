//! Guests of a few instructions: 32-bit code that is entered by the PVH protocol, without paging,
//! which any KVM runs, and a machine to run them on.

use std::io::Write;
use std::time::Duration;

use arch::CpuFeatures;
use arch::cmdline::CommandLine;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use vmm::board::{Board, Boot, HostBoard};
use vmm::config::Config;
use vmm::exit::Exit;
use vmm::program::RUNQ_VMM;
use vmm::vm::{Ended, Vm};
use vmm::{Console, MIN_RAM};
use vmm_sys_util::tempfile::TempFile;

/// Where a guest's code is.
pub(crate) const LOAD_ADDRESS: u32 = 0x10_0000;
/// A port that no device claims: what a guest writes there ends [`Machine::run`].
pub(crate) const TEST_PORT: u16 = 0xe9;

/// Defines a function that returns the machine code of a guest. The first instruction is entered;
/// `0x100000 + (label - START)` is a label's address.
#[macro_export]
macro_rules! guest {
    ($name:ident, $start:literal, $end:literal, $($line:expr),* $(,)?) => {
        std::arch::global_asm!(
            ".pushsection .rodata",
            ".code32",
            concat!($start, ":"),
            $(concat!($line, "\n"),)*
            concat!($end, ":"),
            ".code64",
            ".popsection",
        );

        fn $name() -> Vec<u8> {
            unsafe extern "C" {
                #[link_name = $start]
                static START: u8;
                #[link_name = $end]
                static END: u8;
            }
            let start = &raw const START;
            let end = &raw const END;
            // SAFETY: both labels are in one section, in this order, with initialised bytes between
            // them that nobody changes.
            unsafe { std::slice::from_raw_parts(start, end.offset_from(start) as usize).to_vec() }
        }
    };
}

/// An ELF file as a kernel with a PVH entry note would be.
pub(crate) fn elf(code: &[u8]) -> TempFile {
    const HEADERS: u64 = 64 + 2 * 56;
    let mut note = Vec::new();
    // XEN_ELFNOTE_PHYS32_ENTRY is 18; the descriptor is the address.
    for word in [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), LOAD_ADDRESS] {
        note.extend(word.to_le_bytes());
    }
    let code_at = HEADERS + note.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    half(&mut file, 2); // ET_EXEC
    half(&mut file, 62); // EM_X86_64
    file.extend(1u32.to_le_bytes());
    for value in [u64::from(LOAD_ADDRESS), 64, 0] {
        file.extend(value.to_le_bytes()); // entry, program headers, section headers
    }
    file.extend(0u32.to_le_bytes());
    for value in [64, 56, 2, 0, 0, 0] {
        half(&mut file, value);
    }
    let load = u64::from(LOAD_ADDRESS);
    for (kind, flags, offset, address, size) in [
        (1u32, 7u32, code_at, load, code.len() as u64),
        (4, 4, HEADERS, 0, note.len() as u64),
    ] {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for value in [offset, address, address, size, size, 4] {
            file.extend(value.to_le_bytes());
        }
    }
    file.extend(note);
    file.extend(code);
    let temp = TempFile::new().unwrap();
    temp.as_file().write_all(&file).unwrap();
    temp
}

fn boot(kernel: &TempFile) -> Boot {
    Boot {
        kernel: kernel.as_path().to_owned(),
        initrd: None,
        cmdline: CommandLine::new("").unwrap(),
    }
}

pub(crate) fn kvm() -> Kvm {
    vmm::kvm::open().expect("these tests need /dev/kvm, any kind of it")
}

/// A machine as runq-vmm would ask for it, with `cpus` vCPUs.
pub(crate) fn config(kernel: &TempFile, cpus: u32) -> Config {
    Config {
        program: &RUNQ_VMM,
        cpus,
        memory: MIN_RAM,
        cpu_features: String::new(),
        kernel: kernel.as_path().to_owned(),
        initrd: None,
        cmdline: String::new(),
        console: Console::None,
        devices: Vec::new(),
        command: None,
        crypto: None,
        plugs: None,
        trace: false,
    }
}

/// It, with a guest.
pub(crate) fn vm(code: &[u8], cpus: u32) -> Vm {
    Vm::on(&kvm(), config(&elf(code), cpus)).unwrap()
}

/// Runs it.
pub(crate) fn run_vm(code: &[u8], cpus: u32) -> Ended {
    vm(code, cpus).run().unwrap()
}

/// A board with one vCPU that the test's own thread runs.
pub(crate) struct Machine {
    pub(crate) board: HostBoard,
    pub(crate) vcpu: VcpuFd,
}

/// What a guest did that the test wants to know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Wrote this byte to [`TEST_PORT`].
    Said(u8),
    /// Wrote these bytes to this address.
    Wrote(u64, Vec<u8>),
    /// Ended.
    Ended(Exit),
}

impl Machine {
    pub(crate) fn new(code: &[u8]) -> Self {
        let mut board = HostBoard::new(&kvm(), 1, MIN_RAM, &CpuFeatures::default()).unwrap();
        board.load(&boot(&elf(code))).unwrap();
        let vcpu = board.vcpu(0).unwrap();
        Self { board, vcpu }
    }

    /// Runs the guest until it does something that a test wants to know.
    pub(crate) fn run(&mut self) -> Event {
        loop {
            match self.vcpu.run().unwrap() {
                VcpuExit::IoOut(TEST_PORT, data) => return Event::Said(data[0]),
                VcpuExit::MmioWrite(address, data) => return Event::Wrote(address, data.to_vec()),
                VcpuExit::Shutdown => return Event::Ended(Exit::TripleFault),
                exit => {
                    if let Some(end) = self.board.run(exit).unwrap() {
                        return Event::Ended(end);
                    }
                }
            }
        }
    }
}

/// Long enough for anything that happens at all, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
