//! Hot blocks: the samples of the last minutes, in mapped files, one row a slot and one column a metric.
//!
//! A row of [`COLUMNS`] metrics is one page of memory, so a second of a thousand metrics dirties four kilobytes, once.
//! Storing a sample is one store into a shared mapping: no system call, no lock, and the kernel has it even if this
//! process dies in the next instruction. After [`SEAL_AFTER`] slots a row is sealed: what comes later goes the way of
//! `late`. A block whose rows are all sealed is turned into a segment by the flush thread and its file removed.
//!
//! A row carries its own checksum, so that both are written back together or not at all. While samples come the row is
//! open and believed as it is; once it is found unchanged for a tick it gets its checksum, and loses it again when one
//! more sample comes. So no instant of a crash makes a good row look damaged.
//!
//! Cells hold samples XOR the empty one, so space nobody wrote reads as gaps.
//!
//! Locks: a group's (columns and the list of its blocks), taken when a metric is opened, when a writer changes blocks,
//! by readers and by the service threads; never per sample. Layout: `docs/formats/dbengine.md`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use super::files::{self, HotName};
use crate::base::number::Sample;
use crate::base::stats::{STATS, count};
use crate::base::sys;
use crate::storage::map::Cells;

/// Slots of a block.
pub(super) const ROWS: u32 = 600;
/// Metrics of a group: with its head, a row is one page.
pub(super) const COLUMNS: usize = 1008;
/// Rows stay open for this many slots after their time.
pub(super) const SEAL_AFTER: i64 = 90;

const MAGIC: u32 = 0x4E44_4831;
const VERSION: u32 = 1;
/// In the head page, a bit per row: it was found at rest with samples in it, so it cannot be all zeros.
const FILLED: usize = 16;
// Words of the file: head page, column table, rows. Of a row: its head (one line of the cache), its cells.
const TABLE: usize = 1024;
const FIRST_ROW: usize = TABLE + 2048;
const ROW_HEAD: usize = 16;
const ROW_WORDS: usize = ROW_HEAD + COLUMNS;
const WORDS: usize = FIRST_ROW + ROWS as usize * ROW_WORDS;
// The first word of a row: 0 = open, else a checksum whose lowest bits say whether it counts.
const STATE_MASK: u32 = 3;
/// Written a tick ago at most; a sample may have slipped in.
const TENTATIVE: u32 = 1;
/// The cells have not changed since.
const SETTLED: u32 = 2;
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
    /// Of an earlier run: only read.
    pub(super) recovered: bool,
    /// Rows below this one take no more samples.
    sealed: AtomicU32,
    /// Rows below this one are sealed and have their checksum.
    marked: AtomicU32,
    /// Rows below this one were given back to the kernel.
    forgotten: AtomicU32,
    /// No row above this one was written.
    reach: AtomicU32,
    /// Its samples are in a segment.
    pub(super) flushed: AtomicBool,
    /// And in the tiers above: the file can go.
    pub(super) derived: AtomicBool,
}

/// Why a block of an earlier run is not there.
pub(super) enum Unusable {
    Damaged(&'static str),
    Unreadable(io::Error),
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
            recovered: false,
            sealed: AtomicU32::new(0),
            marked: AtomicU32::new(0),
            forgotten: AtomicU32::new(0),
            reach: AtomicU32::new(0),
            flushed: AtomicBool::new(false),
            derived: AtomicBool::new(false),
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

    /// Opens what an earlier run left. What does not hold is emptied, in memory only, and said in one line.
    pub(super) fn recover(path: &Path, name: HotName) -> Result<Block, Unusable> {
        let file = File::open(path).map_err(Unusable::Unreadable)?;
        let length = file.metadata().map_err(Unusable::Unreadable)?.len();
        let mut wrong = Vec::new();
        let cells = if length < (WORDS * 4) as u64 {
            // Only rows can be missing, which are then gaps.
            if length < (FIRST_ROW * 4) as u64 {
                return Err(Unusable::Damaged("it is too short"));
            }
            wrong.push("it is cut short".to_owned());
            read_short(&file, length).map_err(Unusable::Unreadable)?
        } else {
            Cells::private(&file, WORDS).map_err(Unusable::Unreadable)?
        };
        let block = Block { recovered: true, ..Block::with(name, cells, Some(path.to_owned())) };
        let head: Vec<u32> = block.cells.cells()[..8].iter().map(load).collect();
        if head.iter().all(|&word| word == 0) {
            // The name says the same. After a power cut it may never have been written.
            wrong.push("its head is empty".to_owned());
        } else if head != Block::head(name) {
            return Err(Unusable::Damaged("its head is not that of such a file"));
        }
        let mut rows = 0;
        let mut used = vec![0u32; COLUMNS];
        for row in 0..ROWS {
            let known = load(block.check(row));
            let settled = known & STATE_MASK == SETTLED;
            let gone = block.is_filled(row)
                && known == 0
                && block.row(row).iter().all(|cell| load(cell) == 0);
            if gone
                || known & STATE_MASK == STATE_MASK
                || settled && known != block.checksum(row) | SETTLED
            {
                rows += 1;
                for cell in block.row(row) {
                    cell.store(0, Ordering::Release);
                }
                continue;
            }
            for (used, cell) in used.iter_mut().zip(block.row(row)) {
                *used |= load(cell);
            }
        }
        let nameless = |column: &usize| used[*column] != 0 && block.metric(*column).is_none();
        let columns = (0..COLUMNS).filter(nameless).count();
        if rows > 0 {
            wrong.push(format!("{rows} of its rows do not hold"));
        }
        if columns > 0 {
            wrong.push(format!("{columns} of its columns have no metric"));
        }
        if !wrong.is_empty() {
            count(&STATS.store_damaged);
            log::error!(
                "DBENGINE: '{}' is damaged ({}): the samples that stood there are lost",
                path.display(),
                wrong.join(", ")
            );
        }
        for watermark in [&block.sealed, &block.marked, &block.forgotten] {
            watermark.store(ROWS, Ordering::Release);
        }
        block.reach.store(ROWS - 1, Ordering::Release);
        Ok(block)
    }

    /// Ordinal (time divided by every) of the first slot.
    pub(super) fn first(&self) -> i64 {
        i64::from(self.name.block) * i64::from(ROWS) + 1
    }

    fn row(&self, row: u32) -> &[AtomicU32] {
        let start = FIRST_ROW + row as usize * ROW_WORDS + ROW_HEAD;
        &self.cells.cells()[start..start + COLUMNS]
    }

    /// The word of a row that says whether and how it is checked.
    fn check(&self, row: u32) -> &AtomicU32 {
        &self.cells.cells()[FIRST_ROW + row as usize * ROW_WORDS]
    }

    fn is_filled(&self, row: u32) -> bool {
        load(&self.cells.cells()[FILLED + row as usize / 32]) >> (row % 32) & 1 == 1
    }

    /// Of a row's cells, without the bits of its state.
    fn checksum(&self, row: u32) -> u32 {
        let mut bytes = [0u8; COLUMNS * 4];
        for (place, cell) in bytes.chunks_exact_mut(4).zip(self.row(row)) {
            // Cells hold little-endian words; these are the bytes of the file.
            place.copy_from_slice(&load(cell).to_le_bytes());
        }
        crc32fast::hash(&bytes) & !STATE_MASK
    }

    /// Stores a sample; false when its row is not, or no longer, of this block.
    #[inline]
    pub(super) fn put(&self, ordinal: i64, column: usize, sample: Sample) -> bool {
        let Ok(row) = u32::try_from(ordinal - self.first()) else { return false };
        if row >= ROWS || row < self.sealed.load(Ordering::Acquire) {
            return false;
        }
        let cells = self.cells.cells();
        let start = FIRST_ROW + row as usize * ROW_WORDS;
        // The row is open from before the sample is stored, so a crash in between costs nothing; and after it, in case
        // it was being checked meanwhile.
        let check = &cells[start];
        if check.load(Ordering::Acquire) != 0 {
            check.store(0, Ordering::Release);
        }
        cells[start + ROW_HEAD + column]
            .store((sample.0 ^ Sample::EMPTY.0).to_le(), Ordering::Release);
        if row > self.reach.load(Ordering::Acquire) {
            self.reach.fetch_max(row, Ordering::AcqRel);
        }
        if check.load(Ordering::Acquire) != 0 {
            check.store(0, Ordering::Release);
        }
        // The row may have been sealed just now, and the flush may have passed: then the sample must also go the late
        // way, where storing it once more does no harm.
        row >= self.sealed.load(Ordering::Acquire)
    }

    /// The last row that may hold anything.
    pub(super) fn reach(&self) -> u32 {
        self.reach.load(Ordering::Acquire)
    }

    pub(super) fn get(&self, row: u32, column: usize) -> Sample {
        Sample(load(&self.row(row)[column]) ^ Sample::EMPTY.0)
    }

    /// Takes no more samples in rows below `row`.
    fn seal_to(&self, row: u32) {
        self.sealed.fetch_max(row, Ordering::AcqRel);
    }

    /// Gives rows below `until` that were left alone since the last tick their checksum.
    fn mark(&self, until: u32) {
        if self.path.is_none() || self.recovered {
            return;
        }
        let sealed = self.sealed.load(Ordering::Acquire);
        let from = self.marked.load(Ordering::Acquire);
        let mut marked = from;
        for row in from..until.max(sealed).min(ROWS) {
            let check = self.check(row);
            let known = check.load(Ordering::Acquire);
            let word = u32::from_le(known);
            let mut done = word & STATE_MASK == SETTLED;
            if !done {
                let empty = self.row(row).iter().all(|cell| cell.load(Ordering::Acquire) == 0);
                let sum = self.checksum(row);
                let next = match word & STATE_MASK {
                    0 if empty => 0,
                    0 => sum | TENTATIVE,
                    _ if word & !STATE_MASK == sum => sum | SETTLED,
                    _ => 0,
                };
                done = empty || next & STATE_MASK == SETTLED;
                if next != word {
                    // A writer that came between has set it to 0, and that stays.
                    let (order, failed) = (Ordering::AcqRel, Ordering::Acquire);
                    done &= check.compare_exchange(known, next.to_le(), order, failed).is_ok();
                    if next & STATE_MASK == SETTLED {
                        let filled = &self.cells.cells()[FILLED + row as usize / 32];
                        filled.fetch_or((1u32 << (row % 32)).to_le(), Ordering::AcqRel);
                    }
                }
            }
            if done && row == marked && row < sealed {
                marked = row + 1;
            }
        }
        self.marked.store(marked, Ordering::Release);
        // Such rows are read rarely: their pages need not count as ours. In strides, a call a minute.
        let forgotten = self.forgotten.load(Ordering::Acquire);
        if marked >= forgotten + 60 {
            let start = FIRST_ROW + forgotten as usize * ROW_WORDS;
            self.cells.forget(start, (marked - forgotten) as usize * ROW_WORDS);
            self.forgotten.store(marked, Ordering::Release);
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
        let metric = load(&cells[TABLE + column * 2]);
        let mask = load(&cells[TABLE + column * 2 + 1]);
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
                column.push(Sample(load(cell) ^ Sample::EMPTY.0));
            }
        }
    }

    /// The highest metric number a column has.
    fn highest_metric(&self) -> u32 {
        (0..COLUMNS).filter_map(|column| self.metric(column)).max().unwrap_or(0)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        match &self.path {
            None => Ok(()),
            // What a run wrote that was killed may still be in the kernel's hands alone.
            Some(path) if self.recovered => match File::open(path) {
                // It is in a segment by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                opened => opened?.sync_data(),
            },
            Some(_) => self.cells.sync(),
        }
    }

    pub(super) fn remove(&self) {
        if let Some(path) = &self.path
            && let Err(error) = fs::remove_file(path)
        {
            log::error!("DBENGINE: cannot remove '{}': {error}", path.display());
        }
    }
}

fn load(cell: &AtomicU32) -> u32 {
    u32::from_le(cell.load(Ordering::Acquire))
}

/// The cells of a file that is too short, the rest of them empty.
fn read_short(file: &File, length: u64) -> io::Result<Cells> {
    let mut bytes = vec![0u8; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    let cells = Cells::anonymous(WORDS)?;
    for (cell, word) in cells.cells().iter().zip(bytes.chunks_exact(4)) {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        cell.store(word.to_le(), Ordering::Release);
    }
    Ok(cells)
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

    fn give_back(&self, column: u16) {
        let mut state = self.state.lock();
        state.columns[usize::from(column)] = 0;
        let newest = state.blocks.last().map_or(0, |block| block.name.block);
        state.free.push((column, newest));
    }

    /// The block of a slot: an open one, or a new one if the slot lies in the present (`now` is the ordinal of the
    /// current slot). `None` sends the sample the late way.
    pub(super) fn block_for(&self, hot: &Hot, ordinal: i64, now: i64) -> Option<Arc<Block>> {
        let number = block_of(ordinal)?;
        let mut state = self.state.lock();
        let mut known = state.blocks.iter().filter(|block| block.name.block == number).peekable();
        if known.peek().is_some() {
            return known.find(|block| !block.is_sealed()).map(Arc::clone);
        }
        if ordinal > now + i64::from(ROWS) || ordinal + SEAL_AFTER < now {
            return None;
        }
        if state.blocks.iter().any(|block| block.name.block > number) {
            // Its block was flushed already.
            return None;
        }
        let name = HotName { every: self.every, group: self.number, block: number };
        let block = match Block::create(&hot.directory, name) {
            Ok(block) => block,
            Err(error) => {
                *hot.refused.lock() = Some(error);
                let in_memory = state.blocks.iter().filter(|block| block.path.is_none()).count();
                if in_memory >= MEMORY_BLOCKS_MAX
                    && let Some(oldest) = state.blocks.iter().position(|block| block.path.is_none())
                {
                    state.blocks.remove(oldest);
                    hot.dropped.fetch_add(1, Ordering::Relaxed);
                }
                Block::in_memory(name).ok()?
            }
        };
        Some(state.admit(block))
    }

    /// Puts a file in the place of the block that was begun in memory because there was none to be had.
    fn rescue(&self, directory: &Path) -> io::Result<()> {
        let in_memory = |block: &&Arc<Block>| block.path.is_none() && !block.is_sealed();
        let names: Vec<HotName> = {
            let state = self.state.lock();
            state.blocks.iter().filter(in_memory).map(|block| block.name).collect()
        };
        for name in names {
            let block = Block::create(directory, name)?;
            let mut state = self.state.lock();
            // The other takes no more and is flushed as it is.
            let replaced = |block: &&Arc<Block>| in_memory(block) && block.name == name;
            state.blocks.iter().filter(replaced).for_each(|block| block.seal_to(ROWS));
            state.admit(block);
        }
        Ok(())
    }

    pub(super) fn blocks(&self) -> Vec<Arc<Block>> {
        self.state.lock().blocks.clone()
    }

    fn drop_flushed(&self) {
        self.state.lock().blocks.retain(|block| !block.derived.load(Ordering::Acquire));
    }

    fn has(&self, column: u16, metric: u32) -> bool {
        let state = self.state.lock();
        state.blocks.iter().any(|block| block.metric(usize::from(column)) == Some(metric))
    }
}

impl GroupState {
    fn admit(&mut self, block: Block) -> Arc<Block> {
        for (column, &metric) in self.columns.iter().enumerate() {
            if metric != 0 {
                block.name_column(column, metric);
            }
        }
        let block = Arc::new(block);
        self.blocks.push(Arc::clone(&block));
        self.blocks.sort_by_key(|block| block.name.block);
        block
    }
}

/// Where a metric is being written.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) group: Arc<Group>,
    pub(super) column: u16,
}

impl Place {
    fn is(&self, other: &Place) -> bool {
        self.column == other.column && Arc::ptr_eq(&self.group, &other.group)
    }
}

/// All hot blocks of a store.
pub(super) struct Hot {
    pub(super) directory: PathBuf,
    groups: RwLock<BTreeMap<u32, Vec<Arc<Group>>>>,
    /// Left by an earlier run: only read, and flushed soon.
    recovered: RwLock<Vec<Arc<Block>>>,
    /// Columns that were given back and are in blocks still.
    former: Mutex<FxHashMap<u32, Vec<Place>>>,
    /// Why no file could be made for a block, the last time.
    refused: Mutex<Option<io::Error>>,
    /// Blocks in memory that gave way to newer ones.
    dropped: AtomicU64,
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
                Err(Unusable::Damaged(why)) => files::set_aside(&path, &why),
                Err(Unusable::Unreadable(error)) => {
                    log::error!("DBENGINE: cannot read '{}': {error}", path.display());
                }
            }
        }
        recovered.sort_by_key(|block| (block.name.block, block.name.group));
        Ok(Hot {
            directory: directory.to_owned(),
            groups: RwLock::default(),
            recovered: RwLock::new(recovered),
            former: Mutex::default(),
            refused: Mutex::default(),
            dropped: AtomicU64::new(0),
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
            let former = self.former.lock().get(&metric).cloned().unwrap_or_default();
            for place in former.iter().filter(|former| !former.is(place)).chain([place]) {
                for block in place.group.blocks() {
                    if block.metric(usize::from(place.column)) == Some(metric) {
                        visit(&block, usize::from(place.column));
                    }
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

    /// Nothing more is written to `place`; what stands there can be read until it is flushed.
    pub(super) fn give_back(&self, metric: u32, place: &Place) {
        if place.group.has(place.column, metric) {
            self.former.lock().entry(metric).or_default().push(place.clone());
        }
        place.group.give_back(place.column);
    }

    fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.read().values().flatten().cloned().collect()
    }

    /// Seals the rows whose time has passed, and checks those that have come to rest.
    pub(super) fn seal(&self, now_seconds: i64) {
        for group in self.groups() {
            let now = now_seconds.div_euclid(i64::from(group.every));
            for block in group.blocks() {
                let rows = |ordinal: i64| {
                    u32::try_from((ordinal - block.first()).clamp(0, i64::from(ROWS))).unwrap_or(0)
                };
                block.seal_to(rows(now - SEAL_AFTER));
                block.mark(rows(now + 2));
            }
        }
    }

    /// Seals everything, for a clean stop.
    pub(super) fn seal_all(&self) {
        for block in self.all_blocks() {
            block.seal_to(ROWS);
        }
    }

    /// Tries again to have files for the blocks that were begun in memory.
    pub(super) fn rescue(&self) -> io::Result<()> {
        if self.refused.lock().is_some() {
            for group in self.groups() {
                group.rescue(&self.directory)?;
            }
        }
        Ok(())
    }

    /// Fails while blocks are in memory alone, with the reason.
    pub(super) fn refused(&self) -> io::Result<()> {
        let Some(error) = self.refused.lock().take() else { return Ok(()) };
        if !self.all_blocks().iter().any(|block| block.path.is_none()) {
            return Ok(());
        }
        let told = io::Error::new(error.kind(), error.to_string());
        // One that came meanwhile is as good.
        *self.refused.lock() = Some(error);
        Err(told)
    }

    /// Blocks in memory dropped since last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// The highest metric number that blocks of an earlier run name.
    pub(super) fn highest_metric(&self) -> u32 {
        self.recovered.read().iter().map(|block| block.highest_metric()).max().unwrap_or(0)
    }

    /// Lets go of the blocks that are flushed and removes their files.
    pub(super) fn drop_flushed(&self) {
        let done: Vec<Arc<Block>> = self
            .all_blocks()
            .into_iter()
            .filter(|block| block.derived.load(Ordering::Acquire))
            .collect();
        if done.is_empty() {
            return;
        }
        self.recovered.write().retain(|block| !block.derived.load(Ordering::Acquire));
        for group in self.groups() {
            group.drop_flushed();
        }
        self.former.lock().retain(|&metric, places| {
            places.retain(|place| place.group.has(place.column, metric));
            !places.is_empty()
        });
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
            .block_for(hot, at, NOW)
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
        for metric in [1, 1008, 1009, 2000] {
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

    /// What tests do to a block's bytes: rows are found by the second they stand for.
    fn row_byte(at: i64) -> usize {
        let row = usize::try_from((at - 1) % i64::from(ROWS)).unwrap();
        (FIRST_ROW + row * ROW_WORDS + ROW_HEAD) * 4
    }

    #[test]
    fn a_row_at_rest_is_checked_long_before_it_is_sealed_and_open_again_with_every_sample() {
        let dir = tempfile::tempdir().unwrap();
        let hot = Hot::open(dir.path()).unwrap();
        let places = [hot.place(1, 1, 0), hot.place(2, 1, 0)];
        store(&hot, &places[0], NOW, 7.0);
        let block = hot.all_blocks()[0].clone();
        let state = || load(block.check(u32::try_from(NOW - block.first()).unwrap())) & STATE_MASK;
        let mut seen = vec![state()];
        for _ in 0..3 {
            hot.seal(NOW);
            seen.push(state());
        }
        store(&hot, &places[1], NOW, 8.0);
        seen.push(state());
        hot.seal(NOW);
        seen.push(state());
        // A sample between two ticks: what was tentative counts no more.
        store(&hot, &places[1], NOW, 9.0);
        for _ in 0..2 {
            hot.seal(NOW);
            seen.push(state());
        }
        assert_eq!(seen, [0, TENTATIVE, SETTLED, SETTLED, 0, TENTATIVE, TENTATIVE, SETTLED]);
        drop((places, block, hot));
        let hot = Hot::open(dir.path()).unwrap();
        assert_eq!(
            (read(&hot, 1, None), read(&hot, 2, None)),
            (vec![(NOW, 7.0)], vec![(NOW, 9.0)])
        );
    }

    #[test]
    fn damage_costs_what_stood_there_and_never_more() {
        let samples = |left: &[i64]| left.iter().map(|at| (NOW + at, 7.0)).collect::<Vec<_>>();
        type Spoil = fn(&mut Vec<u8>);
        let cases: [(Spoil, &[i64]); 7] = [
            (|bytes| bytes.truncate(row_byte(NOW + 2)), &[0, 1]),
            (|bytes| bytes[row_byte(NOW + 2)..row_byte(NOW + 2) + 4000].fill(0), &[0, 1, 3]),
            (|bytes| bytes[row_byte(NOW + 2) - 64..row_byte(NOW + 3)].fill(0), &[0, 1, 3]),
            (|bytes| bytes[..4096].fill(0), &[0, 1, 2, 3]),
            (|bytes| bytes[TABLE * 4] ^= 1, &[]),
            (|bytes| bytes[4096..FIRST_ROW * 4].fill(0), &[]),
            (|bytes| bytes[row_byte(NOW + 2) - 64] ^= 8, &[0, 1, 3]),
        ];
        for (number, (spoil, left)) in cases.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let hot = Hot::open(dir.path()).unwrap();
            let place = hot.place(1, 1, 0);
            (NOW..NOW + 4).for_each(|at| assert!(store(&hot, &place, at, 7.0)));
            (0..2).for_each(|_| hot.seal(NOW + 4));
            let path = dir.path().join(hot.all_blocks()[0].name.file_name());
            drop((place, hot));
            let mut bytes = fs::read(&path).unwrap();
            spoil(&mut bytes);
            fs::write(&path, &bytes).unwrap();
            let hot = Hot::open(dir.path()).unwrap();
            assert_eq!(read(&hot, 1, None), samples(left), "case {number}");
            hot.seal_all();
            assert_eq!(read(&hot, 1, None), samples(left), "case {number}, sealed");
            assert_eq!(fs::read(&path).unwrap(), bytes, "an earlier run's file stays as it is");
        }
    }

    #[test]
    fn a_metric_that_moved_is_read_from_both_places() {
        let dir = tempfile::tempdir().unwrap();
        let hot = Hot::open(dir.path()).unwrap();
        let first = hot.place(1, 1, 0);
        store(&hot, &first, NOW, 1.0);
        hot.give_back(1, &first);
        let second = hot.place(1, 1, 0);
        store(&hot, &second, NOW + 1, 2.0);
        assert_eq!(read(&hot, 1, Some(&second)), [(NOW, 1.0), (NOW + 1, 2.0)]);
    }

    #[test]
    fn without_a_file_samples_are_in_memory_until_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let hot = Hot::open(dir.path()).unwrap();
        let place = hot.place(1, 1, 0);
        // A directory in the way is as good as a full disk.
        let name = HotName { every: 1, group: 0, block: block_of(NOW).unwrap() };
        let way = dir.path().join(format!("{}.tmp", name.file_name()));
        fs::create_dir(&way).unwrap();
        assert!(store(&hot, &place, NOW, 1.0));
        assert!(hot.refused().is_err() && hot.rescue().is_err());
        fs::remove_dir(&way).unwrap();
        hot.rescue().unwrap();
        assert!(hot.refused().is_err(), "a sample is in memory alone");
        assert!(store(&hot, &place, NOW + 1, 2.0));
        assert_eq!(read(&hot, 1, Some(&place)), [(NOW, 1.0), (NOW + 1, 2.0)]);
        drop((place, hot));
        assert_eq!(read(&Hot::open(dir.path()).unwrap(), 1, None), [(NOW + 1, 2.0)]);
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
            (0..2).for_each(|_| hot.seal(NOW + SEAL_AFTER + 3));
            dir.path().join(hot.all_blocks()[0].name.file_name())
        };
        let mut bytes = fs::read(&path).unwrap();
        bytes[row_byte(NOW + 1)] ^= 1;
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
