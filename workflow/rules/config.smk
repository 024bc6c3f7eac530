"""
The checked config, with its defaults, and its sections as parameters of the rules.

Only the standard library and snakemake are used here and in the files that follow, so that the workflow can be read where the package is not
installed.
"""

import json
from difflib import get_close_matches

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate


def sentence(error, where):
    """What a schema violation means, in one line: file, key, what is wrong, what was expected."""
    key = error.json_path.removeprefix("$").removeprefix(".")
    section = f"{key}." if key else ""
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = sorted(str(name) for name in error.instance if name not in known)[0]
        near = get_close_matches(unknown, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
        return f"{where}: {section}{unknown}: no such setting; {hint}"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance][0]
        meaning = error.schema["properties"][missing]["description"]
        return f"{where}: {section}{missing} is missing ({meaning})"
    if error.validator == "type":
        names = {"number": "a number", "integer": "a whole number", "string": "text", "boolean": "true or false"}
        names |= {"null": "null", "object": "a section with keys of its own", "array": "a list"}
        kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        problem = f"{error.instance!r} is not {' or '.join(names[kind] for kind in kinds)}"
    elif error.validator in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        words = {"minimum": "below", "exclusiveMinimum": "not above", "maximum": "above"}
        problem = f"{error.instance} is {words.get(error.validator, 'not below')} {error.validator_value}"
    elif error.validator == "enum":
        problem = f"{error.instance!r} is not one of {', '.join(map(str, error.validator_value))}"
    elif error.validator == "pattern" and key.endswith(".date"):
        problem = f"{error.instance!r} is not a date"
    elif error.validator == "pattern":
        problem = f"{error.instance!r} is not a name of letters, digits and _ . + - that begins with a letter or digit"
    elif error.validator in ("minLength", "minItems", "minProperties"):
        problem = "is empty"
    else:
        problem = error.message
    meaning = error.schema.get("description")
    return f"{where}: {key}: {problem} ({meaning})" if meaning else f"{where}: {key}: {problem}"


def checked(data, schema, where):
    """`data` after a check against `schema`, with the defaults filled in."""
    try:
        # The defaults come second: filling them in descends into sections that may be of the wrong type.
        validate(data, schema, set_default=False)
    except WorkflowError as error:
        raise WorkflowError(sentence(error.__context__, where)) from None
    validate(data, schema)
    return data


def require_order(section, low, high):
    """Two limits that are both set must stand the right way round."""
    first, second = config[section][low], config[section][high]
    if first is not None and second is not None and first > second:
        raise WorkflowError(f"{CONFIG}: {section}: {low} ({first}) must not be above {high} ({second})")


def write_dates_as_text():
    """YAML makes a date of 2026-01-31, which neither the schema nor JSON knows."""
    licences = config.get("licences")
    for entry in licences.values() if isinstance(licences, dict) else []:
        if isinstance(entry, dict) and hasattr(entry.get("date"), "isoformat"):
            entry["date"] = entry["date"].isoformat()


def licensed_methods():
    """CrystFEL's indexing methods of the config that run a program whose terms each user has to accept."""
    methods = config["crystfel"]["indexing"].split(",")
    names = [method.strip().partition("-")[0].lower() for method in methods]
    return [name for name in names if name in LICENSED and "crystfel" in config["engines"]]


def accepted_licences():
    """Of the licences that are used who accepted them, as JSON with sorted keys."""
    return json.dumps({name: config["licences"][name] for name in licensed_methods()}, sort_keys=True)


def require_licences():
    """Those methods need a line that says who accepted the terms."""
    for name in licensed_methods():
        program, to_read = LICENSED[name]
        if not config["licences"][name]["accepted_by"].strip():
            raise WorkflowError(
                f"{CONFIG}: crystfel.indexing: {name} runs {program}, whose terms each user has to accept. Read {to_read}. If you accept "
                f"them, write into the config: licences: {{{name}: {{accepted_by: YOUR NAME, date: 2026-01-31}}}}. The engine builtin and "
                "CrystFEL's method asdf need no such line"
            )


def settings(stage):
    """Settings of one stage as JSON with sorted keys: Snakemake compares parameters without their names."""
    values = config[stage]
    # 4 and 4.0 are the same setting.
    whole = {key: int(value) for key, value in values.items() if isinstance(value, float) and value.is_integer()}
    return json.dumps(values | whole, sort_keys=True)


def some_settings(stages):
    """Settings of several stages as JSON with a section for each; a stage's keys where only some are used, None for all."""
    used = {}
    for stage, keys in stages.items():
        values = json.loads(settings(stage))
        used[stage] = {key: values[key] for key in (values if keys is None else keys)}
    return json.dumps(used, sort_keys=True)


CONFIG = workflow.configfiles[-1] if workflow.configfiles else "config"

# A section whose keys are all commented out is an empty one.
config |= {key: {} for key, value in config.items() if value is None and key != "runs"}
write_dates_as_text()
checked(config, "../schemas/config.schema.yaml", CONFIG)
require_order("peaks", "min_res", "max_res")
require_order("peaks", "min_pix_count", "max_pix_count")
require_order("integration", "inner_radius", "middle_radius")
require_order("integration", "middle_radius", "outer_radius")
require_order("figures_of_merit", "d_min", "d_max")

# Methods of CrystFEL that run a program with terms of its own (src/sfxflow/licences.py).
LICENSED = {
    "mosflm": (
        "MOSFLM",
        "the licence that comes with iMosflm (https://www.mrc-lmb.cam.ac.uk/mosflm/imosflm/), or that of CCP4 (https://www.ccp4.ac.uk)",
    ),
    "xds": (
        "XDS",
        "its terms of use (https://xds.mr.mpg.de, https://download.dectris.cloud/xds/help/terms-of-use.html)",
    ),
    "dirax": (
        "DirAx",
        "the conditions on its web page (http://www.crystal.chem.uu.nl/distr/dirax/)",
    ),
}
require_licences()
