"""`extproc keys` against the running stack: a key works as soon as it is made, and stops as soon as it is revoked."""

import json
import os
import re
import subprocess
import sys

import httpx

from extproc.stack.stack import Stack
from tests.helpers.processes import wait_until

# Keys are asked for again after 30 s anyway: what ends sooner was told.
AT_ONCE_S = 5.0


def keys(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as it is typed beside a running `extproc up`."""
    command = [sys.executable, "-m", "extproc", "keys", *arguments]
    place = ["--config", str(stack.settings.config), "--run-dir", str(stack.settings.run_dir)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EXTPROC_")}
    return subprocess.run([*command, *place], env=environment, capture_output=True, text=True, timeout=60)


def status(stack: Stack, key: str) -> int:
    return httpx.get(f"{stack.base_url}/models", headers={"authorization": f"Bearer {key}"}).status_code


def test_a_key_lives_from_its_creation_to_its_revocation(stack: Stack) -> None:
    created = keys(stack, "create", "--name", "Zoë", "--team", "t1", "--tier", "pro", "--model", "minilm")
    assert created.returncode == 0, created.stderr
    key = created.stdout.strip()
    found = re.search(r"^id +(\S+)$", created.stderr, re.MULTILINE)
    assert found is not None
    key_id = found[1]
    assert status(stack, key) == 200
    listed = [json.loads(line) for line in keys(stack, "list", "--json").stdout.splitlines()]
    (mine,) = [record for record in listed if record["id"] == key_id]
    assert (mine["name"], mine["team"], mine["tier"], mine["models"]) == ("Zoë", "t1", "pro", ["minilm"])
    assert key not in keys(stack, "list").stdout
    assert key_id in keys(stack, "list").stdout
    assert keys(stack, "revoke", key_id).returncode == 0
    assert wait_until(lambda: status(stack, key) == 401, AT_ONCE_S)
    assert re.search(rf"^{key_id} .* revoked$", keys(stack, "list").stdout, re.MULTILINE)
    again = keys(stack, "revoke", "key-nobody")
    assert again.returncode == 1
    assert "there is no key key-nobody" in again.stderr
    assert "Traceback" not in again.stderr
