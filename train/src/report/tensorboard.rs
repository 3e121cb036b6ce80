//! TensorBoard event files: the figures of a run, for `tensorboard --logdir runs`.
//!
//! A record is a length, its checksum, an `Event` in protocol buffers, and its checksum, as TensorFlow's `TFRecord`:
//! <https://www.tensorflow.org/tutorials/load_data/tfrecord>. Checksums are CRC-32C, rotated and shifted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crc::{CRC_32_ISCSI, Crc};

use crate::run::cut;

/// One name, so that a resumed run goes on in the same file.
const NAME: &str = "events.out.tfevents.0.hearth";

/// An event file, open for appending.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Opens the file of a folder, and forgets what follows after `length` bytes; 0 starts it.
    pub fn open(folder: &Path, length: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(NAME);
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        cut(&file, length)?;
        let mut events = Self { file };
        if length == 0 {
            let version = event(0.0, 0, &bytes(3, b"brain.Event:2"));
            events.file.write_all(&record(&version))?;
        }
        Ok(events)
    }

    /// Appends figures of one step: tags as `train/loss`, and their values.
    ///
    /// - wall_time: seconds since 1970
    pub fn append(
        &mut self,
        wall_time: f64,
        step: u64,
        figures: impl Iterator<Item = (String, f64)>,
    ) -> io::Result<()> {
        let value = |(tag, value): (String, f64)| {
            let inner = [bytes(1, tag.as_bytes()), float(2, value as f32)].concat();
            bytes(1, &inner)
        };
        let summary: Vec<u8> = figures.flat_map(value).collect();
        let event = event(wall_time, step, &bytes(5, &summary));
        // One write: a killed process leaves whole records, or a tail that readers skip.
        self.file.write_all(&record(&event))
    }

    /// Bytes so far, all of them on the disk.
    pub fn synced(&self) -> io::Result<u64> {
        self.file.sync_data()?;
        Ok(self.file.metadata()?.len())
    }

    /// Forgets what follows after so many bytes.
    pub fn cut(&self, length: u64) -> io::Result<()> {
        cut(&self.file, length)
    }
}

/// `Event` with its time (1), its step (2) and one more field.
fn event(wall_time: f64, step: u64, field: &[u8]) -> Vec<u8> {
    let mut event = vec![tag(1, FIXED_64)];
    event.extend(wall_time.to_le_bytes());
    event.push(tag(2, VARINT));
    event.extend(varint(step));
    event.extend(field);
    event
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(checksum(&length).to_le_bytes());
    record.extend(data);
    record.extend(checksum(data).to_le_bytes());
    record
}

fn checksum(data: &[u8]) -> u32 {
    const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    CRC.checksum(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

// Wire types of protocol buffers, <https://protobuf.dev/programming-guides/encoding/>.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

fn tag(field: u8, wire: u8) -> u8 {
    field << 3 | wire
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn bytes(field: u8, contents: &[u8]) -> Vec<u8> {
    let mut all = vec![tag(field, BYTES)];
    all.extend(varint(contents.len() as u64));
    all.extend(contents);
    all
}

fn float(field: u8, value: f32) -> Vec<u8> {
    let mut all = vec![tag(field, FIXED_32)];
    all.extend(value.to_le_bytes());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_tensorflow() {
        // google_crc32c says 0xe3069283 of "123456789"; masked as tensorflow/core/lib/hash/crc32c.h does, by hand:
        // 0xe3069283 >> 15 | 0xe3069283 << 17 = 0x2507c60d, and 0xa282ead8 more.
        assert_eq!(checksum(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn an_event_is_what_protocol_buffers_say() {
        // Step 300 is the varint 0xac 0x02; tag "a" with the value 1.
        let value = bytes(1, &[bytes(1, b"a"), float(2, 1.0)].concat());
        let event = event(0.5, 300, &bytes(5, &value));
        let expected = [
            &[0x09][..],
            &0.5f64.to_le_bytes(),
            &[0x10, 0xac, 0x02],
            &[0x2a, 10, 0x0a, 8, 0x0a, 1, b'a', 0x15],
            &1f32.to_le_bytes(),
        ];
        assert_eq!(event, expected.concat());
    }

    #[test]
    fn a_file_that_is_opened_again_forgets_its_tail() {
        let folder = tempfile::tempdir().unwrap();
        let figures = || [("train/loss".to_string(), 1.5)].into_iter();
        let mut file = EventFile::open(folder.path(), 0).unwrap();
        file.append(1.0, 1, figures()).unwrap();
        let length = file.synced().unwrap();
        file.append(2.0, 2, figures()).unwrap();
        drop(file);
        let mut file = EventFile::open(folder.path(), length).unwrap();
        assert_eq!(file.synced().unwrap(), length);
        file.append(2.0, 2, figures()).unwrap();
        file.cut(length).unwrap();
        assert_eq!(
            fs::read(folder.path().join(NAME)).unwrap().len() as u64,
            length
        );
    }
}
