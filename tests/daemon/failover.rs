//! A child has a list of parents and finds one that answers.

use std::time::Duration;

use crate::harness::*;

#[test]
fn a_dead_first_destination_costs_nothing() {
    let dead = free_port();
    let parent = Agent::new("parent").takes_children().start();
    let child =
        Agent::new("child").plugin("counting", COUNTING).streams_to(&[dead, parent.port]).start();
    parent.wait_live("child", "own.load", 15);
    drop(child);
}

#[test]
fn when_a_parent_dies_the_next_one_takes_over() {
    let mut first = Agent::new("first").takes_children().start();
    let mut second = Agent::new("second").takes_children().start();
    let child = Agent::new("child")
        .plugin("counting", COUNTING)
        .streams_to(&[first.port, second.port])
        .start();
    first.wait_live("child", "own.load", 30);
    assert!(second.charts("child").is_empty());
    first.kill();
    second.wait_live("child", "own.load", 15);
    first.begin();
    assert_eq!(second.stop().code, Some(0));
    first.wait_live("child", "own.load", 15);
    drop(child);
}

#[test]
fn a_parent_that_goes_silent_is_given_up() {
    let silent = FakeParent::listen(NEW_LIVE);
    let parent = Agent::new("parent").takes_children().start();
    let child = Agent::new("child").plugin("counting", COUNTING);
    let child = child.streams_to(&[silent.port, parent.port]).start();
    let (socket, head) = silent.request(20);
    assert!(head.contains("hostname=child"));
    // no answer within `timeout seconds` (10), and the child goes on with the list
    parent.wait_live("child", "own.load", 40);
    drop(socket);
    drop(child);
}

#[test]
fn a_refusal_is_logged_with_its_reason_and_the_next_one_is_tried() {
    let refusing = Agent::new("refusing").start();
    let parent = Agent::new("parent").takes_children().start();
    let child = Agent::new("child").plugin("counting", COUNTING);
    let child = child.streams_to(&[refusing.port, parent.port]).start();
    parent.wait_live("child", "own.load", 20);
    child.wait_log("remote server denied access, probably we don't have the right API key?", 1);
    refusing.wait_log("is not allowed. Forbidding access.", 1);
}

#[test]
fn a_parent_that_stops_reading_never_stops_the_child_from_collecting() {
    let stuck = FakeParent::listen(NEW_LIVE);
    // a plugin that fills any socket buffer, and one whose samples must go on
    let flood = "#!/bin/bash
echo \"CHART flood.all '' Flood things flood flood.all line 1000 1\"
for d in {1..200}; do echo \"DIMENSION d$d '' absolute 1 1\"; done
for i in {1..36000}; do
    echo 'BEGIN flood.all 100000'
    for d in {1..200}; do echo \"SET d$d = $i$d\"; done
    echo END
    sleep 0.1
done
";
    let child = Agent::new("child").plugin("counting", COUNTING).plugin("flood", flood);
    let child = child.streams_to(&[stuck.port]).stream("    buffer size bytes = 65536\n").start();
    let (mut link, _) = stuck.accept(20);
    link.expect("CHART", 20);
    // from here on nothing is read
    let from = now();
    wait_for("the child to give that connection up", 60, || {
        child.log().contains("Restarting connection").then_some(())
    });
    let until = now() - 2;
    let kept = child.samples("", "own.load", 1, from, until);
    assert!(
        until > from + 1 && kept.len() as i64 >= until - from - 1,
        "{} of {} s",
        kept.len(),
        until - from
    );
    pausing(link);
}

fn pausing(link: Link) {
    drop(link);
    pause(Duration::from_millis(1));
}
