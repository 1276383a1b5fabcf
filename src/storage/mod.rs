//! L2: where samples live.
