//! The key-value callbacks of `PJRT_Client_Create` over a [`KeyValueStore`]. Through them the processes of a multi-process
//! client exchange their topology when the client is created, and NCCL ids when devices first communicate.
//!
//! The contract, from openxla/xla `xla/pjrt/c/pjrt_c_api.h` and its caller in `pjrt_c_api_wrapper_impl.cc`: arguments are
//! alive during the call; a returned value belongs to this side until the plugin passes it to the deleter beside it; an
//! error is created by the function in the arguments and belongs to the plugin. A plugin uses the callbacks only if all
//! three are set, from any of its threads. It does not set `struct_size` in their arguments, so the field is not read; the
//! other fields are those of the first version with the callback, and have not changed since.

use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::api::bytes;
use super::sys::{self, status};
use crate::key_value::{KeyValueError, KeyValueStore};

/// The store of one client's callbacks. The plugin keeps its address, so the owner of the client must own it too.
#[derive(Debug)]
pub(super) struct KeyValueCallbacks {
    store: Arc<dyn KeyValueStore>,
}

/// The error of a callback: a status code and a message.
type Failure = (c_int, String);

impl KeyValueCallbacks {
    /// Boxes the store, so that its address is stable.
    pub fn new(store: Arc<dyn KeyValueStore>) -> Box<KeyValueCallbacks> {
        Box::new(KeyValueCallbacks { store })
    }

    /// Sets the callbacks, with this store as their argument. The client must not outlive `self`.
    pub fn register(&self, args: &mut sys::PJRT_Client_Create) {
        let this = ptr::from_ref(self).cast_mut().cast::<c_void>();
        args.kv_get_callback = Some(get);
        args.kv_get_user_arg = this;
        args.kv_put_callback = Some(put);
        args.kv_put_user_arg = this;
        args.kv_try_get_callback = Some(try_get);
        args.kv_try_get_user_arg = this;
    }
}

/// Implements `PJRT_KeyValueGetCallback`: waits for a value.
unsafe extern "C" fn get(args: *mut sys::PJRT_KeyValueGetCallback_Args) -> *mut sys::PJRT_Error {
    // SAFETY: the plugin passes arguments that are alive and ours to fill during the call.
    let args = unsafe { &mut *args };
    // XLA's infinite duration arrives as a negative number.
    let timeout = u64::try_from(args.timeout_in_ms).map_or(Duration::from_secs(24 * 3600), Duration::from_millis);
    // SAFETY: key and user argument as the contract has them.
    let found = unsafe { with_store(args.user_arg, args.key, args.key_size, |store, key| store.get(key, timeout)) };
    match found {
        Ok(value) => {
            (args.value, args.value_size) = (allocate(&value), value.len());
            args.value_deleter_callback = Some(delete);
            ptr::null_mut()
        }
        // SAFETY: the arguments bring the function.
        Err(failure) => unsafe { fail(args.callback_error, failure) },
    }
}

/// Implements `PJRT_KeyValueTryGetCallback`: returns the current value, or NOT_FOUND.
unsafe extern "C" fn try_get(args: *mut sys::PJRT_KeyValueTryGetCallback_Args) -> *mut sys::PJRT_Error {
    // SAFETY: as in `get`.
    let args = unsafe { &mut *args };
    // SAFETY: as in `get`.
    let found = unsafe { with_store(args.user_arg, args.key, args.key_size, |store, key| store.try_get(key)) };
    match found {
        Ok(Some(value)) => {
            (args.value, args.value_size) = (allocate(&value), value.len());
            args.value_deleter_callback = Some(delete);
            ptr::null_mut()
        }
        // SAFETY: the arguments bring the function.
        Ok(None) => unsafe { fail(args.callback_error, (status::NOT_FOUND, "the key is not set".to_owned())) },
        // SAFETY: the arguments bring the function.
        Err(failure) => unsafe { fail(args.callback_error, failure) },
    }
}

/// Implements `PJRT_KeyValuePutCallback`: sets a value.
unsafe extern "C" fn put(args: *mut sys::PJRT_KeyValuePutCallback_Args) -> *mut sys::PJRT_Error {
    // SAFETY: as in `get`.
    let args = unsafe { &*args };
    // SAFETY: the value is alive during the call.
    let value = unsafe { bytes(args.value, args.value_size) };
    // SAFETY: as in `get`.
    let put = unsafe { with_store(args.user_arg, args.key, args.key_size, |store, key| store.put(key, value)) };
    match put {
        Ok(()) => ptr::null_mut(),
        // SAFETY: the arguments bring the function.
        Err(failure) => unsafe { fail(args.callback_error, failure) },
    }
}

/// Calls `use_store` with the store and the key. A panic must not unwind into C, so it becomes a failure.
///
/// # Safety
/// `user_arg` is the [`KeyValueCallbacks`] that the client was created with, and `key` is valid for `key_size` bytes.
unsafe fn with_store<T>(
    user_arg: *mut c_void,
    key: *const c_char,
    key_size: usize,
    use_store: impl FnOnce(&dyn KeyValueStore, &str) -> Result<T, KeyValueError>,
) -> Result<T, Failure> {
    // SAFETY: guaranteed by the caller; the owner of the client keeps the callbacks alive.
    let (callbacks, key) = unsafe { (&*user_arg.cast::<KeyValueCallbacks>(), bytes(key, key_size)) };
    let work = || {
        let key = str::from_utf8(key).map_err(|_| (status::INVALID_ARGUMENT, "the key is not UTF-8".to_owned()))?;
        use_store(&*callbacks.store, key).map_err(|error| (code_of(&error), error.to_string()))
    };
    let panicked =
        |_| Err((status::INTERNAL, "the key-value store panicked; see the message on standard error".to_owned()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}

fn code_of(error: &KeyValueError) -> c_int {
    match error {
        KeyValueError::Timeout { .. } => status::DEADLINE_EXCEEDED,
        _ => status::UNAVAILABLE,
    }
}

/// Creates the plugin's error for a failure.
///
/// # Safety
/// `callback_error` points to the function that the plugin passed for this call.
unsafe fn fail(callback_error: *const sys::PJRT_CallbackError, failure: Failure) -> *mut sys::PJRT_Error {
    let (code, message) = failure;
    // SAFETY: the caller's promise; the message is copied by the function.
    unsafe { (*callback_error)(code, message.as_ptr().cast(), message.len()) }
}

/// Copies a value into a block that lives until [`delete`] is called. The block starts with a word that holds its length
/// in words, because the deleter does not receive a size. The result is not null, even for an empty value.
fn allocate(value: &[u8]) -> *mut c_char {
    let mut block = vec![0usize; 1 + value.len().div_ceil(size_of::<usize>())];
    block[0] = block.len();
    bytemuck::cast_slice_mut(&mut block[1..])[..value.len()].copy_from_slice(value);
    let first = Box::into_raw(block.into_boxed_slice()).cast::<usize>();
    // SAFETY: the block has at least the one word that is stepped over.
    unsafe { first.add(1).cast() }
}

/// Frees a block of [`allocate`].
unsafe extern "C" fn delete(value: *mut c_char) {
    // SAFETY: the plugin passes back, once, what `allocate` returned: one word before it, the block begins with its length.
    unsafe {
        let first = value.cast::<usize>().sub(1);
        drop(Box::from_raw(ptr::slice_from_raw_parts_mut(first, *first)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_value::Directory;
    use crate::pjrt::api::Api;
    use crate::pjrt::client::Client;
    use crate::pjrt::error::PjrtError;
    use crate::pjrt::named_value::{CreateOption, Value, named_values};
    use crate::pjrt::plugin::Plugin;
    use crate::pjrt::sys::Struct;

    /// The error object of the test plugin.
    struct PluginError {
        code: c_int,
        message: String,
    }

    unsafe extern "C" fn callback_error(
        code: c_int,
        message: *const c_char,
        message_size: usize,
    ) -> *mut sys::PJRT_Error {
        // SAFETY: the callback passes a message that is alive during the call.
        let message = unsafe { crate::pjrt::api::text(message, message_size) };
        Box::into_raw(Box::new(PluginError { code, message })).cast()
    }

    unsafe extern "C" fn error_destroy(args: *mut sys::PJRT_Error_Destroy) {
        // SAFETY: every error of this plugin is such a box, and is destroyed once.
        drop(unsafe { Box::from_raw((*args).error.cast::<PluginError>()) });
    }

    unsafe extern "C" fn error_message(args: *mut sys::PJRT_Error_Message) {
        // SAFETY: as above; the error outlives the reading.
        unsafe {
            let error = &*(*args).error.cast::<PluginError>();
            ((*args).message, (*args).message_size) = (error.message.as_ptr().cast(), error.message.len());
        }
    }

    unsafe extern "C" fn error_code(args: *mut sys::PJRT_Error_GetCode) -> *mut sys::PJRT_Error {
        // SAFETY: as above.
        unsafe { (*args).code = (*(*args).error.cast::<PluginError>()).code };
        ptr::null_mut()
    }

    /// Calls the three callbacks as a plugin does. As in XLA, `struct_size` of their arguments is arbitrary.
    struct Store<'a>(&'a sys::PJRT_Client_Create);

    impl Store<'_> {
        fn put(&self, key: &str, value: &[u8]) -> Result<(), *mut sys::PJRT_Error> {
            let error: sys::PJRT_CallbackError = callback_error;
            let mut args = sys::PJRT_KeyValuePutCallback_Args {
                struct_size: usize::MAX,
                key: key.as_ptr().cast(),
                key_size: key.len(),
                value: value.as_ptr().cast(),
                value_size: value.len(),
                callback_error: &error,
                user_arg: self.0.kv_put_user_arg,
                ..Struct::new()
            };
            // SAFETY: the arguments are as the contract has them.
            let failed = unsafe { self.0.kv_put_callback.expect("is set")(&mut args) };
            if failed.is_null() { Ok(()) } else { Err(failed) }
        }

        fn get(&self, key: &[u8], timeout_in_ms: c_int) -> Result<Vec<u8>, *mut sys::PJRT_Error> {
            let error: sys::PJRT_CallbackError = callback_error;
            let mut args = sys::PJRT_KeyValueGetCallback_Args {
                struct_size: usize::MAX,
                key: key.as_ptr().cast(),
                key_size: key.len(),
                timeout_in_ms,
                callback_error: &error,
                user_arg: self.0.kv_get_user_arg,
                ..Struct::new()
            };
            // SAFETY: the arguments are as the contract has them; a value is copied before it is deleted.
            unsafe {
                let failed = self.0.kv_get_callback.expect("is set")(&mut args);
                if !failed.is_null() {
                    return Err(failed);
                }
                let value = bytes(args.value, args.value_size).to_vec();
                args.value_deleter_callback.expect("is set")(args.value);
                Ok(value)
            }
        }

        fn try_get(&self, key: &str) -> Result<Vec<u8>, *mut sys::PJRT_Error> {
            let error: sys::PJRT_CallbackError = callback_error;
            let mut args = sys::PJRT_KeyValueTryGetCallback_Args {
                struct_size: usize::MAX,
                key: key.as_ptr().cast(),
                key_size: key.len(),
                callback_error: &error,
                user_arg: self.0.kv_try_get_user_arg,
                ..Struct::new()
            };
            // SAFETY: as above.
            unsafe {
                let failed = self.0.kv_try_get_callback.expect("is set")(&mut args);
                if !failed.is_null() {
                    return Err(failed);
                }
                let value = bytes(args.value, args.value_size).to_vec();
                args.value_deleter_callback.expect("is set")(args.value);
                Ok(value)
            }
        }
    }

    fn int64(args: &sys::PJRT_Client_Create, name: &str) -> i64 {
        // SAFETY: the options are alive during the call.
        match unsafe { named_values(args.create_options, args.num_options) }.get(name) {
            Some(Value::Int64(value)) => *value,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Exchanges topologies as XLA's GPU client does (`xla/pjrt/distributed/topology_util.cc`): each process puts its local
    /// topology, the first process collects them and puts the global topology, and all read that. Then, instead of
    /// creating a client, it fails with the global topology in the error message.
    unsafe extern "C" fn client_create(args: *mut sys::PJRT_Client_Create) -> *mut sys::PJRT_Error {
        // SAFETY: the caller passes its own arguments.
        let args = unsafe { &*args };
        let (node, nodes) = (int64(args, "node_id"), int64(args, "num_nodes"));
        let store = Store(args);
        let exchange = || {
            let local = [node as u8, 0, 0xff, b'\n'].repeat(1 + node as usize);
            store.put(&format!("gpu/local:{node}"), &local)?;
            if node == 0 {
                let mut all = Vec::new();
                for other in 0..nodes {
                    all.extend(store.get(format!("gpu/local:{other}").as_bytes(), 20_000)?);
                }
                store.put("gpu/global", &all)?;
            }
            let all = store.get(b"gpu/global", -1)?;
            assert_eq!(store.try_get("gpu/global")?, all);
            store.put("gpu/empty", b"")?;
            assert_eq!(store.get(b"gpu/empty", 0)?, b"");
            Ok(all)
        };
        let message = match exchange() {
            Ok(all) => format!("node {node} of {nodes} has {all:?}"),
            Err(failed) => return failed,
        };
        // An unset key is NOT_FOUND at once and DEADLINE_EXCEEDED after a wait; a key that is not UTF-8 is invalid.
        let code = |failed: *mut sys::PJRT_Error| {
            // SAFETY: errors of this plugin are boxes.
            unsafe { Box::from_raw(failed.cast::<PluginError>()) }.code
        };
        assert_eq!(store.try_get("nothing").map_err(code), Err(status::NOT_FOUND));
        assert_eq!(store.get(b"nothing", 5).map_err(code), Err(status::DEADLINE_EXCEEDED));
        assert_eq!(store.get(b"\xff", 5).map_err(code), Err(status::INVALID_ARGUMENT));
        Box::into_raw(Box::new(PluginError { code: status::UNAVAILABLE, message })).cast()
    }

    /// A plugin whose only operation is to fail to create a client.
    fn plugin() -> Plugin {
        // SAFETY: integers and pointers, for which zero is a value.
        let mut table: Box<sys::PJRT_Api> = Box::new(unsafe { std::mem::zeroed() });
        table.struct_size = size_of::<sys::PJRT_Api>();
        table.pjrt_api_version.minor_version = sys::API_MINOR_OLDEST;
        table.PJRT_Error_Destroy = error_destroy as *const c_void;
        table.PJRT_Error_Message = error_message as *const c_void;
        table.PJRT_Error_GetCode = error_code as *const c_void;
        table.PJRT_Client_Create = client_create as *const c_void;
        // SAFETY: the table is leaked.
        let api = unsafe { Api::new(Box::leak(table), "test.so".into()) }.expect("version is fine");
        Plugin { api: Arc::new(api) }
    }

    fn message(result: Result<Client, PjrtError>) -> String {
        match result {
            Err(PjrtError::Call { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    }

    fn create(node: i64, nodes: i64, store: Arc<dyn KeyValueStore>) -> String {
        let options = [CreateOption::new("node_id", node), CreateOption::new("num_nodes", nodes)];
        message(Client::new(&plugin(), &options, Some(store)))
    }

    #[test]
    fn processes_exchange_topologies_through_the_callbacks() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let store = || -> Arc<dyn KeyValueStore> { Arc::new(Directory::open(folder.path()).expect("writable")) };
        let found = std::thread::scope(|scope| {
            let threads = [0, 1, 2].map(|node| scope.spawn(move || create(node, 3, store())));
            threads.map(|thread| thread.join().expect("no panic"))
        });
        let global = (1..=3).flat_map(|copies| [copies as u8 - 1, 0, 255, 10].repeat(copies)).collect::<Vec<_>>();
        assert_eq!(found, [0, 1, 2].map(|node| format!("node {node} of 3 has {global:?}")));
    }

    #[test]
    fn failing_or_panicking_store_fails_client_creation_with_its_message() {
        #[derive(Debug)]
        struct Broken;
        impl std::fmt::Display for Broken {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("broken")
            }
        }
        impl KeyValueStore for Broken {
            fn put(&self, key: &str, _: &[u8]) -> Result<(), KeyValueError> {
                match key {
                    "gpu/local:0" => panic!("a panic in a store, on purpose"),
                    _ => Err(KeyValueError::Address { address: "etcd://nowhere".to_owned() }),
                }
            }
            fn try_get(&self, _: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
                Ok(None)
            }
            fn remove_all(&self, _: &str) -> Result<(), KeyValueError> {
                Ok(())
            }
        }
        assert!(create(0, 1, Arc::new(Broken)).contains("panicked"));
        assert!(create(1, 2, Arc::new(Broken)).contains("etcd://nowhere"));
    }

    #[test]
    fn values_of_every_length_are_allocated_and_freed() {
        for length in [0, 1, 7, 8, 9, 4096] {
            let value: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let given = allocate(&value);
            // SAFETY: what `allocate` returned is read within its size and deleted once.
            unsafe {
                assert_eq!(std::slice::from_raw_parts(given.cast::<u8>(), length), value);
                delete(given);
            }
        }
    }
}
