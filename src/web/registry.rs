//! The registry: which agents each browser has visited, so that the dashboards' menu can list them. Off unless
//! `[registry] enabled`.
//!
//! A person is a browser, known by a cookie; a machine is an agent, known by its GUID. One table in SQLite, kept over restarts,
//! bounded as a whole and per person. One lock, held for a transaction, which only requests to the registry take. Who may ask,
//! and what is answered, is `api/v1/registry.rs`'s. The format: docs/formats/registry.md.

use std::path::PathBuf;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use crate::config::Config;

/// In SQLite's `user_version`.
const VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS visit(
  person BLOB NOT NULL, url TEXT NOT NULL, machine BLOB NOT NULL, name TEXT NOT NULL,
  first_ms INT NOT NULL, last_ms INT NOT NULL, visits INT NOT NULL, PRIMARY KEY(person, url)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS visit_machine ON visit(machine);
";
/// Rows; whoever is new after that is refused.
const ROWS_MAX: i64 = 100_000;
/// Of one person; the one visited longest ago goes.
const URLS_MAX: i64 = 1_000;
const DAY_MS: i64 = 86_400_000;

/// `[registry]`
#[derive(Clone, Debug)]
pub struct Settings {
    pub enabled: bool,
    pub file: PathBuf,
    /// Nobody becomes a person whose browser keeps no cookies.
    pub verifies_cookies: bool,
    /// A second cookie is set, for dashboards of other sites.
    pub same_site: bool,
    /// The domain of that cookie; none when empty.
    pub domain: String,
    url_max: usize,
    name_max: usize,
    expire_days: i64,
}

impl Settings {
    /// `directory` is that of the registry.
    pub fn from_config(config: &Config, directory: &str) -> Settings {
        let length = |name, default| {
            usize::try_from(config.number("registry", name, default).clamp(10, 64 * 1024))
                .unwrap_or(1024)
        };
        let expire = config.number("registry", "registry expire idle persons days", 365);
        Settings {
            enabled: config.boolean("registry", "enabled", false),
            file: config.path("registry", "registry db file", format!("{directory}/registry.db")),
            verifies_cookies: config.boolean("registry", "verify browser cookies support", true),
            same_site: config.boolean("registry", "enable cookies SameSite and Secure", true),
            domain: config.string("registry", "registry domain", ""),
            url_max: length("max URL length", 1024),
            name_max: length("max URL name length", 50),
            expire_days: expire.clamp(1, 36_500),
        }
    }
}

/// An agent that a person has visited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    pub machine: Uuid,
    pub url: String,
    pub last_ms: i64,
    pub visits: i64,
    pub name: String,
}

/// Why somebody does not become another person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    PersonUnknown,
    NewPersonUnknown,
    MachineUnknown,
    NotOfPerson,
    NotOfNewPerson,
}

type Result<T> = std::result::Result<T, rusqlite::Error>;

pub struct Registry {
    settings: Settings,
    connection: Mutex<Connection>,
}

impl Registry {
    /// Persons who were not seen for long are forgotten. A file that is none of ours is left as it is.
    pub fn open(settings: Settings, now_ms: i64) -> Result<Registry> {
        let connection = Connection::open(&settings.file)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        let oldest = now_ms.saturating_sub(settings.expire_days.saturating_mul(DAY_MS));
        connection.execute(
            "DELETE FROM visit WHERE person IN
             (SELECT person FROM visit GROUP BY person HAVING max(last_ms) < ?1)",
            params![oldest],
        )?;
        Ok(Registry { settings, connection: Mutex::new(connection) })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Notes a visit and gives all of that person, the latest first; `None` when there is no room for another one.
    pub fn visit(
        &self,
        person: Uuid,
        machine: Uuid,
        (url, name): (&str, &str),
        now_ms: i64,
    ) -> Result<Option<Vec<Visit>>> {
        let (url, name) = (self.url(url), cut(name, self.settings.name_max));
        let mut connection = self.connection.lock();
        let all = connection.transaction()?;
        let noted = all.execute(
            "UPDATE visit SET machine = ?3, name = ?4, last_ms = ?5, visits = visits + 1
             WHERE person = ?1 AND url = ?2",
            params![person.as_bytes(), url, machine.as_bytes(), name, now_ms],
        )?;
        if noted == 0 {
            let rows: i64 = all.query_row("SELECT count(*) FROM visit", [], |row| row.get(0))?;
            if rows >= ROWS_MAX {
                return Ok(None);
            }
            all.execute(
                "INSERT INTO visit VALUES(?1, ?2, ?3, ?4, ?5, ?5, 1)",
                params![person.as_bytes(), url, machine.as_bytes(), name, now_ms],
            )?;
            all.execute(
                "DELETE FROM visit WHERE person = ?1 AND url IN
                 (SELECT url FROM visit WHERE person = ?1 ORDER BY last_ms DESC LIMIT -1 OFFSET ?2)",
                params![person.as_bytes(), URLS_MAX],
            )?;
        }
        let visits = visits(
            &all,
            "SELECT machine, url, last_ms, visits, name FROM visit WHERE person = ?1
             ORDER BY last_ms DESC, url",
            person,
        )?;
        all.commit()?;
        Ok(Some(visits))
    }

    /// Forgets a URL of a person who is at another one; false when that is not so.
    pub fn delete(&self, person: Uuid, at: &str, gone: &str) -> Result<bool> {
        let (at, gone) = (self.url(at), self.url(gone));
        let mut connection = self.connection.lock();
        let all = connection.transaction()?;
        if at == gone || !knows(&all, person, at)? {
            return Ok(false);
        }
        let deleted = all.execute(
            "DELETE FROM visit WHERE person = ?1 AND url = ?2",
            params![person.as_bytes(), gone],
        )?;
        all.commit()?;
        Ok(deleted > 0)
    }

    /// Where a machine was visited by anybody, for a person who is at a URL that is known of her; else `None`. Without names.
    pub fn search(&self, person: Uuid, at: &str, machine: Uuid) -> Result<Option<Vec<Visit>>> {
        let at = self.url(at);
        let mut connection = self.connection.lock();
        let all = connection.transaction()?;
        if !knows(&all, person, at)? {
            return Ok(None);
        }
        let found = visits(
            &all,
            "SELECT machine, url, max(last_ms), sum(visits), '' FROM visit WHERE machine = ?1
             GROUP BY url ORDER BY 3 DESC, url LIMIT 1000",
            machine,
        )?;
        Ok(Some(found).filter(|found| !found.is_empty()))
    }

    /// Whether a browser may become another person: both have visited the machine.
    pub fn switch(
        &self,
        from: Uuid,
        machine: Uuid,
        to: Uuid,
    ) -> Result<std::result::Result<(), Refused>> {
        let mut connection = self.connection.lock();
        let all = connection.transaction()?;
        let any = |query: &str, ids: &[Uuid]| -> Result<bool> {
            let ids = ids.iter().map(|id| id.as_bytes().to_vec());
            let found = all.query_row(query, rusqlite::params_from_iter(ids), |_| Ok(()));
            Ok(found.optional()?.is_some())
        };
        const PERSON: &str = "SELECT 1 FROM visit WHERE person = ?1 LIMIT 1";
        const MACHINE: &str = "SELECT 1 FROM visit WHERE machine = ?1 LIMIT 1";
        const BOTH: &str = "SELECT 1 FROM visit WHERE person = ?1 AND machine = ?2 LIMIT 1";
        for (query, ids, refused) in [
            (PERSON, &[from][..], Refused::PersonUnknown),
            (PERSON, &[to], Refused::NewPersonUnknown),
            (MACHINE, &[machine], Refused::MachineUnknown),
            (BOTH, &[from, machine], Refused::NotOfPerson),
            (BOTH, &[to, machine], Refused::NotOfNewPerson),
        ] {
            if !any(query, ids)? {
                return Ok(Err(refused));
            }
        }
        Ok(Ok(()))
    }

    fn url<'a>(&self, url: &'a str) -> &'a str {
        cut(url, self.settings.url_max)
    }
}

fn knows(all: &Transaction<'_>, person: Uuid, url: &str) -> Result<bool> {
    let query = "SELECT 1 FROM visit WHERE person = ?1 AND url = ?2";
    let found = all.query_row(query, params![person.as_bytes(), url], |_| Ok(()));
    Ok(found.optional()?.is_some())
}

fn visits(all: &Transaction<'_>, query: &str, of: Uuid) -> Result<Vec<Visit>> {
    let mut statement = all.prepare_cached(query)?;
    let rows = statement.query_map(params![of.as_bytes()], |row| {
        Ok(Visit {
            machine: Uuid::from_bytes(row.get(0)?),
            url: row.get(1)?,
            last_ms: row.get(2)?,
            visits: row.get(3)?,
            name: row.get(4)?,
        })
    })?;
    rows.collect()
}

/// No longer than so many bytes, and a whole character at the end.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directory: &std::path::Path) -> Settings {
        Settings::from_config(&Config::new(), &directory.display().to_string())
    }

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn visits_are_counted_and_kept_until_their_person_is_idle_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(settings(dir.path()), 0).unwrap();
        registry.visit(id(1), id(100), ("http://a/", "a"), 1_000).unwrap();
        registry.visit(id(1), id(200), ("http://b/", "b"), 2_000).unwrap();
        registry.visit(id(2), id(100), ("http://c/", &"n".repeat(90)), 3_000).unwrap();
        let seen = registry.visit(id(1), id(100), ("http://a/", "A"), 4_000).unwrap().unwrap();
        let shown: Vec<_> = seen.iter().map(|v| (&*v.url, &*v.name, v.last_ms, v.visits)).collect();
        assert_eq!(shown, [("http://a/", "A", 4_000, 2), ("http://b/", "b", 2_000, 1)]);
        drop(registry);
        let late = 365 * DAY_MS + 3_500;
        let registry = Registry::open(settings(dir.path()), late).unwrap();
        assert!(registry.search(id(2), "http://c/", id(100)).unwrap().is_none(), "forgotten");
        let found = registry.search(id(1), "http://a/", id(100)).unwrap().unwrap();
        assert_eq!((found.len(), &*found[0].url), (1, "http://a/"));
    }

    #[test]
    fn a_person_has_room_for_so_many_and_long_words_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(settings(dir.path()), 0).unwrap();
        for n in 0..URLS_MAX + 5 {
            registry.visit(id(1), id(1), (&format!("http://{n}/"), "x"), n).unwrap();
        }
        let long = format!("http://{}", "é".repeat(2_000));
        let seen = registry.visit(id(1), id(1), (&long, &long), 10_000).unwrap().unwrap();
        assert_eq!(seen.len(), usize::try_from(URLS_MAX).unwrap());
        assert!(
            seen[0].url.len() <= 1024 && seen[0].name.len() <= 50 && long.starts_with(&seen[0].url)
        );
        assert!(seen.iter().all(|visit| visit.url != "http://0/"), "the oldest went");
        assert!(registry.delete(id(1), "http://900/", &long).unwrap());
    }

    #[test]
    fn urls_are_deleted_from_another_one_and_persons_change_where_both_were() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(settings(dir.path()), 0).unwrap();
        for (person, machine, url) in [
            (1, 100, "http://a/"),
            (1, 200, "http://b/"),
            (2, 200, "http://b/"),
            (3, 300, "http://d/"),
        ] {
            registry.visit(id(person), id(machine), (url, "x"), 5).unwrap();
        }
        for (from, machine, to, refused) in [
            (9, 200, 2, Some(Refused::PersonUnknown)),
            (1, 200, 9, Some(Refused::NewPersonUnknown)),
            (1, 900, 2, Some(Refused::MachineUnknown)),
            (1, 300, 2, Some(Refused::NotOfPerson)),
            (1, 100, 2, Some(Refused::NotOfNewPerson)),
            (1, 200, 2, None),
        ] {
            let answer = registry.switch(id(from), id(machine), id(to)).unwrap();
            assert_eq!(answer.err(), refused, "{from} {machine} {to}");
        }
        assert!(!registry.delete(id(1), "http://a/", "http://a/").unwrap(), "the one in use");
        assert!(!registry.delete(id(1), "http://x/", "http://a/").unwrap(), "she is not there");
        assert!(registry.delete(id(1), "http://a/", "http://b/").unwrap());
        assert!(!registry.delete(id(1), "http://a/", "http://b/").unwrap());
    }

    #[test]
    fn a_file_of_another_program_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registry.db");
        let text = "P\t1\t2\tsome other format that is long enough to be looked at\n".repeat(20);
        std::fs::write(&file, &text).unwrap();
        assert!(Registry::open(settings(dir.path()), 0).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}
