//! Reading of every input format: the text, the counters and the rejected content.

mod compressed;
mod jsonl_files;
mod named;
mod parquet_files;
mod wikis;

use crate::data::corpus::*;

/// Returns the text read, with `
/// ` for the end of a document; batches are joined.
fn read_with(options: &ReadOptions, files: &[(&str, &[u8])]) -> Result<(Vec<String>, ReadCounts)> {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let inputs = find_inputs(&[directory.path().to_owned()])?.inputs;
    let (mut shown, mut counts) = (Vec::new(), ReadCounts::default());
    read_text(&inputs, options, &|_| (), &mut |batch| {
        for piece in &batch.events {
            shown.push(match piece {
                TextEvent::Line(range) => batch.text[range.clone()].to_owned(),
                TextEvent::DocumentEnd => "¶".into(),
            });
        }
        counts += batch.counts;
        true
    })?;
    Ok((shown, counts))
}

fn read(files: &[(&str, &[u8])]) -> Result<(Vec<String>, ReadCounts)> {
    read_with(&ReadOptions::default(), files)
}

fn read_as(sentences: SentenceMode, files: &[(&str, &[u8])]) -> Result<(Vec<String>, ReadCounts)> {
    read_with(&ReadOptions { sentences, ..ReadOptions::default() }, files)
}

fn message(files: &[(&str, &[u8])]) -> String {
    read(files).unwrap_err().to_string()
}

#[test]
fn empty_lines_and_files_end_documents() {
    let (shown, ..) = read(&[("a.txt", b"\xef\xbb\xbfOne.\r\nTwo.\r\n \r\nThree."), ("b.txt", b"Four.\n")]).unwrap();
    assert_eq!(shown, ["One.", "Two.", "¶", "Three.", "¶", "Four.", "¶"]);
}

#[test]
fn wrapped_lines_are_joined_and_two_empty_lines_end_a_document() {
    let book =
        b"It was the best\nof times, it was\nthe worst.\n\nA new paragraph\r\n  goes on.  \n \n\n\n\nAnother\nbook.";
    let (shown, ..) = read_as(SentenceMode::Wrapped, &[("a.txt", book), ("b.txt", b"\n\n\nThe end")]).unwrap();
    let shown: Vec<String> = shown.iter().map(|s| s.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "It was the best of times, it was the worst.",
        "A new paragraph goes on.",
        "¶",
        "Another book.",
        "¶",
        "The end",
        "¶",
    ];
    assert_eq!(shown, expected);
    let records = b"{\"text\": \"One\\ntwo.\\n\\n\\nThree\\nfour.\"}\n{\"text\": \"Five.\"}";
    let (shown, ..) = read_as(SentenceMode::Wrapped, &[("a.jsonl", records)]).unwrap();
    assert_eq!(shown, ["One two.", "Three four.", "¶", "Five.", "¶"]);
}

#[test]
fn a_paragraph_longer_than_two_batches_is_split_without_loss() {
    let text = "some words of it\n".repeat(300_000);
    let (shown, counts) = read_as(SentenceMode::Wrapped, &[("a.txt", text.as_bytes())]).unwrap();
    assert_eq!((counts.overlong_lines, shown.len()), (2, 4), "three paragraphs and the end of the document");
    assert_eq!(shown.iter().flat_map(|piece| piece.split_whitespace()).filter(|w| *w == "words").count(), 300_000);
    // A shorter paragraph stays whole, although it crosses the end of a batch.
    let text = "some words of it\n".repeat(100_000) + "\nNext.";
    let (shown, counts) = read_as(SentenceMode::Wrapped, &[("a.txt", text.as_bytes())]).unwrap();
    assert_eq!((counts.overlong_lines, shown.len(), shown[1].as_str()), (0, 3, "Next."));
}

#[test]
fn invalid_utf8_is_counted_and_replaced() {
    let (shown, counts) = read(&[("a.txt", b"caf\xe9 \xff\xfe end")]).unwrap();
    assert_eq!((shown[0].as_str(), counts.replaced_bytes), ("caf\u{fffd} \u{fffd}\u{fffd} end", 3));
    let (shown, counts) = read(&[("a.jsonl", b"{\"text\": \"caf\xe9\"}")]).unwrap();
    assert_eq!((shown[0].as_str(), counts.replaced_bytes), ("caf\u{fffd}", 1));
}

#[test]
fn a_huge_line_is_split_between_words_and_stays_one_document() {
    let text = "wörd ".repeat(500_000);
    let (shown, counts) = read(&[("a.txt", text.as_bytes())]).unwrap();
    assert_eq!((counts.replaced_bytes, counts.overlong_lines, shown.last().unwrap().as_str()), (0, 1, "¶"));
    assert_eq!(shown.iter().filter(|s| *s == "¶").count(), 1);
    assert!(shown.iter().all(|line| line.len() <= LONGEST_LINE));
    let words: usize = shown.iter().map(|line| line.split(' ').filter(|w| *w == "wörd").count()).sum();
    assert_eq!(words, 500_000);
    // Without white space, the line is split between characters.
    let (shown, counts) = read(&[("a.txt", "é".repeat(900_000).as_bytes())]).unwrap();
    assert_eq!((counts.replaced_bytes, shown.concat().chars().filter(|&c| c == 'é').count()), (0, 900_000));
}

#[test]
fn invalid_utf8_is_rejected_on_request() {
    let options = ReadOptions { invalid_utf8: Tolerance::Refuse, ..ReadOptions::default() };
    for (name, bytes) in
        [("a.txt", &b"fine\n\ncaf\xe9 au"[..]), ("a.jsonl", b"{\"text\": \"x\"}\n\n{\"text\": \"caf\xe9\"}")]
    {
        let message = read_with(&options, &[(name, bytes)]).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("[e9]") && message.contains("line 3"), "{message}");
    }
}

#[test]
fn utf16_is_rejected_even_if_invalid_bytes_are_counted() {
    for mark in [b"\xff\xfe", b"\xfe\xff"] {
        let text = [mark.as_slice(), b"a\0b\0\n\0"].concat();
        for name in ["a.txt", "a.jsonl", "a.xml"] {
            let message = message(&[(name, &text)]);
            assert!(message.contains("requires text, got UTF-16 instead of UTF-8; convert it first"), "{message}");
        }
    }
}

#[test]
fn nul_characters_are_removed_and_counted() {
    let (shown, counts) =
        read(&[("a.txt", b"One\0 two\0\0.\n\0\nThree."), ("b.jsonl", br#"{"text": "F\u0000our"}"#)]).unwrap();
    assert_eq!(shown, ["One two.", "Three.", "¶", "Four", "¶"]);
    assert_eq!(counts.nul_bytes, 5);
}

#[test]
fn a_sink_can_stop_the_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt");
    std::fs::write(&path, "some words\n\n".repeat(300_000)).unwrap();
    let input = &find_inputs(&[path]).unwrap().inputs[0];
    let mut batches = 0;
    let all = input.read(&ReadOptions::default(), &|_| (), &mut |_| {
        batches += 1;
        batches < 2
    });
    assert_eq!((all.unwrap(), batches), (false, 2));
}
