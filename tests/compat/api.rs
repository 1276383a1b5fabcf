//! The HTTP API beside that of 1.37.1: one synthetic child streams the same past to both, and both are asked the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netdata_rs::base::threads::spawn;
use serde_json::Value;

use crate::harness::Program::{Ours, Real};
use crate::harness::*;

/// V1, V2, VN, VCAPS, HLABELS, CLABELS, REPLICATION: what 1.37.1 agrees to, without compression.
const CAPS: u32 = 8 | 16 | 32 | 64 | 128 | 512 | 4096;
const GUID: &str = "7c1a8f52-66a0-4c1e-9d0e-9f0b4ce51137";
/// A multiple of 3600, so that every window of the requests is aligned alike.
const T0: i64 = 1_700_002_800;
const SPAN: i64 = 900;

/// A chart of the past: id, context, interval, and its dimensions with their values by second.
struct Past {
    id: &'static str,
    context: &'static str,
    every: i64,
    dims: &'static [&'static str],
    value: fn(&str, i64) -> Option<f64>,
}

const CHARTS: &[Past] = &[
    Past {
        id: "same.mixed",
        context: "same.ctx",
        every: 1,
        dims: &["up", "saw", "neg", "zero", "gap"],
        value: |dim, t| match dim {
            "up" => Some(t as f64),
            "saw" => Some((t % 7) as f64 + 0.25),
            "neg" => Some(-((t % 5) as f64) * 1.5),
            "zero" => Some(0.0),
            // Twenty seconds in a minute are missing.
            _ => (t % 60 < 40).then_some((t % 11) as f64),
        },
    },
    Past {
        id: "same.other",
        context: "same.ctx",
        every: 1,
        dims: &["up", "down"],
        value: |dim, t| Some(if dim == "up" { t as f64 * 2.0 } else { (SPAN - t) as f64 }),
    },
    Past {
        id: "same.a_b_a",
        context: "same.merged",
        every: 1,
        dims: &["m"],
        value: |_, t| Some(t as f64),
    },
    Past {
        id: "same.a_b_a_b_a",
        context: "same.merged",
        every: 1,
        dims: &["m"],
        value: |_, t| Some(t as f64),
    },
    Past {
        id: "same.slow",
        context: "same.slow",
        every: 5,
        dims: &["s"],
        value: |_, t| Some((t / 5 % 13) as f64),
    },
];

impl Past {
    fn times(&self) -> impl Iterator<Item = i64> {
        let every = self.every;
        (1..=SPAN / every).map(move |n| n * every)
    }

    fn define(&self) -> String {
        let Past { id, context, every, .. } = self;
        let mut text = format!(
            "CHART \"{id}\" \"\" \"{id}\" \"units\" \"same\" \"{context}\" \"line\" 1000 {every} \"  \" \"feed.plugin\" \"mod\"\n"
        );
        for dim in self.dims {
            let _ = writeln!(text, "DIMENSION \"{dim}\" \"{dim}\" \"absolute\" 1 1 \"  \"");
        }
        let _ = writeln!(text, "CHART_DEFINITION_END {} {} {}", T0 + every, T0 + SPAN, now());
        text
    }

    /// The answer to a request for samples. `end` lets live samples follow, of which there are none.
    fn replay(&self, after: i64, before: i64, end: bool) -> String {
        let (every, now) = (self.every, now());
        let (first, last) = (T0 + every, T0 + SPAN);
        let mut text = format!("RBEGIN \"{}\"\n", self.id);
        for t in self.times().filter(|t| after <= T0 + t && T0 + t <= before) {
            let _ = writeln!(text, "RBEGIN '' {} {} {now}", T0 + t - every, T0 + t);
            for dim in self.dims {
                let _ = match (self.value)(dim, t) {
                    Some(value) => writeln!(text, "RSET \"{dim}\" {value} \"\""),
                    None => writeln!(text, "RSET \"{dim}\" NAN \"E\""),
                };
            }
        }
        if end {
            for dim in self.dims {
                let _ = writeln!(text, "RDSTATE \"{dim}\" {last}000000 0 0 0");
            }
            let _ = writeln!(text, "RSSTATE {last}000000 {last}000000");
        }
        let _ = writeln!(text, "REND {every} {first} {last} {end} {after} {before} {now}");
        text
    }
}

/// Streams the past to one parent until `over`. 1.37.1 may overlook samples of a chart that gets no live ones, and looks
/// again when it has to ask again: so it has to, until `seen` says that it has them.
fn feed(port: u16, seen: &AtomicBool, over: &AtomicBool) {
    let mut child =
        FakeChild::connect(port, "past", GUID, CAPS).expect("the parent takes the child");
    child.send(&CHARTS.iter().map(Past::define).collect::<String>());
    while !over.load(Ordering::Relaxed) {
        let line = match child.link.line(Duration::from_millis(200)) {
            Line::Text(line) => line,
            Line::Nothing => continue,
            Line::Closed => return,
        };
        let words: Vec<_> = line.split_whitespace().collect();
        let ["REPLAY_CHART", id, start, after, before] = words[..] else { continue };
        let Some(chart) = CHARTS.iter().find(|chart| chart.id == id.trim_matches('"')) else {
            continue;
        };
        let (after, before): (i64, i64) = (after.parse().unwrap(), before.parse().unwrap());
        let before = if start == "true" { T0 + SPAN } else { before };
        let end = seen.load(Ordering::Relaxed) || after == 0;
        if !end {
            pause(Duration::from_millis(500));
        }
        child.send(&chart.replay(after, before, end));
    }
}

/// What both are asked.
fn requests() -> Vec<String> {
    let at = |from: i64, to: i64| format!("after={}&before={}", T0 + from, T0 + to);
    let mut all = Vec::new();
    let methods = [
        "average",
        "sum",
        "min",
        "max",
        "stddev",
        "cv",
        "ses",
        "des",
        "incremental-sum",
        "percentile",
        "percentile50",
        "trimmed-mean",
        "trimmed-mean10",
        "countif",
    ];
    for chart in ["same.mixed", "same.other", "same.slow"] {
        for method in methods {
            let window = at(100, 700);
            all.push(format!("chart={chart}&{window}&points=20&group={method}&format=json"));
        }
    }
    let formats = [
        "json",
        "jsonp",
        "csv",
        "tsv",
        "markdown",
        "csvjsonarray",
        "html",
        "ssv",
        "ssvcomma",
        "array",
        "datatable",
        "datasource",
    ];
    for format in formats {
        all.push(format!("chart=same.mixed&{}&points=6&format={format}", at(200, 260)));
    }
    let options = [
        "nonzero",
        "flip",
        "abs",
        "seconds",
        "ms",
        "null2zero",
        "objectrows",
        "percentage",
        "unaligned",
        "min2max",
        "google_json",
        "natural-points",
        "virtual-points",
        "match-ids",
        "percentage|abs|flip",
        "nonzero,null2zero",
    ];
    for option in options {
        all.push(format!("chart=same.mixed&{}&points=10&options={option}", at(123, 321)));
    }
    for dims in ["up", "up,neg", "!up|*", "s*", "zero"] {
        all.push(format!("chart=same.mixed&{}&points=5&dimensions={dims}", at(50, 150)));
    }
    for (from, to) in [(-100, 100), (0, 900), (880, 960), (41, 59)] {
        all.push(format!("chart=same.mixed&{}", at(from, to)));
        all.push(format!("chart=same.slow&{}&points=33", at(from, to)));
    }
    all.push(format!("context=same.ctx&{}&points=4", at(300, 420)));
    all.push(format!("context=same.ctx&{}&points=4&dimensions=up", at(300, 420)));
    all.push(format!("chart=same.*&{}&points=3&group=max", at(300, 420)));
    all.push(format!("chart=same.mixed&{}&points=7&gtime=60", at(300, 720)));
    // Groups of fifteen: of an even number 1.37.1 takes the wrong middle.
    for method in ["median", "trimmed-median", "trimmed-median10", "median&group_options=20"] {
        all.push(format!("chart=same.other&{}&points=40&group={method}", at(100, 699)));
    }
    for options in ["=0", ">100", "<:-1", "!0", "<>6", ""] {
        let window = at(100, 700);
        all.push(format!(
            "chart=same.mixed&{window}&points=20&group=countif&group_options={options}"
        ));
    }
    for (method, options) in [("percentile", "33"), ("trimmed-mean", "40"), ("percentile", "100")] {
        let window = at(100, 700);
        all.push(format!(
            "chart=same.other&{window}&points=20&group={method}&group_options={options}"
        ));
    }
    for method in ["average", "sum", "max", "stddev", "ses", "incremental-sum"] {
        for chart in ["same.mixed", "same.slow"] {
            all.push(format!("chart={chart}&{}&points=9&gtime=30&group={method}", at(300, 720)));
        }
    }
    for format in ["json", "csv", "ssv", "array", "datatable", "html", "markdown"] {
        for option in ["", "|nonzero", "|percentage", "|flip|abs", "|unaligned|ms", "|null2zero"] {
            let window = at(123, 321);
            all.push(format!(
                "chart=same.mixed&{window}&points=8&format={format}&options=jsonwrap{option}"
            ));
        }
    }
    for more in [
        "context=same.ctx",
        "context=same.*",
        "chart=same.mixed&dimensions=up",
        "chart=same.mixed&dimensions=nosuch",
        "chart=same.mixed&show_dimensions=yes",
        "chart=same.mixed&gtime=20",
        "context=same.ctx&chart_label_key=_collect_plugin",
        "context=same.ctx&chart_labels_filter=_collect_module:mod",
        "context=same.ctx&chart_labels_filter=_collect_module:other",
    ] {
        all.push(format!("{more}&{}&points=5&options=jsonwrap", at(300, 420)));
    }
    for callback in ["callback=here", "filename=a%20b.json", "tqx=reqId:7;out:csv", "tqx=out:html"]
    {
        let window = at(300, 420);
        all.push(format!("chart=same.slow&{window}&points=5&format=jsonp&{callback}"));
    }
    all.push("chart=no.such&after=-10".to_owned());
    all.push("after=-10".to_owned());
    all.into_iter().map(|query| format!("data?{query}")).chain(others()).collect()
}

/// Beside queries.
fn others() -> Vec<String> {
    let names = [
        "chart?chart=same.mixed",
        "chart?chart=same.slow",
        "chart?chart=no.such",
        "chart",
        "context?context=same.ctx",
        "context?context=same.merged",
        "context?context=no.such",
        "contexts",
        "contexts?options=charts,dimensions",
        "alarms",
        "alarms?all",
        "alarms_values?all",
        "alarm_count?status=RAISED",
        "alarm_log",
        "alarm_variables?chart=no.such",
        "allmetrics?format=nosuch",
        "nosuch",
    ];
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Texts with their numbers apart, so that these may differ in their last digit.
fn parts(text: &str) -> (String, Vec<f64>) {
    let (mut words, mut numbers, mut number) = (String::new(), Vec::new(), String::new());
    for c in text.chars().filter(|c| !c.is_whitespace()).chain([' ']) {
        if c.is_ascii_digit() || c == '.' || (c == '-' && number.is_empty()) {
            number.push(c);
            continue;
        }
        match number.parse() {
            Ok(value) => {
                numbers.push(value);
                words.push('#');
            }
            Err(_) => words.push_str(&number),
        }
        number.clear();
        words.push(c);
    }
    (words, numbers)
}

fn near(p: f64, q: f64) -> bool {
    (p - q).abs() <= 2e-6 * p.abs().max(q.abs()) + 2e-7
}

/// Where documents differ: members may stand in any order, the elements of arrays may not.
fn differences(ours: &Value, theirs: &Value, at: &str, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let missing = Value::String("(nothing)".to_owned());
                let member = |of: &serde_json::Map<String, Value>| of.get(key).cloned();
                let [a, b] = [a, b].map(|of| member(of).unwrap_or_else(|| missing.clone()));
                differences(&a, &b, &format!("{at}.{key}"), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                differences(a, b, &format!("{at}[{n}]"), found);
            }
        }
        (Value::Number(a), Value::Number(b))
            if near(a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN)) => {}
        (Value::String(a), Value::String(b)) if alike(a, b) => {}
        _ if ours == theirs => {}
        _ => found.push(format!("{at}: {ours} / {theirs}")),
    }
}

fn alike(ours: &str, theirs: &str) -> bool {
    let ((a, x), (b, y)) = (parts(ours), parts(theirs));
    a == b && x.len() == y.len() && x.iter().zip(&y).all(|(p, q)| near(*p, *q))
}

/// How two answers differ; nothing when they do not.
fn compare(ours: &Reply, theirs: &Reply) -> Option<String> {
    let kind = |reply: &Reply| {
        let line = reply.head.lines().find_map(|line| line.strip_prefix("Content-Type: "));
        line.unwrap_or("").to_owned()
    };
    let [a, mut b] = [ours, theirs].map(|reply| (reply.status, kind(reply)));
    if ours.body.is_empty() && theirs.body.is_empty() {
        // 1.37.1 calls nothing at all JSON.
        b.1.clone_from(&a.1);
    }
    if a != b {
        return Some(format!("{a:?} / {b:?}: {} / {}", ours.body, theirs.body));
    }
    let [a, b] = [ours, theirs].map(|reply| serde_json::from_str::<Value>(&reply.body));
    if let (Ok(a), Ok(b)) = (&a, &b) {
        let mut found = Vec::new();
        differences(a, b, "", &mut found);
        // 1.37.1 has no latest value of what only came as the past.
        found.retain(|one| !(one.contains("latest_values[") && one.ends_with(" / 0")));
        return (!found.is_empty()).then(|| found.join("\n  "));
    }
    let whole = || Some(format!("{} / {}", ours.body, theirs.body));
    if a.is_ok() == b.is_ok() && alike(&ours.body, &theirs.body) { None } else { whole() }
}

#[test]
fn the_same_past_gives_the_same_answers() {
    let test = "the_same_past_gives_the_same_answers";
    if Real.path().is_none() {
        return skipped(test, "there is no real netdata here (tests/peer.sh gets it)");
    }
    let agents: Vec<_> = [Ours, Real]
        .into_iter()
        .map(|program| {
            let agent = Agent::new("parent").program(program).takes_children_with("dbengine", "");
            agent.mode("dbengine").option("db", "seconds to replicate", "315360000").start()
        })
        .collect();
    let over = Arc::new(AtomicBool::new(false));
    let feeds: Vec<_> = agents
        .iter()
        .map(|agent| {
            let (seen, port) = (Arc::new(AtomicBool::new(false)), agent.port);
            let (told, over) = (Arc::clone(&seen), Arc::clone(&over));
            (seen, spawn("feed", move || feed(port, &told, &over)).unwrap())
        })
        .collect();
    for (agent, (seen, _)) in agents.iter().zip(&feeds) {
        let has = |chart: &Past| {
            let path = format!(
                "/host/past/api/v1/data?chart={}&after={}&before={}&points=1",
                chart.id,
                T0 + SPAN - chart.every,
                T0 + SPAN
            );
            let rows = agent.try_json(&path).map(|json| json["data"].to_string());
            rows.is_some_and(|rows| rows.split(',').skip(1).any(|word| !word.contains("null")))
        };
        wait_for("the past to arrive", 60, || CHARTS.iter().all(has).then_some(()));
        seen.store(true, Ordering::Relaxed);
    }
    let mut different = BTreeMap::new();
    let requests = requests();
    assert!(requests.len() >= 180, "only {} requests", requests.len());
    for request in &requests {
        let path = format!("/host/past/api/v1/{}", request.replace('|', "%7C"));
        let [ours, theirs] = [0, 1].map(|n| agents[n].get(&path));
        if let Some(how) = compare(&ours, &theirs) {
            different.insert(request, how);
        }
    }
    let shown = |text: &str| text.chars().take(600).collect::<String>();
    let report: String = different
        .iter()
        .map(|(request, how)| format!("{request} (ours / theirs)\n  {}\n", shown(how)))
        .collect();
    over.store(true, Ordering::Relaxed);
    feeds.into_iter().for_each(|(_, thread)| thread.join().unwrap());
    assert!(different.is_empty(), "{} of {} differ:\n{report}", different.len(), requests.len());
}

/// The two commands of the document "Streaming and replication".
#[test]
fn the_curl_examples_of_the_streaming_document_find_what_they_look_for() {
    let parent = Agent::new("parent").takes_children().start();
    let child = Agent::new("child").collecting().streams_to(&[parent.port]).start();
    parent.wait_live("child", "system.cpu", 60);
    let grep = |agent: &Agent, word: &str| {
        let output = std::process::Command::new("curl")
            .args(["-sS", &format!("http://127.0.0.1:{}/api/v1/info", agent.port)])
            .output();
        let Ok(output) = output else { return skipped(word, "curl is not installed") };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(word), "no '{word}' in {text}");
    };
    grep(&parent, "Stream Compression");
    grep(&child, "stream-compression");
}

/// A plugin's function is called from the parent of the parent of the agent that runs it.
#[test]
fn processes_of_apps_plugin_are_seen_two_hops_away() {
    let test = "processes_of_apps_plugin_are_seen_two_hops_away";
    let Some(debian) = debian_files() else {
        return skipped(test, "Debian's plugins are not here (tests/peer.sh gets them)");
    };
    let top = Agent::new("top").takes_children().start();
    let middle = Agent::new("middle").takes_children().streams_to(&[top.port]).start();
    let child = Agent::new("child").debian_plugin("apps", &debian).streams_to(&[middle.port]);
    let _child = child.start();
    top.wait_live("child", "apps.cpu", 90);
    let path = "/host/child/api/v1/function?function=processes&timeout=20";
    let table: Value = wait_for("the table of processes", 40, || {
        let json = top.try_json(path)?;
        json["data"].as_array().is_some_and(|rows| !rows.is_empty()).then_some(json)
    });
    assert_eq!((&table["status"], &table["type"]), (&200.into(), &"table".into()));
    let columns = table["columns"].as_object().expect("columns");
    assert!(columns.contains_key("Pid") && columns.contains_key("RSS"), "{columns:?}");
}
