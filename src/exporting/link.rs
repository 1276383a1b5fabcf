//! The connection of one instance to its database: found, kept, used and given up by the instance's own thread.
//!
//! Everything ends within the instance's time-out, and a stop is seen several times a second.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::http::{Answer, Answering, More, RequestHead};
use crate::base::sys;
use crate::base::threads::StopToken;
use crate::config::{Carrier, Dialect, InstanceOptions};
use crate::net::destination::parse_destinations;
use crate::net::dial::dial;
use crate::net::listen::Place;
use crate::net::tls::ClientOptions;
use crate::net::{Connection, Destination};
use crate::wire::write_request::Version;

/// How soon a stop is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What a server has to say that did not take a whole request is there by then.
const EARLY_ANSWER: Duration = Duration::from_millis(500);

/// What became of a body.
#[derive(Debug)]
pub(super) enum Delivery {
    /// HTTP: the server has it, or so many samples of it. Lines: the kernel has it.
    Done(Option<u64>),
    /// There is no connection, or no answer: to be tried again.
    Later,
    /// The server says that it cannot take it now: to be tried again, after so many seconds if it said so.
    Busy(Option<i64>),
    /// The server will never take it; so many samples of it were written all the same.
    Refused {
        status: u16,
        line: String,
        written: u64,
    },
    /// The server does not know this version of remote write, and has taken nothing.
    OtherVersion(u16),
    /// The server would take it in smaller pieces.
    TooLarge,
    /// Not this body is wrong but how the instance is configured: who it is, or where it sends to.
    Mistaken {
        status: u16,
        line: String,
    },
    Stopped,
}

/// What is counted of a connection since somebody looked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) writes: i64,
    pub(super) reconnects: i64,
    pub(super) failures: i64,
    pub(super) reads: i64,
    pub(super) received_bytes: i64,
}

pub(super) struct Link {
    name: String,
    destinations: Vec<Destination>,
    carrier: Carrier,
    remote_write: bool,
    timeout: Duration,
    tls: ClientOptions,
    head: RequestHead,
    open: Option<Open>,
    stop: StopToken,
    pub(super) counts: Counts,
}

struct Open {
    connection: Connection,
    to: String,
    /// Something was delivered over it before.
    used: bool,
}

impl Link {
    pub(super) fn new(options: &InstanceOptions, stop: StopToken) -> Link {
        let port = options.connector.default_port();
        Link {
            name: options.name.clone(),
            destinations: parse_destinations(&options.destination, port),
            carrier: options.connector.carrier,
            remote_write: options.connector.dialect == Dialect::RemoteWrite,
            timeout: options.timeout,
            tls: ClientOptions {
                skip_verification: options.tls_skip_verification,
                ca_path: options.ca_path.as_ref().map(Into::into),
                ca_file: options.ca_file.as_ref().map(Into::into),
                identity: None,
            },
            head: RequestHead::new(options),
            open: None,
            stop,
            counts: Counts::default(),
        }
    }

    pub(super) fn is_lines(&self) -> bool {
        self.carrier == Carrier::Lines
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Connects to the first destination that answers, unless there is a connection.
    fn connect(&mut self) -> bool {
        if self.open.is_some() {
            return true;
        }
        if self.destinations.is_empty() {
            log::error!("EXPORTING: instance '{}' has no destination", self.name);
        }
        for destination in &self.destinations {
            if self.stop.is_stopped() {
                return false;
            }
            let to = destination.text.clone();
            let mut connection = match dial(&destination.place, self.timeout, &self.stop, |_| {}) {
                Ok(connection) => connection,
                Err(error) => {
                    log::error!("EXPORTING: failed to update '{to}': {error}: {}", error.reason());
                    self.counts.failures += 1;
                    continue;
                }
            };
            if self.carrier == Carrier::Https || destination.tls {
                let host = match &destination.place {
                    Place::Net { host, .. } if host.is_empty() => "localhost",
                    Place::Net { host, .. } => host,
                    Place::Unix(_) => "",
                };
                let secured = connection.connect_tls(&self.tls, host, self.timeout, &self.stop);
                if let Err(error) = secured {
                    log::error!("EXPORTING: failed to update '{to}': TLS: {error}");
                    self.counts.failures += 1;
                    continue;
                }
            }
            let ready = connection
                .set_read_timeout(LOOK_EVERY)
                .and_then(|()| connection.set_write_timeout(LOOK_EVERY));
            if let Err(error) = ready {
                log::error!("EXPORTING: failed to update '{to}': {error}");
                continue;
            }
            self.counts.reconnects += 1;
            self.open = Some(Open { connection, to, used: false });
            return true;
        }
        false
    }

    /// Sends one body, over a new connection if there is none; `version` is that of remote write.
    pub(super) fn deliver(&mut self, body: &[u8], version: Version) -> Delivery {
        loop {
            if !self.connect() {
                return if self.stop.is_stopped() { Delivery::Stopped } else { Delivery::Later };
            }
            let Some(mut open) = self.open.take() else { return Delivery::Later };
            let used = std::mem::replace(&mut open.used, true);
            let answer = match self.carrier {
                Carrier::Lines => self.write(&mut open, body).map(|()| None),
                Carrier::Http | Carrier::Https => self.exchange(&mut open, body, version).map(Some),
            };
            match answer {
                Ok(None) => {
                    self.open = Some(open);
                    return Delivery::Done(None);
                }
                Ok(Some(answer)) => {
                    if answer.keeps_open {
                        self.open = Some(open);
                    }
                    return self.judge(answer, version);
                }
                Err(Failure::Stopped) => return Delivery::Stopped,
                // An idle connection may end at any time; that says nothing about the server.
                Err(Failure::Closed) if used && self.carrier != Carrier::Lines => {}
                Err(failure) => {
                    self.counts.failures += 1;
                    let to = &open.to;
                    match failure {
                        Failure::Closed => {
                            log::error!("EXPORTING: '{to}' closed the socket");
                        }
                        Failure::Written { wrote, source } => log::error!(
                            "EXPORTING: failed to write data to '{to}'. Willing to write {} bytes, wrote {wrote} bytes. \
                             Will re-connect. ({source})",
                            body.len()
                        ),
                        Failure::Answer(reason) => {
                            log::error!("EXPORTING: failed to update '{to}': {reason}");
                        }
                        Failure::Stopped => {}
                    }
                    return Delivery::Later;
                }
            }
        }
    }

    fn judge(&mut self, answer: Answer, version: Version) -> Delivery {
        match answer.status {
            // A server of 1.0 may read a request of 2.0 as an empty one of its own.
            status @ 200..=299
                if self.remote_write && version == Version::Two && answer.written.is_none() =>
            {
                Delivery::OtherVersion(status)
            }
            200..=299 => Delivery::Done(answer.written),
            415 if self.remote_write => Delivery::OtherVersion(415),
            408 | 429 | 300..=399 | 500..=599 => {
                self.counts.failures += 1;
                log::error!(
                    "EXPORTING: instance '{}' is told to wait: HTTP {} '{}'",
                    self.name,
                    answer.status,
                    answer.first_line
                );
                Delivery::Busy(answer.retry_after)
            }
            413 => {
                self.counts.failures += 1;
                Delivery::TooLarge
            }
            status @ (401 | 403 | 404 | 405 | 407) => {
                self.counts.failures += 1;
                Delivery::Mistaken { status, line: answer.first_line }
            }
            status => {
                self.counts.failures += 1;
                let written = answer.written.unwrap_or(0);
                Delivery::Refused { status, line: answer.first_line, written }
            }
        }
    }

    fn write(&mut self, open: &mut Open, bytes: &[u8]) -> Result<(), Failure> {
        let (mut wrote, mut moved) = (0, Instant::now());
        self.counts.writes += 1;
        while wrote < bytes.len() {
            match open.connection.write(&bytes[wrote..]) {
                Ok(0) => return Err(Failure::Closed),
                Ok(count) => {
                    wrote += count;
                    moved = Instant::now();
                }
                Err(error) if is_patience(&error) => {
                    if self.stop.is_stopped() {
                        return Err(Failure::Stopped);
                    }
                    if moved.elapsed() > self.timeout {
                        let source = io::ErrorKind::TimedOut.into();
                        return Err(Failure::Written { wrote, source });
                    }
                }
                Err(error) if wrote == 0 && is_closed(&error) => return Err(Failure::Closed),
                Err(source) => return Err(Failure::Written { wrote, source }),
            }
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        open: &mut Open,
        body: &[u8],
        version: Version,
    ) -> Result<Answer, Failure> {
        let head = self.head.text(&open.to, body.len(), version);
        let request = [head.as_bytes(), body].concat();
        match self.write(open, &request) {
            Ok(()) => self.answer(open, self.timeout),
            Err(Failure::Stopped) => Err(Failure::Stopped),
            // Who answers before it has read all of a body and hangs up has said why.
            Err(failure) => match self.answer(open, EARLY_ANSWER) {
                Ok(answer) => Ok(Answer { keeps_open: false, ..answer }),
                Err(_) => Err(failure),
            },
        }
    }

    /// Waits for an answer.
    fn answer(&mut self, open: &mut Open, patience: Duration) -> Result<Answer, Failure> {
        let (asked, mut answering) = (Instant::now(), Answering::default());
        let mut buffer = [0; 4096];
        loop {
            let more = match open.connection.read(&mut buffer) {
                Ok(0) if answering.is_empty() => return Err(Failure::Closed),
                Ok(0) => More::Cannot,
                Ok(count) => {
                    self.counts.reads += 1;
                    self.counts.received_bytes += count as i64;
                    answering.add(&buffer[..count]);
                    More::May
                }
                Err(error) if is_patience(&error) => More::May,
                Err(error) if answering.is_empty() && is_closed(&error) => {
                    return Err(Failure::Closed);
                }
                // What came before a connection broke off is all there is.
                Err(_) => More::Cannot,
            };
            match answering.complete(more) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(error) => return Err(Failure::Answer(error.to_string())),
            }
            if self.stop.is_stopped() {
                return Err(Failure::Stopped);
            }
            if asked.elapsed() > patience {
                let waited = patience.as_millis();
                return Err(Failure::Answer(format!("no answer within {waited} ms")));
            }
        }
    }

    /// Takes what a database of lines sends back, and notices when it has gone. False when there is no connection.
    pub(super) fn look(&mut self) -> bool {
        let Some(mut open) = self.open.take() else { return false };
        if open.connection.set_nonblocking(true).is_err() {
            return false;
        }
        let mut buffer = [0; 4096];
        // A database that sends more than this has to wait for the next look.
        for _ in 0..64 {
            match open.connection.read(&mut buffer) {
                Ok(0) => {
                    log::error!("EXPORTING: '{}' closed the socket", open.to);
                    return false;
                }
                Ok(count) => {
                    self.counts.reads += 1;
                    self.counts.received_bytes += count as i64;
                }
                Err(error) if is_patience(&error) => break,
                Err(error) => {
                    log::error!("EXPORTING: lost the connection to '{}': {error}", open.to);
                    self.counts.failures += 1;
                    return false;
                }
            }
        }
        if open.connection.set_nonblocking(false).is_ok() {
            self.open = Some(open);
        }
        self.open.is_some()
    }

    /// The other machine has confirmed all that was written.
    pub(super) fn is_confirmed(&self) -> bool {
        self.open.as_ref().is_some_and(|open| sys::unsent_bytes(open.connection.as_fd()) == 0)
    }
}

enum Failure {
    Stopped,
    /// By the other end, before any of this body counted.
    Closed,
    Written {
        wrote: usize,
        source: io::Error,
    },
    Answer(String),
}

fn is_patience(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}
