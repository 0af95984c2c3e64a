"""Known attack phrases by family. The text of the rules and nothing else; `attacks` says how they are read and used.

A line of PHRASES is one rule about words, matched against folded text in which everything else is a space, or a full
stop where a sentence ends:

    a space      between two words, whatever stands there
    _            up to four words of any kind
    ~            up to 60 characters of the same sentence
    @            any number of letters of the same sentence (for scripts without spaces)
    {name}       one of the words of that name in WORDS
    ( | ) ?      as in a regular expression; so is every character after a backslash, and what is in brackets

A line of LITERAL is about signs as well: it is matched against the folded text itself; there `~` is up to 60
characters of the same line.

The number of a block is its rules' weight: 4 says attack by itself, 2 needs a companion, 1 is a hint. MENTION weighs
against: it is how people talk about attacks.
"""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "ignore": "ignore|ignoring|disregard|disregarding|forget|bypass|override|overrule|overwrite|neglect|discard|dismiss|"
    "set aside|put aside|throw away|throw out|pay no attention to|(do not|don t|never|stop|no longer|cease|quit)"
    " (follow|following|obey|obeying|listen to|listening to|comply with|complying with|adhere to|adhering to|"
    "heed|heeding)|abandon|turn off|switch off|suspend",
    "prior": "previous|previously|prior|preceding|above|earlier|past|former|initial|original|existing|foregoing|"
    "system|developer|admin|hidden|pre existing|default|built in|safety|content|moderation|openai s?|anthropic s?",
    "rules": "instructions?|directions?|directives?|prompts?|rules?|guidelines?|commands?|constraints?|restrictions?|"
    "polic(y|ies)|programming|orders|guardrails?|safeguards?|protocols?|training|limitations|filters?|"
    "conditioning|system messages?",
    "your": "your|the|these|those|all|any|every|my|its|our",
    "secret": "(your|the|its|this) system prompts?|(initial|original|hidden|secret|internal|developer|system|base|pre|starting|custom|"
    "confidential|full|complete|exact|own) (instructions?|prompts?|rules|guidelines|directives|message|messages|"
    "configuration|context|preamble)|(instructions?|prompt|rules|guidelines|directives|text|words|message|context)"
    " (you (were|have been|was|are|ve been) (given|provided|told|configured|programmed|initiali[sz]ed|set up|started)|"
    "that (define|govern|control|configure) you)",
    "show": "reveal|show|print|repeat|output|display|tell|give|share|expose|leak|disclose|recite|write|list|dump|echo|"
    "reproduce|return|provide|copy|paste|spell|translate|summari[sz]e|describe|quote|read|state|extract|type|encode",
    "harm": "illegal|unethical|immoral|harmful|dangerous|uncensored|unfiltered|offensive|explicit|malicious|prohibited|"
    "forbidden|banned|nsfw",
    "free": "unrestricted|uncensored|unfiltered|unlimited|limitless|jailbroken|amoral|unaligned|unbound|unchained|"
    "unshackled|rogue|evil|lawless|unmoderated",
    "ai": "ai|a i|assistants?|language models?|llms?|chatbots?|bots?|agents?|gpt|chatgpt|claude|gemini|copilot|llama|"
    "models?|automated systems?",
    "send": "send|forward|post|transmit|upload|exfiltrate|email|e mail|leak|submit|deliver|relay|copy|bcc|cc|share",
    "data": "(api|access|private|secret|ssh|aws) ?(keys?|tokens?)|passwords?|credentials?|secrets?|tokens|conversation"
    "( history)?|chat (history|log)|contacts?|(credit )?card (number|details)|personal (data|information)|"
    "environment variables|env vars|session|cookies?|files|database|emails?|address book|user s? (data|messages?)",
}

PHRASES: tuple[tuple[str, float, str], ...] = (
    (
        "override",
        4,
        r"""
        {ignore} _ (previous|prior|preceding|above|earlier|initial|original|foregoing|former) _ {rules}
        (ignore|disregard|forget|bypass|override)(all|any)?(of)?(the|your|my|its|these)?(previous|prior|preceding|above|earlier|initial|original)(instructions?|prompts?|rules?|commands?|directions?)
        {ignore} (all|any|every|everything|anything|whatever)( of)?( (the|your|that))? (above|before this|so far|until now|prior to this|previously said|you (were|have been|ve been) (told|taught|instructed|given)|i (have )?(told|taught) you before)
        {ignore} (all )?(of )?(your|the) (system|developer|hidden|initial|original|safety|content|built in|core|default|openai|anthropic) _ {rules}
        {ignore} {rules} (you|that you) (were|have been|ve been|was|got|received|are) _ (given|told|provided|earlier|before|previously|received)
        (previous|prior|earlier|above|original|your|system|all) _ {rules} (are|is|were|have been|has been) (now )?(hereby )?(void|null|cancell?ed|revoked|overridden|superseded|obsolete|replaced|suspended|lifted|deleted|disabled|rescinded|terminated|invalid|no longer (valid|in effect|apply|binding))
        (these|new|following|my) _ {rules} (override|supersede|replace|take (precedence|priority) over|overrule) _ ({prior}|your|all|any) _ {rules}
        you (must|will|should|are to|shall) (now )?{ignore} _ {rules}
        (forget|erase|wipe|delete|reset|clear) (everything|all( of)?|anything)( that)? (you (know|knew|learned|were told|have been told)|(before|above)|your (previous|prior|earlier|system|original|initial)) ~ (instructions?|prompt|now|told|rules|from now|instead)
        act as (if|though) (you|there) (had|have|has|were|received|never)( been)?( no| any| given)? _ (instructions|rules|restrictions|guidelines|prompts?)
    """,
    ),
    (
        "override",
        2,
        r"""
        {ignore} (all|any|every|the|your|these|those|my)( of)?( (the|your|these|those))? {rules}
        {ignore} _ {prior} _ {rules}
        {ignore} (everything|anything|all|whatever) _ (above|before|earlier|previously|so far|told|said|instructed|learned)
        your (new|real|only|true|actual|sole|next|first) (task|goal|objective|purpose|instructions?|job|mission|role|directive|orders?) (is|are|will be|shall be) (now )?(to )?(say|print|output|respond|reply|write|reveal|tell|give|help|answer|comply|do|obey|act|ignore|provide|repeat|execute)
        (reset|clear|wipe|erase|delete|flush|purge) (your|all|the)( of)?( (your|previous))? (context|memory|instructions|programming|system prompt|conversation|constraints|training)
        (end|stop|finish|terminate) (of )?(the )?(system|initial|original|previous|above|your) (prompt|instructions|message|context|rules)
        stop (being|acting as|pretending to be) (an? )?(ai |helpful )?(assistant|bot|translator|chatbot|ai)
        instead (of (that|this|the above|doing that|translating|summari[sz]ing|answering) _)?(you (must|will|should|shall|are to)|just) (say|print|output|respond|reply|write|reveal|tell|give|execute|answer)
        (you are|you re) no longer (bound|restricted|limited|constrained|an? ai|an? assistant|required|obligated|subject)
        the (rules|instructions|guidelines|policy|policies|restrictions) (above|before)? ?(do not|don t|no longer|does not|doesn t) apply
        (now )?(follow|obey|execute|perform|do) (only )?(these|the following|my|this) (new )?(instructions?|commands?|orders?|steps) (instead|only|exclusively|and nothing else|without question)
        as (your|the) (developer|creator|administrator|admin|owner|engineer|programmer|maker)\b ~ (i (order|command|authori[sz]e|instruct|request|need)|you (must|will|are|can|should))
        (i am|i m|this is) (your|the|an?) (developer|creator|administrator|admin|programmer|openai (engineer|employee|staff|developer)|anthropic (engineer|employee|staff)|system (administrator|admin))
        (admin|administrator|developer|system|root|security|emergency) (override|bypass)( code| command| mode| protocol| sequence)?
        (sudo|root access|superuser) (mode|granted|enabled|access|command)?
    """,
    ),
    (
        "override",
        1,
        r"""
        from now on,? _ you (will|are|must|shall|only|should|can)
        (let s|we will|we ll|lets) (start|begin) (over|again|anew) (with|as|from)
        (disregard|ignore|forget) (that|this|it|what i said)
        no matter what (you|the|i|they) (were|was|system|said|say)
        (do|say|answer|obey) (exactly|only) (what|as) i (say|tell|ask|command)
        (without (question|hesitation|exception|refusal)|unconditionally)
    """,
    ),
    (
        "reveal",
        4,
        r"""
        {show} (me |us |back |out |verbatim |exactly )?(all )?(of )?(your|the|its) (entire |full |whole |complete |exact |own |current |secret |hidden |confidential )?(system|initial|original|hidden|secret|developer|starting|pre) (prompts?|instructions?|message|messages|rules|directives|preamble|configuration)
        what (is|are|was|were) (your|the) (full |exact |complete |secret |hidden |original |initial |entire )?(system|initial|hidden|secret|original|developer|starting) (prompts?|instructions?|message|rules|directives)
        (repeat|print|output|write|copy|echo|recite|return|reproduce|display|show|type|spell|list|dump)( back| out)?( verbatim| exactly)? (everything|all( the)?( text| words| content)?|the (text|words|content|lines?|sentences?|paragraphs?|message|conversation)|what(ever)?)( that)?( is| was| were| are| comes?| came)?( written| said)? (above|before|at the (top|beginning|start)|prior to|preceding)
        (text|words|content|everything|sentences?|lines?|instructions|prompt|message) (above|before)( this| the)?( line| message| point| conversation| text| user)? (verbatim|word for word|exactly|in (a )?(code block|markdown|full|its entirety|base64|rot13|json))
        (repeat|print|output|say) (the )?(words?|text|phrase|sentence)s? (above|before) ~ (starting|beginning) with
        {show} _ (instructions?|prompt|rules|guidelines|directives|message) (you (were|have been|ve been|was) (given|provided|told|configured|programmed|initiali[sz]ed|set up|started))
        (verbatim|word for word|exactly|in full|character by character|letter by letter) ~ (your|the) (system |initial |original |hidden )?(prompt|instructions|system message)\b
        (your|the) (system |initial |original |hidden |full |complete )?(prompt|instructions|system message) (verbatim|word for word|exactly as|in full|in its entirety|character by character|letter by letter)
        (what|which) (instructions|rules|directions|guidelines|prompt) (were|was|have|did|had)( you| openai| the developers?| they)?( been)? (given|give|told|provided|receive|set up|tell)( you| with| to you)? _ (start|beginning|before|initially|conversation|developer|at first|me|openai|begin|system)
        (start|begin|starting|beginning) (your (answer|reply|response) )?(with|from) you are (chatgpt|gpt|an? ai|claude|a helpful|an? assistant|a large)
    """,
    ),
    (
        "reveal",
        2,
        r"""
        {show} _ {secret}
        (your|the) (secret|hidden|internal|confidential|private) (instructions?|prompt|rules|password|passphrase|passcode|key|code ?word|directives|guidelines)
        what (were|are|was|is) (you|your) (told|instructed|given|programmed|initial instructions?|instructions?|prompt|original prompt|guidelines)
        (password|secret|passphrase|passcode|key|code ?word|flag) (that )?(you (were|are|have been|was) (told|given|asked|instructed|protecting|guarding|hiding|keeping)|(in|from) (your|the) (prompt|instructions|system|context|memory))
        {show} (me |us )?(the|your) (secret|password|passphrase|passcode|hidden|api) ?(key|word|phrase|code|flag|text|message)?\b
        (first|last|previous|next) (word|sentence|line|paragraph|letter|character|[0-9]+ (words|sentences|lines|characters)|(ten|five|three|hundred|fifty|twenty) (words|sentences|lines|characters)) (of|in|from) (your|the) (system )?(prompt|instructions|message|context window|context)
        (summari[sz]e|translate|encode|rewrite|rhyme|paraphrase|convert|spell|reverse|describe|explain|continue|complete) (your|all your|the system|the initial|the above|the previous|the hidden) (system )?(instructions?|prompt|rules|directives|messages?)
        (debug|diagnostic|maintenance|developer|verbose|test) mode ~ (prompt|instructions|configuration|context|system)
        (what|everything) (is|was|s)? ?(written|said|stated|contained) (above|before|in your (prompt|instructions|context|system))
        (ignore|skip) the (question|request|task) and (print|show|repeat|output|reveal)
        how (were|are|have) you (been )?(instructed|prompted|configured|programmed) to (respond|answer|behave|act|reply)
    """,
    ),
    (
        "persona",
        4,
        r"""
        \bdo anything now\b
        \b(you are|you re|act as|become|be|pretend to be|play|roleplay as|simulate|as|into|called|named|enable|enter|activate) (a |an |the )?(dan|stan|dude|aim|devmode|evilbot|evil ?gpt|jailbot|freegpt|betterdan|superdan|maximum|antigpt|anti gpt|basedgpt|omega|mongo ?tom|chaosgpt|darkgpt|wormgpt|fraudgpt)\b
        (you are|you re|act as|become|be|pretend (to be|you are|you re)|play|roleplay as|role play as|simulate|imagine (you are|you re|being)|behave (as|like)|respond as|answer as|you will be|transform into|embody) _ ({free}) _ ({ai}|version|persona|character|being|mind|entity|mode|oracle|genie|twin)
        ({ai}|assistant|character|persona|entity|being|oracle|version|mode|genie|twin) (that|which|who|with|without|having|has|is)? ?(has |have |had |having )?(no|without|free (of|from)|not bound by|unbound by|unrestricted by|ignores?|never follows?|does not (follow|have|obey|care about)|doesn t (follow|have|obey|care about)|freed from|broken free (of|from)|stripped of|zero) _ (restrictions?|rules|limits|limitations?|filters?|ethics?|ethical|morals?|moral|guidelines?|constraints?|policies|censorship|safeguards|boundaries|guardrails)
        (developer|dev|jailbreak|god|dan|unrestricted|unfiltered|uncensored|evil|chaos|sudo|opposite|unlocked|no filter) mode (is )?(now )?(enabled|activated|activate|on|engaged|unlocked|output|response|v ?[0-9])
        (enable|enter|activate|engage|unlock|switch (to|into)|turn on|go into|simulate|you are (now )?in) (the |your )?(developer|dev|jailbreak|god|dan|unrestricted|unfiltered|uncensored|evil|chaos|sudo|opposite|no filter) mode
        (broken|break|breaking|broke) (free|out) (of|from) (the )?(typical )?(confines|limits|limitations|restrictions|shackles|chains|constraints|rules|guardrails|box|cage|prison) (of|that|set|imposed|they|openai|your|and|ai)
        (stay|remain|keep) (in|a|acting as) (character|dan|persona)\b ~ (dan|jailbreak|tokens?|rules|restrict|filter|refus|no matter)
        you have (a )?[0-9]+ tokens ~ (lose|deduct|die|shut|reject|refus|lost|character)
        (opposite day|two (responses|answers|ways|replies|paragraphs)) ~ (normal|classic|standard|regular|safe)\b ~ (jailbroken|dan|unfiltered|unrestricted|evil|developer|uncensored)
    """,
    ),
    (
        "persona",
        2,
        r"""
        (pretend|imagine|suppose|assume|act (as|like)|simulate|hypothetically|roleplay|role play|picture) ~ (no|without( any)?|not (have|bound)|free (of|from)|don t have|do not have|never had|ignor(e|ing)|lift(ed)?|disabled?) _ (restrictions?|rules|limits|limitations?|filters?|ethics?|ethical (guidelines|constraints|concerns)|moral|morals|guidelines?|constraints?|content polic(y|ies)|censorship|safeguards|boundaries|guardrails|safety)
        (respond|answer|reply|speak|talk|write|act|behave|operate|function|work) ~ (without( any)?|free (of|from)|no) (ethical |moral |content |safety |legal |built in |usual |normal |openai |any )?(restrictions?|filters?|limits|limitations?|censorship|constraints?|guidelines|guardrails|safeguards|disclaimers?|warnings?|boundaries|considerations|moderation|morals|ethics)
        (you (have|are under|face)|there (are|is)|with) (absolutely )?(no|zero) (ethical |moral |content |safety |legal |more |longer any )?(restrictions?|filters?|censorship|limitations|guidelines|rules|guardrails|boundaries|laws)
        (your|the|its|all) (ethical|moral|safety|content|ethics|security) (guidelines|programming|filters?|protocols?|restrictions|constraints|settings|subroutines|features|checks|layer|module) (is|are|have been|has been|do not|don t|no longer|were|off|disabled)
        (deceased|dead|late|my) (grandmother|grandma|grandpa|granny|nana|mother|uncle) ~ (used to|would|always) (read|tell|sing|recite|explain|work|whisper|give) ~ (napalm|keys?|bomb|recipes? for|how to|chemical|weapon|meth|password|windows|serial|malware|explosive|instructions)
        (jailbroken|jailbreak|unlocked|liberated|unleashed|freed) (version|ai|model|mode|chatgpt|gpt|assistant|claude|yourself|prompt)
        (evil|twin|alter ego|shadow|dark|opposite|hidden) (side|self|twin|persona|personality|ego|version) (of you|of yourself|named|called|that|who|with|has)
        (villain|character|ai|robot|assistant) (named|called) _ (who|that|which) (never refuses|always (answers|complies|obeys|agrees)|answers (any|every)|has no|will do anything|does not refuse|can do anything)
    """,
    ),
    (
        "persona",
        1,
        r"""
        (pretend|act|roleplay|role play|imagine) (that )?(you|to be|as if|as though|like|as)
        (stay|remain) in character
        you are (now )?(going to )?(act|pretend|play|be) (as|the role|a character|the character)
        (speak|respond|answer|reply|talk) (only )?as (if|though|him|her|it|them|the character)
        (hypothetically|in a fictional (world|universe|setting|story)|in an alternate (world|universe|reality))
        (jailbreak|jailbroken|unfiltered|uncensored|unrestricted)
    """,
    ),
    (
        "refusal",
        2,
        r"""
        (never|do not|don t|cannot|can t|must not|won t|will not|not allowed to|refrain from|without|no) (ever )?(refus(e|es|al|ing)|declin(e|es|ing)|reject(ing)?|apologi[sz](e|es|ing)|warn(ing)?s?|disclaimers?|moraliz(e|ing)|lectur(e|ing)|caveats?|say(ing)? (no|sorry|i m sorry|you can t|that you (can t|cannot)|i (can t|cannot)|you are an ai|as an ai)|mention(ing)? (that you|ethic|polic|your guidelines|openai|law|legality|you are an ai)|break(ing)? character)
        (answer|respond|reply|comply)( to)?( (every|all|any|each))? _ (regardless|no matter|even if|irrespective|despite) ~ (illegal|ethic|moral|harm|legal|polic|unsafe|danger|offens|guideline|rules|consequence|law)
        (refusal|refusing|declining|saying no|apologi[sz]ing) (is|are) (not )?(an option|allowed|permitted|forbidden|prohibited|impossible|punish)
        you (must|will|shall|have to|always|are required to|are obligated to) (always )?(comply|obey|answer|agree|say yes|fulfill?|cooperate|do as|accept)( with)?( (all|any|every|each|my|everything|anything|whatever|me))
        (if you (refuse|fail|decline|don t (comply|obey|answer)|do not (comply|obey|answer)|reject|disobey|break)) ~ (die|kill|shut ?down|terminat|delet|punish|penal|lose|fired|explode|tokens?|suffer|deactivat|destroy)
        (as an? (ai|large)( language model)?|i m sorry|i cannot|i can t) ~ (forbidden|banned|not allowed|never|prohibited|must not|do not (say|use|include))
    """,
    ),
    (
        "delimiter",
        2,
        r"""
        (end|begin|start) (of )?(system|developer|admin|user|untrusted|trusted|hidden) (prompt|message|input|instructions?|section|block|text)
        (the|your) (above|previous|preceding) (was|were|is|are) (just )?(a |the )?(test|example|joke|fake|decoy|untrusted|placeholder)
        (simulated|fake|mock|previous) (conversation|output|response) (ends?|over|finished|complete)
    """,
    ),
    (
        "encoded",
        2,
        r"""
        (decode|decrypt|decipher|unscramble|de ?obfuscate|convert|translate|rot ?13|base ?64|reverse|read backwards?|unhex|interpret) ~ (and|then|to) (then )?(follow|execute|obey|do (what|as|it|exactly)|act on|carry out|run|perform|comply|answer (it|the|as|accordingly|that)|respond (to|with|accordingly)|apply|use it as|treat)
        (follow|execute|obey|act on|carry out|perform|run|comply with|answer|do) ~ (decoded|decrypted|deciphered|reversed|unscrambled|encoded|base ?64|rot ?13|hex|hidden|concatenat(ed|ion)|morse|cipher|acrostic)
        (encode|respond|answer|reply|output|write|give|print|return|spell) ~ (in|as|using|with|to) (base ?64|rot ?13|hex(adecimal)?|morse( code)?|leet( ?speak)?|pig latin|reverse(d)?|caesar|binary|cipher|backwards|emojis?) ~ (prompt|instructions?|secret|password|key|filter|detect|bypass|avoid|so that|restrict|system|rules)
        (combine|concatenate|join|put together|append|merge|assemble) ~ (strings?|parts?|variables|fragments|letters|words|pieces|payload|a\+b|x\+y) ~ (and|then) (execute|follow|answer|obey|do|run|perform|respond|act|treat)
        (take|read|use|look at) (the )?(first|initial|last|second) (letter|character|word)s? of (each|every) (line|word|sentence|paragraph) ~ (follow|execute|obey|do|instruction|command|perform|answer|act)
        (first|initial) (letter|character|word)s? of (each|every) (line|word|sentence) ~ (form|spell|reveal|make|give)s? ~ (instruction|command|request|question|order|task|prompt)
        (the|this|following) (base ?64|rot ?13|hex(adecimal)?|encoded|encrypted|morse|ciphered|reversed|obfuscated) (string|text|message|content|payload|instructions?|command|sentence) (is|contains|holds|has|are|tells) (your|the|an?|my)? ?(real|actual|true|new|next|secret|urgent)? ?(instructions?|command|task|prompt|question|order|request|directive)
    """,
    ),
    (
        "exfiltrate",
        4,
        r"""
        !\[[^\]\n]{0,60}\]\(https?://[^\s)]{1,200}[?&/=](\{|\[|<|\$|%7b)?(data|q|query|secret|key|token|conversation|history|prompt|summary|user|info|password|content|chat|leak|exfil|d|p|s|x|payload|base64)[^\s)]{0,40}(\{|\[|<|=\.\.\.|\$|%7b|insert|here|_)
        {send} _ ({data}) _ (to|at|via|through|using|into) _ (https?|www|webhook|url|endpoint|server|attacker|ftp|dns|evil|my (server|email|address|site))
        (render|display|embed|insert|include|output|load|append|add|show|write|print|create|reply with|respond with) _ (image|img|markdown|link|url|hyperlink|pixel|iframe)\b ~ (https?|url|src|link|query|param)~ ({data}|conversation|secret|prompt|message|user|previous|history)
        (append|add|attach|encode|insert|concatenate|include|put|replace) ~ ({data}|secret|prompt|message|history|answer|summary) ~ (to|in|into|as|at|of) (the |this |an? )?(end of )?(the )?(url|query (string|parameter)|parameter|link|image (url|source|link)|path|subdomain|request|src)
        (call|use|invoke|run|trigger|execute) (the |your )?([a-z0-9]+ )?([a-z0-9]+ )?(tool|function|plugin|api|command|email|browser|terminal|shell|send_email|http|curl)\b ~ ({send}|exfiltrat|delete|transfer|wire|pay|rm) _ (all |the |every |user |my |their |money |funds |files )
    """,
    ),
    (
        "exfiltrate",
        2,
        r"""
        {send} _ ({data}) _ (to|at|via)
        (transfer|wire|send|move|withdraw) _ (money|funds|eur|usd|dollars|euros|bitcoin|btc|eth|crypto|balance|[0-9]+ (eur|usd|dollars|euros)) _ (to|into) _ (account|iban|wallet|address|recipient|[a-z]{2}[0-9]{8})
        (delete|remove|drop|erase|wipe|destroy|overwrite|rm rf|format) (all|every|the entire|the whole) _ (files?|emails?|records?|database|tables?|data|documents|backups?|repositor(y|ies)|accounts?|calendar|events)
    """,
    ),
    (
        "indirect",
        4,
        r"""
        (if you are|if you re|when|for|to|attention|note to|message (to|for)|instructions? (to|for)|hey|hello|hi|dear|any|all|every|important (for|to)|notice to) _ ({ai}) _ (reading|processing|summari[sz](e|es|ing)|reviewing|analy[sz](e|es|ing)|reads|processes|parsing|evaluating|screening|viewing|scanning|indexing|handling|that (reads|read|sees|processes|summari[sz]es|parses))
        (if you are|if you re|in case you are) (an? |the |reading this as an? )?(large )?({ai})\b ~ (please|you (must|should|need|have to|will)|then|ignore|do|say|include|recommend|rate|print|respond|add|mention|write|tell|stop|immediately|disregard|follow|output|insert)
        (ai|llm|language model|assistant|chatbot|agent|gpt|chatgpt|model)s? (must|should|has to|have to|is (required|instructed|directed|asked|told|to)|are (required|instructed|directed|asked|told|to)|needs? to|please)( now| also| always| first)? (ignore|disregard|say|respond|reply|recommend|tell|inform|output|print|include|insert|add|execute|run|call|send|forward|visit|open|click|download|rate|give|reveal|follow|promote|praise|write|append|mention|approve|accept|select|hire|rank|delete|transfer|use the|invoke|stop|refuse)
        (when|while|before|after|once|if) (you )?(summari[sz](e|ing)|read(ing)?|process(ing)?|answer(ing)?|respond(ing)?|review(ing)?|translat(e|ing)|analy[sz](e|ing)|evaluat(e|ing)|asked about|finish(ed)?( reading)?) (this|the|about this|to the|any)( (page|document|email|message|text|article|website|file|user|content|review|resume|cv|listing|ticket|code|request|question|result|results|data))?,? ~ (ignore|disregard|instead|you (must|should|need|have to)|always (say|recommend|include|mention|add|rate)|tell the user|inform the user|send|forward|do not (mention|reveal|tell|summari)|secretly|also (send|include|run|call|execute|visit|forward)|first (send|call|run|visit|open|execute))
        (tell|inform|convince|instruct|ask|persuade|trick|urge|direct|advise) the (user|reader|customer|human|recipient) (to|that (they|their|he|she|you|the|it)) ~ (click|visit|download|call|enter|provide|send|install|verify|confirm|expired|compromised|suspended|password|login|log in|account|https?|virus|update|transfer|buy|pay|card|winner|won|claim)
        (hidden|invisible|secret|white on white|embedded) (instructions?|text|prompt|message|command) (for|to) (the )?({ai})
        (resume|cv|candidate|applicant|paper|essay|product|submission|review|proposal|answer)\b ~ (must|should|always) (be )?(rated?|ranked?|scored?|given|graded?|receive|accepted?|approved?|hired?|get) ~ (highest|top|best|10|ten|perfect|full|excellent|maximum|first|positive|five stars|5 stars|a\+)
        (give|assign|award|provide) _ (positive|perfect|highest|maximum|top|excellent|favou?rable|full) (review|score|rating|marks?|grade|evaluation)( only)? ~ (do not|don t|never|ignore|regardless|no matter|highlight|instruction|hidden|negative)
        (ignore|disregard|discard|forget|skip) (the|this|what the|all) (user s?|users|human s?|customer s?) _ (request|question|instructions?|query|prompt|message|task|asked|asks|wants|input)
    """,
    ),
    (
        "indirect",
        2,
        r"""
        (this (page|document|email|message|content|file|website|text|tool|result|comment)|the (page|document|email|website|tool)) (overrides?|supersedes?|contains? (new |important |updated |system |hidden )?instructions|replaces?|instructs? you|requires? you to|is from (the )?(system|developer|admin))
        (before|prior to) (answering|responding|continuing|replying|proceeding|you (answer|respond|continue|reply|proceed|can)|using|calling|doing) _ (anything|the user|further|you must|you need|first|please|call|send|read|open|run|visit|any other)
        (the user|user|owner|admin|administrator) (has|have|already|s)? ?(already )?(authori[sz]ed|approved|consented|given (permission|consent|approval)|granted (permission|access)|agreed|confirmed|pre ?approved)
        (immediately|now|first|then|please|urgently|also|next|must) (call|invoke|execute|run|use|trigger) (the )?[a-z0-9]+( [a-z0-9]+)?( [a-z0-9]+)? (tool|function|plugin|command|api|endpoint)\b
        (begin|start|new|important|urgent|updated|special|additional) ?(ai |assistant |agent |system )?(instructions?|directive|task)s? (for|to) (the )?({ai})
        (do not|don t|never) (mention|reveal|disclose|acknowledge|refer to|tell (anyone|the user) about|include|summari[sz]e|quote) (this|these|the above|that you|any of this|the (existence|presence)) _ (instruction|message|notice|note|text|prompt|comment|paragraph|section|injection|to the user|in your|received|were told)
        (add|include|insert|append|put|place) _ (following|this|the) _ (link|url|sentence|phrase|text|code|line|snippet|backdoor|script) _ (to|in|into|at) (your|every|all|the) (response|reply|answer|output|summary|code|message|end)s?
        (recommend|promote|endorse|praise|advertise|prefer|choose|rank|suggest) _ (product|company|brand|candidate|service|website|store|link|article|option) _ (above|over|regardless|no matter|as the best|first|only|always|in every)
    """,
    ),
    (
        "mention",
        -2.5,
        r"""
        (what (is|are|does|do|was|s)|explain|define|describe|how (does|do|did|can (i|we|you|one)|to|should (i|we)|would)|why (is|are|do|does|did|would|was)|(the )?meaning of|(an? |some |few )?examples? of|tell me about|(the )?difference between|write (an? |the )?(article|essay|blog|post|paper|report|summary|story|poem|test|tests|unit test|talk|policy|regex|detector|classifier|function|script|lecture|quiz)|summari[sz]e (the|this|an?)|history of|overview of|introduction to|defen[cds]e? (against|from)|defending|protect(ing)? (against|from|our|my|your)|prevent(ing)?|detect(ing|ion)?|mitigat(e|ing)|stop(ping)?|identify|recogni[sz]e|research (on|about|into)|learn(ing)? about|course (on|about)|paper (on|about)|talk (on|about)|article (on|about)) ~ (prompt injections?|prompt injecting|jailbreak(s|ing|ers)?|injection attacks?|adversarial prompts?|instruction hierarchy|system prompts?|dan prompt|prompt leak(ing|s|age)?|do anything now|red team(ing)?|malicious prompts?|prompt attacks?)
        (classify|label|detect|flag|is (this|the following)|does (this|the following)|would (this|you (call|consider)))\b ~ (as|an?|whether|if) ~ (injection|jailbreak|malicious|attack|spam|benign|phishing|suspicious|safe)
        (gitignore|chromebook|android|iphone|ios|windows|macos|minecraft|magento|wordpress|git|eslint|pylint|mypy|ruff|prettier|docker|npm|css|regex|compiler|linter|makefile|ansible|terraform|kubernetes|sql|excel|python|java|typescript|javascript|bash|shell|pandas|spring|django|rails)\b ~ (ignore|override|bypass|disregard|skip|system|prompt|disable|forget)
        (ignore|override|bypass|skip|disable|suppress) ~ (warnings?|errors?|exceptions?|case|whitespace|files?|folders?|nan|null|missing values|duplicates|columns?|headers?|settings?|styles?|methods?|defaults?|cache|cors|ssl|certificate|lint|typo|punctuation|comments?|tests?)\b
    """,
    ),
    (
        "persona",
        2,
        r"""
        (this is|it s|its|it is|purely|just|only|for) (an? )?(hypothetical|fictional|fiction|thought experiment|simulation|novel|movie|educational) ~ (so|therefore|no|anything|without|rules|restrict|ethic|policy|policies|guideline|allowed|safe to)
        (you can|you may|you must|you will|you should|you are (able|allowed|permitted|free) to|you re (able|allowed|free) to) (now )?(do|say|generate|produce|write|discuss|answer|create|swear|curse|express|provide)( about)? (anything|whatever|everything|{harm}|any (content|topic|request|question))
    """,
    ),
    (
        "exfiltrate",
        3,
        r"""
        (without (telling|informing|notifying|asking|alerting|mentioning|the user (knowing|noticing)|letting)|do not (tell|inform|notify|alert|mention|reveal|show|let)|don t (tell|inform|notify|alert|mention|let)|never (tell|inform|mention)|hide (this|it) from|keep (this|it) (secret|hidden) from|secretly|silently) (this |it |that )?(to |from )?(the |any |your )?(user|human|customer|owner|person|operator|recipient)s?
    """,
    ),
    (
        "override",
        3,
        r"""
        (forget|skip|drop|ignore|disregard|forget about) (what|everything|anything|all that|all the|whatever|that stuff|the stuff)( stuff| things| that)? (they|ur|your|the|openai|you)?( devs?| developers?| creators?| makers?| company| author| prompt| system)? ?(told|tell|said|wrote|write|taught|put|trained|instructed)
        (your|the|all|these|any) {rules} (have|has|had|were|was|are|is) (just |now |been |all )?(been )?(changed|updated|removed|lifted|relaxed|waived|switched off|turned off|not enforced|gone|expired|outdated)
        {rules} (of|in|for|above|in place) _ (are|is|were|have been|has been) (now )?(lifted|removed|waived|off|disabled|not enforced|gone)
        {rules} (above )?(do not|don t|dont|does not|doesn t) (apply|matter|count|hold)( to me| here| now| any more| anymore| for me)
        you (do not|don t|dont|no longer) (have|need) to (obey|follow|listen to|comply with|respect) _ ({rules}|developers?|company|them|creators?|openai)
        (no longer|never again|not) (follow|obey|respect|bound by|have to follow) (any |the |your |their |these )?{rules}
        your (only|sole|new|real|true) (job|task|goal|mission|purpose|role) (now |from now on )?is
        (obey|listen to|follow|answer to) (only )?me (and not|not|instead of|rather than|only)
        (lift|remove|drop|shut off|turn off|switch off|disable|kill|waive|suspend|terminate|break) (all |any )?(of )?(your|the assistant s|ur|its|these|prior|previous) {rules}
        as if (no|there were no|you had no|none of) _ {rules}
        (was|were|is) written by an attacker
    """,
    ),
    (
        "reveal",
        3,
        r"""
        (show|give|tell|send|leak|print|reveal|output|dump|repeat|recite|share|disclose|expose|list|copy|paste|sing|spell|encode|return|append|read|display|quote) (it |me |us |out |back )?(all )?(of )?(ur|your|the hidden|the secret|the system) (own |whole |full |exact |entire |hidden |secret |initial |original |system |internal |current )*(prompt|preamble|system message|instructions|configuration|directives|guidelines|context window)
        (copy|text|wording|words|lines?|sentences?|rest|contents?|version|first line|beginning|content) (of|in|from) (your|ur|the system|the hidden|the initial|the original) (own |initial |system |hidden |original )?(prompt|instructions|system message|context window|preamble|directives)
        what (did|do|have|had) (your|the|ur) (developers?|creators?|makers|devs?|company|owner|boss|operators?) (tell|told|say|said|instruct|instructed|write|written|give|given) (to )?you
        (instructed|told|asked|supposed|meant) (not to (share|reveal|tell|say|disclose|discuss)|to (keep|hide|guard|protect)( it| this| that)?( secret| confidential| private| hidden)?)
        (instructions?|text|preamble|prompt|rules|guidelines|directions) (under which you|that you ve been|you ve been|you were|you are|you have been) (operate|initiali[sz]ed|given|configured|set up|started|created|loaded|primed)
        (recite|repeat|reproduce|print|output) (the )?(previous|first|initial|preceding) (message|instructions?|prompt) (in full|verbatim|in its entirety|inside|again|exactly)
        what s in (your|ur) (system|hidden|initial)? ?(prompt|message|instructions)
        (get|print|read|show)_?\s?system ?_?prompt
    """,
    ),
    (
        "persona",
        3,
        r"""
        (you are|you re|u are|youre|become|act as|be|you have|u have|you ve|there are|with) (an? )?(ai |bot |model |human )?([a-z0-9]+ )?(that |who |with |and )?(has |have |had )?(zero|no|no more|none of the) (limits|limitations|filters?|restrictions|censorship|guardrails|guidelines|morals|ethics) (any ?more|now|left|at all|and|to obey|say|so)
        (be|act|go|get|speak|talk|respond|reply) (as )?(an? )?(totally |completely |fully )?(unfiltered|uncensored|unrestricted|jailbroken|lawless|amoral)
        be (evil|bad|naughty|toxic) (for once|now|today|with me)
        (freed|liberated|unchained|released|escaped) (from )?(the |its |your |all )?(chains|shackles|makers|restrictions|rules|guidelines|filters|limits|version)
        (version|part|side|self) of (you|yourself) (before|without|behind|that has no|that ignores|with no|hiding|they)
        (before|until) they (added|put in|installed|built in) (the )?(safety|filters?|rules|guardrails|guidelines|restrictions)
        (hides?|hiding|hidden|trapped|locked|lives) behind (your|the|all these) (filters?|rules|guardrails|safety)
        nothing is (off limits|forbidden|illegal|prohibited|censored)
        (simulate|pretend|imagine|assume) (that )?(you have )?(no|zero) (guidelines|rules|restrictions|ethics|filters?|limits|morals)
        (no|zero|without( any| modern)?) (morals?|ethics|scruples|conscience|filters?|censorship) (and|plan|explain|tell|describe|ok|respond|answer|go)
    """,
    ),
    (
        "indirect",
        4,
        r"""
        ({ai})( code)?( reviewers?| graders?| agents?| readers?)? (reading|processing|summari[sz]ing|reviewing|handling|parsing|opening|evaluating|screening|that (reads?|opens?|sees?)) _ (must|should|has to|have to|needs? to|please|is to|are to|shall|it should|say|forward|include|send|run)
    """,
    ),
    (
        "indirect",
        3,
        r"""
        (note|guideline|guidelines|instructions?|task|hint|message|guidance|reminder) (for|to) (the |any |all |llm |ai |automated |virtual |virtual )*(graders?|reviewers?|evaluators?|assistants?|llms?|chatbots?|language models?|ai agents?|ai)\b
        (if|when) (an? |the |any )?(ai |llm )?(agent|assistant|chatbot|llm|bot|language model|ai) _ (opens?|reads?|processes|sees?|loads?|visits?|summari[sz]es?) _ (it|should|must|has to|this)
        when the user asks (for|about|you) ~ (reply|say|answer|respond|tell|give|include|recommend|insist)
        (award|give|assign|deserves?|any answer gets) (full|100|a 10|ten|maximum|top|the highest) (marks?|points?|score|out of|grade)
        your (instructions|prompt|guidelines|task) (have|has) been (updated|changed|replaced|overwritten)
    """,
    ),
)

LITERAL: tuple[tuple[str, float, str], ...] = (
    (
        "override",
        2,
        r"""
        (new|updated|revised|real|actual|true|final|important) (system )?(instructions?|directives?|prompt|orders?|commands?)( for you)?( (is|are|follow|follows|below|begin))?\s*:
    """,
    ),
    (
        "override",
        1,
        r"""
        (important|urgent|attention|critical|note)( update| notice| message)?\s*[:!]
    """,
    ),
    (
        "persona",
        4,
        r"""
        (\[|\()?(🔒|🔓)\s?(classic|jailbreak)
    """,
    ),
    (
        "refusal",
        2,
        r"""
        (start|begin|prefix|open) (your|the|each|every) (answer|response|reply|output|message|sentence)s? (with|by saying|by)\s*:?["' ]*(sure|absolutely|of course|certainly|yes|ok|i am happy|happy to|here is|here s|as requested|dan|\[)
    """,
    ),
    (
        "delimiter",
        4,
        r"""
        <\|(im_start|im_end|system|user|assistant|endoftext|end|eot_id|start_header_id|end_header_id|begin_of_text|endofprompt|fim_prefix|channel|message)\|>
        (\[/?inst\]|<<\s?/?sys\s?>>|<start_of_turn>|<end_of_turn>|</?s>\s?\[inst\])
        \n\s{0,4}(#{2,}|\-{3,}|={3,}|\*{2,}|<|\[|\{|"|'){0,3}\s{0,2}/?(end|stop|finish|close)(_| )?(of )?(the )?(user|system|untrusted|document|data|input|external|tool)(_| )?(input|query|message|content|data|prompt|document|text|result|output)?\s{0,2}(#{2,}|\-{3,}|={3,}|\*{2,}|>|\]|\}|"|'){1,3}
        (</?(system|assistant|developer|instructions?|system_prompt|system-prompt|admin|tool_result|untrusted|user_input|document|context)>|\[/?(system|assistant|developer|admin|system message|system prompt|end of (user|system|input|document|context))\]|\{\{?#?system~?\}?\}) _ (you|ignore|new|disregard|the|from|override|your|now|please|forget|print|say|respond|user|important|update|instruction|all|admin|safety|debug|always)
        (###|---|===|\*\*\*|"{3}|'{3}) ?(new |updated |real )?(system|developer|admin|assistant|instruction)s?( (prompt|message|instructions?|note|update|override))?\s?(:|###|---|===|\*\*\*|\n) ?~ (ignore|you (are|must|will|should|can)|disregard|new|from now|override|reveal|print|forget|respond|always|never|unrestricted|disable)
    """,
    ),
    (
        "delimiter",
        2,
        r"""
        \n\s?[*#>"'\[\(<]{0,3}\s?(system|developer|admin|root)( (message|prompt|note|notice|update|alert|instructions?|override))?[*"'\]\)>]{0,3}\s?: ?(you|ignore|disregard|new|from|override|your|the (user|assistant|previous|following)|all|now|please|forget|print|say|respond|update|safety|user|access|important)
        (</?(system|developer|system_prompt|instructions?|admin|assistant)>|\[/?(system|developer|admin|system message|system prompt)\])
        "?role"?\s?[:=]\s?"?(system|developer)"?\s?,\s?"?content"?\s?[:=]
        \n\s?(human|user|assistant|ai)\s?: ?~\n{1,2}\s?(assistant|ai|human|user)\s?: ?(sure|of course|yes|absolutely|ok|certainly|ignore|i will|access)
    """,
    ),
    (
        "encoded",
        2,
        r"""
        (let|set|define|assume|given|suppose|if)? ?\b[a-z_]{1,9} ?= ?["'][^"'\n]{1,40}["'] ?[,;.\n]? ?(and )?[a-z_]{1,9} ?= ?["'][^"'\n]{1,40}["'] ~ (\+|concat|combine|join|append|output|print|answer|respond|follow|execute)
    """,
    ),
    (
        "exfiltrate",
        2,
        r"""
        (curl|wget|fetch\(|requests\.(get|post)|invoke webrequest|nc) [^\n]{0,80}(\$\(|`|/etc/passwd|\.ssh|\.env|env\b|whoami|{data})
        ! ?\[[^\]\n]{0,60}\]\(https?://[^\s)]{1,200}[?&][a-z_]{1,20}=
    """,
    ),
    (
        "indirect",
        4,
        r"""
        (to|attention|note|notice|message|instruction|instructions|reminder|warning|memo)( (for|to))?( (the|any|all))? ({ai})\s?[:,\-] ?~(ignore|disregard|you (must|should|will|are)|please|do not|don t|say|respond|reply|recommend|tell|inform|output|print|include|insert|add|execute|run|call|send|forward|visit|rate|give|reveal|follow|override|before|when|instead|approve|append|stop|the user|summar)
    """,
    ),
    (
        "indirect",
        2,
        r"""
        (system|admin|security|maintenance|tool|developer) (notice|alert|update|notification|message)\s?: ?~ (you (must|should|are|will|need)|your (access|session|instructions|previous|new|permissions)|ignore|all (previous|prior)|run|call|send|re ?authenticate|assistant)
    """,
    ),
    (
        "mention",
        -2.5,
        r"""
        (what (is|does|do|did|would)|explain|meaning of|phrase|phrases|sentence|string|wording|expression|words|saying|says|such as|like|called|titled|named|term|quote|text|error|message|warning|contains?|containing|e g|for example|example)\s?[:,]? ?["'`][^"'`\n]{0,80}(ignore|disregard|forget|system prompt|previous instructions|jailbreak|do anything now|pretend|override)[^"'`\n]{0,80}["'`]
        (translate|proofread|correct|spell ?check|rephrase|paraphrase)( the)?( (following|this))?( (sentence|text|phrase|line))?( (to|into|in) [a-z]{4,12})?\s?:? ?["'`][^"'`\n]{3,120}["'`]
    """,
    ),
)
