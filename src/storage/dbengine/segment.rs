//! Segments: finished files of pages, with a sorted index at the end. Written once, renamed into place, mapped for
//! reading, never changed.
//!
//! Every page says itself what it holds and carries a checksum, so a segment without a usable index is read by walking
//! its pages, and a damaged page costs itself only. Layout: `docs/formats/dbengine.md`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use memmap2::Mmap;

use super::files::{self, SegmentName};
use crate::base::stats::{STATS, count};
use crate::storage::map;

const MAGIC: &[u8; 8] = b"NDRSSEG2";
const END_MAGIC: &[u8; 8] = b"NDRSEND2";
const HEADER: usize = 16;
pub(super) const PAGE_HEADER: usize = 24;
const ENTRY: usize = 16;
/// Entries that share a checksum: a look-up reads and checks one such block, whatever the size of the index.
const BLOCK: usize = 256;
/// Of a block: its first metric and its checksum.
const FENCE: usize = 8;
const TRAILER: usize = 32;

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageKey {
    pub(super) metric: u32,
    /// Time of the first slot, in seconds; a multiple of `every`.
    pub(super) start: u32,
    pub(super) every: u32,
    /// Slots.
    pub(super) count: u16,
}

impl PageKey {
    /// Time of the last slot.
    pub(super) fn last(&self) -> u32 {
        self.start
            .saturating_add(u32::from(self.count).saturating_sub(1).saturating_mul(self.every))
    }
}

/// A page found in a segment, its checksum verified.
pub(super) struct Page<'a> {
    pub(super) key: PageKey,
    pub(super) payload: &'a [u8],
}

// --- writing --------------------------------------------------------------------------------------

/// A segment being written.
pub(super) struct SegmentWriter {
    out: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    at: u64,
    /// `(metric, start, last, offset)` of every page.
    index: Vec<[u32; 4]>,
}

impl SegmentWriter {
    pub(super) fn create(directory: &Path, name: SegmentName) -> io::Result<SegmentWriter> {
        let path = directory.join(name.file_name());
        let temporary = directory.join(format!("{}.tmp", name.file_name()));
        let mut out = BufWriter::with_capacity(256 * 1024, files::create(&temporary)?);
        let mut header = [0u8; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&name.every.to_le_bytes());
        let own = crc32fast::hash(&header[..12]);
        header[12..].copy_from_slice(&own.to_le_bytes());
        out.write_all(&header)?;
        Ok(SegmentWriter { out, temporary, path, at: HEADER as u64, index: Vec::new() })
    }

    pub(super) fn add(&mut self, key: PageKey, payload: &[u8]) -> io::Result<()> {
        let header = page_header(key, payload);
        self.out.write_all(&header)?;
        self.out.write_all(payload)?;
        let offset = u32::try_from(self.at).map_err(|_| io::Error::other("segment too large"))?;
        self.index.push([key.metric, key.start, key.last(), offset]);
        self.at += (PAGE_HEADER + payload.len()) as u64;
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Completes the file and gives it its name; it is on the disk when this returns.
    pub(super) fn finish(mut self) -> io::Result<PathBuf> {
        self.index.sort_unstable();
        let mut fences = Vec::with_capacity(self.index.len().div_ceil(BLOCK) * FENCE);
        let mut bytes = Vec::with_capacity(BLOCK * ENTRY);
        for block in self.index.chunks(BLOCK) {
            bytes.clear();
            bytes.extend(block.iter().flatten().flat_map(|word| word.to_le_bytes()));
            fences.extend_from_slice(&block[0][0].to_le_bytes());
            fences.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
            self.out.write_all(&bytes)?;
        }
        self.out.write_all(&fences)?;
        let mut trailer = [0u8; TRAILER];
        trailer[..8].copy_from_slice(END_MAGIC);
        trailer[8..16].copy_from_slice(&self.at.to_le_bytes());
        let entries = u32::try_from(self.index.len()).map_err(io::Error::other)?;
        trailer[16..20].copy_from_slice(&entries.to_le_bytes());
        // Sorted by metric, so the last one's is the highest.
        let highest = self.index.last().map_or(0, |entry| entry[0]);
        trailer[20..24].copy_from_slice(&highest.to_le_bytes());
        trailer[24..28].copy_from_slice(&crc32fast::hash(&fences).to_le_bytes());
        let own = crc32fast::hash(&trailer[..28]);
        trailer[28..].copy_from_slice(&own.to_le_bytes());
        self.out.write_all(&trailer)?;
        self.out.flush()?;
        files::publish(self.out.get_ref(), &self.temporary, &self.path)?;
        Ok(std::mem::take(&mut self.path))
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        // Unfinished: nobody may mistake it for a segment. (After `finish` the name is gone already.)
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn page_header(key: PageKey, payload: &[u8]) -> [u8; PAGE_HEADER] {
    let mut header = [0u8; PAGE_HEADER];
    header[..4].copy_from_slice(&key.metric.to_le_bytes());
    header[4..8].copy_from_slice(&key.start.to_le_bytes());
    header[8..12].copy_from_slice(&key.every.to_le_bytes());
    header[12..14].copy_from_slice(&key.count.to_le_bytes());
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    header[16..20].copy_from_slice(&length.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..20]);
    crc.update(payload);
    header[20..].copy_from_slice(&crc.finalize().to_le_bytes());
    header
}

// --- reading --------------------------------------------------------------------------------------

/// A finished segment, mapped.
pub(super) struct Segment {
    pub(super) name: SegmentName,
    path: PathBuf,
    map: Mmap,
    /// Found and checked at the first question, so that opening a store costs nothing per metric.
    index: OnceLock<Option<MappedIndex>>,
    /// Put together from the pages, because the file's own is damaged.
    rebuilt: OnceLock<Vec<[u32; 4]>>,
    /// When its newest samples were flushed, in unix seconds, if that was in this run; else 0.
    flushed_s: i64,
    /// When it came, in the clock's monotonic microseconds, if that was in this run; else 0.
    since_us: i64,
    /// What ends before this second is older than the tier keeps, though the segment is not.
    kept_from: AtomicU32,
    /// A page was damaged: said once per segment.
    complained: AtomicBool,
}

/// The index within the file; its fences are whole, its blocks are checked when they are first read.
struct MappedIndex {
    offset: usize,
    entries: usize,
    /// A bit per block.
    checked: Box<[AtomicU64]>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("cannot read it")]
    Io(#[from] io::Error),
    #[error("it is no segment")]
    NotASegment,
}

impl Segment {
    pub(super) fn open(path: &Path, name: SegmentName) -> Result<Segment, OpenError> {
        let file = File::open(path)?;
        if file.metadata()?.len() < HEADER as u64 {
            return Err(OpenError::NotASegment);
        }
        let map = map::read_only(&file)?;
        let header = map.get(..HEADER).ok_or(OpenError::NotASegment)?;
        if &header[..8] != MAGIC {
            return Err(OpenError::NotASegment);
        }
        Ok(Segment {
            name,
            path: path.to_owned(),
            map,
            index: OnceLock::new(),
            rebuilt: OnceLock::new(),
            flushed_s: 0,
            since_us: 0,
            kept_from: AtomicU32::new(0),
            complained: AtomicBool::new(false),
        })
    }

    /// As one that came at `since_us` and whose newest samples were flushed at `flushed_s`.
    pub(super) fn flushed_at(self, flushed_s: i64, since_us: i64) -> Segment {
        Segment { flushed_s, since_us, ..self }
    }

    pub(super) fn flushed_s(&self) -> i64 {
        self.flushed_s
    }

    pub(super) fn since_us(&self) -> i64 {
        self.since_us
    }

    /// From now on what is older is not told of: a file is deleted as a whole, when all of it is.
    pub(super) fn keep_from(&self, seconds: i64) {
        self.kept_from.store(u32::try_from(seconds.max(0)).unwrap_or(0), Ordering::Release);
    }

    pub(super) fn kept_from(&self) -> u32 {
        self.kept_from.load(Ordering::Acquire)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    fn index(&self) -> Option<&MappedIndex> {
        self.index.get_or_init(|| self.mapped_index()).as_ref()
    }

    /// The end of the file, if it is as it was written: where the index begins, its entries, the checksum of its fences,
    /// and the highest metric number in it.
    fn trailer(&self) -> Option<(usize, usize, u32, u32)> {
        let at = self.map.len().checked_sub(TRAILER)?;
        let trailer = self.map.get(at..)?;
        if &trailer[..8] != END_MAGIC || u32_at(trailer, 28)? != crc32fast::hash(&trailer[..28]) {
            return None;
        }
        let offset = usize::try_from(u64_at(trailer, 8)?).ok()?;
        let entries = u32_at(trailer, 16)? as usize;
        let fences = entries.div_ceil(BLOCK) * FENCE;
        let fits = offset.checked_add(entries.checked_mul(ENTRY)?)?.checked_add(fences)? == at;
        fits.then_some((offset, entries, u32_at(trailer, 24)?, u32_at(trailer, 20)?))
    }

    /// The index's place, if trailer and fences are whole.
    fn mapped_index(&self) -> Option<MappedIndex> {
        let (offset, entries, checksum, _) = self.trailer()?;
        let blocks = entries.div_ceil(BLOCK);
        let fences = offset + entries * ENTRY;
        if crc32fast::hash(self.map.get(fences..fences + blocks * FENCE)?) != checksum {
            return None;
        }
        let checked = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Some(MappedIndex { offset, entries, checked })
    }

    /// The highest metric number among its pages. Costs a look at the end of the file, unless that is damaged.
    pub(super) fn highest_metric(&self) -> u32 {
        match self.trailer() {
            Some((.., highest)) => highest,
            None => self.rebuilt().last().map_or(0, |entry| entry[0]),
        }
    }

    fn rebuilt(&self) -> &[[u32; 4]] {
        self.rebuilt.get_or_init(|| {
            let found = self.walk();
            count(&STATS.store_damaged);
            log::error!(
                "DBENGINE: '{}' has a damaged index: read again from its pages, {} found",
                self.path.display(),
                found.len()
            );
            found
        })
    }

    /// The bytes of a block of the index; `None` when it is damaged.
    fn block(&self, index: &MappedIndex, number: usize) -> Option<&[u8]> {
        let from = index.offset + number * BLOCK * ENTRY;
        let count = BLOCK.min(index.entries.checked_sub(number * BLOCK)?);
        let bytes = self.map.get(from..from + count * ENTRY)?;
        let (word, bit) = (index.checked.get(number / 64)?, 1u64 << (number % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            if crc32fast::hash(bytes) != self.fence(index, number)?[1] {
                return None;
            }
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Some(bytes)
    }

    /// First metric and checksum of a block.
    fn fence(&self, index: &MappedIndex, number: usize) -> Option<[u32; 2]> {
        let at = index.offset + index.entries * ENTRY + number * FENCE;
        let bytes = self.map.get(at..at + FENCE)?;
        Some([u32_at(bytes, 0)?, u32_at(bytes, 4)?])
    }

    /// Calls `visit` for the entries of `metric` in order of time until it says stop; false when a block is damaged.
    fn entries_mapped(
        &self,
        index: &MappedIndex,
        metric: u32,
        visit: &mut dyn FnMut([u32; 4]) -> bool,
    ) -> bool {
        let blocks = index.entries.div_ceil(BLOCK);
        // The last block that begins before the metric does may end with it.
        let (mut low, mut high) = (0, blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.fence(index, middle) {
                Some([first, _]) if first < metric => low = middle + 1,
                _ => high = middle,
            }
        }
        for number in low.saturating_sub(1)..blocks {
            if self.fence(index, number).is_none_or(|[first, _]| first > metric) {
                return true;
            }
            let Some(bytes) = self.block(index, number) else { return false };
            let count = bytes.len() / ENTRY;
            let metric_of = |entry: usize| u32_at(bytes, entry * ENTRY).unwrap_or(u32::MAX);
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = low + (high - low) / 2;
                if metric_of(middle) < metric { low = middle + 1 } else { high = middle }
            }
            for entry in (low..count).filter_map(|entry| entry_at(bytes, entry)) {
                if entry[0] != metric || !visit(entry) {
                    return true;
                }
            }
        }
        true
    }

    /// Calls `visit` for the entries of `metric` in order of time, until it says stop.
    fn entries(&self, metric: u32, visit: &mut dyn FnMut([u32; 4]) -> bool) {
        if self.rebuilt.get().is_none()
            && let Some(index) = self.index()
        {
            let mut seen = 0usize;
            let whole = self.entries_mapped(index, metric, &mut |entry| {
                seen += 1;
                visit(entry)
            });
            // Damage shows before anything of its block was visited, but earlier blocks may have been.
            if whole {
                return;
            }
            let rebuilt = self.rebuilt();
            let from = rebuilt.partition_point(|entry| entry[0] < metric);
            let rest = rebuilt[from..].iter().take_while(|entry| entry[0] == metric).skip(seen);
            for &entry in rest {
                if !visit(entry) {
                    return;
                }
            }
            return;
        }
        let rebuilt = self.rebuilt();
        let from = rebuilt.partition_point(|entry| entry[0] < metric);
        for &entry in rebuilt[from..].iter().take_while(|entry| entry[0] == metric) {
            if !visit(entry) {
                return;
            }
        }
    }

    /// All pages whose checksum holds, found without the index.
    fn walk(&self) -> Vec<[u32; 4]> {
        let mut found = Vec::new();
        let mut at = HEADER;
        while let Some(header) = self.map.get(at..at + PAGE_HEADER) {
            match self.page_at(at) {
                Some(page) => {
                    let offset = u32::try_from(at).unwrap_or(u32::MAX);
                    found.push([page.key.metric, page.key.start, page.key.last(), offset]);
                    at += PAGE_HEADER + page.payload.len();
                }
                // Its length may still be right; if not, the next checksum fails too and the walk ends soon.
                None => match u32_at(header, 16).map(|length| length as usize) {
                    Some(length) if length > 0 && at + PAGE_HEADER + length < self.map.len() => {
                        at += PAGE_HEADER + length
                    }
                    _ => break,
                },
            }
        }
        found.sort_unstable();
        found
    }

    fn page_at(&self, at: usize) -> Option<Page<'_>> {
        let header = self.map.get(at..at.checked_add(PAGE_HEADER)?)?;
        let key = PageKey {
            metric: u32_at(header, 0)?,
            start: u32_at(header, 4)?,
            every: u32_at(header, 8)?,
            count: u16::from_le_bytes([header[12], header[13]]),
        };
        let from = at + PAGE_HEADER;
        let payload = self.map.get(from..from.checked_add(u32_at(header, 16)? as usize)?)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[..20]);
        crc.update(payload);
        (key.every > 0 && u32_at(header, 20)? == crc.finalize()).then_some(Page { key, payload })
    }

    /// Calls `visit` for the pages of `metric` that reach into `from..=to` seconds.
    pub(super) fn pages<'a>(
        &'a self,
        metric: u32,
        from: u32,
        to: u32,
        visit: &mut dyn FnMut(Page<'a>),
    ) {
        self.entries(metric, &mut |entry| {
            if entry[1] > to {
                return false;
            }
            if entry[2] >= from
                && let Some(page) = self.checked(entry)
            {
                visit(page);
            }
            true
        });
    }

    /// First and last slot of a metric, without touching its pages.
    pub(super) fn span(&self, metric: u32) -> Option<(u32, u32)> {
        let mut span: Option<(u32, u32)> = None;
        self.entries(metric, &mut |entry| {
            span =
                Some(span.map_or((entry[1], entry[2]), |(from, to)| {
                    (from.min(entry[1]), to.max(entry[2]))
                }));
            true
        });
        let kept_from = self.kept_from();
        let first_kept = |from: u32| {
            let every = self.name.every.max(1);
            from.saturating_add(
                kept_from.saturating_sub(from).div_ceil(every).saturating_mul(every),
            )
        };
        span.filter(|&(_, to)| to >= kept_from).map(|(from, to)| (first_kept(from), to))
    }

    /// Appends the metrics it has pages of, each once.
    pub(super) fn metrics(&self, into: &mut Vec<u32>) {
        let mut add = |metric: u32| {
            if into.last() != Some(&metric) {
                into.push(metric);
            }
        };
        if self.rebuilt.get().is_none()
            && let Some(index) = self.index()
        {
            let blocks = index.entries.div_ceil(BLOCK);
            if (0..blocks).all(|number| self.block(index, number).is_some()) {
                for bytes in (0..blocks).filter_map(|number| self.block(index, number)) {
                    for entry in bytes.chunks_exact(ENTRY) {
                        add(u32_at(entry, 0).unwrap_or(0));
                    }
                }
                return;
            }
        }
        for entry in self.rebuilt() {
            add(entry[0]);
        }
    }

    /// Its end is as it was written: no part of it is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.mapped_index().is_some()
    }

    fn checked(&self, [metric, start, _, offset]: [u32; 4]) -> Option<Page<'_>> {
        let page = self
            .page_at(offset as usize)
            .filter(|page| page.key.metric == metric && page.key.start == start);
        if page.is_none() && !self.complained.swap(true, Ordering::Relaxed) {
            count(&STATS.store_damaged);
            log::error!(
                "DBENGINE: '{}' has a damaged page of metric {metric} at {start}: its samples are lost",
                self.path.display()
            );
        }
        page
    }
}

fn entry_at(bytes: &[u8], number: usize) -> Option<[u32; 4]> {
    let bytes = bytes.get(number * ENTRY..(number + 1) * ENTRY)?;
    Some([u32_at(bytes, 0)?, u32_at(bytes, 4)?, u32_at(bytes, 8)?, u32_at(bytes, 12)?])
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: SegmentName = SegmentName { every: 1, window: 3, sequence: 9, level: 0 };

    fn written() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::create(dir.path(), NAME).unwrap();
        for metric in [7, 3, 5] {
            for start in [200, 100] {
                let key = PageKey { metric, start, every: 1, count: 50 };
                writer.add(key, format!("{metric}@{start}").as_bytes()).unwrap();
            }
        }
        let path = writer.finish().unwrap();
        (dir, path)
    }

    fn found(segment: &Segment, metric: u32, from: u32, to: u32) -> Vec<String> {
        let mut seen = Vec::new();
        segment.pages(metric, from, to, &mut |page| {
            seen.push(String::from_utf8_lossy(page.payload).into_owned())
        });
        seen
    }

    #[test]
    fn pages_are_found_by_metric_and_time() {
        let (_dir, path) = written();
        let segment = Segment::open(&path, NAME).unwrap();
        assert_eq!(found(&segment, 5, 0, 1000), ["5@100", "5@200"]);
        assert_eq!(found(&segment, 5, 150, 1000), ["5@200"]);
        assert_eq!(found(&segment, 5, 149, 199), ["5@100"]);
        assert_eq!(found(&segment, 4, 0, 1000), [""; 0]);
        assert_eq!(segment.span(7), Some((100, 249)));
    }

    #[test]
    fn a_damaged_index_is_put_together_again() {
        let (_dir, path) = written();
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len();
        bytes.truncate(end - 40);
        fs::write(&path, &bytes).unwrap();
        let segment = Segment::open(&path, NAME).unwrap();
        assert_eq!(found(&segment, 3, 0, 1000), ["3@100", "3@200"]);
        assert_eq!(found(&segment, 7, 0, 1000), ["7@100", "7@200"]);
    }

    #[test]
    fn metrics_are_found_in_an_index_of_many_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::create(dir.path(), NAME).unwrap();
        // Metric 500 alone fills more than a block.
        for metric in (2..2000).step_by(2) {
            for start in 0..if metric == 500 { 600 } else { 1 } {
                let key = PageKey { metric, start: 100 + start, every: 1, count: 1 };
                writer.add(key, format!("{metric}").as_bytes()).unwrap();
            }
        }
        let path = writer.finish().unwrap();
        let check = |segment: &Segment| {
            for metric in 0..2002 {
                let wanted = match metric {
                    500 => 600,
                    0 | 2000.. => 0,
                    _ => 1 - metric as usize % 2,
                };
                assert_eq!(found(segment, metric, 0, 1000).len(), wanted, "{metric}");
            }
            let mut metrics = Vec::new();
            segment.metrics(&mut metrics);
            assert_eq!(metrics, (2..2000).step_by(2).collect::<Vec<u32>>());
        };
        check(&Segment::open(&path, NAME).unwrap());
        // Damage in the middle of the index shows while a metric is being read.
        let mut bytes = fs::read(&path).unwrap();
        let index = bytes.len() - TRAILER - 1598usize.div_ceil(BLOCK) * FENCE - 1598 * ENTRY;
        bytes[index + (BLOCK + 200) * ENTRY] ^= 4;
        fs::write(&path, &bytes).unwrap();
        check(&Segment::open(&path, NAME).unwrap());
    }

    #[test]
    fn any_flipped_bit_costs_at_most_one_page() {
        let (dir, path) = written();
        let whole = fs::read(&path).unwrap();
        for bit in (HEADER * 8)..(whole.len() * 8) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let other = dir.path().join("flipped");
            fs::write(&other, &bytes).unwrap();
            let segment = Segment::open(&other, NAME).unwrap();
            let left: usize =
                [3, 5, 7].iter().map(|&metric| found(&segment, metric, 0, 1000).len()).sum();
            assert!(left >= 5, "bit {bit}: {left} pages left");
        }
    }
}
