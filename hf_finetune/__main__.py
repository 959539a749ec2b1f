"""Entry point of ``python -m hf_finetune``, and thus of ``accelerate launch -m hf_finetune``."""

from hf_finetune.cli.app import main

if __name__ == "__main__":
    main()
