"""The smallest thing a line cannot learn: exclusive or, with layers, ``fit`` and a checkpoint."""

import tempfile
from pathlib import Path

import numpy as np

import keydnn

keydnn.seed(0)
x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
y = np.array([[0], [1], [1], [0]], dtype=np.float32)

model = keydnn.Sequential(keydnn.Dense(8), keydnn.Tanh(), keydnn.Dense(1), keydnn.Sigmoid())
model.build((1, 2))  # the lazy layers get their weights
print(model.summary())

optimizer = keydnn.Adam(model.parameters(), lr=0.05)
history = model.fit(x, y, loss="bce", optimizer=optimizer, metrics=["acc"], batch_size=4, epochs=300, verbose=0)
print("last epoch:", history.last())
print("predictions:", model.predict(x).to_numpy().ravel().round(3))

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "xor.json"
    model.save_json(path)
    again = keydnn.Sequential.load_json(path)
assert np.array_equal(again.predict(x).to_numpy(), model.predict(x).to_numpy())
assert history.last()["acc"] == 1.0
