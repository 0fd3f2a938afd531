//! Compiled programs. An [`Executable`] can be inspected and serialized; a [`LoadedExecutable`] also has devices and can run.

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
    /// The client of a loaded executable, which must outlive it.
    _client: Option<Arc<ClientHandle>>,
}

// SAFETY: the C API's functions on an executable only read, from any thread.
unsafe impl Send for Executable {}
// SAFETY: as above.
unsafe impl Sync for Executable {}

/// The memory of a program on one device, in bytes (`xla::CompiledMemoryStats`). A field that the plugin does not report is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompiledMemoryStats {
    /// Machine code.
    pub generated_code: i64,
    /// Arguments.
    pub argument: i64,
    /// Outputs.
    pub output: i64,
    /// Outputs that reuse the memory of donated arguments.
    pub alias: i64,
    /// Temporary buffers.
    pub temp: i64,
    /// The most memory in use at one time.
    pub peak: i64,
    /// The sum of all memory.
    pub total: i64,
}

impl CompiledMemoryStats {
    /// Returns the most memory in use while the program runs: the plugin's figure, or arguments + outputs + temporaries − aliases if
    /// there is none, or it leaves out the temporaries, as that of the CPU plugin does if the arguments are larger.
    pub fn peak_estimate(&self) -> i64 {
        let lasting = self.argument + self.output - self.alias;
        if self.peak - lasting >= self.temp / 2 { self.peak } else { lasting + self.temp }
    }
}

/// A program after XLA's optimization passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptimizedProgram {
    /// `hlo_with_config` (an HloModuleProtoWithConfig: field 1 is the HloModuleProto), `hlo` or `mlir`.
    pub format: String,
    /// The program.
    pub code: Vec<u8>,
}

impl Executable {
    /// Wraps an executable.
    ///
    /// # Safety
    /// `raw` is an executable of `api`'s plugin that nobody else destroys.
    pub(super) unsafe fn from_raw(
        api: &Arc<Api>,
        client: Option<Arc<ClientHandle>>,
        raw: *mut sys::PJRT_Executable,
    ) -> Self {
        Executable { api: api.clone(), raw, _client: client }
    }

    /// Returns the module's name.
    ///
    /// # Errors
    /// If the call fails.
    pub fn name(&self) -> Result<String, PjrtError> {
        let mut args = sys::PJRT_Executable_Name { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive and owns its name.
        unsafe {
            self.api.call(&mut args)?;
            Ok(text(args.executable_name, args.executable_name_size))
        }
    }

    /// Returns the number of replicas.
    ///
    /// # Errors
    /// If the call fails.
    pub fn num_replicas(&self) -> Result<usize, PjrtError> {
        let mut args = sys::PJRT_Executable_NumReplicas { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.num_replicas)
    }

    /// Returns the number of partitions.
    ///
    /// # Errors
    /// If the call fails.
    pub fn num_partitions(&self) -> Result<usize, PjrtError> {
        let mut args = sys::PJRT_Executable_NumPartitions { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.num_partitions)
    }

    /// Returns the number of outputs on one device.
    ///
    /// # Errors
    /// If the call fails.
    pub fn num_outputs(&self) -> Result<usize, PjrtError> {
        let mut args = sys::PJRT_Executable_NumOutputs { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.num_outputs)
    }

    /// Returns the shapes of the outputs.
    ///
    /// # Errors
    /// If a call fails, or an output has an unsupported element type.
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

    /// Returns the memory of the program on one device.
    ///
    /// # Errors
    /// If the call fails.
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

    /// Returns the compiler's estimate of one execution on one device, such as `flops` and `bytes accessed`.
    ///
    /// # Errors
    /// Some plugins return UNIMPLEMENTED.
    pub fn cost_analysis(&self) -> Result<BTreeMap<String, Value>, PjrtError> {
        let mut args = sys::PJRT_Executable_GetCostAnalysis { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive and owns the properties.
        unsafe {
            self.api.call(&mut args)?;
            Ok(named_values(args.properties, args.num_properties))
        }
    }

    /// Returns a fingerprint, which is equal for equal programs, options and compilers.
    ///
    /// # Errors
    /// Some plugins return UNIMPLEMENTED.
    pub fn fingerprint(&self) -> Result<Vec<u8>, PjrtError> {
        let mut args = sys::PJRT_Executable_Fingerprint { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive and owns the fingerprint.
        unsafe {
            self.api.call(&mut args)?;
            Ok(bytes(args.executable_fingerprint, args.executable_fingerprint_size).to_vec())
        }
    }

    /// Returns the bytes of machine code.
    ///
    /// # Errors
    /// If the call fails.
    pub fn generated_code_size(&self) -> Result<i64, PjrtError> {
        let mut args = sys::PJRT_Executable_SizeOfGeneratedCodeInBytes { executable: self.raw, ..Struct::new() };
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.size_in_bytes)
    }

    /// Serializes the compiled program for [`super::Client::deserialize`].
    ///
    /// # Errors
    /// If the call fails.
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

    /// Returns the optimized program with its fusions, layouts and custom calls.
    ///
    /// # Errors
    /// If a call fails.
    pub fn optimized_program(&self) -> Result<OptimizedProgram, PjrtError> {
        let mut program = sys::PJRT_Program::new();
        let mut args =
            sys::PJRT_Executable_OptimizedProgram { executable: self.raw, program: &mut program, ..Struct::new() };
        // SAFETY: the executable is alive. Without `code` the first call only returns the size; the second fills the
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

/// A compiled program on its devices. It dereferences to its [`Executable`].
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

/// Options of one execution.
#[derive(Debug, Clone, Default)]
pub struct ExecuteOptions {
    /// Arguments that are not donated although the program aliases them to outputs (`input_output_alias`). The plugin
    /// copies them.
    pub non_donatable_input_indices: Vec<i64>,
}

/// A running execution.
pub struct Execution {
    /// The outputs, `[device][output]`.
    pub outputs: Vec<Vec<Buffer>>,
    /// The completion event of each device.
    pub complete: Vec<Event>,
}

impl LoadedExecutable {
    /// Wraps a loaded executable.
    ///
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

    /// Returns the program without its devices.
    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    /// Returns the devices of this process that run the program, in the order of argument lists and outputs.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Starts the program on all its devices and returns its outputs, `[device][output]`, while it runs. `arguments` is
    /// `[device][parameter]`. Arguments that the program aliases to outputs are donated: they are deleted afterwards.
    ///
    /// # Errors
    /// If the arguments do not match the program, or the start fails. An error of the execution surfaces when an output
    /// is awaited or read.
    pub fn execute(&self, arguments: &[Vec<&Buffer>]) -> Result<Vec<Vec<Buffer>>, PjrtError> {
        Ok(self.execute_with(arguments, &ExecuteOptions::default())?.outputs)
    }

    /// Starts the program like [`LoadedExecutable::execute`], with options, and returns a completion event for each device.
    ///
    /// # Errors
    /// As [`LoadedExecutable::execute`].
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
            return Err(refuse(
                "buffers of the executable's client".to_owned(),
                "a buffer of another client".to_owned(),
            ));
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
            // Take ownership of all outputs before anything can fail.
            let own =
                |list: Vec<_>| list.into_iter().map(|raw| BufferHandle::from_raw(client, raw)).collect::<Vec<_>>();
            let outputs: Vec<Vec<BufferHandle>> = outputs.into_iter().map(own).collect();
            let outputs = outputs
                .into_iter()
                .map(|list| list.into_iter().map(Buffer::with_queried_shape).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_counts_arguments_and_temporaries() {
        let stats = |argument, output, alias, temp, peak| CompiledMemoryStats {
            argument,
            output,
            alias,
            temp,
            peak,
            ..CompiledMemoryStats::default()
        };
        // Steps of the CPU plugin with many weights, and with many activations; one of a TPU.
        let weights = stats(356_829_392, 356_828_962, 356_826_648, 274_824_769, 356_831_778);
        assert_eq!(weights.peak_estimate(), 356_831_706 + 274_824_769);
        let activations = stats(10_422_064, 10_322_722, 10_320_408, 487_475_137, 497_899_515);
        assert_eq!(activations.peak_estimate(), 497_899_515);
        let tpu = stats(21_387_264, 21_354_496, 21_350_400, 53_051_392, 67_050_496);
        assert_eq!(tpu.peak_estimate(), 67_050_496);
        // Without a figure.
        assert_eq!(stats(8, 4, 4, 100, 0).peak_estimate(), 108);
        assert_eq!(stats(0, 0, 0, 0, 0).peak_estimate(), 0);
    }
}
