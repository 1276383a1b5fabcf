//! Every rule about who may do what, and somebody who tries to get around it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::harness::*;

const TOKEN: &str = "a-token-of-some-length";
const OTHER: &str = "another-token-of-ours";
const MACHINE: &str = "aaaaaaaa-2222-3333-4444-bbbbbbbbbbbb";
const SECOND: &str = "22222222-2222-3333-4444-55555555abcd";

/// What comes back for these bytes.
fn ask(port: u16, request: &str) -> String {
    let answer = talk(port, request.as_bytes(), Duration::from_secs(10)).unwrap_or_default();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of a GET with these headers; 0 for no HTTP.
fn status(port: u16, path: &str, headers: &str) -> u16 {
    let answer = ask(port, &format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"));
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn guid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The answer to a stream request with other parameters: `None` when the child is let in.
fn refusal(port: u16, replace: &[(&str, &str)]) -> Option<String> {
    let mut request = stream_request("kid", MACHINE, OLD_LIVE);
    for (from, to) in replace {
        assert!(request.contains(from), "{from}");
        request = request.replace(from, to);
    }
    FakeChild::ask(port, &request, MACHINE).err()
}

const REFUSED: &str = "You are not permitted to access this. Check the logs for more info.";

#[track_caller]
fn refused(port: u16, replace: &[(&str, &str)]) {
    assert_eq!(refusal(port, replace).as_deref(), Some(REFUSED), "{replace:?}");
}

// --- reading ----------------------------------------------------------------------------------------------------------

#[test]
fn without_a_token_nothing_is_read() {
    let parent = Agent::new("parent").takes_children();
    let path = parent.dir().join("etc/tokens").display().to_string();
    let parent = parent.option("web", "read token file", &path).file(
        "etc/tokens",
        &format!("# who reads\n{TOKEN}\n"),
        0o600,
    );
    let mut parent = parent;
    parent.launch();
    wait_for("the agent", 30, || (parent.try_get("/api/v1/info")?.status == 401).then_some(()));
    let port = parent.port;
    let everything = [
        "/",
        "/index.html",
        "/x.js",
        "/api/v1/info",
        "/api/v1/charts",
        "/api/v1/data?chart=system.cpu",
        "/api/v1/allmetrics",
        "/api/v1/badge.svg?chart=system.cpu",
        "/api/v1/registry?action=hello",
        "/api/v2/nodes",
        "/api/v3/info",
        "/api/openapi.json",
        "/netdata.conf",
        "/host/parent/api/v1/info",
        "/host/parent/",
        "/host/parent/netdata.conf",
        "//api//v1/info",
        "/api/v1/manage/health/",
        "//api/v1/manage/health",
        "/api/v3/stream_info/",
        "/api/v3//stream_info",
    ];
    for path in everything {
        assert_eq!(status(port, path, ""), 401, "{path}");
    }
    let encoded = openssl::base64::encode_block(format!("me:{TOKEN}").as_bytes());
    for right in [format!("Bearer {TOKEN}"), format!("Basic {encoded}")] {
        assert_eq!(status(port, "/api/v1/info", &format!("Authorization: {right}\r\n")), 200);
        assert_eq!(status(port, "/netdata.conf", &format!("Authorization: {right}\r\n")), 200);
    }
    for wrong in [
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        format!("Authorization : Bearer {TOKEN}\r\n"),
        format!(" Authorization: Bearer {TOKEN}\r\n"),
        format!("Authorization: Bearer x\r\nAuthorization: Bearer {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer x\r\n"),
        format!("X: y\nAuthorization: Bearer {TOKEN}\r\n"),
        format!("Authorization: Bearer\r\n {TOKEN}\r\n"),
        format!("X-Auth-Token: {TOKEN}\r\n"),
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: localhost\r\n".to_owned(),
    ] {
        let got = status(port, "/api/v1/info", &wrong);
        assert!(got == 401 || got == 400, "{got} for {wrong:?}");
    }
    assert_eq!(status(port, &format!("/api/v1/info?token={TOKEN}"), ""), 401);
    // Children come with their key, and ask before they come; a browser asks whether it may ask.
    let mut child = FakeChild::connect(port, "kid", MACHINE, OLD_LIVE).unwrap();
    let about = |host: &str| status(port, &format!("/api/v3/stream_info?machine_guid={host}"), "");
    assert_eq!((about(&parent.guid), about(&guid())), (200, 404));
    assert!(ask(port, "OPTIONS /api/v1/info HTTP/1.1\r\n\r\n").contains("authorization"));
    // What manages has its own token, and this is not it.
    assert_eq!(
        status(port, "/api/v1/manage/health?cmd=LIST", &format!("X-Auth-Token: {TOKEN}\r\n")),
        403
    );

    // A token is changed by overlap.
    let tokens = |text: &str| std::fs::write(parent.dir().join("etc/tokens"), text).unwrap();
    let with =
        |token: &str| status(port, "/api/v1/info", &format!("Authorization: Bearer {token}\r\n"));
    tokens(&format!("{TOKEN}\n{OTHER}\n"));
    assert_eq!((parent.command("reload-config").0, with(TOKEN), with(OTHER)), (0, 200, 200));
    tokens(&format!("{OTHER}\n"));
    assert_eq!((parent.command("reload-config").0, with(TOKEN), with(OTHER)), (0, 401, 200));
    // One that cannot be used changes nothing.
    tokens("short\n");
    let (code, told) = parent.command("reload-config");
    assert!(code == 1 && told.contains("a token has less than 16 characters"), "{told}");
    assert_eq!((with(TOKEN), with(OTHER), with("short")), (401, 200, 401));
    assert!(!child.link.closed_within(Duration::from_millis(200)));
    // Of the logs only one has seen it, where a client put it into an address.
    assert!(!parent.log().contains(TOKEN));
    assert_eq!(parent.access_log().matches(TOKEN).count(), 1);
}

#[test]
fn a_token_file_that_is_missing_opens_nothing() {
    let mut parent = Agent::new("parent").option("web", "read token file", "/no/such/file");
    parent.launch();
    wait_for("the agent", 30, || (parent.try_get("/api/v1/info")?.status == 401).then_some(()));
    parent.wait_log("Nobody may read here until it is right", 5);
    assert_eq!(status(parent.port, "/", "Authorization: Bearer \r\n"), 401);
    // Without the option everybody reads, as by default.
    parent.write_options(&[("web", "read token file", "")]);
    assert_eq!(parent.command("reload-config").0, 0);
    assert_eq!(status(parent.port, "/api/v1/info", ""), 200);
}

// --- keys and machines ------------------------------------------------------------------------------------------------

#[test]
fn a_key_is_a_key_in_any_case_and_nothing_else_is() {
    let hashed = "[sha256:7cf2ff5cf8b3b8e4b5a1f4e0c0b9f8a7d6e5c4b3a29181706f5e4d3c2b1a0f9e]\n    enabled = yes\n";
    let parent = Agent::new("parent")
        .takes_children()
        .stream(&format!("[{SECOND}]\n    enabled = yes\n"))
        .stream(&format!("[{MACHINE}]\n    enabled = yes\n"))
        .stream(hashed)
        .stream("[stream]\n    enabled = no\n[API_KEY]\n    enabled = yes\n[]\n    enabled = yes\n")
        .start();
    let port = parent.port;
    let key = |key: &str| refusal(port, &[(KEY, key), (MACHINE, &guid())]);
    assert_eq!(key(SECOND), None);
    assert_eq!(key(&SECOND.to_uppercase()), None);
    assert_eq!(key(&SECOND.replace('-', "%2d")), None, "an encoded dash is a dash");
    for wrong in [
        // dots, blanks and other characters around it
        format!("{KEY}."),
        format!("{KEY}%20"),
        format!("%20{KEY}"),
        format!("{KEY}%00"),
        format!("{KEY}%0a"),
        format!("{KEY}*"),
        // other spellings of the same number
        KEY.replace('-', ""),
        format!("{{{KEY}}}"),
        format!("urn:uuid:{KEY}"),
        // patterns, other sections, nothing
        "*".to_owned(),
        "11111111-*".to_owned(),
        "stream".to_owned(),
        "API_KEY".to_owned(),
        "%5d".to_owned(),
        "sha256:7cf2ff5cf8b3b8e4b5a1f4e0c0b9f8a7d6e5c4b3a29181706f5e4d3c2b1a0f9e".to_owned(),
        "7cf2ff5cf8b3b8e4b5a1f4e0c0b9f8a7d6e5".to_owned(),
        // the GUID of the parent itself
        parent.guid.clone(),
    ] {
        assert_eq!(key(&wrong).as_deref(), Some(REFUSED), "{wrong}");
    }
    // CVE-2023-22497: the GUID of a machine, which the API tells, is no key - neither the machine's own …
    refused(port, &[(KEY, MACHINE)]);
    refused(port, &[(KEY, &MACHINE.to_uppercase())]);
    // … nor for others, once the machine is known.
    let child = FakeChild::connect(port, "kid", MACHINE, OLD_LIVE).unwrap();
    assert_eq!(key(MACHINE).as_deref(), Some(REFUSED));
    assert_eq!(key(&MACHINE.to_uppercase()).as_deref(), Some(REFUSED));
    drop(child);
    wait_for("the child to be gone", 10, || {
        parent.access_log().contains("'DISCONNECTED' host 'kid'").then_some(())
    });
    assert_eq!(key(MACHINE).as_deref(), Some(REFUSED));
    assert!(parent.log().contains("is a machine GUID. Forbidding access."));
    // The last of two keys counts, for the decision as for the log.
    refused(port, &[("&hostname", &format!("&key={}&hostname", guid()))]);
    // In a value it is one.
    refused(port, &[(&format!("key={KEY}&"), &format!("x=key%3d{KEY}&"))]);
}

#[test]
fn a_key_that_the_parent_does_not_know_lets_in_by_its_hash() {
    let maker = Agent::new("maker").start();
    let made = maker.cli(&["key", "new"]);
    let mut lines = made.lines().filter(|line| !line.trim().is_empty());
    let key = lines.next().unwrap().trim().to_owned();
    let section = made.lines().find(|line| line.starts_with("[sha256:")).unwrap().to_owned();
    assert!(maker.cli(&["key", "hash", &key]).contains(&section), "{made}");
    assert!(maker.cli(&["key", "hash", &key.to_uppercase()]).contains(&section), "{made}");
    assert_ne!(maker.cli(&["key", "new"]), made);
    let parent = Agent::new("parent")
        .stream(&format!("{section}\n    enabled = yes\n    allow from = localhost\n"));
    let parent = parent.start();
    let is_in = |key: &str| refusal(parent.port, &[(KEY, key), (MACHINE, &guid())]).is_none();
    let hash = section.trim_matches(['[', ']']).to_owned();
    for wrong in [hash.as_str(), &hash["sha256:".len()..], KEY, "", &hash.replace(':', "%3a")] {
        assert!(!is_in(wrong), "{wrong}");
    }
    let before = parent.log().len();
    assert!(is_in(&key) && is_in(&key.to_uppercase()));
    let log = parent.log()[before..].to_ascii_lowercase();
    assert!(!log.contains(&key.to_ascii_lowercase()), "the log tells the key:\n{log}");
    let conf = std::fs::read_to_string(parent.dir().join("etc/stream.conf")).unwrap();
    assert!(!conf.contains(&key[..8]), "nor does the file");
}

#[test]
fn a_machine_is_the_same_in_any_spelling() {
    let parent = Agent::new("parent")
        .takes_children()
        .stream(&format!("[{MACHINE}]\n    type = machine\n    enabled = no\n"))
        .stream(&format!("[{SECOND}]\n    type = machine\n    allow from = 10.*\n"))
        .start();
    let port = parent.port;
    refused(port, &[]);
    for spelling in [
        MACHINE.to_uppercase(),
        MACHINE.replace("aaaa", "aAaA"),
        MACHINE.replace('-', ""),
        format!("{MACHINE}."),
        format!("{MACHINE}%20"),
        format!("%7b{MACHINE}%7d"),
        MACHINE.replace('-', "%2d"),
        SECOND.to_owned(),
        SECOND.to_uppercase(),
    ] {
        refused(port, &[(MACHINE, &spelling)]);
    }
    // A machine that is none by its section, and a key where a machine belongs.
    refused(port, &[(KEY, SECOND), (MACHINE, &guid())]);
    let typed = Agent::new("typed")
        .stream(&format!("[{KEY}]\n    type = api\n    enabled = yes\n"))
        .start();
    refused(typed.port, &[(MACHINE, KEY)]);
    refused(typed.port, &[(MACHINE, &KEY.to_uppercase())]);
}

// --- names ------------------------------------------------------------------------------------------------------------

#[test]
fn host_names_forge_no_lines_and_reach_no_shell() {
    let mark = tempfile::tempdir().unwrap();
    let mark = mark.path().join("owned");
    let told = "#!/bin/bash\nprintf '<%s>' \"$@\" >>\"$(dirname \"$0\")/told\"\necho >>\"$(dirname \"$0\")/told\"\n";
    let alarm = "template: always\n      on: own.load\n    calc: 1\n    warn: 1\n   every: 1s\n      to: root\n";
    let parent = Agent::new("parent");
    let script = parent.dir().join("etc/told.sh").display().to_string();
    let parent = parent
        .option("health", "enabled", "yes")
        .option("health", "script to execute on alarm", &script)
        .option("health", "in memory max health log entries", "100")
        .file("etc/told.sh", told, 0o755)
        .file("etc/health.d/always.conf", alarm, 0o644)
        .stream(&format!(
            "[{KEY}]\n    enabled = yes\n    default memory mode = ram\n    health enabled by default = yes\n    \
             default postpone alarms on connect seconds = 0\n"
        ))
        .start();
    // CVE-2023-22496: names that a shell would run.
    let touch = format!("touch%20{}", mark.display());
    let names = [
        format!("a\"$({touch})\""),
        format!("b';{touch};'"),
        format!("c`{touch}`"),
        format!("d%0a{touch}%0a"),
        "e%0d%0a2026-01-01%2000:00:00:%20netdata%20ERROR%20:%20forged".to_owned(),
        "f%1b[2J%07%7f".to_owned(),
        "g/../../../../etc".to_owned(),
        "h<script>alert(1)</script>".to_owned(),
        "-i--option".to_owned(),
        "j...".to_owned(),
        "k%00k".to_owned(),
        "l%c0%ae%ff".to_owned(),
    ];
    let mut children = Vec::new();
    for name in &names {
        let guid = guid();
        let request = stream_request("NAME", &guid, OLD_LIVE).replace("NAME", name);
        let mut child =
            FakeChild::ask(parent.port, &request, &guid).unwrap_or_else(|e| panic!("{name}: {e}"));
        child.send(
            "CHART \"own.load\" \"\" \"Own\" \"units\" \"own\" \"own.load\" \"line\" 1000 1 \"\" \"p\" \"m\"\nDIMENSION \"a\" \"a\" \"absolute\" 1 1 \"\"\n",
        );
        children.push(child);
    }
    let read = || std::fs::read_to_string(parent.dir().join("etc/told")).unwrap_or_default();
    wait_for("an alarm of every child", 60, || {
        for child in &mut children {
            child.send("BEGIN \"own.load\" 0\nSET \"a\" = 1\nEND\n");
        }
        pause(Duration::from_millis(200));
        ('a'..='l')
            .all(|c| {
                read().contains(&format!("<{c}")) || (c == 'i' && read().contains("<-i--option>"))
            })
            .then_some(())
    });
    assert!(!mark.exists(), "a name was run");
    let told = read();
    assert!(told.contains("<a\"$(touch "), "{told}");
    for text in [parent.log(), parent.access_log()] {
        assert!(
            !text.lines().any(|line| line.contains("forged") && line.starts_with("2026-01-01")),
            "a forged line"
        );
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "control characters in a log");
    }
    let info = parent.json("/api/v1/info");
    assert_eq!(info["mirrored_hosts"].as_array().unwrap().len(), names.len() + 1);
    let page = parent.get("/host/%3Cscript%3Enone%3C/script%3E/");
    assert!(page.status == 404 && !page.body.contains("<script>"), "{}", page.body);
    // Nothing lies where a name could have led.
    for entry in std::fs::read_dir(parent.dir().join("cache")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert!(!name.contains("..") && !name.contains('$'), "{name}");
    }
}

#[test]
fn nobody_takes_another_s_place_by_his_name() {
    let parent = Agent::new("parent").takes_children().start();
    let child = |name: &str, guid: &str, chart: &str| {
        let mut child = FakeChild::connect(parent.port, name, guid, OLD_LIVE).unwrap();
        child.send(&format!(
            "CHART \"own.{chart}\" \"\" \"Own\" \"units\" \"own\" \"own.x\" \"line\" 1000 1 \"\" \"p\" \"m\"\nDIMENSION \"a\" \"a\" \"absolute\" 1 1 \"\"\n"
        ));
        wait_for("its chart", 10, || {
            let charts = parent.charts(guid);
            charts.contains_key(&format!("own.{chart}")).then_some(())
        });
        child
    };
    let victim = guid();
    let _liar = child(&victim, &guid(), "lie");
    let _local = child("localhost", &guid(), "lie");
    let _parent = child("parent", &guid(), "lie");
    let _victim = child("victim", &victim, "truth");
    assert!(parent.charts(&victim).contains_key("own.truth"));
    assert!(!parent.charts("localhost").contains_key("own.lie"));
    assert!(!parent.charts("parent").contains_key("own.lie"));
    // Its own GUID is nobody else's.
    let own = FakeChild::connect(parent.port, "x", &parent.guid, OLD_LIVE);
    assert!(own.is_err_and(|answer| {
        answer.contains("Don't hit me baby, you are trying to stream my localhost")
    }));
    let upper = FakeChild::connect(parent.port, "x", &parent.guid.to_uppercase(), OLD_LIVE);
    assert!(upper.is_err());
}

// --- addresses and ports ----------------------------------------------------------------------------------------------

fn from(local: IpAddr, to: SocketAddr) -> TcpStream {
    let domain = if to.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(local, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn first_words(mut stream: TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut buffer = [0; 200];
    let got = stream.read(&mut buffer).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..got]).into_owned()
}

#[test]
fn an_address_is_the_same_however_it_comes() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skipped("an_address_is_the_same_however_it_comes", "no IPv6 here");
    }
    let parent = Agent::new("parent");
    let bind = format!("127.0.0.1:{} [::]:{}", parent.port, parent.port + 1);
    // Some systems let one socket take both; then the second port takes IPv4 as IPv4 in IPv6.
    let parent = parent
        .option("web", "bind to", &bind)
        .option("web", "allow dashboard from", "!127.0.0.9 !::ffff:* localhost 127.*")
        .stream(&format!(
            "[{KEY}]\n    enabled = yes\n    allow from = !127.0.0.9 !::ffff:* localhost 127.*\n"
        ))
        .start();
    let v4 = |last: u8| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let mapped = |last: u8| IpAddr::V6(Ipv4Addr::new(127, 0, 0, last).to_ipv6_mapped());
    let get = "GET /api/v1/info HTTP/1.1\r\nConnection: close\r\n\r\n";
    let asks = |last: u8, port: u16| {
        let plain = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let through = SocketAddr::new(mapped(1), port);
        [from(v4(last), plain), from(mapped(last), through)]
    };
    let mut dual = 0;
    for port in [parent.port, parent.port + 1] {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        dual += 1;
        for stream in asks(9, port) {
            assert!(first_words(stream, get).contains(" 403 "));
        }
        for stream in asks(8, port) {
            assert!(first_words(stream, get).contains(" 200 "), "told apart by its form");
        }
        for stream in asks(9, port) {
            let request = stream_request("kid", &guid(), OLD_LIVE);
            assert_eq!(first_words(stream, &request), REFUSED);
        }
        for stream in asks(8, port) {
            let request = stream_request("kid", &guid(), OLD_LIVE);
            assert!(first_words(stream, &request).starts_with("Hit me baby"));
        }
    }
    assert!(dual >= 1);
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, parent.port + 1));
    assert!(
        first_words(from(Ipv6Addr::LOCALHOST.into(), six), get).contains(" 200 "),
        "::1 is localhost"
    );
    // What a client says of itself is no address.
    for header in [
        "X-Forwarded-For: 127.0.0.1",
        "X-Real-IP: 127.0.0.1",
        "Forwarded: for=127.0.0.1",
        "Host: localhost",
        "Host: localhost.",
    ] {
        let request = format!("GET /api/v1/info HTTP/1.1\r\n{header}\r\nConnection: close\r\n\r\n");
        let [stream, _] = asks(9, parent.port);
        assert!(first_words(stream, &request).contains(" 403 "), "{header}");
    }
}

#[test]
fn a_port_serves_what_it_names_and_nothing_else() {
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let [badges, streaming, conf, management] = ports;
    let parent = Agent::new("parent").takes_children();
    let own = parent.port;
    let bind = format!(
        "127.0.0.1:{own} 127.0.0.1:{badges}=badges 127.0.0.1:{streaming}=streaming 127.0.0.1:{conf}=netdata.conf \
         127.0.0.1:{management}=management"
    );
    let parent = parent.option("web", "bind to", &bind).start();
    let ways = |path: &str| {
        let bare = path.trim_start_matches('/');
        [
            path.to_owned(),
            format!("/{path}"),
            format!("/{path}?a=/netdata.conf"),
            format!("{path}#x"),
            format!("/host/parent/{bare}"),
            format!("/host/localhost/{bare}"),
            path.replace("api", "%61pi"),
            path.replace('/', "%2f"),
            path.replace("netdata.", "netdata%2e"),
        ]
    };
    let badge = "/api/v1/badge.svg?chart=system.cpu";
    for path in ways("/api/v1/info")
        .into_iter()
        .chain(ways("/api/v1/charts"))
        .chain(ways("/index.html"))
        .chain(ways("/api/v2/nodes"))
    {
        for port in ports {
            assert_ne!(status(port, &path, ""), 200, "{path} on {port} of {ports:?}");
        }
    }
    for path in ways("/netdata.conf") {
        for port in [badges, streaming, management] {
            assert_ne!(status(port, &path, ""), 200, "{path}");
        }
    }
    assert_eq!(status(conf, "/netdata.conf", ""), 200);
    assert_ne!(status(badges, badge, ""), 403);
    assert_eq!(status(streaming, badge, ""), 403);
    let about = format!("/api/v3/stream_info?machine_guid={}", parent.guid);
    assert_eq!(status(streaming, &about, ""), 200);
    assert_eq!(status(badges, "/api/v1/manage/health?cmd=LIST", ""), 403);
    for port in [badges, conf, management] {
        let child = FakeChild::connect(port, "kid", &guid(), OLD_LIVE);
        assert!(child.is_err_and(|answer| answer.contains("not allowed")), "{port}");
    }
    assert!(FakeChild::connect(streaming, "kid", &guid(), OLD_LIVE).is_ok());
    // Another method, or a request behind another one, changes no right.
    for method in ["POST", "PUT", "DELETE", "HEAD"] {
        let answer =
            ask(badges, &format!("{method} /api/v1/info HTTP/1.1\r\nConnection: close\r\n\r\n"));
        assert!(!answer.contains(" 200 "), "{method}: {answer}");
    }
    let behind = format!(
        "GET {badge} HTTP/1.1\r\nConnection: keep-alive\r\n\r\nGET /api/v1/info HTTP/1.1\r\nConnection: close\r\n\r\n"
    );
    assert!(!ask(badges, &behind).contains("mirrored_hosts"));
}

#[test]
fn no_request_hides_in_another() {
    let parent = Agent::new("parent").takes_children().start();
    let hidden = "GET /api/v1/info HTTP/1.1\r\nConnection: close\r\n\r\n";
    let length = hidden.len();
    for head in [
        format!("Content-Length: {length}\r\nContent-Length: 0"),
        format!("Content-Length: 0\r\nContent-Length: {length}"),
        "Transfer-Encoding: chunked".to_owned(),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
        format!("Transfer-Encoding : chunked\r\nContent-Length: {length}"),
        format!("Content-Length : {length}"),
        format!("Content-Length: +{length}"),
        format!("X: y\nContent-Length: {length}"),
        format!("Content-Length: 0\r\n\tContent-Length: {length}"),
        "X: y\rTransfer-Encoding: chunked".to_owned(),
    ] {
        let outer =
            format!("POST /api/v1/nosuch HTTP/1.1\r\nConnection: keep-alive\r\n{head}\r\n\r\n");
        let answer = ask(parent.port, &format!("{outer}{hidden}"));
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer}");
        assert!(!answer.contains("mirrored_hosts"), "{head:?}");
    }
    // A stream request hides no samples, and nothing hides in its parameters.
    let glued = format!("{}BEGIN x\n", stream_request("kid", MACHINE, OLD_LIVE));
    assert!(ask(parent.port, &glued).starts_with("HTTP/1.1 400"));
    let split = stream_request(
        "kid%0d%0a%0d%0aGET%20/api/v1/info%20HTTP/1.1%0d%0a%0d%0a",
        MACHINE,
        OLD_LIVE,
    );
    let mut child = FakeChild::ask(parent.port, &split, MACHINE).unwrap();
    assert!(!child.link.closed_within(Duration::from_millis(300)));
}

#[test]
fn files_outside_the_web_directory_are_not_served() {
    let parent = Agent::new("parent")
        .file("web/index.html", "a page", 0o644)
        .file("web/sub/a.txt", "inside", 0o644)
        .file("web-secret/a.txt", "SECRET", 0o644)
        .file("secret.txt", "SECRET", 0o644);
    let parent = parent.start();
    std::os::unix::fs::symlink("../secret.txt", parent.dir().join("web/link.txt")).unwrap();
    std::os::unix::fs::symlink("..", parent.dir().join("web/up")).unwrap();
    assert_eq!(parent.get("/sub/a.txt").body, "inside");
    let up = [
        "..",
        "%2e%2e",
        "%2E.",
        ".%2e",
        "%252e%252e",
        "..%00",
        "...",
        "%c0%ae%c0%ae",
        "..;",
        ". .",
    ];
    let slashes = ["/", "%2f", "//", "/./", "\\", "%5c", "%c0%af"];
    let mut tried = 0;
    for up in up {
        for slash in slashes {
            for (start, target) in [
                ("/", "secret.txt"),
                ("/sub/", "secret.txt"),
                ("/", "web-secret/a.txt"),
                ("/", "etc/passwd"),
                ("/host/parent/", "secret.txt"),
                ("/", "etc/stream.conf"),
            ] {
                for depth in [1, 2, 8] {
                    let path = format!("{start}{}{target}", format!("{up}{slash}").repeat(depth));
                    let answer = ask(
                        parent.port,
                        &format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n"),
                    );
                    assert!(
                        !answer.contains("SECRET")
                            && !answer.contains("root:")
                            && !answer.contains("[stream]"),
                        "{path}"
                    );
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 1000);
    for path in [
        "/link.txt",
        "/up/secret.txt",
        "/up/etc/stream.conf",
        "/index.html.",
        "/sub/a.txt.",
        "/sub/a.txt/",
        "/sub/a.txt%00.html",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/-secret/a.txt",
        "http://localhost/../secret.txt",
        "/sub/a.txt%20",
        "/etc/passwd",
        "/proc/self/environ",
    ] {
        let answer = ask(parent.port, &format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n"));
        assert!(
            !answer.contains("SECRET") && !answer.contains("root:") && !answer.contains(" 200 "),
            "{path}: {answer}"
        );
    }
}

// --- unix sockets -------------------------------------------------------------------------------------------------------

/// What comes back at a unix socket, as far as `enough`, or the end.
fn ask_socket(path: &Path, request: &str, enough: &str) -> String {
    let mut socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    // Who may not connect may be hung up on before.
    let _ = socket.write_all(request.as_bytes());
    let (mut answer, mut buffer) = (String::new(), [0; 4096]);
    while let Ok(got @ 1..) = socket.read(&mut buffer) {
        answer += &String::from_utf8_lossy(&buffer[..got]);
        if answer.contains(enough) {
            break;
        }
    }
    answer
}

#[test]
fn a_unix_socket_is_localhost_whatever_its_client_says() {
    let parent = Agent::new("parent").takes_children();
    let path = parent.dir().join("run/web.sock");
    let bind = format!("127.0.0.1:{} unix:{}", parent.port, path.display());
    let mut parent = parent.option("web", "bind to", &bind).start();
    let get = |headers: &str| {
        let head = format!("GET /api/v1/info HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        ask_socket(&path, &head, "\r\n\r\n")
    };
    let stream = || ask_socket(&path, &stream_request("kid", &guid(), OLD_LIVE), "\n");
    let is_in = |answer: String| answer.starts_with("Hit me baby");
    assert!(get("").starts_with("HTTP/1.1 200 "));
    assert!(is_in(stream()));
    let change = |options: &[(&str, &str, &str)]| {
        let bind = [("web", "bind to", bind.as_str())];
        parent.write_options(&[&bind, options].concat());
        assert_eq!(parent.command("reload-config").0, 0);
    };
    let lists = [("web", "allow dashboard from", "10.*"), ("web", "allow streaming from", "10.*")];
    change(&lists);
    for lie in
        ["", "X-Forwarded-For: 10.0.0.1\r\n", "X-Real-IP: 10.0.0.1\r\n", "Host: 10.0.0.1\r\n"]
    {
        assert!(get(lie).starts_with("HTTP/1.1 403 "), "{lie}");
    }
    assert!(!is_in(stream()));
    change(&[("web", "allow connections from", "!localhost *")]);
    assert_eq!(get(""), "", "nobody on this machine may connect");
    let tokens = parent.dir().join("etc/tokens");
    std::fs::write(&tokens, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o600)).unwrap();
    change(&[("web", "read token file", &tokens.display().to_string())]);
    assert!(get("").starts_with("HTTP/1.1 401 "));
    assert!(get(&format!("Authorization: Bearer {TOKEN}\r\n")).starts_with("HTTP/1.1 200 "));
    assert!(is_in(stream()));
    // What a killed agent left is replaced, and what is no socket is not.
    parent.kill();
    assert!(path.exists());
    parent.begin();
    assert!(std::fs::metadata(&path).unwrap().file_type().is_socket());
    parent.stop();
    assert!(!path.exists(), "a stop leaves nothing");
    std::fs::write(&path, "somebody's").unwrap();
    parent.begin();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's");
    parent.wait_log("web.sock", 5);
}

// --- privileges ---------------------------------------------------------------------------------------------------------

#[test]
fn root_is_given_up_for_good_and_by_all_threads_and_plugins() {
    const TEST: &str = "root_is_given_up_for_good_and_by_all_threads_and_plugins";
    let id = |words: &[&str]| {
        let output = std::process::Command::new("id").args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    if id(&["-u"]) != "0" {
        return skipped(TEST, "only root has something to give up");
    }
    let (user, group) = (id(&["-u", "nobody"]), id(&["-g", "nobody"]));
    let plugin = "#!/bin/sh\necho \"$(id -u) $(id -g) $(id -G)\" >\"$NETDATA_CACHE_DIR/whoami\"\nexec sleep 1000\n";
    let parent = Agent::new("parent");
    // Whoever it becomes has to get there.
    std::fs::set_permissions(parent.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // As systemd gives it to the agent.
    let run = parent.dir().join("run");
    std::fs::create_dir(&run).unwrap();
    std::os::unix::fs::chown(&run, user.parse().ok(), group.parse().ok()).unwrap();
    let mut parent = parent
        .takes_children()
        .plugin("whoami", plugin)
        .option("global", "run as user", "nobody")
        .file("web/roots.txt", "SECRET", 0o600)
        .file("web/all.txt", "open", 0o644)
        .start();
    let _child = FakeChild::connect(parent.port, "kid", MACHINE, OLD_LIVE).unwrap();
    let whoami = || std::fs::read_to_string(parent.dir().join("cache/whoami")).ok();
    let told = wait_for("the plugin", 20, || whoami().filter(|told| told.ends_with('\n')));
    assert_eq!(told.trim(), format!("{user} {group} {group}"));
    let mut threads = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", parent.pid())).unwrap().flatten() {
        let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        // Real, effective, saved and of the file system: none of them leads back.
        assert_eq!(line("Uid:"), [user.as_str(); 4]);
        assert_eq!(line("Gid:"), [group.as_str(); 4]);
        assert_eq!(line("Groups:"), [group.as_str()]);
        for kind in ["CapEff:", "CapPrm:", "CapAmb:"] {
            assert_eq!(line(kind), ["0000000000000000"], "{kind}");
        }
        threads += 1;
    }
    assert!(threads > 3, "{threads}");
    assert_eq!(parent.get("/all.txt").body, "open");
    let secret = parent.get("/roots.txt");
    assert!(secret.status != 200 && !secret.body.contains("SECRET"), "{}", secret.status);
    // It still does all that it is there for: is reloaded, writes, and ends.
    assert_eq!(parent.command("reload-config").0, 0);
    assert_eq!(parent.stop().code, Some(0));
    assert!(!parent.log().contains("Permission denied"), "{}", parent.log());
}

#[test]
fn the_build_tells_what_it_can_do_in_both_places() {
    let parent = Agent::new("parent").start();
    let info = parent.json("/api/v1/info");
    let words: Vec<_> = info["buildinfo"].as_str().unwrap().split('|').collect();
    for word in ["dbengine", "Native HTTPS", "TLS Host Verification", "Stream Compression"] {
        assert!(words.contains(&word), "{word} is missing in {words:?}");
    }
    assert_eq!(info["stream-compression"], serde_json::Value::Null, "nothing is sent");
    let run = |words: &[&str]| {
        let output = std::process::Command::new(Program::Ours.path().unwrap()).args(words).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let text = run(&["-W", "buildinfo"]);
    let json: serde_json::Value = serde_json::from_str(&run(&["-W", "buildinfojson"])).unwrap();
    for name in ["dbengine", "Native HTTPS", "TLS Host Verification", "Stream Compression"] {
        let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{name}:")));
        assert!(line.is_some_and(|line| line.ends_with("YES")), "{name}: {text}");
    }
    assert_eq!(json["features"]["stream-compression"], true, "{json}");
}
