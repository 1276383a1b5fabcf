//! Starting, stopping, starting again.

use std::fs;
use std::time::Duration;

use crate::harness::*;

const IN_TIME: Duration = Duration::from_secs(5);

#[test]
fn a_parent_and_its_streaming_child_stop_within_five_seconds() {
    let mut parent = Agent::new("parent").takes_children().start();
    let mut child = Agent::new("child")
        .collecting()
        .plugin("counting", COUNTING)
        .streams_to(&[parent.port])
        .start();
    parent.wait_live("child", "system.cpu", 30);
    parent.wait_live("child", "own.load", 30);
    for agent in [&mut parent, &mut child] {
        // Ctrl-C in a terminal often brings two signals.
        agent.signal("INT");
        let stopped = agent.stop();
        assert_eq!(stopped.code, Some(0), "{}\n{}", agent.name, agent.log_end());
        assert!(
            stopped.after < IN_TIME,
            "{} took {:?}\n{}",
            agent.name,
            stopped.after,
            agent.log_end()
        );
        assert!(agent.log().contains("EXIT: all done - netdata is now exiting - bye bye..."));
        assert!(!agent.dir().join("run/netdata.pid").exists());
    }
}

#[test]
fn a_plugin_that_ignores_its_pipe_does_not_outlive_the_agent() {
    let deaf = "#!/bin/sh\ntrap '' TERM PIPE HUP\necho $$ >\"$NETDATA_CACHE_DIR/deaf.pid\"\nwhile :; do sleep 1; done\n";
    let mut agent = Agent::new("agent").plugin("deaf", deaf).start();
    let file = agent.dir().join("cache/deaf.pid");
    let pid = wait_for("the plugin's process", 20, || {
        fs::read_to_string(&file).ok().filter(|t| t.ends_with('\n'))
    });
    let stopped = agent.stop();
    assert_eq!(stopped.code, Some(0));
    assert!(stopped.after < IN_TIME, "took {:?}", stopped.after);
    wait_for("the end of the plugin", 5, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn identity_stays_from_start_to_start() {
    let mut agent = Agent::new("agent").start();
    let first = agent.json("/api/v1/info")["uid"].clone();
    assert_eq!(first, agent.guid.as_str());
    assert_eq!(agent.stop().code, Some(0));
    agent.begin();
    assert_eq!(agent.json("/api/v1/info")["uid"], first);
}

#[test]
fn a_child_comes_back_to_a_parent_that_was_killed() {
    let mut parent = Agent::new("parent").takes_children().start();
    let child = Agent::new("child").plugin("counting", COUNTING).streams_to(&[parent.port]).start();
    parent.wait_live("child", "own.load", 30);
    parent.kill();
    parent.begin();
    parent.wait_live("child", "own.load", 30);
    drop(child);
}

#[test]
fn a_second_agent_on_the_same_port_does_not_start() {
    let first = Agent::new("first").start();
    let mut second =
        Agent::new("second").option("web", "bind to", &format!("127.0.0.1:{}", first.port));
    second.launch();
    assert_ne!(second.wait_end().code, Some(0), "{}", second.log_end());
    assert_eq!(first.json("/api/v1/info")["uid"], first.guid.as_str());
}
