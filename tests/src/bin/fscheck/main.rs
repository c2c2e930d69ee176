//! `fscheck`: what programs expect of a shared directory and we decide, checked from inside a guest.
//!
//! We decide how the library is configured, what its threads may do, and what the guest caches. What else POSIX says of
//! file systems is up to Linux and the library, and they have tests of their own.
//!
//! Each check works in a fresh directory of its own, and prints `ok NAME` or `failed NAME: why`.

mod acl;
mod await_change;
mod data;
mod expect;
mod locks;
mod many_files;
mod mapping;
mod one_by_one;
mod operation;
mod read_only;
mod requests;
mod users;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use rustix::process::{geteuid, getuid};

use operation::{Operation, User};

/// Checks what programs expect of a file system. Needs root.
#[derive(Parser)]
#[command(name = "fscheck")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run all checks, or those named, in a directory
    Check {
        dir: PathBuf,
        names: Vec<String>,
        /// Size of the file that is copied
        #[arg(long, value_name = "MIB", default_value_t = 16)]
        size: u64,
        /// Number of small files
        #[arg(long, default_value_t = 1000)]
        files: u32,
        /// A check, or one of its requests, that this file system has to refuse; can be given several times
        #[arg(long, value_name = "NAME")]
        refused: Vec<String>,
    },
    /// Name the checks
    List,
    /// Check that a directory that `prepare` has filled can be read, and that each change is refused
    ReadOnly { dir: PathBuf },
    /// Fill a directory for `read-only`
    Prepare { dir: PathBuf },
    /// Try one operation as a user; the exit code is the error's number, 0 if there was none
    As {
        /// User and group
        #[arg(value_name = "UID:GID")]
        user: User,
        operation: Operation,
        path: PathBuf,
    },
    /// Do what programs do in a directory, each operation between two calls of statfs
    OneByOne { dir: PathBuf },
    /// Print the real and the effective user
    Users,
    /// Say `waiting`, wait for a file's lock (flock), say `has it`, and keep it
    Lock { path: PathBuf },
    /// Look at a file, say `watching`, and wait until it has changed as said
    Await {
        path: PathBuf,
        #[command(flatten)]
        change: await_change::Change,
        /// Give up after this many seconds
        #[arg(long, value_name = "SECONDS")]
        within: u64,
    },
}

/// One expectation.
struct Check {
    name: &'static str,
    run: fn(&Place) -> Result<()>,
}

/// Where a check works, and how much it does.
struct Place {
    /// Empty, and the check's own.
    dir: PathBuf,
    /// Bytes of a large file.
    size: u64,
    /// Number of small files.
    files: u32,
    /// What this file system does not have.
    refused: Vec<String>,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// That it went as it has to.
    fn expected(&self, name: &str, result: Result<()>) -> Result<()> {
        match result {
            Ok(()) if self.has(name) => Ok(()),
            Ok(()) => bail!("{name} was not refused"),
            Err(error) if self.has(name) => Err(error),
            Err(_) => Ok(()),
        }
    }

    fn has(&self, name: &str) -> bool {
        !self.refused.iter().any(|refused| refused == name)
    }
}

fn checks() -> impl Iterator<Item = &'static Check> {
    [
        requests::CHECKS,
        data::CHECKS,
        many_files::CHECKS,
        users::CHECKS,
        acl::CHECKS,
        locks::CHECKS,
    ]
    .into_iter()
    .flatten()
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            println!("failed {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Check {
            dir,
            names,
            size,
            files,
            refused,
        } => {
            let chosen = choose(&names)?;
            let place = |name| Place {
                dir: dir.join(name),
                size: size << 20,
                files,
                refused: refused.clone(),
            };
            Ok(report(chosen.map(|check| {
                (check.name, run_check(check, &place(check.name)))
            })))
        }
        Verb::List => {
            checks().for_each(|check| println!("{}", check.name));
            Ok(ExitCode::SUCCESS)
        }
        Verb::ReadOnly { dir } => Ok(report(read_only::check(&dir))),
        Verb::Prepare { dir } => read_only::prepare(&dir).map(|()| ExitCode::SUCCESS),
        Verb::As {
            user,
            operation,
            path,
        } => Ok(ExitCode::from(operation::in_this_process(
            user, operation, &path,
        )?)),
        Verb::OneByOne { dir } => one_by_one::run(&dir).map(|()| ExitCode::SUCCESS),
        Verb::Users => {
            println!("{} {}", getuid().as_raw(), geteuid().as_raw());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Lock { path } => locks::hold(&path),
        Verb::Await {
            path,
            change,
            within,
        } => await_change::run(&path, &change, within).map(|()| ExitCode::SUCCESS),
    }
}

fn choose(names: &[String]) -> Result<impl Iterator<Item = &'static Check>> {
    for name in names {
        if !checks().any(|check| check.name == name) {
            bail!("{name}: no such check: see fscheck list");
        }
    }
    let names = names.to_vec();
    Ok(checks().filter(move |check| names.is_empty() || names.iter().any(|n| n == check.name)))
}

fn run_check(check: &Check, place: &Place) -> Result<()> {
    fs::create_dir(&place.dir).with_context(|| place.dir.display().to_string())?;
    // Whatever the umask: other users work in it, too.
    fs::set_permissions(&place.dir, PermissionsExt::from_mode(0o755))?;
    let result = place.expected(check.name, (check.run)(place));
    let removed = remove(&place.dir);
    result.and(removed)
}

fn remove(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir).context("remove what the check has made")
}

/// Prints each result as it comes.
fn report(results: impl IntoIterator<Item = (&'static str, Result<()>)>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (name, result) in results {
        match result {
            Ok(()) => println!("ok {name}"),
            Err(error) => {
                println!("failed {name}: {error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
