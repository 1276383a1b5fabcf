//! Virtual nodes: hosts that a plugin defines and speaks for, beside the one it runs on.

use std::sync::Arc;

use super::commands::{lossy, text};
use super::session::Session;
use super::{Executor, Violation};
use crate::base::ids::MachineGuid;
use crate::metrics::{Host, HostInfo, HostKind, LabelSource, Labels};
use crate::wire::words::Words;

/// Between HOST_DEFINE and HOST_DEFINE_END.
pub(super) struct Definition {
    guid: MachineGuid,
    hostname: String,
    labels: Labels,
}

/// Virtual nodes of one plugin; more are refused.
const NODES_MAX: usize = 10_000;

impl Executor {
    pub(super) fn begin_node(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        const COMMAND: &str = "HOST_DEFINE";
        if self.definition.is_some() {
            return Err(self.malformed(COMMAND, "inside another one"));
        }
        let [guid, hostname] = words.take_words();
        let Ok(guid) = text(guid).parse() else {
            return Err(self.malformed(COMMAND, "without a valid machine guid"));
        };
        let hostname = text(hostname).into_owned();
        if hostname.is_empty() {
            return Err(self.malformed(COMMAND, "without a hostname"));
        }
        self.definition = Some(Definition { guid, hostname, labels: Labels::new() });
        Ok(())
    }

    pub(super) fn node_label(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        let words = words.take_words();
        match (&mut self.definition, words) {
            (Some(definition), [Some(name), Some(value)]) => {
                definition.labels.set(&lossy(name), &lossy(value), LabelSource::CONFIG);
                Ok(())
            }
            (None, _) => Err(self.malformed("HOST_LABEL", "without a HOST_DEFINE before it")),
            _ => Err(self.malformed("HOST_LABEL", "with words missing")),
        }
    }

    pub(super) fn end_node(&mut self) -> Result<(), Violation> {
        const COMMAND: &str = "HOST_DEFINE_END";
        let Some(Definition { guid, hostname, labels }) = self.definition.take() else {
            return Err(self.malformed(COMMAND, "without a HOST_DEFINE before it"));
        };
        let Some(nodes) = self.nodes.clone() else {
            return Err(self.malformed(COMMAND, "where no virtual nodes can be"));
        };
        if self.parked.len() >= NODES_MAX {
            return Err(self.malformed(COMMAND, "of one node too many"));
        }
        let local = nodes.hosts.local();
        let make = || {
            let info = HostInfo {
                hostname: hostname.clone(),
                registry_hostname: hostname.clone(),
                claim_id: None,
                node_id: None,
                ..HostInfo::clone(&local.info())
            };
            let engine = (nodes.engine)(guid);
            Host::new(guid, HostKind::Virtual, info, engine, local.settings().clone())
        };
        let Some((host, created)) = nodes.hosts.get_or_create(guid, make) else {
            return Err(self.malformed(COMMAND, "of one host too many"));
        };
        if host.kind() == HostKind::Child {
            return Err(self.malformed(COMMAND, "of a node that streams to us"));
        }
        if host.kind() == HostKind::Virtual {
            if host.hostname() != hostname {
                host.update_info(|info| {
                    info.registry_hostname.clone_from(&hostname);
                    info.hostname = hostname;
                });
            }
            host.set_labels(labels);
        }
        if created {
            (nodes.created)(&host);
        }
        self.switch_to(host);
        Ok(())
    }

    pub(super) fn switch_node(&mut self, mut words: Words<'_>) -> Result<(), Violation> {
        const COMMAND: &str = "HOST";
        let Some(nodes) = self.nodes.clone() else {
            return Err(self.malformed(COMMAND, "where no virtual nodes can be"));
        };
        let hosts = &nodes.hosts;
        let name = text(words.next());
        let host = match &*name {
            "" | "localhost" => Some(Arc::clone(hosts.local())),
            guid => guid.parse().ok().and_then(|guid| hosts.by_guid(guid)),
        };
        match host.filter(|host| host.kind() != HostKind::Child) {
            Some(host) => {
                self.switch_to(host);
                Ok(())
            }
            None => Err(self.malformed(COMMAND, "of a node that was not defined")),
        }
    }

    fn switch_to(&mut self, host: Arc<Host>) {
        self.keep_staged();
        self.leave();
        self.chart_labels = None;
        self.host_labels = None;
        if Arc::ptr_eq(&self.session.host, &host) {
            return;
        }
        let parked = self.parked.iter().position(|session| Arc::ptr_eq(&session.host, &host));
        match parked {
            Some(index) => std::mem::swap(&mut self.session, &mut self.parked[index]),
            None => {
                let before = std::mem::replace(&mut self.session, Session::new(host));
                self.parked.push(before);
            }
        }
    }
}
