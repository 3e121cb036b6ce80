//! The methods: what they are called, what they say, and of what models.

use clap::ValueEnum;
use train::Failure;

/// How a score is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Gradients on the way from a baseline: padding in place of a text, a black image
    IntegratedGradients,
    /// How much of each token, or patch of an image, reaches what is classified by attention
    #[value(alias = "rollout")]
    AttentionRollout,
    /// How far the score falls where a token or a patch is hidden
    Occlusion,
    /// Images: where the last feature maps speak for the class
    GradCam,
}

impl Method {
    /// As `--method` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::IntegratedGradients => "integrated-gradients",
            Self::AttentionRollout => "attention-rollout",
            Self::Occlusion => "occlusion",
            Self::GradCam => "grad-cam",
        }
    }

    /// In a sentence.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::IntegratedGradients => "integrated gradients",
            Self::AttentionRollout => "attention rollout",
            Self::Occlusion => "occlusion",
            Self::GradCam => "Grad-CAM",
        }
    }

    /// What its numbers say.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::IntegratedGradients => {
                "Integrated gradients (Sundararajan et al. 2017): the attributions sum to the score here less the score at the \
                 baseline, which is a text of padding tokens between the special ones, or a black image."
            }
            Self::AttentionRollout => {
                "Attention rollout (Abnar and Zuidema 2020): how much of each token, or patch of an image, reaches the one that \
                 the classifier reads, through all layers. The shares of the tokens sum to 1, with the class token's among them, \
                 and are the same for every class."
            }
            Self::Occlusion => {
                "Occlusion (Zeiler and Fergus 2014): how far the score falls where a token is replaced by the mask token, or a \
                 patch of the image by black."
            }
            Self::GradCam => {
                "Grad-CAM (Selvaraju et al. 2017): the last feature maps, weighted by their mean gradients; what speaks against \
                 the class is left out."
            }
        }
    }

    /// Whether it explains models of texts, or of images.
    pub fn fits(self, is_text: bool) -> bool {
        match self {
            Self::IntegratedGradients | Self::Occlusion | Self::AttentionRollout => true,
            Self::GradCam => !is_text,
        }
    }
}

/// A method that knows nothing of texts.
pub(super) fn not_of_texts(method: Method) -> Failure {
    let name = method.name();
    Failure::input(format!(
        "{name} explains models of images, and this one reads texts; integrated-gradients and occlusion fit both"
    ))
}
