//! The `destination` grammar of a sender: `[PROTOCOL:]HOST[%INTERFACE][:PORT][:SSL]`, `unix:/path` or `/path`, in a list
//! separated by white space or commas.
//!
//! Pure parsing; nothing is resolved here.

use std::fmt;

use super::listen::{Place, Protocol, parse_bind};

/// More destinations than this are ignored.
pub const DESTINATIONS_MAX: usize = 128;

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// As written but for `:SSL`, for logs.
    pub text: String,
    pub place: Place,
    pub tls: bool,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads a list, at most [`DESTINATIONS_MAX`] entries.
pub fn parse_destinations(list: &str, default_port: u16) -> Vec<Destination> {
    list.split(|c: char| c.is_ascii_whitespace() || c == ',')
        .filter(|item| !item.is_empty())
        .take(DESTINATIONS_MAX)
        .filter_map(|item| parse_one(item, default_port))
        .collect()
}

fn parse_one(item: &str, default_port: u16) -> Option<Destination> {
    let tls = item.contains(":SSL");
    let text = item.replacen(":SSL", "", 1);
    let place = if text.starts_with('/') {
        Place::Unix(text.as_str().into())
    } else if text.contains(['=', '^']) {
        // Words of a listener mean nothing here: such a name never resolves, as in the original.
        Place::Net {
            protocol: Protocol::Any,
            host: text.clone(),
            interface: None,
            port: default_port.to_string(),
        }
    } else {
        // The same grammar as a listener's, without the words after `=`.
        parse_bind(&text, default_port).pop()?.place
    };
    Some(Destination { text, place, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, host: &str, interface: Option<&str>, port: &str, tls: bool) {
        let list = parse_destinations(text, 19999);
        let [got] = &list[..] else { panic!("{list:?}") };
        let Place::Net { host: h, interface: i, port: p, .. } = &got.place else { panic!() };
        assert_eq!((h.as_str(), i.as_deref(), p.as_str(), got.tls), (host, interface, port, tls));
    }

    #[test]
    fn entries_of_every_form() {
        check("host", "host", None, "19999", false);
        check("tcp:host:80:SSL", "host", None, "80", true);
        check("host:SSL", "host", None, "19999", true);
        check("[fe80::1]%eth0:1", "fe80::1", Some("eth0"), "1", false);
        check("a=b", "a=b", None, "19999", false);
        let unix = parse_destinations("unix:/a /b", 1);
        let paths: Vec<_> = unix.iter().map(|d| d.place.clone()).collect();
        assert_eq!(paths, [Place::Unix("/a".into()), Place::Unix("/b".into())]);
    }

    #[test]
    fn blanks_and_commas_separate() {
        let list = parse_destinations("a:1, b:SSL  c:2:SSL,,", 19999);
        let got: Vec<_> = list.iter().map(|d| (d.to_string(), d.tls)).collect();
        let want = [("a:1", false), ("b", true), ("c:2", true)];
        assert_eq!(got, want.map(|(text, tls)| (text.to_owned(), tls)));
    }

    #[test]
    fn any_text_is_read_without_harm() {
        for text in ["[", "]", "%", "::", "[%", "=", "^SSL=", "tcp:", "unix:", ",,,", "[]:", ":SSL"]
        {
            let _ = parse_destinations(text, 1);
        }
    }
}
