//! Lines that are not commands: the bodies of function results and JSON blocks, up to their end word.

use super::commands::{lossy, text};
use super::{Executor, Violation};
use crate::metrics::FunctionAnswer;
use crate::wire::numbers;
use crate::wire::words::{LINE_LIMIT, Words};

/// Largest body of a function result; a larger one ends the session.
pub(super) const RESULT_MAX: usize = 10 * 1024 * 1024;

/// Largest JSON block; a larger one ends the session.
pub(super) const JSON_MAX: usize = 1024 * 1024;

/// What a result without a usable code has.
const CODE_UNKNOWN: u16 = 591;

pub(super) enum Body {
    /// Of a call somebody waits for.
    Result {
        transaction: String,
        answer: FunctionAnswer,
    },
    /// Nobody waits for it.
    Unwanted,
    Json {
        keyword: String,
        payload: Vec<u8>,
    },
}

impl Executor {
    pub(super) fn begin_result(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let [transaction, code, content_type, expires] = words.take_words();
        let transaction = text(transaction);
        let wanted = self.calls.as_ref().is_some_and(|calls| calls.is_waiting(&transaction));
        self.body = Some(if wanted {
            let code = code.map_or(0, numbers::plain_integer);
            let answer = FunctionAnswer {
                code: u16::try_from(code).ok().filter(|c| *c > 0).unwrap_or(CODE_UNKNOWN),
                content_type: text(content_type).into_owned(),
                expires: expires.map_or(0, numbers::plain_integer),
                body: Vec::new(),
            };
            Body::Result { transaction: transaction.into_owned(), answer }
        } else {
            Body::Unwanted
        });
        Ok(())
    }

    pub(super) fn begin_json(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let keyword = text(words.next()).into_owned();
        self.body = Some(Body::Json { keyword, payload: Vec::new() });
        Ok(())
    }

    /// A line while a body is open; `first` is its first word.
    pub(super) fn body_line(&mut self, line: &[u8], first: Option<&[u8]>) -> Result<(), Violation> {
        let (kept, most, ends, command) = match &mut self.body {
            Some(Body::Result { answer, .. }) => {
                (Some(&mut answer.body), RESULT_MAX, &b"FUNCTION_RESULT_END"[..], "FUNCTION_RESULT")
            }
            Some(Body::Unwanted) => {
                (None, RESULT_MAX, &b"FUNCTION_RESULT_END"[..], "FUNCTION_RESULT")
            }
            Some(Body::Json { payload, .. }) => {
                (Some(payload), JSON_MAX, &b"JSON_PAYLOAD_END"[..], "JSON")
            }
            None => return Ok(()),
        };
        if first == Some(ends) {
            self.end_body();
            return Ok(());
        }
        let Some(kept) = kept else { return Ok(()) };
        if kept.len() + line.len() >= most {
            let problem = format!("body of more than {most} bytes");
            return Err(Violation::Refused { host: self.hostname(), command, problem });
        }
        kept.extend_from_slice(line);
        // A line as long as lines can be was cut, and goes on in the next.
        if line.len() < LINE_LIMIT {
            kept.push(b'\n');
        }
        Ok(())
    }

    fn end_body(&mut self) {
        let without_last_end = |mut body: Vec<u8>| {
            body.pop_if(|last| *last == b'\n');
            body
        };
        match self.body.take() {
            Some(Body::Result { transaction, mut answer }) => {
                answer.body = without_last_end(answer.body);
                if let Some(calls) = &self.calls {
                    calls.finish(&transaction, answer);
                }
            }
            Some(Body::Json { keyword, payload }) => {
                let payload = without_last_end(payload);
                if std::str::from_utf8(&payload).is_err() {
                    let start = lossy(&payload[..payload.len().min(40)]).into_owned();
                    log::error!("PLUGINSD: a JSON {keyword} block is no text: '{start}'");
                    return;
                }
                self.hooks.json(&self.session.host, &keyword, &payload);
            }
            Some(Body::Unwanted) | None => {}
        }
    }
}
