//! Tests of a whole server on loopback: what clients see of it, well-behaved ones and others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::acl::{Access, Gate};
use super::server::open_ports;
use super::{Agent, Options, Server};
use crate::base::ids::MachineGuid;
use crate::base::threads::StopToken;
use crate::base::time::Clock;
use crate::config::{Config, Present};
use crate::metrics::{Host, HostInfo, HostKind, HostSettings, Hosts};
use crate::net::Connection;
use crate::net::accept::{Admission, StreamAcceptor, StreamRequest};
use crate::net::usage::read;
use crate::storage::none::NoneEngine;

const PATIENCE: Duration = Duration::from_secs(20);

struct Trial {
    agent: Arc<Agent>,
    ports: Vec<SocketAddr>,
    stop: StopToken,
    server: Option<Server>,
    streams: Arc<Streams>,
    _dir: tempfile::TempDir,
}

/// Admits who is called `friend`, says hello to it and echoes what it sends.
#[derive(Default)]
struct Streams(Mutex<Vec<StreamRequest>>);

impl StreamAcceptor for Streams {
    fn consider(&self, request: &StreamRequest, _: &Connection) -> Admission {
        assert_ne!(request.parameters, b"hostname=bug", "BUG: as a test wants it");
        self.0.lock().push(request.clone());
        if request.parameters != b"hostname=friend" {
            return Admission::Refused { status: 401, text: "go away".to_owned() };
        }
        Admission::Admitted(Box::new(|mut connection: Connection, _: &StopToken| {
            connection.write_all(b"hello").unwrap();
            let mut piece = [0; 100];
            while let Ok(got @ 1..) = connection.read(&mut piece) {
                connection.write_all(&piece[..got]).unwrap();
            }
        }))
    }
}

fn trial(configuration: &str) -> Trial {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("big.txt"), vec![b'x'; 20_000_000]).unwrap();
    let config = Arc::new(Config::new());
    let path = dir.path().display();
    let base = format!(
        "[web]\nbind to = 127.0.0.1:0\nallow management from = *\n[directories]\nweb = {path}\n"
    );
    config.load_text(&base, "base", Present::Replace);
    config.load_text(&configuration.replace("DIR", &path.to_string()), "test", Present::Replace);
    let options = Options::from_config(&config, "trial", "/nowhere");
    let local = Host::new(
        MachineGuid::random(),
        HostKind::Local,
        HostInfo::named("trial"),
        Arc::new(NoneEngine::new()),
        HostSettings::default(),
    );
    let streams = Arc::new(Streams::default());
    let mut agent = Agent::sample(Hosts::new(local), Clock::system());
    agent.gate = Arc::new(Gate::new(Access::at_start(&config)));
    agent.config = config;
    agent.options = options;
    agent.streams = Arc::clone(&streams) as Arc<dyn StreamAcceptor>;
    agent.api_key = Some("key".to_owned());
    let agent = Arc::new(agent);
    let open = open_ports(&agent.options).unwrap();
    let ports = open.iter().filter_map(|port| port.listener.local()).collect();
    let stop = StopToken::new();
    let server = Server::start(Arc::clone(&agent), open, &stop).unwrap();
    Trial { agent, ports, stop, server: Some(server), streams, _dir: dir }
}

impl Trial {
    fn connect(&self) -> TcpStream {
        self.connect_to(0)
    }

    fn connect_to(&self, port: usize) -> TcpStream {
        let stream = TcpStream::connect(self.ports[port]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// All that comes back for `request` until the server closes.
    fn talk(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        rest_of(&mut stream)
    }

    #[track_caller]
    fn wait_until(&self, what: &str, mut holds: impl FnMut(&Trial) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::yield_now();
        }
    }

    fn connections(&self) -> usize {
        self.server.as_ref().unwrap().connections()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(server) = self.server.take() {
            assert_eq!(server.join(PATIENCE), 0, "connections outlive the server");
        }
    }
}

fn rest_of(stream: &mut impl Read) -> String {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    String::from_utf8(got).unwrap()
}

/// Head and body of an answer whose length is told, on a connection that stays.
fn one_answer(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.split("Content-Length: ").nth(1).unwrap().lines().next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

const KEEP: &str = "Connection: keep-alive\r\n";

#[test]
fn a_connection_is_kept_only_on_request() {
    let trial = trial("");
    let mut stream = trial.connect();
    for _ in 0..3 {
        write!(stream, "GET /api/v1/info HTTP/1.1\r\n{KEEP}\r\n").unwrap();
        let (head, body) = one_answer(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n"), "{head}");
        let info: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(info["mirrored_hosts"][0], "trial");
    }
    stream.write_all(b"GET /api/v1/info HTTP/1.1\r\n\r\n").unwrap();
    assert!(rest_of(&mut stream).starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\n"));
    trial.wait_until("the thread is gone", |t| t.connections() == 0);
    assert_eq!(read(&trial.agent.usage.requests), 4);
}

#[test]
fn requests_may_come_in_pieces_in_a_row_and_with_a_body() {
    let trial = trial("");
    let mut stream = trial.connect();
    for piece in ["GE", "T /api/v1/nosuch HT", "TP/1.1\r\nConnection: kee", "p-alive\r\n\r", "\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    assert_eq!(one_answer(&mut stream).1, b"Unsupported v1 API command: nosuch");
    let ask = |name: &str, more: &str| format!("GET /api/v1/{name} HTTP/1.1\r\n{KEEP}{more}\r\n");
    let three = [
        ask("a", "Content-Length: 5\r\n") + "12345",
        ask("b", "Content-Length: 40000\r\n") + &"z".repeat(40_000),
        ask("c", ""),
    ];
    stream.write_all(three.concat().as_bytes()).unwrap();
    for name in ["a", "b", "c"] {
        let want = format!("Unsupported v1 API command: {name}");
        assert_eq!(one_answer(&mut stream).1, want.as_bytes());
    }
}

#[test]
fn what_is_no_request_is_told_so_even_to_clients_that_go_on_sending() {
    let trial = trial("");
    let filler = "x".repeat(150_000);
    for (request, body) in [
        ("BREW / HTTP/1.1\r\n\r\n".to_owned(), "I don't understand you...\r\n"),
        (format!("BREW {filler}"), "I don't understand you...\r\n"),
        (format!("GET / HTTP/1.1\r\nX: {filler}"), "Received request is too big"),
        ("GET /%zz HTTP/1.1\r\n\r\n".to_owned(), "URL not valid. I don't understand you...\r\n"),
        (
            format!("GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n{filler}"),
            "I don't understand",
        ),
    ] {
        let answer = trial.talk(&request);
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(text.starts_with(body), "{text}");
    }
    assert_eq!(read(&trial.agent.usage.malformed), 5);
}

#[test]
fn who_asks_too_slowly_is_left() {
    let trial =
        trial("[web]\ntimeout for first request = 1\ndisconnect idle clients after seconds = 1\n");
    let began = Instant::now();
    let mut silent = trial.connect();
    let mut slow = trial.connect();
    slow.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    // A byte now and then does not buy more time.
    let mut byte = [0];
    loop {
        let _ = slow.write_all(b"GET / HTTP/1.1\r\n".get(..1).unwrap());
        match slow.read(&mut byte) {
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock) => {}
            _ => break,
        }
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(rest_of(&mut silent), "");
    let mut idle = trial.connect();
    write!(idle, "GET /api/v1/x HTTP/1.1\r\n{KEEP}\r\n").unwrap();
    one_answer(&mut idle);
    assert_eq!(rest_of(&mut idle), "");
    trial.wait_until("all threads are gone", |t| t.connections() == 0);
    assert!(read(&trial.agent.usage.timed_out) >= 2);
}

#[test]
fn who_takes_its_answer_too_slowly_is_left() {
    let trial = trial("[web]\ndisconnect idle clients after seconds = 1\n");
    let mut stream = trial.connect();
    stream.write_all(b"GET /big.txt HTTP/1.1\r\n\r\n").unwrap();
    trial.wait_until("the thread is gone", |t| {
        read(&t.agent.usage.timed_out) == 1 && t.connections() == 0
    });
    drop(stream);
}

#[test]
fn a_file_arrives_whole() {
    let trial = trial("");
    let answer = trial.talk("GET /big.txt HTTP/1.1\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nContent-Length: 20000000"), "{head}");
    assert!(body.len() == 20_000_000 && body.bytes().all(|b| b == b'x'));
}

#[test]
fn connections_beyond_the_limit_are_closed_and_counted() {
    let trial = trial("[web]\nweb server max sockets = 20\n");
    let mut all: Vec<TcpStream> = (0..60).map(|_| trial.connect()).collect();
    trial.wait_until("forty are refused", |t| read(&t.agent.usage.refused) == 40);
    assert_eq!(trial.connections(), 20);
    for stream in &mut all {
        // A refused one is closed or reset.
        let _ = write!(stream, "GET /api/v1/x HTTP/1.1\r\n\r\n");
    }
    let answered = all.iter_mut().filter_map(|stream| {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).ok().filter(|bytes| *bytes > 0)
    });
    assert_eq!(answered.count(), 20);
    trial.wait_until("all are gone", |t| t.connections() == 0);
    assert!(trial.talk("GET /api/v1/x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    trial.wait_until("nobody is counted", |t| read(&t.agent.usage.clients) == 0);
}

#[test]
fn who_may_not_connect_is_not_read() {
    let trial = trial("[web]\nallow connections from = 10.*\n");
    assert_eq!(trial.talk(""), "");
    trial.wait_until("it is counted", |t| read(&t.agent.usage.denied) == 1);
}

#[test]
fn a_port_serves_what_it_is_for() {
    let config = "[web]\nbind to = 127.0.0.1:0=dashboard 127.0.0.1:0=netdata.conf|management \
                  127.0.0.1:0=streaming unix:DIR/s\n";
    let trial = trial(config);
    let refused = |port: usize, what: &str| {
        let mut stream = trial.connect_to(port);
        write!(stream, "{what} HTTP/1.1\r\n\r\n").unwrap();
        let answer = rest_of(&mut stream);
        assert!(!answer.is_empty());
        answer.starts_with("HTTP/1.1 403") && answer.contains("You are not allowed")
    };
    for (request, by_dashboard, by_conf, by_streaming) in [
        ("GET /api/v1/info", false, true, true),
        ("GET /", false, true, true),
        ("GET /netdata.conf", true, false, true),
        ("GET /api/v1/registry?action=hello", false, true, true),
        ("GET /api/v1/registry?action=access", true, true, true),
        ("OPTIONS /", false, false, true),
        ("GET /api/v3/stream_info", false, false, false),
    ] {
        assert_eq!(refused(0, request), by_dashboard, "{request}");
        assert_eq!(refused(1, request), by_conf, "{request}");
        assert_eq!(refused(2, request), by_streaming, "{request}");
    }
    let mut unix = UnixStream::connect(trial._dir.path().join("s")).unwrap();
    unix.write_all(b"GET /netdata.conf HTTP/1.1\r\n\r\n").unwrap();
    assert!(rest_of(&mut unix).starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn management_wants_the_key() {
    let trial = trial("");
    let ask = |token: &str| {
        trial.talk(&format!("GET /api/v1/manage/health?cmd=LIST HTTP/1.1\r\n{token}\r\n"))
    };
    assert!(ask("").ends_with("\r\n\r\nAuth Error\n"));
    assert!(ask("X-Auth-Token: kez\r\n").ends_with("\r\n\r\nAuth Error\n"));
    assert!(
        ask("X-Auth-Token: key\r\n").ends_with(r#"{"all":false,"type":"None","silencers":[]}"#)
    );
}

#[test]
fn a_child_is_handed_over_on_its_connection() {
    let trial = trial("");
    let mut child = trial.connect();
    child.write_all(b"STREAM hostname=friend HTTP/1.1\r\nUser-Agent: a/b\r\n").unwrap();
    child.write_all(b"\r\n").unwrap();
    let mut hello = [0; 5];
    child.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    child.write_all(b"data").unwrap();
    child.read_exact(&mut hello[..4]).unwrap();
    assert_eq!(&hello[..4], b"data");
    let request = trial.streams.0.lock().remove(0);
    assert_eq!(
        (&request.parameters[..], request.user_agent.as_deref()),
        (&b"hostname=friend"[..], Some("a/b"))
    );
    assert_eq!(trial.talk("STREAM hostname=foe HTTP/1.1\r\n\r\n"), "go away");
    let glued = trial.talk("STREAM hostname=friend HTTP/1.1\r\n\r\nLABEL");
    assert!(glued.starts_with("HTTP/1.1 400"), "{glued}");
}

#[test]
fn a_bug_in_a_handler_ends_its_own_connection_only() {
    let trial = trial("");
    let answer = trial.talk("STREAM hostname=bug HTTP/1.1\r\n\r\n");
    assert_eq!(answer, "");
    trial.wait_until("its number is free again", |t| t.connections() == 0);
    assert!(trial.talk("GET /api/v1/x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_child_needs_the_right_to_stream() {
    let trial = trial("[web]\nallow streaming from = 10.*\n");
    let answer = trial.talk("STREAM hostname=friend HTTP/1.1\r\n\r\n");
    assert_eq!(answer, "You are not allowed to access this resource.");
    assert!(trial.streams.0.lock().is_empty());
}

#[test]
fn a_stop_ends_waiting_clients_and_streams() {
    let mut trial = trial("");
    let waiting: Vec<TcpStream> = (0..20).map(|_| trial.connect()).collect();
    let mut child = trial.connect();
    child.write_all(b"STREAM hostname=friend HTTP/1.1\r\n\r\n").unwrap();
    child.read_exact(&mut [0; 5]).unwrap();
    trial.wait_until("all are served", |t| t.connections() == 21);
    trial.stop.stop();
    let began = Instant::now();
    assert_eq!(trial.server.take().unwrap().join(PATIENCE), 0);
    assert!(began.elapsed() < Duration::from_secs(3));
    for mut stream in waiting {
        assert_eq!(rest_of(&mut stream), "");
    }
    assert!(TcpStream::connect(trial.ports[0]).is_err());
}
