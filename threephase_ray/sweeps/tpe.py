"""Trials as a study of Optuna: its suggestions, the importance of knobs, a file for Optuna's own tools."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from threephase_ray.sweeps.axes import Scale
from threephase_ray.sweeps.space import Space
from threephase_ray.sweeps.trial import ENDED, Point, Trial

_LEAST = 4  # finished trials from which importance is worth a look
_GOOD = (0.4, 0.1)  # share of the trials that count as good: many, as sweeps are small; few, where most scores are equal


def suggestions(trials: Sequence[Trial], space: Space, seed: Sequence[int]) -> Iterator[Point]:
    """Points that TPE suggests after these trials, in this order; those that do not fit the space are left out."""
    fitting = [trial for trial in trials if space.fits(trial.point)]
    study = _study([_frozen(trial, space) for trial in fitting])
    crowded = any(trial.status not in ENDED for trial in trials)
    attempt = 0
    while True:
        study.sampler = _sampler([*seed, attempt], crowded)
        asked, attempt = study.ask(), attempt + 1
        yield from space.expand(_answers(asked, space))
        study.tell(asked, state=TrialState.FAIL)  # so that the next one does not shun it as a trial under way


def importance(trials: Sequence[Trial], space: Space) -> dict[str, float]:
    """Share of each knob in what tells good trials from others (PED-ANOVA), largest first; empty if too few are done or all alike."""
    done = [frozen for trial in trials if (frozen := _frozen(trial, space)).state == TrialState.COMPLETE]
    if len(done) < _LEAST:
        return {}
    study = _study(done)
    for good in _GOOD:
        judge = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=good)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that `normalize` is experimental, and that all scores are equal
            found = optuna.importance.get_param_importances(study, evaluator=judge, normalize=False)
        if (total := sum(found.values())) > 0:
            return {name: float(share / total) for name, share in found.items()}
    return {}


def storage(trials: Sequence[Trial], space: Space, path: Path) -> None:
    """Write a file for Optuna's tools: `JournalStorage(JournalFileBackend(path))`, with one study of the sweep's name."""
    path.unlink(missing_ok=True)
    kept = JournalStorage(JournalFileBackend(str(path)))
    _study([_frozen(trial, space) for trial in sorted(trials, key=lambda trial: trial.number)], storage=kept, study_name=space.name)


def _study(trials: Sequence[FrozenTrial], **where: Any) -> optuna.Study:
    """A study that has seen the trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", **where)
    study.add_trials(trials)
    return study


def _sampler(seed: Sequence[int], crowded: bool) -> optuna.samplers.TPESampler:
    """TPE over all axes at once, in groups that count together; `crowded`: keep away from trials under way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`
        number = int(np.random.SeedSequence(seed).generate_state(1)[0])
        return optuna.samplers.TPESampler(seed=number, multivariate=True, group=True, constant_liar=crowded)


def _answers(asked: optuna.Trial, space: Space) -> Callable[[str, Point], list[Any]]:
    """Answers to what the value of an axis is."""
    return lambda name, _: [_suggest(asked, name, space.scales[name])]


def _suggest(asked: optuna.Trial, name: str, scale: Scale) -> Any:
    """Ask for the value of one axis."""
    if scale.values:
        choices = _choices(scale)
        return scale.values[choices.index(asked.suggest_categorical(name, choices))]
    if scale.kind == "int":
        return type(scale.low)(asked.suggest_int(name, int(scale.low), int(scale.high)))
    return asked.suggest_float(name, scale.low, scale.high, log=scale.kind == "loguniform")


def _distribution(scale: Scale) -> BaseDistribution:
    """An axis as Optuna describes it."""
    if scale.values:
        return CategoricalDistribution(_choices(scale))
    if scale.kind == "int":
        return IntDistribution(int(scale.low), int(scale.high))
    return FloatDistribution(scale.low, scale.high, log=scale.kind == "loguniform")


def _choices(scale: Scale) -> list[Any]:
    """The listed values; Optuna takes no lists, so these are written as JSON."""
    return [_plain(value) for value in scale.values]


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _frozen(trial: Trial, space: Space) -> FrozenTrial:
    """A trial as Optuna describes it; a value that its axis lacks is told among the attributes alone."""
    on_axis = {name: value for name, value in trial.point.items() if name in space.scales and space.scales[name].holds(value)}
    facts = {"number": trial.number, "status": trial.status, "point": trial.point, "reason": trial.reason, "cost": trial.cost}
    return optuna.trial.create_trial(
        state=_state(trial),
        value=trial.score if _state(trial) == TrialState.COMPLETE else None,
        params={name: _plain(value) for name, value in on_axis.items()},
        distributions={name: _distribution(space.scales[name]) for name in on_axis},
        intermediate_values={mark.progress: mark.score for mark in trial.marks},
        user_attrs=facts | {f"validation_{name}": score for name, score in trial.scores.items()},
    )


def _state(trial: Trial) -> TrialState:
    """What became of it."""
    if trial.status == "done":
        return TrialState.COMPLETE if trial.score is not None and math.isfinite(trial.score) else TrialState.FAIL
    if trial.status == "stopped":
        return TrialState.PRUNED
    return TrialState.FAIL if trial.status == "failed" else TrialState.RUNNING
