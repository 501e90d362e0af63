//! Which rule rewrote which node, so that it can be told afterwards.

use super::Rule;
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
    rule: &'static Rule,
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
    pub(super) fn made(&mut self, rule: &'static Rule, node: NodeId) {
        self.events.push(Event { rule, what: What::Made(node) });
    }

    pub(super) fn replaced(&mut self, rule: &'static Rule, old: NodeId, new: NodeId) {
        self.events.push(Event { rule, what: What::Replaced { old, new } });
    }

    pub(super) fn removed(&mut self, rule: &'static Rule, node: NodeId) {
        self.events.push(Event { rule, what: What::Removed(node) });
    }

    /// By the names of nodes, the rules that made, replaced or removed them, in order. A name that a replacement took
    /// over has the rules of both. `before` and `after` are the graph before and after the pass.
    pub fn by_name(&self, before: &Graph, after: &Graph) -> BTreeMap<String, Vec<&'static Rule>> {
        let mut rules: HashMap<NodeId, Vec<&'static Rule>> = HashMap::new();
        // A handle is used again after its node is gone: only the first to go had it before.
        let mut gone: HashMap<NodeId, Vec<&'static Rule>> = HashMap::new();
        let and = |mut known: Vec<&'static Rule>, rule: &'static Rule| {
            if !known.contains(&rule) {
                known.push(rule);
            }
            known
        };
        for &Event { rule, what } in &self.events {
            match what {
                What::Made(node) => {
                    rules.insert(node, vec![rule]);
                }
                What::Replaced { old, new } => {
                    let all = and(rules.get(&old).cloned().unwrap_or_default(), rule);
                    rules.insert(old, all.clone());
                    rules.insert(new, all);
                }
                What::Removed(node) => {
                    let all = and(rules.remove(&node).unwrap_or_default(), rule);
                    if before.contains(node) {
                        gone.entry(node).or_insert(all);
                    }
                }
            }
        }
        let left = rules.into_iter().filter(|(node, _)| after.contains(*node));
        let mut found: BTreeMap<String, Vec<&'static Rule>> =
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
    use crate::passes::{PassContext, Rule, arithmetic};

    fn rules(program: &str) -> Vec<(String, Vec<&'static str>)> {
        let before: Graph = text::parse(program).unwrap();
        let mut after = before.clone();
        let report = arithmetic(&mut after, &PassContext::default());
        let names = |rules: Vec<&'static Rule>| rules.iter().map(|rule| rule.name).collect();
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
        assert_eq!(found, [("a".to_string(), vec!["mul"]), ("one".to_string(), vec!["mul"])]);
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
        assert_eq!(of("y"), Some(&["constant_second", "mul"][..]));
        assert_eq!(of("a"), Some(&["mul"][..]));
        assert_eq!(of("x"), None);
    }
}
