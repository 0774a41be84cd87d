"""Which form of answer a model can be asked for, found out on requests that count.

A form is ruled out for the run by a refusal that speaks of it, by an answer that ignores it, or by
two answers in a row that it spoilt. Where a refusal is silent about its cause, the prompt in hand
is asked in the next form, and when two prompts in a row are answered only so, the form is ruled
out. Nothing else does: a prompt that is refused is one prompt.
"""

from __future__ import annotations

from reki_feast.llm.port import Request
from reki_feast.llm.replies import has_form
from reki_feast.llm.style import FORMAT, FORMS, Form
from reki_feast.llm.wire import SERVER_FAULT, TroubleError

#: Looks at a form that a server meets with 5xx, before the next form is tried.
_TRIES_BROKEN = 2
#: Prompts in a row that speak against a form, by which it is ruled out.
_ENOUGH = 2


class Forms:
    """The form that is asked for, in all and for each prompt.

    Args:
        fixed: the only form; None: the richest that works.

    Attributes:
        form: the form of the run, as far as is known.
        is_settled: whether an answer came in it, or it is the only one.
    """

    def __init__(self, fixed: Form | None) -> None:
        self.form: Form = fixed or FORMS[0]
        self.is_settled = fixed is not None
        self._why = ""
        self._is_fixed = fixed is not None
        #: By prompt: a lesser form, and whether a refusal that names no cause led to it.
        self._lower: dict[str, tuple[Form, bool]] = {}
        self._broken: dict[tuple[str, Form], int] = {}
        self._against = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Why another form than the richest is asked for, if one is."""
        name = "without a form" if self.form == "off" else f"as {self.form}"
        return (f"answers are asked for {name}: {self._why}",) if self._why else ()

    def of(self, request: Request) -> Form:
        """The form that a prompt is asked for in."""
        lower, _ = self._lower.get(request.prompt_hash, (self.form, False))
        return max(self.form, lower, key=FORMS.index) if request.factors else "off"

    def answered(self, request: Request, form: Form, text: str) -> None:
        """An answer came in reply to a prompt that asked for a form."""
        if not request.factors or self._is_fixed:
            return
        if self.is_settled and not self._lower and not self._against:
            return
        is_so = form == "off" or has_form(text, request.factors)
        _, was_silent = self._lower.pop(request.prompt_hash, (form, False))
        if was_silent and form != self.form:
            self._speak_against("answers come without it", form)
        if form == self.form and is_so:
            self.is_settled, self._against = True, 0
        elif form == self.form and not self.is_settled:
            self.rule_out(form, "answers ignore it")

    def failed(self, request: Request, form: Form, trouble: TroubleError) -> None:
        """No answer came; the trouble learns whether another form may help at once."""
        if not request.factors or self._is_fixed:
            return
        if trouble.was_answered:
            self.is_settled = self.is_settled or form == self.form
        elif trouble.spoils_form:
            self._lower_for(request, form)
            if form == self.form:
                self._speak_against(trouble.faults[0].found, _next(form))
        elif form == "off":
            self._lower.pop(request.prompt_hash, None)
        elif self._is_of_form(request, form, trouble):
            is_silent = trouble.refused != FORMAT
            if not is_silent:
                self.rule_out(form, trouble.faults[0].found)
            if self.of(request) == form:
                self._lower_for(request, form, is_silent=is_silent)
            trouble.again, trouble.is_free = True, True

    def settle(self, form: Form) -> None:
        """Answers came in a form: ask for it from now on, unless one is settled."""
        if not self.is_settled:
            self.form, self.is_settled = form, True

    def rule_out(self, form: Form, why: str, to: Form | None = None) -> None:
        """Ask for the next form, or a given one, from now on, if this one is asked for yet."""
        if self._is_fixed or form != self.form or form == "off":
            return
        self.form, self._why = to or _next(form), why
        self.is_settled, self._against = False, 0

    def _speak_against(self, why: str, better: Form) -> None:
        self._against += 1
        if self._against >= _ENOUGH:
            self.rule_out(self.form, why, max(better, _next(self.form), key=FORMS.index))

    def _is_of_form(self, request: Request, form: Form, trouble: TroubleError) -> bool:
        """Whether the form may be at fault; a server at fault is asked twice first."""
        speaks = trouble.refused == FORMAT
        if not trouble.may_be_form or (self.is_settled and not speaks):
            return False
        if trouble.status < SERVER_FAULT:
            return True
        key = ("" if speaks else request.prompt_hash, form)
        self._broken[key] = self._broken.get(key, 0) + 1
        return self._broken[key] >= _TRIES_BROKEN

    def _lower_for(self, request: Request, form: Form, *, is_silent: bool = False) -> None:
        if form != "off":
            self._lower[request.prompt_hash] = _next(form), is_silent


def _next(form: Form) -> Form:
    return FORMS[min(FORMS.index(form) + 1, len(FORMS) - 1)]
