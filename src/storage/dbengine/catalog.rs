//! The catalog: which number stands for which metric, and what its host and chart are called.
//!
//! `catalog.log` is the truth: records, each with its length and checksum, only ever appended. Beside it lies
//! `catalog.index`, a hash table over the log in mapped memory, so that opening a catalog of any size costs nothing;
//! it is made anew from the log whenever it might not match (another boot without a clean stop, a wrong size, a wrong
//! header), and compared with it once before the first new number is given. Numbers start at 1 and are never given
//! twice, not even when their record is lost: those that samples are stored under are kept out of use.
//!
//! While the disk takes nothing, new records wait in memory and have their numbers already.
//!
//! A host's or chart's record is appended only when it says something new: the index knows the place of the last one.
//!
//! One lock, taken when a dimension is defined, never per sample. Layout: `docs/formats/dbengine.md`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::codec::Input;
use super::files;
use crate::base::ids::MachineGuid;
use crate::base::stats::{STATS, count};
use crate::storage::MetricKey;
use crate::storage::map::Cells;

const LOG_MAGIC: &[u8; 8] = b"NDRSCAT1";
const INDEX_MAGIC: u32 = 0x4E44_4958;
const LOG_HEADER: u64 = 8;
const RECORD_HEADER: usize = 8;
/// Records start at multiples of this, so their place fits 32 bits.
const ALIGN: u64 = 8;
/// Longest record; names beyond it are refused.
const RECORD_MAX: usize = 16 * 1024;
/// Records that wait for the disk at most; beyond, new metrics are refused.
const UNWRITTEN_MAX: usize = 100_000;

// Words of the index's head.
const HEAD_WORDS: usize = 16;
const W_MAGIC: usize = 0;
const W_CAPACITY: usize = 1;
const W_USED: usize = 2;
const W_COVERED_LOW: usize = 3;
const W_COVERED_HIGH: usize = 4;
const W_BOOT: usize = 5;
const W_CLEAN: usize = 6;
/// The number the next new metric gets.
const W_NEXT: usize = 7;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A metric and its number.
    Metric { number: u32, host: MachineGuid, chart: String, dimension: String },
    /// What a host is called; the last one counts.
    Host { guid: MachineGuid, hostname: String },
    /// The definition of a chart in the words of [`super::names`]; the last one counts.
    Chart { host: MachineGuid, chart: String, definition: Vec<String> },
    /// What a metric's dimension is called where its id does not say it all; the last one counts.
    Dimension { host: MachineGuid, chart: String, dimension: String, definition: Vec<String> },
    /// The host is no longer wanted; a later record of it brings it back.
    Forgotten { guid: MachineGuid },
}

impl Record {
    /// What the index finds the record by; of metrics that is their name.
    fn hash(&self) -> u64 {
        match self {
            Record::Metric { host, chart, dimension, .. }
            | Record::Dimension { host, chart, dimension, .. } => hash_of(*host, chart, dimension),
            // No chart and no dimension of a metric holds these.
            Record::Host { guid, .. } | Record::Forgotten { guid } => hash_of(*guid, "", "\0host"),
            Record::Chart { host, chart, .. } => hash_of(*host, chart, "\0chart"),
        }
    }

    /// Whether both are about the same thing.
    fn is_about_that_of(&self, other: &Record) -> bool {
        use Record::{Chart, Dimension, Forgotten, Host, Metric};
        match (self, other) {
            (
                Metric { host: a, chart: b, dimension: c, .. },
                Metric { host: x, chart: y, dimension: z, .. },
            )
            | (
                Dimension { host: a, chart: b, dimension: c, .. },
                Dimension { host: x, chart: y, dimension: z, .. },
            ) => (a, b, c) == (x, y, z),
            (
                Host { guid: a, .. } | Forgotten { guid: a },
                Host { guid: b, .. } | Forgotten { guid: b },
            ) => a == b,
            (Chart { host: a, chart: b, .. }, Chart { host: x, chart: y, .. }) => (a, b) == (x, y),
            _ => false,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("cannot use the catalog '{path}'")]
    Io { path: PathBuf, source: io::Error },
    #[error("the name of metric '{chart}.{dimension}' is too long")]
    TooLong { chart: String, dimension: String },
}

pub struct Catalog {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    log: File,
    /// Where the next record goes.
    end: u64,
    index: Index,
    next_number: u32,
    dirty: bool,
    /// The index was compared with the log, or made from it, in this run.
    index_checked: bool,
    /// Its damage was said in this run.
    complained: bool,
    /// Records the disk did not take yet, and the numbers given in them.
    unwritten: Vec<(Option<u64>, Vec<u8>)>,
    unwritten_numbers: FxHashMap<MetricKey, u32>,
}

impl Catalog {
    /// Opens or creates the catalog of a store. A damaged tail of the log is cut off and said.
    pub fn open(directory: &Path) -> Result<Catalog, CatalogError> {
        let path = directory.join(files::CATALOG);
        let failed = |source| CatalogError::Io { path: path.clone(), source };
        let state = State::open(&path, directory).map_err(failed)?;
        Ok(Catalog { path, state: Mutex::new(state) })
    }

    /// The number of a metric, given to it now if it has none.
    pub fn number(&self, key: &MetricKey) -> Result<u32, CatalogError> {
        let mut state = self.state.lock();
        let hash = hash_of(key.host, &key.chart, &key.dimension);
        if let Some(number) = state.find(hash, key) {
            return Ok(number);
        }
        let failed = |source| CatalogError::Io { path: self.path.clone(), source };
        if state.check_index(&self.path).map_err(failed)?
            && let Some(number) = state.find(hash, key)
        {
            return Ok(number);
        }
        let number = state.next_number;
        let record = Record::Metric {
            number,
            host: key.host,
            chart: key.chart.to_string(),
            dimension: key.dimension.to_string(),
        };
        let too_long = || CatalogError::TooLong {
            chart: key.chart.to_string(),
            dimension: key.dimension.to_string(),
        };
        let bytes = encode(&record).ok_or_else(too_long)?;
        state.write(Some(hash), bytes).map_err(failed)?;
        state.next_number += 1;
        state.index.word(W_NEXT).store(state.next_number, Ordering::Release);
        if !state.unwritten.is_empty() {
            state.unwritten_numbers.insert(key.clone(), number);
        }
        Ok(number)
    }

    /// Numbers up to this one are in use, whatever the log says.
    pub fn reserve(&self, number: u32) {
        let mut state = self.state.lock();
        if number >= state.next_number && !state.complained {
            // A log that ends with a whole record looks whole.
            count(&STATS.store_damaged);
            log::error!(
                "DBENGINE: '{}' is damaged: it knows {} metrics, samples are stored under numbers up to {number}; the names of the others are lost",
                self.path.display(),
                state.next_number - 1
            );
            state.complained = true;
        }
        state.next_number = state.next_number.max(number.saturating_add(1));
        state.index.word(W_NEXT).store(state.next_number, Ordering::Release);
    }

    /// The number of a metric that has one.
    pub fn find(&self, key: &MetricKey) -> Option<u32> {
        self.state.lock().find(hash_of(key.host, &key.chart, &key.dimension), key)
    }

    /// Notes a host's name, the definition of a chart or dimension, or that a host is forgotten, if that is news.
    pub fn note(&self, record: &Record) -> Result<(), CatalogError> {
        let Some(bytes) = encode(record) else { return Ok(()) };
        let failed = |source| CatalogError::Io { path: self.path.clone(), source };
        let hash = record.hash();
        let mut state = self.state.lock();
        if state.last(hash, record).is_some_and(|last| last == *record) {
            return Ok(());
        }
        // Unlike a number it is not owed to anybody: whoever is told that it failed says it again.
        state.write_unwritten().map_err(failed)?;
        let place = state.append(&bytes).map_err(failed)?;
        state.insert(hash, place).map_err(failed)
    }

    /// Calls `visit` for every record, oldest first.
    pub fn all(&self, visit: &mut dyn FnMut(Record)) -> Result<(), CatalogError> {
        self.since(0, visit).map(drop)
    }

    /// Calls `visit` for the records from byte `from` of the log on, oldest first; gives where they ended. A place
    /// beyond the end, or none, is that of another log: everything is visited.
    pub fn since(&self, from: u64, visit: &mut dyn FnMut(Record)) -> Result<u64, CatalogError> {
        let (log, end) = {
            let state = self.state.lock();
            (state.log.try_clone(), state.end)
        };
        let failed = |source| CatalogError::Io { path: self.path.clone(), source };
        let log = log.map_err(failed)?;
        let from = if (LOG_HEADER..=end).contains(&from) { from } else { LOG_HEADER };
        scan(&log, from, end, &mut |_, record| visit(record)).map_err(failed)?;
        Ok(end)
    }

    /// The byte after the last record.
    pub fn end(&self) -> u64 {
        self.state.lock().end
    }

    /// How many metrics have a number.
    pub fn metrics(&self) -> u32 {
        self.state.lock().next_number - 1
    }

    /// Puts what was appended on the disk.
    pub fn sync(&self) -> io::Result<()> {
        let log = {
            let mut state = self.state.lock();
            state.write_unwritten()?;
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            state.log.try_clone()?
        };
        let synced = log.sync_data();
        if synced.is_err() {
            self.state.lock().dirty = true;
        }
        synced
    }

    /// A clean stop: the index may be trusted at the next start.
    pub fn close(&self) -> io::Result<()> {
        self.sync()?;
        let state = self.state.lock();
        state.index.cells.sync()?;
        state.index.word(W_CLEAN).store(1, Ordering::Release);
        state.index.cells.sync()
    }
}

impl State {
    fn open(path: &Path, directory: &Path) -> io::Result<State> {
        let log = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut length = log.metadata()?.len();
        let mut magic = [0u8; 8];
        if length < LOG_HEADER {
            log.write_all_at(LOG_MAGIC, 0)?;
            length = LOG_HEADER;
        } else {
            log.read_exact_at(&mut magic, 0)?;
        }
        if length > LOG_HEADER && &magic != LOG_MAGIC {
            // Eight bytes are no reason to forget all names.
            let mut records = 0;
            scan(&log, LOG_HEADER, length, &mut |_, _| records += 1)?;
            if records == 0 {
                files::set_aside(path, &"it has no whole record");
                return State::open(path, directory);
            }
            count(&STATS.store_damaged);
            log::error!(
                "DBENGINE: '{}' has a damaged head: written anew, {records} records found",
                path.display()
            );
            let _ = fs::remove_file(directory.join(files::CATALOG_INDEX));
            log.write_all_at(LOG_MAGIC, 0)?;
        }
        let index_path = directory.join(files::CATALOG_INDEX);
        let (index, covered) = match Index::open(&index_path, length)? {
            Some((index, covered)) => (index, covered),
            None => {
                // As many slots as the log could need at the least a metric's record takes.
                let wanted = usize::try_from(length / 48).unwrap_or(usize::MAX).saturating_mul(2);
                (Index::create_or_memory(&index_path, wanted)?, LOG_HEADER)
            }
        };
        index.word(W_CLEAN).store(0, Ordering::Release);
        let next_number = index.word(W_NEXT).load(Ordering::Acquire).max(1);
        let mut state = State {
            log,
            end: length,
            index,
            next_number,
            dirty: true,
            index_checked: covered == LOG_HEADER,
            complained: false,
            unwritten: Vec::new(),
            unwritten_numbers: FxHashMap::default(),
        };
        let mut found = Vec::new();
        let log = state.log.try_clone()?;
        let mut highest = next_number - 1;
        let read = scan(&log, covered, length, &mut |place, record| {
            if let Record::Metric { number, .. } = record {
                highest = highest.max(number);
            }
            found.push((record.hash(), place));
        })?;
        if read.damaged > 0 {
            complain(path, read.damaged, length);
            state.complained = true;
        }
        // The next record goes over what follows the last good one. Shorter first, lest its rest be taken for one.
        if read.good_end < length {
            let _ = log.set_len(read.good_end);
        }
        state.end = read.good_end;
        state.next_number = highest + 1;
        for (hash, place) in found {
            state.insert(hash, place)?;
        }
        state.index.word(W_NEXT).store(state.next_number, Ordering::Release);
        state.index.set_covered(state.end);
        Ok(state)
    }

    /// Compares an index that was found on the disk with the log, once; true when it had to be made anew.
    fn check_index(&mut self, path: &Path) -> io::Result<bool> {
        if std::mem::replace(&mut self.index_checked, true) {
            return Ok(false);
        }
        let (mut missing, mut highest) = (0, 0);
        let index = &self.index;
        let read = scan(&self.log, LOG_HEADER, self.end, &mut |place, record| {
            if let Record::Metric { number, host, chart, dimension } = record {
                highest = highest.max(number);
                let hash = hash_of(host, &chart, &dimension);
                missing += usize::from(!index.places(hash).any(|known| known == place));
            }
        })?;
        self.next_number = self.next_number.max(highest.saturating_add(1));
        if read.damaged > 0 && !self.complained {
            complain(path, read.damaged, self.end);
        }
        if missing > 0 {
            count(&STATS.store_damaged);
            log::error!(
                "DBENGINE: '{}' is damaged ({missing} metrics are missing in it): made anew",
                self.index.path.display()
            );
            self.rebuild(self.index.capacity)?;
        }
        // All of it was touched; from now on a name costs a page.
        self.index.cells.forget(0, HEAD_WORDS + self.index.capacity * 2);
        Ok(missing > 0)
    }

    /// Appends a record, or keeps it until the disk takes it. `hash` is that of a metric's.
    fn write(&mut self, hash: Option<u64>, bytes: Vec<u8>) -> io::Result<()> {
        if self.unwritten.len() >= UNWRITTEN_MAX {
            self.write_unwritten()?;
        }
        self.unwritten.push((hash, bytes));
        // What fails now is tried again with every sync, which says so.
        let _ = self.write_unwritten();
        Ok(())
    }

    fn write_unwritten(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.unwritten);
        for (number, (hash, bytes)) in waiting.iter().enumerate() {
            let written = self.append(bytes).and_then(|place| match hash {
                Some(hash) => self.insert(*hash, place),
                None => Ok(()),
            });
            if let Err(error) = written {
                self.unwritten = waiting[number..].to_vec();
                return Err(error);
            }
        }
        if !self.unwritten_numbers.is_empty() {
            self.unwritten_numbers = FxHashMap::default();
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<u32> {
        let place =
            u32::try_from(self.end / ALIGN).map_err(|_| io::Error::other("the catalog is full"))?;
        self.log.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        self.dirty = true;
        Ok(place)
    }

    fn insert(&mut self, hash: u64, place: u32) -> io::Result<()> {
        if self.index.is_crowded() {
            self.grow()?;
        }
        self.index.put(hash, place);
        self.index.set_covered(self.end);
        Ok(())
    }

    /// Twice the table.
    fn grow(&mut self) -> io::Result<()> {
        self.rebuild(self.index.capacity * 2)
    }

    /// A table of `capacity`, filled from the log.
    fn rebuild(&mut self, capacity: usize) -> io::Result<()> {
        let path = self.index.path.clone();
        self.index = Index::create_or_memory(&path, capacity)?;
        let index = &self.index;
        index.word(W_NEXT).store(self.next_number, Ordering::Release);
        scan(&self.log, LOG_HEADER, self.end, &mut |place, record| {
            index.put(record.hash(), place);
        })?;
        index.set_covered(self.end);
        Ok(())
    }

    /// The newest record about the same thing.
    fn last(&self, hash: u64, record: &Record) -> Option<Record> {
        let read = |place| read_at(&self.log, u64::from(place) * ALIGN, self.end).ok().flatten();
        let known = self.index.places(hash).filter_map(read).map(|(known, _)| known);
        known.filter(|known| known.is_about_that_of(record)).last()
    }

    fn find(&self, hash: u64, key: &MetricKey) -> Option<u32> {
        if let Some(&number) = self.unwritten_numbers.get(key) {
            return Some(number);
        }
        self.index.places(hash).find_map(|place| {
            match read_at(&self.log, u64::from(place) * ALIGN, self.end) {
                Ok(Some((Record::Metric { number, host, chart, dimension }, _)))
                    if host == key.host && *chart == *key.chart && *dimension == *key.dimension =>
                {
                    Some(number)
                }
                _ => None,
            }
        })
    }
}

// --- records --------------------------------------------------------------------------------------

fn encode(record: &Record) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(96);
    match record {
        Record::Metric { number, host, chart, dimension } => {
            body.push(1);
            body.extend_from_slice(&number.to_le_bytes());
            body.extend_from_slice(host.0.as_bytes());
            put_text(chart, &mut body)?;
            put_text(dimension, &mut body)?;
        }
        Record::Host { guid, hostname } => {
            body.push(2);
            body.extend_from_slice(guid.0.as_bytes());
            put_text(hostname, &mut body)?;
        }
        Record::Chart { host, chart, definition } => {
            body.push(3);
            body.extend_from_slice(host.0.as_bytes());
            put_text(chart, &mut body)?;
            for word in definition {
                put_text(word, &mut body)?;
            }
        }
        Record::Dimension { host, chart, dimension, definition } => {
            body.push(4);
            body.extend_from_slice(host.0.as_bytes());
            put_text(chart, &mut body)?;
            put_text(dimension, &mut body)?;
            for word in definition {
                put_text(word, &mut body)?;
            }
        }
        Record::Forgotten { guid } => {
            body.push(5);
            body.extend_from_slice(guid.0.as_bytes());
        }
    }
    if body.len() > RECORD_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(body.len() + 16);
    bytes.extend_from_slice(&u32::try_from(body.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    while bytes.len() % 8 != 0 {
        bytes.push(0);
    }
    Some(bytes)
}

fn put_text(text: &str, out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Some(())
}

fn decode(body: &[u8]) -> Option<Record> {
    let mut input = Input(body);
    let guid =
        |input: &mut Input<'_>| Some(MachineGuid(uuid::Uuid::from_bytes(input.array().ok()?)));
    let text = |input: &mut Input<'_>| {
        let length = u16::from_le_bytes(input.array().ok()?);
        String::from_utf8(input.take(usize::from(length)).ok()?.to_vec()).ok()
    };
    let texts = |input: &mut Input<'_>| {
        let mut texts = Vec::new();
        while !input.0.is_empty() {
            texts.push(text(input)?);
        }
        Some(texts)
    };
    Some(match input.byte().ok()? {
        1 => Record::Metric {
            number: u32::from_le_bytes(input.array().ok()?),
            host: guid(&mut input)?,
            chart: text(&mut input)?,
            dimension: text(&mut input)?,
        },
        2 => Record::Host { guid: guid(&mut input)?, hostname: text(&mut input)? },
        3 => {
            let (host, chart) = (guid(&mut input)?, text(&mut input)?);
            Record::Chart { host, chart, definition: texts(&mut input)? }
        }
        4 => {
            let (host, chart) = (guid(&mut input)?, text(&mut input)?);
            let dimension = text(&mut input)?;
            Record::Dimension { host, chart, dimension, definition: texts(&mut input)? }
        }
        5 => Record::Forgotten { guid: guid(&mut input)? },
        _ => return None,
    })
}

/// The record at a byte of the log and the byte after it; `None` where its checksum does not hold.
fn read_at(log: &File, at: u64, end: u64) -> io::Result<Option<(Record, u64)>> {
    let mut head = [0u8; RECORD_HEADER];
    if at + RECORD_HEADER as u64 > end {
        return Ok(None);
    }
    log.read_exact_at(&mut head, at)?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if length == 0 || length > RECORD_MAX || at + (RECORD_HEADER + length) as u64 > end {
        return Ok(None);
    }
    let mut body = vec![0u8; length];
    log.read_exact_at(&mut body, at + RECORD_HEADER as u64)?;
    if crc32fast::hash(&body) != crc {
        return Ok(None);
    }
    let after = at + ((RECORD_HEADER + length) as u64).next_multiple_of(ALIGN);
    Ok(decode(&body).map(|record| (record, after)))
}

fn complain(path: &Path, damaged: u64, length: u64) {
    count(&STATS.store_damaged);
    log::error!(
        "DBENGINE: '{}' is damaged: {damaged} of its {length} bytes belong to no whole record, the names that stood there are lost",
        path.display()
    );
}

/// What reading the log came to.
struct Scanned {
    /// The byte after the last whole record.
    good_end: u64,
    /// Bytes that belong to none.
    damaged: u64,
}

/// Visits the records from byte `from` on. What is no whole record is passed over until the next that is.
fn scan(
    log: &File,
    from: u64,
    end: u64,
    visit: &mut dyn FnMut(u32, Record),
) -> io::Result<Scanned> {
    const CHUNK: usize = 1 << 20;
    let mut buffer = vec![0u8; CHUNK];
    let mut start = from;
    let (mut good_end, mut damaged) = (from, 0);
    while start < end {
        let wanted = usize::try_from(end - start).unwrap_or(CHUNK).min(CHUNK);
        log.read_exact_at(&mut buffer[..wanted], start)?;
        let is_last = start + wanted as u64 >= end;
        let mut at = 0usize;
        // Where a record of the greatest length would not fit any more, the next chunk begins.
        while at < wanted && (is_last || wanted - at >= RECORD_HEADER + RECORD_MAX) {
            match record_at(&buffer[at..wanted]) {
                Some((length, record)) => {
                    let place =
                        u32::try_from((start + at as u64) / ALIGN).map_err(io::Error::other)?;
                    visit(place, record);
                    at += length;
                    good_end = start + at as u64;
                }
                None => {
                    at += 8;
                    damaged += 8;
                }
            }
        }
        start += at as u64;
    }
    // The last record may have lost its padding.
    Ok(Scanned { good_end: good_end.next_multiple_of(ALIGN), damaged: damaged.min(end - from) })
}

/// The record that begins these bytes and how many it takes with its padding, if its checksum holds.
fn record_at(bytes: &[u8]) -> Option<(usize, Record)> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let length = word(0)? as usize;
    if length == 0 || length > RECORD_MAX {
        return None;
    }
    let body = bytes.get(RECORD_HEADER..RECORD_HEADER + length)?;
    if crc32fast::hash(body) != word(4)? {
        return None;
    }
    Some(((RECORD_HEADER + length).next_multiple_of(8), decode(body)?))
}

// --- the index ------------------------------------------------------------------------------------

/// Linear probing over pairs of words: the record's place (in units of [`ALIGN`]) and the upper half of its hash.
struct Index {
    path: PathBuf,
    cells: Cells,
    /// Slots, a power of two.
    capacity: usize,
}

impl Index {
    /// A new table in a file, or in memory alone where the disk has no room: it can be made again.
    fn create_or_memory(path: &Path, wanted: usize) -> io::Result<Index> {
        Index::create(path, wanted).or_else(|error| {
            log::error!(
                "DBENGINE: cannot write '{}': {error}. It is kept in memory.",
                path.display()
            );
            let capacity = wanted.clamp(4096, 1 << 28).next_power_of_two();
            let cells = Cells::anonymous(HEAD_WORDS + capacity * 2)?;
            // One on the disk would be behind.
            let _ = fs::remove_file(path);
            Ok(Index { path: path.to_owned(), cells, capacity })
        })
    }

    fn create(path: &Path, wanted: usize) -> io::Result<Index> {
        let capacity = wanted.clamp(4096, 1 << 28).next_power_of_two();
        let count = HEAD_WORDS + capacity * 2;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = files::create(&temporary)?;
        crate::base::sys::allocate(&file, (count * 4) as u64)?;
        let index = Index { path: path.to_owned(), cells: Cells::map(&file, count)?, capacity };
        index.word(W_MAGIC).store(INDEX_MAGIC, Ordering::Release);
        index
            .word(W_CAPACITY)
            .store(u32::try_from(capacity).unwrap_or(u32::MAX), Ordering::Release);
        index.word(W_BOOT).store(boot_mark(), Ordering::Release);
        index.set_covered(LOG_HEADER);
        fs::rename(&temporary, path)?;
        Ok(index)
    }

    /// The index on the disk and how far into the log it reaches, unless it cannot be trusted.
    fn open(path: &Path, log_length: u64) -> io::Result<Option<(Index, u64)>> {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else {
            return Ok(None);
        };
        // A copy may have come with holes, which a full disk cannot fill.
        let length = file.metadata()?.len();
        if crate::base::sys::allocate(&file, length).is_err() {
            return Ok(None);
        }
        let words = usize::try_from(length / 4).unwrap_or(0);
        let Some(capacity) = words.checked_sub(HEAD_WORDS).map(|pairs| pairs / 2) else {
            return Ok(None);
        };
        let index = Index { path: path.to_owned(), cells: Cells::map(&file, words)?, capacity };
        let load = |word: usize| index.word(word).load(Ordering::Acquire);
        let covered = u64::from(load(W_COVERED_LOW)) | u64::from(load(W_COVERED_HIGH)) << 32;
        let trusted = load(W_MAGIC) == INDEX_MAGIC
            && load(W_CAPACITY) as usize == capacity
            && capacity.is_power_of_two()
            && (load(W_USED) as usize) < capacity
            && (LOG_HEADER..=log_length).contains(&covered)
            && (load(W_CLEAN) == 1 || load(W_BOOT) == boot_mark());
        if !trusted {
            return Ok(None);
        }
        index.word(W_BOOT).store(boot_mark(), Ordering::Release);
        Ok(Some((index, covered)))
    }

    fn word(&self, number: usize) -> &AtomicU32 {
        &self.cells.cells()[number]
    }

    fn set_covered(&self, end: u64) {
        #[expect(clippy::cast_possible_truncation, reason = "split into its halves")]
        self.word(W_COVERED_LOW).store(end as u32, Ordering::Release);
        self.word(W_COVERED_HIGH).store((end >> 32) as u32, Ordering::Release);
    }

    fn is_crowded(&self) -> bool {
        self.word(W_USED).load(Ordering::Acquire) as usize >= self.capacity / 4 * 3
    }

    fn slot(&self, number: usize) -> (&AtomicU32, &AtomicU32) {
        let at = HEAD_WORDS + (number & (self.capacity - 1)) * 2;
        let cells = self.cells.cells();
        (&cells[at], &cells[at + 1])
    }

    #[expect(clippy::cast_possible_truncation, reason = "halves of a hash")]
    fn put(&self, hash: u64, place: u32) {
        let mut number = hash as u32 as usize;
        for _ in 0..self.capacity {
            let (at, tag) = self.slot(number);
            match at.load(Ordering::Acquire) {
                0 => {
                    tag.store((hash >> 32) as u32, Ordering::Release);
                    at.store(place, Ordering::Release);
                    self.word(W_USED).fetch_add(1, Ordering::AcqRel);
                    return;
                }
                known if known == place => return,
                _ => number += 1,
            }
        }
    }

    /// Places of records that may have this hash.
    fn places(&self, hash: u64) -> impl Iterator<Item = u32> {
        let first = hash as u32 as usize;
        (0..self.capacity)
            .map(move |step| {
                let (at, tag) = self.slot(first + step);
                (at.load(Ordering::Acquire), tag.load(Ordering::Acquire))
            })
            .take_while(|&(place, _)| place != 0)
            .filter(move |&(_, tag)| tag == (hash >> 32) as u32)
            .map(|(place, _)| place)
    }
}

/// FNV-1a over the whole name, then mixed so that both halves are good.
fn hash_of(host: MachineGuid, chart: &str, dimension: &str) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    let parts =
        host.0.as_bytes().iter().chain(chart.as_bytes()).chain(&[0]).chain(dimension.as_bytes());
    for &byte in parts {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 << 63
}

/// Tells this boot of the machine from others: after a kill the kernel still has all that was written, after a power
/// cut it may not.
fn boot_mark() -> u32 {
    let id = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    crc32fast::hash(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> MetricKey {
        MetricKey {
            host: MachineGuid(uuid::Uuid::from_u128(7)),
            chart: format!("t.c{}", n / 10).into(),
            dimension: format!("d{}", n % 10).into(),
        }
    }

    #[test]
    fn numbers_are_kept_over_restarts_and_growth() {
        let dir = tempfile::tempdir().unwrap();
        let numbers: Vec<u32> = {
            let catalog = Catalog::open(dir.path()).unwrap();
            (0..5000).map(|n| catalog.number(&key(n)).unwrap()).collect()
        };
        assert_eq!(numbers, (1..=5000).collect::<Vec<_>>());
        for forget_index in [false, true] {
            if forget_index {
                fs::remove_file(dir.path().join("catalog.index")).unwrap();
            }
            let catalog = Catalog::open(dir.path()).unwrap();
            assert_eq!(catalog.metrics(), 5000);
            for n in (0..5000).step_by(97) {
                assert_eq!(catalog.number(&key(n)).unwrap(), numbers[n]);
            }
            assert_eq!(catalog.find(&key(9999)), None);
            catalog.close().unwrap();
        }
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        {
            let catalog = Catalog::open(dir.path()).unwrap();
            for n in 0..10 {
                catalog.number(&key(n)).unwrap();
            }
        }
        let path = dir.path().join(files::CATALOG);
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 5).unwrap();
        fs::remove_file(dir.path().join("catalog.index")).unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        assert_eq!(catalog.metrics(), 9);
        assert_eq!(catalog.number(&key(9)).unwrap(), 10);
        assert_eq!(catalog.number(&key(3)).unwrap(), 4);
    }

    #[test]
    fn names_of_hosts_and_charts_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        let host = MachineGuid(uuid::Uuid::from_u128(1));
        let records = [
            Record::Host { guid: host, hostname: "box".into() },
            Record::Chart {
                host,
                chart: "a.b".into(),
                definition: vec!["name".into(), String::new(), "units".into()],
            },
        ];
        for record in &records {
            catalog.note(record).unwrap();
        }
        let mut seen = Vec::new();
        catalog.all(&mut |record| seen.push(record)).unwrap();
        assert_eq!(seen, records);
    }

    #[test]
    fn a_record_is_appended_only_when_it_says_something_new() {
        let dir = tempfile::tempdir().unwrap();
        let guid = MachineGuid(uuid::Uuid::from_u128(1));
        let host = |name: &str| Record::Host { guid, hostname: name.into() };
        let chart = |n: usize, title: &str| Record::Chart {
            host: guid,
            chart: format!("a.{n}"),
            definition: vec![title.into()],
        };
        let dimension = Record::Dimension {
            host: guid,
            chart: "a.0".into(),
            dimension: "d".into(),
            definition: vec!["Seven".into()],
        };
        let mut end = 0;
        for forget_index in [false, true, false] {
            let catalog = Catalog::open(dir.path()).unwrap();
            for n in 0..6000 {
                catalog.note(&chart(n, "same")).unwrap();
            }
            catalog.note(&host("box")).unwrap();
            catalog.note(&dimension).unwrap();
            catalog.close().unwrap();
            assert!(end == 0 || end == catalog.end(), "{end} {}", catalog.end());
            end = catalog.end();
            if forget_index {
                fs::remove_file(dir.path().join("catalog.index")).unwrap();
            }
        }
        let catalog = Catalog::open(dir.path()).unwrap();
        for record in [
            chart(3, "other"),
            chart(3, "same"),
            Record::Forgotten { guid },
            host("box"),
            host("box"),
        ] {
            catalog.note(&record).unwrap();
        }
        let mut news = Vec::new();
        assert_eq!(catalog.since(end, &mut |record| news.push(record)).unwrap(), catalog.end());
        assert_eq!(
            news,
            [chart(3, "other"), chart(3, "same"), Record::Forgotten { guid }, host("box")]
        );
        let mut all = 0;
        catalog.since(u64::MAX, &mut |_| all += 1).unwrap();
        assert_eq!(all, 6000 + 2 + 4);
    }

    #[test]
    fn a_damaged_record_costs_itself_only() {
        let dir = tempfile::tempdir().unwrap();
        {
            let catalog = Catalog::open(dir.path()).unwrap();
            for n in 0..10 {
                catalog.number(&key(n)).unwrap();
            }
        }
        let path = dir.path().join(files::CATALOG);
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 0xFF;
        fs::write(&path, bytes).unwrap();
        fs::remove_file(dir.path().join("catalog.index")).unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        assert_eq!(catalog.number(&key(5)).unwrap(), 6);
        assert_eq!(catalog.number(&key(0)).unwrap(), 11, "a number is never given twice");
    }

    /// A catalog of ten metrics whose log, and then its index, were spoiled while nobody looked.
    fn spoiled(
        clean: bool,
        spoil: impl Fn(&mut Vec<u8>),
        spoil_index: Option<fn(&mut Vec<u8>)>,
    ) -> (tempfile::TempDir, Catalog) {
        let dir = tempfile::tempdir().unwrap();
        {
            let catalog = Catalog::open(dir.path()).unwrap();
            (0..10).for_each(|n| assert_eq!(catalog.number(&key(n)).unwrap(), n as u32 + 1));
            if clean {
                catalog.close().unwrap();
            }
        }
        let rewrite = |name: &str, spoil: &dyn Fn(&mut Vec<u8>)| {
            let path = dir.path().join(name);
            let mut bytes = fs::read(&path).unwrap();
            spoil(&mut bytes);
            fs::write(&path, bytes).unwrap();
        };
        rewrite(files::CATALOG, &spoil);
        match spoil_index {
            Some(spoil) => rewrite(files::CATALOG_INDEX, &spoil),
            None => fs::remove_file(dir.path().join(files::CATALOG_INDEX)).unwrap(),
        }
        let catalog = Catalog::open(dir.path()).unwrap();
        (dir, catalog)
    }

    #[test]
    fn any_flipped_bit_costs_at_most_one_name_and_no_number_is_given_twice() {
        let length = {
            let (dir, _catalog) = spoiled(true, |_| {}, None);
            fs::metadata(dir.path().join(files::CATALOG)).unwrap().len() as usize
        };
        for byte in 0..length {
            let (_dir, catalog) = spoiled(true, |bytes| bytes[byte] ^= 0x11, None);
            let kept = (0..10).filter(|&n| catalog.find(&key(n)) == Some(n as u32 + 1)).count();
            assert!(kept >= 9, "byte {byte}: {kept} kept");
            // What the samples say, which the store passes on.
            catalog.reserve(10);
            for n in 0..10 {
                let number = catalog.number(&key(n)).unwrap();
                assert!(number == n as u32 + 1 || number > 10, "byte {byte}: {number}");
            }
        }
    }

    #[test]
    fn an_index_that_lost_something_is_made_anew_before_a_number_is_given() {
        let spoils: [fn(&mut Vec<u8>); 3] = [
            |bytes| bytes[HEAD_WORDS * 4..].fill(0),
            |bytes| bytes[W_NEXT * 4] = 2,
            |bytes| bytes[HEAD_WORDS * 4..].iter_mut().for_each(|byte| *byte ^= 1),
        ];
        for clean in [true, false] {
            for spoil in spoils {
                let (_dir, catalog) = spoiled(clean, |_| {}, Some(spoil));
                for n in (0..10).rev() {
                    assert_eq!(catalog.number(&key(n)).unwrap(), n as u32 + 1);
                }
                assert_eq!(catalog.number(&key(10)).unwrap(), 11);
            }
        }
    }

    #[test]
    fn zeros_and_a_lost_head_cost_what_they_cover() {
        let (_dir, catalog) = spoiled(true, |bytes| bytes[..8].fill(0), None);
        assert_eq!((catalog.find(&key(0)), catalog.find(&key(9))), (Some(1), Some(10)));
        let (dir, catalog) = spoiled(true, |bytes| bytes.fill(0), None);
        assert_eq!(catalog.metrics(), 0);
        assert!(dir.path().join("catalog.log.damaged").exists());
        let (_dir, catalog) = spoiled(true, |bytes| bytes[100..200].fill(0), None);
        assert_eq!((catalog.find(&key(0)), catalog.find(&key(9))), (Some(1), Some(10)));
    }

    #[test]
    fn a_full_disk_delays_records_and_refuses_no_metric() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        catalog.number(&key(0)).unwrap();
        // A log that cannot be written is as good as a full disk.
        let path = dir.path().join(files::CATALOG);
        let good = std::mem::replace(&mut catalog.state.lock().log, File::open(&path).unwrap());
        assert_eq!(catalog.number(&key(1)).unwrap(), 2);
        assert_eq!(catalog.number(&key(1)).unwrap(), 2);
        assert_eq!(catalog.find(&key(1)), Some(2));
        assert!(catalog.sync().is_err());
        catalog.state.lock().log = good;
        catalog.sync().unwrap();
        assert_eq!(catalog.number(&key(1)).unwrap(), 2);
        drop(catalog);
        assert_eq!(Catalog::open(dir.path()).unwrap().find(&key(1)), Some(2));
    }
}
