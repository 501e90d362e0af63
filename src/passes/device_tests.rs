//! The passes for devices on programs of the kind that they are for.

use super::*;
use crate::compile::{Options, Stage, compile};
use crate::ir::text::parse;
use crate::ir::{Builder, NodeId, Op, Origin, Output, ReduceKind, Type, Window, evaluate, verify};
use crate::kernel::body::KernelKind;
use crate::kernel::target::{Architecture, Precision, Target};
use crate::scalar::ScalarOp;
use crate::testing::Choices;
use insta::assert_snapshot;
use proptest::prelude::{ProptestConfig, TestCaseError, prop_assert, prop_assert_eq, proptest};

const IMAGES: PassContext = PassContext {
    fast_math: false,
    images: true,
    thin_products: false,
    merge_calls: false,
    im2col: false,
    signs: false,
    deviations: false,
    operands: None,
    matrices_alone: false,
    minimal_filtering: None,
};
const MERGED: PassContext = PassContext {
    fast_math: false,
    images: false,
    thin_products: false,
    merge_calls: true,
    im2col: false,
    signs: false,
    deviations: false,
    operands: None,
    matrices_alone: false,
    minimal_filtering: None,
};

/// A graph before and after passes, each of which is validated.
fn through_passes(run: &[fn(&mut Graph, &PassContext) -> Report], context: &PassContext, lines: &str) -> String {
    let before = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
    let mut after = before.clone();
    for pass in run {
        let last = after.clone();
        pass(&mut after, context);
        assert_eq!(verify(&after), Ok(()));
        validate(&last, &after, Assumes::Nothing, 0).unwrap();
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

const DCGAN: &str = include_str!("../../graphs/dcgan.ron");

fn small(target: Target) -> Options {
    Options { target, sets: vec!["batch=4".into()], ..Options::default() }
}

/// What the DCGAN's entry comes to for a target, after each pass that `wanted` names.
fn dcgan(target: Target, wanted: &str) -> Graph {
    let mut found = None;
    compile("dcgan.ron", DCGAN, &small(target), &mut |stage: Stage| {
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

/// Two calls of two layers with a normalisation between, dropout in one of the halves' own draws, and gradients added up.
#[test]
fn calls_with_the_same_weights_become_one() {
    let lines = r#"
        %seed: u32[2] = input "seed"
        %step: u32[] = state "step"
        %x: f32[4,3] = input "x"
        %y: f32[2,3] = input "y"
        %w: f32[3,5] = state "w"
        %v: f32[5,2] = state "v"
        %bias: f32[1,5] = state "bias"
        %a: f32[4,5] = matmul %x %w
        %ab: f32[4,5] = broadcast %bias
        %a1 = add %a %ab
        %sa: f32[1,5] = reduce_sum %a1 axes=[0]
        %ma: f32[4,5] = broadcast %sa
        %a2 = sub %a1 %ma
        %za: f32[4,5] = constant 0.0
        %a3 = max %a2 %za
        %ra: f32[4,5] = random uniform "a" %seed %step
        %a4 = mul %a3 %ra
        %p: f32[4,2] = matmul %a4 %v
        %b: f32[2,5] = matmul %y %w
        %bb: f32[2,5] = broadcast %bias
        %b1 = add %b %bb
        %sb: f32[1,5] = reduce_sum %b1 axes=[0]
        %mb: f32[2,5] = broadcast %sb
        %b2 = sub %b1 %mb
        %zb: f32[2,5] = constant 0.0
        %b3 = max %b2 %zb
        %rb: f32[2,5] = random uniform "b" %seed %step
        %b4 = mul %b3 %rb
        %q: f32[2,2] = matmul %b4 %v
        %at: f32[5,4] = transpose %a4 permutation=[1,0]
        %bt: f32[5,2] = transpose %b4 permutation=[1,0]
        %da: f32[5,2] = matmul %at %p
        %db: f32[5,2] = matmul %bt %q
        %dv = add %db %da
        output p = %p
        output q = %q
        output dv = %dv"#;
    assert_snapshot!(through_passes(&[merge_calls, movement, cse, dead], &MERGED, lines));
}

const STATISTICS: PassContext = PassContext { deviations: true, ..MERGED };

#[test]
fn squared_deviations_become_a_reduction() {
    let lines = r#"
        %x: f32[8,4] = input "x"
        %s: f32[1,4] = reduce_sum %x axes=[0]
        %eighth: f32[1,4] = constant 0.125
        %m = mul %s %eighth
        %b: f32[8,4] = broadcast %m
        %c = sub %x %b
        %q = mul %c %c
        %v: f32[1,4] = reduce_sum %q axes=[0]
        output m = %m
        output v = %v"#;
    assert_snapshot!(through_passes(&[deviations], &STATISTICS, lines));
    // From another number than the mean.
    let other = lines.replace("constant 0.125", "constant 0.12");
    let mut graph = parse(&format!("graph g {{\n{other}\n}}")).unwrap();
    assert_eq!(deviations(&mut graph, &STATISTICS).changed, 0);
}

/// Each call has its own, and what reads them does not know of the other's. Sums that are added up are one sum of both.
#[test]
fn statistics_of_two_calls_are_one_reduction() {
    let lines = r#"
        %x: f32[4,3] = input "x"
        %y: f32[4,3] = input "y"
        %w: f32[3,5] = state "w"
        %a: f32[4,5] = matmul %x %w
        %sa: f32[1,5] = reduce_sum %a axes=[0]
        %va: f32[1,5] = reduce_deviations %a axes=[0]
        %ta = tanh %a
        %ga: f32[1,5] = reduce_sum %ta axes=[0]
        %b: f32[4,5] = matmul %y %w
        %sb: f32[1,5] = reduce_sum %b axes=[0]
        %vb: f32[1,5] = reduce_deviations %b axes=[0]
        %tb = tanh %b
        %gb: f32[1,5] = reduce_sum %tb axes=[0]
        %g = add %ga %gb
        output sa = %sa
        output va = %va
        output sb = %sb
        output vb = %vb
        output g = %g"#;
    assert_snapshot!(through_passes(&[merge_calls, movement, cse, dead], &STATISTICS, lines));
}

/// Of two calls' statistics one value is computed for both, but for what needs something else of a call's own.
#[test]
fn what_follows_from_statistics_of_two_calls_is_computed_as_one() {
    let lines = r#"
        %x: f32[4,3] = input "x"
        %y: f32[4,3] = input "y"
        %w: f32[3,5] = state "w"
        %running: f32[1,5] = state "running"
        %fourth: f32[1,5] = constant 0.25
        %a: f32[4,5] = matmul %x %w
        %va: f32[1,5] = reduce_deviations %a axes=[0]
        %ma = mul %va %fourth
        %ra = rsqrt %ma
        %followed_a = add %running %va
        %wide_a: f32[4,5] = broadcast %ra
        %na = mul %a %wide_a
        %b: f32[4,5] = matmul %y %w
        %vb: f32[1,5] = reduce_deviations %b axes=[0]
        %mb = mul %vb %fourth
        %rb = rsqrt %mb
        %followed_b = add %followed_a %vb
        %wide_b: f32[4,5] = broadcast %rb
        %nb = mul %b %wide_b
        output na = %na
        output nb = %nb
        update "running" = %followed_b"#;
    assert_snapshot!(through_passes(&[merge_calls, movement, cse, dead], &STATISTICS, lines));
}

const BF16: PassContext = PassContext { operands: Some(Rounding::Bf16), ..IMAGES };
const TF32: PassContext = PassContext { operands: Some(Rounding::Tf32), ..IMAGES };

/// A layer with its gradients: what comes before the relu is summed up, what comes after is compared only.
const LAYER: &str = r#"
        %x: f32[16,32] = input "x"
        %w: f32[32,48] = state "w"
        %v: f32[48,16] = state "v"
        %bias: f32[1,48] = state "bias"
        %a: f32[16,48] = matmul %x %w
        %wide: f32[16,48] = broadcast %bias
        %y = add %a %wide
        %zero: f32[16,48] = constant 0.0
        %r = max %y %zero
        %z: f32[16,16] = matmul %r %v
        %vt: f32[16,48] = transpose %v permutation=[1,0]
        %dr: f32[16,48] = matmul %z %vt
        %is_positive = gt %r %zero
        %dy = select %is_positive %dr %zero
        %xt: f32[32,16] = transpose %x permutation=[1,0]
        %dw: f32[32,48] = matmul %xt %dy
        %rt: f32[48,16] = transpose %r permutation=[1,0]
        %dv: f32[48,16] = matmul %rt %z
        %dbias: f32[1,48] = reduce_sum %dy axes=[0]
        %rate: f32[48,16] = constant 0.1
        %step = mul %dv %rate
        %next = sub %v %step
        %again: f32[16,16] = matmul %r %next
        output dw = %dw
        output dbias = %dbias
        output again = %again
        update "v" = %next"#;

#[test]
fn operands_of_large_contractions_are_rounded_once() {
    assert_snapshot!(through_passes(&[operand_precision], &BF16, LAYER));
    assert_snapshot!(through_passes(&[operand_precision], &TF32, LAYER));
    let graph = parse(&format!("graph g {{\n{LAYER}\n}}")).unwrap();
    let mut same = graph.clone();
    assert_eq!(operand_precision(&mut same, &IMAGES).changed, 0);
    assert_eq!(graph, same, "it is not asked for");
    for context in [BF16, TF32] {
        let mut once = graph.clone();
        operand_precision(&mut once, &context);
        let mut twice = once.clone();
        assert_eq!(operand_precision(&mut twice, &context).changed, 0);
        assert_eq!(once, twice);
    }
}

const THIN: PassContext = PassContext { thin_products: true, ..IMAGES };

/// A dense layer of one unit with its gradients, a batch of rows, and a product that is none of vectors.
#[test]
fn products_of_vectors_become_sums() {
    let lines = r#"
        %x: f32[4,6] = input "x"
        %w: f32[6,1] = state "w"
        %rows: f32[2,1,6] = input "rows"
        %m: f32[2,6,3] = input "m"
        %n: f32[6,5] = input "n"
        %y: f32[4,1] = matmul %x %w
        %wt: f32[1,6] = transpose %w permutation=[1,0]
        %dx: f32[4,6] = matmul %y %wt
        %xt: f32[6,4] = transpose %x permutation=[1,0]
        %dw: f32[6,1] = matmul %xt %y
        %r: f32[2,1,3] = matmul %rows %m
        %o: f32[4,5] = matmul %x %n
        output y = %y
        output dx = %dx
        output dw = %dw
        output r = %r
        output o = %o"#;
    assert_snapshot!(through_passes(&[thin_products], &THIN, lines));
    let mut same = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
    assert_eq!(thin_products(&mut same, &IMAGES).changed, 0, "it is not asked for");
    thin_products(&mut same, &THIN);
    assert_eq!(thin_products(&mut same, &THIN).changed, 0);
}

const SIGNS: PassContext = PassContext { signs: true, ..IMAGES };

/// A leaky relu before a product, and one with a dropout in between, with their gradients.
const LEAKY: &str = r#"
        %x: f32[4,6] = input "x"
        %g: f32[4,6] = input "g"
        %w: f32[6,5] = state "w"
        %seed: u32[2] = input "seed"
        %step: u32[] = input "step"
        %zero: f32[4,6] = constant 0
        %slope: f32[4,6] = constant SLOPE
        %scale: f32[4,6] = constant SCALE
        %pre: f32[4,6] = neg %x
        %p: f32[4,6] = gt %pre %zero
        %s: f32[4,6] = mul %pre %slope
        %l: f32[4,6] = select %p %pre %s
        %draw: f32[4,6] = random bernoulli(0.75) "drop" %seed %step
        %mask: f32[4,6] = mul %draw %scale
        %d: f32[4,6] = mul %l %mask
        %y: f32[4,5] = matmul RESULT %w
        %gm: f32[4,6] = mul %g MASK
        %a: f32[4,6] = select %p %gm %zero
        %b: f32[4,6] = select %p %zero %gm
        %bs: f32[4,6] = mul %b %slope
        %dx: f32[4,6] = add %a %bs
        output y = %y
        output dx = %dx"#;

fn leaky(slope: &str, scale: &str, result: &str, mask: &str) -> String {
    LEAKY.replace("SLOPE", slope).replace("SCALE", scale).replace("RESULT", result).replace("MASK", mask)
}

#[test]
fn signs_are_those_of_what_a_product_reads() {
    let dropped = leaky("0.2", "1.5", "%d", "%mask");
    assert_snapshot!(through_passes(&[signs], &SIGNS, &dropped));
    let changes = |lines: &str, context: &PassContext| {
        let mut graph = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
        let changed = signs(&mut graph, context).changed;
        assert_eq!(signs(&mut graph, context).changed, 0);
        changed
    };
    assert_eq!(changes(&dropped, &IMAGES), 0, "it is not asked for");
    // Without a dropout whatever is selected.
    assert_eq!(changes(&leaky("0.2", "1.5", "%l", "%x"), &SIGNS), 2);
    through_passes(&[signs], &SIGNS, &leaky("0.2", "1.5", "%l", "%x"));
    for (lines, why) in [
        (leaky("-0.2", "1.5", "%l", "%x"), "what is negative becomes positive"),
        (leaky("0.2", "0.5", "%d", "%mask"), "what is small becomes zero"),
        (leaky("0.2", "1.5", "%d", "%x"), "what is selected is not zero where it is dropped"),
        (leaky("0.2", "1.5", "%x", "%mask"), "nothing reads the result"),
        (format!("{dropped}\n        output pre = %pre"), "the value is in memory all the same"),
    ] {
        assert_eq!(changes(&lines, &SIGNS), 0, "{why}");
    }
}

const WINDOWS: PassContext = PassContext { im2col: true, ..IMAGES };

/// A layer of images of one channel with its two gradients, and one of as many channels as a tile takes.
#[test]
fn convolutions_of_grey_images_become_those_of_their_windows() {
    let lines = r#"
        %x: f32[4,1,8,8] = input "x"
        %y: f32[4,16,8,8] = input "y"
        %w: f32[24,1,4,4] = state "w"
        %v: f32[24,16,4,4] = state "v"
        %a: f32[4,24,4,4] = conv2d %x %w stride=[2,2] pad=[1,1]
        %b: f32[4,24,4,4] = conv2d %y %v stride=[2,2] pad=[1,1]
        %dw: f32[24,1,4,4] = conv2d_filter_grad %x %b stride=[2,2] pad=[1,1] kernel=[4,4]
        %dx: f32[4,1,8,8] = conv2d_input_grad %b %w stride=[2,2] pad=[1,1] size=[8,8]
        output a = %a
        output dw = %dw
        output dx = %dx"#;
    assert_snapshot!(through_passes(&[im2col], &WINDOWS, lines));
    let mut same = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
    assert_eq!(im2col(&mut same, &IMAGES).changed, 0, "it is not asked for");
    im2col(&mut same, &WINDOWS);
    assert_eq!(im2col(&mut same, &WINDOWS).changed, 0, "windows have no windows");
}

/// Too few taps, taps that are not copied 16 bytes at a time, few channels out, and an image that strides do not cut evenly.
#[test]
fn convolutions_that_tiles_do_not_suit_stay() {
    let lines = r#"
        %x: f32[4,1,9,9] = input "x"
        %y: f32[4,24,4,4] = input "y"
        %two: f32[24,1,2,2] = state "two"
        %five: f32[24,1,5,5] = state "five"
        %four: f32[24,1,4,4] = state "four"
        %thin: f32[8,1,4,4] = state "thin"
        %a: f32[4,24,8,8] = conv2d %x %two stride=[1,1] pad=[0,0]
        %b: f32[4,24,5,5] = conv2d %x %five stride=[1,1] pad=[0,0]
        %c: f32[4,8,6,6] = conv2d %x %thin stride=[1,1] pad=[0,0]
        %d: f32[4,1,9,9] = conv2d_input_grad %y %four stride=[2,2] pad=[1,1] size=[9,9]
        output a = %a
        output b = %b
        output c = %c
        output d = %d"#;
    let mut same = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
    assert_eq!(im2col(&mut same, &WINDOWS).changed, 0);
}

/// What is bf16 already stays as it is, read by a transposition too.
#[test]
fn what_is_stored_as_bf16_is_not_rounded_again() {
    let text = r#"graph g {
        %h: bf16[16,32] = input "h"
        %x: f32[32,16] = input "x"
        %wide: f32[16,32] = convert %h
        %turned: f32[32,16] = transpose %wide permutation=[1,0]
        %xt: f32[16,32] = transpose %x permutation=[1,0]
        %z: f32[32,32] = matmul %turned %xt
        output z = %z }"#;
    let mut graph = parse(text).unwrap();
    let before = graph.clone();
    operand_precision(&mut graph, &BF16);
    assert_eq!(verify(&graph), Ok(()));
    validate(&before, &graph, Assumes::Nothing, 0).unwrap();
    let narrowed = |id: &NodeId| *graph.op(*id) == Op::Convert { to: crate::ir::DType::Bf16 };
    assert_eq!(graph.ids().into_iter().filter(narrowed).count(), 1, "{graph}");
}

/// What else is computed from an operand is rounded with it only where no sum, result or other kind of user is behind it.
#[test]
fn only_what_spares_the_value_reads_it_rounded() {
    let reads_rounded = |more: &str| {
        let text = format!(
            r#"graph g {{
            %x: f32[16,16] = input "x"
            %w: f32[16,16] = state "w"
            %half: f32[16,16] = constant 0.5
            %y = tanh %x
            %z: f32[16,16] = matmul %y %w
            output z = %z
            {more} }}"#
        );
        let mut graph = parse(&text).unwrap();
        operand_precision(&mut graph, &BF16);
        let y = graph.find("y").unwrap();
        graph.users(y).len() == 1
    };
    assert!(reads_rounded(""));
    assert!(reads_rounded("%u = gt %y %half\n output u = %u"), "beside a constant");
    assert!(reads_rounded("%u = sign %y\n output u = %u"), "a sign");
    assert!(!reads_rounded("%u = gt %y %x\n output u = %u"), "beside what was computed");
    assert!(!reads_rounded("%u = eq %y %half\n output u = %u"), "whether it is exactly a number");
    assert!(reads_rounded("%u = mul %y %x\n %v: f32[16,16] = matmul %u %w\n output v = %v"), "an operand");
    assert!(!reads_rounded("%u = gt %y %half\n output u = %u\n output y = %y"), "a result");
    assert!(!reads_rounded("%u = gt %y %half\n output u = %u\n update \"w\" = %y"), "an update");
    assert!(!reads_rounded("%u: f32[1,16] = reduce_sum %y axes=[0]\n output u = %u"), "statistics");
    assert!(!reads_rounded("%u = mul %y %x\n %s: f32[1,1] = reduce_sum %u axes=[0,1]\n output s = %s"), "a loss");
    assert!(!reads_rounded("%u = mul %y %x\n output u = %u"), "an elementwise result");
    assert!(
        !reads_rounded(
            "%c: f32[16,4] = slice %w start=[0,0] end=[16,4]\n %u: f32[16,4] = matmul %y %c\n output u = %u"
        ),
        "a small contraction"
    );
}

/// A maximum is beside the elements that it was taken from as it is, whoever multiplies it: one of them equals it at least.
#[test]
fn an_element_equals_the_largest() {
    let text = r#"graph g {
        %x: f32[16,16,4] = input "x"
        %w: f32[16,16] = state "w"
        %y: f32[16,16,1] = reduce_max %x axes=[2]
        %rows: f32[16,16] = reshape %y
        %z: f32[16,16] = matmul %rows %w
        %wide: f32[16,16,4] = broadcast %y
        %is_largest = eq %x %wide
        %ties: f32[16,16,1] = reduce_sum %is_largest axes=[2]
        output z = %z
        output ties = %ties }"#;
    for context in [BF16, TF32] {
        let mut graph = parse(text).unwrap();
        assert!(operand_precision(&mut graph, &context).changed > 0);
        let found = evaluate(&graph, &validate::bindings(&graph, [0, 0])).unwrap();
        let ties = found.outputs[1].1.to_f64();
        assert!(ties.iter().all(|&ties| ties >= 1.0), "{ties:?}");
    }
}

/// In the DCGAN's step each operand is rounded once, losses and updates are in f32, and few large values are in memory in
/// both forms.
#[test]
fn the_dcgan_multiplies_bf16() {
    let with = |precision| {
        let options = Options { precision, sets: vec!["batch=16".into()], ..small(GPU) };
        let mut found = None;
        compile("dcgan.ron", DCGAN, &options, &mut |stage: Stage| {
            if stage.entry == "train_step" && stage.name == "operand-precision" {
                found = Some(stage.graph.clone());
            }
        })
        .unwrap();
        found.unwrap()
    };
    let rounds = |graph: &Graph| {
        let is_rounded = |id: &NodeId| {
            matches!(graph.op(*id), Op::Convert { to: crate::ir::DType::Bf16 } | Op::Scalar(ScalarOp::RoundTf32))
        };
        graph.ids().into_iter().filter(is_rounded).map(|id| graph.operands(id)[0]).collect::<Vec<_>>()
    };
    let plain = with(Precision::F32);
    assert_eq!(rounds(&plain), vec![]);
    for precision in [Precision::Bf16, Precision::Tf32] {
        let graph = with(precision);
        let mut rounded = rounds(&graph);
        let count = rounded.len();
        rounded.sort_unstable();
        rounded.dedup();
        assert_eq!(count, rounded.len(), "each once");
        assert!(count > 10, "{count}");
        assert_eq!(contractions(&graph), contractions(&plain));
        let twice: Vec<NodeId> = rounded.into_iter().filter(|&id| graph.users(id).len() > 1).collect();
        let is_kept = |&id: &NodeId| matches!(graph.op(id), Op::State { .. } | Op::Input { .. }) || graph.is_result(id);
        let others: Vec<&str> = twice.iter().filter(|id| !is_kept(id)).map(|&id| &graph.node(id).name[..]).collect();
        assert!(others.len() < 4, "{others:?}");
        validate(&plain, &graph, Assumes::Nothing, 0).unwrap();
    }
}

/// What depends on the other stays: a layer that is applied to its own result.
#[test]
fn a_layer_over_its_own_result_stays_two() {
    let graph = parse(
        r#"graph g {
        %x: f32[2,3] = input "x"
        %z: f32[2,3] = input "z"
        %w: f32[3,3] = state "w"
        %a: f32[2,3] = matmul %x %w
        %t = tanh %a
        %u = mul %t %z
        %b: f32[2,3] = matmul %u %w
        output b = %b }"#,
    )
    .unwrap();
    let mut same = graph.clone();
    assert_eq!(merge_calls(&mut same, &MERGED).changed, 0);
    assert_eq!(graph, same);
}

fn contractions(graph: &Graph) -> usize {
    graph.ids().into_iter().filter(|&id| graph.op(id).is_contraction()).count()
}

/// In the DCGAN's step the generator runs once for both of its calls, and the discriminator for real and made images.
#[test]
fn the_dcgan_runs_each_network_once_where_it_can() {
    let (before, after) = (dcgan(GPU, "unflatten"), dcgan(GPU, "dead-4"));
    let (one, two) = (contractions(&before), contractions(&dcgan(GPU, "merge-calls")));
    // Four layers of the generator; of the discriminator three, the two that give gradients to what is before them,
    // and its three filters' gradients.
    assert_eq!((one, two), (37, 25));
    // The discriminator's last layer has one unit: both of its calls, and what they pass back.
    assert_eq!(contractions(&after), 20);
    validate(&dcgan(GPU, "dead-3"), &after, Assumes::Nothing, 0).unwrap();
}

/// Many calls of the same layers, of which some need others' results.
fn many_calls(seed: u64) -> Graph {
    let mut choices = Choices::new(seed);
    let (c, window) = (choices.pick(&[1, 2]), Window { stride: [1, 1], pad: [1, 1] });
    let f = 4 * c;
    let mut graph = Graph::new("calls");
    let mut b = Builder::new(&mut graph, Origin::default());
    let leaf = |b: &mut Builder, shape: &[usize]| {
        let name = format!("x{}", b.graph.len());
        b.op(Op::Input { name, ty: Type::f32(shape) }, &[])
    };
    let seed = b.op(Op::Input { name: "seed".into(), ty: Type::u32([2]) }, &[]);
    let step = b.op(Op::Input { name: "step".into(), ty: Type::u32([]) }, &[]);
    let (filters, matrices) = ([leaf(&mut b, &[c, c, 3, 3]), leaf(&mut b, &[c, c, 3, 3])], [leaf(&mut b, &[f, f])]);
    let (channels, column) = (leaf(&mut b, &[1, c, 1, 1]), leaf(&mut b, &[1, f]));
    let mut values: Vec<NodeId> =
        (0..4).map(|_| choices.pick(&[1, 2, 2, 3])).map(|n| leaf(&mut b, &[n, c, 2, 2])).collect();
    let mut products: Vec<(NodeId, NodeId)> = Vec::new();
    let mut outputs = Vec::new();
    for i in 0..choices.below(24) {
        let x = choices.pick(&values[values.len() / 3..]);
        let shape = b.shape(x);
        let value = match choices.below(11) {
            0 | 1 => {
                let y = b.op(Op::Conv2d { window }, &[x, choices.pick(&filters)]);
                products.push((x, y));
                b.scalar(ScalarOp::Tanh, &[y])
            }
            2 => {
                let y = b.op(Op::Conv2dInputGrad { window, size: [2, 2] }, &[x, choices.pick(&filters)]);
                b.scalar(ScalarOp::Sin, &[y])
            }
            3 | 4 => {
                let rows = b.reshape(x, &[shape[0], f]);
                let y = b.matmul(rows, matrices[0]);
                let wide = b.broadcast(column, &[shape[0], f]);
                let y = b.add(y, wide);
                let y = b.scalar(ScalarOp::Tanh, &[y]);
                b.reshape(y, &shape)
            }
            5 => {
                let wide = b.broadcast(channels, &shape);
                b.add(x, wide)
            }
            6 => {
                let mean = b.mean(x, &[0, 2, 3]);
                let wide = b.broadcast(mean, &shape);
                b.sub(x, wide)
            }
            7 => {
                let mean = b.mean(x, &[1, 2, 3]);
                let wide = b.broadcast(mean, &shape);
                b.mul(x, wide)
            }
            8 => {
                let (distribution, stream) = (crate::ir::Distribution::Uniform, format!("s{i}"));
                let draw = b.op(Op::Random { distribution, stream, shape }, &[seed, step]);
                b.mul(x, draw)
            }
            9 => {
                let alike: Vec<NodeId> = values.iter().copied().filter(|&v| b.graph.shape(v) == shape).collect();
                b.mul(x, choices.pick(&alike))
            }
            _ => b.scale(x, 0.5),
        };
        values.push(value);
    }
    // Gradients of filters, summed up in twos.
    for pair in products.chunks_exact(2) {
        let grads: Vec<NodeId> =
            pair.iter().map(|&(x, y)| b.op(Op::Conv2dFilterGrad { window, kernel: [3, 3] }, &[x, y])).collect();
        outputs.push(b.add(grads[0], grads[1]));
        let sums: Vec<NodeId> = pair.iter().map(|&(_, y)| b.sum(y, &[0, 2, 3])).collect();
        outputs.push(b.add(sums[1], sums[0]));
    }
    outputs.extend(values.iter().rev().take(5));
    graph.outputs = outputs.into_iter().enumerate().map(|(i, node)| Output { name: format!("o{i}"), node }).collect();
    graph.remove_dead();
    graph
}

/// Two calls of a deep network, of which the second waits for something long, and a recurrent network whose steps wait for
/// each other: all is found, however deep.
#[test]
fn deep_networks_are_merged_whole() {
    let depth = 500;
    let mut graph = Graph::new("deep");
    let mut b = Builder::new(&mut graph, Origin::default());
    let input = |b: &mut Builder, name: String, shape: &[usize]| b.op(Op::Input { name, ty: Type::f32(shape) }, &[]);
    let weights: Vec<NodeId> = (0..depth).map(|i| input(&mut b, format!("w{i}"), &[2, 2])).collect();
    let (first, mut second) = (input(&mut b, "x".into(), &[3, 2]), input(&mut b, "y".into(), &[3, 2]));
    for _ in 0..depth {
        second = b.scalar(ScalarOp::Sin, &[second]);
    }
    let recurrent = input(&mut b, "u".into(), &[2, 2]);
    let mut calls = [first, second];
    let mut state = first;
    for &weight in &weights {
        for x in &mut calls {
            let product = b.matmul(*x, weight);
            *x = b.scalar(ScalarOp::Tanh, &[product]);
        }
        let product = b.matmul(state, recurrent);
        state = b.scalar(ScalarOp::Sin, &[product]);
    }
    let results = calls.into_iter().chain([state]).enumerate();
    graph.outputs = results.map(|(i, node)| Output { name: format!("o{i}"), node }).collect();
    let before = graph.clone();
    merge_calls(&mut graph, &MERGED);
    assert_eq!((contractions(&before), contractions(&graph)), (3 * depth, 2 * depth));
    validate(&before, &graph, Assumes::Nothing, 0).unwrap();
}

/// Two calls with a loss each: gradients have the sides of the values that they are of, so that each layer is one product forwards,
/// one backwards and one for its weights. What scales a gradient does the same as what normalises a value, but is none.
#[test]
fn gradients_of_two_calls_are_merged_as_their_values() {
    let depth = 12;
    let layers = vec!["Dense(64), BatchNorm(), Tanh()"; depth].join(", ");
    let text = format!(
        r#"Program(
            name: "two",
            networks: {{ "net": Network(input: [64], layers: [{layers}]) }},
            entries: {{ "train_step": Entry(
                inputs: {{ "x": Tensor([128, 64]), "y": Tensor([128, 64]) }},
                steps: [
                    Let("a", Call("net", "x", Training)),
                    Let("b", Call("net", "y", Training)),
                    Let("loss", Add(Mean(Mul("a", "a")), Mean(Mul("b", "b")))),
                    Minimise("loss", "net", Adam(lr: 0.001)),
                ],
                outputs: ["loss"],
            ) }},
        )"#
    );
    let options = Options { target: GPU, precision: Precision::Tf32, ..Options::default() };
    let plan = compile("two", &text, &options, &mut |_| {}).unwrap().plan.unwrap();
    let kernels = &plan.entry("train_step").unwrap().schedule.kernels;
    assert_eq!(kernels.iter().filter(|k| k.kind() == KernelKind::Contraction).count(), 3 * depth);
}

/// The random calls are of the kind that the pass is for: most have something to merge, and many something that must not be.
#[test]
fn random_calls_are_merged() {
    let mut merged = [0, 0];
    for seed in 0..100 {
        let mut graph = many_calls(seed);
        let before = contractions(&graph);
        merged[usize::from(merge_calls(&mut graph, &MERGED).changed > 0)] += 1;
        assert!(contractions(&graph) <= before);
    }
    assert!(merged[0] > 5 && merged[1] > 50, "{merged:?}");
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
        if let Err(error) = validate(&graph, &after, Assumes::Nothing, seed) {
            return Err(TestCaseError::fail(format!("{error}\n{graph}\n{after}")));
        }
        let mut again = after.clone();
        unflatten(&mut again, &IMAGES);
        prop_assert!(again.len() <= after.len());
    }

    /// Kernels and strides of all sizes, with padding, gaps between windows and pixels left over.
    #[test]
    fn layers_of_few_channels_compute_the_same(
        c in 1usize..9, kernel in [1usize..6, 1usize..6], stride in [1usize..4, 1usize..4], pad in [0usize..3, 0usize..3],
        extra in [0usize..6, 0usize..6], seed: u64,
    ) {
        let window = Window { stride, pad };
        let size = [0, 1].map(|d| (kernel[d] + extra[d]).saturating_sub(2 * pad[d]).max(1));
        let out = [0, 1].map(|d| (size[d] + 2 * pad[d] - kernel[d]) / stride[d] + 1);
        let mut graph = Graph::new("layer");
        let mut b = Builder::new(&mut graph, Origin::default());
        let mut leaf = |name: &str, shape: [usize; 4]| {
            b.op(Op::Input { name: name.into(), ty: Type::f32(shape) }, &[])
        };
        let x = leaf("x", [2, c, size[0], size[1]]);
        let w = leaf("w", [16, c, kernel[0], kernel[1]]);
        let g = leaf("g", [2, 16, out[0], out[1]]);
        let y = b.op(Op::Conv2d { window }, &[x, w]);
        let dx = b.op(Op::Conv2dInputGrad { window, size }, &[g, w]);
        let dw = b.op(Op::Conv2dFilterGrad { window, kernel }, &[x, g]);
        let named = [("y", y), ("dx", dx), ("dw", dw)];
        graph.outputs = named.map(|(name, node)| Output { name: name.into(), node }).to_vec();
        let mut after = graph.clone();
        let changed = im2col(&mut after, &WINDOWS).changed;
        let taps = c * kernel[0] * kernel[1];
        let suits = taps >= 16 && taps.is_multiple_of(8) && kernel[0] * kernel[1] <= 16 * stride[0] * stride[1];
        let cuts_evenly = (0..2).all(|d| size[d].is_multiple_of(stride[d]));
        prop_assert_eq!(changed, if suits { 2 + usize::from(cuts_evenly) } else { 0 });
        prop_assert_eq!(verify(&after), Ok(()));
        if let Err(error) = validate(&graph, &after, Assumes::Alike, seed) {
            return Err(TestCaseError::fail(format!("{error}\n{graph}\n{after}")));
        }
    }

    #[test]
    fn products_of_all_sizes_compute_the_same(
        batch in proptest::collection::vec(1usize..3, 0..3), m in 1usize..4, k in 1usize..4, n in 1usize..4,
        transposed: [bool; 2], seed: u64,
    ) {
        let mut graph = Graph::new("products");
        let mut b = Builder::new(&mut graph, Origin::default());
        let operands = [[m, k], [k, n]].into_iter().zip(transposed).enumerate().map(|(i, ([rows, columns], transposed))| {
            let last = if transposed { [columns, rows] } else { [rows, columns] };
            let ty = Type::f32([&batch[..], &last].concat());
            let x = b.op(Op::Input { name: format!("x{i}"), ty }, &[]);
            let rank = batch.len() + 2;
            let mut permutation: Vec<usize> = (0..rank).collect();
            permutation.swap(rank - 2, rank - 1);
            if transposed { b.transpose(x, &permutation) } else { x }
        });
        let operands: Vec<NodeId> = operands.collect();
        let node = b.op(Op::MatMul, &operands);
        graph.outputs = vec![Output { name: "y".into(), node }];
        let mut after = graph.clone();
        let report = thin_products(&mut after, &THIN);
        prop_assert_eq!(report.changed > 0, [m, k, n].contains(&1));
        prop_assert_eq!(verify(&after), Ok(()));
        if let Err(error) = validate(&graph, &after, Assumes::Nothing, seed) {
            return Err(TestCaseError::fail(format!("{error}\n{graph}\n{after}")));
        }
    }

    #[test]
    fn many_calls_compute_the_same(seed: u64, deviations: bool) {
        let context = PassContext { deviations, ..MERGED };
        let graph = many_calls(seed);
        let mut after = graph.clone();
        let report = merge_calls(&mut after, &context);
        prop_assert_eq!(verify(&after), Ok(()));
        prop_assert_eq!(report.changed > 0, graph != after);
        if let Err(error) = validate(&graph, &after, Assumes::Nothing, seed) {
            return Err(TestCaseError::fail(format!("{error}\n{graph}\n{after}")));
        }
        prop_assert!(contractions(&after) <= contractions(&graph));
        let mut again = after.clone();
        prop_assert_eq!(merge_calls(&mut again, &context).changed, 0);
        for pass in DEVICE {
            (pass.run)(&mut again, &context);
        }
        prop_assert!(validate(&graph, &again, Assumes::Nothing, seed).is_ok());
    }
}
