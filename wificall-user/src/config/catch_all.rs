//! `[catch_all]`: IPsec to addresses that nothing names, decided by the country that they are in.

use super::exits::{self, Placed};
use super::reader::Section;
use super::report::Mismatch;
use super::{Config, values};

/// What is done with IPsec to an address that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchAll {
    /// Whether its country is looked up, so that policies apply.
    pub enabled: bool,
    /// What happens to its first packet meanwhile.
    pub first: First,
    /// The exit whose mark the first packets get, by name; with [`First::Mark`].
    pub exit: Option<String>,
    /// New addresses a second, at most; what comes faster passes untouched.
    pub per_second: u32,
}

/// What happens to the first packet to an unknown address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// It is dropped: IKE sends it again within a second, and then its way is known (RFC 7296 §2.1).
    Hold,
    /// It goes by an exit of its own.
    Mark,
}

impl First {
    /// As it is written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Mark => "mark",
        }
    }
}

impl Default for CatchAll {
    fn default() -> Self {
        Self {
            enabled: false,
            first: First::Hold,
            exit: None,
            per_second: 20,
        }
    }
}

pub(super) fn read(section: Section, config: &Config, exits: &[Placed]) -> CatchAll {
    let default = CatchAll::default();
    let catch_all = CatchAll {
        enabled: section.value("enabled", default.enabled, values::boolean),
        first: section.value("first", default.first, |item| {
            item.choice(&[First::Hold, First::Mark].map(|first| (first.as_str(), first)))
        }),
        exit: section
            .item("exit")
            .and_then(|item| item.read(|item| exits::named(item, exits)))
            .map(|exit| exit.name.clone()),
        per_second: section.value("per_second", default.per_second, |item| {
            item.number(1..=10_000)
        }),
    };
    let first = section.item("first");
    let is_read = first.is_none_or(|item| {
        item.string("")
            .is_ok_and(|word| word == catch_all.first.as_str())
    });
    match (catch_all.first, section.item("exit")) {
        // That `first` is neither has been reported.
        _ if !is_read => {}
        (First::Hold, Some(item)) => item.refuse(
            Mismatch::expected("no `exit` where first packets are held")
                .hint("first = \"mark\" sends them by this exit until their country is known"),
        ),
        (First::Mark, None) => section.require(
            "exit",
            "the exit that first packets take, such as exit = \"au\"",
        ),
        _ => {}
    }
    if catch_all.enabled {
        needs(&section, config, exits);
    }
    section.finish();
    catch_all
}

/// What it cannot do without.
fn needs(section: &Section, config: &Config, exits: &[Placed]) {
    if config.geoip.database.is_none() {
        section.refuse(
            Mismatch::expected("`database` in [geoip], by which countries are told")
                .found("no database"),
        );
    }
    if config.interfaces.access.is_empty() && !config.interfaces.uplink.is_empty() {
        section.refuse(
            Mismatch::expected("`access` in [interfaces], where phones' packets come in")
                .found("only `uplink`"),
        );
    }
    if !exits.is_empty()
        && !config.observed.mark
        && let Some(item) = section.item("enabled")
    {
        item.warn(
            Mismatch::expected("`mark = true` in [observed], where exits are to be taken").hint(
                "what is found so is only observed, and observed endpoints get no mark by default",
            ),
        );
    }
}
