//! What carries a stream: compression and TLS. Neither changes a sample, and neither lets anybody read or ride along.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netdata_rs::base::threads;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVerifyMode};
use parking_lot::Mutex;

use crate::certificates::Files;
use crate::harness::*;

const LZ4: u32 = 1 << 10;

/// Passes one connection on and keeps what the child said.
struct Relay {
    port: u16,
    said: Arc<Mutex<Vec<u8>>>,
}

/// Enough to see the handshake and the first definitions.
const KEPT: usize = 256 * 1024;

impl Relay {
    fn to(port: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay { port: listener.local_addr().unwrap().port(), said: Arc::default() };
        let said = Arc::clone(&relay.said);
        let accepting = move || {
            while let Ok((child, _)) = listener.accept() {
                let parent = dial(port, Duration::from_secs(10)).unwrap();
                parent.set_read_timeout(None).unwrap();
                let (child2, parent2) = (child.try_clone().unwrap(), parent.try_clone().unwrap());
                let said = Arc::clone(&said);
                let up = move || copy(child, parent, |bytes| said.lock().extend_from_slice(bytes));
                threads::spawn("relay", up).unwrap();
                threads::spawn("relay", move || copy(parent2, child2, |_| {})).unwrap();
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
