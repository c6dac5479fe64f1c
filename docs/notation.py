"""The formulas of docstrings, which are plain text that can be read in an editor, as LaTeX and as MathML.

A block is a formula if every line of it can be read in this notation:

    letters       one is a symbol, with accents, primes, ² ⁻¹ and ₀; x0 is x₀; d before one is upright; more are a word
    x_j  e^{x}    what follows in braces or as one word is below or above: w_jk, σ_max, D_{−j}, x^⅓
    √(…)  √D      a root of what follows
    Σ ∫ ‖ ⟨ ∝ …   as they are; three spaces or more part formulas on a line
    (Eq. 43)      a remark, as are up to seven words
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from latex2mathml.converter import convert

__all__ = ["latex", "mathml"]

_GREEK = {"lamda": "lambda", "Lamda": "Lambda", "epsilon": "varepsilon", "phi": "varphi"}
"""Letters whose name in LaTeX is not that in Unicode."""
_SIGNS = {
    "−": "-",
    "·": r"\cdot",
    "×": r"\times",
    "<=": r"\le",
    ">=": r"\ge",
    "≈": r"\approx",
    "∝": r"\propto",
    "∈": r"\in",
    "∋": r"\ni",
    "~": r"\sim",
    "∇": r"\nabla",
    "∂": r"\partial",
    "→": r"\to",
    "…": r"\ldots",
    "∞": r"\infty",
    "±": r"\pm",
    "‖": r"\Vert",
    "⟨": r"\langle",
    "⟩": r"\rangle",
    "⌈": r"\lceil",
    "⌉": r"\rceil",
    "¬": r"\neg",
    "½": r"\tfrac{1}{2}",
    "⅓": r"\tfrac{1}{3}",
    "¼": r"\tfrac{1}{4}",
    "Σ": r"\sum",
    "∫": r"\int",
    "|": r"\vert",
    **{sign: sign for sign in "+-=<>/[],;:!."},
}
_ACCENTS = {"\u0302": r"\hat", "\u0304": r"\bar", "\u0303": r"\tilde"}
_ABOVE = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺⁽⁾ᵀ", "0123456789-+()T", strict=True))
_BELOW = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_UPRIGHT = re.compile(
    "exp|log|ln|min|max|tr|argmin|argmax|softmax|Var|Cov|erfcx|round|sinh|diag|cos|sin|tan|mmse|MMSE|KL|TV|DDIM|EDM|dim|"
    "scale|sigma|eps"
)
_WORDS = 7
_REMARK = re.compile(r"\((?:Eq\.|I-MMSE|[A-Z][a-z]+[ ,])[^()]*\)|\(\*\)|\(bh[12]\)")
_ATOM = re.compile(r"\d+(?:\.\d+)?(?:e[-−]?\d+)?|<=|>=|[^\W\d_][\u0300-\u036f]*|\S")
_RELATION = re.compile(r"[=∝≈<>~]")
_OTHER = re.compile(r"[`\"#─&]|->|>>>|: [A-Za-z]{2}|^\w{3,} {3}")
"""Of code, of sentences, of a table whose rows have names."""


def latex(block: list[str]) -> str | None:
    """The lines of a block as one LaTeX formula; None where they are something else, such as code or a table."""
    lines = [unicodedata.normalize("NFD", line.strip()) for line in block if line.strip()]
    if not all(_RELATION.search(line) and not _OTHER.search(line) for line in lines):
        return None
    try:
        rows = [_Line(line).read() for line in lines]
    except ValueError:
        return None
    return rows[0] if len(rows) == 1 else r"\begin{array}{l}" + r" \\ ".join(rows) + r"\end{array}"


def mathml(text: str, *, display: bool) -> str:
    """MathML, which browsers show without a script, of LaTeX."""
    return convert(text, display="block" if display else "inline")


class _Line:
    """A line read from left to right.

    Raises:
        ValueError: it is no formula.
    """

    def __init__(self, text: str):
        self.text, self.at, self.words = text, 0, 0

    def read(self) -> str:
        return " ".join(self._until(""))

    def _until(self, end: str) -> Iterator[str]:
        """Everything before the sign `end`, which is passed over."""
        while self.at < len(self.text):
            if end and self.text.startswith(end, self.at):
                self.at += 1
                return
            yield self._one()
        if end:
            raise ValueError(f"no {end!r} in {self.text!r}")

    def _one(self) -> str:
        text, at = self.text, self.at
        if gap := re.compile(r" +").match(text, at):
            self.at = gap.end()
            return r"\quad" if len(gap[0]) > 2 else r"\,"
        if remark := _REMARK.match(text, at):
            self.at = remark.end()
            return rf"\text{{{unicodedata.normalize('NFC', remark[0])}}}"
        if text[at] == "√":
            self.at += 1
            if text.startswith("(", self.at):
                self.at += 1
                return rf"\sqrt{{{' '.join(self._until(')'))}}}"
            return rf"\sqrt{{{self._scripted(self._atom())}}}"
        if text[at] == "(":
            self.at += 1
            return self._scripted(f"({' '.join(self._until(')'))})")
        return self._scripted(self._atom())

    def _atom(self) -> str:
        word = re.compile(r"[A-Za-z]{2,}(?:-[a-z]+)*|nats?\b").match(self.text, self.at)
        if word:
            return self._word(word)
        found = _ATOM.match(self.text, self.at)
        if found is None:
            raise ValueError(self.text)
        self.at = found.end()
        if found[0] in _SIGNS:
            return _SIGNS[found[0]]
        letter, accents = found[0][0], found[0][1:]
        greek = unicodedata.name(letter, "").partition("GREEK ")[2].split()
        if greek:
            name = greek[-1].lower() if greek[0] == "SMALL" else greek[-1].title()
            made = rf"\{_GREEK.get(name, name)}"
        elif letter.isdigit() and letter.isascii():
            return found[0]
        elif letter.isascii() and letter.isalpha():
            made = r"\mathrm{E}" if found[0] == "E" else letter
        elif letter in _ABOVE or letter in _BELOW or letter == "*":
            self.at = found.start()
            return "{}"
        else:
            raise ValueError(f"{letter!r} in {self.text!r}")
        for accent in accents:
            made = rf"{_ACCENTS[accent]}{{{made}}}" if accent in _ACCENTS else made
        return made

    def _word(self, word: re.Match[str]) -> str:
        text = word[0]
        if _UPRIGHT.fullmatch(text):
            self.at = word.end()
            return rf"\mathrm{{{text}}}"
        if len(text) == 2 and text[0] == "d":
            self.at = word.start() + 1
            return r"\mathrm{d}"
        self.at, self.words = word.end(), self.words + 1
        if self.words > _WORDS:
            raise ValueError(f"words: {self.text!r}")
        return rf"\text{{{text}}}"

    def _scripted(self, base: str) -> str:
        """A base with what stands below and above it."""
        below, above = "", ""
        while self.at < len(self.text):
            sign = self.text[self.at]
            if sign in _ABOVE or sign == "*":
                if sign == "*" and not re.match(r"[\s,)(‖]|$", self.text[self.at + 1 : self.at + 2]):
                    break
                self.at += 1
                above += _ABOVE.get(sign, sign)
            elif sign in _BELOW:
                self.at += 1
                below += _BELOW[sign]
            elif sign in "_^" and self.at + 1 < len(self.text):
                self.at += 1
                made = self._script()
                below, above = (below + made, above) if sign == "_" else (below, above + made)
            elif sign == "'":
                self.at += 1
                above += r"\prime "
            elif sign.isdigit() and re.search(r"[a-zA-Z}]$", base) and not below:
                self.at += 1
                below += sign
            else:
                break
        return base + (rf"_{{{below}}}" if below else "") + (rf"^{{{above}}}" if above else "")

    def _script(self) -> str:
        if self.text[self.at] == "{":
            self.at += 1
            return " ".join(self._until("}"))
        word = re.compile(r"[A-Za-z]{3,}").match(self.text, self.at)
        if word:
            self.at = word.end()
            return rf"\mathrm{{{word[0]}}}"
        run = re.compile(r"¬?(?:[A-Za-z0-9Α-ω][\u0300-\u036f]*)+|\S").match(self.text, self.at)
        if run is None:
            raise ValueError(self.text)
        inner = _Line(run[0])
        self.at = run.end()
        made = ""
        while inner.at < len(inner.text):
            made += inner._letter() + " "
        return made.strip()

    def _letter(self) -> str:
        """One sign of a script, in which letters are symbols one by one."""
        sign = self.text[self.at]
        if sign.isascii() and sign.isalpha():
            self.at += 1
            return sign
        return self._scripted(self._atom())
