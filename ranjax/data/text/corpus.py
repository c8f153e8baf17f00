"""Texts without images: further reports for the vocabulary and for the small masked language model.

read_corpus(Path("torchxrayvision-1.5.7-py3-none-any.whl"))     # iu_reports: 3,955 real reports, read where they lie
"""

from __future__ import annotations

from pathlib import Path

from ranjax.core.errors import DataError
from ranjax.data.text import openi, reports


def read_corpus(path: Path) -> list[str]:
    """Read the findings and impressions of Indiana University (`ranjax.data.text.openi`), or the lines of a .txt.

    Each text is one line whose sentences stand once; what holds no letter is left out.

    Raises:
      DataError: nothing of the kind lies there, it cannot be read, or no text is left.
    """
    path = Path(path).expanduser()
    if path.suffix == ".txt":
        from ranjax.data.publisher_tables import text

        found = text(path).splitlines()
    else:
        found = [reports.select(r.text(), ("findings", "impression")) for r in openi.read_reports(path)]
    texts = [reports.without_repeats(line) for line in found if any(c.isalpha() for c in line)]
    if not texts:
        raise DataError(f"{path} holds no text.")
    return texts
