//! Trains, loads and applies a text tokenizer. In: texts. Out: token ids.
//!
//! The file is Hugging Face's `tokenizer.json`, read and applied by the tokenizers crate.

use std::path::Path;
use std::sync::Arc;

use serde::de::IgnoredAny;
use tokenizers::Tokenizer;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;

use crate::wordpiece::WordPieceTrainer;
use crate::words::KnownWords;
use crate::{DataError, file};

/// The special tokens, with these as their ids in a vocabulary trained here.
pub(crate) const SPECIALS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Texts, and bytes of them, encoded at a time: an encoding takes many times the memory of its ids.
const CHUNK: usize = 8192;
const CHUNK_BYTES: usize = 1 << 20;

/// A tokenizer with the five special tokens of BERT.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// Ids in the order of [`SPECIALS`].
    specials: [u32; 5],
    /// Of tokenizers that see one word at a time.
    known: Option<Arc<KnownWords>>,
}

impl TextTokenizer {
    /// Trains BERT's lower-casing WordPiece; the special tokens get the ids 0 to 4. The result
    /// depends on the texts alone, not on their order or the run.
    ///
    /// - vocab_size: at most as many tokens; fewer where the texts hold too few different words
    ///
    /// # Errors
    /// No words, or more characters than `vocab_size` has room for.
    pub fn train_wordpiece<S: AsRef<str> + Send + Sync>(
        texts: &[S],
        vocab_size: usize,
    ) -> Result<Self, DataError> {
        Self::train_wordpiece_on(texts.iter().map(|text| Ok(text.as_ref())), vocab_size)
    }

    /// [`train_wordpiece`](Self::train_wordpiece) on a stream: what stays in memory is a count a distinct word, of at
    /// most two million of them.
    ///
    /// # Errors
    /// The stream's first, and those of a training in memory.
    pub fn train_wordpiece_on<S: AsRef<str> + Send>(
        texts: impl Iterator<Item = Result<S, DataError>> + Send,
        vocab_size: usize,
    ) -> Result<Self, DataError> {
        let mut inner = Tokenizer::new(WordPiece::default());
        let clean_text = true;
        let split_chinese = true;
        let strip_accents = None; // With lower-casing: yes.
        let lowercase = true;
        let normalizer = BertNormalizer::new(clean_text, split_chinese, strip_accents, lowercase);
        inner.with_normalizer(Some(normalizer));
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        inner.with_decoder(Some(WordPieceDecoder::default()));
        let mut trainer = WordPieceTrainer::new(vocab_size);
        let mut failure = None;
        let texts = texts.map_while(|text| text.map_err(|error| failure = Some(error)).ok());
        let trained = inner.train(&mut trainer, texts).map(drop);
        if let Some(error) = failure {
            return Err(error);
        }
        trained.map_err(own_error)?;
        inner.with_post_processor(Some(cls_and_sep()?));
        Self::new(inner, "the trained tokenizer")
    }

    /// Loads a `tokenizer.json`.
    ///
    /// # Errors
    /// No such file, not a tokenizer, or one that lacks a special token.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        Self::parse(&file::read(path)?, &path.display().to_string())
    }

    /// The tokenizer in the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// Not a tokenizer, or one that lacks a special token.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DataError> {
        Self::parse(bytes, "tokenizer.json in memory")
    }

    fn parse(bytes: &[u8], place: &str) -> Result<Self, DataError> {
        let wrong = |source| DataError::BadTokenizer {
            place: place.into(),
            source,
        };
        // The crate panics where JSON breaks off inside a decoder.
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| wrong(error.into()))?;
        let mut inner = Tokenizer::from_bytes(bytes).map_err(wrong)?;
        // A file may bring its own; here length is the caller's choice and batches do the padding.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(DataError::Tokenizer)?;
        Self::new(inner, place)
    }

    fn new(inner: Tokenizer, place: &str) -> Result<Self, DataError> {
        let mut specials = [0; 5];
        for (id, token) in specials.iter_mut().zip(SPECIALS) {
            *id = inner
                .token_to_id(token)
                .ok_or_else(|| DataError::SpecialMissing {
                    place: place.into(),
                    token,
                })?;
        }
        let [_, _, cls, sep, _] = specials;
        let known = KnownWords::of(&inner, cls, sep).map(Arc::new);
        Ok(Self {
            inner,
            specials,
            known,
        })
    }

    /// What a `tokenizer.json` holds, pretty-printed.
    pub fn to_json(&self) -> Result<String, DataError> {
        self.inner.to_string(true).map_err(DataError::Tokenizer)
    }

    /// Ids of each text, `[CLS] ... [SEP]`, on all cores.
    ///
    /// - max_len: in tokens, special ones counted; longer texts are cut and still end in `[SEP]`
    pub fn encode(
        &self,
        texts: &[impl AsRef<str> + Sync],
        max_len: usize,
    ) -> Result<Vec<Vec<u32>>, DataError> {
        if let Some(known) = &self.known {
            let mut rows = known.encode(&self.inner, texts, max_len)?;
            rows.iter_mut().for_each(|row| self.cut(row, max_len));
            return Ok(rows);
        }
        let mut all = Vec::with_capacity(texts.len());
        let mut rest = texts;
        while !rest.is_empty() {
            let chunk;
            (chunk, rest) = rest.split_at(chunk_len(rest));
            let chunk: Vec<&str> = chunk.iter().map(|text| text.as_ref()).collect();
            let encoded = self.inner.encode_batch_fast(chunk, true);
            let encoded = encoded.map_err(DataError::Tokenizer)?;
            all.extend(encoded.iter().map(|encoding| {
                let mut ids = encoding.get_ids().to_vec();
                self.cut(&mut ids, max_len);
                ids
            }));
        }
        Ok(all)
    }

    /// [`encode`](Self::encode) for a single text.
    pub fn encode_one(&self, text: &str, max_len: usize) -> Result<Vec<u32>, DataError> {
        let mut rows = self.encode(&[text], max_len)?;
        Ok(rows.remove(0))
    }

    fn cut(&self, ids: &mut Vec<u32>, max_len: usize) {
        let end = ids.last().copied();
        ids.truncate(max_len);
        if let Some(last) = ids.last_mut()
            && end == Some(self.sep())
        {
            *last = self.sep();
        }
    }

    /// The text of ids, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        let skip_special = true;
        self.inner
            .decode(ids, skip_special)
            .map_err(DataError::Tokenizer)
    }

    /// The token of an id, as the vocabulary spells it (`##ing`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The number of tokens, special ones counted.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The largest id; a vocabulary with gaps has one above its size.
    pub fn largest_id(&self) -> u32 {
        let vocab = self.inner.get_vocab(true);
        vocab.into_values().max().unwrap_or(0)
    }

    /// The id of `[PAD]`.
    pub fn pad(&self) -> u32 {
        self.specials[0]
    }

    /// The id of `[UNK]`.
    pub fn unk(&self) -> u32 {
        self.specials[1]
    }

    /// The id of `[CLS]`.
    pub fn cls(&self) -> u32 {
        self.specials[2]
    }

    /// The id of `[SEP]`.
    pub fn sep(&self) -> u32 {
        self.specials[3]
    }

    /// The id of `[MASK]`.
    pub fn mask(&self) -> u32 {
        self.specials[4]
    }

    /// The ids of `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`.
    pub fn special_ids(&self) -> Vec<u32> {
        self.specials.to_vec()
    }
}

/// How many of the texts are encoded at a time, at least 1.
fn chunk_len(texts: &[impl AsRef<str>]) -> usize {
    let mut bytes = 0;
    let fits = texts.iter().take(CHUNK).take_while(|text| {
        bytes += text.as_ref().len();
        bytes <= CHUNK_BYTES
    });
    fits.count().max(1)
}

/// `[CLS] A [SEP]`, and `[CLS] A [SEP] B [SEP]` with type 1 for the second text.
fn cls_and_sep() -> Result<TemplateProcessing, DataError> {
    let failed = |message: String| DataError::Tokenizer(message.into());
    TemplateProcessing::builder()
        .try_single("[CLS]:0 $A:0 [SEP]:0")
        .map_err(failed)?
        .try_pair("[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
        .map_err(failed)?
        .special_tokens(vec![("[CLS]", 2), ("[SEP]", 3)])
        .build()
        .map_err(|error| failed(error.to_string()))
}

/// The trainer's own errors come back through the crate's boxed type.
fn own_error(error: tokenizers::Error) -> DataError {
    match error.downcast::<DataError>() {
        Ok(own) => *own,
        Err(other) => DataError::Tokenizer(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 4] = [
        "The cat sat.",
        "the dog sat",
        "A cat and a dog, sitting",
        "Élan",
    ];

    fn small() -> TextTokenizer {
        TextTokenizer::train_wordpiece(&TEXTS, 200).unwrap()
    }

    #[test]
    fn json_that_breaks_off_in_a_decoder_is_no_tokenizer() {
        let whole = tokenizer_json();
        let at = whole.find("\"decoder\": {").unwrap() + 13;
        let error = TextTokenizer::from_bytes(&whole.as_bytes()[..at]).unwrap_err();
        assert!(error.to_string().contains("not a tokenizer"), "{error}");
    }

    fn tokenizer_json() -> String {
        let texts = ["a bird", "a tool"];
        TextTokenizer::train_wordpiece(&texts, 50)
            .unwrap()
            .to_json()
            .unwrap()
    }

    #[test]
    fn special_tokens_are_the_first_five() {
        let tokenizer = small();
        let ids = [
            tokenizer.pad(),
            tokenizer.unk(),
            tokenizer.cls(),
            tokenizer.sep(),
            tokenizer.mask(),
        ];
        assert_eq!(ids, [0, 1, 2, 3, 4]);
        assert_eq!(tokenizer.special_ids(), ids);
        assert_eq!(tokenizer.token(4).as_deref(), Some("[MASK]"));
        assert_eq!(tokenizer.token(tokenizer.vocab_size() as u32), None);
    }

    #[test]
    fn texts_go_through_ids_and_back() {
        let tokenizer = small();
        let ids = tokenizer.encode_one("The CAT sat, élan", 64).unwrap();
        assert_eq!(
            (ids[0], ids[ids.len() - 1]),
            (tokenizer.cls(), tokenizer.sep())
        );
        assert_eq!(tokenizer.decode(&ids).unwrap(), "the cat sat, elan");
        let unknown = tokenizer.encode_one("日", 64).unwrap();
        assert_eq!(unknown, [tokenizer.cls(), tokenizer.unk(), tokenizer.sep()]);
        let masked = tokenizer.encode_one("the [MASK] sat", 64).unwrap();
        assert_eq!(masked[2], tokenizer.mask());
    }

    #[test]
    fn a_batch_is_its_texts_one_by_one() {
        let tokenizer = small();
        let one_by_one: Vec<_> = TEXTS
            .iter()
            .map(|text| tokenizer.encode_one(text, 5).unwrap())
            .collect();
        assert_eq!(tokenizer.encode(&TEXTS, 5).unwrap(), one_by_one);
    }

    #[test]
    fn cut_texts_still_end_in_sep() {
        let tokenizer = small();
        let whole = tokenizer.encode_one("the cat sat", 64).unwrap();
        assert_eq!(whole.len(), 5);
        assert_eq!(tokenizer.encode_one("the cat sat", 5).unwrap(), whole);
        let cut = tokenizer.encode_one("the cat sat", 3).unwrap();
        assert_eq!(cut, [whole[0], whole[1], tokenizer.sep()]);
        assert!(tokenizer.encode_one("the cat sat", 0).unwrap().is_empty());
        assert_eq!(
            tokenizer.encode_one("", 64).unwrap(),
            [tokenizer.cls(), tokenizer.sep()]
        );
    }

    #[test]
    fn pairs_have_type_ids() {
        let encoding = small().inner.encode(("the cat", "sat"), true).unwrap();
        assert_eq!(encoding.get_type_ids(), [0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn training_twice_gives_the_same_file() {
        let set = crate::wordnet();
        let texts: Vec<&str> = set
            .examples
            .iter()
            .step_by(20)
            .map(|e| e.text.as_str())
            .collect();
        let reversed: Vec<&str> = texts.iter().rev().copied().collect();
        let first = TextTokenizer::train_wordpiece(&texts, 2000).unwrap();
        let second = TextTokenizer::train_wordpiece(&reversed, 2000).unwrap();
        assert_eq!(first.vocab_size(), 2000);
        assert_eq!(first.to_json().unwrap(), second.to_json().unwrap());
    }

    #[test]
    fn training_is_the_same_in_every_process() {
        use sha2::{Digest, Sha256};
        // Pinned once from this code; another process has other hash seeds.
        let json = small().to_json().unwrap();
        assert_eq!(format!("{:x}", Sha256::digest(json)), PINNED);
    }

    const PINNED: &str = "2a18747db50cb1459fb6b97052fcc6dc68ccce98d68674841ef4ded5b731a641";

    #[test]
    fn a_saved_tokenizer_reloads_the_same() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("tokenizer.json");
        let tokenizer = small();
        std::fs::write(&path, tokenizer.to_json().unwrap()).unwrap();
        let loaded = TextTokenizer::load(&path).unwrap();
        assert_eq!(loaded.to_json().unwrap(), tokenizer.to_json().unwrap());
        assert_eq!(
            loaded.encode(&TEXTS, 8).unwrap(),
            tokenizer.encode(&TEXTS, 8).unwrap()
        );
    }

    #[test]
    fn a_files_own_padding_and_truncation_are_turned_off() {
        use tokenizers::{PaddingParams, PaddingStrategy, TruncationParams};
        let mut inner = small().inner;
        inner.with_padding(Some(PaddingParams {
            strategy: PaddingStrategy::Fixed(16),
            ..Default::default()
        }));
        let truncation = TruncationParams {
            max_length: 4,
            ..Default::default()
        };
        inner.with_truncation(Some(truncation)).unwrap();
        let loaded = TextTokenizer::from_bytes(inner.to_string(false).unwrap().as_bytes()).unwrap();
        assert_eq!(loaded.encode_one("the cat sat", 64).unwrap().len(), 5);
        assert_eq!(loaded.to_json().unwrap(), small().to_json().unwrap());
    }

    #[test]
    fn files_that_do_not_serve() {
        let error = TextTokenizer::load(Path::new("no/tokenizer.json")).unwrap_err();
        assert_eq!(error.to_string(), "no/tokenizer.json: no such file");
        let error = TextTokenizer::from_bytes(b"{}").unwrap_err();
        assert!(matches!(error, DataError::BadTokenizer { .. }));
        let without = small().to_json().unwrap().replace("[MASK]", "<mask>");
        let error = TextTokenizer::from_bytes(without.as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tokenizer.json in memory: the tokenizer has no [MASK] token"
        );
    }

    #[test]
    fn nothing_to_train_on_is_an_error() {
        let error = TextTokenizer::train_wordpiece(&[" "], 100).unwrap_err();
        assert!(matches!(error, DataError::NoWords));
        let error = TextTokenizer::train_wordpiece(&TEXTS, 10).unwrap_err();
        assert!(matches!(
            error,
            DataError::VocabTooSmall { vocab_size: 10, .. }
        ));
    }
}
