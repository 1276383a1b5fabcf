//! Responses to bytes: the head, then the body as it is or compressed and in chunks.
//!
//! Nothing here holds a whole body twice: files and compressed output go out piece by piece. No lock.

use std::io::{self, Read, Write};
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress, Status};
use parking_lot::Mutex;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

use crate::base::VERSION;
use crate::base::time::{Clock, UnixSeconds};
use crate::net::Connection;
use crate::wire::http::{
    CacheControl, Coding, Framing, LAST_CHUNK, Method, ResponseHead, push_chunk,
};

use super::Options;
use super::http::{Body, Caching, Kind, Response};

/// Gathered before it is written.
const PIECE_BYTES: usize = 16 * 1024;
/// A client that takes an answer more slowly than this is left.
const SLOWEST_BYTES_PER_SECOND: u64 = 4096;
const DAY: i64 = 86_400;

/// Idle states of the compressor. A state is a quarter of a megabyte: too much to make for every answer, and too much to keep
/// for every connection.
#[derive(Default)]
pub(super) struct Compressors(Mutex<Vec<Compress>>);

impl Compressors {
    const KEPT_MAX: usize = 2;
    /// Of the format; larger ones are rare, smaller ones save nothing.
    const WINDOW_BITS: u8 = 15;

    fn take(&self, level: u32) -> Compress {
        let kept = self.0.lock().pop();
        // All are of the one level that is configured.
        kept.unwrap_or_else(|| Compress::new_gzip(Compression::new(level), Self::WINDOW_BITS))
    }

    fn give_back(&self, mut state: Compress) {
        state.reset();
        let mut kept = self.0.lock();
        if kept.len() < Self::KEPT_MAX {
            kept.push(state);
        }
    }
}

/// What an answer needs beside itself.
pub(super) struct Envelope<'a> {
    pub(super) options: &'a Options,
    pub(super) compressors: &'a Compressors,
    pub(super) now: UnixSeconds,
    pub(super) update_every: i64,
    pub(super) origin: &'a str,
    pub(super) keep_alive: bool,
    /// What the client can decompress.
    pub(super) coding: Option<Coding>,
    pub(super) method: Method,
}

/// Bytes of a body, before and after compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) plain: u64,
    pub(super) encoded: u64,
}

/// Writes the whole response.
pub(super) fn write(
    out: &mut impl Write,
    response: Response,
    envelope: &Envelope<'_>,
) -> io::Result<Sent> {
    let plain = response.body.len();
    let level = envelope.options.gzip;
    let coding = envelope.coding.filter(|_| level.is_some() && plain > 0);
    let framing = match coding {
        Some(coding) => Framing::Chunked(coding),
        None if response.status == 304 => Framing::NoBody,
        None => Framing::Length(usize::try_from(plain).map_err(io::Error::other)?),
    };
    let head = head(&response, envelope, framing).into_bytes();
    if envelope.method == Method::Head {
        out.write_all(&head)?;
        return Ok(Sent { plain, encoded: 0 });
    }
    let chunked = coding.is_some();
    let mut pieces = Pieces { out, ready: head, chunk: Vec::new(), chunked, encoded: 0 };
    match coding {
        Some(Coding::Gzip) => {
            let state = envelope.compressors.take(level.unwrap_or_default());
            let mut gzip = Gzip { state, out: &mut pieces };
            copy(response.body, &mut gzip)?;
            envelope.compressors.give_back(gzip.finish()?);
        }
        Some(Coding::Zstd) => {
            let mut zstd = Zstd::new(&mut pieces)?;
            copy(response.body, &mut zstd)?;
            zstd.finish()?;
        }
        None => copy(response.body, &mut pieces)?,
    }
    let encoded = pieces.finish()?;
    Ok(Sent { plain, encoded })
}

fn copy(body: Body, out: &mut impl Write) -> io::Result<()> {
    match body {
        Body::Bytes(bytes) => out.write_all(&bytes),
        Body::Pieces(pieces) => pieces.iter().try_for_each(|piece| out.write_all(piece)),
        Body::File(mut file, mut left) => {
            let mut piece = vec![0; PIECE_BYTES];
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
                match file.read(&mut piece[..most])? {
                    // It became shorter than the length that was promised.
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    got => {
                        out.write_all(&piece[..got])?;
                        left -= got as u64;
                    }
                }
            }
            Ok(())
        }
    }
}

fn head(response: &Response, envelope: &Envelope<'_>, framing: Framing) -> String {
    let now = envelope.now;
    let soon = now + envelope.update_every.max(1);
    let cache = match response.caching {
        _ if response.kind == Kind::Options => CacheControl::Preflight,
        // What has not changed may be kept on.
        _ if !matches!(response.status, 200 | 304) => CacheControl::Forbidden { expires: soon },
        Caching::NoCache => CacheControl::Forbidden { expires: soon },
        Caching::Refresh(seconds) => CacheControl::Forbidden { expires: now + seconds },
        Caching::Public => CacheControl::Public { expires: now + DAY },
    };
    let tracking = if response.cookies.is_empty() { "N" } else { "T;cookies" };
    let mut out = String::with_capacity(512);
    let head = ResponseHead {
        status: response.status,
        keep_alive: envelope.keep_alive,
        version: VERSION,
        origin: envelope.origin,
        content_type: response.content_type.as_str(),
        date: response.date.unwrap_or(now),
        frame_options: &envelope.options.frame_options,
        cookies: &response.cookies,
        tracking: envelope.options.do_not_track.then_some(tracking),
        cache,
        more: &response.headers,
        framing,
    };
    head.write(&mut out);
    out
}

/// Compresses what is written, into `out`.
struct Gzip<'a, W> {
    state: Compress,
    out: &'a mut W,
}

impl<W: Write> Gzip<'_, W> {
    /// One step; returns how much of `bytes` it took and whether the end was reached.
    fn step(
        &mut self,
        bytes: &[u8],
        piece: &mut Vec<u8>,
        flush: FlushCompress,
    ) -> io::Result<(usize, bool)> {
        piece.clear();
        let before = self.state.total_in();
        let status = self.state.compress_vec(bytes, piece, flush).map_err(io::Error::other)?;
        self.out.write_all(piece)?;
        let took = usize::try_from(self.state.total_in() - before).map_err(io::Error::other)?;
        Ok((took, status == Status::StreamEnd))
    }

    fn finish(mut self) -> io::Result<Compress> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        while !self.step(&[], &mut piece, FlushCompress::Finish)?.1 {}
        Ok(self.state)
    }
}

impl<W: Write> Write for Gzip<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut taken = 0;
        while taken < bytes.len() {
            taken += self.step(&bytes[taken..], &mut piece, FlushCompress::None)?.0;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses what is written, into `out`.
struct Zstd<'a, W> {
    state: Encoder<'static>,
    piece: Vec<u8>,
    out: &'a mut W,
}

impl<'a, W: Write> Zstd<'a, W> {
    /// The quickest that is worth it; a small window, since every answer under way has one of its own.
    const LEVEL: i32 = 1;
    const WINDOW_LOG: u32 = 17;

    fn new(out: &'a mut W) -> io::Result<Self> {
        let mut state = Encoder::new(Self::LEVEL)?;
        state.set_parameter(CParameter::WindowLog(Self::WINDOW_LOG))?;
        Ok(Zstd { state, piece: Vec::with_capacity(PIECE_BYTES), out })
    }

    fn finish(mut self) -> io::Result<()> {
        loop {
            self.piece.clear();
            let left = self.state.finish(&mut OutBuffer::around(&mut self.piece), true)?;
            self.out.write_all(&self.piece)?;
            if left == 0 {
                return Ok(());
            }
        }
    }
}

impl<W: Write> Write for Zstd<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            self.piece.clear();
            self.state.run(&mut input, &mut OutBuffer::around(&mut self.piece))?;
            self.out.write_all(&self.piece)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gathers small writes, the head among them, into large ones, and puts the body in chunks if so told.
struct Pieces<'a, W> {
    out: &'a mut W,
    /// What can go out as it is.
    ready: Vec<u8>,
    /// The body's bytes of a chunk that is still growing.
    chunk: Vec<u8>,
    chunked: bool,
    encoded: u64,
}

impl<W: Write> Pieces<'_, W> {
    fn send_ready(&mut self) -> io::Result<()> {
        self.out.write_all(&self.ready)?;
        self.ready.clear();
        Ok(())
    }

    fn seal_chunk(&mut self) {
        push_chunk(&mut self.ready, &self.chunk);
        self.chunk.clear();
    }

    fn finish(mut self) -> io::Result<u64> {
        if self.chunked {
            self.seal_chunk();
            self.ready.extend_from_slice(LAST_CHUNK);
        }
        self.send_ready()?;
        Ok(self.encoded)
    }
}

impl<W: Write> Write for Pieces<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoded += bytes.len() as u64;
        if self.chunked {
            self.chunk.extend_from_slice(bytes);
            if self.chunk.len() >= PIECE_BYTES {
                self.seal_chunk();
                self.send_ready()?;
            }
        } else if bytes.len() >= PIECE_BYTES {
            self.send_ready()?;
            self.out.write_all(bytes)?;
        } else {
            self.ready.extend_from_slice(bytes);
            if self.ready.len() >= PIECE_BYTES {
                self.send_ready()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection whose client has to take a minimal amount in every span of `patience`: neither one that reads nothing nor one
/// that reads a byte a minute keeps its thread.
pub(super) struct Paced<'a> {
    connection: &'a mut Connection,
    clock: &'a Clock,
    patience: Duration,
    span_began_us: i64,
    sent_in_span: u64,
    sent: u64,
}

impl<'a> Paced<'a> {
    pub(super) fn new(
        connection: &'a mut Connection,
        clock: &'a Clock,
        patience: Duration,
    ) -> Self {
        let span_began_us = clock.monotonic_us();
        Paced { connection, clock, patience, span_began_us, sent_in_span: 0, sent: 0 }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// What is left of the span; a new one begins when the client did its part in the last.
    fn time_left(&mut self) -> io::Result<Duration> {
        let now = self.clock.monotonic_us();
        let spent = Duration::from_micros(u64::try_from(now - self.span_began_us).unwrap_or(0));
        if spent < self.patience {
            return Ok(self.patience - spent);
        }
        if self.sent_in_span < SLOWEST_BYTES_PER_SECOND * self.patience.as_secs() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        (self.span_began_us, self.sent_in_span) = (now, 0);
        Ok(self.patience)
    }
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let left = self.time_left()?;
            self.connection.set_write_timeout(left)?;
            match self.connection.write(bytes) {
                Ok(wrote) => {
                    self.sent_in_span += wrote as u64;
                    self.sent += wrote as u64;
                    return Ok(wrote);
                }
                // The end of the span decides.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::web::http::ContentType;

    fn written(
        response: Response,
        coding: Option<Coding>,
        method: Method,
    ) -> (String, Vec<u8>, Sent) {
        let options = Options::from_config(&Config::new(), "h", "/lib");
        let now = UnixSeconds(1_000_000);
        let compressors = Compressors::default();
        let envelope = Envelope {
            options: &options,
            compressors: &compressors,
            now,
            update_every: 1,
            origin: "*",
            keep_alive: true,
            coding,
            method,
        };
        let mut out = Vec::new();
        let sent = write(&mut out, response, &envelope).unwrap();
        let end = memchr::memmem::find(&out, b"\r\n\r\n").unwrap();
        (String::from_utf8(out[..end].to_vec()).unwrap(), out[end + 4..].to_vec(), sent)
    }

    fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let end = memchr::memmem::find(bytes, b"\r\n").unwrap();
            let size =
                usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
            if size == 0 {
                assert_eq!(&bytes[end..], b"\r\n\r\n");
                return out;
            }
            out.extend_from_slice(&bytes[end + 2..end + 2 + size]);
            bytes = &bytes[end + 4 + size..];
        }
    }

    #[test]
    fn a_plain_body_follows_its_length() {
        for length in [0, 5, PIECE_BYTES, PIECE_BYTES * 3] {
            let (head, body, sent) = written(Response::text(vec![b'x'; length]), None, Method::Get);
            assert!(head.ends_with(&format!("Content-Length: {length}")), "{head}");
            assert_eq!(
                (body.len(), sent.plain, sent.encoded),
                (length, length as u64, length as u64)
            );
        }
    }

    #[test]
    fn a_compressed_body_comes_in_chunks() {
        for length in [1usize, 100_000, 3_000_000] {
            let text: Vec<u8> = (0..length).map(|n| u8::try_from(n * n % 251).unwrap()).collect();
            let (head, body, sent) =
                written(Response::text(text.clone()), Some(Coding::Gzip), Method::Get);
            assert!(
                head.ends_with("Content-Encoding: gzip\r\nTransfer-Encoding: chunked"),
                "{head}"
            );
            let coded = dechunk(&body);
            assert_eq!(coded.len() as u64, sent.encoded);
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&coded[..]).read_to_end(&mut plain).unwrap();
            assert!(plain == text, "{length} bytes came back differently");
            let (head, body, _) =
                written(Response::text(text.clone()), Some(Coding::Zstd), Method::Get);
            assert!(head.contains("\r\nContent-Encoding: zstd\r\n"), "{head}");
            let plain = zstd::decode_all(&dechunk(&body)[..]).unwrap();
            assert!(plain == text, "{length} bytes came back differently from zstd");
        }
    }

    #[test]
    fn what_has_not_changed_has_neither_body_nor_length() {
        let response = Response::new(304, ContentType::Css, "").public();
        let (head, body, _) = written(response, Some(Coding::Gzip), Method::Get);
        assert!(head.starts_with("HTTP/1.1 304 Not Modified\r\n") && body.is_empty(), "{head}");
        assert!(head.contains("Cache-Control: public") && !head.contains("Content-Length"));
    }

    #[test]
    fn a_head_request_gets_no_body() {
        let (head, body, _) = written(Response::text("12345"), None, Method::Head);
        assert!(head.ends_with("Content-Length: 5") && body.is_empty());
    }

    #[test]
    fn errors_are_never_cached() {
        let (head, _, _) =
            written(Response::new(404, ContentType::Json, "{}").public(), None, Method::Get);
        assert!(head.contains(
            "Cache-Control: no-cache, no-store, must-revalidate\r\nPragma: no-cache\r\n"
        ));
        let (head, _, _) = written(Response::text("x").public(), None, Method::Get);
        assert!(
            head.contains("Cache-Control: public\r\nExpires: Tue, 13 Jan 1970 13:46:40 GMT"),
            "{head}"
        );
    }
}
