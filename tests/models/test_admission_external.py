"""Data outside the model: from the uploaded bundle, by its names, within its files, or not at all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_kit import model, refused, require_agreement

from provenn.models.admission import Limits, admit
from provenn.models.executor import OnnxExecutor
from provenn.verifier.errors import InvalidModel, ResourceLimit

node = helper.make_node


WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def external(**entries: str) -> bytes:
    """x W with W in a file of its own."""
    made = model([node("MatMul", ["x", "w"], ["y"])], (1, 3), {"w": WEIGHT})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return made.SerializeToString()


def test_external_data_come_from_the_bundle() -> None:
    files = {"w.bin": b"skip" + WEIGHT.tobytes() + b"rest", "deep/er/w": WEIGHT.tobytes()}
    require_agreement(external(location="w.bin", offset="4", length="48"), files)
    require_agreement(external(location="deep/er/w"), files)
    assert np.array_equal(
        numpy_helper.to_array(admit(external(location="deep/er/w"), files).graph.initializer[0]), WEIGHT
    )


@pytest.mark.parametrize(
    "location",
    [
        "../w.bin",
        "a/../../w.bin",
        "/etc/passwd",
        "./w.bin",
        "C:\\w.bin",
        "..\\w.bin",
        "a//b",
        "",
        "*/_ORT_MEM_ADDR_/*",
    ],
)
def test_names_that_lead_out_of_the_bundle_are_refused(location: str) -> None:
    files = {location: WEIGHT.tobytes(), "w.bin": WEIGHT.tobytes()}
    refused(external(location=location), "is refused: only names within the uploaded bundle", files=files)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"location": "other.bin"}, r"its data file 'other.bin' was not uploaded with the model \(uploaded: 'w.bin'\)"),
        ({"location": "w.bin", "offset": "4"}, r"raw_data size \(44 bytes\)"),
        ({"location": "w.bin", "offset": "49"}, "bytes 49 to 48 of 'w.bin' do not exist"),
        ({"location": "w.bin", "offset": "8", "length": "48"}, "bytes 8 to 56 of 'w.bin' do not exist, it has 48"),
        ({"location": "w.bin", "offset": "-4"}, "must be numbers of bytes"),
        ({"location": "w.bin", "offset": "0", "length": "1e9"}, "must be numbers of bytes"),
        ({"location": "w.bin", "length": "40"}, r"raw_data size \(40 bytes\)"),
    ],
)
def test_ranges_outside_the_files_are_refused(entries: dict[str, str], match: str) -> None:
    refused(external(**entries), match, files={"w.bin": WEIGHT.tobytes()})


def test_without_a_bundle_external_data_are_refused() -> None:
    refused(external(location="w.bin"), "was not uploaded with the model .uploaded: no files.")
    with pytest.raises(InvalidModel, match="was not uploaded"):
        OnnxExecutor(external(location="w.bin"))


def test_the_same_bytes_read_often_count_often() -> None:
    made = onnx.ModelProto.FromString(external(location="w.bin"))
    for i in range(50):
        made.graph.initializer.add().CopyFrom(made.graph.initializer[0])
        made.graph.initializer[-1].name = f"w{i}"
    limits = Limits(bytes=made.ByteSize() + 50 * WEIGHT.nbytes)
    refused(made, "with its external data", ResourceLimit, files={"w.bin": WEIGHT.tobytes()}, limits=limits)


def test_attributes_cannot_be_external() -> None:
    made = model(
        [node("Constant", [], ["c"], value=numpy_helper.from_array(WEIGHT[0])), node("Add", ["c", "c"], ["y"])], (1, 4)
    )
    tensor = made.graph.node[0].attribute[0].t
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    refused(made, "is refused: only names within the uploaded bundle")
