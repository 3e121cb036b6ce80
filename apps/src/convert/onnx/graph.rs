//! Builds a graph out of operators. In: weights. Out: a file.
//!
//! Operators are those of version 17, which every runtime of the last years knows.

use std::collections::{BTreeMap, BTreeSet};

use super::proto::{
    self, Attribute, Dimension, Entry, Model, Node, OperatorSet, Shape, TensorType, Type,
    ValueInfo, attribute_type, data_type,
};
use super::weights::{Element, Weights};

/// Version of the operators.
pub const OPSET: i64 = 17;
/// Version of the format that came with it.
const IR: i64 = 8;

/// A value that flows between nodes: its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Var(String);

/// The size of an axis of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Known.
    Size(usize),
    /// The caller's choice, by this name.
    Free(&'static str),
}

/// Nodes so far.
#[derive(Clone, Debug)]
pub struct Graph {
    /// What nodes take weights from.
    pub weights: Weights,
    nodes: Vec<Node>,
    initializers: Vec<proto::Tensor>,
    /// Weights that were taken, by their names in a bundle.
    taken: BTreeMap<String, Var>,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    /// The first weight that was asked for and is not there.
    missing: Option<String>,
}

/// A setting that is an integer.
pub fn int(name: &str, value: i64) -> Attribute {
    Attribute {
        name: name.into(),
        i: Some(value),
        r#type: attribute_type::INT,
        ..Attribute::default()
    }
}

/// A setting that is several integers.
pub fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute {
        name: name.into(),
        ints: values.to_vec(),
        r#type: attribute_type::INTS,
        ..Attribute::default()
    }
}

/// A setting that is a number.
pub fn float(name: &str, value: f64) -> Attribute {
    Attribute {
        name: name.into(),
        f: Some(value as f32),
        r#type: attribute_type::FLOAT,
        ..Attribute::default()
    }
}

impl Graph {
    /// An empty one.
    pub fn new(weights: Weights) -> Self {
        Self {
            weights,
            nodes: Vec::new(),
            initializers: Vec::new(),
            taken: BTreeMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            missing: None,
        }
    }

    /// Integers that the caller gives.
    pub fn input_integers(&mut self, name: &str, shape: &[Axis]) -> Var {
        self.inputs.push(described(name, data_type::INT64, shape));
        Var(name.into())
    }

    /// Floats that the caller gives.
    pub fn input_floats(&mut self, name: &str, shape: &[Axis]) -> Var {
        self.inputs.push(described(name, data_type::FLOAT, shape));
        Var(name.into())
    }

    /// Floats that the caller gets.
    pub fn output(&mut self, name: &str, value: &Var, shape: &[Axis]) {
        self.nodes.push(Node {
            input: vec![value.0.clone()],
            output: vec![name.into()],
            name: name.into(),
            op_type: "Identity".into(),
            attribute: Vec::new(),
        });
        self.outputs.push(described(name, data_type::FLOAT, shape));
    }

    /// One operator on some values.
    pub fn node<const N: usize>(
        &mut self,
        operator: &str,
        input: [&Var; N],
        attribute: Vec<Attribute>,
    ) -> Var {
        let name = format!("{operator}_{}", self.nodes.len());
        self.nodes.push(Node {
            input: input.map(|var| var.0.clone()).to_vec(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: operator.into(),
            attribute,
        });
        Var(name)
    }

    /// Equal parts of an axis.
    pub fn split<const N: usize>(&mut self, x: &Var, axis: i64) -> [Var; N] {
        let name = format!("Split_{}", self.nodes.len());
        let parts: [String; N] = std::array::from_fn(|part| format!("{name}_{part}"));
        self.nodes.push(Node {
            input: vec![x.0.clone()],
            output: parts.to_vec(),
            name,
            op_type: "Split".into(),
            attribute: vec![int("axis", axis)],
        });
        parts.map(Var)
    }

    /// Values that are known; an empty shape is that of a single one.
    pub fn floats(&mut self, values: &[f32], shape: &[usize]) -> Var {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.constant(data_type::FLOAT, bytes.collect(), shape)
    }

    /// A number that is known.
    pub fn number(&mut self, value: f64) -> Var {
        self.floats(&[value as f32], &[])
    }

    /// Integers that are known, as a row.
    pub fn integers(&mut self, values: &[i64]) -> Var {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.constant(data_type::INT64, bytes.collect(), &[values.len()])
    }

    /// An integer that is known.
    pub fn integer(&mut self, value: i64) -> Var {
        self.constant(data_type::INT64, value.to_le_bytes().to_vec(), &[])
    }

    fn constant(&mut self, data_type: i32, raw_data: Vec<u8>, shape: &[usize]) -> Var {
        let dims = signed(shape);
        let same = |known: &&proto::Tensor| {
            known.name.starts_with("constant_")
                && known.raw_data == raw_data
                && known.dims == dims
                && known.data_type == data_type
        };
        if let Some(known) = self.initializers.iter().find(same) {
            return Var(known.name.clone());
        }
        let name = format!("constant_{}", self.initializers.len());
        self.initializers.push(proto::Tensor {
            dims,
            data_type,
            name: name.clone(),
            raw_data,
        });
        Var(name)
    }

    /// The weight at a path, in 32 bits. One that is not there fails [`finish`](Self::finish).
    pub fn weight(&mut self, path: &str) -> Var {
        let name = self.weights.name(path);
        if let Some(known) = self.taken.get(&name) {
            return known.clone();
        }
        let Some(tensor) = self.weights.take(&name) else {
            self.missing.get_or_insert_with(|| name.clone());
            return Var(name);
        };
        let element = self.weights.element;
        self.initializers.push(proto::Tensor {
            dims: signed(&tensor.shape),
            data_type: element.number(),
            name: name.clone(),
            raw_data: tensor.bytes,
        });
        let mut var = Var(name.clone());
        if element != Element::F32 {
            let to = int("to", data_type::FLOAT.into());
            var = self.node("Cast", [&var], vec![to]);
        }
        self.taken.insert(name, var.clone());
        var
    }

    /// Refuses a graph that leaves out part of the model.
    pub fn check_all_taken(&self) -> Result<(), String> {
        let mut names = self.weights.all();
        match names.find(|name| !self.taken.contains_key(*name)) {
            Some(name) => Err(format!("{name} has no place in an ONNX graph")),
            None => Ok(()),
        }
    }

    /// The file.
    ///
    /// # Errors
    ///
    /// A weight that nodes wanted and that the model does not have.
    pub fn finish(mut self, name: &str, metadata: Vec<Entry>) -> Result<Model, String> {
        if let Some(missing) = self.missing {
            return Err(format!("lacks {missing}"));
        }
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        wanted.extend(self.outputs.iter().map(|output| output.name.clone()));
        // From the end: what no output needs is left out.
        let mut kept = Vec::new();
        for node in self.nodes.into_iter().rev() {
            if node.output.iter().any(|output| wanted.contains(output)) {
                wanted.extend(node.input.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        self.initializers
            .retain(|tensor| wanted.contains(&tensor.name));
        Ok(Model {
            ir_version: IR,
            producer_name: "hearth".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(proto::Graph {
                node: kept,
                name: name.into(),
                initializer: self.initializers,
                input: self.inputs,
                output: self.outputs,
            }),
            opset_import: vec![OperatorSet {
                domain: String::new(),
                version: OPSET,
            }],
            metadata_props: metadata,
        })
    }
}

fn signed(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&size| size as i64).collect()
}

fn described(name: &str, elem_type: i32, shape: &[Axis]) -> ValueInfo {
    let dimension = |axis: &Axis| match *axis {
        Axis::Size(size) => Dimension {
            dim_value: Some(size as i64),
            dim_param: None,
        },
        Axis::Free(name) => Dimension {
            dim_value: None,
            dim_param: Some(name.into()),
        },
    };
    let shape = Shape {
        dim: shape.iter().map(dimension).collect(),
    };
    ValueInfo {
        name: name.into(),
        r#type: Some(Type {
            tensor_type: Some(TensorType {
                elem_type,
                shape: Some(shape),
            }),
        }),
    }
}
