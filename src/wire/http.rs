//! HTTP/1 as Netdata's clients speak it: request heads and targets to values, response heads to bytes.
//!
//! Fed by the web server (and by whoever asks a parent over HTTP). No socket, no clock, no lock; every size is bounded.
//! Oddities that clients rely on are kept: the query may start at `%3F`, integers are read as far as they go.

use std::fmt::Write as _;

use memchr::memmem;

use crate::base::time::UnixSeconds;

/// A longer request head is refused.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A longer target (path and query, decoded) is refused.
pub const URL_BYTES_MAX: usize = 8192;
/// A longer `Origin` is not echoed.
pub const ORIGIN_BYTES_MAX: usize = 1024;
/// More parameters than this are ignored.
pub const PARAMETERS_MAX: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    /// Answered as `Get`, without the body.
    Head,
    Options,
    /// Only where a body is wanted.
    Post,
    /// A child that wants to stream its metrics; the target is its list of parameters.
    Stream,
}

const METHODS: &[(&[u8], Method)] = &[
    (b"GET ", Method::Get),
    (b"HEAD ", Method::Head),
    (b"OPTIONS ", Method::Options),
    (b"POST ", Method::Post),
    (b"STREAM ", Method::Stream),
];

/// Why the bytes of a client are no request. The texts are the bodies of the 400 it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("I don't understand you...\r\n")]
    NotUnderstood,
    #[error("Received request is too big  ({0} bytes).\r\n")]
    TooBig(usize),
    #[error("URL not valid. I don't understand you...\r\n")]
    InvalidUrl,
}

/// A request head, borrowed from the buffer it was read into.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub method: Method,
    /// Between the method and ` HTTP/`, as it came.
    pub target: &'a [u8],
    pub version: HttpVersion,
    pub headers: Headers<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// Also anything older: cannot read chunks.
    V1_0,
    V1_1,
}

/// The only headers that matter here; a value with control characters or invalid UTF-8 counts as absent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    pub origin: Option<&'a str>,
    pub host: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub auth_token: Option<&'a str>,
    /// `Authorization`; nothing when there are several.
    pub authorization: Option<&'a str>,
    pub forwarded_host: Option<&'a str>,
    /// `X-Forwarded-Proto` names https.
    pub forwarded_https: bool,
    /// `Connection` asks to keep it.
    pub keep_alive: bool,
    pub accept: Option<&'a str>,
    pub content_type: Option<&'a str>,
    /// `Accept-Encoding` names gzip.
    pub accepts_gzip: bool,
    /// `Accept-Encoding` names zstd.
    pub accepts_zstd: bool,
    /// `If-None-Match`: the tags of what the client has.
    pub known_tags: Option<&'a str>,
    /// `If-Modified-Since`: when the client got what it has.
    pub known_since: Option<&'a str>,
    /// `DNT: 1`.
    pub do_not_track: bool,
    /// The registry's cookie `netdata_registry_id`.
    pub person: Option<&'a str>,
    /// Bytes of body that follow the head; the largest number there is where that is not certain, so that nobody in front of
    /// us can take for a body what we take for a request.
    pub content_length: usize,
    is_unclear: bool,
    lengths: u8,
    authorizations: u8,
}

/// How much of a head has arrived. Keeps its place between pieces, so a head that comes byte by byte costs no more than one
/// that comes at once.
#[derive(Debug, Default)]
pub struct HeadScanner {
    scanned: usize,
}

impl HeadScanner {
    /// The length of the complete head at the start of `buffer`, blank line included; `None` while more is to come. Tells at
    /// the first wrong byte when this will never be a request.
    pub fn examine(&mut self, buffer: &[u8]) -> Result<Option<usize>, BadRequest> {
        if self.scanned < METHODS_LENGTH_MAX && !may_become_a_request(buffer) {
            return Err(BadRequest::NotUnderstood);
        }
        let from = self.scanned.saturating_sub(3);
        self.scanned = buffer.len();
        let end = memmem::find(buffer.get(from..).unwrap_or_default(), b"\r\n\r\n")
            .map(|at| from + at + 4);
        match end {
            Some(end) if end <= HEAD_BYTES_MAX => Ok(Some(end)),
            None if buffer.len() < HEAD_BYTES_MAX => Ok(None),
            _ => Err(BadRequest::TooBig(buffer.len())),
        }
    }
}

const METHODS_LENGTH_MAX: usize = 8;

fn may_become_a_request(buffer: &[u8]) -> bool {
    METHODS.iter().any(|(word, _)| {
        let shorter = word.len().min(buffer.len());
        buffer[..shorter] == word[..shorter]
    })
}

impl<'a> Head<'a> {
    /// Reads a complete head, as [`HeadScanner::examine`] found it.
    pub fn parse(head: &'a [u8]) -> Result<Self, BadRequest> {
        let mut lines = Lines(head);
        let first = lines.next().ok_or(BadRequest::NotUnderstood)?;
        let (word, method) = METHODS
            .iter()
            .find(|(word, _)| first.starts_with(word))
            .ok_or(BadRequest::NotUnderstood)?;
        let rest = &first[word.len()..];
        // The first ` HTTP/`, not the first space: children send raw spaces in their parameters.
        let end = memmem::find(rest, b" HTTP/").ok_or(BadRequest::NotUnderstood)?;
        let version = match &rest[end + 6..] {
            b"1.0" | b"0.9" => HttpVersion::V1_0,
            _ => HttpVersion::V1_1,
        };
        let mut headers = Headers::default();
        for line in lines {
            headers.read(line);
        }
        if headers.is_unclear {
            headers.content_length = usize::MAX;
        }
        Ok(Head { method: *method, target: &rest[..end], version, headers })
    }
}

impl<'a> Headers<'a> {
    fn read(&mut self, line: &'a [u8]) {
        // A lone CR or LF ends a line for some, and not for us.
        if memchr::memchr3(b'\r', b'\n', 0, line).is_some() {
            self.is_unclear = true;
            return;
        }
        let Some(colon) = memchr::memchr(b':', line) else { return };
        let is_called = |wanted: &[u8]| line[..colon].trim_ascii().eq_ignore_ascii_case(wanted);
        if is_called(b"Transfer-Encoding") {
            self.is_unclear = true;
            return;
        }
        if is_called(b"Content-Length") {
            let digits = line[colon + 1..].trim_ascii();
            let number = match std::str::from_utf8(digits) {
                Ok(text) if digits.iter().all(u8::is_ascii_digit) => text.parse().ok(),
                _ => None,
            };
            let is_clean = line[..colon].trim_ascii().len() == colon;
            let agrees = self.lengths == 0 || number == Some(self.content_length);
            self.lengths = self.lengths.saturating_add(1);
            self.is_unclear |= !(is_clean && agrees && number.is_some());
            self.content_length = number.unwrap_or(usize::MAX);
            return;
        }
        let Ok(value) = std::str::from_utf8(&line[colon + 1..]) else { return };
        let value = value.trim_matches([' ', '\t']);
        if value.is_empty() || value.contains(|c: char| c.is_control() && c != '\t') {
            return;
        }
        let name = &line[..colon];
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if is("Origin") {
            self.origin = (value.len() <= ORIGIN_BYTES_MAX).then_some(value);
        } else if is("Connection") {
            self.keep_alive = contains_word(value, "keep-alive");
        } else if is("Host") {
            self.host = Some(value);
        } else if is("Accept") {
            self.accept = Some(value);
        } else if is("Content-Type") {
            self.content_type = Some(value);
        } else if is("Accept-Encoding") {
            self.accepts_gzip = accepts(value, "gzip");
            self.accepts_zstd = accepts(value, "zstd");
        } else if is("If-None-Match") {
            self.known_tags = Some(value);
        } else if is("If-Modified-Since") {
            self.known_since = Some(value);
        } else if is("User-Agent") {
            self.user_agent = Some(value);
        } else if is("X-Auth-Token") {
            self.auth_token = Some(value);
        } else if is("X-Forwarded-Host") {
            self.forwarded_host = Some(value);
        } else if is("X-Forwarded-Proto") {
            self.forwarded_https = contains_word(value, "https");
        } else if is("DNT") {
            self.do_not_track = value.starts_with('1');
        } else if is("Authorization") {
            self.authorizations = self.authorizations.saturating_add(1);
            self.authorization = (self.authorizations == 1).then_some(value);
        } else if is("Cookie") {
            let cookie = value.split_once("netdata_registry_id=").map(|(_, rest)| rest);
            self.person = cookie.map(|rest| rest.split([';', ' ']).next().unwrap_or(""));
        }
    }
}

fn contains_word(value: &str, word: &str) -> bool {
    value.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a list of codings holds this one, and not with the weight that forbids it.
fn accepts(list: &str, coding: &str) -> bool {
    list.split(',').any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().trim_start_matches(['q', 'Q']).trim_start().strip_prefix('=');
        let forbidden = weight.is_some_and(|weight| weight.trim().parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case(coding) && !forbidden
    })
}

/// Lines of a head without their CR LF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];
    fn next(&mut self) -> Option<&'a [u8]> {
        let (line, rest) = match memmem::find(self.0, b"\r\n") {
            Some(end) => (&self.0[..end], &self.0[end + 2..]),
            None => (self.0, &self.0[..0]),
        };
        self.0 = rest;
        (!line.is_empty()).then_some(line)
    }
}

/// What a client asks for: the decoded path and the parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub path: String,
    pub query: Query,
    /// Path and query, decoded, as the access log shows them.
    pub decoded: String,
}

impl Target {
    pub fn parse(raw: &[u8]) -> Result<Self, BadRequest> {
        let (path, query) = split_target(raw);
        let path = decode(path)?;
        let query = Query::parse(query)?;
        let decoded = decode(raw)?;
        if decoded.len() > URL_BYTES_MAX {
            return Err(BadRequest::InvalidUrl);
        }
        Ok(Target { path, query, decoded })
    }
}

/// The query starts at the first `?`; without any, at the first `%3F`: a Python client that Home Assistant uses sends that.
fn split_target(raw: &[u8]) -> (&[u8], &[u8]) {
    if let Some(at) = memchr::memchr(b'?', raw) {
        return (&raw[..at], &raw[at + 1..]);
    }
    match raw.windows(3).position(|three| three.eq_ignore_ascii_case(b"%3f")) {
        Some(at) => (&raw[..at], &raw[at + 3..]),
        None => (raw, &[]),
    }
}

/// Undoes `%XX` and `+`. A broken escape, a control character and invalid UTF-8 are refused.
pub fn decode(raw: &[u8]) -> Result<String, BadRequest> {
    decode_but(raw, |byte| byte.is_ascii_control())
}

/// The same of a text of several lines.
fn decode_lines(raw: &[u8]) -> Result<String, BadRequest> {
    decode_but(raw, |byte| byte.is_ascii_control() && !b"\n\r\t".contains(&byte))
}

fn decode_but(raw: &[u8], refused: fn(u8) -> bool) -> Result<String, BadRequest> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        let byte = match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (hex(bytes.next())?, hex(bytes.next())?);
                high * 16 + low
            }
            plain => plain,
        };
        if refused(byte) {
            return Err(BadRequest::InvalidUrl);
        }
        out.push(byte);
    }
    String::from_utf8(out).map_err(|_| BadRequest::InvalidUrl)
}

fn hex(digit: Option<&u8>) -> Result<u8, BadRequest> {
    match digit {
        Some(c @ b'0'..=b'9') => Ok(c - b'0'),
        Some(c @ b'a'..=b'f') => Ok(c - b'a' + 10),
        Some(c @ b'A'..=b'F') => Ok(c - b'A' + 10),
        _ => Err(BadRequest::InvalidUrl),
    }
}

/// The parameters of a request, decoded, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Splits at raw `&`, then at the first raw `=`, and only then decodes: an escaped separator separates nothing.
    pub fn parse(raw: &[u8]) -> Result<Self, BadRequest> {
        Query::parse_by(raw, decode)
    }

    /// The same of the body of a form, whose values may have several lines.
    pub fn parse_form(raw: &[u8]) -> Result<Self, BadRequest> {
        Query::parse_by(raw, decode_lines)
    }

    fn parse_by(
        raw: &[u8],
        decode: fn(&[u8]) -> Result<String, BadRequest>,
    ) -> Result<Self, BadRequest> {
        let mut parameters = Vec::new();
        for part in raw.split(|&b| b == b'&').filter(|part| !part.is_empty()).take(PARAMETERS_MAX) {
            let (name, value) = match memchr::memchr(b'=', part) {
                Some(at) => (&part[..at], &part[at + 1..]),
                None => (part, &part[..0]),
            };
            parameters.push((decode(name)?, decode(value)?));
        }
        Ok(Query(parameters))
    }

    /// The value of a parameter; of a repeated one the last; empty counts as not given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs().rfind(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Like [`Query::get`] for a parameter with several spellings; the last one given of all of them.
    pub fn get_any(&self, names: &[&str]) -> Option<&str> {
        self.pairs().rfind(|(n, _)| names.contains(n)).map(|(_, value)| value)
    }

    /// An integer, read leniently: see [`lenient_integer`].
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name).map(lenient_integer)
    }

    /// Whether `name` was given at all, bare or with a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// The parameters that have a value, in order.
    pub fn pairs(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        self.0.iter().filter(|(_, value)| !value.is_empty()).map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

/// An optional `-`, then digits up to the first other character; no digits are 0, what does not fit is the nearest that does.
pub fn lenient_integer(text: &str) -> i64 {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut value = 0i64;
    for digit in digits.bytes().take_while(u8::is_ascii_digit) {
        value = value.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
    }
    if negative { -value } else { value }
}

/// `& < > " ' /` as entities, for texts of a caller that are echoed in an answer.
pub fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#x27;"),
            '/' => out.push_str("&#x2F;"),
            other => out.push(other),
        }
    }
    out
}

/// The words of the status line.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        412 => "Preconditions Failed",
        other => match other / 100 {
            1 => "Informational",
            2 => "Successful",
            3 => "Redirection",
            4 => "Bad Request",
            _ => "Server Error",
        },
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    /// In chunks, compressed.
    Chunked(Coding),
    /// The status says that there is no body.
    NoBody,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Zstd => "zstd",
        }
    }
}

/// What a cache may do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheControl {
    /// The three lines of an `OPTIONS` answer stand in its place.
    Preflight,
    Forbidden {
        expires: UnixSeconds,
    },
    Public {
        expires: UnixSeconds,
    },
}

/// Everything a response head says, written in the order Netdata does.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    pub status: u16,
    pub keep_alive: bool,
    pub version: &'a str,
    pub origin: &'a str,
    pub content_type: &'a str,
    pub date: UnixSeconds,
    pub frame_options: &'a str,
    pub cookies: &'a [String],
    /// The value of `Tk`, when the policy on tracking is on.
    pub tracking: Option<&'a str>,
    pub cache: CacheControl,
    /// `Location`, `Content-Disposition`, `Refresh`.
    pub more: &'a [(&'static str, String)],
    pub framing: Framing,
}

impl ResponseHead<'_> {
    pub fn write(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = self.try_write(out);
    }

    fn try_write(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status))?;
        writeln(out, "Connection", if self.keep_alive { "keep-alive" } else { "close" })?;
        write!(out, "Server: Netdata Embedded HTTP Server {}\r\n", self.version)?;
        writeln(out, "Access-Control-Allow-Origin", self.origin)?;
        writeln(out, "Access-Control-Allow-Credentials", "true")?;
        writeln(out, "Content-Type", self.content_type)?;
        write!(out, "Date: {}\r\n", HttpDate(self.date))?;
        if !self.frame_options.is_empty() {
            writeln(out, "X-Frame-Options", self.frame_options)?;
        }
        for cookie in self.cookies {
            writeln(out, "Set-Cookie", cookie)?;
        }
        if let Some(tracking) = self.tracking {
            writeln(out, "Tk", tracking)?;
        }
        match self.cache {
            CacheControl::Preflight => out.push_str(
                "Access-Control-Allow-Methods: GET, OPTIONS\r\n\
                 Access-Control-Allow-Headers: accept, x-requested-with, origin, content-type, cookie, pragma, cache-control, x-auth-token, authorization\r\n\
                 Access-Control-Max-Age: 1209600\r\n",
            ),
            CacheControl::Forbidden { expires } => {
                out.push_str("Cache-Control: no-cache, no-store, must-revalidate\r\nPragma: no-cache\r\n");
                write!(out, "Expires: {}\r\n", HttpDate(expires))?;
            }
            CacheControl::Public { expires } => {
                write!(out, "Cache-Control: public\r\nExpires: {}\r\n", HttpDate(expires))?;
            }
        }
        for (name, value) in self.more {
            writeln(out, name, value)?;
        }
        match self.framing {
            Framing::Length(bytes) => write!(out, "Content-Length: {bytes}\r\n")?,
            Framing::Chunked(coding) => {
                let coding = coding.name();
                write!(out, "Content-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n")?;
            }
            Framing::NoBody => {}
        }
        out.push_str("\r\n");
        Ok(())
    }
}

/// One header line. A value never brings a line of its own.
fn writeln(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    write!(out, "{name}: ")?;
    out.extend(value.chars().filter(|c| !c.is_control()));
    out.write_str("\r\n")
}

/// A time in the form of RFC 1123, as in `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Clone, Copy, Debug)]
pub struct HttpDate(pub UnixSeconds);

impl std::fmt::Display for HttpDate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        // The year has four digits only in this span.
        let seconds = self.0.0.clamp(0, 253_402_300_799);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (weekday, month) = (index(days % 7), index(month - 1));
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{}, {day:02} {} {year:04} {h:02}:{m:02}:{s:02} GMT",
            DAYS[weekday], MONTHS[month]
        )
    }
}

/// A time in the form of RFC 3339, as in `1994-11-06T08:49:37Z`.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339(pub UnixSeconds);

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.0.clamp(0, 253_402_300_799);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
    }
}

fn index(small: i64) -> usize {
    usize::try_from(small).unwrap_or(0)
}

/// Year, month 1..=12 and day of month of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the leap day ends a year; 146 097 days are 400 years.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Appends one chunk of the chunked transfer coding; an empty one would be the end, so it is left out.
pub fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        out.extend_from_slice(format!("{:X}\r\n", data.len()).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// What follows the last chunk.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(pieces: &[&str]) -> Result<Option<usize>, BadRequest> {
        let (mut scanner, mut buffer, mut last) = (HeadScanner::default(), Vec::new(), Ok(None));
        for piece in pieces {
            assert_eq!(last, Ok(None), "decided before '{piece}'");
            buffer.extend_from_slice(piece.as_bytes());
            last = scanner.examine(&buffer);
        }
        last
    }

    #[test]
    fn a_head_may_come_in_pieces() {
        assert_eq!(scan(&["G", "ET", " / HTTP/1.1\r", "\n\r", "\n"]), Ok(Some(18)));
        assert_eq!(scan(&["GET / HTTP/1.1\r\n\r\nGET /b"]), Ok(Some(18)));
        assert_eq!(scan(&["STREAM key=x"]), Ok(None));
    }

    #[test]
    fn a_method_nobody_knows_is_refused_at_its_first_wrong_byte() {
        for word in ["get ", "B", "GETT", "STREAMS", "\u{16}\u{3}"] {
            assert_eq!(scan(&[word]), Err(BadRequest::NotUnderstood), "{word}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(scan(&[&long]), Err(BadRequest::TooBig(long.len())));
    }

    #[test]
    fn headers_are_found_whatever_their_case() {
        let head = Head::parse(
            b"GET /a b HTTP/1.1\r\nhOST: h:1\r\nconnection: Keep-Alive, x\r\nACCEPT-ENCODING: deflate;q=1, gzip\r\nDNT:1\r\n\
              Cookie: a=b; netdata_registry_id=me; c=d\r\nX-Forwarded-Proto: https\r\nOrigin: a\x01b\r\nnonsense\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            (head.method, head.target, head.version),
            (Method::Get, &b"/a b"[..], HttpVersion::V1_1)
        );
        let headers = head.headers;
        assert!(
            headers.keep_alive
                && headers.accepts_gzip
                && headers.do_not_track
                && headers.forwarded_https
        );
        assert_eq!((headers.host, headers.person, headers.origin), (Some("h:1"), Some("me"), None));
    }

    #[test]
    fn a_coding_is_accepted_unless_its_weight_is_nothing() {
        for (list, gzip, zstd) in [
            ("gzip, deflate, br, zstd", true, true),
            ("deflate;q=1, GZIP;q=0.5", true, false),
            ("gzip;q=0, zstd; q = 0.0", false, false),
            ("xgzip", false, false),
        ] {
            assert_eq!((accepts(list, "gzip"), accepts(list, "zstd")), (gzip, zstd), "{list}");
        }
    }

    #[test]
    fn without_a_version_it_is_no_request() {
        assert_eq!(Head::parse(b"GET /\r\n\r\n").unwrap_err(), BadRequest::NotUnderstood);
    }

    #[track_caller]
    fn check(raw: &str, path: &str, pairs: &[(&str, &str)]) {
        let target = Target::parse(raw.as_bytes()).unwrap();
        assert_eq!(target.path, path);
        assert_eq!(target.query.pairs().collect::<Vec<_>>(), pairs);
    }

    #[test]
    fn an_escaped_question_mark_starts_the_query_where_there_is_no_plain_one() {
        check("/a%3Fb=c", "/a", &[("b", "c")]);
        check("/a%3fb=%3F", "/a", &[("b", "?")]);
        check("/a%3Fb?c=d", "/a?b", &[("c", "d")]);
    }

    #[test]
    fn parameters_are_split_before_they_are_decoded() {
        check("/api%2Fv1?a=1%262&&b=x+y=z&c&d=", "/api/v1", &[("a", "1&2"), ("b", "x y=z")]);
        let query = Query::parse(b"all&after=-5x&after=7&dim=a&dim=b").unwrap();
        assert!(query.has("all") && !query.has("active"));
        assert_eq!(
            (query.get("all"), query.integer("after"), query.integer("none")),
            (None, Some(7), None)
        );
        assert_eq!(query.pairs().filter(|(n, _)| *n == "dim").count(), 2);
    }

    #[test]
    fn a_broken_url_is_refused() {
        for raw in ["/%", "/%4", "/%zz", "/a%00b", "/?a=%0a", "/%ff%fe", "/?%c3%28=1", "/a\u{1}"] {
            assert_eq!(Target::parse(raw.as_bytes()), Err(BadRequest::InvalidUrl), "{raw}");
        }
        let long = format!("/{}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(Target::parse(long.as_bytes()), Err(BadRequest::InvalidUrl));
    }

    #[test]
    fn integers_are_read_as_far_as_they_go() {
        for (text, value) in [
            ("12", 12),
            ("-3s", -3),
            ("abc", 0),
            ("", 0),
            ("+5", 0),
            ("99999999999999999999", i64::MAX),
        ] {
            assert_eq!(lenient_integer(text), value, "{text}");
        }
    }

    #[test]
    fn dates_are_those_of_rfc_1123() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (-5, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(HttpDate(UnixSeconds(seconds)).to_string(), text);
        }
    }

    #[test]
    fn the_head_of_an_answer() {
        let head = ResponseHead {
            status: 308,
            keep_alive: false,
            version: "v1",
            origin: "*",
            content_type: "text/plain; charset=utf-8",
            date: UnixSeconds(0),
            frame_options: "DENY",
            cookies: &["a=b".to_owned()],
            tracking: Some("N"),
            cache: CacheControl::Forbidden { expires: UnixSeconds(1) },
            more: &[("Location", "http://x/\r\nEvil: 1".to_owned())],
            framing: Framing::Length(5),
        };
        let mut out = String::new();
        head.write(&mut out);
        assert_eq!(
            out,
            "HTTP/1.1 308 Redirection\r\nConnection: close\r\nServer: Netdata Embedded HTTP Server v1\r\n\
             Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
             Content-Type: text/plain; charset=utf-8\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Frame-Options: DENY\r\n\
             Set-Cookie: a=b\r\nTk: N\r\nCache-Control: no-cache, no-store, must-revalidate\r\nPragma: no-cache\r\n\
             Expires: Thu, 01 Jan 1970 00:00:01 GMT\r\nLocation: http://x/Evil: 1\r\nContent-Length: 5\r\n\r\n"
        );
    }

    #[test]
    fn chunk_sizes_are_upper_case_hexadecimal() {
        let mut out = Vec::new();
        push_chunk(&mut out, &[b'x'; 26]);
        push_chunk(&mut out, b"");
        assert_eq!(out, [&b"1A\r\n"[..], &[b'x'; 26], b"\r\n"].concat());
    }

    #[test]
    fn a_body_whose_length_is_not_certain_has_none_that_is_accepted() {
        let length = |headers: &str| {
            let head = format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n");
            Head::parse(head.as_bytes()).unwrap().headers.content_length
        };
        assert_eq!(length("Content-Length: 5"), 5);
        assert_eq!(length("content-length:5\r\nContent-Length: 5 "), 5);
        for unclear in [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 6\r\nContent-Length: 5\r\nContent-Length: 5",
            "Content-Length: +5",
            "Content-Length: 5,5",
            "Content-Length: 0x5",
            "Content-Length:",
            "Content-Length : 5",
            " Content-Length: 5",
            "Content-Length: 5\u{b}x",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding : chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nTransfer-Encoding: identity",
            "X: a\nContent-Length: 5",
            "X: a\rb\r\nContent-Length: 5",
            "X: a\0b",
        ] {
            assert_eq!(length(unclear), usize::MAX, "{unclear:?}");
        }
    }

    #[test]
    fn two_authorizations_are_none() {
        let of = |headers: &str| {
            let head = format!("GET / HTTP/1.1\r\n{headers}\r\n");
            Head::parse(head.as_bytes()).unwrap().headers.authorization.map(str::to_owned)
        };
        assert_eq!(of("authorization: Bearer a\r\n").as_deref(), Some("Bearer a"));
        assert_eq!(of("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), None);
        assert_eq!(of("Authorization : Bearer a\r\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, cut in 0usize..200) {
            let mut scanner = HeadScanner::default();
            let _ = scanner.examine(&bytes[..cut.min(bytes.len())]);
            let _ = scanner.examine(&bytes);
            let _ = Head::parse(&bytes);
            let _ = Target::parse(&bytes);
        }

        #[test]
        fn any_text_survives_its_escapes(text in "[^\\p{Cc}]{0,40}") {
            let escaped: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
            prop_assert_eq!(decode(escaped.as_bytes()).unwrap(), text);
        }

        #[test]
        fn days_follow_one_another(days in 0i64..2_000_000) {
            let (year, month, day) = civil(days);
            let next = civil(days + 1);
            prop_assert!(next == (year, month, day + 1) || next == (year, month + 1, 1) || next == (year + 1, 1, 1));
        }
    }
}
