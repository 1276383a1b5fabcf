//! L3: hosts, charts, dimensions, labels, functions and the collection arithmetic.
//!
//! A [`Hosts`] holds every host this agent knows, a [`Host`] its charts, a [`Chart`] its dimensions. Everything a chart
//! owns lies behind that chart's one lock, taken once per collection (BEGIN..END), never per sample. Collected values
//! become slots in [`collect`]; slots go to the dimension's storage writer and, through [`Tap`], to the parent.
//!
//! What is not live is looked up on the disk ([`archive`]). Threads: `METADATA` ([`keeper`]) and `SERVICE` ([`lifecycle`]);
//! all else runs on its callers'. Lock order (ascending): hosts, a host's chart index, a chart, whatever a tap takes.

pub mod labels;
pub mod dimension;
pub mod chart;
pub mod collect;
pub mod collected;
pub mod replay;
pub mod functions;
pub mod host;
pub mod hosts;
pub mod archive;
pub mod keeper;
pub mod lifecycle;

pub use self::archive::ChartHead;
pub use self::chart::{
    Chart, ChartMeta, ChartOptions, ChartSpec, ChartState, ChartType, Filling, Neighbour, Relayed,
    Tap, Upstream,
};
pub use self::collect::{Point, PointValue, SinceLast, Staged};
pub use self::collected::{Collected, Dim};
pub use self::dimension::{Algorithm, Dimension, DimensionOptions, DimensionSpec};
pub use self::functions::{
    Function, FunctionAnswer, FunctionCall, FunctionProvider, FunctionTicket, Progress, called,
    offered,
};
pub use self::host::{HealthPolicy, Host, HostInfo, HostKind, HostSettings, SystemInfo};
pub use self::hosts::Hosts;
pub use self::labels::{Label, LabelSource, Labels};
pub use self::replay::DimensionReplay;
