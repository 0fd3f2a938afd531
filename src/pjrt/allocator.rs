//! The host's allocator, as the CPU plugin needs it: memory that is freed stays with the process.
//!
//! On the CPU a program's temporaries are one large allocation, made and freed at every execution. By default glibc asks
//! the kernel for such memory and gives it back, and the kernel fills it with zeros again at the first touch of every
//! page: a fifth of the processor time of a small training step.

/// From now on freed memory is kept for the next allocation. Elsewhere than on Linux with glibc this does nothing.
pub(super) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_MMAP_MAX: c_int = -4;
        const M_ARENA_MAX: c_int = -8;
        // No allocation by mmap; the heap never shrinks (-1: no threshold); and one heap for all threads, because the
        // others cannot grow beyond 64 MB.
        for (parameter, value) in [(M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_ARENA_MAX, 1)] {
            // SAFETY: mallopt takes glibc's own lock, and any value of these parameters is valid at any time.
            unsafe { mallopt(parameter, value) };
        }
    }
}
