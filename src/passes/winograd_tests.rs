//! Convolutions by minimal filtering beside those that they replace.

use super::*;
use crate::autodiff::differentiate;
use crate::ir::text::parse;
use crate::ir::{Bindings, Builder, Graph, NodeId, Op, Origin, Output, Type, Value, Window, evaluate, verify};
use crate::kernel::target::{Convolutions, Precision};
use crate::testing::random_bindings;
use insta::assert_snapshot;

const CONTEXT: PassContext = PassContext {
    fast_math: false,
    images: false,
    thin_products: false,
    merge_calls: false,
    im2col: false,
    signs: false,
    deviations: false,
    minimal_filtering: Some(MinimalFiltering { flops_per_byte: 8, most_points: 8 }),
    operands: None,
    matrices_alone: false,
};

fn rewritten(lines: &str) -> String {
    let before = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
    let mut after = before.clone();
    assert!(winograd(&mut after, &CONTEXT).changed > 0);
    assert_eq!(verify(&after), Ok(()));
    validate(&before, &after, Assumes::Alike, 0).unwrap();
    // What is printed is read again.
    assert_eq!(parse(&after.to_string()).unwrap(), after);
    format!("{before}→\n{after}")
}

#[test]
fn a_convolution_becomes_a_product_of_transforms() {
    assert_snapshot!(rewritten(
        r#"
        %x: f32[16,32,7,7] = input "x"
        %w: f32[48,32,5,5] = state "w"
        %y: f32[16,48,7,7] = conv2d %x %w stride=[1,1] pad=[2,2]
        output y = %y"#
    ));
}

#[test]
fn a_transposed_convolution_becomes_the_adjoint() {
    assert_snapshot!(rewritten(
        r#"
        %x: f32[64,96,7,7] = input "x"
        %w: f32[96,64,4,4] = state "w"
        %y: f32[64,64,14,14] = conv2d_input_grad %x %w stride=[2,2] pad=[1,1] size=[14,14]
        output y = %y"#
    ));
}

#[test]
fn what_gains_nothing_stays() {
    let stays = |lines: &str, context: &PassContext| {
        let mut graph = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
        let before = graph.clone();
        assert_eq!(winograd(&mut graph, context).changed, 0);
        graph == before
    };
    // One channel, a filter of one element, and one as large as its image.
    for convolution in [
        "%x: f32[64,1,28,28] = input \"x\"\n%w: f32[64,1,4,4] = state \"w\"\n%y: f32[64,64,14,14] = conv2d %x %w stride=[2,2] pad=[1,1]",
        "%x: f32[64,64,7,7] = input \"x\"\n%w: f32[64,64,1,1] = state \"w\"\n%y: f32[64,64,7,7] = conv2d %x %w stride=[1,1] pad=[0,0]",
        "%x: f32[64,64,7,7] = input \"x\"\n%w: f32[64,64,7,7] = state \"w\"\n%y: f32[64,64,1,1] = conv2d %x %w stride=[1,1] pad=[0,0]",
    ] {
        assert!(stays(&format!("{convolution}\noutput y = %y"), &CONTEXT), "{convolution}");
    }
    let large = "%x: f32[64,64,7,7] = input \"x\"\n%w: f32[64,64,3,3] = state \"w\"\n%y: f32[64,64,7,7] = conv2d %x %w stride=[1,1] pad=[1,1]\noutput y = %y";
    assert!(stays(large, &PassContext::default()), "it is not asked for");
    let mut graph = parse(&format!("graph g {{\n{large}\n}}")).unwrap();
    assert_eq!(winograd(&mut graph, &CONTEXT).changed, 1);
}

/// The sum of a convolution's results, each times a number of its own, and its gradients.
fn with_gradients(window: Window, x: [usize; 4], w: [usize; 4], transposed: Option<[usize; 2]>) -> Graph {
    let mut graph = Graph::new("g");
    let mut b = Builder::new(&mut graph, Origin::default());
    let input = |b: &mut Builder, name: &str, shape: &[usize]| -> NodeId {
        b.named(name, Op::Input { name: name.into(), ty: Type::f32(shape) }, &[])
    };
    let (x, w) = (input(&mut b, "x", &x), input(&mut b, "w", &w));
    let op = match transposed {
        Some(size) => Op::Conv2dInputGrad { window, size },
        None => Op::Conv2d { window },
    };
    let y = b.op(op, &[x, w]);
    let shape = b.shape(y);
    let factors = input(&mut b, "factors", &shape);
    let product = b.mul(y, factors);
    let loss = b.sum(product, &[0, 1, 2, 3]);
    let loss = b.reshape(loss, &[]);
    let (dx, dw) = (b.op(Op::Gradient, &[loss, x]), b.op(Op::Gradient, &[loss, w]));
    for (name, node) in [("y", y), ("dx", dx), ("dw", dw)] {
        graph.outputs.push(Output { name: name.into(), node });
    }
    graph
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// The errors that the documentation promises of results and gradients in f32, 1e-5 of the norm of a direct convolution's
/// or with large tiles 1e-4, and where the product of the transforms is one of bf16: 8%.
#[test]
fn results_and_gradients_are_near_those_of_direct_convolutions_in_f64() {
    let window = |stride, pad| Window { stride: [stride; 2], pad: [pad; 2] };
    for (window, x, w, transposed) in [
        (window(1, 2), [16, 64, 7, 7], [32, 64, 5, 5], None),
        (window(2, 1), [64, 64, 14, 14], [96, 64, 4, 4], None),
        (window(2, 1), [64, 96, 7, 7], [96, 64, 4, 4], Some([14, 14])),
        (window(1, 1), [8, 64, 12, 12], [32, 64, 3, 3], None),
    ] {
        let mut direct = with_gradients(window, x, w, transposed);
        let [accurate, fast] = [Convolutions::Accurate, Convolutions::Fast].map(|how| {
            let most_points = how.most_points(Precision::F32).unwrap();
            let mut graph = direct.clone();
            let minimal_filtering = Some(MinimalFiltering { flops_per_byte: 0, most_points });
            assert_eq!(winograd(&mut graph, &PassContext { minimal_filtering, ..CONTEXT }).changed, 1, "{x:?}");
            differentiate(&mut graph);
            graph
        });
        differentiate(&mut direct);
        let mut rounded = accurate.clone();
        operand_precision(
            &mut rounded,
            &PassContext { operands: Some(Rounding::Bf16), matrices_alone: true, ..CONTEXT },
        );
        let given: Bindings<f32> = random_bindings(&direct, 7);
        let exact: Bindings<f64> = given
            .iter()
            .map(|(name, value)| {
                let reals = value.reals().iter().map(|&v| f64::from(v)).collect();
                (name.clone(), Value::real(value.shape.clone(), reals))
            })
            .collect();
        let expected = evaluate(&direct, &exact).unwrap();
        for (graph, least, most) in [(&accurate, 0.0, 1e-5), (&fast, 0.0, 1e-4), (&rounded, 1e-3, 8e-2)] {
            let found = evaluate(graph, &given).unwrap();
            for ((name, found), (_, expected)) in found.outputs.iter().zip(&expected.outputs) {
                let (found, expected) = (found.reals(), expected.reals());
                let error =
                    norm(found.iter().zip(expected).map(|(f, e)| f64::from(*f) - e)) / norm(expected.iter().copied());

                assert!(error < most && error > least, "{name} of {x:?}: {error}");
            }
        }
    }
}
