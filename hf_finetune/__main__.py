"""``python -m hf_finetune``, and so ``accelerate launch -m hf_finetune``."""

from hf_finetune.cli.app import main

if __name__ == "__main__":
    main()
