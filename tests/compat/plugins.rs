//! Debian's real plugins run under our agent, and their charts reach the parent.

use crate::harness::*;

/// Runs one plugin under a child of ours and waits for live samples of its charts on the parent.
#[track_caller]
fn check(plugin: &str, files: &[(&str, &str)], charts: &[&str]) {
    let Some(debian) = debian_files() else {
        return skipped(plugin, "Debian's plugins are not here (tests/peer.sh gets them)");
    };
    let parent = Agent::new("parent").takes_children().start();
    let mut child = Agent::new("child").debian_plugin(plugin, &debian).streams_to(&[parent.port]);
    for (path, content) in files {
        child = child.file(path, content, 0o644);
    }
    let mut child = child.start();
    for chart in charts {
        parent.wait_live("child", chart, 60);
    }
    for chart in charts {
        wait_for(&format!("three samples of {chart}"), 20, || {
            (parent.samples("child", chart, 1, now() - 10, now()).len() >= 3).then_some(())
        });
    }
    assert_eq!(child.stop().code, Some(0), "{}", child.log_end());
}

#[test]
fn apps_plugin() {
    check("apps", &[], &["apps.cpu", "apps.mem", "users.cpu", "groups.cpu"]);
}

#[test]
fn charts_d_plugin() {
    let conf = "enable_all_charts=\"no\"\nexample=force\n";
    let example = "example_magic_number=12345\n";
    check(
        "charts.d",
        &[("etc/charts.d.conf", conf), ("etc/charts.d/example.conf", example)],
        &["example.random"],
    );
}

#[test]
fn python_d_plugin() {
    let conf = "enabled: yes\ndefault_run: no\nexample: yes\n";
    let example = "four:\n  name: four\n  lines: 4\n";
    check(
        "python.d",
        &[("etc/python.d.conf", conf), ("etc/python.d/example.conf", example)],
        &["example_four.random"],
    );
}
