//! The control socket that `netdatacli` talks to: one command per connection, answered by the main thread.
//!
//! The socket lies in the run directory, and at the fixed path of older releases while no other agent holds that.
//! A client gets [`CLIENT_TIME`] to speak and to listen, so a silent one delays a signal by no more.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::base::threads;

/// Where every agent up to 1.37 listens.
pub(super) const OLD_PATH: &str = "/tmp/netdata-ipc";
/// The socket's name in the run directory.
pub(super) const FILE_NAME: &str = "netdata.pipe";
/// The variable that names the socket to both sides.
pub(super) const VARIABLE: &str = "NETDATA_PIPENAME";

const CLIENT_TIME: Duration = Duration::from_millis(500);
/// Longest command.
const COMMAND_MAX: u64 = 4095;

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: u8,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn ok(text: impl Into<String>) -> Answer {
        Answer { code: 0, text: text.into() }
    }

    pub(super) fn failed(text: impl Into<String>) -> Answer {
        Answer { code: 1, text: text.into() }
    }

    /// `X<code>` NUL, then the text with the letter of the stream it belongs to.
    fn bytes(&self) -> Vec<u8> {
        let stream = if self.code == 0 { 'O' } else { 'E' };
        let text =
            if self.text.is_empty() { String::new() } else { format!("{stream}{}", self.text) };
        format!("X{}\0{text}", self.code).into_bytes()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    ReloadHealth,
    CheckHealth { files: Vec<PathBuf> },
    ReloadLabels,
    ReloadConfig { dry_run: bool },
    SaveDatabase,
    ReopenLogs,
    ShutdownAgent,
    FatalAgent,
    ReloadClaimingState,
    Ping,
    AclkState { json: bool },
    ReadConfig { section: String, name: String },
    WriteConfig { section: String, name: String, value: String },
    Verify { host: String, after: Option<i64>, before: Option<i64> },
}

/// How a command is answered.
pub(super) enum Reply {
    Now(Answer),
    /// By a thread of its own, as it takes its time.
    Later(Box<dyn FnOnce() -> Answer + Send>),
}

/// Commands that take their time, at once.
const LATER_MAX: usize = 4;
static LATER: AtomicUsize = AtomicUsize::new(0);

pub(super) const HELP: &str = "\
The commands are:
help
    Prints this list.
reload-health
    Reads the health configuration again.
check-health [FILE...]
    Tells which alarms the files (or the whole configuration) give, on which charts,
    and every mistake in them.
reload-config [--dry-run]
    Reads stream.conf and netdata.conf again: keys, allow lists, destinations, compression, retention, certificates.
    With --dry-run only tells what is different and what that would do.
reload-labels
    Reads the host labels again and prints them.
save-database
    Writes the databases of mode save to disk.
reopen-logs
    Closes and opens the log files.
shutdown-agent
    Ends the agent cleanly.
fatal-agent
    Ends the agent as if it had failed.
reload-claiming-state
    Does nothing: this agent cannot be claimed.
ping
    Answers pong.
aclk-state [json]
    Says that there is no connection to a cloud.
read-config CONF|SECTION|OPTION
    Prints the value of an option.
write-config CONF|SECTION|OPTION|VALUE
    Sets an option until the agent ends.
verify HOST [AFTER [BEFORE]]
    Compares the samples of a host with its parent and the node below. Times are unix seconds, or seconds before now.";

pub(super) const ILLEGAL: &str = "Illegal command. Please type \"help\" for instructions.";

impl Command {
    /// Names are matched by their beginning, in this order, as the original does.
    pub(super) fn parse(text: &str) -> Option<Command> {
        // Older clients put a blank behind every word.
        let text = text.trim_end_matches(['\0', '\n', '\r', ' ']);
        let after = |name| text.strip_prefix(name).map(str::trim_start);
        let plain = [
            ("help", Command::Help),
            ("reload-health", Command::ReloadHealth),
            ("save-database", Command::SaveDatabase),
            ("reopen-logs", Command::ReopenLogs),
            ("shutdown-agent", Command::ShutdownAgent),
            ("fatal-agent", Command::FatalAgent),
            ("reload-claiming-state", Command::ReloadClaimingState),
            ("reload-labels", Command::ReloadLabels),
            ("ping", Command::Ping),
        ];
        if let Some((_, command)) = plain.into_iter().find(|(name, _)| text.starts_with(name)) {
            return Some(command);
        }
        if let Some(arguments) = after("check-health") {
            let files = arguments.split_whitespace().map(PathBuf::from).collect();
            return Some(Command::CheckHealth { files });
        }
        if let Some(arguments) = after("reload-config") {
            // A word that is not understood must not do what it may have been meant to prevent.
            let dry_run = match arguments {
                "" => false,
                "--dry-run" => true,
                _ => return None,
            };
            return Some(Command::ReloadConfig { dry_run });
        }
        if let Some(arguments) = after("aclk-state") {
            return Some(Command::AclkState { json: arguments.starts_with("json") });
        }
        if let Some(arguments) = after("verify ") {
            let mut words = arguments.split_ascii_whitespace();
            let host = words.next()?.to_owned();
            let mut time = || words.next().map(str::parse::<i64>).transpose();
            let (after, before) = (time().ok()?, time().ok()?);
            return Some(Command::Verify { host, after, before });
        }
        if let Some(arguments) = after("read-config") {
            let mut parts = arguments.splitn(3, '|').map(str::to_owned);
            let (_conf, section, name) = (parts.next()?, parts.next()?, parts.next()?);
            return Some(Command::ReadConfig { section, name });
        }
        if let Some(arguments) = after("write-config") {
            let mut parts = arguments.splitn(4, '|').map(str::to_owned);
            let (_conf, section, name, value) =
                (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            return Some(Command::WriteConfig { section, name, value });
        }
        None
    }
}

/// The sockets we listen on.
pub(super) struct Control {
    sockets: Vec<Socket>,
}

struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file we made: another agent may have put its own there since.
    file: (u64, u64),
}

impl Control {
    /// Listens in `run_dir` (or where the environment says) and, if nobody else does, at the old path. An agent
    /// without a control socket still does its work.
    pub(super) fn open(run_dir: &Path) -> Control {
        let own = std::env::var_os(VARIABLE).map_or_else(|| run_dir.join(FILE_NAME), PathBuf::from);
        let mut sockets = Vec::new();
        for path in [own.as_path(), Path::new(OLD_PATH)] {
            match Socket::open(path) {
                Ok(socket) => sockets.push(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && path != own => {}
                Err(error) => {
                    log::info!("COMMAND: cannot listen on '{}': {error}", path.display());
                }
            }
        }
        Control { sockets }
    }

    /// Descriptors that are readable when a client waits.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| socket.listener.as_fd())
    }

    /// Answers every client that waits, with what `run` makes of its command.
    pub(super) fn serve(&self, mut run: impl FnMut(&Command) -> Reply) {
        for socket in &self.sockets {
            while let Ok((client, _)) = socket.listener.accept() {
                if let Err(error) = answer(client, &mut run) {
                    log::error!("COMMAND: a client went away: {error}");
                }
            }
        }
    }
}

impl Socket {
    fn open(path: &Path) -> io::Result<Socket> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        // A socket that nobody serves was left by an agent that was killed.
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o770))?;
        let file = identity(path)?;
        Ok(Socket { listener, path: path.to_owned(), file })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn answer(mut client: UnixStream, run: &mut impl FnMut(&Command) -> Reply) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(CLIENT_TIME))?;
    client.set_write_timeout(Some(CLIENT_TIME))?;
    let text = read_command(&mut client)?;
    let answer = match Command::parse(&text) {
        Some(command) => {
            log::info!("COMMAND: {}", text.trim_end_matches(['\0', ' ']));
            match run(&command) {
                Reply::Now(answer) => answer,
                Reply::Later(work) => return answer_later(client, work),
            }
        }
        None => Answer::failed(ILLEGAL),
    };
    client.write_all(&answer.bytes())
}

fn answer_later(
    mut client: UnixStream,
    work: Box<dyn FnOnce() -> Answer + Send>,
) -> io::Result<()> {
    if LATER.fetch_add(1, Ordering::AcqRel) >= LATER_MAX {
        LATER.fetch_sub(1, Ordering::AcqRel);
        return client.write_all(&Answer::failed("Too many commands at once.").bytes());
    }
    let thread = threads::spawn("COMMAND", move || {
        if let Err(error) = client.write_all(&work().bytes()) {
            log::error!("COMMAND: a client went away: {error}");
        }
        LATER.fetch_sub(1, Ordering::AcqRel);
    });
    if thread.is_err() {
        LATER.fetch_sub(1, Ordering::AcqRel);
    }
    thread.map(drop)
}

/// The command ends with the client's half of the connection, or with a NUL or line end.
fn read_command(client: &mut UnixStream) -> io::Result<String> {
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    let mut client = client.take(COMMAND_MAX);
    loop {
        let n = client.read(&mut buffer)?;
        text.extend_from_slice(&buffer[..n]);
        if n == 0 || matches!(text.last(), Some(0 | b'\n')) {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use super::*;

    #[test]
    fn commands_are_known_by_their_beginning() {
        assert_eq!(Command::parse("pingxyz"), Some(Command::Ping));
        assert_eq!(Command::parse("aclk-state json"), Some(Command::AclkState { json: true }));
        assert_eq!(Command::parse("reload-labels\0"), Some(Command::ReloadLabels));
        let reload = |dry_run| Some(Command::ReloadConfig { dry_run });
        assert_eq!(Command::parse("reload-config"), reload(false));
        assert_eq!(Command::parse("reload-config --dry-run\n"), reload(true));
        assert_eq!(Command::parse("reload-config --dry-rum"), None);
        assert_eq!(
            Command::parse("write-config netdata|s|n|a|b"),
            Some(Command::WriteConfig {
                section: "s".into(),
                name: "n".into(),
                value: "a|b".into()
            })
        );
        assert_eq!(
            Command::parse("read-config netdata|a b|c d "),
            Some(Command::ReadConfig { section: "a b".into(), name: "c d".into() })
        );
        assert_eq!(Command::parse("read-config netdata|s"), None);
        let verify = |after, before| Some(Command::Verify { host: "h".to_owned(), after, before });
        assert_eq!(Command::parse("verify h"), verify(None, None));
        assert_eq!(
            Command::parse("verify h -600 1800000000"),
            verify(Some(-600), Some(1_800_000_000))
        );
        assert_eq!(Command::parse("verify h yesterday"), None);
        assert_eq!(Command::parse("Ping"), None);
    }

    #[test]
    fn a_client_gets_code_and_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let control = Control { sockets: vec![Socket::open(&path).unwrap()] };
        assert!(Socket::open(&path).is_err(), "taken twice");
        // The look whether somebody listens is a client that says nothing.
        for (command, want) in [
            ("ping", "X0\0Opong".to_owned()),
            ("nonsense", format!("X1\0E{ILLEGAL}")),
            ("reopen-logs", "X0\0".to_owned()),
        ] {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(command.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            control.serve(|command| match command {
                Command::Ping => Reply::Now(Answer::ok("pong")),
                _ => Reply::Now(Answer::ok("")),
            });
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, want);
        }
        drop(control);
        assert!(!path.exists());
    }

    #[test]
    fn a_silent_client_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let control = Control { sockets: vec![Socket::open(&path).unwrap()] };
        let _silent = UnixStream::connect(&path).unwrap();
        let before = std::time::Instant::now();
        control.serve(|_| Reply::Now(Answer::ok("")));
        assert!(before.elapsed() < Duration::from_secs(5));
    }
}
