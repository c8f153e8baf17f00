"""The radiograph generator: films that repeat, lesions where the label says, and a bench for their looks."""

from dataclasses import replace

import numpy as np
import pytest
from heart_measure import cardiothoracic_ratio, lesion_volumes

from ranjax.data.radiographs import (
    CLASSES,
    DATA_CARD,
    KINDS,
    OUT_OF_DOMAIN,
    Acquisition,
    label,
    labels,
    lesion_masks,
    render_cases,
    sample_cases,
)
from ranjax.data.radiographs.volume import LOBE_NAMES, load_grid, load_scan

SIZE = 64
# Straight films of one body each, so that a side of the patient is a side of the picture.
STRAIGHT = Acquisition(
    "straight",
    yaw_deg=(0.0, 0.0),
    pitch_deg=(0.0, 0.0),
    roll_deg=(0.0, 0.0),
    shift_mm=(0.0, 0.0),
    noise=(0.0, 0.0),
    exposure=(0.0, 0.0),
    shutter_share=0.0,
)


def straight(case):
    """The case on a straight film, in a body without scoliosis."""
    return replace(case, body=replace(case.body, scoliosis_mm=0.0, devices=()))


@pytest.fixture(scope="module")
def singles():
    """Per class eight straight cases with that finding alone."""
    cases = [straight(c) for c in sample_cases(7, "probe", 8 * 8, multiple=0.0, acquisition=STRAIGHT)]
    return {kind: [case for case in cases if label(case) == CLASSES.index(kind)] for kind in CLASSES}


@pytest.fixture(scope="module")
def films(singles):
    """With and without the finding, float[8, 64, 64] in [0, 1], and the finding's shadow in cm, by kind."""
    found = {}
    for kind in KINDS:
        cases = singles[kind]
        index = KINDS.index(kind)
        with_finding = render_cases(cases, SIZE, batch=8) / 255.0
        without = render_cases([replace(case, findings=()) for case in cases], SIZE, batch=8) / 255.0
        found[kind] = with_finding, without, lesion_masks(cases, SIZE)[:, index]
    return found


def test_scan_is_the_documented_one():
    hu, organs, codes, spacing = load_scan()
    assert hu.shape == organs.shape == (128, 128, 67)
    assert hu.min() == -1024
    assert set(LOBE_NAMES) | {"heart", "aorta", "trachea", "bone"} == set(codes)
    np.testing.assert_allclose(spacing, [2.8125, 2.8125, 5.0])
    centre = {name: np.argwhere(organs == code).mean(axis=0) for name, code in codes.items()}
    # Patient's right first, back first, foot first.
    assert centre["right_lower_lobe"][0] < centre["heart"][0] < centre["left_lower_lobe"][0]
    assert centre["right_lower_lobe"][1] < centre["right_middle_lobe"][1]
    assert centre["left_lower_lobe"][2] < centre["left_upper_lobe"][2] < centre["trachea"][2] + 10
    assert np.median(hu[organs == codes["right_upper_lobe"]]) < -800
    # Contrast medium is gone: unenhanced blood is below 60 HU.
    assert np.median(hu[organs == codes["heart"]]) < 60


def test_films_do_not_depend_on_batch_order_or_company():
    cases = sample_cases(1, "train", 20)
    films = render_cases(cases, SIZE, batch=8)
    assert films.dtype == np.uint8
    assert films.shape == (20, SIZE, SIZE)
    np.testing.assert_array_equal(render_cases(cases[::-1], SIZE, batch=8)[::-1], films)
    np.testing.assert_array_equal(render_cases(cases[3:4], SIZE, batch=1)[0], films[3])
    np.testing.assert_array_equal(render_cases(cases[5:18], SIZE, batch=13), films[5:18])


def test_cases_are_settled_by_seed_split_and_index():
    cases = sample_cases(1, "train", 40)
    assert sample_cases(1, "train", 17) == cases[:17]
    for other in (sample_cases(2, "train", 40), sample_cases(1, "test", 40)):
        assert all(a.body != b.body and a.technique != b.technique for a, b in zip(cases, other))
    everyone = [case for split in ("train", "validation", "test") for case in sample_cases(1, split, 500)]
    assert len({case.id for case in everyone}) == len({case.body for case in everyone}) == 1500
    assert len({case.patient for case in everyone}) == 1500
    films = render_cases([cases[0], sample_cases(2, "train", 1)[0]], SIZE, batch=8)
    assert (films[0] != films[1]).mean() > 0.5


def test_classes_are_balanced_and_labels_agree():
    cases = sample_cases(0, "train", 1600)
    several = [case for case in cases if len(case.findings) > 1]
    assert 0.16 < len(several) / len(cases) < 0.24
    assert {len(case.findings) for case in several} == {2, 3}
    counts = np.bincount([label(case) for case in cases if label(case) >= 0], minlength=8)
    assert counts.min() > 0.85 * counts.max()
    exact = sample_cases(0, "train", 80, multiple=0.0)
    assert np.bincount([label(case) for case in exact]).tolist() == [10] * 8
    for case in cases[:100]:
        hot = labels(case)
        assert hot.dtype == np.float32
        assert hot.sum() == max(1, len(case.findings))
        assert label(case) == (-1 if len(case.findings) > 1 else int(hot.argmax()))
        assert len({finding.kind for finding in case.findings}) == len(case.findings)
    # Two lateral findings never share a side, so that one does not hide the other.
    for case in several:
        lateral = [finding.side for finding in case.findings if finding.side in ("right", "left")]
        assert len(set(lateral)) == len(lateral)


def test_bad_arguments_name_themselves():
    case = sample_cases(0, "train", 1)
    with pytest.raises(ValueError, match="size is 8; expected"):
        render_cases(case, size=8)
    with pytest.raises(ValueError, match="batch is 0; expected"):
        render_cases(case, batch=0)
    with pytest.raises(ValueError, match=r"multiple is 1\.5; expected"):
        sample_cases(0, "train", 1, multiple=1.5)
    with pytest.raises(ValueError, match="count is -1; expected"):
        sample_cases(0, "train", -1)
    with pytest.raises(ValueError, match="unknown finding 'fracture'"):
        render_cases([replace(case[0], findings=(replace(_any_finding(), kind="fracture"),))], batch=8)
    assert render_cases([], SIZE).shape == (0, SIZE, SIZE)


def _any_finding():
    return next(case.findings[0] for case in sample_cases(0, "train", 20) if case.findings)


def test_normal_film_looks_like_one(singles):
    picture = render_cases(singles["normal"], SIZE, batch=8).mean(axis=0) / 255.0
    mediastinum, abdomen = picture[20:40, 30:34].mean(), picture[58:62, 20:44].mean()
    right_lung, left_lung = picture[18:34, 16:22].mean(), picture[18:34, 44:50].mean()
    assert max(right_lung, left_lung) + 0.2 < min(mediastinum, abdomen)
    # The heart lies to the patient's left: on the right of the picture.
    assert picture[36:42, 36:44].mean() > picture[36:42, 20:28].mean() + 0.1
    assert picture.min() >= 0.0
    assert 0.05 < picture.std() < 0.4


@pytest.mark.parametrize("kind", ["consolidation", "mass", "effusion", "pneumothorax", "atelectasis"])
def test_lesion_lies_in_the_claimed_side_and_lobe(singles, films, kind):
    fields = load_grid().fields
    sides = {"right": fields["lobes"][2:].sum(0), "left": fields["lobes"][:2].sum(0)}
    for case, shadow in zip(singles[kind], films[kind][2]):
        finding = case.findings[0]
        cover = lesion_volumes(case)[kind]
        assert cover.min() >= 0.0
        assert cover.max() <= 1.0 + 1e-5
        assert cover.sum() > 10
        total = (cover * (sides["right"] + sides["left"])).sum()
        if finding.side == "bilateral":
            assert min((cover * share).sum() for share in sides.values()) > 0.15 * total
            continue
        assert (cover * sides[finding.side]).sum() > 0.99 * total
        columns = (shadow.sum(0) * (np.arange(SIZE) + 0.5)).sum() / shadow.sum()
        assert (columns < SIZE / 2 + 1) == (finding.side == "right")
        if finding.lobe and finding.pattern != "linear":
            lobe = fields["lobes"][LOBE_NAMES.index(f"{finding.side}_{finding.lobe}_lobe")]
            needed = 0.5 if kind == "mass" else 0.85
            assert (cover * lobe).sum() > needed * total


def test_shadows_sit_at_the_claimed_height(singles, films):
    heights = {"upper": [], "middle": [], "lower": [], "effusion": [], "apical": []}
    for kind in ("mass", "consolidation", "effusion", "pneumothorax"):
        for case, shadow in zip(singles[kind], films[kind][2]):
            row = (shadow.sum(1) * np.arange(SIZE)).sum() / shadow.sum()
            finding = case.findings[0]
            name = finding.lobe or ("effusion" if kind == "effusion" else finding.pattern)
            heights.setdefault(name, []).append(row)
    assert np.mean(heights["upper"]) + 5 < np.mean(heights["lower"])
    assert min(heights["effusion"]) > 36
    assert max(heights["apical"]) < 32


@pytest.mark.parametrize("kind", KINDS)
def test_lesion_shows_where_its_shadow_falls(films, kind):
    with_finding, without, shadow = films[kind]
    thick = shadow > 0.5 * shadow.max(axis=(1, 2), keepdims=True)
    for present, absent, where in zip(with_finding, without, thick):
        change = (present - absent)[where].mean()
        assert change < -0.01 if kind == "pneumothorax" else change > 0.01


def test_severity_shows():
    cases = [straight(case) for case in sample_cases(3, "probe", 160, multiple=0.0, acquisition=STRAIGHT)]
    burden = {(kind, severity): [] for kind in KINDS for severity in ("mild", "severe")}
    chosen = [case for case in cases if case.findings and case.findings[0].severity != "moderate"]
    for case, shadows in zip(chosen, lesion_masks(chosen, SIZE)):
        finding = case.findings[0]
        burden[finding.kind, finding.severity].append(shadows[KINDS.index(finding.kind)].sum())
    for kind in KINDS:
        assert np.mean(burden[kind, "severe"]) > 1.5 * np.mean(burden[kind, "mild"]), kind


def test_cardiomegaly_widens_the_heart(singles):
    healthy = [cardiothoracic_ratio(case) for case in singles["normal"]]
    enlarged = [cardiothoracic_ratio(case) for case in singles["cardiomegaly"]]
    assert min(healthy) > 0.38
    assert max(healthy) < 0.49 < min(enlarged)
    for case in singles["cardiomegaly"]:
        assert cardiothoracic_ratio(case) > cardiothoracic_ratio(replace(case, findings=())) + 0.02


def test_out_of_domain_films_differ():
    inside = render_cases(sample_cases(0, "test", 48), SIZE, batch=8) / 255.0
    outside = render_cases(sample_cases(0, "test", 48, acquisition=OUT_OF_DOMAIN), SIZE, batch=8) / 255.0

    def grain(films):
        return np.abs(films[:, 20:44, 20:44] * 4 - sum(np.roll(films, s, a)[:, 20:44, 20:44] for s, a in _STEPS)).mean()

    assert grain(outside) > 1.5 * grain(inside)
    assert outside[:, :2].mean() < inside[:, :2].mean()
    findings = [
        [case.findings for case in sample_cases(0, "test", 48, acquisition=a)] for a in (STRAIGHT, OUT_OF_DOMAIN)
    ]
    assert findings[0] == findings[1]


_STEPS = ((1, 1), (-1, 1), (1, 2), (-1, 2))


@pytest.mark.slow
def test_large_films_agree_with_small_ones():
    cases = sample_cases(2, "train", 4, acquisition=STRAIGHT)
    large, small = render_cases(cases, 192) / 255.0, render_cases(cases, SIZE) / 255.0
    shrunk = large.reshape(4, SIZE, 3, SIZE, 3).mean(axis=(2, 4))
    assert np.abs(shrunk - small).mean() < 0.03


def test_data_card_says_what_it_must():
    text = " ".join(DATA_CARD.values())
    for needed in (
        "LIDC-IDRI-0001",
        "Armato",
        "CC BY 3.0",
        "Cancer Imaging Archive",
        "One real patient",
        "no clinical claim",
    ):
        assert needed in text
