//! Masked batches of the bundled definitions. In: files. Out: token ids, padded on the right, and what to predict.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tokenizers::{Tokenizer, TruncationParams};
use zstd::stream::read::Decoder as ZstdDecoder;

pub const BATCH: usize = 64;
const MAX_LENGTH: usize = 64;
const POOL: usize = 50;
const PAD: u32 = 0;
const MASK: u32 = 4;
/// Ids below are `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]`.
const FIRST_WORD: u32 = 5;

/// The tokenizer, which cuts texts to 64 tokens.
pub fn tokenizer(path: &Path) -> Result<Tokenizer> {
    let place = || path.display().to_string();
    let mut tokenizer = Tokenizer::from_file(path)
        .map_err(|error| anyhow!(error))
        .with_context(place)?;
    let truncation = TruncationParams {
        max_length: MAX_LENGTH,
        ..Default::default()
    };
    tokenizer
        .with_truncation(Some(truncation))
        .map_err(|error| anyhow!(error))?;
    Ok(tokenizer)
}

/// Token ids of every definition, `[CLS] ... [SEP]`.
pub fn tokens(path: &Path, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>> {
    let texts = definitions(path).with_context(|| path.display().to_string())?;
    let mut tokens = Vec::with_capacity(texts.len());
    for chunk in texts.chunks(1000) {
        let encodings = tokenizer
            .encode_batch_fast(chunk.to_vec(), true)
            .map_err(|error| anyhow!(error))?;
        tokens.extend(encodings.iter().map(|encoding| encoding.get_ids().to_vec()));
    }
    Ok(tokens)
}

/// The second column of the table.
fn definitions(path: &Path) -> Result<Vec<String>> {
    let lines = BufReader::new(ZstdDecoder::new(File::open(path)?)?).lines();
    let text = |line: std::io::Result<String>| {
        let line = line?;
        let (_, text) = line.split_once('\t').context("a line without a tab")?;
        Ok(text.to_string())
    };
    lines.skip(1).map(text).collect()
}

/// Token sequences with some tokens to predict.
pub struct Batch {
    /// `[64, seq]`, row-major.
    pub tokens: Vec<u32>,
    /// Longest of the rows.
    pub seq: usize,
    /// Tokens that are no padding.
    pub real: usize,
    /// Which of the flattened positions are predicted.
    pub positions: Vec<u32>,
    /// The tokens that stood there.
    pub targets: Vec<u32>,
}

/// Batches without end, in a new order every epoch.
pub struct Batches<'a> {
    tokens: &'a [Vec<u32>],
    vocab_size: u32,
    grouped: bool,
    order: Vec<Vec<usize>>,
    rng: ChaCha8Rng,
}

impl<'a> Batches<'a> {
    /// - grouped: sorts each pool of 50 batches by length, so that a batch holds like lengths
    pub fn new(tokens: &'a [Vec<u32>], vocab_size: usize, grouped: bool, rng: ChaCha8Rng) -> Self {
        Self {
            tokens,
            vocab_size: vocab_size as u32,
            grouped,
            order: Vec::new(),
            rng,
        }
    }

    pub fn draw(&mut self) -> Batch {
        let rows = match self.order.pop() {
            Some(rows) => rows,
            None => {
                self.order = self.epoch();
                self.order.pop().unwrap_or_default()
            }
        };
        self.masked(&rows)
    }

    fn epoch(&mut self) -> Vec<Vec<usize>> {
        let mut rows: Vec<usize> = (0..self.tokens.len()).collect();
        rows.shuffle(&mut self.rng);
        if self.grouped {
            let pools = rows.chunks_mut(POOL * BATCH);
            pools.for_each(|pool| pool.sort_by_key(|&row| self.tokens[row].len()));
        }
        let mut batches: Vec<_> = rows.chunks_exact(BATCH).map(<[usize]>::to_vec).collect();
        batches.shuffle(&mut self.rng);
        batches
    }

    /// Predicts 15 % of the words: 80 % of them become `[MASK]`, 10 % another word, the rest stay.
    fn masked(&mut self, rows: &[usize]) -> Batch {
        let rows: Vec<&Vec<u32>> = rows.iter().map(|&row| &self.tokens[row]).collect();
        let seq = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let real = rows.iter().map(|row| row.len()).sum();
        let mut tokens = vec![PAD; rows.len() * seq];
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        for (n, row) in rows.iter().enumerate() {
            for (at, &token) in (n * seq..).zip(row.iter()) {
                tokens[at] = token;
                if token >= FIRST_WORD && self.rng.random::<f32>() < 0.15 {
                    positions.push(at as u32);
                    targets.push(token);
                    tokens[at] = replacement(token, self.vocab_size, &mut self.rng);
                }
            }
        }
        Batch {
            tokens,
            seq,
            real,
            positions,
            targets,
        }
    }
}

fn replacement(token: u32, vocab_size: u32, rng: &mut ChaCha8Rng) -> u32 {
    match rng.random::<f32>() {
        fate if fate < 0.8 => MASK,
        fate if fate < 0.9 => rng.random_range(FIRST_WORD..vocab_size),
        _ => token,
    }
}
