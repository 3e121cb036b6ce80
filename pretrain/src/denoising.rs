//! Denoising of texts. In: texts. Out: an encoder-decoder with its tokenizer, which writes whole what it read with gaps.
//!
//! BART's noise, Lewis et al. 2020, <https://arxiv.org/abs/1910.13461>: spans of any length, each hidden by one mask, and sentences
//! in another order; the decoder writes the whole text. T5's, Raffel et al. 2020, <https://arxiv.org/abs/1910.10683>: each span is
//! hidden by a token of its own, and the decoder writes the spans alone. Noise is drawn anew every epoch, and is a pure function of
//! (seed, epoch, text), however texts are batched.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use data::source::TextSource;
use data::{Frame, Role, TextTokenizer};
use model::beam::Search;
use model::bundle::Load;
use model::families::Seq2SeqPlan;
use model::{HeadKind, Seq2SeqConfig, Seq2SeqModel};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use rand_distr::{Distribution as _, Poisson};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::seq2seq::{PairBatch, PairRow, end_with};
use train::job::text::{Collate, Sample, TextData, Texts, TrainedTokenizer};
use train::job::{BundleWriter, Exported, Job, Product, Recipe, Splits, Start};
use train::metrics::{Metric, Metrics, add_perplexity};
use train::objective::{LossSums, Objective, SumTally};
use train::objectives::class_loss::{ClassLoss, SmoothingRecipe};
use train::objectives::tokens;
use train::recipe::Impossible;

/// The objective; `assets/recipes/denoising.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Denoising {
    /// Which texts, and how they are split.
    pub data: Texts,
    /// What turns them into tokens.
    pub tokenizer: TrainedTokenizer,
    /// What is hidden.
    pub noise: Noise,
    /// Cross-entropy over the vocabulary.
    pub loss: SmoothingRecipe,
}

/// `[noise]`: what the encoder does not see.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// How spans are hidden.
    pub kind: NoiseKind,
    /// Share of the tokens that is hidden.
    pub rate: f64,
    /// Tokens of a span, on average.
    pub mean_span: f64,
    /// Whether sentences are put into another order; of infilling.
    pub permute_sentences: bool,
}

/// How spans are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoiseKind {
    /// BART's: each by the mask token; the whole text is written.
    Infilling,
    /// T5's: each by a token of its own; the spans alone are written.
    Spans,
}

/// Tokens that hide spans, of T5: one a span of a text, and one behind the last.
const SENTINELS: usize = 100;

impl Noise {
    fn check(self) -> Result<(), Impossible> {
        let Self {
            rate, mean_span, ..
        } = self;
        if !(rate > 0.0 && rate < 1.0) {
            let reason = format!("is {rate}; it must be above 0 and below 1");
            return Err(Impossible::new("noise.rate", reason));
        }
        if !(1.0..=1000.0).contains(&mean_span) {
            let reason = format!("is {mean_span}; it must be from 1 to 1000");
            return Err(Impossible::new("noise.mean_span", reason));
        }
        if self.permute_sentences && self.kind == NoiseKind::Spans {
            let reason = "is true, and noise.kind \"spans\" leaves texts in their order";
            return Err(Impossible::new("noise.permute_sentences", reason));
        }
        Ok(())
    }

    /// The tokens that it needs, beside those of every tokenizer.
    fn special_tokens(self) -> Vec<String> {
        match self.kind {
            NoiseKind::Infilling => vec!["<mask>".into()],
            NoiseKind::Spans => (0..SENTINELS).map(sentinel).collect(),
        }
    }
}

fn sentinel(number: usize) -> String {
    format!("<extra_id_{number}>")
}

impl Job for Denoising {
    const NAME: &'static str = "denoising";
    const ABOUT: &'static str = "texts with gaps are written whole by an encoder-decoder";
    const KEY: &'static str = "objective";
    const RECIPE: &'static str = include_str!("../../assets/recipes/denoising.toml");
    type Source = TextSource;
    type Data = TextData<Seq2SeqConfig>;
    type Batch = PairBatch;
    type Objective<B: AutodiffBackend> = Denoiser<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.noise.check()?;
        self.loss.check()?;
        self.data.check_for_seq2seq(&self.tokenizer, recipe)
    }

    fn source(&self, _: &Start) -> Result<TextSource, Failure> {
        self.data.source()
    }

    fn data(
        &self,
        _: &Recipe,
        start: &Start,
        source: TextSource,
    ) -> Result<TextData<Seq2SeqConfig>, Failure> {
        let special = match start.bundle() {
            Some(_) => Vec::new(),
            None if self.tokenizer.trains_wordpiece()
                && self.noise.kind == NoiseKind::Infilling =>
            {
                // It has a mask.
                Vec::new()
            }
            None => self.noise.special_tokens(),
        };
        let data = self
            .data
            .read_for_seq2seq(source, &self.tokenizer, &special, start)?;
        Gaps::find(self.noise, &data.tokenizer)?;
        Ok(data)
    }

    fn product(&self, data: &TextData<Seq2SeqConfig>) -> Result<Product, Failure> {
        let search = Search {
            max_length: data.max_length,
            ..Search::new(&data.config.describe())
        };
        data.product(&search)
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &TextData<Seq2SeqConfig>,
        start: &Start,
        device: &B::Device,
    ) -> Result<Denoiser<B>, Failure> {
        let names = data.config.names(HeadKind::Tokens);
        let model = Seq2SeqModel::draw(&data.config, &start.draw(device, names));
        Ok(Denoiser {
            model: start.fill(model, names, Load::BackboneAndPerhapsHead)?,
            loss: ClassLoss::smoothed(self.loss.label_smoothing),
        })
    }

    fn batches(
        &self,
        recipe: &Recipe,
        data: TextData<Seq2SeqConfig>,
    ) -> Result<Splits<PairBatch>, Failure> {
        let gaps = Gaps::find(self.noise, &data.tokenizer)?;
        let tokenizer = Arc::new(data.tokenizer.clone());
        let (plan, max_length) = (data.config.describe(), data.max_length);
        data.batches(recipe, |_, _, seed| Noiser {
            noise: self.noise,
            gaps: gaps.clone(),
            frame: tokenizer.frame().clone(),
            ends_sentence: ends_of_sentences(&tokenizer),
            plan: plan.clone(),
            tokenizer: tokenizer.clone(),
            max_length,
            seed,
        })
    }
}

/// What stands where tokens are hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gaps {
    /// The same everywhere.
    Mask(u32),
    /// One a span, in this order.
    Sentinels(Vec<u32>),
}

impl Gaps {
    /// # Errors
    ///
    /// A tokenizer without these tokens.
    fn find(noise: Noise, tokenizer: &TextTokenizer) -> Result<Self, Failure> {
        match noise.kind {
            NoiseKind::Infilling => Ok(Self::Mask(tokenizer.required(Role::Mask)?)),
            NoiseKind::Spans => {
                let ids = (0..SENTINELS).map_while(|number| tokenizer.id(&sentinel(number)));
                let ids: Vec<u32> = ids.collect();
                if ids.len() >= 2 {
                    return Ok(Self::Sentinels(ids));
                }
                let reason = format!(
                    "is \"spans\", and the tokenizer has no {}, which would hide them; \"infilling\" takes a mask token",
                    sentinel(ids.len())
                );
                Err(Impossible::new("noise.kind", reason).into())
            }
        }
    }
}

/// Whether a sentence ends with a token, by id.
fn ends_of_sentences(tokenizer: &TextTokenizer) -> Vec<bool> {
    let ends = |id: u32| {
        let token = tokenizer.token(id);
        token.is_some_and(|token| token.ends_with(['.', '!', '?', '…', '。', '！', '？']))
    };
    (0..=tokenizer.largest_id()).map(ends).collect()
}

/// Hides parts of texts, each by its number; what the tokenizer puts around a text stays.
struct Noiser {
    noise: Noise,
    gaps: Gaps,
    frame: Frame,
    ends_sentence: Vec<bool>,
    plan: Seq2SeqPlan,
    tokenizer: Arc<TextTokenizer>,
    max_length: usize,
    seed: u64,
}

impl Noiser {
    /// What is read, and what is to be written.
    fn pair(&self, sample: &Sample) -> PairRow {
        let mut rng = order::rng(self.seed, Stream::Mask, sample.number);
        let [before, text, after] = self.frame.parts(&sample.tokens);
        let framed = |text: &[u32]| [before, text, after].concat();
        let end = self.plan.eos.first().copied();
        let (mut source, mut target) = match &self.gaps {
            Gaps::Mask(mask) => {
                let room = self
                    .max_length
                    .saturating_sub(before.len() + after.len() + 1);
                let seen = if self.noise.permute_sentences {
                    self.permuted(text, &mut rng)
                } else {
                    text.to_vec()
                };
                let seen = infill(self.noise, &seen, *mask, room, &mut rng);
                (framed(&seen), framed(text))
            }
            Gaps::Sentinels(sentinels) => {
                let room = self.max_length.saturating_sub(1);
                let (seen, hidden) = corrupt(self.noise, text, sentinels, room, &mut rng);
                (framed(&seen), hidden)
            }
        };
        end_with(&mut source, end, self.max_length);
        end_with(&mut target, end, self.max_length);
        PairRow { source, target }
    }

    /// The sentences in another order.
    fn permuted(&self, text: &[u32], rng: &mut impl Rng) -> Vec<u32> {
        let ends = |token: &u32| self.ends_sentence.get(*token as usize) == Some(&true);
        let mut sentences: Vec<&[u32]> = text.split_inclusive(ends).collect();
        sentences.shuffle(rng);
        sentences.concat()
    }
}

/// A text with spans hidden by one mask each; a span of no token is a mask that hides nothing.
///
/// - room: tokens that may be there at most
fn infill(noise: Noise, text: &[u32], mask: u32, room: usize, rng: &mut impl Rng) -> Vec<u32> {
    let wanted = share(noise.rate, text.len(), rng);
    let lengths = Poisson::new(noise.mean_span).expect("a mean that was checked");
    // Lengths that together hide as many as are wanted.
    let (mut spans, mut hidden) = (Vec::new(), 0);
    while hidden < wanted {
        let length = (lengths.sample(rng) as usize).min(wanted - hidden);
        // A mask that hides nothing makes the text longer.
        if length > 0 || text.len() + spans.len() < hidden + room {
            spans.push(length);
        }
        hidden += length;
    }
    // Spans and tokens that are seen, in a random order of which is which.
    let mut is_span = vec![false; text.len() - hidden];
    is_span.resize(is_span.len() + spans.len(), true);
    is_span.shuffle(rng);
    let (mut seen, mut rest, mut spans) = (Vec::with_capacity(is_span.len()), text, spans.iter());
    for is_span in is_span {
        let length = if is_span {
            seen.push(mask);
            spans.next().copied().unwrap_or(0)
        } else {
            seen.push(rest[0]);
            1
        };
        rest = &rest[length..];
    }
    seen
}

/// A text with spans hidden by a sentinel each, and the spans, each behind its sentinel; one more is behind the last.
///
/// - room: tokens that the spans and sentinels may be at most
fn corrupt(
    noise: Noise,
    text: &[u32],
    sentinels: &[u32],
    room: usize,
    rng: &mut impl Rng,
) -> (Vec<u32>, Vec<u32>) {
    let n = text.len();
    if n < 2 {
        return (text.to_vec(), vec![sentinels[0]]);
    }
    let mut hidden = ((noise.rate * n as f64).round() as usize).clamp(1, n - 1);
    let spans = |hidden: usize| {
        let spans = (hidden as f64 / noise.mean_span).round() as usize;
        spans.clamp(1, hidden.min(n - hidden).min(sentinels.len() - 1))
    };
    while hidden > 1 && hidden + spans(hidden) + 1 > room {
        hidden -= 1;
    }
    let spans = spans(hidden);
    let (hides, shows) = (parts(hidden, spans, rng), parts(n - hidden, spans, rng));
    let (mut seen, mut written, mut rest) = (Vec::new(), Vec::new(), text);
    for ((shown, hidden), sentinel) in shows.into_iter().zip(hides).zip(sentinels) {
        let (shown, after) = rest.split_at(shown);
        let (hidden, after) = after.split_at(hidden);
        seen.extend_from_slice(shown);
        seen.push(*sentinel);
        written.push(*sentinel);
        written.extend_from_slice(hidden);
        rest = after;
    }
    written.push(sentinels[spans]);
    (seen, written)
}

/// So many of `n` as are this share of it; a part of one is one as often.
fn share(rate: f64, n: usize, rng: &mut impl Rng) -> usize {
    let wanted = rate * n as f64;
    wanted.floor() as usize + usize::from(rng.random::<f64>() < wanted.fract())
}

/// Lengths of so many parts that make up `n`, each at least 1, all divisions as likely.
fn parts(n: usize, parts: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut begins = vec![false; n - 1];
    begins[..parts - 1].fill(true);
    begins.shuffle(rng);
    let mut lengths = vec![1];
    for begins in begins {
        match lengths.last_mut() {
            Some(last) if !begins => *last += 1,
            _ => lengths.push(1),
        }
    }
    lengths
}

impl Collate for Noiser {
    type Batch = PairBatch;

    fn collate(&self, rows: Vec<Sample>) -> PairBatch {
        let rows: Vec<PairRow> = rows.iter().map(|sample| self.pair(sample)).collect();
        PairBatch::new(rows.iter(), &self.plan, self.tokenizer.clone())
    }
}

/// An encoder-decoder with its loss.
#[derive(Module, Debug)]
pub struct Denoiser<B: Backend> {
    /// The model.
    pub model: Seq2SeqModel<B>,
    loss: ClassLoss,
}

impl<B: Backend> Exported<B> for Denoiser<B> {
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

impl<B: Backend> Objective<B> for Denoiser<B> {
    type Batch = PairBatch;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &["accuracy"];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::lower("perplexity"),
        Metric::higher("accuracy"),
    ];

    fn loss(&self, batch: &PairBatch, device: &B::Device) -> LossSums<B> {
        tokens::written(&self.model, batch, &self.loss, device)
    }

    fn evaluate(&self, batch: &PairBatch, device: &B::Device) -> SumTally {
        // Without smoothing: perplexity follows from it.
        let sums = tokens::written(&self.model, batch, &ClassLoss::default(), device);
        SumTally::read(sums, <Self as Objective<B>>::MEANS)
    }

    fn derive(metrics: &mut Metrics) {
        add_perplexity(metrics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: u32 = 1;
    const SENTINELS: [u32; 5] = [90, 91, 92, 93, 94];

    fn noise(kind: NoiseKind, rate: f64, mean_span: f64) -> Noise {
        Noise {
            kind,
            rate,
            mean_span,
            permute_sentences: false,
        }
    }

    fn rng(number: u64) -> impl Rng {
        order::rng(5, Stream::Mask, number)
    }

    #[test]
    fn infilling_keeps_the_order_and_hides_the_share() {
        let text: Vec<u32> = (10..50).collect();
        let noise = noise(NoiseKind::Infilling, 0.3, 3.0);
        let (mut hidden, mut masks) = (0, 0);
        for number in 0..500 {
            let seen = infill(noise, &text, MASK, 60, &mut rng(number));
            let kept: Vec<u32> = seen.iter().copied().filter(|&id| id != MASK).collect();
            assert!(kept.is_sorted(), "{seen:?}");
            assert_eq!(kept.len(), 28, "12 of 40 are hidden");
            hidden += text.len() - kept.len();
            masks += seen.len() - kept.len();
        }
        // 12 tokens in spans of 3 are some 4.5 spans: the last is shorter, and some hide nothing.
        let mean = hidden as f64 / masks as f64;
        assert!((2.3..3.0).contains(&mean), "{mean}");
    }

    #[test]
    fn infilling_never_outgrows_its_room() {
        let text = [7; 10];
        let noise = noise(NoiseKind::Infilling, 0.2, 1.0);
        let longest = (0..500).map(|number| infill(noise, &text, MASK, 10, &mut rng(number)).len());
        assert_eq!(longest.max(), Some(10));
        let free = (0..500).map(|number| infill(noise, &text, MASK, 30, &mut rng(number)).len());
        assert!(free.max() > Some(10), "masks that hide nothing");
        assert!(infill(noise, &[], MASK, 10, &mut rng(0)).is_empty());
    }

    #[test]
    fn spans_and_what_is_seen_make_the_text_again() {
        let text: Vec<u32> = (10..30).collect();
        let noise = noise(NoiseKind::Spans, 0.3, 2.0);
        for number in 0..200 {
            let (seen, written) = corrupt(noise, &text, &SENTINELS, 60, &mut rng(number));
            // 6 of 20 are hidden, in 3 spans, which 4 sentinels are around.
            assert_eq!((seen.len(), written.len()), (14 + 3, 6 + 4));
            assert_eq!((written[0], written[9]), (90, 93));
            assert_eq!(seen[0], 10, "a text begins with what is seen");
            let mut spans = written.split(|id| *id >= 90);
            spans.next();
            let whole = seen.iter().flat_map(|&id| {
                if id < 90 {
                    return vec![id];
                }
                spans.next().unwrap().to_vec()
            });
            assert_eq!(whole.collect::<Vec<u32>>(), text);
        }
    }

    #[test]
    fn spans_fit_their_sentinels_and_their_room() {
        let text: Vec<u32> = (10..50).collect();
        let all = noise(NoiseKind::Spans, 0.9, 1.0);
        let (seen, written) = corrupt(all, &text, &SENTINELS, 60, &mut rng(0));
        assert_eq!((seen.len(), written.len()), (4 + 4, 36 + 5));
        let (_, written) = corrupt(all, &text, &SENTINELS, 12, &mut rng(0));
        assert_eq!(written.len(), 12);
        assert_eq!(corrupt(all, &[7], &SENTINELS, 9, &mut rng(0)).1, [90]);
        let two = corrupt(all, &[7, 8], &SENTINELS, 9, &mut rng(0));
        assert_eq!(two, (vec![7, 90], vec![90, 8, 91]));
    }

    fn noiser(tokenizer: TextTokenizer, noise: Noise) -> Noiser {
        let end = tokenizer.required(Role::End).unwrap();
        Noiser {
            noise,
            gaps: Gaps::find(noise, &tokenizer).unwrap(),
            frame: tokenizer.frame().clone(),
            ends_sentence: ends_of_sentences(&tokenizer),
            plan: Seq2SeqPlan {
                vocab_size: 0,
                target_vocab_size: 0,
                d_model: 8,
                layers: [1, 1],
                positions: None,
                start: tokenizer.pad(),
                pad: tokenizer.pad(),
                eos: vec![end],
                forced_eos: Vec::new(),
                tied: true,
                bias: false,
                scale: 1.0,
                std: 0.02,
                parameters: 0.0,
            },
            tokenizer: Arc::new(tokenizer),
            max_length: 32,
            seed: 1,
        }
    }

    #[test]
    fn sentences_change_places_and_the_frame_stays() {
        let tokenizer =
            TextTokenizer::train_wordpiece(&["a bird sings. a tool cuts! who knows?"], 80).unwrap();
        let tokens = tokenizer
            .encode_one("a bird sings. a tool cuts! who knows?", 32)
            .unwrap();
        let noise = Noise {
            permute_sentences: true,
            ..noise(NoiseKind::Infilling, 1e-9, 3.0)
        };
        let noiser = noiser(tokenizer, noise);
        let mut orders = std::collections::BTreeSet::new();
        for number in 0..40 {
            let sample = Sample {
                tokens: tokens.clone(),
                starts: vec![0],
                number,
            };
            let PairRow { source, target } = noiser.pair(&sample);
            assert_eq!(target, tokens, "the whole text is written");
            assert_eq!(source.first(), tokens.first());
            assert_eq!(source.last(), tokens.last());
            assert_eq!(noiser.pair(&sample).source, source);
            orders.insert(source);
        }
        assert_eq!(orders.len(), 6, "all orders of three sentences");
    }

    #[test]
    fn tokens_that_are_needed_are_added_or_missed() {
        let spans = noise(NoiseKind::Spans, 0.15, 3.0);
        let plain = TextTokenizer::train_bpe(&["a bird", "a tool"], 280).unwrap();
        let error = Gaps::find(spans, &plain).unwrap_err().to_string();
        assert!(error.contains("<extra_id_0>"), "{error}");
        let masks = noise(NoiseKind::Infilling, 0.3, 3.0);
        assert!(Gaps::find(masks, &plain).is_err());
        for noise in [spans, masks] {
            let tokenizer = plain.with_special_tokens(&noise.special_tokens()).unwrap();
            Gaps::find(noise, &tokenizer).unwrap();
            let text = "a bird";
            let ids = tokenizer.encode_one(text, 32).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            assert_eq!(ids, plain.encode_one(text, 32).unwrap());
            let again = tokenizer
                .with_special_tokens(&noise.special_tokens())
                .unwrap();
            assert_eq!(again.vocab_size(), tokenizer.vocab_size());
        }
    }

    #[test]
    fn impossible_noise_is_refused() {
        for (noise, key) in [
            (noise(NoiseKind::Spans, 0.0, 3.0), "noise.rate"),
            (noise(NoiseKind::Spans, 1.0, 3.0), "noise.rate"),
            (noise(NoiseKind::Spans, f64::NAN, 3.0), "noise.rate"),
            (noise(NoiseKind::Spans, 0.1, 0.5), "noise.mean_span"),
            (
                noise(NoiseKind::Spans, 0.1, f64::INFINITY),
                "noise.mean_span",
            ),
        ] {
            assert_eq!(noise.check().unwrap_err().key, key);
        }
        let permuted = Noise {
            permute_sentences: true,
            ..noise(NoiseKind::Spans, 0.1, 3.0)
        };
        assert_eq!(permuted.check().unwrap_err().key, "noise.permute_sentences");
    }
}
