//! Markdown as the Hugging Face Hub shows it, with every text escaped.

use crate::report::html::{Cell, Table, printable};

/// A text that says nothing but itself, in a paragraph or in a table.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '$' => {
                escaped.push('\\');
                escaped.push(c);
            }
            '\n' | '\r' | '\t' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A block of code, in a fence that its text does not close.
///
/// - language: for colours
pub(super) fn code(language: &str, text: &str) -> String {
    let text = printable(text.trim_end());
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{text}\n{fence}\n")
}

/// A table; its caption is for pages.
pub(super) fn table(table: &Table) -> String {
    let columns = table.rows.first().map_or(table.head.len(), Vec::len);
    let mut head: Vec<String> = table.head.iter().map(|name| escape(name)).collect();
    head.resize(columns, String::new());
    let rule = vec!["---".to_string(); columns];
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head) + &line(&rule);
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(cell).collect();
        text += &line(&cells);
    }
    text
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) | Cell::Number(text) | Cell::Shade(text, _) => escape(text),
        // Markup is made for pages alone.
        Cell::Markup(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_becomes_markdown() {
        assert_eq!(
            escape("<b>|`a`\n_x_ & [y]"),
            "&lt;b&gt;\\|\\`a\\` \\_x\\_ &amp; \\[y\\]"
        );
    }

    #[test]
    fn a_fence_is_longer_than_any_inside() {
        assert_eq!(code("toml", "a = 1\n"), "```toml\na = 1\n```\n");
        assert_eq!(code("", "````\n"), "`````\n````\n`````\n");
    }

    #[test]
    fn a_table_has_a_header_and_a_rule() {
        let facts = Table::of_facts("x", [("a|b", "1".to_string())]);
        assert_eq!(table(&facts), "|  |  |\n| --- | --- |\n| a\\|b | 1 |\n");
    }
}
