//! Connecting to a destination: all addresses of its name in the resolver's order, each within a time-out.
//!
//! Blocks the calling thread, which is the sender's own, but looks several times a second whether it still should.
//! Resolving takes as long as the system's resolver does.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::Connection;
use super::listen::{Place, Protocol, addresses};
use crate::base::sys::{self, Interest, Watched};
use crate::base::threads::StopToken;

/// How soon a stop is noticed while connecting.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why no address of a destination could be connected.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("Cannot resolve host '{host}', port '{port}'")]
    Resolve { host: String, port: String, source: io::Error },
    #[error("Failed to connect to '{host}', port '{port}'")]
    Connect { host: String, port: String, source: io::Error },
}

impl DialError {
    pub fn reason(&self) -> &io::Error {
        match self {
            DialError::Resolve { source, .. } | DialError::Connect { source, .. } => source,
        }
    }
}

/// Connects to the first address of `place` that answers within `timeout`. `failed` is told of every one that does not.
pub fn dial(
    place: &Place,
    timeout: Duration,
    stop: &StopToken,
    mut failed: impl FnMut(&DialError),
) -> Result<Connection, DialError> {
    let result = match place {
        Place::Unix(path) => {
            let host = path.display().to_string();
            let error = |source| DialError::Connect { host, port: String::new(), source };
            let connect = || {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.set_write_timeout(Some(timeout))?;
                socket.connect(&SockAddr::unix(path)?)?;
                Connection::unix(UnixStream::from(socket))
            };
            connect().map_err(error)
        }
        Place::Net { protocol: Protocol::Udp, host, port, .. } => {
            let source = io::Error::from(io::ErrorKind::Unsupported);
            Err(DialError::Connect { host: host.clone(), port: port.clone(), source })
        }
        Place::Net { host, interface, port, .. } => {
            // "Any address" to listen on is this machine to dial.
            let name = if host.is_empty() { "localhost" } else { host };
            let resolved = addresses(name, interface.as_deref(), port).map_err(|source| {
                DialError::Resolve { host: host.clone(), port: port.clone(), source }
            });
            match resolved {
                Ok(addresses) => {
                    return first_of(&addresses, timeout, stop, failed).unwrap_or_else(|| {
                        let source = io::Error::from(io::ErrorKind::NotFound);
                        let (host, port) = (host.clone(), port.clone());
                        Err(DialError::Resolve { host, port, source })
                    });
                }
                Err(error) => Err(error),
            }
        }
    };
    if let Err(error) = &result {
        failed(error);
    }
    result
}

fn first_of(
    addresses: &[SocketAddr],
    timeout: Duration,
    stop: &StopToken,
    mut failed: impl FnMut(&DialError),
) -> Option<Result<Connection, DialError>> {
    let mut last = None;
    for &address in addresses {
        match connect_tcp(address, timeout, stop) {
            Ok(connection) => return Some(Ok(connection)),
            Err(source) => {
                let (host, port) = (address.ip().to_string(), address.port().to_string());
                let error = DialError::Connect { host, port, source };
                failed(&error);
                last = Some(Err(error));
            }
        }
    }
    last
}

fn connect_tcp(address: SocketAddr, timeout: Duration, stop: &StopToken) -> io::Result<Connection> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Err(error) = socket.connect(&address.into()) {
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(error);
        }
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || stop.is_stopped() {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            let mut watched = [Watched::new(socket.as_fd(), Interest::ReadWrite)];
            if sys::poll(&mut watched, Some(left.min(LOOK_EVERY)))? > 0 {
                break;
            }
        }
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
    }
    Connection::tcp(socket.into(), address)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::destination::parse_destinations;
    use super::super::listen::{listen, parse_bind};
    use super::*;

    fn place(text: &str) -> Place {
        parse_destinations(text, 1).pop().unwrap().place
    }

    #[test]
    fn a_dead_port_is_reported_by_its_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (mut lines, stop) = (Vec::new(), StopToken::new());
        let end =
            dial(&place(&format!("127.0.0.1:{port}")), Duration::from_secs(5), &stop, |error| {
                lines.push(format!("{error} {:?}", error.reason().raw_os_error()));
            });
        assert!(end.is_err());
        let refused = format!("Failed to connect to '127.0.0.1', port '{port}' Some(111)");
        assert_eq!(lines, [refused]);
        assert!(dial(&place("udp:127.0.0.1:9"), Duration::from_secs(5), &stop, |_| {}).is_err());
        assert!(
            dial(&place("127.0.0.1:no-service"), Duration::from_secs(5), &stop, |_| {}).is_err()
        );
    }

    #[test]
    fn bytes_travel_over_tcp_and_unix_sockets() {
        let (dir, stop) = (tempfile::tempdir().unwrap(), StopToken::new());
        let unix = format!("unix:{}/s", dir.path().display());
        for bind in ["127.0.0.1:0", &unix] {
            let listener = listen(&parse_bind(bind, 0)[0], 5).remove(0).unwrap();
            let to = match listener.local() {
                Some(address) => address.to_string(),
                None => unix.clone(),
            };
            let mut near = dial(&place(&to), Duration::from_secs(5), &stop, |_| {}).unwrap();
            let mut far = loop {
                // The listener does not block; on loopback the connection is there at once, or almost.
                if let Ok(far) = listener.accept() {
                    break far;
                }
            };
            near.write_all(b"hello").unwrap();
            let mut got = [0; 5];
            far.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"hello");
        }
    }
}
