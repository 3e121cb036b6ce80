//! Several labels an image, or none. In: images with their labels. Out: a classifier whose classes do not exclude each other.

use burn::prelude::*;
use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{FloatDType, TensorData};
use data::image::{ImageTargets, TargetKind};
use model::bundle::Load;
use model::layers::Linear;
use model::{HeadKind, ImageClassifier};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::image::{ImageModel, ImageRows};
use train::metrics::Metric;
use train::objective::LossSums;
use train::recipe::Impossible;
use train::scores::many_labels::ManyLabelsTally;

use crate::targets::{
    OnImages, TargetBatch, TargetLoss, Targets, VisionObjective, VisionTally, VisionTask,
};

/// The task; `assets/recipes/image-labels.toml` and the files that it names explain every key.
pub type ImageLabels = OnImages<LabelsTask>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabelsTask {
    /// What counts as a label.
    pub labels: LabelsRecipe,
}

/// `[labels]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelsRecipe {
    /// A label whose probability is higher is said to be there.
    pub threshold: f64,
}

impl LabelsRecipe {
    /// Says what is impossible about these values, if anything is.
    pub(crate) fn check(self) -> Result<(), Impossible> {
        let threshold = self.threshold;
        if threshold > 0.0 && threshold < 1.0 {
            return Ok(());
        }
        let reason = format!("is {threshold}; it must be between 0 and 1");
        Err(Impossible::new("labels.threshold", reason))
    }
}

impl VisionTask for LabelsTask {
    const NAME: &'static str = "image-labels";
    const ABOUT: &'static str = "several labels an image, or none";
    const RECIPE: &'static str = include_str!("../../assets/recipes/image-labels.toml");
    const HEAD: HeadKind = HeadKind::Classes;
    const NEEDS: &'static str =
        "labels: a table of images needs a column \"labels\" with several of them each";
    const COLUMN: TargetKind = TargetKind::Several;
    const PLACED: bool = false;

    fn check(&self) -> Result<(), Impossible> {
        self.labels.check()
    }

    fn takes(targets: &ImageTargets) -> bool {
        matches!(targets, ImageTargets::Several(all) if all.iter().any(|labels| !labels.is_empty()))
    }

    fn head_config(&self, _: &ImageRows) -> serde_json::Value {
        serde_json::json!({"problem_type": "multi_label_classification"})
    }

    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        classes: &[String],
        train: &ImageRows,
        start: &Start,
        device: &B::Device,
    ) -> Result<VisionObjective<B>, Failure> {
        let config = &model.config;
        let names = config.names(Self::HEAD);
        let model = ImageClassifier::draw(config, classes.len(), &start.draw(device, names));
        let load = start.load_for(Self::HEAD, classes)?;
        let mut model = start.fill(model, names, load)?;
        if let (Load::Backbone, ImageTargets::Several(all)) = (load, &train.targets) {
            start_at_odds(&mut model.head.output, all.iter().map(Vec::as_slice));
        }
        let threshold = self.labels.threshold;
        Ok(SeveralLabels { model, threshold }.into())
    }
}

/// What validation of several labels reports.
pub(crate) const METRICS: &[Metric] = &[
    Metric::LOSS,
    Metric::higher("micro_f1"),
    Metric::higher("macro_f1"),
    Metric::higher("subset_accuracy"),
    Metric::higher("mean_average_precision"),
    Metric::higher("roc_auc"),
];

/// A classifier with the binary cross-entropy of each class.
#[derive(Module, Debug)]
pub struct SeveralLabels<B: Backend> {
    /// The model.
    pub model: ImageClassifier<B>,
    threshold: f64,
}

/// Whether each label is there, `[n, n_classes]`.
pub(crate) fn truths(all: &[Vec<u32>], n_classes: usize) -> Vec<bool> {
    let mut truths = vec![false; all.len() * n_classes];
    for (row, labels) in all.iter().enumerate() {
        for &label in labels {
            truths[row * n_classes + label as usize] = true;
        }
    }
    truths
}

fn labels_of(batch: &TargetBatch) -> &[Vec<u32>] {
    match &batch.targets {
        Targets::Several(all) => all,
        _ => &[],
    }
}

/// Gives a new layer's outputs the logarithms of the odds of each label among the rows to train on: what is rare begins rare, and
/// the model need not unlearn that it is not.
pub(crate) fn start_at_odds<'a, B: Backend>(
    output: &mut Linear<B>,
    rows: impl Iterator<Item = &'a [u32]>,
) {
    let [_, n_classes] = output.weight.dims();
    let (mut counts, mut n) = (vec![0.0; n_classes], 0.0);
    for labels in rows {
        n += 1.0;
        labels
            .iter()
            .for_each(|&label| counts[label as usize] += 1.0);
    }
    // Half a row more of each kind: no label is certain.
    let odds = |count: &f64| ((count + 0.5) / (n - count + 0.5)).ln() as f32;
    let odds: Vec<f32> = counts.iter().map(odds).collect();
    let odds =
        Tensor::<B, 1>::from_data(TensorData::new(odds, [n_classes]), &output.weight.device());
    output.bias = output.bias.take().map(|bias| bias.map(|_| odds));
}

/// Probabilities of all classes beside what is true.
///
/// - logits: `[batch, n_classes]`
/// - threshold: the probability above which a label is said to be there
pub(crate) fn judged<B: Backend>(
    logits: Tensor<B, 2>,
    truths: &[bool],
    threshold: f64,
) -> ManyLabelsTally {
    let [_, n_classes] = logits.dims();
    let scores: Vec<f32> = sigmoid(logits).into_data().iter::<f32>().collect();
    let mut tally = ManyLabelsTally::new(n_classes, threshold as f32);
    tally.add(&scores, truths);
    tally
}

/// Binary cross-entropy of each class, a mean over the classes, summed over the images.
///
/// - logits: `[batch, n_classes]`
pub(crate) fn binary_cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    truths: &[bool],
) -> LossSums<B> {
    let [n, n_classes] = logits.dims();
    let values: Vec<f32> = truths.iter().map(|&there| f32::from(there)).collect();
    let truth =
        Tensor::<B, 2>::from_data(TensorData::new(values, [n, n_classes]), &logits.device());
    let others = truth.clone() * -1.0 + 1.0;
    let likely = log_sigmoid(logits.clone()) * truth + log_sigmoid(logits * -1.0) * others;
    LossSums::new(likely.sum() / -(n_classes as f64), vec![], n)
}

impl<B: Backend> SeveralLabels<B> {
    fn logits(&self, batch: &TargetBatch, device: &B::Device) -> Tensor<B, 2> {
        let logits = self.model.logits(batch.images.tensor(device));
        logits.cast(FloatDType::F32)
    }
}

impl<B: Backend> TargetLoss<B> for SeveralLabels<B> {
    type Model = ImageClassifier<B>;
    const METRICS: &'static [Metric] = METRICS;

    fn model(&self) -> Self::Model {
        self.model.clone()
    }

    fn loss(&self, batch: &TargetBatch, device: &B::Device) -> LossSums<B> {
        let logits = self.logits(batch, device);
        let [_, n_classes] = logits.dims();
        binary_cross_entropy(logits, &truths(labels_of(batch), n_classes))
    }

    fn tally(&self, batch: &TargetBatch, device: &B::Device) -> VisionTally {
        let logits = self.logits(batch, device);
        let [_, n_classes] = logits.dims();
        let truths = truths(labels_of(batch), n_classes);
        let sums = binary_cross_entropy(logits.clone(), &truths);
        VisionTally::read(sums, judged(logits, &truths, self.threshold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    #[test]
    fn a_new_layer_begins_at_the_odds_of_its_labels() {
        let device = Default::default();
        let draw = model::Draw::new(&device, 0.02);
        let mut layer: Linear<Flex> = draw.linear("output", 4, 3);
        let rows: [&[u32]; 4] = [&[0], &[0, 1], &[0], &[0]];
        start_at_odds(&mut layer, rows.into_iter());
        let bias: Vec<f32> = layer.bias.unwrap().val().into_data().iter().collect();
        let odds = [4.5 / 0.5, 1.5 / 3.5, 0.5 / 4.5].map(f32::ln);
        for (bias, odds) in bias.iter().zip(odds) {
            assert!((bias - odds).abs() < 1e-6, "{bias}, not {odds}");
        }
    }

    #[test]
    fn the_loss_is_what_a_hand_works_out() {
        // A logit of ln 3 is a probability of 3/4.
        let ln3 = 3f32.ln();
        let logits = TensorData::new(vec![ln3, ln3, -ln3, 0.0], [2, 2]);
        let logits = Tensor::<Flex, 2>::from_data(logits, &Default::default());
        let sums = binary_cross_entropy(logits, &[true, false, false, true]);
        let expected = ((4f32 / 3.0).ln() + 4f32.ln() + (4f32 / 3.0).ln() + 2f32.ln()) / 2.0;
        let loss: f32 = sums.loss.into_scalar();
        assert!((loss - expected).abs() < 1e-6, "{loss}, not {expected}");
    }
}
