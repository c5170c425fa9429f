"""Is it anybody we know? One score from confidence and feature distance.

Strangers come in two kinds. Something of another world (a photograph) lies far from
all known features, whatever the logits say; another character lies near them, but no
logit stands out. So the score adds, each standardised on validation pictures, the
energy of the calibrated logits (Liu et al., 2020) and the Mahalanobis distance to the
nearest character's mean under one shared, shrunk covariance (Lee et al., 2018; Ledoit
and Wolf, 2004).
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf

from anime_tf import files
from anime_tf.errors import UserError
from anime_tf.metrics.recognition import accept_threshold

# Share of known pictures that the threshold lets through.
ACCEPT_RATE = 0.95


@dataclass(frozen=True)
class NoveltyDetector:
    """Scores how surely a picture shows somebody known: higher is surer.

    Attributes:
        whitening: float32 `[d, d]`; features times this have unit covariance.
        means: float32 `[k, d]`, mean whitened feature of each character.
        centers, scales: float32 `[2]`, mean and deviation of the two parts (energy,
            negative distance) on validation pictures.
        threshold: float32 `[]`; pictures that score below it are unknown.
    """

    whitening: np.ndarray
    means: np.ndarray
    centers: np.ndarray
    scales: np.ndarray
    threshold: np.ndarray

    @classmethod
    def fit(
        cls,
        train_features: np.ndarray,
        train_labels: np.ndarray,
        validation_features: np.ndarray,
        validation_logits: np.ndarray,
    ) -> "NoveltyDetector":
        """Fits distances to training pictures, scale and threshold to validation ones.

        Args:
            train_features: float `[n, d]`.
            train_labels: int `[n]` in [0, k), every class present.
            validation_features: float `[m, d]`.
            validation_logits: float `[m, k]`, divided by the temperature.
        """
        count = validation_logits.shape[1]
        means = np.stack(
            [train_features[train_labels == label].mean(0) for label in range(count)]
        )
        residuals = train_features - means[train_labels]
        covariance = LedoitWolf(store_precision=False, assume_centered=True)
        variances, directions = np.linalg.eigh(covariance.fit(residuals).covariance_)
        # With one picture of each there is no variance to divide by.
        scales = np.where(variances > 0, variances, np.inf) ** -0.5
        # Distances between whitened features are the Mahalanobis distances.
        whitening = directions * scales
        unscaled = cls(
            whitening=whitening.astype(np.float32),
            means=(means @ whitening).astype(np.float32),
            centers=np.zeros(2, np.float32),
            scales=np.ones(2, np.float32),
            threshold=np.float32(0),
        )
        parts = unscaled._parts(validation_features, validation_logits)
        scaled = cls(
            whitening=unscaled.whitening,
            means=unscaled.means,
            centers=parts.mean(0),
            scales=np.maximum(parts.std(0), 1e-6),
            threshold=np.float32(0),
        )
        scores = scaled.scores(validation_features, validation_logits)
        threshold = np.float32(accept_threshold(scores, ACCEPT_RATE))
        return cls(
            **{f.name: getattr(scaled, f.name) for f in fields(cls)[:-1]},
            threshold=threshold,
        )

    def scores(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Returns float32 `[n]` for features `[n, d]` and calibrated logits `[n, k]`.

        Known pictures score about 0 on average, strangers less.
        """
        parts = self._parts(features, logits)
        return ((parts - self.centers) / self.scales).sum(1)

    def save(self, filepath: Path) -> None:
        with files.replacing(filepath) as temporary:
            np.savez(temporary, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, filepath: Path) -> "NoveltyDetector":
        """Reads a detector; raises `UserError` when it is absent or not valid."""
        try:
            # Opened here, because NumPy leaves a damaged archive open.
            with (
                filepath.open("rb") as file,
                np.load(file, allow_pickle=False) as content,
            ):
                detector = cls(**{name: content[name] for name in content.files})
                detector._check_shapes()
                return detector
        # A damaged or hostile archive can fail in any of its readers.
        except Exception as error:
            raise UserError(f"{filepath} is no usable detector: {error}") from error

    def _check_shapes(self) -> None:
        if self.means.ndim != 2:
            raise ValueError(f"means should be [k, d], found {self.means.shape}")
        size = self.means.shape[1]
        expected = {
            "whitening": (size, size),
            "centers": (2,),
            "scales": (2,),
            "threshold": (),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} should have shape {shape}, found {found}")

    def _parts(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        energy = logsumexp(logits, axis=1)
        # Not squared: the far tail of the distances would drown the energy.
        distance = cdist(features @ self.whitening, self.means).min(1)
        return np.stack([energy, -distance], axis=1).astype(np.float32)
