//! The lines of a stream, written: definitions, samples and host facts as a parent expects them (streaming
//! specification, section 4).
//!
//! Feeds the sender and its tap. Every function appends whole lines to the caller's buffer and allocates nothing once
//! that has grown. Text is made safe here and only here: no quote, line end or closing backslash of a value can break a
//! line, and no field can push one beyond what readers take. Never writes a word the [`Dialect`] does not know.

use super::caps::Capabilities;
use super::numbers::{
    Form, put_decimal, put_double, put_fixed7, put_integer, put_signed_decimal, put_unsigned,
};

/// Longest text of one field; the fields of a line together stay below 15 000 bytes.
const FIELD_MAX: usize = 1000;
/// Titles and help texts may be longer than ids.
const TITLE_MAX: usize = 4000;
/// The only field of its line.
const LONG_MAX: usize = 12_000;

/// How numbers and slots are written on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Integers of slots and of the new form.
    pub integers: Form,
    pub doubles: Form,
    pub slots: bool,
}

impl Dialect {
    pub fn of(agreed: Capabilities) -> Dialect {
        let base64 = agreed.contains(Capabilities::IEEE754);
        Dialect {
            integers: if base64 { Form::Base64 } else { Form::Hex },
            doubles: if base64 { Form::Base64 } else { Form::Decimal },
            slots: agreed.contains(Capabilities::SLOTS),
        }
    }
}

/// What stands in a `CHART` line.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChartLine<'a> {
    /// `type.id`.
    pub id: &'a str,
    /// The part of the name after its dot; empty if equal to the id's.
    pub name: &'a str,
    pub title: &'a str,
    pub units: &'a str,
    pub family: &'a str,
    pub context: &'a str,
    pub chart_type: &'a str,
    pub priority: i64,
    pub update_every: i64,
    pub obsolete: bool,
    pub detail: bool,
    pub store_first: bool,
    pub hidden: bool,
    pub plugin: &'a str,
    pub module: &'a str,
}

/// What stands in a `DIMENSION` line.
#[derive(Clone, Copy, Debug, Default)]
pub struct DimensionLine<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub algorithm: &'a str,
    pub multiplier: i64,
    pub divisor: i64,
    pub obsolete: bool,
    pub hidden: bool,
    pub noreset: bool,
}

/// What stands in a `FUNCTION` line.
#[derive(Clone, Copy, Debug, Default)]
pub struct FunctionLine<'a> {
    /// Of the whole host, not of the chart defined last.
    pub global: bool,
    pub name: &'a str,
    pub timeout: i64,
    pub help: &'a str,
    pub tags: &'a str,
    pub access: u32,
    pub priority: i64,
}

/// The flags word of a new-form value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointFlags {
    Empty,
    Stored { anomalous: bool, reset: bool },
}

impl PointFlags {
    fn word(self) -> &'static [u8] {
        match self {
            PointFlags::Empty => b"E",
            PointFlags::Stored { anomalous: false, reset: false } => b"A",
            PointFlags::Stored { anomalous: false, reset: true } => b"AR",
            PointFlags::Stored { anomalous: true, reset: true } => b"R",
            PointFlags::Stored { anomalous: true, reset: false } => b"''",
        }
    }
}

/// Appends `text` between two `quote`s, as the words of a reader give it back.
#[inline]
fn quoted(out: &mut Vec<u8>, quote: u8, text: &str, max: usize) {
    out.push(quote);
    safe(out, quote, text, max);
    out.push(quote);
}

#[inline]
fn safe(out: &mut Vec<u8>, quote: u8, text: &str, max: usize) {
    let text = if text.len() <= max { text } else { beginning(text, max) };
    let start = out.len();
    out.extend_from_slice(text.as_bytes());
    let plain = |byte: u8| byte >= b' ' && byte != quote && byte != b'\\';
    if !out[start..].iter().all(|byte| plain(*byte)) {
        make_safe(&mut out[start..], quote);
    }
}

#[cold]
fn beginning(text: &str, max: usize) -> &str {
    let end = (0..=max).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cold]
fn make_safe(text: &mut [u8], quote: u8) {
    let twin = if quote == b'"' { b'\'' } else { b'"' };
    for byte in text.iter_mut() {
        match *byte {
            0..b' ' => *byte = b' ',
            b if b == quote => *byte = twin,
            _ => {}
        }
    }
    // A backslash takes the meaning of what follows it, and what follows the last one is our closing quote.
    let closing = text.iter().rev().take_while(|byte| **byte == b'\\').count();
    if closing % 2 == 1 {
        text[text.len() - 1] = b'/';
    }
}

#[inline]
fn slot(out: &mut Vec<u8>, dialect: Dialect, slot: u32) {
    if dialect.slots {
        out.extend_from_slice(b" SLOT:");
        put_unsigned(out, u64::from(slot), dialect.integers);
    }
}

fn field(out: &mut Vec<u8>, text: &str) {
    out.push(b' ');
    quoted(out, b'"', text, FIELD_MAX);
}

fn flag(out: &mut Vec<u8>, set: bool, name: &[u8]) {
    if set {
        out.extend_from_slice(name);
    }
}

/// `CHART`: the definition that later lines add to.
pub fn chart(out: &mut Vec<u8>, dialect: Dialect, number: u32, line: &ChartLine<'_>) {
    out.extend_from_slice(b"CHART");
    slot(out, dialect, number);
    chart_words(out, line);
}

/// `ARCHIVED`: a chart that does not flow on this connection. Between nodes of ours.
pub fn archived(out: &mut Vec<u8>, line: &ChartLine<'_>) {
    out.extend_from_slice(b"ARCHIVED");
    chart_words(out, line);
}

fn chart_words(out: &mut Vec<u8>, line: &ChartLine<'_>) {
    field(out, line.id);
    field(out, line.name);
    out.push(b' ');
    quoted(out, b'"', line.title, TITLE_MAX);
    field(out, line.units);
    field(out, line.family);
    field(out, line.context);
    field(out, line.chart_type);
    out.push(b' ');
    put_signed_decimal(out, line.priority);
    out.push(b' ');
    put_signed_decimal(out, line.update_every);
    out.extend_from_slice(b" \"");
    flag(out, line.obsolete, b"obsolete");
    out.push(b' ');
    flag(out, line.detail, b"detail");
    out.push(b' ');
    flag(out, line.store_first, b"store_first");
    out.push(b' ');
    flag(out, line.hidden, b"hidden");
    out.push(b'"');
    field(out, line.plugin);
    field(out, line.module);
    out.push(b'\n');
}

/// `CLABEL`: one label of the chart; [`chart_labels_end`] follows the last.
pub fn chart_label(out: &mut Vec<u8>, name: &str, value: &str, source: u32) {
    out.extend_from_slice(b"CLABEL");
    field(out, name);
    field(out, value);
    out.push(b' ');
    put_decimal(out, u64::from(source));
    out.push(b'\n');
}

/// `CLABEL_COMMIT`; an error for the reader without a label before it.
pub fn chart_labels_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"CLABEL_COMMIT\n");
}

/// `DIMENSION` of the chart defined last.
pub fn dimension(out: &mut Vec<u8>, dialect: Dialect, number: u32, line: &DimensionLine<'_>) {
    out.extend_from_slice(b"DIMENSION");
    slot(out, dialect, number);
    dimension_words(out, line);
}

/// `ARCHIVED_DIM` of the chart that `ARCHIVED` named last.
pub fn archived_dimension(out: &mut Vec<u8>, line: &DimensionLine<'_>) {
    out.extend_from_slice(b"ARCHIVED_DIM");
    dimension_words(out, line);
}

fn dimension_words(out: &mut Vec<u8>, line: &DimensionLine<'_>) {
    field(out, line.id);
    field(out, line.name);
    field(out, line.algorithm);
    out.push(b' ');
    put_signed_decimal(out, line.multiplier);
    out.push(b' ');
    put_signed_decimal(out, line.divisor);
    out.extend_from_slice(b" \"");
    flag(out, line.obsolete, b"obsolete");
    out.push(b' ');
    flag(out, line.hidden, b"hidden");
    out.push(b' ');
    flag(out, line.noreset, b"noreset");
    out.extend_from_slice(b"\"\n");
}

/// `FUNCTION`: announces what can be called; the words after the help text are for 2.x, others ignore them.
pub fn function(out: &mut Vec<u8>, line: &FunctionLine<'_>) {
    out.extend_from_slice(if line.global { b"FUNCTION GLOBAL" } else { b"FUNCTION" });
    field(out, line.name);
    out.push(b' ');
    put_signed_decimal(out, line.timeout);
    out.push(b' ');
    quoted(out, b'"', line.help, TITLE_MAX);
    field(out, line.tags);
    out.push(b' ');
    put_unsigned(out, u64::from(line.access), Form::Hex);
    out.push(b' ');
    put_signed_decimal(out, line.priority);
    out.extend_from_slice(b" 0\n");
}

/// Whose variable it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Chart,
    Host,
}

/// `VARIABLE`: the name goes unquoted, so what would split it is replaced.
pub fn variable(out: &mut Vec<u8>, scope: Scope, name: &str, value: f64) {
    out.extend_from_slice(match scope {
        Scope::Chart => b"VARIABLE CHART ",
        Scope::Host => b"VARIABLE HOST ",
    });
    let start = out.len();
    safe(out, b'"', name, FIELD_MAX);
    for byte in &mut out[start..] {
        if matches!(*byte, b' ' | b'=' | b'\'' | b'"' | b'\\') {
            *byte = b'_';
        }
    }
    out.extend_from_slice(b" = ");
    put_fixed7(out, value);
    out.push(b'\n');
}

/// `BEGIN2`: opens one stored point of a chart.
#[inline]
pub fn begin2(
    out: &mut Vec<u8>,
    dialect: Dialect,
    number: u32,
    id: &str,
    every: i64,
    end: i64,
    wall: i64,
) {
    out.extend_from_slice(b"BEGIN2");
    slot(out, dialect, number);
    out.push(b' ');
    quoted(out, b'\'', id, FIELD_MAX);
    out.push(b' ');
    put_integer(out, every, dialect.integers);
    out.push(b' ');
    put_integer(out, end, dialect.integers);
    out.push(b' ');
    if wall == end {
        out.push(b'#');
    } else {
        put_integer(out, wall, dialect.integers);
    }
    out.push(b'\n');
}

/// `SET2`: one value of the point, as stored.
#[inline]
pub fn set2(
    out: &mut Vec<u8>,
    dialect: Dialect,
    number: u32,
    id: &str,
    collected: i64,
    value: f64,
    flags: PointFlags,
) {
    out.extend_from_slice(b"SET2");
    slot(out, dialect, number);
    out.push(b' ');
    quoted(out, b'\'', id, FIELD_MAX);
    out.push(b' ');
    put_integer(out, collected, dialect.integers);
    out.push(b' ');
    // Equal to the last bit, minus zero included, or it is spelled out.
    if (collected as f64).to_bits() == value.to_bits() {
        out.push(b'#');
    } else {
        put_double(out, value, dialect.doubles);
    }
    out.push(b' ');
    out.extend_from_slice(flags.word());
    out.push(b'\n');
}

#[inline]
pub fn end2(out: &mut Vec<u8>) {
    out.extend_from_slice(b"END2\n");
}

/// `BEGIN`: microseconds since the chart's last collection; 0 lets the parent use its own clock.
#[inline]
pub fn begin(out: &mut Vec<u8>, id: &str, micros: i64) {
    out.extend_from_slice(b"BEGIN ");
    quoted(out, b'"', id, FIELD_MAX);
    out.push(b' ');
    put_signed_decimal(out, micros);
    out.push(b'\n');
}

/// `SET`: one raw collected integer.
#[inline]
pub fn set(out: &mut Vec<u8>, id: &str, collected: i64) {
    out.extend_from_slice(b"SET ");
    quoted(out, b'"', id, FIELD_MAX);
    out.extend_from_slice(b" = ");
    put_signed_decimal(out, collected);
    out.push(b'\n');
}

#[inline]
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"END\n");
}

/// `CHART_DEFINITION_END`: the span of samples a parent may ask for, and our clock. Always decimal.
pub fn chart_definition_end(out: &mut Vec<u8>, first: i64, last: i64, wall: i64) {
    out.extend_from_slice(b"CHART_DEFINITION_END");
    for time in [first, last, wall] {
        out.push(b' ');
        put_signed_decimal(out, time);
    }
    out.push(b'\n');
}

/// `OFFER`: the span of samples of a chart that may be asked for, without any chart having to wait. Between nodes of ours.
pub fn offer(out: &mut Vec<u8>, id: &str, first: i64, last: i64, wall: i64) {
    out.extend_from_slice(b"OFFER ");
    quoted(out, b'"', id, FIELD_MAX);
    for time in [first, last, wall] {
        out.push(b' ');
        put_signed_decimal(out, time);
    }
    out.push(b'\n');
}

/// `DIGEST`: asks what a span comes to at the other end, of one dimension or of all. Between nodes of ours.
pub fn digest(out: &mut Vec<u8>, number: u64, id: &str, after: i64, before: i64, dim: &str) {
    out.extend_from_slice(b"DIGEST ");
    put_decimal(out, number);
    field(out, id);
    for time in [after, before] {
        out.push(b' ');
        put_signed_decimal(out, time);
    }
    field(out, dim);
    out.push(b'\n');
}

/// `DIGEST_IS`: the answer, by the question's number.
pub fn digest_is(out: &mut Vec<u8>, number: u64, samples: u64, sum: u64) {
    out.extend_from_slice(b"DIGEST_IS");
    for n in [number, samples, sum] {
        out.push(b' ');
        put_decimal(out, n);
    }
    out.push(b'\n');
}

/// `REPLAY_CHART`: asks a child for the samples with `after < time <= before`. Always decimal.
pub fn replay_chart(out: &mut Vec<u8>, id: &str, start: bool, after: i64, before: i64) {
    out.extend_from_slice(b"REPLAY_CHART ");
    quoted(out, b'"', id, FIELD_MAX);
    out.extend_from_slice(if start { b" \"true\" " } else { b" \"false\" " });
    put_signed_decimal(out, after);
    out.push(b' ');
    put_signed_decimal(out, before);
    out.push(b'\n');
}

/// Integers of replication lines: decimal where base64 was not agreed.
fn replay_integer(out: &mut Vec<u8>, n: i64, dialect: Dialect) {
    out.push(b' ');
    match dialect.integers {
        Form::Base64 => put_integer(out, n, Form::Base64),
        _ => put_signed_decimal(out, n),
    }
}

fn replay_slot(out: &mut Vec<u8>, dialect: Dialect, number: u32) {
    if dialect.slots {
        out.extend_from_slice(b" SLOT:");
        match dialect.integers {
            Form::Base64 => put_unsigned(out, u64::from(number), Form::Base64),
            _ => put_decimal(out, u64::from(number)),
        }
    }
}

fn replay_double(out: &mut Vec<u8>, n: f64, dialect: Dialect) {
    out.push(b' ');
    match dialect.doubles {
        Form::Base64 => put_double(out, n, Form::Base64),
        _ if n.is_nan() => out.extend_from_slice(b"nan"),
        _ => put_fixed7(out, n),
    }
}

/// `RBEGIN` with a chart: opens a block of replicated samples.
pub fn replay_begin(out: &mut Vec<u8>, dialect: Dialect, number: u32, id: &str) {
    out.extend_from_slice(b"RBEGIN");
    replay_slot(out, dialect, number);
    out.push(b' ');
    quoted(out, b'"', id, FIELD_MAX);
    out.push(b'\n');
}

/// `RBEGIN` with times: one slot of the block.
pub fn replay_point(
    out: &mut Vec<u8>,
    dialect: Dialect,
    number: u32,
    start: i64,
    end: i64,
    wall: i64,
) {
    out.extend_from_slice(b"RBEGIN");
    replay_slot(out, dialect, number);
    out.extend_from_slice(b" ''");
    for time in [start, end, wall] {
        replay_integer(out, time, dialect);
    }
    out.push(b'\n');
}

/// `RSET`: a dimension's final value in the slot.
pub fn replay_set(
    out: &mut Vec<u8>,
    dialect: Dialect,
    number: u32,
    id: &str,
    value: f64,
    flags: &str,
) {
    out.extend_from_slice(b"RSET");
    replay_slot(out, dialect, number);
    out.push(b' ');
    quoted(out, b'"', id, FIELD_MAX);
    replay_double(out, value, dialect);
    out.extend_from_slice(b" \"");
    out.extend_from_slice(flags.as_bytes());
    out.extend_from_slice(b"\"\n");
}

/// The beginnings of the `RSET` lines of a chart's dimensions, which are the same in every slot.
pub struct ReplayHeads {
    heads: Vec<Head>,
    dialect: Dialect,
}

struct Head {
    text: Vec<u8>,
    /// The text again where it is short, as most are: a copy of a length that is known costs little.
    short: [u8; 40],
}

impl ReplayHeads {
    pub fn of<'a>(dialect: Dialect, ids: impl Iterator<Item = &'a str>) -> ReplayHeads {
        let head = |(id, number): (&str, u32)| {
            let mut text = b"RSET".to_vec();
            replay_slot(&mut text, dialect, number);
            text.push(b' ');
            quoted(&mut text, b'"', id, FIELD_MAX);
            let mut short = [0; 40];
            if let Some(start) = short.get_mut(..text.len()) {
                start.copy_from_slice(&text);
            }
            Head { text, short }
        };
        ReplayHeads { heads: ids.zip(1u32..).map(head).collect(), dialect }
    }

    /// [`replay_set`] of the dimension that came as that one, counted from 0.
    #[inline]
    pub fn put(&self, out: &mut Vec<u8>, dimension: usize, value: f64, flags: ReplayFlags) {
        let Head { text, short } = &self.heads[dimension];
        if text.len() <= short.len() {
            out.extend_from_slice(short);
            out.truncate(out.len() - (short.len() - text.len()));
        } else {
            out.extend_from_slice(text);
        }
        replay_double(out, value, self.dialect);
        match flags {
            ReplayFlags::None => out.extend_from_slice(b" \"\"\n"),
            ReplayFlags::Normal => out.extend_from_slice(b" \"A\"\n"),
            ReplayFlags::NormalReset => out.extend_from_slice(b" \"AR\"\n"),
            ReplayFlags::Reset => out.extend_from_slice(b" \"R\"\n"),
        }
    }
}

/// The flags of a replicated sample; `Normal` is "not anomalous", which older peers do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayFlags {
    None,
    Normal,
    NormalReset,
    Reset,
}

impl ReplayFlags {
    pub fn word(self) -> &'static str {
        match self {
            ReplayFlags::None => "",
            ReplayFlags::Normal => "A",
            ReplayFlags::NormalReset => "AR",
            ReplayFlags::Reset => "R",
        }
    }
}

/// How a dimension stands at the child, for [`replay_dimension_state`].
#[derive(Clone, Copy, Debug)]
pub struct DimensionState<'a> {
    pub id: &'a str,
    pub last_collected_us: i64,
    pub last_collected: i64,
    pub last_calculated: f64,
    pub last_stored: f64,
}

/// `RDSTATE`: where raw values of a dimension go on from.
pub fn replay_dimension_state(
    out: &mut Vec<u8>,
    dialect: Dialect,
    number: u32,
    state: &DimensionState<'_>,
) {
    out.extend_from_slice(b"RDSTATE");
    replay_slot(out, dialect, number);
    out.push(b' ');
    quoted(out, b'"', state.id, FIELD_MAX);
    replay_integer(out, state.last_collected_us, dialect);
    replay_integer(out, state.last_collected, dialect);
    replay_double(out, state.last_calculated, dialect);
    replay_double(out, state.last_stored, dialect);
    out.push(b'\n');
}

/// `RSSTATE`: when the chart was collected and stored last, in microseconds.
pub fn replay_chart_state(
    out: &mut Vec<u8>,
    dialect: Dialect,
    last_collected_us: i64,
    last_updated_us: i64,
) {
    out.extend_from_slice(b"RSSTATE");
    replay_integer(out, last_collected_us, dialect);
    replay_integer(out, last_updated_us, dialect);
    out.push(b'\n');
}

/// What `REND` says.
#[derive(Clone, Copy, Debug)]
pub struct ReplayEnd {
    pub every: i64,
    pub first: i64,
    pub last: i64,
    pub start: bool,
    pub after: i64,
    pub before: i64,
    pub wall: i64,
}

/// `REND`: closes the block.
pub fn replay_end(out: &mut Vec<u8>, dialect: Dialect, end: &ReplayEnd) {
    out.extend_from_slice(b"REND");
    for number in [end.every, end.first, end.last] {
        replay_integer(out, number, dialect);
    }
    out.extend_from_slice(if end.start { b" true" } else { b" false" });
    for number in [end.after, end.before, end.wall] {
        replay_integer(out, number, dialect);
    }
    out.push(b'\n');
}

/// `LABEL` of the host; [`overwrite_labels`] makes the set valid.
pub fn host_label(out: &mut Vec<u8>, name: &str, value: &str, source: u32) {
    out.extend_from_slice(b"LABEL ");
    quoted(out, b'"', name, FIELD_MAX);
    out.extend_from_slice(b" = ");
    put_decimal(out, u64::from(source));
    out.push(b' ');
    quoted(out, b'"', value, LONG_MAX);
    out.push(b'\n');
}

pub fn overwrite_labels(out: &mut Vec<u8>) {
    out.extend_from_slice(b"OVERWRITE labels\n");
}

/// `CLAIMED_ID`: bare words, which every generation reads.
pub fn claimed_id(out: &mut Vec<u8>, machine_guid: &str, claim: Option<&str>) {
    out.extend_from_slice(b"CLAIMED_ID ");
    safe(out, b'"', machine_guid, FIELD_MAX);
    out.push(b' ');
    safe(out, b'"', claim.unwrap_or("NULL"), FIELD_MAX);
    out.push(b'\n');
}

/// `NODE_ID`, parent to child.
pub fn node_id(out: &mut Vec<u8>, claim: &str, node: &str, cloud_url: &str) {
    out.extend_from_slice(b"NODE_ID");
    for text in [claim, node, cloud_url] {
        out.push(b' ');
        quoted(out, b'\'', text, FIELD_MAX);
    }
    out.push(b'\n');
}

/// `JSON STREAM_PATH`: `json` must be one line without its end.
pub fn stream_path(out: &mut Vec<u8>, json: &[u8]) {
    out.extend_from_slice(b"JSON STREAM_PATH\n");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\nJSON_PAYLOAD_END\n");
}

/// `FUNCTION`, parent to child: a call. 2.x children are also told who asks; here, whoever may ask us.
pub fn function_call(
    out: &mut Vec<u8>,
    transaction: &str,
    timeout: i64,
    command: &str,
    later_words: bool,
) {
    out.extend_from_slice(b"FUNCTION ");
    safe(out, b'"', transaction, FIELD_MAX);
    out.push(b' ');
    put_signed_decimal(out, timeout);
    out.push(b' ');
    quoted(out, b'"', command, LONG_MAX);
    if later_words {
        out.extend_from_slice(b" \"0xFFFF\" \"method=api,role=admin\"");
    }
    out.push(b'\n');
}

/// Takes a call back.
pub fn function_cancel(out: &mut Vec<u8>, transaction: &str) {
    out.extend_from_slice(b"FUNCTION_CANCEL ");
    safe(out, b'"', transaction, FIELD_MAX);
    out.push(b'\n');
}

/// Asks how far a call is.
pub fn function_ask_progress(out: &mut Vec<u8>, transaction: &str) {
    out.extend_from_slice(b"FUNCTION_PROGRESS ");
    safe(out, b'"', transaction, FIELD_MAX);
    out.push(b'\n');
}

/// Says how far a call is.
pub fn function_progress(out: &mut Vec<u8>, transaction: &str, done: u64, all: u64) {
    out.extend_from_slice(b"FUNCTION_PROGRESS ");
    quoted(out, b'\'', transaction, FIELD_MAX);
    out.push(b' ');
    put_decimal(out, done);
    out.push(b' ');
    put_decimal(out, all);
    out.push(b'\n');
}

/// The whole answer to a function call, one unit on the wire. Lines of the body that would end it are defused.
pub fn function_result(
    out: &mut Vec<u8>,
    transaction: &str,
    code: u32,
    content_type: &str,
    expires: i64,
    body: &[u8],
) {
    out.extend_from_slice(b"FUNCTION_RESULT_BEGIN");
    field(out, transaction);
    out.push(b' ');
    put_decimal(out, u64::from(code));
    field(out, content_type);
    out.push(b' ');
    put_signed_decimal(out, expires);
    out.push(b'\n');
    for line in body.split(|byte| *byte == b'\n') {
        if line.trim_ascii_start().starts_with(b"FUNCTION_RESULT_END") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(b"FUNCTION_RESULT_END\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::numbers;
    use crate::wire::words::{Rules, Words};

    const PLAIN: Dialect = Dialect { integers: Form::Hex, doubles: Form::Decimal, slots: false };
    const SLOTS: Dialect = Dialect { integers: Form::Base64, doubles: Form::Base64, slots: true };

    #[track_caller]
    fn check(line: &str, put: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        put(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), line);
    }

    #[test]
    fn lines_as_captured() {
        let demo = ChartLine {
            id: "demo.load",
            title: "Demo load",
            units: "units",
            family: "demo",
            context: "demo.load",
            chart_type: "line",
            priority: 1000,
            update_every: 1,
            plugin: "demo.plugin",
            module: "m1",
            ..ChartLine::default()
        };
        let tail = "\"demo.load\" \"\" \"Demo load\" \"units\" \"demo\" \"demo.load\" \"line\" 1000 1 \"   \" \"demo.plugin\" \"m1\"\n";
        check(&format!("CHART {tail}"), |out| chart(out, PLAIN, 1, &demo));
        check(&format!("CHART SLOT:#B {tail}"), |out| chart(out, SLOTS, 1, &demo));
        let hidden = DimensionLine {
            id: "hid",
            name: "hid",
            algorithm: "absolute",
            multiplier: 1,
            divisor: 1,
            hidden: true,
            ..DimensionLine::default()
        };
        check("DIMENSION SLOT:#D \"hid\" \"hid\" \"absolute\" 1 1 \" hidden \"\n", |out| {
            dimension(out, SLOTS, 3, &hidden);
        });
        check("CLABEL \"role\" \"web server\" 1\nCLABEL_COMMIT\n", |out| {
            chart_label(out, "role", "web server", 1);
            chart_labels_end(out);
        });
        check("LABEL \"_os_name\" = 1 \"unknown\"\nOVERWRITE labels\n", |out| {
            host_label(out, "_os_name", "unknown", 1);
            overwrite_labels(out);
        });
        check("VARIABLE CHART limit = 42.0000000\n", |out| {
            variable(out, Scope::Chart, "limit", 42.0);
        });
        check("BEGIN \"demo.load\" 1000249\nSET \"up\" = -5\nEND\n", |out| {
            begin(out, "demo.load", 1_000_249);
            set(out, "up", -5);
            end(out);
        });
        check(
            "BEGIN2 SLOT:#B 'demo.load' #B #BrAqOy #\nSET2 SLOT:#D 'hid' #S @EAzAAAAAAAA A\nEND2\n",
            |out| {
                begin2(out, SLOTS, 1, "demo.load", 1, 1_795_335_090, 1_795_335_090);
                set2(
                    out,
                    SLOTS,
                    3,
                    "hid",
                    18,
                    19.0,
                    PointFlags::Stored { anomalous: false, reset: false },
                );
                end2(out);
            },
        );
        check("BEGIN2 'a.b' 0x1 0x6B02A3B2 0x6B02A3B3\nSET2 'x' 0x5 # ''\n", |out| {
            begin2(out, PLAIN, 1, "a.b", 1, 1_795_335_090, 1_795_335_091);
            set2(out, PLAIN, 1, "x", 5, 5.0, PointFlags::Stored { anomalous: true, reset: false });
        });
    }

    #[test]
    fn a_function_result_cannot_end_early() {
        check(
            "FUNCTION_RESULT_BEGIN \"t\" 200 \"text/plain\" 0\na\n.FUNCTION_RESULT_END\n\nFUNCTION_RESULT_END\n",
            |out| function_result(out, "t", 200, "text/plain", 0, b"a\nFUNCTION_RESULT_END\n"),
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_its_line(text in ".{0,40}", last in ".{0,5}") {
            let mut out = Vec::new();
            dimension(&mut out, PLAIN, 0, &DimensionLine { id: &text, name: &last, algorithm: "absolute", ..DimensionLine::default() });
            prop_assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
            let words: Vec<_> = Words::new(&out, Rules::Seed).collect();
            prop_assert_eq!(words.len(), 7, "{:?}", String::from_utf8_lossy(&out));
            prop_assert_eq!(words[3], b"absolute");
            if !text.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
                prop_assert_eq!(words[1], text.as_bytes());
            }
        }

        #[test]
        fn values_come_back_to_the_bit(collected: i64, bits: u64, base64: bool) {
            let value = f64::from_bits(bits);
            let dialect = if base64 { SLOTS } else { PLAIN };
            let mut out = Vec::new();
            set2(&mut out, dialect, 1, "x", collected, value, PointFlags::Stored { anomalous: false, reset: false });
            let words: Vec<_> = Words::new(&out, Rules::Later).filter(|w| !w.starts_with(b"SLOT")).collect();
            prop_assert_eq!(numbers::integer(words[2]), Some(collected));
            let back = if words[3] == b"#" { collected as f64 } else { numbers::double(words[3]).unwrap() };
            prop_assert!(back.to_bits() == bits || value.is_nan() && back.is_nan());
        }
    }

    #[test]
    fn no_line_is_longer_than_readers_take() {
        let long = "x".repeat(20_000);
        let line = ChartLine {
            id: &long,
            name: &long,
            title: &long,
            units: &long,
            family: &long,
            context: &long,
            chart_type: &long,
            plugin: &long,
            module: &long,
            ..ChartLine::default()
        };
        let mut out = Vec::new();
        chart(&mut out, SLOTS, u32::MAX, &line);
        assert!(out.len() < 15_000);
        out.clear();
        host_label(&mut out, &long, &long, 1);
        assert!(out.len() < 15_000);
    }
}
