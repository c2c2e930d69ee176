//! Tells the linker what Linux on s390x asks of a program that makes virtual machines: this segment, for which it gets page tables
//! that guests can share (`arch_elf_pt_proc` of the kernel's arch/s390/include/asm/elf.h). Not so init: the kernel cannot start
//! such a program itself.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "s390x") {
        println!("cargo::rustc-link-arg-bin=runq-vmm=-Wl,--s390-pgste");
    }
}
