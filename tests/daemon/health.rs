//! Alarms on child, proxy and parent: who is told of what, exactly once each.

use std::collections::BTreeMap;
use std::fs;

use crate::harness::*;

/// Charts `t.x`, with the value that a file beside it holds.
const FEED: &str = "#!/bin/sh\n\
echo \"CHART t.x '' 'Fed by a file' things fam t.ctx line 1 1 '' feed.plugin feed\"\n\
echo 'DIMENSION a a absolute 1 1'\n\
while :; do\n  sleep 1\n  read -r v <\"$NETDATA_LIB_DIR/value\" || v=1\n  printf 'BEGIN t.x\\nSET a = %s\\nEND\\n' \"$v\"\ndone\n";

/// Writes down what it is told, a line at a time.
const RECORDER: &str = "#!/bin/sh\necho \"$2 $7 ${11} ${10}\" >>\"$NETDATA_LIB_DIR/told\"\n";

const ALARMS: &str = "alarm: high\non: t.x\ncalc: $a\nevery: 1s\nwarn: $this > 10\ncrit: $this > 20\n\
template: stale\non: t.ctx\ncalc: $now - $last_collected_t\nevery: 1s\nwarn: $this > 6\n";

fn watching(agent: Agent) -> Agent {
    let script = agent.dir().join("notify.sh").display().to_string();
    agent
        .option("health", "enabled", "yes")
        .option("health", "script to execute on alarm", &script)
        .option("health", "run at least every seconds", "1")
        .file("notify.sh", RECORDER, 0o755)
        .file("etc/health.d/t.conf", ALARMS, 0o644)
}

fn takes(agent: Agent, health: &str) -> Agent {
    agent.stream(&format!(
        "[{KEY}]\n    enabled = yes\n    default memory mode = ram\n    default history = 3600\n    \
         health enabled by default = {health}\n    default postpone alarms on connect seconds = 0\n"
    ))
}

/// What the program of an agent was told, each line with how often.
fn told(agent: &Agent) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(agent.dir().join("lib/told")).unwrap_or_default();
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        *counts.entry(line.to_owned()).or_insert(0) += 1;
    }
    counts
}

fn has(agent: &Agent, line: &str) -> Option<()> {
    told(agent).contains_key(line).then_some(())
}

#[track_caller]
fn wait_told(agent: &Agent, line: &str) {
    wait_for(&format!("{} tells '{line}', not only {:?}", agent.name, told(agent)), 40, || {
        has(agent, line)
    });
}

#[test]
fn every_node_of_a_chain_tells_of_its_own_exactly_once() {
    let parent = takes(watching(Agent::new("parent")), "yes").start();
    let proxy = takes(watching(Agent::new("proxy")), "auto").streams_to(&[parent.port]).start();
    let mut child =
        watching(Agent::new("child")).plugin("feed", FEED).streams_to(&[proxy.port]).start();
    let put = |value: &str| fs::write(child.dir().join("lib/value"), format!("{value}\n")).unwrap();
    put("1");
    for agent in [&parent, &proxy] {
        agent.wait_live("child", "t.x", 40);
    }
    let all = [&child, &proxy, &parent];
    let is = |agent: &Agent, status: &str| {
        let host = if agent.name == "child" { "" } else { "/host/child" };
        let json = agent.try_json(&format!("{host}/api/v1/alarms?all"))?;
        (json["alarms"]["t.x.high"]["status"] == status).then_some(())
    };
    for agent in all {
        wait_for(&format!("{}: CLEAR", agent.name), 40, || is(agent, "CLEAR"));
    }
    for (value, status, line) in [
        ("15", "WARNING", "child high CLEAR WARNING"),
        ("25", "CRITICAL", "child high WARNING CRITICAL"),
        ("1", "CLEAR", "child high CRITICAL CLEAR"),
    ] {
        put(value);
        for agent in all {
            wait_for(&format!("{}: {status}", agent.name), 30, || is(agent, status));
            wait_told(agent, line);
        }
    }
    // As a machine without power: the connection looks alive, so even `auto` speaks up.
    let pid = child.pid().to_string();
    let signal =
        |name: &str| std::process::Command::new("kill").args([name, &pid]).status().unwrap();
    signal("-STOP");
    for agent in [&proxy, &parent] {
        wait_told(agent, "child stale CLEAR WARNING");
    }
    signal("-CONT");
    for agent in [&proxy, &parent] {
        wait_told(agent, "child stale WARNING CLEAR");
    }
    // A clean end: only who always watches notices.
    child.stop();
    wait_for("the parent tells of the end", 40, || {
        (told(&parent).get("child stale CLEAR WARNING") == Some(&2)).then_some(())
    });
    assert_eq!(told(&proxy)["child stale CLEAR WARNING"], 1, "{:?}", told(&proxy));
    let alarms = proxy.json("/host/child/api/v1/alarms?all");
    assert_eq!(alarms["status"], false);
    for agent in [&child, &proxy, &parent] {
        for (line, count) in told(agent) {
            assert!(count == 1 || line.contains("stale"), "{}: {line} {count} times", agent.name);
        }
        assert!(told(agent).keys().all(|line| line.starts_with("child ")), "{:?}", told(agent));
    }
}

#[test]
fn an_agent_that_is_told_not_to_watch_does_not() {
    let parent = takes(watching(Agent::new("parent")), "no").start();
    let child =
        watching(Agent::new("child")).plugin("feed", FEED).streams_to(&[parent.port]).start();
    fs::write(child.dir().join("lib/value"), "25\n").unwrap();
    parent.wait_live("child", "t.x", 40);
    wait_for("the child tells", 30, || {
        told(&child).keys().any(|line| line.ends_with(" CRITICAL")).then_some(())
    });
    assert_eq!(parent.json("/host/child/api/v1/alarms?all")["status"], false);
    assert!(told(&parent).is_empty());
    let log = child.json("/api/v1/alarm_log");
    let told = log.as_array().unwrap().iter().find(|entry| entry["status"] == "CRITICAL").unwrap();
    wait_for("the program's end is noted", 20, || {
        let log = child.json("/api/v1/alarm_log");
        let entry = log.as_array()?.iter().find(|e| e["unique_id"] == told["unique_id"])?.clone();
        (entry["exec_run"].as_i64()? > 0 && entry["exec_code"] == 0).then_some(())
    });
}
