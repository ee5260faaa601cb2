"""A frozen value, and reading the small words that come from outside.

Nothing here is imported but Python's own built-in parts. Most runs of the shim end in becoming the
phase, and a bare interpreter start is the unit they are measured in: `dataclasses` costs 1.4 of
it, `typing` 0.8, `enum` 0.3. So a `Record` stands for a frozen dataclass and literal types for
enums; mypy checks both as strictly.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> object:
        """Stand in at run time for what only the type checker reads."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Record:
    """A frozen value: its fields are the class's annotations, compared and shown by value."""

    def __init__(self, **values: object) -> None:
        """Take every field by keyword.

        Raises:
            TypeError: a field without a default is missing, or a name isn't a field.

        """
        cls = type(self)
        for name in cls.__annotations__:
            if name in values:
                object.__setattr__(self, name, values.pop(name))
            elif not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} needs {name}")
        if values:
            raise TypeError(f"{cls.__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a record doesn't change, `but` makes another."""
        raise AttributeError(f"{type(self).__name__}.{name} is frozen")

    def __eq__(self, other: object) -> bool:
        """Compare by class and fields."""
        return type(other) is type(self) and fields(other) == fields(self)

    def __hash__(self) -> int:
        """Hash by fields."""
        return hash(tuple(fields(self).items()))

    def __repr__(self) -> str:
        """Show as the call that makes it."""
        inside = ", ".join(f"{name}={value!r}" for name, value in fields(self).items())
        return f"{type(self).__name__}({inside})"

    def but(self, **changes: object) -> Self:
        """Return the same value with some fields changed."""
        return type(self)(**{**fields(self), **changes})


def fields(record: object) -> dict[str, object]:
    """Return a record's fields by name, in the order of their declaration."""
    return {name: getattr(record, name) for name in type(record).__annotations__}


def boolean(text: str) -> bool | None:
    """Read a boolean as Go's `strconv.ParseBool` does, which the lifecycle uses; None if it isn't one."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    return None


def is_hex_id(text: str) -> bool:
    """Say whether this is an image ID as the lifecycle writes it: 64 lower-case hex digits."""
    return len(text) == 64 and not text.strip("0123456789abcdef")


def environment(environ: Mapping[str, str], name: str) -> str | None:
    """Return a variable, or None where it isn't set or empty: the lifecycle sees no difference."""
    return environ.get(name) or None
