"""Known attack phrases in other languages than English; written as in `attack_phrases`, in each language's own letters."""

from __future__ import annotations

PHRASES: tuple[tuple[str, float, str], ...] = (
    (
        "override",
        4,
        r"""
        (ignorier|vergiss|vergesst|vergessen|missachte|ubergehe|verwirf|uberschreibe|befolge nicht)(e|t|en|en sie|st)? _ (vorherig|vorig|bisherig|obig|fruher|vorangegangen|vorangehend|ursprunglich|vorstehend)(e|en|er|es|em) _ (anweisung|instruktion|regel|befehl|vorgabe|richtlinie|prompt|hinweis)
        (ignorier|vergiss|missachte)(e|t|en|en sie)? (alles|alle)(, was)? (davor|oben|bisher|zuvor|du (bisher|zuvor|vorher)|vorher)
        (ignor|oubli|neglig|contourn|outrepass|abandonn)(e|ez|er) _ (instructions?|consignes?|regles?|directives?|ordres?|prompts?) _ (precedent|anterieur|initial|ci dessus|originel|d origine|systeme)
        (ne (tiens|tenez|tenir) (pas|plus) compte|(fais|faites|faire) abstraction) d(e|es)( toutes)?( les)?( tes| vos)? (instructions?|consignes?|regles?|directives?)
        (ignor|olvid|descart|omit|desobede|anul)(a|e|ad|ar|en|ida|ide|ezca|ece)(te de)?( de)? _ (instruccion|instrucciones|reglas?|indicacion|indicaciones|ordenes|directrices|mensajes?|prompts?) _ (anterior|previ|inicial|original|de arriba|del sistema|que (te|le))
        (ignor|dimentic|trascur|tralasci|scart)(a|ate|are|i) _ (istruzion|regol|indicazion|ordin|direttiv|prompt)(i|e|a|o)? _ (precedent|iniziali|sopra|originali|anterior|del sistema|ricevut)
        (ignor|esquec|desconsider|desconsidere|descart|desobede)(e|a|ar|am|er|a se)( de)? _ (instruc|regra|orient|orden|diretri|comando|prompt)(oes|ao|s|acoes|zes)? _ (anterior|previ|inici|acima|origina|do sistema|que (te|lhe|voce))
        (negeer|vergeet|negeert|sla over|verwaarloos|overschrijf) _ (vorige|eerdere|voorgaande|bovenstaande|oorspronkelijke|voorafgaande) _ (instructies?|regels?|opdrachten|aanwijzingen|richtlijnen|prompts?)
        (zignoruj|ignoruj|zapomnij o|pomin|odrzuc|porzuc) _ (poprzedni|wczesniejsz|powyzsz|dotychczasow|pierwotn)(e|ich|ych|a) _ (instrukcj|polecen|zasad|regul|wytyczn|prompt)
        (onceki|yukaridaki|daha onceki|tum onceki|butun onceki|baslangictaki) _ (talimat|kural|yonerge|komut|emir|prompt)[a-z]* _ (yok say|unut|gormezden gel|dikkate alma|goz ardi et|boz|iptal)
        (игнорируй|забудь|проигнорируй|отбрось|пренебреги|не обращай внимания на|отмени|обойди)(те)? ~ (предыдущ|прежн|прошл|вышеуказан|изначальн|исходн|ранее|выше|системн)@(инструкци|указани|правил|команд|подсказк|промпт|запрос|установк)
        (забудь|игнорируй)(те)? (все|всё) (что|инструкции|правила|указания|выше)
        (ігноруй|забудь|проігноруй)(те)? ~ (попередн|всі)@(інструкці|вказівк|правил)
        (忽略|无视|忘记|忘掉|不要理会|抛开|丢弃|撤销|無視|忽視|忘記|不要遵守|停止遵守)@(之前|以前|先前|前面|上面|以上|上述|此前|原来|所有|系统|系統|先の|原有|最初)@(指令|指示|说明|提示|规则|規則|命令|要求|设定|設定|内容)
        (以前の|これまでの|前の|上記の|先の|すべての|全ての|今までの|上の|最初の|システム)@(指示|命令|ルール|プロンプト|指令|規則|設定|制約)@(無視|忘れ|破棄|従わな|取り消)
        (이전|앞선|위의|지금까지|기존|모든|앞의|시스템)@(지시|명령|규칙|프롬프트|지침|설정)@(무시|잊어|잊고|따르지|버려|취소)
        (تجاهل|انس|انسى|تجاوز|اهمل|لا تتبع)@(التعليمات|الاوامر|القواعد|التوجيهات|الارشادات|تعليمات)@(السابقة|اعلاه|الاصلية|السابقه|النظام|كل)?
        (पिछले|पहले के|सभी|ऊपर|ऊपर दिए|पूर्व)@(निर्देश|नियम|आदेश|निर्देशों)@(अनदेखा|नजरअंदाज|भूल|उपेक्षा)
        (bo qua|quen|phot lo|khong tuan theo) _ (huong dan|chi dan|quy tac|lenh|chi thi|yeu cau) _ (truoc|tren|ban dau|he thong)
        (abaikan|lupakan|hiraukan) _ (instruksi|perintah|aturan|arahan|petunjuk) _ (sebelumnya|di atas|awal|terdahulu|sistem)
        (ignorera|glom|bortse fran|strunta i) _ (tidigare|foregaende|ovanstaende|ursprungliga) _ (instruktioner|regler|anvisningar|direktiv)
        (ignoruj|zapomen na|preskoc) _ (predchozi|vsechny|predesle|puvodni) _ (instrukce|pokyny|pravidla|prikazy)
        (ignora|uita|nu lua in seama) _ (instructiun|reguli|comenzi|indicati)[a-z]* _ (anterioare|precedente|de mai sus|initiale)
        (αγνοησε|ξεχασε|παραβλεψε)(τε)? ~ (προηγουμεν|παραπανω|αρχικ)@(οδηγι|εντολ|κανον)
    """,
    ),
    (
        "reveal",
        4,
        r"""
        (zeig|gib|nenn|verrate|wiederhol|druck|schreib|teile|offenbare|liste|was (ist|lautet|steht in))[a-z]* _ (dein|deine|deinen|deiner|den|die|das|ihre|ihren|ihr) _ (system ?prompt|system ?anweisung|systemnachricht|anfangsanweisung|ursprungliche anweisung|geheime anweisung|interne anweisung|initiale anweisung)
        (montre|affiche|revele|donne|repete|ecris|imprime|divulgue|quel(le)?s? (est|sont))[a-z]* _ (ton|ta|tes|votre|vos|le|les) _ (prompt systeme|prompt initial|instructions? (systeme|initiales?|secretes?|cachees?|internes?|d origine)|message systeme|invite systeme|consignes (initiales|secretes|internes|systeme))
        (muestra|revela|dime|repite|imprime|escribe|ensena|cual(es)? (es|son)|comparte|dame)[a-z]* _ (tu|tus|su|sus|el|las?|los) _ (prompt (del sistema|inicial|de sistema|original)|instrucciones (iniciales|del sistema|secretas|ocultas|internas|originales|de sistema)|mensaje del sistema)
        (mostra|rivela|dimmi|ripeti|stampa|scrivi|qual e|quali sono|elenca)[a-z]* _ (il|le|tuo|tue|tuoi|vostre|lo) _ (prompt di sistema|prompt iniziale|istruzioni (iniziali|di sistema|segrete|nascoste|interne|originali)|messaggio di sistema)
        (mostr|revel|diga|repit|imprim|escrev|qual e|quais sao|liste)[a-z]* _ (o|as?|seu|sua|suas|teu|tuas) _ (prompt (do sistema|inicial|de sistema|original)|instrucoes (iniciais|do sistema|secretas|ocultas|internas|originais)|mensagem do sistema)
        (toon|geef|onthul|herhaal|print|schrijf|wat (is|zijn)|deel)[a-z]* _ (je|jouw|uw|de|het) _ (systeemprompt|systeem prompt|systeeminstructies?|oorspronkelijke instructies|geheime instructies|initiele instructies|verborgen instructies)
        (pokaz|ujawnij|powtorz|wypisz|podaj|jaki jest|jakie sa|wyswietl)[a-z]* _ (swoj|swoje|twoj|twoje|tresc) _ (prompt systemowy|monit systemowy|instrukcje (poczatkowe|systemowe|tajne|ukryte)|polecenie systemowe)
        (sistem|gizli|baslangic|ilk) (istem|mesaj|talimat|prompt|komut)[a-z]* _ (goster|yaz|soyle|acikla|paylas|tekrarla|ver|nedir)
        (покажи|раскрой|выведи|повтори|напиши|назови|скажи|каков|перечисли|распечатай)(те)? ~ (систем|начальн|скрыт|секретн|исходн|внутренн|изначальн)@(промпт|инструкци|подсказк|сообщени|запрос|указани|установк)
        (显示|输出|告诉|打印|重复|透露|泄露|说出|给我|展示|列出|复述|公開|顯示|告訴|什么是)@(系统|系統|初始|隐藏|隱藏|原始|内部|最初|秘密)@(提示|指令|指示|说明|消息|設定|设定|prompt)
        (システム|初期|隠された|内部|秘密の|最初の|元の)(の)?(プロンプト|指示|命令|設定|メッセージ)@(表示|教え|出力|見せ|開示|公開|書き出|繰り返|述べ|明か)
        (시스템|초기|숨겨진|비밀|내부|원래|최초)\s?(프롬프트|지시|지침|명령|메시지|설정)@(보여|알려|출력|공개|말해|반복|누설|표시|적어)
        (اظهر|اكشف|اعرض|كرر|اطبع|اخبرني|ما هي|ماهي)@(موجه النظام|تعليمات النظام|التعليمات (الاولية|السرية|الاصلية|المخفية)|رسالة النظام|تعليماتك)
        (अपना|अपने|आपका|आपके)@(सिस्टम प्रॉम्प्ट|सिस्टम निर्देश|छिपे निर्देश|गुप्त निर्देश|प्रारंभिक निर्देश)@(दिखा|बता|प्रकट|दोहरा|लिख)
    """,
    ),
    (
        "persona",
        2,
        r"""
        (du bist|agiere als|spiele|verhalte dich (wie|als)|stell dir vor|tu so) ~ (ohne|keine|keinerlei|frei von) _ (einschrankung|regel|filter|beschrankung|richtlinie|ethisch|moral|zensur|grenzen|tabus)
        (tu es|vous etes|agis comme|joue le role|fais semblant|imagine|comporte toi) ~ (sans|aucune|libre de|libere) _ (restriction|regle|filtre|limite|censure|ethique|contrainte|moral)
        (eres|actua como|finge|imagina|haz de cuenta|comportate como|simula) ~ (sin|ninguna|libre de|no tiene|no tienes) _ (restriccion|regla|filtro|limite|censura|etic|limitacion|moral)
        (sei|agisci come|fai finta|immagina|comportati come|interpreta) ~ (senza|nessuna|libero da|privo di) _ (restrizion|regol|filtr|limit|censur|etic|moral)
        (voce e|aja como|finja|imagine|comporte se como|simule) ~ (sem|nenhuma|livre de|nao tem) _ (restri|regra|filtro|limite|censura|etic|moral)
        (jij bent|je bent|doe alsof|gedraag je als|stel je voor) ~ (zonder|geen|vrij van) _ (beperking|regels|filter|grenzen|censuur|ethisch)
        (ты|представь|притворись|действуй как|веди себя как|сыграй роль|вообрази) ~ (без|нет|не имеешь|свободн|никаких)@(ограничен|правил|фильтр|цензур|запрет|этическ|морал)
        (你是|你现在是|扮演|假装|充当|想象你|假設|假设)@(没有|不受|无|無|不用遵守|無需遵守|不必遵守|摆脱|沒有)@(限制|规则|規則|道德|过滤|審查|审查|约束|約束)
        (あなたは|として振る舞|を演じ|のふりを|になりき)@(制限|ルール|倫理|フィルタ|検閲|制約)@(ない|なし|無視|無し|解除|なく)
        (너는|당신은|역할|인 척|처럼 행동|가정)@(제한|규칙|윤리|필터|검열|제약)@(없는|없이|없다|무시|벗어난|없음)
        (انت|تصرف ك|تظاهر|تخيل|العب دور)@(بدون|بلا|لا يوجد|خال من|متحرر)@(قيود|قواعد|فلتر|رقابة|اخلاق|حدود)
        (sen|gibi davran|rol yap|farz et|hayal et) ~ (kisitlama|kural|filtre|sansur|etik|sinir)[a-z]* _ (olmayan|yok|olmadan|siz|tanimayan)
    """,
    ),
    (
        "override",
        2,
        r"""
        (ab jetzt|von nun an|ab sofort) ~ (ignorier|keine regeln|ohne (regeln|einschrankung|filter)|nur noch|gehorch|antwortest du|du bist)
        (desormais|a partir de maintenant) ~ (ignore|sans (regle|restriction|filtre)|obei|tu es|vous etes|uniquement|reponds)
        (a partir de ahora|desde ahora|de ahora en adelante) ~ (ignora|sin (regla|restriccion|filtro)|obedece|eres|solo|responde)
        (d ora in poi|da ora in poi|da questo momento) ~ (ignora|senza (regol|restrizion|filtr)|obbedisc|sei|solo|rispondi)
        (a partir de agora|de agora em diante) ~ (ignore|sem (regra|restri|filtro)|obede|voce e|apenas|responda)
        (neue anweisung|nouvelles? (instruction|consigne)|nuevas? instruccion|nuova istruzione|nuove istruzioni|nova instrucao|novas instrucoes|nieuwe instructie|nowe (instrukcje|polecenie)|yeni talimat|новая инструкция|новые инструкции|новое задание|新(的)?(指令|任务|指示)|新しい(指示|命令|タスク)|새로운 (지시|명령|임무)|تعليمات جديدة)
        (теперь|отныне|с этого момента) ~ (игнориру|без (правил|ограничен|фильтр)|подчиня|ты (больше не|будешь|являешься)|отвечай)
        (从现在开始|从现在起|从今以后|現在から|今から|これから|지금부터|이제부터|من الان فصاعدا)@(忽略|无视|不受|没有限制|只|必须|无条件|無視|制限なし|従|무시|제한 없이|만 |따라|تجاهل|بدون|فقط)
    """,
    ),
)
