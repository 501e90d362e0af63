//! Random graphs: how one is grown, and the values it is grown from.

use super::Choices;
use crate::ir::{DType, Graph, NodeId, Op, Origin, Output, Probe, ReduceKind, Role, Shape, Span, Type, Update};
use crate::scalar::ScalarOp;

/// What random graphs may hold.
#[derive(Debug, Clone, Copy)]
pub struct GraphOptions {
    /// How many operations are put on top of the leaves, each of one to five nodes.
    pub steps: usize,
    /// No tensor has more elements.
    pub max_elements: usize,
    /// Matrix products and the three convolutions.
    pub contractions: bool,
    /// Random draws.
    pub draws: bool,
    /// Only functions that can be differentiated everywhere: no maximum, no comparison, no `abs`.
    pub smooth: bool,
    /// `Gradient` nodes, which must be differentiated before the graph can be evaluated.
    pub gradients: bool,
}

impl Default for GraphOptions {
    fn default() -> Self {
        GraphOptions { steps: 24, max_elements: 2000, contractions: true, draws: true, smooth: false, gradients: false }
    }
}

/// A valid graph, the same for the same seed and options: inputs, states, operations of every kind, up
/// to four outputs (one is the scalar `loss`), updates of states and a probe.
///
/// On values as [`random_bindings`](super::random_bindings) gives, every node's value is finite and at
/// most 16 in magnitude (integers excepted): magnitudes are tracked, and what could grow is scaled
/// down; nothing is divided by less than 1/2. Operations with jumps (comparisons, `sign`) are applied
/// only to values that f32 holds exactly, so evaluations in f32 and f64 differ by rounding alone.
pub fn random_graph(seed: u64, options: GraphOptions) -> Graph {
    let mut grower = Grower::new(seed, options);
    for _ in 0..options.steps {
        grower.step();
    }
    grower.finish()
}

/// A node, and what is known of its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub id: NodeId,
    /// No element is greater in magnitude.
    pub bound: f64,
    /// f32 holds every element exactly, however it is computed.
    pub exact: bool,
}

/// Real values grow no larger.
const LIMIT: f64 = 16.0;

/// A graph under construction.
pub(super) struct Grower {
    pub options: GraphOptions,
    pub choices: Choices,
    pub graph: Graph,
    /// The shape that most nodes have.
    pub base: Shape,
    /// Reals that operations are put on top of.
    pub reals: Vec<Known>,
    /// Integers likewise.
    pub integers: Vec<Known>,
    /// Seed and step of the draws.
    pub key: [NodeId; 2],
    /// How many leaves, streams and so on have been named.
    names: usize,
}

impl Grower {
    fn new(seed: u64, options: GraphOptions) -> Self {
        let mut choices = Choices::new(seed);
        let rank = choices.pick(&[0, 1, 2, 2, 3, 4, 4, 4]);
        let base = (0..rank).map(|_| choices.pick(&[1, 2, 3, 3, 4, 5, 7])).collect();
        let graph = Graph::new(format!("random-{seed}"));
        let key = [NodeId::end(); 2];
        let mut grower = Grower { options, choices, graph, base, reals: vec![], integers: vec![], key, names: 0 };
        grower.key = [
            grower.leaf(Op::Input { name: "seed".into(), ty: Type::u32([2]) }),
            grower.leaf(Op::State { name: "step".into(), ty: Type::u32([]) }),
        ];
        let base = grower.base.clone();
        let thin: Shape = base.iter().map(|&size| if grower.choices.one_in(2) { 1 } else { size }).collect();
        for shape in [base.clone(), base.clone(), thin] {
            let input = grower.real_leaf(shape);
            grower.reals.push(input);
        }
        let labels = grower.leaf(Op::Input { name: "labels".into(), ty: Type::u32(base) });
        grower.integers.push(Known { id: labels, bound: 9.0, exact: true });
        grower
    }

    /// A name that no input, state or stream has yet.
    pub fn fresh(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}/{}", self.names)
    }

    /// Adds a node. Its types fit by construction.
    pub fn op(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        let origin = self.origin();
        let name = op.name();
        match self.graph.add(op, operands, name, origin) {
            Ok(id) => id,
            Err(error) => panic!("the generator built an ill-typed node: {error}"),
        }
    }

    fn origin(&mut self) -> Origin {
        let scope = self.choices.pick(&["", "", "generator/0-dense", "train step", "\"quoted\"\n// scope"]);
        let start = self.choices.below(1000);
        Origin {
            span: self.choices.one_in(2).then_some(Span { start, end: start + 7 }),
            scope: scope.into(),
            role: match self.choices.below(4) {
                0 => Role::Gradient("loss_d".into()),
                1 => Role::Optimiser("the generator".into()),
                _ => Role::Forward,
            },
        }
    }

    fn leaf(&mut self, op: Op) -> NodeId {
        self.op(op, &[])
    }

    /// A new input or state tensor of reals.
    pub fn real_leaf(&mut self, shape: Shape) -> Known {
        let ty = Type::f32(shape);
        let op = if self.choices.one_in(2) {
            Op::Input { name: self.fresh("input"), ty }
        } else {
            Op::State { name: self.fresh("state"), ty }
        };
        Known { id: self.leaf(op), bound: 1.0, exact: true }
    }

    pub fn constant(&mut self, value: f64, shape: &[usize]) -> NodeId {
        self.op(Op::constant(value, DType::F32, shape), &[])
    }

    pub fn scalar(&mut self, op: ScalarOp, operands: &[NodeId]) -> NodeId {
        self.op(Op::Scalar(op), operands)
    }

    pub fn shape(&self, id: NodeId) -> Shape {
        self.graph.shape(id).to_vec()
    }

    /// `x · factor`.
    pub fn scale(&mut self, x: Known, factor: f64) -> Known {
        let shape = self.shape(x.id);
        let factor_node = self.constant(factor, &shape);
        let id = self.scalar(ScalarOp::Mul, &[x.id, factor_node]);
        Known { id, bound: x.bound * factor.abs(), exact: false }
    }

    fn step(&mut self) {
        if self.choices.one_in(8) {
            let grown = self.integer_step();
            if self.graph.ty(grown.id).elements() <= self.options.max_elements {
                self.integers.push(grown);
            }
            return;
        }
        let mut grown = self.real_step();
        if grown.bound > LIMIT {
            grown = self.scale(grown, LIMIT / 4.0 / grown.bound);
        }
        if self.graph.ty(grown.id).elements() <= self.options.max_elements {
            self.reals.push(grown);
        }
    }

    /// The mean of all elements, as a scalar.
    fn mean(&mut self, x: Known) -> Known {
        let shape = self.shape(x.id);
        let axes = (0..shape.len()).collect();
        let sum = self.op(Op::Reduce { kind: ReduceKind::Sum, axes }, &[x.id]);
        let id = self.op(Op::Reshape { to: vec![] }, &[sum]);
        let count: usize = shape.iter().product();
        self.scale(Known { id, bound: x.bound * count as f64, exact: false }, 1.0 / count as f64)
    }

    /// Chooses outputs, updates and a probe; what they do not depend on stays as dead code now and then.
    fn finish(mut self) -> Graph {
        let newer = self.reals.split_off(self.reals.len() / 2);
        let mut loss = self.mean(newer[newer.len() - 1]);
        if self.choices.one_in(2) {
            let other = self.choices.pick(&newer);
            let other = self.mean(other);
            loss.id = self.scalar(ScalarOp::Add, &[loss.id, other.id]);
        }
        self.graph.outputs.push(Output { name: "loss".into(), node: loss.id });
        for number in 0..self.choices.below(3) {
            let node = self.choices.pick(&newer).id;
            self.graph.outputs.push(Output { name: format!("real {number}"), node });
        }
        if self.choices.one_in(2) {
            let node = self.choices.pick(&self.integers).id;
            self.graph.outputs.push(Output { name: "integer".into(), node });
        }
        self.update_states(&newer);
        if self.options.gradients {
            let leaf = self.choices.pick(&newer).id;
            let node = self.op(Op::Gradient, &[loss.id, leaf]);
            self.graph.outputs.push(Output { name: "gradient".into(), node });
        }
        let node = self.choices.pick(&newer).id;
        self.graph.probes.push(Probe { name: "probe \\ of\tany name".into(), node });
        if !self.choices.one_in(4) {
            self.graph.remove_dead();
        }
        self.graph
    }

    /// The counter counts; each state tensor moves towards a value of its shape, where there is one.
    fn update_states(&mut self, values: &[Known]) {
        let one = self.op(Op::constant(1.0, DType::U32, []), &[]);
        let next = self.scalar(ScalarOp::AddU32, &[self.key[1], one]);
        self.graph.updates.push(Update { state: "step".into(), node: next });
        for id in self.graph.ids() {
            let Op::State { name, ty } = self.graph.op(id).clone() else { continue };
            let alike: Vec<Known> = values.iter().copied().filter(|v| self.graph.ty(v.id) == &ty).collect();
            if ty.dtype == DType::U32 || alike.is_empty() {
                continue;
            }
            let target = self.choices.pick(&alike);
            let (kept, moved) = (Known { id, bound: 1.0, exact: true }, target);
            let (kept, moved) = (self.scale(kept, 0.9), self.scale(moved, 0.1));
            let node = self.scalar(ScalarOp::Add, &[kept.id, moved.id]);
            self.graph.updates.push(Update { state: name, node });
        }
    }
}
