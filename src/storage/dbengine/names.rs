//! How the catalog puts a chart or a dimension into words, and back.
//!
//! A chart: name, family, context, title, units, plugin, module, priority, update every, type, options, then three words
//! a label (name, value, source). A dimension: name, multiplier, divisor, algorithm, options. Words may be added at the
//! end of a dimension's; numbers are decimal, the one option is `hidden`.

use crate::base::time::UpdateEvery;
use crate::storage::records::{ChartRecord, DimensionRecord, LabelRecord};

/// Words before a chart's labels.
const CHART_WORDS: usize = 11;
const HIDDEN: &str = "hidden";
/// Bytes that the words of a record may take; labels beyond are left out.
const BYTES_MAX: usize = 12 * 1024;

fn options(hidden: bool) -> String {
    if hidden { HIDDEN } else { "" }.to_owned()
}

fn number<T: std::str::FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

pub(super) fn of_chart(chart: &ChartRecord) -> Vec<String> {
    let mut words = vec![
        chart.name.clone(),
        chart.family.clone(),
        chart.context.clone(),
        chart.title.clone(),
        chart.units.clone(),
        chart.plugin.clone(),
        chart.module.clone(),
        chart.priority.to_string(),
        chart.update_every.seconds().to_string(),
        chart.chart_type.to_string(),
        options(chart.hidden),
    ];
    let mut bytes: usize = words.iter().map(|word| word.len() + 2).sum();
    for label in &chart.labels {
        bytes += label.name.len() + label.value.len() + 9;
        if bytes > BYTES_MAX {
            break;
        }
        words.extend([label.name.clone(), label.value.clone(), label.source.to_string()]);
    }
    words
}

/// A chart without its dimensions; `None` for words that are none of a chart.
pub(crate) fn chart(id: &str, words: &[String]) -> Option<ChartRecord> {
    let (fixed, labels) = words.split_at_checked(CHART_WORDS)?;
    let [name, family, context, title, units, plugin, module, priority, every, kind, options] =
        fixed
    else {
        return None;
    };
    let labels = labels.chunks_exact(3).filter_map(|label| {
        let source = number(&label[2])?;
        Some(LabelRecord { name: label[0].clone(), value: label[1].clone(), source })
    });
    Some(ChartRecord {
        id: id.to_owned(),
        name: name.clone(),
        family: family.clone(),
        context: context.clone(),
        title: title.clone(),
        units: units.clone(),
        plugin: plugin.clone(),
        module: module.clone(),
        priority: number(priority)?,
        update_every: UpdateEvery::clamped(number(every)?),
        chart_type: number(kind)?,
        hidden: options == HIDDEN,
        labels: labels.collect(),
        dimensions: Vec::new(),
    })
}

/// `None` for a dimension whose id says all that a reader needs.
pub(super) fn of_dimension(dimension: &DimensionRecord) -> Option<Vec<String>> {
    (*dimension != DimensionRecord::bare(&dimension.id)).then(|| {
        vec![
            dimension.name.clone(),
            dimension.multiplier.to_string(),
            dimension.divisor.to_string(),
            dimension.algorithm.to_string(),
            options(dimension.hidden),
        ]
    })
}

pub(crate) fn dimension(id: &str, words: &[String]) -> Option<DimensionRecord> {
    let [name, multiplier, divisor, algorithm, options, ..] = words else { return None };
    Some(DimensionRecord {
        id: id.to_owned(),
        name: name.clone(),
        multiplier: number(multiplier)?,
        divisor: number(divisor)?,
        algorithm: number(algorithm)?,
        hidden: options == HIDDEN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_all_of_a_chart_and_its_dimensions() {
        let mut record = ChartRecord {
            name: "t.n".into(),
            title: "A title".into(),
            priority: -5,
            update_every: UpdateEvery::clamped(10),
            chart_type: 2,
            hidden: true,
            labels: vec![LabelRecord { name: "a".into(), value: "b".into(), source: 1 }],
            ..ChartRecord::bare("t.c")
        };
        assert_eq!(chart("t.c", &of_chart(&record)), Some(record.clone()));
        let label =
            |n: usize| LabelRecord { name: n.to_string(), value: "v".repeat(500), source: 2 };
        record.labels = (0..100).map(label).collect();
        let back = chart("t.c", &of_chart(&record)).unwrap();
        assert!(back.labels.len() > 20 && back.labels[..] == record.labels[..back.labels.len()]);
        assert_eq!(chart("t.c", &["x".to_owned()]), None);
        let plain = DimensionRecord::bare("d");
        assert_eq!(of_dimension(&plain), None);
        let other = DimensionRecord { name: "D".into(), divisor: 8, hidden: true, ..plain };
        assert_eq!(dimension("d", &of_dimension(&other).unwrap()), Some(other));
        assert_eq!(dimension("d", &[]), None);
    }
}
