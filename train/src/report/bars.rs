//! Counts as bars beside their names. In: names and counts. Out: lines of text, or an SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::plot::COLOURS;

/// Letters of a name that are shown.
const LETTERS: usize = 28;
/// Letters of the longest bar.
const BAR: u64 = 40;
/// Pixels of an SVG: in all, of the names and of the longest bar.
const WIDTH: u32 = 800;
const NAMES: i32 = 230;
const LONGEST: f64 = 460.0;
/// Pixels from one bar to the next, and of a title.
const ROW: i32 = 20;
const TITLE: i32 = 44;

/// A chart of bars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bars {
    /// Above it.
    pub title: String,
    /// A name and a count a bar.
    pub bars: Vec<(String, u64)>,
}

impl Bars {
    fn most(&self) -> u64 {
        self.bars
            .iter()
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0)
            .max(1)
    }

    /// A line a bar: its name, its count, and the bar.
    pub fn lines(&self) -> Vec<String> {
        let names: Vec<String> = self.bars.iter().map(|(name, _)| cut(name)).collect();
        let width = names.iter().map(|name| name.chars().count()).max();
        let width = width.unwrap_or(0);
        let (most, digits) = (self.most(), self.most().to_string().len());
        let line = |(name, (_, count)): (&String, &(String, u64))| {
            let bar =
                "#".repeat((u128::from(*count) * u128::from(BAR) / u128::from(most)) as usize);
            format!("{name:<width$}  {count:>digits$}  {bar}")
                .trim_end()
                .to_string()
        };
        names.iter().zip(&self.bars).map(line).collect()
    }
}

/// A name that is not too long.
fn cut(name: &str) -> String {
    if name.chars().count() <= LETTERS {
        return name.into();
    }
    name.chars().take(LETTERS - 2).collect::<String>() + ".."
}

/// Charts one below the other.
///
/// # Errors
///
/// The drawing fails.
pub fn bars_svg(charts: &[Bars]) -> Result<String> {
    let mut svg = String::new();
    draw(charts, &mut svg).map_err(|error| anyhow!("the drawing failed: {error}"))?;
    Ok(svg)
}

fn draw(
    charts: &[Bars],
    svg: &mut String,
) -> std::result::Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let heights = charts
        .iter()
        .map(|chart| TITLE + ROW * chart.bars.len() as i32);
    let height = heights.sum::<i32>() + ROW;
    let root = SVGBackend::with_string(svg, (WIDTH, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut top = 0;
    for (chart, colour) in charts.iter().zip(COLOURS.iter().cycle()) {
        let title = Text::new(chart.title.as_str(), (14, top + 16), ("sans-serif", 20));
        root.draw(&title)?;
        top += TITLE;
        for (name, count) in &chart.bars {
            let length = (*count as f64 / chart.most() as f64 * LONGEST).round() as i32;
            let end = NAMES + length.max(1);
            root.draw(&Text::new(cut(name), (14, top + 3), ("sans-serif", 14)))?;
            let corners = [(NAMES, top + 2), (end, top + ROW - 2)];
            root.draw(&Rectangle::new(corners, colour.filled()))?;
            let count = Text::new(count.to_string(), (end + 6, top + 3), ("sans-serif", 14));
            root.draw(&count)?;
            top += ROW;
        }
    }
    root.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Bars {
        Bars {
            title: "labels".into(),
            bars: vec![
                ("animal".into(), 80),
                ("tool".into(), 20),
                ("an unusually long name of a class".into(), 0),
            ],
        }
    }

    #[test]
    fn the_longest_bar_has_forty_letters_and_the_others_their_share() {
        let lines = chart().lines();
        assert_eq!(
            lines[0],
            format!("{:<28}  80  {}", "animal", "#".repeat(40))
        );
        assert_eq!(lines[1], format!("{:<28}  20  {}", "tool", "#".repeat(10)));
        assert_eq!(lines[2], "an unusually long name of ..   0");
        let none = Bars {
            title: String::new(),
            bars: vec![],
        };
        assert!(none.lines().is_empty());
    }

    #[test]
    fn charts_are_drawn_one_below_the_other() {
        let svg = bars_svg(&[chart(), chart()]).unwrap();
        // Two titles of 44 pixels, six bars of 20, and a margin of 20.
        assert!(svg.contains("height=\"228\""), "{svg}");
        assert_eq!(svg.matches("labels").count(), 2);
        assert!(svg.contains("animal") && svg.contains("80"));
    }
}
