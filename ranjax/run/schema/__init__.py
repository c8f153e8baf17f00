"""Every configuration key: its default, its unit, what it means, and what is allowed.

One file a group; each has `KEYS`, and `check(config)` where its keys demand something of each other or of other
groups. A group whose keys name entries of tables has `TABLES`, see `EntryKeys`; `notes(config)` gives what a config
sets in vain, by default the settings of entries that it does not name.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from ranjax.core.settings import Group, group
from ranjax.data.set_settings import DataSettings
from ranjax.run.schema import adapt_keys as adapt
from ranjax.run.schema import data_keys as data
from ranjax.run.schema import evaluate_keys as evaluate
from ranjax.run.schema import general_keys as general
from ranjax.run.schema import model_keys as model
from ranjax.run.schema import noise_keys as noise
from ranjax.run.schema import pretrain_keys as pretrain
from ranjax.run.schema import report_keys as report
from ranjax.run.schema import text_keys as text
from ranjax.run.schema.entry_keys import EntryKeys


@dataclass(frozen=True)
class RunConfig(general.General, Group):
    """The config of a run as its stages read it: frozen, and of the same attributes as the ConfigDict it comes from."""

    data: DataSettings = group(DataSettings)
    text: text.Text = group(text.Text)
    model: model.Model = group(model.Model)
    pretrain: pretrain.Pretrain = group(pretrain.Pretrain)
    noise: noise.Noise = group(noise.Noise)
    adapt: adapt.Adapt = group(adapt.Adapt)
    evaluate: evaluate.Evaluate = group(evaluate.Evaluate)
    report: report.Report = group(report.Report)


GROUPS: tuple[ModuleType, ...] = (general, data, text, model, pretrain, noise, adapt, evaluate, report)

TABLES: tuple[EntryKeys, ...] = tuple(table for group in GROUPS for table in getattr(group, "TABLES", ()))
