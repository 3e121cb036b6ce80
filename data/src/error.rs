//! Why data could not be read: one variant a cause, each with the place and the value.

use std::path::{Path, PathBuf};

use crate::bad_rows::LeftOut;

/// A failure of any stage of the pipeline. Lines are 1-based.
#[derive(Debug, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "each variant's message says what its fields are"
)]
pub enum DataError {
    #[error("no data is named; give paths, or one of the bundled sets: {}", .bundled.join(", "))]
    NoData { bundled: &'static [&'static str] },
    #[error(
        "\"{name}\" is a bundled set and stands alone; write ./{name} if a file of that name is meant"
    )]
    BundledNotAlone { name: String },
    #[error("an IDX file and bundled images are read alone, {count} paths are given")]
    ManyImagePaths { count: usize },

    #[error("{path}: no such file")]
    NotFound { path: PathBuf },
    #[error("{path}: cannot be read")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: is empty")]
    Empty { path: PathBuf },
    #[error("{path}: holds no example")]
    NoExample { path: PathBuf },
    #[error(
        "{path}: holds a tagged word a line, which is data for finetune token-classification and not for this"
    )]
    TaggedWords { path: PathBuf },
    #[error("{path}: unknown extension; known are {known}")]
    UnknownExtension { path: PathBuf, known: &'static str },
    #[error("{path}: the folder holds no file with a known extension ({known}){}", also(.left_out))]
    NoKnownFile {
        path: PathBuf,
        known: &'static str,
        /// What it holds instead: `left out 2 files: .md 2`.
        left_out: String,
    },
    #[error("{path}: the pattern matches no file with a known extension ({known}){}", also(.left_out))]
    NoMatch {
        path: PathBuf,
        known: &'static str,
        left_out: String,
    },
    #[error(
        "{path}: .arrow files are not read; write Parquet instead of save_to_disk, for example with \
         dataset[\"train\"].to_parquet(\"train.parquet\")"
    )]
    Arrow { path: PathBuf },
    #[error("{path}: not a pattern of file names: {reason}")]
    BadPattern { path: PathBuf, reason: String },
    #[error("{path}: cannot be read as Parquet: {reason}")]
    Parquet { path: PathBuf, reason: String },
    #[error(
        "{path}:{line}: is longer than {limit} MiB; a line end is missing, or a quote that closes"
    )]
    TooLong {
        path: PathBuf,
        line: usize,
        limit: usize,
    },
    #[error("{path}:{line}: not valid UTF-8: byte 0x{byte:02X} at place {at}{}", likely(*.latin))]
    NotUtf8 {
        path: PathBuf,
        line: usize,
        byte: u8,
        at: usize,
        latin: Option<char>,
    },
    #[error(
        "{path}: {broken} of {rows} rows are not valid UTF-8, and none of the others has a letter beyond ASCII: \
         the file has another encoding (line {line}: byte 0x{byte:02X} at place {at}{}); convert it, for example with \
         iconv -f {} -t UTF-8{}",
        likely(*.latin),
        if .latin.is_some() { "WINDOWS-1252" } else { "ENCODING" },
        if .latin.is_some() { "" } else { ", with the name of its encoding" }
    )]
    OtherEncoding {
        path: PathBuf,
        broken: u64,
        rows: u64,
        line: usize,
        byte: u8,
        at: usize,
        latin: Option<char>,
    },
    #[error(
        "{path}: is {name}, which is not read; convert it, for example with iconv -f {name} -t UTF-8"
    )]
    Utf32 { path: PathBuf, name: &'static str },
    #[error(
        "{path}:{line}: a NUL byte, as in {}",
        match .likely {
            Some(name) => format!("{name}; if the file is that, convert it with iconv -f {name} -t UTF-8"),
            None => "no text; if the file is one all the same, tr -d '\\000' takes such bytes out".into(),
        }
    )]
    Nul {
        path: PathBuf,
        line: usize,
        likely: Option<&'static str>,
    },
    #[error("{path}: a text file of one example a line has no labels; use .csv, .tsv or .jsonl")]
    NoLabelsInLines { path: PathBuf },
    #[error(
        "{path}:{line}: column \"{column}\" is missing; the columns are {}{}",
        quoted(.columns),
        suggested(.column, .columns)
    )]
    ColumnMissing {
        path: PathBuf,
        line: usize,
        column: String,
        columns: Vec<String>,
    },
    #[error("{path}:{line}: has {found} fields, the header has {expected}")]
    FieldCount {
        path: PathBuf,
        line: usize,
        found: usize,
        expected: usize,
    },
    #[error("{path}:{line}: a quote opens and never closes")]
    OpenQuote { path: PathBuf, line: usize },
    #[error(
        "{path}:{line}: a quote opens here and closes in line {closes}, where text follows it; one of the two has no pair"
    )]
    StrayQuote {
        path: PathBuf,
        line: usize,
        closes: usize,
    },
    #[error("{path}:{line}: not valid JSON")]
    Json {
        path: PathBuf,
        line: usize,
        source: serde_json::Error,
    },
    #[error("{path}:{line}: is {found}, each {unit} must be a JSON object")]
    NotAnObject {
        path: PathBuf,
        line: usize,
        found: &'static str,
        unit: &'static str,
    },
    #[error("{path}:{line}: the JSON breaks off here: {reason}")]
    JsonBreaksOff {
        path: PathBuf,
        line: usize,
        reason: &'static str,
    },
    #[error(
        "{path}:{line}: key \"{key}\" is missing; the keys are {}{}",
        quoted(.keys),
        suggested(.key, .keys)
    )]
    KeyMissing {
        path: PathBuf,
        line: usize,
        key: String,
        keys: Vec<String>,
    },
    #[error("{path}:{line}: \"{key}\" is {found}, not a string")]
    NotAString {
        path: PathBuf,
        line: usize,
        key: String,
        found: &'static str,
    },
    #[error("{path}:{line}: \"{key}\" is {found}, and no label")]
    NotALabel {
        path: PathBuf,
        line: usize,
        key: String,
        found: &'static str,
    },
    #[error("{path}: column \"{column}\" holds {found}; {needed}")]
    ColumnType {
        path: PathBuf,
        column: String,
        found: String,
        needed: &'static str,
    },
    #[error("{path}:{line}: \"{column}\" is empty")]
    EmptyField {
        path: PathBuf,
        line: usize,
        column: String,
    },
    #[error(
        "{path}:{line}: \"{key}\" is a number with a fraction, {value}: that is a regression, not a class; \
         write it as text if it is the name of a class"
    )]
    FractionLabel {
        path: PathBuf,
        line: usize,
        key: String,
        value: String,
    },
    #[error(
        "{path}:{line}: \"{key}\" is a list of {count} labels; a text has one class, and several labels are not supported"
    )]
    SeveralLabels {
        path: PathBuf,
        line: usize,
        key: String,
        count: usize,
    },
    #[error("{path}:{line}: \"{key}\" is {id}, and the file names {count} classes, 0 to {}", .count - 1)]
    NoSuchClass {
        path: PathBuf,
        line: usize,
        key: String,
        id: i128,
        count: usize,
    },

    #[error("{}; mend this row, or set data.bad_rows = \"skip\" to leave it out", with_cause(.fault))]
    BadRow { fault: Box<DataError> },
    #[error(
        "{} rows can't be used: {}; mend them, or set data.bad_rows = \"skip\" to leave them out",
        .left_out.total(),
        by_reason(.left_out)
    )]
    BadRows { left_out: LeftOut },
    #[error("the chat template: {reason}")]
    ChatTemplate { reason: String },
    #[error("{path}:{line}: {reason}")]
    UnusableRow {
        path: PathBuf,
        line: usize,
        /// As a phrase that suits one row and many: `"tags" has 3 items for 4 tokens`.
        reason: String,
    },
    #[error("{origin}: none of its {} rows can be used: {}", .left_out.total(), by_reason(.left_out))]
    NoUsableRow { origin: String, left_out: LeftOut },

    #[error(
        "{origin}: {texts} texts leave {train} to train and {valid} to validate on{}; {}",
        beside(.left_out),
        more_rows(*.train, *.given)
    )]
    EmptySplit {
        origin: String,
        texts: u64,
        train: usize,
        valid: usize,
        /// Whether the rows to validate on are in another file.
        given: bool,
        left_out: LeftOut,
    },
    #[error("{origin}: changed while it was read; start again")]
    ChangedWhileRead { origin: String },
    #[error("{path}: the cache cannot be used")]
    Cache {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{origin}: more than {limit} MiB of tokens need a cache, and there is none: {reason}; set HEARTH_CACHE to a folder with room"
    )]
    CacheNeeded {
        origin: String,
        limit: usize,
        reason: String,
    },

    #[error("{origin}: {fault}")]
    Within {
        origin: String,
        fault: Box<DataError>,
    },
    #[error("{place}: has no label")]
    Unlabelled { place: String },
    #[error("the training data has no labels: classification needs at least two")]
    NoLabels,
    #[error("only one class (\"{label}\") in the training data: classification needs two")]
    OneClass { label: String },
    #[error(
        "{place}: label \"{label}\" is not among the {count} labels seen in training{}: {}",
        if .nearest.len() < *.count { "; the nearest are" } else { "" },
        .nearest.join(", ")
    )]
    UnseenLabel {
        place: String,
        label: String,
        count: usize,
        nearest: Vec<String>,
    },

    #[error("{path}: not an IDX image file (magic 0x{magic:08x}, expected 0x00000803)")]
    NotIdxImages { path: PathBuf, magic: u32 },
    #[error("{path}: not an IDX label file (magic 0x{magic:08x}, expected 0x00000801)")]
    NotIdxLabels { path: PathBuf, magic: u32 },
    #[error("{path}: truncated IDX: {promised} bytes of header are needed, {found} are there")]
    IdxHeader {
        path: PathBuf,
        promised: usize,
        found: usize,
    },
    #[error(
        "{path}: the IDX header promises {count} images of {height}x{width}, no size to work with"
    )]
    IdxShape {
        path: PathBuf,
        count: u32,
        height: u32,
        width: u32,
    },
    #[error(
        "{path}: truncated IDX: the header promises {promised} bytes of {what}, {found} follow"
    )]
    IdxTruncated {
        path: PathBuf,
        what: &'static str,
        promised: u64,
        found: u64,
    },
    #[error(
        "{path}: more bytes follow than the {promised} bytes of {what} the IDX header promises"
    )]
    IdxTrailing {
        path: PathBuf,
        what: &'static str,
        promised: u64,
    },
    #[error("{path}: holds {labels} labels for the {images} images of {image_path}")]
    LabelCount {
        path: PathBuf,
        labels: usize,
        images: usize,
        image_path: PathBuf,
    },
    #[error("{path}: several IDX image files and none is the obvious one: {}", .names.join(", "))]
    ManyIdx { path: PathBuf, names: Vec<String> },
    #[error("{path}: holds no image; known are {known}")]
    NoImage { path: PathBuf, known: &'static str },
    #[error(
        "{path}: holds folders and no image; images are looked for in one folder a class, so name the folder that holds these"
    )]
    NestedFolders { path: PathBuf },
    #[error("{path}: is a single image; name a folder of images, or an IDX file")]
    OneImage { path: PathBuf },
    #[error("{path}: an image beside class folders; put it into one of them")]
    ImageBesideClasses { path: PathBuf },
    #[error(
        "{path}: folders named for splits ({}) beside others ({}); put the classes into the splits, or rename a class that is named like one",
        .splits.join(", "),
        .others.join(", ")
    )]
    MixedSplits {
        path: PathBuf,
        splits: Vec<String>,
        others: Vec<String>,
    },
    #[error(
        "{path}: {first} and {second} are both named for the same split; join them or rename one"
    )]
    SplitTwice {
        path: PathBuf,
        first: String,
        second: String,
    },
    #[error("{origin}: holds splits and none to train on; a folder \"train\" is missing")]
    NoTrainSplit { origin: String },
    #[error(
        "{path}: holds splits, where a single set is asked for; name the folder of one of them"
    )]
    GivenSplits { path: PathBuf },
    #[error(
        "{path}: has no class, and {labelled} has one; all images need one or none may have one"
    )]
    MixedLabels { path: PathBuf, labelled: PathBuf },
    #[error(
        "{origin}: {} of {files} image files can't be read ({}){}",
        .left_out.total(),
        .left_out.by_reason(),
        if *.nothing_left { "" } else { "; data.bad_rows = \"skip\" leaves them out" }
    )]
    BadImages {
        origin: String,
        files: usize,
        left_out: LeftOut,
        nothing_left: bool,
        #[source]
        first: Box<DataError>,
    },
    #[error("{path}: has no column of images or their paths ({known}); the columns are {}", quoted(.columns))]
    NoImageColumn {
        path: PathBuf,
        known: String,
        columns: Vec<String>,
    },
    #[error("{path}:{line}: has no bytes of an image")]
    NoImageBytes { path: PathBuf, line: usize },
    #[error("{path}:{line}: \"{key}\" is {value}, and no number")]
    NotANumber {
        path: PathBuf,
        line: usize,
        key: String,
        value: String,
    },
    #[error(
        "{origin}: some images have one kind of target and some another; all need a class, classes, a number, a mask or boxes"
    )]
    MixedTargets { origin: String },
    #[error("{path}: cannot be read as tar")]
    Tar {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: the tar is cut off before the end of this file")]
    TarCutOff { path: PathBuf },
    #[error("{path}: {reason}")]
    Annotations { path: PathBuf, reason: String },
    #[error("{path}: has no mask; {mask} is missing")]
    NoMask { path: PathBuf, mask: PathBuf },
    #[error("{path}: cannot be read as a mask: {reason}")]
    Mask { path: PathBuf, reason: String },
    #[error("{path}: is not an image, though its name says so")]
    NotAnImage { path: PathBuf },
    #[error("{path}: is {format}, a format that is not read; known are {known}")]
    ImageFormat {
        path: PathBuf,
        format: &'static str,
        known: &'static str,
    },
    #[error("{path}: a kind of {format} that is not read; PNG of 8 bits is")]
    ImageKind {
        path: PathBuf,
        format: &'static str,
        source: ::image::ImageError,
    },
    #[error("{path}: has {mib} MiB; the file of an image may have {most}")]
    ImageFileTooLarge { path: PathBuf, mib: u64, most: u64 },
    #[error("{path}: the {format} is truncated, its end is missing")]
    ImageTruncated { path: PathBuf, format: &'static str },
    #[error("{path}: cannot decode the image")]
    Decode {
        path: PathBuf,
        source: ::image::ImageError,
    },
    #[error(
        "{path}: is {height}x{width}, the first image ({first}) is {first_height}x{first_width}; data.size resizes all to one size"
    )]
    ImageSize {
        path: PathBuf,
        height: usize,
        width: usize,
        first: PathBuf,
        first_height: usize,
        first_width: usize,
    },
    #[error(
        "images of {height}x{width} with {channels} channels; sides from 1 to 65535 and channels 1 or 3 are possible"
    )]
    ImageShape {
        channels: usize,
        height: usize,
        width: usize,
    },

    #[error("{place}: not a tokenizer")]
    BadTokenizer {
        place: String,
        source: tokenizers::Error,
    },
    #[error("{place}: the tokenizer has no {token} token")]
    SpecialMissing { place: String, token: String },
    #[error(
        "a vocabulary of {vocab_size} is too small: special tokens and characters take {needed}"
    )]
    VocabTooSmall { vocab_size: usize, needed: usize },
    #[error("the texts to train a tokenizer on hold no word")]
    NoWords,
    #[error("the tokenizer failed")]
    Tokenizer(#[source] tokenizers::Error),
    #[error("{place}: its post-processor cannot be applied: {reason}")]
    BadPostProcessor { place: String, reason: String },
    #[error("{place}: the tokenizer has no {role} token (such as {examples}), and this needs one")]
    RoleMissing {
        place: String,
        role: &'static str,
        examples: String,
    },
    #[error(
        "{place}: no tokenizer: it holds neither tokenizer.json nor vocab.txt, nor vocab.json with merges.txt"
    )]
    NoTokenizer { place: String },
    #[error("{path}: {reason}")]
    BadTokenizerFile { path: String, reason: String },
    #[error(
        "{path}: a vocabulary of a kind that is not read here ({kind}); make a tokenizer.json of it: python -c \"from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')\""
    )]
    VocabularyKind {
        path: String,
        folder: String,
        kind: String,
    },
}

/// What is wrong with one row of a file, when the rows after it can still be read.
pub(crate) struct RowFault<'a> {
    pub(crate) path: &'a Path,
    pub(crate) line: usize,
    /// As a phrase that suits one row and many.
    pub(crate) reason: String,
}

impl DataError {
    /// The faulty row, where a row is all that is wrong.
    pub(crate) fn row_fault(&self) -> Option<RowFault<'_>> {
        let (path, line, reason) = match self {
            Self::NotUtf8 {
                path, line, latin, ..
            } => {
                let likely = latin.map_or("", |_| ", perhaps Windows-1252");
                (path, line, format!("not valid UTF-8{likely}"))
            }
            Self::FieldCount {
                path,
                line,
                found,
                expected,
            } => {
                let more = if found > expected { "more" } else { "fewer" };
                (
                    path,
                    line,
                    format!("{more} fields than the header's {expected}"),
                )
            }
            Self::StrayQuote { path, line, .. } => {
                let reason = "a quote without its pair, which takes in the rows after it";
                (path, line, reason.into())
            }
            Self::Json { path, line, .. } => (path, line, "not valid JSON".into()),
            Self::NotAnObject {
                path, line, found, ..
            } => (path, line, format!("{found} and no JSON object")),
            Self::KeyMissing {
                path, line, key, ..
            } => (path, line, format!("key \"{key}\" is missing")),
            Self::NotAString {
                path,
                line,
                key,
                found,
            }
            | Self::NotALabel {
                path,
                line,
                key,
                found,
            } => (path, line, format!("\"{key}\" is {found}")),
            Self::EmptyField { path, line, column } => {
                (path, line, format!("\"{column}\" is empty"))
            }
            Self::UnusableRow { path, line, reason } => (path, line, reason.clone()),
            Self::NoImageBytes { path, line } => (path, line, "no bytes of an image".into()),
            Self::NotANumber {
                path, line, key, ..
            } => (path, line, format!("\"{key}\" is no number")),
            _ => return None,
        };
        let line = *line;
        Some(RowFault { path, line, reason })
    }
}

/// `; left out 2 files: .md 2`, or nothing.
fn also(left_out: &str) -> String {
    if left_out.is_empty() {
        return String::new();
    }
    format!("; {left_out}")
}

/// `"text", "stars"`
fn quoted(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    names.join(", ")
}

/// Columns that are perhaps meant: inside a group, a group's own, or another spelling.
fn suggested(wanted: &str, columns: &[String]) -> String {
    let folded = |name: &str| name.trim().to_lowercase();
    let meant = |name: &&String| {
        name.ends_with(&format!(".{wanted}"))
            || name.starts_with(&format!("{wanted}."))
            || folded(name) == folded(wanted)
    };
    let meant: Vec<String> = columns.iter().filter(meant).cloned().collect();
    if meant.is_empty() {
        return String::new();
    }
    format!("; perhaps {} is meant", quoted(&meant))
}

/// What a byte that is no UTF-8 would be in the most frequent other encoding of Latin letters.
fn likely(latin: Option<char>) -> String {
    match latin {
        Some(letter) => format!(", which is {letter:?} in Windows-1252"),
        None => ", as in files of another encoding".into(),
    }
}

fn with_cause(error: &DataError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn beside(left_out: &LeftOut) -> String {
    match left_out.total() {
        0 => String::new(),
        total => format!(", {total} are left out ({})", by_reason(left_out)),
    }
}

/// What gives an empty split a row.
fn more_rows(train: usize, given: bool) -> &'static str {
    match (train, given) {
        (0, _) => "lower data.valid and data.test, or add texts",
        (_, true) => "add texts to the file to validate on",
        (_, false) => "raise data.valid or add texts",
    }
}

/// `"text" is empty in 2 (a.csv:59, a.csv:122), not valid UTF-8 in 1 (a.csv:7)`
fn by_reason(left_out: &LeftOut) -> String {
    let phrase = |reason: &crate::bad_rows::Reason| {
        format!("{} in {} ({})", reason.name, reason.count, reason.listed())
    };
    let phrases: Vec<_> = left_out.reasons().iter().map(phrase).collect();
    phrases.join(", ")
}
