from raymc.estimators.gcml import GCML as GCML
from raymc.estimators.mlc import MLC as MLC
from raymc.estimators.model import load_model as load_model
from raymc.estimators.nmce import NMCE as NMCE

__version__: str
PUBLIC: dict[str, str]
