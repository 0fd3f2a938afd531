//! Writes optimized programs for readers and for XLA's tools. Files that exist are not overwritten.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::profile::program::module_bytes;
use crate::files::write_atomically;
use crate::hlo::text;
use crate::pjrt::OptimizedProgram;

/// A directory for optimized programs: each as HLO text, `NAME.hlo.txt`, and as a serialized HloModuleProto, `NAME.hlo.pb`.
#[derive(Clone, Debug)]
pub struct Dump {
    directory: PathBuf,
}

impl Dump {
    /// Creates the directory, and checks that it has no file of a program in `names`.
    ///
    /// # Errors
    /// If a file of that name exists, or the directory cannot be created.
    pub fn begin(directory: &Path, names: &[String]) -> anyhow::Result<Dump> {
        let dump = Dump { directory: directory.to_owned() };
        if let Some(path) = names.iter().flat_map(|name| dump.files(name)).find(|path| path.exists()) {
            bail!(
                "cannot write optimized programs to {}: found {}; use another directory or remove it",
                directory.display(),
                path.display()
            );
        }
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create the directory {}", directory.display()))?;
        Ok(dump)
    }

    /// Returns the files of a program: text and protobuf.
    pub fn files(&self, name: &str) -> [PathBuf; 2] {
        ["hlo.txt", "hlo.pb"].map(|extension| self.directory.join(format!("{name}.{extension}")))
    }

    /// Writes both files of `program`.
    ///
    /// # Errors
    /// If the program is not HLO, or a file cannot be written.
    pub fn write(&self, name: &str, program: &OptimizedProgram) -> anyhow::Result<()> {
        let module = module_bytes(program)?;
        let printed = text(&module).context("the plugin's optimized program is damaged")?;
        let [text, proto] = self.files(name);
        write_atomically(&text, |partial| fs::write(partial, &printed))?;
        write_atomically(&proto, |partial| fs::write(partial, &module))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_programs_are_not_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("new");
        let names = ["phase-1".to_owned(), "phase-2".to_owned()];
        let dump = Dump::begin(&directory, &names).unwrap();
        let module = crate::hlo::proto::HloModuleProto { name: "step".to_owned(), ..Default::default() };
        let code = prost::Message::encode_to_vec(&module);
        dump.write("phase-2", &OptimizedProgram { format: "hlo".to_owned(), code: code.clone() }).unwrap();
        let [text, proto] = dump.files("phase-2");
        assert_eq!((fs::read_to_string(&text).unwrap().trim_end(), fs::read(proto).unwrap()), ("HloModule step", code));
        let error = Dump::begin(&directory, &names).unwrap_err().to_string();
        assert!(error.ends_with("phase-2.hlo.txt; use another directory or remove it"), "{error}");
        assert!(Dump::begin(&directory, &names[..1]).is_ok(), "other files may exist");
        let stablehlo = OptimizedProgram { format: "mlir".to_owned(), code: Vec::new() };
        let error = dump.write("phase-1", &stablehlo).unwrap_err().to_string();
        assert!(error.contains("the plugin returns \"mlir\""), "{error}");
    }
}
