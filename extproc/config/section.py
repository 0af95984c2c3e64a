"""What every section of gateway.yaml is made of: the strict base model, and the names and files in it.

Must not know: any particular section.
"""

import pathlib
from typing import Annotated

import pydantic

# Names that become part of Envoy's cluster names, header values and metric labels. No dot: Envoy cuts
# the cluster out of its statistics' names at the first one.
Name = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
# A model's public name is the client's to type, and people publish models as `vendor/model:tag`.
ModelName = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$")]
Seconds = Annotated[float, pydantic.Field(gt=0, le=86400)]


class Section(pydantic.BaseModel):
    """A mapping in gateway.yaml: no key it does not know, no value of another type, nothing changed later."""

    model_config = pydantic.ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )


def _beside_config(path: pathlib.Path, info: pydantic.ValidationInfo) -> pathlib.Path:
    """A relative path is relative to the file that names it, wherever the process was started."""
    base: pathlib.Path | None = (info.context or {}).get("base")
    path = path.expanduser() if base is None else base / path.expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return path


ExistingFile = Annotated[pathlib.Path, pydantic.AfterValidator(_beside_config)]
