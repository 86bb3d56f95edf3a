"""sentence-transformers over the same folder: `python embed.py FOLDER THREADS`, one list of texts a line of stdin.

Answers the seconds that `encode` took and how the first vector begins, a line each.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]  # of another environment

torch.set_num_threads(int(sys.argv[2]))
model = SentenceTransformer(sys.argv[1], device="cpu")
model.encode(["warm"] * 32, batch_size=32)
print("ready", flush=True)
for line in sys.stdin:
    texts = json.loads(line)
    began = time.perf_counter()
    vectors = model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    print(json.dumps([time.perf_counter() - began, vectors[0, :4].tolist()]), flush=True)
