//! How streaming stands: one model per connection and per host, for the API, the Function `Streaming` and the log.
//!
//! Values only; made on demand by [`super::Streams`] from what receivers, senders and pulls know, and owned by whoever
//! asked. Names of states and reasons are those of `/api/v2/node_instances`.

use super::pulls::Progress;
use crate::base::ids::MachineGuid;
use crate::wire::caps::Capabilities;

/// Which end of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A child streams to us.
    Receiving,
    /// We stream to a parent.
    Sending,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none, and nobody tries.
    Off,
    /// Looking for a parent, or waiting for the child to come back.
    Connecting,
    /// Some charts have not begun to flow.
    Starting,
    /// Live samples flow; older ones are still arriving.
    Filling,
    /// Live samples flow and nothing is known to be missing.
    Online,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Off => "offline",
            State::Connecting => "connecting",
            State::Starting => "initializing",
            State::Filling => "replicating",
            State::Online => "online",
        }
    }

    /// By how far the past has come on a connection that stands.
    pub fn of(progress: &Progress) -> State {
        if progress.starting > 0 {
            State::Starting
        } else if progress.filling > 0 {
            State::Filling
        } else {
            State::Online
        }
    }
}

/// The past of a host's charts as one connection brings it. Spans are summed over charts, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Filling {
    pub charts: usize,
    /// Charts that wait for their first answer.
    pub starting: usize,
    /// Charts whose past is not complete.
    pub filling: usize,
    pub requests_in_flight: usize,
    /// Seconds brought on this connection.
    pub brought_s: i64,
    /// Seconds that are missing, or may be.
    pub missing_s: i64,
    /// Seconds brought per second, since the connection stands; 0 = unknown.
    pub rate: f64,
    /// Seconds until nothing is missing, at that rate; `None` = unknown.
    pub eta_s: Option<i64>,
}

impl Filling {
    pub fn of(progress: &Progress, connected_s: i64) -> Filling {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
        let rate = progress.answered_seconds as f64 / connected_s.max(1) as f64;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "an estimate; casts of floats saturate"
        )]
        let eta = |missing: i64| (missing as f64 / rate).ceil() as i64;
        Filling {
            charts: progress.charts,
            starting: progress.starting,
            filling: progress.filling,
            requests_in_flight: progress.in_flight,
            brought_s: progress.answered_seconds,
            missing_s: progress.missing_seconds,
            rate,
            eta_s: match progress.missing_seconds {
                0 => Some(0),
                missing => (rate > 0.0).then(|| eta(missing)),
            },
        }
    }

    /// How much of what was missing has come, 0 to 100.
    pub fn percent(&self) -> f64 {
        let all = self.brought_s + self.missing_s;
        if all == 0 {
            return 100.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a percentage")]
        let percent = 100.0 * self.brought_s as f64 / all as f64;
        percent
    }
}

/// The worst of all children that are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worst {
    /// Children whose past is not complete.
    pub behind: usize,
    /// For how many seconds that of one of them has not been, without a break.
    pub behind_s: i64,
    /// How far the clock of one is from ours, in seconds.
    pub skew_s: i64,
}

impl Worst {
    /// Takes one more into account: since when its past has not been complete, 0 = it is, and our clock minus its own.
    pub fn add(&mut self, behind_since: i64, skew_s: i64, now: i64) {
        if behind_since > 0 {
            self.behind += 1;
            self.behind_s = self.behind_s.max(now - behind_since);
        }
        self.skew_s = self.skew_s.max(skew_s.saturating_abs());
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    pub direction: Direction,
    pub state: State,
    /// Why it stands as it does, or why the last one ended; in the words of real agents.
    pub reason: Option<&'static str>,
    /// Unix seconds of the last change.
    pub since: i64,
    /// Our end and the other, `ip:port`.
    pub local: String,
    pub remote: String,
    pub agreed: Capabilities,
    /// Payload, as it passes the socket.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Collections received on this connection; 0 where we send.
    pub updates: u64,
    /// Connections of this host before this one, in this run.
    pub reconnects: u64,
    /// Times the outbox overflowed and the connection was made anew; 0 where we receive.
    pub drops: u64,
    /// Requests of the other end that wait for an answer.
    pub asked: usize,
    pub filling: Filling,
}

impl Connection {
    /// The place of a connection that is not there, since then.
    pub fn none(direction: Direction, since: i64) -> Connection {
        Connection {
            direction,
            state: State::Off,
            reason: None,
            since,
            local: String::new(),
            remote: String::new(),
            agreed: Capabilities::empty(),
            bytes_in: 0,
            bytes_out: 0,
            updates: 0,
            reconnects: 0,
            drops: 0,
            asked: 0,
            filling: Filling::default(),
        }
    }
}

/// A host as this agent has it.
#[derive(Clone, Debug)]
pub struct HostStatus {
    pub guid: MachineGuid,
    pub hostname: String,
    pub hops: i64,
    /// `None` for hosts that are born here.
    pub receiving: Option<Connection>,
    /// `None` where nothing is sent on.
    pub sending: Option<Connection>,
    /// The oldest and the newest sample held, unix seconds; 0 = none.
    pub first: i64,
    pub last: i64,
    /// How old the newest sample is, by our clock.
    pub lag_s: i64,
    /// Our clock minus the child's, as far as its last word about its clock tells; 0 where the host is born here.
    pub clock_skew_s: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_child_is_the_one_that_is_behind_for_longest() {
        let mut worst = Worst::default();
        for (since, skew) in [(0, 3), (900, -7), (400, 0)] {
            worst.add(since, skew, 1000);
        }
        assert_eq!(worst, Worst { behind: 2, behind_s: 600, skew_s: 7 });
    }

    #[test]
    fn what_is_missing_gives_state_share_and_time_left() {
        let progress = Progress {
            charts: 10,
            filling: 2,
            missing_seconds: 3000,
            answered_seconds: 1000,
            ..Progress::default()
        };
        let filling = Filling::of(&progress, 10);
        assert_eq!(State::of(&progress), State::Filling);
        assert_eq!((filling.rate, filling.eta_s), (100.0, Some(30)));
        assert!((filling.percent() - 25.0).abs() < 1e-9);
        assert_eq!(State::of(&Progress::default()), State::Online);
        assert_eq!(Filling::of(&Progress::default(), 0).eta_s, Some(0));
    }
}
