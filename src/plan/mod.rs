//! The plan: the compiled artifact, which executors run without the compiler.

pub mod device_code;
pub(crate) mod elf;
mod file;
mod in_place;
mod limits;
pub mod overlap;
mod verify;

pub use crate::kernel::choice::TunedKernel;
pub use crate::kernel::cost::{Caches, Machine};
pub use crate::kernel::schedule::{
    ALIGNMENT, Buffer, BufferRole, Schedule, ScheduleOutput, StateCopy, StateLayout, Storage,
};
use crate::kernel::target::{Convolutions, Fusion, Precision, Target};
pub use crate::tensor::{DType, Type};
pub use crate::types::{Distribution, Feed, INIT, Initialiser, ReduceKind, StateRole};
use crate::types::{InputDecl, StateDecl};
pub use device_code::DeviceCode;
pub use file::{PlanError, decode, digest, encode, is_plan, load, save};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub use verify::{VerifyError, verify};

/// The program that a plan was compiled from, so that a plan can be looked into and compiled anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file's name, for messages.
    pub name: String,
    /// The whole RON text.
    pub text: String,
    /// The sizes and values that were set, as `name=value`.
    pub overrides: Vec<String>,
    /// The optional passes that were run.
    pub optional: Vec<String>,
    /// The algorithms that kernels were tuned to.
    pub tuned: Vec<TunedKernel>,
    pub fusion: Fusion,
    /// What its kernels are made for.
    pub target: Target,
    pub precision: Precision,
    /// Whether rewrites were allowed to assume that all numbers are finite.
    pub fast_math: bool,
    pub convolutions: Convolutions,
}

impl Source {
    /// What the kernels are made for, in words: `GPUs of sm_90 in tf32`.
    pub fn made_for(&self) -> String {
        format!("{} in {}", self.target, self.precision.name())
    }
}

/// One entry point for one choice of sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntryPlan {
    /// The entry's name in the program.
    pub name: String,
    /// The sizes in which this specialisation differs from the program's own; empty for the entry
    /// itself.
    pub sizes: Vec<(String, usize)>,
    pub inputs: Vec<InputDecl>,
    pub schedule: Schedule,
}

/// A compiled program: a static schedule for each entry, all in one arena that starts with the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub name: String,
    pub source: Source,
    pub states: Vec<StateDecl>,
    pub state_layout: StateLayout,
    pub entries: Vec<EntryPlan>,
    /// Compiled code of its kernels. It is a section of its own in a file.
    #[serde(skip)]
    pub device_code: Option<Arc<DeviceCode>>,
}

impl Plan {
    /// Bytes of an arena that every entry fits in.
    pub fn arena_bytes(&self) -> usize {
        self.entries.iter().map(|e| e.schedule.arena_bytes).fold(self.state_layout.bytes, usize::max)
    }

    /// The entry of that name for the program's own sizes.
    pub fn entry(&self, name: &str) -> Option<&EntryPlan> {
        self.entries.iter().find(|e| e.name == name && e.sizes.is_empty())
    }
}
