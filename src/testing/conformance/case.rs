//! One case: graphs that run one after the other on the same state, or a whole program.

use super::reference::{Results, plan_of_all, reference, run_plan};
use crate::exec::Device;
use crate::ir::{Bindings, Graph};
use crate::replay::{Replay, Tensors};
use crate::testing::strategies;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How near a device must come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Agreement {
    /// The bits of the interpreter in f32, any NaN for any other.
    Exact,
    /// Each element within this part of the tensor's greatest magnitude, or of 1 where that is greater, from the interpreter
    /// in f64: for sums, whose order is a device's own.
    Near(f64),
    /// Each element within this part of its own magnitude from the interpreter in f32, with 1e-7 to spare where functions
    /// have zeros; NaN and infinities where that has them.
    Each(f64),
    /// As [`Agreement::Near`], but from the interpreter in f32: NaN and infinities where that has them.
    Special(f64),
}

/// What is run, and how its results are compared.
pub struct Case {
    pub name: String,
    pub work: Work,
}

pub enum Work {
    /// Entries that share their state, each run as often and in the order that `runs` says.
    Graphs { graphs: Vec<Graph>, given: Bindings<f32>, runs: Vec<usize>, agreement: Agreement },
    /// An entry of a program, compiled with all passes, for some steps after its initialisation.
    Program { replay: Box<Replay>, source: crate::plan::Source, tolerance: f64 },
}

impl Case {
    /// One graph that runs once.
    pub fn of(name: impl Into<String>, graph: Graph, given: Bindings<f32>, agreement: Agreement) -> Case {
        Case { name: name.into(), work: Work::Graphs { graphs: vec![graph], given, runs: vec![0], agreement } }
    }

    /// Runs it in every way of scheduling, and compares. Gives a digest of all bits.
    ///
    /// # Errors
    /// A sentence on the first difference.
    pub fn run(&self, device: &dyn Device) -> Result<u64, String> {
        match &self.work {
            Work::Graphs { graphs, given, runs, agreement } => run_graphs(device, graphs, given, runs, *agreement),
            Work::Program { replay, source, tolerance } => {
                let found = replay.run_on(source.clone(), device).map_err(|e| e.to_string())?;
                let expected = replay.run_reference().map_err(|e| e.to_string())?;
                compare_programs(&expected, &found, *tolerance)
            }
        }
    }
}

fn run_graphs(
    device: &dyn Device,
    graphs: &[Graph],
    given: &Bindings<f32>,
    runs: &[usize],
    agreement: Agreement,
) -> Result<u64, String> {
    let expected = match agreement {
        Agreement::Near(_) => reference::<f64>(graphs, given, runs)?,
        Agreement::Exact | Agreement::Each(_) | Agreement::Special(_) => reference::<f32>(graphs, given, runs)?,
    };
    let mut digest = DefaultHasher::new();
    for (how, strategy) in strategies() {
        let plan = plan_of_all(graphs, strategy).map_err(|e| format!("{how}: {e}"))?;
        let found = run_plan(device, plan, given, runs).map_err(|e| format!("{how}: {e}"))?;
        compare(&expected, &found, agreement).map_err(|e| format!("{how}: {e}"))?;
        for (name, values) in &found {
            (name, values.iter().map(|v| v.to_bits()).collect::<Vec<u64>>()).hash(&mut digest);
        }
    }
    Ok(digest.finish())
}

fn compare(expected: &Results, found: &Results, agreement: Agreement) -> Result<(), String> {
    for (name, expected) in expected {
        let found = found.get(name).ok_or_else(|| format!("{name} is missing"))?;
        if found.len() != expected.len() {
            return Err(format!("{name} has {} elements, not {}", found.len(), expected.len()));
        }
        let scale = expected.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
        for (i, (&a, &b)) in expected.iter().zip(found).enumerate() {
            let same = match agreement {
                _ if a.is_nan() && b.is_nan() => true,
                Agreement::Exact => a.to_bits() == b.to_bits(),
                // Beyond f32's range a device has infinities, or what becomes of them.
                Agreement::Near(_) if a.abs() >= f64::from(f32::MAX) / 1e3 => true,
                Agreement::Near(part) | Agreement::Special(part) => a == b || (a - b).abs() <= part * scale,
                Agreement::Each(part) => a == b || (a.is_finite() && (a - b).abs() <= part * a.abs() + 1e-7),
            };
            if !same {
                return Err(format!("element {i} of {name} is {b:e}, not {a:e} ({agreement:?})"));
            }
        }
    }
    Ok(())
}

fn compare_programs(expected: &Tensors, found: &Tensors, tolerance: f64) -> Result<u64, String> {
    let flat = |t: &Tensors| -> Results { t.iter().map(|(name, value)| (name.clone(), value.to_f64())).collect() };
    let found = flat(found);
    if !found.values().flatten().all(|v| v.is_finite()) {
        return Err("results are not finite".into());
    }
    compare(&flat(expected), &found, Agreement::Near(tolerance))?;
    let mut digest = DefaultHasher::new();
    for (name, values) in &found {
        (name, values.iter().map(|v| v.to_bits()).collect::<Vec<u64>>()).hash(&mut digest);
    }
    Ok(digest.finish())
}
