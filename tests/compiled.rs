//! What programs compile to. Summaries for the whole DCGAN, the full text for a small program.

use gcc_gan::compile::{Compiled, Options, compile, specialise};
use gcc_gan::declare::builtin;
use gcc_gan::inspect::{memory_text, schedule_dot, schedule_text, summary_text};
use gcc_gan::ir::{DType, Graph, Op, Role};
use gcc_gan::kernel::body::{BufferId, Kernel};
use gcc_gan::kernel::schedule::{BufferRole, Schedule};
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::plan::verify;
use insta::assert_snapshot;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const DCGAN: &str = include_str!("../graphs/dcgan.ron");

fn compiled(text: &str) -> Compiled {
    compile("program.ron", text, &Options::default(), &mut |_| {}).unwrap()
}

fn schedule<'c>(compiled: &'c Compiled, entry: &str) -> &'c Schedule {
    &compiled.plan.as_ref().unwrap().entry(entry).unwrap().schedule
}

fn graph<'c>(compiled: &'c Compiled, entry: &str) -> &'c Graph {
    &compiled.module.entries.iter().find(|e| e.graph.name == entry).unwrap().graph
}

/// Everything but how long it took.
fn summary(compiled: &Compiled) -> String {
    let text = summary_text(&compiled.summary);
    let (first, rest) = text.split_once('\n').unwrap();
    format!("{}\n{rest}", first.split("; compiled in").next().unwrap())
}

#[test]
fn dcgan_summary() {
    assert_snapshot!(summary(&compiled(DCGAN)));
}

#[test]
fn other_programs_summaries() {
    for name in builtin::NAMES.into_iter().filter(|name| *name != "dcgan") {
        let text = builtin::text(name).unwrap();
        assert_snapshot!(format!("{}_summary", name.replace('-', "_")), summary(&compiled(text)));
    }
}

/// The kernels of the step in the order in which they run, with how many nodes each holds.
#[test]
fn dcgan_schedule() {
    let compiled = compiled(DCGAN);
    let mut text = String::new();
    for kernel in &schedule(&compiled, "train_step").kernels {
        writeln!(text, "{:12} {:2} values  {}", kernel.kind().name(), kernel.nodes.len(), kernel.name).unwrap();
    }
    assert_snapshot!(text);
}

/// The contractions that are left after all passes, by what they are for. In the discriminator's half nothing is
/// differentiated with respect to the generator, and in the generator's half there is no gradient of the
/// discriminator's filters: nobody asked for them.
#[test]
fn dcgan_contractions() {
    let compiled = compiled(DCGAN);
    let graph = &compiled.module.entries.iter().find(|e| e.graph.name == "train_step").unwrap().graph;
    let mut found = BTreeMap::<String, usize>::new();
    for id in graph.topological().into_iter().filter(|&id| graph.op(id).is_contraction()) {
        let origin = &graph.node(id).origin;
        let role = match &origin.role {
            Role::Forward => "forward".to_string(),
            Role::Gradient(loss) => format!("gradient of {loss}"),
            Role::Optimiser(network) => format!("optimiser of {network}"),
        };
        let is_filter_gradient = matches!(graph.op(id), Op::Conv2dFilterGrad { .. });
        if role == "gradient of loss_d" {
            assert!(!origin.scope.contains("generator"), "{}", graph.node(id).name);
        }
        if role == "gradient of loss_g" && is_filter_gradient {
            assert!(!origin.scope.contains("discriminator"), "{}", graph.node(id).name);
        }
        *found.entry(format!("{role}: {} in {}", graph.op(id).name(), origin.scope)).or_default() += 1;
    }
    assert_snapshot!(found.iter().map(|(what, n)| format!("{n} {what}\n")).collect::<String>());
}

/// A regression with dropout and momentum: a matrix product, a reduction, a draw, an update.
const SMALL: &str = r#"Program(
    name: "regression",
    sizes: { "batch": 8 },
    networks: { "line": Network(input: [3], layers: [Dropout(0.25), Dense(2)]) },
    entries: {
        "train_step": Entry(
            inputs: { "x": Tensor(["batch", 3]), "t": Tensor(["batch", 2]) },
            steps: [
                Let("y", Call("line", "x", Training)),
                Let("error", Sub("y", "t")),
                Let("loss", Mean(Mul("error", "error"))),
                Minimise("loss", "line", Sgd(lr: 0.1, momentum: 0.9)),
            ],
            outputs: ["loss"],
        ),
    },
)"#;

#[test]
fn small_program_after_each_pass() {
    let (mut text, mut last) = (String::new(), String::new());
    compile("small.ron", SMALL, &Options::default(), &mut |stage| {
        let now = stage.graph.to_string();
        if stage.entry == "train_step" {
            if now == last {
                writeln!(text, "== {}: no change", stage.name).unwrap();
            } else {
                write!(text, "== {}\n{now}", stage.name).unwrap();
            }
            last = now;
        }
    })
    .unwrap();
    assert_snapshot!(text);
}

#[test]
fn small_program_kernels_and_memory() {
    let compiled = compiled(SMALL);
    let schedule = schedule(&compiled, "train_step");
    assert_snapshot!("small_program_kernels", schedule_text(schedule));
    assert_snapshot!("small_program_memory", memory_text(schedule));
    assert_snapshot!("small_program_dot", schedule_dot("train_step", schedule, graph(&compiled, "train_step")));
}

/// `compile` of the same text gives the same bytes.
#[test]
fn plans_are_deterministic() {
    let encoded = || gcc_gan::plan::encode(&compiled(DCGAN).plan.unwrap()).unwrap();
    assert!(encoded() == encoded());
}

/// No schedule in this order takes less.
#[test]
fn dcgan_arena_is_at_the_lower_bound() {
    let compiled = compiled(DCGAN);
    let schedule = schedule(&compiled, "train_step");
    assert_eq!(schedule.arena_bytes, schedule.lower_bound);
}

/// What is kept as bf16 takes half the bytes, and an element type that there is none of is refused at its line.
#[test]
fn bf16_halves_what_is_stored() {
    let text = r#"Program(
    name: "halves",
    sizes: { "n": 64 },
    entries: {
        "half": Entry(
            inputs: { "x": Tensor(["n", "n"]) },
            steps: [
                Let("h", Convert(Exp("x"), Bf16)),
                Let("y", MatMul(Convert("h", F32), "x")),
            ],
            outputs: ["h", "y"],
        ),
    },
)"#;
    let compiled = compiled(text);
    let schedule = schedule(&compiled, "half");
    let output = |i: usize| &schedule.buffers[schedule.outputs[i].buffer.index()];
    assert_eq!((output(0).dtype, output(0).bytes()), (DType::Bf16, 64 * 64 * 2));
    assert_eq!((output(1).dtype, output(1).bytes()), (DType::F32, 64 * 64 * 4));
    for (wrong, complaint) in [("Convert(Exp(\"x\"), U32)", "F32"), ("Exp(Convert(\"x\", Bf16))", "takes f32")] {
        let text = text.replace("Convert(Exp(\"x\"), Bf16)", wrong);
        let error = compile("program.ron", &text, &Options::default(), &mut |_| {}).unwrap_err();
        assert!(format!("{error:?}").contains(complaint), "{error:?}");
    }
}

/// The generator's second forward half needs nothing of the discriminator's step but its weights: it waits until these are
/// updated, so that what both keep for their gradients is never live together.
#[test]
fn halves_of_a_step_do_not_lie_in_memory_together() {
    let compiled = compiled(DCGAN);
    let schedule = schedule(&compiled, "train_step");
    let weight = BufferRole::State("discriminator/3-conv/weight".into());
    let writes = |kernel: &&Kernel| kernel.writes.iter().any(|b| schedule.buffers[b.index()].role == weight);
    let updated = schedule.kernels.iter().find(writes).unwrap();
    let place = |name: &str| schedule.kernels.iter().position(|kernel| kernel.name == name).unwrap();
    assert!(place("fake_d_generator_0_dense_matmul") < place(&updated.name));
    assert!(place(&updated.name) < place("fake_g_generator_0_dense_matmul"));
    let state = compiled.plan.as_ref().unwrap().state_layout.bytes;
    assert!(schedule.arena_bytes - state < 84 << 20, "{} bytes", schedule.arena_bytes);
}

/// An epoch's last batch may be too small for its products to be rounded; what it updates has its copies updated all the same.
#[test]
fn a_smaller_batch_writes_the_copies_of_what_it_updates() {
    let options = Options { target: Target::Cuda(Architecture(90)), precision: Precision::Tf32, ..Options::default() };
    let mut plan = compile("gan.ron", include_str!("cuda/gan.ron"), &options, &mut |_| {}).unwrap().plan.unwrap();
    for examples in [20, 5] {
        specialise(&mut plan, "train_step", examples).unwrap();
        verify(&plan).unwrap();
        let entry = plan.entries.last().unwrap();
        assert!(!entry.sizes.is_empty());
        let written = |name: &String| {
            let buffers = &entry.schedule.buffers;
            let is_it = |b: &BufferId| matches!(&buffers[b.index()].role, BufferRole::State(state) if *state == *name);
            entry.schedule.kernels.iter().any(|kernel| kernel.writes.iter().any(is_it))
        };
        let copies: Vec<&String> = plan.state_layout.copies.keys().collect();
        assert!(copies.len() > 3, "{copies:?}");
        assert!(copies.iter().all(|name| written(name)), "{copies:?}");
    }
}
