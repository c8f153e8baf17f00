"""The page opens alone, says the same each time, lets nothing through unescaped, and does without what is missing."""

import copy
import csv
import io
import json
import re

import pytest

from ranjax.core.errors import DataError
from ranjax.report import page, pooling
from ranjax.report import report_tables as tables
from ranjax.report.book import Book

from . import fake
from .reader import Reader

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & $x^2$ -->"


@pytest.fixture(scope="module")
def reader(written):
    return Reader(written)


def test_loads_nothing_from_elsewhere(reader, written):
    names = {name for name, _ in reader.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "base"}
    for name, attributes in reader.elements:
        for key in ("src", "srcset", "href", "xlink:href", "data", "poster"):
            address = attributes.get(key) or ""
            assert not re.match(r"(?i)\s*(https?:|//|file:|ftp:)", address), (name, address)
            assert address.startswith("data:image/png;base64,") if key == "src" and address else True
    style = re.findall(r"<style>(.*?)</style>", written.read_text(), re.DOTALL)
    assert style
    assert not re.search(r"@import|url\((?!#)", " ".join(style))


def test_links_lead_somewhere(reader, written):
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "ids are unique, those inside the plots included"
    for name, attributes in reader.elements:
        address = attributes.get("href")
        if address and address.startswith("#"):
            assert address[1:] in ids, (name, address)
        elif address:
            assert (written.parent / address).is_file()
    for used in re.findall(r"url\(#([^)]*)\)", written.read_text()):
        assert used in ids


def test_is_well_formed_and_accessible(reader):
    assert reader.unclosed == []
    assert reader.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in reader.all("img"))
    assert all(plot.get("aria-label") or plot.get("aria-hidden") for plot in reader.all("svg"))
    assert all(head.get("scope") in ("col", "row") for head in reader.all("th"))
    assert len(reader.all("h1")) == 1


def test_same_input_gives_same_bytes(written, write, results):
    again = write(results, fake.run())
    files = sorted(path.relative_to(written.parent) for path in written.parent.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again.parent) for path in again.parent.rglob("*") if path.is_file())
    assert all((written.parent / name).read_bytes() == (again.parent / name).read_bytes() for name in files)


def test_says_what_must_be_said(reader):
    assert "project's own reconstruction" in reader.text
    assert "No number on this page is the paper's" in reader.text
    assert "One real patient (LIDC-IDRI-0001) with simulated lesions. No clinical claim" in reader.text
    assert "python -m ranjax.main --config configs/ran.py" in reader.text
    assert "0.10.2" in reader.text
    assert "pretrain.peak_rate" in reader.text
    assert "suspicious" in reader.text


def test_csv_equals_rows(written, results):
    with (written.parent / "data" / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(results["rows"])
    for line, row in zip(lines, results["rows"]):
        for name, value in row.items():
            if value is None:
                assert line[name] == ""
            elif isinstance(value, float | int):
                assert float(line[name]) == value
            else:
                assert line[name] == value


def test_csv_of_a_plot_holds_the_rows_that_it_draws(written, results):
    with (written.parent / "data" / "macro_auroc_against_noise_joint_finding.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    drawn = [row for row in results["rows"] if row["metric"] == "macro_auroc" and row["seed"] is None]
    assert [float(line["value"]) for line in lines] == [row["value"] for row in drawn]


def test_names_of_files_stay_apart_and_inside_the_folder():
    book = Book.of({})
    for name in ("a b", "a_b", "../../x", "x" * 300, "x" * 301):
        book.csv(name, [], ["value"])
    assert len(book.files) == 5
    assert all(re.fullmatch(r"data/[\w.-]{1,100}\.csv", file) for file in book.files)


def test_stale_csv_goes_away(tmp_path, results):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "accuracy_of_yesterday.csv").write_text("old")
    html, data = "<p></p>", {"data/results.csv": tables.to_csv(results["rows"][:2], ["value"])}
    page.write_files(tmp_path, html, data)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["results.csv"]


def test_changed_words_are_marked(written):
    html = written.read_text()
    assert '<del>moderate</del><span class="arrow"> → </span><ins>mild</ins>' in html
    assert '<del>right</del><span class="arrow"> → </span><ins>left</ins>' in html


def _poison(value):
    if isinstance(value, dict):
        return {f"{key}": _poison(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_poison(inner) for inner in value]
    return f"{value} {EVIL}" if isinstance(value, str) else value


def test_text_from_outside_stays_text(write):
    """Every string of both files is hostile, names and keys included, but for metrics and attacks."""
    results = _poison(fake.results(ratios=(0.0, 0.3)))
    for row in results["rows"] + results["comparisons"]:
        row["metric"] = row["metric"].split()[0]
        row["attack"] = row["attack"].split()[0]
    results["card"][EVIL] = EVIL
    results["config"][EVIL] = {EVIL: EVIL}
    results["chance"] = fake.CHANCE
    run = _poison(fake.run())
    run["versions"][EVIL] = EVIL
    hostile = Reader(write(results, run))
    assert hostile.unclosed == []
    assert not hostile.all("script")
    assert all(not key.startswith("on") for _, attributes in hostile.elements for key in attributes)
    assert all("data:" in (image["src"] or "") for image in hostile.all("img"))
    assert EVIL in hostile.text


def _without(results, *keys):
    return {key: value for key, value in results.items() if key not in keys}


def _clean_rows_of_one_ratio(results):
    rows = [row for row in results["rows"] if row["ratio"] == 0 and row["attack"] == "none" and row["method"] == "lp"]
    return {"schema": 1, "rows": rows}


def _no_intervals(results):
    changed = copy.deepcopy(results)
    for row in changed["rows"] + changed["comparisons"]:
        row["low"] = row["high"] = None
    return _without(changed, "examples", "spectra")


def _not_numbers(results):
    changed = copy.deepcopy(_without(results, "examples"))
    changed["rows"] = [
        {**row, "value": None if index % 2 else float("nan")} for index, row in enumerate(changed["rows"])
    ]
    changed["spectra"] = [{**item, "singular_values": [0.0, 0.0]} for item in changed["spectra"][:2]]
    changed["comparisons"] = [{**item, "difference": float("nan")} for item in changed["comparisons"]]
    return changed


def _only_seeds(results):
    rows = [row for row in results["rows"] if row["seed"] is not None and row["metric"] == "accuracy"]
    return {"schema": 1, "rows": rows, "classes": results["classes"]}


def _odd_examples(results):
    example = {**results["examples"][0], "image": "not base64", "attacked": None, "attacked_report": "fewer words"}
    return {"schema": 1, "rows": [], "examples": [example, {"id": "bare"}, {**example, "report": "", "label": -1}]}


@pytest.mark.parametrize(
    ("lessen", "said"),
    [
        (lambda _: {"schema": 1}, "no accuracy or AUROC"),
        (lambda _: {"rows": [], "spectra": [], "examples": [], "comparisons": [], "masking": []}, "no attacked pairs"),
        (_clean_rows_of_one_ratio, "no attacked figures"),
        (_no_intervals, "no finding is worded"),
        (_not_numbers, "no accuracy or AUROC"),
        (_only_seeds, "no finding is worded"),
        (_odd_examples, "no picture"),
    ],
    ids=["empty", "empty lists", "one ratio", "no intervals", "not numbers", "only seeds", "odd examples"],
)
def test_missing_pieces_are_left_out_with_a_word(write, results, lessen, said):
    made = Reader(write(lessen(results)))
    assert said in made.text
    assert made.unclosed == []


def test_without_a_run_file_the_page_says_so(write):
    made = Reader(write({"schema": 1, "rows": [fake.row()]}))
    assert "No times of this run were left" in made.text
    assert "No versions of this run were left" in made.text


def test_several_conditions_have_their_own_curves(write):
    results = fake.results(ratios=(0.0, 0.3), conditions=("joint", "gaussian"))
    keep = ("schema", "comparisons", "chance", "masking", "rows")
    results = {key: results[key] for key in keep}
    results["rows"] = [row for row in results["rows"] if row["metric"] == "accuracy" and row["split"] == "test"]
    made = write(results)
    text = Reader(made).text
    assert "Condition joint" in text
    assert "Condition gaussian" in text
    for condition in ("joint", "gaussian"):
        with (made.parent / "data" / f"accuracy_against_noise_{condition}_finding.csv").open(newline="") as file:
            assert {line["condition"] for line in csv.DictReader(file)} == {"clean", condition}


def test_results_of_earlier_versions_have_their_arms_read_as_conditions(tmp_path, results, written):
    def earlier(value):
        if isinstance(value, dict):
            return {"arm" if name == "condition" else name: earlier(inner) for name, inner in value.items()}
        return [earlier(inner) for inner in value] if isinstance(value, list) else value

    (tmp_path / "results.json").write_text(json.dumps(earlier(results)))
    (tmp_path / "run.json").write_text(json.dumps(earlier(fake.run())))
    made = page.write_report(tmp_path / "results.json", tmp_path / "run.json", tmp_path / "report")
    assert made.read_bytes() == written.read_bytes()


def test_refuses_what_is_not_results(tmp_path):
    broken = tmp_path / "results.json"
    for content, word in (("{", "JSON"), ("[]", "list"), (json.dumps({"schema": 2}), "schema 2")):
        broken.write_text(content)
        with pytest.raises(DataError, match=word):
            page.write_report(broken, tmp_path / "run.json", tmp_path / "report")
    with pytest.raises(DataError, match=r"absent\.json"):
        page.write_report(tmp_path / "absent.json", tmp_path / "run.json", tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_worst_group_is_named_on_the_page_and_beside_its_figure_in_the_files(tmp_path):
    worst = {"task": "groups", "metric": "worst_group/side", "group": "left"}
    html, data = page.build({"schema": 1, "rows": [fake.row(**worst)]}, {})
    assert "70.0 [66.0, 74.0] left" in html
    for name in ("groups", "results"):
        assert next(csv.DictReader(io.StringIO(data[f"data/{name}.csv"])))["group"] == "left"
    both = pooling.rows_over_runs([[fake.row(**worst)], [fake.row(**worst | {"group": "right"})]])
    assert both[0]["group"] == "left or right"


def test_marks_of_reliability_have_the_area_of_their_bins_and_the_file_holds_every_count(monkeypatch):
    bins = [[0, None, None], [1, 0.15, 1.0], [50, 0.5, 0.4], [149, 0.9, 0.8]]
    item = {"condition": "coattack", "ratio": 0.0, "method": "ran", "split": "test", "attack": "none", "bins": bins}
    drawn = []
    from matplotlib.axes import Axes

    scatter = Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda *a, **k: (drawn.append(a[1:4]), scatter(*a, **k))[1])
    html, data = page.build({"schema": 1, "rows": [], "calibration": [item]}, {})
    ((x, _, areas),) = drawn
    assert x == [50.0, 90.0]  # one answer of 200 is too few to draw
    assert areas[1] / areas[0] == pytest.approx(149 / 50)
    assert "40 at confidence 50 (25 % of answers)" in html
    lines = list(csv.DictReader(io.StringIO(data["data/calibration.csv"])))
    assert [(line["count"], line["answers"]) for line in lines] == [(str(n), "200") for n in (0, 1, 50, 149)]


def test_the_axis_of_a_spectrum_ends_above_rounding_and_the_file_does_not(monkeypatch):
    from matplotlib.axes import Axes

    ends, limit = [], Axes.set_ylim
    monkeypatch.setattr(Axes, "set_ylim", lambda *a, **k: (ends.append(k.get("bottom")), limit(*a, **k))[1])
    where = {"condition": "clean", "ratio": 0.0, "method": "encoder", "features": "clean", "sve": 1.0, "lsvr": 0.1}
    for values, bottom in (([3.0, 1.0, 1e-9], 0.75e-5), ([3.0, 1.0, 1e-3], None)):
        ends.clear()
        _, data = page.build({"schema": 1, "rows": [], "spectra": [{**where, "singular_values": values}]}, {})
        assert [end for end in ends if end is not None] == ([pytest.approx(bottom)] if bottom else [])
        lines = list(csv.DictReader(io.StringIO(data["data/spectra.csv"])))
        assert [float(line["singular_value"]) for line in lines] == values


@pytest.mark.parametrize(
    ("adapt", "said"),
    [
        ({"shots": 4, "share": 1.0}, "the same 4 labelled examples of each class (24 in all)"),
        ({"shots": 0, "share": 0.1}, "the same 10 % of the labelled examples (24 in all)"),
        ({"shots": 0, "share": 1.0}, None),
    ],
)
def test_what_a_choice_of_few_labels_holds_fixed_stands_beside_the_figures(tmp_path, adapt, said):
    methods = [{"condition": "clean", "ratio": 0.0, "method": "lp", "data": {"examples": 24, **adapt}}]
    results = {"schema": 1, "rows": [fake.row()], "methods": methods, "config": {"seed": 0, "adapt": adapt}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    text = Reader(page.write_report(tmp_path / "results.json", tmp_path / "none.json", tmp_path / "out")).text
    shown = pooling.markdown([results], ["run"])
    assert text.count("Few labels") == (2 if said else 0)  # beside the curves and the main tables
    assert shown.count("Few labels") == (1 if said else 0)
    if said:
        assert said in text
        assert said in shown
