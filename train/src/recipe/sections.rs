//! The sections of a recipe that every objective and task has: how long it trains, and how the result is written.

use data::order::Batching;
use serde::{Deserialize, Serialize};

use crate::recipe::Impossible;

/// The `[training]` of a recipe: how long, in what portions, and what is looked at on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecipe {
    /// Optimizer steps; 0 leaves it to `epochs`.
    pub steps: u64,
    /// Passes over the training split; used when `steps` is 0.
    pub epochs: u64,
    /// Examples a micro-batch.
    pub batch_size: usize,
    /// Batches whose examples are sorted by length together; 0 never sorts.
    #[serde(default)]
    pub pool: usize,
    /// Most tokens a micro-batch, padding counted, in place of `batch_size` and `pool`; 0 counts examples.
    #[serde(default)]
    pub tokens: usize,
    /// Joins texts into full sequences, `batch_size` of them a micro-batch.
    #[serde(default)]
    pub packing: bool,
    /// Threads that make batches.
    #[serde(default = "two")]
    pub workers: usize,
    /// Micro-batches a step.
    pub accumulation: u64,
    /// Element type of forward and backward passes; parameters and optimizer are f32 always.
    pub precision: ComputePrecision,
    /// Recompute cheap operations in the backward pass instead of keeping their results.
    pub gradient_checkpointing: bool,
    /// Share of the averaged weights that stays at each step; 0 averages none.
    pub ema: f64,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Steps between validations; 0 means every epoch.
    pub validate_every: u64,
    /// Steps between checkpoints; 0 means at every validation.
    pub checkpoint_every: u64,
    /// Newest checkpoints kept.
    pub keep: usize,
    /// Metric of the validation split that decides which step is best.
    pub metric: String,
    /// Validations without a better value before stopping early; 0 never stops.
    pub patience: u64,
}

/// Element type of the forward and backward passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputePrecision {
    /// Single precision.
    F32,
    /// Eight bits of mantissa, where the backend has them; losses are f32.
    Bf16,
}

/// Threads that make batches, in recipes of runs from before there was a choice.
fn two() -> usize {
    2
}

impl TrainingRecipe {
    /// How rows are put into batches.
    pub fn batching(&self) -> Batching {
        match self.tokens {
            0 => Batching::Rows {
                // `check` refuses 0, but only once there is something to batch.
                size: self.batch_size.max(1),
                pool: self.pool,
            },
            tokens => Batching::Tokens(tokens),
        }
    }

    /// Whether so many validations without a better one end the run.
    pub fn is_stale(&self, validations: u64) -> bool {
        self.patience > 0 && validations >= self.patience
    }

    /// Refuses batches and portions of nothing, and absurd numbers of them.
    fn check_counts(&self) -> Result<(), Impossible> {
        const MOST: u64 = 4096;
        for (name, value) in [
            ("batch_size", self.batch_size as u64),
            ("accumulation", self.accumulation),
            ("workers", self.workers as u64),
            ("log_every", self.log_every),
            ("keep", self.keep as u64),
        ] {
            if value == 0 {
                let key = format!("training.{name}");
                return Err(Impossible::new(key, "is 0; it must be at least 1"));
            }
        }
        // Threads and batches of one step that no machine has.
        for (name, value) in [
            ("workers", self.workers as u64),
            ("accumulation", self.accumulation),
        ] {
            if value > MOST {
                let key = format!("training.{name}");
                return Err(Impossible::new(
                    key,
                    format!("is {value}; it must be at most {MOST}"),
                ));
            }
        }
        Ok(())
    }

    /// Says what is impossible about batches of texts, if anything is.
    ///
    /// - max_length: of a text, in tokens
    pub fn check_texts(&self, max_length: usize) -> Result<(), Impossible> {
        self.check_counts()?;
        let wrong = |reason| Err(Impossible::new("training.tokens", reason));
        let tokens = self.tokens;
        if tokens > 0 && self.packing {
            let reason = format!(
                "is {tokens} and training.packing is true; packed sequences are of one length, so batch_size counts them"
            );
            return wrong(reason);
        }
        if tokens > 0 && tokens < max_length {
            return wrong(format!(
                "is {tokens}, less than the {max_length} tokens of the longest text (tokenizer.max_length)"
            ));
        }
        Ok(())
    }

    /// Refuses to join texts where each has its own label.
    pub fn check_unpacked(&self) -> Result<(), Impossible> {
        if self.packing {
            Err(Impossible::new(
                "training.packing",
                "is true; that joins examples, and here each has its own target",
            ))
        } else {
            Ok(())
        }
    }

    /// Refuses what counts tokens: images have none.
    pub fn check_images(&self) -> Result<(), Impossible> {
        self.check_counts()?;
        self.check_unpacked()?;
        match self.tokens {
            0 => Ok(()),
            tokens => Err(Impossible::new(
                "training.tokens",
                format!("is {tokens}; images have no tokens, batch_size counts them"),
            )),
        }
    }

    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), Impossible> {
        self.check_counts()?;
        if !(0.0..1.0).contains(&self.ema) {
            let reason = format!("is {}; it must be at least 0 and below 1", self.ema);
            return Err(Impossible::new("training.ema", reason));
        }
        if self.steps == 0 && self.epochs == 0 {
            let reason = "and training.epochs are both 0; one must be more";
            return Err(Impossible::new("training.steps", reason));
        }
        Ok(())
    }

    /// Refuses to choose by a metric that there is not.
    ///
    /// - known: what validation gives
    pub fn check_metric(&self, known: &[&str]) -> Result<(), Impossible> {
        if known.contains(&self.metric.as_str()) {
            return Ok(());
        }
        let (metric, known) = (&self.metric, known.join(", "));
        let reason = format!("is \"{metric}\"; validation gives {known}");
        Err(Impossible::new("training.metric", reason))
    }

    /// Optimizer steps of the whole run, given the micro-batches of an epoch.
    pub fn total_steps(&self, batches_per_epoch: u64) -> u64 {
        match self.steps {
            0 => self
                .epochs
                .saturating_mul(self.steps_per_epoch(batches_per_epoch)),
            steps => steps,
        }
    }

    /// Optimizer steps of an epoch, at least 1.
    pub fn steps_per_epoch(&self, batches_per_epoch: u64) -> u64 {
        (batches_per_epoch / self.accumulation).max(1)
    }
}

/// The `[bundle]` of a recipe: how the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRecipe {
    /// Element type of the weights.
    pub precision: model::Precision,
}

/// Says what is impossible about the shares that validate and test, if anything is.
pub fn check_shares(valid: f64, test: f64) -> Result<(), Impossible> {
    for (name, share) in [("valid", valid), ("test", test)] {
        if !(0.0..=1.0).contains(&share) {
            let reason = format!("is {share}; it must be from 0 to 1");
            return Err(Impossible::new(format!("data.{name}"), reason));
        }
    }
    if valid + test < 1.0 {
        Ok(())
    } else {
        Err(Impossible::new(
            "data.valid",
            format!("{valid} and data.test {test} leave nothing to train on"),
        ))
    }
}
