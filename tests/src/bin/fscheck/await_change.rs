//! Waiting for what somebody else changes.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;

/// What a file is to become.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Change {
    /// It has these contents
    #[arg(long, value_name = "TEXT")]
    contents: Option<String>,
    /// It is not there
    #[arg(long)]
    gone: bool,
}

impl Change {
    fn has_come(&self, now: &Option<String>) -> bool {
        match &self.contents {
            Some(_) => *now == self.contents,
            None => now.is_none(),
        }
    }
}

/// Says `watching` once it has seen how things are, and how long the change took to be seen.
///
/// It polls: a file system that others change from outside tells nobody.
pub(crate) fn run(path: &Path, change: &Change, within: u64) -> Result<()> {
    let before = contents(path)?;
    ensure!(
        !change.has_come(&before),
        "{}: is so from the start",
        path.display()
    );
    println!("watching {}", path.display());
    let begin = Instant::now();
    loop {
        let now = contents(path)?;
        let passed = begin.elapsed();
        if change.has_come(&now) {
            println!("seen {} after {} ms", path.display(), passed.as_millis());
            return Ok(());
        }
        if passed > Duration::from_secs(within) {
            bail!("{}: still {now:?} after {within} s", path.display());
        }
        std::thread::yield_now();
    }
}

fn contents(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
