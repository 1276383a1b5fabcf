//! L3: hosts, charts, dimensions, labels, functions and the collection arithmetic.
