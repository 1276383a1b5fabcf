//! API keys in stream.conf: plain as a section's name, or hashed as `[sha256:HEX]`, so that who reads the file cannot stream.
//!
//! Pure. Names of sections are compared in constant time and all of them, so that how long an answer takes says nothing about
//! how much of a key was right.

use openssl::{memcmp, sha};

use crate::base::ids::parse_uuid;

const HASHED: &str = "sha256:";
const HEX_DIGITS: usize = 64;

/// The name of the section that stands for a key without holding it. Case does not matter in keys.
pub fn hashed(key: &str) -> String {
    let digest = sha::sha256(key.to_ascii_lowercase().as_bytes());
    digest.iter().fold(HASHED.to_owned(), |name, byte| name + &format!("{byte:02x}"))
}

/// A section's name as it is kept, if it is that of a key or machine.
pub fn section_name(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let is_hash = |hex: &str| hex.len() == HEX_DIGITS && hex.bytes().all(|b| b.is_ascii_hexdigit());
    (parse_uuid(&name).is_ok() || name.strip_prefix(HASHED).is_some_and(is_hash)).then_some(name)
}

/// The section of a key: its own, else that of its hash.
pub fn section_of(key: &str, sections: &[String]) -> Option<String> {
    // A hash is the name of a section, and no key.
    parse_uuid(key).ok()?;
    let (plain, hash) = (key.to_ascii_lowercase(), hashed(key));
    let is = |section: &str, name: &str| {
        section.len() == name.len() && memcmp::eq(section.as_bytes(), name.as_bytes())
    };
    let (mut has_plain, mut has_hash) = (false, false);
    for section in sections {
        has_plain |= is(section, &plain);
        has_hash |= is(section, &hash);
    }
    if has_plain { Some(plain) } else { has_hash.then_some(hash) }
}

/// A key as far as logs tell it: whole, it opens a parent to whoever reads them.
pub fn masked(key: &str) -> &str {
    key.char_indices().nth(8).map_or(key, |(end, _)| &key[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "11111111-2222-3333-4444-55555555abcd";

    #[test]
    fn a_key_is_found_by_its_name_or_its_hash_whatever_its_case() {
        let sections = [hashed(KEY), "stream".to_owned()];
        let found = |key: &str, sections: &[String]| section_of(key, sections);
        assert_eq!(found(KEY, &sections), Some(hashed(KEY)));
        assert_eq!(found(&KEY.to_ascii_uppercase(), &sections), Some(hashed(KEY)));
        assert_eq!(found(KEY, &[KEY.to_owned(), hashed(KEY)]).as_deref(), Some(KEY));
        assert_eq!(found(&KEY.replace('5', "6"), &sections), None);
        assert_eq!(found(&hashed(KEY), &sections), None);
        assert_eq!(found("stream", &sections), None);
    }

    #[test]
    fn only_whole_hashes_name_sections() {
        assert_eq!(section_name(&hashed(KEY).to_ascii_uppercase()), Some(hashed(KEY)));
        assert_eq!(section_name(&KEY.to_ascii_uppercase()), Some(KEY.to_owned()));
        for name in
            ["sha256:", "sha256:12", "stream", &hashed(KEY)[..70], &format!("{}0", hashed(KEY))]
        {
            assert_eq!(section_name(name), None, "{name}");
        }
        // sha256sum says the same of this text
        assert_eq!(
            hashed("11111111-2222-3333-4444-555555555555"),
            "sha256:666ff6ccaa5b3c07feaa3a95d3a4bd2c46ac9e9abdb09ca9133528d3dc1e8952"
        );
    }

    #[test]
    fn logs_tell_the_beginning_of_a_key() {
        assert_eq!(masked(KEY), "11111111");
        assert_eq!(masked("short"), "short");
        assert_eq!(masked("ééééééééé"), "éééééééé");
    }
}
