//! Why a classifier of texts said what it said. In: its bundle, texts or pairs. Out: an attribution a token.
//!
//! In place of the model's token table it is given one with a row for each token of the text. Its rows may be any vectors, those
//! between the baseline and the text too, and its gradient is the gradient of each embedded token.

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use data::{CutTexts, Encoded, Role};
use model::families::Place;
use model::{Bundle, HeadKind, Headed, TextClassifier, TokenInput};
use train::Failure;
use train::job::text::indices;

use super::explanation::{Completeness, Subject, Token, total};
use super::method::{Method, not_of_texts};
use super::quadrature::gauss_legendre;
use super::rollout::rollout;
use super::work::{Asked, Attributed, best};
use crate::open;
use crate::task::reader::Reader;

/// Tokens in a forward pass.
const TOKENS: usize = 4096;

/// A loaded classifier of texts.
pub(super) struct TextExplainer<B: AutodiffBackend> {
    model: TextClassifier<B>,
    reader: Reader<B>,
    place: String,
    family: &'static str,
}

impl<B: AutodiffBackend> TextExplainer<B> {
    /// Loads a classifier.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub(super) fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let (reader, config) = Reader::open(bundle, device)?;
        let names = open::require(bundle, HeadKind::Classes)?;
        let draw = bundle.draw(device, names).without_training();
        let model = TextClassifier::draw(&config, bundle.classes()?.len(), &draw);
        let model = open::filled::<B, _>(bundle, model, names)?;
        Ok(Self {
            // Gradients of the input alone are asked for.
            model: model.no_grad(),
            reader,
            place: bundle.path().display().to_string(),
            family: bundle.family().model_type,
        })
    }

    /// Tokens of the longest text.
    pub(super) fn max_length(&self) -> usize {
        self.reader.max_length
    }

    /// Explains a text or a pair.
    ///
    /// # Errors
    ///
    /// The tokenizer fails, or attention weights are asked of a model that gives none.
    pub(super) fn explain(&self, texts: &[String], asked: &Asked) -> Result<Attributed, Failure> {
        let encoded = self.encoded(texts)?;
        let logits = self.logits(std::slice::from_ref(&encoded.ids), &encoded.types);
        let logits = logits.into_iter().next().unwrap_or_default();
        let class = asked.class.unwrap_or_else(|| best(&logits));
        let score = logits[class];
        let mut completeness = None;
        let values = match asked.method {
            Method::IntegratedGradients => {
                let values = self.integrated_gradients(&encoded, class, asked.steps);
                completeness = Some(Completeness {
                    sum: total(&values),
                    at_input: score.into(),
                    at_baseline: self
                        .score(self.baseline(&encoded), &encoded.types, class)
                        .into(),
                });
                values
            }
            Method::Occlusion => self.occlusion(&encoded, class, score),
            Method::AttentionRollout => self.attention_rollout(&encoded)?,
            Method::GradCam => return Err(not_of_texts(asked.method)),
        };
        Ok(Attributed {
            class,
            logits,
            completeness,
            cut: CutTexts::of(std::slice::from_ref(&encoded)),
            subject: Subject::Texts(self.tokens(texts, &encoded, &values)),
        })
    }

    fn encoded(&self, texts: &[String]) -> Result<Encoded, Failure> {
        let second = texts.get(1).map(String::as_str);
        let rows = [(texts[0].as_str(), second)];
        let reader = &self.reader;
        let encoded = reader.tokenizer.encode_parts(&rows, reader.max_length)?;
        let mut encoded = encoded
            .into_iter()
            .next()
            .ok_or_else(|| Failure::input("a text became no tokens"))?;
        if second.is_none() {
            // As in training.
            encoded.types.fill(0);
        }
        if encoded.ids.is_empty() {
            return Err(Failure::input("a text has no token"));
        }
        Ok(encoded)
    }

    /// What the vocabulary, the text and the method say of each token.
    fn tokens(&self, texts: &[String], encoded: &Encoded, values: &[f32]) -> Vec<Token> {
        let tokenizer = &self.reader.tokenizer;
        let token = |at: usize| {
            let id = encoded.ids[at];
            let (from, to) = encoded.offsets[at];
            let part = encoded.parts[at];
            let of_text = part.and_then(|part| {
                let text = texts.get(usize::from(part))?;
                text.get(from as usize..to as usize)
            });
            Token {
                token: tokenizer.token(id).unwrap_or_else(|| id.to_string()),
                text: of_text.unwrap_or_default().into(),
                part,
                word: encoded.words[at],
                span: [from, to],
                attribution: values[at],
            }
        };
        (0..encoded.ids.len()).map(token).collect()
    }

    fn input(&self, rows: &[Vec<u32>], types: &[u32]) -> (TokenInput<B>, Tensor<B, 1, Int>) {
        let pairs = rows.iter().map(|ids| (ids.as_slice(), types));
        let batch = self.reader.batch(pairs);
        (self.reader.input(&batch), self.reader.places(&batch))
    }

    /// Logits of rows of one length.
    fn logits(&self, rows: &[Vec<u32>], types: &[u32]) -> Vec<Vec<f32>> {
        let mut logits = Vec::with_capacity(rows.len());
        for rows in rows.chunks(rows_of(types.len())) {
            let (input, at) = self.input(rows, types);
            let scores = self.model.logits(&input, at);
            let [_, n_classes] = scores.dims();
            let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
            logits.extend(scores.chunks(n_classes.max(1)).map(<[f32]>::to_vec));
        }
        logits
    }

    fn score(&self, ids: Vec<u32>, types: &[u32], class: usize) -> f32 {
        self.logits(&[ids], types)[0][class]
    }

    /// The padding token in place of each token that is not special.
    fn baseline(&self, encoded: &Encoded) -> Vec<u32> {
        let pad = self.reader.tokenizer.pad();
        let tokens = encoded.ids.iter().zip(&encoded.parts);
        tokens
            .map(|(&id, part)| if part.is_some() { pad } else { id })
            .collect()
    }

    /// Sundararajan et al. 2017, <https://arxiv.org/abs/1703.01365>, over token embeddings.
    fn integrated_gradients(&self, encoded: &Encoded, class: usize, steps: usize) -> Vec<f32> {
        let seq = encoded.ids.len();
        let table = self.model.backbone.token_table().inner();
        let [_, width] = table.dims();
        let vectors = |ids: &[u32]| {
            let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            table.clone().select(0, indices(&ids, &self.reader.device))
        };
        let baseline = vectors(&self.baseline(encoded));
        let way = vectors(&encoded.ids) - baseline.clone();
        let mut total = way.zeros_like();
        for points in gauss_legendre(steps).chunks(rows_of(seq)) {
            let n = points.len();
            let point = |&(place, _): &(f64, f64)| baseline.clone() + way.clone() * place;
            let read = Tensor::cat(points.iter().map(point).collect(), 0);
            let backbone = self.model.backbone.clone();
            let backbone = backbone.with_token_table(Tensor::from_inner(read));
            let read = backbone.token_table();
            let model = Headed::new(backbone, self.model.head.clone());
            let rows: Vec<Vec<u32>> = (0..n)
                .map(|row| ((row * seq) as u32..((row + 1) * seq) as u32).collect())
                .collect();
            let (input, at) = self.input(&rows, &encoded.types);
            let score = weighted(model.logits(&input, at), class, points);
            if let Some(grad) = read.grad(&score.backward()) {
                let grad: Tensor<B::InnerBackend, 3> = grad.reshape([n, seq, width]);
                total = total + grad.sum_dim(0).reshape([seq, width]);
            }
        }
        let values = (total * way).sum_dim(1);
        values.into_data().iter::<f32>().collect()
    }

    /// How far the class's score falls where a token is hidden: Zeiler and Fergus 2014, <https://arxiv.org/abs/1311.2901>, with
    /// the mask token, else the unknown one, else padding, as the grey patch.
    fn occlusion(&self, encoded: &Encoded, class: usize, score: f32) -> Vec<f32> {
        let roles = self.reader.tokenizer.roles();
        let hides = roles.id(Role::Mask).or_else(|| roles.id(Role::Unknown));
        let hides = hides.unwrap_or_else(|| self.reader.tokenizer.pad());
        let places: Vec<usize> = (0..encoded.ids.len())
            .filter(|&at| encoded.parts[at].is_some())
            .collect();
        let hidden = |&at: &usize| {
            let mut ids = encoded.ids.clone();
            ids[at] = hides;
            ids
        };
        let rows: Vec<Vec<u32>> = places.iter().map(hidden).collect();
        let mut values = vec![0.0; encoded.ids.len()];
        for (at, logits) in places.into_iter().zip(self.logits(&rows, &encoded.types)) {
            values[at] = score - logits[class];
        }
        values
    }

    fn attention_rollout(&self, encoded: &Encoded) -> Result<Vec<f32>, Failure> {
        let seq = encoded.ids.len();
        let (input, _) = self.input(std::slice::from_ref(&encoded.ids), &encoded.types);
        let Some(layers) = self.model.backbone.attentions(&input) else {
            let (place, family) = (&self.place, self.family);
            return Err(Failure::input(format!(
                "{place}: {family} gives no attention weights of whole texts here, which attention-rollout needs; \
                 integrated-gradients and occlusion fit it"
            )));
        };
        let layers: Vec<Vec<f32>> = layers.into_iter().map(mean_of_heads).collect();
        let place = match self.reader.place {
            Place::First => 0,
            Place::Last => seq - 1,
        };
        Ok(rollout(&layers, seq, place))
    }
}

/// Rows of this many tokens in a forward pass.
fn rows_of(seq: usize) -> usize {
    (TOKENS / seq.max(1)).max(1)
}

/// The mean of the heads' attention weights, `[batch, heads, seq, seq]` to `[batch, seq, seq]`, row-major.
pub(super) fn mean_of_heads<B: Backend>(weights: Tensor<B, 4>) -> Vec<f32> {
    weights.mean_dim(1).into_data().iter::<f32>().collect()
}

/// The class's scores, each times the weight of its point, summed.
///
/// - logits: `[n, n_classes]`
/// - points: place and weight, `n` of them
/// - out: `[1]`
pub(super) fn weighted<B: Backend>(
    logits: Tensor<B, 2>,
    class: usize,
    points: &[(f64, f64)],
) -> Tensor<B, 1> {
    let weights: Vec<f32> = points.iter().map(|&(_, weight)| weight as f32).collect();
    let weights = TensorData::new(weights, [points.len(), 1]);
    let weights = Tensor::from_data(weights, &logits.device());
    (logits.narrow(1, class, 1) * weights).sum()
}
