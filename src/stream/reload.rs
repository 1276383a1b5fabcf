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

/// Why a child is let in no longer, beyond what [`Rules`] say: the web server's lists.
pub type Doorkeeper<'a> = &'a dyn Fn(&Child) -> Option<String>;

/// What becomes of one connection.
pub enum Effect {
    Revoked {
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
        to: String,
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
            Effect::Replanned { sender, keeps: true, .. } => {
                write!(f, "host '{}' stays connected to its parent", sender.host().hostname())
            }
            Effect::Replanned { sender, keeps: false, .. } => {
                write!(f, "host '{}' connects to its parent anew", sender.host().hostname())
            }
            Effect::Stopped { sender } => {
                write!(f, "host '{}' is sent to no parent any more", sender.host().hostname())
            }
            Effect::Started { host, to } => {
                write!(f, "host '{}' is sent to '{to}'", host.hostname())
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
    pub fn effects(&self, rules: &Rules, denies: Doorkeeper<'_>) -> Vec<Effect> {
        self.effects_after(&self.rules(), rules, denies)
    }

    fn effects_after(&self, old: &Rules, rules: &Rules, denies: Doorkeeper<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        // All that stand in the register: some have no host yet.
        for child in self.children() {
            let options = |rules: &Rules| rules.receiver(&child.key, &child.machine);
            if let Some(why) = child.is_denied(rules).or_else(|| denies(&child)) {
                effects.push(Effect::Revoked { child, why });
            } else if options(old) != options(rules) {
                effects.push(Effect::Later { child });
            }
        }
        let is_revoked = |effects: &[Effect], child: &Arc<Child>| {
            let is = |one: &Effect| matches!(one, Effect::Revoked { child: c, .. } if Arc::ptr_eq(c, child));
            effects.iter().any(is)
        };
        for host in self.hosts.all() {
            let wanted = match (self.child(host.guid()), host.kind()) {
                (Some(child), _) if is_revoked(&effects, &child) => continue,
                // Before its first samples it is sent nowhere.
                (Some(child), _) => Wanted::of_child(rules.receiver(&child.key, &child.machine))
                    .filter(|_| child.updates() > 0),
                (None, HostKind::Child) => continue,
                (None, _) => Wanted::of_own(rules.conf.sender()),
            };
            let sender = self.sender(host.guid()).filter(|s| s.purpose() == Purpose::Live);
            match (sender, wanted) {
                (Some(sender), Some(wanted)) => {
                    let plan = Arc::new(self.plan(rules, &wanted));
                    let now = sender.plan();
                    if now != plan {
                        let status = sender.status();
                        let stands = status.state == SenderState::Online;
                        let keeps = stands && now.keeps(&plan, &status.destination);
                        effects.push(Effect::Replanned { sender, plan, keeps });
                    }
                }
                (Some(sender), None) => effects.push(Effect::Stopped { sender }),
                (None, Some(wanted)) => {
                    effects.push(Effect::Started { host, to: wanted.destination });
                }
                (None, None) => {}
            }
        }
        effects
    }

    /// Puts rules in force, for whoever connects and for whoever is connected. Gives what that came to.
    pub fn reload(self: &Arc<Self>, rules: Rules, denies: Doorkeeper<'_>) -> Vec<Effect> {
        let effects = {
            // By what was in force before; nobody is let in by that from the next line on.
            let rules = Arc::new(rules);
            let before = std::mem::replace(&mut *self.rules.lock(), Arc::clone(&rules));
            self.effects_after(&before, &rules, denies)
        };
        for effect in &effects {
            match effect {
                Effect::Revoked { child, why } => child.revoke(why),
                Effect::Replanned { sender, plan, .. } => sender.replan(Arc::clone(plan)),
                Effect::Stopped { sender } => {
                    self.senders.lock().remove(&sender.host().guid());
                    sender.stop();
                }
                Effect::Started { host, .. } => match self.child(host.guid()) {
                    Some(child) => self.forward(host, &child),
                    None => self.send_own(host),
                },
                Effect::Later { child } => {
                    let rules = self.rules();
                    let options = rules.receiver(&child.key, &child.machine);
                    if let Some(host) = self.hosts.by_guid(child.guid) {
                        set_health(&host, &options, rules.defaults.health);
                    }
                }
            }
        }
        effects
    }
}
