//! Files that are cut short, changed or made to do harm.

use super::*;
use crate::compile::{Options, compile};
use crate::exec::cpu::CpuDevice;
use crate::exec::{Device, TensorRef};
use crate::kernel::access::{Access, Bound};
use crate::kernel::body::{Body, BufferId, Contraction, Expr, ExprId, Kernel, Nest, SlotId};
use crate::kernel::choice::{Algorithm, Math, ThreadBlocks, Tile};
use crate::kernel::contraction::{ContractionKind, ConvShape};
use crate::kernel::cost::{bytes_moved, flops};
use crate::kernel::schedule::BufferRole;
use crate::kernel::target::{Architecture, Precision, Target};
use crate::kernel::warpgroup;
use crate::plan::DType;
use crate::tensor::{Bf16, Lane, Tensor};
use crate::testing::formats::PLAN;
use crate::types::{Rounding, Window};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::LazyLock;

static ENCODED: LazyLock<Vec<u8>> = LazyLock::new(|| encode(&PLAN).unwrap());

fn decoded(bytes: &[u8]) -> Result<Plan, PlanError> {
    decode(bytes, Path::new("some.plan"))
}

/// A file whose header fits its body, whatever that is.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = ENCODED[..12].to_vec();
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(Sha256::digest(body));
    bytes.extend(body);
    bytes
}

/// Runs every entry of a plan that passed its verification, where that takes no great memory or time.
fn run(plan: &Plan) {
    let work = |k: &crate::kernel::body::Kernel, b: &[crate::plan::Buffer]| flops(k).saturating_add(bytes_moved(k, b));
    let total = plan.entries.iter().flat_map(|e| e.schedule.kernels.iter().map(|k| work(k, &e.schedule.buffers)));
    if plan.arena_bytes() > 1 << 24 || total.fold(0u64, u64::saturating_add) > 1 << 26 {
        return;
    }
    let mut executor = CpuDevice::new(2).load(plan.clone().into()).unwrap();
    for (index, entry) in plan.entries.iter().enumerate() {
        let inputs: Vec<Tensor> = (entry.inputs.iter())
            .map(|i| match i.ty.dtype {
                DType::F32 => Tensor::new(i.ty.shape.clone(), &vec![0.5f32; i.ty.elements()]),
                DType::U32 => Tensor::new(i.ty.shape.clone(), &vec![1u32; i.ty.elements()]),
                DType::Bf16 => Tensor::new(i.ty.shape.clone(), &vec![Bf16(0x3f00); i.ty.elements()]),
            })
            .collect();
        let inputs: Vec<TensorRef> = inputs.iter().map(Tensor::view).collect();
        executor.run(index, &inputs).unwrap();
    }
}

#[test]
fn a_plan_reads_back_equal() {
    let plan = decoded(&ENCODED).unwrap();
    assert_eq!(encode(&plan).unwrap(), *ENCODED);
    run(&plan);
}

#[test]
fn whatever_is_cut_short_is_refused() {
    for length in 0..ENCODED.len() {
        assert!(decoded(&ENCODED[..length]).is_err(), "{length} bytes");
    }
    let mut longer = ENCODED.clone();
    longer.push(0);
    assert!(decoded(&longer).is_err());
}

#[test]
fn refusals_say_what_to_do() {
    let mut other_version = ENCODED.clone();
    other_version[8] = 99;
    let mut flipped = ENCODED.clone();
    flipped[60] ^= 1;
    let errors = [&b"not a plan"[..], &other_version, &flipped, &ENCODED[..40]]
        .map(|bytes| decoded(bytes).unwrap_err().to_string());
    insta::assert_snapshot!(errors.join("\n"));
}

fn each_nest(plan: &mut Plan, change: &mut dyn FnMut(&mut Nest<BufferId>)) {
    for kernel in plan.entries.iter_mut().flat_map(|e| &mut e.schedule.kernels) {
        if let Body::Nests(nests) = &mut kernel.body {
            nests.iter_mut().for_each(&mut *change);
        }
    }
}

/// Gives every nest an access that nothing needs, but executors prepare.
fn each_access(plan: &mut Plan, change: &dyn Fn(&mut Access)) {
    each_nest(plan, &mut |nest| {
        let mut access = Access::contiguous(&nest.space);
        change(&mut access);
        nest.exprs.push(Expr::Inside { access });
    });
}

fn each_iota(plan: &mut Plan, divisor: usize) {
    each_nest(plan, &mut |nest| {
        let access = Access::contiguous(&nest.space);
        nest.exprs.push(Expr::Iota { access, divisor, modulus: 1, dtype: DType::U32 });
    });
}

fn each_conv(plan: &mut Plan, change: &dyn Fn(&mut ConvShape)) {
    for kernel in plan.entries.iter_mut().flat_map(|e| &mut e.schedule.kernels) {
        if let Body::Contraction(c) = &mut kernel.body
            && let ContractionKind::Conv2d(shape)
            | ContractionKind::Conv2dInputGrad(shape)
            | ContractionKind::Conv2dFilterGrad(shape) = &mut c.kind
        {
            change(shape);
        }
    }
}

/// Numbers that are allocated or shown are checked, not believed.
#[test]
fn doctored_plans_are_refused() {
    type Change = fn(&mut Plan);
    let changes: [(&str, Change); 22] = [
        ("index space", |p| each_access(p, &|a| a.bounds.push(Bound { offset: 0, strides: vec![], below: 1 }))),
        ("index space", |p| each_access(p, &|a| a.offset = isize::MIN)),
        ("a bound's sum", |p| {
            each_access(p, &|a| {
                let strides = vec![1 << 30; a.strides.len()];
                a.bounds.push(Bound { offset: 0, strides, below: 1 });
            });
        }),
        ("an iota divides", |p| each_iota(p, 0)),
        ("an iota divides", |p| each_iota(p, usize::MAX)),
        ("control characters", |p| p.name.push('\u{202e}')),
        ("control characters", |p| p.entries[1].schedule.kernels[0].nodes.push("a\u{1b}[31m".into())),
        ("control characters", |p| p.entries[1].schedule.buffers[0].name.push('\n')),
        ("lower bound", |p| p.entries[1].schedule.lower_bound -= 64),
        ("arena", |p| p.entries[1].schedule.arena_bytes = 1 << 50),
        ("elements", |p| p.entries[1].inputs[0].ty.shape = vec![usize::MAX, 8]),
        ("cannot be", |p| p.entries[1].inputs.iter_mut().for_each(|i| i.feed = crate::plan::Feed::Seed)),
        ("state region", |p| {
            let more = 1 << 32;
            p.state_layout.bytes += more;
            for entry in &mut p.entries {
                let schedule = &mut entry.schedule;
                (schedule.arena_bytes, schedule.lower_bound) =
                    (schedule.arena_bytes + more, schedule.lower_bound + more);
                let planned = schedule.buffers.iter_mut().filter(|b| !matches!(b.role, BufferRole::State(_)));
                planned.for_each(|b| b.offset += more);
            }
        }),
        ("index space", |p| {
            // Nothing needs it, but executors prepare it.
            let access = Access { offset: 0, strides: vec![1], bounds: Vec::new() };
            each_nest(p, &mut |nest| {
                nest.exprs.push(Expr::Inside { access: access.clone() });
            });
        }),
        ("index space", |p| {
            each_nest(p, &mut |nest| {
                let strides = vec![isize::MAX; nest.space.len()];
                nest.exprs.push(Expr::Inside { access: Access { offset: 0, strides, bounds: Vec::new() } });
            });
        }),
        ("works in", |p| {
            let kernels = p.entries.iter_mut().flat_map(|e| &mut e.schedule.kernels);
            kernels.for_each(|k| k.choice.workspace.clear());
        }),
        ("does not compute", |p| {
            let kernels = p.entries.iter_mut().flat_map(|e| &mut e.schedule.kernels);
            let tile = Tile { rows: 1, columns: 1, depth: 1 };
            kernels.for_each(|k| k.choice.algorithm = Algorithm::FilterGradient { tile });
        }),
        ("does not compute", |p| {
            let kernels = p.entries.iter_mut().flat_map(|e| &mut e.schedule.kernels);
            let tile = Tile { rows: 1, columns: 1, depth: 1 };
            let matmuls = kernels.filter(|k| matches!(k.choice.algorithm, Algorithm::MatMul { .. }));
            matmuls.for_each(|k| k.choice.algorithm = Algorithm::Patches { tile });
        }),
        ("no values", |p| p.entries[1].inputs[0].below = Some(0)),
        ("a padding of", |p| {
            let window = Window { stride: [16384; 2], pad: [8192; 2] };
            let (input, kernel, output) = ([1; 2], [1; 2], [2; 2]);
            each_conv(p, &|c| *c = ConvShape { n: 1, c: 1, o: 1, input, kernel, output, window });
        }),
        ("a stride of", |p| {
            let window = Window { stride: [512; 2], pad: [0; 2] };
            let (input, kernel, output) = ([512; 2], [1; 2], [1; 2]);
            each_conv(p, &|c| *c = ConvShape { n: 1, c: 1, o: 1, input, kernel, output, window });
        }),
        ("stride or padding", |p| {
            each_conv(p, &|shape| {
                shape.window.stride = [1 << 40; 2];
                shape.window.pad = [1 << 39; 2];
                shape.output = [(shape.input[0] + (1 << 40) - shape.kernel[0]) / (1 << 40) + 1; 2];
            });
        }),
    ];
    for (message, change) in changes {
        let mut plan = decode(&ENCODED, "small.plan".as_ref()).unwrap();
        change(&mut plan);
        let error = crate::plan::verify(&plan).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
}

/// A plan whose products are large enough for the tensor cores of an H100.
fn for_tensor_cores(precision: Precision) -> Plan {
    let text = crate::testing::formats::PROGRAM
        .replace("\"batch\": 2", "\"batch\": 16")
        .replace("Dense(3)", "Dense(16), LeakyRelu(0.2), Dense(16), LeakyRelu(0.2), Dense(3)");
    let options = Options { target: Target::Cuda(Architecture(90)), precision, ..Options::default() };
    compile("p.ron", &text, &options, &mut |_| {}).unwrap().plan.unwrap()
}

/// Tensor cores that read operands where they are read them as what they are.
#[test]
fn warpgroups_multiply_what_is_theirs_where_there_are_some() {
    let plan = for_tensor_cores(Precision::Tf32);
    assert_eq!(crate::plan::verify(&plan), Ok(()));
    let blocks_of = |change: &dyn Fn(&mut ThreadBlocks)| {
        let mut plan = plan.clone();
        let mut changed = 0;
        for kernel in plan.entries.iter_mut().flat_map(|entry| &mut entry.schedule.kernels) {
            if let Algorithm::ThreadBlocks(blocks) = &mut kernel.choice.algorithm
                && warpgroup::is_choice(blocks)
            {
                change(blocks);
                changed += 1;
            }
        }
        assert!(changed > 0, "the gradient of a layer's input is a product for warpgroups");
        plan
    };
    let refused = |plan: &Plan| crate::plan::verify(plan).unwrap_err().to_string();
    let is_bf16 =
        blocks_of(&|b| *b = warpgroup::blocks(Math::Bf16Stored, (b.tile.rows, b.tile.columns), b.stages, b.splits));
    assert!(refused(&is_bf16).contains("does not read operands of their types"), "{}", refused(&is_bf16));
    let too_deep = blocks_of(&|b| b.tile.depth *= 2);
    assert!(refused(&too_deep).contains("does not compute such a kernel"));
    let mut newer = blocks_of(&|_| {});
    newer.source.target = Target::Cuda(Architecture(100));
    assert!(refused(&newer).contains("is not for the plan's target"));
}

/// What is done with an epilogue's reductions is over what is kept, and of them.
#[test]
fn what_finishes_a_contraction_is_checked() {
    type Change = fn(&mut Contraction<BufferId>);
    let options = Options { target: Target::Cuda(Architecture(90)), precision: Precision::Tf32, ..Options::default() };
    let text = crate::declare::builtin::text("dcgan").unwrap();
    let plan = compile("dcgan", text, &options, &mut |_| {}).unwrap().plan.unwrap();
    assert_eq!(crate::plan::verify(&plan), Ok(()));
    let changes: [(&str, Change); 11] = [
        ("there is no slot", |c| {
            c.finish.exprs.push(Expr::Slot(SlotId::new(c.reductions.len())));
        }),
        ("there is no accumulator", |c| {
            c.finish.exprs.push(Expr::Accumulator);
        }),
        ("there is no expression", |c| c.finish.stores[0].value = ExprId::new(1 << 20)),
        ("reduces for nothing", |c| c.finish.stores.clear()),
        ("reduces over nothing, or nothing", |c| c.reductions.clear()),
        ("there is no slot", |c| c.reductions.truncate(1)),
        ("an access", |c| c.finish.stores[0].access.strides.clear()),
        ("does not fill", |c| c.finish.stores[0].access.offset += 1),
        ("written twice", |c| c.finish.stores[0].buffer = c.stores[0].buffer),
        ("an access reaches", |c| {
            let store = c.finish.stores[0].clone();
            let access = Access { offset: 1 << 20, ..store.access };
            let (buffer, lane) = (store.buffer, Lane::Real);
            c.finish.stores[0].value = c.finish.exprs.push(Expr::Load { buffer, access, lane });
        }),
        ("there is no expression", |c| c.reductions[0].value = ExprId::new(1 << 20)),
    ];
    let wrong = changes.map(|(message, change)| {
        let mut changed = plan.clone();
        let kernels = changed.entries.iter_mut().flat_map(|entry| &mut entry.schedule.kernels);
        let has_statistics = |kernel: &&mut Kernel| matches!(&kernel.body, Body::Contraction(c) if c.reductions.len() > 1 && !c.stores.is_empty());
        let kernel = kernels.filter(has_statistics).last().unwrap();
        let Body::Contraction(c) = &mut kernel.body else { unreachable!("it has statistics") };
        change(c);
        let listed = |buffers: BTreeSet<BufferId>| buffers.into_iter().collect();
        kernel.reads = listed(kernel.body.reads().copied().collect());
        kernel.writes = listed(kernel.body.stores().map(|store| store.buffer).collect());
        let error = crate::plan::verify(&changed).unwrap_err().to_string();
        (!error.contains(message)).then(|| format!("{message}: {error}"))
    });
    assert_eq!(wrong.into_iter().flatten().collect::<Vec<_>>(), Vec::<String>::new());
}

/// Copies of state are of state tensors, and of GPUs.
#[test]
fn copies_of_state_are_checked() {
    type Change = fn(&mut Plan);
    let plan = for_tensor_cores(Precision::Bf16);
    assert!(!plan.state_layout.copies.is_empty());
    assert_eq!(decode(&encode(&plan).unwrap(), "p.plan".as_ref()).unwrap(), plan);
    let changes: [(&str, Change); 9] = [
        ("for a CPU has no copies of state", |p| p.source.target = Target::Cpu),
        ("a copy of the undeclared `no`", |p| p.state_layout.copies.values_mut().for_each(|c| c.of = "no".into())),
        ("which is of u32", |p| p.states.iter_mut().for_each(|s| s.ty.dtype = DType::U32)),
        ("declared twice", |p| {
            let copy = p.state_layout.copies.values().next().cloned().unwrap();
            p.state_layout.copies.insert(copy.of.clone(), copy);
        }),
        ("has no place", |p| p.state_layout.offsets.retain(|name, _| !name.ends_with(".bf16"))),
        ("that are not declared", |p| p.state_layout.copies.clear()),
        ("in no order", |p| drop(p.state_layout.orders.insert("no".into(), vec![1, 0]))),
        ("in no order", |p| p.states.iter().for_each(|s| drop(p.state_layout.orders.insert(s.name.clone(), vec![7])))),
        ("leaves the arena", |p| p.state_layout.copies.values_mut().for_each(|c| c.rounding = Rounding::Tf32)),
    ];
    for (message, change) in changes {
        let mut changed = plan.clone();
        change(&mut changed);
        let error = crate::plan::verify(&changed).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
}

#[test]
fn a_failed_save_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.plan");
    let plan = decoded(&ENCODED).unwrap();
    save(&plan, &path).unwrap();
    save(&plan, &path).unwrap();
    let header = fs::read(&path).unwrap()[20..52].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(super::super::digest(&plan).unwrap(), header);
    assert_eq!(load(&path).unwrap(), plan);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no other file is left behind");
    let nowhere = folder.path().join("no/such/folder.plan");
    assert!(save(&plan, &nowhere).unwrap_err().to_string().starts_with("cannot write "));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_flipped_bit_is_found(at: prop::sample::Index, bit in 0..8u8) {
        let mut bytes = ENCODED.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decoded(&bytes).is_err());
    }

    /// A hostile file has a hash that fits. It is refused, or it runs within its bounds.
    #[test]
    fn hostile_plans_are_refused_or_run_safely(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4),
    ) {
        let mut body = ENCODED[HEADER..].to_vec();
        for (at, byte, edit) in edits {
            let at = at.index(body.len());
            match edit {
                0 => body[at] = byte,
                1 => body[at] = body[at].wrapping_add(1 + byte % 4),
                2 => body[at] ^= 1 << (byte % 8),
                _ => { body.remove(at); }
            }
        }
        if let Ok(plan) = decoded(&sealed(&body)) {
            run(&plan);
        }
    }
}

/// A file holds an operation by its number in the table. Where this changes, `VERSION` must, too.
#[test]
fn operations_have_the_numbers_of_this_version() {
    let names: Vec<&str> = crate::scalar::ScalarOp::ALL.iter().map(|op| op.name()).collect();
    insta::assert_snapshot!(format!("version {VERSION}\n{}", names.join("\n")));
}
