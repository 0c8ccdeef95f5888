"""A convolutional network on 1,797 real handwritten digits; a shorter `keydnn run`.  Needs scikit-learn."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keydnn

keydnn.seed(0)
images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)  # (N, C, H, W)
x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)

model = keydnn.Sequential(
    keydnn.Conv2d(1, 8, 3, padding=1),
    keydnn.BatchNorm2d(8),
    keydnn.ReLU(),
    keydnn.MaxPool2d(2),
    keydnn.Conv2d(8, 16, 3, padding=1),
    keydnn.ReLU(),
    keydnn.GlobalAvgPool2d(),
    keydnn.Flatten(),
    keydnn.Dropout(0.1),
    keydnn.Dense(10),
)
model.build((1, 1, 8, 8))

model.fit(x_train, y_train, loss="cross_entropy", optimizer=keydnn.Adam(model.parameters(), lr=1e-2), metrics=["acc"], epochs=8)

results = model.evaluate(x_test, y_test, loss="cross_entropy", metrics=["acc"])
print(f"test accuracy {results['acc']:.4f}")
assert results["acc"] > 0.9
