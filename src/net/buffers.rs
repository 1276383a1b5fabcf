//! Buffers that connections read into, lent for as long as a wake-up takes.
//!
//! A thousand children speak once a second each, one after another. Were each to read into a buffer of its own, that memory
//! would be theirs all the time and cold whenever it is written; so they share a few that are warm.
//!
//! Threads: any. Locks: the list of idle buffers, taken once to borrow and once to give back, never while reading.

use std::ops::{Deref, DerefMut};

use parking_lot::Mutex;

/// Bytes of a buffer.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Idle ones that are kept; more exist only while more connections read at the same time.
const IDLE_MAX: usize = 8;

static IDLE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// A buffer on loan. What it holds at first is left from someone else.
pub struct Borrowed(Box<[u8]>);

/// Lends a buffer of [`BUFFER_BYTES`].
pub fn borrow() -> Borrowed {
    let idle = IDLE.lock().pop();
    Borrowed(idle.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()))
}

impl Deref for Borrowed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        let mut idle = IDLE.lock();
        if idle.len() < IDLE_MAX {
            idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_for_the_next_one_but_not_without_end() {
        let many: Vec<_> = (0..4 * IDLE_MAX).map(|_| borrow()).collect();
        assert!(many.iter().all(|buffer| buffer.len() == BUFFER_BYTES));
        drop(many);
        assert!(IDLE.lock().len() <= IDLE_MAX);
        assert_eq!(borrow().len(), BUFFER_BYTES);
    }
}
