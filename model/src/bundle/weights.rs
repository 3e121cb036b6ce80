//! shim
use super::BundleError;
use burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensors};
use std::{borrow::Cow, path::Path};
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Weights {
    bytes: Cow<'static, [u8]>,
    index: Vec<(String, Vec<usize>)>,
    name: String,
}
#[allow(missing_docs)]
pub struct TensorInfo<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
}
#[allow(missing_docs)]
impl Weights {
    pub fn open_directory(path: &Path) -> Result<Self, BundleError> {
        let at = path.join("model.safetensors");
        if !at.exists() {
            return Err(BundleError::NotABundle {
                path: path.into(),
                reason: "model.safetensors is missing".into(),
            });
        }
        let bytes = std::fs::read(&at).map_err(|source| BundleError::Io {
            path: at.clone(),
            source,
        })?;
        Self::from_safetensors(&at.display().to_string(), Cow::Owned(bytes))
    }
    pub fn open_file(path: &Path) -> Result<Self, BundleError> {
        let bytes = std::fs::read(path).map_err(|source| BundleError::Io {
            path: path.into(),
            source,
        })?;
        Self::from_safetensors(&path.display().to_string(), Cow::Owned(bytes))
    }
    pub fn from_safetensors(name: &str, bytes: Cow<'static, [u8]>) -> Result<Self, BundleError> {
        let file = SafeTensors::deserialize(&bytes).map_err(|e| BundleError::Weights {
            path: name.into(),
            reason: format!("not safetensors: {e}"),
        })?;
        let index = file
            .tensors()
            .into_iter()
            .map(|(n, v)| (n, v.shape().to_vec()))
            .collect();
        Ok(Self {
            index,
            name: name.into(),
            bytes,
        })
    }
    pub fn iter(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.index
            .iter()
            .map(|(name, shape)| TensorInfo { name, shape })
    }
    pub fn get(&self, name: &str) -> Option<TensorInfo<'_>> {
        self.iter().find(|t| t.name == name)
    }
    pub fn data(&self, name: &str) -> Result<TensorData, BundleError> {
        let wrong = |reason: String| BundleError::Weights {
            path: self.name.clone().into(),
            reason,
        };
        let file = SafeTensors::deserialize(&self.bytes).map_err(|e| wrong(e.to_string()))?;
        let view = file.tensor(name).map_err(|e| wrong(e.to_string()))?;
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            o => return Err(wrong(format!("{name} holds {o:?}"))),
        };
        Ok(
            TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype)
                .convert_dtype(DType::F32),
        )
    }
}
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Mismatch {
    pub missing: Vec<String>,
    pub unexpected: Vec<String>,
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
    pub likely: Option<&'static str>,
}
impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lacks {:?} shapes {:?}", self.missing, self.shapes)
    }
}
#[allow(missing_docs)]
pub fn likely_kind(_: &Weights) -> Option<&'static str> {
    None
}
