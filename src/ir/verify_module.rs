//! The verifier of modules: entries agree with the states and inputs that are declared.

use super::{Module, Op, Type, VerifyError, verify};
use std::collections::{HashMap, HashSet};

/// A rule that a module breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    #[error("entry `{entry}`: {source}")]
    Graph { entry: String, source: Box<VerifyError> },
    #[error("there are two {kind} declarations `{name}`")]
    Declarations { kind: &'static str, name: String },
    #[error("entry `{entry}`: {kind} `{name}` is not declared")]
    Undeclared { entry: String, kind: &'static str, name: String },
    #[error("entry `{entry}`: {kind} `{name}` is declared as {declared}, but used as {used}")]
    WrongType { entry: String, kind: &'static str, name: String, declared: Box<Type>, used: Box<Type> },
}

/// Checks every graph of a module, and that entries, states and each entry's inputs are declared once
/// and used as declared. A declared state or input may be unused.
///
/// # Errors
/// The first rule that is broken.
pub fn verify_module(module: &Module) -> Result<(), ModuleError> {
    let mut entries = HashSet::new();
    let states = declared("state", module.states.iter().map(|s| (&s.name, &s.ty)))?;
    for entry in &module.entries {
        let graph = &entry.graph;
        let name = || graph.name.clone();
        if !entries.insert(&graph.name) {
            return Err(ModuleError::Declarations { kind: "entry", name: name() });
        }
        verify(graph).map_err(|source| ModuleError::Graph { entry: name(), source: Box::new(source) })?;
        let inputs = declared("input", entry.inputs.iter().map(|i| (&i.name, &i.ty)))?;
        let ids = graph.ids();
        let leaves = ids.iter().filter_map(|&id| match graph.op(id) {
            Op::Input { name, ty } => Some(("input", name, ty)),
            Op::State { name, ty } => Some(("state", name, ty)),
            _ => None,
        });
        let updates = graph.updates.iter().map(|u| ("state", &u.state, graph.ty(u.node)));
        for (kind, what, used) in leaves.chain(updates) {
            let among = if kind == "input" { &inputs } else { &states };
            match among.get(what.as_str()) {
                None => return Err(ModuleError::Undeclared { entry: name(), kind, name: what.clone() }),
                Some(&declared) if declared != used => {
                    return Err(ModuleError::WrongType {
                        entry: name(),
                        kind,
                        name: what.clone(),
                        declared: Box::new(declared.clone()),
                        used: Box::new(used.clone()),
                    });
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

fn declared<'m>(
    kind: &'static str,
    declarations: impl Iterator<Item = (&'m String, &'m Type)>,
) -> Result<HashMap<&'m str, &'m Type>, ModuleError> {
    let mut types = HashMap::new();
    for (name, ty) in declarations {
        if types.insert(name.as_str(), ty).is_some() {
            return Err(ModuleError::Declarations { kind, name: name.clone() });
        }
    }
    Ok(types)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::text::parse;
    use crate::ir::{Entry, Feed, Initialiser, InputDecl, StateDecl, StateRole};

    const STEP: &str = "graph step {\n%x: f32[2] = input \"x\"\n%w: f32[2] = state \"w\"\n%y = add %x %w\n\
                        output y = %y\nupdate \"w\" = %y\n}";

    fn module() -> Module {
        let state = |name: &str| StateDecl {
            name: name.into(),
            ty: Type::f32([2]),
            role: StateRole::Parameter,
            init: Initialiser::Constant(0.0),
            span: None,
        };
        let input = InputDecl {
            name: "x".into(),
            ty: Type::f32([2]),
            feed: Feed::Caller,
            below: None,
            from_end: false,
            meaning: "Anything.".into(),
        };
        Module {
            name: "tiny".into(),
            states: vec![state("w"), state("unused")],
            entries: vec![Entry { graph: parse(STEP).unwrap(), inputs: vec![input] }],
        }
    }

    #[test]
    fn a_sound_module_passes() {
        assert_eq!(verify_module(&module()), Ok(()));
    }

    #[test]
    fn each_rule_has_its_complaint() {
        type Change = fn(&mut Module);
        let cases: [(Change, &str); 8] = [
            (|m| m.entries.push(m.entries[0].clone()), "there are two entry declarations `step`"),
            (|m| m.states[1].name = "w".into(), "there are two state declarations `w`"),
            (|m| m.entries[0].inputs = vec![m.entries[0].inputs[0].clone(); 2], "there are two input declarations `x`"),
            (|m| m.entries[0].inputs.clear(), "entry `step`: input `x` is not declared"),
            (|m| m.states.clear(), "entry `step`: state `w` is not declared"),
            (|m| m.entries[0].graph.updates[0].state = "v".into(), "entry `step`: state `v` is not declared"),
            (
                |m| m.entries[0].graph.updates[0].state = "unused".into(),
                "entry `step`: state `unused` is declared as f32[3], but used as f32[2]",
            ),
            (|m| m.entries[0].graph.outputs[0].name.clear(), "entry `step`: there is a nameless output"),
        ];
        for (change, expected) in cases {
            let mut module = module();
            module.states[1].ty = Type::f32([3]);
            change(&mut module);
            assert_eq!(verify_module(&module).unwrap_err().to_string(), expected);
        }
    }
}
