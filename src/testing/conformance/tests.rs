//! The suite finds what it is for.

use super::*;
use crate::exec::cpu::CpuDevice;
use crate::exec::{Ceilings, ExecError, Executor, KernelTiming, TensorMut, TensorRef};
use crate::plan::Plan;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How a device is broken.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Defect {
    /// The last bit of the last element of every output.
    LastBit,
    /// State is as it was before the run.
    ForgetsState,
    /// Runs fail.
    Lost,
}

struct Broken(Defect);

struct BrokenExecutor {
    inner: Box<dyn Executor>,
    defect: Defect,
}

impl Device for Broken {
    fn name(&self) -> String {
        format!("{:?}", self.0)
    }

    fn load(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        Ok(Box::new(BrokenExecutor { inner: CpuDevice::new(1).load(plan)?, defect: self.0 }))
    }

    fn ceilings(&self) -> Result<Ceilings, ExecError> {
        CpuDevice::new(1).ceilings()
    }
}

impl Executor for BrokenExecutor {
    fn plan(&self) -> &Plan {
        self.inner.plan()
    }

    fn submit(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        if self.defect == Defect::Lost {
            return Err(ExecError::Lost { device: "device".into(), problem: "it was unplugged".into() });
        }
        self.inner.submit(entry, inputs)
    }

    fn wait(&mut self) -> Result<(), ExecError> {
        self.inner.wait()
    }

    fn profile(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<Vec<KernelTiming>, ExecError> {
        self.inner.profile(entry, inputs)
    }

    fn read_output(&mut self, entry: usize, output: usize, into: TensorMut) -> Result<(), ExecError> {
        let dtype = into.dtype();
        let bytes = into.into_bytes();
        let again = match dtype {
            crate::tensor::DType::F32 => TensorMut::f32(bytemuck::cast_slice_mut(bytes)),
            crate::tensor::DType::U32 => TensorMut::u32(bytemuck::cast_slice_mut(bytes)),
            crate::tensor::DType::Bf16 => TensorMut::new::<crate::tensor::Bf16>(bytemuck::cast_slice_mut(bytes)),
        };
        self.inner.read_output(entry, output, again)?;
        if self.defect == Defect::LastBit {
            let at = bytes.len() - dtype.size();
            bytes[at] ^= 1;
        }
        Ok(())
    }

    fn read_state(&mut self, state: usize, into: TensorMut) -> Result<(), ExecError> {
        if self.defect == Defect::ForgetsState {
            into.into_bytes().fill(0);
            return Ok(());
        }
        self.inner.read_state(state, into)
    }

    fn write_state(&mut self, state: usize, from: TensorRef) -> Result<(), ExecError> {
        self.inner.write_state(state, from)
    }
}

fn failures(report: &Report) -> Vec<&str> {
    let failed = report.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
    failed.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_wrong_bit_is_found_where_bits_are_promised() {
    let report = run_group(&Broken(Defect::LastBit), "multi_tensor", &Exceptions::none());
    assert!(report.is_ok(), "these have no outputs: {report}");
    for group in ["elementwise", "draws", "bf16"] {
        let report = run_group(&Broken(Defect::LastBit), group, &Exceptions::none());
        let exact = report.outcomes.iter().filter(|(name, _)| !name.contains("normal") && !name.contains("product"));
        let passed: Vec<_> = exact.filter(|(_, outcome)| matches!(outcome, Outcome::Passed(_))).collect();
        // A NaN for a NaN is no other value.
        assert!(passed.iter().all(|(name, _)| name.contains("random converts")), "{passed:?}");
        assert!(!report.is_ok() && passed.len() < report.outcomes.len() / 4, "{report}");
    }
}

#[test]
fn lost_state_and_lost_devices_are_found() {
    for group in ["states", "multi_tensor"] {
        let report = run_group(&Broken(Defect::ForgetsState), group, &Exceptions::none());
        assert_eq!(failures(&report).len(), report.outcomes.len(), "{report}");
    }
    let report = run_group(&Broken(Defect::Lost), "training_steps", &Exceptions::none());
    assert_eq!(failures(&report).len(), report.outcomes.len(), "{report}");
    assert!(report.to_string().contains("it was unplugged"), "{report}");
}

#[test]
fn exceptions_must_be_needed() {
    let one = |device: &dyn Device, case: &'static str| {
        run_group(device, "multi_tensor", &Exceptions::none().with(case, "for a test"))
    };
    let report = one(&Broken(Defect::ForgetsState), "multi_tensor/one tensor");
    assert_eq!(failures(&report).len(), report.outcomes.len() - 1);
    assert!(report.to_string().contains("excepted, for a test"), "{report}");
    let report = one(&CpuDevice::new(1), "multi_tensor/one tensor");
    assert!(!report.is_ok() && report.to_string().contains("the exception must go"), "{report}");
    let report = one(&CpuDevice::new(1), "multi_tensor/no such case");
    assert!(!report.is_ok() && report.to_string().contains("a case that is not there"), "{report}");
    assert!(one(&CpuDevice::new(1), "bf16/of another group").is_ok());
}

#[test]
fn names_are_of_one_case_each() {
    let mut seen = BTreeSet::new();
    for (group, cases) in GROUPS {
        let cases = cases();
        assert!(!cases.is_empty(), "{group}");
        for case in cases {
            assert!(seen.insert((group, case.name.clone())), "{group}/{}", case.name);
        }
    }
}

/// A row of the table, and a primitive, is run by itself somewhere, not in random graphs alone.
#[test]
fn every_operation_has_a_case() {
    let mut found = BTreeSet::new();
    for (_, cases) in GROUPS.iter().filter(|(group, _)| *group != "random_graphs") {
        for case in cases() {
            if let case::Work::Graphs { graphs, .. } = case.work {
                found.extend(graphs.iter().flat_map(|g| g.ids().into_iter().map(|id| g.op(id).name())));
            }
        }
    }
    let all = crate::testing::tests::operation_names(crate::testing::GraphOptions::default());
    let missing: Vec<_> = all.difference(&found).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
