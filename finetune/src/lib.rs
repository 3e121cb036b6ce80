//! Tasks on labelled data, one file each.
//!
//! A new task is a file like [`text_classification`], named below and in [`TRAINER`], and a recipe in `assets/recipes/`;
//! one on images is a file like [`segmentation`], with a line in [`targets`] too, one on texts a file like [`text_labels`], with a
//! line in [`on_texts`].

pub mod detection;
pub mod image_classification;
pub mod instruction_tuning;
pub mod multiple_choice;
pub mod on_texts;
pub mod pair_classification;
pub mod question_answering;
pub mod segmentation;
pub mod sentence_embeddings;
pub mod several_labels;
pub mod targets;
pub mod text_classification;
pub mod text_distillation;
pub mod text_labels;
pub mod text_regression;
pub mod text_to_text;
pub mod token_classification;
pub mod values;

pub use detection::ObjectDetection;
pub use image_classification::ImageClassification;
pub use instruction_tuning::InstructionTuning;
pub use multiple_choice::MultipleChoice;
pub use pair_classification::PairClassification;
pub use question_answering::QuestionAnswering;
pub use segmentation::ImageSegmentation;
pub use sentence_embeddings::SentenceEmbeddings;
pub use several_labels::ImageLabels;
pub use text_classification::TextClassification;
pub use text_distillation::TextDistillation;
pub use text_labels::TextLabels;
pub use text_regression::TextRegression;
pub use text_to_text::{Summarization, Translation};
pub use token_classification::TokenClassification;
pub use values::ImageRegression;

#[cfg(not(test))]
use train::{cli::Trainer, job::entry};

/// Everything `finetune` can train; the first is the default.
///
/// A static, so that the engine is compiled here once and not in every program that names it. Unit tests have none, and need not
/// wait for the engine.
#[cfg(not(test))]
pub static TRAINER: Trainer = Trainer {
    key: "task",
    entries: &[
        entry::<TextClassification>(),
        entry::<TextDistillation>(),
        entry::<PairClassification>(),
        entry::<TextLabels>(),
        entry::<TextRegression>(),
        entry::<TokenClassification>(),
        entry::<QuestionAnswering>(),
        entry::<MultipleChoice>(),
        entry::<SentenceEmbeddings>(),
        entry::<InstructionTuning>(),
        entry::<Translation>(),
        entry::<Summarization>(),
        entry::<ImageClassification>(),
        entry::<ImageLabels>(),
        entry::<ImageRegression>(),
        entry::<ImageSegmentation>(),
        entry::<ObjectDetection>(),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use train::job::Job;
    use train::recipe::Draft;

    fn draft() -> Draft {
        let (name, recipe) = (TextClassification::NAME, TextClassification::RECIPE);
        Draft::open(name, TextClassification::KEY, &[(name, recipe)]).unwrap()
    }

    #[test]
    fn keys_of_older_recipes_have_their_names_of_today() {
        let mut draft = draft();
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
            let mut draft = draft();
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
