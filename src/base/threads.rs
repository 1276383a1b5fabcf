//! Threads with a name, a small stack and a way to stop them.
//!
//! A [`StopToken`] is a tree of flags: asking a parent to stop asks all its children. Loops wait on the token instead
//! of sleeping, so nothing outlives a stop by more than one time-out.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Stack of an ordinary thread; parsing and formatting keep their buffers on the heap.
pub const STACK_BYTES: usize = 256 * 1024;

/// Asks threads to end. Cheap to clone.
#[derive(Clone)]
pub struct StopToken(Arc<Node>);

struct Node {
    state: Mutex<State>,
    wake: Condvar,
    /// Keeps the chain from the root alive: a parent knows its children only weakly.
    _parent: Option<StopToken>,
}

#[derive(Default)]
struct State {
    stopped: bool,
    children: Vec<std::sync::Weak<Node>>,
    on_stop: Vec<Box<dyn FnOnce() + Send>>,
}

impl Default for StopToken {
    fn default() -> Self {
        StopToken::new()
    }
}

impl StopToken {
    pub fn new() -> Self {
        StopToken::below(None)
    }

    fn below(parent: Option<StopToken>) -> Self {
        let state = Mutex::new(State::default());
        StopToken(Arc::new(Node { state, wake: Condvar::new(), _parent: parent }))
    }

    /// A token that also stops when `self` does.
    pub fn child(&self) -> StopToken {
        let child = StopToken::below(Some(self.clone()));
        let mut state = self.0.state.lock();
        if state.stopped {
            drop(state);
            child.stop();
        } else {
            state.children.retain(|weak| weak.strong_count() > 0);
            state.children.push(Arc::downgrade(&child.0));
        }
        child
    }

    /// Runs `action` when the token stops, at once if it already has. For waking threads that block on a socket.
    pub fn on_stop(&self, action: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state.lock();
        if state.stopped {
            drop(state);
            action();
        } else {
            state.on_stop.push(Box::new(action));
        }
    }

    pub fn stop(&self) {
        let (children, actions) = {
            let mut state = self.0.state.lock();
            state.stopped = true;
            (std::mem::take(&mut state.children), std::mem::take(&mut state.on_stop))
        };
        self.0.wake.notify_all();
        for child in children.iter().filter_map(std::sync::Weak::upgrade) {
            StopToken(child).stop();
        }
        for action in actions {
            action();
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.0.state.lock().stopped
    }

    /// Waits for `time` or until asked to stop; true when asked to stop.
    pub fn wait(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.0.state.lock();
        while !state.stopped {
            if self.0.wake.wait_until(&mut state, deadline).timed_out() {
                return state.stopped;
            }
        }
        true
    }
}

/// Starts a thread under `name`, as `top -H` shows it (the kernel keeps 15 bytes) and the log tags its lines.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body)
}

/// Threads at most that one piece of work is shared by.
const SHARED_BY: usize = 4;
/// Threads that [`shared`] has at work now, of all its callers.
static SHARING: AtomicUsize = AtomicUsize::new(0);

/// Notes in [`SHARING`] that so many threads are at work, until it is dropped.
struct AtWork(usize);

impl AtWork {
    /// At most `wanted` threads, and as many as there are idle processors for; one there is always.
    fn take(wanted: usize) -> AtWork {
        // Asking how many processors there are reads files.
        static PROCESSORS: OnceLock<usize> = OnceLock::new();
        let processors =
            *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
        let idle = processors.saturating_sub(SHARING.load(Ordering::Relaxed));
        let threads = wanted.min(SHARED_BY).min(idle).max(1);
        SHARING.fetch_add(threads, Ordering::Relaxed);
        AtWork(threads)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        SHARING.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Has `work` done for consecutive shares of `0..count`, each at least `least` long, on as many threads as there are idle
/// processors, the caller's among them: for what takes milliseconds. Gives the results in order.
pub fn shared<T: Send>(
    count: usize,
    least: usize,
    work: impl Fn(Range<usize>) -> T + Sync,
) -> Vec<T> {
    let at_work = AtWork::take(count / least.max(1));
    let shares = at_work.0;
    if shares == 1 {
        return vec![work(0..count)];
    }
    let share = |n: usize| count * n / shares..count * (n + 1) / shares;
    let name = with_name(|name| format!("{name}+"));
    let work = &work;
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..shares)
            .map(|n| {
                let builder = std::thread::Builder::new().name(name.clone());
                (n, builder.stack_size(STACK_BYTES).spawn_scoped(scope, move || work(share(n))))
            })
            .collect();
        let mut done = vec![work(share(0))];
        done.extend(others.into_iter().map(|(n, other)| match other {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // The system has no thread to give just now.
            Err(_) => work(share(n)),
        }));
        done
    })
}

/// Has `work` done on a thread with a stack of so many bytes, for what is recursive, and waits for it.
pub fn with_stack<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let name = with_name(|name| format!("{name}+"));
    let builder = std::thread::Builder::new().name(name).stack_size(bytes);
    std::thread::scope(|scope| {
        let thread = builder.spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

thread_local! {
    /// The name a thread took after it started, whole.
    static NAME: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Gives the calling thread another name, for the log and (its first 15 bytes) for `top -H`: a thread that serves a
/// connection says what it serves.
pub fn rename(name: &str) {
    super::sys::name_thread(name);
    NAME.set(Some(name.into()));
}

/// Runs `f` with the name of the calling thread; the main thread is `MAIN`.
pub fn with_name<T>(f: impl FnOnce(&str) -> T) -> T {
    NAME.with_borrow(|name| match name {
        Some(name) => f(name),
        None => match std::thread::current().name() {
            Some("main") => f("MAIN"),
            Some(name) => f(name),
            None => f("THREAD"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopping_a_parent_stops_its_children() {
        let parent = StopToken::new();
        let child = parent.child().child();
        assert!(!child.wait(Duration::from_millis(1)));
        parent.stop();
        assert!(child.wait(Duration::from_secs(60)));
        assert!(parent.child().is_stopped());
    }

    #[test]
    fn a_thread_may_change_its_name() {
        let names = spawn("WEB_SERVER[1]", || {
            let before = with_name(str::to_owned);
            rename("STREAM_RECEIVER[child,[10.0.0.1]:1]");
            (before, with_name(str::to_owned))
        });
        let (before, after) = names.unwrap().join().unwrap();
        assert_eq!(before, "WEB_SERVER[1]");
        assert_eq!(after, "STREAM_RECEIVER[child,[10.0.0.1]:1]");
    }

    #[test]
    fn shares_cover_the_work_once_and_in_order() {
        for (count, least) in [(0, 1), (1, 5), (10, 5), (1000, 1), (7, 3)] {
            let shares = shared(count, least, |range| range.collect::<Vec<usize>>());
            assert!(shares.len() <= SHARED_BY);
            assert!(shares.len() == 1 || shares.iter().all(|share| share.len() >= least));
            assert_eq!(shares.concat(), (0..count).collect::<Vec<usize>>());
        }
    }

    #[test]
    fn what_is_recursive_gets_a_stack() {
        fn deep(levels: usize) -> usize {
            let here = std::hint::black_box([levels; 128]);
            if levels == 0 { 0 } else { deep(levels - 1) + here[1] - levels + 1 }
        }
        assert_eq!(with_stack(8 << 20, || deep(1000)).unwrap(), 1000);
    }

    #[test]
    fn actions_run_once_at_the_stop_or_at_once_after_it() {
        let token = StopToken::new();
        let (tx, rx) = std::sync::mpsc::channel();
        let early = tx.clone();
        token.on_stop(move || early.send(1).unwrap());
        token.stop();
        token.on_stop(move || tx.send(2).unwrap());
        assert_eq!(rx.iter().collect::<Vec<_>>(), [1, 2]);
    }
}
