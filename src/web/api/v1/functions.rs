//! Functions: what collectors and children offer to be asked, and asking them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use crate::base::json::JsonWriter;
use crate::metrics::{Function, FunctionAnswer, FunctionCall, Host, called, offered};
use crate::net::Health;
use crate::web::api::Call;
use crate::web::http::{ContentType, Response};

/// The bits in which a function tells who may call it.
const ACCESS: &[(u32, &str)] = &[
    (0x01, "signed-in"),
    (0x02, "same-space"),
    (0x04, "commercial-space"),
    (0x08, "anonymous-data"),
    (0x10, "sensitive-data"),
    (0x20, "view-agent-config"),
    (0x40, "edit-agent-config"),
];
/// What the access log tells of a request whose client did not wait for the answer.
const CLIENT_GONE: u16 = 499;
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// More than the time-out, for the answer that there was none.
const GRACE: Duration = Duration::from_secs(1);
/// How often a caller is looked for who may have hung up.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(in crate::web::api) fn functions(call: &Call<'_>) -> Response {
    let mut json = JsonWriter::new();
    json.object(|j| {
        write_functions(j.key("functions"), call.host);
    });
    Response::json(json)
}

/// The functions of a host by name.
pub(in crate::web::api) fn write_functions(json: &mut JsonWriter, host: &Host) {
    write_all(json, &host.functions());
}

/// Of the functions of a host those of one chart, by name.
pub(super) fn write_functions_of(json: &mut JsonWriter, functions: &[Arc<Function>], chart: &str) {
    let of_chart = functions.iter().filter(|f| f.chart.as_deref() == Some(chart));
    write_all(json, &of_chart.cloned().collect::<Vec<_>>());
}

fn write_all(json: &mut JsonWriter, functions: &[Arc<Function>]) {
    json.object(|j| {
        for function in offered(functions) {
            j.key(&function.name).object(|j| write_function(j, function));
        }
    });
}

fn write_function(j: &mut JsonWriter, function: &Function) {
    j.key("help").string(&function.help);
    j.key("timeout").integer(i64::try_from(function.timeout.as_secs()).unwrap_or(i64::MAX));
    j.key("version").integer(i64::from(function.version));
    j.key("options").array(|j| {
        j.string(if function.chart.is_none() { "GLOBAL" } else { "LOCAL" });
    });
    j.key("tags").string(&function.tags);
    write_access(j.key("access"), function.access);
    j.key("priority").integer(function.priority);
}

/// Who may call a function, in words.
pub(in crate::web::api) fn write_access(j: &mut JsonWriter, access: u32) {
    j.array(|j| {
        for (bit, word) in ACCESS {
            if access & bit != 0 {
                j.string(word);
            }
        }
    });
}

/// Runs a function and waits for its answer, for as long as the caller or the function says, or until the caller hangs up.
pub(in crate::web::api) fn function(call: &Call<'_>) -> Response {
    let command = call.query().get("function").unwrap_or("");
    let functions = call.host.functions();
    let Some(function) = called(&functions, command) else {
        return failure(404, "No collector is supplying this function on this host at this time.");
    };
    if !function.provider.is_alive() {
        return failure(503, "The collector of this function is gone.");
    }
    let asked = call.query().integer("timeout").and_then(|s| u64::try_from(s).ok());
    let timeout = asked.filter(|s| *s > 0).map_or(function.timeout, Duration::from_secs);
    let timeout = timeout.clamp(Duration::from_secs(1), TIMEOUT_MAX);
    let (answer, answered) = crossbeam_channel::bounded::<FunctionAnswer>(1);
    let ticket = function.provider.call(FunctionCall {
        command: command.to_owned(),
        timeout,
        // Whoever waited may have given up.
        answer: Box::new(move |given| drop(answer.try_send(given))),
        progress: None,
    });
    // Whoever has the call ends it in time; should its thread be busy, we do.
    let deadline = Instant::now() + timeout + GRACE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match answered.recv_timeout(left.min(LOOK_EVERY)) {
            Ok(given) => return Response::new(given.code, kind(&given.content_type), given.body),
            Err(RecvTimeoutError::Disconnected) => {
                return failure(503, "The collector of this function ended before it answered.");
            }
            Err(RecvTimeoutError::Timeout) if left <= LOOK_EVERY => {
                function.provider.cancel(&ticket);
                return failure(504, "Timeout while waiting for the collector.");
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if call.request.client.as_ref().is_some_and(|client| client.health() == Health::Gone) {
            function.provider.cancel(&ticket);
            return failure(CLIENT_GONE, "The client hung up.");
        }
    }
}

fn kind(word: &str) -> ContentType {
    match word.split(';').next().unwrap_or("").trim() {
        "application/json" => ContentType::Json,
        "text/html" => ContentType::Html,
        "text/csv" => ContentType::Other("text/csv"),
        _ => ContentType::Text,
    }
}

/// Both spellings of the message: that of 1.37 and that of release 2.
fn failure(status: u16, message: &str) -> Response {
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("status").integer(i64::from(status));
        j.key("error_message").string(message);
        j.key("errorMessage").string(message);
    });
    Response::new(status, ContentType::Json, json.into_bytes())
}
