"""The safetensors reader: agrees with the safetensors library, shares the file's memory, refuses every damage."""

from __future__ import annotations

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from tilewright.errors import WeightsError
from tilewright.models import safetensors
from tilewright.models.safetensors import Checkpoint, SafetensorsFile

NAME = "model.safetensors"
INDEX = "model.safetensors.index.json"


def write(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_what_the_library_writes(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.standard_normal((3, 5)).astype(np.float32),
        "b": rng.integers(0, 9, (4,)).astype(np.int64),
        "half": rng.standard_normal((2, 3)).astype(np.float16),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 4), np.float32),
    }
    library.save_file(arrays, tmp_path / NAME, metadata={"format": "np"})
    file = SafetensorsFile(tmp_path / NAME)
    assert set(file.tensors) == set(arrays)
    for name, wanted in arrays.items():
        found = file.tensor(name)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def test_a_copy_gives_back_the_pages_of_each_block_before_the_next(tmp_path, monkeypatch):
    values = np.arange(70, dtype=np.float32).reshape(10, 7)
    file = SafetensorsFile(write(tmp_path / NAME, {"w": entry("F32", [10, 7], 0, 280)}, values.tobytes()))
    begin, given_back, out = file.tensors["w"].begin, [], np.full((10, 7), np.nan)
    monkeypatch.setattr(safetensors, "_COPY_BLOCK", 3 * 28 + 5)  # three rows, and no fourth
    monkeypatch.setattr(file, "_release", lambda *span: given_back.append((*span, int(np.isfinite(out[:, 0]).sum()))))
    file.copy_into("w", out)
    np.testing.assert_array_equal(out, values)
    rows = [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert given_back == [(begin + 28 * first, begin + 28 * last, last) for first, last in rows]


def test_bf16_is_bf16(tmp_path):
    values = np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3)
    file = SafetensorsFile(write(tmp_path / NAME, {"w": entry("BF16", [2, 3], 0, 12)}, values.tobytes()))
    assert file.tensor("w").dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(file.tensor("w"), values)


def test_tensors_are_read_only_views_of_the_file(tmp_path):
    write(tmp_path / NAME, {"w": entry("F32", [2], 0, 8)}, np.array([1, 2], np.float32).tobytes())
    file = SafetensorsFile(tmp_path / NAME)
    assert not file.tensor("w").flags.writeable
    assert np.shares_memory(file.tensor("w"), file.tensor("w"))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (70_000, 70)])
def test_copy_casts(tmp_path, shape):
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    size = values.nbytes
    file = SafetensorsFile(write(tmp_path / NAME, {"w": entry("F32", list(shape), 0, size)}, values.tobytes()))
    out = np.full(shape, np.nan).astype(ml_dtypes.bfloat16)
    file.copy_into("w", out)
    np.testing.assert_array_equal(out, values.astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(file.tensor("w"), values)  # pages that were given back come again


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"w": entry("F32", [4], 0, 16)}, bytes(8), r"it is truncated: tensor w ends at byte"),
        ({"w": entry("F32", [2], 0, 8)}, bytes(12), r"4 bytes follow the last tensor"),
        ({"w": entry("F32", [3], 0, 8)}, bytes(8), r"tensor w, F32\[3\], needs 12 bytes and has 8"),
        ({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, bytes(6), r"tensor b overlaps a"),
        ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 4, 6)}, bytes(6), r"tensor b leaves a hole after a"),
        ({"w": entry("F32", [-1], 0, 4)}, bytes(4), r"tensor w has shape \[-1\]"),
        ({"w": entry("F32", [1.0], 0, 4)}, bytes(4), r"tensor w has shape \[1.0\]"),
        ({"w": entry("F32", [True], 0, 4)}, bytes(4), r"tensor w has shape"),
        ({"w": entry("F32", [1], -4, 0)}, bytes(4), r"offsets -4, 0"),
        ({"w": {"dtype": "F32", "shape": [1]}}, bytes(4), r"tensor w lacks dtype, shape or data_offsets"),
        ({"w": 3}, bytes(4), r"tensor w lacks"),
        ({"w": entry("C64", [1], 0, 8)}, bytes(8), r"tensor w has dtype C64; Tilewright reads F64"),
        (b"[]", b"", r"its header is not a JSON object"),
        (b"{", b"", r"its header is not valid JSON"),
        (b"\xff\xfe{}", b"", r"its header is not valid JSON"),
        (b'{"w": 1, "w": 2}', b"", r"'w' stands twice"),
    ],
)
def test_damaged(tmp_path, header, data, message):
    path = write(tmp_path / NAME, header, data)
    with pytest.raises(WeightsError, match=message) as caught:
        SafetensorsFile(path)
    assert str(path) in str(caught.value)


def test_header_longer_than_the_file(tmp_path):
    path = write(tmp_path / NAME, b"{}", length=1 << 40)
    with pytest.raises(WeightsError, match=r"its header claims 1099511627776 bytes, the file has 10"):
        SafetensorsFile(path)


@pytest.mark.parametrize("content", [b"", b"1234567"])
def test_too_short_for_a_header(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(WeightsError, match=f"it is {len(content)} bytes long, too short.*fetch the file again"):
        SafetensorsFile(tmp_path / NAME)


def test_every_truncation_is_noticed(tmp_path):
    whole = write(tmp_path / NAME, {"w": entry("F32", [4], 0, 16)}, bytes(16)).read_bytes()
    for size in range(len(whole)):
        (tmp_path / NAME).write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="fetch the file again"):
            SafetensorsFile(tmp_path / NAME)


# ------------------------------------------------------------------------------------------- folders


def two_shards(folder):
    write(folder / "one.safetensors", {"a": entry("F32", [1], 0, 4)}, np.float32(1).tobytes())
    write(folder / "two.safetensors", {"b": entry("F32", [1], 0, 4)}, np.float32(2).tobytes())
    return {"a": "one.safetensors", "b": "two.safetensors"}


def write_index(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_shards(tmp_path):
    write_index(tmp_path, two_shards(tmp_path))
    checkpoint = Checkpoint(tmp_path)
    assert set(checkpoint) == {"a", "b"}
    assert len(checkpoint) == 2
    assert [float(checkpoint.tensor(n)[0]) for n in "ab"] == [1.0, 2.0]
    assert checkpoint["b"].shape == (1,)


def test_missing_shard(tmp_path):
    write_index(tmp_path, two_shards(tmp_path))
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"two.safetensors: the index names this shard but it is missing; fetch it"):
        Checkpoint(tmp_path)


def test_shard_without_its_tensor(tmp_path):
    write_index(tmp_path, {**two_shards(tmp_path), "c": "one.safetensors"})
    with pytest.raises(WeightsError, match=r"one.safetensors: lacks tensor c"):
        Checkpoint(tmp_path)


def test_index_may_not_leave_its_folder(tmp_path):
    write_index(tmp_path, {"a": "../elsewhere.safetensors"})
    with pytest.raises(WeightsError, match=r"shard '../elsewhere.safetensors' is not a plain file name"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_damaged_index(tmp_path, text):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(WeightsError, match=r"index.json: not an index with a weight_map"):
        Checkpoint(tmp_path)


def test_no_weights(tmp_path):
    with pytest.raises(WeightsError, match=r"neither model.safetensors nor .*convert the weights to safetensors"):
        Checkpoint(tmp_path)


def test_missing_tensor(tmp_path):
    write(tmp_path / NAME, {})
    with pytest.raises(WeightsError, match=r"tensor w is missing"):
        Checkpoint(tmp_path).tensor("w")
