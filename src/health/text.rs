//! How alarms are written down, for answers, the log and notifications. Pure but for a look at the chart.

use std::path::Path;

use super::grammar::Definition;
use super::linked::Alarm;
use crate::base::quantity;
use crate::metrics::Labels;

/// What an alarm's chart adds to it.
pub struct OfChart {
    pub name: String,
    pub family: String,
    pub context: String,
    /// The alarm's, or the chart's.
    pub units: String,
    /// With family and labels in place.
    pub info: String,
}

pub fn of_chart(alarm: &Alarm) -> OfChart {
    let state = alarm.chart.lock();
    let meta = &state.meta;
    OfChart {
        name: meta.name.to_string(),
        family: meta.family.to_string(),
        context: meta.context.to_string(),
        units: alarm.definition.units.as_ref().unwrap_or(&meta.units).to_string(),
        info: filled(&alarm.definition.info, &meta.family, &state.labels),
    }
}

/// A value with its units.
pub fn value(value: f64, units: &str) -> String {
    quantity::text(value, units, -1)
}

/// `$family` and `${label:NAME}` by what they stand for; unknown labels stay as they are written.
fn filled(info: &str, family: &str, labels: &Labels) -> String {
    let info = info.replace("${family}", family).replace("$family", family);
    let mut out = String::with_capacity(info.len());
    let mut rest = info.as_str();
    while let Some((before, after)) = rest.split_once("${label:") {
        out.push_str(before);
        let known = after.split_once('}').and_then(|(name, tail)| Some((labels.get(name)?, tail)));
        match known {
            Some((value, tail)) => {
                out.push_str(value);
                rest = tail;
            }
            None => {
                out.push_str("${label:");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The command that edits an alarm, with the line and the host it is about.
pub fn edit_command(config: &Path, definition: &Definition, host: &str) -> String {
    let file = Path::new(&*definition.file).file_name().map(|name| name.to_string_lossy());
    edit_command_of(config, &format!("{}@{}", definition.line, file.unwrap_or_default()), host)
}

/// The same for `LINE@FILE`.
pub fn edit_command_of(config: &Path, source: &str, host: &str) -> String {
    match source.split_once('@') {
        Some((line, file)) => {
            let file = file.rsplit('/').next().unwrap_or(file);
            format!("sudo {}/edit-config health.d/{file}={line}={host}", config.display())
        }
        None => "UNKNOWN=0=UNKNOWN".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LabelSource;

    #[test]
    fn labels_and_family_are_put_into_the_info() {
        let mut labels = Labels::new();
        labels.set("device", "sda", LabelSource::AUTO);
        let fill = |info| filled(info, "fam", &labels);
        assert_eq!(fill("of $family on ${label:device}"), "of fam on sda");
        assert_eq!(fill("${label:nothing} ${label:open"), "${label:nothing} ${label:open");
    }

    #[test]
    fn the_command_names_file_line_and_host() {
        assert_eq!(
            edit_command_of(Path::new("/etc/netdata"), "7@/usr/lib/x/health.d/net.conf", "box"),
            "sudo /etc/netdata/edit-config health.d/net.conf=7=box"
        );
    }
}
