//! A program that uses the engine as a library keeps what is its own: allocator, signal handlers, panic hook.
//!
//! A separate test program, as all of these belong to a whole process. That it can have an allocator at all shows
//! that the library has none.

#![cfg(unix)]
#![allow(clippy::unwrap_used)] // A test fails by panicking, in its helpers too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::{Autodiff, Flex};
use burn::module::Param;
use burn::prelude::*;
use model::{HeadKind, Names};
use train::optim::schedule::ScheduleKind;
use train::recipe::{GuardRecipe, OptimizerRecipe, ScheduleRecipe, TrainingRecipe};
use train::session::{Options, Session, Status};
use train::source::{BatchSource, Counts};
use train::{BackendName, Interrupt, LossSums, Metric, Objective, SumTally, Unit};

/// The user's allocator: counts.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The user's signal handler and panic hook: count.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);
static PANICS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// A weight that is to become 1.
#[derive(Module, Debug)]
struct One<B: Backend> {
    weight: Param<Tensor<B, 1>>,
}

#[derive(Clone, Copy)]
struct Nothing;

impl Counts for Nothing {
    fn real(&self) -> usize {
        1
    }

    fn padded(&self) -> usize {
        1
    }
}

impl<B: Backend> Objective<B> for One<B> {
    type Batch = Nothing;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &[];
    const METRICS: &'static [Metric] = &[Metric::LOSS];

    fn loss(&self, _: &Nothing, _: &B::Device) -> LossSums<B> {
        let error = self.weight.val() - 1.0;
        LossSums::new((error.clone() * error).sum(), vec![], 1)
    }

    fn evaluate(&self, batch: &Nothing, device: &B::Device) -> SumTally {
        SumTally::read(self.loss(batch, device), &[])
    }
}

/// Asks for a stop, or panics, at a batch of this number.
struct Source {
    stop_at: Option<(u64, Interrupt)>,
    panic_at: Option<u64>,
}

impl BatchSource for Source {
    type Batch = Nothing;

    fn batches_per_epoch(&self) -> u64 {
        4
    }

    fn batch(&self, number: u64) -> Nothing {
        if let Some((at, interrupt)) = &self.stop_at
            && *at == number
        {
            interrupt.request();
        }
        assert_ne!(Some(number), self.panic_at, "a batch that cannot be made");
        Nothing
    }
}

fn train(out: &Path, source: Source, interrupt: Interrupt) -> Result<Status, train::Failure> {
    let device = Default::default();
    let valid = Source {
        stop_at: None,
        panic_at: None,
    };
    let training: TrainingRecipe = toml::from_str(
        "steps = 50\nepochs = 0\nbatch_size = 1\naccumulation = 1\nprecision = \"f32\"\n\
         gradient_checkpointing = false\nema = 0.0\nlog_every = 1\nvalidate_every = 10\n\
         checkpoint_every = 0\nkeep = 2\nmetric = \"loss\"\npatience = 0\n",
    )
    .unwrap();
    Session {
        name: "one".into(),
        recipe: String::new(),
        seed: 1,
        training,
        optimizer: OptimizerRecipe::adamw(0.01),
        schedule: ScheduleRecipe::new(ScheduleKind::Constant),
        guard: GuardRecipe::default(),
        data: String::new(),
        groups: Vec::new(),
        names: Names::new(&model::families::bert::NAMES, HeadKind::Bare),
        objective: One::<Autodiff<Flex>> {
            weight: Param::from_tensor(Tensor::from_data([0.5], &device)),
        },
        device,
        train: Arc::new(source),
        valid: Arc::new(valid),
        test: None,
        unit: Unit::Samples,
        export: Box::new(|_: &One<Flex>, _| Ok(())),
        after_validation: None,
        options: Options {
            interrupt,
            ..Options::new(out, BackendName::Flex)
        },
    }
    .launch()
}

/// One test: its parts would disturb each other in one process.
#[test]
fn the_process_stays_its_users() {
    let handler = count_signal as extern "C" fn(libc::c_int);
    // SAFETY: the handler does nothing but add to an atomic.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
    std::panic::set_hook(Box::new(|_| {
        PANICS.fetch_add(1, Ordering::Relaxed);
    }));
    let folder = tempfile::tempdir().unwrap();
    let source = |stop_at, panic_at| Source { stop_at, panic_at };

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let out = folder.path().join("whole");
    let status = train(&out, source(None, None), Interrupt::new());
    assert_eq!(status.unwrap(), Status::Done);
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > before);

    // SAFETY: a signal to this process, which has a handler.
    unsafe { libc::raise(libc::SIGINT) };
    assert_eq!(SIGNALS.load(Ordering::Relaxed), 1);

    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    let broken = folder.path().join("broken");
    let failed = train(&broken, source(None, Some(7)), Interrupt::new());
    assert!(failed.unwrap_err().to_string().contains("cannot be made"));
    assert_eq!(PANICS.load(Ordering::Relaxed), 1, "the hook was replaced");

    // No global logger was installed, and no file for one.
    assert!(!out.join("experiment.log").exists());

    // A user's own handler asks for a stop by the handle.
    let interrupt = Interrupt::new();
    let stopped = folder.path().join("stopped");
    let stop = source(Some((20, interrupt.clone())), None);
    assert_eq!(
        train(&stopped, stop, interrupt).unwrap(),
        Status::Interrupted
    );
    let summary = fs::read_to_string(stopped.join("summary.json")).unwrap();
    assert!(summary.contains("interrupted"), "{summary}");
}
