//! What another configuration changes for connections that stand: first told, then done.
//!
//! Everything else applies to whoever connects next. Called by the main thread, a reload at a time. The rules are put in
//! force before the register of children is looked through, and a child looks at the rules again once it stands there: none
//! comes in between.

use std::fmt;
use std::sync::Arc;

use super::receiver::set_health;
use super::sender::{SenderPlan, SenderState};
use super::{Child, Purpose, Rules, Sender, Streams, Wanted};
use crate::config::{Denied, keys};
use crate::metrics::{Host, HostKind};

/// Whether a child would still be let in, beyond what [`Rules`] say: the web server's lists. Never waits.
pub type Doorkeeper<'a> = &'a dyn Fn(&Child) -> Door;

/// What a doorkeeper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    Open,
    /// And why.
    Closed(String),
    /// It depends on what is not known yet: who stands stays until it is.
    Unknown(String),
}

/// What becomes of one connection.
pub enum Effect {
    Revoked {
        child: Arc<Child>,
        why: String,
    },
    /// Whether it may stay is not known yet.
    Unknown {
        child: Arc<Child>,
        why: String,
    },
    /// A host is sent otherwise. `keeps` its connection, or makes another.
    Replanned {
        sender: Arc<Sender>,
        plan: Arc<SenderPlan>,
        keeps: bool,
    },
    /// A host is sent no longer.
    Stopped {
        sender: Arc<Sender>,
    },
    /// A host is sent that was not.
    Started {
        host: Arc<Host>,
        wanted: Wanted,
    },
    /// A child is connected by options that are others now.
    Later {
        child: Arc<Child>,
    },
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Revoked { child, why } => {
                write!(f, "child '{}' at {} is disconnected: {why}", child.hostname, child.peer)
            }
            Effect::Unknown { child, why } => write!(
                f,
                "child '{}' at {} stays connected until it is known whether it may: {why}",
                child.hostname, child.peer
            ),
            Effect::Replanned { sender, keeps: true, .. } => {
                write!(f, "host '{}' stays connected to its parent", sender.host().hostname())
            }
            Effect::Replanned { sender, keeps: false, .. } => {
                write!(f, "host '{}' connects to its parent anew", sender.host().hostname())
            }
            Effect::Stopped { sender } => {
                write!(f, "host '{}' is sent to no parent any more", sender.host().hostname())
            }
            Effect::Started { host, wanted } => {
                write!(f, "host '{}' is sent to '{}'", host.hostname(), wanted.destination)
            }
            Effect::Later { child } => {
                let name = &child.hostname;
                write!(
                    f,
                    "child '{name}' stays connected; other options hold when it connects next"
                )
            }
        }
    }
}

impl Child {
    /// Why the rules do not let this child in, if they do not.
    pub(super) fn is_denied(&self, rules: &Rules) -> Option<String> {
        let key = keys::masked(&self.key);
        let machine = self.guid;
        match rules.conf.admit(&self.key, &self.machine, &self.peer.ip) {
            Ok(()) if self.has_certificate => None,
            Ok(()) => rules
                .receiver(&self.key, &self.machine)
                .client_certificate
                .then(|| "a client certificate is required, and none was shown".to_owned()),
            Err(denied) => Some(match denied {
                Denied::KeyIsNotApiKey => format!("'{key}...' is not the GUID of an API key"),
                Denied::KeyNotEnabled => format!("API key '{key}...' is not allowed"),
                Denied::KeyNotAllowedFromHere => {
                    format!("API key '{key}...' is not permitted from {}", self.peer.ip)
                }
                Denied::MachineIsNotMachine => format!("'{machine}' is not the GUID of a machine"),
                Denied::MachineNotEnabled => format!("machine GUID '{machine}' is not allowed"),
                Denied::MachineNotAllowedFromHere => {
                    format!("machine GUID '{machine}' is not permitted from {}", self.peer.ip)
                }
            }),
        }
    }
}

impl Streams {
    /// What these rules would change for connections that stand.
    pub fn effects(&self, rules: &Rules, doorkeeper: Doorkeeper<'_>) -> Vec<Effect> {
        self.effects_after(&self.rules(), rules, doorkeeper)
    }

    fn effects_after(&self, old: &Rules, rules: &Rules, doorkeeper: Doorkeeper<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        // All that stand in the register: some have no host yet. Who was sent away already is on the way out.
        for child in self.children().into_iter().filter(|child| !child.is_revoked()) {
            let options = |rules: &Rules| rules.receiver(&child.key, &child.machine);
            let door = child.is_denied(rules).map_or_else(|| doorkeeper(&child), Door::Closed);
            match door {
                Door::Closed(why) => {
                    effects.push(Effect::Revoked { child, why });
                    continue;
                }
                Door::Unknown(why) => {
                    effects.push(Effect::Unknown { child: Arc::clone(&child), why });
                }
                Door::Open => {}
            }
            if options(old) != options(rules) {
                effects.push(Effect::Later { child });
            }
        }
        let is_revoked = |guid| {
            let Some(child) = self.child(guid) else { return false };
            let is = |one: &Effect| matches!(one, Effect::Revoked { child: other, .. } if Arc::ptr_eq(other, &child));
            child.is_revoked() || effects.iter().any(is)
        };
        let hosts = self.hosts.all().into_iter().filter(|host| !is_revoked(host.guid()));
        let sending: Vec<_> =
            hosts.filter_map(|host| self.effect_on_sender(&host, rules)).collect();
        effects.extend(sending);
        effects
    }

    /// What these rules change in where a host is sent.
    pub(super) fn effect_on_sender(&self, host: &Arc<Host>, rules: &Rules) -> Option<Effect> {
        let wanted = match (self.child(host.guid()), host.kind()) {
            (Some(child), _) => Wanted::of_child(rules, child),
            (None, HostKind::Child) => return None,
            (None, _) => Wanted::of_own(rules.conf.sender()),
        };
        let sender = self.sender(host.guid()).filter(|s| s.purpose() == Purpose::Live);
        match (sender, wanted) {
            (Some(sender), Some(wanted)) => {
                let plan = Arc::new(self.plan(rules, &wanted));
                let now = sender.plan();
                (now != plan).then(|| {
                    let status = sender.status();
                    let stands = status.state == SenderState::Online;
                    let keeps = stands && now.keeps(&plan, &status.destination);
                    Effect::Replanned { sender, plan, keeps }
                })
            }
            (Some(sender), None) => Some(Effect::Stopped { sender }),
            // Before its first samples nobody begins to send it.
            (None, Some(wanted)) => {
                wanted.is_due().then(|| Effect::Started { host: Arc::clone(host), wanted })
            }
            (None, None) => None,
        }
    }

    /// Sends a host as the rules in force say. Whoever reads them while a reload replaces them comes to what is in force
    /// afterwards: the reload does not find what is not there yet, and this looks again.
    pub(super) fn settle(self: &Arc<Self>, host: &Arc<Host>) {
        loop {
            let rules = self.rules();
            if let Some(effect) = self.effect_on_sender(host, &rules) {
                self.apply(&effect);
            }
            if Arc::ptr_eq(&rules, &self.rules()) {
                break;
            }
        }
    }

    /// Puts rules in force, for whoever connects and for whoever is connected. Gives what that came to.
    pub fn reload(self: &Arc<Self>, rules: Rules, doorkeeper: Doorkeeper<'_>) -> Vec<Effect> {
        let effects = {
            // By what was in force before; nobody is let in by that from the next line on.
            let rules = Arc::new(rules);
            let before = std::mem::replace(&mut *self.rules.lock(), Arc::clone(&rules));
            self.effects_after(&before, &rules, doorkeeper)
        };
        for effect in &effects {
            self.apply(effect);
        }
        effects
    }

    /// Sends away who is known by now to be let in no longer, under rules that stay. Gives who that was, and of whom it
    /// is not known still.
    pub fn review(&self, doorkeeper: Doorkeeper<'_>) -> Vec<Effect> {
        let told = |child: Arc<Child>| match doorkeeper(&child) {
            Door::Open => None,
            Door::Closed(why) => Some(Effect::Revoked { child, why }),
            Door::Unknown(why) => Some(Effect::Unknown { child, why }),
        };
        let standing = self.children().into_iter().filter(|child| !child.is_revoked());
        let effects: Vec<_> = standing.filter_map(told).collect();
        for effect in &effects {
            if let Effect::Revoked { child, why } = effect {
                child.revoke(why);
            }
        }
        effects
    }

    fn apply(self: &Arc<Self>, effect: &Effect) {
        match effect {
            Effect::Revoked { child, why } => child.revoke(why),
            // It stays.
            Effect::Unknown { .. } => {}
            Effect::Replanned { sender, plan, .. } => sender.replan(Arc::clone(plan)),
            Effect::Stopped { sender } => self.send_no_more(sender),
            Effect::Started { host, wanted } => self.send(host, wanted),
            Effect::Later { child } => {
                let rules = self.rules();
                let options = rules.receiver(&child.key, &child.machine);
                if let Some(host) = self.hosts.by_guid(child.guid) {
                    set_health(&host, &options, rules.defaults.health);
                }
            }
        }
    }
}
