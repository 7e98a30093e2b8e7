"""Training of students: distillation from a teacher's embeddings, the supervised baseline, untrained students.

Reading order: `distill` (the verb), `training` (settings, data, model, loop, checkpoint), `trainer` (the loop and
one training step), `training_state` (what is saved for a restart).
"""

LOSSES = {
    "cosine": "ssondo.distill.losses:Cosine",
    "mse": "ssondo.distill.losses:MeanSquaredError",
    "l1": "ssondo.distill.losses:MeanAbsoluteError",
    "kl": "ssondo.distill.losses:KullbackLeibler",
    "contrastive": "ssondo.distill.losses:Contrastive",
    "real_contrastive": "ssondo.distill.losses:DecoupledContrastive",
    "contrastive_neg_clusters": "ssondo.distill.losses:ContrastiveNegClusters",
    "cluster_aware": "ssondo.distill.losses:SupervisedContrastive",
    "cross_cluster_guidance": "ssondo.distill.losses:CrossClusterGuidance",
    "hybrid": "ssondo.distill.losses:Hybrid",
}
"""The class of each loss, a subclass of `ssondo.distill.base_loss.Loss`; docs/extend.md describes how to add one."""
