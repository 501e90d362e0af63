//! A human-readable list of the graph language's words, made from the tables that expand them.

use super::activations::FUNCTIONS;
use super::diagnostic::closest;
use super::entry::STEPS;
use super::expr::CALLS;
use super::foreign;
use super::layers::LAYERS;
use super::networks::{BLOCKS, is_activation};
use super::nodes::written;
use super::ops::{Expand, OPERATIONS};
use super::optimisers::{CLIPS, OPTIMISERS};
use super::program::INPUTS;
use super::rows::{Arg, Param, Row};
use super::weights::STARTS;
use crate::scalar::{Lane, ScalarOp};
use serde::Serialize;

/// Words that stand in the same places of a program.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    pub title: &'static str,
    /// Where they stand.
    pub place: &'static str,
    pub words: Vec<Word>,
}

/// A layer, operation, draw, optimiser, step or kind of input.
#[derive(Debug, Clone, Serialize)]
pub struct Word {
    pub name: String,
    /// `Dense(units, bias = true)`
    pub signature: String,
    /// One line.
    pub meaning: String,
    pub arguments: Vec<Argument>,
    /// How it is written in a program.
    pub example: String,
}

/// An argument of a word.
#[derive(Debug, Clone, Serialize)]
pub struct Argument {
    pub name: String,
    /// What must be given, in words.
    pub kind: String,
    /// What stands for it where it is left out; without one it must be given.
    pub default: Option<String>,
}

/// All words of the language, in groups.
pub fn vocabulary() -> Vec<Group> {
    let group = |title, place, words| Group { title, place, words };
    let scalars = |wanted: fn(ScalarOp) -> bool| ScalarOp::ALL.iter().copied().filter(move |&op| wanted(op));
    let mut layers = [words(LAYERS), words(BLOCKS)].concat();
    layers.extend(FUNCTIONS.iter().map(as_layer));
    layers.extend(scalars(is_activation).map(|op| Word {
        signature: format!("{}()", written(op)),
        arguments: Vec::new(),
        example: format!("{}()", written(op)),
        ..scalar(op)
    }));
    let operations = scalars(|_| true).map(scalar).collect();
    let mut groups = vec![
        group("layers", "in the `layers` of a network", layers),
        group("weights", "in the `init` of a network: how the weights of its layers start", words(STARTS)),
        group("operations", "in expressions, element by element; sizes of 1 are repeated", operations),
    ];
    groups.extend(OPERATIONS.iter().map(|g| {
        let calls = if g.title == "tensors" { words(CALLS) } else { Vec::new() };
        group(g.title, g.place, [words(g.rows), calls].concat())
    }));
    groups.extend([
        group("optimisers", "in `Minimise`", [words(OPTIMISERS), words(CLIPS)].concat()),
        group("steps", "in the `steps` of an entry", words(STEPS)),
        group("inputs", "in the `inputs` of an entry", words(INPUTS)),
    ]);
    groups
}

/// A function of one tensor among the layers: what it is of comes in.
fn as_layer(row: &Row<Expand>) -> Word {
    let mut word = word(row);
    word.arguments.remove(0);
    let rest: Vec<String> = row.params[1..].iter().map(Param::written).collect();
    word.signature = format!("{}({})", row.name, rest.join(", "));
    for (with, without) in [("(\"x\", ", "("), ("(\"x\")", "()")] {
        word.example = word.example.replacen(with, without, 1);
    }
    word
}

/// The words that `name` was most likely meant to be, best first: near ones, else those that hold it.
pub fn near(name: &str) -> Vec<String> {
    let names: Vec<String> = vocabulary().into_iter().flat_map(|g| g.words).map(|w| w.name).collect();
    let mut found: Vec<String> = Vec::new();
    found.extend(foreign::ours(name).map(str::to_string));
    found.extend(closest(name, names.iter().map(String::as_str)).map(str::to_string));
    found.dedup();
    let wanted = name.to_lowercase();
    for candidate in names {
        if wanted.len() > 2 && candidate.to_lowercase().contains(&wanted) && !found.contains(&candidate) {
            found.push(candidate);
        }
    }
    found
}

fn words<T>(table: &[Row<T>]) -> Vec<Word> {
    table.iter().map(word).collect()
}

fn word<T>(row: &Row<T>) -> Word {
    let arguments = (row.params.iter())
        .map(|p| Argument {
            name: p.name.to_string(),
            kind: p.kind.words(),
            default: p.default.map(|default| match default() {
                Arg::Written => "words of the kind's own".to_string(),
                value => value.to_string(),
            }),
        })
        .collect();
    Word {
        name: row.name.to_string(),
        signature: row.signature(),
        meaning: row.meaning.to_string(),
        arguments,
        example: row.example.to_string(),
    }
}

fn scalar(op: ScalarOp) -> Word {
    let name = written(op);
    let lanes = op.operand_lanes();
    let params: Vec<&str> = ["a", "b", "c"].into_iter().take(lanes.len()).collect();
    // A counter or label where the operation takes one, as in the examples of the README.
    let given: Vec<&str> = lanes
        .iter()
        .zip(["\"x\"", "\"y\"", "\"x\""])
        .map(|(l, x)| if *l == Lane::U32 { "\"labels\"" } else { x })
        .collect();
    Word {
        signature: format!("{name}({})", params.join(", ")),
        meaning: op.meaning().to_string(),
        arguments: (params.iter().zip(lanes))
            .map(|(p, lane)| Argument {
                name: (*p).to_string(),
                kind: match lane {
                    Lane::Real => "a value",
                    Lane::U32 => "labels, or another value of whole numbers",
                }
                .to_string(),
                default: None,
            })
            .collect(),
        example: format!("{name}({})", given.join(", ")),
        name,
    }
}

/// Whether a layer is a function or an operation on one number.
fn is_also_layer(group: &Group, layer: &Word) -> bool {
    ["functions", "operations"].contains(&group.title) && group.words.iter().any(|word| word.name == layer.name)
}

/// The table of the README: a row for each group, with what its words take.
pub fn readme_table() -> String {
    let mut text = String::from("| | |\n|---|---|\n");
    let groups = vocabulary();
    for group in &groups {
        // What is a layer, too, is told once.
        let is_told = |w: &&Word| group.title != "layers" || !groups[1..].iter().any(|g| is_also_layer(g, w));
        let words: Vec<String> = (group.words.iter().filter(is_told))
            .map(|w| match group.title {
                // They take one, two or three values: `gcc-gan ops` says which.
                "operations" => format!("`{}`", w.name),
                _ => format!("`{}`", w.signature),
            })
            .collect();
        text += &format!("| {} | {} |\n", group.title, words.join(", "));
    }
    text
}
