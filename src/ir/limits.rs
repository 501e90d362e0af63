//! Limits that programs are held to when they are declared and plans when they are loaded.

/// Most dimensions of a tensor: executors walk them with fixed-size counters.
pub const MAX_RANK: usize = 12;
/// Most elements of one tensor: the indices of a kernel stay within 31 bits.
pub const MAX_ELEMENTS: usize = i32::MAX as usize;
/// Most rows or columns of an image with its padding, and of a stride.
pub const MAX_PADDED: usize = 1 << 15;
