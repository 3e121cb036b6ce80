//! Times reading, decoding and augmenting images on all cores: `cargo run --release -p data --example load_images FOLDER`.

use std::path::PathBuf;
use std::time::Instant;

use data::augment::{Augmentation, Flip, RandomResizedCrop, Size, Step};
use data::{ImageFileOptions, open_image_files};
use rayon::prelude::*;

fn main() -> Result<(), data::DataError> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let options = ImageFileOptions {
        channels: Some(3),
        ..ImageFileOptions::default()
    };
    let begun = Instant::now();
    let set = open_image_files(&folders, &options)?.train;
    println!("{} images opened in {:?}", set.len(), begun.elapsed());
    let crop = RandomResizedCrop::new(Size::Side(224));
    let steps = Augmentation {
        steps: vec![Step::RandomResizedCrop(crop), Step::Flip(Flip::default())],
    };
    let begun = Instant::now();
    let values = (0..set.len()).into_par_iter().map(|i| {
        let picture = steps.apply(set.decode(i)?, 0, i as u64);
        let mut planes = vec![0.0_f32; picture.pixels.len()];
        picture.write_planes(&mut planes, |_, value| f32::from(value) / 255.0);
        Ok(planes.len())
    });
    let values: usize = values.try_reduce(|| 0, |a, b| Ok(a + b))?;
    let taken = begun.elapsed();
    let rate = set.len() as f64 / taken.as_secs_f64();
    println!("{values} values made in {taken:?}, {rate:.0} images a second");
    Ok(())
}
