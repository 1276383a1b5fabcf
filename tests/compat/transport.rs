//! The two tables of Netdata's documentation about what carries a stream: TLS ("Expected behaviors") and the negotiation of
//! compression, with either make on either side.

use crate::certificates::Files;
use crate::harness::Program::{Ours, Real};
use crate::harness::*;
use crate::wire::Wire;

const PAIRS: [(Program, Program); 4] = [(Ours, Ours), (Ours, Real), (Real, Ours), (Real, Real)];

/// False where there is no real netdata, after saying so.
fn has_real(test: &str) -> bool {
    let has = Real.path().is_some();
    if !has {
        skipped(test, "there is no real netdata here (tests/peer.sh gets it)");
    }
    has
}

// --- TLS ----------------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// The parent has no certificate.
    Plain,
    Optional,
    Force,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Authority,
    Nobody,
    Everybody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Clear,
    Encrypted,
    /// The parent wants TLS, and says so.
    Refused,
    /// The child does not like what it is shown, and says so.
    Untrusted,
    /// Documented as taken in the clear; 1.37.1 takes the child and then cannot answer it.
    ClearUnlessReal,
}
use Outcome::*;

/// (name, port, the child's trust if it speaks TLS, outcome); the five rows of the table, some for every port they name.
const ROWS: [(&str, Port, Option<Trust>, Outcome); 8] = [
    ("neither", Port::Plain, None, Clear),
    ("forced", Port::Force, None, Refused),
    ("optional", Port::Optional, None, ClearUnlessReal),
    ("valid", Port::Force, Some(Trust::Authority), Encrypted),
    ("validoptional", Port::Optional, Some(Trust::Authority), Encrypted),
    ("invalid", Port::Force, Some(Trust::Nobody), Untrusted),
    ("skipped", Port::Force, Some(Trust::Everybody), Encrypted),
    ("skippedoptional", Port::Optional, Some(Trust::Everybody), Encrypted),
];

const ESTABLISHED: &str = "established link with negotiated capabilities";
/// A record of the handshake.
const TLS: u8 = 0x16;

#[test]
fn the_table_of_tls_holds_between_all_makes() {
    if !has_real("the_table_of_tls_holds_between_all_makes") {
        return;
    }
    for (child, parent) in PAIRS {
        tls_table(child, parent);
    }
}

fn tls_table(child_is: Program, parent_is: Program) {
    let files = Files::new();
    // An authority that has signed nothing here.
    files.write("stranger", &crate::certificates::certify("a stranger", 5, None));
    let plain = Agent::new("plain").program(parent_is).takes_children().start();
    let secret = Agent::new("secret").program(parent_is).takes_children().shows(&files);
    let (optional, force) = (secret.port, free_port());
    let all = "dashboard|registry|badges|management|streaming|netdata.conf";
    let bind =
        format!("127.0.0.1:{optional}={all}^SSL=optional 127.0.0.1:{force}=streaming^SSL=force");
    let secret = secret.option("web", "bind to", &bind).start();
    let running = ROWS.map(|(name, port, trust, outcome)| {
        let (parent, to) = match port {
            Port::Plain => (&plain, plain.port),
            Port::Optional => (&secret, optional),
            Port::Force => (&secret, force),
        };
        let wire = Wire::new(name.to_owned(), to);
        let more = match trust {
            None => String::new(),
            Some(Trust::Authority) => files.trusted(),
            Some(Trust::Nobody) => files.trusted().replace("ca.pem", "stranger.pem"),
            Some(Trust::Everybody) => "    ssl skip certificate verification = yes".to_owned(),
        };
        let tls = if trust.is_some() { ":SSL" } else { "" };
        let child = Agent::new(name).program(child_is);
        let child = child.streams_to_with(&format!("localhost:{}{tls}", wire.port), &more).start();
        (child, wire, parent, outcome)
    });
    for (child, wire, parent, outcome) in &running {
        let row = format!("{child_is:?} child, {parent_is:?} parent, row '{}'", child.name);
        let is_there = || {
            let hosts = parent.json("/api/v1/info")["mirrored_hosts"].clone();
            hosts.as_array().unwrap().iter().any(|host| host == child.name.as_str())
        };
        let says = |agent: &Agent, text: &str| {
            let said = || agent.log().contains(text).then_some(());
            wait_for(&format!("{row}: '{text}'"), 40, said);
        };
        match outcome {
            Clear | ClearUnlessReal if *outcome == Clear || parent_is == Ours => {
                says(child, ESTABLISHED);
                assert!(is_there(), "{row}");
                assert!(wire.first_bytes().iter().all(|first| b"SG".contains(first)), "{row}");
            }
            Clear | ClearUnlessReal => {
                says(parent, "cannot send ready command.");
                assert!(!child.log().contains(ESTABLISHED), "{row}");
            }
            Encrypted => {
                says(child, ESTABLISHED);
                assert!(is_there(), "{row}");
                assert!(wire.first_bytes().iter().all(|first| *first == TLS), "{row}");
            }
            Refused => {
                let line = "The server is configured to always use encrypted connections, please enable the SSL on child with hostname";
                says(parent, &format!("{line} '{}'.", child.name));
                says(child, "is it Netdata?");
                assert!(!is_there() && !child.log().contains(ESTABLISHED), "{row}");
            }
            Untrusted => {
                says(
                    child,
                    "Closing the stream connection, because the server SSL certificate is not valid.",
                );
                assert!(!is_there() && !child.log().contains(ESTABLISHED), "{row}");
                assert!(wire.first_bytes().iter().all(|first| *first == TLS), "{row}");
            }
        }
        assert!(!wire.first_bytes().is_empty(), "{row}: it never came");
        eprintln!("{row}: {outcome:?}");
    }
}

// --- compression ----------------------------------------------------------------------------------------------------------

#[test]
fn the_table_of_compression_holds_between_all_makes() {
    if !has_real("the_table_of_compression_holds_between_all_makes") {
        return;
    }
    for (child_is, parent_is) in PAIRS {
        let [on, off] =
            [("on", ""), ("off", "    enable compression = no\n")].map(|(name, words)| {
                let parent = Agent::new(name).program(parent_is);
                (parent.takes_children_with("ram", words).start(), name == "on")
            });
        let rows = [(true, &on), (true, &off), (false, &on), (false, &off)];
        let running = rows.map(|(wants, (parent, takes))| {
            let name = format!("kid{}{}", u8::from(wants), u8::from(*takes));
            let words = if wants { "" } else { "    enable compression = no" };
            let child = Agent::new(&name).program(child_is).plugin("counting", COUNTING);
            let child = child.streams_to_with(&format!("127.0.0.1:{}", parent.port), words);
            (child.start(), parent, wants && *takes)
        });
        for (child, parent, is_compressed) in &running {
            let row = format!("{child_is:?} child, {parent_is:?} parent, {}", child.name);
            parent.wait_live(&child.name, "own.load", 60);
            let log = child.log();
            let agreed = log.lines().find(|line| line.contains("negotiated capabilities"));
            let agreed = agreed.unwrap_or_else(|| panic!("{row}: nothing agreed"));
            // What a node of ours and one of 1.37.1 both know is lz4.
            let words = ["COMPRESSION", "ZSTD", "GZIP"];
            let found = words.iter().any(|word| agreed.split(' ').any(|w| w.trim() == *word));
            assert_eq!(found, *is_compressed, "{row}: {agreed}");
            let info = child.json("/api/v1/info");
            let told = &info["stream-compression"];
            assert_eq!(*told == true || *told == "enabled", *is_compressed, "{row}: {told}");
            assert!(info["buildinfo"].as_str().unwrap().contains("Stream Compression"), "{row}");
            eprintln!("{row}: {}", if found { "compressed" } else { "in the clear" });
        }
    }
}
