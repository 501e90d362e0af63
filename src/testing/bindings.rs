//! Values for the inputs and states of any graph.

use super::Choices;
use crate::ir::{Bindings, DType, Element, Graph, Op, Value};

/// A value for every input and every state tensor: reals in [-1, 1] that f32 holds exactly, integers
/// below 10 (so that they can be class labels of ten classes). Values depend on name and seed alone, so
/// a rewritten graph gets the same.
pub fn random_bindings<T: Element>(graph: &Graph, seed: u64) -> Bindings<T> {
    let mut bindings = Bindings::new();
    for id in graph.ids() {
        let (Op::Input { name, ty } | Op::State { name, ty }) = graph.op(id) else { continue };
        let mut choices = Choices::new(seed ^ crate::scalar::stream_hash(name));
        let elements = 0..ty.elements();
        let value = match ty.dtype {
            DType::F32 | DType::Bf16 => {
                Value::real(ty.shape.clone(), elements.map(|_| T::from_f64(choices.real())).collect::<Vec<_>>())
            }
            DType::U32 => Value::u32(ty.shape.clone(), elements.map(|_| choices.below(10) as u32).collect()),
        };
        bindings.insert(name.clone(), value);
    }
    bindings
}
