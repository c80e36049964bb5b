"""`python -m stream.runtime.probe [PATH]`: ask this machine's health server; for HEALTHCHECK, where there is no curl.

Exits 0 when the answer is 2xx, else 1; prints the answer. PATH is /healthz by default; the port is that of
RESEGMENT_METRICS__PORT, or 9464. Standard library only, so that it starts in milliseconds.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_SECONDS = 3.0


def probe(path: str, port: int, host: str = "127.0.0.1") -> tuple[bool, str]:
    """Whether the server at host:port answers 2xx for `path`, and what it says or why nothing was heard."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return 200 <= response.status < 300, response.read().decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer from {host}:{port}: {error}"
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    """The command; returns its exit code."""
    path = arguments[0] if arguments else "/healthz"
    good, text = probe(path, int(os.environ.get("RESEGMENT_METRICS__PORT", "9464")))
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
