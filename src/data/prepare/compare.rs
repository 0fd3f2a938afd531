//! Compares existing prepared data with a request: options, inputs and files.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use crate::data::corpus::{Input, InputEntry, Source};
use crate::data::files::TOKENIZER_DIRECTORY;
use crate::data::store::manifest::{Manifest, PrepareOptions};

/// Returns the options that differ, as (requested, existing).
pub(super) fn differing_settings(requested: &PrepareOptions, existing: &PrepareOptions) -> Option<(String, String)> {
    let flat = |options: &PrepareOptions| {
        let mut settings = serde_json::json!(options);
        let reading = settings["reading"].take();
        let of = |value: serde_json::Value| value.as_object().cloned().unwrap_or_default();
        of(settings).into_iter().chain(of(reading)).collect::<BTreeMap<String, serde_json::Value>>()
    };
    let (requested, existing) = (flat(requested), flat(existing));
    let differing = || requested.keys().filter(|key| requested.get(*key) != existing.get(*key));
    let shown = |settings: &BTreeMap<String, serde_json::Value>| {
        differing().map(|key| format!("{key}: {}", settings[key])).collect::<Vec<_>>().join(", ")
    };
    differing().next().map(|_| (shown(&requested), shown(&existing)))
}

/// Returns the differences between the inputs in name, order or weight, as (requested, existing).
pub(super) fn differing_inputs(requested: &[Input], existing: &[InputEntry]) -> Option<(String, String)> {
    let named = |name: String, source: &Source| match *source == Source::default() {
        true => name,
        false => format!("{}:{}={name}", source.name, source.weight),
    };
    let requested: Vec<String> = requested.iter().map(|input| named(input.name(), &input.source)).collect();
    let existing: Vec<String> = existing.iter().map(|entry| named(entry.name.clone(), &entry.source)).collect();
    if requested == existing {
        return None;
    }
    let first_foreign = |these: &[String], those: &[String]| {
        let those: HashSet<&String> = those.iter().collect();
        these.iter().find(|name| !those.contains(name)).cloned()
    };
    let numbers = (format!("the {} requested inputs", requested.len()), format!("from {}", existing.len()));
    Some(match (first_foreign(&requested, &existing), first_foreign(&existing, &requested)) {
        (Some(new), _) => (format!("{}, with {new}", numbers.0), format!("{} without it", numbers.1)),
        (None, Some(old)) => (numbers.0, format!("{}, with {old}", numbers.1)),
        (None, None) => (format!("{} in their order", numbers.0), "from the same inputs in another order".into()),
    })
}

/// Returns the first shard of the wrong size, or missing file of the tokenizer, as (required, found).
pub(super) fn files_differ(manifest: &Manifest, directory: &Path) -> Option<(String, String)> {
    let shard = manifest.shards.iter().find_map(|shard| {
        let size = fs::metadata(directory.join(&shard.file)).map(|metadata| metadata.len()).ok();
        let found = size.map_or("without it".into(), |size| format!("with {size} bytes of it"));
        (size != Some(shard.bytes)).then(|| (format!("{} of {} bytes", shard.file, shard.bytes), found))
    });
    let tokenizer = || {
        let rules = manifest.rules();
        let mut names = rules.file_names().iter().map(|name| Path::new(TOKENIZER_DIRECTORY).join(name));
        let gone = names.find(|name| !directory.join(name).is_file())?;
        Some((gone.display().to_string(), "without it".into()))
    };
    shard.or_else(tokenizer)
}
