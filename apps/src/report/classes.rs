//! What a split says of each class. In: the details that a validation or a test records. Out: a table by class, the confusion
//! matrix, what is confused most, a reliability diagram.

use serde_json::{Map, Value};
use train::report::plot::{Curve, Plot};
use train::{Failure, FailureKind};

use super::html::{Cell, Table, figure, heading, note};
use super::overview::number;
use crate::record::{Record, grouped};

/// Classes of a confusion matrix that still fits a page.
const MATRIX: usize = 40;
/// Pairs of classes that are listed.
const PAIRS: usize = 15;
/// Bins of a reliability diagram, of equal width; a confidence of exactly 1 has one more for itself.
pub(super) const BINS: usize = 15;

/// Of the test, or where there is none of the last validation.
///
/// # Errors
///
/// A drawing fails.
pub(super) fn of_run(record: &Record) -> Result<Option<String>, Failure> {
    let Some((origin, details)) = shown_details(record) else {
        return Ok(None);
    };
    let names = record.classes().unwrap_or_default();
    Ok(Some(of_details(details, &names, &origin)?))
}

/// Classes, and counts of each true one by what was predicted, of what [`of_run`] shows; nothing where there is no matrix.
pub(crate) fn confusion_of(record: &Record) -> Option<(Vec<String>, Vec<Vec<u64>>)> {
    let (_, details) = shown_details(record)?;
    let confusion = matrix(&details["confusion"])?;
    let names = record.classes().unwrap_or_default();
    let n = confusion.len();
    let classes = (0..n).map(|class| name(&names, n, class)).collect();
    Some((classes, confusion))
}

/// Where the details come from, and what they are.
fn shown_details(record: &Record) -> Option<(String, &Value)> {
    if let Some(details) = record.summary("/test/details") {
        return Some(("the test split".into(), details));
    }
    let mut valid = record.run.events.iter().rev();
    let last = valid.find(|event| event["split"] == "valid" && event["details"].is_object())?;
    let step = last["step"].as_f64().map(grouped).unwrap_or_default();
    let origin = format!("the validation at step {step}");
    Some((origin, &last["details"]))
}

/// Everything that details say.
///
/// - names: of the classes, in the order of the details; a class without a name is shown by its number
/// - origin: of what they are: "the test split"
///
/// # Errors
///
/// A drawing fails.
pub(super) fn of_details(
    details: &Value,
    names: &[String],
    origin: &str,
) -> Result<String, Failure> {
    let mut body = String::new();
    if let Some(table) = by_class(&details["by_class"], names, origin) {
        body += &table.markup();
    }
    let entities = format!("entities of {origin}");
    if let Some(table) = by_class(&details["entities"]["by_class"], &[], &entities) {
        body += &table.markup();
    }
    if let Some(table) = precision_of_boxes(&details["map_50_by_class"], names, origin) {
        body += &table.markup();
    }
    if let Some(confusion) = matrix(&details["confusion"]) {
        body += &confused(&confusion, names, origin);
    }
    body += &calibration(&details["calibration"]["bins"], origin)?;
    let mut others = Vec::new();
    flatten("", details, &mut others);
    if !others.is_empty() {
        let others = others
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()));
        body += &Table::of_facts(&format!("Further figures of {origin}"), others).markup();
    }
    Ok(body)
}

/// The name of a class, or its number.
fn name(names: &[String], count: usize, class: usize) -> String {
    match names.get(class) {
        // Names of another number of classes would be the wrong ones.
        Some(name) if names.len() == count => name.clone(),
        _ => format!("class {class}"),
    }
}

/// Figures by class: a list in the order of the classes, or an object by name; nothing where details have none.
///
/// - figures: `by_class` of details
/// - names: of the classes, in the order of the list
pub(crate) fn by_class(figures: &Value, names: &[String], origin: &str) -> Option<Table> {
    let rows: Vec<(String, Option<&Map<String, Value>>)> = match figures {
        Value::Array(all) => {
            let of_classes = all.iter().map(Value::as_object).enumerate();
            let row = |(class, of_class)| (name(names, all.len(), class), of_class);
            of_classes.map(row).collect()
        }
        Value::Object(all) => {
            let of_classes = all.values().map(Value::as_object);
            all.keys().cloned().zip(of_classes).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    let mut columns: Vec<&String> = Vec::new();
    for column in rows
        .iter()
        .filter_map(|(_, of_class)| *of_class)
        .flat_map(Map::keys)
    {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    if columns.is_empty() {
        return None;
    }
    let row = |(name, of_class): &(String, Option<&Map<String, Value>>)| {
        let cell = |column: &&String| {
            let value = of_class.and_then(|of_class| of_class.get(*column));
            let value = value.filter(|value| !value.is_null());
            Cell::Number(value.map_or("-".into(), |value| match column.as_str() {
                // A count, whatever type the file gives it.
                "support" | "pixels" => value.as_f64().map_or("-".into(), grouped),
                _ => number(value),
            }))
        };
        let mut row = vec![Cell::Text(name.clone())];
        row.extend(columns.iter().map(cell));
        row
    };
    let mut head = vec!["class".to_string()];
    head.extend(columns.iter().map(|column| column.replace('_', " ")));
    Some(Table {
        caption: format!("Figures by class: {origin}"),
        head,
        rows: rows.iter().map(row).collect(),
    })
}

/// Average precision of boxes by the number of their class.
fn precision_of_boxes(figures: &Value, names: &[String], origin: &str) -> Option<Table> {
    let row = |(class, value): (&String, &Value)| {
        let named = class.parse().ok().and_then(|class: usize| names.get(class));
        let name = named.cloned().unwrap_or_else(|| format!("class {class}"));
        vec![Cell::Text(name), Cell::Number(number(value))]
    };
    let rows: Vec<_> = figures.as_object()?.iter().map(row).collect();
    Some(Table {
        caption: format!("Average precision at an IoU of 0.5 by class: {origin}"),
        head: vec!["class".into(), "average precision".into()],
        rows,
    })
}

/// A square of counts, `[truth][prediction]`.
fn matrix(value: &Value) -> Option<Vec<Vec<u64>>> {
    let rows: Vec<Vec<u64>> = serde_json::from_value(value.clone()).ok()?;
    let is_square = rows.iter().all(|row| row.len() == rows.len());
    (is_square && !rows.is_empty()).then_some(rows)
}

fn confused(confusion: &[Vec<u64>], names: &[String], origin: &str) -> String {
    let n = confusion.len();
    let name = |class| name(names, n, class);
    let mut body = heading("Confusion");
    if n > MATRIX {
        body += &note(&format!(
            "The matrix of {n} classes is left out, as it fits no page."
        ));
    } else {
        let row = |(truth, counts): (usize, &Vec<u64>)| {
            let all = counts.iter().sum::<u64>().max(1);
            let cell = |&count: &u64| {
                let level = (9 * count).div_ceil(all);
                Cell::Shade(count.to_string(), level as u8)
            };
            let mut row = vec![Cell::Text(name(truth))];
            row.extend(counts.iter().map(cell));
            row
        };
        let mut head = vec!["truth".to_string()];
        head.extend((0..n).map(name));
        let table = Table {
            caption: format!(
                "Confusion matrix of {origin}: a row a true class, a column a predicted one; the darker, the larger the share of the row"
            ),
            head,
            rows: confusion.iter().enumerate().map(row).collect(),
        };
        body += &table.matrix_markup();
    }
    let mut pairs: Vec<(u64, usize, usize)> = Vec::new();
    for (truth, counts) in confusion.iter().enumerate() {
        let wrong = counts
            .iter()
            .enumerate()
            .filter(|(class, count)| *class != truth && **count > 0);
        pairs.extend(wrong.map(|(class, &count)| (count, truth, class)));
    }
    pairs.sort_by_key(|&(count, truth, class)| (std::cmp::Reverse(count), truth, class));
    if pairs.is_empty() {
        return body + &note("Nothing is confused.");
    }
    let row = |&(count, truth, class): &(u64, usize, usize)| {
        let all = confusion[truth].iter().sum::<u64>();
        let share = format!("{:.1} %", 100.0 * count as f64 / all as f64);
        vec![
            Cell::Text(name(truth)),
            Cell::Text(name(class)),
            Cell::Number(grouped(count as f64)),
            Cell::Number(share),
        ]
    };
    let table = Table {
        caption: format!("What is confused most in {origin}"),
        head: ["truth", "predicted", "times", "of the true class"]
            .map(String::from)
            .to_vec(),
        rows: pairs.iter().take(PAIRS).map(row).collect(),
    };
    body + &table.markup()
}

/// A reliability diagram and its numbers; nothing where there are no bins.
fn calibration(bins: &Value, origin: &str) -> Result<String, Failure> {
    let bin = |(at, bin): (usize, &Value)| {
        let rows = bin["rows"].as_f64().filter(|rows| *rows > 0.0)?;
        Some((
            at,
            rows,
            bin["confidence"].as_f64()?,
            bin["accuracy"].as_f64()?,
        ))
    };
    let bins = bins.as_array().into_iter().flatten().enumerate();
    let bins: Vec<(usize, f64, f64, f64)> = bins.filter_map(bin).collect();
    if bins.is_empty() {
        return Ok(String::new());
    }
    let points: Curve = bins
        .iter()
        .map(|(_, _, confidence, accuracy)| (*confidence, *accuracy))
        .collect();
    let plot = Plot {
        title: "accuracy by confidence".into(),
        x_label: "confidence: the probability of the predicted class".into(),
        log_x: false,
        curves: vec![
            ("model".into(), points),
            (
                "as accurate as confident".into(),
                vec![(0.0, 0.0), (1.0, 1.0)],
            ),
        ],
    };
    let what = format!(
        "Reliability of {origin}: below the diagonal the model is more confident than accurate, above it less. The table has the \
         same numbers."
    );
    let drawing = plot.svg().running()?;
    let drawing = drawing.map_or(String::new(), |svg| figure(&svg, &what));
    let row = |(at, rows, confidence, accuracy): &(usize, f64, f64, f64)| {
        let edge = |at: usize| format!("{:.3}", at as f64 / BINS as f64);
        let range = if *at < BINS {
            format!("{} to {}", edge(*at), edge(at + 1))
        } else {
            "exactly 1".into()
        };
        vec![
            Cell::Text(range),
            Cell::Number(grouped(*rows)),
            Cell::Number(format!("{confidence:.3}")),
            Cell::Number(format!("{accuracy:.3}")),
        ]
    };
    let table = Table {
        caption: format!("Calibration of {origin}"),
        head: ["confidence", "rows", "mean confidence", "accuracy"]
            .map(String::from)
            .to_vec(),
        rows: bins.iter().map(row).collect(),
    };
    Ok(heading("Calibration") + &drawing + &table.markup())
}

/// The bin of a confidence, which holds its lower edge.
pub(super) fn bin_of(confidence: f64) -> usize {
    let edges = (1..=BINS).map(|edge| edge as f64 / BINS as f64);
    edges.filter(|edge| *edge <= confidence).count()
}

/// Numbers by their dotted names, but for those that have a table of their own.
fn flatten(prefix: &str, value: &Value, all: &mut Vec<(String, String)>) {
    const SHOWN: [&str; 5] = [
        "by_class",
        "confusion",
        "bins",
        "map_50_by_class",
        "entities",
    ];
    let below = |key: &str| match prefix {
        "" => key.to_string(),
        prefix => format!("{prefix}.{key}"),
    };
    match value {
        Value::Object(inner) => {
            for (key, value) in inner
                .iter()
                .filter(|(key, _)| !SHOWN.contains(&key.as_str()))
            {
                flatten(&below(key), value, all);
            }
        }
        Value::Array(inner) => {
            for (at, value) in inner.iter().enumerate() {
                flatten(&below(&(at + 1).to_string()), value, all);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => all.push((prefix.into(), number(value))),
        Value::String(text) => all.push((prefix.into(), text.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> Vec<String> {
        ["a", "b", "<c>"].map(String::from).to_vec()
    }

    #[test]
    fn pairs_are_listed_from_the_most_frequent_and_shares_are_of_the_truth() {
        // 2 of 8, 3 of 10 and 1 of 10 rows go wrong.
        let details = json!({"confusion": [[6, 2, 0], [0, 7, 3], [0, 1, 9]]});
        let body = of_details(&details, &names(), "the test split").unwrap();
        let pairs = body.split("confused most").last().unwrap();
        let rows: Vec<&str> = pairs
            .lines()
            .filter(|line| line.starts_with("<tr>"))
            .collect();
        let expected = [
            ("b", "&lt;c&gt;", "3", "30.0 %"),
            ("a", "b", "2", "25.0 %"),
            ("&lt;c&gt;", "b", "1", "10.0 %"),
        ];
        assert_eq!(rows.len(), expected.len(), "{pairs}");
        for (row, (truth, predicted, times, share)) in rows.iter().zip(expected) {
            assert_eq!(
                *row,
                format!(
                    "<tr><th scope=\"row\">{truth}</th><td>{predicted}</td><td class=\"number\">{times}</td>\
                     <td class=\"number\">{share}</td></tr>"
                )
            );
        }
        // 6 of 8 is 6.75 of 9 shades.
        assert!(body.contains("<td class=\"number s7\">6</td>"), "{body}");
    }

    #[test]
    fn names_of_another_number_of_classes_are_not_used() {
        let details = json!({"by_class": [{"f1": 0.5, "support": 3.0}, null]});
        let body = of_details(&details, &names(), "x").unwrap();
        assert!(
            body.contains("class 0") && body.contains("class 1"),
            "{body}"
        );
        assert!(
            body.contains("<td class=\"number\">0.5000</td><td class=\"number\">3</td>"),
            "{body}"
        );
        assert!(
            body.contains("<td class=\"number\">-</td><td class=\"number\">-</td>"),
            "{body}"
        );
    }

    #[test]
    fn a_confidence_is_in_the_bin_whose_lower_edge_it_has() {
        assert_eq!(
            [0.0, 0.066, 0.07, 0.5, 0.999, 1.0].map(bin_of),
            [0, 0, 1, 7, 14, 15]
        );
    }

    #[test]
    fn figures_without_a_table_of_their_own_are_listed() {
        let details =
            json!({"rouge1": {"f1": 0.25}, "precisions": [50.0], "best_f1_threshold": null});
        let body = of_details(&details, &[], "x").unwrap();
        for name in ["rouge1.f1", "precisions.1", "best_f1_threshold"] {
            assert!(
                body.contains(&format!("<th scope=\"row\">{name}</th>")),
                "{name}: {body}"
            );
        }
    }
}
