//! Fills masks. In: a masked LM's bundle and a text with `[MASK]` in it. Out: the likeliest tokens there.

use std::num::NonZeroUsize;

use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use data::{Role, TextTokenizer};
use model::{Bundle, TokenModel};
use train::backend::with_backend;
use train::job::text::{TokenBatch, indices};
use train::{BackendName, Failure, WithBackend};

use crate::guess::{self, Figure, Guess};
use crate::open::{self, ModelFlags};

/// Say which words fit into a text
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:
  apps fill-mask --model wordnet-bert-nano \"a small [MASK] that sings\"")]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// A text with one `[MASK]` or several
    #[arg(help = "A text with one [MASK] or several, such as \"a small [MASK] that sings\"")]
    pub text: String,
    /// Tokens shown for each `[MASK]`
    #[arg(long, value_name = "K", default_value = "5")]
    pub top: NonZeroUsize,
}

/// A loaded masked LM, whatever its backend.
pub trait Filler: Send {
    /// The likeliest `top` tokens for each `[MASK]`, in the order of the text.
    ///
    /// # Errors
    ///
    /// A text without `[MASK]`, or with more tokens than the model has positions.
    fn fill(&self, text: &str, top: usize) -> Result<Vec<Vec<Guess>>, Failure>;
}

/// Opens the masked LM of a bundle.
///
/// # Errors
///
/// A bundle of another kind, weights that do not fit, or a backend without a device.
pub fn open_on(backend: BackendName, bundle: &Bundle) -> Result<Box<dyn Filler>, Failure> {
    with_backend(backend, Work { bundle })?
}

/// Fills masks.
pub struct MaskFiller<B: Backend> {
    model: TokenModel<B>,
    tokenizer: TextTokenizer,
    positions: usize,
    device: B::Device,
}

impl<B: Backend> MaskFiller<B> {
    /// Loads a masked LM.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, one whose tokenizer has no mask token, or whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let (model, parts) = open::token_model(bundle, false, device)?;
        Ok(Self {
            model,
            positions: bundle.positions(&parts.config),
            tokenizer: parts.tokenizer,
            device: device.clone(),
        })
    }

    /// As [`Filler::fill`] says.
    ///
    /// # Errors
    ///
    /// A text without `[MASK]`, or with more tokens than the model has positions.
    pub fn fill(&self, text: &str, top: usize) -> Result<Vec<Vec<Guess>>, Failure> {
        let (ids, masks) = self.encode(text)?;
        let batch = TokenBatch::pad([ids.as_slice()].into_iter(), self.tokenizer.pad());
        let masks = indices(&masks, &self.device);
        let input = batch.input(&self.device);
        let logits = self.model.logits(&input, Some(masks), None);
        let [_, vocab_size] = logits.dims();
        let probabilities = softmax(logits, 1).into_data();
        let probabilities: Vec<Figure> = probabilities
            .iter::<f32>()
            .map(Figure::Probability)
            .collect();
        // A table may have more rows than its tokenizer has tokens.
        let name = |id| {
            self.tokenizer
                .token(id as u32)
                .unwrap_or_else(|| format!("#{id}"))
        };
        let rows = probabilities.chunks_exact(vocab_size);
        Ok(rows.map(|row| guess::best(row, top, name)).collect())
    }

    /// Token ids, and where among them the masks are.
    fn encode(&self, text: &str) -> Result<(Vec<u32>, Vec<i32>), Failure> {
        let mask = self.tokenizer.required(Role::Mask)?;
        let spelled = self.tokenizer.spelled(Role::Mask).unwrap_or_default();
        // However another model spells it.
        let text = ["[MASK]", "<mask>"]
            .iter()
            .fold(text.to_string(), |text, other| {
                text.replace(other, &spelled)
            });
        let ids = self.tokenizer.encode_one(&text, usize::MAX)?;
        if ids.len() > self.positions {
            return Err(Failure::input(format!(
                "the text has {} tokens; this model takes {}",
                ids.len(),
                self.positions
            )));
        }
        let is_mask = |(at, id): (usize, &u32)| (*id == mask).then_some(at as i32);
        let masks: Vec<i32> = ids.iter().enumerate().filter_map(is_mask).collect();
        if masks.is_empty() {
            return Err(Failure::input(format!(
                "the text has no {spelled}; write it where a word is missing: \"a small {spelled} that sings\""
            )));
        }
        Ok((ids, masks))
    }
}

impl<B: Backend> Filler for MaskFiller<B> {
    fn fill(&self, text: &str, top: usize) -> Result<Vec<Vec<Guess>>, Failure> {
        Self::fill(self, text, top)
    }
}

/// Fills the masks of the text that the flags hold, and gives what is printed.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend.choose()?;
    let filler = open_on(backend, &flags.model.bundle()?)?;
    let filled = filler.fill(&flags.text, flags.top.get())?;
    let table = |(number, guesses): (usize, &Vec<Guess>)| match filled.len() {
        1 => guess::table(guesses),
        _ => format!("[MASK] {}\n{}", number + 1, guess::table(guesses)),
    };
    let tables: Vec<_> = filled.iter().enumerate().map(table).collect();
    Ok(tables.join("\n"))
}

struct Work<'a> {
    bundle: &'a Bundle,
}

impl WithBackend for Work<'_> {
    type Output = Result<Box<dyn Filler>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let filler = MaskFiller::<B::InnerBackend>::open(self.bundle, &device)?;
        Ok(Box::new(filler))
    }
}
