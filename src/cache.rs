//! The directory for downloaded files: `lambert/` in the user's cache directory.

use std::path::PathBuf;

/// Returns `$XDG_CACHE_HOME/lambert`, or `~/.cache/lambert`; none if neither is an absolute path (the XDG Base Directory
/// Specification ignores relative paths).
pub fn directory() -> Option<PathBuf> {
    directory_of(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from), std::env::home_dir())
}

fn directory_of(cache: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: Option<PathBuf>| path.filter(|path| path.is_absolute());
    let cache = absolute(cache).or_else(|| Some(absolute(home)?.join(".cache")))?;
    Some(cache.join("lambert"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_directory_is_from_xdg_or_home() {
        let of = |cache: &str, home: &str| directory_of(Some(cache.into()), Some(home.into()));
        assert_eq!(of("/cache", "/home/a"), Some("/cache/lambert".into()));
        assert_eq!(of("not/absolute", "/home/a"), Some("/home/a/.cache/lambert".into()));
        assert_eq!(of("", "/home/a"), Some("/home/a/.cache/lambert".into()));
        assert_eq!(of("", ""), None);
        assert_eq!(directory_of(None, None), None);
    }
}
