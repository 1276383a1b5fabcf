//! What is measured inside one process, with the library: the codecs, and stores made to measure others with.
//!
//! `storage codec [RECORDED]` prints the table of `docs/formats/dbengine-codec.md`; `storage build METRICS GUID DIRECTORY`
//! makes a store of so many metrics in all tiers, as an agent would have left it.

use std::path::Path;
use std::process::ExitCode;

mod build;
mod codec;
mod gorilla;
#[path = "../series.rs"]
mod series;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["build", metrics, guid, directory] => match (metrics.parse(), guid.parse()) {
            (Ok(metrics), Ok(guid)) => build::build(metrics, guid, Path::new(directory)),
            _ => Err("METRICS is a number, GUID a host's identity".into()),
        },
        ["codec"] => codec::run(None),
        ["codec", recorded] => codec::run(Some(Path::new(recorded))),
        _ => Err("usage: storage codec [RECORDED] | storage build METRICS GUID DIRECTORY".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storage: {error}");
            ExitCode::FAILURE
        }
    }
}
