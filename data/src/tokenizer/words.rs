//! Ids of words that were met before, for texts are mostly words met before. In: words of texts. Out: ids.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use foldhash::HashMap;
use rayon::prelude::*;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    Model, ModelWrapper, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, PreTokenizerWrapper, Tokenizer,
};

use super::roles::Frame;
use crate::DataError;

/// Words that are kept: the first ones met, so the frequent ones.
const MOST: usize = 1 << 17;
/// Longer ones, in bytes, are not kept.
const LONGEST: usize = 48;
/// Texts that one thread takes at a time, at most.
const GROUP: usize = 2048;
/// Added tokens that each text is searched for, at most.
const MOST_ADDED: usize = 64;

/// The parts of a text between blanks, as BERT's tokenizers split it first.
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
    let word = if lowercase {
        folded.clear();
        folded.push_str(word);
        folded.make_ascii_lowercase();
        folded.as_str()
    } else {
        word
    };
    let parts = word.split_inclusive(|letter: char| letter.is_ascii_punctuation());
    let parts = parts.flat_map(|part| {
        let end = part.trim_end_matches(|letter: char| letter.is_ascii_punctuation());
        let (letters, mark) = part.split_at(end.len());
        [letters, mark]
    });
    Some(parts.filter(|part| !part.is_empty()))
}

/// The parts of a text that GPT-2's splitting never joins: blanks and what follows them up to the next blank.
///
/// Its pattern has blanks at the beginning of a part alone, and looks no further than to the next character.
pub(crate) fn byte_words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.len() - rest.trim_start().len();
        let end = rest[start..].find(char::is_whitespace);
        let (word, more) = rest.split_at(end.map_or(rest.len(), |end| start + end));
        rest = more;
        (!word.is_empty()).then_some(word)
    })
}

/// Ids by word.
type Ids = HashMap<Box<str>, Box<[u32]>>;

/// What a tokenizer makes of each word, where a text's ids are those of its words one after another.
#[derive(Debug)]
pub(crate) struct KnownWords {
    ids: RwLock<Ids>,
    frame: Frame,
    kind: Kind,
}

/// How texts are split into words.
#[derive(Debug)]
enum Kind {
    /// As BERT does.
    Blanks {
        lowercase: bool,
        /// Lower-cased; `None` if one is more than visible ASCII.
        added: Option<Vec<String>>,
    },
    /// As GPT-2 does.
    Bytes {
        /// Without a blank in front, which only a text's first word gets.
        splitting: ByteLevel,
        prefix_space: bool,
        /// Texts with one of these are not split here.
        added: Vec<String>,
    },
}

impl KnownWords {
    /// Nothing known yet; `None` if words depend on their neighbours, or for all we know might.
    ///
    /// - frame: the tokenizer's own
    pub(crate) fn of(tokenizer: &Tokenizer, frame: &Frame) -> Option<Self> {
        let kind = match (tokenizer.get_pre_tokenizer()?, tokenizer.get_model()) {
            (PreTokenizerWrapper::BertPreTokenizer(_), ModelWrapper::WordPiece(_)) => {
                blanks(tokenizer)?
            }
            (PreTokenizerWrapper::ByteLevel(split), ModelWrapper::BPE(bpe)) if split.use_regex => {
                // Dropout draws other tokens each time.
                if bpe.dropout.is_some() || tokenizer.get_normalizer().is_some() {
                    return None;
                }
                bytes(tokenizer, *split)?
            }
            _ => return None,
        };
        Some(Self {
            ids: RwLock::default(),
            frame: frame.clone(),
            kind,
        })
    }

    /// Each text in its frame, cut to `max_len` tokens; on all cores.
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
        let texts = texts.iter().map(AsRef::as_ref);
        match &self.kind {
            Kind::Blanks { .. } => {
                let texts: Vec<&str> = texts.collect();
                self.rows_of(tokenizer, &texts, max_len, words)
            }
            Kind::Bytes { prefix_space, .. } => {
                let spaced = |text: &str| {
                    *prefix_space
                        && !(text.is_empty() || text.starts_with(' ') || self.is_apart(text))
                };
                let texts: Vec<Cow<'_, str>> = texts
                    .map(|text| {
                        if spaced(text) {
                            Cow::Owned(format!(" {text}"))
                        } else {
                            Cow::Borrowed(text)
                        }
                    })
                    .collect();
                let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
                self.rows_of(tokenizer, &texts, max_len, byte_words)
            }
        }
    }

    fn rows_of<'a, W: Iterator<Item = &'a str>>(
        &self,
        tokenizer: &Tokenizer,
        texts: &[&'a str],
        max_len: usize,
        words: impl Fn(&'a str) -> W,
    ) -> Result<Vec<Vec<u32>>, DataError> {
        // Few enough words to stay in a core's cache, unlike those of all texts.
        let mut met: HashMap<&str, Range<usize>> = HashMap::default();
        let mut ids = Vec::new();
        let mut new = Vec::new();
        let mut rows = Vec::with_capacity(texts.len());
        // Words beyond need not be looked at.
        let enough = if self.frame.cuts_left() {
            usize::MAX
        } else {
            max_len
        };
        for &text in texts {
            if self.is_apart(text) {
                let encoding = tokenizer.encode_fast(text, true);
                let mut row = encoding.map_err(DataError::Tokenizer)?.get_ids().to_vec();
                self.frame.cut(&mut row, max_len);
                rows.push(row);
                continue;
            }
            let mut row = self.frame.before.clone();
            for word in words(text) {
                if row.len() >= enough {
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
            row.extend_from_slice(&self.frame.after);
            self.frame.cut(&mut row, max_len);
            rows.push(row);
        }
        let new = new.iter().map(|&word| (word, &ids[met[word].clone()]));
        self.keep(new.filter(|(word, _)| word.len() <= LONGEST).collect());
        Ok(rows)
    }

    /// Whether an added token splits this text in a way that its words do not show.
    fn is_apart(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Blanks { .. } => false,
            Kind::Bytes { added, .. } => added.iter().any(|token| text.contains(token.as_str())),
        }
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
        match &self.kind {
            Kind::Blanks { lowercase, added } => {
                let mut folded = String::new();
                if let Some(added) = added
                    && let lower = word.to_ascii_lowercase()
                    && !added.iter().any(|token| lower.contains(token.as_str()))
                    && let Some(parts) = plain_parts(word, *lowercase, &mut folded)
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
            Kind::Bytes { splitting, .. } => {
                let mut split = PreTokenizedString::from(word);
                let done = splitting.pre_tokenize(&mut split);
                let model = tokenizer.get_model();
                let done = done.and_then(|()| split.tokenize(|part| model.tokenize(part.get())));
                done.map_err(DataError::Tokenizer)?;
                let parts = split.get_splits(OffsetReferential::Original, OffsetType::None);
                let tokens = parts
                    .iter()
                    .flat_map(|(_, _, tokens)| tokens.iter().flatten());
                Ok(tokens.map(|token| token.id).collect())
            }
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Ids> {
        // A panic elsewhere leaves no word half known.
        self.ids.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How BERT's words are known, if its normalizer and added tokens look at one word at a time.
fn blanks(tokenizer: &Tokenizer) -> Option<Kind> {
    let lowercase = match tokenizer.get_normalizer() {
        None => false,
        Some(NormalizerWrapper::Lowercase(_)) => true,
        Some(NormalizerWrapper::BertNormalizer(bert)) => bert.lowercase,
        Some(_) => return None,
    };
    let added = tokenizer.get_added_tokens_decoder().into_values();
    let added: Vec<String> = added.map(|token| token.content).collect();
    if added
        .iter()
        .any(|token| token.contains(char::is_whitespace))
    {
        return None;
    }
    let visible = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
    let plain = added.iter().all(visible);
    let added = added.iter().map(|token| token.to_ascii_lowercase());
    let added = plain.then(|| added.collect());
    Some(Kind::Blanks { lowercase, added })
}

/// How GPT-2's words are known, if looking for the added tokens takes no time to speak of.
fn bytes(tokenizer: &Tokenizer, splitting: ByteLevel) -> Option<Kind> {
    let added = tokenizer.get_added_tokens_decoder().into_values();
    let added: Vec<String> = added.map(|token| token.content).collect();
    (added.len() <= MOST_ADDED).then(|| Kind::Bytes {
        splitting: splitting.add_prefix_space(false),
        prefix_space: splitting.add_prefix_space,
        added,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Stream, rng};
    use crate::tokenizer::TextTokenizer;
    use crate::tokenizer::roles::Frame;
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

    fn frame() -> Frame {
        let (before, after) = (vec![2], vec![3]);
        Frame {
            before,
            after,
            ..Frame::default()
        }
    }

    /// What may go wrong: marks and their bases apart, final sigma, odd blanks, control characters, added tokens.
    const PIECES: [&str; 44] = [
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
        "<|endoftext|>",
    ];

    /// Up to eleven of the pieces in a row.
    fn odd_text(rng: &mut impl rand::Rng) -> String {
        let n = rng.random_range(0..12);
        (0..n)
            .map(|_| PIECES[rng.random_range(0..PIECES.len())])
            .collect()
    }

    #[test]
    fn ids_are_those_of_the_whole_text() {
        let inner = tokenizer();
        let known = KnownWords::of(&inner, &frame()).unwrap();
        let mut rng = rng(1, Stream::Sample, 0);
        for _ in 0..5000 {
            let text = odd_text(&mut rng);
            let whole = inner.encode_fast(text.as_str(), true).unwrap();
            let unlearnt = KnownWords::of(&inner, &frame()).unwrap();
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
    fn byte_level_ids_are_those_of_the_whole_text() {
        let texts = [
            "the cat sat; élan vital 日本",
            "I'll don't-know 2024",
            "naïve the cat\n\n the",
        ];
        for prefix_space in [false, true] {
            let trained = TextTokenizer::train_bpe(&texts, 300).unwrap();
            let mut inner: Tokenizer = trained.to_json().unwrap().parse().unwrap();
            let splitting = crate::tokenizer::bpe::splitting().add_prefix_space(prefix_space);
            inner.with_pre_tokenizer(Some(splitting));
            let mask = AddedToken::from("[MASK]", true).lstrip(true);
            inner.add_special_tokens(&[mask]);
            let known = KnownWords::of(&inner, &Frame::default()).unwrap();
            let mut rng = rng(2, Stream::Sample, 0);
            for _ in 0..5000 {
                let text = odd_text(&mut rng);
                let whole = inner.encode_fast(text.as_str(), true).unwrap();
                let unlearnt = KnownWords::of(&inner, &Frame::default()).unwrap();
                for known in [&unlearnt, &unlearnt, &known] {
                    let rows = known.encode(&inner, &[&text, &text], usize::MAX).unwrap();
                    assert_eq!(rows, [whole.get_ids(), whole.get_ids()], "{text:?}");
                }
            }
            assert!(known.known().len() > 100);
        }
    }

    #[test]
    fn byte_words_lose_nothing() {
        let words = |text| byte_words(text).collect::<Vec<_>>();
        assert_eq!(words("a b  c\n"), ["a", " b", "  c", "\n"]);
        assert_eq!(words(" \u{3000}x"), [" \u{3000}x"]);
        assert!(words("").is_empty());
    }

    #[test]
    fn what_depends_on_neighbours_is_not_cut_into_words() {
        assert!(KnownWords::of(&tokenizer(), &frame()).is_some());
        let mut two = tokenizer();
        two.add_tokens(&[AddedToken::from("cat sat", false)]);
        assert!(KnownWords::of(&two, &frame()).is_none());
        let mut stripped = tokenizer();
        let strip = tokenizers::normalizers::Strip::new(true, true);
        stripped.with_normalizer(Some(NormalizerWrapper::StripNormalizer(strip)));
        assert!(KnownWords::of(&stripped, &frame()).is_none());
        let bytes = TextTokenizer::train_bpe(&["a"], 257).unwrap();
        let mut bytes: Tokenizer = bytes.to_json().unwrap().parse().unwrap();
        assert!(KnownWords::of(&bytes, &Frame::default()).is_some());
        bytes.with_normalizer(Some(NormalizerWrapper::StripNormalizer(
            tokenizers::normalizers::Strip::new(true, true),
        )));
        assert!(KnownWords::of(&bytes, &Frame::default()).is_none());
    }
}
