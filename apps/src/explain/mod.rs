//! `explain`: why a classifier said what it said. In: its bundle, texts or images. Out: how much each token or pixel speaks for a
//! class: in the terminal, as JSON, as a page, as a picture.
//!
//! Reading order: this file, `method` (which there are), `work` (row after row), `texts` and `images` (how each is done),
//! `quadrature` and `rollout` (their arithmetic), `explanation` (what they give), then `shown`, `page` and `picture` (how it is
//! seen).

mod explanation;
mod images;
mod method;
mod page;
mod picture;
mod quadrature;
mod rollout;
mod shown;
mod texts;
mod work;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use model::bundle::Scores;
use model::{Bundle, HeadKind};
use train::Failure;

pub use self::explanation::{Completeness, Explanation, Subject, Token};
pub use self::method::Method;
use self::method::not_of_texts;
pub use self::work::{Asked, Explainer};
use self::work::{PlacedRow, all};
use crate::input::{Columns, Input, Wanted, is_stdin};
use crate::open::{self, NamedModel};
use crate::task::image_scores::Eye;

/// Points of integrated gradients without `--steps`.
pub const STEPS: usize = 50;
/// More would only cost time.
const MOST_STEPS: usize = 10_000;
/// Classes that a message names.
const NAMED: usize = 10;

const EXAMPLES: &str = "\
Examples:
  apps explain runs/text-classification --text \"a small bird that sings\"
  apps explain runs/text-classification --text \"a small bird that sings\" --class animal --output why.html
  apps explain runs/pair-classification --text \"he went up\" --pair \"and he ascended\" --method occlusion
  apps explain runs/image-classification photo.jpg --method grad-cam --output why.png
  apps explain runs/vit photo.jpg --method attention-rollout --output why.png
  apps explain runs/text-classification reviews.csv --column review --json";

/// Say why a classifier says what it says: which words, or which parts of an image
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: NamedModel,
    /// A text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub text: Vec<String>,
    /// The second text of a pair; as many as texts
    #[arg(
        long,
        visible_alias = "text-pair",
        value_name = "TEXT",
        requires = "text"
    )]
    pub pair: Vec<String>,
    /// Column or key that holds the texts
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub column: String,
    /// Column or key that holds second texts
    #[arg(long, value_name = "NAME", conflicts_with = "text")]
    pub pair_column: Option<String>,
    /// How
    #[arg(
        long,
        value_name = "METHOD",
        value_enum,
        default_value = "integrated-gradients"
    )]
    pub method: Method,
    /// The class that is explained [default: the likeliest of each row]
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
    /// Points of integrated gradients [default: 50]
    #[arg(long, value_name = "N")]
    pub steps: Option<NonZeroUsize>,
    /// Rows of files that are explained, the first ones
    #[arg(long, value_name = "N", default_value = "20")]
    pub limit: NonZeroUsize,
    /// Print a JSON object a row
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// Write a page, a picture of one image, or a JSON object a row
    #[arg(long, value_name = "FILE.html|.png|.json")]
    pub output: Option<PathBuf>,
    /// Replace a file that exists
    #[arg(long)]
    pub force: bool,
}

/// What a file is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Page,
    Picture,
    Json,
}

impl Kind {
    /// By the end of a file's name.
    fn of(output: &Path) -> Result<Self, Failure> {
        let end = output.extension().and_then(|end| end.to_str());
        match end.map(str::to_ascii_lowercase).as_deref() {
            Some("html" | "htm" | "xhtml") => Ok(Self::Page),
            Some("png") => Ok(Self::Picture),
            Some("json" | "jsonl") => Ok(Self::Json),
            _ => {
                let output = output.display();
                let reason =
                    format!("{output}: an explanation is .html, .png or .json; name it so");
                Err(Failure::input(reason))
            }
        }
    }
}

/// Explains what the flags name, and gives what is printed.
///
/// # Errors
///
/// A model that is no classifier, a method that does not fit it, a class that it does not have, or an input that cannot be read.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend.choose()?;
    let (bundle, inputs) = flags.model.open()?;
    let kind = check(flags, inputs)?;
    let (_, classes) = classifier(&bundle)?;
    check_fit(flags, kind, &bundle)?;
    let asked = Asked {
        method: flags.method,
        class: flags
            .class
            .as_ref()
            .map(|name| class(&bundle, name, &classes))
            .transpose()?,
        steps: flags.steps.map_or(STEPS, NonZeroUsize::get),
    };
    let rows = read(flags, inputs, &bundle)?;
    if kind == Some(Kind::Picture) && rows.len() != 1 {
        let n = rows.len();
        return Err(Failure::input(format!(
            "a PNG shows one image, and {n} are to be explained; --output FILE.html shows all of them"
        )));
    }
    let explainer = Explainer::open_on(backend, &bundle)?;
    let explanations = all(&explainer, &rows, &asked)?;
    if asked.method == Method::AttentionRollout {
        eprintln!("note: attention rollout says what is looked at, the same for every class");
    }
    let Some((output, kind)) = flags.output.as_deref().zip(kind) else {
        return Ok(if flags.json {
            json_lines(&explanations)
        } else {
            shown::text(&explanations, shown::has_colours())
        });
    };
    write(output, kind, &bundle, &explanations)?;
    Ok(format!("wrote {}\n", output.display()))
}

/// What can be refused before a model is looked at.
fn check(flags: &Flags, inputs: &[String]) -> Result<Option<Kind>, Failure> {
    if let Some(first) = inputs.first().filter(|_| !flags.text.is_empty()) {
        return Err(Failure::input(format!(
            "--text and {first} are both to be read; name one of them"
        )));
    }
    if flags
        .text
        .iter()
        .chain(&flags.pair)
        .any(|text| text.trim().is_empty())
    {
        return Err(Failure::input("--text or --pair is empty"));
    }
    let (texts, pairs) = (flags.text.len(), flags.pair.len());
    if pairs > 0 && pairs != texts {
        return Err(Failure::input(format!(
            "--pair is given {pairs} times and --text {texts} times; each text needs its own"
        )));
    }
    match flags.steps.map(NonZeroUsize::get) {
        Some(_) if flags.method != Method::IntegratedGradients => {
            let name = flags.method.name();
            return Err(Failure::input(format!(
                "--steps is for integrated-gradients; {name} has none"
            )));
        }
        Some(steps) if steps > MOST_STEPS => {
            return Err(Failure::input(format!(
                "--steps is {steps}; it must be at most {MOST_STEPS}"
            )));
        }
        Some(_) | None => {}
    }
    let Some(output) = &flags.output else {
        return Ok(None);
    };
    let kind = Kind::of(output)?;
    let inputs: Vec<&Path> = inputs.iter().map(Path::new).collect();
    open::check_output(output, &inputs)?;
    if output.exists() && !flags.force {
        let output = output.display();
        return Err(Failure::input(format!(
            "{output}: exists; --force replaces it"
        )));
    }
    Ok(Some(kind))
}

/// The PNG of an explained image: it on the left, its attributions over it on the right.
///
/// # Errors
///
/// An explanation of a text, or an encoder that fails.
pub fn png(explanation: &Explanation) -> Result<Vec<u8>, Failure> {
    match &explanation.subject {
        Subject::Image(seen, values) => Ok(picture::png(seen, values)?.0),
        Subject::Texts(_) => Err(Failure::input("a PNG shows an image, and this is none")),
    }
}

/// What a classifier's logits mean, and its classes; other models are refused.
fn classifier(bundle: &Bundle) -> Result<(Scores, Vec<String>), Failure> {
    open::require(bundle, HeadKind::Classes)?;
    let scores = bundle.scores()?;
    if scores == Scores::Values {
        let place = bundle.path().display();
        return Err(Failure::input(format!(
            "{place}: gives values, not classes; apps explain is for classifiers"
        )));
    }
    Ok((scores, bundle.classes()?))
}

/// Refuses flags that do not fit the medium of the model.
fn check_fit(flags: &Flags, kind: Option<Kind>, bundle: &Bundle) -> Result<(), Failure> {
    let is_text = bundle.is_text();
    let wrong = |reason: &str| {
        let place = bundle.path().display();
        Err(Failure::input(format!("{place}: {reason}")))
    };
    if is_text && flags.method == Method::GradCam {
        return Err(not_of_texts(flags.method));
    }
    if !is_text && !flags.text.is_empty() {
        return wrong("reads images; name them behind the model instead of --text");
    }
    if !is_text && flags.pair_column.is_some() {
        return wrong("reads images, which have no --pair-column");
    }
    if is_text && kind == Some(Kind::Picture) {
        return wrong("reads texts, whose explanation is .html or .json");
    }
    Ok(())
}

/// The number of a class.
fn class(bundle: &Bundle, name: &str, classes: &[String]) -> Result<usize, Failure> {
    if let Some(class) = classes.iter().position(|class| class == name) {
        return Ok(class);
    }
    let place = bundle.path().display();
    let mut known = classes[..classes.len().min(NAMED)].join(", ");
    if classes.len() > NAMED {
        known += &format!(" and {} more", classes.len() - NAMED);
    }
    Err(Failure::input(format!(
        "{place}: has no class \"{name}\"; it has {known}"
    )))
}

/// The rows that are explained.
fn read(flags: &Flags, inputs: &[String], bundle: &Bundle) -> Result<Vec<PlacedRow>, Failure> {
    let input = if !flags.text.is_empty() {
        let rows = flags.text.iter().enumerate();
        let row = |(at, text): (usize, &String)| {
            let second = flags.pair.get(at);
            std::iter::once(text).chain(second).cloned().collect()
        };
        Input::of_texts(rows.map(row).collect())
    } else {
        let columns = Columns {
            text: &flags.column,
            second: flags.pair_column.as_deref(),
        };
        let view = if bundle.is_text() {
            None
        } else {
            Some(Eye::new(&open::image_model(bundle)?.input).seen)
        };
        let wanted = Wanted::one_each(view);
        if is_stdin(inputs) {
            Input::of_stdin(inputs, columns, wanted)?
        } else {
            Input::of_files(inputs, columns, wanted)?
        }
    };
    let (all, most) = (input.len(), flags.limit.get());
    // Those of the command line are all meant.
    let n = if flags.text.is_empty() {
        all.min(most)
    } else {
        all
    };
    if n == 0 {
        return Err(Failure::input("there is nothing to explain in the input"));
    }
    let rows = input.window(0..n).into_iter();
    let placed = rows.map(|row| match (row.row, row.place) {
        (Ok(found), place) => Ok((place, found)),
        (Err(reason), Some(place)) if !reason.starts_with(&place) => {
            Err(Failure::input(format!("{place}: {reason}")))
        }
        (Err(reason), _) => Err(Failure::input(reason)),
    });
    let placed = placed.collect::<Result<_, Failure>>()?;
    if n < all {
        eprintln!("note: the first {n} of {all} rows are explained; --limit says how many");
    }
    Ok(placed)
}

fn json_lines(explanations: &[Explanation]) -> String {
    let line = |one: &Explanation| format!("{}\n", one.json());
    explanations.iter().map(line).collect()
}

fn write(
    output: &Path,
    kind: Kind,
    bundle: &Bundle,
    explanations: &[Explanation],
) -> Result<(), Failure> {
    let bytes = match kind {
        Kind::Page => {
            let model = bundle.path().display().to_string();
            page::page(&model, explanations)?.into_bytes()
        }
        Kind::Json => json_lines(explanations).into_bytes(),
        Kind::Picture => match explanations.first() {
            Some(explanation) => png(explanation)?,
            None => return Err(Failure::input("there is no image to show")),
        },
    };
    open::write_output(output, &bytes)
}
