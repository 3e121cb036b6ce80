//! Curves over the steps of one run, or of several.

use train::metrics::Better;
use train::report::plot::{self, Curve, Plot};
use train::{Failure, FailureKind};

use super::html::{figure, note, printable};
use crate::record::Record;

/// Parts of a curve of which each keeps its lowest and its highest point, where there are more points than that.
const PARTS: usize = 1000;

/// Every metric, the learning rate and the throughput.
///
/// # Errors
///
/// A drawing fails.
pub(super) fn of_run(record: &Record) -> Result<String, Failure> {
    let events = &record.run.events;
    let mut plots = plot::of_events(events);
    let chosen = record.run.metric();
    // What chose the best step first, then the loss; the learning rate is the last one already.
    plots.sort_by_key(|(name, _)| match name.as_str() {
        name if name == chosen => 0,
        "loss" => 1,
        "learning_rate" => 3,
        _ => 2,
    });
    for name in plot::names(events, "train", "timing") {
        if name.ends_with("_per_second") {
            let title = name.replace("_per_second", " a second").replace('_', " ");
            let curve = plot::curve(events, "train", "timing", &name);
            plots.push((
                name,
                Plot::over_steps(&title, vec![("train".into(), curve)]),
            ));
        }
    }
    let mut body = String::new();
    for (name, plot) in plots {
        let better = Better::of_run(&record.run.summary, &name);
        body += &drawn(plot, better)?;
    }
    Ok(grid(body))
}

/// A metric of the validation of each run, for every metric that one has, and the loss in training.
///
/// # Errors
///
/// A drawing fails.
pub(super) fn of_runs(records: &[Record]) -> Result<String, Failure> {
    let mut metrics: Vec<(&str, String)> = Vec::new();
    for record in records {
        for name in plot::names(&record.run.events, "valid", "metrics") {
            if !metrics.iter().any(|(_, known)| *known == name) {
                metrics.push(("valid", name));
            }
        }
    }
    metrics.push(("train", "loss".into()));
    let mut body = String::new();
    for (split, name) in metrics {
        let curve = |record: &Record| {
            let curve = plot::curve(&record.run.events, split, "metrics", &name);
            (printable(&record.run.name), curve)
        };
        let of_split = if split == "valid" {
            "validation"
        } else {
            "training"
        };
        let title = format!("{name} of the {of_split}");
        let better = records
            .iter()
            .find_map(|record| Better::of_run(&record.run.summary, &name));
        let curves = records.iter().map(curve).collect();
        body += &drawn(Plot::over_steps(&title, curves), better)?;
    }
    Ok(grid(body))
}

fn grid(drawings: String) -> String {
    if drawings.is_empty() {
        return note("No figure has been recorded that could be drawn.");
    }
    format!("<div class=\"plots\">\n{drawings}</div>\n")
}

/// A drawing with what it shows in words; nothing where there is nothing to draw.
fn drawn(mut plot: Plot, better: Option<Better>) -> Result<String, Failure> {
    plot.title = printable(&plot.title);
    for (name, curve) in &mut plot.curves {
        *name = printable(name);
        *curve = thinned(std::mem::take(curve));
    }
    plot.curves.retain(|(_, curve)| !curve.is_empty());
    let Some(svg) = plot.svg().running()? else {
        return Ok(String::new());
    };
    let better = better.map_or(String::new(), |better| format!(" ({better})"));
    let curves: Vec<String> = plot.curves.iter().map(in_words).collect();
    let what = format!("{}{better} over steps. {}", plot.title, curves.join(" "));
    Ok(figure(&svg, &what))
}

/// Where a curve begins and ends, for those who do not see it.
fn in_words((name, curve): &(String, Curve)) -> String {
    let short = train::metrics::short;
    match (curve.first(), curve.last()) {
        (Some(first), Some(last)) if curve.len() > 1 => format!(
            "{name}: {} at step {}, {} at step {}.",
            short(first.1),
            first.0,
            short(last.1),
            last.0
        ),
        (Some(only), _) => format!("{name}: {} at step {}.", short(only.1), only.0),
        (None, _) => String::new(),
    }
}

/// A curve with no more points than can be seen: of each part the lowest and the highest.
fn thinned(curve: Curve) -> Curve {
    if curve.len() <= 2 * PARTS {
        return curve;
    }
    let size = curve.len().div_ceil(PARTS);
    let ends = |part: &[(f64, f64)]| {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let low = part.iter().min_by(by_height).copied();
        let high = part.iter().max_by(by_height).copied();
        let mut ends: Curve = low.into_iter().chain(high).collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        ends
    };
    curve.chunks(size).flat_map(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_keeps_its_peaks() {
        let point = |x: u32| (f64::from(x), if x == 7777 { 9.0 } else { f64::from(x % 2) });
        let curve: Curve = (0..20_000).map(point).collect();
        let thin = thinned(curve.clone());
        assert_eq!(thin.len(), 2 * PARTS);
        assert!(thin.contains(&(7777.0, 9.0)));
        assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let short = curve[..2 * PARTS].to_vec();
        assert_eq!(thinned(short.clone()), short);
    }
}
