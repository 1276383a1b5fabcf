//! The file systems of this machine, from /proc/self/mountinfo.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;

use super::procfile::{lines, unsigned, words};

/// File systems looked at; more are ignored.
const MOUNTS_MAX: usize = 16_384;

/// File systems that hold nothing. Asking them costs time; asking autofs would mount something.
const EMPTY_KINDS: &[&[u8]] = &[
    b"autofs",
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"debugfs",
    b"devpts",
    b"fusectl",
    b"mqueue",
    b"nsfs",
    b"proc",
    b"pstore",
    b"ramfs",
    b"rpc_pipefs",
    b"securityfs",
    b"sysfs",
    b"tracefs",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub major: u64,
    pub minor: u64,
    /// The part of the file system that is mounted.
    pub root: PathBuf,
    pub point: PathBuf,
    pub kind: String,
    /// The file system is, not only this mount: to a service that systemd protects all mounts are.
    pub read_only: bool,
    /// Never holds files that take space.
    pub is_empty_kind: bool,
}

/// The mounts in a text like that of mountinfo; of several over the same point, the last one, which is on top. A part of a file system
/// that is mounted whole elsewhere is left out: it has no room of its own.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in lines(text).filter_map(parse_line).take(MOUNTS_MAX) {
        mounts.retain(|other| other.point != mount.point);
        mounts.push(mount);
    }
    let whole: FxHashSet<_> =
        mounts.iter().filter(|m| m.root == Path::new("/")).map(|m| (m.major, m.minor)).collect();
    mounts.retain(|m| m.root == Path::new("/") || !whole.contains(&(m.major, m.minor)));
    mounts
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = words(line);
    let device = words.nth(2)?;
    let colon = device.iter().position(|&b| b == b':')?;
    let root = unescape(words.next()?);
    let point = unescape(words.next()?);
    words.find(|word| *word == b"-")?;
    let kind = words.next()?;
    let super_options = words.nth(1).unwrap_or_default();
    Some(Mount {
        major: unsigned(&device[..colon]),
        minor: unsigned(&device[colon + 1..]),
        root,
        point,
        kind: String::from_utf8_lossy(kind).into_owned(),
        read_only: super_options.split(|&b| b == b',').any(|word| word == b"ro"),
        is_empty_kind: EMPTY_KINDS.contains(&kind),
    })
}

/// The kernel writes blanks and backslashes as `\040`.
fn unescape(word: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|d| d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits {
            Some(&[a, b, c]) if first == b'\\' => {
                path.push(((a & 3) << 6) | ((b & 7) << 3) | (c & 7));
                rest = &after[3..];
            }
            _ => {
                path.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
25 24 0:23 / /dev/shm rw,relatime - tmpfs one rw,size=1k
26 24 0:24 / /dev/pts rw,relatime - devpts devpts rw,mode=600
28 27 8:1 /src /mnt/a\\040b\\134c rw,relatime shared:1 master:2 - ext4 /dev/sda1 ro
30 25 0:27 / /dev/shm ro,relatime - tmpfs two rw,size=2k
bad line
31 27 0:9 / /x rw
";

    #[test]
    fn mounts_are_read_and_those_covered_by_others_left_out() {
        let mounts = parse(TEXT);
        let points: Vec<_> = mounts.iter().map(|m| m.point.to_str().unwrap()).collect();
        assert_eq!(points, ["/", "/dev/pts", "/mnt/a b\\c", "/dev/shm"]);
        assert_eq!((mounts[0].major, mounts[0].minor), (254, 0));
        assert_eq!(
            mounts.iter().map(|m| m.read_only).collect::<Vec<_>>(),
            [false, false, true, false]
        );
        assert!(mounts[1].is_empty_kind && !mounts[0].is_empty_kind);
        assert_eq!(mounts[2].root, PathBuf::from("/src"));
    }

    #[test]
    fn a_part_of_what_is_mounted_whole_has_no_room_of_its_own() {
        let text = b"1 0 8:1 / / ro,relatime - ext4 /dev/sda1 rw
2 1 8:1 /var/lib/netdata /var/lib/netdata rw - ext4 /dev/sda1 rw
3 1 0:5 /@home /home rw - btrfs /dev/sdb rw
";
        let mounts = parse(text);
        let points: Vec<_> = mounts.iter().map(|m| m.point.to_str().unwrap()).collect();
        assert_eq!(points, ["/", "/home"]);
        assert!(!mounts[0].read_only);
    }

    proptest! {
        #[test]
        fn no_text_upsets_the_parser(text: Vec<u8>) {
            parse(&text);
        }

        #[test]
        fn no_point_upsets_the_parser(point in "[ -~]{0,40}") {
            parse(format!("1 2 3:4 / {point} rw - ext4 x rw").as_bytes());
        }
    }
}
