//! What a model loses where it is written with fewer bits. In: what was written, labelled rows. Out: sizes, errors, figures before
//! and after.

use model::Bundle;
use model::bundle::Rounded;
use train::metrics::Metrics;
use train::{BackendName, Failure};

use crate::evaluate::{LabelledRows, judge};
use crate::predict::format::table;
use crate::task::{self, Asked, Opening, Settings};

/// Rows in a forward pass.
const BATCH_SIZE: usize = 64;

/// What was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// Bytes of the files of weights that were read.
    pub before: usize,
    /// Bytes of the file of weights.
    pub after: usize,
    /// Matrices of 8 bits.
    pub rounded: Vec<Rounded>,
}

impl Written {
    /// Sizes, and the matrix that rounding changed most.
    pub fn text(&self) -> String {
        let Self {
            before,
            after,
            rounded,
        } = self;
        let mut text = format!("weights: {after} bytes, before {before}\n");
        let largest = rounded.iter().max_by(|a, b| a.error.total_cmp(&b.error));
        match largest {
            Some(Rounded { name, error }) => {
                let n = rounded.len();
                text += &format!(
                    "matrices of 8 bits: {n}, with a relative error of {error:.4} at most, in {name}\n"
                );
            }
            None => text += "matrices of 8 bits: none, as the model has no linear layers\n",
        }
        text
    }
}

/// Labelled rows, and how a model is judged on them.
pub(super) struct Judge {
    backend: BackendName,
    inputs: Vec<String>,
    settings: Settings,
}

impl Judge {
    /// - set: `KEY=VALUE`, how rows are read
    ///
    /// # Errors
    ///
    /// A recipe that cannot be read, or a key that is not known.
    pub fn new(
        backend: BackendName,
        inputs: &[String],
        set: &[String],
        bundle: &Bundle,
    ) -> Result<Self, Failure> {
        let mut settings = Settings::of_run(bundle)?;
        for set in set {
            settings.set(set)?;
        }
        Ok(Self {
            backend,
            inputs: inputs.to_vec(),
            settings,
        })
    }

    /// Figures of a model.
    ///
    /// # Errors
    ///
    /// A model that is of no task, or rows that cannot be used.
    pub fn figures(&self, bundle: &Bundle) -> Result<Metrics, Failure> {
        let task = task::open_on(self.backend, bundle, Opening::default())?;
        let rows = LabelledRows::read(&self.inputs, task.as_ref(), &self.settings)?;
        let asked = Asked {
            top: 1,
            threshold: None,
            batch_size: BATCH_SIZE,
        };
        let (report, _) = judge(task.as_ref(), &rows, &self.settings, &asked)?;
        Ok(report.metrics)
    }
}

/// Figures before and after, side by side.
pub(super) fn compared(before: &Metrics, after: &Metrics) -> String {
    let header = ["", "before", "after", "change"].map(String::from).to_vec();
    let row = |(name, before): (&String, &f64)| {
        let after = after.get(name)?;
        let change = format!("{:+.4}", after - before);
        Some(vec![
            name.clone(),
            format!("{before:.4}"),
            format!("{after:.4}"),
            change,
        ])
    };
    let rows = std::iter::once(header).chain(before.iter().filter_map(row));
    format!("\n{}", table(&rows.collect::<Vec<_>>()))
}
