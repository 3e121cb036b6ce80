//! Makes a tokenizer of the files of a model's directory. In: `tokenizer.json`, or `vocab.txt`, or `vocab.json` and
//! `merges.txt`, and the files that describe them. Out: a tokenizer with the ids of transformers' fast one.
//!
//! The rules are those of transformers 5.23: `TokenizersBackend`, `BertTokenizer`, `RobertaTokenizer`, `GPT2Tokenizer`.
//! `tests/golden/make_tokenizers.py` holds the two against each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, Tokenizer, TruncationDirection,
};

use super::roles::Names;
use super::{TextTokenizer, bert, bpe, cls_and_sep, parse_inner};
use crate::{DataError, file};

const TOKENIZER: &str = "tokenizer.json";
const VOCAB_TXT: &str = "vocab.txt";
const VOCAB_JSON: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const CONFIG: &str = "tokenizer_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const SPECIAL_MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";
const MODEL_CONFIG: &str = "config.json";

/// Vocabularies of other kinds, by the names they have on the Hub.
const OTHER_KINDS: [(&str, &str); 7] = [
    ("spiece.model", "SentencePiece"),
    ("tokenizer.model", "SentencePiece"),
    ("sentencepiece.bpe.model", "SentencePiece"),
    ("spm.model", "SentencePiece"),
    ("source.spm", "SentencePiece"),
    ("bpe.codes", "fastBPE"),
    ("tekken.json", "Tekken"),
];

/// `model_max_length` above this says "any length".
const NO_LENGTH: f64 = 1e9;

/// Tokenizer classes and model types whose `vocab.txt` is BERT's.
const BERT_KINDS: [&str; 36] = [
    "BertTokenizer",
    "ConvBertTokenizer",
    "DistilBertTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "DPRReaderTokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "RealmTokenizer",
    "RetriBertTokenizer",
    "SqueezeBertTokenizer",
    "align",
    "bert",
    "blip",
    "chinese_clip",
    "convbert",
    "distilbert",
    "dpr",
    "electra",
    "ernie",
    "flava",
    "git",
    "layoutlm",
    "lxmert",
    "megatron-bert",
    "mobilebert",
    "nezha",
    "nomic_bert",
    "qdqbert",
    "realm",
    "retribert",
    "squeezebert",
    "vilt",
    "visual_bert",
];

/// Those whose `vocab.json` and `merges.txt` are RoBERTa's.
const ROBERTA_KINDS: [&str; 14] = [
    "BartTokenizer",
    "LEDTokenizer",
    "LongformerTokenizer",
    "RobertaTokenizer",
    "bart",
    "clap",
    "data2vec-text",
    "ibert",
    "led",
    "lilt",
    "longformer",
    "mega",
    "roberta",
    "roberta-prelayernorm",
];

/// Those whose `vocab.json` and `merges.txt` are GPT-2's.
const GPT2_KINDS: [&str; 9] = [
    "GPT2Tokenizer",
    "codegen",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gptj",
    "opt",
    "phi",
    "starcoder2",
];

/// Classes that take `tokenizer.json` as it is.
const GENERIC: [&str; 3] = ["PreTrainedTokenizer", "TokenizersBackend", "PythonBackend"];

/// Reads a file of a directory by its name; `None` where it is missing.
type Read<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// Whose rules a vocabulary follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Bert,
    Roberta,
    Gpt2,
}

impl Family {
    /// Of a tokenizer class without `Fast`, or of a model type.
    fn of(name: &str) -> Option<Self> {
        if BERT_KINDS.contains(&name) {
            Some(Self::Bert)
        } else if ROBERTA_KINDS.contains(&name) {
            Some(Self::Roberta)
        } else if GPT2_KINDS.contains(&name) {
            Some(Self::Gpt2)
        } else {
            None
        }
    }

    /// Special tokens where no file names others.
    fn names(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bert => &[
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::Roberta => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            Self::Gpt2 => &[("bos_token", bpe::END), ("eos_token", bpe::END)],
        }
    }
}

/// What the files beside a vocabulary say about it.
struct Described {
    /// Without `Fast`.
    class: Option<String>,
    model_type: Option<String>,
    /// All of `tokenizer_config.json`.
    config: Map<String, Value>,
    names: Names,
    /// By id.
    added: BTreeMap<u32, AddedToken>,
    /// Special tokens without a job.
    extra: Vec<AddedToken>,
}

impl Described {
    fn read(read: Read<'_>, place: &str, model_type: Option<&str>) -> Result<Self, DataError> {
        let object = |name: &str| match read(name) {
            Some(bytes) => json_object(&bytes, &format!("{place}/{name}")),
            None => Ok(Map::new()),
        };
        let (config, special) = (object(CONFIG)?, object(SPECIAL_MAP)?);
        // A hint alone: who opens the model reports what is wrong with it.
        let model = object(MODEL_CONFIG).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_string);
        let class = [config.get("tokenizer_class"), model.get("tokenizer_class")];
        let class = class.into_iter().flatten().find_map(text);
        let class = class.map(|class| class.strip_suffix("Fast").unwrap_or(&class).to_string());
        let model_type = model_type.map(str::to_string);
        let mut described = Self {
            class,
            model_type: model_type.or_else(|| model.get("model_type").and_then(text)),
            names: Names::default(),
            added: BTreeMap::new(),
            extra: Vec::new(),
            config,
        };
        described.name(&special);
        let wrong = |file| {
            move |reason: &str| DataError::BadTokenizerFile {
                path: format!("{place}/{file}"),
                reason: reason.into(),
            }
        };
        if described.config.contains_key("added_tokens_decoder") {
            described.add_by_id().map_err(wrong(CONFIG))?;
        } else {
            described
                .add_by_token(&object(ADDED)?)
                .map_err(wrong(ADDED))?;
        }
        Ok(described)
    }

    /// Reads which token has which job. Where `tokenizer_config.json` lists all added tokens it is the newer file.
    fn name(&mut self, special: &Map<String, Value>) {
        let config = std::mem::take(&mut self.config);
        let newer = config.contains_key("added_tokens_decoder");
        let (first, last) = if newer {
            (special, &config)
        } else {
            (&config, special)
        };
        for source in [first, last] {
            for key in Names::KEYS {
                if let Some(token) = source.get(key).and_then(special_token) {
                    self.names.set(key, token);
                }
            }
            for key in ["additional_special_tokens", "extra_special_tokens"] {
                let tokens = source.get(key).and_then(Value::as_array);
                for token in tokens.into_iter().flatten().filter_map(special_token) {
                    if !self
                        .extra
                        .iter()
                        .any(|extra| extra.content == token.content)
                    {
                        self.extra.push(token);
                    }
                }
            }
        }
        self.config = config;
    }

    /// `"added_tokens_decoder": {"5": {"content": "<ent>", ..}}`
    fn add_by_id(&mut self) -> Result<(), &'static str> {
        let tokens = self.config["added_tokens_decoder"].as_object();
        for (id, token) in tokens.into_iter().flatten() {
            let id = id.parse().map_err(|_| "an added token has no number")?;
            let token = added_token(token).ok_or("an added token has no content")?;
            self.added.insert(id, token);
        }
        Ok(())
    }

    /// `{"<ent>": 5}`
    fn add_by_token(&mut self, tokens: &Map<String, Value>) -> Result<(), &'static str> {
        for (token, id) in tokens {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or("an added token has no number")?;
            let named = Names::KEYS.iter().filter_map(|key| self.names.get(key));
            let mut special = named.chain(&self.extra);
            let special = special.any(|named| named.content == *token);
            self.added.insert(id, AddedToken::from(token, special));
        }
        Ok(())
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.config.get(key).and_then(Value::as_bool)
    }

    /// The chat template: a file by itself, or a key of `tokenizer_config.json`, which may hold several by name.
    fn chat_template(&self, read: Read<'_>) -> Option<String> {
        if let Some(bytes) = read(CHAT_TEMPLATE) {
            return String::from_utf8(bytes).ok();
        }
        match self.config.get("chat_template")? {
            Value::String(template) => Some(template.clone()),
            Value::Array(named) => {
                let mut named = named.iter();
                let default = named.find(|one| one["name"] == "default")?;
                default["template"].as_str().map(str::to_string)
            }
            _ => None,
        }
    }

    fn max_length(&self) -> Option<usize> {
        let length = self.config.get("model_max_length")?.as_f64()?;
        (1.0..=NO_LENGTH)
            .contains(&length)
            .then_some(length as usize)
    }

    /// Where longer texts are cut, if `tokenizer_config.json` says so; it comes before `tokenizer.json`.
    fn truncation_side(&self) -> Result<Option<TruncationDirection>, String> {
        let Some(side) = self.config.get("truncation_side") else {
            return Ok(None);
        };
        match side.as_str() {
            Some("left") => Ok(Some(TruncationDirection::Left)),
            Some("right") => Ok(Some(TruncationDirection::Right)),
            _ => Err(format!(
                "truncation_side is {side}, neither \"left\" nor \"right\""
            )),
        }
    }

    /// The class if it says something.
    fn class_kind(&self) -> Option<&str> {
        let class = self.class.as_deref();
        class.filter(|class| !GENERIC.contains(class))
    }

    /// The class if it says something, else the model type.
    fn kind(&self) -> Option<&str> {
        self.class_kind().or(self.model_type.as_deref())
    }

    /// Whether transformers builds the tokenizer anew from `tokenizer_config.json`.
    fn rebuilt(&self) -> bool {
        !self
            .class
            .as_deref()
            .is_some_and(|class| GENERIC.contains(&class))
    }

    /// The token with this key as a family spells it.
    fn spelled(&self, key: &str, family: Family) -> String {
        if let Some(token) = self.names.get(key) {
            return token.content.clone();
        }
        let mut usual = family.names().iter();
        let usual = usual.find(|(name, _)| *name == key);
        usual.map_or_else(String::new, |(_, token)| token.to_string())
    }

    /// Adds the tokens that the files name, as transformers does: those with an id in its order, then those with a job,
    /// then the others. One for padding is never added anew: it is masked wherever it is put.
    fn add_tokens(&self, inner: &mut Tokenizer, family: Option<Family>) -> Names {
        let there: Vec<AddedToken> = inner.get_added_tokens_decoder().into_values().collect();
        let fixed = self.added.values().filter(|token| !there.contains(token));
        let mut tokens: Vec<AddedToken> = fixed.cloned().collect();
        let mut names = self.names.clone();
        for &(key, token) in family.map_or(&[][..], Family::names) {
            if names.get(key).is_none() && inner.token_to_id(token).is_some() {
                names.set(key, AddedToken::from(token, true));
            }
        }
        let named = Names::KEYS.iter().filter_map(|key| {
            let token = names.get(key)?;
            let keep = *key != "pad_token" || inner.token_to_id(&token.content).is_some();
            keep.then_some(token)
        });
        let named: Vec<&AddedToken> = named.collect();
        for token in &mut tokens {
            token.special |= named.iter().any(|named| named.content == token.content);
        }
        for token in named.into_iter().chain(&self.extra) {
            let mut known = there.iter().chain(&tokens);
            if !known.any(|known| known.content == token.content) {
                tokens.push(token.clone());
            }
        }
        inner.add_tokens(&tokens);
        names
    }
}

/// An object `{"content": "<ent>", "lstrip": true, ..}`.
fn added_token(value: &Value) -> Option<AddedToken> {
    let flag = |key: &str| value[key].as_bool();
    let special = flag("special").unwrap_or(false);
    let token = AddedToken::from(value["content"].as_str()?, special)
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .single_word(flag("single_word").unwrap_or(false));
    Some(match flag("normalized") {
        Some(normalized) => token.normalized(normalized),
        None => token,
    })
}

/// A special token, as its spelling or as an object.
fn special_token(value: &Value) -> Option<AddedToken> {
    match value.as_str() {
        Some(token) => Some(AddedToken::from(token, true)),
        None => {
            let mut value = value.clone();
            value.as_object_mut()?.insert("special".into(), true.into());
            added_token(&value)
        }
    }
}

fn json_object(bytes: &[u8], path: &str) -> Result<Map<String, Value>, DataError> {
    serde_json::from_slice(bytes).map_err(|error| DataError::BadTokenizerFile {
        path: path.into(),
        reason: format!("not a JSON object: {error}"),
    })
}

/// A file with a vocabulary.
struct Vocabulary<'a> {
    bytes: Vec<u8>,
    /// For messages.
    path: String,
    /// For messages.
    folder: &'a str,
    described: Described,
}

/// A tokenizer from a path.
pub(super) fn load(path: &Path) -> Result<TextTokenizer, DataError> {
    if path.is_dir() {
        let place = path.display().to_string();
        return in_folder(path, |read| from_files(read, &place, None));
    }
    let bytes = file::read(path)?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let place = folder.display().to_string();
    in_folder(folder, |read| {
        let vocabulary = Vocabulary {
            path: path.display().to_string(),
            folder: &place,
            described: Described::read(read, &place, None)?,
            bytes,
        };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("txt") => vocabulary.word_piece(),
            Some("model" | "spm") => Err(vocabulary.unknown("SentencePiece")),
            _ if vocabulary.is_ids() => vocabulary.byte_level(read(MERGES)),
            _ => vocabulary.tokenizer(),
        }
    })
}

/// Runs `make` on the files of a folder; a file that is there and cannot be read is an error, not a missing one.
fn in_folder<T>(
    folder: &Path,
    make: impl FnOnce(Read<'_>) -> Result<T, DataError>,
) -> Result<T, DataError> {
    let failure = RefCell::new(None);
    let read = |name: &str| match file::read(&folder.join(name)) {
        Ok(bytes) => Some(bytes),
        Err(DataError::NotFound { .. }) => None,
        Err(error) => {
            failure.borrow_mut().get_or_insert(error);
            None
        }
    };
    let made = make(&read);
    match failure.take() {
        Some(error) => Err(error),
        None => made,
    }
}

/// A tokenizer from the files of a directory.
pub(super) fn from_files(
    read: Read<'_>,
    place: &str,
    model_type: Option<&str>,
) -> Result<TextTokenizer, DataError> {
    let described = Described::read(read, place, model_type)?;
    let bpe_family = [Some(Family::Roberta), Some(Family::Gpt2)];
    let is_bpe = bpe_family.contains(&described.kind().and_then(Family::of));
    let names = if is_bpe {
        [TOKENIZER, VOCAB_JSON, VOCAB_TXT]
    } else {
        [TOKENIZER, VOCAB_TXT, VOCAB_JSON]
    };
    let found = names.iter().find_map(|name| Some((*name, read(name)?)));
    let Some((name, bytes)) = found else {
        let mut others = OTHER_KINDS.iter();
        return Err(match others.find(|(name, _)| read(name).is_some()) {
            Some((name, kind)) => DataError::VocabularyKind {
                path: format!("{place}/{name}"),
                kind: (*kind).into(),
                folder: place.into(),
            },
            None => DataError::NoTokenizer {
                place: place.into(),
            },
        });
    };
    let chat_template = described.chat_template(read);
    let vocabulary = Vocabulary {
        path: format!("{place}/{name}"),
        folder: place,
        bytes,
        described,
    };
    let tokenizer = match name {
        TOKENIZER => vocabulary.tokenizer(),
        VOCAB_TXT => vocabulary.word_piece(),
        _ => vocabulary.byte_level(read(MERGES)),
    };
    Ok(tokenizer?.with_chat_template(chat_template))
}

impl Vocabulary<'_> {
    /// A `tokenizer.json`; what `tokenizer_config.json` states about lower-casing and blanks comes first, as in
    /// transformers, which builds the tokenizers of known families anew.
    fn tokenizer(&self) -> Result<TextTokenizer, DataError> {
        let mut inner = parse_inner(&self.bytes, &self.path)?;
        let flag = |key| self.described.flag(key);
        if self.described.rebuilt() {
            if let Some(NormalizerWrapper::BertNormalizer(mut bert)) =
                inner.get_normalizer().cloned()
            {
                bert.lowercase = flag("do_lower_case").unwrap_or(bert.lowercase);
                bert.strip_accents = flag("strip_accents").or(bert.strip_accents);
                let chinese = flag("tokenize_chinese_chars");
                bert.handle_chinese_chars = chinese.unwrap_or(bert.handle_chinese_chars);
                inner.with_normalizer(Some(bert));
            }
            if let Some(PreTokenizerWrapper::ByteLevel(split)) = inner.get_pre_tokenizer().cloned()
                && let Some(space) = flag("add_prefix_space")
            {
                inner.with_pre_tokenizer(Some(split.add_prefix_space(space)));
            }
        }
        self.finish(inner, None)
    }

    /// A `vocab.txt`: a token a line, its id the number of the line.
    fn word_piece(&self) -> Result<TextTokenizer, DataError> {
        if let Some(kind) = self.described.kind() {
            let family = Family::of(kind);
            // A class is exact; a model type that is not known here may well be another BERT.
            let guessed = family.is_none() && self.described.class_kind().is_none();
            if family != Some(Family::Bert) && !guessed {
                return Err(self.unknown(kind));
            }
        }
        let text = self.text()?;
        let lines = text.lines().map(|line| line.trim_end().to_string());
        let vocab: Map<String, Value> = lines.zip((0..).map(Value::from)).collect();
        for key in ["unk_token", "cls_token", "sep_token"] {
            let token = self.described.spelled(key, Family::Bert);
            // Named ones are added where they are missing, but a model has no other token for what it cannot spell.
            let added = key != "unk_token" && self.described.names.get(key).is_some();
            if !vocab.contains_key(&token) && !added {
                return Err(self.missing(token));
            }
        }
        let model: WordPiece = self.built(json!({
            "type": "WordPiece",
            "unk_token": self.described.spelled("unk_token", Family::Bert),
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        }))?;
        let flag = |key| self.described.flag(key);
        let clean_text = true;
        let normalizer = BertNormalizer::new(
            clean_text,
            flag("tokenize_chinese_chars").unwrap_or(true),
            flag("strip_accents"),
            flag("do_lower_case").unwrap_or(true),
        );
        self.finish(bert(model, normalizer), Some(Family::Bert))
    }

    /// A `vocab.json` with its `merges.txt`.
    fn byte_level(&self, merges: Option<Vec<u8>>) -> Result<TextTokenizer, DataError> {
        let vocab = json_object(&self.bytes, &self.path)?;
        if !self.is_ids() {
            return Err(self.wrong(
                &self.path,
                "not a vocabulary: each token must have a number",
            ));
        }
        let family = match self.described.kind() {
            Some(kind) => Family::of(kind).filter(|family| *family != Family::Bert),
            None if vocab.contains_key("<s>") && vocab.contains_key("</s>") => {
                Some(Family::Roberta)
            }
            None if vocab.contains_key(bpe::END) => Some(Family::Gpt2),
            None => None,
        };
        let kind = self
            .described
            .kind()
            .unwrap_or("no tokenizer_class, no model_type");
        let family = family.ok_or_else(|| self.unknown(kind))?;
        let merges_path = format!("{}/{MERGES}", self.folder);
        let merges = merges.ok_or_else(|| {
            self.wrong(&merges_path, "missing; the merges of vocab.json are needed")
        })?;
        let merges = self.merges(&merges, &merges_path)?;
        let prefix_space = self.described.flag("add_prefix_space").unwrap_or(false);
        let mut json = bpe::tokenizer(vocab.into(), merges);
        json["pre_tokenizer"] = json!(bpe::splitting().add_prefix_space(prefix_space));
        let inner = self.built(json)?;
        self.finish(inner, Some(family))
    }

    fn merges(&self, bytes: &[u8], path: &str) -> Result<Vec<[String; 2]>, DataError> {
        let text = str::from_utf8(bytes).map_err(|_| self.wrong(path, "not valid UTF-8"))?;
        let lines = text.lines().enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
        let merges = lines.map(|(at, line)| match line.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok([left.into(), right.into()]),
            _ => {
                let reason = format!("line {} is not two tokens: \"{line}\"", at + 1);
                Err(self.wrong(path, &reason))
            }
        });
        merges.collect()
    }

    /// Adds special tokens and what goes around a text.
    fn finish(
        &self,
        mut inner: Tokenizer,
        family: Option<Family>,
    ) -> Result<TextTokenizer, DataError> {
        let names = self.described.add_tokens(&mut inner, family);
        let id = |inner: &Tokenizer, key: &str| {
            let token = self.described.spelled(key, family.unwrap_or(Family::Bert));
            let id = inner.token_to_id(&token);
            id.map(|id| (token.clone(), id))
                .ok_or_else(|| self.missing(token))
        };
        match family {
            None => {}
            Some(Family::Bert) => {
                let (cls, sep) = (id(&inner, "cls_token")?, id(&inner, "sep_token")?);
                let template = cls_and_sep((&cls.0, cls.1), (&sep.0, sep.1))?;
                inner.with_post_processor(Some(template));
            }
            Some(Family::Roberta) => {
                let (cls, sep) = (id(&inner, "cls_token")?, id(&inner, "sep_token")?);
                let prefix_space = self.described.flag("add_prefix_space").unwrap_or(false);
                let processing = tokenizers::processors::roberta::RobertaProcessing::new(sep, cls)
                    .add_prefix_space(prefix_space);
                inner.with_post_processor(Some(processing));
            }
            Some(Family::Gpt2) => {
                let given = |key: &str| self.described.flag(key).unwrap_or(false);
                let begin = given("add_bos_token").then(|| id(&inner, "bos_token"));
                let end = given("add_eos_token").then(|| id(&inner, "eos_token"));
                let (begin, end) = (begin.transpose()?, end.transpose()?);
                if begin.is_some() || end.is_some() {
                    inner.with_post_processor(Some(begin_and_end(begin, end)?));
                }
            }
        }
        let side = self.described.truncation_side();
        let config = format!("{}/{CONFIG}", self.folder);
        let side = side.map_err(|reason| self.wrong(&config, &reason))?;
        let max_length = self.described.max_length();
        TextTokenizer::new(inner, &self.path, names, max_length, side)
    }

    /// What the tokenizers crate makes of a part of a `tokenizer.json`.
    fn built<T: serde::de::DeserializeOwned>(&self, json: Value) -> Result<T, DataError> {
        serde_json::from_str(&json.to_string()).map_err(|error| DataError::BadTokenizer {
            place: self.path.clone(),
            source: error.into(),
        })
    }

    fn text(&self) -> Result<&str, DataError> {
        let bytes = self.bytes.strip_prefix(b"\xef\xbb\xbf");
        let text = str::from_utf8(bytes.unwrap_or(&self.bytes));
        text.map_err(|_| self.wrong(&self.path, "not valid UTF-8"))
    }

    /// Whether this is a `vocab.json`: nothing but numbers by token.
    fn is_ids(&self) -> bool {
        let held = serde_json::from_slice::<Map<String, Value>>(&self.bytes);
        let is_id = |id: &Value| id.as_u64().is_some_and(|id| u32::try_from(id).is_ok());
        held.is_ok_and(|held| !held.is_empty() && held.values().all(is_id))
    }

    fn unknown(&self, kind: &str) -> DataError {
        DataError::VocabularyKind {
            path: self.path.clone(),
            folder: self.folder.into(),
            kind: kind.into(),
        }
    }

    fn missing(&self, token: String) -> DataError {
        let place = self.path.clone();
        DataError::SpecialMissing { place, token }
    }

    fn wrong(&self, path: &str, reason: &str) -> DataError {
        let (path, reason) = (path.into(), reason.into());
        DataError::BadTokenizerFile { path, reason }
    }
}

/// Spelling and id of a token around a text.
type Spelled = (String, u32);

/// `<begin> A <end>`, each where it is wanted.
fn begin_and_end(
    begin: Option<Spelled>,
    end: Option<Spelled>,
) -> Result<TemplateProcessing, DataError> {
    let failed = |message: String| DataError::Tokenizer(message.into());
    let around = |text: &str, kind: u32| {
        let begin = begin.iter().map(|(token, _)| format!("{token}:{kind}"));
        let end = end.iter().map(|(token, _)| format!("{token}:{kind}"));
        let all = begin.chain([format!("{text}:{kind}")]).chain(end);
        all.collect::<Vec<_>>()
    };
    let single = around("$A", 0);
    let pair = [single.clone(), around("$B", 1)].concat();
    let special: Vec<Spelled> = begin.iter().chain(&end).cloned().collect();
    TemplateProcessing::builder()
        .try_single(single)
        .map_err(failed)?
        .try_pair(pair)
        .map_err(failed)?
        .special_tokens(special)
        .build()
        .map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;
    use std::collections::HashMap;
    use std::fs;

    /// What `make_tokenizers.py` wrote.
    fn golden() -> Value {
        serde_json::from_str(include_str!("../../../tests/golden/tokenizers.json")).unwrap()
    }

    fn ids(value: &Value) -> Vec<u32> {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn files_of(case: &Value) -> HashMap<String, String> {
        serde_json::from_value(case["files"].clone()).unwrap()
    }

    fn opened(
        files: &HashMap<String, String>,
        model_type: Option<&str>,
    ) -> Result<TextTokenizer, DataError> {
        let read = |name: &str| files.get(name).map(|content| content.clone().into_bytes());
        from_files(&read, "model", model_type)
    }

    /// The files of a golden case, by its name.
    fn case(name: &str) -> HashMap<String, String> {
        let golden = golden();
        let cases = golden["cases"].as_array().unwrap();
        files_of(cases.iter().find(|case| case["name"] == name).unwrap())
    }

    fn refused(files: &HashMap<String, String>, model_type: Option<&str>) -> String {
        opened(files, model_type).unwrap_err().to_string()
    }

    #[test]
    fn ids_are_those_of_transformers() {
        let golden = golden();
        let texts: Vec<String> = serde_json::from_value(golden["texts"].clone()).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 19);
        for case in cases {
            let name = &case["name"];
            let tokenizer = opened(&files_of(case), case["model_type"].as_str()).unwrap();
            // As a bundle holds it, it must be the same tokenizer.
            let saved = tokenizer.to_json().unwrap();
            let saved = TextTokenizer::from_bytes(saved.as_bytes()).unwrap();
            for tokenizer in [&tokenizer, &saved] {
                let rows = tokenizer.encode(&texts, usize::MAX).unwrap();
                for ((text, row), expected) in
                    texts.iter().zip(rows).zip(case["ids"].as_array().unwrap())
                {
                    assert_eq!(row, ids(expected), "{name}: {text:?}");
                    let whole = tokenizer.inner.encode_fast(text.as_str(), true).unwrap();
                    assert_eq!(whole.get_ids(), row, "{name}: {text:?}");
                }
                let pair = tokenizer.inner.encode(("the cat", "sat"), true).unwrap();
                assert_eq!(pair.get_ids(), ids(&case["pair"]), "{name}");
            }
        }
    }

    #[test]
    fn roles_come_from_the_files() {
        let spelled = |name: &str| {
            let tokenizer = opened(&case(name), None).unwrap();
            Role::ALL.map(|role| tokenizer.spelled(role).unwrap_or_default())
        };
        let bert = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        assert_eq!(spelled("bert uncased by default"), bert);
        assert_eq!(spelled("tokenizer.json as it is"), bert);
        let other = ["<P>", "<U>", "<C>", "<S>", "[MASK]"];
        assert_eq!(spelled("bert with other spellings"), other);
        assert_eq!(spelled("bert with other spellings in its config"), other);
        let roberta = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"];
        assert_eq!(spelled("roberta"), roberta);
        assert_eq!(spelled("gpt2"), ["", "", bpe::END, bpe::END, ""]);
    }

    #[test]
    fn a_bundle_names_special_tokens_as_their_files_do() {
        let named = |name: &str| {
            let config = opened(&case(name), None).unwrap().config_json(512, false);
            let config: Map<String, Value> = serde_json::from_str(&config).unwrap();
            let tokens = config
                .into_iter()
                .filter(|(key, _)| key.ends_with("_token"));
            let tokens = tokens.map(|(key, token)| format!("{key} {}", token.as_str().unwrap()));
            tokens.collect::<Vec<_>>().join(", ")
        };
        let roberta = "unk_token <unk>, pad_token <pad>, bos_token <s>, eos_token </s>, cls_token <s>, sep_token </s>, mask_token <mask>";
        assert_eq!(named("roberta"), roberta);
        assert_eq!(named("roberta as saved"), roberta);
        assert_eq!(
            named("gpt2"),
            "bos_token <|endoftext|>, eos_token <|endoftext|>"
        );
        assert_eq!(
            named("bert with other spellings"),
            "unk_token <U>, pad_token <P>, cls_token <C>, sep_token <S>, mask_token [MASK]"
        );
    }

    #[test]
    fn the_kind_of_a_vocabulary_is_known_by_class_type_or_tokens() {
        let bytes = case("roberta");
        let framed = |model_type| opened(&bytes, model_type).unwrap().frame_len();
        assert_eq!(
            (framed(Some("roberta")), framed(Some("gpt2")), framed(None)),
            (2, 0, 2)
        );
        let mut config = bytes.clone();
        config.insert("config.json".into(), r#"{"model_type": "gpt2"}"#.into());
        assert_eq!(opened(&config, None).unwrap().frame_len(), 0);
        let class = r#"{"tokenizer_class": "RobertaTokenizerFast"}"#;
        config.insert("tokenizer_config.json".into(), class.into());
        assert_eq!(opened(&config, Some("gpt2")).unwrap().frame_len(), 2);
        // Both vocabularies: the one that the model type is made for.
        let mut both = bytes.clone();
        both.extend(case("bert uncased by default"));
        assert_eq!(opened(&both, Some("roberta")).unwrap().vocab_size(), 276);
        assert_eq!(opened(&both, Some("bert")).unwrap().vocab_size(), 42);
    }

    #[test]
    fn lengths_that_mean_any_length_are_none() {
        let length = |value: &str| {
            let mut files = case("gpt2");
            let config = format!("{{\"model_max_length\": {value}}}");
            files.insert("tokenizer_config.json".into(), config);
            opened(&files, None).unwrap().max_length()
        };
        assert_eq!(length("512"), Some(512));
        assert_eq!(length("1000000000000000019884624838656"), None);
        assert_eq!(length("1e30"), None);
        assert_eq!(length("0"), None);
        assert_eq!(length("null"), None);
    }

    #[test]
    fn the_side_on_which_texts_are_cut_comes_from_the_files() {
        // Texts of 5 tokens between [CLS] and [SEP], cut to 5.
        const TEXT: &str = "the cat the cat cat";
        let whole = opened(&case("bert cased"), None).unwrap();
        let json: Value = serde_json::from_str(&whole.to_json().unwrap()).unwrap();
        // - own: of tokenizer.json
        let files = |own: Option<&str>, side: Option<&str>| {
            let mut json = json.clone();
            if let Some(own) = own {
                json["truncation"] = json!({"direction": own, "max_length": 4, "strategy": "LongestFirst", "stride": 0});
            }
            let mut files = HashMap::from([("tokenizer.json".to_string(), json.to_string())]);
            if let Some(side) = side {
                let config = format!("{{\"truncation_side\": {side}}}");
                files.insert("tokenizer_config.json".into(), config);
            }
            files
        };
        let all = whole.encode_one(TEXT, 99).unwrap();
        let (the, cat) = (all[1], all[2]);
        assert_eq!(all, [2, the, cat, the, cat, cat, 3]);
        let (first, last) = ([2, the, cat, the, 3], [2, the, cat, cat, 3]);
        // As transformers 5.23 does.
        let (left, right) = (Some("\"left\""), Some("\"right\""));
        for (own, side, expected) in [
            (None, None, first),
            (None, left, last),
            (Some("Left"), None, last),
            (Some("Left"), right, first),
            (Some("Right"), left, last),
            (Some("Right"), None, first),
        ] {
            let tokenizer = opened(&files(own, side), None).unwrap();
            assert_eq!(
                tokenizer.encode_one(TEXT, 5).unwrap(),
                expected,
                "{own:?} {side:?}"
            );
            // As a bundle holds it, it must cut the same way.
            let bundle = HashMap::from([
                ("tokenizer.json".to_string(), tokenizer.to_json().unwrap()),
                (
                    "tokenizer_config.json".to_string(),
                    tokenizer.config_json(5, true),
                ),
            ]);
            assert_eq!(
                bundle["tokenizer_config.json"].contains("\"truncation_side\": \"left\""),
                expected == last
            );
            assert!(bundle["tokenizer.json"].contains("\"truncation\": null"));
            let saved = opened(&bundle, None).unwrap();
            assert_eq!(saved.encode_one(TEXT, 5).unwrap(), expected);
        }
        let alone = &files(Some("Left"), None)["tokenizer.json"];
        let alone = TextTokenizer::from_bytes(alone.as_bytes()).unwrap();
        assert_eq!(alone.encode_one(TEXT, 5).unwrap(), last);
        // A vocabulary of another kind.
        let mut vocab = case("bert cased");
        vocab.insert(
            "tokenizer_config.json".into(),
            r#"{"do_lower_case": false, "truncation_side": "left"}"#.into(),
        );
        let vocab = opened(&vocab, None).unwrap();
        assert_eq!(vocab.encode_one(TEXT, 5).unwrap(), last);
        for side in ["\"middle\"", "\"Left\"", "null", "3"] {
            assert_eq!(
                refused(&files(None, Some(side)), None),
                format!(
                    "model/tokenizer_config.json: truncation_side is {side}, neither \"left\" nor \"right\""
                )
            );
        }
    }

    #[test]
    fn a_path_may_be_a_directory_or_a_file_in_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, content) in case("bert cased") {
            fs::write(at(&name), content).unwrap();
        }
        let whole = load(folder.path()).unwrap();
        let vocab = load(&at("vocab.txt")).unwrap();
        assert_eq!(
            whole.encode_one("Cat cat", 9).unwrap(),
            [2, 22, 6, 3],
            "cased"
        );
        assert_eq!(vocab.to_json().unwrap(), whole.to_json().unwrap());
        for (name, content) in case("gpt2 with a blank in front") {
            fs::write(at(&name), content).unwrap();
        }
        let bytes = load(&at("vocab.json")).unwrap();
        assert_eq!(
            bytes
                .token(bytes.encode_one("the", 9).unwrap()[0])
                .as_deref(),
            Some("Ġthe")
        );
        fs::write(at("tokenizer.json"), whole.to_json().unwrap()).unwrap();
        let saved = load(&at("tokenizer.json")).unwrap();
        assert_eq!(saved.to_json().unwrap(), whole.to_json().unwrap());
        fs::remove_file(at("merges.txt")).unwrap();
        let error = load(&at("vocab.json")).unwrap_err().to_string();
        assert!(
            error.ends_with("merges.txt: missing; the merges of vocab.json are needed"),
            "{error}"
        );
        // A file that is there and cannot be read is not a missing one.
        fs::create_dir(at("merges.txt")).unwrap();
        let error = load(&at("vocab.json")).unwrap_err().to_string();
        assert!(error.ends_with("merges.txt: cannot be read"), "{error}");
    }

    #[test]
    fn vocabularies_of_other_kinds_are_named_with_the_way_out() {
        let files = |name: &str| HashMap::from([(name.to_string(), "x".to_string())]);
        let error = refused(&files("spiece.model"), None);
        assert!(error.starts_with("model/spiece.model: a vocabulary of a kind that is not read here (SentencePiece); make a tokenizer.json of it: python -c"), "{error}");
        assert!(refused(&files("tokenizer.model"), None).contains("SentencePiece"));
        assert_eq!(
            refused(&files("config.txt"), None),
            "model: no tokenizer: it holds neither tokenizer.json nor vocab.txt, nor vocab.json with merges.txt"
        );
        assert!(refused(&case("gpt2"), Some("clip")).contains("(clip)"));
        let mut clip = case("gpt2");
        clip.insert(
            "tokenizer_config.json".into(),
            r#"{"tokenizer_class": "CLIPTokenizerFast"}"#.into(),
        );
        assert!(
            refused(&clip, Some("gpt2")).contains(
                "vocab.json: a vocabulary of a kind that is not read here (CLIPTokenizer)"
            )
        );
        let mut japanese = case("bert uncased by default");
        japanese.insert(
            "tokenizer_config.json".into(),
            r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#.into(),
        );
        assert!(refused(&japanese, Some("bert")).contains("(BertJapaneseTokenizer)"));
        assert!(
            refused(&case("bert uncased by default"), Some("roberta"))
                .contains("vocab.txt: a vocabulary")
        );
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("spiece.model");
        fs::write(&path, "x").unwrap();
        assert!(
            load(&path)
                .unwrap_err()
                .to_string()
                .contains("SentencePiece")
        );
    }

    #[test]
    fn files_that_are_broken_say_where() {
        let with = |name: &str, content: &str| {
            let mut files = case("gpt2");
            files.insert(name.into(), content.into());
            refused(&files, Some("gpt2"))
        };
        assert_eq!(
            with("merges.txt", "#version: 0.2\nt h e\n"),
            "model/merges.txt: line 2 is not two tokens: \"t h e\""
        );
        assert_eq!(
            with("vocab.json", "{\"a\": \"b\"}"),
            "model/vocab.json: not a vocabulary: each token must have a number"
        );
        assert!(
            with("tokenizer_config.json", "[]")
                .starts_with("model/tokenizer_config.json: not a JSON object")
        );
        assert!(
            with("special_tokens_map.json", "{")
                .starts_with("model/special_tokens_map.json: not a JSON object")
        );
        assert_eq!(
            with("added_tokens.json", "{\"a\": -1}"),
            "model/added_tokens.json: an added token has no number"
        );
        assert_eq!(
            with("merges.txt", "q zz\n"),
            "model/vocab.json: not a tokenizer"
        );
        let text = HashMap::from([("vocab.txt".to_string(), "the\ncat\n".to_string())]);
        assert_eq!(
            refused(&text, None),
            "model/vocab.txt: the tokenizer has no [UNK] token"
        );
        let latin = |name: &str| (name == "vocab.txt").then(|| b"caf\xe9\n".to_vec());
        let error = from_files(&latin, "model", None).unwrap_err();
        assert_eq!(error.to_string(), "model/vocab.txt: not valid UTF-8");
    }

    #[test]
    fn line_ends_and_marks_of_windows_change_nothing() {
        let unix = case("bert uncased by default");
        let text = format!("\u{feff}{}", unix["vocab.txt"].replace('\n', "\r\n"));
        let windows = HashMap::from([("vocab.txt".to_string(), text)]);
        let json = |files| opened(files, None).unwrap().to_json().unwrap();
        assert_eq!(json(&windows), json(&unix));
    }

    #[test]
    fn a_padding_token_without_an_id_is_not_added() {
        let mut files = case("gpt2");
        files.insert(
            "special_tokens_map.json".into(),
            r#"{"pad_token": "[PAD]", "mask_token": "<m>"}"#.into(),
        );
        let tokenizer = opened(&files, None).unwrap();
        let size = opened(&case("gpt2"), None).unwrap().vocab_size();
        assert_eq!(tokenizer.vocab_size(), size + 1);
        assert_eq!(tokenizer.roles().pad, None);
        assert_eq!(tokenizer.roles().mask, Some(size as u32));
        assert_eq!(tokenizer.pad(), 0, "the end token");
    }
}
