//! Derivatives against central differences, and the structure of what is built.

mod structure;
