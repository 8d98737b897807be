"""Wrong configurations: each names what, where and what to do, in 15 lines at most, with exit code 2; nothing is run."""

from pathlib import Path

import pytest

from threephase_ray import command

GOOD = "name: a\ndata: {train: a.csv}\nencoder: {path: e}\n"
TWELVE = "".join(f"odd_{i}: {i}\n" for i in range(20))

# what is wrong: (content of the file, flags after it, fragments of the message, fragments that must not be there)
BAD: dict[str, tuple[str | bytes, list[str], list[str], list[str]]] = {
    "unknown knob": (GOOD + "dae: {noise_ration: 0.5}\n", [], ["dae.noise_ration: no such knob", "did you mean dae.noise_ratio?"], []),
    "unknown section": (GOOD + "finetuning: {epochs: 2}\n", [], ["finetuning: no such knob", "did you mean finetune?"], []),
    "knob in the wrong section": (GOOD + "contrastive: {temperature: 1}\n", [], ["did you mean contrastive.loss.temperature?"], []),
    "nothing like it": (GOOD + "zzz: 1\n", [], ["zzz: no such knob"], ["did you mean"]),
    "unknown flag": (GOOD, ["--dae.noise_ration", "0.5"], ["--dae.noise_ration: no such knob", "did you mean dae.noise_ratio?"], []),
    "abbreviated flag": (GOOD, ["--see", "1"], ["--see: no such knob", "did you mean seed?"], []),
    "stray word": (GOOD, ["--phases", "dae", "finetune"], ["finetune: belongs to no flag", "lists are written a,b"], []),
    "one dash": (GOOD, ["-seed", "1"], ["-seed: belongs to no flag"], []),
    "wrong type": (GOOD + "seed: many\n", [], ["seed: ", "valid integer", "given: 'many'"], []),
    "wrong type as flag": (GOOD, ["--seed", "1.5"], ["seed: ", "valid integer", "given: '1.5'"], []),
    "number for text": (GOOD + "store: 010\n", [], ["store: ", "given: 10", "write it in quotes"], []),
    "date for text": (GOOD + "store: 2024-01-01\n", [], ["store: ", "2024, 1, 1", "write it in quotes"], []),
    "text for list": (GOOD + "phases: dae\n", [], ["phases: needs a list", "given: 'dae'"], []),
    "empty list": (GOOD + "phases: []\n", [], ["phases: needs an item"], []),
    "broken list as flag": (GOOD, ["--phases", "[dae"], ["phases"], ["Traceback"]),
    "value for section": (GOOD + "dae: 3\n", [], ["dae: is a section"], []),
    "value for section as flag": (GOOD, ["--data", "a.csv"], ["--data: is a section"], []),
    "out of range": (GOOD + "dae: {noise_ratio: 1.5}\n", [], ["dae.noise_ratio: ", "less than 1", "given: 1.5"], []),
    "negative flag": (GOOD, ["--dae.learning_rate", "-2e-5"], ["dae.learning_rate: ", "greater than 0", "given: '-2e-5'"], []),
    "not a number": (GOOD + "dae: {epochs: .nan}\n", [], ["dae.epochs: ", "given: nan"], []),
    "value that is no choice": (GOOD, ["--dae.noise", "typos"], ["dae.noise: ", "'word_deletion'", "given: 'typos'"], []),
    "stage that does not exist": (GOOD, ["--compute.zero_stage", "4"], ["compute.zero_stage: ", "given: 4"], []),
    "knob of another choice": (
        GOOD + "contrastive: {loss: {name: cosine_regression, temperature: 1}}\n",
        [],
        ["contrastive.loss.temperature: does not belong to the chosen contrastive.loss.name"],
        ["contrastive.loss.cosine_regression"],
    ),
    "choice that does not exist": (
        GOOD + "contrastive: {loss: {name: triplet}}\n",
        [],
        ["contrastive.loss.name: must be supervised_contrastive or cosine_regression", "given: triplet"],
        [],
    ),
    "missing": ("seed: 1\n", [], ["name: is required", "data: is required", "encoder: is required"], []),
    "missing in a section": ("name: a\ndata: {train: a.csv}\nencoder: {pooling: cls}\n", [], ["encoder.path: is required"], ["name:"]),
    "no texts": ("name: a\ndata: {text_column: t}\nencoder: {path: e}\n", [], ["data: needs `source` or `train`"], []),
    "empty file": ("", [], ["name: is required"], []),
    "bad name": (GOOD, ["--name", "My Run"], ["name: does not fit", "small letters, digits and dashes", "given: 'My Run'"], []),
    "phase twice": (GOOD + "phases: [dae, dae, finetune]\n", [], ["phases: dae, dae, finetune names a phase twice"], []),
    "finetune not last": (GOOD + "phases: [finetune, dae]\n", [], ["finetune must be the last"], []),
    "phase that does not exist": (GOOD + "phases: [dae, distil]\n", [], ["phases.1: ", "given: 'distil'"], []),
    "YAML syntax": ("name: a\ndata: [a\n", [], ["bad.yaml: line 3, column 1: ", "expected ',' or ']'"], ["is required", "unicode string"]),
    "tabulator": ("name: a\ndata:\n\ttrain: a.csv\n", [], ["bad.yaml: line 3, column 1: ", "'\\t'"], ["is required"]),
    "key twice": (GOOD + "name: b\n", [], ["bad.yaml: line 4, column 1: ", 'duplicate key "name"'], ["suppress"]),
    "a list": ("- name: a\n", [], ["bad.yaml: must hold `knob: value` lines", "list"], ["is required"]),
    "a word": ("name\n", [], ["bad.yaml: must hold `knob: value` lines", "str"], []),
    "two documents": ("name: a\n---\nname: b\n", [], ["bad.yaml: line 2, column 1: ", "another document"], []),
    "number as knob": ("1: a\n", [], ["bad.yaml: 1 is not the name of a knob"], []),
    "unknown alias": ("name: *a\n", [], ["bad.yaml: line 1, column 7: ", "undefined alias"], []),
    "malicious tag": ("name: !!python/object/apply:os.system ['touch hacked']\n", [], ["bad.yaml: line 1, column 7: ", "os.system"], []),
    "latin-1": ("name: café\n".encode("latin-1"), [], ["bad.yaml: is not UTF-8", "0xe9", "save it as UTF-8"], []),
    "UTF-16": ("name: a\n".encode("utf-16"), [], ["bad.yaml: is not UTF-8"], []),
    "control characters": ("name: \0\n", [], ["bad.yaml: unacceptable character"], []),
    "no such file": (GOOD, ["--config", "missing.yaml"], ["missing.yaml: No such file or directory"], ["is required"]),
    "a folder": (GOOD, ["--config", "."], [".: Is a directory"], []),
    "--config without a value": (GOOD, ["--config"], ["--config needs the path of a YAML file after it"], []),
    "--config before a flag": (GOOD, ["--config", "--seed", "1"], ["--config needs the path of a YAML file after it"], []),
    "flag without a value": (GOOD, ["--seed"], ["--seed: needs a value after it"], []),
    "flag before a flag": (GOOD, ["--seed", "--store", "s"], ["--seed: needs a value after it"], ["--store"]),
    "several at once": (
        GOOD + "dae: {noise_ratio: 2, nose: 1}\nfinetune: {epochs: -1}\n",
        ["--config", "missing.yaml", "--contrastive.bach", "8", "--seed"],
        [
            "missing.yaml: ",
            "dae.noise_ratio: ",
            "dae.nose: ",
            "finetune.epochs: ",
            "--contrastive.bach: ",
            "contrastive.batch?",
            "--seed: needs",
        ],
        [],
    ),
    "very many at once": (GOOD + TWELVE, [], ["odd_0: no such knob", "odd_11: no such knob", "... and 8 more"], ["odd_12"]),
    "very long value": (GOOD + f"seed: {'9x' * 5000}\n", [], ["seed: ", "given: '9x9x"], ["9x" * 100]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_configuration(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    content, flags, fragments, absent = BAD[case]
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    calls: list[object] = []
    code = command.job(lambda *call: calls.append(call), "", ["--config", "bad.yaml", *flags])
    out, err = capsys.readouterr()
    assert (code, calls, out) == (2, [], "")
    assert not [fragment for fragment in fragments if fragment not in err], err
    assert not [fragment for fragment in absent if fragment in err], err
    assert len(err.splitlines()) <= 15
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_good_configuration_of_the_table_is_good(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    assert command.read([str(tmp_path / "good.yaml")]).name == "a"


def test_no_arguments_are_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[object] = []
    assert command.job(lambda *call: calls.append(call), "", []) == 2
    assert calls == []
    assert "name: is required" in capsys.readouterr().err
