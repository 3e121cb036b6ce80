//! Tiny bundles whose answers are known beforehand, and the binary that reads them.
//!
//! A head with weights of zero says the same about every input: its biases are the logarithms of the probabilities that
//! must be printed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::module::Param;
use burn::prelude::*;
use data::TextTokenizer;
use image::{GrayImage, Luma};
use model::bundle::{self, Precision};
use model::families::bart::BartConfig;
use model::families::bert::BertConfig;
use model::families::conv_autoencoder::AutoencoderConfig;
use model::families::electra::ElectraConfig;
use model::families::gpt2::Gpt2Config;
use model::families::vit::ViTConfig;
use model::heads::masked::MaskedConfig;
use model::heads::quantised::CodebookConfig;
use model::heads::variational::VariationalConfig;
use model::registry::{
    IMAGE_FAMILIES, ImageDecoder, SEQ2SEQ_FAMILIES, TEXT_FAMILIES, TextBackbone,
};
use model::{
    Autoencoder, Bundle, ChoiceModel, Detector, Draw, HeadKind, ImageClassifier, ImageConfig,
    MaskedAutoencoder, Names, QuantisedAutoencoder, ReplacedTokenModel, Segmenter,
    SentencePairModel, Seq2SeqConfig, Seq2SeqModel, SpanFinder, TextClassifier, TextConfig,
    TokenClassifier, TokenModel, VariationalAutoencoder,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const TEXTS: [&str; 4] = [
    "a small bird that sings",
    "a tool",
    "made of iron",
    "small birds",
];
/// Of the classes, in the order of the logits.
pub const SHARES: [f32; 3] = [0.2, 0.7, 0.1];
pub const CLASSES: [&str; 3] = ["plant", "animal", "food"];

pub fn wordpiece() -> TextTokenizer {
    TextTokenizer::train_wordpiece(&TEXTS, 60).unwrap()
}

/// Its `<|endoftext|>` has id 0; the 256 bytes follow.
pub fn bpe() -> TextTokenizer {
    TextTokenizer::train_bpe(&TEXTS, 270).unwrap()
}

/// 16 wide, 12 positions.
pub fn bert() -> BertConfig {
    serde_json::from_value(json!({
        "vocab_size": wordpiece().vocab_size(),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 12,
    }))
    .unwrap()
}

/// 16 wide, 40 positions; wide weights, so that texts differ.
pub fn gpt2() -> Gpt2Config {
    serde_json::from_value(json!({
        "vocab_size": bpe().vocab_size(),
        "n_positions": 40,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "initializer_range": 0.5,
    }))
    .unwrap()
}

pub fn images() -> ImageConfig {
    ImageConfig::ConvAutoencoder(AutoencoderConfig {
        image_channels: 1,
        image_height: 4,
        image_width: 6,
        channels: vec![2],
        latent_size: 3,
    })
}

/// The encoder-decoder of texts that [`wordpiece`] reads; 16 wide, 12 positions.
pub fn bart() -> BartConfig {
    let tokenizer = wordpiece();
    let end = tokenizer.end().unwrap();
    serde_json::from_value(json!({
        "vocab_size": tokenizer.vocab_size(),
        "max_position_embeddings": 12,
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_ffn_dim": 20,
        "encoder_attention_heads": 2,
        "decoder_layers": 1,
        "decoder_ffn_dim": 24,
        "decoder_attention_heads": 2,
        "pad_token_id": tokenizer.pad(),
        "eos_token_id": end,
        "decoder_start_token_id": end,
    }))
    .unwrap()
}

/// Six patches of 2x2.
pub fn vit() -> ViTConfig {
    serde_json::from_value(json!({
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "image_size": [4, 6],
        "patch_size": 2,
        "num_channels": 1,
    }))
    .unwrap()
}

/// Every head that some family has.
pub fn heads() -> Vec<HeadKind> {
    let families = TEXT_FAMILIES.iter().chain(SEQ2SEQ_FAMILIES);
    let families = families.chain(IMAGE_FAMILIES).copied();
    let mut heads = Vec::new();
    for head in families.flat_map(|family| family.all_heads()) {
        if !heads.contains(&head.kind) {
            heads.push(head.kind);
        }
    }
    heads
}

pub fn draw(device: &FlexDevice) -> Draw<'_, Flex> {
    Draw::new(device, 0.02)
}

pub fn floats(values: &[f32]) -> Param<Tensor<Flex, 1>> {
    Param::from_tensor(Tensor::from_floats(values, &Default::default()))
}

pub fn logarithms(shares: &[f32]) -> Param<Tensor<Flex, 1>> {
    let logarithms: Vec<f32> = shares.iter().map(|share| share.ln()).collect();
    floats(&logarithms)
}

pub fn zeros<const D: usize>(like: &Param<Tensor<Flex, D>>) -> Param<Tensor<Flex, D>> {
    Param::from_tensor(like.val().zeros_like())
}

pub fn classes() -> Vec<String> {
    CLASSES.map(String::from).to_vec()
}

pub fn open(path: &str) -> Bundle {
    Bundle::open(Path::new(path)).unwrap()
}

/// Bundles in one folder.
pub struct Bundles {
    folder: TempDir,
}

impl Bundles {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of what may not be there yet.
    pub fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.at(name)
    }

    pub fn png(&self, name: &str, value: u8) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let image = GrayImage::from_pixel(6, 4, Luma([value]));
        image.save(&path).unwrap();
        self.at(name)
    }

    /// A text bundle with its tokenizer.
    pub fn write_text<M: Module<Flex>>(
        &self,
        name: &str,
        config: &TextConfig,
        head: HeadKind,
        tokenizer: &TextTokenizer,
        model: &M,
    ) -> String {
        let tokenizer = tokenizer.to_json().unwrap();
        let files: &[(&str, &[u8])] = &[(bundle::TOKENIZER, tokenizer.as_bytes())];
        self.write(name, config.names(head), config, files, model)
    }

    /// A bundle of images, whose pixels are normalised as ImageNet's are.
    pub fn write_images<M: Module<Flex>>(
        &self,
        name: &str,
        config: &ImageConfig,
        head: HeadKind,
        model: &M,
    ) -> String {
        self.write(name, config.names(head), config, &[], model)
    }

    fn write<M: Module<Flex>>(
        &self,
        name: &str,
        names: Names,
        config: &impl serde::Serialize,
        files: &[(&str, &[u8])],
        model: &M,
    ) -> String {
        let classes = names.head.kind.class_layer().map(|_| classes());
        let json = bundle::config_json(names, config, classes.as_deref());
        bundle::write(&self.path(name), &json, model, names, Precision::F32, files).unwrap();
        self.at(name)
    }

    /// Takes every text for each class with its share of [`SHARES`].
    pub fn text_classifier(&self, name: &str) -> String {
        self.text_classifier_with(name, &SHARES.map(f32::ln))
    }

    /// Gives every text these logits.
    pub fn text_classifier_with(&self, name: &str, logits: &[f32]) -> String {
        let (config, device) = (TextConfig::Bert(bert()), Default::default());
        let mut model = TextClassifier::<Flex>::draw(&config, logits.len(), &draw(&device));
        model.head.output.weight = zeros(&model.head.output.weight);
        model.head.output.bias = Some(floats(logits));
        self.write_text(name, &config, HeadKind::Classes, &wordpiece(), &model)
    }

    /// Fills every mask with "bird" in three of four cases.
    pub fn masked_lm(&self, name: &str) -> String {
        let (config, device) = (TextConfig::Bert(bert()), Default::default());
        let mut model = TokenModel::<Flex>::draw(&config, &draw(&device));
        let norm = model.head.norm.as_mut().unwrap();
        norm.gamma = zeros(&norm.gamma);
        let tokenizer = wordpiece();
        let others = tokenizer.vocab_size() - 1;
        let bird = tokenizer.encode_one("bird", 9).unwrap()[1] as usize;
        let mut shares = vec![0.25 / others as f32; others + 1];
        shares[bird] = 0.75;
        model.head.bias = Some(logarithms(&shares));
        self.write_text(name, &config, HeadKind::Tokens, &tokenizer, &model)
    }

    /// Fills masks in pairs of segments, and says how these follow.
    pub fn sentence_pairs(&self, name: &str) -> String {
        let (config, device) = (TextConfig::Bert(bert()), Default::default());
        let model = SentencePairModel::<Flex>::draw(&config, &draw(&device));
        let head = HeadKind::SentencePairs;
        self.write_text(name, &config, head, &wordpiece(), &model)
    }

    /// Finds replaced tokens.
    pub fn discriminator(&self, name: &str) -> String {
        let electra = ElectraConfig {
            encoder: bert(),
            embedding_size: 8,
        };
        let (config, device) = (TextConfig::Electra(electra), Default::default());
        let model = ReplacedTokenModel::<Flex>::draw(&config, &draw(&device));
        self.write_text(name, &config, HeadKind::Replaced, &wordpiece(), &model)
    }

    /// A bundle with this head; another's name is that of its head too.
    pub fn of_head(&self, head: HeadKind) -> String {
        let name = &format!("{head:?}");
        match head {
            HeadKind::Bare => self.encoder(name),
            HeadKind::Tokens => self.masked_lm(name),
            HeadKind::SentencePairs => self.sentence_pairs(name),
            HeadKind::Replaced => self.discriminator(name),
            HeadKind::Classes => self.text_classifier(name),
            HeadKind::TokenClasses => self.tagger(name, ["DET", "NOUN", "VERB"]),
            HeadKind::Spans => self.finder(name),
            HeadKind::Choices => self.chooser(name),
            HeadKind::Pixels => self.autoencoder(name),
            HeadKind::Variational => self.variational(name),
            HeadKind::Codes => self.quantised(name),
            HeadKind::Patches => self.masked_autoencoder(name),
            HeadKind::Masks => self.segmenter(name),
            HeadKind::Boxes => self.detector(name),
        }
    }

    /// A bundle of each head, and of models of another medium with the same head.
    pub fn of_all_heads(&self) -> Vec<(HeadKind, String)> {
        let mut all: Vec<_> = heads()
            .into_iter()
            .map(|head| (head, self.of_head(head)))
            .collect();
        all.extend([
            (HeadKind::Tokens, self.causal_lm("causal")),
            (HeadKind::Tokens, self.translator("translator")),
            (HeadKind::Bare, self.bare_translator("bare-translator")),
            (HeadKind::Classes, self.image_classifier("images")),
            (HeadKind::Bare, self.image_encoder("bare-images")),
        ]);
        all
    }

    /// An encoder without a head.
    pub fn encoder(&self, name: &str) -> String {
        let (config, device) = (TextConfig::Bert(bert()), Default::default());
        let model = config.init::<Flex>(HeadKind::Bare, &draw(&device));
        self.write_text(name, &config, HeadKind::Bare, &wordpiece(), &model)
    }

    /// Gives each word the tags with the probabilities of [`SHARES`].
    pub fn tagger(&self, name: &str, tags: [&str; 3]) -> String {
        let (config, device) = (TextConfig::Bert(bert()), Default::default());
        let mut model = TokenClassifier::<Flex>::draw(&config, 3, &draw(&device));
        model.head.output.weight = zeros(&model.head.output.weight);
        model.head.output.bias = Some(logarithms(&SHARES));
        let path = self.write_text(name, &config, HeadKind::TokenClasses, &wordpiece(), &model);
        edit_config(&path, |config| {
            config["id2label"] = json!({"0": tags[0], "1": tags[1], "2": tags[2]});
            config["label2id"] = json!({tags[0]: 0, tags[1]: 1, tags[2]: 2});
        });
        path
    }

    /// Finds answers of no kind.
    pub fn finder(&self, name: &str) -> String {
        let (config, device) = (TextConfig::Bert(bert()), Default::default());
        let model = SpanFinder::<Flex>::draw(&config, &draw(&device));
        self.write_text(name, &config, HeadKind::Spans, &wordpiece(), &model)
    }

    /// Likes all choices as much.
    pub fn chooser(&self, name: &str) -> String {
        let (config, device) = (TextConfig::Bert(bert()), Default::default());
        let mut model = ChoiceModel::<Flex>::draw(&config, &draw(&device));
        model.head.score.output.weight = zeros(&model.head.score.output.weight);
        self.write_text(name, &config, HeadKind::Choices, &wordpiece(), &model)
    }

    /// Writes texts of others.
    pub fn translator(&self, name: &str) -> String {
        let (config, device) = (Seq2SeqConfig::Bart(bart()), Default::default());
        let model = Seq2SeqModel::<Flex>::draw(&config, &draw(&device));
        let names = config.names(HeadKind::Tokens);
        self.write_two_texts(name, names, &config, &model)
    }

    /// The same without what scores words.
    pub fn bare_translator(&self, name: &str) -> String {
        let (config, device) = (Seq2SeqConfig::Bart(bart()), Default::default());
        let model = config.init::<Flex>(&draw(&device));
        let names = config.names(HeadKind::Bare);
        self.write_two_texts(name, names, &config, &model)
    }

    fn write_two_texts<M: Module<Flex>>(
        &self,
        name: &str,
        names: Names,
        config: &Seq2SeqConfig,
        model: &M,
    ) -> String {
        let tokenizer = wordpiece().to_json().unwrap();
        let files: &[(&str, &[u8])] = &[(bundle::TOKENIZER, tokenizer.as_bytes())];
        self.write(name, names, config, files, model)
    }

    /// Continues texts, each in another way.
    pub fn causal_lm(&self, name: &str) -> String {
        let (config, device) = (TextConfig::Gpt2(gpt2()), Default::default());
        let model = TokenModel::<Flex>::draw(&config, &draw(&device));
        self.write_text(name, &config, HeadKind::Tokens, &bpe(), &model)
    }

    /// Continues every text with this token, again and again.
    pub fn one_token_lm(&self, name: &str, token: u32) -> String {
        self.one_token_lm_of(name, token, gpt2())
    }

    /// The same of other sizes.
    pub fn one_token_lm_of(&self, name: &str, token: u32, sizes: Gpt2Config) -> String {
        let config = Gpt2Config {
            tie_word_embeddings: false,
            ..sizes
        };
        let (config, device) = (TextConfig::Gpt2(config), Default::default());
        let mut model = TokenModel::<Flex>::draw(&config, &draw(&device));
        // The last norm gives the same state for all, and one row of the decoder points along it.
        let TextBackbone::Gpt2(backbone) = &mut model.backbone else {
            panic!("not GPT-2");
        };
        let norm = &mut backbone.ln_f;
        norm.gamma = zeros(&norm.gamma);
        norm.beta = Param::from_tensor(norm.beta.val().ones_like());
        let output = model.head.output.as_mut().unwrap();
        let [width, words] = output.weight.val().dims();
        let column = Tensor::<Flex, 2>::ones([width, 1], &device);
        let rows = 0..width;
        let place = token as usize..token as usize + 1;
        let weight = Tensor::<Flex, 2>::zeros([width, words], &device);
        output.weight = Param::from_tensor(weight.slice_assign([rows, place], column));
        self.write_text(name, &config, HeadKind::Tokens, &bpe(), &model)
    }

    /// Takes every image for each class with its share of [`SHARES`].
    pub fn image_classifier(&self, name: &str) -> String {
        let (config, device) = (images(), Default::default());
        let mut model = ImageClassifier::<Flex>::draw(&config, 3, &draw(&device));
        model.head.output.weight = zeros(&model.head.output.weight);
        model.head.output.bias = Some(logarithms(&SHARES));
        let names = config.names(HeadKind::Classes);
        self.write(name, names, &config, &[], &model)
    }

    /// An encoder of images without a head.
    pub fn image_encoder(&self, name: &str) -> String {
        let (config, device) = (images(), Default::default());
        let model = config.init::<Flex>(&draw(&device));
        self.write(name, config.names(HeadKind::Bare), &config, &[], &model)
    }

    /// Gives each pixel a class.
    pub fn segmenter(&self, name: &str) -> String {
        let (config, device) = (images(), Default::default());
        let model = Segmenter::<Flex>::draw(&config, 3, &draw(&device));
        self.write(name, config.names(HeadKind::Masks), &config, &[], &model)
    }

    /// Finds boxes.
    pub fn detector(&self, name: &str) -> String {
        let (config, device) = (images(), Default::default());
        let model = Detector::<Flex>::draw(&config, 3, &draw(&device));
        self.write(name, config.names(HeadKind::Boxes), &config, &[], &model)
    }

    /// Gives hidden patches back.
    pub fn masked_autoencoder(&self, name: &str) -> String {
        let (config, device) = (ImageConfig::ViT(vit()), Default::default());
        let head = MaskedConfig {
            decoder_hidden_size: 6,
            decoder_num_hidden_layers: 1,
            decoder_num_attention_heads: 2,
            decoder_intermediate_size: 10,
            mask_ratio: 0.5,
            norm_pix_loss: false,
        };
        let model = MaskedAutoencoder::<Flex>::draw(&config, head, &draw(&device));
        let path = self.write(name, config.names(HeadKind::Patches), &config, &[], &model);
        edit_config(&path, |config| {
            let head = serde_json::to_value(head).unwrap();
            let head = head.as_object().unwrap().clone();
            config.as_object_mut().unwrap().extend(head);
        });
        path
    }

    /// Reconstructs every image as half grey: the sigmoid of nothing.
    pub fn autoencoder(&self, name: &str) -> String {
        let (config, device) = (images(), Default::default());
        let shape = [1, 4, 6];
        let mut model = Autoencoder::<Flex>::draw(&config, shape, &draw(&device));
        let ImageDecoder::Conv(decoder) = &mut model.head else {
            panic!("the decoder is convolutional");
        };
        let last = decoder.convolutions.last_mut().unwrap();
        last.weight = zeros(&last.weight);
        last.bias = last.bias.as_ref().map(zeros);
        let names = config.names(HeadKind::Pixels);
        self.write(name, names, &config, &[], &model)
    }

    /// The same with a distribution over latent vectors.
    pub fn variational(&self, name: &str) -> String {
        let (config, device) = (images(), Default::default());
        let head = VariationalConfig {
            decoder_latent_size: 2,
        };
        let mut model =
            VariationalAutoencoder::<Flex>::draw(&config, head, [1, 4, 6], &draw(&device));
        let last = model.head.decoder.convolutions.last_mut().unwrap();
        last.weight = zeros(&last.weight);
        last.bias = last.bias.as_ref().map(zeros);
        let path = self.write(
            name,
            config.names(HeadKind::Variational),
            &config,
            &[],
            &model,
        );
        edit_config(&path, |config| config["decoder_latent_size"] = 2.into());
        path
    }

    /// The same by codes.
    pub fn quantised(&self, name: &str) -> String {
        let (config, device) = (images(), Default::default());
        let head = CodebookConfig {
            codebook_size: 4,
            code_size: 2,
        };
        let mut model =
            QuantisedAutoencoder::<Flex>::draw(&config, head, [1, 4, 6], &draw(&device));
        let last = &mut model.head.decoder.output;
        last.weight = zeros(&last.weight);
        let path = self.write(name, config.names(HeadKind::Codes), &config, &[], &model);
        edit_config(&path, |config| {
            config["codebook_size"] = 4.into();
            config["code_size"] = 2.into();
        });
        path
    }
}

/// Changes `config.json` of a bundle.
pub fn edit_config(bundle: &str, change: impl FnOnce(&mut Value)) {
    let path = Path::new(bundle).join(bundle::CONFIG);
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
}

pub fn apps(args: &[&str]) -> Output {
    let binary = Command::new(env!("CARGO_BIN_EXE_apps")).args(args).output();
    binary.unwrap()
}

/// The same with a text on standard input.
pub fn apps_with(args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apps"));
    command.args(args).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// What a command prints that must succeed.
pub fn printed(args: &[&str]) -> String {
    let output = apps(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line on standard error of a command that must refuse its input.
pub fn refused(args: &[&str]) -> String {
    let output = apps(args);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
    assert!(output.stdout.is_empty(), "{args:?} prints besides");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let message = errors.trim_end().strip_prefix("error: ");
    message.unwrap_or_else(|| panic!("{errors}")).into()
}
