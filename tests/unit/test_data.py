import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from tests.unit import tiny
from threephase_ray import config, data
from threephase_ray.errors import DataError, ResourceError

ATIS = Path(__file__).parents[2] / "../shared/data/atis"


@pytest.fixture
def source(tmp_path: Path) -> str:
    for split, each in {"train": 20, "validation": 4, "test": 5}.items():
        tiny.write_csv(tmp_path / f"in/{split}.csv", tiny.rows(3, each))
    return str(tmp_path / "in")


def test_what_the_folder_holds(tmp_path: Path, source: str) -> None:
    folder = tiny.prepare(tmp_path / "store", source=source)
    facts = data.describe(folder)
    assert folder.parent.parent == tmp_path / "store/data"
    assert facts["label_columns"] == ["label"]
    assert facts["label_names"] == [["class 0", "class 1", "class 2"]]
    assert facts["num_classes"] == 3
    assert {split: found["rows"] for split, found in facts["splits"].items()} == {"train": 60, "validation": 12, "test": 15}
    assert facts["splits"]["train"]["class_counts"] == [20, 20, 20]
    assert facts["splits"]["test"]["shards"] == ["test-00000.arrow"]
    assert set(facts["checks"]) == set(config.Checks.model_fields)
    assert sorted(path.name for path in folder.iterdir()) == [
        "dataset.json", "test-00000.arrow", "tokenizer", "train-00000.arrow", "validation-00000.arrow",
    ]  # fmt: skip
    again = AutoTokenizer.from_pretrained(folder / "tokenizer")
    assert again("text 3 of 1")["input_ids"] == tiny.tokenizer()("text 3 of 1")["input_ids"]


def test_shards_hold_one_batch_of_plain_columns(tmp_path: Path, source: str) -> None:
    folder = tiny.prepare(tmp_path / "store", source=source, shard_rows=25)
    shards = data.describe(folder)["splits"]["train"]["shards"]
    assert shards == ["train-00000.arrow", "train-00001.arrow", "train-00002.arrow"]
    sizes = []
    for shard in shards:
        with pa.memory_map(str(folder / shard)) as file:
            before = pa.total_allocated_bytes()
            reader = pa.ipc.open_file(file)
            assert reader.num_record_batches == 1
            batch = reader.get_batch(0)
            assert pa.total_allocated_bytes() == before  # mapped, not copied
            sizes.append(batch.num_rows)
    assert sizes == [25, 25, 10]
    types = [pa.int64(), pa.list_(pa.int32()), pa.list_(pa.uint8()), pa.list_(pa.int32(), 1)]
    assert dict(zip(batch.schema.names, batch.schema.types, strict=True)) == dict(
        zip(["row", "tokens", "words", "labels"], types, strict=True)
    )
    assert [row["row"] for row in tiny.read(folder, "train")] == list(range(60))


def test_shard_size_and_batches_of_the_tokenizer_do_not_change_the_rows(tmp_path: Path) -> None:
    rows = [(f"word {i} {'red ' * (i % 5)}", str(i % 7)) for i in range(700)]
    tiny.write_csv(tmp_path / "a.csv", rows)
    folders = [tiny.prepare(tmp_path / "store", source=str(tmp_path / "a.csv"), shard_rows=size) for size in (1000, 256, 99)]
    first, *others = [[tiny.read(folder, split) for split in ("train", "validation", "test")] for folder in folders]
    assert all(other == first for other in others)


def test_tokens_words_and_labels_of_a_row(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "train.csv", [("Playing, red ink", "b"), ("blue", "a"), ("green", "a")])
    tiny.write_csv(tmp_path / "test.csv", [("sky", "0 new"), ("leaf", "b")])
    tiny.write_csv(tmp_path / "dev.csv", [("sky is", "a")])
    folder = tiny.prepare(tmp_path / "store", source=str(tmp_path))
    row, encoded = tiny.read(folder, "train")[0], tiny.tokenizer()("Playing, red ink")
    assert row["tokens"] == encoded["input_ids"]
    assert row["words"] == [2, 1, 0, 1, 1, 1, 2]
    facts = data.describe(folder)
    assert facts["label_names"] == [["a", "b", "0 new"]]  # names that training lacks come last
    assert facts["num_classes"] == 2
    assert facts["splits"]["test"]["class_counts"] == [0, 1, 1]
    assert [row["labels"] for row in tiny.read(folder, "test")] == [[2], [1]]


def test_labels_of_several_levels_and_texts_without(tmp_path: Path) -> None:
    rows = [("red", "warm", "r"), ("green", "cold", "g"), ("blue", "cold", "b"), ("ink", "cold", ""), ("sky", "", "b")]
    for split in ("train", "validation", "test"):
        tiny.write_csv(tmp_path / f"{split}.csv", rows, ["text", "family", "label"])
    tiny.write_csv(tmp_path / "unlabelled.csv", [("leaf",)], ["text"])
    folder = tiny.prepare(tmp_path / "store", source=str(tmp_path), label_columns=("family", "label"))
    facts = data.describe(folder)
    assert facts["label_names"] == [["cold", "warm"], ["b", "g", "r"]]
    assert [row["labels"] for row in tiny.read(folder, "train")] == [[1, 2], [0, 1], [0, 0]]
    assert [row["labels"] for row in tiny.read(folder, "unlabelled")] == [[-1, -1]]
    assert facts["splits"]["unlabelled"]["class_counts"] == [0, 0, 0]
    assert facts["checks"]["missing_label"]["count"] == 6


def test_the_length_is_the_longest_of_a_sample_times_1_2(tmp_path: Path, source: str) -> None:
    rows = tiny.rows() + [("red " * 28, "class 0")] * 20
    tiny.write_csv(tmp_path / "a.csv", rows)
    facts = data.describe(
        tiny.prepare(tmp_path / "store", train=str(tmp_path / "a.csv"), validation=source + "/test.csv", test=source + "/test.csv")
    )
    assert facts["max_length"] == 36  # 28 words and two special tokens
    short = data.describe(tiny.prepare(tmp_path / "store", train=str(tmp_path / "a.csv"), max_length=16))
    assert short["max_length"] == 16
    assert short["splits"]["train"]["lengths"]["max"] == 16
    assert sum(short["truncated"][split] * found["rows"] for split, found in short["splits"].items()) == pytest.approx(20)


def test_a_model_caps_the_length_and_the_last_token_stays(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "a.csv", [*tiny.rows(), *[(f"{i} " + "red " * 200, "class 1") for i in range(5)]])
    folder = tiny.prepare(tmp_path / "store", source=str(tmp_path / "a.csv"))
    assert data.describe(folder)["max_length"] == 64
    end = tiny.tokenizer().sep_token_id
    assert all(row["tokens"][-1] == end for split in ("train", "validation", "test") for row in tiny.read(folder, split))


def test_figures_of_a_split_agree_with_its_rows(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "a.csv", [("red " * (i % 30 + 1), str(i % 3)) for i in range(300)])
    folder = tiny.prepare(tmp_path / "store", source=str(tmp_path / "a.csv"))
    for split, found in data.describe(folder)["splits"].items():
        rows = tiny.read(folder, split)
        lengths = sorted(len(row["tokens"]) for row in rows)
        assert found["tokens"] == sum(lengths)
        assert found["lengths"] == {
            "mean": round(sum(lengths) / len(rows), 2), "median": lengths[(len(rows) - 1) // 2],
            "p95": lengths[-(-len(rows) * 95 // 100) - 1], "max": lengths[-1],
        }  # fmt: skip
        assert found["class_counts"] == [count for _, count in sorted(Counter(row["labels"][0] for row in rows).items())]


def test_a_second_call_does_nothing_and_needs_no_write_access(tmp_path: Path, source: str) -> None:
    folder = tiny.prepare(tmp_path / "store", source=source)
    before = {path: path.stat().st_mtime_ns for path in [folder.parent, *folder.rglob("*")]}
    used = tiny.tokenizer()
    used(["a", "b c"], padding=True, truncation=True, max_length=5)  # leaves traces in the tokenizer, which do not count
    assert data.prepare(config.Data(source=source), used, 64, tiny.opened(tmp_path / "store"), 7) == folder  # nothing drawn: no seed
    assert {path: path.stat().st_mtime_ns for path in [folder.parent, *folder.rglob("*")]} == before


def test_the_key_follows_what_matters(tmp_path: Path, source: str) -> None:
    def key(seed: int = 0, limit: int = 64, **knobs: object) -> str:
        asked = config.Data.model_validate({"source": source} | knobs)
        return data.plan(asked, tiny.tokenizer(), limit, seed).name

    (Path(source).parent / "link").symlink_to(source)
    assert key() == key(source=source + "/../link") == key(seed=1)
    changed = [key(limit=32), key(shard_rows=9), key(rows={"train": 9}), key(rows={"train": 9}, seed=1), key(source=source + "/train.csv")]
    tiny.write_csv(Path(source) / "test.csv", tiny.rows(3, 6))
    changed.append(key())
    assert len({*changed}) == len(changed)


def test_an_exception_midway_leaves_nothing_and_the_next_call_succeeds(tmp_path: Path, source: str) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "tokenising test":
            assert done == total == 15
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            data.prepare(config.Data(source=source), tiny.tokenizer(), 64, tiny.opened(tmp_path / "store"), 0, stop)
        assert tiny.left(tmp_path / "store") == []
        assert not list((tmp_path / "store").glob("data/*"))
    assert data.describe(tiny.prepare(tmp_path / "store", source=source))["splits"]["test"]["rows"] == 15


SCRIPT = """
import sys, time, resource
from pathlib import Path
from tests.unit import tiny
from threephase_ray import config, data
def watch(stage, done, total):
    if len(sys.argv) > 3:
        Path(sys.argv[3]).touch()
        time.sleep(60)
print(data.prepare(config.Data(source=sys.argv[1], shard_rows=10_000), tiny.tokenizer(), 64, tiny.opened(Path(sys.argv[2])), 0, watch))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def start(*arguments: Path | str) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, *sys.path]), "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_killed_process_leaves_no_data_set_and_the_next_one_cleans_up(tmp_path: Path, source: str) -> None:
    process = start(source, tmp_path / "store", tmp_path / "reached")
    while not (tmp_path / "reached").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert tiny.left(tmp_path / "store") != []
    folder = tiny.prepare(tmp_path / "store", source=source, shard_rows=10_000)
    assert tiny.left(tmp_path / "store") == []
    assert sorted(path.name for path in folder.parent.iterdir()) == ["attempt-2", "manifest.json"]


def test_memory_does_not_grow_with_the_rows_and_two_processes_agree(tmp_path: Path) -> None:
    for name, count in {"small": 4_000, "large": 40_000}.items():
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            file.writelines(json.dumps({"text": f"{i} red", "label": i % 5}) + "\n" for i in range(count))
    runs = [start(tmp_path / f"{name}.jsonl", tmp_path / "store") for name in ("small", "large", "small")]
    (folder, small), (_, large), (again, _) = (run.communicate()[0].split()[-2:] for run in runs)
    assert folder == again
    assert int(large) < int(small) + 9  # MB; 36,000 rows as Python objects take some 16


def test_a_store_that_cannot_be_written_is_a_matter_of_resources(tmp_path: Path, source: str) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(ResourceError, match="cannot be read or written"):
        tiny.prepare(tmp_path / "store", source=source)


def test_describe_needs_a_finished_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"jobs/prepare\.py"):
        data.describe(tmp_path)


def test_importing_the_data_side_starts_no_framework() -> None:
    code = "import sys, threephase_ray.data; print(*{'torch', 'ray', 'deepspeed', 'datasets', 'transformers'} & sys.modules.keys())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ""


@pytest.mark.skipif(not ATIS.exists(), reason=f"needs the ATIS data set in {ATIS}")
def test_an_extremely_imbalanced_data_set(tmp_path: Path) -> None:
    facts = data.describe(tiny.prepare(tmp_path / "store", source=str(ATIS)))
    assert facts["num_classes"] == 21
    assert [facts["splits"][split]["rows"] for split in ("train", "validation", "test")] == [4478, 500, 893]
    assert max(facts["splits"]["train"]["class_counts"]) == 3309
    assert facts["checks"]["single_row_class"]["count"] == 3
    unseen = facts["checks"]["unseen_label"]["splits"]
    assert sum(facts["splits"]["test"]["class_counts"][21:]) == unseen["test"]
