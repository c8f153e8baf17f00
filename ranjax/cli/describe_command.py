"""Print every key of a config: its value, default, unit, meaning and choices.

ranjax describe --config configs/ran.py
ranjax describe --config configs/ran.py:smoke --config.pretrain.steps=50
"""

from __future__ import annotations

import argparse

from ranjax.cli import outcome, run_command

OVERRIDES = run_command.OVERRIDES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    run_command.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    from ranjax.run import config as configs

    print(configs.describe(run_command.config_of(arguments)))
    return outcome.DONE
