//! `report`: a run as one page. In: a run directory, whether or not the run has ended, others to compare it with, and an
//! evaluation. Out: an HTML file that needs nothing else.
//!
//! Reading order: this file, `overview` (what was trained), `curves`, `classes`, `evaluation`, `pictures`,
//! `comparison`, and `html` (what the others are made of).

pub(crate) mod classes;
mod comparison;
mod curves;
mod evaluation;
pub(crate) mod html;
pub(crate) mod overview;
mod pictures;

use std::path::{Path, PathBuf};

use clap::Args;
use train::Failure;

use crate::open;
use crate::record::Record;
use evaluation::Evaluation;
use html::Section;

/// Write a run as one HTML page: recipe, curves, classes, images, comparison with other runs
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:
  apps report runs/text-classification runs/scratch --output report.html")]
pub struct Flags {
    /// A run directory; those after the first are what it is compared with
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Where the page goes [default: report.html in the first run]
    #[arg(long, value_name = "FILE.html")]
    pub output: Option<PathBuf>,
    /// A folder that `apps evaluate --output` wrote, of the first run's model
    #[arg(long, value_name = "DIR")]
    pub evaluation: Option<PathBuf>,
}

/// Writes the page, and says where it is.
///
/// # Errors
///
/// A run or an evaluation that cannot be read, or a page that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let records = flags.runs.iter().map(|path| Record::open(path));
    let records: Vec<Record> = records.collect::<Result<_, _>>()?;
    let evaluation = flags.evaluation.as_deref().map(Evaluation::read);
    let evaluation = evaluation.transpose()?;
    let in_run = || flags.runs[0].join("report.html");
    let output = flags.output.clone().unwrap_or_else(in_run);
    check_name(&output)?;
    open::check_output(&output, &[])?;
    let page = page(&records, evaluation.as_ref())?;
    open::write_output(&output, page.as_bytes())?;
    Ok(format!("wrote {}\n", output.display()))
}

/// No file of a run ends so: a mistyped flag must not cost its log.
fn check_name(output: &Path) -> Result<(), Failure> {
    let is_page = |extension: &std::ffi::OsStr| {
        ["html", "htm", "xhtml"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    };
    if output.extension().is_some_and(is_page) {
        return Ok(());
    }
    let output = output.display();
    Err(Failure::input(format!(
        "{output}: a page is HTML; name it so"
    )))
}

/// - records: the first is the subject
fn page(records: &[Record], evaluation: Option<&Evaluation>) -> Result<String, Failure> {
    let record = &records[0];
    let mut sections = Vec::new();
    let mut add = |id, title, body| sections.push(Section { id, title, body });
    add("trained", "What was trained", overview::trained(record));
    add("figures", "Figures", overview::figures(record));
    add("curves", "Curves", curves::of_run(record)?);
    if let Some(body) = classes::of_run(record)? {
        add("details", "Details of the last split that was judged", body);
    }
    if let Some(evaluation) = evaluation {
        let known = record.classes().unwrap_or_default();
        add("evaluation", "Evaluation", evaluation.markup(&known)?);
    }
    if let Some(body) = pictures::of_run(record)? {
        add("images", "Images", body);
    }
    if records.len() > 1 {
        add("comparison", "Comparison", comparison::of_runs(records)?);
    }
    add("recipe", "Recipe", overview::recipe(record)?);
    let title = format!("Report of {}", record.run.name);
    Ok(html::page(&title, &overview::lead(record), &sections))
}
