//! `serve`: models over HTTP, for programs and for people. In: models, requests. Out: what they say, as JSON, as events, as a page.
//!
//! Reading order: this file (what is served, and to whom), `flags`, `models` (what each can do), `job` and `queue` (what waits for a model),
//! `worker` (how a model's thread does it), `routes` (the endpoints), `openai` (what texts are written by), `input` and `body`
//! (what requests hold), `failure` (what they get where there is no answer), `room` (memory for images),
//! `token`, `host`, `metrics`, `openapi`, `page`, `http` and `reader` (connections).
//!
//! A thread owns a model; threads of tokio serve connections and wait. Requests of the same kind share forward
//! passes; texts that are written do so token by token, and join and leave between two.

mod body;
mod failure;
mod flags;
mod host;
mod http;
mod input;
mod job;
mod metrics;
mod models;
mod openai;
mod openapi;
mod page;
mod queue;
mod reader;
mod room;
mod routes;
mod token;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tower_http::catch_panic::CatchPanicLayer;
use train::ui::print;
use train::{Failure, FailureKind};

use self::failure::Refusal;
pub use self::flags::Flags;
use self::flags::named;
pub use self::models::Models;
pub use self::page::page;
pub use self::token::Token;

/// What is waited for answers once the server is told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// The longest that a batch may wait for more rows.
const MOST_WAIT: Duration = Duration::from_secs(60);
/// Threads that serve connections; models have their own.
const THREADS: usize = 2;
/// How much is taken in, and how it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The most rows of a forward pass, and texts that are written at a time.
    pub batch_size: usize,
    /// What a batch waits for more rows.
    pub batch_wait: Duration,
    /// Requests that may wait for a model.
    pub queue: usize,
    /// Inputs that a request may hold.
    pub inputs: usize,
    /// Tokens that an answer may have.
    pub max_tokens: usize,
    /// Bytes that the body of a request may have.
    pub body_bytes: usize,
    /// What a body and what an answer may take; of a text that is written, each piece.
    pub timeout: Duration,
}

impl Default for Limits {
    /// Those of the command line.
    fn default() -> Self {
        Self {
            batch_size: 32,
            batch_wait: Duration::from_millis(2),
            queue: 256,
            inputs: 256,
            max_tokens: 4096,
            body_bytes: 8 << 20,
            timeout: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Says which of them lets nothing through.
    ///
    /// # Errors
    ///
    /// A limit of 0.
    pub fn check(&self) -> Result<(), Failure> {
        let counts = [
            ("--batch-size", self.batch_size),
            ("--queue", self.queue),
            ("--max-inputs", self.inputs),
            ("--max-tokens", self.max_tokens),
            ("--max-body-bytes", self.body_bytes),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Failure::input(format!(
                "{name} is 0; it must be at least 1"
            )));
        }
        if self.batch_wait > MOST_WAIT {
            let most = MOST_WAIT.as_millis();
            return Err(Failure::input(format!(
                "--batch-wait-ms is more than {most}"
            )));
        }
        if self.timeout.is_zero() {
            return Err(Failure::input("--timeout-s is 0; it must be above 0"));
        }
        Ok(())
    }
}

/// What is served, and to whom.
pub struct Server {
    /// The models.
    pub models: Models,
    /// How much is taken in.
    pub limits: Limits,
    /// What requests must show.
    pub token: Option<Token>,
    /// A folder of runs to watch.
    pub runs: Option<PathBuf>,
    /// The name that this machine is asked by, beside `localhost` and its addresses; without one every name is answered.
    pub own_name: Option<String>,
    is_stopping: Arc<AtomicBool>,
}

impl Server {
    /// Models for everybody, without runs.
    pub fn new(models: Models, limits: Limits) -> Self {
        Self {
            models,
            limits,
            token: None,
            runs: None,
            own_name: None,
            is_stopping: Arc::default(),
        }
    }

    /// The endpoints; [`page()`] is apart, so that another program can have its own.
    pub fn router(self) -> Router {
        let served = Served(Arc::new(self));
        let (open, closed): (Vec<_>, Vec<_>) =
            routes::all().into_iter().partition(|route| route.is_open);
        let add =
            |router: Router<Served>, route: routes::Route| router.route(route.path, route.handler);
        let closed = closed.into_iter().fold(Router::new(), add);
        let closed = closed.layer(from_fn_with_state(served.clone(), token::check));
        let all = open.into_iter().fold(closed, add);
        all.method_not_allowed_fallback(wrong_method)
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn_with_state(served.clone(), host::check))
            .layer(from_fn_with_state(served.clone(), observe))
            .with_state(served)
    }
}

/// The endpoints of models, for everybody who reaches them, to be merged into the router of another program.
pub fn router(models: Models, limits: Limits) -> Router {
    Server::new(models, limits).router()
}

/// What all handlers share.
#[derive(Clone)]
struct Served(Arc<Server>);

impl Served {
    fn models(&self) -> &Models {
        &self.0.models
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn token(&self) -> Option<&Token> {
        self.0.token.as_ref()
    }

    fn runs(&self) -> Option<&Path> {
        self.0.runs.as_deref()
    }

    fn own_name(&self) -> Option<&str> {
        self.0.own_name.as_deref()
    }

    fn is_stopping(&self) -> bool {
        self.0.is_stopping.load(Ordering::Relaxed)
    }
}

/// Counts each answer.
async fn observe(State(served): State<Served>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let metrics = served.models().metrics();
    metrics.answered(route, response.status().as_u16(), began.elapsed());
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A handler that broke down; the next request meets a new one.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Refusal::broken("the server broke down over this request").into_response()
}

async fn wrong_method() -> Refusal {
    let message = "this path is not asked by this method";
    Refusal::of(StatusCode::METHOD_NOT_ALLOWED, message)
}

async fn unknown_path() -> Refusal {
    Refusal::not_found("there is nothing at this path; /openapi.json says what there is")
}

/// Serves what the flags name until it is told to stop, by Ctrl-C or by SIGTERM.
///
/// # Errors
///
/// A model that cannot be served, an address that cannot be listened on, or one that everybody reaches without a token.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let limits = flags.limits()?;
    limits.check()?;
    let token = flags.token()?;
    let addresses = flags.addresses(token.is_some())?;
    if let Some(runs) = flags.runs.as_ref().filter(|runs| !runs.is_dir()) {
        let runs = runs.display();
        return Err(Failure::input(format!("{runs}: no such folder")));
    }
    let backend = flags.backend.choose()?;
    let named = named(&flags.models, &flags.adapter)?;
    let models = Models::open(backend, named, &limits)?;
    let is_own = addresses.iter().all(|address| address.ip().is_loopback());
    let server = Server {
        own_name: (is_own && token.is_none()).then(|| flags.host.clone()),
        token,
        runs: flags.runs.clone(),
        ..Server::new(models.clone(), limits.clone())
    };
    let is_stopping = server.is_stopping.clone();
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(THREADS).enable_all().build();
    let runtime = runtime.running()?;
    let served = runtime.block_on(async {
        let listener = TcpListener::bind(addresses.as_slice()).await;
        let listener = listener
            .with_context(|| format!("{}:{}", flags.host, flags.port))
            .input()?;
        let stop = stop_signal(is_stopping)?;
        let address = listener.local_addr().running()?;
        print(&format!("listening on http://{address}\n"))?;
        let router = server.router().merge(page()).fallback(unknown_path);
        http::serve(listener, router, limits.timeout, GRACE, stop).await;
        Ok(())
    });
    models.close();
    // Reads of files that nobody waits for do not keep the process.
    runtime.shutdown_background();
    served.map(|()| String::new())
}

/// Done once the process is asked to stop.
fn stop_signal(is_stopping: Arc<AtomicBool>) -> Result<impl Future<Output = ()>, Failure> {
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).running()?
    };
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await.ok();
        is_stopping.store(true, Ordering::Relaxed);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_description() {
        let document = openapi::document(&routes::all());
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), routes::all().len());
        for route in routes::all() {
            let method = if route.is_post { "post" } else { "get" };
            assert!(paths[route.path][method].is_object(), "{}", route.path);
        }
    }
}
