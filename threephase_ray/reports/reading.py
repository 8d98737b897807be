"""What a report reads from the store; a file that is not there is None, and the page does without."""

import io
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ruamel.yaml import YAML
from tokenizers import Tokenizer

from threephase_ray.errors import ConfigError
from threephase_ray.results import Store

LOOKED_AT = 200_000  # rows of a split among which texts are looked for


def names(store: Store, kind: str) -> list[str]:
    """The runs, sweeps or studies of a store."""
    return sorted({path.split("/")[1] for path in store.storage.sizes(kind) if path.count("/") > 1})


def check(store: Store, kind: str, name: str) -> None:
    """Refuse what has no results.

    Raises:
        ConfigError: names the nearest one that has, or says what to wait for.
    """
    if store.storage.sizes(f"{kind}/{name}/results.json"):
        return
    known = names(store, kind)
    if name in known:
        raise ConfigError(f"{kind}/{name}: has no results.json yet: it is under way or broke off\n  run its command again to finish it")
    near = get_close_matches(name, known, 1, 0.4)
    hint = f"did you mean {near[0]}?" if near else f"there {'are' if known else 'are none; known'} {kind}: {', '.join(known[:12])}"
    if not known:
        hint = f"there are no {kind} in it"
    raise ConfigError(f"there is no {kind}/{name} in {store.storage.uri}\n  {hint}")


def content(store: Store, name: str) -> bytes | None:
    """A file's bytes."""
    try:
        return store.storage.read(name)
    except FileNotFoundError:
        return None


def from_json(store: Store, name: str) -> Any:
    """The content of a JSON file."""
    return store.read_json(name) if store.storage.sizes(name) else None


def yaml(text: bytes | None) -> dict[str, Any]:
    """The content of a YAML file; empty without one."""
    loaded = YAML(typ="safe", pure=True).load(text.decode()) if text is not None else None
    return dict(loaded) if loaded else {}


def table(store: Store, name: str, columns: Sequence[str] | None = None) -> pa.Table | None:
    """A Parquet file."""
    found = content(store, name)
    return None if found is None else pq.read_table(io.BytesIO(found), columns=columns)


def part(store: Store, result: str, file: str) -> str | None:
    """The name of a file of a finished result; its bytes are not checked, since a report trains nothing from them."""
    manifest = store.manifest(result)
    return None if manifest is None or file not in manifest.files else f"{result}/{manifest.attempt}/{file}"


def phase(store: Store, key: str, name: str) -> dict[str, Any] | None:
    """All figures of a finished phase, the losses of its steps among them."""
    file = part(store, f"phases/{name}-{key}", "metrics.json")
    return None if file is None else from_json(store, file)


def data_name(results: dict[str, Any]) -> str | None:
    """The data set's name in the store, from the folder that a run's results tell of."""
    parts = PurePath(results["data"]["folder"]).parts
    places = [i for i, each in enumerate(parts[:-1]) if each == "data"]
    return f"data/{parts[places[-1] + 1]}" if places else None


def data_set(store: Store, name: str | None) -> dict[str, Any] | None:
    """What is known of a data set."""
    file = part(store, name, "dataset.json") if name is not None else None
    return None if file is None else from_json(store, file)


def texts(store: Store, name: str, facts: dict[str, Any], rows: Sequence[int], split: str = "test") -> dict[int, str]:
    """The texts of some rows of a split, by row, as far as their tokens were kept."""
    words, found, seen = part(store, name, "tokenizer/tokenizer.json"), dict[int, str](), 0
    described = content(store, words) if words is not None else None
    if described is None or split not in facts["splits"]:
        return {}
    tokenizer, wanted = Tokenizer.from_str(described.decode()), pa.array(rows, pa.int64())
    for shard in _shards(store, name, facts["splits"][split]["shards"]):
        chosen = shard.filter(pc.is_in(shard["row"].cast(pa.int64()), wanted)).select(["row", "tokens"]).to_pylist()
        found |= {int(each["row"]): tokenizer.decode(each["tokens"], skip_special_tokens=True) for each in chosen}
        seen += shard.num_rows
        if len(found) == len(rows) or seen > LOOKED_AT:
            break
    return found


def _shards(store: Store, name: str, shards: Sequence[str]) -> Iterator[pa.Table]:
    """The Arrow files of a split, one after another."""
    for shard in shards:
        file = part(store, name, shard)
        raw = content(store, file) if file is not None else None
        if raw is not None:
            yield pa.ipc.open_file(pa.BufferReader(raw)).read_all()
