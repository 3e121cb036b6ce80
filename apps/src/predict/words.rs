//! Tags of words, and the entities that they mark. In: a classifier of tokens, a text. Out: what was found, with its place.

use burn::prelude::*;
use burn::tensor::activation::softmax;
use data::{CutTexts, Encoded, TextTokenizer};
use model::{Bundle, HeadKind, TokenClassifier};
use serde::Serialize;
use train::Failure;
use train::job::text::TokenBatch;
use train::scores::entities::{Scheme, are_entities, spans};

use super::BATCH;
use crate::open::{self, TextParts};

/// A word or an entity in a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Marked {
    /// Its tag, or the entity's class.
    pub name: String,
    /// As the text has it.
    pub text: String,
    /// Its first character, counted in Unicode's code points.
    pub start: usize,
    /// The character behind its last.
    pub end: usize,
    /// Of the tag; of an entity the mean over its words.
    pub probability: f32,
}

/// Tags words.
pub struct WordPredictor<B: Backend> {
    model: TokenClassifier<B>,
    tokenizer: TextTokenizer,
    tags: Vec<String>,
    max_length: usize,
    device: B::Device,
}

/// A word, its bytes and its tag.
struct Word {
    bytes: [usize; 2],
    tag: usize,
    probability: f32,
}

impl<B: Backend> WordPredictor<B> {
    /// Loads a classifier of tokens.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let TextParts {
            config,
            tokenizer,
            max_length,
        } = open::text_parts(bundle)?;
        let names = open::require(bundle, HeadKind::TokenClasses)?;
        let tags = bundle.classes()?;
        let model = TokenClassifier::draw(&config, tags.len(), &bundle.draw(device, names));
        Ok(Self {
            model: open::filled(bundle, model, names)?,
            tokenizer,
            tags,
            max_length,
            device: device.clone(),
        })
    }

    /// Whether its tags mark entities, and not each word.
    pub fn finds_entities(&self) -> bool {
        are_entities(&self.tags, Scheme::Lenient)
    }

    /// Tokens of the longest text.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The entities of each text, or all its words where tags mark none, and what is cut of the texts, as they are longer than
    /// those of training.
    ///
    /// # Errors
    ///
    /// The tokenizer fails.
    pub fn predict(&self, texts: &[&str]) -> Result<(Vec<Vec<Marked>>, CutTexts), Failure> {
        let rows: Vec<_> = texts.iter().map(|text| (*text, None)).collect();
        let encoded = self.tokenizer.encode_parts(&rows, self.max_length)?;
        let mut order: Vec<usize> = (0..encoded.len()).collect();
        // Of like length together: less padding to compute.
        order.sort_by_key(|&row| encoded[row].ids.len());
        let mut found = vec![Vec::new(); texts.len()];
        for picked in order.chunks(BATCH) {
            let rows = picked.iter().map(|&row| encoded[row].ids.as_slice());
            let batch = TokenBatch::pad(rows, self.tokenizer.pad());
            let shares = softmax(self.model.logits(&batch.input(&self.device)), 1);
            let shares: Vec<f32> = shares.into_data().iter::<f32>().collect();
            let width = batch.seq * self.tags.len();
            for (&row, shares) in picked.iter().zip(shares.chunks(width.max(1))) {
                let words = self.words(texts[row], &encoded[row], shares);
                found[row] = if self.finds_entities() {
                    self.entities(texts[row], &words)
                } else {
                    let name = |word: &Word| self.tags[word.tag].clone();
                    words
                        .iter()
                        .map(|word| marked(texts[row], name(word), word.bytes, word.probability))
                        .collect()
                };
            }
        }
        Ok((found, CutTexts::of(&encoded)))
    }

    /// Words with the tag of their first token.
    fn words(&self, text: &str, encoded: &Encoded, shares: &[f32]) -> Vec<Word> {
        let mut words: Vec<Word> = Vec::new();
        let mut last = None;
        for (at, word) in encoded.words.iter().enumerate() {
            let (Some(word), Some(_)) = (*word, encoded.parts[at]) else {
                continue;
            };
            let (from, to) = encoded.offsets[at];
            let [from, to] = trimmed(text, [from as usize, to as usize]);
            if last == Some(word) {
                if let Some(word) = words.last_mut() {
                    word.bytes[1] = to.max(word.bytes[1]);
                }
                continue;
            }
            last = Some(word);
            let shares = &shares[at * self.tags.len()..(at + 1) * self.tags.len()];
            let mut tag = 0;
            for (other, share) in shares.iter().enumerate() {
                if *share > shares[tag] {
                    tag = other;
                }
            }
            words.push(Word {
                bytes: [from, to],
                tag,
                probability: shares[tag],
            });
        }
        words
    }

    fn entities(&self, text: &str, words: &[Word]) -> Vec<Marked> {
        let tags: Vec<&str> = words
            .iter()
            .map(|word| self.tags[word.tag].as_str())
            .collect();
        let found = spans(&tags, Scheme::Lenient).unwrap_or_default();
        let entity = |span: &train::scores::entities::Span<'_>| {
            let words = &words[span.start..span.end];
            let bytes = [words[0].bytes[0], words[words.len() - 1].bytes[1]];
            let sum: f32 = words.iter().map(|word| word.probability).sum();
            marked(text, span.class.into(), bytes, sum / words.len() as f32)
        };
        found.iter().map(entity).collect()
    }
}

/// Without the white space that some tokens have around them.
fn trimmed(text: &str, [from, to]: [usize; 2]) -> [usize; 2] {
    let inside = text.get(from..to).unwrap_or_default();
    let start = from + inside.len() - inside.trim_start().len();
    [start, start + inside.trim().len()]
}

fn marked(text: &str, name: String, [from, to]: [usize; 2], probability: f32) -> Marked {
    let characters = |to: usize| text.get(..to).map_or(0, |before| before.chars().count());
    Marked {
        name,
        text: text.get(from..to).unwrap_or_default().into(),
        start: characters(from),
        end: characters(to),
        probability,
    }
}
