//! An established connection, whatever carries it, and who is at its other end.
//!
//! A [`Connection`] belongs to one thread. Others may hold its [`Closer`], which ends it (and wakes its thread) at a stop.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::tls::{self, ClientOptions, Secure, ServerTls, TlsError};
use crate::base::pattern::address_text;
use crate::base::sys;
use crate::base::threads::StopToken;

/// Who is at the other end. Shown as `[ip]:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `None` for a unix socket.
    pub address: Option<IpAddr>,
    /// As logs and access lists see it: `localhost` for the loopback addresses 127.0.0.1 and ::1 and for unix sockets.
    pub ip: String,
    /// A number, or `UNIX`.
    pub port: String,
}

impl Peer {
    pub fn tcp(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        Peer { address: Some(ip), ip: address_text(ip), port: address.port().to_string() }
    }

    pub fn unix() -> Self {
        Peer { address: None, ip: "localhost".to_owned(), port: "UNIX".to_owned() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]:{}", self.ip, self.port)
    }
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Socket::Tcp(s) => s.shutdown(how),
            Socket::Unix(s) => s.shutdown(how),
        }
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Socket::Tcp(s) => s.set_nonblocking(nonblocking),
            Socket::Unix(s) => s.set_nonblocking(nonblocking),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => (&mut &*s).read(buffer),
            Socket::Unix(s) => (&mut &*s).read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => (&mut &*s).write(bytes),
            Socket::Unix(s) => (&mut &*s).write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => (&mut &*s).write_vectored(parts),
            Socket::Unix(s) => (&mut &*s).write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(s) => s.as_fd(),
            Socket::Unix(s) => s.as_fd(),
        }
    }
}

#[derive(Debug)]
pub struct Connection {
    socket: Arc<Socket>,
    peer: Peer,
    /// What is read and written goes through this once its handshake is done.
    secure: Option<Box<Secure>>,
}

impl Connection {
    /// Takes over a connected socket: no delay for small writes, blocking.
    pub fn tcp(stream: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let socket = Arc::new(Socket::Tcp(stream));
        Ok(Connection { socket, peer: Peer::tcp(peer), secure: None })
    }

    pub fn unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        let socket = Arc::new(Socket::Unix(stream));
        Ok(Connection { socket, peer: Peer::unix(), secure: None })
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Our own end; `None` for a unix socket.
    pub fn local(&self) -> Option<SocketAddr> {
        match &*self.socket {
            Socket::Tcp(s) => s.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Reads fail with `WouldBlock` after `time` without a byte. Never zero: that would mean "for ever".
    pub fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        let time = Some(time.max(SHORTEST));
        match &*self.socket {
            Socket::Tcp(s) => s.set_read_timeout(time),
            Socket::Unix(s) => s.set_read_timeout(time),
        }
    }

    /// Writes fail with `WouldBlock` after `time` without room for a byte.
    pub fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        let time = Some(time.max(SHORTEST));
        match &*self.socket {
            Socket::Tcp(s) => s.set_write_timeout(time),
            Socket::Unix(s) => s.set_write_timeout(time),
        }
    }

    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    /// Answers the handshake of a client whose first byte was TLS; false when there is no certificate to show.
    pub fn accept_tls(
        &mut self,
        server: &ServerTls,
        timeout: Duration,
        stop: &StopToken,
    ) -> Result<bool, TlsError> {
        let Some(context) = server.context() else { return Ok(false) };
        self.secure = Some(Box::new(tls::accept(&context, &self.socket, timeout, stop)?));
        Ok(true)
    }

    /// Goes on in TLS with a server that its certificate has to call `host`.
    pub fn connect_tls(
        &mut self,
        options: &ClientOptions,
        host: &str,
        timeout: Duration,
        stop: &StopToken,
    ) -> Result<(), TlsError> {
        self.secure = Some(Box::new(tls::connect(options, host, &self.socket, timeout, stop)?));
        Ok(())
    }

    pub fn is_tls(&self) -> bool {
        self.secure.is_some()
    }

    /// The other end showed a certificate of an authority it was asked for.
    pub fn has_client_certificate(&self) -> bool {
        self.secure.as_ref().is_some_and(|secure| secure.ssl().peer_certificate().is_some())
    }

    #[cfg(test)]
    pub(super) fn certificate_name(&self) -> Option<String> {
        let certificate = self.secure.as_ref()?.ssl().peer_certificate()?;
        certificate.subject_name().entries().next()?.data().to_string().ok()
    }

    #[cfg(test)]
    pub(super) fn socket_for_test(&mut self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    /// Tells the other end that nothing more will come; what it still sends can be read.
    pub fn finish_writing(&mut self) -> io::Result<()> {
        self.say_goodbye();
        self.socket.shutdown(Shutdown::Write)
    }

    fn say_goodbye(&mut self) {
        if let Some(secure) = &mut self.secure {
            // Never waits, and whoever is gone need not be told.
            let _ = self.socket.set_nonblocking(true);
            let _ = secure.shutdown();
            let _ = self.socket.set_nonblocking(false);
        }
    }

    /// Lets the kernel find out that a silent peer is gone. Unix sockets need none.
    pub fn set_keepalive(&self, idle: Duration, interval: Duration, probes: u32) -> io::Result<()> {
        let Socket::Tcp(socket) = &*self.socket else { return Ok(()) };
        let keepalive =
            TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes);
        SockRef::from(socket).set_tcp_keepalive(&keepalive)
    }

    /// The kernel gives the connection up when the other machine confirms nothing for so long. Unix sockets need none.
    pub fn set_user_timeout(&self, time: Duration) -> io::Result<()> {
        let Socket::Tcp(socket) = &*self.socket else { return Ok(()) };
        SockRef::from(socket).set_tcp_user_timeout(Some(time))
    }

    /// Looks at what has arrived and leaves it there; 0 = the other end has closed.
    pub fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        sys::peek(self.as_fd(), into)
    }

    /// Ends both directions; whoever waits for the connection sees it.
    pub fn close(&self) {
        // It may have ended by itself.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// For whoever has to end this connection from another thread.
    pub fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.socket))
    }
}

/// A time-out below this would round to none at all.
const SHORTEST: Duration = Duration::from_millis(1);

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.secure {
            Some(secure) => secure.read(buffer),
            None => (&*self.socket).read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.secure {
            Some(secure) => secure.write(bytes),
            None => (&*self.socket).write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.secure {
            Some(secure) => secure.write_vectored(parts),
            None => (&*self.socket).write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

/// What can be told of a connection without asking its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Open as far as anybody knows.
    Open,
    /// Closed by either end, or broken.
    Gone,
}

/// Ends a connection from another thread; harmless when it is gone already.
#[derive(Clone, Debug)]
pub struct Closer(Weak<Socket>);

impl Closer {
    /// Whoever reads sees the end; an answer under way still goes out.
    pub fn stop_reading(&self) {
        if let Some(socket) = self.0.upgrade() {
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    pub fn close(&self) {
        if let Some(socket) = self.0.upgrade() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// What the kernel knows of the connection, without waiting for its peer.
    pub fn health(&self) -> Health {
        let Some(socket) = self.0.upgrade() else { return Health::Gone };
        let open = match &*socket {
            Socket::Tcp(tcp) => sys::tcp_state(tcp.as_fd()).established,
            // The end of a unix socket shows once everything before it was read.
            Socket::Unix(unix) => !matches!(sys::peek(unix.as_fd(), &mut [0]), Ok(0)),
        };
        if open { Health::Open } else { Health::Gone }
    }

    /// The other machine has confirmed all that was sent to it. Always so where that cannot be known.
    pub fn is_confirmed(&self) -> bool {
        self.0.upgrade().is_none_or(|socket| match &*socket {
            Socket::Tcp(tcp) => sys::tcp_state(tcp.as_fd()).unconfirmed == 0,
            Socket::Unix(_) => true,
        })
    }

    /// Whether the connection is gone.
    pub fn is_done(&self) -> bool {
        self.0.strong_count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_peers_are_called_localhost() {
        for (address, text) in [
            ("127.0.0.1:5", "[localhost]:5"),
            ("[::1]:6", "[localhost]:6"),
            ("[::ffff:127.0.0.1]:7", "[localhost]:7"),
            ("[::ffff:192.0.2.1]:7", "[192.0.2.1]:7"),
            ("127.0.0.2:8", "[127.0.0.2]:8"),
        ] {
            assert_eq!(Peer::tcp(address.parse().unwrap()).to_string(), text);
        }
        assert_eq!(Peer::unix().to_string(), "[localhost]:UNIX");
    }

    #[test]
    fn closing_from_outside_ends_a_read() {
        let (here, _there) = UnixStream::pair().unwrap();
        let mut connection = Connection::unix(here).unwrap();
        let closer = connection.closer();
        closer.close();
        assert_eq!(connection.read(&mut [0; 1]).unwrap(), 0);
        drop(connection);
        assert!(closer.is_done());
    }

    #[test]
    fn a_peer_that_closed_shows_before_its_last_bytes_are_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (here, from) = listener.accept().unwrap();
        let connection = Connection::tcp(here, from).unwrap();
        let closer = connection.closer();
        assert_eq!(closer.health(), Health::Open);
        there.write_all(b"unread").unwrap();
        drop(there);
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while closer.health() == Health::Open {
            assert!(std::time::Instant::now() < deadline);
        }
        drop(connection);
        assert_eq!(closer.health(), Health::Gone);
    }
}
