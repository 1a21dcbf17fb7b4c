"""From files to documents and pairs: formats, compression, encodings, cleaning, what is left out and why."""
