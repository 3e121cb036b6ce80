//! Compares the Chinese README with the English one: the same blocks in the same order, with the same code, links and figures.

const ENGLISH: &str = include_str!("../README.md");
const CHINESE: &str = include_str!("../README.zh.md");

/// What a block of a Markdown file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// With its level.
    Heading(usize),
    Code,
    Table,
    ListItem,
    Paragraph,
}

impl Kind {
    /// What the first line of a block says that it is; none where it goes on with the text before, or is a paragraph.
    fn of(line: &str) -> Option<Self> {
        match line.chars().next() {
            Some('#') => Some(Self::Heading(
                line.chars().take_while(|c| *c == '#').count(),
            )),
            Some('`') if line.starts_with("```") => Some(Self::Code),
            Some('|') => Some(Self::Table),
            Some('-') if line.starts_with("- ") => Some(Self::ListItem),
            _ => None,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Heading(level) => format!("a heading of level {level}"),
            Self::Code => "a code block".into(),
            Self::Table => "a table".into(),
            Self::ListItem => "a list item".into(),
            Self::Paragraph => "a paragraph".into(),
        }
    }
}

struct Block {
    kind: Kind,
    /// That it begins at, from 1.
    line: usize,
    /// Its lines as they are.
    text: String,
}

impl Block {
    /// What it is, and its beginning, to find it by.
    fn excerpt(&self) -> String {
        let first = self.text.lines().find(|line| !line.starts_with("```"));
        let first: String = first.unwrap_or_default().chars().take(60).collect();
        format!("{} ({first} ...)", self.kind.name())
    }
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    // The next line can belong to the last block.
    let mut open = false;
    for (line, text) in (1..).zip(markdown.lines()) {
        let inside = blocks.last().map(|block| block.kind).filter(|_| open);
        let in_code = inside == Some(Kind::Code);
        // Such an anchor lets links find a translated heading by the English name.
        if !in_code && (text.trim().is_empty() || text.starts_with("<a id=")) {
            open = false;
            continue;
        }
        let starts = Kind::of(text);
        let goes_on = match inside {
            Some(Kind::Code) => true,
            Some(Kind::Table) => starts == Some(Kind::Table),
            Some(Kind::ListItem | Kind::Paragraph) => starts.is_none(),
            Some(Kind::Heading(_)) | None => false,
        };
        match blocks.last_mut() {
            Some(last) if goes_on => {
                last.text.push('\n');
                last.text.push_str(text);
            }
            _ => blocks.push(Block {
                kind: starts.unwrap_or(Kind::Paragraph),
                line,
                text: text.to_owned(),
            }),
        }
        open = !in_code || text != "```";
    }
    blocks
}

/// Inline code, sorted: the order of words differs between the languages.
fn code_spans(text: &str) -> Vec<String> {
    let spans = text.split('`').skip(1).step_by(2);
    let mut spans: Vec<_> = spans
        .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    spans.sort();
    spans
}

/// Targets of links in their order, but for those from one README to the other.
fn links(text: &str) -> Vec<String> {
    let prose = text.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let targets = prose.split("](").skip(1);
    targets
        .map(|rest| rest.split_once(')').map_or(rest, |(target, _)| target))
        .filter(|target| !["README.md", "README.zh.md"].contains(target))
        .map(str::to_owned)
        .collect()
}

/// Digits with the points and commas between them: `1,234.5`, without a comma that ends a clause.
fn figures(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')
        .map(|figure| figure.trim_matches(['.', ',']))
        .filter(|figure| !figure.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What `list` holds more often than `other`.
fn only_in<'a>(list: &'a [String], other: &'a [String]) -> Vec<&'a String> {
    let mut rest: Vec<&String> = other.iter().collect();
    list.iter()
        .filter(|item| {
            let found = rest.iter().position(|held| held == item);
            if let Some(at) = found {
                rest.swap_remove(at);
            }
            found.is_none()
        })
        .collect()
}

fn compare_lists(what: &str, english: &[String], chinese: &[String]) -> Result<(), String> {
    if english == chinese {
        return Ok(());
    }
    let (lost, new) = (only_in(english, chinese), only_in(chinese, english));
    Err(if lost.is_empty() && new.is_empty() {
        format!("{what} in another order, {english:?} and {chinese:?}")
    } else {
        format!("{what} only in README.md {lost:?}, only in README.zh.md {new:?}")
    })
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').collect()
}

fn compare_rows(english: &str, chinese: &str) -> Result<(), String> {
    let (english, chinese) = (cells(english), cells(chinese));
    if english.len() != chinese.len() {
        return Err(format!("{} and {} cells", english.len(), chinese.len()));
    }
    for (english, chinese) in english.into_iter().zip(chinese) {
        compare_lists("inline code", &code_spans(english), &code_spans(chinese))?;
        compare_lists("links", &links(english), &links(chinese))?;
        compare_lists("figures", &figures(english), &figures(chinese))?;
    }
    Ok(())
}

fn compare_tables(english: &str, chinese: &str) -> Result<(), String> {
    let english: Vec<_> = english.lines().collect();
    let chinese: Vec<_> = chinese.lines().collect();
    let counts = if english.len() == chinese.len() {
        String::new()
    } else {
        let (english, chinese) = (english.len(), chinese.len());
        format!("{english} rows in README.md and {chinese} in README.zh.md, heading included; ")
    };
    for (english, chinese) in english.iter().zip(&chinese) {
        compare_rows(english, chinese)
            .map_err(|difference| format!("{counts}at the row {english}: {difference}"))?;
    }
    if counts.is_empty() {
        return Ok(());
    }
    let shared = english.len().min(chinese.len());
    let rest = english.get(shared).or(chinese.get(shared));
    Err(format!("{counts}at the row {}", rest.unwrap_or(&"")))
}

/// The order of figures in prose is that of the language, and Chinese writes some in digits that English writes in words.
fn compare_prose(english: &str, chinese: &str) -> Result<(), String> {
    compare_lists("inline code", &code_spans(english), &code_spans(chinese))?;
    compare_lists("links", &links(english), &links(chinese))?;
    let (english, chinese) = (figures(english), figures(chinese));
    let lost = only_in(&english, &chinese);
    if lost.is_empty() {
        return Ok(());
    }
    Err(format!("figures only in README.md {lost:?}"))
}

fn compare_blocks(english: &Block, chinese: &Block) -> Result<(), String> {
    if english.kind != chinese.kind {
        return Err(format!("against {} there", chinese.excerpt()));
    }
    match english.kind {
        Kind::Code => {
            let mut lines = english.text.lines().zip(chinese.text.lines());
            match lines.find(|(english, chinese)| english != chinese) {
                Some((english, chinese)) => {
                    Err(format!("the line\n{english}\nis there\n{chinese}"))
                }
                None if english.text == chinese.text => Ok(()),
                None => Err("one of them has more lines".into()),
            }
        }
        Kind::Table => compare_tables(&english.text, &chinese.text),
        Kind::Heading(_) | Kind::ListItem | Kind::Paragraph => {
            compare_prose(&english.text, &chinese.text)
        }
    }
}

/// Finds the first difference, and says where it is in both files.
fn compare(english: &str, chinese: &str) -> Result<(), String> {
    let (english, chinese) = (blocks(english), blocks(chinese));
    let mut section = String::new();
    for (here, there) in english.iter().zip(&chinese) {
        if let Kind::Heading(_) = here.kind {
            section = here.text.trim_start_matches(['#', ' ']).to_owned();
        }
        compare_blocks(here, there).map_err(|difference| {
            let (line, other, excerpt) = (here.line, there.line, here.excerpt());
            format!("section {section:?}, README.md:{line} and README.zh.md:{other}: {excerpt}: {difference}")
        })?;
    }
    let shared = english.len().min(chinese.len());
    let (name, more) = match (english.get(shared), chinese.get(shared)) {
        (Some(block), _) => ("README.md", block),
        (None, Some(block)) => ("README.zh.md", block),
        (None, None) => return Ok(()),
    };
    let (line, excerpt) = (more.line, more.excerpt());
    Err(format!(
        "section {section:?}: only {name} goes on, at line {line}, with {excerpt}"
    ))
}

#[test]
fn the_chinese_readme_holds_what_the_english_one_does() {
    if let Err(difference) = compare(ENGLISH, CHINESE) {
        panic!("README.md and README.zh.md differ; whoever edits one edits both: {difference}");
    }
}

#[test]
fn each_readme_links_to_the_other_below_its_title() {
    assert_eq!(ENGLISH.lines().nth(2), Some("[中文](README.zh.md)"));
    assert_eq!(CHINESE.lines().nth(2), Some("[English](README.md)"));
}

#[test]
fn a_link_within_the_chinese_readme_has_its_anchor() {
    let blocks = blocks(CHINESE);
    let prose = blocks.iter().filter(|block| block.kind != Kind::Code);
    let links: Vec<_> = prose.flat_map(|block| links(&block.text)).collect();
    let inner: Vec<_> = links
        .iter()
        .filter_map(|link| link.strip_prefix('#'))
        .collect();
    assert!(!inner.is_empty());
    for name in inner {
        let anchor = format!("<a id=\"{name}\"></a>");
        assert!(CHINESE.lines().any(|line| line == anchor), "{anchor}");
    }
}

#[test]
fn a_change_of_one_file_is_found_and_named() {
    let english = "# Name\n\nRuns `a\nb` in [3 steps](x.md).\n\n## Speed\n\n```sh\nrun --fast  # now\n```\n\n| of | s |\n|---|---|\n\
                   | first | 1.5, 2 |\n| second | 3,000 |\n\n- one\n  more\n- `two`\n";
    let chinese = "# 名称\n\n在 [3 步](x.md)里运行 `a b`。\n\n<a id=\"speed\"></a>\n\n## 速度\n\n```sh\nrun --fast  # now\n```\n\n\
                   | 项 | 秒 |\n|---|---|\n| 第一 | 1.5，2 |\n| 第二 | 3,000 |\n\n- 一\n- `two`\n";
    assert_eq!(compare(english, chinese), Ok(()));
    for (from, to, words) in [
        (
            "`a\nb`",
            "`a`",
            r#"section "Name", README.md:3 and README.zh.md:3: a paragraph (Runs `a` in [3 steps](x.md). ...): inline code only in README.md ["a"], only in README.zh.md ["a b"]"#,
        ),
        (
            "x.md",
            "y.md",
            r#"links only in README.md ["y.md"], only in README.zh.md ["x.md"]"#,
        ),
        ("3 steps", "4 steps", r#"figures only in README.md ["4"]"#),
        (
            "## Speed",
            "### Speed",
            r#"section "Speed", README.md:6 and README.zh.md:7: a heading of level 3 (### Speed ...): against a heading of level 2 (## 速度 ...) there"#,
        ),
        (
            "--fast  #",
            "--fast #",
            "the line\nrun --fast # now\nis there\nrun --fast  # now",
        ),
        (
            "| first",
            "| zeroth | 7 |\n| first",
            r#"5 rows in README.md and 4 in README.zh.md, heading included; at the row | zeroth | 7 |: figures only in README.md ["7"], only in README.zh.md ["1.5", "2"]"#,
        ),
        (
            "3,000 |",
            "3,000 |\n| third | 4 |",
            "5 rows in README.md and 4 in README.zh.md, heading included; at the row | third | 4 |",
        ),
        (
            "| second | 3,000 |\n",
            "",
            "3 rows in README.md and 4 in README.zh.md, heading included; at the row | 第二 | 3,000 |",
        ),
        (
            "1.5, 2",
            "1.5, 2.5",
            r#"at the row | first | 1.5, 2.5 |: figures only in README.md ["2.5"], only in README.zh.md ["2"]"#,
        ),
        (
            "1.5, 2",
            "2, 1.5",
            r#"figures in another order, ["2", "1.5"] and ["1.5", "2"]"#,
        ),
        ("| second |", "| second | |", "3 and 2 cells"),
        (
            "- `two`",
            "- `two`\n- three",
            r#"section "Speed": only README.md goes on, at line 20, with a list item (- three ...)"#,
        ),
        (
            "\n- `two`",
            "",
            r#"section "Speed": only README.zh.md goes on, at line 19, with a list item (- `two` ...)"#,
        ),
    ] {
        assert!(english.contains(from), "{from}");
        let difference = compare(&english.replacen(from, to, 1), chinese).unwrap_err();
        assert!(difference.contains(words), "{difference}\nhas not: {words}");
    }
}
