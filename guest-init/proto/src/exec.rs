//! The messages between the agent in the guest, which runs commands beside the container's, and who
//! wants one run: `docker exec` and `runq-exec`.
//!
//! A connection is one command's, and one message a frame:
//!
//! 1. agent: [`FromAgent::Hello`], once both have shown their certificates;
//! 2. client: [`ToAgent::Exec`], then at any time [`ToAgent::Stdin`], [`ToAgent::StdinEnd`],
//!    [`ToAgent::Signal`], [`ToAgent::Resize`];
//! 3. agent: [`FromAgent::Started`], then output and [`FromAgent::Taken`], at last
//!    [`FromAgent::Exited`]; or [`FromAgent::Failed`] instead of any.
//!
//! Or the client asks for [`ToAgent::List`], and gets [`FromAgent::Processes`]; or for [`ToAgent::Limit`], and gets
//! [`FromAgent::Limited`]; or [`FromAgent::Failed`] instead.
//!
//! So that signals pass a command that does not read, the client sends no more than
//! [`STDIN_WINDOW`] bytes of input that are not [`FromAgent::Taken`] yet. Output waits for the
//! connection to take it. A client that leaves before the end takes its command with it.

use serde::{Deserialize, Serialize};

use crate::{Capabilities, Message, Rlimit, User, WindowSize};

/// Version of these messages. Clients are found in containers of an older runq, too: what is new comes last.
pub const EXEC_VERSION: u32 = 1;

/// The agent's port of the vsock device. Below 1024: it takes privilege to listen there.
pub const AGENT_PORT: u32 = 1;

/// The monitor's socket for connections to the guest where the host's kernel has no vsock: an
/// abstract Unix socket of the container's network namespace, where nobody else is. The client
/// writes "CONNECT PORT\n", and reads "OK PORT\n", with a port of the host's, once the guest has
/// accepted.
pub const USER_SOCKET: &str = "runq.vsock";

/// Name of the agent in its certificate.
pub const AGENT_NAME: &str = "runq-agent";

/// Most bytes of input that the agent holds for a command.
pub const STDIN_WINDOW: usize = 256 << 10;

/// Most bytes of input or output in a message.
pub const MAX_DATA: usize = 64 << 10;

/// Bytes of input or output that make a message worth sending: whole pages of a pipe, and with what TLS adds one packet of a
/// vsock connection, which Linux makes no longer than 64 KiB (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
pub const FULL_DATA: usize = 60 << 10;

/// The addresses (CIDs) that the guest of a container may have, in the order in which they are
/// tried: eight digits of its ID each, and, for other IDs than Docker's, which have 64 hexadecimal
/// digits, hashes of it. Those that mean something else are left out (virtio 1.3, 5.10.4).
pub fn addresses(container: &str) -> impl Iterator<Item = u32> {
    let digits = container.as_bytes().chunks_exact(8);
    let numbers = digits.filter_map(|digits| {
        let digits = str::from_utf8(digits).ok()?;
        let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hexadecimal
            .then(|| u32::from_str_radix(digits, 16).ok())
            .flatten()
    });
    let hashes = (0..8).map(|salt| hash(container.bytes().chain([salt])));
    numbers
        .chain(hashes)
        .filter(|number| (3..u32::MAX).contains(number))
}

/// FNV-1a of 32 bits (RFC 9923).
fn hash(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// What the agent needs to know of itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// The container's ID, by which clients know that they are right.
    pub container: String,
    /// Certificate of the authority that has signed those of clients, PEM.
    pub authority: String,
    /// The agent's own certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A debug log is no place for keys.
        f.debug_struct("Agent")
            .field("container", &self.container)
            .finish_non_exhaustive()
    }
}

/// A command to run beside the container's, in its namespaces and control group. What is unset is as
/// with the container's own command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The command and its arguments.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Option<Vec<String>>,
    /// Variables beside these, or instead of those with the same names. One without `=` is a name
    /// alone: that variable is removed, as `docker exec -e NAME` has it.
    pub more_env: Vec<String>,
    /// Absolute path of the working directory.
    pub cwd: Option<String>,
    /// Whose rights the command has.
    pub user: Option<ExecUser>,
    /// Its capabilities.
    pub capabilities: Option<Capabilities>,
    /// Whether executing a program can give no more rights.
    pub no_new_privileges: Option<bool>,
    /// Resource limits to set.
    pub rlimits: Option<Vec<Rlimit>>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Without the container's system call filter.
    pub unfiltered: bool,
    /// On a terminal of this size instead of three pipes.
    pub terminal: Option<WindowSize>,
}

/// A user, as docker's option `--user` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecUser {
    /// By numbers.
    Known(User),
    /// By names or numbers, `USER[:GROUP]`, to be found in the container's /etc/passwd and /etc/group.
    Named(String),
}

/// A message from a client to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// Run this. Once, first.
    Exec(Box<Exec>),
    /// Tell which processes the container has. Once, first.
    List,
    /// Bytes for standard input, at most [`MAX_DATA`].
    Stdin(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Standard input ends. Ignored with a terminal.
    StdinEnd,
    /// Send the command a signal, 1 to 64.
    Signal(i32),
    /// The terminal's window has another size. Ignored without a terminal.
    Resize(WindowSize),
    /// Set limits of the container, as [`crate::Start::cgroup`] has them. Once, first.
    Limit(Vec<(String, String)>),
}

/// A message from the agent to a client.
///
/// The first variant begins with the version: decoding relies on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAgent {
    /// Who is there.
    Hello {
        /// The agent's [`EXEC_VERSION`].
        version: u32,
        /// The container's ID.
        container: String,
    },
    /// The command runs.
    Started {
        /// Its process number in the container.
        pid: u32,
    },
    /// The command could not be started. The last message.
    Failed {
        /// As [`crate::ToHost::Failed`] has it.
        code: u8,
        /// One line that names the object and the reason.
        message: String,
    },
    /// Bytes of standard output, or of the terminal; at most [`MAX_DATA`].
    Stdout(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Bytes of standard error, at most [`MAX_DATA`].
    Stderr(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The command, or the agent in its place, has taken so many bytes of input.
    Taken(u32),
    /// The command has ended, and this was all of its output. The last message.
    Exited {
        /// Its exit status, or 128 + N if signal N ended it.
        code: u8,
    },
    /// The answer to [`ToAgent::List`]. The last message.
    Processes(Vec<ProcessInfo>),
    /// All limits are set. The last message.
    Limited,
}

/// A process of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its number in the container.
    pub pid: u32,
    /// Its parent's number in the container; 0 if that is outside.
    pub parent: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its arguments; none for a process that has ended and was not waited for.
    pub args: Vec<String>,
}

impl Message for ToAgent {
    const VERSION: Option<u32> = None;
}

impl Message for FromAgent {
    const VERSION: Option<u32> = Some(EXEC_VERSION);
}

impl FromAgent {
    /// The opening message, with this crate's version.
    pub fn hello(container: impl Into<String>) -> Self {
        Self::Hello {
            version: EXEC_VERSION,
            container: container.into(),
        }
    }
}

#[cfg(test)]
#[path = "exec_test.rs"]
mod tests;
