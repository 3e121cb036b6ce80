//! Plots of a run's figures as SVG. In: `metrics.jsonl`. Out: `plots/` in the run, several runs in one plot, or the drawing
//! itself, for a page.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use serde_json::Value;

use crate::metrics::Better;

/// Points of one curve, x ascending.
pub type Curve = Vec<(f64, f64)>;

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

/// Colours that differ however people see them. Okabe and Ito 2008, <https://jfly.uni-koeln.de/color/>.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

impl Plot {
    /// A plot over steps.
    pub fn over_steps(title: &str, curves: Vec<(String, Curve)>) -> Self {
        Self {
            title: title.into(),
            x_label: "step".into(),
            log_x: false,
            curves,
        }
    }

    /// Writes it as SVG, and says whether there was anything to draw: a curve with a finite point.
    pub fn write(&self, path: &Path) -> Result<bool> {
        let svg = self.svg().with_context(|| path.display().to_string())?;
        let Some(svg) = svg else {
            return Ok(false);
        };
        fs::write(path, svg).with_context(|| path.display().to_string())?;
        Ok(true)
    }

    /// The drawing; nothing where no curve has a finite point.
    ///
    /// # Errors
    ///
    /// The drawing fails.
    pub fn svg(&self) -> Result<Option<String>> {
        let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let points = self.curves.iter().flat_map(|(_, curve)| curve);
        let points: Curve = points.filter(finite).copied().collect();
        if points.is_empty() {
            return Ok(None);
        }
        let x = if self.log_x {
            log_range(&points)
        } else {
            range(&points, |p| p.0, 0.0)
        };
        let svg = self.draw(x, range(&points, |p| p.1, 0.05));
        let svg = svg.map_err(|error| anyhow!("the drawing failed: {error}"))?;
        Ok(Some(svg))
    }

    fn draw(&self, x: Range<f64>, y: Range<f64>) -> Drawn<String> {
        let mut svg = String::new();
        {
            let legend = Legend::of(&self.curves);
            let size = (WIDTH, HEIGHT + legend.rows as u32 * ROW);
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            root.fill(&WHITE)?;
            let (above, below) = root.split_vertically(HEIGHT);
            let mut builder = ChartBuilder::on(&above);
            builder
                .caption(&self.title, ("sans-serif", 22))
                .margin(14)
                .margin_right(28);
            builder.x_label_area_size(44).y_label_area_size(64);
            let axes = (x.clone(), y.clone());
            if self.log_x {
                self.lines(builder.build_cartesian_2d(x.log_scale(), y)?, axes)?;
            } else {
                self.lines(builder.build_cartesian_2d(x, y)?, axes)?;
            }
            legend.draw(&self.curves, &below)?;
            root.present()?;
        }
        Ok(svg)
    }

    fn lines<'a, X>(
        &self,
        mut chart: Chart<'a, X>,
        (x_axis, y_axis): (Range<f64>, Range<f64>),
    ) -> Drawn<()>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let log_x = self.log_x;
        let x_label = move |x: &f64| {
            if log_x {
                format!("{x:.0e}")
            } else {
                tick(*x, &x_axis)
            }
        };
        let y_label = move |y: &f64| tick(*y, &y_axis);
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(&self.x_label).light_line_style(WHITE);
        mesh.label_style(("sans-serif", 14));
        mesh.x_label_formatter(&x_label);
        mesh.y_label_formatter(&y_label).draw()?;
        for (at, (_, curve)) in self.curves.iter().enumerate() {
            let finite = curve.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
            let finite: Curve = finite.copied().collect();
            // A line of one point is nothing to see.
            let dot = if finite.len() == 1 { 4 } else { 0 };
            match dashes(at).filter(|_| dot == 0) {
                None => chart.draw_series(LineSeries::new(finite, style(at)).point_size(dot))?,
                Some((dash, gap)) => {
                    chart.draw_series(DashedLineSeries::new(finite, dash, gap, style(at)))?
                }
            };
        }
        Ok(())
    }
}

/// Pixels of a chart.
const WIDTH: u32 = 800;
const HEIGHT: u32 = 480;
/// Pixels of a row of names below it.
const ROW: u32 = 20;

/// The colour of the curve in this place.
fn style(at: usize) -> ShapeStyle {
    COLOURS[at % COLOURS.len()].filled().stroke_width(2)
}

/// Pixels of a dash and of a gap, once every colour is taken: by dashes, then by dots.
fn dashes(at: usize) -> Option<(i32, i32)> {
    match at / COLOURS.len() {
        0 => None,
        1 => Some((8, 5)),
        _ => Some((2, 4)),
    }
}

/// Names of curves below a chart, where they hide none; of a single curve the title says it all.
struct Legend {
    columns: usize,
    /// Pixels of a column.
    width: usize,
    rows: usize,
}

impl Legend {
    /// Pixels left of it.
    const LEFT: usize = 78;
    /// Pixels of a piece of the curve.
    const SAMPLE: i32 = 22;

    /// Columns as wide as the longest name.
    fn of(curves: &[(String, Curve)]) -> Self {
        let longest = curves.iter().map(|(name, _)| name.chars().count()).max();
        // A letter is seven pixels wide, if not all are capitals.
        let width = 7 * longest.unwrap_or(0) + 50;
        let columns = ((WIDTH as usize - Self::LEFT) / width).max(1);
        let rows = match curves.len() {
            0 | 1 => 0,
            n => n.div_ceil(columns),
        };
        Self {
            columns,
            width,
            rows,
        }
    }

    fn draw<B: DrawingBackend>(
        &self,
        curves: &[(String, Curve)],
        area: &DrawingArea<B, Shift>,
    ) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        for (at, (name, _)) in curves.iter().enumerate().filter(|_| self.rows > 0) {
            let x = (Self::LEFT + at % self.columns * self.width) as i32;
            let y = (at / self.columns) as i32 * ROW as i32;
            let sample = [(x, y + 6), (x + Self::SAMPLE, y + 6)];
            match dashes(at) {
                None => area.draw(&PathElement::new(sample, style(at)))?,
                Some((dash, gap)) => {
                    area.draw(&DashedPathElement::new(sample, dash, gap, style(at)))?;
                }
            }
            let font = ("sans-serif", 14);
            area.draw(&Text::new(name.as_str(), (x + Self::SAMPLE + 6, y), font))?;
        }
        Ok(())
    }
}

/// A number beside an axis: as many digits as its neighbours need to differ, none for nothing.
fn tick(value: f64, axis: &Range<f64>) -> String {
    let (wide, largest) = (axis.end - axis.start, axis.start.abs().max(axis.end.abs()));
    if value.abs() < 1e-6 * wide {
        // What is left of a sum that was meant to be 0.
        return "0".into();
    }
    // Neighbours are more than a hundredth of the axis apart.
    let digits = |unit: f64| (2.0 - (wide / unit).log10()).ceil().clamp(0.0, 15.0) as usize;
    let trimmed = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        } else {
            text.to_string()
        }
    };
    if (1e-3..1e6).contains(&largest) {
        return trimmed(&format!("{value:.*}", digits(1.0)));
    }
    let text = format!("{value:.*e}", digits(largest));
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{}e{exponent}", trimmed(mantissa)),
        None => text,
    }
}

/// From the lowest to the highest, and a share of that more on both sides; never empty.
fn range(points: &[(f64, f64)], of: fn(&(f64, f64)) -> f64, margin: f64) -> Range<f64> {
    let values = points.iter().map(of);
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    let wide = match high - low {
        0.0 if low == 0.0 => 0.1,
        0.0 => low.abs() * 0.1,
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
pub fn names(events: &[Value], split: &str, group: &str) -> Vec<String> {
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
    for (name, plot) in of_events(&events) {
        plot.write(&folder.join(format!("{name}.svg")))?;
    }
    Ok(())
}

/// A plot of every metric, by name, with both splits where both have it; the last one, `learning_rate`, is of the rates.
pub fn of_events(events: &[Value]) -> Vec<(String, Plot)> {
    let mut metrics = names(events, "train", "metrics");
    metrics.extend(names(events, "valid", "metrics"));
    metrics.sort();
    metrics.dedup();
    let of_metric = |name: String| {
        let of = |split: &str| (split.to_string(), curve(events, split, "metrics", &name));
        let curves = [of("train"), of("valid")].into_iter();
        let curves = curves.filter(|(_, curve)| !curve.is_empty()).collect();
        let plot = Plot::over_steps(&name, curves);
        (name, plot)
    };
    let mut plots: Vec<_> = metrics.into_iter().map(of_metric).collect();
    let groups = names(events, "train", "group_lr");
    let of_group = |name: String| {
        let points = curve(events, "train", "group_lr", &name);
        (name, points)
    };
    let mut curves: Vec<_> = groups.into_iter().map(of_group).collect();
    if curves.is_empty() {
        curves.push(("lr".into(), curve(events, "train", "lr", "")));
    }
    let plot = Plot::over_steps("learning rate", curves);
    plots.push(("learning_rate".into(), plot));
    plots
}

/// A metric over the steps of the validation split.
pub fn valid(events: &[Value], metric: &str) -> Curve {
    curve(events, "valid", "metrics", metric)
}

/// Writes a plot of a metric of several runs, by name, and says whether there was anything to draw.
///
/// - better: which of its values are, if it is known
pub fn overlay(
    metric: &str,
    better: Option<Better>,
    curves: Vec<(String, Curve)>,
    path: &Path,
) -> Result<bool> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let better = better.map_or(String::new(), |better| format!(", {better}"));
    let title = format!("{metric} of the validation split{better}");
    Plot::over_steps(&title, curves).write(path)
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
        Plot::over_steps("nothing", vec![("a".into(), vec![(1.0, f64::NAN)])])
            .write(&path)
            .unwrap();
        assert!(!path.exists());
        let log = Plot {
            log_x: true,
            ..Plot::over_steps("one", vec![("a".into(), vec![(1e-3, 2.0)])])
        };
        log.write(&path).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn numbers_beside_an_axis_are_as_short_as_they_may_be() {
        for (value, axis, text) in [
            (2.0, 0.7..2.2, "2"),
            (1.8, 0.7..2.2, "1.8"),
            (0.0018, 0.0..0.002, "0.0018"),
            (0.05, 0.0..0.07, "0.05"),
            (11.0, 5.5..11.7, "11"),
            (100.0, 0.0..200.0, "100"),
            (8000.0, 1000.0..8300.0, "8000"),
            (7.5, 6.3..7.7, "7.5"),
            // As `0.1 + 0.2 - 0.3` is.
            (-1.36e-20, -5e-5..0.001, "0"),
            (2e-4, 0.0..9e-4, "2e-4"),
            (1.5e-5, 1.4e-5..1.6e-5, "1.5e-5"),
            (2.5e6, 0.0..3e6, "2.5e6"),
            (1e6, 0.0..3e6, "1e6"),
        ] {
            assert_eq!(tick(value, &axis), text, "{value} of {axis:?}");
        }
    }

    #[test]
    fn a_curve_of_one_point_is_a_dot_and_one_that_never_changes_has_a_close_axis() {
        let one = Plot::over_steps("one", vec![("a".into(), vec![(7.0, 2.0)])]);
        let (x, y) = (6.0..8.0, 1.0..3.0);
        assert_eq!(one.draw(x, y).unwrap().matches("<circle").count(), 1);
        let flat = [(1.0, 2e-3), (2.0, 2e-3)];
        let axis = range(&flat, |p| p.1, 0.05);
        assert!(axis.start > 1e-3 && axis.end < 3e-3, "{axis:?}");
    }

    #[test]
    fn names_of_curves_are_below_the_chart_and_no_two_curves_look_alike() {
        let named = |n: usize| {
            let curve = |at: usize| (format!("run {at}"), vec![(1.0, 1.0), (2.0, at as f64)]);
            Plot::over_steps("many", (0..n).map(curve).collect())
        };
        let draw = |n: usize| named(n).draw(1.0..2.0, 0.0..20.0).unwrap();
        assert!(draw(1).contains("height=\"480\"") && !draw(1).contains("run 0"));
        assert!(draw(2).contains("height=\"500\"") && draw(2).contains("run 1"));
        // Six letters are 42 pixels, with a sample 92: seven columns in 722.
        let legend = Legend::of(&named(20).curves);
        assert_eq!((legend.columns, legend.rows), (7, 3));
        let looks = (0..3 * COLOURS.len()).map(|at| (style(at), dashes(at)));
        let looks: Vec<_> = looks.collect();
        assert!((0..looks.len()).all(|at| !looks[..at].contains(&looks[at])));
    }
}
