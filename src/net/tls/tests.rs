//! Two ends of real sockets, with certificates made here.

use std::net::{TcpListener, TcpStream};

use self::certificates::{Files, certify};
use super::super::Connection;
use super::*;
use crate::base::threads;

#[path = "../../../tests/daemon/certificates.rs"]
mod certificates;

const PATIENCE: Duration = Duration::from_secs(10);

impl Files {
    fn server(&self, name: &str) -> ServerOptions {
        ServerOptions {
            key: self.path(&format!("{name}.key")),
            certificate: self.path(&format!("{name}.pem")),
            version: "1.2".to_owned(),
            ..ServerOptions::default()
        }
    }

    /// Trusts the authority of these files.
    fn client(&self) -> ClientOptions {
        ClientOptions { ca_file: Some(self.path("ca.pem")), ..ClientOptions::default() }
    }
}

fn sockets() -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (here, from) = listener.accept().unwrap();
    (Connection::tcp(here, from).unwrap(), there)
}

/// Runs `work` on another thread; what it gives is there for whoever asks.
fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> impl FnOnce() -> T {
    let (give, take) = crossbeam_channel::bounded(1);
    let ends = threads::spawn("test", move || give.send(work()).unwrap_or_default());
    ends.unwrap();
    move || take.recv().unwrap()
}

/// One client at a server: what each of them makes of it.
fn meet(
    server: &Arc<ServerTls>,
    client: &ClientOptions,
    host: &str,
) -> (Result<Connection, TlsError>, Result<Connection, TlsError>) {
    let (mut here, there) = sockets();
    let server = Arc::clone(server);
    let accepting = elsewhere(move || -> Result<Connection, TlsError> {
        assert!(here.accept_tls(&server, PATIENCE, &StopToken::new())?);
        Ok(here)
    });
    let address = there.peer_addr().unwrap();
    let mut there = Connection::tcp(there, address).unwrap();
    let connected = there.connect_tls(client, host, PATIENCE, &StopToken::new());
    // A refusal ends the other end's handshake, too.
    let connected = connected.map(|()| there);
    (accepting(), connected)
}

fn is_trusted(server: &ServerOptions, client: &ClientOptions, host: &str) -> bool {
    let (_, connected) = meet(&Arc::new(ServerTls::new(server.clone())), client, host);
    match connected {
        Ok(_) => true,
        Err(TlsError::Certificate(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_is_written_arrives_and_is_not_readable_on_the_way() {
    let files = Files::new();
    let server = Arc::new(ServerTls::new(files.server("good")));
    let (here, there) = meet(&server, &files.client(), "localhost");
    let (mut here, mut there) = (here.unwrap(), there.unwrap());
    assert!(here.is_tls() && there.is_tls() && !here.has_client_certificate());
    let text = b"BEGIN system.cpu\n".repeat(5000);
    let sent = text.clone();
    let writer = elsewhere(move || {
        there.write_all(&sent).unwrap();
        there.finish_writing().unwrap();
        there
    });
    // As they lie in the kernel.
    let mut raw = [0; 4000];
    while here.peek(&mut raw).is_err() {
        std::thread::yield_now();
    }
    assert!(is_tls(raw[0]), "{:?}", &raw[..5]);
    assert!(memchr::memmem::find(&raw, b"BEGIN").is_none());
    let mut got = Vec::new();
    here.read_to_end(&mut got).unwrap();
    assert!(got == text);
    let mut there = writer();
    // The other direction still stands.
    here.write_all(b"answer").unwrap();
    let mut answer = [0; 6];
    there.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn a_certificate_has_to_be_valid_known_and_of_that_name() {
    let files = Files::new();
    files.sign("other", "elsewhere.example", 5);
    files.sign("old", "localhost", 0);
    files.write("own", &certify("localhost", 5, None));
    let client = files.client();
    let trusted = |name: &str, host: &str| is_trusted(&files.server(name), &client, host);
    assert!(trusted("good", "localhost"));
    assert!(trusted("good", "127.0.0.1"));
    assert!(!trusted("good", "127.0.0.2"));
    assert!(!trusted("good", "elsewhere.example"));
    assert!(!trusted("other", "localhost"));
    assert!(trusted("other", "elsewhere.example"));
    assert!(!trusted("old", "localhost"));
    assert!(!trusted("own", "localhost"));
    // Without authorities of our own those of the system count, and they do not know these.
    assert!(!is_trusted(&files.server("good"), &ClientOptions::default(), "localhost"));
    let own = ClientOptions { ca_file: Some(files.path("own.pem")), ..ClientOptions::default() };
    assert!(is_trusted(&files.server("own"), &own, "localhost"));
    let any = ClientOptions { skip_verification: true, ..ClientOptions::default() };
    for name in ["good", "other", "old", "own"] {
        assert!(is_trusted(&files.server(name), &any, "localhost"), "{name}");
    }
}

#[test]
fn authorities_that_cannot_be_read_trust_nobody() {
    let files = Files::new();
    let server = Arc::new(ServerTls::new(files.server("good")));
    for name in ["missing.pem", "bad\0name"] {
        let client = ClientOptions { ca_file: Some(files.path(name)), ..ClientOptions::default() };
        let (_, connected) = meet(&server, &client, "localhost");
        assert!(matches!(connected, Err(TlsError::File { .. })), "{name}");
    }
}

#[test]
fn nobody_waits_for_a_peer_that_does_not_end_its_handshake() {
    let files = Files::new();
    let server = ServerTls::new(files.server("good"));
    let short = Duration::from_millis(50);
    let (mut here, mut silent) = sockets();
    silent.write_all(b"\x16\x03\x01").unwrap();
    let end = here.accept_tls(&server, short, &StopToken::new());
    assert!(matches!(end, Err(TlsError::TimedOut)), "{end:?}");
    let address = silent.peer_addr().unwrap();
    let mut silent = Connection::tcp(silent, address).unwrap();
    let end = silent.connect_tls(&files.client(), "localhost", short, &StopToken::new());
    assert!(matches!(end, Err(TlsError::TimedOut)), "{end:?}");
    // A stop ends it long before its time.
    let (mut here, _silent) = sockets();
    let stop = StopToken::new();
    stop.stop();
    let end = here.accept_tls(&server, Duration::from_secs(3600), &stop);
    assert!(matches!(end, Err(TlsError::TimedOut)), "{end:?}");
}

#[test]
fn what_is_no_handshake_is_an_error() {
    let files = Files::new();
    let server = ServerTls::new(files.server("good"));
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 0, 0, 0, 0], &[0; 500]] {
        let (mut here, mut there) = sockets();
        there.write_all(junk).unwrap();
        drop(there);
        let end = here.accept_tls(&server, PATIENCE, &StopToken::new());
        assert!(matches!(end, Err(TlsError::Handshake(_))), "{junk:?}: {end:?}");
    }
}

#[test]
fn a_certificate_that_does_not_load_leaves_the_one_in_use() {
    let files = Files::new();
    let server = ServerTls::new(files.server("later"));
    assert!(!server.is_on() && !server.options().is_wanted());
    let (mut here, _there) = sockets();
    assert!(!here.accept_tls(&server, PATIENCE, &StopToken::new()).unwrap());

    files.sign("later", "localhost", 5);
    let reload =
        |server: &ServerTls| ServerTls::read(server.options()).map(|fresh| server.show(fresh));
    reload(&server).unwrap();
    let server = Arc::new(server);
    let name = |server: &Arc<ServerTls>| {
        let any = ClientOptions { skip_verification: true, ..ClientOptions::default() };
        let (_here, there) = meet(server, &any, "localhost");
        let there = there.unwrap();
        there.certificate_name().unwrap()
    };
    assert_eq!(name(&server), "localhost");
    std::fs::write(files.path("later.key"), "no key").unwrap();
    assert!(matches!(reload(&server), Err(TlsError::Setting { .. })));
    assert_eq!(name(&server), "localhost");
    let any = ClientOptions { skip_verification: true, ..ClientOptions::default() };
    let (here, there) = meet(&server, &any, "localhost");
    let (mut here, mut there) = (here.unwrap(), there.unwrap());
    files.sign("later", "renewed", 5);
    reload(&server).unwrap();
    assert_eq!(name(&server), "renewed");
    // Who was connected before does not notice.
    there.write_all(b"still").unwrap();
    let mut got = [0; 5];
    here.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still");
}

#[test]
fn clients_may_show_a_certificate_of_an_authority_that_is_known() {
    let files = Files::new();
    files.sign("kid", "kid", 5);
    files.write("stranger", &certify("kid", 5, None));
    let options =
        ServerOptions { client_authorities: Some(files.path("ca.pem")), ..files.server("good") };
    let server = Arc::new(ServerTls::new(options));
    assert!(server.is_on());
    let showing = |name: &str| ClientOptions {
        identity: Some((files.path(&format!("{name}.key")), files.path(&format!("{name}.pem")))),
        ..files.client()
    };
    let shown = |client: &ClientOptions| meet(&server, client, "localhost").0;
    assert!(shown(&showing("kid")).unwrap().has_client_certificate());
    assert!(!shown(&files.client()).unwrap().has_client_certificate());
    assert!(matches!(shown(&showing("stranger")), Err(TlsError::Certificate(_))));
}

#[test]
fn versions_and_ciphers() {
    let files = Files::new();
    let version = |server: ServerOptions, client: Option<SslVersion>, cipher: &str| {
        let context = server.context().unwrap();
        let (mut here, there) = sockets();
        let accepting = elsewhere(move || {
            let socket = here.socket_for_test();
            let end = accept(&context, &socket, PATIENCE, &StopToken::new());
            here.close();
            end.map(|secure| secure.ssl().version_str())
        });
        let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_max_proto_version(client).unwrap();
        builder.set_security_level(0);
        builder.set_cipher_list(cipher).unwrap();
        let mut stream = SslStream::new(Ssl::new(&builder.build()).unwrap(), there).unwrap();
        let _ = stream.connect();
        accepting().ok()
    };
    let of = |version: &str| ServerOptions { version: version.to_owned(), ..files.server("good") };
    let (old, new) = (Some(SslVersion::TLS1_2), None);
    assert_eq!(version(of("1.2"), old, "ALL"), Some("TLSv1.2"));
    assert_eq!(version(of("1.2"), new, "ALL"), Some("TLSv1.3"));
    assert_eq!(version(of("1.3"), old, "ALL"), None);
    assert_eq!(version(of("1.3"), new, "ALL"), Some("TLSv1.3"));
    // There is nothing older, whatever is configured, and no cipher without secrecy.
    assert_eq!(version(of("1.0"), Some(SslVersion::TLS1_1), "ALL"), None);
    assert_eq!(
        version(of("1.2"), old, "AES128-SHA:AES256-GCM-SHA384:ECDHE-ECDSA-AES128-SHA"),
        None
    );
    let only = ServerOptions {
        ciphers: "ECDHE-ECDSA-AES256-GCM-SHA384:TLS_AES_256_GCM_SHA384".to_owned(),
        ..of("1.2")
    };
    assert_eq!(version(only.clone(), old, "ECDHE-ECDSA-AES128-GCM-SHA256"), None);
    assert_eq!(version(only, old, "ALL"), Some("TLSv1.2"));
    // Neither does a list that asks for everything get what is weak.
    let all = ServerOptions { ciphers: "ALL:COMPLEMENTOFALL:@SECLEVEL=0".to_owned(), ..of("1.0") };
    assert_eq!(version(all.clone(), Some(SslVersion::TLS1_1), "ALL:@SECLEVEL=0"), None);
    for weak in ["kRSA", "aNULL", "eNULL", "SHA1", "SHA256", "SHA384", "PSK"] {
        let weak = format!("{weak}:@SECLEVEL=0");
        assert_eq!(version(all.clone(), old, &weak), None, "{weak}");
    }
    assert_eq!(version(all, old, "ECDHE+AESGCM"), Some("TLSv1.2"));
    assert!(ServerOptions { ciphers: "nonsense".to_owned(), ..of("1.2") }.context().is_err());
}
