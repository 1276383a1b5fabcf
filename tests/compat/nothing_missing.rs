//! Whatever the child has collected since the link stands is on the parent, through proxies of either make, compressed
//! (with lz4, the only algorithm both makes have) and in TLS.

use crate::certificates::Files;
use crate::harness::Program::{Ours, Real};
use crate::harness::*;

/// Child first, parent last.
#[track_caller]
fn check(test: &str, chain: &[Program]) {
    check_with(test, chain, None);
}

/// The same, inside TLS where there are files for it.
#[track_caller]
fn check_with(test: &str, chain: &[Program], files: Option<&Files>) {
    if chain.iter().any(|program| program.path().is_none()) {
        return skipped(test, "there is no real netdata here (tests/peer.sh gets it)");
    }
    let (child, above) = chain.split_first().unwrap();
    let mut agents: Vec<Agent> = Vec::new();
    for (n, program) in above.iter().rev().enumerate() {
        let agent = Agent::new(&format!("level{n}")).program(*program);
        // The rings of 1.37.1 lose the first sample of a chart that is born while it streams; its dbengine keeps it.
        let agent = match program {
            Real => agent.mode("dbengine").takes_children_with("dbengine", ""),
            Ours => agent.takes_children(),
        };
        let agent = match files {
            Some(files) => agent.shows(files),
            None => agent,
        };
        let agent = match agents.last() {
            Some(parent) => streams_to(agent, parent, files),
            None => agent,
        };
        agents.push(agent.start());
    }
    let child = Agent::new("child").program(*child).collecting().plugin("counting", COUNTING);
    let child = streams_to(child, agents.last().unwrap(), files).start();
    let parent = &agents[0];
    parent.wait_live("child", "own.load", 90);
    parent.wait_live("child", "system.cpu", 60);
    let from = now() + 5;
    wait_for("ten seconds more", 60, || (now() >= from + 18).then_some(()));
    let log = child.log();
    let agreed = log.lines().find(|line| line.contains("negotiated capabilities")).unwrap_or("");
    assert!(agreed.contains("COMPRESSION"), "{agreed}");
    differences(&child, parent, (from, from + 10), Compare::Presence).none(1_500);
    // Ten a second, or what a busy machine makes of it.
    let rate = |agent: &Agent, host: &str| {
        let rows = agent.samples(host, "own.load", 1, from, from + 10);
        rows.values().map(|row| row["b"].parse::<f64>().unwrap()).sum::<f64>() / rows.len() as f64
    };
    let (here, there) = (rate(&child, ""), rate(parent, "child"));
    assert!(
        here > 2.0 && (here - there).abs() < 2.0,
        "a counter grows by {here}, there by {there}"
    );
}

fn streams_to(agent: Agent, parent: &Agent, files: Option<&Files>) -> Agent {
    match files {
        Some(files) => {
            agent.streams_to_with(&format!("localhost:{}:SSL", parent.port), &files.trusted())
        }
        None => agent.streams_to(&[parent.port]),
    }
}

#[test]
fn our_child_to_a_real_parent_in_tls() {
    check_with("our_child_to_a_real_parent_in_tls", &[Ours, Real], Some(&Files::new()));
}

#[test]
fn a_real_child_to_our_parent_in_tls() {
    check_with("a_real_child_to_our_parent_in_tls", &[Real, Ours], Some(&Files::new()));
}

#[test]
fn our_child_to_a_real_parent() {
    check("our_child_to_a_real_parent", &[Ours, Real]);
}

#[test]
fn a_real_child_to_our_parent() {
    check("a_real_child_to_our_parent", &[Real, Ours]);
}

#[test]
fn our_child_through_a_real_proxy_to_our_parent() {
    check("our_child_through_a_real_proxy_to_our_parent", &[Ours, Real, Ours]);
}

#[test]
fn a_real_child_through_our_proxy_to_a_real_parent() {
    check("a_real_child_through_our_proxy_to_a_real_parent", &[Real, Ours, Real]);
}
