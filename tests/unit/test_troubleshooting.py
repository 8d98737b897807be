"""The page of error messages holds to the code: what it quotes is in the source, and many of the errors are provoked here for real."""

import errno
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.exceptions import OutOfMemoryError
from transformers import BertConfig

from tests.conftest import ROOT
from tests.unit import quoted, tiny
from threephase_ray import command, pipeline, sums
from threephase_ray.errors import ConfigError, DataError, JobError, ResourceError
from threephase_ray.folder import StoreError, explain
from threephase_ray.lock import Lock, LockLost
from threephase_ray.predictions import fetching
from threephase_ray.reports import asking as reporting
from threephase_ray.results import Store
from threephase_ray.storage import connect
from threephase_ray.submitting import asking
from threephase_ray.training import agreement, fit, loop, signals
from threephase_ray.training.agreement import Node
from threephase_ray.training.cluster import cluster
from threephase_ray.training.nodes import Report

KINDS = (ConfigError, DataError, ResourceError, StoreError, JobError, fit.TrainingError, loop.Diverged, LockLost)
TEXTS = [text for path in (ROOT / "threephase_ray").rglob("*.py") for text in quoted.texts(path)]
QUOTES = quoted.quotes()
SOUND = Report({"torch": "2.13.0"}, "/shared/store", "", True, "/shared/store", 10**9, 0, "")
GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny.rows())


def test_there_are_quotes_for_each_code() -> None:
    assert len(QUOTES) >= 60
    assert {code for quote in QUOTES for code in quote.codes} == {1, 2, 3, 4, 130, 143}
    assert len({quote.lines for quote in QUOTES}) == len(QUOTES)


@pytest.mark.parametrize("quote", QUOTES, ids=lambda quote: quote.lines[0][:60])
def test_quotes_are_in_the_source(quote: quoted.Quote) -> None:
    assert [*quote.parts()]
    assert not [part for part in quote.parts() if not any(part in text for text in TEXTS)]


def test_a_changed_message_is_noticed() -> None:
    assert [*quoted.Quote((2,), ("ConfigError: encoder.path: no usable encoder at '<path>'",)).parts()][-1] == "no usable encoder at"
    assert not any("no usable encoder at" in text for text in TEXTS)
    assert any("no usable model at" in text for text in TEXTS)


@pytest.mark.parametrize("quote", [quote for quote in QUOTES if quote.kind], ids=lambda quote: quote.lines[0][:60])
def test_classes_have_the_code_of_their_section(quote: quoted.Quote) -> None:
    codes = {kind.__name__: (kind.code,) for kind in KINDS}
    codes["Stopped"] = tuple(signals.Stopped("", number).code for number in (signal.SIGINT, signal.SIGTERM))
    assert codes[quote.kind] == quote.codes


@dataclass(frozen=True)
class Place:
    """Where errors are provoked."""

    folder: Path
    patch: pytest.MonkeyPatch

    def write(self, name: str, content: str) -> str:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return str(path)

    def store(self) -> Store:
        """The store."""
        return tiny.opened(self.folder / "store")

    def train(self, *flags: str, texts: str = GOOD, **encoder: Any) -> int:
        """What `jobs/train.py --dry-run` gives over some texts, with a small BERT or what `encoder` says of it."""
        tokenizer = tiny.tokenizer()
        tokenizer.save_pretrained(self.folder / "encoder")
        BertConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1).save_pretrained(self.folder / "encoder")
        facts = json.loads((self.folder / "encoder" / "config.json").read_text()) | encoder
        self.write("encoder/config.json", json.dumps({name: fact for name, fact in facts.items() if fact is not None}))
        least = {"name": "a", "store": self.folder / "store", "encoder.path": self.folder / "encoder", "data.train": self.folder / "t.csv"}
        self.write("t.csv", texts)
        return command.job(lambda config, _: pipeline.train(config, dry_run=True), "", [*(f"--{k}={v}" for k, v in least.items()), *flags])


def raises(function: Callable[..., object], *arguments: Any) -> int:
    """What a job does with what the function raises."""
    return command.ended(lambda: int(function(*arguments) is not None))


def tell(error: BaseException) -> int:
    """What a job does with an error."""

    def work() -> int:
        raise error

    return command.ended(work)


def nodes(*changed: Node) -> int:
    """What the preflight says of nodes."""
    return raises(lambda: agreement.refuse(agreement.problems(SOUND, changed, 10**8, True)))


def node(**facts: Any) -> Node:
    """A node that differs from the driver's."""
    outer = {name: facts.pop(name) for name in ("skew", "gpus", "arrived") if name in facts}
    return Node("10.0.0.2", replace(SOUND, **facts), **({"arrived": True} | outer))


def busy(place: Place) -> int:
    """Two jobs of one name."""
    place.patch.setattr(pipeline, "PATIENCE", 0.0)
    with Lock(place.store().storage, "runs/a") as lock:
        assert lock.try_acquire()
        return raises(pipeline.alone(place.store(), "runs/a").__enter__)


def taken_over(place: Place) -> int:
    """A lock that is taken by force."""
    with Lock(place.store().storage, "runs/a") as lock:
        assert lock.try_acquire()
        place.write("store/locks/runs/a/00000007.json", "{}")
        return raises(lock.check)


def no_cluster(place: Place) -> int:
    """A cluster that is gone."""
    place.patch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    return raises(cluster().__enter__)


def changed_model(place: Place) -> int:
    """An exported model that is edited."""
    place.write("model/config.json", "{}")
    sums.seal(place.folder / "model")
    place.write("model/config.json", "{ }")
    return raises(sums.verify, place.folder / "model")


def submitted(place: Place, *flags: str) -> int:
    """What `submit.py` says."""
    place.patch.delenv("RAY_ADDRESS", raising=False)
    place.write("project/jobs/train.py", "")
    place.patch.chdir(place.folder / "project")
    least = ["--name", "a", "--encoder.path", "org/e", "--data.train", "s3://b/t.csv", "--store", "/shared"]
    return asking.main(place.folder / "project", [*least, *flags])


def worker(place: Place, **failures: BaseException) -> int:
    """A group whose workers failed."""
    group = Exception("the group failed")
    group.worker_failures = failures  # type: ignore[attr-defined]
    return tell(fit.explained(group, place.store(), "runs/a")[0])


CASES: dict[str, Callable[[Place], int]] = {
    "<knob>: no such knob": lambda place: place.train("--dae.noise_ration", "0.3"),
    "<knob>: is required": lambda _: command.job(lambda *_: None, "", ["--store", "s"]),
    "data: needs `source`": lambda _: command.job(lambda *_: None, "", ["--name", "a", "--encoder.path", "e", "--data.words", "[1, 2]"]),
    "write it in quotes": lambda place: command.job(lambda *_: None, "", ["--config", place.write("a.yaml", "store: 2024-01-01\n")]),
    "<file>: line <number>, column": lambda place: command.job(lambda *_: None, "", ["--config", place.write("a.yaml", "a: b: c\n")]),
    "<word>: belongs to no flag": lambda place: place.train("--phases", "dae", "finetune"),
    "<knob>: does not belong": lambda place: place.train(
        "--contrastive.loss.name", "cosine_regression", "--contrastive.loss.temperature", "1"
    ),
    "no usable model at": lambda place: place.train("--encoder.path", str(place.folder / "none")),
    "is a <family> model": lambda place: place.train(model_type="t5"),
    "has no <file>; other formats": lambda place: place.train(),
    "dae.decoder: the <family>": lambda place: place.train("--dae.decoder", "tied", model_type="mpnet"),
    "credentials do not belong": lambda _: raises(connect, "s3://key:secret@bucket/store"),
    "there is no <run> in <store>": lambda place: reporting.main(["--store", str(place.folder), "--run", "b"]),
    "where to?": submitted,
    "would lie in the job's own": lambda place: submitted(place, "--store", "store", "--to", "kube"),
    "lies here and is not uploaded": lambda place: submitted(place, "--data.train", "../project", "--to", "kube"),
    "looks like <kind>": lambda place: submitted(place, "--data.train", "s3://b/t.csv?token=abc", "--to", "kube"),
    "does not exist; set it": lambda place: place.train("--data.test", "none.csv"),
    "leads to no file ending": lambda place: place.train("--data.test", place.write("t.txt", "")),
    "no file named after a split": lambda place: place.train("--data.source", str(place.folder), "--data.train", "null"),
    "has no column": lambda place: place.train(texts="texts,label\na,b\n"),
    "has <number> fields where": lambda place: place.train(texts=GOOD + "a, b,class 1\n"),
    "cannot be read as <kind>": lambda place: place.train("--data.test", place.write("t.parquet", "no table")),
    "the label is a <type>": lambda place: place.train("--data.test", place.write("t.jsonl", '{"text": "a", "label": ["b"]}\n')),
    "checks that are set to `error`": lambda place: place.train("--data.checks.duplicate", "error", texts=GOOD + GOOD.partition("\n")[2]),
    "no row left: checks found": lambda place: place.train(texts="text,label\na,\nb,\n"),
    "too few distinct texts": lambda place: place.train(texts="text,label\na,b\nc,d\n"),
    "one class only": lambda place: place.train(
        "--data.validation", place.write("v.csv", GOOD), "--data.test", place.write("w.csv", GOOD), texts="text,label\na,b\nc,b\n"
    ),
    "problems, and nothing was started": lambda _: nodes(node(free=1), node(versions={})),
    "no Ray cluster answers": no_cluster,
    "is not the driver's there": lambda _: nodes(node(sees_driver=False), node(free=1)),
    "versions: <package>": lambda _: nodes(node(versions={"torch": "2.10"}), node(free=1)),
    "GPU: Ray counts": lambda _: nodes(node(gpus=1, blindness="the driver is too old"), node(free=1)),
    "disk: <folder> has": lambda _: nodes(node(free=1), node(versions={})),
    "clock: <seconds>": lambda _: nodes(node(skew=9.0), node(free=1)),
    "no answer within": lambda _: nodes(Node("10.0.0.3", None, "no answer within 5 s"), node(free=1)),
    "a node ran short of memory": lambda place: worker(place, a=OutOfMemoryError("1 worker(s) were killed\nmore")),
    "the disk is full": lambda place: tell(StoreError(explain(OSError(errno.ENOSPC, "No space left on device"), "/shared/x"))),
    "store: no permission for <path>": lambda place: tell(StoreError(explain(PermissionError(errno.EACCES, "denied"), "/shared/x"))),
    "store: <path> cannot be read or written": lambda place: raises(connect(place.write("file", "") + "/store").write, "a", b""),
    "is being worked on by": busy,
    "cannot be reached: <reason>": lambda place: submitted(place, "--address", "http://127.0.0.1:1"),
    "TrainingError: out of memory": lambda place: worker(place, a=torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
    "TrainingError: <class>": lambda place: worker(place, a=RuntimeError("Connection closed by peer [10.0.0.3]")),
    "<figure> is <value> in the validation": lambda _: raises(
        loop.refuse_nonsense, "dae", {"loss": float("nan")}, "in the validation after step 5 of 9"
    ),
    "another run took over": taken_over,
    "has no folder <part>": lambda place: raises(fetching.fetched, str(place.folder), str(place.folder / "scratch")),
    "does not fit its <sums>": changed_model,
}


@pytest.mark.parametrize("which", CASES)
def test_errors_are_printed_as_the_page_says(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (quote,) = (quote for quote in QUOTES if which in "\n".join(quote.lines))
    code = CASES[which](Place(tmp_path, monkeypatch))
    printed = capsys.readouterr().err
    assert quote.says(printed), f"{printed}\nis not what the page has:\n" + "\n".join(quote.lines)
    assert (code,) == quote.codes
    assert len(printed.splitlines()) <= 15


def test_a_checkpoint_with_an_odd_configuration_is_no_usable_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Place(tmp_path, monkeypatch).train(hidden_size="large") == 2
    (quote,) = (quote for quote in QUOTES if "no usable model at" in quote.lines[0])
    assert quote.says(capsys.readouterr().err)
