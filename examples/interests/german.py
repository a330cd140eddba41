"""The grammar of German questions."""

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
    comparison,
    comparison_of_equals,
    comparison_of_two,
    counted,
    everything,
    fans,
    fans_but_not,
    fans_of_only,
    interests,
    interests_but_not,
    interests_denied,
    interests_in_common,
    interests_of_only,
    linked_with_all_people,
    linked_with_number,
    not_fans,
    numbered,
    profile,
    ranking,
)
from .query import EVERY, Quantity

# Each text is a part of a regular expression over words that one space divides. See `Grammar`.
_LIKE = "(?:mag|mögen|magst|liebt|lieben)(?: gern| gerne)?"
_PERSONS = "(?:leute|personen|person|menschen|benutzer)"
_THINGS = "(?:interessen|interesse|hobbys|hobbies|hobby|dinge|sachen)"
_HAVE = "(?:hat|haben)"
_BE = "(?:ist|sind)"
_LIST = "(?:zeig|zeige|zeig mir|zeige mir|nenn|nenne|nenn mir|nenne mir|liste|gib mir)"

_REWRITES = [
    ("(?:der|die|das|den|dem)(?= <)", ""),
    ("eigentlich|denn|mal|doch|wohl|überhaupt", ""),
    ("sowie|und auch|als auch|und außerdem", "und"),
    ("sowohl|alle beide|beides", "beide"),
    ("keiner|keine person", "niemand"),
    ("kein|keine|keinen|keinem", "nicht"),
    ("abgesehen von|ausgenommen", "außer"),
    (", außer", "außer"),
    (_LIKE, "mag"),
    ("(?:steht|stehen) auf|(?:begeistert|begeistern) sich für|(?:hat|haben) (?:ein )?interesse an(?= <)", "mag"),
    ("wem (?:gefällt|gefallen)", "wer mag"),
    ("was (?:gefällt|gefallen)", "was mag"),
    ("(?:gefällt|gefallen)(?= (?:<|jemandem|allen|niemandem))", "mag"),
    ("jemandem", "jemand"),
    ("niemandem", "niemand"),
    ("(?:interessiert|interessieren) sich(| nicht| weder| entweder| sowohl| beide| nur) für", r"mag\1"),
    ("(und|oder|noch|nicht|weder|entweder|beide|aber) (?:für|von|an)(?= <)", r"\1"),
    (f"(?:wie viele|wieviele|wie viel)(?: von den| der)? {_PERSONS}", "anzahl wer"),
    (f"(?:wie viele|wieviele)(?: verschiedene)? {_THINGS}", "anzahl was"),
    ("(?:wie viele|wieviele|wie viel) fans(?= hat)", "anzahl fans"),
    (r"wer mag (<\d+>) nicht(?: ,)? aber (?:mag )?(<\d+>)(?: mag)?", r"wer mag \2 aber nicht \1"),
    (f"(?:welche|welcher|welches|was für|welche der) {_PERSONS}|wer alles", "wer"),
    (f"(?:welche|welches|was für|welche der) {_THINGS}|was alles", "was"),
    (f"für was|für welche {_THINGS}", "wofür"),
    (_THINGS, "interessen"),
]

_NAME = r"<\d+>(?: 's)?"
_NAMES = (
    f"(?:(?:beide|entweder|weder|nicht) )?{_NAME}(?:(?: (?:,|und|oder|noch|aber|nicht))+ {_NAME})*"
    "(?:(?: ,)? aber nicht beide|(?: ,)? oder beide| beide| alle)?"
)
_PEOPLE = f"(?P<people>{_NAMES})"
_OTHERS = f"(?P<others>{_NAMES})"
_WHAT_THEY_LIKE = f"(?P<interests>{_NAMES})"
_EXCEPT = f"(?: außer (?P<except>{_NAMES})(?: ,)?)"
_COUNT = "(?P<count>anzahl )?"
_ELSE = "(?: (?P<else>sonst noch|sonst|noch)| (?P<also>auch))"
_WHO = f"{_COUNT}wer"
_NUMBER = r"(?P<number>\d+|eine|einem|einer|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf)"
_COMPARISON = "(?:(?P<comparison>mehr als|mindestens|weniger als|höchstens|genau) )?"
_POPULAR = "(?:beliebteste|beliebtesten|häufigste|häufigsten|populärste|populärsten)"
_UNPOPULAR = "(?:unbeliebteste|unbeliebtesten|am wenigsten beliebte|am wenigsten beliebten)"
_ANY = "(?:etwas|irgendetwas|was|interessen|irgendwelche interessen|ein interessen)"
_SOMEBODY = "(?:jemand|irgendjemand|irgendwer)"
_EVERYBODY = f"(?:alle|jeder|alle {_PERSONS}|jede person)"
_ABOUT = r"(?P<about><\d+>(?:(?: ,| und)+ <\d+>)*)"
_ON = "(?: über| von| zu)"
_SOMETHING = "(?: mir)?(?: bitte)?(?: etwas| mehr| alles| was)?"
_EXISTING = f"(?:gibt es|kennst du|{_BE} in den daten|{_BE} im graph|hast du)"

_PHRASES = [
    (
        counted(fans_but_not),
        [
            f"{_WHO} mag {_WHAT_THEY_LIKE}(?:(?: ,)? aber| , und) {_OTHERS} nicht",
        ],
    ),
    (
        counted(fans),
        [
            f"{_WHO}{_ELSE}?{_EXCEPT}? mag {_WHAT_THEY_LIKE}",
            f"{_WHO} mag{_ELSE} {_WHAT_THEY_LIKE}",
            f"{_WHO} mag {_WHAT_THEY_LIKE}{_EXCEPT}",
            f"{_WHO}{_EXCEPT}? {_WHAT_THEY_LIKE} mag",
            f"{_WHO} interessiert sich{_ELSE} für {_WHAT_THEY_LIKE}",
            f"{_WHO} interessieren sich{_ELSE} für {_WHAT_THEY_LIKE}",
            f"{_WHO} sich für {_WHAT_THEY_LIKE} (?:interessiert|interessieren)",
            f"{_WHO} {_BE} an {_WHAT_THEY_LIKE} interessiert",
            f"{_WHO} {_HAVE} interessen an {_WHAT_THEY_LIKE}",
            f"(?:{_LIST} )?(?:alle )?{_PERSONS}(?: ,)? (?:die )?{_WHAT_THEY_LIKE} mag(?: auf)?",
            f"wer {_BE} (?:ein |die )?(?:fan|fans) von {_WHAT_THEY_LIKE}",
            f"(?P<count>anzahl )fans hat {_WHAT_THEY_LIKE}",
        ],
    ),
    (counted(fans_of_only), [f"{_WHO} mag nur {_WHAT_THEY_LIKE}"]),
    (counted(linked_with_number(PEOPLE, "=", EVERY)), [f"{_WHO} mag (?:alles|alle interessen)"]),
    (
        counted(not_fans),
        [
            f"{_WHO}{_EXCEPT}? mag {_WHAT_THEY_LIKE} nicht",
            f"{_WHO} mag nicht (?P<interests>{_NAME}(?:(?: ,| oder)+ {_NAME})*)",
            f"{_WHO} {_BE} nicht {_WHAT_THEY_LIKE} interessiert",
            f"{_WHO} {_WHAT_THEY_LIKE} nicht mag",
        ],
    ),
    (
        counted(linked_with_number(PEOPLE, "=", 0)),
        [
            f"{_WHO} {_HAVE} nicht interessen",
            f"{_WHO} mag nichts",
            f"{_WHO} (?:interessiert|interessieren) sich für nichts",
        ],
    ),
    (counted(numbered(PEOPLE)), [f"{_WHO} {_HAVE} {_COMPARISON}{_NUMBER} interessen"]),
    (
        counted(everything(PEOPLE)),
        [
            f"{_WHO} {_EXISTING}(?: es)?",
            f"(?:{_LIST} )?alle {_PERSONS}(?: auf)?",
            f"{_LIST} (?:die )?{_PERSONS}(?: auf)?",
        ],
    ),
    (
        counted(interests_in_common),
        [
            f"{_COUNT}was {_HAVE} {_PEOPLE}(?: alle)? gemeinsam{_EXCEPT}?",
            f"{_COUNT}was {_HAVE} {_PEOPLE} mit {_OTHERS} gemeinsam",
            f"{_COUNT}was {_HAVE} {_PEOPLE} gemeinsam mit {_OTHERS}",
            f"{_COUNT}was teilen {_PEOPLE}",
            f"{_COUNT}was teilt {_PEOPLE} mit {_OTHERS}",
            f"(?:welche|anzahl) (?:gemeinsamen|gemeinsame) interessen {_HAVE} {_PEOPLE}",
            f"(?:was sind )?(?:die )?(?:gemeinsamen|gemeinsame) interessen von {_PEOPLE}",
            f"{_HAVE} {_PEOPLE} (?:{_ANY} gemeinsam|gemeinsame interessen|gemeinsamkeiten)",
            f"{_HAVE} {_PEOPLE} (?:{_ANY} mit {_OTHERS} gemeinsam)",
        ],
    ),
    (
        counted(interests_but_not),
        [
            f"{_COUNT}was mag {_PEOPLE}(?:(?: ,)? (?:aber|was)| , und) {_OTHERS} nicht(?: mag)?",
            f"{_COUNT}was mag {_PEOPLE}(?: ,)? aber nicht {_OTHERS}",
        ],
    ),
    (
        counted(interests),
        [
            f"{_COUNT}was (?:mag|{_HAVE}) {_PEOPLE}{_EXCEPT}?",
            f"{_COUNT}(?:wofür|was) (?:interessiert|interessieren) (?:sich )?{_PEOPLE}{_EXCEPT}?",
            f"woran {_BE} {_PEOPLE} interessiert",
            f"wofür {_PEOPLE} sich (?:interessiert|interessieren)",
            f"wofür sich {_PEOPLE} (?:interessiert|interessieren)",
            f"vergleiche(?: die interessen von)? {_PEOPLE}",
            f"{_COUNT}was {_PEOPLE} (?:mag|hat|haben)",
            f"(?:was {_BE} |{_LIST} )?(?:alle )?(?:die )?interessen von {_PEOPLE}(?: auf)?",
            f"(?:was {_BE} |{_LIST} )?{_PEOPLE} interessen(?: auf)?",
        ],
    ),
    (
        counted(interests_denied),
        [
            f"{_COUNT}was (?:mag|hat|haben) {_PEOPLE} nicht",
            f"wofür (?:interessiert|interessieren) sich {_PEOPLE} nicht",
        ],
    ),
    (counted(interests_of_only), [f"{_COUNT}was (?:mag|hat|haben) nur {_PEOPLE}"]),
    (
        counted(linked_with_number(INTERESTS, "=", 0)),
        [
            f"{_COUNT}was (?:mag|hat) niemand",
            "wofür interessiert sich niemand",
            f"{_COUNT}was {_HAVE} nicht fans",
        ],
    ),
    (
        counted(linked_with_all_people),
        [
            f"{_COUNT}was (?:mag|hat|haben) {_EVERYBODY}(?: gemeinsam)?",
            f"wofür (?:interessiert|interessieren) sich {_EVERYBODY}",
        ],
    ),
    (
        counted(numbered(INTERESTS)),
        [
            f"{_COUNT}was {_HAVE} {_COMPARISON}{_NUMBER} fans",
            f"{_COUNT}was mag {_COMPARISON}{_NUMBER} {_PERSONS}",
        ],
    ),
    (
        counted(everything(INTERESTS)),
        [
            f"{_COUNT}was {_EXISTING}(?: es)?",
            f"(?:{_LIST} )?alle interessen(?: auf)?",
            f"{_LIST} (?:die )?interessen(?: auf)?",
        ],
    ),
    (
        check,
        [
            f"mag {_PEOPLE} {_WHAT_THEY_LIKE}(?: auch)?",
            f"mag {_PEOPLE} auch {_WHAT_THEY_LIKE}",
            f"(?:interessiert|interessieren) sich {_PEOPLE}(?: auch)?(?: für)? {_WHAT_THEY_LIKE}",
            f"{_BE} {_PEOPLE} an {_WHAT_THEY_LIKE} interessiert",
            f"{_BE} {_PEOPLE} (?:ein )?(?:fan|fans) von {_WHAT_THEY_LIKE}",
            f"{_PEOPLE} mag {_WHAT_THEY_LIKE}",
            f"{_PEOPLE} {_WHAT_THEY_LIKE} mag",
            f"{_PEOPLE} sich für {_WHAT_THEY_LIKE} (?:interessiert|interessieren)",
            f"(?:hat|haben) {_PEOPLE} (?:ein )?interessen an {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        check_negated,
        [
            f"mag {_PEOPLE} {_WHAT_THEY_LIKE} nicht",
            f"mag {_PEOPLE} nicht (?P<interests>{_NAME})",
            f"{_PEOPLE} mag {_WHAT_THEY_LIKE} nicht",
            f"{_PEOPLE} mag nicht (?P<interests>{_NAME})",
            f"(?:interessiert|interessieren) sich {_PEOPLE} nicht (?P<interests>{_NAME})",
        ],
    ),
    (
        check_number(">=", 1),
        [
            f"(?:hat|haben) {_PEOPLE} (?:irgendwelche )?interessen",
            f"mag {_PEOPLE} (?:etwas|irgendetwas)",
        ],
    ),
    (check_number("=", 0), [f"(?:hat|haben) {_PEOPLE} nicht interessen", f"mag {_PEOPLE} nichts"]),
    (check_anybody_without, [f"hat {_SOMEBODY} nicht interessen", f"mag {_SOMEBODY} nichts"]),
    (check_anybody_denied, [f"mag {_SOMEBODY} {_WHAT_THEY_LIKE} nicht"]),
    (
        check_everybody(Quantity.SOME),
        [
            f"mag (?:(?P<else>sonst) )?{_SOMEBODY}{_EXCEPT}? {_WHAT_THEY_LIKE}",
            f"mag {_SOMEBODY} {_WHAT_THEY_LIKE}{_EXCEPT}",
            f"mag (?P<else>sonst noch|noch|sonst) {_SOMEBODY} {_WHAT_THEY_LIKE}",
            f"interessiert sich {_SOMEBODY} für {_WHAT_THEY_LIKE}",
            f"hat {_SOMEBODY} (?:ein )?interessen an {_WHAT_THEY_LIKE}",
            f"gibt es (?:jemanden|jemand|{_PERSONS}|eine person)(?: ,)? (?:der |die |das )?{_WHAT_THEY_LIKE} mag",
        ],
    ),
    (check_everybody(Quantity.MOST), [f"mag die meisten(?: {_PERSONS})? {_WHAT_THEY_LIKE}"]),
    (
        check_amount,
        [f"mag (?P<comparison>mehr als|mindestens|weniger als|höchstens|genau) {_NUMBER} {_PERSONS} {_WHAT_THEY_LIKE}"],
    ),
    (
        check_everybody(Quantity.EVERY),
        [
            f"mag {_EVERYBODY} {_WHAT_THEY_LIKE}",
            f"(?:interessiert|interessieren) sich {_EVERYBODY} für {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        check_everybody(Quantity.NONE),
        [
            f"mag niemand {_WHAT_THEY_LIKE}",
            f"niemand mag {_WHAT_THEY_LIKE}",
            f"interessiert sich niemand für {_WHAT_THEY_LIKE}",
        ],
    ),
    (
        ranking(INTERESTS),
        [
            f"(?:(?:was|welches|welche) {_BE} |{_LIST} )?(?:das |die )?(?:{_NUMBER} )?{_POPULAR}(?: interessen)?",
            f"was {_BE} am (?:beliebtesten|häufigsten|populärsten)",
            "was hat die meisten fans",
            f"was mag die meisten {_PERSONS}",
        ],
    ),
    (
        ranking(INTERESTS, most=False),
        [
            f"(?:(?:was|welches|welche) {_BE} |{_LIST} )?(?:das |die )?(?:{_NUMBER} )?{_UNPOPULAR}(?: interessen)?",
            f"was {_BE} am (?:unbeliebtesten|wenigsten beliebt)",
            "was hat die wenigsten fans",
        ],
    ),
    (ranking(PEOPLE), [f"wer {_HAVE} die meisten interessen", "wer mag die meisten interessen"]),
    (ranking(PEOPLE, most=False), [f"wer {_HAVE} die wenigsten interessen"]),
    (
        comparison(INTERESTS),
        [
            f"was ist (?:beliebter|populärer)(?: ,)? (?P<names>{_NAMES})",
            f"was hat mehr fans(?: ,)? (?P<names>{_NAMES})",
        ],
    ),
    (comparison(PEOPLE), [f"wer hat mehr interessen(?: ,)? (?P<names>{_NAMES})"]),
    (comparison(PEOPLE, most=False), [f"wer hat weniger interessen(?: ,)? (?P<names>{_NAMES})"]),
    (
        comparison_of_two(INTERESTS),
        [
            rf"{_BE} (?P<first><\d+>) (?:beliebter|populärer) als (?P<second><\d+>)",
            rf"mag mehr {_PERSONS} (?P<first><\d+>) als (?P<second><\d+>)",
        ],
    ),
    (comparison_of_two(PEOPLE), [r"hat (?P<first><\d+>) mehr interessen als (?P<second><\d+>)"]),
    (comparison_of_two(PEOPLE, most=False), [r"hat (?P<first><\d+>) weniger interessen als (?P<second><\d+>)"]),
    (
        comparison_of_equals(INTERESTS),
        [
            f"{_BE} (?P<first>{_NAMES}) gleich beliebt",
            rf"{_BE} (?P<first><\d+>) (?:so|genauso) beliebt wie (?P<second><\d+>)",
        ],
    ),
    (
        alike(closest=True),
        [
            f"wer hat (?:am meisten|das meiste|die meisten interessen) mit {_PEOPLE} gemeinsam",
            f"wer hat (?:am meisten|das meiste|die meisten interessen) gemeinsam mit {_PEOPLE}",
            f"wer {_BE} {_PEOPLE} am ähnlichsten",
        ],
    ),
    (
        alike(closest=False),
        [
            f"wer hat (?:{_ANY} )?(?:gemeinsame interessen )?mit {_PEOPLE}(?: gemeinsam)?",
            f"wer teilt (?:{_ANY} )?mit {_PEOPLE}",
        ],
    ),
    (
        profile,
        [
            f"(?:erzähl|erzähle|erzählen sie|sag|sage|berichte){_SOMETHING}{_ON} {_ABOUT}",
            f"was (?:weißt du|wissen sie)(?: alles)?{_ON} {_ABOUT}",
            f"was kannst du mir(?: alles)?{_ON} {_ABOUT} (?:sagen|erzählen)",
            rf"(?:wer|was) {_BE} (?P<about><\d+>)",
            r"(?:kennst du|über) (?P<about><\d+>)",
        ],
    ),
]

_REASONS = {
    Reason.SEVERAL: "(?:[.]|und|oder|aber) (?:wer|was|welche|wie|mag|ist|sind|hat|haben)",
    Reason.REFERENCE: (
        "er|sie|es|ihn|ihm|ihr|ihre|ihren|ihnen|sein|seine|dieser|diese|dieses|diesen|davon|denen|dessen"
        "|deren|die beiden|sonst"
        "|noch|auch|anderen|andere"
    ),
    Reason.POPULAR_PERSON: (
        "wer(?: [^ ]+){1,4} (?:beliebt|beliebteste|beliebtesten|bekannt|berühmt)"
        "|(?:beliebteste|beliebtesten|bekannteste|berühmteste) (?:person|personen|mensch|leute)"
    ),
    Reason.DEGREE: (
        "lieblingsinteresse|lieblingsinteressen|lieblingshobby|lieblingsbeschäftigung|lieber|liebsten|liebste|bevorzugt"
        "|bevorzugen|am besten|am meisten|am wenigsten|sehr|besonders|vor allem|hauptsächlich"
    ),
    Reason.DISLIKE: "hasst|hassen|verabscheut|verabscheuen|leiden",
    Reason.OTHER_FACTS: (
        "warum|wieso|weshalb|wann|wo|alt|alter|wohnt|wohnen|lebt|leben|geboren|geburtstag|adresse|telefon|verheiratet|seit"
        "|arbeitet|arbeiten|spielt|spielen|sammelt|sammeln"
    ),
}

GERMAN = Grammar(
    language=Language.GERMAN,
    rewrites=_REWRITES,
    lead_in=(
        "hallo|hi|hey|guten tag|guten morgen|guten abend|bitte|ok|okay|so|nun|also|und|aber|dann|danke|vielen dank"
        "|(?:kannst|können|könntest|könnten) (?:du|sie) (?:mir )?(?:bitte )?sagen(?: ,)?(?: ob)?"
        "|(?:sag|sage|sagen sie)(?: mir)?(?: bitte)?(?: ,)?(?: ob)?(?= (?:wer|was|ob|welche|welches|wie|wofür|<))"
        "|weißt du(?: ,)?(?: ob)?|ich (?:möchte|will) wissen(?: ,)?(?: ob)?|ob|stimmt es(?: ,)? dass"
    ),
    closing="bitte|danke|in den daten|im graph|in dem graph|eigentlich|denn",
    phrases=_PHRASES,
    talk={
        Talk.GREETING: (
            "wie geht es dir|wie geht es ihnen|wie geht 's|hallo|hallo zusammen|guten tag|guten morgen|guten "
            "abend|grüß gott|servus|moin|grüezi|hallo du"
        ),
        Talk.THANKS: (
            "das (?:war|ist) (?:sehr |wirklich )?(?:hilfreich|nett|toll|super|gut|prima|perfekt)"
            "|alles klar|in ordnung|verstanden|ok|okay|(?:sehr )?hilfreich|super|toll|prima|perfekt|das hilft"
            "|danke|danke schön|dankeschön|danke sehr|vielen dank|ok danke|besten dank|herzlichen dank|danke dir"
        ),
        Talk.GOODBYE: "tschüss|tschüs|auf wiedersehen|bis bald|bis später|ade|gute nacht",
        Talk.HELP: (
            "hilfe|hilf mir|bitte hilfe|was kannst du(?: alles)?|was kann ich (?:dich )?(?:alles "
            ")?fragen|wie funktioniert das"
            "|was weißt du|wer bist du(?: denn| eigentlich)?|was bist du(?: denn| eigentlich)?"
            "|bist du ein mensch|kannst du mir helfen|welche fragen kann ich stellen"
            "|welche fragen kannst du beantworten"
        ),
    },
    reasons=_REASONS,
    roles={
        ",": Role.COMMA,
        "und": Role.AND,
        "oder": Role.OR,
        "noch": Role.NOR,
        "aber": Role.BUT,
        "nicht": Role.NOT,
        "beide": Role.BOTH,
        "alle": Role.BOTH,
        "entweder": Role.EITHER,
        "weder": Role.NEITHER,
        "'s": Role.POSSESSIVE,
    },
    numbers={
        "eine": 1,
        "einem": 1,
        "einer": 1,
        "zwei": 2,
        "drei": 3,
        "vier": 4,
        "fünf": 5,
        "sechs": 6,
        "sieben": 7,
        "acht": 8,
        "neun": 9,
        "zehn": 10,
        "elf": 11,
        "zwölf": 12,
    },
    comparisons={"mehr als": ">", "mindestens": ">=", "weniger als": "<", "höchstens": "<=", "genau": "="},
    not_names=(
        "wer|was|welche|wie|warum|wann|wo|oder|aber|nicht|noch|weder|sonst|sie|er|es|ihn|ihr|ihm|ihnen|andere|anderen"
    ),
    follow_up=(
        "(?:(?:und|aber) )?was ist mit (?P<about>.+)"
        "|(?:(?:und|aber) )?wie (?:ist|sieht) es (?:mit|bei) (?P<how>.+?)(?: aus)?"
        "|(?:und|aber|oder) (?:auch |mit |bei |die von )?(?P<and>.+)"
    ),
    asked_at_the_end=(
        r"\A(?P<before>.*(?:[.!?] |\b(?:sag|sage|sagen|wissen|weiß|frage|fragen|verraten|herausfinden)\b[^.!?]*? ))"
        r"(?P<asked>(?:wer|wen|wofür|was|welche|wie viele|mag|mögen|gibt es)\b[^.!?]*)\Z"
    ),
    denied=(
        r"\b(?:nicht|nie|kein|keine|keinen|ohne|außer|abgesehen|ausgenommen|bis auf"
        r"|wer|wen|wem|wofür|was|welche|wie|er|ihn|ihm|sie|ihr|ihnen)\b"
    ),
)
