//! The live page at `/`: a few files, compiled in. It asks the API each second; nothing comes from elsewhere.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// Nothing but what this agent serves, no text of ours in a frame of others.
const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: (&str, &str) = ("text/html; charset=utf-8", include_str!("index.html"));
const STYLE: (&str, &str) = ("text/css; charset=utf-8", include_str!("page.css"));
const SCRIPT: (&str, &str) = ("text/javascript; charset=utf-8", include_str!("page.js"));
const ICON: (&str, &str) = ("image/svg+xml", include_str!("icon.svg"));

/// Its routes.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let file = |file| get(async move || serve(file));
    Router::new()
        .route("/", file(HTML))
        .route("/page/page.css", file(STYLE))
        .route("/page/page.js", file(SCRIPT))
        .route("/page/icon.svg", file(ICON))
}

fn serve((kind, text): (&'static str, &'static str)) -> impl IntoResponse {
    let fixed = HeaderValue::from_static;
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, fixed(kind)),
        (header::CONTENT_SECURITY_POLICY, fixed(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::REFERRER_POLICY, fixed("no-referrer")),
        // Another version of the agent has another page.
        (header::CACHE_CONTROL, fixed("no-cache")),
    ];
    (headers, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_refers_to_nothing_outside_and_has_nothing_inline() {
        let (_, html) = HTML;
        let mut references = 0;
        for attribute in ["src=\"", "href=\""] {
            for (_, rest) in html
                .match_indices(attribute)
                .map(|(at, _)| html.split_at(at))
            {
                let value = rest[attribute.len()..]
                    .split('"')
                    .next()
                    .unwrap_or_default();
                assert!(
                    value.starts_with(['/', '#']) && !value.starts_with("//"),
                    "{value}"
                );
                references += 1;
            }
        }
        assert!(references >= 8, "{references} references");
        // The policy would have the browser refuse them.
        for inline in ["<style", "style=", " onclick", "javascript:"] {
            assert!(!html.contains(inline), "{inline}");
        }
        assert_eq!(
            html.matches("<script").count(),
            html.matches("<script src=").count()
        );
        let (_, style) = STYLE;
        assert!(!style.contains("url(") && !style.contains("@import"));
        let (_, script) = SCRIPT;
        for risky in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!script.contains(risky), "{risky}");
        }
    }
}
