//! Losses of masks and boxes against PyTorch.
//!
//! `tests/golden/README.md` says where the numbers come from and why each tolerance is what it is.

use burn::prelude::*;
use burn::tensor::TensorData;
use data::image::IGNORED;
use train::objectives::boxes::focal_loss;
use train::objectives::masks::{by_pixel, mask_loss};

use crate::objectives::{Diff, Golden};

#[test]
fn the_dice_loss_and_its_gradient_are_those_of_torch() {
    let golden = Golden::open("dice");
    let logits = golden.leaf::<4>("logits");
    let [batch, ..] = logits.dims();
    let truths: Vec<u8> = golden.values("labels").iter().map(|&x| x as u8).collect();
    let (flat, area) = by_pixel(logits.clone());
    let with = mask_loss(flat.clone(), area, &truths, 1.0);
    let without = mask_loss(flat, area, &truths, 0.0);
    let loss = (with.loss - without.loss) / batch as f64;
    golden.near("loss.plain", loss.clone());
    let gradient = logits.grad(&loss.backward()).unwrap();
    golden.near("grad.plain.logits", gradient);
}

#[test]
fn nothing_is_learned_of_what_belongs_to_no_class() {
    let device = Default::default();
    let logits = |last: f32| {
        let values = TensorData::new(vec![1.0, -1.0, 0.5, 2.0, last, -last], [3, 2]);
        Tensor::<Diff, 2>::from_data(values, &device)
    };
    let loss = |last| {
        mask_loss(logits(last), 3, &[0, 1, IGNORED], 1.0)
            .loss
            .into_scalar()
    };
    assert_eq!(loss(3.0), loss(-8.0));
    let none = mask_loss(logits(1.0), 3, &[IGNORED; 3], 1.0)
        .loss
        .into_scalar();
    assert!(none.is_finite());
}

#[test]
fn focal_losses_and_gradients_are_those_of_torch() {
    let golden = Golden::open("focal");
    let logits = golden.leaf::<2>("logits");
    let loss = focal_loss(logits.clone(), golden.tensor("targets"));
    golden.near("values", loss.clone());
    let gradient = logits.grad(&loss.sum().backward()).unwrap();
    golden.near("grad.logits", gradient);
}
