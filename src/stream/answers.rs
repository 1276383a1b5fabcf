//! Requests for samples that peers made and nobody has answered yet: which comes next.
//!
//! A plain state machine behind the replication threads. Links take turns, so that one with a long backlog does not keep
//! the others waiting; within a link, requests that make a chart live come first, then questions about digests, then the
//! oldest request. A link is answered by
//! one thread at a time, which keeps its blocks in order; one without room is left alone until it has some.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::replication::Ask;
use super::verify::Question;

/// Requests that may wait on one link; a peer asks once per chart.
const REQUESTS_MAX: usize = 1 << 20;
/// What they may take: ids are as long as the peer likes.
const BYTES_MAX: usize = 128 << 20;

/// Questions about digests that may wait on one link; whoever asks waits for each answer.
const QUESTIONS_MAX: usize = 64;

/// What a request takes beside its id: it stands in a queue and in a set.
const REQUEST_BYTES: usize = 128;

/// What a peer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Samples of a chart.
    Samples(String, Ask),
    /// What a span comes to.
    Digest(Question),
}

fn cost(chart: &str) -> usize {
    REQUEST_BYTES + 2 * chart.len()
}

/// The requests of one link.
#[derive(Debug, Default)]
struct Waiting {
    /// Charts in the order of their requests. One that is in [`Waiting::asks`] no more, or asks for the other thing, is passed
    /// over.
    starts: VecDeque<String>,
    questions: VecDeque<Question>,
    rest: VecDeque<String>,
    /// What is wanted of each chart. A peer waits for one answer at a time for a chart, that to its latest request; but one
    /// that makes the chart live is never dropped for one about its past.
    asks: FxHashMap<String, Ask>,
    /// Of both queues.
    bytes: usize,
    busy: bool,
    full: bool,
    in_turn: bool,
}

impl Waiting {
    fn is_ready(&self) -> bool {
        let has_samples = !self.full && !self.asks.is_empty();
        !self.busy && (has_samples || !self.questions.is_empty())
    }

    /// Takes a request in; false when there is one already that comes first.
    fn put(&mut self, chart: String, ask: Ask, first: bool) -> bool {
        let before = self.asks.insert(chart.clone(), ask);
        match before {
            Some(old) if old.start && !ask.start => {
                self.asks.insert(chart, old);
                return false;
            }
            Some(old) if old.start == ask.start => return false,
            _ => {}
        }
        self.bytes += cost(&chart);
        let queue = if ask.start { &mut self.starts } else { &mut self.rest };
        if first {
            queue.push_front(chart)
        } else {
            queue.push_back(chart)
        }
        true
    }

    /// The next request of those that make charts live, or of the others.
    fn pop(&mut self, start: bool) -> Option<Work> {
        loop {
            let chart = if start { self.starts.pop_front() } else { self.rest.pop_front() }?;
            self.bytes -= cost(&chart);
            if let Some(ask) = self.asks.get(&chart).copied().filter(|ask| ask.start == start) {
                self.asks.remove(&chart);
                if self.asks.is_empty() {
                    self.starts.clear();
                    self.rest.clear();
                    self.bytes = 0;
                }
                return Some(Work::Samples(chart, ask));
            }
        }
    }

    /// What is to be done next. A digest needs no room.
    fn next(&mut self) -> Option<Work> {
        let start = if self.full { None } else { self.pop(true) };
        start
            .or_else(|| self.questions.pop_front().map(Work::Digest))
            .or_else(|| if self.full { None } else { self.pop(false) })
    }
}

#[derive(Debug)]
pub struct Queue<L> {
    links: FxHashMap<L, Waiting>,
    turn: VecDeque<L>,
}

impl<L> Default for Queue<L> {
    fn default() -> Self {
        Queue { links: FxHashMap::default(), turn: VecDeque::new() }
    }
}

impl<L: Copy + Eq + Hash> Queue<L> {
    pub fn open(&mut self, link: L) {
        self.links.insert(link, Waiting::default());
    }

    pub fn close(&mut self, link: L) {
        self.links.remove(&link);
    }

    /// A request came; true when there is something new to do.
    pub fn ask(&mut self, link: L, chart: String, ask: Ask) -> bool {
        let Some(waiting) = self.links.get_mut(&link) else { return false };
        let requests = waiting.starts.len() + waiting.rest.len();
        // One that takes the place of another is never too much.
        let is_new = !waiting.asks.contains_key(&chart);
        if is_new && (requests >= REQUESTS_MAX || waiting.bytes + cost(&chart) > BYTES_MAX) {
            return false;
        }
        waiting.put(chart, ask, false) && self.queue(link)
    }

    /// A question came; true when there is something new to do. Of too many the newest are dropped.
    pub fn question(&mut self, link: L, question: Question) -> bool {
        let Some(waiting) = self.links.get_mut(&link) else { return false };
        if waiting.questions.len() >= QUESTIONS_MAX {
            return false;
        }
        waiting.questions.push_back(question);
        self.queue(link)
    }

    /// What to do next. Its link is the caller's until [`Queue::done`] or [`Queue::put_back`].
    pub fn take(&mut self) -> Option<(L, Work)> {
        while let Some(link) = self.turn.pop_front() {
            let Some(waiting) = self.links.get_mut(&link) else { continue };
            waiting.in_turn = false;
            if !waiting.is_ready() {
                continue;
            }
            if let Some(work) = waiting.next() {
                waiting.busy = true;
                return Some((link, work));
            }
        }
        None
    }

    /// The request was answered.
    pub fn done(&mut self, link: L) {
        if let Some(waiting) = self.links.get_mut(&link) {
            waiting.busy = false;
            self.queue(link);
        }
    }

    /// There was no room for the answer: it is made when there is. `retry` when there may be again already.
    pub fn put_back(&mut self, link: L, chart: String, ask: Ask, retry: bool) {
        let Some(waiting) = self.links.get_mut(&link) else { return };
        waiting.busy = false;
        waiting.full = !retry;
        // One that came meanwhile is the later one.
        if ask.start || !waiting.asks.contains_key(&chart) {
            waiting.put(chart, ask, true);
        }
        self.queue(link);
    }

    /// The link has room again; true when that is news.
    pub fn has_room(&mut self, link: L) -> bool {
        let Some(waiting) = self.links.get_mut(&link) else { return false };
        std::mem::replace(&mut waiting.full, false) && self.queue(link)
    }

    /// Requests that wait on a link.
    pub fn waiting(&self, link: L) -> usize {
        self.links.get(&link).map_or(0, |waiting| waiting.asks.len())
    }

    fn queue(&mut self, link: L) -> bool {
        let Some(waiting) = self.links.get_mut(&link) else { return false };
        let ready = waiting.is_ready() && !std::mem::replace(&mut waiting.in_turn, true);
        if ready {
            self.turn.push_back(link);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(after: i64) -> Ask {
        Ask { start: false, after, before: after + 10 }
    }

    fn taken(queue: &mut Queue<u32>) -> (u32, String) {
        let (link, Work::Samples(chart, _)) = queue.take().unwrap() else { panic!("no samples") };
        queue.done(link);
        (link, chart)
    }

    fn question(number: u64) -> Question {
        Question { number, chart: "t.a".to_owned(), after: 1, before: 2, dim: None }
    }

    #[test]
    fn questions_need_no_room_and_do_not_pile_up() {
        let mut queue = Queue::default();
        queue.open(1);
        queue.ask(1, "a".to_owned(), past(0));
        let Some((_, Work::Samples(chart, ask))) = queue.take() else { panic!("nothing to do") };
        queue.put_back(1, chart, ask, false);
        for number in 0..QUESTIONS_MAX as u64 {
            queue.question(1, question(number));
        }
        assert!(!queue.question(1, question(1000)));
        for number in 0..QUESTIONS_MAX as u64 {
            assert_eq!(queue.take(), Some((1, Work::Digest(question(number)))));
            assert!(queue.take().is_none(), "one at a time");
            queue.done(1);
        }
        assert!(queue.take().is_none(), "the samples wait for room");
        queue.has_room(1);
        queue.ask(1, "live".to_owned(), Ask::LIVE);
        queue.question(1, question(7));
        assert_eq!(taken(&mut queue).1, "live");
        assert!(matches!(queue.take(), Some((1, Work::Digest(_)))));
        queue.done(1);
        assert_eq!(taken(&mut queue).1, "a");
    }

    #[test]
    fn links_take_turns_and_starts_come_first() {
        let mut queue = Queue::default();
        for link in [1, 2] {
            queue.open(link);
        }
        for n in 0..3 {
            queue.ask(1, format!("a{n}"), past(n));
        }
        queue.ask(2, "b".to_owned(), past(0));
        queue.ask(1, "live".to_owned(), Ask::LIVE);
        let order: Vec<_> = (0..5).map(|_| taken(&mut queue)).collect();
        let order: Vec<_> = order.iter().map(|(link, chart)| (*link, chart.as_str())).collect();
        assert_eq!(order, [(1, "live"), (2, "b"), (1, "a0"), (1, "a1"), (1, "a2")]);
        assert!(queue.take().is_none());
    }

    #[test]
    fn a_link_is_answered_by_one_at_a_time_and_waits_for_room() {
        let mut queue = Queue::default();
        queue.open(1);
        queue.ask(1, "a".to_owned(), past(0));
        queue.ask(1, "b".to_owned(), past(0));
        assert!(!queue.ask(1, "b".to_owned(), past(5)), "it waits already");
        let (link, Work::Samples(chart, ask)) = queue.take().unwrap() else { panic!("no samples") };
        assert!(queue.take().is_none(), "somebody else has the link");
        queue.put_back(link, chart, ask, false);
        assert!(queue.take().is_none(), "there is no room");
        assert!(queue.has_room(1) && !queue.has_room(1));
        assert_eq!(taken(&mut queue), (1, "a".to_owned()));
        assert_eq!(queue.take(), Some((1, Work::Samples("b".to_owned(), past(5)))), "the latest");
        queue.ask(1, "b".to_owned(), past(7));
        queue.put_back(1, "b".to_owned(), past(5), true);
        assert_eq!(queue.take(), Some((1, Work::Samples("b".to_owned(), past(7)))));
        queue.done(1);
        queue.close(1);
        assert!(queue.take().is_none());
    }

    #[test]
    fn a_chart_goes_live_whatever_else_is_asked_of_it() {
        let mut queue = Queue::default();
        queue.open(1);
        for _ in 0..3 {
            queue.ask(1, "a".to_owned(), past(0));
            queue.ask(1, "a".to_owned(), Ask::LIVE);
            queue.ask(1, "a".to_owned(), past(5));
            assert_eq!(queue.waiting(1), 1);
            assert_eq!(queue.take(), Some((1, Work::Samples("a".to_owned(), Ask::LIVE))));
            queue.ask(1, "a".to_owned(), past(9));
            queue.put_back(1, "a".to_owned(), Ask::LIVE, true);
            assert_eq!(queue.take(), Some((1, Work::Samples("a".to_owned(), Ask::LIVE))));
            queue.done(1);
        }
        assert!(queue.take().is_none());
        assert_eq!(queue.links[&1].bytes, 0);
    }

    #[test]
    fn requests_are_bounded_by_what_they_take() {
        let mut queue = Queue::default();
        queue.open(1);
        let long = |n: i64| format!("{n}-{}", "x".repeat(BYTES_MAX / 20));
        let taken_in = (0..20).filter(|n| queue.ask(1, long(*n), Ask::LIVE)).count();
        assert_eq!(taken_in, 1, "only the first one is news");
        assert_eq!(queue.waiting(1), 9);
        let again = Ask { start: true, after: 7, before: 9 };
        queue.ask(1, long(0), again);
        assert_eq!(queue.links[&1].asks[&long(0)], again, "the latest is the one that counts");
        // Whatever is answered makes room.
        for _ in 0..9 {
            taken(&mut queue);
        }
        assert_eq!((queue.waiting(1), queue.links[&1].bytes), (0, 0));
        assert!(queue.ask(1, long(30), Ask::LIVE));
    }
}
