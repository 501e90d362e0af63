//! Weights of layers: how they start, and spectral normalisation.

use super::layers::{Layer, Mode};
use super::nodes::Nodes;
use super::rows::{Arg, At, Kind, Param, Row, rows};
use crate::ir::{Initialiser, NodeId, Op, StateRole, Type};
use crate::scalar::ScalarOp;

/// What a layer does with its weights.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    pub start: Start,
    pub is_spectral: bool,
}

/// How weights start. Biases start at 0.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// Uniform on ±√(6 / (fan in + fan out)): Glorot & Bengio, AISTATS 2010, equation 16.
    Glorot,
    /// Normally distributed with variance 2 / fan in: He, Zhang, Ren & Sun, ICCV 2015, equation 10.
    He,
    Normal(f64),
    Uniform(f64),
}

/// Puts a start's settings together.
pub type Settings = fn(&mut Nodes<'_>, &At, &[Arg]) -> Option<Start>;

rows! {
    /// How weights may start.
    STARTS: Settings; |_n, _at|
    /// Uniform, by the fans in and out (Glorot & Bengio, 2010): what a network has that says nothing.
    Glorot(), "Glorot()" => Some(Start::Glorot);
    /// Normally distributed, by the fan in, for layers with relus (He et al., 2015).
    He(), "He()" => Some(Start::He);
    /// Normally distributed about 0 with this standard deviation.
    Normal(deviation: NotNegative), "Normal(0.02)" => Some(Start::Normal(deviation));
    /// Spread evenly from -limit to limit.
    Uniform(limit: NotNegative), "Uniform(0.05)" => Some(Start::Uniform(limit));
}

/// The least norm that a vector is divided by, as in PyTorch.
const LEAST_NORM: f64 = 1e-12;
/// What follows a layer's path in the name of the state of its spectral normalisation.
const LEFT: &str = "spectral_u";
const RIGHT: &str = "spectral_v";

impl Nodes<'_> {
    /// The weights of a layer. `fans` is the sum of fans in and out: channels, each times the elements of the kernel.
    /// `out` is the dimension of what comes out.
    pub fn weight(&mut self, layer: &Layer, shape: Vec<usize>, fans: f64, out: usize) -> Option<NodeId> {
        let fan_in = shape.iter().product::<usize>() as f64 / shape[out] as f64;
        let start = match layer.weights.start {
            Start::Glorot => Initialiser::Uniform { limit: (6.0 / fans).sqrt() },
            Start::He => Initialiser::Normal { deviation: (2.0 / fan_in).sqrt() },
            Start::Normal(deviation) => Initialiser::Normal { deviation },
            Start::Uniform(limit) => Initialiser::Uniform { limit },
        };
        let weight = self.parameter(layer, "weight", shape, start)?;
        if layer.weights.is_spectral { self.spectral(layer, weight, out) } else { Some(weight) }
    }

    /// How many weights of the entry are normalised so far.
    pub fn normalised_weights(&self) -> usize {
        self.normalised
    }

    /// `W / σ`, where σ estimates the largest singular value of `W` as a matrix of what comes out by all the rest: Miyato,
    /// Kataoka, Koyama & Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018, algorithm 1. In
    /// training a step of the power iteration comes first, `u ← W v / ‖W v‖` and `v ← Wᵀ u / ‖Wᵀ u‖`, and `σ = uᵀ W v`; no
    /// gradient flows through `u` and `v`, which are state. So does PyTorch's `parametrizations.spectral_norm`, which begins
    /// with 15 steps more.
    fn spectral(&mut self, layer: &Layer, weight: NodeId, out: usize) -> Option<NodeId> {
        self.normalised += 1;
        self.push_scope("spectral_norm");
        let normal = self.spectral_below(layer, weight, out);
        self.pop_scope();
        normal
    }

    fn spectral_below(&mut self, layer: &Layer, weight: NodeId, out: usize) -> Option<NodeId> {
        let span = layer.span;
        let shape = self.shape(weight).to_vec();
        let (rows, elements) = (shape[out], shape.iter().product::<usize>());
        let columns = elements / rows;
        let mut matrix = weight;
        if out != 0 {
            let permutation = [&[out][..], &(0..shape.len()).filter(|&d| d != out).collect::<Vec<_>>()].concat();
            matrix = self.add(Op::Transpose { permutation }, &[matrix], "by_output", span)?;
        }
        let matrix = self.add(Op::Reshape { to: vec![rows, columns] }, &[matrix], "matrix", span)?;
        let mut vector = |name: &str, length: usize| {
            let (name, ty) = (format!("{}/{name}", layer.path), Type::f32([length]));
            self.state(&name, ty, StateRole::Statistic, Initialiser::Direction, span)
        };
        let (u, v) = (vector(LEFT, rows)?, vector(RIGHT, columns)?);
        let mut u = self.add(Op::Reshape { to: vec![rows, 1] }, &[u], "u", span)?;
        let mut v = self.add(Op::Reshape { to: vec![columns, 1] }, &[v], "v", span)?;
        if layer.mode == Mode::Training {
            let fixed = self.add(Op::Detach, &[matrix], "fixed", span)?;
            let product = self.add(Op::MatMul, &[fixed, v], "w_v", span)?;
            u = self.direction(product, "new_u", span)?;
            let turned = self.add(Op::Transpose { permutation: vec![1, 0] }, &[fixed], "turned", span)?;
            let product = self.add(Op::MatMul, &[turned, u], "w_u", span)?;
            v = self.direction(product, "new_v", span)?;
            for (name, new) in [(LEFT, u), (RIGHT, v)] {
                let flat = vec![self.shape(new)[0]];
                let next = self.add(Op::Reshape { to: flat }, &[new], name, span)?;
                let next = self.add(Op::Detach, &[next], name, span)?;
                self.current.insert(format!("{}/{name}", layer.path), next);
            }
        }
        let (fixed_u, fixed_v) =
            (self.add(Op::Detach, &[u], "fixed_u", span)?, self.add(Op::Detach, &[v], "fixed_v", span)?);
        let product = self.add(Op::MatMul, &[matrix, fixed_v], "w_v", span)?;
        let parts = self.apply_as(ScalarOp::Mul, &[product, fixed_u], "u_w_v", span)?;
        let sigma = self.sum_of_all(parts, span)?;
        self.apply_as(ScalarOp::Div, &[weight, sigma], "normalised", span)
    }

    /// `x / max(‖x‖, ε)`
    fn direction(&mut self, x: NodeId, label: &str, span: crate::ir::Span) -> Option<NodeId> {
        let squares = self.apply_as(ScalarOp::Mul, &[x, x], "squares", span)?;
        let sum = self.sum_of_all(squares, span)?;
        let norm = self.apply_as(ScalarOp::Sqrt, &[sum], "norm", span)?;
        let least = self.constant(LEAST_NORM, span)?;
        let norm = self.apply_as(ScalarOp::Max, &[norm, least], "norm", span)?;
        self.apply_as(ScalarOp::Div, &[x, norm], label, span)
    }
}
