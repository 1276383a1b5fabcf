//! L7: command line, start and stop order, signals, identity files, netdatacli commands. Knows everybody.

pub mod cli;

/// Runs the agent until it is told to stop.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
