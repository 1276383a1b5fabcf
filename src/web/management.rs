//! `manage/health`: the one endpoint that changes something, so it wants a token from a file only the operator can read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use uuid::Uuid;

use crate::base::ids::parse_uuid;
use crate::base::json::JsonWriter;

use super::api::Call;
use super::http::{ContentType, Response};
use crate::health::silencers::KEYS;

/// Reads the token, or makes a new one where there is none that can be used.
pub fn load_or_create_key(path: &Path) -> io::Result<String> {
    if let Ok(text) = fs::read_to_string(path) {
        if parse_uuid(text.trim_end()).is_ok() {
            return Ok(text.trim_end().to_owned());
        }
        fs::remove_file(path)?;
    }
    let key = Uuid::new_v4().to_string();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    file.write_all(key.as_bytes())?;
    Ok(key)
}

/// `/api/v1/manage/health`: what is silenced or disabled. Without health there is nothing to be.
pub fn health(call: &Call<'_>) -> Response {
    let given = call.request.auth_token.as_deref().unwrap_or("");
    if !call.agent.api_key.as_deref().is_some_and(|key| same(key, given)) {
        return Response::error(403, "Auth Error\n");
    }
    if let Some(health) = &call.agent.health {
        if call.query().get("cmd") == Some("LIST") {
            return Response::new(200, ContentType::Json, health.silencers().list());
        }
        let keys = std::iter::once("cmd").chain(KEYS);
        let given: Vec<_> = keys.filter_map(|key| Some((key, call.query().get(key)?))).collect();
        return Response::text(health.silencers().manage(&given));
    }
    if call.query().get("cmd") != Some("LIST") {
        return Response::error(503, "Health is disabled in netdata.conf.\n");
    }
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("all").bool(false);
        j.key("type").string("None");
        j.key("silencers").array(|_| {});
    });
    Response::json(json)
}

/// Compares without telling by its time where the difference is.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = load_or_create_key(&path).unwrap();
        assert_eq!((key.len(), load_or_create_key(&path).unwrap()), (36, key));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
        fs::write(&path, "rubbish").unwrap();
        assert_eq!(load_or_create_key(&path).unwrap().len(), 36);
    }

    #[test]
    fn only_the_whole_key_is_the_key() {
        assert!(same("abc", "abc"));
        for other in ["", "ab", "abd", "abcd"] {
            assert!(!same("abc", other));
        }
    }
}
