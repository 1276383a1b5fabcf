//! Labels of hosts and charts: `name = value` pairs with the source they came from.
//!
//! Names and values are cleaned on the way in, so whatever reads a label may print it between double quotes.

use std::sync::Arc;

use crate::base::intern::intern;

/// Where a label came from; a small bitmap, as peers send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelSource(pub u8);

impl LabelSource {
    pub const AUTO: LabelSource = LabelSource(1);
    pub const CONFIG: LabelSource = LabelSource(2);
    pub const KUBERNETES: LabelSource = LabelSource(4);
    pub const ACLK: LabelSource = LabelSource(8);

    /// Keeps the four public bits; real peers leak internal ones above them.
    pub fn from_wire(bits: i64) -> LabelSource {
        LabelSource((bits & 0xF) as u8)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub name: Arc<str>,
    pub value: Arc<str>,
    pub source: LabelSource,
}

/// An ordered set of labels, one value per name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<Label>);

/// Labels kept per host or chart; more are dropped by whoever adds them.
pub const LABELS_MAX: usize = 256;

impl Labels {
    pub fn new() -> Self {
        Labels::default()
    }

    /// Sets a label; true when that changed anything. Names that clean to nothing and labels beyond [`LABELS_MAX`] are
    /// left out.
    pub fn set(&mut self, name: &str, value: &str, source: LabelSource) -> bool {
        let name = clean_name(name);
        if name.is_empty() {
            return false;
        }
        let value = clean_value(value);
        if let Some(label) = self.0.iter_mut().find(|label| *label.name == *name) {
            if *label.value == *value && label.source == source {
                return false;
            }
            label.value = intern(&value);
            label.source = source;
            return true;
        }
        if self.0.len() >= LABELS_MAX {
            return false;
        }
        self.0.push(Label { name: intern(&name), value: intern(&value), source });
        true
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|label| *label.name == *name).map(|label| &*label.value)
    }

    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|label| *label.name != *name);
        self.0.len() != before
    }

    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Letters, digits and `. / - _` survive, everything else becomes `_`.
pub fn clean_name(name: &str) -> String {
    name.trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "./-_".contains(c) { c } else { '_' })
        .collect()
}

/// Text that is safe between double quotes: quotes, control characters and the like become `_`, `;` becomes `:`,
/// backslashes become slashes, runs of spaces become one. An empty value reads `[none]`.
pub fn clean_value(value: &str) -> String {
    let mut clean = String::with_capacity(value.len());
    for c in value.trim().chars() {
        match c {
            ' ' if clean.ends_with(' ') => {}
            ';' => clean.push(':'),
            '\\' => clean.push('/'),
            c if c.is_ascii_alphanumeric() || " ./-_+=:()@,[]{}#&!?<>|^".contains(c) => {
                clean.push(c)
            }
            c if c.is_ascii() || c.is_control() => clean.push('_'),
            c => clean.push(c),
        }
    }
    if clean.is_empty() { "[none]".to_owned() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_made_safe_for_double_quotes() {
        assert_eq!(clean_value("\"a b;c~d\""), "_a b:c_d_");
        assert_eq!(clean_value("  two   spaces "), "two spaces");
        assert_eq!(clean_value(""), "[none]");
        assert_eq!(clean_name("Data Center/1"), "Data_Center/1");
    }

    #[test]
    fn setting_the_same_label_again_changes_nothing() {
        let mut labels = Labels::new();
        assert!(labels.set("a", "1", LabelSource::AUTO));
        assert!(!labels.set("a", "1", LabelSource::AUTO));
        assert!(labels.set("a", "2", LabelSource::AUTO));
        assert_eq!((labels.get("a"), labels.len()), (Some("2"), 1));
    }
}
