"""Configurations, right and wrong: one line that names the file, the key and the remedy."""

import os
from pathlib import Path

import numpy as np
import pytest

from engines.readers.mrc import write_mrc
from monitor.errors import ConfigError
from monitor.settings import load
from tests.privileges import as_nobody


def write(folder: Path, text: str) -> Path:
    path = folder / "icewatch.toml"
    path.write_text(text, "utf-8")
    return path


def minimal(folder: Path, more: str = "") -> Path:
    return write(
        folder,
        f'[acquisition]\ndirectory = "{folder}/data"\n'
        f'[state]\ndirectory = "{folder}/state"\n{more}',
    )


def complaint(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(str(path)), text
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_two_keys_are_enough(tmp_path: Path) -> None:
    settings = load(minimal(tmp_path))
    assert settings.verdict_directory == tmp_path / "state" / "verdicts"
    assert settings.verdict.mode == "advise"
    assert settings.verdict.skip_above_ice_percent == 10.0


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[acquisition]\ndirectory = "in"\n[state]\ndirectory = "state"\n')
    assert load(path).acquisition.directory == tmp_path / "in"


def test_a_share_that_is_not_mounted_yet_is_no_mistake(tmp_path: Path) -> None:
    assert not (tmp_path / "data").exists()
    load(minimal(tmp_path))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("[publsh]\n", "publsh: unknown key; did you mean 'publish'?"),
        ("[verdict]\nmod = 'act'\n", "verdict.mod: unknown key; did you mean 'mode'?"),
        (
            "[verdict]\npolicy = {kind = 'mean_over_tilts', minimum_tilt = 3}\n",
            "verdict.policy.minimum_tilt: unknown key; did you mean 'minimum_tilts'?",
        ),
        ("[verdict]\nzzzz = 1\n", "verdict.zzzz: unknown key; remove it"),
        ("[verdict]\nskip_above_ice_percent = nan\n", "verdict.skip_above_ice_percent:"),
        ("[verdict]\nskip_above_ice_percent = -1\n", "verdict.skip_above_ice_percent:"),
        ("[verdict]\nmode = 'go'\n", "verdict.mode:"),
        ("[publish]\nmetrics_address = '127.0.0.1:0'\n", "port 0 is outside 1 to 65535"),
        ("[publish]\nweb_address = '127.0.0.1:65536'\n", "port 65536 is outside 1 to 65535"),
        ("[publish]\nzmq_endpoint = 'tcp://127.0.0.1:99999'\n", "port 99999 is outside"),
        ("[publish]\nzmq_endpoint = 'localhost'\n", "publish.zmq_endpoint:"),
        ("[publish]\nweb_address = 'localhost'\n", "publish.web_address:"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(tmp_path: Path, more: str, expected: str) -> None:
    assert expected in complaint(minimal(tmp_path, more))


def test_missing_keys_are_named(tmp_path: Path) -> None:
    assert complaint(write(tmp_path, "[state]\ndirectory = 'x'\n")).startswith("acquisition: is")
    text = complaint(write(tmp_path, "[acquisition]\n[state]\ndirectory = 'x'\n"))
    assert text.startswith("acquisition.directory: is missing")


def test_an_acquisition_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert "is a file" in complaint(minimal(tmp_path))


@pytest.mark.parametrize("key", ["state", "verdict"])
@pytest.mark.parametrize("where", ["data", "data/below", "link/below"])
def test_nothing_may_be_written_below_the_acquisition_directory(
    tmp_path: Path, key: str, where: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    other = "[state]\ndirectory = 'state'\n" if key == "verdict" else ""
    text = f"[acquisition]\ndirectory = 'data'\n{other}[{key}]\ndirectory = '{where}'\n"
    assert "never writes" in complaint(write(tmp_path, text))


@pytest.mark.parametrize("name", ["~nosuchuser/x", "loop/x", "x" * 300, "nul\\u0000", "file/below"])
@pytest.mark.parametrize("key", ["acquisition", "state", "verdict"])
def test_names_that_can_be_no_directory(tmp_path: Path, key: str, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    sections = {"acquisition": "data", "state": "state", "verdict": "verdicts", key: name}
    text = "".join(f'[{key}]\ndirectory = "{value}"\n' for key, value in sections.items())
    assert complaint(write(tmp_path, text)).startswith(f"{key}.directory: ")


def test_a_share_that_may_not_be_looked_at_is_waited_for(nobodys_path: Path) -> None:
    (nobodys_path / "share" / "data").mkdir(parents=True)
    (nobodys_path / "share").chmod(0)
    text = "[acquisition]\ndirectory = 'share/data'\n[state]\ndirectory = 'state'\n"
    path = write(nobodys_path, text)
    try:
        found = as_nobody(lambda: load(path).acquisition.directory)
    finally:
        (nobodys_path / "share").chmod(0o755)
    assert found == nobodys_path / "share" / "data"


def test_a_socket_file_is_not_put_below_the_acquisition_directory(tmp_path: Path) -> None:
    more = f"[publish]\nzmq_endpoint = 'ipc://{tmp_path}/data/socket'\n"
    assert "publish.zmq_endpoint" in complaint(minimal(tmp_path, more))


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    assert "no such file" in complaint(tmp_path / "none.toml")
    assert "not valid TOML" in complaint(write(tmp_path, "[acquisition\n"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in complaint(binary)


PATTERN = "pattern = '(?P<series>.+)_(?P<angle>.+)'"


def custom(folder: Path, keys: str, layout: str = "custom", more: str = "") -> Path:
    return write(
        folder,
        f"[acquisition]\ndirectory = 'data'\nlayout = '{layout}'\n"
        f"[acquisition.custom]\n{keys}\n[state]\ndirectory = 'state'\n{more}",
    )


def test_a_custom_layout(tmp_path: Path) -> None:
    assert load(custom(tmp_path, PATTERN)).acquisition.custom.pattern
    (tmp_path / "angles.csv").write_text("name,angle\n")
    table = load(custom(tmp_path, "table = 'angles.csv'")).acquisition.custom.table
    assert table == tmp_path / "angles.csv", "counts from the file; it may be empty yet"


@pytest.mark.parametrize(
    ("keys", "layout", "expected"),
    [
        ("", "custom", "acquisition.layout: 'custom' needs acquisition.custom.pattern or"),
        (PATTERN, "auto", "acquisition.custom.pattern: counts only with acquisition.layout"),
        ("table = 'x'", "serialem", "acquisition.custom.table: counts only with"),
        (f"{PATTERN}\ntable = 'x'", "custom", "acquisition.custom.table: cannot be used beside"),
        ("pattern = '('", "custom", "acquisition.custom.pattern: is no regular expression"),
        ("pattern = '(?P<series>.*)'", "custom", "acquisition.custom.pattern: lacks the group"),
        (
            "pattern = '(?P<series>(\\w+)+)=(?P<angle>.*)'",
            "custom",
            "acquisition.custom.pattern: takes far too long",
        ),
        ("table = 'none.csv'", "custom", "acquisition.custom.table:"),
        ("table = 'data'", "custom", "acquisition.custom.table:"),
        ("table = 'fifo'", "custom", "acquisition.custom.table:"),
        ("table = 'bad.csv'", "custom", "bad.csv', line 3: 'abc' is no tilt angle"),
        ("table = 'binary.csv'", "custom", "is no table of text"),
        (
            "pattrn = 'x'",
            "custom",
            "acquisition.custom.pattrn: unknown key; did you mean 'pattern'",
        ),
    ],
)
def test_what_is_wrong_with_a_custom_layout(
    tmp_path: Path, keys: str, layout: str, expected: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "bad.csv").write_text("name,angle\nx.mrc,3\ny.mrc,abc\n")
    (tmp_path / "binary.csv").write_bytes(b"\0\1\2")
    os.mkfifo(tmp_path / "fifo")
    assert expected in complaint(custom(tmp_path, keys, layout))


def with_gain(folder: Path, reference: str) -> Path:
    return minimal(folder, f"[acquisition.gain]\nreference = '{reference}'\n")


def test_a_gain_reference_counts_from_the_file(tmp_path: Path) -> None:
    write_mrc(tmp_path / "gain.mrc", np.ones((4, 5), np.float32), None)
    found = load(with_gain(tmp_path, "gain.mrc")).acquisition.gain.reference
    assert found == tmp_path / "gain.mrc"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none.mrc", "is not there"),
        ("gain.dm4", "is a DigitalMicrograph file, which is not read; convert it"),
        ("garbage.mrc", "is not an MRC file"),
        ("cut.mrc", "is cut"),
        ("data", "is not a regular file"),
    ],
)
def test_gain_references_that_are_refused(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "data").mkdir()
    write_mrc(tmp_path / "cut.mrc", np.ones((4, 5), np.float32), None)
    os.truncate(tmp_path / "cut.mrc", 1050)
    (tmp_path / "garbage.mrc").write_bytes(b"x" * 5000)
    (tmp_path / "gain.dm4").write_bytes(b"\0\0\0\4" * 100)
    text = complaint(with_gain(tmp_path, name))
    assert text.startswith("acquisition.gain.reference: ")
    assert expected in text and name in text
