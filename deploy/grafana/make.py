"""Write the dashboards: `python -m deploy.grafana.make` from the root of the source code.

The JSON files beside this one are what Grafana reads; change the code, not them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from deploy.grafana import fleet, health, session
from deploy.grafana.panels import SOURCE

FOLDER = Path(__file__).parent / "dashboards"
_SCHEMA = 41
"""Of Grafana 11.6; later ones read it too."""

_LABEL_VALUES, _REF_ID = 1, "PrometheusVariableQueryEditor-VariableQuery"
"""By which Grafana knows what kind of query fills a variable."""


def all_dashboards() -> dict[str, str]:
    """Name and content of each file."""
    return {
        "session.json": _text(_session()),
        "health.json": _text(_health()),
        "fleet.json": _text(_fleet()),
    }


def _text(page: build.Dashboard) -> str:
    document = page.build()
    document.schema_version = _SCHEMA
    for number, panel in enumerate(document.panels or [], start=1):
        panel.id_val = number
    return json.dumps(document, cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"


def _page(name: str, title: str, sentence: str, hours: int) -> build.Dashboard:
    source = build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    return (
        build.Dashboard(title)
        .uid(f"icewatch-{name}")
        .description(sentence)
        .tags(["icewatch"])
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time(f"now-{hours}h", "now")
        .refresh("30s")
        .timezone("browser")
        .links([_link(name, other) for other in ("fleet", "session", "health") if other != name])
        .with_variable(source)
    )


def _link(here: str, there: str) -> build.DashboardLink:
    # Fleet shows all microscopes, the other two show one: that one is kept between them.
    same = "" if "fleet" in (here, there) else "?var-microscope=${microscope}"
    return (
        build.DashboardLink(there.capitalize())
        .type(dashboard.DashboardLinkType.LINK)
        .icon("dashboard")
        .url(f"/d/icewatch-{there}{same}")
        .keep_time(True)
    )


def _asked(name: str, label: str, sentence: str, query: str) -> build.QueryVariable:
    return (
        build.QueryVariable(name)
        .label(label)
        .description(sentence)
        .datasource(SOURCE)
        .query(
            {"query": query, "qryType": 1, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
        )
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NATURAL_ASC)
        .allow_custom_value(False)
    )


def _with_all(variable: build.QueryVariable, value: str) -> build.QueryVariable:
    everything = dashboard.VariableOption(selected=True, text="All", value="$__all")
    return variable.include_all(True).all_value(value).current(everything)


def _microscope() -> build.QueryVariable:
    return _asked(
        "microscope",
        "Microscope",
        "Name of the microscope in its icewatch.toml",
        'label_values(up{job="icewatch"}, microscope)',
    )


def _session() -> build.Dashboard:
    sessions = _asked(
        "session",
        "Session",
        "Sessions that ran in the chosen time",
        'label_values(icewatch_session_info{job="icewatch", microscope="$microscope"}, session)',
    ).sort(dashboard.VariableSort.NATURAL_DESC)
    seconds = (
        build.CustomVariable("tilt_seconds")
        .label("Seconds for one tilt")
        .description("What one tilt costs on your microscope, tracking and focusing included")
        .values("10,20,30,40,60,90,120")
        .current(dashboard.VariableOption(selected=True, text="30", value="30"))
    )
    page = _page(
        "session",
        "icewatch: session",
        "Which lamellae of a session are icy, how far they are, and what could not be measured.",
        12,
    )
    page.with_variable(_microscope()).with_variable(_with_all(sessions, ".*"))
    return session.add_panels(page.with_variable(seconds))


def _health() -> build.Dashboard:
    instance = _asked(
        "instance",
        "Instance",
        "Address at which Prometheus asks icewatch",
        'label_values(up{job="icewatch", microscope="$microscope"}, instance)',
    )
    page = _page(
        "health",
        "icewatch: health",
        "Whether icewatch of one microscope works, keeps up, and what fails.",
        6,
    )
    page.with_variable(_microscope()).with_variable(_with_all(instance, ".*"))
    return health.add_panels(page)


def _fleet() -> build.Dashboard:
    page = _page(
        "fleet",
        "icewatch: fleet",
        "All microscopes at once: how icewatch is on each, what is acquired, and what is icy.",
        24,
    )
    return fleet.add_panels(page.with_variable(_with_all(_microscope(), ".*").multi(True)))


def write(folder: Path) -> None:
    """Write all dashboards into a folder."""
    for name, text in all_dashboards().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
