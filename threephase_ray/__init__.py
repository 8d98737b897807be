"""Three-phase fine-tuning of text classifiers as distributed batch jobs on Ray and DeepSpeed.

Each file of `jobs/` reads a configuration and makes one call into this package. `README.md` says how jobs are run, `docs/knobs.md`
lists the knobs, `pyproject.toml` has which module may import which; these pages say how the parts work.

## How data flows

    YAML files, flags -> command.read -> Config -> planning: steps, memory, keys of the phases

    raw texts  -> data.prepare: read, checked, split, tokenised
               => <store>/data/<key>
    data set   -> loader: rows -> phases: batches with noise, loss
               -> training.loop: steps, validation, best weights
               => <store>/phases/<phase>-<key>, with which the next phase begins
    last phase -> scoring: the test split, once
               -> export: stock formats -> reports: one HTML page
               => <store>/runs/<name>

A driver plans, and tells its workers by JSON what to do; workers give back finished folders alone. Nothing that is finished is computed
again, since a result is named by a hash of all that it depends on.

## In which order to read

The method is that of López-Ávila and Suárez-Paniagua, *Combining Denoising Autoencoders with Contrastive Learning to fine-tune
Transformer Models*, EMNLP 2023 (arXiv:2405.14437). "Eq. 3" means equation 3 there.

- **The arithmetic**, plain functions on arrays and tensors: `noise` (phase 1), `imbalance` (class sizes for phase 2), `sampling` (which
  rows a step reads), `losses` (of all phases), `metrics` (scores), `memory` (bytes of a worker), `evidence` (means, intervals, tests
  over several runs).
- **The phases**: `phases.spec.Phase`, a record of functions; `phases.dae`, `phases.contrastive`, `phases.joint`, `phases.finetune`.
- **The networks**: `models` (embedder, head, decoder), `vocabulary` (the table of token embeddings), `pretrained` (checkpoints, what
  they can do), `packing` (encoders without padding).
- **Training**: `training.loop` (steps, validation, early stop), `training.engine` (model and optimiser), `training.checkpoint` (saved
  and resumed in the middle of a phase), `training.worker` (all that a worker does), `training.launch` (on Ray Train, again after
  failures), `training.crew` (worker groups that train many trials' phases).
- **The texts**: `data` makes a data set by way of `sources`, `formats`, `demo`, `checks`, `subsets`, `pieces` (tokens) and `shards`;
  `loader` reads it while phases train.
- **The store**: `results` (finished folders, named by hashes), `keys` (the hashes of phases), `storage` (in a `folder` or a `bucket`),
  `lock` (one writer at a time), `digest` and `sums` (SHA-256), `store` (upkeep).
- **The knobs**: `config`, with `machine`, `subsetting` and `tracking`; those of other jobs in `sweeping`, `studying`, `predicting`,
  `serving` and `exporting`. `command` reads files and flags, `mistakes` says what is wrong with them, `knobs` lists them, and `errors`
  has what jobs end with.
- **A run**: `planning` (what will be done), `pipeline` (do it), `scoring` (how good it is), `export` (stock formats), `reports` (as a
  page), `trackers` (shown elsewhere while it trains), `console` (in the terminal).
- **Many runs**: `trials`, on which `sweeps` (search) and `studies` (comparisons) stand.
- **A finished model**: `predictions` (files in bulk), `service` (HTTP), `exports` (ONNX, a hub).
- **A cluster**: `submitting` (jobs sent and followed), `kube` (manifests, checked), `credentials` (what must not travel).

## Letters of shapes

Shapes stand in brackets behind what has them: b texts of a batch, n rows or tokens, m other rows, t tokens of the longest text, v
tokens of the vocabulary, h hidden size, d size of an embedding, k classes.
"""

__version__ = "0.1.0"
