//! The agent under torture: a process with the shim loaded, its directories, its API.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub const KEY: &str = "11111111-2222-3333-4444-555555555555";
/// `[db] dbengine sync every` of the agent under torture, in seconds.
pub const SYNC_EVERY: f64 = 1.0;

/// The bits of `shim.c`.
pub mod faults {
    pub const FULL: i64 = 1;
    pub const IO_ERROR: i64 = 2;
    pub const SHORT: i64 = 4;
    pub const TORN: i64 = 8;
    pub const NO_RENAME: i64 = 16;
    pub const NO_SYNC: i64 = 32;
}

/// What the shim is told.
pub struct Control(File);

impl Control {
    pub fn new(path: &Path) -> io::Result<Control> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(4096)?;
        Ok(Control(file))
    }

    fn word(&self, number: u64, value: i64) -> io::Result<()> {
        self.0.write_all_at(&value.to_ne_bytes(), number * 8)
    }

    pub fn clock_offset(&self, nanos: i64) -> io::Result<()> {
        self.word(0, nanos)
    }

    pub fn faults(&self, bits: i64, one_in: i64) -> io::Result<()> {
        self.word(2, one_in)?;
        self.word(1, bits)
    }

    /// Calls disturbed so far.
    pub fn disturbed(&self) -> i64 {
        let mut bytes = [0; 8];
        let _ = self.0.read_exact_at(&mut bytes, 24);
        i64::from_ne_bytes(bytes)
    }
}

pub struct Places {
    pub root: PathBuf,
    pub program: PathBuf,
}

impl Places {
    pub fn below(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn prepare(&self) -> io::Result<()> {
        for folder in [
            "etc/health.d",
            "cache",
            "lib/registry",
            "log",
            "run",
            "web",
            "stock",
            "shadow/c",
            "shadow/d",
        ] {
            fs::create_dir_all(self.below(folder))?;
        }
        fs::write(self.below("boot"), "first boot\n")?;
        fs::write(
            self.below("etc/stream.conf"),
            format!(
                "[{KEY}]\n enabled = yes\n default memory mode = dbengine\n health enabled by default = no\n \
                 enable compression = no\n enable replication = no\n"
            ),
        )?;
        fs::write(self.below("etc/.opt-out-from-anonymous-statistics"), "")
    }

    fn configuration(&self, port: u16) -> String {
        let d = self.root.display();
        let user = Command::new("id").arg("-un").output();
        let user = user.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        let mut text = format!(
            "[global]\n hostname = torture\n run as user = {}\n[db]\n mode = dbengine\n dbengine sync every = {SYNC_EVERY}\n \
             dbengine tier 0 retention size = 0\n dbengine tier 1 retention size = 0\n dbengine tier 2 retention size = 0\n \
             dbengine tier 0 retention time = 0\n dbengine tier 1 retention time = 0\n dbengine tier 2 retention time = 0\n\
             [directories]\n config = {d}/etc\n stock config = {d}/stock\n home = {d}\n health config = {d}/etc/health.d\n \
             stock health config = {d}/etc/health.d\n cache = {d}/cache\n lib = {d}/lib\n log = {d}/log\n web = {d}/web\n lock = {d}/run\n\
             [logs]\n error = {d}/log/error.log\n access = none\n debug = none\n health = none\n errors flood protection period = 0\n\
             [web]\n bind to = 127.0.0.1:{port}\n default port = {port}\n",
            user.unwrap_or_default()
        );
        text += "[plugins]\n";
        for plugin in [
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
            "netdata monitoring",
            "netdata monitoring extended",
        ] {
            text += &format!(" {plugin} = no\n");
        }
        for section in ["ml", "health", "registry", "cloud"] {
            text += &format!("[{section}]\n enabled = no\n");
        }
        text
    }

    /// Starts the agent and comes back at once.
    pub fn launch(&self) -> io::Result<Agent> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        fs::write(self.below("etc/netdata.conf"), self.configuration(port))?;
        // The log of the run before is kept for whoever looks into a violation.
        let log = self.below("log/error.log");
        let _ = fs::rename(&log, log.with_extension("before"));
        let output = File::create(self.below("log/output.log"))?;
        let process = Command::new(&self.program)
            .args(["-D", "-c"])
            .arg(self.below("etc/netdata.conf"))
            .arg("-P")
            .arg(self.below("run/netdata.pid"))
            .env("VIRTUALIZATION", "none")
            .env("DO_NOT_TRACK", "1")
            .env("DISABLE_TELEMETRY", "1")
            .env("LD_PRELOAD", self.below("shim.so"))
            .env("TORTURE_ROOT", self.below("cache"))
            .env("TORTURE_SHADOW", self.below("shadow"))
            .env("TORTURE_CONTROL", self.below("control"))
            .env("TORTURE_BOOT", self.below("boot"))
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Agent { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), process })
    }

    /// Starts the agent and waits until it listens.
    pub fn start(&self) -> io::Result<Agent> {
        let mut agent = self.launch()?;
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(agent.address).is_err() {
            if let Some(status) = agent.process.try_wait()? {
                return Err(io::Error::other(format!("the agent does not start: {status}")));
            }
            if Instant::now() > end {
                return Err(io::Error::other("the agent does not listen within 20 s"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(agent)
    }

    pub fn log(&self) -> String {
        ["log/error.log", "log/output.log"]
            .iter()
            .filter_map(|name| fs::read(self.below(name)).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }
}

pub struct Agent {
    pub address: SocketAddr,
    process: Child,
}

impl Agent {
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// SIGTERM, and its exit code.
    pub fn stop(mut self) -> io::Result<Option<i32>> {
        Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status.code());
            }
            if Instant::now() > end {
                return Err(io::Error::other("the agent does not stop within 30 s"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(Duration::from_secs(120)))?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: torture\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Ok((status, body.to_owned()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
