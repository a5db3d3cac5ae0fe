"""The judges that a run can choose from, by the names of conf/judge."""

from mace_exp.evaluation.judges.base import JudgeConfig, NoJudge
from mace_exp.evaluation.judges.clip import ClipJudge
from mace_exp.evaluation.judges.command import CommandJudge
from mace_exp.evaluation.judges.faces import FacesJudge
from mace_exp.evaluation.judges.mini import MiniWorldJudge
from mace_exp.evaluation.judges.nudenet import NudenetJudge

JUDGES: dict[str, type[JudgeConfig]] = {
    each.name: each
    for each in (ClipJudge, CommandJudge, FacesJudge, MiniWorldJudge, NoJudge, NudenetJudge)
}
"""The schema of each option of `judge`, including those added before conf/ is composed."""
