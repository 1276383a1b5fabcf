//! Alarms beside those of the real 1.37.1: Debian's stock files are right to us, and give the same alarms with the same values
//! for the same samples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use netdata_rs::health::grammar;
use serde_json::Value;

use crate::harness::*;

#[test]
fn debians_stock_files_hold_no_mistake() {
    let Some(debian) = debian_files() else {
        return skipped("health", "Debian's files are not here (tests/peer.sh gets them)");
    };
    let book = grammar::load(&debian.join("conf.d/health.d"), None);
    let mistakes: Vec<String> = book.mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(mistakes, Vec::<String>::new());
    assert!(book.definitions.len() > 250, "{}", book.definitions.len());
}

/// Dimensions and what they hold.
type Values = &'static [(&'static str, i64)];

/// Charts that stock alarms are on, with values that stay as they are, so that both agents see the same whenever they look.
const CHARTS: &[(&str, &str, &str, &str, Values)] = &[
    (
        "system.cpu",
        "percentage",
        "cpu",
        "system.cpu",
        &[
            ("user", 40),
            ("system", 30),
            ("softirq", 1),
            ("irq", 1),
            ("guest", 0),
            ("iowait", 12),
            ("steal", 0),
            ("nice", 5),
        ],
    ),
    ("system.load", "load", "load", "system.load", &[("load1", 90), ("load5", 9), ("load15", 2)]),
    (
        "system.ram",
        "MiB",
        "ram",
        "system.ram",
        &[("free", 100), ("used", 8000), ("cached", 500), ("buffers", 50)],
    ),
    ("mem.available", "MiB", "system", "mem.available", &[("avail", 600)]),
    ("system.swap", "MiB", "swap", "system.swap", &[("free", 10), ("used", 990)]),
    (
        "disk_space._data",
        "GiB",
        "/data",
        "disk.space",
        &[("avail", 1), ("used", 99), ("reserved_for_root", 0)],
    ),
    (
        "disk_space._run",
        "GiB",
        "/run",
        "disk.space",
        &[("avail", 1), ("used", 99), ("reserved_for_root", 0)],
    ),
    (
        "disk_inodes._data",
        "inodes",
        "/data",
        "disk.inodes",
        &[("avail", 50), ("used", 50), ("reserved_for_root", 0)],
    ),
    ("net.eth0", "kilobits/s", "eth0", "net.net", &[("received", 95_000), ("sent", 10)]),
    ("net_packets.eth0", "packets/s", "eth0", "net.packets", &[("received", 2000), ("sent", 100)]),
    ("net_drops.eth0", "drops/s", "eth0", "net.drops", &[("inbound", 3), ("outbound", 0)]),
    ("ipv4.tcpsock", "active connections", "tcp", "ipv4.tcpsock", &[("connections", 500)]),
    (
        "ip.tcp_accept_queue",
        "packets/s",
        "tcp",
        "ip.tcp_accept_queue",
        &[("ListenOverflows", 3), ("ListenDrops", 0)],
    ),
    (
        "ipv4.tcphandshake",
        "events/s",
        "tcp",
        "ipv4.tcphandshake",
        &[("OutRsts", 3), ("AttemptFails", 1)],
    ),
    (
        "system.softnet_stat",
        "events/s",
        "softnet_stat",
        "system.softnet_stat",
        &[("dropped", 2), ("squeezed", 1)],
    ),
    (
        "system.active_processes",
        "processes",
        "processes",
        "system.active_processes",
        &[("active", 100)],
    ),
    ("system.entropy", "entropy", "entropy", "system.entropy", &[("entropy", 256)]),
    ("md.disks", "disks", "md0", "md.disks", &[("inuse", 2), ("down", 1)]),
];

/// Alarms of our own whose every part differs.
const ALARMS: &str = "alarm: precise\non: system.cpu\nlookup: average -10s at -2s unaligned percentage of user,sys*\nevery: 2s\n\
calc: $this * 2 - $steal\nunits: x\nwarn: $this > (($status >= $WARNING) ? (10) : (20))\ninfo: of $family and ${label:nothing}\n\
delay: up 1s down 2s multiplier 1.5 max 9s\nto: silent\n\
template: each\non: disk.space\nlookup: max -5s foreach avail,used\nevery: 3s\ncrit: $this > 98\nto: silent\ngreen: 5\n\
template: spread\non: system.load\nlookup: min -5s unaligned min2max\nevery: 1s\nwarn: $this > $load5 && ($load1 == 90 || $nothere)\nto: silent\n\
alarm: counted\non: system.ram\nlookup: sum -20s unaligned absolute match-ids of used,free\nevery: 5s\ncrit: abs(-$this) / 20 > 8000 and !($used < 5)\nto: silent\n";

/// A chart, as [`CHARTS`] has them.
type Chart = (String, String, String, String, Vec<(String, i64)>);

fn charts() -> Vec<Chart> {
    let of = |(id, units, family, context, dims): &(&str, &str, &str, &str, Values)| {
        let dims = dims.iter().map(|(dim, value)| ((*dim).to_owned(), *value)).collect();
        ((*id).into(), (*units).into(), (*family).into(), (*context).into(), dims)
    };
    CHARTS.iter().map(of).collect()
}

/// A chart for everything that Debian's alarms are on and [`CHARTS`] has not, with the dimensions that they name.
fn charts_of_all(stock: &Path) -> Vec<Chart> {
    let mut charts = charts();
    let book = grammar::load(stock, None);
    let is_name = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    let mut dims: BTreeMap<(grammar::Kind, String), BTreeSet<String>> = BTreeMap::new();
    for definition in &book.definitions {
        let dims = dims.entry((definition.kind, definition.on.to_string())).or_default();
        // A dimension that is called like an alarm would make it a question of time which of them is meant.
        let lookup = definition.lookup.as_ref().map_or("", |lookup| &lookup.dimensions);
        dims.extend(lookup.split([',', '|', ' ']).filter(|dim| is_name(dim)).map(str::to_owned));
        let expressions = [&definition.calc, &definition.warn, &definition.crit];
        let names = expressions.into_iter().flatten().flat_map(|e| e.variables().to_vec());
        const OURS: &[&str] = &["this", "status", "now", "after", "before", "green", "red"];
        dims.extend(
            names
                .map(|name| name.to_string())
                .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
                .filter(|name| {
                    !OURS.contains(&name.as_str())
                        && book.definitions.iter().all(|other| *other.name != **name)
                        && !name.ends_with("last_collected_t")
                        && name != "update_every"
                }),
        );
        dims.insert("any".to_owned());
    }
    for (number, ((kind, on), dims)) in dims.into_iter().enumerate() {
        let is_there = |chart: &Chart| {
            if kind == grammar::Kind::Alarm { chart.0 == on } else { chart.3 == on }
        };
        if charts.iter().any(is_there) || !on.contains('.') {
            continue;
        }
        let id = match kind {
            grammar::Kind::Alarm => on.clone(),
            grammar::Kind::Template => format!("all.c{number}"),
        };
        let value = |at: usize| i64::try_from((number * 7 + at * 13) % 120 + 1).unwrap();
        let dims = dims.into_iter().enumerate().map(|(at, dim)| (dim, value(at))).collect();
        charts.push((id, "things".into(), format!("f{number}"), on, dims));
    }
    charts
}

fn plugin(charts: &[Chart]) -> String {
    let mut text = "#!/bin/sh\n".to_owned();
    let mut values = String::new();
    for (id, units, family, context, dims) in charts {
        text.push_str(&format!(
            "echo \"CHART {id} '' 'Fixed' '{units}' '{family}' {context} line 1 1\"\n"
        ));
        values.push_str(&format!("BEGIN {id}\\n"));
        for (dim, value) in dims {
            text.push_str(&format!("echo 'DIMENSION {dim} {dim} absolute 1 1'\n"));
            values.push_str(&format!("SET {dim} = {value}\\n"));
        }
        values.push_str("END\\n");
    }
    text.push_str("echo 'VARIABLE HOST active_processors = 4'\necho 'VARIABLE HOST tcp_max_connections = 600'\n");
    format!("{text}while :; do sleep 1; printf '{values}'; done\n")
}

/// What has to be the same of an alarm. Values to a fiftieth: either feed may lose a second of a minute on a busy machine.
const SAME: &[&str] = &[
    "name",
    "chart",
    "family",
    "class",
    "component",
    "type",
    "recipient",
    "units",
    "info",
    "status",
    "update_every",
    "delay_up_duration",
    "delay_down_duration",
    "delay_max_duration",
    "delay_multiplier",
    "lookup_dimensions",
    "lookup_method",
    "lookup_after",
    "lookup_before",
    "lookup_options",
    "calc",
    "warn",
    "crit",
    "calc_parsed",
    "warn_parsed",
    "crit_parsed",
    "green",
    "red",
    "value",
    "value_string",
];

/// Follow the clock, or take 10 minutes to come to rest.
const MOVING: &[&str] = &["last_collected"];

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 0.02 * a.abs().max(b.abs()),
        _ => a == b,
    }
}

#[test]
fn the_same_samples_give_the_same_alarms() {
    let Some(debian) = debian_files() else {
        return skipped("health", "Debian's files are not here (tests/peer.sh gets them)");
    };
    let Some(_) = Program::Real.path() else {
        return skipped("health", "there is no real netdata here (tests/peer.sh gets it)");
    };
    // By default as long as look-ups of a minute need; with ten minutes more alarms run.
    let seconds: u64 =
        std::env::var("HEALTH_COMPARE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(80);
    let stock = debian.join("conf.d/health.d").display().to_string();
    let fixed = plugin(&charts_of_all(&debian.join("conf.d/health.d")));
    let agent = |name: &str, program| {
        Agent::new(name)
            .program(program)
            .option("health", "enabled", "yes")
            .option("health", "script to execute on alarm", "/bin/true")
            .option("health", "run at least every seconds", "1")
            .option("directories", "stock health config", &stock)
            .option("global", "hostname", "same")
            .file("etc/health.d/zz.conf", ALARMS, 0o644)
            .plugin("fixed", &fixed)
            .start()
    };
    let (ours, real) = (agent("ours", Program::Ours), agent("real", Program::Real));
    pause(std::time::Duration::from_secs(seconds));
    let alarms = |agent: &Agent| -> BTreeMap<String, Value> {
        let json = agent.json("/api/v1/alarms?all");
        json["alarms"].as_object().unwrap().clone().into_iter().collect()
    };
    let compare = || {
        let (ours, real) = (alarms(&ours), alarms(&real));
        let mut different = Vec::new();
        for (key, theirs) in &real {
            let Some(mine) = ours.get(key) else {
                different.push(format!("{key}: only the real one has it: {theirs}"));
                continue;
            };
            for field in SAME {
                if MOVING.iter().any(|part| key.contains(part)) && field.starts_with("value") {
                    continue;
                }
                if *field == "value_string" && mine["value"] != theirs["value"] {
                    continue;
                }
                if !same(&mine[*field], &theirs[*field]) {
                    different.push(format!(
                        "{key}.{field}: {} instead of {}",
                        mine[*field], theirs[*field]
                    ));
                }
            }
        }
        let extra = ours.keys().filter(|key| !real.contains_key(*key));
        different.extend(extra.map(|key| format!("{key}: only ours has it")));
        eprintln!("{} alarms", real.len());
        assert!(real.len() > 250, "{} alarms", real.len());
        different
    };
    // Which statuses every alarm went through.
    let histories = |agent: &Agent| -> BTreeMap<String, Vec<String>> {
        let mut histories: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let log = agent.json("/api/v1/alarm_log");
        for entry in log.as_array().unwrap().iter().rev() {
            let key = format!("{}.{}", entry["chart"], entry["name"]).replace('"', "");
            let status = entry["status"].as_str().unwrap().to_owned();
            // The original also writes down that an alarm has come to be.
            if status == "UNINITIALIZED" {
                continue;
            }
            histories.entry(key).or_default().push(status);
        }
        // What an alarm is before its window is full depends on the second in which it is looked at.
        for history in histories.values_mut() {
            while history.len() > 1 && ["CLEAR", "UNDEFINED"].contains(&history[0].as_str()) {
                history.remove(0);
            }
        }
        histories.retain(|key, _| !MOVING.iter().any(|part| key.contains(part)));
        histories
    };
    let compare = || {
        let mut different = compare();
        let (ours, real) = (histories(&ours), histories(&real));
        let keys: BTreeSet<&String> = ours.keys().chain(real.keys()).collect();
        for key in keys {
            let (mine, theirs) = (ours.get(key), real.get(key));
            if mine != theirs {
                different.push(format!("{key} went through {mine:?} instead of {theirs:?}"));
            }
        }
        eprintln!("histories of {} alarms; {} differences", real.len(), different.len());
        different
    };
    // Statuses change at different seconds in both; what stays different is a difference.
    let mut last = compare();
    for _ in 0..20 {
        if last.is_empty() {
            return;
        }
        pause(std::time::Duration::from_secs(1));
        last = compare();
    }
    panic!("{} differences:\n{}", last.len(), last.join("\n"));
}

#[test]
fn debians_script_works_under_our_agent() {
    let Some(debian) = debian_files().filter(|d| d.join("plugins.d/alarm-notify.sh").exists())
    else {
        return skipped("health", "Debian's alarm-notify.sh is not here (tests/peer.sh gets it)");
    };
    let agent = Agent::new("agent");
    let d = agent.dir().display().to_string();
    let script = debian.join("plugins.d/alarm-notify.sh").display().to_string();
    let conf = format!(
        "sendmail={d}/sendmail\nSEND_EMAIL=YES\nDEFAULT_RECIPIENT_EMAIL=somebody@example.com\n\
         role_recipients_email[sysadmin]=somebody@example.com\n"
    );
    let agent = agent
        .option("health", "enabled", "yes")
        .option("health", "script to execute on alarm", &script)
        .option("health", "run at least every seconds", "1")
        .file("etc/health_alarm_notify.conf", &conf, 0o644)
        .file("sendmail", &format!("#!/bin/sh\ncat >>{d}/mail\n"), 0o755)
        .file(
            "etc/health.d/t.conf",
            "alarm: very_high\non: system.cpu\ncalc: $user\nevery: 1s\nwarn: $this > 1\nto: sysadmin\n",
            0o644,
        )
        .plugin("fixed", &plugin(&charts()))
        .start();
    let mail = wait_for("a mail of Debian's script", 60, || {
        let text = std::fs::read_to_string(agent.dir().join("mail")).ok()?;
        text.contains("very").then_some(text)
    });
    assert!(mail.contains("somebody@example.com") && mail.contains("system.cpu"), "{mail}");
    wait_for("the program's end is noted", 30, || {
        let log = agent.json("/api/v1/alarm_log");
        let entry = log.as_array()?.iter().find(|entry| entry["status"] == "WARNING")?.clone();
        (entry["exec_run"].as_i64()? > 0 && entry["exec_code"] == 0).then_some(())
    });
}
