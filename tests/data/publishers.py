"""Small trees in the exact layouts of the publishers, with their quirks: one function per set, all pictures random."""

import csv
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CHEXPERT = [
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
]  # fmt: skip


def picture(path: Path, seed: int, mode: str = "L", size: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    # Smooth: JPEG keeps it, and the perceptual hashes of two seeds differ.
    image = Image.fromarray(grey[:6, :6]).resize((size, size), Image.Resampling.BICUBIC)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image, np.uint16) * 16)
    elif mode != "L":
        image = image.convert(mode)
    image.save(path)
    return path


def table(path: Path, header, lines, quote=True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    if quote:
        writer.writerow(header)
    else:
        buffer.write(header + "\n")
    writer.writerows(lines)
    data = buffer.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def film(path: Path, pixels: np.ndarray, **elements) -> Path:
    """A DICOM file with `pixels` uint16[H, W] and any further elements by keyword."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = elements.get("SOPInstanceUID", generate_uid())
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = pixels.astype("<u2").tobytes()
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def noise_film(path: Path, seed: int, **elements) -> Path:
    small = np.random.default_rng(seed).integers(0, 4096, (6, 6)).astype(np.float32)
    pixels = np.asarray(Image.fromarray(small).resize((24, 24), Image.Resampling.BICUBIC)).clip(0, 4095)
    return film(path, pixels.astype(np.uint16), **elements)


def nih(root: Path) -> None:
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    lines, train, test = [], [], []
    for patient in range(1, 41):
        name = f"{patient:08d}_000.png"
        label = ("No Finding", "Cardiomegaly|Emphysema", "Pleural_Thickening")[patient % 3]
        lines.append([name, label, 0, patient, "058Y", "M", "PA", 2682, 2749, 0.143, 0.143, ""])
        (test if patient > 30 else train).append(name)
        # Some of the set's PNGs have four channels.
        picture(root / f"images_{1 + patient % 2:03d}" / "images" / name, patient, "RGBA" if patient == 5 else "L")
    lines.append(["00000099_000.png", "Hernia", 0, 99, "414Y", "F", "AP", 1, 1, 0.1, 0.1, ""])
    table(root / "Data_Entry_2017.csv", header, lines, quote=False)
    (root / "train_val_list.txt").write_text("\n".join(train))
    (root / "test_list.txt").write_text("\r\n".join(test) + "\r\n")


def chexpert(root: Path) -> None:
    for split, patients in (("train", range(1, 31)), ("valid", range(101, 106))):
        lines = []
        for patient in patients:
            for view, kind in ((1, "frontal"), (2, "lateral"))[: 1 + (patient % 5 == 0)]:
                path = f"CheXpert-v1.0-small/{split}/patient{patient:05d}/study1/view{view}_{kind}.jpg"
                cells = dict.fromkeys(CHEXPERT, "")
                cells["Cardiomegaly"] = ("1.0", "-1.0", "0.0")[patient % 3]
                cells["Edema"] = "1.0" if patient % 4 == 0 else ""
                cells["Support Devices"] = "1.0" if patient % 2 else ""
                cells["No Finding"] = "1.0" if patient % 3 == 2 and patient % 4 and not patient % 2 else ""
                lines.append([path, "Female", 60, kind.capitalize(), "AP" if view == 1 else "", *cells.values()])
                picture(root / path, 1000 * view + patient)
        header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT]
        table(root / "CheXpert-v1.0-small" / f"{split}.csv", header, lines)


REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with fever  // eval for infection

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation, pleural effusion or pneumothorax.  The heart
 is {} in size.

 IMPRESSION:

 No acute cardiopulmonary process.
"""
FREE = """                                 FINAL REPORT
 CHEST RADIOGRAPH

 INDICATION:  Fever.

 COMPARISON: ___.

 As compared to the previous radiograph, there is no relevant change.  Moderate
 cardiomegaly without pulmonary edema.
"""
EMPTY = " FINAL REPORT\n\n INDICATION:  Line placement.\n\n COMPARISON:  ___\n"


def mimic_cxr(root: Path) -> None:
    meta, splits, labels = [], [], []
    with zipfile.ZipFile((root / "mimic-cxr-reports.zip"), "w") as archive:
        for number in range(30):
            patient, study = 10000000 + number // 2, 50000000 + number
            split = ("train", "train", "train", "validate", "test")[number // 2 % 5]
            folder = f"files/p10/p{patient}/s{study}"
            for view in ("PA", "LATERAL"):
                name = f"{number:08x}-{view.lower():0>8}"
                picture(root / folder / f"{name}.jpg", 2 * number + (view == "PA"))
                meta.append([name, patient, study, "CHEST (PA AND LAT)", view, 24, 24])
                splits.append([name, study, patient, split])
            labels.append([patient, study, *["-1.0" if number % 7 == 3 and c == "Edema" else "" for c in CHEXPERT]])
            text = {5: FREE, 6: EMPTY}.get(number, REPORT.format(("normal", "enlarged", "borderline")[number % 3]))
            if number != 8:
                archive.writestr(f"{folder}.txt", text)
    header = [
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "Columns",
    ]
    table(root / "mimic-cxr-2.0.0-metadata.csv.gz", header, meta)
    table(root / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "study_id", "subject_id", "split"], splits)
    table(root / "mimic-cxr-2.0.0-chexpert.csv.gz", ["subject_id", "study_id", *CHEXPERT], labels)


def openi_report(number: int, findings: str, impression: str, mesh, images=2) -> bytes:
    pictures = "".join(
        f'<parentImage id="CXR{number}_1_IM-{number:04d}-{v}001"><figureId>F{v}</figureId></parentImage>'
        for v in range(3, 3 + images)
    )
    majors = "".join(f"<major>{name}</major>" for name in mesh)
    label = (
        f'<AbstractText Label="FINDINGS">{findings}</AbstractText>' if findings else '<AbstractText Label="FINDINGS"/>'
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<eCitation><meta type="rr"/><uId id="CXR{number}"/><MedlineCitation Owner="Indiana University"><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Positive TB test</AbstractText>
{label}<AbstractText Label="IMPRESSION">{impression}</AbstractText></Abstract></Article></MedlineCitation>
<MeSH>{majors}</MeSH>{pictures}</eCitation>""".encode()


def openi_archive(count=24) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(1, count + 1):
            mesh = (["normal"], ["Cardiomegaly/mild"], ["Pleural Effusion/left", "Aorta/tortuous"], ["No Indexing"])[
                number % 4
            ]
            findings = "" if number == 7 else f"The lungs are clear in film {number}."
            impression = "" if number == 7 else "No acute disease."
            data = openi_report(number, findings, impression, mesh, images=0 if number == 9 else 2)
            info = tarfile.TarInfo(f"ecgen-radiology/{number}.xml")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def openi_wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("torchxrayvision/__init__.py", "")
        wheel.writestr("torchxrayvision/data/NLMCXR_reports.tgz", openi_archive())
    return path


def iu_xray(root: Path) -> None:
    (root / "NLMCXR_reports.tgz").write_bytes(openi_archive())
    for number in range(1, 25):
        for view in (3, 4):
            picture(root / "NLMCXR_png" / f"CXR{number}_1_IM-{number:04d}-{view}001.png", 10 * number + view)


def roco(root: Path) -> None:
    for split, count in (("train", 20), ("valid", 4), ("test", 4)):
        names = [f"ROCOv2_2023_{split}_{i:06d}" for i in range(1, count + 1)]
        captions = [f"Chest CT of case {i}, with “quotes”, commas and é." for i in range(count)]
        captions[1] = ""
        table(root / f"{split}_captions.csv", ["ID", "Caption"], zip(names, captions))
        table(root / f"{split}_concepts.csv", ["ID", "CUIs"], [[name, "C0040405;C0817096"] for name in names])
        for i, name in enumerate(names):
            picture(root / f"{split}_images" / split / f"{name}.jpg", len(split) * 100 + i, "RGB" if i == 2 else "L")


def medpix(root: Path) -> None:
    """Ten cases of three pictures each, with the odd values that the published files hold or could hold."""
    root = root / "MedPix-2-0"
    regions = ("Head", "Thorax", "Abdomen", "Spine and Muscles", "Reproductive and Urinary System")
    described, cases = [], []
    for i in range(30):
        case, modality = f"MPX{1000 + i // 3}", "MR" if i // 3 % 2 else "CT"
        name = f"{case}_synpic{20000 + i}"
        about = {
            "ACR Codes": "8.-1",
            "Age": "N/A" if i == 0 else str(i),
            "Caption": f"Slice {'abc'[i % 3]}  of a case",
            "Figure Part": None,
            "Modality": f"{modality} - noncontrast",
            "Plane": "Axial",
            "Sex": "female",
        }
        described.append(
            {
                "Type": modality,
                "U_id": case,
                "image": name,
                "Description": about,
                "Location": "Left Blank",
                "Location Category": regions[i // 3 % 5],
            }
        )
        picture(root / "images" / f"{name}.png", 900 + i)
        if i % 3 == 0:
            told = {"Title": "Diverticulum", "Findings": None if i == 6 else "A mass.\n\nNo bone is broken."}
            cases.append({"U_id": case, "TAC": [], "MRI": [], "Case": told, "Topic": {}})
    described[1]["Description"]["Plane"] = "Photograph"
    described[2]["Type"] = "US"
    described[4]["image"] = None
    described[5]["Description"]["Caption"] = None
    described[6]["Description"]["Caption"] = " N/A "
    described[7]["Description"] = None
    described[8] = described[7] | {"Description": {"Caption": "twice"}}
    lists = {"train": [f"MPX{1000 + i}" for i in range(6)], "dev": ["MPX1006"], "test": ["MPX1007", "MPX1008"]}
    (root / "Descriptions.json").write_text(json.dumps(described))
    (root / "Case_topic.json").write_text(json.dumps(cases))
    (root / "splitted_dataset").mkdir()
    (root / "splitted_dataset" / "uid_list.json").write_text(json.dumps(lists | {"train_1": ["MPX1007"]}))


def padchest(root: Path) -> None:
    header = (
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,"
        "Projection,MethodProjection,Pediatric,PhotometricInterpretation_DICOM,ReportID,Report,MethodLabel,Labels,"
        "Localizations"
    )
    lines = []
    for i in range(30):
        labels = {0: "['normal']", 1: "['loc basal', ' pneumonia', 'COPD signs ']", 2: "nan", 3: "['cardiomegaly'"}[
            i if i in (2, 3) else i % 2
        ]
        report = "None" if i == 4 else f" sin hallazg patolog edad pacient . numer {'abcdefgh'[i % 8]} ."
        kind = "MONOCHROME1" if i == 6 else "MONOCHROME2"
        lines.append([i, f"{i}.png", i % 3, 20140915, f"s{i}", f"p{i}", 1930.0, "F", "", "L" if i == 8 else "PA",
                      "Manual", "No", kind, i, report, "Physician", labels, "['loc basal']"])  # fmt: skip
        picture(root / str(i % 3) / f"{i}.png", i if i != 6 else 5, "I;16")
    table(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", header, lines, quote=False)


def chexpert_plus(root: Path) -> None:
    lines, labels = [], []
    for i in range(24):
        path = f"{'valid' if i > 19 else 'train'}/patient{i:05d}/study1/view1_{'lateral' if i == 3 else 'frontal'}.jpg"
        findings = "" if i == 5 else f"The cardiac silhouette is enlarged in case {i}."
        report = f"NARRATIVE:\nChest.\n\nIMPRESSION:\n1. Stable film {i}.\nEND OF IMPRESSION"
        lines.append([path, f"{path[:-4]}.dcm", "Lateral" if i == 3 else "Frontal", "AP", f"patient{i:05d}", 1, report,
                       findings, "" if i % 2 else f"1. No effusion in {i}.", 60, "Male", "White",
                      "valid" if i > 19 else "train"])  # fmt: skip
        labels.append({"path_to_image": path, "Cardiomegaly": 1.0, "Edema": None, "Pneumonia": -1.0 if i == 2 else 0.0})
        picture(root / "PNG" / path.replace(".jpg", ".png"), i)
    header = [
        "path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order",
        "report", "section_findings", "section_impression", "age", "sex", "race", "split",
    ]  # fmt: skip
    table(root / "df_chexpert_plus_240401.csv", header, lines)
    (root / "chexbert_labels").mkdir()
    (root / "chexbert_labels" / "impression_fixed.json").write_text("\n".join(map(json.dumps, labels)))


def rsna(root: Path) -> None:
    lines, classes = [], []
    for i in range(30):
        name, ill = f"{i:08x}-aaaa", i % 3 == 0
        for box in range(2 if ill else 1):
            lines.append([name, *([264.0 + box, 152.0, 213.0, 379.0] if ill else [""] * 4), int(ill)])
            classes.append([name, "Lung Opacity" if ill else ("Normal", "No Lung Opacity / Not Normal")[i % 2]])
        noise_film(root / "stage_2_train_images" / f"{name}.dcm", i, PatientID=name, ViewPosition="AP")
    table(root / "stage_2_train_labels.csv", ["patientId", "x", "y", "width", "height", "Target"], lines)
    table(root / "stage_2_detailed_class_info.csv", ["patientId", "class"], classes)


def siim(root: Path) -> None:
    lines = []
    for i in range(30):
        uid = f"1.2.276.0.7230010.3.1.4.8323329.{i}"
        for _ in range(2 if i == 4 else 1):
            lines.append([uid, " -1" if i % 2 else " 557374 2 1015 8 1009 14"])
        if i != 9:
            noise_film(root / "dicom-images-train" / f"{uid}.study" / f"{uid}.series" / f"{uid}.dcm", i)
    table(root / "train-rle.csv", "ImageId, EncodedPixels", lines, quote=False)


def vindr(root: Path) -> None:
    names = ["Aortic enlargement", "Cardiomegaly", "Pleural effusion", "Other diseases", "No finding"]
    for split, count in (("train", 24), ("test", 6)):
        lines = []
        for i in range(count):
            name = f"{split}{i:030x}"
            ill = i % 2
            for reader in range(3 if split == "train" else 1):
                agrees = int(ill and reader < 2)
                votes = [0, agrees, int(ill and reader == 2), 0, int(not ill)]
                lines.append([name, *([f"R{reader}"] if split == "train" else []), *votes])
            noise_film(
                root / split / f"{name}.dicom", i + 100 * (split == "test"), PhotometricInterpretation="MONOCHROME1"
            )
        header = ["image_id", *(["rad_id"] if split == "train" else []), *names]
        table(root / "annotations" / f"image_labels_{split}.csv", header, lines)


def covidx(root: Path) -> None:
    for split, count in (("train", 24), ("val", 4), ("test", 4)):
        lines = []
        for i in range(count):
            file = f"{split} film {i}.png" if i == 1 else f"{split}-{i}.png"
            lines.append(f"{split}{i} {file} {('positive', 'negative')[i % 2]} {'cohen' if i % 2 else 'rsna'}")
            picture(root / split / file, i + len(split) * 100)
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n\nbroken line\n")


def kermany(root: Path) -> None:
    for split, count in (("train", 12), ("val", 3), ("test", 4)):
        base = {"train": 0, "val": 500, "test": 900}[split]
        for i in range(count):
            person = base + i
            picture(root / f"chest_xray/{split}/NORMAL/IM-{person:04d}-0001.jpeg", person)
            picture(root / f"chest_xray/{split}/PNEUMONIA/person{person}_bacteria_{i}.jpeg", person + 5000, "RGB")
    (root / "chest_xray/train/NORMAL/.DS_Store").write_bytes(b"x")
    picture(root / "__MACOSX/chest_xray/train/NORMAL/IM-9999-0001.jpeg", 3)


def pneumoniamnist(root: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 20), ("val", 4), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez_compressed(root / "pneumoniamnist.npz", **arrays)


def chestmnist(root: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = {}
    for split, count in (("train", 20), ("val", 4), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 64, 64), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.eye(14, dtype=np.uint8)[np.arange(count) % 14]
    arrays["train_labels"][0, 1] = 1
    np.savez(root / "chestmnist_64.npz", **arrays)


def pneumoniamnist_c(root: Path) -> None:
    (root / "pneumoniamnist").mkdir()
    for number, corruption in enumerate(("gaussian_noise", "jpeg_compression")):
        # Five severities, one after the other, of the same four pictures.
        pictures = np.random.default_rng(number).integers(0, 256, (20, 28, 28), dtype=np.uint8)
        labels = np.tile(np.arange(4) % 2, 5)[:, None]
        np.savez_compressed(root / "pneumoniamnist" / f"{corruption}.npz", test_images=pictures, test_labels=labels)


def vqa_rad(root: Path) -> None:
    rows = []
    for i in range(24):
        name = f"synpic{i // 2}.jpg"
        closed = i % 2 == 0
        rows.append(
            {
                "qid": str(i), "phrase_type": "test_freeform" if i > 17 else "freeform", "image_name": name,
                "image_organ": "CHEST", "question": "Is there\ta pneumothorax?" if closed else "Where is the mass?",
                "answer": ("Yes ", "no")[i % 4 // 2] if closed else (3 if i == 5 else "right upper lobe"),
                "answer_type": "CLOSED " if closed else "OPEN",
            }
        )  # fmt: skip
        picture(root / "VQA_RAD Image Folder" / name, i // 2)
    rows[3]["answer"] = ""
    (root / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))


def slake(root: Path) -> None:
    for split, count in (("train", 12), ("validate", 4), ("test", 4)):
        rows = []
        for i in range(count):
            name = f"xmlab{len(split) * 100 + i}/source.jpg"
            for number, (question, answer, language) in enumerate(
                [("Is the lung healthy?", "No", "en"), ("肺健康吗？", "不", "zh")]
            ):
                rows.append({"img_id": i, "img_name": name, "question": question, "answer": answer, "q_lang": language,
                             "modality": "X-Ray", "answer_type": "CLOSED", "qid": 10 * i + number})  # fmt: skip
            picture(root / "imgs" / name, len(split) * 100 + i, "RGB")
        (root / f"{split}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def path_vqa(root: Path) -> None:
    (root / "data").mkdir()
    for split, count in (("train", 16), ("validation", 4), ("test", 4)):
        cells, questions, answers = [], [], []
        for i in range(count):
            data = picture(root / "one.png", len(split) * 100 + i, "RGB").read_bytes()
            cells.append({"bytes": data, "path": None})
            questions.append(f"is stain {i} present?" if i % 2 else "what is shown?")
            answers.append("yes" if i % 2 else "a liver")
        stored = pa.table({"image": cells, "question": questions, "answer": answers})
        parquet.write_table(stored, root / "data" / f"{split}-00000-of-00001-abc.parquet")
    (root / "one.png").unlink()


ALL = {
    function.__name__: function
    for function in (
        nih, chexpert, mimic_cxr, iu_xray, roco, medpix, padchest, chexpert_plus, rsna, siim, vindr, covidx, kermany,
        pneumoniamnist, chestmnist, pneumoniamnist_c, vqa_rad, slake, path_vqa,
    )
}  # fmt: skip
