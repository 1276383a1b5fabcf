//! What this node tells about the machine it runs on: the facts of `system-info.sh`, the time zone and the host labels.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::settings::Directories;
use crate::base::sys::{self, Interest, Watched};
use crate::base::time::{Clock, UnixSeconds};
use crate::config::Config;
use crate::metrics::{LabelSource, Labels, SystemInfo};

const SCRIPT: &str = "system-info.sh";
/// A script that has not ended by then is killed; what it said so far counts.
const SCRIPT_TIMEOUT_US: i64 = 10_000_000;
/// More than the script could ever have to say.
const OUTPUT_MAX: usize = 64 << 10;
const LINE_MAX: usize = 199;

/// The facts we keep.
const KNOWN: &[&str] = &[
    "NETDATA_CONTAINER_OS_NAME",
    "NETDATA_CONTAINER_OS_ID",
    "NETDATA_CONTAINER_OS_ID_LIKE",
    "NETDATA_CONTAINER_OS_VERSION",
    "NETDATA_CONTAINER_OS_VERSION_ID",
    "NETDATA_CONTAINER_OS_DETECTION",
    "NETDATA_CONTAINER_IS_OFFICIAL_IMAGE",
    "NETDATA_HOST_OS_NAME",
    "NETDATA_HOST_OS_ID",
    "NETDATA_HOST_OS_ID_LIKE",
    "NETDATA_HOST_OS_VERSION",
    "NETDATA_HOST_OS_VERSION_ID",
    "NETDATA_HOST_OS_DETECTION",
    "NETDATA_HOST_IS_K8S_NODE",
    "NETDATA_SYSTEM_KERNEL_NAME",
    "NETDATA_SYSTEM_KERNEL_VERSION",
    "NETDATA_SYSTEM_ARCHITECTURE",
    "NETDATA_SYSTEM_VIRTUALIZATION",
    "NETDATA_SYSTEM_VIRT_DETECTION",
    "NETDATA_SYSTEM_CONTAINER",
    "NETDATA_SYSTEM_CONTAINER_DETECTION",
    "NETDATA_SYSTEM_CPU_LOGICAL_CPU_COUNT",
    "NETDATA_SYSTEM_CPU_VENDOR",
    "NETDATA_SYSTEM_CPU_MODEL",
    "NETDATA_SYSTEM_CPU_FREQ",
    "NETDATA_SYSTEM_CPU_DETECTION",
    "NETDATA_SYSTEM_TOTAL_RAM",
    "NETDATA_SYSTEM_RAM_DETECTION",
    "NETDATA_SYSTEM_TOTAL_DISK_SIZE",
    "NETDATA_SYSTEM_DISK_DETECTION",
    "NETDATA_INSTANCE_CLOUD_TYPE",
    "NETDATA_INSTANCE_CLOUD_INSTANCE_TYPE",
    "NETDATA_INSTANCE_CLOUD_INSTANCE_REGION",
];

/// Which fact becomes which label.
const LABELS: &[(&str, &str)] = &[
    ("_cloud_provider_type", "NETDATA_INSTANCE_CLOUD_TYPE"),
    ("_cloud_instance_type", "NETDATA_INSTANCE_CLOUD_INSTANCE_TYPE"),
    ("_cloud_instance_region", "NETDATA_INSTANCE_CLOUD_INSTANCE_REGION"),
    ("_os_name", "NETDATA_HOST_OS_NAME"),
    ("_os_version", "NETDATA_HOST_OS_VERSION"),
    ("_kernel_version", "NETDATA_SYSTEM_KERNEL_VERSION"),
    ("_system_cores", "NETDATA_SYSTEM_CPU_LOGICAL_CPU_COUNT"),
    ("_system_cpu_freq", "NETDATA_SYSTEM_CPU_FREQ"),
    ("_system_ram_total", "NETDATA_SYSTEM_TOTAL_RAM"),
    ("_system_disk_space", "NETDATA_SYSTEM_TOTAL_DISK_SIZE"),
    ("_architecture", "NETDATA_SYSTEM_ARCHITECTURE"),
    ("_virtualization", "NETDATA_SYSTEM_VIRTUALIZATION"),
    ("_container", "NETDATA_SYSTEM_CONTAINER"),
    ("_container_detection", "NETDATA_SYSTEM_CONTAINER_DETECTION"),
    ("_virt_detection", "NETDATA_SYSTEM_VIRT_DETECTION"),
    ("_is_k8s_node", "NETDATA_HOST_IS_K8S_NODE"),
    ("_install_type", "INSTALL_TYPE"),
    ("_prebuilt_arch", "PREBUILT_ARCH"),
    ("_prebuilt_dist", "PREBUILT_DISTRO"),
];

/// A running `system-info.sh`. It works while the rest of the start goes on.
pub(super) struct Probe {
    script: PathBuf,
    child: Option<Child>,
}

impl Probe {
    pub(super) fn start(directories: &Directories) -> Probe {
        let found = directories.plugins.iter().map(|dir| dir.join(SCRIPT)).find(|s| s.exists());
        let Some(script) = found else {
            let script =
                directories.plugins.first().map(|dir| dir.join(SCRIPT)).unwrap_or_default();
            log::info!("System info script {} not found.", script.display());
            return Probe { script, child: None };
        };
        log::info!("Executing {}", script.display());
        let spawned = Command::new(&script).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let child = spawned.inspect_err(|error| {
            log::error!("Cannot execute '{}': {error}", script.display());
        });
        Probe { script, child: child.ok() }
    }

    /// Waits for the script's end and takes what it said, into our environment too.
    pub(super) fn finish(self, clock: &Clock) -> SystemInfo {
        let mut facts = SystemInfo::new();
        let Some(mut child) = self.child else { return facts };
        let output =
            child.stdout.take().map(|out| read_for_a_while(out, clock)).unwrap_or_default();
        // One that closed its output and lives on is no use either.
        if !matches!(child.try_wait(), Ok(Some(_))) {
            let _ = child.kill();
        }
        if let Err(error) = child.wait() {
            log::error!("Cannot wait for '{}': {error}", self.script.display());
        }
        for line in String::from_utf8_lossy(&output).lines().filter(|l| l.len() <= LINE_MAX) {
            let Some((name, value)) = line.split_once('=') else { continue };
            log::info!("{name}={value}");
            if KNOWN.contains(&name) {
                sys::set_env(name, value);
                facts.insert(name.to_owned(), value.to_owned());
            } else {
                log::error!("Unexpected environment variable {name}={value}");
            }
        }
        facts
    }
}

fn read_for_a_while(mut out: impl Read + AsFd, clock: &Clock) -> Vec<u8> {
    let deadline = clock.monotonic_us() + SCRIPT_TIMEOUT_US;
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while read.len() < OUTPUT_MAX {
        let left = u64::try_from(deadline - clock.monotonic_us()).unwrap_or(0);
        let mut watched = [Watched::new(out.as_fd(), Interest::Read)];
        match sys::poll(&mut watched, Some(Duration::from_micros(left))) {
            Ok(0) if left == 0 => break,
            Ok(0) => continue,
            Ok(_) => {}
            Err(_) => break,
        }
        match out.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => read.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    read
}

/// How the package came to this machine, from `.install-type` of the user's configuration directory.
pub(super) fn add_install_type(facts: &mut SystemInfo, config_dir: &Path) {
    let text = fs::read_to_string(config_dir.join(".install-type")).unwrap_or_default();
    let value_of = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(n, _)| n.trim() == name)
            .map(|(_, value)| value.trim().trim_matches(['\'', '"']).to_owned())
    };
    let install_type = value_of("INSTALL_TYPE").unwrap_or_else(|| "unknown".to_owned());
    facts.insert("INSTALL_TYPE".to_owned(), install_type);
    for name in ["PREBUILT_ARCH", "PREBUILT_DISTRO"] {
        if let Some(value) = value_of(name) {
            facts.insert(name.to_owned(), value);
        }
    }
}

/// The time zone as hosts announce it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeZone {
    /// `Europe/Athens`
    pub(super) name: String,
    /// `EEST`
    pub(super) abbreviation: String,
    /// Seconds east of Greenwich.
    pub(super) utc_offset: i64,
}

impl TimeZone {
    pub(super) fn detect(config: &Config, now: UnixSeconds) -> TimeZone {
        let abbreviation = sys::time_zone_name(now);
        let name = named_by_environment()
            .or_else(|| {
                let text = fs::read_to_string("/etc/timezone").ok()?;
                text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
            })
            .or_else(named_by_link)
            .map(|name| clean_zone(&name))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| clean_zone(&abbreviation));
        let default = if name.is_empty() { "unknown".to_owned() } else { name };
        let name = config.string("global", "timezone", &default);
        TimeZone { name, abbreviation, utc_offset: sys::local_time(now).utc_offset }
    }
}

fn named_by_environment() -> Option<String> {
    let zone = std::env::var("TZ").ok()?;
    // A leading colon names a file, which is not a zone's name.
    (!zone.is_empty() && !zone.starts_with([':', '/'])).then_some(zone)
}

fn named_by_link() -> Option<String> {
    let target = fs::read_link("/etc/localtime").ok()?;
    let target = target.to_str()?;
    Some(target.split_once("zoneinfo/")?.1.to_owned())
}

fn clean_zone(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '/')).collect()
}

/// What the labels depend on beside the facts.
#[derive(Clone, Debug, Default)]
pub(super) struct LabelInputs {
    pub(super) is_parent: bool,
    /// The destination list, when this node streams.
    pub(super) streams_to: Option<String>,
}

/// All labels of this node.
pub(super) fn host_labels(config: &Config, facts: &SystemInfo, inputs: &LabelInputs) -> Labels {
    let mut labels = Labels::new();
    for (label, fact) in LABELS {
        if let Some(value) = facts.get(*fact).filter(|value| !value.is_empty()) {
            labels.set(label, value, LabelSource::AUTO);
        }
    }
    let word = |yes: bool| if yes { "true" } else { "false" };
    labels.set("_aclk_available", "false", LabelSource(LabelSource::AUTO.0 | LabelSource::ACLK.0));
    for (label, option) in
        [("_is_ephemeral", "is ephemeral"), ("_has_unstable_connection", "has unstable connection")]
    {
        let yes = config.boolean("health", option, false);
        labels.set(label, word(yes), LabelSource::CONFIG);
    }
    labels.set("_is_parent", word(inputs.is_parent), LabelSource::AUTO);
    if let Some(destination) = &inputs.streams_to {
        labels.set("_streams_to", destination, LabelSource::AUTO);
    }
    for (name, value) in config.take_all("host labels") {
        labels.set(&name.to_ascii_lowercase(), &value, LabelSource::CONFIG);
    }
    labels
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Present;

    #[test]
    fn a_script_that_hangs_or_babbles_is_ended() {
        let clock = Clock::system();
        let mut child =
            Command::new("cat").arg("/dev/zero").stdout(Stdio::piped()).spawn().unwrap();
        let read = read_for_a_while(child.stdout.take().unwrap(), &clock);
        assert!(read.len() >= OUTPUT_MAX && read.len() < OUTPUT_MAX + 4096);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn facts_become_labels() {
        let mut facts = SystemInfo::new();
        facts.insert("NETDATA_SYSTEM_ARCHITECTURE".into(), "x86_64".into());
        facts.insert("NETDATA_HOST_OS_NAME".into(), String::new());
        let config = Config::new();
        config.load_text("[host labels]\nUpper = \"q;r\"\n", "f", Present::Replace);
        let inputs = LabelInputs { is_parent: false, streams_to: Some("tcp:up:19999".into()) };
        let labels = host_labels(&config, &facts, &inputs);
        for (name, value) in [
            ("_architecture", Some("x86_64")),
            ("_os_name", None),
            ("_is_parent", Some("false")),
            ("_streams_to", Some("tcp:up:19999")),
            ("upper", Some("_q:r_")),
        ] {
            assert_eq!(labels.get(name), value, "{name}");
        }
    }

    #[test]
    fn our_own_script_says_all_there_is_to_say_and_nothing_else() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins.d").join(SCRIPT);
        let output = Command::new(script).env("VIRTUALIZATION", "none").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut names: Vec<_> = text.lines().map(|line| line.split_once('=').unwrap().0).collect();
        let mut known = KNOWN.to_vec();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn the_install_type_is_read_without_its_quotes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join(".install-type"),
            "INSTALL_TYPE='kickstart'\nPREBUILT_ARCH=arm\n",
        )
        .unwrap();
        let mut facts = SystemInfo::new();
        add_install_type(&mut facts, dir.path());
        assert_eq!(facts["INSTALL_TYPE"], "kickstart");
        assert_eq!(facts["PREBUILT_ARCH"], "arm");
        assert!(!facts.contains_key("PREBUILT_DISTRO"));
    }

    #[test]
    fn the_script_of_the_plugins_directory_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join(SCRIPT);
        fs::write(&script, "#!/bin/sh\necho NETDATA_SYSTEM_TOTAL_RAM=12\necho ODD=1\necho none\n")
            .unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&script).stdout(Stdio::piped()).spawn().unwrap();
        let text = read_for_a_while(child.stdout.take().unwrap(), &Clock::system());
        child.wait().unwrap();
        assert_eq!(String::from_utf8(text).unwrap().lines().count(), 3);
    }
}
