//! The monitor with guests of a few instructions, on any /dev/kvm: hardware or emulating.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code, missing_docs)] // the guests' machine code, assembled into this program
#![allow(bad_asm_style)] // differences of labels are beyond the assembler's Intel syntax
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failure is a failed test

mod confined;
mod console;
mod guest;

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use devices::fabric::{Doorbell, Fabric, Gsi, Interrupt, MsiMessage};
use guest::{Event, Machine, PATIENCE, run_vm, vm};
use kvm_ioctls::VcpuExit;
use vmm::board::Board;
use vmm::exit::Exit;
use vmm::immediate_exit::{Interruptible, install_handler, interrupt};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

guest!(
    power_off,
    "power_off_start",
    "power_off_end",
    "mov dx, 0x600",
    "mov al, 0x34",
    "out dx, al",
    "hlt"
);

guest!(
    acpi_reset,
    "acpi_reset_start",
    "acpi_reset_end",
    "mov dx, 0x602",
    "mov al, 1",
    "out dx, al",
    "hlt"
);

guest!(
    keyboard_reset,
    "keyboard_reset_start",
    "keyboard_reset_end",
    "mov al, 0xfe",
    "out 0x64, al",
    "hlt"
);

guest!(
    panic,
    "panic_start",
    "panic_end",
    "mov dx, 0x505",
    "in al, dx",
    "out dx, al",
    "hlt"
);

// No IDT: the exception cannot be delivered, nor can the double fault.
guest!(
    triple_fault,
    "triple_fault_start",
    "triple_fault_end",
    "ud2"
);

guest!(spin, "spin_start", "spin_end", "2:", "jmp 2b");

guest!(halt, "halt_start", "halt_end", "cli", "2:", "hlt", "jmp 2b");

// Reads ports that a PC kernel probes: says each byte.
guest!(
    probe,
    "probe_start",
    "probe_end",
    "mov al, 0x0a",
    "out 0x70, al",
    "in al, 0x71",
    "out 0xe9, al", // RTC status A
    "in al, 0x80",
    "out 0xe9, al",
    "mov dx, 0x3f8",
    "in al, dx",
    "out 0xe9, al", // no 16550 here
    "in eax, 0x92",
    "out 0xe9, al"
);

// A read of nothing, a write to nothing, and a read from the host bridge's configuration space.
guest!(
    mmio,
    "mmio_start",
    "mmio_end",
    "mov eax, [0xc0000000]",
    "out 0xe9, al",
    "mov dword ptr [0xc0000010], 0x12345678",
    "mov eax, [0xe0000000]",
    "cmp ax, 0xffff",
    "sete al",
    "out 0xe9, al"
);

// Writes three widths to an address, then says so.
guest!(
    kicks,
    "kicks_start",
    "kicks_end",
    "2:",
    "mov al, 1",
    "mov byte ptr [0xc0000100], al",
    "mov word ptr [0xc0000100], ax",
    "mov dword ptr [0xc0000100], eax",
    "mov al, 'k'",
    "out 0xe9, al",
    "jmp 2b"
);

// Loads a GDT and an IDT with one handler, at vector 0x40, that says 'I'; enables the local APIC
// and interrupts. Then says 'r' again and again. The handler returns by hand, as a KVM that
// emulates does not know IRET in protected mode: flags and return address change places, and the
// next interrupt, which may come right after POPFD, finds the return address on the stack.
guest!(
    interrupts,
    "interrupts_start",
    "interrupts_end",
    "mov esp, 0x80000",
    ".att_syntax",
    "lgdt 0x100000 + interrupts_gdtr - interrupts_start",
    ".intel_syntax noprefix",
    "push 0x08",
    ".att_syntax",
    "pushl $0x100000 + interrupts_flat - interrupts_start",
    ".intel_syntax noprefix",
    "retf",
    "interrupts_flat:",
    "mov ax, 0x10",
    "mov ds, ax",
    "mov ss, ax",
    ".att_syntax",
    "movl $0x100000 + interrupts_handler - interrupts_start, %eax",
    ".intel_syntax noprefix",
    "mov ebx, 0x90000 + 0x40 * 8",
    "mov [ebx], ax",
    "mov word ptr [ebx + 2], 0x08",
    "mov word ptr [ebx + 4], 0x8e00",
    "shr eax, 16",
    "mov [ebx + 6], ax",
    ".att_syntax",
    "lidt 0x100000 + interrupts_idtr - interrupts_start",
    ".intel_syntax noprefix",
    "mov dword ptr [0xfee000f0], 0x1ff",
    "sti",
    "2:",
    "mov al, 'r'",
    "out 0xe9, al",
    "jmp 2b",
    "interrupts_handler:",
    "push eax",
    "mov al, 'I'",
    "out 0xe9, al",
    "mov dword ptr [0xfee000b0], 0",
    "mov eax, [esp + 4]",
    "xchg eax, [esp + 12]",
    "mov [esp + 8], eax",
    "pop eax",
    "add esp, 4",
    "popfd",
    "ret",
    ".align 8",
    "interrupts_gdt:",
    ".quad 0",
    ".quad 0x00cf9b000000ffff",
    ".quad 0x00cf93000000ffff",
    "interrupts_gdtr:",
    ".word 23",
    ".long 0x100000 + (interrupts_gdt - interrupts_start)",
    "interrupts_idtr:",
    ".word 0x7ff",
    ".long 0x90000"
);

// Copies real-mode code for the other processor to 0x8000, sends INIT and SIPI to all others, and
// waits for the byte that it writes; then powers off.
guest!(
    two,
    "two_start",
    "two_end",
    ".att_syntax",
    "movl $0x100000 + two_real - two_start, %esi",
    ".intel_syntax noprefix",
    "mov edi, 0x8000",
    "mov ecx, 32",
    "cld",
    "rep movsb",
    "mov dword ptr [0xfee000f0], 0x1ff",
    "mov dword ptr [0xfee00300], 0x000c4500",
    "mov dword ptr [0xfee00300], 0x000c4608",
    "2:",
    "mov al, [0x9000]",
    "cmp al, 0x5a",
    "jne 2b",
    "mov dx, 0x600",
    "mov al, 0x34",
    "out dx, al",
    "hlt",
    "two_real:",
    ".code16",
    "xor ax, ax",
    "mov ds, ax",
    "mov byte ptr [0x9000], 0x5a",
    "3:",
    "hlt",
    "jmp 3b",
    ".code32"
);

fn exit_of(code: Vec<u8>) -> Exit {
    run_vm(&code, 1).exit
}

#[test]
fn each_end_of_a_guest_is_a_distinct_exit() {
    assert_eq!(exit_of(power_off()), Exit::PowerOff);
    assert_eq!(exit_of(acpi_reset()), Exit::Reset);
    assert_eq!(exit_of(keyboard_reset()), Exit::Reset);
    assert_eq!(exit_of(panic()), Exit::Panic);
    assert_eq!(exit_of(triple_fault()), Exit::TripleFault);
}

#[test]
fn exits_are_counted_by_reason() {
    let ended = run_vm(&panic(), 1);
    let exits = |reason| ended.exits.of(reason).unwrap();
    assert_eq!((exits("port reads"), exits("port writes")), (1, 1));
    assert_eq!((exits("mmio reads"), exits("mmio writes")), (0, 0));
}

#[test]
fn a_running_guest_is_stopped_whenever_that_is_asked_for() {
    // Before the loop, at once, and while it runs or halts: every time it must be seen.
    for code in [spin(), halt()] {
        for round in 0..20 {
            let (done, finished) = mpsc::channel();
            let code = code.clone();
            thread::spawn(move || {
                let vm = vm(&code, 1);
                let stopper = vm.stopper();
                if round == 0 {
                    stopper.stop();
                } else {
                    thread::spawn(move || stopper.stop());
                }
                done.send(vm.run().unwrap().exit).unwrap();
            });
            assert_eq!(finished.recv_timeout(PATIENCE).unwrap(), Exit::Stopped);
        }
    }
}

#[test]
fn a_signal_before_kvm_run_is_not_lost() {
    install_handler().unwrap();
    let mut machine = Machine::new(&spin());
    let (ready, is_ready) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let vcpu = thread::spawn(move || {
        let mut interruptible = Interruptible::new(&mut machine.vcpu).unwrap();
        ready.send(()).unwrap();
        may_go.recv().unwrap();
        // The signal came when the thread was not in KVM_RUN: the guest, which spins for ever, must
        // not be entered.
        let first = interruptible.vcpu().run().map(|_| ()).unwrap_err().errno();
        interruptible.rearm();
        ready.send(()).unwrap();
        (
            first,
            interruptible.vcpu().run().map(|_| ()).unwrap_err().errno(),
        )
    });
    is_ready.recv_timeout(PATIENCE).unwrap();
    interrupt(&vcpu).unwrap();
    go.send(()).unwrap();
    is_ready.recv_timeout(PATIENCE).unwrap();
    interrupt(&vcpu).unwrap();
    assert_eq!(vcpu.join().unwrap(), (libc::EINTR, libc::EINTR));
}

#[test]
fn ports_that_a_kernel_probes_answer_sanely() {
    let mut machine = Machine::new(&probe());
    let Event::Said(status_a) = machine.run() else {
        panic!("no answer")
    };
    assert_eq!(
        status_a & 0x80,
        0,
        "the clock claims to be updating for ever"
    );
    for _ in 0..3 {
        assert_eq!(machine.run(), Event::Said(0xff));
    }
}

#[test]
fn nothing_reads_as_ones_and_the_host_bridge_is_there() {
    let mut machine = Machine::new(&mmio());
    assert_eq!(machine.run(), Event::Said(0xff));
    assert_eq!(
        machine.run(),
        Event::Wrote(0xc000_0010, vec![0x78, 0x56, 0x34, 0x12])
    );
    assert_eq!(machine.run(), Event::Said(0), "no host bridge");
}

#[test]
fn a_kick_of_any_width_signals_its_eventfd_without_an_exit() {
    let mut machine = Machine::new(&kicks());
    let kick = EventFd::new(EFD_NONBLOCK).unwrap();
    let fabric = machine.board.fabric();
    fabric
        .bind_kick(Doorbell::Mmio(0xc000_0100), &kick)
        .unwrap();
    assert!(
        fabric
            .bind_kick(Doorbell::Mmio(0xc000_0100), &kick)
            .is_err(),
        "bound twice"
    );
    assert_eq!(machine.run(), Event::Said(b'k'));
    assert_eq!(kick.read().unwrap(), 3);
    machine
        .board
        .fabric()
        .unbind_kick(Doorbell::Mmio(0xc000_0100), &kick)
        .unwrap();
    assert_eq!(machine.run(), Event::Wrote(0xc000_0100, vec![1]));
    assert!(kick.read().is_err(), "signalled after it was unbound");
}

/// Whether the guest is interrupted before it has said `r` so often.
fn interrupted(machine: &mut Machine, rounds: u32) -> bool {
    (0..rounds).any(|_| is_interrupted(machine))
}

/// Waits for the interrupt: KVM injects it from a kernel thread, which a busy host may let wait.
fn interrupted_in_time(machine: &mut Machine) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if is_interrupted(machine) {
            return true;
        }
    }
    false
}

fn is_interrupted(machine: &mut Machine) -> bool {
    match machine.run() {
        Event::Said(b'r') => false,
        Event::Said(b'I') => true,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bound_call_interrupts_and_a_masked_one_waits() {
    let mut machine = Machine::new(&interrupts());
    assert_eq!(machine.run(), Event::Said(b'r'));
    let call = EventFd::new(EFD_NONBLOCK).unwrap();
    let fabric = machine.board.fabric().clone();
    let gsi = fabric.allocate_route().unwrap();
    let message = MsiMessage {
        address: 0xfee0_0000,
        data: 0x40,
    };

    // Masked: not bound, as virtio-pci does it. The signal waits in the eventfd.
    call.write(1).unwrap();
    assert!(!interrupted(&mut machine, 20));
    // Unmasked: it comes at once.
    fabric
        .bind_call(gsi, Interrupt::Msi(message), &call)
        .unwrap();
    assert!(
        interrupted_in_time(&mut machine),
        "the pending interrupt was lost"
    );
    call.write(1).unwrap();
    assert!(
        interrupted_in_time(&mut machine),
        "a bound call does not interrupt"
    );
    // Masked again.
    fabric.unbind_call(gsi, &call).unwrap();
    call.write(1).unwrap();
    assert!(!interrupted(&mut machine, 20));
    assert_eq!(call.read().unwrap(), 1);
}

#[test]
fn routes_end_where_kvm_s_table_does() {
    let machine = Machine::new(&halt());
    let fabric = machine.board.fabric();
    let count = (0..100_000)
        .take_while(|_| fabric.allocate_route().is_ok())
        .count();
    assert!((100..100_000).contains(&count), "{count} routes");
}

#[test]
fn a_route_that_kvm_refuses_is_not_kept() {
    let machine = Machine::new(&halt());
    let fabric = machine.board.fabric();
    let interrupt = Interrupt::Msi(MsiMessage {
        address: 0xfee0_0000,
        data: 0x40,
    });
    let call = EventFd::new(EFD_NONBLOCK).unwrap();
    let beyond = Gsi(1 << 20);
    for _ in 0..2 {
        assert!(fabric.bind_call(beyond, interrupt, &call).is_err());
    }
    let gsi = fabric.allocate_route().unwrap();
    fabric.bind_call(gsi, interrupt, &call).unwrap();
}

#[test]
fn a_second_vcpu_starts_by_init_and_sipi() {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || done.send(run_vm(&two(), 2).exit).unwrap());
    assert_eq!(finished.recv_timeout(PATIENCE).unwrap(), Exit::PowerOff);
}

#[test]
fn an_unknown_exit_is_an_error_that_says_so() {
    let machine = Machine::new(&halt());
    let error = machine
        .board
        .run(VcpuExit::Unknown)
        .unwrap_err()
        .to_string();
    assert!(error.contains("Unknown"), "{error}");
}
