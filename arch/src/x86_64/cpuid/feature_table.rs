//! The names of CPU features, and which CPUID bits they are: names as Linux prints them in
//! `/proc/cpuinfo`, bits from Linux's `cpufeatures.h` (SDM volume 2A, CPUID; APM volume 3, appendix
//! E; Linux `virt/kvm/x86/cpuid.rst`). Left out are bits that follow from the topology (ht,
//! cmp_legacy, topoext), from the running system (osxsave, ospke) or that KVM never has.

use kvm_bindings::kvm_cpuid_entry2;

/// A register that CPUID returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}
use Register::{Eax, Ebx, Ecx, Edx};

impl Register {
    /// The register's value in `entry`.
    pub(super) fn of(self, entry: &mut kvm_cpuid_entry2) -> &mut u32 {
        match self {
            Eax => &mut entry.eax,
            Ebx => &mut entry.ebx,
            Ecx => &mut entry.ecx,
            Edx => &mut entry.edx,
        }
    }
}

/// A feature: some bits of one register of one CPUID leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    /// The leaf (EAX).
    pub(super) function: u32,
    /// The subleaf (ECX).
    pub(super) index: u32,
    pub(super) register: Register,
    pub(super) mask: u32,
}

/// One register full of features.
struct Word {
    function: u32,
    index: u32,
    register: Register,
    features: &'static [(&'static str, u32)],
}

const fn word(
    function: u32,
    index: u32,
    register: Register,
    features: &'static [(&'static str, u32)],
) -> Word {
    Word {
        function,
        index,
        register,
        features,
    }
}

/// Features of more than one bit.
const GROUPS: &[Feature] = &[
    // Version of architectural performance monitoring; 0 is none.
    Feature {
        name: "pmu",
        function: 0xa,
        index: 0,
        register: Eax,
        mask: 0xff,
    },
    // The old MSRs and the new ones.
    Feature {
        name: "kvmclock",
        function: 0x4000_0001,
        index: 0,
        register: Eax,
        mask: 1 << 3 | 1,
    },
];

/// Other names that are in use, mostly QEMU's.
const ALIASES: &[(&str, &str)] = &[
    ("clfsh", "clflush"),
    ("i64", "lm"),
    ("ibpb", "amd_ibpb"),
    ("lzcnt", "abm"),
    ("sse3", "pni"),
    ("ssbd", "spec_ctrl_ssbd"),
    ("stibp", "intel_stibp"),
    ("tsc_deadline", "tsc_deadline_timer"),
    ("xd", "nx"),
];

// Kept as written: rustfmt would give each feature a line of its own.
#[rustfmt::skip]
const WORDS: &[Word] = &[
    word(0x1, 0, Edx, &[
        ("fpu", 0), ("vme", 1), ("de", 2), ("pse", 3), ("tsc", 4), ("msr", 5), ("pae", 6), ("mce", 7),
        ("cx8", 8), ("apic", 9), ("sep", 11), ("mtrr", 12), ("pge", 13), ("mca", 14), ("cmov", 15),
        ("pat", 16), ("pse36", 17), ("clflush", 19), ("mmx", 23), ("fxsr", 24), ("sse", 25), ("sse2", 26),
        ("ss", 27),
    ]),
    word(0x1, 0, Ecx, &[
        ("pni", 0), ("pclmulqdq", 1), ("dtes64", 2), ("monitor", 3), ("ds_cpl", 4), ("vmx", 5), ("smx", 6),
        ("est", 7), ("tm2", 8), ("ssse3", 9), ("cid", 10), ("sdbg", 11), ("fma", 12), ("cx16", 13),
        ("xtpr", 14), ("pdcm", 15), ("pcid", 17), ("dca", 18), ("sse4_1", 19), ("sse4_2", 20),
        ("x2apic", 21), ("movbe", 22), ("popcnt", 23), ("tsc_deadline_timer", 24), ("aes", 25),
        ("xsave", 26), ("avx", 28), ("f16c", 29), ("rdrand", 30), ("hypervisor", 31),
    ]),
    word(0x6, 0, Eax, &[
        ("arat", 2),
    ]),
    word(0x7, 0, Ebx, &[
        ("fsgsbase", 0), ("tsc_adjust", 1), ("sgx", 2), ("bmi1", 3), ("hle", 4), ("avx2", 5),
        ("fdp_excptn_only", 6), ("smep", 7), ("bmi2", 8), ("erms", 9), ("invpcid", 10), ("rtm", 11),
        ("zero_fcs_fds", 13), ("mpx", 14), ("avx512f", 16), ("avx512dq", 17), ("rdseed", 18), ("adx", 19),
        ("smap", 20), ("avx512ifma", 21), ("clflushopt", 23), ("clwb", 24), ("intel_pt", 25),
        ("avx512pf", 26), ("avx512er", 27), ("avx512cd", 28), ("sha_ni", 29), ("avx512bw", 30),
        ("avx512vl", 31),
    ]),
    word(0x7, 0, Ecx, &[
        ("avx512vbmi", 1), ("umip", 2), ("pku", 3), ("waitpkg", 5), ("avx512_vbmi2", 6), ("shstk", 7),
        ("gfni", 8), ("vaes", 9), ("vpclmulqdq", 10), ("avx512_vnni", 11), ("avx512_bitalg", 12),
        ("avx512_vpopcntdq", 14), ("la57", 16), ("rdpid", 22), ("bus_lock_detect", 24), ("cldemote", 25),
        ("movdiri", 27), ("movdir64b", 28), ("enqcmd", 29),
    ]),
    word(0x7, 0, Edx, &[
        ("avx512_4vnniw", 2), ("avx512_4fmaps", 3), ("fsrm", 4), ("avx512_vp2intersect", 8),
        ("md_clear", 10), ("serialize", 14), ("tsxldtrk", 16), ("arch_lbr", 19), ("ibt", 20),
        ("amx_bf16", 22), ("avx512_fp16", 23), ("amx_tile", 24), ("amx_int8", 25), ("spec_ctrl", 26),
        ("intel_stibp", 27), ("flush_l1d", 28), ("arch_capabilities", 29), ("spec_ctrl_ssbd", 31),
    ]),
    word(0x7, 1, Eax, &[
        ("avx_vnni", 4), ("avx512_bf16", 5), ("cmpccxadd", 7), ("fzrm", 10), ("fsrs", 11), ("fsrc", 12),
        ("fred", 17), ("lkgs", 18), ("wrmsrns", 19), ("amx_fp16", 21), ("avx_ifma", 23), ("lam", 26),
    ]),
    word(0xd, 1, Eax, &[
        ("xsaveopt", 0), ("xsavec", 1), ("xgetbv1", 2), ("xsaves", 3), ("xfd", 4),
    ]),
    word(0x8000_0001, 0, Edx, &[
        ("syscall", 11), ("nx", 20), ("mmxext", 22), ("fxsr_opt", 25), ("pdpe1gb", 26), ("rdtscp", 27),
        ("lm", 29), ("3dnowext", 30), ("3dnow", 31),
    ]),
    word(0x8000_0001, 0, Ecx, &[
        ("lahf_lm", 0), ("svm", 2), ("cr8_legacy", 4), ("abm", 5), ("sse4a", 6), ("misalignsse", 7),
        ("3dnowprefetch", 8), ("osvw", 9), ("xop", 11), ("skinit", 12), ("lwp", 15), ("fma4", 16),
        ("tce", 17), ("nodeid_msr", 19), ("tbm", 21), ("perfctr_core", 23), ("bpext", 26),
        ("perfctr_llc", 28), ("mwaitx", 29),
    ]),
    word(0x8000_0008, 0, Ebx, &[
        ("clzero", 0), ("irperf", 1), ("xsaveerptr", 2), ("rdpru", 4), ("wbnoinvd", 9), ("amd_ibpb", 12),
        ("amd_ibrs", 14), ("amd_stibp", 15), ("amd_stibp_always_on", 17), ("amd_ssbd", 24),
        ("virt_ssbd", 25), ("amd_ssb_no", 26), ("amd_psfd", 28), ("amd_ibpb_ret", 30),
    ]),
    word(0x8000_0021, 0, Eax, &[
        ("no_nested_data_bp", 0), ("wrmsr_xx_base_ns", 1), ("lfence_rdtsc", 2), ("verw_clear", 5),
        ("null_sel_clr_base", 6), ("autoibrs", 8), ("sbpb", 27), ("ibpb_brtype", 28), ("srso_no", 29),
        ("srso_user_kernel_no", 30), ("srso_bp_spec_reduce", 31),
    ]),
    word(0x8000_0007, 0, Edx, &[
        ("invtsc", 8),
    ]),
    word(0x4000_0001, 0, Eax, &[
        ("kvm_nopiodelay", 1), ("kvm_mmu", 2), ("kvm_asyncpf", 4), ("kvm_steal_time", 5),
        ("kvm_pv_eoi", 6), ("kvm_pv_unhalt", 7), ("kvm_pv_tlb_flush", 9), ("kvm_asyncpf_vmexit", 10),
        ("kvm_pv_ipi", 11), ("kvm_poll_control", 12), ("kvm_pv_sched_yield", 13),
        ("kvm_asyncpf_int", 14), ("kvm_msi_ext_dest_id", 15), ("kvmclock_stable_bit", 24),
    ]),
];

/// A feature and one that it cannot do without, as in Linux's `cpuid-deps.c`.
#[rustfmt::skip]
const NEEDS: &[(&str, &str)] = &[
    ("fxsr", "fpu"), ("mmx", "fxsr"), ("mmxext", "mmx"), ("3dnow", "mmx"), ("3dnowext", "3dnow"),
    ("fxsr_opt", "fxsr"), ("sse", "fxsr"), ("xsave", "fxsr"), ("sse2", "sse"), ("pni", "sse2"),
    ("ssse3", "sse2"), ("sse4_1", "sse2"), ("sse4_2", "sse2"), ("sse4a", "sse2"),
    ("pclmulqdq", "sse2"), ("aes", "sse2"), ("sha_ni", "sse2"), ("gfni", "sse2"),
    ("xsaveopt", "xsave"), ("xsavec", "xsave"), ("xgetbv1", "xsave"), ("xsaves", "xsave"),
    ("pku", "xsave"), ("mpx", "xsave"), ("avx", "xsave"), ("f16c", "avx"), ("fma", "avx"),
    ("fma4", "avx"), ("xop", "avx"), ("vaes", "avx"), ("vpclmulqdq", "avx"), ("avx2", "avx"),
    ("avx_vnni", "avx2"), ("avx_ifma", "avx2"), ("avx512f", "avx2"), ("avx512ifma", "avx512f"),
    ("avx512pf", "avx512f"), ("avx512er", "avx512f"), ("avx512cd", "avx512f"),
    ("avx512dq", "avx512f"), ("avx512bw", "avx512f"), ("avx512vl", "avx512f"),
    ("avx512vbmi", "avx512f"), ("avx512_4vnniw", "avx512f"), ("avx512_4fmaps", "avx512f"),
    ("avx512_vpopcntdq", "avx512f"), ("avx512_vbmi2", "avx512vl"), ("avx512_vnni", "avx512vl"),
    ("avx512_bitalg", "avx512vl"), ("avx512_vp2intersect", "avx512vl"),
    ("avx512_bf16", "avx512vl"), ("avx512_fp16", "avx512bw"), ("xfd", "xsaves"), ("xfd", "xgetbv1"),
    ("amx_tile", "xfd"), ("amx_bf16", "amx_tile"), ("amx_int8", "amx_tile"),
    ("amx_fp16", "amx_tile"), ("shstk", "xsaves"), ("enqcmd", "xsaves"), ("fred", "lkgs"),
    ("x2apic", "apic"), ("tsc_deadline_timer", "apic"), ("tsc_deadline_timer", "tsc"),
    ("rdtscp", "tsc"), ("tsc_adjust", "tsc"), ("invtsc", "tsc"), ("kvmclock", "tsc"),
    ("kvmclock_stable_bit", "kvmclock"), ("kvm_asyncpf_int", "kvm_asyncpf"),
    ("kvm_asyncpf_vmexit", "kvm_asyncpf"), ("invpcid", "pcid"), ("pdcm", "pmu"),
    ("perfctr_core", "pmu"), ("perfctr_llc", "pmu"),
];

/// All features.
pub(super) fn all() -> impl Iterator<Item = Feature> {
    let single = WORDS.iter().flat_map(|word| {
        word.features.iter().map(|&(name, bit)| Feature {
            name,
            function: word.function,
            index: word.index,
            register: word.register,
            mask: 1 << bit,
        })
    });
    single.chain(GROUPS.iter().copied())
}

/// The feature with this name, whatever its letters' case, with or without `-`, `_` and `.`: so
/// both `sse4_1` (Linux) and `sse4.1` (QEMU) are found.
pub(super) fn by_name(name: &str) -> Option<Feature> {
    let wanted = plain(name);
    let wanted = match ALIASES.iter().find(|(alias, _)| plain(alias) == wanted) {
        Some((_, name)) => plain(name),
        None => wanted,
    };
    all().find(|feature| plain(feature.name) == wanted)
}

/// Names to suggest for one that does not exist, nearest first; at most three.
pub(super) fn near(name: &str) -> Vec<&'static str> {
    const NEAR: f64 = 0.85;
    let wanted = plain(name);
    let score = |feature: Feature| {
        let score = strsim::jaro_winkler(&plain(feature.name), &wanted);
        (score >= NEAR).then_some((score, feature.name))
    };
    let mut names: Vec<_> = all().filter_map(score).collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    names.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Names of all features that cannot do without `name`, directly or not.
pub(super) fn dependants(name: &'static str) -> Vec<&'static str> {
    let mut found = vec![name];
    let mut next = 0;
    while let Some(&on) = found.get(next) {
        for &(feature, needed) in NEEDS {
            if needed == on && !found.contains(&feature) {
                found.push(feature);
            }
        }
        next += 1;
    }
    found.remove(0);
    found
}

fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| !matches!(c, '-' | '_' | '.'));
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_each_bit_has_one() {
        let features: Vec<_> = all().collect();
        for (n, a) in features.iter().enumerate() {
            for b in &features[n + 1..] {
                assert_ne!(plain(a.name), plain(b.name));
                let same_word =
                    (a.function, a.index, a.register) == (b.function, b.index, b.register);
                assert!(
                    !same_word || a.mask & b.mask == 0,
                    "{} and {}",
                    a.name,
                    b.name
                );
            }
        }
    }

    #[test]
    fn dependencies_and_aliases_name_features() {
        for (feature, needed) in NEEDS {
            assert!(all().any(|f| f.name == *feature), "{feature}");
            assert!(all().any(|f| f.name == *needed), "{needed}");
        }
        for (alias, name) in ALIASES {
            assert!(all().any(|f| f.name == *name), "{name}");
            assert!(!all().any(|f| plain(f.name) == plain(alias)), "{alias}");
        }
    }

    #[test]
    fn spelling_does_not_matter() {
        for name in ["sse4_1", "sse4.1", "SSE4-1", "sse41"] {
            assert_eq!(by_name(name).unwrap().mask, 1 << 19);
        }
        assert_eq!(by_name("sse3").unwrap().name, "pni");
        assert_eq!(by_name("kvm-clock").unwrap().mask, 9);
        assert_eq!(by_name("nothing"), None);
    }

    #[test]
    fn known_bits() {
        // SDM volume 2A, tables of CPUID.
        let at = |name| {
            by_name(name)
                .map(|f| (f.function, f.index, f.register, f.mask))
                .unwrap()
        };
        assert_eq!(at("x2apic"), (1, 0, Ecx, 1 << 21));
        assert_eq!(at("avx512f"), (7, 0, Ebx, 1 << 16));
        assert_eq!(at("avx_vnni"), (7, 1, Eax, 1 << 4));
        assert_eq!(at("lm"), (0x8000_0001, 0, Edx, 1 << 29));
        assert_eq!(at("xsaves"), (0xd, 1, Eax, 1 << 3));
    }

    #[test]
    fn without_xsave_there_is_no_avx512() {
        let gone = dependants("xsave");
        for name in ["avx", "avx2", "avx512f", "avx512_vnni", "amx_int8", "fma"] {
            assert!(gone.contains(&name), "{name}");
        }
        assert!(!gone.contains(&"sse2"));
        assert!(dependants("kvm_steal_time").is_empty());
    }

    #[test]
    fn near_names() {
        assert_eq!(near("avx512ff")[0], "avx512f");
        assert!(near("xyzzy").is_empty());
    }
}
