//! Who may do what: the rights a port grants and the lists of netdata.conf that say who gets them.
//!
//! A list is tried on the peer's address first. Only where that decides nothing, and the list could hold names, is DNS asked:
//! on the connection's own thread, for few connections at a time, with the answers kept for a while. A name counts only when
//! it leads back to the address. Where DNS gives no answer, nobody is let in for a name, and nobody who stands is sent away for one.
//!
//! Threads: `DNS`, which ask for names that a reload needs ([`Names::learn`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bitflags::bitflags;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::base::pattern::SimplePattern;
use crate::base::sys::{self, NoAnswer};
use crate::base::threads;
use crate::base::time::{Clock, MICROS};
use crate::config::Config;
use crate::net::Peer;

use super::readers::Readers;

bitflags! {
    /// What a connection may ask for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u8 {
        const DASHBOARD = 1;
        const REGISTRY = 2;
        const BADGES = 4;
        const MANAGEMENT = 8;
        const STREAMING = 16;
        const NETDATA_CONF = 32;
    }
}

/// Addresses whose names are remembered.
const NAMES_MAX: usize = 16_384;
const NAME_KEPT_US: i64 = 60 * MICROS;
/// That DNS gave no answer is remembered for a shorter time.
const SILENCE_KEPT_US: i64 = 5 * MICROS;
/// Questions to DNS under way at one time; a connection beyond that counts as having no name.
const LOOKUPS_MAX: usize = 8;
/// Of these, the threads that one call of [`Names::learn`] starts.
const ASKERS: usize = 4;

/// One `allow … from` list.
#[derive(Clone, Debug)]
pub struct AllowList {
    pattern: SimplePattern,
    by_name: bool,
}

/// What a list says about a peer as long as only its address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// The name of the peer may decide.
    AskItsName,
}

impl AllowList {
    /// `by_dns` is `yes`, `no` or `heuristic`: only if the list holds what can be a name.
    pub fn new(list: &str, by_dns: &str) -> Self {
        let by_name = match by_dns {
            "yes" => true,
            "no" => false,
            _ => list.split_ascii_whitespace().any(may_be_a_name),
        };
        AllowList { pattern: SimplePattern::new(list), by_name }
    }

    pub fn by_address(&self, peer: &Peer) -> Verdict {
        match self.pattern.decide(&peer.ip) {
            Some(true) => Verdict::Yes,
            None if self.by_name && peer.address.is_some() => Verdict::AskItsName,
            _ => Verdict::No,
        }
    }

    /// May wait for DNS.
    pub fn allows(&self, peer: &Peer, names: &Names) -> bool {
        match (self.by_address(peer), peer.address) {
            (Verdict::Yes, _) => true,
            (Verdict::AskItsName, Some(address)) => {
                names.of(address).is_ok_and(|name| self.has(name.as_deref()))
            }
            _ => false,
        }
    }

    /// The same by what is known already, without waiting; `None` while the name that decides is not known.
    pub fn knows(&self, peer: &Peer, names: &Names) -> Option<bool> {
        match (self.by_address(peer), peer.address) {
            (Verdict::Yes, _) => Some(true),
            (Verdict::AskItsName, Some(address)) => {
                names.known(address)?.ok().map(|name| self.has(name.as_deref()))
            }
            _ => Some(false),
        }
    }

    fn has(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.pattern.matches(name))
    }
}

fn may_be_a_name(word: &str) -> bool {
    let word = word.trim_start_matches('!');
    word != "localhost"
        && word != "UNKNOWN"
        && word.bytes().any(|b| !b.is_ascii_hexdigit() && !b".:*%/".contains(&b))
}

/// The lists of `[web]` and `[registry]`.
#[derive(Clone, Debug)]
pub struct AllowLists {
    pub connections: AllowList,
    dashboard: AllowList,
    badges: AllowList,
    pub streaming: AllowList,
    netdata_conf: AllowList,
    management: AllowList,
    registry: AllowList,
}

const PRIVATE_NETWORKS: &str = "localhost fd* 10.* 192.168.* 172.16.* 172.17.* 172.18.* 172.19.* 172.20.* 172.21.* \
     172.22.* 172.23.* 172.24.* 172.25.* 172.26.* 172.27.* 172.28.* 172.29.* 172.30.* 172.31.* UNKNOWN";

impl AllowLists {
    pub fn from_config(config: &Config) -> Self {
        let list = |section: &str, what: &str, default: &str, by_dns: &str| {
            let from = config.string(section, &format!("allow {what}from"), default);
            AllowList::new(&from, &config.string(section, &format!("allow {what}by dns"), by_dns))
        };
        AllowLists {
            connections: list("web", "connections ", "localhost *", "heuristic"),
            dashboard: list("web", "dashboard ", "localhost *", "heuristic"),
            badges: list("web", "badges ", "*", "heuristic"),
            registry: list("registry", "", "*", "heuristic"),
            streaming: list("web", "streaming ", "*", "heuristic"),
            netdata_conf: list("web", "netdata.conf ", PRIVATE_NETWORKS, "no"),
            management: list("web", "management ", "localhost", "heuristic"),
        }
    }

    /// What the peer may do on a port that grants `port`. May wait for DNS.
    pub fn rights(&self, peer: &Peer, port: Rights, names: &Names) -> Rights {
        let lists = [
            (Rights::DASHBOARD, &self.dashboard),
            (Rights::BADGES, &self.badges),
            (Rights::REGISTRY, &self.registry),
            (Rights::STREAMING, &self.streaming),
            (Rights::NETDATA_CONF, &self.netdata_conf),
            (Rights::MANAGEMENT, &self.management),
        ];
        let mut rights = Rights::empty();
        for (right, list) in lists {
            rights.set(right, port.contains(right) && list.allows(peer, names));
        }
        rights
    }
}

/// What decides about a request beside its port, as configuration has it now; replaced as a whole.
#[derive(Clone, Debug)]
pub struct Access {
    pub lists: AllowLists,
    pub readers: Readers,
}

impl Access {
    /// What is wrong with it is all there is in the error.
    pub fn read(config: &Config) -> Result<Access, String> {
        let readers = Readers::read(&config.string("web", "read token file", ""))?;
        Ok(Access { lists: AllowLists::from_config(config), readers })
    }

    /// The same where nothing was in force before: without its token file nobody reads.
    pub fn at_start(config: &Config) -> Access {
        Access::read(config).unwrap_or_else(|fault| {
            log::error!(
                "WEB: {fault}. Nobody may read here until it is right (netdatacli reload-config)."
            );
            Access { lists: AllowLists::from_config(config), readers: Readers::none() }
        })
    }
}

/// The access in force. Lock: for copying a pointer.
pub struct Gate(Mutex<Arc<Access>>);

impl Gate {
    pub fn new(access: Access) -> Gate {
        Gate(Mutex::new(Arc::new(access)))
    }

    pub fn now(&self) -> Arc<Access> {
        Arc::clone(&self.0.lock())
    }

    /// For connections that come and for requests on those that stand.
    pub fn replace(&self, access: Access) {
        *self.0.lock() = Arc::new(access);
    }
}

/// The verified name of an address, if it has one.
type Answer = Result<Option<String>, NoAnswer>;
type Resolver = fn(IpAddr) -> Answer;

/// Names of addresses, as DNS has them.
pub struct Names {
    clock: Clock,
    resolver: Resolver,
    known: Mutex<FxHashMap<IpAddr, Known>>,
    asking: AtomicUsize,
}

struct Known {
    answer: Answer,
    until_us: i64,
}

impl Names {
    pub fn new(clock: Clock) -> Self {
        Names::by(clock, verified_name)
    }

    /// With another resolver than the system's.
    pub fn by(clock: Clock, resolver: Resolver) -> Self {
        Names { clock, resolver, known: Mutex::default(), asking: AtomicUsize::new(0) }
    }

    /// Waits for DNS unless it is known; no answer either when too many others wait already.
    fn of(&self, address: IpAddr) -> Answer {
        if let Some(answer) = self.known(address) {
            return answer;
        }
        let turn = self.asking.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
            (n < LOOKUPS_MAX).then_some(n + 1)
        });
        turn.map_err(|_| NoAnswer)?;
        let answer = (self.resolver)(address);
        self.asking.fetch_sub(1, Ordering::AcqRel);
        let kept_us = if answer.is_ok() { NAME_KEPT_US } else { SILENCE_KEPT_US };
        let now_us = self.clock.monotonic_us();
        let until_us = now_us + kept_us;
        let mut known = self.known.lock();
        if known.len() >= NAMES_MAX {
            known.retain(|_, known| now_us < known.until_us);
        }
        if known.len() >= NAMES_MAX {
            known.clear();
        }
        known.insert(address, Known { answer: answer.clone(), until_us });
        answer
    }

    /// What DNS said a moment ago. Never waits.
    fn known(&self, address: IpAddr) -> Option<Answer> {
        let now = self.clock.monotonic_us();
        let known = self.known.lock();
        known.get(&address).filter(|known| now < known.until_us).map(|known| known.answer.clone())
    }

    /// Has the names of these peers asked for where one of the lists needs them, on threads of its own, and waits for the
    /// answers at most so long. What comes later is known later.
    pub fn learn<'a>(
        self: &Arc<Self>,
        lists: &[&AllowList],
        peers: impl Iterator<Item = &'a Peer>,
        patience: Duration,
    ) {
        let needs_name =
            |peer: &Peer| lists.iter().any(|list| list.by_address(peer) == Verdict::AskItsName);
        let addresses = peers.filter(|peer| needs_name(peer)).filter_map(|peer| peer.address);
        let mut unknown: Vec<_> =
            addresses.filter(|address| self.known(*address).is_none()).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown.truncate(NAMES_MAX);
        let unknown: Arc<[IpAddr]> = unknown.into();
        let next = Arc::new(AtomicUsize::new(0));
        // Nothing is sent: it is over when nobody could send any more.
        let (asks, answered) = mpsc::channel::<()>();
        let patience_us = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        let deadline_us = self.clock.monotonic_us().saturating_add(patience_us);
        for _ in 0..ASKERS.min(unknown.len()) {
            let (names, unknown, next) =
                (Arc::clone(self), Arc::clone(&unknown), Arc::clone(&next));
            let asks = asks.clone();
            let body = move || {
                while let Some(address) = unknown.get(next.fetch_add(1, Ordering::Relaxed))
                    && names.clock.monotonic_us() < deadline_us
                {
                    // It is remembered, which is all that is wanted.
                    let _ = names.of(*address);
                }
                drop(asks);
            };
            if let Err(error) = threads::spawn("DNS", body) {
                log::error!("WEB: cannot start a thread that asks for names: {error}.");
            }
        }
        drop(asks);
        // Either way what is known by then is what there is.
        let _ = answered.recv_timeout(patience);
    }
}

fn verified_name(address: IpAddr) -> Answer {
    let Some(name) = sys::host_name_of(address)? else { return Ok(None) };
    Ok(sys::host_has_address(&name, address)?.then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::UnixMicros;

    fn peer(ip: &str) -> Peer {
        Peer { address: ip.parse().ok(), ip: ip.to_owned(), port: "1".to_owned() }
    }

    #[test]
    fn a_list_decides_by_address_where_it_can() {
        let check = |list: &str, by_dns: &str, ip: &str, verdict: Verdict| {
            assert_eq!(AllowList::new(list, by_dns).by_address(&peer(ip)), verdict, "{list} {ip}");
        };
        check("localhost *", "heuristic", "10.0.0.1", Verdict::Yes);
        check("localhost 10.*", "heuristic", "192.0.2.1", Verdict::No);
        check("!10.0.0.1 *.example.com", "heuristic", "10.0.0.1", Verdict::No);
        check("localhost *.example.com", "heuristic", "10.0.0.1", Verdict::AskItsName);
        check("localhost *.example.com", "no", "10.0.0.1", Verdict::No);
        check("10.*", "yes", "192.0.2.1", Verdict::AskItsName);
        check("*.example.com", "yes", "localhost", Verdict::No);
        check(PRIVATE_NETWORKS, "heuristic", "192.0.2.1", Verdict::No);
    }

    #[test]
    fn without_an_answer_nobody_comes_in_and_nobody_has_to_go() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let clock = Clock::manual(UnixMicros(0));
        let resolver = |address: IpAddr| match address.to_string().as_str() {
            "192.0.2.1" => Ok(Some("kid.example.com".to_owned())),
            "192.0.2.2" => Ok(None),
            "192.0.2.3" => Ok(Some("kid.example.org".to_owned())),
            _ => {
                ASKED.fetch_add(1, Ordering::Relaxed);
                Err(NoAnswer)
            }
        };
        let names = Arc::new(Names::by(clock.clone(), resolver));
        let list = AllowList::new("localhost *.example.com", "heuristic");
        let peers = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "localhost"].map(peer);
        let stands = || peers.each_ref().map(|peer| list.knows(peer, &names));
        assert_eq!(stands(), [None, None, None, None, Some(true)]);
        names.learn(&[&list], peers.iter(), Duration::from_secs(20));
        assert_eq!(stands(), [Some(true), Some(false), Some(false), None, Some(true)]);
        assert!(!list.allows(&peers[3], &names));
        assert_eq!(ASKED.load(Ordering::Relaxed), 1, "an outage is remembered for a moment");
        clock.advance(6 * MICROS);
        names.learn(&[&list], peers.iter(), Duration::from_secs(20));
        assert_eq!(ASKED.load(Ordering::Relaxed), 2);
        // A list that decides by addresses asks nobody.
        let other = Arc::new(Names::by(clock, |_| panic!("asked")));
        other.learn(&[&AllowList::new("10.*", "heuristic")], peers.iter(), Duration::ZERO);
    }

    #[test]
    fn a_resolver_that_hangs_is_not_waited_for() {
        static LATE: (Mutex<bool>, parking_lot::Condvar) =
            (Mutex::new(false), parking_lot::Condvar::new());
        let resolver = |_: IpAddr| {
            let mut over = LATE.0.lock();
            LATE.1.wait_while(&mut over, |over| !*over);
            Ok(Some("kid.example.com".to_owned()))
        };
        let names = Arc::new(Names::by(Clock::manual(UnixMicros(0)), resolver));
        let list = AllowList::new("*.example.com", "heuristic");
        let peer = peer("192.0.2.1");
        let knows = || list.knows(&peer, &names);
        names.learn(&[&list], [&peer].into_iter(), Duration::from_millis(20));
        assert_eq!(knows(), None);
        *LATE.0.lock() = true;
        LATE.1.notify_all();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while knows().is_none() {
            assert!(std::time::Instant::now() < deadline, "a late answer is lost");
            std::thread::yield_now();
        }
        assert_eq!(knows(), Some(true));
    }

    #[test]
    fn rights_are_what_the_port_and_the_lists_both_grant() {
        let config = Config::new();
        config.load_text(
            "[web]\nallow dashboard from = 10.*\nallow badges from = !10.2.* *\n",
            "test",
            crate::config::Present::Replace,
        );
        let lists = AllowLists::from_config(&config);
        let names = Names::new(Clock::manual(UnixMicros(0)));
        let rights = |ip: &str, port| lists.rights(&peer(ip), port, &names);
        let all = Rights::all();
        assert_eq!(rights("10.2.0.1", all), all - Rights::BADGES - Rights::MANAGEMENT);
        assert_eq!(rights("192.0.2.1", all), Rights::BADGES | Rights::REGISTRY | Rights::STREAMING);
        assert_eq!(rights("10.1.0.1", Rights::BADGES | Rights::MANAGEMENT), Rights::BADGES);
    }
}
