//! A compiled program. An [`Executable`] can be asked about and written down; a [`LoadedExecutable`] can also run,
//! because it has devices.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use super::api::{Api, bytes, slice, text};
use super::buffer::{Buffer, BufferHandle, dtype_of};
use super::client_handle::ClientHandle;
use super::device::Device;
use super::error::PjrtError;
use super::event::Event;
use super::named_value::{Value, named_values};
use super::sys::{self, Call, Struct};
use crate::shape::Shape;

/// A compiled program without devices.
pub struct Executable {
    api: Arc<Api>,
    raw: *mut sys::PJRT_Executable,
    /// What it came from, if that must outlive it.
    _client: Option<Arc<ClientHandle>>,
}

// SAFETY: the C API's functions on an executable only read, from any thread.
unsafe impl Send for Executable {}
// SAFETY: as above.
unsafe impl Sync for Executable {}

/// What a program needs on one device, in bytes (`xla::CompiledMemoryStats`). A plugin older than a field leaves it 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompiledMemoryStats {
    pub generated_code: i64,
    pub argument: i64,
    pub output: i64,
    /// Arguments that become outputs in place: the effect of donation.
    pub alias: i64,
    pub temp: i64,
    pub peak: i64,
    pub total: i64,
}

impl CompiledMemoryStats {
    /// The most memory in use while the program runs: what the plugin says, or arguments, outputs and temporaries without
    /// what is aliased where it says nothing or, as the CPU plugin, a number that has no room for the temporaries.
    pub fn peak_estimate(&self) -> i64 {
        if self.peak > self.temp { self.peak } else { self.argument + self.output + self.temp - self.alias }
    }
}

/// The program after the compiler's passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptimizedProgram {
    /// `hlo_with_config` (an HloModuleProtoWithConfig: field 1 is the HloModuleProto), `hlo` or `mlir`.
    pub format: String,
    pub code: Vec<u8>,
}

impl Executable {
    /// # Safety
    /// `raw` is an executable of `api`'s plugin that nobody else destroys.
    pub(super) unsafe fn from_raw(
        api: &Arc<Api>,
        client: Option<Arc<ClientHandle>>,
        raw: *mut sys::PJRT_Executable,
    ) -> Self {
        Executable { api: api.clone(), raw, _client: client }
    }

    /// The module's name.
    pub fn name(&self) -> Result<String, PjrtError> {
        let mut args = sys::PJRT_Executable_Name { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive and owns its name.
        unsafe {
            self.api.call(&mut args)?;
            Ok(text(args.executable_name, args.executable_name_size))
        }
    }

    pub fn num_replicas(&self) -> Result<usize, PjrtError> {
        let mut args = sys::PJRT_Executable_NumReplicas { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.num_replicas)
    }

    pub fn num_partitions(&self) -> Result<usize, PjrtError> {
        let mut args = sys::PJRT_Executable_NumPartitions { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.num_partitions)
    }

    /// Arrays that one device returns.
    pub fn num_outputs(&self) -> Result<usize, PjrtError> {
        let mut args = sys::PJRT_Executable_NumOutputs { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.num_outputs)
    }

    /// Their shapes.
    pub fn output_shapes(&self) -> Result<Vec<Shape>, PjrtError> {
        let mut types = sys::PJRT_Executable_OutputElementTypes { executable: self.raw, ..Struct::new() };
        let mut dimensions = sys::PJRT_Executable_OutputDimensions { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive and owns the arrays; `dims` holds the dimensions of all outputs in a row.
        unsafe {
            self.api.call(&mut types)?;
            self.api.call(&mut dimensions)?;
            let types = slice(types.output_types, types.num_output_types);
            let ranks = slice(dimensions.dim_sizes, dimensions.num_outputs);
            let mut dims = slice(dimensions.dims, ranks.iter().sum()).iter().map(|&d| d as usize);
            let shape = |(&code, &rank): (&i32, &usize)| {
                Ok(Shape::new(dtype_of("an output", code)?, dims.by_ref().take(rank).collect::<Vec<_>>()))
            };
            types.iter().zip(ranks).map(shape).collect()
        }
    }

    pub fn memory_stats(&self) -> Result<CompiledMemoryStats, PjrtError> {
        let mut s = sys::PJRT_Executable_GetCompiledMemoryStats { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut s)? };
        Ok(CompiledMemoryStats {
            generated_code: s.generated_code_size_in_bytes,
            argument: s.argument_size_in_bytes,
            output: s.output_size_in_bytes,
            alias: s.alias_size_in_bytes,
            temp: s.temp_size_in_bytes,
            peak: s.peak_memory_in_bytes,
            total: s.total_size_in_bytes,
        })
    }

    /// What the compiler expects one run on one device to cost; `flops` and `bytes accessed` are the useful lines.
    ///
    /// # Errors
    /// Some plugins answer UNIMPLEMENTED.
    pub fn cost_analysis(&self) -> Result<BTreeMap<String, Value>, PjrtError> {
        let mut args = sys::PJRT_Executable_GetCostAnalysis { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive and owns the properties.
        unsafe {
            self.api.call(&mut args)?;
            Ok(named_values(args.properties, args.num_properties))
        }
    }

    /// A name for the compiled program that is the same for the same program, options and compiler.
    pub fn fingerprint(&self) -> Result<Vec<u8>, PjrtError> {
        let mut args = sys::PJRT_Executable_Fingerprint { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive and owns the fingerprint.
        unsafe {
            self.api.call(&mut args)?;
            Ok(bytes(args.executable_fingerprint, args.executable_fingerprint_size).to_vec())
        }
    }

    /// Bytes of machine code.
    pub fn generated_code_size(&self) -> Result<i64, PjrtError> {
        let mut args = sys::PJRT_Executable_SizeOfGeneratedCodeInBytes { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.size_in_bytes)
    }

    /// The compiled program as bytes, for [`super::Client::deserialize`].
    pub fn serialize(&self) -> Result<Vec<u8>, PjrtError> {
        let mut args = sys::PJRT_Executable_Serialize { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive; the bytes are alive until the deleter has run on what backs them.
        unsafe {
            self.api.call(&mut args)?;
            let serialized = bytes(args.serialized_bytes, args.serialized_bytes_size).to_vec();
            if let Some(delete) = args.serialized_executable_deleter {
                delete(args.serialized_executable);
            }
            Ok(serialized)
        }
    }

    /// The program as the compiler left it: fusions, layouts, custom calls.
    pub fn optimized_program(&self) -> Result<OptimizedProgram, PjrtError> {
        let mut program = sys::PJRT_Program::new();
        let mut args =
            sys::PJRT_Executable_OptimizedProgram { executable: self.raw, program: &mut program, ..Struct::new() };
        // SAFETY: the executable is alive. Without `code` the first call only tells the size; the second fills the
        // buffer of that size. The format belongs to the plugin and lives on.
        unsafe {
            self.api.call(&mut args)?;
            let mut code = vec![0u8; program.code_size];
            program.code = code.as_mut_ptr().cast();
            args.program = &mut program;
            self.api.call(&mut args)?;
            Ok(OptimizedProgram { format: text(program.format, program.format_size), code })
        }
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        let mut args = sys::PJRT_Executable_Destroy { executable: self.raw, ..Struct::new() };
        // SAFETY: ours and alive.
        let _ = unsafe { self.api.call(&mut args) };
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Executable({})", self.name().unwrap_or_default())
    }
}

/// A compiled program on its devices. It is an [`Executable`] too.
pub struct LoadedExecutable {
    executable: Executable,
    loaded: LoadedHandle,
    devices: Vec<Device>,
    num_outputs: usize,
}

struct LoadedHandle {
    client: Arc<ClientHandle>,
    raw: *mut sys::PJRT_LoadedExecutable,
}

// SAFETY: the C API lets any thread execute, several at a time.
unsafe impl Send for LoadedHandle {}
// SAFETY: as above.
unsafe impl Sync for LoadedHandle {}

impl Drop for LoadedHandle {
    fn drop(&mut self) {
        let mut args = sys::PJRT_LoadedExecutable_Destroy { executable: self.raw, ..Struct::new() };
        // SAFETY: ours and alive; runs under way hold the code on their own.
        let _ = unsafe { self.client.api.call(&mut args) };
    }
}

/// How one execution differs from the plain one.
#[derive(Debug, Clone, Default)]
pub struct ExecuteOptions {
    /// Arguments that must survive although the program would take their memory (`input_output_alias`). The plugin
    /// then copies them.
    pub non_donatable_input_indices: Vec<i64>,
}

/// An execution under way.
pub struct Execution {
    /// What it will return, `[device][output]`.
    pub outputs: Vec<Vec<Buffer>>,
    /// Its end on each device.
    pub complete: Vec<Event>,
}

impl LoadedExecutable {
    /// # Safety
    /// `raw` is a loaded executable of `client` that nobody else destroys.
    pub(super) unsafe fn from_raw(
        client: &Arc<ClientHandle>,
        raw: *mut sys::PJRT_LoadedExecutable,
    ) -> Result<Self, PjrtError> {
        let loaded = LoadedHandle { client: client.clone(), raw };
        let mut executable = sys::PJRT_LoadedExecutable_GetExecutable { loaded_executable: raw, ..Struct::new() };
        let mut devices = sys::PJRT_LoadedExecutable_AddressableDevices { executable: raw, ..Struct::new() };
        // SAFETY: the loaded executable is alive and owns the list of devices; the executable is then ours.
        unsafe {
            client.api.call(&mut executable)?;
            let executable = Executable::from_raw(&client.api, Some(client.clone()), executable.executable);
            client.api.call(&mut devices)?;
            let devices = slice(devices.addressable_devices, devices.num_addressable_devices)
                .iter()
                .filter_map(|&device| Device::at(client, device))
                .collect();
            let num_outputs = executable.num_outputs()?;
            Ok(LoadedExecutable { executable, loaded, devices, num_outputs })
        }
    }

    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    /// The devices of this process it runs on: argument lists and outputs are in this order.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Starts the program on all its devices and returns its outputs, `[device][output]`, while it runs. `arguments` is
    /// `[device][parameter]`. Arguments that the program aliases to outputs are donated: afterwards they read as
    /// deleted.
    ///
    /// # Errors
    /// If the arguments do not fit the program, or the start fails. An error of the run itself appears when an output
    /// is awaited or read.
    pub fn execute(&self, arguments: &[Vec<&Buffer>]) -> Result<Vec<Vec<Buffer>>, PjrtError> {
        Ok(self.execute_with(arguments, &ExecuteOptions::default())?.outputs)
    }

    /// [`LoadedExecutable::execute`] with options and with an event for each device's end.
    pub fn execute_with(&self, arguments: &[Vec<&Buffer>], options: &ExecuteOptions) -> Result<Execution, PjrtError> {
        const FUNCTION: &str = sys::PJRT_LoadedExecutable_Execute::FUNCTION;
        let client = &self.loaded.client;
        let refuse = |required: String, found: String| PjrtError::Argument { what: FUNCTION, required, found };
        if arguments.len() != self.devices.len() {
            return Err(refuse(
                format!("one argument list for each of {} devices", self.devices.len()),
                arguments.len().to_string(),
            ));
        }
        let num_args = arguments.first().map_or(0, Vec::len);
        if let Some(list) = arguments.iter().find(|list| list.len() != num_args) {
            return Err(refuse(format!("{num_args} arguments on every device"), list.len().to_string()));
        }
        if arguments.iter().flatten().any(|buffer| !Arc::ptr_eq(&buffer.handle.client, client)) {
            return Err(refuse("buffers of the executable's client".to_owned(), "one of another client".to_owned()));
        }

        let arguments: Vec<Vec<*mut sys::PJRT_Buffer>> =
            arguments.iter().map(|list| list.iter().map(|buffer| buffer.handle.raw).collect()).collect();
        let argument_lists: Vec<*const *mut sys::PJRT_Buffer> = arguments.iter().map(|list| list.as_ptr()).collect();
        let mut outputs = vec![vec![ptr::null_mut::<sys::PJRT_Buffer>(); self.num_outputs]; arguments.len()];
        let output_lists: Vec<*mut *mut sys::PJRT_Buffer> = outputs.iter_mut().map(|list| list.as_mut_ptr()).collect();
        let mut complete = vec![ptr::null_mut::<sys::PJRT_Event>(); arguments.len()];
        let mut execute_options = sys::PJRT_ExecuteOptions {
            non_donatable_input_indices: options.non_donatable_input_indices.as_ptr(),
            num_non_donatable_input_indices: options.non_donatable_input_indices.len(),
            ..Struct::new()
        };
        let mut args = sys::PJRT_LoadedExecutable_Execute {
            executable: self.loaded.raw,
            options: &mut execute_options,
            argument_lists: argument_lists.as_ptr(),
            num_devices: argument_lists.len(),
            num_args,
            output_lists: output_lists.as_ptr(),
            device_complete_events: complete.as_mut_ptr(),
            ..Struct::new()
        };
        // SAFETY: all lists are alive during the call and as long as said: one per device, `num_args` arguments and
        // `num_outputs` outputs each. On success every output and event is ours.
        unsafe {
            client.api.call(&mut args)?;
            let complete = complete.into_iter().map(|event| Event::from_raw(client, event, FUNCTION)).collect();
            // Own all of them before anything can fail.
            let own =
                |list: Vec<_>| list.into_iter().map(|raw| BufferHandle::from_raw(client, raw)).collect::<Vec<_>>();
            let outputs: Vec<Vec<BufferHandle>> = outputs.into_iter().map(own).collect();
            let outputs = outputs
                .into_iter()
                .map(|list| list.into_iter().map(Buffer::of_asked_shape).collect())
                .collect::<Result<_, PjrtError>>()?;
            Ok(Execution { outputs, complete })
        }
    }
}

impl fmt::Debug for LoadedExecutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {} devices", self.executable, self.devices.len())
    }
}

impl Deref for LoadedExecutable {
    type Target = Executable;

    fn deref(&self) -> &Executable {
        &self.executable
    }
}
