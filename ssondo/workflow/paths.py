"""The path of every file that the workflow reads or writes."""

from ssondo.config import Config
from ssondo.storage.segments import shard_label


class Paths:
    """Every path of the workflow, with Snakemake's wildcards in braces.

    Args:
        config: the checked configuration.
    """

    def __init__(self, config: Config) -> None:
        data, results = config.paths.data, f"{config.paths.results}/{config.name}"
        self.data, self.results = data, results
        self._n_shards = {"train": config.audioset.n_train_shards, "eval": config.audioset.n_eval_shards}
        self.corpus = f"{data}/corpus"
        self.listed = f"{data}/listed"
        self.index = f"{data}/index"
        self.segments = f"{data}/index/{{split}}-{{shard}}.csv"
        self.classes = f"{data}/index/classes.csv"
        self.located_folder = f"{data}/located"
        self.located = f"{data}/located/{{split}}-{{shard}}.csv"
        self.fetched = f"{data}/fetched/{{split}}-{{shard}}.h5"
        self.audio = f"{data}/audio/{{split}}-{{shard}}.h5"
        self.availability = f"{data}/availability"
        self.inventory = f"{data}/{{stage}}/{{split}}.json"
        self.audio_inventory = f"{data}/audio/{{split}}.json"
        self.checkpoint = f"{data}/checkpoints/{{checkpoint}}/{{file}}"
        self.embeddings = f"{data}/embeddings/{{teacher}}/{{split}}-{{shard}}.h5"
        self.embedding_inventory = f"{data}/embeddings/{{teacher}}/{{split}}.json"
        self.archives = f"{data}/archives/{{task}}"
        self.archive = f"{self.archives}/{{file}}"
        self.task = f"{data}/tasks/{{task}}.h5"
        self.clusters_folder = f"{results}/clusters/{{teacher}}/k{{n_clusters}}"
        self.clusters = f"{self.clusters_folder}/clusters.h5"
        self.student_folder = f"{results}/students/{{model}}"
        self.student = f"{self.student_folder}/student.ckpt"
        self.distilled = self.student_of("distilled/{teacher}/{student}/{loss}/k{n_clusters}/seed{seed}")
        self.supervised = self.student_of("supervised/{student}/seed{seed}")
        self.untrained = self.student_of("untrained/{student}/seed{seed}")
        self.task_embeddings = f"{results}/embeddings/{{model}}/{{task}}.h5"
        self.scores = f"{results}/probes/{{model}}/{{task}}.json"
        self.benchmarks = f"{results}/benchmarks"
        # Written when a run starts. It is not an input of any rule, so a change of it runs no job again.
        self.rule_graph = ".snakemake/ssondo/rule_graph.json"

    def shards(self, split: str) -> list[str]:
        """Return the names of a split's shards: "0000", "0001" and so on."""
        return [shard_label(i) for i in range(self._n_shards[split])]

    def shard_paths(self, stage: str, split: str) -> list[str]:
        """Return the paths of all shards of a stage ("fetched", "audio", "embeddings/TEACHER") and split."""
        return [f"{self.data}/{stage}/{split}-{shard}.h5" for shard in self.shards(split)]

    def student_of(self, model: str) -> str:
        """Return the folder of a student."""
        return self.student_folder.format(model=model)

    def table(self, name: str) -> str:
        """Return the path of a table or figure; without a suffix, the suffix is to be appended."""
        return f"{self.results}/{name}"

    def log(self, name: str) -> str:
        """Return the path of a rule's log."""
        return f"{self.results}/logs/{name}.log"

    def benchmark(self, name: str) -> str:
        """Return the path of the file in which Snakemake records the run time of a rule."""
        return f"{self.benchmarks}/{name}.tsv"
