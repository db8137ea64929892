"""What `icewatch bundle` does, whether a daemon runs or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from engines.bundle_lineage import lineage_of
from engines.bundle_store import DEFAULT, BundleStore
from engines.errors import BundleError
from monitor.bundle_choice import Choice, Serving, read_choice, read_serving, write_word
from monitor.errors import ConfigError, MonitorError
from monitor.settings import Settings, load
from monitor.shadow_journal import forget

NOTICED_S = 4.0
"""A daemon that runs notices a request between two tilts, and looks twice a second."""
DONE_S = 1800.0
"""A plan for the graphics card is built within that."""
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Place:
    """The store of one daemon, and its settings where they are known."""

    store: BundleStore
    settings: Settings | None

    @property
    def configured(self) -> str:
        """What the configuration names as bundle."""
        return self.settings.model.bundle if self.settings else DEFAULT


def place_of(config: Path | None, state: Path | None) -> Place:
    """Find the store; raises `ConfigError` unless one of the two is given."""
    if (config is None) == (state is None):
        raise ConfigError("icewatch bundle: name the daemon by --config FILE, or by --state DIR")
    if config is not None:
        settings = load(config)
        return Place(BundleStore(settings.state.directory), settings)
    assert state is not None
    return Place(BundleStore(state), None)


def install_bundle(place: Place, source: Path, *, even_if_worse: bool) -> None:
    """Install a bundle and say what it is."""
    with _as_one_sentence():
        ref, is_new = place.store.install(source, even_if_worse=even_if_worse)
        if not is_new:
            typer.echo(f"{ref} is installed already, and is the same")
            return
        lineage = lineage_of(place.store.manifest(ref))
    parent, figures = lineage.parent, lineage.held_out
    made = f", made from {parent.name}@{parent.version}" if parent else ""
    typer.echo(f"{ref} is installed{made}")
    if figures is None:
        typer.echo("it tells no held-out figures: nobody knows whether it reads better")
    else:
        before, after = figures.before, figures.after
        typer.echo(
            f"mean error on {after.tilts} held-out tilts: {before.mean_absolute_error:.2f} "
            f"percentage points before, {after.mean_absolute_error:.2f} now"
        )
    typer.echo(f"it does not serve yet: icewatch bundle activate {ref}")


def activate_bundle(place: Place, words: str) -> None:
    """Ask for a bundle, and wait for what the daemon says of it."""
    _refuse_configured(place)
    with _as_one_sentence():
        ref = place.store.find(words)
        with place.store.locked():
            place.store.load(ref)
            choice, serving = _words(place)
            was_refused = bool(serving.refused) and serving.settled == choice.number
            if ref == choice.shadow:
                choice = choice.shadowed("")
            choice = _write(place, choice.activated(ref, was_refused=was_refused))
    _follow(place, choice)


def roll_back(place: Place) -> None:
    """Ask for what was active before, and wait for what the daemon says of it."""
    _refuse_configured(place)
    with _as_one_sentence(), place.store.locked():
        choice = _words(place)[0].rolled_back()
        place.store.load(choice.active)
        _write(place, choice)
    _follow(place, choice)


def remove_bundle(place: Place, words: str) -> None:
    """Remove a bundle that is not used."""
    with _as_one_sentence():
        ref = place.store.find(words)
        if ref == DEFAULT:
            raise BundleError("The bundle 'default' comes with icewatch; it cannot be removed.")
        with place.store.locked():
            choice, serving = _words(place)
            if ref in (choice.active, serving.serves):
                raise BundleError(f"{ref} serves, or is to; activate another one first.")
            if ref == choice.shadow:
                raise BundleError(f"{ref} is the shadow; icewatch bundle shadow --off ends that.")
            _write(place, choice.without(ref))
            place.store.remove(ref)
            forget(place.store.directory, ref)
    typer.echo(f"{ref} is removed")


def shadow_bundle(place: Place, words: str | None, *, off: bool) -> None:
    """Ask for a shadow, or for none, and wait until the daemon took notice."""
    if (words is None) != off:
        raise ConfigError("icewatch bundle shadow: name a bundle, or say --off")
    with _as_one_sentence():
        ref = place.store.find(words) if words else ""
        with place.store.locked():
            choice, serving = _words(place)
            if ref and ref == serving.serves and place.configured == DEFAULT:
                raise BundleError(f"{ref} serves itself; name another bundle.")
            if ref:
                place.store.load(ref)
            choice = _write(place, choice.shadowed(ref))
    said = f"{ref} reads beside the active bundle" if ref else "none reads beside the active bundle"
    noticed_by_s = time.monotonic() + NOTICED_S
    while (serving := read_serving(place.store.directory)).shadow_settled < choice.shadow_number:
        if time.monotonic() > noticed_by_s:
            typer.echo(f"{said} from the next start on; no icewatch has taken notice yet")
            return
        time.sleep(_POLL_S)
    if serving.shadow_off:
        raise MonitorError(serving.shadow_off)
    typer.echo(f"{said} from now on")


def _refuse_configured(place: Place) -> None:
    if place.configured != DEFAULT:
        raise MonitorError(
            f"model.bundle in the configuration names '{place.configured}', which holds; set it to "
            '"default" and restart icewatch'
        )


def _words(place: Place) -> tuple[Choice, Serving]:
    """Read both words; a number is never given twice, even where one of them was lost."""
    choice, serving = read_choice(place.store.directory), read_serving(place.store.directory)
    number = max(choice.number, serving.seen, serving.settled)
    shadow_number = max(choice.shadow_number, serving.shadow_settled)
    return replace(choice, number=number, shadow_number=shadow_number), serving


def _write(place: Place, choice: Choice) -> Choice:
    try:
        write_word(place.store.directory, choice)
    except OSError as error:
        raise MonitorError(
            f"'{place.store.directory}' cannot be written to ({error.strerror}); make room, or run "
            "this as the user that icewatch runs as"
        ) from error
    return choice


@contextmanager
def _as_one_sentence() -> Iterator[None]:
    try:
        yield
    except BundleError as error:
        raise MonitorError(str(error).rstrip(".")) from error


def _follow(place: Place, choice: Choice) -> None:
    """Tell what becomes of a request; raises `MonitorError` where it is refused."""
    noticed_by_s = time.monotonic() + NOTICED_S
    while (serving := read_serving(place.store.directory)).seen < choice.number:
        if time.monotonic() > noticed_by_s:
            typer.echo(
                f"{choice.active} is asked for; no icewatch has taken notice yet: the next start "
                "proves it and takes it over, or the one that runs once it has time"
            )
            return
        time.sleep(_POLL_S)
    typer.echo(f"{choice.active} is being proved; {serving.serves} serves meanwhile")
    done_by_s = time.monotonic() + DONE_S
    while (serving := read_serving(place.store.directory)).settled < choice.number:
        if time.monotonic() > done_by_s:
            raise MonitorError(
                f"{choice.active} does not serve yet; see icewatch status for what becomes of it"
            )
        time.sleep(_POLL_S)
    if serving.settled == choice.number and serving.refused:
        raise MonitorError(f"refused, {serving.serves} goes on serving: {serving.refused}")
    typer.echo(f"{serving.serves} serves from now on")
