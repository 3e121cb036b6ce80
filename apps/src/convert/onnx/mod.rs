//! ONNX files of models. In: a model's weights and what is known of it. Out: a graph that `onnxruntime` and others run.
//!
//! A family is a file that builds the graph of its backbone, and a line in a table below. Heads are built once for all families.
//! Inputs and outputs are called as `transformers` calls them; the batch, and of texts the number of tokens, are the caller's
//! choice. Decoders see the whole text at once: there is no cache of keys and values.

mod autoencoder;
mod bert;
mod cnn;
mod config;
mod convnext;
mod gpt2;
mod graph;
mod image;
mod layers;
mod llama;
mod mobilenet_v2;
pub mod proto;
mod resnet;
mod segmentation;
mod source;
mod text;
mod text_heads;
mod unet;
mod vit;
mod weights;

use model::HeadKind;

use self::graph::{Graph, Var};
use self::image::{ImageFacts, ImageGraph, Seen};
pub(super) use self::source::{check, export};
use self::text::{TextFacts, TextGraph};
use self::weights::Weights;

/// Builds the states of a family's last layer, `[batch * seq, d_model]`.
type States = fn(&mut TextGraph) -> Result<Var, String>;
/// Builds what a family sees in images.
type See = fn(&mut ImageGraph) -> Result<Seen, String>;

/// Families of texts by their `model_type`, a line each.
const TEXTS: &[(&str, States)] = &[
    ("bert", bert::bert),
    ("roberta", bert::roberta),
    ("distilbert", bert::distilbert),
    ("electra", bert::bert),
    ("gpt2", gpt2::gpt2),
    ("llama", llama::llama),
    ("qwen2", llama::llama),
];

/// Families of images by their `model_type`, a line each.
const IMAGES: &[(&str, See)] = &[
    ("hearth_conv", autoencoder::encoder),
    ("hearth_mlp", cnn::mlp),
    ("hearth_cnn", cnn::cnn),
    ("resnet", resnet::large),
    ("hearth_resnet", resnet::small),
    ("hearth_vgg", cnn::vgg),
    ("mobilenet_v2", mobilenet_v2::mobilenet_v2),
    ("vit", vit::vit),
    ("convnext", convnext::convnext),
    ("hearth_unet", unet::unet),
];

/// Protocol buffers hold at most 2 GiB; the nodes take some of it.
const MOST: usize = (1 << 31) - (1 << 24);

/// What is known of a model beside its weights.
#[derive(Clone, Debug)]
enum Facts {
    /// It reads texts.
    Text(TextFacts),
    /// It sees images.
    Image(ImageFacts),
}

/// Says why a model of this family with this head has no graph, if it has none.
fn refusal(model_type: &str, head: HeadKind) -> Option<String> {
    let texts = TEXTS.iter().map(|(name, _)| name);
    let mut families = texts.chain(IMAGES.iter().map(|(name, _)| name));
    if !families.any(|name| *name == model_type) {
        return Some(format!("no ONNX graph is known of the family {model_type}"));
    }
    let is_known = match head {
        HeadKind::Bare
        | HeadKind::Tokens
        | HeadKind::SentencePairs
        | HeadKind::Replaced
        | HeadKind::Classes
        | HeadKind::TokenClasses
        | HeadKind::Spans
        | HeadKind::Choices
        | HeadKind::Pixels
        | HeadKind::Variational
        | HeadKind::Masks => true,
        HeadKind::Codes | HeadKind::Patches | HeadKind::Boxes => false,
    };
    (!is_known).then(|| no_graph_of(head))
}

fn no_graph_of(head: HeadKind) -> String {
    format!("no ONNX graph is known of {}", head.describe())
}

/// The file of a model.
///
/// - metadata: keys and values for the programs that run it
///
/// # Errors
///
/// A family or a head that no graph is known of, or weights that are too many for a file.
fn model(
    weights: Weights,
    facts: Facts,
    metadata: Vec<(String, String)>,
) -> Result<proto::Model, String> {
    let names = weights.names;
    let model_type = names.family.model_type;
    if let Some(reason) = refusal(model_type, names.head.kind) {
        return Err(reason);
    }
    check_size(weights.size())?;
    let graph = Graph::new(weights);
    let graph = match facts {
        Facts::Text(facts) => {
            let mut text = TextGraph::new(graph, facts);
            let states = of(TEXTS, model_type)?(&mut text)?;
            text.answer(&states)?;
            text.graph.check_all_taken()?;
            text.graph
        }
        Facts::Image(facts) => {
            let mut image = ImageGraph::new(graph, facts);
            let seen = of(IMAGES, model_type)?(&mut image)?;
            image.answer(&seen)?;
            image.graph
        }
    };
    let entry = |(key, value)| proto::Entry { key, value };
    let metadata = metadata.into_iter().map(entry);
    graph.finish(names.head.class, metadata.collect())
}

fn of<T: Copy>(table: &[(&str, T)], model_type: &str) -> Result<T, String> {
    let line = table.iter().find(|(name, _)| *name == model_type);
    let (_, found) = line.ok_or_else(|| format!("{model_type} is of another medium"))?;
    Ok(*found)
}

fn check_size(bytes: usize) -> Result<(), String> {
    if bytes <= MOST {
        return Ok(());
    }
    Err(format!(
        "its weights take {:.1} GiB, and an ONNX file holds 2 GiB; --precision f16 halves 32-bit weights",
        bytes as f64 / f64::from(1 << 30)
    ))
}
