//! Converts markup as it occurs in articles, and broken markup.

use crate::data::corpus::formats::wikitext::*;

fn plain(text: &str) -> String {
    let lines: Vec<String> =
        Wiki::default().plain_text(text).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    lines.join("\n")
}

#[test]
fn sentences_are_kept_and_markup_is_removed() {
    let article = "\
{{Short description|A made-up river}}
{{Infobox river
| name = Amber
| map = {{Location map|x={{coord|1|2}}}}
| tributaries = {{{left|}}}
}}
[[File:Amber.jpg|thumb|left|The ''Amber'' near [[Old Mill|the mill]] [https://example.org photo]]]
The '''Amber''' ({{IPA|/x/}}; {{lang|la|''Ambra''}}) is a [[river]] of {{convert|120|km|mi}}<ref name=\"a\">{{cite book
| title = Rivers }}</ref> in the [[Province (state)|province]] of [[North Vale]].<ref name=\"a\" /><!-- a
comment --> It is older than [http://example.org/x the hills]&nbsp;&mdash; Miller's 5&nbsp;&lt; 6.

== Course ==
{| class=\"wikitable\"
|-
! Town !! km
|-
| {| 
| nested
|}
| 12
|}
It passes:
* [[Alder]], <small>a town</small>
** a mill<br/>and a bridge
# first
: quoted [sic] line
=== Floods ===
Where <math>a^2 + \\{ b</math> holds, {{as of|2010}}, ''nothing'' does. __NOTOC__
<gallery>
File:A.jpg|one
</gallery>
<nowiki>[[not a link]] '' &amp;</nowiki> ends.

[[Category:Rivers]]
[[fr:Ambre]]
[[:Category:Rivers|All rivers]] and [[Mercury (planet)|]].";
    let expected = "\
The Amber (Ambra) is a river of 120 km in the province of North Vale. It is older than the hills — Miller's 5 < 6.
It passes:
Alder, a town
a mill and a bridge
first
quoted [sic] line
Where holds, As of 2010, nothing does.
[[not a link]] '' & ends.
All rivers and Mercury.";
    assert_eq!(plain(article), expected);
}

#[test]
fn unmatched_markup_is_removed_and_text_kept() {
    for (text, expected) in [
        ("One {{ two [[ three ''four", "One two three four"),
        ("One }} two ]] three", "One two ]] three"),
        ("One <ref> two {{x}} three", "One two three"),
        ("One <ref> two <ref>gone</ref> three", "One three"),
        ("One <!-- two", "One"),
        ("a < b and c <d> e <3", "a < b and c e <3"),
        ("{|\n| cell\n== Heading ==\nText.", "Text."),
        ("| cell of nothing\nText.", "Text."),
        ("{{{{{x}}}}} {{a|{{b|{{c}}}}}} end }", "end }"),
        ("{{a|{{{b|c}}}}} end", "end"),
        ("[[a|b [[c]] d]] [[File:x|[[y]]|z]]e", "b c d e"),
        ("[http://x.org] [http://x.org a [b] c] [d]", "a [b] c [d]"),
        ("it''''s '''''both''''' '''''", "it's both"),
    ] {
        assert_eq!(plain(text), expected, "{text}");
    }
}

#[test]
fn quantities_are_shown_whole_or_not_at_all() {
    for (arguments, shown) in [
        ("120|km|mi", "120 km"),
        ("1,200|m|0|abbr=on", "1,200 m"),
        ("5|ft|11|in|cm|0", "5 ft 11 in"),
        ("11|st|4|lb|kg", "11 st 4 lb"),
        ("3|mi|2|furlong|20|yd", "3 mi 2 furlong 20 yd"),
        ("5|±|2|km|mi", "5 ± 2 km"),
        ("5|+/-|2|km", "5 ± 2 km"),
        ("6|by|4|by|2|ft|m|1", "6 by 4 by 2 ft"),
        ("6|x|4|in|cm", "6 × 4 in"),
        ("10|-|15|km/h|mph", "10–15 km/h"),
        ("10|to|15|or|20|m3", "10 to 15 or 20 m3"),
        ("-40|C|F", "-40 C"),
        ("1+1/2|in|mm|lk=on", "1 1/2 in"),
        ("{{frac|1|2}}|mi", ""),
        ("|km", ""),
        ("2.5|e6km2", ""),
        ("5|//|2|km", ""),
        ("5|ft|x|6|ft", ""),
        ("5|to|about ten|km", ""),
        ("five|km", ""),
        ("5", ""),
        ("5|by|6", ""),
    ] {
        let within = format!("a {shown} b").replace("  ", " ");
        assert_eq!(plain(&format!("a {{{{convert|{arguments}}}}} b")), within, "{arguments}");
        assert_eq!(plain(&format!("{{{{cvt|{arguments}}}}}")), shown, "{arguments}");
    }
}

#[test]
fn quotations_keep_their_prose() {
    for (template, shown) in [
        (
            "quote|It ''rains'' in [[North Vale|the vale]]. It pours.|A. Miller|''Rivers''",
            "It rains in the vale. It pours.",
        ),
        ("Blockquote|text=One = one.|author=B", "One = one."),
        ("cquote|1=First line.\n\nSecond line.", "First line.\nSecond line."),
        ("Quote box|width=30%|quote=A {{lang|la|''vox''}} said.|source=C", "A vox said."),
        ("rquote|right|To the right.|D", "To the right."),
        ("Zitat|Text=Es regnet.|Autor=E", "Es regnet."),
        ("цитата|Идёт дождь.|автор", "Идёт дождь."),
        ("poemquote|one<br />two", "one two"),
    ] {
        let text = format!("Before: {{{{{template}}}}} After.");
        assert_eq!(plain(&text), format!("Before:\n{shown}\nAfter."), "{template}");
    }
    assert_eq!(plain("Before: {{quote}} After."), "Before:\nAfter.");
    for reference in ["cite quote|not shown", "citation|title=Not shown"] {
        assert_eq!(plain(&format!("Before: {{{{{reference}}}}} After.")), "Before: After.");
    }
}

#[test]
fn namespaces_are_hidden_by_their_names_in_the_wiki() {
    let mut wiki = Wiki::default();
    assert_eq!(wiki.plain_text("[[Datei:x.jpg|mini|Bild]]a").trim(), "mini|Bilda");
    wiki.hide_namespace("Datei");
    assert_eq!(wiki.plain_text("[[datei:x.jpg|mini|Bild]]a").trim(), "a");
}

#[test]
fn disambiguation_pages_are_recognised_by_template_or_title() {
    let wiki = Wiki::default();
    assert!(wiki.is_disambiguation("Amber", "'''Amber''' may be\n* [[A]]\n{{ Disambiguation|geo }}"));
    assert!(wiki.is_disambiguation("Amber", "{{Begriffsklärung}}"));
    assert!(wiki.is_disambiguation("Amber (disambiguation)", ""));
    assert!(!wiki.is_disambiguation("Amber", "{{other uses|Amber (disambiguation)}} {{disambiguation needed}}"));
}

/// Every pass accepts any text without a panic and in linear time.
#[test]
fn any_markup_is_converted_in_linear_time() {
    let marks = ["{{", "}}", "{", "}", "[[", "]]", "[", "]", "[http://", "|", "''", "'", "<ref>", "</ref>", "<", ">"];
    let more =
        ["<!--", "-->", "{|\n", "\n|}", "\n", "=", "* ", "__", "&", ";", "é", "(", ")", ",", " ", "File:", "<a b"];
    let all: Vec<&str> = marks.into_iter().chain(more).collect();
    let mut stream = crate::rng::Key::new(7).stream();
    for _ in 0..2000 {
        let text: String = (0..stream.below(60)).map(|_| all[stream.below(all.len() as u64) as usize]).collect();
        plain(&text);
    }
    let nested = [("{{nowrap|", "}}"), ("[[a|", "]]"), ("[[File:", "]]"), ("<ref>", "</ref>"), ("{|\n", "\n|}")];
    let nested = nested
        .map(|(open, close)| format!("{}{}{}", open.repeat(1 << 15), "word ".repeat(1 << 16), close.repeat(1 << 15)));
    for text in all.iter().map(|mark| mark.repeat(1 << 16)).chain(nested) {
        let started = std::time::Instant::now();
        Wiki::default().is_disambiguation("", &text);
        plain(&text);
        let seconds = started.elapsed().as_secs_f64();
        assert!(seconds < 60.0, "{seconds:.1} s for {} bytes, {:?} …", text.len(), &text[..6]);
    }
}
