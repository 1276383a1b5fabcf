//! The client's side of HTTP/1.1 as far as exporting needs it: a request with a body, an answer's status and first line.
//!
//! Bytes to values and back; sockets are elsewhere.

use std::fmt::Write as _;

use crate::base::VERSION;
use crate::config::{Dialect, InstanceOptions};
use crate::wire::write_request::Version;

/// The head of an answer may be this long.
const HEAD_MAX: usize = 64 << 10;
/// An answer's body is read up to here; a longer one ends the connection.
const BODY_MAX: usize = 1 << 20;
/// What is kept of a body's first line, for the log.
const LINE_MAX: usize = 300;

/// What every request of an instance begins with, up to its length.
pub(super) struct RequestHead {
    dialect: Dialect,
    path: String,
    /// The destination option as it was written.
    host: String,
    /// Lines of this instance: who it is, and what was configured.
    own: String,
}

impl RequestHead {
    pub(super) fn new(options: &InstanceOptions) -> RequestHead {
        let path = match options.connector.dialect {
            Dialect::RemoteWrite if options.url_path.starts_with('/') => options.url_path.clone(),
            Dialect::RemoteWrite => format!("/{}", options.url_path),
            _ => "/api/put".to_owned(),
        };
        let authorization = if options.username.is_empty() && options.password.is_empty() {
            String::new()
        } else {
            let both = format!("{}:{}", options.username, options.password);
            let encoded = openssl::base64::encode_block(both.as_bytes());
            format!("Authorization: Basic {encoded}\r\n")
        };
        let mut own = authorization;
        for (name, value) in &options.headers {
            let token = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            if token && !value.contains(|c: char| c.is_control()) {
                let _ = write!(own, "{name}: {value}\r\n");
            } else {
                log::error!("EXPORTING: instance '{}': '{name}' is no HTTP header", options.name);
            }
        }
        let printable = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
        RequestHead {
            dialect: options.connector.dialect,
            path: printable(&path).replace(' ', "%20"),
            host: printable(&options.destination),
            own,
        }
    }

    /// A whole head; `connected` is the destination that answers, `version` that of remote write.
    pub(super) fn text(&self, connected: &str, length: usize, version: Version) -> String {
        let mut head = format!("POST {} HTTP/1.1\r\n", self.path);
        let remote_write = self.dialect == Dialect::RemoteWrite;
        let host = if remote_write { connected } else { &self.host };
        let _ = write!(head, "Host: {host}\r\n{}", self.own);
        head.push_str(match self.dialect {
            Dialect::Graphite => "Content-Type: application/graphite\r\n",
            Dialect::OpenTsdb | Dialect::Json => "Content-Type: application/json\r\n",
            Dialect::RemoteWrite => "Accept: */*\r\nContent-Encoding: snappy\r\n",
        });
        match version {
            _ if !remote_write => {}
            Version::One => head.push_str(
                "Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n",
            ),
            Version::Two => {
                let _ = write!(
                    head,
                    "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n\
                     X-Prometheus-Remote-Write-Version: 2.0.0\r\nUser-Agent: netdata/{VERSION}\r\n"
                );
            }
        }
        let _ = write!(head, "Content-Length: {length}\r\n\r\n");
        head
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Seconds.
    pub(super) retry_after: Option<i64>,
    /// Samples that the server says it has written: who does not say so does not know remote write 2.0.
    pub(super) written: Option<u64>,
    /// Of the body.
    pub(super) first_line: String,
    /// Another request may follow on the same connection.
    pub(super) keeps_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no HTTP")]
pub(super) struct NoHttp;

/// What has arrived of an answer.
#[derive(Default)]
pub(super) struct Answering {
    bytes: Vec<u8>,
}

/// Whether more bytes can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    May,
    /// The server has closed.
    Cannot,
}

impl Answering {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The answer once it is complete.
    pub(super) fn complete(&mut self, more: More) -> Result<Option<Answer>, NoHttp> {
        loop {
            let Some(end) = memchr::memmem::find(&self.bytes, b"\r\n\r\n") else {
                let hopeless = self.bytes.len() > HEAD_MAX || more == More::Cannot;
                return if hopeless { Err(NoHttp) } else { Ok(None) };
            };
            let head = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
            let head = Head::parse(&head)?;
            // "Go on" and the like come before the answer itself.
            if (100..200).contains(&head.status) {
                self.bytes.drain(..end + 4);
                continue;
            }
            return self.with_body(&head, end + 4, more);
        }
    }

    fn with_body(&self, head: &Head, begin: usize, more: More) -> Result<Option<Answer>, NoHttp> {
        let body = &self.bytes[begin..];
        let answer = |body: &[u8], keeps_open| Answer {
            status: head.status,
            retry_after: head.retry_after,
            written: head.written,
            first_line: first_line(body),
            keeps_open: keeps_open && !head.closes,
        };
        if matches!(head.status, 204 | 304) {
            return Ok(Some(answer(b"", true)));
        }
        if body.len() > BODY_MAX {
            return Ok(Some(answer(body, false)));
        }
        if head.chunked {
            return Ok(match unchunk(body)? {
                Some(whole) => Some(answer(&whole, true)),
                None if more == More::Cannot => Some(answer(body, false)),
                None => None,
            });
        }
        match head.length {
            Some(length) if body.len() >= length => Ok(Some(answer(&body[..length], true))),
            _ if more == More::Cannot => Ok(Some(answer(body, false))),
            _ => Ok(None),
        }
    }
}

struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
    closes: bool,
    retry_after: Option<i64>,
    written: Option<u64>,
}

impl Head {
    fn parse(text: &str) -> Result<Head, NoHttp> {
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or("").split(' ');
        let version = first.next().unwrap_or("");
        if !version.starts_with("HTTP/1.") {
            return Err(NoHttp);
        }
        let status = first.next().and_then(|word| word.parse().ok());
        let status = status.filter(|status| (100..1000).contains(status)).ok_or(NoHttp)?;
        let mut head = Head {
            status,
            length: None,
            chunked: false,
            closes: version == "HTTP/1.0",
            retry_after: None,
            written: None,
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "content-length" => head.length = Some(value.parse().map_err(|_| NoHttp)?),
                "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                "retry-after" => head.retry_after = value.parse().ok().filter(|s| *s >= 0),
                "x-prometheus-remote-write-samples-written" => head.written = value.parse().ok(),
                _ => {}
            }
        }
        Ok(head)
    }
}

/// The body inside chunks, once the last one is there.
fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, NoHttp> {
    let mut body = Vec::new();
    loop {
        let Some(end) = memchr::memmem::find(rest, b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| NoHttp)?;
        let size = line.split(';').next().unwrap_or("").trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| NoHttp)?;
        rest = &rest[end + 2..];
        if size == 0 {
            // Trailers, if any, end with an empty line.
            let whole =
                rest.starts_with(b"\r\n") || memchr::memmem::find(rest, b"\r\n\r\n").is_some();
            return Ok(whole.then_some(body));
        }
        if size > BODY_MAX {
            return Err(NoHttp);
        }
        let Some(chunk) = rest.get(..size) else { return Ok(None) };
        let Some(after) = rest.get(size + 2..) else { return Ok(None) };
        body.extend_from_slice(chunk);
        rest = after;
    }
}

fn first_line(body: &[u8]) -> String {
    let line = body.split(|b| *b == b'\n').find(|line| !line.trim_ascii().is_empty());
    let line = line.unwrap_or_default();
    let text = String::from_utf8_lossy(&line[..line.len().min(LINE_MAX)]);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ExportingConf};

    fn options(text: &str) -> InstanceOptions {
        ExportingConf::from_text(text).instances(&Config::new()).remove(0)
    }

    #[test]
    fn requests_begin_as_the_original_has_them() {
        let head = RequestHead::new(&options(
            "[graphite:http:g]\nenabled = yes\ndestination = h:1 k\nusername = u1\npassword = p1\n",
        ));
        assert_eq!(
            head.text("h:1", 5, Version::One),
            "POST /api/put HTTP/1.1\r\nHost: h:1 k\r\nAuthorization: Basic dTE6cDE=\r\n\
             Content-Type: application/graphite\r\nContent-Length: 5\r\n\r\n"
        );
        let head = RequestHead::new(&options(
            "[prometheus_remote_write:p]\nenabled = yes\nremote write URL path = api/v1/write\n\
             http headers = X-Scope-OrgID: a; no header: x\n",
        ));
        assert_eq!(
            head.text("h:9", 1, Version::One),
            "POST /api/v1/write HTTP/1.1\r\nHost: h:9\r\nX-Scope-OrgID: a\r\nAccept: */*\r\nContent-Encoding: snappy\r\n\
             Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\
             Content-Length: 1\r\n\r\n"
        );
        let text = head.text("h:9", 1, Version::Two);
        for line in [
            "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request",
            "X-Prometheus-Remote-Write-Version: 2.0.0",
            "Content-Encoding: snappy",
        ] {
            assert!(text.lines().any(|there| there == line), "{text}");
        }
    }

    /// Fed byte by byte and at once.
    #[track_caller]
    fn check(text: &str, end: More, want: Result<Option<(u16, &str, bool)>, NoHttp>) {
        let told = |answer: Option<Answer>| answer.map(|a| (a.status, a.first_line, a.keeps_open));
        let want = want.map(|w| w.map(|(status, line, keeps)| (status, line.to_owned(), keeps)));
        let mut whole = Answering::default();
        whole.add(text.as_bytes());
        assert_eq!(whole.complete(end).map(told), want);
        let mut slow = Answering::default();
        for byte in text.bytes() {
            assert!(!matches!(slow.complete(More::May), Ok(Some(_))), "complete too early: {text}");
            slow.add(&[byte]);
        }
        assert_eq!(slow.complete(end).map(told), want);
    }

    #[test]
    fn answers_of_every_framing() {
        check("HTTP/1.1 204 No Content\r\n\r\n", More::May, Ok(Some((204, "", true))));
        check(
            "HTTP/1.1 400 Bad\r\nContent-Length: 9\r\n\r\n\nno\tway\nx",
            More::May,
            Ok(Some((400, "no way", true))),
        );
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            More::May,
            Ok(Some((200, "abcde", true))),
        );
        check(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            More::May,
            Ok(Some((503, "", false))),
        );
        check(
            "HTTP/1.0 200 OK\r\n\r\nall of it",
            More::Cannot,
            Ok(Some((200, "all of it", false))),
        );
    }

    #[test]
    fn what_is_no_answer_is_told() {
        check("HTTP/1.1 200 OK\r\n", More::Cannot, Err(NoHttp));
        check("SSH-2.0-x\r\n\r\n", More::May, Err(NoHttp));
        let mut long = Answering::default();
        long.add(&vec![b'x'; HEAD_MAX + 1]);
        assert_eq!(long.complete(More::May), Err(NoHttp));
    }

    #[test]
    fn a_server_may_ask_for_patience() {
        let mut answering = Answering::default();
        answering.add(b"HTTP/1.1 429 x\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
        let answer = answering.complete(More::May).unwrap().unwrap();
        assert_eq!((answer.retry_after, answer.written), (Some(7), None));
    }

    #[test]
    fn a_server_says_what_it_has_written() {
        let mut answering = Answering::default();
        answering.add(b"HTTP/1.1 204 x\r\nX-Prometheus-Remote-Write-Samples-Written: 17\r\n\r\n");
        assert_eq!(answering.complete(More::May).unwrap().unwrap().written, Some(17));
    }
}
