//! A model card: what bundle and run say, what neither says, and commands that work.

use std::fs;
use std::process::Command;

use model::HeadKind;
use serde_json::Value;

use crate::bundles::{Bundles, edit_config, printed};
use crate::support::message;
use crate::trained::{MARKUP, Runs};

/// The lines between the two rules, and what follows.
fn parts(card: &str) -> (Vec<&str>, &str) {
    let rest = card.strip_prefix("---\n").unwrap();
    let (front, body) = rest.split_once("\n---\n").unwrap();
    (front.lines().collect(), body)
}

/// What follows a heading, up to the next.
fn section<'a>(body: &'a str, title: &str) -> &'a str {
    let start = body.split_once(&format!("\n## {title}\n"));
    let (_, rest) = start.unwrap_or_else(|| panic!("no {title:?} in {body}"));
    rest.split_once("\n## ")
        .map_or(rest, |(section, _)| section)
}

#[test]
fn a_card_holds_what_a_run_recorded_and_names_what_it_did_not() {
    let runs = Runs::new();
    runs.classifier("birds", &[]);
    let (card, summary) = (runs.printed(&["card", "birds"]), runs.summary("birds"));
    let (front, body) = parts(&card);
    for line in [
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "- hearth",
        "- bert",
        "- text-classification",
        "metrics:",
        "- name: birds",
        "      split: test",
    ] {
        assert!(front.contains(&line), "{line}: {front:?}");
    }
    // A file of one's own is no set that the Hub knows, and nothing says these.
    for key in ["license", "language", "datasets", "base_model"] {
        assert!(
            !front.iter().any(|line| line.starts_with(key)),
            "{key}: {front:?}"
        );
    }
    let metrics = summary["test"]["metrics"].as_object().unwrap();
    for (name, value) in metrics {
        let at = front
            .iter()
            .position(|line| *line == format!("      name: {name}"));
        let value: &Value = value;
        assert_eq!(
            front[at.unwrap() + 1],
            format!("      value: {value}"),
            "{name}"
        );
    }
    assert!(body.starts_with("\n# birds\n"), "{body}");
    assert!(!body.contains(MARKUP) && section(body, "Model").contains("&lt;script&gt;"));
    let recipe = runs.read("birds/recipe.toml");
    assert!(section(body, "Training").contains(&format!("```toml\n{}\n```", recipe.trim_end())));
    let accuracy = train::metrics::short(metrics["accuracy"].as_f64().unwrap());
    let figures = section(body, "Figures");
    let line = figures
        .lines()
        .find(|line| line.starts_with("| accuracy |"));
    assert!(
        line.unwrap().ends_with(&format!("| {accuracy} |")),
        "{figures}"
    );
    assert_eq!(
        figures
            .lines()
            .filter(|line| line.contains("tool &amp; die"))
            .count(),
        1
    );
    let gaps = section(body, "Not recorded");
    assert!(gaps.contains("- The licence of the weights.") && gaps.contains("- The languages"));
    assert!(!gaps.contains("test split"), "{gaps}");
    // The folder of the model is that run's, and a card of it is the same.
    assert_eq!(runs.printed(&["card", "birds/model"]), card);
}

#[test]
fn a_model_without_a_run_has_no_figures() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let card = printed(&["card", &model]);
    let (front, body) = parts(&card);
    for key in ["model-index", "metrics", "datasets", "base_model"] {
        assert!(
            !front.iter().any(|line| line.starts_with(key)),
            "{key}: {front:?}"
        );
    }
    for title in ["Training data", "Training", "Figures"] {
        assert!(
            section(body, title).starts_with("\nnot recorded"),
            "{title}: {body}"
        );
    }
    assert!(section(body, "Limits").contains("texts of at most 12 tokens"));
    assert!(section(body, "Not recorded").contains("- Data, recipe and figures."));
    let bundled = printed(&["card", "wordnet-bert-nano"]);
    assert!(bundled.contains("pipeline_tag: fill-mask\n"), "{bundled}");
    assert!(
        bundled.contains("apps fill-mask --model wordnet-bert-nano "),
        "{bundled}"
    );
    assert!(
        !bundled.contains("from_pretrained"),
        "it is no folder: {bundled}"
    );
}

#[test]
fn a_bundled_start_and_bundled_data_are_named_for_the_hub() {
    let runs = Runs::new();
    runs.classifier("run", &[]);
    // As a run on bundled data records it.
    let path = runs.bench.path("run/recipe.toml");
    let recipe = fs::read_to_string(&path).unwrap();
    let mut recipe: toml::Table = recipe.parse().unwrap();
    recipe["from"] = "wordnet-bert-nano".into();
    recipe["data"]["source"] = vec!["wordnet-nouns"].into();
    fs::write(&path, recipe.to_string()).unwrap();
    let card = runs.printed(&["card", "run"]);
    let (front, body) = parts(&card);
    for line in [
        "base_model: wordnet-bert-nano",
        "datasets:",
        "- wordnet-nouns",
        "      type: wordnet-nouns",
    ] {
        assert!(front.contains(&line), "{line}: {front:?}");
    }
    assert!(section(body, "Training data").contains("licence: WordNet 3.0"));
    assert!(section(body, "Not recorded").contains("What wordnet-bert-nano"));
}

#[test]
fn a_run_without_an_end_has_a_card_that_says_so() {
    let runs = Runs::new();
    runs.classifier("run", &[]);
    fs::remove_file(runs.bench.path("run/summary.json")).unwrap();
    let card = runs.printed(&["card", "run"]);
    let (front, body) = parts(&card);
    assert!(!front.contains(&"model-index:"));
    assert!(section(body, "Limits").contains("Its run has not come to its end"));
    let figures = section(body, "Figures");
    assert!(
        figures.starts_with("\n| figure | which is better | last validation |"),
        "{figures}"
    );
    assert!(figures.contains("No test split was judged"), "{figures}");
    assert!(section(body, "Not recorded").contains("- Figures of a test split."));
}

#[test]
fn a_card_that_is_there_stays_and_what_it_declares_is_kept() {
    let runs = Runs::new();
    runs.classifier("run", &[]);
    let args = ["card", "run", "--output", "run/model/README.md"];
    let mine = "---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# Mine\n";
    runs.bench.write("run/model/README.md", mine);
    runs.refused(&args, &["run/model/README.md: exists; --force replaces it"]);
    let printed = runs.printed(&[&args[..], &["--force"]].concat());
    assert_eq!(printed, "wrote run/model/README.md\n");
    let card = runs.read("run/model/README.md");
    let (front, body) = parts(&card);
    assert_eq!(front[..3], ["license: apache-2.0", "language:", "- en"]);
    let gaps = section(body, "Not recorded");
    assert!(
        !gaps.contains("licence") && !gaps.contains("languages"),
        "{gaps}"
    );
    // It is its own source from now on.
    runs.printed(&[&args[..], &["--force"]].concat());
    assert_eq!(runs.read("run/model/README.md"), card);
}

#[test]
fn what_is_no_model_or_not_its_run_is_refused_in_one_sentence() {
    let runs = Runs::new();
    runs.classifier("run", &[]);
    let bundles = Bundles::new();
    let other = bundles.text_classifier("other");
    runs.bench.write("half/a.txt", "");
    for (args, words) in [
        (&["missing"][..], &["missing: ", "no such directory"][..]),
        (&["half"], &["half: ", "config.json is missing"]),
        (
            &["run", "--run", "missing"],
            &["missing: no such run directory"],
        ),
        (
            &["run", "--run", "half"],
            &["half: holds no run", "recipe.toml is missing"],
        ),
        (
            &[&other, "--run", "run"],
            &["--run run left another model", "id2label"],
        ),
        (
            &["run", "--output", "run/summary.json"],
            &["a card is Markdown"],
        ),
        (
            &["run", "--output", "none/README.md"],
            &["its directory does not exist"],
        ),
        (&["scratch"], &["it must name a bundle or a run"]),
    ] {
        runs.refused(&[&["card"], args].concat(), words);
    }
    fs::write(runs.bench.path("run/recipe.toml"), "seed = = 1").unwrap();
    runs.refused(&["card", "run"], &["run/recipe.toml", "not valid TOML"]);
}

#[test]
fn every_model_has_a_card_whose_command_works() {
    let bundles = Bundles::new();
    for (head, model) in bundles.of_all_heads() {
        let card = printed(&["card", &model]);
        let (front, body) = parts(&card);
        let tag = front
            .iter()
            .find_map(|line| line.strip_prefix("pipeline_tag: "));
        match head {
            HeadKind::TokenClasses => assert_eq!(tag, Some("token-classification")),
            HeadKind::Spans => assert_eq!(tag, Some("question-answering")),
            HeadKind::Masks => assert_eq!(tag, Some("image-segmentation")),
            HeadKind::Boxes => assert_eq!(tag, Some("object-detection")),
            HeadKind::Replaced
            | HeadKind::Pixels
            | HeadKind::Variational
            | HeadKind::Codes
            | HeadKind::Patches => assert_eq!(tag, None),
            HeadKind::Bare
            | HeadKind::Tokens
            | HeadKind::SentencePairs
            | HeadKind::Classes
            | HeadKind::Choices => {}
        }
        let usage = section(body, "Use");
        let (_, commands) = usage.split_once("```sh\n").unwrap();
        let (command, _) = commands.split_once("\n```").unwrap();
        runs_in_a_folder(command, &model);
    }
}

/// Runs a command of a card beside what it reads.
fn runs_in_a_folder(command: &str, model: &str) {
    let folder = Bundles::new();
    folder.png("photos/a.png", 9);
    folder.png("photo.png", 9);
    folder.file("texts.txt", "a small bird\na tool\n");
    // Words stand between spaces or in quotes.
    let mut words: Vec<String> = Vec::new();
    for (at, part) in command.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.into());
        } else {
            words.extend(part.split_whitespace().map(Into::into));
        }
    }
    assert_eq!(words.remove(0), "apps");
    for word in words.iter_mut().filter(|word| *word == "DIR") {
        *word = model.into();
    }
    let binary = Command::new(env!("CARGO_BIN_EXE_apps"))
        .current_dir(folder.folder())
        .args(&words)
        .output()
        .unwrap();
    assert!(binary.status.success(), "{command}: {}", message(&binary));
}

#[test]
fn a_name_of_a_class_cannot_leave_its_place() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    edit_config(&model, |config| {
        config["id2label"]["0"] = "a | b\n---\n# <i>`c`".into();
        config.as_object_mut().unwrap().remove("label2id");
    });
    let card = printed(&["card", &model]);
    let line = card.lines().find(|line| line.starts_with("| classes |"));
    let line = line.unwrap();
    assert!(
        line.contains("a \\| b --- \\# &lt;i&gt;\\`c\\`, animal, food |"),
        "{line}"
    );
}
