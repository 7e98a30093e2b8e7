"""Training of students: distillation from a teacher's embeddings, and the supervised baseline.

Reading order: `distill` (what is trained on what), `training` (the loop), `training_state` (what survives a kill).
"""
