"""All that the test of the documented commands puts in the place of what it cannot have, and what it does not run."""

from dataclasses import dataclass

from tests.integration.documents import Piece


@dataclass(frozen=True)
class StandIn:
    """A word of the documents and what stands for it; names in braces are places of the stage."""

    documented: str
    instead: str
    why: str


@dataclass(frozen=True)
class Change:
    """Flags that a command gets at its end if it holds a word."""

    word: str
    flags: str
    why: str
    long: str = ""  # flags of the slow test instead, where the quick one leaves the work out


WORDS = (
    StandIn("demo:all-minilm-l6-v2", "{encoder}", "a tiny checkpoint with mean pooling, too: its steps cost nothing"),
    StandIn("http://head:8265", "{dashboard}", "a Ray cluster that the test starts"),
    StandIn("/shared/store", "{shared}", "a folder of this machine"),
    StandIn("http://127.0.0.1:8000", "http://127.0.0.1:{port}", "a port that is free"),
    StandIn("curl ", "curl --silent --show-error --fail ", "a request that is refused is a failure"),
    StandIn("threephase_ray.store /store", "threephase_ray.store store", "the store of this project's folder"),
    StandIn("REGISTRY/", "registry.example/", "a name that can be one"),
    StandIn("--image IMAGE", "--image registry.example/threephase-ray:0.1.0-ray2.60.0", "likewise"),
    StandIn("kube.check FOLDER", "kube.check cluster/overlays/gpu", "a folder of manifests"),
    StandIn("pip install", "pip install --quiet --dry-run --no-index --no-build-isolation", "the environment has it all; no network"),
    StandIn("sha256sum -c SHA256SUMS", "cd store/runs/mine/model/classifier && sha256sum -c SHA256SUMS", "the folder that is meant"),
)
SMALL = (  # one worker, for the cluster has two CPUs, and a few steps
    "--compute.workers 1 --probe false --dae.steps 2 --contrastive.steps 2 --contrastive.batch 12 --finetune.steps 4"
    " --finetune.validations 2 --finetune.head_start random"
)
DEMO = f"{SMALL} --encoder.path {{encoder}} --store {{shared}}"  # on a cluster whose nodes have folders of their own
CHANGES = (  # the first one that fits
    Change("make quickstart", "--dry-run", "the demo takes minutes", SMALL),
    Change("sweeps/demo.yaml", "--dry-run", "twelve trials take minutes", f"{DEMO} --sweep.search.trials 2"),
    Change("studies/demo.yaml", "--dry-run", "eight runs take minutes", f"{DEMO} --study.seeds 0"),
    Change("submit.py --job sweep", "--dry-run", "likewise", f"{SMALL} --sweep.search.trials 2 --sweep.retrain_seeds 0"),
    Change("--name plain", "--dry-run", "the run `mine` trains, and that is enough", SMALL),
    Change("--config other.yaml", "--dry-run", "likewise", SMALL),
    Change("jobs/train.py", SMALL, "few steps show as much as many"),
    Change("jobs/submit.py --config mine.yaml --store", SMALL, "likewise"),
    Change("jobs/predict.py", "--compute.workers 1", "one worker is enough"),
    Change("jobs/serve.py", "--port {port}", "a port that is free"),
    Change("tensorboard --logdir", "--inspect", "shows what is there, and ends"),
)
SETTINGS = {  # of the environment, by a word of the command
    "--push.": {"HF_ENDPOINT": "{hub}", "HF_TOKEN": "{token}", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"},
}
SERVICE = "jobs/serve.py"  # runs until it is stopped: in the background, while the commands with `curl` that follow are run
NOT_RUN = {  # why: commands
    "needs Docker": (
        "docker buildx imagetools inspect rayproject/ray:2.60.0-py312-gpu",
        "docker build -f cluster/Dockerfile -t REGISTRY/threephase-ray:0.1.0-ray2.60.0 --build-arg RAY_DIGEST=sha256:... .",
        "docker push REGISTRY/threephase-ray:0.1.0-ray2.60.0",
        "kind load docker-image threephase-ray-cpu:0.1.0-ray2.60.0",
    ),
    "streams into a container": (
        "kubectl cp -c ray-head texts threephase/POD:/store/texts",
        "kubectl cp -c ray-head threephase/POD:/store/runs/demo demo",
        "kubectl port-forward -n threephase svc/threephase-head-svc 8265",
    ),
    "asks for a token": ("hf auth login",),
    "names a command without saying all of it": (
        "kubectl delete rayjob",
        "kubectl delete secret",
        "kubectl describe pod",
        "kubectl describe workload",
        "kubectl drain",
        "kubectl logs POD -c autoscaler",
        "python /app/jobs/train.py --config /etc/threephase/mine.yaml --config /etc/threephase/site.yaml",
        "ray job stop",
        "ray job submit",
        "ray job submit --working-dir . -- python jobs/train.py ...",
        "ray start --metrics-export-port",
        "serve shutdown",
    ),
}
EXCEPTIONS = {command: why for why, commands in NOT_RUN.items() for command in commands}


def to_run(pieces: list[Piece]) -> list[Piece]:
    """All but the exceptions, and but what was there before: a configuration makes commands new that use it for a plan."""
    found, before = [], set[str]()
    for piece in pieces:
        if piece.kind == "yaml":
            before = {text for text in before if "--dry-run" not in text}
        elif piece.text in EXCEPTIONS or piece.text in before:
            continue
        before.add(piece.text)
        found.append(piece)
    return found


def changed(piece: Piece, places: dict[str, str], long: bool = False) -> str:
    """The text with all that stands for its words, and a command with its flags."""
    text = piece.text
    for word in WORDS:
        text = text.replace(word.documented, word.instead)
    if piece.kind in ("sh", "word") and "--dry-run" not in text:
        flags = [change.long if long and change.long else change.flags for change in CHANGES if change.word in text]
        text = " ".join([text, *flags[:1]])
    for name, place in places.items():
        text = text.replace(f"{{{name}}}", place)
    return text


def settings(command: str, places: dict[str, str]) -> dict[str, str]:
    """What the environment has for this command alone."""
    found = {name: value for word, more in SETTINGS.items() if word in command for name, value in more.items()}
    return {name: value.format(**places) for name, value in found.items()}


def unused(pieces: list[Piece]) -> list[str]:
    """What stands here for nothing that is documented."""
    texts = [piece.text for piece in pieces]
    words = [*(each.documented for each in WORDS), *(each.word for each in CHANGES), *SETTINGS, SERVICE]
    return [word for word in words if not any(word in text for text in texts)] + [each for each in EXCEPTIONS if each not in texts]
