//! Small data files of every format that the readers know, and how tests break them.
//!
//! The packed ones were written by other programs. Of [`csv`] and [`jsonl`], in `a.csv` and `a.jsonl`:
//!
//! ```sh
//! gzip -9nc a.csv | xxd -p
//! zstd -qc -19 --no-check a.jsonl | xxd -p
//! python3 -c 'import pyarrow.csv as csv, pyarrow.parquet as parquet  # 26.0.1
//! parquet.write_table(csv.read_csv("a.csv"), "a.parquet", compression="snappy", row_group_size=15,
//!     store_schema=False, write_statistics=False)' && xxd -p a.parquet
//! ```

#![allow(dead_code)] // Each test program uses a part of it.

use std::io::Cursor;

use image::{GrayImage, ImageFormat, Luma};
use rand::{Rng, RngExt};

use crate::mutate::mutate;
use crate::support::{idx_images, idx_labels};

/// Files by name, under the folder of a case.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// What files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Texts,
    Images,
    /// Whatever else a program reads: recipes, bundles.
    Other,
}

/// Files as they should be.
pub struct Sample {
    pub name: &'static str,
    pub content: Content,
    pub files: Files,
    /// Which of the files is broken.
    pub target: &'static str,
}

impl Sample {
    /// The files with one of them broken; how is up to the generator.
    pub fn broken(&self, rng: &mut impl Rng) -> Files {
        let mut files = self.files.clone();
        for (name, bytes) in &mut files {
            if *name != self.target {
                continue;
            }
            // Half of the broken images have their sums put right, or none would get past them.
            if name.ends_with(".png") && rng.random::<bool>() {
                mutate_chunk(bytes, rng)
            } else {
                mutate(bytes, rng)
            }
        }
        files
    }
}

/// Data files of every format.
pub fn samples() -> Vec<Sample> {
    let texts = |name, bytes| Sample {
        name,
        content: Content::Texts,
        files: vec![(name, bytes)],
        target: name,
    };
    let images = |name, files, target| Sample {
        name,
        content: Content::Images,
        files,
        target,
    };
    let [images_file, labels_file] = ["images-idx3-ubyte", "labels-idx1-ubyte"];
    let idx = vec![
        (images_file, idx_images(24, 6)),
        (labels_file, idx_labels(24, 3)),
    ];
    vec![
        texts("a.csv", csv()),
        texts("a.tsv", tsv()),
        texts("a.jsonl", jsonl()),
        texts("a.csv.gz", unhex(CSV_GZ)),
        texts("a.jsonl.zst", unhex(JSONL_ZST)),
        texts("a.parquet", unhex(PARQUET)),
        images("idx images", idx.clone(), images_file),
        images("idx labels", idx, labels_file),
        images("png", pngs(), "a/2.png"),
    ]
}

fn rows(line: fn(usize) -> String) -> String {
    (0..30).map(line).collect()
}

fn csv() -> Vec<u8> {
    let rows = rows(|n| format!("c{},\"a bird, {n}\"\n", n % 3));
    format!("label,text\n{rows}").into()
}

fn tsv() -> Vec<u8> {
    let rows = rows(|n| format!("c{}\ta bird, {n}\n", n % 3));
    format!("label\ttext\n{rows}").into()
}

fn jsonl() -> Vec<u8> {
    rows(|n| format!("{{\"text\": \"a bird {n}\", \"label\": {}}}\n", n % 3)).into()
}

/// Two classes of six images.
fn pngs() -> Files {
    let names = [
        "a/0.png", "a/1.png", "a/2.png", "a/3.png", "a/4.png", "a/5.png", "b/0.png", "b/1.png",
        "b/2.png", "b/3.png", "b/4.png", "b/5.png",
    ];
    names.into_iter().zip((0..).map(png)).collect()
}

fn png(shade: u32) -> Vec<u8> {
    let image = GrayImage::from_fn(9, 9, |x, y| Luma([(x * y * 3 + shade * 17) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Bytes of a PNG before its first chunk.
const SIGNATURE: usize = 8;

/// Breaks what is in one chunk of a PNG; its length and its sum are right again.
fn mutate_chunk(png: &mut Vec<u8>, rng: &mut impl Rng) {
    let mut chunks = chunks(png);
    let at = rng.random_range(0..chunks.len());
    mutate(&mut chunks[at].1, rng);
    png.truncate(SIGNATURE);
    for (name, body) in chunks {
        png.extend((body.len() as u32).to_be_bytes());
        let sealed = [name, body].concat();
        png.extend(&sealed);
        png.extend(crc32(&sealed).to_be_bytes());
    }
}

/// Name and body of each chunk: a length of four bytes, the name, the body, a sum of four bytes.
fn chunks(png: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut chunks = Vec::new();
    let mut rest = &png[SIGNATURE..];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (name, after) = after.split_at(4);
        let (body, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        chunks.push((name.to_vec(), body.to_vec()));
        rest = &after[4..];
    }
    chunks
}

/// The sum of PNG, ISO 3309: `crc32(b"123456789")` is 0xcbf43926.
fn crc32(bytes: &[u8]) -> u32 {
    let shifted = |sum: u32| match sum & 1 {
        1 => (sum >> 1) ^ 0xedb8_8320,
        _ => sum >> 1,
    };
    let add = |sum: u32, &byte: &u8| (0..8).fold(sum ^ u32::from(byte), |sum, _| shifted(sum));
    !bytes.iter().fold(!0, add)
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// [`csv`], packed.
const CSV_GZ: &str = "\
    1f8b08000000000002035dd03b0e80201444d19e55106a0adee3bf1c410b132b43e1f2b53333e54d4e31996b1bc7e5d7f12c3383779b1de7\
    bd7b1b9c99f2a77ca97faa031c1127c41971415c1137c49d6604d422c845c947f2897c265fc857f28d7ca75f027a15f4aae423f9443e932f\
    e42bf946fedbf702fd5ffcaee1010000";

/// [`jsonl`], packed.
const JSONL_ZST: &str = "\
    28b52ffd60f20255030042051011a02f0694a9c3330040fdf57f65ab46150febeae9e8e7e6e5bf4fbeac9c8c7c6c5c7cdbc44b25744cf96d\
    7049604242d7a4084390f06674a189c004ad900a1b20a81170f5fd3f03c0333a11bc4568088c4009bf3f694b0b5346e9ec8a662e063026c0\
    2142ab02";

/// The rows of [`csv`] in two row groups.
const PARQUET: &str = "\
    504152311504152415284c15061500120000124402000000633002000000633102000000633215001518151c2c151e1510150615061c0000\
    000c2c020000001e01020524499224150415900315c0014c151e1500120000c80130090000006120626972642c20302e0d0000312e0d0000\
    322e0d0000332e0d0000342e0d0000352e0d0000362e0d0000372e0d0000382e0d0004390a1d82043130320e000031320e000032320e0038\
    330a0000006120626972642c2031341500152015242c151e1510150615061c000000103c020000001e0104051032547698badc0e15041524\
    15284c15061500120000124402000000633002000000633102000000633215001518151c2c151e1510150615061c0000000c2c020000001e\
    01020524499224150415a40315c0014c151e1500120000d201340a0000006120626972642c203135320e000036320e000037320e00003832\
    0e0000392e0e00043230320e000031320e000032320e000033320e000034320e00328c000032328c000032328c003c32380a000000612062\
    6972642c2032391500152015242c151e1510150615061c000000103c020000001e0104051032547698badc0e1504193c3500180673636865\
    6d61150400150c250218056c6162656c25004c1c000000150c250218047465787425004c1c000000163c192c192c26001c150c1935000610\
    1918056c6162656c1502161e167e168601264c2608292c15041500150200150015101502003c163c19061926001e00000026001c150c1935\
    000610191804746578741502161e16f60316aa0226ee02268e01292c15041500150200150015101502003c16980219061926001e00000016\
    f404161e260816b00300192c26001c150c19350006101918056c6162656c1502161e167e16860126fc0326b803292c150415001502001500\
    15101502003c163c19061926001e00000026001c150c1935000610191804746578741502161e168a0416aa02269e0626be04292c15041500\
    150200150015101502003c16ac0219061926001e000000168805161e26b80316b003002820706172717565742d6370702d6172726f772076\
    657273696f6e2032362e302e31192c1c00001c0000007201000050415231";
