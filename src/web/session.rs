//! One client: reads its requests, has them answered, writes the access log; hands a child over to `stream`.
//!
//! Runs on the connection's own thread. A client that is slow to ask or slow to listen is bounded in time and memory: the head
//! has a deadline as a whole, and an answer must flow at a minimal rate.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::base::log::access;
use crate::base::sys;
use crate::base::sys::{Interest, Watched};
use crate::base::threads::StopToken;
use crate::net::Connection;
use crate::net::accept::{Admission, StreamRequest};
use crate::net::listen::TlsPolicy;
use crate::net::tls;
use crate::net::usage::add;
use crate::wire::handshake;
use crate::wire::http::{
    BadRequest, Coding, HEAD_BYTES_MAX, Head, HeadScanner, Headers, HttpVersion, Method, Target,
};

use super::acl::{Access, Rights};
use super::answer::{self, Envelope, Paced, Sent};
use super::api::v1::{prometheus, write};
use super::http::{ContentType, Kind, Request, Response};
use super::routes;
use super::server::Shared;

/// Read at once; what an idle connection keeps.
const PIECE_BYTES: usize = 2048;
/// Bodies of requests are skipped up to this size; a client that sends a larger one is refused.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// A client that began a TLS handshake has so long to end it.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After a refusal, what the client still sends is read for so long, so that it sees the answer and not a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 * 1024;

pub(super) struct Session<'a> {
    shared: &'a Shared,
    connection: Connection,
    /// What the port grants; what the client may do is asked once there is a request.
    port: Rights,
    tls: TlsPolicy,
    /// The client came in the clear, where it may be asked for TLS.
    clear: bool,
    /// What it may do, and by which access.
    rights: Option<(Arc<Access>, Rights)>,
    number: u64,
    thread: i32,
    /// Read but not yet used: at most one head and one body.
    buffer: Vec<u8>,
}

/// How the connection goes on after a request.
enum Next {
    Keep,
    Close,
    /// Close, but let a client that is still sending see the answer.
    Linger,
    Stream(StreamRequest),
}

impl<'a> Session<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        connection: Connection,
        port: Rights,
        tls: TlsPolicy,
        number: u64,
    ) -> Self {
        Session {
            shared,
            connection,
            port,
            tls,
            clear: false,
            rights: None,
            number,
            thread: sys::thread_id(),
            buffer: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        let agent = &self.shared.agent;
        if !agent.gate.now().lists.connections.allows(self.connection.peer(), &agent.names) {
            self.shared.deny(&self.connection);
            return;
        }
        self.log_access(format_args!("'CONNECTED'"));
        let stream = if self.begin() { self.serve() } else { None };
        match stream {
            Some(request) => self.stream(&request),
            None => self.log_access(format_args!("'DISCONNECTED'")),
        }
    }

    fn log_access(&self, what: std::fmt::Arguments<'_>) {
        access(format_args!(
            "{}: {} '{}' {what}",
            self.number,
            self.thread,
            self.connection.peer()
        ));
    }

    /// Where there is a certificate to show, the client's first byte says whether it wants to see it. False when the
    /// connection is over.
    fn begin(&mut self) -> bool {
        let agent = &self.shared.agent;
        if self.connection.peer().address.is_none() || !agent.tls.is_on() {
            return true;
        }
        let patience = agent.options.first_request.min(agent.options.idle);
        let mut first = [0];
        let mut watched = [Watched::new(self.connection.as_fd(), Interest::Read)];
        let ready = sys::poll(&mut watched, Some(patience));
        match self.connection.peek(&mut first) {
            Ok(1) => {}
            // It says nothing (or a signal came): reading it in vain has its own way to end.
            Err(error) if is_time_out(&error) && ready.is_ok() => {
                add(&agent.usage.timed_out, 1);
                return false;
            }
            _ => return false,
        }
        if !tls::is_tls(first[0]) {
            self.clear = true;
            return true;
        }
        let patience = patience.min(HANDSHAKE);
        match self.connection.accept_tls(&agent.tls, patience, &self.shared.stop) {
            Ok(true) => true,
            // The certificate went meanwhile.
            Ok(false) => true,
            Err(error) => {
                add(&agent.usage.malformed, 1);
                let peer = self.connection.peer();
                log::error!(
                    "SSL handshake with client '{}', port '{}' failed: {error}",
                    peer.ip,
                    peer.port
                );
                false
            }
        }
    }

    /// Answers requests until the connection ends or turns into a stream.
    fn serve(&mut self) -> Option<StreamRequest> {
        let mut patience = self.shared.agent.options.first_request;
        loop {
            let next = match self.read_head(patience) {
                Ok(Some(length)) => self.one_request(length, patience),
                Ok(None) => return None,
                Err(bad) => self.refuse(bad),
            };
            match next {
                Next::Keep if !self.shared.stop.is_stopped() => {}
                Next::Keep | Next::Close => return None,
                Next::Linger => {
                    self.linger();
                    return None;
                }
                Next::Stream(request) => return Some(request),
            }
            patience = self.shared.agent.options.idle;
        }
    }

    /// The length of the next complete head; `None` when the client left or took too long.
    fn read_head(&mut self, patience: Duration) -> Result<Option<usize>, BadRequest> {
        let mut scanner = HeadScanner::default();
        let deadline = self.deadline(patience);
        loop {
            if !self.buffer.is_empty()
                && let Some(length) = scanner.examine(&self.buffer)?
            {
                return Ok(Some(length));
            }
            if !self.read_more(deadline) {
                return Ok(None);
            }
        }
    }

    fn deadline(&self, patience: Duration) -> i64 {
        let micros = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        self.shared.agent.clock.monotonic_us().saturating_add(micros)
    }

    /// Waits for more bytes; false at the end of the connection or of the time, and when nothing at all comes for as long as
    /// a client may be idle.
    fn read_more(&mut self, deadline: i64) -> bool {
        let agent = &self.shared.agent;
        let deadline = deadline.min(self.deadline(agent.options.idle));
        loop {
            let left = deadline - agent.clock.monotonic_us();
            let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else {
                add(&agent.usage.timed_out, 1);
                return false;
            };
            if self.connection.set_read_timeout(Duration::from_micros(left)).is_err() {
                return false;
            }
            let used = self.buffer.len();
            self.buffer.resize(used + PIECE_BYTES, 0);
            let got = self.connection.read(&mut self.buffer[used..]);
            self.buffer.truncate(used + *got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) => return false,
                Ok(bytes) => {
                    add(&agent.usage.received_bytes, bytes as u64);
                    return true;
                }
                Err(error) if is_time_out(&error) => {}
                Err(_) => return false,
            }
        }
    }

    fn one_request(&mut self, length: usize, patience: Duration) -> Next {
        let buffer = std::mem::take(&mut self.buffer);
        let (next, body) = match Head::parse(&buffer[..length]) {
            Err(bad) => (self.refuse(bad), 0),
            Ok(head) if head.method == Method::Stream => {
                (self.offer_stream(&head, buffer.len() > length), 0)
            }
            // Nobody else has a use for a body that is sent.
            Ok(head) if head.method == Method::Post && !is_write(&head) && !is_form(&head) => {
                (self.refuse(BadRequest::NotUnderstood), 0)
            }
            Ok(head)
                if is_form(&head)
                    && head.method == Method::Post
                    && head.headers.content_length > BODY_BYTES_MAX =>
            {
                (self.refuse(BadRequest::TooBig(head.headers.content_length)), 0)
            }
            // Nor has anybody for that of a stranger.
            Ok(head) if head.method == Method::Post && !self.may_post(&head) => {
                self.answer(&head, Vec::new());
                (Next::Close, 0)
            }
            Ok(head) if head.method == Method::Post => {
                self.buffer = buffer[length..].to_vec();
                let Some(_room) = write::Room::take(head.headers.content_length) else {
                    return self.no_room(&head);
                };
                return match self.read_body(head.headers.content_length, patience) {
                    Ok(Some(body)) => self.answer(&head, body),
                    Ok(None) => Next::Close,
                    Err(bad) => self.refuse(bad),
                };
            }
            Ok(head) => (self.answer(&head, Vec::new()), head.headers.content_length),
        };
        self.buffer = buffer;
        self.buffer.drain(..length);
        if self.buffer.is_empty() {
            // A long head is no reason to keep its room while the client is idle.
            self.buffer.shrink_to(PIECE_BYTES);
        }
        match next {
            Next::Keep if body > 0 => self.skip_body(body, patience),
            next => next,
        }
    }

    fn may_post(&mut self, head: &Head<'_>) -> bool {
        let agent = Arc::clone(&self.shared.agent);
        if is_form(head) {
            return agent.gate.now().readers.lets_in(head.headers.authorization)
                && self.rights().contains(Rights::DASHBOARD);
        }
        let (peer, headers) = (&self.connection.peer().ip, &head.headers);
        write::may_write(agent.streaming.as_ref(), peer, headers.authorization, headers.auth_token)
            && self.rights().contains(Rights::STREAMING)
    }

    /// Turns a body away that nobody can hold just now.
    fn no_room(&mut self, head: &Head<'_>) -> Next {
        let began = self.shared.agent.clock.monotonic_us();
        let response = write::no_room();
        let url = String::from_utf8_lossy(head.target).into_owned();
        // Told or not: the connection ends.
        let _ = self.send(response, &head.headers, head.method, head.version, false, began, &url);
        Next::Linger
    }

    /// The body of a request; what follows it stays in the buffer. `None` when the client left or took too long.
    fn read_body(
        &mut self,
        length: usize,
        patience: Duration,
    ) -> Result<Option<Vec<u8>>, BadRequest> {
        if length > write::BODY_BYTES_MAX {
            return Err(BadRequest::TooBig(length));
        }
        let deadline = self.deadline(patience);
        while self.buffer.len() < length {
            if !self.read_more(deadline) {
                return Ok(None);
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(Some(std::mem::replace(&mut self.buffer, rest)))
    }

    /// Takes the body of a request away; nobody here has a use for one.
    fn skip_body(&mut self, mut body: usize, patience: Duration) -> Next {
        let deadline = self.deadline(patience);
        loop {
            let have = body.min(self.buffer.len());
            self.buffer.drain(..have);
            body -= have;
            if body == 0 {
                return Next::Keep;
            }
            if !self.read_more(deadline) {
                return Next::Close;
            }
        }
    }

    fn own_address(&self) -> String {
        self.connection.local().map(|address| address.to_string()).unwrap_or_default()
    }

    fn rights(&mut self) -> Rights {
        let agent = &self.shared.agent;
        let access = agent.gate.now();
        if let Some((by, rights)) = &self.rights
            && Arc::ptr_eq(by, &access)
        {
            return *rights;
        }
        let peer = self.connection.peer();
        // Who is let in no longer may still have a connection that stands.
        let rights = match access.lists.connections.allows(peer, &agent.names) {
            true => access.lists.rights(peer, self.port, &agent.names),
            false => Rights::empty(),
        };
        self.rights = Some((access, rights));
        rights
    }

    fn answer(&mut self, head: &Head<'_>, body: Vec<u8>) -> Next {
        let agent = &self.shared.agent;
        let began = agent.clock.monotonic_us();
        let target = match Target::parse(head.target) {
            Ok(target)
                if head.method == Method::Post || head.headers.content_length <= BODY_BYTES_MAX =>
            {
                target
            }
            Ok(_) => return self.refuse(BadRequest::NotUnderstood),
            Err(bad) => return self.refuse(bad),
        };
        let (headers, url) = (&head.headers, target.decoded.clone());
        let host = headers.forwarded_host.or(headers.host);
        if self.clear && self.tls != TlsPolicy::Optional {
            let host = host.map_or_else(|| self.own_address(), str::to_owned);
            let location = format!("https://{host}{}", String::from_utf8_lossy(head.target));
            let response = Response::new(301, ContentType::Text, "").header("Location", location);
            // Told or not: in the clear there is no more to say.
            let _ = self.send(response, headers, head.method, head.version, false, began, &url);
            return Next::Linger;
        }
        let request = Request {
            method: head.method,
            path: target.path,
            query: target.query,
            target: String::from_utf8_lossy(head.target).into_owned(),
            peer: self.connection.peer().clone(),
            rights: self.rights(),
            may_read: agent.gate.now().readers.lets_in(headers.authorization),
            host: host.map(str::to_owned),
            https: headers.forwarded_https || self.connection.is_tls(),
            auth_token: headers.auth_token.map(str::to_owned),
            do_not_track: headers.do_not_track && agent.options.do_not_track,
            known_tags: headers.known_tags.map(str::to_owned),
            known_since: headers.known_since.map(str::to_owned),
            person: headers.person.map(str::to_owned),
            accept: headers.accept.map(str::to_owned),
            authorization: headers.authorization.map(str::to_owned),
            content_type: headers.content_type.map(str::to_owned),
            body,
            client: Some(self.connection.closer()),
        };
        let response = routes::answer(agent, &request);
        let keep = headers.keep_alive && !self.shared.stop.is_stopped();
        let sent = self.send(response, headers, head.method, head.version, keep, began, &url);
        match sent {
            Ok(()) if keep => Next::Keep,
            _ => Next::Close,
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "all of it is what one line of the access log tells"
    )]
    fn send(
        &mut self,
        response: Response,
        headers: &Headers<'_>,
        method: Method,
        version: HttpVersion,
        keep_alive: bool,
        began_us: i64,
        url: &str,
    ) -> io::Result<()> {
        let agent = &self.shared.agent;
        let ready_us = agent.clock.monotonic_us();
        let (status, kind) = (response.status, response.kind);
        // What costs us less comes first.
        let coding = match () {
            () if headers.accepts_zstd => Some(Coding::Zstd),
            () if headers.accepts_gzip => Some(Coding::Gzip),
            () => None,
        };
        let envelope = Envelope {
            options: &agent.options,
            compressors: &self.shared.compressors,
            now: agent.clock.now_seconds(),
            update_every: agent.hosts.local().info().update_every,
            origin: headers.origin.unwrap_or("*"),
            keep_alive,
            coding: coding.filter(|_| version == HttpVersion::V1_1),
            method,
        };
        let mut paced = Paced::new(&mut self.connection, &agent.clock, agent.options.idle);
        let result = answer::write(&mut paced, response, &envelope);
        let sent = paced.sent();
        if result.as_ref().is_err_and(is_time_out) {
            add(&agent.usage.timed_out, 1);
        }
        let body = *result.as_ref().unwrap_or(&Sent::default());
        self.account(status, kind, sent, body, [began_us, ready_us], url);
        result.map(|_| ())
    }

    /// Counts a request and writes its line.
    fn account(&self, status: u16, kind: Kind, bytes: u64, body: Sent, times: [i64; 2], url: &str) {
        let agent = &self.shared.agent;
        let usage = &agent.usage;
        let [began, ready] = times;
        let done = agent.clock.monotonic_us();
        let took = |from: i64, to: i64| u64::try_from(to - from).unwrap_or(0);
        usage.request_took(took(began, done));
        add(&usage.sent_bytes, bytes);
        if body.encoded < body.plain {
            add(&usage.plain_bytes, body.plain);
            add(&usage.compressed_bytes, body.encoded);
        }
        if status != 200 {
            add(&usage.failures, 1);
        }
        let saved = (body.plain.saturating_sub(body.encoded) * 100).checked_div(body.plain);
        let ms = |from, to| Millis(took(from, to));
        self.log_access(format_args!(
            "'{}' (sent/all = {}/{} bytes -{}%, prep/sent/total = {}/{}/{} ms) {status} '{url}'",
            kind.as_str(),
            body.encoded,
            body.plain,
            saved.unwrap_or(0),
            ms(began, ready),
            ms(ready, done),
            ms(began, done),
        ));
    }

    fn refuse(&mut self, bad: BadRequest) -> Next {
        add(&self.shared.agent.usage.malformed, 1);
        let now = self.shared.agent.clock.monotonic_us();
        let response = Response::error(400, bad.to_string());
        let (headers, version) = (Headers::default(), HttpVersion::V1_1);
        // Whether it could be told or not, this connection is over.
        let _ = self.send(response, &headers, Method::Get, version, false, now, "");
        Next::Linger
    }

    /// Reads on for a moment: closing with unread bytes would reset the connection and take the answer along.
    fn linger(&mut self) {
        if self.connection.finish_writing().is_err() {
            return;
        }
        let deadline = self.deadline(LINGER);
        let mut budget = LINGER_BYTES_MAX;
        self.buffer.clear();
        while self.read_more(deadline) {
            budget = budget.saturating_sub(self.buffer.len());
            if budget == 0 {
                return;
            }
            self.buffer.clear();
        }
    }

    fn offer_stream(&mut self, head: &Head<'_>, more_follows: bool) -> Next {
        // A child has to wait for the answer before it sends anything else.
        if more_follows {
            return self.refuse(BadRequest::NotUnderstood);
        }
        let request = StreamRequest {
            parameters: head.target.to_vec(),
            user_agent: head.headers.user_agent.map(str::to_owned),
            is_reader: self.rights().contains(Rights::DASHBOARD)
                && self.shared.agent.gate.now().readers.lets_in(head.headers.authorization),
        };
        if self.clear && self.tls == TlsPolicy::Force {
            let host = handshake::Request::of(&request.parameters, None).hostname;
            log::error!(
                "The server is configured to always use encrypted connections, please enable the SSL on child with hostname '{host}'."
            );
            return self.refuse(BadRequest::NotUnderstood);
        }
        if self.rights().contains(Rights::STREAMING) {
            return Next::Stream(request);
        }
        let began = self.shared.agent.clock.monotonic_us();
        self.refuse_stream(403, "You are not allowed to access this resource.", &request, began);
        Next::Linger
    }

    fn stream(mut self, request: &StreamRequest) {
        let began = self.shared.agent.clock.monotonic_us();
        log::info!("clients wants to STREAM metrics.");
        self.buffer = Vec::new();
        match self.shared.agent.streams.consider(request, &self.connection) {
            Admission::Refused { status, text } => {
                self.refuse_stream(status, &text, request, began);
                self.linger();
                self.log_access(format_args!("'DISCONNECTED'"));
            }
            // A reload came in between, and did not find it among the children.
            Admission::Admitted(_) if !self.rights().contains(Rights::STREAMING) => {
                let text = "You are not allowed to access this resource.";
                self.refuse_stream(403, text, request, began);
                self.log_access(format_args!("'DISCONNECTED'"));
            }
            Admission::Admitted(session) => {
                let url = masked(&request.parameters);
                self.account(200, Kind::Stream, 0, Sent::default(), [began, began], &url);
                self.log_access(format_args!("'DISCONNECTED'"));
                let stop: &StopToken = &self.shared.stop;
                session(self.connection, stop);
            }
        }
    }

    /// A child gets the bare text: it compares the whole answer with what it knows.
    fn refuse_stream(&mut self, status: u16, text: &str, request: &StreamRequest, began: i64) {
        let agent = &self.shared.agent;
        let mut paced = Paced::new(&mut self.connection, &agent.clock, agent.options.idle);
        // The child may be gone; that is its answer then.
        let _ = paced.write_all(text.as_bytes());
        let sent = paced.sent();
        let body = Sent { plain: sent, encoded: sent };
        let ready = agent.clock.monotonic_us();
        self.account(
            status,
            Kind::Stream,
            sent,
            body,
            [began, ready],
            &masked(&request.parameters),
        );
    }
}

fn is_write(head: &Head<'_>) -> bool {
    path_of(head) == write::PATH.as_bytes()
}

/// A question that comes as a form, as questions may be long.
fn is_form(head: &Head<'_>) -> bool {
    memchr::memmem::find(path_of(head), prometheus::PATH.as_bytes()).is_some()
}

fn path_of<'h>(head: &Head<'h>) -> &'h [u8] {
    head.target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// The parameters of a child for the access log; of its key only the beginning.
fn masked(parameters: &[u8]) -> String {
    let parameters = &parameters[..parameters.len().min(HEAD_BYTES_MAX)];
    let text = match crate::wire::http::decode(parameters) {
        Ok(text) => text,
        Err(_) => String::from_utf8_lossy(parameters).replace(|c: char| c.is_control(), " "),
    };
    let hide = |pair: &str| match pair.strip_prefix("key=") {
        Some(key) => format!("key={}...", key.chars().take(8).collect::<String>()),
        None => pair.to_owned(),
    };
    text.split('&').map(hide).collect::<Vec<_>>().join("&")
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// Microseconds as milliseconds with two decimals.
struct Millis(u64);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_children_are_not_logged_whole() {
        let shown = masked(b"key=11111111-2222-3333-4444-555555555555&hostname=a%20b");
        assert_eq!(shown, "key=11111111...&hostname=a b");
        assert_eq!(masked(b"a=\xff\n"), "a=\u{fffd} ");
    }

    #[test]
    fn times_have_two_decimals() {
        assert_eq!(Millis(1_234).to_string(), "1.23");
        assert_eq!(Millis(50).to_string(), "0.05");
    }
}
