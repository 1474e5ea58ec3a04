//! HTTP: metrics, health, the report as JSON.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{FromRef, Path as UrlPath, Request, State};
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, header, uri::Authority,
};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connections::{self, Bounds};
use super::{Report, classic, list, metrics, page, query, token::Token};
use crate::control::Requests;
use crate::telemetry::select::{Selection, Wanted};
use crate::telemetry::view::{Clients, Tunnels};

/// A loop that does not answer within this is not healthy.
const HEALTHY: Duration = Duration::from_secs(1);
/// A scrape waits no longer; Prometheus gives up after ten seconds by default.
const PATIENCE: Duration = Duration::from_secs(9);

/// How long one waits until others have been answered.
const QUEUE: Duration = Duration::from_secs(5);
/// Large answers at once, and besides as many of metrics: no browser keeps Prometheus waiting.
const LARGE: usize = 2;
/// Tunnels that are told if nobody says how many, and the most.
const TUNNELS: usize = 1_000;
const TUNNELS_MOST: usize = 2_000;
/// Bytes of a filter.
const FILTER_MAX: usize = 256;

const INDEX: &str = "\
wificall

/               the live page: what is on now, calls by half-leg, operators, health
/metrics        OpenMetrics, or what was before it (Accept: text/plain)
/healthz        200 if the agent's loop answers within a second
/readyz         200 if the tables are written and the hooks of all interfaces that are there are attached, else 503 with the reasons
/api/v1/status  the report as JSON
/api/v1/overview, /api/v1/tunnels, /api/v1/tunnels/{id}  tunnels and calls as JSON; ?limit=200&filter=telekom
/list/v4        IPv4 networks of endpoints, one a line; ?country=DE&operator=262-01&tier=corroborated
/list/v6        IPv6 networks, likewise
";

/// Listens on an address. Needs a tokio runtime.
///
/// # Errors
///
/// If the address is not this box's or is taken.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "listen on {address}\n  hint: set agent.listen to a free address of this box, or to \"off\""
        )
    })
}

/// Serves until dropped. On loopback clients' addresses are shown, elsewhere to who has the token.
///
/// # Errors
///
/// If the listener has no address.
pub async fn serve(
    listener: TcpListener,
    requests: Requests,
    hosts: Vec<String>,
    token: Option<Token>,
) -> anyhow::Result<()> {
    let hosts = Hosts {
        listen: listener.local_addr()?.ip(),
        names: hosts,
    };
    let router = router(requests, hosts, token);
    connections::serve(listener, router, Bounds::default()).await;
    Ok(())
}

fn router(requests: Requests, hosts: Hosts, token: Option<Token>) -> Router {
    let server = Server {
        requests,
        is_loopback: hosts.listen.is_loopback(),
        token: token.map(Arc::new),
        large: Arc::new(Semaphore::new(LARGE)),
        scrapes: Arc::new(Semaphore::new(LARGE)),
    };
    Router::new()
        .merge(page::routes())
        .route("/index.txt", get(async || INDEX))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/api/v1/status", get(status))
        .route("/api/v1/overview", get(overview))
        .route("/api/v1/tunnels", get(tunnels))
        .route("/api/v1/tunnels/{id}", get(tunnel))
        .route("/list/v4", get(list_v4))
        .route("/list/v6", get(list_v6))
        .with_state(server)
        .layer(middleware::from_fn_with_state(
            Arc::new(hosts),
            refuse_strangers,
        ))
}

/// What pages are made of.
#[derive(Clone)]
struct Server {
    requests: Requests,
    /// Whoever is on this host may know who its clients are.
    is_loopback: bool,
    token: Option<Arc<Token>>,
    /// Places of large answers, and of metrics.
    large: Arc<Semaphore>,
    scrapes: Arc<Semaphore>,
}

/// Waits for a place.
async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Response> {
    match timeout(QUEUE, places.clone().acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(unavailable("others are being answered: ask again")),
    }
}

impl Server {
    /// How clients are shown to who asks so. A token that is wrong is refused, wherever it is sent to: whoever has one is
    /// to know that it does not count: `None`.
    fn clients(&self, headers: &HeaderMap) -> Option<Clients> {
        let given = headers.get(header::AUTHORIZATION).and_then(bearer);
        match (&self.token, given) {
            (Some(token), Some(given)) => token.is(given).then_some(Clients::Shown),
            _ if self.is_loopback => Some(Clients::Shown),
            (Some(_), None) => Some(Clients::ByToken),
            (None, _) => Some(Clients::Hashed),
        }
    }

    async fn tunnels(&self, headers: &HeaderMap, wanted: Wanted) -> Result<Tunnels, Response> {
        let clients = self.clients(headers).ok_or_else(wrong_token)?;
        let tunnels = self.requests.tunnels(wanted, clients == Clients::Shown);
        let tunnels = patient(tunnels).await?;
        Ok(Tunnels { clients, ..tunnels })
    }
}

/// The token of a header; `None` of one that has another kind of credentials. The scheme's case does not matter
/// (RFC 9110 §11.1).
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer";
    let (scheme, token) = header.as_bytes().split_at_checked(SCHEME.len())?;
    let is_whole = token.first().is_none_or(u8::is_ascii_whitespace);
    (is_whole && scheme.eq_ignore_ascii_case(SCHEME)).then(|| token.trim_ascii())
}

fn wrong_token() -> Response {
    let challenge = HeaderValue::from_static("Bearer realm=\"wificall\", error=\"invalid_token\"");
    let why = "the token is not that of agent.token_file\n";
    (
        StatusCode::UNAUTHORIZED,
        [(header::WWW_AUTHENTICATE, challenge)],
        why,
    )
        .into_response()
}

impl FromRef<Server> for Requests {
    fn from_ref(server: &Server) -> Self {
        server.requests.clone()
    }
}

/// By which names this may be asked.
struct Hosts {
    listen: IpAddr,
    names: Vec<String>,
}

async fn report(requests: &Requests, patience: Duration) -> Result<Report, Response> {
    report_of(requests, patience, false).await
}

/// `clients`: with clients' addresses.
async fn report_of(
    requests: &Requests,
    patience: Duration,
    clients: bool,
) -> Result<Report, Response> {
    match timeout(patience, requests.report(clients)).await {
        Ok(Some(report)) => Ok(report),
        Ok(None) => Err(unavailable("the agent cannot report now: its log says why")),
        Err(_) => Err(unavailable("the agent is busy and did not report in time")),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

async fn metrics(State(server): State<Server>, headers: HeaderMap) -> Result<Response, Response> {
    let place = place(&server.scrapes).await?;
    let report = report(&server.requests, PATIENCE).await?;
    let text =
        metrics::text(report).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())?;
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(classic::wants_classic) {
        let text = classic::classic(&text);
        return Ok(large(classic::CLASSIC_TYPE, text.into_bytes(), place));
    }
    Ok(large(metrics::CONTENT_TYPE, text.into_bytes(), place))
}

async fn health(State(requests): State<Requests>) -> Result<&'static str, Response> {
    report(&requests, HEALTHY).await.map(|_| "healthy\n")
}

async fn readiness(State(requests): State<Requests>) -> Result<&'static str, Response> {
    let report = report(&requests, PATIENCE).await?;
    if report.ready {
        return Ok("ready\n");
    }
    let why = match report.problems.as_slice() {
        [] => "not ready yet".to_owned(),
        problems => problems.join("\n"),
    };
    Err(unavailable(&why))
}

async fn status(State(server): State<Server>, headers: HeaderMap) -> Result<Response, Response> {
    let clients = server.clients(&headers).ok_or_else(wrong_token)? == Clients::Shown;
    let place = place(&server.large).await?;
    let report = report_of(&server.requests, PATIENCE, clients).await?;
    Ok(large_json(&report, place))
}

async fn overview(State(requests): State<Requests>) -> Result<Response, Response> {
    Ok(json(&patient(requests.overview()).await?))
}

async fn tunnels(
    State(server): State<Server>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let selection = tunnels_of(uri.query().unwrap_or_default())
        .map_err(|why| (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response())?;
    let place = place(&server.large).await?;
    let wanted = Wanted::First(selection);
    Ok(large_json(&server.tunnels(&headers, wanted).await?, place))
}

/// Which tunnels a query asks for: `limit=200&filter=telekom+call`.
fn tunnels_of(query: &str) -> Result<Selection, String> {
    let mut selection = Selection {
        limit: TUNNELS,
        ..Selection::default()
    };
    for (key, value) in query::pairs(query) {
        match &*key {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| *limit <= TUNNELS_MOST);
                let expected = format!(
                    "limit: expected a number up to {TUNNELS_MOST}; all tunnels: `wificall tunnels --json`"
                );
                selection.limit = limit.ok_or(expected)?;
            }
            "filter" if value.len() > FILTER_MAX => {
                return Err(format!("filter: expected {FILTER_MAX} bytes at most"));
            }
            "filter" => selection.filter = value,
            _ => return Err("expected limit or filter".to_owned()),
        }
    }
    Ok(selection)
}

async fn tunnel(
    State(server): State<Server>,
    UrlPath(id): UrlPath<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let tunnels = server.tunnels(&headers, Wanted::One(id)).await?;
    match tunnels.tunnels.first() {
        Some(tunnel) => Ok(json(tunnel)),
        None => Err((StatusCode::NOT_FOUND, "there is no such tunnel\n").into_response()),
    }
}

/// An answer of the loop, if it comes in time.
async fn patient<T>(answer: impl Future<Output = Option<T>>) -> Result<T, Response> {
    match timeout(PATIENCE, answer).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(unavailable("the agent cannot tell now: its log says why")),
        Err(_) => Err(unavailable("the agent is busy and did not tell in time")),
    }
}

fn json(value: &impl serde::Serialize) -> Response {
    let Ok(json) = serde_json::to_vec(value) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    (JSON, json).into_response()
}

const JSON: [(HeaderName, HeaderValue); 2] = [
    (
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

fn large_json(value: &impl serde::Serialize, place: OwnedSemaphorePermit) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => (JSON, connections::body(json, place)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn large(kind: &'static str, bytes: Vec<u8>, place: OwnedSemaphorePermit) -> Response {
    (
        [(header::CONTENT_TYPE, kind)],
        connections::body(bytes, place),
    )
        .into_response()
}

async fn list_v4(
    State(server): State<Server>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Response> {
    endpoints(&server, &uri, &headers, true).await
}

async fn list_v6(
    State(server): State<Server>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Response> {
    endpoints(&server, &uri, &headers, false).await
}

async fn endpoints(
    server: &Server,
    uri: &Uri,
    headers: &HeaderMap,
    v4: bool,
) -> Result<Response, Response> {
    let selection = list::selection(uri.query().unwrap_or_default(), v4)
        .map_err(|why| (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response())?;
    let place = place(&server.large).await?;
    let set = patient(server.requests.endpoints()).await?;
    Ok(list::response(&set, &selection, headers, place))
}

/// A request for another host comes from a browser whose page had its name pointed at us (DNS rebinding).
async fn refuse_strangers(
    State(hosts): State<Arc<Hosts>>,
    request: Request,
    next: Next,
) -> Response {
    let named = match host(&request) {
        Ok(named) => named,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    // Who names no host speaks HTTP/1.0, and no browser does.
    if named.is_none_or(|host| hosts.has(host)) {
        return next.run(request).await;
    }
    let why = "this answers only requests for localhost, a loopback address, the address that it listens on, and the names \
               in agent.hosts\n";
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

/// Which host a request is for. An absolute target counts before the header (RFC 9112 §3.2.2).
fn host(request: &Request) -> Result<Option<&[u8]>, &'static str> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str().as_bytes()));
    }
    let mut given = request.headers().get_all(header::HOST).iter();
    match (given.next(), given.next()) {
        (Some(host), None) => Ok(Some(host.as_bytes())),
        (Some(_), Some(_)) => Err("a request has one Host\n"),
        (None, _) if request.version() == Version::HTTP_10 => Ok(None),
        // RFC 9112 §3.2.
        (None, _) => Err("a request has a Host\n"),
    }
}

impl Hosts {
    fn has(&self, host: &[u8]) -> bool {
        Authority::try_from(host).is_ok_and(|authority| {
            let host = authority.host();
            let address = host.trim_start_matches('[').trim_end_matches(']');
            host.eq_ignore_ascii_case("localhost")
                || self
                    .names
                    .iter()
                    .any(|name| host.eq_ignore_ascii_case(name))
                || address.parse().is_ok_and(|ip: IpAddr| {
                    ip.is_loopback()
                    || ip == self.listen
                    // Of this host's addresses, which one is not known; a page's name is none of them.
                    || self.listen.is_unspecified()
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::Value;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::control;
    use crate::observe::{Client, sample};
    use crate::telemetry::view::{Overview, Tunnel};

    /// A server in front of a loop that reports this, or that has ended.
    async fn server(reported: Option<Report>) -> SocketAddr {
        server_with(reported, [127, 0, 0, 1], None).await
    }

    /// One that takes itself to listen there.
    async fn server_with(
        reported: Option<Report>,
        listen: [u8; 4],
        token: Option<Token>,
    ) -> SocketAddr {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, mut requested) = Requests::channel();
        let names = vec!["ap1.example.net".to_owned()];
        let hosts = Hosts {
            listen: listen.into(),
            names,
        };
        let router = router(requests, hosts, token);
        tokio::spawn(connections::serve(listener, router, Bounds::default()));
        tokio::spawn(async move {
            while let Some(request) = requested.recv().await {
                match (request, &reported) {
                    (control::Request::Report { clients, asker }, Some(report)) => {
                        let mut report = report.clone();
                        if clients {
                            report.snoop.clients.push(Client {
                                address: "192.0.2.8".into(),
                                ..Client::default()
                            });
                        }
                        asker.send(report).unwrap();
                    }
                    (control::Request::Endpoints(answer), Some(_)) => {
                        answer.send(crate::export::set::sample()).unwrap();
                    }
                    (
                        control::Request::Tunnels {
                            wanted,
                            clients,
                            asker,
                        },
                        Some(_),
                    ) => {
                        let tunnel = Tunnel {
                            id: "0a".into(),
                            client: if clients { "192.0.2.7" } else { "client-1" }.into(),
                            ..Tunnel::default()
                        };
                        let mut tunnels = Tunnels {
                            tunnels: vec![tunnel],
                            ..Tunnels::default()
                        };
                        match wanted {
                            Wanted::First(first) => {
                                tunnels.found = first.limit as u64;
                                tunnels.tunnels[0].operator = first.filter;
                            }
                            Wanted::One(id) => tunnels.tunnels.retain(|tunnel| tunnel.id == id),
                            Wanted::These(_) => {}
                        }
                        asker.send(tunnels).unwrap();
                    }
                    (control::Request::Overview(answer), Some(_)) => {
                        answer.send(Overview::default()).unwrap();
                    }
                    _ => {}
                }
            }
        });
        address
    }

    /// The head and the body that are answered.
    async fn fetch(server: SocketAddr, path: &str, host: &str) -> (String, String) {
        let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn the_report_is_served() {
        let server = server(Some(sample::report())).await;
        let (head, body) = fetch(server, "/metrics", "localhost").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains(metrics::CONTENT_TYPE), "{head}");
        assert_eq!(body, metrics::text(sample::report()).unwrap());

        let (head, body) = fetch(server, "/api/v1/status", "127.0.0.1:9817").await;
        assert!(head.contains("content-type: application/json"), "{head}");
        let mut report: Report = serde_json::from_str(&body).unwrap();
        let client = report.snoop.clients.pop().unwrap();
        assert_eq!(client.address, "192.0.2.8", "it is on loopback");
        assert_eq!(report, sample::report());

        let (head, body) = fetch(server, "/readyz", "[::1]:80").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(body, sample::report().problems.join("\n") + "\n");

        let (head, body) = fetch(server, "/healthz", "LocalHost").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(body, "healthy\n");

        let (_, body) = fetch(server, "/index.txt", "localhost").await;
        assert_eq!(body, INDEX);
        let (head, _) = fetch(server, "/api/v2", "localhost").await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    }

    #[tokio::test]
    async fn lists_are_served_and_not_twice() {
        let server = server(Some(Report::default())).await;
        let (head, body) = fetch(server, "/list/v4", "localhost").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(
            head.contains("content-type: text/plain; charset=utf-8"),
            "{head}"
        );
        assert_eq!(body, "198.51.100.0/25\n203.0.113.9/32\n");
        let etag = head.lines().find_map(|line| line.strip_prefix("etag: "));
        let etag = etag.unwrap().to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");

        let (other, body) = fetch(server, "/list/v6?country=DE", "localhost").await;
        assert_eq!(body, "2001:db8::5/128\n");
        assert!(!other.contains(&etag), "{other}");

        let (_, body) = fetch(server, "/list/v4?tier=corroborated", "localhost").await;
        assert_eq!(body, "198.51.100.0/24\n203.0.113.9/32\n");

        // `fetch` writes the host as it is given.
        for (condition, status) in [
            (etag.clone(), "304"),
            (format!("\"x\", W/{etag}"), "304"),
            ("*".to_owned(), "304"),
            ("\"x\"".to_owned(), "200"),
        ] {
            let host = format!("localhost\r\nIf-None-Match: {condition}");
            let (head, body) = fetch(server, "/list/v4", &host).await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{condition}: {head}"
            );
            assert!(head.contains(&format!("etag: {etag}")), "{head}");
            assert_eq!(body.is_empty(), status == "304");
        }
        for query in [
            "country=XX",
            "operator=1",
            "tier=best",
            "familiy=4",
            "country",
        ] {
            let (head, _) = fetch(server, &format!("/list/v4?{query}"), "localhost").await;
            assert!(head.starts_with("HTTP/1.1 400 "), "{query}: {head}");
        }
        let (head, _) = fetch(server, "/list/v4", "example.org").await;
        assert!(head.starts_with("HTTP/1.1 421 "), "{head}");
    }

    #[tokio::test]
    async fn ready_is_said_in_a_word() {
        let ready = Report {
            ready: true,
            ..Report::default()
        };
        let server = server(Some(ready)).await;
        let (head, body) = fetch(server, "/readyz", "localhost").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(body, "ready\n");
    }

    #[tokio::test]
    async fn a_loop_that_does_not_answer_is_not_healthy() {
        let server = server(None).await;
        for path in [
            "/healthz",
            "/readyz",
            "/metrics",
            "/api/v1/status",
            "/api/v1/tunnels",
            "/api/v1/tunnels/0a",
            "/api/v1/overview",
            "/list/v4",
        ] {
            let (head, _) = fetch(server, path, "localhost").await;
            assert!(head.starts_with("HTTP/1.1 503 "), "{path}: {head}");
        }
    }

    #[tokio::test]
    async fn names_of_others_are_refused_on_loopback() {
        let server = server(Some(sample::report())).await;
        for host in [
            "example.org",
            "192.0.2.1",
            "localhost.example.org",
            "a b",
            "",
        ] {
            let (head, body) = fetch(server, "/api/v1/status", host).await;
            assert!(head.starts_with("HTTP/1.1 4"), "{host}: {head}");
            assert!(!body.contains("instance"), "{host}: {body}");
        }
    }

    #[tokio::test]
    async fn the_page_is_served_with_a_policy_and_to_nobody_elses_name() {
        let server = server(Some(Report::default())).await;
        for (path, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/page/page.css", "text/css; charset=utf-8"),
            ("/page/page.js", "text/javascript; charset=utf-8"),
            ("/page/icon.svg", "image/svg+xml"),
        ] {
            let (head, body) = fetch(server, path, "localhost").await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
            assert!(!body.is_empty());
            for line in [
                &format!("content-type: {kind}"),
                "content-security-policy: default-src 'self';",
                "frame-ancestors 'none'",
                "x-content-type-options: nosniff",
            ] {
                assert!(head.contains(line), "{path}: {line} is not in {head}");
            }
            assert!(!head.contains("access-control-"), "{path}: {head}");
            let (head, body) = fetch(server, path, "example.org").await;
            assert!(head.starts_with("HTTP/1.1 421 "), "{path}: {head}");
            assert!(!body.contains("wificall"), "{path}: {body}");
        }
    }

    #[tokio::test]
    async fn tunnels_are_served_all_or_one() {
        let server = server(Some(Report::default())).await;
        // A name that is configured, in any case.
        let (head, body) = fetch(server, "/api/v1/tunnels", "AP1.example.net:9817").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let tunnels: Tunnels = serde_json::from_str(&body).unwrap();
        assert_eq!(tunnels.tunnels[0].client, "192.0.2.7", "it is on loopback");
        let (_, body) = fetch(server, "/api/v1/tunnels/0a", "localhost").await;
        let tunnel: Tunnel = serde_json::from_str(&body).unwrap();
        assert_eq!(tunnel, tunnels.tunnels[0]);
        let (head, _) = fetch(server, "/api/v1/tunnels/0b", "localhost").await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        let (_, body) = fetch(server, "/api/v1/overview", "localhost").await;
        let overview: Overview = serde_json::from_str(&body).unwrap();
        assert_eq!(overview, Overview::default());
    }

    #[tokio::test]
    async fn so_many_tunnels_are_told_as_are_asked_for_within_bounds() {
        let server = server(Some(Report::default())).await;
        for (query, limit, filter) in [
            ("", 1_000, ""),
            ("?limit=200", 200, ""),
            ("?limit=2000&filter=tel%65kom+call", 2_000, "telekom call"),
        ] {
            let path = format!("/api/v1/tunnels{query}");
            let (head, body) = fetch(server, &path, "localhost").await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{query}: {head}");
            let length = format!("content-length: {}", body.len());
            assert!(head.contains(&length), "{query}: {head}");
            let tunnels: Tunnels = serde_json::from_str(&body).unwrap();
            let asked = (tunnels.found, tunnels.tunnels[0].operator.as_str());
            assert_eq!(asked, (limit, filter), "{query}");
        }
        let long = format!("filter={}", "x".repeat(FILTER_MAX + 1));
        for query in ["limit=2001", "limit=-1", "limit=all", "order=client", &long] {
            let path = format!("/api/v1/tunnels?{query}");
            let (head, _) = fetch(server, &path, "localhost").await;
            assert!(head.starts_with("HTTP/1.1 400 "), "{query}: {head}");
        }
    }

    /// The status of what is answered to what is written.
    async fn raw(server: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_whitespace().nth(1).unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_host_is_named_once_and_where_it_counts() {
        let server = server(Some(sample::report())).await;
        let closes = "Connection: close\r\n\r\n";
        for (lines, status) in [
            ("GET /healthz HTTP/1.0\r\n", "200"),
            ("GET /healthz HTTP/1.0\r\nHost: example.org\r\n", "421"),
            ("GET /healthz HTTP/1.1\r\n", "400"),
            (
                "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\n",
                "400",
            ),
            (
                "GET http://example.org/healthz HTTP/1.1\r\nHost: localhost\r\n",
                "421",
            ),
            (
                "GET http://localhost/healthz HTTP/1.1\r\nHost: example.org\r\n",
                "200",
            ),
        ] {
            assert_eq!(
                raw(server, &format!("{lines}{closes}")).await,
                status,
                "{lines}"
            );
        }
    }

    /// No more large answers are made at once than there are places, and whoever found none is told so.
    #[tokio::test]
    async fn large_answers_wait_for_each_other() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, mut requested) = Requests::channel();
        let hosts = Hosts {
            listen: [127, 0, 0, 1].into(),
            names: Vec::new(),
        };
        let router = router(requests, hosts, None);
        tokio::spawn(connections::serve(listener, router, Bounds::default()));
        let asks = |path: &'static str| tokio::spawn(fetch(address, path, "localhost"));
        let (first, second) = (asks("/api/v1/tunnels"), asks("/api/v1/tunnels?limit=1"));
        let mut askers = Vec::new();
        for _ in 0..LARGE {
            match requested.recv().await {
                Some(control::Request::Tunnels { asker, .. }) => askers.push(asker),
                other => panic!("{other:?}"),
            }
        }
        // Metrics have places of their own.
        let (third, scrape) = (asks("/api/v1/status"), asks("/metrics"));
        match requested.recv().await {
            Some(control::Request::Report { asker, .. }) => asker.send(sample::report()).unwrap(),
            other => panic!("{other:?}"),
        }
        let (head, _) = scrape.await.unwrap();
        assert!(head.contains(metrics::CONTENT_TYPE), "{head}");
        let (head, body) = third.await.unwrap();
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(body, "others are being answered: ask again\n");
        assert!(requested.try_recv().is_err(), "the loop was not asked");
        for asker in askers {
            asker.send(Tunnels::default()).unwrap();
        }
        for answered in [first, second] {
            let (head, _) = answered.await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
    }

    #[tokio::test]
    async fn clients_are_shown_on_loopback_or_with_the_token() {
        const TOKEN: &str = "0123456789abcdef0123456789abcdef";
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, TOKEN).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).unwrap();
        let token = || Some(Token::read(&path).unwrap());
        let wrong = TOKEN.replace('f', "e");
        for (listen, has_token, sent, expected) in [
            ([127, 0, 0, 1], false, None, "shown"),
            ([127, 0, 0, 1], true, None, "shown"),
            ([127, 0, 0, 1], true, Some(format!("Bearer {wrong}")), "401"),
            ([192, 0, 2, 1], false, None, "hashed"),
            (
                [192, 0, 2, 1],
                false,
                Some(format!("Bearer {TOKEN}")),
                "hashed",
            ),
            ([192, 0, 2, 1], true, None, "by_token"),
            (
                [192, 0, 2, 1],
                true,
                Some("Basic dXNlcjpwYXNz".into()),
                "by_token",
            ),
            (
                [192, 0, 2, 1],
                true,
                Some(format!("Bearer {TOKEN}")),
                "shown",
            ),
            (
                [192, 0, 2, 1],
                true,
                Some(format!("bearer  {TOKEN}")),
                "shown",
            ),
            ([192, 0, 2, 1], true, Some(format!("Bearer {wrong}")), "401"),
            ([192, 0, 2, 1], true, Some("Bearer ".into()), "401"),
            (
                [192, 0, 2, 1],
                true,
                Some(format!("Bearer {TOKEN}0")),
                "401",
            ),
        ] {
            let token = has_token.then(token).flatten();
            let server = server_with(Some(Report::default()), listen, token).await;
            let host = match &sent {
                Some(sent) => format!("localhost\r\nAuthorization: {sent}"),
                None => "localhost".to_owned(),
            };
            let (head, body) = fetch(server, "/api/v1/tunnels", &host).await;
            let (_, one) = fetch(server, "/api/v1/tunnels/0a", &host).await;
            let (_, status) = fetch(server, "/api/v1/status", &host).await;
            let case = format!("{listen:?} {has_token} {sent:?}: {head}\n{body}");
            let shows = body.contains("192.0.2.7") && one.contains("192.0.2.7");
            if expected == "401" {
                assert!(head.starts_with("HTTP/1.1 401 "), "{case}");
                assert!(head.contains("www-authenticate: Bearer "), "{case}");
                assert!(
                    !body.contains("client") && !one.contains("client"),
                    "{case}"
                );
                continue;
            }
            let tunnels: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(tunnels["clients"], expected, "{case}");
            assert_eq!(shows, expected == "shown", "{case}");
            assert_eq!(status.contains("192.0.2.8"), shows, "{case}\n{status}");
            // Nothing else asks for it.
            let (head, _) = fetch(server, "/metrics", &host).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
    }

    #[test]
    fn beyond_loopback_only_known_hosts_are_answered() {
        let hosts = |listen: &str| Hosts {
            listen: listen.parse().unwrap(),
            names: vec!["ap1.example.net".into()],
        };
        let asks = |hosts: &Hosts, host: &'static str| hosts.has(host.as_bytes());
        let one = hosts("192.0.2.1");
        for host in [
            "192.0.2.1:9817",
            "ap1.example.net",
            "localhost",
            "127.0.0.1",
        ] {
            assert!(asks(&one, host), "{host}");
        }
        for host in ["192.0.2.2", "example.net", "x.ap1.example.net"] {
            assert!(!asks(&one, host), "{host}");
        }
        let any = hosts("0.0.0.0");
        assert!(asks(&any, "192.0.2.2") && !asks(&any, "example.net"));
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let error = bind(address).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("listen on {address}"))
        );
        assert_eq!(
            error.downcast_ref::<io::Error>().unwrap().kind(),
            io::ErrorKind::AddrInUse
        );
    }
}
