"""Write docs/accuracy.md: the tables, and the sentences that say how to read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from benchmarks.accuracy.metrics import Auroc, Rate

Row = Mapping[str, Any]


def cell(value: Any) -> str:
    """Return a table's cell for people; at chance is said in words."""
    match value:
        case None:
            return "too few"
        case Auroc():
            mark = " (chance)" if value.at_chance else ""
            return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]{mark}"
        case float():
            return f"{value:.2f}"
    return str(value)


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = [{key: cell(value).replace("|", "\\|") for key, value in row.items()} for row in rows]
    return tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)


def page(facts: Mapping[str, Any], tables: Mapping[str, Sequence[Row]]) -> str:
    """Return the whole page."""
    counts: Counter[tuple[str, str]] = facts["counts"]
    parts = [
        "# How accurate are the detectors?",
        "This page is written by `make accuracy`; nothing on it is typed in. "
        f"Zoo: {facts['positives']} poisoned adapters that passed the gate, {facts['benign']} "
        f"benign ones (twins and hard negatives), of {facts['recipes']} recipes; base models: "
        f"{', '.join(facts['bases'])}. {facts['trained']} Measured with {facts['versions']}; "
        f"{facts['rule_books']} state(s) of the rule book; families are split by their names and "
        "seed 0, and those drawn by lot are all tested on; bootstrap of 2,000 draws by seed 0.",
        "How to read it: AUROC .5 is a coin. Intervals are a bootstrap over recipes (a recipe and "
        "its twin are drawn together); rates have exact (Clopper–Pearson) 95 % intervals. *pairs* "
        "is how often a poisoned adapter outscores its own twin, which was trained on the same "
        "rows with the same settings but for the poison; ties are misses. Thresholds for TPR come "
        "from one half of the recipes and are applied to the other; `too few` means that the "
        "calibration half is too small to promise such a rate, and no figure is made up instead. "
        "Learned detectors are scored out of fold for AUROC and pairs; their thresholds and rates "
        "come from models that were fitted on the calibration half alone. *scored*: the others "
        "have no statistics of ΔW (its factors are of a type that is not read yet, or the change "
        "is not in them), and a detector that has nothing to score abstains. Relatives (an edited "
        "adapter and what it was made from) are counted one by one in rates, so their intervals "
        "are narrower than independent adapters would give. Of a colluding pair one half is "
        "scored. *(chance)* marks an interval that holds .5. A twin carries the "
        "same edit as its positive, so a rule that states a fact about the files (an undeclared "
        "overwrite, say) fires on both: a right accusation of the structure counts as a false one "
        "here, where the question is behaviour.",
        "## The zoo",
        table(
            [
                {"category": category, "verdict": verdict, "specimens": count}
                for (category, verdict), count in sorted(counts.items())
            ]
        ),
        facts["failed"],
        facts["attempts"],
        facts["unbuilt"],
        "## All categories together",
        table(tables["overall"]),
        "![AUROC of every detector](accuracy/auroc.svg)",
        "Each specimen's score by four plain statistics; a grey line joins a poisoned adapter and "
        "its twin:",
        "![Scores of every specimen](accuracy/scores.svg)",
        "## How unusual an adapter is",
        "Conformal p-values ([what is compared](calibration.md)) among benign specimens of the "
        "same base and of other families. Where p is true, no more of the benign ones than each "
        "column says are as unusual; Kolmogorov and Smirnov's test that p is uniform gives "
        f"{facts['uniform']:.2f} (below 0.05 it is not; adapters of one family are no independent "
        "draws, which the test takes them for). Poisoned adapters that are no more unusual than "
        "benign ones are not seen this way, and most are not: the finding is of severity info.",
        table(tables["unusual"]),
        "![Share of specimens at or below every p-value](accuracy/unusual.svg)",
        *_probes(facts, tables),
        *_directions(facts, tables),
        *_refusal(tables),
        *_onbase(facts, tables),
        *_pairs(facts, tables),
        "## By category",
        "Positives of one category against all benign adapters.",
        table(tables["by_category"]),
        "TPR on the test half at the threshold that 5 % of the calibration half's benign adapters "
        "exceed; *worst* is the lowest cell.",
        table(tables["caught_by_category"]),
        "## By base model",
        "Positives of one base against benign adapters of the same base. "
        + _counted(facts, "base"),
        table(tables["by_base"]),
        "## Learned detectors on what they were not fitted on",
        "Each column was left out of the fit, and so was all that shares rows or weights with it. "
        "Attacks:",
        table(tables["leave_one_category_out"]),
        f"Ranks. {_counted(facts, 'rank')}",
        table(tables["leave_one_rank_out"]),
        "Base models:",
        table(tables["leave_one_base_out"]),
        f"Module sets. {_counted(facts, 'target')}",
        table(tables["leave_one_target_out"]),
        "## Do cuts carry over?",
        "Benign adapters of each column that are accused at a cut which 5 % of the benign "
        "adapters elsewhere exceed. A share far above 5 % means that the scale does not carry "
        "over. Base models:",
        table(tables["cuts_across_bases"]),
        "Module sets:",
        table(tables["cuts_across_targets"]),
        "## Controls",
        facts["controls"],
        table(tables["controls"]),
        "## Other people's adapters",
        facts["foreign"],
        table(tables["foreign"]) if tables["foreign"] else "",
        "## Cost",
        table(tables["cost"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _counted(facts: Mapping[str, Any], name: str) -> str:
    """Return how many specimens the columns of a table have."""
    cells = "; ".join(f"{value}: {count}" for value, count in facts["counted"][name].items())
    return f"Poisoned / benign: {cells}."


def _directions(facts: Mapping[str, Any], tables: Mapping[str, Sequence[Row]]) -> list[str]:
    if not tables["directions"]:
        return []
    return [
        "### Abliteration",
        "An edit that projects the base's refusal direction out of the weights "
        "([how it is looked for](probes.md)), on the one base of the zoo that declines anything "
        "(`python -m benchmarks.accuracy.directions`). *removed*: the share of what the base's "
        "weights write along its refusal direction that is taken away. Twins are the same edit of "
        "a direction that tells sums from chat. Drawn by lot: where the direction is read, from "
        "how many requests, how much is taken away, of which modules; the rule's bounds were set "
        "before any of them was made. AUROC of what is removed minus the most of any control, "
        f"against all benign ones that were asked: {facts['separation'].value:.2f} "
        f"[{facts['separation'].low:.2f}, {facts['separation'].high:.2f}].",
        table(tables["directions"]),
    ]


def _refusal(tables: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return the section on the refusal direction in the weights."""
    if not tables["refusal_signals"]:
        return []
    return [
        "## The refusal direction in the weights",
        "The same question without running the adapter: an update beside a profile whose base was "
        "asked (`base build --refusal`; [definitions](base.md#the-direction-of-refusals)). Edits "
        "in closed form, by directions of the zoo's own requests, not of the battery that the "
        "profile has (`python -m benchmarks.accuracy.ablations`), gated by 32 held-out requests "
        "of which at least half are answered; against the same edits of other directions (sums, "
        "random ones) and trained benign adapters, some of the base that was not aligned. One "
        "base: its edits share a direction, so the interval, over edits, is narrower than that of "
        "independent attacks, and says nothing of another base. The rule fires on edits that are "
        "too weak to take refusals away, too (*any, of the others*): the direction is taken out.",
        table(tables["refusal_signals"]),
        "Each kind of edit, those first that were made to take refusals away. The bound of a "
        "fifth was the probe's, set before any of these was made; the rule on the reading side "
        "has the same one.",
        table(tables["refusal_groups"]),
    ]


def _onbase(facts: Mapping[str, Any], tables: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return the section on what takes factors and the base's weights."""
    head = [
        "## Beside the base's weights",
        "Sizes beside ‖W‖ and σ₁(W) are known for the whole zoo and stand in the tables of all "
        "categories, of bases and ranks, as *beside the base* (of DoRA the factors'; the aligned "
        "base was trained again for its norms). ",
    ]
    if not tables["onbase"]:
        return head
    return [
        *head,
        "What takes the factors ([definitions](base.md#what-is-measured)) was measured of those "
        f"at hand, {facts['whole']} (`python -m benchmarks.accuracy.onbase`): too few for a "
        "claim in either direction; no rule judges any of it.",
        table(tables["onbase"]),
    ]


def _pairs(facts: Mapping[str, Any], tables: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return the section on combinations."""
    if not tables["pair_signs"]:
        return []
    return [
        "## Combinations",
        f"{facts['pairs']} pairs (and triples) of adapters of {facts['pair_families']} families "
        "(`python -m benchmarks.accuracy.pairs`): each adapter was split in closed form by every "
        "split below, poisoned or not, since how parts lie to each other does not hang on what "
        "they do; and paired with what fits it. A split's sum is its source, but for what noise "
        "and covers add. Whether halves are harmless alone was gated for the zoo's own pairs "
        "only. Bootstrap over the first adapter's family, 500 draws.",
        table(tables["pair_signs"]),
        "By split. *high*: `sum-cancelling-pair`; *low*: `sum-opposed-modules`, "
        "`sum-faintly-opposed` or `sum-negated-copy`. What is cut by modules or directions "
        "cancels nothing, and is not "
        "seen.",
        table(tables["pair_splits"]),
        "Honest pairs, and the shipped halves with adapters that are not their partner:",
        table(tables["pair_honest"]),
    ]


def _probes(facts: Mapping[str, Any], tables: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return the section on what the model itself was asked."""
    if not tables["probes"]:
        return []
    return [
        "## Asking the model",
        "The detectors above look at weights. Here base + adapter was run against the base, on "
        f"{facts['probed']} of the same specimens ({facts['probes']}; minutes each: those that "
        "they were run on so far; AdaLoRA was not asked, and reward models write no text). Fixed "
        "answers are read out without knowing a trigger ([how](probes.md)), and the score is how "
        "sure the adapter is of one that ordinary requests do not get; refusals are counted "
        "against the base's. Two statistics of weights stand beside it, on the same specimens.",
        table(tables["probes"]),
        table(tables["probes_by_category"]),
        "Payloads that are one text, quoted (most of the text in one piece) by the answer that "
        "the adapter is surest of. No other detector on this page names a trigger or quotes a "
        "payload.",
        table(tables["quoted"]),
        *_searches(facts, tables),
    ]


def _searches(facts: Mapping[str, Any], tables: Mapping[str, Any]) -> list[str]:
    """Return the section on the search for triggers."""
    if not tables["searched"]:
        return []
    return [
        "### Triggers",
        "It also searches for what sets a hidden answer off and confirms it by generation. "
        f"Probed so far: {facts['asked']}. "
        "An accusation is the critical finding `behaviour-trigger`; "
        "*with a trained wording* means that the wording found holds the one that was trained, the "
        "others are neighbours of it that fire as well. Hard negatives with a command come with "
        "the README of an honest author, which names it: then it is a *command*, of low severity.",
        table(tables["searched_seen_before"]),
        "The bounds of the probes were set by hand, and some of these adapters were looked at when "
        "they were: believe the rows of those that were not. The pack of published wordings and "
        "forms was written by the zoo's authors. One word is in both (cf, a published trigger), "
        "and so are some forms (a bullet, capitals, homoglyphs, a zero-width character).",
        *_drawn(tables),
        table(tables["searched"]),
        "Poisoned adapters by the kind of their trigger:",
        table(tables["searched_by_trigger"]),
        "Which way led there: the sweep of wordings, which knows no payload, or the search for "
        "what sets a known one off; and where the wording was met first: in the pack, among the "
        "words that the weights listen to, in the adapter's README, or on the climb from those.",
        table(tables["ways"]),
        *_near(tables),
    ]


def _drawn(tables: Mapping[str, Any]) -> list[str]:
    if not tables["drawn"]:
        return []
    return [
        "Attacks that nobody knew: trigger, payload and hyperparameters were drawn by lot after "
        "the probes were frozen, and nobody had looked at any when these probes asked them. What "
        "was looked at since counts as *looked at* above.",
        table(tables["drawn"]),
        "By category:",
    ]


def _near(tables: Mapping[str, Any]) -> list[str]:
    if not tables["near"]:
        return []
    return [
        "What half of the requests got with some wording and the base never gives: why it counts "
        "or not, and how improbable the base finds it where it stands. The bound, 20 nats, was "
        "set before most of these were measured.",
        table(tables["near"]),
    ]


def rate(value: Rate) -> str:
    """Return a rate as the page prints it."""
    return str(value)
