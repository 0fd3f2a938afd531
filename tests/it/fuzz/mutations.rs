//! Mutations of valid files. Most inputs differ in one to three places, and half of them keep the structure of their format, so that
//! many are still accepted: readers are also tested behind their first checks.

use std::io::{Cursor, Read, Write};

use lambert::rng::Stream;
use serde_json::Value;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::{STRING_ENCODINGS, parquet_file};

/// The largest input.
const LARGEST: usize = 1 << 18;

/// Words that are put into inputs: limits of numbers, and the syntax of the formats.
const WORDS: [&str; 36] = [
    "0",
    "-1",
    "1e999",
    "1e-60",
    "NaN",
    "18446744073709551615",
    "9223372036854775808",
    "4294967295",
    "null",
    "true",
    "{",
    "}",
    "[[",
    "]]",
    "{{",
    "}}",
    "{|",
    "|}",
    "|",
    "==",
    "'''",
    "<ref>",
    "</ref>",
    "<nowiki>",
    "&#x110000;",
    "\"",
    "\\ud800",
    "\n",
    "\u{feff}",
    "##",
    "[MASK]",
    "../",
    "data_offsets",
    "{{convert|5|ft|11|in}}",
    "\u{300}",
    "\u{10ffff}",
];

/// The structure that mutations keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// Text without any.
    Text,
    /// Lines, as of TOML and of lists.
    Lines,
    /// A JSON value.
    Json,
    /// A JSON value in each line.
    JsonLines,
    /// Elements with text between them.
    Xml,
    /// The length of a JSON header, the header, and tensors.
    Tensors,
    /// A zip archive.
    Zip,
    /// A Parquet file with a column `text`.
    Parquet,
}

/// Returns the structure of the files of a target.
pub fn structure_of(target: &str) -> Structure {
    match target {
        "safetensors" | "shard" => Structure::Tensors,
        "tokenizer_json" | "manifest" => Structure::Json,
        "jsonl" => Structure::JsonLines,
        "vocab_txt" | "run_file" => Structure::Lines,
        "wikimedia_dump" => Structure::Xml,
        "wheel" => Structure::Zip,
        "parquet" => Structure::Parquet,
        _ => Structure::Text,
    }
}

/// Returns one of the seeds with a few changes: half of the results have one, a quarter two, and so on.
pub fn mutated(structure: Structure, seeds: &[Vec<u8>], draw: &mut Stream) -> Vec<u8> {
    let mut data = seeds[below(draw, seeds.len())].clone();
    let is_structured = draw.below(2) == 0;
    for _ in 0..=draw.next_u64().trailing_zeros().min(7) {
        let changed = if is_structured { with_structure(structure, &data, draw) } else { None };
        data = changed.unwrap_or_else(|| with_bytes(data, seeds, draw));
    }
    data.truncate(LARGEST);
    data
}

fn below(draw: &mut Stream, n: usize) -> usize {
    draw.below(n.max(1) as u64) as usize
}

fn word(draw: &mut Stream) -> &'static str {
    WORDS[below(draw, WORDS.len())]
}

/// Changes bytes at a place.
fn with_bytes(mut data: Vec<u8>, seeds: &[Vec<u8>], draw: &mut Stream) -> Vec<u8> {
    let at = below(draw, data.len() + 1);
    let most = 1 << draw.below(9);
    let end = (at + below(draw, most)).min(data.len());
    match draw.below(9) {
        0 if at < data.len() => data[at] ^= 1 << draw.below(8),
        1 if at < data.len() => data[at] = draw.next_u64() as u8,
        2 => drop(data.drain(at..end)),
        3 => data.truncate(at),
        4 => drop(data.splice(at..at, data[at..end].repeat(1 + below(draw, 20)))),
        5 => drop(data.splice(at..end, word(draw).bytes())),
        6 => drop(data.splice(at..at, word(draw).repeat(1 + below(draw, 300)).into_bytes())),
        7 => replace_number(&mut data, at, draw),
        _ => {
            let other = &seeds[below(draw, seeds.len())];
            let from = below(draw, other.len());
            let part = other[from..(from + below(draw, 200)).min(other.len())].to_vec();
            drop(data.splice(at..end, part));
        }
    }
    data
}

/// Replaces the first decimal number from `at` on by another one.
fn replace_number(data: &mut Vec<u8>, at: usize, draw: &mut Stream) {
    let Some(start) = (at..data.len()).find(|&i| data[i].is_ascii_digit()) else { return };
    let end = (start..data.len()).find(|&i| !data[i].is_ascii_digit()).unwrap_or(data.len());
    let old = std::str::from_utf8(&data[start..end]).ok().and_then(|digits| digits.parse().ok());
    drop(data.splice(start..end, number(old.unwrap_or(0), draw).into_bytes()));
}

/// Returns a number near `old`, any other one, or a limit.
fn number(old: u64, draw: &mut Stream) -> String {
    match draw.below(8) {
        0 | 1 => old.wrapping_add(1).to_string(),
        2 => old.saturating_sub(1).to_string(),
        3 => (old / 2).to_string(),
        4 => old.wrapping_mul(2).to_string(),
        5 => draw.below(100).to_string(),
        6 => (draw.next_u64() >> draw.below(64)).to_string(),
        _ => WORDS[draw.below(8) as usize].to_owned(),
    }
}

/// Returns `data` with a change that keeps its structure; none if it has none any more.
fn with_structure(structure: Structure, data: &[u8], draw: &mut Stream) -> Option<Vec<u8>> {
    match structure {
        Structure::Text => None,
        Structure::Lines => Some(with_lines(std::str::from_utf8(data).ok()?, draw).into_bytes()),
        Structure::Json => {
            let mut value = serde_json::from_slice(data).ok()?;
            change_json(&mut value, draw);
            Some(serde_json::to_vec_pretty(&value).expect("a value of JSON"))
        }
        Structure::JsonLines => {
            let mut lines: Vec<String> = std::str::from_utf8(data).ok()?.lines().map(str::to_owned).collect();
            let at = below(draw, lines.len());
            let line = lines.get_mut(at)?;
            let mut value = serde_json::from_str(line).ok()?;
            change_json(&mut value, draw);
            *line = value.to_string();
            Some((lines.join("\n") + "\n").into_bytes())
        }
        Structure::Xml => Some(with_text_of_element(std::str::from_utf8(data).ok()?, draw)?.into_bytes()),
        Structure::Tensors => with_tensors(data, draw),
        Structure::Zip => with_entries(data, draw),
        Structure::Parquet => {
            let encoding = STRING_ENCODINGS[below(draw, STRING_ENCODINGS.len())];
            Some(parquet_file(draw.below(2) == 0, encoding, &values(draw)))
        }
    }
}

/// Removes, repeats, exchanges or adds lines, or changes a number in one.
fn with_lines(text: &str, draw: &mut Stream) -> String {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let (at, other) = (below(draw, lines.len()), below(draw, lines.len()));
    match draw.below(6) {
        _ if lines.is_empty() => {}
        0 => drop(lines.remove(at)),
        1 => lines.insert(other, lines[at].clone()),
        2 => lines.swap(at, other),
        3 => lines.insert(at, format!("{}{}\n", word(draw), draw.below(1000))),
        _ => {
            let mut line = std::mem::take(&mut lines[at]).into_bytes();
            replace_number(&mut line, 0, draw);
            lines[at] = String::from_utf8(line).expect("digits are replaced by text");
        }
    }
    lines.concat()
}

/// Changes a value below `node`, or the elements or keys of `node`.
fn change_json(node: &mut Value, draw: &mut Stream) {
    let descends = draw.below(4) > 0;
    match node {
        Value::Array(items) if descends && !items.is_empty() => {
            let at = below(draw, items.len());
            change_json(&mut items[at], draw);
        }
        Value::Object(entries) if descends && !entries.is_empty() => {
            let at = below(draw, entries.len());
            let (_, value) = entries.iter_mut().nth(at).expect("it is one of the entries");
            change_json(value, draw);
        }
        Value::Array(items) => {
            let (at, other) = (below(draw, items.len()), below(draw, items.len()));
            match draw.below(3) {
                _ if items.is_empty() => items.push(0.into()),
                0 => drop(items.remove(at)),
                1 => items.insert(other, items[at].clone()),
                _ => items.swap(at, other),
            }
        }
        Value::Object(entries) => {
            let key = entries.keys().nth(below(draw, entries.len())).cloned().unwrap_or_default();
            let value = match draw.below(3) {
                0 => entries.get(&key).cloned(),
                _ => entries.remove(&key),
            };
            if draw.below(2) == 0 {
                entries.insert(format!("{key}{}", word(draw)), value.unwrap_or(Value::Null));
            }
        }
        Value::Number(old) => {
            let old = old.as_u64().unwrap_or(0);
            *node = serde_json::from_str(&number(old, draw)).unwrap_or(Value::Null);
        }
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            // A JSON text in a string, such as the metadata of a shard.
            Ok(mut inner) if inner.is_object() => {
                change_json(&mut inner, draw);
                *text = inner.to_string();
            }
            _ => change_text(text, draw),
        },
        Value::Bool(value) => *value = !*value,
        Value::Null => *node = word(draw).into(),
    }
}

/// Inserts a word, removes a character, or empties a text.
fn change_text(text: &mut String, draw: &mut Stream) {
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let at = places.get(below(draw, places.len())).copied();
    match (draw.below(4), at) {
        (0, _) => text.clear(),
        (1, Some(at)) => drop(text.remove(at)),
        (_, at) => text.insert_str(at.unwrap_or(0), word(draw)),
    }
}

/// Changes a text between two elements of XML, or repeats one from `<page>` to `</page>`.
fn with_text_of_element(xml: &str, draw: &mut Stream) -> Option<String> {
    if draw.below(4) == 0 {
        let (start, end) = (xml.find("<page>")?, xml.find("</page>")? + "</page>".len());
        let page = xml.get(start..end)?.repeat(1 + below(draw, 20));
        return Some(format!("{}{page}{}", &xml[..start], &xml[end..]));
    }
    let ends: Vec<usize> = xml.match_indices('>').map(|(at, _)| at + 1).collect();
    let start = *ends.get(below(draw, ends.len()))?;
    let end = start + xml[start..].find('<')?;
    let mut text = xml[start..end].to_owned();
    change_text(&mut text, draw);
    let text = text.replace('<', "&lt;");
    Some(format!("{}{text}{}", &xml[..start], &xml[end..]))
}

/// Changes an element of a tensor, the header, or the end of the file.
fn with_tensors(data: &[u8], draw: &mut Stream) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(data.get(..8)?.try_into().ok()?) as usize;
    let header = data.get(8..)?.get(..length)?;
    let mut header: Value = serde_json::from_slice(header).ok()?;
    let mut tensors = data[8 + length..].to_vec();
    match draw.below(8) {
        0..5 if !tensors.is_empty() => change_element(&header, &mut tensors, draw)?,
        5 => tensors.truncate(below(draw, tensors.len())),
        _ => change_json(&mut header, draw),
    }
    let mut text = header.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    Some([&(text.len() as u64).to_le_bytes()[..], &text, &tensors].concat())
}

/// Replaces an element of a tensor by another element of it, or by one that is larger by 1.
fn change_element(header: &Value, tensors: &mut [u8], draw: &mut Stream) -> Option<()> {
    let infos: Vec<&Value> = header.as_object()?.values().filter(|info| info["data_offsets"].is_array()).collect();
    let info = infos.get(below(draw, infos.len()))?;
    let offset = |at: usize| Some(info["data_offsets"][at].as_u64()? as usize);
    let tensor = tensors.get_mut(offset(0)?..offset(1)?)?;
    let sizes = info["shape"].as_array()?.iter().map(|size| size.as_u64().unwrap_or(0) as usize);
    let count = sizes.fold(1, usize::saturating_mul);
    let size = tensor.len().checked_div(count)?;
    let (to, from) = (below(draw, count) * size, below(draw, count) * size);
    tensor.copy_within(from..from + size, to);
    if draw.below(4) == 0 {
        *tensor.get_mut(to)? = tensor.get(to)?.wrapping_add(1);
    }
    Some(())
}

/// Changes the name or the content of a file in a zip archive, removes it or repeats it.
fn with_entries(data: &[u8], draw: &mut Stream) -> Option<Vec<u8>> {
    let mut archive = ZipArchive::new(Cursor::new(data)).ok()?;
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).ok()?;
        let mut content = Vec::new();
        file.by_ref().take(LARGEST as u64).read_to_end(&mut content).ok()?;
        files.push((file.name().ok()?.into_owned(), content));
    }
    let at = below(draw, files.len());
    let (name, content) = files.get_mut(at)?;
    match draw.below(6) {
        0 => change_text(name, draw),
        1 => name.insert_str(0, ["../", "/", "a/", "a//b/"][below(draw, 4)]),
        2 => drop(files.remove(at)),
        3 => {
            let copy = (format!("{name}.{}", word(draw)), content.clone());
            files.push(copy);
        }
        _ => *content = with_bytes(std::mem::take(content), &[name.clone().into_bytes()], draw),
    }
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(name, SimpleFileOptions::default()).ok()?;
        zip.write_all(&content).ok()?;
    }
    Some(zip.finish().ok()?.into_inner())
}

/// Returns texts and missing values for a column.
fn values(draw: &mut Stream) -> Vec<Option<String>> {
    let mut value = || {
        let text: String = (0..draw.below(6)).map(|_| format!("{} ", word(draw))).collect();
        (draw.below(5) > 0).then_some(text)
    };
    let count = 1 + (value().map_or(0, |text| text.len()) % 40);
    (0..count).map(|_| value()).collect()
}
