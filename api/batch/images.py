"""Inputs and classes out of a folder of images, a folder a class; pixels are the numbers 0 to 255 that are stored."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from provenn.api.batch.numbers import Array, require_numbers
from provenn.api.files import InvalidFile
from provenn.verifier.errors import BackendError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class _Form:
    """What one image must be for the network: its size, whether it has colours, whether these come first."""

    height: int | None
    width: int | None
    pixels: int
    colour: bool
    channels_first: bool


def read_images(path: Path, shape: tuple[int, ...]) -> tuple[Array, list[int], list[str]]:
    """([n, inputs] of 0..255 as float32, the classes, CLASS/NAME of each) of folder/CLASS/NAME.png (or .jpg).

    Classes whose folders are all named by numbers are these numbers, others count from 0 in the order of their names.
    Grey images are read for one channel and for three (equal ones), colour ones for three. Nothing is scaled or cut.
    Raises: InvalidFile naming the image; ResourceLimit for too many; BackendError without pillow.
    """
    form = _form(path, shape)
    folders = _listed(path)
    files = [(label, file) for label, folder in _classes(path, folders) for file in _images(folder)]
    if not files:
        raise InvalidFile(path, f"holds no images; give {_layout(path)}")
    require_numbers(path, len(files) * prod(shape))
    inputs = np.empty((len(files), prod(shape)), np.float32)
    for place, (_, file) in zip(inputs, files, strict=True):
        place[...] = _pixels(file, form).ravel()
    return inputs, [label for label, _ in files], [file.relative_to(path).as_posix() for _, file in files]


def _form(path: Path, shape: tuple[int, ...]) -> _Form:
    match shape:
        case (pixels,):
            return _Form(None, None, pixels, False, True)
        case (height, width) | (1, height, width) | (height, width, 1):
            return _Form(height, width, height * width, False, True)
        case (3, height, width):
            return _Form(height, width, height * width, True, True)
        case (height, width, 3):
            return _Form(height, width, height * width, True, False)
    raise InvalidFile(path, f"holds images; the network takes {list(shape)}, which is no shape of a grey or RGB one")


def _layout(path: Path) -> str:
    return f"{path}/CLASS/NAME.png (or .jpg), a folder a class"


def _listed(folder: Path) -> list[Path]:
    """What lies in a folder, in the order of names; hidden files do not count."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InvalidFile(folder, f"cannot be read: {error.strerror or error}") from error


def _classes(path: Path, entries: list[Path]) -> list[tuple[int, Path]]:
    """(class, folder) of every class."""
    loose = next((e for e in entries if e.suffix.lower() in SUFFIXES and e.is_file()), None)
    if loose is not None:
        raise InvalidFile(loose, f"lies in no folder of a class; give {_layout(path)}")
    folders = [entry for entry in entries if entry.is_dir()]
    numbered = [folder for folder in folders if folder.name.isascii() and folder.name.isdigit()]
    if numbered and len(numbered) < len(folders):
        other = next(folder for folder in folders if folder not in numbered)
        raise InvalidFile(path, f"has classes with numbers ('{numbered[0].name}') and with names ('{other.name}')")
    if len({int(folder.name) for folder in numbered}) < len(numbered):
        raise InvalidFile(path, "has two folders of one class, such as '1' and '01'")
    if numbered:
        return sorted((int(folder.name), folder) for folder in numbered)
    return list(enumerate(folders))


def _images(folder: Path) -> list[Path]:
    files = _listed(folder)
    other = next((file for file in files if file.suffix.lower() not in SUFFIXES or not file.is_file()), None)
    if other is not None:
        raise InvalidFile(other, f"is no image that is read ({', '.join(SUFFIXES)}); take it away or convert it")
    return files


def _pixels(file: Path, form: _Form) -> Array:
    """The stored numbers [height, width], [3, height, width] or [height, width, 3].   Raises: InvalidFile."""
    try:
        from PIL import Image
    except ImportError as error:
        advice = "pillow, which reads images, is not installed: pip install 'provenn[batch]'"
        raise BackendError("pillow", advice) from error
    bombs = Image.DecompressionBombError, Image.DecompressionBombWarning
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                _require_size(file, image, form)  # before anything is unpacked
                return _decoded(file, image, form)
    except bombs as error:
        raise InvalidFile(file, f"is far too large for an image: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InvalidFile(file, f"is not a complete PNG or JPEG image: {error}") from error


def _require_size(file: Path, image: Image, form: _Form) -> None:
    width, height = image.size
    fits = (height, width) == (form.height, form.width) if form.height else height * width == form.pixels
    if not fits:
        needed = f"{form.width} x {form.height}" if form.height else f"{form.pixels} pixels"
        raise InvalidFile(
            file, f"is {width} x {height}, but the network takes {needed}; scale it yourself, nothing is scaled here"
        )


def _decoded(file: Path, image: Image, form: _Form) -> Array:
    if image.mode not in ("1", "L", "P", "RGB") or "transparency" in image.info:
        _refuse_mode(file, image.mode)
    colours = np.asarray(image.convert("RGB"))
    if not form.colour:
        if (colours != colours[..., :1]).any():
            raise InvalidFile(file, "has colours, but the network takes one channel; convert it to grey yourself")
        return colours[..., 0]
    return np.moveaxis(colours, -1, 0) if form.channels_first else colours


def _refuse_mode(file: Path, mode: str) -> NoReturn:
    raise InvalidFile(file, f"is of mode {mode} or transparent; save it as grey or RGB, 8 bits a channel")
