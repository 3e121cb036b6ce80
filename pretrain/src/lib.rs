//! Objectives on unlabelled data, one file each.
//!
//! A new objective is a file like [`clm`], a line in [`TRAINER`] and a recipe in `assets/recipes/`.

pub mod autoencoder;
pub mod clm;
pub mod mlm;

pub use autoencoder::DenoisingAutoencoder;
pub use clm::Clm;
pub use mlm::Mlm;

use train::cli::Trainer;
use train::job::entry;

/// Everything `pretrain` can train; the first is the default.
pub const TRAINER: Trainer = Trainer {
    key: "objective",
    entries: &[
        entry::<Mlm>(),
        entry::<Clm>(),
        entry::<DenoisingAutoencoder>(),
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
        let built_in = [(
            "x",
            "objective = \"x\"\nlayers = [\"shared\", \"nothing\"]\n",
        )];
        let error = Draft::open("x", TRAINER.key, &built_in)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "x: layers names \"nothing\", which is no built-in file"
        );
    }
}
