//! Reads the index of a safetensors file. In: its bytes. Out: where the values of each tensor are in them.

use burn::tensor::{BoolStore, DType};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::format::{FROM_FLAX, FROM_TENSORFLOW};
use super::pickle::Kind;
use super::{Found, Layout};

/// The header's length in front of it.
const PREFIX: usize = size_of::<u64>();

/// Every tensor of the file. The error is a reason for the reader of the file.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Found>, String> {
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| explain(bytes, &error))?;
    let format = metadata
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get("format"));
    // Both name and turn their tensors otherwise than PyTorch.
    match format.map(String::as_str) {
        Some("tf") => return Err(format!("it holds TensorFlow's tensors: {FROM_TENSORFLOW}")),
        Some("flax") => return Err(format!("it holds Flax's tensors: {FROM_FLAX}")),
        _ => {}
    }
    let found = metadata.tensors().into_iter().map(|(name, info)| Found {
        name,
        kind: kind(info.dtype),
        shape: info.shape.clone(),
        layout: Layout::contiguous(PREFIX + header + info.data_offsets.0),
    });
    Ok(found.collect())
}

fn kind(dtype: Dtype) -> Kind {
    Kind::Known(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        Dtype::C64 => return Kind::Foreign("complex numbers"),
        Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E8M0 => return Kind::Foreign("8-bit floats"),
        _ => return Kind::Foreign("floats of fewer than 8 bits"),
    })
}

/// Why a file can't be read, with the sizes that should be there and are.
fn explain(bytes: &[u8], error: &SafeTensorError) -> String {
    let len = bytes.len();
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return format!(
            "it is cut off: it has {len} bytes, and a safetensors file begins with {PREFIX} for its header's length"
        );
    };
    let header = u64::from_le_bytes(*prefix);
    match error {
        SafeTensorError::HeaderTooLarge => {
            format!("it is not a safetensors file: its header would take {header} bytes")
        }
        SafeTensorError::InvalidHeaderLength if rest.first().is_none_or(|first| *first == b'{') => {
            format!(
                "it is cut off: its header ends at byte {}, and it has {len} bytes",
                header.saturating_add(PREFIX as u64)
            )
        }
        SafeTensorError::MetadataIncompleteBuffer => wrong_size(header, rest, len),
        other => format!("it is not a safetensors file: {other}"),
    }
}

fn wrong_size(header: u64, rest: &[u8], len: usize) -> String {
    let header = usize::try_from(header).unwrap_or(usize::MAX);
    let metadata = rest
        .get(..header)
        .and_then(|json| serde_json::from_slice::<Metadata>(json).ok());
    match metadata.map(|metadata| PREFIX + header + metadata.data_len()) {
        Some(expected) if expected > len => {
            format!(
                "it is cut off: its header lists {expected} bytes, and it has {len}; get it again"
            )
        }
        Some(expected) => {
            format!(
                "it is damaged: its header lists {expected} bytes, and it has {len}; get it again"
            )
        }
        None => format!("it is damaged: its {len} bytes are not those that its header lists"),
    }
}
