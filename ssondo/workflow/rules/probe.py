"""The jobs of rules/probe.smk: embeddings and scores of downstream tasks."""

from ssondo.probe.model_id import ModelId
from ssondo.workflow.experiment import Experiment, Job
from ssondo.workflow.rules.distill import student_content, student_modules
from ssondo.workflow.rules.teachers import checkpoint_files, teacher_content, teacher_modules, teacher_spec


def embed_task(experiment: Experiment, model: str, task: str) -> Job:
    """Return the job that embeds the clips of a task with a teacher or student."""
    config = experiment.config
    model_id = ModelId.parse(model)
    untracked = {"batch_size": config.runtime.embed_batch_size}
    if model_id.row_kind == "teacher":
        return Job(
            {"teacher": teacher_spec(config, model_id.teacher), "precision": config.embed.precision},
            untracked=untracked,
            inputs={"checkpoint": checkpoint_files(experiment, f"teacher-{model_id.teacher}"), "student": []},
            modules=teacher_modules(config, model_id.teacher),
            content=teacher_content(experiment, model_id.teacher),
        )
    architecture = config.students[model_id.student].architecture
    return Job(
        # The checkpoint names a built-in architecture; a user-defined one must be allowed here.
        {"architecture": architecture if ":" in architecture else None},
        untracked=untracked,
        inputs={"checkpoint": [], "student": [experiment.paths.student.format(model=model)]},
        modules=student_modules(config, model_id.student),
        content=student_content(experiment, model_id.student),
    )


def probe(experiment: Experiment, model: str, task: str) -> Job:
    """Return the job that scores a model on a task."""
    return Job({"model": ModelId.parse(model).__dict__, **experiment.config.probe.model_dump()})
