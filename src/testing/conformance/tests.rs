//! The suite finds what it is for.

use super::*;
use crate::exec::cpu::CpuDevice;
use crate::exec::{Ceilings, Device, ExecError, Executor, KernelTiming, TensorMut, TensorRef};
use crate::kernel::cost::Multiplied;
use crate::plan::Plan;
use crate::tensor::{Bf16, DType, round_to_bf16};
use crate::testing::strategies;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How a device is broken.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Defect {
    /// The last bit of the last element of every output.
    LastBit,
    /// State is as it was before the run.
    ForgetsState,
    /// Outputs have eight significant bits.
    Rounds,
    /// Runs fail.
    Lost,
    Panics,
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

    fn ceilings(&self, multiplied: &BTreeSet<Multiplied>) -> Result<Ceilings, ExecError> {
        CpuDevice::new(1).ceilings(multiplied)
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
        assert!(self.defect != Defect::Panics, "a defect");
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
            DType::F32 => TensorMut::f32(bytemuck::cast_slice_mut(bytes)),
            DType::U32 => TensorMut::u32(bytemuck::cast_slice_mut(bytes)),
            DType::Bf16 => TensorMut::new::<Bf16>(bytemuck::cast_slice_mut(bytes)),
        };
        self.inner.read_output(entry, output, again)?;
        if self.defect == Defect::LastBit {
            let at = bytes.len() - dtype.size();
            bytes[at] ^= 1;
        }
        if self.defect == Defect::Rounds && dtype == DType::F32 {
            for word in bytes.chunks_exact_mut(4) {
                let value = f32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
                word.copy_from_slice(&round_to_bf16(value).to_ne_bytes());
            }
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

/// A group on a device, fused.
fn run_group(device: &dyn Device, name: &str, exceptions: &Exceptions) -> Report {
    report(device, &prepare(&group(name), &strategies()[..1], &Tolerances::F32), exceptions)
}

#[test]
fn a_wrong_bit_is_found_where_bits_are_promised() {
    for name in ["elementwise", "draws", "bf16", "layouts"] {
        let exact = |case: &&Case| case.agreement == Agreement::Exact && !case.name.contains("random converts");
        let cases: Vec<Case> = group(name).iter().filter(exact).cloned().collect();
        let found = report(
            &Broken(Defect::LastBit),
            &prepare(&cases, &strategies()[..1], &Tolerances::F32),
            &Exceptions::none(),
        );
        assert!(cases.len() > 1 && found.failed().len() == cases.len(), "{found}");
        assert!(found.to_string().contains("element "), "{found}");
    }
    let found = run_group(&Broken(Defect::LastBit), "multi_tensor", &Exceptions::none());
    assert!(found.is_ok(), "these have no outputs: {found}");
}

#[test]
fn what_is_nearly_right_passes_by_tolerance() {
    for name in ["matrix_products", "convolutions", "training_steps"] {
        let cases: Vec<Case> = group(name).into_iter().filter(|c| !c.name.contains("special")).take(12).collect();
        let run = |tolerances: &Tolerances| {
            report(&Broken(Defect::Rounds), &prepare(&cases, &strategies()[..1], tolerances), &Exceptions::none())
        };
        let found = run(&Tolerances::F32);
        assert!(found.failed().len() > cases.len() / 2, "{found}");
        assert!(run(&Tolerances::BF16).is_ok(), "{}", run(&Tolerances::BF16));
    }
    // No contraction, nothing to be lenient with.
    let scalars = prepare(&group("scalars"), &strategies()[..1], &Tolerances::BF16);
    let found = report(&Broken(Defect::Rounds), &scalars, &Exceptions::none());
    assert!(found.failed().len() > found.outcomes.len() / 2, "{found}");
}

#[test]
fn lost_state_and_lost_devices_are_found() {
    for name in ["states", "multi_tensor"] {
        let found = run_group(&Broken(Defect::ForgetsState), name, &Exceptions::none());
        assert_eq!(found.failed().len(), found.outcomes.len(), "{found}");
    }
    let found = run_group(&Broken(Defect::Lost), "training_steps", &Exceptions::none());
    assert_eq!(found.failed().len(), found.outcomes.len(), "{found}");
    assert!(found.to_string().contains("it was unplugged"), "{found}");
}

/// A panic is one case's failure, and so is a case that does not compile.
#[test]
fn a_case_that_breaks_does_not_keep_others_from_running() {
    let found = run_group(&Broken(Defect::Panics), "states", &Exceptions::none());
    assert_eq!(found.failed().len(), found.outcomes.len(), "{found}");
    assert!(found.to_string().contains("panicked: a defect"), "{found}");
    let mut cases = group("states");
    cases.truncate(2);
    cases[0].given.clear();
    let found = report(&CpuDevice::new(1), &prepare(&cases, &strategies()[..1], &Tolerances::F32), &Exceptions::none());
    assert_eq!(found.failed(), [cases[0].name.as_str()], "{found}");
}

#[test]
fn exceptions_must_be_needed() {
    let one = |device: &dyn Device, case: &'static str| {
        run_group(device, "multi_tensor", &Exceptions::none().with(case, "for a test"))
    };
    let found = one(&Broken(Defect::ForgetsState), "multi_tensor/one tensor");
    assert_eq!(found.failed().len(), found.outcomes.len() - 1);
    assert!(found.to_string().contains("excepted, for a test"), "{found}");
    let found = one(&CpuDevice::new(1), "multi_tensor/one tensor");
    assert!(!found.is_ok() && found.to_string().contains("the exception must go"), "{found}");
    for unknown in ["multi_tensor/no such case", "no such group/case", "no group at all"] {
        let found = one(&CpuDevice::new(1), unknown);
        assert!(!found.is_ok() && found.to_string().contains("a case that is not there"), "{found}");
    }
    assert!(one(&CpuDevice::new(1), "bf16/of a group that is not run").is_ok());
}

/// What meets padding may be NaN or absent; what does not is as the interpreter has it.
#[test]
fn only_padding_has_two_right_results() {
    let padded = group("special_values").into_iter().filter(|case| case.alternative.is_some());
    let mut at_padding = 0;
    for case in padded {
        let trial = case.compile(&strategies()[..1], &Tolerances::F32).unwrap().remove(0);
        let (name, results) = trial.expected.results.first_key_value().unwrap();
        let also = &trial.expected.alternative.as_ref().unwrap()[name];
        assert_eq!(results.len(), also.len(), "{}", case.name);
        let alike = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 4e-5 * a.abs().max(1.0);
        let other: Vec<_> = results.iter().zip(also).filter(|(a, b)| !alike(**a, **b)).collect();
        assert!(other.iter().all(|(_, b)| b.is_nan()), "{}: {other:?}", case.name);
        // The gradient of the input is made of an output's gradient that is padded whatever the window.
        if case.name.contains("pad [0, 0]") && !case.name.contains("input grad") {
            assert!(other.is_empty(), "{}: {other:?}", case.name);
        }
        at_padding += other.len();
    }
    assert!(at_padding > 0, "no case has a special value at padding");
}

#[test]
fn names_are_of_one_case_each() {
    let mut seen = BTreeSet::new();
    for name in GROUPS {
        let cases = group(name);
        assert!(!cases.is_empty(), "{name}");
        for case in cases {
            assert!(case.name.starts_with(&format!("{name}/")), "{}", case.name);
            assert!(seen.insert(case.name.clone()), "{}", case.name);
        }
    }
    assert_eq!(cases().len(), seen.len());
}

/// A row of the table, and a primitive, is run by itself somewhere, not in random graphs and programs alone.
#[test]
fn every_operation_has_a_case() {
    let of_whole_graphs = |case: &Case| ["random_graphs/", "training_steps/"].iter().any(|g| case.name.starts_with(g));
    let mut found = BTreeSet::new();
    for case in cases().iter().filter(|case| !of_whole_graphs(case)) {
        found.extend(case.graphs.iter().flat_map(|g| g.ids().into_iter().map(|id| g.op(id).name())));
    }
    let mut all = crate::testing::tests::operation_names(crate::testing::GraphOptions::default());
    all.extend(crate::scalar::ScalarOp::ALL.iter().map(|op| op.name()));
    all.extend(["convert"]);
    let missing: Vec<_> = all.difference(&found).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
