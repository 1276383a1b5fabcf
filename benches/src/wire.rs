//! What a stream of recorded samples costs by its compression: bytes on the wire, the parent's processor time and the child's.
//!
//! The frames are made by our own encoder, before anything is measured; both programs read them. What they cost to make is
//! measured by itself, on this thread.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use netdata_rs::wire::compression::{Algorithm, Encoder, Levels};

use crate::agent::{Agent, Setup};
use crate::load::{self, Form, now};
use crate::series::{self, Recording};
use crate::{Figure, Goal, Programs};

/// As a host has them: about a thousand series in charts of ten.
const DIMENSIONS: usize = 10;
/// How often the recording is sent, so that processor ticks are fine enough.
const REPEATS_OURS: usize = 5;
const REPEATS_REAL: usize = 2;

/// Its name, what the key's section says, and the algorithm with its bit in what is agreed.
type Way = (&'static str, &'static str, Option<(Algorithm, u32)>);

const WAYS: [Way; 4] = [
    ("none", "enable compression = no", None),
    ("lz4", "compression algorithms order = lz4", Some((Algorithm::Lz4, 1 << 10))),
    ("zstd", "compression algorithms order = zstd", Some((Algorithm::Zstd, 1 << 19))),
    ("gzip", "compression algorithms order = gzip", Some((Algorithm::Gzip, 1 << 20))),
];

/// One second of all series as text; gives how many samples there are.
fn second(out: &mut Vec<u8>, form: Form, recording: &Recording, second: usize, at: i64) -> u64 {
    let mut samples = 0;
    let slot = |out: &mut Vec<u8>, number: usize| {
        out.extend_from_slice(b" SLOT:#");
        load::base64(out, number as u64);
    };
    for (chart, series) in (1..).zip(recording.chunks(DIMENSIONS)) {
        let present = |series: &Vec<Option<f64>>| series.get(second).copied().flatten();
        let _ = match form {
            Form::V2 => {
                out.extend_from_slice(b"BEGIN2");
                slot(out, chart);
                let _ = write!(out, " 'load.chart{chart}' #B #");
                load::base64(out, at.unsigned_abs());
                writeln!(out, " #")
            }
            _ => writeln!(out, "BEGIN \"load.chart{chart}\" 1000000"),
        };
        for (d, value) in (1..).zip(series.iter().map(present)) {
            let Some(value) = value else { continue };
            samples += 1;
            let collected = (value * 1000.0).round();
            if form == Form::V2 {
                out.extend_from_slice(b"SET2");
                slot(out, d);
                let _ = write!(out, " 'dimension{d}' #");
                load::base64(out, collected.abs() as u64);
                out.extend_from_slice(b" @");
                load::base64(out, value.to_bits());
                out.extend_from_slice(b" A\n");
            } else {
                let _ = writeln!(out, "SET \"dimension{d}\" = {}", collected as i64);
            }
        }
        out.extend_from_slice(if form == Form::V2 { b"END2\n" } else { b"END\n" });
    }
    samples
}

fn definitions(form: Form, recording: &Recording) -> Vec<u8> {
    let mut out = Vec::new();
    let slot = |number: usize| {
        let mut text = Vec::new();
        if form == Form::V2 {
            text.extend_from_slice(b" SLOT:#");
            load::base64(&mut text, number as u64);
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    for (chart, series) in (1..).zip(recording.chunks(DIMENSIONS)) {
        let _ = writeln!(
            out,
            "CHART{} \"load.chart{chart}\" \"\" \"Chart {chart} of a load\" \"things/s\" \"load\" \"load.chart\" \"line\" {} 1 \"\" \"load\" \"bench\"",
            slot(chart),
            1000 + chart
        );
        for d in 1..=series.len() {
            let slot = slot(d);
            let _ = writeln!(
                out,
                "DIMENSION{slot} \"dimension{d}\" \"dimension{d}\" \"absolute\" 1 1000 \"\""
            );
        }
    }
    out
}

/// A whole stream, as it goes over the wire.
struct Stream {
    definitions: Vec<u8>,
    samples: Vec<u8>,
    count: u64,
    /// What compressing cost, in processor seconds.
    encoding: f64,
}

impl Stream {
    fn new(
        form: Form,
        recording: &Recording,
        algorithm: Option<Algorithm>,
        repeats: usize,
    ) -> io::Result<Stream> {
        let mut encoder = match algorithm {
            Some(algorithm) => Some(Encoder::new(algorithm, Levels::default())?),
            None => None,
        };
        let mut encode = |text: &[u8], out: &mut Vec<u8>| -> io::Result<()> {
            let Some(encoder) = &mut encoder else {
                out.extend_from_slice(text);
                return Ok(());
            };
            let mut done = 0;
            while done < text.len() {
                done += encoder.frame(&text[done..], out)?;
            }
            Ok(())
        };
        let mut stream =
            Stream { definitions: Vec::new(), samples: Vec::new(), count: 0, encoding: 0.0 };
        encode(&definitions(form, recording), &mut stream.definitions)?;
        let seconds = recording.iter().map(Vec::len).max().unwrap_or(0);
        let mut at = now() - (seconds * repeats) as i64 - 100;
        let mut text = Vec::new();
        for n in 0..seconds * repeats {
            text.clear();
            at += 1;
            stream.count += second(&mut text, form, recording, n % seconds, at);
            let began = processor_time();
            encode(&text, &mut stream.samples)?;
            stream.encoding += processor_time() - began;
        }
        Ok(stream)
    }
}

/// Processor seconds of this thread so far.
fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Processor seconds of a parent per million samples.
fn take(program: &Path, form: Form, words: &str, bit: u32, stream: &Stream) -> io::Result<f64> {
    let setup = Setup::default().takes_children_with("ram", words);
    let parent = Agent::start(program, "parent", &setup)?;
    let (mut socket, answer) = load::handshake(parent.address(), 1, form.caps() | bit)?;
    let agreed: u32 =
        answer.rsplit('=').next().and_then(|number| number.trim().parse().ok()).unwrap_or(0);
    if bit != 0 && agreed & bit == 0 {
        return Err(io::Error::other(format!("the parent does not compress: '{answer}'")));
    }
    socket.write_all(&stream.definitions)?;
    thread::sleep(Duration::from_secs(1));
    let cpu = parent.cpu();
    let began = Instant::now();
    socket.write_all(&stream.samples)?;
    load::finish(socket)?;
    let cpu = parent.cpu() - cpu;
    if began.elapsed() < Duration::from_millis(10) {
        return Err(io::Error::other(format!("the samples were not read:\n{}", parent.log_end())));
    }
    Ok(cpu / (stream.count as f64 / 1e6))
}

pub fn wire(programs: &Programs) -> io::Result<Vec<Figure>> {
    let path = std::env::var_os("RECORDED").map(PathBuf::from).filter(|path| path.exists());
    let Some(path) = path else {
        println!("wire       recorded samples: skipped, RECORDED names no file");
        return Ok(Vec::new());
    };
    let recording = series::recorded(&path, 1)?;
    let mut figures = Vec::new();
    let mut figure = |what: String, unit, ours, real, goal| {
        figures.push(Figure { row: "wire", what, unit, real, ours, goal });
    };
    let mut real_lz4 = None;
    for (name, words, way) in WAYS {
        let (algorithm, bit) = way.unzip();
        let bit = bit.unwrap_or(0);
        for form in [Form::V1, Form::V2] {
            let form_name = if form == Form::V1 { "old form" } else { "new form" };
            let stream = Stream::new(form, &recording, algorithm, REPEATS_OURS)?;
            let ours = take(&programs.ours, form, words, bit, &stream)?;
            // The real one knows lz4 alone, and the old form alone.
            let real = match &programs.real {
                Some(real) if form == Form::V1 && ["none", "lz4"].contains(&name) => {
                    let stream = Stream::new(form, &recording, algorithm, REPEATS_REAL)?;
                    let words = if bit == 0 { words } else { "enable compression = yes" };
                    Some(take(real, form, words, bit, &stream)?)
                }
                _ => None,
            };
            if name == "lz4" {
                real_lz4 = real.or(real_lz4);
            }
            let goal = match (name, form) {
                ("lz4", _) => Goal::AtMostOfReal(0.25),
                _ => Goal::None,
            };
            let real = if name == "lz4" { real_lz4 } else { real };
            let unit = "CPU s per million (real: old form)";
            figure(format!("{name}, {form_name}: parent"), unit, ours, real, goal);
            let bytes = stream.samples.len() as f64 / stream.count as f64;
            figure(
                format!("{name}, {form_name}: wire"),
                "bytes per sample",
                bytes,
                None,
                Goal::None,
            );
            let encoding = stream.encoding / (stream.count as f64 / 1e6);
            if algorithm.is_some() {
                let unit = "CPU s per million";
                figure(
                    format!("{name}, {form_name}: compressing"),
                    unit,
                    encoding,
                    None,
                    Goal::None,
                );
            }
        }
    }
    Ok(figures)
}
