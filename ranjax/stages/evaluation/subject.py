"""What is evaluated: the encoder of one upstream arm, and each method as it would be deployed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.evaluation import zero_shot
from ranjax.pipeline import Context
from ranjax.stages import common
from ranjax.stages.adapt import load_heads
from ranjax.training.adapt import HEADS, METHODS, predict
from ranjax.training.rows import RowMap


class Method:
    """Heads of one method on the frozen encoder.

    Attributes:
      name: of the method.
      variables: {"params", "stats"} with a leading axis of seeds.
      seeds: how many there are.
    """

    def __init__(self, name: str, head: Any, variables: Any):
        self.name, self.head, self.variables = name, head, variables
        self.seeds = int(jax.tree.leaves(variables)[0].shape[0])

    def one(self, seed: int) -> Any:
        """The variables of one seed."""
        return jax.tree.map(lambda x: x[seed], self.variables)

    def outputs(self, features: np.ndarray, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(z, logits), [S, N, ...] of all seeds or [N, ...] of one."""
        z, logits = predict(self.head, self.variables if seed is None else self.one(seed), features)
        return np.asarray(z), np.asarray(logits)


class Subject:
    """One upstream arm: its encoder, its methods, and figures that several parts need, each found once."""

    def __init__(self, context: Context, folder: str, arm: str):
        self.context, self.folder, self.arm = context, folder, arm
        self.config = context.config.evaluate
        self.data = common.data(context)
        self.classes = self.data.classes
        self.functions, self.params = common.encoder(context, folder)
        width = self.functions.config.embed_dim
        heads = load_heads(context.folder_of(f"adapt/{folder}"))
        self.methods = {
            name: Method(name, HEADS[METHODS[name].head](width, len(self.classes)), variables)
            for name, variables in heads.items()
        }
        self._features: dict[str, np.ndarray] = {}
        self._texts: jax.Array | None = None

    def has(self, split: str) -> bool:
        return split in self.data.prepared.splits

    def task_features(self, split: str) -> np.ndarray:
        """f32[N, D] of the split's examples of the single-label task."""
        if split not in self._features:
            images = self.data.task_split(split).images
            self._features[split] = common.image_features(self.context, self.functions, self.params, images)
        return self._features[split]

    def records(self, split: str, task: bool = True) -> list[Mapping[str, Any]]:
        """What is known of each example (`group` of the prepared records), of the task's examples or of all."""
        source = self.data.prepared.splits[split]
        found = self.context.once(("groups", split), lambda: source.column("group"))
        chosen = self.data.split(split).labels >= 0
        return [record for record, kept in zip(found, chosen) if kept or not task]

    def targets(self, split: str) -> np.ndarray:
        """Multi-hot f32[N, C] of all examples of a split."""
        source = self.data.prepared.splits[split]
        return self.context.once(("targets", split), lambda: np.stack(source.column("labels")).astype(np.float32))

    def class_embeddings(self) -> jax.Array:
        """f32[C, D], the prompt ensemble of each class."""
        if self._texts is None:
            texts, owner = self.prompts()
            features = common.text_features(self.context, self.functions, self.params, self.data.encode(texts))
            self._texts = zero_shot.class_embeddings(jnp.asarray(features), owner, len(self.classes))
        return self._texts

    def prompts(self) -> tuple[list[str], jax.Array]:
        """The prompts of all classes, and the class of each, i32[P]."""
        pairs = [(text, c) for c, name in enumerate(self.classes) for text in self.data.prepared.prompts[name]]
        return [text for text, _ in pairs], jnp.asarray([c for _, c in pairs], jnp.int32)

    def zero_shot_logits(self, features: Any, classes: jax.Array | None = None) -> np.ndarray:
        """f32[N, C] of image features [N, D]."""
        chosen = self.class_embeddings() if classes is None else classes
        return np.asarray(zero_shot.logits(jnp.asarray(features), chosen, self.functions.logit_scale(self.params)))

    def some(self, split: str, count: int) -> common.Split:
        """The first `count` examples of the task (0: all)."""
        examples = self.data.task_split(split)
        return examples.take(np.arange(min(count or len(examples.ids), len(examples.ids))))

    def deployed(self, method: str) -> Any:
        """The method as ``((encoder, head), images) -> logits``: one object a head shape, so it compiles once."""
        functions = self.functions
        if method == "zero_shot":

            def by_text(params: Any, images: jax.Array) -> jax.Array:
                encoder, classes = params
                features = functions.image_features(encoder, images)
                return zero_shot.logits(features, classes, functions.logit_scale(encoder))

            return self.context.once(("deployed", functions, method), lambda: by_text)
        head = self.methods[method].head

        def by_head(params: Any, images: jax.Array) -> jax.Array:
            features = functions.image_features(params[0], images)
            return head.apply(params[1]["params"], params[1]["stats"], features, False)[1]

        return self.context.once(("deployed", functions, head), lambda: by_head)

    def parameters(self, method: str, seed: int = 0) -> Any:
        """What `deployed(method)` takes as parameters."""
        if method == "zero_shot":
            return self.params, self.class_embeddings()
        return self.params, self.methods[method].one(seed)

    def map_rows(self, fn: Any, batch_size: int) -> RowMap:
        """Work on rows over all devices of the mesh."""
        return RowMap(fn, self.context.mesh, batch_size)
