"""Tables keep to their width, set off only what stands out, and write figures with sensible digits."""

import csv
import io

import pytest

from ranjax.report import entry_labels as labels
from ranjax.report import figures, pictures, wording
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.stored_results import pooled

from . import fake


def test_terminal_table_fits_100_columns(results):
    written = tables.terminal_table(results["rows"])
    assert max(len(line) for line in written.splitlines()) <= 100
    line = next(line for line in written.splitlines() if line.startswith("30 %   RAN"))
    row = frames.first(
        frames.rows_frame(results["rows"]), method="ran", ratio=0.3, metric="accuracy", split="test", attack="pgd"
    )
    assert wording.estimate(row) in line
    assert "Retrieval R@1" in written


def test_terminal_table_fits_with_long_names_many_attacks_and_full_marks():
    names = ["none", *(f"attack_number_{index}_with_a_long_name" for index in range(6))]
    rows = [
        fake.row(
            method="a_method_with_a_rather_long_name",
            task="t" * 200,
            attack=name,
            value=1.0,
            low=1.0,
            high=1.0,
            split=split,
        )
        for name in names
        for split in ("test", "ood_test", "another_split_altogether")
    ]
    written = tables.terminal_table(rows)
    assert max(len(line) for line in written.splitlines()) <= 100
    assert written.count("100.0 [100.0, 100.0]") == len(rows)


def test_terminal_table_of_nothing_says_so():
    assert "No accuracy" in tables.terminal_table([])
    assert "No accuracy" in tables.terminal_table([fake.row(metric="auroc")])


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [
        (0.6213, "accuracy", "62.1"),
        (-0.0001, "accuracy", "0.0"),
        (0.87249, "auroc", "0.872"),
        (0.0451, "ece", "0.045"),
        (0.005, "recall@1", "0.5"),
        (3.14159, "sve", "3.14"),
        (None, "accuracy", "–"),
        (float("nan"), "accuracy", "–"),
    ],
)
def test_digits(value, metric, shown):
    assert wording.number(value, metric) == shown


def test_estimate_shows_its_interval():
    assert wording.estimate(fake.row(value=0.621, low=0.589, high=0.65)) == "62.1 [58.9, 65.0]"
    assert wording.estimate(fake.row(value=0.621, low=None, high=None)) == "62.1"
    assert wording.estimate(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "said"), [(8.44, "8.4 s"), (59.99, "60.0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "–")]
)
def test_durations(seconds, said):
    assert wording.duration(seconds) == said


def test_best_only_where_its_interval_lies_beyond_all_others():
    low = fake.row(value=0.5, low=0.45, high=0.55)
    high = fake.row(value=0.7, low=0.65, high=0.75)
    near = fake.row(value=0.6, low=0.56, high=0.66)
    assert tables.best([low, high]) == 1
    assert tables.best([{**low, "metric": "ece"}, {**high, "metric": "ece"}]) == 0
    assert tables.best([low, high, near]) is None
    assert tables.best([None, high]) is None
    assert tables.best([fake.row(low=None), high]) is None


def test_main_table_sets_off_the_best(results):
    table = tables.main_table(frames.downstream(frames.rows_frame(results["rows"])), "accuracy")
    assert table.columns[2:] == [
        "In domain, clean",
        "In domain, attacked",
        "Out of domain, clean",
        "Out of domain, attacked",
    ]
    assert [line[1] for line in table.lines[:5]] == ["Zero-shot", "LP", "MLP", "NMTune", "RAN"]
    assert (4, 3) in table.bold
    assert not any(column == 2 for _, column in table.bold)


def test_class_table_has_a_line_for_each_class_and_ratio():
    rows = [
        fake.row(metric=f"auroc/{name}", method=method, ratio=ratio, value=value, low=value - 0.02, high=value + 0.02)
        for name in ("mass", "oedema")
        for method, value in (("lp", 0.8), ("ran", 0.9))
        for ratio in (0.0, 0.3)
    ]
    table = tables.class_table(frames.rows_frame(rows))
    assert [line[:2] for line in table.lines] == [
        ["0 %", "mass"],
        ["0 %", "oedema"],
        ["30 %", "mass"],
        ["30 %", "oedema"],
    ]
    assert table.lines[0][2:] == ["0.800 [0.780, 0.820]", "0.900 [0.880, 0.920]"]
    assert table.bold == {(line, 3) for line in range(4)}


def test_every_kind_of_auroc_has_one_level_of_chance():
    assert wording.chance_level({"auroc": 0.5}, "macro_auroc") == 0.5
    assert wording.chance_level({"auroc": 0.5, "macro_auroc": 0.4}, "macro_auroc") == 0.4
    assert wording.chance_level({"auroc": 0.5}, "ece") is None


def test_csv_keeps_every_digit_and_quotes():
    value = 0.1 + 0.2
    written = tables.to_csv([{"a": value, "b": 'x,"y"\nz', "c": None, "unused": 1}], ["a", "b", "c"])
    read = next(csv.DictReader(io.StringIO(written)))
    assert float(read["a"]) == value
    assert read["b"] == 'x,"y"\nz'
    assert read["c"] == ""


def test_a_row_over_all_seeds_goes_before_its_seeds():
    rows = [fake.row(seed=0, value=0.1), fake.row(value=0.5), fake.row(seed=1, value=0.2)]
    assert [row["value"] for row in pooled(rows)] == [0.5]
    seeds = pooled([fake.row(seed=0, value=0.1), fake.row(seed=1, value=0.3)])
    assert seeds[0]["value"] == pytest.approx(0.2)
    assert seeds[0]["low"] is None


def test_every_condition_begins_at_ratio_0():
    rows = [fake.row(), fake.row(condition="joint", ratio=0.1), fake.row(condition="gaussian", ratio=0.1)]
    frame = frames.rows_frame(rows)
    assert frames.conditions(frame) == ["joint", "gaussian"]
    assert frames.of_condition(frame, "joint")["condition"].tolist() == ["clean", "joint"]


def test_lines_and_columns_of_a_cross_table_stand_in_their_order_whatever_that_of_the_rows():
    rows = [
        fake.row(method=method, ratio=ratio, attack=attack, value=0.5)
        for attack in ("pgd", "none")
        for ratio in (0.3, 0.0)
        for method in ("ran", "lp", "zero_shot")
    ]
    table = tables.main_table(frames.rows_frame([*rows[1:], rows[0]]), "accuracy")
    assert table.columns == ["Noise", "Method", "In domain, clean", "In domain, attacked"]
    assert [line[:2] for line in table.lines[2:4]] == [["0 %", "RAN"], ["30 %", "Zero-shot"]]
    assert table.breaks == {3}


def test_two_methods_of_one_label_keep_a_line_each():
    rows = [fake.row(method="lp"), fake.row(method="ours", value=0.2)]
    with labels.labels_of([{"labels": {"methods": {"ours": {"label": "LP"}}}}]):
        table = tables.main_table(frames.rows_frame(rows), "accuracy")
    assert [line[1] for line in table.lines] == ["LP", "LP"]


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ("a b c d", "a x c d", [("a ", "a "), ("b", "x"), (" c d", " c d")]),
        ("a b c", "a c", [("a ", "a "), ("b", ""), (" c", " c")]),
        ("Mass, left.", "mass , right .", [("Mass, ", "Mass, "), ("left", "right"), (".", ".")]),
        ("a b", "a new b", [("a", "a"), ("", "new"), (" b", " b")]),
        ("", "", []),
        ("a\n", "a", [("a\n", "a\n")]),
    ],
)
def test_word_changes(before, after, changes):
    assert pictures.word_changes(before, after) == changes
    assert "".join(old for old, _ in changes) == before


def test_only_png_becomes_a_picture():
    assert pictures.png_source(fake.png(0)).startswith("data:image/png;base64,")
    for bad in (None, "", "abc", 'x" onerror="y', "PHN2Zy8+", 5):
        assert pictures.png_source(bad) is None


def test_methods_look_different_without_colour():
    looks = figures.styles(["zero_shot", "lp", "mlp", "nmtune", "ran", "lora", "fft", "tecoa", "fare"])
    assert len({look.marker for look in looks.values()}) == len(looks)
    assert len({(look.color, look.marker, str(look.line)) for look in looks.values()}) == len(looks)


def test_retrieval_by_sentences_has_a_line_of_chance_each_way():
    rows = [
        fake.row(task="retrieval_sentences", method=way, metric="recall@1", value=0.2, low=0.1, high=0.3)
        for way in ("image_to_text", "text_to_image")
    ]
    chance = {f"retrieval_sentences/{way}/recall@1": 0.04 for way in ("image_to_text", "text_to_image")}
    table = tables.without_head_table(frames.rows_frame(rows), chance | {"recall@1": 0.01}, "retrieval_sentences")
    assert [line[1:] for line in table.lines[2:]] == [
        ["Chance", "image to report", "4.0"],
        ["Chance", "report to image", "4.0"],
    ]
    assert tables.without_head_table(frames.rows_frame(rows), {"recall@1": 0.01}).lines[-1][1:] == [
        "Chance",
        "guessing",
        "1.0",
    ]
