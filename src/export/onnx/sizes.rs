//! Sizes that follow the number of examples, found by declaring a program for several numbers of them and comparing.

use crate::ir::{Graph, NodeId};

/// A size, a bound or a coordinate: `per_example · N + rest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dim {
    pub per_example: i64,
    pub rest: i64,
}

impl Dim {
    /// One that does not vary.
    pub fn fixed(size: usize) -> Dim {
        Dim { per_example: 0, rest: size as i64 }
    }

    /// The size, where it does not vary.
    pub fn value(self) -> Option<i64> {
        (self.per_example == 0).then_some(self.rest)
    }
}

/// A constant's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Fixed(f64),
    /// That by the number of examples.
    PerExample(f64),
}

/// One graph, declared for each of some numbers of examples, or once where their number is fixed.
#[derive(Debug)]
pub struct Family {
    /// Numbers of examples; empty where there is one graph.
    examples: Vec<usize>,
    graphs: Vec<Graph>,
    /// The nodes of each graph, operands before users.
    orders: Vec<Vec<NodeId>>,
}

impl Family {
    /// `None` where the graphs have not the same nodes, so that what differs is more than sizes.
    pub fn new(examples: Vec<usize>, graphs: Vec<Graph>) -> Option<Family> {
        let orders: Vec<Vec<NodeId>> = graphs.iter().map(Graph::topological).collect();
        let is_same = |other: usize| {
            orders[0].len() == orders[other].len()
                && orders[0].iter().zip(&orders[other]).all(|(&a, &b)| {
                    let (left, right) = (graphs[0].node(a), graphs[other].node(b));
                    left.name == right.name && left.op.name() == right.op.name()
                })
        };
        (1..graphs.len()).all(is_same).then_some(Family { examples, graphs, orders })
    }

    /// The graph for the first number of examples, which stands for all.
    pub fn graph(&self) -> &Graph {
        &self.graphs[0]
    }

    /// The nodes of [`Family::graph`], operands before users.
    pub fn order(&self) -> &[NodeId] {
        &self.orders[0]
    }

    /// What a node is in each of the graphs, by its place in the order.
    fn each<T>(&self, place: usize, what: impl Fn(&Graph, NodeId) -> T) -> Vec<T> {
        self.graphs.iter().zip(&self.orders).map(|(graph, order)| what(graph, order[place])).collect()
    }

    /// The sizes of a node's result; `None` where one does not follow the number of examples.
    pub fn shape(&self, place: usize) -> Option<Vec<Dim>> {
        self.dims(place, |graph, id| graph.shape(id).to_vec())
    }

    /// What a node says of each dimension.
    pub fn dims(&self, place: usize, what: impl Fn(&Graph, NodeId) -> Vec<usize>) -> Option<Vec<Dim>> {
        let each = self.each(place, what);
        (0..each[0].len())
            .map(|d| self.fit(&each.iter().map(|sizes| sizes.get(d).copied()).collect::<Option<Vec<_>>>()?))
            .collect()
    }

    fn fit(&self, sizes: &[usize]) -> Option<Dim> {
        if sizes.iter().all(|&size| size == sizes[0]) {
            return Some(Dim::fixed(sizes[0]));
        }
        let n: Vec<i64> = self.examples.iter().map(|&n| n as i64).collect();
        let sizes: Vec<i64> = sizes.iter().map(|&size| size as i64).collect();
        let per_example = (sizes[1] - sizes[0]) / (n[1] - n[0]);
        let rest = sizes[0] - per_example * n[0];
        let fits = n.iter().zip(&sizes).all(|(n, &size)| per_example * n + rest == size);
        fits.then_some(Dim { per_example, rest })
    }

    /// The value of a constant; `None` where it does not follow the number of examples.
    pub fn number(&self, place: usize, what: impl Fn(&Graph, NodeId) -> f64) -> Option<Number> {
        let each = self.each(place, what);
        if each.iter().all(|value| value.to_bits() == each[0].to_bits()) {
            return Some(Number::Fixed(each[0]));
        }
        let totals: Vec<f64> = each.iter().zip(&self.examples).map(|(value, &n)| value * n as f64).collect();
        let total = totals[0];
        // Constants may have been rounded to f32.
        totals.iter().all(|t| (t - total).abs() <= 1e-6 * total.abs()).then_some(Number::PerExample(total))
    }

    /// Whether a node says the same in all graphs.
    pub fn is_same<T: PartialEq>(&self, place: usize, what: impl Fn(&Graph, NodeId) -> T) -> bool {
        let each = self.each(place, what);
        each.iter().all(|value| *value == each[0])
    }
}
