//! OpenMetrics 1.0 out of Prometheus text: families in one piece, times in seconds, an end that can be seen.
//!
//! Pure text to text. What comes in has a `# TYPE` line before the first sample of a family and nothing else that begins
//! with `#`.

use std::fmt::Write as _;

use rustc_hash::{FxHashMap, FxHashSet};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether an `Accept` header asks for it.
pub(super) fn is_wanted(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| {
        accept.split(',').any(|kind| {
            let mut parts = kind.split(';').map(str::trim);
            parts.next() == Some("application/openmetrics-text")
                && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "version=0.0.1"))
        })
    })
}

struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    samples: String,
}

pub(super) fn from_prometheus(text: &str) -> String {
    let mut families: Vec<Family<'_>> = Vec::new();
    let mut index: FxHashMap<&str, usize> = FxHashMap::default();
    let mut kinds: FxHashMap<&str, &str> = FxHashMap::default();
    let name_of = |line: &'_ str| line.split(['{', ' ']).next().unwrap_or_default().len();
    let names: FxHashSet<&str> =
        text.lines().map(|line| &line[..name_of(line)]).filter(|name| !name.is_empty()).collect();
    for line in text.lines() {
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            kinds.insert(name, kind);
            continue;
        }
        let name = &line[..name_of(line)];
        if name.is_empty() || name.starts_with('#') {
            continue;
        }
        let (family, kind) = match name.strip_suffix("_total") {
            // Of charts that are mixed there are both, and a family has one type: the counter goes by its whole name.
            Some(counter) if kinds.get(counter) == Some(&"counter") => {
                match names.contains(counter) {
                    false => (counter, "counter"),
                    true => (name, "unknown"),
                }
            }
            _ if name == "netdata_info" => ("netdata", "info"),
            _ => (
                name,
                kinds.get(name).copied().filter(|kind| *kind != "counter").unwrap_or("unknown"),
            ),
        };
        let at = *index.entry(family).or_insert_with(|| {
            families.push(Family { name: family, kind, samples: String::new() });
            families.len() - 1
        });
        let Some(family) = families.get_mut(at) else { continue };
        push_sample(&mut family.samples, line, kind == "info");
    }
    let mut out = String::with_capacity(text.len() + 1024);
    for Family { name, kind, samples } in &families {
        let _ = writeln!(out, "# TYPE {name} {kind}");
        out.push_str(samples);
    }
    out.push_str("# EOF\n");
    out
}

/// A sample line, its time in seconds; what does not change has none.
fn push_sample(out: &mut String, line: &str, constant: bool) {
    // Labels may hold blanks; value and time are what follows them.
    let end = line.rfind('}').map_or_else(|| line.find(' ').unwrap_or(line.len()), |at| at + 1);
    let (series, rest) = line.split_at(end);
    let mut words = rest.split_ascii_whitespace();
    out.push_str(series);
    out.push(' ');
    out.push_str(words.next().unwrap_or("0"));
    if let Some(at_ms) =
        words.next().and_then(|word| word.parse::<i64>().ok()).filter(|_| !constant)
    {
        let _ = write!(out, " {}.{:03}", at_ms.div_euclid(1000), at_ms.rem_euclid(1000));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_whole_and_the_end_is_marked() {
        let text = "netdata_info{instance=\"h\"} 1 1700000000123\n\
                    # TYPE a_b counter\na_b_total{chart=\"x} y\"} 5 1700000000123\n\
                    # TYPE g gauge\ng{chart=\"c\"} 1.5000000\n\
                    # TYPE a_b counter\na_b_total{chart=\"z\"} 6 1700000001000\n\
                    # TYPE raw counter\nraw{chart=\"z\"} 6\nnetdata_var 7.0000000 1700000001000\n";
        assert_eq!(
            from_prometheus(text),
            "# TYPE netdata info\nnetdata_info{instance=\"h\"} 1\n\
             # TYPE a_b counter\na_b_total{chart=\"x} y\"} 5 1700000000.123\na_b_total{chart=\"z\"} 6 1700000001.000\n\
             # TYPE g gauge\ng{chart=\"c\"} 1.5000000\n\
             # TYPE raw unknown\nraw{chart=\"z\"} 6\n\
             # TYPE netdata_var unknown\nnetdata_var 7.0000000 1700000001.000\n# EOF\n"
        );
    }

    #[test]
    fn a_family_has_one_type_though_charts_are_mixed() {
        let text = "# TYPE a gauge\na{chart=\"c\"} 1\n# TYPE a counter\na_total{chart=\"d\"} 2\na{chart=\"e\"} 3\n";
        assert_eq!(
            from_prometheus(text),
            "# TYPE a gauge\na{chart=\"c\"} 1\na{chart=\"e\"} 3\n# TYPE a_total unknown\na_total{chart=\"d\"} 2\n# EOF\n"
        );
    }

    #[test]
    fn it_is_given_to_whoever_asks() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, wanted) in [
            (Some(prometheus), true),
            (Some("text/plain"), false),
            (Some("*/*"), false),
            (Some("application/openmetrics-text; q=0, */*"), false),
            (None, false),
        ] {
            assert_eq!(is_wanted(accept), wanted, "{accept:?}");
        }
    }
}
