//! Looking at the parts of the host that come with it: kernel, runc, Docker.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::Finding;
use crate::host;

/// Whether KVM can run our guests.
pub(super) fn kvm() -> Finding {
    let usable = vmm::kvm::open().and_then(|_| vmm::kvm::check_runs_linux());
    match usable {
        Ok(()) => Finding::fit("KVM", "/dev/kvm runs Linux guests"),
        Err(error) => Finding::unfit("KVM", error.to_string()),
    }
}

/// Whether Linux has mount_setattr(2), with which runc restricts what is mounted below a volume.
pub(super) fn linux(release: &Path) -> Finding {
    let release = fs::read_to_string(release).unwrap_or_default();
    let numbers = release.split(['.', '-', '\n']);
    let mut numbers = numbers.map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next(), numbers.next());
    if version >= (Some(5), Some(12)) {
        Finding::fit("Linux", release.trim())
    } else {
        Finding::unfit(
            "Linux",
            format!("{}: install 5.12 or newer", release.trim()),
        )
    }
}

/// The version of control groups that is mounted: runc works with either.
pub(super) fn control_groups(folder: &Path) -> Finding {
    let part = "control groups";
    if folder.join("cgroup.controllers").exists() {
        Finding::fit(part, "version 2")
    } else if folder.join("memory").exists() {
        Finding::fit(part, "version 1")
    } else {
        let folder = folder.display();
        Finding::unfit(
            part,
            format!("{folder}: none mounted: mount -t cgroup2 cgroup2 {folder}"),
        )
    }
}

/// The runc that containers are handed to.
pub(super) fn runc(found: Result<&Path>) -> Finding {
    let version = found.and_then(|path| {
        let version = first_line(Command::new(path).arg("--version"))?;
        Ok(format!("{}: {version}", path.display()))
    });
    match version {
        Ok(detail) => Finding::fit("runc", detail),
        Err(error) => Finding::unfit("runc", format!("{error:#}")),
    }
}

/// Devices that the monitor can do without, and the price.
pub(super) fn devices() -> Vec<Finding> {
    let devices = [
        (
            "/dev/vhost-net",
            "the monitor serves networks itself, at more processor time: modprobe vhost_net",
        ),
        (
            "/dev/vhost-vsock",
            "the monitor serves docker exec itself, and runq-exec is root's only: modprobe vhost_vsock",
        ),
        (
            "/dev/net/tun",
            "only `runq-vmm --net tap=...` needs it: modprobe tun",
        ),
    ];
    let devices = devices
        .into_iter()
        .map(|(path, price)| match host::device(path) {
            Some(_) => Finding::fit(path, "there"),
            None => Finding::optional(path, price),
        });
    let macvtap = match host::macvtap_major() {
        Some(major) => Finding::fit("macvtap", format!("devices of major number {major}")),
        None => Finding::optional(
            "macvtap",
            "containers have no network but --network none: modprobe macvtap",
        ),
    };
    devices.chain([macvtap]).collect()
}

/// Docker, and whether it knows runq. Other programs can call runq, too.
pub(super) fn docker(config: &Path) -> [Finding; 2] {
    let ask = |words: [&str; 3]| first_line(Command::new("docker").args(words));
    let version = ask(["version", "--format", "{{.Server.Version}}"]);
    let runtimes = match &version {
        Ok(_) => ask(["info", "--format", "{{json .Runtimes}}"]).ok(),
        Err(_) => None,
    };
    let docker = match version {
        Ok(version) => Finding::fit("Docker", version),
        Err(error) => Finding::optional("Docker", format!("{error:#}")),
    };
    let part = "Docker's runtime";
    let runtime = match known(config, runtimes.as_deref()) {
        Ok(name) => Finding::fit(part, format!("docker run --runtime {name}")),
        Err(error) => Finding::optional(part, format!("{}: {error:#}", config.display())),
    };
    [docker, runtime]
}

/// The name under which a Docker with these runtimes has runq; without a Docker that answers, the one
/// of its configuration.
fn known(config: &Path, runtimes: Option<&str>) -> Result<String> {
    let Some(runtimes) = runtimes else {
        return registered(config);
    };
    let runtimes: Value = serde_json::from_str(runtimes).context("docker info")?;
    if let Some(name) = runq_among(&runtimes) {
        return Ok(name);
    }
    let name = registered(config)?;
    bail!("{name} is in it, but Docker has not read that yet: `systemctl reload docker`")
}

/// The name under which Docker's configuration has runq.
fn registered(config: &Path) -> Result<String> {
    let hint = "no runq: `runq register`, then `systemctl reload docker`";
    let text = fs::read(config).map_err(|error| anyhow!("{error}: {hint}"))?;
    let config: Value = serde_json::from_slice(&text)?;
    runq_among(&config["runtimes"]).context(hint)
}

/// The name of the first runtime whose program is called runq.
fn runq_among(runtimes: &Value) -> Option<String> {
    let mut names = runtimes.as_object()?.iter();
    let (name, _) = names.find(|(_, runtime)| is_runq(runtime))?;
    Some(name.clone())
}

/// Whether the program of an entry of `runtimes` is called runq.
pub(super) fn is_runq(runtime: &Value) -> bool {
    let path = runtime["path"].as_str().map(Path::new);
    path.and_then(Path::file_name)
        .is_some_and(|name| name == "runq")
}

/// The first line that a program prints, or of its complaint.
fn first_line(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| name.clone())?;
    let line = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().next().unwrap_or_default().to_owned()
    };
    if !output.status.success() {
        bail!("{name}: {}", line(&output.stderr));
    }
    Ok(line(&output.stdout))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::State;
    use super::*;

    #[test]
    fn old_kernels_will_not_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("osrelease");
        for (release, state) in [
            ("6.1.0-13-amd64\n", State::Fit),
            ("5.12\n", State::Fit),
            ("5.10.0-26-amd64\n", State::Unfit),
            ("4.19.0\n", State::Unfit),
        ] {
            fs::write(&path, release).unwrap();
            assert_eq!(linux(&path).state, state, "{release}");
        }
    }

    #[test]
    fn both_versions_of_control_groups_will_do() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(control_groups(folder.path()).state, State::Unfit);
        fs::create_dir(folder.path().join("memory")).unwrap();
        assert_eq!(control_groups(folder.path()).detail, "version 1");
        fs::write(folder.path().join("cgroup.controllers"), "").unwrap();
        assert_eq!(control_groups(folder.path()).detail, "version 2");
    }

    #[test]
    fn runc_says_its_version_or_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runc");
        let program = |text| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            runc(Ok(&path))
        };
        let finding = program("#!/bin/sh\necho runc version 1.1.5\necho commit: x\n");
        assert_eq!(finding.state, State::Fit);
        assert_eq!(
            finding.detail,
            format!("{}: runc version 1.1.5", path.display())
        );
        let finding = program("#!/bin/sh\necho broken >&2\nexit 1\n");
        assert_eq!(finding.state, State::Unfit);
        assert_eq!(finding.detail, format!("{}: broken", path.display()));
        assert_eq!(runc(Err(anyhow!("not found"))).detail, "not found");
    }

    #[test]
    fn docker_knows_runq_by_its_file_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        let hint = |path: &Path| format!("{:#}", registered(path).unwrap_err());
        assert!(hint(&path).contains("(os error 2): no runq"));
        fs::write(&path, r#"{"runtimes": {"x": {"path": "/usr/bin/crun"}}}"#).unwrap();
        assert!(hint(&path).starts_with("no runq: `runq register`"));
        fs::write(&path, r#"{"runtimes": {"vm": {"path": "/opt/runq/runq"}}}"#).unwrap();
        assert_eq!(registered(&path).unwrap(), "vm");
        fs::write(&path, "{").unwrap();
        assert!(hint(&path).starts_with("EOF while parsing"));
    }

    #[test]
    fn docker_itself_has_the_last_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        let runtimes = r#"{"runc": {"path": "runc"}, "vm": {"path": "/opt/runq/runq"}}"#;
        assert_eq!(known(&path, Some(runtimes)).unwrap(), "vm");
        let others = r#"{"runc": {"path": "runc"}}"#;
        let hint = || format!("{:#}", known(&path, Some(others)).unwrap_err());
        assert!(hint().contains("no runq: `runq register`"), "{}", hint());
        fs::write(&path, format!(r#"{{"runtimes": {runtimes}}}"#)).unwrap();
        assert!(hint().starts_with("vm is in it, but"), "{}", hint());
        assert_eq!(known(&path, None).unwrap(), "vm");
    }
}
