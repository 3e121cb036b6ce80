//! Splits and tokenizes texts of any size. In: a source of texts and how to read it. Out: tokens of the training and
//! the validation split, and their tokenizer.
//!
//! Texts are read twice at most: to train a tokenizer, and to tokenize. Both results are kept in the [cache](crate::cache)
//! under what they were made of, so a second start reads neither. The bundled definitions bring their tokenizer along.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::path::PathBuf;

use foldhash::quality::FixedState;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::bundled;
use crate::cache::{Cache, CachedTokens, CorpusPart, Notes, digest};
use crate::source::TextSource;
use crate::split::{self, Split};
use crate::tokens::{CutTexts, TokenBuffer, TokenRows, Width, Widths};
use crate::{BadRows, DataError, LeftOut, TextColumns, TextExample, TextTokenizer};

/// Examples, and bytes of their texts, tokenized before they are written.
const CHUNK: usize = 1 << 15;
const CHUNK_BYTES: usize = 8 << 20;
/// Ids held in memory where no cache can be written, in MiB.
const LIMIT: usize = 256;

/// Where a tokenizer comes from.
#[derive(Clone, Debug)]
pub enum TokenizerSource {
    /// A `tokenizer.json`, a `vocab.txt`, a `vocab.json` or a directory.
    Load(PathBuf),
    /// One that is loaded already.
    Given(Box<TextTokenizer>),
    /// WordPiece, trained on the training split.
    Train {
        /// At most as many tokens.
        vocab_size: usize,
    },
    /// Byte-level BPE, trained on the training split.
    TrainBytes {
        /// At most as many tokens.
        vocab_size: usize,
    },
}

/// What tokens are made of.
#[derive(Clone, Debug)]
pub struct CorpusPlan {
    /// The texts.
    pub source: TextSource,
    /// Which columns.
    pub columns: TextColumns,
    /// Share 0 to 1 of the texts that validates, unless files are given for it.
    pub valid: f64,
    /// Share that is left out, unless files are given for it.
    pub test: f64,
    /// Of the splits.
    pub split_seed: u64,
    /// Whose tokens.
    pub tokenizer: TokenizerSource,
    /// Longer texts are cut to so many tokens.
    pub max_length: usize,
}

/// Tokenized splits.
pub struct Corpus {
    /// Trained or loaded.
    pub tokenizer: TextTokenizer,
    /// Training rows.
    pub train: TokenRows,
    /// Validation rows.
    pub valid: TokenRows,
    /// Texts that are left for a test, and in neither of them.
    pub held_out: u64,
    /// Where the tokens come from.
    pub made: Made,
    /// Training texts that were cut to the plan's `max_length`; `None` where an early version made the tokens and did not
    /// count.
    pub cut: Option<CutTexts>,
    /// Rows that are not used, by reason.
    pub left_out: LeftOut,
    /// Texts that are given to validate or test on, and are trained on as well.
    pub leaks: u64,
}

/// Where the tokens of a corpus come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// An earlier start kept them in this folder.
    Opened(PathBuf),
    /// Made now, and kept in this folder.
    Kept {
        /// Of the tokens.
        folder: PathBuf,
        /// Texts that a start which was killed had tokenized.
        resumed: u64,
    },
    /// Made now, and kept nowhere.
    InMemory {
        /// Why not in the cache that was wanted.
        instead: Option<String>,
    },
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened(folder) => write!(f, "tokens from {}", folder.display()),
            Self::Kept { folder, resumed: 0 } => write!(f, "tokens kept in {}", folder.display()),
            Self::Kept { folder, resumed } => write!(
                f,
                "tokens kept in {}, {resumed} texts of an earlier start",
                folder.display()
            ),
            Self::InMemory { instead: None } => write!(f, "tokens in memory"),
            Self::InMemory {
                instead: Some(reason),
            } => write!(f, "tokens in memory alone: {reason}"),
        }
    }
}

/// What is being made of the texts, and of how many by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `training a tokenizer` or `tokenizing`.
    pub what: &'static str,
    /// Texts read so far.
    pub texts: u64,
}

impl Reading {
    fn training(texts: u64) -> Self {
        let what = "training a tokenizer";
        Self { what, texts }
    }

    fn tokenizing(texts: u64) -> Self {
        let what = "tokenizing";
        Self { what, texts }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.texts / 1000, self.texts / 1_000_000) {
            (0, _) => write!(f, "{}: {} texts", self.what, self.texts),
            (thousands, 0) => write!(f, "{}: {thousands} thousand texts", self.what),
            _ => write!(
                f,
                "{}: {:.1} million texts",
                self.what,
                self.texts as f64 / 1e6
            ),
        }
    }
}

/// Progress callback of long work.
type Watch<'a> = &'a (dyn Fn(Reading) + Sync);

impl CorpusPlan {
    /// Reads the corpus from the cache, or makes it and keeps it there.
    ///
    /// Without a cache, or where it cannot be written, tokens stay in memory; `cache` of `None` sets no limit to them.
    ///
    /// # Errors
    /// Malformed texts, an empty split, a tokenizer that cannot be had, or too many tokens for the memory.
    pub fn open(&self, cache: Option<&Cache>) -> Result<Corpus, DataError> {
        self.open_watched(cache, &|_| ())
    }

    /// [`open`](Self::open), and calls `watch` every 32,768 texts.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_watched(
        &self,
        cache: Option<&Cache>,
        watch: Watch<'_>,
    ) -> Result<Corpus, DataError> {
        let Some(cache) = cache else {
            return self.in_memory(None, watch);
        };
        match self.cached(cache, watch) {
            Err(error @ DataError::Cache { .. }) => self.in_memory(Some(error), watch),
            made => made,
        }
    }

    /// The tokenizer alone: from the cache, or loaded or trained, and then kept there.
    ///
    /// # Errors
    /// Malformed texts, or a tokenizer that cannot be had.
    pub fn tokenizer_watched(
        &self,
        cache: Option<&Cache>,
        watch: Watch<'_>,
    ) -> Result<TextTokenizer, DataError> {
        let Some(cache) = cache else {
            return self.tokenizer(watch);
        };
        let cached = cache.contents(&self.source);
        match cached.and_then(|contents| self.cached_tokenizer(cache, &contents, watch)) {
            Err(DataError::Cache { .. }) => self.tokenizer(watch),
            made => made,
        }
    }

    fn cached(&self, cache: &Cache, watch: Watch<'_>) -> Result<Corpus, DataError> {
        let stamps = Cache::stamps(&self.source)?;
        let contents = cache.contents(&self.source)?;
        let tokenizer = self.cached_tokenizer(cache, &contents, watch)?;
        let widths = self.widths(&tokenizer);
        let mut made_of = json!({
            "tokens": self.read_as(&contents),
            "tokenizer": digest(&tokenizer.to_json()?),
            "max_length": self.max_length,
        });
        // The tokenizer's JSON does not say it.
        if tokenizer.frame().cuts_left() {
            made_of["truncation_side"] = "left".into();
        }
        let folder = cache.tokens(&Cache::key(&made_of));
        let place = folder.path().to_path_buf();
        if let Some(tokens) = folder.open(widths) {
            return self.corpus(tokenizer, tokens, Made::Opened(place));
        }
        let mut builder = folder.build()?;
        // Another process may have been building it meanwhile.
        if let Some(tokens) = folder.open(widths) {
            return self.corpus(tokenizer, tokens, Made::Opened(place));
        }
        let resumed = builder.done();
        let (left_out, leaks) = self.tokenize(&tokenizer, resumed, &mut |part| {
            watch(Reading::tokenizing(part.texts));
            builder.add(part)
        })?;
        if Cache::stamps(&self.source)? != stamps {
            builder.give_up();
            let origin = self.source.origin();
            return Err(DataError::ChangedWhileRead { origin });
        }
        builder.finish(left_out, leaks)?;
        let unreadable = || DataError::Cache {
            path: place.clone(),
            source: std::io::Error::other("what was written cannot be read back"),
        };
        let tokens = folder.open(widths).ok_or_else(unreadable)?;
        let made = Made::Kept {
            folder: place,
            resumed,
        };
        self.corpus(tokenizer, tokens, made)
    }

    fn cached_tokenizer(
        &self,
        cache: &Cache,
        contents: &[String],
        watch: Watch<'_>,
    ) -> Result<TextTokenizer, DataError> {
        let (kind, vocab_size) = match self.tokenizer {
            TokenizerSource::Train { vocab_size } => ("wordpiece", vocab_size),
            TokenizerSource::TrainBytes { vocab_size } => ("bytes", vocab_size),
            TokenizerSource::Load(_) | TokenizerSource::Given(_) => return self.tokenizer(watch),
        };
        let made_of = json!({kind: self.read_as(contents), "vocab_size": vocab_size});
        let key = Cache::key(&made_of);
        if let Some(text) = cache.tokenizer(&key) {
            return TextTokenizer::from_bytes(text.as_bytes());
        }
        let tokenizer = self.tokenizer(watch)?;
        cache.keep_tokenizer(&key, &tokenizer.to_json()?)?;
        Ok(tokenizer)
    }

    /// What decides which rows are in which split.
    fn read_as(&self, contents: &[String]) -> Value {
        let mut read_as = json!({
            "contents": contents,
            "text": self.columns.text,
            "valid": self.valid,
            "test": self.test,
            "split_seed": self.split_seed,
        });
        let given = self.source.given();
        if !given.is_empty() {
            let given = given.iter().map(|split| format!("{split:?}"));
            read_as["given"] = given.collect();
        }
        read_as
    }

    /// - instead: why there is no cache, though one was wanted
    fn in_memory(&self, instead: Option<DataError>, watch: Watch<'_>) -> Result<Corpus, DataError> {
        let tokenizer = self.tokenizer(watch)?;
        let widths = self.widths(&tokenizer);
        let [mut train, mut valid] = [(); 2].map(|()| TokenBuffer::new(widths));
        let (mut texts, mut cut) = (0, CutTexts::default());
        let (left_out, leaks) = self.tokenize(&tokenizer, 0, &mut |part| {
            let [more_train, more_valid] = part.splits;
            train.append(more_train);
            valid.append(more_valid);
            texts = part.texts;
            cut.add(part.cut);
            watch(Reading::tokenizing(texts));
            match &instead {
                Some(error) if train.ids.len() + valid.ids.len() > LIMIT << 20 => {
                    Err(self.cache_needed(error))
                }
                _ => Ok(()),
            }
        })?;
        let tokens = CachedTokens {
            texts,
            train: train.finish(),
            valid: valid.finish(),
            notes: Notes {
                cut: Some(cut),
                left_out,
                leaks,
            },
        };
        let instead = instead.as_ref().map(reason);
        self.corpus(tokenizer, tokens, Made::InMemory { instead })
    }

    fn cache_needed(&self, error: &DataError) -> DataError {
        DataError::CacheNeeded {
            origin: self.source.origin(),
            limit: LIMIT,
            reason: reason(error),
        }
    }

    fn corpus(
        &self,
        tokenizer: TextTokenizer,
        tokens: CachedTokens,
        made: Made,
    ) -> Result<Corpus, DataError> {
        let CachedTokens {
            texts,
            train,
            valid,
            notes,
        } = tokens;
        // Rows that were left out when the tokens were made may be refused now.
        if self.columns.bad_rows == BadRows::Refuse && !notes.left_out.is_empty() {
            let left_out = notes.left_out;
            return Err(DataError::BadRows { left_out });
        }
        self.check_split(texts, [train.len(), valid.len()], &notes.left_out)?;
        Ok(Corpus {
            held_out: texts.saturating_sub((train.len() + valid.len()) as u64),
            tokenizer,
            train,
            valid,
            made,
            cut: notes.cut,
            left_out: notes.left_out,
            leaks: notes.leaks,
        })
    }

    fn check_split(
        &self,
        texts: u64,
        [train, valid]: [usize; 2],
        left_out: &LeftOut,
    ) -> Result<(), DataError> {
        if train > 0 && valid > 0 {
            return Ok(());
        }
        Err(DataError::EmptySplit {
            origin: self.source.origin(),
            texts,
            train,
            valid,
            given: matches!(&self.source, TextSource::Given(given) if !given.valid.is_empty()),
            left_out: left_out.clone(),
        })
    }

    fn widths(&self, tokenizer: &TextTokenizer) -> Widths {
        Widths {
            ids: Width::of(tokenizer.largest_id() as usize),
            lengths: Width::of(self.max_length),
        }
    }

    /// Loads or trains it; the bundled definitions bring theirs.
    fn tokenizer(&self, watch: Watch<'_>) -> Result<TextTokenizer, DataError> {
        match &self.tokenizer {
            TokenizerSource::Load(path) => TextTokenizer::load(path),
            TokenizerSource::Given(tokenizer) => Ok(TextTokenizer::clone(tokenizer)),
            TokenizerSource::Train { vocab_size } if self.brings_tokenizer(*vocab_size) => {
                TextTokenizer::from_bytes(bundled::TOKENIZER)
            }
            TokenizerSource::Train { vocab_size } => {
                self.train_tokenizer(*vocab_size, false, watch)
            }
            TokenizerSource::TrainBytes { vocab_size } => {
                self.train_tokenizer(*vocab_size, true, watch)
            }
        }
    }

    /// Whether training would give [`bundled::TOKENIZER`].
    fn brings_tokenizer(&self, vocab_size: usize) -> bool {
        matches!(self.source, TextSource::Bundled("wordnet"))
            && (self.valid, self.test, self.split_seed, vocab_size) == bundled::TOKENIZER_OF
    }

    fn train_tokenizer(
        &self,
        vocab_size: usize,
        bytes: bool,
        watch: Watch<'_>,
    ) -> Result<TextTokenizer, DataError> {
        let (mut texts, mut train, mut valid) = (0, 0, 0);
        let mut examples = self.source.stream(&self.columns)?;
        let rule = self.split_rule();
        let trained_on = examples.by_ref().filter_map(|example| {
            let TextExample { text, file, .. } = match example {
                Ok(example) => example,
                Err(error) => return Some(Err(error)),
            };
            texts += 1;
            if texts % CHUNK as u64 == 0 {
                watch(Reading::training(texts));
            }
            match rule.split(file, &split::text_key(&text)) {
                Split::Train => {
                    train += 1;
                    return Some(Ok(text));
                }
                Split::Valid => valid += 1,
                Split::Test => {}
            }
            None
        });
        let trained = if bytes {
            TextTokenizer::train_bpe_on(trained_on, vocab_size)
        } else {
            TextTokenizer::train_wordpiece_on(trained_on, vocab_size)
        };
        match trained {
            // No text at all to train on is a matter of the splits first.
            Err(DataError::NoWords | DataError::VocabTooSmall { .. }) | Ok(_) => {
                self.check_split(texts, [train, valid], &examples.left_out())?;
            }
            Err(_) => {}
        }
        trained
    }

    fn split_rule(&self) -> SplitRule {
        let given = self.source.given();
        let share = |split, share| if given.contains(&split) { 0.0 } else { share };
        SplitRule {
            valid: share(Split::Valid, self.valid),
            test: share(Split::Test, self.test),
            seed: self.split_seed,
            given,
        }
    }

    /// Tokenizes all examples but the first `done`, and hands the rows of each chunk to `take`. Returns the rows that are
    /// left out, and how many texts leak.
    fn tokenize(
        &self,
        tokenizer: &TextTokenizer,
        done: u64,
        take: &mut dyn FnMut(CorpusPart) -> Result<(), DataError>,
    ) -> Result<(LeftOut, u64), DataError> {
        let rule = self.split_rule();
        let mut leaks = Leaks::of(&rule);
        let mut examples = self.source.stream(&self.columns)?;
        for example in examples.by_ref().take(done as usize) {
            let example = example?;
            if let Some(leaks) = &mut leaks {
                let key = split::text_key(&example.text);
                leaks.see(rule.split(example.file, &key), &key);
            }
        }
        let mut texts = done;
        let mut chunk = Chunk::read(&mut examples)?;
        while !chunk.texts.is_empty() {
            texts += chunk.texts.len() as u64;
            // One core reads ahead.
            let (rows, next) = rayon::join(
                || self.part(tokenizer, &rule, chunk.texts, texts, leaks.as_mut()),
                || Chunk::read(&mut examples),
            );
            take(rows?)?;
            chunk = next?;
        }
        let leaks = leaks.map_or(0, |leaks| leaks.count);
        Ok((examples.left_out(), leaks))
    }

    /// - read: examples up to the last of `texts`
    fn part(
        &self,
        tokenizer: &TextTokenizer,
        rule: &SplitRule,
        texts: Vec<(String, u32)>,
        read: u64,
        mut leaks: Option<&mut Leaks>,
    ) -> Result<CorpusPart, DataError> {
        let texts = texts.into_par_iter().map(|(text, file)| {
            let key = split::text_key(&text);
            (rule.split(file, &key), key, text)
        });
        let texts: Vec<_> = texts.collect();
        let mut splits: [Vec<String>; 2] = Default::default();
        for (split, key, text) in texts {
            if let Some(leaks) = &mut leaks {
                leaks.see(split, &key);
            }
            match split {
                Split::Train => splits[0].push(text),
                Split::Valid => splits[1].push(text),
                Split::Test => {}
            }
        }
        let [train, valid] = splits;
        let buffer = |rows: &[Vec<u32>]| {
            let mut buffer = TokenBuffer::new(self.widths(tokenizer));
            rows.iter().for_each(|row| buffer.push(row));
            buffer
        };
        let train_rows = tokenizer.encode(&train, self.max_length)?;
        let valid_rows = tokenizer.encode(&valid, self.max_length)?;
        Ok(CorpusPart {
            texts: read,
            splits: [buffer(&train_rows), buffer(&valid_rows)],
            cut: CutTexts::count(tokenizer, &train, &train_rows, self.max_length)?,
        })
    }
}

/// Which split a text belongs to.
struct SplitRule {
    /// Of each file, where they are given as splits.
    given: Vec<Split>,
    /// Shares of what is not given.
    valid: f64,
    test: f64,
    seed: u64,
}

impl SplitRule {
    fn split(&self, file: u32, key: &str) -> Split {
        match self.given.get(file as usize) {
            Some(&split) if split != Split::Train => split,
            _ => split::split_of(key.as_bytes(), self.valid, self.test, self.seed),
        }
    }
}

/// Counts texts of given splits that are trained on as well. Files to train on come last, so what is held out is known.
struct Leaks {
    hasher: FixedState,
    /// How often each text is held out, by its hash.
    held_out: HashMap<u64, u64>,
    count: u64,
}

impl Leaks {
    /// Nothing where no split is given: by content none can leak.
    fn of(rule: &SplitRule) -> Option<Self> {
        (!rule.given.is_empty()).then(|| Self {
            hasher: FixedState::default(),
            held_out: HashMap::new(),
            count: 0,
        })
    }

    fn see(&mut self, split: Split, key: &str) {
        let key = self.hasher.hash_one(key);
        if split == Split::Train {
            self.count += self.held_out.remove(&key).unwrap_or(0);
        } else {
            *self.held_out.entry(key).or_default() += 1;
        }
    }
}

/// An error and its cause.
fn reason(error: &DataError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    format!("{error}: {}", cause.unwrap_or_default())
}

/// Texts to tokenize together.
#[derive(Default)]
struct Chunk {
    /// Each with the number of its file.
    texts: Vec<(String, u32)>,
    bytes: usize,
}

impl Chunk {
    /// The next texts; none at the end.
    fn read(
        examples: &mut impl Iterator<Item = Result<TextExample, DataError>>,
    ) -> Result<Self, DataError> {
        let mut chunk = Self::default();
        while !chunk.is_full()
            && let Some(example) = examples.next()
        {
            let TextExample { text, file, .. } = example?;
            chunk.push(text, file);
        }
        Ok(chunk)
    }

    fn push(&mut self, text: String, file: u32) {
        self.bytes += text.len();
        self.texts.push((text, file));
    }

    fn is_full(&self) -> bool {
        self.texts.len() >= CHUNK || self.bytes >= CHUNK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use tempfile::TempDir;

    fn lines(n: usize) -> String {
        let kinds = ["bird", "tool", "plant"];
        let line = |i: usize| format!("{i} a {} of {} words\n", kinds[i % 3], i % 11);
        (0..n).map(line).collect()
    }

    fn plan(files: &[PathBuf]) -> CorpusPlan {
        CorpusPlan {
            source: TextSource::Files(files.to_vec().into()),
            columns: TextColumns::default(),
            valid: 0.2,
            test: 0.1,
            split_seed: 3,
            tokenizer: TokenizerSource::Train { vocab_size: 120 },
            max_length: 8,
        }
    }

    fn rows(tokens: &TokenRows) -> Vec<Vec<u32>> {
        (0..tokens.len() as u32)
            .map(|row| tokens.row(row))
            .collect()
    }

    fn assert_equal(one: &Corpus, other: &Corpus) {
        assert_eq!(rows(&one.train), rows(&other.train));
        assert_eq!(rows(&one.valid), rows(&other.valid));
        assert_eq!(
            one.tokenizer.to_json().unwrap(),
            other.tokenizer.to_json().unwrap()
        );
    }

    /// A folder with a text file and a cache in it, and the plan for the file.
    fn bench(n: usize) -> (TempDir, PathBuf, Cache, CorpusPlan) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, lines(n)).unwrap();
        let cache = Cache::at(folder.path().join("cache"));
        let plan = plan(std::slice::from_ref(&path));
        (folder, path, cache, plan)
    }

    /// The only folder of tokens.
    fn tokens(folder: &TempDir) -> PathBuf {
        let all = fs::read_dir(folder.path().join("cache/tokens")).unwrap();
        let mut folders = all
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir());
        let first = folders.next().unwrap();
        assert_eq!(folders.next(), None);
        first
    }

    #[test]
    fn splits_and_rows_are_those_of_texts_in_memory() {
        let (_folder, path, cache, plan) = bench(500);
        let corpus = plan.open(Some(&cache)).unwrap();
        let set = crate::read_text(&[path], &plan.columns).unwrap();
        let keys: Vec<_> = set
            .examples
            .iter()
            .map(|e| split::text_key(&e.text))
            .collect();
        let keys = keys.iter().map(|key| key.as_bytes());
        let splits = split::split_by_content(keys, plan.valid, plan.test, plan.split_seed);
        let texts = |rows: &[usize]| -> Vec<&str> {
            rows.iter()
                .map(|&row| set.examples[row].text.as_str())
                .collect()
        };
        let tokenizer = TextTokenizer::train_wordpiece(&texts(&splits.train), 120).unwrap();
        assert_eq!(
            corpus.tokenizer.to_json().unwrap(),
            tokenizer.to_json().unwrap()
        );
        let expected = |rows: &[usize]| tokenizer.encode(&texts(rows), 8).unwrap();
        assert_eq!(rows(&corpus.train), expected(&splits.train));
        assert_eq!(rows(&corpus.valid), expected(&splits.valid));
        assert_equal(&corpus, &plan.open(None).unwrap());
    }

    #[test]
    fn the_bundled_definitions_bring_the_tokenizer_that_training_gives() {
        let (valid, test, split_seed, vocab_size) = bundled::TOKENIZER_OF;
        let bundled = CorpusPlan {
            source: TextSource::Bundled("wordnet"),
            columns: TextColumns::default(),
            valid,
            test,
            split_seed,
            tokenizer: TokenizerSource::Train { vocab_size },
            max_length: 64,
        };
        let brought = bundled.tokenizer(&|_| ()).unwrap();
        let trained = bundled.train_tokenizer(vocab_size, false, &|_| ()).unwrap();
        assert_eq!(brought.to_json().unwrap(), trained.to_json().unwrap());
        // Another split or size has another tokenizer.
        let others = [
            CorpusPlan {
                source: TextSource::Bundled("wordnet-nouns"),
                ..bundled.clone()
            },
            CorpusPlan {
                split_seed: 1,
                ..bundled.clone()
            },
            CorpusPlan {
                test: 0.06,
                ..bundled.clone()
            },
        ];
        assert!(bundled.brings_tokenizer(vocab_size));
        assert!(!bundled.brings_tokenizer(vocab_size - 1));
        assert!(!others.iter().any(|plan| plan.brings_tokenizer(vocab_size)));
    }

    #[test]
    fn a_second_start_only_opens_what_the_first_kept() {
        let (folder, path, cache, plan) = bench(300);
        let first = plan.open(Some(&cache)).unwrap();
        assert!(
            first.made.to_string().starts_with("tokens kept in"),
            "{}",
            first.made
        );
        let second = plan.open(Some(&cache)).unwrap();
        assert!(
            second.made.to_string().starts_with("tokens from"),
            "{}",
            second.made
        );
        assert_equal(&first, &second);
        // The same contents elsewhere.
        let copy = folder.path().join("b.txt");
        fs::copy(&path, &copy).unwrap();
        let elsewhere = self::plan(&[copy]).open(Some(&cache)).unwrap();
        assert!(
            elsewhere.made.to_string().starts_with("tokens from"),
            "{}",
            elsewhere.made
        );
    }

    #[test]
    fn whatever_tokens_depend_on_makes_them_anew() {
        let (_folder, path, cache, plan) = bench(300);
        plan.open(Some(&cache)).unwrap();
        let mut others = vec![plan.clone(); 5];
        others[0].max_length = 6;
        others[1].valid = 0.3;
        others[2].split_seed = 4;
        others[3].tokenizer = TokenizerSource::Train { vocab_size: 119 };
        others[4].test = 0.0;
        for other in others {
            let made = other.open(Some(&cache)).unwrap().made.to_string();
            assert!(made.starts_with("tokens kept"), "{made}");
        }
        fs::write(&path, lines(301)).unwrap();
        let changed = plan.open(Some(&cache)).unwrap();
        assert!(
            changed.made.to_string().starts_with("tokens kept"),
            "{}",
            changed.made
        );
        assert_equal(&changed, &plan.open(None).unwrap());
    }

    #[test]
    fn texts_cut_on_the_other_side_are_tokens_of_their_own() {
        let (folder, _, cache, mut plan) = bench(300);
        let given = folder.path().join("given");
        fs::create_dir(&given).unwrap();
        let json = plan.open(None).unwrap().tokenizer.to_json().unwrap();
        fs::write(given.join("tokenizer.json"), json).unwrap();
        plan.tokenizer = TokenizerSource::Load(given.clone());
        // Shorter than any of the texts.
        plan.max_length = 4;
        let right = plan.open(Some(&cache)).unwrap();
        let config = r#"{"truncation_side": "left"}"#;
        fs::write(given.join("tokenizer_config.json"), config).unwrap();
        let left = plan.open(Some(&cache)).unwrap();
        let made = left.made.to_string();
        assert!(made.starts_with("tokens kept"), "{made}");
        assert_ne!(rows(&left.train), rows(&right.train));
        assert_equal(&left, &plan.open(None).unwrap());
        assert_equal(&left, &plan.open(Some(&cache)).unwrap());
    }

    #[test]
    fn broken_caches_are_made_anew() {
        let (folder, _, cache, plan) = bench(300);
        let whole = plan.open(None).unwrap();
        plan.open(Some(&cache)).unwrap();
        for name in [
            "train.ids",
            "train.lengths",
            "valid.ids",
            "valid.lengths",
            "index.json",
        ] {
            for cut in [true, false] {
                let path = tokens(&folder).join(name);
                let mut bytes = fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                if cut {
                    bytes.truncate(middle)
                } else {
                    bytes[middle] ^= 0x10
                }
                // The old file stays as it is where it is mapped.
                fs::remove_file(&path).unwrap();
                fs::write(&path, bytes).unwrap();
                let again = plan.open(Some(&cache)).unwrap();
                assert!(
                    again.made.to_string().starts_with("tokens kept"),
                    "{name}: {}",
                    again.made
                );
                assert_equal(&again, &whole);
            }
        }
        for entry in fs::read_dir(folder.path().join("cache/tokenizers")).unwrap() {
            fs::write(entry.unwrap().path(), "[\"\",\"{}\"]").unwrap();
        }
        assert_equal(&plan.open(Some(&cache)).unwrap(), &whole);
    }

    #[test]
    fn a_killed_build_goes_on_at_its_last_chunk() {
        let (folder, path, cache, mut plan) = bench(0);
        // More than two chunks of short lines.
        let n = 2 * CHUNK + 1000;
        fs::write(&path, lines(n)).unwrap();
        let json = folder.path().join("tokenizer.json");
        let texts = ["a bird of words", "a tool 0 1 2 3 4 5 6 7 8 9", "plant"];
        let tokenizer = TextTokenizer::train_wordpiece(&texts, 80).unwrap();
        fs::write(&json, tokenizer.to_json().unwrap()).unwrap();
        plan.tokenizer = TokenizerSource::Load(json);
        let whole = plan.open(Some(&cache)).unwrap();

        let finished = tokens(&folder);
        let building = finished.with_extension("building");
        let killed_after = |chunks: u64, broken: bool| {
            fs::remove_dir_all(&finished).unwrap();
            let contents = cache.contents(&plan.source).unwrap();
            let made_of = json!({
                "tokens": plan.read_as(&contents),
                "tokenizer": digest(&tokenizer.to_json().unwrap()),
                "max_length": plan.max_length,
            });
            let mut builder = cache.tokens(&Cache::key(&made_of)).build().unwrap();
            let done = plan.tokenize(&tokenizer, 0, &mut |part| {
                if part.texts > chunks * CHUNK as u64 {
                    return Err(DataError::NoWords);
                }
                builder.add(part)
            });
            assert!(done.is_err());
            drop(builder);
            append(&building.join("train.ids"), b"half a chunk");
            append(&building.join("journal.jsonl"), b"\n{\"texts\": 99");
            if broken {
                let path = building.join("valid.lengths");
                let mut bytes = fs::read(&path).unwrap();
                bytes[7] ^= 1;
                fs::write(path, bytes).unwrap();
            }
            let again = plan.open(Some(&cache)).unwrap();
            assert_equal(&again, &whole);
            assert!(!building.exists());
            again.made.to_string()
        };
        assert!(killed_after(0, false).starts_with("tokens kept in"));
        let made = killed_after(2, false);
        let resumed = format!("{} texts of an earlier start", 2 * CHUNK);
        assert!(made.ends_with(&resumed), "{made}");
        let made = killed_after(1, true);
        assert!(!made.contains("earlier"), "{made}");
    }

    fn append(path: &Path, bytes: &[u8]) {
        let mut all = fs::read(path).unwrap_or_default();
        all.extend_from_slice(bytes);
        fs::write(path, all).unwrap();
    }

    #[test]
    fn starts_at_the_same_time_share_one_build() {
        let (_folder, _, cache, plan) = bench(5000);
        let whole = plan.open(None).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_equal(&plan.open(Some(&cache)).unwrap(), &whole));
            }
        });
    }

    #[test]
    fn without_a_folder_to_write_small_texts_stay_in_memory() {
        let (folder, path, _, plan) = bench(300);
        // A file where the folder should be: for any user no folder.
        let cache = Cache::at(path.join("cache"));
        let corpus = plan.open(Some(&cache)).unwrap();
        let made = corpus.made.to_string();
        assert!(made.starts_with("tokens in memory alone: "), "{made}");
        assert!(made.contains("the cache cannot be used"), "{made}");
        assert_equal(&corpus, &plan.open(None).unwrap());
        drop(folder);
    }

    #[test]
    fn splits_that_are_empty_and_texts_that_are_wrong() {
        let (folder, path, cache, mut plan) = bench(300);
        let message = |plan: &CorpusPlan| plan.open(Some(&cache)).err().unwrap().to_string();
        plan.valid = 0.0;
        let empty = message(&plan);
        assert!(empty.contains("a.txt: 300 texts leave 2"), "{empty}");
        assert!(
            empty.contains("and 0 to validate on; raise data.valid"),
            "{empty}"
        );
        plan.valid = 0.2;
        fs::write(&path, b"one\n\xff\n").unwrap();
        let broken = message(&plan);
        assert!(broken.contains("a.txt:2: not valid UTF-8"), "{broken}");
        assert!(!folder.path().join("cache/tokens").exists());
    }

    /// Sets the file's time of writing.
    fn touch(path: &Path, time: std::time::SystemTime) {
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn other_contents_of_the_same_size_and_time_are_noticed() {
        let (_folder, path, cache, plan) = bench(300);
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_577_836_800);
        touch(&path, long_ago);
        // The state of a file is believed only when it is some seconds old.
        std::thread::sleep(std::time::Duration::from_millis(2_500));
        plan.open(Some(&cache)).unwrap();
        let opened = plan.open(Some(&cache)).unwrap().made.to_string();
        assert!(opened.starts_with("tokens from"), "{opened}");
        let changed = lines(300).replace("bird", "fish");
        fs::write(&path, &changed).unwrap();
        touch(&path, long_ago);
        let again = plan.open(Some(&cache)).unwrap();
        assert_equal(&again, &plan.open(None).unwrap());
        assert!(again.tokenizer.to_json().unwrap().contains("fish"));
        // A file that is put into its place, as rsync does, is another file.
        std::thread::sleep(std::time::Duration::from_millis(2_500));
        plan.open(Some(&cache)).unwrap();
        let fresh = path.with_extension("new");
        fs::write(&fresh, lines(300)).unwrap();
        touch(&fresh, long_ago);
        fs::rename(&fresh, &path).unwrap();
        let again = plan.open(Some(&cache)).unwrap();
        assert!(again.tokenizer.to_json().unwrap().contains("bird"));
    }

    #[test]
    fn bad_rows_are_counted_and_refused_even_where_tokens_are_kept() {
        let (folder, _, cache, mut plan) = bench(0);
        let path = folder.path().join("a.csv");
        let rows: String = lines(300)
            .lines()
            .map(|line| format!("{line},x\n"))
            .collect();
        let bad = ["text,label\n", &rows, " ,x\nragged\n", &rows].concat();
        fs::write(&path, bad).unwrap();
        plan.source = TextSource::Files(vec![path.clone()].into());
        assert!(matches!(
            plan.open(Some(&cache)),
            Err(DataError::BadRows { .. })
        ));
        let skip = CorpusPlan {
            columns: TextColumns {
                bad_rows: BadRows::Skip,
                ..TextColumns::default()
            },
            ..plan.clone()
        };
        let made = skip.open(Some(&cache)).unwrap();
        let opened = skip.open(Some(&cache)).unwrap();
        assert!(matches!(opened.made, Made::Opened(_)));
        for corpus in [&made, &opened, &skip.open(None).unwrap()] {
            let places: Vec<_> = corpus
                .left_out
                .reasons()
                .iter()
                .flat_map(|r| &r.places)
                .collect();
            let expected = [302, 303].map(|line| format!("{}:{line}", path.display()));
            assert_eq!(places, expected.iter().collect::<Vec<_>>());
        }
        assert!(matches!(
            plan.open(Some(&cache)),
            Err(DataError::BadRows { .. })
        ));
        let good = ["text,label\n", &rows, &rows].concat();
        fs::write(&path, good).unwrap();
        assert_equal(&made, &plan.open(None).unwrap());
    }

    #[test]
    fn files_that_change_while_they_are_read_are_not_kept() {
        let (folder, path, cache, plan) = bench(300);
        let changing = |reading: Reading| {
            if reading.what == "tokenizing" {
                append(&path, b"one more bird\n");
            }
        };
        let error = plan.open_watched(Some(&cache), &changing).err().unwrap();
        assert!(
            matches!(error, DataError::ChangedWhileRead { .. }),
            "{error}"
        );
        assert_eq!(
            fs::read_dir(folder.path().join("cache/tokens"))
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().path().is_dir())
                .count(),
            0
        );
        assert_equal(&plan.open(Some(&cache)).unwrap(), &plan.open(None).unwrap());
    }

    #[test]
    fn what_is_cut_is_counted_and_kept() {
        let (_folder, path, cache, mut plan) = bench(0);
        // 50 texts of 4 words and 50 of 20, each word a token or so.
        let texts: String = (0..100)
            .map(|i| format!("{i}{}\n", " bird".repeat(if i % 2 == 0 { 3 } else { 19 })))
            .collect();
        fs::write(&path, texts).unwrap();
        plan.max_length = 12;
        plan.test = 0.0;
        let made = plan.open(Some(&cache)).unwrap();
        let cut = made.cut.unwrap();
        assert_eq!(plan.open(Some(&cache)).unwrap().cut, Some(cut));
        assert_eq!(plan.open(None).unwrap().cut, Some(cut));
        assert_eq!(cut.of_texts, made.train.len() as u64);
        let longest = (0..made.train.len() as u32).filter(|&row| made.train.row(row).len() == 12);
        assert_eq!(cut.texts, longest.count() as u64);
        let kept: usize = rows(&made.train).iter().map(Vec::len).sum();
        assert_eq!(cut.of_tokens - cut.tokens_lost, kept as u64);
        let whole = CorpusPlan {
            max_length: 100,
            ..plan.clone()
        }
        .open(None)
        .unwrap();
        assert_eq!(whole.cut.unwrap().texts, 0);
        let tokens: usize = rows(&whole.train).iter().map(Vec::len).sum();
        assert_eq!(cut.of_tokens, tokens as u64);
    }

    #[test]
    fn given_splits_are_followed_and_leaks_counted() {
        let folder = TempDir::new().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::write(place("train.txt"), lines(300)).unwrap();
        let held_out = |from: usize, n: usize| -> String {
            (from..from + n)
                .map(|i| format!("{i} held out tool\n"))
                .collect()
        };
        // Two texts, one of them twice, that are trained on as well.
        let first: Vec<String> = lines(2).lines().map(str::to_uppercase).collect();
        let leaking = format!(
            "{}{}\n{}\n{}\n",
            held_out(0, 40),
            first[0],
            first[1],
            first[1]
        );
        fs::write(place("valid.txt"), leaking).unwrap();
        fs::write(place("test.txt"), held_out(100, 20)).unwrap();
        let named = vec![folder.path().display().to_string()];
        let source = TextSource::in_splits(&named, &[], &[]).unwrap();
        let plan = CorpusPlan {
            source,
            ..plan(&[])
        };
        let cache = Cache::at(place("cache"));
        let made = plan.open(Some(&cache)).unwrap();
        for corpus in [
            &made,
            &plan.open(Some(&cache)).unwrap(),
            &plan.open(None).unwrap(),
        ] {
            assert_eq!(
                (corpus.train.len(), corpus.valid.len(), corpus.leaks),
                (300, 43, 3)
            );
            assert!(!corpus.tokenizer.to_json().unwrap().contains("held"));
        }
        // The same files, not as splits.
        let files = ["test.txt", "train.txt", "valid.txt"].map(place);
        let mixed = self::plan(&files).open(Some(&cache)).unwrap();
        assert_eq!(mixed.leaks, 0);
        assert_ne!(mixed.valid.len(), 43);
        // Without a file to validate on, texts to train on are held out.
        let named = [place("train.txt"), place("test.txt")].map(|path| path.display().to_string());
        let source = TextSource::in_splits(&named, &[], &[]).unwrap();
        let drawn = CorpusPlan {
            source,
            ..plan.clone()
        }
        .open(None)
        .unwrap();
        assert_eq!(drawn.train.len() + drawn.valid.len(), 300);
        assert!(
            (30..100).contains(&drawn.valid.len()),
            "{}",
            drawn.valid.len()
        );
    }
}
