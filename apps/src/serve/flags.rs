//! The flags of `serve`. In: what somebody writes. Out: limits, a token, addresses, bundles by name.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use model::Bundle;
use train::{Failure, FailureKind};

use super::{Limits, Token};
use crate::open::{self, BackendFlag};

/// Holds the token where no file does.
const VARIABLE: &str = "HEARTH_TOKEN";

const EXAMPLES: &str = "\
Examples:
  apps serve runs/text-classification
  apps serve reviews=runs/text-classification runs/instruction-tuning --port 8000 --runs runs/
  apps serve runs/clm --adapter poems=runs/lora/model/adapter --host 0.0.0.0 --token-file token.txt
  curl http://127.0.0.1:8080/v1/predict -H 'Content-Type: application/json' -d '{\"inputs\": \"a small bird that sings\"}'";

/// Serve models over HTTP: JSON, OpenAI's endpoints, a page to try them and to watch runs
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    /// Bundles, Hugging Face directories, adapters, runs or the bundled wordnet-bert-nano, each also NAME=MODEL
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
    /// A LoRA adapter that requests choose by its name; it is merged with its base into a separate model; may be repeated
    #[arg(long, value_name = "NAME=DIR")]
    pub adapter: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub backend: BackendFlag,
    /// The address that is listened on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: String,
    /// The port; 0 is any that is free
    #[arg(long, value_name = "N", default_value = "8080")]
    pub port: u16,
    /// A file with the token that requests must show as Authorization: Bearer TOKEN [default: what HEARTH_TOKEN holds]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Let everybody ask who reaches an address that is not this machine's own
    #[arg(long, conflicts_with = "token_file")]
    pub no_token: bool,
    /// The most rows of a forward pass, and texts that are written at a time
    #[arg(long, value_name = "N", default_value = "32")]
    pub batch_size: usize,
    /// Milliseconds that a batch waits for more rows
    #[arg(long, value_name = "MS", default_value = "2")]
    pub batch_wait_ms: u64,
    /// Requests that may wait for a model; more are answered 429
    #[arg(long, value_name = "N", default_value = "256")]
    pub queue: usize,
    /// Inputs that a request may hold
    #[arg(long, value_name = "N", default_value = "256")]
    pub max_inputs: usize,
    /// Tokens that an answer may have; a request for more gets as many
    #[arg(long, value_name = "N", default_value = "4096")]
    pub max_tokens: usize,
    /// Bytes that a request may have
    #[arg(long, value_name = "N", default_value = "8388608")]
    pub max_body_bytes: usize,
    /// Seconds that headers, a body, and an answer may take each; of a text that is written, each piece
    #[arg(long, value_name = "S", default_value = "30")]
    pub timeout_s: f64,
    /// A folder of runs that the page shows
    #[arg(long, value_name = "DIR")]
    pub runs: Option<PathBuf>,
}

impl Flags {
    pub(super) fn limits(&self) -> Result<Limits, Failure> {
        let timeout = Duration::try_from_secs_f64(self.timeout_s);
        let seconds = self.timeout_s;
        Ok(Limits {
            batch_size: self.batch_size,
            batch_wait: Duration::from_millis(self.batch_wait_ms),
            queue: self.queue,
            inputs: self.max_inputs,
            max_tokens: self.max_tokens,
            body_bytes: self.max_body_bytes,
            timeout: timeout.map_err(|_| {
                Failure::input(format!("--timeout-s is {seconds}; it must be above 0"))
            })?,
        })
    }

    /// That of the file, or of the environment.
    pub(super) fn token(&self) -> Result<Option<Token>, Failure> {
        if let Some(path) = &self.token_file {
            return Token::read(path).map(Some);
        }
        match std::env::var(VARIABLE) {
            Ok(text) if !self.no_token => {
                let token = Token::new(&text);
                let token = token.map_err(|error| Failure::input(format!("{VARIABLE}: {error}")));
                token.map(Some)
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// What is listened on: this machine's own addresses alone, unless somebody knows who may ask.
    pub(super) fn addresses(&self, has_token: bool) -> Result<Vec<SocketAddr>, Failure> {
        let Self { host, port, .. } = self;
        let found = (host.as_str(), *port).to_socket_addrs();
        let found: Vec<SocketAddr> = found.with_context(|| host.clone()).input()?.collect();
        let is_own = found.iter().all(|address| address.ip().is_loopback());
        if is_own || has_token || self.no_token {
            return Ok(found);
        }
        Err(Failure::input(format!(
            "--host {host} can be reached from other machines; --token-file names a token that requests must show, and \
             --no-token lets everybody ask"
        )))
    }
}

/// Bundles with the names that requests choose them by.
pub(super) fn named(
    models: &[String],
    adapters: &[String],
) -> Result<Vec<(String, Bundle)>, Failure> {
    let mut all = Vec::new();
    for model in models {
        // A folder may have the sign in its name.
        let split = model.split_once('=').filter(|_| !Path::new(model).exists());
        let (name, place) = match split {
            Some((name, place)) => (name.to_string(), place),
            None => (last_part(model), model.as_str()),
        };
        all.push((name, place));
    }
    for adapter in adapters {
        let (name, place) = adapter.split_once('=').ok_or_else(|| {
            Failure::input(format!("--adapter {adapter}: has no name; write NAME=DIR"))
        })?;
        all.push((name.into(), place));
    }
    let mut seen = HashMap::new();
    for (name, place) in &all {
        if name.is_empty() {
            return Err(Failure::input(format!("{place}: its name is empty")));
        }
        if let Some(other) = seen.insert(name.as_str(), *place) {
            return Err(Failure::input(format!(
                "{other} and {place} are both called \"{name}\"; NAME=MODEL gives one another name"
            )));
        }
    }
    let open = |(name, place): (String, &str)| Ok((name, open::bundle(place)?));
    all.into_iter().map(open).collect()
}

/// What a path ends in.
fn last_part(path: &str) -> String {
    let last = Path::new(path).file_name();
    last.map_or_else(|| path.into(), |last| last.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_names_of_their_own() {
        let names = |models: &[&str], adapters: &[&str]| {
            let of = |all: &[&str]| all.iter().map(|one| one.to_string()).collect::<Vec<_>>();
            let all = named(&of(models), &of(adapters));
            all.map(|all| all.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
                .map_err(|failure| failure.to_string())
        };
        let bundled = "wordnet-bert-nano";
        let other = format!("other={bundled}");
        assert_eq!(
            names(&[bundled, &other], &[]).unwrap(),
            ["wordnet-bert-nano", "other"]
        );
        assert!(
            names(&[bundled], &[bundled])
                .unwrap_err()
                .ends_with("write NAME=DIR")
        );
        assert!(
            names(&[&other, &other], &[])
                .unwrap_err()
                .contains("both called \"other\"")
        );
        assert!(
            names(&["=a"], &[])
                .unwrap_err()
                .ends_with("its name is empty")
        );
    }
}
