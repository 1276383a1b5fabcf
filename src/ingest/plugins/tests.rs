//! Whole plugins: small scripts that run under the real scanner and its threads.

use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::channel;

use super::*;
use crate::base::ids::MachineGuid;
use crate::config::Present;
use crate::metrics::{FunctionAnswer, FunctionCall, Host, HostInfo, HostKind, HostSettings, Hosts};
use crate::storage::Mode;
use crate::storage::ring::RingEngine;

struct Lab {
    dir: tempfile::TempDir,
    stop: StopToken,
    hosts: Arc<Hosts>,
    plugins: Option<Plugins>,
}

impl Lab {
    fn start(scripts: &[(&str, &str)], conf: &str) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        for (name, script) in scripts {
            let file = dir.path().join(name);
            let script = script.replace("$DIR", &dir.path().to_string_lossy());
            std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let config = Arc::new(Config::new());
        config.load_text(conf, "test", Present::Replace);
        let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
        let info = HostInfo::named("h");
        let settings = HostSettings::default();
        let host = Host::new(MachineGuid::random(), HostKind::Local, info, engine, settings);
        let hosts = Hosts::new(host);
        let stop = StopToken::new();
        let options = Options {
            directories: vec![dir.path().join("missing"), dir.path().to_owned()],
            nodes: Arc::new(Nodes {
                hosts: Arc::clone(&hosts),
                engine: Box::new(|_| Arc::new(RingEngine::in_memory(Mode::Ram, 3600))),
                created: Box::new(|_| {}),
            }),
            clock: Clock::system(),
            config,
            update_every: UpdateEvery::SECOND,
        };
        let plugins = Some(start(options, &stop).unwrap());
        Lab { dir, stop, hosts, plugins }
    }

    #[track_caller]
    fn wait_for(&self, what: &str, mut done: impl FnMut(&Lab) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: not in time");
            self.stop.wait(Duration::from_millis(10));
        }
    }

    fn exists(&self, file: &str) -> bool {
        self.dir.path().join(file).exists()
    }

    fn end(mut self) -> bool {
        self.stop.stop();
        self.plugins.take().unwrap().join(Duration::from_secs(20))
    }
}

#[test]
fn only_files_of_the_right_name_that_are_not_switched_off_run() {
    let touch = "touch $DIR/ran-$(basename $0); echo DISABLE";
    let scripts = [
        ("a.plugin", touch),
        ("off.plugin", touch),
        ("slabinfo.plugin", touch),
        ("b.txt", touch),
        (".plugin", touch),
    ];
    let lab = Lab::start(&scripts, "[plugins]\noff = no\ncheck for new plugins every = 1\n");
    lab.wait_for("a", |lab| lab.exists("ran-a.plugin"));
    let never = ["ran-off.plugin", "ran-slabinfo.plugin", "ran-b.txt", "ran-.plugin"];
    assert!(!never.iter().any(|file| lab.exists(file)));
    assert!(lab.end());
}

#[test]
fn a_plugin_has_its_interval_and_options_and_its_charts_arrive() {
    let script = "echo \"CHART t.a '' \\\"$*\\\"\"; echo DIMENSION x; while echo 'BEGIN t.a\nSET x = 5\nEND'; do sleep 0.1; done";
    let conf = "[plugin:p]\nupdate every = 3\ncommand options = --foo \"a b\"\n";
    let lab = Lab::start(&[("p.plugin", script)], conf);
    lab.wait_for("samples", |lab| {
        lab.hosts.local().chart("t.a").is_some_and(|chart| chart.lock().counter_done > 2)
    });
    let meta = lab.hosts.local().chart("t.a").unwrap().lock().meta.clone();
    assert_eq!((&*meta.title, &*meta.plugin), ("3 --foo a b", "p.plugin"));
    assert_eq!(meta.update_every.seconds(), 3);
    assert!(lab.end());
}

#[test]
fn a_plugin_that_will_not_end_does_not_hold_the_daemon() {
    let script = "trap '' TERM; touch $DIR/up; while :; do sleep 0.2; done";
    let lab = Lab::start(&[("p.plugin", script)], "");
    lab.wait_for("start", |lab| lab.exists("up"));
    let began = Instant::now();
    assert!(lab.end());
    assert!(began.elapsed() < Duration::from_secs(5));
}

fn call(lab: &Lab, command: &str, seconds: u64) -> FunctionAnswer {
    let (tx, rx) = channel();
    let functions = lab.hosts.local().functions();
    functions[0].provider.call(FunctionCall {
        command: command.to_owned(),
        timeout: Duration::from_secs(seconds),
        answer: Box::new(move |answer| tx.send(answer).unwrap()),
        progress: None,
    });
    rx.recv_timeout(Duration::from_secs(20)).unwrap()
}

#[test]
fn functions_are_answered_or_time_out_by_themselves() {
    let script = r#"
echo 'CHART t.a
DIMENSION x
FUNCTION "top" 5 "help"'
while read word transaction timeout command; do
  case "$command" in
    *slow*) ;;
    *die*) exit 0 ;;
    *) printf 'FUNCTION_RESULT_BEGIN "%s" 200 "text/plain" 0\nyou said %s\nFUNCTION_RESULT_END\n' $transaction "$command" ;;
  esac
done
"#;
    let lab = Lab::start(&[("p.plugin", script)], "");
    lab.wait_for("function", |lab| !lab.hosts.local().functions().is_empty());
    let answer = call(&lab, "top 5", 10);
    assert_eq!((answer.code, &*answer.body), (200, &b"you said \"top 5\""[..]));
    let began = Instant::now();
    assert_eq!(call(&lab, "top slow", 1).code, 504);
    assert!((1.0..2.0).contains(&began.elapsed().as_secs_f64()));
    let provider = Arc::clone(&lab.hosts.local().functions()[0].provider);
    assert_eq!(call(&lab, "top die", 10).code, 504);
    lab.wait_for("nothing offered", |lab| lab.hosts.local().functions().is_empty());
    assert!(!provider.is_alive());
    assert!(lab.end());
}
