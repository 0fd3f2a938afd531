//! JSONL: required fields, counters, and the errors of invalid records.

use crate::data::corpus::tests::*;

#[test]
fn records_are_documents_and_invalid_ones_are_located() {
    let good = b"{\"text\": \"One.\\n\\nTwo.\", \"n\": 1}\n\n{\"text\": \"Three.\"}";
    assert_eq!(read(&[("a.jsonl", good)]).unwrap().0, ["One.", "Two.", "¶", "Three.", "¶"]);
    for bad in [&b"{\"text\": \"\"}\n{\"body\": \"x\"}"[..], b"\n{\"text\": 3}", b"\n[]", b"\n{\"text\": \"x"] {
        let message = read(&[("a.jsonl", bad)]).unwrap_err().to_string();
        assert!(message.contains("a.jsonl") && message.contains("on line 2"), "{message}");
    }
}

#[test]
fn records_without_text_are_counted_and_skipped_on_request() {
    let records = b"{\"text\": \" \"}\n{\"body\": 1}\n{\"text\": null}\n{\"text\": \"x\"}";
    let options = ReadOptions { missing_text: Tolerance::Count, ..ReadOptions::default() };
    let (shown, counts) = read_with(&options, &[("a.jsonl", records)]).unwrap();
    assert_eq!(shown, ["x", "¶"]);
    assert_eq!((counts.documents, counts.empty_documents, counts.without_text), (1, 1, 2));
    let wrong = read_with(&options, &[("a.jsonl", b"{\"text\": 3}")]).unwrap_err().to_string();
    assert!(wrong.contains("got integer `3` at column"), "{wrong}");
}

#[test]
fn an_invalid_record_is_reported_with_its_line_and_column() {
    let deep = format!("{{\"text\": {}", "[".repeat(100_000));
    for (record, found) in [
        ("{\"text\": 3}", "integer `3` at column "),
        ("{\"text\": [\"x\"]}", "a list"),
        ("{\"text\": {\"a\": 1}}", "an object"),
        ("{\"text\": true}", "boolean `true` at column "),
        ("{\"text\": null}", "null for \"text\""),
        ("{\"meta\": {\"text\": \"x\"}, \"id\": 1}", "the keys [\"meta\", \"id\"]"),
        ("{\"text\": \"x\", \"te\\u0078t\": \"y\"}", "\"text\" twice at column"),
        ("[\"text\"]", "a list"),
        ("\"text\"", "string \"text\" at column "),
        ("{\"text\": \"x\"} {\"text\": \"y\"}", "trailing characters at column "),
        ("{\"text\": \"x\"},", "trailing characters at column "),
        ("{\"text\": \"x", "EOF while parsing a string at column"),
        ("{", "EOF while parsing an object at column"),
        ("{\"a\": NaN, \"text\": \"x\"}", "NaN at column 7, which is not JSON (write null in its place); "),
        ("{\"text\": \"x\", \"a\": [1, Infinity]}", "Infinity at column "),
        ("{\"text\": \"x\", \"a\": -Infinity}", "-Infinity at column "),
        ("{\"text\": NaN}", "NaN at column "),
        ("{\"a\": nan, \"text\": \"x\"}", "expected ident at column "),
        ("x", "expected value at column "),
        (&deep, "a list"),
    ] {
        let message = message(&[("a.jsonl", format!("{{\"text\": \"One.\"}}\n{record}\n").as_bytes())]);
        let sentence = format!("a.jsonl: requires a JSON object with a string \"text\" on line 2, got {found}");
        assert!(message.contains(&sentence) && !message.contains("line 1"), "{message}");
    }
}

#[test]
fn other_fields_need_only_be_json() {
    let deep = format!("{}1{}", "[{\"a\": ".repeat(50_000), "}]".repeat(50_000));
    for other in ["1e999", "-123456789012345678901234567890", "\"\\ud800\"", "null", "{\"text\": 3}", &deep] {
        for record in
            [format!("{{\"x\": {other}, \"text\": \"One.\"}}"), format!("{{\"text\": \"One.\", \"x\": {other}}}")]
        {
            let (shown, counts) = read(&[("a.jsonl", record.as_bytes())]).unwrap();
            assert_eq!((shown.concat().as_str(), counts.replaced_bytes), ("One.¶", 0));
        }
    }
    let (shown, _) = read(&[("a.jsonl", b"{\"text\": \"a\tb\"}")]).unwrap();
    assert_eq!(shown, ["a\tb", "¶"], "a control character that JSON would have escaped");
    let (shown, _) = read(&[("a.jsonl", b"{\"\\ud800\": 1, \"x\": 1, \"x\": 2, \"t\\u0065xt\": \"One.\"}")]).unwrap();
    assert_eq!(shown, ["One.", "¶"]);
}

#[test]
fn a_lone_surrogate_is_invalid_utf8() {
    let records = b"{\"text\": \"One.\"}\n{\"text\": \"two\\ud83d\\ude00 \\ud800 \\udc00x\"}";
    let (shown, counts) = read(&[("a.jsonl", records)]).unwrap();
    let text = shown[2].replace('\u{fffd}', "");
    assert_eq!((text.as_str(), counts.replaced_bytes, counts.documents), ("two\u{1f600}  x", 6, 2));
    let options = ReadOptions { invalid_utf8: Tolerance::Refuse, ..ReadOptions::default() };
    let message = read_with(&options, &[("a.jsonl", records)]).unwrap_err().to_string();
    assert!(message.contains("in line 2, where a surrogate (\\ud800 …) stands alone; "), "{message}");
}

#[test]
fn byte_order_marks_line_ends_and_empty_lines_are_not_part_of_a_record() {
    let joined =
        "\u{feff}{\"text\": \"One.\"}\r\n\r\n \t\n\u{feff}{\"text\": \"Two.\"}\n\u{feff}\n  {\"text\": \"Three.\"} ";
    let (shown, counts) = read(&[("a.jsonl", joined.as_bytes())]).unwrap();
    assert_eq!((shown.concat().as_str(), counts.documents), ("One.¶Two.¶Three.¶", 3));
}
