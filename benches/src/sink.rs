//! A parent that agrees to stream and throws everything away.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub struct Sink {
    pub port: u16,
    bytes: Arc<AtomicU64>,
}

impl Sink {
    /// Listens in threads that end with this process.
    pub fn start(caps: u32) -> io::Result<Sink> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let bytes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&bytes);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                thread::spawn(move || swallow(socket, caps, &count));
            }
        });
        Ok(Sink { port, bytes })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn swallow(mut socket: TcpStream, caps: u32, count: &AtomicU64) -> io::Result<()> {
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
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            n => count.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
}
