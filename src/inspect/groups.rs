//! The boxes around a node in a picture: the call that it belongs to, and the layer.

use crate::ir::Role;
use serde::Serialize;

/// A box around nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Group {
    /// Unique among the groups of a graph.
    pub id: String,
    pub label: String,
}

/// The groups around a node of that scope and role, from the outside in: none, a call or update, and a layer or
/// parameter in it. Forward and backward halves of a layer are in different groups.
pub fn group_path(scope: &str, role: &Role) -> Vec<Group> {
    let parts: Vec<&str> = scope.split('/').filter(|part| !part.is_empty()).collect();
    let (prefix, mark) = match role {
        Role::Forward => ("f:".to_string(), String::new()),
        Role::Gradient(loss) => (format!("g:{loss}:"), format!("∂{loss} / ")),
        Role::Optimiser(network) => {
            let outer = Group {
                id: format!("u:{}", parts.first().unwrap_or(&network.as_str())),
                label: format!("update of {network}"),
            };
            let inner = (parts.len() > 1).then(|| Group {
                id: format!("u:{}", parts.join("/")),
                label: parts[parts.len().min(3) - 1..].join(" · "),
            });
            return [outer].into_iter().chain(inner).collect();
        }
    };
    let Some(call) = parts.first() else {
        let rest = Group { id: prefix, label: format!("{mark}rest") };
        return if mark.is_empty() { Vec::new() } else { vec![rest] };
    };
    // Behind the call comes the network, unless the call is of a function.
    let network = parts.get(1).filter(|name| !name.starts_with(|c: char| c.is_ascii_digit()));
    let label = network.map_or(format!("{mark}{call}"), |network| format!("{mark}{call} · {network}"));
    let outer = Group { id: format!("{prefix}{call}"), label };
    let inner =
        (parts.len() > 2).then(|| Group { id: format!("{prefix}{}", parts.join("/")), label: parts[2..].join(" · ") });
    [outer].into_iter().chain(inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_in_calls_and_parameters_in_updates() {
        let labels = |scope: &str, role: Role| -> Vec<String> {
            group_path(scope, &role).into_iter().map(|group| group.label).collect()
        };
        assert_eq!(labels("", Role::Forward), Vec::<String>::new());
        assert_eq!(labels("loss", Role::Forward), ["loss"]);
        assert_eq!(labels("fake/generator/0-dense", Role::Forward), ["fake · generator", "0-dense"]);
        assert_eq!(labels("fake/g/0-dense", Role::Gradient("loss".into())), ["∂loss / fake · g", "0-dense"]);
        assert_eq!(labels("", Role::Gradient("loss".into())), ["∂loss / rest"]);
        assert_eq!(labels("min/g/0-dense/weight", Role::Optimiser("g".into())), ["update of g", "0-dense · weight"]);
        assert_eq!(labels("min", Role::Optimiser("g".into())), ["update of g"]);
    }
}
