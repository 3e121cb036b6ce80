//! A teacher: it sees what its student would see, and stays itself.

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::prelude::*;
use burn::tensor::TensorData;
use model::bundle::Load;
use model::{HeadKind, TextConfig, TokenModel};
use train::job::text::TokenBatch;
use train::objectives::distillation::{Sees, Teacher, TeacherBundle};

type Diff = Autodiff<Flex>;

/// What a student would be: with dropout, and the weights of all layers.
fn teacher_and_student() -> (TokenModel<Flex>, TokenModel<Diff>) {
    let device = Default::default();
    let teacher = TeacherBundle::open("wordnet-bert-nano", HeadKind::Tokens).unwrap();
    let all = teacher.bundle.with_layers(&[0, 1, 2]).unwrap();
    let config = all.text_config().unwrap();
    let mut dropping = config.clone();
    dropping.set_dropout(0.5);
    let names = config.names(HeadKind::Tokens);
    let load = |config: &TextConfig| {
        let draw = model::Draw::<Flex>::new(&device, 0.02);
        let model = TokenModel::draw(config, &draw);
        all.load(model, names, Load::Whole).unwrap().0
    };
    let student = TokenModel::from_inner(load(&config));
    (load(&dropping), student)
}

fn batch() -> TokenBatch {
    let rows: [&[u32]; 2] = [&[2, 40, 41, 42, 3], &[2, 50, 3]];
    TokenBatch::pad(rows.into_iter(), 0)
}

#[test]
fn a_student_of_all_layers_sees_what_its_teacher_sees() {
    let device = Default::default();
    let (teacher, student) = teacher_and_student();
    // Dropping half, were it to drop.
    let teacher = Teacher::<Diff, _>::new(teacher);
    let at = [1, 3, 6];
    let theirs = teacher.see(&batch(), &at, true, &device);
    let ours = student.see(&batch(), &at, true, &device);
    let values = |tensor: &Tensor<Diff, 2>| -> Vec<f32> { tensor.to_data().iter().collect() };
    assert_eq!(values(&theirs.logits), values(&ours.logits));
    let (theirs, ours) = (theirs.hidden.unwrap(), ours.hidden.unwrap());
    assert_eq!(ours.dims(), [8, 160]);
    assert_eq!(values(&theirs), values(&ours));
}

#[test]
fn a_teacher_has_no_parameters_and_stays_itself() {
    let device = Default::default();
    let (teacher, _) = teacher_and_student();
    let teacher = Teacher::<Diff, _>::new(teacher);
    assert_eq!(Module::<Diff>::num_params(&teacher), 0);
    let values = |logits: TensorData| -> Vec<f32> { logits.iter().collect() };
    let first = teacher.see(&batch(), &[1], false, &device);
    assert!(first.hidden.is_none());
    let below = teacher.valid();
    let second = below.see(&batch(), &[1], false, &device);
    let back = Teacher::<Diff, _>::from_inner(below);
    let third = back.see(&batch(), &[1], false, &device);
    let first = values(first.logits.into_data());
    assert_eq!(first, values(second.logits.into_data()));
    assert_eq!(first, values(third.logits.into_data()));
}
