"""Problems, and that they end with the files that they are about."""

from pathlib import Path

import pytest

from monitor.intake import Intake
from monitor.model import Landed
from monitor.problems import Problems
from monitor.sources import all_sources
from tests.landings import landed

NAME = "s/L1.mrc"


class Stepped:
    """An intake that is driven by hand and tells the problems what is gone."""

    def __init__(self, root: Path) -> None:
        self.now_s = 1000.0
        self.problems = Problems()
        self.intake = Intake(
            root,
            all_sources(root),
            watch="poll",
            clock=lambda: self.now_s,
            on_gone=self.problems.solved,
        )

    def later(self) -> None:
        self.now_s += 40.0
        self.intake.step()

    def offered(self) -> Landed:
        offer = self.intake.next(0.0)
        assert offer is not None
        return offer.landed

    def named(self) -> list[str]:
        return [problem.path for problem in self.problems.open()]


@pytest.fixture
def stepped(tmp_path: Path) -> Stepped:
    for name in (NAME, NAME + ".mdoc", "s/L2.mrc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = Stepped(tmp_path)
    found.later()
    return found


def test_a_problem_stands_until_its_file_is_gone(tmp_path: Path, stepped: Stepped) -> None:
    for _ in range(2):
        offer = stepped.offered()
        stepped.problems.refused(offer, "no tilt")
        stepped.intake.done(offer)
    (tmp_path / (NAME + ".mdoc")).unlink()
    stepped.later()
    assert sorted(stepped.named()) == [NAME, "s/L2.mrc"]
    (tmp_path / NAME).unlink()
    stepped.later()
    assert stepped.named() == ["s/L2.mrc"]


@pytest.mark.parametrize("give_back", [Intake.done, Intake.retry])
def test_a_file_that_goes_while_it_is_worked_on_leaves_no_problem(
    tmp_path: Path, stepped: Stepped, give_back: object
) -> None:
    offers = [stepped.offered(), stepped.offered()]
    (tmp_path / NAME).unlink()
    stepped.later()
    for offer in offers:
        stepped.problems.refused(offer, "no tilt")
        assert callable(give_back)
        give_back(stepped.intake, offer)
    assert stepped.named() == ["s/L2.mrc"]
    still_open = 1 if give_back is Intake.retry else 0
    assert stepped.intake.status().incomplete == still_open, "the mdoc alone is not waited for"


def test_a_file_that_an_event_told_of_may_go_before_any_scan(
    tmp_path: Path, stepped: Stepped
) -> None:
    for _ in range(2):
        stepped.intake.done(stepped.offered())
    brief = "s/brief.mrc"
    (tmp_path / brief).write_bytes(b"x")
    stepped.intake._hint(brief, True)
    stepped.intake.step()
    offer = stepped.offered()
    stepped.problems.refused(offer, "no tilt")
    stepped.intake.retry(offer)
    (tmp_path / brief).unlink()
    stepped.later()
    assert stepped.named() == []
    assert stepped.intake.status().incomplete == 0


def test_the_same_state_of_a_file_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "a.mrc").write_bytes(b"x")
    problems = Problems()
    assert problems.refused(landed(tmp_path, "a.mrc"), "no tilt")
    assert not problems.refused(landed(tmp_path, "a.mrc"), "no tilt")
    problems.solved("a.mrc")
    assert problems.open() == []
