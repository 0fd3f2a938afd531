//! Compressed inputs: several members in one file, and truncated or damaged files.

use std::io::Write;

use crate::data::corpus::tests::*;

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

/// Text that does not compress to nothing: words drawn from a small set.
fn some_text(words: usize) -> String {
    let mut stream = crate::rng::Key::new(3).stream();
    (0..words).map(|_| format!("word{} ", stream.below(5000))).collect::<String>().replace("word7 ", "word7\n")
}

#[test]
fn all_members_of_a_file_are_read() {
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
fn truncated_or_damaged_files_report_the_bytes_decompressed() {
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
        assert!(damaged.contains(&name) && damaged.contains("an error after "), "{damaged}");
    }
}

#[test]
fn wrong_compression_reports_the_actual_kind() {
    let kinds = ["gzip", "zstd", "bzip2", "xz"];
    for ((extension, _), kind) in COMPRESSIONS.into_iter().zip(kinds) {
        let name = format!("a.txt.{extension}");
        let refused = |bytes: &[u8], found: &str| {
            let message = message(&[(&name, bytes)]);
            assert!(message.contains(&format!("{name}: requires a whole {kind} file, got {found}; ")), "{message}");
            message
        };
        refused(b"", "0 bytes");
        refused(b"this was never compressed at all", "other first bytes");
        for ((other, compress), found) in COMPRESSIONS.into_iter().zip(kinds).filter(|(_, found)| *found != kind) {
            let message = refused(&compress(b"Some words."), found);
            assert!(message.contains(&format!("give it a name that ends in .{other}, or unpack it")), "{message}");
        }
        refused(b"%PDF-1.7 \n", "PDF");
    }
}

#[test]
fn files_that_are_no_text_are_rejected_under_any_name() {
    let tar = [&b"name"[..], &[0; 253], b"ustar\x0000", &[0; 248]].concat();
    let files: [(&str, &[u8]); 18] = [
        ("a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        ("a web page", b"<!DOCTYPE html>\n<html>"),
        ("gzip", &gzip_of(b"Some words.")),
        ("zstd", &zstd_of(b"Some words.")),
        ("zstd", b"\x5e\x2a\x4d\x18\x02\0\0\0\0\0"),
        ("bzip2", &bzip2_of(b"Some words.")),
        ("bzip2", &bzip2_of(b"")),
        ("xz", &xz_of(b"Some words.")),
        ("lz4", b"\x04\x22\x4d\x18\x64\x40\xa7"),
        ("a zip archive", b"PK\x03\x04\x14\0"),
        ("a 7z archive", b"7z\xbc\xaf\x27\x1c\0\x04"),
        ("a tar archive", &tar),
        ("Parquet", b"PAR1\x15\x04\x15"),
        ("Arrow", b"\xff\xff\xff\xff\x10\0\0\0"),
        ("safetensors", b"\x40\0\0\0\0\0\0\0{\"__metadata__\":{}}"),
        ("PDF", b"%PDF-1.7\n"),
        ("WARC", b"WARC/1.0\r\nWARC-Type: warcinfo\r\n"),
        ("an ELF binary", b"\x7fELF\x02\x01\x01\0"),
    ];
    for (kind, bytes) in files {
        for name in ["a.txt", "a.jsonl", "a.xml", "wiki_00"] {
            let message = message(&[(name, bytes)]);
            assert!(message.contains(&format!("{name}: requires text, got {kind}; ")), "{message}");
        }
        for (extension, compress) in COMPRESSIONS {
            let message = message(&[(&format!("a.txt.{extension}"), &compress(bytes))]);
            assert!(message.contains(&format!(" file, got {kind}; unpack it first")), "{message}");
        }
    }
    // These are text, although they begin similarly.
    for text in ["BZh9 is a level", "PAR1 of five", "PAREnts", "PK\x04", "%PDF", "7zip", "ustar"] {
        assert_eq!(read(&[("a.txt", text.as_bytes())]).unwrap().0, [text, "¶"]);
    }
}

#[test]
fn files_that_need_much_memory_to_decompress_are_rejected() {
    // A frame of an empty block, after its magic number, flags and window; the window size is 2^(10 + exponent).
    let zstd = |exponent: u8| [b"\x28\xb5\x2f\xfd\0", &[exponent << 3][..], b"\x01\0\0"].concat();
    // The first block header is 12 bytes: the fifth holds the dictionary size, 2^(12 + code / 2), and the last four its
    // checksum.
    let xz = |code: u8| {
        let mut file = xz_of(b"Some words.");
        let header = 12..24;
        file[header.start + 4] = code;
        let mut checksum = flate2::Crc::new();
        checksum.update(&file[header.start..header.end - 4]);
        file[header.end - 4..header.end].copy_from_slice(&checksum.sum().to_le_bytes());
        file
    };
    assert_eq!(read(&[("a.txt.zst", &zstd(17))]).unwrap().0, [""; 0]);
    assert_eq!(read(&[("a.txt.xz", &xz(30))]).unwrap().0, ["Some words.", "¶"]);
    for (name, file, unpack) in [("a.txt.zst", zstd(18), "zstd -d --long=31"), ("a.txt.xz", xz(32), "xz -dk")] {
        let good = if name.ends_with("zst") { zstd_of(b"Good.\n") } else { xz_of(b"Good.\n") };
        for (before, bytes) in [(&[][..], 0), (&good, 6)] {
            let message = message(&[(name, &[before, &file].concat())]);
            let found =
                format!("takes at most 128 MiB to unpack, got a file that takes more, after {bytes} bytes of text; ");
            assert!(message.contains(name) && message.contains(&found) && message.contains(unpack), "{message}");
        }
    }
}

#[test]
fn one_damaged_byte_never_panics() {
    let mut stream = crate::rng::Key::new(7).stream();
    for (extension, compress) in COMPRESSIONS {
        let whole = compress(some_text(3000).as_bytes());
        for round in 0..300 {
            // Each byte of the header, and some of the rest.
            let at = if round < 64 { round } else { stream.below(whole.len() as u64) as usize };
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << stream.below(8);
            let read = read(&[(&format!("a.txt.{extension}"), &damaged)]);
            assert!(read.is_ok() || read.is_err_and(|error| error.to_string().contains("a.txt.")));
        }
    }
}
