//! The web server of a running agent: floods are bounded and counted, files and pages come without anything installed.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::*;

const SOCKETS: usize = 100;
const FLOOD: usize = 1_000;

/// The sum over time of what the agent counts per second.
fn counted(agent: &Agent, dimension: &str, since: i64) -> f64 {
    // The slot that ends as it begins holds a part, too.
    let rows = agent.samples("", "netdata.web_refused", 1, since - 2, now());
    rows.values().filter_map(|row| row.get(dimension)?.parse::<f64>().ok()).sum()
}

#[test]
fn a_flood_of_connections_is_bounded_counted_and_told() {
    let agent = Agent::new("flooded").collecting();
    let agent = agent.option("web", "web server max sockets", &SOCKETS.to_string()).start();
    wait_for("the agent's own charts", 20, || {
        agent.charts("").contains_key("netdata.web_refused").then_some(())
    });
    pause(Duration::from_secs(2));
    let (before, since) = (agent.status_kib("VmRSS"), now());
    let flood: Vec<_> =
        (0..FLOOD).map(|_| dial(agent.port, Duration::from_secs(5)).unwrap()).collect();
    wait_for("the threads of those let in", 10, || {
        let serving = agent.threads().iter().filter(|t| t.starts_with("WEB_SERVER")).count();
        // and the acceptor
        (serving == SOCKETS + 1).then_some(())
    });
    let refused = FLOOD - SOCKETS;
    wait_for("the others to be closed", 20, || {
        let closed = |socket: &&TcpStream| {
            socket.set_nonblocking(true).unwrap();
            !matches!(socket.peek(&mut [0; 1]), Err(e) if e.kind() == ErrorKind::WouldBlock)
        };
        (flood.iter().filter(closed).count() == refused).then_some(())
    });
    agent.wait_log("WEB_SERVER: refused ", 5);
    let grown = agent.status_kib("VmRSS").saturating_sub(before);
    assert!(grown < 64 * SOCKETS as u64, "{SOCKETS} connections cost {grown} KiB");
    drop(flood);
    wait_for("an honest request", 10, || agent.try_get("/api/v1/info").filter(|r| r.status == 200));
    wait_for("the refused to be counted", 10, || {
        (counted(&agent, "too_many", since) >= 899.0).then_some(())
    });
    assert!(agent.log().matches("WEB_SERVER: refused ").count() < 10, "a flood floods the log");
}

#[test]
fn half_open_clients_are_left_in_their_time_and_counted() {
    let agent = Agent::new("patient").collecting();
    let agent = agent.option("web", "timeout for first request", "2").start();
    wait_for("the agent's own charts", 20, || {
        agent.charts("").contains_key("netdata.web_refused").then_some(())
    });
    let since = now();
    let mut silent: Vec<_> =
        (0..50).map(|_| dial(agent.port, Duration::from_secs(10)).unwrap()).collect();
    for (n, socket) in silent.iter_mut().enumerate() {
        let half = "GET /api/v1/info HTTP/1.1\r\nX-Half: yes";
        socket.write_all(&half.as_bytes()[..n % half.len()]).unwrap();
    }
    let began = Instant::now();
    for socket in &mut silent {
        assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0, "an answer to half a request");
    }
    assert!(began.elapsed() < Duration::from_secs(8), "took {:?}", began.elapsed());
    wait_for("them to be counted", 10, || {
        (counted(&agent, "too_slow", since) >= 49.0).then_some(())
    });
}

#[test]
fn without_a_dashboard_installed_there_is_a_page() {
    let agent = Agent::new("plain").start();
    for path in ["/", "/index.html", "/host/plain/"] {
        let page = agent.get(path);
        let text = &page.body;
        assert!(page.status == 200 && text.starts_with("<!doctype html>"), "{path}");
        assert!(
            !text.contains("http://") && !text.contains("https://"),
            "a page that asks elsewhere"
        );
    }
}
