"""The grammar of English questions."""

from .grammar import Grammar, Language, Reason, Talk
from .lists import Role
from .meanings import (
    INTERESTS,
    PEOPLE,
    alike,
    check,
    check_amount,
    check_anybody_denied,
    check_anybody_without,
    check_everybody,
    check_negated,
    check_number,
    check_which,
    comparison,
    comparison_of_equals,
    comparison_of_two,
    counted,
    everything,
    fans,
    fans_of_only,
    interests,
    interests_but_not,
    interests_denied,
    interests_in_common,
    interests_in_common_but_not,
    interests_of_only,
    linked_with_all_people,
    linked_with_number,
    not_fans,
    numbered,
    popularity,
    profile,
    ranking,
)
from .query import EVERY, Quantity

# Each text is a part of a regular expression over words that one space divides. See `Grammar`.
_BE = "(?:is|are|'s|'re)"
_LIST = "(?:list|show|show me|give me|give me a list of|list up|name|find)"
_EVERY = "(?:all|the|all the|all of the|some|some of the)"
_PERSONS = "(?:people|persons|person|everybody|anybody|somebody|those|users)"
_THINGS = "(?:interests|interest|hobbies|hobby|things|thing)"
_KNOWN = f"(?:{_BE} there|do you know|{_BE} in (?:the|your) (?:data|graph|database)|do you have)"
_KNOWN_HERE = (
    "(?:(?:that )?you (?:know|know of|know about|have)|(?:that )?there are|in (?:the|your) (?:data|graph|database))"
)
_THEY = "(?:he|she|they)"

_REWRITES = [
    ("(?:the|a|an)(?= <)", ""),
    ("(and|or|nor|not|but|neither|either|both) (?:in|of)(?= <)", r"\1"),
    ("don't|doesn't|dont|doesnt|do not|does not", "don't"),
    ("actually|by the way|btw|anyway", ""),
    ("(?:on|in|from) (?:the|your) (?:list|data|graph|database)", ""),
    ("(?:is|are|am|'s|'re) (?:liking|loving|enjoying)", "like"),
    ("(?:has|have) (?:picked|chosen|selected)|picks|picked", "like"),
    ("how much(?= interests)", "how many"),
    ("whats", "what is"),
    ("whos", "who is"),
    ("isn't|is not|aren't|are not", "isn't"),
    ("no one|noone", "nobody"),
    ("anyone", "anybody"),
    ("someone", "somebody"),
    ("everyone", "everybody"),
    ("as well as|and also|plus", "and"),
    ("all of(?= <)", "all"),
    ("(?:, )?(?:except|except for|other than|apart from|aside from|besides|excluding|but for|not counting)", "except"),
    ("likes|like|loves|love|enjoys|enjoy", "like"),
    ("(?:a |the |any )?(?:fan|fans|lover|lovers) of", "into"),
    ("interested in|fond of|keen on", "into"),
    ("(?:really )?into", "into"),
    ("(neither|either) into", r"into \1"),
    ("(?:has|have|share|shares) (?:an |any |the )?(?:interest|interests|hobby) in", "like"),
    ("(?:what is |what 's )?(?:the|what) number of (?:people|persons|users)(?: who| that)?", "count who"),
    ("count (?:all )?(?:the )?(?:people|persons|users) (?:who|that)", "count who"),
    (f"how many (?:people|persons|users)(?: {_BE} there)? (?:who|that)", "count who"),
    ("how many (?:people|persons|users)", "count who"),
    (f"how many (?:different )?{_THINGS}", "count what"),
    ("how many (?:fans|people)(?= (?:do|does) <)", "count fans"),
    (
        f"{_BE} there (?:anybody|somebody|anyone|a person|any person|any people|people|somebody here) (?:who|that)",
        "does anybody",
    ),
    (f"(?:{_LIST} )?(?:{_EVERY} )?(?:a )?{_PERSONS} (?:who|that)|{_LIST} who", "who"),
    ("(?:which|what) (?:people|person|persons|users)", "who"),
    (f"{_BE} there (?:anybody|somebody|a person|any person|any people|people) into", "does anybody like"),
    (rf"\A(?:{_LIST} )?(?:{_EVERY} )?{_PERSONS} into", "who into"),
    ("(?:which|what) (?:kind|kinds|sort|sorts|type|types) of(?= (?:things|interests|hobbies))", "what"),
    (f"(?:which|what) {_THINGS}|which", "what"),
    ("shares", "share"),
    ("interests|interest|hobbies|hobby", "interests"),
    (f"(?<=who ){_BE} into|(?<=who else ){_BE} into|(?<=who all ){_BE} into|(?<=who also ){_BE} into", "like"),
    ("(?<=who )into", "like"),
    ("(?<=who )isn't into", "don't like"),
    ("(?<=> )(?:is|are) into", "like"),
    ("(?<=> )isn't into", "don't like"),
    (
        r"who (?:don't like|isn't into) (<\d+>)(?: ,)? (?:but|and) (?:like|is into|are into) (<\d+>)",
        r"who like \2 but not \1",
    ),
    ("(?:and|but) (?:isn't into|don't like)(?= (?:<|both|either))", "but not"),
    ("how many(?= (?:like|don't like))", "count who"),
    ("(?:and|but) (?:also )?(?:is into|are into|like)(?= <)", "and"),
]

_NAME = r"<\d+>(?: 's)?"
_NAMES = (
    f"(?:(?:both|all|either|neither|not) )?{_NAME}(?:(?: (?:,|and|or|nor|but|not))+ {_NAME})*"
    "(?:(?: ,)? but not both|(?: ,)? or both| both| all)?"
)
_PEOPLE = f"(?P<people>{_NAMES})"
_OTHERS = f"(?P<others>{_NAMES})"
_WHAT_THEY_LIKE = f"(?P<interests>{_NAMES})"
_EXCEPT = f"(?: except (?P<except>{_NAMES}))"
_DO = "(?:do|does)"
_COUNT = "(?P<count>count )?"
_WHO = f"{_COUNT}who(?: here)?(?: (?P<else>else)| (?P<also>also))?(?: all)?"
_TOO = "(?: too| as well)?"
_ANY = "(?:anything|something|any interests|some interests|an interests|any)"
_NOTHING = "(?:(?:has|have|like) (?:no interests|nothing)|don't (?:have|like) (?:any interests|anything|interests))"
_NUMBER = r"(?P<number>\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
_COMPARISON = "(?:(?P<comparison>more than|at least|fewer than|less than|at most|exactly|only|just) )?"
_SHARE = "(?:have in common|share)"
_AMOUNT = f"(?P<comparison>more than|at least|fewer than|less than|at most|exactly) {_NUMBER}"
_MOST = "(?:the )?most"
_FEWEST = "(?:the )?(?:fewest|least)"
_POPULAR = "(?:popular|common|liked|widespread)"
_ABOUT = r"(?P<about><\d+>(?:(?: ,| and)+ <\d+>)*)"

_PHRASES = [
    (
        counted(fans),
        [
            f"{_WHO}{_EXCEPT}? like {_WHAT_THEY_LIKE}",
            f"{_COUNT}who like {_WHAT_THEY_LIKE} (?P<also>too|as well)",
            f"{_WHO} like {_WHAT_THEY_LIKE}{_EXCEPT}",
            f"except (?P<except>{_NAMES})(?: ,)? {_COUNT}who like {_WHAT_THEY_LIKE}",
            f"whose interests include {_WHAT_THEY_LIKE}",
            f"(?:who {_BE} |{_LIST} )?(?:all )?into {_WHAT_THEY_LIKE}",
            f"{_WHO} share {_WHAT_THEY_LIKE} with (?P<except>{_NAMES})",
        ],
    ),
    (
        popularity,
        [
            f"{_COUNT}fans {_DO} {_WHAT_THEY_LIKE} have",
            f"how (?P<count>popular) {_BE} {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        counted(fans_of_only),
        [
            f"{_WHO} (?:only like|like only|like just|just like) {_WHAT_THEY_LIKE}",
            f"{_WHO} {_BE} only into {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        counted(linked_with_number(PEOPLE, "=", EVERY)),
        [f"{_COUNT}who like (?:everything|all interests|all the interests|all of the interests)"],
    ),
    (
        counted(not_fans),
        [
            f"{_WHO}{_EXCEPT}? don't like {_WHAT_THEY_LIKE}",
            f"{_WHO} don't like {_WHAT_THEY_LIKE}{_EXCEPT}",
        ],
    ),
    (counted(linked_with_number(PEOPLE, "=", 0)), [f"{_COUNT}who {_NOTHING}"]),
    (
        counted(numbered(PEOPLE)),
        [f"{_COUNT}who (?:has|have|like|{_BE} into) {_COMPARISON}{_NUMBER} (?:interests|things|thing)"],
    ),
    (
        counted(everything(PEOPLE)),
        [
            f"{_COUNT}who (?:all )?{_KNOWN}",
            f"{_LIST} (?:{_EVERY} )?(?:people|persons|everybody|users)(?: {_KNOWN_HERE})?",
            "who are (?:all )?the people",
            "(?:all )?(?:the )?people",
        ],
    ),
    (
        counted(interests_in_common),
        [
            f"{_COUNT}what {_DO} {_PEOPLE} (?:have in common|share){_EXCEPT}?",
            f"{_COUNT}what {_DO} {_PEOPLE} (?:have in common|share) with {_OTHERS}",
            f"{_COUNT}what {_DO} {_PEOPLE} have (?:both |all )?in common(?: with {_OTHERS})?",
            f"what(?: {_BE})? (?:the )?(?:interests )?(?:shared by|common to|common between) {_PEOPLE}",
            f"{_BE} there (?:any|an|some)? ?interests(?: that)? {_PEOPLE} (?:both |all )?(?:share|like|have in common)",
            f"{_DO} {_PEOPLE} (?:have {_ANY} in common|share {_ANY})(?: with {_OTHERS})?",
            f"(?:what {_BE} |{_LIST} )?(?:the )?(?:common|shared) interests (?:of|between) {_PEOPLE}",
        ],
    ),
    (
        counted(interests_in_common_but_not),
        [
            f"{_COUNT}what {_DO} {_PEOPLE} {_SHARE}(?: ,)? (?:that|but|and) {_OTHERS} don't(?: like| have| share)?",
            f"{_COUNT}what {_DO} {_PEOPLE} {_SHARE}(?: ,)? but not (?:with )?{_OTHERS}",
        ],
    ),
    (
        counted(interests_but_not),
        [
            f"{_COUNT}what {_DO} {_PEOPLE} (?P<both>both |all )?(?:like|have)(?: ,)? (?:but|and) not {_OTHERS}",
            (
                f"{_COUNT}what {_DO} {_PEOPLE} (?P<both>both |all )?(?:like|have)(?: ,)? (?:that|what|but"
                f"|and) {_OTHERS} don't(?: like| have)?"
            ),
            f"{_COUNT}what {_BE} {_PEOPLE} (?P<both>both |all )?into(?: ,)? (?:but|and) not {_OTHERS}",
            f"{_COUNT}what {_BE} {_PEOPLE} (?P<both>both |all )?into(?: ,)? (?:that|but|and) {_OTHERS} isn't(?: into)?",
        ],
    ),
    (
        counted(interests),
        [
            f"{_COUNT}what {_DO} {_PEOPLE} (?:have|like){_EXCEPT}?",
            f"{_COUNT}what (?:has|have) {_PEOPLE}(?: got)?",
            f"{_COUNT}what {_BE} {_PEOPLE} into{_EXCEPT}?",
            f"(?:what {_BE} |{_LIST} )?(?:all )?(?:of )?(?:the )?interests of {_PEOPLE}",
            f"(?:what {_BE}|{_LIST}) (?:(?:all|some) )?(?:of )?(?:the )?{_PEOPLE} interests",
            f"{_PEOPLE} interests",
            f"what {_PEOPLE}(?: like| have)?",
            f"{_PEOPLE} like what",
            f"what {_PEOPLE} {_BE} into",
            f"(?:what|how) about {_PEOPLE}(?: ,)* what (?:{_BE} {_THEY} into|{_DO} {_THEY} like)",
            f"(?:what|how) about {_PEOPLE}(?: ,)* what {_BE} (?:his|her|their) interests",
            f"compare (?:the interests of )?{_PEOPLE}(?: interests)?",
        ],
    ),
    (
        counted(interests_denied),
        [
            f"{_COUNT}what {_DO} {_PEOPLE} not (?:like|have)",
            f"{_COUNT}what don't {_PEOPLE} (?:like|have)",
            f"{_COUNT}what (?:isn't {_PEOPLE} into)",
            f"{_COUNT}what {_BE} {_PEOPLE} not into",
        ],
    ),
    (counted(interests_of_only), [f"{_COUNT}what {_DO} only {_PEOPLE} (?:like|have)"]),
    (
        counted(linked_with_number(INTERESTS, "=", 0)),
        [
            f"{_COUNT}what {_DO} nobody (?:like|have|share)",
            f"{_COUNT}what {_BE} (?:nobody into|liked by nobody|not liked by anybody)",
            f"{_COUNT}what (?:has|have) (?:no fans|no people)",
            f"{_COUNT}what isn't (?:liked by anybody|anybody into)",
            f"{_COUNT}what don't anybody (?:like|have)",
            f"{_BE} there (?:any|an|some)? ?interests(?: that)? nobody (?:like|have|has)",
            f"{_BE} there anything(?: that)? nobody like",
        ],
    ),
    (
        counted(linked_with_all_people),
        [
            (
                f"{_COUNT}what {_DO} (?:everybody|all people|all the people|all of the people) (?:like|have "
                "in common|have|share)"
            ),
            f"{_COUNT}what {_BE} (?:everybody into|liked by everybody)",
            f"{_BE} there (?:any|an|some)? ?interests(?: that)? everybody (?:like|have|has|share)",
            f"{_BE} there anything(?: that)? everybody like",
        ],
    ),
    (
        counted(linked_with_number(INTERESTS, ">=", 1)),
        [
            f"{_COUNT}what {_DO} (?:people|the people) (?:like|have)",
            f"{_COUNT}what {_BE} people into",
        ],
    ),
    (
        counted(numbered(INTERESTS)),
        [
            f"{_COUNT}what (?:has|have) {_COMPARISON}{_NUMBER} (?:fans|fan|people)",
            f"{_COUNT}what {_BE} liked by {_COMPARISON}{_NUMBER} (?:people|person)",
            f"{_COUNT}what {_DO} {_COMPARISON}{_NUMBER} (?:people|person) (?:like|have|share)",
        ],
    ),
    (
        counted(everything(INTERESTS)),
        [
            f"{_COUNT}what {_KNOWN}",
            f"{_LIST} (?:{_EVERY} )?interests(?: {_KNOWN_HERE})?",
            f"what {_BE} all (?:of )?the interests",
            "(?:all interests|all the interests)",
        ],
    ),
    (
        check,
        [
            f"{_DO} {_PEOPLE} like {_WHAT_THEY_LIKE}{_TOO}",
            f"{_BE} {_PEOPLE} into {_WHAT_THEY_LIKE}{_TOO}",
            f"{_DO} {_PEOPLE} (?:share|have) {_WHAT_THEY_LIKE}(?: in common)?",
            f"{_PEOPLE} like {_WHAT_THEY_LIKE}{_TOO}",
            f"{_BE} {_WHAT_THEY_LIKE} liked by {_PEOPLE}",
            f"{_BE} {_WHAT_THEY_LIKE} (?:one of|among|part of) {_PEOPLE} interests",
        ],
    ),
    (
        check_which,
        [
            f"(?:what|who) of {_PEOPLE} like {_WHAT_THEY_LIKE}",
            f"(?:what|who) of {_PEOPLE} {_BE} into {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        check_negated,
        [
            f"{_DO} {_PEOPLE} not like {_WHAT_THEY_LIKE}",
            f"don't {_PEOPLE} like {_WHAT_THEY_LIKE}",
            f"{_PEOPLE} don't like {_WHAT_THEY_LIKE}",
            f"isn't {_PEOPLE} into {_WHAT_THEY_LIKE}",
            f"{_BE} {_PEOPLE} not into {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        check_number(">=", 1),
        [
            f"{_DO} {_PEOPLE} (?:like|have) (?:anything|any interests|interests|something)",
            f"{_BE} {_PEOPLE} into (?:anything|something)",
            f"(?:has|have) {_PEOPLE} (?:any interests|got any interests)",
        ],
    ),
    (check_number("=", 0), [f"{_DO} {_PEOPLE} (?:have no interests|like nothing)"]),
    (
        check_anybody_without,
        [
            f"{_DO} anybody (?:{_NOTHING}|has no interests)",
            f"{_BE} there (?:anybody|people|any people) (?:without|with no)(?: any)? interests",
        ],
    ),
    (
        check_anybody_denied,
        [
            f"{_DO} (?:anybody|somebody) (?:don't|not) like {_WHAT_THEY_LIKE}",
            f"{_BE} (?:anybody|somebody) not into {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        check_everybody(Quantity.SOME),
        [
            f"{_DO} (?:anybody|somebody|any people|some people)(?: (?P<else>else))?{_EXCEPT}? like {_WHAT_THEY_LIKE}",
            f"except (?P<except>{_NAMES})(?: ,)? {_DO} (?:anybody|somebody) like {_WHAT_THEY_LIKE}",
            f"{_BE} (?:anybody|somebody)(?: here)?(?: (?P<else>else))? into {_WHAT_THEY_LIKE}",
            f"(?:{_DO} )?(?:anybody|somebody) here like {_WHAT_THEY_LIKE}",
            f"(?:anybody|somebody)(?: here)? (?:like|into) {_WHAT_THEY_LIKE}",
            f"{_BE} {_WHAT_THEY_LIKE} liked by (?:anybody|somebody)",
            f"{_DO} {_WHAT_THEY_LIKE} have any fans",
        ],
    ),
    (
        check_amount,
        [
            f"do {_AMOUNT} people like {_WHAT_THEY_LIKE}",
            f"are {_AMOUNT} people into {_WHAT_THEY_LIKE}",
            f"are there {_AMOUNT} (?:people who|who) (?:like|are into) {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        check_everybody(Quantity.MOST),
        [f"do most people like {_WHAT_THEY_LIKE}", f"are most people into {_WHAT_THEY_LIKE}"],
    ),
    (
        check_everybody(Quantity.EVERY),
        [
            f"{_DO} (?:everybody|all people|all the people|all of the people) like {_WHAT_THEY_LIKE}",
            f"{_BE} (?:everybody|all people) into {_WHAT_THEY_LIKE}",
            f"everybody like {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        check_everybody(Quantity.NONE),
        [
            f"{_DO} nobody like {_WHAT_THEY_LIKE}",
            f"nobody like {_WHAT_THEY_LIKE}",
            f"{_BE} nobody into {_WHAT_THEY_LIKE}",
            f"{_BE} there nobody (?:who|that) like {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        ranking(INTERESTS),
        [
            f"(?:what {_BE} |{_LIST} )?(?:the )?(?:{_NUMBER} )?most {_POPULAR}(?: (?:interests|thing|things|one))?",
            f"(?:what {_BE} |{_LIST} )?(?:the )?top {_NUMBER} (?:interests|things)",
            f"what (?:has|have) {_MOST} (?:fans|people)",
            f"what {_BE} liked by {_MOST}(?: people)?",
            f"what {_DO} (?:the )?most people (?:have|share)",
        ],
    ),
    (
        ranking(INTERESTS, majority=True),
        [
            f"what {_DO} most (?:people|of the people) like",
            f"what {_BE} most people into",
        ],
    ),
    (
        ranking(INTERESTS, most=False),
        [
            f"(?:what {_BE} |{_LIST} )?(?:the )?(?:{_NUMBER} )?least {_POPULAR}(?: (?:interests|thing|things|one))?",
            f"what (?:has|have) {_FEWEST} (?:fans|people)",
        ],
    ),
    (
        ranking(PEOPLE),
        [f"who (?:has|have|like) {_MOST}(?: different)? (?:interests|things)", f"who {_BE} into {_MOST} things"],
    ),
    (ranking(PEOPLE, most=False), [f"who (?:has|have|like) {_FEWEST} (?:interests|things)"]),
    (
        comparison(INTERESTS),
        [
            f"what {_BE} (?:the )?more {_POPULAR}(?: ,)? (?P<names>{_NAMES})",
            f"what {_BE} (?:the )?most {_POPULAR}(?: ,| of)* (?P<names>{_NAMES})",
            f"what has more fans(?: ,)? (?P<names>{_NAMES})",
            f"do more people like (?P<names>{_NAMES})",
        ],
    ),
    (comparison(INTERESTS, most=False), [f"what {_BE} less {_POPULAR}(?: ,)? (?P<names>{_NAMES})"]),
    (
        comparison(PEOPLE),
        [
            f"who (?:has|have) (?:more|the most) interests(?: ,)? (?P<names>{_NAMES})",
            f"who like more things(?: ,)? (?P<names>{_NAMES})",
        ],
    ),
    (
        comparison(PEOPLE, most=False),
        [f"who (?:has|have) (?:fewer|less|the fewest) interests(?: ,)? (?P<names>{_NAMES})"],
    ),
    (
        comparison_of_two(INTERESTS),
        [
            rf"{_BE} (?P<first><\d+>) more {_POPULAR} than (?P<second><\d+>)",
            r"(?:do|does) more people like (?P<first><\d+>) than (?P<second><\d+>)",
            r"do (?P<first><\d+>) have more fans than (?P<second><\d+>)",
        ],
    ),
    (comparison_of_two(INTERESTS, most=False), [rf"{_BE} (?P<first><\d+>) less {_POPULAR} than (?P<second><\d+>)"]),
    (
        comparison_of_two(PEOPLE),
        [rf"{_DO} (?P<first><\d+>) (?:have|like) more (?:interests|things) than (?P<second><\d+>)"],
    ),
    (
        comparison_of_two(PEOPLE, most=False),
        [rf"{_DO} (?P<first><\d+>) (?:have|like) (?:fewer|less) (?:interests|things) than (?P<second><\d+>)"],
    ),
    (
        comparison_of_equals(INTERESTS),
        [
            f"{_BE} (?P<first>{_NAMES}) equally {_POPULAR}",
            rf"{_BE} (?P<first><\d+>) as {_POPULAR} as (?P<second><\d+>)",
        ],
    ),
    (
        comparison_of_equals(PEOPLE),
        [
            f"{_DO} (?P<first>{_NAMES}) have (?:equally many|the same number of|as many) interests",
            rf"{_DO} (?P<first><\d+>) have as many interests as (?P<second><\d+>)",
        ],
    ),
    (
        alike(closest=True),
        [
            f"who (?:has|have) {_MOST} (?:interests )?in common with {_PEOPLE}",
            f"who (?:shares|share) {_MOST} (?:interests|things)? ?with {_PEOPLE}",
            f"who {_BE} (?:the )?most (?:similar to|like) {_PEOPLE}",
        ],
    ),
    (
        alike(closest=False),
        [
            f"who (?:has|have|shares|share) (?:{_ANY} |interests |things )?in common with {_PEOPLE}",
            f"who (?:has|have|shares|share) {_ANY}? ?(?:interests )?with {_PEOPLE}",
        ],
    ),
    (
        profile,
        [
            (
                "(?:(?:(?:can|could) you )?(?:please )?tell me|tell us|what do you know|what can you (?:tell "
                f"me|say)|{_LIST}|information|info|what is there to know)(?: something| anything| more| all| "
                f"everything| information| a bit)? about {_ABOUT}"
            ),
            f"(?:who|what) {_BE} {_ABOUT}",
            f"(?:describe|do you know|about|more about|something about) {_ABOUT}",
            f"do you have (?:any )?(?:information|data|info) (?:about|on) {_ABOUT}",
        ],
    ),
]

_REASONS = {
    Reason.SEVERAL: "(?:[.]|and|or|but) (?:who|what|which|how|do|does|is|are|tell)",
    Reason.REFERENCE: (
        "they|them|their|theirs|he|him|his|she|her|hers|it|its|those|these|that one|ones|else|also|both of"
        "|the same|former|latter|the others|others|who else"
    ),
    Reason.POPULAR_PERSON: (
        "who(?: [^ ]+){1,4} (?:popular|liked|famous|known)|(?:popular|famous|liked) (?:person|people|user)"
    ),
    Reason.DEGREE: (
        "favourite|favorite|favourites|favorites|prefer|prefers|preferred|rather|best|really|especially|mainly|mostly|passionate"
        "|obsessed|adore|adores|so much|very much|how much"
        "|(?:like|likes|love|loves|enjoy|enjoys|into|in)(?: <[0-9]+>)?(?: the)? (?:most|more|better|less|least|a lot)"
    ),
    Reason.DISLIKE: "hate|hates|dislike|dislikes|detest|detests|can't stand|loathe|loathes",
    Reason.OTHER_FACTS: (
        "why|when|where|old|age|live|lives|born|birthday|email|address|phone|married|since|how long|work"
        "|works|job|play|plays|good at|collect|collects|practise|practises|practice|practices|started|start"
        "|learn|meet"
    ),
}

ENGLISH = Grammar(
    language=Language.ENGLISH,
    rewrites=_REWRITES,
    lead_in=(
        "hi|hello|hey|hi there|hello there|hey there|good morning|good evening|good afternoon|please|ok"
        "|okay|so|now|then|and|but|also"
        "|well|thanks|thank you"
        "|(?:(?:can|could|would) you )?(?:please )?(?:tell|say)(?: me)?(?: [,.])*(?: if| whether)?"
        "|do you (?:happen to )?know(?: if| whether)?(?= (?:who|what|which|how|<|if|whether))"
        "|show me(?= (?:what|who|which|how))|i wonder(?: if| whether)?|i (?:want|would like|'d like) to "
        "know(?: if| whether)?|is it (?:true"
        "|right|correct) that"
        "|i (?:am|'m) (?:looking|searching) for|looking for|i (?:want|would like|'d like) to find"
        "|(?:can|could|would) (?:you|u)(?: please| kindly)?(?= (?:list|show|give|name|find|count|compare))"
    ),
    closing=(
        "at all|just curious|just wondering|i (?:am|'m) (?:just )?curious|pls|plz|please|thanks|thank you"
        "|then|now|right"
        "|in (?:the|your) (?:data|graph|database)|here"
    ),
    phrases=_PHRASES,
    talk={
        Talk.GREETING: (
            "how are you(?: doing)?|how do you do|hi|hello|hey|hi there|hello there|hey there|good "
            "morning|good evening|good afternoon|good day"
            "|greetings|hiya|heya|howdy|hi bot|hello bot|hello everybody"
        ),
        Talk.THANKS: (
            "(?:that|this|it) (?:was|is|'s) (?:really |very |so |quite )?"
            "(?:helpful|useful|great|good|nice|perfect|kind)"
            "|ok|okay|alright|all right|got it|i see|brilliant thanks"
            "|(?:really |very |so )?helpful|perfect|wonderful|awesome|brilliant|that helps|that helped"
            "|thanks|thank you|thx|thank you very much|thank you so much|thanks a lot|many thanks|cheers|ok "
            "thanks|great thanks|great|thanks so much"
        ),
        Talk.GOODBYE: "bye|goodbye|good bye|bye bye|see you|see you later|good night|farewell|ciao",
        Talk.HELP: (
            "(?:please )?help(?: me)?(?: please)?|what can you do(?: for me)?|what can i ask(?: you)?|what "
            "can i ask you about|what do you know|what do you do|how does this work|how do you work|what are "
            "you|what is this|who are you|are you a bot|are you human|what can you answer|what questions "
            "can i ask|what questions can "
            "you answer|which questions can i ask|how can you help(?: me)?|can you help(?: me)?"
        ),
    },
    reasons=_REASONS,
    roles={
        ",": Role.COMMA,
        "and": Role.AND,
        "or": Role.OR,
        "nor": Role.NOR,
        "but": Role.BUT,
        "not": Role.NOT,
        "both": Role.BOTH,
        "all": Role.BOTH,
        "either": Role.EITHER,
        "neither": Role.NEITHER,
        "'s": Role.POSSESSIVE,
    },
    numbers={
        word: n
        for n, word in enumerate(
            ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], 1
        )
    },
    comparisons={
        "more than": ">",
        "at least": ">=",
        "fewer than": "<",
        "less than": "<",
        "at most": "<=",
        "exactly": "=",
        "only": "=",
        "just": "=",
    },
    not_names=(
        "who|what|which|how|why|when|where|or|but|not|nor|neither|else|they|them|he|she|it|her|him|his|their|others"
    ),
    follow_up=(
        "(?:(?:and|but) )?(?:what|how) about (?P<about>.+)|(?:and|but|or) (?:also |with |what (?:is|are"
        "|'s|'re) )?(?P<and>.+)"
    ),
    asked_at_the_end=(
        r"\A(?P<before>.*(?:[.!?] |\b(?:tell|say|know|wonder|wondering|ask|asking|find out|see|hear)\b[^.!?]*? ))"
        r"(?P<asked>(?:who|whose|what|which|how many|does|do|is|are)\b[^.!?]*)\Z"
    ),
    denied=(
        r"n't\b|\b(?:not|never|no|except|apart|aside|without|excluding|excluded|besides|leaving out|other than"
        r"|who|whose|what|which|how|does|he|him|his|she|her|they|them|their)\b"
    ),
)
