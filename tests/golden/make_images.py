"""Writes images/: pictures of kinds that the image crate reads and does not write.

    pip install pillow==13.0.0
    python make_images.py

The picture is 64 wide and 32 high, in four quarters of one colour each: red, green, blue and yellow, from the top left.
"""

import pathlib
import struct
import zlib

from PIL import Image

OUT = pathlib.Path(__file__).parent / "images"
RED, GREEN, BLUE, YELLOW = (200, 30, 40), (20, 180, 60), (30, 50, 210), (240, 230, 90)


def quarters(mode="RGB", colours=(RED, GREEN, BLUE, YELLOW)):
    picture = Image.new(mode, (64, 32))
    for colour, corner in zip(colours, [(0, 0), (32, 0), (0, 16), (32, 16)]):
        picture.paste(colour, (*corner, corner[0] + 32, corner[1] + 16))
    return picture


def on_its_side(picture):
    """Stored so that orientation 6 shows it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture.transpose(Image.Transpose.ROTATE_90), exif


def chunk(name, content):
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


OUT.mkdir(exist_ok=True)
picture = quarters()
side, exif = on_its_side(picture)

picture.save(OUT / "lossy.webp", quality=90)
side.save(OUT / "on-its-side.webp", quality=90, exif=exif)
half = quarters("RGBA", [(*colour, alpha) for colour, alpha in zip([RED, GREEN, BLUE, YELLOW], [255, 255, 0, 128])])
half.save(OUT / "transparent.webp", lossless=True)
picture.save(OUT / "animated.webp", save_all=True, append_images=[Image.new("RGB", (64, 32))] * 2, lossless=True)

picture.save(OUT / "progressive.jpg", quality=95, progressive=True)
# Half the ink of black over other inks, so that a mistake about either shows.
quarters("CMYK", [(0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0), (0, 0, 255, 128)]).save(OUT / "cmyk.jpg", quality=95)
picture.save(OUT / "restarts.jpg", quality=95, restart_marker_blocks=1)

frames = [picture.quantize(4), Image.new("P", (64, 32))]
frames[0].save(OUT / "animated.gif", save_all=True, append_images=frames[1:], duration=90)

black_and_white = quarters("1", [0, 1, 1, 0])
black_and_white.save(OUT / "bilevel.tif", compression="group4")
picture.save(OUT / "lzw.tif", compression="tiff_lzw")
quarters("CMYK", [(0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0), (0, 0, 255, 128)]).save(OUT / "cmyk.tif", compression="tiff_lzw")
side.save(OUT / "on-its-side.tif", compression="tiff_lzw", exif=exif)
picture.quantize(4).save(OUT / "palette.tif", compression="tiff_lzw")
quarters("F", [0.0, 0.5, 1.0, 2.0]).save(OUT / "float.tif", compression="tiff_lzw")

indexed = picture.quantize(4)
indexed.save(OUT / "palette.png", transparency=indexed.getpixel((0, 0)))
black_and_white.save(OUT / "bilevel.png")
# EXIF after the pixels, where its place is free; Pillow writes it before them.
side.save(OUT / "late-exif.png")
written = (OUT / "late-exif.png").read_bytes()
end = written.index(b"IEND") - 4
(OUT / "late-exif.png").write_bytes(written[:end] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + written[end:])
