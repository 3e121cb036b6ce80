//! Talks with a decoder. In: its bundle, and a message a line on standard input. Out: each answer, as it is written.

use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::Args;
use model::Bundle;
use model::generate::Sampling;
use train::backend::with_backend;
use train::{Failure, WithBackend};

use crate::generate::{End, Generator, Rules};
use crate::open::ModelFlags;
use crate::sampling::SamplingFlags;

mod dialogue;

pub use dialogue::{Answer, Dialogue, Question};

const EXAMPLES: &str = "\
A line is a message. /reset begins the dialogue anew; /quit or the end of the input ends it. Ctrl-C ends an answer, and between
answers the program.

Examples:
  apps chat --model runs/instruction-tuning
  apps chat --model runs/instruction-tuning --system \"Answer in one sentence.\" --temperature 0.7 --top-p 0.9
  apps chat --model runs/instruction-tuning --max-tokens 100 < questions.txt";

/// Talk with a model whose tokenizer has a chat template
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// System message: what the model is told before the dialogue begins
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// The most tokens of an answer
    #[arg(
        allow_negative_numbers = true,
        long,
        value_name = "N",
        default_value = "256"
    )]
    pub max_tokens: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampling: SamplingFlags,
}

/// Answers what standard input says until it ends.
///
/// - stop: false while an answer is written, which ends once it is true
///
/// # Errors
///
/// A model without a chat template; a message that cannot be answered, unless it was written on a terminal, where another
/// one can follow.
pub fn run(flags: &Flags, stop: &AtomicBool) -> Result<String, Failure> {
    let sampling = flags.sampling.sampling()?;
    let backend = flags.model.backend.choose()?;
    let bundle = flags.model.bundle()?;
    let work = Work {
        bundle,
        flags,
        sampling,
        stop,
    };
    with_backend(backend, work)??;
    Ok(String::new())
}

/// Prepared work, waiting for its backend.
struct Work<'a> {
    bundle: Bundle,
    flags: &'a Flags,
    sampling: Sampling,
    stop: &'a AtomicBool,
}

impl WithBackend for Work<'_> {
    type Output = Result<(), Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let flags = self.flags;
        let generator = Generator::<B::InnerBackend>::open(&self.bundle, &device)?;
        let dialogue = Dialogue::new(&generator, flags.system.as_deref());
        let place = self.bundle.path().display();
        let dialogue = dialogue.map_err(|failure| Failure::input(format!("{place}: {failure}")))?;
        let is_terminal = io::stdin().is_terminal();
        let conversation = Conversation {
            dialogue,
            rules: Rules {
                max_tokens: flags.max_tokens,
                sampling: self.sampling,
                stop: &[],
                seed: flags.sampling.seed,
                chosen: 0,
                ignore_end: false,
            },
            stop: self.stop,
            is_terminal,
            prompt: if is_terminal && io::stdout().is_terminal() {
                "> "
            } else {
                ""
            },
        };
        conversation.hold(&mut io::stdin().lock())
    }
}

/// A dialogue with somebody who writes lines.
struct Conversation<'a, B: Backend> {
    dialogue: Dialogue<'a, B>,
    rules: Rules<'a>,
    stop: &'a AtomicBool,
    /// Whether a message can be followed by a better one.
    is_terminal: bool,
    /// Asks for a line.
    prompt: &'static str,
}

impl<B: Backend> Conversation<'_, B> {
    /// Answers every line; a reader that leaves ends it too.
    fn hold(mut self, lines: &mut impl BufRead) -> Result<(), Failure> {
        let mut reader_left = false;
        let mut show = |text: &str| {
            let mut out = io::stdout().lock();
            let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            written.map_err(|error| {
                reader_left = error.kind() == ErrorKind::BrokenPipe;
                Failure::running(error)
            })
        };
        let held = self.answer_all(lines, &mut show);
        if reader_left { Ok(()) } else { held }
    }

    fn answer_all(
        &mut self,
        lines: &mut impl BufRead,
        show: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            show(self.prompt)?;
            let Some(line) = next_line(lines)? else {
                // The shell's prompt is not to follow this one.
                return if self.prompt.is_empty() {
                    Ok(())
                } else {
                    show("\n")
                };
            };
            match line.trim() {
                "" => {}
                "/quit" => return Ok(()),
                "/reset" => {
                    self.dialogue.reset();
                    eprintln!("note: the dialogue begins anew");
                }
                _ => match self.answer(&line, show) {
                    Err(failure @ Failure::Input(_)) if self.is_terminal => {
                        eprintln!("error: {failure}");
                    }
                    answered => answered?,
                },
            }
        }
    }

    fn answer(
        &mut self,
        message: &str,
        show: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let question = self.dialogue.ask(message, self.rules.max_tokens)?;
        if question.forgotten > 0 {
            let turns = match question.forgotten {
                1 => "its oldest turn is".into(),
                n => format!("its {n} oldest turns are"),
            };
            eprintln!(
                "note: the dialogue is too long for the positions of the model; {turns} forgotten"
            );
        }
        self.stop.store(false, Ordering::SeqCst);
        let is_stopped = || self.stop.load(Ordering::SeqCst);
        let answer = self
            .dialogue
            .answer(question, &self.rules, &is_stopped, show);
        self.stop.store(true, Ordering::SeqCst);
        let end = answer?.end;
        show("\n")?;
        match end {
            End::EndToken | End::StopText => {}
            End::Length | End::Positions | End::Stopped => eprintln!("({})", end.reason()),
        }
        Ok(())
    }
}

/// The next line without its end, if there is one.
fn next_line(lines: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let mut line = String::new();
    let read = lines.read_line(&mut line);
    let read = read.map_err(|error| Failure::input(format!("standard input: {error}")))?;
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    Ok((read > 0).then_some(line))
}
