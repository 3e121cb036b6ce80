//! From texts with anything to learn but one class to batches. In: `[data]` and `[tokenizer]` of a recipe. Out: splits, tokenized
//! and batched.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use data::{
    ChatTemplate, CutTexts, Encoded, Item, ItemColumns, ItemKind, ItemSet, ItemSplits, ItemTarget,
    Message, SplitShares, TextTokenizer, read_items,
};
use model::registry::TEXT_FAMILIES;
use model::{HeadKind, TextConfig};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::job::start::check_head;
use crate::job::text::{
    TextSplits, TokenBatch, TokenizerRecipe, check_text, introduce, limited_rows,
};
use crate::job::{Recipe, Shared, Splits, Start};
use crate::recipe::Impossible;
use crate::scores::best_spans::tokens_of;
use crate::source::{BatchSource, Counts, Epochs, Unit};

/// `[data]` of texts with anything to learn but one class.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // assets/recipes/ explains every key.
pub struct Items {
    #[serde(flatten)]
    pub splits: TextSplits,
    pub text_pair: String,
    pub label_column: String,
    pub label_limit: usize,
    pub test_limit: usize,
}

/// The tokens of a text, a pair, or a choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// With special tokens.
    pub ids: Vec<u32>,
    /// Which text of a pair each belongs to.
    pub types: Vec<u32>,
}

/// An item, tokenized: of a question a window of its context.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemRow {
    /// One, or as many as there are choices.
    pub sequences: Vec<Tokens>,
    /// What is to be learned.
    pub target: RowTarget,
}

/// What is to be learned of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum RowTarget {
    /// Places in each sequence from which the next token is to be predicted. The sequences share a row of the batch.
    Next(Vec<Vec<u32>>),
    /// Nothing: two texts that belong together.
    Pair,
    /// Classes.
    Labels(Vec<u32>),
    /// A number.
    Value(f32),
    /// The place of the first token of each word that the model sees, and its tag.
    Tags(Vec<(u32, u32)>),
    /// The places of the first and of the last token of the answer, both 0 where the window has none, and the number of the
    /// window among those of its split.
    Span([u32; 2], u32),
    /// The number of the right choice.
    Choice(u32),
}

/// A window of a context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Which question of its split.
    pub question: u32,
    /// Bytes of the context that each token is, from and to; `None` for tokens of the question and special ones.
    pub bytes: Vec<Option<[u32; 2]>>,
}

/// The questions of a split that is only looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// The context of each.
    pub contexts: Vec<String>,
    /// Texts that count as right of each; none where there is no answer.
    pub answers: Vec<Vec<String>>,
    /// All windows.
    pub windows: Vec<Window>,
}

/// A split, tokenized.
#[derive(Clone, Debug, Default)]
pub struct ItemRows {
    /// The rows.
    pub rows: Arc<Vec<ItemRow>>,
    /// Its questions, if that is what they are.
    pub questions: Arc<Questions>,
}

/// Tokenized splits, and the model that reads them.
pub struct ItemData {
    /// Of the bundle that training starts from, or of the recipe.
    pub tokenizer: TextTokenizer,
    /// The model's.
    pub config: TextConfig,
    /// Tokens of the longest sequence.
    pub max_length: usize,
    /// Names of the classes or tags, in the order of the logits.
    pub classes: Arc<Vec<String>>,
    /// To train on.
    pub train: ItemRows,
    /// To choose a checkpoint by.
    pub valid: ItemRows,
    /// To report.
    pub test: ItemRows,
}

impl Items {
    /// Says what is impossible about these values, if anything is.
    ///
    /// - packs: whether rows may share sequences
    pub fn check(
        &self,
        tokenizer: &TokenizerRecipe,
        recipe: &Recipe,
        packs: bool,
    ) -> Result<(), Impossible> {
        if !packs {
            recipe.training.check_unpacked()?;
        }
        check_text(&self.splits, tokenizer, recipe)
    }

    /// Reads what `source` names.
    ///
    /// # Errors
    ///
    /// A file that is missing or malformed, rows that can't be used.
    pub fn source(&self, kind: ItemKind) -> Result<ItemSet, Failure> {
        let columns = ItemColumns {
            kind,
            text: self.splits.text.clone(),
            second: self.text_pair.clone(),
            target: self.label_column.clone(),
            bad_rows: self.splits.bad_rows,
        };
        Ok(read_items(&self.splits.open()?, &columns)?)
    }

    /// Splits and tokenizes.
    ///
    /// - unit: what an item is called, in the plural
    /// - stride: tokens that the windows of a context share
    /// - head: what the model is for
    ///
    /// # Errors
    ///
    /// Too few items, a tokenizer that cannot be read, a family without such a head.
    pub fn read(
        &self,
        set: &ItemSet,
        tokenizer: &TokenizerRecipe,
        start: &Start,
        (unit, stride, head): (&'static str, usize, HeadKind),
    ) -> Result<ItemData, Failure> {
        let max_length = tokenizer.max_length;
        let mut tokenizer = tokenizer.open(start)?;
        let is_dialogue = |item: &Item| item.target == ItemTarget::None && head == HeadKind::Tokens;
        let dialogues = set.items.first().is_some_and(is_dialogue);
        if dialogues && tokenizer.chat_template().is_none() {
            // So that what is trained can be asked in the same way.
            tokenizer = tokenizer.with_chat_template(Some(data::chat::PLAIN_TEMPLATE.into()));
            start.console.note(
                "the tokenizer has no chat template: a plain one is used, and kept in the bundle",
            );
        }
        let config = start.text_config(&tokenizer)?;
        start.check_length(max_length, &config)?;
        check_head(config.family(), TEXT_FAMILIES, head)
            .map_err(|why| Impossible::new("model.family", why))?;
        let data = &self.splits;
        let shares = SplitShares {
            valid: data.valid,
            test: data.test,
            seed: data.split_seed,
            labels: self.label_limit,
        };
        let ItemSplits {
            splits,
            classes,
            summary,
        } = set.split(shares, unit)?;
        let limited = |rows: &[usize], limit| limited_rows(rows, limit, data.split_seed);
        let (valid, test) = (
            limited(&splits.valid, data.valid_limit),
            limited(&splits.test, self.test_limit),
        );
        let mut encoding = Encoding {
            tokenizer: &tokenizer,
            files: &set.files,
            classes: classes.iter().map(String::as_str).zip(0..).collect(),
            max_length,
            stride,
            dialogues,
            unanswered: 0,
            cut: CutTexts::default(),
        };
        let mut encode = |rows: &[usize], looked_at| {
            let items: Vec<&Item> = rows.iter().map(|&row| &set.items[row]).collect();
            encoding.rows(&items, looked_at)
        };
        let mut train = encode(&splits.train, false)?;
        let valid = encode(&valid, true)?;
        let test = encode(&test, true)?;
        if encoding.unanswered > 0 {
            let lost = encoding.unanswered;
            let text = format!("{lost} {unit} left out, as they are cut before their first answer");
            start.console.warn_outside(&text);
        }
        if train.rows.is_empty() || valid.rows.is_empty() {
            let reason =
                format!("is {max_length}, which cuts all {unit} before their first answer");
            return Err(Impossible::new("tokenizer.max_length", reason).into());
        }
        if start.packs() && dialogues {
            let packed = packed(&train.rows, max_length);
            let (rows, sequences) = (train.rows.len(), packed.len());
            train.rows = Arc::new(packed);
            start
                .console
                .note(&format!("{rows} {unit} packed into {sequences} sequences"));
        }
        let summary = data::DataSummary {
            cut: Some((encoding.cut, max_length)),
            limits: [data.valid_limit, self.test_limit],
            ..summary
        };
        introduce(&start.console, &summary);
        Ok(ItemData {
            classes: Arc::new(classes),
            tokenizer,
            config,
            max_length,
            train,
            valid,
            test,
        })
    }
}

/// What items are tokenized with.
struct Encoding<'a> {
    tokenizer: &'a TextTokenizer,
    /// That items are of.
    files: &'a [PathBuf],
    /// Numbers of the classes or tags by their names.
    classes: HashMap<&'a str, u32>,
    max_length: usize,
    stride: usize,
    dialogues: bool,
    /// Dialogues of which no answer is left.
    unanswered: usize,
    cut: CutTexts,
}

impl Encoding<'_> {
    /// - looked_at: whether predictions are to become texts again
    fn rows(&mut self, items: &[&Item], looked_at: bool) -> Result<ItemRows, Failure> {
        let is_of =
            |kind: fn(&ItemTarget) -> bool| items.first().is_some_and(|item| kind(&item.target));
        if is_of(|target| matches!(target, ItemTarget::Answers(_))) {
            return self.questions(items, looked_at);
        }
        let rows = if self.dialogues {
            self.answered(items)?
        } else if is_of(|target| matches!(target, ItemTarget::Tags(_))) {
            self.tagged(items)?
        } else {
            self.texts(items)?
        };
        Ok(ItemRows {
            rows: Arc::new(rows),
            questions: Arc::default(),
        })
    }

    fn count(&mut self, encoded: &[Encoded]) {
        self.cut.add(CutTexts::of(encoded));
    }

    /// Dialogues with the places before each token that the assistant writes.
    fn answered(&mut self, items: &[&Item]) -> Result<Vec<ItemRow>, Failure> {
        let template = ChatTemplate::of(self.tokenizer)?;
        let written = |item: &&Item| {
            let message = |pair: &[String]| Message {
                role: pair[0].clone(),
                content: pair[1].clone(),
            };
            let messages: Vec<Message> = item.texts.chunks_exact(2).map(message).collect();
            template.answers(&messages).map_err(|error| {
                let place = self.files[item.file as usize].display();
                Failure::input(format!("{place}:{}: {error}", item.line))
            })
        };
        let written: Vec<_> = items.iter().map(written).collect::<Result<_, _>>()?;
        let texts: Vec<&str> = written.iter().map(|(text, _)| text.as_str()).collect();
        let encoded = self.tokenizer.encode_written(&texts, self.max_length)?;
        self.count(&encoded);
        let mut rows = Vec::new();
        for (encoded, (_, ranges)) in encoded.into_iter().zip(&written) {
            let is_answer = |&(from, to): &(u32, u32)| {
                let inside = |range: &Range<usize>| range.contains(&(from as usize));
                from < to && ranges.iter().any(inside)
            };
            let following = encoded.offsets.iter().enumerate().skip(1);
            let places = following.filter(|(_, bytes)| is_answer(bytes));
            let places: Vec<u32> = places.map(|(at, _)| at as u32 - 1).collect();
            if places.is_empty() {
                self.unanswered += 1;
                continue;
            }
            rows.push(ItemRow {
                target: RowTarget::Next(vec![places]),
                sequences: vec![tokens(encoded)],
            });
        }
        Ok(rows)
    }

    fn tagged(&mut self, items: &[&Item]) -> Result<Vec<ItemRow>, Failure> {
        let words: Vec<&[String]> = items.iter().map(|item| item.texts.as_slice()).collect();
        let encoded = self.tokenizer.encode_words(&words, self.max_length)?;
        self.count(&encoded);
        let ids = &self.classes;
        let row = |(item, encoded): (&&Item, Encoded)| {
            let tags = match &item.target {
                ItemTarget::Tags(tags) => tags.as_slice(),
                _ => &[],
            };
            let mut last = None;
            let mut seen = Vec::new();
            for (at, word) in encoded.words.iter().enumerate() {
                if let Some(word) = *word
                    && encoded.parts[at].is_some()
                    && last != Some(word)
                {
                    seen.push((at as u32, ids[tags[word as usize].as_str()]));
                    last = Some(word);
                }
            }
            ItemRow {
                sequences: vec![tokens(encoded)],
                target: RowTarget::Tags(seen),
            }
        };
        Ok(items.iter().zip(encoded).map(row).collect())
    }

    fn texts(&mut self, items: &[&Item]) -> Result<Vec<ItemRow>, Failure> {
        let parts = |item: &&Item| -> Vec<(String, Option<String>)> {
            let (first, others) = (item.texts[0].clone(), &item.texts[1..]);
            match &item.target {
                ItemTarget::None => item.texts.iter().map(|text| (text.clone(), None)).collect(),
                ItemTarget::Choice(_) => {
                    let choices = others.iter().cloned();
                    choices
                        .map(|choice| (first.clone(), Some(choice)))
                        .collect()
                }
                _ => vec![(first, others.first().cloned())],
            }
        };
        let parts: Vec<Vec<_>> = items.iter().map(parts).collect();
        let flat = parts.iter().flatten();
        let flat: Vec<_> = flat
            .map(|(first, second)| (first.as_str(), second.as_deref()))
            .collect();
        let encoded = self.tokenizer.encode_parts(&flat, self.max_length)?;
        self.count(&encoded);
        let mut encoded = encoded.into_iter().map(tokens);
        let rows = items.iter().zip(&parts).map(|(item, parts)| ItemRow {
            sequences: encoded.by_ref().take(parts.len()).collect(),
            target: match &item.target {
                ItemTarget::None => RowTarget::Pair,
                ItemTarget::Value(value) => RowTarget::Value(*value),
                ItemTarget::Choice(right) => RowTarget::Choice(*right as u32),
                ItemTarget::Labels(names) => RowTarget::Labels(
                    names
                        .iter()
                        .map(|name| self.classes[name.as_str()])
                        .collect(),
                ),
                _ => RowTarget::Labels(vec![]),
            },
        });
        Ok(rows.collect())
    }

    fn questions(&mut self, items: &[&Item], looked_at: bool) -> Result<ItemRows, Failure> {
        let pair = |item: &&Item| (item.texts[1].clone(), item.texts[0].clone());
        let pairs: Vec<(String, String)> = items.iter().map(pair).collect();
        let rows: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(question, context)| (question.as_str(), context.as_str()))
            .collect();
        let encoded = self
            .tokenizer
            .encode_windows(&rows, self.max_length, self.stride)?;
        let (mut rows, mut questions) = (Vec::new(), Questions::default());
        for (number, (item, windows)) in items.iter().zip(encoded).enumerate() {
            self.count(&windows[..1]);
            let answers = match &item.target {
                ItemTarget::Answers(answers) => answers.as_slice(),
                _ => &[],
            };
            let context = &item.texts[0];
            let first = answers.first().map(|answer| {
                let mut places = context.char_indices().map(|(at, _)| at);
                let from = places.nth(answer.start).unwrap_or(context.len());
                [from as u32, (from + answer.text.len()) as u32]
            });
            for encoded in windows {
                let bytes = encoded.bytes_of(1);
                let ends = first
                    .and_then(|answer| tokens_of(&bytes, answer))
                    .unwrap_or_default();
                rows.push(ItemRow {
                    target: RowTarget::Span(ends, questions.windows.len() as u32),
                    sequences: vec![tokens(encoded)],
                });
                let question = number as u32;
                let bytes = if looked_at { bytes } else { vec![] };
                questions.windows.push(Window { question, bytes });
            }
            if looked_at {
                questions.contexts.push(context.clone());
                let texts = answers.iter().map(|answer| answer.text.clone());
                questions.answers.push(texts.collect());
            }
        }
        Ok(ItemRows {
            rows: Arc::new(rows),
            questions: Arc::new(questions),
        })
    }
}

/// Dialogues in sequences of at most this many tokens, the longest first into the first sequence that has room for it.
fn packed(rows: &[ItemRow], max_length: usize) -> Vec<ItemRow> {
    let length = |row: &ItemRow| row.sequences.iter().map(|one| one.ids.len()).sum::<usize>();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(length(&rows[row])));
    let mut all: Vec<(usize, ItemRow)> = Vec::new();
    // Sequences by the room that they have left: the first of those with enough is the fullest.
    let mut room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for row in order.into_iter().map(|row| &rows[row]) {
        let needed = length(row);
        let found = room
            .range_mut(needed..)
            .next()
            .and_then(|(left, open)| Some((*left, open.pop()?)));
        let at = match found {
            Some((left, at)) => {
                if room.get(&left).is_some_and(Vec::is_empty) {
                    room.remove(&left);
                }
                let (_, pack) = &mut all[at];
                pack.sequences.extend(row.sequences.iter().cloned());
                if let (RowTarget::Next(ours), RowTarget::Next(more)) =
                    (&mut pack.target, &row.target)
                {
                    ours.extend(more.iter().cloned());
                }
                all[at].0 = left - needed;
                at
            }
            None => {
                all.push((max_length.saturating_sub(needed), row.clone()));
                all.len() - 1
            }
        };
        room.entry(all[at].0).or_default().push(at);
    }
    all.into_iter().map(|(_, row)| row).collect()
}

fn tokens(Encoded { ids, types, .. }: Encoded) -> Tokens {
    Tokens { ids, types }
}

/// What is to be learned of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemTargets {
    /// Next tokens.
    Next {
        /// From these places of the flattened `[batch * seq]`.
        at: Vec<i32>,
        /// The token that follows each.
        targets: Vec<u32>,
    },
    /// Nothing: rows are pairs, one text after the other.
    Pairs,
    /// Classes of each row.
    Labels(Vec<Vec<u32>>),
    /// A number a row.
    Values(Vec<f32>),
    /// Tags of all words, one row after the other.
    Tags {
        /// Places of their first tokens in the flattened `[batch * seq]`.
        at: Vec<i32>,
        /// The tags.
        tags: Vec<u32>,
        /// Words of each row.
        words: Vec<usize>,
        /// Names of all tags.
        names: Arc<Vec<String>>,
    },
    /// Both ends of the answer in each row.
    Spans {
        /// Places in the row.
        ends: Vec<[u32; 2]>,
        /// The window that each row is.
        windows: Vec<u32>,
        /// All questions of the split.
        questions: Arc<Questions>,
    },
    /// The right one of each question's choices, which are rows one after the other.
    Choices {
        /// Choices of each question.
        counts: Vec<usize>,
        /// The number of the right one.
        right: Vec<u32>,
    },
}

/// Token sequences with what is to be learned of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemBatch {
    /// What the model sees.
    pub inputs: TokenBatch,
    /// What it is to say.
    pub targets: ItemTargets,
}

impl Counts for ItemBatch {
    fn real(&self) -> usize {
        self.inputs.real()
    }

    fn padded(&self) -> usize {
        self.inputs.padded()
    }

    fn denominators(&self) -> Vec<f64> {
        match &self.targets {
            ItemTargets::Tags { tags, .. } => vec![tags.len() as f64],
            ItemTargets::Next { targets, .. } => vec![targets.len() as f64],
            _ => vec![],
        }
    }
}

/// Batches of one split.
struct ItemBatches {
    split: ItemRows,
    epochs: Epochs,
    pad: u32,
    /// Whether the model is told which text of a pair a token is of.
    types: bool,
    names: Arc<Vec<String>>,
}

impl ItemBatches {
    fn inputs(&self, rows: &[&ItemRow]) -> TokenBatch {
        if let Some(RowTarget::Next(_)) = rows.first().map(|row| &row.target) {
            return self.joined(rows);
        }
        let sequences = rows.iter().flat_map(|row| &row.sequences);
        let pairs = sequences.map(|Tokens { ids, types }| (ids.as_slice(), types.as_slice()));
        TokenBatch::of_pairs(pairs, self.pad, self.types)
    }

    /// The sequences of each row as one; they do not see each other.
    fn joined(&self, rows: &[&ItemRow]) -> TokenBatch {
        let join = |row: &&ItemRow| {
            row.sequences
                .iter()
                .flat_map(|one| one.ids.clone())
                .collect()
        };
        let ids: Vec<Vec<u32>> = rows.iter().map(join).collect();
        let mut inputs = TokenBatch::pad(ids.iter().map(Vec::as_slice), self.pad);
        if rows.iter().any(|row| row.sequences.len() > 1) {
            let texts = rows.iter().flat_map(|row| {
                let numbered = row.sequences.iter().zip(0..);
                let mut texts: Vec<i32> = numbered
                    .flat_map(|(one, number)| vec![number; one.ids.len()])
                    .collect();
                // Padding is a text that no token belongs to.
                texts.resize(inputs.seq, -1);
                texts
            });
            inputs.texts = Some(texts.collect());
        }
        inputs
    }

    fn targets(&self, rows: &[&ItemRow], seq: usize) -> ItemTargets {
        let targets = || rows.iter().map(|row| &row.target);
        match rows.first().map(|row| &row.target) {
            Some(RowTarget::Pair) => ItemTargets::Pairs,
            Some(RowTarget::Next(_)) => {
                let (mut at, mut targets) = (vec![], vec![]);
                for (row, one) in rows.iter().enumerate() {
                    let RowTarget::Next(places) = &one.target else {
                        continue;
                    };
                    let mut first = row * seq;
                    for (sequence, places) in one.sequences.iter().zip(places) {
                        at.extend(places.iter().map(|&place| first as i32 + place as i32));
                        targets
                            .extend(places.iter().map(|&place| sequence.ids[place as usize + 1]));
                        first += sequence.ids.len();
                    }
                }
                ItemTargets::Next { at, targets }
            }
            Some(RowTarget::Value(_)) => {
                let value = |target: &RowTarget| match target {
                    RowTarget::Value(value) => *value,
                    _ => 0.0,
                };
                ItemTargets::Values(targets().map(value).collect())
            }
            Some(RowTarget::Tags(_)) => {
                let (mut at, mut tags, mut words) = (vec![], vec![], vec![]);
                for (row, target) in targets().enumerate() {
                    let RowTarget::Tags(seen) = target else {
                        continue;
                    };
                    words.push(seen.len());
                    at.extend(
                        seen.iter()
                            .map(|(place, _)| (row * seq) as i32 + *place as i32),
                    );
                    tags.extend(seen.iter().map(|(_, tag)| *tag));
                }
                let names = self.names.clone();
                ItemTargets::Tags {
                    at,
                    tags,
                    words,
                    names,
                }
            }
            Some(RowTarget::Span(..)) => {
                let span = |target: &RowTarget| match target {
                    RowTarget::Span(ends, window) => (*ends, *window),
                    _ => ([0; 2], 0),
                };
                let (ends, windows) = targets().map(span).unzip();
                let questions = self.split.questions.clone();
                ItemTargets::Spans {
                    ends,
                    windows,
                    questions,
                }
            }
            Some(RowTarget::Choice(_)) => {
                let right = |target: &RowTarget| match target {
                    RowTarget::Choice(right) => *right,
                    _ => 0,
                };
                ItemTargets::Choices {
                    counts: rows.iter().map(|row| row.sequences.len()).collect(),
                    right: targets().map(right).collect(),
                }
            }
            _ => {
                let labels = |target: &RowTarget| match target {
                    RowTarget::Labels(labels) => labels.clone(),
                    _ => vec![],
                };
                ItemTargets::Labels(targets().map(labels).collect())
            }
        }
    }
}

impl BatchSource for ItemBatches {
    type Batch = ItemBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.epochs.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> ItemBatch {
        let picked = self.epochs.batch(number).rows;
        let rows: Vec<&ItemRow> = picked
            .iter()
            .map(|&row| &self.split.rows[row as usize])
            .collect();
        let inputs = self.inputs(&rows);
        let targets = self.targets(&rows, inputs.seq);
        ItemBatch { inputs, targets }
    }
}

impl ItemData {
    /// Training batches in a new order every epoch, the other splits always the same.
    pub fn batches(self, recipe: &Recipe) -> Splits<ItemBatch> {
        let (batching, accumulation) = (recipe.training.batching(), recipe.training.accumulation);
        let tokens = |row: &ItemRow| row.sequences.iter().map(|one| one.ids.len() as u32).sum();
        let lengths: Vec<u32> = self.train.rows.iter().map(tokens).collect();
        let shuffled = Epochs::shuffled(lengths, batching, accumulation, recipe.seed);
        let digest = data::digest(self.train.rows.len(), |at| {
            format!("{:?}", self.train.rows[at]).into_bytes()
        });
        let pad = self.tokenizer.pad();
        let types = self.config.describe().segments > 1;
        let batches = |split: ItemRows, epochs| {
            let names = self.classes.clone();
            Shared::new(ItemBatches {
                split,
                epochs,
                pad,
                types,
                names,
            })
        };
        let in_order = |split: ItemRows| {
            let epochs = Epochs::in_order(split.rows.len(), recipe.training.batch_size);
            batches(split, epochs)
        };
        let is_tested = !self.test.rows.is_empty();
        Splits {
            train: batches(self.train.clone(), shuffled),
            valid: in_order(self.valid.clone()),
            test: is_tested.then(|| in_order(self.test.clone())),
            digest,
            unit: Unit::Tokens,
        }
    }
}
