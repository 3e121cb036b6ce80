//! The command line itself: help, colours, completions, manual pages.

use crate::programs;

const PRETRAIN: &str = env!("CARGO_BIN_EXE_pretrain");

#[test]
fn the_help_says_where_more_is() {
    programs::assert_more(PRETRAIN);
}

#[test]
fn colours_can_be_had_off() {
    let wrong = ["no-such-recipe"];
    programs::assert_colours(PRETRAIN, &[&["--list"], &["--explain"], &wrong]);
}

#[test]
fn shells_complete_subcommands_and_flags() {
    let words = ["sweep", "completions", "dry-run"];
    programs::assert_completions(PRETRAIN, &words, ["sw", "sweep"]);
}

#[test]
fn every_subcommand_has_a_manual_page() {
    let subcommands = ["", "-compare", "-sweep", "-completions", "-man"];
    let names = subcommands.map(|name| format!("pretrain{name}"));
    programs::assert_manual(PRETRAIN, &names.into());
}
