//! The key-value stores of the rendezvous: a directory and a real etcd behave in the same way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::etcd::Etcd;
use lambert::key_value::{self, Folder, KeyValueError, KeyValueStore};

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(20);

/// Checks the behaviour of every store.
fn check_store(store: Arc<dyn KeyValueStore>) {
    assert_eq!(store.try_get("a").unwrap(), None);
    let every_byte: Vec<u8> = (0..=255).collect();
    store.put("a", &every_byte).unwrap();
    assert_eq!(store.get("a", SHORT).unwrap(), every_byte);
    store.put("a", b"").unwrap();
    assert_eq!(store.try_get("a").unwrap().as_deref(), Some(&b""[..]), "an empty value is a value");

    // A key may extend another one, and hold any text of any length.
    let long = "devices=[0,1,2,3]; ".repeat(60);
    let keys = ["a/b", "a/b/c", "A/b", "a.value", "a.value/b", "../a", "/", "", "gpu:local/ä %41", &long];
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(store.try_get(key).unwrap(), None, "{key:?}");
        store.put(key, &[i as u8]).unwrap();
    }
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(store.try_get(key).unwrap().as_deref(), Some(&[i as u8][..]), "{key:?}");
    }

    // A waiting reader gets the value, or an error with the key after the timeout.
    let begin = Instant::now();
    let error = store.get("never", SHORT).unwrap_err();
    assert!(begin.elapsed() >= SHORT);
    assert!(matches!(error, KeyValueError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("no process wrote \"never\" within 0.06 s"), "{error}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.get("later", LONG).unwrap());
        std::thread::sleep(SHORT);
        store.put("later", b"here").unwrap();
        assert_eq!(waiting.join().unwrap(), b"here");
    });

    // A folder is separate from other keys, and is removed alone and completely.
    for key in ["one/x", "one/y/z", "one-2/x", "one", "onex/x"] {
        store.put(key, key.as_bytes()).unwrap();
    }
    let folder = Folder::new(store.clone(), "one");
    assert_eq!(folder.get("y/z", SHORT).unwrap(), b"one/y/z");
    folder.remove_all("y").unwrap();
    assert_eq!((folder.try_get("y/z").unwrap(), folder.try_get("x").unwrap()), (None, Some(b"one/x".to_vec())));
    folder.remove().unwrap();
    folder.remove().unwrap();
    assert_eq!(folder.try_get("x").unwrap(), None);
    for key in ["one-2/x", "one", "onex/x"] {
        assert_eq!(store.try_get(key).unwrap().as_deref(), Some(key.as_bytes()));
    }
}

/// Checks that a reader sees one of two values that are written concurrently, never a mixture.
fn check_atomic_replacement(store: &dyn KeyValueStore) {
    let value = |letter: u8| vec![letter; 100_000];
    store.put("whole", &value(b'a')).unwrap();
    std::thread::scope(|scope| {
        let writers = [b'a', b'b']
            .map(|letter| scope.spawn(move || (0..20).for_each(|_| store.put("whole", &value(letter)).unwrap())));
        while !writers.iter().all(|writer| writer.is_finished()) {
            let found = store.try_get("whole").unwrap().expect("it is never absent");
            assert!(found == value(b'a') || found == value(b'b'));
        }
    });
}

#[test]
fn a_directory_is_a_key_value_store() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("made/on/demand");
    let store = key_value::open(root.to_str().unwrap()).unwrap();
    check_store(store.clone());
    check_atomic_replacement(&*store);
    // No key writes outside the directory.
    let outside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside, ["made"]);
    assert_eq!(std::fs::read_dir(root.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn etcd_is_a_key_value_store() {
    let Some(etcd) = Etcd::start() else { return };
    let store = key_value::open(&etcd.coordinator("tests/one")).unwrap();
    check_store(store.clone());
    check_atomic_replacement(&*store);
    // Different prefixes are different stores.
    let other = key_value::open(&etcd.coordinator("tests")).unwrap();
    assert_eq!(other.try_get("whole").unwrap(), None);
    assert!(other.try_get("one/whole").unwrap().is_some());
}

#[test]
fn an_unusable_store_is_named() {
    for address in [
        "etcd://",
        "etcd://host",
        "etcd://host:port",
        "etcd://:2379",
        "etcd://host:99999/x",
        "etcd:host:2379",
        "etcd:/host:2379/x",
        "ectd://host:2379",
        "s3://bucket/hosts",
    ] {
        let error = key_value::open(address).expect_err(address).to_string();
        assert!(error.contains(address) && error.contains("requires a directory, etcd://host:port"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = key_value::open(file.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("file") && error.contains("every host of the run can write"), "{error}");
    // A port without a server.
    let error = key_value::open("etcd://127.0.0.1:1").unwrap().try_get("a").unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1 cannot be reached") && error.contains("the server is running"), "{error}");
}
