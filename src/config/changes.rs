//! What differs between two readings of a file, in words that keep its secrets.
//!
//! Pure. Keys are masked wherever they stand: as names of sections and as values.

use std::fmt;

use super::document::Snapshot;
use super::keys;

/// One option that is set otherwise than before; `None` where it was or is not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub section: String,
    pub name: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

impl Change {
    /// The option as it is set now.
    pub fn as_set(&self) -> String {
        let section = shown_section(&self.section);
        let value = self.new.as_deref().unwrap_or_default();
        format!("[{section}] '{}' = '{}'", self.name, shown(&self.name, value))
    }
}

/// All options that `new` sets otherwise than `old`, in the order of their sections and names.
pub fn changes(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    let mut all: Vec<_> = old.keys().chain(new.keys()).collect();
    all.sort_unstable();
    all.dedup();
    let change = |at: &(String, String)| Change {
        section: at.0.clone(),
        name: at.1.clone(),
        old: old.get(at).cloned(),
        new: new.get(at).cloned(),
    };
    all.into_iter().map(change).filter(|change| change.old != change.new).collect()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| match value {
            None => "not set".to_owned(),
            Some(text) => format!("'{}'", shown(&self.name, text)),
        };
        let section = shown_section(&self.section);
        write!(f, "[{section}] '{}': {} -> {}", self.name, value(&self.old), value(&self.new))
    }
}

/// The name of a section; of a key or its hash only the beginning.
pub fn shown_section(name: &str) -> String {
    match name.split_once(':') {
        Some((kind, hash)) if keys::section_name(name).is_some() => {
            format!("{kind}:{}...", keys::masked(hash))
        }
        _ if keys::section_name(name).is_some() => format!("{}...", keys::masked(name)),
        _ => name.to_owned(),
    }
}

fn shown(name: &str, value: &str) -> String {
    let is_key = name.ends_with("api key") || keys::section_name(value).is_some();
    if is_key && !value.is_empty() {
        return format!("{}...", keys::masked(value));
    }
    // A line of a terminal or a log stays one line.
    value.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(options: &[(&str, &str, &str)]) -> Snapshot {
        let entry = |(section, name, value): &(&str, &str, &str)| {
            (((*section).to_owned(), (*name).to_owned()), (*value).to_owned())
        };
        options.iter().map(entry).collect()
    }

    const KEY: &str = "11111111-2222-3333-4444-55555555abcd";

    #[test]
    fn only_what_differs_is_told() {
        let old = snapshot(&[("a", "same", "1"), ("a", "other", "1"), ("b", "gone", "x")]);
        let new = snapshot(&[("a", "same", "1"), ("a", "other", "2"), ("c", "new", "")]);
        let told: Vec<_> = changes(&old, &new).iter().map(Change::to_string).collect();
        assert_eq!(
            told,
            ["[a] 'other': '1' -> '2'", "[b] 'gone': 'x' -> not set", "[c] 'new': not set -> ''"]
        );
        assert!(changes(&new, &new).is_empty());
    }

    #[test]
    fn keys_are_told_by_their_beginning_wherever_they_stand() {
        let hash = keys::hashed(KEY);
        let old = snapshot(&[]);
        let new = snapshot(&[
            ("stream", "api key", KEY),
            ("stream", "destination", KEY),
            (KEY, "default proxy api key", "not-even-a-guid"),
            (&hash, "enabled", "yes"),
        ]);
        let told: Vec<_> = changes(&old, &new).iter().map(Change::to_string).collect();
        let told = told.join("\n");
        for secret in [KEY, &KEY[9..], &hash[7..], "not-even-a-guid"] {
            assert!(!told.contains(secret), "{secret} in {told}");
        }
        assert!(told.contains("[11111111...]") && told.contains("'11111111...'"), "{told}");
        assert!(told.contains("[sha256:"), "{told}");
    }
}
