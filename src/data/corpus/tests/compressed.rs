//! Compressed inputs: several members in a row, and files that were cut or damaged.

use std::io::Write;

use super::*;

pub fn bzip2_of(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip_of(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn xz_of(bytes: &[u8]) -> Vec<u8> {
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

type Compress = fn(&[u8]) -> Vec<u8>;
const COMPRESSIONS: [(&str, Compress); 4] = [("gz", gzip_of), ("zst", zstd_of), ("bz2", bzip2_of), ("xz", xz_of)];

/// Text that does not compress to nothing: words drawn from a few.
fn some_text(words: usize) -> String {
    let mut stream = crate::rng::Key::new(3).stream();
    (0..words).map(|_| format!("word{} ", stream.below(5000))).collect::<String>().replace("word7 ", "word7\n")
}

#[test]
fn members_are_read_to_the_last() {
    for (extension, compress) in COMPRESSIONS {
        let long = some_text(300_000);
        let members = [compress(b"One.\n"), compress(long.as_bytes()), compress(b""), compress(b"\nTwo.\n")].concat();
        let plain = format!("One.\n{long}\nTwo.\n");
        let read = |name: &str, bytes: &[u8]| read(&[(name, bytes)]).unwrap();
        assert_eq!(read(&format!("a.txt.{extension}"), &members), read("a.txt", plain.as_bytes()), "{extension}");
    }
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
    let frames = [zstd_of(b"Three.\n"), skippable.to_vec(), zstd_of(b"Four.\n")].concat();
    assert_eq!(read(&[("b.txt.zst", &frames)]).unwrap().0, ["Three.", "Four.", "¶"]);
}

#[test]
fn files_that_are_cut_or_damaged_are_named_with_what_was_good() {
    for (extension, compress) in COMPRESSIONS {
        let name = format!("a.txt.{extension}");
        let whole = compress(some_text(400_000).as_bytes());
        let cut = message(&[(&name, &whole[..whole.len() * 3 / 4])]);
        assert!(cut.contains(&name) && cut.contains("its end after ") && cut.contains(" bytes of text"), "{cut}");
        let good: u64 = cut.split("its end after ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(good > 0, "{cut}");

        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let damaged = message(&[(&name, &damaged)]);
        assert!(damaged.contains(&name) && damaged.contains("fault after "), "{damaged}");

        let other = message(&[(&name, b"this was never compressed at all")]);
        assert!(other.contains(&name) && other.contains("requires a whole "), "{other}");
    }
}
