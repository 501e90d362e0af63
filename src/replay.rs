//! Running one entry on given tensors, step after step: on a device, or by the reference
//! interpreter in f64.
//!
//! Everything an entry depends on has a name: inputs, state, and random draws by their streams. A draw
//! that is given becomes an input, so that a step of another framework is replayed exactly. What comes out
//! has names too: outputs, the gradients of losses, and the state afterwards.

use crate::autodiff::differentiate;
use crate::compile::{CompileError, Options, compile_module};
use crate::exec::{Device, ExecError, Executor, TensorRef};
use crate::ir::{
    Bindings, Data, Distribution, Entry, Feed, InputDecl, InterpError, Module, Op, Output, StateDecl, StateRole, Type,
    Value, evaluate,
};
use crate::plan::{INIT, Source};
use crate::tensor::{Bf16, Tensor};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameKind {
    /// Must be given.
    Input,
    /// May be given; else it is what the program's initialisation makes it. Returned afterwards.
    State,
    /// May be given; else it is drawn.
    Draw,
    /// Returned.
    Output,
    /// A gradient of a loss; returned.
    Gradient,
}

/// Something that can be given to or comes out of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Name {
    pub entry: String,
    pub name: String,
    pub kind: NameKind,
    #[serde(serialize_with = "as_text")]
    pub ty: Type,
    /// A human-readable sentence.
    pub meaning: String,
}

fn as_text<S: serde::Serializer>(ty: &Type, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(ty)
}

/// Why an entry was not run.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("there is no entry, network or function `{entry}`; the entries are {known}")]
    NoEntry { entry: String, known: String },
    #[error("`{entry}` has nothing called `{name}`{hint}; `gcc-gan inputs` lists every name")]
    UnknownName { entry: String, name: String, hint: String },
    #[error("`{name}` must be {expected}, got {found}")]
    WrongType { name: String, expected: Type, found: Type },
    #[error("`{name}` has {found} at {place:?}: its elements are indices, whole numbers from {least} to {most}")]
    OutOfRange { name: String, found: f64, place: Vec<usize>, least: i64, most: i64 },
    #[error("{} must be given: `{entry}` has no other source for {}", names.join(", "), if names.len() == 1 { "it" } else { "them" })]
    Missing { entry: String, names: Vec<String> },
    #[error("`{name}` is given for some steps only: {missing} is missing")]
    SomeSteps { name: String, missing: String },
    #[error(
        "`{name}`: state is given once, as `{base}`, and changed by the steps; only inputs and draws differ from step to step"
    )]
    StateAtStep { name: String, base: String },
    #[error("`{name}` is given, but there are {steps} steps, counted from 0: raise --steps or leave it out")]
    NoSuchStep { name: String, steps: usize },
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Interp(#[from] InterpError),
}

/// Every name of one entry, or of all: inputs, draws and state first, then what comes out.
pub fn names(module: &Module, entry: Option<&str>) -> Vec<Name> {
    let chosen = module.entries.iter().filter(|e| entry.is_none_or(|name| name == e.graph.name));
    chosen.flat_map(|entry| entry_names(module, entry)).collect()
}

fn entry_names(module: &Module, entry: &Entry) -> Vec<Name> {
    let graph = &entry.graph;
    let name = |kind, name: &str, ty: &Type, meaning: String| Name {
        entry: graph.name.clone(),
        name: name.to_string(),
        kind,
        ty: ty.clone(),
        meaning,
    };
    let mut names: Vec<Name> = (entry.inputs.iter())
        .filter(|input| input.feed != Feed::Seed)
        .map(|input| name(NameKind::Input, &input.name, &input.ty, input.meaning.clone()))
        .collect();
    for id in graph.topological() {
        if let Op::Random { distribution, stream, .. } = graph.op(id) {
            let meaning = match distribution {
                Distribution::Uniform => "drawn uniformly from [0, 1)".to_string(),
                Distribution::Normal => "drawn from the standard normal distribution".to_string(),
                Distribution::Bernoulli(p) => format!("drawn: 1 with probability {p}, else 0"),
            };
            if !names.iter().any(|n| n.name == *stream) {
                names.push(name(NameKind::Draw, stream, graph.ty(id), meaning));
            }
        }
    }
    let used = |state: &str| {
        graph.updates.iter().any(|u| u.state == state)
            || graph.ids().into_iter().any(|id| matches!(graph.op(id), Op::State { name, .. } if name == state))
    };
    for state in module.states.iter().filter(|s| used(&s.name)) {
        let meaning = match state.role {
            StateRole::Parameter => "parameter, learnt by an optimiser",
            StateRole::Statistic => "running statistic",
            StateRole::Optimiser => "an optimiser's memory",
            StateRole::Counter => "count of steps, which keys the random draws",
            StateRole::Average => "moving average of a parameter",
            StateRole::NonFinite => "1 once a step made the network's state infinite or NaN",
        };
        names.push(name(NameKind::State, &state.name, &state.ty, meaning.to_string()));
    }
    for output in &graph.outputs {
        names.push(name(NameKind::Output, &output.name, graph.ty(output.node), "output".into()));
    }
    for probe in &graph.probes {
        names.push(name(NameKind::Gradient, &probe.name, graph.ty(probe.node), "gradient of a loss".into()));
    }
    names
}

/// Tensors by name, reals in f64.
pub type Tensors = BTreeMap<String, Value<f64>>;

/// An entry, ready to be run on tensors that fit it.
#[derive(Debug)]
pub struct Replay {
    /// With the given draws as inputs and the gradients as outputs; holds that entry and `init`.
    module: Module,
    entry: Entry,
    given: Tensors,
    steps: usize,
    seed: u64,
}

/// `name@step`: the tensor of that name in one step, counted from 0.
fn at_step(name: &str, step: usize) -> String {
    format!("{name}@{step}")
}

/// A name without its `@step`.
fn without_step(name: &str) -> &str {
    match name.rsplit_once('@') {
        Some((base, step)) if !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()) => base,
        _ => name,
    }
}

/// Refuses what is no index where an input takes indices: it would choose nothing, without a word.
fn check_indices(name: &str, input: &InputDecl, value: &Value<f64>) -> Result<(), ReplayError> {
    let Some(below) = input.below.and_then(|below| i64::try_from(below).ok()) else { return Ok(()) };
    let (least, most) = (if input.from_end { -below } else { 0 }, below - 1);
    let is_index = |&x: &f64| x.fract() == 0.0 && least as f64 <= x && x <= most as f64;
    let wrong = match &value.data {
        Data::U32(values) => values.iter().map(|&x| f64::from(x)).enumerate().find(|(_, x)| !is_index(x)),
        Data::Real(values) => values.iter().copied().enumerate().find(|(_, x)| !is_index(x)),
    };
    let Some((mut element, found)) = wrong else { return Ok(()) };
    let mut place = Vec::new();
    for &size in value.ty().shape.iter().rev() {
        place.insert(0, element % size);
        element /= size;
    }
    Err(ReplayError::OutOfRange { name: name.to_string(), found, place, least, most })
}

impl Replay {
    /// Checks what is given against what the entry takes. A tensor called `name@2` is `name` in the third step
    /// only.
    ///
    /// # Errors
    /// When a name is unknown or missing, or a tensor is of another type or shape.
    pub fn new(module: &Module, entry: &str, given: Tensors, steps: usize, seed: u64) -> Result<Replay, ReplayError> {
        let known = || module.entries.iter().map(|e| e.graph.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = module.entries.iter().find(|e| e.graph.name == entry);
        let found = found.ok_or_else(|| ReplayError::NoEntry { entry: entry.into(), known: known() })?;
        let names = entry_names(module, found);
        let takes = |n: &&Name| matches!(n.kind, NameKind::Input | NameKind::State | NameKind::Draw);
        for (name, value) in &given {
            let base = without_step(name);
            if let Some(input) = found.inputs.iter().find(|i| i.name == base || i.name == *name) {
                check_indices(name, input, value)?;
            }
            let Some(expected) = names.iter().filter(takes).find(|n| n.name == base || n.name == *name) else {
                let candidates = names.iter().filter(takes).map(|n| n.name.as_str());
                let hint = crate::declare::diagnostic::closest(base, candidates);
                let hint = hint.map_or(String::new(), |close| format!("; did you mean `{close}`?"));
                return Err(ReplayError::UnknownName { entry: entry.into(), name: name.clone(), hint });
            };
            if let Some(step) = name.strip_prefix(base).and_then(|rest| rest.strip_prefix('@'))
                && expected.name != *name
            {
                // A name that is accepted and has no effect would make a comparison wrong without a word.
                if expected.kind == NameKind::State {
                    return Err(ReplayError::StateAtStep { name: name.clone(), base: base.into() });
                }
                if step.parse::<usize>().is_ok_and(|step| step >= steps) {
                    return Err(ReplayError::NoSuchStep { name: name.clone(), steps });
                }
            }
            if !value.fits(&expected.ty) {
                let (expected, found) = (expected.ty.clone(), value.ty());
                return Err(ReplayError::WrongType { name: name.clone(), expected, found });
            }
        }
        for name in names.iter().filter(|n| matches!(n.kind, NameKind::Input | NameKind::Draw)) {
            if !given.contains_key(&name.name) {
                let missing: Vec<String> =
                    (0..steps).map(|k| at_step(&name.name, k)).filter(|n| !given.contains_key(n)).collect();
                if !missing.is_empty() && missing.len() < steps {
                    let name = name.name.clone();
                    return Err(ReplayError::SomeSteps { name, missing: missing[0].clone() });
                }
            }
        }
        let is_given = |name: &str| given.contains_key(name) || given.contains_key(&at_step(name, 0));
        let missing: Vec<String> = (names.iter())
            .filter(|n| n.kind == NameKind::Input && !is_given(&n.name))
            .map(|n| format!("`{}` ({})", n.name, n.ty))
            .collect();
        if !missing.is_empty() {
            return Err(ReplayError::Missing { entry: entry.into(), names: missing });
        }

        let mut entry = found.clone();
        let draws: Vec<_> = (entry.graph.topological().into_iter())
            .filter_map(|id| match entry.graph.op(id) {
                Op::Random { stream, .. } if is_given(stream) => Some((id, stream.clone())),
                _ => None,
            })
            .collect();
        for (id, stream) in draws {
            let ty = entry.graph.ty(id).clone();
            if !entry.inputs.iter().any(|i| i.name == stream) {
                let meaning = "a draw that is given".to_string();
                entry.inputs.push(InputDecl {
                    name: stream.clone(),
                    ty: ty.clone(),
                    feed: Feed::Caller,
                    below: None,
                    from_end: false,
                    meaning,
                });
            }
            let origin = entry.graph.node(id).origin.clone();
            let op = Op::Input { name: stream.clone(), ty };
            // A leaf takes no operands, so it always fits.
            if let Ok(input) = entry.graph.add(op, &[], &stream, origin) {
                entry.graph.replace_uses(id, input);
            }
        }
        let probes = entry.graph.probes.clone();
        entry.graph.outputs.extend(probes.into_iter().map(|p| Output { name: p.name, node: p.node }));
        entry.graph.remove_dead();
        let mut module = module.clone();
        module.entries.retain(|e| e.graph.name == INIT && e.graph.name != entry.graph.name);
        module.entries.push(entry.clone());
        Ok(Replay { module, entry, given, steps, seed })
    }

    /// State that the entry does not take, so that the results hold it as it is; other tensors are left out.
    pub fn beside(mut self, states: Tensors) -> Replay {
        for (name, value) in states {
            let is_state = |state: &StateDecl| state.name == name && value.fits(&state.ty);
            if self.module.states.iter().any(is_state) {
                self.given.entry(name).or_insert(value);
            }
        }
        self
    }

    /// The tensor that an input has in a step.
    fn input(&self, input: &InputDecl, step: usize) -> Value<f64> {
        if input.feed == Feed::Seed {
            return Value::u32([2], vec![self.seed as u32, (self.seed >> 32) as u32]);
        }
        let at = at_step(&input.name, step);
        self.given
            .get(&at)
            .or_else(|| self.given.get(&input.name))
            .cloned()
            .unwrap_or_else(|| unreachable!("`{}` was found to be given", input.name))
    }

    fn collect(&self, results: &mut Tensors, step: usize, name: &str, value: Value<f64>) {
        if self.steps > 1 {
            results.insert(at_step(name, step), value.clone());
        }
        results.insert(name.to_string(), value);
    }

    /// Runs the steps by the reference interpreter in f64, on the graph as it was declared.
    ///
    /// # Errors
    /// When the graph cannot be evaluated.
    pub fn run_reference(&self) -> Result<Tensors, ReplayError> {
        let mut states = Tensors::new();
        for entry in self.module.entries.iter().filter(|e| e.graph.name == INIT) {
            let bindings: Bindings<f64> = entry.inputs.iter().map(|i| (i.name.clone(), self.input(i, 0))).collect();
            states.extend(evaluate(&entry.graph, &bindings)?.updates);
        }
        let is_state = |name: &String| self.module.states.iter().any(|s| s.name == *name);
        states.extend(self.given.iter().filter(|(name, _)| is_state(name)).map(|(n, v)| (n.clone(), v.clone())));
        let mut graph = self.entry.graph.clone();
        differentiate(&mut graph);
        let mut results = Tensors::new();
        for step in 0..self.steps {
            let mut bindings: Bindings<f64> = states.clone();
            bindings.extend(self.entry.inputs.iter().map(|i| (i.name.clone(), self.input(i, step))));
            let evaluation = evaluate(&graph, &bindings)?;
            for (name, value) in evaluation.outputs {
                self.collect(&mut results, step, &name, value);
            }
            states.extend(evaluation.updates);
        }
        results.extend(states);
        Ok(results)
    }

    /// Compiles the entry and runs the steps on a device.
    ///
    /// # Errors
    /// When it cannot be compiled or run.
    pub fn run_on(&self, source: Source, device: &dyn Device) -> Result<Tensors, ReplayError> {
        let options = Options::of(&source);
        let plan = compile_module(self.module.clone(), source, &options)?;
        let mut executor = device.load(Arc::new(plan))?;
        let entries: Vec<(usize, String, Vec<InputDecl>)> =
            (executor.plan().entries.iter().enumerate()).map(|(i, e)| (i, e.name.clone(), e.inputs.clone())).collect();
        let mut results = Tensors::new();
        let run = |executor: &mut dyn Executor, index: usize, inputs: &[InputDecl], step: usize| {
            let values: Vec<Tensor> = inputs.iter().map(|i| self.input(i, step).to_tensor(i.ty.dtype)).collect();
            let values: Vec<TensorRef> = values.iter().map(Tensor::view).collect();
            executor.submit(index, &values)
        };
        for (index, _, inputs) in entries.iter().filter(|(_, name, _)| name == INIT && *name != self.entry.graph.name) {
            run(executor.as_mut(), *index, inputs, 0)?;
        }
        for (i, state) in self.module.states.iter().enumerate() {
            if let Some(value) = self.given.get(&state.name) {
                executor.write_state(i, value.to_tensor(state.ty.dtype).view())?;
            }
        }
        for (index, _, inputs) in entries.iter().filter(|(_, name, _)| *name == self.entry.graph.name) {
            let outputs = executor.plan().entries[*index].schedule.outputs.clone();
            for step in 0..self.steps {
                run(executor.as_mut(), *index, inputs, step)?;
                for (i, output) in outputs.iter().enumerate() {
                    let dtype = executor.plan().entries[*index].schedule.buffers[output.buffer.index()].dtype;
                    let mut tensor = Tensor::zeros(Type::new(dtype, output.shape.clone()));
                    executor.read_output(*index, i, tensor.view_mut())?;
                    self.collect(&mut results, step, &output.name, Value::from_tensor(&tensor));
                }
            }
        }
        for (i, state) in self.module.states.iter().enumerate() {
            let mut tensor = Tensor::zeros(state.ty.clone());
            executor.read_state(i, tensor.view_mut())?;
            results.insert(state.name.clone(), Value::from_tensor(&tensor));
        }
        Ok(results)
    }
}

/// A file of tensors that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TensorsError {
    #[error("this is not a safetensors file, or is incomplete ({0})")]
    File(#[from] SafeTensorError),
    #[error("`{name}` is {found:?}; f64, f32, bf16, u32, i64 and i32 are read")]
    Dtype { name: String, found: Dtype },
    #[error("`{0}` has values that do not fit in u32")]
    Range(String),
}

/// The tensors in the bytes of a safetensors file, as [`Replay::new`] takes them.
///
/// # Errors
/// When the bytes are something else, or hold what no input is.
pub fn decode_tensors(bytes: &[u8]) -> Result<Tensors, TensorsError> {
    fn numbers<const N: usize, T>(data: &[u8], from: fn([u8; N]) -> T) -> Vec<T> {
        data.as_chunks::<N>().0.iter().map(|chunk| from(*chunk)).collect()
    }
    let mut given = Tensors::new();
    for (name, view) in SafeTensors::deserialize(bytes)?.iter() {
        let (shape, data) = (view.shape().to_vec(), view.data());
        let words = |values: Vec<i64>| -> Result<Vec<u32>, TensorsError> {
            let small = values.into_iter().map(u32::try_from).collect::<Result<_, _>>();
            small.map_err(|_| TensorsError::Range(name.to_string()))
        };
        let value = match view.dtype() {
            Dtype::F64 => Value::real(shape, numbers(data, f64::from_le_bytes)),
            Dtype::F32 => Value::real(shape, numbers(data, |b| f64::from(f32::from_le_bytes(b)))),
            Dtype::BF16 => Value::real(shape, numbers(data, |b| Bf16(u16::from_le_bytes(b)).to_f32().into())),
            Dtype::U32 => Value::u32(shape, numbers(data, u32::from_le_bytes)),
            Dtype::I64 => Value::u32(shape, words(numbers(data, i64::from_le_bytes))?),
            Dtype::I32 => Value::u32(shape, words(numbers(data, |b| i64::from(i32::from_le_bytes(b))))?),
            found => return Err(TensorsError::Dtype { name: name.to_string(), found }),
        };
        given.insert(name.to_string(), value);
    }
    Ok(given)
}
