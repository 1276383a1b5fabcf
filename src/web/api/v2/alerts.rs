//! `alerts`: alarms of all hosts, by name and one by one; and what `nodes` and `node_instances` say of a host's health.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::envelope::{Scope, Tail};
use crate::base::json::JsonWriter;
use crate::health::alarm::Status;
use crate::metrics::Host;
use crate::web::api::Call;
use crate::web::api::v1::alarms::{running, watched_of};
use crate::web::http::Response;

/// Alarms in each state that is told apart.
#[derive(Clone, Copy, Default)]
struct Counts {
    critical: usize,
    warning: usize,
    clear: usize,
    undefined: usize,
    uninitialized: usize,
}

impl Counts {
    fn see(&mut self, status: Status) {
        let count = match status {
            Status::Critical => &mut self.critical,
            Status::Warning | Status::Raised => &mut self.warning,
            Status::Clear => &mut self.clear,
            Status::Undefined | Status::Removed => &mut self.undefined,
            Status::Uninitialized => &mut self.uninitialized,
        };
        *count += 1;
    }

    fn write(&self, j: &mut JsonWriter) {
        j.key("critical").count(self.critical);
        j.key("warning").count(self.warning);
        j.key("clear").count(self.clear);
        j.key("undefined").count(self.undefined);
        j.key("uninitialized").count(self.uninitialized);
    }
}

/// The member `health` of a host.
pub fn health(j: &mut JsonWriter, call: &Call<'_>, host: &Host) {
    j.key("health").object(|j| match watched_of(call, host) {
        Some((_, watched)) if watched.is_on() => {
            let counts = watched.show(|alarms, _| {
                let mut counts = Counts::default();
                running(alarms).for_each(|alarm| counts.see(alarm.state.status));
                counts
            });
            j.key("status").string("online");
            j.key("alerts").object(|j| counts.write(j));
        }
        Some(_) => {
            j.key("status").string("initializing");
        }
        None => {
            j.key("status").string("disabled");
        }
    });
}

/// One alarm, as it stands.
struct Instance {
    node: usize,
    name: Arc<str>,
    chart: Arc<str>,
    context: Arc<str>,
    status: Status,
    value: f64,
    since: i64,
}

pub fn alerts(call: &Call<'_>) -> Response {
    let scope = Scope::of(call);
    let mut all: Vec<Instance> = Vec::new();
    for node in &scope.nodes {
        let Some((_, watched)) = watched_of(call, &node.host) else { continue };
        watched.show(|alarms, _| {
            all.extend(running(alarms).map(|alarm| Instance {
                node: node.index,
                name: Arc::clone(&alarm.name),
                chart: Arc::clone(alarm.chart.id()),
                context: Arc::clone(&alarm.chart.lock().meta.context),
                status: alarm.state.status,
                value: alarm.state.value,
                since: alarm.state.last_change,
            }));
        });
    }
    let mut by_name: BTreeMap<Arc<str>, Counts> = BTreeMap::new();
    for instance in &all {
        by_name.entry(Arc::clone(&instance.name)).or_default().see(instance.status);
    }
    scope.answer(Tail::Agents, |j| {
        scope.write_nodes(j);
        j.key("alerts").array(|j| {
            for (index, (name, counts)) in by_name.iter().enumerate() {
                j.object(|j| {
                    j.key("ati").count(index);
                    j.key("nm").string(name);
                    counts.write(j);
                });
            }
        });
        j.key("alert_instances").array(|j| {
            for instance in &all {
                j.object(|j| {
                    j.key("ni").count(instance.node);
                    j.key("nm").string(&instance.name);
                    j.key("ch").string(&instance.chart);
                    j.key("ctx").string(&instance.context);
                    j.key("st").string(instance.status.name());
                    j.key("v").number(instance.value);
                    j.key("t").integer(instance.since);
                });
            }
        });
    })
}
