"""Questions to Prometheus that more than one panel asks."""

from __future__ import annotations

_STATE_CODES = {"starting": 1, "degraded": 2, "stalled": 3}
SILENT = 4


def state_code(matchers: str) -> str:
    """Give one number for each microscope, as in `panels.STATES`: 0 is ready, 4 is silent."""
    codes = " or ".join(
        f'{code} * (icewatch_state{{{matchers}, state="{state}"}} == 1)'
        for state, code in _STATE_CODES.items()
    )
    ready = f'0 * (icewatch_state{{{matchers}, state="ready"}} == 1)'
    silent = f"{SILENT} + (up{{{matchers}}} == 0)"
    return f"max by (microscope) ({silent} or {codes} or {ready})"


def counted(counter: str) -> str:
    """Give what a counter counted in the chosen time, from its first sample on.

    A counter with labels begins at the first event, with 1: `increase` alone would miss that one.
    (Of events between a restart of icewatch and the next scrape some may still be missed.)
    """
    first = f"min_over_time({counter}[$__range]) unless {counter} offset $__range"
    return f"round(increase({counter}[$__range]) + (({first}) or 0 * {newest(counter)}))"


def newest(series: str) -> str:
    """Give the last value in the chosen time, also of what ended before its end."""
    return f"last_over_time({series}[$__range])"


def newest_tilt_age(matchers: str) -> str:
    """Give the time since the newest tilt was read, in seconds."""
    return f"time() - max({newest(f'icewatch_newest_tilt_timestamp_seconds{{{matchers}}}')})"


def firing(matchers: str) -> str:
    """Select the alerts of icewatch that fire."""
    return f'ALERTS{{{matchers}, alertname=~"Icewatch.+", alertstate="firing"}}'


def mean_of(histogram: str, matchers: str) -> str:
    """Give the mean of a histogram of times, by stage, over the time of one point of the plot."""
    rates = [
        f"sum by (stage) (rate({histogram}_{end}{{{matchers}}}[$__rate_interval]))"
        for end in ("sum", "count")
    ]
    return f"{rates[0]} / ({rates[1]} > 0)"
