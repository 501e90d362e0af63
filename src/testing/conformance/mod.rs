//! One suite for every device: what it computes is compared with the reference interpreter.
//!
//! A device passes a group of cases, or lists the cases that it cannot do, each with a reason. An exception that no longer
//! fails is an error too.

mod cases;

use super::strategies;
use crate::compile::Options;
use crate::declare;
use crate::exec::{Device, Executor};
use crate::ir::{Bindings, Data, Graph, Op, Value, evaluate};
use crate::kernel::schedule::StateLayout;
use crate::kernel::target::{Precision, Strategy, Target};
use crate::plan::{EntryPlan, Plan, Source};
use crate::replay::{Replay, Tensors};
use crate::schedule::schedule;
use crate::tensor::{Tensor, Type};
use crate::types::{Feed, Initialiser, InputDecl, StateDecl, StateRole};
pub use cases::{Case, GROUPS, PROGRAMS, cases};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How near a device's result must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// The bits of the interpreter in f32, any NaN for any other.
    Bits,
    /// The largest difference from the interpreter in f64, relative to the largest magnitude of the tensor (at least 1).
    Relative(f64),
    /// NaN where the interpreter in f32 has NaN, infinities where it has them, and the rest as near as `Relative`.
    Kinds(f64),
}

/// A plan of one graph as it stands: its inputs are the caller's, its state starts at zero.
pub fn plan_of(graph: &Graph, strategy: impl Into<Strategy>) -> Arc<Plan> {
    let strategy = strategy.into();
    let mut inputs = Vec::new();
    let mut states = BTreeMap::new();
    for id in graph.topological() {
        if let Op::Input { name, ty } = graph.op(id) {
            let (name, ty) = (name.clone(), ty.clone());
            inputs.push(InputDecl { name, ty, feed: Feed::Caller, below: None, meaning: String::new() });
        } else if let Op::State { name, ty } = graph.op(id) {
            states.insert(name.clone(), ty.clone());
        }
    }
    for update in &graph.updates {
        states.insert(update.state.clone(), graph.ty(update.node).clone());
    }
    let layout = StateLayout::new(states.iter().map(|(name, ty)| (name.as_str(), ty))).expect("small states");
    let (role, init) = (StateRole::Parameter, Initialiser::Constant(0.0));
    let states =
        states.into_iter().map(|(name, ty)| StateDecl { name, ty, role: role.clone(), init, span: None }).collect();
    let schedule = schedule(graph, &layout, strategy).expect("a graph of a test is scheduled");
    let entry = EntryPlan { name: graph.name.clone(), sizes: Vec::new(), inputs, schedule };
    let source = source("test.ron", "", strategy);
    Arc::new(Plan { name: "test".into(), source, states, state_layout: layout, entries: vec![entry] })
}

fn source(name: &str, text: &str, strategy: Strategy) -> Source {
    Source {
        name: name.into(),
        text: text.into(),
        overrides: Vec::new(),
        optional: Vec::new(),
        fusion: strategy.fusion,
        target: strategy.target,
        precision: strategy.precision,
        fast_math: false,
    }
}

/// Runs the only entry of a plan on values for its inputs and state; gives outputs and state by name.
fn results(executor: &mut dyn Executor, plan: &Plan, given: &Bindings<f32>) -> Result<Bindings<f32>, String> {
    let failed = |e: crate::exec::ExecError| e.to_string();
    for (i, state) in plan.states.iter().enumerate() {
        if let Some(value) = given.get(&state.name) {
            executor.write_state(i, value.to_tensor(state.ty.dtype).view()).map_err(failed)?;
        }
    }
    let entry = &plan.entries[0];
    let inputs: Vec<Tensor> = entry.inputs.iter().map(|i| given[&i.name].to_tensor(i.ty.dtype)).collect();
    executor.submit(0, &inputs.iter().map(Tensor::view).collect::<Vec<_>>()).map_err(failed)?;
    let mut found = Bindings::new();
    for (i, output) in entry.schedule.outputs.iter().enumerate() {
        let dtype = entry.schedule.buffers[output.buffer.index()].dtype;
        let mut tensor = Tensor::zeros(Type::new(dtype, output.shape.clone()));
        executor.read_output(0, i, tensor.view_mut()).map_err(failed)?;
        found.insert(format!("output {}", output.name), Value::from_tensor(&tensor));
    }
    for (i, state) in plan.states.iter().enumerate() {
        let mut tensor = Tensor::zeros(state.ty.clone());
        executor.read_state(i, tensor.view_mut()).map_err(failed)?;
        found.insert(format!("state {}", state.name), Value::from_tensor(&tensor));
    }
    Ok(found)
}

/// The ways in which tests schedule a graph, for a target.
fn strategies_for(target: Target) -> [(&'static str, Strategy); 3] {
    let [(fused, on), (not_fused, off), (everything, all)] = strategies();
    let of = |strategy: Strategy| Strategy::new(strategy.fusion, target, strategy.precision);
    [(fused, of(on)), (not_fused, of(off)), (everything, Strategy { policy: all.policy, ..of(all) })]
}

/// Checks one case on a device that plans for `target` run on, scheduled in every way.
///
/// # Errors
/// The first difference, in words.
pub fn check(device: &dyn Device, target: Target, case: &Case) -> Result<(), String> {
    let single = evaluate(&case.graph, &case.given).map_err(|e| e.to_string())?;
    let wide: Bindings<f64> = case.given.iter().map(|(name, value)| (name.clone(), widened(value))).collect();
    let double = evaluate(&case.graph, &wide).map_err(|e| e.to_string())?;
    for (how, strategy) in strategies_for(target) {
        let plan = plan_of(&case.graph, strategy);
        crate::plan::verify(&plan).map_err(|e| format!("{how}: {e}"))?;
        let mut executor = device.load(plan.clone()).map_err(|e| e.to_string())?;
        let found = results(executor.as_mut(), &plan, &case.given).map_err(|e| format!("{how}: {e}"))?;
        let singles = single.outputs.iter().chain(&single.updates);
        let doubles = double.outputs.iter().chain(&double.updates);
        for (i, ((name, single), (_, double))) in singles.zip(doubles).enumerate() {
            let name = format!("{} {name}", if i < case.graph.outputs.len() { "output" } else { "state" });
            let found = found.get(&name).ok_or_else(|| format!("{how}: {name} is missing"))?;
            compare(&single.to_f64(), &double.to_f64(), &found.to_f64(), case.tolerance)
                .map_err(|problem| format!("{how}, {name}: {problem}"))?;
        }
    }
    Ok(())
}

fn widened(value: &Value<f32>) -> Value<f64> {
    let data = match &value.data {
        Data::Real(values) => Data::Real(values.iter().map(|&v| f64::from(v)).collect()),
        Data::U32(values) => Data::U32(values.clone()),
    };
    Value { shape: value.shape.clone(), data }
}

fn compare(single: &[f64], double: &[f64], found: &[f64], tolerance: Tolerance) -> Result<(), String> {
    if found.len() != single.len() {
        return Err(format!("{} elements, {} expected", found.len(), single.len()));
    }
    let scale = double.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
    for (i, ((&s, &d), &f)) in single.iter().zip(double).zip(found).enumerate() {
        let (expected, is_same) = match tolerance {
            Tolerance::Bits => (s, s.to_bits() == f.to_bits() || (s.is_nan() && f.is_nan())),
            Tolerance::Relative(most) => (d, (d - f).abs() <= most * scale),
            Tolerance::Kinds(most) if s.is_finite() => (s, (s - f).abs() <= most * scale.max(s.abs())),
            Tolerance::Kinds(_) => (s, s == f || (s.is_nan() && f.is_nan())),
        };
        if !is_same {
            return Err(format!("element {i} is {f:?}, expected {expected:?}"));
        }
    }
    Ok(())
}

/// Checks steps of a whole program, all its entries' state handed over, against the interpreter in f64.
///
/// # Errors
/// The first difference, in words.
pub fn check_program(device: &dyn Device, target: Target, name: &str, text: &str) -> Result<(), String> {
    const STEPS: usize = 2;
    let module = declare::load(name, text, &[], &[]).map_err(|e| e.to_string())?;
    let given = super::program_inputs(&module, "train_step", STEPS);
    let replay = Replay::new(&module, "train_step", given, STEPS, 7).map_err(|e| e.to_string())?;
    let expected = replay.run_reference().map_err(|e| e.to_string())?;
    let strategy = Strategy::new(Options::default().fusion, target, Precision::default());
    let found: Tensors = replay.run_on(source(name, text, strategy), device).map_err(|e| e.to_string())?;
    for (name, value) in expected.iter().filter(|(name, _)| !name.starts_with("gradient/")) {
        let found = found.get(name).ok_or_else(|| format!("{name} is missing"))?.to_f64();
        compare(&value.to_f64(), &value.to_f64(), &found, Tolerance::Relative(2e-3))
            .map_err(|problem| format!("{name}: {problem}"))?;
    }
    Ok(())
}

/// Runs a group of cases; what fails, without the exceptions, and exceptions that do not fail.
pub fn failures(device: &dyn Device, target: Target, group: &str, exceptions: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut verdict = |name: &str, result: Result<(), String>| {
        let exception = exceptions.iter().find(|(case, _)| *case == name);
        match (result, exception) {
            (Err(problem), None) => found.push(format!("{name}: {problem}")),
            (Ok(()), Some((_, reason))) => found.push(format!("{name} is an exception ({reason}), and passes")),
            (Ok(()), None) | (Err(_), Some(_)) => {}
        }
    };
    for case in cases(group) {
        verdict(&case.name, check(device, target, &case));
    }
    if group == "programs" {
        PROGRAMS.iter().for_each(|(name, text)| verdict(name, check_program(device, target, name, text)));
    }
    found
}
