"""How many tokens a text or a request is, and how a chat becomes one prompt.

Owns tokenizers (`encodings`), chat templates (`templates`, `jinja`) and counting (`counting`). Must not know I/O
beyond reading the files a model's configuration names, nor what a count is used for.
"""

from extproc.tokenization.counting import ACCOUNTED, ModelTokenizer, load

__all__ = ["ACCOUNTED", "ModelTokenizer", "load"]
