//! A dimension: one series of a chart, with its collection state and its storage writer.

use std::sync::Arc;

use bitflags::bitflags;

use crate::base::number::Sample;
use crate::storage::{Metric, Reader, Writer};

/// How collected values become stored ones. Numbers are those of metadata and file headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    #[default]
    Absolute = 0,
    Incremental = 1,
    PercentageOfIncrementalRow = 2,
    PercentageOfAbsoluteRow = 3,
}

impl Algorithm {
    /// Unknown words mean absolute, as real agents read them.
    pub fn parse(word: &str) -> Algorithm {
        match word {
            "incremental" => Algorithm::Incremental,
            "percentage-of-incremental-row" => Algorithm::PercentageOfIncrementalRow,
            "percentage-of-absolute-row" => Algorithm::PercentageOfAbsoluteRow,
            _ => Algorithm::Absolute,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Absolute => "absolute",
            Algorithm::Incremental => "incremental",
            Algorithm::PercentageOfIncrementalRow => "percentage-of-incremental-row",
            Algorithm::PercentageOfAbsoluteRow => "percentage-of-absolute-row",
        }
    }
}

bitflags! {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DimensionOptions: u8 {
        const HIDDEN = 1;
        const OBSOLETE = 2;
        /// A decrease of a counter is taken as it comes, not as a reset or overflow.
        const NO_RESET = 4;
    }
}

impl DimensionOptions {
    /// Looks for the option words as substrings, as every agent does.
    pub fn parse(words: &str) -> DimensionOptions {
        let mut options = DimensionOptions::empty();
        options.set(DimensionOptions::HIDDEN, words.contains("hidden"));
        options.set(DimensionOptions::OBSOLETE, words.contains("obsolete"));
        options.set(
            DimensionOptions::NO_RESET,
            words.contains("noreset") || words.contains("nooverflow"),
        );
        options
    }
}

/// What a DIMENSION line says.
#[derive(Clone, Copy, Debug)]
pub struct DimensionSpec<'a> {
    pub id: &'a str,
    /// Empty means the id.
    pub name: &'a str,
    pub algorithm: Algorithm,
    /// Zero means one.
    pub multiplier: i64,
    /// Zero means one.
    pub divisor: i64,
    pub options: DimensionOptions,
}

pub struct Dimension {
    pub id: Arc<str>,
    pub name: Arc<str>,
    pub algorithm: Algorithm,
    pub options: DimensionOptions,
    pub multiplier: i64,
    pub divisor: i64,

    /// Set in the collection under way.
    pub updated: bool,
    /// Collections this dimension took part in; the first is never stored.
    pub collections: u32,
    /// The value of the collection under way, or of the last one.
    pub collected: i64,
    pub last_collected: i64,
    /// Largest magnitude ever collected: tells 32-bit counters from 64-bit ones when one wraps.
    pub collected_max: u64,
    /// Rate or value computed from the collection under way, not yet spent on slots.
    pub calculated: f64,
    /// Previous value (absolute) or unspent remainder (incremental).
    pub last_calculated: f64,
    /// Microseconds since 1970 of the last collection.
    pub last_collected_us: i64,
    /// What the slot just stored holds; [`Sample::EMPTY`] for a gap.
    pub current: Sample,
    /// The value behind the newest slot, as computed or received, before packing; NaN for a gap.
    pub latest: f64,

    /// Bits of the last final value received and what it packs to: most series repeat themselves.
    pub(super) packed_from: u64,
    pub(super) packed: Sample,

    pub(super) writer: Box<dyn Writer>,
    pub reader: Arc<dyn Reader>,
}

impl Dimension {
    /// One that was never collected.
    pub(super) fn new(
        id: Arc<str>,
        name: Arc<str>,
        spec: &DimensionSpec<'_>,
        metric: Metric,
    ) -> Dimension {
        let or_one = |n: i64| if n == 0 { 1 } else { n };
        Dimension {
            id,
            name,
            algorithm: spec.algorithm,
            options: spec.options,
            multiplier: or_one(spec.multiplier),
            divisor: or_one(spec.divisor),
            updated: false,
            collections: 0,
            collected: 0,
            last_collected: 0,
            collected_max: 0,
            calculated: 0.0,
            last_calculated: 0.0,
            last_collected_us: 0,
            current: Sample::EMPTY,
            latest: f64::NAN,
            packed_from: 0,
            packed: Sample::normal(0.0),
            writer: metric.writer,
            reader: metric.reader,
        }
    }

    pub fn is_hidden(&self) -> bool {
        self.options.contains(DimensionOptions::HIDDEN)
    }

    pub fn is_obsolete(&self) -> bool {
        self.options.contains(DimensionOptions::OBSOLETE)
    }

    /// Has been collected at all, by anybody, in this run.
    pub fn was_collected(&self) -> bool {
        self.collections > 0
    }
}
