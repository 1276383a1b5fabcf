//! The two ends of a link, without its socket: what each says about samples of the past, what it asks for and how it
//! answers. Receivers and senders are thin shells around them; the simulator runs the same code.
//!
//! [`Below`] is the parent's end, with the child below; [`Above`] is the child's, with the parent above. Each is used by the
//! thread that reads its link and, as an [`Outlet`], by the replication threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::mailbox::Mailbox;
use super::puller::Puller;
use super::receiver::Child;
use super::replication::{Ahead, AheadOfLink, Ask};
use super::shelf::Shelf;
use super::uplink::{Content, PAST_BYTES, Uplink};
use super::verify::{Digest, Digests, Question};
use super::workers::Outlet;
use crate::base::time::{Clock, MICROS, UnixSeconds};
use crate::ingest::executor::{Executor, Hooks, Offer, Origin, Replayed, Setup};
use crate::metrics::{Chart, Host, HostKind, Neighbour};
use crate::storage::Mode;
use crate::wire::caps::Capabilities;
use crate::wire::pluginsd;

/// What does not flow is offered so long after a connection stands: by then what flows is defined.
pub const OFFER_AFTER_US: i64 = 5 * MICROS;
/// What is read ahead of a link's answers: of each of the charts that a peer of ours asks for at once, what is read at once.
const AHEAD_BYTES: usize = 8 << 20;
/// Offers made in one piece.
const OFFERS_BYTES: usize = 16 * 1024;

// --- the parent's end ----------------------------------------------------------------------------------

pub struct Below {
    pub agreed: Capabilities,
    pub mailbox: Mailbox,
    pub puller: Puller,
    /// Bytes taken from the mailbox that the child has not taken yet.
    unsent: AtomicUsize,
    /// Towards a node of ours, once its host is known.
    shelf: OnceLock<Shelf>,
    ahead: AheadOfLink,
    pub digests: Digests,
}

impl Below {
    pub fn new(agreed: Capabilities, mailbox: Mailbox, puller: Puller) -> Below {
        Below {
            agreed,
            mailbox,
            puller,
            unsent: AtomicUsize::new(0),
            shelf: OnceLock::new(),
            ahead: AheadOfLink::new(Ahead::new(AHEAD_BYTES)),
            digests: Digests::default(),
        }
    }

    /// The host of the link is known; true when the link is one between nodes of ours.
    pub fn attach(&self, host: &Arc<Host>, clock: &Clock) -> bool {
        let is_ours = self.agreed.contains(Capabilities::SPANS);
        if is_ours {
            let _ = self.shelf.set(Shelf::new(Arc::clone(host), clock.clone(), self.agreed));
        }
        is_ours
    }

    pub fn set_unsent(&self, bytes: usize) {
        self.unsent.store(bytes, Ordering::Release);
    }

    /// Everything that does not flow was offered.
    pub fn is_told(&self) -> bool {
        self.shelf.get().is_some_and(Shelf::is_told)
    }

    /// Gives back what was read ahead and nobody came for. Never waits.
    pub fn rest(&self, clock: &Clock) {
        rest(&self.ahead, clock);
    }

    pub fn ask(&self, chart: &str, ask: Ask) {
        self.mailbox.post(|out| {
            pluginsd::replay_chart(out, chart, ask.start, ask.after, ask.before);
        });
    }

    /// Asks for what may be asked for now.
    pub fn more(&self, host: &Host) {
        self.puller.more(host, &mut |chart, ask| self.ask(chart, ask));
    }

    /// Asks the child the same; waits, so never to be called by who reads the link.
    pub fn ask_digest(
        &self,
        chart: &str,
        after: i64,
        before: i64,
        dim: Option<&str>,
    ) -> Option<Digest> {
        self.shelf.get()?;
        self.digests.ask(|number| {
            self.mailbox.post(|out| {
                pluginsd::digest(out, number, chart, after, before, dim.unwrap_or(""));
            });
        })
    }

    /// A child of ours hears what is held here of a chart.
    pub fn offer(&self, chart: &Chart) {
        if let Some(shelf) = self.shelf.get() {
            let mut text = Vec::new();
            shelf.put_offer(&mut text, chart);
            self.mailbox.post(|out| out.extend_from_slice(&text));
        }
    }

    pub fn defined(&self, host: &Host, chart: &Chart, offer: Offer) {
        if host.settings().mode == Mode::None {
            // Nothing is kept here: live samples are wanted at once, the past when a parent asks for it.
            let held = (UnixSeconds(offer.first), UnixSeconds(offer.last));
            chart.lock().downstream = Some(held);
            self.ask(chart.id(), Ask::LIVE);
            return;
        }
        let ask = self.puller.defined(chart, offer);
        self.offer(chart);
        self.ask(chart.id(), ask);
    }

    pub fn defined_again(&self, host: &Host, chart: &Chart, offer: Offer) {
        if host.settings().mode == Mode::None {
            // The peer may have dropped what it was asked; a second answer does no harm.
            self.defined(host, chart, offer);
        } else if let Some(ask) = self.puller.defined_again(chart, offer) {
            self.offer(chart);
            self.ask(chart.id(), ask);
        }
    }

    pub fn replayed(&self, host: &Host, chart: &Chart, block: Replayed) {
        if host.settings().mode == Mode::None {
            // The answer to a parent's request, given instead of the one to ours.
            if !block.start && chart.lock().replicating {
                self.ask(chart.id(), Ask::LIVE);
            }
            return;
        }
        if let Some(ask) = self.puller.replayed(chart, block) {
            self.ask(chart.id(), ask);
        }
    }

    pub fn offered(&self, host: &Host, chart: &Chart, offer: Offer, dims: &[Arc<str>]) {
        if host.settings().mode != Mode::None {
            self.puller.offered(chart, offer, dims);
            self.offer(chart);
        }
    }
}

impl Outlet for Below {
    fn answer(&self, chart: &str, ask: Ask) -> bool {
        let Some(shelf) = self.shelf.get() else { return true };
        let flows = |chart: &Chart| self.puller.knows(chart.id());
        if chart.is_empty() {
            let put = &mut |text: &[u8]| {
                self.mailbox.post(|out| out.extend_from_slice(text));
            };
            return tell(shelf, &flows, &|| self.has_room(), put);
        }
        if !self.has_room() {
            return false;
        }
        let mut block = Vec::new();
        shelf.answer(&mut block, chart, ask, PAST_BYTES, &self.ahead);
        self.mailbox.post(|out| out.extend_from_slice(&block));
        true
    }

    fn digest(&self, question: &Question) {
        if let Some(shelf) = self.shelf.get() {
            let Digest { samples, sum } = shelf.digest(question);
            self.mailbox.post(|out| pluginsd::digest_is(out, question.number, samples, sum));
        }
    }

    fn has_room(&self) -> bool {
        self.mailbox.waiting() + self.unsent.load(Ordering::Acquire) <= 2 * PAST_BYTES
    }
}

/// Whoever answers just now has use for what was read.
fn rest(ahead: &AheadOfLink, clock: &Clock) {
    if let Some(mut ahead) = ahead.try_lock() {
        ahead.rest(clock.now_seconds());
    }
}

/// Offers what does not flow as long as there is room; false when there is none and something is left.
fn tell(
    shelf: &Shelf,
    flows: &dyn Fn(&Chart) -> bool,
    has_room: &dyn Fn() -> bool,
    put: &mut dyn FnMut(&[u8]),
) -> bool {
    while has_room() {
        let (mut text, mut more) = (Vec::new(), true);
        while more && text.len() < OFFERS_BYTES {
            more = shelf.tell(&mut text, flows);
        }
        put(&text);
        if !more {
            return true;
        }
    }
    false
}

// --- the child's end -----------------------------------------------------------------------------------

/// Gives the child that is asked for the past of a host, where this agent keeps none itself.
type PastIsWith = Box<dyn Fn() -> Option<Arc<Child>> + Send + Sync>;

pub struct Above {
    uplink: Arc<Uplink>,
    number: u32,
    /// Towards a node of ours.
    shelf: Option<Shelf>,
    /// What is missing here and may be had from the parent.
    pub puller: Option<Arc<Puller>>,
    past_is_with: PastIsWith,
    ahead: AheadOfLink,
    pub digests: Arc<Digests>,
}

impl Above {
    /// `puller` is what a parent of ours would be asked with.
    pub fn new(
        uplink: Arc<Uplink>,
        number: u32,
        agreed: Capabilities,
        puller: Puller,
        clock: &Clock,
        past_is_with: PastIsWith,
    ) -> Above {
        let host = Arc::clone(uplink.host());
        let is_ours = agreed.contains(Capabilities::SPANS);
        // A node keeps what it can keep: older samples are of use to whoever has a database for them.
        let mode = host.settings().mode;
        let keeps = mode.persists() || (host.kind() == HostKind::Child && mode != Mode::None);
        Above {
            shelf: is_ours.then(|| Shelf::new(host, clock.clone(), agreed)),
            puller: (is_ours && keeps).then(|| Arc::new(puller)),
            uplink,
            number,
            past_is_with,
            ahead: AheadOfLink::new(Ahead::new(AHEAD_BYTES)),
            digests: Arc::default(),
        }
    }

    /// What reads a parent's words about samples, if it is one of ours; `questioned` is called with its questions.
    pub fn reader(
        self: &Arc<Self>,
        agreed: Capabilities,
        questioned: impl Fn(Question) + Send + 'static,
    ) -> Option<Executor> {
        self.shelf.as_ref()?;
        let hooks = FromAbove { above: Arc::clone(self), questioned: Box::new(questioned) };
        Some(Executor::new(Setup {
            origin: Origin::Stream(agreed),
            hooks: Box::new(hooks),
            ..Setup::new(Arc::clone(self.uplink.host()))
        }))
    }

    /// Everything that does not flow was offered.
    pub fn is_told(&self) -> bool {
        self.shelf.as_ref().is_some_and(Shelf::is_told)
    }

    /// The parent is a node of ours.
    pub fn is_ours(&self) -> bool {
        self.shelf.is_some()
    }

    /// Asks the parent what a span comes to; waits, so never to be called by who reads the link.
    pub fn ask_digest(
        &self,
        chart: &str,
        after: i64,
        before: i64,
        dim: Option<&str>,
    ) -> Option<Digest> {
        self.shelf.as_ref()?;
        self.digests.ask(|number| {
            self.uplink.push(self.number, Content::Replication, |out| {
                pluginsd::digest(out, number, chart, after, before, dim.unwrap_or(""));
            });
        })
    }

    /// Gives back what was read ahead and nobody came for. Never waits.
    pub fn rest(&self, clock: &Clock) {
        rest(&self.ahead, clock);
    }

    /// Everything was offered, and everything missing was asked for and answered.
    pub fn is_settled(&self) -> bool {
        let pulled = |puller: &Arc<Puller>| puller.progress().filling == 0;
        self.is_told() && self.puller.as_ref().is_none_or(pulled)
    }

    /// The link is over: what only the parent was filling is as any other chart.
    pub fn let_go(&self) {
        if self.puller.is_some() {
            for chart in self.uplink.host().charts() {
                chart.lock().filling.set(Neighbour::Parent, false);
            }
        }
    }

    /// Asks for what may be asked for now; true when there is more to do at once.
    pub fn more(&self) -> bool {
        let Some(puller) = &self.puller else { return false };
        let (uplink, number) = (&self.uplink, self.number);
        puller.more(uplink.host(), &mut |chart, ask| put_ask(uplink, number, chart, ask));
        puller.is_eager()
    }
}

fn put_ask(uplink: &Uplink, number: u32, chart: &str, ask: Ask) {
    uplink.push(number, Content::Replication, |out| {
        pluginsd::replay_chart(out, chart, ask.start, ask.after, ask.before);
    });
}

impl Outlet for Above {
    fn answer(&self, chart: &str, ask: Ask) -> bool {
        let (uplink, number) = (&self.uplink, self.number);
        if let Some(shelf) = &self.shelf {
            let flows = |chart: &Chart| Uplink::is_defined(number, &chart.lock());
            if chart.is_empty() {
                let put = &mut |text: &[u8]| {
                    uplink.push(number, Content::Replication, |out| out.extend_from_slice(text));
                };
                return tell(shelf, &flows, &|| uplink.has_room(number), put);
            }
            let does_flow = uplink.host().chart(chart).is_some_and(|chart| flows(&chart));
            if !ask.start && (shelf.has_more_of(chart) || !does_flow) {
                if !uplink.has_room(number) {
                    return !uplink.is_open(number);
                }
                let mut block = Vec::new();
                shelf.answer(&mut block, chart, ask, PAST_BYTES, &self.ahead);
                uplink.push(number, Content::Replication, |out| out.extend_from_slice(&block));
                return true;
            }
        }
        let child = (self.past_is_with)();
        let mailbox = child.as_ref().map(|child| &child.below.mailbox);
        uplink.replay(number, chart, ask, mailbox, &self.ahead)
    }

    fn digest(&self, question: &Question) {
        if let Some(shelf) = &self.shelf {
            let Digest { samples, sum } = shelf.digest(question);
            let put = |out: &mut Vec<u8>| pluginsd::digest_is(out, question.number, samples, sum);
            self.uplink.push(self.number, Content::Replication, put);
        }
    }

    fn has_room(&self) -> bool {
        // What waits for a child's answer is tried again when the outbox was emptied.
        self.uplink.host().settings().mode != Mode::None && self.uplink.has_room(self.number)
    }
}

/// What a parent says of samples.
struct FromAbove {
    above: Arc<Above>,
    questioned: Box<dyn Fn(Question) + Send>,
}

impl Hooks for FromAbove {
    fn wants_archived(&self, _host: &Arc<Host>) -> bool {
        self.above.puller.is_some()
    }

    fn offered(&mut self, _host: &Arc<Host>, chart: &Arc<Chart>, offer: Offer, dims: &[Arc<str>]) {
        if let Some(puller) = &self.above.puller {
            puller.offered(chart, offer, dims);
        }
    }

    fn replayed(&mut self, _host: &Arc<Host>, chart: &Arc<Chart>, block: Replayed) {
        if let Some(puller) = &self.above.puller
            && let Some(ask) = puller.replayed(chart, block)
        {
            put_ask(&self.above.uplink, self.above.number, chart.id(), ask);
        }
    }

    fn digest(&mut self, number: u64, chart: &str, after: i64, before: i64, dim: Option<&str>) {
        let (chart, dim) = (chart.to_owned(), dim.map(str::to_owned));
        (self.questioned)(Question { number, chart, after, before, dim });
    }

    fn digest_is(&mut self, number: u64, samples: u64, sum: u64) {
        self.above.digests.answered(number, Digest { samples, sum });
    }
}
