//! Fills masks. In: a masked LM's bundle and a text with `[MASK]` in it. Out: the likeliest tokens there.

use std::num::NonZeroUsize;

use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::softmax;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use data::{Role, TextTokenizer};
use model::bundle::{Architecture, Load};
use model::{BertMaskedLm, Bundle};
use train::backend::with_backend;
use train::text::TokenBatch;
use train::{Failure, WithBackend};

use crate::guess::{self, Guess};
use crate::open::{self, ModelFlags};

/// Say which words fit into a text
#[derive(Args, Clone, Debug)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// A text with one `[MASK]` or several, such as "a small `[MASK]` that sings"
    pub text: String,
    /// Tokens shown for each `[MASK]`
    #[arg(long, value_name = "K", default_value = "5")]
    pub top: NonZeroUsize,
}

/// Fills masks.
pub struct MaskFiller<B: Backend> {
    model: BertMaskedLm<B>,
    tokenizer: TextTokenizer,
    positions: usize,
    device: B::Device,
}

impl<B: Backend> MaskFiller<B> {
    /// Loads a `BertForMaskedLM`.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        bundle.require(&[Architecture::BertForMaskedLm])?;
        let (config, tokenizer) = open::text_model(bundle)?;
        let model = BertMaskedLm::new(&config, device);
        Ok(Self {
            model: bundle.load(model, Load::Whole)?,
            tokenizer,
            positions: config.max_position_embeddings,
            device: device.clone(),
        })
    }

    /// The likeliest `top` tokens for each `[MASK]`, in the order of the text.
    ///
    /// # Errors
    ///
    /// A text without `[MASK]`, or with more tokens than the model has positions.
    pub fn fill(&self, text: &str, top: usize) -> Result<Vec<Vec<Guess>>, Failure> {
        let (ids, masks) = self.encode(text)?;
        let batch = TokenBatch::pad([ids.as_slice()].into_iter(), self.tokenizer.pad());
        let n = masks.len();
        let masks = Tensor::from_data(TensorData::new(masks, [n]), &self.device);
        let logits = self.model.forward_at(batch.input(&self.device), masks);
        let [_, vocab_size] = logits.dims();
        let probabilities: Vec<f32> = softmax(logits, 1).into_data().iter::<f32>().collect();
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
        let ids = self.tokenizer.encode_one(text, usize::MAX)?;
        if ids.len() > self.positions {
            return Err(Failure::input(format!(
                "the text has {} tokens; this model takes {}",
                ids.len(),
                self.positions
            )));
        }
        let mask = self.tokenizer.required(Role::Mask)?;
        let is_mask = |(at, id): (usize, &u32)| (*id == mask).then_some(at as i32);
        let masks: Vec<i32> = ids.iter().enumerate().filter_map(is_mask).collect();
        match masks.is_empty() {
            true => Err(Failure::input(
                "the text has no [MASK]; write it where a word is missing: \"a small [MASK] that sings\"",
            )),
            false => Ok((ids, masks)),
        }
    }
}

/// Fills the masks of the text that the flags hold, and gives what is printed.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend()?;
    let work = Work {
        bundle: flags.model.bundle()?,
        flags,
    };
    let filled = with_backend(backend, work)??;
    let table = |(number, guesses): (usize, &Vec<Guess>)| match filled.len() {
        1 => guess::table(guesses),
        _ => format!("[MASK] {}\n{}", number + 1, guess::table(guesses)),
    };
    let tables: Vec<_> = filled.iter().enumerate().map(table).collect();
    Ok(tables.join("\n"))
}

/// Prepared work, waiting for its backend.
struct Work<'a> {
    bundle: Bundle,
    flags: &'a Flags,
}

impl WithBackend for Work<'_> {
    type Output = Result<Vec<Vec<Guess>>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let filler = MaskFiller::<B::InnerBackend>::open(&self.bundle, &device)?;
        filler.fill(&self.flags.text, self.flags.top.get())
    }
}
