//! A plugin's process: its start through the shell, its pipes, its end.
//!
//! The shell expands quotes and variables in the command options, then becomes the plugin. Standard error is ours, so
//! what plugins complain about lands in error.log unaltered. Environment and working directory are the daemon's.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::fate::Exit;
use crate::base::sys::{self, EventFd, Interest, Watched};
use crate::ingest::functions::{CallWriter, cancel_line, progress_line, request_line};

/// Between two looks whether a process has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub(super) struct Process {
    child: Child,
    stdout: ChildStdout,
    requests: Arc<Requests>,
}

/// Where calls of a plugin's functions go: its standard input.
pub(super) struct Requests {
    stdin: Mutex<Option<ChildStdin>>,
    /// Wakes the thread that reads the plugin.
    wake: Arc<EventFd>,
}

/// What waiting for a plugin came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Output,
    /// Time is up, or somebody woke us.
    Other,
}

impl Process {
    pub(super) fn start(
        file: &Path,
        every_s: i64,
        options: &str,
        wake: Arc<EventFd>,
    ) -> io::Result<Process> {
        let command = format!("exec {} {every_s} {options}", file.display());
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let gone = || io::Error::other("a pipe is missing");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdin = stdin.ok_or_else(gone)?;
        sys::set_nonblocking(stdin.as_fd())?;
        let requests = Arc::new(Requests { stdin: Mutex::new(Some(stdin)), wake });
        Ok(Process { child, stdout: stdout.ok_or_else(gone)?, requests })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.requests)
    }

    /// Waits until there is output to read, `timeout` has passed (`None`: for ever) or the wake was signalled.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<Event> {
        let wake = &self.requests.wake;
        let mut watched = [
            Watched::new(self.stdout.as_fd(), Interest::Read),
            Watched::new(wake.as_fd(), Interest::Read),
        ];
        sys::poll(&mut watched, timeout)?;
        if watched[1].is_readable() {
            wake.drain();
        }
        Ok(if watched[0].is_readable() { Event::Output } else { Event::Other })
    }

    /// Reads what there is; 0 = the plugin has closed its output.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stdout.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// Asks the process to end, by force after `patience`, and takes its exit.
    ///
    /// Its output stays open until then: a plugin that cleans up shall not die of a broken pipe.
    pub(super) fn end(mut self, patience: Duration) -> io::Result<Exit> {
        let pid = self.pid();
        // It may have ended already, which is as good.
        let _ = sys::terminate(pid);
        self.requests.close();
        let (status, by_us) = match wait_for(&mut self.child, patience)? {
            Some(status) => (status, false),
            None => {
                log::error!("child pid {pid} does not react to SIGTERM. Killing it.");
                self.child.kill()?;
                (self.child.wait()?, true)
            }
        };
        let exit = Exit::of(status, by_us);
        match (status.code(), status.signal()) {
            (Some(0), _) => {}
            (Some(code), _) => log::error!("child pid {pid} exited with code {code}."),
            (None, signal) => {
                let line = format!("child pid {pid} killed by signal {}.", signal.unwrap_or(0));
                let expected = exit == Exit::Success;
                log::log!(if expected { log::Level::Info } else { log::Level::Error }, "{line}");
            }
        }
        Ok(exit)
    }
}

fn wait_for(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        sys::poll(&mut [], Some(pause))?;
        pause = (pause * 2).min(LOOK_AGAIN);
    }
}

impl Requests {
    fn close(&self) {
        *self.stdin.lock() = None;
    }

    /// Whether the plugin hears it or not makes no difference to us.
    fn tell(&self, line: &[u8]) {
        if let Some(stdin) = &mut *self.stdin.lock() {
            let _ = stdin.write_all(line);
        }
    }
}

impl CallWriter for Arc<Requests> {
    /// The pipe never blocks, and takes a line of this length whole or not at all.
    fn send(&self, transaction: &str, timeout: Duration, command: &str) -> bool {
        let Some(line) = request_line(transaction, timeout, command) else { return false };
        match &mut *self.stdin.lock() {
            Some(stdin) => stdin.write_all(&line).is_ok(),
            None => false,
        }
    }

    fn cancel(&self, transaction: &str) {
        self.tell(&cancel_line(transaction));
    }

    fn ask_progress(&self, transaction: &str) {
        self.tell(&progress_line(transaction));
    }

    fn wake(&self) {
        self.wake.signal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, options: &str) -> Process {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("test.plugin");
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, mode).unwrap();
        let wake = Arc::new(EventFd::new().unwrap());
        let process = Process::start(&file, 3, options, wake).unwrap();
        // The shell has opened it once it said something.
        process.wait(Some(Duration::from_secs(10))).unwrap();
        process
    }

    fn output(process: &mut Process) -> String {
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        while !text.ends_with(b"\n") {
            let got = process.read(&mut chunk).unwrap();
            if got == 0 {
                break;
            }
            text.extend_from_slice(&chunk[..got]);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_shell_takes_the_options_apart() {
        let mut process = start("echo \"$1|$2|$3|$#\"; exit 5", "--foo \"a b\"");
        assert_eq!(output(&mut process), "3|--foo|a b|3\n");
        assert_eq!(output(&mut process), "", "it ends by itself");
        assert_eq!(process.end(Duration::from_secs(10)).unwrap(), Exit::Code(5));
    }

    #[test]
    fn requests_arrive_and_the_input_ends_with_the_process() {
        let mut process = start("echo ready; read line; echo \"got $line\"; cat >/dev/null", "");
        assert_eq!(output(&mut process), "ready\n");
        let requests = process.requests();
        assert!(requests.send("t", Duration::from_secs(1), "top"));
        assert_eq!(output(&mut process), "got FUNCTION t 1 \"top\"\n");
        assert_eq!(process.end(Duration::from_secs(10)).unwrap(), Exit::Success);
        assert!(!requests.send("t", Duration::from_secs(1), "top"));
    }

    #[test]
    fn a_full_pipe_does_not_block_the_caller() {
        let process = start("echo ready; exec sleep 60", "");
        let requests = process.requests();
        let long = "x".repeat(2000);
        assert!((0..100).any(|_| !requests.send("t", Duration::from_secs(1), &long)));
        assert_eq!(process.end(Duration::from_secs(10)).unwrap(), Exit::Success);
    }

    #[test]
    fn whoever_ignores_the_request_to_end_is_killed() {
        let process = start("trap '' TERM; echo ready; while :; do sleep 1; done", "");
        assert_eq!(process.end(Duration::from_millis(100)).unwrap(), Exit::Success);
    }

    #[test]
    fn a_wake_ends_the_wait() {
        let mut process = start("echo ready; exec sleep 60", "");
        output(&mut process);
        process.requests().wake();
        assert_eq!(process.wait(Some(Duration::from_secs(10))).unwrap(), Event::Other);
        process.end(Duration::from_secs(10)).unwrap();
    }
}
