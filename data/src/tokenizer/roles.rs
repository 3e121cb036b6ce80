//! Which special token has which job. In: a tokenizer and the names in its files. Out: ids by role, and what stands
//! before and after a text and stays there where it is cut.

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer, TruncationDirection};

use crate::DataError;

/// The job of a special token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Fills rows up to one length; always masked.
    Pad,
    /// What the vocabulary cannot spell.
    Unknown,
    /// In front of a text: `[CLS]`, `<s>`.
    Begin,
    /// Behind a text: `[SEP]`, `</s>`, `<|endoftext|>`.
    End,
    /// Hides a token that is to be predicted.
    Mask,
}

impl Role {
    /// In the order of their ids in a vocabulary trained here.
    pub(crate) const ALL: [Self; 5] =
        [Self::Pad, Self::Unknown, Self::Begin, Self::End, Self::Mask];

    /// How well-known vocabularies spell it, where no file names it.
    fn spellings(self) -> &'static [&'static str] {
        match self {
            Self::Pad => &["[PAD]", "<pad>", "<|pad|>", "<|padding|>"],
            Self::Unknown => &["[UNK]", "<unk>"],
            Self::Begin => &[
                "[CLS]",
                "<s>",
                "<bos>",
                "<|begin_of_text|>",
                "<|endoftext|>",
            ],
            Self::End => &["[SEP]", "</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"],
            Self::Mask => &["[MASK]", "<mask>"],
        }
    }

    /// Keys of `tokenizer_config.json` and `special_tokens_map.json`, the first one first.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Pad => &["pad_token"],
            Self::Unknown => &["unk_token"],
            Self::Begin => &["cls_token", "bos_token"],
            Self::End => &["sep_token", "eos_token"],
            Self::Mask => &["mask_token"],
        }
    }

    /// For messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pad => "padding",
            Self::Unknown => "unknown",
            Self::Begin => "begin",
            Self::End => "end",
            Self::Mask => "mask",
        }
    }

    /// For messages: `[MASK] or <mask>`.
    pub(crate) fn examples(self) -> String {
        self.spellings().join(" or ")
    }
}

/// Ids of the tokens that have a job; a tokenizer may lack any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Fills rows up to one length.
    pub pad: Option<u32>,
    /// What the vocabulary cannot spell.
    pub unknown: Option<u32>,
    /// In front of a text.
    pub begin: Option<u32>,
    /// Behind a text.
    pub end: Option<u32>,
    /// Hides a token that is to be predicted.
    pub mask: Option<u32>,
}

impl Roles {
    /// The id that has this job.
    pub fn id(&self, role: Role) -> Option<u32> {
        match role {
            Role::Pad => self.pad,
            Role::Unknown => self.unknown,
            Role::Begin => self.begin,
            Role::End => self.end,
            Role::Mask => self.mask,
        }
    }

    /// The frame's own tokens first, then those the files name, then well-known spellings.
    pub(crate) fn of(tokenizer: &Tokenizer, names: &Names, frame: &Frame) -> Self {
        let find = |role: Role| {
            let named = role.keys().iter().filter_map(|key| names.get(key));
            let mut named = named.filter_map(|token| tokenizer.token_to_id(&token.content));
            let well_known = role.spellings().iter();
            let mut well_known = well_known.filter_map(|token| tokenizer.token_to_id(token));
            named.next().or_else(|| well_known.next())
        };
        Self {
            pad: find(Role::Pad),
            unknown: find(Role::Unknown),
            begin: frame.before.first().copied().or(find(Role::Begin)),
            end: frame.after.last().copied().or(find(Role::End)),
            mask: find(Role::Mask),
        }
    }
}

/// Special tokens by the keys of transformers' files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Vec<(&'static str, AddedToken)>);

impl Names {
    /// In the order in which transformers adds them to a vocabulary.
    pub(crate) const KEYS: [&'static str; 7] = [
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
    ];

    pub(crate) fn get(&self, key: &str) -> Option<&AddedToken> {
        let mut named = self.0.iter();
        named.find(|(name, _)| *name == key).map(|(_, token)| token)
    }

    pub(crate) fn set(&mut self, key: &'static str, token: AddedToken) {
        self.0.retain(|(name, _)| *name != key);
        self.0.push((key, token));
    }
}

/// What a tokenizer puts before and after each text, and on which side it cuts a longer one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub(crate) before: Vec<u32>,
    pub(crate) after: Vec<u32>,
    pub(crate) side: TruncationDirection,
}

impl Frame {
    /// Read from the words of the file: a template that is not sound panics when it is tried.
    ///
    /// # Errors
    /// A template without a place for the text, or with a token that is not explained or not there.
    pub(crate) fn of(tokenizer: &Tokenizer, place: &str) -> Result<Self, DataError> {
        let mut frame = Self::default();
        if let Some(processor) = tokenizer.get_post_processor() {
            let processor = serde_json::to_value(processor);
            let processor = processor.map_err(|error| DataError::Tokenizer(error.into()))?;
            let wrapped = frame.wrap(&processor);
            wrapped
                .and_then(|()| frame.check(tokenizer))
                .map_err(|reason| {
                    let place = place.into();
                    DataError::BadPostProcessor { place, reason }
                })?;
        }
        Ok(frame)
    }

    /// Ids that no token has would only fail in the model.
    fn check(&self, tokenizer: &Tokenizer) -> Result<(), String> {
        let mut ids = self.before.iter().chain(&self.after);
        match ids.find(|&&id| tokenizer.id_to_token(id).is_none()) {
            Some(id) => Err(format!("no token has the id {id}")),
            None => Ok(()),
        }
    }

    /// Puts around the frame what this post-processor adds.
    fn wrap(&mut self, processor: &Value) -> Result<(), String> {
        let id = |key: &str| {
            let id = processor[key][1].as_u64();
            id.map(|id| id as u32).ok_or(format!("\"{key}\" has no id"))
        };
        match processor["type"].as_str() {
            Some("BertProcessing" | "RobertaProcessing") => {
                self.before.insert(0, id("cls")?);
                self.after.push(id("sep")?);
            }
            Some("TemplateProcessing") => self.wrap_in_template(processor)?,
            Some("Sequence") => {
                let all = processor["processors"].as_array();
                for inner in all.into_iter().flatten() {
                    self.wrap(inner)?;
                }
            }
            // Changes offsets alone.
            _ => {}
        }
        Ok(())
    }

    fn wrap_in_template(&mut self, processor: &Value) -> Result<(), String> {
        let (mut before, mut after, mut texts) = (Vec::new(), Vec::new(), 0);
        for piece in processor["single"].as_array().into_iter().flatten() {
            let Some(token) = piece["SpecialToken"]["id"].as_str() else {
                texts += 1;
                continue;
            };
            let ids = processor["special_tokens"][token]["ids"].as_array();
            let ids = ids.ok_or(format!("the ids of {token} are missing"))?;
            let ids = ids.iter().filter_map(|id| Some(id.as_u64()? as u32));
            if texts == 0 {
                before.extend(ids);
            } else {
                after.extend(ids);
            }
        }
        if texts != 1 {
            return Err(format!("it has {texts} places for a text instead of one"));
        }
        self.before.splice(0..0, before);
        self.after.extend(after);
        Ok(())
    }

    /// The number of tokens around a text.
    pub(crate) fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// Whether a text that is cut keeps its last tokens, not its first.
    pub fn cuts_left(&self) -> bool {
        self.side == TruncationDirection::Left
    }

    /// What stands before a framed text, the text, and what stands behind it.
    pub fn parts<'a>(&self, row: &'a [u32]) -> [&'a [u32]; 3] {
        let before = if row.starts_with(&self.before) {
            self.before.len()
        } else {
            0
        };
        let (before, rest) = row.split_at(before);
        let after = if rest.ends_with(&self.after) {
            self.after.len()
        } else {
            0
        };
        let (text, after) = rest.split_at(rest.len() - after);
        [before, text, after]
    }

    /// Shortens a framed row to `max_len` tokens; what opens and what closes it stays as far as there is room.
    pub fn cut(&self, row: &mut Vec<u32>, max_len: usize) {
        if row.len() <= max_len {
            return;
        }
        let before = &self.before[..self.before.len().min(max_len)];
        let room = max_len - before.len();
        let after = &self.after[..self.after.len().min(room)];
        if self.cuts_left() {
            let text = room - after.len();
            row.truncate(row.len().saturating_sub(self.after.len()));
            row.splice(..row.len() - text, before.iter().copied());
            row.extend_from_slice(after);
            // The room of the whole text.
            row.shrink_to_fit();
        } else {
            row.truncate(max_len - after.len());
            row.extend_from_slice(after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn frame(processor: Value) -> Result<Frame, String> {
        let mut frame = Frame::default();
        frame.wrap(&processor)?;
        Ok(frame)
    }

    fn special(id: &str) -> Value {
        json!({"SpecialToken": {"id": id, "type_id": 0}})
    }

    #[test]
    fn frames_of_every_post_processor() {
        let of = |before: &[u32], after: &[u32]| {
            Ok(Frame {
                before: before.to_vec(),
                after: after.to_vec(),
                ..Frame::default()
            })
        };
        let bert = json!({"type": "BertProcessing", "cls": ["[CLS]", 7], "sep": ["[SEP]", 8]});
        assert_eq!(frame(bert), of(&[7], &[8]));
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let tokens = json!({"<s>": {"id": "<s>", "ids": [1, 2], "tokens": ["<", "s>"]}});
        let begins = json!({"type": "TemplateProcessing", "single": [special("<s>"), text], "special_tokens": tokens});
        assert_eq!(frame(begins.clone()), of(&[1, 2], &[]));
        let bytes = json!({"type": "ByteLevel"});
        assert_eq!(frame(bytes.clone()), of(&[], &[]));
        let roberta = json!({"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 5]});
        let sequence = json!({"type": "Sequence", "processors": [bytes, begins, roberta]});
        assert_eq!(frame(sequence), of(&[0, 1, 2], &[5]));
    }

    #[test]
    fn templates_that_would_panic_are_refused() {
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let template = |single: Value| json!({"type": "TemplateProcessing", "single": single, "special_tokens": {}});
        let error = frame(template(json!([special("[X]"), text]))).unwrap_err();
        assert_eq!(error, "the ids of [X] are missing");
        let error = frame(template(json!([]))).unwrap_err();
        assert_eq!(error, "it has 0 places for a text instead of one");
        let error = frame(template(json!([text, text]))).unwrap_err();
        assert_eq!(error, "it has 2 places for a text instead of one");
    }

    #[test]
    fn cut_rows_keep_their_frame() {
        let cut_on = |side, max_len| {
            let frame = Frame {
                before: vec![1],
                after: vec![8, 9],
                side,
            };
            let mut row = vec![1, 20, 21, 22, 8, 9];
            frame.cut(&mut row, max_len);
            row
        };
        let cut = |max_len| cut_on(TruncationDirection::Right, max_len);
        assert_eq!(cut(6), [1, 20, 21, 22, 8, 9]);
        assert_eq!(cut(5), [1, 20, 21, 8, 9]);
        assert_eq!(cut(3), [1, 8, 9]);
        assert_eq!(cut(2), [1, 8]);
        assert_eq!(cut(1), [1]);
        assert!(cut(0).is_empty());
        let cut = |max_len| cut_on(TruncationDirection::Left, max_len);
        assert_eq!(cut(6), [1, 20, 21, 22, 8, 9]);
        assert_eq!(cut(5), [1, 21, 22, 8, 9]);
        assert_eq!(cut(4), [1, 22, 8, 9]);
        assert_eq!(cut(3), [1, 8, 9]);
        assert_eq!(cut(2), [1, 8]);
        assert_eq!(cut(1), [1]);
        assert!(cut(0).is_empty());
    }
}
