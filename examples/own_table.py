"""Your own table: a DataFrame of named columns through a Pipeline, an embedding with names, a model to keep.

python examples/own_table.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from sklearn.datasets import load_wine
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer

import raymc

table = load_wine(as_frame=True).data  # 178 wines, 13 columns

# raymc standardises columns by itself; a step before it is for what else the columns need.
skewed = PowerTransformer().set_output(transform="pandas")
pipeline = make_pipeline(skewed, raymc.MLC(n_clusters=3, random_state=0))
clusters = pipeline.fit_predict(table)

print("mean of each cluster:")
print(table.groupby(clusters)[["alcohol", "flavanoids", "color_intensity"]].mean().round(2).to_string())

model = pipeline[-1].set_output(transform="pandas")
print("embedding:")
print(model.transform(skewed.transform(table.head(3))).iloc[:, :4].round(2).to_string())

with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "model")
    loaded = raymc.load_model(Path(folder) / "model")
    same = loaded.predict(skewed.transform(table)) == model.predict(skewed.transform(table))
print(f"the loaded model gives {same.mean():.0%} of the wines the same cluster")
