"""`python -m sandbox`: goes in and prints what walls stand, as JSON. It is the process that report() asks."""

import json
from dataclasses import asdict

from sandbox.enter import enter
from sandbox.profiles import DEFAULT_MEMORY_BYTES

if __name__ == "__main__":
    print(json.dumps(asdict(enter("job-cpu", memory_bytes=DEFAULT_MEMORY_BYTES, mode="auto"))))
