"""Sums of an exported model's files."""

import subprocess
from pathlib import Path

import pytest

from threephase_ray import sums
from threephase_ray.errors import JobError


def test_sha256sum_checks_them_and_finds_what_changed(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "weights").write_bytes(b"\x00\x01")
    (tmp_path / "ä card.md").write_text("text", encoding="utf-8")
    sums.seal(tmp_path)
    sums.seal(tmp_path)  # its own file is none of them
    check = ["sha256sum", "--strict", "--quiet", "-c", sums.NAME]
    subprocess.run(check, cwd=tmp_path, check=True)
    assert len((tmp_path / sums.NAME).read_text().splitlines()) == 2
    (tmp_path / "part" / "weights").write_bytes(b"\x00\x02")
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 1


def test_a_folder_that_changed_is_refused_and_one_without_sums_is_not(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    for name in ("one", "part/two", "three"):
        (tmp_path / name).write_text(name)
    sums.verify(tmp_path)
    sums.seal(tmp_path)
    sums.verify(tmp_path)
    (tmp_path / "part" / "two").write_text("other")
    (tmp_path / "three").unlink()
    (tmp_path / "four").touch()
    with pytest.raises(JobError, match="does not fit its SHA256SUMS: four, part/two, three"):
        sums.verify(tmp_path)
