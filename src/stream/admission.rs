//! Who may stream: the checks of a request before anything is made for it, with the words and lines operators know.
//!
//! Pure: a request, the peer's address text and stream.conf in, a verdict out. What needs to know about other
//! connections (rate limit, duplicates) is decided by the receiver.

use crate::base::ids::{MachineGuid, parse_uuid};
use crate::config::{Denied, StreamConf};
use crate::wire::handshake::Request;

/// A request turned away for good: what access.log says and the line about it, without its prefix.
#[derive(Debug, PartialEq, Eq)]
pub struct Forbidden {
    pub words: &'static str,
    pub line: String,
}

/// Runs the checks in the order every parent has them.
pub fn admit(
    request: &Request,
    ip: &str,
    conf: &StreamConf,
    is_machine: impl Fn(MachineGuid) -> bool,
) -> Result<MachineGuid, Forbidden> {
    let forbid =
        |words, line: String| Err(Forbidden { words, line: line + ". Forbidding access." });
    let without = |what: &str| format!("request without {what}");
    let (key, machine) = (&request.key, &request.machine_guid);
    if key.is_empty() {
        return forbid("ACCESS DENIED - NO KEY", without("an API key"));
    }
    if request.hostname.is_empty() {
        return forbid("ACCESS DENIED - NO HOSTNAME", without("a hostname"));
    }
    if machine.is_empty() {
        return forbid("ACCESS DENIED - NO MACHINE GUID", without("a machine GUID"));
    }
    if parse_uuid(key).is_err() {
        let line =
            format!("API key '{key}' is not valid GUID (use the command uuidgen to generate one)");
        return forbid("ACCESS DENIED - INVALID KEY", line);
    }
    let Ok(guid) = machine.parse() else {
        let line = format!("machine GUID '{machine}' is not GUID");
        return forbid("ACCESS DENIED - INVALID MACHINE GUID", line);
    };
    // A section without a type may be meant for a machine, and GUIDs of machines are no secrets.
    let names_a_machine = key.parse().is_ok_and(|key| key == guid || is_machine(key));
    if names_a_machine && conf.type_of(key) != "api" && conf.admit(key, machine, ip).is_ok() {
        return forbid(
            "ACCESS DENIED - API KEY GIVEN IS NOT API KEY",
            format!("API key '{key}' is a machine GUID"),
        );
    }
    let Err(denied) = conf.admit(key, machine, ip) else { return Ok(guid) };
    match denied {
        Denied::KeyIsNotApiKey => {
            let kind = conf.type_of(key);
            forbid(
                "ACCESS DENIED - API KEY GIVEN IS NOT API KEY",
                format!("API key '{key}' is a {kind} GUID"),
            )
        }
        Denied::KeyNotEnabled => {
            forbid("ACCESS DENIED - KEY NOT ENABLED", format!("API key '{key}' is not allowed"))
        }
        Denied::KeyNotAllowedFromHere => forbid(
            "ACCESS DENIED - KEY NOT ALLOWED FROM THIS IP",
            format!("API key '{key}' is not permitted from this IP"),
        ),
        Denied::MachineIsNotMachine => {
            let kind = conf.type_of(machine);
            forbid(
                "ACCESS DENIED - MACHINE GUID GIVEN IS NOT A MACHINE GUID",
                format!("machine GUID '{machine}' is a {kind} GUID"),
            )
        }
        Denied::MachineNotEnabled => forbid(
            "ACCESS DENIED - MACHINE GUID NOT ENABLED",
            format!("machine GUID '{machine}' is not allowed"),
        ),
        Denied::MachineNotAllowedFromHere => forbid(
            "ACCESS DENIED - MACHINE GUID NOT ALLOWED FROM THIS IP",
            format!("Machine GUID '{machine}' is not permitted from this IP"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "11111111-2222-3333-4444-555555555555";
    const MACHINE: &str = "aaaaaaaa-2222-3333-4444-bbbbbbbbbbbb";

    #[track_caller]
    fn check(query: &str, words: &str, line: &str) {
        let conf = StreamConf::from_text(&format!("[{KEY}]\nenabled=yes\nallow from=10.*\n"));
        let request = Request::of(query.as_bytes(), None);
        let forbidden = admit(&request, "localhost", &conf, |_| false).unwrap_err();
        assert_eq!(forbidden.words, format!("ACCESS DENIED - {words}"));
        assert_eq!(forbidden.line, format!("{line}. Forbidding access."));
    }

    #[test]
    fn checks_come_in_order() {
        check("", "NO KEY", "request without an API key");
        check("key=k", "NO HOSTNAME", "request without a hostname");
        check("key=k&hostname=h", "NO MACHINE GUID", "request without a machine GUID");
        check(
            "key=k&hostname=h&machine_guid=m",
            "INVALID KEY",
            "API key 'k' is not valid GUID (use the command uuidgen to generate one)",
        );
        check(
            &format!("key={KEY}&hostname=h&machine_guid=m"),
            "INVALID MACHINE GUID",
            "machine GUID 'm' is not GUID",
        );
        check(
            &format!("key={MACHINE}&hostname=h&machine_guid={MACHINE}"),
            "KEY NOT ENABLED",
            &format!("API key '{MACHINE}' is not allowed"),
        );
        check(
            &format!("key={KEY}&hostname=h&machine_guid={MACHINE}"),
            "KEY NOT ALLOWED FROM THIS IP",
            &format!("API key '{KEY}' is not permitted from this IP"),
        );
    }

    #[test]
    fn whoever_passes_is_known_by_its_guid() {
        let conf = StreamConf::from_text(&format!("[{KEY}]\nenabled=yes\n"));
        let query = format!("key={KEY}&hostname=h&machine_guid={}", MACHINE.to_uppercase());
        let guid = admit(&Request::of(query.as_bytes(), None), "localhost", &conf, |_| false);
        assert_eq!(guid, Ok(MACHINE.parse().unwrap()));
    }

    #[test]
    fn the_guid_of_a_machine_is_no_key_unless_its_section_says_so() {
        let other = "cccccccc-2222-3333-4444-bbbbbbbbbbbb";
        let admits = |key: &str, section: &str| {
            let conf = StreamConf::from_text(section);
            let query = format!("key={key}&hostname=h&machine_guid={MACHINE}");
            let known = |guid: MachineGuid| guid == other.parse().unwrap();
            admit(&Request::of(query.as_bytes(), None), "localhost", &conf, known).is_ok()
        };
        for guid in [MACHINE, other] {
            assert!(!admits(guid, &format!("[{guid}]\nenabled=yes\n")), "{guid}");
            assert!(!admits(&guid.to_uppercase(), &format!("[{guid}]\nenabled=yes\n")), "{guid}");
        }
        assert!(admits(other, &format!("[{other}]\ntype=api\nenabled=yes\n")));
        assert!(admits(KEY, &format!("[{KEY}]\nenabled=yes\n")));
    }
}
