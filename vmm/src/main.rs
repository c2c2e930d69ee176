//! runq-vmm: boots Linux in a virtual machine and runs a command from a directory in it.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
