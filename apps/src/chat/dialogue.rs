//! A dialogue as a decoder reads it. In: messages of a user. Out: an answer to each, as it is written.
//!
//! What the model has read is not read again where the dialogue goes on from it.

use burn::prelude::Backend;
use data::chat::ASSISTANT;
use data::{ChatTemplate, Message};
use model::generate::Continuation;
use train::Failure;

use crate::generate::{End, Generator, Rules};

/// Of the model's positions at most one in so many is kept free for an answer.
const ANSWER_SHARE: usize = 4;

/// Messages and answers so far.
pub struct Dialogue<'a, B: Backend> {
    generator: &'a Generator<B>,
    template: ChatTemplate,
    system: Option<Message>,
    /// A message and its answer each.
    turns: Vec<[Message; 2]>,
    /// The dialogue as the model has read it.
    text: Option<Continuation<'a, B>>,
    /// Tokens that were chosen so far.
    chosen: u64,
}

/// A message that is to be answered.
#[derive(Clone, Debug)]
pub struct Question {
    message: Message,
    prompt: Vec<u32>,
    /// The oldest turns, for which the model has no positions left.
    pub forgotten: usize,
}

/// An answer that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub text: String,
    /// How it ended.
    pub end: End,
    /// Tokens of the dialogue before it that did not have to be read again.
    pub kept: usize,
}

impl<'a, B: Backend> Dialogue<'a, B> {
    /// A dialogue without a message.
    ///
    /// - system: the system message, which begins the dialogue
    ///
    /// # Errors
    ///
    /// A tokenizer without a chat template, or with one that cannot be used, such as one that refuses a system message.
    pub fn new(generator: &'a Generator<B>, system: Option<&str>) -> Result<Self, Failure> {
        let tokenizer = generator.tokenizer();
        if tokenizer.chat_template().is_none() {
            return Err(Failure::input(
                "the tokenizer has no chat template, so the model is not for dialogues; apps generate continues texts",
            ));
        }
        let dialogue = Self {
            generator,
            template: ChatTemplate::of(tokenizer)?,
            system: system.map(|text| message("system", text)),
            turns: Vec::new(),
            text: None,
            chosen: 0,
        };
        // Refused before anybody writes a message.
        dialogue.prompt(0, &message("user", "hello"))?;
        Ok(dialogue)
    }

    /// Forgets all messages; the same ones get the same answers again.
    pub fn reset(&mut self) {
        self.turns.clear();
        self.chosen = 0;
    }

    /// Prepares the answer to a message.
    ///
    /// - max_tokens: of the answer
    ///
    /// # Errors
    ///
    /// A message for which the model has too few positions, or a dialogue that the template refuses; nothing is forgotten then.
    pub fn ask(&self, text: &str, max_tokens: usize) -> Result<Question, Failure> {
        let message = message("user", text);
        let positions = self.generator.positions();
        let room = positions - max_tokens.min(positions / ANSWER_SHARE);
        let mut forgotten = 0;
        loop {
            let prompt = self.prompt(forgotten, &message)?;
            let is_all = forgotten == self.turns.len();
            if prompt.len() <= room || is_all && prompt.len() <= positions {
                return Ok(Question {
                    message,
                    prompt,
                    forgotten,
                });
            }
            if is_all {
                return Err(Failure::input(format!(
                    "the message has {} tokens with what the chat template writes around it; this model takes {positions}",
                    prompt.len()
                )));
            }
            forgotten += 1;
        }
    }

    /// Answers; `show` gets the answer piece by piece. One that is stopped stays in the dialogue as far as it was written.
    ///
    /// - rules: how tokens are chosen; those of earlier answers are counted here
    /// - is_stopped: asked before each token
    ///
    /// # Errors
    ///
    /// `show` fails; the dialogue stays as it was before the message.
    pub fn answer(
        &mut self,
        question: Question,
        rules: &Rules,
        is_stopped: &dyn Fn() -> bool,
        show: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<Answer, Failure> {
        let (mut text, kept) = match self.text.take() {
            Some(mut text) => {
                let kept = text.restart(question.prompt);
                (text, kept)
            }
            None => (self.generator.begin(question.prompt), 0),
        };
        let rules = Rules {
            chosen: self.chosen,
            ..*rules
        };
        let mut written = String::new();
        let mut show = |piece: &str| {
            written.push_str(piece);
            show(piece)
        };
        let (added, end) = self
            .generator
            .add(&mut text, &rules, is_stopped, &mut show)?;
        self.text = Some(text);
        self.chosen += added as u64;
        self.turns.drain(..question.forgotten);
        let answer = message(ASSISTANT, &written);
        self.turns.push([question.message, answer]);
        Ok(Answer {
            text: written,
            end,
            kept,
        })
    }

    /// Tokens of the dialogue without its oldest turns, of one more message, and of the beginning of its answer.
    fn prompt(&self, forgotten: usize, question: &Message) -> Result<Vec<u32>, Failure> {
        let turns = self.turns[forgotten..].iter().flatten();
        let messages = self.system.iter().chain(turns).chain([question]);
        let messages: Vec<Message> = messages.cloned().collect();
        let tokens = self.generator.written(&self.template, &messages)?;
        if tokens.is_empty() {
            return Err(Failure::input("the chat template writes nothing"));
        }
        Ok(tokens)
    }
}

fn message(role: &str, content: &str) -> Message {
    Message {
        role: role.into(),
        content: content.into(),
    }
}
