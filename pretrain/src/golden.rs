//! Golden values of objectives, for tests: `tests/golden/objectives`.

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::TensorData;
use safetensors::SafeTensors;

/// What tests compute on.
pub type Diff = Autodiff<Flex>;

/// How far a value may be from torch's in f64, of 1 or of a tensor's largest value where that is more.
const TOLERANCE: f32 = 2e-5;

/// A file of golden values.
pub struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    /// The file of this objective.
    pub fn open(name: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/objectives");
        let bytes = std::fs::read(format!("{folder}/{name}.safetensors")).unwrap();
        Self { bytes }
    }

    /// Values and shape of a tensor.
    pub fn values(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap();
        let values = match tensor.dtype() {
            safetensors::Dtype::F32 => tensor
                .data()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect(),
            safetensors::Dtype::I64 => tensor
                .data()
                .chunks_exact(8)
                .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as f32)
                .collect(),
            other => panic!("{other:?}"),
        };
        (values, tensor.shape().to_vec())
    }

    /// A single number.
    pub fn number(&self, name: &str) -> f32 {
        self.values(name).0[0]
    }

    /// A tensor.
    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<Diff, D> {
        let (values, shape) = self.values(name);
        Tensor::from_data(TensorData::new(values, shape), &Default::default())
    }

    /// A tensor that gradients are taken by.
    pub fn leaf<const D: usize>(&self, name: &str) -> Tensor<Diff, D> {
        self.tensor(name).require_grad()
    }

    /// Fails where a tensor is not the golden one.
    pub fn near<const D: usize>(&self, name: &str, ours: Tensor<Diff, D>) {
        self.near_inner(name, ours.inner());
    }

    /// The same without gradients.
    pub fn near_inner<const D: usize>(&self, name: &str, ours: Tensor<Flex, D>) {
        let (theirs, _) = self.values(name);
        let ours: Vec<f32> = ours.into_data().iter::<f32>().collect();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let largest = theirs.iter().fold(1.0f32, |most, x| most.max(x.abs()));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let off = (ours - theirs).abs();
            assert!(off < TOLERANCE * largest, "{name}: {ours}, not {theirs}");
        }
    }
}
