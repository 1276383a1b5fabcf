//! Alarms: what they are, what became of them, and what their expressions can name.
//!
//! With health off, for the agent or for the host, every answer is valid and empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::base::ids::MachineGuid;
use crate::base::json::JsonWriter;
use crate::base::time::MICROS;
use crate::health::alarm::Status;
use crate::health::grammar::Definition;
use crate::health::linked::{Alarm, HostAlarms};
use crate::health::log::{Entry, flag};
use crate::health::{Health, Watched, text};
use crate::metrics::{Chart, ChartState, Host};
use crate::query::options::Options;
use crate::web::api::Call;
use crate::web::api::v1::allmetrics::shell::Shown;
use crate::web::http::{ContentType, Response};

/// What our definitions have no hash of.
pub const NO_HASH: &str = "00000000-0000-0000-0000-000000000000";

/// The number of an event among those of all hosts; it grows with time.
pub fn global_id(host: MachineGuid, when: i64, event: i64) -> i64 {
    let (host, event) = (host.0.as_u128() % 1000, event.rem_euclid(1000));
    when.saturating_mul(1_000_000) + i64::try_from(host).unwrap_or(0) * 1000 + event
}

/// A host's alarms, when they are evaluated.
pub fn watched(call: &Call<'_>) -> Option<(Arc<Health>, Arc<Watched>)> {
    watched_of(call, call.host)
}

pub fn watched_of(call: &Call<'_>, host: &Host) -> Option<(Arc<Health>, Arc<Watched>)> {
    let health = call.agent.health.as_ref()?;
    Some((Arc::clone(health), health.watched(host)?))
}

/// Alarms of a chart that is collected.
pub fn running(alarms: &HostAlarms) -> impl Iterator<Item = &Alarm> {
    alarms.alarms.iter().filter(|alarm| {
        alarm.state.status != Status::Removed && alarm.chart.lock().last_collected.0 != 0
    })
}

/// `all` asks for all; otherwise those that are raised.
fn wanted(call: &Call<'_>) -> impl Fn(&&Alarm) -> bool + use<> {
    let all = call.query().has("all");
    move |alarm| all || alarm.state.status.is_raised()
}

pub(super) fn alarms(call: &Call<'_>) -> Response {
    let watched = watched(call);
    let mut json = JsonWriter::new();
    json.object(|j| {
        let body = |j: &mut JsonWriter, newest: i64, on: bool| {
            j.key("hostname").string(&call.host.hostname());
            j.key("latest_alarm_log_unique_id").integer(newest);
            j.key("status").bool(on);
            j.key("now").integer(call.now().0);
        };
        match &watched {
            Some((health, watched)) => watched.show(|alarms, newest| {
                body(j, newest, watched.is_on());
                j.key("alarms").object(|j| {
                    for alarm in running(alarms).filter(wanted(call)) {
                        let about = text::of_chart(alarm);
                        j.key(&format!("{}.{}", alarm.chart.id(), alarm.name));
                        describe(j, health, alarm, &about);
                    }
                });
            }),
            None => {
                body(j, 0, false);
                j.key("alarms").object(|_| {});
            }
        }
    });
    Response::json(json)
}

fn describe(j: &mut JsonWriter, health: &Health, alarm: &Alarm, about: &text::OfChart) {
    let definition: &Definition = &alarm.definition;
    let state = &alarm.state;
    let repeat = definition.repeat.unwrap_or(health.options().repeat);
    j.object(|j| {
        j.key("id").integer(alarm.id);
        j.key("config_hash_id").string(NO_HASH);
        j.key("name").string(&alarm.name);
        j.key("chart").string(alarm.chart.id());
        j.key("family").string(&about.family);
        j.key("class").string(&definition.class);
        j.key("component").string(&definition.component);
        j.key("type").string(&definition.type_);
        j.key("active").bool(true);
        j.key("disabled").bool(alarm.disabled);
        j.key("silenced").bool(alarm.silenced);
        j.key("exec").string(&health.program(alarm));
        j.key("recipient").string(&definition.to);
        j.key("source").string(&definition.source());
        j.key("units").string(&about.units);
        j.key("info").string(&about.info);
        j.key("status").string(state.status.name());
        j.key("last_status_change").integer(state.last_change);
        j.key("last_updated").integer(state.last_updated);
        j.key("next_update").integer(state.next_update);
        j.key("update_every").integer(definition.every);
        j.key("delay_up_duration").integer(definition.delay.up);
        j.key("delay_down_duration").integer(definition.delay.down);
        j.key("delay_max_duration").integer(definition.delay.max);
        j.key("delay_multiplier").raw(&format!("{:.6}", definition.delay.multiplier));
        j.key("delay").integer(state.delay_last);
        j.key("delay_up_to_timestamp").integer(state.delay_until);
        j.key("warn_repeat_every").string(&repeat.warning.to_string());
        j.key("crit_repeat_every").string(&repeat.critical.to_string());
        j.key("value_string").string(&text::value(state.value, &about.units));
        j.key("last_repeat").string(&state.last_repeat.to_string());
        j.key("times_repeat").integer(i64::from(state.times_repeat));
        if definition.no_clear {
            j.key("no_clear_notification").bool(true);
        }
        if let Some(lookup) = &definition.lookup {
            let dimensions = alarm.only.as_deref().unwrap_or(&lookup.dimensions);
            if !dimensions.is_empty() {
                j.key("lookup_dimensions").string(dimensions);
            }
            j.key("db_after").integer(alarm.found.after);
            j.key("db_before").integer(alarm.found.before);
            j.key("lookup_method").string(lookup.name);
            j.key("lookup_after").integer(lookup.after);
            j.key("lookup_before").integer(lookup.before);
            j.key("lookup_options").string(&option_words(lookup.options));
        }
        let expressions =
            [("calc", &definition.calc), ("warn", &definition.warn), ("crit", &definition.crit)];
        for (name, expression) in expressions {
            let Some(expression) = expression else { continue };
            j.key(name).string(&escaped(expression.source()));
            j.key(&format!("{name}_parsed")).string(&escaped(&expression.parsed()));
        }
        j.key("green").number(definition.green);
        j.key("red").number(definition.red);
        j.key("value").number(state.value);
    });
}

fn option_words(options: Options) -> String {
    // The original has this one by its longer name, and those about ids and names not at all.
    let words = options.words();
    let words = words.split(',').filter(|word| !word.starts_with("match"));
    let words = words.map(|word| if word == "abs" { "absolute" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// As the original escapes expressions, for pages that show them.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#x27;"),
            '/' => out.push_str("&#x2F;"),
            c => out.push(c),
        }
    }
    out
}

pub(super) fn alarms_values(call: &Call<'_>) -> Response {
    let watched = watched(call);
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("hostname").string(&call.host.hostname());
        j.key("alarms").object(|j| {
            let Some((_, watched)) = &watched else { return };
            watched.show(|alarms, _| {
                for alarm in running(alarms).filter(wanted(call)) {
                    j.key(&format!("{}.{}", alarm.chart.id(), alarm.name)).object(|j| {
                        j.key("id").integer(alarm.id);
                        j.key("value").number(alarm.state.value);
                        j.key("last_updated").integer(alarm.state.last_updated);
                        j.key("status").string(alarm.state.status.name());
                    });
                }
            });
        });
    });
    Response::json(json)
}

pub(super) fn alarm_count(call: &Call<'_>) -> Response {
    let query = call.query();
    let status = query.get("status").and_then(Status::parse).unwrap_or(Status::Raised);
    let contexts: Vec<&str> = query
        .get("context")
        .or_else(|| query.get("ctx"))
        .unwrap_or("")
        .split([',', ' ', '|'])
        .filter(|context| !context.is_empty())
        .collect();
    let count = watched(call).map_or(0, |(_, watched)| {
        watched.show(|alarms, _| {
            running(alarms)
                .filter(|alarm| match status {
                    Status::Raised => alarm.state.status.is_raised(),
                    status => alarm.state.status == status,
                })
                .filter(|alarm| {
                    contexts.is_empty() || contexts.contains(&&*alarm.chart.lock().meta.context)
                })
                .count()
        })
    });
    Response::new(200, ContentType::Json, format!("[{count}]"))
}

pub(super) fn alarm_log(call: &Call<'_>) -> Response {
    let Some((health, _)) = watched(call) else {
        return Response::new(200, ContentType::Json, "[\n]\n").public();
    };
    let query = call.query();
    let (host, options) = (call.host, health.options());
    // A number below zero hides everything, as in the original, which reads it as a large one.
    let after = match query.integer("after").unwrap_or(0) {
        after if after < 0 => i64::MAX,
        after => after,
    };
    let entries = health.log().entries(host.guid(), after, query.get("chart"), options.log_shown);
    let about = host.info();
    let mut json = JsonWriter::new();
    json.array(|j| {
        for entry in &entries {
            j.object(|j| {
                j.key("hostname").string(&about.hostname);
                j.key("utc_offset").integer(about.utc_offset);
                j.key("timezone").string(&about.abbrev_timezone);
                let command = text::edit_command_of(
                    &options.config_dir,
                    &entry.source,
                    &about.registry_hostname,
                );
                write_entry(j, entry, &command);
            });
        }
    });
    Response::json(json).public()
}

fn write_entry(j: &mut JsonWriter, entry: &Entry, command: &str) {
    let has = |bit: i64| entry.flags & bit != 0;
    j.key("unique_id").integer(entry.unique_id);
    j.key("alarm_id").integer(entry.alarm_id);
    j.key("alarm_event_id").integer(entry.event_id);
    j.key("config_hash_id").string(NO_HASH);
    j.key("name").string(&entry.name);
    j.key("chart").string(&entry.chart);
    j.key("context").string(&entry.context);
    j.key("family").string(&entry.family);
    j.key("class").string(&entry.class);
    j.key("component").string(&entry.component);
    j.key("type").string(&entry.type_);
    j.key("processed").bool(has(flag::PROCESSED));
    j.key("updated").bool(has(flag::UPDATED));
    j.key("exec_run").integer(entry.exec_run);
    j.key("exec_failed").bool(has(flag::EXEC_FAILED));
    j.key("exec").string(&entry.exec);
    j.key("recipient").string(&entry.recipient);
    j.key("exec_code").integer(entry.exec_code);
    j.key("source").string(&entry.source);
    j.key("command").string(command);
    j.key("units").string(&entry.units);
    j.key("when").integer(entry.when);
    j.key("duration").integer(entry.duration);
    j.key("non_clear_duration").integer(entry.non_clear);
    j.key("status").string(entry.status.name());
    j.key("old_status").string(entry.old_status.name());
    j.key("delay").integer(entry.delay);
    j.key("delay_up_to_timestamp").integer(entry.delay_until);
    j.key("updated_by_id").integer(entry.updated_by);
    j.key("updates_id").integer(entry.updates);
    j.key("value_string").string(&text::value(entry.value, &entry.units));
    j.key("old_value_string").string(&text::value(entry.old_value, &entry.units));
    j.key("last_repeat").string(&entry.last_repeat.to_string());
    j.key("silenced").string(if has(flag::SILENCED) { "true" } else { "false" });
    j.key("info").string(&entry.info);
    if has(flag::NO_CLEAR) {
        j.key("no_clear_notification").bool(true);
    }
    j.key("value").number(entry.value);
    j.key("old_value").number(entry.old_value);
}

/// Alarms for the assignments of a shell.
pub fn for_shell(call: &Call<'_>) -> Vec<Shown> {
    watched(call).map_or_else(Vec::new, |(_, watched)| {
        watched.show(|alarms, _| {
            let shown = running(alarms).map(|alarm| {
                let about = text::of_chart(alarm);
                Shown {
                    chart: about.name,
                    name: alarm.name.to_string(),
                    units: about.units,
                    value: alarm.state.value,
                    status: alarm.state.status,
                }
            });
            shown.collect()
        })
    })
}

/// How many alarms are neither WARNING nor CRITICAL, are WARNING, are CRITICAL.
pub fn counts(call: &Call<'_>) -> [usize; 3] {
    let mut counts = [0; 3];
    if let Some((_, watched)) = watched(call) {
        watched.show(|alarms, _| {
            for alarm in running(alarms) {
                match alarm.state.status {
                    Status::Warning => counts[1] += 1,
                    Status::Critical => counts[2] += 1,
                    _ => counts[0] += 1,
                }
            }
        });
    }
    counts
}

/// Alarms by the id of their chart, as descriptions of charts list them: name, id, status, units, interval.
pub type OfCharts = FxHashMap<Arc<str>, Vec<Brief>>;

pub struct Brief {
    id: i64,
    name: Arc<str>,
    status: Status,
    units: String,
    every: i64,
}

/// All of a host, or those of one chart.
pub fn of_charts(call: &Call<'_>, only: Option<&str>) -> OfCharts {
    let mut all = OfCharts::default();
    if let Some((_, watched)) = watched(call) {
        watched.show(|alarms, _| {
            let asked = |alarm: &&Alarm| only.is_none_or(|id| **alarm.chart.id() == *id);
            for alarm in alarms.alarms.iter().filter(asked) {
                all.entry(Arc::clone(alarm.chart.id())).or_default().push(Brief {
                    id: alarm.id,
                    name: Arc::clone(&alarm.name),
                    status: alarm.state.status,
                    units: text::of_chart(alarm).units,
                    every: alarm.definition.every,
                });
            }
        });
    }
    all
}

pub fn write_briefs(j: &mut JsonWriter, briefs: Option<&Vec<Brief>>) {
    j.object(|j| {
        for brief in briefs.into_iter().flatten() {
            j.key(&brief.name).object(|j| {
                j.key("id").integer(brief.id);
                j.key("status").string(brief.status.name());
                j.key("units").string(&brief.units);
                j.key("update_every").integer(brief.every);
            });
        }
    });
}

/// `alerts` and `alert_instances` as release 2 lists them over hosts: every name with how many there are of each status, and
/// every alarm. A host goes by the number it is given with.
pub fn write_alerts<'a>(
    j: &mut JsonWriter,
    call: &Call<'_>,
    hosts: impl Iterator<Item = (usize, &'a Arc<Host>)>,
) {
    let mut instances = JsonWriter::new();
    let mut names: BTreeMap<Arc<str>, Summary> = BTreeMap::new();
    instances.begin_array();
    for (node, host) in hosts {
        let Some((_, watched)) = watched_of(call, host) else { continue };
        watched.show(|alarms, _| {
            for alarm in running(alarms) {
                names.entry(Arc::clone(&alarm.name)).or_default().add(alarm, node);
                write_instance(&mut instances, alarm, node, host.guid());
            }
        });
    }
    instances.end_array();
    j.key("alerts").array(|j| {
        for (number, (name, summary)) in names.iter().enumerate() {
            j.object(|j| {
                j.key("ati").count(number);
                j.key("nm").string(name);
                summary.write(j);
            });
        }
    });
    j.key("alert_instances").raw(instances.as_str());
}

/// The alarms of one name.
#[derive(Default)]
struct Summary {
    context: Arc<str>,
    class: Arc<str>,
    component: Arc<str>,
    type_: Arc<str>,
    /// CRITICAL, WARNING, CLEAR, anything else.
    counts: [usize; 4],
    nodes: usize,
    last_node: Option<usize>,
}

impl Summary {
    fn add(&mut self, alarm: &Alarm, node: usize) {
        let definition = &alarm.definition;
        self.context = Arc::clone(&alarm.chart.lock().meta.context);
        self.class = Arc::clone(&definition.class);
        self.component = Arc::clone(&definition.component);
        self.type_ = Arc::clone(&definition.type_);
        self.counts[match alarm.state.status {
            Status::Critical => 0,
            Status::Warning => 1,
            Status::Clear => 2,
            _ => 3,
        }] += 1;
        if self.last_node.replace(node) != Some(node) {
            self.nodes += 1;
        }
    }

    fn write(&self, j: &mut JsonWriter) {
        j.key("ctx").string(&self.context);
        j.key("cls").string(&self.class);
        j.key("cp").string(&self.component);
        j.key("ty").string(&self.type_);
        for (key, count) in ["cr", "wr", "cl", "er"].into_iter().zip(self.counts) {
            j.key(key).count(count);
        }
        j.key("in").count(self.counts.iter().sum());
        j.key("nd").count(self.nodes);
    }
}

fn write_instance(j: &mut JsonWriter, alarm: &Alarm, node: usize, host: MachineGuid) {
    let about = text::of_chart(alarm);
    let (definition, state) = (&alarm.definition, &alarm.state);
    j.object(|j| {
        j.key("ni").count(node);
        j.key("nm").string(&alarm.name);
        j.key("ch").string(alarm.chart.id());
        j.key("ch_n").string(&about.name);
        j.key("ctx").string(&about.context);
        j.key("st").string(state.status.name());
        j.key("fami").string(&about.family);
        j.key("info").string(&about.info);
        j.key("units").string(&about.units);
        j.key("src").string(&definition.source());
        j.key("to").string(&definition.to);
        j.key("tp").string(&definition.type_);
        j.key("cmp").string(&definition.component);
        j.key("cls").string(&definition.class);
        j.key("gi").integer(global_id(host, state.last_change, alarm.last_event));
        j.key("v").number(state.value);
        j.key("t").integer(state.last_updated);
        j.key("tr_t").integer(state.last_change);
    });
}

/// The `health` of a host as release 2 describes nodes.
pub fn write_health(j: &mut JsonWriter, call: &Call<'_>, host: &Host) {
    let Some((_, watched)) = watched_of(call, host).filter(|(_, watched)| watched.is_on()) else {
        j.object(|j| {
            j.key("status").string("disabled");
        });
        return;
    };
    let count = |wanted: Status| {
        watched.show(|alarms, _| running(alarms).filter(|a| a.state.status == wanted).count())
    };
    j.object(|j| {
        j.key("status").string("online");
        j.key("alerts").object(|j| {
            for (name, status) in [
                ("critical", Status::Critical),
                ("warning", Status::Warning),
                ("clear", Status::Clear),
                ("undefined", Status::Undefined),
                ("uninitialized", Status::Uninitialized),
            ] {
                j.key(name).count(count(status));
            }
        });
    });
}

/// What expressions of alarms on a chart can name.
pub(super) fn alarm_variables(call: &Call<'_>) -> Response {
    let Some(wanted) = call.query().get("chart") else {
        return Response::error(400, "No chart id is given at the request.");
    };
    let Some(chart) = call.host.find_chart(wanted) else {
        return Response::error_about(404, "Chart is not found: ", wanted);
    };
    let values = alarm_values(call);
    let of_chart = |chart: &Chart| values.get(chart.id()).map_or(&[][..], Vec::as_slice);
    let mut json = JsonWriter::new();
    json.object(|j| {
        let family = {
            let state = chart.lock();
            j.key("chart").string(chart.id());
            j.key("chart_name").string(&state.meta.name);
            j.key("chart_context").string(&state.meta.context);
            j.key("chart_variables").object(|j| chart_variables(j, &state, of_chart(&chart)));
            j.key("family").string(&state.meta.family);
            Arc::clone(&state.meta.family)
        };
        j.key("family_variables").object(|j| {
            for other in call.host.charts() {
                let state = other.lock();
                if state.meta.family == family {
                    family_variables(j, &other, &state, of_chart(&other));
                }
            }
        });
        j.key("host").string(&call.host.hostname());
        j.key("host_variables").object(|j| {
            for (name, value) in call.host.variables() {
                variable(j, &name, value);
            }
        });
    });
    Response::json(json).public()
}

/// An alarm as a variable, with the limits it sets.
struct Value {
    name: Arc<str>,
    value: f64,
    green: f64,
    red: f64,
}

fn alarm_values(call: &Call<'_>) -> FxHashMap<Arc<str>, Vec<Value>> {
    let mut all: FxHashMap<Arc<str>, Vec<Value>> = FxHashMap::default();
    if let Some((_, watched)) = watched(call) {
        watched.show(|alarms, _| {
            for alarm in &alarms.alarms {
                all.entry(Arc::clone(alarm.chart.id())).or_default().push(Value {
                    name: Arc::clone(&alarm.name),
                    value: alarm.state.value,
                    green: alarm.definition.green,
                    red: alarm.definition.red,
                });
            }
        });
    }
    all
}

fn limits(alarms: &[Value]) -> [(&'static str, f64); 2] {
    let first = |of: fn(&Value) -> f64| {
        alarms.iter().map(of).find(|limit| !limit.is_nan()).unwrap_or(f64::NAN)
    };
    [("green", first(|alarm| alarm.green)), ("red", first(|alarm| alarm.red))]
}

#[expect(clippy::cast_precision_loss, reason = "seconds, far below 2^53")]
fn times(state: &ChartState) -> [(&'static str, f64); 2] {
    let last = (state.last_collected.0 / MICROS) as f64;
    [("last_collected_t", last), ("update_every", state.meta.update_every.seconds() as f64)]
}

fn chart_variables(json: &mut JsonWriter, state: &ChartState, alarms: &[Value]) {
    for (name, value) in times(state).into_iter().chain(limits(alarms)) {
        variable(json, name, value);
    }
    for alarm in alarms {
        variable(json, &alarm.name, alarm.value);
    }
    for (name, value) in &state.variables {
        variable(json, name, *value);
    }
    for dim in &state.dims {
        variable(json, &dim.id, dim.current.value().unwrap_or(f64::NAN));
    }
}

fn family_variables(json: &mut JsonWriter, chart: &Chart, state: &ChartState, alarms: &[Value]) {
    for (name, value) in times(state).into_iter().chain(limits(alarms)) {
        variable(json, &format!("{}.{name}", chart.id()), value);
    }
    for alarm in alarms {
        variable(json, &alarm.name, alarm.value);
    }
    for dim in &state.dims {
        variable(json, &dim.id, dim.current.value().unwrap_or(f64::NAN));
    }
}

/// Five decimals, or null.
fn variable(json: &mut JsonWriter, name: &str, value: f64) {
    json.key(name);
    if value.is_finite() {
        json.raw(&format!("{value:.5}"))
    } else {
        json.null()
    };
}
