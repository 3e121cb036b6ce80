//! Dialogues as a model reads them. In: messages and a tokenizer's chat template. Out: one text, and which parts of it the assistant
//! wrote.
//!
//! Templates are Jinja, as `tokenizer_config.json` or `chat_template.jinja` beside it has them, with what `transformers` gives them:
//! `messages`, `add_generation_prompt`, the special tokens, `raise_exception`, `strftime_now`, Python's methods of strings.

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, context};
use serde::Serialize;

use crate::{DataError, Role, TextTokenizer};

/// How dialogues are written where a tokenizer does not say it.
pub const PLAIN_TEMPLATE: &str = r"{% for message in messages %}{{ '### ' + message['role'] + '\n' + message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}";

/// Who writes the answers that are learned.
pub const ASSISTANT: &str = "assistant";

/// One message of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// Writes dialogues.
pub struct ChatTemplate {
    environment: Environment<'static>,
    begin: String,
    end: String,
    unknown: String,
    pad: String,
}

impl ChatTemplate {
    /// The tokenizer's own template, or [`PLAIN_TEMPLATE`].
    ///
    /// # Errors
    /// A template that is no Jinja.
    pub fn of(tokenizer: &TextTokenizer) -> Result<Self, DataError> {
        let template = tokenizer.chat_template().unwrap_or(PLAIN_TEMPLATE);
        let mut environment = Environment::new();
        // As transformers reads templates.
        let mut syntax = SyntaxConfig::builder();
        let syntax = syntax.trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(wrong)?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |reason: String| -> Result<String, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, reason))
            },
        );
        // A day that never changes: a text must not depend on when it is written.
        environment.add_function("strftime_now", |_: String| "1 January 2025".to_string());
        environment
            .add_template_owned("chat", template.to_string())
            .map_err(wrong)?;
        let spelled = |role| tokenizer.spelled(role).unwrap_or_default();
        Ok(Self {
            environment,
            begin: spelled(Role::Begin),
            end: spelled(Role::End),
            unknown: spelled(Role::Unknown),
            pad: spelled(Role::Pad),
        })
    }

    /// The text of a dialogue.
    ///
    /// - answers: whether the assistant is to go on
    ///
    /// # Errors
    /// A dialogue that the template refuses.
    pub fn render(&self, messages: &[Message], answers: bool) -> Result<String, DataError> {
        let Self {
            begin,
            end,
            unknown,
            pad,
            ..
        } = self;
        let template = self.environment.get_template("chat").map_err(wrong)?;
        let written = template.render(context! {
            messages => minijinja::Value::from(Serde(messages)),
            add_generation_prompt => answers,
            bos_token => begin,
            eos_token => end,
            unk_token => unknown,
            pad_token => pad,
        });
        written.map_err(wrong)
    }

    /// The text of a dialogue, and the bytes of what the assistant wrote: each answer with the end that the template gives it.
    ///
    /// # Errors
    /// A dialogue that the template refuses, or writes in another way once it goes on.
    pub fn answers(&self, messages: &[Message]) -> Result<(String, Vec<Range<usize>>), DataError> {
        let whole = self.render(messages, false)?;
        let mut ranges = Vec::new();
        for (at, message) in messages.iter().enumerate() {
            if message.role != ASSISTANT {
                continue;
            }
            let before = self.render(&messages[..at], true)?;
            let after = self.render(&messages[..=at], false)?;
            if !after.starts_with(&before) || !whole.starts_with(&after) {
                let reason = "the template writes a dialogue in another way once it goes on";
                return Err(DataError::ChatTemplate {
                    reason: reason.into(),
                });
            }
            ranges.push(before.len()..after.len());
        }
        Ok((whole, ranges))
    }
}

fn wrong(error: Error) -> DataError {
    // What a template itself says, without where it says it.
    let reason = match error.detail() {
        Some(detail) => detail.to_string(),
        None => error.to_string(),
    };
    let reason = reason.lines().next().unwrap_or_default().to_string();
    DataError::ChatTemplate { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() \
+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn message(role: &str, content: &str) -> Message {
        Message {
            role: role.into(),
            content: content.into(),
        }
    }

    fn template(source: Option<&str>) -> Result<ChatTemplate, DataError> {
        let tokenizer = TextTokenizer::train_bpe(&["a small bird"], 270).unwrap();
        ChatTemplate::of(&tokenizer.with_chat_template(source.map(String::from)))
    }

    #[test]
    fn answers_are_found_in_what_the_template_writes() {
        let dialogue = [
            message("user", "hi"),
            message("assistant", " yes "),
            message("user", "why"),
            message("assistant", "so"),
        ];
        let (text, ranges) = template(Some(CHATML)).unwrap().answers(&dialogue).unwrap();
        assert!(text.starts_with(
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        ));
        let parts: Vec<&str> = ranges.into_iter().map(|range| &text[range]).collect();
        assert_eq!(parts, ["yes<|im_end|>\n", "so<|im_end|>\n"]);
        let (text, ranges) = template(None).unwrap().answers(&dialogue[..2]).unwrap();
        assert_eq!(text, "### user\nhi\n### assistant\n yes <|endoftext|>\n");
        assert_eq!(&text[ranges[0].clone()], " yes <|endoftext|>\n");
    }

    #[test]
    fn what_a_template_refuses_is_a_sentence() {
        let refusing = "{{ raise_exception('roles must take turns') }}";
        let error = template(Some(refusing))
            .unwrap()
            .render(&[], false)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the chat template: roles must take turns"
        );
        let broken = template(Some("{% for %}")).err().unwrap().to_string();
        assert!(
            broken.starts_with("the chat template: ") && broken.lines().count() == 1,
            "{broken}"
        );
        let forgetful = "{{ messages | length }}{{ messages[-1]['content'] }}";
        let dialogue = [message("user", "hi"), message("assistant", "yes")];
        let error = template(Some(forgetful))
            .unwrap()
            .answers(&dialogue)
            .unwrap_err();
        assert!(error.to_string().ends_with("once it goes on"), "{error}");
    }
}
