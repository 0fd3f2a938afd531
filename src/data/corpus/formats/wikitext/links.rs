//! Converts links, `[[page|label]]` and `[https://… label]`, file links with links in their captions, and the quotes of
//! italics and bold.

use std::collections::BTreeSet;

const SCHEMES: [&str; 8] = ["http://", "https://", "//", "ftp://", "mailto:", "news:", "irc://", "gopher://"];

/// Maximum nesting of links, which bounds how often a word is moved.
const DEEPEST: usize = 40;

/// An unmatched opening bracket.
#[derive(PartialEq, Eq)]
enum Open {
    /// `[[`, and where the link's content starts in the plain text.
    Link(usize),
    /// `[https://…`
    Address,
    /// `[`, a bracket of the text.
    Bracket,
}

/// Returns `text` with links replaced by their labels, without links that show nothing.
pub(super) fn without_links(text: &str, hidden_namespaces: &BTreeSet<String>) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut open = Vec::new();
    let mut open_links = 0;
    let mut rest = text;
    while let Some(at) = rest.find(['[', ']', '\'']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("[[") {
            if open_links < DEEPEST {
                open.push(Open::Link(plain.len()));
                open_links += 1;
            }
            rest = after;
        } else if SCHEMES.iter().any(|scheme| rest[1..].starts_with(scheme)) && rest.starts_with('[') {
            open.push(Open::Address);
            let end = rest.find([' ', ']', '\n']).unwrap_or(rest.len());
            rest = rest[end..].strip_prefix(' ').unwrap_or(&rest[end..]);
        } else if let Some(after) = rest.strip_prefix('[') {
            open.push(Open::Bracket);
            plain.push('[');
            rest = after;
        } else if closes_a_link(rest, &open, open_links) {
            // Brackets opened in the link and not closed are unmatched.
            while let Some(bracket) = open.pop() {
                if let Open::Link(start) = bracket {
                    let shown = displayed_text(&plain[start..], hidden_namespaces);
                    plain.replace_range(start.., &shown);
                    break;
                }
            }
            open_links -= 1;
            rest = &rest[2..];
        } else if let Some(after) = rest.strip_prefix(']') {
            let is_mark = open.last() == Some(&Open::Address);
            if matches!(open.last(), Some(Open::Address | Open::Bracket)) {
                open.pop();
            }
            plain.push_str(if is_mark { "" } else { "]" });
            rest = after;
        } else {
            let run = rest.bytes().take_while(|&b| b == b'\'').count();
            // Two quotes mark italics, three bold, five both; of four, one is an apostrophe.
            let apostrophes = match run {
                1 | 4 => 1,
                2 | 3 => 0,
                _ => run - 5,
            };
            plain.extend(std::iter::repeat_n('\'', apostrophes));
            rest = &rest[run..];
        }
    }
    plain + rest
}

/// Returns `true` if the brackets at the start of `rest` close a link. Of three, the first closes the bracket opened
/// last in the link.
fn closes_a_link(rest: &str, open: &[Open], open_links: usize) -> bool {
    let last_is_link = matches!(open.last(), Some(Open::Link(_)));
    open_links > 0 && rest.starts_with("]]") && (last_is_link || !rest.starts_with("]]]"))
}

/// Returns the text that the link `[[inside]]` shows.
fn displayed_text(inside: &str, hidden_namespaces: &BTreeSet<String>) -> String {
    let (target, label) = match inside.split_once('|') {
        Some((target, label)) => (target.trim(), Some(label.trim())),
        None => (inside.trim(), None),
    };
    let is_shown_as_link = target.starts_with(':');
    let target = target.trim_start_matches(':');
    if let Some((prefix, _)) = target.split_once(':')
        && !is_shown_as_link
    {
        let prefix = prefix.trim().replace('_', " ");
        let is_language = label.is_none()
            && (2..=12).contains(&prefix.len())
            && (prefix.len() <= 3 || prefix.contains('-') || prefix == "simple")
            && prefix.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        if is_language || hidden_namespaces.contains(&prefix.to_lowercase()) {
            return String::new();
        }
    }
    match label {
        // `[[Mercury (planet)|]]` shows "Mercury".
        Some("") => target.split(" (").next().unwrap_or_default().to_owned(),
        Some(label) => label.to_owned(),
        None => target.replace('_', " "),
    }
}
