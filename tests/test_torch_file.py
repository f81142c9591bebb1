"""Files of torch.save with a checksum: what is read, what is refused, and that no flipped bit passes."""

import os
import random
import struct
import zipfile

import pytest
import torch

from nelbo import torch_file
from nelbo.atomic_file import DamagedFileError

FLIPS = int(os.environ.get("NELBO_TEST_FLIPS", "100"))  # of single bits, in each file


def content() -> dict:
    return {
        "state_dict": {"a.weight": torch.arange(24.0).reshape(4, 6), "a.bias": torch.ones(3).bfloat16()},
        "nelbo": {"config": {"name": "é", "sizes": [1, 2], "lr": 1e-4}, "none": None},
        "global_step": 7,
    }


def same(one, two) -> bool:
    """Equal to the last bit; strings, numbers and structure too."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    return type(one) is type(two) and one == two


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.ckpt"
    torch_file.save(content(), path)
    return path


def test_the_file_is_one_that_torch_reads(path):
    for mmap in (False, True):
        assert same(torch.load(path, weights_only=True, mmap=mmap), content())
        assert same(torch_file.load(path, mmap=mmap), content())
    with path.open("rb") as file:
        assert same(torch.load(file, weights_only=True), content())
    assert zipfile.ZipFile(path).testzip() is None
    assert zipfile.ZipFile(path).comment.startswith(torch_file.PREFIX)


@pytest.mark.parametrize("has_checksum", [True, False])
def test_a_flipped_bit_is_detected_or_harmless(has_checksum, path):
    if not has_checksum:
        torch.save(content(), path)
    whole = path.read_bytes()
    draw = random.Random(0)
    detected = harmless = 0
    for _ in range(FLIPS):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            read = torch_file.load(path)
        except DamagedFileError:
            detected += 1
        else:
            harmless += same(read, content())
    assert detected + harmless == FLIPS
    if has_checksum:  # all but the word that says that there is a checksum
        assert detected >= 0.9 * FLIPS


def test_a_file_that_is_cut_off_is_refused(path):
    whole = path.read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 80, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedFileError, match=str(path)):
            torch_file.load(path)


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused_by_its_directory(path):
    with (
        zipfile.ZipFile(path) as plain,
        zipfile.ZipFile(path.with_name("bomb.ckpt"), "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for record in plain.infolist():
            bomb.writestr(record.filename, plain.read(record))
        bomb.writestr("archive/data/9", bytes(10**7))
    assert torch.load(path.with_name("bomb.ckpt"), weights_only=True)["global_step"] == 7  # torch would
    with pytest.raises(DamagedFileError, match=r"bomb\.ckpt is compressed, which torch\.save never does"):
        torch_file.load(path.with_name("bomb.ckpt"))

    raw = bytearray(path.read_bytes())  # two entries of the directory that claim the same bytes
    entry = raw.rindex(b"PK\1\2")
    size = struct.unpack_from("<L", raw, entry + 24)[0]
    struct.pack_into("<LL", raw, entry + 20, size + 10**6, size + 10**6)
    path.write_bytes(raw[: -torch_file.COMMENT_SIZE - 2] + b"\0\0")
    with pytest.raises(DamagedFileError, match="unpack to more than its own size"):
        torch_file.load(path)


def test_a_pipe_a_device_and_a_folder_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        with pytest.raises(DamagedFileError, match="is not a regular file"):
            torch_file.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint file"):
        torch_file.load(tmp_path / "none")


def test_files_of_other_programs_are_read(tmp_path):
    path = tmp_path / "old.pt"
    for new in (True, False):
        torch.save(content(), path, _use_new_zipfile_serialization=new)
        assert same(torch_file.load(path), content())


# Tensors that torch loads with weights_only, and that can read or write other memory when they are used
HOSTILE = {
    "sparse": lambda: torch.sparse_coo_tensor(
        torch.full((1, 1), 10**9), torch.ones(1), size=(2,), check_invariants=False
    ),
    "compressed": lambda: torch.sparse_csr_tensor(
        torch.tensor([0, 1]), torch.tensor([10**9]), torch.ones(1), size=(1, 2), check_invariants=False
    ),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
    "without values": lambda: torch.empty(2, device="meta"),
    "expanded": lambda: torch.zeros(1).expand(10**11),
    "overlapping": lambda: torch.zeros(4).as_strided((4, 4), (0, 1)),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_tensor_that_is_not_plain_and_dense_is_refused(kind, path):
    torch_file.save({"nested": [({"w": HOSTILE[kind]()},)]}, path)
    for mmap in (False, True):
        with pytest.raises(DamagedFileError, match=r"not plain and dense|larger than their content"):
            torch_file.load(path, mmap=mmap)


def test_many_names_of_one_memory_are_refused_and_a_few_are_not(path):
    w = torch.zeros(2**16)
    aliases = {str(i): w for i in range(1000)}
    torch_file.save(aliases, path)
    with pytest.raises(DamagedFileError, match="larger than their content"):
        torch_file.load(path)
    views = {
        "tied": w,
        "same": w,
        "column": torch.arange(12.0).reshape(3, 4)[:, 3:],
        "empty": torch.empty(0, 4),
    }
    torch_file.save(views, path)
    assert same(torch_file.load(path), views)


def test_a_list_that_contains_itself_is_read(path):
    cycle: list = []
    cycle.append(cycle)
    torch_file.save({"cycle": cycle}, path)
    read = torch_file.load(path)["cycle"]
    assert read[0] is read
