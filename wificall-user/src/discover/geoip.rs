//! The country of an address, by a database in MaxMind's format.
//!
//! Two schemas are in use: `country.iso_code` (GeoLite2, DB-IP) and `country_code` (IPinfo).
//!
//! The file is read and kept, and not mapped: whoever overwrites a mapped file in place ends the agent with SIGBUS.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;
use thiserror::Error;

use crate::catalogue::Country;

/// A database.
pub struct GeoIp {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
    identity: Identity,
    /// The file that could not be used last, so that it is said once.
    refused: Option<Identity>,
}

/// What tells one state of a file from another.
type Identity = (u64, u64, u64, i64, i64);

/// The database cannot be used.
#[derive(Debug, Error)]
pub enum GeoIpError {
    /// It cannot be read.
    #[error("read the GeoIP database {}\n  hint: geoip.database names a file in MaxMind's format (.mmdb)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no such database.
    #[error("use the GeoIP database {}\n  hint: it is torn, or not in MaxMind's format: fetch it again", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MaxMindDbError,
    },
    /// It has addresses, but says nothing about countries.
    #[error("use the GeoIP database {}: its records have neither `country.iso_code` nor `country_code`\n  hint: it is a \
             database of {kind:?}: take one of countries", path.display())]
    NoCountries {
        /// The file.
        path: PathBuf,
        /// What it says that it is.
        kind: String,
    },
}

/// As much of a record as is used.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Nested<'a>>,
    country_code: Option<&'a str>,
}

/// `country` is a table in one schema and a name in the other.
#[derive(Deserialize)]
#[serde(untagged)]
enum Nested<'a> {
    Table {
        iso_code: Option<&'a str>,
    },
    #[expect(dead_code, reason = "a country's name, which is not used")]
    Name(&'a str),
}

impl GeoIp {
    /// Opens a database and keeps it in memory.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is none of countries.
    pub fn open(path: &Path) -> Result<Self, GeoIpError> {
        let (reader, identity) = load(path)?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            identity,
            refused: None,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again if it has changed; whether it was. The database before stays in use if the new one cannot be.
    ///
    /// # Errors
    ///
    /// Why the new one cannot be used, once for each state of the file.
    pub fn refresh(&mut self) -> Result<bool, GeoIpError> {
        let now = identity(&self.path).map_err(|source| GeoIpError::Read {
            path: self.path.clone(),
            source,
        });
        let now = match now {
            Ok(now) => now,
            // Gone: an update may be putting another in its place.
            Err(error) => return self.refuse((0, 0, 0, 0, 0), error),
        };
        if now == self.identity {
            self.refused = None;
            return Ok(false);
        }
        match load(&self.path) {
            Ok((reader, identity)) => {
                self.reader = reader;
                self.identity = identity;
                self.refused = None;
                Ok(true)
            }
            Err(error) => self.refuse(now, error),
        }
    }

    fn refuse(&mut self, state: Identity, error: GeoIpError) -> Result<bool, GeoIpError> {
        if self.refused.replace(state) == Some(state) {
            Ok(false)
        } else {
            Err(error)
        }
    }

    /// The country of an address; `None` if the database does not know.
    #[must_use]
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        country(&self.reader, address)
    }

    /// The country of a network; `None` if its two ends are not known to be in one.
    #[must_use]
    pub fn country_of_net(&self, net: IpNet) -> Option<Country> {
        let country = self.country(net.network())?;
        (self.country(net.broadcast()) == Some(country)).then_some(country)
    }

    /// When the database was made, in seconds since 1970 UTC.
    #[must_use]
    pub fn built(&self) -> u64 {
        self.reader.metadata().build_epoch
    }
}

fn country(reader: &Reader<Vec<u8>>, address: IpAddr) -> Option<Country> {
    let record: Record = reader.lookup(address).ok()?.decode().ok()??;
    let nested = match record.country {
        Some(Nested::Table { iso_code }) => iso_code,
        Some(Nested::Name(_)) | None => None,
    };
    nested.or(record.country_code)?.parse().ok()
}

fn load(path: &Path) -> Result<(Reader<Vec<u8>>, Identity), GeoIpError> {
    let reading = |source| GeoIpError::Read {
        path: path.to_owned(),
        source,
    };
    // Its state before it is read: a change in between is seen the next time.
    let identity = identity(path).map_err(reading)?;
    let bytes = fs::read(path).map_err(reading)?;
    let format = |source| GeoIpError::Format {
        path: path.to_owned(),
        source,
    };
    let reader = Reader::from_source(bytes).map_err(format)?;
    // A file that was cut short has lost its metadata, which stand at the end, and is refused above. To verify the whole
    // takes seconds; what is wrong inside shows as an address without a country.
    let known = reader
        .networks(maxminddb::WithinOptions::default())
        .map_err(format)?
        .take(SAMPLE)
        .filter_map(Result::ok)
        .any(|found| {
            let network = found.network().map(|network| network.ip());
            network.is_ok_and(|address| country(&reader, address).is_some())
        });
    if !known {
        return Err(GeoIpError::NoCountries {
            path: path.to_owned(),
            kind: reader.metadata().database_type.clone(),
        });
    }
    Ok((reader, identity))
}

/// Networks looked at for whether a database tells countries: some have none.
const SAMPLE: usize = 1000;

fn identity(path: &Path) -> io::Result<Identity> {
    let state = fs::metadata(path)?;
    Ok((
        state.dev(),
        state.ino(),
        state.size(),
        state.mtime(),
        state.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::explain;

    /// GeoLite2-Country-Test.mmdb of MaxMind's MaxMind-DB repository: see `tests/data/README.md`.
    const NESTED: &[u8] = include_bytes!("../../../tests/data/GeoLite2-Country-Test.mmdb");

    fn at(directory: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
        let path = directory.path().join("geo.mmdb");
        let new = directory.path().join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, &path).unwrap();
        path
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_flat_database_of_the_labs_is_what_is_written_here() {
        let kept = include_bytes!("../../../tests/data/flat-2-AU.mmdb");
        assert!(kept[..] == flat_database("2.0.0.0", "AU")[..]);
    }

    #[test]
    fn a_network_is_where_both_its_ends_are() {
        let directory = tempfile::tempdir().unwrap();
        let geo = GeoIp::open(&at(&directory, &flat_database("1.0.0.0", "AU"))).unwrap();
        for (net, country) in [
            ("1.2.0.0/16", Some("AU")),
            ("1.0.0.0/8", Some("AU")),
            ("0.0.0.0/7", None),
            ("1.0.0.0/7", None),
            ("2.0.0.0/8", None),
        ] {
            let found = geo.country_of_net(net.parse().unwrap());
            assert_eq!(found.map(|c| c.to_string()).as_deref(), country, "{net}");
        }
        assert_eq!(geo.built(), 0x6500_0000);
    }

    #[test]
    fn both_schemas_tell_the_country() {
        let directory = tempfile::tempdir().unwrap();
        let geo = GeoIp::open(&at(&directory, NESTED)).unwrap();
        for (address, country) in [
            ("2.125.160.216", Some("GB")),
            ("81.2.69.142", Some("GB")),
            ("2001:218::1", Some("JP")),
            ("127.0.0.1", None),
        ] {
            let found = geo.country(ip(address)).map(|c| c.to_string());
            assert_eq!(found.as_deref(), country, "{address}");
        }
        let flat = flat_database("1.0.0.0", "AU");
        let geo = GeoIp::open(&at(&directory, &flat)).unwrap();
        assert_eq!(geo.country(ip("1.2.3.4")).unwrap().to_string(), "AU");
        assert_eq!(geo.country(ip("200.2.3.4")), None);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = at(&directory, NESTED);
        let mut geo = GeoIp::open(&path).unwrap();
        assert!(!geo.refresh().unwrap());
        at(&directory, &NESTED[..NESTED.len() / 2]);
        let error = explain(&geo.refresh().unwrap_err());
        assert!(
            error.contains("geo.mmdb") && error.contains("hint:"),
            "{error}"
        );
        // Said once, and the one before stays.
        assert!(!geo.refresh().unwrap());
        assert!(geo.country(ip("2.125.160.216")).is_some());
        fs::remove_file(&path).unwrap();
        assert!(geo.refresh().is_err());
        assert!(!geo.refresh().unwrap());
        assert!(geo.country(ip("2.125.160.216")).is_some());
        at(&directory, &flat_database("1.0.0.0", "AU"));
        assert!(geo.refresh().unwrap());
        assert!(geo.country(ip("2.125.160.216")).is_none());
        assert!(geo.country(ip("1.2.3.4")).is_some());
    }

    #[test]
    fn what_is_no_database_is_refused_with_a_reason() {
        let directory = tempfile::tempdir().unwrap();
        for bytes in [&b""[..], b"no database", &NESTED[1000..2000]] {
            assert!(GeoIp::open(&at(&directory, bytes)).is_err());
        }
        let missing = GeoIp::open(&directory.path().join("missing"))
            .err()
            .unwrap();
        assert!(explain(&missing).contains("No such file"));
        let empty = flat_database("1.0.0.0", "");
        let error = GeoIp::open(&at(&directory, &empty)).err().unwrap();
        assert!(explain(&error).contains("country_code"), "{error}");
    }

    /// A database of one record, `country_code` and `country` for 1.0.0.0/8, written from MaxMind DB 2.0's
    /// specification.
    fn flat_database(network: &str, code: &str) -> Vec<u8> {
        const NODES: u32 = 8;
        let IpAddr::V4(network) = ip(network) else {
            unreachable!()
        };
        let mut bytes = Vec::new();
        for bit in 0..8 {
            let next = if bit == 7 { NODES + 16 } else { bit + 1 };
            let right = network.octets()[0] >> (7 - bit) & 1 == 1;
            for side in [false, true] {
                let record = if side == right { next } else { NODES };
                bytes.extend_from_slice(&record.to_be_bytes()[1..]);
            }
        }
        bytes.extend([0; 16]);
        let text = |text: &str| {
            let mut field = vec![0x40 | text.len() as u8];
            field.extend(text.as_bytes());
            field
        };
        let short = |value: u16| [vec![0xa2], value.to_be_bytes().to_vec()].concat();
        bytes.extend(
            [
                vec![0xe2],
                text("country_code"),
                text(code),
                text("country"),
                text("Somewhere"),
            ]
            .concat(),
        );
        bytes.extend(b"\xab\xcd\xefMaxMind.com");
        bytes.extend(
            [
                vec![0xe9],
                text("binary_format_major_version"),
                short(2),
                text("binary_format_minor_version"),
                short(0),
                text("build_epoch"),
                vec![0x04, 0x02, 0x65, 0, 0, 0],
                text("database_type"),
                text("Flat"),
                text("description"),
                vec![0xe0],
                text("ip_version"),
                short(4),
                text("languages"),
                vec![0x00, 0x04],
                text("node_count"),
                vec![0xc1, NODES as u8],
                text("record_size"),
                short(24),
            ]
            .concat(),
        );
        bytes
    }
}
