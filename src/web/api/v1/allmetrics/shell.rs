//! The newest values as assignments that a shell can `eval`.
//!
//! Names are upper case letters, digits and underscores, values are whole numbers, and comments hold no line end: nothing
//! that a collector says can become a command.

use std::fmt::Write as _;

use crate::base::pattern::SimplePattern;
use crate::health::alarm::Status;
use crate::metrics::Host;
use crate::web::api::v1::charts::is_visible;

/// Characters of each half of a variable's name.
const NAME_MAX: usize = 100;

pub(super) fn body(host: &Host, alarms: &[Shown], filter: Option<&SimplePattern>) -> String {
    let mut out = String::with_capacity(64 * 1024);
    for chart in host.charts() {
        let state = chart.lock();
        let meta = &state.meta;
        if !filter.is_none_or(|f| f.matches(&meta.name)) {
            continue;
        }
        let _ = writeln!(out, "\n# chart: {} (name: {})", comment(chart.id()), comment(&meta.name));
        if !is_visible(host, &state) {
            continue;
        }
        let (prefix, units) = (variable(&meta.name), comment(&meta.units));
        let mut total = 0.0;
        for dim in &state.dims {
            if !dim.was_collected() || dim.is_obsolete() {
                continue;
            }
            let name = variable(&dim.name);
            if dim.latest.is_nan() {
                let _ = writeln!(out, "NETDATA_{prefix}_{name}=\"\"      # {units}");
                continue;
            }
            let turned = (dim.multiplier < 0) != (dim.divisor < 0);
            let value = whole(if turned { -dim.latest } else { dim.latest });
            if !dim.is_hidden() {
                total += value;
            }
            let _ = writeln!(out, "NETDATA_{prefix}_{name}=\"{value:.0}\"      # {units}");
        }
        let total = whole(total);
        let _ = writeln!(out, "NETDATA_{prefix}_VISIBLETOTAL=\"{total:.0}\"      # {units}");
    }
    out.push_str("\n# NETDATA ALARMS RUNNING\n");
    for alarm in alarms {
        let name = format!("NETDATA_ALARM_{}_{}", variable(&alarm.chart), variable(&alarm.name));
        let value =
            if alarm.value.is_nan() { String::new() } else { format!("{:.0}", whole(alarm.value)) };
        let _ = writeln!(out, "{name}_VALUE=\"{value}\"      # {}", comment(&alarm.units));
        let _ = writeln!(out, "{name}_STATUS=\"{}\"", alarm.status.name());
    }
    out
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

fn variable(name: &str) -> String {
    name.chars()
        .take(NAME_MAX)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect()
}

fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
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
        let text = body(&samples::host(), &[alarm], Some(&SimplePattern::new("t.absname")));
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
