//! What charts, dimensions and labels are called in the languages of other databases.

/// For graphite and opentsdb: every byte other than a letter, a digit or a dot becomes `_`.
pub(super) fn push_dotted(out: &mut String, name: &str) {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.';
    out.extend(name.bytes().map(|b| if plain(b) { char::from(b) } else { '_' }));
}

/// A value of a graphite tag: white space and what separates tags becomes `_`.
pub(super) fn push_graphite_value(out: &mut String, value: &str) {
    let special = |c: char| c.is_whitespace() || c == ';' || c == '~';
    out.extend(value.chars().map(|c| if special(c) { '_' } else { c }));
}

/// A value of an opentsdb tag: letters, digits, `-`, `.`, `/` and whatever is not ASCII stays.
pub(super) fn push_opentsdb_value(out: &mut String, value: &str) {
    let plain = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-./".contains(c);
    out.extend(value.chars().map(|c| if plain(c) { c } else { '_' }));
}

/// For Prometheus: everything but letters and digits becomes `_`.
pub fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Appends `text` as it stands between the quotes of a Prometheus label.
pub fn push_label(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
}

/// Whether the units of a Prometheus name are those of today or of old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    New,
    Old,
}

/// The units as part of a Prometheus metric's name.
pub fn units_suffix(units: &str, spelling: Units) -> String {
    let old_name = match units {
        _ if spelling == Units::New => None,
        "KiB/s" => Some("kilobytes/s"),
        "MiB/s" => Some("MB/s"),
        "GiB/s" => Some("GB/s"),
        "KiB" => Some("KB"),
        "MiB" => Some("MB"),
        "GiB" => Some("GB"),
        "inodes" => Some("Inodes"),
        "percentage" => Some("percent"),
        "faults/s" => Some("page faults/s"),
        "KiB/operation" => Some("kilobytes per operation"),
        "milliseconds/operation" => Some("ms per operation"),
        _ => None,
    };
    let units = old_name.unwrap_or(units);
    match units {
        "" => String::new(),
        "%" => "_percent".to_owned(),
        _ => match units.strip_suffix("/s") {
            Some(amount) => format!("_{}_persec", sanitized(amount)),
            None => format!("_{}", sanitized(units)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_what_each_database_allows() {
        let made = |push: fn(&mut String, &str), text: &str| {
            let mut out = String::new();
            push(&mut out, text);
            out
        };
        assert_eq!(made(push_dotted, "lab.my gauge-é"), "lab.my_gauge___");
        assert_eq!(made(push_graphite_value, "a b;c~d:é"), "a_b_c_d:é");
        assert_eq!(made(push_opentsdb_value, "_a b:c_d_/é-."), "_a_b_c_d_/é-.");
        assert_eq!(made(push_label, "a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn units_become_part_of_the_name() {
        for (units, spelling, suffix) in [
            ("KiB/s", Units::New, "_KiB_persec"),
            ("KiB/s", Units::Old, "_kilobytes_persec"),
            ("%", Units::New, "_percent"),
            ("percentage", Units::Old, "_percent"),
            ("", Units::New, ""),
        ] {
            assert_eq!(units_suffix(units, spelling), suffix);
        }
    }
}
