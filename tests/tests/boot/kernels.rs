//! Each kernel with few and many resources.

use std::arch::x86_64::__cpuid;
use std::collections::HashMap;

use tests::guest::{Guest, Kernel, Rootfs};

use crate::{assert_code, assert_silent};

/// What the guest says about itself, as `name=value`, and complaints of its kernel.
const SCRIPT: &str = r#"
echo "release=$(uname -r)"
echo "cpus=$(nproc)"
echo "online=$(cat /sys/devices/system/cpu/online)"
echo "memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
echo "high=$(grep -c '^ *1[0-9a-f]\{8\}-.*System RAM' /proc/iomem)"
echo "clock=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "x2apic=$(grep -cw x2apic /proc/cpuinfo)"
dmesg | grep -E 'WARNING: CPU|BUG:|Oops|unchecked MSR|ACPI.*Error' | sed 's/^/complaint=/'
"#;

struct Machine {
    kernel: Kernel,
    cpus: u32,
    mib: u64,
}

fn boots(machine: &Machine) {
    let Machine { kernel, cpus, mib } = machine;
    let rootfs = Rootfs::new().unwrap();
    let done = Guest::with(*kernel, &rootfs)
        .unwrap()
        .option("--cpus", cpus.to_string())
        .option("--mem", mib.to_string())
        .shell(SCRIPT)
        .unwrap();
    assert_code(&done, 0);
    assert_silent(&done);
    let text = done.stdout();
    let facts: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();

    assert!(is_release_of(*kernel, facts["release"]), "{text}");
    assert_eq!(facts["cpus"], cpus.to_string(), "{text}");
    assert_eq!(
        facts["online"],
        if *cpus == 1 {
            "0".into()
        } else {
            format!("0-{}", cpus - 1)
        }
    );
    let seen = facts["memory"].parse::<u64>().unwrap() >> 10;
    // The kernel itself, its initrd and a 64th for the page structures are not counted.
    let least = (mib - mib / 32).saturating_sub(40);
    assert!(seen < *mib && seen >= least, "{seen} of {mib} MiB");
    assert_eq!(
        facts["high"] != "0",
        *mib > 4096,
        "memory above 4 GiB: {text}"
    );
    assert!(["kvm-clock", "tsc"].contains(&facts["clock"]), "{text}");
    assert_eq!(facts["x2apic"], cpus.to_string(), "{text}");
    let complaints: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("complaint=") && !is_emulators(line))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// QEMU's emulation of SVM lets a guest's XSETBV pass by KVM, which then shows the guest a size of
/// the register state that is out of date: the kernel warns, under any monitor.
fn is_emulators(complaint: &str) -> bool {
    // The name of the hypervisor, if the host runs under one.
    let leaf = __cpuid(0x4000_0000);
    let name = [leaf.ebx, leaf.ecx, leaf.edx]
        .map(u32::to_le_bytes)
        .concat();
    name == b"TCGTCGTCGTCG" && complaint.contains("arch/x86/kernel/fpu/xstate.c")
}

fn is_release_of(kernel: Kernel, release: &str) -> bool {
    match kernel {
        Kernel::Lean => release.ends_with("-runq"),
        Kernel::StockCloud => release.ends_with("-cloud-amd64"),
        Kernel::Stock => release.ends_with("-amd64") && !release.contains("cloud"),
    }
}

/// One test for each machine.
macro_rules! machines {
    ($($name:ident: $kernel:ident, $cpus:literal, $mib:literal;)*) => {$(
        #[test]
        #[ignore = "boots a guest: make test"]
        fn $name() {
            boots(&Machine { kernel: Kernel::$kernel, cpus: $cpus, mib: $mib });
        }
    )*};
}

machines! {
    lean_with_1_cpu_and_64_mib: Lean, 1, 64;
    lean_with_2_cpus_and_64_mib: Lean, 2, 64;
    lean_with_1_cpu_and_5_gib: Lean, 1, 5120;
    lean_with_2_cpus_and_5_gib: Lean, 2, 5120;
    stock_cloud_with_1_cpu_and_128_mib: StockCloud, 1, 128;
    stock_cloud_with_2_cpus_and_128_mib: StockCloud, 2, 128;
    stock_cloud_with_1_cpu_and_5_gib: StockCloud, 1, 5120;
    stock_cloud_with_2_cpus_and_5_gib: StockCloud, 2, 5120;
    stock_with_2_cpus_and_512_mib: Stock, 2, 512;
}
