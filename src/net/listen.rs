//! The `bind to` grammar and the sockets it asks for.
//!
//! An item is `[tcp:|udp:]ADDRESS[%INTERFACE][:PORT][=WORD|WORD…][^SSL=optional|force]` or `unix:/path`. What the words after
//! `=` allow is the caller's matter. No thread; names are resolved (blocking) while sockets are opened, at start only.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol as Transport, Socket, Type};

use super::Connection;

/// Items (and sockets) beyond this are ignored.
pub const SOCKETS_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    /// Neither was named.
    Any,
}

/// What a port demands of clear-text clients once a certificate is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPolicy {
    /// Browsers are sent to https, children may stream in clear text.
    Default,
    Optional,
    Force,
}

/// One item of a `bind to` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindItem {
    pub place: Place,
    /// The words after `=`; `None` when there is no `=`, which means all of them.
    pub allowed: Option<Vec<String>>,
    pub tls: TlsPolicy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An empty host is every address. The port is a number or the name of a service.
    Net {
        protocol: Protocol,
        host: String,
        interface: Option<String>,
        port: String,
    },
    Unix(PathBuf),
}

/// Reads a list of items, separated by white space or commas.
pub fn parse_bind(list: &str, default_port: u16) -> Vec<BindItem> {
    list.split(|c: char| c.is_ascii_whitespace() || c == ',')
        .filter(|item| !item.is_empty())
        .take(SOCKETS_MAX)
        .map(|item| parse_item(item, default_port))
        .collect()
}

fn parse_item(item: &str, default_port: u16) -> BindItem {
    if let Some(path) = item.strip_prefix("unix:") {
        return BindItem {
            place: Place::Unix(path.into()),
            allowed: None,
            tls: TlsPolicy::Default,
        };
    }
    let (item, tls) = match item.rsplit_once("^SSL=") {
        Some((rest, "optional")) => (rest, TlsPolicy::Optional),
        Some((rest, "force")) => (rest, TlsPolicy::Force),
        Some((rest, _)) => (rest, TlsPolicy::Default),
        None => (item, TlsPolicy::Default),
    };
    let (item, allowed) = match item.split_once('=') {
        Some((rest, words)) => (rest, Some(words.split('|').map(str::to_owned).collect())),
        None => (item, None),
    };
    let (protocol, item) = if let Some(rest) = item.strip_prefix("tcp:") {
        (Protocol::Tcp, rest)
    } else if let Some(rest) = item.strip_prefix("udp:") {
        (Protocol::Udp, rest)
    } else {
        (Protocol::Any, item)
    };
    let (host, rest) = match item.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        Some(split) => split,
        None => item.split_at(item.find([':', '%']).unwrap_or(item.len())),
    };
    let (interface, port) = match rest.strip_prefix('%') {
        Some(rest) => match rest.split_once(':') {
            Some((interface, port)) => (Some(interface), port),
            None => (Some(rest), ""),
        },
        None => (None, rest.strip_prefix(':').unwrap_or(rest)),
    };
    let host = if matches!(host, "*" | "any" | "all") { "" } else { host };
    let port = if port.is_empty() { default_port.to_string() } else { port.to_owned() };
    let place = Place::Net {
        protocol,
        host: host.to_owned(),
        interface: interface.map(str::to_owned),
        port,
    };
    BindItem { place, allowed, tls }
}

/// Why a socket of the list is not there.
#[derive(Debug, thiserror::Error)]
#[error("'{wanted}'")]
pub struct ListenError {
    pub wanted: String,
    #[source]
    pub source: io::Error,
}

/// An open listening socket; a unix socket's file goes with it.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// The next waiting connection, or `WouldBlock`.
    pub fn accept(&self) -> io::Result<Connection> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Connection::tcp(stream, peer)
            }
            Listener::Unix(listener, _) => Connection::unix(listener.accept()?.0),
        }
    }

    pub fn local(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }
}

/// `tcp:ADDRESS:PORT` or `unix:PATH`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "tcp:{address}"),
                Err(_) => f.write_str("tcp:?"),
            },
            Listener::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// Opens the sockets of one item: one for each address of its host. They do not block.
pub fn listen(item: &BindItem, backlog: i32) -> Vec<Result<Listener, ListenError>> {
    let (host, interface, port) = match &item.place {
        Place::Unix(path) => {
            let wanted = path.display().to_string();
            return vec![
                listen_unix(path, backlog).map_err(|source| ListenError { wanted, source }),
            ];
        }
        Place::Net { host, interface, port, .. } => (host, interface, port),
    };
    match addresses(host, interface.as_deref(), port) {
        Err(source) => vec![Err(ListenError { wanted: format!("{host}:{port}"), source })],
        Ok(addresses) => {
            let opened = addresses.iter().map(|&address| {
                listen_tcp(address, backlog)
                    .map_err(|source| ListenError { wanted: address.to_string(), source })
            });
            let mut opened: Vec<_> = opened.collect();
            // A machine without IPv6 still listens to all its addresses.
            if host.is_empty() && opened.iter().any(Result::is_ok) {
                opened.retain(|one| !matches!(one, Err(e) if is_unsupported(&e.source)));
            }
            opened
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// The addresses an item names; every address of the machine for an empty host.
pub fn addresses(host: &str, interface: Option<&str>, port: &str) -> io::Result<Vec<SocketAddr>> {
    let port = service_port(port).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("unknown service '{port}'"))
    })?;
    let mut found: Vec<SocketAddr> = if host.is_empty() {
        vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
    } else {
        (host, port).to_socket_addrs()?.take(SOCKETS_MAX).collect()
    };
    if let Some(interface) = interface {
        let scope = interface_index(interface).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("unknown interface '{interface}'"))
        })?;
        for address in &mut found {
            if let SocketAddr::V6(v6) = address {
                v6.set_scope_id(scope);
            }
        }
    }
    found.dedup();
    Ok(found)
}

/// A port by its number or its name in /etc/services.
pub fn service_port(port: &str) -> Option<u16> {
    if port.bytes().all(|b| b.is_ascii_digit()) {
        return port.parse().ok();
    }
    let services = fs::read_to_string("/etc/services").ok()?;
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let (name, number) = (words.next()?, words.next()?);
        let number = number.strip_suffix("/tcp").or(number.strip_suffix("/udp"))?;
        (name == port || words.any(|alias| alias == port)).then(|| number.parse().ok())?
    })
}

/// The kernel's number of a network interface, by its name or already a number.
pub fn interface_index(name: &str) -> Option<u32> {
    if name.contains('/') || name.starts_with('.') {
        return None;
    }
    let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok();
    index.as_deref().unwrap_or(name).trim().parse().ok()
}

fn listen_tcp(address: SocketAddr, backlog: i32) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Transport::TCP))?;
    // Restarts at once; a second agent on the port is still refused, as SO_REUSEPORT would not.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(Listener::Tcp(socket.into()))
}

fn listen_unix(path: &Path, backlog: i32) -> io::Result<Listener> {
    remove_dead_socket(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(Listener::Unix(socket.into(), path.to_owned()))
}

/// Makes room where an agent that is gone left its socket; never touches a living one or another kind of file.
fn remove_dead_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => match UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => fs::remove_file(path),
        },
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        item: &str,
        protocol: Protocol,
        host: &str,
        interface: Option<&str>,
        port: &str,
        allowed: Option<&[&str]>,
        tls: TlsPolicy,
    ) {
        let place = Place::Net {
            protocol,
            host: host.to_owned(),
            interface: interface.map(str::to_owned),
            port: port.to_owned(),
        };
        let allowed = allowed.map(|words| words.iter().map(|&w| w.to_owned()).collect());
        assert_eq!(parse_bind(item, 19999), [BindItem { place, allowed, tls }]);
    }

    #[test]
    fn items_of_every_form() {
        use Protocol::{Any, Tcp, Udp};
        use TlsPolicy::{Default, Force, Optional};
        check("*", Any, "", None, "19999", None, Default);
        check("any:1", Any, "", None, "1", None, Default);
        check(":80", Any, "", None, "80", None, Default);
        check("tcp:localhost:http", Tcp, "localhost", None, "http", None, Default);
        check("udp:127.0.0.1:8125", Udp, "127.0.0.1", None, "8125", None, Default);
        check("[::1]", Any, "::1", None, "19999", None, Default);
        check("[fe80::1]%eth0:5", Any, "fe80::1", Some("eth0"), "5", None, Default);
        check("h%lo", Any, "h", Some("lo"), "19999", None, Default);
        check("h:1=dashboard|badges", Any, "h", None, "1", Some(&["dashboard", "badges"]), Default);
        check("h:1=a^SSL=force", Any, "h", None, "1", Some(&["a"]), Force);
        check("h:1^SSL=optional", Any, "h", None, "1", None, Optional);
        check("h^SSL=x", Any, "h", None, "19999", None, Default);
    }

    #[test]
    fn a_list_is_separated_by_blanks_and_commas() {
        let items = parse_bind(" a:1,b:2\tunix:/run/x ", 1);
        assert_eq!(items.len(), 3);
        assert_eq!(items[2].place, Place::Unix("/run/x".into()));
    }

    #[test]
    fn a_second_listener_on_a_port_is_refused() {
        let item = &parse_bind("127.0.0.1:0", 0)[0];
        let first = listen(item, 5).remove(0).unwrap();
        let port = first.local().unwrap().port();
        let again = &parse_bind(&format!("127.0.0.1:{port}"), 0)[0];
        let error = listen(again, 5).remove(0).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(error.to_string(), format!("'127.0.0.1:{port}'"));
    }

    #[test]
    fn a_dead_unix_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let item = &parse_bind(&format!("unix:{}", path.display()), 1)[0];
        let living = listen(item, 5).remove(0).unwrap();
        assert!(listen(item, 5).remove(0).is_err());
        drop(living);
        assert!(!path.exists());
        fs::write(&path, "mine").unwrap();
        assert!(listen(item, 5).remove(0).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn ports_have_names() {
        assert_eq!(service_port("19999"), Some(19999));
        assert_eq!(service_port("99999"), None);
        assert_eq!(service_port("19998^SSL"), None);
    }
}
