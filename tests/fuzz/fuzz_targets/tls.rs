//! A client that begins a TLS handshake with any bytes: it fails, in time, and takes nothing along. And one that completes
//! it: what it says inside arrives as it is, and any bytes outside of TLS end the connection without a byte of them.
#![no_main]

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use netdata_rs::base::threads::StopToken;
use netdata_rs::net::Connection;
use netdata_rs::net::tls::{ClientOptions, ServerOptions, ServerTls};
use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVerifyMode, SslVersion};

#[path = "../../daemon/certificates.rs"]
mod certificates;

use certificates::Files;

fn server() -> &'static (Files, ServerTls) {
    static SERVER: OnceLock<(Files, ServerTls)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let files = Files::new();
        let options = ServerOptions {
            key: files.path("good.key"),
            certificate: files.path("good.pem"),
            version: "1.2".to_owned(),
            ..ServerOptions::default()
        };
        let server = ServerTls::new(options);
        assert!(server.is_on());
        (files, server)
    })
}

/// The end of a connection whose other end says `bytes` and no more.
fn hearing(bytes: &[u8]) -> (Connection, UnixStream) {
    let (here, mut there) = UnixStream::pair().expect("sockets");
    there.write_all(bytes).expect("room for the input");
    there.shutdown(Shutdown::Write).expect("a socket that stands");
    (Connection::unix(here).expect("a socket that stands"), there)
}

/// What the lowest bits of the first byte choose.
const COMPLETES: u8 = 1;
const OLD: u8 = 2;

/// A client's end of TLS 1.2 or 1.3.
fn client(is_old: bool) -> Ssl {
    static CONTEXTS: OnceLock<[SslContext; 2]> = OnceLock::new();
    let contexts = CONTEXTS.get_or_init(|| {
        [SslVersion::TLS1_3, SslVersion::TLS1_2].map(|version| {
            let mut builder = SslContext::builder(SslMethod::tls_client()).expect("TLS");
            builder.set_verify(SslVerifyMode::NONE);
            builder.set_max_proto_version(Some(version)).expect("a version");
            builder.build()
        })
    });
    Ssl::new(&contexts[usize::from(is_old)]).expect("TLS")
}

/// The fuzzer's timer interrupts system calls, which OpenSSL takes for the end of a connection.
struct Patient(UnixStream);

fn patient(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        patient(|| self.0.read(buffer))
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        patient(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `choice` says how much of `data` goes through TLS, and in which pieces; the rest follows outside of it.
fn completes(server: &ServerTls, choice: u8, data: &[u8]) {
    let (here, there) = UnixStream::pair().expect("sockets");
    let inside = data.len() * usize::from(choice >> 5) / 7;
    let (inside, outside) = data.split_at(inside);
    let step = usize::from((choice >> 2) & 7) * 700 + 1;
    let (time, stop) = (Duration::from_secs(5), StopToken::new());
    std::thread::scope(|scope| {
        let speaker = scope.spawn(move || {
            let mut raw = there.try_clone().expect("a socket");
            let mut stream =
                SslStream::new(client(choice & OLD != 0), Patient(there)).expect("TLS");
            stream.connect().expect("a handshake");
            // It may be cut off by what it says, though not inside of TLS.
            inside.chunks(step).for_each(|piece| stream.write_all(piece).expect("a reader"));
            let _ = raw.write_all(outside);
            let _ = raw.shutdown(Shutdown::Write);
            // Until then the other end may still want to say why.
            let _ = raw.set_read_timeout(Some(time));
            let _ = raw.read_to_end(&mut Vec::new());
        });
        let mut connection = Connection::unix(here).expect("a socket that stands");
        assert!(connection.accept_tls(server, time, &stop).expect("a handshake"));
        connection.set_read_timeout(time).expect("a socket that stands");
        let (mut heard, mut buffer) = (Vec::new(), [0; 1000]);
        while let Ok(length @ 1..) = connection.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..length]);
            assert!(heard.len() <= inside.len());
        }
        assert_eq!(heard, inside);
        drop(connection);
        speaker.join().expect("the client's end");
    });
}

fuzz_target!(|data: &[u8]| {
    let (files, server) = server();
    if let Some((&choice, rest)) = data.split_first()
        && choice & COMPLETES != 0
        // A record of the handshake begins with 22.
        && choice != 0x17
    {
        return completes(server, choice, rest);
    }
    let (time, stop) = (Duration::from_secs(5), StopToken::new());
    let (mut connection, _there) = hearing(data);
    assert!(connection.accept_tls(server, time, &stop).is_err());
    assert!(!connection.is_tls());
    let trusting =
        ClientOptions { ca_file: Some(files.path("ca.pem")), ..ClientOptions::default() };
    let (mut connection, _there) = hearing(data);
    assert!(connection.connect_tls(&trusting, "localhost", time, &stop).is_err());
    assert!(!connection.is_tls());
});
