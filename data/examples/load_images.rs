//! Times reading, decoding, cropping to 224 pixels, flipping and normalising images on all cores, what
//! `benches/torch/load_images.py` does with torchvision: `cargo run --release -p data --example load_images FOLDER`. With a
//! second argument, `rand-augment`, that too. The last line is images a second.

use std::path::PathBuf;
use std::time::Instant;

use data::augment::{Augmentation, Flip, RandAugment, RandomResizedCrop, Size, Step};
use data::{ImageFileOptions, open_image_files};
use rayon::prelude::*;

fn main() -> Result<(), data::DataError> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_default());
    let rand_augment = arguments.next().is_some_and(|word| word == "rand-augment");
    let options = ImageFileOptions {
        channels: Some(3),
        ..ImageFileOptions::default()
    };
    let begun = Instant::now();
    let set = open_image_files(&[folder], &options)?.train;
    println!("{} images opened in {:?}", set.len(), begun.elapsed());
    let crop = RandomResizedCrop::new(Size::Side(224));
    let mut steps = vec![Step::RandomResizedCrop(crop), Step::Flip(Flip::default())];
    if rand_augment {
        steps.push(Step::RandAugment(RandAugment::default()));
    }
    let steps = Augmentation { steps };
    let levels = [[0.485_f32, 0.229], [0.456, 0.224], [0.406, 0.225]].map(|[mean, deviation]| {
        [(); 256].map({
            let mut level = 0.0;
            move |()| {
                let value = (level / 255.0 - mean) / deviation;
                level += 1.0;
                value
            }
        })
    });
    let begun = Instant::now();
    let values = (0..set.len()).into_par_iter().map(|i| {
        let picture = steps.apply(set.decode(i)?, 0, i as u64);
        let mut planes = vec![0.0_f32; picture.pixels.len()];
        picture.write_planes(&mut planes, |channel, value| {
            levels[channel][usize::from(value)]
        });
        Ok(planes.len())
    });
    let values: usize = values.try_reduce(|| 0, |a, b| Ok(a + b))?;
    let taken = begun.elapsed();
    let rate = set.len() as f64 / taken.as_secs_f64();
    println!("{values} values made in {taken:?}");
    println!("{rate:.0}");
    Ok(())
}
