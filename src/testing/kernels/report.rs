//! How far what kernels wrote is from what was expected, how far it may be, and what is said of it.

use crate::ir::Value;
use crate::tensor::{DType, Tensor};
use std::fmt;

/// How far apart two tensors are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The norm of the difference, as a part of the norm of what is expected.
    pub norm: f64,
    /// The largest difference of an element, as a part of the largest magnitude that is expected.
    pub most: f64,
}

impl Difference {
    pub(super) const NONE: Difference = Difference { norm: 0.0, most: 0.0 };
    pub(super) const FAR: Difference = Difference { norm: f64::INFINITY, most: f64::INFINITY };
    /// Of what is computed in f32: sums have an order of a device's own, and tensor cores may cut off what does not fit the
    /// sum so far. Products of operands with fewer bits than their precision says are off by more, 2e-4 and up.
    pub(super) const F32: Difference = Difference { norm: 1e-4, most: 1e-3 };
    /// Where a kernel rounds to 11 significant bits, a number between two of them may go to the other one, which is 2^-10 away.
    /// Few do: with all of them cut off the norm would be 5e-4.
    pub(super) const TF32: Difference = Difference { norm: 2e-4, most: 2e-3 };
    /// The same of 8 significant bits.
    pub(super) const BF16: Difference = Difference { norm: 1e-3, most: 1e-2 };

    /// How large it is beside what is allowed: beyond 1 it is too large.
    fn of(self, allowed: Difference) -> f64 {
        let part = |found: f64, allowed: f64| if found == 0.0 { 0.0 } else { found / allowed };
        part(self.norm, allowed.norm).max(part(self.most, allowed.most))
    }
}

/// A buffer that a kernel wrote, beside the CPU's.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    pub kernel: String,
    /// How a contraction is multiplied; none of other kernels.
    pub math: Option<&'static str>,
    pub buffer: String,
    /// Its type as text.
    pub ty: String,
    pub elements: usize,
    pub found: Difference,
    pub allowed: Difference,
}

impl Compared {
    pub fn is_near(&self) -> bool {
        self.found.of(self.allowed) <= 1.0
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compared { kernel, math, buffer, ty, found, allowed, .. } = self;
        let math = math.map_or(String::new(), |math| format!(" ({math})"));
        write!(f, "{kernel}{math}, `{buffer}` {ty}: norm {:.1e} of {:.0e}, ", found.norm, allowed.norm)?;
        write!(f, "element {:.1e} of {:.0e}", found.most, allowed.most)
    }
}

/// What all kernels of an entry wrote, beside the CPU's.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub entry: String,
    /// Every buffer that every kernel wrote, in the order of the run.
    pub compared: Vec<Compared>,
}

impl Report {
    /// What is not near, in the order of the run. As kernels are judged alone, none is here for what another did.
    pub fn far(&self) -> impl Iterator<Item = &Compared> {
        self.compared.iter().filter(|one| !one.is_near())
    }
}

impl fmt::Display for Report {
    /// A line for each kernel, of the buffer that is off most, each buffer that is not near, and a line of them all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let off = |one: &&Compared| one.found.of(one.allowed);
        let worst = |of: &'_ [Compared]| of.iter().max_by(|a, b| off(a).total_cmp(&off(b))).cloned();
        // Their names are unique.
        let kernels: Vec<&[Compared]> = self.compared.chunk_by(|a, b| a.kernel == b.kernel).collect();
        for one in kernels.iter().filter_map(|kernel| worst(kernel)) {
            writeln!(f, "{one}")?;
        }
        for one in self.far() {
            writeln!(f, "FAR: {one}")?;
        }
        let elements: usize = self.compared.iter().map(|one| one.elements).sum();
        let buffers = self.compared.len();
        let near = buffers - self.far().count();
        write!(
            f,
            "{}: {near} of the {buffers} buffers that {} kernels wrote are the CPU's",
            self.entry,
            kernels.len()
        )?;
        write!(f, " ({elements} elements)")?;
        match worst(&self.compared) {
            Some(one) => write!(f, "; off most is {one}"),
            None => Ok(()),
        }
    }
}

/// How far one tensor is from another of the same type. What is not finite must be so in both.
pub(super) fn difference(found: &Tensor, expected: &Tensor) -> Difference {
    if found.ty() != expected.ty() {
        return Difference::FAR;
    }
    if found.dtype() == DType::U32 {
        return if found == expected { Difference::NONE } else { Difference::FAR };
    }
    let (found, expected) = (Value::<f32>::from_tensor(found).to_f64(), Value::<f32>::from_tensor(expected).to_f64());
    let (mut norms, mut most) = ([0.0f64; 2], [0.0f64; 2]);
    for (&a, &b) in found.iter().zip(&expected) {
        if a == b || (a.is_nan() && b.is_nan()) {
            let size = if b.is_finite() { b.abs() } else { 0.0 };
            (norms[1], most[1]) = (norms[1] + size * size, most[1].max(size));
            continue;
        }
        let apart = (a - b).abs();
        if !apart.is_finite() {
            return Difference::FAR;
        }
        norms = [norms[0] + apart * apart, norms[1] + b * b];
        most = [most[0].max(apart), most[1].max(b.abs())];
    }
    let part = |[apart, size]: [f64; 2]| if apart == 0.0 { 0.0 } else { apart / size };
    Difference { norm: part(norms.map(f64::sqrt)), most: part(most) }
}
