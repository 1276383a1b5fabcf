//! Signals as values: caught from the first moment, handled by the main thread one after another.
//!
//! A second signal to end changes nothing: an end takes five seconds at most, and whoever presses Ctrl-C in a terminal
//! often sends two (the terminal's own, and that of the script around the agent).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// End cleanly; the name is for the log.
    End(&'static str),
    /// Reopen the logs and read the configuration again.
    Reload,
    SaveDatabases,
    ReloadHealth,
}

/// From its making on no signal is lost: one that comes during the start waits here.
pub(super) struct Signals(SignalDelivery<UnixStream, SignalOnly>);

impl Signals {
    pub(super) fn catch() -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        let all = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2];
        SignalDelivery::with_pipe(read, write, SignalOnly, all).map(Signals)
    }

    /// What came since the last call, each kind once.
    pub(super) fn pending(&mut self) -> Vec<Signal> {
        self.0.pending().filter_map(named).collect()
    }
}

fn named(number: i32) -> Option<Signal> {
    Some(match number {
        SIGTERM => Signal::End("SIGTERM"),
        SIGINT => Signal::End("SIGINT"),
        SIGQUIT => Signal::End("SIGQUIT"),
        SIGHUP => Signal::Reload,
        SIGUSR1 => Signal::SaveDatabases,
        SIGUSR2 => Signal::ReloadHealth,
        _ => return None,
    })
}

impl AsFd for Signals {
    /// Readable when a signal is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }
}
