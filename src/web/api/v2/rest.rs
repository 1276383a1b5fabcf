//! `functions`, `alerts` and `versions` of `/api/v2`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::envelope::{Scope, Tail};
use crate::metrics::{Function, offered};
use crate::web::api::Call;
use crate::web::api::v1::alarms::write_alerts;
use crate::web::api::v1::functions::write_access;
use crate::web::http::Response;

/// Every function, and which hosts have it.
pub fn functions(call: &Call<'_>) -> Response {
    let scope = Scope::of(call);
    let mut all: BTreeMap<Arc<str>, (Arc<Function>, Vec<usize>)> = BTreeMap::new();
    for node in &scope.nodes {
        let functions = node.host.functions();
        for function in offered(&functions) {
            let (_, nodes) = all
                .entry(Arc::clone(&function.name))
                .or_insert_with(|| (Arc::clone(function), Vec::new()));
            nodes.push(node.index);
        }
    }
    scope.answer(Tail::Agents, |j| {
        scope.write_nodes(j);
        j.key("functions").array(|j| {
            for (function, nodes) in all.values() {
                j.object(|j| {
                    j.key("name").string(&function.name);
                    j.key("help").string(&function.help);
                    j.key("ni").array(|j| {
                        for node in nodes {
                            j.count(*node);
                        }
                    });
                    j.key("priority").integer(function.priority);
                    j.key("version").integer(i64::from(function.version));
                    j.key("tags").string(&function.tags);
                    write_access(j.key("access"), function.access);
                });
            }
        });
    })
}

pub fn alerts(call: &Call<'_>) -> Response {
    let scope = Scope::of(call);
    scope.answer(Tail::Agents, |j| {
        scope.write_nodes(j);
        write_alerts(j, call, scope.nodes.iter().map(|node| (node.index, &node.host)));
    })
}

pub fn versions(call: &Call<'_>) -> Response {
    Scope::of(call).answer(Tail::Versions, |_| {})
}
