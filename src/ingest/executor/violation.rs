//! What can be wrong with a line, and what follows from it.

/// What happens to a plugin after a line it should not have sent. A stream ends either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never started again.
    Disable,
    /// Stopped, and started again by the rules of its exit code.
    Stop,
}

/// Why a session ended at a line. The texts are those operators know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    #[error("plugin called DISABLE. Disabling it.")]
    Disabled,
    #[error("plugin called {0}. Stopping it.")]
    Quit(&'static str),
    #[error("sent command '{word}' which is not known by netdata, for host '{host}'.")]
    Unknown { host: String, word: String },
    #[error("command {command} requires a chart defined via command {needs}, but is not set.")]
    NoChart { command: &'static str, needs: &'static str },
    #[error("'host:{host}' requested a CHART, without a type.id. Disabling it.")]
    NoTypeDotId { host: String },
    #[error("'host:{host}' got a BEGIN without a chart id. Disabling it.")]
    BeginNothing { host: String },
    #[error("'host:{host}/chart:{chart}' got a {command} but chart does not exist.")]
    UnknownChart { host: String, chart: String, command: &'static str },
    #[error("'host:{host}/chart:{chart}' got a {command}, without an id. Disabling it.")]
    NoDimension { host: String, chart: String, command: &'static str },
    #[error(
        "'host:{host}/chart:{chart}/dim:{dimension}' got a {command} but dimension does not exist."
    )]
    UnknownDimension { host: String, chart: String, dimension: String, command: &'static str },
    /// Words are missing or mean nothing, where that is beyond repair.
    #[error("'host:{host}' got a {command} {problem}. Disabling it.")]
    Malformed { host: String, command: &'static str, problem: &'static str },
    /// As above, where a restart may help.
    #[error("'host:{host}' got a {command} {problem}. Stopping it.")]
    Refused { host: String, command: &'static str, problem: String },
    /// A child asked for more than any machine does.
    #[error("'host:{host}' {what}: beyond the limit {limit} = {allowed}.")]
    Limit { host: String, what: &'static str, limit: &'static str, allowed: u64 },
}

impl Violation {
    /// Whoever did that would do it again at once.
    pub fn is_excess(&self) -> bool {
        matches!(self, Violation::Limit { .. })
    }

    pub fn verdict(&self) -> Verdict {
        match self {
            Violation::Quit(_) | Violation::Unknown { .. } | Violation::Refused { .. } => {
                Verdict::Stop
            }
            _ => Verdict::Disable,
        }
    }

    /// Writes the line about it, on the session's own thread.
    pub fn log(&self) {
        match self {
            Violation::Disabled | Violation::Quit(_) => log::info!("PLUGINSD: {self}"),
            _ => log::error!("PLUGINSD: {self}"),
        }
    }
}
