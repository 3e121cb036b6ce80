//! What OpenAI's clients send to have texts written. In: their JSON. Out: a checked job, or why there is none.

use data::Message;
use model::generate::Sampling;
use serde::Deserialize;
use serde_json::Value;

use super::failure::Refusal;
use super::job::Prompt;

/// Tokens of a completion, as OpenAI has it.
const COMPLETION_TOKENS: usize = 16;
/// Texts to stop before.
const MOST_STOPS: usize = 16;
/// Messages of a dialogue.
const MOST_MESSAGES: usize = 1024;

/// What both endpoints read; keys that say nothing of what is written (`user`, `store`, ...) are of no account.
#[derive(Deserialize)]
pub(super) struct Request {
    pub(super) model: Option<String>,
    prompt: Option<Value>,
    messages: Option<Vec<ChatMessage>>,
    #[serde(alias = "max_completion_tokens")]
    max_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    stop: Option<Texts>,
    seed: Option<i64>,
    n: Option<u64>,
    best_of: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    // What changes the answer and is not there: refused, so that nobody takes it for done.
    echo: Option<Value>,
    suffix: Option<Value>,
    logprobs: Option<Value>,
    logit_bias: Option<Value>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    tools: Option<Value>,
    response_format: Option<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// One text, or a list of them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "stop must be a text or a list of texts")]
enum Texts {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    content: Content,
}

/// A text, or a list of parts, those of text.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "the content of a message must be a text or a list of parts"
)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

/// What is to be written, and how it is told.
pub(super) struct Order {
    pub(super) prompt: Prompt,
    pub(super) max_tokens: usize,
    pub(super) sampling: Sampling,
    pub(super) stop: Vec<String>,
    pub(super) seed: u64,
    pub(super) is_streamed: bool,
    pub(super) includes_usage: bool,
}

impl Request {
    /// Checks all.
    ///
    /// - is_chat: whether messages are read, else a prompt
    /// - most: tokens that a text may have; more are not an error, they are just not written
    pub(super) fn order(self, is_chat: bool, most: usize) -> Result<Order, Refusal> {
        self.check_absent()?;
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(0),
            ..Sampling::default()
        };
        sampling.check().map_err(|reason| {
            let param = if reason.starts_with("top_p") {
                "top_p"
            } else {
                "temperature"
            };
            Refusal::value(param, reason)
        })?;
        let stop = match self.stop {
            None => Vec::new(),
            Some(Texts::One(text)) => vec![text],
            Some(Texts::Several(texts)) => texts,
        };
        if stop.len() > MOST_STOPS || stop.iter().any(String::is_empty) {
            let message = format!("stop must be at most {MOST_STOPS} texts, none of them empty");
            return Err(Refusal::value("stop", message));
        }
        if self.max_tokens == Some(0) {
            let message = "max_tokens is 0; it must be at least 1";
            return Err(Refusal::value("max_tokens", message));
        }
        let usual = if is_chat { most } else { COMPLETION_TOKENS };
        let stream = self.stream_options;
        Ok(Order {
            prompt: if is_chat {
                dialogue(self.messages)?
            } else {
                prompt(self.prompt)?
            },
            max_tokens: self.max_tokens.unwrap_or(usual).min(most),
            sampling,
            stop,
            // Without a seed each answer is another one.
            seed: match self.seed {
                Some(seed) => seed.cast_unsigned(),
                None => rand::random(),
            },
            is_streamed: self.stream.unwrap_or(false),
            includes_usage: stream.and_then(|one| one.include_usage).unwrap_or(false),
        })
    }

    /// Refuses what is asked for and not done.
    fn check_absent(&self) -> Result<(), Refusal> {
        let is_set = |value: &Option<Value>| match value {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(all)) => !all.is_empty(),
            Some(Value::Object(all)) => !all.is_empty(),
            Some(Value::Bool(true) | Value::Number(_) | Value::String(_)) => true,
        };
        let is_text =
            |value: &Option<Value>| value.as_ref().is_some_and(|one| one["type"] == "text");
        let above_one = |value: Option<u64>| value.is_some_and(|n| n != 1);
        let not_zero = |value: Option<f64>| value.is_some_and(|penalty| penalty != 0.0);
        let absent = [
            ("n", above_one(self.n)),
            ("best_of", above_one(self.best_of)),
            ("echo", is_set(&self.echo)),
            ("suffix", is_set(&self.suffix)),
            ("logprobs", is_set(&self.logprobs)),
            ("logit_bias", is_set(&self.logit_bias)),
            ("frequency_penalty", not_zero(self.frequency_penalty)),
            ("presence_penalty", not_zero(self.presence_penalty)),
            ("tools", is_set(&self.tools)),
            (
                "response_format",
                is_set(&self.response_format) && !is_text(&self.response_format),
            ),
        ];
        match absent.into_iter().find(|(_, is_asked)| *is_asked) {
            Some((param, _)) => Err(Refusal::value(
                param,
                format!("{param} is not supported here; leave it out"),
            )),
            None => Ok(()),
        }
    }
}

fn prompt(prompt: Option<Value>) -> Result<Prompt, Refusal> {
    let text = match prompt {
        Some(Value::String(text)) => Some(text),
        Some(Value::Array(mut all)) if all.len() == 1 => match all.remove(0) {
            Value::String(text) => Some(text),
            _ => None,
        },
        _ => None,
    };
    text.map(Prompt::Text)
        .ok_or_else(|| Refusal::value("prompt", "prompt must be one text; token ids are not read"))
}

fn dialogue(messages: Option<Vec<ChatMessage>>) -> Result<Prompt, Refusal> {
    let wrong = |message: String| Err(Refusal::value("messages", message));
    let messages = messages.unwrap_or_default();
    if messages.is_empty() || messages.len() > MOST_MESSAGES {
        return wrong(format!("messages must be a list of 1 to {MOST_MESSAGES}"));
    }
    let mut all = Vec::with_capacity(messages.len());
    for message in messages {
        let role = match message.role.as_str() {
            // OpenAI's newer name.
            "system" | "developer" => "system",
            "user" => "user",
            "assistant" => "assistant",
            _ => return wrong("a role must be system, user or assistant".into()),
        };
        let content = match message.content {
            Content::Text(text) => text,
            Content::Parts(parts) => {
                let texts: Option<Vec<String>> = parts
                    .into_iter()
                    .map(|part| part.text.filter(|_| part.kind == "text"))
                    .collect();
                match texts {
                    Some(texts) => texts.concat(),
                    None => return wrong("a part of a message must be of the type text".into()),
                }
            }
        };
        all.push(Message {
            role: role.into(),
            content,
        });
    }
    Ok(Prompt::Dialogue(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn order(value: Value, is_chat: bool) -> Result<Order, Refusal> {
        let request: Request = serde_json::from_value(value).unwrap();
        request.order(is_chat, 100)
    }

    #[test]
    fn lengths_have_a_limit_and_a_default() {
        let tokens = |value, is_chat| order(value, is_chat).unwrap().max_tokens;
        assert_eq!(tokens(json!({"prompt": "a"}), false), 16);
        assert_eq!(
            tokens(json!({"prompt": "a", "max_tokens": 1e6 as u64}), false),
            100
        );
        let messages = json!([{"role": "user", "content": "a"}]);
        assert_eq!(tokens(json!({"messages": messages}), true), 100);
        assert_eq!(
            tokens(
                json!({"messages": messages, "max_completion_tokens": 7}),
                true
            ),
            7
        );
    }

    #[test]
    fn parts_of_messages_are_joined() {
        let parts = json!([{"type": "text", "text": "a "}, {"type": "text", "text": "wren"}]);
        let order = order(
            json!({"messages": [{"role": "developer", "content": parts}]}),
            true,
        );
        let Prompt::Dialogue(messages) = order.unwrap().prompt else {
            panic!("no dialogue");
        };
        assert_eq!(
            (messages[0].role.as_str(), messages[0].content.as_str()),
            ("system", "a wren")
        );
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (key, value) in [
            ("n", json!(2)),
            ("echo", json!(true)),
            ("logprobs", json!(5)),
            ("presence_penalty", json!(0.5)),
            ("tools", json!([{}])),
            ("response_format", json!({"type": "json_object"})),
            ("temperature", json!(-1)),
            ("top_p", json!(2)),
            ("stop", json!("")),
            ("max_tokens", json!(0)),
            ("prompt", json!([1, 2])),
        ] {
            let mut request = json!({"prompt": "a"});
            request[key] = value;
            let refusal = order(request, false).err().unwrap();
            assert_eq!((refusal.status.as_u16(), refusal.param), (422, Some(key)));
        }
        let harmless = json!({
            "prompt": ["a"], "n": 1, "echo": false, "logprobs": null, "tools": [], "user": "x",
            "response_format": {"type": "text"}, "frequency_penalty": 0,
        });
        assert!(order(harmless, false).is_ok());
    }
}
