//! Decodes HTML and XML character references: `&amp;`, `&#233;`, `&#xe9;`, `&eacute;`.

use std::borrow::Cow;

use quick_xml::escape::resolve_html5_entity;

/// Longest entity name: `CounterClockwiseContourIntegral`.
const LONGEST_NAME: usize = 31;

/// Returns the text of the reference `&name;`, or `None` if it does not exist.
pub(super) fn resolve(name: &str) -> Option<Cow<'static, str>> {
    let Some(number) = name.strip_prefix('#') else { return resolve_html5_entity(name).map(Cow::Borrowed) };
    let code = match number.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => number.parse(),
    };
    code.ok().and_then(char::from_u32).map(|c| Cow::Owned(c.to_string()))
}

/// Returns `text` with its references decoded. Unknown references stay as they are.
pub(super) fn decode_entities(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, reference) = rest.split_at(at);
        decoded.push_str(before);
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '#';
        let end = reference[1..].find(|c| !is_of_name(c)).map_or(reference.len(), |end| end + 1);
        let name = &reference[1..end];
        let is_closed = reference[end..].starts_with(';') && name.len() <= LONGEST_NAME;
        rest = match resolve(name).filter(|_| is_closed) {
            Some(character) => {
                decoded.push_str(&character);
                &reference[end + 1..]
            }
            None => {
                decoded.push('&');
                &reference[1..]
            }
        };
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_decoded_once_and_other_text_is_kept() {
        for (text, expected) in [
            ("Tom &amp; Jerry", "Tom & Jerry"),
            ("&lt;ref&gt; caf&eacute;&nbsp;&#233;&#xE9;&ndash;", "<ref> café\u{a0}éé–"),
            ("&amp;lt;", "&lt;"),
            ("AT&T & &; &nosuch; &#xD800; &#99999999999; &amp", "AT&T & &; &nosuch; &#xD800; &#99999999999; &amp"),
        ] {
            assert_eq!(decode_entities(text), expected);
        }
    }
}
