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
