//! The metadata database: what hosts, charts and dimensions are called, so that those of earlier runs are listed and
//! found before anybody sends them again. SQLite, in `<cache>/netdata-meta.db`, with the tables and columns tools know.
//!
//! It is an index of convenience. The samples do not need it: what it says of hosts in the dbengine also stands in the
//! store's catalog, from which it is made anew when it is lost ([`Database::catch_up`]). A file that turns out to be
//! damaged is set aside with one ERROR line. Layout and recovery: `docs/formats/metadata.md`.
//!
//! Two connections, each behind its lock: one writes (thread `METADATA` and, for charts and hosts that go, `SERVICE`),
//! one reads (queries about what is not live). No collector ever waits for either.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, Row, params};
use uuid::Uuid;

use super::Mode;
use super::dbengine::catalog::{Catalog, CatalogError, Record};
use super::dbengine::names;
use super::records::{ChartRecord, DimensionRecord, HostRecord, LabelRecord};
use crate::base::ids::MachineGuid;
use crate::base::sys;
use crate::base::time::{UnixSeconds, UpdateEvery};

pub const FILE: &str = "netdata-meta.db";

/// In SQLite's `user_version`.
const VERSION: i64 = 1;
/// Charts read at once: between such portions other readers have their turn.
const PORTION: usize = 256;
/// Records of the catalog taken over in one transaction.
const CATCH_UP_AT_ONCE: usize = 20_000;
const HIDDEN: &str = "hidden";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS host(
  host_id BLOB PRIMARY KEY, hostname TEXT NOT NULL, registry_hostname TEXT NOT NULL DEFAULT '',
  update_every INT NOT NULL DEFAULT 1, os TEXT NOT NULL DEFAULT '', timezone TEXT NOT NULL DEFAULT '',
  tags TEXT NOT NULL DEFAULT '', hops INT NOT NULL DEFAULT 1, memory_mode INT NOT NULL DEFAULT 5,
  abbrev_timezone TEXT NOT NULL DEFAULT '', utc_offset INT NOT NULL DEFAULT 0,
  program_name TEXT NOT NULL DEFAULT '', program_version TEXT NOT NULL DEFAULT '',
  entries INT NOT NULL DEFAULT 0, health_enabled INT NOT NULL DEFAULT 0,
  last_connected INT NOT NULL DEFAULT 0, is_ephemeral INT NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS host_info(
  host_id BLOB NOT NULL, system_key TEXT NOT NULL, system_value TEXT NOT NULL, date_created INT,
  PRIMARY KEY(host_id, system_key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS host_label(
  host_id BLOB NOT NULL, source_type INT, label_key TEXT NOT NULL, label_value TEXT NOT NULL, date_created INT,
  PRIMARY KEY(host_id, label_key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS node_instance(
  host_id BLOB PRIMARY KEY, claim_id TEXT, node_id TEXT, date_created INT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chart(
  chart_id BLOB NOT NULL, host_id BLOB NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL, name TEXT,
  family TEXT NOT NULL, context TEXT NOT NULL, title TEXT NOT NULL, unit TEXT NOT NULL,
  plugin TEXT NOT NULL, module TEXT NOT NULL, priority INT NOT NULL, update_every INT NOT NULL,
  chart_type INT NOT NULL, memory_mode INT NOT NULL, history_entries INT NOT NULL, options TEXT NOT NULL DEFAULT '',
  PRIMARY KEY(host_id, type, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chart_label(
  chart_id BLOB NOT NULL, source_type INT, label_key TEXT NOT NULL, label_value TEXT NOT NULL, date_created INT,
  PRIMARY KEY(chart_id, label_key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dimension(
  dim_id BLOB NOT NULL, chart_id BLOB NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
  multiplier INT NOT NULL, divisor INT NOT NULL, algorithm INT NOT NULL, options TEXT NOT NULL DEFAULT '',
  position INT NOT NULL DEFAULT 0, PRIMARY KEY(chart_id, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS chart_name ON chart(host_id, type, name);
CREATE TABLE IF NOT EXISTS catalog(one INT PRIMARY KEY CHECK(one = 1), covered INT NOT NULL);
";

#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the metadata database '{path}': {source}")]
pub struct MetadataError {
    what: &'static str,
    path: PathBuf,
    source: rusqlite::Error,
}

/// What finds a chart, without reading all of it.
#[derive(Clone, Copy, Debug)]
pub struct ChartHead<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub context: &'a str,
}

/// Where in the list of a host's charts somebody is: after that type and id; `None` is the end.
pub struct Place(Option<(String, String)>);

impl Default for Place {
    fn default() -> Self {
        Place(Some(Default::default()))
    }
}

impl Place {
    pub fn is_end(&self) -> bool {
        self.0.is_none()
    }
}

pub struct Database {
    path: PathBuf,
    writer: Mutex<Option<Connection>>,
    reader: Mutex<Option<Connection>>,
    /// Something in the file does not make sense: it is to be set aside.
    damaged: AtomicBool,
    /// The disk refused the last write: said once, until it works again.
    failing: AtomicBool,
}

pub type Result<T> = std::result::Result<T, rusqlite::Error>;

impl Database {
    /// Opens or makes the database of a cache directory. What cannot be read is set aside; without a usable disk the
    /// agent works without, as one ERROR line says.
    pub fn open(cache: &Path) -> Database {
        let database = Database {
            path: cache.join(FILE),
            writer: Mutex::new(None),
            reader: Mutex::new(None),
            damaged: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        };
        match database.connect() {
            Ok(true) => {}
            Ok(false) => database.set_aside("original", &"is another program's"),
            Err(error) if is_damage(&error) => {
                database.set_aside("damaged", &format_args!("is damaged ({error})"));
            }
            Err(error) => database.complain("open", error),
        }
        database
    }

    /// False for a database that is none of ours to change.
    fn connect(&self) -> Result<bool> {
        let writer = Connection::open(&self.path)?;
        let version: i64 = writer.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let tables: i64 =
            writer.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if version != VERSION && tables > 0 {
            return Ok(false);
        }
        writer.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-512;
             PRAGMA journal_size_limit=4194304; PRAGMA temp_store=MEMORY;",
        )?;
        writer.execute_batch(SCHEMA)?;
        writer.execute_batch(&format!("PRAGMA user_version={VERSION}"))?;
        let reader = Connection::open(&self.path)?;
        reader.execute_batch("PRAGMA cache_size=-512; PRAGMA query_only=1;")?;
        reader.query_row("SELECT count(*) FROM host", [], |row| row.get::<_, i64>(0))?;
        *self.writer.lock() = Some(writer);
        *self.reader.lock() = Some(reader);
        Ok(true)
    }

    /// Looks through the whole file. For when there is time: it reads all of it.
    pub fn check(&self) {
        let reader = self.reader.lock();
        let Some(connection) = &*reader else { return };
        let found: Result<String> =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        match found {
            Ok(word) if word == "ok" => {}
            Ok(_) => self.damaged.store(true, Ordering::Release),
            Err(error) => self.note(&error),
        }
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Sets a damaged file aside and begins a new one; true when that happened: everything has to be written again.
    pub fn renew_if_damaged(&self) -> bool {
        if !self.damaged.swap(false, Ordering::AcqRel) {
            return false;
        }
        self.set_aside("damaged", &"is damaged (its pages contradict each other)");
        true
    }

    /// Begins a new file; the one there is keeps its bytes under another ending.
    fn set_aside(&self, ending: &str, why: &dyn std::fmt::Display) {
        *self.writer.lock() = None;
        *self.reader.lock() = None;
        let mut result = Ok(());
        for suffix in ["", "-wal", "-shm"] {
            let mut from = self.path.as_os_str().to_owned();
            from.push(suffix);
            let mut to = self.path.as_os_str().to_owned();
            to.push(".");
            to.push(ending);
            to.push(suffix);
            match fs::rename(&from, &to) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => result = Err(error),
                _ => {}
            }
        }
        log::error!(
            "METADATA: '{}' {why}: {}",
            self.path.display(),
            match result {
                Ok(()) => format!("set aside as .{ending} and made anew"),
                Err(error) => format!("cannot set it aside: {error}"),
            }
        );
        if let Err(error) = self.connect() {
            self.complain("make", error);
        }
    }

    fn complain(&self, what: &'static str, source: rusqlite::Error) {
        if !self.failing.swap(true, Ordering::AcqRel) {
            let error = MetadataError { what, path: self.path.clone(), source };
            log::error!("METADATA: {error}. It will be tried again.");
        }
    }

    fn note(&self, error: &rusqlite::Error) {
        if is_damage(error) {
            self.damaged.store(true, Ordering::Release);
        }
    }

    /// Runs `read` on the reading connection; nothing is found where the database cannot say.
    fn read<T: Default>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> T {
        let reader = self.reader.lock();
        let Some(connection) = &*reader else { return T::default() };
        read(connection).unwrap_or_else(|error| {
            self.note(&error);
            T::default()
        })
    }

    /// Runs `write` as one transaction. False when it could not be: nothing of it is written then.
    pub fn write(&self, write: impl FnOnce(&Batch<'_>) -> Result<()>) -> bool {
        let mut writer = self.writer.lock();
        let done = match &mut *writer {
            Some(connection) => connection.transaction().and_then(|transaction| {
                write(&Batch(&transaction))?;
                transaction.commit()
            }),
            None => {
                drop(writer);
                return match self.connect() {
                    // One that is not ours is looked at once, when it is opened.
                    Ok(ours) => ours && self.write(write),
                    Err(error) => {
                        self.complain("open", error);
                        false
                    }
                };
            }
        };
        match done {
            Ok(()) => {
                if self.failing.swap(false, Ordering::AcqRel) {
                    log::info!("METADATA: '{}' takes writes again", self.path.display());
                }
                true
            }
            Err(error) => {
                self.note(&error);
                self.complain("write", error);
                false
            }
        }
    }

    /// Puts everything into the one file. For a clean stop.
    pub fn close(&self) {
        *self.reader.lock() = None;
        // The last connection to go takes the log with it.
        *self.writer.lock() = None;
    }

    // --- reading ---------------------------------------------------------------------------------

    pub fn hosts(&self) -> Vec<HostRecord> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT host_id, hostname, registry_hostname, update_every, os, timezone, abbrev_timezone, utc_offset, tags, \
                 hops, memory_mode, entries, program_name, program_version, health_enabled, is_ephemeral, last_connected, \
                 claim_id, node_id FROM host LEFT JOIN node_instance USING(host_id) ORDER BY hostname, host_id",
            )?;
            let hosts = statement.query_map([], host_of)?.collect::<Result<Vec<_>>>()?;
            let mut facts = connection
                .prepare("SELECT system_key, system_value FROM host_info WHERE host_id=?1")?;
            let mut labels = connection.prepare(
                "SELECT label_key, label_value, source_type FROM host_label WHERE host_id=?1",
            )?;
            hosts
                .into_iter()
                .map(|mut host| {
                    let id = host.guid.0.as_bytes();
                    let pair = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
                    host.system = facts.query_map([id], pair)?.collect::<Result<_>>()?;
                    host.labels = labels.query_map([id], label_of)?.collect::<Result<_>>()?;
                    Ok(host)
                })
                .collect()
        })
    }

    /// Calls `visit` for all charts of a host that are `wanted`, in order of their ids.
    pub fn charts(
        &self,
        host: MachineGuid,
        wanted: &mut dyn FnMut(&ChartHead<'_>) -> bool,
        visit: &mut dyn FnMut(ChartRecord),
    ) {
        let mut place = Place::default();
        while !place.is_end() {
            let portion = self.portion(host, &mut place, PORTION, wanted);
            portion.into_iter().for_each(&mut *visit);
        }
    }

    /// The next charts of a host that are `wanted`, of `count` looked at; `place` moves on.
    pub fn portion(
        &self,
        host: MachineGuid,
        place: &mut Place,
        count: usize,
        wanted: &mut dyn FnMut(&ChartHead<'_>) -> bool,
    ) -> Vec<ChartRecord> {
        let Some((mut kind, mut rest)) = place.0.take() else { return Vec::new() };
        let (charts, more) = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT type, id, name, context FROM chart WHERE host_id=?1 AND (type, id) > (?2, ?3) \
                 ORDER BY type, id LIMIT ?4",
            )?;
            let limit = i64::try_from(count).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![host.0.as_bytes(), kind, rest, limit])?;
            let mut found = Vec::new();
            let mut seen = 0;
            while let Some(row) = rows.next()? {
                seen += 1;
                (kind, rest) = (row.get(0)?, row.get(1)?);
                let id = format!("{kind}.{rest}");
                let name: Option<String> = row.get(2)?;
                let name = name.map_or_else(|| id.clone(), |name| format!("{kind}.{name}"));
                let context = row.get_ref(3)?.as_str().unwrap_or("");
                if wanted(&ChartHead { id: &id, name: &name, context }) {
                    found.push((kind.clone(), rest.clone()));
                }
            }
            let charts = found.iter().map(|(kind, id)| whole_chart(connection, host, kind, id));
            let charts = charts.collect::<Result<Vec<_>>>()?;
            Ok((charts.into_iter().flatten().collect::<Vec<_>>(), seen == count))
        });
        place.0 = more.then_some((kind, rest));
        charts
    }

    /// The chart of an id, else of a name.
    pub fn chart(&self, host: MachineGuid, id_or_name: &str) -> Option<ChartRecord> {
        let (kind, rest) = id_or_name.split_once('.')?;
        self.read(|connection| {
            if let Some(chart) = whole_chart(connection, host, kind, rest)? {
                return Ok(Some(chart));
            }
            let id: Option<String> = connection
                .prepare_cached("SELECT id FROM chart WHERE host_id=?1 AND type=?2 AND name=?3")?
                .query_row(params![host.0.as_bytes(), kind, rest], |row| row.get(0))
                .optional()?;
            id.map_or(Ok(None), |id| whole_chart(connection, host, kind, &id))
        })
    }

    /// The dimensions of a chart.
    pub fn dimensions(&self, host: MachineGuid, chart: &str) -> Vec<DimensionRecord> {
        self.read(|connection| dimensions_of(connection, chart_uuid(host, chart)))
    }

    /// How many charts of a host it knows.
    pub fn charts_count(&self, host: MachineGuid) -> usize {
        self.read(|connection| {
            let count: i64 = connection
                .prepare_cached("SELECT count(*) FROM chart WHERE host_id=?1")?
                .query_row([host.0.as_bytes()], |row| row.get(0))?;
            Ok(usize::try_from(count).unwrap_or(0))
        })
    }

    // --- the store's catalog -----------------------------------------------------------------------

    /// Takes over what the catalog of a store says and this database may not know: all of it when the database is new,
    /// the last seconds of an earlier run otherwise. `goes_on` is asked after every portion.
    pub fn catch_up(
        &self,
        catalog: &Catalog,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<(), CatalogError> {
        let covered = self.read(|connection| {
            let at: Option<i64> = connection
                .query_row("SELECT covered FROM catalog", [], |row| row.get(0))
                .optional()?;
            Ok(u64::try_from(at.unwrap_or(0)).unwrap_or(0))
        });
        // What is made from nothing can be made again, should the power fail meanwhile.
        let anew = covered == 0;
        self.set_synchronous(!anew);
        let mut portion = Vec::new();
        let mut complete = true;
        let end = catalog.since(covered, &mut |record| {
            if complete {
                portion.push(record);
                if portion.len() >= CATCH_UP_AT_ONCE {
                    complete &= self.take_over(&mut portion) && goes_on();
                }
            }
        });
        if complete
            && self.take_over(&mut portion)
            && let Ok(end) = end
            && end != covered
        {
            self.write(|batch| batch.covered(end));
        }
        if end.as_ref().is_ok_and(|end| *end != covered) {
            sys::trim_malloc();
        }
        self.set_synchronous(true);
        end.map(drop)
    }

    fn set_synchronous(&self, yes: bool) {
        if let Some(connection) = &*self.writer.lock() {
            let word = if yes { "NORMAL" } else { "OFF" };
            if let Err(error) = connection.execute_batch(&format!("PRAGMA synchronous={word}")) {
                self.note(&error);
            }
        }
    }

    fn take_over(&self, records: &mut Vec<Record>) -> bool {
        if records.is_empty() {
            return true;
        }
        let records = std::mem::take(records);
        self.write(|batch| {
            for record in records {
                match record {
                    Record::Metric { number, host, chart, dimension } => {
                        batch.metric(host, &chart, &dimension, number)?;
                    }
                    Record::Host { guid, hostname } => batch.hostname(guid, &hostname)?,
                    Record::Chart { host, chart, definition } => {
                        if let Some(chart) = names::chart(&chart, &definition) {
                            batch.chart_alone(host, &chart, Mode::Dbengine, 0, UnixSeconds(0))?;
                        }
                    }
                    Record::Dimension { host, chart, dimension, definition } => {
                        if let Some(record) = names::dimension(&dimension, &definition) {
                            batch.dimension(chart_uuid(host, &chart), &record, None)?;
                        }
                    }
                    Record::Forgotten { guid } => batch.forget_host(guid)?,
                }
            }
            Ok(())
        })
    }
}

/// A transaction.
pub struct Batch<'a>(&'a Connection);

impl Batch<'_> {
    fn statement(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.0.prepare_cached(sql)
    }

    pub fn host(&self, host: &HostRecord, now: UnixSeconds) -> Result<()> {
        let id = host.guid.0.as_bytes();
        self.statement(
            "INSERT OR REPLACE INTO host(host_id, hostname, registry_hostname, update_every, os, timezone, tags, hops, \
             memory_mode, abbrev_timezone, utc_offset, program_name, program_version, entries, health_enabled, \
             last_connected, is_ephemeral) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)",
        )?
        .execute(params![
            id,
            host.hostname,
            host.registry_hostname,
            host.update_every,
            host.os,
            host.timezone,
            host.tags,
            host.hops,
            host.mode as i64,
            host.abbrev_timezone,
            host.utc_offset,
            host.program_name,
            host.program_version,
            host.history,
            host.health_enabled,
            host.last_connected.0,
            host.ephemeral
        ])?;
        self.statement("DELETE FROM host_info WHERE host_id=?1")?.execute([id])?;
        let mut add = self.statement("INSERT OR REPLACE INTO host_info VALUES(?1,?2,?3,?4)")?;
        for (key, value) in &host.system {
            add.execute(params![id, key, value, now.0])?;
        }
        self.statement("DELETE FROM host_label WHERE host_id=?1")?.execute([id])?;
        let mut add = self.statement("INSERT OR REPLACE INTO host_label VALUES(?1,?2,?3,?4,?5)")?;
        for label in &host.labels {
            add.execute(params![id, label.source, label.name, label.value, now.0])?;
        }
        if host.claim_id.is_some() || host.node_id.is_some() {
            self.statement("INSERT OR REPLACE INTO node_instance VALUES(?1,?2,?3,?4)")?
                .execute(params![id, host.claim_id, host.node_id, now.0])?;
        }
        Ok(())
    }

    /// When a host was seen last.
    pub fn seen(&self, guid: MachineGuid, at: UnixSeconds) -> Result<()> {
        self.statement("UPDATE host SET last_connected=?2 WHERE host_id=?1")?
            .execute(params![guid.0.as_bytes(), at.0])?;
        Ok(())
    }

    fn hostname(&self, guid: MachineGuid, hostname: &str) -> Result<()> {
        self.statement(
            "INSERT INTO host(host_id, hostname, registry_hostname) VALUES(?1,?2,?2) \
             ON CONFLICT(host_id) DO UPDATE SET hostname=excluded.hostname, \
             registry_hostname=coalesce(nullif(registry_hostname, ''), excluded.hostname)",
        )?
        .execute(params![guid.0.as_bytes(), hostname])?;
        Ok(())
    }

    /// A chart with its labels and dimensions. True when it has more dimensions than these.
    pub fn chart(
        &self,
        host: MachineGuid,
        chart: &ChartRecord,
        mode: Mode,
        entries: u32,
        now: UnixSeconds,
    ) -> Result<bool> {
        let uuid = self.chart_alone(host, chart, mode, entries, now)?;
        let id = uuid.as_bytes();
        for (dimension, position) in chart.dimensions.iter().zip(0u32..) {
            self.dimension(uuid, dimension, Some(position))?;
        }
        let known: i64 = self
            .statement("SELECT count(*) FROM dimension WHERE chart_id=?1")?
            .query_row([id], |row| row.get(0))?;
        Ok(usize::try_from(known).unwrap_or(0) > chart.dimensions.len())
    }

    /// Without its dimensions.
    fn chart_alone(
        &self,
        host: MachineGuid,
        chart: &ChartRecord,
        mode: Mode,
        entries: u32,
        now: UnixSeconds,
    ) -> Result<Uuid> {
        let uuid = chart_uuid(host, &chart.id);
        let (kind, id) = halves(&chart.id);
        let name = chart.name.strip_prefix(kind).and_then(|name| name.strip_prefix('.'));
        self.statement(
            "INSERT OR REPLACE INTO chart(chart_id, host_id, type, id, name, family, context, title, unit, plugin, module, \
             priority, update_every, chart_type, memory_mode, history_entries, options) \
             VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)",
        )?
        .execute(params![
            uuid.as_bytes(),
            host.0.as_bytes(),
            kind,
            id,
            name.filter(|name| *name != id),
            chart.family,
            chart.context,
            chart.title,
            chart.units,
            chart.plugin,
            chart.module,
            chart.priority,
            chart.update_every.seconds(),
            chart.chart_type,
            mode as i64,
            entries,
            options(chart.hidden)
        ])?;
        let id = uuid.as_bytes();
        self.statement("DELETE FROM chart_label WHERE chart_id=?1")?.execute([id])?;
        let mut add =
            self.statement("INSERT OR REPLACE INTO chart_label VALUES(?1,?2,?3,?4,?5)")?;
        for label in &chart.labels {
            add.execute(params![id, label.source, label.name, label.value, now.0])?;
        }
        Ok(uuid)
    }

    fn dimension(
        &self,
        chart: Uuid,
        dimension: &DimensionRecord,
        position: Option<u32>,
    ) -> Result<()> {
        self.statement(
            "INSERT INTO dimension VALUES(?1,?2,?3,?4,?5,?6,?7,?8,coalesce(?9,0)) ON CONFLICT DO UPDATE SET \
             name=excluded.name, multiplier=excluded.multiplier, divisor=excluded.divisor, \
             algorithm=excluded.algorithm, options=excluded.options, position=coalesce(?9,position)",
        )?
        .execute(params![
            Uuid::new_v5(&chart, dimension.id.as_bytes()).as_bytes(),
            chart.as_bytes(),
            dimension.id,
            dimension.name,
            dimension.multiplier,
            dimension.divisor,
            dimension.algorithm,
            options(dimension.hidden),
            position
        ])?;
        Ok(())
    }

    /// A metric of which no more is known than its name.
    fn metric(&self, host: MachineGuid, chart: &str, dimension: &str, number: u32) -> Result<()> {
        let uuid = chart_uuid(host, chart);
        let added = self
            .statement("INSERT OR IGNORE INTO dimension VALUES(?1,?2,?3,?3,1,1,0,'',?4)")?
            .execute(params![
                Uuid::new_v5(&uuid, dimension.as_bytes()).as_bytes(),
                uuid.as_bytes(),
                dimension,
                number
            ])?;
        if added == 0 {
            return Ok(());
        }
        let (kind, id) = halves(chart);
        let added = self
            .statement(
                "INSERT OR IGNORE INTO chart VALUES(?1,?2,?3,?4,NULL,?3,?5,'','','','',1000,1,0,5,0,'')",
            )?
            .execute(params![uuid.as_bytes(), host.0.as_bytes(), kind, id, chart])?;
        if added > 0 {
            self.statement("INSERT OR IGNORE INTO host(host_id, hostname) VALUES(?1,?2)")?
                .execute(params![host.0.as_bytes(), host.to_string()])?;
        }
        Ok(())
    }

    /// A chart is not to be listed any more.
    pub fn forget_chart(&self, host: MachineGuid, chart: &str) -> Result<()> {
        let uuid = chart_uuid(host, chart);
        let (kind, id) = halves(chart);
        self.statement("DELETE FROM chart WHERE host_id=?1 AND type=?2 AND id=?3")?
            .execute(params![host.0.as_bytes(), kind, id])?;
        for table in ["chart_label", "dimension"] {
            self.statement(&format!("DELETE FROM {table} WHERE chart_id=?1"))?
                .execute([uuid.as_bytes()])?;
        }
        Ok(())
    }

    pub fn forget_dimension(&self, host: MachineGuid, chart: &str, id: &str) -> Result<()> {
        self.statement("DELETE FROM dimension WHERE chart_id=?1 AND id=?2")?
            .execute(params![chart_uuid(host, chart).as_bytes(), id])?;
        Ok(())
    }

    /// A host is not to be listed any more, nor its charts.
    pub fn forget_host(&self, guid: MachineGuid) -> Result<()> {
        let id = guid.0.as_bytes();
        for table in ["chart_label", "dimension"] {
            self.statement(&format!(
                "DELETE FROM {table} WHERE chart_id IN (SELECT chart_id FROM chart WHERE host_id=?1)"
            ))?
            .execute([id])?;
        }
        for table in ["chart", "host_info", "host_label", "node_instance", "host"] {
            self.statement(&format!("DELETE FROM {table} WHERE host_id=?1"))?.execute([id])?;
        }
        Ok(())
    }

    /// Everything before this byte of the catalog is known here.
    pub fn covered(&self, end: u64) -> Result<()> {
        self.statement("INSERT OR REPLACE INTO catalog VALUES(1, ?1)")?
            .execute([i64::try_from(end).unwrap_or(0)])?;
        Ok(())
    }
}

/// The id of a chart, the same in every database.
fn chart_uuid(host: MachineGuid, chart: &str) -> Uuid {
    Uuid::new_v5(&host.0, chart.as_bytes())
}

fn halves(chart: &str) -> (&str, &str) {
    chart.split_once('.').unwrap_or((chart, ""))
}

fn options(hidden: bool) -> &'static str {
    if hidden { HIDDEN } else { "" }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            error,
            // A table or column that should be there is not, or holds what it cannot.
            rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::SqlInputError { .. }
        )
}

fn host_of(row: &Row<'_>) -> Result<HostRecord> {
    let id: [u8; 16] = row.get(0)?;
    Ok(HostRecord {
        guid: MachineGuid(Uuid::from_bytes(id)),
        hostname: row.get(1)?,
        registry_hostname: row.get(2)?,
        update_every: row.get(3)?,
        os: row.get(4)?,
        timezone: row.get(5)?,
        abbrev_timezone: row.get(6)?,
        utc_offset: row.get(7)?,
        tags: row.get(8)?,
        hops: row.get(9)?,
        mode: Mode::from_id(row.get(10)?).unwrap_or(Mode::None),
        history: row.get(11)?,
        program_name: row.get(12)?,
        program_version: row.get(13)?,
        health_enabled: row.get(14)?,
        ephemeral: row.get(15)?,
        last_connected: UnixSeconds(row.get(16)?),
        claim_id: row.get(17)?,
        node_id: row.get(18)?,
        system: Vec::new(),
        labels: Vec::new(),
    })
}

fn label_of(row: &Row<'_>) -> Result<LabelRecord> {
    Ok(LabelRecord { name: row.get(0)?, value: row.get(1)?, source: row.get(2)? })
}

fn whole_chart(
    connection: &Connection,
    host: MachineGuid,
    kind: &str,
    id: &str,
) -> Result<Option<ChartRecord>> {
    let full = format!("{kind}.{id}");
    let uuid = chart_uuid(host, &full);
    let found = connection
        .prepare_cached(
            "SELECT name, family, context, title, unit, plugin, module, priority, update_every, chart_type, options \
             FROM chart WHERE host_id=?1 AND type=?2 AND id=?3",
        )?
        .query_row(params![host.0.as_bytes(), kind, id], |row| {
            let name: Option<String> = row.get(0)?;
            Ok(ChartRecord {
                name: name.map_or_else(|| full.clone(), |name| format!("{kind}.{name}")),
                family: row.get(1)?,
                context: row.get(2)?,
                title: row.get(3)?,
                units: row.get(4)?,
                plugin: row.get(5)?,
                module: row.get(6)?,
                priority: row.get(7)?,
                update_every: UpdateEvery::clamped(row.get(8)?),
                chart_type: row.get(9)?,
                hidden: row.get_ref(10)?.as_str().is_ok_and(|word| word == HIDDEN),
                labels: Vec::new(),
                dimensions: Vec::new(),
                id: full.clone(),
            })
        })
        .optional()?;
    let Some(mut chart) = found else { return Ok(None) };
    chart.labels = connection
        .prepare_cached(
            "SELECT label_key, label_value, source_type FROM chart_label WHERE chart_id=?1",
        )?
        .query_map([uuid.as_bytes()], label_of)?
        .collect::<Result<_>>()?;
    chart.dimensions = dimensions_of(connection, uuid)?;
    Ok(Some(chart))
}

fn dimensions_of(connection: &Connection, chart: Uuid) -> Result<Vec<DimensionRecord>> {
    connection
        .prepare_cached(
            "SELECT id, name, multiplier, divisor, algorithm, options FROM dimension WHERE chart_id=?1 \
             ORDER BY position, id",
        )?
        .query_map([chart.as_bytes()], |row| {
            Ok(DimensionRecord {
                id: row.get(0)?,
                name: row.get(1)?,
                multiplier: row.get(2)?,
                divisor: row.get(3)?,
                algorithm: row.get(4)?,
                hidden: row.get_ref(5)?.as_str().is_ok_and(|word| word == HIDDEN),
            })
        })?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MetricKey;

    fn guid(n: u128) -> MachineGuid {
        MachineGuid(Uuid::from_u128(n))
    }

    fn chart(id: &str, dimensions: usize) -> ChartRecord {
        let dimension = |n: usize| DimensionRecord {
            name: format!("Name {n}"),
            divisor: 8,
            hidden: n == 1,
            // Not in the order of the alphabet.
            ..DimensionRecord::bare(&format!("{}", 9 - n))
        };
        ChartRecord {
            name: format!("{id}_named"),
            title: "A title".into(),
            context: "t.ctx".into(),
            update_every: UpdateEvery::clamped(5),
            chart_type: 2,
            labels: vec![LabelRecord { name: "a".into(), value: "b".into(), source: 2 }],
            dimensions: (0..dimensions).map(dimension).collect(),
            ..ChartRecord::bare(id)
        }
    }

    fn host(n: u128) -> HostRecord {
        HostRecord {
            mode: Mode::Map,
            history: 77,
            ephemeral: true,
            node_id: Some("node".into()),
            last_connected: UnixSeconds(5),
            system: vec![("NETDATA_X".into(), "y".into())],
            labels: vec![LabelRecord { name: "_os".into(), value: "linux".into(), source: 1 }],
            ..HostRecord::named(guid(n), "box")
        }
    }

    fn put(database: &Database, charts: &[ChartRecord]) {
        let now = UnixSeconds(100);
        assert!(database.write(|batch| {
            batch.host(&host(1), now)?;
            charts
                .iter()
                .try_for_each(|chart| batch.chart(guid(1), chart, Mode::Map, 924, now).map(drop))
        }));
    }

    fn ids(database: &Database, host: MachineGuid) -> Vec<String> {
        let mut ids = Vec::new();
        database.charts(host, &mut |_| true, &mut |chart| ids.push(chart.id));
        ids
    }

    #[test]
    fn what_is_written_is_read_back_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let charts = [chart("t.a", 3), chart("t.b.c", 0)];
        {
            let database = Database::open(dir.path());
            put(&database, &charts);
            put(&database, &charts);
            database.close();
        }
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        let database = Database::open(dir.path());
        assert_eq!(database.hosts(), [host(1)]);
        assert_eq!(database.chart(guid(1), "t.a").as_ref(), Some(&charts[0]));
        assert_eq!(database.chart(guid(1), "t.b.c_named").as_ref(), Some(&charts[1]));
        assert_eq!(database.chart(guid(1), "t.nosuch"), None);
        assert_eq!(database.chart(guid(2), "t.a"), None);
        assert_eq!(database.charts_count(guid(1)), 2);
        let more =
            ChartRecord { dimensions: charts[0].dimensions[..1].to_vec(), ..charts[0].clone() };
        database.write(|batch| {
            assert!(
                batch.chart(guid(1), &more, Mode::Map, 924, UnixSeconds(0))?,
                "one dimension of three"
            );
            assert!(!batch.chart(guid(1), &charts[0], Mode::Map, 924, UnixSeconds(0))?);
            batch.forget_dimension(guid(1), "t.a", "8")?;
            batch.forget_chart(guid(1), "t.b.c")
        });
        assert_eq!(database.dimensions(guid(1), "t.a").len(), 2);
        assert_eq!(ids(&database, guid(1)), ["t.a"]);
        database.write(|batch| batch.forget_host(guid(1)));
        assert_eq!((database.hosts(), ids(&database, guid(1))), (vec![], vec![]));
    }

    #[test]
    fn portions_give_every_chart_once_and_only_those_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path());
        let charts: Vec<_> = (0..1000).map(|n| chart(&format!("t{}.c{n}", n % 7), 1)).collect();
        put(&database, &charts);
        let mut wanted: Vec<_> = charts.iter().map(|chart| chart.id.clone()).collect();
        wanted.sort();
        assert_eq!(ids(&database, guid(1)), wanted);
        let mut some = Vec::new();
        database.charts(guid(1), &mut |head| head.id.ends_with("77"), &mut |c| some.push(c.id));
        assert_eq!(some.len(), 10);
    }

    #[test]
    fn a_failed_transaction_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path());
        put(&database, &[]);
        let written = database.write(|batch| {
            batch.chart(guid(1), &chart("t.a", 1), Mode::Map, 1, UnixSeconds(0))?;
            Err(rusqlite::Error::QueryReturnedNoRows)
        });
        assert!(!written);
        assert_eq!(ids(&database, guid(1)), Vec::<String>::new());
    }

    #[test]
    fn a_damaged_file_is_set_aside_whenever_that_shows() {
        let spoil: [fn(&Path); 4] = [
            |path| fs::write(path, b"This is no database at all, and never was.").unwrap(),
            |path| {
                // The head stays, so it opens.
                let mut bytes = fs::read(path).unwrap();
                bytes[4096..].fill(0x5A);
                fs::write(path, bytes).unwrap();
            },
            |path| {
                let length = fs::metadata(path).unwrap().len();
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length / 2).unwrap();
            },
            |path| {
                let other = Connection::open(path).unwrap();
                other.execute_batch("PRAGMA user_version=7").unwrap();
            },
        ];
        for (way, spoil) in spoil.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let charts: Vec<_> = (0..200).map(|n| chart(&format!("t.c{n}"), 5)).collect();
            {
                let database = Database::open(dir.path());
                put(&database, &charts);
                database.close();
            }
            spoil(&dir.path().join(FILE));
            let database = Database::open(dir.path());
            database.check();
            database.renew_if_damaged();
            let ending = if way == 3 { "original" } else { "damaged" };
            assert!(dir.path().join(format!("{FILE}.{ending}")).exists(), "way {way}");
            assert!(!database.renew_if_damaged(), "only once");
            assert_eq!(database.hosts(), [], "way {way}");
            put(&database, &charts[..3]);
            assert_eq!(ids(&database, guid(1)).len(), 3, "way {way}");
        }
    }

    #[test]
    fn the_catalog_gives_everything_back_and_later_only_what_is_new() {
        let (store, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let catalog = Catalog::open(store.path()).unwrap();
        let metric = |chart: &str, dimension: &str| {
            let key = MetricKey { host: guid(1), chart: chart.into(), dimension: dimension.into() };
            catalog.number(&key).unwrap();
        };
        let whole = chart("t.a", 2);
        for dimension in &whole.dimensions {
            metric("t.a", &dimension.id);
        }
        let definition = vec![
            whole.name.clone(),
            whole.family.clone(),
            whole.context.clone(),
            whole.title.clone(),
            String::new(),
            String::new(),
            String::new(),
            "1000".into(),
            "5".into(),
            "2".into(),
            String::new(),
        ];
        catalog.note(&Record::Host { guid: guid(1), hostname: "box".into() }).unwrap();
        catalog.note(&Record::Chart { host: guid(1), chart: "t.a".into(), definition }).unwrap();
        let definition = vec!["Name 1".into(), "1".into(), "8".into(), "0".into(), HIDDEN.into()];
        let (chart_id, dimension) = ("t.a".to_owned(), "8".to_owned());
        catalog
            .note(&Record::Dimension { host: guid(1), chart: chart_id, dimension, definition })
            .unwrap();
        metric("x.bare", "d");

        let database = Database::open(cache.path());
        database.catch_up(&catalog, &mut || true).unwrap();
        assert_eq!(database.hosts(), [HostRecord::named(guid(1), "box")]);
        let found = database.chart(guid(1), "t.a").unwrap();
        assert_eq!((&found.name, &found.title, found.chart_type), (&whole.name, &whole.title, 2));
        assert_eq!(found.dimensions[0], DimensionRecord::bare("9"));
        assert_eq!(found.dimensions[1], whole.dimensions[1]);
        assert_eq!(database.chart(guid(1), "x.bare").unwrap().dimensions.len(), 1);

        // What is known better is not overwritten, and what is known is not read again.
        put(&database, std::slice::from_ref(&whole));
        database.write(|batch| batch.forget_chart(guid(1), "x.bare"));
        metric("y.new", "d");
        database.catch_up(&catalog, &mut || true).unwrap();
        assert_eq!(ids(&database, guid(1)), ["t.a", "y.new"]);
        assert_eq!(database.chart(guid(1), "t.a").as_ref(), Some(&whole));
        assert_eq!(database.hosts(), [host(1)]);
        catalog.note(&Record::Forgotten { guid: guid(1) }).unwrap();
        database.catch_up(&catalog, &mut || true).unwrap();
        assert_eq!(database.hosts(), []);
    }
}
