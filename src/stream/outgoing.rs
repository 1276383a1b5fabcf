//! What a sender took from its outbox and has not put on the wire yet, compressed on the way if its parent agreed.
//!
//! Belongs to the sender's thread; no locks. Text becomes frames a few at a time, as the socket takes them: however much
//! waits, there is one outbox's text and one bounded buffer of frames.

use std::io;

use super::uplink::{Taken, Uplink};
use crate::wire::caps::Capabilities;
use crate::wire::compression::{Algorithm, Encoder, Levels};

/// Frames made ahead of the socket.
const AHEAD: usize = 32 * 1024;

pub(super) struct Outgoing {
    text: Vec<u8>,
    /// How much of the text is on the wire or in `frames`.
    text_done: usize,
    frames: Vec<u8>,
    frames_done: usize,
    encoder: Option<Encoder>,
}

impl Outgoing {
    pub(super) fn new(agreed: Capabilities, levels: Levels) -> io::Result<Outgoing> {
        let encoder = Algorithm::of(agreed).map(|algorithm| Encoder::new(algorithm, levels));
        Ok(Outgoing {
            text: Vec::new(),
            text_done: 0,
            frames: Vec::new(),
            frames_done: 0,
            encoder: encoder.transpose()?,
        })
    }

    /// Takes what has gathered, if everything taken before was sent.
    pub(super) fn refill(&mut self, uplink: &Uplink) -> Taken {
        let unsent = self.text.len() - self.text_done + self.frames.len() - self.frames_done;
        if unsent > 0 {
            return uplink.take(&mut Vec::new(), unsent);
        }
        self.text.clear();
        self.text_done = 0;
        uplink.take(&mut self.text, 0)
    }

    /// What the socket has to be given next; empty when everything was sent.
    pub(super) fn next(&mut self) -> io::Result<&[u8]> {
        let Some(encoder) = &mut self.encoder else {
            return Ok(&self.text[self.text_done..]);
        };
        if self.frames_done == self.frames.len() {
            self.frames.clear();
            self.frames_done = 0;
            while self.text_done < self.text.len() && self.frames.len() < AHEAD {
                self.text_done += encoder.frame(&self.text[self.text_done..], &mut self.frames)?;
            }
        }
        Ok(&self.frames[self.frames_done..])
    }

    /// The socket took so much of it.
    pub(super) fn sent(&mut self, length: usize) {
        match self.encoder {
            None => self.text_done += length,
            Some(_) => self.frames_done += length,
        }
    }
}
