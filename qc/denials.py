"""Whether a mention is denied: a small grammar over cue words.

A text is read as a string of kinds, one letter a word (`qc.lexicon.KINDS`), and each rule is a pattern over that
string. Every repetition in a pattern is bounded, so that a text takes time linear in its length.

A mention is denied where the text says that the part is not there ("no eyebrows", "the lips are missing"), that
nothing is wrong with it ("the nose looks natural", "no flaw in the ears"), or that the manipulation does not reach it
("without touching the chin"). A denied judgement turns over: what "does not look natural" is claimed, and what "is not
blurred" is cleared.
"""

from __future__ import annotations

import re
from bisect import bisect

from mmtt_build.parts import LABELS
from qc.lexicon import PART, PLAIN
from qc.words import Part, Reading

CLAIMED, CLEARED, MISSING = 1, -1, -2

_NEAR = "[dwaelroOs]"

# What is denied directly: the cue, then the part. Patterns that most texts are searched for begin with one letter of a
# few, and say behind it what stands before it: that halves their time.
_NONE = re.compile(
    r"(?<!n)[NL](?=[dwaelroOsVBTh]{0,4}P)(?!.{0,3}wwd)(?!(?<=PN)[dlroO]{0,2}Pa{0,2}G)"
)  # no eyebrows; a lack of wrinkles
_NO_FLAW = re.compile(  # no sign of tampering around the nose; I do not see any flaw in the ears
    rf"(?:N|n(?=[aVhvdB]))[dwaVTshvp]{{0,4}}(?:[BR]|(?<=V)1|s(?=v?V))(?:[dpcjwVaI]{{0,3}}B){{0,2}}[wVvaIO]{{0,3}}(?=(?:,q|[pq]{{1,2}}){_NEAR[:-1]}V]{{0,4}}P)"
)
_NOTHING_AT = re.compile(rf"[N0](?=[pq]{_NEAR}{{0,3}}P)")  # nothing about the nose
_NOT = re.compile(  # not the nose; not in the nose; does not reach the ears; do not have eyebrows
    r"n[av]{0,2}(?:[hV]a?|R[pq]?|q|p|dp)?(?=(?:d?[lr]j|d?[ws]{1,2}jd?[ws]{1,2}p)?(?:d[laroOsw]{0,2}|[laroOs]{0,2})P)"
)
_NOT_REACH = re.compile(  # does not reach the nose; no seam crosses the nose; nobody has touched the nose
    rf"(?:[nN][avD]{{0,2}}[dwBp]{{0,3}}[vR]|(?<=B)nu|NB{{1,2}}u)(?=[pq]?{_NEAR}{{0,3}}P)|n[avhD]{{0,2}}B(?=d?[laro]?P)"
)
_NOT_SEEN = re.compile(  # a blur is not visible on the chin; a halo that is absent around the nose
    rf"[BI][wvVadI]{{0,3}}(?:n[vV]{{1,2}}|vM)(?=[pq]{_NEAR}{{0,3}}P)"
)
_LESS = re.compile(r"M(?=(?:ev)?d?[waelroOsGTV]{0,3}P)")  # the missing eyebrow; 消失的是眉毛
_NO_DOUBT = re.compile(r"n[av]{0,2}Q(?=[dlro]{0,2}P(?:[,.|c]|$))")  # nobody would doubt the nose
_INTACT = re.compile(r"(?<![nNT])U(?=[dwaelros]{0,2}P(?!an))")  # next to the unaltered skin
_GOOD_ONES = re.compile(r"(?:(?<![nN])(?<![nN][av])h|^|(?<=[.,|]))d?[GU]{1,2}(?=e?P(?:[.,|cj]|$))")  # has natural ears
_LISTED = re.compile(  # looks real: ears, hair; all else is fine: ears, hair; the only real part is the nose
    r"[GUMN](?:(?:(?<![^.|,].)|(?<=[.|,][av][GU])|(?<=^[av][GU])|(?<=[.|,][av][av][GU])|(?<=^[av][av][GU]))"
    r"(?:(?<=N)(?:V|a?B))?(?:w?v|e?s[vhR]{1,2})(?=[delroOc]{0,4}P)"
    r"|(?<=[GU])(?<![nNT].)(?<![nNT][av].)(?:[sw]?a?v|e[av|h]{1,4}|,q)(?=[delro]{0,2}Pa?(?:[,.|cj]|$)))"
)
_OPPOSED = re.compile(rf"x(?=[pq]?{_NEAR[:-1]}BG]{{0,4}}(?:[Bs][pq]{{1,2}}d?)?P)")
_EXCEPTED = re.compile(r"P(?=s?X(?![^,.|]{0,4}P|[pq]))")  # 嘴唇以外; 嘴唇除外
_TOO = re.compile(r"[wsX]{0,3};[^.;P]{0,4}P[^.;P]{0,3}[+A]")  # 除了鼻子，嘴也模糊
_OWN_WORD = re.compile(r"a{0,2}(?:[nN]a?)?[GUBM]a?,")  # 除了耳朵没动，
_NONE_BUT = re.compile(  # nothing apart from the ears; nothing is odd but for the ears; save the ears nothing is odd
    r"N[dws]{0,3}x|N[^.|,P]{0,6}B[pqdw]{0,3}x|(?:^|(?<=\.))x[^.|N]{1,16}N[^.|,P]{0,6}B"
)
_GOOD_PART = re.compile(  # the natural nose; but not: a natural nose would, no natural nose, like a natural nose
    r"(?:^|[.,|cty]|(?<![nNZTH])(?<![nNZTH][av])[hqv])[di]?[lr]?s?a?[GU]{1,2}(?=e?P(?!w|p?e|a))"
)
_GOOD = re.compile("[GU]e?P")  # what _GOOD_PART needs
_FLAW_AT = re.compile(  # a blur at the nose; a blur at the nose is not visible
    r"B[sw]{0,2}[pq]{1,2}[dlraoOs]{0,4}P(?P<unseen>[av]{0,2}n[av]{0,2}V|vM)?"
)
_FLAW_IS = re.compile(  # the flaw is the nose; 问题只出在鼻子; 假的是鼻子: said of what stands behind it
    r"B(?:(?<![^.,|].)|(?<=[.,|][had].)|(?<=^[had].)|(?<=[.,|][had][had].)|(?<=^[had][had].))"
    r"e?[ad]{0,2}[vqu|]{1,2}(?=[dalroO]{0,3}P)"
)
_AS_DO = re.compile(  # so do the ears; and the ears too; looks natural, as well as the ears; also the ears
    rf"[A,acC](?:(?<=A)(?={_NEAR}{{0,3}}P)|(?<=[c,])(?={_NEAR}{{0,3}}P[vhD]?[TaA](?:[,.|]|$))"
    r"|(?:(?<=[GUFBK][cCa])|(?<=[GUFBK][,a])[,a]?[cCa])"
    rf"(?={_NEAR}{{0,3}}P(?:[,c]{{1,2}}{_NEAR}{{0,3}}P){{0,4}}[av]{{0,2}}(?:[.|]|$|,(?![^.,|P]{{1,12}},))))"
)
_BUT = re.compile(r"(?:^|\.)[^P.]{1,20}\|(?=[diwalro]{0,4}P(?:\.|$))")  # everything is blurred but the ears

_DIRECT = tuple((frozenset(cues), pattern) for cues, pattern in (
    ("NL", _NONE), ("nN", _NO_FLAW), ("N0", _NOTHING_AT), ("n", _NOT), ("nN", _NOT_REACH), ("nM", _NOT_SEEN),
    ("Q", _NO_DOUBT), ("M", _LESS), ("U", _INTACT), ("GU", _GOOD_ONES), ("GUMN", _LISTED),
))  # fmt: skip
"""Each with the kinds that it needs: most texts have few of them."""

# An enumeration of parts, and where a new clause begins instead: with a verb, or without an end behind the part.
_NEXT = re.compile(r"(?:,?[cj]|,)[dwaelroOspqBGUV]{0,4}P|P")
_OWN_VERB = re.compile(r"[wpqdlrasePc]{0,6}?[vhunMBNFCL]|a?[GU](?:[,.|]|$)|s")
_CLOSED = re.compile(r"[VaA]?(?:[,.|cj]|$)")
# Parts that are no subjects: near the *mouth* and the ears look ..., freckles that cover the *nose* have ...
_OBJECT = re.compile(r"[wa]{0,2}[pqC]{0,2}[dwalroOse]{0,4}P(?=.*[c,].*P)")
_RELATIVE = re.compile(r"(?:I|[Pw]d)a?$")
_RELATIVE_OBJECT = re.compile(r"u[pq]?[dwalroe]{0,3}P")
_OTHER_CLAUSE = re.compile(r".*P[^P,]*w[^P,]*,(?=.*P)")  # the cheek bulges, the nose
_WITH = re.compile(r"(?:t[dlroe]{0,2}w{1,4}|q[dwlroe]{0,6}[ps])$")  # 颜色和脸不搭; 酒窝在图里不见了
_ENDED = re.compile(r".*P.*;(?=[^tcj;]{0,4}P)")  # 只改了嘴，鼻子: a Chinese clause, unless it only lists
_LIST = re.compile(r"[PtcjdlroOeas;,]*")
_RELATIVE_SUBJECT = re.compile(r"[wB][dI]d[laroOwGB]{0,3}P(?=[aT]{0,2}[uw])")  # a shadow that the nose should cast
_IF = re.compile(r"Y[^.,|Y]*$")  # natural if the eyes were equal
_EDGE = re.compile(r"E[waV]{0,2}[pyqe]{1,2}[diwalroOe]{0,4}$")  # the edge of the
_ELSEWHERE = re.compile(  # there is an odd patch on the chin; but a seam is visible on the chin; but not: on its tip
    r"[|c,a]{0,3}(?:bv[dawGB]{0,4}|d[awGB]{0,3})B[wB]{0,2}(?:v[aV]{1,2})?[pqy]{1,2}(?![iI]|d[sE](?!p))"
)
_PLACE = re.compile(r"Py[diwalroOs]{0,4}$")  # the scar over the
_SUCH = re.compile(r"v?C|va?w{1,3}e(?:[,.|]|$)")  # nobody has teeth like these; 没有一颗牙齿是独立的

_ITS_SIDE = re.compile(r"es(?:[,.|]|$)")  # 没有眉毛的质感
_STOP = re.compile(r"\.")
_MARK = re.compile(r"[.|uhvC](?:(?<!C)|(?<=PC))")  # where a clause or its predicate begins
# A judgement; the ends of "the ears do not", "the scar does not show any more", "the ears do" or "are" are some.
_JUDGEMENT = re.compile(
    r"[GUFBMVTLRnhN0Dv](?:(?<=[GUFBMV])|(?<=T)(?=w)|(?<=L)(?=[daGV]{0,2}[ws]|[,.|]|$)|(?<=nR)(?=[,.|c]|$)"
    r"|(?:(?<=n)(?:(?<![wu]n)|(?<=[,.|c]dwn))a?h?[adO]{0,2}|(?<=h)N|(?:(?<=h)0|(?<=0))(?:[lrv]a?|av)?V?|(?<=[ND])|(?<=P[vh]))"
    r"(?=[,.|]|$))"
)
_ATTRIBUTE = re.compile(r"[aeGBUVlrw]{0,3}P")  # the blurred nose
_MODIFIER = re.compile(r"[wsC]|p?e")  # skin texture; teeth like these; 脸颊上的雀斑
_OBJECT_NEXT = re.compile(r"a?(?:d[laroOwGB]{0,3}|\|)P")  # and changes only the mouth
_THERE = re.compile(r"v?a{0,2}V?b")  # is visible there
_SEEN_AT = re.compile(r"(?:^|[.,|c])a?[pq]{1,2}[dwalroOe]{0,4}P(?:[cj,][dlro]{0,2}P)?,?[wI1]$")  # on the chin I
_WHERE = re.compile(r"[yq][diwalroOe]{0,4}$")  # under the
_TOUCHING = re.compile(r"(?:^|[,.|c])[daelroO]{0,4}P$")
_PARTLY = re.compile(r"qd?[lr]s?,?[|x](?![dlroOw]{0,3}P)")  # sharp on the left but smeared on the right
_SAVE = re.compile(  # fine except for the tip; real, though not in colour; natural but dissolves; real if
    r"[pqdwa]{0,4},?(?:X[^P.,|]{1,8}(?:[.,|]|$)|\|a?(?:n[pq]d?w|u|I?hNG?w))|[Yk]"
)
_BESIDE = re.compile(r"P(?:[ep]|cw{1,4})$")  # 鼻子的, 鼻子上, 鼻子和脸部
_ALSO = re.compile(r"(?:,[cj]?|[cj])d?a?")  # no seams, blur or noise
_ENDS = re.compile(r"w?(?:[x,.|]|$)")
_OTHER_SUBJECT = re.compile(r"P[^P]*[vhuL][^P]*[c,]dw{1,3}$")  # the teeth lack gaps and the gum line
_QUESTION = re.compile(r"(?:^|\.)[dalroOi]{0,3}P$")  # the tongue? Gone.
_ANSWER = re.compile(r"P\.(?=a{0,2}[nN]?a?[MGU0](?:[,.c]|$))")
_HEADED = re.compile(  # one area is altered: the chin and the jaw are ...
    r":(?=[dlroaOewi]{0,3}P(?:[,cj]{1,2}[dlroaOewi]{0,3}P){0,6}[wa]{0,2}[vhuDnRF]|Ia?[vhun])"
)
_AND = re.compile(r"c[daelroO]{0,4}P$")  # and the ears are
_ASIDE = re.compile(r",\|(?=[waGBS]{0,3},)")  # the tongue, though, looks fine; the lips, although thin, look real
_LIKEWISE = re.compile(r"Pv[^.P]*[,|c][dlroa]{0,3}P$")  # the beard looks as if glued on, the hair does not
_ONE_OF = re.compile(r"[1oOda]p$")  # one of the ears
_NONE_OF_IT = re.compile(r"a{0,2}NV?(?:[,.|]|$)")  # 一点问题也没有
_STANDARD = re.compile(  # 比左眼清晰; 没有左眼那么清晰: more or less than that, no praise
    r"(?:C[dlroO]{0,2}P[es]{0,2}|[Nx][dlroO]{0,2}P[es]{0,2}C|Pa{0,2}N[dlroO]{0,2}P[es]{0,2}|T[dlroO]{0,2}P[es]{0,2}C?)a{0,2}$"
)
_OPINION = re.compile(r"[nNT][daI]{0,2}K|(?<!n)(?<!na)Q")  # I do not think that; I doubt that

_BACK = frozenset("Ii")  # "it looks odd" and "its colour is odd" go on about a part
_REACH = 80  # words that a judgement looks back for its subject


class _Reader:
    """One pass over the judgements of a text."""

    def __init__(self, parts: dict[int, Part], exact: str) -> None:
        self.clauses = exact
        if ";" in exact or "+" in exact:
            exact = exact.replace(";", ",").replace("+", "a")
        if ",|" in exact:
            exact = _ASIDE.sub(",a", exact)
        for found in _ANSWER.finditer(exact) if "P." in exact[:-1] else ():
            if _QUESTION.search(exact, max(found.start() - 5, 0), found.start() + 1):
                exact = f"{exact[: found.start()]}Pv{exact[found.end() :]}"
        if ":" in exact:
            exact = _HEADED.sub(".", exact).replace(":", "v")
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
        return self.kinds[verb] == "u" and bool(_RELATIVE.search(self.kinds[max(verb - 3, 0) : verb]))

    def listed(self, first: int, sure: str = "j") -> list[int]:
        """The parts of the enumeration that begins with a part: no flaw in the ears, nose or chin.

        Args:
            first: the part's index.
            sure: what can only join its parts, never clauses.
        """
        kinds, found = self.kinds, [first]
        while len(found) < len(LABELS) and (following := _NEXT.match(kinds, found[-1] + 1)):
            joint, last = following[0], following.end() - 1
            if "q" in joint and self.clauses[found[-1] + 1] == ";":
                break  # 不在鼻子，在嘴
            closed = "c" in joint or _CLOSED.match(kinds, last + 1)
            together = joint[0] == "c" and self.exact[found[-1] + 1] == "t"
            joined = joint == PART or together or not set(sure).isdisjoint(joint)
            if not joined and ("B" in joint or not closed or _OWN_VERB.match(kinds, last + 1)):
                break  # a new clause
            found.append(last)
        return found

    def deny_directly(self) -> None:
        """What stands behind its denial: no eyebrows, not the nose, nothing wrong with the ears."""
        kinds, parts, present = self.kinds, self.parts, set(self.kinds)
        for opposing, pattern in (("x", _OPPOSED), ("|", _BUT)):
            for cue in pattern.finditer(kinds if opposing == "x" else self.exact) if opposing in present else ():
                excepted = self.listed(kinds.index(PART, cue.end()), sure="cj")
                after = excepted[-1] + 1
                if not _OWN_WORD.match(self.exact, after) and not _TOO.match(self.clauses, after):
                    self.opposed.update(excepted)
        if "X" in self.exact:
            self.opposed.update(cue.start() for cue in _EXCEPTED.finditer(self.exact))
        if self.opposed:
            self.stops = [found.start() for found in _STOP.finditer(kinds)]
            self.clearing.update(self.sentence(cue.start()) for cue in _NONE_BUT.finditer(kinds))
        for cues, pattern in _DIRECT:
            for cue in () if cues.isdisjoint(present) else pattern.finditer(kinds):
                first = kinds.index(PART, cue.end())
                head = kinds[first + 1 : first + 2]
                if pattern in (_NONE, _LESS) and (
                    head == "s" or _ITS_SIDE.match(kinds, first + 1) or (head == "w" and not parts[first].plural)
                ):
                    continue  # no skin texture: it is the texture that lacks
                if pattern in (_NONE, _NOT) and _SUCH.match(kinds, first + 1):
                    continue
                if "R" in cue[0] and _TOUCHING.search(kinds, max(cue.start() - 6, 0), cue.start()):
                    continue  # the lips do not touch the teeth
                denied = self.listed(first)
                self.direct.update(denied)
                if pattern in (_LESS, _INTACT, _GOOD_ONES, _LISTED) or kinds[cue.start()] == "L":
                    self.fixed.update(denied)
                if pattern in (_NO_FLAW, _LESS, _INTACT, _GOOD_ONES, _LISTED, _NOT_SEEN, _NOT_REACH):
                    self.consumed.update(range(cue.start(), cue.end()))
                if self.opposed and pattern in (_NO_FLAW, _NOT_SEEN, _LISTED):
                    self.clearing.add(self.sentence(cue.start()))
                for i in denied:
                    parts[i].verdict = parts[i].verdict or CLEARED
        for cue in _GOOD_PART.finditer(self.exact) if _GOOD.search(kinds) else ():
            for k in self.listed(kinds.index(PART, cue.end())):
                parts[k].verdict = parts[k].verdict or CLEARED

        if "B" not in present:
            return
        for cue in _FLAW_IS.finditer(kinds):
            self.consumed.update(range(*cue.span()))
        for cue in _FLAW_AT.finditer(kinds):
            k = kinds.index(PART, cue.start())
            if k not in self.opposed:
                parts[k].verdict = parts[k].verdict or (CLEARED if cue["unseen"] else CLAIMED)

    def judge(self) -> None:
        """What stands before its judgement: the nose looks natural, the lips are missing."""
        kinds = self.kinds
        marks = [found.start() for found in _MARK.finditer(kinds)]
        mark, begin, inside = 0, 0, False  # where the next subject may begin, and whether that is inside a clause
        verb = -1  # the last one that no part follows yet
        subjects: list[int] = []  # of the last judgement
        opinions, conditions, near = "K" in kinds or "Q" in kinds, "Y" in self.exact, "y" in self.exact
        places = "b" in self.exact
        last, crossed, flawless = 0, False, len(kinds)  # the last is where a denied flaw ends
        for found in _JUDGEMENT.finditer(kinds):
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
            if flawless < i and kinds[i] == "B" and _ALSO.fullmatch(kinds, flawless, i):
                said, stands = CLEARED, True
            flawless = found.end() if kinds[i] == "B" and said == CLEARED and stands else len(kinds)
            if self.opposed and said == CLEARED and (stands or _ENDS.match(kinds, found.end())):
                self.clearing.add(self.sentence(i))
            if not stands:
                continue
            own = self.subjects(begin, start, inside)
            there = places and kinds[i] == "B" and _THERE.match(self.exact, found.end())
            if not own and ("0" in found[0] or there):  # he should have a beard but has none; no flaw there
                own = self.last_open(i, anywhere=bool(there))
            elif own is None and kinds[i] == "B" and _ELSEWHERE.match(self.exact, begin):
                own = subjects = []
            elif own is None:  # "... and looks odd", "It looks odd"
                own = [] if crossed and _BACK.isdisjoint(self.exact[max(begin, start - 3) : i]) else subjects
            elif not own:
                subjects = []  # "the hat is blurred and dark" speaks of no earlier part
            turned = opinions and bool(_OPINION.search(kinds, max(begin - 4, start - _REACH, 0), start + 1))
            if turned or (own and self.direct.issuperset(own)):
                said = MISSING if kinds[i] == "V" else -said if said != MISSING else said
            if kinds[i] in "vh" and self.direct.issuperset(own):
                own = []  # neither the eyes nor the mouth have
            if conditions and _IF.search(self.exact, max(i - _REACH, 0), i):
                own = []
            if said == CLEARED and near:
                own = [k for k in own if not _PLACE.search(self.exact, max(k - 8, 0), k)]
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
            if kind == "n" and not last and _LIKEWISE.search(kinds, max(i - _REACH, 0), i):
                last = CLAIMED
            if self.exact[found.end() : found.end() + 1] in ("k", "Y"):
                return 0, i - 1, False  # is only a spot; looks as if
            turned = CLEARED if last > 0 else CLAIMED if last < 0 else 0
            same = "O" in found[0] or (
                self.negative == (kind == "n") and after != "|" and _AND.search(kinds, max(i - 6, 0), i)
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
            kinds[j] in "Ps1" or (kinds[j] in joints and bool(_BESIDE.search(kinds, max(j - 5, 0), j + 1)))
        )
        if kind == "G" and kinds[max(j - 2, 0) : j + 1].endswith(("Pw", "Pww")) and after in ("", ",", "."):
            beside = True  # skin texture fine
        if self.exact[i] == "W":  # looks ahead as it should, is not as wide as it should be
            verb, denied = True, denied or kinds.count("n", max(j - 3, 0), j + 1)
        if not (finite or beside) and _ATTRIBUTE.match(kinds, i + 1):
            return 0, j, False
        if kind == "B" and not (verb or beside) and _OBJECT_NEXT.match(kinds, i + 1):
            return 0, j, False
        if kind == "G" and (_PARTLY.match(kinds, found.end()) or self.exact.startswith("SE", i)):
            return 0, j, False  # sharp on the left but smeared on the right; a sharp edge
        if kind == "G" and _STANDARD.search(kinds, max(i - 10, 0), i):
            return 0, j, False
        if kind == "0":  # there are none; but not: and the ear none
            expected = kinds[i - 1] == "T" or self.exact[max(i - 2, 0) : i] == "av"  # where there should be none
            return CLEARED, j, not expected and (kinds[i - 1] not in "P1" or found.end() > i + 1)
        if kind == "N":  # spared, not spared
            return CLAIMED if kinds[i - 1] == "n" else CLEARED, j, beside or verb or kinds[i - 1] == "n"
        if kind == "B" and denied and after == PART:
            return 0, j, False  # shows no sign of freckles
        if kind == "M" and kinds[j + 1] in "dI" and j >= 0 and kinds[j] in "wBs":
            return 0, j, False  # borders that do not exist
        if kind == "M":
            missing_what = after != "" and after in "wdGBsv"
            ends = j >= 0 and kinds[j] in ",|" and _ENDS.match(kinds, found.end()) is not None  # ..., 现在不见了
            return 0 if denied % 2 or weak else MISSING, j, (verb or beside or ends) and not missing_what
        if kind == "L" and after in ",.|":
            return 0 if denied else MISSING, j, finite or beside
        if kind in "TLR":  # is too narrow, lacks depth, did not change
            again = kind == "T" and j >= 0 and kinds[j] in ",|"  # ..., maybe too white
            return CLEARED if denied % 2 else CLAIMED, j, finite or again or (beside and kind == "L")
        if kind == "V":  # "not well rendered" and "not fully visible" are there
            partly = weak or "nf" in self.exact[j + 1 : i] or "G" in (kinds[i - 1], after)
            return MISSING if denied % 2 and not partly else 0, j, finite
        if kind in "GUF" and _SAVE.match(self.exact, found.end()):
            weak = True
        said = CLAIMED if kind == "B" or weak or kinds[i : i + 2] == "FB" else CLEARED  # blends badly
        denied += kind == "B" and "N" in kinds[i + 1 : i + 4] and bool(_NONE_OF_IT.match(kinds, i + 1))
        said = -said if denied % 2 and not (kind == "B" and after == "T") else said  # not blurred enough
        ends = kind == "B" or after == "" or after in ",.|cjpqxeU"
        placed = denied % 2 == 1 and (  # I can find no change there; on the chin I found no change
            _THERE.match(self.exact, found.end()) or _SEEN_AT.search(kinds, max(j - 12, 0), j + 1)
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
            elif word in "wps" and (with_ := _WITH.search(self.exact, max(j - 8, 0), j + 1)):
                j = with_.start()
            elif word not in "adVIDo":
                earlier = kinds[max(j - 1, 0)]
                turned = denied or "n" in kinds[max(j - 2, 0) : j]
                if word in "uC" and earlier in "Pavnc" and (word == "C" or turned or self.exact[i] in "GUW"):
                    verb = True  # falls naturally, raises no suspicion, looks like a real one
                    finite = finite or word == "C"
                elif not (word == "w" and (earlier in "vnhN" or (earlier == "d" and kinds[j - 2] in "vh"))) and not (
                    word in "pq" and earlier in "vN" and not _ATTRIBUTE.match(kinds, i + 1)  # is in a natural place
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
            other = (";" in clauses and _ENDED.match(clauses)) or _OTHER_CLAUSE.match(region)
            if other and (inside or not _LIST.fullmatch(clauses, 0, other.end())):
                begin, region = begin + other.end(), region[other.end() :]
        if region[-1] == "w" and _OTHER_SUBJECT.search(region):
            return []
        skipped: set[int] = set()
        if inside and (object_ := _OBJECT.match(region)) and self.exact[begin + object_.end()] != "t":
            skipped.add(begin + object_.end() - 1)
        if "u" in region:
            skipped.update(begin + relative.end() - 1 for relative in _RELATIVE_OBJECT.finditer(region))
        parts = self.places[bisect(self.places, begin - 1) : bisect(self.places, start)]
        if "w" in region or "B" in region:
            inner = {begin + relative.end() - 1 for relative in _RELATIVE_SUBJECT.finditer(region)}
            parts = [k for k in parts if k not in inner]
        if parts and parts[-1] in self.opposed and "I" in self.kinds[parts[-1] : start + 3]:
            return parts[-1:]  # unlike the eyes, which are sharp
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
        return exact[at + 1 : at + 2] == "E" or bool(_EDGE.search(exact, max(at - 8, 0), at))

    def is_head(self, at: int) -> bool:
        """Whether a part is what its phrase is about: the skin is not in "texture of the skin" or "skin texture"."""
        kinds = self.kinds
        before = kinds[max(at - 8, 0) : at].rstrip("dlroOwaBGV")
        head = before[-1:] not in ("p", "q", "s") or _ONE_OF.search(before)
        return bool(head) and not _MODIFIER.match(kinds, at + 1)

    def resolve(self) -> None:
        """Opposed parts say the opposite of their sentence; "as do the ears" says the same as before."""
        for k in self.opposed:
            part = self.parts[k]
            sentence = self.sentence(k)
            if sentence and all(i in self.opposed for i in self.places if self.sentence(i) == sentence):
                sentence -= 1  # the ears look real. The same cannot be said of the nose
            part.verdict = part.verdict or (CLAIMED if sentence in self.clearing else CLEARED)
        for cue in _AS_DO.finditer(self.kinds) if self.sayings or self.direct else ():
            said = self.last_said(cue.start())
            for k in self.listed(self.kinds.index(PART, cue.end())):
                self.parts[k].verdict = self.parts[k].verdict or said

    def last_open(self, at: int, anywhere: bool) -> list[int]:
        """The last part before a place that nothing is said of; only `anywhere` one that is itself but a place."""
        for k in reversed(self.places[: bisect(self.places, at)]):
            if not self.parts[k].verdict and (anywhere or not _WHERE.search(self.exact, max(k - 6, 0), k)):
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


_NO_CUES = "dwaelroOspqyifBPvhucjt+,;.:bTKCAVRDIEY12k"  # without any other kind nothing is denied
_GOES_ON = re.compile(  # it looks, its colour, as do, the ears are, the ears too
    r"[IiAD]|[vh](?:[,.|]|$)|P[vhD]?[Ta](?:[,.|]|$)"
)


def assign(reading: Reading) -> None:
    """Sets the verdicts of a text's parts."""
    exact = "".join(reading.kinds)
    if cued := len(exact.rstrip(_NO_CUES)):
        end = exact.find(".", cued) + 1  # further sentences only claim, unless they go on about earlier parts
        if end and not _GOES_ON.search(exact.replace(";", ",").replace("+", "a"), end):
            exact = exact[:end]
        reader = _Reader(reading.parts, exact)
        reader.deny_directly()
        reader.judge()
        reader.resolve()
