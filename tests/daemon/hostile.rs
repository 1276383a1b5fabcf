//! What comes from outside may be slow, huge, cut or nonsense: the sender of it pays, and nobody else.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::harness::*;

/// A parent with one well-behaved child, whose samples must go on whatever the others do.
struct Scene {
    parent: Agent,
    good: FakeChild,
    sent: u32,
}

const DEFINITION: &str = "CHART \"own.load\" \"\" \"Own\" \"units\" \"own\" \"own.load\" \"line\" 1000 1 \"\" \"p\" \"m\"\n\
                          DIMENSION \"a\" \"a\" \"absolute\" 1 1 \"\"\n";

impl Scene {
    fn new(parent: Agent) -> Scene {
        let parent = parent.takes_children().start();
        let mut good = FakeChild::connect(parent.port, "good", &guid(), OLD_LIVE).unwrap();
        assert!(good.send(DEFINITION));
        let mut scene = Scene { parent, good, sent: 0 };
        scene.goes_on();
        scene
    }

    /// The good child's next sample arrives.
    #[track_caller]
    fn goes_on(&mut self) {
        self.sent += 1;
        let value = self.sent * 1_000;
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            assert!(
                self.good.send(&format!("BEGIN \"own.load\" 0\nSET \"a\" = {value}\nEND\n")),
                "the good child lost its link"
            );
            pause(Duration::from_millis(300));
            let held = self.parent.samples("good", "own.load", 1, now() - 20, now() + 1);
            let seen = held
                .values()
                .any(|row| row["a"].parse::<f64>().is_ok_and(|v| v > f64::from(value - 1_000)));
            if seen {
                return;
            }
            assert!(
                Instant::now() < end,
                "the good child's samples no longer arrive\n{}",
                self.parent.log_end()
            );
        }
    }
}

fn guid() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[test]
fn a_malformed_line_ends_its_own_connection_only() {
    let mut scene = Scene::new(Agent::new("parent"));
    for nonsense in [
        "NONSENSE\n",
        "SET a = 1\n",
        "BEGIN no.such 0\n",
        "CHART nodot\n",
        "DIMENSION x\n",
        "CLAIMED_ID x y\n",
    ] {
        let mut bad = FakeChild::connect(scene.parent.port, "bad", &guid(), OLD_LIVE).unwrap();
        bad.send(nonsense);
        assert!(bad.link.closed_within(Duration::from_secs(5)), "still open after {nonsense:?}");
    }
    scene.goes_on();
}

#[test]
fn an_endless_line_ends_its_own_connection_and_takes_no_memory() {
    let mut scene = Scene::new(Agent::new("parent"));
    let before = scene.parent.status_kib("VmRSS");
    let mut bad = FakeChild::connect(scene.parent.port, "bad", &guid(), OLD_LIVE).unwrap();
    let piece = "x".repeat(65_536);
    let mut sent = 0;
    while sent < 64 << 20 && bad.send(&piece) {
        sent += piece.len();
    }
    assert!(bad.link.closed_within(Duration::from_secs(5)), "an endless line is read for ever");
    let after = scene.parent.status_kib("VmRSS");
    assert!(
        after < before + 8_192,
        "{before} KiB before, {after} KiB after {sent} bytes of one line"
    );
    scene.goes_on();
}

#[test]
fn an_oversized_request_is_refused() {
    let mut scene = Scene::new(Agent::new("parent"));
    let before = scene.parent.status_kib("VmRSS");
    for request in [
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)),
        format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "X-Filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(40_000)
        ),
        format!("STREAM key={KEY}&filler={} HTTP/1.1\r\n\r\n", "z".repeat(1 << 20)),
        "\0".repeat(1 << 20),
    ] {
        let answer = talk(scene.parent.port, request.as_bytes(), Duration::from_secs(10))
            .unwrap_or_default();
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.starts_with("HTTP/1.1 200") && !answer.starts_with("Hit me"), "{answer}");
    }
    assert!(scene.parent.status_kib("VmRSS") < before + 8_192);
    scene.goes_on();
}

#[test]
fn slow_requests_keep_nobody_waiting() {
    let mut scene = Scene::new(Agent::new("parent").option(
        "web",
        "disconnect idle clients after seconds",
        "5",
    ));
    let mut slow: Vec<_> =
        (0..200).map(|_| dial(scene.parent.port, Duration::from_secs(5)).unwrap()).collect();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        for socket in &mut slow {
            let _ = socket.write_all(b"G");
        }
        let asked = Instant::now();
        assert_eq!(scene.parent.get("/api/v1/info").status, 200);
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "an honest request took {:?}",
            asked.elapsed()
        );
        pause(Duration::from_millis(200));
    }
    scene.goes_on();
    // dripping on does not keep a connection for ever
    wait_for("the slow ones to be closed", 60, || {
        let gone = slow.iter_mut().filter_map(|socket| socket.write_all(b"G").err()).count();
        (gone == slow.len()).then_some(())
    });
    scene.goes_on();
}

#[test]
fn half_open_connections_are_closed() {
    let mut scene = Scene::new(Agent::new("parent").option(
        "web",
        "disconnect idle clients after seconds",
        "3",
    ));
    let silent: Vec<_> =
        (0..100).map(|_| dial(scene.parent.port, Duration::from_secs(20)).unwrap()).collect();
    for mut socket in silent {
        let mut byte = [0];
        let got = std::io::Read::read(&mut socket, &mut byte);
        assert!(
            matches!(got, Ok(0))
                || got.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
    scene.goes_on();
}

#[test]
fn a_flood_of_connections_leaves_the_others_alone() {
    let mut scene = Scene::new(Agent::new("parent"));
    let before = scene.parent.status_kib("VmRSS");
    for n in 0..3_000 {
        let Ok(mut socket) = dial(scene.parent.port, Duration::from_secs(5)) else { continue };
        if n % 3 == 0 {
            let _ = socket.write_all(stream_request("flood", "not-a-guid", OLD_LIVE).as_bytes());
        } else if n % 3 == 1 {
            let _ = socket.write_all(b"GET /api/v1/info HTTP/1.1\r\n");
        }
    }
    scene.goes_on();
    let idle = || scene.parent.threads().len() < 60;
    wait_for("the threads of the flood to end", 60, || idle().then_some(()));
    assert!(scene.parent.status_kib("VmRSS") < before + 16_384);
    scene.goes_on();
}

#[test]
fn a_refusal_is_counted_and_logged() {
    let scene = Scene::new(Agent::new("parent"));
    let request = stream_request("stranger", &guid(), OLD_LIVE)
        .replace(KEY, "99999999-2222-3333-4444-555555555555");
    let answer = talk(scene.parent.port, request.as_bytes(), Duration::from_secs(5)).unwrap();
    assert_eq!(answer, b"You are not permitted to access this. Check the logs for more info.");
    scene.parent.wait_log("is not allowed. Forbidding access.", 5);
    wait_for("the line in access.log", 5, || {
        scene.parent.access_log().contains("ACCESS DENIED - KEY NOT ENABLED").then_some(())
    });
}
