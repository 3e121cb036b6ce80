//! Convolutions as products of kernels and patches, the pixels that a kernel sees at a place (Chellapilla et al. 2006,
//! <https://inria.hal.science/inria-00112631>). In: images and kernels. Out: images, or the gradients of kernels.
//!
//! The matrix of all patches is never there: of some images, or some rows of one, the patches of [`BLOCK`] places at a
//! time are laid out as panels that stay in the caches. These units are spread over the cores; the order of every sum
//! depends on shapes alone.

use std::ops::Range;
use std::ptr;

use rayon::prelude::*;

use crate::ops::panels::{
    Factors, Size, Start, Wide, add_product, add_product_at, pack, strip, tile, transpose, vector,
};
use crate::ops::simd::vectorized;

/// Places of a panel, a multiple of every machine's tile.
pub(super) const BLOCK: usize = 192;
/// Rows of a panel, a multiple of every machine's tile; one tile of them stays in the smallest cache.
const DEPTH: usize = 144;
/// Values that are copied at a time.
const STEP: usize = 16;
/// Values of the laid-out pixels of a unit, so that they stay in a core's cache.
const LAID_OUT: usize = 1 << 18;
/// Tasks that there should be.
const TASKS: usize = 4;

/// One value of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    /// From the pixel of a place to the one that it meets, down and to the right.
    pub(super) offset: [isize; 2],
    /// Its number in the kernel.
    pub(super) weight: usize,
}

/// Kernels in a tensor `[narrow, wide / groups, taps]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels<'a> {
    pub(super) values: &'a [f32],
    /// Values of a kernel.
    pub(super) taps: usize,
    /// Channels of a wide image in each group.
    pub(super) channels: usize,
}

impl<'a> Kernels<'a> {
    /// As they are used on wide images.
    pub(super) fn to_narrow(self) -> Directed<'a> {
        Directed {
            values: self.values,
            from: self.taps,
            to: self.channels * self.taps,
        }
    }

    /// As they are used on narrow images where each value of a kernel gives a channel of the product.
    pub(super) fn to_patches(self) -> Directed<'a> {
        Directed {
            values: self.values,
            from: self.channels * self.taps,
            to: 1,
        }
    }

    /// As they are used on narrow images.
    pub(super) fn to_wide(self) -> Directed<'a> {
        Directed {
            values: self.values,
            from: self.channels * self.taps,
            to: self.taps,
        }
    }
}

/// Kernels from channel to channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directed<'a> {
    values: &'a [f32],
    /// From a channel that is read to the next.
    from: usize,
    /// From a channel of the result to the next.
    to: usize,
}

/// The pixels of an image that are the results at all places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// Of the image.
    pub(super) size: [usize; 2],
    /// The pixel of the first place.
    pub(super) first: [usize; 2],
    /// Pixels from place to place.
    pub(super) step: [usize; 2],
    /// Pixels of each place, down and to the right: so many channels of products are one of the image.
    pub(super) each: [usize; 2],
}

impl Places {
    /// One for each pixel.
    pub(super) fn all(size: [usize; 2]) -> Self {
        Self {
            size,
            first: [0, 0],
            step: [1, 1],
            each: [1, 1],
        }
    }
}

/// What is worked on at a time: images and rows of places of each.
#[derive(Clone, Debug)]
struct Unit {
    images: Range<usize>,
    rows: Range<usize>,
}

/// Places next to each other in a row.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Where they begin in the panel.
    at: usize,
    image: usize,
    row: usize,
    column: usize,
    n: usize,
}

/// The patches of images.
#[derive(Clone, Debug)]
pub(super) struct Patches {
    batch: usize,
    groups: usize,
    /// Channels of each group.
    channels: usize,
    /// Of the images.
    size: [usize; 2],
    taps: Vec<Tap>,
    /// Pixels from place to place.
    step: [usize; 2],
    /// Rows and columns of places.
    places: [usize; 2],
    layout: Layout,
}

/// How the pixels of a channel are laid out for some rows of places: those that the same taps meet, a phase, as an image
/// of its own with its padding, so that a tap meets the places of a row in as many values one after another.
#[derive(Clone, Debug)]
struct Layout {
    /// Row and column of the first pixel, before the image where there is padding.
    first: [isize; 2],
    /// The phases that taps meet: the row and column, within a step.
    phases: Vec<[usize; 2]>,
    /// Rows of places in a unit, and rows of a phase for them.
    places: usize,
    rows: usize,
    pitch: usize,
    /// Of each tap the distance from a place, within a channel.
    offsets: Vec<usize>,
}

impl Layout {
    fn new(taps: &[Tap], step: [usize; 2], columns: usize, places: usize) -> Self {
        let first = [0, 1].map(|axis| {
            let offsets = taps.iter().map(|tap| tap.offset[axis]);
            offsets.min().unwrap_or(0)
        });
        let split = |tap: &Tap| {
            let from_first = [0, 1].map(|axis| (tap.offset[axis] - first[axis]) as usize);
            let phase = [0, 1].map(|axis| from_first[axis] % step[axis]);
            (phase, [0, 1].map(|axis| from_first[axis] / step[axis]))
        };
        let mut phases: Vec<_> = taps.iter().map(|tap| split(tap).0).collect();
        phases.sort_unstable();
        phases.dedup();
        let reach = [0, 1].map(|axis| {
            let reaches = taps.iter().map(|tap| split(tap).1[axis]);
            reaches.max().unwrap_or(0)
        });
        let (rows, pitch) = (places + reach[0], columns + reach[1]);
        let offset = |tap: &Tap| {
            let (phase, [down, right]) = split(tap);
            let phase = phases.iter().position(|other| *other == phase);
            (phase.unwrap_or(0) * rows + down) * pitch + right
        };
        let offsets = taps.iter().map(offset).collect();
        Self {
            first,
            phases,
            places,
            rows,
            pitch,
            offsets,
        }
    }

    /// Values of a channel.
    fn channel(&self) -> usize {
        self.phases.len() * self.rows * self.pitch
    }
}

impl Patches {
    pub(super) fn new(
        batch: usize,
        groups: usize,
        channels: usize,
        size: [usize; 2],
        taps: Vec<Tap>,
        step: [usize; 2],
        places: [usize; 2],
    ) -> Self {
        let whole = Layout::new(&taps, step, places[1], places[0]);
        let of_row = channels * whole.phases.len() * whole.pitch;
        let halo = whole.rows - whole.places;
        let most = (LAID_OUT / of_row.max(1)).saturating_sub(halo);
        let rows = most.max(BLOCK.div_ceil(places[1])).min(places[0]);
        // Parts as even as can be.
        let rows = places[0].div_ceil(places[0].div_ceil(rows));
        let layout = Layout::new(&taps, step, places[1], rows);
        Self {
            batch,
            groups,
            channels,
            size,
            taps,
            step,
            places,
            layout,
        }
    }

    /// Rows of the matrix of a group's patches.
    fn depth(&self) -> usize {
        self.channels * self.taps.len()
    }

    fn count(&self) -> usize {
        self.places[0] * self.places[1]
    }

    /// Images of a unit: several where one has few places.
    fn together(&self) -> usize {
        if self.layout.places < self.places[0] {
            return 1;
        }
        let fit = LAID_OUT / (self.channels * self.layout.channel()).max(1);
        let most = (BLOCK / self.count()).min(fit).max(1);
        // Parts as even as can be.
        self.batch.div_ceil(self.batch.div_ceil(most).max(1)).max(1)
    }

    fn units(&self) -> Vec<Unit> {
        let images = parts(self.batch, self.together());
        let rows = parts(self.places[0], self.layout.places);
        let units = images.flat_map(|images| {
            let unit = move |rows| Unit {
                images: images.clone(),
                rows,
            };
            rows.clone().map(unit)
        });
        units.collect()
    }

    /// Whether a row of the matrix is a channel of an image.
    fn are_the_images(&self) -> bool {
        let identity = self.taps.len() == 1 && self.taps[0].offset == [0, 0];
        identity && self.step == [1, 1] && self.places == self.size
    }

    /// The pixels of the channels of a group that a unit's places meet: the images themselves, or laid out.
    fn pixels<'a>(
        &self,
        unit: &Unit,
        group: usize,
        images: &'a [f32],
        laid: &'a mut Vec<f32>,
    ) -> Pixels<'a> {
        if self.are_the_images() {
            let channel = self.count();
            let first = (unit.images.start * self.groups + group) * self.channels * channel;
            return Pixels {
                values: &images[first..],
                image: self.groups * self.channels * channel,
                channel,
            };
        }
        let channel = self.layout.channel();
        if laid.is_empty() {
            // Whole steps are read beyond the last value.
            laid.resize(self.together() * self.channels * channel + STEP, 0.0);
        }
        self.lay_out(unit, group, images, laid);
        Pixels {
            values: laid,
            image: self.channels * channel,
            channel,
        }
    }

    /// The pixels in their layout, whose columns beside the image are zeros already.
    fn lay_out(&self, unit: &Unit, group: usize, images: &[f32], laid: &mut [f32]) {
        let [height, width] = self.size;
        let Layout {
            first,
            ref phases,
            rows,
            pitch,
            ..
        } = self.layout;
        let step = self.step[1];
        let channels = unit.images.clone().flat_map(|image| {
            let first = (image * self.groups + group) * self.channels;
            first..first + self.channels
        });
        let outs = laid.chunks_exact_mut(self.layout.channel().max(1));
        for (channel, out) in channels.zip(outs) {
            let pixels = &images[channel * height * width..][..height * width];
            for (phase, out) in phases.iter().zip(out.chunks_exact_mut(rows * pitch)) {
                let left = first[1] + phase[1] as isize;
                let inside = inside(left, step, width, pitch);
                if inside.is_empty() {
                    continue;
                }
                let from = (left + (inside.start * step) as isize) as usize;
                for (row, out) in out.chunks_exact_mut(pitch).enumerate() {
                    let out = &mut out[inside.clone()];
                    let y = (phase[0] + (unit.rows.start + row) * self.step[0]) as isize + first[0];
                    if y < 0 || y >= height as isize {
                        out.fill(0.0);
                        continue;
                    }
                    take_every(step, &pixels[y as usize * width..][from..width], out);
                }
            }
        }
    }

    /// The runs of some of a unit's places.
    fn runs(&self, unit: &Unit, block: Range<usize>, runs: &mut Vec<Run>) {
        runs.clear();
        let (columns, start) = (self.places[1], block.start);
        let mut place = start;
        while place < block.end {
            let (row, column) = (place / columns, place % columns);
            let n = (columns - column).min(block.end - place);
            runs.push(Run {
                at: place - start,
                image: unit.images.start + row / unit.rows.len(),
                row: unit.rows.start + row % unit.rows.len(),
                column,
                n,
            });
            place += n;
        }
    }

    /// Some rows of the matrix of patches at the places of a block; beyond them the panel holds values of no use.
    fn gather(&self, pixels: Pixels<'_>, rows: Range<usize>, pieces: &[Piece], panel: &mut [f32]) {
        let taps = self.taps.len();
        let values = pixels.values;
        vectorized(
            #[inline(always)]
            || {
                for (to, row) in rows.enumerate() {
                    let offset = row / taps * pixels.channel + self.layout.offsets[row % taps];
                    for piece in pieces {
                        let (mut to, mut from) = (to * BLOCK + piece.at, offset + piece.from);
                        let end = to + piece.n;
                        while to < end {
                            let n = STEP.min(values.len() - from);
                            if n == STEP {
                                // The last step goes too far, into what is written next.
                                let values = &values[from..from + STEP];
                                panel[to..to + STEP].copy_from_slice(values);
                            } else {
                                panel[to..to + n].copy_from_slice(&values[from..]);
                            }
                            (to, from) = (to + STEP, from + STEP);
                        }
                    }
                }
            },
        );
    }

    /// Where the runs are in a panel and in the pixels of a channel.
    fn pieces(&self, unit: &Unit, pixels: Pixels<'_>, runs: &[Run], pieces: &mut Vec<Piece>) {
        pieces.clear();
        let whole = self.are_the_images() && self.in_one_image(runs).is_some();
        let piece = |run: &Run| {
            let image = (run.image - unit.images.start) * pixels.image;
            let row = run.row - unit.rows.start;
            Piece {
                at: run.at,
                from: image + row * self.layout.pitch + run.column,
                n: run.n,
            }
        };
        pieces.extend(
            runs.iter()
                .take(if whole { 1 } else { runs.len() })
                .map(piece),
        );
        if whole {
            // Row after row, as in the image.
            pieces[0].n = runs.iter().map(|run| run.n).sum();
        }
    }

    /// Where the places of a block begin in a channel of the image that all of them belong to.
    fn in_one_image(&self, runs: &[Run]) -> Option<usize> {
        let (first, last) = (runs.first()?, runs.last()?);
        (first.image == last.image).then(|| first.row * self.places[1] + first.column)
    }

    /// Places of a unit.
    fn places_of(&self, unit: &Unit) -> usize {
        unit.images.len() * unit.rows.len() * self.places[1]
    }

    /// At each place the products of its patch with all kernels.
    ///
    /// - images: `[batch, groups * channels, ..size]`
    /// - to: channels of each group of the products
    /// - bias: of each channel of the products, or zero
    /// - out: `[batch, groups * to / each, ..places.size]`, of which all pixels at places are written
    pub(super) fn convolve(
        &self,
        images: &[f32],
        kernels: Directed<'_>,
        to: usize,
        bias: Option<&[f32]>,
        places: Places,
        out: &Shared,
    ) {
        let packed = self.packed(kernels, to);
        let units = self.units();
        let strips = to.div_ceil(strip());
        let splits = TASKS
            .div_ceil((units.len() * self.groups).max(1))
            .min(strips);
        let part = strips.div_ceil(splits.max(1)) * strip();
        let tasks: Vec<_> = units
            .iter()
            .flat_map(|unit| (0..self.groups).map(move |group| (unit, group)))
            .flat_map(|(unit, group)| parts(to, part).map(move |rows| (unit, group, rows)))
            .collect();
        let zeros = vec![0.0; if bias.is_none() { self.groups * to } else { 0 }];
        let convolution = Convolving {
            patches: self,
            images,
            packed: &packed,
            to,
            bias: bias.unwrap_or(&zeros),
            places,
            out,
        };
        tasks.into_par_iter().for_each_init(
            || Room::new(self, part.min(to)),
            |room, (unit, group, rows)| convolution.run(room, unit, group, rows),
        );
    }

    /// The kernels, group by group, as panels of `DEPTH` rows.
    fn packed(&self, kernels: Directed<'_>, to: usize) -> Vec<f32> {
        let (depth, taps) = (self.depth(), self.taps.len());
        let mut packed = vec![0.0; self.groups * depth * to];
        let of_group = kernels.values.len() / self.groups;
        let groups = packed.par_chunks_mut((depth * to).max(1)).enumerate();
        groups.for_each(|(group, packed)| {
            let values = &kernels.values[group * of_group..][..of_group];
            let panels = packed.par_chunks_mut(DEPTH * to).enumerate();
            panels.for_each(|(panel, packed)| {
                let rows = panel * DEPTH..panel * DEPTH + packed.len() / to;
                let start = |row: usize| row / taps * kernels.from + self.taps[row % taps].weight;
                let starts: Vec<usize> = rows.map(start).collect();
                pack(packed, values, &starts, kernels.to, to);
            });
        });
        packed
    }
}

/// The pixels of a unit's channels: from image to image and from channel to channel.
#[derive(Clone, Copy, Debug)]
struct Pixels<'a> {
    values: &'a [f32],
    image: usize,
    channel: usize,
}

/// A run in a panel and in the pixels of a channel.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: usize,
    from: usize,
    n: usize,
}

/// Memory of a task.
struct Room {
    laid: Vec<f32>,
    panel: Aligned,
    product: Aligned,
    runs: Vec<Run>,
    pieces: Vec<Piece>,
}

impl Room {
    fn new(patches: &Patches, to: usize) -> Self {
        Self {
            laid: Vec::new(),
            panel: Aligned::new(DEPTH.min(patches.depth()) * BLOCK + STEP),
            product: Aligned::new(to * BLOCK),
            runs: Vec::new(),
            pieces: Vec::new(),
        }
    }
}

/// Zeros that begin where a line of the caches does.
struct Aligned {
    values: Vec<f32>,
    n: usize,
}

impl Aligned {
    const LINE: usize = 64;

    fn new(n: usize) -> Self {
        Self {
            values: vec![0.0; n + Self::LINE / size_of::<f32>()],
            n,
        }
    }

    fn values(&mut self) -> &mut [f32] {
        let first = self.values.as_ptr().align_offset(Self::LINE);
        &mut self.values[first..first + self.n]
    }
}

/// What the tasks of a convolution share.
struct Convolving<'a> {
    patches: &'a Patches,
    images: &'a [f32],
    packed: &'a [f32],
    to: usize,
    bias: &'a [f32],
    places: Places,
    out: &'a Shared,
}

impl Convolving<'_> {
    /// - rows: channels of the result, in their group
    fn run(&self, room: &mut Room, unit: &Unit, group: usize, rows: Range<usize>) {
        let patches = self.patches;
        let Room {
            laid,
            panel,
            product,
            runs,
            pieces,
        } = room;
        let (panel, product) = (panel.values(), product.values());
        let depth = patches.depth();
        let pixels = patches.pixels(unit, group, self.images, laid);
        let bias = &self.bias[group * self.to..][rows.clone()];
        for block in parts(patches.places_of(unit), BLOCK) {
            let columns = block.len();
            patches.runs(unit, block, runs);
            patches.pieces(unit, pixels, runs, pieces);
            // A tile may be read beyond the last place.
            let end = pieces[0].from + (patches.channels - 1) * pixels.channel;
            let direct = patches.are_the_images()
                && pieces.len() == 1
                && end + columns.next_multiple_of(vector()) <= pixels.values.len();
            let straight = self.straight(runs, group, rows.start, columns);
            for part in parts(depth, DEPTH) {
                let wide = if direct {
                    Wide {
                        values: &pixels.values[pieces[0].from + part.start * pixels.channel..],
                        row: pixels.channel,
                        tile: tile(),
                    }
                } else {
                    patches.gather(pixels, part.clone(), pieces, panel);
                    Wide {
                        values: panel,
                        row: BLOCK,
                        tile: tile(),
                    }
                };
                let first = (group * depth + part.start) * self.to;
                let packed = &self.packed[first + rows.start * part.len()..];
                let factors = Factors::Packed(packed);
                let beginning = if part.start == 0 {
                    Start::Values(bias)
                } else {
                    Start::There
                };
                let size = Size {
                    depth: part.len(),
                    rows: rows.len(),
                    columns,
                };
                match straight {
                    // SAFETY: these are the places of the block, in channels that are this task's alone; the first part of the depth
                    // writes what the next ones read.
                    Some(out) => unsafe {
                        add_product_at(out, factors, wide, size, beginning);
                    },
                    None => add_product((product, BLOCK), factors, wide, size, beginning),
                }
            }
            if depth == 0 {
                for (product, bias) in product.chunks_mut(BLOCK).zip(bias) {
                    product.fill(*bias);
                }
            }
            if straight.is_none() || depth == 0 {
                self.put(product, runs, group, rows.clone());
            }
        }
    }

    /// Where a block's places lie in the result, and from channel to channel, if they lie there one after another and in
    /// whole vectors.
    fn straight(
        &self,
        runs: &[Run],
        group: usize,
        row: usize,
        columns: usize,
    ) -> Option<(*mut f32, usize)> {
        let of_channel = self.places.size[0] * self.places.size[1];
        let all = self.places.step == [1, 1] && self.places.size == self.patches.places;
        let first = self.patches.in_one_image(runs)?;
        let channel = (runs[0].image * self.patches.groups + group) * self.to + row;
        (all && columns.is_multiple_of(vector()))
            .then(|| (self.out.at(channel * of_channel + first), of_channel))
    }

    /// The products at the places of the result.
    fn put(&self, product: &[f32], runs: &[Run], group: usize, rows: Range<usize>) {
        let Places {
            size,
            first,
            step,
            each,
        } = self.places;
        let of_channel = each[0] * each[1];
        for (row, products) in rows.zip(product.chunks(BLOCK)) {
            let (row, pixel) = (row / of_channel, row % of_channel);
            let first = [first[0] + pixel / each[1], first[1] + pixel % each[1]];
            for run in runs {
                let image = run.image * self.patches.groups + group;
                let channel = image * (self.to / of_channel) + row;
                let y = first[0] + run.row * step[0];
                let x = first[1] + run.column * step[1];
                let start = (channel * size[0] + y) * size[1] + x;
                let values = &products[run.at..run.at + run.n];
                // SAFETY: a channel's places are those of one unit, and a unit's channels those of one task.
                unsafe { self.out.write(start, step[1], values) };
            }
        }
    }
}

/// The gradient of kernels: of each value the sum over all places of the products of the pixel that it meets and the
/// gradient there.
///
/// - patches: of the wide images
/// - narrow: gradients, `[batch, groups * channels, ..places]`
/// - channels: of each group of a narrow image
pub(super) fn weight_gradient(
    patches: &Patches,
    narrow: &[f32],
    channels: usize,
    wide: &[f32],
) -> Vec<f32> {
    let depth = patches.depth();
    let units = patches.units();
    let gradient = Gradient {
        patches,
        narrow,
        channels,
        wide,
        kernels_are_wide: channels <= depth,
    };
    let (lanes, factors) = gradient.rows();
    // Each part of the units has sums of its own, and the fewer the larger they are.
    let most = ((1 << 19) / (patches.groups * depth * channels).max(1)).clamp(1, 8);
    let of_part = units.len().div_ceil(most).max(1);
    let n_parts = units.len().div_ceil(of_part);
    let splits = TASKS
        .div_ceil((n_parts * patches.groups).max(1))
        .min(factors.div_ceil(strip()))
        .max(1);
    let split = factors.div_ceil(splits).next_multiple_of(strip());
    let tasks: Vec<_> = units
        .chunks(of_part)
        .enumerate()
        .flat_map(|(part, units)| (0..patches.groups).map(move |group| (part, units, group)))
        .flat_map(|(part, units, group)| {
            parts(factors, split).map(move |rows| (part, units, group, rows))
        })
        .collect();
    let of_group = depth * channels;
    let n = patches.groups * of_group;
    if tasks.is_empty() {
        return vec![0.0; n];
    }
    let shared = Shared::new(n_parts * n);
    tasks
        .into_par_iter()
        .for_each(|(part, units, group, rows)| {
            let sums = gradient.sums(units, group, rows.clone());
            let first = (part * patches.groups + group) * of_group;
            let row = lanes.next_multiple_of(tile());
            // SAFETY: the rows of a part and a group are those of one task.
            let write = |start: usize, values: &[f32]| unsafe { shared.write(start, 1, values) };
            if !gradient.kernels_are_wide {
                for (at, sums) in rows.zip(sums.chunks_exact(row)) {
                    write(first + at * depth, &sums[..depth]);
                }
                return;
            }
            let mut turned = vec![0.0; channels * rows.len()];
            transpose(
                (&sums, row),
                (&mut turned, rows.len()),
                [rows.len(), channels],
            );
            for (channel, sums) in turned.chunks_exact(rows.len()).enumerate() {
                write(first + channel * depth + rows.start, sums);
            }
        });
    // SAFETY: the tasks have written the rows of all parts and groups.
    let mut sums = unsafe { shared.into_values() };
    let (out, parts) = sums.split_at_mut(n);
    for part in parts.chunks(n) {
        out.iter_mut()
            .zip(part)
            .for_each(|(out, part)| *out += part);
    }
    sums.truncate(n);
    sums
}

/// What the tasks of a gradient share.
struct Gradient<'a> {
    patches: &'a Patches,
    narrow: &'a [f32],
    channels: usize,
    wide: &'a [f32],
    /// Whether the gradients of the result are read by vectors, and not the patches: those that have fewer rows are, as they
    /// have to be transposed.
    kernels_are_wide: bool,
}

impl Gradient<'_> {
    /// Rows that are read by vectors, and of factors.
    fn rows(&self) -> (usize, usize) {
        let depth = self.patches.depth();
        if self.kernels_are_wide {
            (self.channels, depth)
        } else {
            (depth, self.channels)
        }
    }

    /// Of some factors' rows the sums over these units: for each as many as lanes, to the next whole tile.
    fn sums(&self, units: &[Unit], group: usize, rows: Range<usize>) -> Vec<f32> {
        let patches = self.patches;
        let (lanes, _) = self.rows();
        let padded = lanes.next_multiple_of(tile());
        let mut sums = vec![0.0; rows.len() * padded];
        let (mut turned, mut panel) = (
            Aligned::new(padded * BLOCK),
            Aligned::new(DEPTH * BLOCK + STEP),
        );
        let (turned, panel) = (turned.values(), panel.values());
        let (mut laid, mut runs, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
        for unit in units {
            let pixels = patches.pixels(unit, group, self.wide, &mut laid);
            for block in parts(patches.places_of(unit), BLOCK) {
                let places = block.len();
                patches.runs(unit, block, &mut runs);
                patches.pieces(unit, pixels, &runs, &mut pieces);
                let block = Block {
                    pixels,
                    runs: &runs,
                    pieces: &pieces,
                    group,
                };
                for part in parts(lanes, DEPTH) {
                    let (values, row) =
                        self.panel(&block, part.clone(), !self.kernels_are_wide, panel);
                    turn(values, row, part, places, turned);
                }
                for part in parts(rows.len(), DEPTH) {
                    let from = rows.start + part.start..rows.start + part.end;
                    let (values, row) = self.panel(&block, from, self.kernels_are_wide, panel);
                    let size = Size {
                        depth: places,
                        rows: part.len(),
                        columns: lanes,
                    };
                    let out = (&mut sums[part.start * padded..], padded);
                    let wide = Wide {
                        values: turned,
                        row: tile(),
                        tile: tile() * BLOCK,
                    };
                    let factors = Factors::Columns(values, row);
                    add_product(out, factors, wide, size, Start::There);
                }
            }
        }
        sums
    }

    /// Rows of patches or of gradients at the places of a block, and from row to row.
    fn panel<'a>(
        &'a self,
        block: &Block<'a>,
        rows: Range<usize>,
        of_patches: bool,
        panel: &'a mut [f32],
    ) -> (&'a [f32], usize) {
        let patches = self.patches;
        let Block {
            pixels,
            runs,
            pieces,
            group,
        } = *block;
        if of_patches {
            if patches.are_the_images() && pieces.len() == 1 {
                let first = pieces[0].from + rows.start * pixels.channel;
                return (&pixels.values[first..], pixels.channel);
            }
            patches.gather(pixels, rows, pieces, panel);
            return (panel, BLOCK);
        }
        let count = patches.count();
        let start = |run: &Run, row: usize| {
            let channel = (run.image * patches.groups + group) * self.channels + row;
            channel * count + run.row * patches.places[1] + run.column
        };
        if patches.in_one_image(runs).is_some() {
            return (&self.narrow[start(&runs[0], rows.start)..], count);
        }
        for (row, panel) in rows.zip(panel.chunks_exact_mut(BLOCK)) {
            for run in runs {
                let from = start(run, row);
                panel[run.at..run.at + run.n].copy_from_slice(&self.narrow[from..from + run.n]);
            }
        }
        (panel, BLOCK)
    }
}

/// The places whose products are summed at a time.
struct Block<'a> {
    pixels: Pixels<'a>,
    runs: &'a [Run],
    pieces: &'a [Piece],
    group: usize,
}

/// Rows of a panel as columns, tile after tile.
fn turn(values: &[f32], row: usize, rows: Range<usize>, places: usize, turned: &mut [f32]) {
    let tile = tile();
    for part in parts(rows.len(), tile) {
        let from = &values[part.start * row..];
        let to = &mut turned[(rows.start + part.start) * BLOCK..];
        transpose((from, row), (to, tile), [part.len(), places]);
    }
}

/// Parts of so many, the last with what is left.
fn parts(n: usize, of: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let starts = (0..n).step_by(of.max(1));
    starts.map(move |start| start..(start + of).min(n))
}

/// Values a step apart.
pub(super) fn take_every(step: usize, values: &[f32], out: &mut [f32]) {
    match step {
        1 => out.copy_from_slice(&values[..out.len()]),
        2 => vectorized(
            #[inline(always)]
            || {
                let Some((last, most)) = out.split_last_mut() else {
                    return;
                };
                *last = values[2 * most.len()];
                for (out, pair) in most.iter_mut().zip(values.chunks_exact(2)) {
                    *out = pair[0];
                }
            },
        ),
        _ => {
            let values = values.iter().step_by(step);
            out.iter_mut()
                .zip(values)
                .for_each(|(out, value)| *out = *value);
        }
    }
}

/// The part of a row that lies on the image: pixels from `left` on, a step apart.
fn inside(left: isize, step: usize, width: usize, n: usize) -> Range<usize> {
    let first = left.min(0).unsigned_abs().div_ceil(step).min(n);
    let end = (width as isize - left).max(0) as usize;
    first..end.div_ceil(step).min(n).max(first)
}

/// Values that several threads write.
pub(super) struct Shared {
    /// Of no length until all are written.
    memory: Vec<f32>,
    first: *mut f32,
    n: usize,
}

// SAFETY: whoever writes promises that nobody else writes the same values.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(n: usize) -> Self {
        let mut memory = Vec::with_capacity(n);
        Self {
            first: memory.as_mut_ptr(),
            memory,
            n,
        }
    }

    fn at(&self, start: usize) -> *mut f32 {
        assert!(start < self.n);
        // SAFETY: it lies inside the memory.
        unsafe { self.first.add(start) }
    }

    /// # Safety
    ///
    /// No other thread writes these values, a step apart.
    unsafe fn write(&self, start: usize, step: usize, values: &[f32]) {
        if values.is_empty() {
            return;
        }
        assert!(start + (values.len() - 1) * step < self.n);
        // SAFETY: they lie inside the memory, and the caller vouches that they are nobody else's.
        unsafe {
            let to = self.first.add(start);
            if step == 1 {
                return ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
            }
            for (at, value) in values.iter().enumerate() {
                to.add(at * step).write(*value);
            }
        }
    }

    /// # Safety
    ///
    /// All values are written.
    pub(super) unsafe fn into_values(mut self) -> Vec<f32> {
        // SAFETY: there is room for as many, and the caller vouches that they are written.
        unsafe { self.memory.set_len(self.n) };
        self.memory
    }
}
