"""`cmmd`: the CLIP maximum mean discrepancy between sets of pictures, by `compared_sets`."""

from functools import partial

from mace_exp.evaluation.metrics.compared_sets import SetDistance, set_metric
from mace_exp.evaluation.metrics.set_distances import cmmd_distance

METRIC = set_metric(SetDistance("cmmd", cmmd_distance, partial(cmmd_distance, paired=True)))
