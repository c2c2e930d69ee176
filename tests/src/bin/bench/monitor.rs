//! What is measured: which program with which arguments, and how to know that the guest is there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Memory of each guest, in MiB.
pub(crate) const GUEST_MIB: u64 = 256;

/// Where the files are that the monitors read.
pub(crate) struct Files {
    pub(crate) runq: PathBuf,
    pub(crate) bench_kernel: PathBuf,
    pub(crate) bench_initrd: PathBuf,
    pub(crate) lean_kernel: PathBuf,
    pub(crate) lean_initrd: PathBuf,
    pub(crate) rootfs: PathBuf,
}

/// One monitor with one guest.
pub(crate) struct Monitor {
    /// The column's head.
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// What the guest prints first of all.
    pub(crate) mark: &'static str,
    /// Whether the guest ends by itself, and runq-vmm then prints its statistics.
    pub(crate) ends: bool,
    /// How often a boot is tried before it has failed.
    pub(crate) tries: u32,
}

/// The one with nothing but this machine, from Debian 13 on, and the one with all.
const QEMU: [&str; 2] = ["qemu-system-x86_64-microvm", "qemu-system-x86_64"];
/// What init.c prints.
const INIT_MARK: &str = "INIT-UP";
/// What the container's command prints.
const COMMAND_MARK: &str = "COMMAND-UP";

impl Monitor {
    /// runq-vmm with the guest that both boot.
    pub(crate) fn runq(files: &Files, extra: &[String]) -> Result<Self> {
        let mut args: Vec<OsString> = vec!["--kernel".into(), files.bench_kernel.clone().into()];
        args.extend(["--initrd".into(), files.bench_initrd.clone().into()]);
        args.extend(["--mem".into(), GUEST_MIB.to_string().into()]);
        // Adds console=ttyS0 and panic=-1.
        args.extend(["--console", "serial", "--cmdline", "quiet reboot=k"].map(OsString::from));
        args.extend(extra.iter().map(OsString::from));
        Ok(Self {
            name: "runq-vmm",
            program: files.runq.clone(),
            args,
            mark: INIT_MARK,
            ends: false,
            tries: 1,
        })
    }

    /// QEMU's machine for small guests, with its smaller firmware.
    pub(crate) fn qemu(files: &Files) -> Result<Self> {
        let mut args: Vec<OsString> = [
            "-machine",
            // Without a clock at its ports Linux waits for one.
            "microvm,rtc=on",
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-bios",
            "qboot.rom",
        ]
        .map(OsString::from)
        .into();
        args.extend(["-m".into(), GUEST_MIB.to_string().into()]);
        args.extend(
            [
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-serial",
                "stdio",
            ]
            .map(OsString::from),
        );
        args.extend(["-kernel".into(), files.bench_kernel.clone().into()]);
        args.extend(["-initrd".into(), files.bench_initrd.clone().into()]);
        args.extend(["-append", "console=ttyS0 quiet panic=-1 reboot=k"].map(OsString::from));
        Ok(Self {
            name: "QEMU microvm",
            program: QEMU.into_iter().find_map(find).unwrap_or_default(),
            args,
            mark: INIT_MARK,
            ends: false,
            // Its guest hangs now and then in the emulated host, before it prints anything.
            tries: 4,
        })
    }

    /// runq-vmm as containers use it: our kernel and init, a command from a shared directory.
    pub(crate) fn container(files: &Files) -> Result<Self> {
        let mut args: Vec<OsString> = vec!["--stats".into()];
        args.extend(["--kernel".into(), files.lean_kernel.clone().into()]);
        args.extend(["--initrd".into(), files.lean_initrd.clone().into()]);
        args.extend(["--mem".into(), GUEST_MIB.to_string().into()]);
        args.extend(["--rootfs".into(), files.rootfs.clone().into()]);
        args.extend(["--", "/bin/busybox", "echo", COMMAND_MARK].map(OsString::from));
        Ok(Self {
            name: "runq, a command",
            program: files.runq.clone(),
            args,
            mark: COMMAND_MARK,
            ends: true,
            tries: 1,
        })
    }

    /// The size of the program in bytes; 0 if it is not there.
    pub(crate) fn size(&self) -> u64 {
        std::fs::metadata(&self.program).map_or(0, |metadata| metadata.len())
    }

    /// Whether the program is there.
    pub(crate) fn is_installed(&self) -> bool {
        self.program.is_file()
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate: &PathBuf| Path::is_file(candidate))
}
