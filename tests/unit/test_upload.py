import zipfile
from pathlib import Path

import pytest

from threephase_ray.errors import ConfigError
from threephase_ray.submitting import upload


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with code, data that is ignored, and what is hidden."""
    top = tmp_path / "project"
    for name in (
        "jobs/train.py",
        "library/module.py",
        "library/data/inner.txt",
        "library/.gitignore",
        "store/big.bin",
        "texts/a.csv",
        "notes.log",
        "keep.log",
        ".env",
        ".git/config",
        "deep/store/x.py",
    ):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (top / ".gitignore").write_text("# not code\n/store/\n*.log\n!keep.log\n")
    (top / ".rayignore").write_text("texts\n")
    (top / "library" / ".gitignore").write_text("/data\n")
    return top


def test_what_is_ignored_or_hidden_stays_here(project: Path) -> None:
    assert sorted(upload.files(project)) == ["deep/store/x.py", "jobs/train.py", "keep.log", "library/module.py"]


def test_links_that_lead_nowhere_are_no_files(project: Path) -> None:
    (project / "jobs" / "link.py").symlink_to(project / "gone.py")
    assert "jobs/link.py" not in upload.files(project)


def test_the_projects_own_upload_is_its_code(root: Path) -> None:
    found = upload.files(root)
    assert {"jobs/train.py", "threephase_ray/reports/templates/base.html", "jobs/configs/demo.yaml"} <= set(found)
    assert not [name for name in found if name.endswith(".pyc") or name.startswith((".", "store/"))]
    upload.refuse_if_large(found)


def test_the_archive_holds_code_and_configuration(project: Path, tmp_path: Path) -> None:
    found = upload.files(project)
    archive = upload.pack(found, "name: x\n", tmp_path / "job.zip")
    with zipfile.ZipFile(archive) as packed:
        assert sorted(packed.namelist()) == sorted([*found, upload.CONFIG])
        assert packed.read("jobs/train.py") == b"jobs/train.py"
        assert packed.read(upload.CONFIG) == b"name: x\n"


def test_the_same_content_is_the_same_upload(project: Path, tmp_path: Path) -> None:
    first = upload.pack(upload.files(project), "name: x\n", tmp_path / "a.zip").read_bytes()
    (project / "jobs" / "train.py").touch()
    assert upload.pack(upload.files(project), "name: x\n", tmp_path / "b.zip").read_bytes() == first
    assert upload.pack(upload.files(project), "name: y\n", tmp_path / "c.zip").read_bytes() != first


def test_too_much_is_refused_with_the_largest_files(project: Path) -> None:
    for name, size in (("library/weights.bin", 70 * 2**20), ("library/more.bin", 31 * 2**20)):
        with (project / name).open("wb") as file:
            file.truncate(size)  # takes no room on the disk
    with pytest.raises(ConfigError, match=r"105\.9 MB would be uploaded, Ray takes 104\.9 MB: library/weights\.bin 73\.4 MB, library/more"):
        upload.refuse_if_large(upload.files(project))
    (project / ".rayignore").write_text("texts\nlibrary/more.bin\n")
    upload.refuse_if_large(upload.files(project))
