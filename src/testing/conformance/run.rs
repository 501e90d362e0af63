//! Trials on a device.

use super::case::{Agreement, Trial};
use super::reference::{numbers, output_name, state_name};
use crate::exec::{Device, ExecError, TensorRef};
use crate::tensor::{Tensor, Type};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Where a device's results are not those that were expected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Mismatch {
    #[error(transparent)]
    Device(#[from] ExecError),
    #[error("{result} is missing")]
    Missing { result: String },
    #[error("{result} has {found} elements, not {expected}")]
    Length { result: String, expected: usize, found: usize },
    #[error("element {element} of {result} is {found:e}, not {expected:e} ({agreement:?})")]
    Element { result: String, element: usize, expected: f64, found: f64, agreement: Agreement },
}

/// Runs a trial and compares. Gives a digest of all bits that came out, by which runs can be compared.
///
/// # Errors
/// The device's own, or the first difference.
pub fn run(device: &dyn Device, trial: &Trial) -> Result<u64, Mismatch> {
    let plan = &trial.plan;
    let mut executor = device.load(plan.clone())?;
    for (i, value) in &trial.states {
        executor.write_state(*i, value.view())?;
    }
    let mut results = super::reference::Results::new();
    for (number, (entry, inputs)) in trial.runs.iter().enumerate() {
        let inputs: Vec<TensorRef> = inputs.iter().map(Tensor::view).collect();
        executor.submit(*entry, &inputs)?;
        let schedule = &plan.entries[*entry].schedule;
        for (i, output) in schedule.outputs.iter().enumerate() {
            let dtype = schedule.buffers[output.buffer.index()].dtype;
            let mut tensor = Tensor::zeros(Type::new(dtype, output.shape.clone()));
            executor.read_output(*entry, i, tensor.view_mut())?;
            results.insert(output_name(&output.name, number), numbers(&tensor));
        }
    }
    // Also of a run that nothing was read of.
    executor.wait()?;
    for (i, state) in plan.states.iter().enumerate() {
        let mut tensor = Tensor::zeros(state.ty.clone());
        executor.read_state(i, tensor.view_mut())?;
        results.insert(state_name(&state.name), numbers(&tensor));
    }
    for (result, expected) in &trial.expected.results {
        let found = results.get(result).ok_or_else(|| Mismatch::Missing { result: result.clone() })?;
        let also = trial.expected.alternative.as_ref().and_then(|a| a.get(result));
        compare(result, expected, also.map(Vec::as_slice), found, trial.agreement_of(result))?;
    }
    let mut digest = DefaultHasher::new();
    for (name, values) in &results {
        (name, values.iter().map(|v| v.to_bits()).collect::<Vec<u64>>()).hash(&mut digest);
    }
    Ok(digest.finish())
}

fn compare(
    result: &str,
    expected: &[f64],
    also: Option<&[f64]>,
    found: &[f64],
    agreement: Agreement,
) -> Result<(), Mismatch> {
    if found.len() != expected.len() {
        let (expected, found) = (expected.len(), found.len());
        return Err(Mismatch::Length { result: result.into(), expected, found });
    }
    let scale = expected.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
    for (element, (&expected, &found)) in expected.iter().zip(found).enumerate() {
        let is_also = also.is_some_and(|also| agrees(also[element], found, scale, agreement));
        if !is_also && !agrees(expected, found, scale, agreement) {
            return Err(Mismatch::Element { result: result.into(), element, expected, found, agreement });
        }
    }
    Ok(())
}

fn agrees(a: f64, b: f64, scale: f64, agreement: Agreement) -> bool {
    match agreement {
        _ if a.is_nan() && b.is_nan() => true,
        Agreement::Exact => a.to_bits() == b.to_bits(),
        // Beyond f32's range a device has infinities, or what becomes of them.
        Agreement::Near(_) if a.abs() >= f64::from(f32::MAX) / 1e3 => true,
        Agreement::Near(part) | Agreement::Special(part) => a == b || (a - b).abs() <= part * scale,
        Agreement::Each(part) => a == b || (a.is_finite() && (a - b).abs() <= part * a.abs() + 1e-7),
    }
}
