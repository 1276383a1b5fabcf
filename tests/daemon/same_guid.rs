//! A new connection of a child takes over from its old one, which is dead or silent.

use std::time::{Duration, Instant};

use crate::harness::*;

const DEFINITION: &str = "CHART \"own.load\" \"\" \"Own\" \"units\" \"own\" \"own.load\" \"line\" 1000 1 \"\" \"p\" \"m\"\n\
                          DIMENSION \"a\" \"a\" \"absolute\" 1 1 \"\"\n";

#[test]
fn a_new_connection_takes_over_within_a_second() {
    let parent = Agent::new("parent").takes_children().start();
    let guid = uuid::Uuid::new_v4().to_string();
    let mut old = FakeChild::connect(parent.port, "twin", &guid, OLD_LIVE).unwrap();
    assert!(old.send(DEFINITION));
    wait_for("the first definition", 10, || (!parent.charts("twin").is_empty()).then_some(()));
    for round in 0..5 {
        let asked = Instant::now();
        let mut new = FakeChild::connect(parent.port, "twin", &guid, OLD_LIVE).unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1), "took {:?}", asked.elapsed());
        assert!(
            old.link.closed_within(Duration::from_secs(2)),
            "round {round}: the old connection stays open"
        );
        assert!(new.send(DEFINITION));
        let sent = now();
        for value in 1..=3 {
            assert!(new.send(&format!("BEGIN \"own.load\" 0\nSET \"a\" = {value}\nEND\n")));
            pause(Duration::from_secs(1));
        }
        let held = parent.samples("twin", "own.load", 1, sent - 1, now());
        assert!(!held.is_empty(), "round {round}: nothing of the new connection is stored");
        old = new;
    }
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
