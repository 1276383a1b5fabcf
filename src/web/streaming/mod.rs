//! The Function `Streaming`: a table of every host with the connections it comes in and goes out by.
//!
//! [`offer`] registers it with this agent's own host, under both names it has had, so parents of ours can ask for it too.
//! It answers at once, on the caller's thread, takes each chart's lock for a moment, and holds nothing in between.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::base::json::JsonWriter;
use crate::base::time::Clock;
use crate::metrics::{
    Function, FunctionAnswer, FunctionCall, FunctionProvider, FunctionTicket, Hosts,
};
use crate::stream::Streams;

use self::columns::{COLUMNS, Column, DETAILS};

pub mod columns;
pub mod row;

/// The first is that of release 2.9, the second what came before it.
const NAMES: [&str; 2] = ["netdata-streaming", "streaming"];
const HELP: &str = "Every host of this agent, how its samples come in, what is kept of them, and where they go on to; with the parameter 'details' also lag, time left, queues and paths.";
/// The parameter that asks for more.
const WITH_DETAILS: &str = "details";
/// Signed-in, same-space and sensitive-data, as dashboards of release 2 expect of it.
const ACCESS: u32 = 0x13;
const PRIORITY: i64 = 101;

struct Table {
    hosts: Weak<Hosts>,
    streams: Weak<Streams>,
    clock: Clock,
    /// Unix seconds.
    started: i64,
}

/// Registers the Function with this agent's own host.
pub fn offer(hosts: &Arc<Hosts>, streams: &Arc<Streams>, clock: &Clock) {
    let table: Arc<dyn FunctionProvider> = Arc::new(Table {
        hosts: Arc::downgrade(hosts),
        streams: Arc::downgrade(streams),
        clock: clock.clone(),
        started: clock.now_seconds().0,
    });
    for name in NAMES {
        hosts.local().add_function(Function {
            name: name.into(),
            chart: None,
            help: HELP.into(),
            tags: "top".into(),
            timeout: Duration::from_secs(10),
            access: ACCESS,
            priority: PRIORITY,
            version: 0,
            provider: Arc::clone(&table),
        });
    }
}

impl FunctionProvider for Table {
    fn call(&self, call: FunctionCall) -> FunctionTicket {
        let (Some(hosts), Some(streams)) = (self.hosts.upgrade(), self.streams.upgrade()) else {
            let body = r#"{"status":503,"error_message":"This agent stops.","errorMessage":"This agent stops."}"#;
            (call.answer)(FunctionAnswer::json(503, 0, body.to_owned()));
            return FunctionTicket::default();
        };
        let now = self.clock.now_seconds().0;
        let wants_more = call.command.split(' ').skip(1).any(|word| word == WITH_DETAILS);
        let more = if wants_more { DETAILS } else { &[] };
        let columns: Vec<&Column> = COLUMNS.iter().chain(more).collect();
        let body = render(&hosts, &streams, &columns, now, self.started);
        (call.answer)(FunctionAnswer::json(200, now + 1, body));
        FunctionTicket::default()
    }

    fn is_alive(&self) -> bool {
        true
    }
}

fn render(hosts: &Hosts, streams: &Streams, columns: &[&Column], now: i64, started: i64) -> String {
    let mut json = JsonWriter::with_capacity(64 * 1024);
    json.object(|j| {
        j.key("hostname").string(&hosts.local().hostname());
        j.key("status").integer(200);
        j.key("type").string("table");
        j.key("update_every").integer(1);
        j.key("has_history").bool(false);
        j.key("help").string(HELP);
        let mut most = self::columns::Largest::default();
        j.key("data").array(|j| {
            for host in hosts.all() {
                let row = row::Row::of(&host, streams, now, started);
                write_row(j, &row, columns, &mut most);
            }
        });
        j.key("columns").object(|j| {
            for (index, column) in columns.iter().enumerate() {
                column.write(j, index, &most);
            }
        });
        j.key("default_sort_column").string("Node");
        j.key("charts").object(|j| {
            for (id, name, column) in [
                ("InAge", "Time since hosts came in", "InAge"),
                ("OutAge", "Time since hosts go out", "OutAge"),
                ("dbDuration", "Time that is kept", "dbDuration"),
            ] {
                j.key(id).object(|j| {
                    j.key("name").string(name);
                    j.key("type").string("stacked-bar");
                    j.key("columns").array(|j| {
                        j.string(column);
                    });
                });
            }
        });
        j.key("default_charts").array(|j| {
            for chart in ["InAge", "OutAge"] {
                j.array(|j| {
                    j.string(chart).string("Node");
                });
            }
        });
        j.key("group_by").object(|j| {
            for column in columns.iter().filter(|column| column.groups()) {
                j.key(column.name).object(|j| {
                    j.key("name").string(column.title);
                    j.key("columns").array(|j| {
                        j.string(column.name);
                    });
                });
            }
        });
        j.key("expires").integer(now + 1);
    });
    json.finish()
}

fn write_row(
    j: &mut JsonWriter,
    row: &row::Row,
    columns: &[&Column],
    most: &mut self::columns::Largest,
) {
    j.array(|j| {
        for (index, column) in columns.iter().enumerate() {
            let cell = row.cell(column.name);
            most.see(index, &cell);
            cell.write(j);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_its_own_name() {
        let mut names: Vec<_> = COLUMNS.iter().chain(DETAILS).map(|column| column.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), COLUMNS.len()), (83 + DETAILS.len(), 83));
    }
}
