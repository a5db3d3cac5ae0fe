"""The judges that a run can choose from, by the names of conf/judge."""

from mace_exp.evaluation.judges.base import JudgeConfig
from mace_exp.evaluation.judges.mini import MiniWorldJudge
from mace_exp.evaluation.judges.none import NoJudge

JUDGES: dict[str, type[JudgeConfig]] = {each.name: each for each in (MiniWorldJudge, NoJudge)}
"""The schema of each option of `judge`; one that is added before conf/ is composed is one more."""
