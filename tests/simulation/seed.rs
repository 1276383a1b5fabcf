//! A model of the real 1.37.1 with its dbengine, as far as samples and their replication go: child, proxy and parent at once.
//!
//! What it does is in the streaming specification, section 5, and in the list of known quirks: it asks for what is newer than
//! its newest sample alone; of a chart it sends nothing between definition and the start of live samples; an answer begins
//! behind the first slot it has and ends at the first one it lacks; it may withhold the start; it never answers for a chart
//! it does not have; live values are raw, and whoever gets them makes slots of them. All samples of a dimension are the same.

use std::collections::{BTreeMap, BTreeSet};

use super::world::Random;

const SECOND: i64 = 1_000_000;
const PERIOD: i64 = 86_400;
const STEP: i64 = 60;
/// What every dimension has at any time.
pub(super) const VALUE: i64 = 7;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sent {
    #[default]
    Nothing,
    Defined,
    Live,
}

#[derive(Clone, Debug, Default)]
struct Chart {
    every: i64,
    dims: BTreeSet<String>,
    slots: BTreeSet<i64>,
    /// The oldest point that was stored, an empty one included; 0 = none.
    first: i64,
    last_collected_us: i64,
    last_updated: i64,
    sent: Sent,
    /// The answers of its child are not complete.
    receiving: bool,
    /// What the child last said of itself, and the request answered before.
    offer: (i64, i64, i64),
}

impl Chart {
    /// Points are appended, never put between others.
    fn append(&mut self, at: i64, is_empty: bool) {
        if self.slots.last().is_none_or(|last| *last < at) {
            if self.first == 0 {
                self.first = at;
            }
            if !is_empty {
                self.slots.insert(at);
            }
        }
    }

    /// A collection, so long after the last one.
    fn collect(&mut self, since_us: i64, now_us: i64) {
        let floor = |us: i64| us.div_euclid(SECOND).div_euclid(self.every) * self.every;
        let mut is_first = false;
        if self.last_collected_us == 0 {
            self.last_collected_us = floor(now_us) * SECOND + SECOND / 2;
            is_first = true;
        } else if since_us == 0 {
            self.last_collected_us = self.last_collected_us.max(now_us);
        } else {
            self.last_collected_us += since_us;
        }
        let until = floor(self.last_collected_us);
        if self.last_updated == 0 {
            self.last_updated = until;
            is_first = true;
        }
        // Three slots or more without a collection are gaps, but for the last two.
        let mut next = floor(self.last_updated * SECOND) + self.every;
        next = next.max(if (until - next) / self.every + 1 >= 3 { until - self.every } else { 0 });
        while next <= until {
            self.append(next, is_first);
            self.last_updated = next;
            next += self.every;
        }
    }

    fn last(&self) -> i64 {
        self.last_updated.max(self.slots.last().copied().unwrap_or(0))
    }
}

#[derive(Default)]
pub(super) struct Seed {
    charts: BTreeMap<String, Chart>,
    /// Its child's words: the chart in scope, and the slot.
    scope: Option<String>,
    since_us: i64,
    slot: Option<(i64, bool)>,
    /// Requests that wait for an answer, with when they get it.
    asked: Vec<(i64, String, bool, i64, i64)>,
    /// It has a parent.
    pub(super) is_up: bool,
    pub(super) to_parent: Vec<u8>,
    pub(super) to_child: Vec<u8>,
}

impl Seed {
    /// What it collects itself.
    pub(super) fn own(&mut self, charts: &[(&str, i64, usize)]) {
        for (id, every, dims) in charts {
            let chart = self.charts.entry((*id).to_owned()).or_default();
            chart.every = *every;
            chart.dims = ["x", "y", "z"].iter().take(*dims).map(|dim| (*dim).to_owned()).collect();
        }
    }

    /// It ends and begins again: what is not on the disk yet is lost.
    pub(super) fn restart(&mut self, loses_after: i64) {
        for chart in self.charts.values_mut() {
            chart.slots.split_off(&loses_after);
            if chart.slots.is_empty() {
                chart.first = 0;
            }
            let (every, dims, slots) = (chart.every, chart.dims.clone(), chart.slots.clone());
            *chart = Chart { every, dims, slots, first: chart.first, ..Chart::default() };
        }
        let charts = std::mem::take(&mut self.charts);
        *self = Seed { charts, ..Seed::default() };
    }

    /// The slots it has of a chart and can tell: never the first one.
    pub(super) fn tells(&self) -> BTreeMap<String, BTreeSet<i64>> {
        let told =
            |chart: &Chart| chart.slots.iter().copied().filter(|at| *at > chart.first).collect();
        self.charts.iter().map(|(id, chart)| (id.clone(), told(chart))).collect()
    }

    pub(super) fn holds(&self, id: &str, at: i64) -> bool {
        self.charts.get(id).is_some_and(|chart| chart.slots.contains(&at))
    }

    /// Its interval and its oldest point.
    pub(super) fn shape(&self, id: &str) -> (i64, i64) {
        self.charts.get(id).map_or((1, 0), |chart| (chart.every, chart.first))
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.charts.contains_key(id)
    }

    // --- as a child ------------------------------------------------------------------------------------------

    pub(super) fn connected(&mut self) {
        self.is_up = true;
        self.to_parent.clear();
        self.asked.clear();
        for chart in self.charts.values_mut() {
            chart.sent = Sent::Nothing;
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.is_up = false;
        self.asked.clear();
    }

    /// Its own collectors.
    pub(super) fn collect(&mut self, id: &str, now_us: i64) {
        let Some(chart) = self.charts.get_mut(id) else { return };
        let since_us =
            if chart.last_collected_us == 0 { 0 } else { now_us - chart.last_collected_us };
        self.complete(id, since_us, now_us);
    }

    fn complete(&mut self, id: &str, since_us: i64, now_us: i64) {
        let Some(chart) = self.charts.get_mut(id) else { return };
        chart.collect(since_us, now_us);
        if !self.is_up || chart.receiving {
            return;
        }
        let out = &mut self.to_parent;
        let mut put = |line: String| out.extend_from_slice(line.as_bytes());
        match chart.sent {
            Sent::Nothing => {
                put(format!(
                    "CHART \"{id}\" \"\" \"t\" \"u\" \"f\" \"c\" \"line\" 1000 {} \"   \" \"p\" \"m\"\n",
                    chart.every
                ));
                for dim in &chart.dims {
                    put(format!("DIMENSION \"{dim}\" \"{dim}\" \"absolute\" 1 1 \"  \"\n"));
                }
                let last = chart.last();
                let first = if chart.slots.is_empty() { last } else { chart.first };
                let first = if first >= last && last > 0 { last - chart.every } else { first };
                put(format!("CHART_DEFINITION_END {first} {last} {}\n", now_us / SECOND));
                chart.sent = Sent::Defined;
            }
            Sent::Defined => {}
            Sent::Live => {
                put(format!("BEGIN \"{id}\" {since_us}\n"));
                for dim in &chart.dims {
                    put(format!("SET \"{dim}\" = {VALUE}\n"));
                }
                put("END\n".to_owned());
            }
        }
    }

    /// A parent's line.
    pub(super) fn hear_parent(&mut self, line: &str, now_us: i64, random: &mut Random) {
        let words = words(line);
        let [Some("REPLAY_CHART"), Some(id), Some(start), Some(after), Some(before)] =
            [0, 1, 2, 3, 4].map(|n| words.get(n).map(String::as_str))
        else {
            return;
        };
        // Of two that wait for the same chart the older one is kept.
        if self.asked.iter().any(|asked| asked.1 == id) {
            return;
        }
        let is_start = start == "true";
        // Another thread answers what is about the past alone, the oldest first of all hosts.
        let tenths = if is_start {
            0
        } else {
            if random.below(40) == 0 { 30 } else { random.below(2) as i64 }
        };
        let delay = tenths * SECOND / 10;
        let number = |text: &str| text.parse().unwrap_or(0);
        self.asked.push((now_us + delay, id.to_owned(), is_start, number(after), number(before)));
    }

    /// Answers what is due.
    pub(super) fn answer(&mut self, now_us: i64, random: &mut Random) {
        let due = self.asked.iter().position(|asked| asked.0 <= now_us);
        let Some((_, id, start, after, before)) = due.map(|n| self.asked.remove(n)) else { return };
        let Some(chart) = self.charts.get_mut(&id) else { return };
        let (every, first, mut last) = (chart.every, chart.first, chart.last());
        let (asked_after, asked_before) = (after.min(before), after.max(before));
        let is_empty = after == 0 || before == 0;
        let (mut after, mut before) = (asked_after.max(first), asked_before.min(last));
        if start {
            before = last;
        }
        let mut lives = is_empty || start || before >= last;
        let out = &mut self.to_parent;
        let mut put = |line: String| out.extend_from_slice(line.as_bytes());
        put(format!("RBEGIN \"{id}\"\n"));
        let wall = now_us / SECOND;
        if is_empty {
            put_state(&mut put, chart);
            (after, before) = (0, 0);
        } else {
            let mut at = after.div_euclid(every) * every + every;
            while at <= before && chart.slots.contains(&at) {
                put(format!("RBEGIN '' {} {at} {wall}\n", at - every));
                for dim in &chart.dims {
                    put(format!("RSET \"{dim}\" {VALUE}.0000000 \"\"\n"));
                }
                at += every;
            }
            after = asked_after;
            if start && random.below(8) == 0 {
                // The second has changed meanwhile.
                lives = false;
                last -= every * random.below(2) as i64;
            }
            if lives {
                put_state(&mut put, chart);
            }
        }
        put(format!("REND {every} {first} {last} {lives} {after} {before} {wall}\n"));
        if lives {
            chart.sent = Sent::Live;
        }
    }

    // --- as a parent -----------------------------------------------------------------------------------------

    pub(super) fn child_connected(&mut self) {
        self.to_child.clear();
        self.child_left();
    }

    pub(super) fn child_left(&mut self) {
        self.scope = None;
        self.slot = None;
        for chart in self.charts.values_mut() {
            chart.receiving = false;
        }
    }

    /// A child's line; an error is what a real one ends the connection for.
    pub(super) fn hear_child(&mut self, line: &str, now_us: i64) -> Result<(), String> {
        let words = words(line);
        let word = |n: usize| words.get(n).map_or("", String::as_str);
        let number = |n: usize| word(n).parse::<i64>().unwrap_or(0);
        let keyword = word(0);
        if matches!(keyword, "RBEGIN" | "RDSTATE" | "RSSTATE" | "REND") {
            self.store_slot();
        }
        if (keyword == "RBEGIN" && !word(1).is_empty()) || matches!(keyword, "CHART" | "BEGIN") {
            if keyword == "CHART" {
                let chart = self.charts.entry(word(1).to_owned()).or_default();
                chart.every = number(9).max(1);
            } else if !self.charts.contains_key(word(1)) {
                return Err(format!("a real parent does not know what '{line}' is about"));
            }
            self.scope = Some(word(1).to_owned());
            self.since_us = number(2);
            return Ok(());
        }
        let known = ["DIMENSION", "CHART_DEFINITION_END", "RBEGIN", "RSET", "RDSTATE", "RSSTATE"];
        if !known.contains(&keyword) && !matches!(keyword, "REND" | "SET" | "END") {
            return match keyword {
                "" | "LABEL" | "OVERWRITE" | "CLAIMED_ID" | "CLABEL" | "CLABEL_COMMIT" => Ok(()),
                "VARIABLE" | "FUNCTION" | "HOST" => Ok(()),
                _ => Err(format!("a real parent does not know the word of '{line}'")),
            };
        }
        let Some(id) = self.scope.clone() else {
            return Err(format!("a real parent has no chart for '{line}'"));
        };
        let Some(chart) = self.charts.get_mut(&id) else { return Ok(()) };
        match keyword {
            "DIMENSION" => {
                chart.dims.insert(word(1).to_owned());
            }
            "CHART_DEFINITION_END" if !std::mem::replace(&mut chart.receiving, true) => {
                chart.offer = (number(1), number(2), number(3));
                self.ask(&id, (0, 0), now_us);
            }
            "RBEGIN" => {
                let (start, end, wall) = (number(2), number(3), number(4));
                let is_right = start > 0 && start < end && end < wall + chart.every + 1;
                self.slot = is_right.then_some((end, true));
            }
            "RSET" | "SET" | "RDSTATE" if !chart.dims.contains(word(1)) => {
                return Err(format!("a real parent has no dimension for '{line}'"));
            }
            "RSET" => {
                if let Some((_, is_empty)) = &mut self.slot {
                    let value = word(2).parse::<f64>().unwrap_or(f64::NAN);
                    *is_empty &= value.is_nan() || word(3).contains('E');
                }
            }
            "RSSTATE" => {
                chart.last_collected_us = chart.last_collected_us.max(number(1));
                chart.last_updated = chart.last_updated.max(number(2) / SECOND);
            }
            "REND" => {
                if words.len() < 7 {
                    return Err(format!("a real parent misses words of '{line}'"));
                }
                self.scope = None;
                if word(4) == "true" {
                    chart.receiving = false;
                } else {
                    chart.offer = (number(2), number(3), now_us / SECOND);
                    self.ask(&id, (number(5), number(6)), now_us);
                }
            }
            "END" => {
                self.scope = None;
                let since_us = self.since_us;
                self.complete(&id, since_us, now_us);
            }
            _ => {}
        }
        Ok(())
    }

    fn store_slot(&mut self) {
        if let Some((at, is_empty)) = self.slot.take()
            && let Some(chart) = self.scope.as_ref().and_then(|id| self.charts.get_mut(id))
        {
            chart.append(at, is_empty);
            chart.last_updated = at;
            chart.last_collected_us = at * SECOND;
        }
    }

    /// Asks for what comes after its newest sample.
    fn ask(&mut self, id: &str, previous: (i64, i64), now_us: i64) {
        let Some(chart) = self.charts.get(id) else { return };
        let now = now_us / SECOND;
        let (first, last, _) = chart.offer;
        let local = chart.last().min(now);
        let from = match (previous, local) {
            ((after, before), _) if after != 0 && before != 0 => before,
            (_, local) if local > 0 => local,
            _ => now - PERIOD,
        };
        let mut ask = (true, 0, 0);
        if first > 0 && last > 0 && first <= last && local <= last && !chart.dims.is_empty() {
            let mut after = from.max(first);
            let before = if now - after > STEP { after + STEP } else { now }.min(last);
            after = after.min(before);
            ask = (now - after <= STEP || before == last, after, before);
        }
        let (start, after, before) = ask;
        let line = format!("REPLAY_CHART \"{id}\" \"{start}\" {after} {before}\n");
        self.to_child.extend_from_slice(line.as_bytes());
    }
}

fn put_state(put: &mut impl FnMut(String), chart: &Chart) {
    let us = chart.last_collected_us;
    for dim in &chart.dims {
        put(format!("RDSTATE \"{dim}\" {us} {VALUE} {VALUE}.0000000 {VALUE}.0000000\n"));
    }
    put(format!("RSSTATE {us} {}\n", chart.last_updated * SECOND));
}

/// The words of a line, as 1.37.1 takes them apart.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start_matches([' ', '=']);
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' | '\'' => rest[1..].split_once(first).unwrap_or((&rest[1..], "")),
            _ => rest.split_once([' ', '=']).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start_matches([' ', '=']);
    }
    words
}
