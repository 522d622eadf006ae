# What `raymc.NAME` is, for type checkers and editors; `__init__.py` imports each when it is first asked for.
from raymc.estimators.encode import encode as encode
from raymc.estimators.gcml import GCML as GCML
from raymc.estimators.mlc import MLC as MLC
from raymc.estimators.model import Model as Model
from raymc.estimators.model import load_model as load_model
from raymc.estimators.nmce import NMCE as NMCE
from raymc.estimators.study import Study as Study
from raymc.estimators.study import Trial as Trial
from raymc.estimators.study import load_study as load_study
from raymc.estimators.study import run_study as run_study

__version__: str
PUBLIC: dict[str, str]
