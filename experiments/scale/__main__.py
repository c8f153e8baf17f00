"""What a config costs on many devices: compiled for them, without having one.

    python -m experiments.scale --config configs/ran.py --devices 8
    python -m experiments.scale --config configs/mimic_vit_b16.py --devices 256 --pairs 377110
    python -m experiments.scale --config configs/mimic_vit_b16.py --devices 64 --config.model_axis=4
    python -m experiments.scale --config configs/mimic_vit_b16.py --tpu v5e:4x4 --steps all

Prints, for the pre-training step of the config (whose pretrain.batch_size is global) and for a batch of its crafting
attack: memory of each device, products, collectives with their bytes, and for every chip the time of a step, scaling
efficiency and, for all upstream runs and all noisy pairs of the config, chip-hours and dollars.

With --tpu memory and collectives are those of the TPU's own compiler (package libtpu), for a slice that need not be
there, and --steps all adds a table of every program of the pipeline. Without, they are read from the programs that XLA
compiles for that many (forced CPU) devices, whose memory is far above a TPU's. Times follow from
the makers' figures in experiments/scale/chips.py and --utilisation: estimates.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from experiments.scale import topology
from ranjax.cli.console import split_overrides
from ranjax.core.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m experiments.scale",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--config", required=True, metavar="FILE[:ARGUMENT]")
    p.add_argument("--devices", type=int, default=8, metavar="N", help="1 to 256 (default 8)")
    p.add_argument("--config.KEY", dest="_", metavar="VALUE", help="set one key, e.g. --config.model_axis=4")
    p.add_argument("--pairs", type=int, default=0, metavar="N", help="upstream pairs (default: of the bundled set)")
    p.add_argument("--tpu", default="", metavar="KIND:SHAPE", help="compile for this slice, e.g. v5e:4x4, v5p:2x2x1")
    p.add_argument("--steps", default="both", choices=("pretrain", "craft", "both", "all"), help="which programs")
    p.add_argument("--vocabulary", type=int, default=0, metavar="N", help="words (default: text.max_vocabulary)")
    p.add_argument("--utilisation", type=float, default=0.4, help="share of the chip's peak that products reach")
    p.add_argument("--price", type=float, default=0.0, help="dollars a chip-hour, in place of the chips' own")
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv, ("--config.",))
    arguments = p.parse_args(words)
    if not 1 <= arguments.devices <= 256:
        p.error(f"--devices={arguments.devices}: 1 to 256")
    if not 0 < arguments.utilisation <= 1:
        p.error(f"--utilisation={arguments.utilisation}: above 0, at most 1")
    # Before jax is imported: devices that share this machine's memory, none of which will run anything.
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        slice_ = topology.parse(arguments.tpu) if arguments.tpu else None
        if slice_:
            topology.prepare(slice_)
            arguments.devices = slice_.chips
        else:
            os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={arguments.devices}"
        from experiments.scale import estimate, programs_table
        from ranjax.models import attention
        from ranjax.run import config as configs

        # Traced beside a CPU: what a TPU would choose is said.
        attention.switch.set_global("tpu" if slice_ else "auto")

        config = configs.resolve(
            arguments.config, [(option.removeprefix("--config."), text) for option, text in overrides]
        )
        vocabulary = arguments.vocabulary or config.text.max_vocabulary
        where = topology.devices(slice_) if slice_ else arguments.devices
        if arguments.steps == "all":
            return programs_table.show(config, where, vocabulary, arguments.tpu or f"{arguments.devices} CPU devices")
        programs = []
        if arguments.steps != "craft":
            programs.append(estimate.pretrain_program(config, where, vocabulary))
        if arguments.steps != "pretrain" and len(config.noise.ratios) > 1:
            programs.append(estimate.craft_program(config, where, vocabulary))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except estimate.OutOfMemory as error:
        print(f"error: {programs_table.advice(error, configs.typed(config))}", file=sys.stderr)
        return 3
    model = config.model_axis
    shape = f" as {arguments.devices // model} x {model}" if model > 1 else ""
    print(f"{arguments.config} on {arguments.tpu or f'{arguments.devices} device(s)'}{shape}")
    for program in programs:
        show(program, config, arguments)
    return 0


def show(program: Any, config: Any, arguments: argparse.Namespace) -> None:
    """Prints one program and what all its steps cost on every chip."""
    from experiments.scale import estimate
    from experiments.scale.chips import CHIPS, PRICES
    from experiments.scale.programs_table import size_of

    steps, what = work_of(program, config, arguments.pairs)
    print(f"\n{program.name}: {program.rows} pairs a device and step; {what}")
    print(f"  parameters        {program.parameters / 1e6:.1f} M")
    kept = "parameters and two moments" if program.name == "pretrain" else "parameters and candidates"
    print(f"  state a device    {size_of(program.state)} ({kept})")
    compiler = f"the compiler of {arguments.tpu}" if arguments.tpu else "XLA's CPU compiler"
    print(f"  temporary         {size_of(program.temporary)} (as {compiler} sets it aside)")
    print(f"  compiled in       {program.seconds:.0f} s")
    print(f"  products a step   {program.flops / 1e12:.3g} TFLOP a device")
    for kind, (number, size) in program.summary().items():
        print(f"  {kind:<17} {number} a step, {size_of(size)}")
    print(f"  sent a step       {size_of(program.moved)} a device")
    print(f"  At {100 * arguments.utilisation:g} % of peak (bf16):")
    print(f"  {'chip':<6}{'memory':>10}{'step':>13}{'sending':>12}{'efficiency':>16}{'chip-hours':>12}{'dollars':>10}")
    for name, chip in CHIPS.items():
        found = estimate.predict(program, chip, arguments.utilisation)
        seconds = found.compute + found.send
        fits = "fits" if program.state + program.temporary < chip.memory else "too small"
        efficiency = f"{100 * found.low:.0f}-{100 * found.high:.0f} %"
        times = f"{1e3 * seconds:>10.1f} ms{1e3 * found.send:>9.2f} ms"
        if steps:
            hours = seconds * steps * program.devices / 3600
            cost = hours * (arguments.price or chip.price)
            print(f"  {name:<6}{fits:>10}{times}{efficiency:>16}{hours:>12.3g}{cost:>10.3g}")
        else:
            print(f"  {name:<6}{fits:>10}{times}{efficiency:>16}{'?':>12}{'?':>10}")
    if arguments.price:
        print(f"  Dollars at {arguments.price:g} a chip-hour.")
    else:
        each = ", ".join(f"{name} {chip.price:.2f}" for name, chip in CHIPS.items())
        print(f"  Dollars a chip-hour: {each} ({PRICES}).")


def work_of(program: Any, config: Any, pairs: int) -> tuple[int, str]:
    """Steps of this program in the whole config (0: unknown), and words for them."""
    from ranjax.run import plan as planning

    runs = planning.plan(config)
    if program.name == "pretrain":
        count = sum(run.stage == "pretrain" for run in runs)
        return count * config.pretrain.steps, f"{count} upstream run(s) of {config.pretrain.steps} steps"
    if not pairs and config.data.source != "radiographs":
        return 0, "give --pairs to know how many noisy pairs there are"
    noisy_pairs = math.ceil(max(config.noise.ratios) * (pairs or config.data.radiographs.train))
    return math.ceil(
        noisy_pairs / (program.rows * program.devices)
    ), f"{noisy_pairs} noisy pairs by {config.noise.recipe}"


if __name__ == "__main__":
    sys.exit(main())
