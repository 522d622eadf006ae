"""Quickstart: cluster the handwritten digits that ship with scikit-learn, without labels, and label new ones.

python examples/quickstart.py
"""

from __future__ import annotations

from sklearn.datasets import load_digits
from sklearn.metrics import normalized_mutual_info_score
from sklearn.model_selection import train_test_split

import raymc

X, y = load_digits(return_X_y=True)
X_train, X_new, y_train, y_new = train_test_split(X, y, test_size=200, random_state=0)

model = raymc.MLC(n_clusters=10, random_state=0, verbose=1).fit(X_train)

print(f"{len(set(model.labels_))} clusters of {len(X_train)} digits")
print(f"embedding: {model.embedding_.shape[1]} numbers of each, rows of length 1")
print(f"scores without labels: silhouette {model.metrics_['silhouette']:.2f}, probe {model.metrics_['probe']:.2f}")
print(f"NMI with the true digits: {normalized_mutual_info_score(y_train, model.labels_):.2f}")
print(f"NMI on digits that it never saw: {normalized_mutual_info_score(y_new, model.predict(X_new)):.2f}")
