//! Streaming of safetensors files: tensors are written and read one by one, and the sha256 of the file is computed in the same
//! pass, so a BERT-Large checkpoint (4 GB) is neither doubled in memory nor read twice.
//!
//! The `safetensors` crate makes the header. Its writer is not used because it does not sync, makes files that only their owner
//! can read, and needs a second pass for the sha256.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::CheckpointError;
use crate::digest::{Sha256Hasher, Sha256Writer};
use crate::file_kind::WrongKind;
use crate::files;
use crate::shape::{DType, HostTensor, Shape};

/// The fault of a file whose content has another sha256 than the recorded one.
pub(super) const SHA256_MISMATCH: &str = "sha256 mismatch";

/// Size and sha256 of a file, as recorded when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// The size in bytes.
    pub bytes: u64,
    /// The sha256 of the file, in hexadecimal.
    pub sha256: String,
}

impl FileRecord {
    /// Returns the record of a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(path: &Path) -> Result<FileRecord, CheckpointError> {
        let hash = || {
            let mut writer = Sha256Writer::new(std::io::sink());
            std::io::copy(&mut BufReader::with_capacity(1 << 20, files::open(path)?), &mut writer)?;
            Ok(FileRecord { bytes: writer.bytes(), sha256: writer.finish().1 })
        };
        hash().map_err(CheckpointError::io("read", path))
    }
}

/// Creates a file of `bytes` bytes that `fill` writes, and syncs it to the disk.
fn create_synced(
    path: &Path,
    bytes: u64,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<FileRecord, CheckpointError> {
    let attempt = || {
        let mut writer = Sha256Writer::new(BufWriter::with_capacity(1 << 20, File::create_new(path)?));
        fill(&mut writer)?;
        let bytes = writer.bytes();
        let (file, sha256) = writer.finish();
        file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        Ok(FileRecord { bytes, sha256 })
    };
    attempt().map_err(CheckpointError::write(path, bytes))
}

/// Writes a small file, which must not exist.
pub(super) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<FileRecord, CheckpointError> {
    create_synced(path, bytes.len() as u64, |file| file.write_all(bytes))
}

/// Writes tensors in the given order; the file must not exist. Transformers before version 5 requires the metadata
/// `{"format": "pt"}`, so all files have it.
///
/// # Errors
/// [`CheckpointError::TensorTwice`], or if the file system reports an error.
pub fn write_tensors(path: &Path, tensors: &[(&str, &HostTensor)]) -> Result<FileRecord, CheckpointError> {
    let mut names = HashSet::new();
    if let Some((twice, _)) = tensors.iter().find(|(name, _)| !names.insert(*name)) {
        return Err(CheckpointError::TensorTwice { file: path.to_path_buf(), tensor: twice.to_string() });
    }
    // Tensors with wider elements come first, so that every tensor is aligned to its element size. The sort is stable.
    let mut tensors = tensors.to_vec();
    tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.shape().dtype.size()));

    let mut offset = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let (start, shape) = (offset, tensor.shape());
        offset += shape.bytes();
        let info =
            TensorInfo { dtype: stored_dtype(shape.dtype), shape: shape.dims.clone(), data_offsets: (start, offset) };
        (name.to_string(), info)
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let invalid = |what: String| CheckpointError::io("write", path)(std::io::Error::other(what));
    let infos = infos.collect();
    let metadata = Metadata::new(Some(format), infos).map_err(|e| invalid(e.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| invalid(e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    create_synced(path, (8 + header.len() + offset) as u64, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, tensor)| file.write_all(tensor.bytes()))
    })
}

/// A safetensors file open for reading, with its header checked against its length.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// The length field and the header as they are in the file, for the sha256.
    head: Vec<u8>,
    tensors: Vec<(String, TensorInfo)>,
}

impl TensorFile {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// [`CheckpointError::WrongKind`] if it is recognised as another kind of file; [`CheckpointError::Damaged`] if the header is
    /// invalid, or the file does not have the length that it gives.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::io("read", path)(source);
        let damaged = |what: String| {
            let other = WrongKind::of_file(path, "a safetensors file").filter(|kind| kind.found != "safetensors");
            other.map_or_else(|| CheckpointError::damaged(path, what), CheckpointError::from)
        };
        let mut file = files::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();

        let mut head = vec![0; 8];
        if length < 8 {
            return Err(damaged(format!("requires at least 8 bytes, found {length}")));
        }
        file.read_exact(&mut head).map_err(io)?;
        let header_length = u64::from_le_bytes(std::array::from_fn(|i| head[i]));
        if header_length > length - 8 {
            return Err(damaged(format!("the header requires {header_length} bytes, found {}", length - 8)));
        }
        head.resize(8 + header_length as usize, 0);
        file.read_exact(&mut head[8..]).map_err(io)?;

        let metadata: Metadata =
            serde_json::from_slice(&head[8..]).map_err(|e| damaged(format!("not a safetensors header: {e}")))?;
        let required = head.len() as u64 + metadata.data_len() as u64;
        if length != required {
            let last = metadata.offset_keys().pop().unwrap_or_default();
            return Err(damaged(format!("the tensors up to {last} require {required} bytes, found {length}")));
        }
        let mut infos = metadata.tensors();
        let tensors = metadata.offset_keys().into_iter();
        let tensors = tensors.filter_map(|name| infos.remove(&name).map(|info| (name, info.clone()))).collect();
        Ok(TensorFile { path: path.to_path_buf(), file, head, tensors })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the names of the tensors, in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name.as_str())
    }

    /// Describes a tensor for a message: `F32[2,3]`.
    pub fn describe(&self, name: &str) -> Option<String> {
        let (_, info) = self.tensors.iter().find(|(n, _)| n == name)?;
        Some(format!("{:?}{:?}", info.dtype, info.shape).replace(' ', ""))
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] if there is no such tensor, or its element type is not one of [`DType`]'s.
    pub fn read(&mut self, name: &str) -> Result<HostTensor, CheckpointError> {
        let Some((_, info)) = self.tensors.iter().find(|(n, _)| n == name) else {
            return Err(CheckpointError::damaged(&self.path, format!("no tensor {name}")));
        };
        let start = self.head.len() as u64 + info.data_offsets.0 as u64;
        let shape = host_shape(&self.path, name, info)?;
        self.file.seek(SeekFrom::Start(start)).map_err(CheckpointError::io("read", &self.path))?;
        read_next(&mut self.file, &self.path, shape)
    }

    /// Reads every tensor once, in the file's order, and checks the sha256 of the file.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] if the sha256 differs from the recorded one.
    pub fn read_all(mut self, record: &FileRecord) -> Result<Vec<(String, HostTensor)>, CheckpointError> {
        let mut hasher = Sha256Hasher::default();
        hasher.update(&self.head);
        let mut tensors = Vec::with_capacity(self.tensors.len());
        self.file.seek(SeekFrom::Start(self.head.len() as u64)).map_err(CheckpointError::io("read", &self.path))?;
        for (name, info) in &self.tensors {
            let shape = host_shape(&self.path, name, info)?;
            let tensor = read_next(&mut self.file, &self.path, shape)?;
            hasher.update(tensor.bytes());
            tensors.push((name.clone(), tensor));
        }
        if hasher.finish() != record.sha256 {
            return Err(CheckpointError::damaged(&self.path, SHA256_MISMATCH));
        }
        Ok(tensors)
    }
}

fn read_next(file: &mut File, path: &Path, shape: Shape) -> Result<HostTensor, CheckpointError> {
    let mut bytes = vec![0; shape.bytes()];
    file.read_exact(&mut bytes).map_err(CheckpointError::io("read", path))?;
    HostTensor::from_bytes(shape, bytes).map_err(|e| CheckpointError::damaged(path, e.to_string()))
}

fn host_shape(path: &Path, name: &str, info: &TensorInfo) -> Result<Shape, CheckpointError> {
    let dtype = DType::ALL.into_iter().find(|&dtype| stored_dtype(dtype) == info.dtype);
    let dtype = dtype.ok_or_else(|| {
        CheckpointError::damaged(path, format!("tensor {name} has the unsupported element type {:?}", info.dtype))
    })?;
    Ok(Shape::new(dtype, info.shape.clone()))
}

/// Returns the file format's name of an element type.
fn stored_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::Pred => Dtype::BOOL,
        DType::U8 => Dtype::U8,
        DType::U16 => Dtype::U16,
        DType::S32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::U64 => Dtype::U64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256_hex;

    #[test]
    fn every_element_type_comes_back_in_its_order_and_the_public_crate_reads_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.safetensors");
        let tensors: Vec<(String, HostTensor)> = DType::ALL
            .into_iter()
            .map(|dtype| (format!("of {dtype}"), HostTensor::from_f64(Shape::new(dtype, [3, 1]), &[0.0, 1.0, 1.0])))
            .collect();
        let borrowed: Vec<(&str, &HostTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let record = write_tensors(&path, &borrowed).unwrap();

        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(record, FileRecord { bytes: bytes.len() as u64, sha256: sha256_hex(&bytes) });
        let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(parsed.len(), DType::ALL.len());
        let mut read = TensorFile::open(&path).unwrap();
        for (name, tensor) in &tensors {
            assert_eq!(parsed.tensor(name).unwrap().data(), tensor.bytes(), "{name}");
            assert_eq!(&read.read(name).unwrap(), tensor);
        }
        let mut all = read.read_all(&record).unwrap();
        assert!(all.windows(2).all(|w| w[0].1.shape().dtype.size() >= w[1].1.shape().dtype.size()));
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut expected = tensors.clone();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(all, expected);
    }

    #[test]
    fn a_truncated_file_is_detected_at_any_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.safetensors");
        let tensor = HostTensor::new([5], &[1.0f32, 2.0, 3.0, 4.0, 5.0]);
        write_tensors(&path, &[("a", &tensor)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let Err(error) = TensorFile::open(&path) else { panic!("{length} bytes were accepted") };
            assert!(error.is_damage() && error.to_string().contains("cut.safetensors"), "{error}");
        }
    }

    #[test]
    fn another_file_in_its_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        for (content, found) in [
            (
                "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 440473133\n",
                "a pointer of Git LFS; fetch",
            ),
            ("<!doctype html><title>Sign in</title>", "a web page; download the file itself"),
            ("Entry not found", "the error message of a server; download the file itself"),
            ("PK\u{3}\u{4}archive/data.pkl", "a zip archive; unpack it"),
        ] {
            std::fs::write(&path, content).unwrap();
            let Err(error) = TensorFile::open(&path) else { panic!("{content}") };
            let expected = format!("model.safetensors: requires a safetensors file, found {found}");
            assert!(error.is_damage() && error.to_string().contains(&expected), "{error}");
        }
    }

    #[test]
    fn duplicate_names_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let tensor = HostTensor::scalar(1.0f32);
        let error = write_tensors(&folder.path().join("x"), &[("a", &tensor), ("a", &tensor)]).unwrap_err();
        assert!(matches!(error, CheckpointError::TensorTwice { tensor, .. } if tensor == "a"));
    }
}
