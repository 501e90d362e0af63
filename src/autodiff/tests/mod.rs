//! Derivatives against central differences, and the structure of what is built.

mod rules;
mod second;
mod structure;

use super::differentiate;
use crate::ir::{Bindings, Builder, Graph, NodeId, Op, Origin, Output, Type, Value, evaluate};

/// A scalar function of some variables, at a point.
struct Problem {
    graph: Graph,
    /// The node and the value of each variable; its name is the node's.
    variables: Vec<(NodeId, Vec<f64>)>,
    /// Picks the point.
    seed: u64,
    drawn: u64,
}

/// Half the distance of a central difference.
const STEP: f64 = 1e-5;
/// Largest accepted error of a derivative, relative to 1 + its largest element. Central differences
/// in f64 have truncation and rounding errors of some 1e-10 times the function's scale here.
const TOLERANCE: f64 = 1e-7;

impl Problem {
    fn new(seed: u64) -> Self {
        Problem { graph: Graph::new("problem"), variables: vec![], seed, drawn: 0 }
    }

    fn builder(&mut self) -> Builder<'_> {
        Builder::new(&mut self.graph, Origin::default())
    }

    /// A new variable with values in `range`. The values of all variables of one range differ by far
    /// more than [`STEP`], and so do they from zero: no difference crosses a kink of `max` or `abs`.
    fn variable(&mut self, shape: &[usize], range: [f64; 2]) -> NodeId {
        let name = format!("v{}", self.variables.len());
        let ty = Type::f32(shape);
        let values = (0..ty.elements()).map(|_| self.draw(range)).collect();
        let id = self.builder().named(&name.clone(), Op::Input { name, ty }, &[]);
        self.variables.push((id, values));
        id
    }

    /// The middle of one of 4096 equal parts of `range`, each at most once: an odd multiplier
    /// permutes them.
    fn draw(&mut self, [low, high]: [f64; 2]) -> f64 {
        assert!(self.drawn < 4096, "the values of this problem would repeat");
        let part = self.seed.wrapping_add(self.drawn).wrapping_mul(1_597) % 4096;
        self.drawn += 1;
        low + (high - low) * (part as f64 + 0.5) / 4096.0
    }

    /// `Σ out · r` with a new variable `r`: a scalar whose gradient exercises every element of `out`.
    fn project(&mut self, out: NodeId) -> NodeId {
        let shape = self.graph.shape(out).to_vec();
        let r = self.variable(&shape, [-1.0, 1.0]);
        self.dot(out, r)
    }

    fn dot(&mut self, a: NodeId, b: NodeId) -> NodeId {
        let axes: Vec<usize> = (0..self.graph.shape(a).len()).collect();
        let mut builder = self.builder();
        let product = builder.mul(a, b);
        let sum = builder.sum(product, &axes);
        builder.reshape(sum, &[])
    }

    /// A new scalar made of the gradients of `loss`, `Σ g + g²` over all elements of all variables:
    /// its own gradient combines all second derivatives of `loss`, mixed ones too.
    fn of_gradients(&mut self, loss: NodeId) -> NodeId {
        let variables: Vec<NodeId> = self.variables.iter().map(|(id, _)| *id).collect();
        let mut b = self.builder();
        let mut sum_of = |x: NodeId| {
            let gradient = b.op(Op::Gradient, &[loss, x]);
            let square = b.mul(gradient, gradient);
            let both = b.add(gradient, square);
            let axes: Vec<usize> = (0..b.shape(both).len()).collect();
            let sum = b.sum(both, &axes);
            b.reshape(sum, &[])
        };
        let terms: Vec<NodeId> = variables.into_iter().map(&mut sum_of).collect();
        terms.into_iter().reduce(|sum, term| b.add(sum, term)).expect("a problem has variables")
    }

    /// The gradient of `loss` with respect to every variable; leaves a graph that gives `loss` alone.
    fn gradients(&mut self, loss: NodeId) -> Vec<Vec<f64>> {
        self.graph.outputs.push(Output { name: "loss".into(), node: loss });
        for (x, _) in self.variables.clone() {
            let node = self.builder().op(Op::Gradient, &[loss, x]);
            self.graph.outputs.push(Output { name: format!("d_{}", self.graph.node(x).name), node });
        }
        differentiate(&mut self.graph);
        let gradients = self.outputs(None).split_off(1);
        self.graph.outputs.truncate(1);
        self.graph.remove_dead();
        gradients
    }

    /// Checks the gradient of `loss` with respect to every variable against central differences.
    fn check(mut self, loss: NodeId) {
        let gradients = self.gradients(loss);
        for (v, gradient) in gradients.iter().enumerate() {
            let scale = 1.0 + gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            for (i, &g) in gradient.iter().enumerate() {
                let [high, low] = [STEP, -STEP].map(|step| self.outputs(Some((v, i, step)))[0][0]);
                let difference = (high - low) / (2.0 * STEP);
                assert!(
                    (g - difference).abs() <= TOLERANCE * scale,
                    "derivative in element {i} of variable {v}: {g}, by differences {difference}\n{:?}",
                    self.graph
                );
            }
        }
    }

    /// [`Problem::check`] for `Σ out · r`, and again for its gradients: first and second derivatives.
    fn check_twice(build: impl Fn(&mut Problem) -> NodeId, seed: u64) {
        for second in [false, true] {
            let mut problem = Problem::new(seed);
            let out = build(&mut problem);
            let mut loss = problem.project(out);
            if second {
                loss = problem.of_gradients(loss);
            }
            problem.check(loss);
        }
    }

    /// The values of the outputs, with one element of one variable shifted.
    fn outputs(&self, shifted: Option<(usize, usize, f64)>) -> Vec<Vec<f64>> {
        let mut inputs = Bindings::<f64>::new();
        // What the loss does not depend on is no longer there.
        for (v, (id, values)) in self.variables.iter().enumerate().filter(|(_, (id, _))| self.graph.contains(*id)) {
            let mut values = values.clone();
            if let Some((_, i, step)) = shifted.filter(|(which, ..)| *which == v) {
                values[i] += step;
            }
            inputs.insert(format!("v{v}"), Value::real(self.graph.shape(*id), values));
        }
        let values = evaluate(&self.graph, &inputs).expect("a whole graph");
        values.outputs.iter().map(|(_, value)| value.to_f64()).collect()
    }
}
