//! L6: listeners, HTTP, routes, API, formatters, static files.
