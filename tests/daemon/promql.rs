//! PromQL: a real Prometheus and ours are written the same samples and asked the same questions; every answer has to be the same.

use std::collections::BTreeMap;
use std::time::Duration;

use netdata_rs::wire::write_request::{Request, Version};
use serde_json::Value;

use crate::databases::prometheus;
use crate::harness::*;

/// Between two samples of a series.
const STEP: i64 = 10;
/// Samples of a series.
const COUNT: i64 = 60;

/// A series: its labels, and a value for each sample that it has.
type Made = (Vec<(&'static str, &'static str)>, Box<dyn Fn(i64) -> Option<f64>>);

fn made() -> Vec<Made> {
    let mut all: Vec<Made> = Vec::new();
    let mut add = |labels: &[(&'static str, &'static str)], of: Box<dyn Fn(i64) -> Option<f64>>| {
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        all.push((labels, of));
    };
    for (n, (code, method, instance)) in [
        ("200", "get", "web1:80"),
        ("200", "post", "web1:80"),
        ("500", "get", "web1:80"),
        ("200", "get", "web2:80"),
        ("500", "post", "web2:80"),
    ]
    .into_iter()
    .enumerate()
    {
        let n = n as i64 + 1;
        add(
            &[
                ("__name__", "http_requests_total"),
                ("code", code),
                ("method", method),
                ("instance", instance),
                ("job", "api"),
            ],
            // The third begins anew in the middle.
            Box::new(move |i| {
                let grown = (i * n * 7 + i * i % (n * 5)) as f64;
                Some(if n == 3 && i > 30 { grown - 600.0 } else { grown + 1e9 })
            }),
        );
    }
    for (le, share) in [("0.1", 1), ("0.5", 4), ("1", 7), ("2.5", 9), ("+Inf", 10)] {
        for (instance, times) in [("web1:80", 1), ("web2:80", 3)] {
            add(
                &[
                    ("__name__", "latency_seconds_bucket"),
                    ("le", le),
                    ("instance", instance),
                    ("job", "api"),
                ],
                Box::new(move |i| Some((i * share * times) as f64)),
            );
        }
    }
    for (room, instance, base) in
        [("attic", "a", 31.5), ("cellar", "a", -4.25), ("hall", "b", 20.0)]
    {
        add(
            &[
                ("__name__", "temperature_celsius"),
                ("room", room),
                ("instance", instance),
                ("job", "house"),
            ],
            Box::new(move |i| Some(base + ((i * 37) % 17) as f64 / 8.0 - 1.0)),
        );
        add(
            &[
                ("__name__", "humidity_ratio"),
                ("room", room),
                ("instance", instance),
                ("job", "house"),
            ],
            Box::new(move |i| Some(((i * 13 + base as i64) % 23) as f64 / 32.0)),
        );
    }
    // A gap of five minutes and a half, and one that ended six minutes ago.
    add(
        &[("__name__", "gappy"), ("instance", "a"), ("job", "house")],
        Box::new(|i| (!(20..53).contains(&i)).then_some(i as f64)),
    );
    add(
        &[("__name__", "ended"), ("instance", "a"), ("job", "house")],
        Box::new(|i| (i < COUNT - 36).then_some(1.0)),
    );
    add(
        &[("__name__", "process_start_time_seconds"), ("instance", "web1:80"), ("job", "api")],
        Box::new(|_| Some(1_795_333_579.0)),
    );
    add(
        &[("__name__", "memory_bytes"), ("instance", "web1:80"), ("job", "api"), ("kind", "used")],
        Box::new(|i| Some(8_331_452_416.0 + (i % 7) as f64 * 4096.0)),
    );
    add(
        &[("__name__", "memory_bytes"), ("instance", "web1:80"), ("job", "api"), ("kind", "free")],
        Box::new(|i| Some(1_024.0 * (i % 5) as f64)),
    );
    // Labels that charts cannot hold as they are.
    add(
        &[
            ("__name__", "job:odd:ratio"),
            ("instance", "a"),
            ("job", "house"),
            ("path", "C:\\dir;\"x\"  é%"),
        ],
        Box::new(|i| Some((i % 2) as f64)),
    );
    add(
        &[
            ("__name__", "target_info"),
            ("instance", "web1:80"),
            ("job", "api"),
            ("version", "1.2"),
            ("site", "eu-1"),
        ],
        Box::new(|_| Some(1.0)),
    );
    add(
        &[
            ("__name__", "target_info"),
            ("instance", "web2:80"),
            ("job", "api"),
            ("version", "1.3"),
            ("site", "eu-2"),
        ],
        Box::new(|_| Some(1.0)),
    );
    // Nobody's host.
    add(&[("__name__", "lonely")], Box::new(|i| Some(i as f64)));
    all
}

/// All of it as bodies of requests, a few samples of each series in each.
fn bodies(begin: i64) -> Vec<Vec<u8>> {
    let series = made();
    let parts = (0..COUNT).step_by(20).map(|from| {
        let (mut request, mut plain) = (Request::new(Version::One), Vec::new());
        for (labels, of) in &series {
            let samples: Vec<(i64, f64)> = (from..from + 20)
                .filter_map(|i| Some(((begin + i * STEP) * 1000, of(i)?)))
                .collect();
            if !samples.is_empty() {
                request.push_series(labels, samples.iter().copied());
            }
        }
        request.finish(&mut plain);
        snap::raw::Encoder::new().compress_vec(&plain).unwrap()
    });
    parts.collect()
}

/// Answers come whole over HTTP/1.0.
fn post(port: u16, path: &str, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut request =
        format!("POST {path} HTTP/1.0\r\nHost: h\r\n{head}Content-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    request.extend_from_slice(body);
    let answer = talk(port, &request, Duration::from_secs(20)).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }
        })
        .collect()
}

fn ask(port: u16, root: &str, what: &str, parameters: &[(&str, &str)]) -> (u16, Value) {
    let form: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
        .collect();
    let head = "Content-Type: application/x-www-form-urlencoded\r\n";
    let (status, body) =
        post(port, &format!("{root}/api/v1/{what}"), head, form.join("&").as_bytes());
    (
        status,
        serde_json::from_slice(&body)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&body))),
    )
}

/// Of a vector or matrix: values by labels and time. Everything else stays as it is.
fn values(data: &Value) -> BTreeMap<String, Vec<(f64, f64)>> {
    let point = |point: &Value| {
        (
            point[0].as_f64().unwrap(),
            point[1].as_str().unwrap().replace("Inf", "inf").parse().unwrap(),
        )
    };
    let mut found = BTreeMap::new();
    let Some(result) = data["result"]
        .as_array()
        .filter(|_| data["resultType"] != "scalar" && data["resultType"] != "string")
    else {
        found.insert(data["result"][1].to_string(), Vec::new());
        return found;
    };
    for one in result {
        let points = match one["values"].as_array() {
            Some(points) => points.iter().map(point).collect(),
            None => vec![point(&one["value"])],
        };
        assert!(found.insert(one["metric"].to_string(), points).is_none(), "twice: {data}");
    }
    found
}

fn near(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}

/// Why two answers are not the same.
fn difference(theirs: &(u16, Value), ours: &(u16, Value), in_order: bool) -> Option<String> {
    let both = || {
        format!("\n  Prometheus: {} {}\n  ours:       {} {}", theirs.0, theirs.1, ours.0, ours.1)
    };
    if theirs.0 != ours.0
        || theirs.1["status"] != ours.1["status"]
        || theirs.1["errorType"] != ours.1["errorType"]
    {
        return Some(both());
    }
    if theirs.0 != 200 {
        return None;
    }
    let (their_data, our_data) = (&theirs.1["data"], &ours.1["data"]);
    if their_data["resultType"] != our_data["resultType"] {
        return Some(both());
    }
    let (a, b) = (values(their_data), values(our_data));
    let same = a.len() == b.len()
        && a.iter().zip(&b).all(|((a_key, a), (b_key, b))| {
            let pairs = a.iter().zip(b);
            a_key == b_key
                && a.len() == b.len()
                && pairs.into_iter().all(|(a, b)| a.0 == b.0 && near(a.1, b.1))
        });
    let order = |data: &Value| -> Vec<String> {
        data["result"].as_array().unwrap().iter().map(|one| one["metric"].to_string()).collect()
    };
    let ordered = !in_order || order(their_data) == order(our_data);
    (!same || !ordered).then(both)
}

#[test]
fn answers_are_those_of_a_real_prometheus() {
    let Some(mut database) = prometheus() else { return };
    let agent = Agent::new("parent").takes_children().start();
    database.start(database.port);
    wait_for("Prometheus is ready", 60, || {
        let answer = get(database.port, "/-/ready").ok()?;
        (answer.status == 200).then_some(())
    });

    let end = now() / STEP * STEP - STEP;
    let begin = end - (COUNT - 1) * STEP;
    let head = "Content-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\n";
    for body in bodies(begin) {
        let told = post(database.port, "/api/v1/write", head, &body);
        assert!(told.0 / 100 == 2, "{told:?}");
        let told =
            post(agent.port, "/api/v1/write", &format!("{head}X-Auth-Token: {KEY}\r\n"), &body);
        assert!(told.0 / 100 == 2, "{told:?}");
    }

    let only_theirs = "{__name__!~\"netdata_.*|\"}";
    let root = "/api/v1/prometheus";
    let text = include_str!("../fixtures/promql.txt");
    let expressions: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(expressions.len() >= 150, "only {}", expressions.len());
    let at = end.to_string();
    let odd = format!("{}.5", end - 3);
    let ranged =
        [("start", (begin + 100).to_string()), ("end", end.to_string()), ("step", "30".to_owned())];
    let mut different = Vec::new();
    for expression in &expressions {
        for time in [&at, &odd] {
            let parameters = [("query", *expression), ("time", time)];
            let both = [(database.port, ""), (agent.port, root)]
                .map(|(port, root)| ask(port, root, "query", &parameters));
            let in_order = expression.starts_with("sort");
            different.extend(
                difference(&both[0], &both[1], in_order)
                    .map(|why| format!("{expression} at {time}:{why}")),
            );
        }
        let mut parameters = vec![("query", *expression)];
        parameters.extend(ranged.iter().map(|(name, value)| (*name, value.as_str())));
        let both = [(database.port, ""), (agent.port, root)]
            .map(|(port, root)| ask(port, root, "query_range", &parameters));
        different.extend(
            difference(&both[0], &both[1], false)
                .map(|why| format!("{expression} over time:{why}")),
        );
    }
    assert!(
        different.is_empty(),
        "{} of {}:\n{}",
        different.len(),
        expressions.len() * 3,
        different.join("\n")
    );

    // What there is: our own samples are left out, as Prometheus has none.
    for (what, parameters) in [
        ("labels", vec![("match[]", only_theirs)]),
        ("series", vec![("match[]", only_theirs)]),
        ("series", vec![("match[]", "{room=\"attic\"}"), ("match[]", "up"), ("match[]", "gappy")]),
        ("series", vec![]),
        ("labels", vec![("match[]", "x{")]),
    ] {
        let sorted = |port: u16, root: &str| {
            let (status, mut answer) = ask(port, root, what, &parameters);
            if let Some(list) = answer["data"].as_array_mut() {
                list.sort_by_key(Value::to_string);
            }
            (status, answer["data"].clone(), answer["errorType"].clone())
        };
        assert_eq!(sorted(agent.port, root), sorted(database.port, ""), "{what} {parameters:?}");
    }
    for label in ["instance", "room", "path", "nothing", "__name__"] {
        let path = format!("/api/v1/label/{label}/values?match[]={}", escaped(only_theirs));
        let theirs: Value =
            serde_json::from_str(&crate::databases::get_plain(database.port, &path).unwrap())
                .unwrap();
        assert_eq!(agent.json(&format!("{root}{path}")), theirs, "{label}");
    }
    // Below a host only what is there.
    let host = agent.json("/host/web2:80/api/v1/prometheus/api/v1/label/instance/values");
    assert_eq!(host["data"], serde_json::json!(["web2:80"]));
}

/// A request of version 2.0, all of whose messages are shorter than 128 bytes.
#[test]
fn remote_write_2_is_taken() {
    let agent = Agent::new("parent").takes_children().start();
    let message = |field: u8, bytes: &[u8]| [&[field << 3 | 2, bytes.len() as u8], bytes].concat();
    let varint = |mut value: u64| {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    };
    let at = now() / 10 * 10 - 20;
    let samples = [(at, 1.5f64), (at + 10, 2.5)].map(|(at, value)| {
        let time = varint(at as u64 * 1000);
        message(2, &[&[0x09][..], &value.to_le_bytes(), &[0x10], &time].concat())
    });
    let series = [message(1, &[1, 2, 3, 4]), samples.concat()].concat();
    let symbols =
        ["", "__name__", "second_version", "instance", "i"].map(|text| message(4, text.as_bytes()));
    let plain = [symbols.concat(), message(5, &series)].concat();
    let body = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    let head = format!(
        "Content-Encoding: snappy\r\nContent-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n\
         X-Prometheus-Remote-Write-Version: 2.0.0\r\nAuthorization: Bearer {KEY}\r\n"
    );
    assert_eq!(post(agent.port, "/api/v1/write", &head, &body).0, 204);
    let asked = [("query", "second_version"), ("time", &*(at + 10).to_string())];
    let (_, answer) = ask(agent.port, "/api/v1/prometheus", "query", &asked);
    assert_eq!(answer["data"]["result"][0]["value"], serde_json::json!([at + 10, "2.5"]));
}

#[test]
fn a_form_of_a_stranger_is_not_answered() {
    let parent = Agent::new("parent");
    let path = parent.dir().join("etc/tokens").display().to_string();
    let token = "5c6de1e8a0f34c55b2a49f1c8f4e7a10";
    let mut parent = parent.option("web", "read token file", &path).file(
        "etc/tokens",
        &format!("{token}\n"),
        0o600,
    );
    parent.launch();
    wait_for("the agent", 30, || (parent.try_get("/api/v1/info")?.status == 401).then_some(()));
    let path = "/api/v1/prometheus/api/v1/query";
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(post(parent.port, path, kind, b"query=1").0, 401);
    let known = format!("{kind}Authorization: Bearer {token}\r\n");
    assert_eq!(post(parent.port, path, &known, b"query=1%0A%2B%0A1").0, 200);
    let long = vec![b'x'; 70_000];
    assert_eq!(post(parent.port, path, &known, &long).0, 400);
    // What is no question takes no body.
    assert_eq!(post(parent.port, "/api/v1/info", &known, b"query=1").0, 400);
}
