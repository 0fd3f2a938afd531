//! Removes comments and tags: `<!-- … -->`, `<ref>…</ref>`, `<b>`.

/// Elements that are removed with their content.
const DROPPED: [&str; 25] = [
    "ref",
    "references",
    "math",
    "chem",
    "ce",
    "gallery",
    "timeline",
    "imagemap",
    "syntaxhighlight",
    "source",
    "code",
    "pre",
    "score",
    "hiero",
    "graph",
    "mapframe",
    "maplink",
    "inputbox",
    "categorytree",
    "templatedata",
    "templatestyles",
    "table",
    "includeonly",
    "style",
    "script",
];
/// Tags that end a line.
const LINE_BREAKING: [&str; 12] =
    ["p", "div", "center", "blockquote", "poem", "li", "dd", "dt", "tr", "h2", "h3", "h4"];

/// Returns `text` without comments and tags, and without the content of [`DROPPED`] elements. A comment that is not
/// closed extends to the end, as in MediaWiki; an element that is not closed loses only its tag.
pub(super) fn without_tags(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    // Elements without an end tag in the rest of the text, so that each is searched for once only.
    let mut unclosed: Vec<&str> = Vec::new();
    while let Some(at) = rest.find('<') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            let Some((_, after)) = comment.split_once("-->") else { return plain };
            rest = after;
            continue;
        }
        let Some(tag) = Tag::at_start_of(rest) else {
            plain.push('<');
            rest = &rest[1..];
            continue;
        };
        rest = &rest[tag.length..];
        let name = tag.name.to_ascii_lowercase();
        let dropped = DROPPED.into_iter().find(|dropped| *dropped == name);
        match dropped.filter(|name| tag.opens && !unclosed.contains(name)) {
            Some(name) => match end_of_element(rest, name) {
                Some(end) => rest = &rest[end..],
                None => unclosed.push(name),
            },
            None if name == "nowiki" && tag.opens => {
                // Literal text: its characters are escaped so that later passes do not read them as markup.
                let end = end_of_content(rest, "nowiki").unwrap_or(0);
                rest[..end].chars().for_each(|c| push_literal(c, &mut plain));
                rest = &rest[end..];
            }
            None if name == "br" => plain.push(' '),
            None if LINE_BREAKING.contains(&name.as_str()) => plain.push('\n'),
            None => {}
        }
    }
    plain + rest
}

/// Appends a literal character. Characters that could be markup become references, which are decoded last.
fn push_literal(c: char, text: &mut String) {
    match c {
        '[' | ']' | '{' | '}' | '\'' | '<' | '>' | '|' | '=' | '*' | '#' | ':' | '_' => {
            *text += &format!("&#{};", c as u32);
        }
        _ => text.push(c),
    }
}

struct Tag<'a> {
    name: &'a str,
    /// Bytes from `<` to `>`.
    length: usize,
    /// Neither `</b>` nor `<b/>`.
    opens: bool,
}

impl<'a> Tag<'a> {
    fn at_start_of(text: &'a str) -> Option<Self> {
        let inside = text[1..].strip_prefix('/').unwrap_or(&text[1..]);
        let name = &inside[..inside.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(inside.len())];
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return None;
        }
        // Another `<` comes first: this one is text, as in `a <b`.
        let end = 1 + text[1..].find(['<', '>'])?;
        let is_tag = text[end..].starts_with('>');
        is_tag.then(|| Tag { name, length: end + 1, opens: !text.starts_with("</") && !text[..end].ends_with('/') })
    }
}

/// Returns the position of `</name>` in `text`, in any case.
fn end_of_content(text: &str, name: &str) -> Option<usize> {
    text.match_indices("</").map(|(at, _)| at).find(|at| {
        let after = &text.as_bytes()[at + 2..];
        after.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
            && !after.get(name.len()).is_some_and(u8::is_ascii_alphanumeric)
    })
}

/// Returns the end of the element that was opened before `text`, including its end tag.
fn end_of_element(text: &str, name: &str) -> Option<usize> {
    let end = end_of_content(text, name)?;
    Some(end + text[end..].find('>').map_or(text.len() - end, |at| at + 1))
}
