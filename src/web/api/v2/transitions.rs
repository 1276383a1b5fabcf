//! `/api/v2/alert_transitions`: what happened to alarms, over all hosts, the newest first.
//!
//! The entries that the log keeps of the time that is meant are looked at, the newest first and [`SEEN_MAX`] at most; as many
//! of those that pass all filters as were asked for are kept, and all of them are counted. What is older than what was looked
//! at is got with `before`. No lock is held but that of the log's reader, for a page at a time.

use std::collections::{BTreeMap, BinaryHeap};

use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::envelope::{Node, Scope, Tail, pattern};
use crate::base::ids::MachineGuid;
use crate::base::json::JsonWriter;
use crate::base::pattern::SimplePattern;
use crate::health::log::{Entry, Span, flag};
use crate::health::text;
use crate::web::api::Call;
use crate::web::api::v1::alarms::{NO_HASH, global_id};
use crate::web::http::Response;
use crate::wire::http::Query;

/// Transitions of one answer.
const MOST: i64 = 1000;
/// Entries that one answer looks at.
const SEEN_MAX: usize = 100_000;
/// Values of a facet that are listed.
const OPTIONS_MAX: usize = 200;
/// Times before this are relative.
const RELATIVE_MAX: i64 = 3 * 365 * 86_400;

/// Their parameter, their name, and what they look at: an entry, and the name of its host.
type Facet = (&'static str, &'static str, fn(&Entry, &str) -> String);

/// What transitions can be filtered by.
const FACETS: [Facet; 9] = [
    ("f_status", "Alert Status", |e, _| e.status.name().to_owned()),
    ("f_type", "Alert Type", |e, _| e.type_.clone()),
    ("f_role", "Recipient Role", |e, _| e.recipient.clone()),
    ("f_class", "Alert Class", |e, _| e.class.clone()),
    ("f_component", "Alert Component", |e, _| e.component.clone()),
    ("f_node", "Alert Node", |_, hostname| hostname.to_owned()),
    ("f_alert", "Alert Name", |e, _| e.name.clone()),
    ("f_instance", "Instance Name", |e, _| e.chart.clone()),
    ("f_context", "Context", |e, _| e.context.clone()),
];

/// What is asked for.
struct Wanted {
    after: i64,
    before: i64,
    contexts: Vec<SimplePattern>,
    alert: Option<String>,
    transition: Option<Uuid>,
    /// Only older ones.
    anchor: i64,
    last: usize,
    /// Values that are let through, facet by facet; none: all.
    facets: [Vec<String>; FACETS.len()],
}

impl Wanted {
    fn of(query: &Query, now: i64) -> Wanted {
        let time = |name: &str, from: i64, default: i64| match query.integer(name) {
            None | Some(0) => default,
            Some(time) if time.abs() <= RELATIVE_MAX => from.saturating_add(-time.abs()),
            Some(time) => time,
        };
        let before = time("before", now, i64::MAX);
        let list = |name: &str| {
            let words = query.get(name).unwrap_or("").split([',', '|']);
            words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        Wanted {
            after: time("after", before.min(now), 0),
            before,
            contexts: ["scope_contexts", "contexts"]
                .iter()
                .filter_map(|name| pattern(query.get(name).unwrap_or("")))
                .collect(),
            alert: query.get("alert").map(str::to_owned),
            transition: query.get("transition").map(|id| id.parse().unwrap_or_default()),
            anchor: query.integer("anchor_gi").filter(|gi| *gi > 0).unwrap_or(i64::MAX),
            last: usize::try_from(query.integer("last").unwrap_or(1).clamp(1, MOST)).unwrap_or(1),
            facets: FACETS.map(|(name, ..)| list(name)),
        }
    }

    /// Facets aside.
    fn allows(&self, entry: &Entry, host: MachineGuid) -> bool {
        self.contexts.iter().all(|pattern| pattern.matches(&entry.context))
            && self.alert.as_ref().is_none_or(|name| *name == entry.name)
            && self.transition.is_none_or(|id| id == transition_id(host, entry))
    }
}

/// The newest so far; the heap's top is the oldest of them.
struct Kept {
    gi: i64,
    node: usize,
    entry: Entry,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.gi == other.gi
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.gi.cmp(&self.gi)
    }
}

#[derive(Default)]
struct Found {
    kept: BinaryHeap<Kept>,
    /// How many there are of each value, were its facet not filtered.
    facets: [BTreeMap<String, usize>; FACETS.len()],
    evaluated: usize,
    matched: usize,
    /// Newer than the anchor, older than what is kept.
    newer: usize,
}

impl Found {
    fn take(&mut self, wanted: &Wanted, node: usize, host: MachineGuid, name: &str, entry: Entry) {
        self.evaluated += 1;
        if !wanted.allows(&entry, host) {
            return;
        }
        let values = FACETS.map(|(.., value)| value(&entry, name));
        let passes: [bool; FACETS.len()] = std::array::from_fn(|facet| {
            wanted.facets[facet].is_empty() || wanted.facets[facet].contains(&values[facet])
        });
        let refused = passes.iter().filter(|passes| !**passes).count();
        for (facet, value) in values.into_iter().enumerate() {
            if refused == 0 || (refused == 1 && !passes[facet]) {
                *self.facets[facet].entry(value).or_default() += 1;
            }
        }
        if refused > 0 {
            return;
        }
        self.matched += 1;
        let gi = global_id(host, entry.when, entry.unique_id);
        if gi >= wanted.anchor {
            self.newer += 1;
            return;
        }
        self.kept.push(Kept { gi, node, entry });
        if self.kept.len() > wanted.last {
            self.kept.pop();
        }
    }
}

fn transition_id(host: MachineGuid, entry: &Entry) -> Uuid {
    Uuid::new_v5(&host.0, &entry.unique_id.to_be_bytes())
}

pub fn alert_transitions(call: &Call<'_>) -> Response {
    let scope = Scope::of(call);
    let wanted = Wanted::of(call.query(), scope.now());
    let mut found = Found::default();
    if let Some(health) = &call.agent.health {
        let nodes = scope.nodes.iter();
        let nodes: FxHashMap<MachineGuid, (usize, String)> = nodes
            .map(|node| (node.host.guid(), (node.index, node.host.hostname().to_string())))
            .collect();
        let mut hosts = nodes.keys();
        let host = hosts.next().copied().filter(|_| hosts.next().is_none());
        let span = Span { host, after: wanted.after, before: wanted.before, most: SEEN_MAX };
        let mut take = |host: MachineGuid, entry| {
            if let Some((node, name)) = nodes.get(&host) {
                found.take(&wanted, *node, host, name, entry);
            }
        };
        if !nodes.is_empty() {
            health.log().visit(&span, &|host| nodes.contains_key(&host), &mut take);
        }
    }
    let evaluated = (found.evaluated, found.matched, found.newer);
    let kept = found.kept.into_sorted_vec();
    scope.answer(Tail::Agents, |j| {
        scope.write_nodes(j);
        j.key("facets").array(|j| {
            for (order, ((id, name, _), values)) in FACETS.iter().zip(&found.facets).enumerate() {
                j.object(|j| {
                    j.key("id").string(id);
                    j.key("name").string(name);
                    j.key("order").count(order + 1);
                    j.key("options").array(|j| {
                        for (value, count) in values.iter().take(OPTIONS_MAX) {
                            j.object(|j| {
                                j.key("id").string(value);
                                j.key("name").string(value);
                                j.key("count").count(*count);
                            });
                        }
                    });
                });
            }
        });
        j.key("transitions").array(|j| {
            for one in &kept {
                if let Some(node) = scope.nodes.get(one.node) {
                    write_transition(j, node, one);
                }
            }
        });
        j.key("items").object(|j| {
            let (evaluated, matched, newer) = evaluated;
            j.key("evaluated").count(evaluated);
            j.key("matched").count(matched);
            j.key("returned").count(kept.len());
            j.key("max_to_return").count(wanted.last);
            j.key("before").count(newer);
            j.key("after").count(matched.saturating_sub(newer + kept.len()));
        });
    })
}

fn write_transition(j: &mut JsonWriter, node: &Node, one: &Kept) {
    let (entry, guid) = (&one.entry, node.host.guid());
    let has = |bit: i64| entry.flags & bit != 0;
    j.object(|j| {
        j.key("gi").integer(one.gi);
        j.key("transition_id").string(&transition_id(guid, entry).to_string());
        j.key("config_hash_id").string(NO_HASH);
        j.key("machine_guid").string(&guid.to_string());
        j.key("hostname").string(&node.host.hostname());
        j.key("ni").count(node.index);
        j.key("alert").string(&entry.name);
        j.key("instance").string(&entry.chart);
        j.key("instance_n").string(&entry.chart);
        j.key("context").string(&entry.context);
        j.key("family").string(&entry.family);
        j.key("component").string(&entry.component);
        j.key("classification").string(&entry.class);
        j.key("type").string(&entry.type_);
        j.key("when").integer(entry.when);
        j.key("info").string(&entry.info);
        j.key("units").string(&entry.units);
        j.key("source").string(&entry.source);
        j.key("new").object(|j| {
            j.key("status").string(entry.status.name());
            j.key("value").number(entry.value);
            j.key("value_string").string(&text::value(entry.value, &entry.units));
        });
        j.key("old").object(|j| {
            j.key("status").string(entry.old_status.name());
            j.key("value").number(entry.old_value);
            j.key("value_string").string(&text::value(entry.old_value, &entry.units));
            j.key("duration").integer(entry.duration);
            j.key("raised_duration").integer(entry.non_clear);
        });
        j.key("notification").object(|j| {
            j.key("when").integer(entry.exec_run);
            j.key("delay").integer(entry.delay);
            j.key("delay_up_to_time").integer(entry.delay_until);
            j.key("health_flags").array(|j| {
                for (bit, word) in [
                    (flag::PROCESSED, "PROCESSED"),
                    (flag::UPDATED, "UPDATED"),
                    (flag::EXEC_RUN, "EXEC_RUN"),
                    (flag::EXEC_FAILED, "EXEC_FAILED"),
                    (flag::SILENCED, "SILENCED"),
                    (flag::NO_CLEAR, "NO_CLEAR_NOTIFICATION"),
                ] {
                    if has(bit) {
                        j.string(word);
                    }
                }
            });
            j.key("exec").string(&entry.exec);
            j.key("exec_code").integer(entry.exec_code);
            j.key("to").string(&entry.recipient);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::alarm::Status;

    fn entry(unique_id: i64, name: &str, status: Status) -> Entry {
        Entry {
            unique_id,
            alarm_id: 1,
            event_id: 1,
            updated_by: 0,
            updates: 0,
            when: unique_id,
            duration: 0,
            non_clear: 0,
            flags: 0,
            exec_run: 0,
            delay_until: 0,
            name: name.into(),
            chart: "t.c".into(),
            family: "f".into(),
            exec: String::new(),
            recipient: "sysadmin".into(),
            source: String::new(),
            units: String::new(),
            info: String::new(),
            exec_code: 0,
            status,
            old_status: Status::Clear,
            delay: 0,
            value: 1.0,
            old_value: 0.0,
            last_repeat: 0,
            class: "Errors".into(),
            component: "C".into(),
            type_: "System".into(),
            context: "t.ctx".into(),
        }
    }

    fn ask(raw: &str) -> (Vec<i64>, Found) {
        let wanted = Wanted::of(&Query::parse(raw.as_bytes()).unwrap(), 1_700_000_000);
        let mut found = Found::default();
        let (a, b) = (MachineGuid::random(), MachineGuid::random());
        for n in 0..50 {
            let (host, name) = if n % 2 == 0 { (a, "even") } else { (b, "odd") };
            let status = if n % 5 == 0 { Status::Critical } else { Status::Warning };
            let alarm = if n < 10 { "early" } else { "late" };
            found.take(&wanted, 0, host, name, entry(1000 + n, alarm, status));
        }
        let kept = std::mem::take(&mut found.kept).into_sorted_vec();
        (kept.iter().map(|one| one.entry.when - 1000).collect(), found)
    }

    #[test]
    fn the_newest_come_first_and_pages_follow_each_other() {
        assert_eq!(ask("").0, [49]);
        assert_eq!(ask("last=3").0, [49, 48, 47]);
        let anchor = (1000 + 47) * 1_000_000;
        let (page, found) = ask(&format!("last=2&anchor_gi={anchor}"));
        assert_eq!((page, found.matched, found.newer), (vec![46, 45], 50, 3));
    }

    #[test]
    fn facets_filter_and_count_as_if_they_did_not() {
        let (kept, found) = ask("last=100&f_status=CRITICAL&f_node=even,none&f_alert=late");
        assert_eq!(kept, [40, 30, 20, 10]);
        let counts = |facet: usize| -> Vec<(String, usize)> {
            found.facets[facet].iter().map(|(value, count)| (value.clone(), *count)).collect()
        };
        assert_eq!(counts(0), [("CRITICAL".to_owned(), 4), ("WARNING".to_owned(), 16)]);
        assert_eq!(counts(5), [("even".to_owned(), 4), ("odd".to_owned(), 4)]);
        assert_eq!(counts(6), [("early".to_owned(), 1), ("late".to_owned(), 4)]);
        assert!(ask("last=100&contexts=x.*").0.is_empty());
        assert_eq!(ask("last=100&alert=early").0.len(), 10);
        assert!(ask("transition=what").0.is_empty());
    }

    #[test]
    fn times_are_absolute_or_before_another() {
        let of = |raw: &str| {
            let wanted = Wanted::of(&Query::parse(raw.as_bytes()).unwrap(), 1_700_000_000);
            (wanted.after, wanted.before)
        };
        assert_eq!(of(""), (0, i64::MAX));
        assert_eq!(of("after=-600"), (1_699_999_400, i64::MAX));
        assert_eq!(of("after=-600&before=-100"), (1_699_999_300, 1_699_999_900));
        assert_eq!(of("after=1600000000&before=1600000060"), (1_600_000_000, 1_600_000_060));
    }
}
