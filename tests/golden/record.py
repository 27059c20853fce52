#!/usr/bin/env python3
"""Records engine answers for the golden cases: posts each case's upstream.json to a real llama-server.

    llama-server -m crates/testkit/fixtures/models/tiny-chat.gguf --alias tiny-chat --port 18080 --host 127.0.0.1
    python3 tests/golden/record.py http://127.0.0.1:18080

Run `UPDATE_GOLDEN=1 cargo test -p dialects --test golden` before (it writes upstream.json) and after (it writes the responses
made from the recordings). Then read the diff.
"""

import json
import pathlib
import sys
import urllib.request

root = pathlib.Path(__file__).parent


def main() -> None:
    base = sys.argv[1]
    for file in sorted(root.glob("*/*/upstream.json")):
        case = json.loads(file.read_text())
        if case.get("record", True) is False:
            continue
        request = urllib.request.Request(
            base + case["path"], json.dumps(case["body"]).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            kind = "sse" if "event-stream" in answer.headers["Content-Type"] else "json"
            (file.parent / f"upstream.{'sse' if kind == 'sse' else 'reply.json'}").write_bytes(answer.read())
        print(file.parent.name)


main()
