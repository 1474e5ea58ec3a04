//! Reads `[[policy]]`, and checks policies against each other and against the rest of the file.

use super::conditions::{client, condition, is_treated, name_pattern, prefix};
use super::dscp::Dscp;
use super::exits::{self, Placed};
use super::reach::Reach;
use super::reader::{Item, Section};
use super::report::Mismatch;
use super::sections::{COUNTRIES, OPERATORS, unplaced};
use super::{Action, Config, MarkUse, Policy, Priority, Treatment, checks, treatment, values};
use crate::discover::Tier;

/// What a policy may ask for; it asks for one of these at least.
const CONDITIONS: [&str; 8] = [
    "operators",
    "countries",
    "names",
    "emergency",
    "prefixes",
    "tiers",
    "clients",
    "interfaces",
];

/// The treatment of what is not treated.
const NOTHING: Treatment = Treatment {
    dscp: Dscp::KEEP,
    priority: Priority::None,
    mark: None,
    mark_use: MarkUse::Route,
    cap: None,
};

pub(super) fn read(root: &Section, config: &Config, exits: &[Placed]) -> Vec<Policy> {
    let reach = Reach::new(config);
    let mut policies: Vec<Policy> = Vec::new();
    // Those whose conditions could all be read: of others nobody knows what they take.
    let mut known: Vec<usize> = Vec::new();
    for mut section in root.sections("policy") {
        let name = section.item("name");
        match &name {
            None => section.require("name", "a name such as name = \"australia\""),
            Some(item) => {
                if let Some(name) = item.read(values::policy_name) {
                    section.set_name(name);
                }
            }
        }
        let (policy, is_known) = policy(&section, config, exits);
        if let Some(item) = name {
            unique(&item, &policy, &policies);
        }
        if CONDITIONS.iter().all(|key| section.lacks(key)) {
            section.refuse(
                Mismatch::expected("what it is for: one or more of `operators`, `countries`, `names`, `emergency`, `prefixes`, `tiers`, `clients`, `interfaces`")
                    .found("no condition")
                    .hint("what is for everything goes into [defaults]"),
            );
        } else if is_known {
            reach.check(&section, &policy, &policies, &known);
            known.push(policies.len());
        }
        section.finish();
        policies.push(policy);
    }
    policies
}

/// A policy, and whether all its conditions could be read.
fn policy(section: &Section, config: &Config, exits: &[Placed]) -> (Policy, bool) {
    let mut is_known = true;
    let policy = Policy {
        name: section.name().to_owned(),
        operators: condition(
            section,
            "operators",
            (OPERATORS, "operator"),
            &mut is_known,
            values::operator_pattern,
        ),
        countries: condition(
            section,
            "countries",
            (COUNTRIES, "country"),
            &mut is_known,
            values::country,
        ),
        names: condition(
            section,
            "names",
            ("an array of names", "name"),
            &mut is_known,
            name_pattern,
        ),
        emergency: section.item("emergency").and_then(|item| {
            let emergency = item.read(values::boolean);
            is_known &= emergency.is_some();
            emergency
        }),
        prefixes: condition(
            section,
            "prefixes",
            ("an array of networks", "prefix"),
            &mut is_known,
            prefix,
        ),
        tiers: condition(
            section,
            "tiers",
            ("an array of tiers", "tier"),
            &mut is_known,
            |item| item.choice(&Tier::ALL.map(|tier| (tier.as_str(), tier))),
        ),
        clients: condition(
            section,
            "clients",
            ("an array of networks and link-layer addresses", "client"),
            &mut is_known,
            client,
        ),
        interfaces: condition(
            section,
            "interfaces",
            ("an array of interface names", "interface"),
            &mut is_known,
            |item| values::glob(item).and_then(|glob| is_treated(glob, config)),
        ),
        action: Action::Treat,
        exit: None,
        companions: unplaced({
            let names = section.list("companions", "an array of names", values::host_name);
            checks::no_duplicates(&names, "name");
            names
        }),
        treatment: NOTHING,
    };
    (with_action(policy, section, config, exits), is_known)
}

/// The policy with what it does.
fn with_action(policy: Policy, section: &Section, config: &Config, exits: &[Placed]) -> Policy {
    let said = |key| section.value(key, false, values::boolean);
    let action = match (said("keep"), said("drop")) {
        (true, _) => Action::Keep,
        (false, true) => Action::Drop,
        (false, false) => Action::Treat,
    };
    let exit = section
        .item("exit")
        .and_then(|item| item.read(|item| exits::named(item, exits)));
    // Also read where it is not used, so that its errors are told.
    let treatment = treatment::read(section, config.defaults);
    let alone = match action {
        Action::Treat => None,
        Action::Keep => Some(("keep", "packets are left as they came")),
        Action::Drop => Some(("drop", "packets are dropped")),
    };
    if let Some((action_key, hint)) = alone {
        refuse_beside(
            section,
            &[
                "dscp",
                "priority",
                "mark",
                "mark_use",
                "cap",
                "exit",
                "companions",
            ],
            &format!("{action_key} = true"),
            hint,
        );
        if action == Action::Keep && said("drop") {
            refuse_beside(section, &["drop"], "keep = true", hint);
        }
        if let Some(item) = section.item("emergency")
            && (action, policy.emergency) == (Action::Drop, Some(true))
        {
            item.refuse(
                Mismatch::expected("no emergency calls where packets are dropped")
                    .hint("endpoints for emergency calls are exempt from every drop"),
            );
        }
        return Policy { action, ..policy };
    }
    let treatment = match exit {
        None => treatment,
        Some(exit) => Treatment {
            mark: Some(exit.mark),
            mark_use: MarkUse::Route,
            ..treatment
        },
    };
    let policy = Policy {
        exit: exit.map(|exit| exit.name.clone()),
        treatment,
        ..policy
    };
    match section.item("exit") {
        None => exits::foreign_mark(section, exits, exits::BY_POLICY),
        Some(item) => {
            refuse_beside(
                section,
                &["mark", "mark_use"],
                "an exit",
                "packets get the mark of the exit",
            );
            if config.interfaces.access.is_empty() && !config.interfaces.uplink.is_empty() {
                item.refuse(
                    Mismatch::expected("`access` in [interfaces], where there are exits")
                        .hint("at an uplink interface packets have been routed already"),
                );
            }
        }
    }
    companions(section, &policy);
    policy
}

/// Keys that another leaves nothing to say.
fn refuse_beside(section: &Section, keys: &[&'static str], other: &str, hint: &str) {
    for key in keys {
        if let Some(item) = section.item(key) {
            item.refuse(Mismatch::expected(format!("no `{key}` beside {other}")).hint(hint));
        }
    }
}

/// What companion names need to go anywhere.
fn companions(section: &Section, policy: &Policy) {
    let Some(item) = section.item("companions") else {
        return;
    };
    let array = |mismatch: Mismatch| mismatch.found("companions");
    if section.lacks("clients") && section.lacks("interfaces") {
        item.refuse(array(
            Mismatch::expected("`clients` or `interfaces` beside them")
                .hint("whole addresses of others are steered: say for whom"),
        ));
    }
    if section.lacks("exit") && policy.treatment.mark.is_none() {
        item.refuse(array(Mismatch::expected(
            "an `exit` or a `mark` beside them, by which they go",
        )));
    }
    if policy.treatment.mark_use == MarkUse::Passage {
        item.refuse(array(
            Mismatch::expected("mark_use = \"route\" beside them")
                .hint("they are ordinary web servers: a firewall is not opened to them"),
        ));
    }
}

fn unique(item: &Item, policy: &Policy, earlier: &[Policy]) {
    if let Some(index) = earlier.iter().position(|other| other.name == policy.name)
        // A name that could not be read has been refused already.
        && !policy.name.is_empty()
    {
        item.refuse(
            Mismatch::expected("a name of its own")
                .hint(format!("policy[{index}] has the same name")),
        );
    }
}
