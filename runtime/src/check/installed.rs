//! What `make install` puts into RUNQ_ROOT.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Finding;
use crate::certs::Certificates;
use crate::host;

/// What a path has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Program,
    File,
    Folder,
}

/// Relative to RUNQ_ROOT. The folders in vm/ are mount points of every container, a root for the monitor, and the
/// modules of the guests' kernel.
const INSTALLED: [(&str, Kind); 13] = [
    ("runq", Kind::Program),
    ("runq-exec", Kind::Program),
    ("vm", Kind::Folder),
    ("vm/proxy", Kind::Program),
    ("vm/kernel", Kind::File),
    ("vm/initrd", Kind::File),
    ("vm/version", Kind::File),
    ("vm/empty", Kind::Folder),
    ("vm/proc", Kind::Folder),
    ("vm/dev", Kind::Folder),
    ("vm/run", Kind::Folder),
    ("vm/lib", Kind::Folder),
    ("vm/lib/modules", Kind::Folder),
];

/// What to do if something is not there.
const INSTALL: &str = "not found: install runq, or set RUNQ_ROOT";

/// One finding for each file or folder that is not as it should be, or one for all.
pub(super) fn files(root: &Path) -> Vec<Finding> {
    let part = root.display().to_string();
    if !root.is_dir() {
        return vec![Finding::unfit(&part, INSTALL)];
    }
    let mut unfit: Vec<_> = INSTALLED
        .iter()
        .filter_map(|(name, kind)| {
            let path = root.join(name);
            let complaint = complaint(&path, *kind)?;
            Some(Finding::unfit(&path.display().to_string(), complaint))
        })
        .collect();
    if unfit.is_empty()
        && let Err(error) = host::check_version(&root.join("vm"))
    {
        unfit.push(Finding::unfit(&part, format!("{error:#}")));
    }
    if unfit.is_empty() {
        let detail = format!("{} files and folders", INSTALLED.len());
        return vec![Finding::fit(&part, detail)];
    }
    unfit
}

/// Whether there are certificates.
pub(super) fn certificates(root: &Path) -> Finding {
    let part = "certificates";
    match Certificates::read(root) {
        Ok(_) => Finding::fit(part, "docker exec and runq-exec have theirs"),
        Err(error) => Finding::optional(
            part,
            format!("{error:#}: no docker exec for containers that start now: runq certs"),
        ),
    }
}

/// What is wrong with a path. Whoever can write one of these is root in every container's monitor.
fn complaint(path: &Path, kind: Kind) -> Option<String> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(INSTALL.into()),
        Err(error) => return Some(error.to_string()),
    };
    let mode = metadata.mode() & 0o7777;
    let shown = path.display();
    if metadata.is_dir() != (kind == Kind::Folder) {
        return Some("a folder where a file should be, or the reverse: install runq anew".into());
    }
    if metadata.uid() != 0 {
        return Some(format!(
            "belongs to user {}: chown root {shown}",
            metadata.uid()
        ));
    }
    if mode & 0o022 != 0 {
        return Some(format!(
            "mode {mode:04o}, others than root may write: chmod go-w {shown}"
        ));
    }
    if kind != Kind::File && mode & 0o100 == 0 {
        return Some(format!("mode {mode:04o}: chmod u+x {shown}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::State;
    use super::*;

    fn install(root: &Path) {
        for (name, kind) in INSTALLED {
            let path = root.join(name);
            let mode = match kind {
                Kind::Folder => fs::create_dir(&path).map(|()| 0o755).unwrap(),
                Kind::Program => fs::write(&path, "").map(|()| 0o755).unwrap(),
                Kind::File => fs::write(&path, "").map(|()| 0o644).unwrap(),
            };
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
    }

    #[test]
    fn what_is_not_installed_is_named() {
        let root = tempfile::tempdir().unwrap();
        install(root.path());
        fs::remove_file(root.path().join("vm/kernel")).unwrap();
        let kernel = root.path().join("vm/kernel").display().to_string();
        let found = files(root.path());
        let finding = found.iter().find(|finding| finding.part == kernel).unwrap();
        assert_eq!(finding.state, State::Unfit);
        assert_eq!(finding.detail, INSTALL);
        let found = files(&root.path().join("nowhere"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].detail, INSTALL);
    }

    #[test]
    fn permissions_are_looked_at() {
        let root = tempfile::tempdir().unwrap();
        install(root.path());
        let proxy = root.path().join("vm/proxy");
        let of = |mode| {
            fs::set_permissions(&proxy, PermissionsExt::from_mode(mode)).unwrap();
            complaint(&proxy, Kind::Program)
        };
        if fs::metadata(&proxy).unwrap().uid() != 0 {
            assert!(of(0o755).unwrap().contains("chown root"));
            return;
        }
        assert_eq!(of(0o755), None);
        let writable = of(0o775).unwrap();
        assert_eq!(
            writable,
            format!(
                "mode 0775, others than root may write: chmod go-w {}",
                proxy.display()
            )
        );
        assert_eq!(
            of(0o644).unwrap(),
            format!("mode 0644: chmod u+x {}", proxy.display())
        );
        assert!(
            complaint(&proxy, Kind::Folder)
                .unwrap()
                .starts_with("a folder")
        );
        of(0o755);
        fs::write(root.path().join("vm/version"), env!("CARGO_PKG_VERSION")).unwrap();
        let found = files(root.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].state, State::Fit);
        fs::write(root.path().join("vm/version"), "0.0.0").unwrap();
        let found = files(root.path());
        assert_eq!(found.len(), 1);
        assert!(found[0].detail.contains("\"0.0.0\""), "{found:?}");
    }
}
