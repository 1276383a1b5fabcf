//! An agent under measurement: a process with configuration of its own, and what /proc says of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub const KEY: &str = "11111111-2222-3333-4444-555555555555";

const PLUGINS: &[&str] = &[
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

pub struct Agent {
    pub port: u16,
    dir: PathBuf,
    process: Child,
    /// Started in this instant.
    pub born: Instant,
}

/// What one agent differs in from another.
#[derive(Default)]
pub struct Setup {
    pub options: Vec<(&'static str, &'static str, String)>,
    pub stream: String,
    /// Alarms.
    pub health: String,
    /// exporting.conf; none where it is empty.
    pub exporting: String,
    /// A cache directory that is there already.
    pub cache: Option<PathBuf>,
}

impl Setup {
    /// A parent with a dbengine of three tiers that deletes nothing.
    pub fn dbengine(self) -> Setup {
        let sizes = [
            "dbengine multihost disk space MB",
            "dbengine tier 1 multihost disk space MB",
            "dbengine tier 2 multihost disk space MB",
        ];
        let setup = self
            .option("db", "mode", "dbengine")
            .option("db", "storage tiers", "3")
            .option("db", "seconds to replicate", "31536000")
            .takes_children("dbengine");
        sizes.into_iter().fold(setup, |setup, size| setup.option("db", size, "16384"))
    }

    pub fn option(mut self, section: &'static str, name: &'static str, value: &str) -> Setup {
        self.options.push((section, name, value.to_owned()));
        self
    }

    pub fn streams_to(mut self, port: u16) -> Setup {
        self.stream += &format!(
            "[stream]\n enabled = yes\n destination = 127.0.0.1:{port}\n api key = {KEY}\n reconnect delay seconds = 1\n \
             timeout seconds = 60\n enable compression = no\n"
        );
        self
    }

    pub fn takes_children(self, mode: &str) -> Setup {
        self.takes_children_with(mode, "enable compression = no")
    }

    /// The same with another word on compression.
    pub fn takes_children_with(mut self, mode: &str, compression: &str) -> Setup {
        self.stream += &format!(
            "[{KEY}]\n enabled = yes\n default memory mode = {mode}\n default history = 600\n \
             health enabled by default = no\n {compression}\n"
        );
        self
    }
}

impl Agent {
    /// Starts it; with a web server, waits until that answers.
    pub fn start(program: &Path, name: &str, setup: &Setup) -> io::Result<Agent> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let dir = std::env::temp_dir().join(format!("nd-bench-{}-{port}", std::process::id()));
        for folder in
            ["etc/health.d", "cache", "lib/registry", "log", "run", "web", "stock", "lock"]
        {
            fs::create_dir_all(dir.join(folder))?;
        }
        fs::write(dir.join("etc/netdata.conf"), configuration(name, port, &dir, setup))?;
        fs::write(dir.join("etc/stream.conf"), &setup.stream)?;
        fs::write(dir.join("etc/health.d/bench.conf"), &setup.health)?;
        if !setup.exporting.is_empty() {
            fs::write(dir.join("etc/exporting.conf"), &setup.exporting)?;
        }
        fs::write(dir.join("etc/.opt-out-from-anonymous-statistics"), "")?;
        if let Some(cache) = &setup.cache {
            fs::remove_dir(dir.join("cache"))?;
            std::os::unix::fs::symlink(cache, dir.join("cache"))?;
        }
        let output = fs::File::create(dir.join("log/output.log"))?;
        let born = Instant::now();
        let process = Command::new(program)
            .args(["-D", "-c"])
            .arg(dir.join("etc/netdata.conf"))
            .arg("-P")
            .arg(dir.join("run/netdata.pid"))
            .env("VIRTUALIZATION", "none")
            .env("DO_NOT_TRACK", "1")
            .env("DISABLE_TELEMETRY", "1")
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut agent = Agent { port, dir, process, born };
        let headless = setup.options.iter().any(|(section, name, value)| {
            (*section, *name, value.as_str()) == ("web", "mode", "none")
        });
        let end = Instant::now() + Duration::from_secs(30);
        while !headless && TcpStream::connect(agent.address()).is_err() {
            if agent.process.try_wait()?.is_some() || Instant::now() > end {
                return Err(io::Error::other(format!(
                    "{name} does not start:\n{}",
                    agent.log_end()
                )));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(agent)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Processor seconds so far, user and system.
    pub fn cpu(&self) -> f64 {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Processor seconds of the threads alive, to the nanosecond: for loads too small for the ticks of [`cpu`](Agent::cpu).
    pub fn cpu_of_threads(&self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id()))
            .into_iter()
            .flatten()
            .flatten();
        let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
        stats.filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
    }

    /// The same of the one thread that has this name.
    pub fn cpu_of_thread(&self, name: &str) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id()))
            .into_iter()
            .flatten()
            .flatten();
        let named = tasks.filter(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        });
        let stats = named.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
        stats.filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
    }

    /// The same of all threads whose names begin so.
    pub fn cpu_of_threads_named(&self, start: &str) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id()))
            .into_iter()
            .flatten()
            .flatten();
        let named = tasks.filter(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.starts_with(start))
        });
        let stats = named.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
        stats.filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
    }

    /// Resident and private memory in bytes. Private is what only this process has and no file holds; pages of the program
    /// itself, which the next process of it would share, do not count.
    pub fn memory(&self) -> (u64, u64) {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id()))
            .unwrap_or_default();
        let sum = |names: &[&str]| -> u64 {
            let lines = rollup.lines().filter(|l| names.iter().any(|n| l.starts_with(n)));
            lines.filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>()
                * 1024
        };
        (sum(&["Rss:"]), sum(&["Private_Dirty:", "Private_Hugetlb:"]))
    }

    /// The cache directory.
    pub fn cache(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// Stops it the clean way and waits for its end; gives the processor seconds of its whole life. Its directory stays
    /// until it is dropped.
    pub fn stop(&mut self) -> io::Result<f64> {
        let before = cpu_of_children();
        Command::new("kill").arg("-TERM").arg(self.process.id().to_string()).status()?;
        let end = Instant::now() + Duration::from_secs(120);
        while self.process.try_wait()?.is_none() {
            if Instant::now() > end {
                return Err(io::Error::other("it does not stop"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(cpu_of_children() - before)
    }

    pub fn log_end(&self) -> String {
        let mut log = String::new();
        for name in ["error.log", "output.log"] {
            log += &fs::read_to_string(self.dir.join("log").join(name)).unwrap_or_default();
        }
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Processor seconds of all children of this process that have ended.
fn cpu_of_children() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(13) + ticks(14)) / 100.0
}

fn configuration(name: &str, port: u16, dir: &Path, setup: &Setup) -> String {
    let d = dir.display();
    let mut sections: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    let mut set = |section, name, value: String| {
        sections.entry(section).or_default().insert(name, value);
    };
    let user = Command::new("id")
        .arg("-un")
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    set("global", "hostname", name.to_owned());
    // As the bench runs, not nicer than what else works on the machine: both agents alike.
    set("global", "process scheduling policy", "keep".to_owned());
    set("global", "run as user", user.unwrap_or_default());
    set("db", "mode", "ram".to_owned());
    set("db", "retention", "600".to_owned());
    for folder in ["cache", "lib", "log", "web", "lock"] {
        set("directories", folder, format!("{d}/{folder}"));
    }
    set("directories", "config", format!("{d}/etc"));
    let stock = if Path::new("/usr/lib/netdata/conf.d").exists() {
        "/usr/lib/netdata/conf.d"
    } else {
        "stock"
    };
    set("directories", "stock config", stock.to_owned());
    set("directories", "home", d.to_string());
    set("directories", "health config", format!("{d}/etc/health.d"));
    set("directories", "stock health config", format!("{d}/etc/health.d"));
    for log in ["error", "access", "debug", "health"] {
        set("logs", log, format!("{d}/log/{log}.log"));
    }
    set("web", "bind to", format!("127.0.0.1:{port}"));
    set("web", "default port", port.to_string());
    for plugin in PLUGINS {
        set("plugins", plugin, "no".to_owned());
    }
    // its own charts about itself are no part of the work
    set("plugins", "netdata monitoring", "no".to_owned());
    set("plugins", "netdata monitoring extended", "no".to_owned());
    for section in ["ml", "health", "registry", "cloud"] {
        set(section, "enabled", "no".to_owned());
    }
    for (section, name, value) in &setup.options {
        set(section, name, value.clone());
    }
    let mut text = String::new();
    for (section, options) in sections {
        text += &format!("[{section}]\n");
        for (name, value) in options {
            text += &format!("    {name} = {value}\n");
        }
    }
    text
}
