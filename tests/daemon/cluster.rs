//! Parents that stream to each other: what one of them holds reaches the others, whichever way their links point.

use crate::harness::*;

/// A parent with a store on the disk, that streams to the given ones.
fn member(name: &str, to: &[u16]) -> Agent {
    let agent = Agent::new(name).mode("dbengine").takes_children_with("dbengine", "");
    if to.is_empty() { agent } else { agent.streams_to(to) }
}

/// Waits until the other agent has of the child what the one has.
#[track_caller]
fn same(one: &Agent, other: &Agent, chart: &str, from: i64, until: i64, seconds: u64) {
    let want = one.samples("child", chart, 1, from, until);
    assert!(want.len() >= 3, "{} has {} samples to compare", one.dir().display(), want.len());
    wait_for("the other parent to have the same", seconds, || {
        (other.samples("child", chart, 1, from, until) == want).then_some(())
    });
}

#[test]
fn a_host_that_is_gone_for_good_is_known_to_both_parents_in_the_end() {
    let port = free_port();
    // The child's own memory is short, and it is gone before the second parent comes.
    let mut first = member("first", &[port]).start();
    let child = Agent::new("child").plugin("counting", COUNTING).streams_to(&[first.port]).start();
    first.wait_live("child", "own.load", 30);
    let from = now();
    wait_for("some samples", 20, || (now() > from + 6).then_some(()));
    drop(child);
    let mut second = member("second", &[]).port(port).start();
    same(&first, &second, "own.load", from, from + 4, 60);
    assert_eq!(second.stop().code, Some(0));
    assert_eq!(first.stop().code, Some(0));
}

#[test]
fn what_only_the_parent_above_holds_comes_back_down() {
    let mut above = member("above", &[]).start();
    let mut below = member("below", &[above.port]).start();
    let child = Agent::new("child").plugin("counting", COUNTING);
    let child = child.mode("none").streams_to(&[below.port]).start();
    above.wait_live("child", "own.load", 30);
    let from = now();
    wait_for("some samples", 20, || (now() > from + 6).then_some(()));
    below.kill();
    below.wipe_cache();
    below.begin();
    same(&above, &below, "own.load", from, from + 5, 60);
    wait_for("live samples at both", 30, || (now() > from + 25).then_some(()));
    // The parent may not be asked yet, on a slow machine; a sample that differs stays so.
    let is_the_same = || {
        let verified = below.cli(&["verify", "child", &from.to_string(), &(from + 5).to_string()]);
        println!("{verified}");
        (verified.contains("No sample differs: ")
            && verified.contains("are the same at the parent"))
        .then_some(())
    };
    wait_for("no sample that differs", 20, is_the_same);
    drop(child);
    assert_eq!(above.stop().code, Some(0));
}

#[test]
fn who_may_not_read_through_the_api_gets_no_past_over_a_stream() {
    const SPANS: u32 = 1 << 30;
    for (from, share, expected) in [
        ("*", "", true),
        ("10.*", "", false),
        ("10.*", "    share the past = yes", true),
        ("*", "    share the past = no", false),
    ] {
        let parent = Agent::new("parent").takes_children_with("ram", share);
        let mut parent = parent.option("web", "allow dashboard from", from);
        parent.launch();
        let guid = uuid::Uuid::new_v4().to_string();
        let child = wait_for("the parent to take the child", 30, || {
            FakeChild::connect(parent.port, "child", &guid, NEW_LIVE | SPANS).ok()
        });
        assert_eq!(child.caps & SPANS != 0, expected, "dashboard from '{from}', {share}");
    }
}

#[test]
fn two_live_nodes_of_one_guid_are_named_and_the_first_one_stays() {
    let parent = Agent::new("parent").takes_children().start();
    let guid = uuid::Uuid::new_v4().to_string();
    let first = Agent::new("first").plugin("counting", COUNTING).guid(&guid);
    let first = first.streams_to(&[parent.port]).start();
    parent.wait_live("first", "own.load", 30);
    let mut second = Agent::new("second").plugin("counting", COUNTING).guid(&guid);
    second = second.streams_to(&[parent.port]).start();
    parent.wait_log("is used by two live nodes: 'first' at", 20);
    let said = parent.log().matches("is used by two live nodes").count();
    assert_eq!(said, 1);
    parent.wait_live("first", "own.load", 5);
    drop((first, second));
}
