//! Where the web server hands over a child that wants to stream: it knows HTTP, `stream` knows streaming, and neither imports
//! the other.

use crate::base::threads::StopToken;

use super::Connection;

/// A complete `STREAM` request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRequest {
    /// What stands between `STREAM ` and the first ` HTTP/`, still percent-encoded.
    pub parameters: Vec<u8>,
    pub user_agent: Option<String>,
    /// The peer may read samples through the API as well.
    pub is_reader: bool,
}

/// What becomes of a child that wants to stream.
pub enum Admission {
    /// `text` is the whole answer, without any HTTP around it; `status` is for the access log.
    Refused { status: u16, text: String },
    /// The rest of the connection's life, on the thread that asked. The access log has got its line by then.
    Admitted(Session),
}

/// An admitted child's stream, to be run to its end.
pub type Session = Box<dyn FnOnce(Connection, &StopToken) + Send>;

/// Decides about children; implemented by `stream`.
pub trait StreamAcceptor: Send + Sync {
    /// Called on the web server's thread of that connection. The port's and the list's right to stream is checked already.
    /// Writes nothing to the connection.
    fn consider(&self, request: &StreamRequest, connection: &Connection) -> Admission;
}

/// Refuses every child: for an agent whose streaming is not started (yet).
pub struct NoStreams;

impl StreamAcceptor for NoStreams {
    fn consider(&self, _: &StreamRequest, _: &Connection) -> Admission {
        let text = "You are not permitted to access this. Check the logs for more info.".to_owned();
        Admission::Refused { status: 401, text }
    }
}
