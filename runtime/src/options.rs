//! The options of runq: for all containers on the command line, for one in its environment.
//!
//! A variable of the container's environment comes before the option of the command line. Both are
//! checked here, and what is wrong is named as the user wrote it.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Result, anyhow, bail, ensure};
use proto::RootDisk;
use vmm::share::P9Cache;
use vmm::{CpuFeatures, MIN_RAM};

use crate::disk;
use crate::resolv_conf::{Dns, Server};

/// Whether an option is followed by a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `--cpu 2` or `--cpu=2`.
    Value,
    /// `--noexec`, or `--noexec=false` to undo an earlier one.
    Nothing,
}

/// The names of our options, without dashes.
pub const NAMES: [(&str, Takes); 15] = [
    ("cpu", Takes::Value),
    ("mem", Takes::Value),
    ("max-cpu", Takes::Value),
    ("max-mem", Takes::Value),
    ("dns", Takes::Value),
    ("dns-opts", Takes::Value),
    ("dns-search", Takes::Value),
    ("dns-preserve", Takes::Nothing),
    ("tmpfs", Takes::Value),
    ("noexec", Takes::Nothing),
    ("runqenv", Takes::Nothing),
    ("9pcache", Takes::Value),
    ("cpuargs", Takes::Value),
    ("nestedvm", Takes::Nothing),
    ("runc", Takes::Value),
];

/// What the command line gives: values by name, the last one of each.
pub type Given = BTreeMap<&'static str, String>;

/// Least guest memory in MiB.
const LEAST_MEMORY: u64 = MIN_RAM >> 20;
/// Guest memory in MiB if nobody says otherwise.
const DEFAULT_MEMORY: u64 = 256;
/// Most guest memory in MiB: 64 TiB, what a processor with 46 address bits can have.
const MOST_MEMORY: u64 = 64 << 20;
/// Most virtual CPUs: KVM allows no more (`KVM_MAX_VCPUS`), and hosts have fewer.
const MOST_CPUS: u32 = 1024;

/// The variable that names the mediated device with the container's crypto adapters.
pub(crate) const CRYPTO: &str = "RUNQ_APUUID";

/// The variable that names the disk that the root is on.
pub(crate) const ROOT_DISK: &str = "RUNQ_ROOTDISK";

/// Checked options of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Virtual CPUs, beside those for a limit of the container's.
    pub cpus: u32,
    /// Guest memory in MiB, beside the container's memory limit.
    pub memory_mib: u64,
    /// Contents of the container's resolv.conf; unset: it stays Docker's.
    pub dns: Option<Dns>,
    /// Absolute paths where a tmpfs is mounted unless the container has a mount there.
    pub tmpfs: Vec<String>,
    /// The container finds its environment in the file /.runqenv.
    pub environment_file: bool,
    /// Switches for CPU features, as [`CpuFeatures`] reads them.
    pub cpu_features: String,
    /// Root and volumes come by 9P with this cache; unset: by virtio-fs.
    pub p9_cache: Option<P9Cache>,
    /// The disk that the root is on, by its ID; whether the container has it is not known here.
    pub root_disk: Option<RootDisk>,
    /// The mediated device with the container's crypto adapters, by its UUID.
    pub crypto: Option<String>,
    /// The command is systemd.
    pub systemd: bool,
    /// Further commands can be run in the container.
    pub exec: bool,
    /// Filter for the log of `proxy`; unset: it prints none.
    pub log: Option<String>,
}

impl Options {
    /// The options of a container with this environment (`NAME=value` each).
    ///
    /// # Errors
    /// Names the option or variable that is wrong, its value, and what is allowed.
    pub fn read(given: &Given, environment: &[String]) -> Result<Self> {
        let source = Source { given, environment };
        // Upstream's QEMU did without PMU and virtio 1 on a host that is a VM itself.
        source.flag("nestedvm", "")?;
        Ok(Self {
            cpus: source.number(["cpu", "RUNQ_CPU", "max-cpu"], "vCPUs", 1, (1, MOST_CPUS))?,
            memory_mib: source.number(
                ["mem", "RUNQ_MEM", "max-mem"],
                "MiB",
                DEFAULT_MEMORY,
                (LEAST_MEMORY, MOST_MEMORY),
            )?,
            dns: dns(&source)?,
            tmpfs: source.paths("tmpfs", &[])?,
            environment_file: source.flag("runqenv", "RUNQ_RUNQENV")?,
            cpu_features: cpu_features(&source)?,
            p9_cache: p9_cache(&source)?,
            root_disk: root_disk(&source)?,
            crypto: crypto(environment)?,
            systemd: source.flag("", "RUNQ_SYSTEMD")?,
            exec: !source.flag("noexec", "RUNQ_NOEXEC")?,
            log: log(&source)?,
        })
    }
}

fn cpu_features(source: &Source) -> Result<String> {
    let Some(setting) = source.find("cpuargs", &["RUNQ_CPUARGS"]) else {
        return Ok("host".into());
    };
    CpuFeatures::parse(setting.value).map_err(|error| anyhow!("{setting}: {error}"))?;
    Ok(setting.value.to_owned())
}

fn p9_cache(source: &Source) -> Result<Option<P9Cache>> {
    let setting = source.find("9pcache", &["RUNQ_9PCACHE"]);
    // Set to nothing, it undoes the option.
    let setting = setting.filter(|setting| !setting.value.is_empty());
    let parse = |setting: Setting<'_>| {
        let parsed = setting.value.parse();
        parsed.map_err(|error| anyhow!("{setting}: {error}"))
    };
    setting.map(parse).transpose()
}

fn root_disk(source: &Source) -> Result<Option<RootDisk>> {
    let setting = source.find("", &[ROOT_DISK]);
    let Some(setting) = setting.filter(|setting| !setting.value.is_empty()) else {
        return Ok(None);
    };
    disk::check_id(setting.value).map_err(|error| anyhow!("{setting}: {error}"))?;
    Ok(Some(RootDisk {
        id: setting.value.to_owned(),
        exclude: source.paths("", &["RUNQ_ROOTDISK_EXCLUDE"])?,
    }))
}

/// The UUID of a mediated device, which may not be there.
pub(crate) fn crypto(environment: &[String]) -> Result<Option<String>> {
    let source = Source {
        given: &Given::new(),
        environment,
    };
    let setting = source.find("", &[CRYPTO]);
    let setting = setting.filter(|setting| !setting.value.is_empty());
    let read = |setting: Setting<'_>| {
        vmm::ap::uuid(setting.value).map_err(|error| anyhow!("{setting}: {error}"))
    };
    setting.map(read).transpose()
}

/// What the log of the monitor tells (`vmm::log`): a level, or levels of parts.
fn log(source: &Source) -> Result<Option<String>> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let setting = source.find("", &["RUNQ_LOG"]);
    let Some(setting) = setting.filter(|setting| !setting.value.is_empty()) else {
        return Ok(None);
    };
    let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
    let fits = |word: &str| match word.split_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(word),
    };
    ensure!(
        setting.value.split(',').all(fits),
        "{setting}: {} and lists of target=level are allowed",
        LEVELS.join(", ")
    );
    Ok(Some(setting.value.to_owned()))
}

/// The option and the variables of each part of resolv.conf.
const SERVERS: (&str, &[&str]) = ("dns", &["RUNQ_DNS"]);
const SEARCH: (&str, &[&str]) = ("dns-search", &["RUNQ_DNS_SEARCH"]);
const OPTIONS: (&str, &[&str]) = ("dns-opts", &["RUNQ_DNS_OPTS", "RUNQ_DNS_OPT"]);

/// None if none of the parts is given, not even an empty one.
fn dns(source: &Source) -> Result<Option<Dns>> {
    let preserve = source.flag("dns-preserve", "RUNQ_DNS_PRESERVE")?;
    let is_given = |(option, variables)| source.find(option, variables).is_some();
    if preserve || ![SERVERS, SEARCH, OPTIONS].into_iter().any(is_given) {
        return Ok(None);
    }
    let servers = source.list(SERVERS.0, SERVERS.1).into_iter();
    Ok(Some(Dns {
        servers: servers.map(server).collect::<Result<_>>()?,
        search: plain_words(source, SEARCH)?,
        options: plain_words(source, OPTIONS)?,
    }))
}

/// An address, or what is a name to Docker.
fn server((setting, word): (Setting<'_>, String)) -> Result<Server> {
    if let Ok(address) = word.parse() {
        return Ok(Server::Address(address));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    ensure!(
        word.starts_with(|c: char| c.is_ascii_alphanumeric())
            && word.chars().all(fits)
            && !word.chars().all(is_number),
        "{setting}: IP addresses and names of containers, separated by commas, are allowed"
    );
    let setting = Setting {
        value: &word,
        ..setting
    };
    Ok(Server::Container {
        setting: setting.to_string(),
        name: word,
    })
}

fn plain_words(source: &Source, (option, variables): (&str, &[&str])) -> Result<Vec<String>> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:/".contains(c);
    let check = |(setting, word): (Setting<'_>, String)| {
        ensure!(
            word.chars().all(fits),
            "{setting}: words of letters, digits and -._:/ are allowed"
        );
        Ok(word)
    };
    source
        .list(option, variables)
        .into_iter()
        .map(check)
        .collect()
}

/// Where settings come from.
struct Source<'a> {
    given: &'a Given,
    environment: &'a [String],
}

/// A value, and what the user calls it.
#[derive(Clone, Copy)]
struct Setting<'a> {
    name: &'a str,
    value: &'a str,
    is_option: bool,
}

impl std::fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, value) = (self.name, self.value.escape_debug());
        if self.is_option {
            write!(f, "--{name} {value}")
        } else {
            write!(f, "{name}={value}")
        }
    }
}

impl<'a> Source<'a> {
    /// The first of the variables that is set, else the option. The last of two equal variables
    /// counts, as for the container's process.
    fn find(&self, option: &'a str, variables: &[&'a str]) -> Option<Setting<'a>> {
        let of_variable = |name: &&'a str| {
            let mut entries = self.environment.iter().rev();
            let value = entries.find_map(|entry| entry.strip_prefix(*name)?.strip_prefix('='))?;
            Some(Setting {
                name,
                value,
                is_option: false,
            })
        };
        variables.iter().find_map(of_variable).or_else(|| {
            Some(Setting {
                name: option,
                value: self.given.get(option)?,
                is_option: true,
            })
        })
    }

    /// The third name is that of the option which bounds the variable: an image or a user may set that, but only who
    /// runs this host has options.
    fn number<N>(
        &self,
        [option, variable, bound]: [&'a str; 3],
        unit: &str,
        default: N,
        (least, most): (N, N),
    ) -> Result<N>
    where
        N: FromStr + PartialOrd + std::fmt::Display,
    {
        let parse = |setting: Setting| match setting.value.parse::<N>() {
            Ok(number) if number >= least && number <= most => Ok(number),
            _ => bail!("{setting}: whole numbers of {unit} from {least} to {most} are allowed"),
        };
        let allowed = self.find(bound, &[]).map(parse).transpose()?;
        let Some(setting) = self.find(option, &[variable]) else {
            return Ok(default);
        };
        let number = parse(setting)?;
        if let Some(allowed) = allowed.filter(|_| !setting.is_option) {
            ensure!(
                number <= allowed,
                "{setting}: this host allows {allowed} {unit} at most (--{bound})"
            );
        }
        Ok(number)
    }

    /// On or off, in the words of Go's strconv.ParseBool, which upstream uses.
    fn flag(&self, option: &'a str, variable: &'a str) -> Result<bool> {
        let Some(setting) = self.find(option, &[variable]) else {
            return Ok(false);
        };
        match setting.value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => bail!("{setting}: 1, true, 0 and false are allowed"),
        }
    }

    /// The words of a list that commas or blanks separate, each with where it is from.
    fn list(&self, option: &'a str, variables: &[&'a str]) -> Vec<(Setting<'a>, String)> {
        let Some(setting) = self.find(option, variables) else {
            return Vec::new();
        };
        let words = setting.value.split([',', ' ', '\t', '\n']);
        words
            .filter(|word| !word.is_empty())
            .map(|word| (setting, word.to_owned()))
            .collect()
    }

    fn paths(&self, option: &'a str, variables: &[&'a str]) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        for (setting, path) in self.list(option, variables) {
            let plain = path.split('/').all(|name| !matches!(name, "." | ".."));
            ensure!(
                path.starts_with('/') && path != "/" && plain,
                "{setting}: absolute paths without dots, separated by commas, are allowed"
            );
            paths.push(path.trim_end_matches('/').to_owned());
        }
        Ok(paths)
    }
}

#[cfg(test)]
#[path = "options_test.rs"]
mod tests;
