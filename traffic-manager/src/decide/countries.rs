//! Which country is in which group of Geographic routing. Public source: the region list in Azure Traffic Manager's
//! documentation; the codes are those of ISO 3166-1 and a few that the list adds.

/// Group and its countries, separated by spaces.
pub(super) const GROUPS: [(&str, &str); 8] = [
    (
        "GEO-EU",
        "AD AL AT AX BA BE BG BY CH CY CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT LU LV MC MD ME \
         MK MT NL NO PL PT RO RS RU SE SI SJ SK SM UA VA XJ XK",
    ),
    ("GEO-ME", "AE BH IL IQ IR JO KW LB OM PS QA SY SA TR YE"),
    (
        "GEO-NA",
        "AG AI AW BB BL BM BQ BS BZ CA CR CU CW DM DO GD GL GP GT HN HT JM KN KY LC MF MQ MS MX NI PA PM PR SV SX TC \
         TT UM US VC VG VI XE XS",
    ),
    (
        "GEO-AS",
        "AF AM AZ BD BN BT CC CN CX GE HK ID IN IO JP KG KH KP KR KZ LA LK MM MN MO MV MY NP PH PK SG TH TJ TL TM TW \
         UZ VN",
    ),
    (
        "GEO-AF",
        "AO BF BI BJ BV BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW KE KM LR LS LY MA MG ML MR MU MW MZ \
         NA NE NG RE RW SC SD SH SL SN SO SS ST SZ TD TF TG TN TZ UG YT ZA ZM ZW",
    ),
    ("GEO-AN", "AQ"),
    ("GEO-SA", "AR BO BR CL CO EC FK GF GS GY PE PY SR UY VE"),
    ("GEO-AP", "AS AU CK FJ FM GU HM KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TO TV VU WF WS"),
];
