//! Handles line-based markup: tables, headings and lists; and the gaps that removed markup leaves in a line.

/// Returns `text` without tables (`{|` to `|}`), which may be nested. A table that is not closed ends at the next
/// heading.
pub(super) fn without_tables(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut depth = 0_usize;
    for line in text.lines() {
        let start = line.trim_start_matches([' ', '\t', ':', '*', '#']);
        let mut shown = line;
        if start.starts_with("{|") {
            depth += 1;
        } else if depth > 0 && start.starts_with("|}") {
            depth -= 1;
            shown = &start[2..];
        } else if is_heading(line) {
            depth = 0;
        }
        if depth == 0 {
            plain.push_str(shown);
            plain.push('\n');
        }
    }
    plain
}

fn is_heading(line: &str) -> bool {
    let line = line.trim();
    line.len() > 2 && line.starts_with('=') && line.ends_with('=')
}

/// Returns the lines of text without their markup.
pub(super) fn paragraphs(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        // Rows and cells without a table, and horizontal rules.
        let is_left_over = ["|", "! ", "{|", "----"].iter().any(|mark| line.starts_with(mark));
        if !is_heading(line) && !is_left_over {
            let line = line.trim_start_matches(['*', '#', ':', ';', ' ', '\t']);
            push_without_gaps(&without_magic_words(line), &mut plain);
        }
        plain.push('\n');
    }
    plain
}

/// Returns `line` without magic words such as `__NOTOC__`.
fn without_magic_words(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("__") {
        plain.push_str(before);
        let word = after.split("__").next().unwrap_or_default();
        rest = match after.strip_prefix(word).and_then(|after| after.strip_prefix("__")) {
            Some(after) if !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase()) => after,
            _ => {
                plain.push_str("__");
                after
            }
        };
    }
    plain + rest
}

/// Appends a line with single spaces, without brackets that no longer hold a word, `( ; )`, and without the white space
/// that removed markup leaves before punctuation.
fn push_without_gaps(line: &str, plain: &mut String) {
    let start = plain.len();
    // Position in `plain` of the last open bracket that holds no word so far.
    let mut bracket = None;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            _ if c.is_whitespace() => {
                if plain.len() > start && !plain.ends_with([' ', '(']) {
                    plain.push(' ');
                }
            }
            '(' => {
                bracket = Some(plain.len());
                plain.push(c);
            }
            ',' | ';' if bracket.is_some() => {}
            ')' if bracket.is_some() => {
                plain.truncate(bracket.take().unwrap_or(start));
                trim_end_from(start, plain);
            }
            ')' => {
                trim_end_from(start, plain);
                plain.push(c);
            }
            ',' | '.' if characters.peek().is_none_or(|next| next.is_whitespace()) => {
                trim_end_from(start, plain);
                plain.push(c);
            }
            _ => {
                bracket = None;
                plain.push(c);
            }
        }
    }
    trim_end_from(start, plain);
}

/// Trims spaces at the end, but none before `start`.
fn trim_end_from(start: usize, text: &mut String) {
    let end = start + text[start..].trim_end_matches(' ').len();
    text.truncate(end);
}
