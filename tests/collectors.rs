//! The internal collectors: what they make of fixed kernel files, compared with what a real agent made of the same
//! files and with the table of facts about its charts; and that collecting allocates nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netdata_rs::base::ids::MachineGuid;
use netdata_rs::base::threads::StopToken;
use netdata_rs::base::time::{Clock, UnixMicros, UpdateEvery};
use netdata_rs::config::{Config, Present};
use netdata_rs::ingest::collectors::lanes::{After, Task, Tick};
use netdata_rs::ingest::collectors::{Setup, own, proc, start, timex};
use netdata_rs::metrics::{
    Chart, ChartOptions, DimensionOptions, Host, HostInfo, HostKind, HostSettings,
};
use netdata_rs::storage::Mode;
use netdata_rs::storage::ring::RingEngine;
use serde_json::Value;

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

// SAFETY: everything is handed on to the system's allocator; counting touches a plain thread-local cell only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises about `layout` are passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: `memory` came from `alloc` above, that is from the system's allocator.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const T0: i64 = 1_700_000_000;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn facts(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

/// A machine that consists of files, and the modules that collect from it.
struct Machine {
    host: Arc<Host>,
    tasks: Vec<Box<dyn Task>>,
    buffer: Vec<u8>,
    second: i64,
}

fn setup(root: &Path, options: &str, zero_metrics: bool) -> Setup {
    let config = Config::new();
    // Devices of the machine that runs the tests must not give their names to those of the fixtures.
    let nowhere = "[plugin:proc:/proc/diskstats]
        path to device mapper = /nowhere
        path to /dev/disk/by-label = /nowhere
        path to /dev/vx/dsk = /nowhere\n";
    config.load_text(nowhere, "test", Present::Replace);
    config.load_text(options, "test", Present::Replace);
    let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
    let (guid, info) = (MachineGuid::random(), HostInfo::named("machine"));
    let settings = HostSettings::default();
    Setup {
        parts: Default::default(),
        host: Host::new(guid, HostKind::Local, info, engine, settings),
        config: Arc::new(config),
        clock: Clock::manual(UnixMicros(T0 * 1_000_000)),
        every: UpdateEvery::SECOND,
        zero_metrics,
        usage: Arc::default(),
        prefix: root.to_str().unwrap().trim_end_matches('/').to_owned(),
    }
}

impl Machine {
    fn new(root: &Path, options: &str, zero_metrics: bool) -> Machine {
        let setup = setup(root, options, zero_metrics);
        let tasks = proc::tasks(&setup);
        Machine { host: setup.host, tasks, buffer: Vec::new(), second: T0 }
    }

    fn tick(&mut self) {
        self.second += 1;
        let now = UnixMicros(self.second * 1_000_000 + 1_000);
        let buffer = &mut self.buffer;
        self.tasks.retain_mut(|task| task.run(&mut Tick { now, buffer }) == After::Again);
    }

    #[track_caller]
    fn chart(&self, id: &str) -> Arc<Chart> {
        self.host.chart(id).unwrap_or_else(|| panic!("no chart '{id}'"))
    }

    /// Raw values by dimension.
    #[track_caller]
    fn collected(&self, id: &str) -> Vec<(String, i64)> {
        let chart = self.chart(id);
        let state = chart.lock();
        state.dims.iter().map(|dim| (dim.id.to_string(), dim.collected)).collect()
    }

    #[track_caller]
    fn check(&self, id: &str, expected: &[(&str, i64)]) {
        let collected = self.collected(id);
        let collected: Vec<_> = collected.iter().map(|(id, value)| (&**id, *value)).collect();
        assert_eq!(collected, expected, "{id}");
    }
}

/// A copy of the machine of the fixtures whose files a test may change.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Copy {
        fn copy(from: &Path, to: &Path) {
            fs::create_dir_all(to).unwrap();
            for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
                let target = to.join(entry.file_name());
                match entry.file_type().unwrap().is_dir() {
                    true => copy(&entry.path(), &target),
                    false => drop(fs::copy(entry.path(), target).unwrap()),
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        copy(&fixture("machine"), dir.path());
        Copy(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Overwrites in place, as kernel files change.
    fn write(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).unwrap();
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path().join(file)).unwrap();
        assert!(text.contains(from), "'{from}' is not in {file}");
        self.write(file, &text.replace(from, to));
    }
}

#[test]
fn fixed_files_give_what_the_original_made_of_them() {
    let mut machine = Machine::new(&fixture("machine"), "", true);
    (0..10).for_each(|_| machine.tick());
    let recorded = facts("machine-charts.json");
    let charts = recorded["charts"].as_object().unwrap();
    let mut wrong = Vec::new();
    for (id, expected) in charts {
        let Some(chart) = machine.host.chart(id) else {
            // The number of semaphores is that of the machine that runs the tests.
            wrong.push(format!("{id} is missing"));
            continue;
        };
        let state = chart.lock();
        let meta = &state.meta;
        let mut check = |what: &str, ours: Value, theirs: &Value| {
            if ours != *theirs {
                wrong.push(format!("{id}: {what} is {ours}, not {theirs}"));
            }
        };
        check("name", (*meta.name).into(), &expected["name"]);
        check("family", (*meta.family).into(), &expected["family"]);
        check("context", (*meta.context).into(), &expected["context"]);
        check("units", (*meta.units).into(), &expected["units"]);
        check("type", meta.chart_type.name().into(), &expected["type"]);
        check("priority", meta.priority.into(), &expected["priority"]);
        check("every", meta.update_every.seconds().into(), &expected["every"]);
        check("module", (*meta.module).into(), &expected["module"]);
        check("plugin", (*meta.plugin).into(), &"proc.plugin".into());
        let labels: serde_json::Map<String, Value> =
            state.labels.iter().map(|l| (l.name.to_string(), (*l.value).into())).collect();
        check("labels", labels.into(), &expected["labels"]);
        let dims = state.dims.iter().map(|dim| {
            let value = if id.starts_with("system.ipc_sem") { 0 } else { dim.collected };
            Value::from(vec![Value::from(&*dim.id), (*dim.name).into(), value.into()])
        });
        check("dimensions", dims.collect(), &expected["dims"]);
    }
    let extra = machine.host.charts();
    let extra = extra.iter().filter(|chart| !charts.contains_key(&**chart.id()));
    wrong.extend(extra.map(|chart| format!("{} is too much", chart.id())));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let variables = machine.host.variables();
    for (name, value) in recorded["variables"].as_object().unwrap() {
        let ours = variables.iter().find(|(known, _)| **known == **name).map(|(_, value)| *value);
        assert_eq!(ours, value.as_f64(), "host variable {name}");
    }
    let variables = machine.chart("net.eth0").lock().variables.clone();
    assert_eq!(
        variables.iter().map(|(n, v)| (&**n, *v)).collect::<Vec<_>>(),
        [("nic_speed_max", 1_000_000.0)]
    );
}

/// The charts of `host` must be as the table says, at least those that it says a plain machine has.
#[track_caller]
fn check_facts(host: &Host, plugin: &str) {
    let table = facts("linux-charts.json");
    let mut wrong = Vec::new();
    let mut checked = 0;
    let shows = |value: &Value| value.as_str().unwrap_or("").to_owned();
    for fact in table["charts"].as_array().unwrap() {
        if fact["plugin"] != plugin || fact["tier"] != "A" {
            continue;
        }
        let instance = [
            ("{iface}", "eth0"),
            ("{disk}", "sda"),
            ("{disk_name}", "sda"),
            ("{n}", "0"),
            ("{mount_id}", "_"),
            ("{mount}", "/"),
        ];
        let concrete = |value: &Value| {
            instance.iter().fold(shows(value), |text, (from, to)| text.replace(from, to))
        };
        let id = concrete(&fact["id"]);
        let Some(chart) = host.chart(&id) else {
            wrong.push(format!("{id} is missing"));
            continue;
        };
        checked += 1;
        let state = chart.lock();
        let meta = &state.meta;
        let mut check = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                wrong.push(format!("{id}: {what} is {ours}, not {theirs}"));
            }
        };
        check("context", meta.context.to_string(), shows(&fact["context"]));
        check("units", meta.units.to_string(), shows(&fact["units"]));
        check("family", meta.family.to_string(), concrete(&fact["family"]));
        check("type", meta.chart_type.name().to_owned(), shows(&fact["type"]));
        check("priority", meta.priority.to_string(), fact["priority"].to_string());
        check("every", meta.update_every.seconds().to_string(), fact["every"].to_string());
        check("plugin", meta.plugin.to_string(), shows(&fact["plugin"]));
        check("module", meta.module.to_string(), shows(&fact["module"]));
        let detail = meta.options.contains(ChartOptions::DETAIL);
        check("detail", detail.to_string(), (fact["options"] == "detail").to_string());
        let dims = fact["dims"].as_array().unwrap();
        if fact["dims_dynamic"].is_string() {
            let algorithm = state.dims[0].algorithm.name().to_owned();
            check("algorithm", algorithm, shows(&dims[0][2]));
            continue;
        }
        check("number of dimensions", state.dims.len().to_string(), dims.len().to_string());
        for (dim, fact) in state.dims.iter().zip(dims) {
            let options = if dim.options == DimensionOptions::HIDDEN { "hidden" } else { "" };
            // A page is not 4 KiB everywhere.
            let multiplier = match fact[3].as_i64() {
                Some(4096) | Some(-4096) => fact[3].to_string(),
                _ => dim.multiplier.to_string(),
            };
            let ours = format!(
                "{} {} {} {multiplier} {} {options}",
                dim.id,
                dim.name,
                dim.algorithm.name(),
                dim.divisor
            );
            let theirs = format!(
                "{} {} {} {} {} {}",
                shows(&fact[0]),
                shows(&fact[1]),
                shows(&fact[2]),
                fact[3],
                fact[4],
                shows(&fact[5])
            );
            check("dimension", ours, theirs);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 0, "nothing of {plugin} in the table");
}

#[test]
fn charts_of_kernel_files_are_those_of_the_table() {
    let mut machine = Machine::new(&fixture("machine"), "", true);
    (0..10).for_each(|_| machine.tick());
    check_facts(&machine.host, "proc.plugin");
}

#[test]
fn charts_of_the_clock_and_of_the_agent_are_those_of_the_table() {
    let setup = setup(Path::new("/"), "", false);
    let mut buffer = Vec::new();
    let mut tick = Tick { now: UnixMicros(T0 * 1_000_000), buffer: &mut buffer };
    own::task(&setup).run(&mut tick);
    check_facts(&setup.host, "netdata");
    timex::task(&setup).run(&mut tick);
    check_facts(&setup.host, "timex.plugin");
}

#[test]
fn a_running_agent_has_the_charts_of_file_systems_and_jitter() {
    let mut setup = setup(Path::new("/"), "", false);
    setup.clock = Clock::system();
    let stop = StopToken::new();
    let collectors = start(&setup, &stop);
    let (begun, pause) = (Instant::now(), StopToken::new());
    let host = &setup.host;
    let there = |id: &str| host.chart(id).is_some_and(|chart| chart.lock().counter_done > 1);
    while !(there("system.idlejitter") && there("system.cpu") && there("netdata.uptime")) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the collectors do not collect");
        pause.wait(Duration::from_millis(50));
    }
    stop.stop();
    assert!(collectors.join(Duration::from_secs(5)));
    check_facts(host, "idlejitter.plugin");
    if there("disk_space._") && there("disk_inodes._") {
        let chart = host.chart("disk_space._").unwrap();
        let unit = chart.lock().dims[0].multiplier;
        if unit == 4096 {
            check_facts(host, "diskspace.plugin");
        }
    }
}

#[test]
fn charts_wait_for_something_to_show() {
    let copy = Copy::new();
    copy.edit("proc/net/sockstat", "UDP: inuse 7 mem 8", "UDP: inuse 0 mem 0");
    copy.edit("proc/net/dev", "3    4    5", "0    4    5");
    copy.edit("proc/net/dev", "30010   11", "30010    0");
    let mut machine = Machine::new(copy.path(), "", false);
    (0..3).for_each(|_| machine.tick());
    let there = |machine: &Machine, id: &str| machine.host.chart(id).is_some();
    assert!(!there(&machine, "ipv4.sockstat_udp_sockets"));
    assert!(!there(&machine, "net_errors.eth0"));
    assert!(there(&machine, "net_drops.eth0"));
    copy.edit("proc/net/sockstat", "UDP: inuse 0", "UDP: inuse 5");
    copy.edit("proc/net/dev", "30010    0", "30010    1");
    machine.tick();
    machine.check("ipv4.sockstat_udp_sockets", &[("inuse", 5)]);
    machine.check("net_errors.eth0", &[("inbound", 0), ("outbound", 1)]);
}

#[test]
fn counters_that_do_not_decide_do_not_make_a_chart() {
    let copy = Copy::new();
    let zero = |file: &str| {
        let text = fs::read_to_string(copy.path().join(file)).unwrap();
        let lines: Vec<String> = text
            .lines()
            .enumerate()
            .map(|(i, line)| match i % 2 {
                0 => line.to_owned(),
                _ => line
                    .split(' ')
                    .map(|w| if w.ends_with(':') { w } else { "0" })
                    .collect::<Vec<_>>()
                    .join(" "),
            })
            .collect();
        copy.write(file, &(lines.join("\n") + "\n"));
    };
    zero("proc/net/netstat");
    zero("proc/net/snmp");
    let mut machine = Machine::new(copy.path(), "", false);
    machine.tick();
    assert!(machine.host.charts().iter().all(|chart| {
        !chart.id().starts_with("ip.")
            && (!chart.id().starts_with("ipv4.") || chart.id().contains("sockstat"))
    }));
    let set = |head: &str, key: &str| {
        let file = if head.ends_with("Ext") { "proc/net/netstat" } else { "proc/net/snmp" };
        let text = fs::read_to_string(copy.path().join(file)).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let at = lines.iter().position(|line| line.starts_with(&format!("{head}: "))).unwrap();
        let column = lines[at].split(' ').position(|word| word == key).unwrap();
        let mut values: Vec<&str> = lines[at + 1].split(' ').collect();
        values[column] = "7";
        lines[at + 1] = values.join(" ");
        copy.write(file, &(lines.join("\n") + "\n"));
    };
    let mut check = |head, key, chart, there| {
        set(head, key);
        machine.tick();
        assert_eq!(machine.host.chart(chart).is_some(), there, "{chart} after {key}");
    };
    check("IpExt", "InCsumErrors", "ip.inerrors", false);
    check("IpExt", "InNoRoutes", "ip.inerrors", true);
    check("TcpExt", "OfoPruned", "ip.tcpofo", false);
    check("TcpExt", "TCPOFOMerge", "ip.tcpofo", true);
    check("TcpExt", "TCPSynRetrans", "ipv4.tcphandshake", false);
    check("Tcp", "OutRsts", "ipv4.tcphandshake", true);
    check("Icmp", "InCsumErrors", "ipv4.icmp", true);
    check("UdpLite", "NoPorts", "ipv4.udplite", true);
}

#[test]
fn disks_show_what_happened_between_two_readings() {
    let copy = Copy::new();
    let disk = |n: i64| {
        format!(
            "   8       0 sda {} 102 {} {} {} 206 {} {} 9 {} {} {} 13 {} {} {} {}\n",
            1001 + 10 * n,
            20003 + 105 * n,
            304 + 37 * n,
            2005 + 4 * n,
            40007 + 31 * n,
            408 + 22 * n,
            510 + 250 * n,
            611 + 3 * n,
            712 + 3 * n,
            14014 + 50 * n,
            115 + 19 * n,
            216 + 2 * n,
            317 + 11 * n
        )
    };
    copy.write("proc/diskstats", &disk(0));
    let mut machine = Machine::new(copy.path(), "", false);
    machine.tick();
    assert!(machine.host.chart("disk_await.sda").is_none());
    copy.write("proc/diskstats", &disk(1));
    machine.tick();
    // As observed on the original with the same steps.
    machine.check("disk_util.sda", &[("utilization", 25)]);
    machine.check("disk_await.sda", &[("reads", 3), ("writes", 5)]);
    machine.check("disk_ext_await.sda", &[("discards", 6), ("flushes", 5)]);
    machine.check("disk_avgsz.sda", &[("reads", 10), ("writes", 7)]);
    machine.check("disk_ext_avgsz.sda", &[("discards", 16)]);
    machine.check("disk_svctm.sda", &[("svctm", 17)]);
    copy.write("proc/diskstats", "");
    machine.tick();
    for chart in machine.host.charts().iter().filter(|chart| chart.id().ends_with(".sda")) {
        assert!(chart.lock().is_obsolete(), "{}", chart.id());
    }
    copy.write("proc/diskstats", &disk(2));
    machine.tick();
    assert!(!machine.chart("disk.sda").lock().is_obsolete());
}

#[test]
fn older_kernels_tell_less() {
    let copy = Copy::new();
    for (file, gone) in [
        ("proc/meminfo", &["MemAvailable", "Percpu", "WritebackTmp"][..]),
        ("proc/vmstat", &["oom_kill"]),
    ] {
        let text = fs::read_to_string(copy.path().join(file)).unwrap();
        let kept = text.lines().filter(|line| !gone.iter().any(|key| line.starts_with(key)));
        copy.write(file, &(kept.collect::<Vec<_>>().join("\n") + "\n"));
    }
    copy.write(
        "proc/net/softnet_stat",
        "00000a 0000000b 0000000c 00000000 00000000 00000000 00000000 00000000 00000000\n",
    );
    copy.write("proc/pressure/cpu", "some avg10=1.25 avg60=11.07 avg300=1.90 total=1234567\n");
    fs::remove_file(copy.path().join("proc/pressure/io")).unwrap();
    let mut machine = Machine::new(copy.path(), "", true);
    machine.tick();
    assert!(machine.host.chart("mem.available").is_none());
    assert!(machine.host.chart("mem.oom_kill").is_none());
    assert_eq!(machine.collected("mem.kernel").len(), 4);
    assert_eq!(machine.collected("mem.writeback")[2], ("FuseWriteback".to_owned(), 0));
    machine.check("system.softnet_stat", &[("processed", 10), ("dropped", 11), ("squeezed", 12)]);
    assert!(machine.host.chart("system.cpu_some_pressure").is_some());
    assert!(machine.host.chart("system.cpu_full_pressure").is_none());
    assert!(machine.host.chart("system.io_some_pressure").is_none());
    assert!(machine.host.chart("system.memory_full_pressure").is_some());
}

#[test]
fn interfaces_come_and_go() {
    let copy = Copy::new();
    let mut machine = Machine::new(copy.path(), "", false);
    machine.tick();
    let text = fs::read_to_string(copy.path().join("proc/net/dev")).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.contains("eth0")).collect();
    let with_new = format!("{}\n  eth1:7 {}\n", without.join("\n"), "1 ".repeat(15));
    copy.write("proc/net/dev", &with_new);
    machine.tick();
    assert!(machine.chart("net.eth0").lock().is_obsolete());
    assert!(machine.chart("net_mtu.eth0").lock().is_obsolete());
    assert!(!machine.chart("net.wlan0").lock().is_obsolete());
    machine.check("net.eth1", &[("received", 7), ("sent", 1)]);
    copy.write("proc/net/dev", &text);
    machine.tick();
    assert!(!machine.chart("net.eth0").lock().is_obsolete());
    assert!(machine.chart("net.eth1").lock().is_obsolete());
}

#[test]
fn interrupts_become_dimensions_when_they_first_happen() {
    let copy = Copy::new();
    let mut machine = Machine::new(copy.path(), "", false);
    machine.tick();
    assert!(!machine.collected("system.interrupts").iter().any(|(id, _)| id == "1"));
    copy.edit("proc/interrupts", "  1:          0", "  1:          6");
    copy.edit("proc/interrupts", " 16:", "  9: 5 0 IO-APIC 9-fasteoi acpi\n 16:");
    machine.tick();
    let now = machine.collected("system.interrupts");
    assert_eq!(now[now.len() - 2..], [("1".to_owned(), 6), ("9".to_owned(), 5)]);
    assert!(now.contains(&("16".to_owned(), 25)));
    assert!(machine.collected("cpu.cpu0_interrupts").contains(&("9".to_owned(), 5)));
    assert!(!machine.collected("cpu.cpu1_interrupts").iter().any(|(id, _)| id == "9"));
}

#[test]
fn a_module_without_its_file_is_off_and_the_others_go_on() {
    let copy = Copy::new();
    fs::remove_file(copy.path().join("proc/stat")).unwrap();
    let mut machine = Machine::new(copy.path(), "", false);
    let all = machine.tasks.len();
    machine.tick();
    assert_eq!(machine.tasks.len(), all - 1);
    fs::copy(fixture("machine/proc/stat"), copy.path().join("proc/stat")).unwrap();
    machine.tick();
    assert!(machine.host.chart("system.cpu").is_none());
    assert!(machine.host.chart("system.load").is_some());
}

#[test]
fn options_switch_modules_charts_and_devices_and_move_files() {
    let other = tempfile::NamedTempFile::new().unwrap();
    fs::write(other.path(), "7.00 8.00 9.00 1/77 5\n").unwrap();
    let options = format!(
        "[plugin:proc]
         /proc/meminfo = no
         [plugin:proc:/proc/loadavg]
         filename to monitor = {}
         [plugin:proc:/proc/stat]
         context switches = no
         [plugin:proc:/proc/net/dev:lo]
         enabled = yes
         [plugin:proc:/proc/net/dev:eth0]
         packets = no
         errors = no
         [plugin:proc:/proc/diskstats]
         performance metrics for partitions = yes
         [plugin:proc:/proc/net/snmp]
         ipv4 ICMP packets = no
         ",
        other.path().display()
    );
    let mut machine = Machine::new(&fixture("machine"), &options, false);
    machine.tick();
    machine.check("system.load", &[("load1", 7000), ("load5", 8000), ("load15", 9000)]);
    for gone in ["system.ram", "system.ctxt", "net_packets.eth0", "net_errors.eth0", "ipv4.icmp"] {
        assert!(machine.host.chart(gone).is_none(), "{gone}");
    }
    for there in ["system.intr", "net.lo", "net.eth0", "net_drops.eth0", "disk.sda1"] {
        assert!(machine.host.chart(there).is_some(), "{there}");
    }
}

#[test]
fn a_tick_allocates_nothing() {
    let mut machine = Machine::new(&fixture("machine"), "", true);
    (0..70).for_each(|_| machine.tick());
    let before = allocations();
    (0..70).for_each(|_| machine.tick());
    assert_eq!(allocations() - before, 0);
}

#[test]
fn a_tick_on_this_machine_allocates_nothing() {
    let mut machine = Machine::new(Path::new("/"), "", false);
    (0..70).for_each(|_| machine.tick());
    // Something new may turn up at any time, but not at every time.
    let quiet = (0..20).any(|_| {
        let before = allocations();
        machine.tick();
        allocations() == before
    });
    assert!(quiet);
}

/// Looks and expressions of alarms whose status stays as it is.
#[test]
fn evaluating_alarms_allocates_nothing() {
    use netdata_rs::health::grammar::Repeat;
    use netdata_rs::health::log::Log;
    use netdata_rs::health::notify::Notifier;
    use netdata_rs::health::{Health, Options};
    use netdata_rs::metrics::{Algorithm, ChartSpec, DimensionSpec, Hosts, SinceLast, Staged};

    /// No cluster.
    struct Alone;

    impl netdata_rs::health::Cluster for Alone {
        fn tells(&self, _: &Host) -> bool {
            false
        }

        fn told(&self, _: &Host) -> Option<(Vec<(String, i64)>, bool)> {
            None
        }

        fn presence(&self) -> netdata_rs::health::Presence {
            netdata_rs::health::Presence::Nobody
        }
    }

    const CHARTS: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let alarms = "template: looked\non: t.ctx\nlookup: average -5s unaligned of a,b\nevery: 1s\n\
        calc: $this + $a * 2 + $t.c1.b + $update_every\nwarn: $this > (($status >= $WARNING) ? (1e6) : (2e6))\n\
        crit: $this > 3e6 || abs($looked) > 1e9\n\
        template: sorted\non: t.ctx\nlookup: median -5s unaligned percentage of a\nevery: 1s\nwarn: $this > 1000\n";
    fs::write(dir.path().join("a.conf"), alarms).unwrap();
    let clock = Clock::manual(UnixMicros(T0 * 1_000_000));
    let settings = HostSettings { health_enabled: true, ..HostSettings::default() };
    let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
    let info = HostInfo::named("machine");
    let host = Host::new(MachineGuid::random(), HostKind::Local, info, engine, settings);
    let charts: Vec<_> = (0..CHARTS)
        .map(|n| {
            let id = format!("t.c{n}");
            let spec = ChartSpec { id: &id, context: "t.ctx", ..ChartSpec::default() };
            let chart = host.define_chart(&spec).unwrap();
            for dim in ["a", "b", "c"] {
                let dim = DimensionSpec::plain(dim, Algorithm::Absolute, 1, 1);
                chart.define_dimension(&dim).unwrap();
            }
            chart
        })
        .collect();
    let options = Options {
        enabled: true,
        user_dir: dir.path().to_owned(),
        stock_dir: None,
        script: "/bin/true".into(),
        silencers_file: dir.path().join("silencers.json"),
        repeat: Repeat::default(),
        log_shown: 1000,
        log_kept: 2000,
        run_every: 1,
        hibernation: 60,
        log_dir: dir.path().to_owned(),
        config_dir: dir.path().to_owned(),
    };
    let log = Arc::new(Log::open(dir.path()).unwrap());
    let stop = StopToken::new();
    let (notifier, thread) =
        Notifier::start(Arc::clone(&log), clock.clone(), stop.clone()).unwrap();
    let hosts = Hosts::new(Arc::clone(&host));
    let health = Health::new(options, hosts, clock.clone(), log, notifier, Box::new(Alone));
    let tick = || {
        clock.advance(1_000_000);
        for chart in &charts {
            let values = [1, 2, 3].map(|n| Staged { dim: n - 1, value: i64::from(n) });
            chart.complete(&values, SinceLast::Clock, clock.now());
        }
        let before = allocations();
        health.tick(clock.now_seconds().0, false);
        allocations() - before
    };
    (0..20).for_each(|_| {
        tick();
    });
    let evaluated = health.watched(&host).unwrap().show(|alarms, _| {
        let now = clock.now_seconds().0;
        alarms.alarms.iter().filter(|alarm| alarm.state.last_updated == now).count()
    });
    assert_eq!(evaluated, 2 * CHARTS);
    let most = (0..50).map(|_| tick()).max().unwrap();
    // The list of hosts, whatever the number of alarms.
    assert!(most <= 2, "{most} allocations in a second with {evaluated} alarms");
    stop.stop();
    thread.join().unwrap();
}
