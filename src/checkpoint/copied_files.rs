//! The files that a checkpoint copies byte for byte from a run, a tokenizer or a sentence-transformers directory. Their names are
//! known, so that a manifest leads to no other file and only directories of known files are removed.

use std::fs;
use std::io;
use std::path::Path;

use super::CheckpointError;
use crate::files;

/// The copy of the run file in a checkpoint.
pub const RUN_FILE: &str = "run.toml";

/// The model's configuration.
const CONFIG_FILE: &str = "config.json";

/// The files of a tokenizer, of any kind.
pub const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
];

/// The list of modules, which makes a directory one of sentence-transformers.
const MODULES: &str = "modules.json";

/// The files of a sentence-transformers directory beside those of its encoder and tokenizer.
const SENTENCE_TRANSFORMERS: [&str; 3] = [MODULES, "sentence_bert_config.json", "config_sentence_transformers.json"];

/// The files in the folder of a module, such as `1_Pooling` or `2_Dense`.
const OF_A_MODULE: [&str; 3] = [CONFIG_FILE, "model.safetensors", "pytorch_model.bin"];

/// The folder of an export with a model for ONNX runtimes.
const ONNX_FOLDER: &str = "onnx";

/// Returns whether a checkpoint may hold a copied file of this name.
pub fn is_copied_file(name: &str) -> bool {
    [RUN_FILE, CONFIG_FILE].contains(&name) || TOKENIZER_FILES.contains(&name) || is_sentence_transformers_file(name)
}

/// Returns whether a file of this name makes an encoder a model of sentence-transformers: the list of modules, settings, or a file
/// of a module such as `1_Pooling/config.json`.
pub fn is_sentence_transformers_file(name: &str) -> bool {
    match name.split_once('/') {
        Some((folder, file)) => is_module_folder(folder) && OF_A_MODULE.contains(&file),
        None => SENTENCE_TRANSFORMERS.contains(&name),
    }
}

/// Returns whether sentence-transformers saves a module in a folder of this name: a number and a class, as in `1_Pooling`.
fn is_module_folder(name: &str) -> bool {
    let is_made_of = |part: &str, of: fn(&u8) -> bool| !part.is_empty() && part.bytes().all(|byte| of(&byte));
    name.split_once('_').is_some_and(|(number, class)| {
        is_made_of(number, u8::is_ascii_digit) && is_made_of(class, u8::is_ascii_alphanumeric)
    })
}

/// Reads the files of sentence-transformers in `directory`, sorted by name; none if it has no list of modules.
///
/// # Errors
/// If the directory or a file cannot be read.
pub(super) fn read_sentence_transformers(directory: &Path) -> Result<Vec<(String, Vec<u8>)>, CheckpointError> {
    if !directory.join(MODULES).exists() {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> = SENTENCE_TRANSFORMERS.map(str::to_owned).to_vec();
    for entry in fs::read_dir(directory).map_err(CheckpointError::io("list", directory))? {
        let folder = entry.map_err(CheckpointError::io("list", directory))?.file_name();
        let folder = folder.to_str().filter(|folder| is_module_folder(folder)).into_iter();
        names.extend(folder.flat_map(|folder| OF_A_MODULE.map(|file| format!("{folder}/{file}"))));
    }
    names.sort_unstable();
    let present = names.into_iter().map(|name| (directory.join(&name), name)).filter(|(path, _)| path.exists());
    present.map(|(path, name)| Ok((name, files::read(&path).map_err(CheckpointError::io("read", &path))?))).collect()
}

/// Creates the folder of the file `name` in `directory`, if it belongs into one.
///
/// # Errors
/// If the folder cannot be created.
pub(super) fn create_folder_of(name: &str, directory: &Path) -> Result<(), CheckpointError> {
    let Some((folder, _)) = name.split_once('/') else { return Ok(()) };
    let folder = directory.join(folder);
    fs::create_dir_all(&folder).map_err(CheckpointError::io("create", &folder))
}

/// The files of a directory, and its folders: those of modules, and that of an ONNX model.
pub(super) struct Listing {
    /// The names of the files; those in a folder have its name before them, as in `1_Pooling/config.json`.
    pub files: Vec<String>,
    /// The names of the folders.
    pub folders: Vec<String>,
}

impl Listing {
    /// Lists `directory`; returns none if it is no directory (a link is none), or holds anything but files and such folders
    /// with files.
    pub fn of(directory: &Path) -> io::Result<Option<Listing>> {
        let mut listing = Listing { files: Vec::new(), folders: Vec::new() };
        let complete = fs::symlink_metadata(directory)?.is_dir() && listing.add(directory, "")?;
        Ok(complete.then_some(listing))
    }

    /// Adds the content of `directory` with `prefix` before the names; returns whether that is all of it.
    fn add(&mut self, directory: &Path, prefix: &str) -> io::Result<bool> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let (kind, name) = (entry.file_type()?, entry.file_name());
            let Some(name) = name.to_str() else { return Ok(false) };
            if kind.is_file() {
                self.files.push(format!("{prefix}{name}"));
            } else if kind.is_dir() && prefix.is_empty() && (is_module_folder(name) || name == ONNX_FOLDER) {
                self.folders.push(name.to_owned());
                if !self.add(&entry.path(), &format!("{name}/"))? {
                    return Ok(false);
                }
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the files and folders from `directory`, then the directory itself.
    pub fn remove(&self, directory: &Path) -> io::Result<()> {
        self.files.iter().try_for_each(|name| fs::remove_file(directory.join(name)))?;
        self.folders.iter().try_for_each(|name| fs::remove_dir(directory.join(name)))?;
        fs::remove_dir(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_lead_to_copied_files() {
        for name in ["vocab.txt", "modules.json", "1_Pooling/config.json", "12_Dense/model.safetensors"] {
            assert!(is_copied_file(name), "{name}");
        }
        for name in [
            "",
            "/",
            "notes.txt",
            "../run.toml",
            "1_Pooling",
            "1_Pooling/",
            "/1_Pooling/config.json",
            "1_Pooling/../run.toml",
            "1_Pooling/a/config.json",
            "1_Pooling//config.json",
            "1_Pooling\\config.json",
            "1_..//config.json",
            "1_../config.json",
            "_Pooling/config.json",
            "1_/config.json",
            "Pooling/config.json",
            "1_Pooling/state.json",
            "1_Pooling/notes.txt",
            "model.safetensors",
            "state.json",
        ] {
            assert!(!is_copied_file(name), "{name}");
        }
    }

    #[test]
    fn a_directory_with_anything_else_is_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join("step").join(name);
        fs::create_dir_all(path("1_Pooling")).unwrap();
        fs::write(path("1_Pooling/config.json"), "{}").unwrap();
        fs::write(path("modules.json"), "[]").unwrap();
        let step = folder.path().join("step");
        for other in ["2_Normalize/deep", "images"] {
            fs::create_dir_all(path(other)).unwrap();
            assert!(Listing::of(&step).unwrap().is_none(), "{other}");
            fs::remove_dir(path(other)).unwrap();
        }
        let mut listing = Listing::of(&step).unwrap().unwrap();
        listing.files.sort();
        assert_eq!(listing.files, ["1_Pooling/config.json", "modules.json"]);
        listing.remove(&step).unwrap();
        assert!(!step.exists());
    }
}
