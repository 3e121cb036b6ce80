//! Convolutions as products of kernels and patches, the pixels that a kernel sees at a place (Chellapilla et al. 2006,
//! <https://inria.hal.science/inria-00112631>). In: images and kernels. Out: images, or the gradients of kernels.
//!
//! The matrix of all patches is never there: of some images, or some rows of one, the patches of [`BLOCK`] places at a
//! time are laid out as panels that stay in the caches. These units are spread over the cores; the order of every sum
//! depends on shapes alone.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use crate::ops::panels::{Factors, Size, Start, Wide, add_product, pack, strip, tile};
use crate::ops::simd::vectorized;

/// Places of a panel, a multiple of every machine's tile.
const BLOCK: usize = 192;
/// Rows of a panel.
const DEPTH: usize = 192;
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
}

impl Places {
    /// One for each pixel.
    pub(super) fn all(size: [usize; 2]) -> Self {
        Self {
            size,
            first: [0, 0],
            step: [1, 1],
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

    /// Images of a unit where one has few places.
    fn together(&self) -> usize {
        if self.layout.places < self.places[0] {
            return 1;
        }
        let fit = LAID_OUT / (self.channels * self.layout.channel()).max(1);
        (BLOCK / self.count()).min(fit).max(1)
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

    /// The pixels of the channels of a group that a unit's places meet.
    fn lay_out(&self, unit: &Unit, group: usize, images: &[f32], laid: &mut Vec<f32>) {
        // Whole steps are read beyond the last one.
        let room = self.together() * self.channels * self.layout.channel() + STEP;
        laid.resize(room, 0.0);
        let [height, width] = self.size;
        let Layout {
            first,
            ref phases,
            rows,
            pitch,
            ..
        } = self.layout;
        let channels = unit.images.clone().flat_map(|image| {
            let first = (image * self.groups + group) * self.channels;
            first..first + self.channels
        });
        let outs = laid.chunks_exact_mut(self.layout.channel());
        for (channel, out) in channels.zip(outs) {
            let pixels = &images[channel * height * width..][..height * width];
            for (phase, out) in phases.iter().zip(out.chunks_exact_mut(rows * pitch)) {
                let left = first[1] + phase[1] as isize;
                let inside = inside(left, self.step[1], width, pitch);
                let from = (left + (inside.start * self.step[1]) as isize).max(0) as usize;
                for (row, out) in out.chunks_exact_mut(pitch).enumerate() {
                    let y = first[0] + (phase[0] + (unit.rows.start + row) * self.step[0]) as isize;
                    if y < 0 || y >= height as isize || inside.is_empty() {
                        out.fill(0.0);
                        continue;
                    }
                    let pixels = &pixels[y as usize * width..][..width];
                    out[..inside.start].fill(0.0);
                    out[inside.end..].fill(0.0);
                    let out = &mut out[inside.clone()];
                    if self.step[1] == 1 {
                        out.copy_from_slice(&pixels[from..from + out.len()]);
                        continue;
                    }
                    let pixels = pixels[from..].iter().step_by(self.step[1]);
                    out.iter_mut()
                        .zip(pixels)
                        .for_each(|(out, pixel)| *out = *pixel);
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

    /// Some rows of the matrix of patches at these runs of a unit; beyond the runs the panel holds values of no use.
    ///
    /// - starts: where each run begins in the layout of a channel
    fn gather(
        &self,
        laid: &[f32],
        rows: Range<usize>,
        starts: &[(usize, usize, usize)],
        panel: &mut [f32],
    ) {
        let taps = self.taps.len();
        vectorized(
            #[inline(always)]
            || {
                for (to, row) in rows.enumerate() {
                    let channel = row / taps * self.layout.channel();
                    let offset = channel + self.layout.offsets[row % taps];
                    for &(at, start, n) in starts {
                        let to = to * BLOCK + at;
                        let from = offset + start;
                        let mut done = 0;
                        while done < n {
                            // The last step goes too far, into what is written next.
                            let values = &laid[from + done..from + done + STEP];
                            panel[to + done..to + done + STEP].copy_from_slice(values);
                            done += STEP;
                        }
                    }
                }
            },
        );
    }

    /// Where runs begin in the panel and in the layout of a channel, and their lengths.
    fn starts(&self, unit: &Unit, runs: &[Run]) -> Vec<(usize, usize, usize)> {
        let image = self.channels * self.layout.channel();
        let start = |run: &Run| {
            let image = (run.image - unit.images.start) * image;
            let row = run.row - unit.rows.start;
            (run.at, image + row * self.layout.pitch + run.column, run.n)
        };
        runs.iter().map(start).collect()
    }

    /// Places of a unit.
    fn places_of(&self, unit: &Unit) -> usize {
        unit.images.len() * unit.rows.len() * self.places[1]
    }

    /// At each place the products of its patch with all kernels.
    ///
    /// - images: `[batch, groups * channels, ..size]`
    /// - to: channels of each group of the result
    /// - bias: of each channel of the result, or zero
    /// - out: `[batch, groups * to, ..places.size]`
    pub(super) fn convolve(
        &self,
        images: &[f32],
        kernels: Directed<'_>,
        to: usize,
        bias: Option<&[f32]>,
        places: Places,
        out: &mut [f32],
    ) {
        let packed = self.packed(kernels, to);
        let units = self.units();
        let alone = units.len() * self.groups;
        let strips = to.div_ceil(strip());
        let splits = TASKS.div_ceil(alone.max(1)).min(strips);
        let part = strips.div_ceil(splits.max(1)) * strip();
        let tasks: Vec<_> = units
            .iter()
            .flat_map(|unit| (0..self.groups).map(move |group| (unit, group)))
            .flat_map(|(unit, group)| parts(to, part).map(move |rows| (unit, group, rows)))
            .collect();
        let zeros = vec![0.0; if bias.is_none() { self.groups * to } else { 0 }];
        let out = Shared::new(out);
        let convolution = Convolving {
            patches: self,
            images,
            packed: &packed,
            to,
            bias: bias.unwrap_or(&zeros),
            places,
            out: &out,
        };
        tasks.into_par_iter().for_each_init(
            || Room::new(self, to),
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
                let first = panel * DEPTH;
                pack(packed, packed.len() / to, to, |row, column| {
                    let (channel, tap) = ((first + row) / taps, (first + row) % taps);
                    values[channel * kernels.from + column * kernels.to + self.taps[tap].weight]
                });
            });
        });
        packed
    }
}

/// Memory of a task.
struct Room {
    laid: Vec<f32>,
    panel: Vec<f32>,
    product: Vec<f32>,
    runs: Vec<Run>,
}

impl Room {
    fn new(patches: &Patches, to: usize) -> Self {
        Self {
            laid: Vec::new(),
            panel: vec![0.0; DEPTH.min(patches.depth()) * BLOCK + BLOCK],
            product: vec![0.0; to * BLOCK],
            runs: Vec::new(),
        }
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
    out: &'a Shared<'a>,
}

impl Convolving<'_> {
    /// - rows: channels of the result, in their group
    fn run(&self, room: &mut Room, unit: &Unit, group: usize, rows: Range<usize>) {
        let patches = self.patches;
        let n = patches.places_of(unit);
        let depth = patches.depth();
        let direct = patches.are_the_images() && patches.count() >= BLOCK;
        let mut is_laid_out = false;
        let bias = &self.bias[group * self.to..][rows.clone()];
        for block in even_parts(n, BLOCK) {
            let places = block.len();
            patches.runs(unit, block.clone(), &mut room.runs);
            let start = room.runs[0];
            let pixel = start.row * patches.size[1] + start.column;
            let image = (start.image * patches.groups + group) * patches.channels;
            // A tile may be read beyond the last place.
            let from = image * patches.count() + pixel;
            let end = from
                + (patches.channels.max(1) - 1) * patches.count()
                + places.next_multiple_of(tile());
            let direct = direct && end <= self.images.len();
            if !direct && !is_laid_out && depth > 0 {
                patches.lay_out(unit, group, self.images, &mut room.laid);
                is_laid_out = true;
            }
            let starts = patches.starts(unit, &room.runs);
            for panel in parts(depth, DEPTH) {
                let wide = if direct {
                    Wide {
                        values: &self.images[from + panel.start * patches.count()..],
                        row: patches.count(),
                        tile: tile(),
                    }
                } else {
                    patches.gather(&room.laid, panel.clone(), &starts, &mut room.panel);
                    Wide {
                        values: &room.panel,
                        row: BLOCK,
                        tile: tile(),
                    }
                };
                let first = (group * depth + panel.start) * self.to;
                let packed = &self.packed[first + rows.start * panel.len()..];
                let beginning = if panel.start == 0 {
                    Start::Values(bias)
                } else {
                    Start::There
                };
                let size = Size {
                    depth: panel.len(),
                    rows: rows.len(),
                    columns: places,
                };
                let out = (&mut room.product[..], BLOCK);
                add_product(out, Factors::Packed(packed), wide, size, beginning);
            }
            if depth == 0 {
                for (product, bias) in room.product.chunks_mut(BLOCK).zip(bias) {
                    product.fill(*bias);
                }
            }
            self.put(room, group, rows.clone());
        }
    }

    /// The products at the places of the result.
    fn put(&self, room: &Room, group: usize, rows: Range<usize>) {
        let Places { size, first, step } = self.places;
        for (row, products) in rows.zip(room.product.chunks(BLOCK)) {
            for run in &room.runs {
                let channel = (run.image * self.patches.groups + group) * self.to + row;
                let y = first[0] + run.row * step[0];
                let x = first[1] + run.column * step[1];
                let start = (channel * size[0] + y) * size[1] + x;
                let values = &products[run.at..run.at + run.n];
                // SAFETY: a channel's places are those of one unit, and a unit's channels those of one task.
                let out = unsafe { self.out.part(start, (run.n - 1) * step[1] + 1) };
                if step[1] == 1 {
                    out.copy_from_slice(values);
                    continue;
                }
                let out = out.iter_mut().step_by(step[1]);
                out.zip(values).for_each(|(out, value)| *out = *value);
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
    let mut sums = vec![0.0; n_parts.max(1) * patches.groups * of_group];
    let shared = Shared::new(&mut sums);
    tasks
        .into_par_iter()
        .for_each(|(part, units, group, rows)| {
            let sums = gradient.sums(units, group, rows.clone());
            let first = (part * patches.groups + group) * of_group;
            let row = lanes.next_multiple_of(tile());
            for (at, sums) in rows.zip(sums.chunks_exact(row)) {
                if gradient.kernels_are_wide {
                    for (channel, sum) in sums[..channels].iter().enumerate() {
                        // SAFETY: a part's and a group's rows are those of one task.
                        let out = unsafe { shared.part(first + channel * depth + at, 1) };
                        out[0] = *sum;
                    }
                } else {
                    // SAFETY: as above.
                    let out = unsafe { shared.part(first + at * depth, depth) };
                    out.copy_from_slice(&sums[..depth]);
                }
            }
        });
    let (out, parts) = sums.split_at_mut(patches.groups * of_group);
    for part in parts.chunks(out.len().max(1)) {
        out.iter_mut()
            .zip(part)
            .for_each(|(out, part)| *out += part);
    }
    let n = out.len();
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
        let mut laid = Vec::new();
        let mut turned = vec![0.0; padded * BLOCK];
        let mut panel = vec![0.0; (DEPTH + 1) * BLOCK];
        let mut runs = Vec::new();
        for unit in units {
            patches.lay_out(unit, group, self.wide, &mut laid);
            for block in even_parts(patches.places_of(unit), BLOCK) {
                let places = block.len();
                patches.runs(unit, block, &mut runs);
                let starts = patches.starts(unit, &runs);
                let fill = |panel: &mut [f32], rows: Range<usize>, of_patches: bool| {
                    if of_patches {
                        patches.gather(&laid, rows, &starts, panel);
                    } else {
                        self.gather(&runs, group, rows, panel);
                    }
                };
                for part in parts(lanes, DEPTH) {
                    fill(&mut panel, part.clone(), !self.kernels_are_wide);
                    turn(&panel, part, places, &mut turned);
                }
                for part in parts(rows.len(), DEPTH) {
                    let from = rows.start + part.start..rows.start + part.end;
                    fill(&mut panel, from, self.kernels_are_wide);
                    let size = Size {
                        depth: places,
                        rows: part.len(),
                        columns: lanes,
                    };
                    let out = (&mut sums[part.start * padded..], padded);
                    let wide = Wide {
                        values: &turned,
                        row: tile(),
                        tile: tile() * BLOCK,
                    };
                    add_product(
                        out,
                        Factors::Columns(&panel, BLOCK),
                        wide,
                        size,
                        Start::There,
                    );
                }
            }
        }
        sums
    }

    /// Channels of narrow images at these runs.
    fn gather(&self, runs: &[Run], group: usize, rows: Range<usize>, panel: &mut [f32]) {
        let count = self.patches.count();
        for (row, panel) in rows.zip(panel.chunks_exact_mut(BLOCK)) {
            for run in runs {
                let channel = (run.image * self.patches.groups + group) * self.channels + row;
                let from = channel * count + run.row * self.patches.places[1] + run.column;
                panel[run.at..run.at + run.n].copy_from_slice(&self.narrow[from..from + run.n]);
            }
        }
    }
}

/// Rows of a panel as columns, tile after tile.
fn turn(panel: &[f32], rows: Range<usize>, places: usize, turned: &mut [f32]) {
    let tile = tile();
    for (row, values) in rows.zip(panel.chunks_exact(BLOCK)) {
        let to = &mut turned[row / tile * tile * BLOCK + row % tile..];
        let to = to.iter_mut().step_by(tile);
        to.zip(&values[..places])
            .for_each(|(to, value)| *to = *value);
    }
}

/// Parts of so many, the last with what is left.
fn parts(n: usize, of: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let starts = (0..n).step_by(of.max(1));
    starts.map(move |start| start..(start + of).min(n))
}

/// Parts of no more than so many, and as even as can be.
fn even_parts(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let count = n.div_ceil(most).max(1);
    parts(n, n.div_ceil(count))
}

/// The part of a row that lies on the image: pixels from `left` on, a step apart.
fn inside(left: isize, step: usize, width: usize, n: usize) -> Range<usize> {
    let first = left.min(0).unsigned_abs().div_ceil(step).min(n);
    let end = (width as isize - left).max(0) as usize;
    first..end.div_ceil(step).min(n).max(first)
}

/// A slice whose parts are written by several threads.
struct Shared<'a> {
    values: *mut f32,
    n: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is the slice, whose parts whoever asks for them promises not to ask for twice.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    fn new(values: &'a mut [f32]) -> Self {
        Self {
            n: values.len(),
            values: values.as_mut_ptr(),
            slice: PhantomData,
        }
    }

    /// # Safety
    ///
    /// No value of this part is in a part that somebody else has.
    #[allow(clippy::mut_from_ref, reason = "parts do not overlap")]
    unsafe fn part(&self, start: usize, n: usize) -> &mut [f32] {
        assert!(start + n <= self.n);
        // SAFETY: it lies inside the slice, and the caller vouches that it is nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(start), n) }
    }
}
