//! `card`: a model card in the form of the Hugging Face Hub. In: a bundle, and the run that left it, if there is one. Out:
//! Markdown with YAML in front.
//!
//! It holds what bundle and run say, and names what neither says. Reading order: this file, `front_matter`, `usage`,
//! `markdown`.

mod front_matter;
mod markdown;
mod usage;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::tensor::DType;
use clap::Args;
use data::bundled::BundledSet;
use model::Bundle;
use serde_json::Value;
use train::{Failure, FailureKind};

use crate::open;
use crate::record::{self, NOT_RECORDED, Record, grouped};
use crate::report::classes::by_class;
use crate::report::html::Table;
use crate::report::overview::table_of_figures;
use front_matter::{Declared, front_matter};
use markdown::{code, escape, table};

/// Classes whose figures are listed.
const CLASSES: usize = 50;

/// Write a model card: what a bundle and its run say, in the form of the Hugging Face Hub
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:
  apps card runs/text-classification --output runs/text-classification/model/README.md")]
pub struct Flags {
    /// A bundle, a Hugging Face directory, an adapter, a run, or the bundled wordnet-bert-nano
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// The run that left it [default: MODEL, or the run that it is the model of]
    #[arg(long, value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// Where the card goes [default: it is printed]
    #[arg(long, value_name = "FILE.md")]
    pub output: Option<PathBuf>,
    /// Replace a card that exists
    #[arg(long)]
    pub force: bool,
}

/// What a card is about.
struct Subject {
    name: String,
    bundle: Bundle,
    record: Option<Record>,
    declared: Declared,
    /// What commands name.
    place: String,
}

/// Writes the card, and gives what is printed: the card itself without `--output`.
///
/// # Errors
///
/// A model or a run that cannot be read, a run of another model, or a card that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let subject = Subject::open(flags)?;
    let Some(output) = &flags.output else {
        return subject.card();
    };
    check_output(output, flags.force)?;
    open::write_output(output, subject.card()?.as_bytes())?;
    Ok(format!("wrote {}\n", output.display()))
}

/// A card may have been completed by hand.
fn check_output(output: &Path, force: bool) -> Result<(), Failure> {
    let wrong = |reason: &str| Err(Failure::input(format!("{}: {reason}", output.display())));
    if !output
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("md"))
    {
        return wrong("a card is Markdown; name it so (.md)");
    }
    open::check_output(output, &[])?;
    if output.exists() && !force {
        return wrong("exists; --force replaces it");
    }
    Ok(())
}

impl Subject {
    fn open(flags: &Flags) -> Result<Self, Failure> {
        let bundle = open::bundle(&flags.model)?;
        let is_bundled = model::bundled::open(&flags.model).is_some();
        let folder = Path::new(&flags.model);
        let record = match &flags.run {
            Some(run) => {
                let record = Record::of_model(run)?;
                check_same(&bundle, &record, &flags.model)?;
                Some(record)
            }
            None if is_bundled => None,
            None => {
                let run = run_of(folder);
                run.map(|run| Record::of_model(&run)).transpose()?
            }
        };
        let declared = if is_bundled || bundle.has_adapter() {
            // The card beside the base of an adapter is about the base.
            Declared::default()
        } else {
            let card = bundle.read_optional("README.md")?.unwrap_or_default();
            Declared::of(&String::from_utf8_lossy(&card))
        };
        let run = record.as_ref().map(|record| record.path.as_path());
        let named = run.unwrap_or(folder).file_name();
        let name = named.map_or("model".into(), |name| name.to_string_lossy().into_owned());
        Ok(Self {
            name: if is_bundled {
                flags.model.clone()
            } else {
                name
            },
            place: if is_bundled {
                flags.model.clone()
            } else {
                usage::FOLDER.into()
            },
            bundle,
            record,
            declared,
        })
    }

    fn card(&self) -> Result<String, Failure> {
        let sections = [
            ("Model", self.model()?),
            ("Training data", self.data()),
            ("Training", self.training()?),
            ("Figures", self.figures()),
            ("Limits", self.limits()),
            ("Use", self.usage()),
            ("Not recorded", self.gaps()),
        ];
        let sections = sections.map(|(title, body)| format!("\n## {title}\n\n{body}"));
        let name = escape(&self.name);
        let front = front_matter(self);
        let about = self.about();
        Ok(format!(
            "{front}\n# {name}\n\n{about}\n{}",
            sections.concat()
        ))
    }

    fn task(&self) -> Option<&str> {
        self.record.as_ref().and_then(Record::task)
    }

    fn about(&self) -> String {
        let what = escape(&record::describe(&self.bundle));
        let how = match self.task() {
            Some(task) => format!(", trained with Hearth's recipe {}", escape(task)),
            None => String::new(),
        };
        format!("{what}{how}.\n")
    }

    fn model(&self) -> Result<String, Failure> {
        let bundle = &self.bundle;
        let floats = bundle
            .weights()?
            .iter()
            .filter(|tensor| tensor.dtype.is_float() || tensor.dtype == DType::I8);
        let floats: Vec<_> = floats.collect();
        let values: usize = floats
            .iter()
            .map(|tensor| tensor.shape.iter().product::<usize>())
            .sum();
        let types: BTreeSet<String> = floats
            .iter()
            .map(|tensor| format!("{:?}", tensor.dtype))
            .collect();
        let types: Vec<String> = types.into_iter().collect();
        let bytes: usize = bundle
            .bytes_of_weights()?
            .iter()
            .map(|bytes| bytes.len())
            .sum();
        let mut facts = vec![
            ("class", bundle.class().unwrap_or(NOT_RECORDED).to_string()),
            ("family", bundle.family().model_type.into()),
            ("kind", bundle.head().describe().into()),
            ("values in the file of weights", grouped(values as f64)),
            ("element type", types.join(", ")),
            (
                "weights",
                format!("{} KiB", grouped(bytes.div_ceil(1 << 10) as f64)),
            ),
            ("input", self.input()),
        ];
        if let Some(adapter) = bundle.beside() {
            facts.push(("beside the weights", adapter.describe().into()));
        }
        if let Some(classes) = record::classes(bundle) {
            facts.push(("classes", record::named(&classes)));
        }
        Ok(table(&Table::of_facts("Model", facts)))
    }

    /// What the model reads.
    fn input(&self) -> String {
        let bundle = &self.bundle;
        if !bundle.is_text() {
            let Ok(model) = open::image_model(bundle) else {
                return NOT_RECORDED.into();
            };
            let [channels, height, width] = model.input.shape;
            return format!("images of {height}x{width} pixels and {channels} channels");
        }
        let length = if bundle.family().is_of_two_texts() {
            open::seq2seq_parts(bundle).map(|parts| parts.max_length)
        } else {
            open::text_parts(bundle).map(|parts| parts.max_length)
        };
        match length {
            Ok(length) => format!("texts of at most {length} tokens; longer ones are cut"),
            Err(_) => NOT_RECORDED.into(),
        }
    }

    fn data(&self) -> String {
        let Some(record) = &self.record else {
            return format!("{NOT_RECORDED}: no run is known that left this model.\n");
        };
        let mut text = format!("{}\n", escape(&record.data()));
        let sets = record
            .texts("data.source")
            .into_iter()
            .filter_map(BundledSet::named);
        for BundledSet {
            name,
            rows,
            licence,
            about,
            ..
        } in sets
        {
            let (about, licence) = (escape(about), escape(licence));
            text += &format!(
                "\n- {}, which Hearth holds: {about}; {} rows in all; licence: {licence}",
                escape(name),
                grouped(*rows as f64)
            );
        }
        text.trim_end().to_string() + "\n"
    }

    fn training(&self) -> Result<String, Failure> {
        let Some(record) = &self.record else {
            return Ok(format!(
                "{NOT_RECORDED}: no run is known that left this model.\n"
            ));
        };
        let told = ["model", "data", "classes"];
        let facts = record
            .facts()
            .into_iter()
            .filter(|(name, _)| !told.contains(name));
        let facts = table(&Table::of_facts("Training", facts));
        let path = record.path.join("recipe.toml");
        let recipe = fs::read_to_string(&path).with_context(|| path.display().to_string());
        let recipe = code("toml", &recipe.input()?);
        let ending = escape(&record.ending());
        Ok(format!(
            "How it ended: {ending}.\n\n{facts}\nThe recipe, as it was resolved:\n\n{recipe}"
        ))
    }

    fn figures(&self) -> String {
        let figures = self.record.as_ref().and_then(table_of_figures);
        let (Some(record), Some(figures)) = (&self.record, figures) else {
            return format!("{NOT_RECORDED}.\n");
        };
        let mut text = table(&figures);
        if record.summary("/test/metrics").is_none() {
            text += "\nNo test split was judged: the figures are of the rows that chose the best step.\n";
        }
        let names = record::classes(&self.bundle).unwrap_or_default();
        let details = record
            .summary("/test/details/by_class")
            .unwrap_or(&Value::Null);
        if let Some(mut classes) = by_class(details, &names, "the test split") {
            let all = classes.rows.len();
            classes.rows.truncate(CLASSES);
            let of = if all > CLASSES {
                format!(", the first {CLASSES} of {all}")
            } else {
                String::new()
            };
            text += &format!("\nBy class, on the test split{of}:\n\n{}", table(&classes));
        }
        text
    }

    fn limits(&self) -> String {
        let mut limits = vec![format!("It takes {}.", self.input())];
        if record::classes(&self.bundle).is_some() {
            limits.push("It knows no class but those named above.".into());
        }
        match &self.record {
            Some(record) => {
                limits.push(
                    "The figures are of the data named above; on other data they are not known."
                        .into(),
                );
                if !record.is_done() {
                    limits.push(format!(
                        "Its run has not come to its end: {}.",
                        record.ending()
                    ));
                }
            }
            None => limits.push("No figures are recorded.".into()),
        }
        bullets(&limits)
    }

    fn usage(&self) -> String {
        usage::usage(&self.bundle, &self.place, self.task())
    }

    /// What a reader may look for and not find.
    fn gaps(&self) -> String {
        let declared = &self.declared;
        let mut gaps = Vec::new();
        if declared.license.is_empty() {
            gaps.push("The licence of the weights.".to_string());
        }
        if declared.language.is_empty() && self.bundle.is_text() {
            gaps.push("The languages of the texts.".into());
        }
        match &self.record {
            None => gaps.push("Data, recipe and figures.".into()),
            Some(record) => {
                if let Some(base) = record.base() {
                    gaps.push(format!(
                        "What {base}, from which training started, was itself trained on."
                    ));
                }
                if record.summary("/test/metrics").is_none() {
                    gaps.push("Figures of a test split.".into());
                }
            }
        }
        gaps.push("Intended use, risks, and figures of groups of people.".into());
        bullets(&gaps)
    }
}

fn bullets(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("- {}\n", escape(line)))
        .collect()
}

/// The run that a folder is, or that it is the model or the adapter of.
fn run_of(folder: &Path) -> Option<PathBuf> {
    let is_inside = |name: &str| folder.file_name().is_some_and(|file| file == name);
    let above = |folder: &Path| match folder.parent() {
        Some(above) if above.as_os_str().is_empty() => Some(PathBuf::from(".")),
        Some(above) => Some(above.to_path_buf()),
        None => None,
    };
    let run = if folder.join("recipe.toml").is_file() {
        Some(folder.to_path_buf())
    } else if is_inside("model") {
        above(folder)
    } else if is_inside("adapter") {
        above(folder).and_then(|model| above(&model))
    } else {
        None
    };
    run.filter(|run| run.join("recipe.toml").is_file())
}

/// Refuses a run whose own model is of another class or has other classes.
fn check_same(bundle: &Bundle, record: &Record, model: &str) -> Result<(), Failure> {
    let Some(own) = &record.bundle else {
        return Ok(());
    };
    for key in ["model_type", "architectures", "id2label"] {
        let (ours, theirs) = (bundle.raw_config().get(key), own.raw_config().get(key));
        if ours != theirs {
            let text = |value: Option<&Value>| value.map_or("missing".into(), ToString::to_string);
            return Err(Failure::input(format!(
                "--run {} left another model than {model}: {key} is {} there and {} here",
                record.path.display(),
                text(theirs),
                text(ours)
            )));
        }
    }
    Ok(())
}
