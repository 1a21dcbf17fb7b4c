"""Offline data generation: raw text to the shards that pre-training reads."""
