//! Memory for rings: the one place of this layer that allocates or maps memory by hand.

use std::sync::atomic::AtomicU32;

/// A ring's slots, all zero. Fresh pages are not touched before they are written, so an unused ring costs address
/// space only. `None` when the memory cannot be had.
pub(super) fn zeroed_slots(entries: usize) -> Option<Box<[AtomicU32]>> {
    // Asking first with a fallible reservation keeps an absurd configuration from aborting the process.
    Vec::<AtomicU32>::new().try_reserve_exact(entries).ok()?;
    let slots = Box::<[AtomicU32]>::new_zeroed_slice(entries);
    // SAFETY: all bytes of the slice are zero, and zero is a valid `AtomicU32`.
    Some(unsafe { slots.assume_init() })
}
