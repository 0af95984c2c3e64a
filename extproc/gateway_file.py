"""gateway.yaml read as this program means it: with the settings of the policies it has and the tokenizers it knows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from extproc import config, tokenization
from extproc.admission import Priority
from extproc.config.document import Key
from extproc.config.encoder import EncoderBackend
from extproc.config.model import GatewayConfig
from extproc.config.policy import PolicyMode
from extproc.config.pools import DialectName
from extproc.config.routing_references import broken_rules
from extproc.policies import pipeline
from extproc.policies.admit_settings import Settings as AdmitSettings
from extproc.policies.cache import Cache
from extproc.policies.limit_settings import Settings as LimitSettings
from extproc.policies.route import Route
from extproc.policies.route import Settings as RouteSettings
from extproc.policies.scan_texts import ScanTexts
from extproc.policies.semantic_cache import SemanticCache
from extproc.routing import json_answers


def load(path: Path, env: Mapping[str, str] | None = None) -> GatewayConfig:
    """The configuration, everything checked that can be without a network. Raises ConfigError."""
    checks = (_tokenizers, _rules, _cascades, _budgets, _admission, _issuers, _encoder, _semantic_cache)
    return config.load(path, pipeline.SETTINGS, env, checks=checks)


def _rules(checked: GatewayConfig) -> Iterator[tuple[Key, str]]:
    route = checked.policies.get(Route.name)
    if isinstance(route, RouteSettings):
        yield from broken_rules(checked, route.rules, ("policies", Route.name, "rules"))


def _cascades(checked: GatewayConfig) -> Iterator[tuple[Key, str]]:
    """Their schemas are some."""
    for name, cascade in checked.cascades.items():
        if cascade.json_schema is not None:
            try:
                json_answers.check_schema(cascade.json_schema)
            except ValueError as error:
                yield ("cascades", name, "json_schema"), str(error)


def _budgets(checked: GatewayConfig) -> Iterator[tuple[Key, str]]:
    """A budget is one sum, and amounts of different currencies can't be added."""
    limit = checked.policies.get("limit")
    currencies = {model.price.currency for model in checked.models.values() if model.price is not None}
    if isinstance(limit, LimitSettings) and len(currencies) > 1:
        for name in limit.budgets:
            yield ("policies", "limit", "budgets", name), f"the models' prices are in {', '.join(sorted(currencies))}"


def _admission(checked: GatewayConfig) -> Iterator[tuple[Key, str]]:
    """Lines are before pools that there are, and end before Envoy loses patience with who stands there."""
    admit = checked.policies.get("admit")
    if not isinstance(admit, AdmitSettings):
        return
    key: Key = ("policies", "admit")
    for name in admit.pools:
        if name not in checked.pools:
            yield (*key, "pools", name), f"there is no pool {name}"
    for priority, wait_s in zip(Priority, admit.classes.waits_s, strict=True):
        if wait_s >= checked.gateway.stream_idle_timeout_s:
            yield (*key, "classes", priority.name, "wait_s"), "never reached: gateway.stream_idle_timeout_s is shorter"


def _tokenizers(checked: GatewayConfig) -> Iterator[tuple[Key, str]]:
    for name, model in checked.models.items():
        if model.tokenizer is None:
            continue
        if _renders(name, checked) and model.chat_template == tokenization.ACCOUNTED:
            yield ("models", name, "chat_template"), "only counts; this pool's servers need the rendered prompt"
        for key, template in (("tokenizer", None), ("chat_template", model.chat_template)):
            try:
                tokenization.load(model.tokenizer, template)
            except ValueError as error:
                yield ("models", name, key), str(error)
                break


def _issuers(checked: GatewayConfig) -> Iterator[tuple[Key, str]]:
    """Envoy takes no issuer without keys."""
    for name, issuer in checked.identities.issuers.items():
        try:
            keys = json.loads(issuer.jwks_file.read_bytes())["keys"]
        except (OSError, ValueError, TypeError, KeyError):
            keys = None
        if not (isinstance(keys, list) and keys):
            yield ("identities", "issuers", name, "jwks_file"), "this is no JSON Web Key Set with a key"


def _renders(name: str, checked: GatewayConfig) -> bool:
    """Some pool takes chats of this model as one text: its own, or one that stands in for another."""
    served_in = {checked.models[name].pool}
    for asked_name, asked in checked.models.items():
        for fallback in checked.pools[asked.pool].fallback:
            if (fallback.public_model or asked_name) == name:
                served_in.add(fallback.pool)
    return any(checked.pools[pool].dialect is DialectName.TRITON_GENERATE for pool in served_in)


def _encoder(checked: GatewayConfig) -> Iterator[tuple[Key, str]]:
    """Policies that need the encoder can have it."""
    if not pipeline.needs_encoder(checked.policies):
        return
    scan = checked.policies.get(ScanTexts.name)
    if scan is not None and pipeline.needs_scan(checked.policies) and scan.mode is PolicyMode.OFF:
        yield ("policies", ScanTexts.name, "mode"), "a policy that is on needs it"
    encoder = checked.encoder
    if encoder.backend is EncoderBackend.OFF:
        yield ("encoder", "backend"), "a policy that is on needs the encoder"
        return
    from extproc.inference import minilm  # reading a configuration without the encoder needs none of its libraries

    folder = encoder.model_dir or minilm.default_folder()
    for name in ("tokenizer.json",) if encoder.backend is EncoderBackend.TRITON else ("tokenizer.json", "model.onnx"):
        if not (folder / name).is_file():
            yield ("encoder", "model_dir"), f"there is no file {folder / name}; `extproc models build` makes it"


def _semantic_cache(checked: GatewayConfig) -> Iterator[tuple[Key, str]]:
    """What finds answers has some that are kept, and its verifier."""
    own = checked.policies.get(SemanticCache.name)
    if own is None or own.mode is PolicyMode.OFF:
        return
    cache = checked.policies.get(Cache.name)
    if cache is None or cache.mode is PolicyMode.OFF:
        yield ("policies", SemanticCache.name, "mode"), "it finds what `policies.cache` keeps, and that is off"
    if not own.uses_verifier:
        return
    from extproc.inference.verifier import files

    folder = checked.encoder.verifier_dir or files.default_folder()
    for name in (files.MODEL, files.TOKENIZER):
        if not (folder / name).is_file():
            yield ("encoder", "verifier_dir"), f"there is no file {folder / name}; `extproc models build` makes it"
