//! Rewrites a model. In: any directory that opens, an adapter among them. Out: a bundle with `model.safetensors`, or a file for
//! another library.

pub mod onnx;

mod extract;
mod factors;
mod files;
mod lost;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::TensorData;
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::{Args, ValueEnum};
use model::bundle::{self, Bundle, Load, TOKENIZER_FILES, peft};
use model::{HeadKind, Names, Precision, eight_bits, walk};
use serde_json::{Map, Value, json};
use train::backend::with_backend;
use train::{Failure, WithBackend};

use self::extract::Extraction;
use self::files::{BESIDE, MODULES, check_apart, check_output, folders_of_modules};
use self::lost::{Judge, Written, compared};
use crate::any_model::{AnyImageModel, AnyTextModel};
use crate::open::{self, BackendFlag};
use crate::task::Settings;

const EXAMPLES: &str = "\
Examples:
  apps convert --merge runs/lora/model/adapter merged
  apps convert --precision int8 wordnet-bert-nano wordnet-8-bits
  apps convert --precision int8 runs/text-classification small --evaluate test.csv
  apps convert wordnet-bert-nano wordnet.onnx
  apps convert --extract-lora wordnet-bert-nano runs/text-classification adapter --rank 8

8 bits are for the matrices of linear layers and for the table of tokens: whole numbers, and a scale for each output: a
quarter of f32, in the file and in memory.";

/// Rewrite a model: shards and pickles to one file, an adapter merged, weights in 16 or 8 bits, an ONNX file
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "apps convert [OPTIONS] MODEL OUTPUT\n       apps convert [OPTIONS] --extract-lora BASE TUNED OUTPUT",
    after_help = EXAMPLES
)]
pub struct Flags {
    /// What is rewritten, and the new bundle or file, which must not exist yet; the latter alone where --model names the former.
    /// With --extract-lora two models and the new adapter
    #[arg(value_name = "DIR", num_args = 1..=3, required = true)]
    pub places: Vec<String>,
    /// A bundle, a Hugging Face directory, an adapter, a run, or the bundled wordnet-bert-nano
    #[arg(long, value_name = "DIR")]
    pub model: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub backend: BackendFlag,
    /// The model is an adapter, which becomes part of the weights
    #[arg(long)]
    pub merge: bool,
    /// Write the low-rank adapter that is nearest to the difference of two models
    #[arg(long, conflicts_with_all = ["merge", "model", "torchvision", "onnx", "evaluate", "precision"])]
    pub extract_lora: bool,
    /// Rank of the adapter that is extracted, at most
    #[arg(
        long,
        value_name = "N",
        default_value = "16",
        requires = "extract_lora"
    )]
    pub rank: NonZeroUsize,
    /// Element type of the weights
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Bits,
    /// Write one file with the names and shapes of torchvision's weights in place of a bundle
    #[arg(long)]
    pub torchvision: bool,
    /// Write one ONNX file, of a model without a cache, in place of a bundle; so does an OUTPUT that ends with .onnx
    #[arg(long, conflicts_with = "torchvision")]
    pub onnx: bool,
    /// Labelled rows, as finetune's data.source names them, to judge the model on before and after; may be repeated
    #[arg(long, value_name = "FILE")]
    pub evaluate: Vec<String>,
    /// Says what a file of weights is of (model.family=resnet50), or how labelled rows are read (data.text=review)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Replace the directory or file if it exists
    #[arg(long)]
    pub force: bool,
}

/// Element type of written weights.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Bits {
    /// 32 bit.
    F32,
    /// 16 bit.
    F16,
    /// 16 bit with the range of 32 bit.
    Bf16,
    /// Matrices in 8 bit with a scale for each output, all else in 32 bit.
    Int8,
}

impl Bits {
    fn precision(self) -> Precision {
        match self {
            Self::F32 | Self::Int8 => Precision::F32,
            Self::F16 => Precision::F16,
            Self::Bf16 => Precision::Bf16,
        }
    }

    /// As PyTorch calls the type of floats.
    fn name(self) -> &'static str {
        match self {
            Self::F32 | Self::Int8 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}

impl Flags {
    /// The model, and the directory that is written.
    fn input_and_output(&self) -> Result<(&str, PathBuf), Failure> {
        let (model, output) = match (&self.model, self.places.as_slice()) {
            (Some(model), [output]) | (None, [model, output]) => (model, output),
            (Some(model), _) => {
                return Err(Failure::input(format!(
                    "--model names {model}, so one directory more is expected: the new bundle"
                )));
            }
            (None, _) => {
                return Err(Failure::input(
                    "two directories are expected: the model, and the new bundle",
                ));
            }
        };
        Ok((model, output.into()))
    }

    /// What is written there.
    fn format(&self, output: &Path) -> Format {
        if self.torchvision {
            Format::Torchvision
        } else if self.onnx || ends_with_onnx(output) {
            Format::Onnx
        } else {
            Format::Bundle
        }
    }
}

/// Whether a name says that it is an ONNX file's.
fn ends_with_onnx(output: &Path) -> bool {
    let end = output.extension();
    end.is_some_and(|end| end.eq_ignore_ascii_case("onnx"))
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A directory.
    Bundle,
    /// A file of weights.
    Torchvision,
    /// A file of weights and what is computed with them.
    Onnx,
}

impl Format {
    /// The flag that asks for it, where it is no bundle.
    fn flag(self) -> Option<&'static str> {
        match self {
            Self::Bundle => None,
            Self::Torchvision => Some("--torchvision"),
            Self::Onnx => Some("--onnx"),
        }
    }
}

/// Rewrites what the flags name, and gives what is printed.
///
/// # Errors
///
/// A model that cannot be used, a directory that exists or cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    if flags.extract_lora {
        return extract(flags);
    }
    let (model, output) = flags.input_and_output()?;
    let backend = flags.backend.choose()?;
    let (rows, of_file): (Vec<_>, Vec<_>) = flags
        .set
        .iter()
        .cloned()
        .partition(|set| !flags.evaluate.is_empty() && Settings::is_own(set));
    let from = open::bundle_or_file(model, &of_file)?;
    let format = flags.format(&output);
    match format {
        Format::Torchvision | Format::Onnx => {
            open::check_output(&output, &[from.path()])?;
            if output.exists() && !flags.force {
                let output = output.display();
                let reason = format!("{output}: exists; --force replaces it");
                return Err(Failure::input(reason));
            }
        }
        Format::Bundle => {
            check_output(&output, flags.force)?;
            check_apart(&output, from.path())?;
        }
    }
    if format == Format::Onnx {
        onnx::check(&from)?;
    }
    if flags.merge && !from.has_adapter() {
        let inside = from.path().join(peft::FOLDER);
        let hint = if inside.is_dir() {
            format!("; {} is one", inside.display())
        } else {
            String::new()
        };
        return Err(Failure::input(format!(
            "{model}: is no adapter, so there is nothing to merge{hint}"
        )));
    }
    if let Some(beside) = from.beside() {
        return Err(Failure::input(format!(
            "{model}: holds {}, which cannot be merged into a model's weights",
            beside.describe()
        )));
    }
    if let Some(flag) = format.flag() {
        if matches!(flags.precision, Bits::Int8) {
            let reason = format!("{flag} writes floats; --precision int8 is for bundles");
            return Err(Failure::input(reason));
        }
        if !flags.evaluate.is_empty() {
            let reason = format!("--evaluate judges the new bundle, and {flag} writes none");
            return Err(Failure::input(reason));
        }
    }
    let mut judged = None;
    if !flags.evaluate.is_empty() {
        let judge = Judge::new(backend, &flags.evaluate, &rows, &from)?;
        let before = judge.figures(&from)?;
        judged = Some((judge, before));
    }
    let mut text = format!("wrote {}\n", output.display());
    let work = Work {
        from,
        output: output.clone(),
        precision: flags.precision,
        format,
    };
    let written = with_backend(backend, work)??;
    if let (Bits::Int8, Some(written)) = (flags.precision, written) {
        text += &written.text();
    }
    if let Some((judge, before)) = judged {
        let after = judge.figures(&Bundle::open(&output)?)?;
        text += &compared(&before, &after);
    }
    Ok(text)
}

/// Extracts what the flags name, and gives what is printed.
fn extract(flags: &Flags) -> Result<String, Failure> {
    let [base, tuned, output] = flags.places.as_slice() else {
        let reason =
            "three directories are expected: the base model, the tuned one, and the new adapter";
        return Err(Failure::input(reason));
    };
    let extraction = Extraction {
        base: open::bundle_or_file(base, &flags.set)?,
        tuned: open::bundle_or_file(tuned, &flags.set)?,
        output: output.into(),
        rank: flags.rank.get(),
    };
    extraction.run(flags.backend.choose()?, flags.force)
}

/// Prepared work, waiting for its backend.
struct Work {
    from: Bundle,
    output: PathBuf,
    precision: Bits,
    format: Format,
}

impl WithBackend for Work {
    type Output = Result<Option<Written>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        self.rewrite::<B::InnerBackend>(&device)
    }
}

impl Work {
    /// Draws a model of the right kind, to be filled and written.
    fn rewrite<B: Backend>(&self, device: &B::Device) -> Result<Option<Written>, Failure> {
        let names = open::names(&self.from);
        if self.from.is_text() {
            let drawn = AnyTextModel::<B>::draw(&self.from, names, device)?;
            return self.write(drawn, names);
        }
        let drawn = AnyImageModel::<B>::draw(&self.from, names, device)?;
        self.write(drawn, names)
    }

    /// Fills a drawn model with the weights, and writes it; says what was written, of a bundle.
    fn write<B: Backend, M: Module<B>>(
        &self,
        drawn: M,
        names: Names,
    ) -> Result<Option<Written>, Failure> {
        let (model, loaded) = self.from.load(drawn, names, Load::Whole)?;
        let place = self.from.path().display();
        let wrong = |reason| Failure::input(format!("{place}: {reason}"));
        let precision = self.precision.precision();
        if self.format == Format::Onnx {
            let unused = loaded.unused.iter();
            let lost = unused.filter(|name| !is_optional(name, names));
            warn_of_unused(&lost.cloned().collect::<Vec<_>>());
            check_range(&model, names, &[], precision).map_err(wrong)?;
            let bytes = onnx::export(&self.from, &model, names, precision)?;
            open::write_output(&self.output, &bytes)?;
            return Ok(None);
        }
        if self.format == Format::Torchvision {
            warn_of_unused(&loaded.unused);
            check_range(&model, names, &[], precision).map_err(wrong)?;
            let bytes = bundle::serialise_for_torchvision(&model, names, precision);
            open::write_output(&self.output, &bytes.map_err(wrong)?)?;
            return Ok(None);
        }
        let (kept, unused): (Vec<_>, Vec<_>) = loaded
            .unused
            .into_iter()
            .partition(|name| is_optional(name, names));
        warn_of_unused(&unused);
        let further = kept.iter().map(|name| {
            let own = name.strip_prefix(names.family.prefix).unwrap_or(name);
            Ok((own.to_string(), self.from.weights()?.data(name)?))
        });
        let further = further.collect::<Result<Vec<_>, Failure>>()?;
        check_range(&model, names, &further, precision).map_err(wrong)?;
        let (weights, rounded) = match self.precision {
            Bits::Int8 => bundle::serialise_in_8_bits(&model, names, further).map_err(wrong)?,
            Bits::F32 | Bits::F16 | Bits::Bf16 => {
                let weights = bundle::serialise_with(&model, names, precision, further);
                (weights.map_err(wrong)?, Vec::new())
            }
        };
        // An output may be written over its input, whose bytes are mapped.
        let before = self.from.bytes_of_weights()?;
        let written = Written {
            before: before.iter().map(|bytes| bytes.len()).sum(),
            after: weights.len(),
            rounded,
        };
        let config = format!("{:#}\n", self.config(names)?);
        let mut files = self.files()?;
        files.push((bundle::CONFIG.into(), config.into_bytes()));
        files.push((bundle::WEIGHTS.into(), weights));
        let files = files
            .iter()
            .map(|(name, bytes)| (name.as_str(), &bytes[..]));
        bundle::write_directory(&self.output, &files.collect::<Vec<_>>())?;
        Ok(Some(written))
    }

    /// `config.json` of the new bundle.
    fn config(&self, names: Names) -> Result<Value, Failure> {
        let mut config = self.from.raw_config().clone();
        name_precision(&mut config, self.precision);
        if let Some(config) = config.as_object_mut() {
            config.insert("architectures".into(), Value::from(vec![names.head.class]));
            if names.head.kind.class_layer().is_some() {
                name_classes(config, &self.from.classes()?);
            }
        }
        Ok(config)
    }

    /// Names and contents of what goes with the model.
    fn files(&self) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let own = TOKENIZER_FILES.iter().chain(&BESIDE);
        let mut names: Vec<String> = own.map(|name| name.to_string()).collect();
        let modules = self.from.read_optional(MODULES)?.unwrap_or_default();
        for folder in folders_of_modules(&modules) {
            let parts = [bundle::CONFIG, bundle::WEIGHTS, "pytorch_model.bin"];
            names.extend(parts.map(|part| format!("{folder}/{part}")));
        }
        let mut files = Vec::new();
        for name in names {
            let bytes = self.from.read_optional(&name)?;
            files.extend(bytes.map(|bytes| (name, bytes)));
        }
        Ok(files)
    }
}

/// Whether a tensor is of a part that a bare backbone may have or lack, which no head here reads: it stays.
fn is_optional(name: &str, names: Names) -> bool {
    let own = name.strip_prefix(names.family.prefix).unwrap_or(name);
    let mut parts = names.family.optional.iter();
    names.head.kind == HeadKind::Bare && parts.any(|part| own.starts_with(part))
}

/// `transformers` takes the number of classes from their names; without names there are two.
fn name_classes(config: &mut Map<String, Value>, classes: &[String]) {
    let ids: BTreeMap<_, _> = classes.iter().enumerate().collect();
    let names: BTreeMap<_, _> = classes.iter().zip(0..).collect();
    config.remove("num_labels");
    config.insert("id2label".into(), json!(ids));
    config.insert("label2id".into(), json!(names));
}

/// `transformers` loads weights as the type that the configuration names, and those of 8 bits not at all.
fn name_precision(config: &mut Value, precision: Bits) {
    let of_8_bits = eight_bits::is_named(config);
    let Some(config) = config.as_object_mut() else {
        return;
    };
    if matches!(precision, Bits::Int8) {
        config.insert(eight_bits::KEY.into(), eight_bits::settings());
    } else if of_8_bits {
        config.remove(eight_bits::KEY);
    }
    let key = if config.contains_key("torch_dtype") {
        "torch_dtype"
    } else {
        "dtype"
    };
    config.insert(key.into(), precision.name().into());
}

/// Another head, or parts that no family here has: they are not in the new bundle.
fn warn_of_unused(unused: &[String]) {
    let Some(first) = unused.first() else {
        return;
    };
    let more = match unused.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    eprintln!("warning: left out {first}{more}, which this model has no place for");
}

/// Refuses values that would become infinite.
///
/// - further: tensors that are written beside the model's
fn check_range<B: Backend, M: Module<B>>(
    model: &M,
    names: Names,
    further: &[(String, TensorData)],
    precision: Precision,
) -> Result<(), String> {
    if precision == Precision::F32 {
        return Ok(());
    }
    let mut beyond = None;
    let mut look = |name: &dyn Fn() -> String, data: &TensorData| {
        let mut values = data.iter::<f32>();
        if let Some(value) = values.find(|value| value.abs() >= precision.limit()) {
            beyond.get_or_insert_with(|| (name(), value));
        }
    };
    walk::values(model, names, &mut |path, data| look(&|| path.name(), &data));
    for (name, data) in further {
        look(&|| name.clone(), data);
    }
    match beyond {
        Some((name, value)) => Err(format!(
            "{name} holds {value}, which is beyond what 16 bits can hold; --precision f32 keeps it"
        )),
        None => Ok(()),
    }
}
