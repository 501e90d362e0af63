//! Each pass on a few lines, before and after, and all of them on random graphs.

use super::*;
use crate::autodiff::differentiate;
use crate::ir::text::parse;
use crate::ir::{Bindings, Op, Value, evaluate, verify};
use crate::scalar::ScalarOp;
use crate::testing::{GraphOptions, graphs, special_bindings};
use insta::assert_snapshot;
use proptest::prelude::*;

/// The lines of a graph before and after a pass. The pass is validated on the way.
fn rewritten(run: fn(&mut Graph, &PassContext) -> Report, lines: &str) -> String {
    rewritten_in(&PassContext::default(), run, lines)
}

const FAST: PassContext = PassContext {
    fast_math: true,
    images: false,
    thin_products: false,
    merge_calls: false,
    im2col: false,
    signs: false,
    deviations: false,
    operands: None,
    matrices_alone: false,
    minimal_filtering: None,
};
const DEVICE_CONTEXT: PassContext = PassContext {
    fast_math: false,
    images: true,
    thin_products: true,
    merge_calls: true,
    im2col: true,
    signs: true,
    deviations: false,
    operands: None,
    matrices_alone: false,
    minimal_filtering: None,
};

fn rewritten_in(context: &PassContext, run: fn(&mut Graph, &PassContext) -> Report, lines: &str) -> String {
    let before = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
    assert_eq!(verify(&before), Ok(()));
    let mut after = before.clone();
    let report = run(&mut after, context);
    assert_eq!(verify(&after), Ok(()));
    assert_eq!((report.nodes_before, report.nodes_after), (before.len(), after.len()));
    assert_eq!(report.changed > 0, before != after);
    for seed in 0..4 {
        validate(&before, &after, Assumes::Range, seed).unwrap();
    }
    format!(
        "{before}→ {}\n{after}",
        if report.changed == 1 { "1 rewrite".into() } else { format!("{} rewrites", report.changed) }
    )
}

#[test]
fn fold_computes_constants() {
    assert_snapshot!(rewritten(
        fold,
        r#"
        %x: f32[4] = input "x"
        %a: f32[] = constant 2.0
        %b: f32[] = constant 3.0
        %y = mul %a %b
        %r: f32[1] = reshape %y
        %z: f32[4] = broadcast %r
        %s = add %x %z
        %sum: f32[1] = reduce_sum %z axes=[0]
        output s = %s
        output sum = %sum"#
    ));
}

#[test]
fn fold_leaves_what_no_float_holds() {
    assert_snapshot!(rewritten(
        fold,
        r#"
        %a: f32[] = constant 1e30
        %y = mul %a %a
        %zero: f32[] = constant 0.0
        %l = log %zero
        output y = %y
        output l = %l"#
    ));
}

#[test]
fn arithmetic_removes_neutral_and_absorbing_elements() {
    assert_snapshot!(rewritten_in(
        &FAST,
        arithmetic,
        r#"
        %x: f32[4] = input "x"
        %zero: f32[4] = constant 0.0
        %one: f32[4] = constant 1.0
        %a = add %zero %x
        %b = mul %a %one
        %c = div %b %one
        %d = sub %c %zero
        %none = mul %d %zero
        output d = %d
        output none = %none"#
    ));
}

#[test]
fn arithmetic_cancels_double_negations_and_inverse_functions() {
    assert_snapshot!(rewritten_in(
        &FAST,
        arithmetic,
        r#"
        %x: f32[4] = input "x"
        %a = neg %x
        %b = neg %a
        %e = exp %b
        %l = log %e
        %n = neg %l
        %y = sub %l %n
        output y = %y"#
    ));
}

#[test]
fn arithmetic_joins_chains_of_constants() {
    assert_snapshot!(rewritten(
        arithmetic,
        r#"
        %x: f32[4] = input "x"
        %two: f32[4] = constant 2.0
        %three: f32[4] = constant 3.0
        %a = mul %two %x
        %b = mul %a %three
        %c = sub %b %two
        %d = add %three %c
        %e = div %d %two
        output e = %e"#
    ));
}

#[test]
fn arithmetic_knows_a_product_with_zeros() {
    assert_snapshot!(rewritten_in(
        &FAST,
        arithmetic,
        r#"
        %x: f32[1,2,3] = input "x"
        %zero: f32[1,3,2] = constant 0.0
        %y: f32[1,2,2] = matmul %x %zero
        output y = %y"#
    ));
}

#[test]
fn arithmetic_knows_windows_of_zeros() {
    assert_snapshot!(rewritten_in(
        &FAST,
        arithmetic,
        r#"
        %zero: f32[1,2,3,3] = constant 0.0
        %windows: f32[1,8,2,2] = im2col %zero stride=[1,1] pad=[0,0] kernel=[2,2]
        %x: f32[1,8,2,2] = input "x"
        %y = add %windows %x
        output y = %y"#
    ));
}

#[test]
fn movement_cancels_double_transposition_and_reshape() {
    assert_snapshot!(rewritten(
        movement,
        r#"
        %x: f32[2,3] = input "x"
        %a: f32[3,2] = transpose %x permutation=[1,0]
        %b: f32[2,3] = transpose %a permutation=[1,0]
        %c: f32[6] = reshape %b
        %d: f32[3,2] = reshape %c
        %e: f32[3,2] = reverse %d axes=[0]
        %y: f32[3,2] = reverse %e axes=[0]
        output y = %y"#
    ));
}

#[test]
fn movement_transposes_operands_where_a_product_would_be() {
    assert_snapshot!(rewritten(
        movement,
        r#"
        %a: f32[5,2,3] = input "a"
        %b: f32[5,3,4] = input "b"
        %bt: f32[5,4,3] = transpose %b permutation=[0,2,1]
        %c: f32[5,3,4] = transpose %bt permutation=[0,2,1]
        %p = matmul %a %c
        %t: f32[5,4,2] = transpose %p permutation=[0,2,1]
        output t = %t"#
    ));
}

#[test]
fn movement_cuts_padding_and_joins_slices() {
    assert_snapshot!(rewritten(
        movement,
        r#"
        %x: f32[4] = input "x"
        %p: f32[8] = pad %x low=[2] high=[2]
        %s: f32[6] = slice %p start=[1] end=[7]
        %t: f32[4] = slice %s start=[1] end=[5]
        %outside: f32[2] = slice %p start=[0] end=[2]
        output t = %t
        output outside = %outside"#
    ));
}

#[test]
fn movement_goes_through_elementwise_operations() {
    assert_snapshot!(rewritten(
        through,
        r#"
        %x: f32[1,4] = input "x"
        %a: f32[8,4] = broadcast %x
        %e = exp %a
        %y: f32[4,8] = transpose %e permutation=[1,0]
        %n = neg %y
        output n = %n"#
    ));
}

#[test]
fn reductions_come_before_repetition_and_factors_after() {
    assert_snapshot!(rewritten(
        reductions,
        r#"
        %x: f32[64,4] = input "x"
        %c: f32[1,4] = input "c"
        %b: f32[64,4] = broadcast %c
        %m = mul %x %b
        %s: f32[1,4] = reduce_sum %m axes=[0]
        %t: f32[1,1] = reduce_sum %s axes=[1]
        output t = %t"#
    ));
}

/// A sum that goes leaves its summands to another, whose rules are asked again: the factor is taken out of that one.
#[test]
fn what_another_no_longer_needs_is_rewritten() {
    assert_snapshot!(rewritten(
        reductions,
        r#"
        %x: f32[8,4] = input "x"
        %c: f32[8,4] = constant 0.5
        %m = mul %x %c
        %all: f32[1,4] = reduce_sum %m axes=[0]
        %d = sub %m %m
        %none: f32[1,4] = reduce_sum %d axes=[0]
        output all = %all
        output none = %none"#
    ));
}

/// What loses a use is asked, too: its sign is taken out where nothing else needs it as it is.
#[test]
fn what_loses_a_use_is_rewritten() {
    let lines = r#"
        %x: f32[4] = input "x"
        %y: f32[4] = input "y"
        %z: f32[4] = input "z"
        %n = neg %x
        %p = mul %n %y
        %e = add %z %p
        %d = sub %p %p
        output e = %e
        output d = %d"#;
    let mut graph = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
    arithmetic(&mut graph, &FAST);
    assert!(!graph.ids().into_iter().any(|id| *graph.op(id) == Op::Scalar(ScalarOp::Neg)), "{graph}");
    let once = graph.clone();
    arithmetic(&mut graph, &FAST);
    assert_eq!(graph, once);
}

#[test]
fn reductions_of_what_is_centred_are_zero() {
    assert_snapshot!(rewritten_in(
        &FAST,
        |graph, context| {
            reductions(graph, context);
            fold(graph, context);
            arithmetic(graph, context);
            let report = dead(graph, context);
            Report { changed: 1, nodes_before: 7, ..report }
        },
        r#"
        %x: f32[8,4] = input "x"
        %s: f32[1,4] = reduce_sum %x axes=[0]
        %c: f32[1,4] = constant -0.125
        %m = mul %s %c
        %b: f32[8,4] = broadcast %m
        %centred = add %x %b
        %y: f32[1,4] = reduce_sum %centred axes=[0]
        output y = %y"#
    ));
}

#[test]
fn cse_computes_once() {
    assert_snapshot!(rewritten(
        cse,
        r#"
        %seed: u32[2] = input "seed"
        %step: u32[] = state "step"
        %x: f32[4] = input "x"
        %y: f32[4] = random normal "a" %seed %step
        %z: f32[4] = random normal "a" %seed %step
        %other: f32[4] = random normal "b" %seed %step
        %a = mul %x %y
        %b = mul %z %x
        %c = add %a %b
        %d = sub %c %other
        output d = %d"#
    ));
}

#[test]
fn dead_code_goes() {
    assert_snapshot!(rewritten(
        dead,
        r#"
        %x: f32[2] = input "x"
        %u = exp %x
        %v = sin %u
        %y = neg %x
        probe v = %v
        output y = %y"#
    ));
}

#[test]
fn stable_binary_cross_entropy() {
    // -(t log s(x) + (1 - t) log(1 - s(x))), as a user writes it on probabilities.
    assert_snapshot!(rewritten(
        stable,
        r#"
        %x: f32[4] = input "x"
        %t: f32[4] = input "t"
        %one: f32[4] = constant 1.0
        %p = sigmoid %x
        %lp = log %p
        %q = sub %one %p
        %lq = log %q
        %u = sub %one %t
        %a = mul %t %lp
        %b = mul %u %lq
        %s = add %a %b
        %y = neg %s
        output y = %y"#
    ));
}

#[test]
fn stable_binary_cross_entropy_is_finite_where_the_written_one_is_not() {
    let lines = r#"graph g {
        %x: f32[3] = input "x"
        %one: f32[3] = constant 1.0
        %p = sigmoid %x
        %q = sub %one %p
        %lq = log %q
        output y = %lq }"#;
    let before = parse(lines).unwrap();
    let mut after = before.clone();
    stable(&mut after, &PassContext::default());
    let x = crate::ir::Value::real(vec![3], vec![-100.0f32, 0.0, 100.0]);
    let inputs = crate::ir::Bindings::from([("x".to_string(), x)]);
    let y = |graph: &Graph| crate::ir::evaluate(graph, &inputs).unwrap().outputs[0].1.to_f64();
    assert_eq!(y(&before)[2], f64::NEG_INFINITY);
    assert_eq!(y(&after)[2], -100.0);
    assert!((y(&after)[1] - y(&before)[1]).abs() < 1e-7);
}

#[test]
fn biases_before_a_batch_norm_are_dropped_where_asked_for() {
    assert_snapshot!(rewritten(
        |graph, context| {
            let report = drop_biases(graph, context);
            assert_eq!(dead(graph, context).changed, 0);
            report
        },
        r#"
        %x: f32[8,4] = input "x"
        %bias: f32[1,4] = state "bias"
        %eighth: f32[1,4] = constant 0.125
        %b: f32[8,4] = broadcast %bias
        %y = add %x %b
        %s: f32[1,4] = reduce_sum %y axes=[0]
        %mean = mul %s %eighth
        %m: f32[8,4] = broadcast %mean
        %z = sub %y %m
        output z = %z
        output running_mean = %mean"#
    ));
}

/// The names of all passes in the order in which they run: a change of it is meant.
#[test]
fn pipeline() {
    let names = |passes: &[Pass]| passes.iter().map(|p| p.name).collect::<Vec<_>>().join(" ");
    assert_snapshot!(format!(
        "before: {}\nafter: {}\ndevice: {}\noptional: {}",
        names(FORWARD),
        names(PIPELINE),
        names(DEVICE),
        names(OPTIONAL)
    ));
}

#[test]
fn validation_finds_a_wrong_pass() {
    let before = parse("graph g {\n%x: f32[4] = input \"x\"\n%y = sub %x %x\n%z = exp %y\noutput z = %z }").unwrap();
    let after = parse("graph g {\n%x: f32[4] = input \"x\"\n%y = add %x %x\n%z = exp %y\noutput z = %z }").unwrap();
    let error = validate(&before, &after, Assumes::Finite, 0).unwrap_err();
    assert!(error.to_string().starts_with("output z: f32[4] has element 0 = "), "{error}");
    let other = parse("graph g {\n%x: f32[4] = input \"x\"\noutput y = %x }").unwrap();
    assert!(matches!(validate(&before, &other, Assumes::Finite, 0), Err(Mismatch::Results { .. })));
}

/// NaN, and infinity, that a pass makes a number of: it must say that it may.
#[test]
fn validation_finds_a_pass_that_hides_what_is_not_finite() {
    let result = |lines: &str| {
        let text =
            format!("graph g {{\n%x: f32[4] = input \"x\"\n%zero: f32[4] = constant 0.0\n{lines}\noutput y = %y }}");
        parse(&text).unwrap()
    };
    let (nan, infinite) = (result("%y = div %zero %zero"), result("%y = log %zero"));
    let number = result("%y = mul %x %zero");
    for before in [&nan, &infinite] {
        for assumes in [Assumes::Nothing, Assumes::Alike] {
            let error = validate(before, &number, assumes, 0).unwrap_err();
            assert!(matches!(error, Mismatch::Value { before, after: 0.0, .. } if !before.is_finite()), "{error}");
        }
        for assumes in [Assumes::Range, Assumes::Finite] {
            assert!(validate(before, &number, assumes, 0).is_ok());
        }
    }
    assert!(validate(&nan, &infinite, Assumes::Alike, 0).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_pass_keeps_what_random_graphs_compute(graph in graphs(GraphOptions::default()), seed: u64) {
        let contexts = |p| [(p, PassContext::default()), (p, FAST), (p, DEVICE_CONTEXT)];
        for (pass, context) in FORWARD.iter().chain(PIPELINE).chain(DEVICE).chain(OPTIONAL).flat_map(contexts) {
            let mut after = graph.clone();
            (pass.run)(&mut after, &context);
            prop_assert_eq!(verify(&after), Ok(()), "{}", pass.name);
            if let Err(error) = validate(&graph, &after, pass.assumes(&context), seed) {
                return Err(TestCaseError::fail(format!("{}: {error}\n{graph}\n{after}", pass.name)));
            }
            // A pass is done when it says so.
            let mut again = after.clone();
            (pass.run)(&mut again, &context);
            prop_assert!(again.len() <= after.len(), "{} grows a graph each time", pass.name);
        }
    }

    /// With gradients in them, before and after differentiation, one pass after the other.
    #[test]
    fn the_pipeline_keeps_gradients_of_random_graphs(
        graph in graphs(GraphOptions { smooth: true, gradients: true, steps: 12, ..GraphOptions::default() }),
        seed: u64,
    ) {
        let mut now = graph.clone();
        FORWARD.iter().for_each(|pass| { (pass.run)(&mut now, &PassContext::default()); });
        prop_assert!(validate(&graph, &now, Assumes::Range, seed).is_ok(), "before differentiation");
        differentiate(&mut now);
        prop_assert!(now.ids().into_iter().all(|id| *now.op(id) != Op::Gradient));
        for pass in PIPELINE.iter().chain(DEVICE) {
            let before = now.clone();
            (pass.run)(&mut now, &DEVICE_CONTEXT);
            prop_assert_eq!(verify(&now), Ok(()), "{}", pass.name);
            if let Err(error) = validate(&before, &now, pass.assumes, seed) {
                return Err(TestCaseError::fail(format!("{}: {error}\n{before}\n{now}", pass.name)));
            }
        }
    }
}

/// What an output is on given values, before and after passes.
fn outputs(graph: &Graph, given: &Bindings<f64>) -> Vec<(String, Vec<f64>)> {
    let evaluation = evaluate(graph, given).unwrap();
    evaluation.outputs.into_iter().chain(evaluation.updates).map(|(name, v)| (name, v.to_f64())).collect()
}

/// The first element that differs in kind: a NaN, an infinity or a number instead of another of these.
fn first_change(before: &Graph, after: &Graph, given: &Bindings<f64>) -> Option<String> {
    for ((name, before), (_, after)) in outputs(before, given).into_iter().zip(outputs(after, given)) {
        let scale = before.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
        for (i, (a, b)) in before.into_iter().zip(after).enumerate() {
            let same = (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * scale;
            if !same {
                return Some(format!("element {i} of {name} was {a} and is {b}"));
            }
        }
    }
    None
}

/// Every table of rules, by the pass that it belongs to.
fn tables() -> [(&'static str, &'static [Rule]); 8] {
    [
        ("stable", super::stable::RULES),
        ("drop-biases", super::drop_biases::RULES),
        ("fold", super::fold::RULES),
        ("arithmetic", super::arithmetic::RULES),
        ("movement", super::movement::RULES),
        ("through", super::through::RULES),
        ("reductions", super::reductions::RULES),
        ("deviations", super::deviations::RULES),
    ]
}

/// The rows that assume something are the table in this module's documentation, in order.
#[test]
fn the_documentation_lists_what_rewrites_assume() {
    let listed: Vec<&str> = include_str!("mod.rs").lines().filter_map(|l| l.strip_prefix("//! | `")).collect();
    let mut rows = Vec::new();
    for (pass, rules) in tables() {
        for rule in rules.iter().filter(|rule| rule.assumes != Assumes::Nothing) {
            rows.push(format!("{pass}` | `{}` | {} | {:?} |", rule.name, rule.rewrites.join(", "), rule.assumes));
        }
    }
    assert_eq!(
        listed.join("\n"),
        rows.join("\n"),
        "the table in src/passes/mod.rs should be\n//! | `{}",
        rows.join("\n//! | `")
    );
}

/// What a pass says that it assumes is the most that its rows do which apply without `fast_math`. Those that are asked
/// for apply them all.
#[test]
fn passes_assume_what_their_rules_do() {
    let of = |pass: &Pass| pass.name.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit()).to_string();
    for pass in FORWARD.iter().chain(PIPELINE).chain(DEVICE).chain(OPTIONAL) {
        let is_asked_for = OPTIONAL.iter().any(|p| p.name == pass.name);
        let rules = tables().into_iter().filter(|(name, _)| *name == of(pass)).flat_map(|(_, rules)| rules);
        let applied = rules.map(|rule| rule.assumes).filter(|&a| is_asked_for || a != Assumes::Finite);
        // Some are no tables of rules: what is not finite spreads over a tile of a convolution, or from a filter to padding, or is
        // another's of two that are added.
        let own = ["winograd", "im2col", "signs"].contains(&pass.name).then_some(Assumes::Alike);
        assert_eq!(pass.assumes, applied.max().or(own).unwrap_or(Assumes::Nothing), "{}", pass.name);
    }
}

/// The sums that a batch normalisation's gradient needs are two, of what arrives and of that times what was centred.
#[test]
fn a_normalisation_has_two_sums_in_its_gradient() {
    let text = r#"graph g {
        %x: f32[8,3,2,2] = input "x"
        %scale: f32[1,3,1,1] = input "scale"
        %w: f32[8,3,2,2] = input "w"
        %s: f32[1,3,1,1] = reduce_sum %x axes=[0,2,3]
        %c: f32[1,3,1,1] = constant 0.03125
        %m = mul %s %c
        %mb: f32[8,3,2,2] = broadcast %m
        %centred = sub %x %mb
        %q = mul %centred %centred
        %v: f32[1,3,1,1] = reduce_sum %q axes=[0,2,3]
        %variance = mul %v %c
        %e: f32[1,3,1,1] = constant 0.00001
        %ve = add %variance %e
        %r = rsqrt %ve
        %rb: f32[8,3,2,2] = broadcast %r
        %n = mul %centred %rb
        %sb: f32[8,3,2,2] = broadcast %scale
        %y = mul %n %sb
        %t = mul %y %w
        %all: f32[1,1,1,1] = reduce_sum %t axes=[0,1,2,3]
        %loss: f32[] = reshape %all
        %dx: f32[8,3,2,2] = gradient %loss %x
        %dscale: f32[1,3,1,1] = gradient %loss %scale
        output dx = %dx
        output dscale = %dscale
        }"#;
    let mut graph = parse(text).unwrap();
    differentiate(&mut graph);
    let mut after = graph.clone();
    for pass in PIPELINE {
        (pass.run)(&mut after, &PassContext::default());
    }
    validate(&graph, &after, Assumes::Alike, 0).unwrap();
    // With the two of the forward pass.
    let sums = after.ids().into_iter().filter(|&id| matches!(after.op(id), Op::Reduce { .. })).count();
    assert_eq!(sums, 4, "{after}");
}

/// Each as a graph of `x`, with values of `x` on which the rewrite shows: kept as they are by default, and changed
/// where finite values may be assumed.
#[test]
fn by_default_no_rewrite_hides_what_is_not_finite() {
    let nan = f64::NAN;
    let inf = f64::INFINITY;
    for (lines, x) in [
        ("%y = sub %x %x", inf),
        ("%l = log %x\n%y = exp %l", -1.0),
        ("%e = exp %x\n%y = log %e", -1e4),
        ("%l = log %x\n%y = mul %l %zero", 0.0),
        ("%y = div %zero %x", 0.0),
        ("%s = sqrt %x\n%y = mul %s %s", -1.0),
        ("%y = pow %x %half", -inf),
        ("%m = gt %x %zero\n%y = select %m %x %zero", nan),
        ("%y = eq %x %x", nan),
        ("%e = exp %x\n%d = add %one %e\n%y = div %e %d", inf),
        ("%r: f32[1,1] = reshape %x\n%z: f32[1,1] = constant 0.0\n%p = matmul %r %z\n%y: f32[1] = reshape %p", inf),
    ] {
        let constants = "%zero: f32[1] = constant 0.0\n%one: f32[1] = constant 1.0\n%half: f32[1] = constant 0.5";
        let text = format!("graph g {{\n%x: f32[1] = input \"x\"\n{constants}\n{lines}\noutput y = %y }}");
        let before = parse(&text).unwrap();
        let given = Bindings::from([("x".to_string(), Value::real(vec![1], vec![x]))]);
        let optimised = |context: &PassContext| {
            let mut graph = before.clone();
            for pass in FORWARD.iter().chain(PIPELINE) {
                (pass.run)(&mut graph, context);
            }
            graph
        };
        assert_eq!(first_change(&before, &optimised(&PassContext::default()), &given), None, "{text}");
        assert!(first_change(&before, &optimised(&FAST), &given).is_some(), "{text}");
    }
}

/// A product that leaves the range of floats on the way is not joined to one that does not, and what underflows is not
/// folded to what does not.
#[test]
fn by_default_overflow_shows() {
    let lines = r#"graph g {
        %x: f32[1] = input "x"
        %big: f32[1] = constant 1e30
        %small: f32[1] = constant 1e-30
        %a = mul %x %big
        %y = mul %a %small
        %tiny = mul %small %small
        %z = log %tiny
        output y = %y
        output z = %z }"#;
    let before = parse(lines).unwrap();
    let mut after = before.clone();
    for pass in PIPELINE {
        (pass.run)(&mut after, &PassContext::default());
    }
    let given = Bindings::from([("x".to_string(), Value::real(vec![1], vec![1e20f32]))]);
    let values = |graph: &Graph| {
        evaluate(graph, &given).unwrap().outputs.into_iter().map(|o| o.1.to_f64()[0]).collect::<Vec<_>>()
    };
    assert_eq!(values(&before), [f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!(values(&after), values(&before));
}

/// What is not finite stays not finite, and what is stays so, in the rows that do not tell NaN from an infinity.
#[test]
fn factors_that_are_not_finite_stay_so() {
    let before = parse(
        r#"graph g {
        %x: f32[3,1] = input "x"
        %c: f32[1,1] = input "c"
        %b: f32[3,1] = broadcast %c
        %m = mul %x %b
        %s: f32[1,1] = reduce_sum %m axes=[0]
        %d = div %x %b
        %t: f32[1,1] = reduce_sum %d axes=[0]
        output s = %s
        output t = %t }"#,
    )
    .unwrap();
    let mut after = before.clone();
    assert!(reductions(&mut after, &PassContext::default()).changed > 0);
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1.0, -2.0];
    for c in special {
        for at in 0..216 {
            let x = [special[at % 6], special[at / 6 % 6], special[at / 36]];
            let given = Bindings::from([
                ("x".to_string(), Value::real(vec![3, 1], x.to_vec())),
                ("c".to_string(), Value::real(vec![1, 1], vec![c])),
            ]);
            for ((name, a), (_, b)) in outputs(&before, &given).into_iter().zip(outputs(&after, &given)) {
                assert_eq!(a[0].is_finite(), b[0].is_finite(), "{name} of {x:?} and {c}: {} and {}", a[0], b[0]);
            }
        }
    }
}

/// The rules of a pass that tell NaN from infinities, and so keep each of them.
fn exact_rules(name: &str) -> Vec<&'static Rule> {
    let (_, rules) = tables().into_iter().find(|(pass, _)| name.split('-').next() == Some(*pass)).unwrap();
    rules.iter().filter(|r| r.assumes == Assumes::Nothing).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_pass_keeps_special_values(
        graph in graphs(GraphOptions { steps: 16, ..GraphOptions::default() }),
        smooth in graphs(GraphOptions { smooth: true, gradients: true, steps: 10, ..GraphOptions::default() }),
        seed: u64, rarity in 2usize..40,
    ) {
        let mut differentiated = smooth;
        differentiate(&mut differentiated);
        for graph in [graph, differentiated] {
            let given = special_bindings(&graph, seed, rarity);
            for name in ["stable", "fold", "arithmetic", "movement", "through", "reductions", "cse", "dead"] {
                let mut after = graph.clone();
                let _ = match name {
                    "cse" => cse(&mut after, &PassContext::default()),
                    "dead" => dead(&mut after, &PassContext::default()),
                    _ => super::rewrite::rewrite(&mut after, exact_rules(name), &PassContext::default()),
                };
                if let Some(change) = first_change(&graph, &after, &given) {
                    return Err(TestCaseError::fail(format!("{name}: {change}\n{graph}\n{after}")));
                }
            }
        }
    }
}
