"""What a stage may add to plain training, one file each: class balance, mixup, R-Drop, EMA, distillation and others."""
