//! Whose an endpoint is.

use std::collections::BTreeSet;

use super::{Catalogue, Country, NameKind, Plmn, names};

/// Whose an endpoint is. An endpoint has a set of owners: many ePDGs serve several operators, and
/// some several countries.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Owner {
    /// The operator; `None` where only the country is known.
    pub plmn: Option<Plmn>,
    /// The country; `None` for operators of no country.
    pub country: Option<Country>,
}

impl Owner {
    /// Nobody in particular: of an endpoint that is configured without saying whose it is.
    pub const UNKNOWN: Self = Self {
        plmn: None,
        country: None,
    };

    /// The operator as the catalogue writes it, and its main country.
    #[must_use]
    pub fn of(catalogue: &Catalogue, plmn: Plmn) -> Self {
        Self {
            plmn: Some(catalogue.operator(plmn).map_or(plmn, |o| o.plmn)),
            country: catalogue.country_of(plmn),
        }
    }

    /// Of what is configured: the country is the operator's if only that is given.
    #[must_use]
    pub fn configured(
        catalogue: &Catalogue,
        operator: Option<Plmn>,
        country: Option<Country>,
    ) -> Self {
        let known = operator.map_or(Self::UNKNOWN, |plmn| Self::of(catalogue, plmn));
        Self {
            country: country.or(known.country),
            ..known
        }
    }
}

impl Catalogue {
    /// What a name that somebody asked for is, and whose: the operator that its labels name, and
    /// all carriers that are known to use it. In any case, with or without a final dot.
    ///
    /// `None` for every name that is neither below `3gppnetwork.org` nor in the catalogue nor
    /// configured: the right labels below another domain are an attack.
    #[must_use]
    pub fn owner_of_name(&self, name: &str) -> Option<(NameKind, BTreeSet<Owner>)> {
        let parsed = names::parse(name);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let mut owners: BTreeSet<Owner> = self
            .users_of_name(&name)
            .map(|plmn| Owner::of(self, plmn))
            .collect();
        owners.extend(self.configured_owners(&name));
        let Some(parsed) = parsed else {
            return (!owners.is_empty()).then_some((NameKind::Carrier, owners));
        };
        match parsed.plmn {
            Some(plmn) => {
                owners.insert(Owner::of(self, plmn));
            }
            None => {
                let countries = self.countries_of(parsed.mcc).iter();
                owners.extend(countries.map(|country| Owner {
                    plmn: None,
                    country: Some(*country),
                }));
                if owners.is_empty() {
                    owners.insert(Owner::UNKNOWN);
                }
            }
        }
        Some((parsed.kind, owners))
    }

    /// Where it is from that a name is one of an ePDG: `standard` for the forms of TS 23.003,
    /// `domain` for others below an operator's own domain, `configuration`, and sources of the
    /// catalogue. Empty for names that [`owner_of_name`](Self::owner_of_name) does not know.
    #[must_use]
    pub fn sources_of_name(&self, name: &str) -> BTreeSet<&str> {
        let parsed = names::parse(name);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let mut sources: BTreeSet<&str> = self.sources_of_target(&name).collect();
        if self.configured_owners(&name).next().is_some() {
            sources.insert("configuration");
        }
        match parsed.map(|parsed| parsed.kind) {
            Some(NameKind::Carrier | NameKind::CarrierEmergency) => sources.insert("domain"),
            Some(_) => sources.insert("standard"),
            None => false,
        };
        sources
    }
}
