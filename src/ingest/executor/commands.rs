//! Every command, read by the general rules of words.
//!
//! The table is [`Executor::feed_slow`]. Missing words, odd numbers and the like are treated as real agents treat them;
//! where those crash, the line is a violation instead.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::limits::{self, Exceeded, Limits};
use super::session::SLOT_MAX;
use super::{Executor, Origin, Violation};
use crate::base::ids::{MachineGuid, parse_uuid};
use crate::base::number::SampleFlags;
use crate::base::time::{UnixMicros, UpdateEvery};
use crate::ingest::functions::TIMEOUT_DEFAULT;
use crate::metrics::chart::DimensionError;
use crate::metrics::host::ChartError;
use crate::metrics::{
    Algorithm, Chart, ChartOptions, ChartSpec, ChartType, DimensionOptions, DimensionSpec,
    Function, FunctionProvider, LabelSource, Labels, PointValue, Staged,
};
use crate::wire::caps::Capabilities;
use crate::wire::numbers;
use crate::wire::words::Words;

/// Longest id of a chart or dimension; longer ones are cut, wherever they stand.
pub(super) const ID_MAX: usize = 1000;

/// Latest end of a slot anyone may claim: the year 9999.
pub(super) const TIME_MAX: i64 = 253_402_300_799;

/// Longest time between two collections a BEGIN may claim: 30 years. More is no duration.
const SINCE_MAX_US: i64 = 30 * 365 * 86_400 * 1_000_000;

const PRIORITY_DEFAULT: i64 = 1000;
const FUNCTION_PRIORITY_DEFAULT: i64 = 100;

/// Labels of a chart that no CLABEL_COMMIT removes.
const PERMANENT: &[&str] = &["_collect_plugin", "_collect_module"];

impl Executor {
    #[inline(never)]
    pub(super) fn feed_slow(&mut self, line: &[u8], now: UnixMicros) -> Result<(), Violation> {
        let mut words = Words::new(line, self.rules);
        if self.body.is_some() {
            return self.body_line(line, words.next());
        }
        let Some(keyword) = words.next() else { return Ok(()) };
        let plugin = self.origin == Origin::Plugin;
        match keyword {
            b"SET" => self.set(line, words),
            b"BEGIN" => self.begin_line(line, words),
            b"END" => self.end(now),
            b"SET2" if self.interpolated => self.set2(line, words),
            b"BEGIN2" if self.interpolated => self.begin2(line, words),
            b"END2" if self.interpolated => self.end2(),
            b"CHART" => self.define_chart(words),
            b"DIMENSION" => self.define_dimension(words),
            b"CLABEL" => self.chart_label(words),
            b"CLABEL_COMMIT" => self.commit_chart_labels(),
            b"VARIABLE" => self.variable(words),
            b"LABEL" => self.host_label(words),
            b"OVERWRITE" => self.overwrite_labels(),
            b"FLUSH" => self.forget_chart(),
            b"FUNCTION" => self.function(words),
            b"FUNCTION_RESULT_BEGIN" => self.begin_result(words),
            b"FUNCTION_PROGRESS" if plugin || self.agreed(Capabilities::PROGRESS) => {
                self.progress(words)
            }
            b"DISABLE" => Err(Violation::Disabled),
            b"CLAIMED_ID" if !plugin => self.claimed(words),
            b"JSON" if self.agreed(Capabilities::PATHS | Capabilities::MLMODELS) => {
                self.begin_json(words)
            }
            b"EXIT" if plugin => Err(Violation::Quit("EXIT")),
            b"QUIT" if plugin => Err(Violation::Quit("QUIT")),
            b"HOST_DEFINE" if plugin => self.begin_node(words),
            b"HOST_LABEL" if plugin => self.node_label(words),
            b"HOST_DEFINE_END" if plugin => self.end_node(),
            b"HOST" if plugin => self.switch_node(words),
            b"TRUST_DURATIONS" if plugin => {
                self.trust_durations = words.next().is_some_and(|w| numbers::plain_integer(w) != 0);
                Ok(())
            }
            b"PLUGIN_KEEPALIVE" | b"CONFIG" if plugin => Ok(()),
            // The first form of dynamic configuration, which nobody speaks any more.
            dyncfg if plugin && dyncfg.starts_with(b"DYNCFG_") => Ok(()),
            b"ARCHIVED" if self.agreed(Capabilities::SPANS) => self.archived_chart(words),
            b"ARCHIVED_DIM" if self.agreed(Capabilities::SPANS) => self.archived_dimension(words),
            b"OFFER" if self.agreed(Capabilities::SPANS) => self.offer(words),
            b"DIGEST" if self.agreed(Capabilities::SPANS) => self.digest(words),
            b"DIGEST_IS" if self.agreed(Capabilities::SPANS) => self.digest_is(words),
            b"REPLAY_CHART" if self.agreed(Capabilities::SPANS) => self.replay_request(words),
            b"CHART_DEFINITION_END" if self.agreed(Capabilities::REPLICATION) => {
                self.definition_end(words)
            }
            b"RBEGIN" if self.agreed(Capabilities::REPLICATION) => self.replay_begin(words, now),
            b"RSET" if self.agreed(Capabilities::REPLICATION) => self.replay_set(line, words),
            b"RDSTATE" if self.agreed(Capabilities::REPLICATION) => self.replay_dimension(words),
            b"RSSTATE" if self.agreed(Capabilities::REPLICATION) => self.replay_state(words),
            b"REND" if self.agreed(Capabilities::REPLICATION) => self.replay_end(words, now),
            unknown => {
                let word = String::from_utf8_lossy(&unknown[..unknown.len().min(100)]);
                let word = word.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
                Err(Violation::Unknown { host: self.hostname(), word })
            }
        }
    }

    pub(super) fn agreed(&self, any: Capabilities) -> bool {
        matches!(self.origin, Origin::Stream(caps) if caps.intersects(any))
    }

    // --- words -------------------------------------------------------------------------------------

    pub(super) fn hostname(&self) -> String {
        self.session.host.hostname()
    }

    pub(super) fn malformed(&self, command: &'static str, problem: &'static str) -> Violation {
        Violation::Malformed { host: self.hostname(), command, problem }
    }

    pub(super) fn exceeded(&self, what: &'static str, by: Exceeded) -> Violation {
        let Exceeded { limit, allowed } = by;
        Violation::Limit { host: self.hostname(), what, limit, allowed }
    }

    /// A definition costs a child some of what it may ask for.
    fn charge(
        &mut self,
        what: &'static str,
        cost: fn(&mut Limits, UnixMicros) -> Result<(), Exceeded>,
    ) -> Result<(), Violation> {
        let now = self.now;
        match self.limits.as_mut().map_or(Ok(()), |limits| cost(limits, now)) {
            Ok(()) => Ok(()),
            Err(by) => Err(self.exceeded(what, by)),
        }
    }

    /// The chart in scope, or the violation of `command`, which needs one made by `needs`.
    pub(super) fn scope(
        &self,
        command: &'static str,
        needs: &'static str,
    ) -> Result<Arc<Chart>, Violation> {
        let known = self.session.chart(self.chart);
        known.map(|known| Arc::clone(&known.chart)).ok_or(Violation::NoChart { command, needs })
    }

    /// Takes the `SLOT:n` word, if it is the next one and such words exist here. 0 = none.
    pub(super) fn take_slot(
        &self,
        words: &mut Words<'_>,
        command: &'static str,
    ) -> Result<u64, Violation> {
        let mut ahead = words.clone();
        match ahead.next().and_then(|word| word.strip_prefix(b"SLOT:")) {
            Some(number) if self.slots => {
                *words = ahead;
                let slot = numbers::unsigned(number).unwrap_or(0);
                let beyond = slot > SLOT_MAX;
                if beyond {
                    Err(self.malformed(command, "with a slot too large"))
                } else {
                    Ok(slot)
                }
            }
            _ => Ok(0),
        }
    }

    // --- samples, old form ---------------------------------------------------------------------------

    fn begin_line(&mut self, line: &[u8], mut words: Words<'_>) -> Result<(), Violation> {
        let chart = self.named_chart(&mut words, "BEGIN")?;
        self.learn_begin(chart, start(line, b"BEGIN ", &words));
        let since_us = words.next().map_or(0, numbers::plain_integer);
        self.begin(chart, believable(since_us));
        Ok(())
    }

    /// The next line that begins like this one is recognised without reading its words.
    fn learn_begin(&mut self, chart: u32, start: Option<&[u8]>) {
        if let (Some(start), Some(known)) = (start, self.session.chart_mut(chart)) {
            known.learn_begin(start);
        }
    }

    pub(super) fn learn(&mut self, dim: u32, start: Option<&[u8]>) {
        if let (Some(start), Some(known)) = (start, self.session.chart_mut(self.chart)) {
            known.learn(dim, start);
        }
    }

    /// The chart that the next words name, by slot or id.
    pub(super) fn named_chart(
        &mut self,
        words: &mut Words<'_>,
        command: &'static str,
    ) -> Result<u32, Violation> {
        let slot = self.take_slot(words, command)?;
        let id = words.next().filter(|id| !id.is_empty());
        let Some(id) = id.map(id_text) else {
            return Err(Violation::BeginNothing { host: self.hostname() });
        };
        let by_slot = if slot == 0 { None } else { self.session.by_slot(slot) };
        let live =
            |index: &u32| self.session.chart(*index).is_some_and(|known| !known.chart.is_retired());
        by_slot.filter(live).or_else(|| self.session.by_id(&id)).ok_or_else(|| {
            Violation::UnknownChart { host: self.hostname(), chart: id.into_owned(), command }
        })
    }

    fn set(&mut self, line: &[u8], mut words: Words<'_>) -> Result<(), Violation> {
        let dim = self.named_dimension(&mut words, "SET", "BEGIN")?;
        self.learn(dim, start(line, b"SET ", &words));
        match words.next() {
            None | Some([]) => {}
            Some(word) => {
                let value = numbers::c_integer(word).unwrap_or(0);
                self.staged.push(Staged { dim, value });
            }
        }
        Ok(())
    }

    /// The dimension of the chart in scope that the next words name. It is the one before whatever comes next.
    pub(super) fn named_dimension(
        &mut self,
        words: &mut Words<'_>,
        command: &'static str,
        needs: &'static str,
    ) -> Result<u32, Violation> {
        let slot = self.take_slot(words, command)?;
        let before = self.dim_before;
        let Some(known) = self.session.chart_mut(self.chart) else {
            return Err(Violation::NoChart { command, needs });
        };
        let id = words.next().filter(|id| !id.is_empty()).map(id_text);
        let found = match &id {
            Some(_) if slot != 0 => known.by_slot(slot),
            Some(id) => known.by_id(id),
            None => None,
        };
        if let Some(index) = found {
            self.dim = known.follow(before, index);
            self.dim_before = index;
            return Ok(index);
        }
        let chart = known.chart.id().to_string();
        let host = self.hostname();
        Err(match id {
            Some(id) => {
                Violation::UnknownDimension { host, chart, dimension: id.into_owned(), command }
            }
            None => Violation::NoDimension { host, chart, command },
        })
    }

    fn end(&mut self, now: UnixMicros) -> Result<(), Violation> {
        self.scope("END", "BEGIN")?;
        self.complete(now);
        Ok(())
    }

    fn forget_chart(&mut self) -> Result<(), Violation> {
        self.keep_staged();
        self.leave();
        Ok(())
    }

    // --- samples, new form ---------------------------------------------------------------------------

    fn begin2(&mut self, line: &[u8], mut words: Words<'_>) -> Result<(), Violation> {
        let chart = self.named_chart(&mut words, "BEGIN2")?;
        self.learn_begin(chart, start(line, b"BEGIN2 ", &words));
        let [Some(every), Some(end), Some(_wall)] = words.take_words() else {
            return Err(self.malformed("BEGIN2", "with words missing"));
        };
        let end = numbers::integer(end).unwrap_or(0);
        if !(1..=TIME_MAX).contains(&end) {
            return Err(self.malformed("BEGIN2", "without a time"));
        }
        if end > self.latest {
            return Err(self.exceeded("sent a sample of the future", limits::FUTURE));
        }
        self.begin_point(chart, numbers::integer(every).unwrap_or(0), end);
        Ok(())
    }

    fn set2(&mut self, line: &[u8], mut words: Words<'_>) -> Result<(), Violation> {
        let dim = self.named_dimension(&mut words, "SET2", "BEGIN2")?;
        self.learn(dim, start(line, b"SET2 ", &words));
        let [Some(collected), Some(value), Some(flags)] = words.take_words() else {
            return Err(self.malformed("SET2", "with words missing"));
        };
        let collected = numbers::integer(collected).unwrap_or(0);
        let value = match value {
            b"#" => collected as f64,
            number => numbers::double(number).unwrap_or(f64::NAN),
        };
        // After a definition alone the value has nowhere to go, and that is no error.
        if self.in_point {
            let (value, flags) = number_flags(value, flags);
            self.point.push(PointValue { dim, collected, value, flags });
        }
        Ok(())
    }

    fn end2(&mut self) -> Result<(), Violation> {
        self.scope("END2", "BEGIN2")?;
        self.complete_point();
        Ok(())
    }

    // --- definitions ---------------------------------------------------------------------------------

    fn define_chart(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let slot = self.take_slot(&mut words, "CHART")?;
        let id = words.next().map(id_text).unwrap_or_default();
        if !id.split_once('.').is_some_and(|(kind, id)| !kind.is_empty() && !id.is_empty()) {
            return Err(Violation::NoTypeDotId { host: self.hostname() });
        }
        self.charge("defines without an end", Limits::definition)?;
        if self.limits.is_some() && self.session.host.chart(&id).is_none() {
            self.charge("has ever more charts", Limits::new_chart)?;
        }
        let [name, title, units, family, context, kind, priority, every, options, plugin, module] =
            words.take_words::<11>();
        let every = match every.map_or(0, numbers::plain_integer) {
            seconds if seconds > 0 => UpdateEvery::clamped(seconds),
            _ => self.update_every,
        };
        let kind = text(kind);
        let options = options.filter(|word| !word.is_empty());
        let plugin = plugin.filter(|word| !word.is_empty()).map(|word| text(Some(word)));
        let spec = ChartSpec {
            id: &id,
            name: &text(name),
            title: &text(title),
            units: &units.map_or(Cow::Borrowed("unknown"), |word| text(Some(word))),
            family: &text(family),
            context: &text(context),
            chart_type: ChartType::parse(&kind),
            priority: priority.map_or(PRIORITY_DEFAULT, numbers::plain_integer),
            update_every: every,
            options: options.map(|words| ChartOptions::parse(&String::from_utf8_lossy(words))),
            plugin: plugin.as_deref().unwrap_or(&self.plugin),
            module: &text(module),
        };
        let obsolete = spec.options.is_some_and(|o| o.contains(ChartOptions::OBSOLETE));
        let chart = self.session.host.define_chart(&spec).map_err(|error| match error {
            ChartError::TooMany => self.exceeded("has ever more charts", limits::CHARTS_OF_HOST),
            error => Violation::Refused {
                host: self.hostname(),
                command: "CHART",
                problem: format!("that cannot be: {error}"),
            },
        })?;
        let Some(index) = self.session.adopt(chart) else {
            return Err(self.malformed("CHART", "too many"));
        };
        if let Some(known) = self.session.chart_mut(index) {
            known.unbind_dimensions();
        }
        let slot = u32::try_from(slot).unwrap_or(0);
        self.session.bind(index, if obsolete { 0 } else { slot });
        self.chart_labels = None;
        self.enter(index);
        Ok(())
    }

    fn define_dimension(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let chart = self.scope("DIMENSION", "CHART")?;
        let slot = self.take_slot(&mut words, "DIMENSION")?;
        let id = words.next().map(id_text).unwrap_or_default();
        if id.is_empty() {
            let (host, chart) = (self.hostname(), chart.id().to_string());
            return Err(Violation::NoDimension { host, chart, command: "DIMENSION" });
        }
        self.charge("defines without an end", Limits::definition)?;
        let [name, algorithm, multiplier, divisor, options] = words.take_words();
        let spec = DimensionSpec {
            id: &id,
            name: &text(name),
            algorithm: Algorithm::parse(&text(algorithm)),
            multiplier: multiplier.and_then(numbers::c_integer).unwrap_or(1),
            divisor: divisor.and_then(numbers::c_integer).unwrap_or(1),
            options: DimensionOptions::parse(&text(options)),
        };
        let index = chart.define_dimension(&spec).map_err(|error| match error {
            DimensionError::TooMany { .. } => {
                self.exceeded("has a chart of ever more dimensions", limits::DIMENSIONS_OF_CHART)
            }
            error => Violation::Refused {
                host: self.hostname(),
                command: "DIMENSION",
                problem: format!("that cannot be: {error}"),
            },
        })?;
        if let Some(known) = self.session.chart_mut(self.chart) {
            known.bind(index, u32::try_from(slot).unwrap_or(0));
        }
        Ok(())
    }

    fn chart_label(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        self.scope("CLABEL", "CHART")?;
        let [Some(name), Some(value), Some(source)] = words.take_words() else {
            return Err(self.malformed("CLABEL", "with words missing"));
        };
        let labels = self.chart_labels.get_or_insert_with(Labels::new);
        labels.set(&lossy(name), &lossy(value), label_source(source));
        Ok(())
    }

    fn commit_chart_labels(&mut self) -> Result<(), Violation> {
        let chart = self.scope("CLABEL_COMMIT", "CHART")?;
        let Some(new) = self.chart_labels.take() else {
            return Err(self.malformed("CLABEL_COMMIT", "without a CLABEL before it"));
        };
        let mut state = chart.lock();
        let mut labels = Labels::new();
        let permanent = state.labels.iter().filter(|label| PERMANENT.contains(&&*label.name));
        for label in permanent.chain(new.iter()) {
            labels.set(&label.name, &label.value, label.source);
        }
        if state.labels != labels {
            state.labels = labels;
            state.touch();
        }
        Ok(())
    }

    fn variable(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let chart = self.session.chart(self.chart).map(|known| Arc::clone(&known.chart));
        let first = words.next();
        let (chart, name) = match first {
            Some(b"HOST" | b"GLOBAL") => (None, words.next()),
            Some(b"CHART" | b"LOCAL") => {
                (Some(self.scope("VARIABLE CHART", "CHART")?), words.next())
            }
            name => (chart, name),
        };
        let Some(name) = name.filter(|name| !name.is_empty()).map(lossy) else {
            return Err(self.malformed("VARIABLE", "without a name"));
        };
        let whose = || {
            let of = chart.as_ref().map_or(String::new(), |chart| format!("/chart:{}", chart.id()));
            format!("'host:{}{of}'", self.hostname())
        };
        let Some(word) = words.next().filter(|word| !word.is_empty()) else {
            log::error!("PLUGINSD: {} got a VARIABLE '{name}' without a value", whose());
            return Ok(());
        };
        let Some((value, rest)) = numbers::leading_decimal(word) else {
            let (whose, word) = (whose(), lossy(word));
            log::error!("PLUGINSD: {whose} the value '{word}' of VARIABLE '{name}' is no number");
            return Ok(());
        };
        if !rest.is_empty() {
            let (whose, word, rest) = (whose(), lossy(word), lossy(rest));
            log::error!(
                "PLUGINSD: {whose} the value '{word}' of VARIABLE '{name}' has leftovers: '{rest}'"
            );
        }
        match &chart {
            Some(chart) => {
                chart.lock().set_variable(&name, value);
            }
            None => {
                self.session.host.set_variable(&name, value);
            }
        }
        Ok(())
    }

    // --- the host ------------------------------------------------------------------------------------

    fn host_label(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let [Some(name), Some(source), Some(value)] = words.take_words() else {
            return Err(self.malformed("LABEL", "with words missing"));
        };
        // Very old children do not quote a value with blanks.
        let mut value = lossy(value).into_owned();
        for more in words {
            value.push(' ');
            value.push_str(&lossy(more));
        }
        let labels = self.host_labels.get_or_insert_with(Labels::new);
        labels.set(&lossy(name), &value, label_source(source));
        Ok(())
    }

    fn overwrite_labels(&mut self) -> Result<(), Violation> {
        if let Some(labels) = self.host_labels.take() {
            self.session.host.set_labels(labels);
            self.hooks.labelled(&self.session.host);
        }
        Ok(())
    }

    fn claimed(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let [Some(guid), Some(claim)] = words.take_words() else {
            return Err(self.malformed("CLAIMED_ID", "with words missing"));
        };
        let (guid, claim) = (lossy(guid), lossy(claim));
        let Ok(guid) = guid.parse::<MachineGuid>() else {
            return Err(self.malformed("CLAIMED_ID", "with an invalid machine guid"));
        };
        let claim = match &*claim {
            "NULL" => None,
            claim => match parse_uuid(claim) {
                Ok(uuid) => Some(uuid.to_string()),
                Err(_) => return Err(self.malformed("CLAIMED_ID", "with an invalid claim id")),
            },
        };
        let host = Arc::clone(&self.session.host);
        if guid != host.guid() {
            log::error!("PLUGINSD: 'host:{}' got a CLAIMED_ID of another host", host.hostname());
            return Ok(());
        }
        // Not claimed says nothing about a claim we know of from before.
        if claim.is_some() && host.info().claim_id != claim {
            host.update_info(|info| info.claim_id = claim);
            self.hooks.claimed(&host);
        }
        Ok(())
    }

    fn function(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let mut name = words.next();
        let global = name == Some(b"GLOBAL");
        if global {
            name = words.next();
        }
        let [timeout, help, tags, access, priority, version] = words.take_words();
        let name = name.filter(|name| !name.is_empty());
        let (Some(name), Some(timeout), Some(help)) = (name, timeout, help) else {
            return Err(Violation::Refused {
                host: self.hostname(),
                command: "FUNCTION",
                problem: "without name, timeout or help".to_owned(),
            });
        };
        let name = text(Some(name));
        let chart =
            self.session.chart(self.chart).filter(|_| !global).map(|known| known.chart.id());
        if chart.is_none() && !global {
            let host = self.hostname();
            log::error!("PLUGINSD: 'host:{host}' got a FUNCTION '{name}' without chart: global");
        }
        let Some(calls) = &self.calls else { return Ok(()) };
        let timeout = match u64::try_from(numbers::plain_integer(timeout)) {
            Ok(seconds) if seconds > 0 => Duration::from_secs(seconds.min(86_400)),
            _ => TIMEOUT_DEFAULT,
        };
        let small = |word: Option<&[u8]>| {
            word.and_then(numbers::unsigned).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
        };
        let function = Function {
            name: Arc::from(&*name),
            chart: chart.cloned(),
            help: Arc::from(&*text(Some(help))),
            tags: Arc::from(&*text(tags)),
            timeout,
            access: small(access),
            priority: priority.map_or(FUNCTION_PRIORITY_DEFAULT, numbers::plain_integer),
            version: small(version),
            provider: Arc::clone(calls) as Arc<dyn FunctionProvider>,
        };
        let host = &self.session.host;
        let same = |known: &Arc<Function>| {
            (&known.name, &known.chart, &known.help, known.timeout)
                == (&function.name, &function.chart, &function.help, function.timeout)
        };
        let news = !host.functions().iter().any(same);
        if !host.add_function(function) {
            log::error!("PLUGINSD: 'host:{}' has too many functions", self.hostname());
        } else if news && let Some(known) = self.session.chart(self.chart).filter(|_| !global) {
            // It is announced within the definition of its chart.
            known.chart.lock().touch();
        }
        Ok(())
    }

    fn progress(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let [transaction, done, all] = words.take_words();
        let number = |word: Option<&[u8]>| word.and_then(numbers::unsigned).unwrap_or(0);
        if let Some(calls) = &self.calls {
            calls.progress(&text(transaction), number(done), number(all));
        }
        Ok(())
    }
}

/// How `line` starts: what stands between its `keyword` (with one blank) and the words still left, if there are any.
///
/// The same bytes again are the same words: what comes before the words left ends with a separator or a closing quote.
pub(super) fn start<'a>(line: &'a [u8], keyword: &[u8], left: &Words<'_>) -> Option<&'a [u8]> {
    let left = left.rest().len();
    let start = line[..line.len() - left].strip_prefix(keyword)?;
    (left > 0 && !start.is_empty()).then_some(start)
}

/// A duration that BEGIN gave, or 0 where none can be meant.
#[inline]
pub(super) fn believable(since_us: i64) -> i64 {
    if (0..=SINCE_MAX_US).contains(&since_us) { since_us } else { 0 }
}

/// Value and flags of a SET2 by its last word: the absence of `A` means anomalous.
#[inline]
pub(super) fn number_flags(value: f64, word: &[u8]) -> (f64, SampleFlags) {
    let has = |letter: u8| word.contains(&letter);
    let value = if has(b'E') { f64::NAN } else { value };
    (value, SampleFlags { anomalous: !has(b'A'), reset: has(b'R') })
}

fn label_source(word: &[u8]) -> LabelSource {
    LabelSource::from_wire(numbers::plain_integer(word))
}

pub(super) fn lossy(word: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(word)
}

/// A word to be shown: safe between double quotes. A missing one is empty.
pub(super) fn text(word: Option<&[u8]>) -> Cow<'_, str> {
    let word = lossy(word.unwrap_or_default());
    if !word.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
        return word;
    }
    let safe = |c: char| match c {
        '"' => '\'',
        '\\' => '/',
        c if c.is_control() => ' ',
        c => c,
    };
    Cow::Owned(word.chars().map(safe).collect())
}

/// A word as an id.
pub(super) fn id_text(word: &[u8]) -> Cow<'_, str> {
    let id = lossy(word);
    if id.len() <= ID_MAX {
        return id;
    }
    Cow::Owned(id[..id.floor_char_boundary(ID_MAX)].to_owned())
}
