//! The pipeline on one core.
pub mod ring;
