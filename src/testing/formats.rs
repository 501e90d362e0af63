//! One function for each format that is read from files: it reads any bytes, and does with what was read all that the
//! product does first. Fuzzers and property tests share these. None may panic, hang or take much memory.

use crate::compile::{Options, compile};
use crate::declare;
use crate::exec::cpu::CpuDevice;
use crate::exec::{Device as _, TensorRef, cuda};
use crate::inspect::page::{page_data, render};
use crate::inspect::profile::compare::compare;
use crate::inspect::profile::grouped::By;
use crate::inspect::profile::{Profile, Recorded, live_bytes};
use crate::inspect::{
    Observed, diff, explain, explain_pair, memory_text, observe, schedule_dot, schedule_svg, schedule_text,
};
use crate::ir::{Graph, text, verify, verify_module};
use crate::kernel::cost::{bytes_moved, flops};
use crate::plan::{Plan, decode};
use crate::replay;
use crate::tensor::{Tensor, Type};
use crate::train::checkpoint;
use crate::train::data::idx::{self, Content};
use crate::train::data::npy;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// A small program with convolutions, matrix products, reductions, draws and an optimiser.
pub const PROGRAM: &str = r#"Program(
    name: "small",
    sizes: { "batch": 2 },
    networks: {
        "net": Network(
            input: [1, 6, 6],
            layers: [
                Conv(channels: 2, kernel: 3, stride: 2, pad: 1), BatchNorm(), LeakyRelu(0.2), Dropout(0.5),
                ConvTranspose(channels: 2, kernel: 4, stride: 2, pad: 1), Flatten(), Dense(3),
            ],
        ),
    },
    entries: {
        "train_step": Entry(
            inputs: { "images": Images(["batch", 1, 6, 6]), "labels": Labels(["batch"]) },
            steps: [
                Let("score", Call("net", "images", Training)),
                Let("loss", Neg(Mean(Sum(Mul(OneHot("labels", 3), LogSoftmax("score")), [1])))),
                Minimise("loss", "net", Adam(lr: 0.01)),
            ],
            outputs: ["loss"],
        ),
    },
)
"#;

/// The plan of [`PROGRAM`].
pub static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let compiled = compile("small.ron", PROGRAM, &Options::default(), &mut |_| {}).expect("the program compiles");
    compiled.plan.expect("nothing stops it")
});

/// A program in RON.
pub fn program(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match declare::load_with_warnings("fuzzed.ron", text, &[], &[]) {
        Ok(loaded) => {
            verify_module(&loaded.module).expect("what is read is valid");
            loaded.warnings.render(100, false);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            error.diagnostics().map(|d| d.render(100, true));
        }
    }
}

/// A graph in its text form.
pub fn graph_text(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(graph) = text::parse(text)
    {
        look_at_graph(&graph);
    }
}

/// A graph in JSON.
pub fn graph_json(bytes: &[u8]) {
    if let Ok(graph) = serde_json::from_slice::<Graph>(bytes) {
        look_at_graph(&graph);
    }
}

/// A graph in serde's RON.
pub fn graph_ron(bytes: &[u8]) {
    if let Ok(graph) = ron::de::from_bytes::<Graph>(bytes) {
        look_at_graph(&graph);
    }
}

fn look_at_graph(graph: &Graph) {
    if verify(graph).is_ok() {
        text::parse(&graph.to_string()).expect("a valid graph's text is read back");
    }
}

/// A plan file.
pub fn plan(bytes: &[u8]) {
    if let Ok(plan) = decode(bytes, Path::new("fuzzed.plan")) {
        use_plan(&plan);
        look_at_plan(&plan);
    }
}

/// What is done with a plan that passed its verification: every text, and running each entry where that is little work.
pub fn use_plan(plan: &Plan) {
    for entry in &plan.entries {
        schedule_text(&entry.schedule);
        memory_text(&entry.schedule);
        live_bytes(&entry.schedule, plan.state_layout.bytes);
    }
    cuda::render_plan(plan);
    let kernels = || plan.entries.iter().flat_map(|e| e.schedule.kernels.iter().map(move |k| (e, k)));
    let work = kernels().map(|(e, k)| flops(k).saturating_add(bytes_moved(k, &e.schedule.buffers)));
    if plan.arena_bytes() > 1 << 24 || work.fold(0, u64::saturating_add) > 1 << 26 {
        return;
    }
    let device = CpuDevice::new(1);
    let mut executor = device.load(Arc::new(plan.clone())).expect("the plan was verified, and its arena is small");
    for (index, entry) in plan.entries.iter().enumerate() {
        if entry.inputs.iter().map(|i| i.ty.bytes()).fold(0, usize::saturating_add) > 1 << 24 {
            continue;
        }
        let inputs: Vec<Tensor> = entry.inputs.iter().map(|i| Tensor::zeros(i.ty.clone())).collect();
        let inputs: Vec<TensorRef> = inputs.iter().map(Tensor::view).collect();
        executor.run(index, &inputs).expect("the inputs are what the entry takes");
        for (number, output) in entry.schedule.outputs.iter().enumerate() {
            let dtype = entry.schedule.buffers[output.buffer.index()].dtype;
            let mut read = Tensor::zeros(Type::new(dtype, output.shape.clone()));
            executor.read_output(index, number, read.view_mut()).expect("the output is of its declared type");
        }
    }
}

/// Every picture and text that is made of a plan of [`PROGRAM`] and the stages of its compilation.
pub fn look_at_plan(plan: &Plan) {
    static OBSERVED: LazyLock<Mutex<Observed>> = LazyLock::new(|| Mutex::new(observed()));
    static OTHER: LazyLock<Observed> = LazyLock::new(observed);
    let mut observed = OBSERVED.lock().unwrap_or_else(PoisonError::into_inner);
    observed.plan = plan.clone();
    let observed = &*observed;
    let data = page_data(observed, None).expect("no profile is wrong");
    assert!(!render(&data).is_empty());
    diff(observed, &OTHER, usize::MAX);
    diff(&OTHER, observed, 3);
    for entry in &plan.entries {
        let Some(history) = observed.history(&entry.name) else { continue };
        let graph = history.last();
        schedule_dot(&entry.name, &entry.schedule, graph);
        schedule_svg(&entry.name, &entry.schedule, graph);
        let names: Vec<&str> = entry.schedule.kernels.iter().flat_map(|k| &k.nodes).map(String::as_str).collect();
        for pair in names.windows(2).step_by(7) {
            let _ = explain(observed, &entry.name, pair[0]);
            let _ = explain_pair(observed, &entry.name, pair[0], pair[1]);
        }
    }
}

fn observed() -> Observed {
    observe("small.ron", PROGRAM, &[], None).expect("the program compiles")
}

/// A checkpoint.
pub fn checkpoint(bytes: &[u8]) {
    if let Err(error) = checkpoint::decode(bytes, Path::new("fuzzed.safetensors")) {
        assert!(!error.to_string().is_empty());
    }
}

/// What `run --inputs` is given.
pub fn run_inputs(bytes: &[u8]) {
    if let Err(error) = replay::decode_tensors(bytes) {
        assert!(!error.to_string().is_empty());
    }
}

/// Images or labels of a data set, plain or compressed.
pub fn idx(bytes: &[u8]) {
    for content in [Content::Images, Content::Labels] {
        if let Ok(read) = idx::parse(bytes, content, "fuzzed") {
            assert_eq!(read.dims.iter().product::<usize>(), read.data.len());
        }
    }
}

/// Images or labels that `numpy.save` wrote.
pub fn npy(bytes: &[u8]) {
    let images = npy::images(bytes, &mut Vec::new());
    for read in [
        images.map(|(sizes, pixels)| assert_eq!(sizes.iter().product::<usize>(), pixels.len())),
        npy::labels(bytes, 3).map(|labels| assert_eq!(labels.len(), 3)),
    ] {
        if let Err(problem) = read {
            assert!(!problem.is_empty());
        }
    }
}

/// What `inspect --profile` and `profile --against` are given.
pub fn profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = Profile::subject_of(text);
    if let Ok(recorded) = Recorded::from_trace(text) {
        for by in [None, Some(By::Layer), Some(By::Kind)] {
            compare(&recorded, &recorded, by).table(["a", "b"]);
        }
    }
    let schedule = &PLAN.entries[1].schedule;
    if let Ok(profile) = Profile::from_trace(text, schedule)
        && let Ok(kernels) = profile.kernels(schedule)
    {
        profile.step_time();
        profile.table(&kernels);
    }
}
