"""Words beside which numbers are dates, times, counts, telephone or record numbers, and words beside names."""

from __future__ import annotations

import re

ENGLISH_MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?"
)
# Spanish, German, French, Portuguese, Italian.
OTHER_MONTHS = (
    "enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|setiembre|octubre|noviembre|diciembre"
    "|januar|jänner|februar|märz|juni|juli|oktober|dezember"
    "|janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|décembre"
    "|janeiro|fevereiro|março|maio|junho|julho|setembro|outubro|novembro|dezembro"
    "|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre"
)
MONTH = rf"(?i:{ENGLISH_MONTHS}|{OTHER_MONTHS})\b\.?"
ORDINAL = r"(?:st|nd|rd|th|º|\.)?"
UNITS = (
    r"mm|cm|m|ml|cc|mg|g|kg|hu|kv|hz|french|fr|f|x(?!-?ray)|%|per cent|percent|mmhg|cmh2o|th|st|nd|rd|s\d|months?|"
    r"weeks?|"
    r"days?|hours?|hrs?|years?|times|units?|degrees?|rpm|u|cells?|per|liters?|litres?"
)
# Words beside which numbers count or measure something.
COUNTED = (
    "ribs?|segments?|levels?|vertebrae?|vertebral bod(?:y|ies)|discs?|disks?|spaces?|interspaces?|images?|slices?|"
    "series"
    "|grades?|stages?|versions?|doses?|sizes?|ratios?|scales?|nodules?|measur(?:es|ing|ed)|lobes?|zones?|leads?"
    "|frames?|fields?|ecog|type|scores?|costae?|costillas?|rippen?|côtes?|segmentos?|segmente?|apgars?|gcs|bi-?rads"
    "|pressures?|scoliosis|protocol|fractures? of(?: the)?"
)
COUNTED_HERE = rf"{COUNTED}|views?|occasions?|attempts?|sides?|wires?|drains?|tubes?"
BESIDE = re.compile(
    rf"\b(?:{COUNTED_HERE})\W+(?:(?:of|are|is|at|from|no\.?|number|and|to|through|the|[a-z]?\d+)\W+)*$", re.IGNORECASE
)
NEAR = re.compile(rf"\b(?:{COUNTED})\b[^.;:]{{0,25}}$", re.IGNORECASE)
MEASURED = re.compile(rf"\s*-?\s*(?:{UNITS})\b|\s*%|\s*×", re.IGNORECASE)
COUNTED_AFTER = re.compile(rf"\s*-?\s*(?:{COUNTED_HERE})\b", re.IGNORECASE)
SHARE_AFTER = re.compile(
    r"(?:\s*(?:and|to|-|–)\s*\d/\d)?\s*(?:of\b|to\b|lungs?\b|(?:hemi)?thora|lobes?\b|opaque|films\b|full\b|way\b)",
    re.IGNORECASE,
)
RATIO_BEFORE = re.compile(
    r"\b(?:ratios?|dilut\w+|tit(?:er|re)s?|scales?|magnification|mixed|mixture|concentration|proportions?|series|"
    r"images?"
    r"|slices?|fluoro\w*|duration|i:e|epinephrine)\b[^.]{0,25}$",
    re.IGNORECASE,
)
NO_CLOCK_AFTER = re.compile(
    r"[^.]*\b(?:nipple|o['’]?\s?clock)\b|\s*(?:position|axis|min(?:ute)?s?\b|sec(?:ond)?s?\b|dilut|solution|mix|"
    r"ratio|scale|tit(?:er|re))",
    re.IGNORECASE,
)
CLOCK_BEFORE = re.compile(
    r"(?:\b(?:at|around|about|by|until|till|since|before|after|time|um|à|às|alle|las)|\[DATE\]|@)\W*$", re.IGNORECASE
)
STUDY = r"study|film|radiograph|exam(?:ination)?|ct|x-?ray|cxr|scan"
DATE_BEFORE = re.compile(
    r"\b(?:dated?|on|since|seit|as of|until|between|(?:compar\w+|comparison)(?: (?:is|was|made))?(?: (?:to|with))?|"
    rf"(?:{STUDY}|radiographs|prior|previous)(?: (?:of|from|on|dated))?|vom|am|du|del|le|el|il)\W+"
    r"(?:\d{1,2}/\d{1,2}(?:,\s*|,?\s*(?:and|to|through|&|-|–)\s*))*$",
    re.IGNORECASE,
)
# "Film 1/2" is the first of two.
STUDY_BEFORE = re.compile(rf"\b(?:{STUDY})\W+$", re.IGNORECASE)
FROM = re.compile(r"\b(?:from|versus|vs|seen|taken|obtained|performed)\W+$", re.IGNORECASE)
STUDY_AFTER = re.compile(rf"\s+(?:chest |portable |ap |pa )*(?:{STUDY}|image|visit|admission)\b", re.IGNORECASE)
QUANTITY_BEFORE = re.compile(
    r"\b(?:platelets?|counts?|heparin|doses?|volumes?|wbc|rbc|of about|approximately)\W+(?:\w+\W+){0,2}$", re.IGNORECASE
)

# Names. What begins a sentence of a report is no name, least of all a negation, nor is what goes on after one in a
# report
# in upper case; a name does not go on after a full stop, but for an initial's.
UPPER = r"[^\W\d_a-zß-öø-ÿ]"
WORDS = (
    "no|not|none|the|there|this|that|these|those|it|its|in|is|are|was|were|be|been|has|have|had|and|or|with|without|at"
    "|by|on|from|who|via|to|for|of|as|an?(?!\\.)|per|will|would|if|but|both|also|again|when|while|which|he|she|they|we|"
    "findings?|impression|normal|clear|heart|lungs?|left|right|small|large|mild|moderate|severe|stable|unchanged|"
    "bilateral"
    "|interval|new|acute|old|chest|pleural|pulmonary|cardiac|mediastin\\w*|pneumothora\\w*|effusions?|tubes?|lines?"
    "|endotracheal|bones?|review\\w*|comparison|exam|study|films?|reports?|time|date|agree[sd]?|concur\\w*|called|paged"
    "|notified|informed|told|discussed|regarding|about|during|after|before|today|yesterday|(?:tele)?phone\\w*|patient"
    "|radiologist|physician|attending|resident|fellow|technologist|practitioner|nurse|nursing|staff|team|service|unit"
    "|department|dept|clinic|clinical|ward|floor|desk|office|room|hospital|center|centre|icu|picu|nicu|micu|sicu|"
    "ccu|ed|er"
    "|or|emergency|intensive|care|trauma|code|primary|stroke|transplant|oncall|diseases?|infectious"
    "|\\w*(?:ology|ologists?|iatrics?|iatry|surg(?:ery|eons?|ical)|medicine|an[ae]sthesia|therapy|therapists?)|"
    "surgery|\\w+(?:tional|atric|racic|vascular|ical)"
)
NO_NAME = rf"(?!(?i:{WORDS})(?![\w'’-]))"
PARTICLE = r"(?:(?:van|von|de|der|den|la|le|du|di|da|dos|al|bin|zu|el)\s+){0,2}"
NAME = rf"{NO_NAME}(?:{UPPER}\.(?:-?{UPPER}\.)*|{UPPER}(?=\s+{UPPER})|{PARTICLE}{UPPER}[\w'’-]+)"
MIXED = rf"{NO_NAME}(?:{UPPER}\.|{UPPER}[\w'’-]*[a-zß-öø-ÿ][\w'’-]*)"
FULL = rf"{MIXED}(?:\s+{MIXED}){{1,2}}"
# "MR" and "MS" are magnetic resonance and multiple sclerosis, unless a full stop follows.
TITLE = (
    r"(?:(?:Dr|DR|Drs|DRS|Mr|Mrs|MRS|Ms|Miss|MISS|Prof|PROF|Doctor|DOCTOR|Professor|PROFESSOR|Frau|Herrn?|Mme|Mlle"
    r"|Monsieur|Madame|Docteur|Señora|Señorita|Señor|Signora|Signor|Dottoressa|Dottor|Doutora|Doutor|Senhora|Senhor"
    r"|[Nn]urse(?: Practitioner| practitioner)?|NURSE)\b(?:\.\s*|\s+)"
    r"|(?:MR|MS|Hr|Sra?|Srta|Dra|Dott|Sig|Dott\.ssa|Sig\.ra|Dr\.ª)\.\s*)"
)
SAID = (
    "signed|dictated|reviewed|read|interpreted|transcribed|approved|verified|attested|reported|finalized|finalised"
    "|performed|authenticated|edited|confirmed|entered|prepared|written|supervised|placed|ordered|requested|referred"
)
TOLD = (
    "discussed|reviewed|communicated|relayed|conveyed|notified|informed|called|telephoned|phoned|reported|given|"
    "told|paged"
    "|spoke|spoken|shared|alerted|contacted"
)
PERSON = (
    "(?:attending |resident |staff |senior |reading )?(?:radiologist|physician|technologist|radiographer|surgeon|fellow"
    "|provider)|attending|resident|technician|transcriptionist|sonographer"
)
ROLE = (
    "(?:patient(?:'s)? |pt\\.? )?(?:full |last |first )?name|(?:(?:referring|attending|ordering|requesting|consulting"
    rf"|admitting|reading|dictating) )?(?:{PERSON}|doctor|clinician|md)|referring|referrer|author|reader|reviewer|"
    rf"operator"
    "|dictated|transcribed|nurse|cc"
)
DEGREE = (
    r"(?:\s*,\s*|\s+)(?:MD|M\.\s?D\.|RN|R\.N\.|MBBS|MBChB|FRCR|PhD|Ph\.D\.)(?!\w)|\s*,\s*(?:DO|D\.O\.|NP|PA-C|PA|RT|RRT"
    r"|CRNA|DNP|FACR|APRN)(?!\w)"
)

# Numbers of persons and of their records; a pager's is one, too.
NUMBER_WORD = r"(?:numbers?|nos?|nr|num|ids?|identifier|nummer|numéro|número|numero)\b\.?|#|n[°º]"
NUMBERED = (
    r"mrn|med(?:ical|\.)? rec(?:ords?|\.)?|accession|acc(?:\.|ession)?(?=\s?(?:#|no\b|num))|patient[ -]?(?:id|"
    r"identifier|"
    r"number|no)|pt\.? id|pid|ssn|social security|pager|nhs|mr(?=\s?(?:#|no\b|num))"
)
FILED = (
    "case|order|chart|file|visit|encounter|account|acct|study|exam|examination|report|requisition|request|referral|ref"
    "|reference|serial|lot|device|policy|insurance|member|beneficiary|health card|medicare|medicaid|unit|record|"
    "specimen"
    "|badge|employee|licen[cs]e|passport|registration|hospital|admission|episode|invoice|film|fall|pat|patienten|"
    "aufnahme"
    "|auftrags|dossier|historia|historia clínica|expediente|cartella|processo|prontuário|certificate|contract|plan|"
    "group"
)
TOKEN = r"(?=[\w/-]*\d)[\w-]+(?:[/.][\w-]+)*"
MORE = r"(?:\s\d{3,4}\b(?!\s*(?:mm|cm|ml|mg)\b))*(?:(?:,|\s+and|\s*&)\s*[\w-]*\d{5,}[\w-]*)*"
