"""What a config costs on many devices: compiled for them, without having one.

    python -m experiments.scale --config configs/ran.py --devices 8
    python -m experiments.scale --config configs/mimic_vit_b16.py --devices 256

Prints, for the pre-training step of the config (whose pretrain.batch_size is global): memory of each device, products,
collectives with their bytes, and for every chip the time of a step, the scaling efficiency and, for all upstream runs
of the config, chip-hours and dollars. Memory and collectives are read from the program that XLA compiles for that many
(forced CPU) devices; times follow from the makers' figures in experiments/scale/chips.py and --utilisation: estimates.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ranjax.errors import ConfigError


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
    p.add_argument("--vocabulary", type=int, default=0, metavar="N", help="words (default: text.max_vocabulary)")
    p.add_argument("--utilisation", type=float, default=0.4, help="share of the chip's peak that products reach")
    p.add_argument("--price", type=float, default=0.0, help="dollars a chip-hour, in place of the chips' own")
    arguments = p.parse_args(argv)
    if not 1 <= arguments.devices <= 256:
        p.error(f"--devices={arguments.devices}: 1 to 256")
    if not 0 < arguments.utilisation <= 1:
        p.error(f"--utilisation={arguments.utilisation}: above 0, at most 1")
    # Before jax is imported: that many devices which share this machine's memory, none of which will run anything.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={arguments.devices}"

    from experiments.scale import estimate
    from experiments.scale.chips import CHIPS
    from ranjax import config as configs
    from ranjax import pipeline

    try:
        config = configs.load(arguments.config)
        configs.validate(config)
        vocabulary = arguments.vocabulary or config.text.max_vocabulary
        program = estimate.pretrain_program(config, arguments.devices, vocabulary)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    runs = sum(run.stage == "pretrain" for run in pipeline.plan(config))
    print(f"{arguments.config} on {program.devices} device(s), {program.rows} pairs each; {runs} upstream run(s)")
    print(f"parameters        {program.parameters / 1e6:.1f} M")
    print(f"state a device    {size_of(program.state)} (parameters and two moments)")
    print(f"temporary         {size_of(program.temporary)} (as XLA's CPU compiler sets it aside)")
    print(f"products a step   {program.flops / 1e12:.3g} TFLOP a device")
    for kind, (number, size) in program.summary().items():
        print(f"{kind:<17} {number} a step, {size_of(size)}")
    print(f"sent a step       {size_of(program.moved)} a device")
    print(f"\nAt {100 * arguments.utilisation:g} % of peak (bf16), {config.pretrain.steps} steps a run:")
    print(f"{'chip':<6}{'memory':>10}{'step':>12}{'sending':>12}{'efficiency':>16}{'chip-hours':>12}{'dollars':>10}")
    for name, chip in CHIPS.items():
        found = estimate.predict(program, chip, arguments.utilisation)
        seconds = found.compute + found.send
        hours = seconds * config.pretrain.steps * runs * program.devices / 3600
        fits = "fits" if program.state + program.temporary < chip.memory else "too small"
        efficiency = f"{100 * found.low:.0f}-{100 * found.high:.0f} %"
        cost = hours * (arguments.price or chip.price)
        times = f"{1e3 * seconds:>9.1f} ms{1e3 * found.send:>9.2f} ms"
        print(f"{name:<6}{fits:>10}{times}{efficiency:>16}{hours:>12.3g}{cost:>10.3g}")
    return 0


def size_of(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


if __name__ == "__main__":
    sys.exit(main())
