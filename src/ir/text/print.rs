//! Graphs and modules as text.

use super::Number;
use crate::ir::verify::is_legal_name;
use crate::ir::{Distribution, Feed, Graph, Initialiser, Module, NodeId, Op, Origin, Role, StateRole};
use crate::winograd::Axis;
use std::fmt::{self, Write};

/// How graphs are printed. `Display` of a graph is that of the default printer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Printer {
    /// Whether each node's line ends in its origin. What is printed with origins reads back to an equal
    /// graph.
    pub origins: bool,
}

impl Printer {
    /// A whole graph, in several lines.
    pub fn graph(&self, graph: &Graph) -> String {
        self.text(|out| self.write_graph(out, graph))
    }

    /// The line of one node, without indentation.
    pub fn node(&self, graph: &Graph, id: NodeId) -> String {
        self.text(|out| self.write_node(out, graph, id))
    }

    /// A whole module: its states, then each entry's inputs and graph.
    pub fn module(&self, module: &Module) -> String {
        self.text(|out| self.write_module(out, module))
    }

    fn text(&self, write: impl FnOnce(&mut String) -> fmt::Result) -> String {
        let mut out = String::new();
        write(&mut out).expect("writing to a string succeeds");
        out
    }

    fn write_graph(&self, out: &mut dyn Write, graph: &Graph) -> fmt::Result {
        writeln!(out, "graph {} {{", Label(&graph.name))?;
        for id in graph.display_order() {
            out.write_str("  ")?;
            self.write_node(out, graph, id)?;
            out.write_str("\n")?;
        }
        let name = |id: NodeId| if graph.contains(id) { graph.node(id).name.as_str() } else { "(removed)" };
        for output in &graph.outputs {
            writeln!(out, "  output {} = %{}", Label(&output.name), Label(name(output.node)))?;
        }
        for update in &graph.updates {
            writeln!(out, "  update {:?} = %{}", update.state, Label(name(update.node)))?;
        }
        for probe in &graph.probes {
            writeln!(out, "  probe {:?} = %{}", probe.name, Label(name(probe.node)))?;
        }
        out.write_str("}\n")
    }

    fn write_node(&self, out: &mut dyn Write, graph: &Graph, id: NodeId) -> fmt::Result {
        let node = graph.node(id);
        write!(out, "%{}: {} = {}", Label(&node.name), node.ty, node.op.name())?;
        match &node.op {
            Op::Input { name, .. } | Op::State { name, .. } => write!(out, " {name:?}")?,
            Op::Constant { value, .. } => write!(out, " {}", Number(value.0))?,
            Op::Random { distribution, stream, .. } => {
                match distribution {
                    Distribution::Uniform => out.write_str(" uniform")?,
                    Distribution::Normal => out.write_str(" normal")?,
                    Distribution::Bernoulli(p) => write!(out, " bernoulli({})", Number(p.0))?,
                }
                write!(out, " {stream:?}")?;
            }
            _ => {}
        }
        for operand in graph.operands(id) {
            write!(out, " %{}", Label(&graph.node(operand).name))?;
        }
        write_attributes(out, &node.op)?;
        if self.origins && node.origin != Origin::default() {
            write_origin(out, &node.origin)?;
        }
        Ok(())
    }

    fn write_module(&self, out: &mut dyn Write, module: &Module) -> fmt::Result {
        writeln!(out, "module {} {{", Label(&module.name))?;
        for state in &module.states {
            let role = match state.role {
                StateRole::Parameter => "parameter",
                StateRole::Statistic => "statistic",
                StateRole::Optimiser => "optimiser",
                StateRole::Counter => "counter",
                StateRole::NonFinite => "flag",
                StateRole::Average => "average",
            };
            write!(out, "  state {:?}: {} = ", state.name, state.ty)?;
            match state.init {
                Initialiser::Constant(value) => write!(out, "constant {}", Number(value))?,
                Initialiser::Uniform { limit } => write!(out, "uniform {}", Number(limit))?,
                Initialiser::Normal { deviation } => write!(out, "normal {}", Number(deviation))?,
                Initialiser::Direction => write!(out, "direction")?,
            }
            writeln!(out, "  # {role}")?;
        }
        for entry in &module.entries {
            writeln!(out)?;
            for input in &entry.inputs {
                let feed = match input.feed {
                    Feed::Images => "images",
                    Feed::Labels => "labels",
                    Feed::Seed => "seed",
                    Feed::Caller => "caller",
                };
                writeln!(out, "  input {:?}: {} = {feed}  # {}", input.name, input.ty, input.meaning)?;
            }
            for line in self.graph(&entry.graph).lines() {
                writeln!(out, "  {line}")?;
            }
        }
        out.write_str("}\n")
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer::default().write_graph(f, self)
    }
}

/// The text form: petgraph's own output is hard to read.
impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What of an operation neither its name, nor its payload, nor its result's type says.
fn write_attributes(out: &mut dyn Write, op: &Op) -> fmt::Result {
    match op {
        Op::Input { .. }
        | Op::State { .. }
        | Op::Constant { .. }
        | Op::Random { .. }
        | Op::Scalar(_)
        | Op::Reshape { .. }
        | Op::Broadcast { .. }
        | Op::Convert { .. }
        | Op::MatMul
        | Op::Detach
        | Op::Gradient => Ok(()),
        Op::Iota { axis, .. } | Op::Concat { axis } => write!(out, " axis={axis}"),
        Op::Transpose { permutation } => write!(out, " permutation={}", List(permutation)),
        Op::Pad { low, high } => write!(out, " low={} high={}", List(low), List(high)),
        Op::Slice { start, end } => write!(out, " start={} end={}", List(start), List(end)),
        Op::Reverse { axes } | Op::Reduce { axes, .. } => write!(out, " axes={}", List(axes)),
        Op::Conv2d { window } => write!(out, " stride={} pad={}", List(&window.stride), List(&window.pad)),
        Op::Conv2dInputGrad { window, size } => {
            write!(out, " stride={} pad={} size={}", List(&window.stride), List(&window.pad), List(size))
        }
        Op::Im2col { window, kernel } | Op::Conv2dFilterGrad { window, kernel } => {
            write!(out, " stride={} pad={} kernel={}", List(&window.stride), List(&window.pad), List(kernel))
        }
        Op::Col2im { window, kernel, size } => {
            write!(out, " stride={} pad={} kernel={}", List(&window.stride), List(&window.pad), List(kernel))?;
            write!(out, " size={}", List(size))
        }
        Op::Winograd(transform) => {
            let of = |size: fn(&Axis) -> usize| transform.axes.map(|axis| size(&axis));
            write!(out, " input={} kernel={}", List(&of(|a| a.input)), List(&of(|a| a.kernel)))?;
            write!(out, " stride={} pad={}", List(&of(|a| a.stride)), List(&of(|a| a.pad)))?;
            write!(out, " output={} tile={}", List(&of(|a| a.output)), List(&of(|a| a.tile)))
        }
    }
}

fn write_origin(out: &mut dyn Write, origin: &Origin) -> fmt::Result {
    out.write_str("  #")?;
    if !origin.scope.is_empty() {
        write!(out, " {}", Label(&origin.scope))?;
    }
    if let Some(span) = origin.span {
        write!(out, " @{}..{}", span.start, span.end)?;
    }
    match &origin.role {
        Role::Forward => Ok(()),
        Role::Gradient(of) => write!(out, " gradient({})", Label(of)),
        Role::Optimiser(of) => write!(out, " optimiser({})", Label(of)),
    }
}

/// A name: bare where it is a legal one that does not look like a comment, else in quotes.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legal_name(self.0) && !self.0.starts_with("//") { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}

/// Sizes or axes: `[1,2]`.
struct List<'a>(&'a [usize]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, value) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{value}")?;
        }
        f.write_str("]")
    }
}
