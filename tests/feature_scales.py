"""A scaler of features for a linear fit, as a transformer of scikit-learn."""

import numpy as np
from sklearn.preprocessing import StandardScaler

__all__ = ["MedianScaler"]


class MedianScaler(StandardScaler):
    """Standardizes, but divides no feature by less than the median of all standard deviations."""

    def fit(self, X, y=None, sample_weight=None):
        super().fit(X, y, sample_weight)
        deviations = np.sqrt(self.var_)
        self.scale_ = np.clip(deviations, np.quantile(deviations[deviations > 0], 0.5), None)
        return self
