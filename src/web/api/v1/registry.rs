//! `/api/v1/registry`: where a dashboard learns who it talks to, and which other agents its browser has visited. Where the
//! registry is off browsers are told to ask another.

use uuid::Uuid;

use crate::base::ids::parse_uuid;
use crate::base::json::JsonWriter;
use crate::base::time::UnixSeconds;
use crate::web::acl::Rights;
use crate::web::api::Call;
use crate::web::http::Response;
use crate::web::registry::{Refused, Registry, Visit};
use crate::wire::http::HttpDate;

const CLOUD: &str = "https://app.netdata.cloud";
/// What a browser is to give back before it becomes a person.
const TRIAL: &str = "give-me-back-this-cookie-now--please";
const YEAR_S: i64 = 365 * 86_400;

pub(super) fn registry(call: &Call<'_>) -> Response {
    let action = call.query().get("action").unwrap_or("");
    let needs = match action {
        "hello" => Rights::DASHBOARD,
        "access" | "delete" | "search" | "switch" => Rights::REGISTRY,
        _ => {
            let text = "Invalid registry request - you need to set an action: hello, access, delete, search";
            return Response::error(400, text);
        }
    };
    if !call.request.rights.contains(needs) {
        return Response::forbidden();
    }
    if action == "hello" {
        return document(call, 200, action, "ok", |j| {
            j.key("cloud_base_url").string(CLOUD);
            // We send nothing to anybody, so no dashboard may load a script that does.
            j.key("anonymous_statistics").bool(false);
        });
    }
    let Some(registry) = &call.agent.registry else {
        return document(call, 200, action, "disabled", |_| {});
    };
    let asked = |name| call.query().get(name).filter(|text| !text.is_empty());
    let (word, needed) = match action {
        "access" => ("Access", "name"),
        "delete" => ("Delete", "delete_url"),
        "search" => ("Search", "for"),
        _ => ("Switch", "to"),
    };
    let (Some(machine), Some(url), Some(needed)) = (asked("machine"), asked("url"), asked(needed))
    else {
        return Response::error(400, format!("Invalid registry {word} request."));
    };
    let cookie = call.request.person.as_deref().filter(|cookie| !cookie.is_empty());
    let person = cookie.and_then(|cookie| parse_uuid(cookie).ok());
    let machine = parse_uuid(machine).ok();
    match (action, person, machine) {
        ("access", _, Some(machine)) => {
            if cookie.is_none() && registry.settings().verifies_cookies {
                return trial(call, registry);
            }
            access(call, registry, person, machine, (url, needed))
        }
        ("delete", Some(person), Some(_)) => {
            let done = registry.delete(person, url, needed);
            match done.unwrap_or_else(|error| told(&error, false)) {
                true => document(call, 200, action, "ok", |_| {}),
                false => failed(call, 412, action),
            }
        }
        ("search", Some(person), Some(_)) => {
            let wanted = parse_uuid(needed).ok();
            let found = wanted.and_then(|wanted| {
                registry.search(person, url, wanted).unwrap_or_else(|error| told(&error, None))
            });
            match found {
                Some(found) => document(call, 200, action, "ok", |j| write(j, &found, false)),
                None => failed(call, 404, action),
            }
        }
        ("switch", person, machine) => switch(call, registry, (person, machine), needed),
        _ => failed(call, 412, action),
    }
}

/// What cannot be read or written is told in the log.
fn told<T>(error: &rusqlite::Error, instead: T) -> T {
    log::error!("REGISTRY: {error}");
    instead
}

fn access(
    call: &Call<'_>,
    registry: &Registry,
    person: Option<Uuid>,
    machine: Uuid,
    place: (&str, &str),
) -> Response {
    let person = person.unwrap_or_else(Uuid::new_v4);
    let now_ms = call.agent.clock.now().0 / 1000;
    let visited = registry.visit(person, machine, place, now_ms);
    let Some(visits) = visited.unwrap_or_else(|error| told(&error, None)) else {
        return failed(call, 412, "access");
    };
    let mut response = document(call, 200, "access", "ok", |j| {
        j.key("person_guid").string(&person.to_string());
        write(j, &visits, true);
    });
    response.cookies = cookies(registry, &person.to_string(), call.now());
    response
}

fn switch(
    call: &Call<'_>,
    registry: &Registry,
    (person, machine): (Option<Uuid>, Option<Uuid>),
    to: &str,
) -> Response {
    // A GUID that is none is known of nobody.
    let (nil, to) = (Uuid::nil(), parse_uuid(to).ok());
    let (from, machine) = (person.unwrap_or(nil), machine.unwrap_or(nil));
    let allowed = registry.switch(from, machine, to.unwrap_or(nil));
    match allowed.unwrap_or_else(|error| told(&error, Err(Refused::PersonUnknown))) {
        Ok(()) => {
            let person = to.unwrap_or(nil).to_string();
            let mut response = document(call, 200, "switch", "ok", |j| {
                j.key("person_guid").string(&person);
            });
            response.cookies = cookies(registry, &person, call.now());
            response
        }
        Err(refused) => {
            let status = match refused {
                Refused::PersonUnknown => 430,
                Refused::NewPersonUnknown => 431,
                Refused::MachineUnknown => 432,
                Refused::NotOfPerson => 433,
                Refused::NotOfNewPerson => 434,
            };
            failed(call, status, "switch")
        }
    }
}

/// Asks a browser to show that it keeps cookies.
fn trial(call: &Call<'_>, registry: &Registry) -> Response {
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("status").string("redirect");
        j.key("registry").string(&call.agent.options.registry_to_announce);
    });
    let mut response = Response::json(json);
    response.cookies = cookies(registry, TRIAL, call.now());
    response
}

fn cookies(registry: &Registry, value: &str, now: UnixSeconds) -> Vec<String> {
    let settings = registry.settings();
    let plain = format!("netdata_registry_id={value}; Expires={}", HttpDate(now + YEAR_S));
    let mut wide = plain.clone();
    if !settings.domain.is_empty() {
        wide.push_str("; Domain=");
        wide.extend(settings.domain.chars().filter(|c| !c.is_control() && *c != ';'));
    }
    if settings.same_site {
        wide.push_str("; SameSite=None; Secure");
    }
    if wide == plain { vec![plain] } else { vec![plain, wide] }
}

fn failed(call: &Call<'_>, status: u16, action: &str) -> Response {
    document(call, status, action, "failed", |_| {})
}

/// What every answer has, and `more`.
fn document(
    call: &Call<'_>,
    code: u16,
    action: &str,
    status: &str,
    more: impl FnOnce(&mut JsonWriter),
) -> Response {
    let options = &call.agent.options;
    let own = call.host.guid() == call.agent.hosts.local().guid();
    let hostname = if own {
        options.registry_hostname.clone()
    } else {
        call.host.info().registry_hostname.clone()
    };
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("action").string(action);
        j.key("status").string(status);
        j.key("hostname").string(&hostname);
        j.key("machine_guid").string(&call.host.guid().to_string());
        j.key("registry").string(&options.registry_to_announce);
        more(j);
    });
    let mut response = Response::json(json);
    response.status = code;
    response
}

fn write(j: &mut JsonWriter, visits: &[Visit], names: bool) {
    j.key("urls").array(|j| {
        for visit in visits {
            j.array(|j| {
                j.string(&visit.machine.to_string()).string(&visit.url);
                j.integer(visit.last_ms).integer(visit.visits);
                if names {
                    j.string(&visit.name);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::web::api::v1::samples::{ask, ask_of, json, text};
    use crate::web::registry::Settings;

    const MACHINE: &str = "11111111-aaaa-4bbb-8ccc-000000000001";
    const ACCESS: &str =
        "action=access&machine=11111111-aaaa-4bbb-8ccc-000000000001&name=n&url=http%3A%2F%2Fn%2F";

    #[test]
    fn where_it_is_off_another_one_is_named() {
        let answer = json(&ask(registry, ACCESS));
        assert_eq!((&answer["status"], &answer["action"]), (&json!("disabled"), &json!("access")));
        assert!(answer["registry"].is_string());
    }

    #[test]
    fn a_browser_that_keeps_its_cookie_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::from_config(&Config::new(), &dir.path().display().to_string());
        let mut agent = crate::web::api::v1::samples::agent(900);
        agent.registry = Some(Registry::open(settings, 0).unwrap());
        let ask = |person: Option<&str>, query: &str| {
            ask_of(registry, &agent, query, |request| request.person = person.map(str::to_owned))
        };
        let first = ask(None, ACCESS);
        assert_eq!(json(&first)["status"], "redirect");
        assert!(
            first.cookies[0]
                .starts_with("netdata_registry_id=give-me-back-this-cookie-now--please; Expires=")
        );
        assert!(first.cookies[1].ends_with("; SameSite=None; Secure"), "{:?}", first.cookies);
        let known = json(&ask(Some(TRIAL), ACCESS));
        let person = known["person_guid"].as_str().unwrap().to_owned();
        assert_eq!(known["urls"][0][0], MACHINE);
        let again = ask(Some(&person), ACCESS);
        assert!(again.cookies[0].contains(&person));
        let again = json(&again);
        assert_eq!((&again["person_guid"], &again["urls"][0][3]), (&json!(person), &json!(2)));
        assert_eq!(again["urls"][0].as_array().unwrap().len(), 5);
        let at = format!("machine={MACHINE}&url=http%3A%2F%2Fn%2F");
        let found = json(&ask(Some(&person), &format!("action=search&{at}&for={MACHINE}")));
        assert_eq!(found["urls"], json!([[MACHINE, "http://n/", again["urls"][0][2], 2]]));
        for (query, status) in [
            (format!("action=search&{at}&for={person}"), 404),
            (format!("action=delete&{at}&delete_url=http%3A%2F%2Fn%2F"), 412),
            (format!("action=switch&{at}&to={MACHINE}"), 431),
            (format!("action=access&{at}"), 400),
            ("action=access&machine=x&name=n&url=u".to_owned(), 412),
        ] {
            let answer = ask(Some(&person), &query);
            assert_eq!(answer.status, status, "{query}: {}", text(&answer));
        }
        let switched = ask(Some(&person), &format!("action=switch&{at}&to={person}"));
        assert_eq!(json(&switched)["person_guid"], json!(person));
    }
}
