//! L4: the one executor of PLUGINSD commands, plugin processes, internal collectors.

pub mod functions;
pub mod executor;
pub mod plugins;

pub mod collectors;
pub mod remote_write;
