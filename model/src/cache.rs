//! What a decoder keeps of what it has read. In: keys and values of new tokens. Out: those of all tokens. A recurrent model keeps
//! its states instead.

use burn::prelude::*;

/// Keys and values of every layer, or its state, of one batch of sequences of equal length.
#[derive(Clone, Debug)]
pub struct Cache<B: Backend> {
    layers: Vec<Option<[Tensor<B, 3>; 2]>>,
    states: Vec<Option<Tensor<B, 2>>>,
    read: usize,
}

impl<B: Backend> Cache<B> {
    /// An empty cache.
    ///
    /// - layers: of the model
    pub fn new(layers: usize) -> Self {
        Self {
            layers: vec![None; layers],
            states: vec![None; layers],
            read: 0,
        }
    }

    /// What recurrent layers left, to go on from.
    ///
    /// - states: `[layers, batch, width]`
    pub fn of_states(states: Tensor<B, 3>) -> Self {
        let [layers, batch, width] = states.dims();
        let state = |layer| states.clone().narrow(0, layer, 1).reshape([batch, width]);
        Self {
            states: (0..layers).map(state).map(Some).collect(),
            ..Self::new(layers)
        }
    }

    /// What all recurrent layers leave, `[layers, batch, width]`, if they have read anything.
    pub fn states(&self) -> Option<Tensor<B, 3>> {
        let states: Option<Vec<_>> = self.states.iter().cloned().collect();
        states.map(|states| Tensor::stack(states, 0))
    }

    /// Tokens of each sequence that were read.
    pub fn read(&self) -> usize {
        self.read
    }

    /// Counts tokens that all layers have read.
    pub fn advance(&mut self, tokens: usize) {
        self.read += tokens;
    }

    /// What a recurrent layer left, `[batch, width]`, if it has read anything.
    pub fn state(&self, layer: usize) -> Option<Tensor<B, 2>> {
        self.states[layer].clone()
    }

    /// Keeps what a recurrent layer leaves, `[batch, width]`.
    pub fn set_state(&mut self, layer: usize, state: Tensor<B, 2>) {
        self.states[layer] = Some(state);
    }

    /// Adds the keys and values of new tokens in a layer, and gives those of all tokens.
    ///
    /// - keys, values: `[batch * seq, width]` of the new tokens
    /// - out: `[batch * (read + seq), width]` each
    pub fn extend(
        &mut self,
        layer: usize,
        [keys, values]: [Tensor<B, 2>; 2],
        [batch, seq]: [usize; 2],
    ) -> [Tensor<B, 2>; 2] {
        let new = [keys, values].map(|new| {
            let [_, width] = new.dims();
            new.reshape([batch, seq, width])
        });
        let all = match self.layers[layer].take() {
            Some([old_keys, old_values]) => {
                let [keys, values] = new;
                [
                    Tensor::cat(vec![old_keys, keys], 1),
                    Tensor::cat(vec![old_values, values], 1),
                ]
            }
            None => new,
        };
        self.layers[layer] = Some(all.clone());
        all.map(|all| {
            let [batch, tokens, width] = all.dims();
            all.reshape([batch * tokens, width])
        })
    }

    /// Goes on with other rows of the batch: what is kept of row `i` from now on is what was kept of row `rows[i]`.
    ///
    /// - rows: `[new batch]`
    pub fn select(&mut self, rows: &Tensor<B, 1, Int>) {
        for pair in self.layers.iter_mut().flatten() {
            let chosen = |states: &Tensor<B, 3>| states.clone().select(0, rows.clone());
            *pair = [chosen(&pair[0]), chosen(&pair[1])];
        }
        for state in self.states.iter_mut().flatten() {
            *state = state.clone().select(0, rows.clone());
        }
    }

    /// Adds the rows of another cache of the same model. The shorter one gets empty keys and values in front, which a mask has to
    /// hide.
    pub fn join(&mut self, mut other: Self) {
        let read = self.read.max(other.read);
        self.pad(read);
        other.pad(read);
        let pairs = self.layers.iter_mut().zip(other.layers);
        for (own, other) in pairs {
            if let (Some(own), Some([keys, values])) = (own, other) {
                let joined = |own: &Tensor<B, 3>, other| Tensor::cat(vec![own.clone(), other], 0);
                *own = [joined(&own[0], keys), joined(&own[1], values)];
            }
        }
        let states = self.states.iter_mut().zip(other.states);
        for (own, other) in states {
            if let (Some(own), Some(other)) = (own, other) {
                *own = Tensor::cat(vec![own.clone(), other], 0);
            }
        }
    }

    /// Puts empty keys and values in front of all rows, until they have this many.
    fn pad(&mut self, read: usize) {
        let missing = read - self.read;
        self.read = read;
        if missing == 0 {
            return;
        }
        let padded = |states: &Tensor<B, 3>| {
            let [batch, _, width] = states.dims();
            let empty = Tensor::<B, 3>::zeros([batch, missing, width], &states.device());
            Tensor::cat(vec![empty.cast(states.dtype()), states.clone()], 1)
        };
        for pair in self.layers.iter_mut().flatten() {
            *pair = [padded(&pair[0]), padded(&pair[1])];
        }
    }

    /// Forgets the first keys and values of all rows.
    ///
    /// # Panics
    ///
    /// If more are to go than there are.
    pub fn forget(&mut self, first: usize) {
        self.read -= first;
        if first == 0 {
            return;
        }
        let rest = |states: &Tensor<B, 3>| {
            let [_, tokens, _] = states.dims();
            states.clone().narrow(1, first, tokens - first)
        };
        for pair in self.layers.iter_mut().flatten() {
            *pair = [rest(&pair[0]), rest(&pair[1])];
        }
    }
}

/// What the decoder of an encoder-decoder keeps between steps, so that each step computes only the new token.
#[derive(Clone, Debug)]
pub struct Seq2SeqCache<B: Backend> {
    /// Keys and values of the tokens written so far.
    pub own: Cache<B>,
    encoder: Vec<Option<[Tensor<B, 2>; 2]>>,
}

impl<B: Backend> Seq2SeqCache<B> {
    /// An empty cache.
    ///
    /// - layers: of the decoder
    pub fn new(layers: usize) -> Self {
        Self {
            own: Cache::new(layers),
            encoder: vec![None; layers],
        }
    }

    /// Keys and values of the encoder's states in a layer, made when they are first asked for.
    pub fn of_encoder(
        &mut self,
        layer: usize,
        make: impl FnOnce() -> [Tensor<B, 2>; 2],
    ) -> [Tensor<B, 2>; 2] {
        self.encoder[layer].get_or_insert_with(make).clone()
    }
}
