"""What to type once the local stack runs: a curl and an openai snippet that work as they are."""

from extproc.config.model import GatewayConfig
from extproc.operation import Operation

_TEXT = """\
Try it:

curl -N {base_url}/chat/completions \\
  -H 'Authorization: Bearer {key}' \\
  -H 'content-type: application/json' \\
  -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'

or in Python (pip install openai):

from openai import OpenAI
client = OpenAI(base_url="{base_url}", api_key="{key}")
answer = client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hello!"}}])
print(answer.choices[0].message.content, answer.usage)
"""


def suggestion(config: GatewayConfig, base_url: str, key: str) -> str:
    """For the first model that can chat; one that can't is better than nothing."""
    chatting = [name for name, model in config.models.items() if Operation.CHAT in model.operations]
    return _TEXT.format(base_url=base_url, key=key, model=next(iter(chatting or config.models)))
