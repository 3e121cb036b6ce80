//! How an operation gets a separate version on the CPU. In: tensors of any backend. Out: the same, where it is Flex.
//!
//! Burn runs each tensor operation as a pass over memory, and differentiates pass by pass. A [`Fused`] operation is one
//! pass forward and one backward. It is found at run time, by the type of the backend: so models stay generic over
//! `Backend` alone, where a trait of ours would be in every signature from here to the command line, and in those of
//! everyone who brings a backend.

use std::any::{Any, TypeId};
use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn::tensor::{Bytes, DType, Distribution, FloatDType, Shape};

/// An operation on `N` tensors, all of 32-bit floats.
pub(crate) trait Fused<const N: usize>: Debug + Send + 'static {
    /// What the gradient needs.
    type Saved: Clone + Debug + Send + 'static;

    /// The result, and what the gradient needs.
    fn forward(&self, inputs: [FlexTensor; N]) -> (FlexTensor, Self::Saved);

    /// The gradients of those inputs that want one.
    ///
    /// - grad: of the result
    fn backward(
        &self,
        saved: Self::Saved,
        grad: FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N];
}

/// Whether [`apply`] and [`change`] take tensors of this backend and these types.
pub(crate) fn takes<B: Backend>(dtypes: &[DType]) -> bool {
    let on_flex = is::<B, Flex>()
        || is::<B, Autodiff<Flex>>()
        || is::<B, Autodiff<Flex, BalancedCheckpointing>>();
    on_flex && dtypes.iter().all(|dtype| *dtype == DType::F32)
}

/// Whether a backend is Flex itself, on which nothing is differentiated.
pub(crate) fn is_plain<B: Backend>() -> bool {
    is::<B, Flex>()
}

/// The result of a fused operation on what [`takes`] said yes to.
pub(crate) fn apply<B: Backend, F: Fused<N>, const N: usize>(
    operation: F,
    inputs: [FloatTensor<B>; N],
) -> FloatTensor<B> {
    if is::<B, Flex>() {
        cast(operation.forward(inputs.map(cast)).0)
    } else if is::<B, Autodiff<Flex>>() {
        cast(track::<NoCheckpointing, F, N>(operation, inputs.map(cast)))
    } else {
        let inputs = inputs.map(cast);
        cast(track::<BalancedCheckpointing, F, N>(operation, inputs))
    }
}

/// Changes tensors that [`takes`] said yes to, outside of any graph: in place where nobody else holds them.
pub(crate) fn change<B: Backend, const N: usize>(
    tensors: [FloatTensor<B>; N],
    work: impl FnOnce([&mut FlexTensor; N]),
) -> [FloatTensor<B>; N] {
    let mut tensors = tensors.map(|tensor| whole(cast(tensor)));
    work(tensors.each_mut());
    tensors.map(cast)
}

/// The values of a tensor that no gradient goes through, of a backend that [`takes`] said yes to.
pub(crate) fn values<B: Backend>(tensor: FloatTensor<B>) -> FlexTensor {
    if is::<B, Flex>() {
        cast(tensor)
    } else {
        cast::<_, FloatTensor<Autodiff<Flex>>>(tensor).primitive
    }
}

/// The same tensor, of a backend that [is Flex itself](is_plain).
pub(crate) fn given<B: Backend>(tensor: FlexTensor) -> FloatTensor<B> {
    cast(tensor)
}

/// Whether a gradient goes through a tensor, of a backend that [`takes`] said yes to.
pub(crate) fn has_gradient<B: Backend>(tensor: &FloatTensor<B>) -> bool {
    let tensor: &dyn Any = tensor;
    let tracked = tensor.downcast_ref::<FloatTensor<Autodiff<Flex>>>();
    tracked.is_some_and(|tensor| !tensor.node.requirement.is_none())
}

/// 64 random bits from Flex's generator.
pub(crate) fn key() -> u64 {
    let parts = Distribution::Uniform(0.0, 65_536.0);
    let drawn = Flex::float_random([4].into(), parts, &Default::default(), FloatDType::F32);
    let parts = slice(&drawn).iter();
    parts.fold(0, |key, &part| key << 16 | (part as u64 & 0xffff))
}

fn is<A: 'static, B: 'static>() -> bool {
    TypeId::of::<A>() == TypeId::of::<B>()
}

/// The same value under the other name of its type.
fn cast<T: 'static, U: 'static>(value: T) -> U {
    let mut slot = Some(value);
    let slot: &mut dyn Any = &mut slot;
    let taken = slot.downcast_mut().and_then(Option::take);
    taken.expect("types are compared before values are cast")
}

/// A step of the graph.
#[derive(Debug)]
struct Step<F>(F);

impl<F: Fused<N>, const N: usize> Backward<Flex, N> for Step<F> {
    type State = F::Saved;

    fn backward(self, ops: Ops<F::Saved, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let of_inputs = self.0.backward(ops.state, contiguous(grad), wanted);
        for (parent, grad) in ops.parents.into_iter().zip(of_inputs) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<Flex>(parent.id, grad);
            }
        }
    }
}

fn track<C: CheckpointStrategy, F: Fused<N>, const N: usize>(
    operation: F,
    inputs: [FloatTensor<Autodiff<Flex>>; N],
) -> FloatTensor<Autodiff<Flex>> {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    // Until the step is registered nothing else holds the inputs' own steps, and a backward pass that ends on another
    // thread frees what nobody holds: the gradient would stop here without a word.
    let _held = inputs.each_ref().map(|input| input.rc.clone());
    let (output, saved) = operation.forward(inputs.map(|input| input.primitive));
    let prepared = Step(operation).prepare::<C>(nodes).compute_bound();
    match prepared.stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(saved, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}

/// Rows one after another, as slices can be had of.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.as_slice::<f32>() {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

/// The same with memory of just its values, to be changed in place: a view of a larger tensor is copied.
pub(crate) fn whole(tensor: FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

/// The values of a [`contiguous`] tensor.
pub(crate) fn slice(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("the tensor is contiguous")
}

/// A tensor of these values.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let layout = Layout::contiguous(shape.into());
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}
