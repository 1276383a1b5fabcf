//! A client that begins a TLS handshake with any bytes: it fails, in time, and takes nothing along.
#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use netdata_rs::base::threads::StopToken;
use netdata_rs::net::Connection;
use netdata_rs::net::tls::{ClientOptions, ServerOptions, ServerTls};

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

fuzz_target!(|data: &[u8]| {
    let (files, server) = server();
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
