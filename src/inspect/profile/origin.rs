//! What a kernel is for: the layer, the call of its network, and whether values, gradients or updates are computed.

use crate::inspect::{by_name, kernel_core};
use crate::ir::{Graph, NodeId, Role};
use crate::kernel::body::{Kernel, KernelKind};
use crate::kernel::schedule::Schedule;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

/// What is said of kernels that belong to no layer and no declaration.
pub const REST: &str = "rest";

/// Whether a kernel computes values, gradients or updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelRole {
    Forward,
    Gradient,
    Optimiser,
}

/// What a kernel is for. Fusion computes values of several layers in one kernel: it belongs to that of its contraction or
/// reduction, and else to that of its last value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelOrigin {
    /// A layer of a network, such as `generator/4-conv_transpose`; else a declaration, such as `loss_d`. An update of several
    /// layers at once has the network and [`SEVERAL`].
    pub layer: String,
    /// The call of the network, such as `fake_d`; empty for an update, and where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub call: String,
    pub role: KernelRole,
    /// The loss of a gradient, or the network of an update.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
}

/// In place of the layer in a kernel that updates several.
pub const SEVERAL: &str = "several layers";

impl KernelOrigin {
    /// As the arguments of an event of a trace.
    pub(super) fn to_args(&self) -> BTreeMap<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields.into_iter().collect(),
            Ok(_) | Err(_) => BTreeMap::new(),
        }
    }

    /// What [`KernelOrigin::to_args`] gave; nothing where an older version wrote the event.
    pub(super) fn from_args(args: &BTreeMap<String, Value>) -> Option<KernelOrigin> {
        serde_json::from_value(Value::Object(args.clone().into_iter().collect())).ok()
    }

    /// The role with what it is of, such as `backward of loss_d`.
    pub fn role_text(&self) -> String {
        match self.role {
            KernelRole::Forward => "forward".into(),
            KernelRole::Gradient => format!("backward of {}", self.of),
            KernelRole::Optimiser => format!("update of {}", self.of),
        }
    }

    /// The layer with its call, such as `generator/4-conv_transpose of fake_d`.
    pub fn call_text(&self) -> String {
        match (self.role, self.call.as_str()) {
            (KernelRole::Optimiser, _) => format!("{}, updated", self.layer),
            (KernelRole::Forward | KernelRole::Gradient, "") => self.layer.clone(),
            (KernelRole::Forward | KernelRole::Gradient, call) => format!("{} of {call}", self.layer),
        }
    }
}

/// What each kernel of a schedule is for, by its position; nothing for one that only copies. `graph` is what was scheduled.
pub fn kernel_origins(graph: &Graph, schedule: &Schedule) -> Vec<Option<KernelOrigin>> {
    let by_name = by_name(graph);
    schedule.kernels.iter().map(|kernel| origin(graph, &by_name, kernel)).collect()
}

fn origin(graph: &Graph, by_name: &HashMap<&str, NodeId>, kernel: &Kernel) -> Option<KernelOrigin> {
    let core = kernel_core(graph, by_name, kernel)?;
    let scope = scope_of(graph, core);
    Some(match &graph.node(core).origin.role {
        Role::Forward => {
            let (layer, call) = layer_and_call(scope);
            KernelOrigin { layer, call, role: KernelRole::Forward, of: String::new() }
        }
        Role::Gradient(loss) => {
            let (layer, call) = layer_and_call(scope);
            KernelOrigin { layer, call, role: KernelRole::Gradient, of: loss.clone() }
        }
        Role::Optimiser(network) => {
            let mut layer = updated_layer(scope, network);
            if kernel.kind() == KernelKind::MultiTensor {
                let nodes = kernel.nodes.iter().filter_map(|name| by_name.get(name.as_str()));
                let updates = nodes.map(|&id| &graph.node(id).origin).filter(|o| matches!(o.role, Role::Optimiser(_)));
                // A parameter's update is in a scope of its layer; flags and counts are not.
                let of_parameters = updates.filter(|o| o.scope.split('/').count() > 3);
                let layers: BTreeSet<String> = of_parameters.map(|o| updated_layer(&o.scope, network)).collect();
                match layers.len() {
                    0 => {}
                    1 => layer = layers.into_iter().next().unwrap_or(layer),
                    _ => layer = format!("{network}/{SEVERAL}"),
                }
            }
            KernelOrigin { layer, call: String::new(), role: KernelRole::Optimiser, of: network.clone() }
        }
    })
}

/// The scope of a node; where it has none, as the sum of two calls' gradients, that of the nearest operand of the same role.
fn scope_of(graph: &Graph, id: NodeId) -> &str {
    let role = &graph.node(id).origin.role;
    let (mut near, mut seen) = (VecDeque::from([id]), HashSet::from([id]));
    while let Some(id) = near.pop_front() {
        let origin = &graph.node(id).origin;
        if !origin.scope.is_empty() {
            return &origin.scope;
        }
        near.extend(graph.operands(id).into_iter().filter(|&o| graph.node(o).origin.role == *role && seen.insert(o)));
    }
    ""
}

/// The layer and the call of a scope such as `fake_d/generator/4-conv_transpose`.
fn layer_and_call(scope: &str) -> (String, String) {
    let parts: Vec<&str> = scope.split('/').filter(|part| !part.is_empty()).collect();
    let is_network = |name: &&str| !name.starts_with(|c: char| c.is_ascii_digit());
    match parts.as_slice() {
        [] => (REST.into(), String::new()),
        // Behind the call comes the network, unless the call is of a function.
        [call, network, rest @ ..] if is_network(network) => {
            let layer = rest.first().map_or(network.to_string(), |layer| format!("{network}/{layer}"));
            (layer, call.to_string())
        }
        [declaration, ..] => (declaration.to_string(), String::new()),
    }
}

/// The layer of a scope such as `minimise-loss_g/generator/4-conv_transpose/weight`; of one that is of no parameter, such as
/// `generator/non_finite`, the whole of it; else the network.
fn updated_layer(scope: &str, network: &str) -> String {
    let parts: Vec<&str> = scope.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [_, network, layer, ..] => format!("{network}/{layer}"),
        [network, what] => format!("{network}/{what}"),
        [] | [_] => network.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::builtin;
    use crate::inspect::observe;

    #[test]
    fn scopes_name_layers_and_calls() {
        let of = |scope: &str| layer_and_call(scope);
        let pair = |layer: &str, call: &str| (layer.to_string(), call.to_string());
        assert_eq!(of("fake_d/generator/0-dense"), pair("generator/0-dense", "fake_d"));
        assert_eq!(of("fake_d/generator"), pair("generator", "fake_d"));
        assert_eq!(of("loss_d"), pair("loss_d", ""));
        assert_eq!(of("penalty/0-mean/sum"), pair("penalty", ""));
        assert_eq!(of(""), pair(REST, ""));
        assert_eq!(updated_layer("minimise-loss/g/0-dense/weight", "g"), "g/0-dense");
        assert_eq!(updated_layer("g/non_finite", "g"), "g/non_finite");
        assert_eq!(updated_layer("minimise-loss", "g"), "g");
    }

    /// Every kernel of the DCGAN's step but those for the count of steps is of a layer, a loss or a draw.
    #[test]
    fn kernels_of_a_step_have_layers_and_roles() {
        let observed = observe("dcgan", builtin::text("dcgan").unwrap(), &[], None).unwrap();
        let schedule = &observed.plan.entry("train_step").unwrap().schedule;
        let origins = kernel_origins(observed.history("train_step").unwrap().last(), schedule);
        let at = |kernel: &str| {
            let position = schedule.kernels.iter().position(|k| k.name == kernel);
            origins[position.unwrap_or_else(|| panic!("no kernel {kernel}"))].clone().unwrap()
        };
        let forward = at("fake_d_generator_0_dense_matmul");
        assert_eq!(forward.call_text(), "generator/0-dense of fake_d");
        assert_eq!(forward.role_text(), "forward");
        // The gradients of two calls are added without a scope of their own.
        let sum = at("add_d_discriminator_3_conv_weight");
        assert_eq!((sum.layer.as_str(), sum.role_text().as_str()), ("discriminator/3-conv", "backward of loss_d"));
        let update = (origins.iter().flatten())
            .find(|o| o.layer.ends_with(SEVERAL) && o.of == "generator")
            .expect("parameters of several layers are updated by one kernel");
        assert_eq!(update.call_text(), "generator/several layers, updated");
        assert_eq!(update.role_text(), "update of generator");
        let rest = origins.iter().filter(|o| o.as_ref().is_none_or(|o| o.layer == REST)).count();
        assert!(rest <= 1, "{origins:?}");
    }
}
