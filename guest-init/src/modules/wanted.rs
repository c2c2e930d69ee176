//! What some command wants, and the kernel has as modules.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, openat};

use super::index::Index;
use super::insert;
use crate::console;
use crate::tree::Tree;

/// What the kernel knows: "nodev?<tab>TYPE" a line.
const KNOWN: &str = "/proc/filesystems";
const RELEASE: &str = "/proc/sys/kernel/osrelease";
/// The longest index file that is read, in bytes; Debian's are not half as long.
const MAX_INDEX: u64 = 4 << 20;

/// Has the kernel know a file system, by its modules if need be.
///
/// Call it while init's /proc is there.
pub(crate) fn provide_file_system(fstype: &str, modules: Option<&Tree>) -> Result<()> {
    let known = fs::read_to_string(KNOWN).context(KNOWN)?;
    if is_known(&known, fstype) {
        return Ok(());
    }
    // The name by which mount(2) asks for it, too (get_fs_type of fs/filesystems.c).
    provide(&format!("fs-{fstype}"), modules)
}

/// Loads what goes by this name or alias, and what that needs, from what `modules` holds: a directory for each version,
/// as in /lib/modules.
///
/// Call it while init's /proc is there.
pub(crate) fn provide(name: &str, modules: Option<&Tree>) -> Result<()> {
    let release = fs::read_to_string(RELEASE).context(RELEASE)?;
    let release = release.trim_end();
    find(modules, release)
        .and_then(|folder| load(&folder, name))
        .with_context(|| format!("the kernel {release} does not have it built in"))
}

/// The directory of a version.
fn find(modules: Option<&Tree>, release: &str) -> Result<OwnedFd> {
    let modules = modules.context(
        "its modules are not at hand (they belong in lib/modules beside the kernel; runq-vmm: --modules)",
    )?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(modules.directory()?, release, flags, Mode::empty()).with_context(|| {
        format!("its modules: /lib/modules/{release} (install kernel and modules of one build)")
    })
}

/// The same from the directory of the kernel's version.
fn load(folder: &impl AsFd, name: &str) -> Result<()> {
    let index = Index {
        dependencies: read(folder, "modules.dep")?,
        aliases: read(folder, "modules.alias")?,
        soft_dependencies: read(folder, "modules.softdep")?,
    };
    let files = index.files(name);
    ensure!(!files.is_empty(), "it has no module {name}");
    for file in files {
        let packed = !file.ends_with(".ko");
        let inserted = insert(&open(folder, file)?, packed);
        inserted.with_context(|| format!("load the kernel module {file}"))?;
        console::debug(format_args!("loaded {file} for {name}"));
    }
    Ok(())
}

fn read(folder: &impl AsFd, name: &str) -> Result<String> {
    let mut text = String::new();
    let file = open(folder, name)?;
    let read = file.take(MAX_INDEX + 1).read_to_string(&mut text);
    read.with_context(|| name.to_owned())?;
    ensure!(
        text.len() as u64 <= MAX_INDEX,
        "{name}: longer than the {MAX_INDEX} bytes that are allowed"
    );
    Ok(text)
}

fn open(folder: &impl AsFd, name: &str) -> Result<File> {
    let file = openat(
        folder,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    Ok(file.with_context(|| name.to_owned())?.into())
}

fn is_known(known: &str, fstype: &str) -> bool {
    let mut lines = known.lines();
    lines.any(|line| line.rsplit('\t').next() == Some(fstype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_knows_is_told_by_its_whole_name() {
        let known = "nodev\tsysfs\n\text4\nnodev\tvirtiofs\n";
        for fstype in ["sysfs", "ext4", "virtiofs"] {
            assert!(is_known(known, fstype), "{fstype}");
        }
        for fstype in ["ext", "xfs", "nodev", "nodev\tsysfs"] {
            assert!(!is_known(known, fstype), "{fstype}");
        }
        provide_file_system("proc", None).unwrap();
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = format!("{:#}", provide_file_system("nosuchfs", None).unwrap_err());
        assert!(error.contains("its modules are not at hand"), "{error}");

        let directory = tempfile::tempdir().unwrap();
        let folder = File::open(directory.path()).unwrap();
        let error = || format!("{:#}", load(&folder, "fs-xfs").unwrap_err());
        assert!(error().starts_with("modules.dep: "), "{}", error());
        let write = |name, text| fs::write(directory.path().join(name), text).unwrap();
        write("modules.dep", "kernel/xfs.ko:\n");
        write("modules.alias", "alias fs-ext4 ext4\n");
        write("modules.softdep", "");
        assert_eq!(error(), "it has no module fs-xfs");
        write("modules.alias", "alias fs-xfs xfs\n");
        assert!(error().starts_with("kernel/xfs.ko: "), "{}", error());
        // No module, nor may just anybody load one.
        fs::create_dir(directory.path().join("kernel")).unwrap();
        write("kernel/xfs.ko", "text");
        assert!(
            error().starts_with("load the kernel module kernel/xfs.ko: "),
            "{}",
            error()
        );
    }

    #[test]
    fn an_index_is_not_read_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("modules.dep")).unwrap();
        file.set_len(MAX_INDEX + 1).unwrap();
        let folder = File::open(directory.path()).unwrap();
        let error = read(&folder, "modules.dep").unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }
}
