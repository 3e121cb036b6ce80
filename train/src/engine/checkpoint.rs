//! Checkpoints: weights, their average and the optimizer in full precision, and how far the run was.
//!
//! `checkpoints/step-00000500/` holds `model.safetensors`, `optimizer.safetensors`, `ema.safetensors` where weights
//! are averaged, `state.json`, and `SHA256SUMS` over them. It is written beside, synced and renamed, and it is read
//! only if its sums are right.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::module::{AutodiffModule, Module};
use burn::prelude::Backend;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, TensorData};
use model::Names;
use model::bundle;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::guard::Watch;
use crate::metrics::{Metrics, nullable};
use crate::optim::ema::Ema;
use crate::optim::optimizer::{HostTensor, Optimizer};
use crate::report::timing::Timing;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const EMA: &str = "ema.safetensors";
const STATE: &str = "state.json";
const SUMS: &str = "SHA256SUMS";

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Optimizer steps done.
    pub step: u64,
    /// Seconds of training, in all processes.
    pub seconds: f64,
    /// What the time went into, in all processes.
    pub timing: Timing,
    /// Real tokens or samples seen.
    #[serde(rename = "units")]
    pub real: u64,
    /// The same with padding.
    #[serde(rename = "slots")]
    pub padded: u64,
    /// The best validation so far.
    pub best: Option<Best>,
    /// The last validation.
    #[serde(deserialize_with = "nullable::some_metrics")]
    pub last: Option<Metrics>,
    /// Validations since the best one.
    pub stale: u64,
    /// Bytes of `metrics.jsonl`.
    pub log_length: u64,
    /// Bytes of the TensorBoard events.
    pub events_length: u64,
    /// What the next line of the log has so far, between two lines.
    pub unreported: Option<Unreported>,
    /// Optimizer steps taken by parameter: frozen and skipped ones do not count.
    pub taken: BTreeMap<String, i32>,
    /// What the guards have seen.
    pub watch: Watch,
    /// Steps whose batches were left out, each time that the run went back: those that lost it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// The step that the run last went back to, if no place to go back to was kept since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub went_back_to: Option<u64>,
    /// Written only because the run was asked to stop: an uninterrupted run has no checkpoint here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unscheduled: bool,
    /// A digest of the data, tokenizer included; empty where there is none.
    #[serde(default)]
    pub data: String,
}

/// Keeps the state of a run that never went back as it was before there was such a key.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Position {
    /// Steps whose batches are behind the run: those it took, and those it left out.
    pub fn drawn(&self) -> u64 {
        self.step + self.left_out
    }

    /// Whether a run that was lost may go on from here: not with the weights that it was being lost with, and where an
    /// uninterrupted run would.
    pub fn is_place_to_go_back_to(&self) -> bool {
        self.watch.is_good() && !self.unscheduled
    }
}

/// Sums since the last line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unreported {
    /// Of the loss, then those that [`crate::Objective::MEANS`] names.
    #[serde(deserialize_with = "nullable::numbers")]
    pub sums: Vec<f64>,
    /// Over how many targets.
    pub targets: usize,
    /// The weight of these targets.
    pub weight: f64,
    /// Of further terms of the loss.
    #[serde(
        default,
        deserialize_with = "nullable::numbers",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub terms: Vec<f64>,
    /// What each of them is divided by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub term_weights: Vec<f64>,
    /// Real tokens or samples.
    #[serde(rename = "units")]
    pub real: usize,
    /// The same with padding.
    #[serde(default, rename = "slots")]
    pub padded: usize,
    /// What the time went into.
    pub timing: Timing,
}

/// A validation worth keeping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After this many steps.
    pub step: u64,
    /// All its figures.
    #[serde(deserialize_with = "nullable::metrics")]
    pub metrics: Metrics,
}

/// What a checkpoint is made of.
pub struct Snapshot<'a, B: AutodiffBackend, M> {
    /// The model.
    pub module: &'a M,
    /// Its optimizer.
    pub optimizer: &'a Optimizer<B>,
    /// The average of its weights, if there is one.
    pub ema: Option<&'a Ema<B::InnerBackend>>,
    /// How far the run is.
    pub position: &'a Position,
}

/// Writes a checkpoint, and deletes those that nothing needs any more. What stays is this one, the newest `keep` that a
/// run can go back to, and the best step of each; those of later steps, which a run that went back left behind, go.
pub fn save<B: AutodiffBackend, M: AutodiffModule<B>>(
    folder: &Path,
    snapshot: &Snapshot<B, M>,
    keep: usize,
) -> Result<()> {
    let position = snapshot.position;
    let name = name(position.step);
    remove_unfinished(folder)?;
    let (fresh, target) = (folder.join(format!(".{name}")), folder.join(&name));
    fs::create_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
    snapshot.write(&fresh)?;
    // One of this step is not whole, or from before the run went back.
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| target.display().to_string())?;
    }
    fs::rename(&fresh, &target).with_context(|| target.display().to_string())?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| folder.display().to_string())?;
    prune(folder, position.step, keep)
}

fn prune(folder: &Path, newest: u64, keep: usize) -> Result<()> {
    let (all, later): (Vec<_>, Vec<_>) = list(folder)?
        .into_iter()
        .partition(|(step, _)| *step <= newest);
    let position = |(_, path): &(u64, PathBuf)| self::position(path).ok();
    let positions: Vec<Position> = all.iter().rev().filter_map(position).collect();
    let places = positions.iter().filter(|at| at.is_place_to_go_back_to());
    // Were the newest torn, the one before it would go on with its own best step.
    let kept = positions.iter().take(1).chain(places.take(keep));
    let needed = kept.flat_map(|at| [Some(at.step), at.best.as_ref().map(|best| best.step)]);
    let needed: Vec<u64> = needed.flatten().collect();
    let needless = all.iter().filter(|(step, _)| !needed.contains(step));
    for (_, path) in needless.chain(&later) {
        fs::remove_dir_all(path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> Snapshot<'_, B, M> {
    fn write(&self, folder: &Path) -> Result<()> {
        let weights =
            bundle::serialise_checkpoint(&self.module.valid(), self.optimizer.groups().names());
        let (slots, taken) = self.optimizer.save();
        let mut position = self.position.clone();
        position.taken = taken.into_iter().collect();
        let mut sums = String::new();
        let mut put = |name: &str, bytes: &[u8]| -> Result<()> {
            sums.push_str(&format!("{:x}  {name}\n", Sha256::digest(bytes)));
            write(&folder.join(name), bytes)
        };
        put(MODEL, &weights.map_err(anyhow::Error::msg)?)?;
        put(OPTIMIZER, &pack(slots)?)?;
        if let Some(ema) = self.ema {
            put(EMA, &pack(ema.save())?)?;
        }
        put(STATE, &serde_json::to_vec_pretty(&position)?)?;
        write(&folder.join(SUMS), sums.as_bytes())
    }
}

/// Makes sure that every file of a checkpoint is what was written.
///
/// # Errors
///
/// A file is missing, torn or changed.
pub fn verify(checkpoint: &Path) -> Result<()> {
    let sums = read(&checkpoint.join(SUMS))?;
    let sums = String::from_utf8_lossy(&sums).into_owned();
    let named: Vec<_> = sums
        .lines()
        .filter_map(|line| line.split_once("  "))
        .collect();
    for needed in [MODEL, OPTIMIZER, STATE] {
        if !named.iter().any(|(_, name)| *name == needed) {
            bail!("{}: {SUMS} does not name {needed}", checkpoint.display());
        }
    }
    for (sum, name) in named {
        let path = checkpoint.join(name);
        if format!("{:x}", Sha256::digest(read(&path)?)) != sum {
            bail!(
                "{}: is not what was written (SHA-256 differs)",
                path.display()
            );
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// The folder of a step's checkpoint.
pub fn name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Deletes what a killed process was writing.
fn remove_unfinished(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(".step-") {
            let path = entry.path();
            fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| path.display().to_string())
}

/// Checkpoints by step, oldest first.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut all = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(all),
        Err(e) => return Err(e).with_context(|| folder.display().to_string()),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
        all.extend(step.map(|step| (step, path)));
    }
    all.sort();
    Ok(all)
}

/// A checkpoint to go on from.
pub struct Whole {
    /// Its folder.
    pub path: PathBuf,
    /// How far the run was.
    pub position: Position,
    /// Newer ones that are not whole, each with the reason.
    pub passed_over: Vec<String>,
}

/// The newest checkpoint that is whole, as its best step's must be; nothing if there is none at all.
///
/// # Errors
///
/// There are checkpoints, and none is whole.
pub fn newest(folder: &Path) -> Result<Option<Whole>> {
    newest_that(folder, |_| true)
}

/// [`newest`] of those that fit.
///
/// # Errors
///
/// There are checkpoints that are not whole, and none that is whole fits.
pub fn newest_that(folder: &Path, fits: impl Fn(&Position) -> bool) -> Result<Option<Whole>> {
    let mut passed_over = Vec::new();
    for (_, path) in list(folder)?.into_iter().rev() {
        match whole(folder, &path) {
            Ok(position) if fits(&position) => {
                return Ok(Some(Whole {
                    path,
                    position,
                    passed_over,
                }));
            }
            Ok(_) => {}
            Err(error) => passed_over.push(format!("{error:#}")),
        }
    }
    match passed_over.first() {
        None => Ok(None),
        Some(first) => bail!("no checkpoint is whole: {first}"),
    }
}

fn whole(folder: &Path, checkpoint: &Path) -> Result<Position> {
    verify(checkpoint)?;
    let position = position(checkpoint)?;
    match &position.best {
        Some(best) if best.step != position.step => verify(&folder.join(name(best.step)))?,
        _ => {}
    }
    Ok(position)
}

fn position(checkpoint: &Path) -> Result<Position> {
    let state = checkpoint.join(STATE);
    serde_json::from_slice(&read(&state)?).with_context(|| state.display().to_string())
}

/// Puts a checkpoint's weights into a module, and the rest into the optimizer and the average.
pub fn load<B: AutodiffBackend, M: Module<B>>(
    checkpoint: &Path,
    module: M,
    optimizer: &Optimizer<B>,
    ema: Option<&mut Ema<B::InnerBackend>>,
    position: &Position,
    device: &B::Device,
) -> Result<M> {
    let module = weights(checkpoint, module, optimizer.groups().names())?;
    let slots = tensors(&checkpoint.join(OPTIMIZER))?;
    let taken = position.taken.clone().into_iter().collect();
    optimizer.restore(slots, &taken, device);
    if let Some(ema) = ema {
        ema.restore(tensors(&checkpoint.join(EMA))?, device);
    }
    Ok(module)
}

/// A checkpoint's model as validation saw it: its average, where there is one.
pub fn validated<B: Backend, M: Module<B>>(
    checkpoint: &Path,
    module: M,
    names: Names,
    device: &B::Device,
) -> Result<M> {
    verify(checkpoint)?;
    let module = weights(checkpoint, module, names)?;
    let averages = checkpoint.join(EMA);
    if !averages.exists() {
        return Ok(module);
    }
    let mut ema = Ema::new(1.0, names);
    ema.restore(tensors(&averages)?, device);
    Ok(ema.apply(module))
}

fn weights<B: Backend, M: Module<B>>(checkpoint: &Path, module: M, names: Names) -> Result<M> {
    let path = checkpoint.join(MODEL);
    bundle::apply_checkpoint(module, names, &read(&path)?)
        .map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))
}

fn tensors(path: &Path) -> Result<Vec<HostTensor>> {
    unpack(&read(path)?).with_context(|| path.display().to_string())
}

fn pack(tensors: Vec<HostTensor>) -> Result<Vec<u8>> {
    let mut views = Vec::new();
    for HostTensor { name, data } in &tensors {
        if data.dtype != DType::F32 {
            bail!("{name} is {:?}, not f32", data.dtype);
        }
        let view = TensorView::new(Dtype::F32, data.shape.to_vec(), data.as_bytes())?;
        views.push((name, view));
    }
    Ok(safetensors::serialize(views, None::<HashMap<_, _>>)?)
}

fn unpack(bytes: &[u8]) -> Result<Vec<HostTensor>> {
    let file = SafeTensors::deserialize(bytes)?;
    let tensor = |(name, view): (String, TensorView)| {
        if view.dtype() != Dtype::F32 {
            bail!("{name} is {:?}, not f32", view.dtype());
        }
        let (bytes, shape) = (view.data().to_vec(), view.shape().to_vec());
        let data = TensorData::from_bytes_vec(bytes, shape, DType::F32);
        Ok(HostTensor { name, data })
    };
    file.tensors().into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_bit_for_bit() {
        // An accuracy that comes back one bit off would lose or win its next tie.
        for hits in 0..93 {
            let metrics = Metrics::from([("accuracy".into(), hits as f64 / 93.0)]);
            let position = Position {
                best: Some(Best { step: 1, metrics }),
                ..Position::default()
            };
            let json = serde_json::to_vec(&position).unwrap();
            assert_eq!(serde_json::from_slice::<Position>(&json).unwrap(), position);
        }
    }

    #[test]
    fn figures_that_are_not_finite_read_back_as_not_a_number() {
        let metrics = Metrics::from([("loss".into(), 800.0), ("perplexity".into(), f64::INFINITY)]);
        let position = Position {
            best: Some(Best {
                step: 1,
                metrics: metrics.clone(),
            }),
            last: Some(metrics),
            unreported: Some(Unreported {
                sums: vec![f64::NAN, 1.0],
                targets: 1,
                weight: 1.0,
                terms: Vec::new(),
                term_weights: Vec::new(),
                real: 1,
                padded: 1,
                timing: Timing::default(),
            }),
            ..Position::default()
        };
        let json = serde_json::to_vec(&position).unwrap();
        let back: Position = serde_json::from_slice(&json).unwrap();
        for metrics in [back.best.unwrap().metrics, back.last.unwrap()] {
            assert_eq!(metrics["loss"], 800.0);
            assert!(metrics["perplexity"].is_nan());
        }
        let sums = back.unreported.unwrap().sums;
        assert!(sums[0].is_nan() && sums[1] == 1.0);
    }
}
