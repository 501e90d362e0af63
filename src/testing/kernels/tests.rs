//! Runs that a test plays, right ones and wrong ones.

use super::*;
use crate::ir::Value;
use crate::kernel::body::ReduceKind;
use crate::testing::conformance::Fixture;

/// `doubled` is twice `x`, `sum` is its sum, and the state `w` is less by it: three kernels. Of each buffer that is read
/// `contents` is told the kernel before or after which it is, and the number that all its elements are.
fn run(contents: &mut dyn FnMut(&str, &str, f32) -> f32) -> Result<Vec<Compared>, Failure> {
    let mut f = Fixture::new();
    let (x, w) = (f.input_of("x", DType::F32, Value::real([2], vec![1.0, 1.0])), f.state("w", &[2]));
    let two = f.op(Op::constant(2.0, DType::F32, [2]), &[]);
    let mut add = |op: Op, operands: &[NodeId], name: &str| f.graph.add(op, operands, name, Origin::default()).unwrap();
    let doubled = add(Op::Scalar(ScalarOp::Mul), &[x, two], "doubled");
    let sum = add(Op::Reduce { kind: ReduceKind::Sum, axes: vec![0] }, &[doubled], "sum");
    let less = add(Op::Scalar(ScalarOp::Sub), &[w, doubled], "less");
    f.output("sum", sum);
    f.update("w", less);
    let plan = plan_of_all(&[f.graph.clone()], Strategy::new(Fusion::Off, Target::Cpu, Precision::F32)).unwrap();
    let schedule = &plan.entries[0].schedule;
    let mut watch = Watch::new(&f.graph, schedule, CpuDevice::new(1));
    watch.give("x", TensorRef::f32(&[1.0, 1.0]));
    let mut is_less = false;
    for (kernel, is_done) in (0..schedule.kernels.len()).flat_map(|kernel| [(kernel, false), (kernel, true)]) {
        let name = schedule.kernels[kernel].name.as_str();
        is_less |= is_done && name == "sub_less";
        let mut read = |id: BufferId| {
            let buffer = &schedule.buffers[id.index()];
            let right = match buffer.name.as_str() {
                "x" => 1.0,
                "doubled" => 2.0,
                "sum" => 4.0,
                "w" => {
                    if is_less {
                        5.0
                    } else {
                        7.0
                    }
                }
                other => unreachable!("{other}"),
            };
            let value = contents(name, &buffer.name, right);
            Ok(Tensor::new(buffer.shape.clone(), &vec![value; buffer.elements()]))
        };
        watch.look(Moment { kernel, is_done, read: &mut read })?;
    }
    Ok(watch.compared)
}

/// The kernels and buffers of a run that are not near.
fn far(contents: &mut dyn FnMut(&str, &str, f32) -> f32) -> Vec<(String, String)> {
    let far = run(contents).unwrap().into_iter().filter(|one| !one.is_near());
    far.map(|one| (one.kernel, one.buffer)).collect()
}

fn changed(contents: &mut dyn FnMut(&str, &str, f32) -> f32) -> (String, String) {
    let Failure::Changed { reader, buffer } = run(contents).unwrap_err() else { panic!("another failure") };
    (reader, buffer)
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.to_string(), b.to_string())
}

#[test]
fn each_kernel_is_computed_from_what_it_read() {
    let compared = run(&mut |_, _, right| right).unwrap();
    assert_eq!(compared.len(), 3);
    assert!(compared.iter().all(|one| one.found == Difference::NONE), "{compared:?}");
}

#[test]
fn a_wrong_kernel_is_named_and_its_users_are_right() {
    let mut doubled = |_: &str, buffer: &str, right: f32| match (buffer, right) {
        ("doubled", _) => 3.0,
        ("sum", _) => 6.0,
        ("w", 5.0) => 4.0,
        _ => right,
    };
    assert_eq!(far(&mut doubled), [pair("mul_doubled", "doubled")]);
    assert_eq!(far(&mut |_, _, right| if right == 5.0 { 5.01 } else { right }), [pair("sub_less", "w")]);
    let mut nan = |_: &str, buffer: &str, right: f32| if buffer == "sum" { f32::NAN } else { right };
    assert_eq!(far(&mut nan), [pair("reduce_sum_sum", "sum")]);
}

#[test]
fn what_is_written_between_kernels_is_found() {
    let mut stray = |kernel: &str, buffer: &str, right: f32| match (kernel, buffer) {
        ("sub_less", "doubled") => 2.5,
        _ => right,
    };
    assert_eq!(changed(&mut stray), pair("sub_less", "doubled"));
    let mut given = |_: &str, buffer: &str, right: f32| if buffer == "x" { 1.5 } else { right };
    assert_eq!(changed(&mut given), pair("mul_doubled", "x"));
    // No kernel reads it once it is written, but the caller.
    let mut reads = 0;
    let mut late = |_: &str, buffer: &str, right: f32| {
        reads += usize::from(buffer == "sum");
        if buffer == "sum" && reads > 1 { 4.5 } else { right }
    };
    assert_eq!(changed(&mut late), pair("the caller", "sum"));
}

#[test]
fn differences_are_parts_of_the_norm_and_of_the_largest_element() {
    let of = |found: [f32; 2], expected: [f32; 2]| difference(&Tensor::new([2], &found), &Tensor::new([2], &expected));
    let found = of([3.0, 4.5], [3.0, 4.0]);
    assert!((found.norm - 0.1).abs() < 1e-12 && (found.most - 0.125).abs() < 1e-12, "{found:?}");
    assert_eq!(of([0.0, f32::INFINITY], [0.0, f32::INFINITY]), Difference::NONE);
    assert_eq!(of([0.0, f32::INFINITY], [0.0, f32::NEG_INFINITY]), Difference::FAR);
    assert_eq!(of([0.0, 1e-9], [0.0, 0.0]), Difference::FAR);
}
