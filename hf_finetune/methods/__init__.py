"""Training methods that a stage can add: class balance, mixup, R-Drop, EMA, distillation and others, one file each."""
