//! What lines do, by origin; and that the two ways of reading a line agree.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::base::ids::MachineGuid;
use crate::base::stats::STATS;
use crate::base::time::Clock;
use crate::ingest::functions::CallWriter;
use crate::metrics::{
    Algorithm, Chart, FunctionAnswer, FunctionCall, HostInfo, HostKind, HostSettings,
};
use crate::storage::Mode;
use crate::storage::ring::RingEngine;

const T0: i64 = 1_700_000_000;
const NOW: UnixMicros = UnixMicros(T0 * 1_000_000 + 250_000);

fn host() -> Arc<Host> {
    let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
    let guid: MachineGuid = "11111111-2222-3333-4444-555555555555".parse().unwrap();
    Host::new(guid, HostKind::Local, HostInfo::named("h"), engine, HostSettings::default())
}

fn plugin() -> Executor {
    let host = host();
    let nodes = Some(Arc::new(Nodes {
        hosts: Hosts::new(Arc::clone(&host)),
        engine: Box::new(|_| Arc::new(RingEngine::in_memory(Mode::Ram, 3600))),
        created: Box::new(|host| assert_eq!(host.kind(), HostKind::Virtual)),
    }));
    Executor::new(Setup { nodes, plugin: "my.plugin".to_owned(), ..Setup::new(host) })
}

const OLD: Capabilities = Capabilities::CLABELS.union(Capabilities::HLABELS);

fn new_form() -> Capabilities {
    OLD | Capabilities::INTERPOLATED
        | Capabilities::IEEE754
        | Capabilities::SLOTS
        | Capabilities::PATHS
}

fn stream(caps: Capabilities) -> Executor {
    Executor::new(Setup { origin: Origin::Stream(caps), ..Setup::new(host()) })
}

#[track_caller]
fn feed(executor: &mut Executor, lines: &str) {
    for line in lines.split('\n') {
        executor.feed(line.as_bytes(), NOW).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

/// The last of `lines` must be the violation of that text; those before it are fine.
#[track_caller]
fn refuse(executor: &mut Executor, lines: &str, message: &str) -> Verdict {
    let (before, last) = lines.rsplit_once('\n').unwrap_or(("", lines));
    feed(executor, before);
    let violation = executor.feed(last.as_bytes(), NOW).unwrap_err();
    assert_eq!(violation.to_string(), message);
    violation.verdict()
}

#[track_caller]
fn chart(executor: &Executor, id: &str) -> Arc<Chart> {
    executor.host().chart(id).unwrap_or_else(|| panic!("no chart {id}"))
}

fn stored(chart: &Chart, dim: &str) -> Vec<(i64, Option<f64>)> {
    let reader = Arc::clone(&chart.lock().dimension(dim).unwrap().reader);
    let mut seen = Vec::new();
    reader.read(UnixSeconds(0), UnixSeconds(T0 * 2), &mut |at, sample| {
        seen.push((at.0 - T0, sample.value()));
    });
    seen
}

#[test]
fn a_chart_line_says_everything_by_position() {
    let mut e = plugin();
    feed(
        &mut e,
        "CHART words.full 'the name' \"a 'title', with = inside\" 'k B/s' \"fam ily\" some.context stacked 777 3 detail other.plugin 'mod ule'",
    );
    let full = chart(&e, "words.full");
    let state = full.lock();
    let m = &state.meta;
    assert_eq!((&*m.name, &*m.title), ("words.the_name", "a 'title', with = inside"));
    assert_eq!((&*m.units, &*m.family, &*m.context), ("k B/s", "fam ily", "some.context"));
    assert_eq!((m.chart_type.name(), m.priority, m.update_every.seconds()), ("stacked", 777, 3));
    assert_eq!((&*m.plugin, &*m.module), ("other.plugin", "mod ule"));
    drop(state);

    feed(&mut e, "CHART=words.bare");
    let bare = chart(&e, "words.bare");
    let m = bare.lock().meta.clone();
    assert_eq!((&*m.name, &*m.title, &*m.units), ("words.bare", "", "unknown"));
    assert_eq!((&*m.family, &*m.context, &*m.plugin), ("words", "words.bare", "my.plugin"));
    assert_eq!((m.priority, m.update_every.seconds()), (1000, 1));

    feed(&mut e, "  CHART words.null NULL '' '' '' '' area not-a-number -5");
    let m = chart(&e, "words.null").lock().meta.clone();
    assert_eq!((&*m.units, m.priority, m.update_every.seconds()), ("", 0, 1));
}

#[test]
fn text_is_made_safe_to_show() {
    let mut e = plugin();
    feed(&mut e, "CHART t.a '' 'say \"hi\\there\x01'");
    assert_eq!(&*chart(&e, "t.a").lock().meta.title, "say 'hi/there ");
}

#[test]
fn dimensions_have_c_numbers_and_words_in_one() {
    let mut e = plugin();
    feed(&mut e, "CHART t.a\nDIMENSION d 'the d' incremental -0x10 0 hidden,noreset");
    let chart = chart(&e, "t.a");
    let state = chart.lock();
    let dim = state.dimension("d").unwrap();
    assert_eq!((&*dim.name, dim.algorithm), ("the d", Algorithm::Incremental));
    assert_eq!((dim.multiplier, dim.divisor, dim.is_hidden()), (-16, 1, true));
}

#[test]
fn values_wait_for_their_end_whatever_comes_between() {
    let mut e = plugin();
    feed(&mut e, "CHART t.a\nDIMENSION x\nDIMENSION y\nCHART t.b\nDIMENSION x");
    for second in 0..4 {
        let now = NOW + second * 1_000_000;
        for line in [
            "BEGIN t.a",
            "SET y = 7",
            "FLUSH",
            "BEGIN t.b 0",
            "SET x 1",
            "BEGIN t.a",
            "SET 'x' = 0x10",
            "END now",
        ] {
            e.feed(line.as_bytes(), now).unwrap();
        }
    }
    assert_eq!(stored(&chart(&e, "t.a"), "y").last(), Some(&(3, Some(7.0))));
    assert_eq!(stored(&chart(&e, "t.a"), "x").last(), Some(&(3, Some(16.0))));
    assert_eq!(e.completed(), 4);
}

#[test]
fn an_empty_value_is_no_update() {
    let mut e = plugin();
    feed(&mut e, "CHART t.a\nDIMENSION x\nBEGIN t.a\nSET x = \nSET x ''\nSET x");
    assert!(e.staged.is_empty());
    feed(&mut e, "SET x = word\nSET x = 12.75\nSET x = 010\nSET x = -010");
    assert_eq!(e.staged.iter().map(|s| s.value).collect::<Vec<_>>(), [0, 12, 8, -8]);
}

#[test]
fn a_plugin_is_disabled_by_what_makes_no_sense() {
    let host = "'host:h'";
    for (lines, message) in [
        ("CHART noid", format!("{host} requested a CHART, without a type.id. Disabling it.")),
        ("CHART a.", format!("{host} requested a CHART, without a type.id. Disabling it.")),
        (
            "DIMENSION a",
            "command DIMENSION requires a chart defined via command CHART, but is not set."
                .to_owned(),
        ),
        (
            "CHART t.a\nDIMENSION",
            "'host:h/chart:t.a' got a DIMENSION, without an id. Disabling it.".to_owned(),
        ),
        ("BEGIN t.none", "'host:h/chart:t.none' got a BEGIN but chart does not exist.".to_owned()),
        ("BEGIN", format!("{host} got a BEGIN without a chart id. Disabling it.")),
        (
            "SET a = 1",
            "command SET requires a chart defined via command BEGIN, but is not set.".to_owned(),
        ),
        (
            "CHART t.a\nBEGIN t.a\nSET zzz = 1",
            "'host:h/chart:t.a/dim:zzz' got a SET but dimension does not exist.".to_owned(),
        ),
        (
            "CHART t.a\nEND\nEND",
            "command END requires a chart defined via command BEGIN, but is not set.".to_owned(),
        ),
        ("VARIABLE", format!("{host} got a VARIABLE without a name. Disabling it.")),
        (
            "VARIABLE CHART a 1",
            "command VARIABLE CHART requires a chart defined via command CHART, but is not set."
                .to_owned(),
        ),
        ("LABEL a 1", format!("{host} got a LABEL with words missing. Disabling it.")),
        (
            "CLABEL a b 1",
            "command CLABEL requires a chart defined via command CHART, but is not set.".to_owned(),
        ),
        ("CHART t.a\nCLABEL a b", format!("{host} got a CLABEL with words missing. Disabling it.")),
        (
            "CHART t.a\nCLABEL_COMMIT",
            format!("{host} got a CLABEL_COMMIT without a CLABEL before it. Disabling it."),
        ),
        ("DISABLE", "plugin called DISABLE. Disabling it.".to_owned()),
        (
            "HOST_DEFINE x y",
            format!("{host} got a HOST_DEFINE without a valid machine guid. Disabling it."),
        ),
        (
            "HOST_LABEL x y",
            format!("{host} got a HOST_LABEL without a HOST_DEFINE before it. Disabling it."),
        ),
    ] {
        assert_eq!(refuse(&mut plugin(), lines, &message), Verdict::Disable, "{lines}");
    }
}

#[test]
fn a_plugin_is_only_stopped_by_what_it_may_get_right_next_time() {
    let unknown =
        |word: &str| format!("sent command '{word}' which is not known by netdata, for host 'h'.");
    for (lines, message) in [
        ("# comment", unknown("#")),
        ("BEGIN2 t.a 1 2 3", unknown("BEGIN2")),
        ("CLAIMED_ID a b", unknown("CLAIMED_ID")),
        ("RBEGIN t.a", unknown("RBEGIN")),
        ("EXIT", "plugin called EXIT. Stopping it.".to_owned()),
        (
            "FUNCTION name 5",
            "'host:h' got a FUNCTION without name, timeout or help. Stopping it.".to_owned(),
        ),
    ] {
        assert_eq!(refuse(&mut plugin(), lines, &message), Verdict::Stop, "{lines}");
    }
}

#[test]
fn lines_that_mean_nothing_are_no_harm() {
    feed(
        &mut plugin(),
        "\n   \n\t\nVARIABLE HOST a\nVARIABLE HOST a zz\nVARIABLE HOST a 1x\nFUNCTION_RESULT_BEGIN\nBEGIN nonsense\nFUNCTION_RESULT_END\nCONFIG id status running\nPLUGIN_KEEPALIVE\nDYNCFG_RESET\nOVERWRITE labels\nFLUSH",
    );
}

#[test]
fn variables_belong_to_the_chart_in_scope_or_to_the_host() {
    let mut e = plugin();
    feed(
        &mut e,
        "VARIABLE early = 1\nCHART t.a\nVARIABLE here 2.5\nVARIABLE HOST there = -3\nVARIABLE LOCAL hex = 0x10",
    );
    let variables = |list: &[(Arc<str>, f64)]| {
        list.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(variables(&e.host().variables()), ["early=1", "there=-3"]);
    assert_eq!(variables(&chart(&e, "t.a").lock().variables), ["here=2.5", "hex=0"]);
}

#[test]
fn host_labels_count_from_their_overwrite_on() {
    let mut e = stream(OLD);
    feed(
        &mut e,
        "LABEL \"a\" = 1 \"b c\"\nLABEL big = 2147483649 x\nLABEL old = 2 one two three\nOVERWRITE labels\nLABEL late = 1 x",
    );
    let labels = e.host().labels();
    let all: Vec<_> =
        labels.iter().map(|l| format!("{}={}/{}", l.name, l.value, l.source.0)).collect();
    assert_eq!(all, ["a=b c/1", "big=x/1", "old=one two three/2"]);
}

#[test]
fn chart_labels_are_replaced_by_their_commit() {
    let mut e = plugin();
    feed(
        &mut e,
        "CHART t.a\nCLABEL old gone 1\nCLABEL_COMMIT\nCLABEL new here 536870913\nCLABEL_COMMIT",
    );
    let chart = chart(&e, "t.a");
    let names = |state: &crate::metrics::ChartState| {
        state.labels.iter().map(|l| l.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&chart.lock()), ["_collect_plugin", "_collect_module", "new"]);
    let version = chart.lock().version;
    feed(&mut e, "CLABEL new here 1\nCLABEL_COMMIT");
    assert_eq!(chart.lock().version, version, "the same labels again are no change");
}

#[test]
fn a_claim_must_be_this_hosts() {
    let mut e = stream(OLD);
    let claim = "aaaaaaaa-2222-3333-4444-555555555555";
    feed(&mut e, &format!("CLAIMED_ID 11111111-2222-3333-4444-555555555555 {claim}"));
    feed(&mut e, "CLAIMED_ID 99999999-2222-3333-4444-555555555555 NULL");
    feed(&mut e, "CLAIMED_ID '11111111-2222-3333-4444-555555555555' NULL");
    assert_eq!(e.host().info().claim_id.as_deref(), Some(claim));
    refuse(
        &mut e,
        "CLAIMED_ID xx yy",
        "'host:h' got a CLAIMED_ID with an invalid machine guid. Disabling it.",
    );
}

#[test]
fn streams_know_only_what_was_agreed() {
    for word in ["BEGIN2 t.a 1 2 3", "HOST_DEFINE a b", "EXIT", "JSON X", "RBEGIN t.a", "chart t.a"]
    {
        let keyword = word.split(' ').next().unwrap();
        refuse(
            &mut stream(OLD),
            word,
            &format!("sent command '{keyword}' which is not known by netdata, for host 'h'."),
        );
    }
    feed(&mut stream(OLD), "CHART t.a\nFLUSH\nOVERWRITE labels");
    feed(&mut stream(new_form()), "JSON X\nBEGIN\nJSON_PAYLOAD_END\n");
}

#[test]
fn points_are_stored_as_given() {
    let mut e = stream(new_form() - Capabilities::SLOTS);
    let t = T0 + 10;
    feed(
        &mut e,
        &format!(
            "CHART t.a\nDIMENSION x\nDIMENSION y\nBEGIN2 't.a' 1 {t} #\nSET2 'x' 7 # A\nSET2 'y' #B 1.5 AR\nEND2\nBEGIN2 t.a 0x1 {:#x} {}\nSET2 x 8 @D/4AAAAAAAA A\nSET2 'y' 1 1 E\nEND2",
            t + 1,
            t + 3
        ),
    );
    assert_eq!(stored(&chart(&e, "t.a"), "x"), [(10, Some(7.0)), (11, Some(1.5))]);
    assert_eq!(stored(&chart(&e, "t.a"), "y"), [(10, Some(1.5)), (11, None)]);
}

#[test]
fn slots_lead_to_their_chart_and_dimension_whatever_the_id_says() {
    let mut e = stream(new_form());
    feed(
        &mut e,
        "CHART SLOT:5 t.five\nDIMENSION SLOT:1 a\nDIMENSION SLOT:2 b\nCHART SLOT:#900 t.far\nDIMENSION SLOT:1 a",
    );
    let point = |executor: &mut Executor, at: i64, lines: &str| {
        let t = T0 + at;
        feed(executor, &lines.replace("AT", &t.to_string()));
    };
    for at in 1..4 {
        point(
            &mut e,
            at,
            "BEGIN2 SLOT:#900 'other' 1 AT #\nSET2 SLOT:1 'zz' 1 9 A\nEND2\nBEGIN2 SLOT:5 't.five' 1 AT #\nSET2 SLOT:2 'b' 1 2 A\nSET2 SLOT:1 'a' 1 1 A\nEND2",
        );
    }
    assert_eq!(stored(&chart(&e, "t.five"), "b").last(), Some(&(3, Some(2.0))));
    assert_eq!(stored(&chart(&e, "t.far"), "a").last(), Some(&(3, Some(9.0))));
    // A freed slot goes to another chart.
    point(
        &mut e,
        4,
        "CHART SLOT:5 t.five '' t u f c line 1 1 obsolete\nCHART SLOT:5 t.heir\nDIMENSION SLOT:1 z\nBEGIN2 SLOT:5 't.heir' 1 AT #\nSET2 SLOT:1 'z' 1 7 A\nEND2",
    );
    assert_eq!(stored(&chart(&e, "t.heir"), "z"), [(4, Some(7.0))]);
    assert_eq!(stored(&chart(&e, "t.five"), "a").last(), Some(&(3, Some(1.0))));
    refuse(
        &mut e,
        "BEGIN2 SLOT:5 't.heir' 1 1700000005 #\nSET2 SLOT:9 'z' 1 7 A",
        "'host:h/chart:t.heir/dim:z' got a SET2 but dimension does not exist.",
    );
    refuse(
        &mut e,
        "CHART SLOT:99999999999 t.x",
        "'host:h' got a CHART with a slot too large. Disabling it.",
    );
}

#[test]
fn new_form_lines_with_words_missing_end_the_stream() {
    let define = "CHART t.a\nDIMENSION x\n";
    for (line, command) in
        [("BEGIN2 t.a 1", "BEGIN2"), ("BEGIN2 t.a 1 1700000000 #\nSET2 x 1", "SET2")]
    {
        let message = format!("'host:h' got a {command} with words missing. Disabling it.");
        refuse(&mut stream(new_form()), &format!("{define}{line}"), &message);
    }
    feed(&mut stream(new_form()), &format!("{define}SET2 x 1 1 A\nSET x 1"));
}

#[test]
fn a_retired_chart_is_looked_up_again() {
    let mut e = plugin();
    feed(&mut e, "CHART t.a\nDIMENSION x\nDIMENSION y\nBEGIN t.a\nSET y 1\nEND");
    e.host().retire_charts(&|chart, _| **chart.id() == *"t.a");
    let host = Arc::clone(e.host());
    let spec = crate::metrics::ChartSpec { id: "t.a", ..Default::default() };
    let again = host.define_chart(&spec).unwrap();
    again
        .define_dimension(&crate::metrics::DimensionSpec::plain("y", Algorithm::Absolute, 1, 1))
        .unwrap();
    feed(&mut e, "BEGIN t.a\nSET y 1\nEND");
    assert_eq!(again.lock().dimension("y").unwrap().collections, 1);
    host.retire_charts(&|chart, _| **chart.id() == *"t.a");
    refuse(&mut e, "BEGIN t.a", "'host:h/chart:t.a' got a BEGIN but chart does not exist.");
}

#[test]
fn older_slots_of_another_interval_are_counted_not_stored() {
    let mut e = stream(new_form() | Capabilities::REPLICATION);
    feed(&mut e, "CHART t.a\nDIMENSION x\nBEGIN2 t.a 1 1700000100 #\nSET2 x 1 # A\nEND2");
    let before = STATS.streams.past_foreign.load(Ordering::Relaxed);
    let slot = "RBEGIN '' 1700000000 1700000005 1700000101\nRSET x 7 A\n";
    let end = "REND 1 1 1700000100 false 1700000000 1700000005 1700000101";
    feed(&mut e, &format!("RBEGIN t.a\n{slot}{end}"));
    assert!(STATS.streams.past_foreign.load(Ordering::Relaxed) > before);
    let (first, _) = e.host().chart("t.a").unwrap().lock().held();
    assert_eq!(first.0, 1_700_000_099);
}

#[test]
fn a_block_about_what_is_gone_is_skipped_between_nodes_of_ours() {
    let block = "RBEGIN 't.gone'\nRBEGIN '' 10 11 20\nRSET 'x' 1 'A'\nREND 1 1 1 false 1 11 20\n";
    let replication = new_form() | Capabilities::REPLICATION;
    let mut others = stream(replication);
    refuse(
        &mut others,
        "RBEGIN 't.gone'",
        "'host:h/chart:t.gone' got a RBEGIN but chart does not exist.",
    );
    let mut ours = stream(replication | Capabilities::SPANS);
    feed(&mut ours, block);
    feed(&mut ours, "CHART 't.a' '' '' '' '' '' '' 1 1\nDIMENSION 'y'\n");
    feed(&mut ours, "RBEGIN 't.a'\nRBEGIN '' 10 11 20\nRSET 'x' 1 'A'\nRSET 'y' 2 'A'\n");
    feed(&mut ours, "REND 1 1 1 false 1 11 20\n");
    assert_eq!(stored(&chart(&ours, "t.a"), "y"), [(11 - T0, Some(2.0))]);
}

#[test]
fn virtual_nodes_have_their_own_charts() {
    let mut e = plugin();
    let guid = "aaaaaaaa-0000-4000-8000-00000000ffff";
    feed(
        &mut e,
        &format!(
            "CHART t.local\nHOST_DEFINE {guid} 'my router'\nHOST_LABEL site 'the roof'\nHOST_DEFINE_END\nCHART t.node\nDIMENSION x\nHOST localhost\nCHART t.more\nHOST {guid}\nBEGIN t.node\nSET x 1\nEND\nHOST"
        ),
    );
    assert!(e.host().kind() == HostKind::Local && e.host().chart("t.more").is_some());
    let nodes = e.nodes.clone().unwrap();
    let node = nodes.hosts.by_guid(guid.parse().unwrap()).unwrap();
    assert_eq!((node.kind(), &*node.hostname()), (HostKind::Virtual, "my router"));
    assert_eq!(node.labels().get("site"), Some("the roof"));
    assert!(node.chart("t.node").is_some() && e.host().chart("t.node").is_none());
    refuse(
        &mut e,
        "HOST bbbbbbbb-0000-4000-8000-00000000ffff",
        "'host:h' got a HOST of a node that was not defined. Disabling it.",
    );
}

struct Sink(Mutex<Sender<String>>);

impl CallWriter for Sink {
    fn send(&self, transaction: &str, _timeout: Duration, _command: &str) -> bool {
        self.0.lock().send(transaction.to_owned()).is_ok()
    }

    fn wake(&self) {}
}

#[test]
fn a_function_is_announced_called_and_answered() {
    let (requests, sent) = channel();
    let calls = Calls::new(Box::new(Sink(Mutex::new(requests))), Clock::manual(NOW));
    let mut e = Executor::new(Setup { calls: Some(calls), ..Setup::new(host()) });
    feed(
        &mut e,
        "CHART t.a\nFUNCTION \"top\" 5 \"what runs\"\nFUNCTION GLOBAL 'all' 0 'help' tag 0x8 7 1",
    );
    let functions = e.host().functions();
    assert_eq!(functions[0].chart.as_deref(), Some("t.a"));
    assert_eq!((&*functions[0].help, functions[0].timeout.as_secs()), ("what runs", 5));
    assert_eq!((functions[1].chart.as_deref(), functions[1].timeout.as_secs()), (None, 10));
    assert_eq!((functions[1].access, functions[1].priority, functions[1].version), (8, 7, 1));

    let (tx, rx) = channel::<FunctionAnswer>();
    functions[0].provider.call(FunctionCall {
        command: "top 3".to_owned(),
        timeout: Duration::from_secs(5),
        answer: Box::new(move |answer| tx.send(answer).unwrap()),
        progress: None,
    });
    let transaction = sent.recv().unwrap();
    feed(
        &mut e,
        &format!(
            "FUNCTION_RESULT_BEGIN \"{transaction}\" 200 \"text/plain\" 0\nBEGIN not a command\n\nline two\nFUNCTION_RESULT_END\nCHART t.b"
        ),
    );
    let answer = rx.recv().unwrap();
    assert_eq!((answer.code, &*answer.content_type), (200, "text/plain"));
    assert_eq!(answer.body, b"BEGIN not a command\n\nline two");
    feed(&mut e, "FUNCTION_RESULT_BEGIN nobody 200 x 0\nCHART\nFUNCTION_RESULT_END\nCHART t.c");
}

#[test]
fn bodies_are_bounded() {
    let mut e = stream(new_form());
    feed(&mut e, "JSON STREAM_PATH");
    let line = [b'x'; 15_000];
    let error = (0..1000).find_map(|_| e.feed(&line, NOW).err()).unwrap();
    assert!(error.to_string().starts_with("'host:h' got a JSON body of more than 1048576 bytes"));
}

// --- both ways of reading a line -------------------------------------------------------------------

#[derive(Debug, PartialEq)]
struct Scope {
    chart: u32,
    since_us: i64,
    staged: Vec<(u32, i64)>,
    in_point: bool,
    end: i64,
    every: i64,
    point: Vec<(u32, i64, u64, bool, bool)>,
    completed: u64,
    replayed: u32,
    replay: Option<(i64, i64, bool)>,
}

fn scope(e: &Executor) -> Scope {
    let point = |p: &PointValue| {
        let bits = if p.value.is_nan() { 0 } else { p.value.to_bits() };
        (p.dim, p.collected, bits, p.flags.anomalous, p.flags.reset)
    };
    Scope {
        chart: e.chart,
        since_us: e.since_us,
        staged: e.staged.iter().map(|s| (s.dim, s.value)).collect(),
        in_point: e.in_point,
        end: e.point_end.0,
        every: e.point_every.seconds(),
        point: e.point.iter().map(point).collect(),
        completed: e.completed,
        replayed: e.replay_slots,
        replay: e.replay.map(|block| (block.end.0, block.every.seconds(), block.impossible)),
    }
}

const DEFINITIONS: &str = "CHART SLOT:1 t.a\nDIMENSION SLOT:1 x\nDIMENSION SLOT:2 'a b'\nDIMENSION SLOT:3 \"it's\"\nDIMENSION SLOT:4 y\\z\nCHART SLOT:2 't.b c'\nDIMENSION SLOT:1 x\nDIMENSION SLOT:7 SLOT:1\nFLUSH";

fn word() -> impl Strategy<Value = String> {
    let ids = ["x", "a b", "it's", "y\\z", "SLOT:1", "t.a", "t.b c", "t.none", "q"];
    let id = proptest::sample::select(ids.to_vec()).prop_map(str::to_owned);
    let quote = proptest::sample::select(vec!["", "'", "\""]);
    let quoted =
        (quote.clone(), id, quote).prop_map(|(open, id, close)| format!("{open}{id}{close}"));
    prop_oneof![
        6 => quoted,
        3 => "SLOT:[#0-9A-Dx]{1,3}",
        3 => "-?[0-9]{1,20}",
        1 => "-?[0-9]{1,3}\\.[0-9]{1,3}(e-?[0-9])?",
        2 => "-?#[A-Za-z0-9+/]{0,12}",
        1 => "-?0x[0-9A-Fa-f]{0,17}",
        2 => "@[A-Za-z0-9+/]{0,12}",
        3 => "#|''|A|AR|R|E|nan|null",
        1 => Just("1700000000".to_owned()),
        1 => "[ -~\t\x0b]{0,4}",
    ]
}

fn line() -> impl Strategy<Value = String> {
    let keyword = proptest::sample::select(vec![
        "SET", "SET", "SET2", "SET2", "BEGIN", "BEGIN2", "BEGIN2", "END", "END2", "FLUSH",
        "RBEGIN", "RSET", "REND",
    ]);
    let gap = proptest::sample::select(vec![" ", " ", " ", " ", " = ", "=", "\t", "  ", "", "\r"]);
    let words = proptest::collection::vec((gap.clone(), word()), 0..6);
    prop_oneof![
        4 => (keyword, words, gap).prop_map(|(keyword, words, last)| {
            let mut line = keyword.to_owned();
            for (gap, word) in words {
                line += gap;
                line += &word;
            }
            line + last.trim_matches(' ')
        }),
        2 => ("'t.a'|'t.b c'|t.a|SLOT:1 't.a'|SLOT:2 'zz'", "1|#B|0x1|0", "1700000[0-9]{3}|#BlU/[A-Z]{2}", "#|5|#A")
            .prop_map(|(id, every, end, wall)| format!("BEGIN2 {id} {every} {end} {wall}")),
        4 => ("x|'x'|'a b'|SLOT:1 'x'|SLOT:2 'q'|SLOT:7 'SLOT:1'", "-?[0-9]{1,4}|-?#[A-Z]{1,3}", "#|@[A-Z]{8,11}|-?[0-9]{1,3}\\.[0-9]{1,3}|nan", "A|''|AR|E|R|X|\"A\"")
            .prop_map(|(id, collected, value, flags)| format!("SET2 {id} {collected} {value} {flags}")),
        2 => ("t.a|\"t.a\"|'t.b c'|SLOT:1 t.a", "").prop_map(|(id, _)| format!("RBEGIN {id}")),
        3 => ("|SLOT:1 |SLOT:#B |SLOT:#BCDE |SLOT:# ", "''|\"\"|'x'", "1700000[0-9]{3}|#BlU/[A-Z]{2}|0", "1700000[0-9]{3}|#BlU/[A-Z]{2}|0", "1700000[0-9]{3}|#BlU/[A-Z]{2}|0|x")
            .prop_map(|(slot, id, start, end, wall)| format!("RBEGIN {slot}{id} {start} {end} {wall}")),
        4 => ("x|\"x\"|'a b'|SLOT:1 'x'|SLOT:2 \"q\"|SLOT:7 'SLOT:1'", "@[A-Z]{8,11}|-?[0-9]{1,3}\\.[0-9]{1,3}|nan|NAN", "\"A\"|\"\"|\"AR\"|\"E\"|\"R\"|X|A|''")
            .prop_map(|(id, value, flags)| format!("RSET {id} {value} {flags}")),
        2 => ("t.a|\"t.a\"|'t.b c'|SLOT:1 t.a", "| [0-9]{1,16}| abc| -5").prop_map(|(id, us)| format!("BEGIN {id}{us}")),
        4 => ("x|'x'|\"a b\"|'y\\\\z'|\"it's\"|SLOT:2 q", " = |=| ", "-?[0-9]{1,5}|0[0-9]{1,3}|-?#[A-Z]{2}|")
            .prop_map(|(id, is, value)| format!("SET {id}{is}{value}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_fast_way_gives_what_the_general_one_gives(lines in proptest::collection::vec(line(), 1..30), form in 0..4usize) {
        let past = new_form() | Capabilities::REPLICATION;
        let caps = [OLD, new_form(), new_form() - Capabilities::SLOTS, past][form];
        let (mut fast, mut slow) = (stream(caps), stream(caps));
        if caps.contains(Capabilities::SLOTS) {
            feed(&mut fast, DEFINITIONS);
            feed(&mut slow, DEFINITIONS);
        } else {
            let plain = DEFINITIONS.replace("SLOT:1 ", "").replace("SLOT:2 ", "").replace("SLOT:3 ", "").replace("SLOT:4 ", "").replace("SLOT:7 ", "");
            feed(&mut fast, &plain);
            feed(&mut slow, &plain);
        }
        for line in &lines {
            // Twice, and the second time in the way that is most likely quick: what was learned must mean the same.
            for _ in 0..2 {
                let (f, s) = (fast.feed(line.as_bytes(), NOW), slow.feed_slow(line.as_bytes(), NOW));
                prop_assert_eq!(f, s, "{:?}", line);
                prop_assert_eq!(scope(&fast), scope(&slow), "{:?}", line);
            }
        }
    }

    #[test]
    fn chunks_give_what_lines_give(
        lines in proptest::collection::vec(prop_oneof![line(), Just("JSON X".to_owned()), Just("JSON_PAYLOAD_END".to_owned())], 1..30),
        sizes in proptest::collection::vec(1usize..200, 1..20),
    ) {
        let (mut whole, mut cut) = (stream(new_form()), stream(new_form()));
        feed(&mut whole, DEFINITIONS);
        feed(&mut cut, DEFINITIONS);
        let lines: Vec<_> = lines.iter().filter(|line| !line.contains('\n')).collect();
        let by_line = lines.iter().find_map(|line| whole.feed_slow(line.as_bytes(), NOW).err());
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (mut left, mut buffer, mut by_chunk) = (text.as_bytes(), Lines::new(), None);
        for size in sizes.iter().cycle() {
            let (chunk, rest) = left.split_at((*size).min(left.len()));
            by_chunk = cut.feed_chunk(&mut buffer, chunk, NOW).err();
            left = rest;
            if left.is_empty() || by_chunk.is_some() {
                break;
            }
        }
        prop_assert_eq!(by_line, by_chunk);
        prop_assert_eq!(scope(&whole), scope(&cut));
    }

    #[test]
    fn no_bytes_cause_a_panic(
        lines in proptest::collection::vec(prop_oneof![line().prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..60)], 0..20),
        from_plugin: bool,
    ) {
        let mut e = if from_plugin { plugin() } else { stream(new_form()) };
        feed(&mut e, "CHART t.a\nDIMENSION x");
        for line in &lines {
            let _ = e.feed(line, NOW);
        }
    }

    #[test]
    fn no_words_of_any_command_cause_a_panic(
        keyword in proptest::sample::select(vec!["CHART", "DIMENSION", "CLABEL", "CLABEL_COMMIT", "VARIABLE", "LABEL", "OVERWRITE", "FUNCTION", "FUNCTION_RESULT_BEGIN", "HOST_DEFINE", "HOST_LABEL", "HOST_DEFINE_END", "HOST", "TRUST_DURATIONS", "CLAIMED_ID", "JSON", "FUNCTION_PROGRESS"]),
        words in proptest::collection::vec(word(), 0..15),
        from_plugin: bool,
    ) {
        let mut e = if from_plugin { plugin() } else { stream(new_form()) };
        feed(&mut e, "CHART t.a\nDIMENSION x");
        let _ = e.feed(format!("{keyword} {}", words.join(" ")).as_bytes(), NOW);
        let _ = e.feed(b"END", NOW);
    }
}

#[test]
fn what_a_child_holds_stays_known_where_nothing_is_kept() {
    let mut executor = stream(new_form() | Capabilities::REPLICATION);
    feed(&mut executor, "CHART a.b '' t u f c line 1 1\nDIMENSION x");
    let chart = executor.host().chart("a.b").unwrap();
    let held = || chart.lock().held();
    chart.lock().downstream = Some((UnixSeconds(T0 - 5), UnixSeconds(T0)));
    feed(&mut executor, &format!("RBEGIN a.b\nREND 1 0 0 true 0 0 {T0}"));
    assert_eq!(held(), (UnixSeconds(T0 - 5), UnixSeconds(T0)), "no span was asked for");
    feed(&mut executor, &format!("RBEGIN a.b\nREND 1 {} {T0} true {} {T0} {T0}", T0 - 9, T0 - 1));
    assert_eq!(held(), (UnixSeconds(T0 - 9), UnixSeconds(T0)));
}
