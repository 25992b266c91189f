import contextlib
import io
import os
import struct
import subprocess
import sys
import time
import unicodedata
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from mlc_jax.data import images
from mlc_jax.data.images import (
    decode_first,
    decode_image,
    resolve_image,
)
from mlc_jax.data.pixels import FORMATS, resize_image
from mlc_jax.errors import ImageError

ROOT = Path(__file__).resolve().parents[2]
LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
    ("PPM", {}),
]
LOSSY = [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("GIF", {})]


def smooth(height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    """An image without any symmetry, uint8 [H, W, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image | np.ndarray, form: str, **options) -> bytes:
    out = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(out, form, **options)
    return out.getvalue()


def refused(source) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(source)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(("form", "options"), LOSSLESS)
def test_lossless_formats_give_the_pixels_back(form, options, tmp_path):
    data = encoded(smooth(), form, **options)
    image = decode_image(data)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, smooth())
    (tmp_path / "x.jpg").write_bytes(data)
    np.testing.assert_array_equal(decode_image(tmp_path / "x.jpg"), smooth())


@pytest.mark.parametrize(("form", "options"), LOSSY)
def test_lossy_formats_are_close(form, options):
    image = decode_image(encoded(smooth(), form, **options)).astype(float)
    assert np.abs(image - smooth()).mean() < 12


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_all_exif_orientations_give_one_upright_image(form):
    # Turn the upright image so that each orientation, applied by Pillow, turns it back.
    inverse = {6: 8, 8: 6}
    grey = np.repeat(smooth(48, 64)[:, :, :1], 3, axis=2)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = inverse.get(orientation, orientation)
        plain = Image.fromarray(grey)
        plain.info["exif"] = exif.tobytes()
        stored = ImageOps.exif_transpose(plain)
        exif[0x0112] = orientation
        lossless = {"lossless": True} if form == "WEBP" else {}
        options = {"quality": 100, "subsampling": 0} if form == "JPEG" else lossless
        data = encoded(Image.fromarray(np.asarray(stored)), form, exif=exif, **options)
        image = decode_image(data)
        oracle = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        np.testing.assert_array_equal(image, np.asarray(oracle), err_msg=str(orientation))
        tolerance = 3 if form == "JPEG" else 0
        np.testing.assert_allclose(image.astype(int), grey, atol=tolerance, rtol=0)


def test_spoilt_exif_counts_as_none():
    plain = encoded(smooth(), "JPEG")
    for exif in (
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01",
    ):
        data = encoded(smooth(), "JPEG", exif=exif)
        np.testing.assert_array_equal(decode_image(data), decode_image(plain))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_its_levels(form):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = decode_image(encoded(ramp, form))
    assert len(np.unique(image)) >= 250
    np.testing.assert_array_equal(image[..., 0], np.rint(ramp / 257))
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_12_bit_grey_in_16_bit_files_keeps_its_levels():
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    image = decode_image(encoded(ramp, "PNG"))
    np.testing.assert_array_equal(image[..., 0], np.rint(ramp * 255.0 / 4095))
    ramp[0, 0] = 4096  # not written in 12 bits
    assert decode_image(encoded(ramp, "PNG")).max() == 16


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_what_phones_write_is_read(form, tmp_path):
    if form not in FORMATS:
        pytest.skip(f"nothing here reads {form}: Pillow was built without it, or no pillow-heif")
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(smooth(), form, exif=exif.tobytes(), quality=95)
        upright = np.rot90(smooth(), -1) if orientation == 6 else smooth()
        image = decode_image(data)
        assert image.shape == upright.shape
        assert np.abs(image.astype(float) - upright).mean() < 6
        assert refused(data[: len(data) // 2]) in ("truncated", "damaged", "not_an_image")


def test_an_image_that_needs_another_package_names_it(monkeypatch):
    monkeypatch.setattr(images, "FORMATS", [form for form in FORMATS if form != "HEIF"])
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(ImageError, match="it is HEIC; install pillow-heif") as caught:
        decode_image(heic)
    assert caught.value.reason == "not_an_image"


def test_other_grey_ranges():
    half = np.full((4, 4), 0.5, np.float32)
    half[0, 0] = 0
    assert decode_image(encoded(half, "TIFF"))[1, 1, 0] in (127, 128)
    assert decode_image(encoded(half * 200, "TIFF"))[1, 1, 0] == 100
    wide = np.array([[-70000, 0], [0, 70000]], np.int32)
    np.testing.assert_array_equal(
        decode_image(encoded(wide, "TIFF"))[..., 0], [[0, 128], [128, 255]]
    )
    assert decode_image(encoded(np.full((2, 2), -5, np.int32), "TIFF")).max() == 0
    half[1, 1] = np.nan
    assert refused(encoded(half, "TIFF")) == "damaged"


def test_colour_modes_agree_with_pillow():
    rgb = Image.fromarray(smooth())
    for mode, form in (
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("L", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
    ):
        data = encoded(rgb.convert(mode), form)
        oracle = Image.open(io.BytesIO(data)).convert("RGB")
        np.testing.assert_array_equal(decode_image(data), np.asarray(oracle), err_msg=mode)
    assert (
        np.abs(decode_image(encoded(rgb.convert("CMYK"), "TIFF")).astype(int) - smooth()).max() < 3
    )
    assert refused(encoded(rgb.convert("L").convert("RGB"), "PNG")[:40]) == "damaged"
    assert refused(encoded(Image.new("LAB", (4, 4)), "TIFF")) == "unsupported_mode"


def test_transparency_is_composited_on_white():
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [10, 20, 30, 51]]], np.uint8)
    expected = [[[10, 20, 30], [255, 255, 255], [206, 208, 210]]]
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        np.testing.assert_array_equal(decode_image(encoded(pixels, form, **options)), expected)
    grey = Image.fromarray(pixels).convert("LA")
    assert decode_image(encoded(grey, "PNG"))[0, 1].tolist() == [255, 255, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 8, 7, 6, 5, 4])
    palette.putpixel((1, 0), 1)
    for transparency in (1, b"\xff\0"):
        for form in ("PNG", "GIF") if transparency == 1 else ("PNG",):
            image = decode_image(encoded(palette, form, transparency=transparency))
            assert image.tolist() == [[[9, 8, 7], [255, 255, 255]]], form
    key = encoded(Image.fromarray(pixels[..., :3]), "PNG", transparency=(10, 20, 30))
    assert decode_image(key).min() == 255


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_first_of_several_frames_and_their_count(form):
    frames = [Image.fromarray(smooth(seed=seed)) for seed in range(3)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert decode_first(data)[1] == 3
    assert np.abs(decode_image(data).astype(float) - smooth()).mean() < 12
    assert decode_first(encoded(frames[0], "JPEG"))[1] == 1


@pytest.mark.parametrize(
    ("form", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})]
)
def test_every_cut_is_found(form, options, tmp_path):
    data = encoded(smooth(120, 160), form, **options)
    cuts = [1, 2, 4, 12, *(int(len(data) * share) for share in np.linspace(0.01, 0.95, 11))]
    for cut in cuts:
        path = tmp_path / f"{cut}.jpg"
        path.write_bytes(data[:-cut])
        with pytest.raises(ImageError, match=path.name) as caught:
            decode_image(path)
        assert caught.value.reason in ("truncated", "damaged")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize(("form", "options"), [*LOSSLESS, ("GIF", {}), ("WEBP", {})])
def test_cut_in_half_is_found_in_every_format(form, options):
    data = encoded(smooth(60, 80), form, **options)
    assert refused(data[: len(data) // 2]) in ("truncated", "damaged")


def test_flipped_bit_in_a_png_never_gives_other_pixels():
    # Pillow alone lets about one in ten of these through with wrong pixels.
    data = encoded(smooth(), "PNG")
    for place in range(len(data)):
        flipped = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        with contextlib.suppress(ImageError):
            np.testing.assert_array_equal(decode_image(flipped), smooth(), err_msg=str(place))


def png_of_zeros(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    pack = zlib.compressobj(9)
    rows = b"".join(pack.compress(bytes(width // 8 + 1)) for _ in range(height)) + pack.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8000, 12000, 20000])  # below, between and above Pillow's limits
def test_bomb_is_refused_from_its_header(side):
    data = png_of_zeros(side, side)
    assert len(data) < 100_000
    start = time.perf_counter()
    assert refused(data) == "too_many_pixels"
    assert time.perf_counter() - start < 1


def test_largest_image_is_decoded():
    assert decode_image(png_of_zeros(7000, 7000)).shape == (7000, 7000, 3)


@pytest.mark.parametrize("side", [12000, 20000])
def test_bomb_takes_no_memory(side, tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_of_zeros(side, side))
    # Pillow's pixels are out of tracemalloc's sight, so a process of its own is measured whole.
    script = (
        "import resource, sys\n"
        "from mlc_jax.data.images import decode_image\n"
        "from mlc_jax.errors import ImageError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "try:\n"
        "    decode_image(sys.argv[1])\n"
        "except ImageError:\n"
        "    print(peak() - before)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "bomb.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) < 50


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that starts a process, as Pillow does for PostScript: Ghostscript runs code."""

    def started(*command: object, **_: object) -> None:
        pytest.fail(f"a process was started: {command}")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(os, "system", started)


# A refusal takes milliseconds; to wait for a writer of the pipe would take for ever.
promptly = pytest.mark.timeout(5, func_only=True)


@promptly
@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not_an_image"),
        (b"%PDF-1.7\n%%EOF\n", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (b"<!DOCTYPE html><p>404</p>", "not_an_image"),
        (b"\0" * 100, "not_an_image"),
        (b"\xff\xd8\xff", "damaged"),
        (b"P6\n0 0\n255\n", "not_an_image"),
        (b"P5\n9999999 9999999\n255\n", "too_many_pixels"),
    ],
)
def test_what_is_no_image_is_refused(content, reason, tmp_path):
    assert refused(content) == reason
    (tmp_path / "x.jpg").write_bytes(content)
    assert refused(tmp_path / "x.jpg") == reason


@promptly
@pytest.mark.usefixtures("no_process")
def test_formats_outside_the_list_are_refused():
    for form in ("ICO", "TGA", "PCX", "EPS", "PDF", "JPEG2000"):
        assert refused(encoded(smooth(32, 32), form)) == "not_an_image"


@promptly
@pytest.mark.usefixtures("no_process")
def test_paths_that_hold_no_file(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert refused(tmp_path / "pipe.jpg") == "not_a_file"
    assert refused(tmp_path / "folder.jpg") == "not_a_file"
    assert refused(tmp_path / "none.jpg") == "absent"
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    assert refused(b"x" * 11) == "too_large"


def test_odd_headers_decode_alike_under_every_warning_filter():
    exif = Image.Exif()
    exif[0x010E] = "a description that is too long to be stored in the entry itself"
    data = encoded(smooth(), "JPEG", exif=exif.tobytes()[:-30])
    seen = []
    for action in ("error", "always"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)
            seen.append(decode_image(data))
        assert caught == []
    np.testing.assert_array_equal(*seen)
    with pytest.warns(UserWarning, match="Skipping tag"):
        Image.open(io.BytesIO(data)).getexif()


def test_many_threads_decode_the_same():
    good = [
        encoded(smooth(seed=seed), form) for seed in range(4) for form in ("JPEG", "PNG", "TIFF")
    ]
    bad = [png_of_zeros(12000, 12000), good[0][:200]]
    alone = [decode_image(data) for data in good]
    filters = list(warnings.filters)

    def work(number: int) -> bool:
        if number % 7 == 0:
            return bool(refused(bad[number % 2]))
        chosen = number % len(good)
        return np.array_equal(decode_image(good[chosen]), alone[chosen])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))
    assert warnings.filters == filters


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_bytes_give_an_image_or_our_error(data):
    form, options = data.draw(st.sampled_from([*LOSSLESS, *LOSSY]))
    content = bytearray(encoded(smooth(8, 12), form, **options))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with contextlib.suppress(ImageError):
        found, frames = decode_first(bytes(content))
        assert found.ndim == 3
        assert found.dtype == np.uint8
        assert frames >= 1


PAYLOADS = [
    "../x.jpg",
    "..",
    "a/../../x.jpg",
    "a/../x.jpg",
    "a\\..\\..\\x.jpg",
    "/etc/passwd",
    "//server/share/x.jpg",
    "\\\\server\\share\\x.jpg",
    "\\x.jpg",
    "C:\\x.jpg",
    "C:/x.jpg",
    "C:x.jpg",
    "\\\\?\\C:\\x.jpg",
    "x\0.jpg",
    "x\n.jpg",
    "x\r.jpg",
    "x\x1b[31m.jpg",
    "",
    ".",
    "\ud800.jpg",
    "SIBLING",
    "link/x.jpg",
    "link.jpg",
    "loop.jpg",
    "dangling.jpg",
    "folder",
    "pipe.jpg",
    "n" * 5000,
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: ascii(payload)[:30])
def test_no_path_leaves_its_root(payload, tmp_path):
    root, sibling = tmp_path / "data", tmp_path / "data2"
    for folder in (root, root / "a", root / "folder", sibling):
        folder.mkdir()
        (folder / "x.jpg").write_bytes(b"x")
    (tmp_path / "x.jpg").write_bytes(b"x")
    (root / "link").symlink_to(sibling)
    (root / "link.jpg").symlink_to(sibling / "x.jpg")
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "dangling.jpg").symlink_to("nothing.jpg")
    os.mkfifo(root / "pipe.jpg")
    filename = str(sibling / "x.jpg") if payload == "SIBLING" else payload
    with pytest.raises(ImageError) as caught:
        resolve_image(root, filename)
    assert caught.value.reason in ("unsafe_path", "outside_root", "not_a_file", "absent")
    assert "\n" not in str(caught.value)


def test_good_paths_resolve(tmp_path):
    root = tmp_path / "data ü"
    (root / "sub").mkdir(parents=True)
    for name in ("a b.jpg", "sub/..x.jpg", "00012", "NA", "sub/ü.jpg"):
        (root / name).write_bytes(b"x")
        assert resolve_image(root, name).read_bytes() == b"x"
    (root / "inner.jpg").symlink_to("sub/ü.jpg")
    assert resolve_image(root, "inner.jpg").name == "ü.jpg"
    (tmp_path / "alias").symlink_to(root)
    assert resolve_image(tmp_path / "alias", "./NA") == (root / "NA").resolve()


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system folds case and form")
@pytest.mark.parametrize(
    ("listed", "present"),
    [
        ("x.JPG", "x.jpg"),
        ("x.jpg", "x.JPG"),
        ("X.jpg", "x.jpg"),
        ("x.jpg", "x.jpeg"),
        ("x.jpg ", "x.jpg"),
        (unicodedata.normalize("NFD", "ü.jpg"), unicodedata.normalize("NFC", "ü.jpg")),
        (unicodedata.normalize("NFC", "ü.jpg"), unicodedata.normalize("NFD", "ü.jpg")),
    ],
)
def test_absent_file_is_told_its_likely_name(listed, present, tmp_path):
    (tmp_path / present).write_bytes(b"x")
    with pytest.raises(ImageError, match="did you mean") as caught:
        resolve_image(tmp_path, listed)
    assert repr(present) in str(caught.value)
    assert caught.value.reason == "absent"
    with pytest.raises(ImageError, match="add the image or remove the row"):
        resolve_image(tmp_path, "other.jpg")


def test_resolved_file_has_limits(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(b"x" * 11)
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    with pytest.raises(ImageError, match="11 bytes") as caught:
        resolve_image(tmp_path, "x.jpg")
    assert caught.value.reason == "too_large"


def test_resizing_averages_instead_of_aliasing():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize_image(stripes, (16, 8))
    assert small.shape == (16, 8, 3)
    assert small.dtype == np.uint8
    np.testing.assert_allclose(small.astype(float), 127.5, atol=8)
    np.testing.assert_array_equal(resize_image(smooth(), (24, 40)), smooth())


def test_real_images_agree_with_pillow():
    folder = os.environ.get("MLC_JAX_TEST_DATA")
    if not folder:
        pytest.skip("MLC_JAX_TEST_DATA is not set: the folder with tops/ and scenes/")
    paths = sorted((Path(folder) / "tops" / "images").iterdir())[:20]
    assert paths
    for path in paths:
        oracle = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        found = decode_image(resolve_image(path.parent, path.name))
        np.testing.assert_array_equal(found, np.asarray(oracle))


def test_a_link_that_leads_out_names_the_key_that_allows_it(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "x.jpg").write_bytes(encoded(smooth(), "JPEG"))
    (root / "link.jpg").symlink_to(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match=r"config\.data\.follow_links=true"):
        resolve_image(root, "link.jpg")
    assert resolve_image(root, "link.jpg", follow_links=True) == tmp_path / "x.jpg"
    with pytest.raises(ImageError, match=r'holds "\.\."'):
        resolve_image(root, "../x.jpg", follow_links=True)
