//! Alarms on child, proxy and parent: who is told of what, exactly once each.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

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
    // A clean end, then a crash: only who always watches notices.
    for (times, crash) in [(2, false), (3, true)] {
        if crash {
            child.kill();
        } else {
            child.stop();
        }
        let stale = |agent: &Agent, change: &str| {
            told(agent).get(&format!("child stale {change}")).copied().unwrap_or(0)
        };
        wait_for("the parent tells of the end", 40, || {
            (stale(&parent, "CLEAR WARNING") == times).then_some(())
        });
        assert_eq!(stale(&proxy, "CLEAR WARNING"), 1, "{:?}", told(&proxy));
        let alarms = proxy.json("/host/child/api/v1/alarms?all");
        assert_eq!(alarms["status"], false);
        if !crash {
            child.launch();
            wait_for("the parent tells that it is back", 60, || {
                (stale(&parent, "WARNING CLEAR") == times).then_some(())
            });
            wait_for("the proxy watches again", 40, || is(&proxy, "CLEAR"));
        }
    }
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

#[test]
fn a_power_cut_is_told_until_the_connection_is_known_to_be_dead() {
    let parent = takes(watching(Agent::new("parent")), "auto").start();
    let guid = uuid::Uuid::new_v4().to_string();
    let mut child = FakeChild::connect(parent.port, "cut", &guid, OLD_LIVE).unwrap();
    assert!(child.send(
        "CHART t.x '' 'Title' things fam t.ctx line 1 1 '' p m\nDIMENSION a a absolute 1 1\n"
    ));
    let mut tick = || child.send("BEGIN t.x 0\nSET a = 1\nEND\n");
    let stale = || {
        let json = parent.try_json("/host/cut/api/v1/alarms?all")?;
        Some(json["alarms"]["t.x.stale"]["status"].as_str()?.to_owned())
    };
    wait_for("the child is watched", 40, || {
        assert!(tick());
        pause(Duration::from_secs(1));
        (stale()? == "CLEAR").then_some(())
    });
    // Nothing comes any more, and nothing says why.
    wait_told(&parent, "cut stale CLEAR WARNING");
    let before = told(&parent);
    drop(child);
    wait_for("health of the child is off", 40, || {
        let json = parent.try_json("/host/cut/api/v1/alarms?all")?;
        (json["status"] == false).then_some(())
    });
    pause(Duration::from_secs(3));
    assert_eq!(told(&parent), before);
}

/// Not one that is postponed for as long as by default, which a takeover must not be.
fn of_a_cluster(name: &str) -> Agent {
    watching(Agent::new(name)).stream(&format!(
        "[{KEY}]\n    enabled = yes\n    default memory mode = ram\n    default history = 3600\n    \
         health enabled by default = yes\n    default postpone alarms on connect seconds = 20\n"
    ))
}

#[test]
fn a_cluster_tells_once_and_the_next_parent_takes_over() {
    let (a, b) = (of_a_cluster("a"), of_a_cluster("b"));
    let ports = (a.port, b.port);
    let mut a = a.streams_to(&[ports.1]).start();
    let b = b.streams_to(&[ports.0]).start();
    let mut child =
        Agent::new("child").plugin("feed", FEED).streams_to(&[ports.0, ports.1]).start();
    let lib = child.dir().join("lib");
    let put = |value: &str| fs::write(lib.join("value"), format!("{value}\n")).unwrap();
    put("1");
    a.wait_live("child", "t.x", 40);
    b.wait_live("child", "t.x", 40);
    let on_b = |status: &str| {
        wait_for(&format!("b: {status}"), 40, || {
            let json = b.try_json("/host/child/api/v1/alarms?all")?;
            (json["alarms"]["t.x.high"]["status"] == status).then_some(())
        });
    };
    on_b("CLEAR");
    wait_for("a: CLEAR", 40, || {
        let json = a.try_json("/host/child/api/v1/alarms?all")?;
        (json["alarms"]["t.x.high"]["status"] == "CLEAR").then_some(())
    });
    let high = |agent: &Agent| -> Vec<String> {
        told(agent).into_keys().filter(|line| line.starts_with("child high")).collect()
    };
    put("15");
    wait_told(&a, "child high CLEAR WARNING");
    on_b("WARNING");
    put("1");
    wait_told(&a, "child high WARNING CLEAR");
    on_b("CLEAR");
    put("15");
    wait_for("the same once more", 30, || {
        (told(&a).get("child high CLEAR WARNING") == Some(&2)).then_some(())
    });
    on_b("WARNING");
    assert_eq!(high(&b), Vec::<String>::new());
    // What changes at the moment of its end is told by the next one, ten seconds later at most.
    a.kill();
    let killed = Instant::now();
    put("25");
    wait_told(&b, "child high WARNING CRITICAL");
    eprintln!("taken over within {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    assert_eq!(high(&b), ["child high WARNING CRITICAL"], "it told nothing that a had told");

    // The first one comes back: it does not tell again what the other one told meanwhile, and goes on from there.
    let before = told(&a);
    a.launch();
    wait_for("the child is with a again, or stays", 60, || {
        a.try_json("/host/child/api/v1/alarms?all").filter(|json| json["status"] == true)
    });
    wait_for("both know", 60, || {
        let known = |agent: &Agent| {
            let json = agent.try_json("/host/child/api/v1/alarms?all")?;
            (json["alarms"]["t.x.high"]["status"] == "CRITICAL").then_some(())
        };
        known(&a).and_then(|()| known(&b))
    });
    assert_eq!(told(&a), before, "told once");
    put("1");
    let ended = |agent: &Agent| {
        let ends =
            |line: &String| line.starts_with("child high") && line.ends_with("CRITICAL CLEAR");
        told(agent).keys().filter(|line| ends(line)).count()
    };
    wait_for("the end is told", 40, || (ended(&a) + ended(&b) > 0).then_some(()));
    on_b("CLEAR");
    pause(Duration::from_secs(2));
    assert_eq!(ended(&a) + ended(&b), 1, "a {:?}, b {:?}", told(&a), told(&b));

    // While the first one is away the other one tells; then the child comes to it at once, and nowhere else.
    let counts = |agent: &Agent| -> Vec<(String, usize)> {
        told(agent).into_iter().filter(|(line, _)| line.starts_with("child high")).collect()
    };
    a.stop();
    put("15");
    wait_told(&b, "child high CLEAR WARNING");
    child.stop();
    child.edit_stream(|text| text.replace(&format!(" 127.0.0.1:{}", ports.1), ""));
    let before = [counts(&a), counts(&b)];
    a.edit_stream(|text| text.replace("connect seconds = 20", "connect seconds = 10"));
    child.launch();
    a.launch();
    wait_for("the first one watches", 60, || {
        let json = a.try_json("/host/child/api/v1/alarms?all")?;
        (json["alarms"]["t.x.high"]["status"] == "WARNING").then_some(())
    });
    pause(Duration::from_secs(2));
    assert_eq!([counts(&a), counts(&b)], before, "told once");
    put("1");
    let end = "child high WARNING CLEAR";
    wait_for("the first one tells the end", 40, || (told(&a).get(end) == Some(&2)).then_some(()));
    assert_eq!(counts(&b), before[1]);
}

/// Stopped, or cut off without a word: a parent that hangs keeps its sockets open, and its kernel goes on taking what it is sent.
#[test]
fn a_parent_that_hangs_gives_its_place_and_tells_nothing_again() {
    let (a, b) = (of_a_cluster("a"), of_a_cluster("b"));
    let ports = (a.port, b.port);
    let a = a.streams_to(&[ports.1]).start();
    let b = b.streams_to(&[ports.0]).start();
    let child = Agent::new("child").plugin("feed", FEED).streams_to(&[ports.0, ports.1]).start();
    let put = |value: &str| fs::write(child.dir().join("lib/value"), format!("{value}\n")).unwrap();
    put("1");
    let is = |agent: &Agent, status: &str| {
        wait_for(&format!("{}: {status}", agent.name), 60, || {
            let json = agent.try_json("/host/child/api/v1/alarms?all")?;
            (json["alarms"]["t.x.high"]["status"] == status).then_some(())
        });
    };
    let high = |agent: &Agent| -> Vec<(String, usize)> {
        told(agent).into_iter().filter(|(line, _)| line.starts_with("child high")).collect()
    };
    is(&a, "CLEAR");
    is(&b, "CLEAR");
    // Signs of life are expected once there were some.
    pause(Duration::from_secs(8));
    let once = |line: &str| vec![(line.to_owned(), 1)];
    put("15");
    wait_told(&a, "child high CLEAR WARNING");
    is(&b, "WARNING");
    // At the same moment: whoever is to tell of it hangs already.
    a.signal("STOP");
    let stopped = Instant::now();
    put("25");
    wait_told(&b, "child high WARNING CRITICAL");
    eprintln!("taken over within {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
    assert_eq!(high(&b), once("child high WARNING CRITICAL"));
    a.signal("CONT");
    is(&a, "CRITICAL");
    pause(Duration::from_secs(8));
    assert_eq!(high(&a), once("child high CLEAR WARNING"), "told once");
    assert_eq!(high(&b), once("child high WARNING CRITICAL"), "told once");
    put("1");
    is(&a, "CLEAR");
    is(&b, "CLEAR");
    pause(Duration::from_secs(2));
    let ended = [&a, &b].map(|agent| {
        high(agent)
            .iter()
            .filter(|(line, _)| line.ends_with("CLEAR"))
            .map(|(_, n)| n)
            .sum::<usize>()
    });
    assert_eq!(ended.iter().sum::<usize>(), 1, "{:?} {:?}", high(&a), high(&b));
}

/// Its child has nowhere else to go: that it is silent is told by the other one, whenever that shows.
#[test]
fn what_happens_before_a_hanging_parent_is_missed_is_told_by_the_next() {
    let (a, b) = (of_a_cluster("a"), of_a_cluster("b"));
    let ports = (a.port, b.port);
    let a = a.streams_to(&[ports.1]).start();
    let early = ALARMS.replace("warn: $this > 6", "warn: $this > 3");
    let b = b.streams_to(&[ports.0]).file("etc/health.d/t.conf", &early, 0o644).start();
    let child = Agent::new("child").plugin("feed", FEED).streams_to(&[ports.0]).start();
    fs::write(child.dir().join("lib/value"), "1\n").unwrap();
    for agent in [&a, &b] {
        wait_for(&format!("{}: CLEAR", agent.name), 60, || {
            let json = agent.try_json("/host/child/api/v1/alarms?all")?;
            (json["alarms"]["t.x.stale"]["status"] == "CLEAR").then_some(())
        });
    }
    pause(Duration::from_secs(5));
    a.signal("STOP");
    let stopped = Instant::now();
    wait_told(&b, "child stale CLEAR WARNING");
    eprintln!("told within {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(12), "{:?}", stopped.elapsed());
    a.signal("CONT");
    wait_for("the end is told", 40, || {
        let ends = [&a, &b].map(|agent| told(agent).get("child stale WARNING CLEAR").copied());
        (ends.iter().flatten().sum::<usize>() == 1).then_some(())
    });
    pause(Duration::from_secs(3));
    let all = |line: &str| {
        [&a, &b].iter().filter_map(|agent| told(agent).get(line).copied()).sum::<usize>()
    };
    assert_eq!(all("child stale CLEAR WARNING"), 1, "{:?} {:?}", told(&a), told(&b));
    assert_eq!(all("child stale WARNING CLEAR"), 1, "{:?} {:?}", told(&a), told(&b));
}

#[test]
fn without_one_notification_per_cluster_each_member_tells() {
    let each = |name: &str| {
        takes(watching(Agent::new(name)), "yes").option(
            "health",
            "one notification per cluster",
            "no",
        )
    };
    let (a, b) = (each("a"), each("b"));
    let ports = (a.port, b.port);
    let a = a.streams_to(&[ports.1]).start();
    let b = b.streams_to(&[ports.0]).start();
    let child = Agent::new("child").plugin("feed", FEED).streams_to(&[ports.0, ports.1]).start();
    let put = |value: &str| fs::write(child.dir().join("lib/value"), format!("{value}\n")).unwrap();
    put("1");
    for agent in [&a, &b] {
        wait_for(&format!("{}: CLEAR", agent.name), 60, || {
            let json = agent.try_json("/host/child/api/v1/alarms?all")?;
            (json["alarms"]["t.x.high"]["status"] == "CLEAR").then_some(())
        });
    }
    put("15");
    for agent in [&a, &b] {
        wait_told(agent, "child high CLEAR WARNING");
    }
    pause(Duration::from_secs(1));
    for agent in [&a, &b] {
        assert_eq!(told(agent)["child high CLEAR WARNING"], 1, "{}", agent.name);
    }
}

/// Forty alarms at once, whose program takes its time.
const MANY: usize = 40;

fn many(agent: Agent) -> Agent {
    let alarms: String = (0..MANY)
        .map(|n| format!("alarm: many{n}\non: t.x\ncalc: $a\nevery: 1s\nwarn: $this > 10\n"))
        .collect();
    let slow = RECORDER.replace("#!/bin/sh\n", "#!/bin/sh\nsleep 1.5\n");
    watching(agent).file("notify.sh", &slow, 0o755).file("etc/health.d/t.conf", &alarms, 0o644)
}

#[test]
fn an_end_in_the_midst_of_notifications_loses_and_doubles_none() {
    for crash in [false, true] {
        let mut agent = many(Agent::new("agent")).plugin("feed", FEED).start();
        let put = |agent: &Agent, value: &str| {
            fs::write(agent.dir().join("lib/value"), format!("{value}\n")).unwrap();
        };
        put(&agent, "1");
        wait_for("all are clear", 60, || {
            let json = agent.try_json("/api/v1/alarm_count?status=CLEAR")?;
            (json[0] == MANY).then_some(())
        });
        put(&agent, "15");
        wait_for("all are raised", 60, || {
            let json = agent.try_json("/api/v1/alarm_count?status=WARNING")?;
            (json[0] == MANY).then_some(())
        });
        if crash {
            // The agent alone: what it has started goes on.
            agent.signal("KILL");
            agent.wait_end();
        } else {
            agent.stop();
        }
        assert!(told(&agent).len() < MANY, "there was nothing left to tell");
        agent.launch();
        wait_for("all are told", 60, || (told(&agent).len() == MANY).then_some(()));
        wait_for("they are raised still", 60, || {
            let json = agent.try_json("/api/v1/alarm_count?status=WARNING")?;
            (json[0] == MANY).then_some(())
        });
        pause(Duration::from_secs(4));
        assert!(told(&agent).values().all(|count| *count == 1), "{crash}: {:?}", told(&agent));
        put(&agent, "1");
        wait_for("all ends are told", 60, || (told(&agent).len() == 2 * MANY).then_some(()));
        let ends = told(&agent);
        let ends: Vec<_> =
            ends.iter().filter(|(line, _)| line.ends_with(" WARNING CLEAR")).collect();
        assert_eq!(ends.len(), MANY, "{ends:?}");
        assert!(ends.iter().all(|(_, count)| **count == 1), "{crash}: {ends:?}");
    }
}

#[test]
fn files_are_checked_and_read_again_while_it_runs() {
    let agent = watching(Agent::new("agent")).plugin("feed", FEED).start();
    fs::write(agent.dir().join("lib/value"), "15\n").unwrap();
    wait_told(&agent, "agent high UNINITIALIZED WARNING");
    let said = agent.cli(&["check-health"]);
    assert!(
        said.contains("agent: high every 1 s on t.x\nagent: stale every 1 s on t.x\n"),
        "{said}"
    );
    assert!(said.contains("2 alarms and templates, 2 alarms would run, 0 mistakes."), "{said}");

    let draft = agent.dir().join("draft.conf");
    fs::write(
        &draft,
        "alarm: new\non: t.x\nlookup: guess -1m\ncalc: $a +\nevery: 1s\nwarn: $a > 1\nwhat: x\ncrit: $a && $b > 3 + 1\n",
    )
    .unwrap();
    let draft = draft.display().to_string();
    let said = agent.cli(&["check-health", &draft]);
    let mistakes: Vec<&str> = said.lines().filter(|line| line.contains("MISTAKE")).collect();
    assert_eq!(mistakes.len(), 3, "{said}");
    for (line, at) in mistakes.iter().zip([3, 4, 7]) {
        assert!(line.contains(&format!("line {at} of file '{draft}'")), "{line}");
    }
    assert!(said.contains("agent: new every 1 s on t.x\n"), "the rest holds: {said}");
    let notes: Vec<&str> = said.lines().filter(|line| line.starts_with("NOTE ")).collect();
    assert!(notes.len() == 1 && notes[0].contains("line 8 of file"), "{notes:?}");
    let ids = || {
        let json = agent.json("/api/v1/alarms?all");
        json["alarms"]["t.x.high"]["id"].as_i64()
    };
    let id = ids();
    assert!(id.is_some(), "a check changes nothing");

    // Both ways to read again: the alarm that stays keeps its state, so nobody is told of it again.
    let add = |name: &str| {
        let text =
            format!("{ALARMS}alarm: {name}\non: t.x\ncalc: $a\nevery: 1s\nwarn: $this > 10\n");
        fs::write(agent.dir().join("etc/health.d/t.conf"), text).unwrap();
    };
    add("second");
    agent.cli(&["reload-health"]);
    wait_told(&agent, "agent second UNINITIALIZED WARNING");
    add("third");
    agent.signal("USR2");
    wait_told(&agent, "agent third UNINITIALIZED WARNING");
    wait_for("the second one is gone", 20, || {
        let json = agent.json("/api/v1/alarms?all");
        json["alarms"]["t.x.second"].is_null().then_some(())
    });
    assert_eq!((ids(), told(&agent)["agent high UNINITIALIZED WARNING"]), (id, 1));

    // What happened, over all hosts.
    let json = agent.json("/api/v2/alert_transitions?last=100&f_alert=second");
    let transitions = json["transitions"].as_array().unwrap();
    let statuses: Vec<&str> =
        transitions.iter().map(|one| one["new"]["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["REMOVED", "WARNING"], "{json}");
    assert_eq!(transitions[0]["old"]["status"], "WARNING");
    assert_eq!((&json["items"]["matched"], &json["nodes"][0]["nm"]), (&2.into(), &"agent".into()));
    let alerts = agent.json("/api/v3/alerts");
    let third =
        alerts["alert_instances"].as_array().unwrap().iter().find(|one| one["nm"] == "third");
    let newest = agent.json("/api/v3/alert_transitions?f_alert=third");
    assert_eq!(third.unwrap()["gi"], newest["transitions"][0]["gi"]);
}

#[test]
fn without_samples_there_are_no_alarms_and_one_line_says_so() {
    let parent = watching(Agent::new("parent")).stream(&format!(
        "[{KEY}]\n    enabled = yes\n    default memory mode = none\n    health enabled by default = yes\n"
    ));
    let parent = parent.start();
    let child = Agent::new("child").plugin("feed", FEED).streams_to(&[parent.port]).start();
    parent.wait_log("its health is disabled", 40);
    wait_for("the child is there", 40, || {
        let json = parent.try_json("/host/child/api/v1/info")?;
        let hosts = json["mirrored_hosts_status"].as_array()?;
        hosts.iter().any(|h| h["hostname"] == "child" && h["reachable"] == true).then_some(())
    });
    let lines = parent.log();
    let lines: Vec<&str> =
        lines.lines().filter(|line| line.contains("its health is disabled")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(parent.json("/host/child/api/v1/alarms?all")["status"], false);
    drop(child);
}

/// Runs our `alarm-notify.sh` with a configuration, a sendmail and a curl that write down what they get; gives that.
#[track_caller]
fn told_by_script(conf: &str, arguments: &[&str]) -> (Option<i32>, String) {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    let dir = tempfile::tempdir().unwrap();
    let d = dir.path().display();
    let record = |name: &str, answer: &str| {
        let text = format!(
            "#!/bin/sh\necho \"{name} $*\" >>{d}/out\ncat >>{d}/out\necho >>{d}/out\nprintf '%s' '{answer}'\n"
        );
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    record("sendmail", "");
    record("curl", "200");
    record("logger", "");
    let conf = format!("sendmail={d}/sendmail\ncurl={d}/curl\nlogger={d}/logger\n{conf}");
    fs::write(dir.path().join("health_alarm_notify.conf"), conf).unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let ran = Command::new(format!("{root}/plugins.d/alarm-notify.sh"))
        .args(arguments)
        .env("NETDATA_STOCK_CONFIG_DIR", format!("{root}/conf.d"))
        .env("NETDATA_USER_CONFIG_DIR", dir.path())
        .output()
        .unwrap();
    let out = fs::read_to_string(dir.path().join("out")).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&ran.stderr).contains("s3cret"));
    (ran.status.code(), out)
}

/// Arguments as the agent gives them.
fn event<'a>(role: &'a str, status: &'a str, before: &'a str) -> Vec<&'a str> {
    vec![
        role,
        "my \"host\"",
        "1",
        "2",
        "3",
        "1700000000",
        "high",
        "t.x",
        "fam",
        status,
        before,
        "25",
        "15",
        "1@f.conf",
        "65",
        "100",
        "%",
        "it's \"bad\"",
        "25%",
        "15%",
        "$this > 20",
        "[ $this = 25 ] ",
        "1",
        "2",
        "a=1",
        "b=2",
        "Errors",
        "sudo edit",
        "guid",
    ]
}

#[test]
fn the_script_tells_syslog_and_a_function_of_the_users_own() {
    let conf = "SEND_EMAIL=NO\nSEND_SYSLOG=YES\nrole_recipients_syslog[dba]='local3.x daemon'\n\
        SEND_CUSTOM=YES\nDEFAULT_RECIPIENT_CUSTOM=pager\n\
        custom_sender() { \"$logger\" \"own $1 ${host} ${name} ${status} ${value}\"; }\n";
    let (code, out) = told_by_script(conf, &event("sysadmin", "CRITICAL", "WARNING"));
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("logger -t netdata -p local6.crit -- "), "{out}");
    assert!(out.contains("logger own pager my \"host\" high CRITICAL 25"), "{out}");
    assert!(!out.contains("sendmail"), "{out}");
    let (_, out) = told_by_script(conf, &event("dba", "WARNING", "CLEAR"));
    assert!(out.contains("-p local3.warning") && out.contains("-p daemon.warning"), "{out}");
}

#[test]
fn an_alarm_of_a_host_called_test_is_no_test() {
    let mut arguments = event("root", "CRITICAL", "CLEAR");
    arguments[1] = "test";
    let (code, out) = told_by_script("DEFAULT_RECIPIENT_EMAIL=root\n", &arguments);
    assert_eq!((code, out.matches("sendmail ").count()), (Some(0), 1), "{out}");
    assert!(!out.contains("test_alarm"), "{out}");
}

#[test]
fn the_script_tells_every_method_and_shows_no_secret() {
    let conf = "DEFAULT_RECIPIENT_EMAIL='root ops|critical nobody|nowarn disabled'\n\
        role_recipients_email[dba]=dba@example.com\n\
        SEND_WEBHOOK=YES WEBHOOK_URL=http://w/s3cret WEBHOOK_TOKEN=s3cret\n\
        SLACK_WEBHOOK_URL=https://slack/s3cret DISCORD_WEBHOOK_URL=https://discord/s3cret\n\
        DEFAULT_RECIPIENT_NTFY=https://ntfy/s3cret NTFY_ACCESS_TOKEN=s3cret\n\
        TELEGRAM_BOT_TOKEN=s3cret DEFAULT_RECIPIENT_TELEGRAM=123 DEFAULT_RECIPIENT_PD=s3cret\n\
        role_recipients_unknown[sysadmin]=x\n";
    let (code, out) = told_by_script(conf, &event("sysadmin", "CRITICAL", "WARNING"));
    assert_eq!(code, Some(0), "{out}");
    let to: Vec<&str> = out.lines().filter(|line| line.starts_with("To: ")).collect();
    assert_eq!(to, ["To: nobody", "To: ops", "To: root"]);
    let commands: Vec<&str> =
        out.lines().filter(|l| l.starts_with("curl ") || l.starts_with("sendmail ")).collect();
    assert_eq!(commands.len(), 3 + 6, "{out}");
    assert!(commands.iter().all(|line| !line.contains("s3cret")), "{commands:?}");
    for url in [
        "http://w/s3cret",
        "https://slack/s3cret",
        "https://discord/s3cret",
        "https://ntfy/s3cret",
        "https://api.telegram.org/bots3cret/sendMessage",
        "https://events.pagerduty.com/v2/enqueue",
    ] {
        assert!(out.contains(&format!("url = \"{url}\"")), "{url}");
    }
    // Every body is JSON, but that of ntfy.
    let bodies = out.lines().filter_map(|line| line.strip_prefix("data-binary = "));
    let bodies: Vec<String> = bodies.map(|body| serde_json::from_str(body).unwrap()).collect();
    let json =
        bodies.iter().filter(|b| serde_json::from_str::<serde_json::Value>(b).is_ok()).count();
    assert_eq!((bodies.len(), json), (6, 5), "{bodies:?}");

    let (_, out) = told_by_script(conf, &event("sysadmin", "WARNING", "CLEAR"));
    assert_eq!(
        out.lines().filter(|line| line.starts_with("To: ")).collect::<Vec<_>>(),
        ["To: root"]
    );
    let (_, out) = told_by_script(conf, &event("dba", "WARNING", "CLEAR"));
    assert!(out.contains("To: dba@example.com") && !out.contains("To: root"));
    for quiet in [event("silent", "CRITICAL", "CLEAR"), event("sysadmin", "CLEAR", "UNINITIALIZED")]
    {
        assert_eq!(told_by_script(conf, &quiet), (Some(0), String::new()));
    }
    let (code, out) = told_by_script("", &["test", "sysadmin"]);
    assert_eq!((code, out.matches("To: root").count()), (Some(0), 3), "{out}");
}

/// Our own stock alarms about streaming and the store, in times that a test can wait for.
fn own_alarms() -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut text = fs::read_to_string(format!("{root}/conf.d/health.d/streaming.conf")).unwrap();
    for (theirs, ours) in [
        ("-15m", "-20s"),
        ("-10m", "-20s"),
        ("-1m", "-5s"),
        ("every: 30s", "every: 1s"),
        ("every: 1m", "every: 1s"),
        ("every: 10s", "every: 1s"),
        ("(10) : (30)", "(1) : (2)"),
        ("(60) : (900)", "(1) : (3)"),
        ("(1024) : (512)", "(1e12) : (1e12)"),
        ("delay: up", "# delay: up"),
    ] {
        assert!(text.contains(theirs), "{theirs}");
        text = text.replace(theirs, ours);
    }
    text
}

#[test]
fn our_own_alarms_speak_up() {
    let nowhere = free_port();
    let mut agent = takes(watching(Agent::new("agent")), "no")
        .mode("dbengine")
        .collecting()
        .plugin("feed", FEED)
        .file("etc/health.d/t.conf", &own_alarms(), 0o644);
    agent.edit_stream(|text| {
        format!(
            "[stream]\n    enabled = yes\n    destination = 127.0.0.1:{nowhere}\n    api key = {KEY}\n    \
             reconnect delay seconds = 1\n{text}"
        )
    });
    let mut agent = agent.start();
    let is = |agent: &Agent, name: &str, statuses: &[&str]| {
        wait_for(&format!("{name}: {statuses:?}"), 90, || {
            let json = agent.try_json("/api/v1/alarms?all")?;
            let alarm =
                json["alarms"].as_object()?.values().find(|alarm| alarm["name"] == name)?.clone();
            statuses.contains(&alarm["status"].as_str()?).then_some(())
        });
    };
    is(&agent, "store_damaged", &["CLEAR"]);
    is(&agent, "store_cannot_write", &["CLEAR"]);
    is(&agent, "retention_disk_space", &["WARNING", "CRITICAL"]);
    is(&agent, "stream_replication_behind", &["CLEAR"]);
    is(&agent, "stream_clock_skew", &["CLEAR"]);
    // Connections that fail again and again.
    is(&agent, "stream_reconnect_loop", &["WARNING"]);
    // A child whose clock is a hundred seconds behind, that has a past and does not answer when it is asked for it.
    let guid = uuid::Uuid::new_v4().to_string();
    let mut child = FakeChild::connect(agent.port, "slow", &guid, 15352).unwrap();
    let wall = now() - 100;
    assert!(child.send(&format!(
        "CHART t.y '' 'Title' things fam t.ctx line 1 1 '' p m\nDIMENSION a a absolute 1 1\n\
         CHART_DEFINITION_END {} {} {wall}\n",
        wall - 3000,
        wall
    )));
    is(&agent, "stream_clock_skew", &["CRITICAL"]);
    is(&agent, "stream_replication_behind", &["WARNING", "CRITICAL"]);
    is(&agent, "stream_children_lost", &["CLEAR"]);
    drop(child);
    is(&agent, "stream_children_lost", &["WARNING"]);
    is(&agent, "stream_clock_skew", &["CLEAR"]);
    is(&agent, "stream_replication_behind", &["CLEAR"]);

    agent.stop();
    // What belongs to no record of the catalog.
    let catalog = agent.dir().join("cache/dbengine/catalog.log");
    let mut bytes = fs::read(&catalog).unwrap();
    bytes.extend([0xAB; 256]);
    fs::write(&catalog, bytes).unwrap();
    agent.launch();
    is(&agent, "store_damaged", &["WARNING"]);
    wait_told(&agent, "agent store_damaged UNINITIALIZED WARNING");
}
