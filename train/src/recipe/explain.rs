//! A recipe for people: every key with its value, what it means, and the file that the value comes from.

use toml::Value;

use crate::recipe::Draft;
use crate::recipe::draft::keys;
use crate::recipe::layers::{self, Layer};

/// Column at which the comments begin.
const WIDTH: usize = 44;

/// A line a key, grouped by section, as `--explain` prints it.
pub fn explain(draft: &Draft) -> String {
    let mut names = Vec::new();
    keys(draft.table(), "", &mut names);
    let (top, grouped): (Vec<_>, Vec<_>) = names.into_iter().partition(|key| !key.contains('.'));
    let mut text = String::new();
    let mut group = String::new();
    for key in top.iter().chain(&grouped) {
        if let Some((section, _)) = key.rsplit_once('.')
            && section != group
        {
            group = section.into();
            let note = comment(draft, section).map_or(String::new(), |note| format!("  # {note}"));
            text.push_str(&format!("\n[{section}]{note}\n"));
        }
        text.push_str(&line(draft, key));
    }
    text
}

fn line(draft: &Draft, key: &str) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    let value = value(draft, key).map_or(String::new(), |value| value.to_string());
    let setting = format!("{name} = {value}");
    let note = comment(draft, key).map_or(String::new(), |note| format!("{note}  "));
    format!("{setting:<WIDTH$}  # {note}({})\n", origin(draft, key))
}

fn value<'a>(draft: &'a Draft, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = draft.table().get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// What the last file that explains a key says.
fn comment(draft: &Draft, key: &str) -> Option<String> {
    let mut last_first = draft.layers().iter().rev();
    last_first.find_map(|layer| layers::comment(layer.text, key))
}

/// The flag or the file that the value comes from.
fn origin(draft: &Draft, key: &str) -> String {
    if let Some(place) = draft.set_at(key) {
        return place.into();
    }
    let has = |layer: &&Layer| layers::line_of(layer.text, key).is_some();
    let found = draft.layers().iter().rev().find(has);
    found.map_or(String::new(), |layer| format!("{}.toml", layer.name))
}
