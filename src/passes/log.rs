//! Which rewrite of which rule changed which node, so that it can be told afterwards.

use super::Applied;
use crate::ir::{Graph, NodeId};
use std::collections::{BTreeMap, HashMap};

/// What the rules of a pass did, in the order in which they did it. It holds handles alone: names are looked up by those
/// who ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    events: Vec<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    by: Applied,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Made(NodeId),
    /// By a node that was made for it, and takes its name.
    Replaced {
        old: NodeId,
        new: NodeId,
    },
    Removed(NodeId),
}

impl Log {
    pub(super) fn made(&mut self, by: Applied, node: NodeId) {
        self.events.push(Event { by, what: What::Made(node) });
    }

    pub(super) fn replaced(&mut self, by: Applied, old: NodeId, new: NodeId) {
        self.events.push(Event { by, what: What::Replaced { old, new } });
    }

    pub(super) fn removed(&mut self, by: Applied, node: NodeId) {
        self.events.push(Event { by, what: What::Removed(node) });
    }

    /// By the names of nodes, the rewrites that made, replaced or removed them, in order. A name that a replacement took
    /// over has those of both. `before` and `after` are the graph before and after the pass.
    pub fn by_name(&self, before: &Graph, after: &Graph) -> BTreeMap<String, Vec<Applied>> {
        let mut rules: HashMap<NodeId, Vec<Applied>> = HashMap::new();
        // A handle is used again after its node is gone: only the first to go had it before.
        let mut gone: HashMap<NodeId, Vec<Applied>> = HashMap::new();
        let and = |mut known: Vec<Applied>, by: Applied| {
            if !known.contains(&by) {
                known.push(by);
            }
            known
        };
        for &Event { by, what } in &self.events {
            match what {
                What::Made(node) => {
                    rules.insert(node, vec![by]);
                }
                What::Replaced { old, new } => {
                    let all = and(rules.get(&old).cloned().unwrap_or_default(), by);
                    rules.insert(old, all.clone());
                    rules.insert(new, all);
                }
                What::Removed(node) => {
                    let all = and(rules.remove(&node).unwrap_or_default(), by);
                    if before.contains(node) {
                        gone.entry(node).or_insert(all);
                    }
                }
            }
        }
        let left = rules.into_iter().filter(|(node, _)| after.contains(*node));
        let mut found: BTreeMap<String, Vec<Applied>> =
            left.map(|(node, rules)| (after.node(node).name.clone(), rules)).collect();
        for (node, rules) in gone {
            found.entry(before.node(node).name.clone()).or_insert(rules);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::ir::{Graph, text};
    use crate::passes::{Applied, PassContext, arithmetic};

    fn rules(program: &str) -> Vec<(String, Vec<&'static str>)> {
        let before: Graph = text::parse(program).unwrap();
        let mut after = before.clone();
        let report = arithmetic(&mut after, &PassContext::default());
        let names = |rules: Vec<Applied>| rules.iter().map(|by| by.rewrite).collect();
        report.log.by_name(&before, &after).into_iter().map(|(name, rules)| (name, names(rules))).collect()
    }

    #[test]
    fn what_is_removed_has_the_rule_that_left_it_unused() {
        let found = rules(
            r#"graph g {
            %x: f32[2] = input "x"
            %one: f32[2] = constant 1
            %a: f32[2] = mul %x %one
            %y: f32[2] = exp %a
            output y = %y
            }"#,
        );
        assert_eq!(found, [("a".to_string(), vec!["x · 1 → x"]), ("one".to_string(), vec!["x · 1 → x"])]);
    }

    #[test]
    fn a_name_that_is_rewritten_twice_has_both_rules() {
        let found = rules(
            r#"graph g {
            %x: f32[2] = input "x"
            %two: f32[2] = constant 2
            %three: f32[2] = constant 3
            %a: f32[2] = mul %x %two
            %y: f32[2] = mul %three %a
            output y = %y
            }"#,
        );
        let of = |name: &str| found.iter().find(|(of, _)| of == name).map(|(_, rules)| rules.as_slice());
        // `3 · a → a · 3`, then `(x · 2) · 3 → x · 6`.
        assert_eq!(of("y"), Some(&["c · x → x · c", "(x · c) · d → x · (c · d)"][..]));
        assert_eq!(of("a"), Some(&["(x · c) · d → x · (c · d)"][..]));
        assert_eq!(of("x"), None);
    }
}
