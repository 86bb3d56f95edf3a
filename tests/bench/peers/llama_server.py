"""llama.cpp's HTTP server, as xllamacpp's wheel has it: `python llama_server.py FILE PORT THREADS SEQUENCES`."""

from __future__ import annotations

import sys
import time

import xllamacpp  # type: ignore[import-not-found]  # of another environment

CELLS_A_SEQUENCE = 256

path, port, threads, sequences = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
parameters = xllamacpp.CommonParams()
parameters.model.path = path
parameters.n_parallel, parameters.n_ctx = sequences, sequences * CELLS_A_SEQUENCE
parameters.n_batch = parameters.n_ubatch = 512
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
parameters.hostnames, parameters.port, parameters.verbosity = ["127.0.0.1"], port, 0
parameters.kv_unified = True
server = xllamacpp.Server(parameters)
print("listens", server.listening_address, flush=True)
while True:
    time.sleep(60)  # the server has threads of its own; this process is ended from outside
