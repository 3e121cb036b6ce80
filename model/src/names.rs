//! How parameters are called in bundles. In: a parameter's path in our modules. Out: its Hugging Face name.
//!
//! Each family describes its own names in a constant; optimizers, averages, checkpoints and bundles all know a parameter
//! by its Hugging Face name.

/// What is asked of a backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadKind {
    /// Nothing: its hidden states.
    Bare,
    /// The tokens of a text: masked or next.
    Tokens,
    /// The tokens of a pair of segments, and whether the second follows the first.
    SentencePairs,
    /// Whether each token was replaced.
    Replaced,
    /// A class of the whole input.
    Classes,
    /// A class of each token.
    TokenClasses,
    /// The first and the last token of an answer.
    Spans,
    /// One of several inputs.
    Choices,
    /// The image that was put in.
    Pixels,
    /// The same, by a distribution over latent vectors.
    Variational,
    /// The same, by codes.
    Codes,
    /// Patches of the image that were hidden.
    Patches,
    /// A class of each pixel.
    Masks,
    /// Boxes around things.
    Boxes,
}

impl HeadKind {
    /// Whether a model with this head gives images back.
    pub fn gives_images(self) -> bool {
        match self {
            Self::Pixels | Self::Variational | Self::Codes | Self::Patches => true,
            Self::Bare
            | Self::Tokens
            | Self::SentencePairs
            | Self::Replaced
            | Self::Classes
            | Self::TokenClasses
            | Self::Spans
            | Self::Choices
            | Self::Masks
            | Self::Boxes => false,
        }
    }

    /// Whether fine-tuning draws it anew, as its outputs are those of a task.
    pub fn is_of_a_task(self) -> bool {
        match self {
            Self::Classes
            | Self::TokenClasses
            | Self::Spans
            | Self::Choices
            | Self::Masks
            | Self::Boxes => true,
            Self::Bare
            | Self::Tokens
            | Self::SentencePairs
            | Self::Replaced
            | Self::Pixels
            | Self::Variational
            | Self::Codes
            | Self::Patches => false,
        }
    }

    /// The path of the weights that have a row a class, where its outputs are classes, which have names.
    pub fn class_layer(self) -> Option<&'static str> {
        match self {
            Self::Classes | Self::TokenClasses | Self::Masks => Some("head.output.weight"),
            Self::Boxes => Some("head.classes.weight"),
            Self::Bare
            | Self::Tokens
            | Self::SentencePairs
            | Self::Replaced
            | Self::Spans
            | Self::Choices
            | Self::Pixels
            | Self::Variational
            | Self::Codes
            | Self::Patches => None,
        }
    }

    /// Of the heads that weights may be of where nothing names one, that with the least number is taken: parts of one head
    /// begin like those of another, and every model has a backbone.
    pub(crate) fn rank(self) -> usize {
        match self {
            Self::Classes => 0,
            Self::TokenClasses => 1,
            Self::Choices => 2,
            Self::Spans => 3,
            Self::Replaced => 4,
            Self::SentencePairs => 5,
            Self::Tokens => 6,
            Self::Variational => 7,
            Self::Codes => 8,
            Self::Patches => 9,
            Self::Masks => 10,
            Self::Boxes => 11,
            Self::Pixels => 12,
            Self::Bare => 13,
        }
    }

    /// What a model with this head is called in messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Bare => "a backbone without a head",
            Self::Tokens => "a language model",
            Self::SentencePairs => "a model of pairs of segments",
            Self::Replaced => "a model that finds replaced tokens",
            Self::Classes => "a classifier",
            Self::TokenClasses => "a classifier of tokens",
            Self::Spans => "a model that finds answers",
            Self::Choices => "a model that chooses",
            Self::Pixels => "an autoencoder",
            Self::Variational => "a variational autoencoder",
            Self::Codes => "a vector-quantised autoencoder",
            Self::Patches => "a masked autoencoder",
            Self::Masks => "a model that segments",
            Self::Boxes => "a model that finds boxes",
        }
    }
}

/// How a head of one family is called.
#[derive(Debug)]
pub struct HeadNames {
    /// Which head.
    pub kind: HeadKind,
    /// The model's class, as `architectures` in `config.json` has it: `BertForMaskedLM`.
    pub class: &'static str,
    /// Paths in the head to names beside the backbone, by their beginning: `dense.` to `cls.predictions.transform.dense.`.
    pub renames: &'static [(&'static str, &'static str)],
    /// Other names that files have for the same tensors, ours first.
    pub aliases: &'static [(&'static str, &'static str)],
}

/// How one family's parameters are called in a bundle.
#[derive(Debug)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// In front of the backbone's names where there is a head: `bert.`.
    pub prefix: &'static str,
    /// The same for [`HeadKind::Spans`], where it is another one; empty where it is not.
    pub prefix_of_spans: &'static str,
    /// Parts of the backbone's paths to parts of Hugging Face's, replaced one after the other.
    pub renames: &'static [(&'static str, &'static str)],
    /// Heads that Hugging Face has for it; the first is the bare backbone.
    pub heads: &'static [HeadNames],
    /// What stands before the number of a layer: `encoder.layer.`.
    pub layer: &'static str,
    /// Parts of names of embedding tables, which do not decay and lie below the first layer.
    pub tables: &'static [&'static str],
    /// The token table, without the prefix; empty where there is none.
    pub token_table: &'static str,
    /// Ends of names in files that hold no parameters of ours, such as buffers.
    pub ignored: &'static [&'static str],
    /// Parts of the backbone, without the prefix, that files may lack: `pooler.`.
    pub optional: &'static [&'static str],
    /// Keys of `config.json` that change what a model computes, each with the one value, as JSON, that is computed here.
    pub fixed: &'static [(&'static str, &'static str)],
    /// Keys of `config.json` that mean a value, as JSON, where they are left out.
    pub defaults: &'static [(&'static str, &'static str)],
    /// Linear layers that get a low-rank adapter where none are named, as the `peft` package has them.
    pub adapter_targets: &'static [&'static str],
    /// Linear layers that get a bottleneck where none are named: the last of each feed-forward block.
    pub bottleneck_targets: &'static [&'static str],
    /// Whether trained vectors can stand in front of its tokens, or in front of the keys and values of its layers.
    pub virtual_tokens: bool,
    /// Whether a bundle holds the weights of linear layers as `[d_input, d_output]`.
    pub fan_in_fan_out: bool,
    /// The first convolution's weight, without the prefix: fits images of more or fewer channels than it was trained on. Empty
    /// where there is none.
    pub first: &'static str,
    /// The table of a vision transformer's positions, without the prefix, which fits images of other sizes. Empty where there
    /// is none.
    pub positions: &'static str,
    /// What torchvision calls a parameter of this name, with or without the prefix; none for names that it does not have.
    pub torchvision: Option<fn(&str) -> Option<Foreign>>,
}

/// Heads that every family of images has, beside its own.
const OF_IMAGES: &[HeadNames] = &[
    HeadNames {
        kind: HeadKind::Pixels,
        class: "HearthAutoencoder",
        renames: &[("", "decoder.")],
        aliases: &[],
    },
    HeadNames {
        kind: HeadKind::Variational,
        class: "HearthVariationalAutoencoder",
        renames: &[
            ("mean.", "posterior.mean."),
            ("log_variance.", "posterior.log_variance."),
            ("decoder.", "decoder."),
        ],
        aliases: &[],
    },
    HeadNames {
        kind: HeadKind::Codes,
        class: "HearthQuantisedAutoencoder",
        renames: &[
            ("codebook.", "codes.codebook."),
            ("projection.", "codes.projection."),
            ("decoder.", "decoder."),
        ],
        aliases: &[],
    },
    HeadNames {
        kind: HeadKind::Masks,
        class: "HearthForSemanticSegmentation",
        renames: &[("", "segmentation_head.")],
        aliases: &[],
    },
    HeadNames {
        kind: HeadKind::Boxes,
        class: "HearthForObjectDetection",
        renames: &[("", "detection_head.")],
        aliases: &[],
    },
];

/// A parameter in a file of another library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its tensor there.
    pub name: String,
    /// Which of so many equal parts of the tensor's first axis it is, where it is not the whole tensor.
    pub part: Option<[usize; 2]>,
    /// Axes of one behind those of the parameter.
    pub axes: usize,
}

impl Foreign {
    /// A whole tensor.
    pub fn whole(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            part: None,
            axes: 0,
        }
    }
}

/// Names of one family with one head.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Of the backbone.
    pub family: &'static Family,
    /// Of the head.
    pub head: &'static HeadNames,
}

impl Names {
    /// Names of a family with a head.
    ///
    /// # Panics
    ///
    /// If the family has no such head; [`Family::head`] says whether it does.
    pub fn new(family: &'static Family, kind: HeadKind) -> Self {
        let head = family.head(kind);
        let head = head.unwrap_or_else(|| panic!("{} has no {kind:?} head", family.model_type));
        Self { family, head }
    }

    /// In front of the backbone's names: nothing where there is no head.
    pub fn prefix(&self) -> &'static str {
        if self.head.kind == HeadKind::Bare {
            return "";
        }
        match self.family.prefix_of_spans {
            other if self.head.kind == HeadKind::Spans && !other.is_empty() => other,
            _ => self.family.prefix,
        }
    }

    /// A parameter's path in our modules, as Hugging Face names it.
    ///
    /// - path: without the wrappers that training puts around a model
    pub fn theirs(&self, path: &str) -> String {
        let name = if let Some(inside) = path.strip_prefix("backbone.") {
            format!("{}{}", self.prefix(), self.family.theirs(inside))
        } else if let Some(inside) = path.strip_prefix("head.") {
            let found = self
                .head
                .renames
                .iter()
                .find(|(ours, _)| inside.starts_with(ours));
            match found {
                Some((ours, theirs)) => format!("{theirs}{}", &inside[ours.len()..]),
                None => inside.into(),
            }
        } else {
            self.family.theirs(path)
        };
        torch_field(name)
    }

    /// The number of the layer that a parameter belongs to, counted from the input.
    pub fn layer(&self, name: &str) -> Option<usize> {
        let (_, number, _) = around_layer(name, self.family.layer)?;
        Some(number)
    }

    /// Whether this is an embedding table, or one of the parameters beside it.
    pub fn is_table(&self, name: &str) -> bool {
        let inside = |table: &&str| name.contains(*table);
        name != VIRTUAL_TOKENS && self.family.tables.iter().any(inside)
    }

    /// Whether this is a parameter of the backbone.
    pub fn is_backbone(&self, name: &str) -> bool {
        // Without a prefix the head's own names tell it apart.
        let mut heads = self.head.renames.iter();
        self.head.kind == HeadKind::Bare
            || (name.starts_with(self.prefix())
                && !heads.any(|(_, theirs)| name.starts_with(theirs)))
    }
}

/// A name in three parts: what is in front of a layer, the layer's number, what comes after it.
///
/// - before: [`Family::layer`]
pub(crate) fn around_layer<'a>(name: &'a str, before: &str) -> Option<(&'a str, usize, &'a str)> {
    let (head, inside) = name.split_once(before)?;
    // PyTorch's recurrent layers have it at the end of the name.
    let end = inside.find('.').unwrap_or(inside.len());
    let (number, tail) = inside.split_at(end);
    Some((head, number.parse().ok()?, tail))
}

impl Family {
    /// One of images, with nothing but its type.
    pub const fn of_images(model_type: &'static str) -> Self {
        Self {
            model_type,
            prefix: "",
            prefix_of_spans: "",
            renames: &[],
            heads: &[],
            layer: "",
            tables: &[],
            token_table: "",
            ignored: &[],
            optional: &[],
            fixed: &[("quantization_config", "null")],
            defaults: &[],
            adapter_targets: &[],
            bottleneck_targets: &[],
            virtual_tokens: false,
            fan_in_fan_out: false,
            first: "",
            positions: "",
            torchvision: None,
        }
    }

    /// Its names with this head, if there is such a model.
    pub fn head(&'static self, kind: HeadKind) -> Option<&'static HeadNames> {
        self.all_heads().find(|head| head.kind == kind)
    }

    /// The head of the model with this class name.
    pub fn head_of_class(&'static self, class: &str) -> Option<&'static HeadNames> {
        self.all_heads().find(|head| head.class == class)
    }

    /// All heads that models of it can have, the bare backbone first.
    pub fn all_heads(&'static self) -> impl Iterator<Item = &'static HeadNames> {
        let of_images: &[HeadNames] = if self.is_of_images() { OF_IMAGES } else { &[] };
        self.heads.iter().chain(of_images)
    }

    /// Whether it sees images, and not texts.
    pub fn is_of_images(&self) -> bool {
        self.token_table.is_empty()
    }

    /// Whether it reads a text and writes another.
    pub fn is_of_two_texts(&self) -> bool {
        let mut families = crate::registry::SEQ2SEQ_FAMILIES.iter();
        families.any(|family| family.model_type == self.model_type)
    }

    /// A path inside the backbone, as Hugging Face names it, without the prefix.
    pub fn theirs(&self, path: &str) -> String {
        let name = self
            .renames
            .iter()
            .fold(format!(".{path}"), |name, (ours, theirs)| {
                name.replace(ours, theirs)
            });
        name.trim_start_matches('.').into()
    }
}

/// What `peft` calls the vectors of virtual tokens, whatever they stand in front of.
pub const VIRTUAL_TOKENS: &str = "prompt_embeddings";

/// Whether a parameter is an adapter's, and not the model's own.
pub fn is_of_adapter(name: &str) -> bool {
    name == VIRTUAL_TOKENS || name.contains(".lora_") || name.contains(".bottleneck_")
}

/// Norms have Burn's parameter names here and PyTorch's in a bundle; adapters those of the `peft` package, where it has them.
fn torch_field(name: String) -> String {
    if name.ends_with(VIRTUAL_TOKENS) {
        return VIRTUAL_TOKENS.into();
    }
    if let Some((layer, part)) = name.split_once(".bottleneck.") {
        return match part.strip_suffix("_bias") {
            Some(part) => format!("{layer}.bottleneck_{part}.bias"),
            None => format!("{layer}.bottleneck_{part}.weight"),
        };
    }
    if let Some((layer, part)) = name.split_once(".low_rank.") {
        return match part {
            "lora_a" => format!("{layer}.lora_A.weight"),
            "lora_b" => format!("{layer}.lora_B.weight"),
            _ => format!("{layer}.lora_magnitude_vector"),
        };
    }
    match name.rsplit_once('.') {
        Some((stem, "gamma")) => format!("{stem}.weight"),
        Some((stem, "beta")) => format!("{stem}.bias"),
        _ => name,
    }
}
