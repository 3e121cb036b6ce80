//! Writes the text that an encoder-decoder makes of another, greedily or by beams. In: a model, texts, how to search. Out:
//! the best texts, token by token as `transformers` 5 finds them.
//!
//! Reading order: [`Search`] and how `generation_config.json` gives it, [`generate`], the two searches, then what changes the
//! scores of words before one is chosen.

use burn::prelude::*;
use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bundle::{Bundle, BundleError, GENERATION};
use crate::cache::Seq2SeqCache;
use crate::families::llama::TokenIds;
use crate::families::{Seq2SeqPlan, TokenInput};
use crate::heads::Seq2SeqModel;

/// When beams stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum EarlyStopping {
    /// When there are as many texts as beams.
    Yes,
    /// When what is being written would be worse than those, if it ended now.
    #[default]
    No,
    /// When it would be worse at any length.
    Never,
}

impl TryFrom<Value> for EarlyStopping {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::Bool(true) => Ok(Self::Yes),
            Value::Bool(false) => Ok(Self::No),
            Value::String(word) if word == "never" => Ok(Self::Never),
            other => Err(format!(
                "early_stopping is {other}; it must be true, false or \"never\""
            )),
        }
    }
}

impl From<EarlyStopping> for Value {
    fn from(stopping: EarlyStopping) -> Self {
        match stopping {
            EarlyStopping::Yes => json!(true),
            EarlyStopping::No => json!(false),
            EarlyStopping::Never => json!("never"),
        }
    }
}

/// How a text is searched. Names and meanings are those of `generation_config.json`; lengths count the token that the decoder
/// reads first.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Texts that are followed at a time; 1 takes the likeliest word each time.
    pub num_beams: usize,
    /// Texts that come out; no more than beams.
    pub num_return_sequences: usize,
    /// Tokens of the longest text.
    pub max_length: usize,
    /// Tokens that a text has before it may end.
    pub min_length: usize,
    /// A text's score is divided by its number of words to the power of this: above 0 favours long texts.
    pub length_penalty: f64,
    /// When beams stop.
    pub early_stopping: EarlyStopping,
    /// Words in a row of this number occur once; 0 forbids nothing. Paulus et al. 2017, <https://arxiv.org/abs/1705.04304>.
    pub no_repeat_ngram_size: usize,
    /// What the scores of words that occurred are divided by, or multiplied by below 0; 1 changes nothing.
    pub repetition_penalty: f64,
    /// Sequences of tokens that must not occur.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Whether scores are made probabilities again after what changes them.
    pub renormalize_logits: bool,
    /// The first word.
    pub forced_bos_token_id: Option<u32>,
    /// What a text of `max_length` ends with; nothing where there are none.
    pub forced_eos_token_id: Vec<u32>,
    /// What the decoder reads first.
    pub decoder_start_token_id: u32,
    /// Any of them ends a text.
    pub eos_token_id: Vec<u32>,
}

/// What a file may say of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    num_beams: Option<usize>,
    num_return_sequences: Option<usize>,
    max_length: Option<usize>,
    max_new_tokens: Option<usize>,
    min_length: Option<usize>,
    min_new_tokens: Option<usize>,
    length_penalty: Option<f64>,
    early_stopping: Option<EarlyStopping>,
    no_repeat_ngram_size: Option<usize>,
    repetition_penalty: Option<f64>,
    bad_words_ids: Option<Vec<Vec<u32>>>,
    renormalize_logits: Option<bool>,
    forced_bos_token_id: Option<u32>,
    forced_eos_token_id: Option<TokenIds>,
    decoder_start_token_id: Option<u32>,
    eos_token_id: Option<TokenIds>,
}

/// Keys that change which text is found and are not implemented, with the value, as JSON, that changes nothing.
const FIXED: &[(&str, &str)] = &[
    ("encoder_no_repeat_ngram_size", "0"),
    ("encoder_repetition_penalty", "1.0"),
    ("num_beam_groups", "1"),
    ("diversity_penalty", "0.0"),
    ("penalty_alpha", "0.0"),
    ("exponential_decay_length_penalty", "null"),
    ("suppress_tokens", "null"),
    ("begin_suppress_tokens", "null"),
    ("sequence_bias", "null"),
    ("force_words_ids", "null"),
    ("guidance_scale", "1.0"),
];

/// New words where nothing says how many.
const NEW_TOKENS: usize = 20;

impl Search {
    /// What `transformers` does where nothing is said.
    pub fn new(plan: &Seq2SeqPlan) -> Self {
        Self::of_keys(Keys::default(), plan)
    }

    /// What a bundle says: its `generation_config.json`, or without that file its `config.json`. Sampling is left out: a
    /// search takes the best.
    ///
    /// # Errors
    ///
    /// A key that is of another type, impossible, or changes the search in a way that is not implemented.
    pub fn of(bundle: &Bundle, plan: &Seq2SeqPlan) -> Result<Self, BundleError> {
        let file = bundle.read_optional(GENERATION)?;
        let name = if file.is_some() {
            GENERATION
        } else {
            crate::bundle::CONFIG
        };
        let wrong = |reason: String| BundleError::Config {
            path: bundle.path().join(name),
            reason,
        };
        let said: Value = match &file {
            Some(bytes) => serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?,
            None => bundle.raw_config().clone(),
        };
        for (key, only) in FIXED {
            if let Some(found) = said.get(key).filter(|found| changes(found, only)) {
                return Err(wrong(format!(
                    "{key} is {found}; only {only} is implemented"
                )));
            }
        }
        let mut keys = Keys::deserialize(&said).map_err(|e| wrong(e.to_string()))?;
        if file.is_none() && keys.forced_eos_token_id.is_none() {
            keys.forced_eos_token_id = Some(TokenIds::Several(plan.forced_eos.clone()));
        }
        let search = Self::of_keys(keys, plan);
        search.check(plan).map_err(wrong)?;
        Ok(search)
    }

    fn of_keys(keys: Keys, plan: &Seq2SeqPlan) -> Self {
        let longest = plan.positions.unwrap_or(usize::MAX).min(NEW_TOKENS + 1);
        let with_start = |new: usize| new.saturating_add(1);
        let ids = |ids: Option<TokenIds>| ids.map(|ids| ids.ids());
        Self {
            num_beams: keys.num_beams.unwrap_or(1),
            num_return_sequences: keys.num_return_sequences.unwrap_or(1),
            max_length: keys
                .max_new_tokens
                .map(with_start)
                .or(keys.max_length)
                .unwrap_or(longest),
            min_length: keys
                .min_new_tokens
                .map(with_start)
                .or(keys.min_length)
                .unwrap_or(0),
            length_penalty: keys.length_penalty.unwrap_or(1.0),
            early_stopping: keys.early_stopping.unwrap_or_default(),
            no_repeat_ngram_size: keys.no_repeat_ngram_size.unwrap_or(0),
            repetition_penalty: keys.repetition_penalty.unwrap_or(1.0),
            bad_words_ids: keys.bad_words_ids.unwrap_or_default(),
            renormalize_logits: keys.renormalize_logits.unwrap_or(false),
            forced_bos_token_id: keys.forced_bos_token_id,
            forced_eos_token_id: ids(keys.forced_eos_token_id).unwrap_or_default(),
            decoder_start_token_id: keys.decoder_start_token_id.unwrap_or(plan.start),
            eos_token_id: ids(keys.eos_token_id).unwrap_or_else(|| plan.eos.clone()),
        }
    }

    /// Says what is impossible about these values, if anything is.
    ///
    /// # Errors
    ///
    /// The name of the value, and what it must be.
    pub fn check(&self, plan: &Seq2SeqPlan) -> Result<(), String> {
        let (beams, texts) = (self.num_beams, self.num_return_sequences);
        if beams == 0 {
            return Err("num_beams is 0; it must be at least 1".into());
        }
        if !(1..=beams).contains(&texts) {
            return Err(format!(
                "num_return_sequences is {texts}; it must be from 1 to the {beams} of num_beams"
            ));
        }
        // The last word is written and not read.
        let most = plan.positions.map_or(usize::MAX, |positions| positions + 1);
        let longest = self.max_length;
        if !(2..=most).contains(&longest) {
            return Err(format!(
                "max_length is {longest}; it must be at least 2 and at most {most} with the model's positions"
            ));
        }
        if !self.length_penalty.is_finite() {
            let penalty = self.length_penalty;
            return Err(format!("length_penalty is {penalty}; it must be finite"));
        }
        let penalty = self.repetition_penalty;
        if !(penalty.is_finite() && penalty > 0.0) {
            return Err(format!(
                "repetition_penalty is {penalty}; it must be above 0"
            ));
        }
        if self.bad_words_ids.iter().any(Vec::is_empty) {
            return Err("bad_words_ids holds an empty sequence".into());
        }
        let forced = self
            .forced_bos_token_id
            .iter()
            .chain([&self.decoder_start_token_id]);
        let words = plan.target_vocab_size;
        let outside = |id: &&u32| **id as usize >= words;
        match forced.chain(&self.forced_eos_token_id).find(outside) {
            Some(id) => Err(format!("token {id} is outside the {words} tokens")),
            None => Ok(()),
        }
    }

    /// `generation_config.json`.
    ///
    /// - plan: of the model, whose padding token stands there too
    pub fn json(&self, plan: &Seq2SeqPlan) -> Value {
        let ids = |ids: &[u32]| match ids {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        let mut all = json!({
            "bad_words_ids": self.bad_words_ids,
            "decoder_start_token_id": self.decoder_start_token_id,
            "early_stopping": self.early_stopping,
            "eos_token_id": ids(&self.eos_token_id),
            "forced_bos_token_id": self.forced_bos_token_id,
            "forced_eos_token_id": ids(&self.forced_eos_token_id),
            "length_penalty": self.length_penalty,
            "max_length": self.max_length,
            "min_length": self.min_length,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "num_beams": self.num_beams,
            "num_return_sequences": self.num_return_sequences,
            "pad_token_id": plan.pad,
            "renormalize_logits": self.renormalize_logits,
            "repetition_penalty": self.repetition_penalty,
        });
        if let Some(all) = all.as_object_mut() {
            all.retain(|_, value| !value.is_null() && *value != json!([]));
        }
        all
    }
}

/// Whether a key has another value than this one; numbers are compared as numbers.
fn changes(found: &Value, only: &str) -> bool {
    if found.is_null() {
        return false;
    }
    match (found.as_f64(), only.parse::<f64>()) {
        (Some(found), Ok(only)) => found != only,
        _ => {
            let found = found.to_string();
            found != only
        }
    }
}

/// A text that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The token that the decoder reads first, the words, and the token that ends them, if one does.
    pub tokens: Vec<u32>,
    /// Logarithm of its probability, divided as `length_penalty` says; none of a greedy search.
    pub score: Option<f32>,
}

/// Writes a text for each of a batch; the best of each come first.
///
/// - layers: of the decoder; the keys and values of each are kept. None keeps nothing and reads all tokens again
///
/// # Panics
///
/// As [`Seq2SeqModel::logits`]; if [`Search::check`] finds the search impossible, it may panic too.
pub fn generate<B: Backend>(
    model: &Seq2SeqModel<B>,
    input: &TokenInput<B>,
    search: &Search,
    layers: Option<usize>,
) -> Vec<Vec<Written>> {
    let encoded = model.backbone.encode(input);
    let mut cache = layers.map(Seq2SeqCache::new);
    let device = input.tokens.device();
    let mut next = |rows: &[Vec<u32>], from: Option<&[usize]>| {
        if let (Some(cache), Some(from)) = (&mut cache, from) {
            let from: Vec<i32> = from.iter().map(|&row| row as i32).collect();
            let n = from.len();
            let from = Tensor::from_data(TensorData::new(from, [n]), &device);
            cache.own.select(&from);
        }
        let read = cache.as_ref().map_or(0, |cache| cache.own.read());
        let new = rows.iter().flat_map(|row| &row[read..]);
        let new: Vec<i32> = new.map(|&id| id as i32).collect();
        let shape = [rows.len(), new.len() / rows.len()];
        let tokens = Tensor::from_data(TensorData::new(new, shape), &device);
        let scores = model.next(tokens, &encoded, cache.as_mut());
        scores.into_data().iter::<f32>().collect()
    };
    let [batch, _] = encoded.shape;
    if search.num_beams == 1 {
        return search.greedy(batch, &mut next);
    }
    search.beams(batch, &mut next)
}

/// Gives the scores of the words that come next, `[rows * vocab_size]`.
///
/// - the rows so far; and which of the rows before each one goes on with, where that is not the same one
type Next<'a> = dyn FnMut(&[Vec<u32>], Option<&[usize]>) -> Vec<f32> + 'a;

/// What is taken from the score of a text that does not count.
const OUT: f32 = -1e9;

/// A text that is being written.
#[derive(Clone, Debug)]
struct Beam {
    tokens: Vec<u32>,
    score: f32,
}

/// A beam, a word that may come next, and the score of both.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    beam: usize,
    word: u32,
    score: f32,
}

/// The search for one text.
#[derive(Debug)]
struct Hunt {
    running: Vec<Beam>,
    /// Those that ended, the best first.
    ended: Vec<Beam>,
    /// Whether what is being written could be better than what ended.
    open: bool,
}

impl Search {
    fn greedy(&self, batch: usize, next: &mut Next) -> Vec<Vec<Written>> {
        let mut rows = vec![vec![self.decoder_start_token_id]; batch];
        let mut ends: Vec<Option<usize>> = vec![None; batch];
        while rows.iter().any(|row| row.len() < self.max_length) && ends.contains(&None) {
            let mut scores = next(&rows, None);
            let words = scores.len() / batch;
            for ((row, end), scores) in rows.iter_mut().zip(&mut ends).zip(scores.chunks_mut(words))
            {
                self.change(scores, row);
                let better =
                    |best: usize, at: usize| if scores[at] > scores[best] { at } else { best };
                let word = (0..words).reduce(better).unwrap_or(0) as u32;
                row.push(word);
                if self.eos_token_id.contains(&word) {
                    end.get_or_insert(row.len());
                }
            }
        }
        let written = |(mut tokens, end): (Vec<u32>, Option<usize>)| {
            // A row that has ended goes on until all have.
            tokens.truncate(end.unwrap_or(usize::MAX));
            vec![Written {
                tokens,
                score: None,
            }]
        };
        rows.into_iter().zip(ends).map(written).collect()
    }

    fn beams(&self, batch: usize, next: &mut Next) -> Vec<Vec<Written>> {
        let beams = self.num_beams;
        let mut hunts: Vec<Hunt> = (0..batch).map(|_| self.begin()).collect();
        let mut from: Option<Vec<usize>> = None;
        loop {
            let running = hunts.iter().flat_map(|hunt| &hunt.running);
            let rows: Vec<Vec<u32>> = running.map(|beam| beam.tokens.clone()).collect();
            let scores = next(&rows, from.as_deref());
            let of_hunt = scores.len() / batch;
            let (mut parents, mut all_end) = (Vec::with_capacity(rows.len()), true);
            for (number, (hunt, scores)) in hunts.iter_mut().zip(scores.chunks(of_hunt)).enumerate()
            {
                let (kept, end) = self.step(hunt, scores);
                parents.extend(kept.into_iter().map(|beam| number * beams + beam));
                all_end &= end;
            }
            from = Some(parents);
            let full = hunts.iter().all(|hunt| self.is_full(hunt));
            let enough = full && self.early_stopping == EarlyStopping::Yes;
            if all_end || enough || !hunts.iter().any(|hunt| hunt.open) {
                break;
            }
        }
        hunts.into_iter().map(|hunt| self.best(hunt)).collect()
    }

    fn begin(&self) -> Hunt {
        let beam = |number: usize| Beam {
            tokens: vec![self.decoder_start_token_id],
            // All are equal at first: the words of one count.
            score: if number == 0 { 0.0 } else { OUT },
        };
        Hunt {
            running: (0..self.num_beams).map(beam).collect(),
            ended: Vec::new(),
            open: true,
        }
    }

    fn is_full(&self, hunt: &Hunt) -> bool {
        hunt.ended.len() == self.num_beams
    }

    /// Adds a word to each beam. Gives the beam that each one goes on with, and whether all candidates ended.
    ///
    /// - scores: `[num_beams * vocab_size]`
    fn step(&self, hunt: &mut Hunt, scores: &[f32]) -> (Vec<usize>, bool) {
        let candidates = self.candidates(&hunt.running, scores);
        let length = hunt.running[0].tokens.len();
        let ends = |candidate: &Candidate| {
            length + 1 >= self.max_length || self.eos_token_id.contains(&candidate.word)
        };
        let extend = |candidate: &Candidate, score: f32| {
            let mut tokens = hunt.running[candidate.beam].tokens.clone();
            tokens.push(candidate.word);
            Beam { tokens, score }
        };
        let may_end =
            hunt.open && !(self.is_full(hunt) && self.early_stopping == EarlyStopping::Yes);
        let divisor = self.divisor(length);
        let top = candidates.iter().take(self.num_beams);
        let just_ended = top
            .filter(|candidate| may_end && ends(candidate))
            .map(|candidate| extend(candidate, candidate.score / divisor));
        let just_ended: Vec<Beam> = just_ended.filter(|beam| beam.score > OUT).collect();
        let mut going: Vec<Candidate> = candidates.clone();
        for candidate in going.iter_mut().filter(|candidate| ends(candidate)) {
            candidate.score += OUT;
        }
        going.sort_by(|a, b| b.score.total_cmp(&a.score));
        going.truncate(self.num_beams);
        let running = going
            .iter()
            .map(|candidate| extend(candidate, candidate.score));
        let running: Vec<Beam> = running.collect();
        hunt.running = running;
        hunt.ended.extend(just_ended);
        hunt.ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        hunt.ended.truncate(self.num_beams);
        hunt.open &= self.could_improve(hunt, length);
        let parents = going.iter().map(|candidate| candidate.beam).collect();
        (parents, candidates.iter().all(ends))
    }

    /// The likeliest continuations of all beams: enough that the beams go on if the best of them end.
    fn candidates(&self, running: &[Beam], scores: &[f32]) -> Vec<Candidate> {
        let words = scores.len() / running.len();
        let mut all = Vec::with_capacity(scores.len());
        for (number, (beam, scores)) in running.iter().zip(scores.chunks(words)).enumerate() {
            let mut scores = scores.to_vec();
            log_softmax(&mut scores);
            self.change(&mut scores, &beam.tokens);
            all.extend(scores.into_iter().zip(0..).map(|(score, word)| Candidate {
                beam: number,
                word,
                score: score + beam.score,
            }));
        }
        let kept = (2.max(1 + self.eos_token_id.len()) * self.num_beams).min(all.len());
        let order = |a: &Candidate, b: &Candidate| {
            let better = b.score.total_cmp(&a.score);
            better.then((a.beam, a.word).cmp(&(b.beam, b.word)))
        };
        if kept < all.len() {
            all.select_nth_unstable_by(kept, order);
            all.truncate(kept);
        }
        all.sort_by(order);
        all
    }

    /// What the score of a text of so many words is divided by.
    fn divisor(&self, words: usize) -> f32 {
        (words as f64).powf(self.length_penalty) as f32
    }

    /// Whether the best beam could become better than the worst of a full list.
    ///
    /// - length: words of each beam
    fn could_improve(&self, hunt: &Hunt, length: usize) -> bool {
        let far = self.early_stopping == EarlyStopping::Never && self.length_penalty > 0.0;
        let words = if far { self.max_length - 1 } else { length };
        let best = hunt.running[0].score / self.divisor(words);
        let worst = hunt.ended.last().filter(|_| self.is_full(hunt));
        best > worst.map_or(OUT, |beam| beam.score)
    }

    fn best(&self, hunt: Hunt) -> Vec<Written> {
        let none_ended = hunt.ended.is_empty();
        let all = if none_ended { hunt.running } else { hunt.ended };
        let written = |beam: Beam| Written {
            tokens: beam.tokens,
            score: Some(beam.score),
        };
        let best = all.into_iter().take(self.num_return_sequences);
        best.map(written).collect()
    }

    /// Changes the scores of the words that may come next.
    ///
    /// - tokens: the text so far
    fn change(&self, scores: &mut [f32], tokens: &[u32]) {
        self.penalise(scores, tokens);
        let mut forbid = |word: u32| {
            if let Some(score) = scores.get_mut(word as usize) {
                *score = f32::NEG_INFINITY;
            }
        };
        let n = self.no_repeat_ngram_size;
        if n > 0 && tokens.len() >= n {
            let end = &tokens[tokens.len() + 1 - n..];
            let same = tokens.windows(n).filter(|window| window[..n - 1] == *end);
            same.for_each(|window| forbid(window[n - 1]));
        }
        for words in &self.bad_words_ids {
            let ends_a_text = words.len() == 1 && self.eos_token_id.contains(&words[0]);
            if let [before @ .., last] = words.as_slice()
                && tokens.ends_with(before)
                && !ends_a_text
            {
                forbid(*last);
            }
        }
        if tokens.len() < self.min_length {
            self.eos_token_id.iter().for_each(|&word| forbid(word));
        }
        if tokens.len() == 1
            && let Some(first) = self.forced_bos_token_id
        {
            force(scores, &[first]);
        }
        if tokens.len() + 1 == self.max_length && !self.forced_eos_token_id.is_empty() {
            force(scores, &self.forced_eos_token_id);
        }
        if self.renormalize_logits {
            log_softmax(scores);
        }
    }

    fn penalise(&self, scores: &mut [f32], tokens: &[u32]) {
        let penalty = self.repetition_penalty as f32;
        if penalty == 1.0 {
            return;
        }
        let mut seen: Vec<usize> = tokens.iter().map(|&word| word as usize).collect();
        seen.sort_unstable();
        seen.dedup();
        for word in seen {
            if let Some(score) = scores.get_mut(word) {
                *score = if *score < 0.0 {
                    *score * penalty
                } else {
                    *score / penalty
                };
            }
        }
    }
}

/// Leaves these words alone.
fn force(scores: &mut [f32], words: &[u32]) {
    scores.fill(f32::NEG_INFINITY);
    for &word in words {
        scores[word as usize] = 0.0;
    }
}

/// Scores to logarithms of probabilities.
fn log_softmax(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if top == f32::NEG_INFINITY {
        return;
    }
    let exponentials = scores.iter().map(|score| f64::from((score - top).exp()));
    let sum = exponentials.sum::<f64>().ln() as f32;
    // In torch's order, as the last bit may choose between two texts.
    scores
        .iter_mut()
        .for_each(|score| *score = *score - top - sum);
}
