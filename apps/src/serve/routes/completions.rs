//! `POST /v1/completions` and `/v1/chat/completions`: texts that are written, whole or as they come.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as HttpBody, Frame};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::generate::End;
use crate::serve::Served;
use crate::serve::body::Read;
use crate::serve::failure::Refusal;
use crate::serve::job::{Piece, Write};
use crate::serve::models::{Ability, Model, gone};
use crate::serve::openai::{Order, Request};

type Pieces = UnboundedReceiver<Result<Piece, Refusal>>;

/// `POST /v1/completions`.
pub(super) async fn completions(
    State(served): State<Served>,
    Read(request): Read<Request>,
) -> Result<Response, Refusal> {
    write(&served, request, false).await
}

/// `POST /v1/chat/completions`.
pub(super) async fn chat_completions(
    State(served): State<Served>,
    Read(request): Read<Request>,
) -> Result<Response, Refusal> {
    write(&served, request, true).await
}

async fn write(served: &Served, request: Request, is_chat: bool) -> Result<Response, Refusal> {
    let model = served.models().find(request.model.as_deref())?;
    model.require(if is_chat {
        Ability::Chat
    } else {
        Ability::Complete
    })?;
    let order = request.order(is_chat, served.limits().max_tokens)?;
    let (is_streamed, includes_usage) = (order.is_streamed, order.includes_usage);
    let Order {
        prompt,
        max_tokens,
        sampling,
        stop,
        seed,
        ..
    } = order;
    let job = |pieces| Write {
        prompt,
        max_tokens,
        sampling,
        stop,
        seed,
        pieces,
    };
    let (prompt_tokens, pieces) = model.write(job).await?;
    let head = Head::new(&model.name, is_chat, prompt_tokens);
    if is_streamed {
        let events = Events {
            ready: VecDeque::from_iter(is_chat.then(|| head.begin())),
            pieces: Some(pieces),
            head,
            includes_usage,
        };
        let headers = [
            (CONTENT_TYPE, "text/event-stream"),
            (CACHE_CONTROL, "no-cache"),
        ];
        return Ok((headers, Body::new(events)).into_response());
    }
    let (text, tokens, end) = collected(pieces, model).await?;
    Ok(Json(head.whole(&text, tokens, end)).into_response())
}

/// The whole text, its number of tokens, and how it ended. It takes as long as it takes, while something comes of it.
async fn collected(mut pieces: Pieces, model: &Model) -> Result<(String, usize, End), Refusal> {
    let mut text = String::new();
    loop {
        let piece = tokio::time::timeout(model.timeout(), pieces.recv()).await;
        let piece = piece.map_err(|_| model.too_slow())?;
        match piece.ok_or_else(gone)?? {
            Piece::Text(piece) => text += &piece,
            Piece::Done { tokens, end } => return Ok((text, tokens, end)),
            Piece::Begun { .. } => {}
        }
    }
}

/// What all objects of an answer share.
struct Head {
    id: String,
    created: u64,
    model: String,
    is_chat: bool,
    prompt_tokens: usize,
}

impl Head {
    fn new(model: &str, is_chat: bool, prompt_tokens: usize) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let kind = if is_chat { "chatcmpl" } else { "cmpl" };
        Self {
            id: format!("{kind}-{:016x}", rand::random::<u64>()),
            created: since.map_or(0, |since| since.as_secs()),
            model: model.into(),
            is_chat,
            prompt_tokens,
        }
    }

    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices,
        })
    }

    fn usage(&self, tokens: usize) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens, "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
        })
    }

    fn whole(&self, text: &str, tokens: usize, end: End) -> Value {
        let reason = reason(end);
        let (kind, choice) = if self.is_chat {
            let message = json!({"role": "assistant", "content": text});
            let choice =
                json!({"index": 0, "message": message, "logprobs": null, "finish_reason": reason});
            ("chat.completion", choice)
        } else {
            let choice =
                json!({"index": 0, "text": text, "logprobs": null, "finish_reason": reason});
            ("text_completion", choice)
        };
        let mut object = self.object(kind, json!([choice]));
        object["usage"] = self.usage(tokens);
        object
    }

    /// The first event of a dialogue: who speaks.
    fn begin(&self) -> Bytes {
        event(&self.part(json!({"role": "assistant", "content": ""}), None))
    }

    /// A piece of text, or the end.
    fn piece(&self, text: &str, end: Option<End>) -> Bytes {
        event(&match (self.is_chat, end) {
            (true, None) => self.part(json!({"content": text}), None),
            (true, Some(end)) => self.part(json!({}), Some(end)),
            (false, end) => {
                let reason = end.map(reason);
                let choice =
                    json!({"index": 0, "text": text, "logprobs": null, "finish_reason": reason});
                self.object("text_completion", json!([choice]))
            }
        })
    }

    fn part(&self, delta: Value, end: Option<End>) -> Value {
        let reason = end.map(reason);
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason});
        self.object("chat.completion.chunk", json!([choice]))
    }

    /// The event without a choice that counts tokens.
    fn count(&self, tokens: usize) -> Bytes {
        let kind = if self.is_chat {
            "chat.completion.chunk"
        } else {
            "text_completion"
        };
        let mut object = self.object(kind, json!([]));
        object["usage"] = self.usage(tokens);
        event(&object)
    }
}

fn reason(end: End) -> &'static str {
    match end {
        End::EndToken | End::StopText => "stop",
        End::Length | End::Positions | End::Stopped => "length",
    }
}

/// A server-sent event; JSON has no line breaks of its own.
fn event(data: &Value) -> Bytes {
    format!("data: {data}\n\n").into()
}

/// A body of events. Whoever drops it ends the writing too.
struct Events {
    head: Head,
    /// Nothing more comes without it.
    pieces: Option<Pieces>,
    ready: VecDeque<Bytes>,
    includes_usage: bool,
}

impl Events {
    fn take(&mut self, piece: Result<Piece, Refusal>) {
        match piece {
            Ok(Piece::Begun { .. }) => {}
            Ok(Piece::Text(text)) => self.ready.push_back(self.head.piece(&text, None)),
            Ok(Piece::Done { tokens, end }) => {
                self.ready.push_back(self.head.piece("", Some(end)));
                if self.includes_usage {
                    self.ready.push_back(self.head.count(tokens));
                }
                self.ready
                    .push_back(Bytes::from_static(b"data: [DONE]\n\n"));
                self.pieces = None;
            }
            Err(refusal) => {
                self.ready.push_back(event(&refusal.json()));
                self.pieces = None;
            }
        }
    }
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let Some(pieces) = &mut self.pieces else {
                return Poll::Ready(None);
            };
            match pieces.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(piece) => self.take(piece.unwrap_or_else(|| Err(gone()))),
            }
        }
    }
}
