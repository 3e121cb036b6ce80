//! A low-rank adapter of two models. In: a base model, and what was trained from it. Out: the adapter that is nearest to their
//! difference, as `peft` writes one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::TensorData;
use burn::tensor::backend::{AutodiffBackend, Backend};
use model::bundle::peft::{self, Extracted, ExtractedLayer, saved_whole};
use model::bundle::{Bundle, Load};
use model::{Names, walk};
use train::backend::with_backend;
use train::{BackendName, Failure, WithBackend};

use super::factors::factors;
use super::files::is_replaced;
use crate::any_model::{AnyImageModel, AnyTextModel};
use crate::open;
use crate::predict::format::table;

/// What is extracted.
pub(super) struct Extraction {
    pub base: Bundle,
    pub tuned: Bundle,
    pub output: PathBuf,
    pub rank: usize,
}

impl Extraction {
    /// Writes the adapter, and gives what is printed.
    ///
    /// # Errors
    ///
    /// Models of different shapes, or without a difference; a directory that cannot be written.
    pub fn run(self, backend: BackendName, force: bool) -> Result<String, Failure> {
        let Self {
            base,
            tuned,
            output,
            ..
        } = &self;
        check_output(output, force)?;
        let [one, other] = [base, tuned].map(|bundle| bundle.family().model_type);
        if one != other {
            let (base, tuned) = (base.path().display(), tuned.path().display());
            return Err(Failure::input(format!(
                "{base}: is a {one}, and {tuned} a {other}: an adapter is of one model"
            )));
        }
        for bundle in [base, tuned] {
            if let Some(beside) = bundle.beside() {
                let (place, what) = (bundle.path().display(), beside.describe());
                return Err(Failure::input(format!(
                    "{place}: holds {what}, which is no part of a model's weights"
                )));
            }
        }
        with_backend(backend, self)?
    }

    fn extract<B: Backend>(&self, device: &B::Device) -> Result<String, Failure> {
        let names = open::names(&self.tuned);
        let values = if self.tuned.is_text() {
            let draw = || AnyTextModel::<B>::draw(&self.tuned, names, device);
            [
                self.values(draw()?, &self.tuned, names)?,
                self.values(draw()?, &self.base, names)?,
            ]
        } else {
            let draw = || AnyImageModel::<B>::draw(&self.tuned, names, device);
            [
                self.values(draw()?, &self.tuned, names)?,
                self.values(draw()?, &self.base, names)?,
            ]
        };
        self.write(values, names)
    }

    /// Parameters of one of the models in the shape of the tuned one.
    fn values<B: Backend, M: Module<B>>(
        &self,
        drawn: M,
        bundle: &Bundle,
        names: Names,
    ) -> Result<BTreeMap<String, Parameter>, Failure> {
        let (model, loaded) = bundle.load(drawn, names, Load::BackboneAndPerhapsHead)?;
        let mut all = BTreeMap::new();
        walk::values(&model, names, &mut |path, data| {
            let parameter = Parameter {
                data,
                is_weight: path.is_of_linear(),
                turned: !path.is_transposed(),
            };
            all.insert(path.name(), parameter);
        });
        // Of the tuned model nothing is drawn but what its file lacks, as of the base.
        all.retain(|name, _| !loaded.drawn.contains(name));
        Ok(all)
    }

    fn write(
        &self,
        [tuned, base]: [BTreeMap<String, Parameter>; 2],
        names: Names,
    ) -> Result<String, Failure> {
        let most = largest_rank(&tuned, names).max(1);
        let rank = self.rank.min(most);
        if rank < self.rank {
            let asked = self.rank;
            eprintln!("note: the adapter is of rank {rank}, not {asked}: no layer has more");
        }
        let mut found = Extracted {
            rank,
            layers: Vec::new(),
            whole: Vec::new(),
        };
        let mut report = Report::default();
        for (name, parameter) in tuned {
            if saved_whole(&name, names) {
                found.whole.push((name, parameter.data));
                continue;
            }
            let Some(before) = base.get(&name) else {
                let place = self.base.path().display();
                return Err(Failure::input(format!(
                    "{place}: lacks {name}, which the tuned model has"
                )));
            };
            let difference = parameter.minus(&before.data);
            let squares: f64 = difference.iter().map(|x| f64::from(*x).powi(2)).sum();
            if squares == 0.0 {
                continue;
            }
            let layer = name.strip_suffix(".weight").filter(|_| parameter.is_weight);
            let (Some(layer), &[rows, columns]) = (layer, &parameter.data.shape[..]) else {
                report.lost.push((name, squares));
                continue;
            };
            let (difference, shape) = if parameter.turned {
                (turned(&difference, columns), [columns, rows])
            } else {
                (difference, [rows, columns])
            };
            let factors = factors(&difference, shape, rank);
            report.kept.push((layer.to_string(), squares, factors.kept));
            let [d_output, d_input] = shape;
            found.layers.push(ExtractedLayer {
                name: layer.to_string(),
                a: TensorData::new(factors.a, [rank, d_input]),
                b: TensorData::new(factors.b, [d_output, rank]),
            });
        }
        if found.layers.is_empty() {
            let [base, tuned] = [&self.base, &self.tuned].map(|bundle| bundle.path().display());
            return Err(Failure::input(format!(
                "{tuned}: has the linear weights of {base}, so there is nothing to extract"
            )));
        }
        found.write(&self.output, &self.base, names)?;
        if let Some(lost) = report.lost() {
            eprintln!("warning: {lost}");
        }
        Ok(format!(
            "{}wrote {}\n",
            report.text(),
            self.output.display()
        ))
    }
}

impl WithBackend for Extraction {
    type Output = Result<String, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        self.extract::<B::InnerBackend>(&device)
    }
}

/// A parameter of a model, as a bundle holds it.
struct Parameter {
    data: TensorData,
    /// Whether it is of a linear layer.
    is_weight: bool,
    /// Whether a bundle holds it as `[d_input, d_output]`.
    turned: bool,
}

impl Parameter {
    fn minus(&self, other: &TensorData) -> Vec<f32> {
        let pairs = self.data.iter::<f32>().zip(other.iter::<f32>());
        pairs.map(|(ours, theirs)| ours - theirs).collect()
    }
}

/// The most that a difference of linear weights can have.
fn largest_rank(parameters: &BTreeMap<String, Parameter>, names: Names) -> usize {
    let weights = parameters
        .iter()
        .filter(|(name, parameter)| parameter.is_weight && !saved_whole(name, names));
    let ranks = weights.filter_map(|(_, parameter)| match parameter.data.shape[..] {
        [rows, columns] => Some(rows.min(columns)),
        _ => None,
    });
    ranks.max().unwrap_or_default()
}

/// Columns as rows.
fn turned(values: &[f32], columns: usize) -> Vec<f32> {
    let column = |column| values.iter().skip(column).step_by(columns).copied();
    (0..columns).flat_map(column).collect()
}

/// How much of the difference the adapter has.
#[derive(Default)]
struct Report {
    /// Layers, the squares of their difference and the share of them that is kept.
    kept: Vec<(String, f64, f64)>,
    /// Parameters that no adapter has, and the squares of their difference.
    lost: Vec<(String, f64)>,
}

impl Report {
    /// A table: layer after layer, and all together.
    fn text(&self) -> String {
        let (mut all, mut kept) = (0.0, 0.0);
        let mut rows = vec![vec!["layer".to_string(), "energy kept".to_string()]];
        for (layer, squares, share) in &self.kept {
            all += squares;
            kept += squares * share;
            rows.push(vec![layer.clone(), format!("{share:.4}")]);
        }
        rows.push(vec!["all".into(), format!("{:.4}", kept / all)]);
        table(&rows)
    }

    /// A sentence, if anything is lost.
    fn lost(&self) -> Option<String> {
        let squares = |all: f64, squares: f64| all + squares;
        let lost = self.lost.iter().map(|(_, lost)| *lost).fold(0.0, squares);
        let kept = self.kept.iter().map(|(_, all, _)| *all).fold(0.0, squares);
        let (first, rest) = self.lost.split_first()?;
        let mut names = first.0.clone();
        for (name, _) in rest.iter().take(2) {
            let _ = write!(names, ", {name}");
        }
        if rest.len() > 2 {
            let _ = write!(names, " and {} more", rest.len() - 2);
        }
        let share = lost / (lost + kept);
        Some(format!(
            "left out {names}: they are not weights of linear layers, and {share:.4} of the squared difference of all is theirs"
        ))
    }
}

/// Refuses a place that cannot become an adapter, or where something that is none would be lost.
fn check_output(output: &Path, force: bool) -> Result<(), Failure> {
    let wrong = |reason: &str| Err(Failure::input(format!("{}: {reason}", output.display())));
    if !is_replaced(output, force, "adapter")? {
        return Ok(());
    }
    let own = [peft::CONFIG, peft::WEIGHTS];
    let entries = output.read_dir().map_err(Failure::running)?;
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    match names.find(|name| !own.iter().any(|own| name == own)) {
        Some(name) => wrong(&format!(
            "holds {}, which is no part of an adapter; --force replaces adapters only",
            name.display()
        )),
        None => Ok(()),
    }
}
