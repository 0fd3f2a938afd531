//! Reads run files: applies overrides to the TOML, parses it into typed tables, and reports each error with the file, line,
//! table and key. `config.rs` checks the values.

use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;

use super::FIRST_NAMES_IN_PHASE;
use super::file_values::{self, InvalidValue};
use crate::files;
use crate::optim::OptimizerConfig;
use crate::settings::{self, WrongSetting};

/// The text of a run file with overrides applied.
#[derive(Clone, Debug)]
pub struct RunFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The file as it is on disk or, with overrides, the same tables as generated TOML.
    pub text: String,
    /// Whether `text` was generated, so that its line numbers are not those of the file.
    generated: bool,
}

impl RunFile {
    /// Reads `path` and applies `overrides`, each `key=value` with a dotted key: `checkpoint.keep=5`,
    /// `phase.2.learning_rate=0.003` (phases count from 1). A value that is not TOML is a string. An override of
    /// `optimizer.kind` with another kind than that of the file removes the file's other settings of `[optimizer]`.
    ///
    /// # Errors
    /// If the file cannot be read or is not TOML in UTF-8, or an override has no `=` or a key below a value.
    pub fn read(path: &Path, overrides: &[String]) -> anyhow::Result<RunFile> {
        let path = path.to_path_buf();
        let bytes = files::read(&path)
            .with_context(|| format!("cannot read the run file {}; scripts/runs/ has examples", path.display()))?;
        let text = String::from_utf8(bytes).map_err(|error| not_utf8(&path, &error))?;
        RunFile { path, text, generated: false }.with_overrides(overrides)
    }

    /// Takes the text of another file in the same notation.
    pub fn of_text(path: &Path, text: String) -> RunFile {
        RunFile { path: path.to_path_buf(), text, generated: false }
    }

    /// Applies `overrides`, as [`RunFile::read`] does.
    ///
    /// # Errors
    /// If the text is not TOML, or an override has no `=` or a key below a value.
    pub fn with_overrides(self, overrides: &[String]) -> anyhow::Result<RunFile> {
        let mut table: toml::Table = self.parse()?;
        if overrides.is_empty() {
            return Ok(self);
        }
        restart_optimizer(&mut table, overrides);
        for assignment in overrides {
            set(&mut table, assignment).with_context(|| format!("override {assignment}"))?;
        }
        let header = format!("# {} with overrides {}\n", self.path.display(), overrides.join(", "));
        let text = header + &toml::to_string(&table).context("cannot write the run file with overrides")?;
        Ok(RunFile { text, generated: true, ..self })
    }

    /// Reads the copy of a run file that a checkpoint holds. Keys that have since been renamed are read under their first
    /// names too, because a checkpoint is an on-disk format.
    pub fn from_checkpoint(origin: &Path, text: &str) -> RunFile {
        let text = with_current_names(text).unwrap_or_else(|| text.to_owned());
        RunFile { path: origin.to_path_buf(), text, generated: false }
    }

    /// Parses the file as `T`. All tables of `T` must deny unknown fields.
    ///
    /// # Errors
    /// If a value or key is invalid. The error has the location, the key and the requirement, and for an unknown key the most
    /// similar known key.
    pub fn parse<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        if let Err(InvalidValue { at, sentence }) = file_values::check(&self.text) {
            bail!("{}: {sentence}", self.location(at));
        }
        toml::Deserializer::parse(&self.text)
            .map_err(|error| WrongSetting { key: String::new(), error })
            .and_then(settings::read)
            .map_err(|wrong| self.located(&wrong))
    }

    /// Returns `error` with its location.
    fn located(&self, WrongSetting { key, error }: &WrongSetting<toml::de::Error>) -> anyhow::Error {
        let at = error.span().map_or(0, |span| span.start).min(self.text.len());
        let message = error.message().trim();
        let (place, table) = (self.location(at), table_at(&self.text, at));
        if let Some((unknown, known)) = unknown_field(message) {
            return anyhow!("{place}: {}", unknown_key(unknown, &table, &known));
        }
        match settings::requirement(key, message) {
            Some(requirement) => anyhow!("{place}: {requirement}"),
            None => anyhow!("{place}{}: {message}", in_table(&table)),
        }
    }

    /// Returns the file, and the line of byte `at` unless the text was generated.
    fn location(&self, at: usize) -> String {
        let path = self.path.display();
        if self.generated {
            return format!("{path} with overrides");
        }
        let line = self.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{path}:{line}")
    }
}

/// Returns the error about the first bytes of a file that are not UTF-8.
fn not_utf8(path: &Path, error: &FromUtf8Error) -> anyhow::Error {
    let bytes = error.as_bytes();
    let (valid, rest) = bytes.split_at(error.utf8_error().valid_up_to());
    let line_start = valid.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = String::from_utf8_lossy(&valid[line_start..]).chars().count() + 1;
    let byte = rest.first().copied().unwrap_or_default();
    anyhow!(
        "{}:{line}: requires UTF-8 text, got the byte 0x{byte:02x} in column {column}; save the file as UTF-8",
        path.display()
    )
}

/// Returns the message about a key that does not exist.
pub fn unknown_key(unknown: &str, table: &str, known: &[&str]) -> String {
    let place = in_table(table);
    match nearest(unknown, known) {
        Some(near) => format!("unknown key `{unknown}`{place}; did you mean `{near}`?"),
        None => format!("unknown key `{unknown}`{place}; the keys are {}", known.join(", ")),
    }
}

/// Rewrites a run file that uses first names of renamed keys; none if it has no such key, or is not TOML.
fn with_current_names(text: &str) -> Option<String> {
    let mut table: toml::Table = toml::from_str(text).ok()?;
    let mut renamed = false;
    let mut rename = |table: &mut toml::Table, (key, first_name): (&str, &str)| {
        if let Some(value) = table.remove(first_name) {
            table.insert(key.to_owned(), value);
            renamed = true;
        }
    };
    for phase in table.get_mut("phase").and_then(toml::Value::as_array_mut).into_iter().flatten() {
        let names = phase.as_table_mut().into_iter();
        names.for_each(|phase| FIRST_NAMES_IN_PHASE.into_iter().for_each(|names| rename(phase, names)));
    }
    if let Some(evaluate) = table.get_mut("evaluate").and_then(toml::Value::as_table_mut) {
        rename(evaluate, ("micro_batch_size", "batch"));
    }
    if let Some(parallel) = table.get_mut("parallel").and_then(toml::Value::as_table_mut) {
        rename(parallel, ("gradient_reduce_dtype", "gradient_exchange"));
    }
    renamed.then(|| toml::to_string(&table).ok())?
}

fn in_table(table: &str) -> String {
    if table.is_empty() { " at the top of the file".to_owned() } else { format!(" in {table}") }
}

/// Returns the known word that is most similar to `word`; none if no word is similar.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let similarity = |candidate: &str| {
        // `batch` for `global_batch`: an equal part of the name counts more than the number of equal letters.
        let letters = strsim::normalized_damerau_levenshtein(word, candidate);
        if candidate.split('_').any(|part| part == word) { 0.6 + 0.1 * letters } else { letters }
    };
    let best = known.iter().copied().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(best) >= 0.5).then_some(best)
}

/// Parses serde's message for an unknown field: "unknown field `a`, expected one of `b`, `c`".
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

/// Returns the header of the table that contains byte `at` of `text`: `[data]`, `[[phase]]`.
fn table_at(text: &str, at: usize) -> String {
    let end = text[at..].find('\n').map_or(text.len(), |n| at + n);
    let mut headers = text[..end].lines().map(str::trim).filter(|line| line.starts_with('['));
    let header = headers.next_back().unwrap_or("");
    header.split('#').next().unwrap_or("").trim().to_owned()
}

/// Empties `[optimizer]` if an override chooses another kind of optimizer than the file: preset and settings of the file are those
/// of another rule. Happens before any override is applied, so that the order of the overrides does not matter.
fn restart_optimizer(table: &mut toml::Table, overrides: &[String]) {
    let kind = |assignment: &String| {
        let (key, value) = assignment.split_once('=')?;
        (key.trim() == "optimizer.kind").then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    let (Some(chosen), Some(toml::Value::Table(optimizer))) =
        (overrides.iter().filter_map(kind).next_back(), table.get_mut("optimizer"))
    else {
        return;
    };
    let of_file = optimizer.get("kind").and_then(toml::Value::as_str).unwrap_or(OptimizerConfig::DEFAULT_KIND);
    if chosen != of_file {
        optimizer.clear();
    }
}

/// Applies `dotted.key=value` to `table`.
fn set(table: &mut toml::Table, assignment: &str) -> anyhow::Result<()> {
    let (key, value) = assignment.split_once('=').context("requires KEY=VALUE, as in checkpoint.keep=5")?;
    let value = value.trim();
    let toml = format!("value = {value}");
    if let Err(InvalidValue { sentence, .. }) = file_values::check_assignment(key.trim(), &toml) {
        bail!(sentence);
    }
    let value = toml::from_str::<toml::Table>(&toml)
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).context("the key is empty")?;
    let mut table = table;
    let mut parts = parts.into_iter();
    while let Some(part) = parts.next() {
        table = match table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new())) {
            toml::Value::Table(table) => table,
            toml::Value::Array(tables) => {
                let count = tables.len();
                let number = parts.next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
                match tables.get_mut(number.wrapping_sub(1)) {
                    Some(toml::Value::Table(table)) => table,
                    _ => bail!("requires a number from 1 to {count} after `{part}.`, as in {part}.1.{last}=…"),
                }
            }
            _ => bail!("`{part}` is a value, not a table"),
        };
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Top {
        #[serde(default)]
        name: String,
        phase: Vec<Phase>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Phase {
        steps: u64,
        #[serde(default)]
        global_batch: u64,
    }

    fn file(text: &str, overrides: &[&str]) -> anyhow::Result<Top> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("run.toml");
        std::fs::write(&path, text)?;
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        RunFile::read(&path, &overrides)?.parse()
    }

    fn message(text: &str, overrides: &[&str]) -> String {
        let message = format!("{:#}", file(text, overrides).unwrap_err());
        message.rsplit_once("run.toml").map_or(message.clone(), |(_, rest)| rest.to_owned())
    }

    #[test]
    fn errors_name_the_line_the_table_and_the_most_similar_key() {
        let twice = "name = \"x\"\n[[phase]]\nsteps = 1\n[[phase]] # the second\nsteps = 1\ngloabl_batch = 2\n";
        assert_eq!(message(twice, &[]), ":6: unknown key `gloabl_batch` in [[phase]]; did you mean `global_batch`?");
        assert_eq!(
            message("[[phase]]\nsteps = 1\nbatch = 2\n", &[]),
            ":3: unknown key `batch` in [[phase]]; did you mean `global_batch`?"
        );
        assert_eq!(
            message("nmae = 1\n[[phase]]\nsteps = 1\n", &[]),
            ":1: unknown key `nmae` at the top of the file; did you mean `name`?"
        );
        assert_eq!(
            message("[[phase]]\nsteps = 1\nqqqq = 1\n", &[]),
            ":3: unknown key `qqqq` in [[phase]]; the keys are steps, global_batch"
        );
        assert_eq!(message("[[phase]]\nsteps = -1\n", &[]), ":2: phase.1.steps requires a whole number from 0, got -1");
        assert!(message("[[phase]\nsteps = 1\n", &[]).starts_with(":1"));
    }

    #[test]
    fn values_are_checked_by_type_with_their_line_and_key() {
        let text = "name = \"a\"\n[[phase]]\nsteps = 1\n";
        let requires = "phase.1.steps requires a whole number of at most 9223372036854775807, got 9223372036854775808";
        assert_eq!(message(&text.replace("= 1", "= 9223372036854775808"), &[]), format!(":3: {requires}"));
        let set = "phase.1.steps=9223372036854775808";
        assert_eq!(message(text, &[set]), format!("override {set}: {requires}"));
        let empty = "name requires a text with at least one character, got an empty one";
        assert_eq!(message(&text.replace("\"a\"", "\"\""), &[]), format!(":1: {empty}"));
        assert_eq!(message(text, &["name="]), format!(" with overrides: {empty}"));
        assert_eq!(message(text, &["name=''"]), format!("override name='': {empty}"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_reported_with_their_position() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.toml");
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let message = format!("{:#}", RunFile::read(&path, &[]).unwrap_err());
            message.rsplit_once("run.toml").unwrap().1.to_owned()
        };
        let requires = "requires UTF-8 text, got the byte";
        let next = "save the file as UTF-8";
        let latin = b"seed = 1\nname = \"caf\xe9\"\n";
        assert_eq!(message(latin), format!(":2: {requires} 0xe9 in column 12; {next}"));
        let after = [&b"# \xc3\xa9 "[..], b"\xff"].concat();
        assert_eq!(message(&after), format!(":1: {requires} 0xff in column 5; {next}"));
        assert_eq!(message(b"\xff\xfen\0a\0"), format!(":1: {requires} 0xff in column 1; {next}"));
    }

    /// Returns the optimizer of a run file with overrides.
    fn optimizer(table: &str, overrides: &[&str]) -> Result<OptimizerConfig, String> {
        #[derive(Deserialize)]
        struct File {
            optimizer: OptimizerConfig,
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.toml");
        std::fs::write(&path, format!("[optimizer]\n{table}")).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let file = RunFile::read(&path, &overrides).and_then(|file| file.parse::<File>());
        file.map(|file| file.optimizer).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn another_kind_of_optimizer_starts_from_its_own_defaults() {
        let of = |text: &str| toml::from_str::<OptimizerConfig>(text).unwrap();
        let lamb = "preset = 'nvlamb'\nweight_decay = 0.5\nadaptation = 'all'";
        assert_eq!(optimizer(lamb, &["optimizer.kind=adamw"]), Ok(of("kind = 'adamw'")));
        // Other overrides are kept, whatever their order.
        let bert = of("kind = 'adamw'\npreset = 'bert'\nbeta2 = 0.98");
        let overrides = ["optimizer.beta2=0.98", "optimizer.kind='adamw'", "optimizer.preset=bert"];
        assert_eq!(optimizer(lamb, &overrides), Ok(bert));
        // The file's own kind, named or default, changes nothing.
        assert_eq!(optimizer(lamb, &["optimizer.kind=lamb"]), Ok(of(lamb)));
        let lars = "kind = 'lars'\npreset = 'timm'\nmomentum = 0.8";
        assert_eq!(optimizer(lars, &["optimizer.kind=\"lars\""]), Ok(of(lars)));
        assert_eq!(optimizer(lars, &["optimizer.kind=lamb"]), Ok(of("")));
        // The last of several kinds holds.
        assert_eq!(optimizer(lamb, &["optimizer.kind=sgd", "optimizer.kind=lamb"]), Ok(of(lamb)));
        // A preset alone is one of the file's kind.
        let error = optimizer(lars, &["optimizer.preset=nvlamb"]).unwrap_err();
        assert!(error.ends_with("for kind \"lars\", got \"nvlamb\", a preset of kind \"lamb\""), "{error}");
    }

    #[test]
    fn overrides_reach_every_table_and_are_checked_like_the_file() {
        let text = "name = \"a\"\n[[phase]]\nsteps = 1\n[[phase]]\nsteps = 1\n";
        let top = file(text, &["phase.2.steps=20", "name=big run"]).unwrap();
        assert_eq!((top.name.as_str(), top.phase[0].steps, top.phase[1].steps), ("big run", 1, 20));
        assert_eq!(top.phase[1].global_batch, 0);
        assert_eq!(
            message(text, &["phase.1.stepz=2"]),
            " with overrides: unknown key `stepz` in [[phase]]; did you mean `steps`?"
        );
        assert_eq!(
            message(text, &["phase.3.steps=2"]),
            "override phase.3.steps=2: requires a number from 1 to 2 after `phase.`, as in phase.1.steps=…"
        );
    }
}
