//! Configuration is read again while streams run: who is not concerned does not notice, who is revoked leaves with a reason,
//! and what is wrong changes nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netdata_rs::base::threads;

use crate::harness::*;

const SECOND: &str = "22222222-2222-3333-4444-555555555555";
const THIRD: &str = "33333333-2222-3333-4444-555555555555";
const RELOADS: usize = 1_000;

fn takes(keys: &[&str]) -> String {
    let section = |key: &&str| {
        format!(
            "[{key}]\n    enabled = yes\n    default memory mode = ram\n    default history = 3600\n    \
             health enabled by default = no\n"
        )
    };
    keys.iter().map(section).collect()
}

fn sends(to: &str, key: &str, more: &str) -> String {
    format!(
        "[stream]\n    enabled = yes\n    destination = {to}\n    api key = {key}\n    \
         reconnect delay seconds = 1\n    timeout seconds = 10\n{more}"
    )
}

const CHART: &str = "CHART \"own.load\" \"\" \"Own\" \"units\" \"own\" \"own.load\" \"line\" 1000 1 \"\" \"p\" \"m\"\n\
                     DIMENSION \"a\" \"a\" \"absolute\" 1 1 \"\"\n";

/// Sends samples without pause until it is told to stop or the connection ends; counts them.
struct Load {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Load {
    fn begin(mut child: FakeChild) -> Load {
        let load = Load { stop: Arc::default(), ended: Arc::default(), sent: Arc::default() };
        let (stop, ended, sent) =
            (Arc::clone(&load.stop), Arc::clone(&load.ended), Arc::clone(&load.sent));
        threads::spawn("load", move || {
            let mut goes_on = child.send(CHART);
            while goes_on && !stop.load(Ordering::Relaxed) {
                let n = sent.fetch_add(1, Ordering::Relaxed);
                goes_on = child.send(&format!("BEGIN \"own.load\" 0\nSET \"a\" = {n}\nEND\n"));
                pause(Duration::from_millis(2));
            }
            ended.store(!goes_on, Ordering::Relaxed);
        })
        .unwrap();
        load
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_thousand_reloads_under_load_disconnect_only_who_is_revoked() {
    let all = takes(&[KEY, SECOND, THIRD]);
    let parent = Agent::new("parent").stream(&all).start();
    let child = Agent::new("child").plugin("counting", COUNTING).streams_to(&[parent.port]).start();
    let connect = |key: &str, n: usize| {
        let name = format!("{}{n}", &key[..1]);
        Load::begin(FakeChild::connect_with(parent.port, &name, key).unwrap())
    };
    let kept: Vec<_> = (0..20).map(|n| connect([KEY, SECOND][n % 2], n)).collect();
    let revoked: Vec<_> = (0..3).map(|n| connect(THIRD, n)).collect();
    parent.wait_live("child", "own.load", 30);
    let from = now();
    let mut changes = 0;
    for n in 0..RELOADS {
        // Every other one changes something that concerns the children that stay, though not whether they may.
        let more = format!("    default postpone alarms on connect seconds = {n}\n");
        let text = if n % 2 == 0 { all.clone() } else { format!("{all}{more}") };
        parent.write_stream(&text);
        let (code, told) = parent.command("reload-config");
        assert_eq!(code, 0, "{told}");
        changes += usize::from(told != "Nothing has changed.");
        if n % 100 == 0 {
            assert!(!told.contains(&THIRD[8..]) && !told.contains("is disconnected"), "{told}");
        }
    }
    assert!(changes >= RELOADS - 1, "{changes}");
    let before: Vec<_> = kept.iter().map(|load| load.sent.load(Ordering::Relaxed)).collect();
    // The last one revokes a key.
    parent.write_stream(&takes(&[KEY, SECOND]));
    let (code, told) = parent.command("reload-config");
    assert_eq!(
        (code, told.matches("is disconnected: API key '33333333...'").count()),
        (0, 3),
        "{told}"
    );
    wait_for("the revoked to leave", 10, || revoked.iter().all(Load::is_over).then_some(()));
    wait_for("the others to go on", 10, || {
        let goes_on =
            |(load, before): (&Load, &u64)| load.sent.load(Ordering::Relaxed) > before + 50;
        kept.iter().zip(&before).all(goes_on).then_some(())
    });
    assert!(!kept.iter().any(Load::is_over), "{}", parent.log_end());
    let until = now();
    wait_for("two seconds more", 20, || (now() > until + 2).then_some(()));
    differences(&child, &parent, (from, until), Compare::Exact).none(10);
    let log = parent.log();
    let access = parent.access_log();
    assert_eq!(access.matches("'CONNECTED' host").count(), 24);
    assert_eq!(access.matches("'DISCONNECTED' host").count(), 3, "{access}");
    let reason = "no longer permitted: API key '33333333...' is not allowed.";
    assert_eq!(log.matches(reason).count(), 3);
    assert!(FakeChild::connect_with(parent.port, "late", THIRD).is_err());
}

#[test]
fn a_key_that_is_rotated_by_overlap_loses_no_sample() {
    let parent = Agent::new("parent").stream(&takes(&[KEY])).start();
    let to = format!("127.0.0.1:{}", parent.port);
    let child = Agent::new("child").plugin("counting", COUNTING).stream(&sends(&to, KEY, ""));
    let child = child.start();
    parent.wait_live("child", "own.load", 30);
    let from = now();
    // The parent takes both; then the child uses the new one; then the old one is gone.
    parent.write_stream(&takes(&[KEY, SECOND]));
    assert_eq!(parent.command("reload-config").0, 0);
    child.write_stream(&sends(&to, SECOND, ""));
    let (code, told) = child.command("reload-config");
    assert_eq!(code, 0);
    assert!(told.contains("'api key': '11111111...' -> '22222222...'"), "{told}");
    assert!(told.contains("host 'child' connects to its parent anew"), "{told}");
    let connected = || parent.access_log().matches("'CONNECTED' host 'child'").count();
    wait_for("the child with its new key", 20, || (connected() == 2).then_some(()));
    parent.write_stream(&takes(&[SECOND]));
    let (code, told) = parent.command("reload-config");
    assert!(code == 0 && !told.contains("is disconnected"), "{told}");
    let until = now() + 3;
    wait_for("some seconds more", 20, || (now() > until + 2).then_some(()));
    parent.wait_live("child", "own.load", 30);
    differences(&child, &parent, (from, until), Compare::Exact).none(20);
    assert_eq!(connected(), 2);
    // Without the overlap it is revoked.
    parent.write_stream(&takes(&[KEY]));
    assert_eq!(parent.command("reload-config").0, 0);
    parent.wait_log("no longer permitted: API key '22222222...' is not allowed.", 10);
    child.wait_log("remote server denied access", 20);
}

#[test]
fn what_is_wrong_changes_nothing_and_is_named() {
    let parent = Agent::new("parent").stream(&takes(&[KEY, SECOND])).start();
    let good = Load::begin(FakeChild::connect_with(parent.port, "good", SECOND).unwrap());
    let refuse = |what: &str| {
        for dry in [" --dry-run", ""] {
            let (code, told) = parent.command(&format!("reload-config{dry}"));
            assert_eq!(code, 1, "{what}: {told}");
            assert!(told.contains(what), "{what}: {told}");
            assert!(!told.contains(&SECOND[8..]), "{told}");
        }
    };
    // A file that is cut in the middle of a line, and would revoke the second key.
    parent.write_stream(&format!("{}[{SECOND}]\n    enab", takes(&[KEY])));
    refuse("line 7 has no =");
    parent.write_stream(&format!("{}[{SECOND}]\n    default memory mode = rem\n", takes(&[KEY])));
    refuse("[22222222...] 'default memory mode' = 'rem': is no database mode");
    parent.write_stream(&format!("{}[stream]\n    enabled = yes\n", takes(&[KEY])));
    refuse("[stream] is enabled and has no 'destination'");
    std::fs::remove_file(parent.dir().join("etc/stream.conf")).unwrap();
    refuse("cannot read");
    // Another file is wrong: the one that is right has no effect either.
    parent.write_stream(&takes(&[KEY]));
    parent.write_options(&[("db", "dbengine tier 0 retention size", "plenty")]);
    refuse("'dbengine tier 0 retention size' = 'plenty': is no number");
    parent.write_options(&[
        ("web", "ssl certificate", "/no/such.pem"),
        ("web", "ssl key", "/dev/null"),
    ]);
    refuse("TLS: cannot use '/no/such.pem'");
    parent.signal("HUP");
    parent.wait_log("the configuration was not read again: all of it stays as it is.", 10);
    let sent = good.sent.load(Ordering::Relaxed);
    wait_for("the child to go on", 10, || {
        (good.sent.load(Ordering::Relaxed) > sent + 20).then_some(())
    });
    assert!(!good.is_over());
    assert!(FakeChild::connect_with(parent.port, "late", SECOND).is_ok());
    // Both right: in force.
    parent.write_options(&[]);
    assert_eq!(parent.command("reload-config").0, 0);
    wait_for("the end of the child", 10, || good.is_over().then_some(()));
}

#[test]
fn a_dry_run_tells_the_difference_and_does_nothing() {
    let parent = Agent::new("parent").stream(&takes(&[KEY, SECOND])).start();
    let child = FakeChild::connect_with(parent.port, "kid", SECOND).unwrap();
    parent.write_stream(&takes(&[KEY, THIRD]).replace("history = 3600", "history = 7200"));
    parent.write_options(&[
        ("web", "allow dashboard from", "10.*"),
        ("web", "bind to", "127.0.0.1:1"),
        ("db", "seconds to replicate", "60"),
    ]);
    let told = parent.cli(&["reload-config", "--dry-run"]);
    for line in [
        "stream.conf: [11111111...] 'default history': '3600' -> '7200'",
        "stream.conf: [22222222...] 'enabled': 'yes' -> not set",
        "stream.conf: [33333333...] 'enabled': not set -> 'yes'",
        "netdata.conf: [web] 'allow dashboard from': not set -> '10.*'",
        "netdata.conf: [db] 'seconds to replicate': not set -> '60'",
        "(has an effect after a restart)",
        "child 'kid' at [localhost]:",
        "is disconnected: API key '22222222...' is not allowed",
    ] {
        assert!(told.contains(line), "'{line}' is missing in\n{told}");
    }
    for key in [KEY, SECOND, THIRD] {
        assert!(!told.contains(&key[8..]), "{told}");
    }
    assert_eq!(told, parent.cli(&["reload-config", "--dry-run"]));
    assert_eq!(parent.get("/api/v1/info").status, 200);
    assert!(FakeChild::connect_with(parent.port, "late", SECOND).is_ok());
    let mut child = child;
    assert!(!child.link.closed_within(Duration::from_millis(300)));
    // A word that is not understood is no reload.
    assert_eq!(parent.command("reload-config --dryrun").0, 1);
    assert_eq!(parent.get("/api/v1/info").status, 200);
    assert_eq!(parent.command("reload-config").0, 0);
    assert!(child.link.closed_within(Duration::from_secs(5)));
    assert_eq!(get(parent.port, "/api/v1/info").unwrap().status, 403);
    assert_eq!(parent.command("reload-config --dry-run"), (0, "Nothing has changed.".to_owned()));
    assert_eq!(
        parent.command("read-config netdata|web|allow dashboard from"),
        (0, "10.*".to_owned())
    );
}

#[test]
fn a_stream_moves_with_its_destinations_and_stays_where_it_still_may() {
    let (first, second) =
        (Agent::new("first").takes_children(), Agent::new("second").takes_children());
    let (first, second) = (first.start(), second.start());
    let to = |ports: &[u16]| {
        let list: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        list.join(" ")
    };
    let list = |ports: &[u16], more: &str| sends(&to(ports), KEY, more);
    let child = Agent::new("child").plugin("counting", COUNTING);
    let child = child.stream(&list(&[first.port], "")).start();
    first.wait_live("child", "own.load", 30);
    let from = now();
    let connects = |of: &Agent| of.access_log().matches("'CONNECTED' host 'child'").count();
    // A second parent, another pause: nothing that concerns the connection.
    child.write_stream(&list(&[second.port, first.port], "    default port = 7\n"));
    let (code, told) = child.command("reload-config");
    assert_eq!(code, 0);
    assert!(told.contains("host 'child' stays connected to its parent"), "{told}");
    wait_for("some seconds", 20, || (now() > from + 3).then_some(()));
    assert_eq!((connects(&first), connects(&second)), (1, 0));
    // The parent in use is gone from the list.
    child.write_stream(&list(&[second.port], ""));
    assert_eq!(child.command("reload-config").0, 0);
    second.wait_live("child", "own.load", 30);
    assert_eq!((connects(&first), connects(&second)), (1, 1));
    child.wait_log("the configuration has changed - connecting anew.", 5);
    // Other charts, and no compression any more.
    assert!(second.charts("child").contains_key("own.share"));
    let more = "    send charts matching = own.load\n    enable compression = no\n";
    child.write_stream(&list(&[second.port], more));
    assert_eq!(child.command("reload-config").0, 0);
    wait_for("the connection without compression", 20, || (connects(&second) == 2).then_some(()));
    child.wait_log("Stream is uncompressed!", 10);
    second.wait_live("child", "own.load", 30);
    let until = now();
    wait_for("two seconds more", 20, || (now() > until + 3).then_some(()));
    let held = |chart: &str| second.samples("child", chart, 1, until, until + 3).len();
    assert!(held("own.load") >= 2);
    assert_eq!(held("own.share"), 0);
    let here = child.samples("", "own.load", 1, from, until);
    let there = second.samples("child", "own.load", 1, from, until);
    assert_eq!(here, there);
    // It streams nowhere, and then again.
    child.write_stream("[stream]\n    enabled = no\n");
    let (code, told) = child.command("reload-config");
    assert!(code == 0 && told.contains("host 'child' is sent to no parent any more"), "{told}");
    wait_for("the child to leave", 10, || {
        second.access_log().contains("'DISCONNECTED' host 'child'").then_some(())
    });
    assert_eq!(child.json("/api/v1/info")["stream-enabled"], false);
    child.write_stream(&list(&[first.port], ""));
    let (code, told) = child.command("reload-config");
    assert!(code == 0 && told.contains("host 'child' is sent to '"), "{told}");
    first.wait_live("child", "own.load", 30);
}

#[test]
fn a_proxy_sends_its_children_as_its_configuration_says_now() {
    let top = Agent::new("top").takes_children().start();
    let proxy = Agent::new("proxy").takes_children().start();
    let child = Agent::new("child").plugin("counting", COUNTING).streams_to(&[proxy.port]).start();
    proxy.wait_live("child", "own.load", 30);
    let connects = || proxy.access_log().matches("'CONNECTED' host 'child'").count();
    assert_eq!(top.json("/api/v1/info")["mirrored_hosts"].as_array().unwrap().len(), 1);
    let on = format!(
        "    default proxy enabled = yes\n    default proxy destination = 127.0.0.1:{}\n    default proxy api key = {KEY}\n",
        top.port
    );
    proxy.write_stream(&format!("{}{on}", takes(&[KEY])));
    let (code, told) = proxy.command("reload-config");
    assert!(code == 0 && told.contains("host 'child' is sent to '127.0.0.1:"), "{told}");
    top.wait_live("child", "own.load", 30);
    proxy.write_stream(&takes(&[KEY]));
    assert_eq!(proxy.command("reload-config").0, 0);
    wait_for("the child to leave the top", 10, || {
        top.access_log().contains("'DISCONNECTED' host 'child'").then_some(())
    });
    proxy.wait_live("child", "own.load", 10);
    assert_eq!(connects(), 1);
    drop(child);
}

/// Asks on a connection that goes on; gives the first line of the answer.
fn ask(socket: &mut std::net::TcpStream) -> String {
    let request = b"GET /api/v1/info HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n";
    socket.write_all(request).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut answer = Vec::new();
    // It ends where nothing more comes.
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).lines().next().unwrap_or("").to_owned()
}

#[test]
fn lists_of_the_web_server_hold_for_connections_that_stand() {
    let parent = Agent::new("parent").takes_children().start();
    let mut child = FakeChild::connect_with(parent.port, "kid", KEY).unwrap();
    let mut standing = dial(parent.port, Duration::from_secs(5)).unwrap();
    assert!(ask(&mut standing).contains(" 200 "));
    parent.write_options(&[("web", "allow dashboard from", "!localhost *")]);
    assert_eq!(parent.command("reload-config").0, 0);
    assert!(ask(&mut standing).contains(" 403 "));
    assert!(!child.link.closed_within(Duration::from_millis(200)));
    parent.write_options(&[("web", "allow streaming from", "10.*")]);
    let (code, told) = parent.command("reload-config");
    assert_eq!(code, 0);
    assert!(told.contains("[web] 'allow streaming from' does not name localhost"), "{told}");
    assert!(child.link.closed_within(Duration::from_secs(5)));
    assert!(FakeChild::connect_with(parent.port, "kid", KEY).is_err());
    assert_eq!(parent.get("/api/v1/info").status, 200);
    // Without the option its default is in force again.
    parent.write_options(&[]);
    assert_eq!(parent.command("reload-config").0, 0);
    assert!(FakeChild::connect_with(parent.port, "kid", KEY).is_ok());
    let shown = parent.get("/netdata.conf").body;
    assert!(shown.contains("# allow streaming from = *"), "{shown}");
}

#[test]
fn limits_of_the_store_and_of_replication_follow() {
    let parent = Agent::new("parent").takes_children_with("dbengine", "").start();
    parent.write_options(&[
        ("db", "dbengine tier 0 retention size", "100MiB"),
        ("db", "dbengine tier 1 retention time", "3d"),
        ("db", "seconds to replicate", "77"),
        ("db", "mode", "none"),
    ]);
    let (code, told) = parent.command("reload-config");
    assert_eq!(code, 0);
    for line in [
        "[db] 'dbengine tier 0 retention size': not set -> '100MiB'",
        "the store keeps less, and deletes its oldest samples",
        "[db] 'mode': 'ram' -> 'none' (has an effect after a restart)",
    ] {
        assert!(told.contains(line), "'{line}' is missing in\n{told}");
    }
    let shown = parent.get("/netdata.conf").body;
    assert!(shown.contains("\n\tdbengine tier 0 retention size = 100MiB\n"), "{shown}");
    assert!(shown.contains("\n\tseconds to replicate = 77\n"), "{shown}");
    assert!(shown.contains("\n\tmode = ram\n"), "what has no effect is not shown as if it had");
    // Asked again, what waits for a restart is no news.
    assert_eq!(parent.command("reload-config --dry-run").1, "Nothing has changed.");
    parent.write_options(&[]);
    let (code, told) = parent.command("reload-config");
    assert!(code == 0 && told.contains("'100MiB' -> not set"), "{told}");
    let shown = parent.get("/netdata.conf").body;
    assert!(shown.contains("\n\t# dbengine tier 0 retention size = 1024\n"), "{shown}");
}

/// A child from another address of this machine.
fn child_from(last: u8, port: u16, name: &str) -> Result<FakeChild, String> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into()).unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    let socket: TcpStream = socket.into();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let guid = uuid::Uuid::new_v4().to_string();
    FakeChild::ask_over(socket, &stream_request(name, &guid, OLD_LIVE), &guid)
}

/// The agent gets files of names and resolvers of its own, over those of the system.
#[test]
fn while_dns_is_silent_who_stands_stays_and_is_looked_at_again_afterwards() {
    const TEST: &str = "while_dns_is_silent_who_stands_stays_and_is_looked_at_again_afterwards";
    let may = Command::new("unshare").args(["--mount", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        return skipped(TEST, "no mount namespace can be made here (root can)");
    }
    // Answers nothing, ever. Where it cannot be had nobody listens there, which is an outage as well.
    let _silent = UdpSocket::bind("127.0.0.1:53");
    let parent = Agent::new("parent")
        .stream(&takes(&[KEY]))
        .file("names/hosts", "127.0.0.1 localhost\n", 0o644)
        .file("names/resolv", "nameserver 127.0.0.1\noptions timeout:3 attempts:1\n", 0o644);
    let names = parent.dir().join("names").display().to_string();
    let mounts = "mount --bind \"$0/hosts\" /etc/hosts && mount --bind \"$0/resolv\" /etc/resolv.conf && exec \"$@\"";
    let parent = parent.within(&["unshare", "--mount", "sh", "-c", mounts, &names]).start();
    let mut kid = child_from(2, parent.port, "kid").unwrap();
    let mut stranger = child_from(3, parent.port, "stranger").unwrap();
    let mut near = FakeChild::connect_with(parent.port, "near", KEY).unwrap();

    parent.write_options(&[("web", "allow streaming from", "localhost *.example.com")]);
    let reload = |words: &str| {
        let began = Instant::now();
        let (code, told) = parent.command(words);
        assert_eq!(code, 0, "{told}");
        assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
        let stays = |ip: &str| {
            format!(
                "stays connected until it is known whether it may: [web] 'allow streaming from' asks for the name of {ip}"
            )
        };
        assert!(told.contains(&stays("127.0.0.2")) && told.contains(&stays("127.0.0.3")), "{told}");
        assert!(!told.contains("is disconnected"), "{told}");
    };
    reload("reload-config --dry-run");
    reload("reload-config");
    // Nobody is let in for a name that is not known.
    assert!(child_from(2, parent.port, "late").is_err());
    for child in [&mut kid, &mut stranger, &mut near] {
        assert!(child.send(CHART), "{}", parent.log_end());
        assert!(!child.link.closed_within(Duration::from_millis(200)));
    }

    let names = "127.0.0.1 localhost\n127.0.0.2 kid.example.com\n127.0.0.3 kid.example.org\n";
    std::fs::write(parent.dir().join("names/hosts"), names).unwrap();
    parent.wait_log("[web] 'allow streaming from' does not name 127.0.0.3", 60);
    assert!(stranger.link.closed_within(Duration::from_secs(5)));
    assert!(!kid.link.closed_within(Duration::from_millis(300)), "{}", parent.log_end());
    assert!(!near.link.closed_within(Duration::from_millis(100)));
    assert!(child_from(2, parent.port, "late").is_ok());
    // Known: it is told at once.
    parent.write_options(&[("web", "allow streaming from", "localhost *.example.net")]);
    let (code, told) = parent.command("reload-config");
    assert!(code == 0 && told.contains("does not name 127.0.0.2"), "{told}");
    assert!(kid.link.closed_within(Duration::from_secs(5)));
}

const ROUNDS: u32 = 25;
const KIDS: u32 = 16;

/// A child's first samples and a reload at the same time: where it is sent is what configuration says afterwards.
#[test]
fn whoever_begins_to_be_sent_on_during_a_reload_is_sent_as_it_says() {
    let top = Agent::new("top").takes_children().start();
    let on = format!(
        "{}    default proxy enabled = yes\n    default proxy destination = 127.0.0.1:{}\n    default proxy api key = {KEY}\n",
        takes(&[KEY]),
        top.port
    );
    let proxy = Agent::new("proxy").stream(&on).start();
    let port = proxy.port;
    let began =
        |name: &str| proxy.log().matches(&format!("STREAM {name} [send]: thread created")).count();
    let mut children = Vec::new();
    let mut takes_time = Duration::from_millis(5);
    for round in 0..ROUNDS {
        proxy.write_stream(&on);
        assert_eq!(proxy.command("reload-config").0, 0);
        let kid = |n| FakeChild::connect_with(port, &format!("kid{round}-{n}"), KEY).unwrap();
        let mut kids: Vec<_> = (0..KIDS).map(kid).collect();
        for kid in &mut kids {
            kid.send(CHART);
        }
        // One of them is sent on for certain before the reload.
        assert!(kids[0].send("BEGIN \"own.load\" 0\nSET \"a\" = 1\nEND\n"));
        wait_for("a sender to begin", 20, || (began(&format!("kid{round}-0")) == 1).then_some(()));
        proxy.write_stream(&takes(&[KEY]));
        // One after the other, over the time that the last reload took.
        let step = takes_time / KIDS;
        let speak = threads::spawn("children", move || {
            for kid in &mut kids[1..] {
                assert!(kid.send("BEGIN \"own.load\" 0\nSET \"a\" = 1\nEND\n"));
                pause(step);
            }
            kids
        });
        let began = Instant::now();
        assert_eq!(proxy.command("reload-config").0, 0);
        takes_time = began.elapsed();
        children.extend(speak.unwrap().join().unwrap());
        // The next reload would put an end to a sender that this one has forgotten.
        let sends = || proxy.threads().iter().any(|name| name.starts_with("STREAM_SENDER"));
        wait_for("the senders to end", 10, || (!sends()).then_some(()));
    }
    let log = proxy.log();
    let all = log.matches(" [send]: thread created").count();
    eprintln!("{} senders began in {ROUNDS} rounds of {KIDS} children", all);
    let rounds = usize::try_from(ROUNDS).unwrap();
    assert!(all > rounds, "none began during a reload, only those {all} before it");
    assert_eq!(all, log.matches(" [send]: sending thread now exits").count());
}
