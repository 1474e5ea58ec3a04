//! The part of `wificall status` about where endpoints are.

use std::fmt::Write as _;

use super::{Report, status::columns};

/// More are in the JSON form.
const SHOWN: usize = 10;

/// Nothing without a database.
pub(super) fn text(report: &Report) -> String {
    let geoip = &report.geoip;
    let Some(database) = &geoip.database else {
        return String::new();
    };
    let mut text = format!("  {database}");
    if let Some(built) = geoip.built {
        let days = report.at.saturating_sub(built) / 86_400;
        let _ = write!(text, ", {days} days old");
    }
    let _ = writeln!(
        text,
        ": {} endpoints have their country by it, {} are not in it",
        geoip.located, geoip.unknown
    );
    if geoip.contradictions == 0 {
        return text;
    }
    let _ = writeln!(
        text,
        "  {} endpoints are in another country by their address than by their operator, which counts",
        geoip.contradictions
    );
    let rows: Vec<_> = geoip
        .listed
        .iter()
        .take(SHOWN)
        .map(|listed| {
            [
                listed.network.clone(),
                listed.operators.join("+"),
                listed.countries.join("+"),
                listed.geoip.clone(),
            ]
        })
        .collect();
    text += &columns(
        ["<endpoint", "<operator", "<by operator", "<by address"],
        &rows,
    );
    let more = geoip.contradictions.saturating_sub(rows.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "  … {more} more; --json has up to a hundred");
    }
    text
}
