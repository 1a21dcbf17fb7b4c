"""Other formats in and out: examples (Baidu's demo text, .jsonl) to and from shards; foreign pairs to the TSV files that a
recipe names (Discovery and one's own marked sentences, click logs, T2Ranking)."""
