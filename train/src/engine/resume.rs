//! Where a session starts: with the model as it is, or from the newest checkpoint of its run.

use std::path::Path;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use model::Names;

use crate::checkpoint::{self, Position, Whole};
use crate::failure::{Failure, FailureKind};
use crate::objective::{Trainable, Trainee};
use crate::optim::ema::Ema;
use crate::optim::optimizer::Optimizer;
use crate::run::{Existing, RunDir};

/// What a run starts from.
pub(super) struct Start<B: AutodiffBackend, O: Trainable<B>> {
    pub(super) model: Trainee<B, O>,
    pub(super) position: Position,
    pub(super) best: Option<O::InnerModule>,
    pub(super) ema: Option<Ema<B::InnerBackend>>,
    /// Newer checkpoints that are not whole, each with the reason.
    pub(super) passed_over: Vec<String>,
}

/// What differs between two digests, where a teacher's stands behind that of the data.
fn changed(old: &str, new: &str) -> &'static str {
    let data = |digest: &str| digest.split(' ').next().map(str::to_string);
    if data(old) == data(new) {
        "the teacher's weights are not those"
    } else {
        "the training data or its tokenizer are not those"
    }
}

impl<B: AutodiffBackend, O: Trainable<B>> Start<B, O> {
    /// The model as it is.
    ///
    /// - ema: share of the averaged weights that stays at each step; 0 averages none
    /// - names: of the model's parameters
    /// - data: the digest of the training rows
    pub(super) fn fresh(model: Trainee<B, O>, ema: f64, names: Names, data: &str) -> Self {
        let carried = model.objective.carried();
        Self {
            model,
            position: Position {
                data: data.into(),
                ..Position::default()
            },
            best: None,
            ema: (ema > 0.0).then(|| Ema::new(ema, names).without(carried)),
            passed_over: Vec::new(),
        }
    }

    /// The newest checkpoint of a run that is resumed, else the start as it is.
    pub(super) fn found(
        self,
        run: &RunDir,
        existing: Existing,
        optimizer: &Optimizer<B>,
        device: &B::Device,
    ) -> Result<Self, Failure> {
        if existing != Existing::Resume {
            return Ok(self);
        }
        match checkpoint::newest(&run.checkpoints()).input()? {
            // Stopped before the first checkpoint: from the beginning, with the same recipe.
            None => Ok(self),
            // A run from before there were digests has none.
            Some(Whole { position, .. })
                if !position.data.is_empty() && position.data != self.position.data =>
            {
                Err(Failure::input(format!(
                    "{}: {} that the run began with; bring them back, or start anew with --force",
                    run.path().display(),
                    changed(&position.data, &self.position.data)
                )))
            }
            Some(whole) => {
                let found = self.resumed(whole, &run.checkpoints(), optimizer, device);
                found.input()
            }
        }
    }

    fn resumed(
        mut self,
        whole: Whole,
        folder: &Path,
        optimizer: &Optimizer<B>,
        device: &B::Device,
    ) -> anyhow::Result<Self> {
        let Whole {
            path,
            position,
            passed_over,
        } = whole;
        let ema = self.ema.as_mut();
        self.model = checkpoint::load(&path, self.model, optimizer, ema, &position, device)?;
        if let Some(best) = &position.best {
            let path = folder.join(checkpoint::name(best.step));
            let model = checkpoint::validated(
                &path,
                self.model.valid(),
                optimizer.groups().names(),
                device,
            )?;
            self.best = Some(model.objective);
        }
        self.position = position;
        self.passed_over = passed_over;
        Ok(self)
    }
}
