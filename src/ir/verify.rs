//! shim
use super::Graph;
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VerifyError(String);
pub fn verify(_graph: &Graph) -> Result<(), VerifyError> {
    Ok(())
}
impl std::fmt::Display for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for id in self.topological() {
            let ops: Vec<String> = self.operands(id).iter().map(|&o| format!("%{}", self.node(o).name)).collect();
            writeln!(
                f,
                "%{}: {} = {} {} {:?}",
                self.node(id).name,
                self.ty(id),
                self.op(id).name(),
                ops.join(" "),
                self.op(id)
            )?;
        }
        Ok(())
    }
}
impl serde::Serialize for Graph {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("")
    }
}
