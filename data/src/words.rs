//! Ids of words that were met before, for texts are mostly words met before. In: what stands between blanks. Out: ids.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use foldhash::{HashMap, HashSet};
use rayon::prelude::*;
use serde_json::{Value, json};
use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use crate::DataError;

/// Words that are kept: the first ones met, so the frequent ones.
const MOST: usize = 1 << 17;
/// Longer ones, in bytes, are not kept.
const LONGEST: usize = 48;
/// Texts whose words one thread gathers at a time.
const GROUP: usize = 512;

/// The parts of a text between blanks, as every tokenizer that has [`KnownWords`] splits it first.
///
/// Not all that Unicode calls white space: BERT's normalizer removes form feeds, for example, without splitting there.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split([' ', '\t', '\n', '\r']);
    words.filter(|word| !word.is_empty())
}

/// What a tokenizer makes of each word, where a text's ids are those of its words one after another.
#[derive(Debug)]
pub(crate) struct KnownWords {
    ids: RwLock<HashMap<Box<str>, Box<[u32]>>>,
    cls: u32,
    sep: u32,
}

impl KnownWords {
    /// Nothing known yet; `None` if words depend on their neighbours, or for all we know might.
    pub(crate) fn of(tokenizer: &Tokenizer, cls: u32, sep: u32) -> Option<Self> {
        let by_words = matches!(
            tokenizer.get_normalizer(),
            None | Some(NormalizerWrapper::BertNormalizer(_) | NormalizerWrapper::Lowercase(_))
        ) && matches!(
            tokenizer.get_pre_tokenizer(),
            Some(PreTokenizerWrapper::BertPreTokenizer(_))
        ) && matches!(tokenizer.get_model(), ModelWrapper::WordPiece(_))
            && {
                let added = tokenizer.get_added_tokens_decoder();
                let mut added = added.values();
                !added.any(|token| token.content.contains(char::is_whitespace))
            };
        (by_words && frames(tokenizer, cls, sep)).then(|| Self {
            ids: RwLock::default(),
            cls,
            sep,
        })
    }

    /// Learns the words of these texts, each once, on all cores; [`encode`](Self::encode) needs no such call, but is
    /// faster after it.
    ///
    /// - max_len: no text is looked at beyond so many words
    pub(crate) fn learn<S: AsRef<str> + Sync>(
        &self,
        tokenizer: &Tokenizer,
        texts: &[S],
        max_len: usize,
    ) -> Result<(), DataError> {
        let known = self.known();
        let room = MOST.saturating_sub(known.len());
        if room == 0 {
            return Ok(());
        }
        let groups = texts.par_chunks(GROUP).map(|texts| {
            let words = texts
                .iter()
                .flat_map(|text| words(text.as_ref()).take(max_len));
            let new = words.filter(|word| word.len() <= LONGEST && !known.contains_key(*word));
            new.collect::<HashSet<&str>>()
        });
        let groups: Vec<_> = groups.collect();
        let new: HashSet<&str> = groups.into_iter().flatten().take(room).collect();
        drop(known);
        let new = new.into_par_iter().map(|word| {
            let encoding = tokenizer.encode_fast(word, false);
            let encoding = encoding.map_err(DataError::Tokenizer)?;
            Ok((word.into(), encoding.get_ids().into()))
        });
        let new = new.collect::<Result<Vec<_>, DataError>>()?;
        let mut known = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(new);
        Ok(())
    }

    /// `[CLS] ... [SEP]`, the words beyond `max_len` tokens not looked at.
    pub(crate) fn encode(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        max_len: usize,
    ) -> Result<Vec<u32>, DataError> {
        let mut ids = vec![self.cls];
        let known = self.known();
        for word in words(text) {
            if ids.len() >= max_len {
                break;
            }
            if let Some(word) = known.get(word) {
                ids.extend_from_slice(word);
                continue;
            }
            let encoding = tokenizer.encode_fast(word, false);
            let encoding = encoding.map_err(DataError::Tokenizer)?;
            ids.extend_from_slice(encoding.get_ids());
        }
        ids.push(self.sep);
        Ok(ids)
    }

    fn known(&self) -> RwLockReadGuard<'_, HashMap<Box<str>, Box<[u32]>>> {
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
            let before = known.encode(&inner, &text, usize::MAX).unwrap();
            assert_eq!(before, whole.get_ids(), "{text:?}");
            known.learn(&inner, &[&text], usize::MAX).unwrap();
            let after = known.encode(&inner, &text, usize::MAX).unwrap();
            assert_eq!(after, whole.get_ids(), "{text:?}");
        }
        assert!(known.known().len() > 100);
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
