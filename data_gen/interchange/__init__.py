"""Other formats in and out: examples (Baidu's text, .jsonl) to and from shards; pairs to the TSV files a
recipe names."""
