//! The alarm log: every change of status, in SQLite, kept over restarts and bounded per host.
//!
//! One lock, the connection's, held for a transaction or a page of an answer; no collector takes it. Without a usable disk
//! the log lives in memory, as one ERROR line says. The format: docs/formats/health-log.md.

use std::path::{Path, PathBuf};

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
";
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

pub struct Log {
    path: PathBuf,
    connection: Mutex<Connection>,
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
        Ok(Log { path, connection: Mutex::new(connection) })
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
        let mut connection = self.connection.lock();
        let done = connection.transaction().and_then(|transaction| {
            transaction
                .prepare_cached("DELETE FROM health_order WHERE id = ?1")?
                .execute([order.id])?;
            transaction
                .prepare_cached(
                    "UPDATE health_log SET exec_run_timestamp = ?3 WHERE host_id = ?1 AND unique_id = ?2",
                )?
                .execute(params![id(&order.host), order.event, at])?;
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
        let connection = self.connection.lock();
        let read = || -> Result<Vec<Entry>> {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM health_log WHERE host_id = ?1 AND unique_id > ?2 \
                 AND (?3 IS NULL OR chart = ?3) ORDER BY unique_id DESC LIMIT ?4"
            ))?;
            let entries = statement.query_map(params![id(&host), after, chart, most], entry_of)?;
            entries.collect()
        };
        read().unwrap_or_default()
    }

    /// Shows the events of a host from `after` to `before`, both included, the newest first.
    pub fn visit(&self, host: MachineGuid, after: i64, before: i64, see: &mut dyn FnMut(Entry)) {
        let connection = self.connection.lock();
        let mut read = || -> Result<()> {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM health_log WHERE host_id = ?1 AND when_key BETWEEN ?2 AND ?3 \
                 ORDER BY unique_id DESC"
            ))?;
            let mut rows = statement.query(params![id(&host), after, before])?;
            while let Some(row) = rows.next()? {
                see(entry_of(row)?);
            }
            Ok(())
        };
        if let Err(error) = read() {
            log::error!("HEALTH: cannot read '{}': {error}", self.path.display());
        }
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
mod tests {
    use super::*;

    fn entry(unique_id: i64, chart: &str) -> Entry {
        Entry {
            unique_id,
            alarm_id: 7,
            event_id: 1,
            updated_by: 0,
            updates: 0,
            when: 100,
            duration: 1,
            non_clear: 2,
            flags: flag::NO_CLEAR,
            exec_run: 0,
            delay_until: 110,
            name: "a".into(),
            chart: chart.into(),
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
        log.started(&first, 100);
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
