//! Goes through the parameters of a model by their Hugging Face names. In: a module. Out: its parameters, or the module
//! with others.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};

use crate::eight_bits::EightBits;
use crate::names::Names;
use crate::ops::half;

/// Where a visitor is in a module.
#[derive(Clone, Debug)]
pub struct ModulePath {
    names: Names,
    fields: Vec<String>,
    structs: Vec<String>,
}

impl ModulePath {
    /// At the root.
    pub fn new(names: Names) -> Self {
        Self {
            names,
            fields: Vec::new(),
            structs: Vec::new(),
        }
    }

    /// Into a field; `container` is what `enter_module` gets.
    pub fn enter(&mut self, field: &str, container: &str) {
        // Burn enters the chosen variant of an enum as if it were a field.
        if !container.starts_with("Enum:") {
            self.fields.push(field.into());
            self.structs.push(container.into());
        }
    }

    /// Out of it.
    pub fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.fields.pop();
            self.structs.pop();
        }
    }

    /// Hugging Face name of the parameter here, without the wrappers that training puts around a model.
    pub fn name(&self) -> String {
        let path = self.fields.join(".");
        let (_, inside) = unwrapped(&path);
        self.names.theirs(inside)
    }

    /// The same with the wrappers.
    pub fn name_with_wrappers(&self) -> String {
        let path = self.fields.join(".");
        let (wrappers, inside) = unwrapped(&path);
        format!("{wrappers}{}", self.names.theirs(inside))
    }

    /// Whether the parameter here is one of a linear layer's.
    pub fn is_of_linear(&self) -> bool {
        let container = self.structs.last().map(String::as_str);
        matches!(container, Some("Struct:Linear" | "Struct:Conv1d"))
    }

    /// Whether the matrix here is one that layers only multiply rows with, or look rows up in: that of a linear layer, or the
    /// table of tokens.
    pub(crate) fn is_only_multiplied(&self) -> bool {
        let container = self.structs.last().map(String::as_str);
        let names = self.names;
        let is_table = || {
            let table = names.family.token_table;
            !table.is_empty() && self.name() == format!("{}{table}", names.prefix())
        };
        match container {
            Some("Struct:Linear" | "Struct:Conv1d") => true,
            Some("Struct:Embedding") => is_table(),
            _ => false,
        }
    }

    /// Whether the matrix here is that of a linear layer that a bundle holds as the model does.
    pub(crate) fn is_conv1d(&self) -> bool {
        self.structs
            .last()
            .is_some_and(|container| container == "Struct:Conv1d")
    }

    /// Whether a bundle holds the matrix here the other way round.
    pub fn is_transposed(&self) -> bool {
        let container = self.structs.last().map(String::as_str);
        matches!(
            container,
            Some("Struct:Linear" | "Struct:LowRank" | "Struct:Bottleneck")
        )
    }
}

/// What training puts around a model, and the path inside it.
fn unwrapped(path: &str) -> (&str, &str) {
    let inside = path.strip_prefix("objective.").unwrap_or(path);
    let inside = inside.strip_prefix("model.").unwrap_or(inside);
    path.split_at(path.len() - inside.len())
}

/// A parameter of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Hugging Face name.
    pub name: String,
    /// As a bundle holds it.
    pub shape: Vec<usize>,
}

/// Values of a parameter, as a bundle holds them.
#[derive(Clone, Debug)]
pub enum Values {
    /// Of any type of floats.
    Floats(TensorData),
    /// Whole numbers and their scales.
    EightBits(EightBits),
}

impl Values {
    /// As floats.
    pub fn into_floats(self) -> TensorData {
        match self {
            Self::Floats(data) => data,
            Self::EightBits(matrix) => matrix.widen(),
        }
    }
}

/// All parameters in the order of the module's fields.
pub fn parameters<B: Backend, M: Module<B>>(module: &M, names: Names) -> Vec<Parameter> {
    struct Lister {
        path: ModulePath,
        found: Vec<Parameter>,
    }
    impl<B: Backend> ModuleVisitor<B> for Lister {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let mut shape = param.lazy_shape().to_vec();
            if D == 2 && self.path.is_transposed() {
                shape.reverse();
            }
            let name = self.path.name();
            self.found.push(Parameter { name, shape });
        }
    }
    let mut lister = Lister {
        path: ModulePath::new(names),
        found: Vec::new(),
    };
    module.visit(&mut lister);
    lister.found
}

/// Calls `visit` with the place and the values of every parameter, as a bundle holds them.
///
/// - visit: where it is, and values of the parameter's own type, in row-major order
pub fn values<B: Backend, M: Module<B>>(
    module: &M,
    names: Names,
    visit: &mut dyn FnMut(&ModulePath, TensorData),
) {
    struct Reader<'a> {
        path: ModulePath,
        visit: &'a mut dyn FnMut(&ModulePath, TensorData),
    }
    impl<B: Backend> ModuleVisitor<B> for Reader<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let mut tensor = param.val();
            if D == 2 && self.path.is_transposed() {
                tensor = tensor.swap_dims(0, 1);
            }
            (self.visit)(&self.path, tensor.into_data());
        }
    }
    module.visit(&mut Reader {
        path: ModulePath::new(names),
        visit,
    });
}

/// Replaces parameters by values that are looked up by place.
///
/// - value: gets a place and the shape there as a bundle holds it, and gives the values; nothing leaves a parameter as it is
///
/// # Panics
///
/// If a value has another number of elements than its parameter.
pub fn replace<B: Backend, M: Module<B>>(
    module: M,
    names: Names,
    value: &mut dyn FnMut(&ModulePath, &[usize]) -> Option<TensorData>,
) -> M {
    let mut value = |path: &ModulePath, shape: &[usize]| value(path, shape).map(Values::Floats);
    replace_in(module, names, &mut value, false)
}

/// The same for a model that is only computed with, never trained or saved, where the backend is faster with fewer bits, which is
/// Flex: matrices that layers only multiply with are held in 16 bits if these hold every value exactly, and stay in 8 if
/// they are.
///
/// # Panics
///
/// As [`replace`].
pub fn replace_for_inference<B: Backend, M: Module<B>>(
    module: M,
    names: Names,
    value: &mut dyn FnMut(&ModulePath, &[usize]) -> Option<Values>,
) -> M {
    replace_in(module, names, value, true)
}

fn replace_in<B: Backend, M: Module<B>>(
    module: M,
    names: Names,
    value: &mut dyn FnMut(&ModulePath, &[usize]) -> Option<Values>,
    for_inference: bool,
) -> M {
    struct Replacer<'a> {
        path: ModulePath,
        value: &'a mut dyn FnMut(&ModulePath, &[usize]) -> Option<Values>,
        for_inference: bool,
    }
    impl Replacer<'_> {
        /// Values of a bundle as the layer here wants them.
        fn placed<B: Backend, const D: usize>(&self, tensor: Tensor<B, D>) -> Tensor<B, D> {
            let turned = D == 2 && self.path.is_transposed();
            if D == 2 && self.for_inference && self.path.is_only_multiplied() {
                // One output after another in memory, as a bundle has those of a linear layer but not of a Conv1d.
                let narrow = half::narrowed(&tensor, self.path.is_conv1d());
                match narrow {
                    Some(narrow) if turned => return narrow.swap_dims(0, 1),
                    Some(narrow) => return narrow,
                    None => {}
                }
            }
            if turned {
                contiguous(tensor.swap_dims(0, 1))
            } else {
                tensor
            }
        }

        /// A matrix of 8 bits as it is, where it may stay so.
        fn packed<B: Backend, const D: usize>(&self, values: &Values) -> Option<Tensor<B, D>> {
            let Values::EightBits(matrix) = values else {
                return None;
            };
            let may_stay = D == 2 && self.for_inference && self.path.is_only_multiplied();
            let is_conv1d = self.path.is_conv1d();
            if !may_stay || matrix.is_by_columns() != is_conv1d {
                return None;
            }
            let outputs = half::packed(matrix)?;
            if is_conv1d || self.path.is_transposed() {
                return Some(outputs.swap_dims(0, 1));
            }
            Some(outputs)
        }
    }
    impl<B: Backend> ModuleMapper<B> for Replacer<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let mut shape = param.lazy_shape().to_vec();
            if D == 2 && self.path.is_transposed() {
                shape.reverse();
            }
            let Some(values) = (self.value)(&self.path, &shape) else {
                return param;
            };
            let (device, id) = (param.lazy_device(), param.id);
            if let Some(packed) = self.packed(&values) {
                return param.transform_for_load(packed, id);
            }
            let data = values.into_floats().convert_dtype(dtype::<B>(&device));
            let tensor = self.placed(Tensor::<B, D>::from_data(data, &device));
            param.transform_for_load(tensor, id)
        }
    }
    module.map(&mut Replacer {
        path: ModulePath::new(names),
        value,
        for_inference,
    })
}

/// The backend's element type.
fn dtype<B: Backend>(device: &B::Device) -> DType {
    Tensor::<B, 1>::zeros([1], device).dtype()
}

/// In row-major order, so that what reads it does not copy it each time.
fn contiguous<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    let device = tensor.device();
    Tensor::from_data(tensor.into_data(), &device)
}
