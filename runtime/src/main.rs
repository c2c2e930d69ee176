//! runq: an OCI runtime that runs each container in a virtual machine of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Its arguments are a guest's, and mean nothing.
    if let Some(code) = runtime::shadow::main() {
        return code;
    }
    runtime::cli::main()
}
