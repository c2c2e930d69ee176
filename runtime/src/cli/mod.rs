//! The command line of runq: what is ours, and what passes to runc.

pub(crate) mod args;
mod exec;
mod exec_options;
mod guest;
mod help;
mod kills;
mod ps;
mod report;
mod runc;
mod start;
mod update;

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::certs::Certificates;
use crate::register::{self, DAEMON_JSON};
use crate::{check, create};
use args::CommandLine;
use report::Report;
use runc::Runc;

/// Where runq is installed, unless RUNQ_ROOT says otherwise.
const INSTALLED: &str = "/var/lib/runq";

/// Options of `runc create` and `runc run` that are followed by a value.
const CREATE_VALUES: [&str; 6] = [
    "b",
    "bundle",
    "console-socket",
    "pid-file",
    "pidfd-socket",
    "preserve-fds",
];

/// Does what the command line says. Where runc takes over, this does not return.
pub fn main() -> ExitCode {
    let line = match CommandLine::parse(env::args_os().skip(1)) {
        Ok(line) => line,
        Err(error) => return Report::new(&CommandLine::default()).error(&error),
    };
    match run(&line) {
        Ok(code) => code,
        Err(error) => Report::new(&line).error(&error),
    }
}

fn run(line: &CommandLine) -> Result<ExitCode> {
    let alone = line.command.len() <= 1;
    match line.name() {
        "" if line.has(&["version", "v"]) => version(line),
        "" => print(help::HELP),
        "help" | "h" if alone => print(help::HELP),
        _ if line.has(&["help", "h"]) => print(help::HELP),
        "certs" => certs(line),
        "check" => check(line),
        "create" | "run" if !asks_for_help(line) => create(line),
        "delete" => {
            let runc = Runc::find(line)?;
            kills::tell(line);
            Err(runc.exec(line))
        }
        "exec" if !asks_for_help(line) => exec::exec(line),
        "ps" if !asks_for_help(line) => ps::ps(line),
        "start" if !asks_for_help(line) => start::start(line),
        "update" if !asks_for_help(line) => update::update(line),
        "register" => {
            let program = installed_program()?;
            register_with_docker(line, |file| register::register(file, &program))
        }
        "unregister" => register_with_docker(line, register::unregister),
        _ => Err(Runc::find(line)?.exec(line)),
    }
}

/// Changes Docker's configuration, or another file that is named, and says what is left to do.
fn register_with_docker(
    line: &CommandLine,
    change: impl FnOnce(&Path) -> Result<bool>,
) -> Result<ExitCode> {
    let file = match &line.command[..] {
        [_] => Path::new(DAEMON_JSON),
        [_, file] => Path::new(file),
        [name, ..] => bail!("{}: one file at most", name.display()),
        [] => bail!("no command"),
    };
    let file_name = file.display();
    let result = if change(file)? {
        "changed; tell Docker: systemctl reload docker"
    } else {
        "nothing to change"
    };
    print(&format!("{file_name}: {result}\n"))
}

/// `runq create --help` and nothing else: where there is more, `--help` might be a value.
fn asks_for_help(line: &CommandLine) -> bool {
    matches!(&line.command[..], [_, word] if word == "--help" || word == "-h")
}

fn print(text: &str) -> Result<ExitCode> {
    io::stdout().write_all(text.as_bytes()).context("stdout")?;
    Ok(ExitCode::SUCCESS)
}

fn root() -> PathBuf {
    env::var_os("RUNQ_ROOT").map_or(PathBuf::from(INSTALLED), PathBuf::from)
}

/// What Docker is to call. It knows no working directory.
fn installed_program() -> Result<PathBuf> {
    let program = root().join("runq");
    ensure!(
        program.is_file(),
        "{}: not found: install runq there, or name its folder by RUNQ_ROOT",
        program.display()
    );
    std::path::absolute(&program).with_context(|| program.display().to_string())
}

/// Shows whether this host is fit.
fn check(line: &CommandLine) -> Result<ExitCode> {
    if let Some(argument) = line.command.get(1) {
        bail!("check {}: it takes no arguments", argument.display());
    }
    let runc = Runc::find(line);
    let runc = runc.as_ref().map(Runc::path);
    let findings = check::findings(&root(), runc.map_err(|error| anyhow!("{error:#}")));
    print(&check::table(&findings))?;
    Ok(if check::is_fit(&findings) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Makes a new set of certificates.
fn certs(line: &CommandLine) -> Result<ExitCode> {
    if let Some(argument) = line.command.get(1) {
        bail!("certs {}: it takes no arguments", argument.display());
    }
    let root = root();
    Certificates::generate()
        .and_then(|set| set.install(&root))
        .context("certificates")?;
    print(&format!(
        "{}: new certificates, for containers that start from now on\n",
        root.display()
    ))
}

/// Our version in the form of runc's, which follows.
fn version(line: &CommandLine) -> Result<ExitCode> {
    print(&format!("runq version {}\n", env!("CARGO_PKG_VERSION")))?;
    io::stdout().flush().context("stdout")?;
    Err(Runc::find(line)?.exec(line))
}

/// Splits the container's configuration, and lets runc go on with its part.
fn create(line: &CommandLine) -> Result<ExitCode> {
    let runc = Runc::find(line)?;
    if line.ours.contains_key("nestedvm") {
        Report::new(line)
            .warning("--nestedvm is accepted for compatibility: nothing needs to be set");
    }
    let bundle = line
        .option(&["bundle", "b"], &CREATE_VALUES)
        .unwrap_or_else(|| PathBuf::from("."));
    let id = line.operand(&CREATE_VALUES).unwrap_or_default();
    let rewritten = create::rewrite(&bundle, &id.to_string_lossy(), &root(), &line.ours)?;
    for warning in &rewritten.warnings {
        Report::new(line).warning(warning);
    }
    let error = runc.exec(line);
    drop(rewritten);
    Err(error)
}
