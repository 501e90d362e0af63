//! Sums that were made in parts, added in order.

use super::matmul::Results;
use super::{Needs, Worker};
use crate::exec::cpu::arena::Arena;

/// Sums that one task adds.
const TOGETHER: usize = 1024;

#[derive(Debug)]
pub struct SumParts {
    /// The float of the arena at which the parts start, one after the other.
    parts: usize,
    count: usize,
    /// How many sums each part has.
    sums: usize,
    pub results: Results,
}

impl SumParts {
    pub fn new(parts: usize, count: usize, sums: usize, results: Results) -> SumParts {
        SumParts { parts, count, sums, results }
    }

    pub fn tasks(&self) -> usize {
        self.sums.div_ceil(TOGETHER)
    }

    pub fn needs(&self) -> Needs {
        Needs { out: TOGETHER.min(self.sums), ..Needs::default() }
    }

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        let start = task * TOGETHER;
        let out = &mut worker.out[..TOGETHER.min(self.sums - start)];
        out.fill(0.0);
        for part in 0..self.count {
            let sums = arena.read::<f32>(self.parts + part * self.sums + start, out.len());
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
        self.results.begin(arena, &mut worker.nest.registers);
        self.results.store(start, out, arena, &mut worker.nest.registers);
    }
}
