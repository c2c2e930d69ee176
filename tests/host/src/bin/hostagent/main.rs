//! The agent in the test host.
//!
//! `hostagent serve PORT` runs commands for clients (see [`testhost::protocol`]).
//! `hostagent start LOG COMMAND...` starts a daemon and returns when it says that it is ready.

mod serve;
mod start;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostagent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    match args {
        [verb, port] if verb == "serve" => {
            serve::serve(port.parse().with_context(|| format!("port {port}"))?)
        }
        [verb, log, command @ ..] if verb == "start" => start::start(log.as_ref(), command),
        _ => bail!("usage: hostagent serve PORT | hostagent start LOG COMMAND [ARG...]"),
    }
}
