//! `explain`: why a classifier said what it said. In: its bundle, texts or images. Out: how much each token or pixel speaks for a
//! class: in the terminal, as JSON, as a page, as a picture.
//!
//! Reading order: this file, `texts` and `images` (the methods), `quadrature` and `rollout` (their arithmetic), `explanation`
//! (what they give), then `shown`, `page` and `picture` (how it is seen).

mod explanation;
mod images;
mod page;
mod picture;
mod quadrature;
mod rollout;
mod shown;
mod texts;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use burn::tensor::backend::AutodiffBackend;
use clap::{Args, ValueEnum};
use data::CutTexts;
use model::bundle::Scores;
use model::{Bundle, HeadKind};
use train::backend::with_backend;
use train::{Failure, WithBackend};

use self::explanation::{Completeness, Explanation, Subject};
use self::images::ImageExplainer;
use self::texts::TextExplainer;
use crate::input::{Columns, Input, Wanted, is_stdin};
use crate::open::{self, NamedModel};
use crate::predict::Watch;
use crate::task::image_scores::Eye;
use crate::task::scores::{sigmoid, softmax};
use crate::task::{Row, other_kind};

/// Points of integrated gradients without `--steps`.
const STEPS: usize = 50;
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
  apps explain runs/text-classification reviews.csv --column review --json";

/// How a score is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Gradients on the way from a baseline: padding in place of a text, a black image
    IntegratedGradients,
    /// Texts: how much of each token reaches the one that is classified by attention
    AttentionRollout,
    /// How far the score falls where a token or a patch is hidden
    Occlusion,
    /// Images: where the last feature maps speak for the class
    GradCam,
}

impl Method {
    /// As `--method` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::IntegratedGradients => "integrated-gradients",
            Self::AttentionRollout => "attention-rollout",
            Self::Occlusion => "occlusion",
            Self::GradCam => "grad-cam",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::IntegratedGradients => "integrated gradients",
            Self::AttentionRollout => "attention rollout",
            Self::Occlusion => "occlusion",
            Self::GradCam => "Grad-CAM",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::IntegratedGradients => {
                "Integrated gradients (Sundararajan et al. 2017): the attributions sum to the score here less the score at the \
                 baseline, which is a text of padding tokens between the special ones, or a black image."
            }
            Self::AttentionRollout => {
                "Attention rollout (Abnar and Zuidema 2020): how much of each token reaches the one that the classifier reads, \
                 through all layers. The shares sum to 1 and are the same for every class."
            }
            Self::Occlusion => {
                "Occlusion (Zeiler and Fergus 2014): how far the score falls where a token is replaced by the mask token, or a \
                 patch of the image by black."
            }
            Self::GradCam => {
                "Grad-CAM (Selvaraju et al. 2017): the last feature maps, weighted by their mean gradients; what speaks against \
                 the class is left out."
            }
        }
    }

    fn fits(self, is_text: bool) -> bool {
        match self {
            Self::IntegratedGradients | Self::Occlusion => true,
            Self::AttentionRollout => is_text,
            Self::GradCam => !is_text,
        }
    }
}

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

/// What is asked of each row.
#[derive(Clone, Copy, Debug)]
struct Asked {
    method: Method,
    /// The likeliest class without one.
    class: Option<usize>,
    steps: usize,
}

/// What a method gives for one row.
struct Attributed {
    class: usize,
    logits: Vec<f32>,
    completeness: Option<Completeness>,
    cut: CutTexts,
    subject: Subject,
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
    let (scores, classes) = classifier(&bundle)?;
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
    let work = Work {
        bundle: &bundle,
        rows: &rows,
        asked,
        scores,
        classes: &classes,
    };
    let explanations = with_backend(backend, work)??;
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
    if !flags.method.fits(is_text) {
        return Err(other_medium(flags.method));
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

/// A method that knows nothing of what the model reads.
fn other_medium(method: Method) -> Failure {
    let name = method.name();
    let (fit, unfit) = if method.fits(true) {
        ("texts", "images")
    } else {
        ("images", "texts")
    };
    Failure::input(format!(
        "{name} explains models of {fit}, and this one reads {unfit}; integrated-gradients and occlusion fit both"
    ))
}

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

/// A row, and where it comes from.
type PlacedRow = (Option<String>, Row);

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

struct Work<'a> {
    bundle: &'a Bundle,
    rows: &'a [PlacedRow],
    asked: Asked,
    scores: Scores,
    classes: &'a [String],
}

impl WithBackend for Work<'_> {
    type Output = Result<Vec<Explanation>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let asked = self.asked;
        if self.bundle.is_text() {
            let explainer = TextExplainer::<B>::open(self.bundle, &device)?;
            return self.all(explainer.max_length(), |row| match row {
                Row::Texts(texts) => explainer.explain(texts, &asked),
                Row::Words(_) | Row::Image(_) => Err(other_kind("texts", "row")),
            });
        }
        let explainer = ImageExplainer::<B>::open(self.bundle, &device)?;
        self.all(0, |row| match row {
            Row::Image(picture) => explainer.explain(picture, &asked),
            Row::Texts(_) | Row::Words(_) => Err(other_kind("images", "row")),
        })
    }
}

impl Work<'_> {
    /// - max_length: tokens of the longest text
    fn all(
        &self,
        max_length: usize,
        explain: impl Fn(&Row) -> Result<Attributed, Failure>,
    ) -> Result<Vec<Explanation>, Failure> {
        let mut watch = Watch::new("explaining", self.rows.len());
        let (mut cut, mut explanations) = (CutTexts::default(), Vec::new());
        for (place, row) in self.rows {
            let attributed = explain(row)?;
            cut.add(attributed.cut);
            explanations.push(self.explanation(place.clone(), attributed));
            watch.at(explanations.len());
        }
        if cut.texts > 0 {
            eprintln!("note: {}", cut.line(max_length));
        }
        Ok(explanations)
    }

    fn explanation(&self, place: Option<String>, attributed: Attributed) -> Explanation {
        let Attributed {
            class,
            logits,
            completeness,
            subject,
            ..
        } = attributed;
        let method = self.asked.method;
        Explanation {
            place,
            class: self.classes[class].clone(),
            probability: match self.scores {
                Scores::OneLabel => softmax(&logits)[class],
                Scores::SeveralLabels | Scores::Values => sigmoid(logits[class]),
            },
            score: logits[class],
            method,
            steps: (method == Method::IntegratedGradients).then_some(self.asked.steps),
            completeness,
            subject,
        }
    }
}

/// The class with the highest score, the first of those that share it.
fn best(logits: &[f32]) -> usize {
    let better = |best: usize, class: usize| {
        if logits[class] > logits[best] {
            class
        } else {
            best
        }
    };
    (0..logits.len()).reduce(better).unwrap_or_default()
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
        Kind::Picture => match explanations.first().map(|one| &one.subject) {
            Some(Subject::Image(seen, values)) => picture::png(seen, values)?.0,
            Some(Subject::Texts(_)) | None => {
                return Err(Failure::input("a PNG shows an image, and this is none"));
            }
        },
    };
    open::write_output(output, &bytes)
}
