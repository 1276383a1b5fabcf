//! Comparing what two ends of a link hold, by digests of spans: `netdatacli verify`.
//!
//! [`compare`] is a plain search: spans whose digests differ are halved until one slot is left. [`Digests`] carries the
//! questions of one link; whoever asks waits for the answer, bounded, on a thread of its own. Lock order: nothing else is
//! taken while its lock is held.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;

use super::replication::View;
use crate::base::number::Sample;
use crate::base::time::UnixSeconds;

/// A question is given up after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer spans are not answered: the asking end splits them.
pub const SPAN_MAX: i64 = 86_400;

/// What a span comes to: how many samples, and a sum over them that does not depend on their order. Of one dimension in
/// one slot the sum is the sample itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    pub samples: u64,
    pub sum: u64,
}

/// A peer's question what a span comes to here, of one dimension or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The peer's, for the answer.
    pub number: u64,
    pub chart: String,
    pub after: i64,
    pub before: i64,
    pub dim: Option<String>,
}

/// The digest of what a view holds with `after < time <= before`, of one dimension or all.
pub fn digest(view: &View, after: i64, before: i64, dim: Option<&str>) -> Digest {
    let before = before.min(after.saturating_add(SPAN_MAX));
    let single = dim.is_some() && before - after <= view.every;
    let mut all = Digest::default();
    for (id, reader) in &view.dims {
        if dim.is_some_and(|dim| *dim != **id) {
            continue;
        }
        let name = id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        reader.read(UnixSeconds(after), UnixSeconds(before), &mut |at, sample| {
            if sample.is_empty() {
                return;
            }
            all.samples += 1;
            let bits = u64::from(sample.0);
            let mixed =
                if single { bits } else { mix(name ^ mix(at.0.unsigned_abs() ^ mix(bits))) };
            all.sum = all.sum.wrapping_add(mixed);
        });
    }
    all
}

/// Spreads every bit over all.
fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The other end's digests; `None` when it does not answer.
pub type AskPeer<'a> = dyn FnMut(&str, i64, i64, Option<&str>) -> Option<Digest> + 'a;

/// How a comparison of one chart ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Same { samples: u64 },
    Differs { at: i64, dimensions: Vec<Difference> },
    NoAnswer,
}

/// A sample that is not the same at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub dimension: Arc<str>,
    pub here: Option<u32>,
    pub there: Option<u32>,
}

/// Compares a chart over a span.
pub fn compare(view: &View, id: &str, after: i64, before: i64, ask: &mut AskPeer<'_>) -> Outcome {
    let every = view.every;
    let mut samples = 0;
    let mut from = after.div_euclid(every) * every;
    while from < before {
        let until = before.min(from + SPAN_MAX / every * every).max(from + 1);
        let ours = digest(view, from, until, None);
        let Some(theirs) = ask(id, from, until, None) else { return Outcome::NoAnswer };
        if ours != theirs {
            return first_difference(view, id, from, until, ask);
        }
        samples += ours.samples;
        from = until;
    }
    Outcome::Same { samples }
}

fn first_difference(
    view: &View,
    id: &str,
    mut from: i64,
    mut until: i64,
    ask: &mut AskPeer<'_>,
) -> Outcome {
    let every = view.every;
    while until - from > every {
        let half = from + ((until - from) / 2).div_euclid(every).max(1) * every;
        let Some(theirs) = ask(id, from, half, None) else { return Outcome::NoAnswer };
        if digest(view, from, half, None) == theirs {
            from = half;
        } else {
            until = half;
        }
    }
    let sample = |digest: Digest| {
        (digest.samples > 0).then(|| u32::try_from(digest.sum).unwrap_or(u32::MAX))
    };
    let mut dimensions = Vec::new();
    for (dimension, _) in &view.dims {
        let here = sample(digest(view, from, until, Some(dimension)));
        let Some(there) = ask(id, from, until, Some(dimension)) else { return Outcome::NoAnswer };
        let there = sample(there);
        if here != there {
            dimensions.push(Difference { dimension: Arc::clone(dimension), here, there });
        }
    }
    Outcome::Differs { at: from + every, dimensions }
}

/// The words for people.
pub fn describe(chart: &str, peer: &str, outcome: &Outcome) -> Option<String> {
    let value = |bits: Option<u32>| match bits {
        Some(bits) => Sample(bits).value().map_or("nothing".to_owned(), |value| value.to_string()),
        None => "nothing".to_owned(),
    };
    match outcome {
        Outcome::Same { .. } => None,
        Outcome::NoAnswer => Some(format!("{peer} does not answer about chart '{chart}'.")),
        Outcome::Differs { at, dimensions } => {
            let mut text = format!("The first sample that differs is of chart '{chart}' at {at}:");
            for difference in dimensions {
                let (here, there) = (value(difference.here), value(difference.there));
                let _ =
                    write!(text, " '{}' is {here} here, {there} at {peer};", difference.dimension);
            }
            if dimensions.is_empty() {
                let _ = write!(text, " {peer} has dimensions there that are not known here;");
            }
            text.pop();
            text.push('.');
            Some(text)
        }
    }
}

/// Questions and answers of one link.
#[derive(Default)]
pub struct Digests {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    last: u64,
    /// By number; `None` = not answered yet.
    waiting: FxHashMap<u64, Option<Digest>>,
    over: bool,
}

impl Digests {
    /// Puts a question by `put` and waits for its answer.
    pub fn ask(&self, put: impl FnOnce(u64)) -> Option<Digest> {
        let mut state = self.state.lock();
        if state.over {
            return None;
        }
        state.last += 1;
        let number = state.last;
        state.waiting.insert(number, None);
        drop(state);
        put(number);
        let mut state = self.state.lock();
        while let Some(None) = state.waiting.get(&number)
            && !state.over
        {
            if self.answered.wait_for(&mut state, PATIENCE).timed_out() {
                break;
            }
        }
        state.waiting.remove(&number).flatten()
    }

    pub fn answered(&self, number: u64, digest: Digest) {
        let mut state = self.state.lock();
        if let Some(answer) = state.waiting.get_mut(&number) {
            *answer = Some(digest);
            self.answered.notify_all();
        }
    }

    /// The link is over: nobody waits any longer.
    pub fn close(&self) {
        self.state.lock().over = true;
        self.answered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::MachineGuid;
    use crate::base::time::UpdateEvery;
    use crate::storage::ring::RingEngine;
    use crate::storage::{MetricKey, Mode, StorageEngine};

    /// A chart of two dimensions, every two seconds; `wrong` changes one sample of `y`.
    fn view(wrong: Option<(i64, f64)>) -> View {
        let engine = RingEngine::in_memory(Mode::Ram, 3600);
        let dims = ["y", "x"].map(|dimension| {
            let key = MetricKey {
                host: MachineGuid::random(),
                chart: "t.a".into(),
                dimension: dimension.into(),
            };
            let mut metric = engine.open(&key, UpdateEvery::clamped(2)).unwrap();
            for at in (1000..2000).step_by(2) {
                let value = match wrong {
                    Some((time, value)) if time == at && dimension == "y" => value,
                    _ => at as f64 / 2.0,
                };
                metric.writer.store(UnixSeconds(at), Sample::normal(value));
            }
            (dimension.into(), metric.reader)
        });
        View { every: 2, dims: dims.to_vec(), first: 998, last: 1998, version: None }
    }

    fn check(theirs: &View) -> Outcome {
        let mut reversed = theirs.clone();
        reversed.dims.reverse();
        let mut ask =
            |_: &str, after, before, dim: Option<&str>| Some(digest(&reversed, after, before, dim));
        compare(&view(None), "t.a", 1100, 1900, &mut ask)
    }

    #[test]
    fn what_is_the_same_is_the_same_in_any_order() {
        assert_eq!(check(&view(None)), Outcome::Same { samples: 800 });
        assert_eq!(check(&view(Some((1098, 1.0)))), Outcome::Same { samples: 800 });
    }

    #[test]
    fn the_first_difference_is_found_and_named() {
        for at in [1102, 1500, 1898, 1900] {
            let outcome = check(&view(Some((at, f64::NAN))));
            let Outcome::Differs { at: found, dimensions } = &outcome else {
                panic!("{at}: {outcome:?}")
            };
            assert_eq!((*found, dimensions.len(), &*dimensions[0].dimension), (at, 1, "y"));
            assert_eq!(dimensions[0].there, None);
        }
        let text = describe("t.a", "p", &check(&view(Some((1500, 7.0))))).unwrap();
        assert_eq!(
            text,
            "The first sample that differs is of chart 't.a' at 1500: 'y' is 750 here, 7 at p."
        );
    }
}
