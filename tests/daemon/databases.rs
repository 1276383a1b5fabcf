//! Exporting to the databases themselves, as Debian packages them: each is ended under load and comes back; afterwards it holds
//! every window, once. `tests/sinks.sh` gets what is missing; without it these tests say so and pass.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::exporting::{Series, add, agent, check, instance, wait_windows};
use crate::harness::*;

/// Where `tests/sinks.sh` unpacks what is not installed.
fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sinks")
}

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let places = [PathBuf::from("/usr/bin").join(name), unpacked().join("usr/bin").join(name)];
    let found = places.into_iter().find(|path| path.exists());
    if found.is_none() {
        skipped("databases", &format!("{name} is not on this machine; tests/sinks.sh gets it"));
    }
    found
}

/// How long a database is away: a test of minutes with `OUTAGE=180`.
fn outage() -> Duration {
    let seconds = std::env::var("OUTAGE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(12))
}

/// A database in a directory of its own.
pub(crate) struct Database {
    program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    process: Option<Child>,
}

impl Database {
    pub(crate) fn new(program: PathBuf) -> Database {
        let dir = tempfile::Builder::new().prefix("nd-database-").tempdir().unwrap();
        Database { program, arguments: Vec::new(), dir, port: free_port(), process: None }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Starts it and waits until that port answers.
    pub(crate) fn start(&mut self, port: u16) {
        let log = self.dir.path().join("log.txt");
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let process = Command::new(&self.program)
            .args(&self.arguments)
            .current_dir(self.dir.path())
            .env("PYTHONPATH", unpacked().join("usr/lib/python3/dist-packages"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.process = Some(process.unwrap());
        wait_for("the database listens", 60, || dial(port, Duration::from_secs(1)).ok());
    }

    fn end(&mut self, signal: &str) {
        let mut process = self.process.take().expect("it runs");
        let pid = process.id().to_string();
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success()
        );
        process.wait().unwrap();
    }

    fn json(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&get_plain(self.port, path)?).ok()
    }
}

/// By HTTP/1.0, which nobody answers in chunks.
pub(crate) fn get_plain(port: u16, path: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let answer = talk(port, request.as_bytes(), Duration::from_secs(5)).ok()?;
    let text = String::from_utf8(answer).ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log.txt")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the database: {}", lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        if self.process.is_some() {
            self.end("KILL");
        }
    }
}

fn text_of(series: &Series) -> Vec<&String> {
    series.keys().collect()
}

/// Ends the database, brings it back and compares. `look` gives a dimension's values as the database has them.
fn through_an_outage(
    database: &mut Database,
    port: u16,
    agent: &Agent,
    signal: &str,
    look: impl Fn(&Database) -> Vec<(String, BTreeMap<i64, f64>)>,
) {
    let all = |database: &Database| -> Series { look(database).into_iter().collect() };
    let names: Vec<String> = wait_for("the database has it", 60, || {
        let series = all(database);
        let filled = !series.is_empty() && series.values().all(|points| points.len() >= 4);
        filled.then(|| text_of(&series).into_iter().cloned().collect())
    });
    database.end(signal);
    pause(outage());
    database.start(port);
    let during = usize::try_from(outage().as_secs()).unwrap() / 2;
    for name in &names {
        wait_windows(|| all(database), name, 4);
    }
    let series = wait_for("all of it", 60, || {
        let series = all(database);
        let filled = names.iter().all(|name| series[name].len() >= during + 8);
        filled.then_some(series)
    });
    for name in &names {
        check(agent, "", &series[name], "a", 2, during + 8);
    }
}

// --- VictoriaMetrics ------------------------------------------------------------------------------------------------

#[test]
fn victoria_metrics_in_four_languages() {
    let Some(program) = program("victoria-metrics") else { return };
    let mut database = Database::new(program);
    let (graphite, telnet, http) = (free_port(), free_port(), free_port());
    database.arguments = vec![
        format!("-storageDataPath={}", database.path("data")),
        format!("-httpListenAddr=127.0.0.1:{}", database.port),
        format!("-graphiteListenAddr=127.0.0.1:{graphite}"),
        format!("-opentsdbListenAddr=127.0.0.1:{telnet}"),
        format!("-opentsdbHTTPListenAddr=127.0.0.1:{http}"),
        "-memory.allowedBytes=64MB".to_owned(),
    ];
    database.start(database.port);
    let named = |kind: &str, port: u16, name: &str, more: &str| {
        instance(kind, port, &format!("prefix = {name}\n{more}"))
            .replace(":i]", &format!(":{name}]"))
    };
    let conf = [
        named("graphite", graphite, "carbon", ""),
        named("opentsdb", telnet, "telnet", ""),
        named("opentsdb:http", http, "http", ""),
        named(
            "prometheus_remote_write",
            database.port,
            "remote",
            "remote write URL path = /api/v1/write",
        ),
    ];
    let agent = agent(&conf.concat()).start();
    let look = |database: &Database| {
        let text =
            get_plain(database.port, "/api/v1/export?match[]=%7B__name__%3D~%22.%2Bload.%2B%22%7D");
        let mut series = Series::new();
        for line in text.unwrap_or_default().lines() {
            let Ok(json) = serde_json::from_str::<Value>(line) else { continue };
            let metric = &json["metric"];
            let name = metric["__name__"].as_str().unwrap();
            let remote = name == "remote_own_load_units_average" && metric["dimension"] == "a";
            let wanted = name.ends_with("own.load.a") || remote;
            let both = json["timestamps"]
                .as_array()
                .unwrap()
                .iter()
                .zip(json["values"].as_array().unwrap());
            for (at, value) in both.filter(|_| wanted) {
                add(&mut series, name, at.as_i64().unwrap() / 1000, value.as_f64().unwrap());
            }
        }
        if series.len() == 4 { series.into_iter().collect() } else { Vec::new() }
    };
    let port = database.port;
    // It answers before the disk has what it took: a kill would take that from whoever speaks HTTP.
    through_an_outage(&mut database, port, &agent, "TERM", look);
    agent.wait_log("instance 'remote' sends remote write 1.0", 1);
}

#[test]
fn lines_survive_a_kill_of_victoria_metrics() {
    let Some(program) = program("victoria-metrics") else { return };
    let mut database = Database::new(program);
    let graphite = free_port();
    database.arguments = vec![
        format!("-storageDataPath={}", database.path("data")),
        format!("-httpListenAddr=127.0.0.1:{}", database.port),
        format!("-graphiteListenAddr=127.0.0.1:{graphite}"),
        "-memory.allowedBytes=64MB".to_owned(),
    ];
    database.start(graphite);
    let agent = agent(&instance("graphite", graphite, "")).start();
    let look = |database: &Database| {
        let text = get_plain(database.port, "/api/v1/export?match[]=netdata.exporter.own.load.a");
        let mut series = Series::new();
        for line in text.unwrap_or_default().lines() {
            let Ok(json) = serde_json::from_str::<Value>(line) else { continue };
            let both = json["timestamps"]
                .as_array()
                .unwrap()
                .iter()
                .zip(json["values"].as_array().unwrap());
            for (at, value) in both {
                add(&mut series, "a", at.as_i64().unwrap() / 1000, value.as_f64().unwrap());
            }
        }
        series.into_iter().collect()
    };
    through_an_outage(&mut database, graphite, &agent, "KILL", look);
}

// --- Prometheus -----------------------------------------------------------------------------------------------------

/// A Prometheus that takes remote write, not started yet.
pub(crate) fn prometheus() -> Option<Database> {
    let mut database = Database::new(program("prometheus")?);
    fs::write(database.dir.path().join("empty.yml"), "global: {}\n").unwrap();
    database.arguments = vec![
        format!("--config.file={}", database.path("empty.yml")),
        format!("--storage.tsdb.path={}", database.path("data")),
        format!("--web.listen-address=127.0.0.1:{}", database.port),
        "--web.enable-remote-write-receiver".to_owned(),
    ];
    Some(database)
}

#[test]
fn prometheus_by_remote_write() {
    let Some(mut database) = prometheus() else { return };
    database.start(database.port);
    let conf =
        instance("prometheus_remote_write", database.port, "remote write URL path = /api/v1/write");
    let agent = agent(&conf).start();
    let look = |database: &Database| {
        let query = "netdata_own_load_units_average%7Bdimension%3D%22a%22%7D%5B1h%5D";
        let json = database.json(&format!("/api/v1/query?query={query}")).unwrap_or_default();
        let mut series = Series::new();
        for point in json["data"]["result"][0]["values"].as_array().into_iter().flatten() {
            let at = point[0].as_f64().unwrap() as i64;
            add(&mut series, "a", at, point[1].as_str().unwrap().parse().unwrap());
        }
        series.into_iter().collect()
    };
    let port = database.port;
    through_an_outage(&mut database, port, &agent, "KILL", look);
    // It reads a request of 2.0 as one of 1.0 without series.
    let log = agent.log();
    assert!(log.contains("instance 'i' sends remote write 1.0") && !log.contains("write 2.0"));
    assert!(!log.contains("loses"), "{}", agent.log_end());
}

/// It asks for OpenMetrics, whose parser takes nothing that is out of order or cut off.
#[test]
fn prometheus_scrapes_openmetrics() {
    let Some(program) = program("prometheus") else { return };
    let agent = Agent::new("exporter").plugin("own", COUNTING).start();
    agent.wait_live("", "own.load", 20);
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let request = format!(
        "GET /api/v1/allmetrics?format=prometheus&source=raw HTTP/1.1\r\nHost: h\r\n{accept}\r\nConnection: close\r\n\r\n"
    );
    let answer = talk(agent.port, request.as_bytes(), Duration::from_secs(5)).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.contains("Content-Type: application/openmetrics-text; version=1.0.0"),
        "{answer}"
    );
    assert!(answer.contains("# TYPE netdata_own_load gauge\n"), "{answer}");
    let mut database = Database::new(program);
    let job = |name: &str, source: &str| {
        format!(
            "- {{job_name: {name}, scrape_interval: 1s, metrics_path: /api/v1/allmetrics, params: {{format: [prometheus_all_hosts], \
             source: [{source}]}}, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}\n",
            agent.port
        )
    };
    let conf = format!("scrape_configs:\n{}{}", job("raw", "raw"), job("average", "average"));
    fs::write(database.dir.path().join("scrape.yml"), conf).unwrap();
    database.arguments = vec![
        format!("--config.file={}", database.path("scrape.yml")),
        format!("--storage.tsdb.path={}", database.path("data")),
        format!("--web.listen-address=127.0.0.1:{}", database.port),
    ];
    database.start(database.port);
    wait_for("both are scraped and hold own.load", 30, || {
        let value = |query: &str| {
            let json = database.json(&format!("/api/v1/query?query={query}"))?;
            json["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()
        };
        let up = value("sum(up)")?;
        let raw = value("netdata_own_load%7Bdimension%3D%22a%22,job%3D%22raw%22%7D")?;
        let average = value("netdata_own_load_units_average%7Bdimension%3D%22a%22%7D")?;
        (up == 2.0 && raw > average && average > 0.0).then_some(())
    });
}

/// It scrapes itself and hands on what it has.
#[test]
fn prometheus_writes_to_us() {
    let Some(program) = program("prometheus") else { return };
    let parent = Agent::new("parent").takes_children().start();
    let mut database = Database::new(program);
    let conf = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- {{job_name: self, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}\n\
         remote_write:\n- {{url: 'http://127.0.0.1:{}/api/v1/write', authorization: {{credentials: '{KEY}'}}}}\n",
        database.port, parent.port
    );
    fs::write(database.dir.path().join("write.yml"), conf).unwrap();
    database.arguments = vec![
        format!("--config.file={}", database.path("write.yml")),
        format!("--storage.tsdb.path={}", database.path("data")),
        format!("--web.listen-address=127.0.0.1:{}", database.port),
    ];
    database.start(database.port);
    let host = format!("127.0.0.1:{}", database.port);
    let find = |start: &str| {
        let charts = parent.charts(&host);
        charts.keys().find(|id| id.starts_with(start)).cloned()
    };
    let up = wait_for("`up` is a chart", 60, || find("prometheus.up"));
    wait_for("it is up, second for second", 30, || {
        let samples = parent.samples(&host, &up, 1, now() - 25, now() - 15);
        (samples.len() >= 10 && samples.values().all(|row| row["value"] == "1")).then_some(())
    });
    let counter = find("prometheus.prometheus_tsdb_head_samples_appended_total").unwrap();
    let described = &parent.charts(&host)[&counter];
    assert_eq!(described["units"], "events/s");
    let samples = parent.samples(&host, &counter, 1, now() - 20, now() - 10);
    let rates: Vec<f64> = samples.values().map(|row| row["value"].parse().unwrap()).collect();
    assert!(rates.iter().any(|rate| *rate > 100.0 && *rate < 10_000.0), "{rates:?}");
}

// --- InfluxDB -------------------------------------------------------------------------------------------------------

#[test]
fn influxdb_by_its_graphite_listener() {
    let Some(program) = program("influxd") else { return };
    let mut database = Database::new(program);
    let (graphite, rpc) = (free_port(), free_port());
    let conf = format!(
        "reporting-disabled = true\nbind-address = \"127.0.0.1:{rpc}\"\n[meta]\ndir = \"{0}/meta\"\n\
         [data]\ndir = \"{0}/data\"\nwal-dir = \"{0}/wal\"\n[http]\nbind-address = \"127.0.0.1:{1}\"\n\
         [[graphite]]\nenabled = true\nbind-address = \"127.0.0.1:{graphite}\"\ndatabase = \"graphite\"\nbatch-timeout = \"200ms\"\n",
        database.dir.path().display(),
        database.port,
    );
    fs::write(database.dir.path().join("influx.conf"), conf).unwrap();
    database.arguments = vec!["-config".to_owned(), database.path("influx.conf")];
    database.start(graphite);
    let conf = instance("graphite", graphite, "send configured labels = no");
    let agent = agent(&conf).start();
    let look = |database: &Database| {
        let query = "SELECT%20value%20FROM%20%22netdata.exporter.own.load.a%22";
        let json =
            database.json(&format!("/query?db=graphite&epoch=s&q={query}")).unwrap_or_default();
        let mut series = Series::new();
        for point in json["results"][0]["series"][0]["values"].as_array().into_iter().flatten() {
            add(&mut series, "a", point[0].as_i64().unwrap(), point[1].as_f64().unwrap());
        }
        series.into_iter().collect()
    };
    through_an_outage(&mut database, graphite, &agent, "KILL", look);
}

// --- Carbon ---------------------------------------------------------------------------------------------------------

#[test]
fn whisper_files_of_carbon() {
    let (Some(carbon), Some(fetch)) = (program("carbon-cache"), program("whisper-fetch")) else {
        return;
    };
    let mut database = Database::new("/usr/bin/python3".into());
    let (line, query, pickle) = (free_port(), free_port(), free_port());
    let dir = database.dir.path().to_owned();
    for folder in ["whisper", "log", "run"] {
        fs::create_dir(dir.join(folder)).unwrap();
    }
    let conf = format!(
        "[cache]\nLOCAL_DATA_DIR = {0}/whisper/\nLOG_DIR = {0}/log/\nPID_DIR = {0}/run/\nCONF_DIR = {0}/\nUSER =\n\
         LINE_RECEIVER_INTERFACE = 127.0.0.1\nLINE_RECEIVER_PORT = {line}\nPICKLE_RECEIVER_INTERFACE = 127.0.0.1\n\
         PICKLE_RECEIVER_PORT = {pickle}\nCACHE_QUERY_INTERFACE = 127.0.0.1\nCACHE_QUERY_PORT = {query}\n\
         MAX_CREATES_PER_MINUTE = inf\nMAX_UPDATES_PER_SECOND = 1000\nENABLE_TAGS = False\nCARBON_METRIC_INTERVAL = 0\n",
        dir.display()
    );
    fs::write(dir.join("carbon.conf"), conf).unwrap();
    fs::write(dir.join("storage-schemas.conf"), "[all]\npattern = .*\nretentions = 2s:1d\n")
        .unwrap();
    database.arguments = [
        &carbon.display().to_string(),
        "--nodaemon",
        &format!("--config={}/carbon.conf", dir.display()),
        &format!("--pidfile={}/run/carbon.pid", dir.display()),
        "start",
    ]
    .map(str::to_owned)
    .into();
    database.start(line);
    let agent = agent(&instance("graphite", line, "send configured labels = no")).start();
    let look = |database: &Database| {
        let file = database.path("whisper/netdata/exporter/own/load/a.wsp");
        let output = Command::new("/usr/bin/python3")
            .arg(&fetch)
            .args(["--from", &(now() - 1800).to_string(), &file])
            .env("PYTHONPATH", unpacked().join("usr/lib/python3/dist-packages"))
            .output()
            .unwrap();
        let mut series = Series::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let mut words = line.split_whitespace();
            let at = words.next().and_then(|word| word.parse().ok());
            let value = words.next().and_then(|word| word.parse::<f64>().ok());
            if let (Some(at), Some(value)) = (at, value) {
                add(&mut series, "a", at, value);
            }
        }
        series.into_iter().collect()
    };
    fs::remove_file(dir.join("run/carbon.pid")).ok();
    through_an_outage(&mut database, line, &agent, "KILL", look);
}
