//! A wire between two agents that can be cut, silenced and slowed down, and ports that outlive a restart.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "two test binaries share this, and neither uses all of it"
)]

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use netdata_rs::base::threads;
use parking_lot::Mutex;

use crate::harness::{dial, pause};

/// A port that stays free while its agent is down: below those that the kernel gives to outgoing connections.
pub fn lasting_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 12_000 + u16::try_from(std::process::id() % 100).unwrap() * 100;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Carries one node's connections to another, and can be cut, silenced and slowed down.
pub struct Wire {
    pub name: String,
    pub port: u16,
    state: Arc<WireState>,
}

#[derive(Default)]
struct WireState {
    is_cut: AtomicBool,
    is_silent: AtomicBool,
    is_slow: AtomicBool,
    /// What each connection began with.
    firsts: Mutex<Vec<u8>>,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Wire {
    pub fn new(name: String, to: u16) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(WireState::default());
        let shared = Arc::clone(&state);
        let accepting = move || {
            while let Ok((near, _)) = listener.accept() {
                if !shared.is_cut.load(Ordering::Acquire) {
                    // A target that is not there is a connection that closes.
                    let _ = shared.carry(near, to);
                }
            }
        };
        threads::spawn("wire", accepting).unwrap();
        Wire { name, port, state }
    }

    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::Release);
        for socket in self.state.sockets.lock().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// The first byte that came over each connection so far.
    pub fn first_bytes(&self) -> Vec<u8> {
        self.state.firsts.lock().clone()
    }

    /// Nothing passes any more, and nobody is told.
    pub fn silence(&self) {
        self.state.is_silent.store(true, Ordering::Release);
    }

    /// Twenty kilobytes a second pass in each direction.
    pub fn slow_down(&self) {
        self.state.is_slow.store(true, Ordering::Release);
    }

    pub fn heal(&self) {
        for trouble in [&self.state.is_cut, &self.state.is_silent, &self.state.is_slow] {
            trouble.store(false, Ordering::Release);
        }
    }
}

impl WireState {
    fn carry(self: &Arc<Self>, near: TcpStream, to: u16) -> std::io::Result<()> {
        let far = dial(to, Duration::from_secs(5))?;
        far.set_read_timeout(None)?;
        let (from, into) = (near.try_clone()?, far.try_clone()?);
        let state = Arc::clone(self);
        threads::spawn("wire", move || {
            let mut first = [0];
            if let Ok(1) = from.peek(&mut first) {
                state.firsts.lock().push(first[0]);
            }
            state.copy(from, into);
        })?;
        let (from, into) = (far.try_clone()?, near.try_clone()?);
        let state = Arc::clone(self);
        threads::spawn("wire", move || state.copy(from, into))?;
        self.sockets.lock().extend([near, far]);
        Ok(())
    }

    fn copy(&self, mut from: TcpStream, mut into: TcpStream) {
        use std::io::{Read, Write};
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let slow = self.is_slow.load(Ordering::Acquire);
            let most = if slow { 1024 } else { buffer.len() };
            let Ok(length @ 1..) = from.read(&mut buffer[..most]) else { break };
            while self.is_silent.load(Ordering::Acquire) {
                pause(Duration::from_millis(10));
            }
            if slow {
                pause(Duration::from_millis(50));
            }
            if into.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = into.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
