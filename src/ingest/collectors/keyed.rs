//! Files of named values and the charts that show them.
//!
//! A table of [`KeyedDef`] says which values make which chart. The places of the wanted values in the file are learned
//! once and verified at every reading: a file keeps its order as long as the kernel runs, give or take a line, and a
//! line that moved means learning again.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use super::chart::{At, ChartDef, DECLARED_DIMS_MAX, Row};
use super::procfile::{lines, words, words_and_colons};
use super::setup::Setup;
use crate::config::OnDemand;

/// A chart whose values are keys of a file. A key is that of its dimension or, written `group:key`, one of another group.
pub struct KeyedDef {
    /// The option that switches it.
    pub option: &'static str,
    /// What stands before the keys: the word that begins the line, or a part of each key.
    pub group: &'static str,
    pub chart: ChartDef,
    /// This chart and the one after it come into being together.
    pub with_next: bool,
}

/// The values wanted of a file.
#[derive(Default)]
pub struct Keys {
    names: Vec<(&'static str, &'static str)>,
    values: Vec<i64>,
    present: Vec<bool>,
}

impl Keys {
    pub fn new(names: &[&'static str]) -> Keys {
        let mut keys = Keys::default();
        for name in names {
            keys.slot("", name);
        }
        keys
    }

    /// Where the value of a key is kept; asked for once, while setting up.
    pub fn slot(&mut self, group: &'static str, key: &'static str) -> usize {
        if let Some(slot) = self.names.iter().position(|&name| name == (group, key)) {
            return slot;
        }
        self.names.push((group, key));
        self.values.push(0);
        self.present.push(false);
        self.names.len() - 1
    }

    /// The value at the last reading; 0 when the file did not have it.
    #[inline]
    pub fn get(&self, slot: usize) -> i64 {
        self.values[slot]
    }

    /// The value at the last reading, if the file had it.
    pub fn find(&self, slot: usize) -> Option<i64> {
        self.present[slot].then_some(self.values[slot])
    }

    fn set(&mut self, slot: usize, value: i64) {
        self.values[slot] = value;
        self.present[slot] = true;
    }

    fn clear(&mut self) {
        self.values.fill(0);
        self.present.fill(false);
    }

    fn slot_of(&self, group: &[u8], key: &[u8]) -> Option<usize> {
        self.names.iter().position(|(g, k)| g.as_bytes() == group && k.as_bytes() == key)
    }

    /// What follows the key of `slot`, with its group before it, if the line begins with them.
    #[inline]
    fn after_key<'l>(&self, slot: usize, line: &'l [u8]) -> Option<&'l [u8]> {
        let (group, key) = self.names[slot];
        let rest = line.strip_prefix(group.as_bytes())?.strip_prefix(key.as_bytes())?;
        rest.first().is_none_or(|b| matches!(b, b' ' | b'\t' | b':')).then_some(rest)
    }

    /// Reads `group: key value key value`, the form of /proc/net/sockstat.
    pub fn read_pairs(&mut self, text: &[u8]) {
        self.clear();
        for line in lines(text) {
            let mut words = words_and_colons(line);
            let Some(group) = words.next() else { continue };
            while let Some(key) = words.next() {
                let value = words.number();
                if let Some(slot) = self.slot_of(group, key) {
                    self.set(slot, value);
                }
            }
        }
    }
}

/// One key and its value per line: /proc/vmstat, /proc/meminfo, /proc/net/snmp6.
#[derive(Default)]
pub struct LineLayout {
    /// Line number and slot of every wanted key, in the order of the file.
    places: Vec<(u32, u16)>,
    lines: u32,
}

impl LineLayout {
    pub fn read(&mut self, text: &[u8], keys: &mut Keys) {
        if !self.read_learned(text, keys) {
            self.learn(text, keys);
        }
    }

    fn read_learned(&self, text: &[u8], keys: &mut Keys) -> bool {
        keys.clear();
        let mut places = self.places.iter();
        let mut place = places.next();
        let mut count = 0;
        for (line, number) in lines(text).zip(0u32..) {
            count += 1;
            let Some(&(at, slot)) = place.filter(|place| place.0 == number) else { continue };
            debug_assert_eq!(at, number);
            let slot = usize::from(slot);
            let Some(rest) = keys.after_key(slot, line) else { return false };
            keys.set(slot, words_and_colons(rest).number());
            place = places.next();
        }
        place.is_none() && count == self.lines
    }

    fn learn(&mut self, text: &[u8], keys: &mut Keys) {
        keys.clear();
        self.places.clear();
        self.lines = 0;
        for (line, number) in lines(text).zip(0u32..) {
            self.lines = number + 1;
            let found =
                (0..keys.names.len()).find_map(|slot| Some((slot, keys.after_key(slot, line)?)));
            let Some((slot, rest)) = found else { continue };
            let Ok(short) = u16::try_from(slot) else { continue };
            keys.set(slot, words_and_colons(rest).number());
            self.places.push((number, short));
        }
    }
}

/// Pairs of lines, `group: key key …` above `group: value value …`: /proc/net/netstat, /proc/net/snmp.
#[derive(Default)]
pub struct HeadedLayout {
    heads: Vec<Head>,
}

struct Head {
    /// Of the line of keys: the same hash means the same places.
    hash: u64,
    /// Column and slot of every wanted key, from left to right.
    columns: Vec<(u32, u16)>,
}

impl HeadedLayout {
    /// Reads into `keys` without clearing first, as several files may share them.
    pub fn read(&mut self, text: &[u8], keys: &mut Keys) {
        let mut lines = lines(text);
        let mut pair = 0;
        while let (Some(head), Some(row)) = (lines.next(), lines.next()) {
            let mut hasher = FxHasher::default();
            hasher.write(head);
            let hash = hasher.finish();
            if self.heads.get(pair).is_none_or(|known| known.hash != hash) {
                self.heads.truncate(pair);
                self.heads.push(Head { hash, columns: learn_columns(head, keys) });
            }
            let mut columns = self.heads[pair].columns.iter();
            let mut next = columns.next();
            for (word, column) in words(row).skip(1).zip(0u32..) {
                let Some(&(at, slot)) = next else { break };
                if at == column {
                    keys.set(usize::from(slot), super::procfile::number(word));
                    next = columns.next();
                }
            }
            pair += 1;
        }
    }
}

fn learn_columns(head: &[u8], keys: &Keys) -> Vec<(u32, u16)> {
    let mut words = words_and_colons(head);
    let Some(group) = words.next() else { return Vec::new() };
    let places = words
        .zip(0u32..)
        .filter_map(|(key, column)| Some((column, u16::try_from(keys.slot_of(group, key)?).ok()?)));
    places.collect()
}

/// The charts of a table over one set of keys.
pub struct KeyedRows {
    keys: Keys,
    rows: Vec<KeyedRow>,
}

struct KeyedRow {
    row: Row,
    slots: Box<[u16]>,
    with_next: bool,
}

impl KeyedRows {
    /// The tables with their options, each with the section they are in.
    pub fn new(setup: &Setup, tables: &[(&str, &'static [KeyedDef])]) -> KeyedRows {
        let mut keys = Keys::default();
        let mut rows = Vec::new();
        for (section, table) in tables {
            for def in *table {
                let when = setup.when(section, def.option, OnDemand::Auto);
                let slot = |keys: &mut Keys, dim: &super::chart::DimDef| {
                    let key = if dim.key.is_empty() { dim.id } else { dim.key };
                    let (group, key) = key.split_once(':').unwrap_or((def.group, key));
                    u16::try_from(keys.slot(group, key)).unwrap_or(u16::MAX)
                };
                let slots = def.chart.dims.iter().map(|dim| slot(&mut keys, dim)).collect();
                let row = Row::new(&def.chart, when);
                rows.push(KeyedRow { row, slots, with_next: def.with_next });
            }
        }
        KeyedRows { keys, rows }
    }

    pub fn keys(&mut self) -> &mut Keys {
        &mut self.keys
    }

    pub fn clear(&mut self) {
        self.keys.clear();
    }

    pub fn collect(&mut self, at: At<'_>) {
        for i in 0..self.rows.len() {
            if self.rows[i].with_next {
                self.pair(i);
            }
            let KeyedRow { row, slots, .. } = &mut self.rows[i];
            let mut values = [0; DECLARED_DIMS_MAX];
            let values = gather(&self.keys, slots, &mut values);
            row.collect(at, values);
        }
    }

    /// If one of two charts has something to show, so has the other.
    fn pair(&mut self, first: usize) {
        let Some(pair) = self.rows.get_mut(first..first + 2) else { return };
        if pair.iter().all(|keyed| keyed.row.chart().is_some()) {
            return;
        }
        let mut values = [0; DECLARED_DIMS_MAX];
        let shows =
            |keyed: &KeyedRow| keyed.row.would_show(gather(&self.keys, &keyed.slots, &mut values));
        if pair.iter().map(shows).fold(false, |a, b| a | b) {
            pair.iter_mut().for_each(|keyed| keyed.row.want());
        }
    }
}

fn gather<'v>(keys: &Keys, slots: &[u16], values: &'v mut [i64; DECLARED_DIMS_MAX]) -> &'v [i64] {
    for (value, &slot) in values.iter_mut().zip(slots) {
        *value = keys.get(usize::from(slot));
    }
    &values[..slots.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_learned_and_learned_again_when_they_move() {
        let mut keys = Keys::new(&["b", "d", "x"]);
        let mut layout = LineLayout::default();
        let mut check = |text: &[u8], expected: [Option<i64>; 3]| {
            layout.read(text, &mut keys);
            assert_eq!([keys.find(0), keys.find(1), keys.find(2)], expected);
        };
        for _ in 0..2 {
            check(b"a 1\nb 2\nc 3\nd 4\n", [Some(2), Some(4), None]);
        }
        check(b"b: 5 kB\nc: 6\nd: 7 kB\n", [Some(5), Some(7), None]);
        check(b"b 5\nc 6\nd 7\nx 8\n", [Some(5), Some(7), Some(8)]);
        check(b"", [None, None, None]);
        check(b"x 1\n", [None, None, Some(1)]);
    }

    #[test]
    fn columns_are_learned_and_learned_again_when_the_head_changes() {
        let mut keys = Keys::default();
        let (drops, mem) = (keys.slot("Tcp", "Drops"), keys.slot("Udp", "Mem"));
        let mut layout = HeadedLayout::default();
        let mut check = |text: &[u8], expected: (i64, i64)| {
            keys.clear();
            layout.read(text, &mut keys);
            assert_eq!((keys.get(drops), keys.get(mem)), expected);
        };
        for n in 1..3 {
            let text = format!("Tcp: A Drops\nTcp: 1 {n}\nUdp: Mem\nUdp: -5\n");
            check(text.as_bytes(), (n, -5));
        }
        check(b"Tcp: A B Drops\nTcp: 1 2 9\nUdp: Mem\nUdp: 6\n", (9, 6));
        check(b"Udp: Mem Drops\nUdp: 7 8\n", (0, 7));
        check(b"Tcp: A B Drops\nTcp: 1\n", (0, 0));
    }

    #[test]
    fn pairs_belong_to_their_group() {
        let mut keys = Keys::default();
        let (tcp, udp) = (keys.slot("TCP", "inuse"), keys.slot("UDP", "inuse"));
        keys.read_pairs(b"sockets: used 9\nTCP: inuse 1 mem 2\nUDP: inuse 3\nTCP6: inuse 4\n");
        assert_eq!((keys.get(tcp), keys.get(udp)), (1, 3));
    }
}
