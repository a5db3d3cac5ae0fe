"""`cmmd`: the CLIP maximum mean discrepancy between sets of pictures, by `compared_sets`."""

from mace_exp.evaluation.metrics.compared_sets import set_metric
from mace_exp.evaluation.metrics.set_distances import cmmd_distance

METRIC = set_metric("cmmd", cmmd_distance)
