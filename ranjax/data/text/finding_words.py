"""Findings of chest films and the expressions that mention them, for the rule labeller.

What only sounds like a finding is left out in the expressions themselves: a pericardial effusion, subcutaneous
emphysema, a collapsed vertebra, mass effect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Between a finding's subject and its predicate: "is", "does not appear", "size was not significantly", ": not".
_IS = (
    r"(?:no longer\s+)?"
    r"(?:(?:is|are|was|were|do|does|did|has|have|had|can|could|would|remains?|appears?|seems?|looks?|been)\s+)"
    r"(?:(?!and\b|with\b)[\w-]+\s+){0,4}?"
)
_WHERE = r"(?:,? (?:as before|again|(?:on|at|in|of) (?:the |this |both )?[\w-]+(?: \w+)?),?)?"
_IS_OR_NOTHING = rf"(?:{_IS}|[:,–-]\s*|)(?:(?:not|no longer|mild|moderate|severe|\w+ly)\s+){{0,3}}(?:and not )?"
_HEART = (
    r"(?:(?:size of the )?heart|(?:cardiac|cardiomediastinal|cardiopericardial|heart) "
    r"(?:silhouette|size|contour|shadow)s?)(?: size)?"
)
_ANGLE = r"(?:costophrenic|cp) (?:angles?|sulc\w+|recess\w*)"
_ELSEWHERE = "".join(rf"(?<!{place} )" for place in ("pericardial", "joint", "knee", "hip", "elbow", "ankle", "ear"))
_NOT_OF_LUNGS = "".join(
    rf"(?<!{place} )"
    for place in ("soft tissue", "subcutaneous", "pedal", "ankle", "leg", "peripheral", "cerebral", "brain", "marrow")
)
_UNDER_SKIN = "".join(rf"(?<!{place} )" for place in ("subcutaneous", "surgical", "soft tissue", "mediastinal", "wall"))
_TUBES = (
    "endotracheal|nasogastric|orogastric|nasoenteric|enteric|feeding|gastric|gastrostomy|tracheostomy|thoracostomy|"
    "pleural"
    "|chest|drainage|tracheal|et|ng|og|nj|dobb?hoff"
)
_LINES = "central|venous|ij|jugular|subclavian|femoral|dialysis|arterial|hickman|broviac"

FINDINGS: Mapping[str, str] = {
    "Atelectasis": r"atelecta\w*|(?<!vertebral )(?<!body )collapse(?! of (?:the |a )?(?:\w+ )?(?:vertebra|t\d|l\d|"
    r"spine))|"
    rf"collapsed (?:\w+ )?(?:lung|lobe)|(?:lungs?|lobes?) {_IS}collapsed|volume loss|loss of (?:lung )?volume",
    "Cardiomegaly": r"cardiomegaly|(?:enlarged|enlargement of the|large|dilated) (?:heart|(?:cardiac|"
    r"cardiomediastinal) "
    rf"silhouette)|cardiac enlargement|{_HEART}{_WHERE} {{0,1}}{_IS_OR_NOTHING}"
    r"(?:enlarged|prominent|dilated|increased|large)",
    "Consolidation": r"consolidat\w*",
    "Edema": rf"{_NOT_OF_LUNGS}o?edema(?! (?:of|in) (?:the )?(?:\w+ )?(?:arm|leg|limb|ankle|soft|chest wall))|"
    r"(?:vascular|venous|pulmonary|central|perihilar|interstitial) congestion|congestive (?:heart |cardiac )?failure|"
    r"(?:heart|cardiac|ventricular) failure|chf|kerley\w*|(?:fluid|volume) overload",
    "Effusion": rf"{_ELSEWHERE}effusions?|pleural (?:or|and|and/or|nor) pericardial effusions?|pleural fluid|"
    r"fluid in the (?:\w+ ){0,2}(?:pleural spaces?|fissures?)|hydropneumothora\w*|hydrothora\w*|"
    rf"blunt\w* (?:of )?(?:the )?(?:\w+ ){{0,2}}(?:{_ANGLE}|costophrenic\w*)|"
    rf"{_ANGLE}{_WHERE} {{0,1}}{_IS_OR_NOTHING}blunted",
    "Emphysema": rf"{_UNDER_SKIN}emphysem\w*",
    "Fibrosis": r"fibros[ie]s|fibrotic|scarring|scars?|scarred",
    "Fracture": r"fractures?|fractured",
    "Hernia": r"(?<!disc )(?<!disk )hernias?(?! (?:repair|mesh|surgery))",
    "Infiltration": r"infiltrat\w*",
    "Lung Opacity": r"opacit\w*|opacifi\w+|air[ -]?space (?:disease|process)|ground[ -]glass|haziness",
    "Mass": r"(?<!body )mass(?! (?:effect|index))|masses|neoplasms?|tumou?rs?",
    "Nodule": r"nodules?|micronodules?|nodular\w*|granulomas?",
    "Pleural Thickening": r"pleural (?:\w+ ){0,2}thickening|thickening of (?:the )?(?:\w+ )?pleura|"
    rf"thickened (?:\w+ )?pleura|pleura{_WHERE} {{0,1}}{_IS_OR_NOTHING}thickened",
    "Pneumonia": r"pneumonias?|bronchopneumonias?|pneumonic|(?<!wound )infections?|infectious(?! disease)|infective",
    "Pneumothorax": r"(?:hydro|ha?emo|tension )?pneumothora\w*|ptx",
    "Support Devices": r"pacemakers?|pacers?|pacing (?:device|wires?|leads?)|catheters?|cannulae?|"
    rf"(?:{_TUBES}) tubes?|ett|ngt|ogt|dobb?hoff|tracheostomy|picc|(?:{_LINES}) lines?|(?:line|tube) (?:placement|"
    rf"insertion)|"
    r"(?:sternotomy )?wires|stents?|clips?|(?<!may )(?<!can )leads?(?! (?:to|apron|shield\w*|glass|marker)\b)|"
    r"prosthe\w*|"
    r"(?:prosthetic|mechanical|artificial|bioprosthetic) (?:\w+ )?valves?|valve replacements?|"
    r"(?:pigtail|pleural|surgical|mediastinal|chest|thoracic|percutaneous) drains?|a?icd|defibrillators?|swan[ -]ganz|"
    r"(?:chest|infusion|subclavian|jugular|power) ports?|port-?a-?cath\w*|mediport|balloon pump|iabp|lvad|electrodes?|"
    r"hardware|support (?:devices?|apparatus)|tubes and lines|lines and tubes",
}
"""Findings and the expressions that mention them."""

HEALTHY: Mapping[str, re.Pattern[str]] = {
    "Cardiomegaly": re.compile(
        r"(?<!not )(?<!limits of )(?<!limit of )\bnormal(?:[ -]sized?)? (?:heart|cardiac|cardiomediastinal)\b|"
        r"\b(?:heart|(?:cardiac|cardiomediastinal|heart)(?: (?:silhouette|size|contour|shadow)s?)?)(?: size)?"
        r"(?:,? and [\w ]{2,45}?)?(?:\s*[:,–-]|\s+(?:is|are|remains?|appears?|was|were))?\s+"
        r"(?:(?:still|again|also|both|all|of|in|\w+ly)\s+){0,2}(?:normal|within (?:the )?normal|not normal|"
        r"unremarkable)\b"
    )
}
"""Statements of health that name no finding, and the one that they exclude."""
