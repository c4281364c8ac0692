"""Files beside a document: what it can read is among its neighbours, by which a gate knows that an answer is old."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provenn.api.specifications import beside, neighbours
from provenn.verifier.errors import InvalidSpecification

TEXT = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))(assert (>= Y_0 3))"


def written(folder: Path, **members: str) -> Path:
    path = folder / "asked.json"
    path.write_text(json.dumps({"format": "provenn-specification/1", "kind": "vnnlib", **members}))
    return path


@pytest.mark.parametrize("length", [8, 255, 256, 999, 1000, 3000])
def test_what_is_read_is_a_neighbour(tmp_path: Path, length: int) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "p").write_text(TEXT)
    name = f"sub/..{'/' * (length - 7)}p"
    assert len(name) == length
    path = written(tmp_path, file=name)
    known = neighbours(path)
    if name in known:
        assert beside(path)(name) == TEXT.encode()
    else:
        with pytest.raises(InvalidSpecification, match="is no name of a file: it has 1 to 999 characters"):
            beside(path)(name)
    assert (name in known) == (length < 1000)


@pytest.mark.parametrize("text", [TEXT, TEXT + " " * 200, "0" * 256, "a/" * 400, "\0"])
def test_other_texts_are_no_neighbours(tmp_path: Path, text: str) -> None:
    """Most systems have no names of more than 255 characters between two slashes."""
    assert neighbours(written(tmp_path, text=text)) == {}


def test_half_of_a_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecification, match="half of a surrogate pair"):
        neighbours(written(tmp_path, text="\ud800"))


def test_a_name_without_characters_is_refused(tmp_path: Path) -> None:
    for name in ("", "a\0b"):
        with pytest.raises(InvalidSpecification, match="is no name of a file"):
            beside(tmp_path / "asked.json")(name)
