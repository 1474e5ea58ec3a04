//! Catalogue files of the user: rows that add to the catalogue or override it.
//!
//! docs/catalogue.md describes the format for the reader.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ipnet::IpNet;

use super::row::{self, DialledRow, MccRow, OperatorRow, Set, Text};
use super::{
    Catalogue, Country, CountryError, DialledTarget, NameError, Plmn, PlmnError, catalogue, names,
};

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is there.
    pub found: String,
    /// What could be there.
    pub expected: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What takes all rows of a kind back.
const NONE: &str = "none";
/// What stands for no country.
const NO_COUNTRY: &str = "-";

const KINDS: &str = "`operator`, `name`, `prefix` or `mcc`, and a tab after it";
const COUNTRIES: &str = "countries such as AU, or AU NZ, or - for none";
const MCC: &str = "a mobile country code from 001 to 999";
const TEXT: &str = "a text of at most 255 bytes";
const NETWORK: &str = "a network such as 203.0.114.0/24, a unicast address, or none";

/// A field with its place.
#[derive(Copy, Clone)]
struct Field<'a> {
    line: usize,
    column: usize,
    text: &'a str,
}

impl Field<'_> {
    fn error(self, expected: impl Into<String>) -> RowError {
        RowError {
            line: self.line,
            column: self.column,
            found: if self.text.is_empty() {
                "nothing".to_owned()
            } else {
                format!("{:?}", self.text)
            },
            expected: expected.into(),
            hint: None,
        }
    }

    fn suggest(self, expected: impl Into<String>, suggestion: Option<String>) -> RowError {
        RowError {
            hint: suggestion.map(|text| format!("did you mean {text}?")),
            ..self.error(expected)
        }
    }

    fn plmn(self) -> Result<Plmn, RowError> {
        self.text.parse().map_err(|error: PlmnError| {
            self.suggest(PlmnError::EXPECTED, catalogue().meant(&error))
        })
    }

    fn countries(self) -> Result<Vec<Country>, RowError> {
        if self.text == NO_COUNTRY {
            return Ok(Vec::new());
        }
        let mut countries = Vec::new();
        for code in self.text.split_whitespace() {
            let country = code.parse().map_err(|error: CountryError| {
                let suggestion = error.suggestion.map(|country| country.to_string());
                RowError {
                    found: format!("{code:?}"),
                    ..self.suggest(COUNTRIES, suggestion)
                }
            })?;
            if !countries.contains(&country) {
                countries.push(country);
            }
        }
        // One byte counts them.
        if countries.is_empty() || countries.len() > usize::from(u8::MAX) {
            return Err(self.error(COUNTRIES));
        }
        Ok(countries)
    }

    fn network(self) -> Result<IpNet, RowError> {
        let net = super::network(self.text).ok_or_else(|| self.error(NETWORK))?;
        if net != net.trunc() {
            return Err(self.suggest(
                format!(
                    "a network, without bits after the first {}",
                    net.prefix_len()
                ),
                Some(net.trunc().to_string()),
            ));
        }
        if is_endpoint_network(&net) {
            Ok(net)
        } else {
            Err(self.error("a network of unicast addresses, not wider than /8 (IPv6: /16)"))
        }
    }
}

/// Whether ePDGs can be in all of a network. No operator has more than that: 0.0.0.0/0 would turn
/// every VPN into Wi-Fi Calling.
#[must_use]
pub(crate) fn is_endpoint_network(net: &IpNet) -> bool {
    let widest = match net {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 16,
    };
    let ip = net.addr();
    net.prefix_len() >= widest && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

impl Catalogue {
    /// Adds the rows of a file to the catalogue, and overrides what they replace. `file` is named
    /// as the source of what it adds.
    ///
    /// # Errors
    ///
    /// All that is wrong, in the order of the file; then the catalogue has some of the rows.
    pub fn add_file(&mut self, file: &str, text: &str) -> Result<(), Vec<RowError>> {
        let mut reader = Reader {
            catalogue: self,
            file,
            given: BTreeMap::new(),
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let errors: Vec<RowError> = text
            .lines()
            .zip(1..)
            .filter(|(line, _)| !line.trim().is_empty() && !line.starts_with('#'))
            .filter_map(|(line, number)| reader.row(line, number).err())
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }
}

struct Reader<'a> {
    catalogue: &'a mut Catalogue,
    file: &'a str,
    /// The line of each thing that was said, for there is no telling which of two is meant.
    given: BTreeMap<String, usize>,
}

impl Reader<'_> {
    fn row(&mut self, line: &str, number: usize) -> Result<(), RowError> {
        let mut column = 1;
        let mut fields = line.split('\t').map(|text| {
            let field = Field {
                line: number,
                column: column + text.chars().take_while(|c| c.is_whitespace()).count(),
                text: text.trim(),
            };
            column += text.chars().count() + 1;
            field
        });
        let end = Field {
            line: number,
            column: line.chars().count() + 1,
            text: "",
        };
        let kind = fields.next().unwrap_or(end);
        let fields: Vec<Field> = fields.collect();
        // Trailing tabs are no fields.
        let given = fields.iter().rposition(|field| !field.text.is_empty());
        let fields = &fields[..given.map_or(0, |last| last + 1)];
        let most = match kind.text {
            "operator" => 5,
            "name" | "prefix" | "mcc" => 2,
            _ => {
                let hint = match line.contains('\t') {
                    true => {
                        super::search::nearest(kind.text, &["operator", "name", "prefix", "mcc"])
                            .map(|kind| format!("did you mean {kind}?"))
                    }
                    false => Some("the fields of a row have one tab between them".to_owned()),
                };
                return Err(RowError {
                    hint,
                    ..kind.error(KINDS)
                });
            }
        };
        if let Some(surplus) = fields.get(most) {
            return Err(surplus.error(format!("the end of the line after {most} fields")));
        }
        let field = |index: usize| fields.get(index).copied().unwrap_or(end);
        match kind.text {
            "operator" => {
                let plmn = field(0).plmn()?;
                self.once(
                    field(0),
                    format!("operator {}-{:03}", plmn.mcc(), plmn.mnc()),
                )?;
                let countries = field(1).countries()?;
                if field(2).text.is_empty() {
                    return Err(field(2).error("the operator's name"));
                }
                let brand = self.text(field(2), field(2).text)?;
                let company = self.text(field(3), field(3).text)?;
                let aliases: Vec<&str> = field(4).text.split(';').map(str::trim).collect();
                let aliases = self.text(field(4), &aliases.join("\t"))?;
                let (at, len) = self.set(field(1), &countries)?;
                let (mcc, mnc, digits) = (plmn.mcc(), plmn.mnc(), plmn.mnc_digits());
                self.operator(plmn, |known| {
                    let status = known.map_or(0, |row| row.3);
                    OperatorRow(mcc, mnc, digits, status, at, len, brand, company, aliases)
                });
                Ok(())
            }
            "mcc" => {
                let mcc = self.mcc(field(0))?;
                self.once(field(0), format!("mcc {mcc}"))?;
                let countries = field(1).countries()?;
                let (at, len) = self.set(field(1), &countries)?;
                let row = MccRow(mcc, at, len);
                let mccs = self.catalogue.mccs.to_mut();
                match mccs.binary_search_by_key(&mcc, |row| row.0) {
                    Ok(index) => mccs[index] = row,
                    Err(index) => mccs.insert(index, row),
                }
                Ok(())
            }
            kind => {
                let plmn = field(0).plmn()?;
                let target = match (kind, field(1).text) {
                    (_, NONE) => {
                        self.take_back(plmn, kind == "name");
                        return Ok(());
                    }
                    ("name", text) => names::host_name(text).map_err(|error| {
                        field(1).suggest(
                            format!("{}; or none", NameError::EXPECTED),
                            error.suggestion,
                        )
                    })?,
                    _ => field(1).network()?.to_string(),
                };
                self.dialled(plmn, field(1), &target)
            }
        }
    }

    fn mcc(&self, field: Field) -> Result<u16, RowError> {
        let mcc = field.text.parse().ok().filter(|_| field.text.len() == 3);
        mcc.filter(|mcc| (1..=999).contains(mcc) && !field.text.starts_with('+'))
            .ok_or_else(|| field.error(MCC))
    }

    fn once(&mut self, field: Field, what: String) -> Result<(), RowError> {
        match self.given.insert(what, field.line) {
            None => Ok(()),
            Some(line) => Err(RowError {
                hint: Some(format!("line {line} has it too")),
                ..field.error("each once")
            }),
        }
    }

    fn text(&mut self, field: Field, text: &str) -> Result<Text, RowError> {
        let all = self.catalogue.text.to_mut();
        let place = row::place(all.len(), text).ok_or_else(|| field.error(TEXT))?;
        all.push_str(text);
        Ok(place)
    }

    fn set(&mut self, field: Field, countries: &[Country]) -> Result<Set, RowError> {
        let members = &mut self.catalogue.members;
        // Most files say the same few countries again and again.
        let known = members
            .windows(countries.len().max(1))
            .position(|window| window == countries);
        let at = match known {
            Some(at) => at,
            None => {
                let members = members.to_mut();
                members.extend_from_slice(countries);
                members.len() - countries.len()
            }
        };
        match (u16::try_from(at), u8::try_from(countries.len())) {
            (Ok(at), Ok(len)) => Ok((at, len)),
            _ => Err(field.error("fewer different lists of countries")),
        }
    }

    fn operator(&mut self, plmn: Plmn, row: impl FnOnce(Option<&OperatorRow>) -> OperatorRow) {
        let index = self.catalogue.operator_index(plmn);
        let operators = self.catalogue.operators.to_mut();
        match index {
            Ok(index) => operators[index] = row(Some(&operators[index])),
            Err(index) => operators.insert(index, row(None)),
        }
    }

    /// Takes the names, or the networks, that are known so far from an operator.
    fn take_back(&mut self, plmn: Plmn, names: bool) {
        let Catalogue { dialled, text, .. } = &mut *self.catalogue;
        let text: &Cow<str> = text;
        dialled.to_mut().retain(|row| {
            row.plmn() != plmn || super::network(row::text(text, row.3)).is_none() != names
        });
    }

    fn dialled(&mut self, plmn: Plmn, field: Field, target: &str) -> Result<(), RowError> {
        let known = self
            .catalogue
            .dialled(plmn)
            .any(|dialled| match dialled.target {
                DialledTarget::Name(name) => name == target,
                DialledTarget::Network(net) => net.to_string() == target,
            });
        // Somebody with that name or network has to be in the catalogue.
        if self.catalogue.operator_index(plmn).is_err() {
            let countries = self.catalogue.countries_of(plmn.mcc());
            let countries: Vec<Country> = countries.first().copied().into_iter().collect();
            let (at, len) = self.set(field, &countries)?;
            let (mcc, mnc, digits) = (plmn.mcc(), plmn.mnc(), plmn.mnc_digits());
            self.operator(plmn, |_| OperatorRow(mcc, mnc, digits, 0, at, len, 0, 0, 0));
        }
        if known {
            return Ok(());
        }
        let source = format!("{}:{}", self.file, field.line);
        let target = self.text(field, target)?;
        let source = self.text(field, &source)?;
        let row = DialledRow(plmn.mcc(), plmn.mnc(), plmn.mnc_digits(), target, source);
        let rows = self.catalogue.dialled.to_mut();
        let index = rows.partition_point(|row| row.plmn() <= plmn);
        rows.insert(index, row);
        Ok(())
    }
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
