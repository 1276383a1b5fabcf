//! Identities: the machine GUID every hop of a stream keeps, and the API key that opens a parent.
//!
//! Both are UUIDs in 8-4-4-4-12 form, compared without regard to case.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Identity of a node in the whole streaming tree, kept by every hop. Shown in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineGuid(pub Uuid);

/// The text is not a UUID of 36 characters with dashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID of the form 8-4-4-4-12")]
pub struct NotAGuid;

/// Reads the dashed form only: the other spellings the `uuid` crate accepts are no GUIDs to Netdata.
pub fn parse_uuid(text: &str) -> Result<Uuid, NotAGuid> {
    let dashed = text.len() == 36 && [8, 13, 18, 23].iter().all(|&i| text.as_bytes()[i] == b'-');
    if !dashed {
        return Err(NotAGuid);
    }
    Uuid::parse_str(text).map_err(|_| NotAGuid)
}

impl MachineGuid {
    pub fn random() -> Self {
        MachineGuid(Uuid::new_v4())
    }
}

impl FromStr for MachineGuid {
    type Err = NotAGuid;
    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        parse_uuid(text).map(MachineGuid)
    }
}

impl fmt::Display for MachineGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dashed_form_is_a_guid() {
        assert!("11111111-2222-3333-4444-555555555555".parse::<MachineGuid>().is_ok());
        assert!("11111111222233334444555555555555".parse::<MachineGuid>().is_err());
        assert!("{11111111-2222-3333-4444-55555555555}".parse::<MachineGuid>().is_err());
        assert!("".parse::<MachineGuid>().is_err());
    }

    #[test]
    fn case_does_not_make_another_machine() {
        let upper: MachineGuid = "ABCDEF00-2222-3333-4444-555555555555".parse().unwrap();
        let lower: MachineGuid = "abcdef00-2222-3333-4444-555555555555".parse().unwrap();
        assert_eq!(upper, lower);
        assert_eq!(upper.to_string(), "abcdef00-2222-3333-4444-555555555555");
    }
}
