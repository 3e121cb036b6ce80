//! Says how a file's tensors and a model's differ. In: both. Out: one sentence, and what the file probably is.

use std::fmt;

use super::{Weights, listed};

/// How the tensors of a file differ from those that a model wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// What the model has and the file lacks.
    pub missing: Vec<String>,
    /// Float tensors of the file that the model has no place for.
    pub unexpected: Vec<String>,
    /// Name, shape in the file and shape in the model.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// What the file probably is, by the names in it.
    pub kind: Option<&'static str>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("lacks {}", listed(&self.missing)));
        }
        if !self.unexpected.is_empty() {
            let names = listed(&self.unexpected);
            parts.push(format!("has {names}, for which the model has no place"));
        }
        let shape = |(name, found, wanted): &(String, Vec<usize>, Vec<usize>)| {
            format!("{name} of shape {found:?} where the model has {wanted:?}")
        };
        if !self.shapes.is_empty() {
            let shapes: Vec<_> = self.shapes.iter().map(shape).collect();
            parts.push(format!("has {}", listed(&shapes)));
        }
        if parts.is_empty() {
            return f.write_str("has every tensor of the model");
        }
        f.write_str(&parts.join("; "))?;
        match self.kind {
            Some(kind) => write!(f, "; its names are those of {kind}"),
            None => Ok(()),
        }
    }
}

/// Parts of names that identify a kind: a file of it has all of them, each at the beginning of a word between dots.
type Signature = (&'static [&'static str], &'static str);

/// From the narrowest to the widest: the first that fits is taken.
const SIGNATURES: &[Signature] = &[
    (
        &["lora_A."],
        "a LoRA adapter of PEFT, which needs its base model",
    ),
    (
        &["lora_embedding_A"],
        "a LoRA adapter of PEFT, which needs its base model",
    ),
    (&["base_model.model."], "a model wrapped by PEFT"),
    (&["qweight", "qzeros"], "a model quantised by GPTQ or AWQ"),
    (
        &["weight.quant_state."],
        "a model quantised by bitsandbytes",
    ),
    (&["SCB"], "a model quantised by bitsandbytes"),
    (
        &["0.auto_model."],
        "a Sentence Transformers model saved as one module",
    ),
    (
        &["distilbert.", "vocab_transform."],
        "DistilBERT with a masked-language-model head",
    ),
    (&["distilbert."], "DistilBERT"),
    (
        &["transformer.layer.0.attention.q_lin"],
        "a DistilBERT encoder",
    ),
    (
        &["roberta.", "lm_head."],
        "RoBERTa with a masked-language-model head",
    ),
    (&["roberta.", "classifier."], "a RoBERTa classifier"),
    (&["roberta."], "RoBERTa"),
    (&["albert."], "ALBERT"),
    (&["deberta."], "DeBERTa"),
    (&["electra."], "ELECTRA"),
    (&["mpnet."], "MPNet"),
    (&["longformer."], "Longformer"),
    (&["layoutlm."], "LayoutLM"),
    (
        &["bert.", "cls.predictions."],
        "BERT with a masked-language-model head",
    ),
    (&["bert.", "qa_outputs."], "BERT for extractive questions"),
    (&["bert.", "classifier."], "a BERT classifier"),
    (&["bert.encoder."], "BERT"),
    (
        &["layers.0.attn.Wqkv", "embeddings.tok_embeddings."],
        "ModernBERT",
    ),
    (
        &[
            "embeddings.cls_token",
            "encoder.layer.0.attention.attention.query",
        ],
        "a ViT (or DeiT) encoder",
    ),
    (
        &[
            "encoder.layer.0.attention.self.query",
            "embeddings.word_embeddings.",
        ],
        "a BERT or RoBERTa encoder",
    ),
    (&["vision_model.", "text_model."], "CLIP or SigLIP"),
    (
        &["vision_model.encoder."],
        "the image encoder of CLIP or SigLIP",
    ),
    (&["vit."], "ViT"),
    (&["deit."], "DeiT"),
    (&["dinov2."], "DINOv2"),
    (&["swin."], "Swin Transformer"),
    (&["segformer."], "SegFormer"),
    (&["convnext."], "ConvNeXt"),
    (&["resnet.embedder."], "a ResNet of transformers"),
    (
        &["patch_embed.proj.", "blocks.0.attn.qkv."],
        "a ViT of timm",
    ),
    (&["wav2vec2."], "wav2vec 2.0"),
    (&["hubert."], "HuBERT"),
    (
        &["encoder.conv1.", "decoder.layers.0.encoder_attn."],
        "Whisper",
    ),
    (
        &[
            "encoder.layers.0.self_attn.",
            "decoder.layers.0.encoder_attn.",
        ],
        "BART, Marian or another translator of that family",
    ),
    (&["encoder.block.0.layer.0.SelfAttention."], "T5"),
    (
        &["decoder.layers.0.self_attn.", "decoder.embed_positions."],
        "OPT",
    ),
    (&["gpt_neox."], "GPT-NeoX (Pythia)"),
    (&["h.0.attn.attention.q_proj."], "GPT-Neo"),
    (&["h.0.attn.c_attn."], "GPT-2"),
    (&["h.0.self_attention.query_key_value."], "BLOOM or Falcon"),
    (&["h.0.attn.q_proj."], "GPT-J"),
    (&["layers.0.block_sparse_moe."], "Mixtral"),
    (&["layers.0.mixer.A_log"], "Mamba"),
    (
        &["layers.0.self_attn.q_proj.", "layers.0.mlp.gate_proj."],
        "the Llama family (Llama, Mistral, Qwen, Gemma)",
    ),
    (
        &["layers.0.self_attn.qkv_proj.", "layers.0.mlp.gate_up_proj."],
        "Phi-3",
    ),
    (
        &["layers.0.attention.wq.", "layers.0.feed_forward.w1."],
        "Llama in Meta's own format",
    ),
    (
        &["down_blocks.0.", "up_blocks.0.", "mid_block."],
        "a U-Net of diffusers",
    ),
    (
        &["encoder.down_blocks.0.", "decoder.up_blocks.0."],
        "an image autoencoder of diffusers",
    ),
    (&["features.denseblock1."], "DenseNet of torchvision"),
    (&["features.1.conv.0.0."], "MobileNetV2 of torchvision"),
    (
        &["_blocks.0._depthwise_conv."],
        "EfficientNet of efficientnet_pytorch",
    ),
    (
        &["features.0.0.", "features.1.0.block.0.0."],
        "EfficientNet of torchvision",
    ),
    (
        &["blocks.0.0.conv_dw."],
        "EfficientNet or MobileNet of timm",
    ),
    (
        &["layer1.0.conv1.", "layer4.0.conv1."],
        "ResNet of torchvision",
    ),
    (
        &["features.0.weight", "classifier.6.weight"],
        "VGG or AlexNet of torchvision",
    ),
    (
        &["features.0.weight"],
        "the convolutions of VGG or AlexNet of torchvision",
    ),
];

/// What a file probably is, in words, by the names of its tensors.
pub fn likely_kind(weights: &Weights) -> Option<&'static str> {
    let names: Vec<String> = weights
        .iter()
        .map(|tensor| format!(".{}", tensor.name))
        .collect();
    let occurs = |part: &&str| {
        let part = format!(".{part}");
        names.iter().any(|name| name.contains(&part))
    };
    let fitting = SIGNATURES
        .iter()
        .find(|(parts, _)| parts.iter().all(&occurs));
    fitting.map(|(_, kind)| *kind)
}
