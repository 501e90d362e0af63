//! Fusions that were missed: kernels that hand each other values through memory, why they are not one, and what one kernel
//! would save.

use super::by_name;
use crate::compile::Options;
use crate::ir::{Graph, NodeId};
use crate::kernel::body::{BufferId, Kernel};
use crate::kernel::cost::{bytes_moved, flops, multiplied};
use crate::kernel::schedule::{BufferRole, Schedule, StateLayout};
use crate::plan::{Machine, Plan};
use crate::schedule::Strategy;
use crate::schedule::fuse::{base, why_not_fused};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Why two kernels are not one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Reason {
    /// In a few words; the same for all of its sort.
    pub title: &'static str,
    pub text: String,
}

impl Reason {
    /// What is said of kernels that fusion knows nothing of.
    fn without_groups(is_copy: bool) -> Reason {
        let (title, text) = if is_copy {
            ("a copy", "one only copies a value, to where or into the order in which it is needed")
        } else {
            ("not known", "the plan was made from another graph than this version makes")
        };
        Reason { title, text: text.into() }
    }
}

/// Two kernels of which one reads what the other writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Missed {
    /// The kernel that writes, by its position.
    pub from: usize,
    pub to: usize,
    /// The buffers between them.
    pub buffers: Vec<usize>,
    /// An index into [`MissedFusions::reasons`].
    pub reason: usize,
    /// Bytes that one kernel in their place would not move: what is read again, and written where nobody else reads it.
    pub bytes: u64,
    /// What it would save at the ceilings: those bytes at the ceiling of memory, less where arithmetic takes as long, and
    /// a launch.
    pub seconds: f64,
}

/// All of them, those that would save most first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MissedFusions {
    pub pairs: Vec<Missed>,
    pub reasons: Vec<Reason>,
    /// What the pairs add up to, each by itself.
    pub sum_seconds: f64,
    /// Saved where all of them were fused at once: kernels that are connected become one, which reads once what several
    /// read. The pairs may add up to more, as a launch is saved once, and to less, as a value with several readers need not be
    /// written once all of them are in one kernel.
    pub together_bytes: u64,
    pub together_seconds: f64,
}

/// What the graph of a plan was scheduled with.
pub fn strategy_of(plan: &Plan) -> Strategy {
    Options::of(&plan.source).strategy()
}

/// The missed fusions of a schedule that was made from a graph, on a machine with these ceilings.
pub fn missed_fusions(
    graph: &Graph,
    schedule: &Schedule,
    states: &StateLayout,
    strategy: &Strategy,
    machine: &Machine,
) -> MissedFusions {
    let flows = Flows::of(schedule);
    let ends = Ends::of(graph, schedule);
    let pairs: Vec<Option<(NodeId, NodeId)>> =
        flows.pairs.iter().map(|(&(from, to), buffers)| ends.of_pair(schedule, from, to, buffers[0])).collect();
    let asked: Vec<(NodeId, NodeId)> = pairs.iter().flatten().copied().collect();
    let mut answers = why_not_fused(graph, states, strategy, &asked).into_iter();
    let costs = Costs { schedule, machine, flows: &flows };
    let mut reasons = Numbered::default();
    let mut missed: Vec<Missed> = (flows.pairs.iter().zip(pairs))
        .map(|((&(from, to), buffers), pair)| {
            let is_copy = [from, to].into_iter().any(|k| schedule.kernels[k].nodes.is_empty());
            let reason = match pair.and_then(|_| answers.next().flatten()) {
                Some(why) => Reason { title: why.title(), text: why.to_string() },
                None => Reason::without_groups(is_copy),
            };
            let saved = costs.saved(&[from, to]);
            Missed {
                from,
                to,
                buffers: buffers.clone(),
                reason: reasons.number(reason),
                bytes: saved.bytes,
                seconds: saved.seconds,
            }
        })
        .collect();
    missed.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then((a.from, a.to).cmp(&(b.from, b.to))));
    let together: Vec<Saved> = connected(schedule.kernels.len(), &missed).iter().map(|of| costs.saved(of)).collect();
    MissedFusions {
        sum_seconds: missed.iter().map(|pair| pair.seconds).sum(),
        together_bytes: together.iter().map(|saved| saved.bytes).sum(),
        together_seconds: together.iter().map(|saved| saved.seconds).sum(),
        pairs: missed,
        reasons: reasons.all,
    }
}

/// Numbers reasons, each stored once.
#[derive(Default)]
struct Numbered {
    all: Vec<Reason>,
    index: BTreeMap<Reason, usize>,
}

impl Numbered {
    fn number(&mut self, reason: Reason) -> usize {
        *self.index.entry(reason).or_insert_with_key(|reason| {
            self.all.push(reason.clone());
            self.all.len() - 1
        })
    }
}

/// Who hands values to whom.
struct Flows {
    /// By the kernel that writes and the one that reads, the buffers.
    pairs: BTreeMap<(usize, usize), Vec<usize>>,
    /// By a buffer, the kernels that touch it.
    users: Vec<BTreeSet<usize>>,
}

impl Flows {
    fn of(schedule: &Schedule) -> Flows {
        let mut writer: Vec<Option<usize>> = vec![None; schedule.buffers.len()];
        let mut users = vec![BTreeSet::new(); schedule.buffers.len()];
        let mut pairs: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (k, kernel) in schedule.kernels.iter().enumerate() {
            for b in &kernel.reads {
                users[b.index()].insert(k);
                if let Some(from) = writer[b.index()] {
                    pairs.entry((from, k)).or_default().push(b.index());
                }
            }
            for b in &kernel.writes {
                users[b.index()].insert(k);
                writer[b.index()] = Some(k);
            }
        }
        Flows { pairs, users }
    }
}

/// Finds the nodes to ask about for two kernels.
struct Ends<'g> {
    by_name: HashMap<&'g str, NodeId>,
    /// By a kernel and a node whose value it reads, a node that it computes from that.
    readers: HashMap<(usize, NodeId), NodeId>,
    /// By the name of a state, the node that it is updated to.
    updates: HashMap<&'g str, NodeId>,
}

impl<'g> Ends<'g> {
    fn of(graph: &'g Graph, schedule: &Schedule) -> Ends<'g> {
        let by_name = by_name(graph);
        let computed: Vec<Vec<NodeId>> = (schedule.kernels.iter())
            .map(|kernel| kernel.nodes.iter().filter_map(|name| by_name.get(name.as_str()).copied()).collect())
            .collect();
        let stored: BTreeSet<NodeId> = computed.iter().flatten().copied().collect();
        let mut readers = HashMap::new();
        for (k, nodes) in computed.iter().enumerate() {
            // What one node of a kernel has been through, another need not: the first to come to a value is named.
            let mut seen = BTreeSet::new();
            for &node in nodes {
                let mut stack = graph.operands(node);
                while let Some(id) = stack.pop() {
                    if stored.contains(&id) {
                        readers.entry((k, id)).or_insert(node);
                    } else if seen.insert(id) {
                        stack.extend(graph.operands(id));
                    }
                }
            }
        }
        let updates = graph.updates.iter().map(|update| (update.state.as_str(), base(graph, update.node))).collect();
        Ends { by_name, readers, updates }
    }

    /// The node whose value is in the buffer, and one that is computed from it in the other kernel; the last of each kernel
    /// where that is not known.
    fn of_pair(&self, schedule: &Schedule, from: usize, to: usize, buffer: usize) -> Option<(NodeId, NodeId)> {
        let last =
            |k: usize| schedule.kernels[k].nodes.last().and_then(|name| self.by_name.get(name.as_str()).copied());
        let held = match &schedule.buffers[buffer].role {
            BufferRole::State(name) => self.updates.get(name.as_str()).copied(),
            BufferRole::Input(_) | BufferRole::Output | BufferRole::Temporary | BufferRole::Workspace => {
                self.by_name.get(schedule.buffers[buffer].name.as_str()).copied()
            }
        };
        match held.and_then(|held| Some((held, *self.readers.get(&(to, held))?))) {
            Some(pair) => Some(pair),
            None => last(from).zip(last(to)),
        }
    }
}

/// What one kernel in the place of several would save.
struct Saved {
    bytes: u64,
    seconds: f64,
}

struct Costs<'s> {
    schedule: &'s Schedule,
    machine: &'s Machine,
    flows: &'s Flows,
}

impl Costs<'_> {
    fn saved(&self, kernels: &[usize]) -> Saved {
        let Schedule { kernels: all, buffers, .. } = self.schedule;
        let of: Vec<&Kernel> = kernels.iter().map(|&k| &all[k]).collect();
        let written: BTreeSet<BufferId> = of.iter().flat_map(|k| &k.writes).copied().collect();
        // What an earlier one of them has just written is not read.
        let (mut read, mut made) = (BTreeSet::<BufferId>::new(), BTreeSet::<BufferId>::new());
        for kernel in &of {
            read.extend(kernel.reads.iter().filter(|b| !made.contains(*b)));
            made.extend(&kernel.writes);
        }
        let members: BTreeSet<usize> = kernels.iter().copied().collect();
        // A value that only these kernels touch need not be in memory.
        let is_inside = |b: &BufferId| {
            buffers[b.index()].role == BufferRole::Temporary && self.flows.users[b.index()].is_subset(&members)
        };
        let size = |b: &BufferId| buffers[b.index()].bytes() as u64;
        let stored = written.iter().filter(|b| !is_inside(b));
        let left: u64 = read.iter().map(size).sum::<u64>() + stored.map(size).sum::<u64>();
        let moved: u64 = of.iter().map(|k| bytes_moved(k, buffers)).sum();
        let bytes = moved - left;
        let machine = self.machine;
        let arithmetic = |k: &Kernel| flops(k) as f64 / machine.flops_ceiling(multiplied(k, buffers));
        let memory = |bytes: u64| bytes as f64 / machine.bytes_per_second;
        let apart: f64 = of.iter().map(|k| arithmetic(k).max(memory(bytes_moved(k, buffers)))).sum();
        let as_one = of.iter().map(|k| arithmetic(k)).sum::<f64>().max(memory(left));
        let launches = machine.launch_seconds * (of.len() - 1) as f64;
        Saved { bytes, seconds: launches + memory(bytes).min((apart - as_one).max(0.0)) }
    }
}

/// Kernels that pairs connect, each set in the order of the schedule; kernels that are in no pair are left out.
fn connected(kernels: usize, pairs: &[Missed]) -> Vec<Vec<usize>> {
    let mut root: Vec<usize> = (0..kernels).collect();
    fn find(root: &mut [usize], mut k: usize) -> usize {
        while root[k] != k {
            root[k] = root[root[k]];
            k = root[k];
        }
        k
    }
    for pair in pairs {
        let (a, b) = (find(&mut root, pair.from), find(&mut root, pair.to));
        root[a.max(b)] = a.min(b);
    }
    let mut sets: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for k in 0..kernels {
        sets.entry(find(&mut root, k)).or_default().push(k);
    }
    sets.into_values().filter(|set| set.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::observe;

    const MACHINE: Machine =
        Machine { flops_per_second: 1e12, bytes_per_second: 1e9, launch_seconds: 1e-6, ..Machine::NOMINAL };

    /// A mean of a product's rows: on a CPU the reduction needs the whole product first.
    const PRODUCT: &str = r#"Program(
        name: "product",
        networks: { "net": Network(input: [8], layers: [Dense(16)]) },
        entries: {
            "forward": Entry(
                inputs: { "x": Tensor([4, 8]) },
                steps: [Let("y", Call("net", "x", Inference)), Let("m", Mean(Mul("y", "y")))],
                outputs: ["m"],
            ),
        },
    )"#;

    fn of(text: &str, entry: &str, machine: &Machine) -> (Schedule, MissedFusions) {
        let observed = observe("p.ron", text, &[], None).unwrap();
        let schedule = observed.plan.entry(entry).unwrap().schedule.clone();
        let graph = observed.history(entry).unwrap().last();
        let plan = &observed.plan;
        let missed = missed_fusions(graph, &schedule, &plan.state_layout, &strategy_of(plan), machine);
        (schedule, missed)
    }

    #[test]
    fn a_reduction_after_a_product_has_its_reason_and_price() {
        let (schedule, missed) = of(PRODUCT, "forward", &MACHINE);
        assert_eq!(schedule.kernels.len(), 2, "{:?}", schedule.kernels);
        let [pair] = &missed.pairs[..] else { panic!("{missed:?}") };
        assert_eq!((pair.from, pair.to), (0, 1));
        let reason = &missed.reasons[pair.reason];
        assert_eq!(reason.title, "a reduction of a contraction");
        assert_eq!(reason.text, "a reduction needs all of the contraction's result before its first element");
        // The product of 4 x 16 numbers is neither written nor read: 256 bytes each way.
        assert_eq!(pair.bytes, 2 * 256);
        assert!((pair.seconds - (1e-6 + 512.0 / 1e9)).abs() < 1e-15, "{}", pair.seconds);
        // One pair: all at once is the same.
        assert_eq!((missed.together_bytes, missed.together_seconds), (pair.bytes, missed.sum_seconds));
    }

    /// A parameter that is updated in place is read and written, and both stay: an update saves what it reads of the
    /// gradient, and the launch.
    #[test]
    fn what_is_updated_in_place_is_still_read_and_written() {
        let text = PRODUCT.replace("Inference", "Training").replace(
            "Let(\"m\", Mean(Mul(\"y\", \"y\")))",
            "Let(\"m\", Mean(Mul(\"y\", \"y\"))), Minimise(\"m\", \"net\", Sgd(lr: 0.1))",
        );
        let (schedule, missed) = of(&text, "forward", &MACHINE);
        let is_state = |b: &BufferId| matches!(schedule.buffers[b.index()].role, BufferRole::State(_));
        let is_update = |k: usize| schedule.kernels[k].writes.iter().any(is_state);
        let into: Vec<&Missed> = missed.pairs.iter().filter(|pair| is_update(pair.to)).collect();
        assert!(!into.is_empty(), "{missed:?}");
        for pair in into {
            // Nothing else is common to both: each buffer between them is not read again, and not written.
            let between: u64 = pair.buffers.iter().map(|&b| schedule.buffers[b].bytes() as u64).sum();
            assert!(pair.bytes <= 2 * between, "{pair:?}");
        }
    }

    #[test]
    fn where_arithmetic_takes_as_long_only_the_launch_is_saved() {
        let (_, missed) = of(PRODUCT, "forward", &Machine { flops_per_second: 1.0, ..MACHINE });
        assert!((missed.sum_seconds - 1e-6).abs() < 1e-12, "{}", missed.sum_seconds);
    }

    /// Every edge between kernels of every program has a reason; what pairs save is what their parts say.
    #[test]
    fn every_edge_of_built_in_programs_has_a_reason() {
        for program in crate::declare::builtin::NAMES {
            let observed = observe(program, crate::declare::builtin::text(program).unwrap(), &[], None).unwrap();
            for history in &observed.histories {
                let schedule = &observed.plan.entry(&history.entry).unwrap().schedule;
                let (plan, machine) = (&observed.plan, &Machine::NOMINAL);
                let missed = missed_fusions(history.last(), schedule, &plan.state_layout, &strategy_of(plan), machine);
                let unknown =
                    missed.reasons.iter().find(|reason| ["not known", "nothing in common"].contains(&reason.title));
                assert_eq!(unknown, None, "{program} {}", history.entry);
                for pair in &missed.pairs {
                    let [from, to] = [pair.from, pair.to].map(|k| &schedule.kernels[k]);
                    assert!(pair.from < pair.to && !pair.buffers.is_empty());
                    for &b in &pair.buffers {
                        let b = BufferId::new(b);
                        assert!(from.writes.contains(&b) && to.reads.contains(&b), "{program} {pair:?}");
                        assert!(pair.bytes >= schedule.buffers[b.index()].bytes() as u64);
                    }
                    assert!(pair.seconds >= machine.launch_seconds);
                }
                let all: u64 = schedule.kernels.iter().map(|k| bytes_moved(k, &schedule.buffers)).sum();
                assert!(missed.together_bytes < all);
                assert!(missed.pairs.is_sorted_by(|a, b| a.seconds >= b.seconds));
            }
        }
    }
}
