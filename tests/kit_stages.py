"""A stage for each way of class balancing, each schedule and each regularization: one run trains all of them."""

__all__ = [
    "BALANCES",
    "EVERYWHERE",
    "OF_IMAGES",
    "OF_TEXTS",
    "SCHEDULES",
    "kit_stages",
    "regular_stages",
    "skewed_reviews",
]

BALANCES = {
    "class-weights": "class_weights",
    "own-weights": {"method": "class_weights", "weights": {"bad": 3.0}},
    "effective-number": {"method": "effective_number", "beta": 0.9},
    "sampler": "sampler",
    "focal": {"method": "focal", "gamma": 1.5, "weights": {"bad": 2.0}},
    "logit-adjustment": {"method": "logit_adjustment", "tau": 1.5},
}
SCHEDULES = (
    {"name": "exponential", "end": 0.1},
    {"head": {"name": "step", "every": 2, "factor": 0.5}, "backbone": "cosine"},
    {"name": "cosine_with_restarts", "cycles": 2},
    {"head": "one_cycle", "backbone": "constant"},
    {"name": "warmup_stable_decay", "decay": 2, "decay_type": "1-sqrt"},
    {
        "head": {"name": "slanted_triangular", "cut_frac": 0.4, "ratio": 8.0},
        "backbone": {"name": "polynomial", "power": 2.0},
    },
)
EVERYWHERE = {
    "l1": {"l1": 0.05},
    "l2-sp": {"l2_sp": 5.0},
    "ema": {"ema": 0.8},
    "noise": {"gradient_noise": 1e-3},
}
OF_TEXTS = {
    **EVERYWHERE,
    "r-drop": {"r_drop": 2.0},
    "all-of-them": {"l1": 0.01, "l2_sp": 1.0, "r_drop": 1.0, "ema": 0.7},
}
OF_IMAGES = {
    **EVERYWHERE,
    "mixup": {"mixup": 0.5},
    "cutmix": {"cutmix": 1.0},
    "all-of-them": {"l1": 0.01, "ema": 0.7, "mixup": 0.5, "cutmix": 1.0, "gradient_noise": 1e-4},
}


def regular_stages(regularizers, **common):
    """Return a stage for each, with smoothed labels and weight decay, training the last layer group and all in turn.

    The best epoch is chosen by the loss.
    """
    return [
        {
            "name": name,
            "train": "last:1" if index % 2 else "all",
            "lr": {"head": 0.02, "backbone": 0.005},
            "regularize": regularize,
            "best": "loss",
            "label_smoothing": 0.1,
            "weight_decay": 0.02,
            **common,
        }
        for index, (name, regularize) in enumerate(regularizers.items())
    ]


def kit_stages(**common):
    """Return a stage for each; all train the head, and every other one trains the layers below it too."""
    pairs = zip(BALANCES.items(), SCHEDULES, strict=True)
    return [
        {
            "name": name,
            "train": "all" if index % 2 else "head",
            "lr": 0.005 if index % 2 else 0.05,
            "balance": balance,
            "schedule": schedule,
            **common,
        }
        for index, ((name, balance), schedule) in enumerate(pairs)
    ]


def skewed_reviews(reviews, path):
    """Write 27 of the reviews, 20 positive and 7 negative, to a csv."""
    header, *lines = reviews.read_text(encoding="utf-8").splitlines()
    bad = [line for line in lines if line.endswith(",bad")]
    kept = [line for line in lines if line not in bad[7:]]
    path.write_text("\n".join([header, *kept, ""]), encoding="utf-8")
    return path
