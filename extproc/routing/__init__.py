"""Which pool serves a model. Owns the catalog of models and pools; must not know gRPC, Redis or the policies."""
