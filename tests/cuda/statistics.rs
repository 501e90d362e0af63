//! A batch's statistics and the sums of their gradients in epilogues of the contractions that make the values.

use crate::emulate::{Case, case_by, case_tuned, check, gpu};
use gcc_gan::ir::text::parse;
use gcc_gan::ir::{Data, Graph};
use gcc_gan::kernel::body::{Body, Kernel, KernelKind, ReduceKind};
use gcc_gan::kernel::choice::{Algorithm, ThreadBlocks, Tile};
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::kernel::tiling::TILES;
use gcc_gan::kernel::warpgroup;
use gcc_gan::passes::{DEVICE, PassContext};
use gcc_gan::schedule::select::Tuned;
use gcc_gan::schedule::{Fusion, Strategy};
use gcc_gan::testing::random_bindings;
use std::fmt::Write as _;

/// Calls of a convolution, or of an input gradient, and a batch normalisation, each of `n` images. Operands are computed, so
/// that they lie in memory as the kernels want them.
fn normalised(calls: usize, n: usize, convolution: &str) -> Graph {
    let mut text = String::from(
        "graph normalised {
        %f: f32[16,32,3,3] = input \"f\"
        %filter: f32[16,32,3,3] = tanh %f
        %bias: f32[1,32,1,1] = input \"bias\"\n",
    );
    let (from, to) = if convolution == "conv2d" { (32, 16) } else { (16, 32) };
    let window = if convolution == "conv2d" { "" } else { " size=[4,3]" };
    for call in 0..calls {
        let _ = write!(
            text,
            "%i{call}: f32[{n},{from},4,3] = input \"x{call}\"
            %x{call}: f32[{n},{from},4,3] = tanh %i{call}
            %y{call}: f32[{n},{to},4,3] = {convolution} %x{call} %filter stride=[1,1] pad=[1,1]{window}
            %bias_{call}: f32[1,{to},1,1] = slice %bias start=[0,0,0,0] end=[1,{to},1,1]
            %b{call}: f32[{n},{to},4,3] = broadcast %bias_{call}
            %z{call}: f32[{n},{to},4,3] = add %y{call} %b{call}
            %s{call}: f32[1,{to},1,1] = reduce_sum %z{call} axes=[0,2,3]
            %n{call}: f32[1,{to},1,1] = constant {}
            %m{call}: f32[1,{to},1,1] = mul %s{call} %n{call}
            %w{call}: f32[{n},{to},4,3] = broadcast %m{call}
            %c{call}: f32[{n},{to},4,3] = sub %z{call} %w{call}
            %q{call}: f32[{n},{to},4,3] = mul %c{call} %c{call}
            %d{call}: f32[1,{to},1,1] = reduce_sum %q{call} axes=[0,2,3]
            %v{call}: f32[1,{to},1,1] = mul %d{call} %n{call}
            %r{call}: f32[1,{to},1,1] = rsqrt %v{call}
            %t{call}: f32[{n},{to},4,3] = broadcast %r{call}
            %o{call}: f32[{n},{to},4,3] = mul %c{call} %t{call}
            output o{call} = %o{call}
            output m{call} = %m{call}
            output d{call} = %d{call}\n",
            1.0 / (12 * n) as f64,
        );
    }
    parse(&(text + "}")).unwrap()
}

/// A gradient that passes a relu and what a batch normalisation's gradient sums of it.
fn gradient(n: usize) -> Graph {
    let text = format!(
        "graph gradient {{
        %f: f32[32,16,3,3] = input \"f\"
        %filter: f32[32,16,3,3] = tanh %f
        %i: f32[{n},32,4,3] = input \"i\"
        %dy: f32[{n},32,4,3] = tanh %i
        %x: f32[{n},16,4,3] = input \"x\"
        %mean: f32[1,16,1,1] = input \"mean\"
        %zero: f32[{n},16,4,3] = constant 0.0
        %dx: f32[{n},16,4,3] = conv2d_input_grad %dy %filter stride=[1,1] pad=[1,1] size=[4,3]
        %is: f32[{n},16,4,3] = gt %x %zero
        %g: f32[{n},16,4,3] = select %is %dx %zero
        %m: f32[{n},16,4,3] = broadcast %mean
        %c: f32[{n},16,4,3] = sub %x %m
        %gc: f32[{n},16,4,3] = mul %g %c
        %offset: f32[1,16,1,1] = reduce_sum %g axes=[0,2,3]
        %scale: f32[1,16,1,1] = reduce_sum %gc axes=[0,2,3]
        %largest: f32[1,16,1,1] = reduce_max %g axes=[0,2,3]
        output g = %g
        output offset = %offset
        output scale = %scale
        output largest = %largest
        }}"
    );
    parse(&text).unwrap()
}

/// What a graph comes to by the passes for a GPU, on random numbers.
fn compiled(graph: &Graph, strategy: Strategy, seed: u64) -> Case {
    compiled_on(graph, strategy, seed, |x| x)
}

/// The same where each random number becomes another.
fn compiled_on(graph: &Graph, strategy: Strategy, seed: u64, number: impl Fn(f32) -> f32) -> Case {
    let mut after = graph.clone();
    let context = PassContext {
        merge_calls: true,
        deviations: true,
        images: true,
        operands: strategy.rounding(),
        ..PassContext::default()
    };
    for pass in DEVICE {
        (pass.run)(&mut after, &context);
    }
    let mut bindings = random_bindings(graph, seed);
    for value in bindings.values_mut() {
        if let Data::Real(values) = &mut value.data {
            values.iter_mut().for_each(|v: &mut f32| *v = number(*v));
        }
    }
    case_by(after, strategy, bindings)
}

/// By contraction how many reductions of each kind there are in epilogues, and how many kernels reduce besides.
fn counts(case: &Case) -> (Vec<[usize; 3]>, usize) {
    let kernels = &case.schedule.kernels;
    let contractions = kernels.iter().filter_map(|kernel| match &kernel.body {
        Body::Contraction(c) => Some(c),
        Body::Nests(_) | Body::Transform(_) => None,
    });
    let kinds = [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Deviations];
    let found = contractions.map(|c| kinds.map(|kind| c.reductions.iter().filter(|r| r.kind == kind).count()));
    (found.collect(), kernels.iter().filter(|kernel| kernel.kind() == KernelKind::Reduction).count())
}

#[test]
fn statistics_are_taken_where_values_are_made() {
    let f32s = |calls, n, convolution| compiled(&normalised(calls, n, convolution), gpu(Fusion::On, Precision::F32), 3);
    let mut cases = Vec::new();
    for convolution in ["conv2d", "conv2d_input_grad"] {
        // One call of whole tiles, and two calls that run as one.
        for (calls, n) in [(1, 64), (1, 128), (2, 64), (2, 128)] {
            let case = f32s(calls, n, convolution);
            assert_eq!(counts(&case), (vec![[1, 0, 1]], 0), "{calls} calls of {n} images: {}", case.graph);
            cases.push(case);
        }
        // Tiles that are not whole: of these squared deviations are not combined, nor does a tile have images of two calls.
        for (calls, n) in [(1, 40), (1, 68), (2, 32), (2, 80)] {
            let case = f32s(calls, n, convolution);
            assert_eq!(counts(&case), (vec![[0, 0, 0]], 1), "{calls} calls of {n} images");
            cases.push(case);
        }
    }
    check(&cases);
}

/// Sums need no whole tiles, and of one contraction there may be several.
#[test]
fn sums_of_gradients_are_taken_where_gradients_are_made() {
    let mut cases = Vec::new();
    for n in [64, 40, 132] {
        let case = compiled(&gradient(n), gpu(Fusion::On, Precision::F32), 4);
        assert_eq!(counts(&case), (vec![[2, 1, 0]], 0), "{n} images");
        cases.push(case);
    }
    check(&cases);
}

/// Every tile that there is a kernel for, by warps and by warpgroups.
#[test]
fn all_tiles_reduce_alike() {
    let mut cases = Vec::new();
    let hopper = Strategy::new(Fusion::On, Target::Cuda(Architecture(90)), Precision::Bf16);
    for tile in warpgroup::TILES {
        for is_of_warpgroups in [false, true].into_iter().skip(usize::from(!TILES.contains(&tile))) {
            // Whole tiles of each call.
            let n = tile.0.max(128);
            for graph in [normalised(2, n, "conv2d"), gradient(n)] {
                // Numbers of a few bits, so that nothing is rounded before it is multiplied.
                let graph = parse(&graph.to_string().replace("tanh", "abs")).unwrap();
                let case = compiled_on(&graph, hopper, 5, |x| (x * 1.5).round());
                let contractions = case.schedule.kernels.iter().filter(|k| k.kind() == KernelKind::Contraction);
                let [kernel] = contractions.collect::<Vec<_>>()[..] else { panic!("a contraction") };
                let Algorithm::ThreadBlocks(blocks) = kernel.choice.algorithm else { panic!("by thread blocks") };
                let (rows, columns) = tile;
                let by_warps = ThreadBlocks {
                    tile: Tile { rows, columns, ..blocks.tile },
                    warps: [2, 2],
                    stages: 3,
                    splits: 1,
                    ..blocks
                };
                let by_warpgroups = warpgroup::blocks(blocks.math, tile, 3, 1);
                let algorithm = Algorithm::ThreadBlocks(if is_of_warpgroups { by_warpgroups } else { by_warps });
                let tuned = Tuned::from([(kernel.name.as_str(), &algorithm)]);
                let Case { graph, bindings, .. } = &case;
                let case = case_tuned(graph.clone(), hopper, bindings.clone(), &tuned);
                let taken = |kernel: &Kernel| match &kernel.body {
                    Body::Contraction(c) if kernel.choice.algorithm == algorithm => {
                        algorithm.tile_reduction(c).is_some()
                    }
                    _ => false,
                };
                assert!(case.schedule.kernels.iter().any(taken) && counts(&case).1 == 0);
                cases.push(case);
            }
        }
    }
    check(&cases);
}

/// What is computed of a batch's statistics, element by element, is done by the launch that has them complete: the root of a
/// variance, and a running mean. What also needs the sum of something that the contraction doesn't wait for has a kernel of
/// its own, or the contraction would have to.
#[test]
fn what_follows_from_statistics_is_computed_where_they_are_complete() {
    let after_statistics = |case: &Case| -> Vec<usize> {
        let stores = case.schedule.kernels.iter().filter_map(|kernel| match &kernel.body {
            Body::Contraction(c) => Some(c.finish.stores.len()),
            Body::Nests(_) | Body::Transform(_) => None,
        });
        stores.collect()
    };
    let kernels = |case: &Case| case.schedule.kernels.iter().map(|kernel| kernel.kind()).collect::<Vec<_>>();
    let text = normalised(1, 64, "conv2d").to_string();
    let with = |lines: &str| parse(&text.replace("  output o0", &format!("{lines}\n  output o0"))).unwrap();
    let followed = with(
        r#"%running: f32[16] = state "running"
           %seen: f32[1,16,1,1] = reshape %running
           %followed = sub %m0 %seen
           %flat: f32[16] = reshape %followed"#,
    );
    let followed = parse(&followed.to_string().replace("\n}", "\n  update \"running\" = %flat\n}")).unwrap();
    let case = compiled(&followed, gpu(Fusion::On, Precision::F32), 6);
    // The mean, the sum of squares, the root and the running mean.
    assert_eq!(after_statistics(&case), [4], "{}", case.graph);
    let expected = [KernelKind::Elementwise, KernelKind::Elementwise, KernelKind::Contraction, KernelKind::Elementwise];
    assert_eq!(kernels(&case), expected, "operands, and what is normalised");
    let waiting = with(
        r#"%late: f32[16,4096] = input "late"
           %sums: f32[16,1] = reduce_sum %late axes=[1]
           %by_channel: f32[1,16,1,1] = reshape %sums
           %with_late = mul %d0 %by_channel"#,
    );
    let waiting = parse(&waiting.to_string().replace("\n}", "\n  output with_late = %with_late\n}")).unwrap();
    let delayed = compiled(&waiting, gpu(Fusion::On, Precision::F32), 7);
    assert_eq!(after_statistics(&delayed), [3], "{}", delayed.graph);
    check(&[case, delayed]);
}
