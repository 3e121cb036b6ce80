//! Going back after too many steps in a row that were not finite. In: checkpoints. Out: the run at one of them, with a
//! lower learning rate and past the batches that lost it.

use anyhow::{Result, anyhow};
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;

use crate::checkpoint::{self, Best, Position, Whole};
use crate::engine::training_loop::LoopDriver;
use crate::objective::{Trainable, Trainee};

impl<B: AutodiffBackend, O: Trainable<B>> LoopDriver<'_, B, O> {
    /// Back to the newest checkpoint, with a lower rate from there on, and past the batches that lost the run: they may be
    /// to blame. Chowdhery et al. 2022, section 5.1, <https://arxiv.org/abs/2204.02311>.
    pub(super) fn go_back(&mut self) -> Result<()> {
        let guard = &self.training.plan.guard;
        let lost = self.state.position.clone();
        let rollbacks = lost.watch.rollbacks + 1;
        let stop = |why: &str| {
            let (in_a_row, step) = (lost.watch.in_a_row, lost.step);
            anyhow!(
                "the loss or its gradient was not finite for {in_a_row} steps up to step {step}, {why}; a lower \
                 optimizer.lr may help"
            )
        };
        if rollbacks > guard.rollbacks {
            return Err(stop(&format!("after {} rollbacks", rollbacks - 1)));
        }
        let Some(whole) = self.place_to_go_back_to()? else {
            return Err(stop("and no checkpoint was written before"));
        };
        for reason in &whole.passed_over {
            self.state.console.warn(&format!("passed over: {reason}"));
        }
        let device = self.device();
        self.model = checkpoint::load(
            &whole.path,
            self.model.clone(),
            &self.optimizer,
            self.state.ema.as_mut(),
            &whole.position,
            &device,
        )?;
        // The batches to come do not go on where those before the checkpoint ended.
        if let Some(emptied) = self.model.objective.emptied() {
            self.model.objective = emptied;
        }
        self.restore_best(whole.position.best.as_ref(), &device)?;
        let step = whole.position.step;
        self.state.position = Position {
            seconds: lost.seconds,
            timing: lost.timing,
            left_out: lost.drawn() - step,
            went_back_to: Some(step),
            watch: whole.position.watch.back(&lost.watch),
            ..whole.position
        };
        self.state.log.cut(&self.state.position)?;
        self.schedule = self.training.schedule_from(&self.state.position);
        let scale = guard.scale(rollbacks);
        self.state.console.warn(&format!(
            "step {}: back to step {step}, with {scale} times the learning rate and past the batches since",
            lost.step
        ));
        Ok(())
    }

    /// The best model and its bundle as they were at a checkpoint: a later best step was undone with the others.
    fn restore_best(&mut self, best: Option<&Best>, device: &B::Device) -> Result<()> {
        let Some(run) = &self.training.run else {
            return Ok(());
        };
        let step = |best: &Best| best.step;
        if best.map(step) == self.state.position.best.as_ref().map(step) {
            return Ok(());
        }
        self.state.best = None;
        let Some(best) = best else {
            return run.remove_bundle().map_err(Into::into);
        };
        let path = run.checkpoints().join(checkpoint::name(best.step));
        let model: Trainee<B::InnerBackend, O::InnerModule> = self.model.valid();
        let model =
            checkpoint::validated(&path, model, self.optimizer.groups().names(), device)?.objective;
        (self.training.export)(&model, &run.bundle())?;
        self.state.best = Some(model);
        Ok(())
    }

    /// The newest checkpoint that the run was not about to be lost at; if none was kept since it last went back, the one
    /// before that.
    fn place_to_go_back_to(&self) -> Result<Option<Whole>> {
        let Some(run) = &self.training.run else {
            return Ok(None);
        };
        let folder = run.checkpoints();
        let before = |limit: u64| {
            let fits = |at: &Position| at.is_place_to_go_back_to() && at.step < limit;
            checkpoint::newest_that(&folder, fits)
        };
        if let Some(step) = self.state.position.went_back_to
            && let Ok(Some(older)) = before(step)
        {
            return Ok(Some(older));
        }
        match before(u64::MAX)? {
            Some(good) => Ok(Some(good)),
            None => checkpoint::newest(&folder),
        }
    }
}
