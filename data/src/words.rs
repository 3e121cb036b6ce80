//! Ids of words that were met before, for texts are mostly words met before. In: what stands between blanks. Out: ids.

use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use foldhash::HashMap;
use rayon::prelude::*;
use serde_json::{Value, json};
use tokenizers::{Model, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use crate::DataError;

/// Words that are kept: the first ones met, so the frequent ones.
const MOST: usize = 1 << 17;
/// Longer ones, in bytes, are not kept.
const LONGEST: usize = 48;
/// Texts that one thread takes at a time, at most.
const GROUP: usize = 2048;

/// The parts of a text between blanks, as every tokenizer that has [`KnownWords`] splits it first.
///
/// Not all that Unicode calls white space: BERT's normalizer removes form feeds, for example, without splitting there.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    // By bytes: in UTF-8 an ASCII byte is never a part of another character.
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let mut at = 0;
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        at += bytes[at..].iter().position(|byte| !is_blank(byte))?;
        let rest = &bytes[at..];
        let word = at..at + rest.iter().position(is_blank).unwrap_or(rest.len());
        at = word.end;
        Some(&text[word])
    })
}

/// The parts of a word between and beside its punctuation, as BERT splits it: those of a word of visible ASCII
/// characters, lower-cased if need be. `None` for other words, of which only the tokenizers crate knows enough.
pub(crate) fn plain_parts<'a>(
    word: &'a str,
    lowercase: bool,
    folded: &'a mut String,
) -> Option<impl Iterator<Item = &'a str>> {
    if !word.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let word = match lowercase {
        true => {
            folded.clear();
            folded.push_str(word);
            folded.make_ascii_lowercase();
            folded.as_str()
        }
        false => word,
    };
    let parts = word.split_inclusive(|letter: char| letter.is_ascii_punctuation());
    let parts = parts.flat_map(|part| {
        let end = part.trim_end_matches(|letter: char| letter.is_ascii_punctuation());
        let (letters, mark) = part.split_at(end.len());
        [letters, mark]
    });
    Some(parts.filter(|part| !part.is_empty()))
}

/// Ids by word.
type Ids = HashMap<Box<str>, Box<[u32]>>;

/// What a tokenizer makes of each word, where a text's ids are those of its words one after another.
#[derive(Debug)]
pub(crate) struct KnownWords {
    ids: RwLock<Ids>,
    cls: u32,
    sep: u32,
    lowercase: bool,
    /// Lower-cased; `None` if one is more than visible ASCII.
    added: Option<Vec<String>>,
}

impl KnownWords {
    /// Nothing known yet; `None` if words depend on their neighbours, or for all we know might.
    pub(crate) fn of(tokenizer: &Tokenizer, cls: u32, sep: u32) -> Option<Self> {
        let lowercase = match tokenizer.get_normalizer() {
            None => false,
            Some(NormalizerWrapper::Lowercase(_)) => true,
            Some(NormalizerWrapper::BertNormalizer(bert)) => bert.lowercase,
            Some(_) => return None,
        };
        let splits = matches!(
            tokenizer.get_pre_tokenizer(),
            Some(PreTokenizerWrapper::BertPreTokenizer(_))
        );
        let by_words = splits && matches!(tokenizer.get_model(), ModelWrapper::WordPiece(_));
        let added = tokenizer.get_added_tokens_decoder().into_values();
        let added: Vec<String> = added.map(|token| token.content).collect();
        let apart = !added
            .iter()
            .any(|token| token.contains(char::is_whitespace));
        let visible = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
        let plain = added.iter().all(visible);
        let added = added.iter().map(|token| token.to_ascii_lowercase());
        let added = plain.then(|| added.collect());
        (by_words && apart && frames(tokenizer, cls, sep)).then(|| Self {
            ids: RwLock::default(),
            cls,
            sep,
            lowercase,
            added,
        })
    }

    /// `[CLS] ... [SEP]` of each text, the words beyond `max_len` tokens not looked at; on all cores.
    pub(crate) fn encode<S: AsRef<str> + Sync>(
        &self,
        tokenizer: &Tokenizer,
        texts: &[S],
        max_len: usize,
    ) -> Result<Vec<Vec<u32>>, DataError> {
        let share = texts.len() / (2 * rayon::current_num_threads());
        let groups = texts.par_chunks(share.clamp(1, GROUP));
        let rows = groups.map(|texts| self.rows(tokenizer, texts, max_len));
        let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
        Ok(rows.into_iter().flatten().collect())
    }

    fn rows<S: AsRef<str>>(
        &self,
        tokenizer: &Tokenizer,
        texts: &[S],
        max_len: usize,
    ) -> Result<Vec<Vec<u32>>, DataError> {
        // Few enough words to stay in a core's cache, unlike those of all texts.
        let mut met: HashMap<&str, Range<usize>> = HashMap::default();
        let mut ids = Vec::new();
        let mut new = Vec::new();
        let mut rows = Vec::with_capacity(texts.len());
        for text in texts {
            let mut row = vec![self.cls];
            for word in words(text.as_ref()) {
                if row.len() >= max_len {
                    break;
                }
                let place = match met.get(word) {
                    Some(place) => place.clone(),
                    None => {
                        let start = ids.len();
                        if !self.recall(word, &mut ids) {
                            ids.extend(self.ids(tokenizer, word)?);
                            new.push(word);
                        }
                        met.insert(word, start..ids.len());
                        start..ids.len()
                    }
                };
                row.extend_from_slice(&ids[place]);
            }
            row.push(self.sep);
            rows.push(row);
        }
        let new = new.iter().map(|&word| (word, &ids[met[word].clone()]));
        self.keep(new.filter(|(word, _)| word.len() <= LONGEST).collect());
        Ok(rows)
    }

    /// Adds the ids of a known word; says whether it is one.
    fn recall(&self, word: &str, ids: &mut Vec<u32>) -> bool {
        let known = self.known();
        let found = known.get(word);
        ids.extend(found.into_iter().flatten());
        found.is_some()
    }

    /// Keeps the ids of words while there is room.
    fn keep(&self, new: Vec<(&str, &[u32])>) {
        if new.is_empty() || self.known().len() >= MOST {
            return;
        }
        let mut known = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        let room = MOST.saturating_sub(known.len());
        let new = new.into_iter().take(room);
        known.extend(new.map(|(word, ids)| (word.into(), ids.into())));
    }

    /// The ids of one word.
    fn ids(&self, tokenizer: &Tokenizer, word: &str) -> Result<Vec<u32>, DataError> {
        let mut folded = String::new();
        if let Some(added) = &self.added
            && let lower = word.to_ascii_lowercase()
            && !added.iter().any(|token| lower.contains(token.as_str()))
            && let Some(parts) = plain_parts(word, self.lowercase, &mut folded)
        {
            let mut ids = Vec::new();
            for part in parts {
                let tokens = tokenizer.get_model().tokenize(part);
                let tokens = tokens.map_err(DataError::Tokenizer)?;
                ids.extend(tokens.iter().map(|token| token.id));
            }
            return Ok(ids);
        }
        let encoding = tokenizer.encode_fast(word, false);
        Ok(encoding.map_err(DataError::Tokenizer)?.get_ids().to_vec())
    }

    fn known(&self) -> RwLockReadGuard<'_, Ids> {
        // A panic elsewhere leaves no word half known.
        self.ids.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a text alone becomes `[CLS] ... [SEP]`. Read from the file's own words: a template that is not sound panics
/// when it is tried.
fn frames(tokenizer: &Tokenizer, cls: u32, sep: u32) -> bool {
    let Some(processor) = tokenizer.get_post_processor() else {
        return false;
    };
    let Ok(processor) = serde_json::to_value(processor) else {
        return false;
    };
    let special = |at: usize| processor["single"][at]["SpecialToken"]["id"].as_str();
    let ids = |token: Option<&str>| match token {
        Some(token) => processor["special_tokens"][token]["ids"].clone(),
        None => Value::Null,
    };
    match processor["type"].as_str() {
        Some("BertProcessing") => {
            processor["cls"][1] == json!(cls) && processor["sep"][1] == json!(sep)
        }
        Some("TemplateProcessing") => {
            let parts = processor["single"].as_array().map_or(0, Vec::len);
            parts == 3
                && processor["single"][1]["Sequence"]["id"] == json!("A")
                && ids(special(0)) == json!([cls])
                && ids(special(2)) == json!([sep])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Stream, rng};
    use crate::tokenizer::TextTokenizer;
    use rand::RngExt;
    use tokenizers::{AddedToken, NormalizerWrapper};

    fn tokenizer() -> Tokenizer {
        let texts = [
            "the cat sat; élan vital 日本",
            "a [mask] of don't-know Σίσυφος",
            "naïve",
        ];
        let trained = TextTokenizer::train_wordpiece(&texts, 200).unwrap();
        trained.to_json().unwrap().parse().unwrap()
    }

    #[test]
    fn ids_are_those_of_the_whole_text() {
        let inner = tokenizer();
        let known = KnownWords::of(&inner, 2, 3).unwrap();
        // What may go wrong: marks and their bases apart, final sigma, odd blanks, control characters, added tokens.
        let pieces = [
            "the",
            "cat",
            "sat",
            "[MASK]",
            "[mask]",
            "[",
            "]",
            "MASK",
            "Don't",
            "x-ray;",
            "(\"No.",
            "catsat",
            "\u{301}",
            "e",
            "é",
            "É",
            "Σ",
            "σίσυφος",
            "日",
            "本",
            "-",
            "'",
            " ",
            "  ",
            "\t",
            "\n",
            "\r\n",
            "\u{c}",
            "\u{b}",
            "\u{85}",
            "\u{a0}",
            "\u{2028}",
            "\u{3000}",
            "\u{200b}",
            "\u{feff}",
            "\u{0}",
            "\u{fffd}",
            "İ",
            "ß",
            "ﬁ",
            "각",
            "\u{1f600}",
            "x",
        ];
        let mut rng = rng(1, Stream::Sample, 0);
        for _ in 0..5000 {
            let n = rng.random_range(0..12);
            let text: String = (0..n)
                .map(|_| pieces[rng.random_range(0..pieces.len())])
                .collect();
            let whole = inner.encode_fast(text.as_str(), true).unwrap();
            let unlearnt = KnownWords::of(&inner, 2, 3).unwrap();
            for known in [&unlearnt, &unlearnt, &known] {
                let rows = known.encode(&inner, &[&text, &text], usize::MAX).unwrap();
                assert_eq!(rows, [whole.get_ids(), whole.get_ids()], "{text:?}");
            }
        }
        assert!(known.known().len() > 100);
    }

    #[test]
    fn plain_words_are_split_as_bert_splits_them() {
        let split = |word, lowercase| {
            let mut folded = String::new();
            let parts = plain_parts(word, lowercase, &mut folded)?;
            Some(parts.map(str::to_string).collect::<Vec<_>>())
        };
        assert_eq!(split("Cat", true).unwrap(), ["cat"]);
        assert_eq!(split("Cat", false).unwrap(), ["Cat"]);
        assert_eq!(split("don't--", true).unwrap(), ["don", "'", "t", "-", "-"]);
        assert_eq!(split("(a)", true).unwrap(), ["(", "a", ")"]);
        assert_eq!(split("naïve", true), None);
        assert_eq!(split("a\u{1}", true), None);
    }

    #[test]
    fn what_depends_on_neighbours_is_not_cut_into_words() {
        assert!(KnownWords::of(&tokenizer(), 2, 3).is_some());
        let mut bare = tokenizer();
        bare.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        assert!(KnownWords::of(&bare, 2, 3).is_none());
        let mut two = tokenizer();
        two.add_tokens(&[AddedToken::from("cat sat", false)]);
        assert!(KnownWords::of(&two, 2, 3).is_none());
        let mut stripped = tokenizer();
        let strip = tokenizers::normalizers::Strip::new(true, true);
        stripped.with_normalizer(Some(NormalizerWrapper::StripNormalizer(strip)));
        assert!(KnownWords::of(&stripped, 2, 3).is_none());
    }
}
