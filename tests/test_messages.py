"""What leaves the program: its schema is written down, and what was sent before stays readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monitor.messages import LamellaMessage, TiltMessage, json_schema, parse
from tests.schema_check import faults

GOLDEN = Path(__file__).parent / "golden"
SCHEMAS = Path(__file__).parents[1] / "monitor/schemas"


def shipped(topic: str) -> dict[str, Any]:
    """The schema as it is in the wheel."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{topic}.schema.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("topic", ["tilt", "lamella", "status"])
def test_schema_is_what_was_written_down(topic: str) -> None:
    """A change must be meant: add fields with a default, or raise the version of the schema.

    `python -m tests.test_messages` writes the files anew.
    """
    assert json_schema(topic) == shipped(topic)


@pytest.mark.parametrize("topic", ["tilt", "lamella", "status"])
def test_every_field_is_explained(topic: str) -> None:
    schema = shipped(topic)
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part.get("properties", {}).items():
            said = field if "$ref" not in field else schema["$defs"][field["$ref"].split("/")[-1]]
            assert said.get("description"), f"{topic}: {name}"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*_0.1.0.json")), ids=lambda path: path.stem)
def test_messages_of_earlier_versions_fit_the_schema(path: Path) -> None:
    assert faults(json.loads(path.read_bytes()), shipped(path.stem.split("_")[0])) == []


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("seq", -1), ("seq", "1"), ("seq", True), ("tilts_seen", 1.5), ("probability_bad", -1)),
        *(("schema", "icewatch.tilt/1"), ("verdict", "maybe")),
        *(("ice_percent", 101.0), ("ice_percent", "5")),
    ],
)
def test_the_schema_refuses_what_is_wrong(field: str, wrong: object) -> None:
    raw = json.loads((GOLDEN / "lamella_0.1.0.json").read_text())
    assert faults({**raw, field: wrong}, shipped("lamella"))
    del raw[field]
    assert faults(raw, shipped("lamella"))


def test_every_percentage_says_what_it_is() -> None:
    ice = json_schema("tilt")["$defs"]["IcePart"]["properties"]
    lamella = json_schema("lamella")["properties"]
    said = [ice[name]["description"] for name in ("percent", "valid_area_percent")]
    said += [lamella[name]["description"] for name in ("ice_percent", "occupancy_percent")]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*_0.1.0.json")), ids=lambda path: path.stem)
def test_messages_of_earlier_versions_are_read(path: Path) -> None:
    body = path.read_bytes()
    message = parse(path.stem.split("_")[0], body)
    said = json.loads(message.body())
    for key, value in json.loads(body).items():
        if isinstance(value, dict):
            assert {name: said[key][name] for name in value} == value
        else:
            assert said[key] == value


def test_fields_that_came_later_say_nothing_in_old_messages() -> None:
    tilt = parse("tilt", (GOLDEN / "tilt_0.1.0.json").read_bytes())
    lamella = parse("lamella", (GOLDEN / "lamella_0.1.0.json").read_bytes())
    assert isinstance(tilt, TiltMessage) and not tilt.quality.used_neighbours
    assert isinstance(lamella, LamellaMessage) and lamella.occupancy_percent is None


def test_what_a_newer_version_adds_is_passed_over() -> None:
    raw = json.loads((GOLDEN / "lamella_0.1.0.json").read_text())
    newer = json.dumps({**raw, "moon_phase": "full"}).encode()
    assert parse("lamella", newer) == parse("lamella", json.dumps(raw).encode())


def write_schemas() -> None:
    for topic in ("tilt", "lamella", "status"):
        text = json.dumps(json_schema(topic), indent=1) + "\n"
        (SCHEMAS / f"{topic}.schema.json").write_text(text, "utf-8")


if __name__ == "__main__":
    write_schemas()
