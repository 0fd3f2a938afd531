//! The function table of a plugin, and the single place where its functions are called. Every call checks that the table
//! has the function and converts the C error into a [`PjrtError`].

use std::ffi::{c_char, c_void};
use std::path::PathBuf;
use std::ptr;

use super::error::{ErrorCode, PjrtError};
use super::sys::{self, Call, Struct};

/// The function table of a plugin. Its library is never unloaded, so the table is valid until the process ends.
pub(super) struct Api {
    table: *const sys::PJRT_Api,
    pub(super) path: PathBuf,
}

// SAFETY: the table is read-only after the plugin made it, and the C API's functions may be called from any thread.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

impl Api {
    /// Wraps a table and checks its version.
    ///
    /// # Safety
    /// `table` points to a `PJRT_Api` of a plugin (of any version and length) that lives as long as the process.
    pub(super) unsafe fn new(table: *const sys::PJRT_Api, path: PathBuf) -> Result<Self, PjrtError> {
        let api = Api { table, path };
        let (found, required) = (api.version(), (sys::API_MAJOR, sys::API_MINOR_OLDEST));
        if found.0 != required.0 || found.1 < required.1 {
            return Err(PjrtError::Version { path: api.path, found, required });
        }
        Ok(api)
    }

    /// Returns the version of the C API that the plugin was built with: major, minor.
    pub(super) fn version(&self) -> (i32, i32) {
        // SAFETY: every PJRT_Api begins with size, extensions and version, whatever its length; no reference to the
        // whole struct is made.
        let version = unsafe { &(*self.table).pjrt_api_version };
        (version.major_version, version.minor_version)
    }

    /// Returns the pointer of the function whose argument struct is `T`.
    fn function<T: Call>(&self) -> Result<*const c_void, PjrtError> {
        // SAFETY: every table begins with its size, and the pointer is read only if the table reaches that far.
        let pointer = unsafe {
            if T::OFFSET + size_of::<*const c_void>() <= (*self.table).struct_size {
                self.table.byte_add(T::OFFSET).cast::<*const c_void>().read()
            } else {
                ptr::null()
            }
        };
        if pointer.is_null() {
            let (plugin, version) = (self.path.clone(), self.version());
            return Err(PjrtError::Absent { function: T::FUNCTION, plugin, version });
        }
        Ok(pointer)
    }

    /// Calls the function whose argument struct is `args`.
    ///
    /// # Errors
    /// If the plugin does not have the function, or the call fails.
    ///
    /// # Safety
    /// The fields satisfy the function's contract: handles of this plugin that are alive, pointers valid for the
    /// sizes beside them for as long as the contract says.
    pub(super) unsafe fn call<T: Call>(&self, args: &mut T) -> Result<(), PjrtError> {
        let function = self.function::<T>()?;
        // SAFETY: `function` is the pointer of the function whose argument struct is `T` (contract of `Call`).
        let function: unsafe extern "C" fn(*mut T) -> *mut sys::PJRT_Error = unsafe { std::mem::transmute(function) };
        // SAFETY: `args` is valid for the call; the rest is the caller's promise.
        let error = unsafe { function(args) };
        // SAFETY: a non-null result is an error that now belongs to us.
        unsafe { self.take_error(error, T::FUNCTION) }
    }

    /// Converts an owned C error and destroys it; null is success.
    ///
    /// # Safety
    /// `error` is null or an error of this plugin that nobody else destroys.
    pub(super) unsafe fn take_error(
        &self,
        error: *mut sys::PJRT_Error,
        function: &'static str,
    ) -> Result<(), PjrtError> {
        if error.is_null() {
            return Ok(());
        }
        let message = self.error_message(error);
        let code = ErrorCode::from_raw(self.error_code(error));
        let mut destroy = sys::PJRT_Error_Destroy { error, ..Struct::new() };
        if let Ok(function) = self.function::<sys::PJRT_Error_Destroy>() {
            // SAFETY: the header declares this function without a result; `error` is alive and not used afterwards.
            unsafe {
                let function: unsafe extern "C" fn(*mut sys::PJRT_Error_Destroy) = std::mem::transmute(function);
                function(&mut destroy);
            }
        }
        Err(PjrtError::Call { function, code, message })
    }

    fn error_message(&self, error: *const sys::PJRT_Error) -> String {
        let Ok(function) = self.function::<sys::PJRT_Error_Message>() else {
            return "(no message: the plugin does not have PJRT_Error_Message)".to_owned();
        };
        let mut args = sys::PJRT_Error_Message { error, ..Struct::new() };
        // SAFETY: the header declares this function without a result; `error` is alive, and the message lives as long.
        unsafe {
            let function: unsafe extern "C" fn(*mut sys::PJRT_Error_Message) = std::mem::transmute(function);
            function(&mut args);
            text(args.message, args.message_size)
        }
    }

    fn error_code(&self, error: *const sys::PJRT_Error) -> i32 {
        let mut args = sys::PJRT_Error_GetCode { error, ..Struct::new() };
        let Ok(function) = self.function::<sys::PJRT_Error_GetCode>() else { return 0 };
        // SAFETY: `error` is alive. If the call itself fails, its error is dropped, because there is one to report already.
        unsafe {
            let function: unsafe extern "C" fn(*mut sys::PJRT_Error_GetCode) -> *mut sys::PJRT_Error =
                std::mem::transmute(function);
            function(&mut args);
        }
        args.code
    }
}

/// Copies text owned by the plugin.
///
/// # Safety
/// `data` is null or valid for `size` bytes.
pub(super) unsafe fn text(data: *const c_char, size: usize) -> String {
    // SAFETY: the caller's promise.
    String::from_utf8_lossy(unsafe { bytes(data, size) }).into_owned()
}

/// Borrows bytes owned by the plugin.
///
/// # Safety
/// `data` is null or valid for `size` bytes for all of `'a`.
pub(super) unsafe fn bytes<'a>(data: *const c_char, size: usize) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { slice(data.cast(), size) }
}

/// Borrows an array owned by the plugin; null is empty.
///
/// # Safety
/// `data` is null or valid for `size` elements for all of `'a`.
pub(super) unsafe fn slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if data.is_null() || size == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data, size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with space for the first `functions` functions, all null.
    fn table(version: (i32, i32), functions: usize) -> *const sys::PJRT_Api {
        // SAFETY: integers and pointers, for which zero is a value.
        let mut table: Box<sys::PJRT_Api> = Box::new(unsafe { std::mem::zeroed() });
        table.struct_size = 40 + 8 * functions;
        table.pjrt_api_version.major_version = version.0;
        table.pjrt_api_version.minor_version = version.1;
        Box::leak(table)
    }

    #[test]
    fn version_error_names_both_versions() {
        // SAFETY: the table is leaked.
        let error = unsafe { Api::new(table((1, 2), 0), "new.so".into()) }.err().expect("unsupported version");
        let message = error.to_string();
        assert!(message.contains("PJRT C API 1.2") && message.contains("major version 0"), "{message}");
        // SAFETY: the table is leaked.
        assert!(unsafe { Api::new(table((0, 56), 0), "old.so".into()) }.is_err());
        // SAFETY: the table is leaked.
        assert!(unsafe { Api::new(table((0, 999), 0), "newer.so".into()) }.is_ok());
    }

    #[test]
    fn missing_function_error_names_function_plugin_and_version() {
        // SAFETY: the table is leaked.
        let api = unsafe { Api::new(table((0, 60), 5), "short.so".into()) }.expect("version is fine");
        let mut args = sys::PJRT_Executable_GetCompiledMemoryStats::new();
        // SAFETY: the call cannot happen, the table being too short.
        let error = unsafe { api.call(&mut args) }.expect_err("absent");
        assert_eq!(
            error.to_string(),
            "the plugin short.so (PJRT C API 0.60) does not have PJRT_Executable_GetCompiledMemoryStats: install a newer \
             plugin"
        );
    }
}
