//! Masked language modelling of pairs of segments, with a class of each pair. In: texts. Out: an encoder with its pooler, and its
//! tokenizer.
//!
//! Whether two segments of a text are in their order (Lan et al. 2020, <https://arxiv.org/abs/1909.11942>), or whether the second
//! is of the first one's text (Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>). Where a text is cut, and what becomes of
//! its segments, is drawn anew every epoch, a pure function of (seed, epoch, text).

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use data::source::TextSource;
use data::{Role, TextTokenizer, TokenRows};
use model::bundle::Load;
use model::families::Place;
use model::{HeadKind, SentencePairModel};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::text::{Collate, Sample, TextData, Texts, TrainedTokenizer, indices};
use train::job::{BundleWriter, Exported, Job, Product, Recipe, Splits, Start};
use train::metrics::{Metric, Metrics, perplexity, share};
use train::objective::{LossSums, Objective, SumTally};
use train::objectives::class_loss::{ClassLoss, SmoothingRecipe};
use train::objectives::tokens::Predicted;
use train::recipe::Impossible;
use train::source::Counts;

use crate::mlm::{Masking, Masks, mask_token};

/// The objective; `assets/recipes/sentence-pairs.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SentencePairs {
    /// Which texts, and how they are split.
    pub data: Texts,
    /// What turns them into tokens.
    pub tokenizer: TrainedTokenizer,
    /// Which tokens are predicted.
    pub masking: Masking,
    /// What the class of a pair says.
    pub pairs: PairsRecipe,
    /// Cross-entropy over the vocabulary.
    pub loss: SmoothingRecipe,
}

/// `[pairs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairsRecipe {
    /// What the class of a pair says.
    pub kind: PairKind,
}

/// What the class of a pair says; it is so half of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairKind {
    /// Whether two segments that follow each other are swapped.
    Order,
    /// Whether the second segment is of another text.
    Next,
}

/// Special tokens of a pair: one in front of it, one behind each segment.
const SPECIAL: usize = 3;
/// Texts that are drawn before one is found that can be cut.
const TRIES: usize = 20;

impl Job for SentencePairs {
    const NAME: &'static str = "sentence-pairs";
    const ABOUT: &'static str = "masked language modelling of pairs of segments, and their order";
    const KEY: &'static str = "objective";
    const RECIPE: &'static str = include_str!("../../assets/recipes/sentence-pairs.toml");
    type Source = TextSource;
    type Data = TextData;
    type Batch = PairBatch;
    type Objective<B: AutodiffBackend> = PairPrediction<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.masking.check()?;
        self.loss.check()?;
        recipe.adapter.check_none()?;
        recipe.training.check_unpacked()?;
        let (max_length, needed) = (self.tokenizer.given.max_length, SPECIAL + 2);
        if max_length < needed {
            let reason =
                format!("is {max_length}; two words with three special tokens need {needed}");
            return Err(Impossible::new("tokenizer.max_length", reason));
        }
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
        start.check_text_head(HeadKind::SentencePairs)?;
        let data = self.data.read(source, &self.tokenizer, recipe, start)?;
        mask_token(&data.tokenizer)?;
        let cut = Cut::new(&data.tokenizer, data.max_length)?;
        let single = cut.single(&data.train);
        if single == data.train.len() {
            return Err(Failure::input(
                "no text has two words, and a pair is cut between words",
            ));
        }
        if single > 0 {
            let n = data.train.len();
            let text = format!("{single} of {n} texts have less than two words, and are no pairs");
            start.console.note(&text);
        }
        Ok(data)
    }

    fn product(&self, data: &TextData) -> Result<Product, Failure> {
        data.product(HeadKind::SentencePairs)
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &TextData,
        start: &Start,
        device: &B::Device,
    ) -> Result<PairPrediction<B>, Failure> {
        let names = data.config.names(HeadKind::SentencePairs);
        let model = SentencePairModel::draw(&data.config, &start.draw(device, names));
        Ok(PairPrediction {
            model: start.fill(model, names, Load::BackboneAndPerhapsHead)?,
            loss: ClassLoss::smoothed(self.loss.label_smoothing),
        })
    }

    fn batches(&self, recipe: &Recipe, data: TextData) -> Result<Splits<PairBatch>, Failure> {
        let mask = mask_token(&data.tokenizer)?;
        let cut = Cut::new(&data.tokenizer, data.max_length)?;
        let is_told = data.config.describe().segments > 1;
        data.batches(recipe, |tokenizer, rows, seed| Pairs {
            kind: self.pairs.kind,
            masks: Masks::new(self.masking, tokenizer, mask, seed),
            cut: cut.clone(),
            rows: rows.clone(),
            is_told,
            seed,
        })
    }
}

/// Where texts can be cut in two.
#[derive(Clone, Debug)]
pub struct Cut {
    /// In front of a text, and behind it.
    frame: [u32; 2],
    /// Whether a token goes on with a word, by id.
    goes_on: Vec<bool>,
    /// Tokens of both segments.
    room: usize,
}

impl Cut {
    /// - max_length: tokens of the longest pair, special ones counted
    ///
    /// # Errors
    ///
    /// A tokenizer without tokens for the beginning and the end of a text.
    pub fn new(tokenizer: &TextTokenizer, max_length: usize) -> Result<Self, Failure> {
        Ok(Self {
            frame: [
                tokenizer.required(Role::Begin)?,
                tokenizer.required(Role::End)?,
            ],
            goes_on: tokenizer.continuations(),
            room: max_length.saturating_sub(SPECIAL),
        })
    }

    /// The tokens of a row that there is room for, without special ones around them.
    fn text<'a>(&self, row: &'a [u32]) -> &'a [u32] {
        let [begin, end] = self.frame;
        let row = row.strip_prefix(&[begin]).unwrap_or(row);
        let row = row.strip_suffix(&[end]).unwrap_or(row);
        &row[..row.len().min(self.room)]
    }

    /// Where words but the first begin.
    fn places(&self, text: &[u32]) -> Vec<usize> {
        let goes_on = |&place: &usize| self.goes_on.get(text[place] as usize) == Some(&true);
        (1..text.len()).filter(|place| !goes_on(place)).collect()
    }

    /// Two segments of a text, each of a word at least; nothing where it has not so many.
    fn segments(&self, text: &[u32], rng: &mut impl Rng) -> Option<[Vec<u32>; 2]> {
        let places = self.places(text);
        if places.is_empty() {
            return None;
        }
        let place = places[rng.random_range(0..places.len())];
        Some([text[..place].to_vec(), text[place..].to_vec()])
    }

    /// How many rows are of less than two words.
    fn single(&self, rows: &TokenRows) -> usize {
        let is_single = |row: &u32| self.places(self.text(&rows.row(*row))).is_empty();
        (0..rows.len() as u32).filter(is_single).count()
    }

    /// Segments with special tokens around them, and of each token to which it belongs.
    fn joined(&self, segments: &[Vec<u32>]) -> (Vec<u32>, Vec<i32>) {
        let [begin, end] = self.frame;
        let (mut tokens, mut types) = (vec![begin], vec![0]);
        for (number, segment) in segments.iter().enumerate() {
            tokens.extend(segment.iter().chain([&end]));
            types.resize(tokens.len(), number as i32);
        }
        (tokens, types)
    }

    /// Takes tokens from the end of the longer segment until there is room for both.
    fn shorten(&self, segments: &mut [Vec<u32>; 2]) {
        while segments[0].len() + segments[1].len() > self.room {
            let longer = usize::from(segments[1].len() >= segments[0].len());
            segments[longer].pop();
        }
    }
}

/// Masked pairs, and the classes of those that are some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairBatch {
    /// What the model sees, and the tokens to predict.
    pub masked: Predicted,
    /// The first token of each pair, in the flattened `[batch * seq]`.
    pub at: Vec<i32>,
    /// Of each pair: 0 as the text has it, 1 swapped or of two texts.
    pub classes: Vec<u32>,
}

impl Counts for PairBatch {
    fn real(&self) -> usize {
        self.masked.real()
    }

    fn padded(&self) -> usize {
        self.masked.padded()
    }

    fn denominators(&self) -> Vec<f64> {
        vec![self.masked.targets.len() as f64, self.classes.len() as f64]
    }
}

/// Makes pairs of rows, and masks them; both by the number of the row.
pub struct Pairs {
    kind: PairKind,
    masks: Masks,
    cut: Cut,
    /// All of the split.
    rows: TokenRows,
    /// Whether the model is told which segment a token belongs to.
    is_told: bool,
    seed: u64,
}

impl Pairs {
    /// The segments of a row, and their class where they are two.
    fn pair(&self, sample: &Sample) -> (Vec<Vec<u32>>, Option<u32>) {
        let mut rng = order::rng(self.seed, Stream::Sample, sample.number);
        let text = self.cut.text(&sample.tokens);
        let Some([first, second]) = self.cut.segments(text, &mut rng) else {
            return (vec![text.to_vec()], None);
        };
        let other = match self.kind {
            _ if rng.random() => None,
            PairKind::Order => Some([second.clone(), first.clone()]),
            PairKind::Next => {
                let other = self.other(sample.number, &mut rng);
                other.map(|other| [first.clone(), other])
            }
        };
        let class = u32::from(other.is_some());
        let mut pair = other.unwrap_or([first, second]);
        self.cut.shorten(&mut pair);
        (pair.into(), Some(class))
    }

    /// A second segment of another row.
    fn other(&self, number: u64, rng: &mut impl Rng) -> Option<Vec<u32>> {
        let n = self.rows.len();
        let own = (number % n as u64) as usize;
        (0..TRIES).filter(|_| n > 1).find_map(|_| {
            let drawn = rng.random_range(0..n - 1);
            let row = self.rows.row((drawn + usize::from(drawn >= own)) as u32);
            let [_, second] = self.cut.segments(self.cut.text(&row), rng)?;
            Some(second)
        })
    }
}

impl Collate for Pairs {
    type Batch = PairBatch;

    fn collate(&self, rows: Vec<Sample>) -> PairBatch {
        let pairs: Vec<_> = rows.iter().map(|row| self.pair(row)).collect();
        let joined = pairs.iter().map(|(pair, _)| self.cut.joined(pair));
        let (tokens, types): (Vec<_>, Vec<_>) = joined.unzip();
        let rows = rows.into_iter().zip(tokens);
        let rows = rows.map(|(row, tokens)| Sample { tokens, ..row });
        let mut masked = self.masks.collate(rows.collect());
        let seq = masked.inputs.seq;
        if self.is_told {
            let padded = types.into_iter().flat_map(|mut row| {
                row.resize(seq, 0);
                row
            });
            masked.inputs.types = Some(padded.collect());
        }
        let places = masked.inputs.places(Place::First);
        let classes = pairs.iter().map(|(_, class)| *class);
        let of_pairs = places.into_iter().zip(classes);
        let (at, classes) = of_pairs
            .filter_map(|(place, class)| Some((place, class?)))
            .unzip();
        PairBatch {
            masked,
            at,
            classes,
        }
    }
}

/// A model of pairs with its losses.
#[derive(Module, Debug)]
pub struct PairPrediction<B: Backend> {
    /// The model.
    pub model: SentencePairModel<B>,
    loss: ClassLoss,
}

/// Of tokens to predict their loss; pairs, and those whose class is found, for each of them. Other figures are made of them.
const SHARES: [&str; 3] = ["token_loss", "pairs", "pair_hits"];

impl<B: Backend> PairPrediction<B> {
    /// - loss: of tokens
    fn sums(&self, batch: &PairBatch, loss: &ClassLoss, device: &B::Device) -> LossSums<B> {
        let PairBatch {
            masked,
            at,
            classes,
        } = batch;
        let (n, pairs) = (masked.targets.len(), classes.len());
        let none = || Tensor::zeros([1], device);
        let nothing = || LossSums::new(none(), vec![none()], 0);
        let (mut of_tokens, mut of_pairs) = (nothing(), nothing());
        // The last layer is computed at these places alone.
        let places: Vec<i32> = masked.at.iter().chain(at).copied().collect();
        if !places.is_empty() {
            let input = masked.inputs.input(device);
            let places = indices(&places, device);
            let states = self.model.backbone.states(&input, Some(places), None);
            if n > 0 {
                let logits = self.model.token_logits(states.clone().narrow(0, 0, n));
                of_tokens = loss.sums(logits, &masked.targets);
            }
            if pairs > 0 {
                let logits = self.model.pair_logits(states.narrow(0, n, pairs));
                of_pairs = ClassLoss::default().sums(logits, classes);
            }
        }
        let mut sums = of_tokens.sums;
        sums.extend([of_tokens.loss.clone().detach(), none() + pairs as f32]);
        sums.extend(of_pairs.sums);
        LossSums::new(of_tokens.loss, sums, n).with_term(of_pairs.loss, pairs as f64)
    }
}

impl<B: Backend> Exported<B> for PairPrediction<B> {
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

impl<B: Backend> Objective<B> for PairPrediction<B> {
    type Batch = PairBatch;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &["accuracy", SHARES[0], SHARES[1], SHARES[2]];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::lower("perplexity"),
        Metric::higher("accuracy"),
        Metric::higher("pair_accuracy"),
    ];

    fn loss(&self, batch: &PairBatch, device: &B::Device) -> LossSums<B> {
        self.sums(batch, &self.loss, device)
    }

    fn evaluate(&self, batch: &PairBatch, device: &B::Device) -> SumTally {
        // Without smoothing: perplexity follows from it.
        let sums = self.sums(batch, &ClassLoss::default(), device);
        SumTally::read(sums, <Self as Objective<B>>::MEANS)
    }

    fn derive(metrics: &mut Metrics) {
        let [loss, pairs, hits] = SHARES.map(|name| metrics.remove(name).unwrap_or_default());
        metrics.insert("perplexity".into(), perplexity(loss));
        metrics.insert("pair_accuracy".into(), share(hits, pairs));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use model::Draw;
    use train::job::Setup;

    const TEXTS: [&str; 5] = [
        "a small bird that sings",
        "a large bird that does not fly far",
        "iron",
        "the handle of a tool made of iron",
        "rivers",
    ];

    fn tokenizer() -> TextTokenizer {
        TextTokenizer::train_wordpiece(&TEXTS, 60).unwrap()
    }

    /// Pairs that are not masked.
    fn pairs(tokenizer: &TextTokenizer, kind: PairKind, max_length: usize) -> Pairs {
        let setup = Setup::<SentencePairs>::with(&["masking.rate=1e-12"]).unwrap();
        Pairs {
            kind,
            masks: Masks::new(setup.job.masking, tokenizer, tokenizer.mask(), 1),
            cut: Cut::new(tokenizer, max_length).unwrap(),
            rows: TokenRows::from_rows(&tokenizer.encode(&TEXTS, 16).unwrap()),
            is_told: true,
            seed: 1,
        }
    }

    /// The sample of a text, in an epoch.
    fn sample(pairs: &Pairs, text: u64, epoch: u64) -> Sample {
        Sample {
            tokens: pairs.rows.row(text as u32),
            starts: vec![0],
            number: epoch * TEXTS.len() as u64 + text,
        }
    }

    #[test]
    fn segments_of_a_text_are_in_their_order_or_swapped() {
        let tokenizer = tokenizer();
        let pairs = pairs(&tokenizer, PairKind::Order, 32);
        let text = pairs.cut.text(&pairs.rows.row(1)).to_vec();
        let begins: Vec<u32> = pairs.cut.places(&text).iter().map(|at| text[*at]).collect();
        let (mut swapped, mut firsts) = (0, std::collections::BTreeSet::new());
        for epoch in 0..400 {
            let (pair, class) = pairs.pair(&sample(&pairs, 1, epoch));
            let class = class.unwrap();
            let mut pair: [Vec<u32>; 2] = pair.try_into().unwrap();
            if class == 1 {
                pair.reverse();
            }
            assert_eq!(pair.concat(), text);
            assert!(!pair[0].is_empty() && begins.contains(&pair[1][0]));
            firsts.insert(pair[0].len());
            swapped += class;
        }
        // Standard deviation 10.
        assert!((150..=250).contains(&swapped), "{swapped}");
        assert_eq!(
            firsts.into_iter().collect::<Vec<_>>(),
            pairs.cut.places(&text)
        );
    }

    #[test]
    fn the_second_segment_may_be_of_another_text() {
        let tokenizer = tokenizer();
        let pairs = pairs(&tokenizer, PairKind::Next, 32);
        let texts: Vec<_> = (0..5)
            .map(|row| pairs.cut.text(&pairs.rows.row(row)).to_vec())
            .collect();
        let mut of = [0; 5];
        for epoch in 0..400 {
            let (pair, class) = pairs.pair(&sample(&pairs, 0, epoch));
            assert!(texts[0].starts_with(&pair[0]));
            if class == Some(0) {
                assert_eq!(pair.concat(), texts[0]);
                of[0] += 1;
                continue;
            }
            let found = (1..5).find(|row| texts[*row].ends_with(&pair[1]));
            of[found.unwrap()] += 1;
        }
        assert!((150..=250).contains(&of[0]), "{of:?}");
        // Those that can be cut.
        assert!(of[1] > 50 && of[3] > 50 && of[2] + of[4] < of[1], "{of:?}");
    }

    #[test]
    fn a_pair_has_types_and_a_single_word_has_no_class() {
        let tokenizer = tokenizer();
        let pairs = pairs(&tokenizer, PairKind::Order, 32);
        let rows = || vec![sample(&pairs, 2, 0), sample(&pairs, 0, 0)];
        let batch = pairs.collate(rows());
        assert_eq!(batch, pairs.collate(rows()));
        let inputs = &batch.masked.inputs;
        let seq = inputs.seq;
        assert_eq!((batch.at, batch.classes.len()), (vec![seq as i32], 1));
        let (single, pair) = inputs.tokens.split_at(seq);
        assert_eq!(single[..inputs.lengths[0]], {
            let row = pairs.rows.row(2).into_iter();
            row.map(|id| id as i32).collect::<Vec<_>>()
        });
        let end = tokenizer.sep() as i32;
        let ends: Vec<usize> = (0..seq).filter(|at| pair[*at] == end).collect();
        assert_eq!((pair[0], ends.len()), (tokenizer.cls() as i32, 2));
        assert_eq!(ends[1] + 1, inputs.lengths[1]);
        let types = &inputs.types.as_ref().unwrap()[seq..];
        let second = |at: usize| at > ends[0] && at <= ends[1];
        assert!((0..seq).all(|at| types[at] == i32::from(second(at))));
        assert_eq!(pairs.cut.single(&pairs.rows), 2);
    }

    #[test]
    fn pairs_do_not_depend_on_the_batches_and_have_room() {
        let tokenizer = tokenizer();
        for kind in [PairKind::Order, PairKind::Next] {
            let pairs = pairs(&tokenizer, kind, 8);
            for epoch in 0..50 {
                let one = |text| pairs.collate(vec![sample(&pairs, text, epoch)]);
                let both = pairs.collate(vec![sample(&pairs, 1, epoch), sample(&pairs, 3, epoch)]);
                let lengths = both.masked.inputs.lengths.clone();
                assert!(lengths.iter().all(|length| *length <= 8), "{lengths:?}");
                let classes = [one(1).classes, one(3).classes].concat();
                assert_eq!(both.classes, classes);
            }
        }
    }

    #[test]
    fn the_longer_segment_is_shortened() {
        let cut = Cut {
            frame: [1, 2],
            goes_on: vec![],
            room: 5,
        };
        let mut pair = [vec![3; 2], vec![4; 7]];
        cut.shorten(&mut pair);
        assert_eq!(pair, [vec![3; 2], vec![4; 3]]);
        let mut pair = [vec![3; 4], vec![4; 4]];
        cut.shorten(&mut pair);
        assert_eq!(pair, [vec![3; 3], vec![4; 2]]);
    }

    #[test]
    fn terms_have_the_targets_that_a_batch_names() {
        type B = Autodiff<Flex>;
        let tokenizer = tokenizer();
        let setup = Setup::<SentencePairs>::with(&["model.hidden_size=16"]).unwrap();
        let mut config = setup.recipe.text_sizes().unwrap();
        config.set_vocabulary(tokenizer.vocab_size(), 0);
        let device = Default::default();
        let objective = PairPrediction {
            model: SentencePairModel::<B>::draw(&config, &Draw::new(&device, 0.02)),
            loss: ClassLoss::default(),
        };
        let mut pairs = pairs(&tokenizer, PairKind::Order, 32);
        let none = pairs.collate(vec![sample(&pairs, 2, 0)]);
        assert!(none.is_without_targets());
        assert!(objective.loss(&none, &device).is_without_targets());
        let unmasked = pairs.collate(vec![sample(&pairs, 0, 0), sample(&pairs, 2, 0)]);
        pairs.masks = Masks::new(
            Masking {
                rate: 1.0,
                ..setup.job.masking
            },
            &tokenizer,
            tokenizer.mask(),
            1,
        );
        let masked = pairs.collate(vec![sample(&pairs, 0, 0), sample(&pairs, 2, 0)]);
        for batch in [unmasked, masked] {
            let sums = objective.loss(&batch, &device);
            let weights = [sums.weight, sums.terms[0].weight];
            assert_eq!(batch.denominators(), weights);
            assert_eq!((weights[1], sums.sums.len()), (1.0, 4));
            // Two classes that a new model does not tell apart.
            let loss = sums.terms[0].loss.clone().into_scalar();
            assert!((loss - std::f32::consts::LN_2).abs() < 0.1, "{loss}");
        }
    }

    #[test]
    fn impossible_recipes_are_refused() {
        for (setting, words) in [
            (
                "tokenizer.max_length=4",
                "tokenizer.max_length is 4; two words",
            ),
            ("training.packing=true", "training.packing is true"),
            ("adapter.kind=lora", "adapter.kind is lora"),
            ("masking.rate=2.0", "masking.rate is 2"),
        ] {
            let setup = Setup::<SentencePairs>::with(&[setting]).unwrap();
            let error = setup.check().unwrap_err().to_string();
            assert!(error.contains(words), "{setting}: {error}");
        }
        let unknown = Setup::<SentencePairs>::with(&["pairs.kind=last"]);
        assert!(unknown.unwrap_err().to_string().contains("order"));
    }
}
