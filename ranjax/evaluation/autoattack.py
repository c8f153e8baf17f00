"""AutoAttack: a fixed ensemble of attacks, each on the images that the ones before it left right (arXiv 2003.01690).

    result = AutoAttack(model, eps="4/255").run(images, labels)
    print(result)                     # accuracy after each attack, and what speaks against believing it
    result.robust                     # bool[N], right under all

Versions, as published: "standard" (APGD-CE, APGD-T, FAB-T, Square), "plus" (also APGD-DLR and FAB; five restarts) and
"rand" (APGD-CE and APGD-DLR on means over 20 draws). Linf, L2 and L1 (Croce & Hein 2021, arXiv 2103.01208).

Survivors are packed into batches of three fixed sizes at most, before each restart, each target class and each 250
queries, so that nothing compiles twice for the same size. An example's random numbers are those of its id.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from ranjax.attacks import any_model, input_checks, losses, masking
from ranjax.attacks.any_model import Model
from ranjax.attacks.ascent import fold_in
from ranjax.attacks.classifier import Classifier
from ranjax.core import keys as random_keys
from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation.autoattack_parts import CHUNK, Found, Part, part_of
from ranjax.training.row_map import RowMap

VERSIONS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd_ce", "apgd_t", "fab_t", "square"),
    "plus": ("apgd_ce", "apgd_dlr", "fab", "square", "apgd_t", "fab_t"),
    "rand": ("apgd_ce", "apgd_dlr"),
}
DRAWS = 20  # of "rand"
SQUARE_ALONE = 0.002  # share broken by Square after the gradients gave up, at which the public code warns
PADDING = 1.4
"""Rows that a larger batch may cost beside the smallest ones: a step of a small batch takes nearly as long."""
_JUDGE = 0x4A554447


@dataclass(frozen=True)
class AutoAttackResult:
    """What each attack left right.

    Attributes:
      clean: bool[N], right without an attack.
      survived: {attack: bool[N]}, right after this attack and all before it.
      images: f32[N, ...], where an example is broken the attacked image, else the clean one.
      epsilon: the radius as it was given; norm, version: as they were given.
      notes: what speaks against believing the figure, and what was run in the place of what is undefined.
    """

    clean: Bool[np.ndarray, " examples"]
    survived: Mapping[str, Bool[np.ndarray, " examples"]]
    images: Float[np.ndarray, "examples *pixels"]
    epsilon: float | int | str
    norm: str
    version: str
    notes: tuple[str, ...]

    @property
    def robust(self) -> Bool[np.ndarray, " examples"]:
        """Where the model is right under every attack."""
        return list(self.survived.values())[-1] if self.survived else self.clean

    @property
    def accuracy(self) -> float:
        """Robust accuracy."""
        return float(self.robust.mean())

    def __str__(self) -> str:
        lines = [f"AutoAttack {self.version}, {self.norm} {self.epsilon}, {len(self.clean)} images"]
        lines += [f"  {'clean':10} {self.clean.mean():7.2%}"]
        lines += [f"  {name:10} {left.mean():7.2%}" for name, left in self.survived.items()]
        return "\n".join([*lines, *(f"  WARNING: {note}" for note in self.notes)])


class AutoAttack:
    """The ensemble on one model; programs are compiled once for all calls of `run`.

    Args:
      model: as `attacks.any_model.as_logits` takes it; with `draws`, ``(function of (params, images, keys), params)``.
      eps: the radius in pixel units, a number or "4/255".
      norm: "linf", "l2" or "l1".
      version: "standard", "plus" or "rand".
      attacks: names in the place of the version's, in the order in which they run.
      steps: of the gradient attacks; queries: of Square, in chunks of 250.
      draws: above 0 where the model is random; "rand" takes 20 of a random model, and then needs one.
      seed: of the random starts.
      batch_size: images at a time (on each device).
      mesh: devices that share the images; None: the first alone.

    Raises:
      ConfigError: a value that is refused, by its name.
    """

    def __init__(
        self,
        model: Model,
        eps: float | int | str,
        norm: str = "linf",
        version: str = "standard",
        *,
        attacks: Sequence[str] = (),
        steps: int = 100,
        queries: int = 5000,
        draws: int = 0,
        seed: int = 0,
        batch_size: int = 128,
        mesh: Mesh | None = None,
    ) -> None:
        input_checks.validate_choice(version, "version", tuple(VERSIONS))
        input_checks.validate_choice(norm, "norm", input_checks.ALL_NORMS)
        for name, value, least in (("steps", steps, 1), ("queries", queries, 1), ("batch_size", batch_size, 1)):
            input_checks.validate_count(value, name, least)
        input_checks.validate_count(draws, "draws", 0)
        if queries > CHUNK and queries % CHUNK:
            raise ConfigError("queries", queries, f"a multiple of {CHUNK}, or fewer")
        self.epsilon = input_checks.validate_length(eps, "eps", norm, positive=True)
        self.given, self.norm, self.version, self.seed, self.batch_size = eps, norm, version, seed, batch_size
        self._model, self._mesh, self._draws = model, mesh, draws or (DRAWS if version == "rand" else 0)
        self._names, self._steps, self._queries = tuple(attacks) or VERSIONS[version], steps, queries
        known_names = tuple(dict.fromkeys(name for names in VERSIONS.values() for name in names))
        for name in self._names:
            input_checks.validate_choice(name, "attacks", known_names)
        self._maps: dict[tuple[str, int], RowMap] = {}

    def run(
        self,
        images: Float[Array | np.ndarray, "examples height width channels"],
        labels: Shaped[Array | np.ndarray, "..."],
        ids: Sequence[str] | None = None,
    ) -> AutoAttackResult:
        """Attack every image, until an attack breaks it.

        Args:
          images: f32[N, H, W, C] in [0, 1].
          labels: i32[N], or multi-hot [N, C], where an image is right if all its classes are.
          ids: N different names, which decide each example's random numbers; None: "0", "1", ...

        Raises:
          DataError: images, labels, ids or a model that do not fit. ConfigError: a radius beyond any image.
        """
        images = np.asarray(input_checks.validate_images(images, 4))
        input_checks.broadcast_radius(self.epsilon, self.norm, jnp.asarray(images))
        names = input_checks.example_names(ids, len(images))
        logits_fn, params = self._read(images)
        drawn = random_keys.example_keys(random_keys.stream(self.seed, "autoattack"), names)
        outputs, again, wrong, flat = self._first_look(logits_fn, params, images, labels, drawn)
        held = any_model.check_labels(labels, images, outputs.shape[1])
        make = functools.partial(
            part_of,
            version=self.version,
            norm=self.norm,
            epsilon=self.epsilon,
            steps=self._steps,
            queries=self._queries,
        )
        parts = [make(name, outputs.shape[1], held.ndim == 2) for name in self._names]

        alive, survived, adversarial = ~wrong, {}, images.copy()
        size = min(self.batch_size, len(images))
        for part in parts:
            latest = images.copy()
            for number in range(part.count):
                rows = np.flatnonzero(alive)
                if not rows.size:
                    break
                shared = (params, part.settings, np.uint32(number))
                found, broken = self._packed(part, logits_fn, shared, (images, held, drawn, latest), rows, size)
                latest[rows] = found
                adversarial[rows[broken]] = found[broken]
                alive[rows[broken]] = False
            survived[part.name] = alive.copy()
        notes = self._notes(outputs, again, ~wrong, flat, survived, held)
        for note in notes:
            warnings.warn(f"AutoAttack: {note}", stacklevel=2)
        return AutoAttackResult(~wrong, survived, adversarial, self.given, self.norm, self.version, notes)

    def _read(self, images: np.ndarray) -> tuple[Callable[..., jax.Array], PyTree]:
        if not self._draws:
            return any_model.as_logits(self._model, images)
        if not (isinstance(self._model, tuple) and len(self._model) == 2 and callable(self._model[0])):
            raise DataError("a random model is given as (function of (params, images, keys), params)")
        return self._model

    def _classifier(self, logits_fn: Callable[..., jax.Array], params: PyTree, labels: Array) -> Classifier:
        return Classifier(lambda x, *drawn: logits_fn(params, x, *drawn), labels, self._draws)

    def _first_look(
        self, logits_fn: Callable[..., jax.Array], params: PyTree, images: np.ndarray, labels: PyTree, keys: Array
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return logits of two calls, where the model is wrong, and where its margin has no gradient."""

        def look(shared: PyTree, rows: PyTree) -> tuple[jax.Array, ...]:
            images, labels, keys = rows
            model = self._classifier(logits_fn, shared, labels)
            outputs, wrong = self._judged(model, images, keys)
            again = self._judged(model, images, fold_in(keys, 1))[0]
            return outputs, again, wrong, masking.has_no_gradient(model, images, keys)

        shapes = self._logit_shape(logits_fn, params, images, keys)
        held = any_model.check_labels(labels, images, shapes)
        size = min(self.batch_size, len(images))
        found: tuple[np.ndarray, ...] = RowMap(look, self._mesh, size)(params, (images, held, keys))
        outputs, again, wrong, flat = found
        if not np.isfinite(outputs).all():
            raise DataError("the model gives logits that are not finite")
        return outputs, again, wrong, flat

    def _logit_shape(self, logits_fn: Callable[..., jax.Array], params: PyTree, images: np.ndarray, keys: Array) -> int:
        given = (images[:1], keys[:1]) if self._draws else (images[:1],)
        return int(jax.eval_shape(logits_fn, params, *given).shape[1])

    def _judged(self, model: Classifier, images: Array, keys: Array) -> tuple[jax.Array, jax.Array]:
        """Return logits, and where they are wrong; of a random model by one draw that the attack does not see."""
        outputs = model.logits_fn(images, fold_in(keys, _JUDGE)) if self._draws else model.logits_fn(images)
        return outputs, losses.is_wrong(outputs, model.labels)

    def _packed(
        self,
        part: Part,
        logits_fn: Callable[..., jax.Array],
        shared: PyTree,
        rows: PyTree,
        index: np.ndarray,
        batch_size: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run a part on the rows `index`, in batches of few sizes."""

        def autoattack(shared: PyTree, rows: PyTree) -> Found:
            (params, settings, number), (images, labels, keys, latest) = shared, rows
            model = self._classifier(logits_fn, params, labels)
            found, success = part.run(model, images, keys, settings, number, latest)
            wrong = self._judged(model, found, fold_in(keys, number))[1]
            return found, success & wrong

        pieces = []
        for piece, size in _buckets(index, batch_size):
            key = (part.name, size)
            if key not in self._maps:
                self._maps[key] = RowMap(autoattack, self._mesh, size)
            pieces.append(self._maps[key](shared, jax.tree.map(lambda x: x[piece], rows)))  # noqa: B023
        found, broken = (np.concatenate(arrays) for arrays in zip(*pieces))
        return found, broken

    def _notes(
        self,
        outputs: np.ndarray,
        again: np.ndarray,
        right: np.ndarray,
        flat: np.ndarray,
        survived: Mapping[str, np.ndarray],
        labels: np.ndarray,
    ) -> tuple[str, ...]:
        """Return what the public code's checks warn of, in words."""
        notes, classes = [], outputs.shape[1]
        if not self._draws and float(np.abs(outputs - again).max()) > 0:
            notes.append("two calls of the model differ: a random defence needs draws, or version='rand'")
        if masking.are_probabilities(outputs, labels.ndim == 2):
            notes.append("the model gives probabilities, not logits, whose gradients vanish")
        if int((flat & right).sum()):
            notes.append(
                f"{int((flat & right).sum())} of {int(right.sum())} right images have a gradient of exactly 0: "
                "attacks by gradients say nothing there"
            )
        order = list(survived)
        if "square" in order[1:]:
            before = survived[order[order.index("square") - 1]]
            if (alone := float(before.mean() - survived["square"].mean())) > SQUARE_ALONE:
                notes.append(
                    f"Square broke {alone:.1%} of the images after the gradients gave up: gradients may be masked, and "
                    "the figure is an upper bound"
                )
        if labels.ndim == 1 and classes < 4 and any(name in survived for name in ("apgd_t", "apgd_dlr")):
            notes.append(f"the DLR of {classes} classes is undefined: the margin stands in for it")
        return tuple(notes)


def _buckets(index: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cut rows into whole batches, and the rest into batches of 1, 1/4 or 1/16 of that: the largest that hardly pad."""
    whole = len(index) // batch_size * batch_size
    if whole:
        yield index[:whole], batch_size
    rest = index[whole:]
    if rest.size:
        sizes = sorted({max(batch_size // 16, 1), max(batch_size // 4, 1), batch_size}, reverse=True)
        padded = {size: -(-rest.size // size) * size for size in sizes}
        yield rest, next(size for size in sizes if padded[size] <= PADDING * min(padded.values()))
