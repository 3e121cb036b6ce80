//! What training starts from: a bundle, or a family's sizes. In: `from`, `[model]`, `[adapter]`. Out: models with their
//! weights.

use std::path::Path;

use burn::prelude::*;
use data::TextTokenizer;
use model::bundle::peft::AdapterFiles;
use model::bundle::{Bundle, ImageInput, Load};
use model::layers::{Adapter, Draw, materialise};
use model::names::{Family, is_of_adapter};
use model::registry::{IMAGE_FAMILIES, SEQ2SEQ_FAMILIES, TEXT_FAMILIES};
use model::{HeadKind, ImageConfig, Names, Seq2SeqConfig, TextConfig};

use crate::failure::Failure;
use crate::job::Recipe;
use crate::job::strategy::{HeadStart, StrategyKind};
use crate::job::text::check_lengths;
use crate::recipe::{Draft, Impossible};
use crate::run::{self, Held};
use crate::ui::{Console, Ui};

/// The bundle that `from` names, or none.
pub struct Start {
    from: String,
    bundle: Option<Bundle>,
    /// Of a text model that is drawn anew, where there is one already.
    tokenizer: Option<TextTokenizer>,
    adapter: Option<Adapter>,
    settings: Recipe,
    /// What the person sees before training.
    pub console: Console,
}

/// Opens what `from` names: a bundled model, a bundle, or the bundle of a run; nothing for `scratch`.
///
/// # Errors
///
/// A directory that is no bundle.
pub fn open(from: &str) -> Result<Option<Bundle>, Failure> {
    if from == "scratch" {
        return Ok(None);
    }
    if let Some(bundle) = model::bundled::open(from) {
        return Ok(Some(bundle?));
    }
    Ok(Some(Bundle::find(Path::new(from))?))
}

/// Opens a file of an image model's weights, as torchvision's are.
///
/// - model: `[model]` of a recipe, which says what the weights are of
///
/// # Errors
///
/// A model of texts, whose tokenizer no such file holds.
fn open_weights(from: &str, recipe: &Recipe) -> Result<Bundle, Failure> {
    let is_of_images = match family_named(recipe) {
        Some(family) => family.head(HeadKind::Tokens).is_none(),
        None => false,
    };
    if !is_of_images {
        return Err(Failure::input(format!(
            "{from}: is a file; a model of texts is a directory, with its tokenizer"
        )));
    }
    let config = recipe.config(serde_json::json!({}))?;
    Ok(Bundle::of_weights(Path::new(from), config)?)
}

/// Opens a file of an image model's weights, whose family is set as in a recipe: `model.family=resnet50`.
///
/// # Errors
///
/// No family, or one that is not known.
pub fn open_file(path: &str, settings: &[String]) -> Result<Bundle, Failure> {
    const NOTHING: &str = "task = \"weights\"\nlayers = [\"shared\", \"models/hearth_cnn\"]\n";
    if !settings
        .iter()
        .any(|text| text.trim_start().starts_with("model.family"))
    {
        return Err(Failure::input(format!(
            "{path}: is a file, and a model is a directory; where it holds weights of torchvision's, \
             --set model.family=resnet50 names their family"
        )));
    }
    let mut draft = Draft::open("weights", "task", &[("weights", NOTHING)])?;
    draft.set_all(settings.iter().map(String::as_str))?;
    open_weights(path, &draft.finish::<Recipe>()?)
}

impl Start {
    /// Opens the bundle; its weights are read later.
    ///
    /// # Errors
    ///
    /// A directory that is no bundle, or an adapter that fits nothing.
    pub fn open(recipe: &Recipe, ui: Ui) -> Result<Self, Failure> {
        let bundle = if Path::new(&recipe.from).is_file() {
            Some(open_weights(&recipe.from, recipe)?)
        } else {
            open(&recipe.from)?
        };
        Self::with_bundle(recipe, bundle, ui)
    }

    /// Starts from an opened bundle, or from nothing; `from` is what messages call it.
    ///
    /// # Errors
    ///
    /// A dropout or an adapter that fits nothing.
    pub fn with_bundle(recipe: &Recipe, bundle: Option<Bundle>, ui: Ui) -> Result<Self, Failure> {
        if recipe.strategy.dropout >= 0.0 {
            let reason = match &bundle {
                None => Some("is for a model that is loaded; model.dropout is that of a new one"),
                Some(bundle) if !bundle.is_text() => {
                    Some("is for texts; models of images drop nothing")
                }
                Some(_) => None,
            };
            if let Some(reason) = reason {
                return Err(Impossible::new("strategy.dropout", reason).into());
            }
        }
        let family = match &bundle {
            Some(bundle) => Some(bundle.family()),
            None => family_named(recipe),
        };
        if let Some(beside) = bundle.as_ref().and_then(Bundle::beside) {
            return Err(Failure::input(format!(
                "{}: holds {}, which cannot be merged into its model, so no training starts from it; start from its base model",
                recipe.from,
                beside.describe()
            )));
        }
        let adapter = recipe.adapter.adapter(family)?;
        Ok(Self {
            from: recipe.from.clone(),
            bundle,
            tokenizer: None,
            adapter,
            settings: recipe.clone(),
            console: Console::new(ui),
        })
    }

    /// What is held of most of the bundle's parameters.
    fn held(&self) -> Held {
        let little = self.adapter.is_some() || self.settings.strategy.kind == StrategyKind::Head;
        if little { Held::Value } else { Held::Training }
    }

    /// The sections of the recipe that all jobs share.
    pub(crate) fn settings(&self) -> &Recipe {
        &self.settings
    }

    /// Whether rows share sequences.
    pub(crate) fn packs(&self) -> bool {
        self.settings.training.packing
    }

    /// The bundle, if training starts from one.
    pub fn bundle(&self) -> Option<&Bundle> {
        self.bundle.as_ref()
    }

    /// With the tokenizer of a text model that is drawn anew.
    pub fn with_tokenizer(self, tokenizer: TextTokenizer) -> Self {
        Self {
            tokenizer: Some(tokenizer),
            ..self
        }
    }

    /// The bundle's tokenizer, or the one that a new model is given, if there is either.
    ///
    /// # Errors
    ///
    /// A bundle of images, or one without a tokenizer.
    pub fn tokenizer(&self) -> Result<Option<TextTokenizer>, Failure> {
        let Some(bundle) = &self.bundle else {
            return Ok(self.tokenizer.clone());
        };
        bundle.text_config()?;
        Ok(Some(crate::job::text::bundle_tokenizer(bundle)?))
    }

    /// The configuration of the text model: the bundle's, or that of `[model]` for this tokenizer.
    ///
    /// # Errors
    ///
    /// Sizes that are impossible or too large for this machine, a tokenizer that the bundle's model has no room for.
    pub fn text_config(&self, tokenizer: &TextTokenizer) -> Result<TextConfig, Failure> {
        let Some(bundle) = &self.bundle else {
            let mut config = self.settings.text_sizes()?;
            config.set_vocabulary(tokenizer.vocab_size(), tokenizer.pad());
            let wrong = |reason| Impossible::new("model", format!("is impossible: {reason}"));
            config.check().map_err(wrong)?;
            run::check_memory(config.describe().parameters, Held::Training).map_err(wrong)?;
            return Ok(config);
        };
        let mut config = bundle.text_config()?;
        let wrong = |reason| Failure::input(format!("{}: {reason}", self.from));
        if self.settings.strategy.dropout >= 0.0 {
            config.set_dropout(self.settings.strategy.dropout);
        }
        let sizes = config.describe();
        run::check_memory(sizes.parameters, self.held()).map_err(wrong)?;
        let tokens = tokenizer.largest_id() as usize + 1;
        if tokens > sizes.vocab_size {
            return Err(wrong(format!(
                "the tokenizer has {tokens} tokens and the model {}",
                sizes.vocab_size
            )));
        }
        Ok(config)
    }

    /// The configuration of the text model before there is a tokenizer: of a new one with a vocabulary of one.
    ///
    /// # Errors
    ///
    /// A model of images, or a key that is missing or wrong.
    pub fn text_sizes(&self) -> Result<TextConfig, Failure> {
        match &self.bundle {
            Some(bundle) => Ok(bundle.text_config()?),
            None => Ok(self.settings.text_sizes()?),
        }
    }

    /// Refuses a text model of a family without this head, before any text is read.
    ///
    /// # Errors
    ///
    /// Such a model, or one of images.
    pub fn check_text_head(&self, head: HeadKind) -> Result<(), Failure> {
        let family = self.text_sizes()?.family();
        check_head(family, TEXT_FAMILIES, head).map_err(|why| match &self.bundle {
            Some(_) => Failure::input(format!("{}: its family {why}", self.from)),
            None => Impossible::new("model.family", why).into(),
        })
    }

    /// Refuses a text model that sees another side of a token than an objective needs, before any text is read.
    ///
    /// - causal: whether the tokens to come are to be hidden from it
    /// - other: the command for models of the other kind
    ///
    /// # Errors
    ///
    /// A model of the other kind, or of images.
    pub fn check_causal(&self, causal: bool, other: &str) -> Result<(), Failure> {
        let config = self.text_sizes()?;
        if config.describe().causal == causal {
            return Ok(());
        }
        let family = config.family().model_type;
        let sees = if causal {
            "the tokens to come"
        } else {
            "no token to its right"
        };
        let reason = format!("\"{family}\", which sees {sees}; {other} is for it");
        Err(match &self.bundle {
            Some(_) => Failure::input(format!("{}: holds a model of type {reason}", self.from)),
            None => Impossible::new("model.family", format!("is {reason}")).into(),
        })
    }

    /// The configuration of the image model for images of this shape: the bundle's, or that of `[model]`.
    ///
    /// - shape: channels, height, width
    /// - head: what the model is for
    ///
    /// # Errors
    ///
    /// Sizes that are impossible or too large for this machine, a family without such a head, a bundle whose weights fit no
    /// images of this shape.
    pub fn image_config(&self, shape: [usize; 3], head: HeadKind) -> Result<ImageConfig, Failure> {
        let check = |config: &ImageConfig| check_head(config.family(), IMAGE_FAMILIES, head);
        let Some(bundle) = &self.bundle else {
            let config = self.settings.image_sizes(shape)?;
            let wrong = |reason| Impossible::new("model", format!("is impossible: {reason}"));
            config.check().map_err(wrong)?;
            check(&config).map_err(|why| Impossible::new("model.family", why))?;
            run::check_memory(config.describe().parameters, Held::Training).map_err(wrong)?;
            return Ok(config);
        };
        let mut config = bundle.image_config()?;
        let place = bundle.path().display();
        let wrong = |reason| Failure::input(format!("{place}: {reason}"));
        check(&config).map_err(|why| wrong(format!("its family {why}")))?;
        run::check_memory(config.describe().parameters, self.held()).map_err(wrong)?;
        if config.can_be_fitted() {
            config.fit(shape);
            config.check().map_err(wrong)?;
        } else {
            let plan = config.describe();
            let [height, width] = plan.size.unwrap_or([shape[1], shape[2]]);
            check_shape([plan.channels, height, width], shape).map_err(wrong)?;
        }
        Ok(config)
    }

    /// Refuses texts of more tokens than the model has positions for, beside those that an adapter takes.
    ///
    /// - config: of the model
    ///
    /// # Errors
    ///
    /// Fewer than 3 tokens, or more than positions.
    pub fn check_length(&self, max_length: usize, config: &TextConfig) -> Result<(), Impossible> {
        self.settings.check_length(max_length, config)
    }

    /// What the bundle's model sees of an image, if training starts from one of images.
    ///
    /// # Errors
    ///
    /// A file of the bundle that cannot be read.
    pub fn image_input(&self) -> Result<Option<ImageInput>, Failure> {
        let Some(bundle) = &self.bundle else {
            return Ok(None);
        };
        let config = bundle.image_config()?;
        Ok(Some(bundle.image_input(&config)?))
    }

    /// What layers are drawn with.
    pub fn draw<'a, B: Backend>(&'a self, device: &'a B::Device, names: Names) -> Draw<'a, B> {
        let freezes = self.bundle.is_some() && self.settings.strategy.freezes_statistics();
        Draw::new(device, 0.02)
            .with_adapter(self.adapter.as_ref(), names)
            .with_frozen_statistics(freezes)
    }

    /// How much of the bundle a task takes: its backbone, or its head too where `strategy.head` keeps it.
    ///
    /// - classes: of the data, in the order of the logits
    ///
    /// # Errors
    ///
    /// A head that is to be kept, and is none, or of other classes.
    pub fn load_for(&self, head: HeadKind, classes: &[String]) -> Result<Load, Failure> {
        if self.settings.strategy.head == HeadStart::New {
            return Ok(Load::Backbone);
        }
        let Some(bundle) = &self.bundle else {
            let reason = "is \"keep\", and a new model has no head that was trained";
            return Err(Impossible::new("strategy.head", reason).into());
        };
        bundle.require(head)?;
        if head.class_layer().is_none() {
            return Ok(Load::Whole);
        }
        let held = bundle.classes()?;
        if held == classes {
            return Ok(Load::Whole);
        }
        let reason = format!(
            "is \"keep\", and the classes of {} are {}, those of the data {}",
            self.from,
            listed(&held),
            listed(classes)
        );
        Err(Impossible::new("strategy.head", reason).into())
    }

    /// The model with all its parameters drawn, and the bundle's weights in it where there is a bundle.
    ///
    /// # Errors
    ///
    /// Weights that are missing, of another shape, or not finite; an adapter that no layer takes.
    pub fn fill<B: Backend, M: Module<B>>(
        &self,
        module: M,
        names: Names,
        load: Load,
    ) -> Result<M, Failure> {
        let mut module = materialise(module);
        let usual = match &self.adapter {
            Some(Adapter::LowRank(_)) => Some(names.family.adapter_targets),
            Some(Adapter::Bottleneck(_)) => Some(names.family.bottleneck_targets),
            Some(Adapter::Prompt(_) | Adapter::Prefix(_)) | None => None,
        };
        if let Some(usual) = usual
            && model::bundle::peft::count::<B, M>(&module, names) == 0
        {
            let targets = match &self.settings.adapter.targets[..] {
                [] => usual.join(", "),
                named => named.join(", "),
            };
            let reason = format!("are {targets}, and no linear layer has such a name");
            return Err(Impossible::new("adapter.targets", reason).into());
        }
        if let Some(bundle) = &self.bundle {
            let loaded;
            (module, loaded) = bundle.load(module, names, load)?;
            self.report(&loaded.drawn, names);
            for note in &loaded.fitted {
                self.console.note(&format!("{}: {note}", self.from));
            }
            if let Some(lost) = loaded.lost(names) {
                let text = format!("{}: {lost}", self.from);
                self.console.warn_outside(&text);
            }
        }
        let low_rank = self.adapter.as_ref().and_then(Adapter::low_rank);
        if low_rank.is_some_and(|plan| plan.dora) {
            module = model::bundle::peft::set_magnitudes(module, names);
        }
        Ok(module)
    }

    /// Says which part of the model the bundle does not have.
    fn report(&self, drawn: &[String], names: Names) {
        let head = drawn
            .iter()
            .any(|name| !names.is_backbone(name) && !is_of_adapter(name));
        if head && !names.head.kind.is_of_a_task() {
            let text = format!("{} has no such head: it is drawn anew", self.from);
            self.console.note(&text);
        }
    }

    /// What writes the adapter, where the bundle is one.
    pub(crate) fn into_adapter(self) -> Option<AdapterFiles> {
        let Self {
            adapter, bundle, ..
        } = self;
        adapter.map(|adapter| AdapterFiles::new(adapter, bundle.as_ref()))
    }
}

/// How many classes there are, and the first of them.
pub(crate) fn listed(classes: &[String]) -> String {
    let first: Vec<_> = classes.iter().take(5).map(String::as_str).collect();
    let more = if classes.len() > first.len() {
        ", ..."
    } else {
        ""
    };
    format!("{} ({}{more})", classes.len(), first.join(", "))
}

fn family_named(recipe: &Recipe) -> Option<&'static Family> {
    let named = recipe.model_type()?;
    let all = TEXT_FAMILIES
        .iter()
        .chain(SEQ2SEQ_FAMILIES)
        .chain(IMAGE_FAMILIES);
    all.copied().find(|family| family.model_type == named)
}

impl Recipe {
    /// The family's `model_type` in `config.json`: what sizes name, or what they are named after.
    fn model_type(&self) -> Option<&str> {
        let key = |key| self.model.get(key).and_then(toml::Value::as_str);
        key("model_type").or_else(|| key("family"))
    }

    /// `[model]` as a configuration; further keys as JSON.
    ///
    /// - all: the families that it may be of
    fn sizes<T: serde::de::DeserializeOwned>(
        &self,
        all: &[&'static Family],
        further: serde_json::Value,
    ) -> Result<T, Impossible> {
        let named = self.model_type().unwrap_or_default();
        if !all.iter().any(|family| family.model_type == named) {
            let all: Vec<_> = all.iter().map(|family| family.model_type).collect();
            let reason = format!(
                "is \"{named}\", which is no family for this; these are: {}",
                all.join(", ")
            );
            return Err(Impossible::new("model.family", reason));
        }
        let wrong = |e: serde_json::Error| Impossible::new("model", e.to_string());
        serde_json::from_value(self.config(further)?).map_err(wrong)
    }

    /// `[model]` as `config.json` has it.
    fn config(&self, further: serde_json::Value) -> Result<serde_json::Value, Impossible> {
        let wrong = |e: serde_json::Error| Impossible::new("model", e.to_string());
        let mut config = serde_json::to_value(&self.model).map_err(wrong)?;
        if let (Some(config), Some(further)) = (config.as_object_mut(), further.as_object()) {
            config.remove("family");
            config.remove("dropout");
            config.insert("model_type".into(), self.model_type().into());
            config.extend(further.clone());
        }
        Ok(config)
    }

    /// Refuses texts of more tokens than the model has positions for, beside those that an adapter takes.
    ///
    /// # Errors
    ///
    /// Fewer than 3 tokens, or more than positions.
    pub fn check_length(&self, max_length: usize, config: &TextConfig) -> Result<(), Impossible> {
        let (positions, taken) = (config.describe().positions, self.adapter.taken());
        check_lengths(max_length, positions)?;
        if taken == 0 || taken.saturating_add(max_length) <= positions {
            return Ok(());
        }
        let reason = format!(
            "is {taken}, which with the {max_length} tokens of a text (tokenizer.max_length) is more than the model's \
             {positions} positions"
        );
        Err(Impossible::new("adapter.virtual_tokens", reason))
    }

    /// The text model that `[model]` describes, with a vocabulary of one.
    ///
    /// # Errors
    ///
    /// A family of images, or a share of dropout that is none.
    pub fn text_sizes(&self) -> Result<TextConfig, Impossible> {
        let mut config: TextConfig =
            self.sizes(TEXT_FAMILIES, serde_json::json!({"vocab_size": 1}))?;
        if let Some(rate) = self.model.get("dropout").and_then(toml::Value::as_float) {
            config.set_dropout(rate);
        }
        Ok(config)
    }

    /// The encoder-decoder that `[model]` describes, with a vocabulary of one.
    ///
    /// # Errors
    ///
    /// A family of another kind, or a share of dropout that is none.
    pub fn seq2seq_sizes(&self) -> Result<Seq2SeqConfig, Impossible> {
        let tokens = serde_json::json!({
            "vocab_size": 1, "pad_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0,
        });
        let mut config: Seq2SeqConfig = self.sizes(SEQ2SEQ_FAMILIES, tokens)?;
        if let Some(rate) = self.model.get("dropout").and_then(toml::Value::as_float) {
            config.set_dropout(rate);
        }
        Ok(config)
    }

    /// The image model that `[model]` describes.
    ///
    /// # Errors
    ///
    /// A family of texts.
    pub fn image_sizes(
        &self,
        [channels, height, width]: [usize; 3],
    ) -> Result<ImageConfig, Impossible> {
        let mut config: ImageConfig = self.sizes(
            IMAGE_FAMILIES,
            serde_json::json!({
                "image_channels": channels,
                "image_height": height,
                "image_width": width,
            }),
        )?;
        config.fit([channels, height, width]);
        Ok(config)
    }
}

/// Refuses a family that no model of this kind is made of.
///
/// - all: the families that the job could use
pub(crate) fn check_head(
    family: &'static Family,
    all: &[&'static Family],
    head: HeadKind,
) -> Result<(), String> {
    if family.head(head).is_some() {
        return Ok(());
    }
    let others = all.iter().filter(|family| family.head(head).is_some());
    let others: Vec<_> = others.map(|family| family.model_type).collect();
    Err(format!(
        "is \"{}\", of which {} cannot be made; {} can",
        family.model_type,
        head.describe(),
        others.join(", ")
    ))
}

/// Refuses images that the encoder can't take, and says what to do about it.
fn check_shape(ours: [usize; 3], images: [usize; 3]) -> Result<(), String> {
    if ours == images {
        return Ok(());
    }
    let [channels, height, width] = ours;
    let colours = |channels| if channels == 1 { "grey" } else { "RGB" };
    let advice = if channels != images[0] {
        "data.size changes no colours, so the files or the bundle have to".into()
    } else if height == width {
        format!("data.size = {height} resizes them")
    } else {
        "data.size resizes to squares only, so the files have to change".to_string()
    };
    Err(format!(
        "takes {} images of {height}x{width} (height x width), and the data holds {} images of {}x{}; {advice}",
        colours(channels),
        colours(images[0]),
        images[1],
        images[2]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_has_no_bundle_and_a_missing_one_is_named() {
        assert!(open("scratch").unwrap().is_none());
        let failure = open("no/such/bundle").unwrap_err();
        assert!(failure.to_string().contains("no/such/bundle"), "{failure}");
    }

    #[test]
    fn images_of_another_shape_are_refused_with_advice() {
        assert_eq!(check_shape([1, 6, 5], [1, 6, 5]), Ok(()));
        assert_eq!(
            check_shape([1, 28, 28], [1, 6, 5]).unwrap_err(),
            "takes grey images of 28x28 (height x width), and the data holds grey images of 6x5; \
             data.size = 28 resizes them"
        );
        let colours = check_shape([3, 6, 5], [1, 6, 5]).unwrap_err();
        assert!(colours.contains("takes RGB images of 6x5"), "{colours}");
        let tall = check_shape([1, 30, 21], [1, 6, 5]).unwrap_err();
        assert!(tall.contains("squares only"), "{tall}");
    }
}
