//! The data sets inside the program.

use clap::Args;
use data::bundled::SETS;
use serde::Serialize;
use train::Failure;

/// List the bundled data sets: rows, columns, size, licence, and what they serve
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:
  apps datasets list")]
pub struct Flags {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    rows: usize,
    columns: &'static [&'static str],
    packed_bytes: usize,
    licence: &'static str,
    about: &'static str,
}

/// Lists all of them.
///
/// # Errors
///
/// JSON that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let listed = SETS.iter().map(|set| Listed {
        name: set.name,
        rows: set.rows,
        columns: set.columns,
        packed_bytes: set.bytes(),
        licence: set.licence,
        about: set.about,
    });
    let listed: Vec<Listed> = listed.collect();
    if flags.json {
        return super::json(&listed);
    }
    let mut table = vec![["name", "rows", "packed", "columns", "licence"].map(String::from)];
    table.extend(listed.iter().map(|set| {
        let columns = if set.columns.is_empty() {
            "images, classes".into()
        } else {
            set.columns.join(", ")
        };
        let size = format!("{} KiB", set.packed_bytes.div_ceil(1 << 10));
        let (name, licence) = (set.name.to_string(), set.licence.to_string());
        [name, set.rows.to_string(), size, columns, licence]
    }));
    let width = |column: usize| {
        let cells = table.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let [names, rows, sizes, columns, _] = [0, 1, 2, 3, 4].map(width);
    let mut text = String::new();
    for (at, row) in table.iter().enumerate() {
        let [name, count, size, fields, licence] = row;
        text += &format!(
            "{name:<names$}  {count:>rows$}  {size:>sizes$}  {fields:<columns$}  {licence}\n"
        );
        if let Some(set) = at.checked_sub(1).map(|at| &listed[at]) {
            text += &format!("{:<names$}  {}\n", "", set.about);
        }
    }
    Ok(text)
}
