"""The phases. `build` is the only place that knows them all."""

from threephase_ray.config import Baseline, Config
from threephase_ray.loader import DataSet
from threephase_ray.phases import contrastive, dae, finetune, joint
from threephase_ray.phases.spec import Phase


def build(name: str, config: Config, data: DataSet) -> Phase:
    """The phase called `name` as the configuration describes it; "baseline" is phase 3 with the baseline's knobs."""
    match name:
        case "dae":
            return dae.phase(config, data)
        case "contrastive":
            return contrastive.phase(config, data)
        case "joint":
            return joint.phase(config, data)
        case "finetune":
            return finetune.phase(config, data, config.finetune)
        case "baseline":
            assert isinstance(config.baseline, Baseline)
            return finetune.phase(config, data, config.baseline)
    raise ValueError(name)
