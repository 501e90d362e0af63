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
            Initialiser::Uniform { .. } | Initialiser::Normal { .. } | Initialiser::Direction => {
                let (seed, step) = *key.get_or_insert_with(|| {
                    let ty = Type::u32([2]);
                    let meaning = "the seed of all randomness".to_string();
                    inputs.push(InputDecl {
                        name: SEED.into(),
                        ty: ty.clone(),
                        feed: Feed::Seed,
                        below: None,
                        from_end: false,
                        meaning,
                    });
                    let seed = b.named(SEED, Op::Input { name: SEED.into(), ty }, &[]);
                    (seed, b.op(Op::constant(0.0, DType::U32, []), &[]))
                });
                let stream = format!("{INIT}/{}", state.name);
                let shape = state.ty.shape.clone();
                let distribution = match state.init {
                    Initialiser::Uniform { .. } | Initialiser::Constant(_) => Distribution::Uniform,
                    Initialiser::Normal { .. } | Initialiser::Direction => Distribution::Normal,
                };
                let drawn = b.op(Op::Random { distribution, stream, shape: shape.clone() }, &[seed, step]);
                let (drawn, factor) = match state.init {
                    // 2·limit·(u − ½): the difference is exact, so that the draw is symmetric about 0.
                    Initialiser::Uniform { limit } => {
                        let half = b.constant(0.5, &shape);
                        (b.sub(drawn, half), b.constant(2.0 * limit, &shape))
                    }
                    Initialiser::Normal { deviation } => (drawn, b.constant(deviation, &shape)),
                    Initialiser::Direction | Initialiser::Constant(_) => {
                        let squares = b.mul(drawn, drawn);
                        let axes: Vec<usize> = (0..shape.len()).collect();
                        let sum = b.sum(squares, &axes);
                        let inverse = b.scalar(ScalarOp::Rsqrt, &[sum]);
                        (drawn, b.op(Op::Broadcast { to: shape.clone() }, &[inverse]))
                    }
                };
                b.named(&state.name, Op::Scalar(ScalarOp::Mul), &[drawn, factor])
            }
        };
        updates.push(Update { state: state.name.clone(), node });
    }
    graph.updates = updates;
    Entry { graph, inputs }
}
