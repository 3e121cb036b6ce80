//! Reads a pickle that `torch.save` wrote as a plain structure. In: its bytes. Out: dictionaries, lists, numbers and tensors.
//!
//! A pickle is a program for a small stack machine which may call any function of Python. This machine calls none: the few
//! functions that a file of tensors needs ([`global`]) are known by name and understood as data, others are refused as
//! `torch.load(weights_only=True)` refuses them. Burn-store's reader is not used: it leaves out the strides of a tensor
//! (a transposed one is read wrong), and takes zeros for values that the file lacks.
//!
//! The opcodes: <https://github.com/python/cpython/blob/main/Lib/pickletools.py>.

use std::collections::HashMap;

use burn::tensor::{BoolStore, DType};
use thiserror::Error;

/// Place of a value in [`Pickle`]. Values refer to others by place, so that a deeply nested file can't exhaust the stack.
pub(super) type Id = usize;

/// Why a pickle can't be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum PickleError {
    /// The bytes end before the program does.
    #[error("its pickle is cut off at byte {at}")]
    CutOff { at: usize },
    /// An instruction that no pickle of tensors has.
    #[error("its pickle has the unknown instruction 0x{code:02x} at byte {at}")]
    Opcode { code: u8, at: usize },
    /// The program takes what is not there, or a tensor is described wrongly.
    #[error("its pickle is damaged at byte {at}: {what}")]
    Damaged { what: &'static str, at: usize },
    /// A function that is not known to be harmless.
    #[error(
        "it asks for `{module}.{name}`, which a file of tensors doesn't need and which was not executed"
    )]
    Function { module: String, name: String },
    /// An object of a class, most often a whole model.
    #[error(
        "it holds an object of the Python class `{module}.{name}` and not only tensors; it was not executed"
    )]
    Object { module: String, name: String },
}

type Result<T> = std::result::Result<T, PickleError>;

/// What the values of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An element type that Burn has.
    Known(DType),
    /// Another one, in words.
    Foreign(&'static str),
}

/// Element type of a storage or tensor, and its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub kind: Kind,
    pub size: usize,
}

/// A run of values that tensors show parts of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    /// Its name in the file.
    pub key: String,
    pub element: Element,
    /// Where a view on another storage begins, in elements.
    pub offset: usize,
}

/// A tensor: which part of a storage, in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub storage: String,
    pub element: Element,
    /// Of its first value, in elements.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
}

/// A value of Python.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Tensor),
    /// A tensor of a kind that can't be read, in words.
    ForeignTensor(&'static str),
    /// Anything that says nothing about tensors.
    Other,
}

/// What a function or class of Python means in a file of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    Dict,
    /// `_rebuild_tensor(storage, offset, size, stride, ...)`.
    Tensor,
    /// The same with a storage of plain bytes and the element type as seventh argument.
    TypedTensor,
    /// `_rebuild_from_type_v2(function, type, arguments, state)`.
    TensorSubclass,
    /// A function that gives back its first argument.
    First,
    Storage(Element),
    Dtype(Element),
    ForeignTensor(&'static str),
    /// Holds no tensor: its values are left out.
    Harmless,
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    /// The outermost value.
    pub root: Id,
    /// How many bytes it takes.
    pub len: usize,
}

impl Pickle {
    pub fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// Every value, in the order of the file.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }

    /// Entries of a dictionary whose keys are text; none where it isn't one.
    pub fn entries(&self, id: Id) -> impl Iterator<Item = (&str, Id)> {
        let entries = match self.get(id) {
            Value::Dict(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().filter_map(|&(key, value)| {
            let Value::Text(key) = self.get(key) else {
                return None;
            };
            Some((key.as_str(), value))
        })
    }
}

/// Reads the pickle at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle> {
    let machine = Machine {
        bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    machine.run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

impl<'a> Machine<'a> {
    fn run(mut self) -> Result<Pickle> {
        loop {
            let at = self.at;
            let code = self.byte()?;
            if code == b'.' {
                let root = self.pop()?;
                return Ok(Pickle {
                    values: self.values,
                    root,
                    len: self.at,
                });
            }
            if let Some(value) = self.literal(code)? {
                self.push(value);
            } else if !(self.container(code)? || self.memory(code)? || self.object(code)?) {
                return Err(PickleError::Opcode { code, at });
            }
        }
    }

    /// Numbers, text and bytes.
    fn literal(&mut self, code: u8) -> Result<Option<Value>> {
        Ok(Some(match code {
            b'N' => Value::Other,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(self.unsigned(2)? as i64),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            0x8a => {
                let len = self.unsigned(1)?;
                integer(self.take(len)?)
            }
            0x8b => {
                let len = self.unsigned(4)?;
                integer(self.take(len)?)
            }
            b'I' => match self.line()? {
                b"00" => Value::Bool(false),
                b"01" => Value::Bool(true),
                digits => decimal(digits),
            },
            b'L' => decimal(self.line()?),
            b'G' => {
                self.take(8)?;
                Value::Other
            }
            b'F' => {
                self.line()?;
                Value::Other
            }
            b'S' => quoted(self.line()?),
            b'V' => text(self.line()?),
            b'U' | 0x8c => self.text_of(1)?,
            b'T' | b'X' => self.text_of(4)?,
            0x8d => self.text_of(8)?,
            b'C' => self.skip_of(1)?,
            b'B' => self.skip_of(4)?,
            0x8e | 0x96 => self.skip_of(8)?,
            _ => return Ok(None),
        }))
    }

    /// Tuples, lists, dictionaries and sets. Says whether `code` is one of their instructions.
    fn container(&mut self, code: u8) -> Result<bool> {
        match code {
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x8f => self.push(Value::Other),
            b'(' => self.marks.push(self.stack.len()),
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(code - 0x84))?;
                self.push(Value::Tuple(items));
            }
            b't' => {
                let items = self.pop_marked()?;
                self.push(Value::Tuple(items));
            }
            b'l' => {
                let items = self.pop_marked()?;
                self.push(Value::List(items));
            }
            b'd' => {
                let items = self.pop_marked()?;
                self.push(Value::Dict(pairs(&items)));
            }
            0x91 => {
                self.pop_marked()?;
                self.push(Value::Other);
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.pop_marked()?;
                self.extend_list(items)?;
            }
            // Items of a set.
            0x90 => drop(self.pop_marked()?),
            b's' => {
                let items = self.pop_many(2)?;
                self.extend_dict(&items)?;
            }
            b'u' => {
                let items = self.pop_marked()?;
                self.extend_dict(&items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The stack and the memo. Says whether `code` is one of their instructions.
    fn memory(&mut self, code: u8) -> Result<bool> {
        match code {
            // The protocol's version, and the length of a frame: nothing depends on either.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_marked()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'q' => {
                let slot = self.unsigned(1)?;
                self.remember(slot)?;
            }
            b'r' => {
                let slot = self.unsigned(4)?;
                self.remember(slot)?;
            }
            b'p' => {
                let slot = self.slot()?;
                self.remember(slot)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'h' => {
                let slot = self.unsigned(1)?;
                self.recall(slot)?;
            }
            b'j' => {
                let slot = self.unsigned(4)?;
                self.recall(slot)?;
            }
            b'g' => {
                let slot = self.slot()?;
                self.recall(slot)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Functions, objects and storages. Says whether `code` is one of their instructions.
    fn object(&mut self, code: u8) -> Result<bool> {
        match code {
            b'c' => {
                let module = String::from_utf8_lossy(self.line()?);
                let name = String::from_utf8_lossy(self.line()?);
                self.push_global(&module, &name)?;
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let (Value::Text(module), Value::Text(name)) =
                    (&self.values[names[0]], &self.values[names[1]])
                else {
                    return Err(self.damaged("a function has no name"));
                };
                let (module, name) = (module.clone(), name.clone());
                self.push_global(&module, &name)?;
            }
            // An instance of an old-style class: its name stands where a function's does.
            b'i' => {
                let module = String::from_utf8_lossy(self.line()?);
                let name = String::from_utf8_lossy(self.line()?);
                self.pop_marked()?;
                known(&module, &name)?;
                self.push(Value::Other);
            }
            b'R' | 0x81 => {
                let call = self.pop_many(2)?;
                let result = self.call(call[0], call[1])?;
                self.stack.push(result);
            }
            0x92 => {
                let call = self.pop_many(3)?;
                let result = self.call(call[0], call[1])?;
                self.stack.push(result);
            }
            // The state of an object: attributes, never a tensor of a state dictionary.
            b'b' => drop(self.pop()?),
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(storage));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = known(module, name)?;
        self.push(Value::Global(global));
        Ok(())
    }

    /// What a call gives, for the calls that are known; the function itself is never run.
    fn call(&mut self, function: Id, arguments: Id) -> Result<Id> {
        let Value::Global(global) = self.values[function] else {
            return Ok(self.add(Value::Other));
        };
        let Value::Tuple(arguments) = self.values[arguments].clone() else {
            return Err(self.damaged("a call has no arguments"));
        };
        let value = match global {
            Global::Dict => Value::Dict(self.entries_of(arguments.first().copied())),
            Global::Tensor => self.tensor(&arguments, None)?,
            Global::TypedTensor => {
                let dtype = arguments.get(6).map(|&id| &self.values[id]);
                let Some(&Value::Global(Global::Dtype(element))) = dtype else {
                    return Err(self.damaged("a tensor has no element type"));
                };
                self.tensor(&arguments, Some(element))?
            }
            Global::TensorSubclass => {
                let [function, _, inner, ..] = arguments[..] else {
                    return Err(self.damaged("a tensor has too few arguments"));
                };
                // One level only: a subclass rebuilds a plain tensor.
                if self.values[function] == Value::Global(Global::TensorSubclass) {
                    return Err(self.damaged("a tensor is rebuilt by itself"));
                }
                return self.call(function, inner);
            }
            Global::First => match arguments.first() {
                Some(&first) => return Ok(first),
                None => Value::Other,
            },
            Global::ForeignTensor(kind) => Value::ForeignTensor(kind),
            Global::Storage(_) | Global::Dtype(_) | Global::Harmless => Value::Other,
        };
        Ok(self.add(value))
    }

    /// Entries that `OrderedDict(pairs)` was given; Python 2 wrote them so.
    fn entries_of(&self, argument: Option<Id>) -> Vec<(Id, Id)> {
        let Some(Value::List(items)) = argument.map(|id| &self.values[id]) else {
            return Vec::new();
        };
        let pair = |&id: &Id| match &self.values[id] {
            Value::List(pair) | Value::Tuple(pair) => Some((*pair.first()?, *pair.get(1)?)),
            _ => None,
        };
        items.iter().filter_map(pair).collect()
    }

    /// A tensor from the arguments `storage, offset, size, stride`.
    fn tensor(&self, arguments: &[Id], element: Option<Element>) -> Result<Value> {
        let &[storage, offset, size, stride, ..] = arguments else {
            return Err(self.damaged("a tensor has too few arguments"));
        };
        let Value::Storage(storage) = &self.values[storage] else {
            return Err(self.damaged("a tensor has no storage"));
        };
        let (shape, strides) = (self.numbers(size)?, self.numbers(stride)?);
        if shape.len() != strides.len() {
            return Err(self.damaged("a tensor's shape and strides differ in length"));
        }
        let offset = self.number(offset)?.checked_add(storage.offset);
        Ok(Value::Tensor(Tensor {
            storage: storage.key.clone(),
            element: element.unwrap_or(storage.element),
            offset: offset.ok_or_else(|| self.damaged("a tensor's offset is too large"))?,
            shape,
            strides,
        }))
    }

    /// A storage from `("storage", type, key, device, length)` and, in old files, `(view's key, offset, length)`.
    fn storage(&self, id: Id) -> Result<Storage> {
        let Value::Tuple(parts) = &self.values[id] else {
            return Err(self.damaged("a storage is not described by a tuple"));
        };
        let part = |index: usize| parts.get(index).map(|&id| &self.values[id]);
        match (part(0), part(1), part(2)) {
            (
                Some(Value::Text(tag)),
                Some(&Value::Global(Global::Storage(element))),
                Some(Value::Text(key)),
            ) if tag == "storage" => {
                let offset = match part(5) {
                    Some(Value::Tuple(view)) if view.len() == 3 => self.number(view[1])?,
                    _ => 0,
                };
                Ok(Storage {
                    key: key.clone(),
                    element,
                    offset,
                })
            }
            _ => Err(self.damaged("a storage is described in an unknown way")),
        }
    }

    fn number(&self, id: Id) -> Result<usize> {
        match self.values[id] {
            Value::Int(number) => usize::try_from(number).ok(),
            _ => None,
        }
        .ok_or_else(|| self.damaged("a size, stride or offset is no number from 0"))
    }

    fn numbers(&self, id: Id) -> Result<Vec<usize>> {
        match &self.values[id] {
            Value::Tuple(ids) | Value::List(ids) => ids.iter().map(|&id| self.number(id)).collect(),
            _ => Err(self.damaged("a shape is no tuple")),
        }
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        if let Value::List(list) = &mut self.values[top] {
            list.extend(items);
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<()> {
        let top = self.top()?;
        if let Value::Dict(entries) = &mut self.values[top] {
            entries.extend(pairs(items));
        }
        Ok(())
    }

    fn remember(&mut self, slot: usize) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: usize) -> Result<()> {
        match self.memo.get(&slot) {
            Some(&id) => self.stack.push(id),
            None => return Err(self.damaged("a value is used before it is there")),
        }
        Ok(())
    }

    fn add(&mut self, value: Value) -> Id {
        self.values.push(value);
        self.values.len() - 1
    }

    fn push(&mut self, value: Value) {
        let id = self.add(value);
        self.stack.push(id);
    }

    /// Nothing below an open mark may be taken.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => Err(self.damaged("its stack is empty")),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        if self.stack.len() < self.floor() + count {
            return Err(self.damaged("its stack is empty"));
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_marked(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(self.damaged("its stack has no mark")),
        }
    }

    fn damaged(&self, what: &'static str) -> PickleError {
        PickleError::Damaged { what, at: self.at }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or(PickleError::CutOff {
            at: self.bytes.len(),
        })?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// A little-endian number of up to 8 bytes. One that memory can't hold is longer than the file too.
    fn unsigned(&mut self, bytes: usize) -> Result<usize> {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(self.take(bytes)?);
        Ok(usize::try_from(u64::from_le_bytes(number)).unwrap_or(usize::MAX))
    }

    fn text_of(&mut self, width: usize) -> Result<Value> {
        let len = self.unsigned(width)?;
        let bytes = self.take(len)?;
        Ok(str::from_utf8(bytes).map_or(Value::Other, |text| Value::Text(text.into())))
    }

    fn skip_of(&mut self, width: usize) -> Result<Value> {
        let len = self.unsigned(width)?;
        self.take(len)?;
        Ok(Value::Other)
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(end.unwrap_or(rest.len()))?;
        self.take(1)?;
        Ok(line)
    }

    fn slot(&mut self) -> Result<usize> {
        match decimal(self.line()?) {
            Value::Int(slot) => usize::try_from(slot).ok(),
            _ => None,
        }
        .ok_or_else(|| self.damaged("a place of its memo is no number from 0"))
    }
}

/// Two's complement, little-endian. Larger ones than 64 bit are no sizes.
fn integer(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Other;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut number = [if negative { 0xff } else { 0 }; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(number))
}

fn decimal(digits: &[u8]) -> Value {
    // Python 2 wrote long numbers as `12L`.
    let digits = digits.strip_suffix(b"L").unwrap_or(digits);
    let number = str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    number.map_or(Value::Other, Value::Int)
}

/// Text without escapes; a name of a tensor has none.
fn text(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains('\\') => Value::Text(text.into()),
        _ => Value::Other,
    }
}

fn quoted(line: &[u8]) -> Value {
    match line {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => text(inner),
        _ => Value::Other,
    }
}

fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    let (pairs, _) = items.as_chunks::<2>();
    pairs.iter().map(|&[key, value]| (key, value)).collect()
}

/// Functions and classes that say nothing about tensors and that checkpoints often hold beside them.
const HARMLESS: &[(&str, &[&str])] = &[
    ("argparse", &["Namespace"]),
    ("_codecs", &["encode"]),
    ("collections", &["Counter", "deque"]),
    ("copy_reg", &["_reconstructor"]),
    ("copyreg", &["_reconstructor"]),
    (
        "datetime",
        &["date", "datetime", "time", "timedelta", "timezone"],
    ),
    ("easydict", &["EasyDict"]),
    ("lightning_fabric.utilities.data", &["AttributeDict"]),
    ("lightning.fabric.utilities.data", &["AttributeDict"]),
    ("numpy", &["dtype", "ndarray"]),
    ("numpy.core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    (
        "pathlib",
        &[
            "Path",
            "PosixPath",
            "PurePath",
            "PurePosixPath",
            "PureWindowsPath",
            "WindowsPath",
        ],
    ),
    (
        "pathlib._local",
        &[
            "Path",
            "PosixPath",
            "PurePath",
            "PurePosixPath",
            "PureWindowsPath",
            "WindowsPath",
        ],
    ),
    ("pytorch_lightning.utilities.parsing", &["AttributeDict"]),
    ("torch", &["device", "Generator", "Tensor"]),
    ("torch.nn.parameter", &["Parameter", "Buffer"]),
    ("torch.serialization", &["_get_layout"]),
    ("torch.torch_version", &["TorchVersion"]),
    ("yacs.config", &["CfgNode"]),
];

/// Plain types of Python; `eval`, `exec`, `getattr` and their like are not among them.
const PLAIN_TYPES: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
    "unicode",
];

fn known(module: &str, name: &str) -> Result<Global> {
    global(module, name).ok_or_else(|| {
        let (module, own) = (module.to_string(), name.to_string());
        if name.starts_with(|first: char| first.is_ascii_uppercase()) {
            PickleError::Object { module, name: own }
        } else {
            PickleError::Function { module, name: own }
        }
    })
}

/// What a function or class means, where it is known.
fn global(module: &str, name: &str) -> Option<Global> {
    let global = match (module, name) {
        ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => Global::Dict,
        // Its first argument makes missing values; entries come after.
        ("collections", "defaultdict") => Global::Dict,
        ("builtins" | "__builtin__", name) if PLAIN_TYPES.contains(&name) => Global::Harmless,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::TypedTensor,
        ("torch._tensor", "_rebuild_from_type_v2") => Global::TensorSubclass,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
        | ("torch", "Size") => Global::First,
        ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
            Global::ForeignTensor("a sparse tensor")
        }
        ("torch._utils", "_rebuild_qtensor") => Global::ForeignTensor("a quantised tensor"),
        ("torch._utils", "_rebuild_nested_tensor") => Global::ForeignTensor("a nested tensor"),
        ("torch._utils", "_rebuild_meta_tensor_no_storage") => {
            Global::ForeignTensor("a tensor without values (on the device \"meta\")")
        }
        ("torch._utils", "_rebuild_device_tensor_from_numpy" | "_rebuild_xla_tensor") => {
            Global::ForeignTensor("a tensor saved from an accelerator without a storage")
        }
        ("torch" | "torch.cuda" | "torch.storage", name) if name.ends_with("Storage") => {
            Global::Storage(storage_element(name)?)
        }
        ("torch", name) if dtype_element(name).is_some() => Global::Dtype(dtype_element(name)?),
        _ => {
            let mut classes = HARMLESS
                .iter()
                .filter(|(in_module, _)| *in_module == module);
            classes.find(|(_, names)| names.contains(&name))?;
            Global::Harmless
        }
    };
    Some(global)
}

fn storage_element(name: &str) -> Option<Element> {
    let dtype = match name.strip_suffix("Storage")? {
        "Float" => "float32",
        "Double" => "float64",
        "Half" => "float16",
        "BFloat16" => "bfloat16",
        "Long" => "int64",
        "Int" => "int32",
        "Short" => "int16",
        "Char" => "int8",
        // Plain bytes get their element type from the tensor.
        "Byte" | "Untyped" => "uint8",
        "Bool" => "bool",
        "ComplexFloat" => "complex64",
        "ComplexDouble" => "complex128",
        "QInt8" => "qint8",
        "QUInt8" => "quint8",
        "QInt32" => "qint32",
        _ => return None,
    };
    dtype_element(dtype)
}

fn dtype_element(name: &str) -> Option<Element> {
    let burn = |dtype: DType| Element {
        kind: Kind::Known(dtype),
        size: dtype.size(),
    };
    let foreign = |words, size| Element {
        kind: Kind::Foreign(words),
        size,
    };
    Some(match name {
        "float32" => burn(DType::F32),
        "float64" => burn(DType::F64),
        "float16" => burn(DType::F16),
        "bfloat16" => burn(DType::BF16),
        "int64" => burn(DType::I64),
        "int32" => burn(DType::I32),
        "int16" => burn(DType::I16),
        "int8" => burn(DType::I8),
        "uint64" => burn(DType::U64),
        "uint32" => burn(DType::U32),
        "uint16" => burn(DType::U16),
        "uint8" => burn(DType::U8),
        "bool" => burn(DType::Bool(BoolStore::Native)),
        "complex32" => foreign("complex numbers", 4),
        "complex64" => foreign("complex numbers", 8),
        "complex128" => foreign("complex numbers", 16),
        "qint8" | "quint8" => foreign("quantised numbers", 1),
        "qint32" => foreign("quantised numbers", 4),
        name if name.starts_with("float8_") => foreign("8-bit floats", 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> PickleError {
        read(bytes).unwrap_err()
    }

    #[test]
    fn plain_values_of_protocols_0_and_2_and_4() {
        // {"a": (1, -2, True), "b": [300]} as pickletools shows it for each protocol.
        let texts: [&[u8]; 3] = [
            b"(dp0\nVa\np1\n(I1\nI-2\nI01\ntp2\nsVb\np3\n(lp4\nI300\nas.",
            b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01J\xfe\xff\xff\xff\x88\x87q\x02X\x01\x00\x00\x00bq\x03]q\x04M\x2c\x01au.",
            b"\x80\x04\x95\x20\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94K\x01J\xfe\xff\xff\xff\x88\x87\x94\x8c\x01b\x94]\x94M\x2c\x01au.",
        ];
        for bytes in texts {
            let pickle = read(bytes).unwrap();
            assert_eq!(pickle.len, bytes.len());
            let entries: Vec<_> = pickle.entries(pickle.root).collect();
            assert_eq!(
                entries.iter().map(|entry| entry.0).collect::<Vec<_>>(),
                ["a", "b"]
            );
            let Value::Tuple(items) = pickle.get(entries[0].1) else {
                panic!("no tuple");
            };
            let items: Vec<_> = items.iter().map(|&id| pickle.get(id).clone()).collect();
            assert_eq!(items, [Value::Int(1), Value::Int(-2), Value::Bool(true)]);
            let Value::List(items) = pickle.get(entries[1].1) else {
                panic!("no list");
            };
            assert_eq!(*pickle.get(items[0]), Value::Int(300));
        }
    }

    #[test]
    fn integers_are_twos_complement() {
        assert_eq!(integer(&[]), Value::Int(0));
        assert_eq!(integer(&[0x2c, 0x01]), Value::Int(300));
        assert_eq!(integer(&[0xff]), Value::Int(-1));
        assert_eq!(integer(&[1, 0, 0, 0, 0, 0, 0, 0, 0]), Value::Other);
    }

    #[test]
    fn unknown_functions_are_refused_by_name() {
        let function = |bytes| match error(bytes) {
            PickleError::Function { module, name } => format!("{module}.{name}"),
            other => panic!("{other}"),
        };
        assert_eq!(function(b"cposix\nsystem\n(S'true'\ntR."), "posix.system");
        assert_eq!(
            function(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."),
            "builtins.eval"
        );
        assert_eq!(function(b"(S'true'\nios\nsystem\n."), "os.system");
        assert_eq!(function(b"c__builtin__\ngetattr\n."), "__builtin__.getattr");
        // A harmless module's other functions are not harmless.
        assert_eq!(function(b"ctorch\nload\n."), "torch.load");
        assert_eq!(
            function(b"ctorch.storage\n_load_from_bytes\n."),
            "torch.storage._load_from_bytes"
        );
        let class = error(b"ctorchvision.models.resnet\nResNet\n)\x81.");
        assert!(
            class
                .to_string()
                .contains("class `torchvision.models.resnet.ResNet`"),
            "{class}"
        );
    }

    #[test]
    fn damaged_pickles_are_refused_with_their_place() {
        assert_eq!(error(b""), PickleError::CutOff { at: 0 });
        assert_eq!(error(b"\x80\x02}"), PickleError::CutOff { at: 3 });
        assert_eq!(error(b"X\xff\xff\xff\xffab"), PickleError::CutOff { at: 7 });
        assert_eq!(error(b"\xf1."), PickleError::Opcode { code: 0xf1, at: 0 });
        for bytes in [
            &b"."[..],
            b"t.",
            b"h\x07.",
            b"\x85.",
            b"K\x01(R.",
            b"K\x01Q.",
            b"K\x01(0.",
            b"g-1\n.",
        ] {
            let error = error(bytes);
            assert!(
                matches!(error, PickleError::Damaged { .. }),
                "{bytes:?}: {error}"
            );
        }
        let short = error(b"ctorch._utils\n_rebuild_tensor_v2\n)R.");
        assert!(short.to_string().contains("too few arguments"), "{short}");
        let own = error(b"ctorch._tensor\n_rebuild_from_type_v2\n2K\x01)\x87R.");
        assert!(matches!(own, PickleError::Damaged { .. }), "{own}");
    }

    #[test]
    fn deep_nesting_and_cycles_end() {
        let mut deep = vec![b')'];
        deep.resize(1_000_000, 0x85);
        deep.push(b'.');
        drop(read(&deep).unwrap());
        // A dictionary that holds itself.
        let cycle = read(b"}q\x00X\x01\x00\x00\x00ah\x00s.").unwrap();
        let (_, inner) = cycle.entries(cycle.root).next().unwrap();
        assert_eq!(inner, cycle.root);
    }
}
