//! Tensors of `tests/golden`, by Hugging Face name, and how ours are compared with them.

#![allow(dead_code, reason = "each test program takes what it needs")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use burn::module::{AutodiffModule, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::{self, Precision};
use model::{Names, TokenInput};
use safetensors::SafeTensors;

/// Shape and values of a tensor, as a file holds it.
pub type Values = (Vec<usize>, Vec<f32>);

/// Tensors by name.
pub type Tensors = BTreeMap<String, Values>;

/// A file or folder of `tests/golden`.
pub fn path(name: &str) -> PathBuf {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
    PathBuf::from(tests).join(name)
}

/// All tensors of a safetensors file.
pub fn tensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    let values = |view: &safetensors::tensor::TensorView| -> Vec<f32> {
        let bytes = view.data();
        match view.dtype() {
            safetensors::Dtype::F32 => {
                let values = bytes
                    .chunks_exact(4)
                    .map(|b| b.try_into().map(f32::from_le_bytes));
                values.collect::<Result<_, _>>().expect("four bytes each")
            }
            // Ids and labels, far below where f32 stops counting.
            safetensors::Dtype::I64 => {
                let values = bytes
                    .chunks_exact(8)
                    .map(|b| b.try_into().map(i64::from_le_bytes));
                values
                    .map(|value| value.expect("eight bytes each") as f32)
                    .collect()
            }
            other => panic!("{other:?} in a golden file"),
        }
    };
    file.iter()
        .map(|(name, view)| (name.into(), (view.shape().to_vec(), values(&view))))
        .collect()
}

/// The tensors of a golden file.
pub fn golden(name: &str) -> Tensors {
    let path = path(name);
    tensors(&fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// Those whose names start with `prefix`, without it.
pub fn under(tensors: &Tensors, prefix: &str) -> Tensors {
    let inside = |(name, values): (&String, &Values)| {
        let name = name.strip_prefix(prefix)?;
        Some((name.to_string(), values.clone()))
    };
    tensors.iter().filter_map(inside).collect()
}

/// A batch of a golden file: tokens, segments where there are some, and padding.
pub fn input<B: Backend>(golden: &Tensors, device: &B::Device) -> TokenInput<B> {
    let int = |name: &str| golden.get(name).map(|tensor| ints(tensor, device));
    TokenInput {
        token_types: int("token_type_ids"),
        mask_pad: int("attention_mask").map(|mask| mask.equal_elem(0)),
        ..TokenInput::new(int("input_ids").unwrap())
    }
}

/// Ids of a golden file.
pub fn ints<B: Backend, const D: usize>(
    (shape, values): &Values,
    device: &B::Device,
) -> Tensor<B, D, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    Tensor::from_data(TensorData::new(values, shape.clone()), device)
}

/// The labelled positions of a flattened golden batch, and the tokens that belong there.
pub fn targets(golden: &Tensors) -> (Vec<i32>, Vec<u32>) {
    let (_, labels) = &golden["labels"];
    let labelled = labels
        .iter()
        .enumerate()
        .filter(|(_, label)| **label >= 0.0);
    labelled
        .map(|(at, &label)| (at as i32, label as u32))
        .unzip()
}

/// A module's parameters by Hugging Face name, in PyTorch's orientation.
pub fn parameters<B: Backend, M: Module<B>>(module: &M, names: Names) -> Tensors {
    tensors(&bundle::serialise(module, names, Precision::F32).expect("parameters are floats"))
}

/// The gradient of every parameter by Hugging Face name, in PyTorch's orientation.
///
/// # Panics
///
/// If a parameter has no gradient.
pub fn gradients<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: M,
    names: Names,
    grads: &B::Gradients,
) -> Tensors {
    /// Puts each gradient where its parameter was, so that names and orientation come for free.
    struct Replace<'a, B: AutodiffBackend>(&'a B::Gradients);
    impl<B: AutodiffBackend> ModuleMapper<B> for Replace<'_, B> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let (id, tensor, mapper) = param.consume();
            let grad = tensor
                .grad(self.0)
                .expect("every parameter takes part in the loss");
            Param::from_mapped_value(id, Tensor::from_inner(grad), mapper)
        }
    }
    parameters(&module.map(&mut Replace::<B>(grads)), names)
}

/// A tensor on the host.
pub fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Values {
    let data = tensor.into_data().convert::<f32>();
    (data.shape.to_vec(), data.iter::<f32>().collect())
}

/// The rows of the last axis at real tokens; values at padding have no meaning.
pub fn at_real(tensor: &Values, golden: &Tensors) -> Values {
    let (shape, values) = tensor;
    let width = shape[shape.len() - 1];
    let (_, mask) = &golden["attention_mask"];
    let rows = values.chunks_exact(width).zip(mask);
    let real: Vec<f32> = rows
        .filter(|(_, real)| **real == 1.0)
        .flat_map(|(row, _)| row)
        .copied()
        .collect();
    (vec![real.len() / width, width], real)
}

/// Fails where shapes differ or a value is further than `tolerance` away.
#[track_caller]
pub fn assert_near(name: &str, ours: &Values, theirs: &Values, tolerance: f32) {
    assert_eq!(ours.0, theirs.0, "shape of {name}");
    let differences = ours.1.iter().zip(&theirs.1).map(|(a, b)| (a - b).abs());
    // Written so that NaN fails.
    let far = differences
        .clone()
        .filter(|difference| difference.is_nan() || *difference > tolerance)
        .count();
    let largest = differences.fold(0.0, f32::max);
    assert!(
        far == 0,
        "{name}: {far} values differ by more than {tolerance:e}, by up to {largest:e}"
    );
}

/// [`assert_near`] for every tensor; the names must be the same on both sides.
#[track_caller]
pub fn assert_all_near(what: &str, ours: &Tensors, theirs: &Tensors, tolerance: f32) {
    let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(theirs), "names of {what}");
    for (name, values) in theirs {
        assert_near(&format!("{what} of {name}"), &ours[name], values, tolerance);
    }
}

/// The largest distance from zero.
pub fn largest((_, values): &Values) -> f32 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}
