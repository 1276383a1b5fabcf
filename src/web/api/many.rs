//! Bodies about many charts: made by several threads where there are enough of them, and never moved while they grow.
//!
//! What writes one chart runs on any of the threads, so it takes its locks one after another as a handler does. It should
//! allocate nothing: the threads share one heap, and would spend their time waiting for it.

use crate::base::sys;
use crate::base::threads;

/// Charts from which on another processor is worth asking for help.
const CHARTS_SHARED: usize = 500;
/// After so many the length of all is guessed.
const SAMPLED: usize = 16;

/// What `write` appends for each of `charts`, in their order, in pieces. What it needs on its way it keeps in an `S`.
pub fn pieces<T: Sync, S: Default>(
    charts: &[T],
    write: impl Fn(&T, &mut S, &mut String) + Sync,
) -> Vec<String> {
    threads::shared(charts.len(), CHARTS_SHARED, |share| {
        let share = &charts[share];
        let (mut out, mut scratch) = (String::new(), S::default());
        for (n, chart) in share.iter().enumerate() {
            if n == SAMPLED {
                out = with_room(out, share.len() - SAMPLED);
            }
            write(chart, &mut scratch, &mut out);
        }
        out
    })
}

/// Room for so many charts more, which take as much as the sampled ones or a little more.
fn with_room(out: String, more: usize) -> String {
    let mut bytes = out.into_bytes();
    let each = bytes.len().div_ceil(SAMPLED);
    bytes.reserve_exact(each.saturating_mul(more + more / 8));
    sys::prefer_huge_pages(&mut bytes);
    // It was a text before.
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chart_is_written_once_and_in_order() {
        for count in [0, 1, SAMPLED, SAMPLED + 1, CHARTS_SHARED - 1, 5 * CHARTS_SHARED + 7] {
            let charts: Vec<usize> = (0..count).collect();
            let text = pieces(&charts, |n, (), out| out.push_str(&format!("{n}\n"))).concat();
            let want: String = charts.iter().map(|n| format!("{n}\n")).collect();
            assert_eq!(text, want, "{count}");
        }
    }
}
