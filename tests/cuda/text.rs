//! The text of small schedules.

use crate::graphs;
use gcc_gan::exec::cuda::{prelude, render, render_schedule};
use gcc_gan::ir::{Graph, Op};
use gcc_gan::kernel::schedule::{Schedule, StateLayout};
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::scalar::ScalarOp;
use gcc_gan::schedule::{Fusion, Strategy, schedule};

fn scheduled(graph: &Graph) -> Schedule {
    let states: Vec<_> = (graph.ids().into_iter())
        .filter_map(|id| match graph.op(id) {
            Op::State { name, ty } => Some((name.as_str(), ty)),
            _ => None,
        })
        .collect();
    let target = Target::Cuda(Architecture(80));
    let strategy = Strategy::new(Fusion::On, target, Precision::F32);
    schedule(graph, &StateLayout::new(states).unwrap(), strategy).unwrap()
}

/// The text without the prelude.
fn kernels(graph: &Graph) -> String {
    let text = render_schedule(&graph.name, &scheduled(graph));
    let (heading, kernels) = text.split_once(&prelude()).expect("the prelude is in it");
    assert!(heading.starts_with("// "));
    kernels.to_string()
}

/// A kernel that does not may be launched before what it reads is there.
#[test]
fn every_kernel_waits_for_those_before_it_first() {
    let mut count = 0;
    for graph in graphs::all() {
        for function in kernels(&graph).split("extern \"C\" __global__").skip(1) {
            let (_, body) = function.split_once("(unsigned char* arena) {\n").expect("one argument");
            assert!(body.starts_with("    await_predecessors();\n"), "{function}");
            count += 1;
        }
    }
    assert!(count > 20);
}

macro_rules! snapshot {
    ($($name:ident: $graph:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(kernels(&$graph));
        }
    )*};
}

snapshot! {
    elementwise_chain_with_two_results: graphs::chain();
    batch_norm_is_one_kernel: graphs::batch_norm([128, 64, 14, 14]);
    columns_are_reduced_coalesced: graphs::column_statistics();
    dropout_draws_bits_beforehand: graphs::dropout();
    masks_of_images_are_drawn_together_and_read_twice: graphs::dropped_images([4, 8, 7, 7]);
    softmax_is_one_kernel: graphs::softmax();
    movements_are_index_arithmetic: graphs::movements();
    an_optimiser_is_a_multi_tensor_kernel: graphs::optimiser();
}

#[test]
fn a_matrix_product_is_its_operands_and_its_epilogue() {
    let graph = graphs::graph("product", |b| {
        let x = graphs::input(b, "x", gcc_gan::ir::Type::f32([4, 300]));
        let w = graphs::state(b, "w", gcc_gan::ir::Type::f32([300, 9]));
        let y = b.matmul(x, w);
        let y = b.scalar(ScalarOp::Tanh, &[y]);
        vec![("y", y)]
    });
    insta::assert_snapshot!(kernels(&graph));
}

#[test]
fn launches_cover_every_point_with_whole_warps() {
    for graph in graphs::all() {
        let schedule = scheduled(&graph);
        for kernel in &schedule.kernels {
            for launch in render(kernel, &schedule.buffers).launches {
                assert!(launch.grid > 0, "{}", kernel.name);
                assert!(launch.block.is_multiple_of(32) && (32..=1024).contains(&launch.block), "{}", kernel.name);
            }
        }
    }
}
