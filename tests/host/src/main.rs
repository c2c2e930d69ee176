//! `testhost`: the emulated test host from the command line. See `testhost --help` and the library.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use testhost::client::TimedOut;
use testhost::kvm::{self, Kvm};
use testhost::terminal::{self, Raw};
use testhost::{Command, Host, Lifetime, Options, Variant, cache, image, list, state};

/// A Debian with KVM and Docker in an emulated machine, for tests that boot guests where there is no hardware KVM.
#[derive(Parser)]
#[command(
    name = "testhost",
    after_help = "Examples:
  testhost run --payload target/test-payload -- /opt/runq/boot --include-ignored --test-threads=1
  testhost up && testhost exec -- docker info && testhost shell && testhost down"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Say whether this machine needs the test host to run Linux guests; exit code 0 if so, 1 if not
    Needed,
    /// Build what `up` restores from: the image and the saved state
    Build {
        /// Of the host whose clock counts instructions
        #[arg(long)]
        icount: bool,
    },
    /// Start a host, which then runs until `down`
    Up {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        kind: Kind,
    },
    /// Run a command in a host that is up: standard streams and exit code are the command's
    Exec {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        what: What,
    },
    /// Start a host, run a command in it, end it
    Run {
        /// Say nothing of the host
        #[arg(long)]
        quiet: bool,
        #[command(flatten)]
        kind: Kind,
        #[command(flatten)]
        what: What,
    },
    /// Open a shell in a host that is up, on this terminal
    Shell {
        #[command(flatten)]
        name: Name,
    },
    /// End a host
    Down {
        #[command(flatten)]
        name: Name,
        /// End all of this clone
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Show versions, caches, and the hosts that are up
    Info,
}

#[derive(Args)]
struct Name {
    /// Its name: several can be up at a time
    #[arg(long, default_value = "default")]
    name: String,
}

#[derive(Args)]
struct Kind {
    /// A directory that the host sees as /opt/runq, read-only; copied when the host starts
    #[arg(long, value_name = "DIR")]
    payload: Option<PathBuf>,
    /// A qcow2 image that the host sees as /dev/vdc, and writes; what it has not flushed is lost when it ends
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// A host with one CPU and without Docker, whose clock counts instructions
    #[arg(long)]
    icount: bool,
}

#[derive(Args)]
struct What {
    /// Kill the command after this many seconds; exit code 124
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Set a variable of the command's environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The program, looked up in the host's PATH, and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn variant(icount: bool) -> Variant {
    if icount {
        Variant::Icount
    } else {
        Variant::Docker
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("testhost: {error:#}");
            ExitCode::from(if error.is::<TimedOut>() { 124 } else { 125 })
        }
    }
}

fn run(verb: Verb) -> Result<u8> {
    match verb {
        Verb::Needed => return Ok(needed()),
        Verb::Build { icount } => println!("{}", state::get(variant(icount))?.display()),
        Verb::Up { name, kind } => {
            start(Some(name.name), kind, Lifetime::UntilStopped, false)?.leave();
        }
        Verb::Exec { name, what } => return exec(&Host::find(&name.name)?, what),
        Verb::Run { quiet, kind, what } => {
            let host = start(None, kind, Lifetime::OfProcess, quiet)?;
            return exec(&host, what);
        }
        Verb::Shell { name } => return shell(&Host::find(&name.name)?),
        Verb::Down { name, all } => {
            let hosts = if all {
                list()?
            } else {
                vec![Host::find(&name.name)?]
            };
            hosts.into_iter().try_for_each(Host::stop)?;
        }
        Verb::Info => info()?,
    }
    Ok(0)
}

fn needed() -> u8 {
    let kvm = kvm::detect();
    println!("Linux guests run in: {kvm}");
    u8::from(matches!(kvm, Kvm::Hardware(_)))
}

fn start(name: Option<String>, kind: Kind, lifetime: Lifetime, quiet: bool) -> Result<Host> {
    let before = Instant::now();
    let host = Host::start(&Options {
        name,
        payload: kind.payload,
        disk: kind.disk,
        variant: variant(kind.icount),
        lifetime,
    })?;
    if !quiet {
        describe(&host, before.elapsed());
    }
    Ok(host)
}

fn describe(host: &Host, took: Duration) {
    let versions: Vec<String> = host
        .versions()
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    eprintln!("testhost: {}", versions.join(", "));
    eprintln!(
        "testhost: up after {:.1} s: {}",
        took.as_secs_f32(),
        host.describe()
    );
}

fn exec(host: &Host, what: What) -> Result<u8> {
    let mut command = Command::new(what.command)
        .stdin(io::stdin())
        .timeout(what.timeout.map(Duration::from_secs));
    for (name, value) in what.env {
        command = command.env(&name, &value);
    }
    host.run(command, &mut io::stdout(), &mut io::stderr())
}

fn shell(host: &Host) -> Result<u8> {
    let (size, resizes) = terminal::sizes()?;
    let term = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
    let command = Command::new(["bash", "-l"])
        .env("TERM", &term)
        .stdin(io::stdin())
        .terminal(size, resizes);
    let _raw = Raw::new()?;
    host.run(command, &mut io::stdout(), &mut io::stderr())
}

fn info() -> Result<()> {
    println!("Linux guests run in: {}", kvm::detect());
    let image = cache::path("image", &image::key())?;
    let mut caches = vec![("image", image.clone())];
    for variant in [Variant::Docker, Variant::Icount] {
        let path = cache::path(variant.name(), &state::key(variant))?;
        caches.push((variant.name(), path));
    }
    for (kind, path) in caches {
        let there = if path.exists() { "built" } else { "not built" };
        println!("{kind}: {there}: {}", path.display());
    }
    let versions = image.join(image::files::VERSIONS);
    print!("{}", std::fs::read_to_string(versions).unwrap_or_default());
    for host in list()? {
        println!("up: {}", host.describe());
    }
    Ok(())
}
