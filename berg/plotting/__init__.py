"""Figures of labelled responses; what the labels say decides what can be drawn."""

from berg.plotting.bars import roi_bars
from berg.plotting.cortex import flatmap, surface
from berg.plotting.figures import draw
from berg.plotting.meshes import Mesh, read_mesh
from berg.plotting.page import save
from berg.plotting.rates import rate
from berg.plotting.receptive_fields import visual_field
from berg.plotting.scalp import topomap
from berg.plotting.slices import volume
from berg.plotting.time_courses import joint, time_course

__all__ = [
    "Mesh",
    "draw",
    "flatmap",
    "joint",
    "rate",
    "read_mesh",
    "roi_bars",
    "save",
    "surface",
    "time_course",
    "topomap",
    "visual_field",
    "volume",
]
