import numpy as np
import pytest
from PIL import Image

from anime_tf import sheets

WHITE = (255, 255, 255)


def _pictures(*values, height=4, width=4):
    """One plain grey picture for each value."""
    values = np.array(values, np.uint8).reshape(-1, 1, 1, 1)
    return np.broadcast_to(values, (len(values), height, width, 3))


def _noise(count, size=16, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size, size, 3), np.uint8)


def _frame(*values, **size):
    return sheets.grid(_pictures(*values, **size))


def _read_gif(filepath):
    """Returns the RGB frames and their durations in milliseconds."""
    frames, durations = [], []
    with Image.open(filepath) as image:
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
        return frames, durations, image.info.get("loop")


# Grids


def test_grid_goes_row_by_row_with_white_between():
    sheet = sheets.grid(_pictures(10, 20, 30, height=3, width=2), columns=2, gap=1)
    pixels = np.asarray(sheet)
    expected = [
        [10, 10, 255, 20, 20],
        [10, 10, 255, 20, 20],
        [10, 10, 255, 20, 20],
        [255, 255, 255, 255, 255],
        [30, 30, 255, 255, 255],
        [30, 30, 255, 255, 255],
        [30, 30, 255, 255, 255],
    ]
    assert pixels[:, :, 0].tolist() == expected
    assert (pixels == pixels[:, :, :1]).all()


def test_grid_changes_no_pixel():
    pictures = _noise(1)
    assert (np.asarray(sheets.grid(pictures)) == pictures[0]).all()


@pytest.mark.parametrize(
    ("count", "height", "width", "columns"),
    [(1, 4, 4, 1), (4, 4, 4, 2), (5, 4, 4, 3), (8, 4, 16, 2), (3, 40, 4, 3)],
)
def test_grid_is_near_square_by_default(count, height, width, columns):
    pictures = _pictures(*[9] * count, height=height, width=width)
    rows = -(-count // columns)
    assert sheets.grid(pictures, gap=0).size == (columns * width, rows * height)


def test_grid_is_no_wider_than_its_pictures():
    assert sheets.grid(_pictures(1, 2), columns=9, gap=0).size == (8, 4)


# Sheets with titles


def test_pairs_sheet_keeps_the_pixels_of_both_halves():
    real, generated = _noise(1, 200), _noise(1, 200, seed=1)
    pixels = np.asarray(sheets.pairs_sheet(real, generated))
    top = pixels.shape[0] - 12 - 200  # the margin below, and nothing above but titles
    left = 12
    assert (pixels[top:-12, left : left + 200] == real[0]).all()
    assert (pixels[top:-12, left + 224 : left + 424] == generated[0]).all()
    assert (pixels[top:, left + 200 : left + 224] == 255).all()
    for half in (pixels[:top, : left + 200], pixels[:top, left + 224 :]):
        assert half.min() < 100  # a title is written


def test_enlargement_makes_squares_of_pixels():
    real = _noise(1, 100)
    pixels = np.asarray(sheets.pairs_sheet(real, real, enlargement=2))
    enlarged = pixels[-12 - 200 : -12, 12:212]
    assert (enlarged[::2, ::2] == real[0]).all()
    assert (enlarged[1::2, 1::2] == real[0]).all()


def test_nearest_sheet_shows_each_beside_its_nearest():
    generated, nearest = _noise(2, 200), _noise(2, 200, seed=1)
    pixels = np.asarray(sheets.nearest_sheet(generated, nearest, columns=1))
    second, first = pixels[-212:-12], pixels[-424:-224]
    for row, index in ((first, 0), (second, 1)):
        assert (row[:, 12:212] == generated[index]).all()
        assert (row[:, 214:414] == nearest[index]).all()


def test_comparison_sheet_of_grids_of_different_sizes():
    grids = {"Small": _noise(1, 20), "Large": _noise(9, 60)}
    plain = sheets.comparison_sheet(grids)
    captions = {"Large": "one two three " * 12}
    captioned = sheets.comparison_sheet(grids, captions)
    assert captioned.width == plain.width
    assert captioned.height > plain.height
    # Tops are aligned: what is above the captions stays.
    same = plain.crop((0, 0, plain.width, plain.height - 12))
    assert captioned.crop((0, 0, same.width, same.height)).tobytes() == same.tobytes()


def test_text_is_never_cut_off():
    word = "Un" + "speakably" * 6
    sheet = sheets.comparison_sheet({word: _pictures(0)}, {word: word.lower()})
    pixels = np.asarray(sheet)
    assert (pixels[:, -12:] == 255).all()
    assert (pixels[:, -60:-12] < 255).any()


def test_titles_that_the_font_does_not_know_stop_nothing():
    sheet = sheets.comparison_sheet({"初音未来": _pictures(0), "": _pictures(0)})
    assert sheet.getpixel((0, 0)) == WHITE


# Files


def test_save_png(tmp_path):
    pictures = _noise(3)
    sheet = sheets.grid(pictures)
    sheets.save_png(sheet, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG"
        assert image.tobytes() == sheet.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_save_gif_shows_the_frames_for_their_times(tmp_path):
    values = (0, 90, 180)
    frames = [_frame(value) for value in values]
    sheets.save_gif(frames, tmp_path / "a.gif", seconds_per_frame=0.2, hold_last=1.5)
    read, durations, loop = _read_gif(tmp_path / "a.gif")
    assert [int(frame[0, 0, 0]) for frame in read] == pytest.approx(values, abs=8)
    assert (durations, loop) == ([200, 200, 1500], 0)


def test_save_gif_shows_equal_neighbours_as_one_frame(tmp_path):
    frames = [_frame(value) for value in (0, 0, 0, 90)]
    sheets.save_gif(frames, tmp_path / "a.gif", seconds_per_frame=0.2, hold_last=1)
    read, durations, _ = _read_gif(tmp_path / "a.gif")
    assert len(read) == 2
    assert durations == [600, 1000]


def test_save_gif_of_one_frame(tmp_path):
    sheets.save_gif([_frame(7)], tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.format, image.n_frames) == ("GIF", 1)


def test_save_gif_leaves_what_stands_still(tmp_path):
    still = _noise(1)
    moving = [_noise(1, seed=seed) for seed in (1, 2, 3)]
    frames = [sheets.grid(np.concatenate([still, other]), 2) for other in moving]
    sheets.save_gif(frames, tmp_path / "a.gif")
    first, *others = _read_gif(tmp_path / "a.gif")[0]
    assert len(others) == 2
    for frame in others:
        assert (frame[:, :18] == first[:, :18]).all()
        assert (frame[:, 18:] != first[:, 18:]).any()
    assert (first[:, 16:18] == 255).all()  # paper stays white


def test_save_gif_takes_the_colours_of_all_frames(tmp_path):
    colours = [(220, 30, 30), (30, 220, 30), (30, 30, 220)]
    frames = [Image.new("RGB", (8, 8), colour) for colour in colours]
    sheets.save_gif(frames, tmp_path / "a.gif")
    for frame, colour in zip(_read_gif(tmp_path / "a.gif")[0], colours, strict=True):
        assert frame[0, 0].tolist() == pytest.approx(colour, abs=8)


def test_interrupted_writing_keeps_the_last_good_file(tmp_path, monkeypatch):
    filepath = tmp_path / "a.gif"
    sheets.save_gif([_frame(0)], filepath)
    before = filepath.read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    for save, images in ((sheets.save_gif, [_frame(9)]), (sheets.save_png, _frame(9))):
        with pytest.raises(KeyboardInterrupt):
            save(images, filepath)
    assert filepath.read_bytes() == before
    assert list(tmp_path.iterdir()) == [filepath]


# Errors


@pytest.mark.parametrize(
    "pictures",
    [
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.float32),
    ],
)
def test_bad_pictures_are_named(pictures):
    good = _pictures(1)
    shape = str(pictures.shape).replace("(", r"\(").replace(")", r"\)")
    message = rf"expected uint8 .* received {pictures.dtype} {shape}"
    with pytest.raises(ValueError, match=f"^pictures: {message}"):
        sheets.grid(pictures)
    with pytest.raises(ValueError, match=f"^generated: {message}"):
        sheets.pairs_sheet(good, pictures)
    with pytest.raises(ValueError, match=f"^nearest: {message}"):
        sheets.nearest_sheet(good, pictures)
    with pytest.raises(ValueError, match=rf"^grids\['A'\]: {message}"):
        sheets.comparison_sheet({"A": pictures})


def test_bad_arguments_are_named():
    good = _pictures(1)
    with pytest.raises(ValueError, match=r"^columns: .* at least 1, received 0"):
        sheets.grid(good, columns=0)
    with pytest.raises(ValueError, match=r"^enlargement: .* from 1, received 1\.5"):
        sheets.pairs_sheet(good, good, enlargement=1.5)
    with pytest.raises(ValueError, match=r"^nearest: .*\(2, 4, 4, 3\) for \(1, 4,"):
        sheets.nearest_sheet(good, _pictures(1, 2))
    with pytest.raises(ValueError, match=r"^grids: expected at least one"):
        sheets.comparison_sheet({})
    with pytest.raises(ValueError, match=r"^captions: .*\['A'\], received \['B'\]"):
        sheets.comparison_sheet({"A": good}, {"B": "text"})


@pytest.mark.parametrize(
    ("frames", "times", "message"),
    [
        ([], {}, r"^frames: expected at least one.* received 0 of sizes \[\]"),
        ([_frame(1), _frame(1, 2)], {}, r"^frames: .* of one size; received 2 of"),
        ([_frame(1)], {"hold_last": 656}, r"^hold_last: .* received 656"),
        ([_frame(1)], {"seconds_per_frame": 0}, r"^seconds_per_frame: .* received 0"),
    ],
)
def test_bad_animations_are_named(tmp_path, frames, times, message):
    with pytest.raises(ValueError, match=message):
        sheets.save_gif(frames, tmp_path / "a.gif", **times)
    assert not list(tmp_path.iterdir())
