//! The only place that names a concrete backend: which are compiled in, which is best, how work reaches one.

use std::fmt;
use std::str::FromStr;

use burn::backend::Autodiff;
#[cfg(feature = "checkpointing")]
use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::tensor::backend::AutodiffBackend;

use crate::failure::{self, Failure};

/// A backend by the name of its Cargo feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendName {
    /// NVIDIA GPUs.
    Cuda,
    /// Apple GPUs, through wgpu.
    Metal,
    /// GPUs with Vulkan, through wgpu.
    Vulkan,
    /// Whatever wgpu finds.
    Wgpu,
    /// The CPU, in pure Rust.
    Flex,
    /// The CPU, through ndarray.
    Ndarray,
}

impl BackendName {
    /// Best first.
    const ALL: [Self; 6] = [
        Self::Cuda,
        Self::Metal,
        Self::Vulkan,
        Self::Wgpu,
        Self::Flex,
        Self::Ndarray,
    ];

    /// The Cargo feature.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::Flex => "flex",
            Self::Ndarray => "ndarray",
        }
    }

    /// Whether it computes while the program goes on, so that reading a figure is waiting for it, and can itself decide
    /// what is not finite: Metal's compiler may take it that everything is.
    pub fn runs_ahead(self) -> bool {
        !matches!(self, Self::Flex | Self::Ndarray | Self::Metal)
    }

    /// Whether this program was built with it.
    pub fn is_compiled_in(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Flex => cfg!(feature = "flex"),
            Self::Ndarray => cfg!(feature = "ndarray"),
        }
    }

    /// The one of this name; without a name the best one compiled in.
    pub fn choose(asked: Option<&str>) -> Result<Self, Failure> {
        let Some(name) = asked else {
            let best = Self::ALL.into_iter().find(|name| name.is_compiled_in());
            return best.ok_or_else(|| {
                Failure::input("no backend was compiled in; add `--features flex` to cargo's flags")
            });
        };
        let backend: Self = name.parse()?;
        if backend.is_compiled_in() {
            return Ok(backend);
        }
        Err(Failure::input(format!(
            "backend \"{backend}\" was not compiled in; add `--features {backend}` to cargo's flags"
        )))
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no backend's.
#[derive(Debug, thiserror::Error)]
#[error("no backend \"{0}\"; there are cuda, metal, vulkan, wgpu, flex and ndarray")]
pub struct UnknownBackend(String);

impl FromStr for BackendName {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        Self::ALL
            .into_iter()
            .find(|backend| backend.name() == name)
            .ok_or_else(|| UnknownBackend(name.into()))
    }
}

/// Work that runs on any backend; inference uses `B::InnerBackend`.
pub trait WithBackend {
    /// What it gives.
    type Output;

    /// Does the work.
    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output;
}

/// Does the work on a backend that is compiled in.
pub fn with_backend<W: WithBackend>(name: BackendName, work: W) -> Result<W::Output, Failure> {
    train_on(name, false, work)
}

/// The same; with gradient checkpointing, the backward pass recomputes cheap operations instead of keeping what they
/// gave. Chen et al. 2016, <https://arxiv.org/abs/1604.06174>, as Burn's `BalancedCheckpointing` does it.
pub fn train_on<W: WithBackend>(
    name: BackendName,
    checkpointing: bool,
    work: W,
) -> Result<W::Output, Failure> {
    match name {
        #[cfg(feature = "cuda")]
        BackendName::Cuda => on::<burn::backend::Cuda, W>(name, checkpointing, work),
        #[cfg(feature = "metal")]
        BackendName::Metal => on::<burn::backend::Metal, W>(name, checkpointing, work),
        #[cfg(feature = "vulkan")]
        BackendName::Vulkan => on::<burn::backend::Vulkan, W>(name, checkpointing, work),
        #[cfg(feature = "wgpu")]
        BackendName::Wgpu => on::<burn::backend::Wgpu, W>(name, checkpointing, work),
        #[cfg(feature = "flex")]
        BackendName::Flex => on::<burn::backend::Flex, W>(name, checkpointing, work),
        #[cfg(feature = "ndarray")]
        BackendName::Ndarray => on::<burn::backend::NdArray, W>(name, checkpointing, work),
        #[allow(unreachable_patterns)] // Every backend may be compiled in.
        name => BackendName::choose(Some(name.name())).map(|_| unreachable!("{name} has no arm")),
    }
}

#[allow(dead_code)] // Without any backend feature there is nothing to run on.
fn on<B: burn::tensor::backend::Backend, W: WithBackend>(
    name: BackendName,
    checkpointing: bool,
    work: W,
) -> Result<W::Output, Failure> {
    let device = B::Device::default();
    if !has_device::<B>(name, &device) {
        return Err(Failure::input(format!(
            "backend \"{name}\" finds no device; `--backend flex` runs on the CPU"
        )));
    }
    if !checkpointing {
        return Ok(work.run::<Autodiff<B>>(device));
    }
    #[cfg(feature = "checkpointing")]
    return Ok(work.run::<Autodiff<B, BalancedCheckpointing>>(device));
    #[cfg(not(feature = "checkpointing"))]
    Err(crate::recipe::Impossible::new(
        "training.gradient_checkpointing",
        "was not compiled in; add `--features checkpointing` to cargo's flags",
    )
    .into())
}

/// Burn panics where a driver or a device is missing: tried once, quietly, before anything is written.
fn has_device<B: burn::tensor::backend::Backend>(name: BackendName, device: &B::Device) -> bool {
    if matches!(name, BackendName::Flex | BackendName::Ndarray) {
        return true;
    }
    let device = device.clone();
    let tried = move || {
        let probe = burn::tensor::Tensor::<B, 1>::ones([2], &device) + 1.0;
        probe.into_data().to_vec::<f32>().is_ok()
    };
    // On a thread: what it leaves half made must not be met again.
    let joined = failure::caught(|| std::thread::spawn(tried).join());
    matches!(joined, Ok(Ok(true)))
}
