"""Training: one loop, its step, its state and its devices: ``from ranjax.training import train, make_mesh``.

A name is imported when it is first used.
"""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "checkpoints": ("Checkpoints",),
        "contrastive_step": ("Program", "make_step", "program"),
        "devices": ("data_parallel", "make_mesh", "replicate", "shard_batch"),
        "loop": ("Interrupted", "NonFiniteError", "train"),
        "metrics_log": ("MetricsLog",),
        "optimizer": ("AdamWSettings", "TrainState", "adamw", "only", "warmup_cosine"),
        "progress": ("Progress",),
        "row_map": ("RowMap",),
        "signals": ("StopFlag",),
    },
)
