"""Ask a language model on a server that you name to rewrite the captions of a prepared set, for the recipe `captions`.

    ranjax captions --endpoint=http://localhost:8000/v1 --model=NAME --data=prepared/x --out=captions.csv
    ranjax run --config configs/ran.py --config.noise.recipe=captions --config.noise.captions.file=captions.csv ...

The server is any that speaks OpenAI's chat completions (vLLM, llama.cpp, a company's own); its key, where it wants one,
is read from RANJAX_ENDPOINT_KEY. THE CAPTIONS LEAVE THIS MACHINE: before anything is sent, the command says how many
texts go where and what that comes to, and waits for a "yes" in the terminal, or for --yes. With --ratio only the
captions go that a run of that noise.ratios and seed makes noisy.

Every answer is kept in OUT.answers.jsonl at once. What is cut off, by Ctrl-C or a server that fails, goes on where it
was when the same command is given again; OUT itself is written when all answers are there.

Exit codes: 0 done; 2 refused (one line says why); 75 stopped on request, answers are kept.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

from ranjax.cli import outcome
from ranjax.core import files
from ranjax.core.errors import ConfigError


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--endpoint", required=True, metavar="URL", help="the server, e.g. http://localhost:8000/v1")
    p.add_argument("--model", required=True, metavar="NAME", help="a model that the server knows")
    p.add_argument("--data", required=True, type=Path, metavar="FOLDER", help="a prepared set")
    p.add_argument("--out", required=True, type=Path, metavar="CSV", help="where ids and rewritten captions go")
    p.add_argument("--prompt", type=Path, metavar="FILE", help="what is asked, with {caption} in it (default: bundled)")
    p.add_argument("--split", default="train", metavar="NAME", help="split of the set (default: train)")
    p.add_argument("--ratio", type=float, default=1.0, metavar="SHARE", help="share of the captions (default: 1)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the run, which chooses them (default: 0)")
    p.add_argument("--temperature", type=float, default=0.7, metavar="T", help="of the answers (default: 0.7)")
    p.add_argument("--parallel", type=int, default=1, metavar="N", help="requests at a time (default: 1)")
    p.add_argument("--retries", type=int, default=5, metavar="N", help="further tries of a failed request (default: 5)")
    p.add_argument("--wait", type=float, default=1.0, metavar="SECONDS", help="before the first of these (default: 1)")
    p.add_argument("--price", default="", metavar="OUT,BACK", help="of a million tokens, to estimate the cost")
    p.add_argument("--yes", action="store_true", help="send the captions without asking")


def _prices(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        out, back = map(float, text.split(","))
    except ValueError:
        raise ConfigError("--price", text, "two numbers, e.g. 0.5,1.5") from None
    return out, back


def run(arguments: argparse.Namespace) -> int:
    from ranjax.data.captions import caption_requests as requests
    from ranjax.data.captions.rewrite import count_identical
    from ranjax.data.noisy_pairs import select
    from ranjax.data.prepared import open_prepared
    from ranjax.training.progress import Progress
    from ranjax.training.signals import StopFlag

    for name in ("parallel", "retries"):
        if getattr(arguments, name) < (name == "parallel"):
            raise ConfigError(f"--{name}", getattr(arguments, name), "1 or more" if name == "parallel" else "0 or more")
    options = ("temperature", "retries", "wait")
    how = {name: getattr(arguments, name) for name in options}
    endpoint = requests.Endpoint(arguments.endpoint, arguments.model, **how)
    prompt, prices = requests.read_prompt(arguments.prompt), _prices(arguments.price)
    splits = open_prepared(arguments.data).splits
    if arguments.split not in splits:
        raise ConfigError("--split", arguments.split, f"one of {', '.join(splits)}")
    source = splits[arguments.split]
    taken = select(source.ids, arguments.ratio, arguments.seed)
    captions = {i: text for i, text, chosen in zip(source.ids, source.column("report"), taken) if chosen}
    answers = requests.Answers(arguments.out.with_name(f"{arguments.out.name}.answers.jsonl"))
    cost = requests.estimate(endpoint, prompt, captions, answers)
    kept = sum(requests.key_of(endpoint, prompt, caption) in answers for caption in captions.values())
    print(f"{len(captions)} captions, {kept} answered before; {cost.requests} requests to {endpoint.host}")
    if cost.requests:
        price = (
            ""
            if prices is None
            else f", about {(cost.tokens_out * prices[0] + cost.tokens_back * prices[1]) / 1e6:.2f}"
        )
        print(f"about {cost.tokens_out:,} tokens out, {cost.tokens_back:,} back{price}")
        print(
            f"WARNING: these captions leave this machine and go to {endpoint.host}, whose owner can read and keep them."
        )
        if not (arguments.yes or _agreed()):
            raise ConfigError("--yes", "not given", "--yes, or 'yes' in a terminal, before captions are sent")
    with StopFlag() as stop, Progress("captions", len(captions), unit="captions") as progress:
        found = requests.ask_all(endpoint, prompt, captions, answers, arguments.parallel, progress.update, stop)
    if len(found) < len(captions):
        print(f"stopped; {len(found)} of {len(captions)} answers are kept. The same command goes on from here.")
        return outcome.STOPPED
    written = {identity: caption for identity, caption in found.items() if caption}
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("id", "caption"))
    writer.writerows(written.items())
    files.write_text(arguments.out, table.getvalue())
    same = count_identical(captions, written)
    print(
        f"written: {arguments.out}, {len(written)} captions; {len(found) - len(written)} answers were empty, {same} say"
    )
    print("the same words as the original: a run leaves these captions as they are, and counts them.")
    return outcome.DONE


def _agreed() -> bool:
    return sys.stdin.isatty() and input('Type "yes" to send them: ').strip().lower() == "yes"
