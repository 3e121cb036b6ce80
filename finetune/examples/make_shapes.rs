//! Writes the generated set of shapes that detection and segmentation are tried on: `make_shapes FOLDER [IMAGES] [SEED]`.

#[allow(clippy::unwrap_used)]
#[path = "../../tests/support/shapes.rs"]
mod shapes;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual: u64| {
        let given = arguments.get(at);
        given.map_or(usual, |text| text.parse().expect("a number"))
    };
    let folder = arguments.first().expect("a folder to write to");
    shapes::write(folder.as_ref(), number(1, 2000) as usize, number(2, 1));
}
