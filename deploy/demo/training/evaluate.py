"""The figures of a pair: `python -m deploy.demo.training.evaluate --corpus DIR DRAFT.gguf TARGET.gguf`."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.demo.training.corpus import call_kinds, read_dialogues
from deploy.demo.training.measure import ModelFigures, PairFigures, Reader, Score, measure_pair


def evaluate(corpus: Path, draft: Path, target: Path, *, num_dialogues: int) -> PairFigures:
    """Measure a pair on held-out dialogues, taken at even distances from the whole split."""
    heldout = list(read_dialogues(corpus, "heldout"))
    num_dialogues = min(num_dialogues, len(heldout))
    chosen = [heldout[index * len(heldout) // num_dialogues] for index in range(num_dialogues)]
    readers = Reader(draft), Reader(target)
    try:
        return measure_pair(
            *readers,
            chosen,
            training_kinds=call_kinds(read_dialogues(corpus, "train")),
        )
    finally:
        for reader in readers:
            reader.close()


def table(figures: PairFigures) -> str:
    """The figures as lines of text."""
    draft, target = figures.draft, figures.target
    rows = [
        ("", "draft", "target", ""),
        ("loss, nats a token", _loss(draft.loss), _loss(target.loss), f"{draft.loss.count} positions"),
        (
            "loss on what an agent generates",
            _loss(draft.agent_loss),
            _loss(target.agent_loss),
            f"{draft.agent_loss.count} positions",
        ),
        ("tool calls exactly right", _share(draft), _share(target), f"of {draft.calls.total()}"),
    ]
    rows += [
        (f"  of a kind that training showed {kind}", _share(draft, kind), _share(target, kind), f"of {count}")
        for kind, count in sorted(draft.calls.items())
    ]
    lines = [f"{label:40}{ours:>10}{theirs:>10}   {remark}" for label, ours, theirs, remark in rows]
    lines += [
        f"greedy choices agree: {figures.agree.mean:.1%} of an agent's tokens, overall {figures.agree_all.mean:.1%}",
        f"mean beta, also the mean total variation: {figures.beta.mean:.4f}, overall {figures.beta_all.mean:.4f}",
    ]
    return "\n".join(lines)


def _loss(score: Score) -> str:
    return f"{score.mean:.4f}"


def _share(figures: ModelFigures, kind: str | None = None) -> str:
    right = figures.calls_right.total() if kind is None else figures.calls_right[kind]
    tried = figures.calls.total() if kind is None else figures.calls[kind]
    return f"{right / tried:.1%}" if tried else "-"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with train and heldout")
    parser.add_argument("--dialogues", type=int, default=300, help="how many held-out dialogues to read")
    parser.add_argument("draft", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    figures = evaluate(options.corpus, options.draft, options.target, num_dialogues=options.dialogues)
    print(table(figures))


if __name__ == "__main__":
    main()
