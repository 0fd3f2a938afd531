//! Removes templates, `{{name|argument|…}}`, which may be nested, and parameters, `{{{name|default}}}`.

/// Maximum nesting of templates whose text is kept, as in MediaWiki. It bounds how often a word is moved.
const DEEPEST: usize = 40;

/// Returns `text` without templates. Templates that only format text are replaced by it; unmatched braces are removed
/// alone.
pub(super) fn without_templates(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    // Unmatched runs of opening braces: their number, and where their content starts in `plain`.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let brace = rest.as_bytes()[0];
        let mut run = rest.bytes().take_while(|&b| b == brace).count();
        rest = &rest[run..];
        if brace == b'{' {
            match run {
                1 => plain.push('{'),
                _ => open.push((run, plain.len())),
            }
            continue;
        }
        let depth = open.len();
        while run >= 2
            && let Some((braces, start)) = open.last_mut()
        {
            let partners = if *braces >= 3 && run >= 3 { 3 } else { 2 };
            let shown =
                if partners == 2 && depth <= DEEPEST { displayed_text(&plain[*start..]) } else { String::new() };
            plain.truncate(*start);
            plain.push_str(&shown);
            run -= partners;
            *braces -= partners;
            // The rest of the opening run starts where the pair did; a single brace is not markup.
            if *braces < 2 {
                open.pop();
            }
        }
        if run == 1 {
            plain.push('}');
        }
    }
    plain + rest
}

/// Returns the text that a template shows, from its name and arguments. `inside` is the text between its braces.
fn displayed_text(inside: &str) -> String {
    let arguments = arguments_of(inside);
    let name = arguments[0].trim().to_lowercase();
    let positional: Vec<&str> = arguments[1..].iter().map(|a| a.trim()).filter(|a| !is_named(a)).collect();
    let argument = |index: usize| positional.get(index).copied().unwrap_or_default();
    match name.as_str() {
        "lang" | "transl" | "transliteration" => positional.last().copied().unwrap_or_default().to_owned(),
        "nowrap" | "nobr" | "nobold" | "small" | "abbr" | "em" | "strong" | "'" => argument(0).to_owned(),
        "convert" | "cvt" => match argument(1) {
            "-" | "–" | "to" | "and" | "x" | "by" => {
                format!("{} {} {} {}", argument(0), argument(1), argument(2), argument(3))
            }
            unit => format!("{} {unit}", argument(0)),
        },
        "nbsp" | "spaces" | "space" | "sp" => " ".to_owned(),
        "ndash" | "en dash" | "–" => "–".to_owned(),
        "spnd" | "snd" | "spaced ndash" | "dash" => " – ".to_owned(),
        "mdash" | "em dash" | "—" => "—".to_owned(),
        "as of" => format!("As of {}", positional.join(" ")),
        _ => String::new(),
    }
}

/// Returns `true` if an argument has the form `name=value`.
fn is_named(argument: &str) -> bool {
    argument
        .split_once('=')
        .is_some_and(|(name, _)| name.trim().chars().all(|c| c.is_alphanumeric() || " -_".contains(c)))
}

/// Splits a template at its bars; a bar in a link does not split. There is at least one part.
fn arguments_of(inside: &str) -> Vec<&str> {
    let (mut arguments, mut start, mut links) = (Vec::new(), 0, 0_usize);
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            b'[' => links += 1,
            b']' => links = links.saturating_sub(1),
            b'|' if links == 0 => {
                arguments.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    arguments.push(&inside[start..]);
    arguments
}
