//! Text back to a graph.

use super::scan::{ParseError, Place, Scanner};
use crate::ir::{DType, Distribution, Graph, NodeId, Op, Origin, Output, Probe, Real, ReduceKind, Role};
use crate::ir::{Span, Type, Update, Window};
use crate::scalar::ScalarOp;
use crate::winograd::{Axis, Direction, Part, Transform};
use std::collections::HashMap;

/// Reads a graph.
///
/// # Errors
/// Where the text is not a graph: the first place, with what was expected there.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut parser = Parser { scan: Scanner::new(text), graph: Graph::default(), nodes: HashMap::new() };
    parser.graph()?;
    Ok(parser.graph)
}

struct Parser<'t> {
    scan: Scanner<'t>,
    graph: Graph,
    nodes: HashMap<String, NodeId>,
}

/// A value `key=1` or `key=[1,2]`.
struct Attribute {
    place: Place,
    key: String,
    values: Vec<usize>,
    is_list: bool,
}

/// Operands and attributes of one node; each attribute is taken out as it is used.
struct Arguments {
    /// Of the operation.
    place: Place,
    operands: Vec<NodeId>,
    attributes: Vec<Attribute>,
}

impl Parser<'_> {
    fn graph(&mut self) -> Result<(), ParseError> {
        self.scan.skip_lines();
        let place = self.scan.place();
        if self.scan.word("`graph`")? != "graph" {
            return Err(place.error("expected `graph`"));
        }
        self.graph.name = self.scan.label("the graph's name")?;
        self.scan.expect('{')?;
        self.end_of_line()?;
        loop {
            self.scan.skip_lines();
            match self.scan.peek() {
                Some('}') => break,
                Some('%') => self.node()?,
                _ => self.result()?,
            }
        }
        self.scan.expect('}')?;
        self.scan.skip_lines();
        match self.scan.peek() {
            None => Ok(()),
            Some(_) => Err(self.scan.unexpected("nothing after the graph")),
        }
    }

    /// The end of the line, or of a graph on one line. What it ends stays for the next.
    fn end_of_line(&mut self) -> Result<(), ParseError> {
        match self.scan.peek() {
            None | Some('\n' | '}') => Ok(()),
            Some(_) => Err(self.scan.unexpected("the end of the line")),
        }
    }

    fn result(&mut self) -> Result<(), ParseError> {
        const EXPECTED: &str = "a node `%name`, `output`, `update`, `probe` or `}`";
        let place = self.scan.place();
        let kind = self.scan.word(EXPECTED)?;
        if !matches!(kind, "output" | "update" | "probe") {
            return Err(place.error(format!("expected {EXPECTED}, found `{kind}`")));
        }
        let name = self.scan.label(&format!("the {kind}'s name"))?;
        self.scan.expect('=')?;
        let node = self.operand()?;
        match kind {
            "output" => self.graph.outputs.push(Output { name, node }),
            "update" => self.graph.updates.push(Update { state: name, node }),
            _ => self.graph.probes.push(Probe { name, node }),
        }
        self.end_of_line()
    }

    fn operand(&mut self) -> Result<NodeId, ParseError> {
        let place = self.scan.place();
        self.scan.expect('%')?;
        let name = self.scan.label("a node's name")?;
        let node = self.nodes.get(&name).copied();
        node.ok_or_else(|| place.error(format!("no node `%{name}` is defined before this line")))
    }

    fn node(&mut self) -> Result<(), ParseError> {
        let place = self.scan.place();
        self.scan.expect('%')?;
        let name = self.scan.label("a node's name")?;
        let ty = if self.scan.eat(':') { Some(self.ty()?) } else { None };
        self.scan.expect('=')?;
        let (op, operands) = self.operation(ty.as_ref())?;
        let origin = if self.scan.eat('#') { self.origin()? } else { Origin::default() };
        self.end_of_line()?;
        let id = (self.graph.add_exact(op, &operands, &name, ty.as_ref(), origin))
            .map_err(|error| place.error(error.to_string()))?;
        self.nodes.insert(name, id);
        Ok(())
    }

    fn ty(&mut self) -> Result<Type, ParseError> {
        let place = self.scan.place();
        let dtype = match self.scan.word("a type")? {
            "f32" => DType::F32,
            "u32" => DType::U32,
            "bf16" => DType::Bf16,
            other => return Err(place.error(format!("expected `f32`, `u32` or `bf16`, found `{other}`"))),
        };
        Ok(Type { dtype, shape: self.scan.sizes()? })
    }

    fn operation(&mut self, ty: Option<&Type>) -> Result<(Op, Vec<NodeId>), ParseError> {
        let place = self.scan.place();
        let name = self.scan.word("an operation")?;
        let declared = || {
            ty.cloned().ok_or_else(|| place.error(format!("expected a type before `{name}`: `%name: f32[2,3] = …`")))
        };
        // A payload stands directly after the operation's name.
        let op = match name {
            "input" => Some(Op::Input { name: self.scan.string("the input's name")?, ty: declared()? }),
            "state" => Some(Op::State { name: self.scan.string("the state's name")?, ty: declared()? }),
            "constant" => Some(Op::Constant { value: Real(self.scan.number("a number")?), ty: declared()? }),
            "random" => {
                let distribution = self.distribution()?;
                let stream = self.scan.string("the stream's name")?;
                let ty = declared()?;
                if ty.dtype != DType::F32 {
                    return Err(place.error(format!("a random draw is f32, not {}", ty.dtype)));
                }
                Some(Op::Random { distribution, stream, shape: ty.shape })
            }
            _ => None,
        };
        let mut args = self.arguments(place)?;
        let op = match op {
            Some(op) => op,
            None => args.operation(name, declared)?,
        };
        match args.attributes.first() {
            Some(rest) => Err(rest.place.error(format!("{name} has no attribute `{}`", rest.key))),
            None => Ok((op, args.operands)),
        }
    }

    fn distribution(&mut self) -> Result<Distribution, ParseError> {
        const EXPECTED: &str = "`uniform`, `normal` or `bernoulli(probability)`";
        let place = self.scan.place();
        match self.scan.word(EXPECTED)? {
            "uniform" => Ok(Distribution::Uniform),
            "normal" => Ok(Distribution::Normal),
            "bernoulli" => {
                self.scan.expect('(')?;
                let p = self.scan.number("a probability")?;
                self.scan.expect(')')?;
                Ok(Distribution::Bernoulli(Real(p)))
            }
            other => Err(place.error(format!("expected {EXPECTED}, found `{other}`"))),
        }
    }

    fn arguments(&mut self, place: Place) -> Result<Arguments, ParseError> {
        let mut args = Arguments { place, operands: Vec::new(), attributes: Vec::new() };
        loop {
            match self.scan.peek() {
                Some('%') => args.operands.push(self.operand()?),
                None | Some('\n' | '#' | '}') => return Ok(args),
                Some(_) => {
                    let place = self.scan.place();
                    let key = self.scan.word("an operand `%name`, an attribute `key=…` or the end of the line")?;
                    self.scan.expect('=')?;
                    let is_list = self.scan.peek() == Some('[');
                    let values =
                        if is_list { self.scan.sizes()? } else { vec![self.scan.size("a number or a list `[…]`")?] };
                    args.attributes.push(Attribute { place, key: key.to_string(), values, is_list });
                }
            }
        }
    }

    /// What follows `#`: scope, `@start..end`, role, all optional.
    fn origin(&mut self) -> Result<Origin, ParseError> {
        let mut origin = Origin::default();
        let mut place = self.scan.place();
        // A word is the scope, unless a parenthesis makes it the role.
        let mut role = None;
        if !matches!(self.scan.peek(), None | Some('\n' | '@')) {
            let quoted = self.scan.peek() == Some('"');
            let label = self.scan.label("a scope, `@start..end` or a role")?;
            if !quoted && self.scan.peek() == Some('(') {
                role = Some(label);
            } else {
                origin.scope = label;
            }
        }
        if role.is_none() && self.scan.eat('@') {
            let place = self.scan.place();
            let range = self.scan.word("a range `start..end`")?;
            let span = range
                .split_once("..")
                .and_then(|(start, end)| Some(Span { start: start.parse().ok()?, end: end.parse().ok()? }));
            origin.span =
                Some(span.ok_or_else(|| place.error(format!("expected a range `start..end`, found `{range}`")))?);
        }
        if role.is_none() && !matches!(self.scan.peek(), None | Some('\n')) {
            place = self.scan.place();
            role = Some(self.scan.word("a role or the end of the line")?.to_string());
        }
        if let Some(role) = role {
            let make = match role.as_str() {
                "gradient" => Role::Gradient,
                "optimiser" => Role::Optimiser,
                _ => return Err(place.error(format!("expected `gradient(…)` or `optimiser(…)`, found `{role}`"))),
            };
            self.scan.expect('(')?;
            origin.role = make(self.scan.label("what it belongs to")?);
            self.scan.expect(')')?;
        }
        Ok(origin)
    }
}

impl Arguments {
    /// An operation without payload.
    fn operation(&mut self, name: &str, ty: impl Fn() -> Result<Type, ParseError>) -> Result<Op, ParseError> {
        Ok(match name {
            "iota" => Op::Iota { axis: self.number("axis")?, ty: ty()? },
            "convert" => Op::Convert { to: ty()?.dtype },
            "reshape" => Op::Reshape { to: ty()?.shape },
            "transpose" => Op::Transpose { permutation: self.list("permutation")? },
            "broadcast" => Op::Broadcast { to: ty()?.shape },
            "pad" => Op::Pad { low: self.list("low")?, high: self.list("high")? },
            "slice" => Op::Slice { start: self.list("start")?, end: self.list("end")? },
            "concat" => Op::Concat { axis: self.number("axis")? },
            "reverse" => Op::Reverse { axes: self.list("axes")? },
            "reduce_sum" => Op::Reduce { kind: ReduceKind::Sum, axes: self.list("axes")? },
            "reduce_max" => Op::Reduce { kind: ReduceKind::Max, axes: self.list("axes")? },
            "reduce_deviations" => Op::Reduce { kind: ReduceKind::Deviations, axes: self.list("axes")? },
            "matmul" => Op::MatMul,
            "conv2d" => Op::Conv2d { window: self.window()? },
            "conv2d_input_grad" => Op::Conv2dInputGrad { window: self.window()?, size: self.pair("size")? },
            "conv2d_filter_grad" => Op::Conv2dFilterGrad { window: self.window()?, kernel: self.pair("kernel")? },
            "im2col" => Op::Im2col { window: self.window()?, kernel: self.pair("kernel")? },
            "col2im" => Op::Col2im { window: self.window()?, kernel: self.pair("kernel")?, size: self.pair("size")? },
            "detach" => Op::Detach,
            "gradient" => Op::Gradient,
            _ => match (ScalarOp::ALL.iter().find(|op| op.name() == name), self.transform(name)?) {
                (Some(&op), _) => Op::Scalar(op),
                (None, Some(transform)) => transform,
                (None, None) => return Err(self.place.error(format!("there is no operation `{name}`"))),
            },
        })
    }

    fn take(&mut self, key: &str, list: bool) -> Result<Attribute, ParseError> {
        let form = if list { format!("`{key}=[…]`") } else { format!("`{key}=…`") };
        let found = self.attributes.iter().position(|a| a.key == key);
        let index = found.ok_or_else(|| self.place.error(format!("expected an attribute {form}")))?;
        let attribute = self.attributes.remove(index);
        if attribute.is_list == list { Ok(attribute) } else { Err(attribute.place.error(format!("expected {form}"))) }
    }

    fn number(&mut self, key: &str) -> Result<usize, ParseError> {
        Ok(self.take(key, false)?.values[0])
    }

    fn list(&mut self, key: &str) -> Result<Vec<usize>, ParseError> {
        Ok(self.take(key, true)?.values)
    }

    fn pair(&mut self, key: &str) -> Result<[usize; 2], ParseError> {
        let attribute = self.take(key, true)?;
        let pair = <[usize; 2]>::try_from(attribute.values);
        pair.map_err(|_| attribute.place.error(format!("expected two numbers, `{key}=[1,1]`")))
    }

    /// One of the transforms of minimal filtering, where it is called so.
    fn transform(&mut self, name: &str) -> Result<Option<Op>, ParseError> {
        let all = Part::ALL.into_iter().flat_map(|part| Direction::ALL.map(|direction| (part, direction)));
        let axis = Axis { input: 0, kernel: 0, output: 0, stride: 0, pad: 0, tile: 0 };
        let mut transforms = all.map(|(part, direction)| Transform { part, direction, axes: [axis; 2] });
        let Some(mut transform) = transforms.find(|transform| transform.name() == name) else { return Ok(None) };
        let Window { stride, pad } = self.window()?;
        let [input, kernel, output] = [self.pair("input")?, self.pair("kernel")?, self.pair("output")?];
        let tile = self.pair("tile")?;
        for (d, axis) in transform.axes.iter_mut().enumerate() {
            let [input, kernel, output, stride, pad, tile] = [input, kernel, output, stride, pad, tile].map(|of| of[d]);
            *axis = Axis { input, kernel, output, stride, pad, tile };
        }
        Ok(Some(Op::Winograd(transform)))
    }

    fn window(&mut self) -> Result<Window, ParseError> {
        Ok(Window { stride: self.pair("stride")?, pad: self.pair("pad")? })
    }
}
