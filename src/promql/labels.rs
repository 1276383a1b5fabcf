//! Labels of a series: names in order, none without a value.

use std::sync::Arc;

/// The label that holds a metric's name.
pub const NAME: &str = "__name__";

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Vec<(Arc<str>, Arc<str>)>);

impl Labels {
    /// Of pairs in any order; of a name that is there twice the first counts.
    pub fn of<N: Into<Arc<str>>, V: Into<Arc<str>>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Labels {
        let all = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        let mut all: Vec<(Arc<str>, Arc<str>)> =
            all.filter(|(_, value)| !value.is_empty()).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.dedup_by(|(later, _), (first, _)| later == first);
        Labels(all)
    }

    /// The value of a label; empty where there is none, which is the same to the language.
    pub fn get(&self, name: &str) -> &str {
        match self.find(name) {
            Ok(at) => &self.0[at].1,
            Err(_) => "",
        }
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| (**own).cmp(name))
    }

    /// An empty value takes the label away.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.find(name) {
            Ok(at) if value.is_empty() => {
                self.0.remove(at);
            }
            Ok(at) => self.0[at].1 = value.into(),
            Err(_) if value.is_empty() => {}
            Err(at) => self.0.insert(at, (name.into(), value.into())),
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.set(name, "");
    }

    /// The same without the metric's name.
    #[must_use]
    pub fn nameless(mut self) -> Labels {
        self.remove(NAME);
        self
    }

    /// Only these.
    #[must_use]
    pub fn only(&self, names: &[String]) -> Labels {
        let kept = self.0.iter().filter(|(name, _)| names.iter().any(|n| **n == **name));
        Labels(kept.cloned().collect())
    }

    /// All but these.
    #[must_use]
    pub fn all_but(&self, names: &[String]) -> Labels {
        let kept = self.0.iter().filter(|(name, _)| !names.iter().any(|n| **n == **name));
        Labels(kept.cloned().collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Whether the language takes this as a label's name.
pub fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_a_set_in_order() {
        let mut labels = Labels::of([("b", "2"), ("a", "1"), ("b", "3"), ("c", "")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        labels.set("aa", "x");
        labels.set("b", "");
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("aa", "x")]);
        assert_eq!((labels.get("aa"), labels.get("b")), ("x", ""));
    }
}
