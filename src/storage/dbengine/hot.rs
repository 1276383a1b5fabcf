//! Hot blocks: the samples of the last minutes, in mapped files, one row a slot and one column a metric.
//!
//! A row of [`COLUMNS`] metrics is one page of memory, so a second of a thousand metrics dirties four kilobytes, once.
//! Storing a sample is one store into a shared mapping: no system call, no lock, and the kernel has it even if this
//! process dies in the next instruction. After [`SEAL_AFTER`] slots a row is sealed: its checksum is written and it
//! never changes again; what comes later goes the way of `late`. A block whose rows are all sealed is turned into a
//! segment by the flush thread and its file removed.
//!
//! Cells hold samples XOR the empty one, so space nobody wrote reads as gaps.
//!
//! Locks: a group's (columns and the list of its blocks), taken when a metric is opened, when a writer changes blocks,
//! by readers and by the service threads; never per sample. Layout: `docs/formats/dbengine.md`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::{Mutex, RwLock};

use super::files::{self, HotName};
use crate::base::number::Sample;
use crate::base::sys;
use crate::storage::map::Cells;

/// Slots of a block.
pub(super) const ROWS: u32 = 600;
/// Metrics of a group: a row is one page.
pub(super) const COLUMNS: usize = 1024;
/// Rows stay open for this many slots after their time.
pub(super) const SEAL_AFTER: i64 = 90;

const MAGIC: u32 = 0x4E44_4831;
const VERSION: u32 = 1;
// Words of the file: head page, column table, row checksums, rows.
const TABLE: usize = 1024;
const CHECKSUMS: usize = TABLE + 2 * COLUMNS;
const FIRST_ROW: usize = CHECKSUMS + 1024;
const WORDS: usize = FIRST_ROW + ROWS as usize * COLUMNS;
/// A metric number stands beside its mask, so that a damaged one is recognised.
const TABLE_MASK: u32 = 0x5AA5_3CC3;
/// Blocks a group keeps in memory alone while the disk is full; older ones are dropped.
const MEMORY_BLOCKS_MAX: usize = 6;

/// The block a slot lies in. Blocks end at multiples of their length, as the points of higher tiers do.
pub(super) fn block_of(ordinal: i64) -> Option<u32> {
    u32::try_from((ordinal - 1).div_euclid(i64::from(ROWS))).ok()
}

/// One file of rows.
pub(super) struct Block {
    pub(super) name: HotName,
    cells: Cells,
    /// `None`: in memory alone, because the disk was full.
    path: Option<PathBuf>,
    /// Rows below this one never change.
    sealed: AtomicU32,
    /// Rows below this one were given back to the kernel.
    forgotten: AtomicU32,
    /// Its metrics are in a segment; the file can go.
    pub(super) flushed: AtomicBool,
}

impl Block {
    fn create(directory: &Path, name: HotName) -> io::Result<Block> {
        let path = directory.join(name.file_name());
        let temporary = directory.join(format!("{}.tmp", name.file_name()));
        let made = (|| {
            let file = files::create(&temporary)?;
            sys::allocate(&file, (WORDS * 4) as u64)?;
            let cells = Cells::map(&file, WORDS)?;
            let block = Block::with(name, cells, Some(path.clone()));
            block.write_head();
            fs::rename(&temporary, &path)?;
            Ok(block)
        })();
        if made.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        made
    }

    fn in_memory(name: HotName) -> io::Result<Block> {
        Ok(Block::with(name, Cells::anonymous(WORDS)?, None))
    }

    fn with(name: HotName, cells: Cells, path: Option<PathBuf>) -> Block {
        Block {
            name,
            cells,
            path,
            sealed: AtomicU32::new(0),
            forgotten: AtomicU32::new(0),
            flushed: AtomicBool::new(false),
        }
    }

    fn head(name: HotName) -> [u32; 8] {
        let mut words =
            [MAGIC, VERSION, name.every, name.group, name.block, ROWS, COLUMNS as u32, 0];
        let bytes: Vec<u8> = words[..7].iter().flat_map(|word| word.to_le_bytes()).collect();
        words[7] = crc32fast::hash(&bytes);
        words
    }

    fn write_head(&self) {
        for (cell, word) in self.cells.cells().iter().zip(Block::head(self.name)) {
            cell.store(word.to_le(), Ordering::Release);
        }
    }

    /// Opens what an earlier run left. Sealed rows whose checksum does not hold are emptied and said.
    pub(super) fn recover(path: &Path, name: HotName) -> Result<Block, String> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| error.to_string())?;
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        if length < (WORDS * 4) as u64 {
            // Only rows can be missing; a file too short for its rows is given zeros, which are gaps.
            if length < (FIRST_ROW * 4) as u64 {
                return Err("it is too short".to_owned());
            }
            log::error!("DBENGINE: '{}' is cut short: its last rows are lost", path.display());
            sys::allocate(&file, (WORDS * 4) as u64).map_err(|error| error.to_string())?;
        }
        let cells = Cells::map(&file, WORDS).map_err(|error| error.to_string())?;
        let block = Block::with(name, cells, Some(path.to_owned()));
        let head_is_right = block
            .cells
            .cells()
            .iter()
            .zip(Block::head(name))
            .all(|(cell, word)| u32::from_le(cell.load(Ordering::Acquire)) == word);
        if !head_is_right {
            return Err("its head is not that of such a file".to_owned());
        }
        let mut lost = 0;
        for row in 0..ROWS {
            let known =
                u32::from_le(block.cells.cells()[CHECKSUMS + row as usize].load(Ordering::Acquire));
            if known != 0 && known != block.checksum(row) {
                lost += 1;
                for cell in block.row(row) {
                    cell.store(0, Ordering::Release);
                }
            }
        }
        if lost > 0 {
            log::error!(
                "DBENGINE: '{}' has {lost} damaged rows: their samples are lost",
                path.display()
            );
        }
        block.sealed.store(ROWS, Ordering::Release);
        Ok(block)
    }

    /// Ordinal (time divided by every) of the first slot.
    pub(super) fn first(&self) -> i64 {
        i64::from(self.name.block) * i64::from(ROWS) + 1
    }

    fn row(&self, row: u32) -> &[AtomicU32] {
        let start = FIRST_ROW + row as usize * COLUMNS;
        &self.cells.cells()[start..start + COLUMNS]
    }

    /// Never 0, which stands for "open".
    fn checksum(&self, row: u32) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        let mut bytes = [0u8; COLUMNS * 4];
        for (place, cell) in bytes.chunks_exact_mut(4).zip(self.row(row)) {
            // Cells hold little-endian words; these are the bytes of the file.
            place.copy_from_slice(&u32::from_le(cell.load(Ordering::Acquire)).to_le_bytes());
        }
        crc.update(&bytes);
        crc.finalize().max(1)
    }

    /// Stores a sample; false when its row is not, or no longer, of this block.
    #[inline]
    pub(super) fn put(&self, ordinal: i64, column: usize, sample: Sample) -> bool {
        let Ok(row) = u32::try_from(ordinal - self.first()) else { return false };
        if row >= ROWS || row < self.sealed.load(Ordering::Acquire) {
            return false;
        }
        let cell = &self.cells.cells()[FIRST_ROW + row as usize * COLUMNS + column];
        cell.store((sample.0 ^ Sample::EMPTY.0).to_le(), Ordering::Release);
        // The row may have been sealed just now: then the checksum may or may not cover it, and the sample must also
        // go the late way, where storing it once more does no harm.
        row >= self.sealed.load(Ordering::Acquire)
    }

    pub(super) fn get(&self, row: u32, column: usize) -> Sample {
        let cell = &self.cells.cells()[FIRST_ROW + row as usize * COLUMNS + column];
        Sample(u32::from_le(cell.load(Ordering::Acquire)) ^ Sample::EMPTY.0)
    }

    /// Seals all rows below `row`.
    fn seal_to(&self, row: u32) {
        let from = self.sealed.fetch_max(row, Ordering::AcqRel);
        for row in from..row {
            let checksum = self.checksum(row);
            self.cells.cells()[CHECKSUMS + row as usize].store(checksum.to_le(), Ordering::Release);
        }
        // Sealed rows are read rarely: their pages need not count as ours. In strides, a call a minute.
        let forgotten = self.forgotten.load(Ordering::Acquire);
        if self.path.is_some() && row >= forgotten + 60 {
            let start = FIRST_ROW + forgotten as usize * COLUMNS;
            self.cells.forget(start, (row - forgotten) as usize * COLUMNS);
            self.forgotten.store(row, Ordering::Release);
        }
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire) >= ROWS
    }

    fn name_column(&self, column: usize, metric: u32) {
        let cells = self.cells.cells();
        cells[TABLE + column * 2].store(metric.to_le(), Ordering::Release);
        cells[TABLE + column * 2 + 1].store((metric ^ TABLE_MASK).to_le(), Ordering::Release);
    }

    /// The metric of a column, if it has one and its number is whole.
    pub(super) fn metric(&self, column: usize) -> Option<u32> {
        let cells = self.cells.cells();
        let metric = u32::from_le(cells[TABLE + column * 2].load(Ordering::Acquire));
        let mask = u32::from_le(cells[TABLE + column * 2 + 1].load(Ordering::Acquire));
        (metric != 0 && mask == metric ^ TABLE_MASK).then_some(metric)
    }

    /// The samples of sixteen neighbouring columns, row by row, which is how they lie in memory.
    pub(super) fn gather(&self, first_column: usize, into: &mut [Vec<Sample>; 16]) {
        for column in into.iter_mut() {
            column.clear();
        }
        for row in 0..ROWS {
            let cells = &self.row(row)[first_column..first_column + 16];
            for (column, cell) in into.iter_mut().zip(cells) {
                column.push(Sample(u32::from_le(cell.load(Ordering::Acquire)) ^ Sample::EMPTY.0));
            }
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        if self.path.is_some() { self.cells.sync() } else { Ok(()) }
    }

    pub(super) fn remove(&self) {
        if let Some(path) = &self.path
            && let Err(error) = fs::remove_file(path)
        {
            log::error!("DBENGINE: cannot remove '{}': {error}", path.display());
        }
    }
}

/// The columns of up to [`COLUMNS`] metrics of one interval, over time.
pub(super) struct Group {
    pub(super) every: u32,
    number: u32,
    state: Mutex<GroupState>,
}

struct GroupState {
    /// Metric of each column; 0 = free.
    columns: Box<[u32]>,
    /// Columns given back, and the block from which on they may be used again.
    free: Vec<(u16, u32)>,
    /// Columns never used start here.
    fresh: u16,
    /// In order of time.
    blocks: Vec<Arc<Block>>,
}

impl Group {
    fn new(every: u32, number: u32) -> Group {
        let columns = vec![0u32; COLUMNS].into_boxed_slice();
        Group {
            every,
            number,
            state: Mutex::new(GroupState {
                columns,
                free: Vec::new(),
                fresh: 0,
                blocks: Vec::new(),
            }),
        }
    }

    /// A column for `metric`, unless all are taken.
    fn take_column(&self, metric: u32, block_now: u32) -> Option<u16> {
        let mut state = self.state.lock();
        let column = if usize::from(state.fresh) < COLUMNS {
            state.fresh += 1;
            state.fresh - 1
        } else {
            let oldest = state.blocks.first().map_or(block_now, |block| block.name.block);
            let reusable = state.free.iter().position(|&(_, from)| from < oldest)?;
            state.free.swap_remove(reusable).0
        };
        state.columns[usize::from(column)] = metric;
        for block in &state.blocks {
            block.name_column(usize::from(column), metric);
        }
        Some(column)
    }

    pub(super) fn give_back(&self, column: u16) {
        let mut state = self.state.lock();
        state.columns[usize::from(column)] = 0;
        let newest = state.blocks.last().map_or(0, |block| block.name.block);
        state.free.push((column, newest));
    }

    /// The block of a slot: an open one, or a new one if the slot lies in the present (`now` is the ordinal of the
    /// current slot). `None` sends the sample the late way.
    pub(super) fn block_for(&self, directory: &Path, ordinal: i64, now: i64) -> Option<Arc<Block>> {
        let number = block_of(ordinal)?;
        let mut state = self.state.lock();
        if let Some(block) = state.blocks.iter().find(|block| block.name.block == number) {
            return (!block.is_sealed()).then(|| Arc::clone(block));
        }
        if ordinal > now + i64::from(ROWS) || ordinal + SEAL_AFTER < now {
            return None;
        }
        if state.blocks.iter().any(|block| block.name.block > number) {
            // Its block was flushed already.
            return None;
        }
        let name = HotName { every: self.every, group: self.number, block: number };
        let block = match Block::create(directory, name) {
            Ok(block) => block,
            Err(error) => {
                log::error!(
                    "DBENGINE: cannot write in '{}': {error}. Samples are kept in memory until it works again.",
                    directory.display()
                );
                let in_memory = state.blocks.iter().filter(|block| block.path.is_none()).count();
                if in_memory >= MEMORY_BLOCKS_MAX
                    && let Some(oldest) = state.blocks.iter().position(|block| block.path.is_none())
                {
                    state.blocks.remove(oldest);
                    log::error!(
                        "DBENGINE: the disk is full for too long: the oldest samples in memory are dropped"
                    );
                }
                Block::in_memory(name).ok()?
            }
        };
        for (column, &metric) in state.columns.iter().enumerate() {
            if metric != 0 {
                block.name_column(column, metric);
            }
        }
        let block = Arc::new(block);
        state.blocks.push(Arc::clone(&block));
        state.blocks.sort_by_key(|block| block.name.block);
        Some(block)
    }

    pub(super) fn blocks(&self) -> Vec<Arc<Block>> {
        self.state.lock().blocks.clone()
    }

    fn drop_flushed(&self) {
        self.state.lock().blocks.retain(|block| !block.flushed.load(Ordering::Acquire));
    }
}

/// Where a metric is being written.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) group: Arc<Group>,
    pub(super) column: u16,
}

/// All hot blocks of a store.
pub(super) struct Hot {
    pub(super) directory: PathBuf,
    groups: RwLock<BTreeMap<u32, Vec<Arc<Group>>>>,
    /// Left by an earlier run: only read, and flushed soon.
    recovered: RwLock<Vec<Arc<Block>>>,
    /// Groups of this run are numbered from here, so that their files meet none of an earlier run.
    first_group: u32,
}

impl Hot {
    /// Finds what earlier runs left.
    pub(super) fn open(directory: &Path) -> io::Result<Hot> {
        let mut recovered = Vec::new();
        let mut first_group = 0;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let Some(name) =
                path.file_name().and_then(|name| name.to_str()).and_then(HotName::parse)
            else {
                continue;
            };
            first_group = first_group.max(name.group + 1);
            match Block::recover(&path, name) {
                Ok(block) => recovered.push(Arc::new(block)),
                Err(why) => files::set_aside(&path, &why),
            }
        }
        recovered.sort_by_key(|block| (block.name.block, block.name.group));
        Ok(Hot {
            directory: directory.to_owned(),
            groups: RwLock::default(),
            recovered: RwLock::new(recovered),
            first_group,
        })
    }

    /// A column for a metric, in the first group that has one.
    pub(super) fn place(&self, metric: u32, every: u32, block_now: u32) -> Place {
        let mut groups = self.groups.write();
        let of_every = groups.entry(every).or_default();
        for group in of_every.iter().rev() {
            if let Some(column) = group.take_column(metric, block_now) {
                return Place { group: Arc::clone(group), column };
            }
        }
        let number = self.first_group + u32::try_from(of_every.len()).unwrap_or(u32::MAX);
        let group = Arc::new(Group::new(every, number));
        let column = group.take_column(metric, block_now).unwrap_or(0);
        of_every.push(Arc::clone(&group));
        Place { group, column }
    }

    /// Calls `visit` for every block that has a column of `metric`, oldest first.
    pub(super) fn blocks_of(
        &self,
        metric: u32,
        place: Option<&Place>,
        visit: &mut dyn FnMut(&Block, usize),
    ) {
        let recovered = self.recovered.read().clone();
        for block in &recovered {
            for column in 0..COLUMNS {
                if block.metric(column) == Some(metric) {
                    visit(block, column);
                }
            }
        }
        if let Some(place) = place {
            for block in place.group.blocks() {
                if block.metric(usize::from(place.column)) == Some(metric) {
                    visit(&block, usize::from(place.column));
                }
            }
            return;
        }
        let groups: Vec<Arc<Group>> = self.groups.read().values().flatten().cloned().collect();
        for group in groups {
            for block in group.blocks() {
                for column in 0..COLUMNS {
                    if block.metric(column) == Some(metric) {
                        visit(&block, column);
                    }
                }
            }
        }
    }

    pub(super) fn all_blocks(&self) -> Vec<Arc<Block>> {
        let mut blocks = self.recovered.read().clone();
        blocks.extend(self.groups.read().values().flatten().flat_map(|group| group.blocks()));
        blocks
    }

    /// Seals the rows whose time has passed.
    pub(super) fn seal(&self, now_seconds: i64) {
        let groups: Vec<Arc<Group>> = self.groups.read().values().flatten().cloned().collect();
        for group in groups {
            let ordinal = now_seconds.div_euclid(i64::from(group.every)) - SEAL_AFTER;
            for block in group.blocks() {
                let rows = (ordinal - block.first()).clamp(0, i64::from(ROWS));
                block.seal_to(u32::try_from(rows).unwrap_or(0));
            }
        }
    }

    /// Seals everything, for a clean stop.
    pub(super) fn seal_all(&self) {
        for block in self.all_blocks() {
            block.seal_to(ROWS);
        }
    }

    /// Lets go of the blocks that are flushed and removes their files.
    pub(super) fn drop_flushed(&self) {
        let done: Vec<Arc<Block>> = self
            .all_blocks()
            .into_iter()
            .filter(|block| block.flushed.load(Ordering::Acquire))
            .collect();
        if done.is_empty() {
            return;
        }
        self.recovered.write().retain(|block| !block.flushed.load(Ordering::Acquire));
        for group in self.groups.read().values().flatten() {
            group.drop_flushed();
        }
        for block in done {
            block.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_401;

    fn read(hot: &Hot, metric: u32, place: Option<&Place>) -> Vec<(i64, f64)> {
        let mut seen = Vec::new();
        hot.blocks_of(metric, place, &mut |block, column| {
            for row in 0..ROWS {
                if let Some(value) = block.get(row, column).value() {
                    seen.push((block.first() + i64::from(row), value));
                }
            }
        });
        seen
    }

    fn store(hot: &Hot, place: &Place, at: i64, value: f64) -> bool {
        place
            .group
            .block_for(&hot.directory, at, NOW)
            .is_some_and(|block| block.put(at, usize::from(place.column), Sample::normal(value)))
    }

    #[test]
    fn samples_survive_a_process_that_just_stops() {
        let dir = tempfile::tempdir().unwrap();
        {
            let hot = Hot::open(dir.path()).unwrap();
            let places: Vec<_> = (1..=2000).map(|metric| hot.place(metric, 1, 0)).collect();
            for (metric, place) in places.iter().enumerate() {
                assert!(store(&hot, place, NOW, metric as f64 + 1.0));
                assert!(store(&hot, place, NOW + 1, 5.0));
            }
            assert_eq!(read(&hot, 1500, Some(&places[1499])), [(NOW, 1500.0), (NOW + 1, 5.0)]);
        }
        let hot = Hot::open(dir.path()).unwrap();
        for metric in [1, 1024, 1025, 2000] {
            assert_eq!(
                read(&hot, metric, None),
                [(NOW, f64::from(metric)), (NOW + 1, 5.0)],
                "{metric}"
            );
        }
    }

    #[test]
    fn a_sealed_row_takes_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let hot = Hot::open(dir.path()).unwrap();
        let place = hot.place(1, 1, 0);
        assert!(store(&hot, &place, NOW, 1.0));
        hot.seal(NOW + SEAL_AFTER + 1);
        assert!(!store(&hot, &place, NOW, 2.0));
        assert!(store(&hot, &place, NOW + 1, 3.0));
    }

    #[test]
    fn a_flipped_bit_costs_its_row_and_an_open_row_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = {
            let hot = Hot::open(dir.path()).unwrap();
            let place = hot.place(1, 1, 0);
            for at in NOW..NOW + 5 {
                store(&hot, &place, at, 7.0);
            }
            hot.seal(NOW + SEAL_AFTER + 3);
            dir.path().join(hot.all_blocks()[0].name.file_name())
        };
        let mut bytes = fs::read(&path).unwrap();
        let row = usize::try_from((NOW - 1) % i64::from(ROWS)).unwrap() + 1;
        bytes[(FIRST_ROW + row * COLUMNS) * 4] ^= 1;
        fs::write(&path, bytes).unwrap();
        let hot = Hot::open(dir.path()).unwrap();
        assert_eq!(
            read(&hot, 1, None),
            [(NOW, 7.0), (NOW + 2, 7.0), (NOW + 3, 7.0), (NOW + 4, 7.0)]
        );
    }

    #[test]
    fn slots_of_the_far_future_and_past_have_no_row() {
        let dir = tempfile::tempdir().unwrap();
        let hot = Hot::open(dir.path()).unwrap();
        let place = hot.place(1, 1, 0);
        assert!(!store(&hot, &place, NOW + 100_000, 1.0));
        assert!(!store(&hot, &place, NOW - 100_000, 1.0));
    }
}
