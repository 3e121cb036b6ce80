//! `--find-batch`: the largest batch that fits, and the fastest. In: a recipe. Out: a table.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::failure::Failure;
use crate::report::compare::table;
use crate::run::memory_bytes;
use crate::tune::child;

/// Steps of each trial: the first one or two are slower.
const STEPS: u64 = 8;

struct Trial {
    batch_size: usize,
    rate: f64,
    bytes: f64,
}

/// Doubles the batch until one fails, takes four fifths of the memory, or two in turn are slower than the best.
///
/// - args: of this program, without `--find-batch`
/// - scratch: a folder for the trials
pub fn find_batch(args: &[String], scratch: &Path) -> Result<(), Failure> {
    child::listen().map_err(Failure::Running)?;
    let limit = memory_bytes().map_or(f64::INFINITY, |bytes| 0.8 * bytes as f64);
    let mut trials: Vec<Trial> = Vec::new();
    let mut batch_size = 8;
    let why = loop {
        let run = scratch.join(batch_size.to_string());
        let more = [
            "--out".into(),
            run.display().to_string(),
            "--ui".into(),
            "none".into(),
            "--steps".into(),
            STEPS.to_string(),
            "--set".into(),
            format!("training.batch_size={batch_size}"),
            "--set".into(),
            "training.validate_every=1000000".into(),
        ];
        let ended = child::run(&[args, &more].concat(), || false).map_err(Failure::Running)?;
        if child::interrupted() {
            break "interrupted".to_string();
        }
        match (ended.code, child::summary(&run)) {
            (Some(0), Some(summary)) => trials.extend(Trial::of(batch_size, &summary)),
            // The first says that the recipe is wrong, not that the batch is large.
            (Some(2), _) if trials.is_empty() => {
                let message = ended.message.trim_start_matches("error: ");
                return Err(Failure::input(message));
            }
            _ => break format!("a batch of {batch_size} fails: {}", ended.message),
        }
        std::fs::remove_dir_all(&run)
            .with_context(|| run.display().to_string())
            .map_err(Failure::Running)?;
        if trials.last().is_some_and(|trial| trial.bytes > limit) {
            break "four fifths of the memory are taken".into();
        }
        if slower_twice(&trials) {
            break "larger ones are slower".into();
        }
        batch_size *= 2;
    };
    tell(&trials, &why);
    Ok(())
}

impl Trial {
    fn of(batch_size: usize, summary: &Value) -> Option<Self> {
        let rates = summary["throughput"].as_object()?;
        Some(Self {
            batch_size,
            rate: rates.values().next()?.as_f64()?,
            bytes: summary["peak_memory_bytes"].as_f64()?,
        })
    }
}

fn slower_twice(trials: &[Trial]) -> bool {
    let best = trials.iter().map(|trial| trial.rate).fold(0.0, f64::max);
    matches!(trials, [.., a, b] if a.rate < 0.98 * best && b.rate < 0.98 * best)
}

fn tell(trials: &[Trial], why: &str) {
    let mut rows = vec![
        ["batch_size", "units/s", "peak MiB"]
            .map(String::from)
            .to_vec(),
    ];
    rows.extend(trials.iter().map(
        |Trial {
             batch_size,
             rate,
             bytes,
         }| {
            let mib = bytes / f64::from(1 << 20);
            vec![
                batch_size.to_string(),
                format!("{rate:.0}"),
                format!("{mib:.0}"),
            ]
        },
    ));
    print!("{}", table(&rows));
    println!("stopped: {why}");
    let fastest = trials.iter().max_by(|a, b| a.rate.total_cmp(&b.rate));
    if let (Some(largest), Some(fastest)) = (trials.last(), fastest) {
        println!(
            "largest tried that fits: --set training.batch_size={}",
            largest.batch_size
        );
        println!("fastest: --set training.batch_size={}", fastest.batch_size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_slower_batches_in_turn_end_the_search() {
        let of = |rates: &[f64]| -> Vec<Trial> {
            let trial = |(at, rate): (usize, &f64)| Trial {
                batch_size: 8 << at,
                rate: *rate,
                bytes: 1.0,
            };
            rates.iter().enumerate().map(trial).collect()
        };
        assert!(!slower_twice(&of(&[1.0, 2.0, 1.5])));
        assert!(!slower_twice(&of(&[1.0, 2.0, 1.5, 3.0])));
        assert!(slower_twice(&of(&[1.0, 2.0, 1.5, 1.6])));
        assert!(!slower_twice(&of(&[1.0, 2.0, 1.99, 1.99])));
    }
}
