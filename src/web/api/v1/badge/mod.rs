//! `/api/v1/badge.svg`: one value as a small picture for web pages.
//!
//! Unknown charts give a picture too, with status 200: a page that embeds badges has nobody to show an error to.

use crate::base::quantity;
use crate::base::stats::QueryBy;
use crate::base::time::UnixSeconds;
use crate::health::alarm::Status;
use crate::health::text;
use crate::query::answer::Row;
use crate::query::options::Options;
use crate::query::run;
use crate::web::api::Call;
use crate::web::http::{Caching, ContentType, Response};

use self::colour::Colour;
use self::picture::Picture;
use super::alarms;
use super::data::dimensions;

mod colour;
mod picture;

/// A chart without a sample for more than this many intervals has no value.
const FRESH_INTERVALS: i64 = 3;

pub fn badge(call: &Call<'_>) -> Response {
    let query = call.query();
    let Some(name) = query.get("chart") else {
        return Response::error(400, "No chart id is given at the request.");
    };
    let Some(chart) = call.host.find_any_chart(name) else {
        return answer(call, Badge::missing("chart not found"), 0);
    };
    if let Some(alarm) = query.get("alarm") {
        return of_alarm(call, chart.id(), alarm);
    }
    let (every, units, chart_name, last) = {
        let state = chart.lock();
        let last = state.retention().map_or(UnixSeconds(0), |(_, last)| last);
        let meta = &state.meta;
        (meta.update_every.seconds(), meta.units.to_string(), meta.name.to_string(), last.0)
    };
    let wanted = dimensions(query);
    let options = Options::parse(query.get("options").unwrap_or(""));
    let now = call.now().0;
    let asked = run::Query {
        chart: name,
        dimensions: &wanted,
        after: query.integer("after").unwrap_or(-every),
        before: query.integer("before").unwrap_or(0),
        points: query.integer("points").unwrap_or(1).max(1),
        group: query.get("group").unwrap_or(""),
        group_options: query.get("group_options").unwrap_or(""),
        options,
        clock: now,
        ..run::Query::default()
    };
    let fresh = last >= now - FRESH_INTERVALS * every;
    let value = if fresh { newest(call, &asked) } else { f64::NAN };
    let multiply = query.integer("multiply").unwrap_or(1) as f64;
    let divide = query.integer("divide").filter(|n| *n != 0).unwrap_or(1) as f64;
    let value = value * multiply / divide;
    let default_label =
        if wanted.is_empty() { &chart_name } else { wanted.trim_start_matches('|') };
    let default_units = if options.contains(Options::PERCENTAGE) { "%" } else { &units };
    let shown = if options.contains(Options::DISPLAY_ABSOLUTE) { value.abs() } else { value };
    let precision = query.integer("precision").unwrap_or(-1);
    let badge = Badge {
        label: query.get("label").unwrap_or(default_label).to_owned(),
        value: quantity::text(shown, query.get("units").unwrap_or(default_units), precision),
        colour: Colour::of_value(query.get("value_color").unwrap_or(""), value),
    };
    let refresh = match query.get("refresh") {
        Some("auto") if options.contains(Options::UNALIGNED) => every,
        Some("auto") => asked.before.saturating_sub(asked.after).saturating_abs(),
        Some(_) => query.integer("refresh").unwrap_or(0),
        None => 0,
    };
    answer(call, badge, refresh)
}

/// The value of an alarm, in the colour of its status.
fn of_alarm(call: &Call<'_>, chart: &str, name: &str) -> Response {
    let query = call.query();
    let found = alarms::watched(call).and_then(|(_, watched)| {
        watched.show(|alarms, _| {
            let alarm = alarms.of_chart(chart).find(|alarm| *alarm.name == *name)?;
            let units = text::of_chart(alarm).units;
            Some((alarm.state.value, alarm.state.status, units, alarm.definition.every))
        })
    });
    let Some((value, status, units, every)) = found else {
        return answer(call, Badge::missing("alarm not found"), 0);
    };
    let multiply = query.integer("multiply").unwrap_or(1) as f64;
    let divide = query.integer("divide").filter(|n| *n != 0).unwrap_or(1) as f64;
    let value = value * multiply / divide;
    let colour = match status {
        Status::Critical => "red",
        Status::Warning => "orange",
        Status::Clear => "brightgreen",
        Status::Undefined => "lightgrey",
        Status::Uninitialized => "000",
        Status::Removed | Status::Raised => "grey",
    };
    let precision = query.integer("precision").unwrap_or(-1);
    let badge = Badge {
        label: query.get("label").map_or_else(|| name.replace('_', " "), str::to_owned),
        value: quantity::text(value, query.get("units").unwrap_or(&units), precision),
        colour: Colour::of_value(query.get("value_color").unwrap_or(colour), value),
    };
    let refresh = match query.get("refresh") {
        Some("auto") => every,
        Some(_) => query.integer("refresh").unwrap_or(0),
        None => 0,
    };
    answer(call, badge, refresh)
}

struct Badge {
    label: String,
    value: String,
    colour: Colour,
}

impl Badge {
    fn missing(label: &str) -> Badge {
        Badge { label: label.to_owned(), value: "-".to_owned(), colour: Colour::UNKNOWN }
    }
}

/// The sum of the newest row; NaN when there is none.
fn newest(call: &Call<'_>, query: &run::Query<'_>) -> f64 {
    let Ok(outcome) = run::run(call.host, query, &|| false) else { return f64::NAN };
    let outcome = outcome.counted(QueryBy::ApiBadge);
    let rows = outcome.answer.rows();
    if rows == 0 {
        return f64::NAN;
    }
    outcome.answer.one_number(rows - 1, &mut Row::default())
}

fn answer(call: &Call<'_>, badge: Badge, refresh: i64) -> Response {
    let query = call.query();
    let colour = |name, default| Colour::parse(query.get(name).unwrap_or("")).unwrap_or(default);
    let width = |name| query.integer(name).filter(|n| *n > 0);
    let picture = Picture {
        label: &badge.label,
        value: &badge.value,
        label_colour: colour("label_color", Colour::LABEL),
        value_colour: badge.colour,
        label_text: colour("text_color_lbl", Colour::TEXT),
        value_text: colour("text_color_val", Colour::TEXT),
        scale_percent: query.integer("scale").unwrap_or(100),
        widths: width("fixed_width_lbl").zip(width("fixed_width_val")),
    };
    let mut response = Response::new(200, ContentType::Svg, picture.draw());
    if refresh > 0 {
        response.caching = Caching::Refresh(refresh);
        response = response.header("Refresh", refresh.to_string());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::api::v1::samples::{ask_at, text};

    /// Label and value of a badge right after the last sample.
    #[track_caller]
    fn check(query: &str, label: &str, value: &str) {
        let response = ask_at(badge, query, 900);
        let svg = text(&response);
        assert_eq!(response.status, 200);
        for (class, want) in [("bdge-lbl-lbl", label), ("bdge-lbl-val", value)] {
            let (_, rest) = svg.split_once(class).unwrap();
            let shown = rest.split_once('>').unwrap().1.split_once('<').unwrap().0;
            assert_eq!(shown.replace("&#x2F;", "/"), want, "{query}: {class}");
        }
    }

    #[test]
    fn a_badge_shows_the_newest_value() {
        check("chart=t.abs&dimensions=zero", "zero", "0 things/s");
        check(
            "chart=t.abs&dimensions=hid&label=My+Label&units=KiB&precision=2",
            "My Label",
            "100.00 KiB",
        );
        check("chart=t.two&multiply=3&divide=2&units=null", "t.two", "148.5");
        check("chart=no.such", "chart not found", "-");
        check("chart=t.abs&alarm=x", "alarm not found", "-");
        check("chart=t.abs&dimensions=zero&units=on/off", "zero", "off");
    }

    #[test]
    fn a_chart_that_stopped_has_no_value() {
        let svg = text(&ask_at(badge, "chart=t.two&value_color=red", 1000));
        assert!(svg.contains(">-<"), "{svg}");
    }

    #[test]
    fn a_badge_may_refresh_itself() {
        let response = ask_at(badge, "chart=t.two&refresh=7", 900);
        assert_eq!(response.caching, Caching::Refresh(7));
        assert_eq!(response.headers, [("Refresh", "7".to_owned())]);
        assert_eq!(ask_at(badge, "", 900).status, 400);
    }
}
