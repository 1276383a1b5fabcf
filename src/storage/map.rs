//! Memory for samples: the one place of this layer that allocates zeroed memory or maps files by hand.
//!
//! Everything handed out is safe to use from any thread: cells are atomics, read-only files are plain bytes.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU32;

use memmap2::{Mmap, MmapOptions, MmapRaw};

/// A ring's slots, all zero. Fresh pages are not touched before they are written, so an unused ring costs address
/// space only. `None` when the memory cannot be had.
pub(super) fn zeroed_slots(entries: usize) -> Option<Box<[AtomicU32]>> {
    // Asking first with a fallible reservation keeps an absurd configuration from aborting the process.
    Vec::<AtomicU32>::new().try_reserve_exact(entries).ok()?;
    let slots = Box::<[AtomicU32]>::new_zeroed_slice(entries);
    // SAFETY: all bytes of the slice are zero, and zero is a valid `AtomicU32`.
    Some(unsafe { slots.assume_init() })
}

/// A whole file of 32-bit cells, mapped shared: what is stored is in the kernel's hands at once and survives the death
/// of this process.
pub(super) struct Cells {
    map: MmapRaw,
    count: usize,
    /// What is stored is in the file.
    is_shared: bool,
}

impl Cells {
    /// Maps the `count` cells of `file`, which must be at least that long with all of its blocks allocated, and must not
    /// be truncated while the map lives: the store's directory lock keeps other agents away, and no code of ours
    /// truncates a file it maps.
    pub(super) fn map(file: &File, count: usize) -> io::Result<Cells> {
        let bytes = count * size_of::<AtomicU32>();
        if file.metadata()?.len() < bytes as u64 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is shorter than its cells",
            ));
        }
        Ok(Cells { map: MmapOptions::new().len(bytes).map_raw(file)?, count, is_shared: true })
    }

    /// As [`Cells::map`], but what is stored stays in this process: the file never changes, so that it may lie on a full
    /// disk with holes in it.
    pub(super) fn private(file: &File, count: usize) -> io::Result<Cells> {
        let bytes = count * size_of::<AtomicU32>();
        if file.metadata()?.len() < bytes as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the store's directory lock keeps other agents away, and no code of ours truncates or writes a file that
        // an earlier run left; access goes through atomics.
        let map = unsafe { MmapOptions::new().len(bytes).map_copy(file)? };
        Ok(Cells { map: map.into(), count, is_shared: false })
    }

    /// Cells in memory alone, for when the disk is full.
    pub(super) fn anonymous(count: usize) -> io::Result<Cells> {
        let map = MmapOptions::new().len(count * size_of::<AtomicU32>()).map_anon()?;
        Ok(Cells { map: map.into(), count, is_shared: false })
    }

    pub(super) fn cells(&self) -> &[AtomicU32] {
        let start = self.map.as_mut_ptr().cast::<AtomicU32>();
        // SAFETY: the map is `count` cells long, page-aligned and lives as long as `self`; any bytes are valid cells,
        // and all access through the slice is atomic.
        unsafe { std::slice::from_raw_parts(start, self.count) }
    }

    /// Writes the dirty pages of `cells` to the disk and waits for it.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.map.flush()
    }

    /// Gives the pages of a range of cells back; they stay in the kernel's cache and return when looked at. Cells that are
    /// in no file stay.
    pub(super) fn forget(&self, from: usize, count: usize) {
        const PAGE: usize = 4096;
        let start = (from * size_of::<AtomicU32>()).div_ceil(PAGE) * PAGE;
        let end = ((from + count) * size_of::<AtomicU32>()).min(self.map.len()) / PAGE * PAGE;
        if self.is_shared && start < end {
            let address = self.map.as_mut_ptr().wrapping_add(start).cast();
            // SAFETY: the range lies within this shared file mapping, whose pages keep their content in the file.
            let _ = unsafe { libc::madvise(address, end - start, libc::MADV_DONTNEED) };
        }
    }
}

/// Maps a whole finished file for reading. Nobody changes it any more: it was renamed into place complete, and is only
/// ever unlinked.
pub(super) fn read_only(file: &File) -> io::Result<Mmap> {
    // SAFETY: the store's directory lock keeps other agents away, and no code of ours writes or truncates a finished
    // file, so the bytes do not change under the map.
    unsafe { Mmap::map(file) }
}
