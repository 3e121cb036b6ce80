//! Reads the index of a file that `torch.save` wrote. In: its bytes. Out: where the values of each tensor are in them.
//!
//! Two formats: a zip archive (PyTorch 1.6 and later) and a row of pickles with the values behind them (0.1.10 to 1.5).
//! Both are described in <https://github.com/pytorch/pytorch/blob/main/torch/serialization.py>.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Kind, Pickle, Tensor, Value};
use super::state_dict;
use super::{Found, Layout};

/// What the first pickle of the older format holds, little-endian: 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Whether the bytes begin as the older format does.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    // Behind the protocol's version, from protocol 4 on the length of a frame, and the length of the number.
    let head = &bytes[..bytes.len().min(32)];
    bytes.first() == Some(&0x80) && head.windows(MAGIC.len()).any(|window| window == MAGIC)
}

/// Bytes of each storage, by its key.
type Places = HashMap<String, Range<usize>>;

/// Reads a zip archive. The error is a reason for the reader of the file.
pub(super) fn read_zip(bytes: &[u8]) -> Result<Vec<Found>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| {
        format!(
            "it begins as a zip archive and is damaged or cut off after {} bytes ({error})",
            bytes.len()
        )
    })?;
    let names: Vec<String> = archive.file_names().map(str::to_string).collect();
    let root = names.iter().find_map(|name| {
        let root = name.strip_suffix("data.pkl")?;
        (root.is_empty() || root.ends_with('/')).then_some(root)
    });
    let Some(root) = root else {
        return Err("it is a zip archive without a data.pkl, not one that torch.save wrote".into());
    };
    if names
        .iter()
        .any(|name| *name == format!("{root}constants.pkl"))
    {
        return Err("it is a TorchScript program (torch.jit.save), not a state_dict".into());
    }
    let mut places = Places::new();
    let mut program = 0..0;
    for index in 0..archive.len() {
        let (name, place) = entry(&mut archive, index, bytes.len())?;
        let Some(name) = name.strip_prefix(root) else {
            continue;
        };
        if name == "data.pkl" {
            program = place;
        } else if name == "byteorder" && bytes[place.clone()].trim_ascii() == b"big" {
            return Err("its values are big-endian".into());
        } else if let Some(key) = name.strip_prefix("data/") {
            places.insert(key.into(), place);
        }
    }
    let pickle = pickle::read(&bytes[program]).map_err(|error| error.to_string())?;
    checkpoint(&pickle, &places)
}

/// Name and place of one file of an archive.
fn entry(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    index: usize,
    len: usize,
) -> Result<(String, Range<usize>), String> {
    let file = archive
        .by_index_raw(index)
        .map_err(|error| format!("its zip archive is damaged: {error}"))?;
    let name = file.name().to_string();
    if file.compression() != CompressionMethod::Stored {
        return Err(format!(
            "{name} in it is compressed, which torch.save never does"
        ));
    }
    let place = file.data_start().and_then(|start| {
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(usize::try_from(file.size()).ok()?)?;
        (end <= len).then_some(start..end)
    });
    match place {
        Some(place) => Ok((name, place)),
        None => Err(format!("{name} in it is cut off")),
    }
}

/// Reads the older format. The error is a reason for the reader of the file.
pub(super) fn read_legacy(bytes: &[u8]) -> Result<Vec<Found>, String> {
    let mut at = 0;
    let mut next = || {
        let pickle = pickle::read(&bytes[at..]).map_err(|error| error.to_string())?;
        at += pickle.len;
        Ok::<Pickle, String>(pickle)
    };
    let (_magic, _version, system) = (next()?, next()?, next()?);
    let little = system
        .entries(system.root)
        .find(|entry| entry.0 == "little_endian");
    if little.is_some_and(|(_, id)| *system.get(id) == Value::Bool(false)) {
        return Err("its values are big-endian".into());
    }
    let (program, keys) = (next()?, next()?);
    let sizes = program.values().filter_map(|value| match value {
        Value::Storage(storage) => Some((storage.key.as_str(), storage.element.size)),
        _ => None,
    });
    let places = legacy_places(bytes, at, &keys, &sizes.collect())?;
    checkpoint(&program, &places)
}

/// Values follow the pickles in the order of the keys, each storage behind its number of elements.
fn legacy_places(
    bytes: &[u8],
    mut at: usize,
    keys: &Pickle,
    sizes: &HashMap<&str, usize>,
) -> Result<Places, String> {
    let Value::List(ids) = keys.get(keys.root) else {
        return Err("it lacks the list of its storages".into());
    };
    let mut places = Places::new();
    for &id in ids {
        let Value::Text(key) = keys.get(id) else {
            return Err("a storage has no name".into());
        };
        let Some(size) = sizes.get(key.as_str()) else {
            return Err(format!(
                "no tensor has storage {key}, so its size is unknown"
            ));
        };
        let cut_off = |needed: u64| {
            format!(
                "it is cut off: it has {} bytes, and its values take at least {needed}",
                bytes.len()
            )
        };
        let (head, _) = bytes[at..]
            .split_first_chunk::<8>()
            .ok_or_else(|| cut_off(at as u64 + 8))?;
        let needed = u64::from_le_bytes(*head)
            .saturating_mul(*size as u64)
            .saturating_add(at as u64 + 8);
        let end = usize::try_from(needed)
            .ok()
            .filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(|| cut_off(needed))?;
        places.insert(key.clone(), at + 8..end);
        at = end;
    }
    Ok(places)
}

fn checkpoint(pickle: &Pickle, places: &Places) -> Result<Vec<Found>, String> {
    let mut tensors = Vec::new();
    for (name, id) in state_dict::find(pickle)? {
        let found = match pickle.get(id) {
            Value::Tensor(tensor) => locate(&name, tensor, places)?,
            Value::ForeignTensor(kind) => Found {
                name,
                kind: Kind::Foreign(kind),
                shape: Vec::new(),
                layout: Layout::contiguous(0),
            },
            _ => continue,
        };
        tensors.push(found);
    }
    Ok(tensors)
}

/// Where a tensor's values are; refuses a tensor that reaches beyond its storage.
fn locate(name: &str, tensor: &Tensor, places: &Places) -> Result<Found, String> {
    let place = match places.get(&tensor.storage) {
        Some(place) => place.clone(),
        // Nothing is stored for nothing.
        None if tensor.shape.contains(&0) => 0..0,
        None => {
            return Err(format!(
                "the values of {name} are missing (storage {})",
                tensor.storage
            ));
        }
    };
    let size = tensor.element.size;
    let held = place.len() / size;
    let elements = tensor
        .shape
        .iter()
        .try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let last = tensor
        .shape
        .iter()
        .zip(&tensor.strides)
        .try_fold(tensor.offset, |last, (&dim, &stride)| {
            last.checked_add(dim.saturating_sub(1).checked_mul(stride)?)
        });
    let fits = match (elements, last) {
        (Some(0), _) => true,
        (Some(_), Some(last)) => last < held,
        _ => false,
    };
    if !fits {
        return Err(format!(
            "{name} has shape {:?}, which reaches beyond the {held} values of storage {}",
            tensor.shape, tensor.storage
        ));
    }
    // A view that repeats its values could ask a small file for any amount of memory.
    const REPEATED: usize = 1 << 20;
    if elements.is_some_and(|elements| elements > held.max(REPEATED)) {
        return Err(format!(
            "{name} has shape {:?} and only {held} values",
            tensor.shape
        ));
    }
    let start = place.start + tensor.offset.min(held) * size;
    Ok(Found {
        name: name.into(),
        kind: tensor.element.kind,
        shape: tensor.shape.clone(),
        layout: Layout::new(start, &tensor.shape, &tensor.strides),
    })
}
