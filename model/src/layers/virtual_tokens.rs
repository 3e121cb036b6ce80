//! Trained vectors in front of every text, as if they were tokens: of the embedded tokens, or of the keys and values of each
//! layer. Names, shapes and positions are those of the `peft` package.
//!
//! Prompt tuning, Lester et al. 2021, <https://arxiv.org/abs/2104.08691>; prefix tuning, Li and Liang 2021,
//! <https://arxiv.org/abs/2101.00190>.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;

use crate::cache::Cache;

/// The vectors of a prompt, or the keys and values of a prefix.
#[derive(Module, Debug)]
pub struct VirtualTokens<B: Backend> {
    /// Of a prompt `[virtual_tokens, d_embedding]`. Of a prefix `[virtual_tokens, layers * 2 * width]`: the keys of the first
    /// layer, its values, the keys of the second.
    pub prompt_embeddings: Param<Tensor<B, 2>>,
    /// Of the model, for a prefix; 0 for a prompt.
    layers: usize,
}

impl<B: Backend> VirtualTokens<B> {
    /// Vectors in front of embedded tokens, from N(0, `std`).
    pub fn prompt(n: usize, d_embedding: usize, std: f64, device: &B::Device) -> Self {
        Self {
            prompt_embeddings: Initializer::Normal { mean: 0.0, std }
                .init([n, d_embedding], device),
            layers: 0,
        }
    }

    /// Keys and values in front of those of each layer, from N(0, `std`).
    ///
    /// - width: of the keys of a layer, all heads together
    pub fn prefix(n: usize, layers: usize, width: usize, std: f64, device: &B::Device) -> Self {
        Self {
            prompt_embeddings: Initializer::Normal { mean: 0.0, std }
                .init([n, layers * 2 * width], device),
            layers,
        }
    }

    /// The keys and values of each layer, once for each text, as if they had been read.
    fn put_into(&self, cache: &mut Cache<B>, batch: usize) {
        let all = self.prompt_embeddings.val();
        let [n, columns] = all.dims();
        let width = columns / (2 * self.layers);
        for layer in 0..self.layers {
            let pair = [2 * layer, 2 * layer + 1].map(|part| {
                let rows: Tensor<B, 3> = all.clone().narrow(1, part * width, width).unsqueeze();
                rows.expand([batch, n, width]).reshape([batch * n, width])
            });
            cache.extend(layer, pair, [batch, n]);
        }
        cache.advance(n);
    }
}

/// The vectors of a prompt, `[virtual_tokens, d_embedding]`, where there is one and no text has begun.
///
/// - read: tokens that were read before
pub(crate) fn prompt<B: Backend>(
    tokens: &Option<VirtualTokens<B>>,
    read: usize,
) -> Option<Tensor<B, 2>> {
    let prompt = tokens.as_ref().filter(|tokens| tokens.layers == 0);
    prompt
        .filter(|_| read == 0)
        .map(|tokens| tokens.prompt_embeddings.val())
}

/// How many vectors stand in front of each text.
pub(crate) fn length<B: Backend>(prompt: &Option<Tensor<B, 2>>) -> usize {
    prompt.as_ref().map_or(0, |prompt| prompt.dims()[0])
}

/// Embedded tokens with a prompt in front of each text: `[batch, seq, d_embedding]` in, `[batch, virtual_tokens + seq,
/// d_embedding]` out.
pub(crate) fn in_front<B: Backend>(
    prompt: Option<Tensor<B, 2>>,
    words: Tensor<B, 3>,
) -> Tensor<B, 3> {
    let Some(prompt) = prompt else {
        return words;
    };
    let ([n, d_embedding], [batch, ..]) = (prompt.dims(), words.dims());
    let prompt = prompt.unsqueeze::<3>().expand([batch, n, d_embedding]);
    Tensor::cat(vec![prompt, words], 1)
}

/// The states of real tokens, `[batch * seq, d_model]`, or of those at chosen places among them.
///
/// - hidden: `[batch * (front + seq), d_model]`
/// - front: virtual tokens of a text
/// - at: `[n]`, indices into the flattened `[batch * seq]`
pub(crate) fn behind<B: Backend>(
    mut hidden: Tensor<B, 2>,
    [batch, seq]: [usize; 2],
    front: usize,
    at: Option<Tensor<B, 1, Int>>,
) -> Tensor<B, 2> {
    if front > 0 {
        let [_, d_model] = hidden.dims();
        let texts = hidden.reshape([batch, front + seq, d_model]);
        hidden = texts.narrow(1, front, seq).reshape([batch * seq, d_model]);
    }
    match at {
        Some(at) => hidden.select(0, at),
        None => hidden,
    }
}

/// The cache that a forward pass goes on from: a prefix stands in it before any token.
///
/// - own: holds the cache of a model with a prefix where the caller keeps none
pub(crate) fn prefixed<'a, B: Backend>(
    tokens: &Option<VirtualTokens<B>>,
    cache: Option<&'a mut Cache<B>>,
    own: &'a mut Option<Cache<B>>,
    batch: usize,
) -> Option<&'a mut Cache<B>> {
    let Some(prefix) = tokens.as_ref().filter(|tokens| tokens.layers > 0) else {
        return cache;
    };
    let cache = match cache {
        Some(cache) => cache,
        None => own.insert(Cache::new(prefix.layers)),
    };
    if cache.read() == 0 {
        prefix.put_into(cache, batch);
    }
    Some(cache)
}
