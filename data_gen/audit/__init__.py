"""The audit of shards: figures, verdicts, a text summary and a page. `python -m data_gen.audit SHARDS`."""
