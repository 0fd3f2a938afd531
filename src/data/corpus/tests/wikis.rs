//! Dumps of Wikimedia, and what WikiExtractor makes of them. The pages are made up.

use super::compressed::bzip2_of;
use super::*;

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
fn of_a_dump_the_articles_are_read() {
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
    let wrapped = read_as(Sentences::Wrapped, &[("a.xml", DUMP.as_bytes())]).unwrap();
    assert_eq!(wrapped.0, shown, "an empty line parts paragraphs");
}

#[test]
fn a_broken_dump_is_named_with_what_was_good() {
    let cut = &DUMP.as_bytes()[..DUMP.find("Beryl").unwrap()];
    let with = |old: &str, new: &[u8]| {
        let at = DUMP.find(old).unwrap();
        [&DUMP.as_bytes()[..at], new, &DUMP.as_bytes()[at + old.len()..]].concat()
    };
    let message_of = |dump: &[u8]| message(&[("a.xml", dump)]);
    assert!(message_of(cut).contains("requires </mediawiki>, got the end of the file, after 5 pages"));
    assert!(message_of(b"<html><p>x</p></html>").contains("<mediawiki>, got <html>"));
    assert!(message_of(&with("</title>", b"</titles>")).contains("well-formed"));
    assert!(message_of(&with("<ns>0</ns>", b"")).contains("none in \"Amber\""));
    assert!(message_of(&with("Second", b"\xff\xfe")).contains("UTF-8"));
}

#[test]
fn of_what_wiki_extractor_writes_the_paragraphs_are_read() {
    let file = b"<doc id=\"1\" url=\"x?curid=1\" title=\"Amber &amp; Beryl\">\nAmber &amp; Beryl\n\nOne &lt;two.\nThree.\n\n</doc>\n\
        <doc id=\"2\" url=\"x?curid=2\" title=\"Empty\">\nEmpty\n\n</doc>\n<doc id=\"3\" url=\"\" title=\"T\">\nNo title.\n</doc>\n";
    let (shown, counts) = read(&[("wiki_00", file)]).unwrap();
    assert_eq!(shown, ["One <two.", "Three.", "¶", "No title.", "¶"]);
    assert_eq!((counts.documents, counts.empty_documents), (2, 1));
    assert!(message(&[("all.txt", file)]).contains("all.txt: requires plain text, by its name, got WikiExtractor's"));
    let (shown, _) = read(&[("wiki_00", b"{\"id\": \"1\", \"text\": \"One.\"}\n")]).unwrap();
    assert_eq!(shown, ["One.", "¶"], "as --json writes it");

    let cut = message(&[("wiki_01", &file[..file.len() - 8])]);
    assert!(cut.contains("wiki_01: requires </doc> after <doc …> on line 12, got the end of the file"), "{cut}");
    assert!(message(&[("wiki_02", b"plain text")]).contains("requires <doc id=…> on line 1, got \"plain text\""));
}
