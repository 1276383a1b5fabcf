//! What two ends of a stream can do: the capability numbers, the old versions they stand for, and what becomes of both
//! sides' offers (streaming specification, sections 0 and 2.3).
//!
//! Feeds the handshake and everything that must not say a word its peer does not know. Values only; never policy.

use std::fmt;

bitflags::bitflags! {
    /// A set of capabilities. The numbers are the wire's; bits 0..2 and 31 are never used.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        const V1 = 1 << 3;
        const V2 = 1 << 4;
        const VN = 1 << 5;
        /// Both ends speak capability numbers.
        const VCAPS = 1 << 6;
        /// `LABEL`, `OVERWRITE`.
        const HLABELS = 1 << 7;
        /// `CLAIMED_ID`.
        const CLAIM = 1 << 8;
        /// `CLABEL`, `CLABEL_COMMIT`.
        const CLABELS = 1 << 9;
        const LZ4 = 1 << 10;
        const FUNCTIONS = 1 << 11;
        /// `CHART_DEFINITION_END`, `REPLAY_CHART` and its answers.
        const REPLICATION = 1 << 12;
        /// A compressed message may end in the middle of a line.
        const BINARY = 1 << 13;
        /// `BEGIN2`, `SET2`, `END2`: values as stored.
        const INTERPOLATED = 1 << 14;
        /// Numbers in base64.
        const IEEE754 = 1 << 15;
        /// Reserved by others; never offered.
        const ML = 1 << 16;
        const SLOTS = 1 << 18;
        const ZSTD = 1 << 19;
        const GZIP = 1 << 20;
        const BROTLI = 1 << 21;
        const PROGRESS = 1 << 22;
        const DYNCFG = 1 << 23;
        const NODEID = 1 << 24;
        /// `JSON STREAM_PATH`, in both directions.
        const PATHS = 1 << 25;
        const MLMODELS = 1 << 26;
        /// Ours alone: both ends tell each other what they hold and exchange what one of them lacks
        /// (docs/formats/stream-wire.md).
        const SPANS = 1 << 30;
    }
}

/// Names in the order of the bits, as log lines and the streaming path show them.
const NAMES: &[(Capabilities, &str)] = &[
    (Capabilities::V1, "V1"),
    (Capabilities::V2, "V2"),
    (Capabilities::VN, "VN"),
    (Capabilities::VCAPS, "VCAPS"),
    (Capabilities::HLABELS, "HLABELS"),
    (Capabilities::CLAIM, "CLAIM"),
    (Capabilities::CLABELS, "CLABELS"),
    (Capabilities::LZ4, "LZ4"),
    (Capabilities::FUNCTIONS, "FUNCTIONS"),
    (Capabilities::REPLICATION, "REPLICATION"),
    (Capabilities::BINARY, "BINARY"),
    (Capabilities::INTERPOLATED, "INTERPOLATED"),
    (Capabilities::IEEE754, "IEEE754"),
    (Capabilities::ML, "ML"),
    (Capabilities::SLOTS, "SLOTS"),
    (Capabilities::ZSTD, "ZSTD"),
    (Capabilities::GZIP, "GZIP"),
    (Capabilities::BROTLI, "BROTLI"),
    (Capabilities::PROGRESS, "PROGRESS"),
    (Capabilities::DYNCFG, "DYNCFG"),
    (Capabilities::NODEID, "NODEID"),
    (Capabilities::PATHS, "PATHS"),
    (Capabilities::MLMODELS, "MLMODELS"),
    (Capabilities::SPANS, "SPANS"),
];

impl Capabilities {
    /// What this build can do, in both roles.
    pub const OFFERED: Capabilities = Capabilities::V1
        .union(Capabilities::V2)
        .union(Capabilities::VN)
        .union(Capabilities::VCAPS)
        .union(Capabilities::HLABELS)
        .union(Capabilities::CLAIM)
        .union(Capabilities::CLABELS)
        .union(Capabilities::LZ4)
        .union(Capabilities::FUNCTIONS)
        .union(Capabilities::REPLICATION)
        .union(Capabilities::BINARY)
        .union(Capabilities::INTERPOLATED)
        .union(Capabilities::IEEE754)
        .union(Capabilities::SLOTS)
        .union(Capabilities::ZSTD)
        .union(Capabilities::GZIP)
        .union(Capabilities::PROGRESS)
        .union(Capabilities::NODEID)
        .union(Capabilities::PATHS)
        .union(Capabilities::SPANS);

    pub const COMPRESSIONS: Capabilities = Capabilities::LZ4
        .union(Capabilities::ZSTD)
        .union(Capabilities::GZIP)
        .union(Capabilities::BROTLI);

    /// What a peer means by its version or capability number, before anything is compared with our own set.
    pub fn of_version(version: Option<i64>) -> Capabilities {
        let features = Capabilities::HLABELS;
        match version {
            Some(2) => features | Capabilities::V2,
            Some(3) => features | Capabilities::VN | Capabilities::CLAIM,
            Some(4) => features | Capabilities::VN | Capabilities::CLAIM | Capabilities::CLABELS,
            Some(5) => {
                features
                    | Capabilities::VN
                    | Capabilities::CLAIM
                    | Capabilities::CLABELS
                    | Capabilities::LZ4
            }
            Some(number @ 6..=0x7fff_ffff) => {
                // In range by the pattern; a number of nothing we know is the first version.
                let bits = u32::try_from(number).unwrap_or(0);
                let known = Capabilities::from_bits_truncate(bits);
                if known.is_empty() { Capabilities::V1 } else { known }
            }
            // Absent, 0, 1, negative, or too big for a signed number of 32 bits.
            _ => Capabilities::V1,
        }
    }

    /// What both ends can do, `self` being ours and `version` the other end's number. Used on either side: a parent
    /// reads the request with it, a child the answer.
    pub fn agree(self, version: Option<i64>) -> Capabilities {
        let mut theirs = Capabilities::of_version(version);
        if theirs.contains(Capabilities::VCAPS) {
            theirs -= Capabilities::V1 | Capabilities::V2 | Capabilities::VN;
        } else if theirs.contains(Capabilities::VN) {
            theirs -= Capabilities::V1 | Capabilities::V2;
        } else if theirs.contains(Capabilities::V2) {
            theirs -= Capabilities::V1;
        }
        let mut agreed = theirs & self;
        if !agreed.contains(Capabilities::INTERPOLATED) {
            agreed -= Capabilities::MLMODELS;
        }
        agreed
    }

    /// Keeps the first compression of `order` that is in the set and drops the others; a connection has one at most.
    pub fn with_one_compression(self, order: &[Capabilities]) -> Capabilities {
        let chosen = order.iter().find(|c| self.contains(**c)).copied();
        (self - Capabilities::COMPRESSIONS) | chosen.unwrap_or_default()
    }

    /// The number of a version that is no capability number: what a VN peer is told.
    pub fn old_version(self) -> u32 {
        if self.contains(Capabilities::LZ4) {
            5
        } else if self.contains(Capabilities::CLABELS) {
            4
        } else {
            3
        }
    }

    /// The names of what is in the set, in the order of the bits.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(bit, _)| self.contains(*bit)).map(|(_, name)| *name)
    }

    /// The capability of that name; the reserved and the unknown ones are none.
    pub fn by_name(name: &str) -> Option<Capabilities> {
        NAMES.iter().find(|(_, n)| *n == name).map(|(bit, _)| *bit)
    }
}

/// As log lines have it: every name followed by a blank.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in self.names() {
            // What the seed generation calls its only compression.
            let name = if name == "LZ4" { "COMPRESSION" } else { name };
            write!(f, "{name} ")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the documents call our set once replication and compressions work.
    const WHOLE: u32 = 58_523_640;

    fn whole() -> Capabilities {
        Capabilities::from_bits(WHOLE).unwrap()
    }

    #[test]
    fn we_offer_nothing_that_is_not_ours() {
        assert!((whole() | Capabilities::SPANS).contains(Capabilities::OFFERED));
        assert!(
            i32::try_from(Capabilities::OFFERED.bits()).is_ok(),
            "a version is a signed number"
        );
    }

    #[test]
    fn old_versions_stand_for_sets() {
        let v = |n| Capabilities::of_version(Some(n));
        for n in [0, 1, 6, 7, 8, -5, 4_294_967_295, i64::MAX] {
            assert_eq!(v(n), Capabilities::V1, "{n}");
        }
        assert_eq!(Capabilities::of_version(None), Capabilities::V1);
        assert_eq!(v(2), Capabilities::V2 | Capabilities::HLABELS);
        assert_eq!(v(5).old_version(), 5);
        assert_eq!(v(4).old_version(), 4);
        assert_eq!(v(3).old_version(), 3);
    }

    #[track_caller]
    fn check(ours: u32, version: i64, agreed: u32) {
        let ours = Capabilities::from_bits_retain(ours);
        assert_eq!(ours.agree(Some(version)).bits(), agreed, "{version}");
    }

    #[test]
    fn the_documented_negotiations() {
        check(16376, 16376, 16320);
        check(16376, 15352, 15296);
        check(16376, i64::from(WHOLE), 16320);
        check(WHOLE, 15352, 15296);
        check(WHOLE, 72, 64);
        check(WHOLE, 9, 8);
    }

    #[test]
    fn only_one_compression_stays() {
        let order = [Capabilities::ZSTD, Capabilities::LZ4, Capabilities::GZIP];
        let agreed = whole().agree(Some(66_912_248)).with_one_compression(&order);
        assert_eq!(agreed.bits(), 55_376_832);
        assert_eq!(agreed & Capabilities::COMPRESSIONS, Capabilities::ZSTD);
        let none = whole().with_one_compression(&[]);
        assert!(!none.intersects(Capabilities::COMPRESSIONS));
    }

    #[test]
    fn the_log_shows_names_with_a_blank_after_each() {
        let seed = Capabilities::from_bits(16320).unwrap();
        assert_eq!(
            seed.to_string(),
            "VCAPS HLABELS CLAIM CLABELS COMPRESSION FUNCTIONS REPLICATION BINARY "
        );
    }

    #[test]
    fn every_bit_has_its_name() {
        for (bit, name) in NAMES {
            assert_eq!(Capabilities::by_name(name), Some(*bit));
        }
        assert_eq!(NAMES.len(), Capabilities::all().iter().count());
        assert_eq!(Capabilities::by_name("SOMETHING_NEW"), None);
    }
}
