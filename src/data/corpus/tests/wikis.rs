//! Wikimedia dumps and WikiExtractor output. The pages are invented.

use super::compressed::bzip2_of;
use crate::data::corpus::tests::*;

const DUMP: &str = r#"<mediawiki version="0.11" xml:lang="en">
  <siteinfo><namespaces>
    <namespace key="6" case="first-letter">Fichier</namespace>
    <namespace key="1">Talk</namespace>
  </namespaces></siteinfo>
  <page><title>Amber</title><ns>0</ns><id>1</id>
    <revision><text bytes="1">Old.</text></revision>
    <revision><comment>[[x]]</comment><text bytes="9" xml:space="preserve">'''Amber''' &amp; [[stone|stones]].&lt;ref&gt;gone&lt;/ref&gt;

[[Fichier:x|gone]]Caf&amp;eacute; &lt; it.</text></revision></page>
  <page><title>Talk:Amber</title><ns>1</ns><revision><text>Talk.</text></revision></page>
  <page><title>Ambre</title><ns>0</ns><redirect title="Amber" /><revision><text>#REDIRECT [[Amber]]</text></revision></page>
  <page><title>Ambers</title><ns>0</ns><revision><text>May be: {{disambig}}</text></revision></page>
  <page><title>Empty</title><ns>0</ns><revision><text bytes="0" /></revision></page>
  <page><title>Beryl</title><ns>0</ns><revision><text>Second.</text></revision></page>
</mediawiki>
"#;

#[test]
fn articles_of_a_dump_are_read() {
    let (shown, counts) = read(&[("x-pages-articles1.xml-p1p2.bz2", &bzip2_of(DUMP.as_bytes()))]).unwrap();
    assert_eq!(shown, ["Amber & stones.", "Café < it.", "¶", "Second.", "¶"]);
    let expected = ReadCounts {
        documents: 2,
        empty_documents: 1,
        redirects: 1,
        disambiguations: 1,
        other_pages: 1,
        ..ReadCounts::default()
    };
    assert_eq!(counts, expected);
    let wrapped = read_as(SentenceMode::Wrapped, &[("a.xml", DUMP.as_bytes())]).unwrap();
    assert_eq!(wrapped.0, shown, "an empty line parts paragraphs");
}

#[test]
fn a_broken_dump_reports_the_pages_read() {
    let cut = &DUMP.as_bytes()[..DUMP.find("Beryl").unwrap()];
    let with = |old: &str, new: &[u8]| {
        let at = DUMP.find(old).unwrap();
        [&DUMP.as_bytes()[..at], new, &DUMP.as_bytes()[at + old.len()..]].concat()
    };
    let message_of = |dump: &[u8]| message(&[("a.xml", dump)]);
    assert!(message_of(cut).contains("requires </mediawiki>, got the end of the file, after 5 pages"));
    assert!(message_of(b"<feed><p>x</p></feed>").contains("<mediawiki>, got <feed>"));
    assert!(message_of(&with("</title>", b"</titles>")).contains("well-formed"));
    assert!(message_of(&DUMP.as_bytes()[..DUMP.len() - 14]).contains("requires </mediawiki>"));
    for nothing in [&b""[..], b" \n", b"plain text", b"<?xml version=\"1.0\"?>\n"] {
        assert!(
            message_of(nothing).contains("requires the XML of a Wikimedia dump: <mediawiki>, got the end of the file")
        );
    }
    assert!(message_of(&with("<ns>0</ns>", b"")).contains("none in \"Amber\""));
}

#[test]
fn invalid_utf8_in_a_dump_is_replaced_or_rejected_as_in_text() {
    let with = |bytes: &[u8]| DUMP.as_bytes().split(|&b| b == b'S').collect::<Vec<_>>().join(bytes);
    let (shown, counts) = read(&[("a.xml", &with(b"caf\xe9 \xff\xe2\x82 "))]).unwrap();
    assert_eq!(shown[3], "caf\u{fffd} \u{fffd}\u{fffd} econd.");
    assert_eq!((shown.len(), counts.replaced_bytes, counts.documents), (5, 4, 2));

    let refuse = ReadOptions { invalid_utf8: Tolerance::Refuse, ..ReadOptions::default() };
    let (whole, _) = read_with(&refuse, &[("a.xml", DUMP.as_bytes())]).unwrap();
    assert_eq!(whole[3], "Second.");
    let message = read_with(&refuse, &[("a.xml", &with(b"caf\xe9 "))]).unwrap_err().to_string();
    assert!(message.contains("a.xml: requires text in UTF-8, got the bytes [e9] in page 6"), "{message}");

    // A character and an incomplete character at the end of a file buffer.
    for before in (1 << 18) - 6..(1 << 18) + 2 {
        let head = "<mediawiki><!-- -->";
        let pages = "<page><title>x</title><ns>0</ns><revision><text>";
        let filling = " ".repeat(before - head.len() - pages.len());
        let file = [
            head.as_bytes(),
            filling.as_bytes(),
            pages.as_bytes(),
            "€".as_bytes(),
            b"\xe2\x82",
            b"x</text></revision></page></mediawiki>",
        ];
        let (shown, counts) = read(&[("a.xml", &file.concat())]).unwrap();
        assert_eq!((shown[0].as_str(), counts.replaced_bytes), ("€\u{fffd}x", 2), "behind {before} bytes");
    }
}

#[test]
fn paragraphs_of_wiki_extractor_output_are_read() {
    let file = b"<doc id=\"1\" url=\"x?curid=1\" title=\"Amber &amp; Beryl\">\nAmber &amp; Beryl\n\nOne &lt;two.\nThree.\n\n</doc>\n\
        <doc id=\"2\" url=\"x?curid=2\" title=\"Empty\">\nEmpty\n\n</doc>\n<doc id=\"3\" url=\"\" title=\"T\">\nNo title.\n</doc>\n";
    let (shown, counts) = read(&[("wiki_00", file)]).unwrap();
    assert_eq!(shown, ["One <two.", "Three.", "¶", "No title.", "¶"]);
    assert_eq!((counts.documents, counts.empty_documents), (2, 1));
    assert!(
        message(&[("all.txt", file)]).contains("all.txt: requires plain text, as its name says, got WikiExtractor's")
    );
    let (shown, _) = read(&[("wiki_00", b"{\"id\": \"1\", \"text\": \"One.\"}\n")]).unwrap();
    assert_eq!(shown, ["One.", "¶"], "as --json writes it");

    let cut = message(&[("wiki_01", &file[..file.len() - 8])]);
    assert!(cut.contains("wiki_01: requires </doc> after <doc …> on line 12, got the end of the file"), "{cut}");
    let text = String::from_utf8(file.to_vec()).unwrap();
    let unclosed = message(&[("wiki_01", text.replacen("\n</doc>", "", 1).as_bytes())]);
    let found = "requires </doc> after <doc …> on line 1, got another <doc …> on line 7";
    assert!(unclosed.contains(found), "{unclosed}");
    // A title is unescaped literally, including quotes.
    let quoted = b"<doc id=\"1\" url=\"\" title=\"The \"Amber\" <x> &quot;\">\nThe \"Amber\" <x> \"\n\nOne.\n</doc>\n";
    assert_eq!(read(&[("wiki_00", quoted)]).unwrap().0, ["One.", "¶"]);
    assert!(message(&[("wiki_02", b"plain text")]).contains("requires <doc id=…> on line 1, got \"plain text\""));
}
