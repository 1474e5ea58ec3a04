//! `wificall operators`

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::{Failure, Outcome, print, print_json};
use crate::catalogue::{Catalogue, Country, DialledTarget, Operator, Plmn, Status};
use crate::cli::{self, DEFAULT_CONFIG};
use crate::config;

/// What is said where there is nothing to say.
const NOTHING: &str = "-";

#[derive(Debug, PartialEq, Serialize)]
struct Row<'a> {
    plmn: Plmn,
    /// The main one first.
    countries: &'a [Country],
    name: &'a str,
    company: &'a str,
    aliases: Vec<&'a str>,
    status: Status,
    /// Whether its standard name was seen to resolve.
    standard_name_resolves: bool,
    /// Names of the carrier's own, and addresses.
    known: Vec<Known<'a>>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Known<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    source: &'a str,
}

pub(super) fn run(arguments: &cli::Operators) -> Result<Outcome, Failure> {
    let catalogue = catalogue(arguments.config.as_deref())?;
    let found = find(&catalogue, &arguments.country, arguments.search.as_deref());
    let rows: Vec<Row> = found.iter().map(|o| row(&catalogue, o)).collect();
    if arguments.json {
        print_json(&rows)?;
    } else if !rows.is_empty() {
        print(&text(&rows))?;
    }
    if rows.is_empty() {
        eprintln!(
            "{}",
            nothing(&catalogue, &arguments.country, arguments.search.as_deref())
        );
        return Ok(Outcome::Failed);
    }
    Ok(Outcome::Done)
}

/// The compiled-in catalogue, with what the configuration adds to it if there is one.
pub(super) fn catalogue(named: Option<&Path>) -> Result<Catalogue, config::Errors> {
    let usual = Path::new(DEFAULT_CONFIG);
    let file = named.or_else(|| usual.exists().then_some(usual));
    Ok(match file {
        Some(file) => config::load(file)?.config.catalogue.as_ref().clone(),
        None => crate::catalogue::catalogue().clone(),
    })
}

fn find<'a>(
    catalogue: &'a Catalogue,
    countries: &[Country],
    search: Option<&str>,
) -> Vec<Operator<'a>> {
    let operators = match search {
        Some(query) => catalogue.search(query),
        None => catalogue.operators().collect(),
    };
    let selected = |operator: &Operator| {
        countries.is_empty() || operator.countries.iter().any(|c| countries.contains(c))
    };
    operators.into_iter().filter(selected).collect()
}

fn row<'a>(catalogue: &'a Catalogue, operator: &Operator<'a>) -> Row<'a> {
    let known = catalogue.dialled(operator.plmn).map(|dialled| {
        let (name, network) = match dialled.target {
            DialledTarget::Name(name) => (Some(name), None),
            DialledTarget::Network(_) => (None, Some(dialled.target.to_string())),
        };
        Known {
            name,
            network,
            source: dialled.source,
        }
    });
    Row {
        plmn: operator.plmn,
        countries: operator.countries,
        name: operator.name,
        company: operator.company,
        aliases: operator.aliases().collect(),
        status: operator.status,
        standard_name_resolves: operator.resolves,
        known: known.collect(),
    }
}

/// A table whose columns are as wide as they need to be, up to a limit.
fn text(rows: &[Row]) -> String {
    const HEADER: [&str; 6] = [
        "PLMN",
        "COUNTRY",
        "NAME",
        "COMPANY",
        "STATUS",
        "NAMES AND ADDRESSES",
    ];
    const WIDEST: [usize; 5] = [7, 14, 28, 40, 11];
    let cells: Vec<[String; 5]> = rows.iter().map(cells).collect();
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let longest = cells.iter().map(|row| row[column].chars().count()).max();
        longest
            .unwrap_or(0)
            .min(WIDEST[column])
            .max(HEADER[column].len())
    });
    let mut text = String::new();
    let mut line = |cells: [&str; 5], last: &str| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(line, "{:<width$}  ", shortened(cell, width));
        }
        line.push_str(last);
        let _ = writeln!(text, "{}", line.trim_end());
    };
    let [header @ .., last] = HEADER;
    line(header, last);
    for (row, cells) in rows.iter().zip(&cells) {
        let mut known = known(row).into_iter();
        line(
            cells.each_ref().map(String::as_str),
            &known.next().unwrap_or_default(),
        );
        for further in known {
            line([""; 5], &further);
        }
    }
    let (count, noun) = (
        rows.len(),
        if rows.len() == 1 {
            "operator"
        } else {
            "operators"
        },
    );
    let _ = writeln!(text, "{count} {noun}");
    text
}

fn cells(row: &Row) -> [String; 5] {
    let or_nothing = |text: &str| if text.is_empty() { NOTHING } else { text }.to_owned();
    let countries: Vec<&str> = row.countries.iter().map(Country::as_str).collect();
    // A company of the same name says nothing new.
    let company = if row.company == row.name {
        ""
    } else {
        row.company
    };
    [
        row.plmn.to_string(),
        or_nothing(&countries.join(" ")),
        or_nothing(row.name),
        or_nothing(company),
        row.status.as_str().to_owned(),
    ]
}

fn known(row: &Row) -> Vec<String> {
    let standard = row
        .standard_name_resolves
        .then(|| "standard name (resolved 2025-02)".to_owned());
    let others = row.known.iter().map(|known| {
        let target = known.name.or(known.network.as_deref()).unwrap_or_default();
        format!("{target} ({})", known.source)
    });
    standard.into_iter().chain(others).collect()
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// Why there is nothing, and what was probably meant.
fn nothing(catalogue: &Catalogue, countries: &[Country], search: Option<&str>) -> String {
    let names: Vec<String> = countries
        .iter()
        .map(|country| format!("{} ({country})", country.name()))
        .collect();
    let place = if names.is_empty() {
        String::new()
    } else {
        format!(" in {}", names.join(", "))
    };
    let Some(query) = search else {
        return format!("error: the catalogue has no operator{place}");
    };
    let mut text = format!("error: no operator matches {query:?}{place}");
    let elsewhere = if countries.is_empty() {
        0
    } else {
        catalogue.search(query).len()
    };
    if elsewhere > 0 {
        let _ = write!(
            text,
            "\nhint: {elsewhere} in other countries; leave --country out"
        );
    } else if let Some(near) = catalogue.nearest_operator(query) {
        let name = catalogue.operator(near).map_or("", |near| near.name);
        let _ = write!(text, "\nhint: did you mean {near} ({name})?");
    } else if let Some(near) = catalogue.nearest_name(query) {
        let _ = write!(text, "\nhint: did you mean {near:?}?");
    } else if let Some(country) = crate::catalogue::search::country(query) {
        let _ = write!(
            text,
            "\nhint: for the operators of {}: --country {country}",
            country.name()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(countries: &[&str], search: Option<&str>) -> String {
        let catalogue = crate::catalogue::catalogue();
        let countries: Vec<Country> = countries.iter().map(|c| c.parse().unwrap()).collect();
        let found = find(catalogue, &countries, search);
        text(&found.iter().map(|o| row(catalogue, o)).collect::<Vec<_>>())
    }

    #[test]
    fn the_table_reads_like_this() {
        assert_eq!(
            shown(&["US"], Some("310-260")),
            "\
PLMN     COUNTRY   NAME      COMPANY      STATUS       NAMES AND ADDRESSES
310-260  US PR VI  T-Mobile  T-Mobile US  operational  standard name (resolved 2025-02)
                                                       epdg.epc.geo.mnc260.mcc310.pub.3gppnetwork.org (rule-list)
                                                       ss.epdg.epc.geo.mnc260.mcc310.pub.3gppnetwork.org (rule-list)
                                                       ss.epdg.epc.mnc260.mcc310.pub.3gppnetwork.org (rule-list)
1 operator
"
        );
    }

    #[test]
    fn columns_stand_below_each_other() {
        let table = shown(&["NF", "JE"], None);
        let mut lines = table.lines();
        let at = lines.next().unwrap().find("STATUS").unwrap();
        let statuses = ["operational", "closed", "planned", "testing", "unknown"];
        let mut rows = 0;
        for line in lines.take_while(|line| !line.ends_with("operators")) {
            let cell: String = line.chars().skip(at).take(11).collect();
            if !line.starts_with(' ') {
                assert!(statuses.contains(&cell.trim_end()), "{line}");
                rows += 1;
            }
        }
        assert!(rows > 3);
    }

    #[test]
    fn filters_add_up() {
        let count = |countries: &[&str], search| shown(countries, search).lines().count();
        assert!(count(&["DE"], Some("telekom")) < count(&["DE"], None));
        assert!(count(&["DE"], Some("telekom")) < count(&[], Some("telekom")));
        // A territory has its own operators and not those of the whole code.
        assert!(count(&["GG"], None) < 8);
        assert!(count(&["CX"], None) > 40);
    }

    #[test]
    fn nothing_found_suggests_something() {
        let said = |countries: &[&str], query| {
            let countries: Vec<Country> = countries.iter().map(|c| c.parse().unwrap()).collect();
            nothing(crate::catalogue::catalogue(), &countries, query)
        };
        for (countries, query, text) in [
            (
                &[][..],
                Some("telekon"),
                "error: no operator matches \"telekon\"\nhint: did you mean \"Telekom\"?",
            ),
            (
                &["AX"],
                None,
                "error: the catalogue has no operator in Åland Islands (AX)",
            ),
            (&[], Some("xqzw"), "error: no operator matches \"xqzw\""),
        ] {
            assert_eq!(said(countries, query), text);
        }
        let elsewhere = said(&["NF"], Some("telstra"));
        assert!(
            elsewhere.contains("in Norfolk Island (NF)\nhint: "),
            "{elsewhere}"
        );
        assert!(elsewhere.ends_with("in other countries; leave --country out"));
    }

    #[test]
    fn scripts_get_everything() {
        let catalogue = crate::catalogue::catalogue();
        let found = find(catalogue, &[], Some("338-180"));
        let json = serde_json::to_value(row(catalogue, &found[0])).unwrap();
        assert_eq!(json["plmn"], "338-180");
        assert_eq!(json["countries"], serde_json::json!(["JM"]));
        assert_eq!(json["known"][0]["network"], "69.79.196.12");
        assert_eq!(json["known"][0]["source"], "handset-profile");
    }
}
