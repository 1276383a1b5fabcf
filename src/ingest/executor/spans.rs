//! Words between nodes of ours (capability SPANS): what the other end holds and does not collect, and what it wants.
//!
//! `ARCHIVED` names a chart that does not flow on this connection, `ARCHIVED_DIM` its dimensions; `OFFER` says which span of
//! it there is. Nothing here touches a chart that is live, but for dimensions it lacks: those are added as obsolete ones,
//! so whatever nobody collects goes its usual way to the archive.

use std::sync::Arc;

use super::commands::{id_text, text};
use super::{Executor, NONE, Offer, Violation};
use crate::base::time::UpdateEvery;
use crate::metrics::{
    Algorithm, ChartOptions, ChartSpec, ChartType, DimensionOptions, DimensionSpec,
};
use crate::wire::numbers;
use crate::wire::words::Words;

/// Dimensions of one archived chart that are looked at on their own.
const DIMENSIONS_MAX: usize = 4096;

impl Executor {
    pub(super) fn archived_chart(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        self.leave();
        self.old_dims.clear();
        if !self.hooks.wants_archived(&self.session.host) {
            return Ok(());
        }
        let id = words.next().map(id_text).unwrap_or_default();
        let index = match self.session.by_id(&id) {
            Some(index) => index,
            None => {
                let [
                    name,
                    title,
                    units,
                    family,
                    context,
                    kind,
                    priority,
                    every,
                    options,
                    plugin,
                    module,
                ] = words.take_words::<11>();
                let (kind, options) = (text(kind), ChartOptions::parse(&text(options)));
                let spec = ChartSpec {
                    id: &id,
                    name: &text(name),
                    title: &text(title),
                    units: &text(units),
                    family: &text(family),
                    context: &text(context),
                    chart_type: ChartType::parse(&kind),
                    priority: priority.map_or(1000, numbers::plain_integer),
                    update_every: UpdateEvery::clamped(every.map_or(1, numbers::plain_integer)),
                    options: Some(options | ChartOptions::OBSOLETE),
                    plugin: &text(plugin),
                    module: &text(module),
                };
                let Ok(chart) = self.session.host.define_chart(&spec) else { return Ok(()) };
                let Some(index) = self.session.adopt(chart) else { return Ok(()) };
                index
            }
        };
        self.enter(index);
        Ok(())
    }

    pub(super) fn archived_dimension(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let Some(known) = self.session.chart_mut(self.chart) else { return Ok(()) };
        let id = words.next().map(id_text).unwrap_or_default();
        if id.is_empty() || self.old_dims.len() >= DIMENSIONS_MAX {
            return Ok(());
        }
        let chart = Arc::clone(&known.chart);
        let mut state = chart.lock();
        if state.dimension_index(&id).is_none() {
            let [name, algorithm, multiplier, divisor, options] = words.take_words();
            let spec = DimensionSpec {
                id: &id,
                name: &text(name),
                algorithm: Algorithm::parse(&text(algorithm)),
                multiplier: multiplier.and_then(numbers::c_integer).unwrap_or(1),
                divisor: divisor.and_then(numbers::c_integer).unwrap_or(1),
                options: DimensionOptions::parse(&text(options)) | DimensionOptions::OBSOLETE,
            };
            if chart.define_dimension_locked(&mut state, &spec).is_err() {
                return Ok(());
            }
        }
        let id = state.dimension(&id).map(|dim| Arc::clone(&dim.id));
        drop(state);
        known.look();
        self.old_dims.extend(id);
        Ok(())
    }

    pub(super) fn offer(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let [id, first, last, wall] = words.take_words();
        let id = id.map(id_text).unwrap_or_default();
        let number = |word: Option<&[u8]>| word.and_then(numbers::integer).unwrap_or(0);
        let offer = Offer { first: number(first), last: number(last), wall: number(wall) };
        let dims = std::mem::take(&mut self.old_dims);
        let scope = std::mem::replace(&mut self.chart, NONE);
        self.leave();
        let known = self.session.by_id(&id).and_then(|index| {
            let chart = Arc::clone(&self.session.chart(index)?.chart);
            Some((chart, index == scope))
        });
        let Some((chart, in_scope)) = known else { return Ok(()) };
        let host = Arc::clone(&self.session.host);
        self.hooks.offered(&host, &chart, offer, if in_scope { &dims } else { &[] });
        Ok(())
    }

    pub(super) fn digest(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let [number, id, after, before, dim] = words.take_words();
        let integer = |word: Option<&[u8]>| word.and_then(numbers::integer).unwrap_or(0);
        let number = number.and_then(numbers::unsigned).unwrap_or(0);
        let (id, dim) = (id.map(id_text).unwrap_or_default(), dim.map(id_text).unwrap_or_default());
        let dim = (!dim.is_empty()).then_some(&*dim);
        self.hooks.digest(number, &id, integer(after), integer(before), dim);
        Ok(())
    }

    pub(super) fn digest_is(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let [number, samples, sum] = words.take_words();
        let unsigned = |word: Option<&[u8]>| word.and_then(numbers::unsigned).unwrap_or(0);
        self.hooks.digest_is(unsigned(number), unsigned(samples), unsigned(sum));
        Ok(())
    }

    pub(super) fn replay_request(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let [id, start, after, before] = words.take_words();
        let number = |word: Option<&[u8]>| word.and_then(numbers::integer).unwrap_or(0).max(0);
        let id = id.map(id_text).unwrap_or_default();
        if !id.is_empty() {
            self.hooks.asked(&id, start == Some(b"true"), number(after), number(before));
        }
        Ok(())
    }
}
