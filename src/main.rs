//! The agent. Everything happens in the library; see [`netdata_rs::daemon`].

fn main() -> std::process::ExitCode {
    netdata_rs::daemon::main()
}
