//! L7: command line, start and stop order, signals, identity files, netdatacli commands. Knows everybody.
//!
//! [`start`] reads as the list of what an agent consists of; [`run`] waits and ends it. The main thread does nothing but
//! wait for signals and for `netdatacli`, so both are answered one after another and no lock is needed here.

mod buildinfo;
mod args;
mod settings;
mod environment;
mod identity;
mod machine;
mod process;
mod signals;
mod control;
mod reload;
mod start;
mod run;
pub mod cli;

use std::io;
use std::process::ExitCode;

use crate::base::{log, sys};

/// Runs the agent until it is told to stop.
pub fn main() -> ExitCode {
    log::start();
    std::panic::set_hook(Box::new(|panic| ::log::error!("BUG: {panic}")));
    let arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let wish = args::read(arguments, &mut io::stdout(), &mut io::stderr());
    let line = match wish {
        args::Wish::Done(code) => return ExitCode::from(code),
        args::Wish::Run(line) => line,
    };
    if !line.keep_descriptors {
        sys::close_inherited();
    }
    ExitCode::from(match start::start(line) {
        Ok(agent) => agent.run(),
        Err(error) => {
            log::fatal(format_args!("{error:#}"));
            1
        }
    })
}
