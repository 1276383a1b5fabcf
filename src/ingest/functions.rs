//! Function calls in flight to one plugin or child: who waits for what, and until when.
//!
//! [`Calls`] is the [`FunctionProvider`] of everything that speaks PLUGINSD. Callers hand it a call; it picks a transaction
//! id, gives the request to a [`CallWriter`] (a plugin's stdin, a child's socket) and keeps the answer's callback. The
//! [`Executor`](super::executor::Executor) finds its results by transaction. The edge that owns the reading loop calls
//! [`Calls::expire`] when [`Calls::deadline`] says so, and [`Calls::close`] at the end.
//!
//! Threads: callers', the reader's. One lock, held for a table look-up; callbacks and writers run outside it.
//! Never waits: a request that cannot be written at once is answered 503.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::base::json::JsonWriter;
use crate::base::stats::{STATS, count};
use crate::base::time::{Clock, MICROS};
use crate::metrics::{FunctionAnswer, FunctionCall, FunctionProvider, FunctionTicket, Progress};

/// Calls one plugin or child may have in flight; more are answered 503 at once.
pub const IN_FLIGHT_MAX: usize = 256;

/// A call whose announcement and caller give no time has this long.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Longest request line, as plugins of every version can read it.
pub const REQUEST_MAX: usize = 2048;

/// What a call is answered that its caller has cancelled.
const CANCELLED: u16 = 499;

/// Where requests go.
pub trait CallWriter: Send + Sync {
    /// Sends one request; false when it cannot be sent now. Called on the caller's thread, so it must not block.
    fn send(&self, transaction: &str, timeout: Duration, command: &str) -> bool;

    /// Nobody waits for this call any more. The other end need not understand it.
    fn cancel(&self, transaction: &str) {
        let _ = transaction;
    }

    /// Somebody wants to know how far this call is. The other end need not understand it.
    fn ask_progress(&self, transaction: &str) {
        let _ = transaction;
    }

    /// The earliest deadline may have moved closer: wakes the thread that calls [`Calls::expire`].
    fn wake(&self);
}

pub struct Calls {
    writer: Box<dyn CallWriter>,
    clock: Clock,
    alive: AtomicBool,
    waiting: Mutex<Vec<Waiting>>,
}

struct Waiting {
    transaction: String,
    /// [`Clock::monotonic_us`].
    deadline_us: i64,
    answer: Box<dyn FnOnce(FunctionAnswer) + Send>,
    progress: Option<Progress>,
}

impl Calls {
    pub fn new(writer: Box<dyn CallWriter>, clock: Clock) -> Arc<Calls> {
        Arc::new(Calls { writer, clock, alive: AtomicBool::new(true), waiting: Mutex::default() })
    }

    /// Somebody waits for the result of `transaction`.
    pub fn is_waiting(&self, transaction: &str) -> bool {
        self.waiting.lock().iter().any(|call| call.transaction == transaction)
    }

    /// Gives a result to whoever waits for it; late and unknown ones are dropped.
    pub fn finish(&self, transaction: &str, answer: FunctionAnswer) {
        if let Some(call) = self.take(transaction) {
            (call.answer)(answer);
        }
    }

    fn take(&self, transaction: &str) -> Option<Waiting> {
        let mut waiting = self.waiting.lock();
        let index = waiting.iter().position(|call| call.transaction == transaction)?;
        Some(waiting.swap_remove(index))
    }

    /// Answers 504 to every call whose time is up.
    pub fn expire(&self) {
        let now = self.clock.monotonic_us();
        let late: Vec<_> = {
            let mut waiting = self.waiting.lock();
            if waiting.iter().all(|call| call.deadline_us > now) {
                return;
            }
            let (late, rest) =
                std::mem::take(&mut *waiting).into_iter().partition(|call| call.deadline_us <= now);
            *waiting = rest;
            late
        };
        for call in late {
            count(&STATS.functions.timed_out);
            self.writer.cancel(&call.transaction);
            (call.answer)(timed_out());
        }
    }

    /// Whoever works on `transaction` says how far it is.
    pub fn progress(&self, transaction: &str, done: u64, all: u64) {
        let told = {
            let waiting = self.waiting.lock();
            let call = waiting.iter().find(|call| call.transaction == transaction);
            call.and_then(|call| call.progress.clone())
        };
        if let Some(told) = told {
            told(done, all);
        }
    }

    /// When [`Calls::expire`] has to be called next, on [`Clock::monotonic_us`]; `None` while nobody waits.
    pub fn deadline(&self) -> Option<i64> {
        self.waiting.lock().iter().map(|call| call.deadline_us).min()
    }

    /// The other end is gone: 504 to all who wait, 503 to all who come.
    pub fn close(&self) {
        self.alive.store(false, Ordering::Release);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for call in waiting {
            (call.answer)(timed_out());
        }
    }
}

impl FunctionProvider for Calls {
    fn call(&self, call: FunctionCall) -> FunctionTicket {
        count(&STATS.functions.calls);
        let timeout = if call.timeout.is_zero() { TIMEOUT_DEFAULT } else { call.timeout };
        let timeout_us = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX / 2);
        let transaction = Uuid::new_v4().to_string();
        {
            let mut waiting = self.waiting.lock();
            // Asked under the lock: what `close` does not find here has seen its flag.
            if !self.is_alive() {
                drop(waiting);
                return refuse(call, "The collector of this function is not running.");
            }
            if waiting.len() >= IN_FLIGHT_MAX {
                drop(waiting);
                return refuse(call, "Too many calls wait for this collector.");
            }
            let deadline_us = self.clock.monotonic_us().saturating_add(timeout_us);
            let transaction = transaction.clone();
            let FunctionCall { answer, progress, .. } = call;
            waiting.push(Waiting { transaction, deadline_us, answer, progress });
        }
        if self.writer.send(&transaction, timeout, &call.command) {
            self.writer.wake();
        } else if let Some(call) = self.take(&transaction) {
            count(&STATS.functions.refused);
            (call.answer)(unavailable("Failed to send the request to the collector."));
        }
        FunctionTicket(transaction)
    }

    fn cancel(&self, ticket: &FunctionTicket) {
        if let Some(call) = self.take(&ticket.0) {
            count(&STATS.functions.cancelled);
            self.writer.cancel(&ticket.0);
            (call.answer)(error_answer(CANCELLED, "The request was cancelled."));
        }
    }

    fn ask_progress(&self, ticket: &FunctionTicket) {
        if self.is_waiting(&ticket.0) {
            self.writer.ask_progress(&ticket.0);
        }
    }

    fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }
}

/// An answer of ours instead of the collector's.
pub fn error_answer(code: u16, message: &str) -> FunctionAnswer {
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("status").integer(i64::from(code));
        // 1.37 and release 2 spell it differently.
        j.key("error_message").string(message);
        j.key("errorMessage").string(message);
    });
    FunctionAnswer::json(code, 0, json.finish())
}

fn refuse(call: FunctionCall, message: &str) -> FunctionTicket {
    count(&STATS.functions.refused);
    (call.answer)(unavailable(message));
    FunctionTicket::default()
}

fn timed_out() -> FunctionAnswer {
    error_answer(504, "Timeout waiting for collector response.")
}

fn unavailable(message: &str) -> FunctionAnswer {
    error_answer(503, message)
}

/// The request line of 1.37, which every plugin reads; `None` when the command cannot stand in one.
pub fn request_line(transaction: &str, timeout: Duration, command: &str) -> Option<Vec<u8>> {
    let safe = !command.contains(['"', '\n', '\r']) && !command.ends_with('\\');
    let seconds = timeout.as_micros().div_ceil(u128::from(MICROS.unsigned_abs()));
    let line = format!("FUNCTION {transaction} {seconds} \"{command}\"\n");
    (safe && line.len() <= REQUEST_MAX).then(|| line.into_bytes())
}

/// The line that takes a call back, for plugins that understand it.
pub fn cancel_line(transaction: &str) -> Vec<u8> {
    format!("FUNCTION_CANCEL {transaction}\n").into_bytes()
}

/// The line that asks how far a call is, for plugins that understand it.
pub fn progress_line(transaction: &str) -> Vec<u8> {
    format!("FUNCTION_PROGRESS {transaction}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::base::time::UnixMicros;

    struct Pipe {
        sent: Mutex<Vec<String>>,
        open: bool,
    }

    impl CallWriter for Arc<Pipe> {
        fn send(&self, transaction: &str, _timeout: Duration, command: &str) -> bool {
            self.sent.lock().push(format!("{transaction} {command}"));
            self.open
        }

        fn cancel(&self, transaction: &str) {
            self.sent.lock().push(format!("cancel {transaction}"));
        }

        fn ask_progress(&self, transaction: &str) {
            self.sent.lock().push(format!("progress {transaction}"));
        }

        fn wake(&self) {}
    }

    fn calls(open: bool) -> (Arc<Calls>, Arc<Pipe>, Clock) {
        let clock = Clock::manual(UnixMicros(1));
        let pipe = Arc::new(Pipe { sent: Mutex::default(), open });
        (Calls::new(Box::new(Arc::clone(&pipe)), clock.clone()), pipe, clock)
    }

    fn call(calls: &Calls, seconds: u64) -> Receiver<FunctionAnswer> {
        let (tx, rx) = channel();
        let answer = Box::new(move |answer| tx.send(answer).unwrap());
        let timeout = Duration::from_secs(seconds);
        calls.call(FunctionCall { command: "top".to_owned(), timeout, answer, progress: None });
        rx
    }

    #[test]
    fn a_call_is_asked_for_its_progress_and_taken_back() {
        let (calls, pipe, _clock) = calls(true);
        let (answers, answered) = channel();
        let (steps, stepped) = channel();
        let ticket = calls.call(FunctionCall {
            command: "top".to_owned(),
            timeout: Duration::from_secs(5),
            answer: Box::new(move |answer| answers.send(answer.code).unwrap()),
            progress: Some(Arc::new(move |done, all| steps.send((done, all)).unwrap())),
        });
        calls.ask_progress(&ticket);
        calls.progress(&ticket.0, 1, 3);
        calls.cancel(&ticket);
        // Too late for all of it.
        calls.progress(&ticket.0, 2, 3);
        calls.ask_progress(&ticket);
        calls.cancel(&ticket);
        drop(calls);
        assert_eq!(answered.iter().collect::<Vec<_>>(), [CANCELLED]);
        assert_eq!(stepped.iter().collect::<Vec<_>>(), [(1, 3)]);
        let id = &ticket.0;
        let sent = [format!("{id} top"), format!("progress {id}"), format!("cancel {id}")];
        assert_eq!(*pipe.sent.lock(), sent);
    }

    #[test]
    fn an_answer_reaches_its_caller_once() {
        let (calls, pipe, _clock) = calls(true);
        let rx = call(&calls, 5);
        let transaction = pipe.sent.lock()[0].split(' ').next().unwrap().to_owned();
        assert!(calls.is_waiting(&transaction));
        calls.finish(&transaction, error_answer(200, "fine"));
        calls.finish(&transaction, error_answer(200, "twice"));
        assert_eq!(rx.iter().map(|a| a.code).collect::<Vec<_>>(), [200]);
    }

    #[test]
    fn time_runs_out_for_each_call_on_its_own() {
        let (calls, pipe, clock) = calls(true);
        let (short, long) = (call(&calls, 2), call(&calls, 30));
        assert_eq!(calls.deadline(), Some(2_000_000));
        clock.advance(2_000_000);
        calls.expire();
        assert_eq!(short.try_recv().unwrap().code, 504);
        assert!(pipe.sent.lock().last().unwrap().starts_with("cancel "));
        assert!(long.try_recv().is_err());
        calls.close();
        assert_eq!(long.try_recv().unwrap().code, 504);
        assert_eq!(calls.deadline(), None);
    }

    #[test]
    fn nobody_to_ask_is_answered_at_once() {
        let (calls, _pipe, _clock) = calls(false);
        assert_eq!(call(&calls, 5).recv().unwrap().code, 503);
        calls.close();
        assert_eq!(call(&calls, 5).recv().unwrap().code, 503);
    }

    #[test]
    fn calls_in_flight_are_bounded() {
        let (calls, _pipe, _clock) = calls(true);
        let waiting: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| call(&calls, 5)).collect();
        assert_eq!(call(&calls, 5).recv().unwrap().code, 503);
        drop(waiting);
    }

    #[test]
    fn a_request_is_one_line() {
        let line = |command| request_line("t", Duration::from_millis(1500), command);
        assert_eq!(line("top a b").unwrap(), b"FUNCTION t 2 \"top a b\"\n");
        assert!(line("a\"b").is_none() && line("a\nb").is_none() && line("a\\").is_none());
        assert!(line(&"x".repeat(REQUEST_MAX)).is_none());
    }
}
