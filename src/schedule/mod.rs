pub mod check;
pub mod memory;
