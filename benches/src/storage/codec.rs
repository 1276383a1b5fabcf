//! Codecs side by side on pages of several lengths: bytes and nanoseconds per sample, both ways.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use netdata_rs::base::number::Sample;
use netdata_rs::storage::dbengine::codec::{self, Effort};

use crate::gorilla;
use crate::series::{self, Kind, MIX, Series};

const PAGES: [usize; 5] = [512, 1024, 2048, 4096, 8192];
const SAMPLES: usize = 1 << 14;
const RUNS: usize = 4;
const ZSTD_LEVEL: i32 = 3;

/// A page's samples to bytes and back.
trait Codec {
    fn encode(&self, page: &[Sample], out: &mut Vec<u8>);
    fn decode(&self, bytes: &[u8], count: usize, out: &mut Vec<Sample>);
}

struct Gorilla;
struct Ours(Effort);
/// pco over the samples' bits, as they are.
struct PcoBits;
/// The other, and zstd over its bytes.
struct WithZstd<C>(C);

impl Codec for Gorilla {
    fn encode(&self, page: &[Sample], out: &mut Vec<u8>) {
        gorilla::encode(page, out);
    }
    fn decode(&self, bytes: &[u8], count: usize, out: &mut Vec<Sample>) {
        gorilla::decode(bytes, count, out);
    }
}

impl Codec for Ours {
    fn encode(&self, page: &[Sample], out: &mut Vec<u8>) {
        codec::encode(page, self.0, out);
    }
    fn decode(&self, bytes: &[u8], count: usize, out: &mut Vec<Sample>) {
        let _ = codec::decode(bytes, count, 0..count, out);
    }
}

impl Codec for PcoBits {
    fn encode(&self, page: &[Sample], out: &mut Vec<u8>) {
        let bits: Vec<u32> = page.iter().map(|sample| sample.0).collect();
        let config = pco::ChunkConfig::default();
        out.extend(pco::standalone::simple_compress(&bits, &config).unwrap_or_default());
    }
    fn decode(&self, bytes: &[u8], _: usize, out: &mut Vec<Sample>) {
        let bits = pco::standalone::simple_decompress::<u32>(bytes).unwrap_or_default();
        out.extend(bits.into_iter().map(Sample));
    }
}

impl<C: Codec> Codec for WithZstd<C> {
    fn encode(&self, page: &[Sample], out: &mut Vec<u8>) {
        let mut inner = Vec::new();
        self.0.encode(page, &mut inner);
        out.extend(zstd::bulk::compress(&inner, ZSTD_LEVEL).unwrap_or_default());
    }
    fn decode(&self, bytes: &[u8], count: usize, out: &mut Vec<Sample>) {
        let inner = zstd::bulk::decompress(bytes, 1 << 20).unwrap_or_default();
        self.0.decode(&inner, count, out);
    }
}

/// What a run of pages costs.
struct Cost {
    bytes: f64,
    encode_ns: f64,
    decode_ns: f64,
}

fn measure(codec: &dyn Codec, page: usize, all: &[Vec<Sample>]) -> Result<Cost, Box<dyn Error>> {
    let mut cost = Cost { bytes: 0.0, encode_ns: 0.0, decode_ns: 0.0 };
    let mut samples = 0;
    let (mut bytes, mut back) = (Vec::new(), Vec::new());
    for slots in all.iter().flat_map(|series| series.chunks_exact(page)) {
        // The best of some runs: others use this machine too.
        let (mut encode, mut decode) = (f64::MAX, f64::MAX);
        for _ in 0..RUNS {
            bytes.clear();
            back.clear();
            let begun = Instant::now();
            codec.encode(slots, &mut bytes);
            let encoded = Instant::now();
            codec.decode(&bytes, slots.len(), &mut back);
            decode = decode.min(encoded.elapsed().as_secs_f64());
            encode = encode.min((encoded - begun).as_secs_f64());
        }
        cost.encode_ns += encode * 1e9;
        cost.decode_ns += decode * 1e9;
        if back != slots {
            return Err("a page came back changed".into());
        }
        cost.bytes += bytes.len() as f64;
        samples += slots.len();
    }
    let per = 1.0 / samples.max(1) as f64;
    Ok(Cost {
        bytes: cost.bytes * per,
        encode_ns: cost.encode_ns * per,
        decode_ns: cost.decode_ns * per,
    })
}

pub fn run(recorded: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let made = |kinds: &[Kind]| -> Vec<Vec<Sample>> {
        let kinds = kinds.iter().enumerate();
        let series = kinds.map(|(number, kind)| {
            let mut series = Series::new(*kind, number);
            (0..SAMPLES).map(|_| Sample::normal(series.next())).collect()
        });
        series.collect()
    };
    let mut inputs = vec![
        ("constant", made(&[Kind::Constant; 4])),
        ("counter", made(&[Kind::Counter; 4])),
        ("walk", made(&[Kind::Walk; 4])),
        ("noise", made(&[Kind::Noise; 4])),
        ("mix", made(&MIX)),
    ];
    if let Some(path) = recorded {
        let recording = series::recorded(path, 4)?;
        // Its 24 minutes fill pages of up to 1,024 samples; longer ones would hold repetitions.
        let long = |series: &Vec<Option<f64>>| {
            series.iter().map(|value| value.map_or(Sample::EMPTY, Sample::normal)).collect()
        };
        inputs.push(("recorded", recording.iter().map(long).collect()));
    }
    let codecs: [(&str, Box<dyn Codec>); 8] = [
        ("Gorilla XOR", Box::new(Gorilla)),
        ("Gorilla XOR + zstd", Box::new(WithZstd(Gorilla))),
        ("decimals, delta + packing (`Quick`)", Box::new(Ours(Effort::Quick))),
        ("the same + zstd", Box::new(WithZstd(Ours(Effort::Quick)))),
        ("pco on the bits", Box::new(PcoBits)),
        ("pco on the bits + zstd", Box::new(WithZstd(PcoBits))),
        ("decimals, pco and others (`Small`)", Box::new(Ours(Effort::Small))),
        ("the same + zstd", Box::new(WithZstd(Ours(Effort::Small)))),
    ];
    println!("Bytes / ns to encode / ns to decode, per sample.\n");
    print!("| codec | page |");
    inputs.iter().for_each(|(name, _)| print!(" {name} |"));
    println!("\n|---|--:|{}", "--:|".repeat(inputs.len()));
    for (name, codec) in &codecs {
        for page in PAGES {
            print!("| {name} | {page} |");
            for (_, series) in &inputs {
                let cost = measure(&**codec, page, series)?;
                match cost.bytes {
                    0.0 => print!(" |"),
                    bytes => {
                        print!(" {bytes:.3} / {:.0} / {:.0} |", cost.encode_ns, cost.decode_ns)
                    }
                }
            }
            println!();
        }
    }
    Ok(())
}
