//! Checkpoints: weights and optimizer in full precision, and where the run stood; atomic, checksummed by length.
//!
//! `checkpoints/step-00000500/` holds `model.safetensors`, `optimizer.safetensors` and `state.json`. It is written
//! beside, synced and renamed: what carries the name is whole.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, TensorData};
use model::bundle::{self, Load, Precision};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use crate::optimizer::{AdamW, HostMoments};

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Optimizer steps done.
    pub step: u64,
    /// Seconds of training, over all sittings.
    pub seconds: f64,
    /// Seconds of optimizer steps alone, over all sittings.
    pub step_seconds: f64,
    /// Real tokens or samples seen.
    pub units: u64,
    /// The same with padding.
    pub slots: u64,
    /// The best validation so far.
    pub best: Option<Best>,
    /// The last validation.
    pub last: Option<Metrics>,
    /// Validations since the best one.
    pub stale: u64,
    /// Bytes of `metrics.jsonl`.
    pub log_length: u64,
    /// What the next line of the log has so far, between two lines.
    pub unreported: Option<Unreported>,
}

/// Sums since the last line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unreported {
    /// Of the loss, then those that [`crate::Objective::SUMS`] names.
    pub sums: Vec<f64>,
    /// Over how many targets.
    pub targets: usize,
    /// Real tokens or samples.
    pub units: usize,
    /// Seconds of optimizer steps.
    pub seconds: f64,
}

/// A validation worth keeping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After this many steps.
    pub step: u64,
    /// All its figures.
    pub metrics: Metrics,
}

/// Writes a checkpoint and deletes the oldest beyond `keep`, never that of the best step.
pub fn save<B: AutodiffBackend, M: AutodiffModule<B>>(
    folder: &Path,
    module: &M,
    optimizer: &AdamW<B>,
    position: &Position,
    keep: usize,
) -> Result<()> {
    let name = format!("step-{:08}", position.step);
    let fresh = folder.join(format!(".{name}"));
    remove_unfinished(folder)?;
    let target = folder.join(&name);
    if !target.exists() {
        fs::create_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
        let weights =
            bundle::serialise(&module.valid(), Precision::F32).map_err(anyhow::Error::msg)?;
        write(&fresh.join("model.safetensors"), &weights)?;
        write(
            &fresh.join("optimizer.safetensors"),
            &pack(optimizer.moments())?,
        )?;
        let state = serde_json::to_vec_pretty(position)?;
        write(&fresh.join("state.json"), &state)?;
        fs::rename(&fresh, &target).with_context(|| target.display().to_string())?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .with_context(|| folder.display().to_string())?;
    }
    let best = position.best.as_ref().map(|best| best.step);
    let all = list(folder)?;
    let old = all.len().saturating_sub(keep);
    for (step, path) in &all[..old] {
        if Some(*step) != best {
            fs::remove_dir_all(path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
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

/// Where the newest checkpoint stands, if there is one.
pub fn newest(folder: &Path) -> Result<Option<(PathBuf, Position)>> {
    let Some((_, path)) = list(folder)?.pop() else {
        return Ok(None);
    };
    let state = path.join("state.json");
    let bytes = fs::read(&state).with_context(|| state.display().to_string())?;
    let position = serde_json::from_slice(&bytes).with_context(|| state.display().to_string())?;
    Ok(Some((path, position)))
}

/// Puts a checkpoint's weights into a module and its moments into an optimizer.
pub fn load<B: AutodiffBackend, M: Module<B>>(
    path: &Path,
    module: M,
    optimizer: &AdamW<B>,
    position: &Position,
    device: &B::Device,
) -> Result<M> {
    let weights = path.join("model.safetensors");
    let bytes = fs::read(&weights).with_context(|| weights.display().to_string())?;
    let module = bundle::apply(module, &bytes, Load::Whole)
        .map_err(|reason| anyhow::anyhow!("{}: {reason}", weights.display()))?;
    let moments = path.join("optimizer.safetensors");
    let bytes = fs::read(&moments).with_context(|| moments.display().to_string())?;
    let moments = unpack(&bytes).with_context(|| moments.display().to_string())?;
    optimizer.restore(position.step, moments, device);
    Ok(module)
}

fn pack(moments: Vec<HostMoments>) -> Result<Vec<u8>> {
    let mut views = Vec::new();
    for HostMoments {
        name,
        first,
        second,
    } in &moments
    {
        for (kind, data) in [("first", first), ("second", second)] {
            if data.dtype != DType::F32 {
                bail!("{name}: moments are {:?}, not f32", data.dtype);
            }
            let view = TensorView::new(Dtype::F32, data.shape.to_vec(), data.as_bytes())?;
            views.push((format!("{kind}.{name}"), view));
        }
    }
    Ok(safetensors::serialize(views, None::<HashMap<_, _>>)?)
}

fn unpack(bytes: &[u8]) -> Result<Vec<HostMoments>> {
    let file = SafeTensors::deserialize(bytes)?;
    let read = |name: &str| -> Result<TensorData> {
        let view = file.tensor(name).with_context(|| name.to_string())?;
        if view.dtype() != Dtype::F32 {
            bail!("{name} is {:?}, not f32", view.dtype());
        }
        let (bytes, shape) = (view.data().to_vec(), view.shape().to_vec());
        Ok(TensorData::from_bytes_vec(bytes, shape, DType::F32))
    };
    let mut moments = Vec::new();
    for full in file.names() {
        if let Some(name) = full.strip_prefix("first.") {
            moments.push(HostMoments {
                name: name.into(),
                first: read(full)?,
                second: read(&format!("second.{name}"))?,
            });
        }
    }
    Ok(moments)
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
}
