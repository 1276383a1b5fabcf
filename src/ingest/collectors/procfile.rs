//! Kernel files, read again and again, and the words in them.
//!
//! A [`ProcFile`] stays open and is read from its start every time into a buffer that belongs to the thread, so the
//! steady state neither opens nor allocates. Parsing works on bytes: kernel files are ASCII, and what is not becomes
//! zero or an unknown key, never an error.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::sys;

/// What a thread's buffer starts with; most kernel files fit.
pub const BUFFER_BYTES: usize = 8 * 1024;

/// Of a larger file only this much is read.
const FILE_BYTES_MAX: usize = 4 << 20;

/// The kernel hands a file of many records out in chunks of whole records, at most this long unless a single record is.
const CHUNK_BYTES: usize = 4096;

/// How to tell that a file was read to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The kernel gives nothing more.
    Nothing,
    /// As most lines of most files are about as long as others: a chunk with room for a few more lines is the last one.
    Room,
}

/// A file that is read once per tick.
pub struct ProcFile {
    path: PathBuf,
    /// `None` after a failed read: opened again at the next one.
    file: Option<File>,
    until: Until,
    complained: bool,
}

impl ProcFile {
    /// A file that must be there now.
    pub fn open(path: PathBuf) -> Option<ProcFile> {
        match open(&path) {
            Ok(file) => {
                Some(ProcFile { path, file: Some(file), until: Until::Room, complained: false })
            }
            Err(error) => {
                log::error!("PROCFILE: Cannot open file '{}'{}", path.display(), errno(&error));
                None
            }
        }
    }

    /// A file whose absence is not worth a line.
    pub fn open_if_there(path: PathBuf) -> Option<ProcFile> {
        let file = open(&path).ok()?;
        Some(ProcFile { path, file: Some(file), until: Until::Room, complained: false })
    }

    /// For a file that may have lines of any length.
    pub fn with_long_lines(self) -> ProcFile {
        ProcFile { until: Until::Nothing, ..self }
    }

    /// The whole file as it is now; `None`, with one line in the log per failure in a row, when it cannot be read.
    pub fn read<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Option<&'b [u8]> {
        match self.try_read(buffer) {
            Ok(length) => {
                self.complained = false;
                Some(&buffer[..length])
            }
            Err(error) => {
                self.file = None;
                if !self.complained {
                    self.complained = true;
                    let path = self.path.display();
                    log::error!("PROCFILE: Cannot read from file '{path}'{}", errno(&error));
                }
                None
            }
        }
    }

    fn try_read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(&self.path)?),
        };
        read_all(file, buffer, self.until)
    }
}

/// Reads a small file once, for constants of the kernel.
pub fn read_once(path: &Path, buffer: &mut Vec<u8>) -> io::Result<usize> {
    read_all(&open(path)?, buffer, Until::Nothing)
}

/// Opens without ever waiting for a writer: the path may be a pipe somebody configured by mistake.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(sys::NONBLOCKING).open(path)
}

fn read_all(file: &File, buffer: &mut Vec<u8>, until: Until) -> io::Result<usize> {
    if buffer.is_empty() {
        buffer.resize(BUFFER_BYTES, 0);
    }
    let mut length = 0;
    loop {
        if length == buffer.len() {
            if length >= FILE_BYTES_MAX {
                return Ok(length);
            }
            buffer.resize(length * 2, 0);
        }
        match file.read_at(&mut buffer[length..], length as u64) {
            Ok(0) => return Ok(length),
            Ok(read) => {
                length += read;
                if until == Until::Room && has_room(&buffer[..length]) {
                    return Ok(length);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the kernel would have added another line, had there been one.
fn has_room(chunk: &[u8]) -> bool {
    /// Lines vary; this much and twice the last line should hold the next one.
    const SPARE: usize = 256;
    let last = chunk.strip_suffix(b"\n").unwrap_or(chunk);
    let last = last.len() - memchr::memrchr(b'\n', last).map_or(0, |end| end + 1);
    chunk.len() + 2 * last + SPARE <= CHUNK_BYTES
}

/// ` (errno 2, No such file or directory)`, as operators know it from the original.
pub fn errno(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    match error.raw_os_error() {
        Some(code) => format!(" (errno {code}, {text})"),
        None => format!(" ({text})"),
    }
}

/// A path from a kernel file.
pub fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The lines of a text, without their ends.
pub fn lines(text: &[u8]) -> Lines<'_> {
    Lines(text)
}

#[derive(Clone)]
pub struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let (line, rest) = match memchr::memchr(b'\n', self.0) {
            Some(end) => (&self.0[..end], &self.0[end + 1..]),
            None => (self.0, &[][..]),
        };
        self.0 = rest;
        Some(line)
    }
}

/// The words of a line: runs of anything but blanks and, where asked for, colons.
pub fn words(line: &[u8]) -> Words<'_> {
    Words { rest: line, colons: false }
}

/// As [`words`], where colons separate too: `TCP: inuse 5`, `eth0:123`.
pub fn words_and_colons(line: &[u8]) -> Words<'_> {
    Words { rest: line, colons: true }
}

#[derive(Clone)]
pub struct Words<'a> {
    rest: &'a [u8],
    colons: bool,
}

impl<'a> Words<'a> {
    #[inline]
    fn separates(&self, byte: u8) -> bool {
        byte == b' ' || byte == b'\t' || (self.colons && byte == b':')
    }

    /// What follows the words taken so far.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next word as a number; 0 when there is none.
    #[inline]
    pub fn number(&mut self) -> i64 {
        self.next().map_or(0, number)
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|&b| !self.separates(b))?;
        let rest = &self.rest[start..];
        let end = rest.iter().position(|&b| self.separates(b)).unwrap_or(rest.len());
        self.rest = &rest[end..];
        Some(&rest[..end])
    }
}

/// Decimal digits up to the first other character; wraps like the kernel's own counters.
#[inline]
pub fn unsigned(word: &[u8]) -> u64 {
    let mut n = 0u64;
    for &b in word {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        n = n.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    n
}

/// As [`unsigned`], with a sign. Values are collected as signed 64 bits, so the largest counters wrap to negative.
#[inline]
pub fn number(word: &[u8]) -> i64 {
    match word {
        [b'-', digits @ ..] => unsigned(digits).cast_signed().wrapping_neg(),
        digits => unsigned(digits).cast_signed(),
    }
}

/// Hexadecimal digits up to the first other character.
pub fn hexadecimal(word: &[u8]) -> i64 {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let digits = word.iter().map_while(digit);
    digits.fold(0u64, |n, digit| (n << 4) | u64::from(digit)).cast_signed()
}

/// A decimal fraction times ten to the power of `places`; further digits are dropped.
pub fn fixed_point(word: &[u8], places: u32) -> i64 {
    let point = word.iter().position(|&b| b == b'.').unwrap_or(word.len());
    let mut n = unsigned(&word[..point]);
    let mut decimals = word.get(point + 1..).unwrap_or_default().iter();
    for _ in 0..places {
        let digit = decimals.next().filter(|b| b.is_ascii_digit()).map_or(0, |b| b - b'0');
        n = n.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    n.cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_stop_at_the_first_other_character() {
        assert_eq!(number(b"42"), 42);
        assert_eq!(number(b"-1"), -1);
        assert_eq!(number(b"12kB"), 12);
        assert_eq!(number(b"x"), 0);
        assert_eq!(number(b"18446744073709551615"), -1);
        assert_eq!(hexadecimal(b"0000ff"), 255);
        assert_eq!(hexadecimal(b"1g"), 1);
    }

    #[test]
    fn fractions_are_exact() {
        assert_eq!(fixed_point(b"0.29", 3), 290);
        assert_eq!(fixed_point(b"0.29", 2), 29);
        assert_eq!(fixed_point(b"12", 2), 1200);
        assert_eq!(fixed_point(b"1.999", 2), 199);
        assert_eq!(fixed_point(b".5", 1), 5);
    }

    #[test]
    fn words_are_cut_at_blanks_and_colons() {
        let cut = |line| words_and_colons(line).map(|w| w.to_vec()).collect::<Vec<_>>();
        assert_eq!(cut(b"  eth0:12 3\t4 "), [&b"eth0"[..], b"12", b"3", b"4"]);
        assert_eq!(words(b"a:b c").next(), Some(&b"a:b"[..]));
        assert_eq!(words(b"   ").next(), None);
    }

    #[test]
    fn a_file_is_read_whole_whatever_its_length() {
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 1, 100, CHUNK_BYTES - 1, CHUNK_BYTES, BUFFER_BYTES, BUFFER_BYTES * 5 + 1]
        {
            let path = dir.path().join("f");
            let text: Vec<u8> =
                (0..length).map(|i| if i % 27 == 26 { b'\n' } else { b'a' }).collect();
            std::fs::write(&path, &text).unwrap();
            let mut file = ProcFile::open(path).unwrap();
            let mut buffer = Vec::new();
            assert_eq!(file.read(&mut buffer).unwrap(), text);
            assert_eq!(file.read(&mut buffer).unwrap(), text);
        }
    }

    #[test]
    fn a_file_that_went_away_is_opened_again() {
        let mut file = ProcFile::open(PathBuf::from("/proc/self/stat")).unwrap();
        file.file = None;
        file.path = PathBuf::from("/nowhere");
        let mut buffer = Vec::new();
        assert!(file.read(&mut buffer).is_none());
        file.path = PathBuf::from("/proc/self/stat");
        assert!(file.read(&mut buffer).is_some());
    }

    proptest! {
        #[test]
        fn any_number_reads_back(n: i64) {
            prop_assert_eq!(number(n.to_string().as_bytes()), n);
        }

        #[test]
        fn no_bytes_upset_the_parsers(text: Vec<u8>) {
            for line in lines(&text) {
                for word in words_and_colons(line).chain(words(line)) {
                    let _ = (number(word), hexadecimal(word), fixed_point(word, 3));
                }
            }
        }
    }
}
