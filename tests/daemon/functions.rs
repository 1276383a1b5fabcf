//! Functions of a child, called from here and from a parent above: answers, progress, taking back, time-outs.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use netdata_rs::base::threads::spawn;

use crate::harness::*;

/// VCAPS, HLABELS, CLABELS, FUNCTIONS, INTERPOLATED and PROGRESS, as a child or parent of release 2 says it.
const CAPS: u32 = (1 << 6) | (1 << 7) | (1 << 9) | (1 << 11) | (1 << 14) | (1 << 22);
const GUID: &str = "4be7b62e-4c3a-4d22-8a44-6f3a5b7f8c01";

/// Defines a chart with a sample, so that the host is sent on, and a function of the host.
fn announce(child: &mut FakeChild) {
    child.send(
        "CHART \"t.a\" \"\" \"t\" \"u\" \"f\" \"t.a\" \"line\" 1000 1 \"\" \"p\" \"m\"\n\
         DIMENSION \"x\" \"x\" \"absolute\" 1 1 \"\"\n\
         FUNCTION GLOBAL \"slow one\" 30 \"takes its time\" \"top\" 0x0 100 1\n",
    );
    let now = now();
    for t in now - 3..=now {
        child.send(&format!("BEGIN2 't.a' 1 {t} #\nSET2 'x' 1 1 A\nEND2\n"));
    }
}

/// The transaction of a `FUNCTION` line, without quotes.
fn transaction(line: &str) -> String {
    line.split(' ').nth(1).unwrap().trim_matches(['"', '\'']).to_owned()
}

#[test]
fn a_function_is_answered_or_its_time_runs_out() {
    let agent = Agent::new("parent").takes_children().start();
    let mut child = FakeChild::connect(agent.port, "kid", GUID, CAPS).unwrap();
    announce(&mut child);
    wait_for("the function", 10, || {
        let json = agent.try_json("/host/kid/api/v1/functions")?;
        json["functions"].get("slow one").map(|_| ())
    });
    let port = agent.port;
    let ask = move |timeout: u32| {
        spawn("asking", move || {
            let path =
                format!("/host/kid/api/v1/function?function=slow%20one%20x&timeout={timeout}");
            let began = Instant::now();
            (get(port, &path).unwrap(), began.elapsed())
        })
        .unwrap()
    };
    let asking = ask(10);
    let line = child.link.expect("FUNCTION ", 5);
    assert!(line.contains("\"slow one x\""), "{line}");
    let id = transaction(&line);
    child.send(&format!(
        "FUNCTION_RESULT_BEGIN \"{id}\" 200 \"application/json\" 0\n{{\"status\":200}}\nFUNCTION_RESULT_END\n"
    ));
    let (reply, _) = asking.join().unwrap();
    assert_eq!((reply.status, reply.body.trim()), (200, "{\"status\":200}"));

    let asking = ask(1);
    let id = transaction(&child.link.expect("FUNCTION ", 5));
    let (reply, took) = asking.join().unwrap();
    assert_eq!(reply.status, 504, "{}", reply.body);
    assert!((900..2500).contains(&took.as_millis()), "took {took:?}");
    assert_eq!(transaction(&child.link.expect("FUNCTION_CANCEL ", 5)), id);

    // Whoever asked and hung up waits no more.
    let mut caller = dial(agent.port, Duration::from_secs(5)).unwrap();
    let path = "/host/kid/api/v1/function?function=slow%20one&timeout=60";
    caller.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let id = transaction(&child.link.expect("FUNCTION ", 5));
    drop(caller);
    assert_eq!(transaction(&child.link.expect("FUNCTION_CANCEL ", 5)), id);
}

/// A child of 1.37 brings its functions with charts, the same one with several.
#[test]
fn a_function_of_many_charts_is_one() {
    let agent = Agent::new("parent").takes_children().start();
    let mut child = FakeChild::connect(agent.port, "kid", GUID, CAPS).unwrap();
    for chart in ["t.b", "t.c"] {
        child.send(&format!(
            "CHART \"{chart}\" \"\" \"t\" \"u\" \"f\" \"t.a\" \"line\" 1000 1 \"\" \"p\" \"m\"\n\
             DIMENSION \"x\" \"x\" \"absolute\" 1 1 \"\"\nFUNCTION \"processes\" 10 \"what runs\"\n"
        ));
    }
    announce(&mut child);
    for path in ["/host/kid/api/v1/functions", "/host/kid/api/v1/info", "/api/v2/node_instances"] {
        let text = wait_for("the last function", 10, || {
            agent.try_get(path).map(|reply| reply.body).filter(|text| text.contains("slow one"))
        });
        assert_eq!(text.matches("\"processes\"").count(), 1, "{path}: {text}");
    }
    let chart = agent.json("/host/kid/api/v1/chart?chart=t.b");
    assert!(chart["functions"].get("processes").is_some(), "{chart}");
}

#[test]
fn a_parent_above_hears_of_progress_and_takes_a_call_back() {
    let parent = FakeParent::listen(CAPS);
    let middle = Agent::new("middle").takes_children().streams_to(&[parent.port]).start();
    let mut child = FakeChild::connect(middle.port, "kid", GUID, CAPS).unwrap();
    announce(&mut child);
    // The middle sends its own host too: the child's is the one with the function.
    let mut links = Vec::new();
    let mut up = loop {
        let (mut link, request) = parent.accept(30);
        if request.contains("hostname=kid") {
            break link;
        }
        link.send("\n");
        links.push(link);
    };
    up.expect("FUNCTION GLOBAL", 10);
    up.send("FUNCTION abc 20 \"slow one\" \"0x0\" \"me\"\n");
    let id = transaction(&child.link.expect("FUNCTION ", 5));
    child.send(&format!("FUNCTION_PROGRESS '{id}' 3 9\n"));
    assert_eq!(up.expect("FUNCTION_PROGRESS", 5), "FUNCTION_PROGRESS 'abc' 3 9");
    up.send("FUNCTION_PROGRESS abc\n");
    assert_eq!(transaction(&child.link.expect("FUNCTION_PROGRESS ", 5)), id);
    up.send("FUNCTION_CANCEL abc\n");
    assert_eq!(transaction(&child.link.expect("FUNCTION_CANCEL ", 5)), id);
    let result = up.expect("FUNCTION_RESULT_BEGIN", 5);
    assert!(result.contains("abc") && result.contains(" 499 "), "{result}");

    // A parent that goes takes its calls back.
    up.send("FUNCTION def 20 \"slow one\" \"0x0\" \"me\"\n");
    let id = transaction(&child.link.expect("FUNCTION ", 5));
    drop(up);
    assert_eq!(transaction(&child.link.expect("FUNCTION_CANCEL ", 10)), id);
}

/// The table of connections, as dashboards of release 2.9 know it and with what we know beyond it.
#[test]
fn streaming_tells_of_every_connection() {
    let top = Agent::new("top").takes_children().start();
    let middle = Agent::new("middle").takes_children().streams_to(&[top.port]).start();
    let child = Agent::new("child").collecting().streams_to(&[middle.port]).start();
    top.wait_live("child", "system.cpu", 60);
    let table = |agent: &Agent, words: &str| {
        let table = agent.json(&format!("/api/v1/function?function=streaming{words}"));
        let columns = table["columns"].as_object().unwrap().clone();
        let rows = table["data"].as_array().unwrap();
        assert!(rows.iter().all(|row| row.as_array().unwrap().len() == columns.len()));
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let cell = |name: &str| {
                    let at = columns[name]["index"].as_u64().unwrap();
                    row[usize::try_from(at).unwrap()].clone()
                };
                columns.keys().map(|name| (name.clone(), cell(name))).collect::<BTreeMap<_, _>>()
            })
            .collect();
        (columns.len(), rows)
    };
    assert_eq!(table(&middle, "").0, 83);
    let (count, rows) = table(&middle, "%20details");
    assert_eq!(count, 89);
    let row = rows.iter().find(|row| row["Node"] == "child").expect("the child's row");
    assert_eq!(row["Path"], serde_json::json!(["child", "middle", "top"]));
    assert_eq!((&row["InHops"], &row["InSSL"]), (&1.into(), &"PLAIN".into()));
    for (name, most) in
        [("InLag", 10), ("InAge", 60), ("OutQueued", 1 << 20), ("InReplMissing", 1 << 20)]
    {
        assert!(
            row[name].as_i64().is_some_and(|n| (0..=most).contains(&n)),
            "{name}: {}",
            row[name]
        );
    }
    for name in ["InCompression", "OutCompression"] {
        assert_eq!(row[name], "COMPRESSED", "{name}");
    }
    for name in ["OutTrafficData", "OutTrafficMetadata", "OutTrafficReplication"] {
        assert!(row[name].as_i64().is_some_and(|n| n > 0), "{name}: {}", row[name]);
    }
    let text = row["InCapabilities"].to_string();
    assert!(text.contains("REPLICATION") && text.contains("ZSTD"), "{text}");

    let instances = child.json("/api/v2/node_instances");
    let traffic = &instances["nodes"][0]["instances"][0]["stream"]["destination"]["traffic"];
    for kind in ["data", "metadata", "replication"] {
        assert!(traffic[kind].as_i64().is_some_and(|n| n > 0), "{kind}: {traffic}");
    }
}
