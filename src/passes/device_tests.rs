//! The passes for devices on programs of the kind that they are for.

use super::*;
use crate::compile::{Options, Stage, compile};
use crate::ir::text::parse;
use crate::ir::{Builder, NodeId, Op, Origin, Output, ReduceKind, Type, Window, verify};
use crate::kernel::target::{Architecture, Target};
use crate::scalar::ScalarOp;
use crate::testing::Choices;
use insta::assert_snapshot;
use proptest::prelude::*;

const IMAGES: PassContext = PassContext { fast_math: false, images: true };

/// A graph before and after passes, each of which is validated.
fn through_passes(run: &[fn(&mut Graph, &PassContext) -> Report], context: &PassContext, lines: &str) -> String {
    let before = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
    let mut after = before.clone();
    for pass in run {
        let last = after.clone();
        pass(&mut after, context);
        assert_eq!(verify(&after), Ok(()));
        validate(&last, &after, 0).unwrap();
    }
    format!("{before}→\n{after}")
}

/// A layer that gives rows, normalises them over the batch and hands them to a convolution as images, and the way back.
#[test]
fn rows_between_a_product_and_a_convolution_become_images() {
    let lines = r#"
        %x: f32[4,5] = input "x"
        %w: f32[5,12] = state "w"
        %offset: f32[12] = state "offset"
        %f: f32[3,2,2,2] = state "f"
        %y: f32[4,12] = matmul %x %w
        %s: f32[1,12] = reduce_sum %y axes=[0]
        %quarter: f32[1,12] = constant 0.25
        %mean = mul %s %quarter
        %m: f32[4,12] = broadcast %mean
        %centred = sub %y %m
        %o: f32[1,12] = reshape %offset
        %ob: f32[4,12] = broadcast %o
        %shifted = add %centred %ob
        %zero: f32[4,12] = constant 0.0
        %r = max %shifted %zero
        %i: f32[4,3,2,2] = reshape %r
        %z: f32[4,2,3,3] = conv2d_input_grad %i %f stride=[1,1] pad=[0,0] size=[3,3]
        %di: f32[4,3,2,2] = conv2d %z %f stride=[1,1] pad=[0,0]
        %dr: f32[4,12] = reshape %di
        %is_positive = gt %r %zero
        %dshifted = select %is_positive %dr %zero
        %do: f32[1,12] = reduce_sum %dshifted axes=[0]
        %d: f32[12] = reshape %do
        %xt: f32[5,4] = transpose %x permutation=[1,0]
        %dw: f32[5,12] = matmul %xt %dshifted
        output z = %z
        output d = %d
        output dw = %dw
        output mean = %mean"#;
    assert_snapshot!(through_passes(&[unflatten, movement, cse, dead], &IMAGES, lines));
    let graph = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
    let mut same = graph.clone();
    assert_eq!(unflatten(&mut same, &PassContext::default()).changed, 0);
    assert_eq!(graph, same, "it is not asked for");
}

/// What the DCGAN's entry comes to for a target, after each pass that `wanted` names.
fn dcgan(target: Target, wanted: &str) -> Graph {
    let mut found = None;
    let options = Options { target, sets: vec!["batch=4".into()], ..Options::default() };
    let text = include_str!("../../graphs/dcgan.ron");
    compile("dcgan.ron", text, &options, &mut |stage: Stage| {
        if stage.entry == "train_step" && stage.name == wanted {
            found = Some(stage.graph.clone());
        }
    })
    .unwrap();
    found.unwrap()
}

const GPU: Target = Target::Cuda(Architecture(90));

/// Of the DCGAN's step nothing as large as its images is left flat but at matrix products and in the discriminator's head.
#[test]
fn the_dcgan_has_images_between_products_and_convolutions() {
    let rows = |graph: &Graph| {
        let is_large = |id: &NodeId| *graph.shape(*id) == [4, 12544];
        let is_computed =
            |id: &NodeId| matches!(graph.op(*id), Op::Scalar(_) | Op::Reduce { .. } | Op::Broadcast { .. });
        graph.ids().into_iter().filter(|id| is_large(id) && is_computed(id)).count()
    };
    let states = |graph: &Graph| graph.ids().into_iter().filter(|&id| graph.shape(id) == [300, 12544]).count();
    let (before, after) = (dcgan(GPU, "dead-3"), dcgan(GPU, "dead-4"));
    assert!(rows(&before) > 30, "{}", rows(&before));
    assert_eq!(rows(&after), 0);
    assert_eq!(states(&before), states(&after), "weights stay as they are");
    assert_eq!(before, dcgan(Target::Cpu, "dead-3"), "all before is the same for every target");
}

/// Layers of rows around convolutions, with what may come between.
fn flattened_network(seed: u64) -> Graph {
    let mut choices = Choices::new(seed);
    let (n, c, h, w) =
        (choices.pick(&[2, 3, 5]), choices.pick(&[1, 2, 3]), choices.pick(&[1, 2, 3]), choices.pick(&[2, 3]));
    let f = c * h * w;
    let mut graph = Graph::new("rows");
    let mut b = Builder::new(&mut graph, Origin::default());
    let leaf = |b: &mut Builder, shape: &[usize]| {
        let name = format!("x{}", b.graph.len());
        b.op(Op::Input { name, ty: Type::f32(shape) }, &[])
    };
    let filter = leaf(&mut b, &[c, 2, 1, 2]);
    let (x, weight, thin) = (leaf(&mut b, &[n, 3]), leaf(&mut b, &[3, f]), leaf(&mut b, &[1, f]));
    let seed = b.op(Op::Input { name: "seed".into(), ty: Type::u32([2]) }, &[]);
    let step = b.op(Op::Input { name: "step".into(), ty: Type::u32([]) }, &[]);
    let mut wide = vec![b.matmul(x, weight), leaf(&mut b, &[n, f])];
    let mut small = vec![thin];
    for i in 0..choices.below(20) {
        let (x, y) = (choices.pick(&wide), choices.pick(&wide));
        let (s, t) = (choices.pick(&small), choices.pick(&small));
        let window = Window { stride: [1, 1], pad: [0, 0] };
        match choices.below(12) {
            0 | 1 => wide.push(b.scalar(ScalarOp::Tanh, &[x])),
            2 | 3 => {
                let sum = b.add(x, y);
                wide.push(b.scalar(ScalarOp::Sin, &[sum]));
            }
            4 => small.push(b.mean(x, &[0])),
            5 => wide.push(b.broadcast(s, &[n, f])),
            6 => {
                let mean = b.mean(x, &[1]);
                wide.push(b.broadcast(mean, &[n, f]));
            }
            7 => {
                let most = b.op(Op::Reduce { kind: ReduceKind::Max, axes: vec![0, 1] }, &[x]);
                wide.push(b.broadcast(most, &[n, f]));
            }
            8 => {
                let (distribution, stream) = (crate::ir::Distribution::Uniform, format!("s{i}"));
                wide.push(b.op(Op::Random { distribution, stream, shape: vec![n, f] }, &[seed, step]));
            }
            9 => small.push(b.add(s, t)),
            10 => wide.push(b.scale(x, 0.5)),
            _ => {
                let image = b.reshape(x, &[n, c, h, w]);
                let z = b.op(Op::Conv2dInputGrad { window, size: [h, w + 1] }, &[image, filter]);
                let back = b.op(Op::Conv2d { window }, &[z, filter]);
                let rows = b.reshape(back, &[n, f]);
                wide.push(b.scalar(ScalarOp::Tanh, &[rows]));
            }
        }
    }
    let last: Vec<NodeId> = wide.iter().chain(&small).copied().skip(1).step_by(2).collect();
    let image = b.reshape(wide[wide.len() - 1], &[n, c, h, w]);
    let window = Window { stride: [1, 1], pad: [0, 0] };
    let z = b.op(Op::Conv2dInputGrad { window, size: [h, w + 1] }, &[image, filter]);
    graph.outputs =
        last.into_iter().chain([z]).enumerate().map(|(i, node)| Output { name: format!("o{i}"), node }).collect();
    graph.remove_dead();
    graph
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn flattened_networks_compute_the_same(seed: u64) {
        let graph = flattened_network(seed);
        let mut after = graph.clone();
        unflatten(&mut after, &IMAGES);
        prop_assert_eq!(verify(&after), Ok(()));
        if let Err(error) = validate(&graph, &after, seed) {
            return Err(TestCaseError::fail(format!("{error}\n{graph}\n{after}")));
        }
        let mut again = after.clone();
        unflatten(&mut again, &IMAGES);
        prop_assert!(again.len() <= after.len());
    }
}
