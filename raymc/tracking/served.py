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
        """See `raymc.estimators.model.Model.predict`. Raises ValueError for images that MLflow has cut to 0 and 1."""
        images = isinstance(model_input, np.ndarray) and model_input.dtype == np.uint8
        if images and model_input.max(initial=0) <= 1:
            raise ValueError(
                "images of 0 and 1: the server takes numbers 0..255, to which MLflow has cut floats in 0..1"
            )
        return self.model.predict(model_input)


set_model(Served())
