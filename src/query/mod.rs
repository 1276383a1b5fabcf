//! L4: reads samples: tier choice, grouping over time, points, selection. Never writes.
