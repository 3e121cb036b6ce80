//! Masked language modelling. In: texts. Out: an encoder with its tokenizer.
//!
//! Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>. Masks are drawn anew every epoch, and are a pure function of
//! (seed, epoch, text), however texts are batched.

use std::ops::Range;

use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use data::source::TextSource;
use data::{DataError, Role, TextTokenizer};
use model::HeadKind;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::text::{Collate, Sample, TextData, Texts, TokenBatch, TrainedTokenizer};
use train::job::{Job, Product, Recipe, Splits, Start};
use train::objectives::class_loss::{ClassLoss, SmoothingRecipe};
use train::objectives::tokens::{Predicted, TokenPrediction};
use train::recipe::Impossible;

/// The objective; `assets/recipes/mlm.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mlm {
    /// Which texts, and how they are split.
    pub data: Texts,
    /// What turns them into tokens.
    pub tokenizer: TrainedTokenizer,
    /// Which tokens are predicted.
    pub masking: Masking,
    /// Cross-entropy over the vocabulary.
    pub loss: SmoothingRecipe,
}

/// `[masking]`: which tokens are predicted, and what the model sees in their place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    /// Share of the tokens that are predicted.
    pub rate: f64,
    /// Of these, share replaced by the mask token.
    pub mask: f64,
    /// Of these, share replaced by a random token; the rest stays.
    pub random: f64,
    /// What is masked together.
    #[serde(default)]
    pub unit: MaskUnit,
}

/// What is masked together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskUnit {
    /// Each token by itself.
    #[default]
    Token,
    /// All tokens of a word, each replaced by itself.
    Word,
    /// Words in a row, all replaced alike: SpanBERT, Joshi et al. 2019, <https://arxiv.org/abs/1907.10529>.
    Span,
}

/// The share of spans that end after each of their words, and words of the longest.
const SPAN_END: f64 = 0.2;
const LONGEST_SPAN: usize = 10;

impl Masking {
    /// Says what is impossible about these values, if anything is.
    pub fn check(self) -> Result<(), Impossible> {
        let Self {
            rate, mask, random, ..
        } = self;
        if !(rate > 0.0 && rate <= 1.0) {
            let reason = format!("is {rate}; it must be above 0 and at most 1");
            return Err(Impossible::new("masking.rate", reason));
        }
        if !(mask >= 0.0 && random >= 0.0 && mask + random <= 1.0) {
            let reason = format!("{mask} and masking.random {random} are no shares of one whole");
            return Err(Impossible::new("masking.mask", reason));
        }
        Ok(())
    }
}

impl Job for Mlm {
    const NAME: &'static str = "mlm";
    const ABOUT: &'static str = "masked language modelling of texts";
    const KEY: &'static str = "objective";
    const RECIPE: &'static str = include_str!("../../assets/recipes/mlm.toml");
    type Source = TextSource;
    type Data = TextData;
    type Batch = Predicted;
    type Objective<B: AutodiffBackend> = TokenPrediction<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.masking.check()?;
        self.loss.check()?;
        self.data.check(&self.tokenizer, recipe)
    }

    fn source(&self, _: &Start) -> Result<TextSource, Failure> {
        self.data.source()
    }

    fn data(
        &self,
        recipe: &Recipe,
        start: &Start,
        source: TextSource,
    ) -> Result<TextData, Failure> {
        start.check_causal(false, "pretrain clm")?;
        let data = self.data.read(source, &self.tokenizer, recipe, start)?;
        mask_token(&data.tokenizer)?;
        Ok(data)
    }

    fn product(&self, data: &TextData) -> Result<Product, Failure> {
        data.product(HeadKind::Tokens)
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &TextData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TokenPrediction<B>, Failure> {
        let model = data.token_model(start, device)?;
        let loss = ClassLoss::smoothed(self.loss.label_smoothing);
        Ok(TokenPrediction::new(model, loss))
    }

    fn batches(&self, recipe: &Recipe, data: TextData) -> Result<Splits<Predicted>, Failure> {
        let mask = mask_token(&data.tokenizer)?;
        data.batches(recipe, |tokenizer, _, seed| {
            Masks::new(self.masking, tokenizer, mask, seed)
        })
    }
}

/// What hides a token.
///
/// # Errors
///
/// A tokenizer without one.
pub fn mask_token(tokenizer: &TextTokenizer) -> Result<u32, DataError> {
    tokenizer.required(Role::Mask)
}

/// Masks rows, each by its number; special tokens are never predicted.
pub struct Masks {
    masking: Masking,
    mask: u32,
    pad: u32,
    special: Vec<u32>,
    /// Whether a token goes on with a word, by id.
    goes_on: Vec<bool>,
    vocab_size: usize,
    seed: u64,
}

impl Masks {
    /// Masks that are functions of the seed.
    ///
    /// - mask: id of the mask token
    pub fn new(masking: Masking, tokenizer: &TextTokenizer, mask: u32, seed: u64) -> Self {
        Self {
            masking,
            mask,
            pad: tokenizer.pad(),
            special: tokenizer.special_ids(),
            goes_on: match masking.unit {
                MaskUnit::Token => Vec::new(),
                MaskUnit::Word | MaskUnit::Span => tokenizer.continuations(),
            },
            vocab_size: tokenizer.vocab_size(),
            seed,
        }
    }

    /// Words of a sequence as places from and to; special tokens are in none.
    fn words(&self, tokens: &[u32]) -> Vec<Range<usize>> {
        let mut words: Vec<Range<usize>> = Vec::new();
        for (place, token) in tokens.iter().enumerate() {
            if self.special.contains(token) {
                continue;
            }
            let goes_on = self.goes_on.get(*token as usize) == Some(&true);
            match words.last_mut().filter(|word| goes_on && word.end == place) {
                Some(word) => word.end += 1,
                None => words.push(place..place + 1),
            }
        }
        words
    }

    /// Masks a sequence; calls `predict` with each place and what was there.
    fn mask(&self, tokens: &mut [u32], rng: &mut impl Rng, predict: &mut impl FnMut(usize, u32)) {
        match self.masking.unit {
            MaskUnit::Token => {
                for (place, token) in tokens.iter_mut().enumerate() {
                    if self.special.contains(token) || rng.random::<f64>() >= self.masking.rate {
                        continue;
                    }
                    predict(place, *token);
                    *token = self.replacement(*token, rng);
                }
            }
            MaskUnit::Word => {
                for word in self.words(tokens) {
                    if rng.random::<f64>() >= self.masking.rate {
                        continue;
                    }
                    for place in word {
                        predict(place, tokens[place]);
                        tokens[place] = self.replacement(tokens[place], rng);
                    }
                }
            }
            MaskUnit::Span => {
                for span in self.spans(tokens, rng) {
                    let fate: f64 = rng.random();
                    for place in span {
                        // A text may end between its words.
                        if self.special.contains(&tokens[place]) {
                            continue;
                        }
                        predict(place, tokens[place]);
                        tokens[place] = self.replaced(tokens[place], fate, rng);
                    }
                }
            }
        }
    }

    /// Spans of words, in their order, that together have about the share of the tokens that is predicted.
    fn spans(&self, tokens: &[u32], rng: &mut impl Rng) -> Vec<Range<usize>> {
        let words = self.words(tokens);
        let all: usize = words.iter().map(Range::len).sum();
        let wanted = self.masking.rate * all as f64;
        // A part of a token is one token as often.
        let wanted = wanted.floor() as usize + usize::from(rng.random::<f64>() < wanted.fract());
        let (mut free, mut chosen, mut spans) = (vec![true; words.len()], 0, Vec::new());
        // Where spans leave no room of the length that is drawn, another is drawn, but not for ever.
        for _ in 0..20 * words.len() {
            if chosen >= wanted {
                break;
            }
            let mut length = 1;
            while length < LONGEST_SPAN && rng.random::<f64>() >= SPAN_END {
                length += 1;
            }
            let first = rng.random_range(0..words.len());
            let mut end = first + length;
            if end > words.len() || !free[first..end].iter().all(|free| *free) {
                continue;
            }
            // The last span has as many words as are wanted yet, at least one.
            let tokens = |end: usize| words[end - 1].end - words[first].start;
            while end > first + 1 && chosen + tokens(end) > wanted {
                end -= 1;
            }
            let span = words[first].start..words[end - 1].end;
            free[first..end].fill(false);
            chosen += span.len();
            spans.push(span);
        }
        spans.sort_by_key(|span| span.start);
        spans
    }

    fn replacement(&self, token: u32, rng: &mut impl Rng) -> u32 {
        let fate: f64 = rng.random();
        self.replaced(token, fate, rng)
    }

    /// - fate: from 0 to 1, by which it is masked, replaced by another, or stays
    fn replaced(&self, token: u32, fate: f64, rng: &mut impl Rng) -> u32 {
        if fate < self.masking.mask {
            return self.mask;
        }
        if fate >= self.masking.mask + self.masking.random {
            return token;
        }
        loop {
            let drawn = rng.random_range(0..self.vocab_size as u32);
            if !self.special.contains(&drawn) {
                return drawn;
            }
        }
    }
}

impl Collate for Masks {
    type Batch = Predicted;

    fn collate(&self, rows: Vec<Sample>) -> Predicted {
        let seq = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        let (mut at, mut targets) = (Vec::new(), Vec::new());
        let mut masked = Vec::with_capacity(rows.len());
        for (
            row,
            Sample {
                mut tokens, number, ..
            },
        ) in rows.into_iter().enumerate()
        {
            let mut rng = order::rng(self.seed, Stream::Mask, number);
            self.mask(&mut tokens, &mut rng, &mut |place, token| {
                at.push((row * seq + place) as i32);
                targets.push(token);
            });
            masked.push(tokens);
        }
        let inputs = TokenBatch::pad(masked.iter().map(Vec::as_slice), self.pad);
        Predicted {
            inputs,
            at,
            targets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::optim::{GradientsParams, Optimizer as _};
    use burn::tensor::backend::Backend;
    use data::TokenRows;
    use model::{Draw, TextConfig, TokenModel};
    use train::Objective;
    use train::job::Setup;
    use train::job::text::{Sequences, TextBatches};
    use train::optim::optimizer::Optimizer;
    use train::source::{BatchSource, Counts, Epochs};

    const TEXTS: [&str; 4] = [
        "a small bird that sings",
        "a large bird that does not fly",
        "a tool made of iron",
        "a small tool that cuts",
    ];

    fn tokenizer() -> TextTokenizer {
        TextTokenizer::train_wordpiece(&TEXTS, 80).unwrap()
    }

    fn rows(tokenizer: &TextTokenizer) -> TokenRows {
        TokenRows::from_rows(&tokenizer.encode(&TEXTS, 16).unwrap())
    }

    fn masks(masking: Masking, tokenizer: &TextTokenizer) -> Masks {
        Masks::new(masking, tokenizer, tokenizer.mask(), 1)
    }

    fn in_batches(masking: Masking, tokenizer: &TextTokenizer, size: usize) -> TextBatches<Masks> {
        let texts = rows(tokenizer);
        let epochs = Epochs::in_order(texts.len(), size);
        TextBatches::new(Sequences::Texts(texts, epochs), masks(masking, tokenizer))
    }

    fn source(masking: Masking) -> (TextBatches<Masks>, TextTokenizer) {
        let tokenizer = tokenizer();
        (in_batches(masking, &tokenizer, TEXTS.len()), tokenizer)
    }

    fn masking(rate: f64, mask: f64, random: f64) -> Masking {
        Masking {
            rate,
            mask,
            random,
            unit: MaskUnit::Token,
        }
    }

    #[test]
    fn masks_do_not_depend_on_the_batches() {
        let (whole, tokenizer) = source(masking(0.5, 0.8, 0.1));
        for size in [1, 2] {
            let parts = in_batches(masking(0.5, 0.8, 0.1), &tokenizer, size);
            for epoch in 0..5 {
                let rows = |batch: Predicted| -> Vec<Vec<i32>> {
                    let inputs = batch.inputs;
                    let rows = inputs.tokens.chunks(inputs.seq).zip(inputs.lengths);
                    rows.map(|(row, length)| row[..length].to_vec()).collect()
                };
                let batches = (4 / size) as u64;
                let numbers = epoch * batches..(epoch + 1) * batches;
                let parts: Vec<_> = numbers.flat_map(|n| rows(parts.batch(n))).collect();
                assert_eq!(parts, rows(whole.batch(epoch)));
            }
        }
    }

    #[test]
    fn masks_are_a_function_of_a_samples_number_alone() {
        let tokenizer = tokenizer();
        let masks = masks(masking(0.5, 0.8, 0.1), &tokenizer);
        let sample = |number| Sample {
            tokens: rows(&tokenizer).row(1),
            starts: vec![0],
            number,
        };
        let one = |number| masks.collate(vec![sample(number)]);
        assert_eq!(one(7), one(7));
        let drawn: Vec<_> = (0..8).map(|number| one(number).inputs.tokens).collect();
        assert!(drawn.iter().any(|tokens| tokens != &drawn[0]));
        let pair = masks.collate(vec![sample(3), sample(7)]);
        assert_eq!(pair.inputs.tokens[pair.inputs.seq..], one(7).inputs.tokens);
    }

    /// A place, and what stands there now.
    type Seen = (usize, u32);

    /// Which tokens of long rows of whole words are predicted, with what stands in their place.
    fn predicted(unit: MaskUnit) -> (Masks, Vec<u32>, Vec<Seen>, usize) {
        let tokenizer = tokenizer();
        let masking = Masking {
            unit,
            ..masking(0.15, 0.8, 0.1)
        };
        let masks = masks(masking, &tokenizer);
        let text =
            ["a small bird that sings does not fly and a tool made of iron cuts"; 8].join(" ");
        let row = tokenizer.encode_one(&text, 400).unwrap();
        let mut all = Vec::new();
        for number in 0..200 {
            let mut tokens = row.clone();
            let mut rng = order::rng(3, Stream::Mask, number);
            let mut found = Vec::new();
            masks.mask(&mut tokens, &mut rng, &mut |place, token| {
                found.push((place, token))
            });
            assert!(found.iter().all(|&(place, token)| row[place] == token));
            assert!(
                found.windows(2).all(|pair| pair[0].0 < pair[1].0),
                "each place once, in order"
            );
            all.extend(found.iter().map(|&(place, _)| (place, tokens[place])));
        }
        let tokens = masks.words(&row).iter().map(Range::len).sum::<usize>() * 200;
        (masks, row, all, tokens)
    }

    #[test]
    fn words_and_spans_are_masked_whole_and_as_often() {
        for unit in [MaskUnit::Token, MaskUnit::Word, MaskUnit::Span] {
            let (masks, row, all, tokens) = predicted(unit);
            let share = all.len() as f64 / tokens as f64;
            assert!((share - 0.15).abs() < 0.02, "{unit:?}: {share}");
            let hidden = all.iter().filter(|(_, now)| *now == masks.mask).count() as f64;
            let hidden = hidden / all.len() as f64;
            assert!((hidden - 0.8).abs() < 0.06, "{unit:?}: {hidden}");
            if unit != MaskUnit::Token {
                let words = masks.words(&row);
                assert!(
                    words.iter().any(|word| word.len() > 1),
                    "some words have several tokens"
                );
                let places: std::collections::HashMap<usize, usize> =
                    all.iter()
                        .fold(Default::default(), |mut counts, (place, _)| {
                            *counts.entry(*place).or_default() += 1;
                            counts
                        });
                for word in words {
                    let counts: Vec<usize> = word
                        .map(|place| places.get(&place).copied().unwrap_or(0))
                        .collect();
                    assert!(
                        counts.iter().all(|count| *count == counts[0]),
                        "{unit:?}: {counts:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn spans_leave_what_separates_texts() {
        let tokenizer = tokenizer();
        let masking = Masking {
            unit: MaskUnit::Span,
            ..masking(0.5, 1.0, 0.0)
        };
        let masks = masks(masking, &tokenizer);
        let one = tokenizer.encode_one("a small bird", 16).unwrap();
        let row = [one.as_slice(), &one[1..], &one[1..]].concat();
        for number in 0..50 {
            let mut tokens = row.clone();
            let mut rng = order::rng(3, Stream::Mask, number);
            masks.mask(&mut tokens, &mut rng, &mut |_, token| {
                assert!(!masks.special.contains(&token));
            });
            let ends = |tokens: &[u32]| tokens.iter().filter(|id| **id == tokenizer.sep()).count();
            assert_eq!(ends(&tokens), 3);
        }
    }

    #[test]
    fn packed_sequences_leave_no_padding() {
        let tokenizer = tokenizer();
        let recipe = |batch_size: usize| {
            let size = format!("training.batch_size={batch_size}");
            let settings = ["training.packing=true", "tokenizer.max_length=7", &size];
            Setup::<Mlm>::with(&settings).unwrap()
        };
        let setup = recipe(2);
        let sequences =
            Sequences::shuffled(rows(&tokenizer), &setup.recipe, &tokenizer, 7).unwrap();
        let source = TextBatches::new(sequences, masks(setup.job.masking, &tokenizer));
        let batch = source.batch(5);
        assert_eq!((batch.real(), batch.padded()), (14, 14));
        let first = batch.inputs.tokens[7];
        // Masks never hide it.
        assert_eq!(first, tokenizer.cls() as i32);
        assert_eq!(batch, source.batch(5));
        let many = recipe(1000).recipe;
        let error = Sequences::shuffled(rows(&tokenizer), &many, &tokenizer, 7).err();
        assert_eq!(error.unwrap().key, "training.batch_size");
    }

    #[test]
    fn a_batch_is_a_function_of_seed_and_number() {
        let (source, _) = source(masking(0.5, 0.8, 0.1));
        assert_eq!(source.batch(3), source.batch(3));
        assert_ne!(source.batch(3), source.batch(4), "drawn anew every epoch");
    }

    #[test]
    fn with_certain_masking_everything_but_special_tokens_is_masked() {
        let (source, tokenizer) = source(masking(1.0, 1.0, 0.0));
        let batch = source.batch(0);
        let special = tokenizer.special_ids();
        assert_eq!(batch.at.len(), batch.real() - 2 * TEXTS.len());
        assert!(batch.targets.iter().all(|id| !special.contains(id)));
        let mask = tokenizer.mask() as i32;
        assert!(
            batch
                .at
                .iter()
                .all(|&at| batch.inputs.tokens[at as usize] == mask)
        );
    }

    #[test]
    fn kept_tokens_stay_and_random_ones_are_never_special() {
        let (kept, _) = source(masking(1.0, 0.0, 0.0));
        let batch = kept.batch(0);
        for (&at, &target) in batch.at.iter().zip(&batch.targets) {
            assert_eq!(batch.inputs.tokens[at as usize], target as i32);
        }
        let (random, tokenizer) = source(masking(1.0, 0.0, 1.0));
        let special = tokenizer.special_ids();
        let batch = random.batch(0);
        for &at in &batch.at {
            let id = batch.inputs.tokens[at as usize] as u32;
            assert!(!special.contains(&id));
        }
    }

    #[test]
    fn the_share_of_predicted_tokens_is_the_rate() {
        let (source, _) = source(masking(0.15, 0.8, 0.1));
        let (mut predicted, mut words) = (0, 0);
        for number in 0..400 {
            let batch = source.batch(number);
            predicted += batch.at.len();
            words += batch.real() - 2 * TEXTS.len();
        }
        let rate = predicted as f64 / words as f64;
        // Standard deviation 0.003 over some 12,000 tokens.
        assert!((rate - 0.15).abs() < 0.012, "{rate}");
    }

    #[test]
    fn a_batch_without_a_mask_predicts_nothing() {
        let (source, _) = source(masking(1e-9, 0.8, 0.1));
        let batch = source.batch(0);
        assert!(batch.targets.is_empty() && batch.at.is_empty());
        let device = Default::default();
        let config = config(tokenizer().vocab_size());
        let model = TokenModel::<Autodiff<Flex>>::draw(&config, &Draw::new(&device, 0.02));
        let sums = TokenPrediction::new(model, ClassLoss::default()).loss(&batch, &device);
        assert_eq!((sums.targets, sums.weight), (0, 0.0));
        assert_eq!(sums.loss.into_scalar(), 0.0);
    }

    fn config(vocab_size: usize) -> TextConfig {
        let setup = Setup::<Mlm>::with(&["model.hidden_size=32"]).unwrap();
        let mut config = setup.recipe.text_sizes().unwrap();
        config.set_vocabulary(vocab_size, 0);
        config
    }

    #[test]
    fn one_batch_can_be_overfitted() {
        type B = Autodiff<Flex>;
        let device = Default::default();
        let (source, tokenizer) = source(masking(0.5, 0.8, 0.1));
        let config = config(tokenizer.vocab_size());
        B::seed(&device, 0);
        let model = TokenModel::<B>::draw(&config, &Draw::new(&device, 0.02));
        let mut objective = TokenPrediction::new(model, ClassLoss::default());
        let rules = Setup::<Mlm>::built_in().unwrap().recipe.optimizer;
        let names = config.names(HeadKind::Tokens);
        let groups = rules.groups(&[], &objective, names).unwrap();
        let mut optimizer = Optimizer::new(rules, groups);
        let batch = source.batch(0);
        let mut mean = f64::INFINITY;
        for step in 0..150 {
            let sums = objective.loss(&batch, &device);
            mean = f64::from(sums.loss.clone().into_scalar()) / sums.targets as f64;
            optimizer.prepare(step, sums.weight);
            let gradients = GradientsParams::from_grads(sums.loss.backward(), &objective);
            objective = optimizer.step(5e-3, objective, gradients);
        }
        assert!(mean < 0.05, "{mean}");
    }

    #[test]
    fn impossible_recipes_are_refused() {
        let broken = |settings: &[&str]| {
            let setup = Setup::<Mlm>::with(settings).unwrap();
            setup.check().unwrap_err().to_string()
        };
        for (settings, words) in [
            (&["model.num_attention_heads=3"][..], "do not divide"),
            (&["tokenizer.max_length=129"], "128 positions"),
            (&["training.tokens=63"], "longest text"),
            (
                &["training.tokens=640", "training.packing=true"],
                "training.packing is true",
            ),
            (&["masking.rate=2.0"], "masking.rate is 2"),
            (
                &["masking.mask=0.8", "masking.random=0.3"],
                "masking.mask 0.8 and masking.random 0.3",
            ),
            (&["loss.label_smoothing=1.0"], "loss.label_smoothing is 1"),
        ] {
            let error = broken(settings);
            assert!(error.contains(words), "{settings:?}: {error}");
        }
    }
}
