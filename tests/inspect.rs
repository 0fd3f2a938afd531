//! `lambert inspect` as a person and as a program meets it: examples read back in colour, and the page about the data.

mod common;

use std::fs;

use common::{Workshop, text};

/// Prepares `corpus` as `seen` with every tenth document held out.
fn prepared(corpus: &str) -> Workshop {
    let workshop = Workshop::new();
    fs::write(workshop.path("seen.txt"), corpus).unwrap();
    workshop.succeed(&["prepare", "seen.txt", "--tokenizer", "tokenizer", "--held-out", "0.1", "--out", "seen"]);
    workshop
}

/// Forty documents of their own, and one that comes three times.
fn corpus_with_repeats() -> String {
    // The vocabulary knows no digits: documents differ in their lengths.
    let own =
        (1..=40).map(|i| format!("the cat sees{}. a bird finds{}.\n\n", " the river".repeat(i), " bread".repeat(i)));
    let repeated = "the same river. the same stone.\n\n".repeat(3);
    own.collect::<String>() + &repeated
}

/// The number that stands beside `name` in the page's first table, in the column of the training split.
fn in_overview(page: &str, name: &str) -> String {
    let row =
        page.split("<tr>").find(|row| row.contains(&format!("<td>{name}</td>"))).unwrap_or_else(|| panic!("{name}"));
    row.split("class=\"n\">").nth(1).unwrap().split('<').next().unwrap().to_owned()
}

#[test]
fn the_page_needs_nothing_but_itself_and_counts_what_is_there() {
    let workshop = prepared(&corpus_with_repeats());
    let output = workshop.succeed(&["inspect", "seen", "--seq", "32", "--count", "0", "--report", "page.html"]);
    assert!(text(&output).contains("page.html"), "{}", text(&output));
    let page = fs::read_to_string(workshop.path("page.html")).unwrap();
    for outside in ["http:", "https:", "src=", "<link", "<script", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page.matches("<svg").count(), 12, "six plots for each split");
    assert!(page.matches("<title>").count() > 50, "every mark has a tooltip");

    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(workshop.path("seen/prepared.json")).unwrap()).unwrap();
    let documents = manifest["train"]["documents"].to_string();
    assert_eq!(in_overview(&page, "documents"), documents);
    assert_eq!(in_overview(&page, "tokens").replace(',', ""), manifest["train"]["tokens"].to_string());
    // With this seed all three copies are in the training split: two of them repeat the first.
    assert_eq!(in_overview(&page, "documents that repeat another").split(' ').next(), Some("2"));
    assert!(page.contains(manifest["inputs"][0]["sha256"].as_str().unwrap()));
}

#[test]
fn a_page_is_written_whole_or_not_at_all() {
    let workshop = prepared(&corpus_with_repeats());
    let output = workshop.lambert(&["inspect", "seen", "--report", "nowhere/page.html"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("nowhere/page.html"), "{}", text(&output));
}

#[test]
fn segments_and_masks_have_their_colours_on_a_terminal_and_none_in_a_pipe() {
    let workshop = prepared(&corpus_with_repeats());
    let arguments = ["inspect", "seen", "--seq", "32", "--count", "20"];
    let plain = text(&workshop.succeed(&arguments));
    assert!(plain.contains("[MASK→") && !plain.contains('\u{1b}'));
    let coloured = workshop.command(&arguments).env("CLICOLOR_FORCE", "1").output().unwrap();
    let coloured = text(&coloured);
    for (colour, what) in
        [("31m[MASK→", "hidden"), ("33m[", "another"), ("32m[", "kept"), ("36m", "first"), ("34m", "second")]
    {
        assert!(coloured.contains(&format!("\u{1b}[{colour}")), "{what}");
    }
}
