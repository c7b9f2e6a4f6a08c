"""The patterns of denials: regular expressions over a text's kinds, one letter a word (`qc.lexicon.KINDS`).

Every repetition is bounded, so that a text takes time linear in its length. Most patterns are searched for in the plain
kinds (`qc.lexicon.PLAIN`); those that tell wider kinds apart in the exact ones. What is done with them says
`qc.denials`, in the order in which they stand here.
"""

from __future__ import annotations

import re

NEAR = "[dwaelroOs]"

# What is denied directly: the cue, then the part. Patterns that most texts are searched for begin with one letter of a
# few, and say behind it what stands before it: that halves their time.
NONE = re.compile(
    r"(?<!n)[NL](?=[dwaelroOsVBTh]{0,4}P)(?!.{0,3}wwd)(?!(?<=PN)[dlroO]{0,2}Pa{0,2}G)"
)  # no eyebrows; a lack of wrinkles
NO_FLAW = re.compile(  # no sign of tampering around the nose; I do not see any flaw in the ears
    rf"(?:N|n(?=[aVhvdB]))[dwaVTshvp]{{0,4}}(?:[BR]|(?<=V)1|s(?=v?V))(?:[dpcjwVaI]{{0,3}}B){{0,2}}[wVvaIO]{{0,3}}(?=(?:,q|[pq]{{1,2}}){NEAR[:-1]}V]{{0,4}}P)"
)
NOTHING_AT = re.compile(  # nothing about the nose; not a pixel of the nose is sharp
    rf"[N0](?:(?=[pq]{NEAR}{{0,3}}P)|(?<=N)[waV]{{1,2}}p(?=[dlroO]{{0,3}}Pa?va{{0,2}}[GUB]))"
)
NOT = re.compile(  # not the nose; not in the nose; does not reach the ears; do not have eyebrows
    r"n[av]{0,2}(?:[hV]a?|R[pq]?|q|p|dp)?(?=(?:d?[lr]j|d?[ws]{1,2}jd?[ws]{1,2}p)?(?:d[laroOsw]{0,2}|[laroOs]{0,2})P)"
)
NOT_REACH = re.compile(  # does not reach the nose; no seam crosses the nose; nobody has touched the nose
    rf"(?:[nN][avD]{{0,2}}[dwBp]{{0,3}}[vR]|(?<=B)nu|NB{{1,2}}u)(?=[pq]?{NEAR}{{0,3}}P)|n[avhD]{{0,2}}B(?=d?[laro]?P)"
)
NOT_SEEN = re.compile(  # a blur is not visible on the chin; a halo that is absent around the nose
    rf"[BI][wvVadI]{{0,3}}(?:n[vV]{{1,2}}|v?M)(?=[pq]{NEAR}{{0,3}}P)"
)
LESS = re.compile(r"M(?=(?:ev)?d?[waelroOsGTV]{0,3}P)")  # the missing eyebrow; 消失的是眉毛
NO_DOUBT = re.compile(r"n[av]{0,2}Q(?=[dlro]{0,2}P(?:[,.|c]|$))")  # nobody would doubt the nose
INTACT = re.compile(r"(?<![nNT])U(?=[dwaelros]{0,2}P(?!an))")  # next to the unaltered skin
GOOD_ONES = re.compile(r"(?:(?<![nN])(?<![nN][av])h|^|(?<=[.,|]))d?[GU]{1,2}(?=e?P(?:[.,|cj]|$))")  # has natural ears
LISTED = (
    re.compile(  # looks real: ears, hair; OK - ears, hair; all else is fine: ears, hair; the only real part is the nose
        r"[GUMN](?:(?:(?<![^.|,].)|(?<=[.|,][av][GU])|(?<=^[av][GU])|(?<=[.|,][av][av][GU])|(?<=^[av][av][GU]))"
        r"(?:(?<=N)(?:V|a?B))?(?:w?v|e?s[vhR]{1,2})(?=[delroOc]{0,4}P)"
        r"|(?<=[GU])(?<![^.].),(?=[dlroO]{0,3}P(?:[,cj]{1,2}[dlroO]{0,3}P){0,8}(?:\.|$))"
        r"|(?<=[GU])(?<![nNT].)(?<![nNT][av].)(?:[sw]?a?v|e[av|h]{1,4}|,q)(?=[delro]{0,2}Pa?(?:[,.|cj]|$)))"
    )
)
OPPOSED = re.compile(rf"x(?=[pq]?{NEAR[:-1]}BG]{{0,4}}(?:[Bs][pq]{{1,2}}d?)?P)")
EXCEPTED = re.compile(r"P(?=s?X(?![^,.|]{0,4}P|[pq]))")  # 嘴唇以外; 嘴唇除外
TOO = re.compile(r"[wsX]{0,3};[^.;P]{0,4}P[^.;P]{0,3}[+A]")  # 除了鼻子，嘴也模糊
OWN_WORD = re.compile(r"a{0,2}(?:[nN]a?)?[GUBM]a?,")  # 除了耳朵没动，
NONE_BUT = re.compile(  # nothing apart from the ears; nothing is odd but for the ears; save the ears nothing is odd
    r"N[dws]{0,3}x|N[^.|,P]{0,6}B[pqdw]{0,3}x|(?:^|(?<=\.))x[^.|N]{1,16}N[^.|,P]{0,6}B"
)
GOOD_PART = re.compile(  # the natural nose; but not: a natural nose would, no natural nose, like a natural nose
    r"(?:^|[.,|cty]|(?<![nNZTH])(?<![nNZTH][av])[hqv])[di]?[lr]?s?a?[GU]{1,2}(?=e?P(?!w|p?e|a))"
)
GOOD = re.compile("[GU]e?P")  # what GOOD_PART needs
FLAW_AT = re.compile(  # a blur at the nose; a blur at the nose is not visible
    r"B[sw]{0,2}[pq]{1,2}[dlraoOs]{0,4}P(?P<unseen>[av]{0,2}n[av]{0,2}V|[vT]M)?"
)
FLAW_IS = re.compile(  # the flaw is the nose; 问题只出在鼻子; 假的是鼻子: said of what stands behind it
    r"B(?:(?<![^.,|].)|(?<=[.,|][had].)|(?<=^[had].)|(?<=[.,|][had][had].)|(?<=^[had][had].))"
    r"a?e?[ad]{0,2}[vqu|]{1,2}(?=[dalroO]{0,3}P)"
)
AS_DO = re.compile(  # so do the ears; and the ears too; looks natural, as well as the ears; also the ears
    rf"[A,acC](?:(?<=A)(?={NEAR}{{0,3}}P)|(?<=[c,])(?={NEAR}{{0,3}}P[vhD]?[TaA](?:[,.|]|$))"
    r"|(?:(?<=[GUFBK][cCa])|(?<=[GUFBK][,a])[,a]?[cCa])(?!e)"
    rf"(?={NEAR}{{0,3}}P(?:[,c]{{1,2}}{NEAR}{{0,3}}P){{0,4}}[av]{{0,2}}(?:[.|]|$|,(?![^.,|P]{{1,12}},))))"
)
BUT = re.compile(r"(?:^|\.)[^P.]{1,20}\|(?=[diwalro]{0,4}P(?:\.|$))")  # everything is blurred but the ears

DIRECT = tuple((frozenset(cues), pattern) for cues, pattern in (
    ("NL", NONE), ("nN", NO_FLAW), ("N0", NOTHING_AT), ("n", NOT), ("nN", NOT_REACH), ("nM", NOT_SEEN),
    ("Q", NO_DOUBT), ("M", LESS), ("U", INTACT), ("GU", GOOD_ONES), ("GUMN", LISTED),
))  # fmt: skip
"""Each with the kinds that it needs: most texts have few of them."""

# An enumeration of parts, and where a new clause begins instead: with a verb, or without an end behind the part.
NEXT = re.compile(r"(?:,?[cj]|,)[dwaelroOspqBGUV]{0,4}P|P")
OWN_VERB = re.compile(r"[wpqdlrasePc]{0,6}?[vhunMBNFCL]|a?[GU](?:[,.|]|$)|s")
CLOSED = re.compile(r"[VaA]?(?:[,.|cj]|$)")
# Parts that are no subjects: near the *mouth* and the ears look ..., freckles that cover the *nose* have ...
OBJECT = re.compile(r"[wa]{0,2}[pqC]{0,2}[dwalroOse]{0,4}P(?=.*[c,].*P)")
RELATIVE = re.compile(r"(?:I|[Pw]d)a?$")
RELATIVE_OBJECT = re.compile(r"u[pq]?[dwalroe]{0,3}P")
OTHER_CLAUSE = re.compile(r".*P[^P,]*w[^P,]*,(?=.*P)")  # the cheek bulges, the nose
WITH = re.compile(r"(?:t[dlroe]{0,2}w{1,4}|q[dwlroe]{0,6}[ps])$")  # 颜色和脸不搭; 酒窝在图里不见了
ENDED = re.compile(r".*P.*;(?=[^tcj;]{0,4}P)")  # 只改了嘴，鼻子: a Chinese clause, unless it only lists
LIST = re.compile(r"[PtcjdlroOeas;,]*")
RELATIVE_SUBJECT = re.compile(r"[wB][dI]d[laroOwGB]{0,3}P(?=[aT]{0,2}[uw])")  # a shadow that the nose should cast
IF = re.compile(r"Y[^.,|Y]*$")  # natural if the eyes were equal
EDGE = re.compile(r"E[waV]{0,2}[pyqe]{1,2}[diwalroOe]{0,4}$")  # the edge of the
ELSEWHERE = re.compile(  # there is an odd patch on the chin; but a seam is visible on the chin; but not: on its tip
    r"[|c,a]{0,3}(?:bv[dawGB]{0,4}|d[awGB]{0,3})B[wB]{0,2}(?:v[aV]{1,2})?[pqy]{1,2}(?![iI]|d[sE](?!p))"
)
PLACE = re.compile(r"Py[diwalroOs]{0,4}$")  # the scar over the
SUCH = re.compile(r"v?C|va?w{1,3}e(?:[,.|]|$)")  # nobody has teeth like these; 没有一颗牙齿是独立的

ITS_SIDE = re.compile(r"es(?:[,.|]|$)")  # 没有眉毛的质感
STOP = re.compile(r"\.")
MARK = re.compile(r"[.|uhvC](?:(?<!C)|(?<=PC))")  # where a clause or its predicate begins
# A judgement; the ends of "the ears do not", "the scar does not show any more", "the ears do" or "are" are some.
JUDGEMENT = re.compile(
    r"[GUFBMVTLRnhN0Dv](?:(?<=[GUFBMV])|(?<=T)(?=w)|(?<=L)(?=[daGV]{0,2}[ws]|[,.|]|$)|(?<=nR)(?=[,.|c]|$)"
    r"|(?:(?<=n)(?:(?<![wu]n)|(?<=[,.|c]dwn))a?h?[adO]{0,2}|(?<=h)N|(?:(?<=h)0|(?<=0))(?:[lrv]a?|av)?V?|(?<=[ND])|(?<=P[vh]))"
    r"(?=[,.|]|$))"
)
ATTRIBUTE = re.compile(r"[aeGBUVlrw]{0,3}P")  # the blurred nose
MODIFIER = re.compile(r"[wsC]|p?e")  # skin texture; teeth like these; 脸颊上的雀斑
OBJECT_NEXT = re.compile(r"a?(?:d[laroOwGB]{0,3}|\|)P")  # and changes only the mouth
THERE = re.compile(r"v?a{0,2}V?b")  # is visible there
SEEN_AT = re.compile(r"(?:^|[.,|c])a?[pq]{1,2}[dwalroOe]{0,4}P(?:[cj,][dlro]{0,2}P)?,?[wI1]$")  # on the chin I
WHERE = re.compile(r"[yq][diwalroOe]{0,4}$")  # under the
TOUCHING = re.compile(r"(?:^|[,.|c])[daelroO]{0,4}P$")
TERSE = re.compile(r"PG[lro]?P[na]{0,2}[GUB](?:[lroP,.|]|$)")  # eyes ok nose ok mouth odd
PARTLY = re.compile(r"qd?[lr]s?,?[|x](?![dlroOw]{0,3}P)")  # sharp on the left but smeared on the right
SAVE = re.compile(  # fine except for the tip; real, though not in colour; natural but dissolves; real if
    r"[pqdwa]{0,4},?(?:X[^P.,|]{1,8}(?:[.,|]|$)|\|a?(?:n[pq]d?w|u|I?hNG?w))|[Yk]"
)
BESIDE = re.compile(r"P(?:[ep]|cw{1,4})$")  # 鼻子的, 鼻子上, 鼻子和脸部
ALSO = re.compile(r"(?:,[cj]?|[cj])d?a?")  # no seams, blur or noise
ENDS = re.compile(r"w?(?:[x,.|]|$)")
OTHER_SUBJECT = re.compile(r"P[^P]*[vhuL][^P]*[c,]dw{1,3}$")  # the teeth lack gaps and the gum line
QUESTION = re.compile(r"(?:^|\.)[dalroOi]{0,3}P$")  # the tongue? Gone.
ANSWER = re.compile(r"P\.(?=a{0,2}[nN]?a?[MGU0](?:[,.c]|$))")
HEADED = re.compile(  # one area is altered: the chin and the jaw are ...
    r":(?=[dlroaOewi]{0,3}P(?:[,cj]{1,2}[dlroaOewi]{0,3}P){0,6}[wa]{0,2}[vhuDnRF]|Ia?[vhun])"
)
AND = re.compile(r"c[daelroO]{0,4}P$")  # and the ears are
ASIDE = re.compile(r",\|(?=[waGBS]{0,3},)")  # the tongue, though, looks fine; the lips, although thin, look real
LIKEWISE = re.compile(r"Pv[^.P]*[,|c][dlroa]{0,3}P$")  # the beard looks as if glued on, the hair does not
ONE_OF = re.compile(r"[1oOda]p$")  # one of the ears
NONE_OF_IT = re.compile(r"a{0,2}NV?(?:[,.|]|$)")  # 一点问题也没有
STANDARD = re.compile(  # 比左眼清晰; 没有左眼那么清晰: more or less than that, no praise
    r"(?:C[dlroO]{0,2}P[es]{0,2}|[Nx][dlroO]{0,2}P[es]{0,2}C|Pa{0,2}N[dlroO]{0,2}P[es]{0,2}|T[dlroO]{0,2}P[es]{0,2}C?)a{0,2}$"
)
COMPARED = re.compile(r"C[dlroO]{0,3}P,$")  # thinner than the left eyebrow, which
OPINION = re.compile(r"[nNT][daI]{0,2}K|(?<!n)(?<!na)Q")  # I do not think that; I doubt that
BACK = frozenset("Ii")  # "it looks odd" and "its colour is odd" go on about a part

NO_CUES = "dwaelroOspqyifBPvhucjt+,;.:bTKCAVRDIEY12k"  # without any other kind nothing is denied
GOES_ON = re.compile(  # it looks, its colour, as do, the ears are, the ears too
    r"[IiAD]|[vh](?:[,.|]|$)|P[vhD]?[Ta](?:[,.|]|$)"
)
