//! The frame of every page: style sheet, tables and escaped text. Pages load nothing, adapt to narrow screens and to the dark scheme.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::files;

/// The beginning of every page, by which [`write_page`] recognises one.
const GENERATOR: &str =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"generator\" content=\"lambert\">";

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5b6b7b; --rule: #d9e0e7; --page: #fff; --differs: #fdf3d8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4eaf0; --soft: #9aa9b8; --rule: #35414d; --page: #151b21; --differs: #3b3419; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 90rem; margin: 1.5rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid var(--rule); }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } th { color: var(--soft); font-weight: 500; }
tr { border-bottom: 1px solid var(--rule); } tr.differs { background: var(--differs); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: .5rem 1.5rem; }
figure { margin: .5rem 0; max-width: 36rem; } figcaption { color: var(--soft); font-size: .9rem; }
figure svg { width: 100%; height: auto; display: block; color: var(--ink); }
p, dd, li { color: var(--soft); max-width: 60rem; overflow-wrap: anywhere; } code { font-size: .95em; }
.key { list-style: none; padding: 0; } .key svg { width: 1.6rem; height: .7rem; margin-right: .5rem; }
";

/// Returns a page with the title `title` and the HTML `body`.
pub fn document(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "{GENERATOR}<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head><body>\n{body}</body></html>\n"
    )
}

/// Writes a page. An earlier page of lambert is replaced.
///
/// # Errors
/// If the file exists and is no page of lambert, or cannot be written.
pub fn write_page(path: &Path, html: &str) -> anyhow::Result<()> {
    if path.exists() {
        let earlier = files::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            earlier.starts_with(GENERATOR.as_bytes()),
            "{} exists and is no page of lambert; choose another file, or remove it",
            path.display()
        );
    }
    files::write_atomically(path, |partial| std::fs::write(partial, html))
}

/// Returns a table with text in the first column and numbers in the others.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    table_with_classes(head, &rows.iter().map(|row| ("", row.clone())).collect::<Vec<_>>())
}

/// Returns a table as [`table`] does, whose rows have classes of the style sheet.
pub fn table_with_classes(head: &[&str], rows: &[(&str, Vec<String>)]) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| -> String {
        let cell = |(column, text): (usize, &str)| {
            let class = if column == 0 { "" } else { " class=\"n\"" };
            format!("<{tag}{class}>{}</{tag}>", escape(text))
        };
        cells.enumerate().map(cell).collect()
    };
    let row = |(class, row): &(&str, Vec<String>)| {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        format!("<tr{class}>{}</tr>\n", cells("td", &mut row.iter().map(String::as_str)))
    };
    let body: String = rows.iter().map(row).collect();
    let head = cells("th", &mut head.iter().copied());
    format!("<div class=\"table\"><table><tr>{head}</tr>\n{body}</table></div>\n")
}

/// Returns a grid of plots.
pub fn plots(figures: &[String]) -> String {
    format!("<div class=\"plots\">\n{}</div>\n", figures.concat())
}

/// Escapes text for HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_replaces_a_page_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        write_page(&path, &document("one", "")).unwrap();
        write_page(&path, &document("two", "")).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("<title>two</title>"));
        std::fs::write(&path, "<!doctype html>\n<p>mine</p>").unwrap();
        let error = write_page(&path, &document("three", "")).unwrap_err().to_string();
        assert!(error.contains("is no page of lambert"), "{error}");
        assert!(std::fs::read_to_string(&path).unwrap().contains("mine"));
    }

    #[test]
    fn text_of_a_table_is_escaped_and_numbers_are_aligned() {
        let html = table_with_classes(&["a", "b"], &[("differs", vec!["<x>".to_owned(), "1 & \"2\"".to_owned()])]);
        assert!(html.contains("<tr><th>a</th><th class=\"n\">b</th></tr>"), "{html}");
        assert!(
            html.contains("<tr class=\"differs\"><td>&lt;x&gt;</td><td class=\"n\">1 &amp; &quot;2&quot;</td></tr>")
        );
    }
}
