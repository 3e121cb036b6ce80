//! Weights of a model by the paths of our modules. In: tensors by their Hugging Face names. Out: the tensor at a path.

use std::collections::BTreeMap;

use model::{HeadKind, Names};

use super::proto::data_type;

/// Element type of the weights in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32 bit.
    F32,
    /// 16 bit.
    F16,
    /// 16 bit with the range of 32 bit.
    Bf16,
}

impl Element {
    /// Its number in the file.
    pub fn number(self) -> i32 {
        match self {
            Self::F32 => data_type::FLOAT,
            Self::F16 => data_type::FLOAT16,
            Self::Bf16 => data_type::BFLOAT16,
        }
    }
}

/// Values of a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// As a bundle holds it.
    pub shape: Vec<usize>,
    /// Row-major, little-endian.
    pub bytes: Vec<u8>,
}

/// All weights of a model.
#[derive(Clone, Debug)]
pub struct Weights {
    /// How they are called.
    pub names: Names,
    /// Their type.
    pub element: Element,
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// - tensors: by their Hugging Face names, all of one type
    pub fn new(names: Names, element: Element, tensors: BTreeMap<String, Tensor>) -> Self {
        Self {
            names,
            element,
            tensors,
        }
    }

    /// Bytes of all of them.
    pub fn size(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.bytes.len()).sum()
    }

    /// The Hugging Face name of a path.
    ///
    /// - path: in our modules; that of a head begins with `head.`, any other is the backbone's
    pub fn name(&self, path: &str) -> String {
        if path.starts_with("head.") || self.names.head.kind == HeadKind::Bare {
            return self.names.theirs(path);
        }
        self.names.theirs(&format!("backbone.{path}"))
    }

    /// The shape of the tensor at a path, if there is one.
    pub fn shape(&self, path: &str) -> Option<&[usize]> {
        let tensor = self.tensors.get(&self.name(path))?;
        Some(&tensor.shape)
    }

    /// Whether there is a tensor at a path.
    pub fn has(&self, path: &str) -> bool {
        self.shape(path).is_some()
    }

    /// The size of a tensor's first axis; 0 where there is no such tensor.
    pub fn rows(&self, path: &str) -> usize {
        self.shape(path)
            .and_then(|shape| shape.first().copied())
            .unwrap_or(0)
    }

    /// The size of a tensor's second axis; 0 where there is no such tensor.
    pub fn columns(&self, path: &str) -> usize {
        self.shape(path)
            .and_then(|shape| shape.get(1).copied())
            .unwrap_or(0)
    }

    /// Height and width of a convolution's kernel; 1 where there is no such tensor.
    pub fn kernel(&self, path: &str) -> [usize; 2] {
        match self.shape(path) {
            Some(&[_, _, height, width]) => [height, width],
            _ => [1, 1],
        }
    }

    /// How many parts of a module are numbered from 0 on.
    ///
    /// - path: of a weight, with `{}` for the number
    pub fn count(&self, path: &str) -> usize {
        let has = |number: &usize| self.has(&path.replace("{}", &number.to_string()));
        (0..).take_while(has).count()
    }

    /// The values of a name, which are left empty, and their shape.
    pub(super) fn take(&mut self, name: &str) -> Option<Tensor> {
        let tensor = self.tensors.get_mut(name)?;
        let bytes = std::mem::take(&mut tensor.bytes);
        let shape = tensor.shape.clone();
        Some(Tensor { shape, bytes })
    }

    /// The names of all of them.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}
