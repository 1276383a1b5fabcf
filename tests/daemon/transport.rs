//! What carries a stream: compression and TLS. Neither changes a sample, and neither lets anybody read or ride along.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netdata_rs::base::threads;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVerifyMode, SslVersion};
use parking_lot::Mutex;

use crate::certificates::Files;
use crate::harness::*;

const LZ4: u32 = 1 << 10;

/// Passes connections on and keeps what either side said.
struct Relay {
    port: u16,
    said: Arc<Mutex<Vec<u8>>>,
    heard: Arc<Mutex<Vec<u8>>>,
}

/// Enough to see the handshake and the first definitions.
const KEPT: usize = 256 * 1024;

impl Relay {
    fn to(port: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port_here = listener.local_addr().unwrap().port();
        let relay = Relay { port: port_here, said: Arc::default(), heard: Arc::default() };
        let (said, heard) = (Arc::clone(&relay.said), Arc::clone(&relay.heard));
        let accepting = move || {
            while let Ok((child, _)) = listener.accept() {
                let parent = dial(port, Duration::from_secs(10)).unwrap();
                parent.set_read_timeout(None).unwrap();
                let (child2, parent2) = (child.try_clone().unwrap(), parent.try_clone().unwrap());
                let (said, heard) = (Arc::clone(&said), Arc::clone(&heard));
                let up = move || copy(child, parent, |bytes| said.lock().extend_from_slice(bytes));
                let down =
                    move || copy(parent2, child2, |bytes| heard.lock().extend_from_slice(bytes));
                threads::spawn("relay", up).unwrap();
                threads::spawn("relay", down).unwrap();
            }
        };
        threads::spawn("relay", accepting).unwrap();
        relay
    }

    /// What the child said first.
    fn said(&self) -> Vec<u8> {
        self.said.lock().clone()
    }
}

/// The types of TLS records that these bytes consist of; they must be nothing else, but for the last, which may be cut off.
#[track_caller]
fn records(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [kind, major, minor, high, low, rest @ ..] = bytes {
        let length = usize::from(*high) << 8 | usize::from(*low);
        let is_record = (20..=23).contains(kind) && *major == 3 && (1..=3).contains(minor);
        assert!(is_record && length <= (1 << 14) + 256, "no TLS record: {:?}", &bytes[..5]);
        types.push(*kind);
        bytes = rest.get(length..).unwrap_or_default();
    }
    types
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut keep: impl FnMut(&[u8])) {
    let (mut buffer, mut kept) = (vec![0; 16 * 1024], 0);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if kept < KEPT {
            keep(&buffer[..length]);
            kept += length;
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn secure(name: &str, files: &Files) -> Agent {
    Agent::new(name).shows(files)
}

#[test]
fn every_sample_arrives_however_it_is_carried() {
    let files = Files::new();
    let order = |name: &str| format!("    compression algorithms order = {name}\n");
    // (name, the parent's words, TLS, what was agreed)
    let ways = [
        ("plain", "    enable compression = no\n".to_owned(), false, ""),
        ("lz4", order("lz4"), false, "COMPRESSION "),
        ("zstd", order("zstd"), false, "ZSTD "),
        ("gzip", order("gzip"), false, "GZIP "),
        ("secret", order("zstd"), true, "ZSTD "),
        ("secretplain", "    enable compression = no\n".to_owned(), true, ""),
    ];
    let running: Vec<_> = ways
        .iter()
        .map(|(name, words, tls, agreed)| {
            let parent = secure(&format!("p-{name}"), &files).takes_children_with("ram", words);
            let parent = parent.start();
            let relay = Relay::to(parent.port);
            let to = format!("localhost:{}{}", relay.port, if *tls { ":SSL" } else { "" });
            let child = Agent::new(name).plugin("counting", COUNTING);
            let child = child.streams_to_with(&to, &files.trusted()).start();
            (child, relay, parent, *tls, *agreed)
        })
        .collect();
    for (child, _, parent, ..) in &running {
        parent.wait_live(&child.name, "own.load", 60);
    }
    let from = now() + 1;
    wait_for("ten seconds more", 60, || (now() >= from + 12).then_some(()));
    for (child, relay, parent, tls, agreed) in &running {
        differences(child, parent, (from, from + 10), Compare::Exact).none(50);
        let all = ["COMPRESSION ", "ZSTD ", "GZIP "];
        let line = child.log();
        let line = line.lines().find(|l| l.contains("negotiated capabilities")).unwrap();
        let found: Vec<_> = all.into_iter().filter(|word| line.contains(word)).collect();
        assert_eq!(found.concat(), *agreed, "{}", child.name);
        let compressed = child.json("/api/v1/info")["stream-compression"].clone();
        assert_eq!(compressed, !agreed.is_empty(), "{}", child.name);
        let said = relay.said();
        assert!(said.len() > 1000, "{}: only {} bytes", child.name, said.len());
        assert_eq!(holds(&said, "STREAM key="), !tls, "{}", child.name);
        let readable = holds(&said, "own.load") && holds(&said, "SET2");
        assert_eq!(readable, agreed.is_empty() && !tls, "{}", child.name);
    }
}

/// What somebody sees who records a child's connection, and one that reads the API.
fn recorded(version: &str, tls: bool) -> [Vec<u8>; 2] {
    let files = Files::new();
    let parent = secure("secretparent", &files).option("web", "tls version", version);
    let parent = parent.takes_children_with("ram", "    enable compression = no\n").start();
    let relay = Relay::to(parent.port);
    let to = format!("localhost:{}{}", relay.port, if tls { ":SSL" } else { "" });
    let child = Agent::new("secretchild").plugin("counting", COUNTING);
    let child = child.streams_to_with(&to, &files.trusted()).start();
    parent.wait_live("secretchild", "own.load", 60);
    let from = now();
    wait_for("three seconds more", 20, || (now() > from + 3).then_some(()));
    differences(&child, &parent, (from, from + 2), Compare::Exact).none(6);
    // What is of the child alone: the relay serves whoever comes.
    let seen = [relay.said(), relay.heard.lock().clone()];
    if tls {
        for (bytes, what) in seen.iter().zip(["said", "heard"]) {
            let types = records(bytes);
            assert!(types.contains(&23), "{what}: {types:?}");
            let application = types.iter().position(|kind| *kind == 23).unwrap();
            // After the handshake there is data, and perhaps a word about the connection itself.
            assert!(types[application..].iter().all(|kind| [20, 21, 22, 23].contains(kind)));
        }
    }
    seen
}

#[test]
fn nothing_can_be_read_on_the_way_when_tls_is_on() {
    let secrets = [
        KEY,
        "STREAM ",
        "key=",
        "hostname",
        "secretchild",
        "secretparent",
        "own.load",
        "Own load",
        "CHART",
        "DIMENSION",
        "BEGIN",
        "SET",
        "END",
        "LABEL",
        "Hit me baby",
        "REPLAY",
        "netdata",
        "system.",
        "machine_guid",
        "NETDATA_",
    ];
    let readable = |seen: &[Vec<u8>; 2]| -> Vec<&str> {
        let lower = |bytes: &Vec<u8>| bytes.to_ascii_lowercase();
        let all = seen.iter().map(lower).collect::<Vec<_>>();
        let is_there =
            |secret: &&&str| all.iter().any(|bytes| holds(bytes, &secret.to_ascii_lowercase()));
        secrets.iter().filter(is_there).copied().collect()
    };
    // Whoever listens in the clear reads most of it: so the look finds what there is.
    let clear = recorded("1.3", false);
    let found = readable(&clear);
    for secret in [KEY, "STREAM ", "secretchild", "own.load", "CHART", "Hit me baby"] {
        assert!(found.contains(&secret), "'{secret}' is not found in the clear: {found:?}");
    }
    for version in ["1.3", "1.2"] {
        let seen = recorded(version, true);
        assert!(
            seen[0].len() > 2_000 && seen[1].len() > 500,
            "{} {}",
            seen[0].len(),
            seen[1].len()
        );
        let words: Vec<_> = readable(&seen);
        // Three letters come about by chance once in some tens of kilobytes.
        let words: Vec<_> = words.into_iter().filter(|word| word.len() > 4).collect();
        assert!(words.is_empty(), "TLS {version}: {words:?} can be read");
        // Nor is there text of any other kind: what is readable in a row are the names in the handshake.
        let runs = |bytes: &[u8]| {
            let text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
            let runs = bytes.split(move |byte| !text(byte)).filter(|run| run.len() >= 24);
            runs.map(|run| String::from_utf8_lossy(run).into_owned()).collect::<Vec<_>>()
        };
        for run in seen.iter().flat_map(|bytes| runs(bytes)) {
            assert!(
                run.contains("authority") || run.contains("localhost"),
                "TLS {version}: '{run}'"
            );
        }
    }
}

/// A client that offers nothing newer than this, or nothing but these ciphers.
fn meets(port: u16, newest: Option<SslVersion>, ciphers: &str) -> Option<&'static str> {
    let mut builder = SslContext::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_max_proto_version(newest).unwrap();
    builder.set_security_level(0);
    builder.set_cipher_list(ciphers).unwrap();
    let socket = dial(port, Duration::from_secs(10)).unwrap();
    let mut stream = SslStream::new(Ssl::new(&builder.build()).unwrap(), socket).unwrap();
    stream.connect().ok()?;
    Some(stream.ssl().version_str())
}

#[test]
fn old_versions_and_weak_ciphers_are_not_spoken_whatever_is_configured() {
    let files = Files::new();
    let strict = secure("strict", &files).start();
    let wide = secure("wide", &files)
        .option("web", "tls version", "1.0")
        .option("web", "tls ciphers", "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
        .start();
    let (old, ancient) = (Some(SslVersion::TLS1_2), Some(SslVersion::TLS1_1));
    let everything = "ALL:COMPLEMENTOFALL:@SECLEVEL=0";
    assert_eq!(meets(strict.port, None, everything), Some("TLSv1.3"));
    assert_eq!(meets(strict.port, old, everything), None, "1.3 is the default");
    assert_eq!(meets(wide.port, None, everything), Some("TLSv1.3"));
    assert_eq!(meets(wide.port, old, everything), Some("TLSv1.2"));
    for port in [strict.port, wide.port] {
        for version in [SslVersion::SSL3, SslVersion::TLS1, SslVersion::TLS1_1] {
            assert_eq!(meets(port, Some(version), everything), None, "{version:?}");
        }
        for weak in ["kRSA", "aNULL", "eNULL", "SHA1", "SHA256", "SHA384", "PSK"] {
            let weak = format!("{weak}:@SECLEVEL=0");
            assert_eq!(meets(port, old, &weak), None, "{weak}");
            assert_eq!(meets(port, ancient, &weak), None, "{weak}");
        }
    }
}

/// The name in the certificate that is shown on this port.
fn shown(port: u16) -> String {
    let mut builder = SslContext::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    let socket = dial(port, Duration::from_secs(10)).unwrap();
    let mut stream = SslStream::new(Ssl::new(&builder.build()).unwrap(), socket).unwrap();
    stream.connect().unwrap();
    stream.write_all(b"GET /api/v1/info HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let certificate = stream.ssl().peer_certificate().unwrap();
    let name = certificate.subject_name().entries().next().unwrap();
    name.data().to_string().unwrap()
}

#[test]
fn a_certificate_is_read_again_and_nobody_is_disconnected() {
    let files = Files::new();
    let parent = secure("parent", &files).takes_children().start();
    let to = format!("localhost:{}:SSL", parent.port);
    let child = Agent::new("child").plugin("counting", COUNTING);
    let child = child.streams_to_with(&to, &files.trusted()).start();
    parent.wait_live("child", "own.load", 60);
    assert_eq!(shown(parent.port), "localhost");
    files.sign("good", "renewed", 5);
    parent.signal("HUP");
    parent.wait_log("TLS: read the certificate again.", 10);
    assert_eq!(shown(parent.port), "renewed");
    std::fs::write(files.path("good.pem"), "nothing").unwrap();
    parent.signal("HUP");
    parent.wait_log("The certificate in use stays.", 10);
    assert_eq!(shown(parent.port), "renewed");
    let from = now();
    wait_for("three seconds more", 20, || (now() >= from + 5).then_some(()));
    differences(&child, &parent, (from, from + 3), Compare::Exact).none(10);
    let connects = parent.access_log().matches("'CONNECTED' host 'child'").count();
    assert_eq!(connects, 1, "{}", parent.access_log());
}

#[test]
fn a_key_may_require_a_certificate_of_its_children() {
    let files = Files::new();
    files.sign("kid", "kid", 5);
    let authority = files.path("ca.pem").display().to_string();
    let parent = secure("parent", &files)
        .option("web", "ssl client CA", &authority)
        .takes_children_with("ram", "    require client certificate = yes\n")
        .start();
    let to = format!("localhost:{}:SSL", parent.port);
    let shows = format!(
        "{}\n    ssl key = {}\n    ssl certificate = {}\n",
        files.trusted(),
        files.path("kid.key").display(),
        files.path("kid.pem").display()
    );
    let known = Agent::new("known").plugin("counting", COUNTING).streams_to_with(&to, &shows);
    let known = known.start();
    let unknown = Agent::new("unknown").streams_to_with(&to, &files.trusted()).start();
    parent.wait_live("known", "own.load", 60);
    unknown.wait_log("remote server denied access", 20);
    parent.wait_log("requires a client certificate, and none was shown", 10);
    assert!(!known.log().contains("denied access"));
    // Neither does a child get in that leaves TLS out altogether.
    let refused =
        FakeChild::connect(parent.port, "clear", &parent.guid.replace('a', "b"), OLD_LIVE);
    assert!(refused.is_err_and(|answer| answer.starts_with("You are not permitted")));
}

#[test]
fn ports_ask_for_tls_as_their_words_say() {
    let files = Files::new();
    let ports = [free_port(), free_port(), free_port()];
    let [word, optional, force] = ports;
    let parent = Agent::new("parent").takes_children();
    let own = parent.port;
    let bind = format!(
        "127.0.0.1:{own}^SSL=optional 127.0.0.1:{word} 127.0.0.1:{optional}=dashboard|streaming^SSL=optional \
         127.0.0.1:{force}=dashboard|streaming^SSL=force"
    );
    let parent = parent
        .option("web", "ssl key", &files.path("good.key").display().to_string())
        .option("web", "ssl certificate", &files.path("good.pem").display().to_string())
        .option("web", "bind to", &bind)
        .start();
    for port in ports {
        assert_eq!(shown(port), "localhost");
        let reply = get(port, "/api/v1/info?a=%20b").unwrap();
        if port == optional {
            assert_eq!(reply.status, 200);
        } else {
            assert_eq!(reply.status, 301);
            let to = "\r\nLocation: https://localhost/api/v1/info?a=%20b";
            assert!(reply.head.contains(to), "{}", reply.head);
        }
        let guid = uuid::Uuid::new_v4().to_string();
        let child = FakeChild::connect(port, "clear", &guid, OLD_LIVE);
        assert_eq!(child.is_ok(), port != force);
    }
    let line = "please enable the SSL on child with hostname 'clear'.";
    assert_eq!(parent.log().matches(line).count(), 1, "{}", parent.log());
}

/// Three that never end their handshake, and one that does.
#[test]
fn handshakes_that_do_not_end_block_nobody() {
    let files = Files::new();
    let parent = secure("parent", &files).takes_children().start();
    let idle: Vec<_> = [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
        .into_iter()
        .map(|begin| {
            let mut socket = dial(parent.port, Duration::from_secs(10)).unwrap();
            socket.write_all(begin).unwrap();
            socket
        })
        .collect();
    let began = Instant::now();
    assert_eq!(shown(parent.port), "localhost");
    assert!(began.elapsed() < Duration::from_secs(2));
    drop(idle);
}

#[test]
fn a_frame_that_does_not_decode_ends_its_own_connection() {
    let parent = Agent::new("parent").takes_children().start();
    let guid = || uuid::Uuid::new_v4().to_string();
    let mut good = FakeChild::connect(parent.port, "good", &guid(), OLD_LIVE | LZ4).unwrap();
    let mut bad = FakeChild::connect(parent.port, "bad", &guid(), OLD_LIVE | LZ4).unwrap();
    assert_eq!((good.caps & LZ4, bad.caps & LZ4), (LZ4, LZ4));
    // As it is: eleven bytes of text in a block of literals.
    let frame = b"\xfa\x8c\x80\x0a\xb0LABEL a=1 b";
    for child in [&mut good, &mut bad] {
        child.link.socket().write_all(frame).unwrap();
        child.link.socket().write_all(b"\xfa\x82\x80\x0a\x10\n").unwrap();
    }
    bad.link.socket().write_all(b"\xfa\x88\x80\x0a\x1fA\xff\xff\xff\xff\x10P").unwrap();
    assert!(bad.link.closed_within(Duration::from_secs(5)));
    parent.wait_log("cannot decompress what is received: a frame of lz4 does not decode.", 5);
    assert!(!good.link.closed_within(Duration::from_millis(300)));
}

/// Peers before 1.37 give compression up when a message is too long for them, and come back without it.
#[test]
fn a_child_that_gives_compression_up_is_read_all_the_same() {
    let parent = Agent::new("parent").takes_children().start();
    let guid = uuid::Uuid::new_v4().to_string();
    let define = |child: &mut FakeChild, id: &str| {
        child.send(&format!(
            "CHART \"own.{id}\" \"\" \"Own\" \"units\" \"own\" \"own.x\" \"line\" 1000 1 \"\" \"p\" \"m\"\nDIMENSION \"a\" \"a\" \"absolute\" 1 1 \"\"\n"
        ));
        let charts = || parent.charts(&guid).contains_key(&format!("own.{id}")).then_some(());
        wait_for(id, 10, charts);
    };
    // It agreed and does not do it.
    let mut child = FakeChild::connect(parent.port, "kid", &guid, OLD_LIVE | LZ4).unwrap();
    assert_eq!(child.caps & LZ4, LZ4);
    define(&mut child, "agreed");
    drop(child);
    wait_for("its end", 10, || {
        parent.access_log().contains("'DISCONNECTED' host 'kid'").then_some(())
    });
    // With the bit left out, and as a version from before there were bits.
    for (version, id) in [(OLD_LIVE, "without"), (4, "four")] {
        let mut child = wait_for("its return", 10, || {
            FakeChild::connect(parent.port, "kid", &guid, version).ok()
        });
        assert_eq!(child.caps & LZ4, 0);
        define(&mut child, id);
    }
}
