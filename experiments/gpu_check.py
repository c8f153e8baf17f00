"""What can only be measured on a card, in one command of at most 8 minutes, one process after the other.

    python -m experiments.gpu_check --out FOLDER
    python -m experiments.gpu_check --out FOLDER --only step pgd --peers PYTHON
    python -m experiments.gpu_check --out FOLDER --platform cpu --tiny          # tried without a card

Parts, in this order; each has a limit of its own, and the whole has --seconds:

  device         name, versions, and whether a product runs at all
  step           the pre-training step of ViT-B/16 and 12 x 512 over 77 tokens, batch 256, bfloat16: by the fused
                 attention and written out, beside torch where --peers names an interpreter; share of the ceiling,
                 peak memory
  pgd            PGD-10 on ViT-B/32, batch 128, float32 and bfloat16
  substitution   3 words of a text tower of 12 x 512, batch 256: seconds to the first result, and after it
  tests          the tests of the marker `gpu`
  job_cold       the default job with an empty cache of programs
  job_warm       the same in another workdir, with the cache that job_cold filled

FOLDER gets PART.txt, the part's own output, PART.json where it has figures, and summary.json: seconds and exit code of
each part. A part that is cut off by its limit has the code 124, and one for which no time is left is not begun.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks import platforms
from ranjax.core import files

ROOT = Path(__file__).resolve().parents[1]
DEVICE = """
import jax, jax.numpy as jnp, jaxlib
device = jax.devices()[0]
print(device.device_kind, "x", len(jax.devices()), "jax", jax.__version__, "jaxlib", jaxlib.__version__)
print("a product:", float((jnp.ones((512, 512)) @ jnp.ones((512, 512)))[0, 0]))
"""


class Part(NamedTuple):
    """A part of the check: its name, its command behind the interpreter, and its limit in seconds."""

    name: str
    command: list[str]
    limit: float


def parts(out: Path, platform: str, tiny: bool, peers: str) -> list[Part]:
    """Return the parts in their order; `tiny` shrinks each to seconds of a CPU."""

    def benchmark(name: str, part: str, *options: str) -> list[str]:
        theirs = ["--peers", peers] if peers else []
        figures = ["--out", str(out / f"{part}.json")]
        return ["-m", f"experiments.benchmarks.{name}", "--platform", platform, *theirs, *options, *figures]

    def job(workdir: str) -> list[str]:
        config = "experiments/reliability/tiny.py" if tiny else "configs/ran.py"
        line = ["-m", "ranjax.main", "--config", config, "--workdir", str(out / workdir)]
        return [*line, f"--config.compile_cache={out / 'cache'}", *(["--until", "prepare"] if tiny else [])]

    small = ("--repeats", "1") if tiny else ("--repeats", "3")
    shape = ["--shapes", "small", "--workloads", "forward"] if tiny else ["--shapes", "b16", "--workloads", "step"]
    step = [*shape, "--ours", "bf16", "bf16 plain", "--torch", "sdpa_bf16", "compiled"]
    pgd, text = ("pgd_small", "text") if tiny else ("pgd_b32", "text_b32")
    tests = ["-m", "pytest", "-n", "0", "-q", "-m", "gpu", "tests/test_gpu.py", *(["-k", "loss"] if tiny else [])]
    return [
        Part("device", ["-c", DEVICE], 60),
        Part("step", benchmark("models", "step", *step, *small), 120),
        Part("pgd", benchmark("attacks", "pgd", "--workloads", pgd, *small), 90),
        Part("substitution", benchmark("attacks", "substitution", "--workloads", text, *small), 90),
        Part("tests", tests, 120),
        Part("job_cold", job("cold"), 150),
        Part("job_warm", job("warm"), 90),
    ]


def environment(platform: str) -> dict[str, str]:
    """Return what the parts find around them."""
    tests = {"gpu": "gpu", "cpu": "rehearsal"}
    found = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "JAX_PLATFORMS": platforms.JAX_NAMES[platform],
    }
    return {**found, "RANJAX_TESTS_GPU": tests.get(platform, "")}


def carry_out(part: Part, out: Path, limit: float, around: dict[str, str]) -> int:
    """Run a part with its output in a file of its name; return its exit code, 124 where the limit cut it off."""
    with (out / f"{part.name}.txt").open("w") as said:
        try:
            line = [sys.executable, *part.command]
            return subprocess.run(
                line, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT, env=around, timeout=limit, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return 124


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the parts; return 0 where all that were begun ended well."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    p.add_argument("--platform", default="gpu", choices=tuple(platforms.JAX_NAMES))
    p.add_argument("--only", nargs="+", default=(), metavar="PART")
    p.add_argument("--peers", default="", metavar="PYTHON", help="an interpreter with torch and transformers")
    p.add_argument("--seconds", type=float, default=480.0, help="of the whole (default 480)")
    p.add_argument("--tiny", action="store_true", help="shrink every part, to try the script")
    arguments = p.parse_args(argv)
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    every = parts(out, arguments.platform, arguments.tiny, arguments.peers)
    if unknown := sorted(set(arguments.only) - {part.name for part in every}):
        p.error(f"--only {unknown[0]}: expected some of {', '.join(part.name for part in every)}")
    begun, summary = time.monotonic(), {}
    for part in every:
        left = arguments.seconds - (time.monotonic() - begun)
        if (arguments.only and part.name not in arguments.only) or left <= 0:
            continue
        started = time.monotonic()
        code = carry_out(part, out, min(part.limit, left), environment(arguments.platform))
        summary[part.name] = {"seconds": round(time.monotonic() - started, 1), "code": code}
        print(f"{part.name}: {summary[part.name]['seconds']} s, exit code {code}", flush=True)
        files.write_json(out / "summary.json", summary)
    return max((abs(found["code"]) for found in summary.values()), default=0) and 1


if __name__ == "__main__":
    sys.exit(main())
