//! The command line that `pretrain` and `finetune` share, and how it ends: 0, 1, 2 or 130. [`mod@completions`] and [`mod@man`] are of every
//! program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use toml::Value;

use crate::backend::BackendName;
use crate::failure::{Failure, FailureKind};
use crate::process;
use crate::recipe::explain::explain;
use crate::recipe::{BuiltIn, Draft, Impossible};
use crate::report::compare::{CompareArgs, compare};
use crate::run::{Existing, RunDir};
use crate::session::{Options, Status};
use crate::tune::find_batch::find_batch;
use crate::tune::probe::Probe;
use crate::tune::sweep::{SweepArgs, sweep};
use crate::ui::{Ui, print};

pub mod completions;
pub mod man;

use completions::{CompletionsArgs, completions};
use man::{ManArgs, man};

/// Flags of both trainers.
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// A built-in recipe (see --list) or a TOML file
    #[arg(value_name = "RECIPE")]
    pub recipe: Option<String>,
    /// Data to read instead of the recipe's; may be repeated
    #[arg(long, value_name = "PATH")]
    pub data: Vec<String>,
    /// A bundle, a Hugging Face directory, an adapter, a run or the bundled wordnet-bert-nano to start from; or scratch
    #[arg(long, value_name = "BUNDLE_OR_RUN")]
    pub from: Option<String>,
    /// The run directory [default: runs/RECIPE]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with the run in --out from its newest checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Replace the run in --out
    #[arg(long, conflicts_with = "resume")]
    pub force: bool,
    /// Set one key of the recipe; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// cuda, metal, vulkan, wgpu, flex or ndarray [default: the best one compiled in]
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Optimizer steps, instead of the recipe's
    #[arg(allow_negative_numbers = true, long, value_name = "N")]
    pub steps: Option<u64>,
    /// The seed, instead of the recipe's
    #[arg(allow_negative_numbers = true, long, value_name = "N")]
    pub seed: Option<u64>,
    /// What is shown while training [default: tui on a terminal, else plain]
    #[arg(long)]
    pub ui: Option<Ui>,
    /// Build everything, run two steps and a validation, write nothing
    #[arg(long, conflicts_with = "resume")]
    pub dry_run: bool,
    /// Write profile.json into the run: where the time of each step goes, for ui.perfetto.dev
    #[arg(long, conflicts_with_all = ["dry_run", "find_lr", "find_batch", "overfit_batch"])]
    pub profile: bool,
    /// Try learning rates from 1e-6 to 10, plot the losses, suggest one
    #[arg(long, conflicts_with_all = ["resume", "dry_run", "overfit_batch"])]
    pub find_lr: bool,
    /// Double the batch until it does not fit or holds all data, and tell the largest and the fastest
    #[arg(long, conflicts_with_all = ["resume", "dry_run", "find_lr", "overfit_batch", "steps", "out", "ui", "explain", "force"])]
    pub find_batch: bool,
    /// Train on one batch until it is learnt, or say what does not learn; write nothing
    #[arg(long, conflicts_with_all = ["resume", "dry_run"])]
    pub overfit_batch: bool,
    /// Draw the first training batch of images, as the model sees it, and stop [default: batch.png]
    #[arg(long, value_name = "FILE.png", num_args = 0..=1, default_missing_value = "batch.png", value_parser = png,
          conflicts_with_all = ["resume", "dry_run", "find_lr", "find_batch", "overfit_batch", "explain", "profile"])]
    pub show_batch: Option<PathBuf>,
    /// List the built-in recipes
    #[arg(long)]
    pub list: bool,
    /// Print every key of the recipe with its value, what it means and where it comes from
    #[arg(long, conflicts_with = "resume")]
    pub explain: bool,
}

/// A file for a picture.
fn png(path: &str) -> Result<PathBuf, String> {
    if path.to_lowercase().ends_with(".png") {
        return Ok(path.into());
    }
    Err("a file for it ends in .png; a recipe comes before the flag".into())
}

/// Where a person reads on, for the end of the help.
pub const MORE: &str = "\
More: README.md, sections \"Models\", \"Recipes\", \"Training\" and \"Your own data\"";

/// What is done instead of training.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Subcommand {
    /// Show runs side by side, and draw one plot of them
    Compare(CompareArgs),
    /// Try settings of a recipe, each with every seed
    Sweep(SweepArgs),
    /// Print a script that lets a shell complete this command line
    Completions(CompletionsArgs),
    /// Print manual pages, or write them into a folder
    Man(ManArgs),
}

/// One objective or task: its name, its recipe, and what runs it.
pub struct Entry {
    /// As `RECIPE` names it.
    pub name: &'static str,
    /// One line for `--list`.
    pub about: &'static str,
    /// The built-in recipe.
    pub recipe: &'static str,
    /// Refuses what can be refused of a recipe before data is read.
    pub check: fn(&Draft) -> Result<(), Failure>,
    /// Runs a recipe.
    pub run: fn(Draft, Options) -> Result<Status, Failure>,
}

/// A trainer: what it can train.
pub struct Trainer {
    /// The recipe key that names an entry: `objective` or `task`.
    pub key: &'static str,
    /// Everything it can train; the first is the default.
    pub entries: &'static [Entry],
}

/// Runs a trainer and turns how it ended into an exit code.
///
/// - command: the definition of the program's command line
pub fn main(
    trainer: &Trainer,
    command: Command,
    args: TrainArgs,
    subcommand: Option<Subcommand>,
) -> ExitCode {
    let printed = |text: &str| print(text).map(|()| Status::Done);
    match &subcommand {
        Some(Subcommand::Compare(args)) => return exit(compare(args).map(|()| Status::Done)),
        Some(Subcommand::Sweep(args)) => return exit(sweep(args)),
        Some(Subcommand::Completions(args)) => return exit(printed(&completions(args, command))),
        Some(Subcommand::Man(args)) => {
            return exit(man(args, command).and_then(|text| printed(&text)));
        }
        None => {}
    }
    if args.list {
        let lines = trainer.entries.iter();
        let lines = lines.map(|entry| format!("{:<22}{}\n", entry.name, entry.about));
        return exit(print(&lines.collect::<String>()).map(|()| Status::Done));
    }
    if args.find_batch {
        return exit(try_batches());
    }
    exit(run(trainer, args))
}

/// The same command in child processes, with batches of many sizes.
fn try_batches() -> Result<Status, Failure> {
    let args = std::env::args().skip(1).filter(|arg| arg != "--find-batch");
    let scratch = std::env::temp_dir().join(format!("hearth-find-batch-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).running()?;
    let found = find_batch(&args.collect::<Vec<_>>(), &scratch);
    std::fs::remove_dir_all(&scratch).running()?;
    found
}

/// Prints an error once and gives the exit code.
pub fn exit(result: Result<Status, Failure>) -> ExitCode {
    match result {
        Ok(Status::Done) => ExitCode::SUCCESS,
        Ok(Status::Interrupted) => ExitCode::from(130),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(trainer: &Trainer, args: TrainArgs) -> Result<Status, Failure> {
    let backend = BackendName::choose(args.backend.as_deref())?;
    let built_in: Vec<BuiltIn> = trainer.entries.iter().map(|e| (e.name, e.recipe)).collect();
    let draft = if args.resume {
        resumed(trainer, &args, &built_in)?
    } else {
        resolved(trainer, &args, &built_in)?
    };
    if args.explain {
        print(&format!("{}\n", explain(&draft).trim_end()))?;
        return Ok(Status::Done);
    }
    let kind = draft.kind();
    let entry = trainer.entries.iter().find(|entry| entry.name == kind);
    let entry = entry.ok_or_else(|| Failure::input(format!("no {} \"{kind}\"", trainer.key)))?;
    let options = Options {
        out: out(trainer, &args),
        existing: match (args.resume, args.force) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Replace,
            _ => Existing::Refuse,
        },
        ui: Ui::choose(args.ui),
        backend,
        dry_run: args.dry_run,
        profile: args.profile,
        interrupt: process::interrupt(),
        log_file: true,
        probe: match (args.find_lr, args.overfit_batch) {
            (true, _) => Some(Probe::FindLr),
            (_, true) => Some(Probe::OverfitBatch),
            _ => None,
        },
        show_batch: args.show_batch.clone(),
    };
    if !args.dry_run && options.probe.is_none() && options.show_batch.is_none() {
        // Before the data is read: nobody waits for a refusal.
        RunDir::check(&options.out, options.existing)?;
    }
    if options.ui != Ui::None {
        let lines = draft.without_effect();
        lines.iter().for_each(|line| eprintln!("warning: {line}"));
    }
    (entry.run)(draft.clone(), options).map_err(|failure| located(failure, &draft))
}

/// An impossible value, with the file and line or the flag that it comes from.
fn located(failure: Failure, draft: &Draft) -> Failure {
    match &failure {
        Failure::Input(error) => match error.downcast_ref::<Impossible>() {
            Some(value) => Failure::input(format!("{}: {value}", draft.place_of(value))),
            None => failure,
        },
        Failure::Running(_) => failure,
    }
}

/// The run directory: `--out`, or `runs/` and the name of the recipe or of its file.
fn out(trainer: &Trainer, args: &TrainArgs) -> PathBuf {
    let recipe = args.recipe.as_deref().unwrap_or(trainer.entries[0].name);
    let name = Path::new(recipe).file_stem().unwrap_or_default();
    let default = || Path::new("runs").join(name);
    args.out.clone().unwrap_or_else(default)
}

/// The recipe that the flags ask for.
fn resolved(trainer: &Trainer, args: &TrainArgs, built_in: &[BuiltIn]) -> Result<Draft, Failure> {
    let name = args.recipe.as_deref().unwrap_or(trainer.entries[0].name);
    let mut draft = Draft::open(name, trainer.key, built_in)?;
    draft.set_all(args.set.iter().map(String::as_str))?;
    put_data(&mut draft, args)?;
    if let Some(from) = &args.from {
        draft.put("from", Value::String(from.clone()), "--from")?;
    }
    draft.use_all_of_own_data();
    if let Some(steps) = args.steps {
        draft.put("training.steps", whole(steps)?, "--steps")?;
    }
    if let Some(seed) = args.seed {
        draft.put("seed", whole(seed)?, "--seed")?;
    }
    Ok(draft)
}

/// The recipe of the run that goes on: with more steps, or with its data in another place. Other changes are refused.
fn resumed(trainer: &Trainer, args: &TrainArgs, built_in: &[BuiltIn]) -> Result<Draft, Failure> {
    let changes = [
        (!args.set.is_empty(), "--set"),
        (args.from.is_some(), "--from"),
        (args.seed.is_some(), "--seed"),
    ];
    let out = out(trainer, args);
    if let Some((_, flag)) = changes.iter().find(|(is_set, _)| *is_set) {
        let out = out.display();
        return Err(Failure::input(format!(
            "--resume goes on with the run's own recipe, so leave out {flag}; --steps extends the run, --data names data that \
             has moved, and --from {out} --out DIR starts a new run from what this one has learnt"
        )));
    }
    let run = RunDir::check(&out, Existing::Resume)?;
    run.recipe()?;
    let path = run.path().join("recipe.toml");
    let mut draft = Draft::open(&path.to_string_lossy(), trainer.key, built_in)?;
    put_data(&mut draft, args)?;
    if let Some(steps) = args.steps {
        draft.put("training.steps", whole(steps)?, "--steps")?;
    }
    Ok(draft)
}

fn put_data(draft: &mut Draft, args: &TrainArgs) -> Result<(), Failure> {
    if !args.data.is_empty() {
        let paths = args.data.iter().cloned().map(Value::String).collect();
        draft.put("data.source", Value::Array(paths), "--data")?;
    }
    Ok(())
}

fn whole(n: u64) -> Result<Value, Failure> {
    let n = i64::try_from(n).map_err(|_| Failure::input(format!("{n} is too large")))?;
    Ok(Value::Integer(n))
}
