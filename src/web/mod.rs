//! L6: listeners, HTTP, routes, API, formatters, static files.
//!
//! [`Agent`] is what all of it looks at. Every connection has a thread of its own (`WEB_SERVER[n]`), so a handler may take
//! its time; it never holds a lock while it writes to a client. A child that wants to stream is handed to `stream` through
//! [`StreamAcceptor`](crate::net::accept::StreamAcceptor), on the same thread.

use std::sync::Arc;

use crate::base::time::{Clock, UnixSeconds};
use crate::config::{Config, PrometheusOptions};
use crate::health::Health;
use crate::ingest::remote_write::Intake;
use crate::metrics::Hosts;
use crate::net::Usage;
use crate::net::accept::StreamAcceptor;
use crate::net::tls::ServerTls;
use crate::storage::engines::Engines;
use crate::stream::Streams;

pub mod http;
pub mod acl;
pub mod readers;
pub mod options;
pub mod server;
mod session;
mod answer;
pub mod routes;
pub mod static_files;
pub mod management;
pub mod registry;
pub mod streaming;
pub mod api;
#[cfg(test)]
mod trial;

pub use self::options::Options;
pub use self::server::{NoSockets, Port, Server};

/// What the server and its handlers see of the running agent.
pub struct Agent {
    pub hosts: Arc<Hosts>,
    pub clock: Clock,
    pub config: Arc<Config>,
    pub options: Options,
    pub gate: Arc<acl::Gate>,
    pub names: Arc<acl::Names>,
    pub usage: Arc<Usage>,
    /// What clients of TLS are shown.
    pub tls: Arc<ServerTls>,
    pub streams: Arc<dyn StreamAcceptor>,
    /// What is connected, in both directions; `None` before streaming is started.
    pub streaming: Option<Arc<Streams>>,
    /// When this agent was.
    pub started: UnixSeconds,
    /// The kinds of databases that get our samples, as `info` names them; empty for none.
    pub exporters: String,
    /// What scrapers get who ask for nothing special.
    pub prometheus: PrometheusOptions,
    /// Where samples are kept; `None` where there are none to tell of.
    pub engines: Option<Arc<Engines>>,
    /// What `manage/health` asks for; `None` when it could not be made.
    pub api_key: Option<String>,
    /// `None` when it is off as a whole.
    pub health: Option<Arc<Health>>,
    /// `None` when it is off, as it is by default.
    pub registry: Option<registry::Registry>,
    /// Who sends series by remote write.
    pub writers: Intake,
    /// What each Prometheus server has been told already.
    pub scrapers: api::v1::allmetrics::prometheus::Scrapers,
}

impl Agent {
    /// An agent with nothing configured, for tests of handlers.
    #[cfg(test)]
    pub(crate) fn sample(hosts: Arc<Hosts>, clock: Clock) -> Agent {
        let config = Arc::new(Config::new());
        let options = Options::from_config(&config, "sample", "/nowhere");
        Agent {
            hosts,
            gate: Arc::new(acl::Gate::new(acl::Access::at_start(&config))),
            names: Arc::new(acl::Names::new(clock.clone())),
            clock,
            config,
            options,
            usage: Arc::default(),
            tls: Arc::default(),
            streams: Arc::new(crate::net::accept::NoStreams),
            streaming: None,
            started: UnixSeconds(0),
            exporters: String::new(),
            prometheus: Default::default(),
            engines: None,
            api_key: None,
            health: None,
            registry: None,
            writers: Intake::default(),
            scrapers: Default::default(),
        }
    }
}
