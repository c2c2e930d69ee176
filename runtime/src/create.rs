//! `runq create` and `runq run`: the bundle as runc is to see it.
//!
//! runc reads config.json from the bundle, so that is where its part goes. The original stays
//! beside it: a bundle that is used again is split from there.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::host::{self, Host};
use crate::lookup;
use crate::mount_points;
use crate::namespace;
use crate::options::{self, Given};
use crate::split::{ANNOTATION, BundleFile, KILLS, STARTED, Split, VMSPEC, disks, split};

/// The container's configuration, and what runc reads.
const CONFIG: &str = "config.json";
/// The configuration as it was.
const ORIGINAL: &str = "config.json.orig";
/// The configuration for runc before it takes its place.
const NEXT: &str = "config.json.next";
/// The longest configuration that is read, in bytes.
pub(crate) const MAX_SIZE: u64 = 16 << 20;

/// A bundle that has been rewritten. Dropped, it is as it was.
#[derive(Debug)]
#[must_use = "dropping it undoes the rewriting"]
pub struct Rewritten {
    bundle: PathBuf,
    /// What to remove.
    files: Vec<&'static str>,
    /// config.json is the one for runc.
    replaced: bool,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
}

impl Drop for Rewritten {
    fn drop(&mut self) {
        // Nobody is told of failures here: the error that led to this has been told.
        if self.replaced {
            let _ = fs::rename(self.bundle.join(ORIGINAL), self.bundle.join(CONFIG));
        }
        for name in &self.files {
            let _ = fs::remove_file(self.bundle.join(name));
        }
    }
}

/// Splits the configuration in `bundle`, that of the container with this ID, and replaces it by the
/// part for runc. `root` is where runq is installed, `given` are the options of the command line.
///
/// # Errors
/// Names what is wrong or missing; then the bundle is as it was.
pub fn rewrite(bundle: &Path, container: &str, root: &Path, given: &Given) -> Result<Rewritten> {
    let bundle = bundle
        .canonicalize()
        .with_context(|| format!("bundle {}", bundle.display()))?;
    let config = read_original(&bundle)?;
    namespace::check(&config)?;
    let mut host = host::probe(&bundle, container, root)?;
    look_at_disks(&mut host, &config);
    look_at_crypto(&mut host, &config)?;
    let split = split(&config, given, &host)?;
    if let Some(root) = config["root"]["path"].as_str() {
        let root = host.resolve(root);
        if let Some(failure) = lookup::failure(&split.vm.start, Path::new(&root)) {
            bail!("unable to start container process: {failure}");
        }
        mount_points::make(Path::new(&root), &split.mount_points);
    }
    write(bundle, split)
}

/// Tells `host` what there is that becomes disks.
fn look_at_disks(host: &mut Host, config: &Value) {
    let paths = disks::paths(config, host).into_iter();
    host.files = paths
        .map(|path| {
            let kind = host::look(&path);
            (path, kind)
        })
        .collect();
}

/// Tells `host` the devices of the container's crypto adapters, if it is to have any.
fn look_at_crypto(host: &mut Host, config: &Value) -> Result<()> {
    let environment = config["process"]["env"].as_array().into_iter().flatten();
    let environment: Vec<_> = environment
        .filter_map(|entry| Some(entry.as_str()?.to_owned()))
        .collect();
    if let Some(uuid) = options::crypto(&environment)? {
        let devices = host::crypto(&uuid);
        let devices = devices.with_context(|| format!("{}={uuid}", options::CRYPTO))?;
        host.devices.extend(devices);
    }
    Ok(())
}

/// Whether the container with this bundle is in a VM.
///
/// # Errors
/// When that cannot be found out.
pub fn is_ours(bundle: &Path) -> std::io::Result<bool> {
    bundle.join(VMSPEC).try_exists()
}

/// The configuration before it was split, by an earlier call perhaps.
pub(crate) fn read_original(bundle: &Path) -> Result<Value> {
    let config = read(&bundle.join(CONFIG))?;
    let original = bundle.join(ORIGINAL);
    match config["annotations"].get(ANNOTATION) {
        // If there is no original, then somebody else made the annotation, which the split refuses.
        Some(_) if original.try_exists()? => read(&original),
        _ => Ok(config),
    }
}

/// Reads a file with JSON, of bounded length.
pub(crate) fn read(path: &Path) -> Result<Value> {
    let name = || path.display().to_string();
    let file = fs::File::open(path).with_context(name)?;
    let mut text = Vec::new();
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut text)
        .with_context(name)?;
    ensure!(
        text.len() as u64 <= MAX_SIZE,
        "{}: longer than the {MAX_SIZE} bytes that are allowed",
        path.display()
    );
    serde_json::from_slice(&text).with_context(name)
}

/// Writes all files; config.json takes its place last, at once.
fn write(bundle: PathBuf, split: Split) -> Result<Rewritten> {
    let mut written = Rewritten {
        bundle,
        files: Vec::new(),
        replaced: false,
        warnings: split.warnings,
    };
    for file in &split.files {
        written.create(file)?;
    }
    written.create(&BundleFile {
        name: KILLS,
        contents: String::new(),
        mode: 0o600,
        owner: (0, 0),
    })?;
    let fifo = written.claim(STARTED)?;
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).with_context(|| fifo.display().to_string())?;
    written.claim(VMSPEC)?;
    split.vm.save(&written.bundle.join(VMSPEC))?;
    written.replace_config(&split.runc)?;
    Ok(written)
}

impl Rewritten {
    /// Makes room for a file of ours, perhaps that of an earlier call.
    fn claim(&mut self, name: &'static str) -> Result<PathBuf> {
        let path = self.bundle.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => self.files.push(name),
        }
        Ok(path)
    }

    fn create(&mut self, file: &BundleFile) -> Result<()> {
        let path = self.claim(file.name)?;
        let (user, group) = file.owner;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(file.mode)
            .open(&path)
            .and_then(|mut opened| {
                opened.write_all(file.contents.as_bytes())?;
                fchown(&opened, Some(user), Some(group))
            })
            .with_context(|| path.display().to_string())
    }

    /// The original's permissions hold for both: it has the container's environment.
    fn replace_config(&mut self, runc: &Value) -> Result<()> {
        let config = self.bundle.join(CONFIG);
        let next = self.claim(NEXT)?;
        let original = self.bundle.join(ORIGINAL);
        let name = || config.display().to_string();
        let text = serde_json::to_vec(runc).with_context(name)?;
        fs::copy(&config, &next)
            .and_then(|_| fs::write(&next, text))
            .with_context(name)?;
        let again = is_split(&config)?;
        if !again {
            self.claim(ORIGINAL)?;
            fs::copy(&config, &original).with_context(name)?;
        }
        fs::rename(&next, &config).with_context(name)?;
        self.files.retain(|file| *file != NEXT && *file != ORIGINAL);
        self.replaced = true;
        Ok(())
    }
}

fn is_split(config: &Path) -> Result<bool> {
    Ok(read(config)?["annotations"].get(ANNOTATION).is_some())
}

#[cfg(test)]
#[path = "create_test.rs"]
mod tests;
