//! The memory that a plan runs in, as the executor owns it and as its workers share it.

use crate::exec::ExecError;
use crate::plan::{ALIGNMENT, DType};
use crate::tensor::Native;
use std::alloc::{Layout, alloc_zeroed};

/// Bytes that start at a cache line.
#[derive(Debug)]
pub struct Memory {
    words: Vec<u64>,
    /// Words before the first cache line.
    skip: usize,
    bytes: usize,
}

impl Memory {
    /// Zeros, which the system gives page by page when they are first touched. `what` they are for is said where the
    /// machine has not so much.
    ///
    /// # Errors
    /// When it has not.
    pub fn new(bytes: usize, what: &str) -> Result<Memory, ExecError> {
        const LINE: usize = ALIGNMENT / size_of::<u64>();
        let total = bytes.div_ceil(size_of::<u64>()) + LINE;
        let too_large = || ExecError::OutOfMemory { bytes, what: what.into() };
        let layout = Layout::array::<u64>(total).map_err(|_| too_large())?;
        // SAFETY: the layout is of at least a cache line.
        let start: *mut u64 = unsafe { alloc_zeroed(layout) }.cast();
        if start.is_null() {
            return Err(too_large());
        }
        // SAFETY: allocated just now as an array of so many words, all of them 0, and owned by nobody else.
        let mut words = unsafe { Vec::from_raw_parts(start, total, total) };
        prefer_huge_pages(&mut words);
        let skip = words.as_ptr().align_offset(ALIGNMENT).min(LINE);
        Ok(Memory { words, skip, bytes })
    }

    pub fn all(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words[self.skip..])[..self.bytes]
    }

    /// All of it as f32.
    pub fn floats(&mut self) -> &mut [f32] {
        let whole = self.bytes / size_of::<f32>() * size_of::<f32>();
        bytemuck::cast_slice_mut(&mut self.all()[..whole])
    }
}

/// Floats that start at a cache line, so that a vector of any width which starts where a line does lies in one.
#[derive(Debug, Default)]
pub struct Floats {
    all: Vec<f32>,
    /// Floats before the first cache line.
    skip: usize,
}

impl Floats {
    /// Zeros.
    pub fn new(len: usize) -> Floats {
        const LINE: usize = ALIGNMENT / size_of::<f32>();
        let mut all = vec![0.0; len + LINE];
        let skip = all.as_ptr().align_offset(ALIGNMENT).min(LINE);
        all.truncate(skip + len);
        Floats { all, skip }
    }
}

impl std::ops::Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.all[self.skip..]
    }
}

impl std::ops::DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.all[self.skip..]
    }
}

/// Asks for large pages before memory is first touched: kernels go through many places of it at a time, and the processor
/// remembers where only so many pages are.
#[cfg(all(target_os = "linux", not(miri)))]
fn prefer_huge_pages(words: &mut Vec<u64>) {
    const HUGE: usize = 2 << 20;
    let start = words.as_mut_ptr().cast::<u8>();
    let skip = start.align_offset(HUGE);
    let whole = (words.capacity() * size_of::<u64>()).saturating_sub(skip) / HUGE * HUGE;
    if whole > 0 {
        // SAFETY: the pages are inside the vector's memory, and what they hold does not change. A system that has no such
        // pages says so, and goes on with small ones.
        let _ =
            unsafe { rustix::mm::madvise(start.wrapping_add(skip).cast(), whole, rustix::mm::Advice::LinuxHugepage) };
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn prefer_huge_pages(_: &mut Vec<u64>) {}

/// Where a tensor starts in the arena, and what its elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// A multiple of [`ALIGNMENT`].
    pub byte: usize,
    pub dtype: DType,
    /// Whether what a kernel stores there is read so much later that no cache holds it until then.
    pub is_far: bool,
}

impl Location {
    /// Of what may well be read soon.
    pub fn new(byte: usize, dtype: DType) -> Location {
        Location { byte, dtype, is_far: false }
    }

    /// In elements of its type, as the arena's functions count.
    pub fn first(self) -> usize {
        self.byte / self.dtype.size()
    }
}

/// The arena as workers share it: positions and lengths are in elements of the type that is asked for.
#[derive(Clone, Copy)]
pub struct Arena {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: the pointer is to memory that outlives the kernel launch that shares it, and what tasks do with it
// does not overlap, by the obligation of `Arena::new`.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// # Safety
    /// While the arena or a copy of it is in use, `memory` must stay alive and be used through it alone, and no
    /// task may write bytes that another task running at the same time reads or writes. The kernels of a plan that
    /// `plan::verify` accepts keep to that, run one after the other: a kernel's results overlap nothing that it reads,
    /// except element for element, and each element of a result belongs to one task.
    pub unsafe fn new(memory: &mut [u8]) -> Arena {
        debug_assert!((memory.as_ptr() as usize).is_multiple_of(ALIGNMENT) || cfg!(miri), "elements are aligned");
        Arena { base: memory.as_mut_ptr(), bytes: memory.len() }
    }

    /// The pointer to element `start`, once `len` elements from there on are known to be inside.
    fn pointer<T: Native>(&self, start: usize, len: usize) -> *mut T {
        let end = start.checked_add(len).and_then(|end| end.checked_mul(size_of::<T>()));
        assert!(end.is_some_and(|end| end <= self.bytes), "outside of the arena");
        // In bounds by the assertion; `wrapping_add` asks for no proof.
        self.base.wrapping_add(start * size_of::<T>()).cast()
    }

    /// `len` elements from element `start` on.
    pub fn read<T: Native>(&self, start: usize, len: usize) -> &[T] {
        let from = self.pointer(start, len);
        // SAFETY: in bounds by `pointer` and aligned, as the arena is and whole elements are before it; any bits are a
        // `T`; no task writes what another reads, by the obligation of `new`, and this one writes only through the
        // functions below.
        unsafe { std::slice::from_raw_parts(from, len) }
    }

    /// Asks for the cache lines of `len` elements from element `start` on, which are wanted soon.
    pub fn prefetch<T: Native>(&self, start: usize, len: usize) {
        let from: *const i8 = self.pointer::<T>(start, len).cast();
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        for byte in (0..len * size_of::<T>()).step_by(ALIGNMENT) {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: a hint, which reads nothing; every x86-64 has it.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(byte)) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = from;
    }

    /// `len` elements from element `start` on, to be written.
    ///
    /// # Safety
    /// The elements must be the calling task's alone, and no other slice of them may be in use with this one.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn write<T: Native>(&self, start: usize, len: usize) -> &mut [T] {
        let from = self.pointer(start, len);
        // SAFETY: in bounds and aligned as in `read`; unshared by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(from, len) }
    }

    /// Writes elements from element `start` on. They may be what is there already: a value that is stored as it
    /// was read, in its own place.
    ///
    /// # Safety
    /// The elements must be the calling task's alone, and no slice of them may be in use, except `values` where it is
    /// those elements themselves.
    pub unsafe fn store<T: Native>(&self, start: usize, values: &[T]) {
        let to: *mut T = self.pointer(start, values.len());
        // Memory that `values` borrows must not be written, not even with what it holds.
        if values.as_ptr() == to {
            return;
        }
        // SAFETY: in bounds and aligned as in `read`; unshared by the caller's word.
        unsafe { std::ptr::copy(values.as_ptr(), to, values.len()) };
    }

    /// The same into the cache next to the core, for what is read almost at once.
    #[inline(always)]
    pub fn prefetch_near<T: Native>(&self, start: usize, len: usize) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        for at in (0..len).step_by(ALIGNMENT / size_of::<T>()) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let address = self.base.wrapping_add((start + at) * size_of::<T>());
            // SAFETY: every such processor has SSE, and asking for memory is no use of it, wherever it is.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = (start, len);
    }

    /// Writes whole cache lines past the caches, where the processor can: numbers of which more are written than a cache
    /// holds. What it needs not do is read them first, and drop what else is there.
    ///
    /// # Safety
    /// The elements must be the calling task's alone, and no slice of them may be in use. The task must call
    /// [`Arena::settle`] before it ends or reads them.
    #[inline(always)]
    pub unsafe fn stream(&self, start: usize, lines: &[[f32; ALIGNMENT / size_of::<f32>()]]) {
        let values = lines.as_flattened();
        let to: *mut f32 = self.pointer(start, values.len());
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if (to as usize).is_multiple_of(ALIGNMENT) {
            use std::arch::x86_64::{_mm_loadu_ps, _mm_stream_ps};
            for at in (0..values.len()).step_by(4) {
                // SAFETY: in bounds by `pointer`, as `values` is a multiple of four; aligned by the condition; unshared
                // by the caller's word.
                unsafe { _mm_stream_ps(to.add(at), _mm_loadu_ps(values.as_ptr().add(at))) };
            }
            return;
        }
        // SAFETY: as in `store`; `lines` are not in the arena, of which no slice of these elements is in use.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len()) };
    }

    /// Writes words of a tensor from element `start` on: past the caches where it is read much later, but for lines that
    /// are written in part.
    ///
    /// # Safety
    /// As for [`Arena::store`], and as for [`Arena::stream`] where the tensor is far: `values` must not be in it then.
    pub unsafe fn store_in(&self, to: Location, start: usize, values: &[f32]) {
        const LINE: usize = ALIGNMENT / size_of::<f32>();
        let start = to.first() + start;
        if !to.is_far {
            // SAFETY: by the caller's word.
            return unsafe { self.store(start, values) };
        }
        let (head, rest) = values.split_at((start.next_multiple_of(LINE) - start).min(values.len()));
        let (lines, tail) = rest.as_chunks::<LINE>();
        let middle = start + head.len();
        // SAFETY: by the caller's word; the three parts lie side by side.
        unsafe {
            self.store(start, head);
            self.stream(middle, lines);
            self.store(middle + lines.len() * LINE, tail);
        }
    }

    /// Waits until what this thread has streamed is in memory.
    #[allow(clippy::unused_self)]
    pub fn settle(&self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: every such processor has SSE.
        unsafe {
            std::arch::x86_64::_mm_sfence();
        }
    }

    /// Writes one element.
    ///
    /// # Safety
    /// It must be the calling task's alone, and no slice of it may be in use.
    pub unsafe fn put<T: Native>(&self, at: usize, value: T) {
        let to: *mut T = self.pointer(at, 1);
        // SAFETY: in bounds and aligned as in `read`; unshared by the caller's word.
        unsafe { to.write(value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_write_and_read_their_own_elements() {
        let mut memory = Memory::new(256, "a test").unwrap();
        assert!((memory.all().as_ptr() as usize).is_multiple_of(ALIGNMENT));
        // SAFETY: the threads below write elements of their own.
        let arena = unsafe { Arena::new(memory.all()) };
        std::thread::scope(|scope| {
            for task in 0..4usize {
                scope.spawn(move || {
                    let own = task * 16;
                    // SAFETY: 16 floats for each task, and the slice ends before the next call.
                    unsafe { arena.write::<f32>(own, 15) }.fill(task as f32);
                    let first = arena.read::<f32>(own, 4);
                    // SAFETY: as above; what is borrowed lies elsewhere, and then in the same place.
                    unsafe {
                        arena.store(own + 8, first);
                        arena.store(own, first);
                        arena.put(own + 15, task as u32);
                    }
                });
            }
        });
        assert_eq!(arena.read::<u32>(63, 1), [3]);
        assert_eq!(arena.read::<f32>(32, 15), [2.0; 15]);
    }

    #[test]
    fn a_workers_floats_start_at_a_cache_line() {
        for len in [0, 1, 16, 1000] {
            let mut floats = Floats::new(len);
            assert_eq!(*floats, vec![0.0; len]);
            assert!((floats.as_ptr() as usize).is_multiple_of(ALIGNMENT) || cfg!(miri));
            floats.fill(1.0);
        }
    }

    #[test]
    fn lines_are_streamed_wherever_they_go() {
        let mut memory = Memory::new(512, "a test").unwrap();
        // SAFETY: one thread.
        let arena = unsafe { Arena::new(memory.all()) };
        for start in [0, 5, 16] {
            let lines = [[start as f32 + 1.0; 16], [start as f32 + 2.0; 16]];
            // SAFETY: as above; no slice is in use.
            unsafe { arena.stream(start, &lines) };
            arena.settle();
            assert_eq!(arena.read::<f32>(start, 32), lines.as_flattened());
        }
    }

    #[test]
    fn words_are_stored_near_and_far_alike() {
        let values: Vec<f32> = (1..200).map(|i| i as f32).collect();
        for (is_far, start, len) in [false, true].iter().flat_map(|far| {
            [(0, 32), (0, 7), (3, 5), (3, 13), (3, 14), (15, 17), (16, 100), (21, 150)].map(|(s, l)| (*far, s, l))
        }) {
            let mut memory = Memory::new(1024, "a test").unwrap();
            // SAFETY: one thread.
            let arena = unsafe { Arena::new(memory.all()) };
            let to = Location { is_far, ..Location::new(ALIGNMENT, DType::F32) };
            // SAFETY: as above; no slice is in use.
            unsafe { arena.store_in(to, start, &values[..len]) };
            arena.settle();
            assert_eq!(arena.read::<f32>(16 + start, len), &values[..len], "{is_far} {start} {len}");
            let around =
                [arena.read::<f32>(0, 16 + start), arena.read::<f32>(16 + start + len, 256 - 16 - start - len)];
            assert!(around.concat().iter().all(|x| *x == 0.0), "{is_far} {start} {len}");
        }
    }

    #[test]
    #[should_panic(expected = "outside of the arena")]
    fn nothing_is_read_outside() {
        let mut memory = Memory::new(64, "a test").unwrap();
        // SAFETY: one thread.
        let arena = unsafe { Arena::new(memory.all()) };
        arena.read::<f32>(15, 2);
    }
}
