//! Continues a text token by token, or several at once. In: a decoder, the tokens so far, how to choose. Out: one more token at a
//! time.
//!
//! Filters come in the order that `transformers` has: repetition penalty, temperature, top-k, top-p, min-p.

use burn::prelude::*;
use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::families::TokenInput;
use crate::heads::TokenModel;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// What logits are divided by; 0 takes the largest.
    pub temperature: f64,
    /// The most tokens that stay; 0 is all. Equal ones at the border stay together.
    pub top_k: usize,
    /// The likeliest tokens that together have this probability stay; 1 is all. Holtzman et al. 2019,
    /// <https://arxiv.org/abs/1904.09751>.
    pub top_p: f64,
    /// Tokens stay that have this share of the likeliest one's probability; 0 is all. Nguyen et al. 2024,
    /// <https://arxiv.org/abs/2407.01082>.
    pub min_p: f64,
    /// What the logits of tokens that occurred are divided by, or multiplied by below 0; 1 changes nothing. Keskar et al.
    /// 2019, <https://arxiv.org/abs/1909.05858>.
    pub repetition_penalty: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
        }
    }
}

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
    };

    /// Says what is impossible about these values, if anything is.
    ///
    /// # Errors
    ///
    /// The name of the value, and what it must be.
    pub fn check(&self) -> Result<(), String> {
        let shares = [("top_p", self.top_p), ("min_p", self.min_p)];
        if let Some((name, share)) = shares
            .iter()
            .find(|(_, share)| !(0.0..=1.0).contains(share))
        {
            return Err(format!("{name} is {share}; it must be from 0 to 1"));
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            let temperature = self.temperature;
            return Err(format!(
                "temperature is {temperature}; it must be a finite number, 0 or more"
            ));
        }
        let penalty = self.repetition_penalty;
        if !(penalty.is_finite() && penalty > 0.0) {
            return Err(format!(
                "repetition_penalty is {penalty}; it must be above 0"
            ));
        }
        Ok(())
    }

    /// Probabilities of the next token.
    ///
    /// - logits: of the vocabulary
    /// - before: the tokens so far
    pub fn probabilities(&self, logits: &[f32], before: &[u32]) -> Vec<f64> {
        let mut scores = self.penalised(logits, before);
        if self.temperature == 0.0 {
            let mut chosen = vec![0.0; scores.len()];
            if let Some(best) = largest(&scores) {
                chosen[best] = 1.0;
            }
            return chosen;
        }
        scores
            .iter_mut()
            .for_each(|score| *score /= self.temperature);
        self.keep_top_k(&mut scores);
        self.keep_top_p(&mut scores);
        self.keep_min_p(&mut scores);
        softmax(&scores)
    }

    /// The token that a draw from 0 to 1 gives.
    pub fn choose(&self, logits: &[f32], before: &[u32], draw: f64) -> u32 {
        if self.temperature == 0.0 {
            return largest(&self.penalised(logits, before)).unwrap_or(0) as u32;
        }
        let probabilities = self.probabilities(logits, before);
        let mut below = 0.0;
        let reached = |probability: &f64| {
            below += probability;
            draw < below
        };
        let found = probabilities.iter().position(reached);
        // Sums end a rounding below 1.
        let last = probabilities
            .iter()
            .rposition(|probability| *probability > 0.0);
        found.or(last).unwrap_or(0) as u32
    }

    fn penalised(&self, logits: &[f32], before: &[u32]) -> Vec<f64> {
        let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        if self.repetition_penalty == 1.0 {
            return scores;
        }
        let mut seen = vec![false; scores.len()];
        for &token in before {
            let token = token as usize;
            if token < scores.len() && !std::mem::replace(&mut seen[token], true) {
                let score = &mut scores[token];
                *score = if *score < 0.0 {
                    *score * self.repetition_penalty
                } else {
                    *score / self.repetition_penalty
                };
            }
        }
        scores
    }

    fn keep_top_k(&self, scores: &mut [f64]) {
        if self.top_k == 0 || self.top_k >= scores.len() {
            return;
        }
        let mut sorted = scores.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let least = sorted[self.top_k - 1];
        drop_where(scores, |score| score < least);
    }

    fn keep_top_p(&self, scores: &mut [f64]) {
        if self.top_p >= 1.0 {
            return;
        }
        let probabilities = softmax(scores);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        // From the least likely up: what together stays below the rest goes; the likeliest always stays.
        let mut sum = 0.0;
        for &token in &order[..order.len().saturating_sub(1)] {
            sum += probabilities[token];
            if sum <= 1.0 - self.top_p {
                scores[token] = f64::NEG_INFINITY;
            }
        }
    }

    fn keep_min_p(&self, scores: &mut [f64]) {
        if self.min_p <= 0.0 {
            return;
        }
        let probabilities = softmax(scores);
        let most = probabilities.iter().copied().fold(0.0, f64::max);
        for (score, probability) in scores.iter_mut().zip(probabilities) {
            if probability < self.min_p * most {
                *score = f64::NEG_INFINITY;
            }
        }
    }
}

fn drop_where(scores: &mut [f64], is_dropped: impl Fn(f64) -> bool) {
    for score in scores {
        if is_dropped(*score) {
            *score = f64::NEG_INFINITY;
        }
    }
}

/// The first of the largest.
fn largest(scores: &[f64]) -> Option<usize> {
    let better = |best: usize, at: usize| if scores[at] > scores[best] { at } else { best };
    (0..scores.len()).reduce(better)
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|value| value / sum).collect()
}

/// A text that is being continued.
pub struct Continuation<'a, B: Backend> {
    model: &'a TokenModel<B>,
    tokens: Vec<u32>,
    layers: Option<usize>,
    cache: Option<Cache<B>>,
    read: usize,
    device: B::Device,
}

impl<'a, B: Backend> Continuation<'a, B> {
    /// Begins with a prompt of at least one token.
    ///
    /// - layers: of the model; the keys and values of each are kept. None keeps nothing and reads all tokens again
    pub fn new(
        model: &'a TokenModel<B>,
        prompt: Vec<u32>,
        layers: Option<usize>,
        device: &B::Device,
    ) -> Self {
        Self {
            model,
            tokens: prompt,
            layers,
            cache: layers.map(Cache::new),
            read: 0,
            device: device.clone(),
        }
    }

    /// Begins again with another prompt of at least one token, and gives how many of its tokens need not be read again: those that
    /// were read, where the prompt begins with all of them and has more, else none.
    pub fn restart(&mut self, prompt: Vec<u32>) -> usize {
        let read = &self.tokens[..self.read];
        if prompt.len() <= read.len() || !prompt.starts_with(read) {
            self.cache = self.layers.map(Cache::new);
            self.read = 0;
        }
        self.tokens = prompt;
        self.read
    }

    /// The tokens so far, those of the prompt first.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Scores of the token that comes next, one for each word of the vocabulary.
    ///
    /// # Panics
    ///
    /// If there are more tokens than the model has positions.
    pub fn logits(&mut self) -> Vec<f32> {
        let new: Vec<i32> = self.tokens[self.read..]
            .iter()
            .map(|&id| id as i32)
            .collect();
        let seq = new.len();
        let tokens = Tensor::from_data(TensorData::new(new, [1, seq]), &self.device);
        let last = Tensor::from_data(TensorData::new(vec![seq as i32 - 1], [1]), &self.device);
        let input = TokenInput::new(tokens);
        let logits = self.model.logits(&input, Some(last), self.cache.as_mut());
        if self.cache.is_some() {
            self.read = self.tokens.len();
        }
        let logits = logits.into_data();
        match logits.as_slice() {
            Ok(values) => values.to_vec(),
            Err(_) => logits.iter::<f32>().collect(),
        }
    }

    /// Adds the next token.
    pub fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }
}

/// Texts that are continued at once: the next tokens of all share a forward pass. Texts of any length join and leave between two.
///
/// Yu et al. 2022, <https://www.usenix.org/conference/osdi22/presentation/yu>, with padding in front of shorter texts.
pub struct Together<'a, B: Backend> {
    model: &'a TokenModel<B>,
    cache: Option<Cache<B>>,
    /// What was read of each text.
    read: Vec<usize>,
    device: B::Device,
}

impl<'a, B: Backend> Together<'a, B> {
    /// No text.
    pub fn new(model: &'a TokenModel<B>, device: &B::Device) -> Self {
        Self {
            model,
            cache: None,
            read: Vec::new(),
            device: device.clone(),
        }
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.read.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// Adds a text behind the others, and gives its tokens. Of these all that were there when scores were last asked for count as
    /// read.
    ///
    /// # Panics
    ///
    /// If it keeps nothing of what it reads, or has read nothing.
    pub fn join(&mut self, text: Continuation<'_, B>) -> Vec<u32> {
        let Some(cache) = text.cache.filter(|cache| cache.read() > 0) else {
            panic!("a text that has read nothing cannot join others");
        };
        self.read.push(cache.read());
        match &mut self.cache {
            Some(all) => all.join(cache),
            None => self.cache = Some(cache),
        }
        text.tokens
    }

    /// Goes on with some of the texts alone.
    ///
    /// - rows: their numbers, in the order that they have from now on
    pub fn keep(&mut self, rows: &[usize]) {
        self.read = rows.iter().map(|&row| self.read[row]).collect();
        let Some(longest) = self.read.iter().max() else {
            self.cache = None;
            return;
        };
        if let Some(cache) = &mut self.cache {
            let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
            let n = rows.len();
            cache.select(&Tensor::from_data(TensorData::new(rows, [n]), &self.device));
            cache.forget(cache.read() - longest);
        }
    }

    /// Scores of the token that comes next in each text, one for each word of the vocabulary.
    ///
    /// - tokens: the last one of each text, which was not read
    ///
    /// # Panics
    ///
    /// If there are more tokens than the model has positions, or not one for each text.
    pub fn logits(&mut self, tokens: &[u32]) -> Vec<Vec<f32>> {
        assert_eq!(tokens.len(), self.len(), "a token for each text");
        let Some(cache) = &mut self.cache else {
            return Vec::new();
        };
        let (n, all) = (tokens.len(), cache.read() + 1);
        let column = |values: Vec<i32>| {
            Tensor::<B, 2, Int>::from_data(TensorData::new(values, [n, 1]), &self.device)
        };
        let mut input = TokenInput::new(column(tokens.iter().map(|&id| id as i32).collect()));
        input.positions = Some(column(self.read.iter().map(|&read| read as i32).collect()));
        if self.read.iter().any(|&read| read + 1 < all) {
            let row = |&read: &usize| (0..all).map(move |at| at + read + 1 < all);
            let hidden: Vec<bool> = self.read.iter().flat_map(row).collect();
            input.mask_pad = Some(Tensor::from_data(
                TensorData::new(hidden, [n, all]),
                &self.device,
            ));
        }
        let logits = self.model.logits(&input, None, Some(cache));
        self.read.iter_mut().for_each(|read| *read += 1);
        let [_, words] = logits.dims();
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        logits.chunks(words.max(1)).map(<[f32]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Bundle, Load};
    use crate::layers::Draw;
    use crate::names::HeadKind;
    use burn::backend::Flex;
    use safetensors::SafeTensors;
    use serde_json::Value;
    use std::path::Path;

    /// One of the golden decoders, its number of layers, and what `transformers` said of it.
    fn golden_decoder(family: &str, number: usize) -> (TokenModel<Flex>, usize, Vec<u8>) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families");
        let folder = golden.join(format!("{family}-causal-lm-{number}"));
        let bundle = Bundle::open(&folder).unwrap();
        let config = bundle.text_config().unwrap();
        let model = TokenModel::draw(&config, &Draw::new(&Default::default(), 0.02));
        let names = bundle.require(HeadKind::Tokens).unwrap();
        let (model, _) = bundle.load(model, names, Load::Whole).unwrap();
        let expected = std::fs::read(folder.join("expected.safetensors")).unwrap();
        (model, config.describe().layers, expected)
    }

    fn ids(file: &SafeTensors, name: &str) -> Vec<u32> {
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), safetensors::Dtype::I64);
        let ids = tensor.data().as_chunks::<8>().0.iter();
        ids.map(|bytes| i64::from_le_bytes(*bytes) as u32).collect()
    }

    /// Adds `count` tokens; gives them, and the logits that each was chosen by.
    fn add(
        mut text: Continuation<'_, Flex>,
        sampling: Sampling,
        count: usize,
    ) -> (Vec<u32>, Vec<Vec<f32>>) {
        let begun = text.tokens().len();
        let step = |_| {
            let logits = text.logits();
            text.push(sampling.choose(&logits, text.tokens(), 0.5));
            logits
        };
        let logits = (0..count).map(step).collect();
        (text.tokens()[begun..].to_vec(), logits)
    }

    #[test]
    fn greedy_continuations_are_those_of_transformers_with_and_without_a_cache() {
        let penalised = Sampling {
            repetition_penalty: 1.3,
            ..Sampling::GREEDY
        };
        let families = ["gpt2", "llama", "qwen2", "hearth_lstm", "hearth_gru"].into_iter();
        for (family, number) in families.flat_map(|family| (1..=3).map(move |n| (family, n))) {
            let (model, layers, expected) = golden_decoder(family, number);
            let file = SafeTensors::deserialize(&expected).unwrap();
            for (kind, sampling) in [("generated", Sampling::GREEDY), ("penalised", penalised)] {
                for prompt in 0..2 {
                    let theirs = ids(&file, &format!("{kind}.{prompt}"));
                    let prompt = ids(&file, &format!("prompt.{prompt}"));
                    let continued = |layers| {
                        let device = Default::default();
                        let text = Continuation::new(&model, prompt.clone(), layers, &device);
                        add(text, sampling, theirs.len())
                    };
                    let (cached, cached_logits) = continued(Some(layers));
                    let (plain, logits) = continued(None);
                    assert_eq!(cached, theirs, "{family} {number}, {kind}, with a cache");
                    assert_eq!(plain, theirs, "{family} {number}, {kind}, without a cache");
                    let pairs = cached_logits.iter().flatten().zip(logits.iter().flatten());
                    let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    // f32 sums of at most 80 products in another order; a recurrent state carries on the rounding of every
                    // token before it.
                    let recurrent = family.starts_with("hearth_");
                    let tolerance = if recurrent { 1e-4 } else { 1e-5 };
                    assert!(most < tolerance, "{family} {number}, {kind}: off by {most}");
                }
            }
        }
    }

    #[test]
    fn a_cache_reads_a_prompt_and_then_each_token_once() {
        let (model, layers, _) = golden_decoder("gpt2", 1);
        let device = Default::default();
        let mut text = Continuation::new(&model, vec![3, 1, 4], Some(layers), &device);
        for read in 3..6 {
            text.logits();
            let cache = text.cache.as_ref().unwrap();
            assert_eq!((cache.read(), text.read), (read, read));
            text.push(5);
        }
    }

    #[test]
    fn texts_that_share_forward_passes_go_on_as_each_alone() {
        for family in ["gpt2", "llama", "qwen2", "hearth_lstm", "hearth_gru"] {
            let (model, layers, _) = golden_decoder(family, 1);
            let device = Default::default();
            let mut all = Together::new(&model, &device);
            let mut texts: Vec<Vec<u32>> = Vec::new();
            let prompts: [&[u32]; 4] = [&[3, 1, 4], &[2], &[1, 5, 9, 2, 6], &[7, 7]];
            for (round, prompt) in prompts.into_iter().enumerate() {
                let mut text = Continuation::new(&model, prompt.to_vec(), Some(layers), &device);
                text.logits();
                text.push(round as u32 + 1);
                texts.push(all.join(text));
                for _ in 0..2 {
                    let last: Vec<u32> = texts.iter().map(|text| text[text.len() - 1]).collect();
                    for (logits, text) in all.logits(&last).into_iter().zip(&mut texts) {
                        let alone = Continuation::new(&model, text.clone(), None, &device).logits();
                        let pairs = logits.iter().zip(alone);
                        let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        // Tolerance: as for the continuations above.
                        assert!(most < 1e-4, "{family}, {text:?}: off by {most}");
                        text.push(Sampling::GREEDY.choose(&logits, text, 0.5));
                    }
                }
                if round == 2 {
                    // The longest leaves, the others change places.
                    all.keep(&[1, 0]);
                    texts = vec![texts[1].clone(), texts[0].clone()];
                }
            }
            assert_eq!(all.len(), 3);
            all.keep(&[]);
            assert!(all.is_empty() && all.logits(&[]).is_empty());
        }
    }

    #[test]
    fn another_prompt_goes_on_from_what_was_read_of_it() {
        for family in ["gpt2", "llama", "qwen2", "hearth_lstm", "hearth_gru"] {
            let (model, layers, _) = golden_decoder(family, 1);
            let device = Default::default();
            let mut text = Continuation::new(&model, vec![3, 1, 4], Some(layers), &device);
            text.logits();
            text.push(5);
            text.logits();
            // Never read.
            text.push(6);
            let mut assert_restarts = |prompt: &[u32], kept: usize| {
                assert_eq!(text.restart(prompt.to_vec()), kept, "{family}, {prompt:?}");
                assert_eq!(text.tokens(), prompt);
                let plain = Continuation::new(&model, prompt.to_vec(), None, &device).logits();
                let pairs = text.logits().into_iter().zip(plain);
                let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                // Tolerance: as for the continuations above.
                assert!(most < 1e-4, "{family}, {prompt:?}: off by {most}");
            };
            assert_restarts(&[3, 1, 4, 5, 2, 7, 1], 4);
            // The same again: the last token has to be read for its scores.
            assert_restarts(&[3, 1, 4, 5, 2, 7, 1], 0);
            assert_restarts(&[3, 1, 4, 5, 2, 7, 1, 8], 7);
            assert_restarts(&[3, 1, 4, 9], 0);
            assert_restarts(&[3, 1], 0);
        }
    }

    #[test]
    fn filters_are_those_of_transformers() {
        let golden: Value =
            serde_json::from_str(include_str!("../../tests/golden/sampling.json")).unwrap();
        let logits: Vec<f32> = serde_json::from_value(golden["logits"].clone()).unwrap();
        let before: Vec<u32> = serde_json::from_value(golden["before"].clone()).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let sampling: Sampling = serde_json::from_value(case["settings"].clone()).unwrap();
            let theirs: Vec<f64> = serde_json::from_value(case["probabilities"].clone()).unwrap();
            let ours = sampling.probabilities(&logits, &before);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!(
                    (ours - theirs).abs() < 1e-6,
                    "{sampling:?}: {ours}, not {theirs}"
                );
            }
        }
    }

    #[test]
    fn a_draw_takes_the_token_whose_share_it_falls_into() {
        // Probabilities 1/4, 1/2, 1/4.
        let logits = [0.0, 2f32.ln(), 0.0];
        let choose = |draw| Sampling::default().choose(&logits, &[], draw);
        assert_eq!(
            [0.0, 0.24, 0.26, 0.74, 0.76, 1.0].map(choose),
            [0, 0, 1, 1, 2, 2]
        );
        assert_eq!(Sampling::GREEDY.choose(&logits, &[], 0.9), 1);
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        let wrong = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            sampling.check().unwrap_err()
        };
        assert!(wrong(|s| s.top_p = 1.5).starts_with("top_p is 1.5"));
        assert!(wrong(|s| s.min_p = -0.1).starts_with("min_p is -0.1"));
        assert!(wrong(|s| s.temperature = f64::NAN).starts_with("temperature is NaN"));
        assert!(wrong(|s| s.repetition_penalty = 0.0).starts_with("repetition_penalty is 0"));
    }
}
