"""The phrases reports are made of. `(a|b)` is a choice, `{name}` a slot that the grammar fills.

Every sentence that names a finding that is absent carries one of `NEGATIONS`; words in `TERMS` name a finding and are
used for nothing else.
"""

from __future__ import annotations

# Words that give a finding away, by kind: attacks on the text must leave them alone.
TERMS: dict[str, tuple[str, ...]] = {
    "consolidation": ("consolidation", "pneumonia", "airspace", "infiltrate", "bronchograms"),
    "mass": ("mass", "nodule", "lesion", "malignancy", "neoplasm"),
    "effusion": ("effusion", "effusions", "fluid", "meniscus", "blunting", "blunted"),
    "cardiomegaly": ("cardiomegaly", "enlarged", "enlargement"),
    "pneumothorax": ("pneumothorax",),
    "oedema": ("oedema", "congestion", "congested", "interstitial", "perihilar", "kerley"),
    "atelectasis": ("atelectasis", "atelectatic", "collapse", "collapsed", "subsegmental"),
}
NORMAL_TERMS = ("normal", "clear", "unremarkable", "healthy")
NEGATIONS = ("no", "not", "free", "neither", "absent")

SEVERITY: dict[str, dict[str, str]] = {
    "mild": {
        "size": "(small|little|tiny)",
        "degree": "(mild|slight|minor|subtle)",
        "density": "(faint|hazy|ill defined)",
    },
    "moderate": {
        "size": "(moderate|medium sized|moderately sized)",
        "degree": "(moderate|considerable)",
        "density": "(moderate|confluent|hazy)",
    },
    "severe": {
        "size": "(large|sizeable|big)",
        "degree": "(severe|marked|gross|pronounced)",
        "density": "(dense|extensive|homogeneous)",
    },
}
PLACES: dict[str, str] = {
    "upper": "(upper lobe|upper zone|upper lung)",
    "middle": "(middle lobe|mid zone|middle lobe)",
    "lower": "(lower lobe|lower zone|lung base)",
    "": "lung",
}
# What the findings section says of each kind, by pattern.
FINDINGS: dict[tuple[str, str], tuple[str, ...]] = {
    ("consolidation", "patchy"): (
        "(There is|We see) patchy {density} (consolidation|airspace opacity|airspace shadowing) in the {side} {place}",
        "Patchy (consolidation|airspace opacity) in the {side} {place}",
        "(Patchy|Fluffy|Mottled) {density} infiltrate (projects over|occupies|involves) the {side} {place}",
        "An irregular {density} airspace opacity of {cm} cm lies in the {side} {place}",
    ),
    ("consolidation", "lobar"): (
        "(There is|We note) {density} (lobar consolidation|consolidation with air bronchograms) of the {side} {place}",
        "{density} (consolidation|airspace opacification) (fills|occupies|obscures) the {side} {place}",
        "The {side} {place} (shows|contains) {density} (segmental consolidation|airspace opacity), about {cm} cm across",
    ),
    ("mass", "smooth"): (
        "{cm} cm {nodule} in the {side} {place}",
        "A (rounded|round|well defined|smooth) {nodule} (of|measuring) {cm} cm (projects over|is seen in|lies in) the {side} {place}",
        "(There is|We see) a {cm} cm (solitary|discrete|circumscribed) {nodule} in the {side} {place}",
        "The {side} {place} (contains|harbours) a {size} (rounded|smooth) {nodule}, {cm} cm in diameter",
    ),
    ("mass", "spiculated"): (
        "(Spiculated|Irregular) {cm} cm {nodule} in the {side} {place}",
        "A (spiculated|stellate|irregular) {nodule} (of|measuring) {cm} cm (projects over|lies in) the {side} {place}",
        "(There is|We note) a {cm} cm {nodule} with (irregular|spiculated|ragged) margins in the {side} {place}",
    ),
    ("mass", "cavitary"): (
        "A (thick walled|cavitating) {nodule} of {cm} cm with central lucency lies in the {side} {place}",
        "(There is|We see) a {cm} cm (cavitary|cavitating) {nodule} in the {side} {place}",
    ),
    ("effusion", ""): (
        "{size} {side} (effusion|pleural effusion) with a meniscus",
        "A {size} {side} (pleural effusion|effusion) (is present|is seen|layers at the base) with a (lateral meniscus|meniscus)",
        "(Blunting|Obscuration by fluid) of the {side} costophrenic (angle|sulcus) (indicates|is due to) a {size} effusion",
        "(There is|We see) a {size} {side} pleural effusion, {cm} cm (high|in height|deep)",
        "{size} {side} basal pleural fluid (hides|obscures|covers) the (hemidiaphragm|diaphragm)",
    ),
    ("effusion", "bilateral"): (
        "{size} bilateral (pleural effusions|effusions) (are present|are seen), both costophrenic angles (blunted|lost)",
        "Pleural fluid (on both sides|bilaterally) forms {size} effusions with a meniscus",
    ),
    ("cardiomegaly", ""): (
        "The (heart|cardiac silhouette|cardiac shadow) is {degreely} enlarged",
        "(There is|We see) {degree} (cardiac enlargement|cardiomegaly|enlargement of the heart)",
        "The (cardiothoracic ratio|transverse cardiac diameter) is {degreely} (above the limit|increased), an enlarged heart",
    ),
    ("pneumothorax", "apical"): (
        "{size} {side} apical pneumothorax, {cm} cm deep",
        "A {size} {side} apical pneumothorax (is seen|is present), the (visceral pleural line|pleural edge) {cm} cm from the (chest wall|apex)",
        "(There is|We see) a (thin|narrow) {side} apical (lucent rim|lucency) of {cm} cm, a {size} pneumothorax",
    ),
    ("pneumothorax", "simple"): (
        "A {size} {side} pneumothorax (is seen|is present) with a (visceral pleural line|lung edge) {cm} cm from the chest wall",
        "(There is|We note) a {size} {side} pneumothorax, (lung markings|vessels) end {cm} cm from the (ribs|chest wall)",
        "{size} {side} pneumothorax, {cm} cm (deep|at its widest)",
        "Peripheral lucency (beyond|outside) the {side} lung edge (indicates|represents) a {size} pneumothorax",
    ),
    ("pneumothorax", "tension"): (
        "{size} {side} tension pneumothorax with mediastinal shift",
        "A {size} {side} tension pneumothorax (pushes|displaces|shifts) the mediastinum (away|to the {other})",
        "(There is|We see) a {size} {side} pneumothorax under tension with mediastinal shift (away|to the {other})",
    ),
    ("oedema", "interstitial"): (
        "(There is|We see) {degree} (interstitial oedema|vascular congestion) with (kerley lines|septal lines) at both bases",
        "Vessels are (congested|indistinct) with {degree} (bilateral|symmetric) interstitial oedema",
    ),
    ("oedema", "alveolar"): (
        "{degree} (alveolar|pulmonary) oedema with perihilar haze",
        "(There is|We note) {degree} (perihilar haze|perihilar opacity|bat wing perihilar shadowing) (in both lungs|bilaterally) from oedema",
        "{degree} (bilateral|symmetric) perihilar (alveolar|pulmonary) oedema (is present|is seen) with a (bat wing|butterfly) distribution",
    ),
    ("atelectasis", "linear"): (
        "A (linear|band like|plate like) (opacity|density) of {cm} cm in the {side} lower zone is (atelectasis|subsegmental atelectasis)",
        "(There is|We see) {degree} (linear|discoid|plate like) atelectasis (at|above) the {side} (base|hemidiaphragm)",
    ),
    ("atelectasis", "lobar"): (
        "{degree} (collapse|atelectasis) of the {side} {lobe} lobe",
        "The {side} {lobe} lobe (is collapsed|is atelectatic), (a wedge|a triangular density) with {degree} volume loss",
        "(There is|We see) {degree} (collapse|atelectasis) of the {side} {lobe} lobe with (a raised hemidiaphragm|crowded ribs|volume loss)",
        "A (triangular|wedge shaped) {side} {lobe} (opacity|density) (indicates|represents) {degree} lobar (collapse|atelectasis)",
    ),
}
IMPRESSIONS: dict[str, tuple[str, ...]] = {
    "consolidation": (
        "{Side} {lobe} lobe (pneumonia|consolidation)",
        "(Findings suggest|Probable|Likely) {side} {lobe} lobe pneumonia",
        "{Degree} {side} {lobe} lobe consolidation, (infectious|inflammatory)",
    ),
    "mass": (
        "{Side} {lobe} lobe {nodule}",
        "{Side} {lobe} lobe {nodule}, (suspicious for|possible) (malignancy|neoplasm)",
        "(Solitary|Indeterminate|Suspicious) {side} {lobe} lobe {nodule}, (follow up|tissue sampling|further imaging) advised",
    ),
    "effusion": (
        "{Size} {side} pleural effusion",
        "{Side} pleural effusion, {size}",
        "{Side} sided effusion, {size} in volume",
    ),
    "effusion bilateral": ("{Size} bilateral pleural effusions", "Bilateral effusions, {size}"),
    "cardiomegaly": ("{Degree} cardiomegaly", "Cardiomegaly, {degree}", "{Degree} cardiac enlargement"),
    "pneumothorax": (
        "{Size} {side} pneumothorax",
        "{Side} pneumothorax, {size}",
        "{Side} sided pneumothorax, (urgent review|clinical correlation|drainage to be considered)",
    ),
    "oedema": (
        "{Degree} pulmonary oedema",
        "(Findings of|Consistent with) {degree} pulmonary oedema",
        "{Degree} bilateral oedema",
    ),
    "atelectasis": (
        "{Side} {lobe} lobe atelectasis",
        "{Degree} {side} {lobe} lobe (atelectasis|collapse)",
        "(Volume loss from|Partial) {side} {lobe} lobe (atelectasis|collapse)",
    ),
    "normal": (
        "(Normal|Unremarkable) (chest|study|radiograph|examination)",
        "No (acute|active) (cardiopulmonary|thoracic|chest) (disease|abnormality|process)",
        "(Healthy|Clear) lungs, (normal|unremarkable) study",
        "No abnormality (detected|demonstrated|identified)",
    ),
}
NORMAL_FINDINGS = (
    "The lungs are (clear|well aerated and clear|normally inflated and clear)",
    "(Both lungs|The lung fields) (are|appear) clear",
    "(Heart, mediastinum and lungs|Cardiomediastinal contours and lungs) are (normal|unremarkable)",
    "(Clear|Healthy) lung fields and a (normal|unremarkable) (mediastinum|hilar contour)",
)
# Each names the kinds it denies.
NEGATIVES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("pneumothorax",), "No (pneumothorax|evidence of pneumothorax)"),
    (("pneumothorax",), "Pneumothorax is (absent|not seen)"),
    (("effusion",), "No (pleural effusion|effusion|pleural fluid)"),
    (("effusion",), "The costophrenic angles are (sharp|free of fluid)"),
    (("effusion", "pneumothorax"), "No (effusion or pneumothorax|pneumothorax or effusion)"),
    (("effusion", "pneumothorax"), "Neither effusion nor pneumothorax"),
    (("consolidation",), "No (focal consolidation|consolidation|airspace opacity)"),
    (("consolidation", "mass"), "No (consolidation or mass|mass or consolidation|nodule or infiltrate)"),
    (("mass",), "No (nodule|suspicious nodule|mass)"),
    (("cardiomegaly",), "(Heart|Cardiac) size is (normal|within normal limits)"),
    (("cardiomegaly",), "The heart is not enlarged"),
    (("cardiomegaly",), "The cardiac (silhouette|outline) is (normal|unremarkable)"),
    (("oedema",), "No (pulmonary oedema|oedema|vascular congestion)"),
    (("oedema",), "Pulmonary vasculature is (normal|not congested)"),
    (("atelectasis",), "No (atelectasis|lobar collapse|collapse)"),
    (("consolidation", "effusion"), "No (consolidation or effusion|effusion or consolidation)"),
    (("mass", "atelectasis"), "No (mass or atelectasis|collapse or mass)"),
)
# What else shows: technique, body and devices.
REMARKS: dict[str, tuple[str, ...]] = {
    "rotated left": ("(The patient is|Film is) rotated to the left", "(Some|Slight) leftward rotation"),
    "rotated right": ("(The patient is|Film is) rotated to the right", "(Some|Slight) rightward rotation"),
    "tilted": ("(The film is|Patient) tilted", "Oblique position on the (film|cassette)"),
    "low volumes": (
        "(Low lung volumes|Shallow inspiration|Poor inspiratory effort)",
        "Expiratory film with (high|raised) diaphragms",
    ),
    "high volumes": ("(Hyperinflated lungs|Deep inspiration)", "Lungs are hyperexpanded with (low|flat) diaphragms"),
    "dark": ("(Overpenetrated|Overexposed|Dark) (film|image|exposure)",),
    "bright": ("(Underpenetrated|Underexposed|Bright) (film|image|exposure)",),
    "broad": ("(Broad|Wide) (thorax|chest)", "(Stocky|Heavy) (build|habitus)"),
    "narrow": ("(Narrow|Slender|Slim) (thorax|chest|build)",),
    "breasts": ("(Prominent|Bilateral) breast shadows", "Breast tissue overlies both lower zones"),
    "scoliosis left": ("(Scoliosis|Spinal curvature) convex to the left", "Leftward (thoracic|spinal) curve"),
    "scoliosis right": ("(Scoliosis|Spinal curvature) convex to the right", "Rightward (thoracic|spinal) curve"),
    "small heart": ("(Slender|Small) (heart|cardiac shadow)",),
    "collimated": ("(Tightly|Narrowly) (collimated|coned) field",),
    "grainy": ("(Grainy|Noisy|Portable) (image|film|bedside view)",),
    "pacemaker": (
        "(Left sided|Left) (pacemaker|pacing device) (in place|with a ventricular lead)",
        "Cardiac pacemaker (in situ|noted)",
    ),
    "central line": ("(Right|Right sided) (central line|central venous catheter) (in place|with tip over the cava)",),
    "sternotomy wires": (
        "(Sternotomy wires|Median sternotomy wires) (in place|noted|intact)",
        "(Previous|Prior) sternotomy with wires",
    ),
    "endotracheal tube": ("(Endotracheal tube|Tracheal tube) (in place|above the carina|in situ)", "Intubated patient"),
}
