//! Graphs as plans, and on the interpreter.

use crate::compile::Options;
use crate::ir::{Bindings, Data, Element, Graph, Op, Value, evaluate};
use crate::kernel::target::Target;
use crate::passes::{PassContext, operand_precision};
use crate::plan::{self, EntryPlan, Plan};
use crate::schedule::states::{lay_out_states, with_copies};
use crate::schedule::{Strategy, schedule};
use crate::tensor::{Tensor, Type};
use crate::types::{Feed, Initialiser, InputDecl, StateDecl, StateRole};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Outputs of each run, as `output NAME of run N`, and the state after the last, as `state NAME`.
pub type Results = BTreeMap<String, Vec<f64>>;

/// The state tensors of some graphs.
fn states_of(graphs: &[Graph]) -> BTreeMap<String, Type> {
    let mut states = BTreeMap::new();
    for graph in graphs {
        for id in graph.ids() {
            if let Op::State { name, ty } = graph.op(id) {
                states.insert(name.clone(), ty.clone());
            }
        }
        for update in &graph.updates {
            states.insert(update.state.clone(), graph.ty(update.node).clone());
        }
    }
    states
}

/// A plan of one graph as it stands: its inputs are the caller's, its state starts at zero.
///
/// # Panics
/// When the graph can't be scheduled.
pub fn plan_of(graph: &Graph, strategy: impl Into<Strategy>) -> Arc<Plan> {
    let graphs = std::slice::from_ref(graph);
    plan_of_all(graphs, strategy.into()).unwrap_or_else(|problem| panic!("{}: {problem}", graph.name))
}

/// A plan with an entry for each graph as it stands but for the precision of its contractions, which passes its
/// verification.
///
/// # Errors
/// When a graph can't be scheduled, or the plan does not pass.
pub fn plan_of_all(graphs: &[Graph], strategy: Strategy) -> Result<Arc<Plan>, String> {
    let matrices_alone = strategy.target == Target::Cpu;
    let context = PassContext { operands: strategy.rounding(), matrices_alone, ..PassContext::default() };
    let mut graphs = graphs.to_vec();
    if context.operands.is_some() {
        for graph in &mut graphs {
            operand_precision(graph, &context);
        }
    }
    let init = Initialiser::Constant(0.0);
    let states: Vec<StateDecl> = (states_of(&graphs).into_iter())
        .map(|(name, ty)| StateDecl { name, ty, role: StateRole::Parameter, init, span: None })
        .collect();
    let layout =
        lay_out_states(&states, &graphs.iter().collect::<Vec<_>>(), &strategy).map_err(|_| "too much state")?;
    graphs.iter_mut().for_each(|graph| with_copies(graph, &layout));
    let entries = (graphs.iter())
        .map(|graph| {
            let input = |name: &String, ty: &Type| InputDecl {
                name: name.clone(),
                ty: ty.clone(),
                feed: Feed::Caller,
                below: None,
                from_end: false,
                meaning: String::new(),
            };
            let inputs = (graph.topological().into_iter())
                .filter_map(|id| match graph.op(id) {
                    Op::Input { name, ty } => Some(input(name, ty)),
                    _ => None,
                })
                .collect();
            let schedule = schedule(graph, &layout, strategy).map_err(|e| e.to_string())?;
            Ok(EntryPlan { name: graph.name.clone(), sizes: vec![], inputs, schedule })
        })
        .collect::<Result<_, String>>()?;
    let Strategy { fusion, target, precision, .. } = strategy;
    let source = Options { fusion, target, precision, ..Options::default() }.source("conformance.ron", "");
    let plan = Plan { name: "conformance".into(), source, states, state_layout: layout, entries, device_code: None };
    plan::verify(&plan).map_err(|e| format!("what was compiled does not pass its verification: {e}"))?;
    Ok(Arc::new(plan))
}

pub fn output_name(name: &str, run: usize) -> String {
    format!("output {name} of run {run}")
}

pub fn state_name(name: &str) -> String {
    format!("state {name}")
}

/// The run that a result is of; none for the state, which is read after the last.
pub fn run_of(result: &str) -> Option<usize> {
    result.strip_prefix("output ")?.rsplit_once(" of run ")?.1.parse().ok()
}

/// The value of an input in a run: its own, or that of all runs.
///
/// # Errors
/// When there is none.
pub fn given<'g, T>(given: &'g Bindings<T>, run: usize, name: &str) -> Result<&'g Value<T>, String> {
    let found = given.get(&format!("{name}@{run}")).or_else(|| given.get(name));
    found.ok_or_else(|| format!("the case gives no value for `{name}`"))
}

/// All elements of a tensor.
pub fn numbers(tensor: &Tensor) -> Vec<f64> {
    Value::<f32>::from_tensor(tensor).to_f64()
}

/// What the interpreter makes of the same.
pub fn reference<T: Element>(graphs: &[Graph], given: &Bindings<f32>, runs: &[usize]) -> Result<Results, String> {
    let convert = |value: &Value<f32>| {
        let data = match &value.data {
            Data::Real(values) => Data::Real(values.iter().map(|&v| T::from_f64(v.into())).collect()),
            Data::U32(values) => Data::U32(values.clone()),
        };
        Value { shape: value.shape.clone(), data }
    };
    let mut bindings: Bindings<T> = given.iter().map(|(name, value)| (name.clone(), convert(value))).collect();
    let mut results = Results::new();
    for (number, &entry) in runs.iter().enumerate() {
        for id in graphs[entry].ids() {
            if let Op::Input { name, .. } = graphs[entry].op(id)
                && let Some(value) = given.get(&format!("{name}@{number}"))
            {
                bindings.insert(name.clone(), convert(value));
            }
        }
        let evaluation = evaluate(&graphs[entry], &bindings).map_err(|e| e.to_string())?;
        for (name, value) in evaluation.outputs {
            results.insert(output_name(&name, number), value.to_f64());
        }
        bindings.extend(evaluation.updates);
    }
    for name in states_of(graphs).into_keys() {
        if let Some(value) = bindings.get(&name) {
            results.insert(state_name(&name), value.to_f64());
        }
    }
    Ok(results)
}
