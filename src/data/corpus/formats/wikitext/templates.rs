//! Removes templates, `{{name|argument|…}}`, which may be nested, and parameters, `{{{name|default}}}`.

/// Maximum nesting of templates whose text is kept, as in MediaWiki. It bounds how often a word is moved.
const DEEPEST: usize = 40;

/// Templates that show a quotation as a paragraph, in the languages with the most articles.
const QUOTATIONS: [&str; 20] = [
    "quote",
    "blockquote",
    "block quote",
    "bquote",
    "cquote",
    "quotation",
    "quote box",
    "quotebox",
    "rquote",
    "pull quote",
    "centered pull quote",
    "poem quote",
    "poemquote",
    "zitat",
    "cita",
    "citazione",
    "citaat",
    "citat",
    "cytat",
    "цитата",
];
/// Names of the argument that holds the quotation.
const QUOTED: [&str; 9] = ["1", "text", "quote", "content", "texto", "testo", "tekst", "zitat", "текст"];

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
    let name = arguments[0].trim().replace('_', " ").to_lowercase();
    let positional: Vec<&str> = arguments[1..].iter().map(|a| a.trim()).filter(|a| !is_named(a)).collect();
    let argument = |index: usize| positional.get(index).copied().unwrap_or_default();
    match name.as_str() {
        "lang" | "transl" | "transliteration" => positional.last().copied().unwrap_or_default().to_owned(),
        "nowrap" | "nobr" | "nobold" | "small" | "abbr" | "em" | "strong" | "'" => argument(0).to_owned(),
        "convert" | "cvt" => quantity(&positional).unwrap_or_default(),
        name if QUOTATIONS.contains(&name) => format!("\n{}\n", quotation(&arguments[1..], &positional)),
        "nbsp" | "spaces" | "space" | "sp" => " ".to_owned(),
        "ndash" | "en dash" | "–" => "–".to_owned(),
        "spnd" | "snd" | "spaced ndash" | "dash" => " – ".to_owned(),
        "mdash" | "em dash" | "—" => "—".to_owned(),
        "as of" => format!("As of {}", positional.join(" ")),
        _ => String::new(),
    }
}

/// Returns the quantity that `{{convert}}` shows first, from its arguments without names: a number or a range of numbers with
/// a unit ("5 to 10 km", "6 by 4 in", "5 ± 2 m"), or a number in several units ("5 ft 11 in"). Returns `None` if they are
/// anything else: no quantity is better than a wrong one.
fn quantity(arguments: &[&str]) -> Option<String> {
    let (first, mut rest) = arguments.split_first()?;
    let mut shown = number(first)?;
    while let [word, next, after @ ..] = rest
        && let Some(between) = between_numbers(word)
    {
        shown += &format!("{between}{}", number(next)?);
        rest = after;
    }
    let (unit, mut rest) = rest.split_first()?;
    shown += &format!(" {}", is_unit(unit).then_some(unit)?);
    // A number that no unit follows is the number of digits, and a unit alone that of the conversion.
    while let [next, unit, after @ ..] = rest
        && let Some(next) = number(next)
    {
        shown += &format!(" {next} {}", is_unit(unit).then_some(unit)?);
        rest = after;
    }
    rest.iter().all(|argument| between_numbers(argument).is_none()).then_some(shown)
}

/// Returns a number of `{{convert}}` as it is shown: `1+1/2` is one and a half.
fn number(argument: &str) -> Option<String> {
    let digits = argument.trim_start_matches(['-', '−', '+']);
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || ",.+/⁄".contains(c))
        && !digits.contains("//");
    is_number.then(|| argument.replacen(digits, &digits.replace('+', " "), 1))
}

/// Returns what `{{convert}}` shows for a word between two numbers.
fn between_numbers(word: &str) -> Option<&'static str> {
    Some(match word {
        "-" | "–" | "(-)" | "&ndash;" => "–",
        "to" | "to(-)" | "to about" => " to ",
        "and" | "and(-)" => " and ",
        "or" | "or(-)" => " or ",
        "by" | "by(x)" => " by ",
        "x" | "xx" | "*" | "×" | "&times;" => " × ",
        "±" | "+/-" | "&plusmn;" => " ± ",
        "," => ", ",
        ", and" => ", and ",
        ", or" => ", or ",
        _ => return None,
    })
}

/// Returns `true` for the symbol of a unit, which is shown as it is; `e6km` stands for millions of kilometres.
fn is_unit(argument: &str) -> bool {
    let mut characters = argument.chars();
    let (first, second) = (characters.next(), characters.next());
    let is_power = first == Some('e') && second.is_some_and(|c| c.is_ascii_digit());
    first.is_some_and(|c| c.is_alphabetic() || c == '°')
        && !is_power
        && argument.chars().all(|c| c.is_alphanumeric() || " /-.·°²³".contains(c))
}

/// Returns the text of a quotation: the argument that has its name, else the first one that is not the side on which it is
/// shown.
fn quotation<'a>(arguments: &[&'a str], positional: &[&'a str]) -> &'a str {
    let named = arguments.iter().find_map(|argument| {
        let (name, value) = argument.split_once('=')?;
        QUOTED.contains(&name.trim().to_lowercase().as_str()).then(|| value.trim())
    });
    let first = || positional.iter().find(|argument| !["left", "right"].contains(argument));
    named.or_else(|| first().copied()).unwrap_or_default()
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
