//! The alarm log: every change of status, in SQLite, kept over restarts and bounded per host.
//!
//! Two locks, a connection's each: the writer's, held for a transaction, and the reader's, held for a page of an answer, so
//! who asks what happened does not keep anything from being written. No collector takes either. Without a usable disk the log
//! lives in memory, behind the writer's lock alone, as one ERROR line says. The format: docs/formats/health-log.md.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::alarm::Status;
use crate::base::ids::MachineGuid;

pub const FILE: &str = "netdata-health.db";
/// In SQLite's `user_version`.
const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS health_log(
  host_id BLOB NOT NULL, unique_id INT NOT NULL, alarm_id INT NOT NULL, alarm_event_id INT NOT NULL,
  updated_by_id INT NOT NULL DEFAULT 0, updates_id INT NOT NULL DEFAULT 0, when_key INT NOT NULL,
  duration INT NOT NULL, non_clear_duration INT NOT NULL, flags INT NOT NULL,
  exec_run_timestamp INT NOT NULL DEFAULT 0, delay_up_to_timestamp INT NOT NULL, name TEXT NOT NULL,
  chart TEXT NOT NULL, family TEXT NOT NULL, exec TEXT NOT NULL, recipient TEXT NOT NULL, source TEXT NOT NULL,
  units TEXT NOT NULL, info TEXT NOT NULL, exec_code INT NOT NULL DEFAULT 0, new_status INT NOT NULL,
  old_status INT NOT NULL, delay INT NOT NULL, new_value REAL, old_value REAL, last_repeat INT NOT NULL DEFAULT 0,
  class TEXT NOT NULL, component TEXT NOT NULL, type TEXT NOT NULL, chart_context TEXT NOT NULL,
  PRIMARY KEY(host_id, unique_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS health_alarm(
  host_id BLOB NOT NULL, chart TEXT NOT NULL, name TEXT NOT NULL, alarm_id INT NOT NULL,
  last_event INT NOT NULL, events INT NOT NULL, told INT, PRIMARY KEY(host_id, chart, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS health_order(
  id INTEGER PRIMARY KEY AUTOINCREMENT, host_id BLOB NOT NULL, unique_id INT NOT NULL, program TEXT NOT NULL,
  arguments BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS health_log_when ON health_log(when_key);
CREATE INDEX IF NOT EXISTS health_log_host_when ON health_log(host_id, when_key);
";
/// Events that are read at a time.
const PAGE: usize = 256;
/// A reader waits so long while the file is brought in order.
const READ_WAIT: Duration = Duration::from_secs(2);
/// Notifications that wait to be started; more are lost.
pub const ORDERS_MAX: i64 = 4096;

const COLUMNS: &str = "unique_id, alarm_id, alarm_event_id, updated_by_id, updates_id, when_key, duration, \
    non_clear_duration, flags, exec_run_timestamp, delay_up_to_timestamp, name, chart, family, exec, recipient, source, \
    units, info, exec_code, new_status, old_status, delay, new_value, old_value, last_repeat, class, component, type, \
    chart_context";

/// Bits of [`Entry::flags`].
pub mod flag {
    pub const PROCESSED: i64 = 1;
    pub const UPDATED: i64 = 2;
    pub const EXEC_RUN: i64 = 4;
    pub const EXEC_FAILED: i64 = 8;
    pub const SILENCED: i64 = 16;
    pub const NO_CLEAR: i64 = 32;
}

/// A change of status.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub unique_id: i64,
    pub alarm_id: i64,
    pub event_id: i64,
    pub updated_by: i64,
    pub updates: i64,
    pub when: i64,
    pub duration: i64,
    pub non_clear: i64,
    pub flags: i64,
    pub exec_run: i64,
    pub delay_until: i64,
    pub name: String,
    /// The chart's id.
    pub chart: String,
    pub family: String,
    pub exec: String,
    pub recipient: String,
    pub source: String,
    pub units: String,
    pub info: String,
    pub exec_code: i64,
    pub status: Status,
    pub old_status: Status,
    pub delay: i64,
    /// NaN where there is none.
    pub value: f64,
    pub old_value: f64,
    pub last_repeat: i64,
    pub class: String,
    pub component: String,
    pub type_: String,
    pub context: String,
}

/// What is known of an alarm from earlier.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The chart's id.
    pub chart: String,
    pub name: String,
    pub alarm_id: i64,
    pub last_event: i64,
    pub events: i64,
    /// The status somebody was told of last.
    pub told: Option<Status>,
}

/// A program to run, so that somebody is told of an event. Kept until it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Grows with every order; 0 = it could not be kept.
    pub id: i64,
    pub host: MachineGuid,
    pub event: i64,
    pub program: String,
    /// None of them holds a NUL.
    pub arguments: Vec<String>,
}

/// Something to write.
#[derive(Debug)]
pub enum Write {
    Event(Box<Entry>),
    /// A later event took the place of an earlier one.
    Updated {
        event: i64,
        by: i64,
    },
    /// These bits are set now.
    Flags {
        event: i64,
        flags: i64,
    },
    Alarm(Box<Remembered>),
    Order(Box<Order>),
}

/// Which events are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// `None`: all.
    pub host: Option<MachineGuid>,
    /// Both included.
    pub after: i64,
    pub before: i64,
    /// No more than so many, the newest.
    pub most: usize,
}

pub struct Log {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// None for what is in memory.
    reader: Mutex<Option<Connection>>,
}

/// Where an event stands in the log: when, host, number.
type Place = (i64, [u8; 16], i64);

#[derive(Default)]
struct Page {
    entries: Vec<(MachineGuid, Entry)>,
    /// Those that are not wanted too.
    rows: usize,
    last: Option<Place>,
}

type Result<T> = std::result::Result<T, rusqlite::Error>;

impl Log {
    pub fn open(directory: &Path) -> Result<Log> {
        let path = directory.join(FILE);
        let connection = match connect(&path) {
            Ok(connection) => connection,
            Err(error) => {
                use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
                // A full disk is no reason to throw a good file away.
                let damaged =
                    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase));
                let fate =
                    if damaged { " It is set aside, the alarm log begins anew." } else { "" };
                log::error!("HEALTH: cannot use '{}': {error}.{fate}", path.display());
                let aside = path.with_extension("db.damaged");
                let anew = damaged.then(|| std::fs::rename(&path, aside).ok()).flatten();
                match anew.and_then(|()| connect(&path).ok()) {
                    Some(connection) => connection,
                    None => {
                        log::error!(
                            "HEALTH: the alarm log is kept in memory until the next start."
                        );
                        let memory = Connection::open_in_memory()?;
                        memory.execute_batch(SCHEMA)?;
                        memory
                    }
                }
            }
        };
        // What is in memory has one connection.
        let reader = connection.path().filter(|path| !path.is_empty()).and_then(|_| {
            let reader = Connection::open(&path).ok()?;
            reader.pragma_update(None, "query_only", true).ok()?;
            reader.busy_timeout(READ_WAIT).ok()?;
            Some(reader)
        });
        Ok(Log { path, connection: Mutex::new(connection), reader: Mutex::new(reader) })
    }

    fn read<T>(&self, ask: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let reader = self.reader.lock();
        if let Some(reader) = &*reader {
            return ask(reader);
        }
        drop(reader);
        ask(&self.connection.lock())
    }

    /// Writes what happened to alarms of a host, as one transaction; false when nothing could be written.
    pub fn write(&self, host: MachineGuid, writes: &[Write]) -> bool {
        let mut connection = self.connection.lock();
        let done = connection.transaction().and_then(|transaction| {
            for write in writes {
                put(&transaction, host, write)?;
            }
            transaction.commit()
        });
        drop(connection);
        if let Err(error) = &done {
            log::error!("HEALTH: cannot write to '{}': {error}", self.path.display());
        }
        done.is_ok()
    }

    /// Where programs note the numbers of their orders as they start.
    pub fn started_file(&self) -> PathBuf {
        self.path.with_extension("started")
    }

    /// The first order that was not started yet, of those with higher numbers than `after`.
    pub fn next_order(&self, after: i64) -> Option<Order> {
        let connection = self.connection.lock();
        let read = || -> Result<Option<Order>> {
            let mut statement = connection.prepare_cached(
                "SELECT id, host_id, unique_id, program, arguments FROM health_order WHERE id > ?1 ORDER BY id LIMIT 1",
            )?;
            let order = statement.query_row([after], |row| {
                let arguments: Vec<u8> = row.get(4)?;
                let arguments = String::from_utf8_lossy(&arguments);
                Ok(Order {
                    id: row.get(0)?,
                    host: MachineGuid(uuid::Uuid::from_bytes(row.get(1)?)),
                    event: row.get(2)?,
                    program: row.get(3)?,
                    arguments: arguments.split('\0').map(str::to_owned).collect(),
                })
            });
            order.optional()
        };
        read().unwrap_or_else(|error| {
            log::error!("HEALTH: cannot read '{}': {error}", self.path.display());
            None
        })
    }

    /// The program of an order runs since then: it is kept no longer.
    pub fn started(&self, order: &Order, at: i64) {
        self.is_past(order, flag::EXEC_RUN, at, 0);
    }

    /// The program of an order cannot be run: it is kept no longer.
    pub fn not_started(&self, order: &Order, code: i64) {
        self.is_past(order, flag::EXEC_FAILED, 0, code);
    }

    fn is_past(&self, order: &Order, flags: i64, at: i64, code: i64) {
        let mut connection = self.connection.lock();
        let done = connection.transaction().and_then(|transaction| {
            transaction
                .prepare_cached("DELETE FROM health_order WHERE id = ?1")?
                .execute([order.id])?;
            transaction
                .prepare_cached(
                    "UPDATE health_log SET flags = flags | ?3, exec_run_timestamp = ?4, exec_code = ?5 \
                     WHERE host_id = ?1 AND unique_id = ?2",
                )?
                .execute(params![id(&order.host), order.event, flags, at, code])?;
            transaction.commit()
        });
        drop(connection);
        if let Err(error) = done {
            log::error!("HEALTH: cannot write to '{}': {error}", self.path.display());
        }
    }

    /// Notes what became of a notification.
    pub fn executed(&self, host: MachineGuid, event: i64, at: i64, code: i64) {
        let flags = if code == 0 { flag::EXEC_RUN } else { flag::EXEC_RUN | flag::EXEC_FAILED };
        let done = self.connection.lock().execute(
            "UPDATE health_log SET flags = flags | ?3, exec_run_timestamp = ?4, exec_code = ?5 \
             WHERE host_id = ?1 AND unique_id = ?2",
            params![id(&host), event, flags, at, code],
        );
        if let Err(error) = done {
            log::error!("HEALTH: cannot write to '{}': {error}", self.path.display());
        }
    }

    /// What is known of a host's alarms, and the number of the newest event.
    pub fn remembered(&self, host: MachineGuid) -> (Vec<Remembered>, i64) {
        let connection = self.connection.lock();
        let read = || -> Result<(Vec<Remembered>, i64)> {
            let mut statement = connection.prepare_cached(
                "SELECT chart, name, alarm_id, last_event, events, told FROM health_alarm WHERE host_id = ?1",
            )?;
            let alarms = statement.query_map([id(&host)], |row| {
                Ok(Remembered {
                    chart: row.get(0)?,
                    name: row.get(1)?,
                    alarm_id: row.get(2)?,
                    last_event: row.get(3)?,
                    events: row.get(4)?,
                    told: row.get::<_, Option<i64>>(5)?.and_then(Status::from_number),
                })
            })?;
            let alarms: Vec<Remembered> = alarms.collect::<Result<_>>()?;
            let newest: Option<i64> = connection.query_row(
                "SELECT max(unique_id) FROM health_log WHERE host_id = ?1",
                [id(&host)],
                |row| row.get(0),
            )?;
            let events = alarms.iter().map(|alarm| alarm.last_event).max();
            Ok((alarms, newest.max(events).unwrap_or(0)))
        };
        read().unwrap_or_else(|error| {
            log::error!("HEALTH: cannot read '{}': {error}", self.path.display());
            (Vec::new(), 0)
        })
    }

    /// Events with numbers above `after`, newest first, at most so many; of one chart where its name is given.
    pub fn entries(
        &self,
        host: MachineGuid,
        after: i64,
        chart: Option<&str>,
        most: i64,
    ) -> Vec<Entry> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM health_log WHERE host_id = ?1 AND unique_id > ?2 \
                 AND (?3 IS NULL OR chart = ?3) ORDER BY unique_id DESC LIMIT ?4"
            ))?;
            let entries = statement.query_map(params![id(&host), after, chart, most], entry_of)?;
            entries.collect()
        })
        .unwrap_or_else(|error| {
            log::error!("HEALTH: cannot read '{}': {error}", self.path.display());
            Vec::new()
        })
    }

    /// Shows events, the newest first, of those hosts that are `wanted`; true when there are no more. Nothing is locked while
    /// one is shown.
    pub fn visit(
        &self,
        span: &Span,
        wanted: &dyn Fn(MachineGuid) -> bool,
        see: &mut dyn FnMut(MachineGuid, Entry),
    ) -> bool {
        let mut left = span.most;
        // The next one is older than this, by time, host and number.
        let mut from = (span.before, [u8::MAX; 16], i64::MAX);
        while left > 0 {
            let page = match self.page(span, &from, left.min(PAGE), wanted) {
                Ok(page) => page,
                Err(error) => {
                    log::error!("HEALTH: cannot read '{}': {error}", self.path.display());
                    return false;
                }
            };
            if let Some(last) = page.last {
                from = last;
            }
            for (host, entry) in page.entries {
                see(host, entry);
            }
            if page.rows < left.min(PAGE) {
                return true;
            }
            left -= page.rows;
        }
        false
    }

    fn page(
        &self,
        span: &Span,
        from: &Place,
        most: usize,
        wanted: &dyn Fn(MachineGuid) -> bool,
    ) -> Result<Page> {
        self.read(|connection| {
            let of_host = if span.host.is_some() { "host_id = ?6 AND" } else { "?6 IS NULL AND" };
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, host_id FROM health_log WHERE {of_host} when_key >= ?1 \
             AND (when_key, host_id, unique_id) < (?2, ?3, ?4) \
             ORDER BY when_key DESC, host_id DESC, unique_id DESC LIMIT ?5"
            ))?;
            let host = span.host.as_ref().map(id);
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![
                span.after,
                from.0,
                from.1.as_slice(),
                from.2,
                most,
                host
            ])?;
            let mut page = Page::default();
            while let Some(row) = rows.next()? {
                let host: [u8; 16] = row.get("host_id")?;
                page.rows += 1;
                page.last = Some((row.get("when_key")?, host, row.get("unique_id")?));
                let host = MachineGuid(uuid::Uuid::from_bytes(host));
                if wanted(host) {
                    page.entries.push((host, entry_of(row)?));
                }
            }
            Ok(page)
        })
    }

    /// Keeps the newest `most` events of a host, and the alarms they are of.
    pub fn trim(&self, host: MachineGuid, most: i64) {
        let connection = self.connection.lock();
        let trim = || -> Result<()> {
            connection.execute(
                "DELETE FROM health_log WHERE host_id = ?1 AND unique_id <= (SELECT unique_id FROM health_log \
                 WHERE host_id = ?1 ORDER BY unique_id DESC LIMIT 1 OFFSET ?2)",
                params![id(&host), most],
            )?;
            connection.execute(
                "DELETE FROM health_alarm WHERE host_id = ?1 AND last_event < \
                 (SELECT min(unique_id) FROM health_log WHERE host_id = ?1)",
                [id(&host)],
            )?;
            Ok(())
        };
        let done = trim();
        drop(connection);
        if let Err(error) = done {
            log::error!("HEALTH: cannot trim '{}': {error}", self.path.display());
        }
    }
}

impl Log {
    /// Nobody asks for this host any more.
    pub fn forget(&self, host: MachineGuid) {
        let connection = self.connection.lock();
        for table in ["health_log", "health_alarm"] {
            let done =
                connection.execute(&format!("DELETE FROM {table} WHERE host_id = ?1"), [id(&host)]);
            if let Err(error) = done {
                log::error!("HEALTH: cannot write to '{}': {error}", self.path.display());
            }
        }
    }
}

fn id(host: &MachineGuid) -> &[u8] {
    host.0.as_bytes()
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch(SCHEMA)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(connection)
}

fn known(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}

fn put(connection: &Connection, host: MachineGuid, write: &Write) -> Result<usize> {
    match write {
        Write::Event(e) => connection
            .prepare_cached(&format!(
                "INSERT OR REPLACE INTO health_log(host_id, {COLUMNS}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, \
                 ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31)"
            ))?
            .execute(params![
                id(&host),
                e.unique_id,
                e.alarm_id,
                e.event_id,
                e.updated_by,
                e.updates,
                e.when,
                e.duration,
                e.non_clear,
                e.flags,
                e.exec_run,
                e.delay_until,
                e.name,
                e.chart,
                e.family,
                e.exec,
                e.recipient,
                e.source,
                e.units,
                e.info,
                e.exec_code,
                e.status.number(),
                e.old_status.number(),
                e.delay,
                known(e.value),
                known(e.old_value),
                e.last_repeat,
                e.class,
                e.component,
                e.type_,
                e.context,
            ]),
        Write::Updated { event, by } => connection
            .prepare_cached(
                "UPDATE health_log SET updated_by_id = ?3, flags = flags | ?4 WHERE host_id = ?1 AND unique_id = ?2",
            )?
            .execute(params![id(&host), event, by, flag::UPDATED]),
        Write::Flags { event, flags } => connection
            .prepare_cached(
                "UPDATE health_log SET flags = flags | ?3 WHERE host_id = ?1 AND unique_id = ?2",
            )?
            .execute(params![id(&host), event, flags]),
        Write::Alarm(alarm) => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO health_alarm(host_id, chart, name, alarm_id, last_event, events, told) \
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                id(&host),
                alarm.chart,
                alarm.name,
                alarm.alarm_id,
                alarm.last_event,
                alarm.events,
                alarm.told.map(Status::number),
            ]),
        Write::Order(order) => put_order(connection, order),
    }
}

fn put_order(connection: &Connection, order: &Order) -> Result<usize> {
    let waiting: Option<i64> = connection
        .prepare_cached("SELECT count(*) FROM health_order")?
        .query_row([], |row| row.get(0))?;
    if waiting.is_some_and(|waiting| waiting >= ORDERS_MAX) {
        log::error!(
            "HEALTH: {ORDERS_MAX} notifications wait for '{}' already. This one is lost.",
            order.program
        );
        return Ok(0);
    }
    connection
        .prepare_cached(
            "INSERT INTO health_order(host_id, unique_id, program, arguments) VALUES(?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            id(&order.host),
            order.event,
            order.program,
            order.arguments.join("\0").into_bytes()
        ])
}

fn entry_of(row: &Row<'_>) -> Result<Entry> {
    let status = |at| -> Result<Status> {
        Ok(Status::from_number(row.get(at)?).unwrap_or(Status::Undefined))
    };
    let value = |at| -> Result<f64> { Ok(row.get::<_, Option<f64>>(at)?.unwrap_or(f64::NAN)) };
    Ok(Entry {
        unique_id: row.get(0)?,
        alarm_id: row.get(1)?,
        event_id: row.get(2)?,
        updated_by: row.get(3)?,
        updates: row.get(4)?,
        when: row.get(5)?,
        duration: row.get(6)?,
        non_clear: row.get(7)?,
        flags: row.get(8)?,
        exec_run: row.get(9)?,
        delay_until: row.get(10)?,
        name: row.get(11)?,
        chart: row.get(12)?,
        family: row.get(13)?,
        exec: row.get(14)?,
        recipient: row.get(15)?,
        source: row.get(16)?,
        units: row.get(17)?,
        info: row.get(18)?,
        exec_code: row.get(19)?,
        status: status(20)?,
        old_status: status(21)?,
        delay: row.get(22)?,
        value: value(23)?,
        old_value: value(24)?,
        last_repeat: row.get(25)?,
        class: row.get(26)?,
        component: row.get(27)?,
        type_: row.get(28)?,
        context: row.get(29)?,
    })
}

#[cfg(test)]
impl Entry {
    /// Any change, of this number.
    pub(super) fn numbered(unique_id: i64) -> Entry {
        Entry {
            unique_id,
            alarm_id: 7,
            event_id: 1,
            updated_by: 0,
            updates: 0,
            when: 100,
            duration: 1,
            non_clear: 2,
            flags: 0,
            exec_run: 0,
            delay_until: 110,
            name: "a".into(),
            chart: "t.c".into(),
            family: "f".into(),
            exec: "/x".into(),
            recipient: "root".into(),
            source: "1@f".into(),
            units: "%".into(),
            info: "i".into(),
            exec_code: 0,
            status: Status::Warning,
            old_status: Status::Clear,
            delay: 10,
            value: 3.5,
            old_value: f64::NAN,
            last_repeat: 0,
            class: "c".into(),
            component: "d".into(),
            type_: "t".into(),
            context: "x".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(unique_id: i64, chart: &str) -> Entry {
        Entry { chart: chart.into(), flags: flag::NO_CLEAR, ..Entry::numbered(unique_id) }
    }

    #[test]
    fn the_log_is_kept_over_restarts_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (host, other) = (MachineGuid::random(), MachineGuid::random());
        let log = Log::open(dir.path()).unwrap();
        let events: Vec<Write> = (1..=30)
            .map(|n| Write::Event(Box::new(entry(n, if n % 2 == 0 { "t.even" } else { "t.odd" }))))
            .collect();
        log.write(host, &events);
        let alarm = Remembered {
            chart: "t.c".into(),
            name: "a".into(),
            alarm_id: 7,
            last_event: 30,
            events: 30,
            told: Some(Status::Warning),
        };
        log.write(
            host,
            &[
                Write::Updated { event: 29, by: 30 },
                Write::Flags { event: 30, flags: flag::PROCESSED },
                Write::Alarm(Box::new(alarm.clone())),
            ],
        );
        log.executed(host, 30, 120, 3);
        let old = Remembered { name: "old".into(), last_event: 3, told: None, ..alarm.clone() };
        log.write(host, &[Write::Alarm(Box::new(old))]);
        log.write(
            other,
            &[Write::Event(Box::new(entry(1, "t.c"))), Write::Alarm(Box::new(alarm.clone()))],
        );
        log.forget(other);
        log.trim(host, 10);
        drop(log);
        let log = Log::open(dir.path()).unwrap();
        assert_eq!(log.remembered(host), (vec![alarm], 30));
        assert_eq!(log.remembered(other), (vec![], 0));
        let all = log.entries(host, 0, None, 1000);
        assert_eq!(
            all.iter().map(|e| e.unique_id).collect::<Vec<_>>(),
            (21..=30).rev().collect::<Vec<_>>()
        );
        let newest = &all[0];
        assert_eq!(
            newest.flags,
            flag::NO_CLEAR | flag::PROCESSED | flag::EXEC_RUN | flag::EXEC_FAILED
        );
        assert_eq!((newest.exec_run, newest.exec_code, newest.value), (120, 3, 3.5));
        assert!(newest.old_value.is_nan());
        assert_eq!((all[1].updated_by, all[1].flags & flag::UPDATED), (30, flag::UPDATED));
        assert_eq!(log.entries(host, 25, Some("t.odd"), 1000).len(), 2);
        assert_eq!(log.entries(host, 0, None, 3).len(), 3);
        assert!(log.entries(other, 0, None, 3).is_empty());
    }

    #[test]
    fn events_of_a_span_are_shown_the_newest_first_and_no_more_than_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (MachineGuid::random(), MachineGuid::random());
        let log = Log::open(dir.path()).unwrap();
        let count = i64::try_from(PAGE).unwrap() * 2 + 5;
        for host in [a, b] {
            let at = |n: i64| Entry { when: 1000 + n / 3, ..entry(n, "t.c") };
            let events: Vec<Write> = (1..=count).map(|n| Write::Event(Box::new(at(n)))).collect();
            log.write(host, &events);
        }
        let all = Span { host: None, after: 0, before: i64::MAX, most: usize::MAX };
        let seen = |span: &Span, wanted: &dyn Fn(MachineGuid) -> bool| {
            let mut seen = Vec::new();
            let end = log.visit(span, wanted, &mut |host, entry| {
                seen.push((entry.when, host, entry.unique_id));
            });
            (seen, end)
        };
        let (both, end) = seen(&all, &|_| true);
        let mut sorted = both.clone();
        sorted.sort_by(|x, y| y.cmp(x));
        assert_eq!((both.len(), both == sorted, end), (2 * PAGE * 2 + 10, true, true));
        let (of_a, end) = seen(&Span { host: Some(a), ..all }, &|_| true);
        assert_eq!((of_a.len(), end), (PAGE * 2 + 5, true));
        assert_eq!(seen(&all, &|host| host == a).0, of_a);
        let (newest, end) = seen(&Span { most: PAGE + 1, ..all }, &|_| true);
        assert_eq!((newest.as_slice(), end), (&both[..=PAGE], false));
        let (span, _) =
            seen(&Span { after: 1010, before: 1011, host: Some(b), most: 100 }, &|_| true);
        assert_eq!(span.iter().map(|one| one.2).collect::<Vec<_>>(), [35, 34, 33, 32, 31, 30]);
        // Who writes waits for no reader.
        let reading = log.reader.lock();
        assert!(log.write(a, &[Write::Event(Box::new(entry(count + 1, "t.c")))]));
        drop(reading);
        // Neither sorts nor looks at other times.
        for (host, index) in
            [("?6 IS NULL", "health_log_when "), ("host_id = ?6", "health_log_host_when ")]
        {
            let sql = format!(
                "EXPLAIN QUERY PLAN SELECT name FROM health_log WHERE {host} AND when_key >= ?1 \
                 AND (when_key, host_id, unique_id) < (?2, ?3, ?4) \
                 ORDER BY when_key DESC, host_id DESC, unique_id DESC LIMIT ?5"
            );
            let reader = log.reader.lock();
            let mut plan = reader.as_ref().unwrap().prepare(&sql).unwrap();
            let none =
                rusqlite::params![0, 0, [0u8; 16].as_slice(), 0, 0, a.0.as_bytes().as_slice()];
            let plan: Vec<String> =
                plan.query_map(none, |row| row.get(3)).unwrap().map(|step| step.unwrap()).collect();
            assert!(plan.len() == 1 && plan[0].contains(index), "{plan:?}");
        }
    }

    #[test]
    fn orders_are_kept_until_they_are_started() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let host = MachineGuid::random();
        let order = |event: i64| {
            let arguments = ["a", "", "b c"].map(str::to_owned).to_vec();
            Order { id: 0, host, event, program: "/p".into(), arguments }
        };
        log.write(host, &[1, 2, 3].map(|event| Write::Order(Box::new(order(event)))));
        let first = log.next_order(0).unwrap();
        assert_eq!(first, Order { id: first.id, ..order(1) });
        let written: Vec<Write> =
            [1, 2].map(|n| Write::Event(Box::new(entry(n, "t.c")))).into_iter().collect();
        log.write(host, &written);
        log.started(&first, 100);
        let ran = &log.entries(host, 0, None, 9)[1];
        assert_eq!((ran.flags & flag::EXEC_RUN, ran.exec_run), (flag::EXEC_RUN, 100));
        assert_eq!(log.entries(host, 0, None, 9)[0].flags & flag::EXEC_RUN, 0, "not yet");
        drop(log);
        let log = Log::open(dir.path()).unwrap();
        let second = log.next_order(0).unwrap();
        assert_eq!((second.event, log.next_order(second.id).unwrap().event), (2, 3));
        log.write(
            host,
            &(0..ORDERS_MAX).map(|event| Write::Order(Box::new(order(event)))).collect::<Vec<_>>(),
        );
        let mut count = 0;
        let mut last = 0;
        while let Some(order) = log.next_order(last) {
            (count, last) = (count + 1, order.id);
        }
        assert_eq!(count, ORDERS_MAX, "what is too much is not kept");
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "no database".repeat(1000)).unwrap();
        let log = Log::open(dir.path()).unwrap();
        let host = MachineGuid::random();
        log.write(host, &[Write::Event(Box::new(entry(1, "t.c")))]);
        drop(log);
        assert_eq!(Log::open(dir.path()).unwrap().entries(host, 0, None, 9).len(), 1);
        assert!(dir.path().join("netdata-health.db.damaged").exists());
    }
}
