"""Batches by step: a pure function of (source, seed, step), so that resuming needs nothing but the step.

    batches = Batches(source, batch_size=64, seed=0, tokenizer=tokenizer, length=64)
    batches[0]["images"]          # f32[64, H, W, 1] in [0, 1]

Every epoch visits the examples in a new global order, none of them twice; what does not fill a batch waits for another
epoch's order. The order comes from Grain's index shuffle and depends neither on workers nor on processes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.pixels import to_float
from ranjax.data.images.augment import Augmentation, generator
from ranjax.data.sources import Record, Source
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.data.text.tokenizer_checks import check_ends

MEMORY_LIMIT = 1 << 30
"""Bytes of stored pixels up to which a source is kept in memory whole; larger ones are read as they are needed."""


class Loader:
    """Rows of a source as arrays. Keeps a small source in memory, as integers; reads a large one lazily.

    Args:
      source: the records.
      tokenizer: how reports become tokens; None leaves them out.
      length: tokens a report.
      memory_limit: see `MEMORY_LIMIT`.
      threads: that decode the rows of a batch, 0 for one per core; Pillow and array_record let others run. Rows do
        not depend on it.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer | None = None,
        length: int = 64,
        memory_limit: int = MEMORY_LIMIT,
        threads: int = 1,
    ):
        if not len(source):
            raise DataError("the source has no records to make batches of")
        if threads < 0:
            raise ConfigError("data.threads", threads, "at least 1, or 0 for one per core")
        threads = threads or len(os.sched_getaffinity(0))
        self.source, self.tokenizer, self.length, self.threads = source, tokenizer, length, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode") if threads > 1 else None
        first = source[0]["image"]
        self.in_memory = len(source) * first.nbytes <= memory_limit
        self._rows = self._read(np.arange(len(source))) if self.in_memory else None
        self._ranged = False

    def __len__(self) -> int:
        return len(self.source)

    def load(self, index: Int[np.ndarray, " batch"]) -> dict[str, np.ndarray]:
        """Return the rows at `index` i[B]: images f32[B,H,W,C] in [0, 1], label i32[B], labels f32[B,C], index
        i32[B], ids
        str[B], and with a tokenizer tokens i32[B,L] and mask bool[B,L]."""
        index = np.asarray(index)
        rows = {k: v[index] for k, v in self._rows.items()} if self._rows is not None else self._read(index)
        if not self._ranged:
            self._ranged = True
            _warn_of_range(rows["images"])
        return {**rows, "images": to_float(rows["images"]), "index": index.astype(np.int32)}

    def _read(self, index: np.ndarray) -> dict[str, np.ndarray]:
        records = self._records(index)
        rows = {
            "images": np.stack([record["image"] for record in records]),
            "label": np.array([record["label"] for record in records], np.int32),
            "labels": np.stack([np.asarray(record["labels"], np.float32) for record in records]),
            "ids": np.array([record["id"] for record in records]),
        }
        if self.tokenizer is not None:
            rows |= self.encode([record["report"] for record in records])
            noisy_pairs = []
            for row, record in enumerate(records):
                # A noisy pair brings the very tokens it was crafted with: its text may be split another way.
                if len(record.get("tokens", ())) == self.length:
                    rows["tokens"][row], rows["mask"][row] = record["tokens"], record["mask"]
                    noisy_pairs.append(row)
            if noisy_pairs:
                names = rows["ids"][noisy_pairs].tolist()
                check_ends(rows["tokens"][noisy_pairs], rows["mask"][noisy_pairs], self.tokenizer.eos_id, names)
        return rows

    def _records(self, index: np.ndarray) -> list[Record]:
        if self._pool is None:
            return [self.source[i] for i in index]
        # A run of rows in each thread: handing over single rows costs more than it evens out.
        parts = np.array_split(np.asarray(index), min(self.threads, len(index)))
        return [
            record for part in self._pool.map(lambda part: [self.source[i] for i in part], parts) for record in part
        ]

    def encode(self, reports: list[str]) -> dict[str, np.ndarray]:
        """Encode reports to tokens i32[B, L] and mask bool[B, L]."""
        if self.tokenizer is None:
            return {}
        tokens = self.tokenizer.encode(reports, self.length)
        return {"tokens": tokens.ids, "mask": tokens.mask}


def _warn_of_range(images: np.ndarray) -> None:
    """Warn where the first rows disagree with the range that their type declares (0..255, or 0..65535)."""
    high, declared = int(images.max()), int(np.iinfo(images.dtype).max)
    if high <= (1 if images.dtype == np.uint8 else 255):
        warnings.warn(
            f"the first batch holds no pixel above {high}, though its images are declared as 0 to {declared}: they "
            "were normalised or stored in fewer bits before, and look black to a model",
            stacklevel=4,
        )


class Batches:
    """Training batches by step.

    Args:
      source: the records, or a `Loader` of them.
      batch_size: of the global batch.
      seed: of the order.
      tokenizer, length, memory_limit: see `Loader`.
      process_index, process_count: this process's rows of each global batch; the slices are disjoint and in order.
      threads: see `Loader`.
      augment: what is done to the pairs, a function of (seed, epoch, id).

    Raises:
      ConfigError: a batch larger than the source or not divisible by the processes.
    """

    def __init__(
        self,
        source: Source | Loader,
        batch_size: int,
        seed: int,
        tokenizer: Tokenizer | None = None,
        length: int = 64,
        process_index: int = 0,
        process_count: int = 1,
        memory_limit: int = MEMORY_LIMIT,
        threads: int = 1,
        augment: Augmentation | None = None,
    ):
        size = len(source)
        if not 1 <= batch_size <= size:
            raise ConfigError("batch_size", batch_size, f"from 1 to the {size} examples of the source")
        if process_count < 1 or batch_size % process_count or not 0 <= process_index < process_count:
            given = {"batch_size": batch_size, "process_index": process_index, "process_count": process_count}
            raise ConfigError("batch_size", given, "a multiple of the number of processes, with an index below it")
        made = source if isinstance(source, Loader) else Loader(source, tokenizer, length, memory_limit, threads)
        self.loader, self.seed, self.augment = made, seed, augment
        self.batch_size, self.steps_per_epoch = batch_size, size // batch_size
        share = batch_size // process_count
        # Here, as it brings orbax with it: evaluation needs neither.
        import grain

        self._slice = slice(process_index * share, (process_index + 1) * share)
        # Batched before it is repeated: a batch that spanned two epochs could hold one example twice.
        self._order = grain.MapDataset.range(size).seed(seed).shuffle().batch(batch_size, drop_remainder=True)
        self._dataset = self._order.repeat(None, reseed_each_epoch=True).map_with_index(self._load)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of `step`, counted from 0 and without end; see `Loader.load` for its entries."""
        if step < 0:
            raise IndexError(f"step {step}; steps are counted from 0")
        return self._dataset[int(step)]

    def index(self, step: int) -> Int[np.ndarray, " batch"]:
        """Return i[B], the positions in the source of the global batch of `step`, without reading it."""
        return np.asarray(self._order.repeat(None, reseed_each_epoch=True)[int(step)])

    def iterate(self, start: int = 0, threads: int = 2, ahead: int = 4) -> Iterator[dict[str, np.ndarray]]:
        """Yield batches from `start` on, read ahead by threads; the same ones as by step, whatever `threads` is."""
        import grain

        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        iterator = iter(self._dataset.to_iter_dataset(options))
        iterator.set_state({"next_index": start})
        return iterator

    def _load(self, step: int, index: Int[np.ndarray, " batch"]) -> dict[str, np.ndarray]:
        rows = self.loader.load(np.asarray(index)[self._slice])
        return rows if self.augment is None else self._augmented(rows, int(step) // self.steps_per_epoch, self.augment)

    def _augmented(self, rows: dict[str, np.ndarray], epoch: int, augment: Augmentation) -> dict[str, np.ndarray]:
        ids = [str(identity) for identity in rows["ids"]]
        metas = [self.loader.source.meta(int(i)) for i in rows["index"]]
        if augment.of_images:
            draws = [generator(self.seed, epoch, identity, "image") for identity in ids]
            changed = zip(rows["images"], metas, draws)
            rows["images"] = np.stack([augment.image(image, meta["report"], draw) for image, meta, draw in changed])
        if augment.sentences and self.loader.tokenizer is not None:
            # A noisy pair's tokens are what was crafted: they stay as they are.
            free = [row for row, meta in enumerate(metas) if not len(meta.get("tokens", ()))]
            draws = [generator(self.seed, epoch, ids[row], "report") for row in free]
            texts = [augment.report(metas[row]["report"], draw) for row, draw in zip(free, draws)]
            for name, value in self.loader.encode(texts).items() if free else ():
                rows[name] = rows[name].copy()
                rows[name][free] = value
        return rows
