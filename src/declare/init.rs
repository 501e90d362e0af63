//! The entry `init`, which every program has: state before the first step.

use super::nodes::SEED;
use crate::ir::{
    Builder, DType, Distribution, Entry, Feed, Graph, INIT, Initialiser, InputDecl, Op, Origin, StateDecl, Type, Update,
};
use crate::scalar::ScalarOp;

/// A graph whose updates give every state tensor its first value.
pub fn entry(states: &[StateDecl]) -> Entry {
    let mut graph = Graph::new(INIT);
    let mut inputs = Vec::new();
    let mut updates = Vec::new();
    let mut key = None;
    for state in states {
        let mut b =
            Builder::new(&mut graph, Origin { span: state.span, scope: state.name.clone(), ..Origin::default() });
        let node = match state.init {
            Initialiser::Constant(value) => {
                b.named(&state.name, Op::constant(value, state.ty.dtype, state.ty.shape.clone()), &[])
            }
            Initialiser::Uniform { limit } => {
                let (seed, step) = *key.get_or_insert_with(|| {
                    let ty = Type::u32([2]);
                    let meaning = "the seed of all randomness".to_string();
                    inputs.push(InputDecl {
                        name: SEED.into(),
                        ty: ty.clone(),
                        feed: Feed::Seed,
                        below: None,
                        meaning,
                    });
                    let seed = b.named(SEED, Op::Input { name: SEED.into(), ty }, &[]);
                    (seed, b.op(Op::constant(0.0, DType::U32, []), &[]))
                });
                let stream = format!("{INIT}/{}", state.name);
                let shape = state.ty.shape.clone();
                let uniform = Op::Random { distribution: Distribution::Uniform, stream, shape: shape.clone() };
                let uniform = b.op(uniform, &[seed, step]);
                // 2·limit·(u − ½): the difference is exact, so that the draw is symmetric about 0.
                let half = b.constant(0.5, &shape);
                let centred = b.sub(uniform, half);
                let width = b.constant(2.0 * limit, &shape);
                b.named(&state.name, Op::Scalar(ScalarOp::Mul), &[centred, width])
            }
        };
        updates.push(Update { state: state.name.clone(), node });
    }
    graph.updates = updates;
    Entry { graph, inputs }
}
