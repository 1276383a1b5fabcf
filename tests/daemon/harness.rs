//! Starts agents (ours, or Debian's real netdata) with directories and ports of their own, and speaks either side of the streaming
//! protocol by hand.
//!
//! The same configuration files serve both programs, since they are drop-in compatible. Nothing here sleeps for a fixed time: tests
//! wait for a condition with a deadline. `KEEP=1` keeps the directories, `NETDATA_BIN` puts another build in place of the debug one.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "two test binaries share this, and neither uses all of it"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netdata_rs::base::threads::StopToken;
use serde_json::Value;

use crate::certificates::Files;

pub const KEY: &str = "11111111-2222-3333-4444-555555555555";

/// What 1.37.1 offers, without compression and replication: live data at once, in the old form.
pub const OLD_LIVE: u32 = 15352 & !(1 << 12);
/// The same with the interpolated form, binary numbers and slots.
pub const NEW_LIVE: u32 = OLD_LIVE | (1 << 14) | (1 << 15) | (1 << 18);

// --- time and conditions ----------------------------------------------------------------------------------------------

pub fn pause(time: Duration) {
    StopToken::new().wait(time);
}

pub fn now() -> i64 {
    netdata_rs::base::time::Clock::system().now_seconds().0
}

/// What `look` finds, as soon as it finds something; fails the test after `seconds`.
#[track_caller]
pub fn wait_for<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {seconds} s");
        pause(Duration::from_millis(50));
    }
}

/// Says on the real standard error, which the test runner does not swallow, that a test did not run.
pub fn skipped(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "skipped: {test}: {reason}");
}

// --- programs ---------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Ours,
    Real,
}

impl Program {
    /// Where it is; None for a real netdata that this machine does not have.
    pub fn path(self) -> Option<PathBuf> {
        match self {
            Program::Ours => {
                Some(std::env::var_os("NETDATA_BIN").map_or_else(built, PathBuf::from))
            }
            Program::Real => {
                let places = ["/usr/sbin/netdata".into(), unpacked_peer().join("netdata")];
                let chosen = std::env::var_os("REAL_NETDATA").map(PathBuf::from);
                chosen.into_iter().chain(places).find(|path| path.exists())
            }
        }
    }
}

fn built() -> PathBuf {
    env!("CARGO_BIN_EXE_netdata").into()
}

/// Where tests/peer.sh unpacks the real netdata when it is not installed.
fn unpacked_peer() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peer")
}

/// What Debian ships beside the program: conf.d, plugins.d, python.d, charts.d.
pub fn debian_files() -> Option<PathBuf> {
    let places = ["/usr/lib/netdata".into(), unpacked_peer().join("usr/lib/netdata")];
    places.into_iter().find(|path| path.join("plugins.d/apps.plugin").exists())
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What an agent learns about its machine; a real 1.37.1 that streams without it aborts.
const SYSTEM_INFO: &str = "#!/bin/sh
cat <<EOF
NETDATA_CONTAINER_OS_NAME=none
NETDATA_CONTAINER_OS_ID=none
NETDATA_HOST_OS_NAME=Testix
NETDATA_HOST_OS_ID=testix
NETDATA_HOST_OS_ID_LIKE=unknown
NETDATA_HOST_OS_VERSION=1
NETDATA_HOST_OS_VERSION_ID=1
NETDATA_HOST_OS_DETECTION=test
NETDATA_HOST_IS_K8S_NODE=false
NETDATA_SYSTEM_KERNEL_NAME=Linux
NETDATA_SYSTEM_KERNEL_VERSION=6.0
NETDATA_SYSTEM_ARCHITECTURE=x86_64
NETDATA_SYSTEM_VIRTUALIZATION=none
NETDATA_SYSTEM_VIRT_DETECTION=provided
NETDATA_SYSTEM_CONTAINER=none
NETDATA_SYSTEM_CONTAINER_DETECTION=test
NETDATA_SYSTEM_CPU_LOGICAL_CPU_COUNT=2
NETDATA_SYSTEM_CPU_FREQ=1000000000
NETDATA_SYSTEM_TOTAL_RAM=1000000000
NETDATA_SYSTEM_TOTAL_DISK_SIZE=1000000000
EOF
";

const ALL_PLUGINS: &[&str] = &[
    "proc",
    "timex",
    "checks",
    "idlejitter",
    "tc",
    "diskspace",
    "cgroups",
    "statsd",
    "apps",
    "perf",
    "nfacct",
    "fping",
    "ioping",
    "python.d",
    "charts.d",
    "go.d",
    "slabinfo",
    "cups",
    "ebpf",
    "freeipmi",
    "enable running new plugins",
];

// --- agents -----------------------------------------------------------------------------------------------------------

pub struct Agent {
    pub name: String,
    pub port: u16,
    pub guid: String,
    program: Program,
    dir: Option<tempfile::TempDir>,
    stream: String,
    /// Section, option, value; a later one wins.
    options: Vec<(String, String, String)>,
    files: Vec<(String, String, u32)>,
    environment: Vec<(String, String)>,
    /// A command that becomes the agent, whose words follow its own.
    within: Vec<String>,
    process: Option<Child>,
}

/// The end of an agent as its parent process sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped {
    pub code: Option<i32>,
    pub after: Duration,
}

impl Agent {
    /// An agent of ours that collects nothing, keeps 3,600 samples in memory and streams nowhere.
    pub fn new(name: &str) -> Agent {
        let dir = tempfile::Builder::new().prefix(&format!("nd-{name}-")).tempdir().unwrap();
        Agent {
            name: name.to_owned(),
            port: free_port(),
            guid: uuid::Uuid::new_v4().to_string(),
            program: Program::Ours,
            dir: Some(dir),
            stream: String::new(),
            options: Vec::new(),
            files: Vec::new(),
            environment: Vec::new(),
            within: Vec::new(),
            process: None,
        }
    }

    pub fn program(mut self, program: Program) -> Agent {
        self.program = program;
        self
    }

    pub fn option(mut self, section: &str, name: &str, value: &str) -> Agent {
        self.options.push((section.to_owned(), name.to_owned(), value.to_owned()));
        self
    }

    /// Listens there, and not on a port of its own choice.
    pub fn port(mut self, port: u16) -> Agent {
        self.port = port;
        self
    }

    /// Has that machine GUID.
    pub fn guid(mut self, guid: &str) -> Agent {
        guid.clone_into(&mut self.guid);
        self
    }

    /// Starts with that environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Agent {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What `netdatacli` prints when it is given these words.
    #[track_caller]
    pub fn cli(&self, words: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_netdatacli"))
            .args(words)
            .env("NETDATA_PIPENAME", self.dir().join("run/netdata.pipe"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Puts another text into stream.conf, in one step; it is read when the agent is told so.
    pub fn write_stream(&self, text: &str) {
        self.write_etc("stream.conf", text);
    }

    /// The same with netdata.conf: options on top of those it was started with.
    pub fn write_options(&self, options: &[(&str, &str, &str)]) {
        let mut text = self.configuration();
        for (section, name, value) in options {
            text.push_str(&format!("[{section}]\n    {name} = {value}\n"));
        }
        self.write_etc("netdata.conf", &text);
    }

    fn write_etc(&self, name: &str, text: &str) {
        let fresh = self.dir().join("etc/fresh");
        fs::write(&fresh, text).unwrap();
        fs::rename(&fresh, self.dir().join("etc").join(name)).unwrap();
    }

    /// What its control socket answers, without a process for each question: the code and the text.
    #[track_caller]
    pub fn command(&self, command: &str) -> (u8, String) {
        let mut socket = UnixStream::connect(self.dir().join("run/netdata.pipe")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(command.as_bytes()).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (code, text) = answer.split_once('\0').unwrap_or((&answer, ""));
        (code[1..].parse().unwrap(), text.get(1..).unwrap_or("").to_owned())
    }

    /// Loses its database, as by a new disk.
    pub fn wipe_cache(&self) {
        fs::remove_dir_all(self.dir().join("cache")).unwrap();
    }

    pub fn mode(self, mode: &str) -> Agent {
        self.option("db", "mode", mode)
    }

    /// Collects this machine through /proc.
    pub fn collecting(self) -> Agent {
        self.option("plugins", "proc", "yes")
    }

    /// More text of stream.conf.
    pub fn stream(mut self, text: &str) -> Agent {
        self.stream.push_str(text);
        self
    }

    /// Changes the text of stream.conf so far.
    pub fn edit_stream(&mut self, edit: impl FnOnce(&str) -> String) {
        self.stream = edit(&self.stream);
    }

    /// Streams to agents or fake parents on these ports, in this order, compressed if they like.
    pub fn streams_to(self, ports: &[u16]) -> Agent {
        let destinations: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        self.streams_to_with(&destinations.join(" "), "")
    }

    /// The same with destinations as they stand in stream.conf, and more lines for `[stream]`.
    pub fn streams_to_with(self, destinations: &str, more: &str) -> Agent {
        self.stream(&format!(
            "[stream]\n    enabled = yes\n    destination = {destinations}\n    api key = {KEY}\n    \
             reconnect delay seconds = 1\n    timeout seconds = 10\n{more}\n"
        ))
    }

    /// Takes children that use [`KEY`].
    pub fn takes_children(self) -> Agent {
        self.takes_children_with("ram", "")
    }

    /// The same, with their database mode and more lines for the key's section.
    pub fn takes_children_with(self, mode: &str, more: &str) -> Agent {
        self.stream(&format!(
            "[{KEY}]\n    enabled = yes\n    default memory mode = {mode}\n    default history = 3600\n    \
             health enabled by default = no\n{more}\n"
        ))
    }

    /// Shows the certificate `good`, and serves in the clear as well. (1.37.1 reads `^SSL` only after what a port serves.)
    pub fn shows(self, files: &Files) -> Agent {
        let words = "dashboard|registry|badges|management|streaming|netdata.conf^SSL=optional";
        let bind = format!("127.0.0.1:{}={words}", self.port);
        self.option("web", "ssl key", &files.path("good.key").display().to_string())
            .option("web", "ssl certificate", &files.path("good.pem").display().to_string())
            .option("web", "bind to", &bind)
    }

    /// A file below the agent's directory, written at every start.
    pub fn file(mut self, path: &str, content: &str, mode: u32) -> Agent {
        self.files.push((path.to_owned(), content.to_owned(), mode));
        self
    }

    /// Started by a command that ends by becoming what its last words name, as `env` and `unshare` do.
    pub fn within(mut self, command: &[&str]) -> Agent {
        self.within = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// An external plugin; the agent then looks for plugins in its own folder only, every second.
    pub fn plugin(self, name: &str, text: &str) -> Agent {
        let folder = self.dir().join("plugins").display().to_string();
        self.option("directories", "plugins", &format!("\"{folder}\""))
            .option("plugins", "enable running new plugins", "yes")
            .option("plugins", "check for new plugins every", "1")
            .file("plugins/system-info.sh", SYSTEM_INFO, 0o755)
            .file(&format!("plugins/{name}.plugin"), text, 0o755)
    }

    /// One of Debian's plugins, run from where Debian keeps them.
    pub fn debian_plugin(self, name: &str, debian: &Path) -> Agent {
        let folder = debian.join("plugins.d").display().to_string();
        self.option("directories", "plugins", &format!("\"{folder}\""))
            .option("plugins", name, "yes")
    }

    pub fn dir(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    fn configuration(&self) -> String {
        let d = self.dir().display();
        let debian = debian_files().unwrap_or_else(|| self.dir().join("stock"));
        let mut sections: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
        let mut set = |section, name, value: String| {
            sections.entry(section).or_default().insert(name, value);
        };
        set("global", "hostname", self.name.clone());
        set("global", "run as user", user());
        set("db", "mode", "ram".to_owned());
        set("db", "retention", "3600".to_owned());
        set("db", "update every", "1".to_owned());
        for name in ["cache", "lib", "log", "web"] {
            set("directories", name, format!("{d}/{name}"));
        }
        set("directories", "config", format!("{d}/etc"));
        set("directories", "stock config", debian.join("conf.d").display().to_string());
        set("directories", "home", d.to_string());
        set("directories", "lock", format!("{d}/lib/lock"));
        set("directories", "health config", format!("{d}/etc/health.d"));
        set("directories", "stock health config", format!("{d}/etc/health.d"));
        for name in ["error", "access", "debug", "health"] {
            set("logs", name, format!("{d}/log/{name}.log"));
        }
        set("logs", "errors flood protection period", "0".to_owned());
        set("web", "bind to", format!("127.0.0.1:{}", self.port));
        set("web", "default port", self.port.to_string());
        set("web", "web server threads", "2".to_owned());
        for name in ALL_PLUGINS {
            set("plugins", name, "no".to_owned());
        }
        for section in ["ml", "health", "registry", "cloud"] {
            set(section, "enabled", "no".to_owned());
        }
        for (section, name, value) in &self.options {
            set(section, name, value.clone());
        }
        let mut text = String::new();
        for (section, options) in sections {
            text.push_str(&format!("[{section}]\n"));
            for (name, value) in options {
                text.push_str(&format!("    {name} = {value}\n"));
            }
        }
        text
    }

    fn write(&self) {
        let put = |path: &str, content: &str, mode: u32| {
            let path = self.dir().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for folder in ["etc/health.d", "cache", "lib/registry", "log", "run", "web", "stock/conf.d"]
        {
            fs::create_dir_all(self.dir().join(folder)).unwrap();
        }
        let identity = "lib/registry/netdata.public.unique.id";
        if !self.dir().join(identity).exists() {
            put(identity, &self.guid, 0o644);
        }
        put("etc/netdata.conf", &self.configuration(), 0o644);
        put("etc/stream.conf", &self.stream, 0o644);
        put("etc/.opt-out-from-anonymous-statistics", "", 0o644);
        for (path, content, mode) in &self.files {
            put(path, content, *mode);
        }
    }

    /// Starts the program and returns at once.
    #[track_caller]
    pub fn launch(&mut self) {
        self.write();
        let path = self.dir().join("log/output.log");
        let output = fs::File::options().create(true).append(true).open(path).unwrap();
        let program = self.program.path().expect("the program is not on this machine");
        let mut words = self.within.iter().map(OsStr::new).chain([program.as_os_str()]);
        let process = Command::new(words.next().expect("the program at least"))
            .args(words)
            .arg("-D")
            .arg("-c")
            .arg(self.dir().join("etc/netdata.conf"))
            .arg("-P")
            .arg(self.dir().join("run/netdata.pid"))
            .env("VIRTUALIZATION", "none")
            .env("DO_NOT_TRACK", "1")
            .env("DISABLE_TELEMETRY", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    /// Starts it and waits until its API answers.
    #[track_caller]
    pub fn start(mut self) -> Agent {
        self.begin();
        self
    }

    /// [`start`](Agent::start), also after a stop.
    #[track_caller]
    pub fn begin(&mut self) {
        self.launch();
        let end = Instant::now() + Duration::from_secs(30);
        while self.try_get("/api/v1/info").is_none_or(|reply| reply.status != 200) {
            assert!(self.is_running(), "{} ended at once\n{}", self.name, self.log_end());
            assert!(Instant::now() < end, "{} does not answer\n{}", self.name, self.log_end());
            pause(Duration::from_millis(50));
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("not started").id()
    }

    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|p| p.try_wait().unwrap().is_none())
    }

    /// Asks it to end as an operator does, and waits for it.
    #[track_caller]
    pub fn stop(&mut self) -> Stopped {
        self.signal("TERM");
        self.wait_end()
    }

    #[track_caller]
    pub fn wait_end(&mut self) -> Stopped {
        let asked = Instant::now();
        let process = self.process.as_mut().expect("not started");
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                self.process = None;
                return Stopped { code: status.code(), after: asked.elapsed() };
            }
            let patient = asked.elapsed() < Duration::from_secs(60);
            assert!(patient, "{} does not end", self.name);
            pause(Duration::from_millis(10));
        }
    }

    /// Ends it, and the plugins below it, without a chance to clean up.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let below = descendants(process.id());
            let _ = process.kill();
            let _ = process.wait();
            for pid in below {
                let kill = Command::new("kill")
                    .args(["-KILL", &pid.to_string()])
                    .stderr(Stdio::null())
                    .status();
                let _ = kill;
            }
        }
    }

    // --- looking ------------------------------------------------------------------------------------------------------

    pub fn try_get(&self, path: &str) -> Option<Reply> {
        get(self.port, path).ok()
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        match get(self.port, path) {
            Ok(reply) => reply,
            Err(error) => panic!("{}: GET {path}: {error}\n{}", self.name, self.log_end()),
        }
    }

    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let reply = self.get(path);
        assert_eq!(reply.status, 200, "{}: GET {path}: {}", self.name, reply.body);
        serde_json::from_str(&reply.body)
            .unwrap_or_else(|e| panic!("{}: GET {path}: {e}: {}", self.name, reply.body))
    }

    pub fn try_json(&self, path: &str) -> Option<Value> {
        let reply = self.try_get(path).filter(|reply| reply.status == 200)?;
        serde_json::from_str(&reply.body).ok()
    }

    /// All charts of one of its hosts, `""` for its own, by id.
    pub fn charts(&self, host: &str) -> BTreeMap<String, Value> {
        let json = self.try_json(&format!("{}/api/v1/charts", below(host)));
        match json.and_then(|mut json| json.get_mut("charts").map(Value::take)) {
            Some(Value::Object(charts)) => charts.into_iter().collect(),
            _ => BTreeMap::new(),
        }
    }

    /// The samples it holds of a chart in (after, before]: by time, then by dimension, as printed; holes are left out.
    /// (Of a slower chart 1.37.1 leaves the last one out.)
    pub fn samples(&self, host: &str, chart: &str, every: i64, after: i64, before: i64) -> Samples {
        // the first row of a slower chart holds the point before it, too: ask for a row more, and leave it out
        let early = if every == 1 { after } else { after - every };
        let points = (before - early) / every;
        let json = self.try_json(&format!(
            "{}/api/v1/data?chart={chart}&after={early}&before={before}&points={points}\
             &group=average&format=json&options=unaligned,seconds",
            below(host)
        ));
        let mut samples = Samples::new();
        let Some(json) = json else { return samples };
        let labels: Vec<_> =
            json["labels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for row in json["data"].as_array().into_iter().flatten().filter_map(Value::as_array) {
            let time = row.first().and_then(Value::as_i64);
            let Some(time) = time.filter(|t| after < *t && *t <= before) else { continue };
            for (dimension, value) in labels.iter().zip(row).skip(1).filter(|(_, v)| !v.is_null()) {
                samples.entry(time).or_default().insert((*dimension).to_owned(), value.to_string());
            }
        }
        samples
    }

    pub fn log(&self) -> String {
        let read = |name: &&str| fs::read(self.dir().join("log").join(name)).ok();
        let logs = ["error.log", "output.log"].iter().filter_map(read);
        logs.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }

    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    #[track_caller]
    pub fn wait_log(&self, text: &str, seconds: u64) {
        let logged = || self.log().contains(text).then_some(());
        wait_for(&format!("{} logs '{text}'", self.name), seconds, logged);
    }

    pub fn access_log(&self) -> String {
        fs::read_to_string(self.dir().join("log/access.log")).unwrap_or_default()
    }

    /// A line of /proc/PID/status, in KiB.
    pub fn status_kib(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|l| l.starts_with(name)).expect("no such line");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Names of its threads, sorted, as the kernel shows them.
    pub fn threads(&self) -> Vec<String> {
        let tasks =
            fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        let mut names: Vec<_> = names.map(|name| name.trim_end().to_owned()).collect();
        names.sort();
        names
    }

    /// Waits until it holds live samples of a chart of that host.
    #[track_caller]
    pub fn wait_live(&self, host: &str, chart: &str, seconds: u64) {
        wait_for(&format!("{} has live samples of '{host}' {chart}", self.name), seconds, || {
            let json = self.try_json(&format!("{}/api/v1/chart?chart={chart}", below(host)))?;
            (json["last_entry"].as_i64()? >= now() - 2).then_some(())
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of the log of {}:\n{}", self.name, self.log_end());
        }
        self.kill();
        if std::env::var_os("KEEP").is_some() {
            let dir = self.dir.take().map(tempfile::TempDir::keep);
            eprintln!("kept: {dir:?}");
        }
    }
}

pub type Samples = BTreeMap<i64, BTreeMap<String, String>>;

fn below(host: &str) -> String {
    if host.is_empty() { String::new() } else { format!("/host/{host}") }
}

fn user() -> String {
    let out = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut todo = vec![pid];
    while let Some(parent) = todo.pop() {
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for children in tasks.filter_map(|t| fs::read_to_string(t.path().join("children")).ok()) {
            for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
                found.push(child);
                todo.push(child);
            }
        }
    }
    found
}

// --- HTTP by hand -----------------------------------------------------------------------------------------------------

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

pub fn get(port: u16, path: &str) -> io::Result<Reply> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = talk(port, request.as_bytes(), Duration::from_secs(10))?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status =
        head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Reply { status, head: head.to_owned(), body: body.to_owned() })
}

/// Sends bytes and returns what comes back until the peer closes or is silent.
pub fn talk(port: u16, request: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let mut socket = dial(port, patience)?;
    socket.write_all(request)?;
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

pub fn dial(port: u16, patience: Duration) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = TcpStream::connect_timeout(&address, patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

// --- either side of a stream, by hand ---------------------------------------------------------------------------------

/// A connected stream that reads line by line with a deadline.
pub struct Link {
    reader: BufReader<TcpStream>,
    partial: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Text(String),
    Closed,
    Nothing,
}

impl Link {
    fn new(socket: TcpStream) -> Link {
        Link { reader: BufReader::new(socket), partial: Vec::new() }
    }

    pub fn socket(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub fn send(&mut self, text: &str) -> bool {
        self.reader.get_mut().write_all(text.as_bytes()).is_ok()
    }

    /// The next line, if it arrives within the time given.
    pub fn line(&mut self, patience: Duration) -> Line {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket().set_read_timeout(Some(left)).unwrap();
            match self.reader.read_until(b'\n', &mut self.partial) {
                Ok(_) if self.partial.ends_with(b"\n") => {
                    let mut bytes = std::mem::take(&mut self.partial);
                    bytes.pop();
                    return Line::Text(String::from_utf8_lossy(&bytes).into_owned());
                }
                Ok(_) => return Line::Closed,
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    if Instant::now() >= end {
                        return Line::Nothing;
                    }
                }
                Err(_) => return Line::Closed,
            }
        }
    }

    /// The next line that begins so.
    #[track_caller]
    pub fn expect(&mut self, start: &str, seconds: u64) -> String {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut last = String::new();
        loop {
            match self.line(end.saturating_duration_since(Instant::now())) {
                Line::Text(line) if line.starts_with(start) => return line,
                Line::Text(line) => last = line,
                other => panic!("no line '{start}…' within {seconds} s: {other:?} after '{last}'"),
            }
        }
    }

    /// Reads on until the peer closes; true when it does so in time.
    pub fn closed_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            match self.line(end.saturating_duration_since(Instant::now())) {
                Line::Text(_) => {}
                Line::Closed => return true,
                Line::Nothing => return false,
            }
        }
    }
}

/// A child that says what the test tells it to.
pub struct FakeChild {
    pub link: Link,
    pub guid: String,
    /// What both agreed on.
    pub caps: u32,
}

/// The head of a stream request.
pub fn stream_request(hostname: &str, guid: &str, caps: u32) -> String {
    format!(
        "STREAM key={KEY}&hostname={hostname}&registry_hostname={hostname}&machine_guid={guid}\
         &update_every=1&os=linux&timezone=UTC&abbrev_timezone=UTC&utc_offset=0&hops=1&tags=&ver={caps}\
         &NETDATA_SYSTEM_OS_NAME=Testix&NETDATA_SYSTEM_OS_ID=testix&NETDATA_SYSTEM_OS_VERSION=1\
         &NETDATA_SYSTEM_KERNEL_NAME=Linux&NETDATA_SYSTEM_KERNEL_VERSION=6.0\
         &NETDATA_SYSTEM_ARCHITECTURE=x86_64&NETDATA_PROTOCOL_VERSION=1.1 HTTP/1.1\r\n\
         User-Agent: netdata/v1.37.1\r\nAccept: */*\r\n\r\n"
    )
}

impl FakeChild {
    /// Connects and asks to stream; the parent's answer instead, when it refuses.
    pub fn connect(port: u16, hostname: &str, guid: &str, caps: u32) -> Result<FakeChild, String> {
        FakeChild::ask(port, &stream_request(hostname, guid, caps), guid)
    }

    /// The same with another key.
    pub fn connect_with(port: u16, hostname: &str, key: &str) -> Result<FakeChild, String> {
        let guid = uuid::Uuid::new_v4().to_string();
        let request = stream_request(hostname, &guid, OLD_LIVE).replace(KEY, key);
        FakeChild::ask(port, &request, &guid)
    }

    /// The same with a request of the test's own.
    pub fn ask(port: u16, request: &str, guid: &str) -> Result<FakeChild, String> {
        let socket = dial(port, Duration::from_secs(10)).map_err(|e| e.to_string())?;
        FakeChild::ask_over(socket, request, guid)
    }

    /// The same over a connection of the test's own.
    pub fn ask_over(mut socket: TcpStream, request: &str, guid: &str) -> Result<FakeChild, String> {
        socket.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
        // the answer has no end mark: a child takes what one look brings
        let mut buffer = [0; 8192];
        let got = loop {
            match socket.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                got => break got.map_err(|error| error.to_string())?,
            }
        };
        let answer = String::from_utf8_lossy(&buffer[..got]).into_owned();
        let agreed = answer.strip_prefix("Hit me baby, push them over with the version=");
        match agreed.and_then(|number| number.trim().parse().ok()) {
            Some(caps) => Ok(FakeChild { link: Link::new(socket), guid: guid.to_owned(), caps }),
            None => Err(answer),
        }
    }

    pub fn send(&mut self, text: &str) -> bool {
        self.link.send(text)
    }
}

/// A parent that listens, agrees to what both know, and leaves the rest to the test.
pub struct FakeParent {
    listener: TcpListener,
    pub port: u16,
    caps: u32,
}

impl FakeParent {
    pub fn listen(caps: u32) -> FakeParent {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        FakeParent { listener, port, caps }
    }

    /// The next stream, accepted, with the head of its request.
    #[track_caller]
    pub fn accept(&self, seconds: u64) -> (Link, String) {
        let (mut socket, head) = self.request(seconds);
        let ver = head.split("&ver=").nth(1).and_then(|rest| rest.split(['&', ' ']).next());
        let offered: u32 = ver.and_then(|v| v.parse().ok()).unwrap_or(0);
        let agreed = offered & self.caps & !((1 << 3) | (1 << 4) | (1 << 5));
        let answer = format!("Hit me baby, push them over with the version={agreed}");
        socket.write_all(answer.as_bytes()).unwrap();
        (Link::new(socket), head)
    }

    /// The next stream request, unanswered; anything else that is asked gets an HTTP error.
    #[track_caller]
    pub fn request(&self, seconds: u64) -> (TcpStream, String) {
        loop {
            let (mut socket, _) = wait_for("a connection to the fake parent", seconds, || {
                self.listener.accept().ok()
            });
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            if head.starts_with(b"STREAM ") {
                return (socket, String::from_utf8_lossy(&head).into_owned());
            }
            let refusal =
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = socket.write_all(refusal);
        }
    }
}

// --- comparing --------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// The same text, which for ring databases is the same bits: their samples have 24 bits and at most seven decimals.
    Exact,
    Presence,
}

#[derive(Default, Debug)]
pub struct Differences {
    pub charts: usize,
    pub compared: usize,
    pub wrong: Vec<String>,
}

/// Every sample of every chart that `child` holds in (after, before] and `parent` lacks or has with another value.
pub fn differences(
    child: &Agent,
    parent: &Agent,
    span: (i64, i64),
    compare: Compare,
) -> Differences {
    let mut found = Differences::default();
    for (id, chart) in child.charts("") {
        let every = chart["update_every"].as_i64().unwrap_or(1).max(1);
        let (after, before) =
            (span.0 - span.0.rem_euclid(every), span.1 - span.1.rem_euclid(every));
        if after >= before {
            continue;
        }
        let here = child.samples("", &id, every, after, before);
        // each 1.37.1 on the way interpolates anew, and moves slower charts by up to a slot
        let shift = if compare != Compare::Exact && every > 1 { every } else { 0 };
        let there = parent.samples(&child.name, &id, every, after - shift, before + shift);
        found.charts += 1;
        for (time, row) in &here {
            for (dimension, value) in row {
                found.compared += 1;
                let at = |time: i64| there.get(&time).and_then(|row| row.get(dimension));
                let mut other = at(*time);
                if shift > 0 {
                    other = other.or_else(|| at(time - shift)).or_else(|| at(time + shift));
                }
                if other.is_none_or(|other| compare == Compare::Exact && other != value) {
                    let other = other.map_or("nothing", String::as_str);
                    found
                        .wrong
                        .push(format!("{id}.{dimension} at {time}: {value} here, {other} there"));
                }
            }
        }
    }
    found
}

impl Differences {
    /// Fails unless so many samples were compared and all were as they should be.
    #[track_caller]
    pub fn none(&self, at_least: usize) {
        let Differences { charts, compared, wrong } = self;
        assert!(*compared >= at_least, "only {compared} samples of {charts} charts to compare");
        let shown: Vec<_> = wrong.iter().take(20).collect();
        let n = wrong.len();
        assert!(
            wrong.is_empty(),
            "{n} of {compared} samples of {charts} charts differ: {shown:#?}"
        );
    }
}

/// A plugin whose chart own.load has a gauge `a` that counts collections, a counter `b` that grows by ten each and
/// fractions, and whose chart own.share has both kinds of percentages.
pub const COUNTING: &str = r#"#!/bin/bash
echo "CHART own.load '' 'Own load' units own own.load line 1000 1"
echo "DIMENSION a '' absolute 1 1"
echo "DIMENSION b '' incremental 1 1"
echo "DIMENSION c '' absolute 1 1000"
echo "CHART own.share '' 'Own shares' percentage own own.share stacked 1001 1"
echo "DIMENSION x '' percentage-of-absolute-row 1 1"
echo "DIMENSION y '' percentage-of-incremental-row 1 1"
for i in {1..3600}; do
    printf 'BEGIN own.load\nSET a = %d\nSET b = %d\nSET c = %d\nEND\n' $i $((i * 10)) $((i * i + 1234567))
    printf 'BEGIN own.share\nSET x = %d\nSET y = %d\nEND\n' $((i % 7 + 1)) $((i * 3 + i % 5))
    sleep 1
done
"#;

/// As [`COUNTING`], but every second a chart is born that is collected from then on.
pub const BEARING: &str = r#"#!/bin/bash
echo "CHART own.load '' 'Own load' units own own.load line 1000 1"
echo "DIMENSION a '' absolute 1 1"
echo "DIMENSION b '' incremental 1 1"
for i in {1..3600}; do
    printf 'BEGIN own.load\nSET a = %d\nSET b = %d\nEND\n' $i $((i * 10))
    if [ $i -le 40 ]; then
        printf 'CHART born.c%d "" "Born later" units born born.c line 1002 1\nDIMENSION n "" absolute 1 1\n' $i
    fi
    for ((c = 1; c <= i && c <= 40; c++)); do
        printf 'BEGIN born.c%d\nSET n = %d\nEND\n' $c $((i * c))
    done
    sleep 1
done
"#;
