"""Sets of questions about medical images. The record's report is "question answer"; `group` keeps the two apart.

Open and closed are told by each set's own rule, which `group` names, so that figures never mix two definitions:
VQA-RAD and SLAKE by their column answer_type; PathVQA, which has none, by the answer being yes or no.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ranjax.core.errors import DataError
from ranjax.data.images.locations import CellRef, FileRef, Reference, read_table
from ranjax.data.publisher_tables import inside, needed
from ranjax.data.sets.spec import PRESENT, Entry, Options, Rejected, spec
from ranjax.data.strict_tables import objects
from ranjax.data.table_cells import is_missing

ANSWERS = ("no", "yes")


def _question_entry(
    identity: str,
    image: Reference,
    question: object,
    answer: object,
    closed: bool,
    rule: str,
    patient: str,
    split: str,
    **more: str,
) -> Entry | Rejected:
    # Answers may be numbers in the JSON; yes and no come in every case, and with blanks.
    question, answer = _said(question), _said(answer)
    if not question or not answer:
        return Rejected(identity, split, "the question is empty" if not question else "the answer is empty")
    label = answer.lower().rstrip(".")
    group = {"question": question, "answer": answer, "kind": "closed" if closed else "open", "rule": rule, **more}
    labels = {label: PRESENT} if label in ANSWERS else {}
    return Entry(identity, image, f"{question} {answer}", labels, patient, split, "", group)


def _said(given: object) -> str:
    """Return a text in one line; "None" may be an answer, a cell without a value is none."""
    return " ".join(("" if is_missing(given) and not isinstance(given, str) else str(given)).split())


def _vqa_rad(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    table = needed(root, "VQA_RAD Dataset Public.json", "VQA_RAD_Dataset_Public.json")
    folder = needed(root, "VQA_RAD Image Folder", "VQA_RAD_Image_Folder")
    for row in objects(table, ("qid", "image_name", "question", "answer")):
        # The phrase type names the test set; answer_type has stray blanks.
        split = "test" if str(row.get("phrase_type", "")).startswith("test") else "train"
        closed = str(row.get("answer_type", "")).strip().upper() == "CLOSED"
        name = str(row["image_name"])
        yield _question_entry(
            str(row["qid"]), FileRef(str(inside(folder, name))), row.get("question"), row.get("answer"), closed,
            # Train and test share pictures, by the publisher; what is cut from train is cut by picture.
            "answer_type", f"{split}/{name}", split, organ=str(row.get("image_organ", "")), picture=name,
        )  # fmt: skip


def _slake(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    language = options.values.get("language", "en")
    for split, file in (("train", "train.json"), ("validation", "validate.json"), ("test", "test.json")):
        table = needed(root, file)
        for row in objects(table, ("qid", "img_name", "question", "answer", "q_lang")):
            if language != "all" and row["q_lang"] != language:
                yield Rejected(f"{split}/{row['qid']}", split, f"the question's language is {row['q_lang']}")
                continue
            name = str(row["img_name"])
            yield _question_entry(
                f"{split}/{row['qid']}", FileRef(str(inside(table.parent / "imgs", name))), row.get("question"),
                row.get("answer"), str(row.get("answer_type", "")).strip().upper() == "CLOSED", "answer_type",
                name.split("/")[0], split, modality=str(row.get("modality", "")), language=str(row.get("q_lang", "")),
            )  # fmt: skip


def _path_vqa(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    for split, name in (("train", "train"), ("validation", "validation"), ("test", "test")):
        first = needed(root, f"{name}-*.parquet", f"data/{name}-*.parquet")
        for file in sorted(first.parent.glob(f"{name}-*.parquet")):
            table = read_table(str(file))
            missing = [column for column in ("image", "question", "answer") if column not in table.column_names]
            if missing:
                raise DataError(f"{file} has no column {missing[0]!r}; it has {', '.join(table.column_names)}.")
            for index, (question, answer) in enumerate(
                zip(table.column("question").to_pylist(), table.column("answer").to_pylist())
            ):
                closed = str(answer).strip().lower() in ANSWERS
                image = CellRef(str(file), "image", index)
                yield _question_entry(f"{file.stem}/{index}", image, question, answer, closed, "yes or no", "", split)


SPECS = (spec("vqa_rad", _vqa_rad), spec("slake", _slake), spec("path_vqa", _path_vqa))
