"""The generated chest radiographs as a tensorflow-datasets builder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping

from ranjax.data.builders.pair_builder import PairsBuilder, PairsConfig
from ranjax.data.set_settings import RadiographSettings
from ranjax.data.sources import Record

CHUNK = 256
"""Cases rendered at a time: it bounds memory and changes no image."""


class RanjaxRadiographs(PairsBuilder):
    """Radiographs of the generator with their reports: `RanjaxRadiographs(settings, data_dir=...)`."""

    name = "ranjax_radiographs"

    def __init__(self, settings: RadiographSettings, fingerprint: str, **kwargs):
        from ranjax.data import radiographs

        self.settings, self._generator = settings, radiographs
        description = "Simulated chest radiographs with reports; see the data card of ranjax.data.radiographs."
        config = PairsConfig(
            name=fingerprint,
            description=description,
            class_count=len(radiographs.CLASSES),
            image_size=settings.image_size,
        )
        super().__init__(config=config, **kwargs)

    @property
    def total(self) -> int:
        """Rows that will be gone through."""
        return sum(self.settings.counts.values())

    def splits(self) -> Mapping[str, Callable[[], Iterator[Record]]]:
        counts = self.settings.counts
        return {split: functools.partial(self._records, split, count) for split, count in counts.items() if count}

    def _records(self, split: str, count: int) -> Iterator[Record]:
        generator, settings = self._generator, self.settings
        multiple = settings.multiple if split == "train" else settings.multiple_downstream
        acquisition = generator.OUT_OF_DOMAIN if split == "ood_test" else generator.IN_DOMAIN
        cases = generator.sample_cases(settings.seed, split, count, multiple, acquisition)
        written = {case.id: (generator.write_report(case), "") for case in cases}
        if settings.reports:
            from ranjax.data.text import pairing

            written = pairing.pair(cases, settings.reports, split, settings.seed)
        for start in range(0, count, CHUNK):
            part = cases[start : start + CHUNK]
            for case, image in zip(part, generator.render_cases(part, settings.image_size)):
                findings = [
                    {"kind": f.kind, "side": f.side, "lobe": f.lobe, "severity": f.severity, "size_cm": f.size_cm}
                    for f in case.findings
                ]
                report, source = written.get(case.id, ("", ""))
                if not report:
                    self.exclude(case.id, split, "no report of such findings")
                    continue
                yield {
                    "id": case.id,
                    "image": image[:, :, None],
                    "report": report,
                    "label": generator.label(case),
                    "labels": generator.labels(case),
                    "patient": case.patient,
                    "group": {"sex": case.sex, "age": case.age, "findings": findings}
                    | ({"report of": source} if source else {}),
                }
