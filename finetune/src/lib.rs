//! Tasks on labelled data, one file each.
//!
//! A new task is a file like [`text_classification`], a line in [`TRAINER`] and a recipe in `assets/recipes/`.

pub mod image_classification;
pub mod text_classification;

pub use image_classification::ImageClassification;
pub use text_classification::TextClassification;

use train::cli::Trainer;
use train::job::entry;

/// Everything `finetune` can train; the first is the default.
pub const TRAINER: Trainer = Trainer {
    key: "task",
    entries: &[
        entry::<TextClassification>(),
        entry::<ImageClassification>(),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use train::recipe::Draft;
    use train::recipe::explain::explain;

    fn drafts() -> impl Iterator<Item = Draft> {
        TRAINER.entries.iter().map(|entry| {
            let built_in = [(entry.name, entry.recipe)];
            Draft::open(entry.name, TRAINER.key, &built_in).unwrap()
        })
    }

    #[test]
    fn every_key_of_every_recipe_is_explained_with_its_file() {
        for draft in drafts() {
            let text = explain(&draft);
            let settings = text.lines().filter(|line| line.contains(" = "));
            assert!(settings.clone().count() > 60, "{text}");
            for line in settings {
                let (_, note) = line.split_once("# ").unwrap_or_else(|| panic!("{line}"));
                assert!(note.ends_with(".toml)"), "{line}");
            }
        }
    }

    #[test]
    fn another_family_brings_its_keys_and_takes_the_others_away() {
        for mut draft in drafts().filter(|draft| draft.table()["model"].get("family").is_some()) {
            draft
                .set_all(["model.n_embd=64", "model.family=gpt2"].into_iter())
                .unwrap();
            let model = &draft.table()["model"];
            assert_eq!(model["n_embd"].as_integer(), Some(64));
            assert!(model.get("hidden_size").is_none() && model.get("channels").is_none());
            let error = draft.set("model.hidden_size=3").unwrap_err().to_string();
            assert!(
                error.contains("no recipe key \"model.hidden_size\""),
                "{error}"
            );
        }
    }

    #[test]
    fn a_layer_that_is_no_file_is_named() {
        let built_in = [("x", "task = \"x\"\nlayers = [\"shared\", \"nothing\"]\n")];
        let error = Draft::open("x", TRAINER.key, &built_in)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "x: layers names \"nothing\", which is no built-in file"
        );
    }

    #[test]
    fn keys_of_older_recipes_have_their_names_of_today() {
        let mut draft = drafts().next().unwrap();
        draft
            .set_all(["data.label=kind", "data.labels=70"].into_iter())
            .unwrap();
        let data = &draft.table()["data"];
        assert_eq!(data["label_column"].as_str(), Some("kind"));
        assert_eq!(data["label_limit"].as_integer(), Some(70));
        assert!(data.get("label").is_none() && data.get("labels").is_none());
    }

    #[test]
    fn data_of_ones_own_is_used_whole_unless_a_limit_is_set() {
        let limits = |settings: &[&str]| {
            let mut draft = drafts().next().unwrap();
            draft.set_all(settings.iter().copied()).unwrap();
            draft.use_all_of_own_data();
            let data = &draft.table()["data"];
            ["label_limit", "test_limit"].map(|key| data[key].as_integer().unwrap())
        };
        assert_eq!(limits(&[]), [5000, 3000]);
        assert_eq!(limits(&["data.source=[\"a.csv\"]"]), [0, 0]);
        assert_eq!(
            limits(&["data.source=[\"a.csv\"]", "data.label_limit=9"]),
            [9, 0]
        );
    }
}
