//! The model that a student learns from. In: the teacher's bundle. Out: its scores and states, without gradients.

use std::fmt;

use burn::module::{
    AutodiffModule, Content, Devices, EmptyRecord, Module, ModuleDisplay, ModuleDisplayDefault,
    ModuleMapper, ModuleVisitor,
};
use burn::prelude::*;
use burn::tensor::Device;
use burn::tensor::backend::AutodiffBackend;
use data::TextTokenizer;
use model::bundle::{Load, Scores};
use model::{Bundle, Draw, HeadKind, Names, TextClassifier, TextConfig, TokenModel};
use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::job::Start;
use crate::job::start::{self, listed};
use crate::job::text::{TokenBatch, bundle_tokenizer, indices};
use crate::recipe::Impossible;
use crate::run::{Held, check_memory};

/// What a model makes of a batch.
#[derive(Clone, Debug)]
pub struct Seen<B: Backend> {
    /// Scores of classes or of a vocabulary, `[n, n_classes]`.
    pub logits: Tensor<B, 2>,
    /// States of the last layer at all real tokens, `[real, d_model]`, where they were asked for.
    pub hidden: Option<Tensor<B, 2>>,
}

/// A model of texts that teaches or learns.
pub trait Sees<B: Backend>: Module<B> + ModuleDisplay {
    /// What it makes of a batch.
    ///
    /// - at: places of the flattened `[batch * seq]` whose states its head reads
    /// - hidden: whether states are asked for
    fn see(&self, batch: &TokenBatch, at: &[i32], hidden: bool, device: &B::Device) -> Seen<B>;
}

impl<B: Backend> Sees<B> for TokenModel<B> {
    fn see(&self, batch: &TokenBatch, at: &[i32], hidden: bool, device: &B::Device) -> Seen<B> {
        let states = |at| self.backbone.states(&batch.input(device), at, None);
        let (read, hidden) = chosen(states, batch, at, hidden, device);
        let logits = self.scores(self.head.transform(read));
        Seen { logits, hidden }
    }
}

impl<B: Backend> Sees<B> for TextClassifier<B> {
    fn see(&self, batch: &TokenBatch, at: &[i32], hidden: bool, device: &B::Device) -> Seen<B> {
        let states = |at| self.backbone.states(&batch.input(device), at, None);
        let (read, hidden) = chosen(states, batch, at, hidden, device);
        let logits = self.head.forward(self.backbone.pool(read));
        Seen { logits, hidden }
    }
}

/// The states that a head reads, and those of all real tokens where they are asked for.
fn chosen<B: Backend>(
    states: impl Fn(Option<Tensor<B, 1, Int>>) -> Tensor<B, 2>,
    batch: &TokenBatch,
    at: &[i32],
    hidden: bool,
    device: &B::Device,
) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
    let at = indices(at, device);
    if !hidden {
        return (states(Some(at)), None);
    }
    let all = states(None);
    let read = all.clone().select(0, at);
    let real = batch.real_places();
    if real.len() == batch.tokens.len() {
        return (read, Some(all));
    }
    (read, Some(all.select(0, indices(&real, device))))
}

/// A model that does not learn. It computes on the backend without gradients, so that it drops nothing and leaves no graph, and it has
/// no parameters for optimizers, averages and checkpoints: a resumed run reads it from its bundle.
#[derive(Clone)]
pub struct Teacher<B: Backend, M> {
    model: M,
    see: See<B, M>,
}

/// [`Sees::see`], of a model of this backend or of the one below it.
type See<B, M> = fn(&M, &TokenBatch, &[i32], bool, &Device<B>) -> Seen<B>;

impl<B: AutodiffBackend, M: Sees<B::InnerBackend>> Teacher<B, M> {
    /// A model of the backend without gradients.
    pub fn new(model: M) -> Self {
        Self {
            model,
            see: see_below::<B, M>,
        }
    }
}

fn see_below<B: AutodiffBackend, M: Sees<B::InnerBackend>>(
    model: &M,
    batch: &TokenBatch,
    at: &[i32],
    hidden: bool,
    device: &B::Device,
) -> Seen<B> {
    let Seen { logits, hidden } = model.see(batch, at, hidden, device);
    Seen {
        logits: Tensor::from_inner(logits),
        hidden: hidden.map(Tensor::from_inner),
    }
}

impl<B: Backend, M: Clone + Send + fmt::Debug> Sees<B> for Teacher<B, M> {
    fn see(&self, batch: &TokenBatch, at: &[i32], hidden: bool, device: &B::Device) -> Seen<B> {
        (self.see)(&self.model, batch, at, hidden, device)
    }
}

impl<B: Backend, M> fmt::Debug for Teacher<B, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teacher")
    }
}

impl<B: Backend, M: Clone + Send + fmt::Debug> Module<B> for Teacher<B, M> {
    type Record = EmptyRecord;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        devices
    }

    // It stays where it was made, as the whole training does.
    fn fork(self, _: &B::Device) -> Self {
        self
    }

    fn to_device(self, _: &B::Device) -> Self {
        self
    }

    fn visit<V: ModuleVisitor<B>>(&self, _: &mut V) {}

    fn map<P: ModuleMapper<B>>(self, _: &mut P) -> Self {
        self
    }

    fn load_record(self, _: EmptyRecord) -> Self {
        self
    }

    fn into_record(self) -> EmptyRecord {
        EmptyRecord
    }
}

impl<B: Backend, M> ModuleDisplayDefault for Teacher<B, M> {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_single(&"Teacher".to_string()).optional()
    }
}

impl<B: Backend, M> ModuleDisplay for Teacher<B, M> {}

impl<B: AutodiffBackend, M: Sees<B::InnerBackend>> AutodiffModule<B> for Teacher<B, M> {
    type InnerModule = Teacher<B::InnerBackend, M>;

    fn valid(&self) -> Self::InnerModule {
        Teacher {
            model: self.model.clone(),
            see: M::see,
        }
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        Self::new(module.model)
    }
}

/// A teacher's bundle, checked; its weights are read when a model is asked for.
pub struct TeacherBundle {
    /// The bundle.
    pub bundle: Bundle,
    /// Its sizes.
    pub config: TextConfig,
    names: Names,
}

/// A teacher that is of no use.
fn useless(reason: impl fmt::Display) -> Failure {
    Impossible::new("distillation.teacher", format!("is of no use: {reason}")).into()
}

impl TeacherBundle {
    /// Opens a bundle, the bundle of a run, or a bundled model.
    ///
    /// - head: what the teacher is to have learned
    ///
    /// # Errors
    ///
    /// No bundle, a model of another kind, or one that this machine cannot hold.
    pub fn open(path: &str, head: HeadKind) -> Result<Self, Failure> {
        let Some(bundle) = start::open(path).map_err(useless)? else {
            return Err(useless("it is \"scratch\", which has learned nothing"));
        };
        let config = bundle.text_config().map_err(useless)?;
        check_memory(config.describe().parameters, Held::Value).map_err(useless)?;
        let names = bundle.require(head).map_err(useless)?;
        Ok(Self {
            bundle,
            config,
            names,
        })
    }

    /// Its tokenizer.
    ///
    /// # Errors
    ///
    /// A bundle without one.
    pub fn tokenizer(&self) -> Result<TextTokenizer, Failure> {
        bundle_tokenizer(&self.bundle)
    }

    /// Refuses a classifier that does not choose one of these classes.
    ///
    /// - classes: of the data, in the order of the logits
    ///
    /// # Errors
    ///
    /// Other classes, or the same in another order.
    pub fn check_classes(&self, classes: &[String]) -> Result<(), Failure> {
        let bundle = &self.bundle;
        if bundle.scores()? != Scores::OneLabel {
            return Err(useless(format!(
                "{} does not choose one class a text",
                bundle.path().display()
            )));
        }
        let own = bundle.classes()?;
        if own == classes {
            return Ok(());
        }
        Err(useless(format!(
            "the classes of {} are {}, those of the data {}",
            bundle.path().display(),
            listed(&own),
            listed(classes)
        )))
    }

    /// The language model with its weights.
    ///
    /// # Errors
    ///
    /// Weights that do not fit.
    pub fn token_model<B: Backend>(
        &self,
        start: &Start,
        device: &B::Device,
    ) -> Result<TokenModel<B>, Failure> {
        let model = TokenModel::draw(&self.config, &Draw::new(device, 0.02));
        self.filled(model, start)
    }

    /// The classifier with its weights, and whose state it reads.
    ///
    /// # Errors
    ///
    /// Weights that do not fit.
    pub fn classifier<B: Backend>(
        &self,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextClassifier<B>, Failure> {
        let n_classes = self.bundle.classes()?.len();
        let model = TextClassifier::draw(&self.config, n_classes, &Draw::new(device, 0.02));
        self.filled(model, start)
    }

    fn filled<B: Backend, M: Module<B>>(&self, model: M, start: &Start) -> Result<M, Failure> {
        let (model, loaded) = self.bundle.load(model, self.names, Load::Whole)?;
        if let Some(lost) = loaded.lost(self.names) {
            let text = format!("{}: {lost}", self.bundle.path().display());
            start.console.warn_outside(&text);
        }
        Ok(model)
    }

    /// The SHA-256 of its sizes and weights, by which a resumed run knows its teacher again.
    ///
    /// # Errors
    ///
    /// Weights that cannot be read.
    pub fn digest(&self) -> Result<String, Failure> {
        let mut sha = Sha256::new();
        sha.update(self.bundle.raw_config().to_string());
        for bytes in self.bundle.bytes_of_weights()? {
            sha.update(bytes);
        }
        Ok(format!("{:x}", sha.finalize()))
    }
}
