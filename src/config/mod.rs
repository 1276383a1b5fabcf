//! L1: the INI dialect and typed options that remember their default.
