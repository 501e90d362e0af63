//! The graph language: RON text with source spans, and errors that point at it.
//!
//! [`load`] reads a program, checks it, and expands its layers, losses and optimisers to primitive
//! operations. What a layer, a loss or a training step is, is known here and nowhere else.

mod activations;
mod average;
pub mod builtin;
pub mod diagnostic;
mod einsum;
mod entry;
mod expr;
mod foreign;
mod images;
mod indexing;
mod init;
mod layers;
mod limits;
mod lowering;
mod movement;
mod networks;
mod nodes;
mod non_finite;
mod norms;
mod ops;
mod optimisers;
mod program;
mod reductions;
pub mod ron;
mod rows;
mod schedules;
mod sizes;
mod source_text;
pub mod vocabulary;
mod weights;
mod windows;

use crate::ir::{Module, Type};
use diagnostic::{Diagnostic, Diagnostics, Span};
use lowering::Lowering;
use program::Program;
use ron::decode::Decoder;
pub use sizes::Number;
use sizes::Sizes;
use std::collections::BTreeMap;

/// Why a program was not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is wrong.
    #[error("{0}")]
    Text(Diagnostics),
    /// A `--set` does not fit the text.
    #[error("{0}")]
    Set(String),
}

impl Error {
    /// Everything that is wrong with the text.
    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        match self {
            Error::Text(diagnostics) => Some(diagnostics),
            Error::Set(_) => None,
        }
    }
}

/// A program that was read.
#[derive(Debug)]
pub struct Loaded {
    pub module: Module,
    /// What is odd about the text, such as a size that nothing uses.
    pub warnings: Diagnostics,
}

/// [`load_with_warnings`], for those who want the module alone.
///
/// # Errors
/// As there.
pub fn load(name: &str, text: &str, sets: &[String], data_sizes: &[(String, usize)]) -> Result<Module, Error> {
    Ok(load_with_warnings(name, text, sets, data_sizes)?.module)
}

/// Reads a program. `name` is shown as the file in messages.
///
/// `sets` are sizes and values, as `name=value`, instead of the program's own. `data_sizes` are sizes of
/// the data: they replace the named size wherever it is used, after all other sizes have been worked out. So a smaller
/// last batch is smaller in everything that is as large as the batch by name, and what has a size of its own (such as
/// `"noise_batch": "batch"`) stays as it is.
///
/// # Errors
/// Everything that is wrong with the text, or a `set` or data size that does not fit it.
pub fn load_with_warnings(
    name: &str,
    text: &str,
    sets: &[String],
    data_sizes: &[(String, usize)],
) -> Result<Loaded, Error> {
    let failed = |diagnostics: Vec<Diagnostic>| Error::Text(Diagnostics::new(name, text, unique(diagnostics)));
    let tree = ron::parse(text).map_err(failed)?;
    let mut d = Decoder::default();
    let Some(program) = Program::decode(&tree, &mut d) else { return Err(failed(d.diags)) };
    if let Some((size, _)) = data_sizes.iter().find(|(size, _)| !program.sizes.iter().any(|(n, _)| n.text == *size)) {
        return Err(Error::Set(format!("`{}` has no size `{size}`", program.name)));
    }
    let mut sizes = Sizes::resolve(&program, sets, &mut d)?;
    data_sizes.iter().for_each(|(name, size)| sizes.replace(name, *size));
    let lowered = Lowering::new(&program, sizes, d).lower().map_err(failed)?;
    let warnings = Diagnostics::new(name, text, unique(lowered.warnings));
    Ok(Loaded { module: lowered.module, warnings })
}

/// What [`load_call`] can make an entry of: networks and functions, with the names of what they take.
///
/// # Errors
/// When the text is not a program.
pub fn callables(name: &str, text: &str) -> Result<Vec<(String, Vec<String>)>, Error> {
    let failed = |diagnostics| Error::Text(Diagnostics::new(name, text, diagnostics));
    let tree = ron::parse(text).map_err(failed)?;
    let mut d = Decoder::default();
    let Some(program) = Program::decode(&tree, &mut d) else { return Err(failed(d.diags)) };
    let networks = program.networks.iter().map(|n| (n.name.text.clone(), vec![NETWORK_INPUT.to_string()]));
    let params = |params: &[ron::Name]| params.iter().map(|p| p.text.clone()).collect();
    Ok(networks.chain(program.functions.iter().map(|f| (f.name.text.clone(), params(&f.params)))).collect())
}

/// What the input of a network is called where it is called by itself.
const NETWORK_INPUT: &str = "input";

/// Reads a program as [`load`] does, with one entry instead of its own: a call of one of its
/// [`callables`], a network in inference mode. The call takes tensors of the given types under the names of
/// its parameters and gives `output`. The warnings are those of the whole program, in which the callee is used.
///
/// # Errors
/// As [`load`], or when there is nothing of that name, or a type is missing.
pub fn load_call(
    name: &str,
    text: &str,
    sets: &[String],
    callee: &str,
    types: &BTreeMap<String, Type>,
) -> Result<Loaded, Error> {
    let callables = callables(name, text)?;
    let Some((_, params)) = callables.iter().find(|(known, _)| known == callee) else {
        return Err(Error::Set(format!("there is no network or function `{callee}`")));
    };
    let missing: Vec<String> = params.iter().filter(|p| !types.contains_key(*p)).map(|p| format!("`{p}`")).collect();
    if !missing.is_empty() {
        return Err(Error::Set(format!("`{callee}` takes {}, which must be given", missing.join(" and "))));
    }
    let inputs: Vec<String> = (params.iter()).map(|p| format!("{p:?}: Tensor({:?})", types[p].shape)).collect();
    let failed = |diagnostics: Vec<Diagnostic>| Error::Text(Diagnostics::new(name, text, unique(diagnostics)));
    let tree = ron::parse(text).map_err(failed)?;
    let mut d = Decoder::default();
    let Some(mut program) = Program::decode(&tree, &mut d) else { return Err(failed(d.diags)) };
    let call = if program.network(callee).is_some() {
        format!("Call({callee:?}, {NETWORK_INPUT:?}, Inference)")
    } else {
        format!("{callee}({})", params.iter().map(|p| format!("{p:?}")).collect::<Vec<_>>().join(", "))
    };
    let inputs = inputs.join(", ");
    let entry = format!("Entry(inputs: {{{inputs}}}, steps: [Let(\"output\", {call})], outputs: [\"output\"])");
    let entry_tree = ron::parse(&entry).map_err(failed)?;
    // What is wrong with the call is shown at the callee's name.
    let span = (program.networks.iter().map(|n| &n.name))
        .chain(program.functions.iter().map(|f| &f.name))
        .find(|n| n.text == callee)
        .map_or(Span { start: 0, end: 0 }, |n| n.span);
    let entry_tree = entry_tree.at(span);
    let called = program::Entry::decode(ron::Name { text: callee.to_string(), span }, &entry_tree, &mut d);
    let mut entries: Vec<program::Entry> = called.into_iter().collect();
    // The language has no word for whole numbers of any shape that a caller gives.
    for input in entries.iter_mut().flat_map(|e| &mut e.inputs) {
        input.ty.dtype = types[&input.name.text].dtype;
    }
    std::mem::swap(&mut program.entries, &mut entries);
    let sizes = Sizes::resolve(&program, sets, &mut d)?;
    let module = Lowering::new(&program, sizes, d).lower_call().map_err(failed)?.module;
    // What is never used is seen with the program's own entries in their places again.
    program.entries.append(&mut entries);
    let mut d = Decoder::default();
    let sizes = Sizes::resolve(&program, sets, &mut d)?;
    let lowered = Lowering::new(&program, sizes, d).lower().map_err(failed)?;
    Ok(Loaded { module, warnings: Diagnostics::new(name, text, unique(lowered.warnings)) })
}

/// Every named size and value of a program with its number, in the order of declaration, sizes first.
///
/// # Errors
/// As [`load`], as far as names and numbers go: networks and entries are not looked into.
pub fn sizes(name: &str, text: &str, sets: &[String]) -> Result<Vec<(String, Number)>, Error> {
    let failed = |diagnostics: Vec<Diagnostic>| Error::Text(Diagnostics::new(name, text, diagnostics));
    let tree = ron::parse(text).map_err(failed)?;
    let mut d = Decoder::default();
    let Some(program) = Program::decode(&tree, &mut d) else { return Err(failed(d.diags)) };
    let sizes = Sizes::resolve(&program, sets, &mut d)?;
    if d.diags.is_empty() { Ok(sizes.list(&program)) } else { Err(failed(d.diags)) }
}

/// The name of the size that counts the examples of the data: the first dimension of the first images or
/// labels that an entry takes; of those that `entry` takes, where one is named. `None` where it has no name.
///
/// # Errors
/// When the text is not a program.
pub fn data_size(name: &str, text: &str, entry: Option<&str>) -> Result<Option<String>, Error> {
    first_size(name, text, entry, |input| input.examples())
}

/// The name of the size of an entry's first dimension that has one: how many examples it takes, whoever gives them.
/// `None` where no input's first dimension is named.
///
/// # Errors
/// When the text is not a program.
pub fn leading_size(name: &str, text: &str, entry: &str) -> Result<Option<String>, Error> {
    first_size(name, text, Some(entry), |input| input.leading())
}

/// The first size that an input of the entry, or of any, gives.
fn first_size(
    name: &str,
    text: &str,
    entry: Option<&str>,
    of: fn(&program::Input) -> Option<String>,
) -> Result<Option<String>, Error> {
    let failed = |diagnostics| Error::Text(Diagnostics::new(name, text, diagnostics));
    let tree = ron::parse(text).map_err(failed)?;
    let mut d = Decoder::default();
    let Some(program) = Program::decode(&tree, &mut d) else { return Err(failed(d.diags)) };
    let entries = program.entries.iter().filter(|e| entry.is_none_or(|name| e.name.text == name));
    Ok(entries.flat_map(|e| &e.inputs).find_map(of))
}

/// The shape of what a network takes, without the examples; `None` where there is no network of that name.
///
/// # Errors
/// As [`sizes()`].
pub fn network_input(name: &str, text: &str, sets: &[String], network: &str) -> Result<Option<Vec<usize>>, Error> {
    let failed = |diagnostics| Error::Text(Diagnostics::new(name, text, diagnostics));
    let tree = ron::parse(text).map_err(failed)?;
    let mut d = Decoder::default();
    let Some(program) = Program::decode(&tree, &mut d) else { return Err(failed(d.diags)) };
    let sizes = Sizes::resolve(&program, sets, &mut d)?;
    let Some(network) = program.network(network) else { return Ok(None) };
    let ron::Value::List(items) = &network.input.value else { return Ok(None) };
    let shape: Option<Vec<usize>> = items.iter().map(|item| sizes.size(&program, item, "a size", &mut d)).collect();
    if d.diags.is_empty() { Ok(shape) } else { Err(failed(d.diags)) }
}

/// A network is expanded at each of its calls: its mistakes are told once.
fn unique(diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut unique: Vec<Diagnostic> = Vec::new();
    for diagnostic in diagnostics {
        if !unique.contains(&diagnostic) {
            unique.push(diagnostic);
        }
    }
    unique
}
