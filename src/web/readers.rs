//! `[web] read token file`: who may read here, beyond what addresses and ports allow. Off as long as nobody names a file.
//!
//! The file has a token per line; several of them rotate by overlap. A client shows one as `Authorization: Bearer TOKEN`, a
//! browser as the password of any user. Only hashes are kept, and they are compared in constant time.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use openssl::{base64, memcmp, sha};

const OPTION: &str = "read token file";
/// A shorter one could be guessed.
const TOKEN_MIN: usize = 16;
const FILE_BYTES_MAX: u64 = 64 * 1024;
const EVERYBODY: u32 = 0o004;

/// Who may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Whoever addresses and ports allow.
    All,
    /// Of those, who shows one of these.
    WithToken(Vec<[u8; 32]>),
}

impl Readers {
    /// By the file, or without one when its name is empty. What is wrong with it is all there is in the error.
    pub fn read(path: &str) -> Result<Readers, String> {
        if path.is_empty() {
            return Ok(Readers::All);
        }
        let fault = |what: String| format!("[web] '{OPTION}' = '{path}': {what}");
        let mut text = String::new();
        let file = File::open(Path::new(path)).map_err(|error| fault(error.to_string()))?;
        let mode = file.metadata().map_or(0, |meta| meta.permissions().mode());
        if mode & EVERYBODY != 0 {
            log::error!("WEB: '{path}' holds tokens and everybody may read it: chmod o-r.");
        }
        let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| fault(error.to_string()))?;
        let lines = text.lines().map(str::trim);
        let tokens: Vec<_> = lines.filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
        if tokens.is_empty() {
            return Err(fault("there is no token in it".to_owned()));
        }
        if tokens.iter().any(|token| token.len() < TOKEN_MIN) {
            return Err(fault(format!("a token has less than {TOKEN_MIN} characters")));
        }
        Ok(Readers::WithToken(tokens.iter().map(|token| sha::sha256(token.as_bytes())).collect()))
    }

    /// Nobody: for a file that cannot be used.
    pub fn none() -> Readers {
        Readers::WithToken(Vec::new())
    }

    /// Whether a request with this `Authorization` may read.
    pub fn lets_in(&self, authorization: Option<&str>) -> bool {
        let Readers::WithToken(tokens) = self else { return true };
        let Some(shown) = authorization.and_then(token_of) else { return false };
        let shown = sha::sha256(&shown);
        // All of them, so that the time says nothing about which it was.
        tokens.iter().fold(false, |found, token| found | memcmp::eq(token, &shown))
    }
}

/// `Bearer TOKEN`, or the password in `Basic BASE64(USER:TOKEN)`.
fn token_of(authorization: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if scheme.eq_ignore_ascii_case("Basic") {
        let pair = base64::decode_block(rest).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        return Some(pair[colon + 1..].to_vec());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a-token-of-some-length";

    fn readers(text: &str) -> Result<Readers, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        Readers::read(path.to_str().unwrap())
    }

    #[test]
    fn a_file_holds_tokens_line_by_line() {
        let two = readers(&format!("# ours\n\n  {TOKEN} \nanother-token-of-ours\n")).unwrap();
        let basic = |pair: &str| format!("Basic {}", base64::encode_block(pair.as_bytes()));
        for right in [
            format!("Bearer {TOKEN}"),
            "bearer another-token-of-ours".to_owned(),
            basic(&format!("anybody:{TOKEN}")),
            basic(&format!(":{TOKEN}")),
        ] {
            assert!(two.lets_in(Some(&right)), "{right}");
        }
        for wrong in [
            TOKEN.to_owned(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Bearer {}", TOKEN.to_uppercase()),
            format!("Bearer {TOKEN}x"),
            format!("Bearer {}", &TOKEN[1..]),
            format!("Bearer {TOKEN}, another-token-of-ours"),
            "Bearer # ours".to_owned(),
            format!("Basic {TOKEN}"),
            basic(TOKEN),
            basic(&format!("a:b:{TOKEN}")),
            "Basic ====".to_owned(),
            format!("Digest {TOKEN}"),
        ] {
            assert!(!two.lets_in(Some(&wrong)), "{wrong}");
        }
        assert!(!two.lets_in(None));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_no_open_door() {
        for text in ["", "# nothing\n", "short\n", "\u{fffd}"] {
            assert!(readers(text).is_err(), "{text:?}");
        }
        assert!(Readers::read("/no/such/file").is_err());
        assert!(!Readers::none().lets_in(Some("Bearer ")));
        assert!(!Readers::none().lets_in(Some(&format!("Bearer {TOKEN}"))));
        assert_eq!(Readers::read(""), Ok(Readers::All));
        assert!(Readers::All.lets_in(None));
    }
}
