//! Events, which report the completion and the errors of asynchronous work of a plugin.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::client_handle::ClientHandle;
use super::error::PjrtError;
use super::sys::{self, Struct};

/// Completion of asynchronous work. Dropping it does not cancel or await the work.
pub struct Event {
    client: Arc<ClientHandle>,
    /// Null if the work had already ended when the plugin would have created the event.
    raw: *mut sys::PJRT_Event,
    /// The C function that started the work, named in its error.
    started_by: &'static str,
}

// SAFETY: the C API lets any thread poll, await and destroy an event.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// Wraps an event.
    ///
    /// # Safety
    /// `raw` is null or an event of `client`'s plugin that nobody else destroys.
    pub(super) unsafe fn from_raw(
        client: &Arc<ClientHandle>,
        raw: *mut sys::PJRT_Event,
        started_by: &'static str,
    ) -> Self {
        Event { client: client.clone(), raw, started_by }
    }

    /// Returns whether the work has ended, with or without an error.
    ///
    /// # Errors
    /// If the call itself fails.
    pub fn is_ready(&self) -> Result<bool, PjrtError> {
        if self.raw.is_null() {
            return Ok(true);
        }
        let mut args = sys::PJRT_Event_IsReady { event: self.raw, ..Struct::new() };
        // SAFETY: the event is alive until drop.
        unsafe { self.client.api.call(&mut args)? };
        Ok(args.is_ready)
    }

    /// Blocks until the work has ended.
    ///
    /// # Errors
    /// The error of the work, with the name of the function that started it. Repeated calls return it again.
    pub fn wait(&self) -> Result<(), PjrtError> {
        if self.raw.is_null() {
            return Ok(());
        }
        let mut args = sys::PJRT_Event_Await { event: self.raw, ..Struct::new() };
        // SAFETY: the event is alive until drop.
        unsafe { self.client.api.call(&mut args) }.map_err(|error| self.renamed(error))
    }

    /// Calls `callback` once when the work has ended, on a thread of the plugin, or immediately if it has ended already.
    ///
    /// A panic in the callback is reported by the panic hook and does not propagate. The callback must not wait for other
    /// events, nor drop the last owner of a client.
    ///
    /// # Errors
    /// If the plugin does not register the callback.
    pub fn on_ready(&self, callback: impl FnOnce(Result<(), PjrtError>) + Send + 'static) -> Result<(), PjrtError> {
        if self.raw.is_null() {
            callback(Ok(()));
            return Ok(());
        }
        // The closure does not hold the client, because a thread of the plugin must not destroy it.
        let (api, started_by) = (self.client.api.clone(), self.started_by);
        let complete: OnReady = Box::new(move |error| {
            // SAFETY: the plugin passes ownership of the error to the callback.
            callback(unsafe { api.take_error(error, started_by) });
        });
        // A fat pointer does not fit `void*`, hence the second box.
        let user_arg: *mut OnReady = Box::into_raw(Box::new(complete));
        let mut args = sys::PJRT_Event_OnReady {
            event: self.raw,
            callback: Some(run_on_ready),
            user_arg: user_arg.cast(),
            ..Struct::new()
        };
        // SAFETY: the event is alive; the callback takes back the box that `user_arg` points to, once.
        let registered = unsafe { self.client.api.call(&mut args) };
        if registered.is_err() {
            // SAFETY: the plugin refused the callback, so the box is still ours.
            drop(unsafe { Box::from_raw(user_arg) });
        }
        registered
    }

    fn renamed(&self, error: PjrtError) -> PjrtError {
        match error {
            PjrtError::Call { code, message, .. } => PjrtError::Call { function: self.started_by, code, message },
            other => other,
        }
    }
}

type OnReady = Box<dyn FnOnce(*mut sys::PJRT_Error) + Send>;

unsafe extern "C" fn run_on_ready(error: *mut sys::PJRT_Error, user_arg: *mut c_void) {
    // SAFETY: `user_arg` is the box made in `on_ready`, and the plugin calls once.
    let complete = unsafe { Box::from_raw(user_arg.cast::<OnReady>()) };
    // Unwinding into C++ would be undefined; the panic hook has already reported it.
    let _ = catch_unwind(AssertUnwindSafe(|| complete(error)));
}

impl Drop for Event {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            let mut args = sys::PJRT_Event_Destroy { event: self.raw, ..Struct::new() };
            // SAFETY: alive and ours; nothing uses it afterwards. A failure to destroy leaves nothing to do.
            let _ = unsafe { self.client.api.call(&mut args) };
        }
    }
}
