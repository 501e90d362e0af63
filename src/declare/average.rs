//! The moving average of a network's parameters.

use super::diagnostic::{Diagnostic, Span};
use super::nodes::Nodes;
use crate::ir::{Initialiser, Op, Role, StateRole, Type};
use crate::scalar::ScalarOp;
use crate::types::AVERAGE;

impl Nodes<'_> {
    /// `a = decay·a + (1 − decay)·p` for each parameter `p` of a network, kept as state; the first time the average is the
    /// parameter itself. It is what PyTorch's `AveragedModel` keeps with `get_ema_multi_avg_fn(decay)`. With a ramp the
    /// decay is `(1 + t) / (10 + t)` while that is less, where `t` counts the averages before, as TensorFlow's
    /// `ExponentialMovingAverage` has it: else what a network was at first outlives some thousand steps.
    pub fn average_network(&mut self, network: &str, decay: (f64, bool), span: Span, at: Span) -> Option<()> {
        let parameters = self.parameters_of(network);
        if parameters.is_empty() && self.broken.contains(network) {
            return None;
        }
        if parameters.is_empty() {
            let diagnostic =
                Diagnostic::new("no-parameters", format!("no parameters of `{network}` are there to average"))
                    .label(at, "nothing before this uses it")
                    .help("put the `Average` behind the `Minimise` of the network");
            self.d().report(diagnostic);
            return None;
        }
        self.set_role(Role::Optimiser(network.to_string()));
        self.push_scope("average");
        let done = self.averages(network, &parameters, decay, span);
        self.pop_scope();
        self.set_role(Role::Forward);
        done
    }

    fn averages(&mut self, network: &str, parameters: &[String], (decay, ramp): (f64, bool), span: Span) -> Option<()> {
        let name = format!("{network}{AVERAGE}/t");
        let t = self.state(&name, Type::f32([]), StateRole::Optimiser, Initialiser::Constant(0.0), span)?;
        let (zero, one) = (self.constant(0.0, span)?, self.constant(1.0, span)?);
        let is_first = self.apply_as(ScalarOp::Eq, &[t, zero], "is_first", span)?;
        let next = self.apply_as(ScalarOp::Add, &[t, one], "t", span)?;
        self.current.insert(name, next);
        let (mut keep, mut follow) = (self.constant(decay, span)?, self.constant(1.0 - decay, span)?);
        if ramp {
            let (nine, ten) = (self.constant(9.0, span)?, self.constant(10.0, span)?);
            let count = self.apply_as(ScalarOp::Add, &[t, ten], "count", span)?;
            let part = self.apply_as(ScalarOp::Div, &[nine, count], "part", span)?;
            follow = self.apply_as(ScalarOp::Max, &[follow, part], "follow", span)?;
            keep = self.apply_as(ScalarOp::Sub, &[one, follow], "keep", span)?;
        }
        let keep = self.apply_as(ScalarOp::Select, &[is_first, zero, keep], "keep", span)?;
        let follow = self.apply_as(ScalarOp::Select, &[is_first, one, follow], "follow", span)?;
        for parameter in parameters {
            self.descend(span)?;
            self.push_scope(parameter);
            let name = format!("{parameter}{AVERAGE}");
            let of = self.current[parameter];
            let ty = self.graph.ty(of).clone();
            let old = self.state(&name, ty, StateRole::Average, Initialiser::Constant(0.0), span)?;
            let next = self.followed([old, keep], [of, follow], "average", span)?;
            let next = self.add(Op::Detach, &[next], "detached", span)?;
            self.current.insert(name, next);
            self.pop_scope();
            self.leave();
        }
        Some(())
    }
}
