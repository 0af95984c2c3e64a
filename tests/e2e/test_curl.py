"""What `extproc up` prints to try: typed as it is, it works."""

import json
import re
import subprocess
import sys

from extproc.cli.suggestion import suggestion
from extproc.stack.stack import Stack


def test_the_printed_curl_streams(stack: Stack, stack_key: str) -> None:
    printed = suggestion(stack.config, stack.base_url, stack_key)
    command = re.search(r"^curl .*?(?=\n\n)", printed, re.MULTILINE | re.DOTALL)
    assert command is not None
    # As a shell reads it, in pieces as they come.
    run = subprocess.run(
        ["sh", "-c", command[0] + " --silent --show-error"], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    *events, last = [event.removeprefix("data: ") for event in run.stdout.split("\n\n") if event]
    assert last == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert len(chunks) > 5
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_the_printed_python_answers(stack: Stack, stack_key: str) -> None:
    printed = suggestion(stack.config, stack.base_url, stack_key)
    script = printed[printed.index("from openai import") :]
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert "completion_tokens=" in run.stdout
