"""An evaluation: which questions, in which order, and the report."""

import json
import sys
from collections.abc import Callable, Sequence

import torch

from ..cli import remark, select_device, wrote
from ..errors import UserError, meant
from ..files import write_text
from ..kernels import use_backend
from ..outputs import check_outputs, paths_in, save_page
from ..training.distributed import join_world
from ..usage import flag_of, is_given
from .consistency import POSE_PICTURES, consistency, image_discriminator
from .cost import cost
from .editing import editing
from .figures import draw
from .inception import asked_for, check_file
from .inversion import inversion, invert_pairs
from .locality import locality
from .novelty import novelty, training_pictures
from .pictures import generate_pictures
from .quality import quality
from .semantics import semantics
from .session import COMPARED, QUESTIONS_OF, EvaluateOptions, Evaluation
from .writing import collect, markdown

QUESTIONS: dict[str, Callable[[Evaluation], None]] = {
    "quality": quality,
    "semantics": semantics,
    "novelty": novelty,
    "inversion": inversion,
    "editing": editing,
    "locality": locality,
    "consistency": consistency,
    "cost": cost,
}


def evaluate(options: EvaluateOptions, questions: Sequence[str] = ()) -> None:
    """Answer the questions and write the report."""
    chosen = chosen_questions(options, questions)
    check_outputs([options.out / "report.json", options.out / "report.md"], paths_in(options))
    device = select_device(options.device)
    world = join_world(device.type)
    try:
        if device.type == "cuda" and world.size > 1:
            device = torch.device("cuda", world.local_rank)
            torch.cuda.set_device(device)
        with use_backend(options.backend):
            evaluation = Evaluation.open(options, device, world)
            check_inputs(evaluation, chosen)
            prepare(evaluation, chosen)
            if world.is_main:
                say_of_others(options, chosen)
                for name in chosen:
                    QUESTIONS[name](evaluation)
                    write_report(evaluation, chosen)
                draw(evaluation)
                write_report(evaluation, chosen, said=True)
    finally:
        world.close()
    if world.is_main:
        check_answered(evaluation, questions)


def chosen_questions(options: EvaluateOptions, questions: Sequence[str]) -> list[str]:
    known = ", ".join(QUESTIONS)
    for name in questions:
        if name not in QUESTIONS:
            near = meant(name, (*QUESTIONS, "ablate"))
            raise UserError(f"no question {name!r}{near}: use {known}, ablate or --all")
    if not options.all and not questions:
        raise UserError(f"name what to measure before the options: {known}; or --all")
    return [name for name in QUESTIONS if options.all or name in questions]


def say_of_others(options: EvaluateOptions, chosen: Sequence[str]) -> None:
    """A remark for every option that is given and for questions alone that are not asked."""
    for option, served in QUESTIONS_OF.items():
        if is_given(options, option) and not served & set(chosen):
            which = " or ".join(name for name in QUESTIONS if name in served)
            remark(f"{flag_of(options, option)} has no effect here: it is for {which}")


def check_inputs(evaluation: Evaluation, chosen: Sequence[str]) -> None:
    """UserError, before pictures are made, for files that the options name and cannot be used."""
    options, asked = evaluation.options, set(chosen)
    if options.vgg_weights is not None and asked & QUESTIONS_OF["vgg_weights"]:
        _ = evaluation.perceptual
    if options.inception_weights is not None and asked & QUESTIONS_OF["inception_weights"]:
        check_file(options.inception_weights)
    if options.run_folder is not None and "consistency" in asked:
        image_discriminator(evaluation)
    if options.training_data is not None and "novelty" in asked:
        with evaluation.world.main_first():  # it packs the data, which the others then find
            training_pictures(evaluation)


def prepare(evaluation: Evaluation, chosen: Sequence[str]) -> None:
    """What several questions use, made by all processes together."""
    compared = bool(set(chosen) & COMPARED)
    if evaluation.uses_data(chosen):
        count = len(evaluation.data)
        wanted = evaluation.options.count
        if compared and count < wanted:
            print(f"the data has {count:,} pictures, fewer than --count {wanted:,}: using all",
                  file=sys.stderr)  # fmt: skip
    if compared:
        generate_pictures(evaluation, evaluation.options.count)
    elif "consistency" in chosen:
        generate_pictures(evaluation, min(POSE_PICTURES, evaluation.options.count))
    if "inversion" in chosen or ("consistency" in chosen and evaluation.procedural):
        invert_pairs(evaluation)


def write_report(evaluation: Evaluation, chosen: Sequence[str], *, said: bool = False) -> None:
    """report.json and report.md from what is known so far."""
    out = evaluation.options.out
    report = collect(evaluation, chosen)
    figures = sorted(path.name for path in (out / "figures").glob("*.png"))
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    save_page(out / "report.md", markdown(report, figures))
    if said:
        wrote(out / "report.md")


def check_answered(evaluation: Evaluation, questions: Sequence[str]) -> None:
    """UserError where a question or weights that were named gave nothing."""
    results = evaluation.results
    for name in questions:
        parts = [part for part in results.values if part.split(".")[0] == name]
        if not parts:
            raise UserError(f"{name}: nothing could be measured, for what is said above")
    if asked_for(evaluation.options) and not any(map(_of_inception, results.values)):
        for part in filter(_of_inception, results.missing):
            raise UserError(
                f"{part} was requested by passing its weights, but could not be measured, for what "
                "is said above"
            )


def _of_inception(part: str) -> bool:
    return part.split(".")[-1] in ("fid", "kid")
