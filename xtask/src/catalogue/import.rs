//! Takes a new version of the npm package `mcc-mnc-list` in.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// A record of `mcc-mnc-list.json`, as far as we use it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    country_code: Option<String>,
    mcc: String,
    mnc: String,
    brand: Option<String>,
    operator: Option<String>,
    status: Option<String>,
}

const HEADER: &str = "# Operators by MCC and MNC (as the operator writes it), one row for each country that lists the number. From the npm package mcc-mnc-list (MIT), derived from Wikipedia, by `cargo xtask catalogue --import`.\nmcc\tmnc\tiso\tbrand\toperator\tstatus\n";

pub fn import(json: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(json).with_context(|| format!("read {}", json.display()))?;
    let (rows, left_out) = rows(&text).with_context(|| format!("read {}", json.display()))?;
    ensure!(
        rows.len() > 1000,
        "{} has {} operators: is it mcc-mnc-list.json?",
        json.display(),
        rows.len()
    );
    for record in &left_out {
        println!("left out, no MNC of two or three digits: {record}");
    }
    let mut text = HEADER.to_owned();
    text.extend(rows.iter().map(|row| row.join("\t") + "\n"));
    fs::write(to, text).with_context(|| format!("write {}", to.display()))?;
    println!(
        "{}: {} rows, {} left out",
        to.display(),
        rows.len(),
        left_out.len()
    );
    Ok(())
}

/// Rows in order, each once, and what is no operator's number: ranges, question marks.
fn rows(json: &str) -> Result<(BTreeSet<[String; 6]>, Vec<String>)> {
    let records: Vec<Record> = serde_json::from_str(json)?;
    let mut rows = BTreeSet::new();
    let mut left_out = Vec::new();
    for record in records {
        let text = |field: Option<String>| clean(&field.unwrap_or_default());
        // `AU/CC/CX` are three countries, `GE-AB` is a part of one.
        let iso = record.country_code.unwrap_or_default();
        let iso: Vec<&str> = iso
            .split('/')
            .map(|code| code.split('-').next().unwrap_or(code))
            .collect();
        let row = [
            record.mcc,
            record.mnc,
            iso.join(" "),
            text(record.brand),
            text(record.operator),
            text(record.status),
        ];
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if row[0].len() == 3
            && digits(&row[0])
            && (2..=3).contains(&row[1].len())
            && digits(&row[1])
        {
            rows.insert(row);
        } else {
            left_out.push(format!("{}-{} {} {}", row[0], row[1], row[3], row[4]));
        }
    }
    Ok((rows, left_out))
}

/// White space of all kinds as single spaces.
fn clean(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_rows() {
        let json = r#"[
            {"countryCode": "DE", "mcc": "262", "mnc": "01", "brand": " Tele\tkom ", "operator": null, "status": "Operational", "bands": "x"},
            {"countryCode": "AU/CC/CX", "mcc": "505", "mnc": "01", "brand": "Telstra", "operator": "T", "status": null},
            {"countryCode": "GE-AB", "mcc": "289", "mnc": "67", "brand": null, "operator": "A\u00a0B", "status": "Unknown"},
            {"countryCode": null, "mcc": "901", "mnc": "18", "brand": null, "operator": null, "status": "Unknown"},
            {"countryCode": "US", "mcc": "314", "mnc": "100 - 190", "brand": null, "operator": "Reserved", "status": null},
            {"countryCode": "GT", "mcc": "704", "mnc": "?", "brand": "x", "operator": null, "status": null},
            {"countryCode": "FR", "mcc": "208", "mnc": "50144", "brand": null, "operator": "x", "status": null}
        ]"#;
        let (rows, left_out) = rows(json).unwrap();
        let rows: Vec<_> = rows.iter().map(|row| row.join("|")).collect();
        assert_eq!(
            rows,
            [
                "262|01|DE|Tele kom||Operational",
                "289|67|GE||A B|Unknown",
                "505|01|AU CC CX|Telstra|T|",
                "901|18||||Unknown",
            ]
        );
        assert_eq!(left_out.len(), 3);
        assert!(super::rows("{}").is_err());
    }
}
