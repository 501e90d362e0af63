//! The built-in programs, made small: their gradients, two hundred steps of each, and what the step leaves behind.

use gcc_gan::compile::{Options, compile};
use gcc_gan::declare::{builtin, load};
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::exec::{Device, Executor, TensorMut};
use gcc_gan::ir::{Feed, Module, StateRole, Value};
use gcc_gan::replay::{Replay, Tensors};
use gcc_gan::tensor::Tensor;
use gcc_gan::testing::{Choices, program_inputs};
use gcc_gan::train::data::embedded;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What makes each program small, and what stops its updates. (The DCGAN has a small form of its own: tests/pytorch.)
const SMALL: [(&str, &[&str]); 9] = [
    ("dcgan-paper", &["latent=5", "features=2"]),
    ("dcgan64", &["latent=5", "features=1"]),
    ("mlp-gan", &["latent=5", "hidden=8"]),
    ("lsgan", &["latent=5", "features=2"]),
    ("wgan-gp", &["latent=5", "features=2", "critic_steps=2"]),
    ("hinge", &["latent=5", "features=2"]),
    ("cgan", &["latent=5", "features=2", "width=3"]),
    ("vae", &["latent=3", "hidden=8"]),
    ("lenet", &[]),
];

fn sets(small: &[&str], more: &[&str]) -> Vec<String> {
    small.iter().chain(more).map(ToString::to_string).collect()
}

#[test]
fn every_built_in_program_but_the_first_is_made_small() {
    let small = SMALL.map(|(name, _)| name);
    let others: Vec<&str> = builtin::NAMES.into_iter().filter(|name| !small.contains(name)).collect();
    assert_eq!(others, ["dcgan"]);
    assert!(builtin::NAMES.iter().all(|name| builtin::about(name).is_some() && builtin::text(name).is_some()));
}

/// The losses that a step has gradients of, each with its parameters and the name of its gradients. Of a loss that is
/// minimised several times, the last, which is the one that the entry gives.
fn losses(module: &Module) -> BTreeMap<String, (String, Vec<String>)> {
    let entry = module.entries.iter().find(|e| e.graph.name == "train_step").unwrap();
    let parameters: Vec<&str> =
        module.states.iter().filter(|s| s.role == StateRole::Parameter).map(|s| s.name.as_str()).collect();
    let mut found: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for probe in &entry.graph.probes {
        let parameter = parameters.iter().find(|p| probe.name.ends_with(&format!("/{p}"))).unwrap();
        let group = probe.name.strip_suffix(&format!("/{parameter}")).unwrap();
        let loss = group.strip_prefix("gradient/").unwrap().split('.').next().unwrap().to_string();
        let of_loss = found.entry(loss).or_default();
        if of_loss.0 != group {
            *of_loss = (group.to_string(), Vec::new());
        }
        of_loss.1.push(parameter.to_string());
    }
    found
}

/// Each loss changes along a random direction of its parameters as its gradient says, with all rates at 0.
#[test]
fn gradients_agree_with_differences() {
    // So short that hardly a kink of a relu lies between.
    const STEP: f64 = 1e-8;
    for (name, small) in SMALL {
        let module = load(name, builtin::text(name).unwrap(), &sets(small, &["lr=0", "batch=3"]), &[]).unwrap();
        let data = program_inputs(&module, "train_step", 1);
        let run = |given: &Tensors, steps: usize| {
            Replay::new(&module, "train_step", given.clone(), steps, 1).unwrap().run_reference().unwrap()
        };
        // Where a bias is 0, so are many values that stand at the kink of a relu.
        let mut choices = Choices::new(5);
        let mut given = run(&data, 1);
        for state in module.states.iter().filter(|s| s.role == StateRole::Parameter) {
            let moved = given[&state.name].to_f64().iter().map(|x| x + 0.05 * choices.real()).collect();
            given.insert(state.name.clone(), Value::real(state.ty.shape.clone(), moved));
        }
        let states = |tensors: Tensors| {
            let is_state = |name: &str| module.states.iter().any(|s| s.name == name);
            let states = tensors.into_iter().filter(|(name, _)| is_state(name));
            states.chain(data.clone()).collect::<Tensors>()
        };
        let mut given = states(given);
        // The power iteration of spectral norms has to converge: no gradient flows through it.
        if name == "hinge" {
            given = states(run(&given, 300));
        }
        let there = run(&given, 1);
        let losses = losses(&module);
        assert!(!losses.is_empty(), "{name}");
        for (loss, (group, parameters)) in losses {
            let mut expected = 0.0;
            let [mut ahead, mut behind] = [given.clone(), given.clone()];
            for parameter in &parameters {
                let gradient = there[&format!("{group}/{parameter}")].to_f64();
                let way: Vec<f64> = gradient.iter().map(|_| choices.real()).collect();
                expected += gradient.iter().zip(&way).map(|(g, w)| g * w).sum::<f64>();
                for (tensors, step) in [(&mut ahead, STEP), (&mut behind, -STEP)] {
                    let old = &given[parameter];
                    let new = old.to_f64().iter().zip(&way).map(|(x, w)| x + step * w).collect();
                    tensors.insert(parameter.clone(), Value::real(old.shape.clone(), new));
                }
            }
            let [ahead, behind] = [ahead, behind].map(|given| run(&given, 1)[&loss].to_f64()[0]);
            let found = (ahead - behind) / (2.0 * STEP);
            let difference = (found - expected).abs() / (1e-3 + expected.abs());
            assert!(difference < 1e-4, "{name}, {loss}: {expected}, by differences {found}");
        }
    }
}

/// What a step is fed: digits, or smooth images in colour.
fn fill(feed: Feed, tensor: &mut Tensor, step: usize, digits: &[f32], labels: &[u8]) {
    let shape = tensor.ty().shape.clone();
    let first = step * shape.first().copied().unwrap_or(0);
    match feed {
        Feed::Images if shape[1] == 1 => {
            let wanted = digits.iter().cycle().skip(first * 784 % digits.len());
            tensor.values_mut().unwrap().iter_mut().zip(wanted).for_each(|(x, y): (&mut f32, _)| *x = *y);
        }
        Feed::Images => {
            let [_, channels, height, width] = shape[..] else { panic!("{shape:?}") };
            for (i, x) in tensor.values_mut().unwrap().iter_mut().enumerate() {
                let (image, channel) = (first + i / (channels * height * width), i / (height * width) % channels);
                let place = (i / width % height) as f32 / height as f32;
                *x = ((image * 7 + channel * 3) as f32 + 2.0 * place).sin();
            }
        }
        Feed::Labels => {
            let wanted = labels.iter().cycle().skip(first % labels.len());
            tensor.values_mut().unwrap().iter_mut().zip(wanted).for_each(|(x, y): (&mut u32, _)| *x = u32::from(*y));
        }
        Feed::Seed => tensor.values_mut().unwrap().copy_from_slice(&[3u32, 0]),
        Feed::Caller => panic!("a step takes data alone"),
    }
}

fn submit(executor: &mut dyn Executor, entry: &str, step: usize, digits: &[f32], labels: &[u8]) -> Vec<f32> {
    let plan = executor.plan();
    let index = plan.entries.iter().position(|e| e.name == entry).unwrap();
    let outputs: Vec<usize> = gcc_gan::exec::scalar_outputs(&plan.entries[index]).collect();
    let mut tensors: Vec<(Feed, Tensor)> =
        plan.entries[index].inputs.iter().map(|i| (i.feed, Tensor::zeros(i.ty.clone()))).collect();
    tensors.iter_mut().for_each(|(feed, tensor)| fill(*feed, tensor, step, digits, labels));
    let views: Vec<_> = tensors.iter().map(|(_, tensor)| tensor.view()).collect();
    executor.submit(index, &views).unwrap();
    outputs
        .into_iter()
        .map(|output| {
            let mut value = [0.0];
            executor.read_output(index, output, TensorMut::f32(&mut value)).unwrap();
            value[0]
        })
        .collect()
}

/// Two hundred steps of batches of eight: everything stays finite, and the first loss, which is that of the network that
/// judges where there are two, falls below what it was.
#[test]
fn every_program_trains() {
    let data = embedded::load();
    let digits: Vec<f32> = data.train.images.iter().take(784 * 2000).map(|&p| f32::from(p) / 127.5 - 1.0).collect();
    let labels = &data.train.labels.as_ref().unwrap()[..2000];
    for (name, small) in SMALL {
        let options = Options { sets: sets(small, &["batch=8"]), ..Options::default() };
        let plan = compile(name, builtin::text(name).unwrap(), &options, &mut |_| {}).unwrap().plan.unwrap();
        let mut executor = CpuDevice::new(2).load(Arc::new(plan)).unwrap();
        submit(executor.as_mut(), "init", 0, &digits, labels);
        let mut history: Vec<f32> = Vec::new();
        for step in 0..200 {
            let losses = submit(executor.as_mut(), "train_step", step, &digits, labels);
            assert!(losses.iter().all(|loss| loss.is_finite()), "{name}, step {step}: {losses:?}");
            history.push(losses[0]);
        }
        let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
        let (first, last) = (mean(&history[..5]), mean(&history[150..]));
        assert!(last < 0.95 * first, "{name}: {first} at first, {last} at last");
        for i in 0..executor.plan().states.len() {
            let state = executor.plan().states[i].clone();
            let mut tensor = Tensor::zeros(state.ty.clone());
            executor.read_state(i, tensor.view_mut()).unwrap();
            let values: Option<&[f32]> = tensor.values();
            assert!(values.into_iter().flatten().all(|x| x.is_finite()), "{name}: {}", state.name);
        }
    }
}

/// After each number of steps the average is what its rule makes of the parameters so far: of a decay of 0.5 with a ramp,
/// (1 + t) / (10 + t) until that is more.
#[test]
fn a_ramped_average_follows_its_rule() {
    let text = r#"Program(
        name: "averaged",
        networks: { "net": Network(input: [2], init: Normal(1.0), layers: [Dense(1)]) },
        entries: { "train_step": Entry(
            inputs: { "x": Tensor([3, 2]) },
            steps: [
                Let("loss", Mean(Call("net", "x", Training))),
                Minimise("loss", "net", Sgd(0.5)),
                Average(network: "net", decay: 0.5, ramp: true),
            ],
            outputs: ["loss"],
        ) },
    )"#;
    let module = load("averaged.ron", text, &[], &[]).unwrap();
    let given = program_inputs(&module, "train_step", 1);
    let mut average = Vec::new();
    for steps in 1..=12 {
        let after = Replay::new(&module, "train_step", given.clone(), steps, 1).unwrap().run_reference().unwrap();
        let weights = after["net/0-dense/weight"].to_f64();
        let t = (steps - 1) as f64;
        let decay = if steps == 1 { 0.0 } else { f64::min(0.5, (1.0 + t) / (10.0 + t)) };
        average.resize(weights.len(), 0.0);
        average.iter_mut().zip(&weights).for_each(|(a, w)| *a = decay * *a + (1.0 - decay) * w);
        let found = after["net/0-dense/weight/average"].to_f64();
        let differs = |(a, f): (&f64, &f64)| (a - f).abs() > 1e-12;
        assert!(!average.iter().zip(&found).any(differs), "after {steps} steps: {found:?}, expected {average:?}");
    }
}

/// State is named after where its layer stands; what is normalised is called as it would be called without.
#[test]
fn layers_of_layers_have_parameters_of_their_own() {
    let text = r#"Program(
        name: "nested",
        networks: { "net": Network(input: [4], layers: [
            Repeat(2, [SpectralNorm(Dense(4)), Relu()]),
            Residual(layers: [Dense(3)], shortcut: [Dense(units: 3, bias: false)]),
        ]) },
        entries: { "train_step": Entry(
            inputs: { "x": Tensor([3, 4]) },
            steps: [Let("loss", Mean(Call("net", "x", Training))), Minimise("loss", "net", Sgd(0.5))],
            outputs: ["loss"],
        ) },
    )"#;
    let module = load("nested.ron", text, &[], &[]).unwrap();
    let parameters = module.states.iter().filter(|s| s.role == StateRole::Parameter);
    let names: Vec<&str> = parameters.map(|s| s.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "net/0-repeat/0/0-dense/weight",
            "net/0-repeat/0/0-dense/bias",
            "net/0-repeat/1/0-dense/weight",
            "net/0-repeat/1/0-dense/bias",
            "net/1-residual/0-dense/weight",
            "net/1-residual/0-dense/bias",
            "net/1-residual/shortcut/0-dense/weight",
        ]
    );
}
