//! The programs inside the binary.

/// Their names.
pub const NAMES: [&str; 3] = ["dcgan", "mlp-gan", "lenet"];

/// The text of a built-in program.
pub fn text(name: &str) -> Option<&'static str> {
    match name {
        "dcgan" => Some(include_str!("../../graphs/dcgan.ron")),
        "mlp-gan" => Some(include_str!("../../graphs/mlp-gan.ron")),
        "lenet" => Some(include_str!("../../graphs/lenet.ron")),
        _ => None,
    }
}
