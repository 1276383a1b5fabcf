//! Engine `none`: samples pass through and are not kept. For headless children and proxies without a database.

use std::sync::Arc;

use super::{Metric, MetricKey, Mode, Reader, StorageEngine, StorageError, Writer};
use crate::base::number::Sample;
use crate::base::time::{UnixSeconds, UpdateEvery};

pub struct NoneEngine {
    /// Shared by all metrics, so a metric costs nothing here.
    reader: Arc<Nothing>,
}

struct Nothing;

impl NoneEngine {
    pub fn new() -> Self {
        NoneEngine { reader: Arc::new(Nothing) }
    }
}

/// A writer for what is only read.
pub fn no_writer() -> Box<dyn Writer> {
    Box::new(Nothing)
}

impl Default for NoneEngine {
    fn default() -> Self {
        NoneEngine::new()
    }
}

impl StorageEngine for NoneEngine {
    fn mode(&self) -> Mode {
        Mode::None
    }

    fn entries(&self) -> u32 {
        Mode::None.entries(0)
    }

    fn open(&self, _key: &MetricKey, _every: UpdateEvery) -> Result<Metric, StorageError> {
        Ok(Metric {
            writer: Box::new(Nothing),
            reader: Arc::clone(&self.reader) as Arc<dyn Reader>,
        })
    }
}

impl Writer for Nothing {
    fn store(&mut self, _at: UnixSeconds, _sample: Sample) {}
    fn clear(&mut self) {}
}

impl Reader for Nothing {
    fn retention(&self) -> Option<(UnixSeconds, UnixSeconds)> {
        None
    }

    fn read(&self, _: UnixSeconds, _: UnixSeconds, _: &mut dyn FnMut(UnixSeconds, Sample)) {}
}
