"""The encoder: one small model whose sentence embedding and hidden states serve several policies."""
