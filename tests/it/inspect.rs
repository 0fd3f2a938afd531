//! `lambert inspect`: examples in colour, JSON, and the HTML page about the data.

use std::fs;

use crate::common::{Workshop, text};

/// Prepares `corpus` as `seen`, with every tenth document held out.
fn prepared(corpus: &str) -> Workshop {
    let workshop = Workshop::new();
    fs::write(workshop.path("seen.txt"), corpus).unwrap();
    workshop.succeed(&["prepare", "seen.txt", "--tokenizer", "tokenizer", "--held-out", "0.1", "--out", "seen"]);
    workshop
}

/// Forty distinct documents, and one that occurs three times.
fn corpus_with_repeats() -> String {
    // The vocabulary has no digits, so documents differ in their lengths.
    let own =
        (1..=40).map(|i| format!("the cat sees{}. a bird finds{}.\n\n", " the river".repeat(i), " bread".repeat(i)));
    let repeated = "the same river. the same stone.\n\n".repeat(3);
    own.collect::<String>() + &repeated
}

/// Returns the number next to `name` in the page's first table, in the column of the training split.
fn in_overview(page: &str, name: &str) -> String {
    let row =
        page.split("<tr>").find(|row| row.contains(&format!("<td>{name}</td>"))).unwrap_or_else(|| panic!("{name}"));
    row.split("class=\"n\">").nth(1).unwrap().split('<').next().unwrap().to_owned()
}

#[test]
fn the_page_is_self_contained_and_its_counts_are_right() {
    let workshop = prepared(&corpus_with_repeats());
    let output =
        workshop.succeed(&["inspect", "seen", "--sequence-length", "32", "--examples", "0", "--report", "page.html"]);
    assert!(text(&output).contains("page.html"), "{}", text(&output));
    let page = fs::read_to_string(workshop.path("page.html")).unwrap();
    for outside in ["http:", "https:", "src=", "<link", "<script", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page.matches("<svg").count(), 12, "six plots for each split");
    assert!(page.matches("<title>").count() > 50, "every bar has a tooltip");

    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(workshop.path("seen/prepared.json")).unwrap()).unwrap();
    let documents = manifest["train"]["documents"].to_string();
    assert_eq!(in_overview(&page, "documents"), documents);
    assert_eq!(in_overview(&page, "tokens").replace(',', ""), manifest["train"]["tokens"].to_string());
    // With this seed all three copies are in the training split: two of them are repeats.
    assert_eq!(in_overview(&page, "duplicate documents").split(' ').next(), Some("2"));
    assert!(page.contains(manifest["inputs"][0]["sha256"].as_str().unwrap()));
}

#[test]
fn a_page_is_written_atomically() {
    let workshop = prepared(&corpus_with_repeats());
    let output = workshop.lambert(&["inspect", "seen", "--report", "nowhere/page.html"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("nowhere/page.html"), "{}", text(&output));
}

#[test]
fn examples_are_coloured_on_a_terminal_and_plain_in_a_pipe() {
    let workshop = prepared(&corpus_with_repeats());
    let arguments = ["inspect", "seen", "--sequence-length", "32", "--examples", "20"];
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

/// Returns the plot of `page` with this caption, in the section of `split`.
fn plot<'a>(page: &'a str, split: &str, caption: &str) -> &'a str {
    let section = page.split(&format!("<h2>{split}</h2>")).nth(1).unwrap_or_else(|| panic!("{split}"));
    let plot = section.split("<figure>").find(|figure| figure.starts_with(&format!("<figcaption>{caption}")));
    plot.unwrap_or_else(|| panic!("{split}: {caption}"))
}

/// Returns the tooltips of a plot's bars: from, to, and the text after them.
fn tooltips(plot: &str) -> Vec<(u64, u64, String)> {
    let titles = plot.split("<title>").skip(1).map(|rest| rest.split("</title>").next().unwrap());
    let bar = |title: &str| {
        let (range, words) = title.split_once(": ").unwrap();
        let (from, to) = range
            .trim_start_matches("positions ")
            .split_once('–')
            .unwrap_or((range.trim_start_matches("positions "), range.trim_start_matches("positions ")));
        (from.parse().unwrap(), to.parse().unwrap(), words.to_owned())
    };
    titles.map(bar).collect()
}

#[test]
fn bars_cover_whole_positions_at_any_sequence_length() {
    let workshop = prepared(&corpus_with_repeats());
    for seq in [5, 7, 8, 11, 16, 20, 30, 32, 33, 100] {
        let length = seq.to_string();
        let arguments =
            ["inspect", "seen", "--sequence-length", &length, "--examples", "0", "--report", "page.html", "--json"];
        let json: serde_json::Value = serde_json::from_slice(&workshop.succeed(&arguments).stdout).unwrap();
        let page = fs::read_to_string(workshop.path("page.html")).unwrap();
        for (caption, first) in [("Example length in tokens", 1), ("Share of masked tokens by position", 0)] {
            let bars = tooltips(plot(&page, "train", caption));
            let last = seq - 1 + first;
            assert!(bars[0].0 == first && bars[bars.len() - 1].1 == last, "{seq}: {caption}: {bars:?}");
            assert!(bars.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{seq}: {caption}: {bars:?}");
            let widths: Vec<u64> = bars.iter().map(|(from, to, _)| to + 1 - from).collect();
            assert!(widths[..widths.len() - 1].iter().all(|width| *width == widths[0]), "{seq}: {caption}: {bars:?}");
        }
        let shown = json["lengths"]["histogram"].as_array().unwrap();
        let sum: u64 = shown.iter().map(|bar| bar["count"].as_u64().unwrap()).sum();
        assert_eq!(sum, json["lengths"]["examples"].as_u64().unwrap());
        let text = text(&workshop.succeed(&["inspect", "seen", "--sequence-length", &length, "--examples", "0"]));
        let (from, to) = (&shown[0]["from"], &shown[0]["to"]);
        assert!(text.contains(&format!("{:>5}–{:<5}", from.as_u64().unwrap(), to.as_u64().unwrap())), "{text}");
    }
}

#[test]
fn the_page_shows_packing_statistics() {
    let workshop = prepared(&corpus_with_repeats());
    let arguments = [
        "inspect",
        "seen",
        "--sequence-length",
        "64",
        "--examples",
        "1",
        "--sequences-per-row",
        "3",
        "--global-batch",
        "32",
    ];
    let json: serde_json::Value =
        serde_json::from_slice(&workshop.succeed(&[&arguments[..], &["--json"]].concat()).stdout).unwrap();
    let output = text(&workshop.succeed(&[&arguments[..], &["--report", "page.html"]].concat()));
    assert!(output.contains("report: page.html"), "{output}");
    let page = fs::read_to_string(workshop.path("page.html")).unwrap();
    let examples = tooltips(plot(&page, "train", "Examples per packed row (at most 3; 32 examples packed together)"));
    let number = |words: &str| words.split(' ').next().unwrap().replace(',', "").parse::<u64>().unwrap();
    let rows: u64 = examples.iter().map(|(.., words)| number(words)).sum();
    let packed: u64 = examples.iter().map(|(from, _, words)| from * number(words)).sum();
    assert!(packed >= 32 && packed.is_multiple_of(32), "whole batches: {packed}");
    assert!(examples.iter().all(|(from, ..)| (1..=3).contains(from)), "{examples:?}");
    let tokens = tooltips(plot(&page, "train", "Tokens per packed row of 64 positions"));
    assert_eq!(tokens.iter().map(|(.., words)| number(words)).sum::<u64>(), rows);
    let shown: f64 = in_overview(&page, "rows per sequence (packed)").parse().unwrap();
    assert!((shown - rows as f64 / packed as f64).abs() < 1e-3, "{shown}");
    // One batch, packed in the same way in both outputs.
    let padding: f64 = in_overview(&page, "padding with packing").trim_end_matches(" %").parse().unwrap();
    let unpacked: f64 = in_overview(&page, "padding without packing").trim_end_matches(" %").parse().unwrap();
    assert!(padding < unpacked, "{padding} % of {unpacked} %");
    if packed == 32 {
        assert!((100.0 - padding - 100.0 * json["fill"].as_f64().unwrap()).abs() < 0.01, "{padding}");
    }
    // Without --sequences-per-row, the page has no packing statistics.
    workshop.succeed(&["inspect", "seen", "--sequence-length", "64", "--examples", "0", "--report", "page.html"]);
    assert!(!fs::read_to_string(workshop.path("page.html")).unwrap().contains("padding of packed"));
}
