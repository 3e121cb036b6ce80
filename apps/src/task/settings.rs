//! How labelled rows are read and judged. In: the recipe of the run that a bundle is of, and what `--set` says. Out: columns,
//! thresholds and schemes.

use std::path::Path;

use data::{BadRows, Ground};
use model::Bundle;
use serde::de::DeserializeOwned;
use train::Failure;
use train::job::image::GroundColour;
use train::scores::entities::Scheme;
use train::scores::translation::Tokenizer;

/// Keys of a recipe by their dotted names. What a recipe says, `--set` may say otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    table: toml::Table,
}

/// Keys that say how labelled rows are read and judged; the others are about training.
const KEYS: [&str; 9] = [
    "data.text",
    "data.text_pair",
    "data.label_column",
    "data.image_column",
    "data.bad_rows",
    "data.ground",
    "labels.threshold",
    "entities.scheme",
    "search.bleu_tokenizer",
];

impl Settings {
    /// Those of the run that the bundle is of; none where there is no recipe beside it.
    ///
    /// # Errors
    ///
    /// A recipe that is no TOML.
    pub fn of_run(bundle: &Bundle) -> Result<Self, Failure> {
        // The bundle is `model` of its run, and an adapter lies in it.
        let mut folders = bundle.path().ancestors().take(2);
        let model = folders.find(|folder| folder.ends_with("model"));
        let recipe = model.and_then(|model| Some(model.parent()?.join("recipe.toml")));
        let Some(path) = recipe.filter(|path| path.is_file()) else {
            return Ok(Self::default());
        };
        Self::read(&path)
    }

    /// Training leaves bad rows out, and says so; here each row counts.
    fn read(path: &Path) -> Result<Self, Failure> {
        let place = path.display();
        let wrong = |reason: String| Failure::input(format!("{place}: {reason}"));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let table = text.parse();
        let mut table: toml::Table =
            table.map_err(|error: toml::de::Error| wrong(error.message().into()))?;
        if let Some(data) = table.get_mut("data").and_then(toml::Value::as_table_mut) {
            data.remove("bad_rows");
        }
        Ok(Self { table })
    }

    /// Whether what `--set` says is said of anything but the model.
    pub fn is_own(assignment: &str) -> bool {
        !assignment.trim_start().starts_with("model.")
    }

    /// Sets a key: `data.text=review`.
    ///
    /// # Errors
    ///
    /// No `KEY=VALUE`, or a key that says nothing of how rows are read and judged.
    pub fn set(&mut self, assignment: &str) -> Result<(), Failure> {
        let wrong = |reason: &str| Failure::input(format!("--set {assignment}: {reason}"));
        let (key, value) = assignment
            .split_once('=')
            .ok_or_else(|| wrong("is no KEY=VALUE"))?;
        let known = KEYS.contains(&key.trim()).then_some(key.trim());
        let (section, key) = known
            .and_then(|key| key.split_once('.'))
            .ok_or_else(|| wrong(&format!("is no key here; known are {}", KEYS.join(", "))))?;
        let written = format!("value = {value}").parse::<toml::Table>();
        let written = written.ok().and_then(|mut table| table.remove("value"));
        // A column may have a name that is a number elsewhere.
        let written = written.filter(|written| section != "data" || written.is_str());
        let value = written.unwrap_or_else(|| toml::Value::String(value.trim().into()));
        let section = self
            .table
            .entry(section)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let section = section
            .as_table_mut()
            .ok_or_else(|| wrong("is of no section"))?;
        section.insert(key.into(), value);
        Ok(())
    }

    fn get(&self, section: &str, key: &str) -> Option<&toml::Value> {
        self.table.get(section)?.get(key)
    }

    /// A text; nothing where it is not set.
    pub fn text(&self, section: &str, key: &str) -> Option<&str> {
        self.get(section, key)?.as_str()
    }

    /// The task that the run was for.
    pub fn task(&self) -> Option<&str> {
        self.table.get("task")?.as_str()
    }

    fn number(&self, section: &str, key: &str) -> Result<Option<f64>, Failure> {
        let Some(value) = self.get(section, key) else {
            return Ok(None);
        };
        let whole = value.as_integer().map(|whole| whole as f64);
        match value.as_float().or(whole) {
            Some(number) => Ok(Some(number)),
            None => Err(Failure::input(format!(
                "{section}.{key} is {value}, and a number is needed"
            ))),
        }
    }

    /// The probability above which a label is said to be there; nothing where it is not set.
    ///
    /// # Errors
    ///
    /// No number.
    pub fn threshold(&self) -> Result<Option<f32>, Failure> {
        let threshold = self.number("labels", "threshold")?;
        Ok(threshold.map(|threshold| threshold as f32))
    }

    /// Times the Dice loss of masks beside their cross-entropy; nothing where it is not set.
    ///
    /// # Errors
    ///
    /// No number.
    pub fn dice(&self) -> Result<Option<f64>, Failure> {
        self.number("loss", "dice")
    }

    /// What happens to rows that cannot be used: they end the evaluation, unless `--set` says otherwise.
    ///
    /// # Errors
    ///
    /// Neither `skip` nor `refuse`.
    pub fn bad_rows(&self) -> Result<BadRows, Failure> {
        self.known("data", "bad_rows", BadRows::Refuse)
    }

    /// What shows through where an image is transparent.
    ///
    /// # Errors
    ///
    /// Neither `white` nor `black`.
    pub fn ground(&self) -> Result<Ground, Failure> {
        let colour = self.known("data", "ground", GroundColour::White)?;
        Ok(colour.ground())
    }

    /// How tags mark entities.
    ///
    /// # Errors
    ///
    /// A scheme that is not known.
    pub fn scheme(&self) -> Result<Scheme, Failure> {
        self.known("entities", "scheme", Scheme::default())
    }

    /// How BLEU cuts texts into words.
    ///
    /// # Errors
    ///
    /// A way that is not known.
    pub fn bleu_tokenizer(&self) -> Result<Tokenizer, Failure> {
        self.known("search", "bleu_tokenizer", Tokenizer::default())
    }

    fn known<T: DeserializeOwned>(&self, section: &str, key: &str, usual: T) -> Result<T, Failure> {
        let Some(value) = self.get(section, key) else {
            return Ok(usual);
        };
        let wrong = |error: toml::de::Error| {
            Failure::input(format!("{section}.{key} is {value}: {}", error.message()))
        };
        value.clone().try_into().map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_wins_over_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, "task = \"text-labels\"\n[data]\ntext = \"a\"\n").unwrap();
        let mut settings = Settings::read(&path).unwrap();
        assert_eq!(settings.text("data", "text"), Some("a"));
        assert_eq!(settings.task(), Some("text-labels"));
        settings.set("data.text=b c").unwrap();
        settings.set("data.label_column=7").unwrap();
        assert_eq!(settings.text("data", "label_column"), Some("7"));
        settings.set("labels.threshold=0.25").unwrap();
        assert_eq!(settings.text("data", "text"), Some("b c"));
        assert_eq!(settings.threshold().unwrap(), Some(0.25));
        assert_eq!(settings.scheme().unwrap(), Scheme::Lenient);
        settings.set("entities.scheme=iob2").unwrap();
        assert_eq!(settings.scheme().unwrap(), Scheme::Iob2);
        settings.set("entities.scheme=iob7").unwrap();
        assert!(settings.scheme().is_err());
        assert!(settings.set("data.text").is_err());
        let error = settings.set("data.source=b").unwrap_err().to_string();
        assert!(error.contains("known are data.text, "), "{error}");
        settings.set("labels.threshold=often").unwrap();
        assert!(settings.threshold().is_err());
    }

    #[test]
    fn keys_of_data_are_not_those_of_a_model() {
        assert!(Settings::is_own("data.text=a") && Settings::is_own("entities.scheme=iob2"));
        assert!(!Settings::is_own("model.family=resnet50"));
    }
}
