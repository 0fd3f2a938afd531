//! Large blocks of memory, kept for the next execution of a program.
//!
//! XLA's CPU client asks for the temporaries of a program in each execution (`posix_memalign`) and gives them back at its end
//! (`free`). glibc maps memory of this size (32 MiB and more) anew each time, and the kernel clears every page: up to two
//! fifths of a training step. So this module replaces these functions in the whole process. Blocks of 4 MiB and more are mapped here, in huge
//! pages, and kept for the next request of about the same size; all others are those of the next allocator in the process, glibc's
//! or a preloaded one.
//!
//! At most a tenth more memory is kept than the blocks in use ever had at one time, and a block that nothing has asked for during 2,000
//! requests and releases is given back to the system.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::iter;
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// The smallest and the largest block that is kept, in bytes.
const SMALLEST: usize = 4 << 20;
const LARGEST: usize = 1 << 46;
/// The size of a huge page. Blocks begin at a multiple of it and have a multiple of it as size.
const HUGE_PAGE: usize = 2 << 20;
/// The most blocks at one time; others are allocated as small ones.
const MOST_BLOCKS: usize = 512;
/// The requests and releases of blocks after which a block that is not used is given back.
const MOST_USES: u64 = 2_000;

/// A program gives its blocks back shortly after its results are there. A request that only a block in use would fit waits for that,
/// before a new block is mapped.
const PAUSE: Duration = Duration::from_micros(50);
const MOST_PAUSES: u32 = 40;

static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks::new());

/// A mapped block.
#[derive(Clone, Copy, Debug)]
struct Block {
    address: usize,
    bytes: usize,
    /// The number of the request or release that was the last for this block.
    last_use: u64,
    in_use: bool,
}

impl Block {
    /// Returns whether the block has `bytes`, and at most an eighth more.
    fn fits(&self, bytes: usize) -> bool {
        (bytes..=bytes + bytes / 8).contains(&self.bytes)
    }
}

/// The mapped blocks. It does not allocate.
#[derive(Debug)]
struct Blocks {
    blocks: [Option<Block>; MOST_BLOCKS],
    /// Bytes of the blocks in use, and the most that they had.
    in_use: usize,
    most_in_use: usize,
    /// Bytes of the blocks that are kept.
    kept: usize,
    uses: u64,
}

impl Blocks {
    const fn new() -> Blocks {
        Blocks { blocks: [None; MOST_BLOCKS], in_use: 0, most_in_use: 0, kept: 0, uses: 0 }
    }

    /// Counts a request for `bytes`. Returns the address of a kept block that fits, which is in use from now on.
    fn reuse(&mut self, bytes: usize) -> Option<usize> {
        self.uses += 1;
        let kept = self.blocks.iter_mut().flatten().filter(|block| !block.in_use && block.fits(bytes));
        // The one that was used last: its pages are most likely in the processor's caches.
        let block = kept.max_by_key(|block| block.last_use)?;
        (block.in_use, block.last_use) = (true, self.uses);
        let Block { address, bytes, .. } = *block;
        self.kept -= bytes;
        self.count_in_use(bytes);
        Some(address)
    }

    /// Returns whether a block in use would fit a request for `bytes`.
    fn awaits(&self, bytes: usize) -> bool {
        self.blocks.iter().flatten().any(|block| block.in_use && block.fits(bytes))
    }

    /// Adds a block that is in use. Returns whether there is room for it in the table.
    fn add(&mut self, address: usize, bytes: usize) -> bool {
        let Some(free) = self.blocks.iter_mut().find(|block| block.is_none()) else { return false };
        *free = Some(Block { address, bytes, last_use: self.uses, in_use: true });
        self.count_in_use(bytes);
        true
    }

    fn count_in_use(&mut self, bytes: usize) {
        self.in_use += bytes;
        self.most_in_use = self.most_in_use.max(self.in_use);
    }

    /// Returns the size of the block in use at `address`, if there is one.
    fn size(&self, address: usize) -> Option<usize> {
        let found = self.blocks.iter().flatten().find(|block| block.in_use && block.address == address);
        found.map(|block| block.bytes)
    }

    /// Keeps the block at `address`, which is not used any more. Returns whether there is such a block.
    fn release(&mut self, address: usize) -> bool {
        self.uses += 1;
        let mut in_use = self.blocks.iter_mut().flatten().filter(|block| block.in_use);
        let Some(block) = in_use.find(|block| block.address == address) else { return false };
        (block.in_use, block.last_use) = (false, self.uses);
        self.in_use -= block.bytes;
        self.kept += block.bytes;
        true
    }

    /// Removes the kept block that was not used for the longest time, if `is_surplus` of its last use, and returns its address and
    /// size.
    fn take_oldest(&mut self, is_surplus: impl FnOnce(u64) -> bool) -> Option<(usize, usize)> {
        let kept = self.blocks.iter_mut().filter(|block| block.is_some_and(|block| !block.in_use));
        let oldest = kept.min_by_key(|block| block.map(|block| block.last_use))?;
        let Block { address, bytes, .. } = oldest.filter(|block| is_surplus(block.last_use))?;
        *oldest = None;
        self.kept -= bytes;
        Some((address, bytes))
    }

    /// Removes a kept block that must be given back, if there is one, and returns its address and size: the oldest, if it is too old
    /// or all blocks have too many bytes, of which `requested` are about to be mapped.
    fn surplus(&mut self, requested: usize) -> Option<(usize, usize)> {
        let most = self.most_in_use.max(self.in_use + requested);
        let (too_many, now) = (self.in_use + self.kept + requested > most + most / 10, self.uses);
        self.take_oldest(|last_use| too_many || now - last_use > MOST_USES)
    }
}

/// Gives blocks back to the system.
fn unmap(blocks: impl Iterator<Item = (usize, usize)>) {
    for (address, bytes) in blocks {
        // SAFETY: the block was mapped by `map`, and nothing uses it.
        let _ = unsafe { munmap(ptr::with_exposed_provenance_mut(address), bytes) };
    }
}

/// Maps a block in huge pages, where the system allows them.
fn map(bytes: usize) -> Result<usize, Errno> {
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping has no other user.
    let mapped = unsafe { mmap_anonymous(null_mut(), bytes + HUGE_PAGE, protection, flags) }?;
    let begin = mapped.expose_provenance();
    let address = begin.next_multiple_of(HUGE_PAGE);
    let at = ptr::with_exposed_provenance_mut::<c_void>;
    // SAFETY: these are the parts of the new mapping before and behind the block; what fails to be unmapped is never touched.
    let _ = unsafe { (address > begin).then(|| munmap(at(begin), address - begin)) };
    // SAFETY: as above.
    let _ = unsafe { munmap(at(address + bytes), begin + HUGE_PAGE - address) };
    // SAFETY: the advice changes the size of pages only. Without huge pages, the block has small ones.
    let _ = unsafe { madvise(at(address), bytes, Advice::LinuxHugepage) };
    Ok(address)
}

/// Returns a block for a request of `bytes`; none if the system refuses it or there are too many.
fn allocate(bytes: usize) -> Option<usize> {
    let bytes = bytes.next_multiple_of(HUGE_PAGE);
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pauses = 0;
    loop {
        if let Some(address) = blocks.reuse(bytes) {
            return Some(address);
        }
        if pauses == MOST_PAUSES || !blocks.awaits(bytes) {
            break;
        }
        drop(blocks);
        thread::sleep(PAUSE);
        pauses += 1;
        blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    }
    unmap(iter::from_fn(|| blocks.surplus(bytes)));
    let mapped = map(bytes).or_else(|_| {
        // There may be a limit on the address space.
        unmap(iter::from_fn(|| blocks.take_oldest(|_| true)));
        map(bytes)
    });
    let address = mapped.ok()?;
    let added = blocks.add(address, bytes);
    if !added {
        unmap(iter::once((address, bytes)));
    }
    added.then_some(address)
}

/// Calls `look` with the blocks and the address of `memory`, if this can be one of them.
fn of_block<T>(memory: *mut c_void, look: impl FnOnce(&mut Blocks, usize) -> T) -> Option<T> {
    let address = memory.addr();
    let can_be = address != 0 && address.is_multiple_of(HUGE_PAGE);
    can_be.then(|| look(&mut BLOCKS.lock().unwrap_or_else(PoisonError::into_inner), address))
}

/// A function of the next allocator in the process, which is looked up once.
struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Next {
        Next { name, address: AtomicPtr::new(null_mut()) }
    }

    fn address(&self) -> *mut c_void {
        /// The first definition behind that of this executable.
        const RTLD_NEXT: *mut c_void = ptr::without_provenance_mut(usize::MAX);
        unsafe extern "C" {
            fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
        }
        let known = self.address.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a C string. The C library has these functions, so the result is not null.
        let found = unsafe { dlsym(RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(found, Ordering::Relaxed);
        found
    }
}

static NEXT_FREE: Next = Next::new(c"free");
static NEXT_REALLOC: Next = Next::new(c"realloc");
static NEXT_POSIX_MEMALIGN: Next = Next::new(c"posix_memalign");

type Free = unsafe extern "C" fn(*mut c_void);
type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type PosixMemalign = unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int;

/// As POSIX defines it.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(memory: *mut *mut c_void, alignment: usize, bytes: usize) -> c_int {
    if (SMALLEST..=LARGEST).contains(&bytes)
        && alignment.is_power_of_two()
        && alignment <= HUGE_PAGE
        && let Some(address) = allocate(bytes)
    {
        // SAFETY: the caller gives a place for the result.
        unsafe { *memory = ptr::with_exposed_provenance_mut(address) };
        return 0;
    }
    // SAFETY: the function of this name has this type; the arguments are the caller's.
    unsafe {
        std::mem::transmute::<*mut c_void, PosixMemalign>(NEXT_POSIX_MEMALIGN.address())(memory, alignment, bytes)
    }
}

/// As the C standard defines it.
#[unsafe(no_mangle)]
unsafe extern "C" fn free(memory: *mut c_void) {
    let released = of_block(memory, |blocks, address| {
        let released = blocks.release(address);
        unmap(iter::from_fn(|| blocks.surplus(0)));
        released
    });
    if released != Some(true) {
        // SAFETY: the function of this name has this type; the memory is not one of the blocks.
        unsafe { std::mem::transmute::<*mut c_void, Free>(NEXT_FREE.address())(memory) }
    }
}

/// As the C standard defines it.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(memory: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: the function of this name has this type.
    let next = unsafe { std::mem::transmute::<*mut c_void, Realloc>(NEXT_REALLOC.address()) };
    let Some(size) = of_block(memory, |blocks, address| blocks.size(address)).flatten() else {
        // SAFETY: the arguments are the caller's, and the memory is not one of the blocks.
        return unsafe { next(memory, bytes) };
    };
    // SAFETY: without memory, it allocates.
    let new = unsafe { next(null_mut(), bytes) };
    if !new.is_null() {
        // SAFETY: both have at least so many bytes, and the new memory is not part of the block, which is in use until here.
        unsafe {
            ptr::copy_nonoverlapping(memory.cast::<u8>(), new.cast(), size.min(bytes));
            free(memory);
        }
    }
    new
}

/// Keeps the functions in the executable: nothing in it calls them by these definitions.
#[used]
static IN_EXECUTABLE: (PosixMemalign, Free, Realloc) = (posix_memalign, free, realloc);

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Requests a block as [`allocate`] does, with the next of a row of addresses instead of a mapping. Returns its address and
    /// whether it was kept, and adds to `returned` what was given back.
    fn request(blocks: &mut Blocks, bytes: usize, returned: &mut Vec<usize>) -> (usize, bool) {
        if let Some(address) = blocks.reuse(bytes) {
            return (address, true);
        }
        returned.extend(iter::from_fn(|| blocks.surplus(bytes)).map(|(_, bytes)| bytes));
        let address = (blocks.uses as usize + 1) << 40;
        assert!(blocks.add(address, bytes));
        (address, false)
    }

    #[test]
    fn a_block_is_kept_for_requests_of_about_its_size() {
        let (mut blocks, mut returned) = (Blocks::new(), Vec::new());
        let (first, _) = request(&mut blocks, 100 * MIB, &mut returned);
        assert_eq!((blocks.size(first), blocks.size(first + 1)), (Some(100 * MIB), None));
        let (second, _) = request(&mut blocks, 100 * MIB, &mut returned);
        assert!(blocks.release(first) && !blocks.release(first), "a block is released once");
        assert_eq!(request(&mut blocks, 90 * MIB, &mut returned), (first, true));
        assert!(blocks.release(second) && blocks.release(first));
        assert_eq!((blocks.in_use, blocks.kept, blocks.most_in_use), (0, 200 * MIB, 200 * MIB));
        assert_eq!(request(&mut blocks, 100 * MIB, &mut returned), (first, true), "the one that was used last");
        assert!(!request(&mut blocks, 80 * MIB, &mut returned).1, "it would waste a fifth");
        assert_eq!(returned, [100 * MIB]);
    }

    #[test]
    fn no_more_than_a_tenth_is_kept_beside_what_was_in_use() {
        let (mut blocks, mut returned) = (Blocks::new(), Vec::new());
        for mib in [100, 8, 60, 100, 8, 60, 40] {
            let (address, _) = request(&mut blocks, mib * MIB, &mut returned);
            blocks.release(address);
            assert!(blocks.surplus(0).is_none() && blocks.kept <= 110 * MIB, "{} bytes", blocks.kept);
        }
        assert_eq!(returned, [100, 8, 60, 100].map(|mib| mib * MIB));
    }

    #[test]
    fn a_block_without_requests_is_given_back() {
        let (mut blocks, mut returned) = (Blocks::new(), Vec::new());
        let addresses = [64, 32].map(|mib| request(&mut blocks, mib * MIB, &mut returned).0);
        assert!(addresses.iter().all(|address| blocks.release(*address)));
        for _ in 0..MOST_USES / 2 - 1 {
            assert!(blocks.surplus(0).is_none());
            let (address, kept) = request(&mut blocks, 32 * MIB, &mut returned);
            assert!(kept && blocks.release(address));
        }
        assert!(blocks.surplus(0).is_none());
        let (address, _) = request(&mut blocks, 32 * MIB, &mut returned);
        blocks.release(address);
        assert_eq!(blocks.surplus(0), Some((addresses[0], 64 * MIB)));
        assert!(returned.is_empty());
    }

    /// Memory that the standard library requests with `posix_memalign`.
    #[repr(align(64))]
    #[derive(Clone, Copy)]
    struct Line([u8; 64]);

    #[test]
    fn requests_of_this_process_are_served() {
        let block = |bytes: usize| -> Vec<Line> {
            let mut lines = Vec::with_capacity(bytes / 64);
            lines.resize(bytes / 64, Line([7; 64]));
            lines
        };
        let is_here = |lines: &Vec<Line>| {
            let address = lines.as_ptr().addr();
            BLOCKS.lock().unwrap().size(address).is_some_and(|_| address.is_multiple_of(HUGE_PAGE))
        };
        // Sizes that no other test requests.
        let (large, small) = (block(51 * MIB), block(MIB));
        assert!(is_here(&large) && !is_here(&small) && large.iter().all(|line| line.0 == [7; 64]));
        let address = large.as_ptr().addr();
        drop(large);
        let again = block(51 * MIB);
        assert!(is_here(&again) && again.iter().all(|line| line.0[63] == 7));
        assert_eq!(again.as_ptr().addr(), address, "the block was kept");
        // The standard library moves aligned memory itself; C code may call realloc.
        let mut grown = again;
        grown.reserve_exact(2 * grown.len());
        assert!(is_here(&grown) && grown.iter().all(|line| line.0[0] == 7));
        let memory = grown.as_mut_ptr().cast::<c_void>();
        std::mem::forget(grown);
        // SAFETY: the memory is a block in use, and its former owner is forgotten.
        unsafe {
            let small = realloc(memory, 100).cast::<u8>();
            assert_eq!(*small.add(99), 7);
            free(small.cast());
        }
    }
}
