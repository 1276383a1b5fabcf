//! TLS at either end of a connection, by the system's OpenSSL.
//!
//! [`ServerTls`] holds the certificate this agent shows, read again on demand: connections that stand keep what they
//! began with. Handshakes run on the thread of their connection, which waits for one peer only, bounded in time. A TLS
//! connection is used by that one thread alone. Lock: `context`, for copying a pointer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslMode, SslOptions,
    SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::{X509, X509VerifyResult};
use parking_lot::Mutex;

use super::connection::Socket;
use crate::base::sys::{self, Interest, Watched};
use crate::base::threads::StopToken;

/// A first byte up to this is TLS; no request of ours begins with one.
const RECORD_TYPE_MAX: u8 = 0x17;
/// How soon a stop is noticed during a handshake.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// For TLS 1.2: forward secrecy and authenticated encryption. All of TLS 1.3 has both.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20";
/// Appended to what configuration names: no key that opens all earlier sessions, nobody unknown, nothing in the clear, and no
/// cipher whose authentication comes after its encryption.
const STRONG: &str = ":!kRSA:!kDH:!kECDH:!aNULL:!eNULL:!PSK:!SRP:!SHA1:!SHA256:!SHA384:!MD5";
/// As the system has it, whatever a list of ciphers says.
const SECURITY_LEVEL: u32 = 2;
/// Certificates of authorities that are read from one file.
const AUTHORITY_BYTES_MAX: u64 = 1 << 20;

/// Whether a client that sends this first wants TLS.
pub fn is_tls(first: u8) -> bool {
    first <= RECORD_TYPE_MAX
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot use '{}': {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot use {what}: {source}")]
    Setting { what: String, source: ErrorStack },
    /// The other end's certificate is not one to trust.
    #[error("{0}")]
    Certificate(X509VerifyResult),
    #[error("{0}")]
    Handshake(String),
    #[error("no answer in time")]
    TimedOut,
}

fn setting(what: &str, path: Option<&Path>) -> impl FnOnce(ErrorStack) -> TlsError {
    let what = match path {
        Some(path) => format!("{what} '{}'", path.display()),
        None => what.to_owned(),
    };
    move |source| TlsError::Setting { what, source }
}

// --- what this agent shows ---------------------------------------------------------------------------------

/// `[web]`: what clients are shown and may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerOptions {
    pub key: PathBuf,
    pub certificate: PathBuf,
    /// The oldest version spoken; below 1.2 there is none.
    pub version: String,
    /// OpenSSL's list; empty or `none` is ours.
    pub ciphers: String,
    /// Authorities of certificates that clients may show.
    pub client_authorities: Option<PathBuf>,
}

/// The server's side: off as long as its key and certificate cannot be used.
#[derive(Debug, Default)]
pub struct ServerTls {
    context: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    options: ServerOptions,
    context: Option<SslContext>,
}

/// A certificate that was read and can be shown.
pub struct Fresh(Shown);

impl ServerTls {
    /// Reads the certificate; what is wrong with it is logged. No files at all mean that nobody asked for TLS.
    pub fn new(options: ServerOptions) -> ServerTls {
        let shown = Shown { context: None, options };
        let tls = ServerTls { context: Mutex::new(shown) };
        let options = tls.options();
        if options.is_wanted() {
            match ServerTls::read(options) {
                Ok(fresh) => {
                    log::info!("TLS: using '{}'.", fresh.0.options.certificate.display());
                    tls.show(fresh);
                }
                Err(error) => log::error!("TLS: {error}. Serving in the clear."),
            }
        }
        tls
    }

    /// Reads key and certificate, without showing them yet.
    pub fn read(options: ServerOptions) -> Result<Fresh, TlsError> {
        let context = Some(options.context()?);
        Ok(Fresh(Shown { options, context }))
    }

    /// Shows another certificate, to clients that connect from now on.
    pub fn show(&self, fresh: Fresh) {
        *self.context.lock() = fresh.0;
    }

    /// What the certificate in use was made of.
    pub fn options(&self) -> ServerOptions {
        self.context.lock().options.clone()
    }

    pub fn is_on(&self) -> bool {
        self.context.lock().context.is_some()
    }

    pub(super) fn context(&self) -> Option<SslContext> {
        self.context.lock().context.clone()
    }
}

impl ServerOptions {
    /// There is something to read.
    pub fn is_wanted(&self) -> bool {
        self.key.exists() || self.certificate.exists()
    }

    fn context(&self) -> Result<SslContext, TlsError> {
        let mut builder =
            SslContextBuilder::new(SslMethod::tls_server()).map_err(setting("TLS", None))?;
        common(&mut builder)?;
        let oldest = match self.version.trim() {
            "1.3" => SslVersion::TLS1_3,
            _ => SslVersion::TLS1_2,
        };
        builder.set_min_proto_version(Some(oldest)).map_err(setting("tls version", None))?;
        let ciphers = self.ciphers.trim();
        if !ciphers.is_empty() && ciphers != "none" {
            // Those of TLS 1.3 have a list of their own.
            let (new, old): (Vec<_>, Vec<_>) = ciphers
                .split([':', ' ', ','])
                .filter(|name| !name.is_empty())
                .partition(|name| name.starts_with("TLS_"));
            if !new.is_empty() {
                builder.set_ciphersuites(&new.join(":")).map_err(setting("tls ciphers", None))?;
            }
            if !old.is_empty() {
                let strong = old.join(":") + STRONG;
                builder.set_cipher_list(&strong).map_err(setting("tls ciphers", None))?;
                builder.set_security_level(SECURITY_LEVEL);
            }
        }
        builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
        // Sessions go on by tickets, which the client keeps.
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        identity(&mut builder, &self.key, &self.certificate)?;
        if let Some(file) = &self.client_authorities {
            let mut pem = Vec::new();
            File::open(file)
                .and_then(|opened| opened.take(AUTHORITY_BYTES_MAX).read_to_end(&mut pem))
                .map_err(|source| TlsError::File { path: file.clone(), source })?;
            let failed = || setting("ssl client CA", Some(file));
            let authorities = X509::stack_from_pem(&pem).map_err(failed())?;
            for authority in &authorities {
                builder.add_client_ca(authority).map_err(failed())?;
            }
            authorities_from(&mut builder, Some(file), None)?;
            // Asked for, not demanded: browsers have none. A wrong one ends the handshake.
            builder.set_verify(SslVerifyMode::PEER);
            builder.set_session_id_context(b"netdata").map_err(setting("TLS", None))?;
        }
        Ok(builder.build())
    }
}

// --- what this agent asks of others ------------------------------------------------------------------------

/// `[stream]`: how far the parents behind `:SSL` are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientOptions {
    pub skip_verification: bool,
    /// A directory of authorities, by their hashes.
    pub ca_path: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    /// Key and certificate to show to a parent that asks.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ClientOptions {
    fn context(&self) -> Result<SslContext, TlsError> {
        let mut builder =
            SslContextBuilder::new(SslMethod::tls_client()).map_err(setting("TLS", None))?;
        common(&mut builder)?;
        let oldest = Some(SslVersion::TLS1_2);
        builder.set_min_proto_version(oldest).map_err(setting("TLS 1.2", None))?;
        if self.skip_verification {
            builder.set_verify(SslVerifyMode::NONE);
        } else {
            builder.set_verify(SslVerifyMode::PEER);
            if self.ca_file.is_some() || self.ca_path.is_some() {
                authorities_from(&mut builder, self.ca_file.as_deref(), self.ca_path.as_deref())?;
            } else {
                let failed = setting("the system's authorities", None);
                builder.set_default_verify_paths().map_err(failed)?;
            }
        }
        if let Some((key, certificate)) = &self.identity {
            identity(&mut builder, key, certificate)?;
        }
        Ok(builder.build())
    }
}

fn common(builder: &mut SslContextBuilder) -> Result<(), TlsError> {
    // A write may be tried again from another place and needs not take everything; idle connections keep no buffers.
    builder.set_mode(
        SslMode::AUTO_RETRY
            | SslMode::ACCEPT_MOVING_WRITE_BUFFER
            | SslMode::ENABLE_PARTIAL_WRITE
            | SslMode::RELEASE_BUFFERS,
    );
    builder.set_options(
        SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::IGNORE_UNEXPECTED_EOF,
    );
    builder.set_cipher_list(CIPHERS).map_err(setting("ciphers", None))
}

fn identity(
    builder: &mut SslContextBuilder,
    key: &Path,
    certificate: &Path,
) -> Result<(), TlsError> {
    for path in [certificate, key] {
        File::open(path).map_err(|source| TlsError::File { path: path.to_owned(), source })?;
    }
    builder
        .set_certificate_chain_file(certificate)
        .map_err(setting("ssl certificate", Some(certificate)))?;
    builder.set_private_key_file(key, SslFiletype::PEM).map_err(setting("ssl key", Some(key)))?;
    builder.check_private_key().map_err(setting("ssl key", Some(key)))
}

fn authorities_from(
    builder: &mut SslContextBuilder,
    file: Option<&Path>,
    directory: Option<&Path>,
) -> Result<(), TlsError> {
    for path in [file, directory].into_iter().flatten() {
        // The library's binding gives no error for such a name but a panic.
        let usable = path.to_str().is_some_and(|text| !text.contains('\0'));
        let found = if usable {
            File::open(path).map(|_| ())
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        };
        found.map_err(|source| TlsError::File { path: path.to_owned(), source })?;
    }
    let path = file.or(directory);
    builder.load_verify_locations(file, directory).map_err(setting("authorities", path))
}

// --- handshakes ----------------------------------------------------------------------------------------------

/// A socket inside TLS.
pub(super) type Secure = SslStream<Carrier>;

/// The socket as OpenSSL reads and writes it. OpenSSL takes a signal in between for the end of the connection, so it never
/// sees one.
#[derive(Debug)]
pub(super) struct Carrier(Arc<Socket>);

impl Read for Carrier {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| (&*self.0).read(buffer))
    }
}

impl Write for Carrier {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| (&*self.0).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The handshake of a client that began with a TLS record.
pub(super) fn accept(
    context: &SslContext,
    socket: &Arc<Socket>,
    timeout: Duration,
    stop: &StopToken,
) -> Result<Secure, TlsError> {
    let ssl = Ssl::new(context).map_err(setting("TLS", None))?;
    handshake(ssl, socket, timeout, stop, SslStream::accept)
}

/// The handshake with a parent that the destination calls `host`, which its certificate has to name.
pub(super) fn connect(
    options: &ClientOptions,
    host: &str,
    socket: &Arc<Socket>,
    timeout: Duration,
    stop: &StopToken,
) -> Result<Secure, TlsError> {
    let context = options.context()?;
    let mut ssl = Ssl::new(&context).map_err(setting("TLS", None))?;
    let failed = || setting("the destination's name", None);
    match host.parse::<IpAddr>() {
        Ok(address) => ssl.param_mut().set_ip(address).map_err(failed())?,
        Err(_) if host.is_empty() || host.contains('\0') => {}
        Err(_) => {
            ssl.set_hostname(host).map_err(failed())?;
            ssl.param_mut().set_host(host).map_err(failed())?;
        }
    }
    handshake(ssl, socket, timeout, stop, SslStream::connect)
}

fn handshake(
    ssl: Ssl,
    socket: &Arc<Socket>,
    timeout: Duration,
    stop: &StopToken,
    step: fn(&mut Secure) -> Result<(), openssl::ssl::Error>,
) -> Result<Secure, TlsError> {
    let broken = |error: io::Error| TlsError::Handshake(error.to_string());
    socket.set_nonblocking(true).map_err(broken)?;
    let mut stream =
        SslStream::new(ssl, Carrier(Arc::clone(socket))).map_err(setting("TLS", None))?;
    let deadline = Instant::now() + timeout;
    loop {
        let interest = match step(&mut stream) {
            Ok(()) => break,
            Err(error) if error.code() == ErrorCode::WANT_READ => Interest::Read,
            Err(error) if error.code() == ErrorCode::WANT_WRITE => Interest::ReadWrite,
            Err(error) => {
                let verdict = stream.ssl().verify_result();
                return Err(match verdict {
                    X509VerifyResult::OK => TlsError::Handshake(reason(&error)),
                    _ => TlsError::Certificate(verdict),
                });
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stop.is_stopped() {
            return Err(TlsError::TimedOut);
        }
        let mut watched = [Watched::new(socket.as_fd(), interest)];
        sys::poll(&mut watched, Some(left.min(LOOK_EVERY))).map_err(broken)?;
    }
    socket.set_nonblocking(false).map_err(broken)?;
    Ok(stream)
}

/// One line, whatever the library has gathered.
fn reason(error: &openssl::ssl::Error) -> String {
    if let Some(error) = error.io_error() {
        return error.to_string();
    }
    let first = error.ssl_error().and_then(|stack| stack.errors().first());
    match first.and_then(|first| first.reason()) {
        Some(text) => text.to_owned(),
        None => "the other end closed the connection".to_owned(),
    }
}

#[cfg(test)]
mod tests;
