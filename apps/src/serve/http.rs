//! Connections. In: a socket that listens, a router. Out: answers, until the server is told to stop.
//!
//! HTTP/1.1 alone. A client that sends its headers slowly, or too many of them, is cut off before a route sees it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::reader::TimedWrites;

/// Connections that are open at a time; others wait to be accepted.
const CONNECTIONS: usize = 1024;
/// Headers of a request.
const HEADERS: usize = 64;
/// Bytes of the headers of a request.
const HEADER_BYTES: usize = 32 << 10;
/// What is waited after a connection could not be accepted: there may be no file descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is done, and then until all that runs is answered, but no longer than `grace`.
///
/// - slowest: what the headers of a request may take, and what a client may read nothing for
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    slowest: Duration,
    grace: Duration,
    stop: impl Future<Output = ()>,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(slowest)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES);
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        // Pieces of a text are not to wait for more of them.
        stream.set_nodelay(true).ok();
        let service = TowerToHyperService::new(router.clone());
        let connection =
            builder.serve_connection(TokioIo::new(TimedWrites::new(stream, slowest)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // What goes wrong with one connection is of no account to others.
            connection.await.ok();
            drop(place);
        });
    }
    drop(listener);
    timeout(grace, graceful.shutdown()).await.ok();
}
