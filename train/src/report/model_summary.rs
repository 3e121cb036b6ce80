//! A model in a table: parameters by name, shape and number, layers that repeat in one line.

use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use regex::Regex;

use crate::optim::groups::Groups;
use model::walk::ModulePath;

/// A line a parameter: `bert.encoder.layer.0-1.output.dense.weight  [512, 128]  2 x 65536`.
pub fn table<B: Backend, M: Module<B>>(module: &M, groups: &Groups) -> String {
    let mut lister = Lister {
        path: groups.path(),
        rows: Vec::new(),
    };
    module.visit(&mut lister);
    let is_frozen = |row: &Row| groups.is_frozen(&row.name);
    let rows: Vec<_> = lister
        .rows
        .into_iter()
        .map(|row| (is_frozen(&row), row))
        .collect();
    let lines = folded(rows);
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    let shapes = lines.iter().map(|line| line.shape.len()).max().unwrap_or(0);
    let text = lines.iter().map(|line| {
        let Line { name, shape, .. } = line;
        let times = match line.times {
            1 => String::new(),
            times => format!("{times} x "),
        };
        let frozen = if line.frozen { "  frozen" } else { "" };
        format!(
            "{name:width$}  {shape:shapes$}  {times}{}{frozen}\n",
            line.n
        )
    });
    let total: usize = lines.iter().map(|line| line.times * line.n).sum();
    let text: String = text.collect();
    format!("{text}{:width$}  {:shapes$}  {total}\n", "all", "")
}

struct Row {
    name: String,
    shape: Vec<usize>,
}

struct Line {
    name: String,
    shape: String,
    times: usize,
    n: usize,
    frozen: bool,
    /// The name with the number of its layer left out, and the numbers seen.
    stem: String,
    layers: Option<(usize, usize)>,
}

/// Rows of layers that follow one another and differ in their number alone become one.
fn folded(rows: Vec<(bool, Row)>) -> Vec<Line> {
    let layer = Regex::new(r"\.(\d+)\.").ok();
    let mut lines: Vec<Line> = Vec::new();
    for (frozen, Row { name, shape }) in rows {
        let found = layer.as_ref().and_then(|layer| layer.captures(&name));
        let number: Option<usize> = found.as_ref().and_then(|found| found[1].parse().ok());
        let stem = match found.as_ref().and_then(|found| found.get(1)) {
            Some(at) => format!("{}#{}", &name[..at.start()], &name[at.end()..]),
            None => name.clone(),
        };
        let n = shape.iter().product();
        let shape = format!("{shape:?}");
        let before = number.and_then(|number| number.checked_sub(1));
        let alike = |line: &&mut Line| {
            line.stem == stem
                && line.shape == shape
                && line.frozen == frozen
                && before.is_some()
                && line.layers.map(|(_, last)| last) == before
        };
        if let (Some(line), Some(last)) = (lines.iter_mut().find(alike), number) {
            let first = line.layers.map_or(last, |(first, _)| first);
            line.times += 1;
            line.layers = Some((first, last));
            line.name = stem.replace('#', &format!("{first}-{last}"));
            continue;
        }
        lines.push(Line {
            name,
            shape,
            times: 1,
            n,
            frozen,
            stem,
            layers: number.map(|number| (number, number)),
        });
    }
    lines
}

struct Lister {
    path: ModulePath,
    rows: Vec<Row>,
}

impl<B: Backend> ModuleVisitor<B> for Lister {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.rows.push(Row {
            name: self.path.name(),
            shape: param.lazy_shape().to_vec(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_do_not_follow_one_another_stay_apart() {
        let row = |number: usize, frozen| {
            let name = format!("layer.{number}.weight");
            (
                frozen,
                Row {
                    name,
                    shape: vec![2],
                },
            )
        };
        let rows = [(0, false), (1, true), (2, false), (3, false), (4, true)];
        let lines = folded(rows.map(|(number, frozen)| row(number, frozen)).into());
        let names: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
        let expected = ["0", "1", "2-3", "4"].map(|layers| format!("layer.{layers}.weight"));
        assert_eq!(names, expected);
    }

    #[test]
    fn layers_that_repeat_are_one_line() {
        let row = |name: &str, shape: &[usize]| {
            (
                false,
                Row {
                    name: name.into(),
                    shape: shape.to_vec(),
                },
            )
        };
        let lines = folded(vec![
            row("embeddings.weight", &[8, 4]),
            row("layer.0.weight", &[4, 4]),
            row("layer.0.bias", &[4]),
            row("layer.1.weight", &[4, 4]),
            row("layer.1.bias", &[4]),
            row("layer.2.weight", &[4, 2]),
        ]);
        let names: Vec<_> = lines
            .iter()
            .map(|line| (line.name.as_str(), line.times, line.n))
            .collect();
        assert_eq!(
            names,
            [
                ("embeddings.weight", 1, 32),
                ("layer.0-1.weight", 2, 16),
                ("layer.0-1.bias", 2, 4),
                ("layer.2.weight", 1, 8),
            ]
        );
    }
}
