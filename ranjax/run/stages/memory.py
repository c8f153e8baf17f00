"""An explanation of "out of memory": the work, its size, and the keys that make it smaller."""

from __future__ import annotations

from ranjax.run import config as configs
from ranjax.run.schema.entry_keys import Config

LOWER = {
    "pretrain": (
        "model.remat",
        "model.scan",
        "pretrain.accumulate",
        "pretrain.loss_chunk",
        "model_axis",
        "model.compute_dtype",
        "pretrain.batch_size",
    ),
    "craft": ("noise.batch_size", "noise.top_k", "model.compute_dtype"),
    "adapt": ("evaluate.batch_size", "adapt.tower.batch_size", "adapt.batch_size"),
    "evaluate": ("evaluate.batch_size", "evaluate.attacked_examples", "model.compute_dtype"),
}
"""At least three keys of each stage that lower its memory; keys that leave its results as they are come first."""
EVERYWHERE = ("data.image_size", "evaluate.batch_size", "pretrain.batch_size")
_SMALLER = {"model.remat": "True", "model.scan": "True with model.remat", "model.compute_dtype": "bfloat16"}
"""What lowers memory; a scan alone raises it, and with rematerialised blocks compiles one block instead of all."""
_PARTS = ("pretrain.accumulate", "pretrain.loss_chunk", "model_axis")
"""More parts are smaller ones."""


_SAID = ("RESOURCE_EXHAUSTED", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How XLA, and the libraries that it calls on a GPU, say that a device's memory ran out."""


def is_exhausted(error: BaseException) -> bool:
    """Return whether memory ran out, on a device or on the host."""
    of_device = isinstance(error, RuntimeError) and any(word in str(error) for word in _SAID)
    return isinstance(error, MemoryError) or of_device


def explain(error: BaseException, stage: str, run_id: str, config: Config) -> str:
    """Return a text that names the stage, its batch and sizes, and at least three keys that lower its memory.

    Args:
      error: for which `is_exhausted` holds.
      stage, run_id: e.g. "pretrain" and "pretrain/clean".
      config: the run's.
    """
    names = LOWER.get(stage, EVERYWHERE)
    flat = configs.flatten(config)
    batch = next((f"{name} = {flat[name]}" for name in names if name.endswith("batch_size")), "")
    size = f"images of {config.data.image_size} x {config.data.image_size}, reports of {config.text.max_length} tokens"
    said = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    lower = ", ".join(hints(stage, config))
    return f"out of memory in {run_id} with {batch}, {size}: {said}. What lowers it: {lower}."


def hints(stage: str, config: Config) -> list[str]:
    """Return the keys that lower a stage's memory with what to set them to, those that leave its results first."""
    flat, found = configs.flatten(config), []
    for name in LOWER.get(stage, EVERYWHERE):
        value = flat[name]
        smaller = _SMALLER.get(name, f"above {value}" if name in _PARTS else f"below {value}")
        if str(value) != smaller.split()[0]:
            found.append(f"{name} ({smaller})")
    return found
