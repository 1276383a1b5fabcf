//! Which tiers a metric is read from: the coarsest that has as many points as asked, helped out at both ends.
//!
//! Pure arithmetic, after the HTTP specification, section 7.6.

/// Tiers a metric can have.
pub const TIERS_MAX: usize = 5;

/// What one tier holds of a metric, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierHeld {
    pub every: i64,
    /// End of the first and of the last point.
    pub first: i64,
    pub last: i64,
}

/// Points of one tier to read: those with `after < end <= before`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub tier: usize,
    pub every: i64,
    pub after: i64,
    pub before: i64,
}

/// A small list of the tiers of a metric; `None` for one that holds nothing.
pub type Tiers = [Option<TierHeld>; TIERS_MAX];

const WHOLE: i64 = 1_000_000;

/// How well a tier answers a query for `points` rows between `after` and `before`; `None` when not at all. `whole` is what all
/// tiers together hold: less than a point of it missing at an end is nothing missing, as a finer tier fills that.
fn weight(held: TierHeld, whole: (i64, i64), after: i64, before: i64, points: i64) -> Option<i64> {
    let have = (held.last.min(before) - held.first.max(after)) / held.every.max(1);
    if have <= 0 {
        return None;
    }
    let first = if held.first - whole.0 < held.every { whole.0 } else { held.first };
    let last = if whole.1 - held.last < held.every { whole.1 } else { held.last };
    let span = (before - after).max(1);
    let coverage = (last.min(before) - first.max(after)).saturating_mul(WHOLE) / span;
    let wanted = points.saturating_mul(coverage) / WHOLE;
    Some(if have < wanted { have.saturating_mul(coverage) / wanted } else { coverage })
}

/// The tier to read; of equally good ones the coarsest. The first that holds anything when none fits.
fn choose(tiers: &Tiers, after: i64, before: i64, points: i64) -> Option<usize> {
    let ends = tiers.iter().flatten().map(|held| (held.first, held.last));
    let whole = ends.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)))?;
    let mut best: Option<(usize, i64)> = None;
    for (tier, held) in tiers.iter().enumerate() {
        let Some(weight) = held.and_then(|held| weight(held, whole, after, before, points)) else {
            continue;
        };
        if best.is_none_or(|(_, other)| weight >= other) {
            best = Some((tier, weight));
        }
    }
    best.map(|(tier, _)| tier).or_else(|| tiers.iter().position(Option::is_some))
}

/// Puts into `out` what to read for the rows between `after` and `before`, in time order. The first stretch begins with the last point
/// that ends by `after`, the last one ends with the first point at `before` or later.
pub fn plan(
    tiers: &Tiers,
    forced: Option<usize>,
    (after, before, points): (i64, i64, i64),
    out: &mut Vec<Stretch>,
) {
    out.clear();
    let forced = forced.filter(|tier| tiers.get(*tier).is_some_and(Option::is_some));
    let Some(chosen) = forced.or_else(|| choose(tiers, after, before, points)) else { return };
    let Some(held) = tiers[chosen] else { return };
    if tiers.iter().flatten().count() == 1 {
        out.push(stretch(chosen, held, after, before));
        return;
    }
    // Pieces in time order; each begins where the one before ends.
    out.push(stretch(chosen, held, after, before));
    if forced.is_none() && held.first > after {
        // Coarser tiers remember longer: they fill the beginning.
        let mut earliest = held.first - held.every;
        for (tier, coarser) in tiers.iter().enumerate().skip(chosen + 1) {
            if let Some(coarser) = coarser
                && coarser.first <= earliest
            {
                if let Some(next) = out.first_mut() {
                    next.after = earliest;
                }
                let whole = stretch(tier, *coarser, after, before);
                out.insert(0, Stretch { before: earliest, ..whole });
                earliest = coarser.first - coarser.every;
            }
        }
    }
    if forced.is_none() && held.last < before {
        // Finer tiers are further: they fill the end.
        let mut latest = held.last;
        for tier in (0..chosen).rev() {
            if let Some(finer) = tiers[tier]
                && finer.last > latest
            {
                if let Some(previous) = out.last_mut() {
                    previous.before = latest;
                }
                let whole = stretch(tier, finer, after, before);
                out.push(Stretch { after: latest, ..whole });
                latest = finer.last;
            }
        }
    }
}

/// All of one tier that the rows between `after` and `before` can use.
fn stretch(tier: usize, held: TierHeld, after: i64, before: i64) -> Stretch {
    let every = held.every;
    let mut to = before + (every - before.rem_euclid(every)) % every;
    if tier > 0 {
        // what may stand behind it is not complete
        to = to.min(held.last);
    }
    Stretch { tier, every, after: after - after.rem_euclid(every) - every, before: to }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(held: &[(i64, i64, i64)]) -> Tiers {
        let mut tiers = Tiers::default();
        for (tier, (every, first, last)) in held.iter().enumerate() {
            if *last > 0 {
                tiers[tier] = Some(TierHeld { every: *every, first: *first, last: *last });
            }
        }
        tiers
    }

    fn plan(tiers: &Tiers, forced: Option<usize>, rows: (i64, i64, i64)) -> Vec<Stretch> {
        let mut out = Vec::new();
        super::plan(tiers, forced, rows, &mut out);
        out
    }

    const ALL: &[(i64, i64, i64)] = &[(1, 1, 900), (10, 10, 900), (60, 60, 900)];

    #[test]
    fn the_coarsest_tier_with_enough_points_is_read() {
        for (points, tier) in
            [(300, 0), (100, 0), (31, 0), (30, 0), (10, 1), (7, 1), (5, 1), (4, 2), (1, 2)]
        {
            assert_eq!(choose(&tiers(ALL), 101, 400, points), Some(tier), "{points} points");
        }
    }

    #[test]
    fn a_point_that_is_not_complete_makes_no_tier_a_worse_choice() {
        let held = tiers(&[(1, 7, 86_439), (60, 60, 86_400), (3600, 3600, 86_400)]);
        assert_eq!(choose(&held, 40, 86_439, 300), Some(1));
        assert_eq!(choose(&held, -1000, 86_439, 300), Some(1));
        assert_eq!(choose(&held, 40, 86_439, 20), Some(2));
        assert_eq!(choose(&held, 40, 86_439, 3000), Some(0));
    }

    #[test]
    fn a_forced_tier_is_read_alone_if_it_holds_anything() {
        let stretch = |tier, every, after, before| Stretch { tier, every, after, before };
        let all = tiers(ALL);
        assert_eq!(plan(&all, Some(1), (101, 405, 300)), [stretch(1, 10, 90, 410)]);
        assert_eq!(plan(&all, Some(0), (101, 405, 1)), [stretch(0, 1, 100, 405)]);
        let none = tiers(&[(1, 1, 900), (10, 0, 0)]);
        assert_eq!(plan(&none, Some(1), (101, 405, 1)), [stretch(0, 1, 100, 405)]);
        assert_eq!(plan(&Tiers::default(), None, (101, 405, 1)), []);
    }

    #[test]
    fn other_tiers_fill_the_beginning_and_the_end() {
        let stretch = |tier, every, after, before| Stretch { tier, every, after, before };
        let short = tiers(&[(1, 501, 905), (10, 310, 900), (60, 60, 840)]);
        assert_eq!(
            plan(&short, None, (101, 905, 805)),
            [stretch(2, 60, 0, 300), stretch(1, 10, 300, 500), stretch(0, 1, 500, 905)]
        );
        assert_eq!(
            plan(&short, None, (101, 905, 3)),
            [stretch(2, 60, 0, 840), stretch(1, 10, 840, 900), stretch(0, 1, 900, 905)]
        );
    }
}
