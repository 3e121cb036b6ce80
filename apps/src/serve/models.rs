//! The models that are served. In: bundles by name. Out: what each can do, and a queue to its thread.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::bundle::Scores;
use model::{Bundle, HeadKind};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use train::{BackendName, Failure, FailureKind};

use super::Limits;
use super::failure::Refusal;
use super::job::{Asking, Job, Piece, Write};
use super::metrics::Metrics;
use super::queue::{Queue, Rejected};
use super::room::{Room, Rooms};
use super::worker::{Abilities, Worker};
use crate::embed::embedder;
use crate::task::{self, Opening, Reads};
use crate::{fill_mask, generate, open};

/// What a model can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ability {
    /// What its task says of rows.
    Predict,
    /// Words for masks.
    FillMask,
    /// Texts that go on.
    Complete,
    /// Answers in dialogues.
    Chat,
    /// Vectors.
    Embed,
    /// Why a class was chosen.
    Explain,
}

impl Ability {
    /// As `GET /v1/models` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::FillMask => "fill-mask",
            Self::Complete => "complete",
            Self::Chat => "chat",
            Self::Embed => "embed",
            Self::Explain => "explain",
        }
    }
}

/// A served model, without its weights: these are with its thread.
pub(super) struct Model {
    pub(super) name: String,
    pub(super) can: Vec<Ability>,
    pub(super) task: Option<&'static str>,
    pub(super) reads: Option<Reads>,
    pub(super) has_threshold: bool,
    /// Channels, height and width of images.
    pub(super) view: Option<[usize; 3]>,
    family: &'static str,
    classes: Vec<String>,
    max_length: Option<usize>,
    /// When it was opened, in seconds since 1970.
    created: u64,
    queue: Arc<Queue<Job>>,
    metrics: Arc<Metrics>,
    timeout: Duration,
}

impl Model {
    /// As `GET /v1/models` has it.
    pub(super) fn json(&self) -> Value {
        let can: Vec<_> = self.can.iter().map(|ability| ability.name()).collect();
        json!({
            "id": self.name, "object": "model", "created": self.created, "owned_by": "hearth",
            "task": self.task, "family": self.family, "reads": self.reads.map(read), "classes": self.classes,
            "can": can, "view": self.view, "max_length": self.max_length, "has_threshold": self.has_threshold,
        })
    }

    /// Refuses what the model cannot do.
    pub(super) fn require(&self, ability: Ability) -> Result<(), Refusal> {
        if self.can.contains(&ability) {
            return Ok(());
        }
        let can: Vec<_> = self.can.iter().map(|ability| ability.name()).collect();
        let (name, wanted) = (&self.name, ability.name());
        let can = can.join(", ");
        let message = format!("the model \"{name}\" cannot {wanted}; it can {can}");
        Err(Refusal {
            param: Some("model"),
            ..Refusal::bad(message)
        })
    }

    fn push(&self, job: Job) -> Result<(), Refusal> {
        self.queue.push(job).map_err(|rejected| match rejected {
            Rejected::Full => Refusal::full(),
            Rejected::Closed => Refusal::unavailable("the server is stopping"),
        })
    }

    /// Notes how many requests wait.
    pub(super) fn note_queue(&self) {
        self.metrics.set_queued(&self.name, self.queue.len());
    }

    /// What is answered where nothing comes of a request in time.
    pub(super) fn too_slow(&self) -> Refusal {
        let seconds = self.timeout.as_secs_f64();
        Refusal {
            code: Some("timeout"),
            ..Refusal::unavailable(format!("there was no answer within {seconds} s"))
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// - room: what the images of the question take
    pub(super) async fn ask<Q, A>(
        &self,
        question: Q,
        room: Option<Room>,
        job: impl FnOnce(Asking<Q, A>) -> Job,
    ) -> Result<A, Refusal> {
        let (asking, answer) = Asking::new(question, room);
        self.push(job(asking))?;
        answered(self.timeout, answer)
            .await
            .unwrap_or_else(|| Err(self.too_slow()))
    }

    /// Has a text written; its pieces come once its prompt is accepted.
    pub(super) async fn write(
        &self,
        job: impl FnOnce(mpsc::UnboundedSender<Result<Piece, Refusal>>) -> Write,
    ) -> Result<(usize, mpsc::UnboundedReceiver<Result<Piece, Refusal>>), Refusal> {
        let (sender, mut pieces) = mpsc::unbounded_channel();
        self.push(Job::Write(job(sender)))?;
        match tokio::time::timeout(self.timeout, pieces.recv()).await {
            Ok(Some(Ok(Piece::Begun { prompt_tokens }))) => Ok((prompt_tokens, pieces)),
            Ok(Some(Err(refusal))) => Err(refusal),
            Ok(Some(Ok(_)) | None) => Err(gone()),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// The most that is waited for an answer, or for more of a text.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// A model's thread that has ended.
pub(super) fn gone() -> Refusal {
    Refusal::broken("the model's thread has ended")
}

/// The answer; nothing where it takes too long.
async fn answered<A>(
    most: Duration,
    answer: oneshot::Receiver<Result<A, Refusal>>,
) -> Option<Result<A, Refusal>> {
    let answer = tokio::time::timeout(most, answer).await.ok()?;
    Some(answer.unwrap_or_else(|_| Err(gone())))
}

/// What rows are made of, as `GET /v1/models` has it.
fn read(reads: Reads) -> &'static str {
    match reads {
        Reads::Texts => "texts",
        Reads::Sentence => "sentence",
        Reads::Question => "question",
        Reads::Choices => "choices",
        Reads::Source => "source",
        Reads::Image => "image",
    }
}

/// All models that are served, opened, each on its own thread. The threads end when the last copy is dropped, or with
/// [`close`](Self::close).
#[derive(Clone)]
pub struct Models {
    all: Arc<All>,
}

struct All {
    models: Vec<Model>,
    metrics: Arc<Metrics>,
    rooms: Rooms,
}

impl Drop for All {
    fn drop(&mut self) {
        self.models.iter().for_each(|model| model.queue.close());
    }
}

impl Models {
    /// Opens models, by name. What a model is for is loaded at once; vectors and explanations are loaded when they are first
    /// asked for, beside it.
    ///
    /// # Errors
    ///
    /// No model or the same name twice, a model that cannot be served, weights that do not fit, or a backend without a device.
    pub fn open(
        backend: BackendName,
        named: Vec<(String, Bundle)>,
        limits: &Limits,
    ) -> Result<Self, Failure> {
        limits.check()?;
        if named.is_empty() {
            return Err(Failure::input("there is no model to serve"));
        }
        let mut names = HashSet::new();
        if let Some((twice, _)) = named.iter().find(|(name, _)| !names.insert(name.clone())) {
            return Err(Failure::input(format!(
                "two models are called \"{twice}\"; NAME=MODEL gives one another name"
            )));
        }
        let metrics = Metrics::new();
        let one = |(name, bundle)| start(backend, name, bundle, limits, &metrics);
        let models = named.into_iter().map(one).collect::<Result<_, _>>()?;
        let all = Arc::new(All {
            models,
            metrics,
            rooms: Rooms::new(),
        });
        Ok(Self { all })
    }

    /// The models, in the order of their names on the command line.
    pub(super) fn all(&self) -> &[Model] {
        &self.all.models
    }

    /// Figures of all.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.all.metrics
    }

    /// Memory for the images of requests.
    pub(super) fn rooms(&self) -> &Rooms {
        &self.all.rooms
    }

    /// The model of a name, which may be left out where there is one alone.
    pub(super) fn find(&self, name: Option<&str>) -> Result<&Model, Refusal> {
        let models = self.all();
        let names = || {
            let names: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
            names.join(", ")
        };
        match (name, models) {
            (None, [only]) => Ok(only),
            (None, _) => Err(Refusal::value(
                "model",
                format!("\"model\" is missing; there are {}", names()),
            )),
            (Some(name), _) => {
                let found = models.iter().find(|model| model.name == name);
                found.ok_or_else(|| Refusal {
                    param: Some("model"),
                    code: Some("model_not_found"),
                    ..Refusal::not_found(format!(
                        "there is no model of this name; there are {}",
                        names()
                    ))
                })
            }
        }
    }

    /// Takes no further work; what waits is still done.
    pub fn close(&self) {
        self.all().iter().for_each(|model| model.queue.close());
    }
}

/// Opens a model and starts its thread.
fn start(
    backend: BackendName,
    name: String,
    bundle: Bundle,
    limits: &Limits,
    metrics: &Arc<Metrics>,
) -> Result<Model, Failure> {
    let abilities = opened(backend, &bundle)?;
    let task = abilities.task.as_deref();
    let view = embedder::view(&bundle).ok().flatten();
    let view = view.map(|seen| {
        let [height, width] = seen.view.size;
        [seen.channels, height, width]
    });
    let is_image = !bundle.is_text();
    let queue = Arc::new(Queue::new(limits.queue));
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let model = Model {
        can: abilities_of(&bundle, &abilities),
        task: task.map(task::Task::name),
        reads: task
            .map(task::Task::reads)
            .or(is_image.then_some(Reads::Image)),
        has_threshold: task.is_some_and(task::Task::has_threshold),
        classes: task.map_or(Vec::new(), |task| task.classes().to_vec()),
        max_length: max_length(&bundle, &abilities),
        view,
        family: bundle.family().model_type,
        created: since.map_or(0, |since| since.as_secs()),
        queue: queue.clone(),
        metrics: metrics.clone(),
        timeout: limits.timeout,
        name,
    };
    if model.can.is_empty() {
        let (place, why) = (
            bundle.path().display(),
            open::command(&bundle, bundle.head()),
        );
        return Err(Failure::input(format!(
            "{place}: says nothing that is served; {why}"
        )));
    }
    let worker = Worker {
        bundle,
        backend,
        abilities,
        queue,
        limits: limits.clone(),
        metrics: metrics.of_model(&model.name),
    };
    let thread = thread::Builder::new().name(format!("model {}", model.name));
    thread.spawn(move || worker.run()).running()?;
    Ok(model)
}

/// Tokens of the longest text.
fn max_length(bundle: &Bundle, abilities: &Abilities) -> Option<usize> {
    let of_task = abilities.task.as_ref().and_then(|task| task.max_length());
    let of_writer = abilities.writer.as_ref().map(|writer| writer.positions());
    let found = of_task.or(of_writer);
    found.or_else(|| {
        let parts = bundle.is_text().then(|| open::text_parts(bundle).ok())?;
        Some(parts?.max_length)
    })
}

/// Opens what a model is for.
fn opened(backend: BackendName, bundle: &Bundle) -> Result<Abilities, Failure> {
    let mut abilities = Abilities::default();
    if has_task(bundle) {
        abilities.task = Some(task::open_on(backend, bundle, Opening::default())?);
    } else if bundle.is_text() && has_tokens(bundle) {
        if open::text_model(bundle)?.describe().causal {
            abilities.writer = Some(generate::stepwise::open_on(backend, bundle)?);
        } else {
            abilities.filler = Some(fill_mask::open_on(backend, bundle)?);
        }
    } else if embedder::view(bundle).is_ok() {
        abilities.embedder = Some(embedder::open_on(backend, bundle)?);
    }
    Ok(abilities)
}

fn has_task(bundle: &Bundle) -> bool {
    match bundle.head() {
        HeadKind::Classes
        | HeadKind::TokenClasses
        | HeadKind::Spans
        | HeadKind::Choices
        | HeadKind::Masks
        | HeadKind::Boxes => true,
        HeadKind::Tokens => bundle.family().is_of_two_texts(),
        HeadKind::Bare
        | HeadKind::SentencePairs
        | HeadKind::Replaced
        | HeadKind::Pixels
        | HeadKind::Variational
        | HeadKind::Codes
        | HeadKind::Patches => false,
    }
}

fn has_tokens(bundle: &Bundle) -> bool {
    matches!(bundle.head(), HeadKind::Tokens | HeadKind::SentencePairs)
        && bundle.require(HeadKind::Tokens).is_ok()
}

fn abilities_of(bundle: &Bundle, abilities: &Abilities) -> Vec<Ability> {
    let is_classifier = bundle.head() == HeadKind::Classes
        && matches!(
            bundle.scores(),
            Ok(Scores::OneLabel | Scores::SeveralLabels)
        );
    let writer = abilities.writer.as_ref();
    let all = [
        (Ability::Predict, abilities.task.is_some()),
        (Ability::FillMask, abilities.filler.is_some()),
        (Ability::Complete, writer.is_some()),
        (
            Ability::Chat,
            writer.is_some_and(|writer| writer.is_for_dialogues()),
        ),
        (Ability::Embed, embedder::view(bundle).is_ok()),
        (Ability::Explain, is_classifier),
    ];
    let can = all.into_iter().filter(|(_, can)| *can);
    can.map(|(ability, _)| ability).collect()
}
