//! Lines for a child, from whatever thread has them: function calls, the streaming path, a node id.
//!
//! Fed by web threads, senders and the receiver itself; emptied by the receiver's thread, which it wakes. Bounded: a
//! child that does not read loses its connection, never its caller's time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use parking_lot::Mutex;

use crate::base::sys::EventFd;

/// What may wait for a child that does not read.
const MAILBOX_MAX: usize = 1 << 20;

pub struct Mailbox {
    wake: EventFd,
    letters: Mutex<Letters>,
}

#[derive(Default)]
struct Letters {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Mailbox {
    pub fn new() -> io::Result<Mailbox> {
        Ok(Mailbox { wake: EventFd::new()?, letters: Mutex::default() })
    }

    /// Appends whole lines and wakes the receiver; false when there is no room.
    pub fn post(&self, put: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut letters = self.letters.lock();
        put(&mut letters.bytes);
        if letters.bytes.len() > MAILBOX_MAX {
            letters.bytes = Vec::new();
            letters.overflowed = true;
        }
        let room = !letters.overflowed;
        drop(letters);
        self.wake.signal();
        room
    }

    /// Moves what has gathered to the end of `out`; false when the child has not read for too long.
    pub fn collect(&self, out: &mut Vec<u8>) -> bool {
        let mut letters = self.letters.lock();
        out.append(&mut letters.bytes);
        !letters.overflowed && out.len() <= MAILBOX_MAX
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.letters.lock().bytes.len()
    }

    /// Wakes the receiver without a letter.
    pub fn wake(&self) {
        self.wake.signal();
    }

    pub fn acknowledge_wake(&self) {
        self.wake.drain();
    }

    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_collected_in_order_until_there_are_too_many() {
        let mailbox = Mailbox::new().unwrap();
        assert!(mailbox.post(|out| out.extend_from_slice(b"a\n")));
        assert!(mailbox.post(|out| out.extend_from_slice(b"b\n")));
        let mut out = Vec::new();
        assert!(mailbox.collect(&mut out));
        assert_eq!(out, b"a\nb\n");
        assert!(!mailbox.post(|out| out.resize(MAILBOX_MAX + 1, b'x')));
        assert!(!mailbox.collect(&mut Vec::new()));
    }
}
