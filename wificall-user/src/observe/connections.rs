//! Connections of HTTP, and how much of it there may be at once: the agent's loop runs beside it, on one CPU.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::IntoResponse,
};
use futures_util::stream;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

/// Bytes of a connection that are kept at most, of what is read and of what is to be written.
const BUFFER: usize = 64 * 1024;
/// Bytes that a body goes to its connection by.
const PART: usize = 32 * 1024;

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at a time; further ones wait to be taken.
    pub connections: usize,
    /// Within this a request's head has come, or the connection ends: also where another request is waited for.
    pub head: Duration,
    /// How long a connection takes requests. A browser opens another one, and whoever reads slowly makes room.
    pub life: Duration,
    /// How long it may take after that until the last answer has been read.
    pub end: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(20),
            life: Duration::from_secs(60),
            end: Duration::from_secs(15),
        }
    }
}

/// Serves connections until dropped.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    // It is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    converse(stream, router, bounds).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others have to end first.
                warn!("accept a connection of HTTP: {error}");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, router: Router, bounds: Bounds) {
    let service = TowerToHyperService::new(router);
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = match timeout(bounds.life, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            match timeout(bounds.end, connection).await {
                Ok(ended) => ended,
                Err(_) => return debug!("a connection of HTTP that is not read is cut"),
            }
        }
    };
    if let Err(error) = ended {
        debug!("connection of HTTP: {error}");
    }
}

/// A body that keeps its place among the large ones until the last of it is with its connection.
pub(super) fn body(bytes: Vec<u8>, place: OwnedSemaphorePermit) -> impl IntoResponse {
    let length = HeaderValue::from(bytes.len());
    let parts = stream::unfold((Bytes::from(bytes), place), async |(mut left, place)| {
        if left.is_empty() {
            return None;
        }
        let part = left.split_to(left.len().min(PART));
        Some((Ok::<_, Infallible>(part), (left, place)))
    });
    ([(header::CONTENT_LENGTH, length)], Body::from_stream(parts))
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Instant};

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Longer than a test may take.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(100);
    const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    async fn server(router: Router, bounds: Bounds) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, router, bounds));
        address
    }

    fn word() -> Router {
        Router::new().route("/", get(async || "word"))
    }

    fn lasting() -> Bounds {
        Bounds {
            connections: 4,
            head: LONG,
            life: LONG,
            end: LONG,
        }
    }

    async fn asked(server: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(QUESTION).await.unwrap();
        stream
    }

    async fn word_comes(stream: &mut TcpStream) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"word") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
    }

    /// Until the other end has closed it.
    async fn closes(stream: &mut TcpStream) {
        let mut rest = Vec::new();
        // A reset ends it as well.
        let _ = timeout(LONG / 2, stream.read_to_end(&mut rest))
            .await
            .expect("it is closed");
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_and_a_connection_without_requests_are_closed() {
        let bounds = Bounds {
            head: SHORT,
            ..lasting()
        };
        let server = server(word(), bounds).await;
        let mut torn = TcpStream::connect(server).await.unwrap();
        torn.write_all(&QUESTION[..20]).await.unwrap();
        closes(&mut torn).await;
        let mut idle = asked(server).await;
        word_comes(&mut idle).await;
        closes(&mut idle).await;
    }

    #[tokio::test]
    async fn further_connections_wait_until_another_ends() {
        let bounds = Bounds {
            connections: 1,
            ..lasting()
        };
        let server = server(word(), bounds).await;
        let mut first = asked(server).await;
        word_comes(&mut first).await;
        let mut second = asked(server).await;
        assert!(timeout(SHORT, second.readable()).await.is_err(), "it waits");
        drop(first);
        word_comes(&mut second).await;
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_and_gives_its_place_back() {
        const LARGE: usize = 64 * 1024 * 1024;
        let places = Arc::new(Semaphore::new(1));
        let of = places.clone();
        let large = async move || {
            let place = of.clone().acquire_owned().await.unwrap();
            body(vec![b'x'; LARGE], place)
        };
        let bounds = Bounds {
            life: SHORT,
            end: SHORT,
            ..lasting()
        };
        let server = server(Router::new().route("/", get(large)), bounds).await;
        let start = Instant::now();
        let mut slow = asked(server).await;
        slow.readable().await.unwrap();
        assert_eq!(places.available_permits(), 0, "the answer goes on");
        let again = timeout(LONG / 2, places.acquire()).await;
        assert!(again.is_ok() && start.elapsed() >= SHORT);
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
        assert!(rest.len() < LARGE, "it was cut");
    }
}
