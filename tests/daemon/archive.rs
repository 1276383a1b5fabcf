//! What a parent knows of hosts that are not there: after a restart, without its metadata database, from a copy.

use std::fs;
use std::path::Path;

use crate::harness::*;

const GUID: &str = "cccccccc-0000-4000-8000-000000000001";
const SECONDS: i64 = 50;

/// A child that has streamed two charts for a while, some time ago. Gives the second after which its samples begin.
fn stream(parent: &Agent, charts: &[&str]) -> (FakeChild, i64) {
    let mut child = FakeChild::connect(parent.port, "kid", GUID, NEW_LIVE).unwrap();
    let after = now() - 300;
    let mut text = String::new();
    for (slot, chart) in charts.iter().enumerate().map(|(n, chart)| (n + 1, chart)) {
        text += &format!(
            "CHART SLOT:{slot} \"{chart}\" \"{chart}_name\" \"Some title\" \"things\" \"fam\" \"own.ctx\" \"area\" 1500 1 \"\" \"p\" \"m\"\n\
             CLABEL \"colour\" \"red\" 2\nCLABEL_COMMIT\n\
             DIMENSION SLOT:1 \"z\" \"Last letter\" \"absolute\" 1 1 \"\"\nDIMENSION SLOT:2 \"a\" \"\" \"absolute\" 1 1 \"\"\n"
        );
    }
    for second in 1..=SECONDS {
        for (slot, chart) in charts.iter().enumerate().map(|(n, chart)| (n + 1, chart)) {
            let end = after + second;
            text += &format!(
                "BEGIN2 SLOT:{slot} '{chart}' 1 {end} #\nSET2 SLOT:1 'z' {second} {second} A\nSET2 SLOT:2 'a' 7 7.5 A\nEND2\n"
            );
        }
    }
    assert!(child.send(&text));
    let last = charts.last().unwrap();
    wait_for("all samples to be there", 20, || {
        let json = parent.try_json(&format!("/host/kid/api/v1/chart?chart={last}"))?;
        (json["last_entry"] == after + SECONDS).then_some(())
    });
    // The thread that writes names down looks once a second.
    let database = parent.dir().join("cache/netdata-meta.db-wal");
    wait_for("the names to be written", 20, || {
        let bytes = fs::read(&database).unwrap_or_default();
        bytes.windows(last.len() - 4).any(|w| w == &last.as_bytes()[4..]).then_some(())
    });
    (child, after)
}

/// Everything of the child is there, though it is not.
#[track_caller]
fn check(parent: &Agent, after: i64, charts: &[&str]) {
    let info = parent.json("/api/v1/info");
    let hosts = info["mirrored_hosts_status"].as_array().unwrap();
    let kid = hosts.iter().find(|host| host["guid"] == GUID).expect("it is listed");
    assert_eq!((&kid["hostname"], &kid["reachable"]), (&"kid".into(), &false.into()));
    let stream_info = parent.json(&format!("/api/v3/stream_info?machine_guid={GUID}"));
    assert_eq!(stream_info["ingest_status"], "archived");
    assert_eq!(stream_info["last_time_s"], after + SECONDS);
    let listed = parent.charts("kid");
    assert_eq!(listed.keys().map(String::as_str).collect::<Vec<_>>(), charts);
    for chart in charts {
        let described = &listed[*chart];
        assert_eq!(described["title"], format!("Some title ({chart}_name)"), "{described}");
        assert_eq!(
            (&described["chart_type"], &described["priority"]),
            (&"area".into(), &1500.into())
        );
        assert_eq!(described["chart_labels"]["colour"], "red");
        for name in [chart.to_string(), format!("{chart}_name")] {
            let samples = parent.samples("kid", &name, 1, after, after + SECONDS);
            assert_eq!(samples.len() as i64, SECONDS, "{name}: {samples:?}");
            for (time, values) in samples {
                assert_eq!(values["Last letter"], (time - after).to_string());
                assert_eq!(values["a"], "7.5");
            }
        }
    }
    let context = parent.json("/host/kid/api/v1/context?context=own.ctx&options=charts");
    assert_eq!(context["charts"].as_object().unwrap().len(), charts.len());
    let query =
        format!("context=own.ctx&after={after}&before={}&points=1&group=max", after + SECONDS);
    let answer = parent.json(&format!("/host/{GUID}/api/v1/data?{query}"));
    assert_eq!(answer["labels"].as_array().unwrap().len(), 1 + 2 * charts.len());
}

fn parent(mode: &str) -> Agent {
    Agent::new("parent").mode(mode).takes_children_with(mode, "")
}

#[test]
fn a_child_is_there_after_a_restart_before_it_connects() {
    let charts = ["own.chart-one", "own.chart-two"];
    for mode in ["dbengine", "save", "map"] {
        let mut parent = parent(mode).start();
        let (child, after) = stream(&parent, &charts);
        drop(child);
        assert_eq!(parent.stop().code, Some(0), "{}", parent.log_end());
        parent.begin();
        check(&parent, after, &charts);
        // It comes back, and what it does not send any more is still found.
        let (child, after_again) = stream(&parent, &charts[..1]);
        parent.wait_log("Host kid is not in archived mode anymore", 5);
        assert_eq!(parent.charts("kid").len(), 1);
        let old = parent.samples("kid", "own.chart-two", 1, after, after + SECONDS);
        assert_eq!(old.len() as i64, SECONDS, "{mode}");
        let both = parent.samples("kid", "own.chart-one", 1, after, after_again + SECONDS);
        assert!(both.len() as i64 > SECONDS || after == after_again, "{mode}: {}", both.len());
        let info = parent.json(&format!("/api/v3/stream_info?machine_guid={GUID}"));
        assert_eq!(info["ingest_status"], "online");
        drop(child);
    }
}

#[test]
fn a_kill_takes_no_names_and_no_samples() {
    let charts = ["own.chart-one", "own.chart-two"];
    let mut parent = parent("dbengine").start();
    let (_child, after) = stream(&parent, &charts);
    // The promise is for what is older than a second.
    pause(std::time::Duration::from_millis(1200));
    parent.kill();
    parent.begin();
    check(&parent, after, &charts);
}

#[test]
fn without_its_metadata_database_nothing_is_lost() {
    let charts = ["own.chart-one", "own.chart-two"];
    let mut parent = parent("dbengine").start();
    let (child, after) = stream(&parent, &charts);
    drop(child);
    assert_eq!(parent.stop().code, Some(0));
    let file = parent.dir().join("cache/netdata-meta.db");
    let spoil: [fn(&Path); 3] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, vec![0x5A; 20_000]).unwrap(),
        |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes[4096..].fill(0);
            fs::write(file, bytes).unwrap();
        },
    ];
    for (way, spoil) in spoil.into_iter().enumerate() {
        spoil(&file);
        parent.begin();
        wait_for("the child to be listed", 10, || (parent.charts("kid").len() == 2).then_some(()));
        check(&parent, after, &charts);
        assert_eq!(file.with_extension("db.damaged").exists(), way > 0, "way {way}");
        let errors = parent.log().matches("netdata-meta.db' is damaged").count();
        assert_eq!(errors, way, "one line each");
        assert_eq!(parent.stop().code, Some(0));
    }
}

#[test]
fn a_copied_cache_is_a_second_parent() {
    let charts = ["own.chart-one", "own.chart-two"];
    let mut first = parent("dbengine").start();
    let (child, after) = stream(&first, &charts);
    drop(child);
    assert_eq!(first.stop().code, Some(0));
    let mut second = parent("dbengine");
    second.name = "second".into();
    copy(&first.dir().join("cache"), &second.dir().join("cache"));
    second.begin();
    check(&second, after, &charts);
    assert_eq!(second.json("/api/v1/info")["mirrored_hosts"][0], "second");
    assert!(second.json("/api/v1/info")["mirrored_hosts"].to_string().contains("\"parent\""));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_is_over_goes_in_its_time() {
    let mut parent = parent("map")
        .option("db", "cleanup orphan hosts after secs", "1")
        .option("db", "delete orphan hosts files", "yes")
        .start();
    let (child, _) = stream(&parent, &["own.chart-one"]);
    let files = parent.dir().join("cache").join(GUID);
    assert!(files.exists());
    drop(child);
    parent
        .wait_log(&format!("Host 'kid' with machine guid '{GUID}' is obsolete - cleaning up."), 30);
    parent.wait_log("Deleting database of host 'kid'...", 5);
    wait_for("the files to go", 5, || (!files.exists()).then_some(()));
    assert_eq!(parent.json("/api/v1/info")["mirrored_hosts"].as_array().unwrap().len(), 1);
    assert_eq!(parent.stop().code, Some(0));
    parent.begin();
    assert_eq!(parent.json("/api/v1/info")["mirrored_hosts"].as_array().unwrap().len(), 1);
}
