//! Reads Netdata's INI dialect into an ordered document.
//!
//! No published parser reads it faithfully: names may contain `:`, `#` starts a comment only at the front of a line
//! (indented or not), there are no trailing comments, quotes are part of the value, and white space inside the
//! brackets of a section is part of its name. Bad lines are skipped, each with a reason.

use ini::{Ini, Properties};

pub(super) type Document = Ini;

/// A line that says nothing usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    OutsideSections,
    NoEquals,
    NoName,
}

/// What one line says.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Blank,
    Section(&'a str),
    Option { name: &'a str, value: &'a str },
    Other(&'a str),
}

/// Reads all of a file. A later option of the same name wins, sections of the same name are one.
pub(super) fn read(text: &str) -> (Ini, Vec<BadLine>) {
    let mut document = Ini::new();
    let mut bad = Vec::new();
    let mut section: Option<&str> = None;
    for (index, line) in text.split('\n').enumerate() {
        let mut refuse = |text: &str, fault| {
            bad.push(BadLine { number: index + 1, text: text.to_owned(), fault });
        };
        match classify(line) {
            Line::Blank => {}
            Line::Section(name) => {
                section = Some(name);
                document.entry(Some(name.to_owned())).or_insert(Properties::new());
            }
            Line::Option { .. } | Line::Other(_) if section.is_none() => {
                refuse(trim(line), Fault::OutsideSections);
            }
            Line::Other(text) => refuse(text, Fault::NoEquals),
            Line::Option { name: "", .. } => refuse(trim(line), Fault::NoName),
            Line::Option { name, value } => {
                document.with_section(section).set(name, value);
            }
        }
    }
    (document, bad)
}

fn classify(line: &str) -> Line<'_> {
    let line = trim(line);
    if line.is_empty() || line.starts_with('#') {
        return Line::Blank;
    }
    if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Line::Section(name);
    }
    match line.split_once('=') {
        Some((name, value)) => Line::Option { name: trim(name), value: trim(value) },
        None => Line::Other(line),
    }
}

/// White space as C's `isspace` has it.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| matches!(c, ' ' | '\t'..='\r'))
}

impl BadLine {
    /// The line and its fault, without its text: that may be a secret.
    pub(super) fn name(&self, file: &str) -> String {
        let fault = match self.fault {
            Fault::OutsideSections => "is outside all sections",
            Fault::NoEquals => "has no =",
            Fault::NoName => "has no name before its =",
        };
        format!("'{file}': line {} {fault}", self.number)
    }

    /// The sentence that goes to the log.
    pub(super) fn describe(&self, file: &str) -> String {
        let (number, text) = (self.number, &self.text);
        match self.fault {
            Fault::OutsideSections => format!(
                "CONFIG: ignoring line {number} ('{text}') of file '{file}', it is outside all sections."
            ),
            Fault::NoEquals => format!(
                "CONFIG: ignoring line {number} ('{text}') of file '{file}', there is no = in it."
            ),
            Fault::NoName => {
                format!("CONFIG: ignoring line {number} of file '{file}', name is empty.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(line: &str, want: Line<'_>) {
        assert_eq!(classify(line), want, "{line:?}");
    }

    #[test]
    fn a_value_keeps_everything_after_the_first_equals() {
        check("a=b=c", Line::Option { name: "a", value: "b=c" });
        check(
            "trailing = yes # no comment",
            Line::Option { name: "trailing", value: "yes # no comment" },
        );
        check("q = \"as is\"", Line::Option { name: "q", value: "\"as is\"" });
        check(";s = 1", Line::Option { name: ";s", value: "1" });
        check("empty =", Line::Option { name: "empty", value: "" });
    }

    #[test]
    fn white_space_around_names_and_values_is_nothing() {
        check("\ttwo words\t=\tby tab\t\r", Line::Option { name: "two words", value: "by tab" });
        check("    # indented comment", Line::Blank);
        check("#glued = comment", Line::Blank);
    }

    #[test]
    fn a_section_is_the_whole_line() {
        check("[plugin:proc:/proc/net/dev]", Line::Section("plugin:proc:/proc/net/dev"));
        check("  [ spaced ]\r", Line::Section(" spaced "));
        check("[broken] # text", Line::Other("[broken] # text"));
        check("\u{feff}[plain]", Line::Other("\u{feff}[plain]"));
    }

    #[test]
    fn the_last_of_a_name_wins_and_sections_merge() {
        let (document, bad) = read("[s]\na = 1\na = 2\n[t]\nb = 3\n[s]\nc = 4");
        assert!(bad.is_empty());
        let names: Vec<_> = document.sections().collect();
        assert_eq!(names, [None, Some("s"), Some("t")]);
        assert_eq!(document.get_from(Some("s"), "a"), Some("2"));
        assert_eq!(document.get_from(Some("s"), "c"), Some("4"));
    }

    #[test]
    fn bad_lines_are_named() {
        let (_, bad) = read("stray = 1\n[s]\nnothing here\n = nameless\n");
        let said: Vec<_> = bad.iter().map(|line| line.describe("F")).collect();
        assert_eq!(
            said,
            [
                "CONFIG: ignoring line 1 ('stray = 1') of file 'F', it is outside all sections.",
                "CONFIG: ignoring line 3 ('nothing here') of file 'F', there is no = in it.",
                "CONFIG: ignoring line 4 of file 'F', name is empty.",
            ]
        );
    }

    proptest! {
        #[test]
        fn no_text_upsets_the_reader(text in "[\\[\\]=# a\n\r\t]{0,60}") {
            read(&text);
        }
    }
}
