"""Which response format a model supports, found out on the run's own requests.

A format is ruled out for the run by an error reply that names it, by an answer that ignores it, or
by two answers in a row that it spoiled. Where an error reply does not name its cause, the prompt is
retried in the next format; if two prompts in a row are answered only so, the format is ruled out.
"""

from __future__ import annotations

from reki_feast.llm.dialect import FORMAT_FIELD, RESPONSE_FORMATS, ResponseFormat
from reki_feast.llm.interface import Request
from reki_feast.llm.responses import is_object_with
from reki_feast.llm.wire import SERVER_ERROR, CallError

#: Looks at a form that a server meets with 5xx, before the next form is tried.
_ATTEMPTS_BROKEN = 2
#: Prompts in a row that speak against a form, by which it is ruled out.
_ENOUGH = 2


class ResponseFormatSelector:
    """Selects the response format, for the run and for each prompt.

    Args:
        fixed: the only form; None: the richest that works.

    Attributes:
        form: the form of the run, as far as is known.
        is_settled: whether an answer came in it, or it is the only one.
    """

    def __init__(self, fixed: ResponseFormat | None) -> None:
        self.form: ResponseFormat = fixed or RESPONSE_FORMATS[0]
        self.is_settled = fixed is not None
        self._why = ""
        self._is_fixed = fixed is not None
        #: By prompt: a lesser form, and whether a refusal that names no cause led to it.
        self._lower: dict[str, tuple[ResponseFormat, bool]] = {}
        self._broken: dict[tuple[str, ResponseFormat], int] = {}
        self._against = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Why another form than the richest is asked for, if one is."""
        name = "without a form" if self.form == "off" else f"as {self.form}"
        return (f"answers are asked for {name}: {self._why}",) if self._why else ()

    def of(self, request: Request) -> ResponseFormat:
        """The form that a prompt is asked for in."""
        lower, _ = self._lower.get(request.prompt_hash, (self.form, False))
        return max(self.form, lower, key=RESPONSE_FORMATS.index) if request.factors else "off"

    def answered(self, request: Request, form: ResponseFormat, text: str) -> None:
        """An answer came in reply to a prompt that asked for a form."""
        if not request.factors or self._is_fixed:
            return
        if self.is_settled and not self._lower and not self._against:
            return
        is_so = form == "off" or is_object_with(text, request.factors)
        _, was_silent = self._lower.pop(request.prompt_hash, (form, False))
        if was_silent and form != self.form:
            self._count_against("answers come without it", form)
        if form == self.form and is_so:
            self.is_settled, self._against = True, 0
        elif form == self.form and not self.is_settled:
            self.rule_out(form, "answers ignore it")

    def failed(self, request: Request, form: ResponseFormat, trouble: CallError) -> None:
        """No answer came; the trouble learns whether another form may help at once."""
        if not request.factors or self._is_fixed:
            return
        if trouble.was_answered:
            self.is_settled = self.is_settled or form == self.form
        elif trouble.spoils_format:
            self._lower_for(request, form)
            if form == self.form:
                self._count_against(trouble.problems[0].detail, _next(form))
        elif form == "off":
            self._lower.pop(request.prompt_hash, None)
        elif self._is_about_format(request, form, trouble):
            is_silent = trouble.refused != FORMAT_FIELD
            if not is_silent:
                self.rule_out(form, trouble.problems[0].detail)
            if self.of(request) == form:
                self._lower_for(request, form, is_silent=is_silent)
            trouble.again, trouble.is_uncounted = True, True

    def settle(self, form: ResponseFormat) -> None:
        """Answers came in a form: ask for it from now on, unless one is settled."""
        if not self.is_settled:
            self.form, self.is_settled = form, True

    def rule_out(self, form: ResponseFormat, why: str, to: ResponseFormat | None = None) -> None:
        """Ask for the next form, or a given one, from now on, if this one is asked for yet."""
        if self._is_fixed or form != self.form or form == "off":
            return
        self.form, self._why = to or _next(form), why
        self.is_settled, self._against = False, 0

    def _count_against(self, why: str, better: ResponseFormat) -> None:
        self._against += 1
        if self._against >= _ENOUGH:
            self.rule_out(self.form, why, max(better, _next(self.form), key=RESPONSE_FORMATS.index))

    def _is_about_format(self, request: Request, form: ResponseFormat, trouble: CallError) -> bool:
        """Whether the form may be at fault; a server at fault is asked twice first."""
        speaks = trouble.refused == FORMAT_FIELD
        if not trouble.may_be_format or (self.is_settled and not speaks):
            return False
        if trouble.status < SERVER_ERROR:
            return True
        key = ("" if speaks else request.prompt_hash, form)
        self._broken[key] = self._broken.get(key, 0) + 1
        return self._broken[key] >= _ATTEMPTS_BROKEN

    def _lower_for(
        self, request: Request, form: ResponseFormat, *, is_silent: bool = False
    ) -> None:
        if form != "off":
            self._lower[request.prompt_hash] = _next(form), is_silent


def _next(form: ResponseFormat) -> ResponseFormat:
    return RESPONSE_FORMATS[min(RESPONSE_FORMATS.index(form) + 1, len(RESPONSE_FORMATS) - 1)]
