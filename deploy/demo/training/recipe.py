"""From a corpus to the pair and its figures, in one command.

    python -m deploy.demo.training.recipe --corpus DIR --out DIR

It goes on where it was stopped: a stage that is done is not done again, and one under way resumes from its last
checkpoint. `--smoke` runs the whole of it in a minute or two with hardly any training.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.training.checkpoint import load_weights, write_base
from deploy.demo.training.corpus import read_dialogues
from deploy.demo.training.evaluate import evaluate, table
from deploy.demo.training.export import export_gguf, import_gguf
from deploy.demo.training.mixture import Sources, join, write_augmented
from deploy.demo.training.model import Weights, grown, new_weights
from deploy.demo.training.prepare import read_tokens, train_tokenizer, write_tokens
from deploy.demo.training.stages import STAGES, smoke_stages
from deploy.demo.training.train import SHARDS, Run, Stage, train_stage
from runtime.llama import quantize

SHIPPED_TOKENIZER = Path(__file__).with_name("tok.json")
# The names of the two files, from which stage they come, and how each is quantised.
QUANTISATION = {"draft": "Q4_K_M", "target": "Q8_0"}
AUGMENTATION_SEED = 1
SMOKE_DIALOGUES = {"train": 400, "heldout": 24}


@dataclass(frozen=True)
class Folder:
    """What the recipe writes, and where."""

    root: Path

    @property
    def tokenizer(self) -> Path:
        """The vocabulary."""
        return self.root / "tok.json"

    def tokens(self, name: str) -> Path:
        """A token file."""
        return self.root / f"{name}.npz"

    def checkpoint(self, stage: str) -> Path:
        """A stage's checkpoint."""
        return self.root / f"{stage}.pt"

    def gguf(self, model: str, file_type: str) -> Path:
        """A model file, for example draft-q4_k_m.gguf."""
        return self.root / f"{model}-{file_type.lower()}.gguf"


def prepare(corpus: Path, folder: Folder, *, new_vocabulary: bool) -> None:
    """Vocabulary and token files, as far as they are missing."""
    if not folder.tokenizer.exists():
        if new_vocabulary:
            train_tokenizer(corpus, folder.tokenizer)
        else:
            shutil.copyfile(SHIPPED_TOKENIZER, folder.tokenizer)
    for split in ("train", "heldout"):
        if not folder.tokens(split).exists():
            print(f"tokens of {split}", flush=True)
            write_tokens(corpus, split, folder.tokenizer, folder.tokens(split))
    if not folder.tokens("augmented").exists():
        print("tokens of the corpus with other names, and drills", flush=True)
        write_augmented(corpus, folder.tokenizer, folder.tokens("augmented"), seed=AUGMENTATION_SEED)


def train(stages: Sequence[Stage], folder: Folder, *, num_processes: int) -> None:
    """The stages that are not done yet."""
    sources = join(read_tokens(folder.tokens("train")), read_tokens(folder.tokens("augmented")))
    for stage in stages:
        if _is_done(stage, folder):
            print(f"{stage.name}: done before", flush=True)
            continue
        _train_one(stage, sources, folder, num_processes)


def take_base(pair: Path, folder: Folder) -> None:
    """Use a pair's files in place of the two base stages."""
    for model, file_type in QUANTISATION.items():
        weights = import_gguf(pair / folder.gguf(model, file_type).name)
        write_base(folder.checkpoint(f"{model}-base"), weights)


def write_models(folder: Folder) -> None:
    """The last stages' weights as f16 and as quantised GGUF files."""
    shapes = {stage.name: stage.shape for stage in STAGES}
    for model, file_type in QUANTISATION.items():
        weights, _ = load_weights(folder.checkpoint(model))
        full = folder.gguf(model, "f16")
        export_gguf(
            weights, shapes[model], name=f"hunch-demo-{model}", tokenizer_path=folder.tokenizer, path=full
        )
        quantize(full, folder.gguf(model, file_type), file_type)


def judge(corpus: Path, folder: Folder, *, num_dialogues: int) -> None:
    """Print the figures of the pair in full precision and as quantised."""
    for file_types in (dict.fromkeys(QUANTISATION, "f16"), QUANTISATION):
        draft, target = (folder.gguf(model, file_type) for model, file_type in file_types.items())
        figures = evaluate(corpus, draft, target, num_dialogues=num_dialogues)
        print(f"\n{draft.name} and {target.name}\n{table(figures)}", flush=True)


def smoke_corpus(corpus: Path, folder: Path) -> Path:
    """A few dialogues of each split, as a corpus of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in SMOKE_DIALOGUES.items():
        lines = (
            json.dumps(dialogue) + "\n" for dialogue in itertools.islice(read_dialogues(corpus, split), count)
        )
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def _is_done(stage: Stage, folder: Folder) -> bool:
    path = folder.checkpoint(stage.name)
    return path.exists() and load_weights(path)[1] >= stage.num_tokens


def _train_one(stage: Stage, sources: Sources, folder: Folder, num_processes: int) -> None:
    heldout = read_tokens(folder.tokens("heldout"))
    run = Run(stage, _starting_weights(stage, folder), sources, heldout, folder.checkpoint(stage.name))
    train_stage(run, num_processes=num_processes)


def _starting_weights(stage: Stage, folder: Folder) -> Weights:
    if stage.starts_from is None:
        return new_weights(stage.shape, stage.seed)
    weights, _ = load_weights(folder.checkpoint(stage.starts_from))
    return grown(weights, stage.shape, stage.seed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder with train and heldout (.jsonl or .jsonl.xz)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for all that the recipe writes")
    parser.add_argument(
        "--processes", type=int, choices=(1, SHARDS), default=min(SHARDS, os.cpu_count() or 1)
    )
    parser.add_argument(
        "--base", type=Path, help="folder with an earlier pair to go on from, instead of base stages"
    )
    parser.add_argument(
        "--new-vocabulary", action="store_true", help="learn tok.json anew; the default is the shipped"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a few dialogues and steps, to see that all of it runs"
    )
    return parser.parse_args()


def main() -> None:
    """Prepare, train, export, quantise, judge."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    folder, corpus = Folder(options.out), options.corpus
    if options.smoke:
        corpus = smoke_corpus(corpus, options.out / "smoke-corpus")
    prepare(corpus, folder, new_vocabulary=options.new_vocabulary)
    if options.base:
        take_base(options.base, folder)
    train(smoke_stages() if options.smoke else STAGES, folder, num_processes=options.processes)
    write_models(folder)
    judge(corpus, folder, num_dialogues=4 if options.smoke else 300)


if __name__ == "__main__":
    main()
