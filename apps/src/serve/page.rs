//! The page at `/`, to try models and to watch runs. In: the files of `page/`. Out: them, with what a browser must know.
//!
//! Nothing of it comes from elsewhere, and the policy says so.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::routing::get;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// A path, its type and its text.
type File = (&'static str, &'static str, &'static str);

macro_rules! scripts {
    ($($name:literal),* $(,)?) => {
        [$((concat!("/page/", $name), JS, include_str!(concat!("page/", $name)))),*]
    };
}

const START: File = ("/", HTML, include_str!("page/index.html"));
const STYLE: File = ("/page/style.css", CSS, include_str!("page/style.css"));
const SCRIPTS: [File; 18] = scripts![
    "page.js",
    "place.js",
    "dom.js",
    "api.js",
    "trying.js",
    "bench.js",
    "inputs.js",
    "picture.js",
    "results.js",
    "overlay.js",
    "explaining.js",
    "writing.js",
    "chatting.js",
    "filling.js",
    "embedding.js",
    "runs.js",
    "run_parts.js",
    "curves.js",
];

/// The routes of the page: `/` and what is under `/page/`. It asks for a token itself where the server has one.
pub fn page<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let files = [START, STYLE].into_iter().chain(SCRIPTS);
    files.fold(Router::new(), |router, (path, kind, text)| {
        let headers = [
            (CONTENT_TYPE, kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            // A new version of the program has a new page.
            (CACHE_CONTROL, "no-cache"),
        ];
        router.route(path, get(move || async move { (headers, text) }))
    })
}
