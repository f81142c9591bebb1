"""JSON and yaml files: the checksum, what is refused by name, and temporary files."""

import json
import os
import random

import pytest

from nelbo import atomic_file
from nelbo.atomic_file import (
    CHECKSUM,
    UNFINISHED,
    DamagedFileError,
    new_folder,
    read_json,
    read_yaml,
    replacing,
    write_json,
)

FLIPS = int(os.environ.get("NELBO_TEST_FLIPS", "100"))
CONTENT = {"test/bpd": 3.0517578125, "step": 1000, "ledger": {"data": "Digits", "clip": None}, "é": [1, 2.5]}


@pytest.fixture
def path(tmp_path):
    write_json(tmp_path / "summary.json", CONTENT)
    return tmp_path / "summary.json"


def test_what_is_written_is_read_and_a_person_can_read_it(path):
    assert read_json(path) == CONTENT
    assert json.loads(path.read_text()).keys() == {*CONTENT, CHECKSUM}
    write_json(path, {"nan": float("nan"), "tuple": (1, float("inf")), 3: {"x": 0.1 + 0.2}})
    assert read_json(path) == {"nan": None, "tuple": [1, None], "3": {"x": 0.1 + 0.2}}


def test_a_flipped_bit_is_detected_or_harmless(path):
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(FLIPS):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            read = read_json(path)
        except DamagedFileError:
            continue
        # in the checksum's own name, which makes it another entry
        assert {name: value for name, value in read.items() if name in CONTENT} == CONTENT


def test_a_file_without_a_checksum_is_read_and_one_that_was_edited_says_what_to_do(path):
    edited = json.loads(path.read_text()) | {"step": 2000}
    path.write_text(json.dumps(edited))
    with pytest.raises(DamagedFileError, match=f"damaged or edited, .* remove {CHECKSUM} from it"):
        read_json(path)
    del edited[CHECKSUM]
    path.write_text(json.dumps(edited))
    assert read_json(path) == CONTENT | {"step": 2000}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting"),
        (b'{"a": "\xff"}', "'utf-8' codec can't decode"),
        ('{"a": 1}'.encode("utf-16"), "'utf-8' codec can't decode"),
        (b"[1]", "expected an object"),
        (b'{"a": ' * 100_000, "maximum recursion depth"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "nested more than 64 deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"a": "' + b"x" * 1000 + b'"}', "it is larger than"),
    ],
)
def test_what_is_no_json_file_of_ours_is_refused_by_name(data, said, path, monkeypatch):
    if said == "it is larger than":
        monkeypatch.setattr(atomic_file, "MAX_JSON_BYTES", 1000)
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match=said) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as JSON (")


def test_a_pipe_and_a_device_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(DamagedFileError, match="is not a regular file"):
            read_json(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


YAML_BOMBS = {
    "aliases": "\n".join(
        ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    ),
    "merge keys": "\n".join(
        ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 9)]
    ),
    "a long text": f"a: &a {'x' * 10**6}\nb: [*a, *a, *a, *a, *a]",
    "itself": "a: &a [*a]",
}


@pytest.mark.parametrize("name", YAML_BOMBS)
def test_a_yaml_file_that_expands_to_much_more_than_its_size_is_refused(name, tmp_path):
    path = tmp_path / "overrides.yaml"
    path.write_text(YAML_BOMBS[name])
    with pytest.raises(DamagedFileError, match="its aliases expand to more than 4 MiB") as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_anchors_and_merge_keys_of_a_yaml_file_are_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, x: 3}\n")
    a = {"x": 1, "y": [2]}
    assert read_yaml(tmp_path / "x.yaml") == {"a": a, "b": a, "c": a | {"x": 3}}


@pytest.mark.parametrize(
    "text",
    ["{" * 5000, "!!int ''", "!!bool x", "!!timestamp x", "a: " + "1:" * 600 + "1", "? [1]\n: 2", "\x00"],
)
def test_any_damage_of_a_yaml_file_is_one_line_that_names_it(text, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(DamagedFileError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as yaml, it is damaged (")
    assert "\n" not in str(caught.value)


def test_two_writers_of_a_file_have_two_temporary_files(tmp_path):
    path = tmp_path / "summary.json"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("A" * 100)
        second.write_text("B" * 10)
    assert path.read_text() == "A" * 100  # the last one to end, whole
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    path.write_text("")
    mode = path.stat().st_mode
    write_json(path, {})
    assert path.stat().st_mode == mode  # as the umask says


def test_new_folder_is_whole_or_not_there(tmp_path):
    path = tmp_path / "made"
    with new_folder(path) as unfinished:
        (unfinished / "a").write_text("a")
        assert [UNFINISHED.fullmatch(entry.name)[1] for entry in tmp_path.iterdir()] == [str(os.getpid())]
    assert (path / "a").read_text() == "a"
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "other"):
        raise KeyboardInterrupt
    with pytest.raises(OSError, match="cannot write "), new_folder(path):
        pass  # it is not empty
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


def test_a_temporary_file_never_goes_through_a_link(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    monkeypatch.setattr(atomic_file.secrets, "token_hex", lambda n: "known")
    (tmp_path / f"summary.json.known.{os.getpid()}.tmp").symlink_to(victim)
    with pytest.raises(OSError, match=r"cannot write .*summary\.json"):
        write_json(tmp_path / "summary.json", {})
    assert victim.read_text() == "kept"
