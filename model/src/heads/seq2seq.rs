//! A model that reads a text and writes another. In: token ids of both. Out: scores of the words that come next.

use burn::module::{Initializer, Param};
use burn::prelude::*;

use crate::cache::Seq2SeqCache;
use crate::families::{Encoded, Seq2SeqPlan, TokenInput};
use crate::heads::Headed;
use crate::layers::{Draw, Linear};
use crate::ops::matmul;
use crate::registry::{Seq2SeqBackbone, Seq2SeqConfig};

/// Scores of the words of the decoder's vocabulary.
#[derive(Module, Debug)]
pub struct Seq2SeqHead<B: Backend> {
    /// `[d_model, vocab_size]`, where the decoder's token table does not score.
    pub output: Option<Linear<B>>,
    /// `[1, vocab_size]`, which no training changes.
    pub bias: Option<Param<Tensor<B, 2>>>,
    scale: f64,
}

impl<B: Backend> Seq2SeqHead<B> {
    /// A head for a backbone of this configuration.
    pub fn new(config: &Seq2SeqConfig, draw: &Draw<'_, B>) -> Self {
        let plan = config.describe();
        let draw = &draw.with_std(plan.std).inside("head");
        let (d_model, words) = (plan.d_model, plan.target_vocab_size);
        let bias = || {
            let zeros: Param<Tensor<B, 2>> = Initializer::Zeros.init([1, words], draw.device);
            zeros.set_require_grad(false)
        };
        Self {
            output: (!plan.tied).then(|| draw.linear_without_bias("output", d_model, words)),
            bias: plan.bias.then(bias),
            scale: plan.scale,
        }
    }
}

/// An encoder, a decoder and scores of the words that come next.
pub type Seq2SeqModel<B> = Headed<B, Seq2SeqBackbone<B>, Seq2SeqHead<B>>;

impl<B: Backend> Seq2SeqModel<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    pub fn draw(config: &Seq2SeqConfig, draw: &Draw<'_, B>) -> Self {
        let backbone = config.init(&draw.inside("backbone"));
        Self::new(backbone, Seq2SeqHead::new(config, draw))
    }

    /// Scores of the words that come next in texts that are known, as training has them.
    ///
    /// - input: the texts that are read, padded on the right
    /// - decoder: `[batch, seq]`, what [`shift_right`] makes of the texts that are to be written. Padding on the right needs no
    ///   mask, as no place sees what follows it
    /// - at: `[n]`, places of the flattened `[batch * seq]`; all of them where there are none
    /// - out: `[n, vocab_size]`
    ///
    /// # Panics
    ///
    /// If a text is longer than the model has positions, or a row holds several texts.
    pub fn logits(
        &self,
        input: &TokenInput<B>,
        decoder: Tensor<B, 2, Int>,
        at: Option<Tensor<B, 1, Int>>,
    ) -> Tensor<B, 2> {
        self.score(self.states(input, decoder, at))
    }

    /// What those scores are made of, `[n, d_model]`, as [`decoder`](Self::decoder) reads it.
    ///
    /// # Panics
    ///
    /// As [`logits`](Self::logits).
    pub fn states(
        &self,
        input: &TokenInput<B>,
        decoder: Tensor<B, 2, Int>,
        at: Option<Tensor<B, 1, Int>>,
    ) -> Tensor<B, 2> {
        let encoded = self.backbone.encode(input);
        self.scaled(self.backbone.decode(decoder, &encoded, at, None))
    }

    /// What scores states: `[vocab_size, d_model]`, and perhaps a bias of each word, `[vocab_size]`. A loss that is computed
    /// with it needs no logits.
    ///
    /// `None` where an adapter is beside it: no one matrix gives the scores then, [`logits`](Self::logits) does.
    pub fn decoder(&self) -> Option<(Tensor<B, 2>, Option<Tensor<B, 1>>)> {
        let table = match &self.head.output {
            Some(output) if !output.is_plain() => return None,
            Some(output) => output.weight.val().transpose(),
            None => self.backbone.token_table(),
        };
        let flat = |bias: &Param<Tensor<B, 2>>| {
            let [_, words] = bias.dims();
            bias.val().reshape([words])
        };
        let bias = self.head.bias.as_ref().map(flat);
        Some((table, bias))
    }

    /// Scores of the words that come next, of texts that are being written.
    ///
    /// - tokens: `[rows, seq]`, those that the cache has not read; each text that is read has as many rows, one after the other
    /// - out: `[rows, vocab_size]`, of the last token of each row
    ///
    /// # Panics
    ///
    /// As [`logits`](Self::logits).
    pub fn next(
        &self,
        tokens: Tensor<B, 2, Int>,
        encoded: &Encoded<B>,
        cache: Option<&mut Seq2SeqCache<B>>,
    ) -> Tensor<B, 2> {
        let ([rows, seq], device) = (tokens.dims(), tokens.device());
        let last: Tensor<B, 1, Int> = Tensor::arange(1..rows as i64 + 1, &device);
        let last = last * seq as i64 - 1;
        let states = self.backbone.decode(tokens, encoded, Some(last), cache);
        self.score(self.scaled(states))
    }

    /// The decoder's states as words are scored by them, `[n, d_model]` in and out.
    fn scaled(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        if self.head.scale == 1.0 {
            return states;
        }
        states * self.head.scale
    }

    /// - states: `[n, d_model]`
    /// - out: `[n, vocab_size]`
    fn score(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        let scores = match &self.head.output {
            Some(output) => output.forward(states),
            None => matmul(states, self.backbone.token_table().transpose()),
        };
        match &self.head.bias {
            Some(bias) => scores + bias.val(),
            None => scores,
        }
    }
}

/// What a decoder reads to write these texts: each begins with the start token and lacks its last one, and what does not
/// count as a target is padding.
///
/// - targets: a text a row; below 0 where a word does not count
pub fn shift_right(targets: &[Vec<i32>], plan: &Seq2SeqPlan) -> Vec<Vec<i32>> {
    let (start, pad) = (plan.start as i32, plan.pad as i32);
    let read = |word: &i32| if *word < 0 { pad } else { *word };
    let shifted = |row: &Vec<i32>| {
        let before = row.iter().take(row.len().saturating_sub(1)).map(read);
        std::iter::once(start).chain(before).collect()
    };
    targets.iter().map(shifted).collect()
}
