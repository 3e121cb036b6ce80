//! Hearth pretrains and fine-tunes foundation models on [Burn](https://burn.dev). This crate holds the others under one name:
//! one line in a `Cargo.toml` brings them all.
//!
//! Reading order: [`data`] (from files to tokens and pixels), [`model`] (families, heads, bundles), [`train`] (jobs, recipes,
//! the engine), [`pretrain`] (objectives) and [`finetune`] (tasks).
//!
//! Importing it changes nothing in a process: allocator, signal handlers and panic hook are those of the program.

pub use burn;
pub use data;
pub use finetune;
pub use model;
pub use pretrain;
pub use train;

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod readme;

#[cfg(test)]
mod tests {
    use train::recipe::Draft;
    use train::recipe::explain::explain;

    /// Every built-in recipe.
    fn drafts() -> impl Iterator<Item = Draft> {
        [&pretrain::TRAINER, &finetune::TRAINER]
            .into_iter()
            .flat_map(|trainer| {
                trainer.entries.iter().map(move |entry| {
                    let built_in = [(entry.name, entry.recipe)];
                    Draft::open(entry.name, trainer.key, &built_in).unwrap()
                })
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
            let words = "no recipe key \"model.hidden_size\"";
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_layer_that_is_no_file_is_named() {
        let built_in = [("x", "task = \"x\"\nlayers = [\"shared\", \"nothing\"]\n")];
        let error = Draft::open("x", "task", &built_in).unwrap_err();
        assert_eq!(
            error.to_string(),
            "x: layers names \"nothing\", which is no built-in file"
        );
    }
}
