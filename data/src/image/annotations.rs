//! Reads boxes and finds masks. In: COCO's JSON, Pascal VOC's XML, or a folder of masks. Out: images with their targets.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use roxmltree::{Document, Node};
use serde::Deserialize;

use super::content;
use super::open::{Found, Row};
use super::rows::{NamedBox, Target};
use crate::given::split_of_word;
use crate::split::Split;
use crate::{DataError, file, labels};

/// Bytes of a JSON file in which the key of COCO's images is looked for.
const COCO_START: u64 = 1 << 16;

const IMAGES: &str = "images";
const MASKS: &str = "masks";

/// COCO's annotations, <https://cocodataset.org/#format-data>, as far as they are read.
#[derive(Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    #[serde(default)]
    annotations: Vec<CocoAnnotation>,
    #[serde(default)]
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoAnnotation {
    image_id: u64,
    category_id: u64,
    /// Left, top, width, height.
    bbox: [f32; 4],
    /// Whether it is around many things at once, which is no box to learn.
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct CocoCategory {
    id: u64,
    name: String,
}

/// Whether a JSON file has COCO's images near its start.
pub(super) fn is_coco(path: &Path) -> Result<bool, DataError> {
    let failed = |source| file::io_error(path, source);
    let mut start = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(COCO_START)
        .read_to_end(&mut start)
        .map_err(failed)?;
    let start = String::from_utf8_lossy(&start);
    let mut rests = start.split("\"images\"").skip(1);
    Ok(start.trim_start().starts_with('{')
        && rests.any(|rest| {
            let rest = rest.trim_start().strip_prefix(':');
            rest.is_some_and(|rest| rest.trim_start().starts_with('['))
        }))
}

/// Adds the images of COCO's annotations, with their boxes. Images are looked for beside the file, in `images` beside it
/// or one folder up, and in COCO's own folders: `annotations/instances_train2017.json` has its images in `train2017`.
///
/// # Errors
/// Not such a file, or boxes of images or classes that it doesn't list.
pub(super) fn coco(path: &Path, split: Split, found: &mut Found) -> Result<(), DataError> {
    let wrong = |reason: String| DataError::Annotations {
        path: path.into(),
        reason,
    };
    let file = File::open(path).map_err(|source| file::io_error(path, source))?;
    let coco: Coco = serde_json::from_reader(BufReader::new(file))
        .map_err(|error| wrong(format!("cannot be read as COCO: {error}")))?;
    let categories: BTreeMap<u64, String> = coco
        .categories
        .into_iter()
        .map(|category| {
            let name = labels::canonical(&category.name).into_owned();
            (category.id, name)
        })
        .collect();
    found.add_class_names(categories.values());
    let mut boxes: HashMap<u64, Vec<NamedBox>> = HashMap::new();
    for image in &coco.images {
        boxes.insert(image.id, Vec::new());
    }
    for annotation in coco.annotations {
        let CocoAnnotation {
            image_id,
            category_id,
            bbox,
            iscrowd,
        } = annotation;
        let of_image = boxes
            .get_mut(&image_id)
            .ok_or_else(|| wrong(format!("a box is of image {image_id}, which is not listed")))?;
        let class = categories.get(&category_id).ok_or_else(|| {
            wrong(format!(
                "a box is of category {category_id}, which is not listed"
            ))
        })?;
        if iscrowd == 0 {
            of_image.push(NamedBox {
                class: class.clone(),
                edges: bbox,
            });
        }
    }
    let folders = coco_folders(path);
    for image in coco.images {
        let places = folders.iter().map(|folder| folder.join(&image.file_name));
        let place = places.clone().find(|place| place.is_file());
        let place = place.unwrap_or_else(|| path.with_file_name(&image.file_name));
        let target = Target::Boxes(boxes.remove(&image.id).unwrap_or_default());
        found.rows.push(Row::of_file(place, split, Some(target)));
    }
    Ok(())
}

/// Where the images of an annotation file may be.
fn coco_folders(path: &Path) -> Vec<PathBuf> {
    let beside = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let above = beside.join("..");
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let of_split = stem.rsplit('_').next().unwrap_or_default().to_string();
    vec![
        beside.join(IMAGES),
        above.join(IMAGES).join(&of_split),
        above.join(IMAGES),
        above.join(&of_split),
        beside.join(&of_split),
        beside,
    ]
}

/// Adds the images of a folder in Pascal VOC's layout: `JPEGImages`, `Annotations`, and lists of splits in
/// `ImageSets/Main`, if there are some. Its pixels are counted from 1, and the last is part of the box.
///
/// # Errors
/// An annotation that can't be read.
pub(super) fn voc(folder: &Path, found: &mut Found) -> Result<(), DataError> {
    let splits = voc_splits(folder)?;
    let mut in_no_split = 0;
    for path in file::list(&folder.join("Annotations"))? {
        if file::extension(&file::name(&path)) != ".xml" {
            continue;
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let split = match &splits {
            None => Some(Split::Train),
            Some(splits) => splits.get(stem.as_ref()).copied(),
        };
        let Some(split) = split else {
            in_no_split += 1;
            continue;
        };
        let (name, boxes) = voc_boxes(&path)?;
        let name = name.unwrap_or_else(|| format!("{stem}.jpg"));
        let image = folder.join("JPEGImages").join(name);
        let target = Some(Target::Boxes(boxes));
        found.rows.push(Row::of_file(image, split, target));
    }
    if in_no_split > 0 {
        found.notes.push(format!(
            "{}: left out {in_no_split} images that no list in ImageSets/Main names",
            folder.display()
        ));
    }
    Ok(())
}

/// The split of each image by its name without extension; `None` where there are no lists.
fn voc_splits(folder: &Path) -> Result<Option<HashMap<String, Split>>, DataError> {
    let lists = folder.join("ImageSets/Main");
    let mut splits = HashMap::new();
    let mut given = false;
    for (name, split) in [
        ("train.txt", Split::Train),
        ("val.txt", Split::Valid),
        ("test.txt", Split::Test),
    ] {
        let list = lists.join(name);
        if !list.is_file() {
            continue;
        }
        given = true;
        let bytes = file::read(&list)?;
        let text = String::from_utf8_lossy(&bytes);
        let names = text
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        splits.extend(names.map(|name| (name.to_string(), split)));
    }
    Ok(given.then_some(splits))
}

/// The image's name and the boxes of one annotation.
fn voc_boxes(path: &Path) -> Result<(Option<String>, Vec<NamedBox>), DataError> {
    let wrong = |reason: String| DataError::Annotations {
        path: path.into(),
        reason,
    };
    let bytes = file::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let document = Document::parse(&text)
        .map_err(|error| wrong(format!("cannot be read as Pascal VOC: {error}")))?;
    let root = document.root_element();
    let child = |node: Node, name: &str| {
        let child = node.children().find(|child| child.has_tag_name(name))?;
        child.text().map(|text| text.trim().to_string())
    };
    let mut boxes = Vec::new();
    for object in root.children().filter(|node| node.has_tag_name("object")) {
        let missing = |name: &str| wrong(format!("an object has no {name}, or no number there"));
        let class = child(object, "name").ok_or_else(|| missing("name"))?;
        let corners = object.children().find(|node| node.has_tag_name("bndbox"));
        let corners = corners.ok_or_else(|| missing("bndbox"))?;
        let edge = |name: &str| {
            let number = child(corners, name).and_then(|text| text.parse::<f32>().ok());
            number.ok_or_else(|| missing(name))
        };
        let (x, y) = (edge("xmin")? - 1.0, edge("ymin")? - 1.0);
        boxes.push(NamedBox {
            class: labels::canonical(&class).into_owned(),
            edges: [x, y, edge("xmax")? - x, edge("ymax")? - y],
        });
    }
    Ok((child(root, "filename"), boxes))
}

/// Folders of images with their folders of masks, by split.
fn mask_folders(folder: &Path) -> Result<Vec<(PathBuf, PathBuf, Split)>, DataError> {
    let pair = |inside: &Path, name: &str| {
        (
            inside.join(IMAGES).join(name),
            inside.join(MASKS).join(name),
        )
    };
    let is_pair = |(images, masks): &(PathBuf, PathBuf)| images.is_dir() && masks.is_dir();
    let split = |path: &Path| split_of_word(&file::name(path).to_lowercase());
    let mut pairs = Vec::new();
    let both = pair(folder, "");
    if is_pair(&both) {
        for path in file::list(&both.0)? {
            let of_split = pair(folder, &file::name(&path));
            if let Some(split) = split(&path).filter(|_| is_pair(&of_split)) {
                pairs.push((of_split.0, of_split.1, split));
            }
        }
        if pairs.is_empty() {
            pairs.push((both.0, both.1, Split::Train));
        }
        return Ok(pairs);
    }
    for path in file::list(folder)? {
        let (images, masks) = pair(&path, "");
        if let Some(split) = split(&path).filter(|_| images.is_dir() && masks.is_dir()) {
            pairs.push((images, masks, split));
        }
    }
    Ok(pairs)
}

/// Whether a folder holds images beside masks, or splits that do.
pub(super) fn has_masks(folder: &Path) -> Result<bool, DataError> {
    mask_folders(folder).map(|folders| !folders.is_empty())
}

/// Adds the images of `images`, each with the PNG of its name in `masks`; both may hold splits, or be in splits.
///
/// # Errors
/// A folder that can't be listed.
pub(super) fn masks(folder: &Path, found: &mut Found) -> Result<(), DataError> {
    for (images, masks, split) in mask_folders(folder)? {
        for path in file::list(&images)? {
            if !content::may_be_image(&path) {
                let place = || path.display().to_string();
                let extension = file::extension(&file::name(&path));
                found.not_images.add(&extension, place);
                continue;
            }
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let mask = masks.join(format!("{stem}.png"));
            if mask.is_file() {
                let target = Some(Target::Mask(mask));
                found.rows.push(Row::of_file(path, split, target));
            } else {
                let place = path.display().to_string();
                found.bad.push((place, DataError::NoMask { path, mask }));
            }
        }
    }
    Ok(())
}
