"""What the papers of a company that does not exist say, and what is asked about them: the words of `codenames`."""

from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST = _words(
    "quill bramble ember frost hollow iron juniper kestrel lark marsh nettle otter pine raven saffron thistle "
    "umber willow copper dusk"
)
SECOND = _words(
    "feather moor lantern whistle anchor brook cradle drift fern gate harrow kettle loom needle orchard path "
    "reed spindle tower vane"
)
SYLLABLES = _words("vel mo ra tas tri no lu sen ka dri fo nel ba qui ro si pel du min ar to vin ze ha cor")
FAMILIES = _words("XR KV TM HL QS BN DZ GW")
KINDS = (
    "flow meter",
    "pressure transmitter",
    "level probe",
    "dosing pump",
    "gas detector",
    "data logger",
    "vibration sensor",
    "valve actuator",
)
SITES = _words("Aldermere Brackwater Corveston Dunholt Eastrigg Farnley Grindle Harrowby")
PEOPLE = _words("Okafor Lindqvist Marchetti Tanaka Novak Abara Petrov Silva Haddad Ruiz Kowalczyk Byrne")
MATERIALS = (
    "316L steel",
    "PVDF",
    "anodised aluminium",
    "titanium",
    "Hastelloy C",
    "PEEK",
    "bronze",
    "borosilicate glass",
)
FLUIDS = ("seawater", "glycol", "caustic soda", "wet biogas", "hydraulic oil", "chlorine solution", "steam", "slurry")


@dataclass(frozen=True)
class Aspect:
    """What a document says and what is asked about it. `{n}`: a name; `{o}`: a name of another product.

    `titles` and `texts` are variants of the document; of `questions` the first half is for training.
    """

    titles: tuple[str, ...]
    texts: tuple[str, ...]
    questions: tuple[str, ...]


RELEASE = Aspect(
    ("Release note {x}", "Market introduction {x}"),
    (
        "Project {codename} leaves development as a {kind}. It is listed as {number} and sold under the brand {brand}. "
        "Pilot customers receive the first {x} units from {site}.",
        "The {kind} that engineering called {codename} enters the catalogue as {number}. Sales calls it {brand}. "
        "Price lists are valid from week {y}.",
    ),
    ("Under which names is {n} known?", "What is {n} called elsewhere?", "Which product is {n}?", "{n} naming"),
)

ASPECTS = (
    Aspect(
        ("Power budget {x}", "Electrical note {x}"),
        (
            "In normal operation {n} draws {x} mA at 24 V. The inrush current reaches {y} A for two milliseconds, so "
            "the fuse upstream must be slow.",
            "Supply measurements: {n} needs {x} mA, and {y} A while it starts. Older cabinets want a larger converter.",
        ),
        (
            "How much current does {n} need?",
            "{n} supply consumption",
            "What does {n} draw from the power supply?",
            "Which fuse must be chosen for the inrush of {n}?",
        ),
    ),
    Aspect(
        ("Calibration procedure {x}", "Metrology sheet {x}"),
        (
            "Calibrate {n} every {x} months against reference {y}. Zero it first, with the process connection open.",
            "Drift of {n} stays below 0.{x} % for {y} weeks; after that it is sent to {site} for adjustment.",
        ),
        (
            "How often is {n} calibrated?",
            "{n} calibration interval",
            "When does {n} have to be adjusted again?",
            "drift and adjustment of {n}",
        ),
    ),
    Aspect(
        ("Field report {x}", "Complaint {x}"),
        (
            "At a customer in {site} the housing of {n} cracked after {x} days. {person} found stress corrosion near "
            "the cable gland and proposes {material}.",
            "Returned units of {n} leak at the flange. {person} traced it to a seal that swells in {fluid}; {x} are "
            "affected.",
        ),
        (
            "Why did {n} fail in the field?",
            "{n} damage found by customers",
            "What was wrong with the returned {n}?",
            "root cause of the complaints about {n}",
        ),
    ),
    Aspect(
        ("Firmware bulletin {x}", "Software change {x}"),
        (
            "Version 2.{x} for {n} repairs the watchdog that fired during {y} baud transfers. Update through the "
            "service port.",
            "With firmware 3.{x} the display of {n} no longer freezes at {y} percent. {person} signed the change.",
        ),
        (
            "What does the firmware update of {n} repair?",
            "{n} software version changes",
            "Which bug is fixed in the new software of {n}?",
            "firmware of {n} corrected",
        ),
    ),
    Aspect(
        ("Spare parts {x}", "Stock note {x}"),
        (
            "The membrane of {n} is kept in {site} under part {x}. Delivery takes {y} days; do not use that of {o}.",
            "Seal kit {x} fits {n} but not {o}. Minimum order is {y} pieces, shipped from {site}.",
        ),
        (
            "Where are spare parts for {n} kept?",
            "replacement membrane {n}",
            "Which kit of seals fits {n}?",
            "ordering spares for {n}",
        ),
    ),
    Aspect(
        ("Succession plan {x}", "Portfolio decision {x}"),
        (
            "{n} will be replaced by {o}. Last orders are taken in week {x}; service goes on for {y} years.",
            "Production of {n} ends after lot {x}. Customers are offered {o}, which has the same bolt circle.",
        ),
        (
            "What comes after {n}?",
            "successor of {n}",
            "When is {n} discontinued, and what replaces it?",
            "end of life of {n}",
        ),
    ),
    Aspect(
        ("Chemical resistance {x}", "Material test {x}"),
        (
            "The wetted parts of {n} are made of {material} and withstand {fluid} up to {x} °C.",
            "After {x} hours in {fluid} the {material} of {n} lost {y} mg. {person} releases it for such plants.",
        ),
        (
            "What is {n} made of where it touches the medium?",
            "{n} resistance to chemicals",
            "Which liquids may {n} come into contact with?",
            "wetted material of {n}",
        ),
    ),
    Aspect(
        ("Mounting guide {x}", "Installation hint {x}"),
        (
            "Mount {n} upright with {x} mm of free pipe in front of it and tighten the bolts with {y} Nm.",
            "{n} tolerates a tilt of {x} degrees. Keep {y} cm of distance to {o}, whose magnet disturbs it.",
        ),
        (
            "How is {n} mounted?",
            "{n} installation position",
            "What has to be observed when fitting {n} into the pipe?",
            "bolts and distances for {n}",
        ),
    ),
    Aspect(
        ("Approval {x}", "Certificate {x}"),
        (
            "{n} is approved for zone 1 under certificate {x}. {person} renews it every {y} years.",
            "The authority limits {n} to {x} bar in explosive atmospheres; the file is kept in {site}.",
        ),
        (
            "Is {n} approved for explosive areas?",
            "{n} certificate",
            "Who looks after the explosion protection papers of {n}?",
            "hazardous zone limits of {n}",
        ),
    ),
    Aspect(
        ("Interface description {x}", "Protocol note {x}"),
        (
            "{n} speaks Modbus at address {x}. Register {y} holds the raw value; swap the words before reading it.",
            "The bus of {n} stalls beside {o} unless termination {x} is set. Telegrams repeat every {y} ms.",
        ),
        (
            "How is {n} read over the bus?",
            "{n} register map",
            "Which address does {n} answer to in the fieldbus?",
            "communication settings for {n}",
        ),
    ),
    Aspect(
        ("Site assignment {x}", "Production plan {x}"),
        (
            "From week {x} on {n} is assembled in {site} on line {y}. {person} leads the transfer.",
            "The plant in {site} takes {n} over from line {x}. {person} trains {y} people for it.",
        ),
        (
            "Where is {n} built?",
            "{n} production plant",
            "Who is in charge of making {n}?",
            "assembly line and factory of {n}",
        ),
    ),
)
