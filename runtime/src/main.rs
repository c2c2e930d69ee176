//! runq: an OCI runtime that runs each container in a virtual machine of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::cli::main()
}
