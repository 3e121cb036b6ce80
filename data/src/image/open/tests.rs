//! Sets of encoded images from each source, and what each does about images and rows that can't be used.

use std::io::Cursor;
use std::sync::Arc;

use image::{ImageBuffer, ImageFormat, Luma, Rgb};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;

use super::*;
use crate::image::{
    ImageOptions, Picture, TargetColumn, TargetKind, file_statistics, read_image_sets, read_mask,
};

/// An even PNG of RGB.
fn png([height, width]: [u32; 2], colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    ImageBuffer::from_pixel(width, height, Rgb(colour))
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

fn jpeg([height, width]: [u32; 2]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let noise = |x: u32, y: u32| Luma([((x * 37) ^ (y * 91)) as u8]);
    ImageBuffer::from_fn(width, height, noise)
        .write_to(&mut bytes, ImageFormat::Jpeg)
        .unwrap();
    bytes.into_inner()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

fn open_with(path: &Path, options: &ImageFileOptions) -> Result<ImageFileSets, DataError> {
    open_image_files(&[path.to_path_buf()], options)
}

fn open(path: &Path) -> Result<ImageFileSets, DataError> {
    open_with(path, &ImageFileOptions::default())
}

fn open_skipping(path: &Path) -> ImageFileSets {
    let options = ImageFileOptions {
        bad_rows: BadRows::Skip,
        ..ImageFileOptions::default()
    };
    open_with(path, &options).unwrap()
}

/// The message, and that of its cause, without the temporary folder.
fn message(error: DataError, folder: &TempDir) -> String {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    let message = format!("{error}{}", cause.unwrap_or_default());
    let prefix = folder.path().display().to_string();
    message
        .replace(&format!("{prefix}/"), "")
        .replace(&prefix, "FOLDER")
}

/// The first value of each image.
fn first_values(set: &ImageFiles) -> Vec<u8> {
    (0..set.len())
        .map(|i| set.decode(i).unwrap().pixels[0])
        .collect()
}

#[test]
fn folders_give_what_a_set_in_memory_gives() {
    let [dark, light] = [png([4, 6], [10, 20, 30]), png([4, 6], [200, 100, 50])];
    let folder = folder(&[
        ("train/cat/1.png", &dark),
        ("train/dog/1.png", &light),
        ("train/dog/2.jpg", &jpeg([4, 6])),
        ("val/dog/3.png", &light),
        ("train/dog/notes.txt", b"x"),
    ]);
    let memory = read_image_sets(folder.path(), &ImageOptions::default()).unwrap();
    let sets = open(folder.path()).unwrap();
    assert_eq!(sets.lines(), memory.lines());
    assert!(sets.test.is_none());
    for (files, memory) in [
        (&sets.train, &memory.train),
        (sets.valid.as_ref().unwrap(), memory.valid.as_ref().unwrap()),
    ] {
        assert_eq!(files.classes, memory.classes);
        let labels = memory.labels.clone().unwrap();
        assert_eq!(files.targets, ImageTargets::Classes(labels));
        for i in 0..files.len() {
            assert_eq!(files.decode(i).unwrap().planes(), memory.image(i));
        }
    }
    let few = sets.train.select(&[2, 0]);
    assert_eq!(few.targets, ImageTargets::Classes(vec![1, 0]));
    assert_eq!(few.decode(1).unwrap().pixels[..3], [10, 20, 30]);
    assert!(few.path(0).ends_with("dog/2.jpg"));
}

#[test]
fn paths_that_name_no_set_are_refused() {
    let folder = folder(&[("1.png", &png([1, 1], [0; 3])), ("notes.txt", b"x")]);
    let of = |name: &str| message(open(&folder.path().join(name)).unwrap_err(), &folder);
    assert_eq!(of("gone"), "gone: no such file");
    assert_eq!(of("gone-*.tar"), "gone-*.tar: no such file");
    assert!(of("1.png").contains("is a single image"));
    assert!(of("notes.txt").contains("unknown extension"));
}

#[test]
fn images_keep_their_sizes_and_become_grey_or_rgb_as_asked() {
    let folder = folder(&[("1.jpg", &jpeg([5, 9])), ("2.jpg", &jpeg([30, 3]))]);
    let set = open(folder.path()).unwrap().train;
    assert_eq!(
        (set.channels, set.size(0), set.size(1)),
        (1, [5, 9], [30, 3])
    );
    assert_eq!(set.targets, ImageTargets::None);
    let options = ImageFileOptions {
        channels: Some(3),
        ..ImageFileOptions::default()
    };
    let set = open_with(folder.path(), &options).unwrap().train;
    let Picture {
        channels,
        height,
        width,
        pixels,
    } = set.decode(1).unwrap();
    assert_eq!((channels, height, width, pixels.len()), (3, 30, 3, 270));
    let options = ImageFileOptions {
        channels: Some(2),
        ..ImageFileOptions::default()
    };
    let error = open_with(folder.path(), &options).unwrap_err();
    assert!(matches!(error, DataError::ImageShape { channels: 2, .. }));
}

#[test]
fn a_header_is_enough_to_open_an_image_and_its_body_to_decode_it() {
    let whole = jpeg([900, 1000]);
    assert!(whole.len() > 1 << 18, "more than is read of a header");
    let cut = &whole[..whole.len() - 100];
    let folder = folder(&[("cut.jpg", cut), ("whole.jpg", &whole)]);
    let set = open(folder.path()).unwrap().train;
    assert_eq!((set.len(), set.size(0)), (2, [900, 1000]));
    assert!(set.decode(1).is_ok());
    let error = message(set.decode(0).unwrap_err(), &folder);
    assert_eq!(error, "cut.jpg: the JPEG is truncated, its end is missing");
    std::fs::remove_file(folder.path().join("whole.jpg")).unwrap();
    let error = message(set.decode(1).unwrap_err(), &folder);
    assert_eq!(error, "whole.jpg: no such file");
}

/// A PNG whose header promises this size, with its checksum.
fn promising([height, width]: [u32; 2]) -> Vec<u8> {
    let mut bytes = png([1, 1], [0; 3]);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut sum = flate2::Crc::new();
    sum.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.sum().to_be_bytes());
    bytes
}

#[test]
fn bad_headers_are_refused_or_left_out() {
    let folder = folder(&[
        ("bomb.png", &promising([60_000, 60_000])),
        ("empty.png", b""),
        ("good.png", &png([2, 2], [1; 3])),
        ("none.png", &promising([0, 5])),
        ("page.jpg", b"<html>"),
    ]);
    let error = message(open(folder.path()).unwrap_err(), &folder);
    assert!(
        error.starts_with("FOLDER: 4 of 5 image files can't be read"),
        "{error}"
    );
    let sets = open_skipping(folder.path());
    assert_eq!((sets.train.len(), sets.left_out.total()), (1, 4));
    let reasons: Vec<_> = sets
        .left_out
        .reasons()
        .iter()
        .map(|r| r.name.as_str())
        .collect();
    assert_eq!(
        reasons,
        ["too many pixels", "empty", "broken", "not an image"]
    );
}

#[test]
fn a_table_names_images_beside_it() {
    let [one, two] = [png([2, 3], [1; 3]), png([3, 2], [2; 3])];
    let table = b"file_name,label,more\na/1.png,cat,x\ngone.png,dog,y\na/2.png,\"dog\",z\n,cat,\n";
    let folder = folder(&[("a/1.png", &one), ("a/2.png", &two), ("list.csv", table)]);
    let path = folder.path().join("list.csv");
    let error = message(open(&path).unwrap_err(), &folder);
    assert!(
        error.starts_with("list.csv: 2 of 4 image files can't be read")
            && error.contains("1 missing: gone.png (list.csv:3)")
            && error.contains("1 \"file_name\" is empty: list.csv:5"),
        "{error}"
    );
    let set = open_skipping(&path).train;
    assert_eq!(first_values(&set), [1, 2]);
    assert_eq!(set.targets, ImageTargets::Classes(vec![0, 1]));
    assert_eq!(set.classes, ["cat", "dog"]);
}

#[test]
fn targets_are_classes_lists_of_them_or_numbers() {
    let image = png([1, 1], [5; 3]);
    let of = |name: &str, table: &str| {
        let folder = folder(&[("x.png", &image), (name, table.as_bytes())]);
        let set = open_skipping(&folder.path().join(name)).train;
        (set.targets, set.classes)
    };
    let several = ImageTargets::Several(vec![vec![0, 1], vec![], vec![1]]);
    for (name, table) in [
        ("a.csv", "path,labels\nx.png,b;a\nx.png,\nx.png, b ;b\n"),
        ("a.tsv", "image\tlabels\nx.png\tb a\nx.png\t\nx.png\tb\n"),
        (
            "a.jsonl",
            "{\"file\": \"x.png\", \"labels\": [\"b\", \"a\"]}\n{\"file\": \"x.png\", \"labels\": []}\n\
             {\"file\": \"x.png\", \"labels\": \"[\\\"b\\\"]\"}\n",
        ),
    ] {
        let (targets, classes) = of(name, table);
        assert_eq!(
            (targets, classes),
            (several.clone(), vec!["a".into(), "b".into()])
        );
    }
    let (targets, classes) = of("a.csv", "file;score\nx.png;1.5\nx.png;\nx.png;-2e1\n");
    assert_eq!(
        (targets, classes.len()),
        (ImageTargets::Values(vec![1.5, -20.0]), 0)
    );
    let (targets, classes) = of(
        "a.json",
        "[{\"path\": \"x.png\", \"label\": 10}, {\"path\": \"x.png\", \"label\": 9.0}, \
         {\"path\": \"x.png\", \"label\": null}]",
    );
    assert_eq!(targets, ImageTargets::Classes(vec![1, 0]));
    assert_eq!(classes, ["9", "10"]);
    assert_eq!(of("a.csv", "path\nx.png\n").0, ImageTargets::None);
}

#[test]
fn columns_may_be_named() {
    let image = png([1, 1], [5; 3]);
    let table = b"photo,age,label\nx.png,7,a\n";
    let folder = folder(&[
        ("x.png", &image),
        ("a.csv", table),
        ("b.csv", b"a,b\n1,2\n"),
    ]);
    let mut options = ImageFileOptions::default();
    options.columns.image = Some("photo".into());
    options.columns.target = Some(TargetColumn {
        name: "age".into(),
        kind: TargetKind::Value,
    });
    let set = open_with(&folder.path().join("a.csv"), &options)
        .unwrap()
        .train;
    assert_eq!(set.targets, ImageTargets::Values(vec![7.0]));
    let error = open_with(&folder.path().join("b.csv"), &options).unwrap_err();
    assert!(matches!(error, DataError::ColumnMissing { .. }), "{error}");
    let error = message(open(&folder.path().join("b.csv")).unwrap_err(), &folder);
    assert_eq!(
        error,
        "b.csv: has no column of images or their paths (image, img, file_name, file, path); the columns are \"a\", \"b\""
    );
}

#[test]
fn metadata_beside_images_are_the_splits_of_a_folder() {
    let image = png([1, 1], [5; 3]);
    let table = b"{\"file_name\": \"1.png\", \"label\": \"cat\"}\n";
    let folder = folder(&[
        ("train/1.png", &image),
        ("train/metadata.jsonl", table),
        ("test/1.png", &image),
        ("test/metadata.csv", b"file_name,label\n1.png,dog\n"),
    ]);
    let sets = open(folder.path()).unwrap();
    assert_eq!(
        (sets.train.len(), sets.test.as_ref().unwrap().len()),
        (1, 1)
    );
    assert_eq!(sets.train.classes, ["cat", "dog"]);
    assert_eq!(sets.test.unwrap().targets, ImageTargets::Classes(vec![1]));
}

/// A table of images as `datasets` writes it; a row without bytes is null.
fn write_parquet(path: &Path, rows: &[(Option<&[u8]>, i64)]) {
    let schema = "message schema {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional int64 label;
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let about = serde_json::json!({"info": {"features": {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["zebra", "ant"]},
    }}});
    let about = KeyValue::new("huggingface".into(), about.to_string());
    let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![about]));
    let file = File::create(path).unwrap();
    let properties = Arc::new(properties.build());
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let levels: Vec<i16> = rows
        .iter()
        .map(|(bytes, _)| 1 + i16::from(bytes.is_some()))
        .collect();
    let present = rows.iter().filter_map(|(bytes, _)| *bytes);
    let bytes: Vec<ByteArray> = present.map(|bytes| bytes.to_vec().into()).collect();
    let labels: Vec<i64> = rows.iter().map(|(_, label)| *label).collect();
    let mut column = group.next_column().unwrap().unwrap();
    let written = column
        .typed::<ByteArrayType>()
        .write_batch(&bytes, Some(&levels), None);
    written.unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let none = vec![1; rows.len()];
    column
        .typed::<ByteArrayType>()
        .write_batch(&[], Some(&none), None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int64Type>()
        .write_batch(&labels, Some(&none), None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_holds_images_and_the_names_of_their_classes() {
    let folder = TempDir::new().unwrap();
    let [one, two] = [png([2, 3], [1; 3]), jpeg([4, 4])];
    let path = folder.path().join("train-00000-of-00002.parquet");
    write_parquet(
        &path,
        &[
            (Some(&one), 1),
            (None, 0),
            (Some(&two), 0),
            (Some(&one), -1),
        ],
    );
    write_parquet(&folder.path().join("test.parquet"), &[(Some(&two), 1)]);
    let error = message(open(folder.path()).unwrap_err(), &folder);
    assert!(
        error.contains("1 no bytes of an image: train-00000-of-00002.parquet:2"),
        "{error}"
    );
    let sets = open_skipping(folder.path());
    let set = &sets.train;
    assert_eq!(set.classes, ["zebra", "ant"]);
    assert_eq!(set.targets, ImageTargets::Classes(vec![1, 0]));
    assert_eq!((set.size(0), set.size(1)), ([2, 3], [4, 4]));
    assert_eq!(set.bytes(0).unwrap(), one);
    assert_eq!(set.decode(0).unwrap().pixels, [1; 18]);
    assert_eq!(sets.test.unwrap().bytes(0).unwrap(), two);
    write_parquet(&path, &[(None, 1)]);
    let error = open(&path).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::BadImages {
                nothing_left: true,
                ..
            }
        ),
        "{error}"
    );
}

fn shard(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn shards_hold_samples_in_their_order() {
    let [one, two, three] = [
        png([2, 3], [1; 3]),
        png([1, 1], [2; 3]),
        png([1, 1], [3; 3]),
    ];
    let first = shard(&[
        ("b.png", &one),
        ("b.cls", b"4\n"),
        ("b.txt", b"not the class"),
        ("dir/a.json", b"{\"label\": 11}"),
        ("dir/a.PNG", &two),
        ("README", b"x"),
    ]);
    let second = shard(&[("c.png", &three), ("c.txt", b"4")]);
    let files = [
        ("train-0.tar", first.as_slice()),
        ("train-1.tar", &second),
        ("val-0.tar", &second),
    ];
    let folder = folder(&files);
    let sets = open(folder.path()).unwrap();
    let set = &sets.train;
    assert_eq!(first_values(set), [1, 2, 3]);
    assert_eq!(set.classes, ["4", "11"]);
    assert_eq!(set.targets, ImageTargets::Classes(vec![0, 1, 0]));
    assert!(set.path(1).ends_with("train-0.tar/dir/a.PNG"));
    assert_eq!(first_values(sets.valid.as_ref().unwrap()), [3]);
    // A pattern names shards, too.
    let sets = open(&folder.path().join("train-*.tar")).unwrap();
    assert_eq!((sets.train.len(), sets.valid.is_some()), (3, false));
}

#[test]
fn a_shard_that_is_cut_off_keeps_what_is_before() {
    let image = jpeg([64, 64]);
    let whole = shard(&[
        ("a.jpg", &image),
        ("a.cls", b"0"),
        ("b.jpg", &image),
        ("b.cls", b"1"),
    ]);
    let cut = &whole[..1024 + image.len().div_ceil(512) * 512 + 1024];
    let folder = folder(&[("x.tar", cut), ("y.tar", b"no tar at all"), ("z.tar", b"")]);
    let path = folder.path().join("x.tar");
    let error = message(open(&path).unwrap_err(), &folder);
    assert!(error.contains("1 cut off: x.tar"), "{error}");
    assert!(
        error.contains("x.tar/b.jpg: the tar is cut off before the end"),
        "{error}"
    );
    assert_eq!(open_skipping(&path).train.len(), 1);
    let error = open(&folder.path().join("y.tar")).unwrap_err();
    assert!(matches!(error, DataError::Tar { .. }), "{error}");
    let error = open(&folder.path().join("z.tar")).unwrap_err();
    assert!(matches!(error, DataError::Empty { .. }), "{error}");
}

#[test]
fn targets_of_several_kinds_are_refused() {
    let image = png([1, 1], [5; 3]);
    let with = shard(&[("a.png", &image), ("a.cls", b"1"), ("b.png", &image)]);
    let folder = folder(&[
        ("x.tar", &with),
        ("1.png", &image),
        ("a.csv", b"path,label\n1.png,a\n"),
        ("b.csv", b"path,score\n1.png,2\n"),
    ]);
    let error = open(&folder.path().join("x.tar")).unwrap_err();
    assert!(matches!(error, DataError::MixedLabels { .. }), "{error}");
    let paths = ["a.csv", "b.csv"].map(|name| folder.path().join(name));
    let error = open_image_files(&paths, &ImageFileOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::MixedTargets { .. }), "{error}");
}

#[test]
fn coco_lists_boxes_by_image() {
    let image = png([8, 9], [5; 3]);
    let json = serde_json::json!({
        "info": {}, "images": [{"id": 7, "file_name": "1.png"}, {"id": 3, "file_name": "2.png"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1.0, 2.0, 3.5, 4.0], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 8], "iscrowd": 1},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    });
    let wrong = json.to_string().replace("\"image_id\":7", "\"image_id\":8");
    let folder = folder(&[
        ("images/1.png", &image),
        ("images/2.png", &image),
        ("boxes.json", json.to_string().as_bytes()),
        ("wrong.json", wrong.as_bytes()),
    ]);
    let set = open(&folder.path().join("boxes.json")).unwrap().train;
    assert_eq!(set.classes, ["person", "dog"]);
    let dog = BoxLabel {
        class: 1,
        x: 1.0,
        y: 2.0,
        width: 3.5,
        height: 4.0,
    };
    assert_eq!(set.targets, ImageTargets::Boxes(vec![vec![dog], vec![]]));
    let error = message(
        open(&folder.path().join("wrong.json")).unwrap_err(),
        &folder,
    );
    assert_eq!(
        error,
        "wrong.json: a box is of image 8, which is not listed"
    );
}

#[test]
fn pascal_voc_has_an_annotation_an_image() {
    let image = png([8, 9], [5; 3]);
    let xml = |corners: &str| {
        format!(
            "<annotation><filename>1.png</filename><object><name>dog</name>\
             <bndbox>{corners}</bndbox></object></annotation>"
        )
    };
    let good = xml("<xmin>1</xmin><ymin>3</ymin><xmax>4</xmax><ymax>8</ymax>");
    let folder = folder(&[
        ("JPEGImages/1.png", &image),
        ("Annotations/1.xml", good.as_bytes()),
        ("Annotations/2.xml", good.as_bytes()),
        ("ImageSets/Main/train.txt", b"1\n"),
    ]);
    let sets = open(folder.path()).unwrap();
    // Columns 1 to 4 and rows 3 to 8, counted from 1.
    let dog = BoxLabel {
        class: 0,
        x: 0.0,
        y: 2.0,
        width: 4.0,
        height: 6.0,
    };
    assert_eq!(sets.train.targets, ImageTargets::Boxes(vec![vec![dog]]));
    assert!(
        sets.notes[0].contains("left out 1 images"),
        "{:?}",
        sets.notes
    );
    for (bad, expected) in [
        (xml("<xmin>1</xmin>"), "an object has no ymin"),
        ("<annotation>".into(), "cannot be read as Pascal VOC"),
    ] {
        std::fs::write(folder.path().join("Annotations/1.xml"), bad).unwrap();
        let error = message(open(folder.path()).unwrap_err(), &folder);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn masks_are_beside_their_images() {
    let image = png([1, 2], [5; 3]);
    let mut mask = Cursor::new(Vec::new());
    let classes = ImageBuffer::<Luma<u8>, _>::from_raw(2, 1, vec![0, 7]).unwrap();
    classes.write_to(&mut mask, ImageFormat::Png).unwrap();
    let folder = folder(&[
        ("train/images/1.png", &image),
        ("train/images/2.png", &image),
        ("train/masks/1.png", mask.get_ref()),
    ]);
    let error = message(open(folder.path()).unwrap_err(), &folder);
    assert!(
        error.contains("1 without a mask: train/images/2.png"),
        "{error}"
    );
    let set = open_skipping(folder.path()).train;
    let ImageTargets::Masks(masks) = &set.targets else {
        panic!("{:?}", set.targets);
    };
    let mask = read_mask(&masks[0]).unwrap();
    assert_eq!((mask.height, mask.width, mask.classes), (1, 2, vec![0, 7]));
}

#[test]
fn digests_are_of_contents_names_and_targets() {
    let [one, two] = [png([1, 1], [1; 3]), png([1, 1], [2; 3])];
    let of = |files: &[(&str, &[u8])]| {
        let folder = folder(files);
        let set = open(folder.path()).unwrap().train;
        (set.digest().unwrap(), set.digests().unwrap())
    };
    let (first, images) = of(&[("a/1.png", &one), ("b/2.png", &two), ("b/3.png", &one)]);
    assert_eq!(images[0], images[2]);
    assert_ne!(images[0], images[1]);
    assert_eq!(
        first,
        of(&[("a/1.png", &one), ("b/2.png", &two), ("b/3.png", &one)]).0
    );
    for other in [
        [("a/1.png", &two), ("b/2.png", &two), ("b/3.png", &one)],
        [("a/1.png", &one), ("b/2.png", &two), ("b/4.png", &one)],
        [("a/1.png", &one), ("a/2.png", &two), ("b/3.png", &one)],
    ] {
        let files = other.map(|(name, bytes)| (name, bytes.as_slice()));
        assert_ne!(first, of(&files).0, "{:?}", other.map(|(name, _)| name));
    }
}

#[test]
fn statistics_are_of_pixels_in_images_of_any_size() {
    let folder = folder(&[
        ("1.png", &png([1, 1], [0; 3])),
        ("2.png", &png([1, 3], [255; 3])),
    ]);
    let set = open(folder.path()).unwrap().train;
    let all = file_statistics(&set, 10, 0).unwrap();
    // Three of four pixels are white: the variance is 3 / 16.
    assert_eq!(all.mean, [0.75; 3]);
    assert!(
        all.std
            .iter()
            .all(|std| (std - 0.1875_f64.sqrt()).abs() < 1e-12)
    );
    let one = file_statistics(&set, 1, 0).unwrap();
    assert!(one.mean == [0.0; 3] || one.mean == [1.0; 3]);
    assert_eq!(one, file_statistics(&set, 1, 0).unwrap());
    std::fs::write(folder.path().join("1.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let error = message(file_statistics(&set, 10, 0).unwrap_err(), &folder);
    assert!(error.starts_with("1.png"), "{error}");
}

#[test]
fn images_decoded_at_opening_are_known_by_their_pixels() {
    let [dark, light] = [png([4, 6], [10, 20, 30]), png([2, 3], [200, 100, 50])];
    let mut again = light.clone();
    // A chunk that no decoder looks at: another file, and the same pixels.
    again.splice(
        33..33,
        [0, 0, 0, 0, b't', b'E', b'X', b't', 0x94, 0x3e, 0x84, 0x2c],
    );
    let broken = &dark[..dark.len() - 20];
    let folder = folder(&[
        ("cat/1.png", &dark),
        ("cat/2.png", broken),
        ("dog/3.png", &light),
        ("dog/4.png", &again),
        ("backup.tar", b"x"),
    ]);
    let with = |decode, bad_rows| {
        let options = ImageFileOptions {
            decode,
            bad_rows,
            ..ImageFileOptions::default()
        };
        open_with(folder.path(), &options)
    };
    let all = |seed, held| Some(DecodeAll { seed, held });
    // A header alone does not tell.
    assert_eq!(with(None, BadRows::Refuse).unwrap().len(), 4);
    let refused = message(with(all(0, 0), BadRows::Refuse).unwrap_err(), &folder);
    assert!(
        refused.contains("1 of 4 image files can't be read (1 truncated: cat/2.png)"),
        "{refused}"
    );
    // 4 x 6 x 3 and twice 2 x 3 x 3 bytes, and the broken one, which promises as many as the first.
    for held in [0, 72 + 18 + 18 + 72] {
        let sets = with(all(7, held), BadRows::Skip).unwrap();
        assert_eq!(
            sets.lines(),
            [
                "images: 3 read, 1 left out (1 truncated: cat/2.png)",
                "left out 1 file that is no image: .tar 1"
            ]
        );
        let set = &sets.train;
        assert_eq!(set.targets, ImageTargets::Classes(vec![0, 1, 1]));
        let contents: Vec<_> = (0..3).map(|i| *set.content(i).unwrap()).collect();
        assert!(contents[0] != contents[1] && contents[1] == contents[2]);
        let planes = set.decode(0).unwrap().planes();
        assert_eq!(contents[0], crate::split::content_hash(&planes, 7));
        assert_eq!(set.one_size(), Err([0, 1]));
        assert_eq!(set.select(&[2, 1]).one_size(), Ok([2, 3]));
        let one = set.select(&[2]);
        assert_eq!(one.statistics(), Some(file_statistics(&one, 9, 0).unwrap()));
        // What is held needs its file no more.
        std::fs::rename(folder.path().join("dog/4.png"), folder.path().join("4")).unwrap();
        assert_eq!(one.decode(0).is_ok(), held > 0);
        std::fs::rename(folder.path().join("4"), folder.path().join("dog/4.png")).unwrap();
    }
}

#[test]
fn contents_are_the_same_in_grey_and_in_rgb() {
    let folder = folder(&[
        ("1.png", &png([2, 3], [9, 80, 200])),
        ("2.png", &png([2, 3], [7; 3])),
        ("3.jpg", &jpeg([5, 9])),
    ]);
    let contents = |channels| {
        let options = ImageFileOptions {
            channels: Some(channels),
            decode: Some(DecodeAll { seed: 3, held: 0 }),
            ..ImageFileOptions::default()
        };
        let set = open_with(folder.path(), &options).unwrap().train;
        assert_eq!(set.channels, channels);
        (0..3).map(|i| *set.content(i).unwrap()).collect::<Vec<_>>()
    };
    let grey = contents(1);
    assert_eq!(grey, contents(3));
    assert_eq!(grey[1], crate::split::content_hash(&[7; 6], 3));
    assert!(grey[0] != grey[1] && grey[1] != grey[2]);
}

#[test]
fn tables_named_for_splits_are_read_and_images_that_they_do_not_name_are_said() {
    let image = png([1, 1], [5; 3]);
    let folder = folder(&[
        (
            "train.csv",
            b"image,label\nall/./1.png,cat\nall/2.png,dog\n",
        ),
        ("test.csv", b"image,label\nall/3.png,dog\n"),
        ("all/1.png", &image),
        ("all/2.png", &image),
        ("all/3.png", &image),
        ("all/4.png", &image),
        ("new/5.png", &image),
        ("readme.txt", b"x"),
    ]);
    let sets = open(folder.path()).unwrap();
    let test = sets.test.as_ref().unwrap();
    assert_eq!((sets.train.len(), test.len()), (2, 1));
    assert_eq!(
        sets.lines(),
        [
            "images: 3 read",
            "left out 2 images that no row of a table names: all/4.png, new/5.png"
        ]
    );
    // A table that names no images is something else.
    std::fs::write(folder.path().join("train.csv"), "epoch,loss\n1,2\n").unwrap();
    std::fs::write(folder.path().join("test.csv"), "epoch,loss\n1,2\n").unwrap();
    let sets = open(folder.path()).unwrap();
    assert_eq!(sets.train.classes, ["all", "new"]);
    assert!(sets.lines()[1].contains(".csv 2"), "{:?}", sets.lines());
}
