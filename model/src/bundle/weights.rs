//! Tensors of a file or directory by their canonical names, whatever wrote it.
//!
//! In: `model.safetensors` or `pytorch_model.bin` (zip or legacy pickle), whole or in shards with their index. Out: names,
//! shapes and element types at once; the values of one tensor at a time, as f32, those of 8 bits times their scales. Files are
//! mapped into memory and not copied. A file is known by its content, not by its extension.
//!
//! A canonical name is the one that the model's own code gives: without the words of wrappers (`module.`, `_orig_mod.`), and
//! with `weight` and `bias` for the `gamma` and `beta` of old norms.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{DType, TensorData, bf16, f16};
use memmap2::Mmap;

use super::BundleError;
use crate::eight_bits::{EightBits, SCALE};
use crate::names::around_layer;
use pickle::Kind;

mod format;
mod layout;
mod mismatch;
mod names;
mod pickle;
mod safetensors_file;
mod state_dict;
mod torch_file;

#[cfg(test)]
mod tests;

use layout::Layout;
pub use mismatch::{Mismatch, likely_kind};

/// Weights of a directory and, for a model in shards, the index of its shards: first safetensors, then pickles.
const IN_DIRECTORY: [(&str, &str); 2] = [
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// Tensors of one or several files. Clones share the files.
#[derive(Clone, Debug)]
pub struct Weights {
    sources: Arc<Vec<Source>>,
    tensors: BTreeMap<String, Stored>,
    /// Tensors whose values can't be read, and what they are.
    foreign: BTreeMap<String, (usize, &'static str)>,
}

/// What is known of a tensor without reading its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorInfo<'a> {
    /// Its canonical name.
    pub name: &'a str,
    /// Its name in the file.
    pub raw: &'a str,
    /// As in PyTorch: a linear layer's weight is [outputs, inputs].
    pub shape: &'a [usize],
    /// Element type in the file.
    pub dtype: DType,
    /// The file that holds it.
    pub file: &'a str,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// The path as text.
    name: String,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Held(Cow<'static, [u8]>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

/// A tensor as its file describes it.
#[derive(Debug)]
struct Found {
    /// In the file.
    name: String,
    kind: Kind,
    shape: Vec<usize>,
    layout: Layout,
}

/// A tensor of the index.
#[derive(Clone, Debug)]
struct Stored {
    raw: String,
    source: usize,
    dtype: DType,
    shape: Vec<usize>,
    layout: Layout,
    /// Of a matrix of 8 bits.
    scale: Option<Box<Stored>>,
}

impl Weights {
    /// Whether a directory holds files that [`open_directory`](Self::open_directory) takes.
    pub fn are_in(path: &Path) -> bool {
        let mut names = IN_DIRECTORY.iter().flat_map(|(file, index)| [file, index]);
        names.any(|name| path.join(name).is_file())
    }

    /// Opens the weights of a Hugging Face directory.
    ///
    /// Taken are, in this order, `model.safetensors`, its shards, `pytorch_model.bin`, its shards.
    ///
    /// # Errors
    ///
    /// None of them is there (what is there instead is named, and the way out), a shard or one of its tensors is missing, or
    /// as [`Weights::open_file`].
    pub fn open_directory(path: &Path) -> Result<Self, BundleError> {
        for (file, index) in IN_DIRECTORY {
            let (file, index) = (path.join(file), path.join(index));
            if file.is_file() {
                return Self::open_file(&file);
            }
            if index.is_file() {
                return Self::open_shards(path, &index);
            }
        }
        Err(BundleError::NotABundle {
            path: path.into(),
            reason: format::without_weights(path),
        })
    }

    /// Opens one file: safetensors, or what `torch.save` wrote.
    ///
    /// # Errors
    ///
    /// The file can't be read, is of another kind (which is named), is cut off, asks for a function of Python, or has two
    /// different tensors of one canonical name.
    pub fn open_file(path: &Path) -> Result<Self, BundleError> {
        let (source, found) = read_file(path)?;
        Self::assemble(vec![source], vec![found])
    }

    /// Takes a safetensors file that is in memory; `name` is its path in messages.
    ///
    /// # Errors
    ///
    /// As [`Weights::open_file`].
    pub fn from_safetensors(
        name: &str,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Result<Self, BundleError> {
        let source = Source::new(name.into(), Bytes::Held(bytes.into()));
        let found = safetensors_file::read(&source.bytes).map_err(|reason| source.error(reason))?;
        Self::assemble(vec![source], vec![found])
    }

    /// Opens every shard that an index lists.
    fn open_shards(directory: &Path, index: &Path) -> Result<Self, BundleError> {
        let places = read_index(index)?;
        let wrong = |reason| weights_error(index, reason);
        let files: BTreeSet<&String> = places.values().collect();
        let missing: Vec<String> = files
            .iter()
            .filter(|file| !directory.join(file).is_file())
            .map(|file| file.to_string())
            .collect();
        if !missing.is_empty() {
            return Err(wrong(format!(
                "{} of the {} files that it lists are missing: {}",
                missing.len(),
                files.len(),
                listed(&missing)
            )));
        }
        let (mut sources, mut shards) = (Vec::new(), Vec::new());
        for file in files {
            let (source, found) = read_file(&directory.join(file))?;
            sources.push(source);
            shards.push(found);
        }
        let held: HashSet<&str> = shards
            .iter()
            .flatten()
            .map(|found| found.name.as_str())
            .collect();
        let lost = places.keys().filter(|name| !held.contains(name.as_str()));
        let lost: Vec<String> = lost.cloned().collect();
        if !lost.is_empty() {
            let lost = listed(&lost);
            return Err(wrong(format!(
                "it lists {lost}, which none of its files holds"
            )));
        }
        Self::assemble(sources, shards)
    }

    /// Makes one index of the tensors of each source.
    fn assemble(sources: Vec<Source>, found: Vec<Vec<Found>>) -> Result<Self, BundleError> {
        let mut weights = Self {
            sources: Arc::new(sources),
            tensors: BTreeMap::new(),
            foreign: BTreeMap::new(),
        };
        let found = found.into_iter().enumerate();
        let all: Vec<(usize, Found)> = found
            .flat_map(|(source, found)| found.into_iter().map(move |found| (source, found)))
            .collect();
        let raw: Vec<_> = all
            .iter()
            .map(|(_, found)| (found.name.as_str(), found.is_float()))
            .collect();
        let names = names::canonical(&raw).map_err(|reason| weights.sources[0].error(reason))?;
        for (name, (source, found)) in names.into_iter().zip(all) {
            weights.insert(name, source, found)?;
        }
        weights.pair_scales()?;
        if weights.tensors.is_empty() {
            return Err(weights.sources[0].error("it holds no tensor that can be read".into()));
        }
        Ok(weights)
    }

    /// Adds a tensor. A second one of the same name must have the same values.
    fn insert(&mut self, name: String, source: usize, found: Found) -> Result<(), BundleError> {
        let dtype = match found.kind {
            Kind::Known(dtype) => dtype,
            Kind::Foreign(kind) => {
                self.foreign.insert(name, (source, kind));
                return Ok(());
            }
        };
        let new = Stored {
            raw: found.name,
            source,
            dtype,
            shape: found.shape,
            layout: found.layout,
            scale: None,
        };
        if let Some(old) = self.tensors.get(&name) {
            if !self.same_values(old, &new) {
                let (first, second) = (self.place(old), self.place(&new));
                let reason = format!("{first} and {second} are both {name}, with different values");
                return Err(self.sources[source].error(reason));
            }
            return Ok(());
        }
        self.tensors.insert(name, new);
        Ok(())
    }

    /// Puts scales to their matrices: they are no tensors by themselves.
    fn pair_scales(&mut self) -> Result<(), BundleError> {
        let is_matrix = |tensor: &Stored| tensor.dtype == DType::I8 && tensor.shape.len() == 2;
        let matrices = self.tensors.iter().filter(|(_, tensor)| is_matrix(tensor));
        let names: Vec<String> = matrices.map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(scale) = self.tensors.remove(&format!("{name}{SCALE}")) else {
                continue;
            };
            let error = |reason| self.sources[scale.source].error(reason);
            if !scale.dtype.is_float() {
                let (raw, kind) = (&scale.raw, scale.dtype.name());
                return Err(error(format!(
                    "{raw} holds {kind} values, and floats are needed"
                )));
            }
            let Some(tensor) = self.tensors.get_mut(&name) else {
                continue;
            };
            let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
            if scale.shape != [rows, 1] && scale.shape != [1, columns] {
                let (raw, found) = (&scale.raw, &scale.shape);
                return Err(self.sources[scale.source].error(format!(
                    "{raw} has shape {found:?}; a matrix of [{rows}, {columns}] has scales of [{rows}, 1] or [1, {columns}]"
                )));
            }
            tensor.scale = Some(Box::new(scale));
        }
        Ok(())
    }

    fn same_values(&self, one: &Stored, other: &Stored) -> bool {
        let size = one.dtype.size();
        let bytes = |tensor: &Stored| &*self.sources[tensor.source].bytes;
        let same_scales = match (&one.scale, &other.scale) {
            (Some(one), Some(other)) => self.same_values(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        one.dtype == other.dtype
            && one.shape == other.shape
            && same_scales
            && one
                .layout
                .elements(bytes(one), &one.shape, size)
                .eq(other.layout.elements(bytes(other), &other.shape, size))
    }

    /// Whether two tensors are there with different values.
    pub fn differ(&self, one: &str, other: &str) -> bool {
        let both = (self.tensors.get(one), self.tensors.get(other));
        matches!(both, (Some(one), Some(other)) if !self.same_values(one, other))
    }

    /// A tensor's name in its file and, where there are several files, the file.
    fn place(&self, tensor: &Stored) -> String {
        if self.sources.len() == 1 {
            return tensor.raw.clone();
        }
        format!("{} in {}", tensor.raw, self.sources[tensor.source].name)
    }

    /// Every tensor whose values can be read, in the order of the names.
    ///
    /// Integers and booleans are among them: buffers such as `position_ids`, which no model loads.
    pub fn iter(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.tensors
            .iter()
            .map(|(name, tensor)| self.info(name, tensor))
    }

    /// The tensor of a canonical name.
    pub fn get(&self, name: &str) -> Option<TensorInfo<'_>> {
        let (name, tensor) = self.tensors.get_key_value(name)?;
        Some(self.info(name, tensor))
    }

    fn info<'a>(&'a self, name: &'a str, tensor: &'a Stored) -> TensorInfo<'a> {
        TensorInfo {
            name,
            raw: &tensor.raw,
            shape: &tensor.shape,
            dtype: tensor.dtype,
            file: &self.sources[tensor.source].name,
        }
    }

    /// The bytes of each file.
    pub fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.sources.iter().map(|source| &*source.bytes)
    }

    /// The same with some layers, which get the numbers from 0 on; what is in no layer stays.
    ///
    /// - before: what stands before a layer's number: `encoder.layer.`
    pub(super) fn with_layers(&self, before: &str, layers: &[usize]) -> Self {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            let Some((head, number, tail)) = around_layer(name, before) else {
                tensors.insert(name.clone(), tensor.clone());
                continue;
            };
            for (place, _) in layers
                .iter()
                .enumerate()
                .filter(|(_, layer)| **layer == number)
            {
                tensors.insert(format!("{head}{before}{place}{tail}"), tensor.clone());
            }
        }
        Self {
            sources: self.sources.clone(),
            tensors,
            foreign: self.foreign.clone(),
        }
    }

    /// Values of a float tensor as f32, in row-major order of its shape.
    ///
    /// # Errors
    ///
    /// The tensor is missing, holds no floats, or holds NaN or infinite values (or such as f32 can't hold).
    pub fn data(&self, name: &str) -> Result<TensorData, BundleError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(self.cannot_read(name));
        };
        if let Some(matrix) = self.matrix_of_8_bits(tensor)? {
            return Ok(matrix.widen());
        }
        let source = &self.sources[tensor.source];
        let values = tensor.floats(&source.bytes).ok_or_else(|| {
            if tensor.dtype == DType::I8 {
                let raw = &tensor.raw;
                return source.error(format!(
                    "{raw} holds numbers of 8 bits, and {raw}{SCALE}, which they are multiplied by, is missing"
                ));
            }
            let kind = tensor.dtype.name();
            source.error(format!(
                "{} holds {kind} values, and floats are needed",
                tensor.raw
            ))
        })?;
        let finite = values.iter().filter(|value| value.is_finite()).count();
        if finite < values.len() {
            let nan = values.iter().filter(|value| value.is_nan()).count();
            let infinite = values.len() - finite - nan;
            return Err(source.error(format!(
                "{} holds {nan} NaN and {infinite} infinite among its {} values: its training diverged or the file is damaged",
                tensor.raw,
                values.len()
            )));
        }
        Ok(TensorData::new(values, tensor.shape.clone()))
    }

    /// Whether there are matrices of 8 bits.
    pub fn are_of_8_bits(&self) -> bool {
        self.tensors.values().any(|tensor| tensor.scale.is_some())
    }

    /// A tensor as it is, if it is a matrix of 8 bits.
    ///
    /// # Errors
    ///
    /// Scales that are NaN or infinite.
    pub fn of_8_bits(&self, name: &str) -> Result<Option<EightBits>, BundleError> {
        match self.tensors.get(name) {
            Some(tensor) => self.matrix_of_8_bits(tensor),
            None => Ok(None),
        }
    }

    fn matrix_of_8_bits(&self, tensor: &Stored) -> Result<Option<EightBits>, BundleError> {
        let (Some(scale), &[rows, columns]) = (&tensor.scale, &tensor.shape[..]) else {
            return Ok(None);
        };
        let [source, source_of_scales] =
            [tensor.source, scale.source].map(|source| &self.sources[source]);
        let scales = scale.floats(&source_of_scales.bytes).unwrap_or_default();
        if scales.iter().any(|scale| !scale.is_finite()) {
            let raw = &scale.raw;
            let reason = format!("{raw} holds NaN or infinite values: the file is damaged");
            return Err(source_of_scales.error(reason));
        }
        let layout = &tensor.layout;
        let values = layout.read(&source.bytes, &tensor.shape, i8::from_le_bytes);
        let by_columns = scale.shape != [rows, 1];
        let shape = [rows, columns];
        Ok(Some(EightBits::new(values, scales, shape, by_columns)))
    }

    fn cannot_read(&self, name: &str) -> BundleError {
        if let Some(&(source, kind)) = self.foreign.get(name) {
            return self.sources[source].error(format!("{name} can't be read: it holds {kind}"));
        }
        self.sources[0].error(format!("lacks {name}"))
    }
}

impl Found {
    fn is_float(&self) -> bool {
        match self.kind {
            Kind::Known(dtype) => dtype.is_float(),
            Kind::Foreign(_) => true,
        }
    }
}

impl Stored {
    /// Values as f32; `None` where they are no floats.
    fn floats(&self, bytes: &[u8]) -> Option<Vec<f32>> {
        let (layout, shape) = (&self.layout, &self.shape);
        Some(match self.dtype {
            DType::F32 => layout.read(bytes, shape, f32::from_le_bytes),
            DType::F64 => layout.read(bytes, shape, |value| f64::from_le_bytes(value) as f32),
            DType::F16 => layout.read(bytes, shape, |value| f16::from_le_bytes(value).to_f32()),
            DType::BF16 => layout.read(bytes, shape, |value| bf16::from_le_bytes(value).to_f32()),
            _ => return None,
        })
    }
}

impl Source {
    fn new(path: PathBuf, bytes: Bytes) -> Self {
        let name = path.display().to_string();
        Self { path, name, bytes }
    }

    fn map(path: &Path) -> Result<Self, BundleError> {
        let io = |source| BundleError::Io {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(weights_error(
                path,
                "it is a directory, and a file is needed".into(),
            ));
        }
        if metadata.len() == 0 {
            return Ok(Self::new(path.into(), Bytes::Held(Cow::Borrowed(&[]))));
        }
        // SAFETY: the map is private to this process and only read. Weights are replaced as a whole file, which leaves the
        // mapped one as it was; whoever cuts it from outside meanwhile ends this process with a signal.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self::new(path.into(), Bytes::Mapped(map)))
    }

    fn error(&self, reason: String) -> BundleError {
        weights_error(&self.path, reason)
    }
}

fn weights_error(path: &Path, reason: String) -> BundleError {
    BundleError::Weights {
        path: path.into(),
        reason,
    }
}

/// Maps a file and reads its index.
fn read_file(path: &Path) -> Result<(Source, Vec<Found>), BundleError> {
    let source = Source::map(path)?;
    let found = format::read(path, &source.bytes).map_err(|reason| source.error(reason))?;
    Ok((source, found))
}

/// Which file holds which tensor, by an index of shards.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, BundleError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bytes = fs::read(path).map_err(|source| BundleError::Io {
        path: path.into(),
        source,
    })?;
    let wrong = |reason| weights_error(path, reason);
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("it is not an index of shards: {error}")))?;
    for file in index.weight_map.values() {
        let mut parts = Path::new(file).components();
        let (Some(Component::Normal(_)), None) = (parts.next(), parts.next()) else {
            return Err(wrong(format!(
                "it lists \"{file}\", which is not the name of a file beside it"
            )));
        };
    }
    if index.weight_map.is_empty() {
        return Err(wrong("it lists no tensor".into()));
    }
    Ok(index.weight_map)
}

/// The first three names, and how many more there are.
pub(super) fn listed(names: &[String]) -> String {
    match names {
        [first, second, third, _, rest @ ..] => {
            format!("{first}, {second}, {third} and {} more", rest.len() + 1)
        }
        few => few.join(", "),
    }
}
