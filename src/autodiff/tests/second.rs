//! Gradients of gradients on small networks.

use super::Problem;
use crate::ir::{NodeId, Op, Window};
use crate::scalar::ScalarOp;

/// `x · w + b` for `x` of shape `[n, k]`.
fn dense(problem: &mut Problem, x: NodeId, units: usize) -> NodeId {
    let (n, k) = (problem.graph.shape(x)[0], problem.graph.shape(x)[1]);
    let w = problem.variable(&[k, units], [-0.8, 0.8]);
    let bias = problem.variable(&[1, units], [-0.5, 0.5]);
    let mut b = problem.builder();
    let product = b.matmul(x, w);
    let bias = b.broadcast(bias, &[n, units]);
    b.add(product, bias)
}

fn leaky_relu(problem: &mut Problem, x: NodeId) -> NodeId {
    let mut b = problem.builder();
    let leak = b.scale(x, 0.2);
    b.scalar(ScalarOp::Max, &[x, leak])
}

/// The mean over examples of (‖∇ₓ score‖ − 1)², as in Gulrajani et al., "Improved Training of
/// Wasserstein GANs", NeurIPS 2017, equation 3.
fn penalty(problem: &mut Problem, x: NodeId, score: NodeId) -> NodeId {
    let mut b = problem.builder();
    let all: Vec<usize> = (0..b.shape(score).len()).collect();
    let total = b.sum(score, &all);
    let total = b.reshape(total, &[]);
    let gradient = b.op(Op::Gradient, &[total, x]);
    let square = b.mul(gradient, gradient);
    let axes: Vec<usize> = (1..b.shape(square).len()).collect();
    let sum = b.sum(square, &axes);
    let norm = b.scalar(ScalarOp::Sqrt, &[sum]);
    let shape = b.shape(norm);
    let one = b.constant(1.0, &shape);
    let excess = b.sub(norm, one);
    let penalty = b.mul(excess, excess);
    let mean = b.mean(penalty, &(0..shape.len()).collect::<Vec<_>>());
    b.reshape(mean, &[])
}

#[test]
fn gradient_penalty_of_a_dense_network() {
    for seed in 0..3 {
        let mut problem = Problem::new(seed);
        let x = problem.variable(&[3, 4], [-1.0, 1.0]);
        let h = dense(&mut problem, x, 5);
        let h = problem.builder().scalar(ScalarOp::Tanh, &[h]);
        let h = dense(&mut problem, h, 4);
        let h = leaky_relu(&mut problem, h);
        let score = dense(&mut problem, h, 1);
        let loss = penalty(&mut problem, x, score);
        problem.check(loss);
    }
}

/// Strided convolutions with rows left over, a transposed one, leaky units and a dense head.
#[test]
fn gradient_penalty_of_a_convolutional_network() {
    for seed in 0..2 {
        let mut problem = Problem::new(seed);
        let x = problem.variable(&[2, 1, 6, 5], [-1.0, 1.0]);
        let w = problem.variable(&[2, 1, 3, 3], [-0.8, 0.8]);
        let window = Window { stride: [2, 2], pad: [1, 0] };
        let h = problem.builder().op(Op::Conv2d { window }, &[x, w]);
        let h = leaky_relu(&mut problem, h);
        let w = problem.variable(&[2, 2, 2, 3], [-0.8, 0.8]);
        let up = Op::Conv2dInputGrad { window: Window { stride: [1, 2], pad: [0, 1] }, size: [4, 3] };
        let h = problem.builder().op(up, &[h, w]);
        let h = problem.builder().scalar(ScalarOp::Softplus, &[h]);
        let flat: usize = problem.graph.shape(h)[1..].iter().product();
        let h = problem.builder().reshape(h, &[2, flat]);
        let score = dense(&mut problem, h, 1);
        let loss = penalty(&mut problem, x, score);
        problem.check(loss);
    }
}

/// d³/dx³ of x⁴ + sin x, as the gradient of a gradient of a gradient.
#[test]
fn derivatives_nest_to_any_depth() {
    let mut problem = Problem::new(11);
    let x = problem.variable(&[], [0.5, 1.5]);
    let mut b = problem.builder();
    let square = b.mul(x, x);
    let fourth = b.mul(square, square);
    let sine = b.scalar(ScalarOp::Sin, &[x]);
    let mut y = b.add(fourth, sine);
    for _ in 0..2 {
        y = b.op(Op::Gradient, &[y, x]);
    }
    problem.check(y);
}
