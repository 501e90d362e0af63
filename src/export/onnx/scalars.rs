//! The scalar operations in ONNX.

use super::proto::ElementType;
use super::writer::{Value, Writer, int};
use crate::scalar::ScalarOp;
use crate::tensor::DType;

impl Writer {
    /// Writes a scalar operation under a name; `Err` says why ONNX has none that does it.
    pub fn scalar(&mut self, op: ScalarOp, operands: &[&str], name: &str) -> Result<String, &'static str> {
        let plain = match op {
            ScalarOp::Add => "Add",
            ScalarOp::Sub => "Sub",
            ScalarOp::Mul => "Mul",
            ScalarOp::Div => "Div",
            ScalarOp::Max => "Max",
            ScalarOp::Min => "Min",
            ScalarOp::Pow => "Pow",
            ScalarOp::Neg => "Neg",
            ScalarOp::Abs => "Abs",
            ScalarOp::Sign => "Sign",
            ScalarOp::Exp => "Exp",
            ScalarOp::Log => "Log",
            ScalarOp::Sqrt => "Sqrt",
            ScalarOp::Tanh => "Tanh",
            ScalarOp::Sigmoid => "Sigmoid",
            ScalarOp::Softplus => "Softplus",
            ScalarOp::Sin => "Sin",
            ScalarOp::Cos => "Cos",
            ScalarOp::Tan => "Tan",
            ScalarOp::Asin => "Asin",
            ScalarOp::Acos => "Acos",
            ScalarOp::Atan => "Atan",
            ScalarOp::Sinh => "Sinh",
            ScalarOp::Cosh => "Cosh",
            ScalarOp::Asinh => "Asinh",
            ScalarOp::Acosh => "Acosh",
            ScalarOp::Atanh => "Atanh",
            ScalarOp::Erf => "Erf",
            ScalarOp::Floor => "Floor",
            ScalarOp::Ceil => "Ceil",
            ScalarOp::Round => "Round",
            ScalarOp::IsNan => return Ok(self.mask("IsNaN", operands, name)),
            ScalarOp::Lt => return Ok(self.mask("Less", operands, name)),
            ScalarOp::Le => return Ok(self.mask("LessOrEqual", operands, name)),
            ScalarOp::Gt => return Ok(self.mask("Greater", operands, name)),
            ScalarOp::Ge => return Ok(self.mask("GreaterOrEqual", operands, name)),
            ScalarOp::Eq => return Ok(self.mask("Equal", operands, name)),
            ScalarOp::Fmod => return Ok(self.exactly("Mod", operands, vec![int("fmod", 1)], name)),
            ScalarOp::ToReal => return Ok(self.cast(operands[0], ElementType::Float, name)),
            ScalarOp::Rsqrt => {
                let root = self.part("Sqrt", operands, Vec::new(), name);
                return Ok(self.exactly("Reciprocal", &[&root], Vec::new(), name));
            }
            ScalarOp::Expm1Product => {
                let sum = self.part("Add", &operands[1..], Vec::new(), name);
                let product = self.part("Mul", &[operands[0], &sum], Vec::new(), name);
                let power = self.part("Exp", &[&product], Vec::new(), name);
                let one = self.number(1.0, DType::F32).name;
                return Ok(self.exactly("Sub", &[&power, &one], Vec::new(), name));
            }
            ScalarOp::Select => {
                let truth = self.truth(operands[0], name);
                return Ok(self.exactly("Where", &[&truth, operands[1], operands[2]], Vec::new(), name));
            }
            ScalarOp::AddU32 => {
                // Sums are taken modulo 2^32.
                let sum = self.part("Add", operands, Vec::new(), name);
                let Value { name: modulus, .. } = self.number(f64::from(u32::MAX) + 1.0, DType::U32);
                return Ok(self.exactly("Mod", &[&sum, &modulus], Vec::new(), name));
            }
            ScalarOp::RoundBf16 => {
                let narrow = self.unique(&format!("{name}/bf16"));
                let narrow = self.cast(operands[0], ElementType::Bfloat16, &narrow);
                return Ok(self.cast(&narrow, ElementType::Float, name));
            }
            ScalarOp::RoundTf32 => return Err("ONNX has no TF32"),
        };
        Ok(self.exactly(plain, operands, Vec::new(), name))
    }
}
