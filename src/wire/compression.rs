//! Compressed streams: frames out of text, and text out of frames (streaming specification, section 6).
//!
//! Feeds `stream::sender` (text in, frames out) and `stream::receiver` (the reverse). Pure: no sockets, no clocks. Each
//! connection has a state of its own in either direction, made when it is first needed and dropped with it; every frame
//! builds on the text before it. Bounded: a frame's text by [`TEXT_MAX`], windows by the constants of each algorithm.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use zstd::stream::raw::{CParameter, DParameter, Decoder as ZstdDecoder, Encoder as ZstdEncoder};
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

use super::caps::Capabilities;

mod lz4;

use self::lz4::{Lz4Decoder, Lz4Encoder};

/// Text of one frame that is sent: whatever becomes of it, the oldest peers can still say its length.
pub const PLAIN_MAX: usize = 16_000;
/// Text of one frame that is taken.
const TEXT_MAX: usize = 128 * 1024;
/// Between the bytes of the length and around them.
const HEADER: usize = 4;
const FIRST: u8 = 0xfa;
const LAST: u8 = 0x0a;
/// What a frame may become longer by when its text does not compress.
const GROWTH: usize = 512;
/// Decoded at once by the algorithms that hand their text out in pieces.
const PIECE: usize = 8 * 1024;

/// Our zstd window is that of lz4: lines come again every second or every few, and both ends pay for its memory.
const ZSTD_WINDOW_LOG: u32 = 16;
const ZSTD_TABLE_LOG: u32 = 13;
/// Widest window taken from others, 8 MiB; the level 2.x has by default uses 2 MiB. Only what is used becomes resident.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const GZIP_WINDOW_BITS: u8 = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Zstd,
    Lz4,
    Gzip,
}

impl Algorithm {
    /// All there are, the one a peer takes first when it may choose first.
    pub const ALL: [Algorithm; 3] = [Algorithm::Zstd, Algorithm::Lz4, Algorithm::Gzip];

    pub fn capability(self) -> Capabilities {
        match self {
            Algorithm::Zstd => Capabilities::ZSTD,
            Algorithm::Lz4 => Capabilities::LZ4,
            Algorithm::Gzip => Capabilities::GZIP,
        }
    }

    /// What a connection with these capabilities is compressed with, if it is.
    pub fn of(agreed: Capabilities) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| agreed.contains(algorithm.capability()))
    }

    /// As `compression algorithms order` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Zstd => "zstd",
            Algorithm::Lz4 => "lz4",
            Algorithm::Gzip => "gzip",
        }
    }

    /// The order of preference that a list of names asks for; those it does not name come last.
    pub fn order<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Capabilities> {
        let mut order: Vec<Algorithm> = Vec::new();
        let named = names.into_iter().filter_map(|name| {
            Algorithm::ALL.into_iter().find(|one| one.name().eq_ignore_ascii_case(name))
        });
        for algorithm in named.chain(Algorithm::ALL) {
            if !order.contains(&algorithm) {
                order.push(algorithm);
            }
        }
        order.into_iter().map(Algorithm::capability).collect()
    }
}

/// How hard each algorithm tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    pub zstd: i32,
    /// The higher, the faster and the bigger.
    pub lz4_acceleration: u32,
    pub gzip: u32,
}

impl Default for Levels {
    fn default() -> Self {
        Levels { zstd: 3, lz4_acceleration: 1, gzip: 3 }
    }
}

impl Levels {
    /// Numbers of a configuration, brought into each algorithm's range.
    pub fn clamped(zstd: i64, lz4_acceleration: i64, gzip: i64) -> Levels {
        let within = |value: i64, low: i32, high: i32| {
            i32::try_from(value.clamp(low.into(), high.into())).unwrap_or(low)
        };
        Levels {
            zstd: within(zstd, 1, 19),
            lz4_acceleration: within(lz4_acceleration, 1, 64).unsigned_abs(),
            gzip: within(gzip, 1, 9).unsigned_abs(),
        }
    }
}

impl Levels {
    fn is_known(self, algorithm: Algorithm) -> bool {
        let Levels { zstd, lz4_acceleration, gzip } = self;
        let clamped = Levels::clamped(zstd.into(), lz4_acceleration.into(), gzip.into());
        match algorithm {
            Algorithm::Zstd => zstd == clamped.zstd,
            Algorithm::Lz4 => lz4_acceleration == clamped.lz4_acceleration,
            Algorithm::Gzip => gzip == clamped.gzip,
        }
    }
}

// --- text into frames ------------------------------------------------------------------------------------

/// Makes frames of a connection's text.
pub struct Encoder(EncoderOf);

enum EncoderOf {
    Zstd(ZstdEncoder<'static>),
    Lz4(Lz4Encoder),
    Gzip(Compress),
}

impl Encoder {
    pub fn new(algorithm: Algorithm, levels: Levels) -> io::Result<Encoder> {
        if !levels.is_known(algorithm) {
            let text = format!("{levels:?} is no level of {}", algorithm.name());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(Encoder(match algorithm {
            Algorithm::Zstd => {
                let mut encoder = ZstdEncoder::new(levels.zstd)?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
                encoder.set_parameter(CParameter::HashLog(ZSTD_TABLE_LOG))?;
                encoder.set_parameter(CParameter::ChainLog(ZSTD_TABLE_LOG))?;
                EncoderOf::Zstd(encoder)
            }
            Algorithm::Lz4 => EncoderOf::Lz4(Lz4Encoder::new(levels.lz4_acceleration)),
            Algorithm::Gzip => {
                let level = Compression::new(levels.gzip);
                EncoderOf::Gzip(Compress::new_gzip(level, GZIP_WINDOW_BITS))
            }
        }))
    }

    /// Appends one frame with the beginning of `text`, up to its last line end that has room; gives how much that was.
    /// Only a line longer than a frame is cut.
    pub fn frame(&mut self, text: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let room = &text[..text.len().min(PLAIN_MAX)];
        let length = if room.len() == text.len() {
            text.len()
        } else {
            memchr::memrchr(b'\n', room).map_or(room.len(), |end| end + 1)
        };
        if length == 0 {
            return Ok(0);
        }
        let header = out.len();
        out.extend_from_slice(&[0; HEADER]);
        self.compress(&text[..length], out)?;
        let body = out.len() - header - HEADER;
        // Cannot be longer: GROWTH is more than any of them adds.
        let Some(head) = head_of(body) else {
            return Err(io::Error::other(format!("a message of {length} bytes became {body}")));
        };
        out[header..header + HEADER].copy_from_slice(&head);
        Ok(length)
    }

    fn compress(&mut self, text: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.reserve(text.len() + GROWTH);
        match &mut self.0 {
            EncoderOf::Lz4(encoder) => encoder.block(text, out),
            EncoderOf::Zstd(encoder) => {
                let mut from = InBuffer::around(text);
                while from.pos() < text.len() {
                    let done = out.len();
                    encoder.run(&mut from, &mut OutBuffer::around_pos(out, done))?;
                    out.reserve(GROWTH);
                }
                loop {
                    let done = out.len();
                    if encoder.flush(&mut OutBuffer::around_pos(out, done))? == 0 {
                        break;
                    }
                    out.reserve(GROWTH);
                }
            }
            EncoderOf::Gzip(encoder) => {
                let before = encoder.total_in();
                loop {
                    let taken = usize::try_from(encoder.total_in() - before).unwrap_or(text.len());
                    encoder.compress_vec(&text[taken..], out, FlushCompress::Sync)?;
                    let all = encoder.total_in() - before == text.len() as u64;
                    // Room that is left means that everything is out.
                    if all && out.len() < out.capacity() {
                        break;
                    }
                    out.reserve(GROWTH);
                }
            }
        }
        Ok(())
    }
}

fn head_of(length: usize) -> Option<[u8; HEADER]> {
    let length = u16::try_from(length).ok().filter(|&length| length > 0 && length < 1 << 14)?;
    let [low, high] = [length & 0x7f, length >> 7].map(|bits| 0x80 | bits as u8);
    Some([FIRST, low, high, LAST])
}

// --- frames into text --------------------------------------------------------------------------------------

/// Why a connection's bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame begins with the bytes {:02x} {:02x} {:02x} {:02x}", .0[0], .0[1], .0[2], .0[3])]
    Head([u8; HEADER]),
    #[error("a frame of {0} has no content")]
    Empty(&'static str),
    #[error("a frame of {0} does not decode")]
    Content(&'static str),
    #[error("a frame holds more than {TEXT_MAX} bytes of text")]
    TooMuch,
}

/// Makes text of what a peer sends that agreed on an algorithm.
pub struct Decoder {
    algorithm: Algorithm,
    state: State,
    /// A frame whose end has not come yet.
    begun: Vec<u8>,
    frames: u64,
}

enum State {
    /// Nothing has come yet.
    Unseen,
    /// The first byte began no frame: the peer agreed and does not compress.
    Plain,
    Lz4(Lz4Decoder),
    /// With the room that pieces of text are decoded into.
    Zstd(Box<ZstdDecoder<'static>>, Vec<u8>),
    Gzip(Box<Decompress>, Vec<u8>),
}

impl Decoder {
    pub fn new(algorithm: Algorithm) -> Decoder {
        Decoder { algorithm, state: State::Unseen, begun: Vec::new(), frames: 0 }
    }

    /// Frames decoded so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Calls `visit` with the text of each frame that `chunk` completes, in pieces that may end within a line; stops at
    /// the first error, after which the connection is of no use.
    pub fn feed<E: From<FrameError>>(
        &mut self,
        mut chunk: &[u8],
        mut visit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if let State::Unseen = self.state {
            match chunk.first() {
                None => return Ok(()),
                Some(&FIRST) => self.state = State::new(self.algorithm)?,
                Some(_) => self.state = State::Plain,
            }
        }
        if let State::Plain = self.state {
            return visit(chunk);
        }
        while !chunk.is_empty() {
            if self.begun.is_empty() {
                // Most frames come whole and need no copy.
                match body_of(chunk)? {
                    Some(end) if end <= chunk.len() => {
                        let (frame, rest) = chunk.split_at(end);
                        self.frame(&frame[HEADER..], &mut visit)?;
                        chunk = rest;
                    }
                    _ => {
                        self.begun.extend_from_slice(chunk);
                        return Ok(());
                    }
                }
            } else {
                let wanted = match body_of(&self.begun)? {
                    None => HEADER,
                    Some(end) => end,
                };
                let missing = (wanted - self.begun.len()).min(chunk.len());
                self.begun.extend_from_slice(&chunk[..missing]);
                chunk = &chunk[missing..];
                if body_of(&self.begun)? == Some(self.begun.len()) {
                    let frame = std::mem::take(&mut self.begun);
                    self.frame(&frame[HEADER..], &mut visit)?;
                }
            }
        }
        Ok(())
    }

    fn frame<E: From<FrameError>>(
        &mut self,
        body: &[u8],
        visit: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let name = self.algorithm.name();
        self.frames += 1;
        let mut total = 0;
        let mut piece = |text: &[u8]| {
            total += text.len();
            if total > TEXT_MAX {
                return Err(FrameError::TooMuch.into());
            }
            if text.is_empty() { Ok(()) } else { visit(text) }
        };
        match &mut self.state {
            State::Unseen | State::Plain => {}
            State::Lz4(decoder) => {
                piece(decoder.block(body, TEXT_MAX).ok_or(FrameError::Content(name))?)?;
            }
            State::Zstd(decoder, room) => {
                let mut from = InBuffer::around(body);
                loop {
                    let mut to = OutBuffer::around(&mut room[..]);
                    let run = decoder.run(&mut from, &mut to);
                    run.map_err(|_| FrameError::Content(name))?;
                    let length = to.pos();
                    piece(&room[..length])?;
                    if from.pos() == body.len() && length < room.len() {
                        break;
                    }
                }
            }
            State::Gzip(decoder, room) => {
                let mut taken = 0;
                loop {
                    let (ins, outs) = (decoder.total_in(), decoder.total_out());
                    let run = decoder.decompress(&body[taken..], room, FlushDecompress::Sync);
                    let run = run.map_err(|_| FrameError::Content(name))?;
                    taken += usize::try_from(decoder.total_in() - ins).unwrap_or(0);
                    let length = usize::try_from(decoder.total_out() - outs).unwrap_or(0);
                    piece(&room[..length])?;
                    if run == Status::StreamEnd {
                        // A stream has no end as long as its connection stands.
                        return Err(FrameError::Content(name).into());
                    }
                    if taken == body.len() && length < room.len() {
                        break;
                    }
                    if length == 0 && decoder.total_in() == ins {
                        return Err(FrameError::Content(name).into());
                    }
                }
            }
        }
        if total == 0 { Err(FrameError::Empty(name).into()) } else { Ok(()) }
    }
}

impl State {
    fn new(algorithm: Algorithm) -> Result<State, FrameError> {
        Ok(match algorithm {
            Algorithm::Lz4 => State::Lz4(Lz4Decoder::new()),
            Algorithm::Zstd => {
                // Only a lack of memory fails here.
                let failed = |_| FrameError::Content(algorithm.name());
                let mut decoder = ZstdDecoder::new().map_err(failed)?;
                let limit = DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX);
                decoder.set_parameter(limit).map_err(failed)?;
                State::Zstd(Box::new(decoder), vec![0; PIECE])
            }
            Algorithm::Gzip => {
                State::Gzip(Box::new(Decompress::new_gzip(GZIP_WINDOW_BITS)), vec![0; PIECE])
            }
        })
    }
}

/// Where the frame at the beginning of `bytes` ends; `None` while its head is not complete.
fn body_of(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(&head) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let [first, low, high, last] = head;
    let length = usize::from(low & 0x7f) | usize::from(high & 0x7f) << 7;
    if first != FIRST || low & high & 0x80 == 0 || last != LAST || length == 0 {
        return Err(FrameError::Head(head));
    }
    Ok(Some(HEADER + length))
}

#[cfg(test)]
mod tests;
