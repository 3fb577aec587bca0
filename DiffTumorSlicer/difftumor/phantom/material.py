"""Materials of the phantom and their HU in the portal-venous phase."""

from __future__ import annotations

from enum import IntEnum


class Material(IntEnum):
    """What a voxel is made of; decides its HU and its texture."""

    AIR = 0
    SKIN = 1
    SUBCUTANEOUS_FAT = 2
    MUSCLE = 3
    VISCERAL_FAT = 4
    LUNG = 5
    CORTICAL_BONE = 6
    TRABECULAR_BONE = 7
    DISC = 8
    SPINAL_CANAL = 9
    CARTILAGE = 10
    LIVER = 11
    SPLEEN = 12
    PANCREAS = 13
    KIDNEY_CORTEX = 14
    KIDNEY_MEDULLA = 15
    ARTERY = 16
    CAVA = 17
    PORTAL = 18
    BILE = 19
    BOWEL_WALL = 20
    BOWEL_FLUID = 21
    STOMACH_CONTENT = 22
    FECES = 23
    GAS = 24
    HEART = 25
    ADRENAL = 26
    TABLE = 27
    URINE = 28


# material: mean HU in the portal-venous phase, spread between patients, sd of coarse and of fine texture
TISSUE = {
    Material.AIR: (-1000, 0, 0, 0),
    Material.SKIN: (5, 10, 0, 0),
    Material.SUBCUTANEOUS_FAT: (-106, 4, 2, 3),
    Material.MUSCLE: (60, 5, 4, 7),
    Material.VISCERAL_FAT: (-101, 4, 3, 4),
    Material.LUNG: (-855, 20, 15, 15),
    Material.CORTICAL_BONE: (640, 80, 40, 60),
    Material.TRABECULAR_BONE: (190, 30, 15, 32),
    Material.DISC: (85, 8, 5, 6),
    Material.SPINAL_CANAL: (32, 4, 2, 2),
    Material.CARTILAGE: (105, 12, 8, 15),
    Material.LIVER: (106, 8, 2.5, 3.0),
    Material.SPLEEN: (121, 8, 2.0, 3.0),
    Material.PANCREAS: (96, 7, 4, 9),
    Material.KIDNEY_CORTEX: (182, 12, 3, 6),
    Material.KIDNEY_MEDULLA: (160, 12, 3, 6),
    Material.ARTERY: (152, 10, 1, 1),
    Material.CAVA: (138, 10, 5, 3),
    Material.PORTAL: (165, 10, 1, 1),
    Material.BILE: (8, 4, 0.5, 0.5),
    Material.BOWEL_WALL: (94, 8, 5, 6),
    Material.BOWEL_FLUID: (26, 8, 7, 7),
    Material.STOMACH_CONTENT: (28, 12, 7, 7),
    Material.FECES: (38, 10, 15, 20),
    Material.GAS: (-960, 10, 0, 0),
    Material.HEART: (138, 8, 8, 4),
    Material.ADRENAL: (75, 6, 0, 3),
    Material.TABLE: (-80, 0, 0, 0),
    Material.URINE: (30, 12, 1, 1),
}
