//! `-W buildinfo` and `-W buildinfojson`: version and features, in the layout scripts already parse.

use std::fmt::Write as _;

use crate::base::VERSION;
use crate::base::features::{FEATURES, Group};
use crate::base::json::JsonWriter;

/// Column of the values in the text form.
const VALUE_COLUMN: usize = 32;

/// For people.
pub(super) fn text() -> String {
    let mut text = format!(
        "Version: netdata {VERSION}\nConfigure options:  netdata-rs\nInstall type: unknown\n"
    );
    for group in Group::ALL {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}:", group.title());
        for feature in FEATURES.iter().filter(|feature| feature.group == group) {
            let name = format!("    {}:", feature.name);
            let word = if feature.built { "YES" } else { "NO" };
            let _ = writeln!(text, "{name:VALUE_COLUMN$}{word}");
        }
    }
    text
}

/// For scripts.
pub(super) fn json() -> String {
    let mut json = JsonWriter::new();
    json.object(|json| {
        json.key("version").string(VERSION);
        for group in Group::ALL {
            json.key(group.key()).object(|json| {
                for feature in FEATURES.iter().filter(|feature| feature.group == group) {
                    json.key(feature.key).bool(feature.built);
                }
            });
        }
    });
    json.finish() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_find_the_features() {
        let parsed: serde_json::Value = serde_json::from_str(&json()).unwrap();
        assert_eq!(parsed["libs"]["zlib"], true);
        assert_eq!(parsed["features"]["cloud"], false);
    }

    #[test]
    fn people_find_them_in_a_column() {
        let text = text();
        assert!(text.starts_with("Version: netdata v"));
        assert!(text.contains("\n    zlib:                       YES\n"), "{text}");
    }
}
