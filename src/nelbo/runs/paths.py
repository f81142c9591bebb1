"""Files in the folder of a run or a sweep, relative to it, where a format module does not name its own."""

CONFIG, HYDRA, OVERRIDES = ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"
SUMMARY = "summary.json"
DATA = "data_record.json"  # of what a run is trained on
EVALUATION = "evaluation.json"  # in place of the summary, where a trained model was evaluated
REPORT = "report.html"
SAMPLES = "samples"
LAST, PREVIOUS = "checkpoints/last.ckpt", "checkpoints/previous.ckpt"
CHECKPOINTS = (LAST, PREVIOUS)  # newest first
SWEEP, SWEEP_TABLE = "multirun.yaml", "sweep.csv"  # of a sweep, whose jobs have folders of their own
