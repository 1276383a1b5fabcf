//! What is shipped beside the program: stock configuration, edit-config, scripts, completion, man pages.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::*;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// The options of a stock file, those behind a `#` too.
fn options(file: &str) -> Vec<(String, String, String)> {
    let (mut section, mut options) = (String::new(), Vec::new());
    for line in text(file).lines().map(str::trim) {
        let bare = line.strip_prefix('#').unwrap_or(line);
        if let Some(name) = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((name, value)) = bare.split_once(" = ")
            && !bare.starts_with(' ')
        {
            options.push((section.clone(), name.to_owned(), value.to_owned()));
        }
    }
    options
}

#[test]
fn the_agent_knows_every_option_of_the_stock_netdata_conf() {
    let stock = options("conf.d/netdata.conf");
    // Those of this run itself, and files that are not there.
    const OURS: [&str; 7] = [
        "run as user",
        "bind to",
        "default port",
        "read token file",
        "ssl key",
        "ssl certificate",
        "ssl client CA",
    ];
    // Some are of one mode only.
    let configs = ["dbengine", "ram"].map(|mode| {
        let plugins = format!("\"{}\"", repository().join("plugins.d").display());
        let mut agent = Agent::new(mode).collecting().option("directories", "plugins", &plugins);
        for (section, name, value) in stock.iter().filter(|(_, name, _)| !OURS.contains(&&**name)) {
            agent = agent.option(section, name, value);
        }
        agent.option("db", "mode", mode).start().get("/netdata.conf").body
    });
    assert!(stock.len() > 20, "only {} options were read", stock.len());
    for (section, name, _) in &stock {
        let known = configs.iter().any(|config| {
            let whole = config.split("\n[").find(|text| text.starts_with(&format!("{section}]\n")));
            whole.is_some_and(|of| {
                let named =
                    ["", "# "].iter().any(|mark| of.contains(&format!("\t{mark}{name} = ")));
                named && !of.contains(&format!("option '{name}' is not used"))
            })
        });
        assert!(known, "[{section}] '{name}' is not among the options of the agent");
    }
}

/// edit-config with directories of its own; the editor adds a line to what it is given.
fn edit(root: &Path, file: &str) -> Output {
    Command::new(repository().join("packaging/edit-config"))
        .arg(file)
        .env("NETDATA_USER_CONFIG_DIR", root)
        .env("NETDATA_STOCK_CONFIG_DIR", repository().join("conf.d"))
        .env("EDITOR", "sed -i 1i#edited")
        .output()
        .unwrap()
}

#[test]
fn edit_config_copies_a_stock_file_once_and_opens_the_copy() {
    let root = tempfile::tempdir().unwrap();
    let user = root.path().join("stream.conf");
    let told = edit(root.path(), "stream.conf");
    assert!(told.status.success(), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stdout).starts_with("Copying '"));
    let stock = text("conf.d/stream.conf");
    assert_eq!(fs::read_to_string(&user).unwrap(), format!("#edited\n{stock}"));
    // The user's own file is opened as it is.
    assert!(edit(root.path(), "stream.conf").status.success());
    assert_eq!(fs::read_to_string(&user).unwrap(), format!("#edited\n#edited\n{stock}"));
    assert_eq!(text("conf.d/stream.conf"), stock);
    for nonsense in ["/etc/passwd", "../stream.conf", "health.d/../../x", "no-such.conf", ""] {
        let told = edit(root.path(), nonsense);
        assert_eq!(told.status.code(), Some(1), "{nonsense}: {told:?}");
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

/// Directory with a `curl` that only writes down that it was called.
fn fake_curl() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let calls = dir.path().join("calls");
    let script = format!("#!/bin/sh\necho \"$@\" >>'{}'\nexit 7\n", calls.display());
    for name in ["curl", "wget", "nc", "dig", "host", "nslookup", "getent", "ping"] {
        let file = dir.path().join(name);
        fs::write(&file, &script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    (dir, calls)
}

#[test]
fn system_info_asks_no_network_unless_told_to() {
    let run = |detect: Option<&str>| {
        let (dir, calls) = fake_curl();
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let mut script = Command::new(repository().join("plugins.d/system-info.sh"));
        // As on a virtual machine, where a cloud may be around.
        script.env("PATH", path).env("VIRTUALIZATION", "kvm").env_remove("NETDATA_DETECT_CLOUD");
        if let Some(word) = detect {
            script.env("NETDATA_DETECT_CLOUD", word);
        }
        let told = script.output().unwrap();
        let out = String::from_utf8(told.stdout).unwrap();
        assert!(out.contains("NETDATA_INSTANCE_CLOUD_TYPE=unknown\n"), "{out}");
        fs::read_to_string(calls).unwrap_or_default()
    };
    assert_eq!(run(None), "");
    assert_eq!(run(Some("no")), "");
    let asked = run(Some("yes"));
    assert!(asked.contains("169.254.169.254"), "the test would not see it: '{asked}'");
}

#[test]
fn every_command_is_completed_and_explained() {
    // The help gives each command a line that begins at its margin, and explains it in one that does not.
    let agent = Agent::new("agent").start();
    let help = agent.cli(&["help"]);
    let commands: BTreeSet<&str> = help
        .lines()
        .skip(1)
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .filter(|word| !word.is_empty())
        .collect();
    assert!(commands.contains("verify") && commands.len() > 12, "{commands:?}");
    let completion = text("packaging/completions/netdatacli");
    let page = text("packaging/man/netdatacli.8").replace("\\-", "-");
    for command in &commands {
        assert!(page.contains(command), "netdatacli.8 lacks {command}");
        let output = Command::new("bash")
            .arg("-c")
            .arg(format!(
                "{completion}\nCOMP_WORDS=(netdatacli {command}) COMP_CWORD=1; _netdatacli; echo \"${{COMPREPLY[@]}}\""
            ))
            .output()
            .unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        assert!(words.split_whitespace().any(|word| word == *command), "{command}: '{words}'");
    }
    // Every option of the program.
    let page = text("packaging/man/netdata.8").replace("\\-", "-");
    let program = Program::Ours.path().unwrap();
    let help = String::from_utf8(Command::new(program).arg("-h").output().unwrap().stdout).unwrap();
    let options: BTreeSet<&str> = help
        .lines()
        .filter(|line| line.starts_with("  -"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(options.len() > 10, "{options:?}");
    for option in options {
        assert!(page.contains(option.trim_end_matches(',')), "netdata.8 lacks {option}");
    }
}

/// All of src/ as one text, without the breaks within strings.
fn sources() -> String {
    let (mut folders, mut all) = (vec![repository().join("src")], String::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let mut rest = text.as_str();
                while let Some((before, after)) = rest.split_once("\\\n") {
                    all.push_str(before);
                    rest = after.trim_start();
                }
                all.push_str(rest);
            }
        }
    }
    all
}

#[test]
fn every_log_line_that_is_explained_is_one_of_ours() {
    let sources = sources();
    let page = text("docs/troubleshooting.md");
    let lines: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(lines.len() > 30, "only {} lines were read", lines.len());
    for line in lines {
        for piece in line.split('…').map(|piece| piece.trim_matches([' ', '\'', '.', ':', ','])) {
            // What is left of a line between two names says little by itself.
            if piece.len() >= 8 {
                assert!(sources.contains(piece), "no log line of ours has '{piece}', of '{line}'");
            }
        }
    }
}

#[test]
fn the_figures_of_the_sizing_table_are_measured_ones() {
    let measured = text("docs/measurements.md");
    for figure in [
        "5.5",
        "0.053",
        "0.38",
        "0.696",
        "1,373 bytes",
        "0.135",
        "1.294",
        "3.831",
        "5.726",
        "1.55",
        "3.65",
        "158 to 803",
        "0.43",
        "25.79",
        "2.12",
        "3.13",
    ] {
        assert!(
            measured.contains(figure),
            "measurements.md no longer has {figure}: look at operating.md and roles.md"
        );
    }
}
