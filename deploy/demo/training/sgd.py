"""The public Schema-Guided Dialogue files to the corpus's form.

In: the data set's `dialogues_*.json` files. Out: a folder with train.jsonl and heldout.jsonl. For example
`python -m deploy.demo.training.sgd --out corpus --heldout-every 20 dstc8-schema-guided-dialogue/train/*.json`

The data set: Rastogi et al., "Towards Scalable Multi-domain Conversational Agents", arXiv:1909.05855,
CC BY-SA 4.0. Only versions of the files whose system turns carry `service_call` and
`service_results` will do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.demo.training.corpus import Dialogue, Turn


def convert_file(path: Path) -> Iterator[Dialogue]:
    """Every dialogue of one file."""
    for dialogue in json.loads(path.read_text(encoding="utf-8")):
        yield convert_dialogue(dialogue)


def convert_dialogue(dialogue: dict[str, Any]) -> Dialogue:
    """One dialogue; a call that the system made before it spoke becomes a `call` and a `result` turn."""
    turns: Dialogue = []
    for turn in dialogue["turns"]:
        if turn["speaker"] == "USER":
            turns.append(("user", turn["utterance"]))
            continue
        for frame in turn["frames"]:
            turns.extend(_call_turns(frame))
        turns.append(("assistant", turn["utterance"]))
    return turns


def _call_turns(frame: dict[str, Any]) -> list[Turn]:
    """A frame's call with its arguments in order of name, and its first result; nothing where it has none."""
    if "service_call" not in frame:
        return []
    call = frame["service_call"]
    arguments = dict(sorted(call["parameters"].items()))
    first_result: dict[str, str] = next(iter(frame.get("service_results", [])), {})
    return [
        ("call", json.dumps({"call": call["method"], **arguments})),
        ("result", json.dumps(dict(sorted(first_result.items())))),
    ]


def main() -> None:
    """Read the command line and convert; each n-th dialogue is held out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--heldout-every", type=int, default=20, help="hold out each n-th dialogue (default 20)"
    )
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    splits: dict[str, list[str]] = {"train": [], "heldout": []}
    dialogues = (dialogue for path in sorted(options.files) for dialogue in convert_file(path))
    for index, dialogue in enumerate(dialogues):
        split = "heldout" if index % options.heldout_every == 0 else "train"
        splits[split].append(json.dumps(dialogue) + "\n")
    for split, lines in splits.items():
        (options.out / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{split}: {len(lines)} dialogues")


if __name__ == "__main__":
    main()
