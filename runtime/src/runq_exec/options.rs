//! The command line.

use std::env;
use std::path::PathBuf;

use clap::{ArgAction, Parser};
use proto::WindowSize;
use proto::exec::{Exec, ExecUser};

/// Where runq is installed, unless RUNQ_ROOT says otherwise.
const INSTALLED: &str = "/var/lib/runq";

const EXAMPLES: &str = "\
Examples:
  A shell in the container web:
    runq-exec -ti web sh
  What it listens on, as another user:
    runq-exec -u nobody web ss -ltn
  A file into it:
    runq-exec -i web tee /tmp/data <data >/dev/null
  With certificates from elsewhere:
    runq-exec -c joe.pem -k joe.key web id

DOCKER_HOST names Docker's socket, if that is not unix:///var/run/docker.sock; RUNQ_ROOT names the
folder where runq is installed, if that is not /var/lib/runq.

Exit code: that of the command (128+N if signal N ended it, 126 and 127 if it could not be run, 137
if the container ended); 1: the command could not be tried.";

/// Runs a command in a container's virtual machine, beside the container's own.
///
/// It has the container's user, environment, working directory, capabilities and system call filter,
/// unless an option says otherwise.
#[derive(Debug, Parser)]
#[command(name = "runq-exec", version, after_help = EXAMPLES, disable_version_flag = true)]
pub(crate) struct Cli {
    /// Certificate, PEM [default: cert.pem where runq is installed]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// Its key, PEM [default: key.pem where runq is installed]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// Certificate of the authority that has signed the container's, PEM [default: the last one of
    /// the certificate's file]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// A variable for the command's environment; without a value, that of this one
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,

    /// Pass on standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,

    /// Run the command on a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Name or number of the user, and perhaps of the group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// Working directory, an absolute path
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// The container's name, its ID, or the beginning of that
    pub(crate) container: String,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Cli {
    /// What the agent is told.
    pub(crate) fn exec(self, terminal: Option<WindowSize>) -> Exec {
        let value = |name: &str| Some(format!("{name}={}", env::var(name).ok()?));
        let term = terminal.and_then(|_| value("TERM"));
        let given = self.env.into_iter().filter_map(|entry| {
            if entry.contains('=') {
                Some(entry)
            } else {
                value(&entry)
            }
        });
        Exec {
            args: self.command,
            more_env: term.into_iter().chain(given).collect(),
            cwd: self.workdir,
            user: self.user.map(ExecUser::Named),
            terminal,
            ..Exec::default()
        }
    }
}

/// Where runq is installed.
pub(crate) fn root() -> PathBuf {
    env::var_os("RUNQ_ROOT").map_or(PathBuf::from(INSTALLED), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn options_end_at_the_containers_name() {
        let cli =
            parse("runq-exec -ti -e A=b -e NO_SUCH_VARIABLE -u joe:staff -w /tmp web ls -l -e");
        let cli = cli.unwrap();
        assert!(cli.tty && cli.interactive && cli.container == "web");
        let exec = cli.exec(None);
        assert_eq!(exec.args, ["ls", "-l", "-e"]);
        assert_eq!(exec.more_env, ["A=b"]);
        assert_eq!(exec.user, Some(ExecUser::Named("joe:staff".into())));
        assert_eq!(exec.cwd.as_deref(), Some("/tmp"));
        assert!(exec.env.is_none() && exec.capabilities.is_none() && !exec.unfiltered);
    }

    #[test]
    fn what_is_missing_is_told() {
        for line in ["runq-exec", "runq-exec web", "runq-exec --new web ls"] {
            assert!(parse(line).unwrap_err().use_stderr(), "{line}");
        }
        for line in ["runq-exec -h", "runq-exec -v"] {
            assert!(!parse(line).unwrap_err().use_stderr(), "{line}");
        }
    }
}
