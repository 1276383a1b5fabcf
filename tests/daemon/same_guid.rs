//! A new connection of a child takes over from its old one, which is dead or silent.

use std::time::{Duration, Instant};

use crate::harness::*;

const DEFINITION: &str = "CHART \"own.load\" \"\" \"Own\" \"units\" \"own\" \"own.load\" \"line\" 1000 1 \"\" \"p\" \"m\"\n\
                          DIMENSION \"a\" \"a\" \"absolute\" 1 1 \"\"\n";

/// Streams a sample every second, as a child does, for so many seconds.
fn speak(child: &mut FakeChild, seconds: u32) {
    assert!(child.send(DEFINITION));
    for value in 1..=seconds {
        assert!(child.send(&format!("BEGIN \"own.load\" 0\nSET \"a\" = {value}\nEND\n")));
        pause(Duration::from_secs(1));
    }
}

/// Connects again and again, as a child does that lost its link, until it is let in.
#[track_caller]
fn come_back(parent: &Agent, guid: &str) -> FakeChild {
    let asked = Instant::now();
    loop {
        match FakeChild::connect(parent.port, "twin", guid, OLD_LIVE) {
            Ok(child) => return child,
            Err(answer) => assert_eq!(answer, "This GUID is already streaming to this server"),
        }
        assert!(asked.elapsed() < Duration::from_secs(1), "locked out\n{}", parent.log_end());
        pause(Duration::from_millis(100));
    }
}

#[test]
fn a_new_connection_takes_over_from_a_silent_one_within_a_second() {
    let parent = Agent::new("parent").takes_children().start();
    let guid = uuid::Uuid::new_v4().to_string();
    let mut old = FakeChild::connect(parent.port, "twin", &guid, OLD_LIVE).unwrap();
    for round in 0..2 {
        speak(&mut old, 4);
        // its machine is gone: nothing more comes, not even the end of the connection
        pause(Duration::from_secs(5));
        let mut new = come_back(&parent, &guid);
        assert!(
            old.link.closed_within(Duration::from_secs(2)),
            "round {round}: the old link stays open"
        );
        let from = now();
        speak(&mut new, 3);
        let held = parent.samples("twin", "own.load", 1, from - 1, now());
        assert!(!held.is_empty(), "round {round}: nothing of the new link is stored");
        old = new;
    }
}

#[test]
fn a_new_connection_takes_over_from_a_closed_one_at_once() {
    let parent = Agent::new("parent").takes_children().start();
    let guid = uuid::Uuid::new_v4().to_string();
    for _ in 0..5 {
        let mut child = come_back(&parent, &guid);
        speak(&mut child, 1);
    }
}

#[test]
fn a_speaking_connection_is_not_thrown_out() {
    let parent = Agent::new("parent").takes_children().start();
    let guid = uuid::Uuid::new_v4().to_string();
    let mut first = FakeChild::connect(parent.port, "twin", &guid, OLD_LIVE).unwrap();
    speak(&mut first, 3);
    let second = FakeChild::connect(parent.port, "twin", &guid, OLD_LIVE).err();
    assert_eq!(second.as_deref(), Some("This GUID is already streaming to this server"));
    speak(&mut first, 1);
    assert!(!first.link.closed_within(Duration::from_millis(200)));
}

#[test]
fn our_own_guid_is_refused() {
    let parent = Agent::new("parent").takes_children().start();
    let answer = FakeChild::connect(parent.port, "loop", &parent.guid, OLD_LIVE).err();
    assert_eq!(
        answer.as_deref(),
        Some("Don't hit me baby, you are trying to stream my localhost back")
    );
}
