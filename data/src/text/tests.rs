//! Tests of the readers, each by a small file that is written and read back.

use super::*;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use tempfile::TempDir;

fn columns(label: Option<&str>) -> TextColumns {
    TextColumns {
        text: "text".into(),
        label: label.map(String::from),
        ..TextColumns::default()
    }
}

/// Writes one file and reads it back.
fn read(name: &str, bytes: impl AsRef<[u8]>, label: Option<&str>) -> Result<TextSet, DataError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read_text(&[path], &columns(label))
}

/// (text, label, line) of each example.
fn rows(set: &TextSet) -> Vec<(&str, Option<&str>, usize)> {
    set.examples
        .iter()
        .map(|e| (e.text.as_str(), e.label.as_deref(), e.line))
        .collect()
}

/// The error's message with the folder cut off.
fn message(name: &str, bytes: impl AsRef<[u8]>, label: Option<&str>) -> String {
    let message = read(name, bytes, label).unwrap_err().to_string();
    let at = message.find(name).unwrap();
    message[at..].to_string()
}

/// The message of a file with one bad row, without the advice at its end.
fn fault(name: &str, bytes: impl AsRef<[u8]>, label: Option<&str>) -> String {
    let message = message(name, bytes, label);
    let advice = "; mend this row, or set data.bad_rows = \"skip\" to leave it out";
    message.strip_suffix(advice).unwrap().to_string()
}

/// Reads one file, its bad rows left out.
fn skipped(name: &str, bytes: impl AsRef<[u8]>, label: Option<&str>) -> Result<TextSet, DataError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let columns = TextColumns {
        bad_rows: BadRows::Skip,
        ..columns(label)
    };
    read_text(&[path], &columns)
}

/// What was left out, without the folders of the places.
fn left_out(set: &TextSet) -> Vec<String> {
    let folder = format!("{}/", set.files[0].parent().unwrap().display());
    let lines = set.left_out.lines();
    lines.iter().map(|line| line.replace(&folder, "")).collect()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn lines_are_examples_and_blank_ones_are_skipped() {
    let set = read("a.txt", "\u{feff}one\r\n\r\n  \n two\nthree", None).unwrap();
    let expected = [("one", None, 1), (" two", None, 4), ("three", None, 5)];
    assert_eq!(rows(&set), expected);
    assert!(set.place(1).ends_with("a.txt:4"));
    assert_eq!(Dataset::get(&set, 2).unwrap().text, "three");
    assert_eq!(Dataset::get(&set, 3), None);
}

#[test]
fn csv_knows_quotes_line_breaks_and_columns_in_any_order() {
    let bytes = "label,id,text\npos,1,\"a, \"\"b\"\"\nc\"\n neg ,2,d\n";
    let set = read("a.csv", bytes, Some("label")).unwrap();
    let expected = [("a, \"b\"\nc", Some("pos"), 2), ("d", Some("neg"), 4)];
    assert_eq!(rows(&set), expected);
    let unlabelled = read("a.csv", bytes, None).unwrap();
    assert!(unlabelled.examples.iter().all(|e| e.label.is_none()));
}

#[test]
fn csv_lines_are_right_after_crlf_and_blank_lines() {
    let bytes = "\u{feff}\r\ntext\r\na\r\n\r\n\r\nb\r\n\"c\r\nd\"\r\ne";
    let set = read("a.csv", bytes, None).unwrap();
    let expected = [
        ("a", None, 3),
        ("b", None, 6),
        ("c\r\nd", None, 7),
        ("e", None, 9),
    ];
    assert_eq!(rows(&set), expected);
}

#[test]
fn tsv_takes_quotes_as_they_are() {
    let set = read("a.tsv", "text\tlabel\n\"a, b\tx\n5\" c\ty\n", Some("label")).unwrap();
    let expected = [("\"a, b", Some("x"), 2), ("5\" c", Some("y"), 3)];
    assert_eq!(rows(&set), expected);
}

#[test]
fn jsonl_reads_its_keys() {
    let bytes =
        "{\"text\": \"a\\nb\", \"label\": \"x\", \"n\": [1]}\r\n\n{\"label\": 3, \"text\": \"c\"}";
    let set = read("a.jsonl", bytes, Some("label")).unwrap();
    assert_eq!(rows(&set), [("a\nb", Some("x"), 1), ("c", Some("3"), 3)]);
    assert!(read("a.ndjson", "{\"text\": \"a\"}", None).is_ok());
}

#[test]
fn each_format_may_be_packed() {
    for (name, bytes) in [
        ("a.txt.gz", "one"),
        ("a.CSV.GZ", "text\none"),
        ("a.tsv.gz", "text\none"),
        ("a.jsonl.gz", "{\"text\": \"one\"}"),
    ] {
        let set = read(name, gz(bytes.as_bytes()), None).unwrap();
        assert_eq!(set.examples[0].text, "one", "{name}");
        let packed = zstd::encode_all(bytes.as_bytes(), 1).unwrap();
        let name = name.to_lowercase().replace(".gz", ".zst");
        let set = read(&name, packed, None).unwrap();
        assert_eq!(set.examples[0].text, "one", "{name}");
    }
    let cut = &zstd::encode_all("one\ntwo\n".as_bytes(), 1).unwrap()[..9];
    assert_eq!(message("a.txt.zst", cut, None), "a.txt.zst: cannot be read");
}

#[test]
fn a_pattern_is_the_known_files_that_match() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("deep")).unwrap();
    for name in ["b.txt", "a.txt", "a.md", "deep/c.txt"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let texts = |pattern: &str| {
        let set = read_text(&[folder.path().join(pattern)], &columns(None))?;
        Ok::<_, DataError>(set.examples.into_iter().map(|e| e.text).collect::<Vec<_>>())
    };
    assert_eq!(texts("*").unwrap(), ["a.txt", "b.txt"]);
    assert_eq!(texts("**/*.txt").unwrap(), ["a.txt", "b.txt", "deep/c.txt"]);
    let error = texts("*.csv").unwrap_err();
    assert!(matches!(error, DataError::NoMatch { .. }), "{error}");
    let error = texts("a***").unwrap_err();
    assert!(matches!(error, DataError::BadPattern { .. }), "{error}");
    // A name with such letters is a name first.
    std::fs::write(folder.path().join("[b].txt"), "brackets").unwrap();
    assert_eq!(texts("[b].txt").unwrap(), ["brackets"]);
}

#[test]
fn a_stream_ends_at_its_first_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, "{\"text\": \"a\"}\n[]\n{\"text\": \"b\"}\n").unwrap();
    let items: Vec<_> = stream(&[path], &columns(None)).unwrap().collect();
    assert_eq!(items.len(), 2);
    assert!(items[0].is_ok() && items[1].is_err());
}

#[test]
fn an_endless_line_is_refused_before_it_fills_the_memory() {
    let line = vec![b'a'; file::LONGEST_LINE + 1];
    let packed = gz(&line);
    let expected = "is longer than 16 MiB; a line end is missing, or a quote that closes";
    for (name, start) in [("a.txt.gz", ""), ("a.jsonl.gz", "")] {
        assert_eq!(
            message(name, &packed, None),
            format!("{name}:1: {expected}"),
            "{start}"
        );
    }
    let lines = "a line of an open quote\n".repeat(file::LONGEST_LINE / 23);
    let bytes = format!("text\n\"{lines}");
    assert_eq!(
        message("a.csv", bytes, None),
        format!("a.csv:2: {expected}")
    );
}

/// A Parquet file of a text and an optional label in row groups of two.
fn parquet(rows: &[(&str, Option<i64>)]) -> Vec<u8> {
    use ::parquet::basic::{Compression, ZstdLevel};
    use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use ::parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
    use ::parquet::schema::parser::parse_message_type;
    let schema = "message m { optional int64 label; required binary text (UTF8); }";
    let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
    let level = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
    let properties = WriterProperties::builder().set_compression(level).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties.into()).unwrap();
    for rows in rows.chunks(2) {
        let mut group = writer.next_row_group().unwrap();
        let labels: Vec<i64> = rows.iter().filter_map(|row| row.1).collect();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.1.is_some())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        let typed = column.typed::<Int64Type>();
        typed.write_batch(&labels, Some(&levels), None).unwrap();
        column.close().unwrap();
        let texts: Vec<ByteArray> = rows.iter().map(|row| row.0.into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn parquet_reads_its_columns() {
    let bytes = parquet(&[("one", Some(1)), ("two", Some(-2)), ("three", Some(3))]);
    let set = read("a.parquet", &bytes, Some("label")).unwrap();
    let expected = [
        ("one", Some("1"), 1),
        ("two", Some("-2"), 2),
        ("three", Some("3"), 3),
    ];
    assert_eq!(rows(&set), expected);
    assert_eq!(
        read("a.parquet", &bytes, None).unwrap().examples[2].label,
        None
    );
}

#[test]
fn parquet_that_does_not_fit() {
    let bytes = parquet(&[("one", Some(1)), ("two", None), (" ", Some(2))]);
    let set = skipped("a.parquet", &bytes, Some("label")).unwrap();
    assert_eq!(rows(&set), [("one", Some("1"), 1)]);
    let expected = [
        "1 row left out, \"label\" is null: a.parquet:2",
        "1 row left out, \"text\" is empty: a.parquet:3",
    ];
    assert_eq!(left_out(&set), expected);
    assert_eq!(
        fault("a.parquet", &bytes, None),
        "a.parquet:3: \"text\" is empty"
    );
    assert_eq!(
        message("a.parquet", &bytes, Some("stars")),
        "a.parquet:1: column \"stars\" is missing; the columns are \"label\", \"text\""
    );
    let wanted = TextColumns {
        text: "label".into(),
        ..TextColumns::default()
    };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    std::fs::write(&path, &bytes).unwrap();
    let error = read_text(&[path], &wanted).unwrap_err().to_string();
    assert!(
        error.ends_with("column \"label\" holds integers; a text is one value of type string"),
        "{error}"
    );
    assert_eq!(message("a.parquet", "", None), "a.parquet: is empty");
    assert_eq!(
        message("a.parquet", parquet(&[]), None),
        "a.parquet: holds no example"
    );
    assert!(
        message("a.parquet", "PAR1 not really PAR1", None).contains("cannot be read as Parquet")
    );
}

#[test]
fn broken_parquet_is_an_error_and_no_panic() {
    let bytes = parquet(&[("one", Some(1)), ("two", Some(2)), ("three", None)]);
    for cut in 1..bytes.len() {
        assert!(
            read("a.parquet", &bytes[..cut], None).is_err(),
            "{cut} bytes"
        );
    }
    // Some bytes may differ without harm: it must only come back.
    for at in 0..bytes.len() {
        for value in [0, 0x7f, 0xff] {
            let mut broken = bytes.clone();
            broken[at] = value;
            let _ = read("a.parquet", &broken, Some("label"));
        }
    }
}

#[test]
fn a_folder_is_its_known_files_sorted() {
    let folder = TempDir::new().unwrap();
    for name in ["b.txt", "a.csv", "c.md", ".d.txt"] {
        std::fs::write(folder.path().join(name), format!("text\n{name}")).unwrap();
    }
    std::fs::create_dir(folder.path().join("deep.txt")).unwrap();
    let set = read_text(&[folder.path().into()], &columns(None)).unwrap();
    let names: Vec<_> = set.files.iter().map(|path| file::name(path)).collect();
    assert_eq!(names, ["a.csv", "b.txt"]);
    assert_eq!(
        rows(&set),
        [("a.csv", None, 2), ("text", None, 1), ("b.txt", None, 2)]
    );
    assert_eq!(set.examples[2].file, 1);
}

/// A folder with these files, each with its bytes.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// Names of the files that are read, and what is said of the others.
fn found(folder: &TempDir, pattern: &str) -> (Vec<String>, Option<String>) {
    let found = text_files(&folder.path().join(pattern)).unwrap();
    let name = |path: &PathBuf| {
        path.strip_prefix(folder.path())
            .unwrap()
            .display()
            .to_string()
    };
    let line = unread_line(&found.unread);
    (found.files.iter().map(name).collect(), line)
}

#[test]
fn json_beside_other_texts_is_read_unless_it_is_named_like_settings() {
    let row = "[{\"text\": \"from json\"}]";
    let folder = folder(&[
        ("a.csv", "text\na\n"),
        ("b.json", row),
        ("c.JSON", row),
        ("dataset_info.json", row),
        ("generation_config.json", row),
    ]);
    for pattern in ["", "*"] {
        let (files, line) = found(&folder, pattern);
        assert_eq!(files, ["a.csv", "b.json", "c.JSON"], "{pattern:?}");
        let expected = "left out 2 files: dataset_info.json 1, generation_config.json 1";
        assert_eq!(line.as_deref(), Some(expected), "{pattern:?}");
    }
    let set = read_text(&[folder.path().into()], &columns(None)).unwrap();
    assert_eq!(set.examples[1].text, "from json");
    // A file that is named alone is meant.
    let named = read_text(&[folder.path().join("dataset_info.json")], &columns(None));
    assert_eq!(named.unwrap().len(), 1);
}

#[test]
fn what_is_not_read_of_a_folder_is_counted_by_reason() {
    let folder = folder(&[
        ("train.csv", "text\na\n"),
        ("test.csv.bz2", ""),
        ("b.md", ""),
        ("x.xlsx", ""),
        ("LICENSE", ""),
        (".DS_Store", ""),
        ("__MACOSX/a.csv", ""),
        ("deep/a.txt", "a"),
        ("deep/er/b.txt", "b"),
        ("data/c.txt", "c"),
    ]);
    let expected =
        "left out 9 files: in a sub-folder 3, hidden 2, no extension 1, .md 1, .csv.bz2 1, .xlsx 1";
    assert_eq!(
        found(&folder, ""),
        (vec!["train.csv".into()], Some(expected.into()))
    );
}

#[test]
fn files_below_the_folders_of_splits_are_counted() {
    let folder = folder(&[
        ("train/a.csv", "text\na\n"),
        ("train/deep/part.csv", "text\na\n"),
        ("test/a.json", "[{\"text\": \"a\"}]"),
        ("test/state.json", "{}"),
        ("other/c.csv", "text\na\n"),
    ]);
    let (files, line) = found(&folder, "");
    assert_eq!(files, ["test/a.json", "train/a.csv"]);
    let expected = "left out 3 files: in a sub-folder 2, state.json 1";
    assert_eq!(line.as_deref(), Some(expected));
}

#[test]
fn a_folder_without_known_files_is_an_error() {
    let of = |files: &[(&str, &str)]| {
        let folder = folder(files);
        let error = read_text(&[folder.path().into()], &columns(None)).unwrap_err();
        error
            .to_string()
            .replace(&folder.path().display().to_string(), "FOLDER")
    };
    let none = of(&[("a.md", "x"), ("config.json", "{}")]);
    assert!(
        none.starts_with("FOLDER: the folder holds no file with a known extension (.txt, ")
            && none.ends_with("; left out 2 files: .md 1, config.json 1"),
        "{none}"
    );
    // As `datasets` writes with `save_to_disk`.
    let arrow = of(&[
        ("dataset_dict.json", "{}"),
        ("train/data-00000-of-00001.arrow", "x"),
        ("train/dataset_info.json", "{\"features\": {}}"),
        ("train/state.json", "{}"),
    ]);
    assert_eq!(
        arrow,
        "FOLDER/train/data-00000-of-00001.arrow: .arrow files are not read; write Parquet instead of save_to_disk, \
         for example with dataset[\"train\"].to_parquet(\"train.parquet\")"
    );
    assert!(message("a.arrow", "x", None).contains("to_parquet"));
}

#[test]
fn files_that_cannot_be_read_at_all() {
    let error = read_text(&["no/such.csv".into()], &columns(None)).unwrap_err();
    assert_eq!(error.to_string(), "no/such.csv: no such file");
    assert_eq!(message("a.txt", "", None), "a.txt: is empty");
    assert_eq!(
        message("a.docx", "x", None),
        "a.docx: unknown extension; known are .txt, .text, .csv, .tsv, .jsonl, .ndjson, .json, each also with .gz or .zst, and .parquet"
    );
    let packed = gz(b"text\nsome words to pack\n");
    let cut = &packed[..packed.len() - 10];
    let error = read("a.csv.gz", cut, None).unwrap_err();
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");
    assert!(error.to_string().ends_with("a.csv.gz: cannot be read"));
}

#[test]
fn files_without_an_example() {
    for (name, bytes) in [
        ("a.txt", "\n \n"),
        ("a.txt", "\u{feff}"),
        ("a.csv", "text\n"),
        ("a.csv", "\n\n"),
        ("a.tsv", "text"),
        ("a.jsonl", "\n"),
    ] {
        assert_eq!(
            message(name, bytes, None),
            format!("{name}: holds no example")
        );
    }
}

#[test]
fn bytes_that_are_not_utf8_are_named_by_line() {
    for (name, bytes, at) in [
        ("a.txt", b"one\nab\xe9\n".as_slice(), 3),
        ("a.csv", b"text\n\xe9\n", 1),
        ("a.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xe9\"}", 11),
        ("a.json", b"{\"text\": \"a\"}\n{\"text\": \"\xe9\"}", 11),
    ] {
        assert_eq!(
            fault(name, bytes, None),
            format!(
                "{name}:2: not valid UTF-8: byte 0xE9 at place {at}, which is '\u{e9}' in Windows-1252"
            )
        );
    }
    let chinese = fault("a.txt", b"one\n\xc4\xe3\xba\xc3\n", None);
    assert!(
        chinese.ends_with("byte 0xC4 at place 1, as in files of another encoding"),
        "{chinese}"
    );
    // A header is no row.
    let header = skipped("a.csv", b"text,\xff\na,b\n", None).unwrap_err();
    assert!(
        header.to_string().contains("a.csv:1: not valid UTF-8"),
        "{header}"
    );
}

#[test]
fn a_file_of_another_encoding_is_refused_as_a_whole() {
    let latin = [b"text\n".as_slice(), &b"caf\xe9\nplain\n".repeat(10)].concat();
    let error = skipped("a.csv", &latin, None).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "a.csv: 10 of 20 rows are not valid UTF-8, and none of the others has a letter beyond ASCII: the file has \
             another encoding (line 2: byte 0xE9 at place 4, which is '\u{e9}' in Windows-1252); convert it, for \
             example with iconv -f WINDOWS-1252 -t UTF-8"
        ),
        "{error}"
    );
    // UTF-8 with spoilt rows, and a few spoilt rows.
    let spoilt = [latin.as_slice(), "na\u{ef}f\n".as_bytes()].concat();
    let set = skipped("a.csv", &spoilt, None).unwrap();
    assert_eq!((set.len(), set.left_out.total()), (11, 10));
    let few = [b"text\n".as_slice(), &b"caf\xe9\nplain\n".repeat(9)].concat();
    assert_eq!(skipped("a.csv", &few, None).unwrap().left_out.total(), 9);
    let reason = &skipped("a.csv", &few, None).unwrap().left_out.reasons()[0]
        .name
        .clone();
    assert_eq!(reason, "not valid UTF-8, perhaps Windows-1252");
}

#[test]
fn no_encoding_is_named_but_the_one_that_was_recognised() {
    // Windows-1251, and Shift-JIS, whose second bytes are partly ASCII. Of each a row that could be Windows-1252.
    for (byte, latin, row) in [
        (
            "C2",
            &b"\xc2 \xf1\xe0\xe4\xf3\n"[..],
            &b"\xcf\xf0\xe8\xe2\xe5\xf2 \xe8 \xec\xe8\xf0\n"[..],
        ),
        ("83", b"\x83A\x83C\n", b"\x93\xfa\x96\x7b\n"),
    ] {
        let bytes = [latin, &row.repeat(20)].concat();
        let error = skipped("a.txt", bytes, None).unwrap_err().to_string();
        let end = format!(
            "(line 1: byte 0x{byte} at place 1, as in files of another encoding); convert it, for example with \
             iconv -f ENCODING -t UTF-8, with the name of its encoding"
        );
        assert!(error.ends_with(&end), "{error}");
    }
}

#[test]
fn a_carriage_return_alone_ends_a_line() {
    let set = read("a.txt", "one\rtwo\r\nthree\n\rfour", None).unwrap();
    let expected = [
        ("one", None, 1),
        ("two", None, 2),
        ("three", None, 3),
        ("four", None, 5),
    ];
    assert_eq!(rows(&set), expected);
    let set = read("a.csv", "text,label\ra,x\r\"b\rc\",y\rd,z", Some("label")).unwrap();
    let expected = [
        ("a", Some("x"), 2),
        ("b\rc", Some("y"), 3),
        ("d", Some("z"), 5),
    ];
    assert_eq!(rows(&set), expected);
    let set = read("a.jsonl", "{\"text\": \"a\"}\r{\"text\": \"b\"}\r", None).unwrap();
    assert_eq!(rows(&set), [("a", None, 1), ("b", None, 2)]);
    let set = read("a.tsv", "sep=\t\rtext\tlabel\ra\tx\r", Some("label")).unwrap();
    assert_eq!(rows(&set), [("a", Some("x"), 3)]);
}

#[test]
fn a_quote_that_takes_in_the_rows_after_it_is_no_text() {
    let bytes = "text,label\na,x\n\"open b,y\nc,x\n5 \"close d,y\ne,x\n";
    let expected = "a quote opens here and closes in line 5, where text follows it; one of the two has no pair";
    assert_eq!(
        fault("a.csv", bytes, Some("label")),
        format!("a.csv:3: {expected}")
    );
    let set = skipped("a.csv", bytes, Some("label")).unwrap();
    assert_eq!(rows(&set), [("a", Some("x"), 2), ("e", Some("x"), 6)]);
    assert_eq!(
        left_out(&set),
        ["1 row left out, a quote without its pair, which takes in the rows after it: a.csv:3"]
    );
    // Quotes of several lines that are pairs, with white space behind them and quotes in them.
    for text in [
        "\"a\nb\" ,x\n",
        "\"a \"\"b\"\"\nc\",x\n",
        "\"a\"b,\"x\ny\"\n",
        "\"a\nb\",x",
    ] {
        assert_eq!(
            read("a.csv", format!("text,label\n{text}"), Some("label"))
                .unwrap()
                .len(),
            1,
            "{text}"
        );
    }
}

#[test]
fn utf16_without_a_mark_is_read_and_nul_bytes_are_refused() {
    let text = "\u{416}\u{438}\u{432}\u{43e}\u{442}\n".repeat(3);
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let set = read("a.txt", bytes, None).unwrap();
    assert_eq!(
        (set.len(), set.examples[0].text.as_str()),
        (3, text.lines().next().unwrap())
    );
    let error = message("a.jsonl", "{\"text\": \"a\"}\n\0\n", None);
    assert!(error.starts_with("a.jsonl:2: a NUL byte"), "{error}");
}

#[test]
fn utf16_is_read_with_its_lines() {
    let text = "text,label\r\ncaf\u{e9},x\r\n,y\r\n\u{1f426},z\r\n";
    let mut bytes = vec![0xff, 0xfe];
    bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    let set = skipped("a.csv", bytes, Some("label")).unwrap();
    let expected = [("caf\u{e9}", Some("x"), 2), ("\u{1f426}", Some("z"), 4)];
    assert_eq!(rows(&set), expected);
    assert_eq!(
        left_out(&set),
        ["1 row left out, \"text\" is empty: a.csv:3"]
    );
}

#[test]
fn labels_are_not_in_plain_lines() {
    assert!(message("a.txt", "one", Some("label")).contains("has no labels"));
}

#[test]
fn a_missing_column_lists_those_there() {
    assert_eq!(
        message("reviews.csv", "text,stars\na,1\n", Some("label")),
        "reviews.csv:1: column \"label\" is missing; the columns are \"text\", \"stars\""
    );
}

#[test]
fn a_missing_column_suggests_the_one_that_is_meant() {
    let of = |header: &str| message("a.csv", format!("{header}\na,1\n"), Some("label"));
    for (header, end) in [
        (
            "text,meta.label",
            "\"meta.label\"; perhaps \"meta.label\" is meant",
        ),
        ("text, Label", "\" Label\"; perhaps \" Label\" is meant"),
        ("text,labels", "\"labels\""),
    ] {
        assert!(of(header).ends_with(end), "{}", of(header));
    }
}

#[test]
fn rows_that_do_not_fit_the_header() {
    assert_eq!(
        fault("a.csv", "text,label\r\na,1\r\nb\r\n", None),
        "a.csv:3: has 1 fields, the header has 2"
    );
    assert_eq!(
        message("a.csv", "label,text\n1,a\n2,\"b\n3,c\n", None),
        "a.csv:3: a quote opens and never closes"
    );
    // Left out, the rows after it are read: not so after an open quote.
    let set = skipped("a.csv", "text,label\na,1\nb\nc,2,3\nd,4\n", Some("label")).unwrap();
    assert_eq!(rows(&set), [("a", Some("1"), 2), ("d", Some("4"), 5)]);
    let expected = [
        "1 row left out, fewer fields than the header's 2: a.csv:3",
        "1 row left out, more fields than the header's 2: a.csv:4",
    ];
    assert_eq!(left_out(&set), expected);
    assert!(skipped("a.csv", "text\na\n\"b\nc\n", None).is_err());
    // Closed at the very end of the file.
    assert!(read("a.csv", "text\n\"a\"", None).is_ok());
}

#[test]
fn empty_texts_and_labels() {
    let of = |bytes| fault("a.csv", bytes, Some("label"));
    assert_eq!(of("text,label\na,1\n  ,2\n"), "a.csv:3: \"text\" is empty");
    assert_eq!(of("text,label\na,1\nb, \n"), "a.csv:3: \"label\" is empty");
    // Words that some programs take for nothing.
    let words = "text,label\nnull,NA\nNA,NaN\nNaN,None\nNone,null\n";
    assert_eq!(read("a.csv", words, Some("label")).unwrap().len(), 4);
}

#[test]
fn lines_of_jsonl_that_do_not_fit() {
    let of = |line: &str| {
        let good = "{\"text\": \"a\", \"label\": \"x\"}";
        fault("a.jsonl", format!("{good}\n{line}"), Some("label"))
    };
    let broken = of("{\"text\": ");
    assert!(
        broken.starts_with("a.jsonl:2: not valid JSON: EOF"),
        "{broken}"
    );
    assert_eq!(
        of("[1]"),
        "a.jsonl:2: is an array, each line must be a JSON object"
    );
    assert_eq!(
        of("{\"text\": \"a\", \"stars\": 1}"),
        "a.jsonl:2: key \"label\" is missing; the keys are \"text\", \"stars\""
    );
    assert_eq!(
        of("{\"text\": 1}"),
        "a.jsonl:2: \"text\" is a number, not a string"
    );
    assert_eq!(
        of("{\"text\": null}"),
        "a.jsonl:2: \"text\" is null, not a string"
    );
    let label = |label: &str| of(&format!("{{\"text\": \"a\", \"label\": {label}}}"));
    for (value, found) in [
        ("null", "null"),
        ("{\"x\": 1}", "an object"),
        ("[]", "an empty list"),
        ("[null]", "null"),
        ("1e300", "a number too large to be exact"),
    ] {
        assert_eq!(
            label(value),
            format!("a.jsonl:2: \"label\" is {found}, and no label")
        );
    }
}

#[test]
fn a_key_that_no_row_has_is_another_name() {
    let bytes = "{\"body\": \"a\", \"meta\": {\"text\": \"b\"}}\n".repeat(3);
    for read in [read, skipped] {
        let error = read("a.jsonl", &bytes, None).unwrap_err().to_string();
        let expected = "a.jsonl:1: key \"text\" is missing; the keys are \"body\", \"meta.text\"; \
                        perhaps \"meta.text\" is meant";
        assert!(error.ends_with(expected), "{error}");
    }
    let nested = TextColumns {
        text: "meta.text".into(),
        ..columns(None)
    };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read_text(&[path], &nested).unwrap().examples[2].text, "b");
}

#[test]
fn refused_rows_are_all_counted_and_the_first_are_named() {
    let bytes = "text,label\na,1\n,2\nb\nc,\nd,3\n ,4\n";
    let error = read("a.csv", bytes, Some("label")).unwrap_err();
    let DataError::BadRows { left_out } = &error else {
        panic!("{error}");
    };
    let counts: Vec<_> = left_out
        .reasons()
        .iter()
        .map(|r| (r.name.as_str(), r.count))
        .collect();
    let expected = [
        ("\"text\" is empty", 2),
        ("fewer fields than the header's 2", 1),
        ("\"label\" is empty", 1),
    ];
    assert_eq!(counts, expected);
    let message = error.to_string();
    assert!(
        message.starts_with("4 rows can't be used: \"text\" is empty in 2 ("),
        "{message}"
    );
    assert!(
        message.contains("a.csv:3, ") && message.contains("a.csv:7)"),
        "{message}"
    );
    assert!(
        message.ends_with("mend them, or set data.bad_rows = \"skip\" to leave them out"),
        "{message}"
    );
}

#[test]
fn a_set_without_a_usable_row_is_an_error() {
    let error = skipped("a.jsonl", "{\"text\": 1}\n{\"text\": 2}\n", None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a.jsonl: none of its 2 rows can be used: \"text\" is a number in 2 ("),
        "{error}"
    );
}

#[test]
fn rows_keep_their_places_whatever_is_wrong_with_them() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, "text,n\na,1\n ,2\nb\nc,3\n").unwrap();
    let stream = stream(std::slice::from_ref(&path), &columns(None)).unwrap();
    let rows: Vec<TextRow> = stream.rows().collect::<Result<_, _>>().unwrap();
    let places: Vec<_> = rows
        .iter()
        .map(|row| row.place.rsplit(':').next().unwrap())
        .collect();
    assert_eq!(places, ["2", "3", "4", "5"]);
    let texts: Vec<_> = rows
        .iter()
        .map(|row| row.text.as_deref().map_err(String::as_str))
        .collect();
    let fewer = Err("fewer fields than the header's 2");
    assert_eq!(texts, [Ok("a"), Err("\"text\" is empty"), fewer, Ok("c")]);
    // What ends the file is an error.
    std::fs::write(&path, "text\na\n\"b\n").unwrap();
    let rows: Vec<_> = self::stream(&[path], &columns(None))
        .unwrap()
        .rows()
        .collect();
    assert!(rows.len() == 2 && rows[0].is_ok() && rows[1].is_err());
}

#[test]
fn another_separator_is_recognised_by_the_header() {
    let expected = [("a, b", Some("x"), 2), ("c", Some("y"), 3)];
    for separator in [";", "|", "\t"] {
        let bytes = format!(
            "id{separator}label{separator}text\r\n1{separator}x{separator}\"a, b\"\r\n2{separator}y{separator}c"
        );
        let set = read("a.csv", &bytes, Some("label")).unwrap();
        assert_eq!(rows(&set), expected, "{separator:?}");
        let bytes = bytes.replace("id", "\"id\"");
        let announced = format!("sep={separator}\r\n{bytes}");
        let lines: Vec<usize> = read("a.csv", &announced, Some("label"))
            .unwrap()
            .examples
            .iter()
            .map(|e| e.line)
            .collect();
        assert_eq!(lines, [3, 4], "{separator:?}");
    }
    let set = read("a.tsv", "label,text\nx,\"a, b\"\ny,c\n", Some("label")).unwrap();
    assert_eq!(rows(&set), expected);
    // The columns of the separator that fits best are listed.
    assert_eq!(
        message("a.csv", "body;stars\na;1\n", None),
        "a.csv:1: column \"text\" is missing; the columns are \"body\", \"stars\""
    );
}

#[test]
fn json_is_an_array_or_lines() {
    let (one, two) = (
        "{\"text\": \"a\", \"label\": 1}",
        "{\n\"label\": true, \"text\": \"b\"}",
    );
    for (bytes, lines) in [
        (format!("[{one},\n{two}]"), [1, 2]),
        (format!("{{\"n\": 1, \"data\": [\n{one},{two}\n]}}"), [2, 2]),
        (format!("{two}\n{one}"), [1, 3]),
        (format!("{one}\n{}\n", two.replace('\n', "")), [1, 2]),
    ] {
        let set = read("a.json", &bytes, Some("label")).unwrap();
        let mut found: Vec<_> = set
            .examples
            .iter()
            .map(|e| (e.text.as_str(), e.label.as_deref().unwrap()))
            .collect();
        found.sort_unstable();
        assert_eq!(found, [("a", "1"), ("b", "true")], "{bytes}");
        let found: Vec<_> = set.examples.iter().map(|e| e.line).collect();
        assert_eq!(found, lines, "{bytes}");
    }
    let set = skipped(
        "a.json.gz",
        gz(format!("[3, {one}, {{\"text\": \"\"}}]").as_bytes()),
        Some("label"),
    )
    .unwrap();
    assert_eq!(rows(&set), [("a", Some("1"), 1)]);
    assert_eq!(set.left_out.total(), 2);
    assert_eq!(message("a.json", "[]", None), "a.json: holds no example");
    assert!(
        message("a.json", "[{\"text\": \"a\"}", None)
            .contains("a.json:1: the JSON breaks off here")
    );
}

#[test]
fn labels_of_json_are_values() {
    let labels = |values: &[&str]| -> Vec<String> {
        let line = |value: &&str| format!("{{\"text\": \"a\", \"label\": {value}}}\n");
        let bytes: String = values.iter().map(line).collect();
        let set = read("a.jsonl", bytes, Some("label")).unwrap();
        set.examples.into_iter().filter_map(|e| e.label).collect()
    };
    assert_eq!(labels(&["1", "1.0", "[2]", "-3"]), ["1", "1", "2", "-3"]);
    assert_eq!(labels(&["true", "false"]), ["true", "false"]);
    assert_eq!(
        labels(&["\"cafe\\u0301\"", "\"caf\u{e9}\""]),
        ["caf\u{e9}", "caf\u{e9}"]
    );
    assert_eq!(
        labels(&["18446744073709551615", "\" x \""]),
        ["18446744073709551615", "x"]
    );
    for read in [read, skipped] {
        let of = |value| {
            read(
                "a.jsonl",
                format!("{{\"text\": \"a\", \"label\": {value}}}"),
                Some("label"),
            )
        };
        let error = of("0.5").unwrap_err().to_string();
        assert!(error.contains("a.jsonl:1: \"label\" is a number with a fraction, 0.5: that is a regression, not a class"), "{error}");
        let error = of("[1, 2]").unwrap_err().to_string();
        assert!(
            error.contains("a.jsonl:1: \"label\" is a list of 2 labels"),
            "{error}"
        );
    }
}

#[test]
fn numbers_of_one_set_are_written_alike() {
    let folder = TempDir::new().unwrap();
    let [one, two] = ["1.csv", "2.csv"].map(|name| folder.path().join(name));
    std::fs::write(&one, "text,label\na,0\nb,1\n").unwrap();
    std::fs::write(&two, "text,label\nc,1.0\nd,2.0\n").unwrap();
    let set = read_text(&[one, two], &columns(Some("label"))).unwrap();
    let labels: Vec<_> = set
        .examples
        .iter()
        .filter_map(|e| e.label.as_deref())
        .collect();
    assert_eq!(labels, ["0", "1", "1", "2"]);
}

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    folder.join(format!("{name}.parquet"))
}

/// Labels of a fixture, which has six.
fn labels(name: &str) -> Result<Vec<String>, DataError> {
    let set = read_text(&[fixture(name)], &columns(Some("label")))?;
    let texts: Vec<_> = set.examples.iter().map(|e| e.text.as_str()).collect();
    assert_eq!(
        texts,
        ["text 0", "text 1", "text 2", "text 3", "text 4", "text 5"],
        "{name}"
    );
    Ok(set.examples.into_iter().filter_map(|e| e.label).collect())
}

#[test]
fn parquet_labels_of_all_types() {
    for (name, expected) in [
        ("bool", ["true", "false", "false"]),
        ("int8", ["-1", "0", "1"]),
        ("uint8", ["200", "201", "202"]),
        ("uint32", ["4294967295", "4294967294", "4294967293"]),
        (
            "uint64",
            [
                "18446744073709551615",
                "18446744073709551614",
                "18446744073709551613",
            ],
        ),
        ("float", ["0", "1", "2"]),
        ("double", ["0", "1", "2"]),
        ("decimal", ["0", "1", "2"]),
        ("decimal-cents", ["0", "1", "2"]),
        ("decimal-small", ["0", "1", "2"]),
        ("brotli", ["0", "1", "2"]),
        ("lz4", ["0", "1", "2"]),
        ("dictionary", ["zebra", "ant", "moss"]),
        ("large", ["zebra", "ant", "moss"]),
        ("view", ["zebra", "ant", "moss"]),
        ("list", ["zebra", "ant", "moss"]),
        ("classlabel", ["zebra", "ant", "moss"]),
        ("classlabel-list", ["zebra", "ant", "moss"]),
    ] {
        let expected = [expected, expected].concat();
        assert_eq!(labels(name).unwrap(), expected, "{name}");
    }
    let set = read_text(&[fixture("classlabel")], &columns(Some("label"))).unwrap();
    assert_eq!(set.class_names, ["zebra", "ant", "moss"]);
}

#[test]
fn parquet_labels_that_are_missing_are_rows_without_one() {
    for (name, expected, kept) in [
        (
            "gaps",
            vec!["\"label\" is null", "\"label\" is not a number"],
            vec!["0", "0", "1", "2"],
        ),
        (
            "list-gaps",
            vec!["\"label\" is an empty list"],
            vec!["ant", "moss", "ant"],
        ),
        (
            "classlabel-unknown",
            vec!["\"label\" is -1, which is no class"],
            vec!["zebra", "ant", "zebra", "ant", "moss"],
        ),
    ] {
        let columns = TextColumns {
            bad_rows: BadRows::Skip,
            ..columns(Some("label"))
        };
        let set = read_text(&[fixture(name)], &columns).unwrap();
        let labels: Vec<_> = set
            .examples
            .iter()
            .filter_map(|e| e.label.as_deref())
            .collect();
        assert_eq!(labels, kept, "{name}");
        let reasons: Vec<_> = set
            .left_out
            .reasons()
            .iter()
            .map(|r| r.name.as_str())
            .collect();
        assert_eq!(reasons, expected, "{name}");
    }
}

#[test]
fn parquet_columns_that_are_no_labels_or_texts() {
    let regression = "a regression, not a class";
    for (name, words) in [
        (
            "fraction",
            &[
                "fraction.parquet:3: \"label\" is a number with a fraction, 0.1: ",
                regression,
            ][..],
        ),
        (
            "decimal-fraction",
            &["decimal-fraction.parquet:1: \"label\" is a number with a fraction, -0.5: "],
        ),
        (
            "lists",
            &["lists.parquet:1: \"label\" is a list of 2 labels"],
        ),
        (
            "date",
            &["date.parquet: column \"label\" holds dates or times; a label is text"],
        ),
        (
            "classlabel-outside",
            &["classlabel-outside.parquet:3: \"label\" is 7, and the file names 3 classes, 0 to 2"],
        ),
        (
            "text-list",
            &["text-list.parquet: column \"text\" holds lists of text; a text is one value"],
        ),
        (
            "text-integer",
            &["text-integer.parquet: column \"text\" holds integers; a text is"],
        ),
        (
            "nested",
            &[
                "column \"text\" is missing",
                "perhaps \"meta.text\" is meant",
            ],
        ),
    ] {
        let error = read_text(&[fixture(name)], &columns(Some("label")))
            .unwrap_err()
            .to_string();
        assert!(
            words.iter().all(|words| error.contains(words)),
            "{name}: {error}"
        );
    }
}

/// A Parquet file of two-byte floats as labels, with the names of the classes that they number, or without.
fn parquet_of_halves(labels: &[u16], names: Option<&str>) -> Vec<u8> {
    use ::parquet::data_type::{
        ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType,
    };
    use ::parquet::file::{
        metadata::KeyValue, properties::WriterProperties, writer::SerializedFileWriter,
    };
    use ::parquet::schema::parser::parse_message_type;
    let schema = "message m { required fixed_len_byte_array(2) label (FLOAT16); required binary text (UTF8); }";
    let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
    let about = |names| {
        let feature =
            format!("{{\"info\": {{\"features\": {{\"label\": {{\"names\": {names}}}}}}}}}");
        vec![KeyValue::new("huggingface".into(), feature)]
    };
    let properties = WriterProperties::builder()
        .set_key_value_metadata(names.map(about))
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties.into()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes = |bits: &u16| FixedLenByteArray::from(bits.to_le_bytes().to_vec());
    let labels: Vec<FixedLenByteArray> = labels.iter().map(bytes).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<FixedLenByteArrayType>()
        .write_batch(&labels, None, None)
        .unwrap();
    column.close().unwrap();
    let texts: Vec<ByteArray> = labels.iter().map(|_| "text".into()).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<ByteArrayType>()
        .write_batch(&texts, None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn floats_of_two_bytes_are_numbers_and_number_classes() {
    let of = |labels: &[u16], names| {
        let set = read("a.parquet", parquet_of_halves(labels, names), Some("label"))?;
        Ok::<_, DataError>(
            set.examples
                .into_iter()
                .filter_map(|e| e.label)
                .collect::<Vec<_>>(),
        )
    };
    // 0, 1, 2, -3 and the largest, 65504.
    let halves = [0, 0x3c00, 0x4000, 0xc200, 0x7bff];
    assert_eq!(of(&halves, None).unwrap(), ["0", "1", "2", "-3", "65504"]);
    let names = Some("[\"ant\", \"bee\"]");
    assert_eq!(of(&[0x3c00, 0x8000], names).unwrap(), ["bee", "ant"]);
    let error = |label, names| of(&[label], names).unwrap_err().to_string();
    assert!(error(0x4000, names).contains("is 2, and the file names 2 classes, 0 to 1"));
    assert!(error(0xbc00, names).contains("\"label\" is -1, which is no class"));
    assert!(error(0x3800, names).contains("is a number with a fraction, 0.5: "));
    // The smallest above zero; infinity and what is no number.
    assert!(error(0x0001, None).contains("with a fraction, 0.00000005960464477539063: "));
    for label in [0x7c00, 0x7e00] {
        assert!(error(label, None).contains("\"label\" is not a number"));
    }
}

#[test]
fn nested_columns_of_parquet_are_found_by_their_path() {
    let nested = TextColumns {
        text: "meta.text".into(),
        ..columns(Some("meta.label"))
    };
    let set = read_text(&[fixture("nested")], &nested).unwrap();
    assert_eq!(rows(&set)[1], ("text 1", Some("ant"), 2));
    let group = TextColumns {
        text: "meta.text".into(),
        ..columns(Some("meta"))
    };
    let error = read_text(&[fixture("nested")], &group)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("perhaps \"meta.label\", \"meta.text\" is meant"),
        "{error}"
    );
}
