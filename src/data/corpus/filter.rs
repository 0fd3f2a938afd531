//! Filters that drop documents: by language, and by the quality rules of Gopher (Rae et al., "Scaling Language Models",
//! 2021, appendix A.1.1).

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use whatlang::Lang;

/// A rule that a document must meet to be kept, written `name=value`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Filter {
    /// The text is in this language, judged by trigrams and script.
    Language(Lang),
    /// A measure of the document is on the accepted side of a limit.
    Limit(&'static FilterRule, f64),
}

/// A named measure of a document.
#[derive(Debug)]
pub struct FilterRule {
    /// The name in options and in the manifest.
    pub name: &'static str,
    /// Description of the measure, for the help text.
    pub about: &'static str,
    /// Gopher's limit.
    gopher: f64,
    measure: fn(&Measures) -> f64,
}

impl PartialEq for FilterRule {
    fn eq(&self, other: &FilterRule) -> bool {
        self.name == other.name
    }
}

/// A rule whose name begins with `min` keeps documents at or above the limit; `max` keeps those at or below it.
pub static FILTER_RULES: [FilterRule; 11] = [
    FilterRule { name: "min_words", about: "words", gopher: 50.0, measure: |m| m.words },
    FilterRule { name: "max_words", about: "words", gopher: 100_000.0, measure: |m| m.words },
    FilterRule {
        name: "min_mean_word_length",
        about: "characters per word",
        gopher: 3.0,
        measure: |m| share(m.characters_of_words, m.words),
    },
    FilterRule {
        name: "max_mean_word_length",
        about: "characters per word",
        gopher: 10.0,
        measure: |m| share(m.characters_of_words, m.words),
    },
    FilterRule {
        name: "max_symbol_share",
        about: "# and ellipses per word",
        gopher: 0.1,
        measure: |m| share(m.symbols, m.words),
    },
    FilterRule {
        name: "min_alphabetic_share",
        about: "share of words that contain a letter",
        gopher: 0.8,
        measure: |m| share(m.alphabetic_words, m.words),
    },
    FilterRule {
        name: "min_stop_words",
        about: "distinct words out of the, be, to, of, and, that, have, with",
        gopher: 2.0,
        measure: |m| m.stop_words,
    },
    FilterRule {
        name: "max_bullet_line_share",
        about: "share of lines that begin with a bullet",
        gopher: 0.9,
        measure: |m| share(m.bullet_lines, m.lines),
    },
    FilterRule {
        name: "max_ellipsis_line_share",
        about: "share of lines that end with an ellipsis",
        gopher: 0.3,
        measure: |m| share(m.ellipsis_lines, m.lines),
    },
    FilterRule {
        name: "max_repeated_line_share",
        about: "share of lines that repeat an earlier line of the document",
        gopher: 0.3,
        measure: |m| share(m.repeated_lines, m.lines),
    },
    FilterRule {
        name: "max_repeated_text_share",
        about: "share of bytes in lines that repeat an earlier line",
        gopher: 0.2,
        measure: |m| share(m.repeated_bytes, m.bytes),
    },
];

fn share(part: f64, whole: f64) -> f64 {
    part / whole.max(1.0)
}

const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];
const BULLETS: [char; 6] = ['•', '‣', '●', '*', '-', '–'];
/// Bytes of a document from which its language is detected.
const LANGUAGE_SAMPLE: usize = 4096;

/// ISO 639-3 codes (three letters), each followed by its ISO 639-1 code (two letters). Languages without a two-letter
/// code are named by three.
const TWO_LETTERS: &str = "epo eo eng en rus ru cmn zh spa es por pt ita it ben bn fra fr deu de ukr uk kat ka ara ar hin hi \
    jpn ja heb he yid yi pol pl amh am jav jv kor ko nob nb dan da swe sv fin fi tur tr nld nl hun hu ces cs ell el bul bg \
    bel be mar mr kan kn ron ro slv sl hrv hr srp sr mkd mk lit lt lav lv est et tam ta vie vi urd ur tha th guj gu uzb uz \
    pan pa aze az ind id tel te pes fa mal ml ori or mya my nep ne sin si khm km tuk tk aka ak zul zu sna sn afr af lat la \
    slk sk cat ca tgl tl hye hy cym cy";

fn language_of_code(code: &str) -> Option<Lang> {
    let codes: Vec<&str> = TWO_LETTERS.split_whitespace().collect();
    let three = codes.chunks(2).find(|pair| pair[1] == code).map_or(code, |pair| pair[0]);
    Lang::from_code(three)
}

impl Filter {
    /// Returns the rules of Gopher with its limits.
    pub fn gopher() -> impl Iterator<Item = Filter> {
        FILTER_RULES.iter().map(|rule| Filter::Limit(rule, rule.gopher))
    }

    /// Returns the name under which the manifest counts the documents that this filter drops.
    pub fn name(&self) -> &'static str {
        match self {
            Filter::Language(_) => "language",
            Filter::Limit(rule, _) => rule.name,
        }
    }

    fn keeps<'a>(&self, measures: &Measures, lines: impl Iterator<Item = &'a str>) -> bool {
        match self {
            Filter::Language(language) => whatlang::detect_lang(&sample(lines)) == Some(*language),
            Filter::Limit(rule, limit) => {
                let measured = (rule.measure)(measures);
                if rule.name.starts_with("min") { measured >= *limit } else { measured <= *limit }
            }
        }
    }
}

/// Returns the first of `filters` that rejects the document of `lines`.
pub fn first_rejection<'f, 'a>(
    filters: &'f [Filter],
    lines: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'f Filter> {
    if filters.is_empty() {
        return None;
    }
    let measures = Measures::of(lines.clone());
    filters.iter().find(|filter| !filter.keeps(&measures, lines.clone()))
}

/// Returns the beginning of a document.
fn sample<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut sample = String::new();
    for line in lines {
        sample.push_str(&line[..line.floor_char_boundary(LANGUAGE_SAMPLE - sample.len())]);
        sample.push('\n');
        if sample.len() >= LANGUAGE_SAMPLE {
            break;
        }
    }
    sample
}

/// All measures that the rules use.
#[derive(Debug, Default)]
struct Measures {
    words: f64,
    characters_of_words: f64,
    alphabetic_words: f64,
    symbols: f64,
    stop_words: f64,
    lines: f64,
    bullet_lines: f64,
    ellipsis_lines: f64,
    repeated_lines: f64,
    repeated_bytes: f64,
    bytes: f64,
}

impl Measures {
    fn of<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut measures = Measures::default();
        let mut seen = HashSet::new();
        let mut stop_words = [false; STOP_WORDS.len()];
        for line in lines.map(str::trim) {
            let is_repeated = !seen.insert(line);
            measures.lines += 1.0;
            measures.bytes += line.len() as f64;
            measures.repeated_lines += is_repeated as u32 as f64;
            measures.repeated_bytes += if is_repeated { line.len() as f64 } else { 0.0 };
            measures.bullet_lines += line.starts_with(BULLETS) as u32 as f64;
            measures.ellipsis_lines += (line.ends_with("...") || line.ends_with('…')) as u32 as f64;
            measures.symbols += (line.matches(['#', '…']).count() + line.matches("...").count()) as f64;
            for word in line.split_whitespace() {
                measures.words += 1.0;
                measures.characters_of_words += word.chars().count() as f64;
                measures.alphabetic_words += word.chars().any(char::is_alphabetic) as u32 as f64;
                let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
                if let Some(at) = STOP_WORDS.iter().position(|stop| stop.eq_ignore_ascii_case(bare)) {
                    stop_words[at] = true;
                }
            }
        }
        measures.stop_words = stop_words.iter().filter(|&&found| found).count() as f64;
        measures
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Filter::Language(language) => write!(f, "language={}", language.code()),
            Filter::Limit(rule, limit) => write!(f, "{}={limit}", rule.name),
        }
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> String {
        filter.to_string()
    }
}

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> Result<Filter, String> {
        text.parse()
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let (name, value) = text.split_once('=').ok_or("requires name=value, like min_words=50")?;
        if name == "language" {
            let language = language_of_code(value);
            let unknown = || format!("requires a supported ISO 639 language code, like en or eng, got {value:?}");
            return language.map(Filter::Language).ok_or_else(unknown);
        }
        let Some(rule) = FILTER_RULES.iter().find(|rule| rule.name == name) else {
            let names: Vec<&str> = FILTER_RULES.iter().map(|rule| rule.name).collect();
            return Err(format!("requires language or one of {}, got {name:?}", names.join(", ")));
        };
        match value.parse::<f64>() {
            Ok(limit) if limit.is_finite() && limit >= 0.0 => Ok(Filter::Limit(rule, limit)),
            _ => Err(format!("{name} requires a non-negative number, got {value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(filter: &str, text: &str) -> bool {
        let filters: [Filter; 1] = [filter.parse().unwrap()];
        first_rejection(&filters, text.lines()).is_some()
    }

    #[test]
    fn every_rule_keeps_up_to_its_limit() {
        let text = "The river and the stone.\nThe river and the stone.\n- one # two...";
        // Fourteen words: five, five, and four including the bullet and the number sign.
        for (rule, kept, dropped) in [
            ("min_words", "14", "15"),
            ("max_words", "14", "13"),
            ("min_mean_word_length", "3.2", "3.8"),
            ("max_mean_word_length", "3.8", "3.2"),
            ("max_symbol_share", "0.15", "0.14"),
            ("min_alphabetic_share", "0.85", "0.86"),
            ("min_stop_words", "2", "3"),
            ("max_bullet_line_share", "0.34", "0.33"),
            ("max_ellipsis_line_share", "0.34", "0.33"),
            ("max_repeated_line_share", "0.34", "0.33"),
            ("max_repeated_text_share", "0.39", "0.38"),
        ] {
            assert!(!refused(&format!("{rule}={kept}"), text), "{rule}={kept}");
            assert!(refused(&format!("{rule}={dropped}"), text), "{rule}={dropped}");
        }
    }

    #[test]
    fn language_is_detected() {
        let english = "It was a bright cold day in the village, and the people were walking slowly to the market.";
        let german = "Es war ein heller kalter Tag im Dorf, und die Leute gingen langsam zum Markt, um Brot zu kaufen.";
        assert!(!refused("language=en", english) && refused("language=en", german));
        assert!(!refused("language=deu", german) && refused("language=de", english));
        assert!(refused("language=en", "12 34 56"), "a text without a language is not in English");
        assert!(refused("language=en", &german.repeat(100)), "the beginning is enough");
    }

    #[test]
    fn filters_round_trip_and_invalid_ones_are_rejected() {
        for text in ["language=eng", "min_words=50", "max_symbol_share=0.1"] {
            assert_eq!(text.parse::<Filter>().unwrap().to_string(), text);
        }
        assert_eq!(Filter::gopher().count(), FILTER_RULES.len());
        for (text, message) in [
            ("min_words", "name=value"),
            ("min_word=3", "min_words"),
            ("min_words=-1", "non-negative"),
            ("min_words=NaN", "non-negative"),
            ("language=xx", "ISO 639"),
        ] {
            assert!(text.parse::<Filter>().unwrap_err().contains(message), "{text}");
        }
        for pair in TWO_LETTERS.split_whitespace().collect::<Vec<_>>().chunks(2) {
            assert_eq!(language_of_code(pair[1]).map(|language| language.code()), Some(pair[0]));
        }
    }
}
