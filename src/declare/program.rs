//! A program as it is written: its declarations, each with its place.

use super::diagnostic::{Diagnostic, Span};
use super::ron::decode::Decoder;
use super::ron::{Name, Node, Value};
use super::rows::{Arg, Kind, Param, Row, find, names as row_names};
use crate::ir::{DType, Feed, INIT};
use std::collections::BTreeMap;

/// `Program(name, sizes, values, networks, functions, entries)`.
#[derive(Debug)]
pub struct Program<'n> {
    pub name: String,
    pub sizes: Vec<(Name, &'n Node)>,
    pub values: Vec<(Name, &'n Node)>,
    pub networks: Vec<Network<'n>>,
    pub functions: Vec<Function<'n>>,
    pub entries: Vec<Entry<'n>>,
}

/// `Network(input: [sizes], layers: [layers], init: weights)`; sizes are without the batch.
#[derive(Debug)]
pub struct Network<'n> {
    pub name: Name,
    pub input: &'n Node,
    pub layers: &'n [Node],
    /// How weights start, where it is said.
    pub init: Option<&'n Node>,
}

/// `Function(params: [names], body: expression)`.
#[derive(Debug)]
pub struct Function<'n> {
    pub name: Name,
    pub params: Vec<Name>,
    pub body: &'n Node,
}

/// `Entry(inputs: {name: input}, steps: [steps], outputs: [names])`.
#[derive(Debug)]
pub struct Entry<'n> {
    pub name: Name,
    pub inputs: Vec<Input<'n>>,
    pub steps: &'n [Node],
    pub outputs: Vec<Name>,
    /// Where the field `outputs` stands.
    pub outputs_span: Span,
}

/// What an input is: who gives it, and the names of its dimensions where they are laid down.
#[derive(Debug, Clone, Copy)]
pub struct InputType {
    pub feed: Feed,
    pub dtype: DType,
    pub form: Option<&'static [&'static str]>,
    /// For `gcc-gan inputs`, where the program has no words of its own.
    pub meaning: &'static str,
}

const SHAPE: Param = Param { name: "shape", kind: Kind::Sizes, default: None };
const MEANING: Param =
    Param { name: "meaning", kind: Kind::Written("words for `gcc-gan inputs`"), default: Some(|| Arg::Written) };

/// The kinds of inputs.
pub const INPUTS: &[Row<InputType>] = &[
    Row {
        name: "Images",
        params: &[SHAPE, MEANING],
        meaning: "Images of the data set in [-1, 1]: [examples, channels, height, width].",
        example: r#""images": Images(["batch", 1, 28, 28])"#,
        expand: InputType {
            feed: Feed::Images,
            dtype: DType::F32,
            form: Some(&["examples", "channels", "height", "width"]),
            meaning: "images of the data set, in [-1, 1]",
        },
    },
    Row {
        name: "Labels",
        params: &[SHAPE, MEANING],
        meaning: "Class labels of the data set, u32[examples].",
        example: r#""labels": Labels(["batch"])"#,
        expand: InputType {
            feed: Feed::Labels,
            dtype: DType::U32,
            form: Some(&["examples"]),
            meaning: "class labels of the data set",
        },
    },
    Row {
        name: "Tensor",
        params: &[SHAPE, MEANING],
        meaning: "Numbers of any shape, given by whoever runs the entry.",
        example: r#""noise": Tensor(["samples", 64], "standard normal noise")"#,
        expand: InputType { feed: Feed::Caller, dtype: DType::F32, form: None, meaning: "given by the caller" },
    },
];

/// One input of an entry.
#[derive(Debug)]
pub struct Input<'n> {
    pub name: Name,
    pub ty: InputType,
    pub shape: &'n Node,
    pub meaning: Option<&'n str>,
    pub span: Span,
}

impl Input<'_> {
    /// The name of the size of the first dimension, where the input comes from a data set.
    pub fn examples(&self) -> Option<String> {
        if matches!(self.ty.feed, Feed::Images | Feed::Labels) { self.leading() } else { None }
    }

    /// The name of the size of the first dimension, whoever gives the input.
    pub fn leading(&self) -> Option<String> {
        let Value::List(sizes) = &self.shape.value else { return None };
        let Value::Str(name) = &sizes.first()?.value else { return None };
        Some(name.clone())
    }
}

/// Names that nodes are made of.
pub fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

impl<'n> Program<'n> {
    /// `None` where the frame itself cannot be made out; what is wrong is in `d`.
    pub fn decode(tree: &'n Node, d: &mut Decoder) -> Option<Program<'n>> {
        let (name, mut args) = d.call(tree, "a program")?;
        if name.text != "Program" {
            d.report(
                Diagnostic::new("not-a-program", format!("`{}` is not a program", name.text))
                    .label(name.span, "expected `Program(...)`"),
            );
            return None;
        }
        let title = args.required(d, "name");
        let sizes = args.optional("sizes");
        let values = args.optional("values");
        let networks = args.optional("networks");
        let functions = args.optional("functions");
        let entries = args.required(d, "entries");
        args.finish(d);
        let mut map = |node: Option<&'n Node>, what: &str| -> Vec<(Name, &'n Node)> {
            let named = node.and_then(|n| d.named_map(n, what)).unwrap_or_default();
            checked(named, d)
        };
        let (sizes, values) = (map(sizes, "`sizes`"), map(values, "`values`"));
        let (networks, functions) = (map(networks, "`networks`"), map(functions, "`functions`"));
        let entries = map(entries, "`entries`");
        distinct(d, &[("a size", &sizes), ("a value", &values)]);
        distinct(d, &[("a network", &networks), ("a function", &functions)]);
        let program = Program {
            name: title.and_then(|n| program_name(n, d)).unwrap_or_default(),
            sizes,
            values,
            networks: networks.into_iter().filter_map(|(name, node)| Network::decode(name, node, d)).collect(),
            functions: functions.into_iter().filter_map(|(name, node)| Function::decode(name, node, d)).collect(),
            entries: entries.into_iter().filter_map(|(name, node)| Entry::decode(name, node, d)).collect(),
        };
        d.diags.is_empty().then_some(program)
    }

    /// Whether a size or value has that name already; reports it where so.
    pub fn is_number(&self, name: &Name, d: &mut Decoder) -> bool {
        for (what, names) in [("a size", &self.sizes), ("a value of the program", &self.values)] {
            if let Some((first, _)) = names.iter().find(|(n, _)| n.text == name.text) {
                duplicate(d, &name.text, name.span, &format!("{what} already"), first.span);
                return true;
            }
        }
        false
    }

    pub fn network(&self, name: &str) -> Option<&Network<'n>> {
        self.networks.iter().find(|n| n.name.text == name)
    }

    pub fn function(&self, name: &str) -> Option<&Function<'n>> {
        self.functions.iter().find(|f| f.name.text == name)
    }
}

fn program_name(node: &Node, d: &mut Decoder) -> Option<String> {
    let name = d.str(node, "`name`")?;
    if is_identifier(name) {
        return Some(name.to_string());
    }
    bad_name(name, node.span, d);
    None
}

/// Reports a name that is not valid.
pub fn bad_name(name: &str, span: Span, d: &mut Decoder) {
    d.report(
        Diagnostic::new("bad-name", format!("`{name}` is not a valid name"))
            .label(span, "letters, digits and any of `_ - .`, starting with a letter"),
    );
}

/// The entries whose names are names.
fn checked<'n>(named: Vec<(Name, &'n Node)>, d: &mut Decoder) -> Vec<(Name, &'n Node)> {
    let mut fine = Vec::new();
    for (name, node) in named {
        if is_identifier(&name.text) {
            fine.push((name, node));
        } else {
            bad_name(&name.text, name.span, d);
        }
    }
    fine
}

/// Reports names that stand for two things that are referred to in the same way.
fn distinct(d: &mut Decoder, groups: &[(&str, &[(Name, &Node)])]) {
    let mut seen: BTreeMap<&str, (&str, Span)> = BTreeMap::new();
    for (what, names) in groups {
        for (name, _) in *names {
            if let Some((first, span)) = seen.insert(&name.text, (what, name.span)) {
                duplicate(d, &name.text, name.span, &format!("{first} and {what}"), span);
            }
        }
    }
}

/// Reports a name that is given twice.
pub fn duplicate(d: &mut Decoder, name: &str, span: Span, what: &str, first: Span) {
    d.report(
        Diagnostic::new("duplicate-name", format!("`{name}` is the name of {what}"))
            .label(span, "given again here")
            .label(first, "first given here"),
    );
}

impl<'n> Network<'n> {
    fn decode(name: Name, node: &'n Node, d: &mut Decoder) -> Option<Network<'n>> {
        let mut args = named_struct(node, "Network", d)?;
        let input = args.required(d, "input");
        let layers = args.required(d, "layers").and_then(|n| d.list(n, "`layers`"));
        let init = args.optional("init");
        args.finish(d);
        Some(Network { name, input: input?, layers: layers?, init })
    }
}

impl<'n> Function<'n> {
    fn decode(name: Name, node: &'n Node, d: &mut Decoder) -> Option<Function<'n>> {
        let mut args = named_struct(node, "Function", d)?;
        let params = args.required(d, "params").and_then(|n| d.list(n, "`params`"));
        let body = args.required(d, "body");
        args.finish(d);
        let params = names(params?, "a parameter", d);
        for (i, param) in params.iter().enumerate() {
            if !is_identifier(&param.text) {
                bad_name(&param.text, param.span, d);
            }
            if let Some(first) = params[..i].iter().find(|p| p.text == param.text) {
                duplicate(d, &param.text, param.span, "two parameters", first.span);
            }
        }
        Some(Function { name, params, body: body? })
    }
}

impl<'n> Entry<'n> {
    pub fn decode(name: Name, node: &'n Node, d: &mut Decoder) -> Option<Entry<'n>> {
        if name.text == INIT {
            d.report(
                Diagnostic::new("reserved-name", "every program has an entry `init` that initialises its state")
                    .label(name.span, "choose another name"),
            );
        }
        let mut args = named_struct(node, "Entry", d)?;
        let inputs = args.optional("inputs");
        let steps = args.required(d, "steps").and_then(|n| d.list(n, "`steps`"));
        let outputs = args.required(d, "outputs");
        args.finish(d);
        let inputs = inputs.and_then(|n| d.named_map(n, "`inputs`")).unwrap_or_default();
        let inputs = checked(inputs, d).into_iter().filter_map(|(name, node)| Input::decode(name, node, d)).collect();
        let outputs = outputs?;
        let listed = d.list(outputs, "`outputs`")?;
        Some(Entry { name, inputs, steps: steps?, outputs: names(listed, "an output", d), outputs_span: outputs.span })
    }
}

impl<'n> Input<'n> {
    fn decode(name: Name, node: &'n Node, d: &mut Decoder) -> Option<Input<'n>> {
        let (kind, mut args) = d.call(node, "an input")?;
        let shape = args.required(d, "shape");
        let meaning = args.optional("meaning").and_then(|n| d.str(n, "`meaning`"));
        args.finish(d);
        let Some(row) = find(INPUTS, &kind.text) else {
            d.report(
                Diagnostic::new("unknown-input", format!("there is no kind of input called `{}`", kind.text))
                    .label(kind.span, "not known")
                    .suggest(&kind.text, &row_names(INPUTS)),
            );
            return None;
        };
        Some(Input { name, ty: row.expand, shape: shape?, meaning, span: node.span })
    }
}

/// The arguments of `wanted(...)`.
fn named_struct<'n>(node: &'n Node, wanted: &str, d: &mut Decoder) -> Option<super::ron::decode::Args<'n>> {
    let (name, args) = d.call(node, &format!("a {}", wanted.to_lowercase()))?;
    if name.text == wanted {
        return Some(args);
    }
    d.report(
        Diagnostic::new("wrong-type", format!("`{}` stands where a `{wanted}` belongs", name.text))
            .label(name.span, format!("expected `{wanted}(...)`")),
    );
    None
}

fn names(nodes: &[Node], what: &str, d: &mut Decoder) -> Vec<Name> {
    let mut names = Vec::new();
    for node in nodes {
        if let Some(text) = d.str(node, what) {
            names.push(Name { text: text.to_string(), span: node.span });
        }
    }
    names
}
