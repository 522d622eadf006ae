"""Backbones and heads."""

from raymc.nets.architecture import architecture
from raymc.nets.backbones import BACKBONES, Backbone, backbone_width, build_backbone, check_backbone
from raymc.nets.heads import UnitLinear, pre_feature_layer

__all__ = [
    "BACKBONES",
    "Backbone",
    "UnitLinear",
    "architecture",
    "backbone_width",
    "build_backbone",
    "check_backbone",
    "pre_feature_layer",
]
