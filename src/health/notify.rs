//! Notifications: the program of an alarm, run with the arguments that scripts for Netdata expect.
//!
//! Thread `HEALTH[notify]` runs them, several at a time, and notes how each ended; evaluation never waits for one. What is
//! queued is bounded: what does not fit is logged and lost.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::log::Log;
use crate::base::ids::MachineGuid;
use crate::base::threads::{self, StopToken};
use crate::base::time::Clock;

/// Notifications that wait for others to end.
const QUEUE_MAX: usize = 4096;
/// Programs running at once.
const RUNNING_MAX: usize = 16;
/// A program that runs longer is ended.
const TIME_MAX_US: i64 = 600_000_000;
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_millis(250);
/// Longest argument; the kernel takes no more than 128 KiB of one.
const ARGUMENT_MAX: usize = 64 * 1024;

/// A program to run.
#[derive(Debug)]
pub struct Order {
    pub host: MachineGuid,
    pub event: i64,
    pub program: String,
    pub arguments: Vec<String>,
}

pub struct Notifier {
    orders: Sender<Order>,
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
        let (orders, queue) = bounded(QUEUE_MAX);
        let thread = threads::spawn("HEALTH[notify]", move || run(&queue, &log, &clock, &stop))?;
        Ok((Notifier { orders }, thread))
    }

    pub fn order(&self, order: Order) {
        if let Err(refused) = self.orders.try_send(order) {
            let order = refused.into_inner();
            log::error!(
                "HEALTH: {QUEUE_MAX} notifications wait for '{}' already. This one is lost.",
                order.program
            );
        }
    }
}

fn run(queue: &Receiver<Order>, log: &Log, clock: &Clock, stop: &StopToken) {
    let mut running: Vec<Running> = Vec::new();
    loop {
        let wait = if running.is_empty() { IDLE } else { LOOK_AGAIN };
        let next = if running.len() < RUNNING_MAX {
            queue.recv_timeout(wait)
        } else {
            stop.wait(wait);
            Err(RecvTimeoutError::Timeout)
        };
        match next {
            Ok(order) => start(&order, log, clock, &mut running),
            Err(RecvTimeoutError::Timeout) if !stop.is_stopped() => {}
            Err(_) => break,
        }
        running.retain_mut(|one| !has_ended(one, log, clock));
    }
    // What was decided is told; nobody waits for the answer any more.
    while let Ok(order) = queue.try_recv() {
        start(&order, log, clock, &mut running);
    }
    running.retain_mut(|one| !has_ended(one, log, clock));
}

fn start(order: &Order, log: &Log, clock: &Clock, running: &mut Vec<Running>) {
    let now = clock.now_seconds().0;
    let spawned = Command::new(&order.program)
        .args(order.arguments.iter().map(|argument| cleaned(argument)))
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit())
        .spawn();
    match spawned {
        Ok(child) => running.push(Running {
            child,
            host: order.host,
            event: order.event,
            started: now,
            started_us: clock.monotonic_us(),
        }),
        Err(error) => {
            log::error!("HEALTH: cannot run '{}': {error}", order.program);
            // The shell's code for a program that is not there.
            log.executed(order.host, order.event, now, 127);
        }
    }
}

/// Notes the end of a program that has ended; ends one that takes too long.
fn has_ended(one: &mut Running, log: &Log, clock: &Clock) -> bool {
    match one.child.try_wait() {
        Ok(Some(status)) => {
            let code = status.code().map_or(255, i64::from);
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
fn cleaned(argument: &str) -> String {
    let text = argument.trim_start_matches('-').replace('\0', "");
    let mut end = text.len().min(ARGUMENT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

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
        notifier.order(Order {
            host,
            event: 1,
            program: script.display().to_string(),
            arguments: ["root", "--100 KiB/s", "it's", "$(x) `y`\0", ""]
                .map(str::to_owned)
                .to_vec(),
        });
        notifier.order(Order {
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
    }

    #[test]
    fn arguments_are_no_options() {
        assert_eq!(cleaned("-5 things"), "5 things");
        assert_eq!(cleaned(&"é".repeat(ARGUMENT_MAX)).len(), ARGUMENT_MAX);
    }
}
