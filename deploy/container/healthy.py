"""Is the process in this container well? In: the port of its metrics. Out: exit code 0 where it has its broker."""  # noqa: INP001  runs by itself

import sys
import urllib.request

with urllib.request.urlopen(f"http://127.0.0.1:{int(sys.argv[1])}/metrics", timeout=5) as page:
    lines = page.read().decode().splitlines()
sys.exit(not {"hunch_agent_connected 1.0", "hunch_worker_connected 1.0"} & set(lines))
