"""Whether a mention is denied: a small grammar over cue words.

A text is read as a string of kinds, one letter a word (`qc.lexicon.KINDS`), and each rule is a pattern over that
string (`qc.grammar`).

A mention is denied where the text says that the part is not there ("no eyebrows", "the lips are missing"), that
nothing is wrong with it ("the nose looks natural", "no flaw in the ears"), or that the manipulation does not reach it
("without touching the chin"). A denied judgement turns over: what "does not look natural" is claimed, and what "is not
blurred" is cleared.
"""

from __future__ import annotations

import re
from bisect import bisect

from mmtt_build.parts import LABELS
from qc import grammar
from qc.lexicon import PART, PLAIN
from qc.words import Part, Reading

CLAIMED, CLEARED, MISSING = 1, -1, -2

_REACH = 80  # words that a judgement looks back for its subject


class _Reader:
    """One pass over the judgements of a text."""

    def __init__(self, parts: dict[int, Part], exact: str) -> None:
        self.clauses = exact
        if ";" in exact or "+" in exact:
            exact = exact.replace(";", ",").replace("+", "a")
        if ",|" in exact:
            exact = grammar.ASIDE.sub(",a", exact)
        for found in grammar.ANSWER.finditer(exact) if "P." in exact[:-1] else ():
            if grammar.QUESTION.search(exact, max(found.start() - 5, 0), found.start() + 1):
                exact = f"{exact[: found.start()]}Pv{exact[found.end() :]}"
        if ":" in exact:
            exact = grammar.HEADED.sub(".", exact).replace(":", "v")
        self.parts, self.exact = parts, exact
        self.kinds = self.exact.translate(PLAIN)
        self.places = sorted(parts)
        self.direct: set[int] = set()  # parts whose cue stands before them
        self.fixed: set[int] = set()  # of these, what no later judgement moves
        self.consumed: set[int] = set()  # judgements that belong to a direct denial
        self.opposed: set[int] = set()
        self.stops: list[int] = []  # of a text with opposed parts
        self.clearing: set[int] = set()  # sentences that clear something
        self.sayings: list[tuple[int, int]] = []  # where something is said, and what
        self.negative = False  # whether the last of them had a denial in it

    def sentence(self, at: int) -> int:
        return bisect(self.stops, at)

    def named(self, start: int, end: int) -> bool:
        """Whether a part stands between two places."""
        return self.kinds.find(PART, start + 1, end) >= 0

    def relative(self, verb: int) -> bool:
        """Whether a verb is a relative clause's: the freckles that cover the nose ..."""
        return self.kinds[verb] == "u" and bool(grammar.RELATIVE.search(self.kinds[max(verb - 3, 0) : verb]))

    def listed(self, first: int, sure: str = "j") -> list[int]:
        """The parts of the enumeration that begins with a part: no flaw in the ears, nose or chin.

        Args:
            first: the part's index.
            sure: what can only join its parts, never clauses.
        """
        kinds, found = self.kinds, [first]
        while len(found) < len(LABELS) and (following := grammar.NEXT.match(kinds, found[-1] + 1)):
            joint, last = following[0], following.end() - 1
            if "q" in joint and self.clauses[found[-1] + 1] == ";":
                break  # 不在鼻子，在嘴
            closed = "c" in joint or grammar.CLOSED.match(kinds, last + 1)
            together = joint[0] == "c" and self.exact[found[-1] + 1] == "t"
            joined = joint == PART or together or not set(sure).isdisjoint(joint)
            if not joined and ("B" in joint or not closed or grammar.OWN_VERB.match(kinds, last + 1)):
                break  # a new clause
            found.append(last)
        return found

    def deny_directly(self) -> None:
        """What stands behind its denial: no eyebrows, not the nose, nothing wrong with the ears."""
        kinds, parts, present = self.kinds, self.parts, set(self.kinds)
        for opposing, pattern in (("x", grammar.OPPOSED), ("|", grammar.BUT)):
            for cue in pattern.finditer(kinds if opposing == "x" else self.exact) if opposing in present else ():
                excepted = self.listed(kinds.index(PART, cue.end()), sure="cj")
                after = excepted[-1] + 1
                if not grammar.OWN_WORD.match(self.exact, after) and not grammar.TOO.match(self.clauses, after):
                    self.opposed.update(excepted)
        if "X" in self.exact:
            self.opposed.update(cue.start() for cue in grammar.EXCEPTED.finditer(self.exact))
        if self.opposed:
            self.stops = [found.start() for found in grammar.STOP.finditer(kinds)]
            self.clearing.update(self.sentence(cue.start()) for cue in grammar.NONE_BUT.finditer(kinds))
        for cues, pattern in grammar.DIRECT:
            for cue in () if cues.isdisjoint(present) else pattern.finditer(kinds):
                first = kinds.index(PART, cue.end())
                head = kinds[first + 1 : first + 2]
                if pattern in (grammar.NONE, grammar.LESS) and (
                    head == "s" or grammar.ITS_SIDE.match(kinds, first + 1) or (head == "w" and not parts[first].plural)
                ):
                    continue  # no skin texture: it is the texture that lacks
                if pattern in (grammar.NONE, grammar.NOT) and grammar.SUCH.match(kinds, first + 1):
                    continue
                if "R" in cue[0] and grammar.TOUCHING.search(kinds, max(cue.start() - 6, 0), cue.start()):
                    continue  # the lips do not touch the teeth
                denied = self.listed(first)
                self.direct.update(denied)
                if (
                    pattern in (grammar.LESS, grammar.INTACT, grammar.GOOD_ONES, grammar.LISTED)
                    or kinds[cue.start()] == "L"
                ):
                    self.fixed.update(denied)
                if pattern in (
                    grammar.NO_FLAW,
                    grammar.LESS,
                    grammar.INTACT,
                    grammar.GOOD_ONES,
                    grammar.LISTED,
                    grammar.NOT_SEEN,
                    grammar.NOT_REACH,
                ):
                    self.consumed.update(range(cue.start(), cue.end()))
                if self.opposed and pattern in (grammar.NO_FLAW, grammar.NOT_SEEN, grammar.LISTED):
                    self.clearing.add(self.sentence(cue.start()))
                for i in denied:
                    parts[i].verdict = parts[i].verdict or CLEARED
        for cue in grammar.GOOD_PART.finditer(self.exact) if grammar.GOOD.search(kinds) else ():
            for k in self.listed(kinds.index(PART, cue.end())):
                parts[k].verdict = parts[k].verdict or CLEARED

        if "B" not in present:
            return
        for cue in grammar.FLAW_IS.finditer(kinds):
            self.consumed.update(range(*cue.span()))
        for cue in grammar.FLAW_AT.finditer(kinds):
            k = kinds.index(PART, cue.start())
            if k not in self.opposed:
                parts[k].verdict = parts[k].verdict or (CLEARED if cue["unseen"] else CLAIMED)

    def judge(self) -> None:
        """What stands before its judgement: the nose looks natural, the lips are missing."""
        kinds = self.kinds
        marks = [found.start() for found in grammar.MARK.finditer(kinds)]
        mark, begin, inside = 0, 0, False  # where the next subject may begin, and whether that is inside a clause
        verb = -1  # the last one that no part follows yet
        subjects: list[int] = []  # of the last judgement
        opinions, conditions, near = "K" in kinds or "Q" in kinds, "Y" in self.exact, "y" in self.exact
        places = "b" in self.exact
        last, crossed, flawless = 0, False, len(kinds)  # the last is where a denied flaw ends
        for found in grammar.JUDGEMENT.finditer(kinds):
            i = found.start()
            if i in self.consumed:
                continue
            while mark < len(marks) and marks[mark] < i:
                at = marks[mark]
                mark += 1
                crossed = crossed or kinds[at] == "."
                if kinds[at] in ".|":
                    begin, inside = max(begin, at + 1), False
                elif not self.relative(at):
                    if verb >= begin and self.named(verb, at):
                        begin, inside = verb + 1, True
                    verb = at
            if verb >= begin and self.named(verb, i):
                begin, inside = verb + 1, True
            said, start, stands = self.said(found, last)
            if flawless < i and kinds[i] == "B" and grammar.ALSO.fullmatch(kinds, flawless, i):
                said, stands = CLEARED, True
            flawless = found.end() if kinds[i] == "B" and said == CLEARED and stands else len(kinds)
            if self.opposed and said == CLEARED and (stands or grammar.ENDS.match(kinds, found.end())):
                self.clearing.add(self.sentence(i))
            if not stands:
                continue
            own = self.subjects(begin, start, inside)
            there = places and kinds[i] == "B" and grammar.THERE.match(self.exact, found.end())
            # he should have a beard but has none; 图里一根都不剩; no flaw there
            if not own and ("0" in found[0] or (found[0] == "N" and kinds[i - 1] == "p") or there):
                own = self.last_open(i, anywhere=bool(there))
            elif own is None and kinds[i] == "B" and grammar.ELSEWHERE.match(self.exact, begin):
                own = subjects = []
            elif own is None:  # "... and looks odd", "It looks odd"
                own = [] if crossed and grammar.BACK.isdisjoint(self.exact[max(begin, start - 3) : i]) else subjects
            elif not own:
                subjects = []  # "the hat is blurred and dark" speaks of no earlier part
            turned = opinions and bool(grammar.OPINION.search(kinds, max(begin - 4, start - _REACH, 0), start + 1))
            if turned or (own and self.direct.issuperset(own)):
                said = MISSING if kinds[i] == "V" else -said if said != MISSING else said
            if kinds[i] in "vh" and self.direct.issuperset(own):
                own = []  # neither the eyes nor the mouth have
            if conditions and grammar.IF.search(self.exact, max(i - _REACH, 0), i):
                own = []
            if said == CLEARED and near:
                own = [k for k in own if not grammar.PLACE.search(self.exact, max(k - 8, 0), k)]
            if self.exact[i] == "S":
                own = [k for k in own if not self.is_edge(k)]  # a sharp edge is no praise
            self.give(own, said)
            if said:
                self.sayings.append((i, said))
            begin, inside, crossed = found.end(), True, False
            subjects, last = own or subjects, said or last

    def said(self, found: re.Match[str], last: int) -> tuple[int, int, bool]:
        """What a judgement says, where the words before it end, and whether it is said of a subject at all."""
        kinds, i = self.kinds, found.start()
        kind, after = kinds[i], kinds[found.end() : found.end() + 1]
        if kind in "nhvD":  # the nose is natural, the ears are not; the nose is not, the ears are; the ears have none
            if kind == "n" and not last and grammar.LIKEWISE.search(kinds, max(i - _REACH, 0), i):
                last = CLAIMED
            if self.exact[found.end() : found.end() + 1] in ("k", "Y"):
                return 0, i - 1, False  # is only a spot; looks as if
            turned = CLEARED if last > 0 else CLAIMED if last < 0 else 0
            same = "O" in found[0] or (
                self.negative == (kind == "n") and after != "|" and grammar.AND.search(kinds, max(i - 6, 0), i)
            )
            self.negative = kind == "n"
            if same:
                turned = -turned  # and the ears are not either
            if found[0] in ("hN", "h0"):  # reveals nothing; he has none
                said = -last if found[0] == "h0" and kinds[i - 1] not in "Iac|,w" else CLEARED
                return said, i - 1, bool(said)
            return MISSING if kind == "n" and "h" in found[0] else turned, i - 1, bool(turned) or "h" in found[0]
        j, denied, weak, verb, finite = self.before(i)
        self.negative = denied % 2 == 1 or weak
        joints = "ew" if kind == "G" else "epw"
        beside = j >= 0 and (
            kinds[j] in "Ps1" or (kinds[j] in joints and bool(grammar.BESIDE.search(kinds, max(j - 5, 0), j + 1)))
        )
        if kind == "G" and kinds[max(j - 2, 0) : j + 1].endswith(("Pw", "Pww")) and after in ("", ",", "."):
            beside = True  # skin texture fine
        if kind == "G" and kinds[i - 1] == PART and grammar.TERSE.match(kinds, i - 1):
            beside = verb = True
        if self.exact[i] == "W":  # looks ahead as it should, is not as wide as it should be
            verb, denied = True, denied or kinds.count("n", max(j - 3, 0), j + 1)
        if not (finite or beside) and grammar.ATTRIBUTE.match(kinds, i + 1):
            return 0, j, False
        if kind == "B" and not (verb or beside) and grammar.OBJECT_NEXT.match(kinds, i + 1):
            return 0, j, False
        if kind == "G" and (grammar.PARTLY.match(kinds, found.end()) or self.exact.startswith("SE", i)):
            return 0, j, False  # sharp on the left but smeared on the right; a sharp edge
        if kind == "G" and grammar.STANDARD.search(kinds, max(i - 10, 0), i):
            return 0, j, False
        if kind == "0":  # there are none; but not: and the ear none
            expected = kinds[i - 1] == "T" or self.exact[max(i - 2, 0) : i] == "av"  # where there should be none
            return CLEARED, j, not expected and (kinds[i - 1] not in "P1" or found.end() > i + 1)
        if kind == "N":  # spared, not spared; but not: 眉毛的质感看不出来
            beside = beside and kinds[max(j - 1, 0) : j + 1] != "es"
            return CLAIMED if kinds[i - 1] == "n" else CLEARED, j, beside or verb or kinds[i - 1] in "np"
        if kind == "B" and denied and after == PART:
            return 0, j, False  # shows no sign of freckles
        if kind == "M" and kinds[j + 1] in "dI" and j >= 0 and kinds[j] in "wBs":
            return 0, j, False  # borders that do not exist
        if kind == "M":
            missing_what = after != "" and after in "wdGBsv"
            ends = j >= 0 and kinds[j] in ",|" and grammar.ENDS.match(kinds, found.end()) is not None  # ..., 现在不见了
            return 0 if denied % 2 or weak else MISSING, j, (verb or beside or ends) and not missing_what
        if kind == "L" and after in ",.|":
            return 0 if denied else MISSING, j, finite or beside
        if kind in "TLR":  # is too narrow, lacks depth, did not change
            again = kind == "T" and j >= 0 and kinds[j] in ",|"  # ..., maybe too white
            return CLEARED if denied % 2 else CLAIMED, j, finite or again or (beside and kind == "L")
        if kind == "V":  # "not well rendered" and "not fully visible" are there
            partly = weak or "nf" in self.exact[j + 1 : i] or "G" in (kinds[i - 1], after)
            return MISSING if denied % 2 and not partly else 0, j, finite
        if kind in "GUF" and grammar.SAVE.match(self.exact, found.end()):
            weak = True
        said = CLAIMED if kind == "B" or weak or kinds[i : i + 2] == "FB" else CLEARED  # blends badly
        denied += kind == "B" and "N" in kinds[i + 1 : i + 4] and bool(grammar.NONE_OF_IT.match(kinds, i + 1))
        said = -said if denied % 2 and not (kind == "B" and after == "T") else said  # not blurred enough
        ends = kind == "B" or after == "" or after in ",.|cjpqxeU"
        placed = denied % 2 == 1 and (  # I can find no change there; on the chin I found no change
            grammar.THERE.match(self.exact, found.end()) or grammar.SEEN_AT.search(kinds, max(j - 12, 0), j + 1)
        )
        return said, j, verb or bool(placed) or (beside and (denied > 0 or ends)) or (j >= 0 and kinds[j] in "c,|")

    def before(self, i: int) -> tuple[int, int, bool, bool, bool]:
        """Back from a judgement through "does not really look".

        Returns:
            Where the words before that begin, the denials among them, whether they weaken the judgement, and
            whether they have a verb, and one that needs a subject.
        """
        kinds, kind = self.kinds, self.kinds[i]
        verb = finite = kind == "F"
        j, denied, weak = i - 1, 0, kind == "G" and kinds[i - 1 : i] == "B"
        first = max(i - 12, 0)
        while j >= first:
            word = kinds[j]
            if word in "nNvhT":
                if word in "nN":
                    denied += 1
                if kind == "B" and self.exact[j] == "H":
                    denied += 1  # hardly blurred
                weak = weak or word == "T"
                if self.exact[j] == "T" and kind == "B" and denied:
                    denied += 1  # 乍看没问题
                if word in "nvh":
                    verb, finite = True, finite or word != "h"
            elif word == "L" and kind == "B":  # lacks flaws
                denied, verb, finite = denied + 1, True, True
            elif word in "GB":
                if denied or kinds[j + 1] not in "GBVav":
                    break
            elif word in "wps" and (with_ := grammar.WITH.search(self.exact, max(j - 8, 0), j + 1)):
                j = with_.start()
            elif word not in "adVIDo":
                earlier = kinds[max(j - 1, 0)]
                turned = denied or "n" in kinds[max(j - 2, 0) : j]
                if word in "uC" and earlier in "Pavnc" and (word == "C" or turned or self.exact[i] in "GUW"):
                    verb = True  # falls naturally, raises no suspicion, looks like a real one
                    finite = finite or word == "C"
                elif (
                    not (word == "s" and earlier in "nN")
                    and not (word == "w" and (earlier in "vnhN" or (earlier == "d" and kinds[j - 2] in "vh")))
                    and not (
                        word in "pq"
                        and earlier in "vN"
                        and not grammar.ATTRIBUTE.match(kinds, i + 1)  # is in a natural place
                    )
                ):
                    break
            j -= 1
        return j, denied, weak, verb, finite

    def subjects(self, begin: int, start: int, inside: bool) -> list[int] | None:
        """The parts that a judgement speaks of, or None where it goes on about the last ones."""
        begin = max(begin, start + 1 - _REACH)
        region = self.kinds[begin : start + 1]
        if PART not in region:
            rest = region[region.rfind(",") + 1 :].strip("acj|I.dvDs")
            return [] if rest and "i" not in self.exact[begin : start + 1] else None
        if region[-1] == "c" and inside:
            return None
        if "," in region:
            clauses = self.clauses[begin : start + 1]
            other = (";" in clauses and grammar.ENDED.match(clauses)) or grammar.OTHER_CLAUSE.match(region)
            if other and (inside or not grammar.LIST.fullmatch(clauses, 0, other.end())):
                begin, region = begin + other.end(), region[other.end() :]
        if region[-1] == "w" and grammar.OTHER_SUBJECT.search(region):
            return []
        skipped: set[int] = set()
        if inside and (object_ := grammar.OBJECT.match(region)) and self.exact[begin + object_.end()] != "t":
            skipped.add(begin + object_.end() - 1)
        if "u" in region:
            skipped.update(begin + relative.end() - 1 for relative in grammar.RELATIVE_OBJECT.finditer(region))
        parts = self.places[bisect(self.places, begin - 1) : bisect(self.places, start)]
        if "w" in region or "B" in region:
            inner = {begin + relative.end() - 1 for relative in grammar.RELATIVE_SUBJECT.finditer(region)}
            parts = [k for k in parts if k not in inner]
        apart = parts and (parts[-1] in self.opposed or (region[-1] == "," and grammar.COMPARED.search(region)))
        if apart and "I" in self.kinds[parts[-1] : start + 3]:
            return parts[-1:]  # unlike the eyes, which are sharp; thicker than the left one, which is sharp
        parts = [k for k in parts if k not in self.fixed and k not in self.opposed]
        parts = [k for k in parts if k not in skipped] or parts
        if own := [k for k in parts if k not in self.direct]:
            return own
        return parts if parts and not set(self.kinds[parts[-1] + 1 : start + 1]) & set("wdc") else []

    def give(self, parts: list[int], said: int) -> None:
        """A claim wins over a clearing, an absence over both."""
        for k in parts:
            part = self.parts[k]
            if said == MISSING:
                part.verdict = MISSING if self.is_head(k) else part.verdict
            elif part.verdict != MISSING and (said == CLAIMED or part.verdict == 0):
                part.verdict = said

    def is_edge(self, at: int) -> bool:
        """Whether a part only says whose edge it is: the edge of the cheek, the cheek's edge."""
        exact = self.exact
        return exact[at + 1 : at + 2] == "E" or bool(grammar.EDGE.search(exact, max(at - 8, 0), at))

    def is_head(self, at: int) -> bool:
        """Whether a part is what its phrase is about: the skin is not in "texture of the skin" or "skin texture"."""
        kinds = self.kinds
        before = kinds[max(at - 8, 0) : at].rstrip("dlroOwaBGV")
        head = before[-1:] not in ("p", "q", "s") or grammar.ONE_OF.search(before)
        return bool(head) and not grammar.MODIFIER.match(kinds, at + 1)

    def resolve(self) -> None:
        """Opposed parts say the opposite of their sentence; "as do the ears" says the same as before."""
        for k in self.opposed:
            part = self.parts[k]
            sentence = self.sentence(k)
            if sentence and all(i in self.opposed for i in self.places if self.sentence(i) == sentence):
                sentence -= 1  # the ears look real. The same cannot be said of the nose
            part.verdict = part.verdict or (CLAIMED if sentence in self.clearing else CLEARED)
        for cue in grammar.AS_DO.finditer(self.kinds) if self.sayings or self.direct else ():
            said = self.last_said(cue.start())
            for k in self.listed(self.kinds.index(PART, cue.end())):
                self.parts[k].verdict = self.parts[k].verdict or said

    def last_open(self, at: int, anywhere: bool) -> list[int]:
        """The last part before a place that nothing is said of; only `anywhere` one that is itself but a place."""
        for k in reversed(self.places[: bisect(self.places, at)]):
            if not self.parts[k].verdict and (anywhere or not grammar.WHERE.search(self.exact, max(k - 6, 0), k)):
                return [k]
        return []

    def last_said(self, at: int) -> int:
        """What is said last before a place: of the last part, or by a later judgement."""
        part, saying = bisect(self.places, at) - 1, bisect(self.sayings, (at, MISSING)) - 1
        if part < 0:
            return 0
        if saying >= 0 and self.sayings[saying][0] > self.places[part]:
            return self.sayings[saying][1]
        return self.parts[self.places[part]].verdict


def assign(reading: Reading) -> None:
    """Sets the verdicts of a text's parts."""
    exact = "".join(reading.kinds)
    if cued := len(exact.rstrip(grammar.NO_CUES)):
        end = exact.find(".", cued) + 1  # further sentences only claim, unless they go on about earlier parts
        if end and not grammar.GOES_ON.search(exact.replace(";", ",").replace("+", "a"), end):
            exact = exact[:end]
        reader = _Reader(reading.parts, exact)
        reader.deny_directly()
        reader.judge()
        reader.resolve()
