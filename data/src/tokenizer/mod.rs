//! Trains, loads and applies a text tokenizer. In: texts. Out: token ids.
//!
//! The file is Hugging Face's `tokenizer.json`, read and applied by the tokenizers crate. `directory` makes one of what
//! older directories hold instead, `wordpiece` and `bpe` train one; `roles` says which special token has which job.

mod bpe;
mod count;
mod decoder;
mod directory;
mod merge;
mod parts;
mod roles;
mod wordpiece;
mod words;

use std::path::Path;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer, TruncationDirection};

use crate::DataError;
use crate::caught::caught;
pub use decoder::TextDecoder;
pub use parts::Encoded;
use roles::Names;
pub use roles::{Frame, Role, Roles};
use words::KnownWords;

/// The special tokens of a WordPiece vocabulary trained here, with these as their ids.
const SPECIALS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Texts, and bytes of them, encoded at a time: an encoding takes many times the memory of its ids.
const CHUNK: usize = 8192;
const CHUNK_BYTES: usize = 1 << 20;

/// A tokenizer of any kind that the tokenizers crate knows.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// For messages.
    place: String,
    roles: Roles,
    /// As the files beside `tokenizer.json` gave them.
    names: Names,
    frame: Frame,
    max_length: Option<usize>,
    chat_template: Option<Arc<str>>,
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
        let clean_text = true;
        let split_chinese = true;
        let strip_accents = None; // With lower-casing: yes.
        let lowercase = true;
        let normalizer = BertNormalizer::new(clean_text, split_chinese, strip_accents, lowercase);
        let model = wordpiece::train(texts, normalizer, vocab_size)?;
        let specials = SPECIALS.map(|token| AddedToken::from(token, true));
        let mut inner = bert(model, normalizer);
        inner.add_special_tokens(&specials);
        inner.with_post_processor(Some(cls_and_sep(("[CLS]", 2), ("[SEP]", 3))?));
        Self::new(inner, "the trained tokenizer", Names::default(), None, None)
    }

    /// Trains byte-level BPE as GPT-2's, which spells any text: the special token `<|endoftext|>` has id 0, the 256
    /// bytes follow. The result depends on the texts alone, not on their order or the run.
    ///
    /// - vocab_size: at most as many tokens, at least 257; fewer where the texts hold too few different words
    ///
    /// # Errors
    /// No words, or a `vocab_size` below 257.
    pub fn train_bpe<S: AsRef<str> + Send + Sync>(
        texts: &[S],
        vocab_size: usize,
    ) -> Result<Self, DataError> {
        Self::train_bpe_on(texts.iter().map(|text| Ok(text.as_ref())), vocab_size)
    }

    /// [`train_bpe`](Self::train_bpe) on a stream: what stays in memory is a count a distinct word, of at most two
    /// million of them.
    ///
    /// # Errors
    /// The stream's first, and those of a training in memory.
    pub fn train_bpe_on<S: AsRef<str> + Send>(
        texts: impl Iterator<Item = Result<S, DataError>> + Send,
        vocab_size: usize,
    ) -> Result<Self, DataError> {
        let json = bpe::train(texts, vocab_size)?.to_string();
        Self::parse(json.as_bytes(), "the trained tokenizer")
    }

    /// Loads a tokenizer from a directory, a `tokenizer.json`, a `vocab.txt`, or a `vocab.json` with `merges.txt`
    /// beside it. The files beside it that describe it are read too, as by [`from_files`](Self::from_files).
    ///
    /// # Errors
    /// No such file, and those of [`from_files`](Self::from_files).
    pub fn load(path: &Path) -> Result<Self, DataError> {
        directory::load(path)
    }

    /// Makes a tokenizer of the files of a model's directory, with the ids that transformers' fast tokenizers give:
    /// `tokenizer.json`, else `vocab.txt` (BERT's WordPiece), else `vocab.json` and `merges.txt` (byte-level BPE of
    /// GPT-2 or RoBERTa). `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` are honoured; a
    /// lower-casing that `tokenizer_config.json` states for a BERT tokenizer overrides that of `tokenizer.json`.
    ///
    /// - read: the bytes of a file by its name, `None` where it is missing
    /// - place: the directory, for messages
    /// - model_type: that of `config.json`, which says what `vocab.json` is made for; read from there if `None`
    ///
    /// # Errors
    /// None of these files, a kind of vocabulary that is not known here, or a file that is malformed.
    pub fn from_files(
        read: &dyn Fn(&str) -> Option<Vec<u8>>,
        place: &str,
        model_type: Option<&str>,
    ) -> Result<Self, DataError> {
        directory::from_files(read, place, model_type)
    }

    /// The tokenizer in the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// Not a tokenizer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DataError> {
        Self::parse(bytes, "tokenizer.json in memory")
    }

    fn parse(bytes: &[u8], place: &str) -> Result<Self, DataError> {
        Self::new(
            parse_inner(bytes, place)?,
            place,
            Names::default(),
            None,
            None,
        )
    }

    /// - side: on which longer texts are cut; if `None`, as `inner` says
    fn new(
        mut inner: Tokenizer,
        place: &str,
        names: Names,
        max_length: Option<usize>,
        side: Option<TruncationDirection>,
    ) -> Result<Self, DataError> {
        let mut frame = Frame::of(&inner, place)?;
        let own = inner.get_truncation().map(|own| own.direction);
        frame.side = side.or(own).unwrap_or_default();
        // To which length is the caller's choice.
        inner.with_truncation(None).map_err(DataError::Tokenizer)?;
        Ok(Self {
            roles: Roles::of(&inner, &names, &frame),
            known: KnownWords::of(&inner, &frame).map(Arc::new),
            place: place.into(),
            inner,
            names,
            frame,
            max_length,
            chat_template: None,
        })
    }

    /// A tokenizer that was trained by [`train_bpe`](Self::train_bpe), for texts that are written of other texts: a token of its
    /// own fills rows up, and each text ends in the end token.
    ///
    /// # Errors
    /// One without a token to end a text.
    pub fn for_two_texts(&self) -> Result<Self, DataError> {
        let failed = |source: serde_json::Error| DataError::Tokenizer(source.into());
        let (id, end) = (
            self.required(Role::End)?,
            self.spelled(Role::End).unwrap_or_default(),
        );
        let mut json: Value = serde_json::from_str(&self.to_json()?).map_err(failed)?;
        let token = serde_json::json!({"SpecialToken": {"id": end, "type_id": 0}});
        let text = |id: &str| serde_json::json!({"Sequence": {"id": id, "type_id": 0}});
        json["post_processor"] = serde_json::json!({
            "type": "TemplateProcessing",
            "single": [text("A"), token],
            "pair": [text("A"), token, text("B"), token],
            "special_tokens": {end.clone(): {"id": end, "ids": [id], "tokens": [end]}},
        });
        let mut inner = parse_inner(json.to_string().as_bytes(), &self.place)?;
        inner.add_special_tokens(&[AddedToken::from("<pad>", true)]);
        Self::new(inner, &self.place, Names::default(), None, None)
    }

    /// With these special tokens; those that it has stay as they are.
    ///
    /// # Errors
    /// A tokenizer that cannot be written.
    pub fn with_special_tokens(&self, tokens: &[String]) -> Result<Self, DataError> {
        let missing = tokens.iter().filter(|token| self.id(token).is_none());
        let missing: Vec<AddedToken> = missing
            .map(|token| AddedToken::from(token.as_str(), true))
            .collect();
        let mut inner = parse_inner(self.to_json()?.as_bytes(), &self.place)?;
        inner.add_special_tokens(&missing);
        let made = Self::new(inner, &self.place, Names::default(), None, None)?;
        Ok(made.with_chat_template(self.chat_template.as_deref().map(Into::into)))
    }

    /// The id of a token by its spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// What a `tokenizer.json` holds, pretty-printed.
    pub fn to_json(&self) -> Result<String, DataError> {
        self.inner.to_string(true).map_err(DataError::Tokenizer)
    }

    /// How dialogues are written, in Jinja, where `tokenizer_config.json` or `chat_template.jinja` says it.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// With another chat template, or none.
    pub fn with_chat_template(self, template: Option<String>) -> Self {
        Self {
            chat_template: template.map(Into::into),
            ..self
        }
    }

    /// What a `tokenizer_config.json` beside [`to_json`](Self::to_json) holds, so that transformers applies the same
    /// tokenizer; special tokens by their spelling.
    ///
    /// - max_length: in tokens, the model's positions
    /// - token_type_ids: whether the model tells the texts of a pair apart
    pub fn config_json(&self, max_length: usize, token_type_ids: bool) -> String {
        let mut inputs = vec!["input_ids", "attention_mask"];
        if token_type_ids {
            inputs.insert(1, "token_type_ids");
        }
        let mut config = Map::new();
        // Named in full: without it transformers rebuilds the tokenizer from a family's defaults.
        config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        config.insert("model_max_length".into(), max_length.into());
        config.insert("model_input_names".into(), inputs.into());
        if self.frame.cuts_left() {
            config.insert("truncation_side".into(), "left".into());
        }
        if let Some(template) = self.chat_template() {
            config.insert("chat_template".into(), template.into());
        }
        for (key, token) in self.named() {
            config.insert(key.into(), token.into());
        }
        format!("{:#}\n", Value::Object(config))
    }

    /// The special tokens under transformers' keys; begin and end have two keys each, of which the files' own are kept.
    fn named(&self) -> Vec<(&'static str, String)> {
        let begin = self.spelled(Role::Begin);
        let encoder = self.roles.mask.is_some() || begin.as_deref() == Some("[CLS]");
        let given = |key: &str| self.names.get(key).is_some();
        let either = |key, other, usual| given(key) || (usual && !given(other));
        let keys = [
            ("unk_token", Role::Unknown, true),
            ("pad_token", Role::Pad, true),
            (
                "bos_token",
                Role::Begin,
                either("bos_token", "cls_token", !encoder),
            ),
            (
                "eos_token",
                Role::End,
                either("eos_token", "sep_token", !encoder),
            ),
            (
                "cls_token",
                Role::Begin,
                either("cls_token", "bos_token", encoder),
            ),
            (
                "sep_token",
                Role::End,
                either("sep_token", "eos_token", encoder),
            ),
            ("mask_token", Role::Mask, true),
        ];
        let written = keys.into_iter().filter(|&(_, _, written)| written);
        let named = written.filter_map(|(key, role, _)| {
            let named = self.names.get(key).map(|token| token.content.clone());
            let named = named.filter(|token| self.inner.token_to_id(token).is_some());
            Some((key, named.or_else(|| self.spelled(role))?))
        });
        named.collect()
    }

    /// Ids of each text on all cores, with the special tokens that the tokenizer itself puts around a text:
    /// `[CLS] ... [SEP]`, `<s> ... </s>`, or none.
    ///
    /// - max_len: in tokens, special ones counted; longer texts are cut by [`frame`](Self::frame) and still end in the
    ///   closing special token
    pub fn encode(
        &self,
        texts: &[impl AsRef<str> + Sync],
        max_len: usize,
    ) -> Result<Vec<Vec<u32>>, DataError> {
        if let Some(known) = &self.known {
            return known.encode(&self.inner, texts, max_len);
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
                self.frame.cut(&mut ids, max_len);
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

    /// The text of ids, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        let skip_special = true;
        self.inner
            .decode(ids, skip_special)
            .map_err(DataError::Tokenizer)
    }

    /// [`decode`](Self::decode) for ids that come one after another.
    pub fn decoder(&self) -> TextDecoder<'_> {
        TextDecoder::new(self)
    }

    /// The token of an id, as the vocabulary spells it (`##ing`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// How many bytes of a text each token is, by id; 0 for special tokens.
    pub fn byte_lengths(&self) -> Vec<u32> {
        let special = self.special_ids();
        let alphabet = matches!(
            self.inner.get_decoder(),
            Some(tokenizers::DecoderWrapper::ByteLevel(_))
        );
        let size = |id: u32| {
            let token = self.token(id).filter(|_| !special.contains(&id));
            token.map_or(0, |token| {
                if alphabet {
                    // A character of the alphabet is a byte of the text.
                    token.chars().count() as u32
                } else {
                    token.trim_start_matches("##").len() as u32
                }
            })
        };
        (0..=self.largest_id()).map(size).collect()
    }

    /// Whether each token goes on with the word of the token before it, by id: `##ing`; of byte-level and SentencePiece
    /// tokenizers a token of letters without a blank in front.
    pub fn continuations(&self) -> Vec<bool> {
        let blank = match self.inner.get_decoder() {
            Some(tokenizers::DecoderWrapper::ByteLevel(_)) => Some('\u{120}'),
            Some(tokenizers::DecoderWrapper::Metaspace(_)) => Some('\u{2581}'),
            // Llama's older files.
            Some(tokenizers::DecoderWrapper::Sequence(_)) => Some('\u{2581}'),
            _ => None,
        };
        let special = self.special_ids();
        let goes_on = |id: u32| {
            let token = self.token(id).filter(|_| !special.contains(&id));
            token.is_some_and(|token| match blank {
                Some(blank) => {
                    !token.starts_with(blank) && token.chars().all(char::is_alphanumeric)
                }
                None => token.len() > 2 && token.starts_with("##"),
            })
        };
        (0..=self.largest_id()).map(goes_on).collect()
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

    /// `model_max_length` of `tokenizer_config.json`, in tokens; `None` where it is missing or only says "any length".
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// Which special token has which job.
    pub fn roles(&self) -> Roles {
        self.roles
    }

    /// How the vocabulary spells the token with this job.
    pub fn spelled(&self, role: Role) -> Option<String> {
        self.token(self.roles.id(role)?)
    }

    /// The id that has this job.
    ///
    /// # Errors
    /// The tokenizer has no such token.
    pub fn required(&self, role: Role) -> Result<u32, DataError> {
        self.roles.id(role).ok_or_else(|| DataError::RoleMissing {
            place: self.place.clone(),
            role: role.name(),
            examples: role.examples(),
        })
    }

    /// The id that fills rows up: the padding token, else the end token, else 0. It is masked wherever it is put.
    pub fn pad(&self) -> u32 {
        self.roles.pad.or(self.roles.end).unwrap_or(0)
    }

    /// The id of what the vocabulary cannot spell.
    pub fn unk(&self) -> Option<u32> {
        self.roles.unknown
    }

    /// The id for the beginning of a text, whether or not [`encode`](Self::encode) puts it there.
    pub fn begin(&self) -> Option<u32> {
        self.roles.begin
    }

    /// The id for the end of a text, whether or not [`encode`](Self::encode) puts it there.
    pub fn end(&self) -> Option<u32> {
        self.roles.end
    }

    /// What [`encode`](Self::encode) puts in front of every text, if anything.
    pub fn opening(&self) -> Option<u32> {
        self.frame.before.first().copied()
    }

    /// What [`encode`](Self::encode) puts behind every text, if anything.
    pub fn closing(&self) -> Option<u32> {
        self.frame.after.last().copied()
    }

    /// What has to go between encoded texts that are joined: the end token, unless [`encode`](Self::encode) puts it
    /// there already.
    pub fn separator(&self) -> Option<u32> {
        self.roles.end.filter(|_| self.frame.after.is_empty())
    }

    /// What [`encode`](Self::encode) puts around every text, and how it cuts one: on the side that `truncation_side` of
    /// `tokenizer_config.json` names, else the `truncation` of `tokenizer.json`, else the right.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The number of special tokens that [`encode`](Self::encode) puts around every text.
    pub fn frame_len(&self) -> usize {
        self.frame.len()
    }

    /// [`begin`](Self::begin) of an encoder.
    ///
    /// # Panics
    /// If there is none; [`required`](Self::required) reports that as an error.
    pub fn cls(&self) -> u32 {
        self.sure(Role::Begin)
    }

    /// [`end`](Self::end) of an encoder.
    ///
    /// # Panics
    /// If there is none; [`required`](Self::required) reports that as an error.
    pub fn sep(&self) -> u32 {
        self.sure(Role::End)
    }

    /// The id that hides a token.
    ///
    /// # Panics
    /// If there is none; [`required`](Self::required) reports that as an error.
    pub fn mask(&self) -> u32 {
        self.sure(Role::Mask)
    }

    fn sure(&self, role: Role) -> u32 {
        match self.required(role) {
            Ok(id) => id,
            Err(error) => panic!("{error}"),
        }
    }

    /// The ids of the tokens that have a job, in the order of [`Role`], then those of all other special tokens.
    pub fn special_ids(&self) -> Vec<u32> {
        let roles = Role::ALL.into_iter();
        let mut ids = Vec::new();
        for id in roles.filter_map(|role| self.roles.id(role)) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let added = self.inner.get_added_tokens_decoder().into_iter();
        let special = added.filter(|(id, token)| token.special && !ids.contains(id));
        let mut others: Vec<u32> = special.map(|(id, _)| id).collect();
        others.sort_unstable();
        ids.append(&mut others);
        ids
    }

    fn is_special(&self, id: u32) -> bool {
        let token = self.inner.id_to_token(id);
        token.is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }
}

/// The crate's tokenizer in the bytes of a `tokenizer.json`.
fn parse_inner(bytes: &[u8], place: &str) -> Result<Tokenizer, DataError> {
    let wrong = |source| DataError::BadTokenizer {
        place: place.into(),
        source,
    };
    // What is no JSON is said with its line; the crate panics there, and at some of what is.
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| wrong(error.into()))?;
    let read = caught(|| Tokenizer::from_bytes(bytes));
    let mut inner = read.map_err(|panic| wrong(panic.into()))?.map_err(wrong)?;
    // A file may bring its own; here batches do the padding.
    inner.with_padding(None);
    Ok(inner)
}

/// A BERT tokenizer without special tokens.
fn bert(model: WordPiece, normalizer: BertNormalizer) -> Tokenizer {
    let mut inner = Tokenizer::new(model);
    inner.with_normalizer(Some(normalizer));
    inner.with_pre_tokenizer(Some(BertPreTokenizer));
    inner.with_decoder(Some(WordPieceDecoder::default()));
    inner
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
///
/// - cls, sep: spelling and id
fn cls_and_sep(cls: (&str, u32), sep: (&str, u32)) -> Result<TemplateProcessing, DataError> {
    let failed = |message: String| DataError::Tokenizer(message.into());
    let (first, end) = (format!("{}:0", cls.0), format!("{}:0", sep.0));
    let single = format!("{first} $A:0 {end}");
    let pair = format!("{single} $B:1 {}:1", sep.0);
    TemplateProcessing::builder()
        .try_single(single)
        .map_err(failed)?
        .try_pair(pair)
        .map_err(failed)?
        .special_tokens(vec![cls, sep])
        .build()
        .map_err(|error| failed(error.to_string()))
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

    #[test]
    fn what_the_crate_panics_at_is_no_tokenizer() {
        let whole = tokenizer_json();
        let (decoder, normalizer) = ("\"##\"", "\"normalizer\": {");
        let half = whole.replace(decoder, "\"\\ud83d\"");
        let kind = r#""normalizer": {"type": "Precompiled", "precompiled_charsmap": 5}, "was": {"#;
        let charsmap = whole.replacen(normalizer, kind, 1);
        for broken in [half, charsmap] {
            assert_ne!(broken, whole);
            let error = TextTokenizer::from_bytes(broken.as_bytes()).unwrap_err();
            let sentence = error.to_string();
            assert!(sentence.contains("not a tokenizer"), "{sentence}");
            assert_eq!(sentence.lines().count(), 1, "{sentence}");
            assert!(!crate::is_catching());
        }
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
            tokenizer.unk().unwrap(),
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
        assert_eq!(
            unknown,
            [tokenizer.cls(), tokenizer.unk().unwrap(), tokenizer.sep()]
        );
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
    fn texts_cut_on_the_left_keep_their_last_tokens() {
        use tokenizers::normalizers::{NormalizerWrapper, Strip};
        let mut stripped = small().inner;
        stripped.with_normalizer(Some(NormalizerWrapper::StripNormalizer(Strip::new(
            true, true,
        ))));
        // Known by word, known by word but for added tokens, and not known by word.
        for (inner, text) in [
            (small().inner, "the cat sat, the dog"),
            (small_bytes().inner, "the cat sat, the dog"),
            (small_bytes().inner, "the cat<|endoftext|> sat, the dog"),
            (stripped, "the cat sat, the dog"),
        ] {
            let left = Some(TruncationDirection::Left);
            let tokenizer = TextTokenizer::new(inner, "", Names::default(), None, left).unwrap();
            let whole = tokenizer.encode_one(text, usize::MAX).unwrap();
            let around = tokenizer.frame_len() / 2;
            for max_len in 2..=whole.len() {
                let last = &whole[whole.len() + around - max_len..];
                let expected = [&whole[..around], last].concat();
                assert_eq!(tokenizer.encode_one(text, max_len).unwrap(), expected);
            }
            let config = tokenizer.config_json(64, false);
            assert!(config.contains("\"truncation_side\": \"left\""), "{config}");
        }
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

    #[test]
    fn the_config_of_a_bert_tokenizer() {
        let expected = r#"{
  "tokenizer_class": "PreTrainedTokenizerFast",
  "model_max_length": 128,
  "model_input_names": [
    "input_ids",
    "token_type_ids",
    "attention_mask"
  ],
  "unk_token": "[UNK]",
  "pad_token": "[PAD]",
  "cls_token": "[CLS]",
  "sep_token": "[SEP]",
  "mask_token": "[MASK]"
}
"#;
        assert_eq!(small().config_json(128, true), expected);
        let saved = TextTokenizer::from_bytes(small().to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(saved.config_json(128, true), expected);
    }

    #[test]
    fn the_config_of_a_byte_level_tokenizer() {
        let expected = r#"{
  "tokenizer_class": "PreTrainedTokenizerFast",
  "model_max_length": 64,
  "model_input_names": [
    "input_ids",
    "attention_mask"
  ],
  "bos_token": "<|endoftext|>",
  "eos_token": "<|endoftext|>"
}
"#;
        assert_eq!(small_bytes().config_json(64, false), expected);
    }

    fn small_bytes() -> TextTokenizer {
        TextTokenizer::train_bpe(&TEXTS, 300).unwrap()
    }

    #[test]
    fn byte_level_tokenizers_have_one_special_token() {
        let tokenizer = small_bytes();
        let expected = Roles {
            begin: Some(0),
            end: Some(0),
            ..Roles::default()
        };
        assert_eq!(tokenizer.roles(), expected);
        assert_eq!((tokenizer.pad(), tokenizer.special_ids()), (0, vec![0]));
        assert_eq!((tokenizer.opening(), tokenizer.closing()), (None, None));
        assert_eq!(tokenizer.separator(), Some(0));
        assert_eq!(small().separator(), None);
        assert_eq!(small().closing(), Some(3));
        let error = tokenizer.required(Role::Mask).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the trained tokenizer: the tokenizer has no mask token (such as [MASK] or <mask>), and this needs one"
        );
        let ids = tokenizer.encode_one("the cat", 99).unwrap();
        assert!(!ids.contains(&0), "none is put around a text");
        assert_eq!(tokenizer.encode_one("the cat", 1).unwrap(), ids[..1]);
    }

    #[test]
    fn any_text_comes_back_from_bytes() {
        use crate::order::{Stream, rng};
        use rand::RngExt;
        let tokenizer = small_bytes();
        let pieces = [
            "the",
            " cat",
            "\r\n",
            "\n\n ",
            "\0",
            "\u{1f468}\u{200d}\u{1f469}",
            "e\u{301}",
            "日本",
            "\u{feff}",
            "'ll",
            " 12",
            "\u{a0}",
            "\u{fffd}",
            "\u{10ffff}",
            "\t",
            "  ",
            "ß",
            "[MASK]",
            "Ġ",
            "##",
        ];
        let mut rng = rng(3, Stream::Sample, 0);
        for _ in 0..3000 {
            let n = rng.random_range(0..15);
            let text: String = (0..n)
                .map(|_| pieces[rng.random_range(0..pieces.len())])
                .collect();
            let ids = tokenizer.encode_one(&text, usize::MAX).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            let row: Vec<char> = (0..n).map(|_| rng.random::<char>()).collect();
            let text: String = row.into_iter().collect();
            let ids = tokenizer.encode_one(&text, usize::MAX).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }

    #[test]
    fn byte_level_training_depends_on_the_texts_alone() {
        use sha2::{Digest, Sha256};
        let reversed: Vec<&str> = TEXTS.iter().rev().copied().collect();
        let json = small_bytes().to_json().unwrap();
        let again = TextTokenizer::train_bpe(&reversed, 300).unwrap();
        assert_eq!(again.to_json().unwrap(), json);
        // Pinned once from this code; another process has other hash seeds.
        assert_eq!(format!("{:x}", Sha256::digest(json)), PINNED_BYTES);
    }

    const PINNED_BYTES: &str = "24a3f59e305e947307480b83de996c3b094f4650a77e209e0b2068ec1f941865";

    #[test]
    fn a_texts_stream_that_fails_ends_the_training() {
        let lost = || {
            let path = "texts".into();
            Err(DataError::Empty { path })
        };
        let error = TextTokenizer::train_bpe_on([Ok("the cat"), lost()].into_iter(), 300);
        assert!(matches!(error, Err(DataError::Empty { .. })));
        let error = TextTokenizer::train_wordpiece_on([Ok("the cat"), lost()].into_iter(), 300);
        assert!(matches!(error, Err(DataError::Empty { .. })));
        let error = TextTokenizer::train_bpe(&TEXTS, 256).unwrap_err();
        assert!(matches!(
            error,
            DataError::VocabTooSmall { needed: 257, .. }
        ));
    }

    #[test]
    fn templates_that_cannot_be_applied_are_refused() {
        let broken = small()
            .to_json()
            .unwrap()
            .replace("\"[SEP]\": {", "\"[OTHER]\": {");
        let error = TextTokenizer::from_bytes(broken.as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tokenizer.json in memory: its post-processor cannot be applied: the ids of [SEP] are missing"
        );
        let mut inner = small().inner;
        let template = cls_and_sep(("[CLS]", 2), ("[SEP]", 9999)).unwrap();
        inner.with_post_processor(Some(template));
        let beyond = inner.to_string(false).unwrap();
        let error = TextTokenizer::from_bytes(beyond.as_bytes()).unwrap_err();
        assert!(
            error.to_string().ends_with("no token has the id 9999"),
            "{error}"
        );
    }
}
