//! What all answers of `/api/v2` have around what was asked for: which hosts are meant, their keys, versions, agents and
//! times.

use std::sync::Arc;

use crate::base::json::JsonWriter;
use crate::base::pattern::SimplePattern;
use crate::metrics::Host;
use crate::query::select::SEPARATORS;
use crate::web::api::Call;
use crate::web::http::Response;

/// A host that the answer is about, and its number in it.
pub struct Node {
    pub host: Arc<Host>,
    pub index: usize,
}

/// A question to one or all hosts.
pub struct Scope<'a, 'c> {
    pub call: &'a Call<'c>,
    pub nodes: Vec<Node>,
    pub long_keys: bool,
    pub rfc3339: bool,
    began_us: i64,
    options: Vec<&'a str>,
}

/// What of the envelope follows the payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Only how long it took.
    Times,
    /// Versions too.
    Versions,
    /// Versions and this agent.
    Agents,
}

impl<'a, 'c> Scope<'a, 'c> {
    pub fn of(call: &'a Call<'c>) -> Scope<'a, 'c> {
        let query = call.query();
        let patterns: Vec<_> = ["scope_nodes", "nodes"]
            .iter()
            .filter_map(|name| pattern(query.get(name).unwrap_or("")))
            .collect();
        // Below `/host/X` only X is meant.
        let only = (call.host.guid() != call.agent.hosts.local().guid()).then(|| call.host.guid());
        let hosts = call.agent.hosts.all().into_iter();
        let wanted = |host: &Arc<Host>| {
            let guid = host.guid();
            only.is_none_or(|only| only == guid)
                && patterns.iter().all(|pattern| {
                    let info = host.info();
                    pattern.matches(&info.hostname)
                        || pattern.matches(&guid.to_string())
                        || info.node_id.as_deref().is_some_and(|id| pattern.matches(id))
                })
        };
        let nodes = hosts.filter(wanted).enumerate();
        let options: Vec<_> = query.get("options").unwrap_or("").split([',', '|', ' ']).collect();
        let has = |words: &[&str]| options.iter().any(|option| words.contains(option));
        Scope {
            call,
            nodes: nodes.map(|(index, host)| Node { host, index }).collect(),
            long_keys: has(&["long-keys", "long-json-keys"]),
            rfc3339: has(&["rfc3339"]),
            began_us: call.agent.clock.monotonic_us(),
            options,
        }
    }

    pub fn has(&self, option: &str) -> bool {
        self.options.contains(&option)
    }

    pub fn now(&self) -> i64 {
        self.call.now().0
    }

    /// The whole answer: `payload` between `api` and the tail.
    pub fn answer(&self, tail: Tail, payload: impl FnOnce(&mut JsonWriter)) -> Response {
        self.answer_with(tail, payload, |_| {})
    }

    /// The same with more about this agent.
    pub fn answer_with(
        &self,
        tail: Tail,
        payload: impl FnOnce(&mut JsonWriter),
        more: impl FnOnce(&mut JsonWriter),
    ) -> Response {
        let prepared = self.elapsed();
        let mut json = JsonWriter::with_capacity(16 * 1024);
        json.object(|j| {
            j.key("api").integer(2);
            if self.has("debug") {
                j.key("request").object(|j| {
                    for (name, value) in self.call.query().pairs() {
                        j.key(name).string(value);
                    }
                });
            }
            payload(j);
            if tail != Tail::Times {
                self.versions(j.key("versions"));
            }
            if tail == Tail::Agents {
                j.key("agents").array(|j| {
                    j.object(|j| {
                        self.agent(j);
                        more(j);
                        j.key("timings").object(|j| {
                            j.key("prep_ms").number(ms(prepared));
                            j.key("query_ms").number(0.0);
                            j.key("output_ms").number(ms(self.elapsed() - prepared));
                            j.key("total_ms").number(ms(self.elapsed()));
                            j.key("cloud_ms").number(ms(self.elapsed()));
                        });
                    });
                });
            }
            j.key("timings").object(|j| {
                j.key("routing_ms").number(0.0);
                j.key("node_max_ms").number(0.0);
                j.key("total_ms").number(ms(self.elapsed()));
            });
        });
        Response::json(json)
    }

    fn elapsed(&self) -> i64 {
        self.call.agent.clock.monotonic_us() - self.began_us
    }

    /// Numbers that change when what they name does.
    pub fn versions(&self, j: &mut JsonWriter) {
        let hosts = self.call.agent.hosts.all();
        let charts: usize = hosts.iter().map(|host| host.charts_count()).sum();
        j.object(|j| {
            j.key("routing_hard_hash").integer(1);
            j.key("nodes_hard_hash").count(hosts.len());
            j.key("contexts_hard_hash").count(charts);
            j.key("contexts_soft_hash").count(charts);
            j.key("alerts_hard_hash").integer(0);
            j.key("alerts_soft_hash").integer(0);
        });
    }

    fn agent(&self, j: &mut JsonWriter) {
        let local = self.call.agent.hosts.local();
        let info = local.info();
        let [guid, node, name, _] = self.keys();
        j.key(guid).string(&local.guid().to_string());
        j.key(node).maybe_string(info.node_id.as_deref());
        j.key(name).string(&info.hostname);
        j.key("now").integer(self.now());
        j.key("ai").integer(0);
    }

    /// How the keys that name a host are spelled.
    fn keys(&self) -> [&'static str; 4] {
        if self.long_keys {
            ["machine_guid", "node_id", "hostname", "nodes_array_index"]
        } else {
            ["mg", "nd", "nm", "ni"]
        }
    }

    /// The members that name a host.
    pub fn name(&self, j: &mut JsonWriter, node: &Node) {
        let info = node.host.info();
        let [guid, node_id, name, index] = self.keys();
        j.key(guid).string(&node.host.guid().to_string());
        if let Some(id) = &info.node_id {
            j.key(node_id).string(id);
        }
        j.key(name).string(&info.hostname);
        j.key(index).count(node.index);
    }

    /// `nodes`, each with that it was asked and answered.
    pub fn write_nodes(&self, j: &mut JsonWriter) {
        j.key("nodes").array(|j| {
            for node in &self.nodes {
                j.object(|j| {
                    self.name(j, node);
                    status(j);
                });
            }
        });
    }
}

/// `st`: there is one agent, and it answers.
pub fn status(j: &mut JsonWriter) {
    j.key("st").object(|j| {
        j.key("ai").integer(0);
        j.key("code").integer(200);
        j.key("msg").string("");
    });
}

/// A pattern list, unless it says nothing.
pub fn pattern(list: &str) -> Option<SimplePattern> {
    (!list.is_empty() && list != "*").then(|| SimplePattern::separated_by(list, SEPARATORS))
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of one answer")]
pub fn ms(us: i64) -> f64 {
    us as f64 / 1000.0
}
