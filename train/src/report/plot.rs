//! Plots of a run's figures as SVG. In: `metrics.jsonl`. Out: `plots/` in the run, or several runs in one plot.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use serde_json::Value;

/// Points of one curve, x ascending.
type Curve = Vec<(f64, f64)>;

type Drawn<T> = std::result::Result<T, DrawingAreaErrorKind<std::io::Error>>;

type Chart<'a, X> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, RangedCoordf64>>;

/// A plot of lines.
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x_label: String,
    /// The x axis is logarithmic.
    pub log_x: bool,
    /// Curves by name, drawn in this order.
    pub curves: Vec<(String, Curve)>,
}

/// Colours that people tell apart however they see them. Okabe and Ito 2008, <https://jfly.uni-koeln.de/color/>.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

impl Plot {
    /// Writes it as SVG, and says whether there was anything to draw: a curve with a finite point.
    pub fn write(&self, path: &Path) -> Result<bool> {
        let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let points = self.curves.iter().flat_map(|(_, curve)| curve);
        let points: Curve = points.filter(finite).copied().collect();
        if points.is_empty() {
            return Ok(false);
        }
        let x = match self.log_x {
            true => log_range(&points),
            false => range(&points, |p| p.0, 0.0),
        };
        let svg = self.draw(x, range(&points, |p| p.1, 0.05));
        let svg = svg.map_err(|e| anyhow!("{}: {e}", path.display()))?;
        fs::write(path, svg).with_context(|| path.display().to_string())?;
        Ok(true)
    }

    fn draw(&self, x: Range<f64>, y: Range<f64>) -> Drawn<String> {
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (800, 480)).into_drawing_area();
            root.fill(&WHITE)?;
            let mut builder = ChartBuilder::on(&root);
            builder
                .caption(&self.title, ("sans-serif", 22))
                .margin(14)
                .margin_right(28);
            builder.x_label_area_size(44).y_label_area_size(64);
            match self.log_x {
                true => self.lines(builder.build_cartesian_2d(x.log_scale(), y)?)?,
                false => self.lines(builder.build_cartesian_2d(x, y)?)?,
            }
            root.present()?;
        }
        Ok(svg)
    }

    fn lines<'a, X>(&self, mut chart: Chart<'a, X>) -> Drawn<()>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(&self.x_label).light_line_style(WHITE);
        mesh.label_style(("sans-serif", 14));
        let log_x = self.log_x;
        let x_label = move |x: &f64| match log_x {
            true => format!("{x:.0e}"),
            false => format!("{x:.0}"),
        };
        mesh.x_label_formatter(&x_label);
        mesh.y_label_formatter(&|y| crate::metrics::short(*y))
            .draw()?;
        for (at, (name, curve)) in self.curves.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let finite = curve.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
            let style = colour.stroke_width(2);
            let line = chart.draw_series(LineSeries::new(finite.copied(), style))?;
            line.label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        if self.curves.len() > 1 {
            let mut legend = chart.configure_series_labels();
            legend
                .label_font(("sans-serif", 14))
                .border_style(BLACK.mix(0.3));
            legend.background_style(WHITE.mix(0.85)).draw()?;
        }
        Ok(())
    }
}

/// From the lowest to the highest, and a share of that more on both sides; never empty.
fn range(points: &[(f64, f64)], of: fn(&(f64, f64)) -> f64, margin: f64) -> Range<f64> {
    let values = points.iter().map(of);
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    let wide = match high - low {
        0.0 => low.abs().max(1.0) * 0.1,
        wide => wide * margin,
    };
    low - wide..high + wide
}

/// The same for a logarithmic axis.
fn log_range(points: &[(f64, f64)]) -> Range<f64> {
    let values = points.iter().map(|p| p.0.max(f64::MIN_POSITIVE));
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(0.0, f64::max);
    low / 1.1..high * 1.1
}

/// The events of a run.
pub fn events(run: &Path) -> Result<Vec<Value>> {
    let path = run.join("metrics.jsonl");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let event = |(at, line)| {
        let place = || format!("{}:{}", path.display(), at + 1);
        serde_json::from_str(line).with_context(place)
    };
    // A run that is still going may be in the middle of a line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().enumerate().map(event).collect()
}

/// A figure over the steps of a split: `metrics` and `loss`, `group_lr` and `embeddings`.
pub fn curve(events: &[Value], split: &str, group: &str, name: &str) -> Curve {
    let of_split = events.iter().filter(|event| event["split"] == split);
    let point = |event: &Value| {
        let value = match name {
            "" => &event[group],
            name => &event[group][name],
        };
        Some((event["step"].as_f64()?, value.as_f64()?))
    };
    of_split.filter_map(point).collect()
}

/// Every name that a group of figures has in a split.
fn names(events: &[Value], split: &str, group: &str) -> Vec<String> {
    let of_split = events.iter().filter(|event| event["split"] == split);
    let keys = of_split.filter_map(|event| event[group].as_object());
    let all: BTreeMap<_, _> = keys
        .flat_map(|figures| figures.keys())
        .map(|key| (key, ()))
        .collect();
    all.into_keys().cloned().collect()
}

/// Writes a plot of every metric, with both splits where both have it, and of the learning rate.
pub fn run_plots(run: &Path) -> Result<()> {
    let events = events(run)?;
    let folder = run.join("plots");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut metrics = names(&events, "train", "metrics");
    metrics.extend(names(&events, "valid", "metrics"));
    metrics.sort();
    metrics.dedup();
    for name in &metrics {
        let of = |split: &str| (split.to_string(), curve(&events, split, "metrics", name));
        let curves = [of("train"), of("valid")];
        let curves = curves.into_iter().filter(|(_, curve)| !curve.is_empty());
        plot(name, curves.collect()).write(&folder.join(format!("{name}.svg")))?;
    }
    let groups = names(&events, "train", "group_lr");
    let of = |name: String| {
        let points = curve(&events, "train", "group_lr", &name);
        (name, points)
    };
    let mut curves: Vec<_> = groups.into_iter().map(of).collect();
    if curves.is_empty() {
        curves.push(("lr".into(), curve(&events, "train", "lr", "")));
    }
    plot("learning rate", curves).write(&folder.join("learning_rate.svg"))?;
    Ok(())
}

/// A metric of the validation splits of several runs, by name.
pub fn overlay(metric: &str, runs: &[(String, Vec<Value>)], path: &Path) -> Result<bool> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let of = |(name, events): &(String, Vec<Value>)| {
        (name.clone(), curve(events, "valid", "metrics", metric))
    };
    let title = format!("{metric} of the validation split");
    plot(&title, runs.iter().map(of).collect()).write(path)
}

fn plot(title: &str, curves: Vec<(String, Curve)>) -> Plot {
    Plot {
        title: title.into(),
        x_label: "step".into(),
        log_x: false,
        curves,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("metrics.jsonl"), lines).unwrap();
        folder
    }

    #[test]
    fn a_run_has_a_plot_of_each_metric() {
        let run = run(concat!(
            r#"{"step": 1, "split": "train", "metrics": {"loss": 3.0, "grad_norm": 1.0}, "lr": 0.1}"#,
            "\n",
            r#"{"step": 2, "split": "train", "metrics": {"loss": null, "grad_norm": 1.0}, "lr": 0.2}"#,
            "\n",
            r#"{"step": 2, "split": "valid", "metrics": {"loss": 2.0, "accuracy": 0.5}}"#,
            "\n"
        ));
        run_plots(run.path()).unwrap();
        let svg = |name: &str| fs::read_to_string(run.path().join("plots").join(name)).unwrap();
        assert!(svg("loss.svg").contains("train") && svg("loss.svg").contains("valid"));
        for name in ["grad_norm.svg", "accuracy.svg", "learning_rate.svg"] {
            assert!(svg(name).starts_with("<svg"), "{name}");
        }
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        let run = run("{\"step\": 1}\n{\"step\":\n");
        let error = format!("{:#}", run_plots(run.path()).unwrap_err());
        assert!(error.contains("metrics.jsonl:2"), "{error}");
    }

    #[test]
    fn plots_without_points_or_width_are_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.svg");
        plot("nothing", vec![("a".into(), vec![(1.0, f64::NAN)])])
            .write(&path)
            .unwrap();
        assert!(!path.exists());
        let log = Plot {
            log_x: true,
            ..plot("one", vec![("a".into(), vec![(1e-3, 2.0)])])
        };
        log.write(&path).unwrap();
        assert!(path.exists());
    }
}
