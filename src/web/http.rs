//! What handlers see of HTTP: a [`Request`] that has been read, and the [`Response`] they build.
//!
//! No socket here; the server turns a [`Response`] into bytes. No thread, no lock.

use std::borrow::Cow;
use std::fs::File;

use crate::base::json::JsonWriter;
use crate::base::time::UnixSeconds;
use crate::net::{Closer, Peer};
use crate::wire::http::{Method, Query, escape_html};

/// One request, decoded, with what the server knows of the client.
#[derive(Clone, Debug)]
pub struct Request {
    /// Never `Stream`: that connection leaves the web server.
    pub method: Method,
    /// The decoded path, `/host/X` included.
    pub path: String,
    pub query: Query,
    /// The raw target, for redirects.
    pub target: String,
    pub peer: Peer,
    /// What this client may do on this port.
    pub rights: super::acl::Rights,
    /// It has shown a token, or needs none.
    pub may_read: bool,
    /// `X-Forwarded-Host`, else `Host`.
    pub host: Option<String>,
    /// The client's side is https, here or at a proxy in front of us.
    pub https: bool,
    pub auth_token: Option<String>,
    pub do_not_track: bool,
    /// What the client has of the answer, by tag and by time.
    pub known_tags: Option<String>,
    pub known_since: Option<String>,
    /// The registry's cookie.
    pub person: Option<String>,
    /// `Accept`: kinds of answers that the client likes.
    pub accept: Option<String>,
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    /// Of a POST.
    pub body: Vec<u8>,
    /// Its connection, to look whether somebody still waits for an answer that takes long.
    pub client: Option<Closer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    Json,
    Text,
    Html,
    JavaScript,
    Css,
    Xml,
    Svg,
    Prometheus,
    /// Any other word, as it stands in the header.
    Other(&'static str),
}

impl ContentType {
    pub fn as_str(self) -> &'static str {
        match self {
            ContentType::Json => "application/json; charset=utf-8",
            ContentType::Text => "text/plain; charset=utf-8",
            ContentType::Html => "text/html; charset=utf-8",
            ContentType::JavaScript => "application/x-javascript; charset=utf-8",
            ContentType::Css => "text/css; charset=utf-8",
            ContentType::Xml => "text/xml; charset=utf-8",
            ContentType::Svg => "image/svg+xml",
            ContentType::Prometheus => "text/plain; version=0.0.4",
            ContentType::Other(word) => word,
        }
    }
}

/// How long an answer may be kept. Any status but 200 is `NoCache`, whatever a handler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    NoCache,
    /// For a day.
    Public,
    /// Not by caches, but valid for so many seconds (a badge that refreshes itself).
    Refresh(i64),
}

/// What follows the head.
#[derive(Debug)]
pub enum Body {
    Bytes(Vec<u8>),
    /// One behind the other: what several threads made, or what grew too large to be moved.
    Pieces(Vec<Vec<u8>>),
    /// So many bytes from where the file stands; copied piece by piece.
    File(File, u64),
}

impl Body {
    pub fn len(&self) -> u64 {
        match self {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Pieces(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
            Body::File(_, len) => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is in memory; nothing of a file.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Body::Bytes(bytes) => bytes.into(),
            Body::Pieces(pieces) => pieces.concat().into(),
            Body::File(..) => Cow::Borrowed(&[]),
        }
    }
}

impl Body {
    /// Of texts that follow each other.
    pub fn of_pieces(texts: Vec<String>) -> Body {
        Body::Pieces(texts.into_iter().map(String::into_bytes).collect())
    }
}

impl<B: Into<Vec<u8>>> From<B> for Body {
    fn from(bytes: B) -> Body {
        Body::Bytes(bytes.into())
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub content_type: ContentType,
    pub caching: Caching,
    pub body: Body,
    /// `Date`, where it is not now: that of a file is its last change.
    pub date: Option<UnixSeconds>,
    /// `Location`, `Content-Disposition`, `Refresh`.
    pub headers: Vec<(&'static str, String)>,
    pub cookies: Vec<String>,
    pub kind: Kind,
}

/// The word of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    File,
    Options,
    Stream,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Data => "DATA",
            Kind::File => "FILECOPY",
            Kind::Options => "OPTIONS",
            Kind::Stream => "STREAM",
        }
    }
}

impl Response {
    pub fn new(status: u16, content_type: ContentType, body: impl Into<Body>) -> Self {
        Response {
            status,
            content_type,
            caching: Caching::NoCache,
            body: body.into(),
            date: None,
            headers: Vec::new(),
            cookies: Vec::new(),
            kind: Kind::Data,
        }
    }

    /// 200 with a JSON document.
    pub fn json(document: JsonWriter) -> Self {
        Response::new(200, ContentType::Json, document.into_bytes())
    }

    /// 200 with plain text.
    pub fn text(body: impl Into<Body>) -> Self {
        Response::new(200, ContentType::Text, body)
    }

    /// An error told in plain text.
    pub fn error(status: u16, body: impl Into<Body>) -> Self {
        Response::new(status, ContentType::Text, body)
    }

    /// An error that repeats what the caller wrote: `message` and then `echo`, escaped.
    pub fn error_about(status: u16, message: &str, echo: &str) -> Self {
        Response::error(status, format!("{message}{}", escape_html(echo)))
    }

    /// Whoever reads here has to show a token. A browser asks its user for one.
    pub fn token_wanted() -> Self {
        let text = "Reading here needs a token: Authorization: Bearer TOKEN, or any user with the token as password.";
        Response::error(401, text)
            .header("WWW-Authenticate", "Basic realm=\"netdata\", charset=\"UTF-8\"")
    }

    pub fn forbidden() -> Self {
        Response::error(403, "You are not allowed to access this resource.")
    }

    #[must_use]
    pub fn html(mut self) -> Self {
        self.content_type = ContentType::Html;
        self
    }

    /// May be cached for a day.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.caching = Caching::Public;
        self
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
