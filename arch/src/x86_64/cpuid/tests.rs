use proptest::prelude::*;

use super::feature_table::Register;
use super::*;

const HOST: Timers = Timers {
    tsc_khz: 2_500_000,
    tsc_deadline_timer: true,
};
/// Where the guest sees bits that KVM does not report, as documented at [`Model::new`].
const ADDED: [(u32, Register, u32); 5] = [
    (1, Register::Ecx, HYPERVISOR | TSC_DEADLINE_TIMER),
    (1, Register::Edx, 1 << 28), // HTT
    (6, Register::Eax, ARAT),
    (0x8000_0001, Register::Ecx, 1 << 1), // CMP_LEGACY
    (KVM_SIGNATURE, Register::Eax, !0),
];
/// Leaves that describe the topology, and the one that we add.
const OURS: [u32; 7] = [
    4,
    0xb,
    0x1f,
    0x8000_0008,
    0x8000_001d,
    0x8000_001e,
    TIMING_LEAF,
];

fn leaf(function: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    let [eax, ebx, ecx, edx] = registers;
    kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    }
}

fn subleaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    let flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    kvm_cpuid_entry2 {
        index,
        flags,
        ..leaf(function, registers)
    }
}

/// What KVM reports on a server of one vendor, with AVX-512.
fn supported(vendor: &[u8; 12]) -> Vec<kvm_cpuid_entry2> {
    let word = |at: usize| u32::from_le_bytes(vendor[at..at + 4].try_into().unwrap());
    let cache = |level: u32| 0x3c07_c000 | level << 5 | 1;
    vec![
        leaf(0, [0x1f, word(0), word(8), word(4)]),
        leaf(1, [0x0005_0657, 0x0710_0800, 0xf6fa_3203, 0x0f8b_fbff]),
        subleaf(4, 0, [cache(1), 0x01c0_003f, 63, 0]),
        subleaf(4, 3, [cache(3), 0x02c0_003f, 0x7fff, 4]),
        subleaf(4, 4, [0; 4]),
        leaf(6, [0; 4]),
        subleaf(7, 0, [1, 0xd19f_4fbb, 0x0000_0818, 0xac00_0400]),
        subleaf(7, 1, [0x10, 0, 0, 0]),
        leaf(0xa, [0x0730_0402, 0, 0, 0x603]),
        subleaf(0xb, 0, [1, 2, 0x100, 33]),
        subleaf(0xb, 1, [6, 40, 0x201, 33]),
        subleaf(0xd, 0, [0x2e7, 2696, 2696, 0]),
        subleaf(0xd, 1, [0xf, 0, 0, 0]),
        subleaf(0xd, 2, [256, 576, 0, 0]),
        subleaf(0xd, 5, [64, 1088, 0, 0]),
        subleaf(0xd, 6, [512, 1152, 0, 0]),
        subleaf(0xd, 7, [1024, 1664, 0, 0]),
        subleaf(0xd, 9, [8, 2688, 0, 0]),
        leaf(0x8000_0000, [0x8000_001f, 0, 0, 0]),
        leaf(
            0x8000_0001,
            [0, 0, 0x121, 0x2c10_0800 | 0x0183_f3ff & 0x0f8b_fbff],
        ),
        leaf(0x8000_0008, [0x3030, 0, 0x7027, 0]),
        subleaf(0x8000_001d, 3, [cache(3), 0, 0, 0]),
        leaf(0x8000_001e, [9, 0x103, 0x200, 0]),
        leaf(
            KVM_SIGNATURE,
            [KVM_FEATURES, 0x4b4d_564b, 0x564b_4d56, 0x4d],
        ),
        leaf(KVM_FEATURES, [0x0100_7efb, 0, 0, 0]),
    ]
}

fn intel() -> Vec<kvm_cpuid_entry2> {
    supported(b"GenuineIntel")
}

fn model(features: &str, count: u32) -> Result<Model, Error> {
    Model::new(
        &intel(),
        &CpuFeatures::parse(features).unwrap(),
        HOST,
        count,
    )
}

fn at(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
    let found: Vec<_> = entries
        .iter()
        .filter(|entry| (entry.function, entry.index) == (function, index))
        .collect();
    assert_eq!(found.len(), 1, "leaf {function:#x}.{index}");
    [found[0].eax, found[0].ebx, found[0].ecx, found[0].edx]
}

#[test]
fn topology_of_three_cpus() {
    let cpu = model("host", 3).unwrap().vcpu(2);
    let [_, ebx, _, edx] = at(&cpu, 1, 0);
    assert_eq!((ebx >> 24, ebx >> 16 & 0xff, ebx & 0xffff), (2, 4, 0x800));
    assert_ne!(edx & 1 << 28, 0);
    for leaf in [0xb, 0x1f] {
        assert_eq!(at(&cpu, leaf, 0), [0, 1, 0x100, 2]);
        assert_eq!(at(&cpu, leaf, 1), [2, 3, 0x201, 2]);
        assert_eq!(at(&cpu, leaf, 2), [0, 0, 2, 2]);
    }
    // The first-level cache is a core's own, the third-level one is shared.
    assert_eq!(at(&cpu, 4, 0)[0], 3 << 26 | 0x21);
    assert_eq!(at(&cpu, 4, 3)[0], 3 << 26 | 3 << 14 | 0x61);
    assert_eq!(at(&cpu, 4, 4)[0], 0);
}

#[test]
fn one_cpu_has_no_siblings() {
    let cpu = model("host", 1).unwrap().vcpu(0);
    let [_, ebx, _, edx] = at(&cpu, 1, 0);
    assert_eq!((ebx >> 16, edx & 1 << 28), (1, 0));
    assert_eq!(at(&cpu, 0xb, 1), [0, 1, 0x201, 0]);
}

#[test]
fn topology_of_amd() {
    let host = supported(b"AuthenticAMD");
    let model = Model::new(&host, &CpuFeatures::default(), HOST, 4).unwrap();
    let cpu = model.vcpu(3);
    assert_eq!(at(&cpu, 0x8000_0008, 0)[2], 2 << 12 | 3);
    assert_eq!(at(&cpu, 0x8000_001e, 0), [3, 3, 0, 0]);
    assert_eq!(at(&cpu, 0x8000_001d, 3)[0], 3 << 14 | 0x61);
    assert_eq!(at(&cpu, 0x8000_0001, 0)[2] & 2, 2);
    // Not for Intel.
    assert_eq!(
        at(&self::model("host", 4).unwrap().vcpu(3), 0x8000_0001, 0)[2] & 2,
        0
    );
}

#[test]
fn the_guest_need_not_calibrate_timers() {
    let cpu = model("host", 1).unwrap().vcpu(0);
    assert_eq!(at(&cpu, 1, 0)[2] >> 24 & 0x81, 0x81);
    assert_eq!(at(&cpu, 6, 0)[0], ARAT);
    assert_eq!(at(&cpu, KVM_SIGNATURE, 0)[0], TIMING_LEAF);
    assert_eq!(at(&cpu, TIMING_LEAF, 0), [2_500_000, 1_000_000, 0, 0]);
    // Without them on the host nothing is promised.
    let model = Model::new(&intel(), &CpuFeatures::default(), Timers::default(), 1).unwrap();
    let cpu = model.vcpu(0);
    assert_eq!(at(&cpu, 1, 0)[2] & TSC_DEADLINE_TIMER, 0);
    assert!(cpu.iter().all(|leaf| leaf.function != TIMING_LEAF));
}

#[test]
fn switching_off_takes_dependants_along() {
    let cpu = model("-avx", 1).unwrap().vcpu(0);
    let [_, _, ecx, _] = at(&cpu, 1, 0);
    assert_eq!(ecx & (1 << 28 | 1 << 12 | 1 << 29), 0); // avx, fma, f16c
    assert_ne!(ecx & 1 << 26, 0); // xsave
    let [_, ebx, _, _] = at(&cpu, 7, 0);
    assert_eq!(ebx & (1 << 5 | 1 << 16 | 1 << 31), 0); // avx2, avx512f, avx512vl
    // x87, SSE and PKRU are left, and their place in the state is the same.
    assert_eq!(at(&cpu, 0xd, 0), [0x203, 2696, 2696, 0]);
    let states: Vec<_> = cpu
        .iter()
        .filter(|e| e.function == 0xd)
        .map(|e| e.index)
        .collect();
    assert_eq!(states, [0, 1, 9]);
}

#[test]
fn the_state_shrinks_with_its_features() {
    let cpu = model("-avx512f,-pku", 1).unwrap().vcpu(0);
    assert_eq!(at(&cpu, 0xd, 0), [7, 832, 832, 0]);
    let cpu = model("-xsave", 1).unwrap().vcpu(0);
    assert!(cpu.iter().all(|entry| entry.function != 0xd));
}

#[test]
fn amd_repeats_some_bits() {
    let host = supported(b"AuthenticAMD");
    let features = CpuFeatures::parse("-mmx").unwrap();
    let cpu = Model::new(&host, &features, HOST, 1).unwrap().vcpu(0);
    let bits = [at(&cpu, 1, 0)[3], at(&cpu, 0x8000_0001, 0)[3]];
    assert_eq!(bits.map(|edx| edx >> 23 & 1), [0, 0]);
    // Intel has no such bits; what is there stays.
    assert_eq!(
        at(&model("-mmx", 1).unwrap().vcpu(0), 0x8000_0001, 0)[3] >> 23 & 1,
        1
    );
}

#[test]
fn switching_on_what_is_not_there() {
    assert_eq!(model("+amx_tile", 1), Err(Error::NotSupported("amx_tile")));
    assert!(model("+avx512f,+tsc-deadline,+pmu", 1).is_ok());
    let error = model("-avx,+avx2", 1).unwrap_err();
    let expected = "CPU feature 'avx2' is switched on, but needs 'avx', which is switched off";
    assert_eq!(error.to_string(), expected);
    // The last switch wins.
    assert!(model("-avx,+avx2,+avx", 1).is_ok());
}

#[test]
fn performance_counters_can_be_switched_off() {
    assert_eq!(at(&model("-pmu", 1).unwrap().vcpu(0), 0xa, 0)[0] & 0xff, 0);
    assert_eq!(at(&model("", 1).unwrap().vcpu(0), 0xa, 0)[0] & 0xff, 2);
}

fn entries() -> impl Strategy<Value = Vec<kvm_cpuid_entry2>> {
    let functions = prop::sample::select(vec![
        0,
        1,
        2,
        4,
        6,
        7,
        0xa,
        0xb,
        0xd,
        0x1f,
        0x8000_0001,
        0x8000_0007,
        0x8000_0008,
        0x8000_001d,
        0x8000_001e,
        KVM_SIGNATURE,
        KVM_FEATURES,
        TIMING_LEAF,
    ]);
    let entry = (functions, 0..40u32, any::<[u32; 4]>());
    let random = prop::collection::vec(entry, 0..40).prop_map(|entries| {
        let mut seen = std::collections::HashSet::new();
        let unique = entries
            .into_iter()
            .filter(|(f, i, _)| seen.insert((*f, *i)));
        unique
            .map(|(f, i, registers)| subleaf(f, i, registers))
            .collect::<Vec<_>>()
    });
    prop_oneof![
        random,
        Just(intel()),
        Just(supported(b"AuthenticAMD")),
        Just(supported(b"HygonGenuine")),
    ]
}

fn switches() -> impl Strategy<Value = CpuFeatures> {
    let names: Vec<_> = feature_table::all().map(|feature| feature.name).collect();
    prop::collection::vec(prop::sample::select(names), 0..4).prop_map(|names| {
        let list: Vec<_> = names.iter().map(|name| format!("-{name}")).collect();
        CpuFeatures::parse(&list.join(",")).unwrap()
    })
}

proptest! {
    #[test]
    fn nothing_is_added_but_what_is_documented(
        supported in entries(), features in switches(), count in 1..2000u32, index in 0..2000u32
    ) {
        let model = Model::new(&supported, &features, HOST, count).unwrap();
        for mut entry in model.vcpu(index) {
            if OURS.contains(&entry.function) {
                continue;
            }
            let mut host = *supported
                .iter()
                .find(|host| (host.function, host.index) == (entry.function, entry.index))
                .unwrap();
            for register in [Register::Eax, Register::Ebx, Register::Ecx, Register::Edx] {
                // Sizes of the extended state are no bits, and leaf 1 EBX has the APIC ID.
                if (entry.function, register) == (1, Register::Ebx) {
                    continue;
                }
                if entry.function == 0xd && matches!(register, Register::Ebx | Register::Ecx) {
                    prop_assert!(*register.of(&mut entry) <= *register.of(&mut host));
                    continue;
                }
                let added = *register.of(&mut entry) & !*register.of(&mut host);
                let documented = ADDED
                    .iter()
                    .filter(|(function, r, _)| (*function, *r) == (entry.function, register))
                    .fold(0, |mask, (_, _, bits)| mask | bits);
                prop_assert_eq!(added & !documented, 0, "{:#x} {:?}", entry.function, register);
            }
        }
    }

    #[test]
    fn doing_it_twice_changes_nothing(
        supported in entries(), features in switches(), count in 1..2000u32, index in 0..2000u32
    ) {
        let once = Model::new(&supported, &features, HOST, count).unwrap().vcpu(index);
        let host = Timers {
            tsc_deadline_timer: once.iter().any(|e| e.function == 1 && e.ecx & TSC_DEADLINE_TIMER != 0),
            ..HOST
        };
        let twice = Model::new(&once, &features, host, count).unwrap().vcpu(index);
        prop_assert_eq!(once.len(), twice.len());
        for entry in once {
            prop_assert!(twice.contains(&entry), "{:#x}.{}", entry.function, entry.index);
        }
    }

    #[test]
    fn what_is_switched_off_is_gone(supported in entries(), features in switches()) {
        let mut entries = Model::new(&supported, &features, HOST, 2).unwrap().vcpu(1);
        for (feature, _) in &features.switches {
            prop_assert!(!features::is_set(&mut entries, feature), "{}", feature.name);
        }
    }

    #[test]
    fn each_vcpu_has_its_own_apic_id(count in 1..1000u32) {
        let model = Model::new(&intel(), &CpuFeatures::default(), HOST, count).unwrap();
        for index in [0, count / 2, count - 1] {
            let cpu = model.vcpu(index);
            let [shift, processors, _, id] = at(&cpu, 0xb, 1);
            prop_assert_eq!((id, processors), (index, count));
            prop_assert_eq!(id >> shift, 0, "one package");
            prop_assert_eq!(at(&cpu, 1, 0)[1] >> 24, index & 0xff);
        }
    }
}

#[test]
fn the_name_is_the_one_that_is_given() {
    let name = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]];
    let model = || Model::new(&intel(), &CpuFeatures::default(), HOST, 1).unwrap();
    let cpu = model().named(name).vcpu(0);
    let leaf = |function| cpu.iter().find(|entry| entry.function == function).unwrap();
    for (function, registers) in NAME.zip(name) {
        let leaf = leaf(function);
        assert_eq!([leaf.eax, leaf.ebx, leaf.ecx, leaf.edx], registers);
    }
    assert!(leaf(EXTENDED).eax >= *NAME.end());
    let others = |cpu: Vec<kvm_cpuid_entry2>| -> Vec<_> {
        let mut cpu = cpu;
        cpu.retain(|entry| entry.function != EXTENDED && !NAME.contains(&entry.function));
        cpu
    };
    assert_eq!(others(cpu.clone()), others(model().vcpu(0)));
}
