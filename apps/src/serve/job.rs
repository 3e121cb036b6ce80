//! What a model is asked to do. In: a handler's question. Out: a job for the model's thread, and where its answer comes.

use model::generate::Sampling;
use tokio::sync::{mpsc, oneshot};

use super::failure::Refusal;
use super::room::Room;
use crate::embed::embedder::Vectors;
use crate::explain::{Explanation, Method};
use crate::generate::End;
use crate::guess::Guess;
use crate::task::{Asked, Output, Row};

/// A question, and where its answer goes.
pub(super) struct Asking<Q, A> {
    pub(super) question: Q,
    pub(super) answer: oneshot::Sender<Result<A, Refusal>>,
    /// What its images take, kept until the answer.
    _room: Option<Room>,
}

impl<Q, A> Asking<Q, A> {
    /// The question, and where to wait for its answer.
    pub(super) fn new(
        question: Q,
        room: Option<Room>,
    ) -> (Self, oneshot::Receiver<Result<A, Refusal>>) {
        let (answer, receiver) = oneshot::channel();
        let asking = Self {
            question,
            answer,
            _room: room,
        };
        (asking, receiver)
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_left(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Rows of a task.
pub(super) struct Predict {
    pub(super) rows: Vec<Row>,
    pub(super) asked: Asked,
}

/// A text with masks in it.
pub(super) struct FillMask {
    pub(super) text: String,
    pub(super) top: usize,
}

/// A row whose class is explained.
pub(super) struct Explain {
    pub(super) row: Row,
    pub(super) method: Method,
    /// The likeliest without one.
    pub(super) class: Option<String>,
}

/// What a text begins with.
#[derive(Clone, Debug)]
pub(super) enum Prompt {
    Text(String),
    Dialogue(Vec<data::Message>),
}

/// A text to be written.
pub(super) struct Write {
    pub(super) prompt: Prompt,
    pub(super) max_tokens: usize,
    pub(super) sampling: Sampling,
    pub(super) stop: Vec<String>,
    pub(super) seed: u64,
    pub(super) pieces: mpsc::UnboundedSender<Result<Piece, Refusal>>,
}

/// What comes of a text that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Its prompt is accepted.
    Begun { prompt_tokens: usize },
    /// More text.
    Text(String),
    /// Nothing more comes.
    Done { tokens: usize, end: End },
}

/// What a model's thread does.
pub(super) enum Job {
    Predict(Asking<Predict, Vec<Output>>),
    FillMask(Asking<FillMask, Vec<Vec<Guess>>>),
    Embed(Asking<Vec<Row>, Vectors>),
    Explain(Asking<Explain, Explanation>),
    Write(Write),
}
