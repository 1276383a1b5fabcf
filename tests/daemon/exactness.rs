//! A sample reads the same on the child, on every proxy and on every parent.

use crate::harness::*;

/// A child that collects this machine, so many proxies, and a parent; compares ten seconds of everything.
#[track_caller]
fn check(proxies: usize, proxy_mode: &str) {
    check_with(COUNTING, proxies, proxy_mode);
}

#[track_caller]
fn check_with(plugin: &str, proxies: usize, proxy_mode: &str) {
    let parent = Agent::new("parent").takes_children().start();
    let mut chain = vec![parent];
    for n in 0..proxies {
        let next = chain.last().unwrap().port;
        let proxy = Agent::new(&format!("proxy{n}"));
        chain.push(
            proxy.mode(proxy_mode).takes_children_with(proxy_mode, "").streams_to(&[next]).start(),
        );
    }
    let next = chain.last().unwrap().port;
    let child =
        Agent::new("child").collecting().plugin("counting", plugin).streams_to(&[next]).start();
    let parent = &chain[0];
    parent.wait_live("child", "own.load", 60);
    parent.wait_live("child", "system.cpu", 60);
    let from = now() + 2;
    wait_for("ten seconds more", 60, || (now() >= from + 13).then_some(()));
    let span = (from, from + 10);
    let everything = differences(&child, parent, span, Compare::Exact);
    everything.none(2_000);
    assert!(everything.charts > 30, "only {} charts", everything.charts);
    if proxy_mode == "ram" {
        for proxy in &chain[1..] {
            differences(&child, proxy, span, Compare::Exact).none(2_000);
        }
    }
    for (time, row) in parent.samples("child", "own.load", 1, span.0, span.1) {
        let b: f64 = row["b"].parse().unwrap();
        // A round of the plugin takes a second or, where the machine is busy, more.
        assert!((2.0..11.0).contains(&b), "the counter grows by ten a round, not {b} at {time}");
    }
}

#[test]
fn every_sample_of_every_chart_reaches_the_parent_as_the_child_has_it() {
    check(0, "ram");
}

#[test]
fn every_sample_passes_a_proxy_unchanged() {
    check(1, "ram");
}

#[test]
fn every_sample_passes_two_proxies_unchanged() {
    check(2, "ram");
}

#[test]
fn every_sample_passes_a_proxy_without_database_unchanged() {
    check(1, "none");
}

#[test]
fn charts_born_in_mid_stream_pass_two_proxies_from_their_first_sample_on() {
    check_with(BEARING, 2, "ram");
}

#[test]
fn charts_born_in_mid_stream_pass_proxies_without_database_from_their_first_sample_on() {
    check_with(BEARING, 2, "none");
}
