//! L1: `bind to` and `destination` grammar, dialling, listening, connections.
