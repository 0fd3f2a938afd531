//! Loading a file that is not a PJRT plugin fails with an error that names the file.

use lambert::pjrt::{PjrtError, Plugin};

#[test]
fn load_error_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("plugin.so");
    std::fs::write(&text, "hello").unwrap();
    let error = Plugin::load(&text).unwrap_err().to_string();
    assert!(error.contains("plugin.so cannot be opened"), "{error}");
    let missing = dir.path().join("missing.so");
    let error = Plugin::load(&missing).unwrap_err().to_string();
    assert!(error.contains("missing.so cannot be opened: No such file"), "{error}");
}

#[test]
#[cfg(target_os = "linux")]
fn library_without_get_pjrt_api_is_rejected() {
    // The C library of this process does not export GetPjrtApi.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc"));
    let error = Plugin::load(library.expect("a C library").as_ref()).unwrap_err();
    assert!(matches!(error, PjrtError::NotAPlugin { .. }), "{error}");
    assert!(error.to_string().contains("does not export GetPjrtApi"), "{error}");
}
