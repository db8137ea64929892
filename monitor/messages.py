"""What leaves the program: versioned messages, the same bytes for every sink and for ever after."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from monitor.model import Decision, IceReading, Reason, Tilt, Verdict

TILT, LAMELLA, STATUS = "tilt", "lamella", "status"
Percent = Annotated[float, Field(ge=0.0, le=100.0)]


class _Part(BaseModel):
    # What a newer icewatch says besides is passed over, so that fields can be added. What stands
    # below a field goes into the schema that subscribers get.
    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True
    )


class TiltPart(_Part):
    """Which exposure a reading belongs to."""

    id: str
    """Which exposure it is: series, angle and time, the same however often it is published."""
    session: str
    """First folder below the acquisition directory, or a name made of its first time."""
    grid: str
    """Folder between session and series; empty where there is none."""
    series: str
    """Stem of the stack's name, or the movie's name without number and angle."""
    lamella: str
    """Unique within the microscope: relative folder plus name."""
    path: str
    """File that holds the tilt, relative to the acquisition directory, with forward slashes."""
    section: int
    """Which image of the file, counted from 0."""
    angle_deg: float | None
    """Stage tilt (degrees); null only where `icewatch score` found none."""
    order: int | None
    """Place in the order of acquisition within the series, from 0; null where nothing tells."""
    acquired_at: str | None
    """The microscope's wall clock as written (ISO 8601, without zone); null where not recorded."""
    pixel_size_angstrom: float | None
    """Side of a pixel of the file on the specimen (angstrom); null where the file does not tell."""
    exposure_dose_e_per_A2: float | None
    """Electrons per square angstrom of this exposure; null where nothing tells."""

    @classmethod
    def of(cls, tilt: Tilt) -> TiltPart:
        """Say about a tilt what subscribers may know."""
        return cls(
            id=encodable(str(tilt.id)),
            session=encodable(tilt.session),
            grid=encodable(tilt.grid),
            series=encodable(tilt.series),
            lamella=encodable(tilt.lamella),
            path=encodable(tilt.path),
            section=tilt.section,
            angle_deg=tilt.angle_deg,
            order=tilt.order,
            acquired_at=tilt.acquired_at,
            pixel_size_angstrom=tilt.pixel_size_angstrom,
            exposure_dose_e_per_A2=tilt.exposure_dose_e_per_A2,
        )


class IcePart(_Part):
    """How much ice the tilt shows: percent of the valid area, with its 90 % interval."""

    percent: Percent | None = Field(
        description="Share of the valid area where, at this tilt, crystalline ice in the specimen "
        "takes or moves more than 10 % of the beam; null where it could not be measured."
    )
    percent_low: Percent | None = Field(
        description="Lower end of the interval that holds the truth in 90 % of cases."
    )
    percent_high: Percent | None = Field(description="Upper end of that interval.")
    phases: dict[str, float] = Field(
        description="Shares of the ice, 0 to 1: hexagonal, cubic, stacking_disordered."
    )
    valid_area_percent: Percent = Field(
        description="Share of the picture where electrons come through specimen or support; "
        "`percent` is of this area."
    )
    area_percent: dict[str, float] = Field(
        default_factory=dict,
        description="What `percent` would be if another contrast counted as ice, by contrast: "
        "0.06, 0.10, 0.15. Empty where nothing was measured or the bundle does not tell.",
    )


class QualityPart(_Part):
    """Whether the reading can be trusted."""

    flags: tuple[str, ...]
    """What is remarkable, as words from a closed list; never empty where `percent` is null."""
    in_domain: bool
    """Whether the picture is of the kind that icewatch has an opinion on."""
    used_neighbours: bool = Field(
        default=False,
        description="Whether earlier tilts of the series had a say. Read alone, or after a "
        "restart of icewatch, the same tilt may give a slightly different percentage.",
    )


class ModelPart(_Part):
    """Who read the tilt."""

    name: str
    """Name of the model bundle."""
    version: str
    """Version of the model bundle."""
    backend: str
    """What the network ran on: `tensorrt`, `openvino` or `onnxruntime`."""


class Reading(_Part):
    """The four objects that a tilt message and a line of `score --json` share."""

    tilt: TiltPart
    ice: IcePart
    quality: QualityPart
    model: ModelPart


def reading_parts(tilt: Tilt, reading: IceReading) -> Reading:
    """Put a tilt and its reading into the form in which they leave the program."""
    return Reading(
        tilt=TiltPart.of(tilt),
        ice=IcePart(
            percent=reading.percent,
            percent_low=reading.percent_low,
            percent_high=reading.percent_high,
            phases=dict(reading.phases),
            valid_area_percent=reading.valid_area_percent,
            area_percent=dict(reading.area_percent),
        ),
        quality=QualityPart(
            flags=reading.flags,
            in_domain=reading.in_domain,
            used_neighbours=reading.used_neighbours,
        ),
        model=ModelPart(
            name=reading.bundle_name, version=reading.bundle_version, backend=reading.backend
        ),
    )


class Stamp(_Part):
    """What every message starts with."""

    seq: Annotated[int, Field(ge=0)]
    """Counts tilt and lamella messages together from 1, without gaps, over restarts; a heartbeat
    repeats the last one. A message with a seq that was seen before is a repetition."""
    boot_id: str
    """Changes at each start of the daemon."""
    time: str
    """When the message was made: UTC, ISO 8601, to the millisecond."""
    microscope: str
    """Name of the microscope, as in the configuration."""


class _Message(Stamp):
    @property
    def topic(self) -> str:
        raise NotImplementedError

    def body(self) -> bytes:
        """Encode as UTF-8 JSON."""
        return self.model_dump_json(by_alias=True).encode()


class TiltMessage(_Message):
    """One complete exposure and its ice."""

    schema_: Literal["icewatch.tilt/1"] = Field(default="icewatch.tilt/1", alias="schema")
    """Kind and version of the message; a change that breaks readers raises the number."""
    tilt: TiltPart
    ice: IcePart
    quality: QualityPart
    model: ModelPart
    latency_s: Annotated[float, Field(ge=0.0)]
    """From when the tilt was complete on disk until this message was made (s)."""

    @property
    def topic(self) -> str:
        return TILT


class LamellaMessage(_Message):
    """What the readings of one lamella say so far."""

    schema_: Literal["icewatch.lamella/1"] = Field(default="icewatch.lamella/1", alias="schema")
    """Kind and version of the message; a change that breaks readers raises the number."""
    session: str
    """As in the tilt messages."""
    grid: str
    """As in the tilt messages."""
    lamella: str
    """As in the tilt messages."""
    series: str
    """The series that the newest tilt of the lamella belongs to."""
    verdict: Decision
    """`undecided` means: keep acquiring."""
    reason: Reason
    """Why, as a word from a closed list."""
    explanation: str
    """Why, as one sentence for a person."""
    ice_percent: Percent | None = Field(
        description="Mean of `percent` over the measured tilts: ice that shows at one tilt."
    )
    ice_percent_low: Percent | None = Field(
        description="Lower end of the interval that holds it in 90 % of cases."
    )
    ice_percent_high: Percent | None = Field(description="Upper end of that interval.")
    probability_bad: Annotated[float, Field(ge=0.0, le=1.0)] | None
    """How probable it is that the mean lies above the limit, 0 to 1; null if not measurable."""
    tilts_seen: int
    """Tilts of the lamella that were read, measurable or not."""
    tilts_expected: int | None
    """Tilts that the microscope announced for the lamella; null where it did not."""
    occupancy_percent: Percent | None = Field(
        default=None,
        description="Share of the field that was ice at any tilt of a series, of what was valid "
        "at any: a lower bound of the crystalline area, not to be mixed with `ice_percent`. The "
        "highest that any series of the lamella reached; null before three tilts could be laid "
        "over each other.",
    )

    @property
    def topic(self) -> str:
        return LAMELLA


class StatusMessage(_Message):
    """Heartbeat: `seq` repeats the last one given out."""

    schema_: Literal["icewatch.status/1"] = Field(default="icewatch.status/1", alias="schema")
    """Kind and version of the message; a change that breaks readers raises the number."""
    state: Literal["starting", "ready", "degraded", "stalled"]
    """`ready` and `degraded` measure; `stalled` waits, for the share say."""
    reason: str
    """Why the state is not `ready`, as one sentence for a person; else empty."""
    backend: str
    """What the network runs on; empty while it loads."""
    last_seq: Annotated[int, Field(ge=0)]
    """Newest seq in the journal: whoever has less asks `replay_endpoint`."""
    backlog: int
    """Files that wait to be read."""
    oldest_unprocessed_s: Annotated[float, Field(ge=0.0)]
    """How long the oldest of them has waited (s)."""
    replay_endpoint: str
    """ZeroMQ REP endpoint of missed messages; `0.0.0.0` or `*` stands for the daemon's host."""
    bundle: str = Field(
        default="",
        description="Name of the model bundle that reads the tilts; empty while it loads.",
    )
    bundle_version: str = Field(default="", description="Version of that bundle.")

    @property
    def topic(self) -> str:
        return STATUS


Message = TiltMessage | LamellaMessage | StatusMessage
_BY_TOPIC: dict[str, type[TiltMessage] | type[LamellaMessage] | type[StatusMessage]] = {
    TILT: TiltMessage,
    LAMELLA: LamellaMessage,
    STATUS: StatusMessage,
}


def parse(topic: str, body: bytes) -> Message:
    """Read a message back; raises `pydantic.ValidationError` or `KeyError` on foreign bytes."""
    return _BY_TOPIC[topic].model_validate_json(body)


def json_schema(topic: str) -> dict[str, Any]:
    """Describe the messages of a topic as JSON Schema; raises `KeyError` for another topic.

    Fields with a default came later than the first version of the schema: they may be missing in
    messages of an older icewatch, and only there.
    """
    schema = _BY_TOPIC[topic].model_json_schema(by_alias=True)
    schema["required"] = ["schema", *schema["required"]]
    for part in (schema, *schema.get("$defs", {}).values()):
        for field in part.get("properties", {}).values():
            field.pop("title", None)
            if "description" in field:
                field["description"] = " ".join(field["description"].split())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def lamella_message(
    stamp: Stamp, tilt: Tilt, verdict: Verdict, occupancy_percent: float | None = None
) -> LamellaMessage:
    """Put a verdict into the form in which it leaves the program."""
    return LamellaMessage(
        **stamp.model_dump(),
        session=encodable(tilt.session),
        grid=encodable(tilt.grid),
        lamella=encodable(tilt.lamella),
        series=encodable(tilt.series),
        verdict=verdict.decision,
        reason=verdict.reason,
        explanation=verdict.explanation,
        ice_percent=verdict.ice_percent,
        ice_percent_low=verdict.ice_percent_low,
        ice_percent_high=verdict.ice_percent_high,
        probability_bad=verdict.probability_bad,
        tilts_seen=verdict.tilts_seen,
        tilts_expected=verdict.tilts_expected,
        occupancy_percent=occupancy_percent,
    )


def tilt_message(stamp: Stamp, tilt: Tilt, reading: IceReading, latency_s: float) -> TiltMessage:
    """Put a reading into the form in which it leaves the program."""
    parts = reading_parts(tilt, reading)
    return TiltMessage(
        **stamp.model_dump(),
        tilt=parts.tilt,
        ice=parts.ice,
        quality=parts.quality,
        model=parts.model,
        latency_s=round(latency_s, 4),
    )


def utc_now() -> str:
    """Our own time, ISO 8601, UTC, to the millisecond."""
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encodable(text: str) -> str:
    r"""Make a file name safe for UTF-8: bytes that are not valid UTF-8 show as `\udcXX` escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
