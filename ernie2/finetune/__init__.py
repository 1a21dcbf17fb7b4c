"""Fine-tuning (paper section 3.3): `python -m ernie2.finetune`. The main loop is in __main__.py."""
