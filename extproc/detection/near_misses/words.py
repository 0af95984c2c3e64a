"""The words that the guard against near misses knows: tables only, all in lower case."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPPOSITES = """
enable disable, activate deactivate, @on @off, @on disable, @on deactivate, @off enable, @off activate, enable
deactivate, disable activate, @up @down, @up lower, @up reduce, @up decrease, @down raise, @down increase, add remove,
add delete, add subtract, create delete, create destroy, insert delete, insert remove, install uninstall, include
exclude, open close, opens closes, opening closing, start stop, start end, start finish, begin end, begin finish,
begin stop, first last, allow deny, allow forbid, allow block, allow prevent, allow ban, accept reject, accept
decline, accept refuse, approve reject, approve deny, grant revoke, grant deny, lock unlock, encrypt decrypt, encode
decode, compress decompress, zip unzip, connect disconnect, attach detach, mount unmount, load unload, upload
download, import export, push pull, send receive, give take, give receive, lend borrow, buy sell, buyer seller, buying
selling, purchase sale, win lose, won lost, winner loser, pass fail, succeed fail, success failure, increase decrease,
increase reduce, increase lower, raise lower, raise reduce, raise cut, grow shrink, expand contract, rise fall, rising
falling, gain lose, gain loss, profit loss, credit debit, deposit withdraw, earn spend, income expense, income
expenses, save spend, asset liability, inflate deflate, inflation deflation, speed slow, accelerate decelerate, show
hide, visible hidden, public private, internal external, inside outside, indoor outdoor, inbound outbound, incoming
outgoing, input output, before after, pre post, previous next, past future, early late, arrive depart, arrival
departure, arrive leave, enter exit, enter leave, upgrade downgrade, upstairs downstairs, upper lower, above below,
top bottom, left right, front back, forward backward, forwards backwards, north south, east west, northern southern,
eastern western, vertical horizontal, hot cold, hottest coldest, heat cool, heating cooling, warm cool, wet dry, hard
soft, full empty, fill empty, wide narrow, thick thin, light dark, light heavy, bright dim, brighten dim, loud quiet,
clean dirty, good bad, safe dangerous, safe unsafe, healthy unhealthy, legal illegal, lawful unlawful, possible
impossible, true false, correct incorrect, right wrong, valid invalid, positive negative, pro con, pros cons,
advantage disadvantage, advantages disadvantages, benefits drawbacks, benefits risks, advantages drawbacks, benefits
disadvantages, strengths weaknesses, strength weakness, cause effect, causes effects, cause consequence, causes
consequences, causes symptoms, cause symptom, symptoms treatment, cause cure, causes treatment, question answer, ask
answer, problem solution, teach learn, teacher student, employer employee, doctor patient, landlord tenant, parent
child, parents children, male female, man woman, men women, boy girl, husband wife, father mother, son daughter,
brother sister, king queen, uncle aunt, adult child, adults children, adult kid, adults kids, young old, new old,
newest oldest, rich poor, love hate, like dislike, friend enemy, ally enemy, agree disagree, friend foe, attack
defend, offense defense, guilty innocent, war peace, birth death, born died, born die, alive dead, live die, day
night, morning evening, morning afternoon, sunrise sunset, summer winter, spring autumn, spring fall, always never,
often rarely, often seldom, frequently rarely, frequently seldom, sometimes always, everyone nobody, everything
nothing, everywhere nowhere, all none, same different, similar different, similarities differences, similarity
difference, single married, single multiple, simple complex, easy difficult, easy hard, easily hardly, formal
informal, formal casual, temporary permanent, optional required, optional mandatory, voluntary mandatory, voluntary
compulsory, local remote, online offline, manual automatic, manually automatically, static dynamic, synchronous
asynchronous, sync async, client server, frontend backend, head tail, header footer, prefix suffix, prepend append,
ascending descending, asc desc, serialize deserialize, marshal unmarshal, subscribe unsubscribe, follow unfollow, mute
unmute, block unblock, pin unpin, archive unarchive, check uncheck, select deselect, undo redo, do undo, join leave,
join split, merge split, merge rebase, combine separate, build demolish, repair break, fix break, freeze thaw, freeze
unfreeze, absolute relative, odd even, plus minus, multiply divide, numerator denominator, acid base, acidic alkaline,
solid liquid, melt freeze, melting freezing, melting boiling, hire fire, promote demote, marry divorce, marriage
divorce, sender recipient, sender receiver, source destination, source target, import export, imports exports, supply
demand, wholesale retail, gross net, short long, tall short, fat thin, deep shallow, near far, nearest farthest,
nearest furthest, closest farthest, closest furthest, strong weak, strengthen weaken, tighten loosen, support oppose,
for against, with without, optimist pessimist, read write, reading writing, reader writer, lossless lossy, mutable
immutable, required optional, virtual physical, guest host, major minor, senior junior, vowel consonant, vowels
consonants, prey predator, scale unscale, wake sleep, waking sleeping, credit debt, lender borrower, stress relax,
inhale exhale, sit stand, appear disappear, appreciate depreciate
"""

_COMPARISONS = """
more less, more fewer, most least, most fewest, better worse, best worst, bigger smaller, larger smaller, biggest
smallest, largest smallest, greater less, greater smaller, greatest smallest, greatest least, higher lower, highest
lowest, faster slower, fastest slowest, quicker slower, quickest slowest, longer shorter, longest shortest, taller
shorter, tallest shortest, older younger, oldest youngest, older newer, oldest newest, earlier later, earliest latest,
sooner later, cheaper costlier, cheapest costliest, heavier lighter, heaviest lightest, stronger weaker, strongest
weakest, hotter colder, warmer colder, warmer cooler, hottest coldest, hotter cooler, harder easier, hardest easiest,
harder softer, safer riskier, richer poorer, richest poorest, wider narrower, closer farther, nearer farther, thicker
thinner, brighter darker, brighter dimmer, darker lighter, louder quieter, maximum minimum, max min, maximize
minimize, maximise minimise, maximal minimal, above below, deeper shallower, deepest shallowest, first last, superior
inferior, upper lower, cheapest expensive, cheaper expensive, cheap expensive, increase decrease, easier difficult,
strictest loosest
"""


def _pairs(table: str) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for pair in table.replace("\n", " ").split(","):
        one, other = pair.split()
        found.setdefault(one, set()).add(other)
        found.setdefault(other, set()).add(one)
    return {word: frozenset(others) for word, others in found.items()}


OPPOSITES = _pairs(_OPPOSITES)
COMPARISONS = _pairs(_COMPARISONS)

NEGATIVE_PREFIXES = ("un", "dis", "de", "non", "in", "im", "il", "ir", "anti", "mis")
"""`connect` and `disconnect`: either word is the other with one of these before it."""

NEGATIONS = _words(
    """
    not no never none nobody nothing neither nor nowhere cannot cant dont doesnt didnt isnt arent wasnt
    werent wont wouldnt shouldnt couldnt hasnt havent hadnt mustnt neednt aint without stop avoid
    prevent except excluding unless
    """
)

_CLASSES = """
January=january jan; February=february feb; April=april apr; June=june jun; July=july jul; August=august aug;
September=september sept sep; October=october oct; November=november nov; December=december dec
Monday=monday mon mondays; Tuesday=tuesday tue tues tuesdays; Wednesday=wednesday wed wednesdays; Thursday=thursday
  thu thurs thursdays; Friday=friday fri fridays; Saturday=saturday sat saturdays; Sunday=sunday sundays;
  weekend=weekend weekends; weekday=weekday weekdays
today=today tonight; tomorrow=tomorrow; yesterday=yesterday
am=am a.m; pm=pm p.m; noon=noon midday; midnight=midnight
last=last previous; next=next upcoming
"""
_UNITS = """
metre=metre metres meter meters m; kilometre=kilometre kilometres kilometer kilometers km kms; centimetre=centimetre
centimetres centimeter centimeters cm; millimetre=millimetre millimetres millimeter millimeters mm; mile=mile miles
mi; foot=foot feet ft; inch=inch inches; yard=yard yards yd; gram=gram grams gramme grammes; kilogram=kilogram
kilograms kilo kilos kg kgs; milligram=milligram milligrams mg; microgram=microgram micrograms mcg; pound=pound pounds
lb lbs; ounce=ounce ounces oz; tonne=tonne tonnes ton tons; stone=stone stones; litre=litre litres liter liters;
millilitre=millilitre millilitres milliliter milliliters ml; gallon=gallon gallons; pint=pint pints; cup=cup cups;
tablespoon=tablespoon tablespoons tbsp; teaspoon=teaspoon teaspoons tsp; second=seconds sec secs; minute=minute
minutes mins; hour=hour hours hr hrs; day=days; week=week weeks weekly; month=month months monthly; year=year years
yearly annual annually; decade=decade decades; century=century centuries; celsius=celsius centigrade;
fahrenheit=fahrenheit; kelvin=kelvin; byte=byte bytes; kilobyte=kilobyte kilobytes kb; megabyte=megabyte megabytes mb;
gigabyte=gigabyte gigabytes gb; terabyte=terabyte terabytes tb; bit=bits; dollar=dollar dollars usd bucks; euro=euro
euros eur; sterling=gbp; yen=yen jpy; cent=cents; rupee=rupee rupees inr; percent=percent percentage; degree=degrees;
mph=mph; kmh=kmh kph; watt=watt watts; kilowatt=kilowatt kilowatts kw; volt=volt volts; calorie=calorie calories kcal;
joule=joule joules; hectare=hectare hectares; acre=acre acres
"""
_KINDS = """
python; java; javascript js; typescript ts; rust; golang; ruby; php; swift; kotlin; perl; haskell; scala; fortran;
  cobol; matlab; bash; powershell; julia; lua; elixir; erlang; clojure; dart
windows; linux; macos mac; android; ios; ubuntu; debian; fedora; iphone; ipad
mysql; postgresql postgres; sqlite; mongodb mongo; mariadb; cassandra; dynamodb; redis; memcached; elasticsearch;
  oracle
pip; npm; yarn; conda; apt; brew homebrew; cargo; dnf; poetry
english; french; german; spanish; italian; portuguese; russian; chinese mandarin; japanese; korean; arabic; hindi;
  dutch; swedish; polish; turkish; greek; latin; hebrew; danish; norwegian; finnish; czech; hungarian; vietnamese;
  thai; ukrainian
red; blue; green; yellow; orange; purple violet; pink; black; white; brown; grey gray
spring; summer; autumn; winter
breakfast; lunch; dinner supper
father dad; mother mum mom; brother; sister; son; daughter; uncle; aunt; grandfather grandpa; grandmother grandma;
  cousin; nephew; niece; wife; husband
north; south; east; west
mercury; venus; mars; jupiter; saturn; uranus; neptune; pluto
gold; silver; copper; iron; aluminium aluminum; zinc; nickel; tin; platinum; titanium; lead
pdf; docx word; csv; json; xml; yaml; png; jpeg jpg; gif; svg; mp3; wav; mp4; html; markdown; xlsx excel
aws; azure; gcp
react; angular; vue; svelte
football soccer; basketball; baseball; tennis; cricket; rugby; volleyball; hockey; golf; badminton
poem; song; story; essay; letter; email mail e-mail; haiku; limerick; speech; tweet; joke
beginners beginner; experts expert; children kids; adults; teenagers teens; seniors
capital; population; currency; area; flag; president; climate; religion
author writer; protagonist; plot; ending; moral; genre
price cost; size; weight; height; length; width; depth; age; speed; colour color; volume; temperature; density
boiling; melting; freezing
symptoms symptom; causes cause; treatment treatments; prevention; diagnosis; vaccine
salary; duties; qualifications
hamburger burger; pizza; pasta; rice; bread; soup; salad; cake
chicken; beef; pork; lamb; turkey; fish; salmon; tuna; tofu; shrimp
dog dogs; cat cats; horse horses; rabbit rabbits; hamster hamsters; bird birds; snake snakes; parrot parrots
bus buses; train trains; plane flight flights plane; car cars; bike bicycle; ferry; taxi
left; right
"""
_PLACES = """
afghanistan albania algeria argentina australia austria bangladesh belgium bolivia brazil bulgaria cambodia canada
chile china  colombia croatia cuba cyprus denmark ecuador egypt england estonia ethiopia finland france germany ghana
greece  hungary iceland india indonesia iran iraq ireland israel italy jamaica japan jordan kenya latvia lebanon
lithuania  luxembourg malaysia malta mexico morocco nepal netherlands nigeria norway pakistan panama peru philippines
poland  portugal qatar romania russia scotland senegal serbia singapore slovakia slovenia spain sudan sweden
switzerland syria  taiwan tanzania thailand tunisia uganda ukraine uruguay usa uk venezuela vietnam wales zambia
zimbabwe europe asia africa  amsterdam athens bangkok barcelona beijing berlin boston brussels cairo chicago delhi
dubai dublin geneva hamburg helsinki  istanbul lisbon london madrid melbourne miami milan moscow mumbai munich nairobi
oslo paris prague rome seattle seoul  shanghai stockholm sydney tokyo toronto vancouver vienna warsaw zurich
"""


def _rows(table: str) -> list[str]:
    """A line each; an indented one goes on with the one before."""
    return table.strip().replace("\n  ", " ").splitlines()


def _canonical(table: str) -> dict[str, str]:
    """`name=word word; name=word`, or `word word; word`, which has its first word as its name."""
    found = {}
    for entry in table.replace("\n", " ").split(";"):
        name, _, words = entry.strip().rpartition("=")
        for word in words.split():
            found[word] = name or words.split()[0]
    return found


DATES = {word: (row, name) for row, table in enumerate(_rows(_CLASSES)) for word, name in _canonical(table).items()}
"""Word to (group, meaning): two words of a group that mean different things are different dates."""
UNITS = _canonical(_UNITS)


_PLACE = -1
"""The group of places, which has no row."""


def _kinds() -> dict[str, tuple[tuple[int, str], ...]]:
    found: dict[str, list[tuple[int, str]]] = {}
    for row, table in enumerate(_rows(_KINDS)):
        for word, name in _canonical(table).items():
            found.setdefault(word, []).append((row, name))
    for place in _PLACES.split():
        found.setdefault(place, []).append((_PLACE, place))
    return {word: tuple(places) for word, places in found.items()}


KINDS = _kinds()
"""Word to the groups it is in and what it means there: things of one kind, of which one is not the other."""

ALIASES = {
    "us": "usa", "u.s": "usa", "u.s.a": "usa", "america": "usa", "american": "usa", "uk": "uk", "u.k": "uk",
    "britain": "uk", "nyc": "new york", "ai": "artificial intelligence", "ml": "machine learning",
    "k8s": "kubernetes", "js": "javascript", "ts": "typescript", "db": "database", "postgres": "postgresql",
    "mac": "macos", "osx": "macos", "eu": "european union", "ww1": "world war i", "ww2": "world war ii",
    "wwi": "world war i", "wwii": "world war ii", "2fa": "two factor authentication", "tv": "television",
    "pc": "computer", "ok": "okay",
}  # fmt: skip

_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen
"""
NUMBER_WORDS = {
    **{word: value for value, word in enumerate(_SMALL.split())},
    **{word: 10 * value for value, word in enumerate(_TENS.split(), start=2)},
    "dozen": 12, "half": 0.5, "double": 2, "twice": 2, "triple": 3,
}  # fmt: skip
MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "k": 1000, "m": 10**6, "bn": 10**9}
_ORDINALS = "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
ORDINALS = {word: value for value, word in enumerate(_ORDINALS.split(), start=3)}

QUANTITIES = {
    **dict.fromkeys(_words("all every each entire always everyone everybody everything whole"), "all"),
    **dict.fromkeys(_words("some few several sometimes certain somebody someone"), "some"),
    **dict.fromkeys(_words("mostly majority usually"), "most"),
    **dict.fromkeys(_words("only solely exclusively"), "only"),
    "both": "both", "exactly": "exactly",
}  # fmt: skip
BINDING_QUANTITIES = frozenset({"only", "exactly", "at least", "at most"})
"""These make a difference even to a text that has no quantity at all."""

PARTICLES = {"on": "@on", "off": "@off", "up": "@up", "down": "@down"}
TURNING = _words(
    """
    turn turns turned turning switch switches switched switching
    """
)
"""Before a particle: `turn the light on`. The particle then is a word of its own."""

DUTIES = _words(
    """
    must mandatory required obligatory compulsory obliged obligated
    """
)
LIBERTIES = _words(
    """
    may allowed permitted permissible optional might
    """
)

ROLES = {name: name for name in ("from", "to", "than", "before", "after", "by", "against", "without", "for")} | {
    "into": "to", "onto": "to", "towards": "to", "with": "with", "in": "in",
}  # fmt: skip
"""Prepositions that say which of two things is which."""
SYMMETRIC = _words(
    """
    and or between vs versus compare comparison both together difference differ different
    """
)

STOP_WORDS = _words(
    """
    a an the is are was were be been being am do does did doing done have has had having i me my mine we
    us our you your he him his she her it its they them their this that these those there here what
    which who whom whose when where why how can could will would shall should may might must please tell
    me want need like know help give let get of in on at to from into for with by about as than and or
    but if so then also just very really too s t re ve ll d m hi hello hey thanks thank explain show
    some any
    """
)

_FUNCTION_WORDS = {
    "en": "the is of and to how what does do in for with are you can",
    "fr": "le la les des est et une comment dans pour avec je quel quelle que pas sur du au faire",
    "de": "der die das ist und ein eine wie ich nicht mit für auf den dem wo was kann zu von",
    "es": "el los las es y una cómo como para con qué que por en del puedo está son",
    "it": "il gli è una come che per con sono della posso nel di dove cosa",
    "pt": "o os as é uma como que para com não do da em são posso onde",
    "nl": "het een is hoe en van met voor niet ik kan wat op zijn de",
}
LANGUAGES = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}
