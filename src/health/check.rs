//! `netdatacli check-health`: what files of alarms would do here, and every mistake in them. Changes nothing.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::engine::Options;
use super::grammar::{self, Book};
use super::linked::{HostAlarms, Rules};
use crate::metrics::Hosts;

/// Charts that are listed for one alarm.
const CHARTS_MAX: usize = 20;

/// Reads `files`, or those of the configuration, and tells what would run on which charts. The flag is whether there is no
/// mistake.
pub fn check(files: &[PathBuf], options: &Options, hosts: &Hosts) -> (String, bool) {
    let book = if files.is_empty() {
        grammar::load(&options.user_dir, options.stock_dir.as_deref())
    } else {
        let mut book = Book::default();
        files.iter().for_each(|file| grammar::read_file(file, &mut book));
        book
    };
    let mut out = String::new();
    for mistake in &book.mistakes {
        let _ = writeln!(out, "MISTAKE {mistake}");
    }
    for remark in &book.remarks {
        let _ = writeln!(out, "NOTE {remark}");
    }
    let (right, count) = (book.mistakes.is_empty(), book.definitions.len());
    let rules = Arc::new(Rules::new(book));
    let mut running = 0;
    for host in hosts.all() {
        let mut linked = HostAlarms::new(Vec::new(), 1, options.repeat);
        linked.link(&host, &rules, false);
        running += linked.alarms.len();
        for definition in &rules.book.definitions {
            let charts: Vec<&str> = linked
                .alarms
                .iter()
                .filter(|alarm| Arc::ptr_eq(&alarm.definition, definition))
                .map(|alarm| &**alarm.chart.id())
                .collect();
            if charts.is_empty() {
                continue;
            }
            let more = charts.len().saturating_sub(CHARTS_MAX);
            let shown = charts.iter().take(CHARTS_MAX).copied().collect::<Vec<_>>().join(", ");
            let _ = write!(
                out,
                "{}: {} every {} s on {shown}",
                host.hostname(),
                definition.name,
                definition.every
            );
            let _ = if more > 0 { writeln!(out, " and {more} more") } else { writeln!(out) };
        }
    }
    let _ = write!(
        out,
        "{count} alarms and templates, {running} alarms would run, {} mistakes.",
        rules.book.mistakes.len()
    );
    (out, right)
}
