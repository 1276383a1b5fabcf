//! Functions: what a host offers to be asked, and who answers.
//!
//! A plugin or a connected child registers a [`Function`] with the [`FunctionProvider`] that can run it. Calling is
//! asynchronous: the provider takes the call and gives the answer to its callback, from whatever thread has it.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

/// Functions one host may offer.
pub const FUNCTIONS_MAX: usize = 4096;

pub struct Function {
    pub name: Arc<str>,
    /// The chart it belongs to; `None` = the whole host.
    pub chart: Option<Arc<str>>,
    pub help: Arc<str>,
    pub tags: Arc<str>,
    pub timeout: Duration,
    /// Permission bitmap as announced.
    pub access: u32,
    pub priority: i64,
    pub version: u32,
    pub provider: Arc<dyn FunctionProvider>,
}

pub struct FunctionCall {
    /// Name and parameters as typed.
    pub command: String,
    pub timeout: Duration,
    /// Called exactly once.
    pub answer: Box<dyn FnOnce(FunctionAnswer) + Send>,
    /// Told how far the function is (done, of all), as often as it says so; it must not wait for anything.
    pub progress: Option<Progress>,
}

pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// What a provider knows a call by that it has taken; empty when there is nothing left to cancel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionTicket(pub String);

pub struct FunctionAnswer {
    /// HTTP status.
    pub code: u16,
    pub content_type: String,
    /// Unix seconds until which the answer may be kept; in the past = not at all.
    pub expires: i64,
    pub body: Vec<u8>,
}

impl FunctionAnswer {
    pub fn json(code: u16, expires: i64, body: String) -> FunctionAnswer {
        let content_type = "application/json".to_owned();
        FunctionAnswer { code, content_type, expires, body: body.into_bytes() }
    }
}

pub trait FunctionProvider: Send + Sync {
    fn call(&self, call: FunctionCall) -> FunctionTicket;

    /// Nobody waits for the answer any more: it is given at once, and whoever works on it is told. Of no effect once the
    /// call was answered.
    fn cancel(&self, ticket: &FunctionTicket) {
        let _ = ticket;
    }

    /// Asks whoever works on a call to say how far it is.
    fn ask_progress(&self, ticket: &FunctionTicket) {
        let _ = ticket;
    }

    /// False once the plugin or child behind it is gone.
    fn is_alive(&self) -> bool;
}

/// What can be called, each name once: charts may bring the same one, as those of a child of 1.37 do. It is the one that
/// [`called`] finds.
pub fn offered(functions: &[Arc<Function>]) -> Vec<&Arc<Function>> {
    let mut places: FxHashMap<&str, usize> = FxHashMap::default();
    let mut offered: Vec<&Arc<Function>> = Vec::new();
    for function in functions.iter().filter(|function| function.provider.is_alive()) {
        let place = *places.entry(&function.name).or_insert(offered.len());
        match offered.get_mut(place) {
            Some(known) => *known = function,
            None => offered.push(function),
        }
    }
    offered
}

/// The function that a command names. It may have parameters after its name, and names may hold blanks: the longest name
/// that fits, of those the latest that is there.
pub fn called<'a>(functions: &'a [Arc<Function>], command: &str) -> Option<&'a Arc<Function>> {
    let fits = |name: &str| {
        command.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let known = functions.iter().filter(|f| !f.name.is_empty() && fits(&f.name));
    known.max_by_key(|function| (function.name.len(), function.provider.is_alive()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Provider(AtomicBool);

    impl FunctionProvider for Provider {
        fn call(&self, _: FunctionCall) -> FunctionTicket {
            FunctionTicket::default()
        }

        fn is_alive(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn function(name: &str, chart: &str, help: &str, alive: bool) -> Arc<Function> {
        Arc::new(Function {
            name: name.into(),
            chart: (!chart.is_empty()).then(|| chart.into()),
            help: help.into(),
            tags: "".into(),
            timeout: Duration::from_secs(1),
            access: 0,
            priority: 100,
            version: 0,
            provider: Arc::new(Provider(AtomicBool::new(alive))),
        })
    }

    #[test]
    fn a_name_is_offered_once_and_what_is_called_is_what_was_offered() {
        let all = [
            function("top", "a", "first", true),
            function("top cpu", "", "longer", true),
            function("top", "b", "second", true),
            function("top", "c", "gone", false),
            function("lost", "", "gone", false),
        ];
        let helps =
            |some: &[&Arc<Function>]| some.iter().map(|f| f.help.to_string()).collect::<Vec<_>>();
        assert_eq!(helps(&offered(&all)), ["second", "longer"]);
        assert_eq!(&*called(&all, "top 5").unwrap().help, "second");
        assert_eq!(&*called(&all, "top cpu 5").unwrap().help, "longer");
        assert!(!called(&all, "lost").unwrap().provider.is_alive());
    }
}
