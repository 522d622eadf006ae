"""What MLflow runs where a model is served: this file, copied beside the model's folder; nothing is pickled."""

from __future__ import annotations

from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

import raymc


class Served(PythonModel):
    """Rows, images or texts in; the cluster of each out, `[n]`."""

    def load_context(self, context: Any) -> None:
        """Read the model from the folder that lies beside this file."""
        self.model = raymc.load_model(context.artifacts["model"])

    def predict(
        self,
        context: Any,
        model_input: np.ndarray,  # or a DataFrame: MLflow warns where it finds no type it knows
        params: dict[str, Any] | None = None,
    ) -> Any:
        """See `raymc.estimators.model.Model.predict`."""
        return self.model.predict(model_input)


set_model(Served())
