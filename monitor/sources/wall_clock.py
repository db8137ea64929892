"""Dates and times as microscopes write them, to ISO 8601 without zone."""

from __future__ import annotations

import re
from datetime import datetime

_DATE_TIME = re.compile(
    r"([0-9]{1,4})-([^\W\d_]{3})[^\W\d_]*\.?-([0-9]{1,4})\s+"
    r"([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
)
_MONTHS = {
    name: number
    for number, names in enumerate(
        "jan feb mar,mär apr may,mai jun jul aug sep oct,okt nov dec,dez".split(), start=1
    )
    for name in names.split(",")
}
_BELIEVED_YEARS = range(1990, 2101)
"""Another year is what a program writes that does not know the time (0001, 1601, 1970, 9999)."""


def iso_time(year: int, month: int, day: int, hour: int, minute: int, second: int) -> str | None:
    """Write a time as ISO 8601; None for what is no time, or none at which a tilt was taken."""
    try:
        when = datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None
    return when.isoformat(timespec="seconds") if year in _BELIEVED_YEARS else None


def is_whole_mdoc_time(text: str) -> bool:
    """Whether nothing can be missing from the value of `DateTime`."""
    return bool(_DATE_TIME.fullmatch(text))


def mdoc_time(text: str, *, year_first: bool) -> str | None:
    """Read `06-Jun-23  23:51:49`, `01-Aug-2022  18:58:35`, or Tomography's `22-Feb-04  23:02:05`.

    Where both ends have two digits `year_first` says which is the year, unless that makes no
    date. None for what is no date, or one at which no tilt was taken.
    """
    match = _DATE_TIME.fullmatch(text)
    month = _MONTHS.get(match.group(2).lower()) if match else None
    if match is None or month is None:
        return None
    first, last = match.group(1), match.group(3)
    clock = int(match.group(4)), int(match.group(5)), int(match.group(6))
    day_leads, year_leads = (last, first), (first, last)
    if len(first) > 2:
        orders = [year_leads]
    elif len(last) > 2:
        orders = [day_leads]
    elif year_first:
        orders = [year_leads, day_leads]
    else:
        orders = [day_leads, year_leads]
    for year, day in orders:
        when = iso_time(int(year) + (2000 if len(year) <= 2 else 0), month, int(day), *clock)
        if when is not None:
            return when
    return None
