//! Our ports as the tools of others see them: tshark records what passes, `openssl s_client` asks what is spoken.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::certificates::Files;
use crate::harness::*;

// --- tshark -------------------------------------------------------------------------------------------------------------

/// Records what passes a port of this machine, until it is dropped.
struct Capture {
    port: u16,
    file: PathBuf,
    process: Child,
}

impl Capture {
    /// The reason instead, where nothing can be recorded.
    fn begin(folder: &Path, port: u16) -> Result<Capture, String> {
        let (file, told) = (folder.join("seen.pcapng"), folder.join("told"));
        let process = Command::new("tshark")
            .args(["-n", "-l", "-i", "lo", "-f", &format!("tcp port {port}"), "-P", "-w"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(File::create(&told).unwrap())
            .stderr(File::create(folder.join("complaints")).unwrap())
            .spawn()
            .map_err(|error| format!("tshark: {error} (packaging/deps.sh test installs it)"))?;
        let mut capture = Capture { port, file, process };
        // It records once it tells of a connection.
        let ready = wait_for("tshark to record, or to end", 60, || {
            if capture.process.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let _ = dial(port, std::time::Duration::from_secs(1));
            std::fs::metadata(&told).is_ok_and(|told| told.len() > 0).then_some(true)
        });
        let complaints = std::fs::read_to_string(folder.join("complaints")).unwrap_or_default();
        if ready { Ok(capture) } else { Err(format!("tshark cannot record here: {complaints}")) }
    }

    fn end(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let pid = self.process.id().to_string();
            let _ = Command::new("kill").args(["-INT", &pid]).status();
        }
        let _ = self.process.wait();
    }

    /// Fields of the packets that a display filter lets through, a line for each.
    fn packets(&self, filter: &str, fields: &[&str]) -> Vec<String> {
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(&self.file);
        command.args(["-d", &format!("tcp.port=={},tls", self.port), "-Y", filter]);
        command.args(["-T", "fields"]);
        command.args(fields.iter().flat_map(|field| ["-e", field]));
        let output = command.stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Of these words the ones that stand in what passed, in any case of letters.
    fn readable<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        let digits = self.packets("tcp.len > 0", &["tcp.payload"]).concat();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        assert!(bytes.len() > 2_000, "only {} bytes passed", bytes.len());
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let is_there = |word: &&&str| text.contains(&word.to_ascii_lowercase());
        words.iter().filter(is_there).copied().collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

/// A child streams without compression for some seconds, while tshark looks.
fn recorded(folder: &Path, tls: bool) -> Result<Capture, String> {
    let files = Files::new();
    // A port for the stream alone: this test asks at the other one, in the clear.
    let port = free_port();
    let parent = Agent::new("parent").shows(&files);
    let own = parent.port;
    let bind = format!("127.0.0.1:{own}^SSL=optional 127.0.0.1:{port}=streaming^SSL=optional");
    let parent = parent.option("web", "bind to", &bind);
    let parent = parent.takes_children_with("ram", "    enable compression = no\n").start();
    let mut capture = Capture::begin(folder, port)?;
    let to = format!("localhost:{port}{}", if tls { ":SSL" } else { "" });
    let child = Agent::new("tellchild").plugin("counting", COUNTING);
    let child = child.streams_to_with(&to, &files.trusted()).start();
    parent.wait_live("tellchild", "own.load", 60);
    let from = now();
    wait_for("some seconds of samples", 60, || (now() > from + 3).then_some(()));
    drop(child);
    capture.end();
    Ok(capture)
}

#[test]
fn tshark_reads_nothing_of_a_stream_in_tls_and_all_of_one_without() {
    const TEST: &str = "tshark_reads_nothing_of_a_stream_in_tls_and_all_of_one_without";
    let words = [
        KEY,
        "STREAM ",
        "hostname=",
        "tellchild",
        "own.load",
        "CHART",
        "DIMENSION",
        "BEGIN",
        "Hit me baby",
        "machine_guid",
        "NETDATA_",
    ];
    let [clear, secret] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let clear = match recorded(clear.path(), false) {
        Ok(clear) => (clear.readable(&words), clear),
        Err(reason) => return skipped(TEST, &reason),
    };
    let missed: Vec<_> = words.iter().filter(|word| !clear.0.contains(word)).collect();
    assert!(missed.is_empty(), "not found in the clear: {missed:?}");
    assert!(clear.1.packets("tls.app_data", &["frame.number"]).is_empty());

    let secret = recorded(secret.path(), true).unwrap();
    assert_eq!(secret.readable(&words), [""; 0]);
    let hello = secret.packets(
        "tls.handshake.type == 2",
        &["tls.handshake.extensions.supported_version", "tls.handshake.ciphersuite"],
    );
    assert!(
        !hello.is_empty() && hello.iter().all(|line| line.starts_with("0x0304\t0x130")),
        "{hello:?}"
    );
    assert!(secret.packets("tls.app_data", &["frame.number"]).len() > 10);
    // Everything that was said is a record of TLS, or the end of one that began before.
    let bare = secret.packets("tcp.len > 0 && !tls && !tcp.reassembled_in", &["frame.number"]);
    assert!(bare.is_empty(), "packets without TLS: {bare:?}");
}

// --- openssl s_client -----------------------------------------------------------------------------------------------------

/// What `openssl s_client` tells of a port when it is started with these words and says this; `None` where it gets no session.
fn s_client(port: u16, words: &[&str], says: &str) -> Option<String> {
    let mut process = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", "localhost"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended already.
    let _ = process.stdin.take().unwrap().write_all(says.as_bytes());
    let output = process.wait_with_output().unwrap();
    let told =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let told = told.concat();
    assert!(!told.contains("unknown option") && !told.contains("Usage:"), "{words:?}: {told}");
    output.status.success().then_some(told)
}

#[test]
fn s_client_gets_tls_1_2_and_1_3_and_nothing_older_or_weaker() {
    const TEST: &str = "s_client_gets_tls_1_2_and_1_3_and_nothing_older_or_weaker";
    if Command::new("openssl").arg("version").output().is_err() {
        return skipped(TEST, "there is no openssl here (packaging/deps.sh test installs it)");
    }
    let files = Files::new();
    let strict = Agent::new("strict").shows(&files).start();
    let wide = Agent::new("wide")
        .shows(&files)
        .option("web", "tls version", "1.0")
        .option("web", "tls ciphers", "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
        .takes_children()
        .start();
    // Each kind of key has ciphers of its own.
    files.sign_rsa("rsa", "localhost", 5);
    let rsa = Agent::new("rsa")
        .shows(&files)
        .option("web", "ssl key", &files.path("rsa.key").display().to_string())
        .option("web", "ssl certificate", &files.path("rsa.pem").display().to_string())
        .option("web", "tls version", "1.0")
        .option("web", "tls ciphers", "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
        .start();
    let authority = files.path("ca.pem").display().to_string();
    let trusting =
        ["-brief", "-CAfile", &authority, "-verify_return_error", "-verify_hostname", "localhost"];
    let with = |more: &[&'static str]| [&trusting[..], more].concat();
    let speaks = |port: u16, more: &[&'static str], version: &str| {
        let told = s_client(port, &with(more), "").unwrap_or_default();
        assert!(told.contains(&format!("Protocol version: {version}")), "{more:?}: {told}");
        assert!(told.contains("Verification: OK"), "{told}");
    };
    speaks(wide.port, &["-tls1_2"], "TLSv1.2");
    speaks(wide.port, &["-tls1_3"], "TLSv1.3");
    speaks(wide.port, &[], "TLSv1.3");
    speaks(strict.port, &["-tls1_3"], "TLSv1.3");
    assert_eq!(s_client(strict.port, &with(&["-tls1_2"]), ""), None, "1.3 is the default");
    for port in [strict.port, wide.port, rsa.port] {
        for old in ["-tls1", "-tls1_1"] {
            assert_eq!(
                s_client(port, &with(&[old, "-cipher", "ALL:@SECLEVEL=0"]), ""),
                None,
                "{old}"
            );
        }
    }
    // What each of them takes, asked for in the same way as what none of them takes.
    let asks = |port: u16, cipher: &'static str| {
        s_client(port, &with(&["-tls1_2", "-cipher", cipher]), "")
    };
    for (agent, cipher) in [
        (&wide, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (&wide, "ECDHE-ECDSA-CHACHA20-POLY1305"),
        (&rsa, "ECDHE-RSA-AES128-GCM-SHA256"),
        (&rsa, "ECDHE-RSA-AES256-GCM-SHA384"),
    ] {
        for list in [cipher.to_owned(), format!("{cipher}:@SECLEVEL=0")] {
            let list: &'static str = list.leak();
            let told = asks(agent.port, list).unwrap_or_default();
            assert!(
                told.contains(&format!("Ciphersuite: {cipher}")),
                "{}: {list}: {told}",
                agent.name
            );
        }
    }
    for agent in [&wide, &rsa] {
        for weak in [
            // No forward secrecy; nobody known; nothing hidden; a mode that has been broken; what is long out of use.
            "kRSA:@SECLEVEL=0",
            "AES128-GCM-SHA256:@SECLEVEL=0",
            "aNULL:@SECLEVEL=0",
            "eNULL:@SECLEVEL=0",
            "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0",
            "ECDHE-ECDSA-AES256-SHA384:@SECLEVEL=0",
            "ECDHE-RSA-AES128-SHA:@SECLEVEL=0",
            "ECDHE-RSA-AES128-SHA256:@SECLEVEL=0",
            "ECDHE-RSA-AES256-SHA384:@SECLEVEL=0",
            "SHA1:@SECLEVEL=0",
            "CAMELLIA:@SECLEVEL=0",
            "PSK:@SECLEVEL=0",
        ] {
            assert_eq!(asks(agent.port, weak), None, "{}: {weak}", agent.name);
        }
    }
    // It carries a stream as well as a request.
    let quiet = ["-quiet", "-no_ign_eof", "-CAfile", &authority];
    let request = stream_request("kid", &uuid::Uuid::new_v4().to_string(), OLD_LIVE);
    let told = s_client(wide.port, &with(&[]), &request).unwrap_or_default();
    assert!(told.contains("Protocol version"), "{told}");
    wide.wait_log("STREAM kid [receive from [localhost]", 10);
    let asked = "GET /api/v1/info HTTP/1.1\r\nConnection: close\r\n\r\n";
    let told =
        s_client(strict.port, &[&quiet[..], &["-ign_eof"]].concat(), asked).unwrap_or_default();
    assert!(told.contains("HTTP/1.1 200 OK") && told.contains("\"version\""), "{told}");
}
