//! What a node asks a peer for, of all charts of one connection: live first, the past behind it, in the background.
//!
//! A plain state machine, the same at both ends of a link: it is told what the peer holds, what was answered and what the
//! clock says, and gives the requests to send. A chart goes live with one short answer about its newest slots. What is
//! missing before that is asked for in turn, one step of one chart at a time; how many steps are under way at once
//! follows from how long answers take, so that what is asked for never queues up before live samples on a slow link.
//! Memory: a few words per chart, and the holes of the charts whose turn it is.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::replication::{Ask, Policy, Standing};
use crate::base::time::MICROS;
use crate::ingest::executor::{Offer, Replayed, latest_believed};

/// Slots of the first answer at most. More than the hundred that peers of 2.x add to any request so close to the end.
const FIRST_SLOTS: i64 = 120;
/// A chart whose newest slot is older than so many is not collected just now: nothing live waits for its past, which is asked
/// for in order, oldest first.
const CURRENT_SLOTS: i64 = 5;
/// Answers in a row that neither start nor bring anything new, until live samples alone are asked for.
const IDLE_MAX: u32 = 8;
/// Answers in a row that leave a hole as it was, until it is given up for this connection.
const STUCK_MAX: u32 = 3;
/// Answers about a chart that may end early, on one connection: a seed peer that has every other slot only would have to be
/// asked for each of them.
const SHORT_MAX: u32 = 300;
/// So many of these look at every minute of a gap. The others go on in larger steps, since a gap may be of days.
const SHORT_CLOSE: u32 = 200;
const JUMP_SLOTS: i64 = 60;
/// A seed peer's gap is searched in steps of its length so far divided by this: of what lies between two gaps only that may
/// be missed which is shorter than such a step.
const JUMP_SHARE: i64 = 4;
/// Slots looked through for holes at a time, of one chart and of all.
pub const LOOK_SLOTS: i64 = 6 * 3600;
/// Without an answer for so long, or for [`LOST_TIMES`] as long as the last answer took, a request counts as lost: seed peers
/// never answer for a chart they have dropped.
const LOST_US: i64 = 60 * MICROS;
const LOST_TIMES: i64 = 4;
/// A request that waits for so long, or for twice as long as the last answer took, is late: others need not wait for it.
const LATE_US: i64 = 5 * MICROS;
/// One slow answer does not put either off for longer.
const LATE_MOST_US: i64 = 30 * MICROS;
const LOST_MOST_US: i64 = 300 * MICROS;
/// Requests under way at once at most.
const WINDOW_MAX: usize = 16;
/// An answer that took longer than this says that the link or the peer is busy; one that was faster that it is not.
const SLOW_US: i64 = MICROS;
const FAST_US: i64 = MICROS / 4;

/// A span of time: what comes after the first and up to the second.
pub type Span = (i64, i64);

/// What is still to be asked for of one chart.
#[derive(Debug, Default)]
struct Pull {
    offer: Offer,
    every: i64,
    /// Live samples flow, or none are wanted.
    live: bool,
    idle: u32,
    /// What was not looked through for holes yet.
    unseen: Option<Span>,
    /// Holes, oldest first.
    holes: VecDeque<Span>,
    /// A request about the past, with the time it was made, and where what it asks for begins.
    asked: Option<i64>,
    asked_after: i64,
    /// The request that makes it live, since when it is known to wait, and how often it was made.
    start: Option<Ask>,
    start_since: Option<i64>,
    starts: u32,
    /// Answers still to come of requests like it that were made again.
    repeats: u32,
    stuck: u32,
    /// How far the request under way jumped into the hole, past slots that a seed peer stumbles over; 0 = not at all.
    jumped: i64,
    /// How long the gap is by now in which the hole begins.
    gap: i64,
    /// Answers that a seed peer ended early.
    short: u32,
    in_turn: bool,
    /// Something came in answer to a request about the past.
    brought: bool,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// To be asked at once.
    pub ask: Option<Ask>,
    /// The past of the chart is as complete as the peer can make it.
    pub finished: Option<Finished>,
}

/// How the past of a chart was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Something was added to it.
    pub brought: bool,
}

/// What [`Pulls::more`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Ask(Arc<str>, Ask),
    Finished(Arc<str>, Finished),
}

/// How far the past has come, for the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub charts: usize,
    /// Charts that wait for their first answer.
    pub starting: usize,
    /// Charts whose past is not complete.
    pub filling: usize,
    /// Requests under way.
    pub in_flight: usize,
    /// Seconds of charts known or suspected to be missing.
    pub missing_seconds: i64,
    /// Answers about the past so far, and the seconds of charts they were about.
    pub answers: u64,
    pub answered_seconds: i64,
}

#[derive(Debug)]
pub struct Pulls {
    policy: Policy,
    charts: FxHashMap<Arc<str>, Pull>,
    turn: VecDeque<Arc<str>>,
    in_flight: usize,
    /// Of these, when it was looked last.
    late: usize,
    window: usize,
    /// How long the last answer took.
    took_us: i64,
    /// Some chart may wait for its first answer.
    starting: bool,
    /// Requests that make charts live, to be made again.
    again: Vec<(Arc<str>, Ask)>,
    answers: u64,
    answered_seconds: i64,
    next_look_us: i64,
}

impl Pulls {
    pub fn new(policy: Policy) -> Pulls {
        Pulls {
            policy,
            charts: FxHashMap::default(),
            turn: VecDeque::new(),
            in_flight: 0,
            late: 0,
            window: 2,
            took_us: 0,
            starting: false,
            again: Vec::new(),
            answers: 0,
            answered_seconds: 0,
            next_look_us: 0,
        }
    }

    /// A chart was defined and waits: gives the request that makes it live. `every` is its interval.
    pub fn defined(&mut self, id: &Arc<str>, offer: Offer, standing: Standing, every: i64) -> Ask {
        let ask = self.first(id, offer, standing, every);
        self.starting = true;
        if let Some(pull) = self.charts.get_mut(id) {
            (pull.start, pull.start_since, pull.starts) = (Some(ask), None, 0);
        }
        ask
    }

    /// It was defined again while it waits: asked for anew only if its answer is late, as when the peer had dropped it.
    pub fn defined_again(
        &mut self,
        id: &Arc<str>,
        offer: Offer,
        standing: Standing,
        every: i64,
        now_us: i64,
    ) -> Option<Ask> {
        let late_us = self.late_us();
        let Some(pull) = self.charts.get(id) else {
            // It waits since another session, which asked for it in vain.
            return Some(self.defined(id, offer, standing, every));
        };
        let late = pull.start_since.is_some_and(|since| now_us - since > late_us);
        (late && !pull.live).then(|| self.defined(id, offer, standing, every))
    }

    fn first(&mut self, id: &Arc<str>, offer: Offer, standing: Standing, every: i64) -> Ask {
        let policy = self.policy;
        let pull = self.renew(id);
        pull.offer = offer;
        pull.every = every.max(1);
        pull.live = false;
        pull.idle = 0;
        pull.holes.clear();
        pull.unseen = None;
        let Some((last, oldest)) = asked_span(offer, standing, policy) else { return Ask::LIVE };
        if standing.local_last.min(standing.now) >= last {
            pull.unseen = (oldest < last).then_some((oldest, last));
            // Whatever the peer has gained by the time it answers comes with the answer.
            return Ask { start: true, after: last, before: last };
        }
        let from = if standing.local_last > 0 { standing.local_last } else { oldest };
        let from = from.max(offer.first).min(last);
        if pull.is_current() {
            return pull.newest(oldest, from, policy);
        }
        pull.unseen = (oldest < from).then_some((oldest, from));
        pull.in_order(from, policy)
    }

    /// The peer says what it holds of a chart that is live here, or never will be: only the past can be asked for.
    pub fn offered(&mut self, id: &Arc<str>, offer: Offer, standing: Standing, every: i64) {
        let policy = self.policy;
        let pull = self.renew(id);
        let starting = !pull.live && pull.offer.wall > 0;
        // The two offers may be about different dimensions.
        pull.offer = match pull.offer {
            Offer { first, last, .. } if first > 0 && last > 0 => Offer {
                first: first.min(offer.first.max(1)),
                last: last.max(offer.last),
                wall: offer.wall,
            },
            _ => offer,
        };
        pull.every = every.max(1);
        // A chart that waits for its first answer looks at its past after that.
        pull.live = !starting;
        let whole = asked_span(offer, standing, policy).map(|(last, oldest)| (oldest, last));
        // What was still to be looked at stays so.
        let holes = pull.holes.drain(..).chain(pull.unseen.take());
        let spans = holes.chain(whole.filter(|(oldest, last)| oldest < last));
        pull.unseen = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        self.queue(id);
    }

    /// A block came. `standing` is taken after its samples were stored.
    pub fn answered(
        &mut self,
        id: &Arc<str>,
        mut block: Replayed,
        standing: Standing,
        now_us: i64,
    ) -> Outcome {
        let policy = self.policy;
        // Nobody is asked about a future that nobody believes.
        let latest = latest_believed(standing.now);
        block.before = block.before.min(latest);
        block.reached = block.reached.min(block.before);
        block.offer.last = block.offer.last.min(latest);
        let Some(pull) = self.charts.get_mut(id) else { return Outcome::default() };
        if pull.live && pull.asked.is_some() && (pull.is_repeat(block) || !pull.is_answer(block)) {
            // To a request that was given up, or made twice: what was asked for since is still to come.
            pull.brought |= block.slots > 0;
            return Outcome::default();
        }
        let asked = pull.asked.take();
        if let Some(at) = asked {
            self.in_flight = self.in_flight.saturating_sub(1);
            match now_us - at {
                took if took > SLOW_US => self.window = (self.window / 2).max(1),
                took if took < FAST_US => self.window = (self.window + 1).min(WINDOW_MAX),
                _ => {}
            }
            self.took_us = now_us - at;
            self.answers += 1;
        }
        if block.offer.last > 0 {
            pull.offer = block.offer;
        }
        if !pull.live {
            // A real child moves the end of an answer up to what it collected meanwhile, and may withhold the start all the
            // same, with the older end as its last entry. It holds what it answered up to.
            pull.offer.last = pull.offer.last.max(block.before.min(block.offer.wall));
            pull.live = block.start;
            pull.repeats = pull.repeats.saturating_add(pull.starts);
            (pull.start, pull.start_since, pull.starts) = (None, None, 0);
            if block.reached < block.before {
                pull.see((block.reached.max(pull.offer.first), block.before));
            }
            if block.start && policy.enabled && block.offer.first > 0 {
                // What it has stored between its offer and this answer came with neither.
                let end = block.before.max(block.offer.last);
                let oldest = block.offer.first.max(standing.now - policy.period);
                pull.see((standing.local_last.max(oldest), end));
            }
            if !block.start {
                let ask = pull.again(block, standing, policy);
                pull.start = Some(ask);
                return Outcome { ask: Some(ask), finished: None };
            }
        } else {
            // An answer that was given up for lost brings what it brings all the same.
            pull.brought |= block.slots > 0;
            if asked.is_some() {
                self.answered_seconds += pull.advance(block);
            }
        }
        self.settle(id)
    }

    /// Drops what the peer did not answer, so that others get their turn, and asks again for what makes charts live.
    pub fn expire(&mut self, now_us: i64) {
        let lost_us = LOST_US.max(LOST_TIMES * self.took_us).min(LOST_MOST_US);
        let late_us = self.late_us();
        let mut lost = Vec::new();
        (self.late, self.starting) = (0, false);
        for (id, pull) in &mut self.charts {
            if let Some(ask) = pull.start {
                self.starting = true;
                let since = *pull.start_since.get_or_insert(now_us);
                // Twice as long each time.
                if now_us - since > lost_us << pull.starts.min(6) {
                    pull.start_since = Some(now_us);
                    pull.starts += 1;
                    self.again.push((Arc::clone(id), ask));
                }
            }
            let Some(at) = pull.asked else { continue };
            if now_us - at > lost_us {
                pull.asked = None;
                pull.stuck += 1;
                if pull.stuck >= STUCK_MAX {
                    pull.holes.clear();
                    pull.unseen = None;
                }
                self.in_flight = self.in_flight.saturating_sub(1);
                lost.push(Arc::clone(id));
            } else if now_us - at > late_us {
                self.late += 1;
            }
        }
        for id in lost {
            self.queue(&id);
        }
    }

    fn late_us(&self) -> i64 {
        LATE_US.max(2 * self.took_us).min(LATE_MOST_US)
    }

    /// One more request may be made. What is late keeps no place; all together are bounded.
    fn has_place(&self) -> bool {
        self.in_flight.saturating_sub(self.late) < self.window && self.in_flight < WINDOW_MAX
    }

    /// The next request about the past, if one may be made now. `missing` gives the holes of a chart between two times;
    /// `budget` is how many slots may still be looked through in this round.
    pub fn more(
        &mut self,
        now_us: i64,
        budget: &mut i64,
        missing: &mut dyn FnMut(&str, i64, i64) -> Vec<Span>,
    ) -> Option<Next> {
        if self.next_look_us <= now_us {
            self.next_look_us = now_us + MICROS;
            self.expire(now_us);
        }
        if let Some((id, ask)) = self.again.pop() {
            return Some(Next::Ask(id, ask));
        }
        while self.has_place() {
            let id = self.turn.front().cloned()?;
            let step = self.policy.step;
            let Some(pull) = self.charts.get_mut(&id) else {
                self.turn.pop_front();
                continue;
            };
            while pull.holes.is_empty()
                && let Some((after, before)) = pull.unseen
            {
                if *budget <= 0 {
                    return None;
                }
                let after = after.max(pull.offer.first);
                let until = before.min(after.saturating_add(LOOK_SLOTS * pull.every));
                pull.unseen = (until < before).then_some((until, before));
                if after < until {
                    *budget -= (until - after) / pull.every + 1;
                    pull.holes.extend(missing(&id, after, until));
                }
            }
            self.turn.pop_front();
            pull.in_turn = false;
            let ask = loop {
                let Some(&(after, before)) = pull.holes.front() else { break None };
                let after = after.max(pull.offer.first);
                let before = before.min(pull.offer.last);
                if after >= before {
                    pull.holes.pop_front();
                    continue;
                }
                break Some(Ask { start: false, after, before: before.min(after + step.max(1)) });
            };
            match ask {
                Some(ask) => {
                    pull.asked = Some(now_us);
                    pull.asked_after = ask.after;
                    self.in_flight += 1;
                    return Some(Next::Ask(id, ask));
                }
                None if pull.unseen.is_some() => self.queue(&id),
                None => {
                    let brought = std::mem::take(&mut pull.brought);
                    return Some(Next::Finished(id, Finished { brought }));
                }
            }
        }
        None
    }

    /// Something may be asked for now, or is to be given up.
    pub fn is_due(&self, now_us: i64) -> bool {
        self.is_eager() || ((self.in_flight > 0 || self.starting) && self.next_look_us <= now_us)
    }

    /// Something could be done at once, were there time.
    pub fn is_eager(&self) -> bool {
        !self.again.is_empty() || (!self.turn.is_empty() && self.has_place())
    }

    /// The peer has said what it holds of this chart.
    pub fn knows(&self, id: &str) -> bool {
        self.charts.contains_key(id)
    }

    /// The chart's past is not complete.
    pub fn is_filling(&self, id: &str) -> bool {
        self.charts.get(id).is_some_and(Pull::is_filling)
    }

    pub fn progress(&self) -> Progress {
        let mut progress = Progress {
            charts: self.charts.len(),
            in_flight: self.in_flight,
            answers: self.answers,
            answered_seconds: self.answered_seconds,
            ..Progress::default()
        };
        for pull in self.charts.values() {
            progress.starting += usize::from(!pull.live);
            progress.filling += usize::from(pull.is_filling());
            let spans = pull.holes.iter().chain(&pull.unseen);
            progress.missing_seconds += spans.map(|(after, before)| before - after).sum::<i64>();
        }
        progress
    }

    /// The chart's entry, whatever request was under way.
    fn renew(&mut self, id: &Arc<str>) -> &mut Pull {
        let pull = self.charts.entry(Arc::clone(id)).or_default();
        if pull.asked.take().is_some() {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        pull.stuck = 0;
        pull.jumped = 0;
        pull.gap = 0;
        pull.short = 0;
        pull
    }

    /// The chart goes on before others begin: what its peer has read ahead of the last answer is of use for the next.
    fn go_on(&mut self, id: &Arc<str>) {
        self.queue(id);
        if self.turn.back() == Some(id)
            && let Some(id) = self.turn.pop_back()
        {
            self.turn.push_front(id);
        }
    }

    fn queue(&mut self, id: &Arc<str>) {
        if let Some(pull) = self.charts.get_mut(id)
            && pull.live
            && pull.asked.is_none()
            && !std::mem::replace(&mut pull.in_turn, true)
        {
            self.turn.push_back(Arc::clone(id));
        }
    }

    /// After an answer: either the chart waits for its turn, or its past is complete.
    fn settle(&mut self, id: &Arc<str>) -> Outcome {
        let Some(pull) = self.charts.get_mut(id) else { return Outcome::default() };
        if pull.is_filling() {
            self.go_on(id);
            return Outcome::default();
        }
        let brought = std::mem::take(&mut pull.brought);
        Outcome { ask: None, finished: Some(Finished { brought }) }
    }
}

impl Pull {
    fn is_filling(&self) -> bool {
        self.unseen.is_some() || !self.holes.is_empty() || self.asked.is_some()
    }

    /// A span is to be looked through for holes, too.
    fn see(&mut self, span: Span) {
        if span.0 < span.1 {
            let of = |seen: Span| (seen.0.min(span.0), seen.1.max(span.1));
            self.unseen = Some(self.unseen.map_or(span, of));
        }
    }

    /// The request after an answer that did not start: a peer withholds it while the second changes, or cuts a block.
    fn again(&mut self, block: Replayed, standing: Standing, policy: Policy) -> Ask {
        self.idle = if standing.local_last >= block.offer.last { self.idle + 1 } else { 0 };
        let after = block.before.max(self.offer.first);
        if self.idle > IDLE_MAX || block.before == 0 || after > self.offer.last {
            return Ask::LIVE;
        }
        if self.is_current() {
            let oldest = self.unseen.map_or(after, |(oldest, _)| oldest);
            return self.newest(oldest, after, policy);
        }
        self.in_order(after, policy)
    }

    /// Live samples wait to flow, or will soon.
    fn is_current(&self) -> bool {
        let Offer { last, wall, .. } = self.offer;
        wall <= 0 || wall - last <= CURRENT_SLOTS * self.every
    }

    /// Asks for the newest slots after `from`, and leaves what lies between `oldest` and them for later.
    fn newest(&mut self, oldest: i64, from: i64, policy: Policy) -> Ask {
        let last =
            self.offer.last.min(if self.offer.wall > 0 { self.offer.wall } else { i64::MAX });
        let slots = policy.step.min(FIRST_SLOTS * self.every).max(self.every);
        let after = from.max(last - slots).min(last);
        self.unseen = (oldest < after).then_some((oldest, after));
        Ask { start: true, after, before: last }
    }

    /// Asks for the next step after `after`; live samples follow the last one.
    fn in_order(&self, after: i64, policy: Policy) -> Ask {
        let last = self.offer.last;
        let before = last.min(after.saturating_add(policy.step.max(1)));
        Ask { start: before >= last, after, before }
    }

    /// The block answers once more what made the chart live, with nothing in it: that says nothing of the past.
    fn is_repeat(&mut self, block: Replayed) -> bool {
        let repeat = self.repeats > 0 && block.start && block.before == 0;
        self.repeats -= u32::from(repeat);
        repeat
    }

    /// The block is about what was asked for: begins there, or reaches into it from before. One that came late, after what it
    /// is about was asked for and answered again, is neither.
    fn is_answer(&self, block: Replayed) -> bool {
        let first = self.offer.first.max(block.offer.first);
        let hole = self.holes.front().map_or(0, |hole| hole.0);
        block.before == 0
            || block.after == self.asked_after
            || (block.after <= hole.max(first) + self.every && block.before > hole)
    }

    /// What was answered is not asked for again, whether it held samples or not. Gives the seconds it was about.
    fn advance(&mut self, block: Replayed) -> i64 {
        let Some(hole) = self.holes.front_mut() else { return 0 };
        if block.before == 0 {
            // The peer has nothing at all.
            self.holes.clear();
            self.unseen = None;
            return 0;
        }
        if block.before <= hole.0 {
            self.stuck += 1;
            if self.stuck >= STUCK_MAX {
                self.stuck = 0;
                self.holes.pop_front();
            }
            return 0;
        }
        self.stuck = 0;
        let (begin, every, jumped) = (hole.0, self.every, std::mem::take(&mut self.jumped));
        let gap = std::mem::take(&mut self.gap);
        let mut end = block.before;
        let is_short = block.reached < block.before && self.short < SHORT_MAX;
        self.short += u32::from(is_short);
        if is_short && block.reached > begin {
            end = block.reached;
        } else if is_short {
            // It ends at its very first slot. What comes after that one may be there, but for steps over more than half of
            // what is left.
            let aligned = |span: i64| span / every * every;
            let half = aligned((hole.1 - begin) / 2);
            let close = if self.short < SHORT_CLOSE { JUMP_SLOTS * every } else { i64::MAX };
            self.jumped = aligned(gap / JUMP_SHARE).min(half).min(close).max(every);
            end = begin + self.jumped;
            self.gap = gap + self.jumped;
        }
        let covered = end.min(hole.1) - begin;
        while let Some(hole) = self.holes.front_mut() {
            if end < hole.1 {
                hole.0 = hole.0.max(end);
                break;
            }
            self.holes.pop_front();
            self.gap = 0;
        }
        if block.slots > 0 && block.reached > begin && jumped > every {
            // Some of what was jumped over may be there as well; its first slot is not.
            self.holes.push_front((begin - jumped + every, begin));
            self.gap = jumped;
        }
        covered
    }
}

/// The end and the beginning of what may be asked for; `None` when there is nothing to get.
fn asked_span(offer: Offer, standing: Standing, policy: Policy) -> Option<Span> {
    let clock = if offer.wall > 0 { offer.wall } else { standing.now };
    let last = offer.last.min(clock).min(latest_believed(standing.now));
    let nothing = !policy.enabled
        || !standing.has_dimensions
        || last <= 0
        || offer.first <= 0
        || offer.first > last;
    let oldest = offer.first.max(standing.now - policy.period);
    (!nothing).then_some((last, oldest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { enabled: true, period: 86_400, step: 600 };

    fn standing(local_last: i64) -> Standing {
        Standing { local_last, has_dimensions: true, now: 100_000 }
    }

    fn offer(first: i64, last: i64) -> Offer {
        Offer { first, last, wall: 100_000 }
    }

    fn id() -> Arc<str> {
        "t.a".into()
    }

    #[track_caller]
    fn first(offer: Offer, standing: Standing, start: bool, after: i64, before: i64) {
        let ask = Pulls::new(POLICY).defined(&id(), offer, standing, 1);
        assert_eq!(ask, Ask { start, after, before });
    }

    #[test]
    fn a_chart_goes_live_with_one_short_answer() {
        first(offer(50_000, 99_999), standing(98_000), true, 99_879, 99_999);
        first(offer(50_000, 99_999), standing(99_990), true, 99_990, 99_999);
        first(offer(1_000, 99_999), standing(0), true, 99_879, 99_999);
        first(offer(99_900, 99_999), standing(0), true, 99_900, 99_999);
        first(offer(99_900, 99_999), standing(99_999), true, 99_999, 99_999);
    }

    #[test]
    fn nothing_is_asked_for_where_there_is_nothing_to_get() {
        for (offer, standing) in [
            (offer(0, 0), standing(0)),
            (offer(99_000, 99_999), Standing { has_dimensions: false, ..standing(0) }),
            (offer(99_999, 99_000), standing(0)),
        ] {
            first(offer, standing, true, 0, 0);
        }
    }

    #[test]
    fn a_child_in_the_future_is_believed_up_to_its_own_clock() {
        let ahead = Offer { first: 99_500, last: 200_000, wall: 100_010 };
        first(ahead, standing(0), true, 99_890, 100_010);
    }

    #[test]
    fn a_chart_that_is_not_collected_just_now_is_asked_for_in_order() {
        let mut pulls = Pulls::new(POLICY);
        let offer = offer(98_000, 99_900);
        let mut ask = pulls.defined(&id(), offer, standing(0), 1);
        let mut asked = vec![ask];
        while !ask.start {
            let block = Replayed {
                offer,
                start: false,
                after: ask.after,
                before: ask.before,
                slots: 1,
                reached: i64::MAX,
            };
            ask = pulls.answered(&id(), block, standing(ask.before), 0).ask.unwrap();
            asked.push(ask);
        }
        let spans = [(98_000, 98_600), (98_600, 99_200), (99_200, 99_800), (99_800, 99_900)];
        assert_eq!(asked.iter().map(|ask| (ask.after, ask.before)).collect::<Vec<_>>(), spans);
        // It is collected again meanwhile: now live samples wait.
        let mut pulls = Pulls::new(POLICY);
        let first = pulls.defined(&id(), offer, standing(0), 1);
        let offer = Offer { last: 99_999, ..offer };
        let block = Replayed {
            offer,
            start: false,
            after: first.after,
            before: first.before,
            slots: 1,
            reached: i64::MAX,
        };
        let ask = pulls.answered(&id(), block, standing(98_600), 0).ask.unwrap();
        assert_eq!(ask, Ask { start: true, after: 99_879, before: 99_999 });
        assert_eq!(pulls.progress().missing_seconds, 99_879 - 98_600);
    }

    /// Answers every request in full and gives the spans asked for about the past.
    fn play(pulls: &mut Pulls, holes: &[Span]) -> Vec<Span> {
        let chart = id();
        let start = Replayed {
            offer: offer(5_000, 99_999),
            start: true,
            after: 1,
            before: 99_999,
            slots: 1,
            reached: i64::MAX,
        };
        let mut finished = pulls.answered(&chart, start, standing(99_999), 0).finished.is_some();
        let mut asked = Vec::new();
        while !finished {
            let mut look = |_: &str, after: i64, before: i64| -> Vec<Span> {
                let cut = holes.iter().map(|hole| (hole.0.max(after), hole.1.min(before)));
                cut.filter(|hole| hole.0 < hole.1).collect()
            };
            let mut budget = i64::MAX;
            match pulls.more(0, &mut budget, &mut look) {
                Some(Next::Ask(_, ask)) => {
                    assert!(!ask.start);
                    asked.push((ask.after, ask.before));
                    let (after, before) = (ask.after, ask.before);
                    let block = Replayed {
                        offer: offer(5_000, 99_999),
                        start: false,
                        after,
                        before,
                        slots: 1,
                        reached: i64::MAX,
                    };
                    let outcome = pulls.answered(&chart, block, standing(99_999), 0);
                    finished = outcome.finished.is_some();
                }
                Some(Next::Finished(..)) => finished = true,
                None => panic!("stuck after {asked:?}"),
            }
        }
        asked
    }

    #[test]
    fn the_past_follows_in_steps_and_holes_are_asked_for_once() {
        let mut pulls = Pulls::new(POLICY);
        pulls.defined(&id(), offer(5_000, 99_999), standing(99_000), 1);
        let asked = play(&mut pulls, &[(14_000, 15_000), (20_000, 20_010), (99_000, 99_999)]);
        assert_eq!(asked[..3], [(14_000, 14_600), (14_600, 15_000), (20_000, 20_010)]);
        assert_eq!(asked[3..], [(99_000, 99_600), (99_600, 99_879)]);
        assert_eq!(pulls.progress().missing_seconds, 0);
    }

    #[test]
    fn a_late_answer_to_another_request_closes_no_hole() {
        let mut pulls = Pulls::new(POLICY);
        let chart = id();
        pulls.offered(&chart, offer(90_000, 99_999), standing(0), 1);
        let mut holes = |_: &str, after: i64, _: i64| match after {
            90_000 => vec![(90_000, 90_010), (91_000, 91_010)],
            _ => Vec::new(),
        };
        let first = pulls.more(0, &mut 1_000_000, &mut holes);
        assert!(matches!(first, Some(Next::Ask(_, ask)) if ask.after == 90_000));
        let block = |after, before| Replayed {
            offer: offer(90_000, 99_999),
            start: false,
            after,
            before,
            slots: 1,
            reached: i64::MAX,
        };
        assert_eq!(
            pulls.answered(&chart, block(95_000, 95_600), standing(0), 0),
            Outcome::default()
        );
        assert_eq!(pulls.more(0, &mut 1_000_000, &mut holes), None, "the answer is still to come");
        pulls.answered(&chart, block(90_000, 90_010), standing(0), 0);
        let second = pulls.more(0, &mut 1_000_000, &mut holes);
        assert!(matches!(second, Some(Next::Ask(_, ask)) if ask.after == 91_000));
    }

    #[test]
    fn a_peer_that_withholds_the_start_is_asked_again_then_for_live_samples_alone() {
        let mut pulls = Pulls::new(POLICY);
        let chart = id();
        pulls.defined(&chart, offer(99_950, 99_999), standing(0), 1);
        let mut asks = 0;
        loop {
            let block = Replayed {
                offer: offer(99_950, 99_999),
                start: false,
                after: 99_950,
                before: 99_999,
                slots: 1,
                reached: i64::MAX,
            };
            let ask = pulls.answered(&chart, block, standing(99_999), 0).ask.unwrap();
            asks += 1;
            if ask == Ask::LIVE {
                break;
            }
            assert!(ask.start && ask.after == 99_999);
        }
        assert_eq!(asks, IDLE_MAX + 1);
    }

    #[test]
    fn a_start_withheld_at_a_newer_end_is_asked_for_from_there_on() {
        let mut pulls = Pulls::new(POLICY);
        let chart = id();
        pulls.defined(&chart, offer(99_900, 99_990), standing(0), 1);
        let block = Replayed {
            offer: Offer { first: 99_900, last: 99_990, wall: 99_992 },
            start: false,
            after: 99_900,
            before: 99_991,
            slots: 91,
            reached: i64::MAX,
        };
        // Live samples alone would leave out what is collected until the child answers that.
        let ask = pulls.answered(&chart, block, standing(99_991), 0).ask;
        assert_eq!(ask, Some(Ask { start: true, after: 99_991, before: 99_991 }));
    }

    #[test]
    fn an_answer_of_no_time_there_is_leaves_nothing_endless_to_look_through() {
        let now = 1_800_000_000;
        let standing = |local_last| Standing { local_last, has_dimensions: true, now };
        let mut pulls = Pulls::new(POLICY);
        let chart = id();
        let offer = Offer { first: now - 100, last: now - 10, wall: now };
        pulls.defined(&chart, offer, standing(0), 1);
        let block = Replayed {
            offer: Offer { first: now - 100, last: i64::MAX, wall: i64::MAX },
            start: true,
            after: now - 100,
            before: i64::MAX,
            slots: 1,
            reached: now - 99,
        };
        pulls.answered(&chart, block, standing(now - 99), 0);
        let missing = pulls.progress().missing_seconds;
        assert!((1..=latest_believed(now) - now + 100).contains(&missing), "{missing}");
    }

    #[test]
    fn what_was_stored_between_an_offer_and_its_answer_is_asked_for() {
        let mut pulls = Pulls::new(POLICY);
        let chart = id();
        // Nothing was held when it was defined; the first sample came before live ones were asked for.
        assert_eq!(pulls.defined(&chart, offer(0, 0), standing(0), 1), Ask::LIVE);
        let block = Replayed {
            offer: offer(99_997, 99_999),
            start: true,
            after: 0,
            before: 0,
            slots: 0,
            reached: 0,
        };
        assert_eq!(pulls.answered(&chart, block, standing(0), 0).finished, None);
        let mut missing = |_: &str, after: i64, until: i64| vec![(after, until)];
        let next = pulls.more(0, &mut 1_000, &mut missing);
        let ask = Ask { start: false, after: 99_997, before: 99_999 };
        assert_eq!(next, Some(Next::Ask(chart, ask)));
    }

    /// A seed peer of 1.x: an answer ends at the first slot without samples, and says that it reaches as far as was asked for.
    /// Gives what came, and how many requests it took.
    fn play_seed(held: &dyn Fn(i64) -> bool, last: i64) -> (Vec<i64>, usize) {
        let mut pulls = Pulls::new(POLICY);
        let chart = id();
        let offer = Offer { first: 99_000, last, wall: last + 1 };
        let mut came: Vec<i64> = Vec::new();
        let mut next = Some(pulls.defined(&chart, offer, standing(0), 1));
        let mut requests = 0;
        while let Some(ask) = next {
            requests += 1;
            assert!(requests < 2_000);
            let slots: Vec<i64> =
                (ask.after + 1..=ask.before).take_while(|slot| held(*slot)).collect();
            let reached = match slots.last() {
                Some(newest) if newest + 1 >= ask.before => ask.before,
                Some(newest) => *newest,
                None => ask.after,
            };
            let block = Replayed {
                offer,
                start: ask.start,
                after: ask.after,
                before: ask.before,
                slots: slots.len() as u32,
                reached,
            };
            came.extend(slots);
            came.sort_unstable();
            came.dedup();
            next =
                pulls.answered(&chart, block, standing(came.last().copied().unwrap_or(0)), 0).ask;
            let mut missing = |_: &str, after: i64, until: i64| {
                let mut spans: Vec<Span> = Vec::new();
                for slot in (after + 1..=until).filter(|slot| came.binary_search(slot).is_err()) {
                    match spans.last_mut() {
                        Some(span) if span.1 == slot - 1 => span.1 = slot,
                        _ => spans.push((slot - 1, slot)),
                    }
                }
                spans
            };
            while next.is_none() {
                match pulls.more(0, &mut 1_000_000, &mut missing) {
                    Some(Next::Ask(_, ask)) => next = Some(ask),
                    Some(Next::Finished(..)) => {}
                    None => break,
                }
            }
        }
        (came, requests)
    }

    #[test]
    fn gaps_that_a_seed_peer_stumbles_over_cost_no_sample_behind_them() {
        let last = 99_999;
        let gaps: [&[Span]; 5] = [
            &[],
            &[(99_950, 99_952)],
            &[(99_300, 99_314), (99_700, 99_701), (99_960, 99_974)],
            &[(99_001, 99_200), (99_990, 99_999)],
            &[(99_400, 99_400), (99_402, 99_402), (99_404, 99_431), (99_440, 99_503)],
        ];
        for gaps in gaps {
            let held = |slot: i64| !gaps.iter().any(|gap| (gap.0..=gap.1).contains(&slot));
            let (came, requests) = play_seed(&held, last);
            let expected: Vec<i64> = (99_001..=last).filter(|slot| held(*slot)).collect();
            assert_eq!(came, expected, "{gaps:?}, {requests} requests");
            assert!(requests < 60, "{requests} requests for {gaps:?}");
        }
        // Every other slot is more than it is asked for.
        let (came, requests) = play_seed(&|slot| slot % 2 == 0, last);
        assert!(requests < 2 * SHORT_MAX as usize, "{requests} requests, {} slots", came.len());
    }

    #[test]
    fn a_request_that_is_never_answered_keeps_nobody_waiting() {
        let mut pulls = Pulls::new(POLICY);
        let charts: Vec<Arc<str>> = (0..4).map(|n| format!("t.{n}").into()).collect();
        for chart in &charts {
            pulls.offered(chart, offer(90_000, 90_500), standing(0), 1);
        }
        let mut whole = |_: &str, after: i64, before: i64| vec![(after, before)];
        let mut more = |pulls: &mut Pulls, now_us: i64| pulls.more(now_us, &mut 10_000, &mut whole);
        pulls.window = 1;
        assert!(matches!(more(&mut pulls, 0), Some(Next::Ask(..))));
        assert_eq!(more(&mut pulls, MICROS), None);
        let next = more(&mut pulls, LATE_US + 1);
        assert!(matches!(next, Some(Next::Ask(id, _)) if id == charts[1]), "another one's turn");
        assert_eq!(more(&mut pulls, LATE_US + 2), None, "one at a time");
    }

    #[test]
    fn a_start_that_is_not_answered_is_asked_for_again() {
        let mut pulls = Pulls::new(POLICY);
        let ask = pulls.defined(&id(), offer(99_000, 99_999), standing(0), 1);
        let mut none = |_: &str, _: i64, _: i64| Vec::new();
        let mut times = Vec::new();
        for second in 0..400 {
            assert!(second == 0 || pulls.is_due(second * MICROS));
            if let Some(next) = pulls.more(second * MICROS, &mut 1_000, &mut none) {
                assert_eq!(next, Next::Ask(id(), ask));
                times.push(second);
            }
        }
        assert_eq!(times, [61, 182]);
        // Whoever had dropped the chart defines it anew.
        let (offer, standing) = (offer(99_000, 99_999), standing(0));
        assert_eq!(pulls.defined_again(&id(), offer, standing, 1, 183 * MICROS), None);
        assert_eq!(pulls.defined_again(&id(), offer, standing, 1, 200 * MICROS), Some(ask));
        // So does who was asked in an earlier session, which is over.
        let mut pulls = Pulls::new(POLICY);
        assert_eq!(pulls.defined_again(&id(), offer, standing, 1, 0), Some(ask));
        assert_eq!(pulls.defined_again(&id(), offer, standing, 1, MICROS), None);
    }

    #[test]
    fn the_second_answer_to_a_start_says_nothing_of_the_past() {
        let mut pulls = Pulls::new(POLICY);
        pulls.defined(&id(), offer(99_000, 99_999), standing(0), 1);
        let mut holes = |_: &str, after: i64, before: i64| vec![(after, before)];
        let mut next = |pulls: &mut Pulls, at: i64| pulls.more(at, &mut 10_000, &mut holes);
        assert_eq!(next(&mut pulls, 0), None);
        assert!(matches!(next(&mut pulls, 61 * MICROS), Some(Next::Ask(_, ask)) if ask.start));
        let block = |after, before, start| Replayed {
            offer: offer(99_000, 99_999),
            start,
            after,
            before,
            slots: 1,
            reached: i64::MAX,
        };
        pulls.answered(&id(), block(99_879, 99_999, true), standing(99_999), 62 * MICROS);
        let past = next(&mut pulls, 63 * MICROS);
        assert!(matches!(past, Some(Next::Ask(_, ask)) if !ask.start && ask.after == 99_000));
        let missing = pulls.progress().missing_seconds;
        pulls.answered(&id(), block(0, 0, true), standing(99_999), 64 * MICROS);
        let progress = pulls.progress();
        assert_eq!((progress.missing_seconds, progress.in_flight), (missing, 1));
        // Once only: who says so in answer to the request itself is believed.
        pulls.answered(&id(), block(0, 0, true), standing(99_999), 65 * MICROS);
        assert_eq!(pulls.progress().missing_seconds, 0);
    }

    #[test]
    fn an_answer_that_comes_twice_is_no_answer_to_what_is_asked_next() {
        let mut pulls = Pulls::new(POLICY);
        let chart = id();
        pulls.offered(&chart, offer(90_000, 91_200), standing(0), 1);
        let mut whole = |_: &str, after: i64, before: i64| vec![(after, before)];
        let mut more = |pulls: &mut Pulls, now_us: i64| pulls.more(now_us, &mut 10_000, &mut whole);
        let block = |after| Replayed {
            offer: offer(90_000, 91_200),
            start: false,
            after,
            before: after + 600,
            slots: 600,
            reached: i64::MAX,
        };
        assert!(matches!(more(&mut pulls, 0), Some(Next::Ask(_, ask)) if ask.after == 90_000));
        // It was not lost, but slow.
        let again = more(&mut pulls, LOST_US + 1);
        assert!(matches!(again, Some(Next::Ask(_, ask)) if ask.after == 90_000));
        pulls.answered(&chart, block(90_000), standing(0), LOST_US + 2);
        let next = more(&mut pulls, LOST_US + 3);
        assert!(matches!(next, Some(Next::Ask(_, ask)) if ask.after == 90_600));
        for _ in 0..STUCK_MAX {
            pulls.answered(&chart, block(90_000), standing(0), LOST_US + 4);
            assert_eq!(more(&mut pulls, LOST_US + 5), None, "its answer is still to come");
        }
        let end = pulls.answered(&chart, block(90_600), standing(0), LOST_US + 6);
        assert!(end.finished.is_some_and(|finished| finished.brought));
    }

    #[test]
    fn slow_answers_narrow_the_window_and_lost_ones_free_it() {
        let mut pulls = Pulls::new(POLICY);
        let charts: Vec<Arc<str>> = (0..20).map(|n| format!("t.{n}").into()).collect();
        for chart in &charts {
            pulls.offered(chart, offer(90_000, 99_999), standing(0), 1);
        }
        let mut whole = |_: &str, after: i64, before: i64| vec![(after, before)];
        let mut asked = |pulls: &mut Pulls, now_us: i64| {
            let mut ids = Vec::new();
            while let Some(Next::Ask(id, _)) = pulls.more(now_us, &mut 1_000_000, &mut whole) {
                ids.push(id);
            }
            ids
        };
        let ids = asked(&mut pulls, 0);
        assert_eq!(ids.len(), 2);
        let block = Replayed {
            offer: offer(90_000, 99_999),
            start: false,
            after: 1,
            before: 90_600,
            slots: 1,
            reached: i64::MAX,
        };
        pulls.answered(&ids[0], block, standing(0), 2 * MICROS);
        assert_eq!(asked(&mut pulls, 2 * MICROS).len(), 0, "one is enough for a slow link");
        assert!(!pulls.is_due(2 * MICROS + 1), "the window is full");
        assert!(pulls.is_due(2 * LOST_US), "there may be something to give up");
        assert_eq!(asked(&mut pulls, 2 * LOST_US).len(), 1, "nobody waits for ever");
    }
}
