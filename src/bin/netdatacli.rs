//! The command line client of a running agent; see [`netdata_rs::daemon::cli`].

fn main() -> std::process::ExitCode {
    netdata_rs::daemon::cli::main()
}
