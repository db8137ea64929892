"""`python -m engines.learning.reference`: from a data set on disk to known tilts in a bundle."""

from pathlib import Path

import pytest

from engines.bundle import Bundle
from engines.learning.reference import main
from engines.reference import REFERENCE, known_tilts
from tests import tiny_bundle
from tests.made_shards import made_tilt, write_shard


def test_series_with_and_without_ice_are_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for number, percent in enumerate((0.0, 1.0, 4.0, 9.0, 30.0)):
        write_shard(data, number, "generic", made_tilt(percent, -3.0), made_tilt(percent, 0.0))
    bundle = tiny_bundle.write(tmp_path / "bundle")
    main(["--bundle", str(bundle), "--data", str(data)])
    loaded = Bundle.load(bundle)
    assert REFERENCE in loaded.manifest.files
    tilts = known_tilts(loaded)
    assert [one.series for one in tilts] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [one.angle_deg for one in tilts[:2]] == [-3.0, 0.0]
    assert "8 tilts" in " ".join(capsys.readouterr().out.split())


def test_a_data_set_without_series_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle.write(tmp_path / "bundle")
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match="holds no series of 2 tilts"):
        main(["--bundle", str(bundle), "--data", str(tmp_path / "data")])
