//! `diskcheck`: records on disks, each told as soon as it is safe, so that a crash shows which of them have to be there.
//!
//! A record is a piece of a file behind others, flushed before the next. Every few records there is a new file, whose name is
//! flushed with its directory.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::thread;

use ::tests::pattern::Pattern;
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Writes numbered records, and counts those that are there.
#[derive(Parser)]
#[command(name = "diskcheck")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write records of a round to all directories at once, for ever; says a directory's name and a number when that record
    /// is safe
    Write { round: u32, dirs: Vec<PathBuf> },
    /// Say how many records of a round there are, up to the first that is not as it was written
    Count { round: u32, dir: PathBuf },
}

/// Records in a file.
const A_FILE: u32 = 8;

/// The bytes of a record, 16 KiB at most: the ends of most are within a sector.
fn record(round: u32, number: u32) -> Vec<u8> {
    let length = 1 + number.wrapping_mul(2_654_435_761) % (16 << 10);
    Pattern::bytes(u64::from(round) << 32 | u64::from(number), length as usize)
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Write { round, dirs } => write_all(round, dirs),
        Verb::Count { round, dir } => count(round, &dir).map(|count| println!("{count}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ! {
    eprintln!("diskcheck: {error:#}");
    exit(1)
}

/// A thread for each directory. The first that fails ends the process.
fn write_all(round: u32, dirs: Vec<PathBuf>) -> Result<()> {
    let writer = |dir: PathBuf| {
        thread::spawn(move || {
            let Err(error) = (0..).try_for_each(|file| {
                write_file(round, &dir, file).with_context(|| dir.display().to_string())
            }) else {
                return;
            };
            fail(&error)
        })
    };
    for thread in dirs.into_iter().map(writer).collect::<Vec<_>>() {
        let _ = thread.join();
    }
    Ok(())
}

/// Writes the records of one file, and tells of each.
fn write_file(round: u32, dir: &Path, number: u32) -> Result<()> {
    let folder = dir.join(round.to_string());
    if number == 0 {
        fs::create_dir(&folder)?;
        File::open(dir)?.sync_all()?;
    }
    let mut file = File::create_new(folder.join(number.to_string()))?;
    File::open(&folder)?.sync_all()?;
    let name = dir.file_name().unwrap_or_default().display();
    for record_number in number * A_FILE..(number + 1) * A_FILE {
        file.write_all(&record(round, record_number))?;
        file.sync_data()?;
        println!("{name} {}", record_number + 1);
    }
    Ok(())
}

fn count(round: u32, dir: &Path) -> Result<u32> {
    let mut whole = 0;
    for number in 0.. {
        let path = dir.join(round.to_string()).join(number.to_string());
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            read => read.with_context(|| path.display().to_string())?,
        };
        let mut rest = bytes.as_slice();
        for _ in 0..A_FILE {
            match rest.strip_prefix(record(round, whole).as_slice()) {
                Some(behind) => rest = behind,
                None => return Ok(whole),
            }
            whole += 1;
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_or_changed_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(count(1, dir.path()).unwrap(), 0);
        for file in 0..3 {
            write_file(1, dir.path(), file).unwrap();
        }
        assert_eq!(count(1, dir.path()).unwrap(), 3 * A_FILE);
        assert_eq!(count(2, dir.path()).unwrap(), 0);

        let path = dir.path().join("1/1");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(count(1, dir.path()).unwrap(), 2 * A_FILE - 1);
        let mut other = bytes.clone();
        other[record(1, A_FILE).len()] ^= 1;
        fs::write(&path, other).unwrap();
        assert_eq!(count(1, dir.path()).unwrap(), A_FILE + 1);
        fs::remove_file(&path).unwrap();
        assert_eq!(count(1, dir.path()).unwrap(), A_FILE);
    }

    #[test]
    fn records_are_not_alike() {
        assert_ne!(record(1, 2)[..100], record(1, 3)[..100]);
        assert_ne!(record(1, 2), record(2, 2));
        assert!((0..1000).all(|number| record(7, number).len() <= 16 << 10));
    }
}
