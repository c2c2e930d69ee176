//! What the user says about the CPU: `host,-avx512f,pcid=off,+x2apic`.

use kvm_bindings::kvm_cpuid_entry2;

use super::feature_table::{self, Feature};
use super::{Error, entry};

/// Switches for CPU features, as the user wrote them. The default is `host`: no switch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    /// Each feature at most once: the last switch wins.
    pub(super) switches: Vec<(Feature, bool)>,
}

/// Why a list of CPU features cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No feature has this name.
    #[error("unknown CPU feature '{name}'{hint}")]
    Unknown {
        /// The name.
        name: String,
        /// Near names, worded to follow the name; may be empty.
        hint: String,
    },
    /// Neither `host` nor a switch.
    #[error("CPU feature '{0}': expected host, +feature, -feature, feature=on or feature=off")]
    Syntax(String),
}

impl CpuFeatures {
    /// Parses a list such as `host,-avx512f,pcid=off,+x2apic`. Names are those of Linux's
    /// `/proc/cpuinfo` or QEMU's, and `pmu` for the performance counters. Later items win; a list
    /// that is empty means `host`: all that KVM supports.
    ///
    /// # Errors
    /// When an item is not a switch, or names a feature that does not exist.
    pub fn parse(list: &str) -> Result<Self, ParseError> {
        let mut switches: Vec<(Feature, bool)> = Vec::new();
        let items = list.split(',').map(str::trim);
        for item in items.filter(|item| !matches!(*item, "" | "host")) {
            let (name, on) = split(item).ok_or_else(|| ParseError::Syntax(item.to_owned()))?;
            let feature = feature_table::by_name(name).ok_or_else(|| unknown(name))?;
            switches.retain(|(other, _)| *other != feature);
            switches.push((feature, on));
        }
        Ok(Self { switches })
    }

    /// Clears the features that are switched off, and those that cannot do without them.
    ///
    /// # Errors
    /// When a feature is switched on that is not there, or that needs one that is switched off.
    pub(super) fn apply(&self, entries: &mut [kvm_cpuid_entry2]) -> Result<(), Error> {
        let mut dependants = Vec::new();
        for (feature, _) in self.switches.iter().filter(|(_, on)| !on) {
            let names = feature_table::dependants(feature.name);
            dependants.extend(names.into_iter().map(|name| (name, feature.name)));
        }
        for (feature, _) in self.switches.iter().filter(|(_, on)| *on) {
            if let Some(&(feature, needed)) = dependants.iter().find(|(n, _)| *n == feature.name) {
                return Err(Error::Conflict { feature, needed });
            }
            if !is_set(entries, feature) {
                return Err(Error::NotSupported(feature.name));
            }
        }
        for (feature, _) in self.switches.iter().filter(|(_, on)| !on) {
            clear(entries, feature);
        }
        for (name, _) in dependants {
            if let Some(feature) = feature_table::by_name(name) {
                clear(entries, &feature);
            }
        }
        Ok(())
    }
}

/// The name and whether it is switched on.
fn split(item: &str) -> Option<(&str, bool)> {
    if let Some(name) = item.strip_prefix('+') {
        return Some((name, true));
    }
    if let Some(name) = item.strip_prefix('-') {
        return Some((name, false));
    }
    match item.split_once('=')? {
        (name, "on") => Some((name, true)),
        (name, "off") => Some((name, false)),
        _ => None,
    }
}

fn unknown(name: &str) -> ParseError {
    let near = feature_table::near(name);
    let hint = if near.is_empty() {
        String::new()
    } else {
        format!(", did you mean {}?", near.join(" or "))
    };
    ParseError::Unknown {
        name: name.to_owned(),
        hint,
    }
}

/// Whether any of the feature's bits is set.
pub(super) fn is_set(entries: &mut [kvm_cpuid_entry2], feature: &Feature) -> bool {
    entry(entries, feature.function, feature.index)
        .is_some_and(|entry| *feature.register.of(entry) & feature.mask != 0)
}

fn clear(entries: &mut [kvm_cpuid_entry2], feature: &Feature) {
    if let Some(entry) = entry(entries, feature.function, feature.index) {
        *feature.register.of(entry) &= !feature.mask;
    }
    // AMD repeats some bits of leaf 1 (APM volume 3, CPUID Fn8000_0001_EDX).
    const REPEATED: u32 = 0x0183_f3ff;
    if (feature.function, feature.register) == (1, feature_table::Register::Edx)
        && super::is_amd(entries)
        && let Some(entry) = entry(entries, 0x8000_0001, 0)
    {
        entry.edx &= !(feature.mask & REPEATED);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn switches(list: &str) -> Vec<(&'static str, bool)> {
        let features = CpuFeatures::parse(list).unwrap();
        features
            .switches
            .iter()
            .map(|(f, on)| (f.name, *on))
            .collect()
    }

    #[test]
    fn both_ways_of_writing() {
        assert_eq!(
            switches("host,-avx512f,pcid=off, +x2apic ,sse3=on"),
            [
                ("avx512f", false),
                ("pcid", false),
                ("x2apic", true),
                ("pni", true)
            ]
        );
        assert!(switches("").is_empty());
        assert!(switches("host").is_empty());
    }

    #[test]
    fn the_last_switch_wins() {
        assert_eq!(switches("-avx,avx=on"), [("avx", true)]);
        assert_eq!(switches("+sse4_1,-sse4.1"), [("sse4_1", false)]);
    }

    #[test]
    fn messages_name_the_item() {
        let message = |list| CpuFeatures::parse(list).unwrap_err().to_string();
        assert_eq!(
            message("host,-avx512ff"),
            "unknown CPU feature 'avx512ff', did you mean avx512f or avx512pf or avx512ifma?"
        );
        assert_eq!(message("+xyzzy"), "unknown CPU feature 'xyzzy'");
        assert!(message("EPYC").starts_with("CPU feature 'EPYC': expected host, "));
        assert!(message("avx=yes").starts_with("CPU feature 'avx=yes': expected"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(list in ".{0,80}") {
            let _ = CpuFeatures::parse(&list);
        }

        #[test]
        fn any_list_of_names_is_parsed(
            picks in prop::collection::vec((0..feature_table::all().count(), any::<bool>()), 0..20)
        ) {
            let all: Vec<_> = feature_table::all().collect();
            let items: Vec<_> = picks
                .iter()
                .map(|&(n, on)| format!("{}{}", if on { '+' } else { '-' }, all[n].name))
                .collect();
            let features = CpuFeatures::parse(&items.join(",")).unwrap();
            for (feature, on) in &features.switches {
                let last = picks.iter().rfind(|(n, _)| all[*n] == *feature).unwrap();
                prop_assert_eq!(last.1, *on);
            }
        }
    }
}
