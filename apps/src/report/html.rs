//! Parts of a page. In: texts as they are in the data. Out: markup that is both HTML and well-formed XML, with every text
//! escaped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The look of a page, on a screen and in print.
const STYLE: &str = include_str!("style.css");

/// Letters of a column's name that is no wider than its numbers.
const SHORT: usize = 3;

/// A text as XML may hold it; what it may not hold, such as control characters, is shown as U+FFFD.
pub fn printable(text: &str) -> String {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    let shown = |c: char| match c {
        // Control characters that XML has but HTML forbids.
        '\u{7f}'..='\u{9f}' => '\u{fffd}',
        // What surrounds them must not be turned round by them.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if allowed(c) => c,
        _ => '\u{fffd}',
    };
    text.chars().map(shown).collect()
}

/// A text between tags or in an attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A paragraph.
pub fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// A remark on what is missing or left out.
pub fn note(text: &str) -> String {
    format!("<p class=\"note\">{}</p>\n", escape(text))
}

/// A heading inside of a section.
pub fn heading(text: &str) -> String {
    format!("<h3>{}</h3>\n", escape(text))
}

/// A section with its heading.
pub struct Section {
    /// In the address of the section, lower case.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// Markup.
    pub body: String,
}

/// A whole page.
///
/// - lead: markup between the title and the sections
pub fn page(title: &str, lead: &str, sections: &[Section]) -> String {
    let title = escape(title);
    let link = |Section { id, title, .. }: &Section| {
        format!("<li><a href=\"#{id}\">{}</a></li>\n", escape(title))
    };
    let links: String = sections.iter().map(link).collect();
    let section = |Section { id, title, body }: &Section| {
        let title = escape(title);
        format!(
            "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n{body}</section>\n"
        )
    };
    let sections: String = sections.iter().map(section).collect();
    format!(
        "<!DOCTYPE html>\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\" xml:lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n\
         <meta name=\"color-scheme\" content=\"light dark\" />\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<header>\n<h1>{title}</h1>\n{lead}</header>\n\
         <nav aria-label=\"Sections\">\n<ul>\n{links}</ul>\n</nav>\n<main>\n{sections}</main>\n\
         <footer><p>Written by Hearth {version}.</p></footer>\n</body>\n</html>\n",
        version = env!("CARGO_PKG_VERSION")
    )
}

/// One cell of a table.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number, aligned to the right.
    Number(String),
    /// A number over a colour, from 0 (none) to 9 (all).
    Shade(String, u8),
    /// Markup.
    Markup(String),
}

impl Cell {
    fn markup(&self, is_first: bool) -> String {
        let (class, inside) = match self {
            Self::Text(text) => (String::new(), escape(text)),
            Self::Number(text) => (" class=\"number\"".into(), escape(text)),
            Self::Shade(text, level) => (
                format!(" class=\"number s{}\"", level.min(&9)),
                escape(text),
            ),
            Self::Markup(markup) => (String::new(), markup.clone()),
        };
        if is_first {
            format!("<th scope=\"row\"{class}>{inside}</th>")
        } else {
            format!("<td{class}>{inside}</td>")
        }
    }
}

/// A table; the first cell of a row names the row.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// A heading a column; without any there is no row of them.
    pub head: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table of names and values.
    pub fn of_facts<'a>(caption: &str, facts: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let row = |(name, value): (&str, String)| vec![Cell::Text(name.into()), Cell::Text(value)];
        Self {
            caption: caption.into(),
            head: Vec::new(),
            rows: facts.into_iter().map(row).collect(),
        }
    }

    /// It as markup; wide ones scroll by themselves.
    pub fn markup(&self) -> String {
        self.markup_of("table", |name| name)
    }

    /// It as markup with upright names of columns, unless all are short, so that many narrow ones fit on a page.
    pub fn matrix_markup(&self) -> String {
        let is_long = |name: &String| name.chars().count() > SHORT;
        let upright = self.head.iter().skip(1).any(is_long);
        self.markup_of("table class=\"matrix\"", |name| {
            if upright {
                format!("<span>{name}</span>")
            } else {
                name
            }
        })
    }

    fn markup_of(&self, tag: &str, named: impl Fn(String) -> String) -> String {
        let column = |name: &String| format!("<th scope=\"col\">{}</th>", named(escape(name)));
        let head: String = self.head.iter().map(column).collect();
        let head = if self.head.is_empty() {
            String::new()
        } else {
            format!("<thead><tr>{head}</tr></thead>\n")
        };
        let row = |cells: &Vec<Cell>| {
            let cells: String = cells
                .iter()
                .enumerate()
                .map(|(at, cell)| cell.markup(at == 0))
                .collect();
            format!("<tr>{cells}</tr>\n")
        };
        let rows: String = self.rows.iter().map(row).collect();
        let caption = escape(&self.caption);
        format!(
            "<div class=\"wide\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n<{tag}>\n<caption>{caption}</caption>\n\
             {head}<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
        )
    }
}

/// A drawing with what it shows.
///
/// - svg: a whole `svg` element
pub fn figure(svg: &str, what: &str) -> String {
    let what = escape(what);
    let drawing = svg.trim().replacen(
        "<svg ",
        &format!("<svg role=\"img\" aria-label=\"{what}\" "),
        1,
    );
    format!("<figure class=\"plot\">\n{drawing}\n<figcaption>{what}</figcaption>\n</figure>\n")
}

/// A PNG inside of the page.
///
/// - size: width and height in pixels
pub fn picture(png: &[u8], [width, height]: [u32; 2], what: &str) -> String {
    let (data, what) = (STANDARD.encode(png), escape(what));
    format!(
        "<img src=\"data:image/png;base64,{data}\" width=\"{width}\" height=\"{height}\" alt=\"{what}\" />"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_becomes_markup() {
        assert_eq!(
            escape("<script>\"a\" & 'b'</script>"),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;"
        );
        assert_eq!(
            escape("a\u{0}\u{1b}b\u{ffff}\n"),
            "a\u{fffd}\u{fffd}b\u{fffd}\n"
        );
        assert_eq!(escape("\u{202e}été 😀"), "\u{fffd}été 😀");
    }

    #[test]
    fn a_page_is_well_formed_and_its_drawing_has_a_name() {
        let table = Table {
            caption: "a < b".into(),
            head: vec!["<i>".into(), "name".into()],
            rows: vec![vec![Cell::Text("]]>".into()), Cell::Shade("1".into(), 12)]],
        };
        let body =
            table.matrix_markup() + &figure("<svg width=\"1\" height=\"1\"></svg>\n", "x & y");
        let id = "one";
        let page = page(
            "<b>",
            &paragraph("&"),
            &[Section {
                id,
                title: "One",
                body,
            }],
        );
        let options = roxmltree::ParsingOptions {
            allow_dtd: true,
            ..Default::default()
        };
        let page = roxmltree::Document::parse_with_options(&page, options).unwrap();
        let named = |name: &str| {
            page.descendants()
                .find(|node| node.has_tag_name(name))
                .unwrap()
        };
        assert_eq!(named("h1").text(), Some("<b>"));
        assert_eq!(named("caption").text(), Some("a < b"));
        assert_eq!(named("span").text(), Some("<i>"));
        assert_eq!(named("svg").attribute("aria-label"), Some("x & y"));
        assert_eq!(named("td").attribute("class"), Some("number s9"));
        let heading = named("h2").attribute("id");
        assert_eq!(heading, named("section").attribute("aria-labelledby"));
    }
}
