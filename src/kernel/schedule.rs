//! Schedules as data: kernels in order, and the buffers of the arena that they share.

use super::body::{BufferId, Kernel};
use crate::tensor::{DType, Shape, Type};
use crate::types::Rounding;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes to which every buffer is aligned: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// What a buffer holds for longer than the kernels that use it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BufferRole {
    /// Written by the caller before the run.
    Input(String),
    /// Lives from run to run; the same place in every entry.
    State(String),
    /// Read by the caller after the run.
    Output,
    /// Lives only within the run.
    Temporary,
    /// Used by one kernel while it runs.
    Workspace,
}

/// How the elements of a buffer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// One after the other, as their type is.
    #[default]
    Elements,
    /// Numbers that are 0 or 1, one bit each: element `i` is bit `i % 32` of word `i / 32`, from the lowest bit on. What is
    /// left of the last word is not used.
    Bits,
}

/// Elements in a word of [`Storage::Bits`].
pub const WORD_BITS: usize = 32;

/// A tensor in the arena.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// The name of the node whose value it holds.
    pub name: String,
    /// What an element is when it is read.
    pub dtype: DType,
    pub storage: Storage,
    pub shape: Shape,
    /// The order in which the dimensions lie in memory, outermost first; empty where it is that of the shape.
    pub order: Vec<usize>,
    pub role: BufferRole,
    /// Bytes from the start of the arena.
    pub offset: usize,
    /// The half-open range of schedule positions in which its contents matter.
    pub live: (usize, usize),
}

impl Buffer {
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> usize {
        match self.storage {
            Storage::Elements => self.elements() * self.dtype.size(),
            Storage::Bits => self.elements().div_ceil(WORD_BITS) * size_of::<u32>(),
        }
    }

    /// The bytes of the arena that it takes.
    pub fn span(&self) -> Range<usize> {
        self.offset..self.offset + self.bytes()
    }

    /// Whether both take some byte of the arena.
    pub fn overlaps(&self, other: &Buffer) -> bool {
        let (own, other) = (self.span(), other.span());
        own.start < other.end && other.start < own.end
    }

    /// What it holds as text, such as `f32[128,64]` or `bits[128,64]`.
    pub fn type_text(&self) -> String {
        let ty = Type::new(self.dtype, self.shape.clone()).to_string();
        match self.storage {
            Storage::Elements => ty,
            Storage::Bits => format!("bits{}", &ty[self.dtype.to_string().len()..]),
        }
    }
}

/// A named result of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleOutput {
    pub name: String,
    pub shape: Shape,
    pub buffer: BufferId,
}

/// Kernels in the order in which they run, and where their buffers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    pub kernels: Vec<Kernel>,
    pub buffers: Vec<Buffer>,
    pub outputs: Vec<ScheduleOutput>,
    /// Bytes of the arena, state included.
    pub arena_bytes: usize,
    /// The largest sum of bytes that are live at one position, state included: no arena is smaller.
    pub lower_bound: usize,
}

/// A state tensor in the fewer bits that contractions multiply, kept beside it so that no run has to round it: whatever
/// changes the tensor changes the copy too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCopy {
    /// The state tensor, which is of f32.
    pub of: String,
    pub rounding: Rounding,
}

impl StateCopy {
    /// The copy's type where that is the tensor's.
    pub fn ty(&self, of: &Type) -> Type {
        Type::new(self.rounding.dtype(), of.shape.clone())
    }
}

/// The places of the state tensors at the start of the arena, shared by all entries of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLayout {
    /// Offset in bytes of each state tensor.
    pub offsets: BTreeMap<String, usize>,
    /// Of those whose dimensions lie in memory in another order than their shape's, that order (see [`Buffer::order`]).
    pub orders: BTreeMap<String, Vec<usize>>,
    /// Of those that are copies of others, which nobody outside sees, what they are copies of.
    pub copies: BTreeMap<String, StateCopy>,
    /// Bytes of the whole region.
    pub bytes: usize,
}

impl StateLayout {
    /// Whether a state tensor is a copy in tf32.
    pub fn holds_tf32(&self, name: &str) -> bool {
        self.copies.get(name).is_some_and(|copy| copy.rounding == Rounding::Tf32)
    }

    /// Places state tensors one after the other, in the given order.
    ///
    /// # Errors
    /// When they do not fit the address space.
    pub fn new<'s>(states: impl IntoIterator<Item = (&'s str, &'s Type)>) -> Result<Self, StateTooLarge> {
        let mut layout = StateLayout::default();
        for (name, ty) in states {
            layout.offsets.insert(name.to_string(), layout.bytes);
            let end = layout.bytes.checked_add(ty.bytes()).and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
            layout.bytes = end.ok_or(StateTooLarge)?;
        }
        Ok(layout)
    }
}

/// State that does not fit the address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state does not fit the address space")]
pub struct StateTooLarge;
