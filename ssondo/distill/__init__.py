"""Training of students: distillation from a teacher's embeddings, the supervised baseline, untrained students.

Reading order: `distill` (the verb), `training` (settings, data, model, loop, checkpoint), `trainer` (the loop and
one training step), `training_state` (what is saved for a restart).
"""
