//! Attaching, replacing, repairing and detaching programs, so that the hooks are as `hooks` wants them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use tracing::{error, info, warn};
use wificall_common::abi::Hook;

use super::{
    agent::{Agent, Attached},
    hooks,
};
use crate::{
    explain::explain,
    kernel::{self, Attachment, Hooks},
    net,
};

impl Agent {
    /// Attaches what is missing, replaces everything if `all`, removes what should not be.
    pub(super) async fn hook(&mut self, all: bool) -> Result<()> {
        let before = self.plane.hooks()?;
        self.selection =
            hooks::selection(&self.world.config.interfaces, &self.world.links, self.tcx);
        let failed_before = std::mem::take(&mut self.failed);
        let wanted: BTreeSet<_> = self
            .selection
            .interfaces
            .iter()
            .flat_map(|selected| &selected.attachments)
            .map(|attachment| (attachment.hook, attachment.ifindex))
            .collect();
        // XDP comes after the TC program that trusts it and goes before it: so no packet is counted by both.
        self.unhook(&wanted, |hook| hook == Hook::Xdp)?;
        let selected = self.selection.interfaces.clone();
        let programs = selected
            .iter()
            .flat_map(|selected| &selected.attachments)
            .filter(|attachment| all || !self.is_there(attachment))
            .map(|attachment| attachment.program)
            .collect();
        self.plane.load(&programs);
        for selected in selected {
            for attachment in selected.attachments {
                if !all && self.is_there(&attachment) {
                    continue;
                }
                let key = (attachment.hook, attachment.ifindex);
                match self.plane.attach(&attachment) {
                    Ok(kernel::Attached { program_id, .. }) => {
                        if !self.attached.contains_key(&key) {
                            info!(
                                interface = attachment.interface,
                                hook = attachment.hook.name(),
                                method = attachment.method.name(),
                                "attached"
                            );
                        }
                        self.attached.insert(
                            key,
                            Attached {
                                attachment,
                                program_id,
                            },
                        );
                    }
                    Err(problem) => {
                        let message = explain(&problem);
                        // It is tried again with every pass, and said once.
                        if failed_before.get(&attachment.ifindex) != Some(&message) {
                            error!("{message}");
                        }
                        self.attached.remove(&key);
                        self.failed.insert(attachment.ifindex, message);
                    }
                }
            }
        }
        self.unhook(&wanted, |_| true)?;
        self.clean_up(&before).await
    }

    fn is_there(&self, wanted: &Attachment) -> bool {
        self.attached
            .get(&(wanted.hook, wanted.ifindex))
            .is_some_and(|present| present.attachment == *wanted)
    }

    /// Removes the clsact qdiscs that we had added and whose last filter of ours has gone.
    async fn clean_up(&self, before: &Hooks) -> Result<()> {
        let owned = |hooks: &Hooks| -> BTreeSet<u32> {
            hooks
                .filters
                .iter()
                .filter(|(_, filter)| filter.own_qdisc)
                .map(|((_, ifindex), _)| *ifindex)
                .collect()
        };
        for ifindex in owned(before).difference(&owned(&self.plane.hooks()?)) {
            if self.world.links.iter().any(|link| link.index == *ifindex) {
                net::remove_empty_clsact(*ifindex)
                    .await
                    .with_context(|| format!("remove the clsact qdisc of interface {ifindex}"))?;
            }
        }
        Ok(())
    }

    /// Removes our programs from all hooks but these, of the kinds that `kind` names.
    fn unhook(
        &mut self,
        wanted: &BTreeSet<(Hook, u32)>,
        kind: impl Fn(Hook) -> bool,
    ) -> Result<()> {
        let present = self.plane.hooks()?;
        let names: BTreeMap<u32, String> = self
            .world
            .links
            .iter()
            .map(|link| (link.index, link.name.clone()))
            .collect();
        let keys: BTreeSet<(Hook, u32)> = present
            .links
            .iter()
            .copied()
            .chain(present.filters.keys().copied())
            .collect();
        for key in keys.difference(wanted) {
            let (hook, ifindex) = *key;
            if !kind(hook) {
                continue;
            }
            let name = names.get(&ifindex).map(String::as_str);
            self.plane.detach(hook, ifindex, name)?;
            self.attached.remove(key);
            info!(
                interface = name.unwrap_or("(gone)"),
                hook = hook.name(),
                "detached"
            );
        }
        Ok(())
    }

    /// Puts back what someone removed. A link is updated to the program that it has, which makes it anew if its interface
    /// was; a filter is looked for.
    pub(super) async fn repair(&mut self) -> Result<()> {
        let present = self.plane.hooks()?;
        for (key, attached) in self.attached.clone() {
            let (hook, ifindex) = key;
            let lost = match present.filters.get(&key) {
                Some(filter) => {
                    let state = net::clsact_state(ifindex).await?;
                    !state.filters.iter().any(|found| {
                        found.ingress == (hook == Hook::TcIngress)
                            && found.priority == filter.priority
                            && found.handle == filter.handle
                    })
                }
                None if !present.links.contains(&key) => true,
                None => match self.plane.attach(&attached.attachment) {
                    Ok(kernel::Attached { made: false, .. }) => false,
                    Ok(kernel::Attached { made: true, .. }) => {
                        self.count_repair(&attached.attachment);
                        false
                    }
                    // Said when it is attached again below.
                    Err(_) => true,
                },
            };
            if lost {
                self.count_repair(&attached.attachment);
                self.attached.remove(&key);
            }
        }
        Ok(())
    }

    fn count_repair(&mut self, attachment: &Attachment) {
        self.repairs += 1;
        warn!(
            interface = attachment.interface,
            hook = attachment.hook.name(),
            "someone removed our program; putting it back"
        );
    }
}
