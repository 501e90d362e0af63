//! Values for the inputs and states of any graph.

use super::Choices;
use crate::ir::{Bindings, DType, Data, Element, Graph, Op, Value};

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

/// As [`random_bindings`], but about one real in `rarity` is not a number, infinite, a zero or denormal.
pub fn special_bindings<T: Element>(graph: &Graph, seed: u64, rarity: usize) -> Bindings<T> {
    const SPECIAL: [f64; 7] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e-40, -1e-40];
    let mut bindings = random_bindings::<T>(graph, seed);
    for (name, value) in &mut bindings {
        let mut choices = Choices::new(!seed ^ crate::scalar::stream_hash(name));
        if let Data::Real(values) = &mut value.data {
            for value in values {
                if choices.one_in(rarity) {
                    // Denormal only in f32, whichever the values are computed in.
                    *value = T::from_f64(f64::from(choices.pick(&SPECIAL) as f32));
                }
            }
        }
    }
    bindings
}
