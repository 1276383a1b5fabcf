//! Who this node is: its machine GUID, kept for ever in one file.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use uuid::Uuid;

use crate::base::ids::{MachineGuid, parse_uuid};

/// Identities that were shipped inside images, so that many machines have them.
const CLONED: [&str; 2] =
    ["8a795b0c-2311-11e6-8563-000c295076a6", "4aed1458-1c3e-11e6-a53f-000c290fc8f5"];

/// Group members may read it: plugins and scripts do.
const FILE_MODE: u32 = 0o640;

/// Longer than any GUID: what else the file may hold does not matter.
const READ_MAX: u64 = 128;

/// The GUID in `file`; a new one is made and written when there is none that can be used.
pub(super) fn machine_guid(file: &Path) -> io::Result<MachineGuid> {
    match read_guid(file) {
        Some(uuid) if !CLONED.iter().any(|cloned| parse_uuid(cloned) == Ok(uuid)) => {
            Ok(MachineGuid(uuid))
        }
        Some(uuid) => {
            log::error!("Blacklisted machine GUID '{uuid}' found in '{}'.", file.display());
            make(file).map(MachineGuid)
        }
        None => make(file).map(MachineGuid),
    }
}

fn read_guid(file: &Path) -> Option<Uuid> {
    let mut text = String::new();
    fs::File::open(file).ok()?.take(READ_MAX).read_to_string(&mut text).ok()?;
    let uuid = parse_uuid(text.trim_end());
    if uuid.is_err() {
        log::error!("File '{}' does not contain a valid GUID.", file.display());
    }
    uuid.ok()
}

/// Makes a time-based identity and writes it in one step, so that a crash leaves the old file or the new one.
fn make(file: &Path) -> io::Result<Uuid> {
    let uuid = Uuid::now_v1(&node());
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    let new = file.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    let mut written = options.open(&new)?;
    written.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
    written.write_all(uuid.to_string().as_bytes())?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    log::info!("Generated '{uuid}' and saved it in '{}'.", file.display());
    Ok(uuid)
}

/// A random node number, marked as such; the address of a network card is nobody's business.
fn node() -> [u8; 6] {
    let random = Uuid::new_v4().into_bytes();
    let mut node = [0; 6];
    node.copy_from_slice(&random[..6]);
    node[0] |= 1;
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: Option<&str>, kept: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registry/id");
        if let Some(content) = content {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, content).unwrap();
        }
        let guid = machine_guid(&file).unwrap();
        match kept {
            Some(kept) => assert_eq!(guid.to_string(), kept),
            None => {
                assert_eq!(fs::read_to_string(&file).unwrap(), guid.to_string());
                assert_ne!(Some(guid.to_string().as_str()), content);
                assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, FILE_MODE);
            }
        }
        assert_eq!(machine_guid(&file).unwrap(), guid);
    }

    #[test]
    fn an_identity_is_kept_in_small_letters() {
        let guid = "abcdef01-1111-4222-8333-abcdefabcdef";
        check(Some(guid), Some(guid));
        check(Some("ABCDEF01-1111-4222-8333-ABCDEFABCDEF"), Some(guid));
    }

    #[test]
    fn an_unusable_one_is_replaced() {
        for content in [None, Some(""), Some("garbage"), Some(CLONED[0]), Some("abcdef01-1111")] {
            check(content, None);
        }
    }
}
