"""A form that builds the document which REST would take, and shows each of the service's errors at its field.

What a document may hold is decided by the service alone; a form knows only which of its fields stands for which JSON
pointer. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django import forms
from unfold import widgets

from strongroom.errors import FieldError, StrongroomError


class DocumentForm(forms.Form):
    """A subclass has its fields, `pointers` (JSON pointer or its beginning → field) and `build`.

    `overflow` is the field that takes errors about what no field stands for; without it they head the form.
    """

    pointers: ClassVar[Mapping[str, str]] = {}
    overflow: ClassVar[str | None] = None
    wide: ClassVar[frozenset[str]] = frozenset()  # fields that take a line of their own
    use_required_attribute = False
    document: dict[str, Any]
    _unreadable: frozenset[str] = frozenset()

    def build(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The document of what was given; an empty field is left out, so that the service's default counts."""
        raise NotImplementedError

    def check(self, document: dict[str, Any]) -> None:
        """What can be said without changing anything; StrongroomError with every problem."""

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        self._unreadable = frozenset(self.errors)  # what could not be read needs no second complaint
        self.document = self.build(cleaned)
        try:
            self.check(self.document)
        except StrongroomError as error:
            self.hang(error)
        return cleaned

    def hang(self, error: StrongroomError) -> None:
        """Each problem at its field, in words, with its remedy."""
        for problem in error.errors or (FieldError("", error.code, error.detail),):
            self._hang(problem)

    def _hang(self, problem: FieldError) -> None:
        field = self.field_of(problem.path)
        if field in self._unreadable:
            return
        said = problem.message if problem.hint is None else f"{problem.message} ({problem.hint})"
        if field is None or field == self.overflow:
            where = f"{problem.path}: " if problem.path else ""
            self.add_error(field, f"{where}{said}")
        elif said not in self.errors.get(field, []):
            self.add_error(field, said)

    def field_of(self, pointer: str) -> str | None:
        """The field whose pointer is the longest beginning of this one."""
        parts = pointer.split("/")
        for length in range(len(parts), 1, -1):
            if (field := self.pointers.get("/".join(parts[:length]))) in self.fields:
                return field
        return self.overflow if pointer else None


def without_empty(document: dict[str, Any]) -> dict[str, Any]:
    """What was not filled in is left out, so that the service's default counts."""
    found = {key: without_empty(value) if isinstance(value, dict) else value for key, value in document.items()}
    return {key: value for key, value in found.items() if value not in (None, "", {}, [])}


# --- fields with unfold's looks


def text(label: str, *, required: bool = True, help: str = "", placeholder: str = "", **options: Any) -> Any:
    widget = widgets.UnfoldAdminTextInputWidget(attrs={"placeholder": placeholder, "autocomplete": "off"})
    return forms.CharField(label=label, required=required, help_text=help, widget=widget, **options)


def whole(label: str, *, help: str = "", placeholder: str = "", **options: Any) -> Any:
    widget = widgets.UnfoldAdminIntegerFieldWidget(attrs={"placeholder": placeholder})
    return forms.IntegerField(label=label, required=False, help_text=help, widget=widget, **options)


def number(label: str, *, help: str = "", **options: Any) -> Any:
    widget = widgets.UnfoldAdminDecimalFieldWidget(attrs={"step": "any"})
    return forms.FloatField(label=label, required=False, help_text=help, widget=widget, **options)


def choice(
    label: str, choices: Sequence[tuple[str, str]], *, required: bool = True, help: str = "", **more: Any
) -> Any:
    widget = widgets.UnfoldAdminSelectWidget
    return forms.ChoiceField(label=label, choices=choices, required=required, help_text=help, widget=widget, **more)


def several(label: str, choices: Sequence[tuple[str, str]], *, help: str = "", **options: Any) -> Any:
    return forms.MultipleChoiceField(
        label=label,
        choices=choices,
        required=False,
        help_text=help,
        widget=widgets.UnfoldAdminCheckboxSelectMultipleWidget,
        **options,
    )


def flag(label: str, *, help: str = "", **options: Any) -> Any:
    return forms.BooleanField(
        label=label, required=False, help_text=help, widget=widgets.UnfoldBooleanSwitchWidget, **options
    )


def long_text(
    label: str, *, rows: int = 6, code: bool = False, help: str = "", placeholder: str = "", **options: Any
) -> Any:
    attrs = {"rows": rows, "spellcheck": "false", "placeholder": placeholder, **({"class": "sr-code"} if code else {})}
    widget = widgets.UnfoldAdminTextareaWidget(attrs=attrs)
    return forms.CharField(label=label, required=False, help_text=help, widget=widget, **options)
