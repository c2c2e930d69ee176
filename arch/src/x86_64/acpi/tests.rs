use std::process::Command;

use super::*;

const MACHINE: Machine = Machine {
    cpus: 2,
    pci: true,
    serial: true,
    pvpanic: true,
};
const NOTHING: Machine = Machine {
    cpus: 1,
    pci: false,
    serial: false,
    pvpanic: false,
};

fn sum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The table at a guest address, by the length in its header; its checksum must be right.
fn table_at(area: &[u8], address: u64) -> &[u8] {
    let start = (address - layout::ACPI_START.0) as usize;
    let table = &area[start..start + u32_at(area, start + 4) as usize];
    assert_eq!(sum(table), 0, "{}", String::from_utf8_lossy(&table[..4]));
    assert_eq!(&table[10..16], b"RUNQ  ");
    table
}

/// The tables as a guest finds them: from the RSDP to the XSDT, from there on, DSDT by the FADT.
fn walk(area: &[u8]) -> Vec<(String, &[u8])> {
    assert_eq!(&area[..8], b"RSD PTR ");
    assert_eq!((sum(&area[..20]), sum(&area[..36])), (0, 0));
    let xsdt = table_at(area, u64_at(area, 24));
    let mut tables: Vec<_> = xsdt[36..]
        .chunks(8)
        .map(|a| table_at(area, u64_at(a, 0)))
        .collect();
    let fadt = tables.iter().find(|table| &table[..4] == b"FACP").unwrap();
    tables.push(table_at(area, u64_at(fadt, 140)));
    let name = |table: &[u8]| String::from_utf8(table[..4].to_vec()).unwrap();
    tables
        .into_iter()
        .map(|table| (name(table), table))
        .collect()
}

fn names(machine: &Machine) -> Vec<String> {
    walk(&tables(machine))
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

fn has(machine: &Machine, text: &[u8]) -> bool {
    tables(machine)
        .windows(text.len())
        .any(|window| window == text)
}

#[test]
fn the_guest_finds_all_tables() {
    assert_eq!(names(&MACHINE), ["FACP", "APIC", "MCFG", "DSDT"]);
    assert_eq!(names(&NOTHING), ["FACP", "APIC", "DSDT"]);
}

#[test]
fn only_what_is_there_is_announced() {
    for device in [&b"PCI0"[..], b"MBRD", b"COM1", b"PEVT", b"_SB_"] {
        assert!(has(&MACHINE, device));
        assert!(!has(&NOTHING, device));
    }
    assert!(has(&NOTHING, b"_S5_"));
}

/// Offsets as in ACPI 6.5, table 5.9.
#[test]
fn fadt_is_hardware_reduced() {
    let area = tables(&MACHINE);
    let tables = walk(&area);
    let fadt = tables[0].1;
    assert_eq!((fadt.len(), fadt[8]), (276, 6));
    let flags = u32_at(fadt, 112);
    assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10); // HW_REDUCED_ACPI, RESET_REG_SUP
    assert_eq!(fadt[109], 0x34); // IAPC_BOOT_ARCH
    let register = |at: usize| (fadt[at], fadt[at + 1], fadt[at + 3], u64_at(fadt, at + 4));
    assert_eq!(register(116), (1, 8, 1, 0x602)); // RESET_REG
    assert_eq!(fadt[128], layout::RESET_VALUE);
    assert_eq!(register(244), (1, 8, 1, 0x600)); // SLEEP_CONTROL_REG
    assert_eq!(register(256), (1, 8, 1, 0x601)); // SLEEP_STATUS_REG
}

#[test]
fn madt_has_a_local_apic_for_each_cpu() {
    let machine = Machine {
        cpus: 300,
        ..MACHINE
    };
    let area = tables(&machine);
    let madt = walk(&area)[1].1;
    assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xfee0_0000, 0));
    let mut structures = &madt[44..];
    let (mut ids, mut io_apics) = (Vec::new(), 0);
    while let [kind, length, ..] = *structures {
        let (structure, rest) = structures.split_at(length.into());
        match kind {
            0 => ids.push(u32::from(structure[3])),
            9 => ids.push(u32_at(structure, 4)),
            1 => io_apics += 1,
            _ => panic!("structure {kind}"),
        }
        structures = rest;
    }
    assert_eq!(ids, (0..300).collect::<Vec<_>>());
    assert_eq!(io_apics, 1);
}

#[test]
fn mcfg_names_the_ecam() {
    let area = tables(&MACHINE);
    let mcfg = walk(&area)[2].1;
    assert_eq!((mcfg.len(), u64_at(mcfg, 44)), (60, layout::ECAM_START));
    assert_eq!((mcfg[54], mcfg[55]), (0, 0)); // first and last bus
}

/// ACPICA's compiler reads our DSDT, and what it read compiles again without a remark. Needs
/// `iasl` (Debian: acpica-tools); with RUNQ_TEST_TOOLS=required it must be there.
#[test]
fn acpica_accepts_the_dsdt() {
    let required = std::env::var_os("RUNQ_TEST_TOOLS").is_some_and(|value| value == "required");
    if Command::new("iasl").arg("-v").output().is_err() {
        assert!(!required, "iasl is missing: install acpica-tools");
        eprintln!("skipped: no iasl on this machine");
        return;
    }
    let folder = vmm_sys_util::tempdir::TempDir::new().unwrap();
    let run = |arguments: &[&str]| {
        let iasl = Command::new("iasl")
            .args(arguments)
            .current_dir(folder.as_path())
            .output();
        let output = iasl.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let area = tables(&MACHINE);
    for (name, table) in walk(&area) {
        std::fs::write(folder.as_path().join(format!("{name}.aml")), table).unwrap();
        let (ok, text) = run(&["-d", &format!("{name}.aml")]);
        assert!(
            ok && !text.contains("Error") && !text.contains("Warning"),
            "{text}"
        );
    }
    let (ok, text) = run(&["DSDT.dsl"]);
    assert!(
        ok && text.contains("0 Errors, 0 Warnings, 0 Remarks"),
        "{text}"
    );
}
