//! The streaming path: who a host's samples pass, from its origin to the last parent, as every agent on it learns.
//!
//! Each agent knows what is below it from the child, what is above it from the parent, and puts its own entry between.
//! Fed by receivers and senders with the JSON they get; gives the JSON they pass on. One lock, taken for moments.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::base::ids::{MachineGuid, parse_uuid};
use crate::base::json::JsonWriter;
use crate::wire::caps::Capabilities;
use crate::wire::json::Value;

/// Longer paths are cut: nobody chains that many parents.
const ENTRIES_MAX: usize = 64;

/// One agent on a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub hostname: String,
    pub host_id: MachineGuid,
    pub node_id: Option<String>,
    pub claim_id: Option<String>,
    /// 0 = where the samples are born.
    pub hops: i64,
    pub since: i64,
    pub first_time: i64,
    pub start_ms: i64,
    pub shutdown_ms: i64,
    pub capabilities: Capabilities,
    pub flags: Vec<String>,
    /// Ours alone. Of an agent that evaluates the host's alarms: those that are raised and that somebody was told of, as
    /// CHART.ALARM with the number of the status.
    pub told: Option<Vec<(String, i64)>>,
}

/// Alarms of one entry; more are not told.
pub const TOLD_MAX: usize = 200;
/// Bytes of an alarm's name; what is longer is not heard.
pub const TOLD_NAME_MAX: usize = 400;

const FLAGS: &[&str] = &["aclk", "health", "ml", "ephemeral", "virtual"];

/// Why a payload is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("not a JSON object with a 'streaming_path' array")]
    NotAPath,
    #[error("entry {0} lacks a member or holds an invalid one")]
    Entry(usize),
}

/// Whether a path names what was told of alarms, which only agents of our kind read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    Told,
    Left,
}

impl Words {
    pub fn of(agreed: Capabilities) -> Words {
        if agreed.contains(Capabilities::SPANS) { Words::Told } else { Words::Left }
    }
}

/// Which side of us a path came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Child,
    Parent,
}

/// The paths of all hosts that pass through this agent.
#[derive(Default)]
pub struct Paths {
    hosts: Mutex<FxHashMap<MachineGuid, HostPath>>,
}

#[derive(Default)]
struct HostPath {
    below: Vec<Entry>,
    above: Vec<Entry>,
    /// Grows with every change.
    version: u64,
}

impl Paths {
    pub fn new() -> Paths {
        Paths::default()
    }

    /// Takes in what a neighbour says of the host's path; true when that is news.
    pub fn learn(
        &self,
        host: MachineGuid,
        own_hops: i64,
        own_id: MachineGuid,
        from: From,
        json: &[u8],
    ) -> Result<bool, PathError> {
        let mut entries = parse(json)?;
        entries.retain(|entry| {
            let beyond = match from {
                From::Child => entry.hops <= own_hops,
                From::Parent => entry.hops >= own_hops,
            };
            beyond && entry.host_id != own_id
        });
        entries.sort_by_key(|entry| entry.hops);
        entries.truncate(ENTRIES_MAX);
        let mut hosts = self.hosts.lock();
        let path = hosts.entry(host).or_default();
        let side = match from {
            From::Child => &mut path.below,
            From::Parent => &mut path.above,
        };
        // The first word of a child is always answered.
        let news = *side != entries || path.version == 0;
        if news {
            *side = entries;
            path.version += 1;
        }
        Ok(news)
    }

    /// Another session begins that brings the host: what an earlier one said of the way to here counts no more.
    pub fn begin(&self, host: MachineGuid) {
        if let Some(path) = self.hosts.lock().get_mut(&host)
            && !path.below.is_empty()
        {
            path.below.clear();
            path.version += 1;
        }
    }

    /// A neighbour is gone; true when that changed the path.
    pub fn forget(&self, host: MachineGuid, from: From) -> bool {
        let mut hosts = self.hosts.lock();
        let Some(path) = hosts.get_mut(&host) else { return false };
        if from == From::Child {
            hosts.remove(&host);
            return true;
        }
        let news = !path.above.is_empty();
        path.above.clear();
        path.version += u64::from(news);
        news
    }

    /// The agent that tells of a host's alarms instead of `local`, this one: of those on its path that watch it and are of
    /// our cluster, the one of the fewest hops, and of as many the one of the lowest GUID.
    ///
    /// Of the cluster is an agent that gets the samples of this one and whose samples come here: one below us on the path that
    /// `local` is sent to, or one that `local` is sent to and that is `held` here as a host. One that does not live is left out.
    pub fn owner(
        &self,
        host: MachineGuid,
        (local, own_hops): (MachineGuid, i64),
        held: &dyn Fn(MachineGuid) -> bool,
        lives: &dyn Fn(MachineGuid) -> bool,
    ) -> Option<MachineGuid> {
        let hosts = self.hosts.lock();
        let ours = &hosts.get(&local)?.above;
        let path = hosts.get(&host)?;
        let watches = |entry: &&Entry| {
            entry.flags.iter().any(|flag| flag == "health")
                && is_of_cluster(entry, ours)
                && lives(entry.host_id)
        };
        let rank = |entry: &&Entry| (entry.hops, entry.host_id);
        let below = path.below.iter().filter(watches);
        // Those above are further away, and seldom as far.
        let above = path.above.iter().filter(|entry| entry.hops == own_hops);
        let above = above.filter(watches).filter(|entry| held(entry.host_id));
        let first = below.chain(above).min_by_key(rank)?;
        (rank(&first) < (own_hops, local)).then_some(first.host_id)
    }

    /// What another agent of our cluster that watches the host has told of its alarms, by its last word; the nearest to the
    /// origin. `held` as in [`Self::owner`].
    pub fn told(
        &self,
        host: MachineGuid,
        local: MachineGuid,
        held: &dyn Fn(MachineGuid) -> bool,
    ) -> Option<Vec<(String, i64)>> {
        let hosts = self.hosts.lock();
        let ours = &hosts.get(&local)?.above;
        let path = hosts.get(&host)?;
        let below = path.below.iter();
        let above = path.above.iter().filter(|entry| entry.told.is_some() && held(entry.host_id));
        let mut words = below.chain(above).filter(|entry| is_of_cluster(entry, ours));
        words.find_map(|entry| entry.told.clone())
    }

    /// What was told by others is forgotten, until they say it again.
    pub fn forget_told(&self, host: MachineGuid) {
        if let Some(path) = self.hosts.lock().get_mut(&host) {
            path.below.iter_mut().chain(&mut path.above).for_each(|entry| entry.told = None);
        }
    }

    /// This agent's own entry is another: neighbours are to hear of it.
    pub fn touch(&self, host: MachineGuid) {
        if let Some(path) = self.hosts.lock().get_mut(&host) {
            path.version += 1;
        }
    }

    /// Whether this agent's samples go to another one of our kind whose samples come here: is `held`, as in [`Self::owner`].
    pub fn has_cluster(&self, local: MachineGuid, held: &dyn Fn(MachineGuid) -> bool) -> bool {
        let hosts = self.hosts.lock();
        let above = hosts.get(&local).map(|path| path.above.as_slice()).unwrap_or_default();
        above.iter().any(|entry| {
            entry.host_id != local
                && entry.capabilities.contains(Capabilities::SPANS)
                && held(entry.host_id)
        })
    }

    /// Tells one state of a host's path from the next.
    pub fn version(&self, host: MachineGuid) -> u64 {
        self.hosts.lock().get(&host).map_or(0, |path| path.version)
    }

    /// The whole path as one line of JSON, `own` being this agent's entry.
    pub fn render(&self, host: MachineGuid, own: &Entry, words: Words) -> String {
        let hosts = self.hosts.lock();
        let none = HostPath::default();
        let path = hosts.get(&host).unwrap_or(&none);
        let mut json = JsonWriter::new();
        json.begin_object();
        json.key("version").integer(1);
        json.key("streaming_path").begin_array();
        for entry in path.below.iter().chain([own]).chain(&path.above) {
            json.begin_object();
            entry.write_members(&mut json);
            if let Some(told) = entry.told.as_ref().filter(|_| words == Words::Told) {
                json.key("alarms").begin_object();
                for (alarm, status) in told.iter().take(TOLD_MAX) {
                    json.key(alarm).integer(*status);
                }
                json.end_object();
            }
            json.end_object();
        }
        json.end_array();
        json.end_object();
        json.finish()
    }

    /// The agents of a host's path above this one.
    pub fn above(&self, host: MachineGuid) -> Vec<Entry> {
        self.hosts.lock().get(&host).map(|path| path.above.clone()).unwrap_or_default()
    }

    /// The agents of a host's path below this one.
    pub fn below(&self, host: MachineGuid) -> Vec<Entry> {
        self.hosts.lock().get(&host).map(|path| path.below.clone()).unwrap_or_default()
    }
}

impl Entry {
    /// As the API shows it, without what was told of alarms.
    pub fn write(&self, json: &mut JsonWriter) {
        json.begin_object();
        self.write_members(json);
        json.end_object();
    }

    fn write_members(&self, json: &mut JsonWriter) {
        json.key("version").integer(1);
        json.key("hostname").string(&self.hostname);
        json.key("host_id").string(&self.host_id.to_string());
        json.key("node_id").maybe_string(self.node_id.as_deref());
        json.key("claim_id").maybe_string(self.claim_id.as_deref());
        json.key("hops").integer(self.hops);
        json.key("since").integer(self.since);
        json.key("first_time_t").integer(self.first_time);
        json.key("start_time").integer(self.start_ms);
        json.key("shutdown_time").integer(self.shutdown_ms);
        json.key("capabilities").begin_array();
        for name in self.capabilities.names() {
            json.string(name);
        }
        json.end_array();
        json.key("flags").begin_array();
        for flag in &self.flags {
            json.string(flag);
        }
        json.end_array();
    }

    fn read(value: &Value) -> Option<Entry> {
        let integer = |name: &str| value.get(name)?.integer();
        let maybe_uuid = |name: &str| match value.get(name)? {
            Value::Null => Some(None),
            Value::String(text) => parse_uuid(text).ok().map(|id| Some(id.to_string())),
            _ => None,
        };
        let words = |name: &str| value.get(name)?.array();
        let entry = Entry {
            hostname: value.get("hostname")?.string()?.to_owned(),
            host_id: value.get("host_id")?.string()?.parse().ok()?,
            node_id: maybe_uuid("node_id")?,
            claim_id: maybe_uuid("claim_id")?,
            hops: integer("hops")?,
            since: integer("since")?,
            first_time: integer("first_time_t")?,
            start_ms: integer("start_time")?,
            shutdown_ms: integer("shutdown_time")?,
            capabilities: words("capabilities")?
                .iter()
                .filter_map(|word| Capabilities::by_name(word.string()?))
                .collect(),
            flags: words("flags")?
                .iter()
                .filter_map(|word| word.string())
                .filter(|word| FLAGS.contains(word))
                .map(str::to_owned)
                .collect(),
            told: value.get("alarms").and_then(Value::object).map(|alarms| {
                let numbers = alarms.iter().take(TOLD_MAX);
                numbers
                    .filter(|(name, _)| name.len() <= TOLD_NAME_MAX)
                    .filter_map(|(name, status)| Some((name.clone(), status.integer()?)))
                    .collect()
            }),
        };
        let valid = entry.hops >= 0 && entry.since > 0 && !entry.capabilities.is_empty();
        valid.then_some(entry)
    }
}

/// One half of it: our own samples reach that agent, which is of our kind.
fn is_of_cluster(entry: &Entry, above_local: &[Entry]) -> bool {
    entry.capabilities.contains(Capabilities::SPANS)
        && above_local.iter().any(|above| above.host_id == entry.host_id)
}

fn parse(json: &[u8]) -> Result<Vec<Entry>, PathError> {
    let value = Value::parse(json).ok_or(PathError::NotAPath)?;
    let list = value.get("streaming_path").and_then(Value::array).ok_or(PathError::NotAPath)?;
    let entry = |(number, value)| Entry::read(value).ok_or(PathError::Entry(number));
    list.iter().enumerate().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guid(n: u8) -> MachineGuid {
        format!("0000aaaa-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
    }

    fn entry(n: u8, hops: i64) -> Entry {
        Entry {
            hostname: format!("h{n}"),
            host_id: guid(n),
            node_id: None,
            claim_id: None,
            hops,
            since: 5,
            first_time: 0,
            start_ms: 1,
            shutdown_ms: 2,
            capabilities: Capabilities::VCAPS | Capabilities::SPANS,
            flags: vec!["health".to_owned()],
            told: None,
        }
    }

    fn ids(json: &str) -> Vec<(MachineGuid, i64)> {
        let list = parse(json.as_bytes()).unwrap();
        list.into_iter().map(|entry| (entry.host_id, entry.hops)).collect()
    }

    #[test]
    fn a_path_grows_at_every_agent_and_is_known_to_all() {
        let (child, proxy, parent) = (Paths::new(), Paths::new(), Paths::new());
        let host = guid(0);
        let own = [entry(0, 0), entry(1, 1), entry(2, 2)];
        let up = child.render(host, &own[0], Words::Told);
        assert_eq!(proxy.learn(host, 1, guid(1), From::Child, up.as_bytes()), Ok(true));
        assert_eq!(proxy.learn(host, 1, guid(1), From::Child, up.as_bytes()), Ok(false));
        let up = proxy.render(host, &own[1], Words::Told);
        assert_eq!(parent.learn(host, 2, guid(2), From::Child, up.as_bytes()), Ok(true));
        let down = parent.render(host, &own[2], Words::Told);
        assert_eq!(ids(&down), [(guid(0), 0), (guid(1), 1), (guid(2), 2)]);
        assert_eq!(proxy.learn(host, 1, guid(1), From::Parent, down.as_bytes()), Ok(true));
        let down = proxy.render(host, &own[1], Words::Told);
        assert_eq!(child.learn(host, 0, guid(0), From::Parent, down.as_bytes()), Ok(true));
        assert_eq!(ids(&child.render(host, &own[0], Words::Told)).len(), 3);
        assert!(proxy.forget(host, From::Parent));
        assert_eq!(ids(&proxy.render(host, &own[1], Words::Told)).len(), 2);
    }

    /// Agent 1, which is told from below and above of the paths of its own host and of host 0.
    struct One {
        paths: Paths,
        hops: i64,
    }

    impl One {
        fn at(hops: i64) -> One {
            One { paths: Paths::new(), hops }
        }

        fn hears(&self, host: MachineGuid, from: From, entries: &[Entry]) {
            let (last, others) = entries.split_last().unwrap();
            let path = HostPath { below: others.to_vec(), ..HostPath::default() };
            let told = Paths::default();
            told.hosts.lock().insert(host, path);
            let json = told.render(host, last, Words::Told);
            let hops = if host == guid(1) { 0 } else { self.hops };
            self.paths.learn(host, hops, guid(1), from, json.as_bytes()).unwrap();
        }

        fn owner(&self, held: &[MachineGuid]) -> Option<MachineGuid> {
            self.paths.owner(guid(0), (guid(1), self.hops), &|host| held.contains(&host), &|_| true)
        }

        fn told(&self, held: &[MachineGuid]) -> Option<Vec<(String, i64)>> {
            self.paths.told(guid(0), guid(1), &|host| held.contains(&host))
        }
    }

    #[test]
    fn what_was_told_of_alarms_passes_between_the_agents_of_a_cluster() {
        let one = One::at(1);
        let told = Some(vec![("t.x.high".to_owned(), 3)]);
        let with = |told: &Option<Vec<(String, i64)>>| Entry { told: told.clone(), ..entry(2, 2) };
        one.hears(guid(0), From::Parent, &[with(&told)]);
        assert_eq!(one.told(&[guid(2)]), None, "our own samples do not reach it");
        one.hears(guid(1), From::Parent, &[entry(2, 1)]);
        assert_eq!(one.told(&[guid(2)]), told);
        assert_eq!(one.told(&[guid(3)]), None, "a grandparent, whose samples do not come here");
        assert!(one.paths.has_cluster(guid(1), &|_| true));
        assert!(!one.paths.has_cluster(guid(1), &|_| false));
        one.hears(guid(0), From::Parent, &[with(&None)]);
        assert_eq!(one.told(&[guid(2)]), None);
        one.hears(guid(0), From::Parent, &[with(&Some(Vec::new()))]);
        assert_eq!(one.told(&[guid(2)]), Some(Vec::new()));
        // One below us has its samples here, as those of the host come from it.
        let two = One::at(2);
        two.hears(guid(0), From::Child, &[entry(0, 0), Entry { hops: 1, ..with(&told) }]);
        assert_eq!(two.told(&[]), None);
        two.hears(guid(1), From::Parent, &[entry(2, 1)]);
        assert_eq!(two.told(&[]), told);
        // Not of our kind.
        let strange = Entry { capabilities: Capabilities::VCAPS, ..with(&told) };
        one.hears(guid(0), From::Parent, &[strange]);
        assert_eq!(one.told(&[guid(2)]), None);
    }

    #[test]
    fn names_and_numbers_of_alarms_are_bounded_and_only_for_our_kind() {
        let one = One::at(1);
        let long = "x".repeat(TOLD_NAME_MAX + 1);
        let mut told = vec![(long, 3), ("a.b".to_owned(), 4)];
        told.extend((0..2 * TOLD_MAX).map(|n| (format!("t.x.{n}"), 3)));
        let watcher = Entry { told: Some(told), ..entry(2, 2) };
        one.hears(guid(1), From::Parent, &[entry(2, 1)]);
        one.hears(guid(0), From::Parent, std::slice::from_ref(&watcher));
        let heard = one.told(&[guid(2)]).unwrap();
        assert_eq!((heard.len(), heard[0].0.as_str()), (TOLD_MAX - 1, "a.b"));
        let own = Entry { told: Some(vec![("t.x.high".to_owned(), 3)]), ..entry(1, 1) };
        let left = one.paths.render(guid(0), &own, Words::of(Capabilities::PATHS));
        assert!(!left.contains("alarms") && ids(&left).len() == 2, "{left}");
        let words = Words::of(Capabilities::PATHS | Capabilities::SPANS);
        assert_eq!(one.paths.render(guid(0), &own, words).matches("\"alarms\"").count(), 2);
    }

    #[test]
    fn the_nearest_of_a_cluster_tells_and_of_as_near_ones_the_lowest() {
        let quiet = |n, hops| Entry { flags: Vec::new(), ..entry(n, hops) };
        let (me, all) = (guid(1), [guid(0), guid(2), guid(3)]);
        // Below, and our own samples reach it.
        let one = One::at(3);
        one.hears(guid(0), From::Child, &[entry(0, 0), entry(3, 1), entry(2, 2)]);
        assert_eq!(one.owner(&all), None, "a chain: each tells");
        one.hears(me, From::Parent, &[entry(2, 1), entry(3, 2)]);
        assert_eq!(one.owner(&[]), Some(guid(3)));
        let without = |silent: &[MachineGuid]| {
            one.paths.owner(guid(0), (me, 3), &|_| false, &|agent| !silent.contains(&agent))
        };
        assert_eq!(without(&[guid(3)]), Some(guid(2)), "the next one, when the nearest is missed");
        assert_eq!(without(&[guid(2), guid(3)]), None);
        one.hears(guid(0), From::Child, &[entry(0, 0), quiet(3, 1), entry(2, 2)]);
        assert_eq!(one.owner(&[]), Some(guid(2)), "the nearer one does not watch");
        one.hears(guid(0), From::Child, &[entry(0, 0), quiet(3, 1), quiet(2, 2)]);
        assert_eq!(one.owner(&[]), None);
        // Of as many hops: the lowest GUID, from either side.
        for from in [From::Child, From::Parent] {
            for (other, owner) in [(0x00, true), (0x02, false)] {
                let one = One::at(2);
                one.hears(me, From::Parent, &[entry(other, 1)]);
                let host = guid(9);
                one.hears(host, from, &[entry(other, 2)]);
                let held = |host| host == guid(other);
                let found = one.paths.owner(host, (me, 2), &held, &|_| true);
                assert_eq!(found, owner.then_some(guid(other)), "{from:?} {other}");
            }
        }
        // Above, and further away: this one tells.
        let one = One::at(1);
        one.hears(me, From::Parent, &[entry(2, 1)]);
        one.hears(guid(0), From::Parent, &[entry(2, 2)]);
        assert_eq!(one.owner(&all), None);
    }

    #[test]
    fn what_is_no_path_is_an_error_and_changes_nothing() {
        let paths = Paths::new();
        let learn = |json: &str| paths.learn(guid(0), 1, guid(1), From::Child, json.as_bytes());
        assert_eq!(learn("not json"), Err(PathError::NotAPath));
        assert_eq!(learn("{}"), Err(PathError::NotAPath));
        assert_eq!(learn(r#"{"streaming_path":[{"hostname":"x"}]}"#), Err(PathError::Entry(0)));
        assert_eq!(learn(r#"{"version":1,"streaming_path":[]}"#), Ok(true));
        assert_eq!(paths.version(guid(0)), 1);
    }
}
