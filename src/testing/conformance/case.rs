//! What is computed, as data: a case is graphs with values; a trial is a case compiled in one way, with what must come out.

use super::reference::{self, Results};
use crate::ir::{Bindings, Graph, Op};
use crate::kernel::target::Strategy;
use crate::plan::Plan;
use crate::tensor::Tensor;
use std::sync::Arc;

/// How near a device must come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Agreement {
    /// The bits of the interpreter in f32, any NaN for any other.
    Exact,
    /// Each element within this part of the tensor's greatest magnitude, or of 1 where that is greater, from the interpreter
    /// in f64: for sums, whose order is a device's own.
    Near(f64),
    /// Each element within this part of its own magnitude from the interpreter in f32, with 1e-7 to spare where functions
    /// have zeros; NaN and infinities where that has them.
    Each(f64),
    /// As [`Agreement::Near`], but from the interpreter in f32: NaN and infinities where that has them.
    Special(f64),
}

/// What a device's precision adds to what cases allow. Cases in which it plays no part stay as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerances {
    /// Of results of cases with contractions, relative to a tensor's greatest magnitude.
    pub products: f64,
    /// Of functions that IEEE 754 does not round (`exp`, `tanh`), relative to each element.
    pub functions: f64,
}

impl Tolerances {
    /// Products and sums in f32.
    pub const F32: Tolerances = Tolerances { products: 0.0, functions: 0.0 };
    /// Operands of contractions rounded to the 11 significant bits of TF32, sums in f32.
    pub const TF32: Tolerances = Tolerances { products: 1e-3, functions: 0.0 };
    /// Operands of contractions rounded to the 8 significant bits of bf16, sums in f32.
    pub const BF16: Tolerances = Tolerances { products: 1e-2, functions: 0.0 };
}

/// Entries that share their state, with values, and how their results are compared. For no target yet.
#[derive(Debug, Clone)]
pub struct Case {
    /// `group/case`; no other has it.
    pub name: String,
    /// What is compiled, an entry each.
    pub graphs: Vec<Graph>,
    /// What the interpreter evaluates instead, where it is not the same: a program as it was declared.
    pub declared: Option<Vec<Graph>>,
    /// Another form whose results are as right, element by element.
    pub alternative: Option<Vec<Graph>>,
    /// Inputs and state before the first run, by name. `x@2` is input `x` of the run of that number only.
    pub given: Bindings<f32>,
    /// Which entries are run, in order.
    pub runs: Vec<usize>,
    pub agreement: Agreement,
    /// From the run of this number on, and for the state: another agreement, for what rounding grows to.
    pub later: Option<(usize, Agreement)>,
}

/// What must come out.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    pub results: Results,
    pub alternative: Option<Results>,
}

/// A case compiled in one way.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The case's.
    pub name: String,
    /// In which of the ways it was compiled.
    pub way: String,
    pub plan: Arc<Plan>,
    /// Indices into the plan's states, with their values before the first run. The others are zero.
    pub states: Vec<(usize, Tensor)>,
    /// Indices into the plan's entries, with the inputs in the entry's order.
    pub runs: Vec<(usize, Vec<Tensor>)>,
    pub expected: Arc<Expected>,
    pub agreement: Agreement,
    pub later: Option<(usize, Agreement)>,
}

impl Case {
    /// One graph that runs once.
    pub fn of(name: impl Into<String>, graph: Graph, given: Bindings<f32>, agreement: Agreement) -> Case {
        Case {
            name: name.into(),
            graphs: vec![graph],
            declared: None,
            alternative: None,
            given,
            runs: vec![0],
            agreement,
            later: None,
        }
    }

    /// The same, run so often.
    pub fn repeated(mut self, times: usize) -> Case {
        self.runs = vec![0; times];
        self
    }

    /// Compiles it in each of the ways, and evaluates it by the interpreter.
    ///
    /// # Errors
    /// When a graph can't be scheduled or evaluated, or a plan does not pass its verification.
    pub fn compile(&self, ways: &[(&str, Strategy)], tolerances: &Tolerances) -> Result<Vec<Trial>, String> {
        let evaluated = self.declared.as_ref().unwrap_or(&self.graphs);
        let evaluate = |graphs: &[Graph]| match self.agreement {
            Agreement::Near(_) => reference::reference::<f64>(graphs, &self.given, &self.runs),
            Agreement::Exact | Agreement::Each(_) | Agreement::Special(_) => {
                reference::reference::<f32>(graphs, &self.given, &self.runs)
            }
        };
        let alternative = self.alternative.as_ref().map(|graphs| evaluate(graphs)).transpose()?;
        let expected = Arc::new(Expected { results: evaluate(evaluated)?, alternative });
        let (agreement, later) = self.tolerated(tolerances);
        let trial = |(way, strategy): &(&str, Strategy)| {
            let (name, way) = (self.name.clone(), way.to_string());
            let plan = reference::plan_of_all(&self.graphs, *strategy).map_err(|e| format!("{way}: {e}"))?;
            let states = (plan.states.iter().enumerate())
                .filter_map(|(i, s)| Some((i, self.given.get(&s.name)?.to_tensor(s.ty.dtype))))
                .collect();
            let inputs = |number: usize, entry: usize| {
                let inputs = plan.entries[entry].inputs.iter();
                let value = |name: &str| reference::given(&self.given, number, name);
                inputs.map(|i| Ok(value(&i.name)?.to_tensor(i.ty.dtype))).collect::<Result<_, String>>()
            };
            let runs = (self.runs.iter().enumerate())
                .map(|(number, &entry)| Ok((entry, inputs(number, entry)?)))
                .collect::<Result<_, String>>()?;
            Ok(Trial { name, way, plan, states, runs, expected: expected.clone(), agreement, later })
        };
        ways.iter().map(trial).collect()
    }

    /// How near results must come with a device's tolerances.
    fn tolerated(&self, tolerances: &Tolerances) -> (Agreement, Option<(usize, Agreement)>) {
        let contracts = |g: &Graph| g.ids().into_iter().any(|id| g.op(id).is_contraction());
        let products = if self.graphs.iter().any(contracts) { tolerances.products } else { 0.0 };
        let calls = |op: &Op| matches!(op, Op::Scalar(op) if !super::scalars::is_rounded(*op));
        let has_calls = |g: &Graph| g.ids().into_iter().any(|id| calls(g.op(id)));
        let functions = if self.graphs.iter().any(has_calls) { tolerances.functions } else { 0.0 };
        let more = |agreement: Agreement| match agreement {
            Agreement::Exact => Agreement::Exact,
            Agreement::Near(part) => Agreement::Near(part + products + functions),
            Agreement::Special(part) => Agreement::Special(part + products + functions),
            Agreement::Each(part) => Agreement::Each(part + functions),
        };
        (more(self.agreement), self.later.map(|(run, agreement)| (run, more(agreement))))
    }
}

impl Trial {
    /// How near the result of this name must come.
    pub(super) fn agreement_of(&self, result: &str) -> Agreement {
        match self.later {
            Some((from, later)) if reference::run_of(result).is_none_or(|run| run >= from) => later,
            _ => self.agreement,
        }
    }
}
