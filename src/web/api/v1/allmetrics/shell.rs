//! The newest values as assignments that a shell can `eval`.
//!
//! Names are upper case letters, digits and underscores, values are whole numbers, and comments hold no line end: nothing
//! that a collector says can become a command.

use std::fmt::Write as _;

use crate::base::json::{WHOLE_MAX, push_integer};
use crate::base::pattern::SimplePattern;
use crate::health::alarm::Status;
use crate::metrics::Host;
use crate::web::api::many;
use crate::web::api::v1::charts::is_visible;

/// Characters of each half of a variable's name.
const NAME_MAX: usize = 100;

/// What the lines of a chart have in common. One for many charts: it keeps its memory.
#[derive(Default)]
struct Common {
    /// `NETDATA_CHART_`
    prefix: String,
    /// What follows the value: `"      # units`, and the line's end.
    behind: String,
}

impl Common {
    /// Nothing stands between the quotes where there is no value.
    fn push(&self, out: &mut String, name: &str, value: Option<f64>) {
        out.push_str(&self.prefix);
        push_variable(out, name);
        out.push_str("=\"");
        if let Some(value) = value {
            push_whole(out, value);
        }
        out.push_str(&self.behind);
    }
}

pub(super) fn body(host: &Host, alarms: &[Shown], filter: Option<&SimplePattern>) -> Vec<String> {
    let mut pieces = many::pieces(&host.charts(), |chart, common: &mut Common, out| {
        let state = chart.lock();
        let meta = &state.meta;
        if !filter.is_none_or(|f| f.matches(&meta.name)) {
            return;
        }
        out.push_str("\n# chart: ");
        push_comment(out, chart.id());
        out.push_str(" (name: ");
        push_comment(out, &meta.name);
        out.push_str(")\n");
        if !is_visible(host, &state) {
            return;
        }
        common.prefix.clear();
        common.prefix.push_str("NETDATA_");
        push_variable(&mut common.prefix, &meta.name);
        common.prefix.push('_');
        common.behind.clear();
        common.behind.push_str("\"      # ");
        push_comment(&mut common.behind, &meta.units);
        common.behind.push('\n');
        let mut total = 0.0;
        for dim in &state.dims {
            if !dim.was_collected() || dim.is_obsolete() {
                continue;
            }
            if dim.latest.is_nan() {
                common.push(out, &dim.name, None);
                continue;
            }
            let turned = (dim.multiplier < 0) != (dim.divisor < 0);
            let value = whole(if turned { -dim.latest } else { dim.latest });
            if !dim.is_hidden() {
                total += value;
            }
            common.push(out, &dim.name, Some(value));
        }
        common.push(out, "VISIBLETOTAL", Some(whole(total)));
    });
    let mut out = String::new();
    out.push_str("\n# NETDATA ALARMS RUNNING\n");
    for alarm in alarms {
        let name = format!("NETDATA_ALARM_{}_{}", variable(&alarm.chart), variable(&alarm.name));
        let value =
            if alarm.value.is_nan() { String::new() } else { format!("{:.0}", whole(alarm.value)) };
        let _ = writeln!(out, "{name}_VALUE=\"{value}\"      # {}", comment(&alarm.units));
        let _ = writeln!(out, "{name}_STATUS=\"{}\"", alarm.status.name());
    }
    pieces.push(out);
    pieces
}

/// An alarm, as this format shows it.
pub struct Shown {
    /// The chart's name.
    pub chart: String,
    pub name: String,
    pub units: String,
    pub value: f64,
    pub status: Status,
}

/// Rounded, half away from zero; never a negative zero.
fn whole(value: f64) -> f64 {
    value.round() + 0.0
}

fn push_whole(out: &mut String, value: f64) {
    // Below it every whole number is an i64.
    if value.abs() < WHOLE_MAX {
        push_integer(out, value as i64);
    } else {
        let _ = write!(out, "{value:.0}");
    }
}

fn push_variable(out: &mut String, name: &str) {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    out.extend(name.chars().take(NAME_MAX).map(plain));
}

fn push_comment(out: &mut String, text: &str) {
    out.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
}

fn variable(name: &str) -> String {
    let mut out = String::new();
    push_variable(&mut out, name);
    out
}

fn comment(text: &str) -> String {
    let mut out = String::new();
    push_comment(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::run::samples;

    #[test]
    fn every_value_is_an_assignment_with_its_units() {
        let alarm = Shown {
            chart: "t.absname".into(),
            name: "an alarm".into(),
            units: "%".into(),
            value: 2.6,
            status: Status::Warning,
        };
        let only = SimplePattern::new("t.absname");
        let text = body(&samples::host(), &[alarm], Some(&only)).concat();
        assert_eq!(
            text,
            "\n# chart: t.abs (name: t.absname)\n\
             NETDATA_T_ABSNAME_UP=\"0\"      # things/s\n\
             NETDATA_T_ABSNAME_ZERO_ZERO=\"0\"      # things/s\n\
             NETDATA_T_ABSNAME_GAP=\"\"      # things/s\n\
             NETDATA_T_ABSNAME_HID=\"100\"      # things/s\n\
             NETDATA_T_ABSNAME_VISIBLETOTAL=\"0\"      # things/s\n\
             \n# NETDATA ALARMS RUNNING\n\
             NETDATA_ALARM_T_ABSNAME_AN_ALARM_VALUE=\"3\"      # %\n\
             NETDATA_ALARM_T_ABSNAME_AN_ALARM_STATUS=\"WARNING\"\n"
        );
    }

    #[test]
    fn nothing_a_collector_says_becomes_a_command() {
        assert_eq!(variable("a\"; rm -rf $x"), "A___RM__RF__X");
        assert_eq!(comment("x\ny"), "x y");
        assert_eq!(format!("{:.0}", whole(-0.2)), "0");
    }
}
