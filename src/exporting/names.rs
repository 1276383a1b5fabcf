//! What charts, dimensions and labels are called in the languages of other databases: the one place for it, so that a series is called the
//! same whether it is exported, or asked for here.

use std::sync::Arc;

use crate::base::{PROGRAM, VERSION};
use crate::config::DataSource;
use crate::metrics::{Host, HostInfo, LabelSource};

/// For graphite and opentsdb: every byte other than a letter, a digit or a dot becomes `_`.
pub(super) fn push_dotted(out: &mut String, name: &str) {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.';
    out.extend(name.bytes().map(|b| if plain(b) { char::from(b) } else { '_' }));
}

/// A value of a graphite tag: white space and what separates tags becomes `_`.
pub(super) fn push_graphite_value(out: &mut String, value: &str) {
    let special = |c: char| c.is_whitespace() || c == ';' || c == '~';
    out.extend(value.chars().map(|c| if special(c) { '_' } else { c }));
}

/// A value of an opentsdb tag: letters, digits, `-`, `.`, `/` and whatever is not ASCII stays.
pub(super) fn push_opentsdb_value(out: &mut String, value: &str) {
    let plain = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-./".contains(c);
    out.extend(value.chars().map(|c| if plain(c) { c } else { '_' }));
}

/// For Prometheus: everything but letters and digits becomes `_`.
pub fn sanitized(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    push_sanitized(&mut out, name);
    out
}

pub fn push_sanitized(out: &mut String, name: &str) {
    out.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
}

/// Appends `text` as it stands between the quotes of a Prometheus label.
pub fn push_label(out: &mut String, text: &str) {
    // Nearly all texts are; see `base::json::push_escaped`.
    let is_special = |byte: u8| matches!(byte, b'"' | b'\\' | b'\n');
    if !text.bytes().fold(false, |any, byte| any | is_special(byte)) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
}

/// Whether the units of a Prometheus name are those of today or of old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    New,
    Old,
}

/// Appends the units as part of a Prometheus metric's name.
pub fn push_units(out: &mut String, units: &str, spelling: Units) {
    let old_name = match units {
        _ if spelling == Units::New => None,
        "KiB/s" => Some("kilobytes/s"),
        "MiB/s" => Some("MB/s"),
        "GiB/s" => Some("GB/s"),
        "KiB" => Some("KB"),
        "MiB" => Some("MB"),
        "GiB" => Some("GB"),
        "inodes" => Some("Inodes"),
        "percentage" => Some("percent"),
        "faults/s" => Some("page faults/s"),
        "KiB/operation" => Some("kilobytes per operation"),
        "milliseconds/operation" => Some("ms per operation"),
        _ => None,
    };
    let units = old_name.unwrap_or(units);
    match units {
        "" => {}
        "%" => out.push_str("_percent"),
        _ => {
            let amount = units.strip_suffix("/s");
            out.push('_');
            push_sanitized(out, amount.unwrap_or(units));
            out.push_str(if amount.is_some() { "_persec" } else { "" });
        }
    }
}

/// What Prometheus calls a chart, before any `_total`: the same as in `allmetrics`, so dimensions of different scale are not
/// told apart by name either.
pub fn metric_name(prefix: &str, source: DataSource, context: &str, units: &str) -> String {
    let mut name = format!("{}_{}", sanitized(prefix), sanitized(context));
    match source {
        DataSource::Average => {
            push_units(&mut name, units, Units::New);
            name.push_str("_average");
        }
        DataSource::Sum => name.push_str("_sum"),
        DataSource::AsCollected => {}
    }
    name
}

/// Labels of a dimension's series, in their order; `metric` is its whole name.
pub fn series_labels<'a>(
    metric: &'a str,
    chart: &'a str,
    dimension: &'a str,
    family: &'a str,
    instance: &'a str,
) -> [(&'static str, &'a str); 5] {
    [
        ("__name__", metric),
        ("chart", chart),
        ("dimension", dimension),
        ("family", family),
        ("instance", instance),
    ]
}

/// What an agent says of a host by itself, though its labels are not the machine's.
fn is_standing(name: &str) -> bool {
    matches!(name, "_is_ephemeral" | "_has_unstable_connection")
}

/// Labels of a host that go to other databases: those of its configuration first.
pub fn host_labels(host: &Host, configured: bool, automatic: bool) -> Vec<(Arc<str>, Arc<str>)> {
    let mut labels = Vec::new();
    for label in host.labels().iter() {
        let by_hand = label.source == LabelSource::CONFIG || is_standing(&label.name);
        if if by_hand { configured } else { automatic } {
            labels.push((Arc::clone(&label.name), Arc::clone(&label.value)));
        }
    }
    // What the user configured comes first, as in the original; the sort keeps the order otherwise.
    labels.sort_by_key(|(name, _)| is_standing(name));
    labels
}

/// Name and labels of the series, always 1, that tells who a host is.
pub fn info_series(
    hostname: &str,
    info: &HostInfo,
    labels: &[(Arc<str>, Arc<str>)],
) -> Vec<(String, String)> {
    let or_own = |text: &str, own: &str| if text.is_empty() { own } else { text }.to_owned();
    let mut all = vec![
        ("__name__".to_owned(), "netdata_info".to_owned()),
        ("application".to_owned(), or_own(&info.program_name, PROGRAM)),
        ("instance".to_owned(), hostname.to_owned()),
        ("version".to_owned(), or_own(&info.program_version, VERSION)),
    ];
    all.extend(labels.iter().map(|(name, value)| (sanitized(name), value.to_string())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_what_each_database_allows() {
        let made = |push: fn(&mut String, &str), text: &str| {
            let mut out = String::new();
            push(&mut out, text);
            out
        };
        assert_eq!(made(push_dotted, "lab.my gauge-é"), "lab.my_gauge___");
        assert_eq!(made(push_graphite_value, "a b;c~d:é"), "a_b_c_d:é");
        assert_eq!(made(push_opentsdb_value, "_a b:c_d_/é-."), "_a_b_c_d_/é-.");
        assert_eq!(made(push_label, "a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn units_become_part_of_the_name() {
        for (units, spelling, suffix) in [
            ("KiB/s", Units::New, "_KiB_persec"),
            ("KiB/s", Units::Old, "_kilobytes_persec"),
            ("%", Units::New, "_percent"),
            ("percentage", Units::Old, "_percent"),
            ("", Units::New, ""),
        ] {
            let mut out = String::new();
            push_units(&mut out, units, spelling);
            assert_eq!(out, suffix);
        }
    }
}
