//! Tags of words, and the entities that they mark. In: sentences. Out: what was found, with its place.

use burn::prelude::*;
use data::{CutTexts, Encoded, ItemKind};
use model::{Bundle, HeadKind, TokenClassifier};
use train::Failure;
use train::job::text::TokenBatch;
use train::objectives::class_tally::{ClassTally, largest};
use train::scores::entities::{EntityTally, Scheme, are_entities, spans};
use train::scores::judged::{Judged, merge};

use super::prediction::Marked;
use super::reader::Reader;
use super::scores::softmax;
use super::{
    Asked, Labelled, Output, Reads, Row, Said, Settings, Target, Task, TaskTally, by_length,
    other_kind,
};
use crate::open;

/// Tags words.
pub struct Words<B: Backend> {
    model: TokenClassifier<B>,
    reader: Reader<B>,
    tags: Vec<String>,
}

/// A sentence as it is shown, and the bytes at which its words begin; none where it came as a text.
struct Sentence {
    text: String,
    starts: Vec<usize>,
}

/// A word that the model sees: its number in the sentence, its bytes, and the scores of its first token.
struct Word {
    number: usize,
    bytes: [usize; 2],
    logits: Vec<f32>,
}

impl Word {
    /// The likeliest tag, and its probability.
    fn tag(&self) -> (usize, f32) {
        let tag = largest(&self.logits);
        (tag, softmax(&self.logits)[tag])
    }
}

impl Sentence {
    fn of(row: &Row) -> Option<Self> {
        match row {
            Row::Texts(texts) => texts.first().map(|text| Self {
                text: text.clone(),
                starts: vec![],
            }),
            Row::Words(words) => {
                let mut starts = Vec::with_capacity(words.len());
                let mut text = String::new();
                for word in words {
                    if !text.is_empty() {
                        text.push(' ');
                    }
                    starts.push(text.len());
                    text.push_str(word);
                }
                Some(Self { text, starts })
            }
            Row::Image(_) => None,
        }
    }

    /// Its words with the scores of their first tokens.
    fn words(&self, encoded: &Encoded, logits: &[f32], n_tags: usize) -> Vec<Word> {
        let mut words: Vec<Word> = Vec::new();
        let mut last = None;
        for (at, word) in encoded.words.iter().enumerate() {
            let (Some(word), Some(_)) = (*word, encoded.parts[at]) else {
                continue;
            };
            let start = self.starts.get(word as usize).copied().unwrap_or(0);
            let (from, to) = encoded.offsets[at];
            let bytes = [start + from as usize, start + to as usize];
            let [from, to] = trimmed(&self.text, bytes);
            if last == Some(word) {
                if let Some(word) = words.last_mut() {
                    word.bytes[1] = to.max(word.bytes[1]);
                }
                continue;
            }
            last = Some(word);
            words.push(Word {
                number: word as usize,
                bytes: [from, to],
                logits: logits[at * n_tags..(at + 1) * n_tags].to_vec(),
            });
        }
        words
    }

    fn marked(&self, name: String, [from, to]: [usize; 2], probability: f32) -> Marked {
        let characters = |to: usize| {
            self.text
                .get(..to)
                .map_or(0, |before| before.chars().count())
        };
        Marked {
            name,
            text: self.text.get(from..to).unwrap_or_default().into(),
            start: characters(from),
            end: characters(to),
            probability,
        }
    }
}

/// Without the white space that some tokens have around them.
fn trimmed(text: &str, [from, to]: [usize; 2]) -> [usize; 2] {
    let inside = text.get(from..to).unwrap_or_default();
    let start = from + inside.len() - inside.trim_start().len();
    [start, start + inside.trim().len()]
}

impl<B: Backend> Words<B> {
    /// Loads a classifier of tokens.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let (reader, config) = Reader::open(bundle, device)?;
        let names = open::require(bundle, HeadKind::TokenClasses)?;
        let tags = bundle.classes()?;
        let model = TokenClassifier::draw(&config, tags.len(), &bundle.draw(device, names));
        Ok(Self {
            model: open::filled(bundle, model, names)?,
            reader,
            tags,
        })
    }

    /// Rows tokenized, in their order: sentences of words word by word.
    fn encoded(&self, rows: &[Row]) -> Result<Vec<Encoded>, Failure> {
        let (mut texts, mut words) = (Vec::new(), Vec::new());
        for row in rows {
            match row {
                Row::Texts(one) if one.len() == 1 => texts.push((one[0].as_str(), None)),
                Row::Words(one) => words.push(one.as_slice()),
                Row::Texts(_) | Row::Image(_) => return Err(other_kind(self.name(), "row")),
            }
        }
        let Reader {
            tokenizer,
            max_length,
            ..
        } = &self.reader;
        // Each call copies the tokenizer.
        let texts = match texts.as_slice() {
            [] => vec![],
            texts => tokenizer.encode_parts(texts, *max_length)?,
        };
        let words = match words.as_slice() {
            [] => vec![],
            words => tokenizer.encode_words(words, *max_length)?,
        };
        let (mut texts, mut words) = (texts.into_iter(), words.into_iter());
        let next = |row: &Row| match row {
            Row::Words(_) => words.next(),
            Row::Texts(_) | Row::Image(_) => texts.next(),
        };
        Ok(rows.iter().filter_map(next).collect())
    }

    /// The words of each row, and what is cut.
    fn read(&self, rows: &[Row], asked: &Asked) -> Result<Found, Failure> {
        let encoded = self.encoded(rows)?;
        let sentences: Vec<Sentence> = rows.iter().filter_map(Sentence::of).collect();
        let lengths: Vec<usize> = encoded.iter().map(|row| row.ids.len()).collect();
        let mut words: Vec<Vec<Word>> = rows.iter().map(|_| Vec::new()).collect();
        for picked in by_length(&lengths, asked.batch_size) {
            let ids = picked.iter().map(|&row| encoded[row].ids.as_slice());
            let batch = TokenBatch::pad(ids, self.reader.tokenizer.pad());
            let logits = self.model.logits(&self.reader.input(&batch));
            let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
            let width = batch.seq * self.tags.len();
            for (&row, logits) in picked.iter().zip(logits.chunks(width.max(1))) {
                words[row] = sentences[row].words(&encoded[row], logits, self.tags.len());
            }
        }
        let cut = CutTexts::of(&encoded);
        Ok(Found {
            sentences,
            words,
            cut,
        })
    }

    fn said(&self, found: &Found) -> Said {
        let finds_entities = are_entities(&self.tags, Scheme::Lenient);
        let rows = found.sentences.iter().zip(&found.words);
        let outputs = rows.map(|(sentence, words)| {
            if finds_entities {
                return Output::Entities(self.entities(sentence, words));
            }
            let word = |word: &Word| {
                let (tag, probability) = word.tag();
                sentence.marked(self.tags[tag].clone(), word.bytes, probability)
            };
            Output::Words(words.iter().map(word).collect())
        });
        Said {
            outputs: outputs.collect(),
            cut: found.cut,
        }
    }

    fn entities(&self, sentence: &Sentence, words: &[Word]) -> Vec<Marked> {
        let tags: Vec<(usize, f32)> = words.iter().map(Word::tag).collect();
        let names: Vec<&str> = tags
            .iter()
            .map(|(tag, _)| self.tags[*tag].as_str())
            .collect();
        // All tags are of the scheme: that is what makes them entities.
        let found = spans(&names, Scheme::Lenient).unwrap_or_default();
        let entity = |span: &train::scores::entities::Span<'_>| {
            let (first, last) = (&words[span.start], &words[span.end - 1]);
            let sum: f32 = tags[span.start..span.end]
                .iter()
                .map(|(_, share)| share)
                .sum();
            let mean = sum / (span.end - span.start) as f32;
            sentence.marked(span.class.into(), [first.bytes[0], last.bytes[1]], mean)
        };
        found.iter().map(entity).collect()
    }
}

struct Found {
    sentences: Vec<Sentence>,
    words: Vec<Vec<Word>>,
    cut: CutTexts,
}

impl<B: Backend> Task for Words<B> {
    fn name(&self) -> &'static str {
        "token-classification"
    }

    fn reads(&self) -> Reads {
        Reads::Sentence
    }

    fn labelled(&self) -> Labelled {
        Labelled {
            kind: Some(ItemKind::Tags),
            text: "tokens",
            second: "",
            target: "tags",
        }
    }

    fn classes(&self) -> &[String] {
        &self.tags
    }

    fn max_length(&self) -> Option<usize> {
        Some(self.reader.max_length)
    }

    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure> {
        Ok(self.said(&self.read(rows, asked)?))
    }

    fn tally(&self, settings: &Settings) -> Result<TaskTally, Failure> {
        let scheme = settings.scheme()?;
        let has_entities = are_entities(&self.tags, scheme);
        let judged = Judged {
            entities: has_entities.then(|| EntityTally::new(scheme)),
            ..Judged::default()
        };
        Ok(TaskTally::of(judged))
    }

    fn evaluate(
        &self,
        rows: &[Row],
        targets: &[Target],
        asked: &Asked,
        tally: &mut TaskTally,
    ) -> Result<Said, Failure> {
        let found = self.read(rows, asked)?;
        let (mut scores, mut truths) = (Vec::new(), Vec::new());
        for (words, target) in found.words.iter().zip(targets) {
            let Target::Tags(tags) = target else {
                return Err(other_kind(self.name(), "target"));
            };
            // Words behind the cut are not judged.
            let true_tags: Vec<u32> = words.iter().map(|word| tags[word.number]).collect();
            if let Some(entities) = &mut tally.judged.entities {
                let name = |tag: usize| self.tags[tag].as_str();
                let said: Vec<&str> = words
                    .iter()
                    .map(|word| name(largest(&word.logits)))
                    .collect();
                let truth: Vec<&str> = true_tags.iter().map(|&tag| name(tag as usize)).collect();
                let added = entities.add(&said, &truth);
                added.map_err(|error| Failure::input(error.to_string()))?;
            }
            scores.extend(words.iter().flat_map(|word| word.logits.iter().copied()));
            truths.extend(true_tags);
        }
        let judged = ClassTally::of_scores(self.tags.len(), &scores, &truths);
        merge(&mut tally.judged.classes, Some(judged));
        Ok(self.said(&found))
    }
}
