//! L1: the INI dialect and typed options that remember their default.
//!
//! [`Config`] holds netdata.conf for the whole process and serves the effective configuration; [`StreamConf`] holds
//! stream.conf and answers what a sender or a receiver has to do, [`ExportingConf`] exporting.conf. A stream.conf that is read
//! again is another [`StreamConf`]. All are shared by all threads. Nothing here acts on an option.

mod values;
mod ini;
mod options;
mod document;
pub mod keys;
pub mod changes;
mod stream;
mod exporting;

pub use document::{Config, LoadError, Present, Snapshot};
pub use exporting::{
    Carrier, Connector, DataSource, Dialect, ExportingConf, InstanceOptions, PrometheusOptions,
    WriteVersion,
};
pub use options::{Alias, Known, NETDATA_CONF, State};
pub use stream::{Denied, ReceiverDefaults, ReceiverOptions, SenderOptions, SharePast, StreamConf};
pub use values::{OnDemand, SizeUnit, TimeUnit, boolean, duration, is_quantity, number, size};
