//! Files that are not PJRT plugins are refused with their names.

use lambert::pjrt::{PjrtError, Plugin};

#[test]
fn a_file_that_is_no_plugin_is_refused_with_its_name() {
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
fn a_library_without_the_entry_point_is_refused() {
    // Whatever C library this process runs with is a library without GetPjrtApi.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc"));
    let error = Plugin::load(library.expect("a C library").as_ref()).unwrap_err();
    assert!(matches!(error, PjrtError::NotAPlugin { .. }), "{error}");
    assert!(error.to_string().contains("does not export GetPjrtApi"), "{error}");
}
