//! Every family of images, small enough to train in a moment.

/// The class that a classifier's bundle names, and the settings of a small model.
pub const FAMILIES: [(&str, &[&str]); 9] = [
    (
        "HearthMlpForImageClassification",
        &["model.family=hearth_mlp", "model.hidden_sizes=[16, 8]"],
    ),
    (
        "HearthCnnForImageClassification",
        &["model.family=hearth_cnn", "model.hidden_sizes=[4, 8]"],
    ),
    (
        "ResNetForImageClassification",
        &[
            "model.family=resnet50",
            "model.embedding_size=4",
            "model.hidden_sizes=[8, 12]",
            "model.depths=[1, 1]",
        ],
    ),
    (
        "HearthResNetForImageClassification",
        &[
            "model.family=resnet20",
            "model.embedding_size=4",
            "model.hidden_sizes=[4, 6, 8]",
            "model.depths=[1, 1, 1]",
        ],
    ),
    (
        "HearthVggForImageClassification",
        &[
            "model.family=vgg11_bn",
            "model.hidden_sizes=[4, 6]",
            "model.depths=[1, 1]",
            "model.classifier_size=16",
            "model.pooled_size=2",
        ],
    ),
    (
        "MobileNetV2ForImageClassification",
        &[
            "model.family=mobilenet_v2",
            "model.depth_multiplier=0.05",
            "model.depth_divisible_by=2",
            "model.min_depth=2",
        ],
    ),
    (
        "ViTForImageClassification",
        &[
            "model.family=vit",
            "model.hidden_size=12",
            "model.num_hidden_layers=2",
            "model.intermediate_size=16",
            "model.patch_size=4",
        ],
    ),
    (
        "ConvNextForImageClassification",
        &[
            "model.family=convnext",
            "model.patch_size=2",
            "model.num_stages=2",
            "model.hidden_sizes=[4, 6]",
            "model.depths=[1, 1]",
            "model.drop_path_rate=0.1",
        ],
    ),
    (
        "HearthUNetForImageClassification",
        &["model.family=hearth_unet", "model.hidden_sizes=[4, 6]"],
    ),
];
