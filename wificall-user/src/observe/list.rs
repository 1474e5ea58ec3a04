//! `/list/v4`, `/list/v6`: for firewalls that poll a URL.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use sha1::{Digest as _, Sha1};
use tokio::sync::OwnedSemaphorePermit;

use super::connections;

use crate::discover::Tier;
use crate::export::{Selection, Set, View, lines};

/// What a query asks for: `country=DE&operator=262-01&tier=observed`, each as often as wanted but the tier.
pub(super) fn selection(query: &str, v4: bool) -> Result<Selection, String> {
    let mut selection = Selection {
        ipv4: v4,
        ipv6: !v4,
        // Firewalls let through what is listed.
        tier: Tier::Authoritative,
        ..Selection::default()
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // The only sign of a value that somebody may encode.
        let value = value.replace("%2A", "*").replace("%2a", "*");
        match key {
            "country" => selection.countries.push(said(value.parse())?),
            "operator" => selection.operators.push(said(value.parse())?),
            "tier" => selection.tier = value.parse()?,
            _ => return Err("expected country, operator or tier".to_owned()),
        }
    }
    Ok(selection)
}

fn said<T>(parsed: Result<T, impl ToString>) -> Result<T, String> {
    parsed.map_err(|error| error.to_string())
}

/// The list, or that it is still the one that the client has (RFC 9110 §13.1.2).
pub(super) fn response(
    set: &Set,
    selection: &Selection,
    asked: &HeaderMap,
    place: OwnedSemaphorePermit,
) -> Response {
    let mut text = Vec::new();
    if lines(&View::new(set, selection), &mut text).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let hash: String = (Sha1::digest(&text).iter())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let etag = format!("\"{hash}\"");
    let has = asked.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
        tags.into_iter()
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    });
    let Ok(etag) = HeaderValue::from_str(&etag) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        ),
    ];
    if has {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, connections::body(text, place)).into_response()
}
