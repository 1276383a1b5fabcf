//! A thousand children in one parent: bounded threads and memory, nothing dies.

use crate::harness::*;

const CHILDREN: u64 = 1_000;
/// Resident memory per idle connection beside its metrics.
const KIB_PER_CHILD: u64 = 64;

#[test]
fn a_thousand_idle_children_cost_little_and_all_stay() {
    let parent = Agent::new("parent").takes_children().start();
    let before = parent.status_kib("VmRSS");
    let mut children = Vec::new();
    for n in 0..CHILDREN {
        let guid = uuid::Uuid::new_v4().to_string();
        match FakeChild::connect(parent.port, &format!("child{n}"), &guid, OLD_LIVE) {
            Ok(child) => children.push(child),
            Err(answer) => panic!("child {n} was refused: '{answer}'\n{}", parent.log_end()),
        }
    }
    let receivers = || {
        parent.threads().iter().filter(|name| name.starts_with("STREAM_RECEIVER")).count() as u64
    };
    wait_for("a receiver for every child", 30, || (receivers() == CHILDREN).then_some(()));
    let after = parent.status_kib("VmRSS");
    let each = after.saturating_sub(before) / CHILDREN;
    eprintln!(
        "{CHILDREN} idle children: {before} KiB before, {after} KiB with them, {each} KiB each"
    );
    assert!(each <= KIB_PER_CHILD, "{each} KiB for each idle child");

    // all of them are alive: each defines a chart, and the API knows it
    for child in &mut children {
        assert!(child.send(
            "CHART \"own.x\" \"\" \"Own\" \"units\" \"own\" \"own.x\" \"line\" 1000 1 \"\" \"p\" \"m\"\nDIMENSION \"a\" \"a\" \"absolute\" 1 1 \"\"\n"
        ));
    }
    let hosts = parent.json("/api/v1/info")["mirrored_hosts"].as_array().unwrap().len() as u64;
    assert_eq!(hosts, CHILDREN + 1);
    wait_for("the chart of the last child", 20, || {
        (!parent.charts(&format!("child{}", CHILDREN - 1)).is_empty()).then_some(())
    });
    assert_eq!(receivers(), CHILDREN);

    drop(children);
    wait_for("the end of all receivers", 30, || (receivers() == 0).then_some(()));
}
