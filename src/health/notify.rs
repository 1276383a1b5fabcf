//! Notifications: the program of an alarm, run with the arguments that scripts for Netdata expect.
//!
//! Thread `HEALTH[notify]` runs them in the order in which they were decided, several at a time, and notes how each ended;
//! evaluation never waits for one. Those that wait are in the log, so the next start goes on where this one ended: at a stop
//! programs that run have a moment to end, after that they go on by themselves, and what was not started yet stays in the log,
//! or goes there. Never are more started than run at once.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustc_hash::FxHashSet;

use super::log::{Log, Order, Write};
use crate::base::ids::MachineGuid;
use crate::base::threads::{self, StopToken};
use crate::base::time::Clock;

/// Orders that the log could not keep and that wait for others to end.
const UNKEPT_MAX: usize = 1024;
/// Programs running at once.
const RUNNING_MAX: usize = 16;
/// A program that runs longer is ended.
const TIME_MAX_US: i64 = 600_000_000;
/// How long a stop waits for programs that run.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// Run by the shell, which notes the order's number in a file and becomes the program: whatever happens to us meanwhile, the
/// next start knows what was started.
const START: &str = "n=$1 f=$2; shift 2; echo \"$n\" >>\"$f\"; exec \"$0\" \"$@\"";
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_millis(250);
/// The shell's code for a program that is not there.
const CANNOT_RUN: i64 = 127;
/// Longest argument; the kernel takes no more than 128 KiB of one.
const ARGUMENT_MAX: usize = 64 * 1024;

enum Word {
    /// There are new orders in the log.
    Look,
    /// One that is not in the log.
    Unkept(Box<Order>),
}

pub struct Notifier {
    words: Sender<Word>,
}

struct Running {
    child: Child,
    host: MachineGuid,
    event: i64,
    started: i64,
    started_us: i64,
}

impl Notifier {
    pub fn start(
        log: Arc<Log>,
        clock: Clock,
        stop: StopToken,
    ) -> io::Result<(Notifier, JoinHandle<()>)> {
        let (words, heard) = bounded(UNKEPT_MAX);
        let thread = threads::spawn("HEALTH[notify]", move || run(&heard, &log, &clock, &stop))?;
        Ok((Notifier { words }, thread))
    }

    /// The log has new orders.
    pub fn look(&self) {
        // Where there is no room for the word there are others, each as good as this one.
        let _ = self.words.try_send(Word::Look);
    }

    /// An order that the log could not take.
    pub fn order(&self, order: Order) {
        if let Err(refused) = self.words.try_send(Word::Unkept(Box::new(order)))
            && let Word::Unkept(order) = refused.into_inner()
        {
            log::error!(
                "HEALTH: {UNKEPT_MAX} notifications wait for '{}' already. This one is lost.",
                order.program
            );
        }
    }
}

fn run(words: &Receiver<Word>, log: &Log, clock: &Clock, stop: &StopToken) {
    let mut running: Vec<Running> = Vec::new();
    forget_started(log, clock);
    // Everything up to this one was started; at first there is what the last run left.
    let (mut last, mut more) = (0, true);
    let mut deadline = None;
    loop {
        if stop.is_stopped() {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + STOP_WAIT);
            more |= !words.is_empty();
            if Instant::now() > deadline || (!more && running.is_empty()) {
                break;
            }
        }
        while more && running.len() < RUNNING_MAX {
            match log.next_order(last) {
                Some(order) => {
                    last = order.id;
                    start(&order, log, clock, &mut running);
                }
                None => more = false,
            }
        }
        if running.len() < RUNNING_MAX {
            let wait = if running.is_empty() { IDLE } else { LOOK_AGAIN };
            match words.recv_timeout(wait) {
                Ok(word) => {
                    more = true;
                    if let Word::Unkept(order) = word {
                        start(&order, log, clock, &mut running);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is left to give orders.
                Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(LOOK_AGAIN),
            }
        } else {
            std::thread::park_timeout(LOOK_AGAIN);
        }
        let ran = !running.is_empty();
        running.retain_mut(|one| !has_ended(one, log, clock));
        if ran && running.is_empty() {
            // All of them have noted their numbers; the file ends with what the log could not forget before.
            forget_started(log, clock);
        }
    }
    leave(words, log, clock, &mut running);
    if !running.is_empty() {
        log::info!("HEALTH: {} notifications still run. They go on without us.", running.len());
    }
}

/// At a stop, what is in no log: into it if it takes them by now, else some more programs are started.
fn leave(words: &Receiver<Word>, log: &Log, clock: &Clock, running: &mut Vec<Running>) {
    let unkept = words.try_iter().filter_map(|word| match word {
        Word::Unkept(order) => Some(*order),
        Word::Look => None,
    });
    let (mut takes, mut lost) = (true, 0);
    for order in unkept {
        let host = order.host;
        takes = takes && log.write(host, &[Write::Order(Box::new(order.clone()))]);
        if takes {
            continue;
        }
        if running.len() < RUNNING_MAX {
            start(&order, log, clock, running);
        } else {
            lost += 1;
        }
    }
    if lost > 0 {
        log::error!("HEALTH: {lost} notifications are lost, the log did not take them.");
    }
}

/// What the last run started without a chance to say so in the log.
fn forget_started(log: &Log, clock: &Clock) {
    let noted = fs::read_to_string(log.started_file()).unwrap_or_default();
    let started: FxHashSet<i64> = noted.lines().filter_map(|line| line.parse().ok()).collect();
    let mut last = 0;
    while let Some(order) = log.next_order(last).filter(|_| !started.is_empty()) {
        last = order.id;
        if started.contains(&order.id) {
            log.started(&order, clock.now_seconds().0);
        }
    }
    let mut last = 0;
    while let Some(order) = log.next_order(last).filter(|_| !started.is_empty()) {
        last = order.id;
        if started.contains(&order.id) {
            // The log could not forget it: its number has to stay.
            return;
        }
    }
    let _ = fs::File::create(log.started_file());
}

fn start(order: &Order, log: &Log, clock: &Clock, running: &mut Vec<Running>) {
    let now = clock.now_seconds().0;
    let spawned = Command::new("/bin/sh")
        .args(["-c", START, &order.program, &order.id.to_string()])
        .arg(log.started_file())
        .args(&order.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit())
        .spawn();
    match spawned {
        Ok(child) => {
            log.started(order, now);
            running.push(Running {
                child,
                host: order.host,
                event: order.event,
                started: now,
                started_us: clock.monotonic_us(),
            });
        }
        Err(error) => {
            log::error!("HEALTH: cannot run '{}': {error}", order.program);
            log.not_started(order, CANNOT_RUN);
        }
    }
}

/// Notes the end of a program that has ended; ends one that takes too long.
fn has_ended(one: &mut Running, log: &Log, clock: &Clock) -> bool {
    match one.child.try_wait() {
        Ok(Some(status)) => {
            let code = status.code().map_or(255, i64::from);
            if code == CANNOT_RUN {
                log::error!("HEALTH: cannot run the program of a notification, or it says so.");
            }
            log.executed(one.host, one.event, one.started, code);
            true
        }
        Ok(None) => {
            if clock.monotonic_us() - one.started_us > TIME_MAX_US {
                log::error!("HEALTH: a notification runs for too long. Killing it.");
                // It may just have ended.
                let _ = one.child.kill();
            }
            false
        }
        Err(error) => {
            log::error!("HEALTH: cannot wait for a notification: {error}");
            true
        }
    }
}

/// No option, no NUL, not too long.
pub(super) fn cleaned(argument: &str) -> String {
    let text = argument.trim_start_matches('-').replace('\0', "");
    let mut end = text.len().min(ARGUMENT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::log::{Entry, flag};
    use super::*;

    #[test]
    fn a_program_gets_its_arguments_and_its_end_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let (script, out) = (dir.path().join("notify"), dir.path().join("out"));
        fs::write(
            &script,
            format!("#!/bin/sh\nprintf '%s|' \"$@\" >>'{}'\nexit 3\n", out.display()),
        )
        .unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let log = Arc::new(Log::open(dir.path()).unwrap());
        let stop = StopToken::new();
        let (notifier, thread) =
            Notifier::start(Arc::clone(&log), Clock::system(), stop.clone()).unwrap();
        let host = MachineGuid::random();
        log.write(host, &[1, 2].map(|event| Write::Event(Box::new(Entry::numbered(event)))));
        notifier.order(Order {
            id: 0,
            host,
            event: 1,
            program: script.display().to_string(),
            arguments: ["root", "--100 KiB/s", "it's", "$(x) `y`\0", ""].map(cleaned).to_vec(),
        });
        notifier.order(Order {
            id: 0,
            host,
            event: 2,
            program: "/no/such/program".into(),
            arguments: Vec::new(),
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while !out.exists() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        stop.stop();
        thread.join().unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "root|100 KiB/s|it's|$(x) `y`||");
        let ends: Vec<_> =
            log.entries(host, 0, None, 9).into_iter().map(|e| (e.exec_code, e.flags)).collect();
        assert_eq!(ends, [CANNOT_RUN, 3].map(|code| (code, flag::EXEC_RUN | flag::EXEC_FAILED)));
    }

    /// More than fit into a stop: none is lost, none runs twice.
    #[test]
    fn what_a_stop_leaves_is_told_by_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let (script, out) = (dir.path().join("notify"), dir.path().join("out"));
        let text = format!("#!/bin/sh\nsleep 0.7\necho $1 >>'{}'\n", out.display());
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let log = Arc::new(Log::open(dir.path()).unwrap());
        let host = MachineGuid::random();
        let order = |event: i64| Order {
            id: 0,
            host,
            event,
            program: script.display().to_string(),
            arguments: vec![event.to_string()],
        };
        const ALL: i64 = 100;
        let told = |most: i64| {
            let end = Instant::now() + Duration::from_secs(60);
            loop {
                let text = fs::read_to_string(&out).unwrap_or_default();
                let mut told: Vec<i64> = text.lines().map(|line| line.parse().unwrap()).collect();
                if told.len() >= usize::try_from(most).unwrap() || Instant::now() > end {
                    told.sort_unstable();
                    return told;
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        };
        let run = |stop: &StopToken| {
            Notifier::start(Arc::clone(&log), Clock::system(), stop.clone()).unwrap()
        };
        let stop = StopToken::new();
        let (notifier, thread) = run(&stop);
        let orders: Vec<_> = (1..=ALL).map(|event| Write::Order(Box::new(order(event)))).collect();
        assert!(log.write(host, &orders));
        notifier.look();
        told(1);
        let began = Instant::now();
        stop.stop();
        thread.join().unwrap();
        assert!(began.elapsed() < STOP_WAIT * 2, "{:?}", began.elapsed());
        assert!(log.next_order(0).is_some(), "this many do not fit");
        let stop = StopToken::new();
        let (_notifier, thread) = run(&stop);
        assert_eq!(told(ALL), (1..=ALL).collect::<Vec<_>>());
        stop.stop();
        thread.join().unwrap();
        assert_eq!((told(ALL).len(), log.next_order(0)), (100, None));
    }

    /// The log takes at the stop what it could not take before: nothing is started in a hurry, and nothing is lost.
    #[test]
    fn what_no_log_holds_at_a_stop_goes_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::open(dir.path()).unwrap());
        let stop = StopToken::new();
        stop.stop();
        let (words, heard) = bounded(UNKEPT_MAX);
        let order = |event: i64| {
            let host = MachineGuid::random();
            Order { id: 0, host, event, program: "sleep".into(), arguments: vec!["5".into()] }
        };
        for event in 0..200 {
            words.send(Word::Unkept(Box::new(order(event)))).unwrap();
        }
        run(&heard, &log, &Clock::system(), &stop);
        let noted = fs::read_to_string(log.started_file()).unwrap();
        let started = noted.lines().count();
        let (mut last, mut kept) = (0, 0);
        while let Some(order) = log.next_order(last) {
            (last, kept) = (order.id, kept + 1);
        }
        assert!((1..=RUNNING_MAX).contains(&started), "{started} were started");
        assert_eq!(started + kept, 200);
    }

    #[test]
    fn what_was_started_is_not_started_again_though_the_log_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let log = Arc::new(Log::open(dir.path()).unwrap());
        let host = MachineGuid::random();
        let orders = [1, 2].map(|event: i64| {
            let arguments = vec!["-c".to_owned(), format!("echo {event} >>'{}'", out.display())];
            let program = "/bin/sh".to_owned();
            Write::Order(Box::new(Order { id: 0, host, event, program, arguments }))
        });
        log.write(host, &orders);
        fs::write(log.started_file(), "1\n77\nnonsense\n").unwrap();
        let stop = StopToken::new();
        let (_notifier, thread) =
            Notifier::start(Arc::clone(&log), Clock::system(), stop.clone()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !out.exists() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        stop.stop();
        thread.join().unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "2\n");
        assert_eq!(fs::read_to_string(log.started_file()).unwrap(), "", "no longer of use");
    }

    #[test]
    fn arguments_are_no_options() {
        assert_eq!(cleaned("-5 things"), "5 things");
        assert_eq!(cleaned(&"é".repeat(ARGUMENT_MAX)).len(), ARGUMENT_MAX);
    }
}
