//! Where endpoints are, by the GeoIP database that the configuration names, and what follows from it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use tracing::{info, warn};

use crate::{
    catalogue::{Catalogue, Country},
    config,
    discover::{
        Owner,
        country::{contradicts, located},
        geoip::GeoIp,
    },
    explain::explain,
    observe,
};

/// More contradictions are counted, and not listed.
const LISTED: usize = 100;

/// The database in use, if there is one. Nothing here costs anything without.
#[derive(Default)]
pub(crate) struct Geo {
    database: Option<GeoIp>,
    /// Why the one that the configuration names is not in use, or not as it is now.
    pub(super) problem: Option<String>,
}

impl Geo {
    /// Opens the database that the configuration names, or reads it again if it has changed. One that cannot be used
    /// leaves the one before in use.
    pub(crate) fn follow(&mut self, config: &config::GeoIp) {
        let Some(path) = &config.database else {
            *self = Self::default();
            return;
        };
        let result = match &mut self.database {
            Some(database) if database.path() == path => database.refresh(),
            _ => GeoIp::open(path).map(|database| {
                self.database = Some(database);
                true
            }),
        };
        match result {
            Ok(true) => {
                info!(database = %path.display(), "GeoIP database read");
                self.problem = None;
            }
            Ok(false) => {}
            Err(problem) => {
                let message = explain(&problem);
                if self.problem.as_ref() != Some(&message) {
                    warn!("{message}");
                }
                self.problem = Some(message);
            }
        }
    }

    /// The country of an address, by the database.
    pub(crate) fn country(&self, address: IpAddr) -> Option<Country> {
        self.database.as_ref()?.country(address)
    }

    /// Gives the owners of an endpoint the countries that they lack.
    pub(crate) fn locate(&self, owners: &mut BTreeSet<Owner>, catalogue: &Catalogue, net: IpNet) {
        if let Some(country) = self.country_of(net) {
            *owners = located(owners, catalogue, country);
        }
    }

    /// An endpoint that the database has in another country than its operators' codes.
    pub(crate) fn contradiction(
        &self,
        owners: &BTreeSet<Owner>,
        catalogue: &Catalogue,
        net: IpNet,
    ) -> Option<observe::Contradiction> {
        let geoip = self.country_of(net)?;
        contradicts(owners, catalogue, geoip).then(|| {
            let (operators, countries) = super::report::owners(owners);
            observe::Contradiction {
                network: written(net),
                operators,
                countries,
                geoip: geoip.to_string(),
            }
        })
    }

    fn country_of(&self, net: IpNet) -> Option<Country> {
        self.database.as_ref()?.country_of_net(net)
    }

    /// What the agent tells of it; `endpoints` have their owners by name and configuration alone.
    pub(super) fn report<'a>(
        &self,
        endpoints: impl Iterator<Item = (IpNet, &'a BTreeSet<Owner>)>,
        catalogue: &Catalogue,
    ) -> observe::GeoIp {
        let Some(database) = &self.database else {
            return observe::GeoIp::default();
        };
        let mut report = observe::GeoIp {
            database: Some(database.path().display().to_string()),
            built: Some(database.built()),
            ..observe::GeoIp::default()
        };
        for (net, owners) in endpoints {
            let Some(geoip) = database.country_of_net(net) else {
                report.unknown += 1;
                continue;
            };
            report.located += u64::from(located(owners, catalogue, geoip) != *owners);
            if contradicts(owners, catalogue, geoip) {
                report.contradictions += 1;
                if report.listed.len() < LISTED {
                    report
                        .listed
                        .extend(self.contradiction(owners, catalogue, net));
                }
            }
        }
        report
    }
}

/// A network, of which a single address is written as such.
pub(super) fn written(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}
