"""The dashboard for whoever sits at the microscope: which lamellae are worth going on with."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import common, dashboard

from deploy.grafana.expressions import counted, newest, newest_tilt_age, state_code
from deploy.grafana.panels import (
    GREY,
    ICE_BANDS,
    ICE_CELLS,
    ONE,
    ORANGE,
    SKY,
    VERDICTS,
    VERMILLION,
    Panel,
    bars,
    cell,
    coloured,
    complete,
    fixed,
    legend,
    levels_of,
    name,
    now,
    number,
    over_time,
    plot,
    rows,
    rows_merged,
    state,
    steps,
    timeline,
)

CHOSEN = f'{ONE}, session=~"$session"'
_ICE = f"icewatch:lamella_ice_ratio:by_session{{{CHOSEN}}}"
_NEWEST_TILT = f"icewatch:tilt_ice_ratio:by_session{{{CHOSEN}}}"
_VERDICT = f"icewatch:lamella_verdict:by_session{{{CHOSEN}}}"
_SEEN = f"icewatch:lamella_tilts_seen:by_session{{{CHOSEN}}}"
_MISSING = f"icewatch:lamella_tilts_missing:by_session{{{CHOSEN}}}"
_NO_LAMELLA = "no lamella yet"


def add_panels(page: build.Dashboard) -> build.Dashboard:
    """Put all panels on the page, from top to bottom."""
    for panel in (*_headline(), _lamellae(), _grids(), *_ice(), *_trend(), *_not_measured()):
        page.with_panel(panel)
    return page


def _headline() -> list[Panel]:
    return [
        complete(
            name().span(6),
            "Running session",
            "Name of the session that runs at the end of the chosen time.",
            "none",
            "no tilt yet",
            [now(f"icewatch:session:newest{{{ONE}}}", "{{session}}")],
        ),
        complete(
            state().span(3),
            "icewatch is",
            "Ready, starting, degraded, stalled (the images cannot be read) or silent (does not "
            "answer); the Health dashboard tells more.",
            "none",
            "not watched",
            [now(state_code(ONE), "state")],
        ),
        complete(
            number().span(3).decimals(0),
            "Since the newest tilt",
            "Time since the newest tilt was read: short while the microscope acquires.",
            "s",
            "no tilt yet",
            [now(newest_tilt_age(ONE), "age")],
        ),
        *(_lamellae_with(code, word, colour) for code, (word, colour) in VERDICTS.items()),
        *_saved(),
    ]


def _saved() -> list[Panel]:
    saved = (
        f"sum({newest(_MISSING)} and on (job, instance, microscope, session, lamella) "
        f"{newest(_VERDICT)} == 2)"
    )
    none_saved = f"0 * count({newest(_VERDICT)})"
    return [
        complete(
            number().span(3),
            "Tilts that skipping saves",
            "Announced tilts that the lamellae to skip still lack: saved when they are skipped.",
            "none",
            _NO_LAMELLA,
            [now(f"{saved} or {none_saved}", "tilts")],
        ),
        complete(
            number().span(3),
            "Time that skipping saves",
            "These tilts times the seconds for one tilt that are chosen at the top.",
            "s",
            _NO_LAMELLA,
            [now(f"$tilt_seconds * ({saved} or {none_saved})", "time")],
        ),
    ]


def _lamellae_with(code: float, word: str, colour: str) -> Panel:
    meanings = {
        "keep": "Lamellae with less ice than the limit, as far as can be told: go on with them.",
        "undecided": "Lamellae of which too few tilts came to be sure: go on with them.",
        "skip": "Lamellae with more crystalline ice than the limit: think about skipping the rest.",
    }
    return complete(
        number().span(2).color_scheme(fixed(SKY if word == "keep" else colour)),
        word.capitalize(),
        meanings[word],
        "none",
        "none yet",
        [now(f"count({newest(_VERDICT)} == {code:g}) or 0 * count({newest(_VERDICT)})", word)],
    )


def _lamellae() -> table.Panel:
    read, to_come = f"max by (lamella) ({newest(_SEEN)})", f"max by (lamella) ({newest(_MISSING)})"
    columns = {
        "lamella": "Lamella",
        "Value #A": "Verdict",
        "Value #B": "Mean ice",
        "Value #C": "Ice of newest tilt",
        "Value #D": "Tilts read",
        "Value #E": "Tilts to come",
        "Value #F": "Progress",
    }
    panel = complete(
        rows_merged(columns).span(16),
        "Lamellae",
        "Each lamella with its verdict, the mean ice over its tilts, and how far it is; where the "
        "microscope announces no number of tilts, those that came count as all.",
        "none",
        _NO_LAMELLA,
        [
            rows(f"max by (lamella) ({newest(_VERDICT)})"),
            rows(f"max by (lamella) ({newest(_ICE)})"),
            rows(f"max by (lamella) ({newest(_NEWEST_TILT)})"),
            rows(read),
            rows(to_come),
            rows(f"{read} / ({read} + {to_come})"),
        ],
    )
    ice = [cell("unit", "percentunit"), cell("decimals", 1), *levels_of(ICE_CELLS)]
    done: list[dashboard.DynamicConfigValue] = [
        cell("unit", "percentunit"),
        cell("decimals", 0),
        cell("min", 0),
        cell("max", 1),
        cell("color", {"mode": "fixed", "fixedColor": SKY}),
        cell("custom.cellOptions", {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}),
    ]
    return (
        panel.override_by_name("Lamella", [cell("custom.width", 330)])
        .override_by_name("Verdict", [*coloured(VERDICTS), cell("custom.width", 110)])
        .override_by_name("Mean ice", ice)
        .override_by_name("Ice of newest tilt", ice)
        .override_by_name("Progress", done)
    )


def _grids() -> Panel:
    return complete(
        bars().max(1).decimals(0).color_scheme(fixed(VERMILLION)).span(8).height(9),
        "Share of lamellae to skip, by grid",
        "Of the lamellae with a verdict, how many are to be skipped; from half of four lamellae on "
        "an alert says that the grid froze badly.",
        "percentunit",
        "no verdict yet",
        [
            now(
                f"{newest(f'icewatch:grid_lamellae:skip_ratio{{{CHOSEN}}}')}",
                "{{session}} {{grid}}",
            )
        ],
    )


def _ice() -> list[Panel]:
    came = f"changes({_SEEN}[$__rate_interval]) > 0"
    by_tilt = f"""
        max by (lamella) (
          avg_over_time({_NEWEST_TILT}[$__rate_interval])
          and on (job, instance, microscope, session, lamella) {came}
        )"""
    return [
        complete(
            timeline({})
            .mappings([])
            .thresholds(steps(ICE_BANDS))
            .merge_values(False)
            .show_value(common.VisibilityMode.NEVER)
            .decimals(1)
            .interval("2m")
            .max_data_points(240)
            .span(24)
            .height(8),
            "Ice of the tilts as they came, by lamella",
            "One line for each lamella, coloured by the ice of its tilts while they were taken: "
            "blue is little, orange and red are much; empty means that none came.",
            "percentunit",
            _NO_LAMELLA,
            [over_time(by_tilt, "{{lamella}}")],
        ),
        complete(
            plot().decimals(1).legend(legend(common.LegendPlacement.RIGHT)),
            "Mean ice of each lamella so far",
            "Mean over the measured tilts of the lamella: what its verdict is made of.",
            "percentunit",
            _NO_LAMELLA,
            [over_time(f"max by (lamella) ({_ICE})", "{{lamella}}")],
        ),
    ]


def _trend() -> list[Panel]:
    measured = f"icewatch_measured_tilts_ice_ratio_{{}}{{{{{ONE}}}}}"
    total, count = measured.format("sum"), measured.format("count")
    dashed = shared.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
    return [
        complete(
            plot()
            .decimals(1)
            .thresholds(steps([(None, "transparent"), (0.05, ORANGE)]))
            .thresholds_style(dashed),
            "Trend of the session",
            "Mean ice of all tilts of the last two hours (once 30 came), and of the last quarter "
            "of an hour; a rise over 5 % (dashed) means worse lamellae, or a specimen that warms.",
            "percentunit",
            "too few tilts yet",
            [
                over_time(f"icewatch:tilt_ice_ratio:mean2h{{{ONE}}}", "last 2 hours"),
                over_time(
                    f"increase({total}[15m]) / (increase({count}[15m]) > 0)", "last 15 minutes"
                ),
            ],
        )
    ]


def _not_measured() -> list[Panel]:
    published = f'icewatch_tilts_published_total{{{{{ONE}, result="{{}}"}}}}'
    refused = f"icewatch_files_refused_total{{{ONE}}}"
    flags = f"icewatch_tilt_flags_total{{{ONE}}}"
    outside = f"icewatch_tilts_out_of_domain_total{{{ONE}}}"
    return [
        complete(
            bars().span(7).height(7),
            "Tilts, measured or not",
            "Tilts of the chosen time; one that could not be measured counts for no verdict, and "
            "never as 0 % ice. No opinion: shows no specimen, or nothing like what was learned.",
            "none",
            "no tilt yet",
            [
                now(f"sum({counted(published.format('measured'))})", "measured"),
                now(f"sum({counted(published.format('not_measurable'))})", "not measurable"),
                now(f"sum({counted(outside)})", "no opinion"),
            ],
        ),
        complete(
            bars().span(9).height(7).color_scheme(fixed(SKY)),
            "What was remarkable about tilts",
            "How many tilts had which remark, of those measured and of those not; README explains "
            "each word, and a tilt may have several.",
            "none",
            "nothing remarkable",
            [now(f"sum by (flag) ({counted(flags)}) > 0", "{{flag}}")],
        ),
        complete(
            bars().span(8).height(7).color_scheme(fixed(GREY)),
            "Files that gave no tilt, and why",
            "Files in the acquisition directory that could not be read as tilts, by reason.",
            "none",
            "none: every file gave its tilt",
            [now(f"sum by (reason) ({counted(refused)}) > 0", "{{reason}}")],
        ),
    ]
