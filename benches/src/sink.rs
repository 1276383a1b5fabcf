//! A parent that agrees to stream and throws everything away.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

pub struct Sink {
    pub port: u16,
    bytes: Arc<AtomicU64>,
    arrivals: Arc<Arrivals>,
}

/// When samples of a host arrived.
#[derive(Default)]
struct Arrivals {
    host: String,
    times: Mutex<Vec<Instant>>,
}

impl Sink {
    /// Listens in threads that end with this process.
    pub fn start(caps: u32) -> io::Result<Sink> {
        Sink::watching(caps, "")
    }

    /// The same, which notes when samples of `host` arrive.
    pub fn watching(caps: u32, host: &str) -> io::Result<Sink> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let bytes = Arc::new(AtomicU64::new(0));
        let arrivals = Arc::new(Arrivals { host: host.to_owned(), times: Mutex::default() });
        let (count, noted) = (Arc::clone(&bytes), Arc::clone(&arrivals));
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (count, noted) = (Arc::clone(&count), Arc::clone(&noted));
                thread::spawn(move || swallow(socket, caps, &count, &noted));
            }
        });
        Ok(Sink { port, bytes, arrivals })
    }

    /// The first arrival of samples at or after `since`.
    pub fn arrival(&self, since: Instant) -> Option<Instant> {
        let times = self.arrivals.times.lock().ok()?;
        times.iter().find(|time| **time >= since).copied()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn swallow(
    mut socket: TcpStream,
    caps: u32,
    count: &AtomicU64,
    noted: &Arrivals,
) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    if !head.starts_with(b"STREAM ") {
        return socket.write_all(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    let head = String::from_utf8_lossy(&head);
    let ver = head.split("&ver=").nth(1).and_then(|rest| rest.split(['&', ' ']).next());
    let offered: u32 = ver.and_then(|v| v.parse().ok()).unwrap_or(0);
    let agreed = offered & caps & !0b11_1000;
    socket
        .write_all(format!("Hit me baby, push them over with the version={agreed}").as_bytes())?;
    let is_noted = !noted.host.is_empty() && head.contains(&format!("hostname={}&", noted.host));
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let got = match socket.read(&mut buffer)? {
            0 => return Ok(()),
            got => got,
        };
        count.fetch_add(got as u64, Ordering::Relaxed);
        if is_noted
            && buffer[..got].windows(3).any(|word| word == b"SET")
            && let Ok(mut times) = noted.times.lock()
        {
            times.push(Instant::now());
        }
    }
}
