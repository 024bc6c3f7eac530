"""
Groups of a dataset's frames: what the config and the table of the runs say of them, checked, and what belongs to which group.

Used by split.smk and merging.smk; only the standard library, as in config.smk.
"""


def is_per_frame(by):
    """Whether a split is by what each frame has: an HDF5 path or a table, not a column of the runs."""
    return os.path.isabs(by) or by.endswith(".tsv")


def require_column(dataset, by):
    """The table of the runs must have the column that a dataset is split by."""
    columns = next(row for row in RUNS.values() if row["dataset"] == dataset)
    if by not in columns:
        near = get_close_matches(by, columns, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(columns)}."
        raise WorkflowError(
            f"{CONFIG}: datasets.{dataset}.split: {config['runs']} has no column {by}; {hint} "
            "A dataset in the frame files is given by its path, as /entry_1/laser_on."
        )


def values_of_column(dataset, by):
    """Values that the dataset's runs have in a column, each once, in the order of the table."""
    rows = [row for row in RUNS.values() if row["dataset"] == dataset]
    values = list(dict.fromkeys(str(row[by]) for row in rows if str(row[by])))
    if len(values) < 2:
        found = f"all runs with a value have {values[0]!r}" if values else "no run has a value"
        raise WorkflowError(
            f"{CONFIG}: datasets.{dataset}.split: column {by} of {config['runs']}: {found}: nothing to split"
        )
    return values


def named_groups(dataset, where):
    """Name of each group to its value, or to the limits of its values."""
    own = config["datasets"][dataset]
    by, groups, bins = own["split"], own["split_groups"], own["split_bins"]
    if groups is not None and bins is not None:
        raise WorkflowError(f"{where}.split_bins: either bins or split_groups, not both")
    if bins is not None:
        pairs = list(zip(bins, bins[1:]))
        if any(low >= high for low, high in pairs):
            raise WorkflowError(f"{where}.split_bins: {bins} do not ascend")
        return {f"{low:g}_to_{high:g}": [low, high] for low, high in pairs}
    if groups is None and is_per_frame(by):
        raise WorkflowError(
            f"{where}.split: the values of {by} are known only from the frames: name those that make groups with split_groups, or "
            "sort them with split_bins"
        )
    if isinstance(groups, dict):
        return groups
    return {str(value): value for value in groups or values_of_column(dataset, by)}


def split_of(dataset):
    """What a dataset is split by, its groups, and the one that is subtracted from the others; None where it is not split."""
    own = config["datasets"][dataset]
    where = f"{CONFIG}: datasets.{dataset}"
    if own["split"] is None:
        set_without = [key for key in ("split_groups", "split_bins", "split_reference") if own[key] is not None]
        if set_without:
            raise WorkflowError(f"{where}.{set_without[0]}: there is nothing to split by: split is missing")
        return None
    if not is_per_frame(own["split"]):
        require_column(dataset, own["split"])
    groups = named_groups(dataset, where)
    for name in groups:
        if not isinstance(name, str):
            raise WorkflowError(f"{where}.split_groups: {name} is not text; put on, off, yes and no in quotes")
        if not re.fullmatch(r"[-A-Za-z0-9][-A-Za-z0-9_.+]*", name) or "_minus_" in name:
            raise WorkflowError(
                f"{where}.split: {name!r} can't be the name of a folder; name the groups: split_groups: {{NAME: {name!r}, ...}}"
            )
    reference = own["split_reference"] or next(iter(groups))
    if reference not in groups:
        raise WorkflowError(f"{where}.split_reference: {reference} is none of the groups {', '.join(groups)}")
    return {"by": own["split"], "groups": groups, "reference": reference}


def settings_of_split(wildcards):
    """What a dataset is split by and its groups, as JSON; the order of the groups counts."""
    return json.dumps(SPLITS[wildcards.dataset])


def runs_of_split(wildcards):
    """Of the dataset's runs what a split needs to know, as JSON."""
    by = SPLITS[wildcards.dataset]["by"]
    keys = ("run", "frames", "geometry") if is_per_frame(by) else ("run", "frames")
    rows = [{key: RUNS[run][key] for key in keys} for run in runs_of_dataset(wildcards)]
    if not is_per_frame(by):
        rows = [row | {"value": str(RUNS[row["run"]][by])} for row in rows]
    return json.dumps(rows, sort_keys=True)


def geometries_of_split(wildcards):
    """Geometry files that tell which events the frame files have; a column of the runs needs none."""
    if not is_per_frame(SPLITS[wildcards.dataset]["by"]):
        return []
    return geometries_of_dataset(wildcards)


def table_of_split(wildcards):
    """The user's table, where the dataset is split by one."""
    by = SPLITS[wildcards.dataset]["by"]
    return by if by.endswith(".tsv") else []


def groups_of_dataset(wildcards):
    """Table of the groups of the dataset's frames; none where it is not split."""
    return f"results/splits/{wildcards.dataset}.tsv" if SPLITS[wildcards.dataset] else []


def split_files(*, groups=(), differences=()):
    """Files of every group of every split dataset, and of the differences from the reference."""
    found = []
    for dataset, split in SPLITS.items():
        if not split or "builtin" not in config["mergers"]:
            continue
        for engine in config["engines"]:
            folder = f"results/{engine}/merged/builtin/{dataset}/split"
            for name in split["groups"]:
                found += [f"{folder}/{name}/{file}" for file in groups]
                if name != split["reference"]:
                    found += [f"{folder}/{name}_minus_{split['reference']}/{file}" for file in differences]
    return found


SPLITS = {dataset: split_of(dataset) for dataset in DATASETS}
for dataset, split in SPLITS.items():
    if split and "builtin" not in config["mergers"]:
        raise WorkflowError(
            f"{CONFIG}: datasets.{dataset}.split: only the merger builtin merges groups apart, and mergers has "
            f"{', '.join(config['mergers'])}: add builtin to mergers, or take the split out"
        )
GROUPS = {name for split in SPLITS.values() if split for name in split["groups"]}
