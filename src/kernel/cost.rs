//! Cost model: floating-point operations, bytes moved, and the time a machine needs for them.

use super::access::kept_shape;
use super::body::{Body, BufferId, Contraction, Expr, Exprs, Kernel, Nest, Operand};
use super::choice::{Algorithm, Columns, Math};
use super::schedule::Buffer;
use super::target::Target;
use super::tiling::{Tiling, tilings};
use crate::tensor::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The ceilings of a machine, for the roofline model (Williams, Waterman & Patterson, "Roofline: an insightful visual
/// performance model for multicore architectures", CACM 52(4), 2009).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub flops_per_second: f64,
    /// Of matrix products whose operands are rounded to tf32, where they have a ceiling of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tf32_flops_per_second: Option<f64>,
    /// Of those whose operands are bf16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bf16_flops_per_second: Option<f64>,
    /// To and from main memory.
    pub bytes_per_second: f64,
    /// To and from caches, where that was measured.
    #[serde(default, skip_serializing_if = "Caches::is_unknown")]
    pub caches: Caches,
    /// Seconds that a launch takes in addition to its work.
    pub launch_seconds: f64,
}

/// Bytes a second that kernels move at most whose operands are in a cache. Estimates do not ask for it: what is in a cache
/// when a kernel runs is known of no kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Caches {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_level: Option<f64>,
    /// That which cores share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_level: Option<f64>,
}

impl Caches {
    pub const UNKNOWN: Caches = Caches { second_level: None, last_level: None };

    pub fn is_unknown(&self) -> bool {
        *self == Caches::UNKNOWN
    }
}

impl Machine {
    /// Two cores with 256-bit vectors on one memory channel: assumed where nothing was measured, so that
    /// estimates are the same on every machine.
    pub const NOMINAL: Machine = Machine {
        flops_per_second: 150e9,
        tf32_flops_per_second: None,
        bf16_flops_per_second: None,
        bytes_per_second: 20e9,
        caches: Caches::UNKNOWN,
        launch_seconds: 5e-6,
    };

    /// An H100 by its data sheet (NVIDIA H100 Tensor Core GPU, SXM, dense), whose launches in a graph take what others
    /// measured ("Look Ma, No Bubbles", Hazy Research, 2025): assumed of GPUs.
    pub const NOMINAL_GPU: Machine = Machine {
        flops_per_second: 67e12,
        tf32_flops_per_second: Some(495e12),
        bf16_flops_per_second: Some(989e12),
        bytes_per_second: 3.35e12,
        caches: Caches::UNKNOWN,
        launch_seconds: 1.3e-6,
    };

    /// What is assumed of machines of a target.
    pub fn nominal(target: Target) -> Machine {
        match target {
            Target::Cpu => Machine::NOMINAL,
            Target::Cuda(_) => Machine::NOMINAL_GPU,
        }
    }

    /// Without the ceilings of products that nothing multiplies.
    pub fn of_products(self, multiplied: &BTreeSet<Multiplied>) -> Machine {
        let has_tf32 = multiplied.contains(&Multiplied::Tf32) || multiplied.contains(&Multiplied::Tf32x3);
        let has_bf16 = multiplied.contains(&Multiplied::Bf16);
        Machine {
            tf32_flops_per_second: self.tf32_flops_per_second.filter(|_| has_tf32),
            bf16_flops_per_second: self.bf16_flops_per_second.filter(|_| has_bf16),
            ..self
        }
    }

    /// The time for this work at the lower of the two ceilings.
    pub fn seconds(&self, flops: u64, bytes: u64, multiplied: Multiplied) -> f64 {
        let (arithmetic, memory) =
            (flops as f64 / self.flops_ceiling(multiplied), bytes as f64 / self.bytes_per_second);
        self.launch_seconds + arithmetic.max(memory)
    }

    /// FLOP/s at most, of kernels that multiply this.
    pub fn flops_ceiling(&self, multiplied: Multiplied) -> f64 {
        match multiplied {
            Multiplied::F32 => self.flops_per_second,
            Multiplied::Tf32 => self.tf32_flops_per_second.unwrap_or(self.flops_per_second),
            // Three products for each term.
            Multiplied::Tf32x3 => self.tf32_flops_per_second.map_or(self.flops_per_second, |flops| flops / 3.0),
            Multiplied::Bf16 => self.bf16_flops_per_second.unwrap_or(self.flops_per_second),
        }
    }

    /// The time that a kernel takes at the ceilings: a lower bound.
    pub fn kernel_seconds(&self, kernel: &Kernel, buffers: &[Buffer]) -> f64 {
        self.seconds(flops(kernel), bytes_moved(kernel, buffers), multiplied(kernel, buffers))
    }

    /// Operations a byte at which the two ceilings meet.
    pub fn ridge(&self) -> f64 {
        self.flops_per_second / self.bytes_per_second
    }
}

/// What most of a kernel's arithmetic is on, which decides its ceiling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Multiplied {
    #[default]
    F32,
    /// A matrix product by tensor cores, of operands rounded to tf32.
    Tf32,
    /// One of operands that are each split into two.
    Tf32x3,
    /// One of two operands in bf16.
    Bf16,
}

/// What a kernel multiplies.
pub fn multiplied(kernel: &Kernel, buffers: &[Buffer]) -> Multiplied {
    let is_bf16 = |operand: &Operand<BufferId>| match operand {
        Operand::Buffer { buffer, .. } => buffers[buffer.index()].dtype == DType::Bf16,
        Operand::Computed { .. } => false,
    };
    match (&kernel.body, &kernel.choice.algorithm) {
        // Dot products are of f32 whatever is stored.
        (Body::Contraction(c), Algorithm::MatMul { columns: Columns::Panels, .. })
            if c.operands.iter().all(is_bf16) =>
        {
            Multiplied::Bf16
        }
        (Body::Contraction(_), Algorithm::ThreadBlocks(blocks)) => match blocks.math {
            Math::Fma => Multiplied::F32,
            Math::Tf32 | Math::Tf32Stored => Multiplied::Tf32,
            Math::Tf32x3 => Multiplied::Tf32x3,
            Math::Bf16 | Math::Bf16Stored => Multiplied::Bf16,
        },
        (Body::Contraction(_) | Body::Nests(_) | Body::Transform(_), _) => Multiplied::F32,
    }
}

/// Floating-point operations of one launch: two for each term of a contraction's sums that is computed, one for each scalar
/// operation and reduced element.
pub fn flops(kernel: &Kernel) -> u64 {
    let scalar = |exprs: &Exprs<BufferId>| exprs.iter().filter(|e| matches!(e, Expr::Scalar { .. })).count() as u64;
    let points = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    // As if each element of the operand were computed once.
    let prologue =
        |(operand, shape): (&Operand<BufferId>, Vec<usize>)| operand.exprs().map_or(0, scalar) * points(&shape);
    match &kernel.body {
        Body::Contraction(c) => {
            products_flops(c, &kernel.choice.algorithm)
                + c.operands.iter().zip(c.kind.shapes().0).map(prologue).sum::<u64>()
                + (scalar(&c.exprs) + c.reductions.len() as u64) * points(&c.space)
                + scalar(&c.finish.exprs) * points(&kept_shape(&c.space, &c.reduced))
        }
        Body::Transform(t) => t.transform.flops(t.planes.iter().product()),
        Body::Nests(nests) => nests.iter().map(nest_flops).sum(),
    }
}

/// Of a contraction's products. Tensor cores don't multiply padding.
fn products_flops(c: &Contraction<BufferId>, algorithm: &Algorithm) -> u64 {
    match algorithm {
        Algorithm::ThreadBlocks(blocks) if blocks.math != Math::Fma => {
            tilings(c).map_or(c.kind.flops(), |products| products.iter().map(Tiling::flops).sum())
        }
        _ => c.kind.flops(),
    }
}

/// Of a loop nest: what is needed over the full space at each of its points, the rest once for each kept point.
fn nest_flops(nest: &Nest<BufferId>) -> u64 {
    let full = nest.exprs.needed(nest.sweeps.iter().flat_map(|sweep| sweep.swept()));
    let points: u64 = nest.space.iter().product::<usize>() as u64;
    let kept: u64 = kept_shape(&nest.space, &nest.reduced).iter().product::<usize>() as u64;
    let scalars = nest.exprs.iter().zip(&full).filter(|(expr, _)| matches!(expr, Expr::Scalar { .. }));
    let work: u64 = scalars.map(|(_, &full)| if full { points } else { kept }).sum();
    work + nest.sweeps.iter().map(|p| p.reductions.len() as u64).sum::<u64>() * points
}

/// Bytes that one launch reads and writes, each buffer once.
pub fn bytes_moved(kernel: &Kernel, buffers: &[Buffer]) -> u64 {
    kernel.reads.iter().chain(&kernel.writes).map(|&b| buffers[b.index()].bytes() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Options, compile};
    use crate::kernel::target::{Architecture, Precision};

    #[test]
    fn the_lower_ceiling_decides() {
        let machine = Machine {
            flops_per_second: 100.0,
            tf32_flops_per_second: Some(250.0),
            bf16_flops_per_second: Some(500.0),
            bytes_per_second: 10.0,
            caches: Caches::UNKNOWN,
            launch_seconds: 1.0,
        };
        assert_eq!(machine.ridge(), 10.0);
        let seconds = |flops, bytes| machine.seconds(flops, bytes, Multiplied::F32);
        assert_eq!([seconds(1000, 10), seconds(10, 1000)], [11.0, 101.0]);
        let by = |machine: Machine| {
            [Multiplied::Tf32, Multiplied::Tf32x3, Multiplied::Bf16].map(|of| machine.seconds(1000, 10, of))
        };
        assert_eq!(by(machine), [5.0, 13.0, 3.0]);
        let unmeasured = Machine { tf32_flops_per_second: None, bf16_flops_per_second: None, ..machine };
        assert_eq!(by(unmeasured), [11.0; 3]);
        assert_eq!(machine.of_products(&[Multiplied::F32].into()), unmeasured);
        assert_eq!(machine.of_products(&[Multiplied::Tf32x3, Multiplied::Bf16].into()), machine);
    }
    /// What a GPU multiplies, and that it counts no padding.
    #[test]
    fn products_on_a_gpu_are_by_tensor_cores_in_the_precision_asked_for() {
        let text = crate::declare::builtin::text("dcgan").unwrap();
        let most = |architecture, precision| {
            let (target, tuned) = (Target::Cuda(Architecture(architecture)), Vec::new());
            let options = Options { target, precision, tuned, ..Options::default() };
            let plan = compile("dcgan", text, &options, &mut |_| {}).unwrap().plan.unwrap();
            let schedule = &plan.entry("train_step").unwrap().schedule;
            let contraction = |k: &Kernel| match &k.body {
                Body::Contraction(c) => c.kind.flops(),
                Body::Nests(_) | Body::Transform(_) => 0,
            };
            // The convolution by 5 x 5 filters, of which a third is padding.
            let kernel = schedule.kernels.iter().max_by_key(|k| contraction(k)).unwrap();
            (multiplied(kernel, &schedule.buffers), flops(kernel) as f64 / contraction(kernel) as f64)
        };
        for (architecture, precision, expected) in [
            (75, Precision::F32, Multiplied::F32),
            (80, Precision::F32, Multiplied::Tf32x3),
            (80, Precision::Tf32, Multiplied::Tf32),
            (90, Precision::Bf16, Multiplied::Bf16),
        ] {
            let (found, counted) = most(architecture, precision);
            assert_eq!(found, expected, "sm_{architecture}");
            let (least, greatest) = if architecture == 75 { (1.0, 1.01) } else { (0.68, 0.7) };
            assert!((least..greatest).contains(&counted), "sm_{architecture}: {counted}");
        }
    }
}
