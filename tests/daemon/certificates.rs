//! Keys and certificates for tests of TLS, made on the spot.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "several test binaries share this, and none uses all of it"
)]

use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

/// A certificate and its key, in memory.
pub struct Pair {
    pub certificate: X509,
    pub key: PKey<Private>,
}

/// January 2020.
const LONG_AGO: i64 = 1_577_836_800;

/// For `name` (and 127.0.0.1, if that is localhost), valid for so many days from now, 0 if not any more; signed by `by`,
/// else an authority of its own.
pub fn certify(name: &str, days: u32, by: Option<&Pair>) -> Pair {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
    certify_key(key, name, days, by)
}

/// The same for a key that is there.
pub fn certify_key(key: PKey<Private>, name: &str, days: u32, by: Option<&Pair>) -> Pair {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(name.bytes().map(u32::from).sum()).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    let issuer = by.map_or(&*subject, |by| by.certificate.subject_name());
    builder.set_issuer_name(issuer).unwrap();
    let began = Asn1Time::from_unix(LONG_AGO).unwrap();
    builder.set_not_before(&began).unwrap();
    let ends = match days {
        0 => Asn1Time::from_unix(LONG_AGO + 1),
        _ => Asn1Time::days_from_now(days),
    };
    builder.set_not_after(&ends.unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    if by.is_none() {
        let authority = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(authority).unwrap();
    }
    let mut names = SubjectAlternativeName::new();
    names.dns(name);
    if name == "localhost" {
        names.ip("127.0.0.1");
    }
    let names = names.build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(names).unwrap();
    builder.sign(by.map_or(&key, |by| &by.key), MessageDigest::sha256()).unwrap();
    Pair { certificate: builder.build(), key }
}

/// A directory with an authority, `ca.pem`, and what it signed.
pub struct Files {
    dir: tempfile::TempDir,
    pub authority: Pair,
}

impl Files {
    /// With `good`, for localhost.
    pub fn new() -> Files {
        let authority = certify("test authority", 10, None);
        let files = Files { dir: tempfile::tempdir().unwrap(), authority };
        files.write("ca", &files.authority);
        files.sign("good", "localhost", 5);
        files
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The line of `[stream]` that trusts the authority.
    pub fn trusted(&self) -> String {
        format!("    CAfile = {}", self.path("ca.pem").display())
    }

    /// Writes `file`.pem and `file`.key, signed by the authority.
    pub fn sign(&self, file: &str, name: &str, days: u32) {
        self.write(file, &certify(name, days, Some(&self.authority)));
    }

    /// The same with an RSA key.
    pub fn sign_rsa(&self, file: &str, name: &str, days: u32) {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        self.write(file, &certify_key(key, name, days, Some(&self.authority)));
    }

    pub fn write(&self, file: &str, pair: &Pair) {
        let pem = pair.certificate.to_pem().unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), pem).unwrap();
        let pem = pair.key.private_key_to_pem_pkcs8().unwrap();
        std::fs::write(self.path(&format!("{file}.key")), pem).unwrap();
    }
}
