//! A child has a list of parents and finds one that answers.

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
fn an_only_parent_that_hangs_up_is_asked_again_and_again() {
    let parent = FakeParent::listen(NEW_LIVE);
    let child = Agent::new("child").plugin("counting", COUNTING);
    let child = child.streams_to(&[parent.port]).start();
    // `reconnect delay seconds` is one here
    for _ in 0..4 {
        let (socket, head) = parent.request(6);
        assert!(head.contains("hostname=child"));
        drop(socket);
    }
    let (mut link, _) = parent.accept(6);
    link.expect("CHART", 20);
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
    let stuck = FakeParent::listen(OLD_LIVE);
    // a plugin that fills any socket buffer, and one whose samples must go on
    let flood = "#!/bin/bash
echo \"CHART flood.all '' Flood things flood flood.all line 1000 1\"
block=$'BEGIN flood.all 10000\\n'
for d in {1..500}; do
    echo \"DIMENSION d$d '' absolute 1 1\"
    block+=\"SET d$d = 123456789\"$'\\n'
done
while printf '%sEND\\n' \"$block\"; do sleep 0.01; done
";
    let child = Agent::new("child").plugin("counting", COUNTING).plugin("flood", flood);
    let child = child.streams_to(&[stuck.port]).stream("    buffer size bytes = 65536\n").start();
    let (mut link, _) = stuck.accept(20);
    link.expect("CHART", 20);
    // from here on nothing is read
    let from = now();
    child.wait_log("Restarting connection", 60);
    wait_for("some seconds more", 10, || (now() >= from + 6).then_some(()));
    let kept = child.samples("", "own.load", 1, from, from + 4);
    assert_eq!(kept.len(), 4, "the child has holes of its own: {kept:?}");
    drop(link);
}
