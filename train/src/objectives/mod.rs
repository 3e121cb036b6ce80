//! Losses that jobs share, each over any family: chosen tokens, classes, pixels, masks, boxes, a teacher; and states that go on from
//! batch to batch.

pub mod boxes;
pub mod carried;
pub mod class_loss;
pub mod class_tally;
pub mod classes;
pub mod distillation;
pub mod masks;
pub mod pixels;
pub mod probe;
pub mod tokens;
