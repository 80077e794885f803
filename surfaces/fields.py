"""The kinds of value that surface and trunk files share: strict models, names, templates, durations."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from prompts.errors import SpecError, TemplateError
from prompts.render import Condition, Template, compile_condition, compile_template
from prompts.values import TEXT_CAP, clean_text
from surfaces.included import Folder

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
DURATION = "^(?=.*[1-9])[0-9]{1,6}[smhdw]$"
"""How a duration is written."""
_DURATION = re.compile(DURATION)


class Strict(BaseModel):
    """Nothing is guessed: unknown keys are refused, and so is a number in quotes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        validate_default=True,
    )


def wrong(problem: str, *at: str | int) -> PydanticCustomError:
    """An error for a validator to raise; `at` leads from the validated value to the part that is wrong."""
    return PydanticCustomError("wrong", "{problem}", {"problem": problem, "at": at})


def from_file(value: object, info: ValidationInfo) -> object:
    """The text of a file beside the surface file, where the value is `{file: NAME}`; else the value as it is."""
    if not isinstance(value, dict) or set(value) != {"file"}:
        return value
    folder = info.context
    if not isinstance(folder, Folder):
        raise wrong("a file can only be named in a surface file that lies in a folder; write the text itself", "file")
    try:
        return folder.read(value["file"])
    except SpecError as error:
        raise wrong(str(error), "file") from None


def _template(value: object) -> Template:
    if isinstance(value, Template):
        return value
    if not isinstance(value, str):
        raise wrong("should be text; put it in quotes")
    try:
        return compile_template(value, where="")
    except TemplateError as error:
        raise wrong(str(error)) from None


def _condition(value: object) -> Condition:
    if isinstance(value, Condition):
        return value
    if not isinstance(value, str):
        raise wrong("should be text; put it in quotes")
    try:
        return compile_condition(value, where="")
    except TemplateError as error:
        raise wrong(str(error)) from None


def _duration(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    if not isinstance(value, str) or _DURATION.fullmatch(value) is None:
        raise wrong("should be a whole number and one of s, m, h, d, w, like 14d or 6h")
    return float(int(value[:-1]) * UNITS[value[-1]])


def as_duration(seconds: float) -> str | float:
    """A duration as a file has it: in the largest unit that fits, or as the number where none does."""
    for unit in "dhms":
        count, rest = divmod(seconds, UNITS[unit])
        if not rest and 1 <= count < 1_000_000:
            return f"{int(count)}{unit}"
    return seconds


def _text(value: object) -> object:
    if not isinstance(value, str):
        return value
    if len(value) > TEXT_CAP:
        raise wrong(f"has {len(value)} characters; at most {TEXT_CAP} are allowed")
    cleaned = clean_text(value)
    if not cleaned:
        raise wrong("is empty; write a few words")
    return cleaned


def text_schema(description: str) -> dict[str, Any]:
    """JSON Schema of a text that stands in the file, or in a file beside it."""
    name = {"type": "string", "description": "The name of a text file beside the surface file, or in a folder below."}
    file = {"type": "object", "properties": {"file": name}, "required": ["file"], "additionalProperties": False}
    return {"description": description, "anyOf": [{"type": "string"}, file]}


TemplateText = Annotated[
    Template,
    PlainValidator(_template),
    BeforeValidator(from_file),
    PlainSerializer(lambda template: template.source, return_type=str),
    WithJsonSchema(text_schema("Text with {{ name }}, {% if %}, {% for %} and filters.")),
]
"""A template, compiled when the file is read."""

ConditionText = Annotated[
    Condition,
    PlainValidator(_condition),
    PlainSerializer(lambda condition: condition.source, return_type=str),
    WithJsonSchema({"type": "string", "description": "An expression over item.NAME, member.NAME and context.NAME."}),
]
"""A condition, compiled when the file is read."""

Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(as_duration, when_used="json"),
    WithJsonSchema(
        {
            "type": ["string", "number"],
            "pattern": DURATION,
            "exclusiveMinimum": 0,
            "description": "Like 14d or 6h; a number is seconds.",
        }
    ),
]
"""Seconds; written `90s`, `30m`, `6h`, `14d` or `2w`."""

Text = Annotated[
    str, BeforeValidator(_text), BeforeValidator(from_file), WithJsonSchema(text_schema("One line of plain text."))
]
"""One line of plain text, never empty."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
"""Small letters, digits, _ and -."""

Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
"""A head's or an action's name."""


Locale = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")]
"""A language, as BCP 47 has it: `de`, `pt-BR`."""


def listed(**limits: Any) -> Any:
    """A list in the file, a tuple in Python (strict mode would ask for a tuple in the file)."""
    return Field(strict=False, **limits)
