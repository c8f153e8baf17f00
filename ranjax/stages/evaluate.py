"""Evaluate: one upstream arm, clean, under white-box attack, out of domain, by zero-shot, retrieval and spectrum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ranjax import files
from ranjax.attacks import image as image_attacks
from ranjax.attacks import masking
from ranjax.data.images import to_float
from ranjax.evaluation import retrieval, statistics, zero_shot
from ranjax.evaluation.retrieval import unit
from ranjax.evaluation.robustness import WhiteBox
from ranjax.evaluation.rows import Cell, classification_rows, mean_row
from ranjax.evaluation.spectrum import spectrum
from ranjax.pipeline import Context
from ranjax.stages import common
from ranjax.stages.adapt import load_heads
from ranjax.training.adapt import HEADS, METHODS, predict
from ranjax.training.progress import Progress

FILE = "evaluation.json"
TASK, ATTACK = "finding", "pgd"
RECALLS = (1, 5, 10)


def run(context: Context) -> dict[str, Any]:
    """Leaves evaluation.json: rows, comparisons, spectra, masking verdicts and levels of chance of this arm."""
    found = _Evaluation(context)
    for split in ("test", "ood_test"):
        if split in found.data.prepared.splits:
            found.clean(split)
    found.retrieval("test")
    found.attacked("test")
    found.masking("test")
    files.write_json(
        context.folder / FILE,
        {
            "rows": found.rows,
            "comparisons": found.comparisons,
            "spectra": found.spectra,
            "masking": found.verdicts,
            "chance": found.chance,
        },
    )
    return {"rows": len(found.rows), "sha256": files.sha256(context.folder / FILE)}


class _Evaluation:
    """The encoder and heads of one arm, and what has been found about them so far."""

    def __init__(self, context: Context):
        self.context, self.config = context, context.config.evaluate
        self.folder, self.ratio = context.this.arm, context.this.ratio
        # Rows name what made the twins; the ratio stands beside it.
        self.arm = context.config.noise.recipe if self.ratio else self.folder
        self.data = common.data(context)
        self.functions, self.params = common.encoder(context, self.folder)
        self.heads = load_heads(context.folder_of(f"adapt/{self.folder}"))
        self.seeds = list(range(context.config.adapt.seeds))
        self.rows: list[dict[str, Any]] = []
        self.comparisons: list[dict[str, Any]] = []
        self.spectra: list[dict[str, Any]] = []
        self.verdicts: list[dict[str, Any]] = []
        self.chance: dict[str, float] = {"accuracy": 1 / len(self.data.classes), "macro_auroc": 0.5}
        self.chance["balanced_accuracy"] = self.chance["accuracy"]

    def clean(self, split: str) -> None:
        """Figures on unattacked images, over all heads and for each seed."""
        examples = self.data.task_split(split)
        features = common.image_features(self.context, self.functions, self.params, examples.images)
        hits = {}
        for method, variables in self.heads.items():
            _, logits = predict(self._head(method), variables, features)
            self._add(method, split, "none", logits, examples.labels, self.seeds)
            hits[method] = np.asarray(logits).argmax(-1) == examples.labels[None]
        logits = zero_shot.logits(jnp.asarray(features), self._classes(), self._scale())
        self._add("zero_shot", split, "none", logits, examples.labels, [])
        self._compare(split, "none", hits)

    def attacked(self, split: str) -> None:
        """Figures under PGD through encoder and head: the first heads of every method, and zero-shot."""
        seeds = self.seeds[: self.config.attacked_seeds]
        examples = self._some(split, self.config.attacked_examples)
        if not seeds:
            return
        images = to_float(examples.images)
        keys = common.example_keys(self.context, "evaluate/attack", examples.ids)
        clean = common.image_features(self.context, self.functions, self.params, examples.images)
        self._spectrum("encoder", "clean", clean)
        hits = {}
        title = f"evaluate {self.folder}: attacking {split}"
        total = len(self.heads) * len(seeds) + 1
        with Progress(title, total, unit="heads", shown=()) as progress:
            for number, (method, variables) in enumerate(self.heads.items()):
                head, attack = self._head(method), self._attack(method)
                logits = []
                for seed in seeds:
                    self.context.check_stop(f"attacking {method}")
                    chosen = jax.tree.map(lambda x: x[seed], variables)  # noqa: B023
                    result = attack((self.params, chosen), images, examples.labels, keys, keep_images=True)
                    # What was wrong before counts as wrong, even where the attacked image is right.
                    logits.append(_wrong_stays_wrong(result, examples.labels))
                    progress.update(number * len(seeds) + seed + 1)
                    if seed == seeds[0] and result.images is not None:
                        self._spectrum(method, "clean", predict(head, chosen, clean)[0])
                        features = common.image_features(self.context, self.functions, self.params, result.images)
                        self._spectrum(method, "attacked", predict(head, chosen, features)[0])
                        if number == 0:
                            self._spectrum("encoder", "attacked", features)
                self._add(method, split, ATTACK, np.stack(logits), examples.labels, seeds)
                hits[method] = np.stack(logits).argmax(-1) == examples.labels[None]
            result = self._zero_shot_attack()((self.params, self._classes()), images, examples.labels, keys)
            logits = _wrong_stays_wrong(result, examples.labels)
            self._add("zero_shot", split, ATTACK, logits, examples.labels, [])
            progress.update(total)
        self._compare(split, ATTACK, hits)

    def masking(self, split: str) -> None:
        """Whether the attacked figures are to be believed: the checks on the last method's first head."""
        if not (self.config.masking_examples and self.config.attacked_seeds):
            return
        examples = self._some(split, self.config.masking_examples)
        method = list(self.heads)[-1]
        self.context.check_stop("before the masking checks")
        found = masking.check(
            self._logits_of(method),
            (self.params, jax.tree.map(lambda x: x[0], self.heads[method])),
            to_float(examples.images),
            examples.labels,
            common.example_keys(self.context, "evaluate/masking", examples.ids),
            self._settings(),
            queries=self.config.masking_queries,
        )
        checks = [{"name": f.name, "passed": f.passed, "detail": f.seen} for f in found.findings]
        self.verdicts.append(
            {"arm": self.arm, "ratio": self.ratio, "method": method, "verdict": found.verdict, "checks": checks}
        )
        self.context.say(f"  {method}: {found.verdict}")

    def retrieval(self, split: str) -> None:
        """Recall both ways over a whole split, every report with its own image."""
        examples = self.data.split(split)
        images = unit(common.image_features(self.context, self.functions, self.params, examples.images))
        tokens = self.data.encode(examples.reports)
        texts = unit(common.text_features(self.context, self.functions, self.params, tokens))
        owners = np.arange(len(examples.ids))
        ranks = retrieval.ranks(images, texts, owners)
        directions = {
            "image_to_text": (ranks.image_to_text, ranks.right_texts),
            "text_to_image": (ranks.text_to_image, ranks.right_images),
        }
        for direction, (of_queries, right) in directions.items():
            cell = Cell(self.arm, self.ratio, direction, "retrieval", split)
            for k in RECALLS:
                hit = (of_queries < k).astype(np.float64)
                self.rows.append(mean_row(cell, f"recall@{k}", hit, self.config.bootstrap, self._seed))
                self.chance[f"recall@{k}"] = retrieval.chance(right, len(owners), k)

    def _head(self, method: str) -> Any:
        width = self.functions.config.embed_dim
        return HEADS[METHODS[method].head](width, len(self.data.classes))

    def _logits_of(self, method: str) -> Any:
        """The deployed model as ``((encoder, head), images) -> logits``, one function for each head shape."""
        head, functions = self._head(method), self.functions

        def logits(params: Any, images: jax.Array) -> jax.Array:
            features = functions.image_features(params[0], images)
            return head.apply(params[1]["params"], params[1]["stats"], features, False)[1]

        # One object for all arms: what is compiled for it serves them all.
        return self.context.once(("deployed", functions, head), lambda: logits)

    def _attack(self, method: str) -> WhiteBox:
        return self._compiled(self._head(method), self._logits_of(method))

    def _zero_shot_attack(self) -> WhiteBox:
        functions = self.functions

        def logits(params: Any, images: jax.Array) -> jax.Array:
            encoder, classes = params
            return zero_shot.logits(functions.image_features(encoder, images), classes, functions.logit_scale(encoder))

        return self._compiled("zero_shot", logits)

    def _compiled(self, name: Any, logits: Any) -> WhiteBox:
        return self.context.once(
            ("white box", self.functions, name),
            lambda: WhiteBox(logits, self._settings(), batch_size=self.config.batch_size),
        )

    def _settings(self) -> image_attacks.PGD:
        config = self.config
        return image_attacks.PGD(config.epsilon, config.step, config.steps, restarts=config.restarts)

    def _some(self, split: str, count: int) -> common.Split:
        examples = self.data.task_split(split)
        return examples.take(np.arange(min(count or len(examples.ids), len(examples.ids))))

    def _classes(self) -> jax.Array:
        prompts = [(text, c) for c, name in enumerate(self.data.classes) for text in self.data.prepared.prompts[name]]
        tokens = self.data.encode([text for text, _ in prompts])
        features = common.text_features(self.context, self.functions, self.params, tokens)
        owner = jnp.asarray([c for _, c in prompts], jnp.int32)
        return zero_shot.class_embeddings(jnp.asarray(features), owner, len(self.data.classes))

    def _scale(self) -> jax.Array:
        return self.functions.logit_scale(self.params)

    @property
    def _seed(self) -> int:
        return self.context.config.seed

    def _add(self, method: str, split: str, attack: str, logits: Any, labels: np.ndarray, seeds: list[int]) -> None:
        cell = Cell(self.arm, self.ratio, method, TASK, split, attack)
        names = self.data.classes if attack == "none" else ()
        self.rows += classification_rows(
            cell, logits, labels, seeds, class_names=names, resamples=self.config.bootstrap, seed=self._seed
        )

    def _compare(self, split: str, attack: str, hits: dict[str, np.ndarray]) -> None:
        """RAN (else the last method) against every other one, on the same images and seeds."""
        if len(hits) < 2:
            return
        first = "ran" if "ran" in hits else list(hits)[-1]
        for other in hits:
            if other == first:
                continue
            gap = statistics.paired_difference(
                hits[first].astype(float), hits[other].astype(float), self.config.bootstrap, self._seed
            )
            where = {"arm": self.arm, "ratio": self.ratio, "task": TASK, "split": split, "attack": attack}
            figures = {"difference": gap.value, "low": gap.low, "high": gap.high, "p": gap.p, "n": gap.n}
            seeds = len(hits[first])
            self.comparisons.append({"a": first, "b": other, **where, "metric": "accuracy", **figures, "seeds": seeds})

    def _spectrum(self, method: str, features: str, values: Any) -> None:
        found = spectrum(np.asarray(values))
        self.spectra.append(
            {
                "arm": self.arm,
                "ratio": self.ratio,
                "method": method,
                "features": features,
                "singular_values": [float(f"{s:.6g}") for s in found.sigma],
                "sve": found.sve,
                "lsvr": found.lsvr,
            }
        )


def _wrong_stays_wrong(result: Any, labels: np.ndarray) -> np.ndarray:
    """Logits under attack; where the clean image was wrong already, the clean ones: the attacker leaves it be."""
    lucky = (result.logits.argmax(-1) == labels) & ~result.correct
    return np.where(lucky[:, None], result.clean_logits, result.logits)
