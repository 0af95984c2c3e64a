"""A simulated paged KV cache with prefix sharing. Owns: which prompt blocks are warm, how full it is.

Theory of operation: a prompt is cut into blocks of 16 tokens; a block's identity is the hash of all
tokens up to its end, so a block can only be warm when everything before it was the same. Warm blocks
live in one LRU. What running sequences occupy is a second, plain count: it decides admission and
utilisation, and never evicts. Knows nothing of time, text or Triton.
"""

import hashlib
from array import array
from collections import OrderedDict

BLOCK_TOKENS = 16


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)


def chain(token_ids: list[int]) -> list[bytes]:
    """The identities of the full blocks at the start of `token_ids`, in order."""
    identities = []
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(token_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        digest.update(array("I", token_ids[start : start + BLOCK_TOKENS]).tobytes())
        identities.append(digest.digest())
    return identities


class KvCache:
    def __init__(self, capacity_blocks: int) -> None:
        if capacity_blocks < 1:
            raise ValueError("kv_cache_blocks must be at least 1")
        self._capacity_blocks = capacity_blocks
        self._held_blocks = 0
        self._warm: OrderedDict[bytes, None] = OrderedDict()

    @property
    def utilization(self) -> float:
        """Share of the cache that running sequences occupy, 0 to 1."""
        return self._held_blocks / self._capacity_blocks

    def could_ever_hold(self, tokens: int) -> bool:
        return blocks_for(tokens) <= self._capacity_blocks

    def try_hold(self, tokens: int) -> bool:
        """Claim room for a sequence of up to `tokens` tokens; False when it has to wait."""
        blocks = blocks_for(tokens)
        if self._held_blocks + blocks > self._capacity_blocks:
            return False
        self._held_blocks += blocks
        return True

    def release(self, tokens: int) -> None:
        self._held_blocks -= blocks_for(tokens)

    def cached_tokens(self, token_ids: list[int]) -> int:
        """Prompt tokens whose keys and values are warm. Never the whole prompt: the last token must run."""
        warm_blocks = 0
        for identity in chain(token_ids[:-1]):
            if identity not in self._warm:
                break
            self._warm.move_to_end(identity)
            warm_blocks += 1
        return warm_blocks * BLOCK_TOKENS

    def remember(self, token_ids: list[int]) -> None:
        """Mark every full block of the sequence as warm, evicting the longest unused."""
        # Deepest block first: eviction then takes the ends of old prefixes before their beginnings.
        for identity in reversed(chain(token_ids)):
            self._warm[identity] = None
            self._warm.move_to_end(identity)
        while len(self._warm) > self._capacity_blocks:
            self._warm.popitem(last=False)
